//! `plan` without agents, by `--offline` or for lack of a lab and an inventory.

use super::harness::Sandbox;

/// An inventory of three nodes without running agents. `n3` is the table of node n3.
fn inventory(n3: &str) -> String {
    format!(
        "[defaults]\ntransport = 'unix'\nsocket = '/no/such/{{node}}.sock'\ninterface = 'eno2'\n[nodes]\n\
         n1 = {{ addresses = '10.9.0.1' }}\nn2 = {{ addresses = '10.9.0.2' }}\nn3 = {n3}\n"
    )
}

#[test]
fn without_a_lab_and_an_inventory_the_plan_is_that_of_untouched_interfaces_of_a_lab() {
    let sandbox = Sandbox::new();
    let file = sandbox.topology("uniform-3-rtt100");
    insta::assert_snapshot!(sandbox.run(["plan", &file, "--node", "n1"]), @"
    --- stdout
    # plan without agents; assumed: no qdiscs, 10 Gbit/s, addresses of lab up
    # n1 db0: 8 steps, full queues take 537 MB of kernel memory
      add root qdisc htb
      add class 1, undelayed
      add pass filters for neighbour discovery at egress
      add the ingress hook (clsact)
      add pass filters for neighbour discovery at ingress
      add class 2: delay 50ms limit 244032
      build chain 10 at egress: 6 routes
      send packets at egress to chain 10
    --- stderr
    --- exit status: 0
    ");
    insta::assert_snapshot!(sandbox.run(["plan", &file, "--node", "n2", "--as-tc"]), @"
    --- stdout
    # plan without agents; assumed: no qdiscs, 10 Gbit/s, addresses of lab up
    # if an interface has txqueuelen 0, apply also sets it to 1000
    # n2 db0: 8 steps, full queues take 537 MB of kernel memory
    tc qdisc add dev db0 root handle 4e7e: htb default 1
    tc class add dev db0 parent 4e7e: classid 4e7e:1 htb rate 100gbit burst 10mb cburst 10mb quantum 60000
    tc filter add dev db0 parent 4e7e: protocol ipv6 pref 1 handle 0x85 flower skip_hw ip_proto icmpv6 type 133 classid 4e7e:1
    tc filter add dev db0 parent 4e7e: protocol ipv6 pref 1 handle 0x86 flower skip_hw ip_proto icmpv6 type 134 classid 4e7e:1
    tc filter add dev db0 parent 4e7e: protocol ipv6 pref 1 handle 0x87 flower skip_hw ip_proto icmpv6 type 135 classid 4e7e:1
    tc filter add dev db0 parent 4e7e: protocol ipv6 pref 1 handle 0x88 flower skip_hw ip_proto icmpv6 type 136 classid 4e7e:1
    tc filter add dev db0 parent 4e7e: protocol ipv6 pref 1 handle 0x89 flower skip_hw ip_proto icmpv6 type 137 classid 4e7e:1
    tc qdisc add dev db0 clsact
    tc filter add dev db0 ingress protocol ipv6 pref 1 handle 0x85 flower skip_hw ip_proto icmpv6 type 133 action pass
    tc filter add dev db0 ingress protocol ipv6 pref 1 handle 0x86 flower skip_hw ip_proto icmpv6 type 134 action pass
    tc filter add dev db0 ingress protocol ipv6 pref 1 handle 0x87 flower skip_hw ip_proto icmpv6 type 135 action pass
    tc filter add dev db0 ingress protocol ipv6 pref 1 handle 0x88 flower skip_hw ip_proto icmpv6 type 136 action pass
    tc filter add dev db0 ingress protocol ipv6 pref 1 handle 0x89 flower skip_hw ip_proto icmpv6 type 137 action pass
    tc class add dev db0 parent 4e7e: classid 4e7e:2 htb rate 100gbit burst 10mb cburst 10mb quantum 60000
    tc qdisc add dev db0 parent 4e7e:2 handle 2: netem delay 50ms limit 244032
    tc filter add dev db0 parent 4e7e: protocol ip chain 10 pref 10 handle 0x1 flower skip_hw dst_ip 10.78.0.1 classid 4e7e:2
    tc filter add dev db0 parent 4e7e: protocol ip chain 10 pref 10 handle 0x2 flower skip_hw dst_ip 10.78.0.3 classid 4e7e:2
    tc filter add dev db0 parent 4e7e: protocol ipv6 chain 10 pref 11 handle 0x3 flower skip_hw dst_ip fd78::1 classid 4e7e:2
    tc filter add dev db0 parent 4e7e: protocol ipv6 chain 10 pref 11 handle 0x4 flower skip_hw dst_ip fd78::3 classid 4e7e:2
    tc filter add dev db0 parent 4e7e: protocol ipv6 chain 10 pref 11 handle 0x5 flower skip_hw dst_ip fe80::1 classid 4e7e:2
    tc filter add dev db0 parent 4e7e: protocol ipv6 chain 10 pref 11 handle 0x6 flower skip_hw dst_ip fe80::3 classid 4e7e:2
    tc filter replace dev db0 parent 4e7e: protocol all pref 100 handle 1 flower skip_hw action goto chain 10
    --- stderr
    --- exit status: 0
    ");
    let whole = sandbox.run(["plan", &file]).ended(0);
    assert_eq!(whole.stdout.matches(" db0: ").count(), 3, "{whole}");
    assert_eq!(sandbox.run(["plan", &file, "--offline"]).ended(0).to_string(), whole.to_string());
    insta::assert_snapshot!(sandbox.run(["plan", &file, "--node", "n9"]), @"
    --- stdout
    --- stderr
    error: no node `n9`; the nodes are n[1-3]
    --- exit status: 2
    ");
}

#[test]
fn without_agents_the_document_says_that_none_was_asked() {
    let sandbox = Sandbox::new();
    let file = sandbox.topology("uniform-3-rtt100");
    let plan = sandbox.run(["plan", "--json", "--as-tc", &file]).ended(0).json();
    assert_eq!(plan["changed"], true, "{plan}");
    assert_eq!(plan["offline"]["addresses"], "lab-up", "{plan}");
    assert_eq!(plan["offline"]["assumed_speed_mbit"], 10_000, "{plan}");
    assert!(
        plan["offline"]["message"].as_str().is_some_and(|said| said.starts_with("plan without agents; ")),
        "{plan}"
    );
    assert_eq!(plan["nodes"][2]["node"], "n3", "{plan}");
    assert!(plan["nodes"][2]["tc"].as_array().is_some_and(|commands| commands.len() > 10), "{plan}");
}

#[test]
fn agents_that_do_not_answer_are_an_error_unless_the_plan_is_to_be_offline() {
    let sandbox = Sandbox::new();
    let file = sandbox.topology("uniform-3-rtt100");
    sandbox.write("fleet.toml", inventory("{ addresses = '10.9.0.3' }"));
    insta::assert_snapshot!(sandbox.run(["--inventory", "fleet.toml", "plan", &file]), @"
    --- stdout
    --- stderr
    error: n[1-3] did not answer; nothing was changed
      n[1-3]: no agent: No such file or directory (os error 2)
    hint: see which agents answer: netemctl status
    hint: plan without agents: netemctl plan --offline TOPOLOGY
    --- exit status: 6
    ");
    let offline = ["--inventory", "fleet.toml", "plan", "--offline", &file, "--node", "n1"];
    insta::assert_snapshot!(sandbox.run(offline), @"
    --- stdout
    # plan without agents; assumed: no qdiscs, 10 Gbit/s, addresses of fleet.toml (no link-local ones)
    # n1 eno2: 8 steps, full queues take 537 MB of kernel memory
      add root qdisc htb
      add class 1, undelayed
      add pass filters for neighbour discovery at egress
      add the ingress hook (clsact)
      add pass filters for neighbour discovery at ingress
      add class 2: delay 50ms limit 244032
      build chain 10 at egress: 2 routes
      send packets at egress to chain 10
    --- stderr
    --- exit status: 0
    ");
    let plan = sandbox.run(["--inventory", "fleet.toml", "plan", "--offline", "--json", &file]).ended(0).json();
    assert_eq!(plan["offline"]["addresses"], "inventory", "{plan}");
}

#[test]
fn an_offline_plan_says_that_the_inventory_does_not_have_all_addresses() {
    let sandbox = Sandbox::new();
    let file = sandbox.topology("uniform-3-rtt100");
    sandbox.write("fleet.toml", inventory("{}"));
    insta::assert_snapshot!(sandbox.run(["--inventory", "fleet.toml", "plan", "--offline", &file, "--node", "n1"]), @"
    --- stdout
    # plan without agents; assumed: no qdiscs, 10 Gbit/s, addresses of lab up (fleet.toml is incomplete)
    # n1 db0: 8 steps, full queues take 537 MB of kernel memory
      add root qdisc htb
      add class 1, undelayed
      add pass filters for neighbour discovery at egress
      add the ingress hook (clsact)
      add pass filters for neighbour discovery at ingress
      add class 2: delay 50ms limit 244032
      build chain 10 at egress: 6 routes
      send packets at egress to chain 10
    --- stderr
    --- exit status: 0
    ");
    insta::assert_snapshot!(sandbox.run(["--inventory", "fleet.toml", "plan", &file]), @"
    --- stdout
    --- stderr
    error: n3 did not answer, and the inventory is incomplete; nothing was changed
      n3: no agent at /no/such/n3.sock: No such file or directory (os error 2) (fleet.toml:8)
    hint: see which agents answer: netemctl status
    hint: check every node: netemctl inventory check fleet.toml
    hint: plan without agents: netemctl plan --offline TOPOLOGY
    --- exit status: 6
    ");
    // An offline plan also reports a topology that this inventory cannot serve.
    sandbox.write("fleet.toml", inventory("{}").replace("n3 = {}\n", ""));
    insta::assert_snapshot!(sandbox.run(["--inventory", "fleet.toml", "plan", "--offline", &file]), @"
    --- stdout
    --- stderr
    error: the topology's nodes n3 do not exist; the fleet has n[1-2]
    hint: restart the lab with this topology: netemctl lab down && netemctl lab up FILE; or add the nodes to the inventory
    --- exit status: 2
    ");
    sandbox.write("fleet.toml", inventory("{ addresses = '10.9.0.2' }"));
    let shared = sandbox.run(["--inventory", "fleet.toml", "plan", "--offline", &file]).ended(3);
    assert!(shared.stderr.contains("10.9.0.2"), "{shared}");
}
