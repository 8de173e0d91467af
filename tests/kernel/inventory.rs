//! The main commands with an inventory file. The agents report addresses and interfaces that the file leaves out.

use std::{fs, path::Path};

use serde_json::{Value, json};

use crate::{
    lab::{Lab, retry_while_busy, shipped},
    timing::{Restarted, kill_agent},
};

const WAN: &str = "
name = 'two-zones'
zones = { Z1 = 'n[1-2]', Z2 = 'n3' }
[links]
intra-zone = { rtt = '10ms' }
inter-zone = { rtt = '40ms' }
";

/// Runs a command with this inventory and returns its JSON output.
#[track_caller]
fn run_with(lab: &Lab, inventory: &Path, line: &str) -> Value {
    let arguments = || ["--json", "--inventory"].map(Path::new).into_iter().chain([inventory]);
    retry_while_busy(|| lab.run(arguments().chain(line.split_whitespace().map(Path::new)))).expect(0).json()
}

/// Checks that all verdicts are right. Returns the number of ordered pairs that are cut.
#[track_caller]
fn cut_pairs(verified: &Value) -> usize {
    assert_eq!(verified["ok"], true, "{verified}");
    verified["pairs"].as_array().unwrap().iter().filter(|pair| pair["arrives"] == false).count()
}

#[test]
fn an_inventory_without_addresses_works_like_a_lab() {
    let lab = Lab::up(&shipped("uniform-3-rtt0.toml"));
    let untouched = lab.tc();
    let sockets = lab.directory().join("nodes/{node}/agent.sock");
    // n1 finds its interface by the default network, n2 by a network of its own, n3 by name.
    let inventory = lab.topology(&format!(
        "[defaults]\ntransport = 'unix'\nsocket = '{}'\nnetwork = '10.78.0.0/16'\n\
         [nodes]\nn1 = {{}}\nn2 = {{ network = 'fd78::/64' }}\nn3 = {{ interface = 'db0' }}\n\
         [zones]\nlast = 'n3'\n",
        sockets.display()
    ));
    let wan = lab.topology(WAN);

    // The partition names a zone of the inventory. No topology is in force.
    run_with(&lab, &inventory, "partition last");
    assert_eq!(cut_pairs(&run_with(&lab, &inventory, "verify --count 3")), 4);
    run_with(&lab, &inventory, "heal");
    assert_eq!(lab.tc(), untouched);

    let applied = run_with(&lab, &inventory, &format!("apply {}", wan.display()));
    assert_eq!((&applied["changed"], &applied["nodes"]), (&json!(true), &json!(3)));
    // The filters match both address families, although the file has at most one network for each node.
    let filters = lab.exec("n1", "tc filter show dev db0");
    for address in ["10.78.0.2", "10.78.0.3", "fd78::2", "fd78::3"] {
        assert!(filters.contains(address), "{address} in\n{filters}");
    }
    assert_eq!(cut_pairs(&run_with(&lab, &inventory, "verify --count 10 --tolerance 20")), 0);
    assert_eq!(run_with(&lab, &inventory, &format!("apply {}", wan.display()))["changed"], json!(false));

    // The same inventory works as the `[inventory]` table of a topology.
    let table = fs::read_to_string(&inventory).unwrap().replace("[defaults]", "[inventory.defaults]");
    let table = table.replace("[nodes]", "[inventory.nodes]").replace("[zones]", "[inventory.zones]");
    let carrying = lab.topology(&format!("{}{table}", WAN.replace("40ms", "60ms")));
    let applied = lab.run([Path::new("apply"), &carrying]).expect(0);
    assert!(applied.stderr.contains("hint: other commands reach these nodes with --inventory"), "{}", applied.stderr);
    assert_eq!(cut_pairs(&run_with(&lab, &carrying, "verify --count 10 --tolerance 20")), 0);

    // The other agents' documents have the address of n2, whose agent is dead. So the inventory resolves, and the
    // transaction fails as in a lab.
    kill_agent(&lab, "n2");
    let arguments = ["--inventory".as_ref(), inventory.as_os_str(), "partition".as_ref(), "Z2".as_ref()];
    let partition = lab.run(arguments).expect(6);
    assert!(partition.stderr.contains("n2 did not answer; nothing was changed"), "{}", partition.stderr);
    let _agent = Restarted::start(&lab, "n2");
    run_with(&lab, &inventory, "partition Z2");
    run_with(&lab, &inventory, "clear");
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
    assert_eq!(checked.matches("carries a default route").count(), 1, "{checked}");
    let states = lab.netemctl("--json inventory check").expect(5).json();
    let states = ["n1", "n2", "n3"].map(|node| states["nodes"][node]["state"].clone());
    assert_eq!(states, [json!("ok"), json!("refuses"), json!("refuses")]);
    assert_eq!(lab.tc(), before, "inventory check writes nothing");
    drop(lab.exec("n2", "tc qdisc del dev db0 ingress"));
    drop(lab.exec("n3", "ip route del default dev db0"));
    drop(lab.netemctl("inventory check").expect(0));
    // The check also succeeds while a topology is in force.
    lab.apply(&shipped("uniform-3-rtt0.toml"));
    drop(lab.netemctl("inventory check").expect(0));
    drop(lab.netemctl("clear").expect(0));
    assert_eq!(lab.tc(), untouched);
}

#[test]
fn a_node_that_left_the_inventory_blocks_no_command() {
    let lab = Lab::up(&shipped("uniform-3-rtt0.toml"));
    let untouched = lab.tc();
    let sockets = lab.directory().join("nodes/{node}/agent.sock");
    let inventory_of = |nodes: &str| {
        lab.topology(&format!(
            "[defaults]\ntransport = 'unix'\nsocket = '{}'\ninterface = 'db0'\n[nodes]\n'{nodes}' = {{}}\n",
            sockets.display()
        ))
    };
    let (three, two) = (inventory_of("n[1-3]"), inventory_of("n[1-2]"));
    run_with(&lab, &three, "partition n3");
    run_with(&lab, &two, "set n1 n2 delay=5ms");
    run_with(&lab, &two, "unset");
    let wan = lab.topology("name = 'two'\nnodes = 'n[1-2]'\n[links]\ndefault = { rtt = '20ms' }\n");
    let applied = run_with(&lab, &two, &format!("apply {}", wan.display()));
    assert_eq!(applied["missing"], json!(["n3"]));
    let is_cut = |node: &str| lab.exec(node, "tc filter show dev db0 ingress").contains("drop");
    assert!(is_cut("n1") && is_cut("n3"));
    let healed = run_with(&lab, &two, "heal");
    assert!(healed["node_warnings"]["n3"][0].as_str().unwrap().contains("left the inventory"), "{healed}");
    assert!(!is_cut("n1") && is_cut("n3"));
    run_with(&lab, &three, "clear");
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
    run_with(&lab, &inventory, &format!("apply {}", wan.display()));
    run_with(&lab, &inventory, "partition Z2");
    assert!(is_cut());

    // n3 loses its addresses, as at the end of a DHCP lease.
    let addresses = lab.exec("n3", "ip -o address show dev db0 scope global");
    drop(lab.exec("n3", "ip address flush dev db0 scope global"));
    run_with(&lab, &inventory, "heal");
    assert!(!is_cut());
    run_with(&lab, &inventory, "clear --only n1");
    assert_eq!(run_with(&lab, &inventory, "clear")["nodes"], 3);
    assert_eq!(lab.tc(), untouched);

    for address in addresses.lines().filter_map(|line| line.split_whitespace().nth(3)) {
        drop(lab.exec("n3", &format!("ip address add {address} dev db0 nodad")));
    }
    run_with(&lab, &inventory, &format!("apply {}", wan.display()));
    for line in ["link set db0 down", "link set db0 name ens5", "link set ens5 up"] {
        drop(lab.exec("n3", &format!("ip {line}")));
    }
    run_with(&lab, &inventory, "clear");
    for line in ["link set ens5 down", "link set ens5 name db0", "link set db0 up"] {
        drop(lab.exec("n3", &format!("ip {line}")));
    }
    assert_eq!(lab.tc(), untouched);
}
