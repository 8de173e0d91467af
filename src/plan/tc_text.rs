//! A step as the `tc` commands that would do the same, for `plan --as-tc` and for people who know tc.
//!
//! The encoders of the kernel module are tested byte for byte against what `tc` sends for these very commands.

use std::net::IpAddr;

use super::{
    Answer, ClassMinor, Cut, Direction, IfName, MARK, Port, Profile, SAMPLE_GROUP, SAMPLE_LENGTH, Step, Traffic,
};

/// The commands, in order, that do what `step` does to `interface`.
pub fn tc_commands(step: &Step, interface: &IfName) -> Vec<String> {
    let dev = interface;
    let root = Direction::Egress;
    let commands = match step {
        Step::AddRoot => vec![format!("qdisc add dev {dev} root handle {MARK:x}: htb default 1")],
        Step::RemoveRoot => vec![format!("qdisc del dev {dev} root handle {MARK:x}:")],
        Step::AddHook => vec![format!("qdisc add dev {dev} clsact")],
        Step::RemoveHook => vec![format!("qdisc del dev {dev} clsact")],
        Step::AddClass { class, profile } => {
            let id = format!("{MARK:x}:{class:x}");
            let mark = profile.map(|profile| profile.mark()).unwrap_or_default();
            let [burst, cburst] = mark.burst_bytes().map(burst);
            let rate = format!("rate 100gbit burst {burst} cburst {cburst} quantum 60000");
            let add = format!("class add dev {dev} parent {MARK:x}: classid {id} htb {rate}");
            let leaf = profile.map(|profile| netem("add", dev, *class, profile));
            [add].into_iter().chain(leaf).collect()
        }
        Step::RemoveClass { class, .. } => vec![format!("class del dev {dev} classid {MARK:x}:{class:x}")],
        Step::ChangeLeaf { class, to, .. } => vec![netem("change", dev, *class, *to)],
        Step::AddPass { direction, types } => types.iter().map(|kind| pass(dev, *direction, *kind)).collect(),
        Step::RemovePass { direction, .. } => vec![filter("del", dev, *direction, "protocol ipv6 pref 1")],
        Step::BuildChain { chain, routes } => {
            let route = |route: &super::Route| {
                let list = if route.address.is_ipv4() { ("ip", 10) } else { ("ipv6", 11) };
                let place = format!("protocol {} chain {chain} pref {} handle {:#x}", list.0, list.1, route.handle);
                let key = format!("flower skip_hw dst_ip {} classid {MARK:x}:{:x}", route.address, route.class);
                filter("add", dev, root, &format!("{place} {key}"))
            };
            routes.iter().map(route).collect()
        }
        Step::DropChain { chain, .. } => vec![filter("del", dev, root, &format!("chain {chain}"))],
        Step::Flip { to: Some(chain), .. } => {
            let gate = format!("protocol all pref 100 handle 1 flower skip_hw action goto chain {chain}");
            vec![filter("replace", dev, root, &gate)]
        }
        Step::Flip { to: None, .. } => vec![filter("del", dev, root, "protocol all pref 100")],
        Step::Cut { cut: Cut { direction, address, traffic, answer }, handle } => {
            let key = match direction {
                Direction::Egress => "dst_ip",
                Direction::Ingress => "src_ip",
            };
            let port = match traffic {
                Traffic::All => String::new(),
                Traffic::ToPort(Port { protocol, number }) => format!(" ip_proto {protocol} dst_port {number}"),
                Traffic::FromPort(Port { protocol, number }) => format!(" ip_proto {protocol} src_port {number}"),
                Traffic::FragmentsOf(protocol) => format!(" ip_proto {protocol} ip_flags frag"),
            };
            let sample = match answer {
                Answer::Silence => String::new(),
                Answer::Refusal => format!("action sample rate 1 group {SAMPLE_GROUP} trunc {SAMPLE_LENGTH} "),
            };
            let what = format!("handle {handle:#x} flower skip_hw {key} {address}{port} {sample}action drop");
            vec![filter("add", dev, *direction, &format!("{} {what}", cut_list(*address, *answer)))]
        }
        Step::Uncut { cut: Cut { direction, address, answer, .. }, handle } => {
            vec![filter("del", dev, *direction, &format!("{} handle {handle:#x} flower", cut_list(*address, *answer)))]
        }
    };
    commands.into_iter().map(|command| format!("tc {command}")).collect()
}

fn burst(bytes: u64) -> String {
    if bytes == 10 * 1024 * 1024 { "10mb".to_owned() } else { format!("{bytes}b") }
}

fn netem(verb: &str, dev: &IfName, class: ClassMinor, profile: Profile) -> String {
    format!("qdisc {verb} dev {dev} parent {MARK:x}:{class:x} handle {class:x}: netem {profile}")
}

fn filter(verb: &str, dev: &IfName, direction: Direction, what: &str) -> String {
    match direction {
        Direction::Egress => format!("filter {verb} dev {dev} parent {MARK:x}: {what}"),
        Direction::Ingress => format!("filter {verb} dev {dev} ingress {what}"),
    }
}

fn pass(dev: &IfName, direction: Direction, kind: u8) -> String {
    let verdict = match direction {
        Direction::Egress => format!("classid {MARK:x}:1"),
        Direction::Ingress => "action pass".to_owned(),
    };
    let key = format!("flower skip_hw ip_proto icmpv6 type {kind} {verdict}");
    filter("add", dev, direction, &format!("protocol ipv6 pref 1 handle {kind:#x} {key}"))
}

fn cut_list(address: IpAddr, answer: Answer) -> &'static str {
    match (answer, address) {
        (Answer::Silence, IpAddr::V4(_)) => "protocol ip pref 2",
        (Answer::Silence, IpAddr::V6(_)) => "protocol ipv6 pref 3",
        (Answer::Refusal, IpAddr::V4(_)) => "protocol ip pref 4",
        (Answer::Refusal, IpAddr::V6(_)) => "protocol ipv6 pref 5",
    }
}
