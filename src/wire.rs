//! Defines the API of an agent: a request type and a reply type for each call, and errors with a stable code.
//!
//! A call is a `POST` of the request's JSON to its path. The answer is the reply's JSON, or an [`ApiError`] with a
//! status code from 400 up.
//!
//! A change of many nodes is a transaction with a random [`Ticket`]. The controller sends [`Prepare`] to all nodes,
//! then [`GetReady`] to all, then [`Commit`] to all, then [`Confirm`] to all. A last [`Confirm`] tells the nodes that all nodes have confirmed.
//! After a failure, the controller sends [`Rollback`] to all nodes. An agent rolls back a commit that is not confirmed
//! in time, as in NETCONF (RFC 6241, section 8.4). Each of these requests may be repeated after a lost answer.

mod change;
mod error;
mod facts;
mod host;
mod probe;
mod status;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub(crate) use self::change::new_document;
pub use self::{
    change::{
        Beginning, CONFIRM_WITHIN, ClockReading, Commit, Committed, Confirm, Confirmed, Document, GetReady, GetStamp,
        GetWanted, Onset, PartitionEnded, Plan, Prepare, Prepared, Rollback, RolledBack,
    },
    error::{ApiError, ErrorCode},
    facts::{GetFacts, HostFacts},
    host::{GetHost, Host, HostInterface, Routed},
    probe::{Discards, Echoes, Heard, Mute, Probe, Probed},
    status::{
        Counted, CutCounted, DRIFTS, GetCounters, GetStatus, Incident, LinkCounted, NodeStatus, OnDrift, OverlayStatus,
        PartitionStatus, ProfileStatus, Recovered, WatchStatus,
    },
};
use crate::plan::Stamp;

/// A request to an agent.
pub trait Call: Serialize + DeserializeOwned + Send + 'static {
    /// The path of the `POST`.
    const PATH: &'static str;
    /// The reply.
    type Reply: Serialize + DeserializeOwned + Send + 'static;
}

macro_rules! calls {
    ($($request:ty => $path:literal, $reply:ty;)*) => {
        $(impl Call for $request {
            const PATH: &'static str = $path;
            type Reply = $reply;
        })*

        /// Adds every call to the description of the API.
        #[cfg(test)]
        pub(crate) fn describe_calls(schema: &mut crate::openapi::Describer) {
            $(schema.describe::<$request>();)*
        }
    };
}

calls! {
    GetHost => "/v1/host", Host;
    GetFacts => "/v1/facts", HostFacts;
    GetStatus => "/v1/status", NodeStatus;
    GetCounters => "/v1/counters", Counted;
    GetStamp => "/v1/stamp", Stamp;
    GetWanted => "/v1/wanted", Document;
    Plan => "/v1/plan", Prepared;
    Prepare => "/v1/prepare", Prepared;
    GetReady => "/v1/ready", Stamp;
    Commit => "/v1/commit", Committed;
    Confirm => "/v1/confirm", Confirmed;
    Rollback => "/v1/rollback", RolledBack;
    Probe => "/v1/probe", Probed;
}

/// The start of the line that `netemctl agent --stdio` prints before HTTP. The program's version follows.
///
/// Text before this line is the output of a login shell. The number is increased with each change of the API.
pub const GREETING: &str = "netemctl-agent 7 ";

/// The `server` header of every answer. A controller of another version recognizes the difference by this header.
pub const SERVER: &str = concat!("netemctl/", env!("CARGO_PKG_VERSION"));

/// The identifier of a transaction: a random text that the controller chooses.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct Ticket(pub String);
