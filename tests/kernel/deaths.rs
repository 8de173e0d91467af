//! All nodes or none, whoever dies, stops or is not heard, and whenever: agents and controllers in processes of their
//! own, with a proxy between them that sees every message.
//!
//! The nodes of one lab make several fleets of three, so that what has to wait does so at the same time.

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

/// How long an agent has what nobody confirms, and what is prepared.
const GOES_BACK_WITHIN: Duration = Duration::from_secs(15);

/// How much longer it may take on one CPU that all of this shares.
const SLACK: Duration = Duration::from_secs(15);

/// Three nodes of the lab, and a controller's way to them.
struct Trio {
    lab: Arc<Lab>,
    nodes: [String; 3],
    proxy: Proxy,
    /// What the agents themselves say, whatever the proxy does.
    fleet: Fleet,
    /// The agent of the second node, if it was started again.
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

    /// What the agents say.
    fn status(&self) -> Vec<NodeStatus> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (status, silent) = split(runtime.block_on(self.fleet.call(SLACK, |_: &NodeName| GetStatus {})));
        assert!(silent.is_empty(), "{silent:?}");
        status.into_values().collect()
    }

    /// That no node is half changed: its kernel has what its document says.
    #[track_caller]
    fn assert_whole(status: &[NodeStatus]) {
        assert!(status.iter().all(|node| node.drift.is_empty() && node.foreign.is_empty()), "{status:?}");
    }

    /// That all nodes have this RTT in force, in one document that is confirmed.
    #[track_caller]
    fn assert_all_have(&self, milliseconds: u32) {
        let status = self.status();
        Self::assert_whole(&status);
        let name = format!("rtt-{milliseconds}");
        assert!(status.iter().all(|node| node.topology.as_deref() == Some(&name)), "not {name}: {status:?}");
        assert!(status.iter().all(|node| node.stamp == status[0].stamp && node.unconfirmed.is_none()), "{status:?}");
        let delays =
            status.iter().map(|node| node.profiles.iter().map(|leaf| leaf.profile.delay.to_string()).collect());
        let delays: Vec<Vec<String>> = delays.collect();
        assert_eq!(delays, vec![vec![format!("{}ms", milliseconds / 2)]; 3]);
    }

    /// That all nodes come to have this RTT within so much time.
    #[track_caller]
    fn wait_until_all_have(&self, milliseconds: u32, within: Duration) {
        let deadline = Instant::now() + within;
        let name = format!("rtt-{milliseconds}");
        while self.status().iter().any(|node| node.topology.as_deref() != Some(&name) || node.unconfirmed.is_some()) {
            assert!(Instant::now() < deadline, "in vain until all have {name}: {:?}", self.status());
            thread::sleep(Duration::from_millis(100));
        }
        self.assert_all_have(milliseconds);
    }

    /// The process of a node's agent.
    fn agent(&self, node: &str) -> Pid {
        let config = self.lab.directory().join("nodes").join(node).join("agent.toml");
        let is_its = |pid: &i32| {
            let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&command).contains(&*config.to_string_lossy())
        };
        let processes = fs::read_dir("/proc").unwrap().flatten();
        Pid::from_raw(processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).find(is_its).unwrap())
    }
}

/// Where an agent is killed: at a request before it gets there, or at its answer, which is lost or not.
#[derive(Clone, Copy, Debug)]
enum At {
    Request(&'static str),
    LostAnswer(&'static str),
    Answer(&'static str),
}

impl Trio {
    /// From now on, has the agent of the second node die at this point, once; `then` is called when it is dead.
    fn agent_dies(&self, at: At, then: impl FnOnce() + Send + 'static) {
        let (lab, directory, victim) =
            (Arc::clone(&self.lab), self.proxy.directory().to_owned(), self.nodes[1].clone());
        let mut dies = Some((self.restarted.lock().unwrap().take(), then));
        self.proxy.let_pass(move |Passing { node, call, is_answer }| {
            let (its, is_at_answer, passes) = match at {
                At::Request(its) => (its, false, true),
                At::LostAnswer(its) => (its, true, false),
                At::Answer(its) => (its, true, true),
            };
            if *node != victim || its != call || is_at_answer != *is_answer {
                return true;
            }
            let Some((agent, then)) = dies.take() else { return true };
            hide(&directory, &victim);
            kill_agent(&lab, &victim);
            drop(agent);
            then();
            passes
        });
    }

    /// Starts it again.
    fn agent_starts(&self) {
        *self.restarted.lock().unwrap() = Some(Restarted::start(&self.lab, &self.nodes[1]));
        self.proxy.show(&self.nodes[1]);
    }
}

/// Kills the agent of the second node at each point of a change, and starts it again when the controller has ended, or
/// has asked it in vain.
fn agents_die(trio: &Trio) {
    drop(trio.apply(10).expect(0));
    let mut has = 10;
    let other = |has| if has == 10 { 20 } else { 10 };
    let victim = &trio.nodes[1];
    let points = [
        (At::Request("stamp"), 6),
        (At::Request("prepare"), 6),
        (At::LostAnswer("prepare"), 6),
        (At::Answer("prepare"), 1),
        (At::Request("commit"), 1),
        (At::LostAnswer("commit"), 1),
        (At::Answer("commit"), 1),
        (At::Answer("confirm"), 0),
    ];
    for (at, code) in points {
        trio.agent_dies(at, || ());
        let ran = trio.apply(other(has)).expect(code);
        if code != 0 {
            let error = &ran.json()["error"];
            assert!(error["nodes"][victim].is_string(), "{at:?}: {error}");
            // Before anything is committed, there is nothing to go back from.
            assert_eq!(error["rollback"][victim]["state"] == "rolls-back", code == 1, "{at:?}: {error}");
            assert!(error["rollback"][&trio.nodes[0]].is_null(), "{at:?}: {error}");
        }
        trio.agent_starts();
        has = if code == 0 { other(has) } else { has };
        trio.assert_all_have(has);
    }
    // Whether it was told to keep it, the controller cannot know: it tries to have it rolled back until it must have ended.
    for at in [At::Request("confirm"), At::LostAnswer("confirm")] {
        thread::scope(|scope| {
            let (dead, is_dead) = mpsc::channel();
            trio.agent_dies(at, move || dead.send(()).unwrap());
            scope.spawn(move || {
                is_dead.recv().unwrap();
                thread::sleep(Duration::from_secs(4));
                trio.agent_starts();
            });
            drop(trio.apply(other(has)).expect(6));
        });
        trio.assert_all_have(has);
    }
}

/// Kills the controller when it asks for the first `call` of all but `asked` of the nodes, which have been asked.
fn controller_dies_at(trio: &Trio, call: &'static str, asked: usize) {
    drop(trio.apply(10).expect(0));
    let controller: Arc<Mutex<Option<Pid>>> = Arc::default();
    let victim = Arc::clone(&controller);
    // Who is not to be asked waits until the others have answered.
    let mut answered = 0;
    let lucky: Vec<String> = trio.nodes[..asked].to_vec();
    let is_over = Arc::new(Mutex::new(asked == 0));
    let over = Arc::clone(&is_over);
    trio.proxy.let_pass(move |passing| {
        if passing.call != call {
            return true;
        }
        let is_lucky = lucky.contains(&passing.node);
        if is_lucky && passing.is_answer {
            answered += 1;
            *over.lock().unwrap() = answered == lucky.len();
        }
        if *over.lock().unwrap()
            && let Some(pid) = victim.lock().unwrap().take()
        {
            kill(pid, Signal::SIGKILL).unwrap();
        }
        is_lucky
    });
    let mut child = trio.spawn(&format!("apply {}", trio.topology(20).display()));
    *controller.lock().unwrap() = Some(Pid::from_raw(child.id().cast_signed()));
    let status = child.wait().unwrap();
    // Messages that it had sent by then still are on their way, so the proxy keeps to its rule.
    assert!(*is_over.lock().unwrap() && status.code().is_none(), "it ended with {status}");
}

fn controllers_die_when_all_have_prepared(trio: &Trio) {
    controller_dies_at(trio, "commit", 0);
    trio.assert_all_have(10);
    let begin = Instant::now();
    let busy = trio.apply(30).expect(9);
    assert!(busy.stdout.contains("another controller is changing this node"), "{}", busy.stdout);
    trio.proxy.let_pass(|_| true);
    let line = format!("--json apply {} --wait 60s", trio.topology(30).display());
    drop(trio.run(&line).expect(0));
    assert!(begin.elapsed() < GOES_BACK_WITHIN + SLACK, "it waited for {:?}", begin.elapsed());
    trio.assert_all_have(30);
}

fn controllers_die_when_some_have_committed(trio: &Trio) {
    controller_dies_at(trio, "commit", 2);
    let status = trio.run("status");
    assert!(status.code != Some(0), "{}", status.stdout);
    assert!(status.stdout.contains("a change is in progress; rolled back in"), "{}", status.stdout);
    trio.wait_until_all_have(10, GOES_BACK_WITHIN + SLACK);
}

fn controllers_die_when_all_have_committed(trio: &Trio) {
    controller_dies_at(trio, "confirm", 0);
    trio.wait_until_all_have(10, GOES_BACK_WITHIN + SLACK);
}

/// What nobody can exclude: some were told that all have it, and the others never will be.
fn controllers_die_when_some_have_confirmed(trio: &Trio) {
    controller_dies_at(trio, "confirm", 1);
    let deadline = Instant::now() + GOES_BACK_WITHIN + SLACK;
    while trio.status().iter().any(|node| node.unconfirmed.is_some()) {
        assert!(Instant::now() < deadline, "{:?}", trio.status());
        thread::sleep(Duration::from_millis(100));
    }
    let status = trio.status();
    Trio::assert_whole(&status);
    let topologies: Vec<_> = status.iter().map(|node| node.topology.as_deref().unwrap()).collect();
    assert_eq!(topologies, ["rtt-20", "rtt-10", "rtt-10"]);
    let said = trio.run("status").expect(4).stdout;
    assert!(said.contains("the nodes do not agree on what is in force"), "{said}");
    let refused = trio.run(&format!("partition {}", trio.nodes[0])).expect(9).stderr;
    assert!(refused.contains("netemctl apply TOPOLOGY"), "{refused}");
    trio.proxy.let_pass(|_| true);
    drop(trio.apply(30).expect(0));
    trio.assert_all_have(30);
}

/// An agent that is stopped just as a request comes, and goes on after so much time.
fn stopped_at(trio: &Trio, call: &'static str, goes_on_after: Duration) {
    let (agent, victim, mut is_stopped) = (trio.agent(&trio.nodes[1]), trio.nodes[1].clone(), false);
    trio.proxy.let_pass(move |passing| {
        if passing.node == victim && passing.call == call && !passing.is_answer && !is_stopped {
            is_stopped = true;
            kill(agent, Signal::SIGSTOP).unwrap();
            thread::spawn(move || {
                thread::sleep(goes_on_after);
                kill(agent, Signal::SIGCONT).unwrap();
            });
        }
        true
    });
    let begin = Instant::now();
    let ran = trio.apply(20).expect(if call == "confirm" { 6 } else { 1 });
    thread::sleep(goes_on_after.saturating_sub(begin.elapsed()) + Duration::from_secs(1));
    trio.proxy.let_pass(|_| true);
    trio.wait_until_all_have(10, GOES_BACK_WITHIN + SLACK);
    assert!(ran.json()["error"]["nodes"][&trio.nodes[1]].is_string(), "{}", ran.stdout);
}

fn agents_stop(trio: &Trio) {
    drop(trio.apply(10).expect(0));
    // The controller gives up after 13 s.
    stopped_at(trio, "commit", Duration::from_secs(16));
    drop(trio.apply(10).expect(0));
    // It tries to confirm for 5 s, and to have it rolled back from then on.
    stopped_at(trio, "confirm", Duration::from_secs(7));
}

/// Three of ten messages get lost.
fn messages_get_lost(trio: &Trio) {
    drop(trio.apply(10).expect(0));
    let mut dice = Dice::new(30);
    trio.proxy.let_pass(move |_| dice.throw() % 10 >= 3);
    let (mut has, mut made) = (10, 0);
    for attempt in 1..=5 {
        let next = 10 + 2 * attempt;
        let ran = trio.apply(next);
        if ran.code == Some(0) {
            (has, made) = (next, made + 1);
        } else {
            let document = ran.json();
            let is_left = document["error"]["rollback"].is_object();
            assert!([1, 6, 9].contains(&ran.code.unwrap()), "{document}");
            assert!(!is_left || ran.code == Some(1), "{document}");
        }
        trio.wait_until_all_have(has, GOES_BACK_WITHIN + SLACK);
    }
    assert!(made > 0, "some get through");
    trio.proxy.let_pass(|_| true);
}

/// Two controllers at once, for a minute: whenever neither is at it, all nodes have the same.
fn controllers_rival(trio: &Trio) {
    drop(trio.apply(10).expect(0));
    let (end, topologies) = (Instant::now() + Duration::from_mins(1), [20, 30].map(|rtt| trio.topology(rtt)));
    let rival = |topology: &PathBuf, wait: &str| {
        let (mut made, mut refused) = (0, 0);
        while Instant::now() < end {
            let ran = trio.run(&format!("apply {} {wait}", topology.display()));
            match ran.code {
                Some(0) => made += 1,
                Some(9) => refused += 1,
                code => panic!("{code:?} {}", ran.stderr),
            }
        }
        (made, refused)
    };
    let samples = || {
        let mut samples = 0;
        while Instant::now() < end {
            let (before, after) = (trio.status(), trio.status());
            // Nobody was at it if nothing is unconfirmed, and nothing is another one a moment later.
            let stamps = |status: &[NodeStatus]| status.iter().map(|node| node.stamp.clone()).collect::<Vec<_>>();
            let is_calm = before.iter().chain(&after).all(|node| node.unconfirmed.is_none());
            if is_calm && stamps(&before) == stamps(&after) {
                Trio::assert_whole(&before);
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
    trio.assert_all_have(40);
}

/// What is tried with three nodes of their own.
type Trial = fn(&Trio);

#[test]
fn whoever_dies_stops_or_is_not_heard_all_nodes_change_or_none_does() {
    const TRIALS: [(&str, Trial); 8] = [
        ("agents die", agents_die),
        ("controllers die when all have prepared", controllers_die_when_all_have_prepared),
        ("controllers die when some have committed", controllers_die_when_some_have_committed),
        ("controllers die when all have committed", controllers_die_when_all_have_committed),
        ("controllers die when some have confirmed", controllers_die_when_some_have_confirmed),
        ("agents stop", agents_stop),
        ("messages get lost", messages_get_lost),
        ("controllers rival", controllers_rival),
    ];
    let file = std::env::temp_dir().join(format!("netemctl-deaths-{}.toml", std::process::id()));
    fs::write(&file, "name = 'trios'\nnodes = 'n[1-24]'\n[links]\ndefault = { rtt = '0ms' }\n").unwrap();
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
        // Whichever fails says so itself, by its name.
        let failed = trials.collect::<Vec<_>>().into_iter().filter_map(|trial| trial.join().err()).count();
        assert_eq!(failed, 0, "of {} trials", TRIALS.len());
    });
    for trio in &trios {
        trio.proxy.let_pass(|_| true);
        drop(trio.run("clear").expect(0));
    }
    assert_eq!(qdiscs(), before, "every interface is as it was found");
}

#[test]
fn a_command_whose_time_is_over_when_nodes_may_keep_its_change_says_so_and_waits_for_the_rollback() {
    const TOLD: Duration = Duration::from_secs(8);
    let lab = Arc::new(Lab::up(&shipped("uniform-3-rtt0.toml")));
    let trio = Trio::new(&lab, 0);
    drop(trio.apply(10).expect(0));
    // The second node hears neither that it is to keep the change nor, for a time, that it is to roll it back.
    let mut first = None;
    trio.proxy.let_pass(move |Passing { node, call, .. }| match call.as_str() {
        "confirm" if node == "n2" => {
            first.get_or_insert_with(Instant::now);
            false
        }
        "rollback" if node == "n2" => first.is_none_or(|first| first.elapsed() > TOLD),
        _ => true,
    });
    let began = Instant::now();
    let ran = trio.run(&format!("--timeout 5 apply {}", trio.topology(20).display())).expect(124);
    assert!(began.elapsed() > TOLD, "it waits until the change is rolled back");
    let said = [
        "timed out after 5 s; rolling back on all nodes …\n",
        "error: timed out after 5 s; n2 did not confirm; rolled back on all nodes\n",
    ];
    assert!(said.iter().all(|said| ran.stderr.contains(said)), "{}", ran.stderr);
    trio.assert_all_have(10);
}
