//! Interfaces with a queue of length 0, a meaningless speed, or an alternative name.

use netemctl::{
    kernel::{Interface, Kernel as _, Rtnl, execute},
    plan::{Shaping, diff},
};

use crate::{
    lab::{Lab, shipped},
    sockets::within,
};

/// The queue length of an interface. `None`: the length is 0, which `ip` does not show.
fn queue(lab: &Lab, node: &str, interface: &str) -> Option<String> {
    let shown = lab.exec(node, &format!("ip -o link show dev {interface}"));
    shown.split_once(" qlen ").map(|(_, rest)| rest.split_whitespace().next().unwrap().trim_matches('\\').to_owned())
}

#[test]
fn a_queue_of_no_length_drops_nothing_while_shaped_and_has_no_length_again_afterwards() {
    let lab = Lab::up(&shipped("uniform-3-rtt100.toml"));
    drop(lab.exec("n1", "ip link set dev db0 txqueuelen 0"));
    drop(lab.exec("n2", "ip link set dev db0 txqueuelen 500"));
    lab.apply(&shipped("uniform-3-rtt100.toml"));
    assert_eq!(queue(&lab, "n1", "db0").as_deref(), Some("1000"));
    drop(lab.netemctl("clear").expect(0));
    assert_eq!(queue(&lab, "n1", "db0"), None);
    assert_eq!(queue(&lab, "n2", "db0").as_deref(), Some("500"));

    // A tap interface has a device queue, like hardware. A veth interface has no queue.
    drop(lab.exec("n1", "ip tuntap add dev tap7 mode tap"));
    drop(lab.exec("n1", "ip link set dev tap7 txqueuelen 0 up"));
    let shape = |wanted: Option<&Shaping>| {
        within(&lab, "n1", || {
            let mut kernel = Rtnl::open().unwrap();
            let interface: Interface = kernel.interface(&"tap7".parse().unwrap()).unwrap();
            let change = diff(wanted, &kernel.observe(&interface).unwrap()).unwrap();
            execute(&mut kernel, &interface, &change.steps).unwrap();
        });
    };
    shape(Some(&Shaping::default()));
    let shown = lab.exec("n1", "tc qdisc show dev tap7 invisible");
    assert!(shown.contains("pfifo 0: parent 4e7e:1 limit 1000p"), "{shown}");
    shape(None);
    assert_eq!(queue(&lab, "n1", "tap7"), None);
    assert!(!lab.exec("n1", "tc qdisc show dev tap7").contains("4e7e"));

    // The kernel reports 10 Mbit/s for every tap interface, so netemctl treats the speed as unknown.
    assert_eq!(lab.exec("n1", "cat /sys/class/net/tap7/speed").trim(), "10");
    let checked = lab.netemctl("--json inventory check").expect(0).json();
    let interfaces = checked["nodes"]["n1"]["host"]["interfaces"].as_array().unwrap();
    let tap = interfaces.iter().find(|interface| interface["name"] == "tap7").unwrap();
    assert!(tap["speed_mbit"].is_null(), "{tap}");

    // The kernel also accepts alternative names. Two agents could shape one interface by different names, so netemctl
    // refuses alternative names.
    drop(lab.exec("n1", "ip link property add dev db0 altname database"));
    let error = within(&lab, "n1", || Rtnl::open().unwrap().interface(&"database".parse().unwrap())).unwrap_err();
    assert!(error.to_string().starts_with("database is an alternative name of interface db0"), "{error}");
}
