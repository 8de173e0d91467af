//! Judges the interface: its state, who else uses it, its speed, and objects of other programs.

use std::collections::BTreeSet;

use super::{Check, Fact, Facts, Finding, InterfaceFacts, Needs};
use crate::plan::{IfName, LineRate};

/// The features that make packets larger than the MTU leave TCP (Documentation/networking/segmentation-offloads.rst).
const SEGMENTATION: [&str; 3] = ["tx-tcp-segmentation", "tx-tcp6-segmentation", "tx-generic-segmentation"];

pub(super) fn judge(facts: &Facts, interface: Option<&IfName>, needs: Option<&Needs>) -> Vec<Finding> {
    let examined: Vec<_> =
        facts.interfaces.iter().filter(|(name, _)| interface.is_none_or(|only| only == *name)).collect();
    if let (Some(name), []) = (interface, examined.as_slice()) {
        let text = format!("the agent may not shape interface {name}");
        return vec![
            Check::Interface
                .problem(text)
                .effect("every change of this node is refused")
                .remedy(format!("add {name} to `interfaces` of the agent's config, or correct the inventory")),
        ];
    }
    if examined.is_empty() {
        return vec![undecided(&facts.unrouted)];
    }
    examined.into_iter().flat_map(|(name, fact)| of_one(facts, name, fact, needs)).collect()
}

/// The finding on a host whose interface is not chosen yet.
fn undecided(unrouted: &BTreeSet<String>) -> Finding {
    let names: Vec<&str> = unrouted.iter().map(String::as_str).collect();
    let finding = match names.as_slice() {
        [] => Check::Interface
            .problem("every interface carries a default route")
            .remedy("add an interface for the experiment, or allow = [\"default-route\"] in the agent's config"),
        names => Check::Interface
            .note(format!("no interface is chosen; without a default route: {}", names.join(", ")))
            .remedy(format!("netemctl doctor --interface {}", names[0])),
    };
    finding.effect("the experiment needs an interface of its own")
}

fn of_one(facts: &Facts, name: &IfName, fact: &Fact<InterfaceFacts>, needs: Option<&Needs>) -> Vec<Finding> {
    let interface = match fact {
        Fact::Known(interface) => interface,
        Fact::NotKnown(why) => {
            return vec![
                Check::Interface
                    .problem(why.clone())
                    .effect("every change of this node is refused")
                    .remedy("ip link show; correct the agent's config or the inventory"),
            ];
        }
    };
    let mut findings = vec![
        state(name, interface),
        speed(name, interface, needs),
        foreign(name, interface),
        offloads(name, interface, needs),
    ];
    findings.extend(shared(facts, name, interface));
    if interface.has_xdp {
        findings.push(
            Check::Qdiscs
                .note(format!("interface {name} has an XDP program"))
                .effect("packets that it takes or redirects do not pass netemctl's ingress filters, so cuts can leak")
                .remedy(format!("ip link set dev {name} xdp off")),
        );
    }
    findings
}

fn state(name: &IfName, interface: &InterfaceFacts) -> Finding {
    let silent = "the node sends and receives nothing on this interface";
    match interface {
        InterfaceFacts { is_up: false, .. } => Check::Interface
            .problem(format!("interface {name} is down"))
            .effect(silent)
            .remedy(format!("ip link set {name} up")),
        InterfaceFacts { has_carrier: false, .. } => {
            Check::Interface.problem(format!("interface {name} has no carrier")).effect(silent).remedy(format!(
                "check the cable and the switch: ethtool {name}; of a virtual interface, set the other end up"
            ))
        }
        InterfaceFacts { addresses, .. } if addresses.is_empty() => Check::Interface
            .problem(format!("interface {name} has no address"))
            .effect("other nodes cannot reach this node")
            .remedy(format!("ip address add ADDRESS/PREFIX dev {name}")),
        InterfaceFacts { kind, driver, mtu, tx_queues, .. } => {
            let kind =
                kind.clone().or_else(|| driver.known().cloned()).map(|kind| format!(", {kind}")).unwrap_or_default();
            let queues = tx_queues.known().map(|queues| format!(", transmit queues: {queues}")).unwrap_or_default();
            Check::Interface.ok(format!("interface {name} is up{kind}, MTU {mtu}{queues}"))
        }
    }
}

/// Judges other users of the interface. The guard of the agent refuses the problems (docs/agent.md).
fn shared(facts: &Facts, name: &IfName, interface: &InterfaceFacts) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut unless = |exception: &str, text: String, effect: &str| {
        let finding = if facts.allow.contains(exception) {
            Check::Dedicated.note(format!("{text}; the agent's config allows it"))
        } else {
            Check::Dedicated.problem(text).remedy(format!(
                "use an interface of its own for the experiment, or allow = [\"{exception}\"] in the agent's config"
            ))
        };
        findings.push(finding.effect(effect));
    };
    if !interface.default_routes.is_empty() {
        let own = interface.default_routes.contains(name.as_str());
        let through: Vec<&str> = interface.default_routes.iter().map(String::as_str).collect();
        let through = if own { String::new() } else { format!(" (of {})", through.join(", ")) };
        unless(
            "default-route",
            format!("interface {name} carries a default route{through}"),
            "traffic to nodes of the experiment shares its queues with other traffic",
        );
    }
    if interface.carries_controller {
        unless(
            "controller",
            format!("interface {name} carries the controller's connection"),
            "a partition can cut the connection, and the heal does not arrive",
        );
    }
    if let Some(master) = &interface.master {
        unless(
            "bridge",
            format!("interface {name} is a port of {master}"),
            "traffic of other interfaces goes through it",
        );
    }
    if !interface.above.is_empty() {
        let above: Vec<&str> = interface.above.iter().map(String::as_str).collect();
        findings.push(
            Check::Dedicated
                .note(format!("{} send through interface {name}", above.join(", ")))
                .effect("their packets to nodes of the experiment are delayed and cut, too"),
        );
    }
    if interface.forwards {
        findings.push(
            Check::Dedicated
                .note(format!("the host forwards packets to interface {name}"))
                .effect("packets of other hosts to nodes of the experiment are delayed and cut, too")
                .remedy(
                    "sysctl -w net.ipv4.ip_forward=0 net.ipv6.conf.all.forwarding=0, unless the experiment needs it",
                ),
        );
    }
    if findings.is_empty() {
        findings.push(Check::Dedicated.ok(format!("only the experiment uses interface {name}")));
    }
    findings
}

fn foreign(name: &IfName, interface: &InterfaceFacts) -> Finding {
    Check::Qdiscs.of(&format!("the qdiscs of interface {name}"), &interface.foreign, |objects| {
        if objects.is_empty() {
            return Check::Qdiscs.ok(format!("no other program has qdiscs or filters on interface {name}"));
        }
        let objects: BTreeSet<_> =
            objects.iter().map(|object| (object.what.as_str(), object.remove.as_str())).collect();
        let what: Vec<&str> = objects.iter().map(|(what, _)| *what).collect();
        let remove: BTreeSet<&str> = objects.iter().map(|(_, remove)| *remove).collect();
        Check::Qdiscs
            .problem(format!("interface {name} has objects of other programs: {}", what.join("; ")))
            .effect("every change is refused, because netemctl removes no object of others")
            .remedy(remove.into_iter().collect::<Vec<_>>().join(" && "))
    })
}

/// Judges the speed against the rates of the links. Without a known speed, queues have room for [`LineRate::UNKNOWN`].
fn speed(name: &IfName, interface: &InterfaceFacts, needs: Option<&Needs>) -> Finding {
    let wanted = needs.map_or(0, |needs| needs.highest_rate);
    match &interface.speed_mbit {
        Fact::Known(mbit) if wanted > u64::from(*mbit) * 1_000_000 => Check::Speed
            .problem(format!("interface {name} has {mbit} Mbit/s; a link has {} Mbit/s", wanted / 1_000_000))
            .effect("the link does not reach its rate")
            .remedy(format!("lower the link's rate in the topology, or check the speed: ethtool {name}")),
        Fact::Known(mbit) => Check::Speed.ok(format!("interface {name} has {mbit} Mbit/s")),
        Fact::NotKnown(why) => Check::Speed
            .not_known(&format!("the speed of interface {name}"), why)
            .effect(format!("automatic queue limits assume {} Mbit/s", LineRate::UNKNOWN.mbit())),
    }
}

/// Judges segmentation against random links.
///
/// netem draws one lot for each packet that it gets (`netem_enqueue`), and TCP gives it packets of up to 64 kB. Only for
/// corruption, netem splits them first.
fn offloads(name: &IfName, interface: &InterfaceFacts, needs: Option<&Needs>) -> Finding {
    let is_random = needs.is_some_and(|needs| needs.is_random);
    Check::Offloads.of(&format!("the offloads of interface {name}"), &interface.features, |features| {
        let is_on = SEGMENTATION.into_iter().any(|feature| features.contains(feature));
        match (is_on, is_random) {
            (true, true) => Check::Offloads
                .note(format!("segmentation is on at interface {name}, and links lose or reorder packets"))
                .effect("netem loses or reorders up to 64 kB of TCP data at once, so losses come in bursts")
                .remedy(format!("ethtool -K {name} gso off tso off")),
            (true, false) => Check::Offloads.ok(format!("segmentation is on at interface {name}; no link is random")),
            (false, _) => Check::Offloads.ok(format!("segmentation is off at interface {name}")),
        }
    })
}
