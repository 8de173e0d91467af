//! The API of an agent: one request type and one reply type per call, and errors with a stable code.
//!
//! A call is a `POST` of the request's JSON to its path. The answer is the reply's JSON, or an [`ApiError`] with a status
//! code from 400 up. A change of many nodes is a transaction with a ticket that the controller draws: [`Prepare`] on all,
//! then [`Commit`] on all, then [`Confirm`] on all, or [`Rollback`] on all after a failure. An agent rolls back a commit
//! that is not confirmed in time, as in NETCONF (RFC 6241, section 8.4). All four may be repeated when an answer was lost.
//! A last [`Confirm`] says that all nodes have confirmed.

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

/// The start of the line that `netemctl agent --stdio` prints before HTTP; the version follows. Text before that line is a
/// login shell's. The number rises with each change of the calls.
pub const GREETING: &str = "netemctl-agent 4 ";

/// The `server` header of every answer, by which a controller of another version recognizes the difference.
pub const SERVER: &str = concat!("netemctl/", env!("CARGO_PKG_VERSION"));

/// The name of a transaction, drawn by the controller.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(transparent)]
pub struct Ticket(pub String);
