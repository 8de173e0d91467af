//! The lab: the nodes of a topology as network namespaces on this machine, an agent in each.
//!
//! The host's network does not change: two bridges, for management and for the database, are in a namespace of the lab.
//! One process, the keeper, holds all namespaces and is the parent of all agents; when it ends, the kernel removes the
//! lab. A lab may have one more host, the controller, on the management network only. Other processes find the lab by
//! its [`State`].

mod agents;
mod control;
mod keeper;
mod layout;
mod node_files;
mod programs;
mod state;

pub use control::ControlError;
pub use keeper::{KeepError, keep};
pub use layout::{CONTROLLER, Family, Layout, LayoutError, MAX_NODES, Member};
pub use programs::{EndedProgram, Program, by_name};
pub use state::{Ended, Lab, LabDirectory, LabError, State};
