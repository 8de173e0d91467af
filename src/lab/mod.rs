//! Runs a lab on this machine: each node of a topology is a network namespace with an agent.
//!
//! The host's network does not change. A separate namespace of the lab has two bridges: one for management, one for the
//! database. One process, the keeper, holds all namespaces and is the parent of all agents. When the keeper ends, the
//! kernel removes the lab. A lab may have one more host, the controller, on the management network only. Other
//! processes find the lab by its [`State`].

mod agents;
mod control;
mod keeper;
mod layout;
mod node_files;
mod programs;
mod resolver;
mod state;

pub use control::ControlError;
pub use keeper::{KeepError, keep};
pub use layout::{CONTROLLER, Family, Layout, LayoutError, MAX_NODES, Member};
pub use programs::{EndedProgram, Program, by_name};
pub use state::{Ended, Lab, LabDirectory, LabError, State};
