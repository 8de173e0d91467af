//! Changes under traffic: no packet is lost or undelayed, and no change writes more than necessary.

use std::{
    io::Read,
    path::Path,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use crate::{
    lab::{Lab, shipped},
    sockets::{Mesh, Stream},
};

/// Moves n4 into zone A and changes the delays between zones. Profiles and their members are added and removed.
const REGROUPED: &str = "
name = 'regrouped'
zones.A = 'n[1-4]'
zones.B = 'n[5-9]'
[links]
intra-zone = { rtt = '90ms' }
inter-zone = { rtt = '130ms' }
";

#[test]
fn a_second_apply_writes_nothing_to_any_kernel() {
    let lab = Lab::hierarchical();
    let topology = shipped("hierarchical-9.toml");
    assert_eq!(lab.apply(&topology)["changed"], true);
    // `tc monitor` prints every write to the kernel.
    let mut monitor = lab.command(["lab", "exec", "n1", "--", "tc", "monitor"]).stdout(Stdio::piped()).spawn().unwrap();
    thread::sleep(Duration::from_secs(1));
    let second = lab.apply(&topology);
    assert_eq!(second["changed"], false);
    assert!(second["writes"].as_object().unwrap().values().all(|steps| steps == 0));
    drop(lab.exec("n1", "tc qdisc add dev lo root pfifo"));
    thread::sleep(Duration::from_secs(1));
    monitor.kill().unwrap();
    let mut output = String::new();
    monitor.stdout.take().unwrap().read_to_string(&mut output).unwrap();
    monitor.wait().unwrap();
    assert!(output.contains("pfifo"), "tc monitor does not work: {output}");
    assert!(!output.contains("db0"), "something was written: {output}");
}

#[test]
fn no_packet_is_lost_or_undelayed_while_topologies_change() {
    let lab = Lab::hierarchical();
    let (hierarchical, regrouped) = (shipped("hierarchical-9.toml"), lab.topology(REGROUPED));
    let faster = lab.topology(&REGROUPED.replace("90ms", "80ms"));
    lab.apply(&hierarchical);
    // One-way delay from n1 to n4: 75 ms, then 45 ms, then 40 ms by a change in place, then 75 ms, then 45 ms.
    let stream = Stream::start(&lab, 1, 4);
    for topology in [&regrouped, &faster, &hierarchical, &regrouped] {
        thread::sleep(Duration::from_millis(500));
        assert_eq!(lab.apply(topology)["changed"], true);
    }
    thread::sleep(Duration::from_millis(500));
    let streamed = stream.finish();
    assert!(streamed.sent > 1_000, "only {} packets were sent", streamed.sent);
    assert_eq!(streamed.delays.len() as u64, streamed.sent, "packets were lost");
    let least = streamed.delays.iter().min().unwrap();
    assert!(*least >= Duration::from_millis(40), "a packet arrived after {least:?}, less than every delay in force");
}

#[test]
fn numbers_change_in_place_and_membership_by_a_new_chain() {
    let lab = Lab::hierarchical();
    lab.apply(&shipped("hierarchical-9.toml"));
    let plan = |topology: &Path| lab.run([Path::new("plan"), topology, Path::new("--node=n1")]).expect(0).stdout;
    let slower = lab.topology(
        "name = 'slower'\nzones.Z1 = 'n[1-3]'\nzones.Z2 = 'n[4-6]'\nzones.Z3 = 'n[7-9]'\n\
         [links]\nintra-zone = { rtt = '20ms' }\ninter-zone = { rtt = '200ms' }\n",
    );
    let in_place = plan(&slower);
    assert!(in_place.contains("change class 3 in place: delay 75ms limit 244032 → delay 100ms"), "{in_place}");
    assert!(!in_place.contains("chain"), "{in_place}");
    let regrouped = plan(&lab.topology(REGROUPED));
    assert!(regrouped.contains("switch from chain 10 to 11"), "{regrouped}");
}

#[test]
fn unused_classes_are_deleted_when_they_have_drained() {
    let lab = Lab::hierarchical();
    lab.apply(&shipped("hierarchical-9.toml"));
    lab.apply(&shipped("uniform-9-rtt100.toml"));
    let deadline = Instant::now() + Duration::from_secs(20);
    let netems = || lab.exec("n1", "tc qdisc show dev db0").matches("netem").count();
    while netems() > 1 && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(netems(), 1);
    drop(lab.netemctl("status").expect(0));
}

#[test]
fn a_foreign_change_shows_as_drift_and_apply_repairs_it() {
    let lab = Lab::hierarchical();
    lab.apply(&shipped("hierarchical-9.toml"));
    drop(lab.exec("n1", "tc filter del dev db0 parent 4e7e: protocol all pref 100"));
    let status = lab.netemctl("status").expect(4).stdout;
    assert!(status.contains("n1: drift since"), "{status}");
    let repaired = lab.apply(&shipped("hierarchical-9.toml"));
    let repaired = repaired["writes"].as_object().unwrap();
    assert!(repaired.iter().all(|(node, steps)| (node == "n1") == (steps != 0)), "{repaired:?}");
    drop(lab.netemctl("status").expect(0));
}

#[test]
fn two_controllers_at_once_leave_one_state_on_all_nodes() {
    let lab = Lab::hierarchical();
    let spawn = |name: &str| {
        let mut command = lab.command([Path::new("apply"), &shipped(name)]);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    for _ in 0..3 {
        let rivals = [spawn("uniform-9-rtt100.toml"), spawn("uniform-9-rtt300.toml")];
        for mut rival in rivals {
            let code = rival.wait().unwrap().code().unwrap();
            assert!([0, 9].contains(&code), "an apply ended with {code}");
        }
        drop(lab.netemctl("status").expect(0));
    }
}

#[test]
fn an_interrupted_apply_leaves_all_nodes_with_one_state() {
    let lab = Lab::hierarchical();
    for (milliseconds, topology) in
        [(100, "uniform-9-rtt100.toml"), (250, "uniform-9-rtt300.toml"), (400, "uniform-9-rtt100.toml")]
    {
        let mut apply = lab.command([Path::new("apply"), &shipped(topology)]);
        let mut apply = apply.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        thread::sleep(Duration::from_millis(milliseconds));
        let pid = nix::unistd::Pid::from_raw(apply.id().cast_signed());
        // Fails if the apply has ended already.
        let _sent = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT);
        // `None`: SIGINT killed the apply before it installed its handler, and so before its first request.
        let code = apply.wait().unwrap().code();
        assert!([Some(0), Some(130), None].contains(&code), "the apply ended with {code:?}");
        drop(lab.netemctl("status").expect(0));
    }
}

#[test]
fn links_without_delay_carry_all_packets() {
    let lab = Lab::hierarchical();
    lab.apply(&shipped("uniform-9-rtt0.toml"));
    Mesh::of(&lab, 9).assert_heard(|_, _| true);
}
