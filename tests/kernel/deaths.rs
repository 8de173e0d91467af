//! A change happens on all nodes or on none, even if an agent or controller dies or stops, or a message is lost.
//!
//! Agents and controllers are separate processes. A proxy between them sees every message. The nodes of one lab form
//! several fleets of three nodes, whose tests run at the same time.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use netemctl::{
    fleet::{Access, Fleet, split},
    plan::{Dice, Inventory},
    topology::NodeName,
    wire::{GetStatus, NodeStatus},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    lab::{Lab, Ran, shipped},
    proxy::{Passing, Proxy, hide},
    timing::{Restarted, kill_agent},
};

/// The lease of a prepared or unconfirmed change.
const LEASE: Duration = Duration::from_secs(15);

/// The additional time for work on one shared CPU.
const SLACK: Duration = Duration::from_secs(15);

/// Three nodes of the lab, and the proxy and fleet that reach their agents.
struct Trio {
    lab: Arc<Lab>,
    nodes: [String; 3],
    proxy: Proxy,
    /// Reaches the agents directly, not through the proxy.
    fleet: Fleet,
    /// The agent of the second node, if the test has restarted it.
    restarted: Mutex<Option<Restarted>>,
}

impl Trio {
    fn new(lab: &Arc<Lab>, number: usize) -> Self {
        let nodes = [1, 2, 3].map(|node| format!("n{}", 3 * number + node));
        let state = lab.state();
        let mut inventory: Inventory = state.layout.inventory(lab.directory());
        inventory.nodes.retain(|node, _| nodes.iter().any(|other| other == node.as_str()));
        let (proxy, fleet) = (Proxy::start(lab, &nodes), Fleet::new(inventory, Access::default()));
        Self { lab: Arc::clone(lab), nodes, proxy, fleet, restarted: Mutex::default() }
    }

    fn topology(&self, milliseconds: u32) -> PathBuf {
        let names = self.nodes.join("', '");
        self.lab.topology(&format!(
            "name = 'rtt-{milliseconds}'\nnodes = ['{names}']\n[links]\ndefault = {{ rtt = '{milliseconds}ms' }}\n"
        ))
    }

    fn command(&self, line: &str) -> Command {
        let mut command = self.lab.command(line.split_whitespace());
        command.env("NETEMCTL_LAB_DIR", self.proxy.directory());
        command
    }

    fn run(&self, line: &str) -> Ran {
        self.command(line).output().unwrap().into()
    }

    fn apply(&self, milliseconds: u32) -> Ran {
        self.run(&format!("--json apply {}", self.topology(milliseconds).display()))
    }

    fn spawn(&self, line: &str) -> Child {
        self.command(line).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// The status of the three nodes, not through the proxy.
    fn status(&self) -> Vec<NodeStatus> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (status, silent) = split(runtime.block_on(self.fleet.call(SLACK, |_: &NodeName| GetStatus {})));
        assert!(silent.is_empty(), "{silent:?}");
        status.into_values().collect()
    }

    /// Asserts that the kernel of every node agrees with the node's document.
    #[track_caller]
    fn assert_no_drift(status: &[NodeStatus]) {
        assert!(status.iter().all(|node| node.drift.is_empty() && node.foreign.is_empty()), "{status:?}");
    }

    /// Asserts that all nodes have one confirmed document with this RTT.
    #[track_caller]
    fn assert_all_have_rtt(&self, milliseconds: u32) {
        let status = self.status();
        Self::assert_no_drift(&status);
        let name = format!("rtt-{milliseconds}");
        assert!(
            status.iter().all(|node| node.topology.as_deref() == Some(&name)),
            "not all nodes have {name}: {status:?}"
        );
        assert!(status.iter().all(|node| node.stamp == status[0].stamp && node.unconfirmed.is_none()), "{status:?}");
        let delays =
            status.iter().map(|node| node.profiles.iter().map(|leaf| leaf.profile.delay.to_string()).collect());
        let delays: Vec<Vec<String>> = delays.collect();
        assert_eq!(delays, vec![vec![format!("{}ms", milliseconds / 2)]; 3]);
    }

    /// Waits until all nodes have one confirmed document with this RTT.
    #[track_caller]
    fn wait_until_all_have_rtt(&self, milliseconds: u32, within: Duration) {
        let deadline = Instant::now() + within;
        let name = format!("rtt-{milliseconds}");
        while self.status().iter().any(|node| node.topology.as_deref() != Some(&name) || node.unconfirmed.is_some()) {
            assert!(Instant::now() < deadline, "not all nodes have {name}: {:?}", self.status());
            thread::sleep(Duration::from_millis(100));
        }
        self.assert_all_have_rtt(milliseconds);
    }

    /// The process ID of a node's agent.
    fn agent_pid(&self, node: &str) -> Pid {
        let config = self.lab.directory().join("nodes").join(node).join("agent.toml");
        let is_agent = |pid: &i32| {
            let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&command).contains(&*config.to_string_lossy())
        };
        let processes = fs::read_dir("/proc").unwrap().flatten();
        Pid::from_raw(processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).find(is_agent).unwrap())
    }
}

/// The message at which an agent is killed: a request before it arrives, or the reply, which is lost or delivered.
#[derive(Clone, Copy, Debug)]
enum KillAt {
    Request(&'static str),
    LostReply(&'static str),
    Reply(&'static str),
}

impl Trio {
    /// Kills the agent of the second node once, at this message, and then calls `then`.
    fn kill_agent_once(&self, at: KillAt, then: impl FnOnce() + Send + 'static) {
        let (lab, directory, victim) =
            (Arc::clone(&self.lab), self.proxy.directory().to_owned(), self.nodes[1].clone());
        let mut pending = Some((self.restarted.lock().unwrap().take(), then));
        self.proxy.let_pass(move |Passing { node, call, is_answer }| {
            let (kill_call, is_at_reply, passes) = match at {
                KillAt::Request(call) => (call, false, true),
                KillAt::LostReply(call) => (call, true, false),
                KillAt::Reply(call) => (call, true, true),
            };
            if *node != victim || kill_call != call || is_at_reply != *is_answer {
                return true;
            }
            let Some((agent, then)) = pending.take() else { return true };
            hide(&directory, &victim);
            kill_agent(&lab, &victim);
            drop(agent);
            then();
            passes
        });
    }

    /// Starts the agent of the second node again.
    fn restart_agent(&self) {
        *self.restarted.lock().unwrap() = Some(Restarted::start(&self.lab, &self.nodes[1]));
        self.proxy.show(&self.nodes[1]);
    }
}

/// Kills the agent of the second node at each message of a change. Starts the agent again after the command, or while
/// the controller repeats its message.
fn agents_die(trio: &Trio) {
    drop(trio.apply(10).expect(0));
    let mut current = 10;
    let other = |current| if current == 10 { 20 } else { 10 };
    let victim = &trio.nodes[1];
    let points = [
        (KillAt::Request("stamp"), 6),
        (KillAt::Request("prepare"), 6),
        (KillAt::LostReply("prepare"), 6),
        (KillAt::Reply("prepare"), 6),
        (KillAt::LostReply("ready"), 6),
        (KillAt::Reply("ready"), 1),
        (KillAt::Request("commit"), 1),
        (KillAt::LostReply("commit"), 1),
        (KillAt::Reply("commit"), 1),
        (KillAt::Reply("confirm"), 0),
    ];
    for (at, code) in points {
        trio.kill_agent_once(at, || ());
        let ran = trio.apply(other(current)).expect(code);
        if code != 0 {
            let error = &ran.json()["error"];
            assert!(error["nodes"][victim].is_string(), "{at:?}: {error}");
            // Exit code 6: no node has committed, so no node rolls back.
            assert_eq!(error["rollback"][victim]["state"] == "rolls-back", code == 1, "{at:?}: {error}");
            assert!(error["rollback"][&trio.nodes[0]].is_null(), "{at:?}: {error}");
        }
        trio.restart_agent();
        current = if code == 0 { other(current) } else { current };
        trio.assert_all_have_rtt(current);
    }
    // The controller cannot know if the agent received *confirm*. It repeats *roll back* for the length of the lease.
    for at in [KillAt::Request("confirm"), KillAt::LostReply("confirm")] {
        thread::scope(|scope| {
            let (killed, is_killed) = mpsc::channel();
            trio.kill_agent_once(at, move || killed.send(()).unwrap());
            scope.spawn(move || {
                is_killed.recv().unwrap();
                thread::sleep(Duration::from_secs(4));
                trio.restart_agent();
            });
            drop(trio.apply(other(current)).expect(6));
        });
        trio.assert_all_have_rtt(current);
    }
}

/// Kills the controller at its first `call`. The first `reached_nodes` nodes receive it and reply. The others do not
/// receive it.
fn kill_controller_at(trio: &Trio, call: &'static str, reached_nodes: usize) {
    drop(trio.apply(10).expect(0));
    let controller: Arc<Mutex<Option<Pid>>> = Arc::default();
    let victim = Arc::clone(&controller);
    // The controller is killed when all reached nodes have replied.
    let mut replies = 0;
    let reached: Vec<String> = trio.nodes[..reached_nodes].to_vec();
    let all_replied = Arc::new(Mutex::new(reached_nodes == 0));
    let have_replied = Arc::clone(&all_replied);
    trio.proxy.let_pass(move |passing| {
        if passing.call != call {
            return true;
        }
        let is_reached = reached.contains(&passing.node);
        if is_reached && passing.is_answer {
            replies += 1;
            *have_replied.lock().unwrap() = replies == reached.len();
        }
        if *have_replied.lock().unwrap()
            && let Some(pid) = victim.lock().unwrap().take()
        {
            kill(pid, Signal::SIGKILL).unwrap();
        }
        is_reached
    });
    let mut child = trio.spawn(&format!("apply {}", trio.topology(20).display()));
    *controller.lock().unwrap() = Some(Pid::from_raw(child.id().cast_signed()));
    let status = child.wait().unwrap();
    // Messages that the controller has sent may still arrive at the proxy, so the proxy's rule stays.
    assert!(*all_replied.lock().unwrap() && status.code().is_none(), "the controller was not killed: {status}");
}

fn controllers_die_when_some_are_ready(trio: &Trio) {
    kill_controller_at(trio, "ready", 2);
    let status = trio.status();
    Trio::assert_no_drift(&status);
    trio.proxy.let_pass(|_| true);
    drop(trio.run(&format!("--json apply {} --wait 60s", trio.topology(30).display())).expect(0));
    trio.assert_all_have_rtt(30);
}

fn controllers_die_when_all_are_ready(trio: &Trio) {
    kill_controller_at(trio, "commit", 0);
    trio.assert_all_have_rtt(10);
    let begin = Instant::now();
    let busy = trio.apply(30).expect(9);
    assert!(busy.stdout.contains("another controller is changing this node"), "{}", busy.stdout);
    trio.proxy.let_pass(|_| true);
    let line = format!("--json apply {} --wait 60s", trio.topology(30).display());
    drop(trio.run(&line).expect(0));
    assert!(begin.elapsed() < LEASE + SLACK, "apply --wait ended after {:?}", begin.elapsed());
    trio.assert_all_have_rtt(30);
}

fn controllers_die_when_some_have_committed(trio: &Trio) {
    kill_controller_at(trio, "commit", 2);
    let status = trio.run("status");
    assert!(status.code != Some(0), "{}", status.stdout);
    assert!(status.stdout.contains("a change is in progress; rolled back in"), "{}", status.stdout);
    trio.wait_until_all_have_rtt(10, LEASE + SLACK);
}

fn controllers_die_when_all_have_committed(trio: &Trio) {
    kill_controller_at(trio, "confirm", 0);
    trio.wait_until_all_have_rtt(10, LEASE + SLACK);
}

/// No protocol can exclude this case: some nodes have received *confirm*, and the others never do.
fn controllers_die_when_some_have_confirmed(trio: &Trio) {
    kill_controller_at(trio, "confirm", 1);
    let deadline = Instant::now() + LEASE + SLACK;
    while trio.status().iter().any(|node| node.unconfirmed.is_some()) {
        assert!(Instant::now() < deadline, "{:?}", trio.status());
        thread::sleep(Duration::from_millis(100));
    }
    let status = trio.status();
    Trio::assert_no_drift(&status);
    let topologies: Vec<_> = status.iter().map(|node| node.topology.as_deref().unwrap()).collect();
    assert_eq!(topologies, ["rtt-20", "rtt-10", "rtt-10"]);
    let output = trio.run("status").expect(4).stdout;
    assert!(output.contains("the nodes have different states"), "{output}");
    let refused = trio.run(&format!("partition {}", trio.nodes[0])).expect(9).stderr;
    assert!(refused.contains("netemctl apply TOPOLOGY"), "{refused}");
    trio.proxy.let_pass(|_| true);
    drop(trio.apply(30).expect(0));
    trio.assert_all_have_rtt(30);
}

/// Stops (SIGSTOP) the agent of the second node as `call` arrives, and continues it (SIGCONT) after `stopped_for`.
fn stop_agent_at(trio: &Trio, call: &'static str, stopped_for: Duration) {
    let (agent, victim, mut is_stopped) = (trio.agent_pid(&trio.nodes[1]), trio.nodes[1].clone(), false);
    trio.proxy.let_pass(move |passing| {
        if passing.node == victim && passing.call == call && !passing.is_answer && !is_stopped {
            is_stopped = true;
            kill(agent, Signal::SIGSTOP).unwrap();
            thread::spawn(move || {
                thread::sleep(stopped_for);
                kill(agent, Signal::SIGCONT).unwrap();
            });
        }
        true
    });
    let begin = Instant::now();
    let ran = trio.apply(20).expect(if call == "confirm" { 6 } else { 1 });
    thread::sleep(stopped_for.saturating_sub(begin.elapsed()) + Duration::from_secs(1));
    trio.proxy.let_pass(|_| true);
    trio.wait_until_all_have_rtt(10, LEASE + SLACK);
    assert!(ran.json()["error"]["nodes"][&trio.nodes[1]].is_string(), "{}", ran.stdout);
}

fn agents_stop(trio: &Trio) {
    drop(trio.apply(10).expect(0));
    // The controller waits 13 s for the reply to *commit*.
    stop_agent_at(trio, "commit", Duration::from_secs(16));
    drop(trio.apply(10).expect(0));
    // The controller repeats *confirm* for 5 s, then *roll back*.
    stop_agent_at(trio, "confirm", Duration::from_secs(7));
}

/// Loses three of ten messages.
fn messages_get_lost(trio: &Trio) {
    drop(trio.apply(10).expect(0));
    let mut dice = Dice::new(30);
    trio.proxy.let_pass(move |_| dice.throw() % 10 >= 3);
    let (mut current, mut successes) = (10, 0);
    for attempt in 1..=5 {
        let next = 10 + 2 * attempt;
        let ran = trio.apply(next);
        if ran.code == Some(0) {
            (current, successes) = (next, successes + 1);
        } else {
            let document = ran.json();
            let is_left = document["error"]["rollback"].is_object();
            assert!([1, 6, 9].contains(&ran.code.unwrap()), "{document}");
            assert!(!is_left || ran.code == Some(1), "{document}");
        }
        trio.wait_until_all_have_rtt(current, LEASE + SLACK);
    }
    assert!(successes > 0, "no apply succeeded");
    trio.proxy.let_pass(|_| true);
}

/// Two controllers make changes for a minute. Between changes, all nodes have the same document.
fn controllers_rival(trio: &Trio) {
    drop(trio.apply(10).expect(0));
    let (end, topologies) = (Instant::now() + Duration::from_mins(1), [20, 30].map(|rtt| trio.topology(rtt)));
    let rival = |topology: &PathBuf, wait: &str| {
        let (mut successes, mut refused) = (0, 0);
        while Instant::now() < end {
            let ran = trio.run(&format!("apply {} {wait}", topology.display()));
            match ran.code {
                Some(0) => successes += 1,
                Some(9) => refused += 1,
                code => panic!("{code:?} {}", ran.stderr),
            }
        }
        (successes, refused)
    };
    let samples = || {
        let mut samples = 0;
        while Instant::now() < end {
            let (before, after) = (trio.status(), trio.status());
            // If no document is unconfirmed and none differs a moment later, no change was in progress.
            let stamps = |status: &[NodeStatus]| status.iter().map(|node| node.stamp.clone()).collect::<Vec<_>>();
            let is_confirmed = before.iter().chain(&after).all(|node| node.unconfirmed.is_none());
            if is_confirmed && stamps(&before) == stamps(&after) {
                Trio::assert_no_drift(&before);
                assert!(before.iter().all(|node| node.stamp == before[0].stamp), "{before:?}");
                samples += 1;
            }
            thread::sleep(Duration::from_millis(500));
        }
        samples
    };
    let (one, other, samples) = thread::scope(|scope| {
        let one = scope.spawn(|| rival(&topologies[0], ""));
        let other = scope.spawn(|| rival(&topologies[1], "--wait 10s"));
        let samples = scope.spawn(samples);
        (one.join().unwrap(), other.join().unwrap(), samples.join().unwrap())
    });
    assert!(one.0 + other.0 > 0 && samples > 0, "{one:?} {other:?} {samples}");
    drop(trio.run("status").expect(0));
    drop(trio.apply(40).expect(0));
    trio.assert_all_have_rtt(40);
}

/// A test on three nodes.
type Trial = fn(&Trio);

#[test]
fn all_nodes_change_or_none_if_agents_or_controllers_die_or_stop_or_messages_are_lost() {
    const TRIALS: [(&str, Trial); 9] = [
        ("agents die", agents_die),
        ("controllers die when some are ready", controllers_die_when_some_are_ready),
        ("controllers die when all are ready", controllers_die_when_all_are_ready),
        ("controllers die when some have committed", controllers_die_when_some_have_committed),
        ("controllers die when all have committed", controllers_die_when_all_have_committed),
        ("controllers die when some have confirmed", controllers_die_when_some_have_confirmed),
        ("agents stop", agents_stop),
        ("messages get lost", messages_get_lost),
        ("controllers rival", controllers_rival),
    ];
    let file = std::env::temp_dir().join(format!("netemctl-deaths-{}.toml", std::process::id()));
    fs::write(&file, "name = 'trios'\nnodes = 'n[1-27]'\n[links]\ndefault = { rtt = '0ms' }\n").unwrap();
    let lab = Arc::new(Lab::up(&file));
    fs::remove_file(file).unwrap();
    let qdiscs = || ["n2", "n8", "n14", "n23"].map(|node| lab.exec(node, "tc qdisc show"));
    let before = qdiscs();
    let trios: Vec<Trio> = (0..TRIALS.len()).map(|number| Trio::new(&lab, number)).collect();
    thread::scope(|scope| {
        let trials = TRIALS.iter().zip(&trios).map(|((name, trial), trio)| {
            let run = move || trial(trio);
            thread::Builder::new().name((*name).to_owned()).spawn_scoped(scope, run).unwrap()
        });
        // A failed trial panics on a thread with the trial's name.
        let failed = trials.collect::<Vec<_>>().into_iter().filter_map(|trial| trial.join().err()).count();
        assert_eq!(failed, 0, "failed trials, of {}", TRIALS.len());
    });
    for trio in &trios {
        trio.proxy.let_pass(|_| true);
        drop(trio.run("clear").expect(0));
    }
    assert_eq!(qdiscs(), before, "clear did not restore the interfaces");
}

#[test]
fn a_command_that_times_out_during_confirm_says_so_and_waits_for_the_rollback() {
    const ROLLBACK_BLOCKED_FOR: Duration = Duration::from_secs(8);
    let lab = Arc::new(Lab::up(&shipped("uniform-3-rtt0.toml")));
    let trio = Trio::new(&lab, 0);
    drop(trio.apply(10).expect(0));
    // The second node does not receive *confirm*, and receives *roll back* only after some time.
    let mut first_confirm = None;
    trio.proxy.let_pass(move |Passing { node, call, .. }| match call.as_str() {
        "confirm" if node == "n2" => {
            first_confirm.get_or_insert_with(Instant::now);
            false
        }
        "rollback" if node == "n2" => first_confirm.is_none_or(|first| first.elapsed() > ROLLBACK_BLOCKED_FOR),
        _ => true,
    });
    let began = Instant::now();
    let ran = trio.run(&format!("--timeout 5 apply {}", trio.topology(20).display())).expect(124);
    assert!(began.elapsed() > ROLLBACK_BLOCKED_FOR, "the command did not wait for the rollback");
    let messages = [
        "timed out after 5 s; rolling back on all nodes …\n",
        "error: timed out after 5 s; n2 did not confirm; rolled back on all nodes\n",
    ];
    assert!(messages.iter().all(|message| ran.stderr.contains(message)), "{}", ran.stderr);
    trio.assert_all_have_rtt(10);
}
