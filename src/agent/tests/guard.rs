//! Tests of the guard: the changes that it refuses, and the exceptions that the config may allow.

use std::sync::Arc;

use super::*;
use crate::{
    agent::{Exception, Via},
    kernel::{DefaultRoute, Link},
};

/// The index of the database's interface.
const DB0: u32 = 2;
/// The index of another interface, which carries other traffic.
const ETH0: u32 = 3;

fn link(index: u32, name: &str) -> Link {
    Link { index, name: name.to_owned(), is_up: true, has_carrier: true, ..Link::default() }
}

fn eth0() -> Link {
    Link { addresses: vec![IpAddr::from([192, 0, 2, 1]).into()], ..link(ETH0, "eth0") }
}

fn route(link: u32) -> DefaultRoute {
    DefaultRoute { link: Some(link), gateway: Some([192, 0, 2, 254].into()), table: 254 }
}

/// The kernel of a host with two interfaces, one of them the database's. `make` changes the kernel for a test.
fn host(make: impl FnOnce(&mut FakeKernel)) -> FakeKernel {
    let mut kernel = clear_kernel();
    kernel.others.push(eth0());
    kernel.default_routes.push(route(ETH0));
    make(&mut kernel);
    kernel
}

fn node(kernel: FakeKernel, allow: &[Exception]) -> Node<FakeKernel> {
    let config = Config { allow: allow.to_vec(), ..config(None) };
    let sandbox = clear_kernel();
    Node::with_sandbox(config, kernel, sandbox, "boot", now()).unwrap()
}

fn by_eth0() -> Via {
    let end = |text: &str| Some(text.parse().unwrap());
    Via { local: end("192.0.2.1:7000"), peer: end("192.0.2.77:50000") }
}

/// Prepares a change and rolls it back. Returns the message of a refusal.
fn ask(node: &mut Node<FakeKernel>, wanted: &Wanted, via: Via) -> Result<(), String> {
    let prepared = node.prepare_via(prepare("a", &Wanted::default(), wanted), via, now());
    let result = prepared.map(drop).map_err(|error| {
        assert_eq!(error.code, ErrorCode::Refused, "{error}");
        error.message
    });
    node.rollback(&rollback("a"), now()).unwrap();
    assert_eq!(node.kernel().writes, 0);
    result
}

/// Expects a refusal that names the exception, and that the agent admits the change with this exception.
#[track_caller]
fn assert_refused(kernel: &FakeKernel, via: Via, exception: Exception, because: &str) {
    let wanted = uniform(&Wanted::default(), "100ms");
    let refusal = ask(&mut node(kernel.clone(), &[]), &wanted, via).unwrap_err();
    assert!(refusal.contains(because), "{refusal}");
    assert!(refusal.contains(&format!("allow it by `allow = [\"{exception}\"]`")), "{refusal}");
    ask(&mut node(kernel.clone(), &[exception]), &wanted, via).unwrap();
}

#[test]
fn an_interface_without_a_default_route_is_admitted() {
    let wanted = uniform(&Wanted::default(), "100ms");
    for via in [Via::default(), by_eth0()] {
        ask(&mut node(host(|_| {}), &[]), &wanted, via).unwrap();
    }
}

#[test]
fn a_default_route_in_any_table_on_the_interface_or_above_it_is_refused() {
    let carries = "interface db0 carries a default route";
    let directly = host(|kernel| kernel.default_routes.push(route(DB0)));
    assert_refused(&directly, Via::default(), Exception::DefaultRoute, &format!("{carries}, so"));
    let by_rule = host(|kernel| kernel.default_routes.push(DefaultRoute { table: 1000, ..route(DB0) }));
    assert_refused(&by_rule, Via::default(), Exception::DefaultRoute, &format!("{carries} (table 1000)"));
    let by_vlan = host(|kernel| {
        kernel.others.push(Link { lies_on: Some(DB0), ..link(7, "db0.7") });
        kernel.default_routes.push(route(7));
    });
    assert_refused(&by_vlan, Via::default(), Exception::DefaultRoute, &format!("{carries} (that of db0.7 above it)"));
    let unknown = host(|kernel| kernel.default_routes.push(DefaultRoute { link: None, ..route(0) }));
    assert_refused(&unknown, Via::default(), Exception::DefaultRoute, "does not name its interface");
    // A VLAN has its own queues, so shaping the VLAN does not affect other traffic of the link below it.
    let below = host(|kernel| {
        kernel.others.push(Link { lies_on: Some(ETH0), ..link(7, "eth0.7") });
    });
    ask(&mut node(below, &[]), &uniform(&Wanted::default(), "100ms"), Via::default()).unwrap();
}

#[test]
fn a_port_of_a_bridge_or_bond_and_a_bridge_with_ports_are_refused_and_a_bond_is_not() {
    let master = |kind: &str| Link { kind: Some(kind.to_owned()), ..link(9, "above0") };
    for kind in ["bridge", "bond"] {
        let port = host(|kernel| {
            kernel.master = Some(9);
            kernel.others.push(master(kind));
        });
        assert_refused(&port, Via::default(), Exception::Bridge, &format!("db0 is a port of the {kind} above0"));
    }
    let bridge = host(|kernel| kernel.others.push(Link { master: Some(DB0), ..link(9, "tap0") }));
    assert_refused(&bridge, Via::default(), Exception::Bridge, "with ports (tap0)");
    let in_vrf = host(|kernel| {
        kernel.master = Some(9);
        kernel.others.push(master("vrf"));
    });
    ask(&mut node(in_vrf, &[]), &uniform(&Wanted::default(), "100ms"), Via::default()).unwrap();
}

#[test]
fn the_loopback_is_never_shaped() {
    let mut kernel = clear_kernel();
    kernel.is_loopback = true;
    let all = [Exception::DefaultRoute, Exception::Controller, Exception::Bridge, Exception::Gateway];
    let refusal = ask(&mut node(kernel, &all), &uniform(&Wanted::default(), "100ms"), Via::default()).unwrap_err();
    assert_eq!(refusal, "interface db0 is the loopback, which is never shaped");
}

#[test]
fn the_interface_that_carries_the_controllers_connection_is_refused() {
    let end = |text: &str| Some(text.parse().unwrap());
    let via = Via { local: end("10.0.0.1:7000"), peer: end("10.0.0.77:50000") };
    let carries = "interface db0 carries the controller's own connection";
    assert_refused(&host(|_| {}), via, Exception::Controller, carries);
    // An IPv6 socket shows an IPv4 address as IPv4-mapped. A link-local address names its link.
    let mapped = Via { local: end("[::ffff:10.0.0.1]:7000"), peer: None };
    assert_refused(&host(|_| {}), mapped, Exception::Controller, carries);
    let link_local = Via { local: end("[fe80::1%2]:7000"), peer: None };
    assert_refused(&host(|_| {}), link_local, Exception::Controller, carries);
    let by_vlan = host(|kernel| {
        kernel.others.push(Link {
            lies_on: Some(DB0),
            addresses: vec![IpAddr::from([198, 51, 100, 1]).into()],
            ..link(7, "db0.7")
        });
    });
    let via = Via { local: end("198.51.100.1:22"), peer: end("198.51.100.77:50000") };
    assert_refused(&by_vlan, via, Exception::Controller, &format!("{carries} (that of db0.7 above it)"));
    let by_ssh = Via::of_ssh_connection("10.0.0.77 50000 10.0.0.1 22").unwrap();
    assert_refused(&host(|_| {}), by_ssh, Exception::Controller, carries);
}

#[test]
fn addresses_of_other_hosts_are_refused() {
    let of_n2 = |address: [u8; 4]| {
        let mut wanted = uniform(&Wanted::default(), "100ms");
        let n2 = Arc::make_mut(&mut wanted.inventory).nodes.get_mut(&"n2".parse::<NodeName>().unwrap());
        n2.unwrap().addresses = vec![address.into()];
        wanted
    };
    let refused = |address, via| ask(&mut node(host(|_| {}), &[]), &of_n2(address), via).unwrap_err();
    assert_eq!(
        refused([192, 0, 2, 1], Via::default()),
        "192.0.2.1, which the inventory gives to node n2, is this host's own (eth0); correct the inventory"
    );
    let controller = refused([192, 0, 2, 77], by_eth0());
    assert!(
        controller.contains("is the controller's; ") && controller.contains("allow = [\"controller\"]"),
        "{controller}"
    );
    let router = refused([192, 0, 2, 254], Via::default());
    assert!(router.contains("router of this host's default route; ") && router.contains("[\"gateway\"]"), "{router}");
    for address in [[127, 0, 0, 2], [0, 0, 0, 0], [224, 0, 0, 1]] {
        let nobodys = refused(address, Via::default());
        assert!(nobodys.ends_with("is no address of a host on a network; correct the inventory"), "{nobodys}");
    }
    let allowed = |exception, address, via| ask(&mut node(host(|_| {}), &[exception]), &of_n2(address), via);
    allowed(Exception::Controller, [192, 0, 2, 77], by_eth0()).unwrap();
    allowed(Exception::Gateway, [192, 0, 2, 254], Via::default()).unwrap();
    allowed(Exception::Gateway, [192, 0, 2, 1], Via::default()).unwrap_err();
}

#[test]
fn a_default_route_added_later_stops_neither_an_end_nor_a_clear() {
    let mut node = node(host(|_| {}), &[]);
    let start = now();
    let topology = uniform(&Wanted::default(), "100ms");
    put_at(&mut node, "a", &delayed(&topology, "80ms", Some(10 * SECOND)), start);
    let during = node.kernel().tree.shaping();
    node.kernel().default_routes.push(route(DB0));
    // The timed change still ends by itself.
    node.tick(start + 10 * SECOND).unwrap();
    assert_ne!(node.kernel().tree.shaping(), during);
    // The agent refuses a new partition, but a clear still restores the interface.
    let base = wanted_of(&node);
    let error = node.prepare(prepare("b", &base, &parted(&base, "n2", None)), start + 10 * SECOND).unwrap_err();
    assert_eq!(error.code, ErrorCode::Refused);
    let cleared = Wanted { generation: 9, ..base.cleared(inventory()).unwrap() };
    put_at(&mut node, "c", &cleared, start + 10 * SECOND);
    assert_eq!(node.kernel().tree, Tree::default());
}

#[test]
fn an_interface_replaced_after_the_check_is_not_changed() {
    let mut node = node(host(|_| {}), &[]);
    let wanted = uniform(&Wanted::default(), "100ms");
    node.prepare(prepare("a", &Wanted::default(), &wanted), now()).unwrap();
    node.kernel().interface.index = 12;
    let error = node.commit(&commit("a"), &now).unwrap_err();
    assert!(error.message.contains("created again after the check"), "{error}");
    assert_eq!((error.code, node.kernel().writes), (ErrorCode::Failed, 0));
}

#[test]
fn an_interface_that_lost_its_address_or_name_keeps_its_state() {
    let mut node = node(host(|_| {}), &[]);
    let topology = uniform(&Wanted::default(), "100ms");
    put(&mut node, "a", &topology);
    let uncut = node.kernel().tree.shaping();
    let cut = parted(&topology, "n2", None);
    put(&mut node, "b", &cut);
    node.kernel().interface.addresses.clear();
    let error = node.prepare(prepare("c", &cut, &uniform(&cut, "80ms")), now()).unwrap_err();
    assert!(
        error
            .message
            .contains("lacks the address 10.0.0.1 of the inventory; add it: ip address add 10.0.0.1/PREFIX dev db0"),
        "{error}"
    );
    // A heal only removes.
    let healed = Wanted { generation: 3, ..cut.healed(&[], inventory()).unwrap() };
    put(&mut node, "d", &healed);
    assert_eq!(node.kernel().tree.shaping(), uncut);

    node.kernel().interface.name = "ens5".parse().unwrap();
    let drift = node.status(now()).unwrap().drift;
    assert!(drift[0].starts_with("interface db0 is now called ens5: "), "{drift:?}");
    put(&mut node, "e", &Wanted { generation: 4, ..healed.cleared(inventory()).unwrap() });
    assert_eq!(node.kernel().tree, Tree::default());
}

#[test]
fn the_interface_of_another_node_is_not_mistaken_for_the_renamed_interface() {
    let mut node = node(host(|_| {}), &[]);
    let topology = uniform(&Wanted::default(), "100ms");
    put(&mut node, "a", &topology);
    let kernel = node.kernel();
    kernel.interface.name = "ens5".parse().unwrap();
    kernel.tree = Tree { taken: true, ..Tree::default() };
    let before = kernel.tree.clone();
    let cleared = Wanted { generation: 2, ..topology.cleared(inventory()).unwrap() };
    let error = node.prepare(prepare("b", &topology, &cleared), now()).unwrap_err();
    assert_eq!(error.message, "interface db0 does not exist");
    assert_eq!(node.kernel().tree, before);
}

/// Without this check, every client of the agent could send echo requests to any address by `/v1/probe`.
#[test]
fn an_agent_measures_only_addresses_of_nodes() {
    let mut node = node(host(|_| {}), &[]);
    put(&mut node, "a", &uniform(&Wanted::default(), "100ms"));
    node.may_measure(&[address(2), address(3)], now()).unwrap();
    let error = node.may_measure(&[address(2), [192, 0, 2, 77].into()], now()).unwrap_err();
    assert_eq!(error.code, ErrorCode::Refused);
    assert!(error.message.starts_with("192.0.2.77 is not measured: "), "{error}");
}
