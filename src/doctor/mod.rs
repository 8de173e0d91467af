//! Judges the facts about hosts before an experiment: what is wrong, its effect, and the command that mends it.
//!
//! [`Facts`] come from an agent. [`Needs`] come from the topology. [`judge`] compares them for one node, and [`compare`]
//! compares the nodes with each other. Both are pure. Every threshold has its reason at its constant: the kernel's
//! documentation, its source, or a measurement.

mod facts;
mod fleet;
mod interface;
mod kernel;
mod needs;
mod tcp;
#[cfg(test)]
pub(crate) mod tests;
mod time;
mod traffic;

use serde::Serialize;

pub use self::{
    facts::{
        Fact, Facts, Filtering, FirewallChain, InterfaceFacts, KernelFacts, ModuleState, NeighbourTable, Rights,
        TcpFacts, TimeFacts, Trial,
    },
    fleet::compare,
    kernel::MODULES,
    needs::{AllNeeds, Demand, Needs},
    traffic::is_network_program,
};
use crate::plan::IfName;

/// One thing that was checked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Finding {
    /// The verdict.
    pub level: Level,
    /// What was checked.
    pub check: Check,
    /// The fact.
    pub text: String,
    /// The effect on the experiment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effect: Option<String>,
    /// The command that mends it, or what to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// The verdict on one fact, the worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// The experiment fails, or its network is not that of the topology.
    Problem,
    /// The experiment works, but the fact can change its figures. Also: a fact that is not known.
    Note,
    /// Nothing to do.
    Ok,
}

/// What was checked. The names never change, so programs can rely on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Check {
    /// The kernel's support for delays and cuts.
    Shaping,
    /// The kernel's support for `--mode reject`.
    Rejecting,
    /// The capabilities of the agent.
    Capabilities,
    /// The agent's right to make a namespace for dry runs.
    Namespaces,
    /// The interface exists, is up, and has an address.
    Interface,
    /// Only the experiment uses the interface.
    Dedicated,
    /// The speed of the interface.
    Speed,
    /// The largest packet of the interface.
    Mtu,
    /// The features of the interface, such as segmentation.
    Offloads,
    /// Objects of other programs on the interface.
    Qdiscs,
    /// Programs that change interfaces, qdiscs or sysctls.
    Programs,
    /// The neighbour tables.
    Neighbours,
    /// The receive buffer of TCP.
    TcpRmem,
    /// The send buffer of TCP.
    TcpWmem,
    /// `tcp_limit_output_bytes`.
    TcpOutput,
    /// The receive queues of the CPUs.
    Backlog,
    /// The resolution of timers, and the clock source.
    Timers,
    /// The load of the CPUs.
    Cpu,
    /// The idle states of the CPUs.
    Idle,
    /// The synchronisation of the clocks.
    Clock,
    /// Connection tracking.
    Conntrack,
    /// Firewalls.
    Firewall,
    /// Differences between the nodes' kernels.
    Kernels,
}

impl Check {
    fn found(self, level: Level, text: impl Into<String>) -> Finding {
        Finding { level, check: self, text: text.into(), effect: None, remedy: None }
    }

    fn ok(self, text: impl Into<String>) -> Finding {
        self.found(Level::Ok, text)
    }

    fn note(self, text: impl Into<String>) -> Finding {
        self.found(Level::Note, text)
    }

    fn problem(self, text: impl Into<String>) -> Finding {
        self.found(Level::Problem, text)
    }

    /// A note that a fact is not known.
    fn not_known(self, what: &str, why: &str) -> Finding {
        self.note(format!("not known: {what} ({why})"))
    }

    /// The findings about a fact, or the note that the fact is not known.
    fn of<T>(self, what: &str, fact: &Fact<T>, judge: impl FnOnce(&T) -> Finding) -> Finding {
        match fact {
            Fact::Known(value) => judge(value),
            Fact::NotKnown(why) => self.not_known(what, why),
        }
    }
}

impl Finding {
    fn effect(self, effect: impl Into<String>) -> Self {
        Self { effect: Some(effect.into()), ..self }
    }

    fn remedy(self, remedy: impl Into<String>) -> Self {
        Self { remedy: Some(remedy.into()), ..self }
    }
}

/// Judges the facts about one host.
///
/// `interface`: the interface to shape; `None`: all interfaces that the agent may shape. `needs`: what the topology needs
/// of this node; `None`: no topology is given, and none is in force.
pub fn judge(facts: &Facts, interface: Option<&IfName>, needs: Option<&Needs>) -> Vec<Finding> {
    let mut findings = kernel::judge(facts);
    findings.extend(interface::judge(facts, interface, needs));
    findings.extend(tcp::judge(facts, interface, needs));
    findings.extend(time::judge(&facts.time, needs));
    findings.extend(traffic::judge(facts));
    findings.sort();
    findings
}
