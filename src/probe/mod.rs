//! Measurement of the network between the nodes, compared with what is in force.
//!
//! The agent sends ICMP echo requests ([`echo`]); the other node's kernel answers. The controller judges every ordered pair
//! by its [`Expectation`] ([`Report`]). Agents also record the requests that arrive, because a one-way cut of the answers
//! looks like a cut of both directions to the sender; and the packets that their own firewall drops.

mod discards;
mod echo;
mod expectation;
mod filtered;
mod ledger;
mod packet;
mod report;
mod socket;
mod tap;

pub use echo::echo;
pub use expectation::{Expectation, Tolerance, latest_answer, probe_spacing};
pub use filtered::Filtered;
pub use ledger::{Ledger, Sample, check};
pub use report::{Expected, Measured, Pair, Report, Verdict, judge, noise_ns};
