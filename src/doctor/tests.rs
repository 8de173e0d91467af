//! A healthy host, and the finding on each change of one of its facts.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::{
    plan::{ForeignObject, Inventory, NodeLocation, Wanted},
    topology::{NodeName, Source, Topology},
};

const INTERFACE: &str = "db0";

/// The facts about a healthy host.
pub(crate) fn healthy() -> Facts {
    let module = |name: &str| (name.to_owned(), Fact::Known(ModuleState::Loaded));
    let interface = InterfaceFacts {
        is_up: true,
        has_carrier: true,
        kind: Some("veth".to_owned()),
        addresses: vec!["10.78.0.1/16".parse().unwrap(), "fd78::1/64".parse().unwrap()],
        mtu: 1_500,
        speed_mbit: Fact::Known(10_000),
        driver: Fact::NotKnown("/sys/class/net/db0/device/driver: No such file or directory".to_owned()),
        tx_queues: Fact::Known(1),
        features: Fact::Known(BTreeSet::from(["tx-tcp-segmentation".to_owned()])),
        foreign: Fact::Known(Vec::new()),
        default_routes: BTreeSet::new(),
        above: BTreeSet::new(),
        master: None,
        carries_controller: false,
        forwards: false,
        has_xdp: false,
    };
    let table = |is_v4| NeighbourTable { is_v4, soft_limit: 512, hard_limit: 1_024, entries: 9 };
    Facts {
        boot: "0a1b2c3d-0000-4000-8000-000000000001".to_owned(),
        kernel: KernelFacts {
            release: "6.1.0-28-amd64".to_owned(),
            distribution: Fact::Known(vec!["debian".to_owned()]),
            shaping: Trial::Works,
            rejecting: Trial::Works,
            modules: MODULES.into_iter().map(module).collect(),
        },
        rights: Rights { missing_capabilities: Fact::Known(BTreeSet::new()), user_namespaces: BTreeMap::new() },
        interfaces: BTreeMap::from([(INTERFACE.parse().unwrap(), Fact::Known(interface))]),
        unrouted: BTreeSet::from([INTERFACE.to_owned()]),
        allow: BTreeSet::new(),
        tcp: TcpFacts {
            rmem: Fact::Known([4_096, 131_072, 6_291_456]),
            wmem: Fact::Known([4_096, 16_384, 4_194_304]),
            limit_output_bytes: Fact::Known(1_048_576),
            backlog: Fact::Known(1_000),
            backlog_drops: Fact::Known(0),
        },
        neighbours: Fact::Known(vec![table(true), table(false)]),
        time: TimeFacts {
            timer_ns: 1,
            tick_ns: 4_000_000,
            clock_source: Fact::Known("tsc".to_owned()),
            cpus: Fact::Known(8),
            steal_percent: Fact::Known(0.0),
            busy_percent: Fact::Known(0.5),
            load: Fact::Known(0.2),
            idle_exit_us: Fact::Known(2),
        },
        filtering: Filtering {
            tracked: None,
            tracked_limit: None,
            chains: Fact::Known(Vec::new()),
            legacy_tables: Fact::Known(BTreeSet::new()),
        },
        programs: Fact::Known(BTreeSet::new()),
        synchronisers: Fact::Known(BTreeSet::from(["chronyd".to_owned()])),
    }
}

fn interface(facts: &mut Facts) -> &mut InterfaceFacts {
    match facts.interfaces.get_mut(&INTERFACE.parse().unwrap()) {
        Some(Fact::Known(interface)) => interface,
        other => panic!("{other:?}"),
    }
}

/// The needs of n1 in a topology of `count` nodes with these links.
fn needs(count: u8, links: &str) -> Needs {
    let text = format!("name = 'needs'\nnodes = 'n[1-{count}]'\n[links]\ndefault = {{ {links} }}\n");
    let topology = Topology::parse(Source::new("needs.toml", text)).unwrap();
    let place = |number: u8| NodeLocation {
        agent: format!("unix:/run/n{number}.sock").try_into().unwrap(),
        interface: INTERFACE.parse().unwrap(),
        addresses: vec![[10, 78, 0, number].into(), [192, 0, 2, number].into()],
    };
    let nodes = (1..=count).map(|number| (format!("n{number}").parse().unwrap(), place(number))).collect();
    let wanted = Wanted::default().with_topology(topology, Inventory { nodes, ..Inventory::default() }).unwrap();
    let networks = interface(&mut healthy()).addresses.clone();
    AllNeeds::of(&wanted).of_nodes([&"n1".parse().unwrap()], &networks)
}

/// The findings that are not OK, as `level: text`.
fn worth_telling(facts: &Facts, needs: Option<&Needs>) -> Vec<String> {
    let findings = judge(facts, Some(&INTERFACE.parse().unwrap()), needs);
    let findings = findings.into_iter().filter(|finding| finding.level != Level::Ok);
    findings.map(|Finding { level, text, .. }| format!("{level:?}: {text}")).collect()
}

#[test]
fn a_healthy_host_has_no_problem_and_no_note() {
    assert_eq!(worth_telling(&healthy(), None), [""; 0]);
    assert_eq!(worth_telling(&healthy(), Some(&needs(9, "rtt = '10ms', rate = '100mbit'"))), [""; 0]);
    let checks: BTreeSet<Check> = judge(&healthy(), None, None).iter().map(|finding| finding.check).collect();
    assert!(checks.len() > 15, "{checks:?}");
}

#[test]
fn every_note_and_problem_has_an_effect_and_every_problem_a_remedy() {
    for (name, change, ..) in CASES {
        let mut facts = healthy();
        change(&mut facts);
        for finding in judge(&facts, None, None).into_iter().filter(|finding| finding.level != Level::Ok) {
            let is_not_known = finding.text.starts_with("not known: ");
            assert!(is_not_known || finding.effect.is_some(), "{name}: {finding:?}");
            assert!(finding.level != Level::Problem || finding.remedy.is_some(), "{name}: {finding:?}");
        }
    }
}

type Case = (&'static str, fn(&mut Facts), &'static str);

/// A change of a healthy host, and the finding on it.
const CASES: &[Case] = &[
    (
        "a kernel without netem",
        |facts| {
            facts.kernel.shaping = Trial::Unsupported("this kernel cannot shape".to_owned());
            facts.kernel.modules.insert("sch_netem".to_owned(), Fact::Known(ModuleState::Absent));
        },
        "Problem: kernel 6.1.0-28-amd64 lacks sch_netem",
    ),
    (
        "a kernel without psample",
        |facts| facts.kernel.rejecting = Trial::Unsupported("no psample".to_owned()),
        "Note: this kernel has no act_sample or psample",
    ),
    (
        "an agent without a capability",
        |facts| facts.rights.missing_capabilities = Fact::Known(BTreeSet::from(["CAP_NET_RAW".to_owned()])),
        "Problem: this process lacks CAP_NET_RAW",
    ),
    (
        "a host where AppArmor forbids user namespaces",
        |facts| {
            facts.kernel.shaping = Trial::Denied("cannot create a network namespace".to_owned());
            let name = "kernel.apparmor_restrict_unprivileged_userns".to_owned();
            facts.rights.user_namespaces.insert(name, Fact::Known(1));
        },
        "Problem: user namespaces are forbidden: kernel.apparmor_restrict_unprivileged_userns is 1",
    ),
    (
        "an interface that does not exist",
        |facts| {
            let missing = Fact::NotKnown("interface db0 does not exist".to_owned());
            facts.interfaces = BTreeMap::from([(INTERFACE.parse().unwrap(), missing)]);
        },
        "Problem: interface db0 does not exist",
    ),
    (
        "an interface that the agent may not shape",
        |facts| facts.interfaces = BTreeMap::new(),
        "Problem: the agent may not shape interface db0",
    ),
    ("an interface that is down", |facts| interface(facts).is_up = false, "Problem: interface db0 is down"),
    ("a cable that is pulled", |facts| interface(facts).has_carrier = false, "Problem: interface db0 has no carrier"),
    ("no address", |facts| interface(facts).addresses.clear(), "Problem: interface db0 has no address"),
    (
        "a default route on the interface",
        |facts| interface(facts).default_routes = BTreeSet::from([INTERFACE.to_owned()]),
        "Problem: interface db0 carries a default route",
    ),
    (
        "a default route on a VLAN above the interface, which the config allows",
        |facts| {
            interface(facts).default_routes = BTreeSet::from(["db0.7".to_owned()]);
            facts.allow.insert("default-route".to_owned());
        },
        "Note: interface db0 carries a default route (of db0.7); the agent's config allows it",
    ),
    (
        "a controller that comes by the interface",
        |facts| interface(facts).carries_controller = true,
        "Problem: interface db0 carries the controller's connection",
    ),
    (
        "a port of a bridge",
        |facts| interface(facts).master = Some("br0".to_owned()),
        "Problem: interface db0 is a port of br0",
    ),
    (
        "a VLAN above the interface",
        |facts| interface(facts).above = BTreeSet::from(["db0.7".to_owned()]),
        "Note: db0.7 send through interface db0",
    ),
    (
        "a host that forwards packets",
        |facts| interface(facts).forwards = true,
        "Note: the host forwards packets to interface db0",
    ),
    ("an XDP program", |facts| interface(facts).has_xdp = true, "Note: interface db0 has an XDP program"),
    (
        "a qdisc of another program",
        |facts| {
            let what = "qdisc netem 8001: root".to_owned();
            let remove = "tc qdisc del dev db0 root".to_owned();
            interface(facts).foreign = Fact::Known(vec![ForeignObject { what, remove, within: None }]);
        },
        "Problem: interface db0 has objects of other programs: qdisc netem 8001: root",
    ),
    (
        "qdiscs that cannot be read",
        |facts| interface(facts).foreign = Fact::NotKnown("netlink: no buffer space".to_owned()),
        "Note: not known: the qdiscs of interface db0 (netlink: no buffer space)",
    ),
    (
        "an unknown speed",
        |facts| interface(facts).speed_mbit = Fact::NotKnown("no speed".to_owned()),
        "Note: not known: the speed of interface db0 (no speed)",
    ),
    (
        "a small tcp_limit_output_bytes",
        |facts| facts.tcp.limit_output_bytes = Fact::Known(8_192),
        "Note: tcp_limit_output_bytes is 8192, less than one full packet of TCP",
    ),
    (
        "drops of the receive queue",
        |facts| facts.tcp.backlog_drops = Fact::Known(3),
        "Note: packets were dropped since boot because the receive queue of a CPU was full",
    ),
    (
        "a small receive queue",
        |facts| facts.tcp.backlog = Fact::Known(100),
        "Note: netdev_max_backlog is 100, below the kernel's default",
    ),
    (
        "a sysctl that cannot be read",
        |facts| facts.tcp.rmem = Fact::NotKnown("no such file".to_owned()),
        "Note: not known: net.ipv4.tcp_rmem (no such file)",
    ),
    (
        "coarse timers",
        |facts| (facts.time.timer_ns, facts.time.tick_ns) = (10_000_000, 10_000_000),
        "Problem: high-resolution timers are off: timers have a resolution of 10 ms",
    ),
    (
        "a slow clock source",
        |facts| facts.time.clock_source = Fact::Known("hpet".to_owned()),
        "Note: the clock source is hpet, which is slow to read or coarse",
    ),
    (
        "a busy machine",
        |facts| facts.time.busy_percent = Fact::Known(87.3),
        "Note: tasks waited for a CPU for more than 20 % of the last 10 s",
    ),
    (
        "a busy machine without pressure figures",
        |facts| {
            facts.time.busy_percent = Fact::NotKnown("no such file".to_owned());
            facts.time.load = Fact::Known(8.5);
        },
        "Note: more tasks than CPUs were ready to run in the last minute",
    ),
    (
        "a machine whose load cannot be read",
        |facts| {
            facts.time.busy_percent = Fact::NotKnown("no such file".to_owned());
            facts.time.load = Fact::NotKnown("permission denied".to_owned());
        },
        "Note: not known: the load of the CPUs (permission denied)",
    ),
    (
        "stolen CPU time",
        |facts| facts.time.steal_percent = Fact::Known(7.2),
        "Note: the hypervisor took 7 % of the CPU time since boot",
    ),
    (
        "a deep idle state",
        |facts| facts.time.idle_exit_us = Fact::Known(133),
        "Note: a CPU needs up to 133 µs to wake up",
    ),
    (
        "a full table of connections",
        |facts| {
            facts.filtering.tracked = Some(Fact::Known(253_000));
            facts.filtering.tracked_limit = Some(Fact::Known(262_144));
        },
        "Problem: the table of tracked connections is 96 % full (262144 entries)",
    ),
    (
        "a firewall that drops by default",
        |facts| {
            let name = "inet filter input".to_owned();
            facts.filtering.chains = Fact::Known(vec![FirewallChain { name, drops: true }]);
        },
        "Note: a firewall drops packets that no rule accepts: inet filter input",
    ),
    (
        "a program that changes interfaces",
        |facts| facts.programs = Fact::Known(BTreeSet::from(["NetworkManager".to_owned()])),
        "Note: NetworkManager runs",
    ),
];

#[test]
fn each_change_of_a_healthy_host_is_found() {
    for (name, change, expected) in CASES {
        let mut facts = healthy();
        change(&mut facts);
        let told = worth_telling(&facts, None);
        assert!(told.iter().any(|told| told == expected), "{name}: {told:#?}");
        assert!(told.len() <= 2, "{name}: {told:#?}");
    }
}

#[test]
fn a_buffer_smaller_than_the_product_of_a_rate_is_a_problem_and_that_of_the_interface_a_note() {
    let rated = needs(3, "rtt = '300ms', rate = '1gbit'");
    assert_eq!(rated.received, Some(Demand { rate: 1_000_000_000, rtt: 300_000_000 }));
    assert_eq!(rated.received.unwrap().product(), 37_500_000);
    let told = worth_telling(&healthy(), Some(&rated));
    assert_eq!(
        told,
        [
            "Problem: tcp_rmem limits one TCP connection to 83.9 Mbit/s at 300 ms RTT; the link has 1 Gbit/s",
            "Problem: tcp_wmem limits one TCP connection to 112 Mbit/s at 300 ms RTT; the link has 1 Gbit/s",
        ]
    );
    let open = worth_telling(&healthy(), Some(&needs(3, "rtt = '300ms'")));
    assert_eq!(open[0], "Note: tcp_rmem limits one TCP connection to 83.9 Mbit/s at 300 ms RTT");

    // The remedy is enough.
    let mut facts = healthy();
    let finding = |facts: &Facts| {
        let findings = judge(facts, None, Some(&rated));
        findings.into_iter().find(|finding| finding.check == Check::TcpRmem).unwrap()
    };
    let remedy = finding(&facts).remedy.unwrap();
    assert_eq!(remedy, "sysctl -w net.ipv4.tcp_rmem='4096 131072 75497472'");
    facts.tcp.rmem = Fact::Known([4_096, 131_072, 75_497_472]);
    assert_eq!(finding(&facts).level, Level::Ok);
}

#[test]
fn only_addresses_on_the_networks_of_the_interface_are_neighbours() {
    let many = needs(200, "rtt = '10ms'");
    assert_eq!(many.neighbours, [199, 0]);
    let mut facts = healthy();
    let small = |hard_limit, soft_limit| NeighbourTable { is_v4: true, soft_limit, hard_limit, entries: 0 };
    let told = |facts: &Facts| {
        let findings = judge(facts, None, Some(&many));
        findings.into_iter().find(|finding| finding.check == Check::Neighbours).unwrap()
    };
    facts.neighbours = Fact::Known(vec![small(128, 64)]);
    assert_eq!(told(&facts).text, "the ARP table has room for 128 neighbours; the node has 199");
    assert_eq!(
        told(&facts).remedy.unwrap(),
        "sysctl -w net.ipv4.neigh.default.gc_thresh3=1024 net.ipv4.neigh.default.gc_thresh2=512"
    );
    facts.neighbours = Fact::Known(vec![small(256, 128)]);
    assert_eq!(told(&facts).level, Level::Note);
    facts.neighbours = Fact::Known(vec![small(256, 199)]);
    assert_eq!(told(&facts).level, Level::Ok);
}

#[test]
fn a_rate_above_the_speed_and_random_links_with_segmentation_are_found() {
    let mut facts = healthy();
    interface(&mut facts).speed_mbit = Fact::Known(100);
    let told = worth_telling(&facts, Some(&needs(3, "rtt = '1ms', rate = '1gbit'")));
    assert_eq!(told, ["Problem: interface db0 has 100 Mbit/s; a link has 1000 Mbit/s"]);
    let lossy = needs(3, "rtt = '1ms', loss = '1%'");
    assert_eq!(
        worth_telling(&healthy(), Some(&lossy)),
        ["Note: segmentation is on at interface db0, and links lose or reorder packets"]
    );
    // An idle state is compared with the shortest delay.
    let mut facts = healthy();
    facts.time.idle_exit_us = Fact::Known(133);
    assert_eq!(worth_telling(&facts, Some(&needs(3, "rtt = '50ms', rate = '10mbit'"))), [""; 0]);
}

#[test]
fn a_missing_module_comes_from_the_package_of_the_distribution() {
    let remedy = |distribution: &[&str], state| {
        let mut facts = healthy();
        facts.kernel.shaping = Trial::Unsupported("no netem".to_owned());
        facts.kernel.distribution = Fact::Known(distribution.iter().map(|name| (*name).to_owned()).collect());
        facts.kernel.modules.insert("sch_netem".to_owned(), Fact::Known(state));
        judge(&facts, None, None)[0].remedy.clone().unwrap()
    };
    let absent = |distribution: &[&str]| remedy(distribution, ModuleState::Absent);
    assert!(absent(&["ubuntu", "debian"]).starts_with("apt install linux-modules-extra-$(uname -r)"));
    assert!(absent(&["debian"]).starts_with("apt install linux-image-"));
    assert!(absent(&["rocky", "rhel", "centos", "fedora"]).starts_with("dnf install kernel-modules-extra-"));
    assert!(absent(&["opensuse-leap", "suse"]).starts_with("zypper install "));
    assert!(absent(&["gentoo"]).contains("CONFIG_NET_SCH_NETEM"));
    assert_eq!(remedy(&["debian"], ModuleState::OnDisk), "modprobe -a sch_netem");
}

#[test]
fn a_host_without_a_chosen_interface_is_told_which_interfaces_fit() {
    let mut facts = healthy();
    facts.interfaces = BTreeMap::new();
    let told = |facts: &Facts| {
        let findings = judge(facts, None, None);
        findings.into_iter().find(|finding| finding.check == Check::Interface).unwrap()
    };
    assert_eq!(told(&facts).text, "no interface is chosen; without a default route: db0");
    assert_eq!(told(&facts).remedy.unwrap(), "netemctl doctor --interface db0");
    facts.unrouted.clear();
    assert_eq!(told(&facts).level, Level::Problem);
}

#[test]
fn nodes_that_differ_from_most_nodes_are_found() {
    let name = |number: u8| format!("n{number}").parse::<NodeName>().unwrap();
    let mut nodes: BTreeMap<NodeName, Facts> = (1..=3).map(|number| (name(number), healthy())).collect();
    let told = |nodes: &BTreeMap<NodeName, Facts>, ahead: &BTreeMap<NodeName, i64>| {
        let found = compare(nodes, &BTreeMap::new(), ahead).into_iter();
        let found = found.filter(|(_, finding)| finding.level != Level::Ok);
        found.map(|(node, finding)| format!("{node}: {}", finding.text)).collect::<Vec<_>>()
    };
    assert_eq!(told(&nodes, &BTreeMap::new()), [""; 0]);
    interface(nodes.get_mut(&name(2)).unwrap()).mtu = 9_000;
    nodes.get_mut(&name(3)).unwrap().kernel.release = "5.10.0".to_owned();
    assert_eq!(
        told(&nodes, &BTreeMap::from([(name(1), -47_000_000)])),
        [
            "n2: the interface has MTU 9000; most nodes have 1500",
            "n3: the kernel is 5.10.0; most nodes have 6.1.0-28-amd64",
            "n1: the clock differs from the controller's by more than 10 ms",
        ]
    );
    // Without a program that synchronises clocks, only several machines have several clocks.
    let mut nodes: BTreeMap<NodeName, Facts> = (1..=2).map(|number| (name(number), healthy())).collect();
    for facts in nodes.values_mut() {
        facts.synchronisers = Fact::Known(BTreeSet::new());
    }
    assert_eq!(told(&nodes, &BTreeMap::new()), [""; 0]);
    nodes.get_mut(&name(2)).unwrap().boot = "another".to_owned();
    assert_eq!(told(&nodes, &BTreeMap::new()).len(), 2);
}

#[test]
fn the_needs_that_follow_from_groups_are_those_of_the_links() {
    let text = "name = 't'\nzones = { Z1 = 'n[1-3]', Z2 = 'n[4-6]', Z3 = 'n7' }\n[links]\nintra-zone = { rtt = '2ms' }\n\
                inter-zone = { rtt = '90ms', rate = '1gbit' }\n[[links.override]]\nfrom = 'Z1'\nto = 'n5'\n\
                delay = '7ms'\nloss = '1%'\n[[links.override]]\nfrom = 'n2'\nto = 'Z3'\nrate = '10mbit'\n";
    let topology = Topology::parse(Source::new("t.toml", text)).unwrap();
    let nodes = topology.nodes().to_vec();
    let wanted = Wanted { topology: Some(topology), ..Wanted::default() };
    let all = AllNeeds::of(&wanted);
    let mut distinct = Vec::new();
    for node in &nodes {
        let needs = all.of_nodes([node], &[]);
        assert_eq!(needs, all.of_links(node), "{node}");
        if !distinct.contains(&needs) {
            distinct.push(needs);
        }
    }
    assert!(distinct.len() > 2, "{distinct:#?}");
}
