//! The lab: the nodes of a topology as network namespaces on this machine, an agent in each.
//!
//! Nothing of it appears on the host's network: two bridges, for management and for the database, are in a namespace of
//! the lab's own. One process, the keeper, holds all namespaces open and is the parent of all agents; when it ends,
//! however it ends, the kernel takes everything away. A lab may have one more host, the controller's, which is on the
//! management network alone. [`State`] is what other processes know of it.

mod agents;
mod control;
mod dress;
mod keeper;
mod layout;
mod programs;
mod state;

pub use control::ControlError;
pub use keeper::{KeepError, keep};
pub use layout::{CONTROLLER, Family, Layout, LayoutError, MAX_NODES, Member};
pub use programs::{EndedProgram, Program, by_name};
pub use state::{Ended, Lab, LabDirectory, LabError, State};
