//! Computes the steps that bring the kernel of a node to the state that the wanted-state document describes.
//!
//! ```text
//! Wanted ──shaping(node)──► Shaping ──diff(Tree)──► Change ──► kernel steps
//! ```
//!
//! All functions are pure: no I/O, no clock, no randomness. Controller and agents run the same functions. So if nothing
//! else changes the kernel, `netemctl apply` executes the steps that `netemctl plan` prints. New readers start with
//! [`Wanted`] (the wanted network), then read [`Tree`] (the state of the kernel) and [`diff()`].

mod agent_address;
mod chain;
mod chain_diff;
mod check;
mod counters;
mod cut;
mod delta;
mod dice;
mod diff;
mod distribution;
mod division;
mod draw;
mod foreign;
mod inventory;
mod leaf_mark;
mod loss;
mod missing;
mod name;
pub(crate) mod nanos;
mod node_set;
mod overlay;
mod partition;
mod profile;
mod rfc3339;
mod shaping;
mod stale;
mod step;
pub(crate) mod tc_numbers;
mod tc_text;
mod timing;
mod tree;
mod wanted;

pub use agent_address::{AGENT_PORT, AddressDefaults, AddressError, AgentAddress, HostPort, SshAddress, TransportKind};
pub use chain::{Chain, ChainFilter, CutFilter, Filters, Route};
pub use check::{DocumentError, MIN_FLAP_TIME, TIMES};
pub use counters::{Counters, LeafCount, Tally};
pub use cut::{Answer, Cut, Port, PortError, Protocol, Traffic};
pub use delta::{Delta, DeltaError};
pub use dice::Dice;
pub use diff::{Blocked, Change, diff, diff_beside_foreign};
pub use distribution::distribution_table;
pub use division::{Division, PartitionRequest, sides};
pub use draw::{Draw, DrawError, Over};
pub use foreign::{ForeignObject, Within};
pub use inventory::{IfName, Inventory, InventoryError, NodeLocation, is_link_local};
pub use leaf_mark::LeafMark;
pub use loss::{Unaddable, UnaddableLoss};
pub use missing::Missing;
pub use overlay::{Overlay, OverlayError, OverlayRequest};
pub use partition::{Mode, Partition, PartitionError, Shape};
pub use profile::{LineRate, Profile};
pub use rfc3339::MomentError;
pub use shaping::{LeafSpec, Shaping};
pub use stale::Stale;
pub use step::{Direction, Step};
pub use tc_numbers::{ClassMinor, DEFAULT_CLASS, MARK, ND_TYPES, SAMPLE_GROUP, SAMPLE_LENGTH};
pub use tc_text::tc_commands;
pub use timing::{Absent, Flap, Moment, Phase, TimedId, TimedKind, Timing};
pub use tree::{Leaf, Tree};
pub use wanted::{Digest, EditError, IncoherentLink, NamedBy, Stamp, Wanted};
