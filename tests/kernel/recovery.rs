//! The journal of an agent after a reboot, on a full disk, and beside another agent.

use std::{fs, path::Path, time::Duration};

use serde_json::Value;

use crate::{
    lab::{Lab, Ran, shipped},
    timing::{Restarted, home, kill_agent, restart_with},
};

fn three_nodes() -> Lab {
    let lab = Lab::up(&shipped("uniform-3-rtt100.toml"));
    lab.apply(&shipped("uniform-3-rtt100.toml"));
    lab
}

/// Simulates a reboot of a node whose agent is dead: the journal has another boot id, and the kernel has no qdiscs.
fn simulate_reboot(lab: &Lab, node: &str) {
    let journal = home(lab, node).join("journal.json");
    let text = fs::read_to_string(&journal).unwrap();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    assert!(text.contains(boot.trim()), "the journal has the boot id");
    fs::write(&journal, text.replace(boot.trim(), "00000000-0000-4000-8000-000000000000")).unwrap();
    for what in ["root", "clsact"] {
        drop(lab.exec(node, &format!("tc qdisc del dev db0 {what}")));
    }
}

/// `lab restart` keeps the qdiscs and the cuts, so other nodes see no change of the network.
#[test]
fn nodes_of_a_lab_that_are_restarted_are_shaped_and_cut_all_the_time() {
    let lab = three_nodes();
    drop(lab.netemctl("partition n3").expect(0));
    let before = lab.tc();
    drop(lab.netemctl("lab restart n[2-3]").expect(0));
    assert_eq!(lab.tc(), before);
    let status = lab.netemctl("--json status").expect(0).json();
    assert_eq!(field(&status, "n3", "topology"), field(&status, "n1", "topology"));
    drop(lab.netemctl("heal").expect(0));
}

/// A value that `status` shows for a node.
fn field<'a>(status: &'a Value, node: &str, key: &str) -> &'a Value {
    &status["nodes"][node][key]
}

#[test]
fn after_a_reboot_an_agent_restores_or_clears_its_node_as_its_config_says() {
    let lab = three_nodes();
    let (before, management) = (lab.tc(), lab.management());
    kill_agent(&lab, "n1");
    simulate_reboot(&lab, "n1");
    assert_ne!(lab.tc(), before);
    let n1 = Restarted::start(&lab, "n1");
    let status = lab.netemctl("--json status").expect(0).json();
    assert_eq!(lab.tc(), before);
    let recovered = field(&status, "n1", "recovered");
    assert_eq!((&recovered["after_reboot"], &recovered["cleared"]), (&true.into(), &false.into()));
    assert!(recovered["writes"].as_u64().unwrap() > 0);
    assert_eq!(field(&status, "n2", "recovered"), &Value::Null);
    let shown = lab.netemctl("status").expect(0).stdout;
    assert!(shown.contains("the agent started after a reboot; restored its journal"), "{shown}");
    drop(n1);

    // While the agent of n1 is dead, one partition ends and another continues.
    let n1 = Restarted::start(&lab, "n1");
    drop(lab.netemctl("partition n3 --for 200s").expect(0));
    drop(lab.netemctl("partition n2 --for 1s").expect(0));
    drop(n1);
    simulate_reboot(&lab, "n1");
    std::thread::sleep(Duration::from_secs(1));
    let n1 = Restarted::start(&lab, "n1");
    let status = lab.netemctl("--json status").expect(0).json();
    assert_eq!(field(&status, "n1", "recovered")["ended"], Value::from(vec!["n2"]));
    drop(lab.netemctl("heal").expect(0));
    assert_eq!(lab.tc(), before);
    drop(n1);

    simulate_reboot(&lab, "n1");
    let config = home(&lab, "n1").join("agent.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text + "after-reboot = \"clear\"\n").unwrap();
    let _n1 = Restarted::start(&lab, "n1");
    // `status` shows the cleared node, and exits with 4 because the nodes disagree. The other nodes are unchanged.
    let status = lab.netemctl("--json status").expect(4).json();
    assert_eq!(field(&status, "n1", "recovered")["cleared"], true);
    assert_eq!(
        (field(&status, "n1", "topology"), field(&status, "n2", "topology")),
        (&Value::Null, &"uniform-3-rtt100".into())
    );
    assert!(!lab.exec("n1", "tc qdisc show dev db0").contains("4e7e:"));
    lab.apply(&shipped("uniform-3-rtt100.toml"));
    assert_eq!((lab.tc(), lab.management()), (before, management));
}

#[test]
fn a_disk_that_is_full_is_found_before_any_node_is_touched() {
    let lab = three_nodes();
    let (before, management) = (lab.tc(), lab.management());
    kill_agent(&lab, "n1");
    // The journal is on a small disk, which is mounted only in the node's mount namespace.
    let disk = home(&lab, "n1").join("disk");
    fs::create_dir(&disk).unwrap();
    drop(lab.exec("n1", &format!("mount -t tmpfs -o size=64k tmpfs {}", disk.display())));
    let config = home(&lab, "n1").join("agent.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("journal.json", "disk/journal.json")).unwrap();
    let _n1 = Restarted::start(&lab, "n1");
    lab.apply(&shipped("uniform-3-rtt100.toml"));
    assert_eq!(lab.tc(), before);

    let fill = format!("dd if=/dev/zero of={}/fill bs=1k 2>/dev/null; true", disk.display());
    drop(lab.run(["lab", "exec", "n1", "--", "sh", "-c", &fill]).expect(0));
    for verb in ["partition n3", "set n1 n2 delay=90ms", "clear"] {
        let refused = lab.netemctl(verb).expect(1);
        assert!(refused.stderr.contains("cannot write the journal"), "{}", refused.stderr);
        assert!(refused.stderr.contains("No space left on device"), "{}", refused.stderr);
        assert_eq!(lab.tc(), before, "{verb}");
    }
    let left = lab.exec("n1", &format!("ls {}", disk.display()));
    assert_eq!(left, "fill\njournal.json\njournal.json.lock\n", "no temporary file is left");
    drop(lab.netemctl("status").expect(0));
    drop(lab.exec("n1", &format!("rm {}/fill", disk.display())));
    drop(lab.netemctl("clear").expect(0));
    assert!(!lab.tc().contains("4e7e:"));
    assert_eq!(lab.management(), management);
}

/// Runs an agent in a node. The agent must refuse to start.
fn start_refused(lab: &Lab, node: &str, config: &Path) -> Ran {
    let arguments = ["lab", "exec", node, "--", env!("CARGO_BIN_EXE_netemctl"), "agent", "--config"];
    lab.command(arguments).arg(config).output().unwrap().into()
}

#[test]
fn an_agent_exits_if_its_journal_is_unusable_or_another_agent_uses_its_journal_or_interface() {
    let lab = three_nodes();
    let before = lab.tc();
    let _n1 = restart_with(&lab, "n1", "");
    let text = fs::read_to_string(home(&lab, "n1").join("agent.toml")).unwrap();
    let config = home(&lab, "n1").join("another.toml");
    let elsewhere = text.replace("agent.sock", "another.sock");
    for (text, why) in [
        (elsewhere.clone(), "another agent uses the journal"),
        (elsewhere.replace("journal.json", "another.json"), "another agent uses interface db0"),
    ] {
        fs::write(&config, text).unwrap();
        let refused = start_refused(&lab, "n1", &config).expect(9);
        assert!(refused.stderr.contains(why) && refused.stderr.contains("hint: "), "{}", refused.stderr);
    }

    kill_agent(&lab, "n2");
    let journal = home(&lab, "n2").join("journal.json");
    let whole = fs::read(&journal).unwrap();
    let text = String::from_utf8(whole.clone()).unwrap();
    let (head, tail) = text.split_once("\"version\":").unwrap();
    let newer = format!("{head}\"version\":99{}", tail.trim_start_matches(|digit: char| digit.is_ascii_digit()));
    let refused = |make: &dyn Fn(), why: &str| {
        make();
        let refused = start_refused(&lab, "n2", &home(&lab, "n2").join("agent.toml")).expect(3);
        assert!(refused.stderr.contains(why) && refused.stderr.contains("hint: "), "{}", refused.stderr);
    };
    refused(&|| fs::write(&journal, "").unwrap(), "is invalid: it is empty");
    refused(&|| fs::write(&journal, &newer).unwrap(), "has version 99");
    refused(
        &|| {
            fs::remove_file(&journal).unwrap();
            fs::create_dir(&journal).unwrap();
        },
        "cannot read the journal",
    );
    assert_eq!(lab.tc(), before);
    fs::remove_dir(&journal).unwrap();
    fs::write(&journal, whole).unwrap();
    let _n2 = Restarted::start(&lab, "n2");
    drop(lab.netemctl("status").expect(0));
    assert_eq!(lab.tc(), before);
}
