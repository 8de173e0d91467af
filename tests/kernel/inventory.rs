//! The main job by an inventory file: the nodes are where it says, and what it leaves open their agents say.

use std::{fs, path::Path};

use serde_json::{Value, json};

use crate::{
    lab::{Lab, shipped, unless_busy},
    timing::{Restarted, kill_agent},
};

const WAN: &str = "
name = 'two-zones'
zones = { Z1 = 'n[1-2]', Z2 = 'n3' }
[links]
intra-zone = { rtt = '10ms' }
inter-zone = { rtt = '40ms' }
";

/// What a command with that inventory comes to.
#[track_caller]
fn by(lab: &Lab, inventory: &Path, line: &str) -> Value {
    let arguments = || ["--json", "--inventory"].map(Path::new).into_iter().chain([inventory]);
    unless_busy(|| lab.run(arguments().chain(line.split_whitespace().map(Path::new)))).expect(0).json()
}

/// Between how many pairs of nodes nothing arrives, if that is as it should be.
#[track_caller]
fn cut(verified: &Value) -> usize {
    assert_eq!(verified["ok"], true, "{verified}");
    verified["pairs"].as_array().unwrap().iter().filter(|pair| pair["arrives"] == false).count()
}

#[test]
fn by_an_inventory_that_leaves_addresses_open_all_is_done_as_in_the_lab() {
    let lab = Lab::up(&shipped("uniform-3-rtt0.toml"));
    let untouched = lab.tc();
    let sockets = lab.directory().join("nodes/{node}/agent.sock");
    // The interface by a network, by another one and by its name.
    let inventory = lab.topology(&format!(
        "[defaults]\ntransport = 'unix'\nsocket = '{}'\nnetwork = '10.78.0.0/16'\n\
         [nodes]\nn1 = {{}}\nn2 = {{ network = 'fd78::/64' }}\nn3 = {{ interface = 'db0' }}\n\
         [zones]\nlast = 'n3'\n",
        sockets.display()
    ));
    let wan = lab.topology(WAN);

    // A zone of the inventory, on the bare LAN.
    by(&lab, &inventory, "partition last");
    assert_eq!(cut(&by(&lab, &inventory, "verify --count 3")), 4);
    by(&lab, &inventory, "heal");
    assert_eq!(lab.tc(), untouched);

    let applied = by(&lab, &inventory, &format!("apply {}", wan.display()));
    assert_eq!((&applied["changed"], &applied["nodes"]), (&json!(true), &json!(3)));
    // Both families, although the file names none or one.
    let filters = lab.exec("n1", "tc filter show dev db0");
    for address in ["10.78.0.2", "10.78.0.3", "fd78::2", "fd78::3"] {
        assert!(filters.contains(address), "{address} in\n{filters}");
    }
    assert_eq!(cut(&by(&lab, &inventory, "verify --count 10 --tolerance 20")), 0);
    assert_eq!(by(&lab, &inventory, &format!("apply {}", wan.display()))["changed"], json!(false));

    // By the topology's own table, which is the same to the letter but for where it is.
    let table = fs::read_to_string(&inventory).unwrap().replace("[defaults]", "[inventory.defaults]");
    let table = table.replace("[nodes]", "[inventory.nodes]").replace("[zones]", "[inventory.zones]");
    let carrying = lab.topology(&format!("{}{table}", WAN.replace("40ms", "60ms")));
    let applied = lab.run([Path::new("apply"), &carrying]).expect(0);
    assert!(applied.stderr.contains("hint: other commands reach these nodes with --inventory"), "{}", applied.stderr);
    assert_eq!(cut(&by(&lab, &carrying, "verify --count 10 --tolerance 20")), 0);

    // What an agent cannot say now, the others remember: it is the transaction that fails, as in a lab.
    kill_agent(&lab, "n2");
    let arguments = ["--inventory".as_ref(), inventory.as_os_str(), "partition".as_ref(), "Z2".as_ref()];
    let partition = lab.run(arguments).expect(6);
    assert!(partition.stderr.contains("n2 did not answer; nothing was changed"), "{}", partition.stderr);
    let _again = Restarted::start(&lab, "n2");
    by(&lab, &inventory, "partition Z2");
    by(&lab, &inventory, "clear");
    assert_eq!(lab.tc(), untouched);
}

#[test]
fn inventory_check_says_what_every_change_would_refuse() {
    let lab = Lab::up(&shipped("uniform-3-rtt0.toml"));
    let untouched = lab.tc();
    drop(lab.exec("n2", "tc qdisc add dev db0 ingress"));
    drop(lab.exec("n3", "ip route add default dev db0"));
    let before = lab.tc();
    let checked = lab.netemctl("inventory check").expect(5).stdout;
    assert!(
        checked.contains("n2: interface db0: it has objects of other programs")
            && checked.contains("tc qdisc del dev db0 ingress"),
        "{checked}"
    );
    assert!(checked.contains("n3: interface db0 carries a default route"), "{checked}");
    let states = lab.netemctl("--json inventory check").expect(5).json();
    let states = ["n1", "n2", "n3"].map(|node| states["nodes"][node]["state"].clone());
    assert_eq!(states, [json!("ok"), json!("refuses"), json!("refuses")]);
    assert_eq!(lab.tc(), before, "nothing is written");
    drop(lab.exec("n2", "tc qdisc del dev db0 ingress"));
    drop(lab.exec("n3", "ip route del default dev db0"));
    drop(lab.netemctl("inventory check").expect(0));
    // Under something that is in force as well.
    lab.apply(&shipped("uniform-3-rtt0.toml"));
    drop(lab.netemctl("inventory check").expect(0));
    drop(lab.netemctl("clear").expect(0));
    assert_eq!(lab.tc(), untouched);
}

#[test]
fn a_node_that_left_the_inventory_locks_no_command() {
    let lab = Lab::up(&shipped("uniform-3-rtt0.toml"));
    let untouched = lab.tc();
    let sockets = lab.directory().join("nodes/{node}/agent.sock");
    let of = |nodes: &str| {
        lab.topology(&format!(
            "[defaults]\ntransport = 'unix'\nsocket = '{}'\ninterface = 'db0'\n[nodes]\n'{nodes}' = {{}}\n",
            sockets.display()
        ))
    };
    let (three, two) = (of("n[1-3]"), of("n[1-2]"));
    by(&lab, &three, "partition n3");
    by(&lab, &two, "set n1 n2 delay=5ms");
    by(&lab, &two, "unset");
    let wan = lab.topology("name = 'two'\nnodes = 'n[1-2]'\n[links]\ndefault = { rtt = '20ms' }\n");
    let applied = by(&lab, &two, &format!("apply {}", wan.display()));
    assert_eq!(applied["missing"], json!(["n3"]));
    let is_cut = |node: &str| lab.exec(node, "tc filter show dev db0 ingress").contains("drop");
    assert!(is_cut("n1") && is_cut("n3"));
    let healed = by(&lab, &two, "heal");
    assert!(healed["node_warnings"]["n3"][0].as_str().unwrap().contains("left the inventory"), "{healed}");
    assert!(!is_cut("n1") && is_cut("n3"));
    by(&lab, &three, "clear");
    assert_eq!(lab.tc(), untouched);
}

#[test]
fn a_node_without_its_address_or_with_a_renamed_interface_stops_no_heal_and_no_clear() {
    let lab = Lab::up(&shipped("uniform-3-rtt0.toml"));
    let untouched = lab.tc();
    let sockets = lab.directory().join("nodes/{node}/agent.sock");
    let inventory = lab.topology(&format!(
        "[defaults]\ntransport = 'unix'\nsocket = '{}'\ninterface = 'db0'\n[nodes]\n'n[1-3]' = {{}}\n",
        sockets.display()
    ));
    let wan = lab.topology(WAN);
    let is_cut = || lab.exec("n3", "tc filter show dev db0 ingress").contains("src_ip");
    by(&lab, &inventory, &format!("apply {}", wan.display()));
    by(&lab, &inventory, "partition Z2");
    assert!(is_cut());

    // The lease of n3 has ended.
    let addresses = lab.exec("n3", "ip -o address show dev db0 scope global");
    drop(lab.exec("n3", "ip address flush dev db0 scope global"));
    by(&lab, &inventory, "heal");
    assert!(!is_cut());
    by(&lab, &inventory, "clear --only n1");
    assert_eq!(by(&lab, &inventory, "clear")["nodes"], 3);
    assert_eq!(lab.tc(), untouched);

    for address in addresses.lines().filter_map(|line| line.split_whitespace().nth(3)) {
        drop(lab.exec("n3", &format!("ip address add {address} dev db0 nodad")));
    }
    by(&lab, &inventory, &format!("apply {}", wan.display()));
    for line in ["link set db0 down", "link set db0 name ens5", "link set ens5 up"] {
        drop(lab.exec("n3", &format!("ip {line}")));
    }
    by(&lab, &inventory, "clear");
    for line in ["link set ens5 down", "link set ens5 name db0", "link set db0 up"] {
        drop(lab.exec("n3", &format!("ip {line}")));
    }
    assert_eq!(lab.tc(), untouched);
}
