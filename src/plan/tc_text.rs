//! Writes steps as `tc` commands with the same effect, for `plan --as-tc`. The `txqueuelen` of interfaces without a
//! queue is left out.
//!
//! Tests compare the netlink messages of `crate::kernel` with the messages of `tc` for these commands, byte for byte.

use super::{
    Answer, ChainFilter, ClassMinor, Cut, CutFilter, Direction, IfName, MARK, Port, Profile, Route, SAMPLE_GROUP,
    SAMPLE_LENGTH, Step, Traffic,
    tc_numbers::{
        BURST, DEFAULT_CLASS, GATE_HANDLE, GATE_PRIORITY, PASS_PRIORITY, QUANTUM, cut_priority, route_priority,
    },
};

/// The `tc` commands for a step on an interface, in order.
pub fn tc_commands(step: &Step, interface: &IfName) -> Vec<String> {
    let dev = interface;
    let commands = match step {
        Step::AddRoot => vec![format!("qdisc add dev {dev} root handle {MARK:x}: htb default {DEFAULT_CLASS}")],
        Step::RemoveRoot => vec![format!("qdisc del dev {dev} root handle {MARK:x}:")],
        Step::AddHook => vec![format!("qdisc add dev {dev} clsact")],
        Step::RemoveHook => vec![format!("qdisc del dev {dev} clsact")],
        Step::AddClass { class, profile } => {
            let id = format!("{MARK:x}:{class:x}");
            let mark = profile.map(|profile| profile.mark()).unwrap_or_default();
            let [burst, cburst] = mark.burst_bytes().map(burst);
            let rate = format!("rate 100gbit burst {burst} cburst {cburst} quantum {QUANTUM}");
            let add = format!("class add dev {dev} parent {MARK:x}: classid {id} htb {rate}");
            let leaf = profile.map(|profile| netem("add", dev, *class, profile));
            [add].into_iter().chain(leaf).collect()
        }
        Step::RemoveClass { class, .. } => vec![format!("class del dev {dev} classid {MARK:x}:{class:x}")],
        Step::ChangeLeaf { class, to, .. } => vec![netem("change", dev, *class, *to)],
        Step::AddPass { direction, types } => types.iter().map(|kind| pass(dev, *direction, *kind)).collect(),
        Step::RemovePass { direction, .. } => {
            vec![filter("del", dev, *direction, &format!("protocol ipv6 pref {PASS_PRIORITY}"))]
        }
        Step::BuildChain { chain, filters, .. } => filters.iter().map(|filter| add(dev, *chain, filter)).collect(),
        Step::DropChain { direction, chain, .. } => vec![filter("del", dev, *direction, &format!("chain {chain}"))],
        Step::Flip { direction, to: Some(chain), .. } => {
            let place = format!("protocol all pref {GATE_PRIORITY} handle {GATE_HANDLE}");
            vec![filter("replace", dev, *direction, &format!("{place} flower skip_hw action goto chain {chain}"))]
        }
        Step::Flip { direction, to: None, .. } => {
            vec![filter("del", dev, *direction, &format!("protocol all pref {GATE_PRIORITY}"))]
        }
        Step::AddFilter { chain, filter } => vec![add(dev, *chain, filter)],
        Step::RemoveFilter { chain, filter: ours } => {
            vec![filter("del", dev, ours.direction(), &format!("{} flower", place(*chain, ours)))]
        }
        Step::ChangeRoute { chain, to, .. } => {
            vec![filter("replace", dev, Direction::Egress, &rule(*chain, &ChainFilter::Route(*to)))]
        }
    };
    commands.into_iter().map(|command| format!("tc {command}")).collect()
}

fn add(dev: &IfName, chain: u32, ours: &ChainFilter) -> String {
    filter("add", dev, ours.direction(), &rule(chain, ours))
}

/// The place of a filter, its keys and its verdict.
fn rule(chain: u32, filter: &ChainFilter) -> String {
    let place = place(chain, filter);
    match filter {
        ChainFilter::Route(Route { address, class, .. }) => {
            format!("{place} flower skip_hw dst_ip {address} classid {MARK:x}:{class:x}")
        }
        ChainFilter::Cut(CutFilter { cut: Cut { direction, address, traffic, answer }, counter, .. }) => {
            let key = match direction {
                Direction::Egress => "dst_ip",
                Direction::Ingress => "src_ip",
            };
            let port = match traffic {
                Traffic::All => String::new(),
                Traffic::ToPort { port: Port { protocol, number } } => {
                    format!(" ip_proto {protocol} dst_port {number}")
                }
                Traffic::FromPort { port: Port { protocol, number } } => {
                    format!(" ip_proto {protocol} src_port {number}")
                }
                Traffic::FragmentsOf { protocol } => format!(" ip_proto {protocol} ip_flags frag"),
            };
            let sample = match answer {
                Answer::Silence => String::new(),
                Answer::Refusal => format!("action sample rate 1 group {SAMPLE_GROUP} trunc {SAMPLE_LENGTH} "),
            };
            let counter = counter.map(|index| format!(" index {index}")).unwrap_or_default();
            format!("{place} flower skip_hw {key} {address}{port} {sample}action drop{counter}")
        }
    }
}

/// The place of a filter: its protocol, chain, priority and handle.
fn place(chain: u32, filter: &ChainFilter) -> String {
    let (address, priority, handle) = match filter {
        ChainFilter::Route(Route { address, handle, .. }) => (address, route_priority(*address), handle),
        ChainFilter::Cut(CutFilter { cut: Cut { address, answer, .. }, handle, .. }) => {
            (address, cut_priority(*address, *answer), handle)
        }
    };
    let protocol = if address.is_ipv4() { "ip" } else { "ipv6" };
    format!("protocol {protocol} chain {chain} pref {priority} handle {handle:#x}")
}

fn burst(bytes: u64) -> String {
    if bytes == BURST { "10mb".to_owned() } else { format!("{bytes}b") }
}

fn netem(verb: &str, dev: &IfName, class: ClassMinor, profile: Profile) -> String {
    format!("qdisc {verb} dev {dev} parent {MARK:x}:{class:x} handle {class:x}: netem {profile}")
}

fn filter(verb: &str, dev: &IfName, direction: Direction, rest: &str) -> String {
    match direction {
        Direction::Egress => format!("filter {verb} dev {dev} parent {MARK:x}: {rest}"),
        Direction::Ingress => format!("filter {verb} dev {dev} ingress {rest}"),
    }
}

fn pass(dev: &IfName, direction: Direction, kind: u8) -> String {
    let verdict = match direction {
        Direction::Egress => format!("classid {MARK:x}:{DEFAULT_CLASS}"),
        Direction::Ingress => "action pass".to_owned(),
    };
    let key = format!("flower skip_hw ip_proto icmpv6 type {kind} {verdict}");
    filter("add", dev, direction, &format!("protocol ipv6 pref {PASS_PRIORITY} handle {kind:#x} {key}"))
}
