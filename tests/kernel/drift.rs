//! Changes of interfaces by other programs: `status` shows them at once, and an agent with `on-drift = "repair"`
//! repairs them.

use std::{thread, time::Duration};

use serde_json::Value;

use crate::{
    lab::{Lab, shipped},
    timing::{restart_with, wait_until},
};

const NO_CARRIER: &str = "interface db0 has no carrier: no packet passes until it is connected";

/// Three nodes with a delay. The agent of n1 repairs drift, and the agents of n2 and n3 only report it.
struct Site {
    lab: Lab,
    _n1: crate::timing::Restarted,
    management: String,
}

impl Site {
    fn up() -> Self {
        let lab = Lab::up(&shipped("uniform-3-rtt100.toml"));
        lab.apply(&shipped("uniform-3-rtt100.toml"));
        let n1 = restart_with(&lab, "n1", "on-drift = \"repair\"\n");
        let management = lab.management();
        Self { lab, _n1: n1, management }
    }

    fn status(&self, code: i32) -> Value {
        self.lab.netemctl("--json status").expect(code).json()
    }

    fn watch(&self, node: &str) -> Value {
        let status: Value = self.lab.netemctl("--json status").json();
        status["nodes"][node]["watch"].clone()
    }

    fn on_both(&self, line: &str) {
        for node in ["n1", "n2"] {
            drop(self.lab.exec(node, line));
        }
    }

    /// The state of each node's qdiscs, classes and filters.
    fn tc(&self) -> Vec<String> {
        let all = self.lab.tc();
        all.split("\nn").map(str::to_owned).collect()
    }
}

fn incidents(watch: &Value) -> Vec<String> {
    let incidents = watch["incidents"].as_array().unwrap();
    incidents.iter().map(|incident| incident["what"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn deleted_filters_are_drift_at_once_and_are_repaired_if_the_config_says_so() {
    let site = Site::up();
    let before = site.tc();
    site.on_both("tc filter del dev db0");
    let status = site.status(4);
    assert_eq!(status["nodes"]["n2"]["state"], "drifts");
    assert!(status["nodes"]["n2"]["watch"]["since"].is_string(), "{status}");
    wait_until(|| site.watch("n1")["repairs"] == 1);
    let after = site.tc();
    assert_eq!(after[0], before[0], "the repair of n1 is incomplete");
    assert_ne!(after[1], before[1], "n2 was repaired against its config");
    assert_eq!(site.watch("n2")["repairs"], 0);

    // Changes by netemctl are no drift, and restore n2.
    site.lab.apply(&shipped("uniform-3-rtt100.toml"));
    drop(site.lab.netemctl("partition n3").expect(0));
    drop(site.lab.netemctl("heal").expect(0));
    // Regression: each agent woke up five times a second, and so took CPU time from the workload of the machine. On a
    // busy machine, agents have work to finish first, so several intervals are tried.
    let wake_ups = (0..6).map(|_| site.lab.wake_ups(Duration::from_secs(4))).find(|wake_ups| *wake_ups <= 12);
    assert!(
        wake_ups.is_some(),
        "three agents with delays in force woke up more than 12 times in each of six intervals of 4 s"
    );
    let status = site.status(0);
    assert_eq!(site.tc(), before);
    for node in ["n1", "n2", "n3"] {
        assert_eq!(incidents(&status["nodes"][node]["watch"]), [""; 0], "{node}");
    }
    assert_eq!(site.watch("n1")["repairs"], 1);

    // Another program deletes the filters repeatedly. The agent then repairs less and less often.
    let deletions = "for i in $(seq 40); do tc filter del dev db0 2>/dev/null; sleep 0.1; done";
    drop(site.lab.run(["lab", "exec", "n1", "--", "sh", "-c", deletions]).expect(0));
    let repairs = site.watch("n1")["repairs"].as_u64().unwrap();
    assert!((2..=7).contains(&repairs), "{repairs} repairs of forty deletions in about eight seconds");
    site.lab.apply(&shipped("uniform-3-rtt100.toml"));
    assert_eq!((site.tc(), site.lab.management()), (before, site.management.clone()));
}

#[test]
fn after_an_edit_each_filter_that_another_program_deletes_is_drift() {
    let site = Site::up();
    let before = site.tc();
    // On n2, the edits change routes, build and remove a chain at ingress, and add cuts to active chains.
    for edit in ["set n1 n2 delay=20ms", "partition n3", "partition n1", "heal", "unset"] {
        drop(site.lab.netemctl(edit).expect(0));
        drop(site.status(0));
        // The v4 cuts at ingress and at egress, then the v4 routes.
        for (parent, pref) in [("ingress", 2), ("parent 4e7e:", 2), ("parent 4e7e:", 10)] {
            let delete = format!("tc filter del dev db0 {parent} pref {pref} chain");
            let delete = format!("{delete} 10 2>/dev/null || {delete} 11 2>/dev/null && echo deleted; true");
            let deleted = site.lab.run(["lab", "exec", "n2", "--", "sh", "-c", &delete]).expect(0).stdout;
            let is_there = edit.starts_with("partition") || pref == 10;
            assert_eq!(!deleted.is_empty(), is_there, "{edit}, {parent} pref {pref}");
            drop(site.status(if is_there { 4 } else { 0 }));
            // The next change writes the missing filters again.
            site.lab.apply(&shipped("uniform-3-rtt100.toml"));
            drop(site.status(0));
        }
    }
    assert_eq!(site.tc(), before);
}

#[test]
fn a_foreign_root_qdisc_is_reported_and_kept_and_clear_removes_the_rest_of_ours() {
    let site = Site::up();
    drop(site.lab.netemctl("partition n3").expect(0));
    site.on_both("tc qdisc del dev db0 root");
    drop(site.lab.exec("n2", "tc qdisc add dev db0 root handle 8001: fq"));
    wait_until(|| site.watch("n1")["repairs"] == 1);
    let status = site.status(4);
    assert!(status["nodes"]["n2"]["foreign"][0]["what"].as_str().unwrap().starts_with("qdisc fq 8001:"), "{status}");
    drop(site.lab.exec("n1", "tc qdisc replace dev db0 root handle 8001: fq"));
    wait_until(|| site.watch("n1")["obstacle"].is_string());
    thread::sleep(Duration::from_millis(1500));
    let shown = site.lab.exec("n1", "tc qdisc show dev db0");
    assert!(shown.starts_with("qdisc fq 8001: root"), "{shown}");
    // When the foreign root qdisc is deleted, the agent repairs n1.
    drop(site.lab.exec("n1", "tc qdisc del dev db0 root"));
    wait_until(|| site.watch("n1")["repairs"] == 2);
    // On n2, `clear` keeps the foreign root qdisc, and removes netemctl's filters at ingress.
    assert!(site.lab.exec("n2", "tc filter show dev db0 ingress").contains("drop"));
    drop(site.lab.netemctl("clear").expect(0));
    let shown = site.lab.exec("n2", "tc qdisc show dev db0");
    assert!(shown.starts_with("qdisc fq 8001: root") && !shown.contains("clsact"), "{shown}");
    assert!(!site.lab.tc().contains("4e7e:"));
    assert_eq!(site.lab.management(), site.management);
}

#[test]
fn an_interface_that_goes_down_and_up_is_reported_and_keeps_its_qdiscs() {
    let site = Site::up();
    let before = site.tc();
    site.on_both("ip link set db0 down");
    let status = site.status(4);
    for node in ["n1", "n2"] {
        let drift = status["nodes"][node]["drift"].to_string();
        assert!(drift.contains("set interface db0 up"), "{drift}");
    }
    site.on_both("ip link set db0 up");
    // Setting an interface down removes its IPv6 addresses.
    for (node, number) in [("n1", 1), ("n2", 2)] {
        drop(site.lab.exec(node, &format!("ip -6 address add fd78::{number}/64 dev db0 nodad")));
    }
    wait_until(|| site.lab.netemctl("status").code == Some(0));
    assert_eq!(site.tc(), before, "the qdiscs changed");
    for node in ["n1", "n2"] {
        let watch = site.watch(node);
        let recorded = incidents(&watch).join("; ");
        assert!(
            recorded.contains("interface db0 went down") && recorded.contains("interface db0 went up"),
            "{recorded}"
        );
        assert_eq!((&watch["since"], &watch["repairs"]), (&Value::Null, &0.into()));
    }
    assert_eq!(site.lab.management(), site.management);
}

#[test]
fn apply_and_status_both_warn_of_an_interface_without_a_carrier_and_neither_calls_it_drift() {
    let lab = Lab::up(&shipped("uniform-3-rtt100.toml"));
    let set_carrier = |is_there: bool| {
        lab.set_port("d2", if is_there { "up" } else { "down" });
        wait_until(|| lab.exec("n2", "cat /sys/class/net/db0/carrier").trim() == u8::from(is_there).to_string());
    };
    let apply = || lab.apply(&shipped("uniform-3-rtt100.toml"));
    let status = || lab.netemctl("--json status").expect(0).json()["nodes"]["n2"].clone();
    let warned = serde_json::json!([NO_CARRIER]);

    set_carrier(false);
    let applied = apply();
    assert_eq!((&applied["changed"], &applied["node_warnings"]["n2"]), (&true.into(), &warned));
    assert_eq!((&status()["state"], &status()["warnings"]), (&"ok".into(), &warned));
    assert_eq!(apply()["changed"], false, "status reports ok, but apply writes");
    let shown = lab.netemctl("status").expect(0).stdout;
    assert!(shown.contains(NO_CARRIER), "{shown}");

    set_carrier(true);
    let applied = apply();
    assert_eq!((&applied["changed"], &applied["node_warnings"]), (&false.into(), &Value::Null));
    assert_eq!((&status()["state"], &status()["warnings"]), (&"ok".into(), &Value::Null));

    set_carrier(false);
    wait_until(|| incidents(&status()["watch"]).contains(&"interface db0 lost its carrier".to_owned()));
    assert_eq!((&status()["state"], &status()["warnings"]), (&"ok".into(), &warned));
}

#[test]
fn an_interface_without_a_carrier_keeps_its_last_speed_so_that_no_limit_drifts() {
    let lab = Lab::up(&shipped("uniform-3-rtt0.toml"));
    // The speed of a bond is the sum of its ports' speeds, and unknown without a carrier. Both ports are VLANs of one
    // interface, so they lose their carrier at the same time.
    for line in [
        "ip link set db0 down",
        "ip link set db0 name cable",
        "ip link set cable up",
        "ip link add db0 type bond mode balance-rr miimon 20",
        "ip link add link cable name port1 type vlan id 1",
        "ip link add link cable name port2 type vlan id 2",
        "ip link set port1 master db0",
        "ip link set port2 master db0",
        "ip link set db0 up",
        "ip address add 10.78.0.1/16 dev db0",
        "ip -6 address add fd78::1/64 dev db0 nodad",
    ] {
        drop(lab.exec("n1", line));
    }
    let speed = || lab.exec("n1", "cat /sys/class/net/db0/speed").trim().to_owned();
    wait_until(|| speed() == "20000");
    // The delay is short. The limit of a long delay is bounded by memory, so it does not depend on the speed.
    lab.apply(&lab.topology("name = 'short'\nnodes = 'n[1-3]'\n[links]\ndefault = { rtt = '10ms' }\n"));
    lab.set_port("d1", "down");
    wait_until(|| speed() == "-1");
    let status = lab.netemctl("--json status").expect(0).json();
    assert_eq!(status["nodes"]["n1"]["warnings"][0], NO_CARRIER);
}

#[test]
fn a_recreated_interface_is_drift_and_is_repaired_if_the_config_says_so() {
    let site = Site::up();
    let before = site.lab.exec("n1", "tc class show dev db0");
    site.on_both("ip link del db0");
    let status = site.status(4);
    for node in ["n1", "n2"] {
        let drift = status["nodes"][node]["drift"][0].as_str().unwrap();
        assert_eq!(drift, "create interface db0 again, with its addresses: it is gone");
    }
    site.on_both("ip link add db0 type dummy");
    site.on_both("ip link set db0 up");
    thread::sleep(Duration::from_millis(500));
    let bare = site.lab.exec("n1", "tc qdisc show dev db0");
    assert!(!bare.contains("4e7e:"), "the agent shaped an interface without the node's addresses: {bare}");
    for (node, number) in [("n1", 1), ("n2", 2)] {
        drop(site.lab.exec(node, &format!("ip -6 address add fd78::{number}/64 dev db0 nodad")));
        drop(site.lab.exec(node, &format!("ip address add 10.78.0.{number}/16 dev db0")));
    }
    wait_until(|| site.watch("n1")["repairs"] == 1);
    assert_eq!(site.lab.exec("n1", "tc class show dev db0"), before);
    assert_eq!(site.lab.exec("n2", "tc class show dev db0"), "", "n2 was repaired against its config");
    let recorded = incidents(&site.watch("n1"));
    assert!(recorded.contains(&"interface db0 was deleted".to_owned()), "{recorded:?}");
    let status = site.status(4);
    let states = ["n1", "n2", "n3"].map(|node| status["nodes"][node]["state"].clone());
    assert_eq!(states, ["ok", "drifts", "ok"]);
    site.lab.apply(&shipped("uniform-3-rtt100.toml"));
    drop(site.status(0));
    drop(site.lab.netemctl("clear").expect(0));
    assert!(!site.lab.tc().contains("4e7e:"));
    assert_eq!(site.lab.management(), site.management);
}
