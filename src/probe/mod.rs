//! Measuring: what the network between the nodes really does, compared with what is wanted.
//!
//! [`echo`] is the agent's part, ICMP echo requests from one node; [`Report`] the controller's: every ordered pair
//! judged by its [`Expectation`]. The kernel of the other node answers; that requests arrive where their answers die, on a
//! way that is cut in one direction, only the agent there can tell. It also tells what its firewall drops.

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
