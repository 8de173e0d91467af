//! A step as the `tc` commands that would do the same, for `plan --as-tc` and for people who know tc.
//!
//! The encoders of the kernel module are tested byte for byte against what `tc` sends for these very commands.

use std::net::IpAddr;

use super::{ClassMinor, Direction, IfName, MARK, Profile, Step};

/// The commands, in order, that do what `step` does to `interface`.
pub fn tc_commands(step: &Step, interface: &IfName) -> Vec<String> {
    let text = Text { dev: interface };
    match step {
        Step::AddRoot => vec![text.line(&format!("qdisc add dev {interface} root handle {MARK:x}: htb default 1"))],
        Step::RemoveRoot => vec![text.line(&format!("qdisc del dev {interface} root handle {MARK:x}:"))],
        Step::AddHook => vec![text.line(&format!("qdisc add dev {interface} clsact"))],
        Step::RemoveHook => vec![text.line(&format!("qdisc del dev {interface} clsact"))],
        Step::AddClass { class, profile } => {
            let mut lines = vec![text.line(&format!(
                "class add dev {interface} parent {MARK:x}: classid {MARK:x}:{class:x} htb rate 100gbit quantum 60000"
            ))];
            lines.extend(profile.map(|profile| text.netem("add", *class, profile)));
            lines
        }
        Step::RemoveClass { class, .. } => {
            vec![text.line(&format!("class del dev {interface} classid {MARK:x}:{class:x}"))]
        }
        Step::ChangeLeaf { class, to, .. } => vec![text.netem("change", *class, *to)],
        Step::AddPass { direction, types } => types.iter().map(|kind| text.pass(*direction, *kind)).collect(),
        Step::RemovePass { direction, .. } => {
            vec![text.line(&format!("filter del {} protocol ipv6 pref 1", text.hook(*direction)))]
        }
        Step::BuildChain { chain, routes } => routes
            .iter()
            .map(|route| {
                let (protocol, pref) = if route.address.is_ipv4() { ("ip", 10) } else { ("ipv6", 11) };
                text.line(&format!(
                    "filter add {} protocol {protocol} chain {chain} pref {pref} handle {:#x} flower skip_hw dst_ip {} classid {MARK:x}:{:x}",
                    text.hook(Direction::Egress), route.handle, route.address, route.class
                ))
            })
            .collect(),
        Step::DropChain { chain, .. } => {
            vec![text.line(&format!("filter del {} chain {chain}", text.hook(Direction::Egress)))]
        }
        Step::Flip { to: Some(chain), .. } => vec![text.line(&format!(
            "filter replace {} protocol all pref 100 handle 1 flower skip_hw action goto chain {chain}",
            text.hook(Direction::Egress)
        ))],
        Step::Flip { to: None, .. } => {
            vec![text.line(&format!("filter del {} protocol all pref 100", text.hook(Direction::Egress)))]
        }
        Step::Cut { direction, address, handle } => {
            let key = match direction {
                Direction::Egress => "dst_ip",
                Direction::Ingress => "src_ip",
            };
            vec![text.line(&format!(
                "filter add {} {} handle {handle:#x} flower skip_hw {key} {address} action drop",
                text.hook(*direction),
                cut_list(*address)
            ))]
        }
        Step::Uncut { direction, address, handle } => vec![text.line(&format!(
            "filter del {} {} handle {handle:#x} flower",
            text.hook(*direction),
            cut_list(*address)
        ))],
    }
}

fn cut_list(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "protocol ip pref 2" } else { "protocol ipv6 pref 3" }
}

struct Text<'a> {
    dev: &'a IfName,
}

impl Text<'_> {
    fn line(&self, command: &str) -> String {
        format!("tc {command}")
    }

    fn hook(&self, direction: Direction) -> String {
        match direction {
            Direction::Egress => format!("dev {} parent {MARK:x}:", self.dev),
            Direction::Ingress => format!("dev {} ingress", self.dev),
        }
    }

    fn netem(&self, verb: &str, class: ClassMinor, profile: Profile) -> String {
        self.line(&format!("qdisc {verb} dev {} parent {MARK:x}:{class:x} handle {class:x}: netem {profile}", self.dev))
    }

    fn pass(&self, direction: Direction, kind: u8) -> String {
        let verdict = match direction {
            Direction::Egress => format!("classid {MARK:x}:1"),
            Direction::Ingress => "action pass".to_owned(),
        };
        self.line(&format!(
            "filter add {} protocol ipv6 pref 1 handle {kind:#x} flower skip_hw ip_proto icmpv6 type {kind} {verdict}",
            self.hook(direction)
        ))
    }
}
