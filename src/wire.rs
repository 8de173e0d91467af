//! What the fleet and an agent say to each other: one request and one reply type a call, errors with a stable code.
//!
//! Each call is `POST` of the request's JSON to its path; the answer is the reply's JSON, or an [`ApiError`] with a
//! status code from 400 up. Changing many nodes is a transaction under a ticket that the controller draws:
//! [`Prepare`] on all, then [`Commit`] on all, then [`Confirm`] on all, or [`Undo`] on all if any of them failed. What is
//! committed and not confirmed in time is taken back by the agents themselves, as in NETCONF (RFC 6241, 8.4). All four
//! may be repeated when an answer was lost. A last [`Confirm`] says that all nodes have confirmed it.

mod probe;

use std::{collections::BTreeSet, fmt, net::IpAddr, path::PathBuf, time::Duration};

use ipnetwork::IpNetwork;
pub use probe::{Discards, Echoes, Heard, Mute, Probe, Probed};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use thiserror::Error;

use crate::{
    plan::{
        Absent, Change, Cut, ForeignObject, IfName, Inventory, Moment, Place, Port, Profile, Stamp, Tally, TimedId,
        Wanted, is_link_local, nanos,
    },
    topology::NodeName,
};

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
    Undo => "/v1/undo", Undone;
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

/// Asks which machine this is: what an inventory is made of.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct GetHost {}

/// The machine that an agent runs on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Host {
    /// Which node it is, as the agent's config says.
    pub node: NodeName,
    /// Whether a config of the host says which node it is. Else the host is called so by itself or by its last command.
    #[serde(default)]
    pub is_configured: bool,
    /// The agent's version.
    pub version: String,
    /// The running kernel's release.
    pub kernel: String,
    /// Its interfaces, the loopback aside.
    pub interfaces: Vec<HostInterface>,
}

/// One interface of a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact by itself")]
pub struct HostInterface {
    /// Its name.
    pub name: IfName,
    /// Its hardware address, as in `02:4e:7e:4e:00:01`; `None`: it has none.
    pub mac: Option<String>,
    /// Its addresses, each with the length of its network's prefix, IPv4 first.
    #[cfg_attr(test, schemars(with = "Vec<String>"))]
    pub addresses: Vec<IpNetwork>,
    /// Whether it carries packets at this moment.
    pub is_up: bool,
    /// How many bytes a packet may have on it.
    pub mtu: u32,
    /// Its speed in Mbit/s; `None`: it does not know.
    pub speed_mbit: Option<u32>,
    /// Whether a default route leaves by it.
    pub carries_default_route: bool,
    /// The routers of the routes by it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub gateways: BTreeSet<IpAddr>,
    /// Whether packets that arrive by other interfaces may be sent on by it.
    #[serde(default)]
    pub forwards: bool,
    /// Whether an XDP program sees what it receives before netemctl's filters do.
    #[serde(default)]
    pub has_xdp: bool,
    /// Whether the agent's config allows to shape it.
    pub is_allowed: bool,
}

/// Packets that a node sends to networks behind other nodes. They are neither delayed nor cut.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Routed {
    /// The nodes that are the routers.
    pub through: BTreeSet<NodeName>,
    /// Whether these may be packets of others, which the node forwards.
    pub forwards: bool,
}

impl Host {
    /// What the host sends by its interface of the inventory to networks behind other nodes; `None`: no route leads there.
    pub fn routed(&self, inventory: &Inventory) -> Option<Routed> {
        let interface = &inventory.nodes.get(&self.node)?.interface;
        let interface = self.interfaces.iter().find(|own| own.name == *interface)?;
        let is_router = |(node, place): &(&NodeName, &Place)| {
            **node != self.node && place.addresses.iter().any(|address| interface.gateways.contains(address))
        };
        let through: BTreeSet<NodeName> =
            inventory.nodes.iter().filter(is_router).map(|(node, _)| node.clone()).collect();
        (!through.is_empty()).then_some(Routed { through, forwards: interface.forwards })
    }
}

impl HostInterface {
    /// The addresses that other nodes can send to: all but link-local ones of IPv6, which mean nothing without an
    /// interface.
    pub fn reachable(&self) -> impl Iterator<Item = IpAddr> {
        let mut seen = BTreeSet::new();
        let addresses = self.addresses.iter().map(IpNetwork::ip).filter(|address| !is_link_local(address));
        addresses.filter(move |address| seen.insert(*address))
    }

    /// Its link-local addresses of IPv6, by which nodes on the same link reach it.
    pub fn link_local(&self) -> impl Iterator<Item = IpAddr> {
        self.addresses.iter().map(IpNetwork::ip).filter(is_link_local)
    }
}

/// Asks what is in force, compared with the kernel at this moment.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct GetStatus {}

/// Asks what the kernel has counted of what is in force.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct GetCounters {}

/// The kernel's counters of one node.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Counted {
    /// The node.
    pub node: NodeName,
    /// The interface.
    pub interface: IfName,
    /// What was sent to other nodes, by what delays it.
    pub links: Vec<LinkCounted>,
    /// What was cut.
    pub cuts: Vec<CutCounted>,
}

/// What became of the packets that one leaf delays.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LinkCounted {
    /// What the leaf does.
    pub profile: Profile,
    /// The addresses whose packets go through it.
    pub addresses: BTreeSet<IpAddr>,
    /// What it has sent, since its class was made.
    pub sent: Tally,
    /// How many packets it has dropped: those that are lost as asked, and those that did not fit into its queue.
    pub dropped: u64,
    /// How many of them did not fit, at the least; `None`: they cannot be told from losses in bursts or marks.
    pub overflowed: Option<u64>,
}

/// What one filter has cut.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CutCounted {
    /// What it cuts.
    pub cut: Cut,
    /// What it has cut, since it was written.
    pub dropped: Tally,
}

/// Asks which wanted state is in force, by name: all nodes are asked for this, and one of them for the whole.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct GetStamp {}

/// Asks for the wanted state, as a whole.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct GetWanted {}

/// The wanted state that a node has. All nodes have the same, although what lasts for a time may end on one of them a
/// few milliseconds before it ends on another.
#[derive(Debug, Default, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Document {
    /// The document, as its stamp names it.
    pub wanted: Wanted,
    /// What of it is not in force at this moment, as the node knows by its own clock.
    pub absent: Absent,
    /// When what has a time began or will, where the document only says that it is not before.
    pub begins: Vec<Beginning>,
    /// True if the node takes it back unless its controller confirms it.
    #[serde(default)]
    pub unconfirmed: bool,
    /// For how long changes that leave out nodes wait for the controller that made the last change, which may still undo
    /// it; `None`: it said that all nodes have confirmed it.
    #[serde(rename = "unfinished_ns", with = "nanos::option", default)]
    #[cfg_attr(test, schemars(with = "Option<u64>"))]
    pub unfinished: Option<Duration>,
}

/// When something of a document began or will.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Beginning {
    /// What.
    pub of: TimedId,
    /// When.
    pub at: Moment,
}

impl Document {
    /// The document without what is over for good: what an edit starts from.
    pub fn lasting(&self) -> Wanted {
        self.on_time(self.wanted.without(&self.absent.ended))
    }

    /// What is in force at this moment.
    pub fn in_force(&self) -> Wanted {
        self.on_time(self.wanted.in_force(&self.absent))
    }

    /// With every partition beginning when it does.
    fn on_time(&self, mut wanted: Wanted) -> Wanted {
        for partition in &mut wanted.partitions {
            let own = partition.id();
            let begins = self.begins.iter().find(|beginning| beginning.of == own).map(|beginning| beginning.at);
            if let (Some(timing), Some(begins)) = (&mut partition.timing, begins) {
                timing.begins = begins;
            }
        }
        wanted
    }
}

/// Asks an agent what it would do, without a transaction: nothing waits for it, and nobody is kept out.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The document that the agent is believed to have; another one means that somebody else was faster.
    pub base: Stamp,
    /// The document that it would have.
    pub wanted: Wanted,
}

/// Asks an agent to check everything and compute its change, without writing anything.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Prepare {
    /// The transaction.
    pub ticket: Ticket,
    /// The document that the agent is believed to have; another one means that somebody else was faster.
    pub base: Stamp,
    /// The document that it is to have.
    pub wanted: Wanted,
}

/// What an agent would do.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Prepared {
    /// The interface.
    pub interface: IfName,
    /// The steps.
    pub change: Change,
    /// What the steps do not change, such as an interface that is down, or a qdisc that holds what somebody else put there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// What the node's clock showed; `None`: the agent does not say so.
    #[serde(default)]
    pub clock: Option<ClockReading>,
}

/// What a node's wall clock showed as it got a request and as it answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ClockReading {
    /// As it began with the request.
    pub asked: Moment,
    /// As it answered.
    pub answered: Moment,
}

/// Asks an agent to do what it prepared, and to read it back.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Commit {
    /// The transaction.
    pub ticket: Ticket,
    /// When, on all nodes at once, by the controller's clock; `None`: as soon as possible.
    #[serde(default)]
    pub at: Option<Moment>,
    /// By how many nanoseconds the node's clock is ahead of the controller's. All moments of the change are by the
    /// controller's clock: this one, those in the document, and those in the answer.
    #[serde(default)]
    pub clock_ahead_ns: i64,
    /// How long the node then has it, unless it is told to keep it.
    #[serde(rename = "confirm_within_ns", with = "nanos", default = "confirm_within")]
    #[cfg_attr(test, schemars(with = "u64"))]
    pub confirm_within: Duration,
}

/// How long a node has a change that nobody confirms. All nodes have to do it and to say so within that time.
pub const CONFIRM_WITHIN: Duration = Duration::from_secs(15);

fn confirm_within() -> Duration {
    CONFIRM_WITHIN
}

/// What an agent has done.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Committed {
    /// What is in force now, read back from the kernel.
    pub stamp: Stamp,
    /// How many steps were written to the kernel.
    pub writes: usize,
    /// When packets began to fare otherwise; `None`: they do not.
    pub onset: Option<Onset>,
    /// How much later than the agreed instant it was by the node's clock when it was told, if that is too much for a
    /// busy moment: the clocks differ.
    #[serde(rename = "told_late_ns", with = "nanos::option", default)]
    #[cfg_attr(test, schemars(with = "Option<u64>"))]
    pub told_late: Option<Duration>,
    /// What the partitions had cut here that this change ends.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ended: Vec<PartitionEnded>,
}

/// What a partition has cut that is no longer in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PartitionEnded {
    /// Its name.
    pub name: String,
    /// Which packets it cut; none: all.
    pub ports: BTreeSet<Port>,
    /// How many packets its filters had dropped, since they were written.
    pub cut: u64,
}

/// When a change took effect on a node, by its own clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Onset {
    /// When the kernel acknowledged the first write that changes what becomes of packets.
    pub first: Moment,
    /// When it acknowledged the last one.
    pub last: Moment,
}

/// Tells an agent that all nodes have the change, so that it keeps it, or that all have confirmed it.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Confirm {
    /// The transaction.
    pub ticket: Ticket,
    /// True if all nodes have confirmed it. It can no longer be undone then, and neither can those before it.
    #[serde(default)]
    pub by_all: bool,
}

/// The change is in force until another one comes.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Confirmed {
    /// What is in force.
    pub stamp: Stamp,
}

/// Asks an agent to forget what it prepared, or to go back to what it had before it committed.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Undo {
    /// The transaction. One that the agent does not know needs no undoing.
    pub ticket: Ticket,
}

/// The transaction has left nothing on the node, or can no longer be undone.
#[derive(Debug, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Undone {
    /// What is in force.
    pub stamp: Stamp,
    /// True if all nodes keep the transaction: all have confirmed it, or another one on top of it.
    #[serde(default)]
    pub kept: bool,
}

/// What is in force on one node, and whether the kernel agrees.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct NodeStatus {
    /// The node.
    pub node: NodeName,
    /// The agent's version.
    pub version: String,
    /// Which wanted state it has.
    pub stamp: Stamp,
    /// In how many seconds the node takes its last change back, which its controller has not confirmed; `None`: it has.
    #[serde(rename = "unconfirmed_s")]
    pub unconfirmed: Option<f64>,
    /// The nodes that the last change left as they were, as its document says.
    pub missing: BTreeSet<NodeName>,
    /// The name of the topology in force.
    pub topology: Option<String>,
    /// The overlays in force, in the order in which they were laid.
    pub overlays: Vec<OverlayStatus>,
    /// The partitions that are in force or will be, in the order in which they came.
    pub partitions: Vec<PartitionStatus>,
    /// The interface that is shaped, or that would be.
    pub interface: IfName,
    /// The profiles in the kernel, each with what it does now.
    pub profiles: Vec<ProfileStatus>,
    /// What the kernel drops.
    pub cuts: Vec<Cut>,
    /// What would have to be done for the kernel to have what is wanted; empty: no drift.
    pub drift: Vec<String>,
    /// How many of these, the first ones, are not the agent's to do: `netemctl apply` does not repair them.
    #[serde(default)]
    pub by_hand: usize,
    /// What keeps packets away although the kernel has what is wanted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// What somebody else put on the interface, where this is in our way.
    pub foreign: Vec<ForeignObject>,
    /// How many classes hold no traffic any more and go when they have drained.
    pub draining: usize,
    /// Where the agent writes down what is in force; `None`: nowhere, so that it forgets that when it ends.
    pub journal: Option<PathBuf>,
    /// The process that is the agent, if nobody installed one: started by ssh, it ends when it is not needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keeper: Option<u32>,
    /// What the agent has seen of what others do to the interface.
    pub watch: WatchStatus,
    /// What the agent found in its journal when it was started; `None`: nothing was in force.
    pub recovered: Option<Recovered>,
    /// What the node sends to networks behind other nodes; `None`: nothing, as far as its routes say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routed: Option<Routed>,
}

/// What is done when the kernel no longer has what is in force.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum OnDrift {
    /// Nothing is written; it shows in the status.
    #[default]
    Report,
    /// It is brought in line again, as often as needed, but never in a tight loop.
    Repair,
}

/// What an agent has seen of what others do to its interface.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct WatchStatus {
    /// What is done about it.
    pub on_drift: OnDrift,
    /// Since when the kernel has not had what is in force, as far as is known, in UTC (RFC 3339); `None`: it has it.
    pub since: Option<String>,
    /// What has befallen the interface since the last change of ours, the newest last. The oldest are left out.
    pub incidents: Vec<Incident>,
    /// How often it was brought in line since the agent was started.
    pub repairs: u64,
    /// Why it cannot be brought in line, or not be looked at.
    pub obstacle: Option<String>,
    /// In how many seconds it is tried again at the earliest; `None`: as soon as something happens.
    #[serde(rename = "next_try_s")]
    pub next_try: Option<f64>,
    /// Why the journal could not be written; it is tried again. `None`: it says what is in force.
    pub journal_behind: Option<String>,
}

/// What an incident says as drift begins.
pub const DRIFTS: &str = "the kernel no longer has what is in force";

/// Something that has befallen an interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Incident {
    /// When the agent noticed, in UTC (RFC 3339).
    pub at: String,
    /// What.
    pub what: String,
}

/// What an agent found in its journal, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Recovered {
    /// When the agent was started, in UTC (RFC 3339).
    pub at: String,
    /// Whether the machine was started anew since the journal was written, and not only the agent.
    pub after_reboot: bool,
    /// Whether the agent had ended in the middle of a change, which was taken back.
    pub interrupted: bool,
    /// Whether what was in force was forgotten, as the agent's config says (`after-reboot`).
    pub cleared: bool,
    /// What was over by then: names of changes and partitions.
    pub ended: Vec<String>,
    /// How many steps it took until the kernel had what is in force; `None`: it does not have it yet.
    pub writes: Option<usize>,
}

/// One overlay in force on a node.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct OverlayStatus {
    /// Its name.
    pub name: String,
    /// In how many seconds the node takes it off; `None`: not by itself.
    #[serde(rename = "left_s")]
    pub left: Option<f64>,
}

/// One partition on a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PartitionStatus {
    /// Its name.
    pub name: String,
    /// Whether it is in force at this moment, and not yet to begin or between two turns.
    pub is_on: bool,
    /// In how many seconds it is over for good; `None`: not by itself.
    #[serde(rename = "left_s")]
    pub left: Option<f64>,
    /// In how many seconds it comes into force or goes out of it; `None`: not by itself.
    #[serde(rename = "next_change_s")]
    pub next_change: Option<f64>,
    /// How many packets its filters on this node have dropped, since they were written; `None`: it has no filters here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut: Option<u64>,
}

/// One profile in the kernel.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ProfileStatus {
    /// The parameters, read back.
    #[serde(flatten)]
    pub profile: Profile,
    /// How many addresses are sent through it.
    pub addresses: usize,
    /// How many packets are in it at this moment.
    pub queued: u32,
}

/// Why an agent did not do what it was asked.
#[derive(Debug, Clone, Error, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[error("{message}")]
pub struct ApiError {
    /// What kind of failure; programs decide by it.
    pub code: ErrorCode,
    /// A sentence for people: what is wrong, and what to do.
    pub message: String,
}

impl ApiError {
    /// An error of kind `code`.
    pub fn new(code: ErrorCode, message: impl fmt::Display) -> Self {
        Self { code, message: message.to_string() }
    }
}

impl ApiError {
    /// What an agent answered with this HTTP status, if it is an error of an agent. A kind that this version does not know is
    /// told by the status, and the sentence is kept.
    pub fn read(status: u16, body: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Said {
            code: String,
            message: String,
        }
        let Said { code, message } = serde_json::from_slice(body).ok()?;
        let known = serde_json::from_value(serde_json::Value::String(code));
        let by_status = |_| match status {
            400 => ErrorCode::BadRequest,
            403 => ErrorCode::Refused,
            409 => ErrorCode::Conflict,
            501 => ErrorCode::Unsupported,
            _ => ErrorCode::Failed,
        };
        Some(Self { code: known.unwrap_or_else(by_status), message })
    }
}

/// The kinds of failure; they are part of the contract and never change their meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum ErrorCode {
    /// The request makes no sense.
    BadRequest,
    /// The agent's guard refuses: the interface is not allowed, not the database's, or carries somebody else's work.
    Refused,
    /// The kernel cannot do what is asked.
    Unsupported,
    /// The agent lacks the right to do it.
    Permission,
    /// Another controller changed the state, or is changing it.
    Conflict,
    /// The kernel failed; the node is as it was.
    Failed,
    /// The kernel failed, and so did undoing it: the node is neither as it was nor as wanted.
    Broken,
}

impl ErrorCode {
    /// The HTTP status that goes with it.
    pub fn status(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Refused | Self::Permission => 403,
            Self::Conflict => 409,
            Self::Unsupported => 501,
            Self::Failed | Self::Broken => 500,
        }
    }
}
