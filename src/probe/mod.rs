//! Measures the network between the nodes, and compares the results with the document in force.
//!
//! The document is the topology with its overrides and partitions.
//! The agent sends ICMP echo requests ([`echo`]); the other node's kernel answers. The controller compares every
//! ordered pair with its [`Expectation`], and makes a [`Report`].
//!
//! Agents also record arriving requests. Without these records, a cut of only the answers would look to the sender like
//! a cut in both directions. Agents also count the packets that their own firewall drops.

mod discards;
mod echo;
mod expectation;
mod figures;
mod filtered;
mod ledger;
mod packet;
mod pairs;
mod report;
mod socket;
mod tap;

pub use echo::echo;
pub use expectation::{Expectation, Tolerance, latest_answer, probe_spacing};
pub(crate) use figures::percentile;
pub use filtered::Filtered;
pub use ledger::{Ledger, Sample, check};
pub use pairs::Pairs;
pub use report::{Expected, Measured, Pair, Report, Verdict, judge, noise_ns, one_way_noise_ns};
