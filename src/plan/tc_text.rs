//! Writes steps as `tc` commands with the same effect, for `plan --as-tc`. The `txqueuelen` of interfaces without a
//! queue is left out.
//!
//! Tests compare the netlink messages of `crate::kernel` with the messages of `tc` for these commands, byte for byte.

use super::{
    Answer, ClassMinor, Cut, Direction, IfName, MARK, Port, Profile, SAMPLE_GROUP, SAMPLE_LENGTH, Step, Traffic,
    tc_numbers::{
        BURST, DEFAULT_CLASS, GATE_HANDLE, GATE_PRIORITY, PASS_PRIORITY, QUANTUM, cut_priority, route_priority,
    },
};

/// The `tc` commands for a step on an interface, in order.
pub fn tc_commands(step: &Step, interface: &IfName) -> Vec<String> {
    let dev = interface;
    let root = Direction::Egress;
    let protocol = |address: &std::net::IpAddr| if address.is_ipv4() { "ip" } else { "ipv6" };
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
        Step::BuildChain { chain, routes } => {
            let route = |super::Route { address, class, handle }: &super::Route| {
                let (protocol, priority) = (protocol(address), route_priority(*address));
                let place = format!("protocol {protocol} chain {chain} pref {priority} handle {handle:#x}");
                let key = format!("flower skip_hw dst_ip {address} classid {MARK:x}:{class:x}");
                filter("add", dev, root, &format!("{place} {key}"))
            };
            routes.iter().map(route).collect()
        }
        Step::DropChain { chain, .. } => vec![filter("del", dev, root, &format!("chain {chain}"))],
        Step::Flip { to: Some(chain), .. } => {
            let place = format!("protocol all pref {GATE_PRIORITY} handle {GATE_HANDLE}");
            vec![filter("replace", dev, root, &format!("{place} flower skip_hw action goto chain {chain}"))]
        }
        Step::Flip { to: None, .. } => {
            vec![filter("del", dev, root, &format!("protocol all pref {GATE_PRIORITY}"))]
        }
        Step::Cut { cut: Cut { direction, address, traffic, answer }, handle } => {
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
            let place = format!("protocol {} pref {}", protocol(address), cut_priority(*address, *answer));
            let match_and_drop = format!("flower skip_hw {key} {address}{port} {sample}action drop");
            vec![filter("add", dev, *direction, &format!("{place} handle {handle:#x} {match_and_drop}"))]
        }
        Step::Uncut { cut: Cut { direction, address, answer, .. }, handle } => {
            let place = format!("protocol {} pref {}", protocol(address), cut_priority(*address, *answer));
            vec![filter("del", dev, *direction, &format!("{place} handle {handle:#x} flower"))]
        }
    };
    commands.into_iter().map(|command| format!("tc {command}")).collect()
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
