//! Judges what else handles the packets of a node: connection tracking, firewalls, and programs.

use std::collections::BTreeSet;

use super::{Check, Fact, Facts, Filtering, Finding};

/// The share of the connection table in use that is a problem, and the share that is noted, in percent. A full table drops
/// packets of new connections (`nf_conntrack: table full, dropping packet`).
const FULL: u64 = 90;
const HALF_FULL: u64 = 50;

/// A program that changes interfaces, qdiscs or sysctls.
struct NetworkProgram {
    name: &'static str,
    effect: &'static str,
    remedy: &'static str,
}

const NETWORK_PROGRAMS: [NetworkProgram; 7] = [
    NetworkProgram {
        name: "NetworkManager",
        effect: "it can set an interface down, and replaces the qdiscs of an interface by those of its profile",
        remedy: "nmcli device set INTERFACE managed no",
    },
    NetworkProgram {
        name: "tuned",
        effect: "its profile sets sysctls of TCP again at each start",
        remedy: "systemctl stop tuned, or write a profile",
    },
    NetworkProgram {
        name: "cilium-agent",
        effect: "it attaches BPF programs (tcx, XDP) to interfaces, which see packets before netemctl's filters",
        remedy: "leave the interface out: cilium config set devices OTHER; see: bpftool net",
    },
    NetworkProgram {
        name: "calico-node",
        effect: "its BPF mode attaches programs to interfaces, which see packets before netemctl's filters",
        remedy: "leave the interface out: bpfDataIfacePattern; see: bpftool net",
    },
    NetworkProgram {
        name: "chaos-daemon",
        effect: "it replaces qdiscs during its own experiments",
        remedy: "end the experiments of Chaos Mesh",
    },
    NetworkProgram {
        name: "chaosd",
        effect: "it replaces qdiscs during its own experiments",
        remedy: "systemctl stop chaosd",
    },
    NetworkProgram { name: "pumba", effect: "it replaces qdiscs during its own experiments", remedy: "end pumba" },
];

/// True if a program of this name changes interfaces, qdiscs or sysctls.
pub fn is_network_program(name: &str) -> bool {
    NETWORK_PROGRAMS.iter().any(|program| program.name == name)
}

pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![tracking(&facts.filtering), firewall(&facts.filtering)];
    match &facts.programs {
        Fact::Known(programs) => findings.extend(network_programs(programs)),
        Fact::NotKnown(why) => findings.push(Check::Programs.not_known("the programs of the node", why)),
    }
    findings
}

fn tracking(filtering: &Filtering) -> Finding {
    let (Some(tracked), Some(limit)) = (&filtering.tracked, &filtering.tracked_limit) else {
        return Check::Conntrack.ok("connections are not tracked");
    };
    let known = match (tracked, limit) {
        (Fact::Known(tracked), Fact::Known(limit)) => Ok((*tracked, *limit)),
        (Fact::NotKnown(why), _) | (_, Fact::NotKnown(why)) => Err(why),
    };
    let (tracked, limit) = match known {
        Ok(known) => known,
        Err(why) => return Check::Conntrack.not_known("the table of tracked connections", why),
    };
    let share = tracked * 100 / limit.max(1);
    if share < HALF_FULL {
        return Check::Conntrack.ok("the table of tracked connections has room");
    }
    let text = format!("the table of tracked connections is {share} % full ({limit} entries)");
    let finding = if share < FULL { Check::Conntrack.note(text) } else { Check::Conntrack.problem(text) };
    finding
        .effect("a full table drops new connections, and after a partition connections stay in it until their timeout")
        .remedy(format!("sysctl -w net.netfilter.nf_conntrack_max={}", limit.saturating_mul(4)))
}

fn firewall(filtering: &Filtering) -> Finding {
    let chains = match &filtering.chains {
        Fact::Known(chains) => chains,
        Fact::NotKnown(why) => return Check::Firewall.not_known("the firewall rules", why),
    };
    let dropping: BTreeSet<&str> = chains.iter().filter(|chain| chain.drops).map(|chain| chain.name.as_str()).collect();
    if !dropping.is_empty() {
        let names = dropping.into_iter().collect::<Vec<_>>().join(", ");
        return Check::Firewall
            .note(format!("a firewall drops packets that no rule accepts: {names}"))
            .effect("packets of the experiment can be lost in addition to the topology's cuts; verify names such nodes")
            .remedy("accept ICMP echo and the ports of the experiment; see the rules: nft list ruleset");
    }
    Check::Firewall.of("the rules of iptables-legacy", &filtering.legacy_tables, |tables| {
        if chains.is_empty() && tables.is_empty() {
            return Check::Firewall.ok("no firewall has rules");
        }
        Check::Firewall.ok("a firewall has rules, and accepts packets by default")
    })
}

fn network_programs(programs: &BTreeSet<String>) -> Vec<Finding> {
    let running = NETWORK_PROGRAMS.into_iter().filter(|program| programs.contains(program.name));
    let found: Vec<_> = running
        .map(|NetworkProgram { name, effect, remedy }| {
            Check::Programs.note(format!("{name} runs")).effect(effect).remedy(remedy)
        })
        .collect();
    if found.is_empty() { vec![Check::Programs.ok("no known program changes qdiscs or sysctls")] } else { found }
}
