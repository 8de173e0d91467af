//! Timed partitions begin and end on all nodes at the agreed time, also after an agent or the controller has ended.

use std::{
    fs,
    net::UdpSocket,
    os::unix::net::UnixStream,
    path::PathBuf,
    process::{Child, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

use crate::{
    lab::{Lab, shipped},
    sockets::{Mesh, Stream, udp, v4},
};

/// The largest lateness of a timed change on one CPU with nine agents.
const LATENESS: Duration = Duration::from_secs(2);

fn in_z3(node: u16) -> bool {
    node >= 7
}

/// The wall-clock time in seconds.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

fn sleep_until(moment: f64) {
    thread::sleep(Duration::from_secs_f64((moment - now()).max(0.0)));
}

/// Runs a command that changes the network. Returns the agreed time of the change and the JSON output.
#[track_caller]
pub(crate) fn change(lab: &Lab, line: &str) -> (f64, Value) {
    let changed = lab.netemctl(&format!("--json {line}")).expect(0).json();
    (changed["onset"]["agreed"].as_f64().unwrap(), changed)
}

/// The folder of a node's files.
pub(crate) fn home(lab: &Lab, node: &str) -> PathBuf {
    lab.directory().join("nodes").join(node)
}

/// Kills the agent of a node with SIGKILL, like the out-of-memory killer.
pub(crate) fn kill_agent(lab: &Lab, node: &str) {
    let config = home(lab, node).join("agent.toml");
    let is_agent = |pid: &i32| {
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&command).contains(&*config.to_string_lossy())
    };
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let agents: Vec<i32> =
        processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(is_agent).collect();
    assert_eq!(agents.len(), 1, "{node} has one agent");
    kill(Pid::from_raw(agents[0]), Signal::SIGKILL).unwrap();
    wait_until(|| UnixStream::connect(home(lab, node).join("agent.sock")).is_err());
}

/// An agent that the test has started in a node, with the config of the node's first agent.
pub(crate) struct Restarted(Child);

impl Restarted {
    pub(crate) fn start(lab: &Lab, node: &str) -> Self {
        Self::start_with(lab, node, &[])
    }

    /// Starts an agent with more environment variables, each as `NAME=VALUE`.
    pub(crate) fn start_with(lab: &Lab, node: &str, environment: &[String]) -> Self {
        let config = home(lab, node).join("agent.toml");
        let mut command = lab.command(["lab", "exec", node, "--", "env"]);
        command.args(environment).args([env!("CARGO_BIN_EXE_netemctl"), "agent", "--config"]);
        let child = command.arg(config).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        wait_until(|| UnixStream::connect(home(lab, node).join("agent.sock")).is_ok());
        Self(child)
    }
}

/// Kills the agent of a node, appends text to its config, and starts it again.
pub(crate) fn restart_with(lab: &Lab, node: &str, more: &str) -> Restarted {
    kill_agent(lab, node);
    let config = home(lab, node).join("agent.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(config, text + more).unwrap();
    Restarted::start(lab, node)
}

impl Drop for Restarted {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[track_caller]
pub(crate) fn wait_until(condition: impl Fn() -> bool) {
    // In user-mode Linux on a busy machine, the start of an agent alone takes 10 s.
    let deadline = Instant::now() + Duration::from_mins(1);
    while !condition() {
        assert!(Instant::now() < deadline, "timeout");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A stream of 100 packets per second. The receiver records the arrival time of each packet.
pub(crate) struct Ticks {
    stop: Arc<AtomicBool>,
    sender: JoinHandle<()>,
    receiver: JoinHandle<Vec<f64>>,
}

impl Ticks {
    pub(crate) fn start(lab: &Lab, from: u16, to: u16) -> Self {
        let source = udp(lab, &format!("n{from}"), v4(from), 0);
        let sink: UdpSocket = udp(lab, &format!("n{to}"), v4(to), 7002);
        sink.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let (stops_sender, stops_receiver) = (Arc::clone(&stop), Arc::clone(&stop));
        let sender = thread::spawn(move || {
            let start = Instant::now();
            for tick in 1.. {
                if stops_sender.load(Ordering::Relaxed) {
                    break;
                }
                source.send_to(b"tick", (v4(to), 7002)).unwrap();
                thread::sleep((start + tick * Duration::from_millis(10)).saturating_duration_since(Instant::now()));
            }
        });
        let receiver = thread::spawn(move || {
            let mut arrivals = Vec::new();
            while !stops_receiver.load(Ordering::Relaxed) {
                if sink.recv(&mut [0; 8]).is_ok() {
                    arrivals.push(now());
                }
            }
            arrivals
        });
        Self { stop, sender, receiver }
    }

    /// The gaps of more than 0.3 s between two arrivals. Each gap is its start and its end, in seconds after `since`.
    pub(crate) fn silences(self, since: f64) -> Vec<(f64, f64)> {
        self.stop.store(true, Ordering::Relaxed);
        self.sender.join().unwrap();
        let arrivals = self.receiver.join().unwrap();
        let gaps = arrivals.windows(2).filter(|pair| pair[1] - pair[0] > 0.3);
        gaps.map(|pair| (pair[0] - since, pair[1] - since)).collect()
    }
}

#[test]
fn all_nodes_cut_and_heal_at_one_instant() {
    let lab = Lab::hierarchical();
    lab.apply(&shipped("hierarchical-9.toml"));
    let apply = format!("apply {}", shipped("uniform-9-rtt100.toml").display());
    for line in ["partition Z3", "heal", &apply] {
        let (_, changed) = change(&lab, line);
        let nodes = changed["onset"]["nodes"].as_object().unwrap();
        assert_eq!(nodes.len(), 9);
        assert!(nodes.values().all(|node| node["first_us"].as_f64().unwrap() >= 0.0), "{changed}");
        let spread = changed["onset"]["spread_us"].as_f64().unwrap();
        let last = nodes.values().map(|node| node["last_us"].as_f64().unwrap()).fold(0.0, f64::max);
        assert!(spread < 1e6 && last < 1e6, "{changed}");
    }
    let said = lab.netemctl("partition Z3").expect(0).stdout;
    assert!(said.contains("changed 9 nodes") && said.contains("; all switched within "), "{said}");
}

#[test]
fn a_timed_partition_ends_without_the_controller() {
    let lab = Lab::hierarchical();
    let before = lab.tc();
    let mesh = Mesh::of(&lab, 9);
    let (begins, _) = change(&lab, "partition Z3 --for 6s");
    mesh.assert_heard(|a, b| in_z3(a) == in_z3(b));
    sleep_until(begins + 6.0);
    thread::sleep(LATENESS);
    assert_eq!(lab.tc(), before, "no filter is left");
    mesh.assert_heard(|_, _| true);
    let status = lab.netemctl("--json status").expect(0).json();
    assert_eq!(status["partitions"], serde_json::json!([]));
}

#[test]
fn an_agent_that_is_killed_and_started_when_the_time_is_up_leaves_nothing() {
    let lab = Lab::hierarchical();
    lab.apply(&shipped("hierarchical-9.toml"));
    let before = lab.tc();
    let mesh = Mesh::of(&lab, 9);
    let (begins, _) = change(&lab, "partition Z3 --for 6s");
    sleep_until(begins + 3.0);
    kill_agent(&lab, "n7");
    sleep_until(begins + 7.0);
    assert!(lab.exec("n7", "tc filter show dev db0 ingress").contains("drop"), "n7 had no agent to heal it");
    mesh.assert_heard(|a, b| a != 7 && b != 7 || in_z3(a) == in_z3(b));

    let _agent = Restarted::start(&lab, "n7");
    assert_eq!(lab.tc(), before, "no filter is left");
    mesh.assert_heard(|_, _| true);
    drop(lab.netemctl("status").expect(0));
    // The restarted agent takes part in new changes.
    drop(lab.netemctl("partition Z1").expect(0));
    drop(lab.netemctl("heal").expect(0));
}

#[test]
fn an_agent_that_is_killed_and_started_in_time_goes_on_with_the_time_that_is_left() {
    let lab = Lab::hierarchical();
    lab.apply(&shipped("hierarchical-9.toml"));
    let before = lab.tc();
    let mesh = Mesh::of(&lab, 9);
    let (begins, _) = change(&lab, "partition Z3 --for 8s");
    kill_agent(&lab, "n7");
    // Another program deletes the cuts while the agent is dead. The new agent adds them again.
    drop(lab.exec("n7", "tc filter del dev db0 ingress"));
    let _agent = Restarted::start(&lab, "n7");
    mesh.assert_heard(|a, b| in_z3(a) == in_z3(b));
    let status = lab.netemctl("--json status").expect(0).json();
    let left = status["nodes"]["n7"]["partitions"][0]["left_s"].as_f64().unwrap();
    assert!((begins + 8.0 - now() - left).abs() < 1.0, "{left} s are left");
    sleep_until(begins + 8.0);
    thread::sleep(LATENESS);
    assert_eq!(lab.tc(), before);
    mesh.assert_heard(|_, _| true);
}

#[test]
fn a_journal_that_is_torn_stops_an_agent_and_its_node_stays_as_it_is() {
    let lab = Lab::hierarchical();
    lab.apply(&shipped("hierarchical-9.toml"));
    let before = lab.tc();
    kill_agent(&lab, "n7");
    let journal = home(&lab, "n7").join("journal.json");
    let whole = fs::read(&journal).unwrap();
    fs::write(&journal, &whole[..whole.len() / 2]).unwrap();
    let config = home(&lab, "n7").join("agent.toml");
    let arguments = ["lab", "exec", "n7", "--", env!("CARGO_BIN_EXE_netemctl"), "agent", "--config"];
    let output = lab.command(arguments).arg(config).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("journal.json is invalid") && said.contains("hint: "), "{said}");
    assert_eq!(lab.tc(), before);
    fs::write(&journal, whole).unwrap();
    let _agent = Restarted::start(&lab, "n7");
    drop(lab.netemctl("status").expect(0));
    assert_eq!(lab.tc(), before);
}

#[test]
fn a_flap_goes_down_and_up_when_it_should_for_several_periods() {
    let lab = Lab::hierarchical();
    let before = lab.tc();
    let ticks = Ticks::start(&lab, 1, 9);
    thread::sleep(Duration::from_millis(500));
    let (begins, _) = change(&lab, "partition n9 --flap 1s/1500ms --for 11s");
    sleep_until(begins + 11.0);
    thread::sleep(LATENESS);
    let silences = ticks.silences(begins);
    assert_eq!(silences.len(), 5, "{silences:?}");
    // The last silence ends with the partition.
    let wanted = [0.0, 1.0, 2.5, 3.5, 5.0, 6.0, 7.5, 8.5, 10.0, 11.0];
    let seen = silences.iter().flat_map(|(down, up)| [down, up]);
    let mut errors: Vec<f64> = seen.zip(wanted).map(|(seen, wanted)| (seen - wanted).abs()).collect();
    errors.sort_by(f64::total_cmp);
    // A busy machine may delay some of the ten turns. Four may be off by more than 0.1 s, and one by more than 0.7 s.
    assert!(errors[5] < 0.1 && errors[8] < 0.7, "{silences:?}");
    assert_eq!(lab.tc(), before);
}

#[test]
fn a_flap_disturbs_no_other_pair() {
    let lab = Lab::hierarchical();
    lab.apply(&shipped("hierarchical-9.toml"));
    let stream = Stream::start(&lab, 1, 4);
    let (begins, _) = change(&lab, "partition Z3 --flap 300ms/300ms --for 3s");
    sleep_until(begins + 4.0);
    stream.finish().assert_undisturbed(Duration::from_millis(75));
}

#[test]
fn a_scheduled_partition_begins_on_all_nodes_at_its_time() {
    let lab = Lab::hierarchical();
    let mesh = Mesh::of(&lab, 9);
    let ticks: Vec<Ticks> = [(1, 7), (8, 4)].map(|(from, to)| Ticks::start(&lab, from, to)).into();
    let asked = now();
    let (_, changed) = change(&lab, "partition Z3 --at +10s --for 2s");
    assert_eq!(changed["changed"], true);
    mesh.assert_heard(|_, _| true);
    let status = lab.netemctl("--json status").expect(0).json();
    assert!(now() < asked + 10.0, "this machine is too slow for this test");
    assert_eq!(status["nodes"]["n7"]["partitions"][0]["is_on"], false);
    sleep_until(asked + 14.0);
    for ticks in ticks {
        let mut silences = ticks.silences(asked);
        // A busy machine causes short silences too.
        silences.retain(|(down, up)| up - down >= 1.0);
        let [(down, up)] = silences[..] else { panic!("{silences:?}") };
        assert!((9.8..11.5).contains(&down) && (1.0..3.0).contains(&(up - down)), "{silences:?}");
    }
}

#[test]
fn partitions_that_overlap_end_in_either_order() {
    for (z3, n1) in [(4, 8), (8, 4)] {
        let lab = Lab::hierarchical();
        let before = lab.tc();
        let mesh = Mesh::of(&lab, 9);
        let (first, _) = change(&lab, &format!("partition Z3 --for {z3}s"));
        let (second, _) = change(&lab, &format!("partition n1,n7 --for {n1}s"));
        let is_in_pair = |node| node == 1 || node == 7;
        mesh.assert_heard(|a, b| in_z3(a) == in_z3(b) && is_in_pair(a) == is_in_pair(b));
        let (z3_ends, n1_ends) = (first + f64::from(z3), second + f64::from(n1));
        sleep_until(z3_ends.min(n1_ends) + LATENESS.as_secs_f64());
        mesh.assert_heard(|a, b| if z3 < n1 { is_in_pair(a) == is_in_pair(b) } else { in_z3(a) == in_z3(b) });
        sleep_until(z3_ends.max(n1_ends) + LATENESS.as_secs_f64());
        mesh.assert_heard(|_, _| true);
        assert_eq!(lab.tc(), before);
    }
}

#[test]
fn a_change_that_is_interrupted_while_the_nodes_wait_is_on_none_of_them() {
    let lab = Lab::hierarchical();
    lab.apply(&shipped("hierarchical-9.toml"));
    let before = lab.tc();
    for milliseconds in [20, 60, 100, 140, 180] {
        let mut partition = lab.command(["partition", "Z3"]);
        let mut partition = partition.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        thread::sleep(Duration::from_millis(milliseconds));
        // The command may have ended already.
        let _sent = kill(Pid::from_raw(partition.id().cast_signed()), Signal::SIGINT);
        if partition.wait().unwrap().code() == Some(0) {
            drop(lab.netemctl("heal").expect(0));
        }
        assert_eq!(lab.tc(), before);
        drop(lab.netemctl("status").expect(0));
    }
}
