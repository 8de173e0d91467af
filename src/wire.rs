//! What the fleet and an agent say to each other: one request and one reply type a call, errors with a stable code.
//!
//! Each call is `POST` of the request's JSON to its path; the answer is the reply's JSON, or an [`ApiError`] with a
//! status code from 400 up. Changing many nodes is a transaction under a ticket that the controller draws:
//! [`Prepare`] on all, then [`Commit`] on all, then [`Confirm`] on all, or [`Rollback`] on all if any of them failed. What is
//! committed and not confirmed in time is taken back by the agents themselves, as in NETCONF (RFC 6241, 8.4). All four
//! may be repeated when an answer was lost. A last [`Confirm`] says that all nodes have confirmed it.

mod change;
mod counters;
mod error;
mod host;
mod probe;
mod status;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub use self::{
    change::{
        Beginning, CONFIRM_WITHIN, ClockReading, Commit, Committed, Confirm, Confirmed, Document, GetStamp, GetWanted,
        Onset, PartitionEnded, Plan, Prepare, Prepared, Rollback, RolledBack,
    },
    counters::{Counted, CutCounted, GetCounters, LinkCounted},
    error::{ApiError, ErrorCode},
    host::{GetHost, Host, HostInterface, Routed},
    probe::{Discards, Echoes, Heard, Mute, Probe, Probed},
    status::{
        DRIFTS, GetStatus, Incident, NodeStatus, OnDrift, OverlayStatus, PartitionStatus, ProfileStatus, Recovered,
        WatchStatus,
    },
};
use crate::plan::Stamp;

/// A request that an agent answers.
pub trait Call: Serialize + DeserializeOwned + Send + 'static {
    /// Where it is posted to.
    const PATH: &'static str;
    /// What it is answered with.
    type Reply: Serialize + DeserializeOwned + Send + 'static;
}

macro_rules! calls {
    ($($request:ty => $path:literal, $reply:ty;)*) => {
        $(impl Call for $request {
            const PATH: &'static str = $path;
            type Reply = $reply;
        })*

        /// Every call, for its schema.
        #[cfg(test)]
        pub(crate) fn describe_calls(schema: &mut crate::openapi::Describer) {
            $(schema.describe::<$request>();)*
        }
    };
}

calls! {
    GetHost => "/v1/host", Host;
    GetStatus => "/v1/status", NodeStatus;
    GetCounters => "/v1/counters", Counted;
    GetStamp => "/v1/stamp", Stamp;
    GetWanted => "/v1/wanted", Document;
    Plan => "/v1/plan", Prepared;
    Prepare => "/v1/prepare", Prepared;
    Commit => "/v1/commit", Committed;
    Confirm => "/v1/confirm", Confirmed;
    Rollback => "/v1/rollback", RolledBack;
    Probe => "/v1/probe", Probed;
}

/// What `netemctl agent --stdio` says on a line of its own, its version behind, before it speaks HTTP. What comes before
/// that line is a login shell's. The number rises with each change of the calls.
pub const GREETING: &str = "netemctl-agent 4 ";

/// What an agent says in the `server` header of every answer, for those that do not understand the answer.
pub const SERVER: &str = concat!("netemctl/", env!("CARGO_PKG_VERSION"));

/// Names one transaction: drawn by the controller, told to every agent.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct Ticket(pub String);
