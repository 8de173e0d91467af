//! Tests of valid inventory files with agents' answers. `tests/inventories/` has invalid files with their errors.

use proptest::{collection::vec, option, prelude::*};

use super::*;
use crate::{
    plan::{AddressDefaults, TransportKind},
    wire::{Host, HostInterface},
};

fn parse(text: &str) -> InventoryFile {
    let parsed = InventoryFile::parse(Source::new("test.toml", text));
    parsed.unwrap_or_else(|rejected| panic!("{}", rejected.render(false, 100)))
}

fn node(name: &str) -> NodeName {
    name.parse().unwrap()
}

fn interface(name: &str, addresses: &[&str]) -> HostInterface {
    HostInterface {
        name: name.parse().unwrap(),
        mac: None,
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        is_up: true,
        mtu: 1_500,
        speed_mbit: Some(10_000),
        has_xdp: false,
        carries_default_route: false,
        gateways: [].into(),
        forwards: false,
        is_allowed: true,
    }
}

fn host(name: &str, interfaces: Vec<HostInterface>) -> Host {
    Host { node: node(name), is_configured: true, version: "1".to_owned(), kernel: "6.1".to_owned(), interfaces }
}

/// A typical host: eno1 carries the default route, and eno2 is dedicated to the database.
fn usual(name: &str, number: u8) -> Host {
    let eno1 = HostInterface {
        carries_default_route: true,
        is_allowed: false,
        ..interface("eno1", &[&format!("192.168.0.{number}/24")])
    };
    let eno2 = interface(
        "eno2",
        &[&format!("10.20.0.{number}/16"), &format!("fd20::{number}/64"), &format!("fe80::{number}/64")],
    );
    host(name, vec![eno1, eno2])
}

fn resolve(file: &InventoryFile, hosts: impl IntoIterator<Item = (&'static str, Host)>) -> Resolved {
    let hosts = hosts.into_iter().map(|(name, host)| (node(name), host)).collect();
    file.resolve(&hosts, &BTreeMap::new())
}

fn shown(resolved: &Resolved) -> Vec<String> {
    let place = |(node, place): (&NodeName, &NodeLocation)| {
        let addresses: Vec<_> = place.addresses.iter().map(ToString::to_string).collect();
        format!("{node} {} {} {}", place.agent, place.interface, addresses.join(" "))
    };
    let mismatch = |(node, mismatch): (&NodeName, &Mismatch)| format!("{node}: {mismatch}");
    resolved.inventory.nodes.iter().map(place).chain(resolved.mismatches.iter().map(mismatch)).collect()
}

const BY_NETWORK: &str = r#"
[defaults]
transport = "unix"
socket = "/run/{node}.sock"
network = "10.20.0.0/16"
[nodes]
"n[1-2]" = {}
"#;

#[test]
fn the_example_of_the_documentation_is_valid() {
    let documentation = include_str!("mod.rs").lines().map_while(|line| line.strip_prefix("//!"));
    let example = documentation.skip_while(|line| !line.contains("```toml")).skip(1);
    let lines: Vec<_> = example.take_while(|line| !line.contains("```")).collect();
    let file = parse(&lines.join("\n"));
    assert_eq!(file.nodes().len(), 9);
    assert_eq!(file.nodes()[&node("n8")].agent.to_string(), "https://10.0.0.8:20094");
    assert_eq!(file.nodes()[&node("n9")].agent.to_string(), "ssh://root@n9.example.org");
    assert_eq!(file.nodes_to_ask().count(), 9);
}

#[test]
fn a_network_selects_the_interface_and_all_its_addresses() {
    let resolved = resolve(&parse(BY_NETWORK), [("n1", usual("n1", 1)), ("n2", usual("n2", 2))]);
    assert_eq!(
        shown(&resolved),
        ["n1 unix:/run/n1.sock eno2 10.20.0.1 fd20::1 fe80::1", "n2 unix:/run/n2.sock eno2 10.20.0.2 fd20::2 fe80::2"]
    );
    // The address in the network comes first, because messages show the first address.
    let by_ipv6 = BY_NETWORK.replace("10.20.0.0/16", "fd20::/64");
    let resolved = resolve(&parse(&by_ipv6), [("n1", usual("n1", 1)), ("n2", usual("n2", 2))]);
    assert_eq!(shown(&resolved)[0], "n1 unix:/run/n1.sock eno2 fd20::1 10.20.0.1 fe80::1");
}

#[test]
fn a_file_with_interfaces_and_addresses_needs_no_answer() {
    let file = parse(
        &BY_NETWORK
            .replace("network = \"10.20.0.0/16\"", "interface = \"eno2\"")
            .replace("= {}", "= { addresses = '10.20.0.[1-2]' }"),
    );
    assert_eq!(
        shown(&resolve(&file, [])),
        ["n1 unix:/run/n1.sock eno2 10.20.0.1", "n2 unix:/run/n2.sock eno2 10.20.0.2"]
    );
    // An answer must fit the file, and adds the link-local addresses.
    assert_eq!(shown(&resolve(&file, [("n1", usual("n1", 1))]))[0], "n1 unix:/run/n1.sock eno2 10.20.0.1 fe80::1");
    let resolved = resolve(&file, [("n1", usual("n1", 3))]);
    assert_eq!(
        shown(&resolved)[1],
        "n1: interface eno2 lacks 10.20.0.1 of the inventory; found: eno2 (10.20.0.3 fd20::3); add the address or correct the inventory"
    );
}

#[test]
fn a_mismatch_has_a_reason_and_a_remedy() {
    let file = parse(BY_NETWORK);
    let say = |found: Host| {
        let resolved = resolve(&file, [("n1", found), ("n2", usual("n2", 2))]);
        assert_eq!((resolved.inventory.nodes.len(), resolved.mismatches.len()), (1, 1));
        resolved.mismatches[&node("n1")].to_string()
    };
    assert_eq!(
        say(usual("n7", 1)),
        "the agent at unix:/run/n1.sock is that of n7; correct `host` in the inventory, or `node` in the agent's config"
    );
    assert_eq!(
        say(host("n1", vec![interface("eno1", &["192.168.0.1/24"]), interface("eno2", &[])])),
        "no interface of the host has an address in 10.20.0.0/16; found: eno1 (192.168.0.1), eno2 (no address)"
    );
    assert_eq!(
        say(host("n1", vec![interface("eno1", &["10.20.0.1/16"]), interface("eno2", &["10.20.0.9/16"])])),
        "several interfaces of its host have an address in 10.20.0.0/16: eno1 (10.20.0.1), eno2 (10.20.0.9); give this \
         node an entry with `interface`"
    );
    let foreign = HostInterface { is_allowed: false, ..interface("eno1", &["10.20.0.1/16"]) };
    assert_eq!(
        say(host("n1", vec![foreign, interface("eno2", &["10.21.0.1/16"])])),
        "the agent's config allows eno2, not eno1; use eno2, or add eno1 to `interfaces` in that config"
    );
}

#[test]
fn a_missing_interface_or_a_missing_address_is_a_mismatch() {
    let file = parse(&BY_NETWORK.replace("network = \"10.20.0.0/16\"", "interface = \"eno2\""));
    let hosts = [
        ("n1", host("n1", vec![interface("eno3", &["10.20.0.1/16"])])),
        ("n2", host("n2", vec![interface("eno2", &["fe80::2/64"])])),
    ];
    assert_eq!(
        shown(&resolve(&file, hosts)),
        [
            "n1: the host has no interface eno2; found: eno3 (10.20.0.1)",
            "n2: its interface eno2 has no address that other nodes can reach; give it one",
        ]
    );
}

#[test]
fn two_nodes_with_the_same_address_are_both_mismatches() {
    let resolved = resolve(&parse(BY_NETWORK), [("n1", usual("n1", 1)), ("n2", usual("n2", 1))]);
    let of = |node: &str, other: &str| {
        format!("{node}: 10.20.0.1 is also an address of {other}; give both nodes their `addresses` in the inventory")
    };
    assert_eq!(shown(&resolved), [of("n1", "n2"), of("n2", "n1")]);
}

#[test]
fn a_silent_node_keeps_its_remembered_location_if_the_location_fits_the_file() {
    let file = parse(BY_NETWORK);
    let place = |agent: &str, address: &str| NodeLocation {
        agent: agent.to_owned().try_into().unwrap(),
        interface: "eno2".parse().unwrap(),
        addresses: vec![address.parse().unwrap()],
    };
    let hosts = [(node("n1"), usual("n1", 1))].into();
    let resolve = |place: NodeLocation| file.resolve(&hosts, &[(node("n2"), place)].into());
    let resolved = resolve(place("unix:/run/n2.sock", "10.20.0.2"));
    assert_eq!(shown(&resolved)[1], "n2 unix:/run/n2.sock eno2 10.20.0.2");
    for other in [place("unix:/run/other.sock", "10.20.0.2"), place("unix:/run/n2.sock", "10.21.0.2")] {
        assert_eq!(resolve(other).mismatches[&node("n2")], Mismatch::Silent);
    }
    // The answer of an agent takes precedence over the remembered location.
    let hosts = [(node("n1"), usual("n1", 1)), (node("n2"), usual("n2", 9))].into();
    let resolved = file.resolve(&hosts, &[(node("n2"), place("unix:/run/n2.sock", "10.20.0.2"))].into());
    assert_eq!(shown(&resolved)[1], "n2 unix:/run/n2.sock eno2 10.20.0.9 fd20::9 fe80::9");
}

#[test]
fn an_inventory_without_zones_takes_the_zones_of_its_topology() {
    let text = "name = 't'\nzones = { A = 'n1', B = 'n[2-3]', C = 'n4' }\nlinks.default.rtt = '1ms'\n\
                [inventory]\ndefaults = { transport = 'ssh', interface = 'eno2' }\nnodes = { 'n[1-2]' = {} }\n";
    let topology = Topology::parse(Source::new("t.toml", text)).unwrap();
    let inventory = InventoryFile::of_topology(topology.source()).unwrap().unwrap();
    assert_eq!(inventory.zones().len(), 0);
    let inventory = inventory.with_zones_of(&topology);
    let zones: Vec<_> = inventory.zones().iter().map(|(zone, nodes)| format!("{zone} {nodes:?}")).collect();
    assert_eq!(zones, ["A [\"n1\"]", "B [\"n2\"]"]);
    let own = InventoryFile::parse(Source::new(
        "i",
        "[nodes]\nn1 = { transport = 'ssh', interface = 'e' }\n[zones]\nA = 'n1'\n",
    ));
    let own = own.unwrap();
    assert_eq!(own.clone().with_zones_of(&topology), own);
}

fn address(text: &str) -> AgentAddress {
    AgentAddress::parse(text, &AddressDefaults { transport: TransportKind::Ssh, port: None, user: None }).unwrap()
}

#[test]
fn a_draft_writes_common_values_once_in_defaults() {
    let found = [
        (address("https://n1.example.org:4433"), usual("n1", 1)),
        (address("https://n2.example.org:4433"), usual("n2", 2)),
    ];
    let tls = TlsFiles { ca: "ca.crt".into(), cert: "me.crt".into(), key: "me.key".into() };
    let draft = draft(&found, Some(&tls)).unwrap();
    let lines: Vec<_> = draft.text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).collect();
    assert_eq!(
        lines,
        [
            "[defaults]",
            "transport = \"https\"",
            "host = \"{node}.example.org\"",
            "port = 4433",
            "interface = \"eno2\"",
            "[nodes]",
            "n1 = { addresses = [\"10.20.0.1\", \"fd20::1\"] }",
            "n2 = { addresses = [\"10.20.0.2\", \"fd20::2\"] }",
            "[tls]",
            "ca = \"ca.crt\"",
            "cert = \"me.crt\"",
            "key = \"me.key\"",
        ]
    );
    assert!(draft.text.contains("#   eno1: up, 10000 Mbit/s, 192.168.0.1/24, default route\n"), "{}", draft.text);
    assert!(
        draft.text.contains("# * eno2: up, 10000 Mbit/s, 10.20.0.1/16 fd20::1/64 fe80::1/64, allowed by its agent\n")
    );
    assert_eq!(draft.nodes[&node("n1")].warning, None);
}

#[test]
fn a_draft_proposes_only_suitable_interfaces() {
    let propose = |interfaces: Vec<HostInterface>| {
        let draft = draft(&[(address("n1"), host("n1", interfaces))], None).unwrap();
        let Drafted { interface, warning, .. } = draft.nodes[&node("n1")].clone();
        // Without a proposal, the file is invalid.
        let parsed = InventoryFile::parse(Source::new("draft.toml", &*draft.text));
        assert_eq!(parsed.is_ok(), interface.is_some(), "{}", draft.text);
        (interface.map(|interface| interface.to_string()), warning.unwrap_or_default())
    };
    let allowed = interface("eno2", &["10.20.0.1/16"]);
    let default_route = HostInterface { carries_default_route: true, ..allowed.clone() };
    let (interface_named, warning) = propose(vec![default_route.clone()]);
    assert_eq!(interface_named, None);
    assert!(warning.starts_with("eno2 carries a default route"), "{warning}");
    let (interface_named, warning) = propose(vec![HostInterface { is_allowed: false, ..allowed.clone() }]);
    assert_eq!(interface_named, None);
    assert!(warning.starts_with("write `interface = "), "{warning}");
    let (interface_named, warning) = propose(vec![interface("eno2", &["fe80::1/64"])]);
    assert_eq!((interface_named, &*warning), (None, "eno2 has no address that other nodes can reach"));
    let (interface_named, warning) = propose(vec![allowed.clone(), interface("eno3", &["10.30.0.1/16"])]);
    assert_eq!(
        (interface_named.as_deref(), &*warning),
        (Some("eno2"), "its agent's config allows eno2, eno3; eno2 is proposed")
    );
    assert_eq!(
        propose(vec![default_route, interface("eno3", &["10.30.0.1/16"])]),
        (Some("eno3".to_owned()), String::new())
    );
}

#[test]
fn two_agents_with_the_same_node_name_are_an_error() {
    let found = [(address("a"), usual("n1", 1)), (address("b"), usual("n1", 1))];
    assert_eq!(
        draft(&found, None).unwrap_err().to_string(),
        "the agents at ssh://a and ssh://b are both configured as node n1; correct `node` in one config"
    );
}

#[test]
fn hosts_without_a_config_have_the_given_name_or_a_unique_host_name() {
    let names = |found: &[&str]| {
        let host = |own: &str| Host { is_configured: false, ..usual(own, 1) };
        let found: Vec<_> = found.iter().map(|host| host.split_once(' ').unwrap()).collect();
        let found: Vec<_> = found.iter().map(|(named, own)| (address(named), host(own))).collect();
        draft(&found, None).map(|draft| draft.nodes.keys().map(ToString::to_string).collect::<Vec<_>>().join(" "))
    };
    let drafted = |found: &[&str]| names(found).unwrap();
    assert_eq!(drafted(&["n1 debian", "n2 debian"]), "n1 n2");
    assert_eq!(drafted(&["n1.example.org debian", "n2.example.org debian"]), "n1 n2");
    assert_eq!(drafted(&["n1.rack1 debian", "n1.rack2 debian"]), "n1.rack1 n1.rack2");
    assert_eq!(drafted(&["10.0.0.1 db1", "10.0.0.2 db2"]), "db1 db2");
    assert_eq!(drafted(&["10.0.0.1 debian", "10.0.0.2 debian"]), "10.0.0.1 10.0.0.2");
    let same = names(&["[fd20::1] debian", "[fd20::2] debian"]).unwrap_err().to_string();
    assert_eq!(
        same,
        "the hosts at ssh://[fd20::1] and ssh://[fd20::2] have the same name, debian; give each its own host name"
    );
}

/// Random interfaces, also in unusual combinations.
fn interfaces() -> impl Strategy<Value = Vec<HostInterface>> {
    let address = prop_oneof![
        4 => (0_u8..3, 1_u8..9).prop_map(|(network, number)| format!("10.{network}.0.{number}/16")),
        1 => (1_u8..9).prop_map(|number| format!("fd20::{number}/64")),
        1 => (1_u8..9).prop_map(|number| format!("fe80::{number}/64")),
    ];
    let one = (vec(address, 0..4), any::<[bool; 2]>());
    vec(one, 0..4).prop_map(|interfaces| {
        let interface = |(number, (addresses, [is_allowed, route])): (usize, (Vec<String>, [bool; 2]))| {
            let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
            let plain = interface(&format!("eno{number}"), &addresses);
            HostInterface { is_allowed, carries_default_route: route, ..plain }
        };
        interfaces.into_iter().enumerate().map(interface).collect()
    })
}

/// A random entry of a file, for one node.
fn entries() -> impl Strategy<Value = String> {
    let which = prop_oneof![
        (0_u8..4).prop_map(|number| format!("interface = 'eno{number}'")),
        (0_u8..3).prop_map(|network| format!("network = '10.{network}.0.0/16'")),
    ];
    (which, option::of((0_u8..3, 1_u8..9))).prop_map(|(which, address)| match address {
        Some((network, number)) => format!("{which}, addresses = '10.{network}.0.{number}'"),
        None => which,
    })
}

proptest! {
    #[test]
    fn every_node_has_a_location_on_its_host_or_a_mismatch(
        nodes in vec((entries(), option::of(interfaces())), 1..5),
    ) {
        let lines = nodes.iter().enumerate().map(|(number, (entry, _))| {
            format!("n{number} = {{ transport = 'ssh', host = 'h{number}', {entry} }}\n")
        });
        let text = format!("[nodes]\n{}", lines.collect::<String>());
        // The file is invalid if it gives two nodes the same address.
        let Ok(file) = InventoryFile::parse(Source::new("test.toml", text)) else {
            return Ok(());
        };
        let hosts: BTreeMap<NodeName, Host> = (0..).zip(&nodes).filter_map(|(number, (_, interfaces))| {
            let name = format!("n{number}");
            Some((node(&name), host(&name, interfaces.clone()?)))
        }).collect();
        let Resolved { inventory, mismatches } = file.resolve(&hosts, &BTreeMap::new());
        prop_assert_eq!(inventory.check(), Ok(()));
        for node in file.nodes().keys() {
            prop_assert!(inventory.nodes.contains_key(node) != mismatches.contains_key(node));
        }
        for (node, place) in &inventory.nodes {
            let Some(host) = hosts.get(node) else {
                prop_assert!(file.nodes()[node].is_complete());
                continue;
            };
            let interface = host.interfaces.iter().find(|interface| interface.name == place.interface);
            let interface = interface.expect("a location is on an interface of the host");
            prop_assert!(interface.is_allowed);
            let own: Vec<_> = interface.reachable().collect();
            prop_assert!(place.global().all(|address| own.contains(address)));
            prop_assert!(interface.link_local().all(|address| place.addresses.contains(&address)));
        }
    }

    #[test]
    fn a_draft_resolves_to_its_proposals(hosts in vec(interfaces(), 1..5)) {
        let found: Vec<_> = (1..).zip(&hosts).map(|(number, interfaces)| {
            let name = format!("n{number}");
            (address(&format!("unix:/run/{name}/agent.sock")), host(&name, interfaces.clone()))
        }).collect();
        let draft = draft(&found, None).expect("every node name is unique");
        let parsed = InventoryFile::parse(Source::new("draft.toml", &*draft.text));
        if draft.nodes.values().any(|drafted| drafted.interface.is_none()) {
            prop_assert!(parsed.is_err(), "{}", draft.text);
            return Ok(());
        }
        // The file is invalid if two hosts have the same address.
        let Ok(file) = parsed else { return Ok(()) };
        let answers = found.iter().map(|(_, host)| (host.node.clone(), host.clone())).collect();
        let resolved = file.resolve(&answers, &BTreeMap::new());
        prop_assert_eq!(&resolved.mismatches, &BTreeMap::new());
        for (node, drafted) in &draft.nodes {
            let place = &resolved.inventory.nodes[node];
            prop_assert_eq!(Some(&place.interface), drafted.interface.as_ref());
            prop_assert!(place.global().eq(&drafted.addresses));
            prop_assert_eq!(&place.agent.to_string(), &drafted.agent);
        }
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in "\\PC{0,64}|(\\[(nodes|defaults|tls|zones)\\]\n|[a-z]{1,9} = ('[a-z0-9\\[\\]{},/.:-]{0,12}'|[0-9]{1,6}|\\{\\})\n){0,9}") {
        let source = Source::new("test.toml", text);
        let _read = InventoryFile::parse(source.clone()).is_ok();
        let _carried = InventoryFile::of_topology(&source).is_ok();
    }
}
