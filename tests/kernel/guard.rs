//! Refusals by agents. A refusal on one node leaves all nodes unchanged.

use std::{collections::BTreeMap, fs, path::Path};

use netemctl::{
    agent::{Config, Exception, Node, Now, Via},
    fleet::{Access, CallError, Edit, Fleet, Phase, TransactionError},
    kernel::Rtnl,
    lab::LabDirectory,
    plan::{Inventory, Wanted},
    topology::{NodeName, Source, Topology},
    wire::{ErrorCode, Prepare, Ticket},
};
use tokio_util::sync::CancellationToken;

use crate::{
    lab::{Lab, shipped},
    sockets::within,
    timing::{home, kill_agent},
};

/// Applies the topology of nine nodes with this inventory, which may differ from the lab's own inventory.
fn apply_on(inventory: Inventory) -> Result<(), BTreeMap<NodeName, CallError>> {
    let fleet = Fleet::new(inventory.clone(), Access::default());
    let interrupt = CancellationToken::new();
    let terms = Edit::replacing();
    let edit = fleet.edit(&terms, &interrupt, |wanted| wanted.with_topology(hierarchical_topology(), inventory));
    match tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(edit) {
        Ok(_) => Ok(()),
        Err(TransactionError::Nodes { failures, left, .. }) if left.is_empty() => Err(failures),
        Err(error) => panic!("{error}"),
    }
}

fn hierarchical_topology() -> Topology {
    let path = shipped("hierarchical-9.toml");
    let text = fs::read_to_string(&path).unwrap();
    Topology::parse(Source::new(path.display().to_string(), text)).unwrap()
}

fn inventory_of(lab: &Lab) -> Inventory {
    LabDirectory::of_user(Some(lab.directory().to_owned())).unwrap().find().unwrap().inventory()
}

#[track_caller]
fn assert_refused(result: Result<(), BTreeMap<NodeName, CallError>>, node: &str, because: &str) {
    let failures = result.unwrap_err();
    assert_eq!(failures.keys().map(NodeName::as_str).collect::<Vec<_>>(), [node]);
    match &failures[&node.parse::<NodeName>().unwrap()] {
        CallError::Refused(error) => {
            assert_eq!(error.code, ErrorCode::Refused);
            assert!(error.message.contains(because), "{error}");
        }
        other => panic!("{other}"),
    }
}

#[test]
fn an_interface_that_the_agents_config_does_not_allow_is_refused() {
    let lab = Lab::hierarchical();
    let before = lab.tc();
    let mut inventory = inventory_of(&lab);
    let entry = inventory.nodes.get_mut(&"n5".parse::<NodeName>().unwrap()).unwrap();
    entry.interface = "mgmt0".parse().unwrap();
    assert_refused(apply_on(inventory), "n5", "not one that this agent may touch");
    assert_eq!(lab.tc(), before, "a refused apply changed a node");
}

#[test]
fn an_inventory_that_is_wrong_about_an_address_is_refused() {
    let lab = Lab::hierarchical();
    let mut inventory = inventory_of(&lab);
    let entry = inventory.nodes.get_mut(&"n5".parse::<NodeName>().unwrap()).unwrap();
    entry.addresses = vec!["10.78.0.99".parse().unwrap()];
    assert_refused(apply_on(inventory), "n5", "10.78.0.99");
}

#[test]
fn an_interface_with_a_default_route_is_refused() {
    let lab = Lab::hierarchical();
    drop(lab.exec("n5", "ip route add default via 10.78.0.1 dev db0"));
    assert_refused(apply_on(inventory_of(&lab)), "n5", "default route");
}

/// Each row makes n2 refuse the interface for another reason. No node is changed.
#[test]
fn an_interface_that_carries_other_traffic_too_is_refused_for_each_reason() {
    let lab = Lab::up(&shipped("uniform-3-rtt100.toml"));
    let management = lab.management();
    let reasons = [
        (
            "ip route add default via 10.78.0.3 dev db0 table 1000",
            "ip route flush table 1000",
            "default route (table 1000)",
        ),
        ("ip -6 route add default via fd78::3 dev db0", "ip -6 route del default", "default route, so"),
        ("ip route add 128.0.0.0/1 dev db0", "ip route del 128.0.0.0/1", "default route, so"),
        (
            "ip link add link db0 name up0 type macvlan && ip link set up0 up && ip route add default dev up0",
            "ip link del up0",
            "default route (that of up0 above it)",
        ),
        ("ip link add br0 type bridge && ip link set db0 master br0", "ip link del br0", "a port of the bridge br0"),
        ("ip address add 10.78.0.3/32 dev lo", "ip address del 10.78.0.3/32 dev lo", "is this host's own (lo)"),
        (
            "ip route add default via 10.77.0.3 dev mgmt0 && ip route add default via 10.78.0.3 dev mgmt0 onlink table 9",
            "ip route del default; ip route flush table 9",
            "10.78.0.3, which the inventory gives to node n3, is the router",
        ),
    ];
    for (make, unmake, because) in reasons {
        drop(lab.run(["lab", "exec", "n2", "--", "sh", "-c", make]).expect(0));
        let before = lab.tc();
        let refused = lab.run([Path::new("apply"), &shipped("uniform-3-rtt100.toml")]).expect(5);
        assert!(refused.stderr.contains("n2") && refused.stderr.contains(because), "{make}: {}", refused.stderr);
        assert_eq!(lab.tc(), before, "{make}");
        drop(lab.run(["lab", "exec", "n2", "--", "sh", "-c", unmake]).expect(0));
    }
    assert_eq!(lab.management(), management);
    lab.apply(&shipped("uniform-3-rtt100.toml"));

    // With a default route that was added later, the agent refuses a new partition, and accepts `clear`.
    drop(lab.exec("n2", "ip route add default dev db0"));
    drop(lab.netemctl("partition n3").expect(5));
    drop(lab.netemctl("clear").expect(0));
    assert!(!lab.tc().contains("4e7e:"));
}

/// Lab agents listen on Unix sockets. So the test opens a node itself, and passes it the addresses of a TCP connection.
#[test]
fn an_interface_that_carries_the_controllers_connection_is_refused() {
    let lab = Lab::up(&shipped("uniform-3-rtt100.toml"));
    kill_agent(&lab, "n1");
    let text = fs::read_to_string(shipped("uniform-3-rtt100.toml")).unwrap();
    let topology = Topology::parse(Source::new("uniform.toml", text)).unwrap();
    let wanted = Wanted { generation: 1, ..Wanted::default().with_topology(topology, inventory_of(&lab)).unwrap() };
    let prepare = |allow: Vec<Exception>, via: Via| {
        within(&lab, "n1", || {
            let config = home(&lab, "n1").join("agent.toml");
            let config = Config { allow, journal: None, ..Config::read(&config).unwrap() };
            let mut node = Node::open(config, Rtnl::open().unwrap(), Now::read()).unwrap();
            let request = Prepare {
                ticket: Ticket("t".to_owned()),
                base: Wanted::default().stamp(),
                wanted: Some(wanted.clone()),
                edit: None,
            };
            node.prepare_via(request, via, Now::read()).map(drop).map_err(|error| error.message)
        })
    };
    let address = |text: &str| Some(text.parse().unwrap());
    for (local, peer) in [
        ("10.78.0.1:7000", "10.78.0.2:50000"),
        ("[fd78::1]:7000", "[fd78::2]:50000"),
        ("[::ffff:10.78.0.1]:7000", "[::ffff:10.78.0.99]:50000"),
        // The request arrives at another address, but the replies leave by db0.
        ("10.77.0.1:7000", "10.78.0.99:50000"),
    ] {
        let via = Via { local: address(local), peer: address(peer) };
        let refusal = prepare(Vec::new(), via).unwrap_err();
        assert!(refusal.contains("interface db0 carries the controller's own connection"), "{refusal}");
        prepare(vec![Exception::Controller], via).unwrap();
    }
    for (local, peer) in [("10.77.0.1:7000", "10.77.0.99:50000"), ("127.0.0.1:7000", "127.0.0.1:50000")] {
        prepare(Vec::new(), Via { local: address(local), peer: address(peer) }).unwrap();
    }
}

#[test]
fn an_apply_that_one_agent_refuses_changes_no_node() {
    let lab = Lab::hierarchical();
    drop(lab.exec("n5", "tc qdisc add dev db0 root handle 8001: fq"));
    let before = lab.tc();
    let refused = lab.run([Path::new("apply"), &shipped("hierarchical-9.toml")]).expect(5);
    assert!(refused.stderr.contains("n5") && refused.stderr.contains("qdisc fq 8001:"), "{}", refused.stderr);
    assert_eq!(lab.tc(), before);
    // `clear` keeps a foreign qdisc too.
    drop(lab.netemctl("clear").expect(0));
    assert_eq!(lab.tc(), before);
}

#[test]
fn a_foreign_ingress_qdisc_is_refused() {
    let lab = Lab::hierarchical();
    drop(lab.exec("n5", "tc qdisc add dev db0 clsact"));
    let before = lab.tc();
    drop(lab.run([Path::new("apply"), &shipped("hierarchical-9.toml")]).expect(5));
    assert_eq!(lab.tc(), before);
}

#[test]
fn a_foreign_filter_among_ours_prevents_partition_but_neither_heal_nor_clear() {
    let lab = Lab::up(&shipped("uniform-3-rtt100.toml"));
    let untouched = lab.tc();
    // The foreign filter is attached to a qdisc of netemctl: clsact, or the root qdisc and one of its classes. So
    // `clear` leaves this qdisc, and prints the command that removes the foreign filter.
    for (add, command) in [
        ("ingress protocol ip pref 7 matchall action pass", "tc qdisc del dev db0 clsact"),
        (
            "parent 4e7e: protocol all pref 7 matchall flowid 4e7e:2",
            "tc filter del dev db0 parent 4e7e: protocol all pref 7",
        ),
    ] {
        lab.apply(&shipped("uniform-3-rtt100.toml"));
        drop(lab.netemctl("partition n3").expect(0));
        drop(lab.exec("n2", &format!("tc filter add dev db0 {add}")));
        let before = lab.tc();
        let refused = lab.netemctl("partition n1").expect(5);
        assert!(refused.stderr.contains("; remove them on the node: tc filter del dev db0"), "{}", refused.stderr);
        assert_eq!(lab.tc(), before);
        drop(lab.netemctl("status").expect(4));

        drop(lab.netemctl("heal").expect(0));
        assert!(!lab.exec("n2", "tc filter show dev db0 ingress").contains("drop"));
        let cleared = lab.netemctl("clear").expect(0).stdout;
        assert!(cleared.contains("n2: the ") && cleared.contains(command), "{cleared}");
        assert_eq!(lab.exec("n1", "tc qdisc show dev db0").lines().count(), 1, "clear did not restore n1");
        let left =
            ["tc filter show dev db0 ingress", "tc filter show dev db0"].map(|line| lab.exec("n2", line)).concat();
        assert!(left.contains("pref 7") && !left.contains("flower"), "{left}");
        drop(lab.exec("n2", command));
        drop(lab.netemctl("clear").expect(0));
        assert_eq!(lab.tc(), untouched);
    }
}

#[test]
fn a_node_that_fails_after_prepare_lets_no_node_change() {
    let lab = Lab::hierarchical();
    let before = lab.tc();
    let inventory = inventory_of(&lab);
    let fleet = Fleet::new(inventory.clone(), Access::default());
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let prepared = fleet
            .prepare(&Edit::replacing(), &CancellationToken::new(), |wanted| {
                wanted.with_topology(hierarchical_topology(), inventory)
            })
            .await
            .unwrap();
        assert_eq!(prepared.preview.nodes.len(), 9);
        // All nodes have prepared. Now n5 loses its interface.
        drop(lab.exec("n5", "ip link set db0 down"));
        drop(lab.exec("n5", "ip link set db0 name gone0"));
        match prepared.commit(&CancellationToken::new()).await {
            Err(TransactionError::Nodes { phase: Phase::Prepare, failures, left }) => {
                assert_eq!(failures.keys().map(NodeName::as_str).collect::<Vec<_>>(), ["n5"]);
                assert!(left.is_empty(), "{left:?}");
            }
            other => panic!("{other:?}"),
        }
    });
    drop(lab.exec("n5", "ip link set gone0 name db0"));
    drop(lab.exec("n5", "ip link set db0 up"));
    assert_eq!(lab.tc(), before);
}
