//! Inventory files: `inventory show`, `check` and `init`, and the choice of the file. The agents are those of a lab,
//! reached by their Unix sockets.

use std::fs;

use super::{
    change::kernel_can_shape,
    harness::{Answer, Lab, Sandbox},
};

/// The exit code of `inventory check` if all nodes match the inventory, and the state of each node.
fn check_outcome() -> (i32, &'static str) {
    if kernel_can_shape() { (0, "ok") } else { (7, "refuses") }
}

/// A lab of three nodes with the inventory `net.toml`. For n1 and n2 it has only the sockets and the network.
fn lab() -> Lab {
    let lab = Lab::up("uniform-3-rtt0");
    let sockets = lab.sandbox.lab_directory().join("nodes/{node}/agent.sock");
    lab.sandbox.write(
        "net.toml",
        format!(
            "[defaults]\ntransport = \"unix\"\nsocket = \"{}\"\nnetwork = \"10.78.0.0/16\"\n\n\
             [nodes]\n\"n[1-2]\" = {{}}\nn3 = {{ interface = \"db0\", addresses = \"10.78.0.3\" }}\n\n\
             [zones]\nZ1 = \"n[1-2]\"\n",
            sockets.display()
        ),
    );
    lab
}

/// Writes a copy of `net.toml` in which `by` replaces `what`.
fn write_altered(lab: &Lab, file: &str, what: &str, by: &str) {
    let text = fs::read_to_string(lab.sandbox.path().join("net.toml")).expect("the file is there");
    assert!(text.contains(what), "{text}");
    lab.sandbox.write(file, text.replace(what, by));
}

/// Runs netemctl with `net.toml` in `NETEMCTL_INVENTORY`.
fn with_environment(lab: &Lab, arguments: &str) -> Answer {
    let script = format!("NETEMCTL_INVENTORY=net.toml exec \"$NETEMCTL\" {arguments}");
    lab.sandbox.run_other("sh", ["-c", &script])
}

#[test]
fn an_inventory_says_where_the_nodes_are_and_agents_say_the_rest() {
    let lab = lab();
    insta::assert_snapshot!(lab.run(["inventory", "show", "net.toml"]), @"
    --- stdout
    inventory: net.toml
    agents: unix:[DIR]/lab/nodes/{node}/agent.sock

    NODE  INTERFACE                ADDRESSES
    n1    the one in 10.78.0.0/16  all
    n2    the one in 10.78.0.0/16  all
    n3    db0                      10.78.0.3

    zone Z1: n[1-2]
    --- stderr
    --- exit status: 0
    ");
    let (exit, state) = check_outcome();
    let shown = lab.run(["inventory", "check", "net.toml"]).ended(exit);
    for (node, addresses) in [("n2", "10.78.0.2 fd78::2"), ("n3", "10.78.0.3        ")] {
        let line = format!("{node}    db0        {addresses}  10000 Mbit/s  {state}\n");
        assert!(shown.stdout.contains(&line), "{line}{shown}");
    }
    let warning =
        "n3: warning: fd78::3 of interface db0 is not in the inventory: packets to it are neither delayed nor cut\n";
    assert!(shown.stdout.contains(warning), "{shown}");
    insta::assert_snapshot!(lab.run(["--inventory", "net.toml", "status"]), @"
    --- stdout
    nothing is in force on 3 nodes

    NODE    INTERFACE  ONE-WAY DELAYS  CUT ADDRESSES  STATE
    n[1-3]  db0        -               -              ok

    inventory: net.toml
    --- stderr
    --- exit status: 0
    ");
    let checked = lab.run(["inventory", "check", "--json", "net.toml"]).ended(exit).json();
    assert_eq!(checked["ok"], exit == 0);
    assert_eq!(checked["inventory"], serde_json::json!({"from": "file", "file": "net.toml"}));
    let n2 = &checked["nodes"]["n2"];
    assert_eq!((&n2["state"], &n2["interface"], &n2["speed_mbit"]), (&state.into(), &"db0".into(), &10_000.into()));
    assert_eq!(n2["addresses"], serde_json::json!(["10.78.0.2", "fd78::2", "fe80::2"]));
    let interfaces = n2["host"]["interfaces"].as_array().expect("interfaces");
    let db0 = interfaces.iter().find(|interface| interface["name"] == "db0").expect("db0");
    assert_eq!((&db0["is_allowed"], &db0["is_up"], &db0["mtu"]), (&true.into(), &true.into(), &1_500.into()));
    assert_eq!(db0["mac"], "02:4e:7e:4e:00:02");
    assert!(db0["addresses"].as_array().expect("addresses").contains(&"10.78.0.2/16".into()), "{db0}");
}

#[test]
fn the_file_of_the_command_line_comes_first_and_then_that_of_the_environment() {
    let lab = lab();
    write_altered(&lab, "two.toml", "n3 = {", "# n3 = {");
    let shown = |answer: Answer| {
        let json = answer.ended(0).json();
        (json["inventory"]["from"].clone(), json["nodes"].as_object().map(serde_json::Map::len))
    };
    assert_eq!(shown(lab.run(["inventory", "show", "--json"])), ("lab".into(), Some(3)));
    assert_eq!(shown(with_environment(&lab, "inventory show --json")), ("environment".into(), Some(3)));
    let both = with_environment(&lab, "--inventory two.toml status --json");
    assert_eq!(shown(both), ("file".into(), Some(2)));
    assert_eq!(shown(with_environment(&lab, "inventory show --json two.toml")), ("file".into(), Some(2)));
    let none = lab.run(["--inventory", "none.toml", "status"]).ended(3);
    assert!(none.stderr.contains("cannot read the inventory none.toml: no such file"), "{none}");
}

#[test]
fn nodes_that_do_not_match_the_inventory_are_named_and_nothing_changes() {
    let lab = lab();
    write_altered(&lab, "other.toml", "10.78.0.0/16", "10.77.0.0/16");
    insta::assert_snapshot!(lab.run(["--inventory", "other.toml", "partition", "Z1"]), @"
    --- stdout
    --- stderr
    error: the inventory does not match n[1-2]; nothing was changed
      n[1-2]: the agent's config allows db0, not mgmt0; use db0, or add mgmt0 to `interfaces` in that config
    hint: check every node: netemctl inventory check other.toml
    --- exit status: 5
    ");
    insta::assert_snapshot!(lab.run(["inventory", "check", "other.toml"]), @"
    --- stdout
    inventory: other.toml
    agents: unix:[DIR]/lab/nodes/{node}/agent.sock

    NODE  INTERFACE  ADDRESSES  SPEED         STATE
    n1    -          -          -             misfit
    n2    -          -          -             misfit
    n3    db0        10.78.0.3  10000 Mbit/s  ok

    n[1-2]: the agent's config allows db0, not mgmt0; use db0, or add mgmt0 to `interfaces` in that config
    n3: warning: fd78::3 of interface db0 is not in the inventory: packets to it are neither delayed nor cut
    no dry run: a link needs two nodes that answer and fit the inventory
    --- stderr
    --- exit status: 5
    ");
    write_altered(&lab, "swapped.toml", "\"n[1-2]\" = {}", "n1 = {}\nn2 = {}");
    let text = fs::read_to_string(lab.sandbox.path().join("swapped.toml")).expect("the file is there");
    let socket = |node: &str| lab.sandbox.lab_directory().join("nodes").join(node).join("agent.sock");
    let swapped = text
        .replace("n1 = {}", &format!("n1 = {{ socket = \"{}\" }}", socket("n2").display()))
        .replace("n2 = {}", &format!("n2 = {{ socket = \"{}\" }}", socket("n1").display()));
    lab.sandbox.write("swapped.toml", swapped);
    let swapped = lab.run(["--inventory", "swapped.toml", "clear"]).ended(5);
    assert!(swapped.stderr.contains("agent.sock is that of n2; correct `host` in the inventory"), "{swapped}");
    // Read-only commands work with this inventory.
    let _status = lab.run(["--inventory", "other.toml", "status"]).ended(0);
    assert_eq!(lab.in_force()["nodes"]["n1"]["stamp"]["generation"], 0);
}

#[test]
fn an_agent_that_does_not_answer_is_named_and_does_not_hide_the_others() {
    let lab = lab();
    lab.sandbox.kill(lab.sandbox.agent("n2"));
    let status = lab.run(["--inventory", "net.toml", "status", "--json"]).ended(6).json();
    assert_eq!(
        (&status["nodes"]["n1"]["state"], &status["nodes"]["n2"]["state"]),
        (&"ok".into(), &"unreachable".into())
    );
    // The exit code of a permanent problem takes precedence over "unreachable", which a retry may solve.
    let (exit, state) = check_outcome();
    let checked = lab.run(["inventory", "check", "net.toml", "--json"]).ended(exit.max(6)).json();
    assert_eq!(
        (&checked["nodes"]["n1"]["state"], &checked["nodes"]["n2"]["state"]),
        (&state.into(), &"unreachable".into())
    );
    let clear = lab.run(["--inventory", "net.toml", "clear"]).ended(6);
    assert!(
        clear.stderr.starts_with("error: n2 did not answer, and the inventory is incomplete; nothing was changed\n"),
        "{clear}"
    );
    assert!(clear.stderr.contains("no agent at [DIR]/lab/nodes/n2/agent.sock"), "{clear}");
}

#[test]
fn a_node_that_is_left_out_is_left_out_of_its_zone_too() {
    let lab = lab();
    lab.sandbox.kill(lab.sandbox.agent("n2"));
    let cleared = lab.run(["--inventory", "net.toml", "clear", "--allow-missing", "--json"]).ended(0).json();
    assert_eq!(cleared["missing"], serde_json::json!(["n2"]));
}

#[test]
fn a_silent_node_without_known_addresses_is_not_reported_as_a_missing_node() {
    let lab = lab();
    lab.sandbox.kill(lab.sandbox.agent("n2"));
    insta::assert_snapshot!(lab.run(["--inventory", "net.toml", "apply", "--allow-missing", "uniform-3-rtt0.toml"]), @"
    --- stdout
    --- stderr
    error: n2 did not answer, and the inventory is incomplete; nothing was changed
      n2: no agent at [DIR]/lab/nodes/n2/agent.sock: Connection refused (os error 111) (net.toml:7)
    hint: restart the agent: netemctl lab restart n2
    hint: for --allow-missing, give `interface` and `addresses` of n2 in the inventory: the topology has n2
    hint: check every node: netemctl inventory check net.toml
    --- exit status: 6
    ");
}

#[test]
fn a_topology_may_carry_its_inventory() {
    let lab = lab();
    let inventory = fs::read_to_string(lab.sandbox.path().join("net.toml")).expect("net.toml can be read");
    let inventory = inventory.replace("[defaults]", "[inventory.defaults]").replace("[nodes]", "[inventory.nodes]");
    let inventory = inventory.split("[zones]").next().expect("text");
    let topology = "name = \"two\"\n[zones]\nleft = \"n1\"\nright = \"n2\"\n[links]\ndefault = { rtt = \"0ms\" }\n\n";
    lab.sandbox.write("two.toml", format!("{topology}{inventory}"));
    let _checked = lab.run(["check", "two.toml"]).ended(0);
    let shown = lab.run(["inventory", "show", "two.toml"]).ended(0);
    assert!(shown.stdout.contains("zone left: n1\nzone right: n2\n"), "{shown}");

    // Without a lab, `plan` uses the topology's own `[inventory]` table.
    let elsewhere = Sandbox::new();
    elsewhere.write("two.toml", format!("{topology}{inventory}"));
    let _nowhere = elsewhere.run(["status"]).ended(6);
    let status = elsewhere.run(["--inventory", "two.toml", "status", "--json"]).ended(0).json();
    assert_eq!(status["nodes"].as_object().map(serde_json::Map::len), Some(3));
    let planned = elsewhere.run(["plan", "two.toml"]);
    // Exit code 7 also proves that an agent answered: its kernel lacks netem.
    assert!([0, 7].contains(&planned.code()), "{planned}");
    elsewhere.write("bad.toml", "[nodes]\nn1 = {}\n");
    let given = elsewhere.run(["--inventory", "bad.toml", "plan", "two.toml"]).ended(3);
    assert!(given.stderr.contains("bad.toml:2:1"), "{given}");

    // Errors of the `[inventory]` table are reported together with all others.
    let wrong = format!("{}{}", topology.replace("0ms", "0"), inventory.replace("network", "netwrk"));
    lab.sandbox.write("wrong.toml", wrong);
    let wrong = lab.run(["check", "wrong.toml"]).ended(3);
    assert!(wrong.stderr.contains("a unit is missing"), "{wrong}");
    assert!(wrong.stderr.contains("unknown key `netwrk` in `defaults`"), "{wrong}");
}

#[test]
fn init_writes_what_the_hosts_say_and_overwrites_nothing() {
    let lab = lab();
    let sockets = format!("unix:{}/nodes/n[1-3]/agent.sock", lab.sandbox.lab_directory().display());
    let printed = lab.run(["inventory", "init", &sockets]).ended(0);
    let said: String =
        printed.stdout.lines().filter(|line| !line.starts_with('#')).flat_map(|line| [line, "\n"]).collect();
    insta::assert_snapshot!(said, @r#"
    [defaults]
    transport = "unix"
    socket = "[DIR]/lab/nodes/{node}/agent.sock"
    interface = "db0"

    [nodes]
    n1 = { addresses = ["10.78.0.1", "fd78::1"] }

    n2 = { addresses = ["10.78.0.2", "fd78::2"] }

    n3 = { addresses = ["10.78.0.3", "fd78::3"] }
    "#);
    assert!(printed.stdout.contains("#   mgmt0: up, 10000 Mbit/s, 10.77.0.1/16 fd77::1/64"), "{printed}");
    assert!(printed.stdout.contains("# * db0: up, 10000 Mbit/s, 10.78.0.1/16 fd78::1/64"), "{printed}");

    insta::assert_snapshot!(lab.run(["inventory", "init", &sockets, "--output", "new.toml"]), @"
    --- stdout
    new.toml: 3 nodes; review it, then run: netemctl inventory check new.toml
    --- stderr
    --- exit status: 0
    ");
    insta::assert_snapshot!(lab.run(["inventory", "init", &sockets, "--output", "new.toml"]), @"
    --- stdout
    --- stderr
    error: new.toml exists already; nothing was written
    hint: choose another name, or overwrite it with --force
    --- exit status: 5
    ");
    let _forced = lab.run(["inventory", "init", &sockets, "--output", "new.toml", "--force"]).ended(0);
    let checked = lab.run(["inventory", "check", "new.toml", "--json"]).ended(check_outcome().0).json();
    assert_eq!(checked["nodes"]["n3"]["addresses"], serde_json::json!(["10.78.0.3", "fd78::3", "fe80::3"]));

    lab.sandbox.kill(lab.sandbox.agent("n2"));
    let silent = lab.run(["inventory", "init", &sockets, "--output", "other.toml"]).ended(6);
    assert!(silent.stderr.starts_with("error: 1 of 3 hosts did not answer; nothing was written\n"), "{silent}");
    assert!(!lab.sandbox.path().join("other.toml").exists());
}

#[test]
fn init_reports_invalid_hosts_before_it_calls_any() {
    let sandbox = Sandbox::new();
    let init = |host: &str, transport: &str| {
        sandbox.run(["inventory", "init", host, "--transport", transport]).ended(2).stderr
    };
    assert!(init("n[1-3", "ssh").contains("unmatched bracket in `n[1-3`"));
    assert!(init("ftp://n1", "ssh").contains("`ftp://n1` is not a host: there is no transport `ftp`"));
    assert!(init("ssh://-oProxyCommand=x", "ssh").contains("is not a host"));
    assert!(init("n1", "https").contains("agents with HTTPS require a controller's certificate"));
    assert!(init("n1", "carrier-pigeon").contains("invalid value 'carrier-pigeon'"));
}
