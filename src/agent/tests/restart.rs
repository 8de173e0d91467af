//! Tests of restarts: an agent is killed at any point, and the next agent continues from the journal and the kernel.

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError},
};

use tempfile::TempDir;

use super::*;
use crate::{
    agent::JournalError,
    kernel::{Event, HostNetwork, Interface, Kernel, KernelError},
    plan::{Flap, IfName, Shaping, Step, Timing},
    topology::Tables,
};

/// A kernel that several agents use one after the other, and that can kill an agent after a number of writes.
#[derive(Clone)]
pub(super) struct SharedKernel {
    fake: Arc<Mutex<FakeKernel>>,
    /// The number of writes after which the agent dies, in the middle of the next write or at the next read.
    dies_after: Arc<Mutex<Option<usize>>>,
}

impl SharedKernel {
    fn new() -> Self {
        Self::of(clear_kernel())
    }

    pub(super) fn of(fake: FakeKernel) -> Self {
        Self { fake: Arc::new(Mutex::new(fake)), dies_after: Arc::default() }
    }

    pub(super) fn fake<T>(&self, ask: impl FnOnce(&mut FakeKernel) -> T) -> T {
        ask(&mut self.fake.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn tree(&self) -> Tree {
        self.fake(|fake| fake.tree.clone())
    }

    fn shaping(&self) -> Option<Shaping> {
        self.tree().shaping()
    }

    /// Kills the agent after this number of further writes; `None`: does not kill the agent.
    fn dies_after(&self, writes: Option<usize>) {
        let done = self.fake(|fake| fake.writes);
        *self.dies_after.lock().unwrap() = writes.map(|writes| done + writes);
    }

    fn must_die(&self) -> bool {
        let dies_after = *self.dies_after.lock().unwrap();
        dies_after.is_some_and(|dies_after| self.fake(|fake| fake.writes) >= dies_after)
    }
}

impl Kernel for SharedKernel {
    fn interface(&mut self, name: &IfName) -> Result<Interface, KernelError> {
        self.fake(|fake| fake.interface(name))
    }

    fn host(&mut self) -> Result<HostNetwork, KernelError> {
        self.fake(Kernel::host)
    }

    fn route_to(&mut self, address: IpAddr, from: Option<IpAddr>) -> Result<Option<u32>, KernelError> {
        self.fake(|fake| fake.route_to(address, from))
    }

    fn events(&mut self) -> Result<Vec<Event>, KernelError> {
        self.fake(Kernel::events)
    }

    fn observe(&mut self, interface: &Interface) -> Result<Tree, KernelError> {
        assert!(!self.must_die(), "killed while reading the kernel's state");
        self.fake(|fake| fake.observe(interface))
    }

    fn add_tables(&mut self, _: &Tables) {}

    fn perform(&mut self, interface: &Interface, step: &Step) -> Result<(), KernelError> {
        if self.must_die() {
            if let Step::BuildChain { direction, chain, filters } = step {
                let filters = filters[..filters.len() / 2].to_vec();
                let half = Step::BuildChain { direction: *direction, chain: *chain, filters };
                drop(self.fake(|fake| fake.perform(interface, &half)));
            }
            panic!("killed before the step: {step}");
        }
        self.fake(|fake| fake.perform(interface, step))
    }

    fn set_refusals(&mut self, interface: &Interface, wanted: bool) -> Result<(), KernelError> {
        self.fake(|fake| fake.set_refusals(interface, wanted))
    }

    fn rollback(&mut self, interface: &Interface, step: &Step) -> Result<(), KernelError> {
        self.fake(|fake| fake.rollback(interface, step))
    }
}

/// A machine: the files and the kernel that remain when an agent ends.
struct Machine {
    folder: TempDir,
    kernel: SharedKernel,
    boot: &'static str,
}

impl Machine {
    fn new() -> Self {
        Self { folder: TempDir::new().unwrap(), kernel: SharedKernel::new(), boot: "first" }
    }

    fn journal(&self) -> std::path::PathBuf {
        self.folder.path().join("n1.json")
    }

    fn open(&self, now: Now) -> Result<Node<SharedKernel>, JournalError> {
        Node::with_sandbox(config(Some(&self.journal())), self.kernel.clone(), clear_kernel(), self.boot, now)
    }

    /// Starts the agent.
    fn start(&self, now: Now) -> Node<SharedKernel> {
        let mut node = self.open(now).unwrap();
        node.resume(now);
        node
    }

    /// Reboots the machine: its kernel has no objects, and its boot id is new.
    fn reboot(&mut self, boot: &'static str) {
        self.kernel = SharedKernel::new();
        self.boot = boot;
    }
}

fn put(node: &mut Node<SharedKernel>, ticket: &str, wanted: &Wanted, now: Now) {
    let base = node.document(now).wanted;
    if base != *wanted {
        node.prepare(prepare(ticket, &base, wanted), now).unwrap();
        node.commit(&commit(ticket), &|| now).unwrap();
        node.confirm(&confirm(ticket), now).unwrap();
    }
}

/// A sequence of documents. Their changes shape the interface, cut it, reshape it, clear it, and cut it again.
fn documents() -> Vec<Wanted> {
    let nothing = Wanted::default();
    let slow = uniform(&nothing, "100ms");
    let cut = parted(&slow, "n2", None);
    let other = delayed(&cut, "80ms", None);
    let cleared = other.cleared(inventory()).unwrap();
    let cleared = Wanted { generation: other.generation + 1, ..cleared };
    let again = parted(&cleared, "n3", None);
    vec![nothing, slow, cut, other, cleared, again]
}

#[test]
fn an_agent_killed_during_a_commit_rolls_back_at_its_start() {
    for pair in documents().windows(2) {
        let [before, after] = pair else { unreachable!() };
        for writes in 0.. {
            let machine = Machine::new();
            let mut node = machine.start(now());
            put(&mut node, "a", before, now());
            let was = machine.kernel.tree();
            node.prepare(prepare("b", before, after), now()).unwrap();
            node.make_ready(&commit("b"), now()).unwrap();
            machine.kernel.dies_after(Some(writes));
            let died = catch_unwind(AssertUnwindSafe(|| node.commit(&commit("b"), &now))).is_err();
            machine.kernel.dies_after(None);
            drop(node);
            // The next agent rolls back even a complete commit, because the commit was not confirmed.
            let mut node = machine.start(now());
            assert_eq!(node.stamp(), before.stamp(), "killed after {writes} writes");
            assert_eq!(machine.kernel.shaping(), was.shaping(), "killed after {writes} writes");
            assert_eq!(machine.kernel.tree().taken, was.taken, "killed after {writes} writes");
            assert!(node.status(now()).unwrap().drift.is_empty());
            // The controller got no reply, so it rolls back on all nodes. This node has rolled back already.
            assert_eq!(node.confirm(&confirm("b"), now()).unwrap_err().code, ErrorCode::Conflict);
            assert_eq!(node.rollback(&rollback("b"), now()).unwrap().stamp, before.stamp());
            put(&mut node, "c", after, now());
            if !died {
                break;
            }
        }
    }
}

#[test]
fn an_agent_killed_before_the_commit_time_has_changed_nothing() {
    let machine = Machine::new();
    let mut node = machine.start(now());
    let [before, after] = &documents()[1..3] else { unreachable!() };
    put(&mut node, "a", before, now());
    let tree = machine.kernel.tree();
    node.prepare(prepare("b", before, after), now()).unwrap();
    node.make_ready(&commit("b"), now()).unwrap();
    assert_ne!(machine.kernel.tree(), tree, "a new class, not yet in use");
    drop(node);
    assert_eq!(machine.start(now()).stamp(), before.stamp());
    assert_eq!(machine.kernel.tree(), tree);
}

#[test]
fn an_agent_killed_after_a_confirm_keeps_the_change_and_can_still_roll_it_back() {
    for pair in documents().windows(2) {
        let [before, after] = pair else { unreachable!() };
        let machine = Machine::new();
        let mut node = machine.start(now());
        put(&mut node, "a", before, now());
        let was = machine.kernel.shaping();
        put(&mut node, "b", after, now());
        drop(node);
        let writes = machine.kernel.fake(|fake| fake.writes);
        let mut node = machine.start(now());
        assert_eq!(node.stamp(), after.stamp());
        assert_eq!(machine.kernel.fake(|fake| fake.writes), writes, "the kernel already has the document");
        assert_eq!(node.rollback(&rollback("b"), now()).unwrap().stamp, before.stamp());
        assert_eq!(machine.kernel.shaping(), was);
    }
}

#[test]
fn an_agent_killed_during_a_rollback_finishes_it_at_its_start() {
    for pair in documents().windows(2) {
        let [before, after] = pair else { unreachable!() };
        for writes in 0.. {
            let machine = Machine::new();
            let mut node = machine.start(now());
            put(&mut node, "a", before, now());
            let was = machine.kernel.shaping();
            put(&mut node, "b", after, now());
            machine.kernel.dies_after(Some(writes));
            let died = catch_unwind(AssertUnwindSafe(|| node.rollback(&rollback("b"), now()))).is_err();
            machine.kernel.dies_after(None);
            drop(node);
            let node = machine.start(now());
            assert_eq!(node.stamp(), before.stamp(), "killed after {writes} writes");
            assert_eq!(machine.kernel.shaping(), was, "killed after {writes} writes");
            if !died {
                break;
            }
        }
    }
}

#[test]
fn a_timed_change_resumes_with_its_remaining_time() {
    let machine = Machine::new();
    let start = now();
    let timing = Timing { begins: start.wall, lasts: Some(10 * SECOND), flap: None };
    let wanted = parted(&delayed(&Wanted::default(), "80ms", Some(8 * SECOND)), "n3", Some(timing));
    put(&mut machine.start(start), "a", &wanted, start);
    let during = machine.kernel.shaping();

    // The wall clock is set while no agent runs. The next agent counts by the uptime.
    let later = Now { wall: Moment::from_nanos(7), ..start + 4 * SECOND };
    let mut node = machine.start(later);
    assert_eq!(machine.kernel.shaping(), during);
    let status = node.status(later).unwrap();
    assert_eq!((status.overlays[0].left, status.partitions[0].left), (Some(4.0), Some(6.0)));
    drop(node);

    let mut node = machine.start(start + 9 * SECOND);
    assert_eq!(machine.kernel.shaping().unwrap().leaf_specs, [].into(), "the delay is over");
    assert_eq!(machine.kernel.tree().cuts().count(), 2);
    assert_eq!(node.tick(start + 9 * SECOND).unwrap(), Some((start + 10 * SECOND).uptime));
    drop(node);

    let mut node = machine.start(start + 60 * SECOND);
    assert_eq!(machine.kernel.tree(), Tree::default(), "no object is left");
    assert_eq!(node.stamp(), wanted.stamp());
    assert!(node.status(start + 60 * SECOND).unwrap().drift.is_empty());
}

#[test]
fn after_a_reboot_timed_changes_continue_by_the_wall_clock() {
    let mut machine = Machine::new();
    let start = now();
    let flap = Flap { down: 5 * SECOND, up: 10 * SECOND, spread: 0, seed: 1 };
    let timing = Timing { begins: start.wall, lasts: Some(100 * SECOND), flap: Some(flap) };
    let wanted = parted(&uniform(&Wanted::default(), "100ms"), "n2", Some(timing));
    put(&mut machine.start(start), "a", &wanted, start);
    let (during, uptime) = (machine.kernel.shaping(), Duration::from_secs(20));

    machine.reboot("second");
    let up = Now { uptime, wall: start.wall.after(17 * SECOND) };
    let mut node = machine.start(up);
    assert_eq!(machine.kernel.shaping(), during, "the flap cuts again at 17 s");
    assert_eq!(node.status(up).unwrap().partitions[0].left, Some(83.0));
    assert_eq!(node.tick(up).unwrap(), Some(uptime + 3 * SECOND));
    drop(node);

    machine.reboot("third");
    let up = Now { uptime, wall: start.wall.after(60 * 60 * SECOND) };
    let mut node = machine.start(up);
    assert_eq!(machine.kernel.tree().cuts().count(), 0);
    assert!(machine.kernel.tree().egress.active.is_some(), "the topology does not end");
    assert!(node.status(up).unwrap().partitions.is_empty());
}

#[test]
fn a_clear_removes_the_document_from_the_journal() {
    let machine = Machine::new();
    let mut node = machine.start(now());
    for (ticket, wanted) in ["0", "1", "2", "3", "4"].iter().zip(documents()) {
        put(&mut node, ticket, &wanted, now());
    }
    drop(node);
    let mut node = machine.start(now());
    assert!(node.document(now()).wanted.is_clear());
    assert_eq!(machine.kernel.tree(), Tree::default());
    assert_eq!(node.status(now()).unwrap().topology, None);
}

#[test]
fn a_kernel_that_differs_from_the_journal_is_reconciled_as_soon_as_possible() {
    let machine = Machine::new();
    put(&mut machine.start(now()), "a", &documents()[1], now());
    let was = machine.kernel.tree();
    machine.kernel.fake(|fake| {
        fake.tree = Tree::default();
        // At boot, the interface may not have its address yet.
        fake.interface.addresses.clear();
    });
    let mut node = machine.start(now());
    assert_eq!(machine.kernel.tree(), Tree::default());
    assert!(node.tick(now()).is_err());
    assert!(!node.status(now()).unwrap().drift.is_empty());
    machine.kernel.fake(|fake| fake.interface.addresses = vec![address(1)]);
    node.tick(now()).unwrap();
    assert_eq!(machine.kernel.tree(), was);
}

#[test]
fn a_truncated_journal_stops_the_agent_without_a_change() {
    let machine = Machine::new();
    put(&mut machine.start(now()), "a", &documents()[1], now());
    let whole = fs::read(machine.journal()).unwrap();
    let (writes, tree) = (machine.kernel.fake(|fake| fake.writes), machine.kernel.tree());
    for length in 0..whole.len() {
        fs::write(machine.journal(), &whole[..length]).unwrap();
        let Err(error) = machine.open(now()) else { panic!("{length} of {} bytes are accepted", whole.len()) };
        assert!(matches!(error, JournalError::Malformed(..)), "{error}");
        assert_eq!(fs::read(machine.journal()).unwrap(), whole[..length]);
    }
    assert_eq!((machine.kernel.fake(|fake| fake.writes), machine.kernel.tree()), (writes, tree));
}

#[test]
fn a_newer_foreign_or_unreadable_journal_stops_the_agent() {
    let machine = Machine::new();
    put(&mut machine.start(now()), "a", &documents()[1], now());
    let whole = fs::read_to_string(machine.journal()).unwrap();
    let message = |text: &str| {
        fs::write(machine.journal(), text).unwrap();
        machine.open(now()).err().unwrap().to_string().replace(&*machine.journal().to_string_lossy(), "FILE")
    };
    assert_eq!(
        message("{\"version\":8}\nwhatever"),
        "the journal FILE has version 8, and this netemctl reads versions up to 7"
    );
    assert_eq!(message(&whole.replacen("\"n1\"", "\"n2\"", 1)), "the journal FILE belongs to node n2");
    assert_eq!(message(""), "the journal FILE is invalid: it is empty (was the disk full?)");
    fs::remove_file(machine.journal()).unwrap();
    fs::create_dir(machine.journal()).unwrap();
    assert!(matches!(machine.open(now()), Err(JournalError::Unreadable(..))));
}

#[test]
fn a_full_disk_refuses_a_change_before_any_node_commits() {
    let machine = Machine::new();
    let mut node = machine.start(now());
    put(&mut node, "a", &documents()[1], now());
    let (writes, stamp) = (machine.kernel.fake(|fake| fake.writes), node.stamp());
    fs::remove_dir_all(machine.folder.path()).unwrap();
    node.prepare(prepare("b", &documents()[1], &documents()[2]), now()).unwrap();
    let error = node.get_ready(&get_ready("b"), now()).unwrap_err();
    assert_eq!(error.code, ErrorCode::Failed);
    assert!(error.message.starts_with("cannot write the journal"), "{error}");
    assert_eq!((machine.kernel.fake(|fake| fake.writes), node.stamp()), (writes, stamp));
    drop(node);
    let Err(JournalError::Unwritable(..)) = machine.open(now()) else {
        panic!("an agent has started without a writable journal")
    };
}

#[test]
fn a_full_disk_at_commit_refuses_the_change_and_leaves_no_reject_responder() {
    let machine = Machine::new();
    let mut node = machine.start(now());
    put(&mut node, "a", &documents()[1], now());
    let (writes, stamp) = (machine.kernel.fake(|fake| fake.writes), node.stamp());
    let mut wanted = documents()[2].clone();
    wanted.partitions.iter_mut().for_each(|partition| partition.mode = Mode::Reject);
    node.prepare(prepare("b", &documents()[1], &wanted), now()).unwrap();
    fs::remove_dir_all(machine.folder.path()).unwrap();
    let error = node.commit(&commit("b"), &now).unwrap_err();
    assert!(error.message.starts_with("cannot write the journal"), "{error}");
    assert_eq!((machine.kernel.fake(|fake| fake.writes), node.stamp()), (writes, stamp));
    assert_eq!(machine.kernel.fake(|fake| fake.answers), Some(false));
}

/// All other nodes roll back, so a full disk must not stop the rollback on this node.
#[test]
fn a_rollback_with_a_full_disk_is_done_and_journalled_later() {
    let machine = Machine::new();
    let mut node = machine.start(now());
    put(&mut node, "a", &documents()[1], now());
    let was = machine.kernel.shaping();
    put(&mut node, "b", &documents()[2], now());
    let away = machine.folder.path().with_extension("away");
    fs::rename(machine.folder.path(), &away).unwrap();
    assert_eq!(node.rollback(&rollback("b"), now()).unwrap().stamp, documents()[1].stamp());
    assert_eq!(machine.kernel.shaping(), was);
    let behind = node.status(now()).unwrap().watch.journal_behind.unwrap();
    assert!(behind.starts_with("cannot write the journal"), "{behind}");
    fs::rename(&away, machine.folder.path()).unwrap();
    node.tick(now() + SECOND).unwrap();
    assert_eq!(node.status(now() + SECOND).unwrap().watch.journal_behind, None);
    drop(node);
    assert_eq!(machine.start(now() + SECOND).stamp(), documents()[1].stamp());
    assert_eq!(machine.kernel.shaping(), was);
}

#[test]
fn a_journal_in_use_stops_a_second_agent() {
    let machine = Machine::new();
    let node = machine.start(now());
    let Err(error) = machine.open(now()) else { panic!("a second agent has started") };
    assert!(matches!(error, JournalError::InUse(_)), "{error}");
    drop(node);
    machine.start(now());
}

#[test]
fn the_status_reports_the_recovery_from_the_journal() {
    let machine = Machine::new();
    let mut node = machine.start(now());
    assert_eq!(node.status(now()).unwrap().recovered, None, "a clear node has no recovery");
    put(&mut node, "a", &delayed(&documents()[1], "80ms", Some(SECOND)), now());
    drop(node);

    machine.kernel.fake(|fake| fake.tree = Tree::default());
    let later = now() + 2 * SECOND;
    let mut node = machine.start(later);
    let recovered = node.status(later).unwrap().recovered.unwrap();
    assert!(!recovered.after_reboot && !recovered.interrupted && !recovered.cleared, "{recovered:?}");
    assert!(recovered.writes.unwrap() > 0 && recovered.ended.len() == 1, "{recovered:?}");

    let wanted = node.document(later).wanted;
    node.prepare(prepare("b", &wanted, &parted(&wanted, "n2", None)), later).unwrap();
    node.make_ready(&commit("b"), later).unwrap();
    drop(node);
    let recovered = machine.start(later).status(later).unwrap().recovered.unwrap();
    assert!(recovered.interrupted && recovered.writes.is_some(), "{recovered:?}");
}

#[test]
fn after_reboot_clear_starts_clear_after_a_reboot() {
    for (after_reboot, boot) in
        [(AfterReboot::Clear, "second"), (AfterReboot::Clear, "first"), (AfterReboot::Restore, "second")]
    {
        let mut machine = Machine::new();
        put(&mut machine.start(now()), "a", &documents()[3], now());
        let was = machine.kernel.tree();
        machine.boot = boot;
        let config = Config { after_reboot, ..config(Some(&machine.journal())) };
        let open = || Node::with_sandbox(config.clone(), machine.kernel.clone(), clear_kernel(), boot, now()).unwrap();
        let mut node = open();
        // A default route added since then must not stop the removal of the agent's objects.
        if after_reboot == AfterReboot::Clear {
            let route = DefaultRoute { link: Some(2), gateway: None, table: 254 };
            machine.kernel.fake(|fake| fake.default_routes.push(route));
        }
        node.resume(now());
        let starts_clear = after_reboot == AfterReboot::Clear && boot == "second";
        if starts_clear {
            assert_eq!((machine.kernel.tree(), node.stamp()), (Tree::default(), Wanted::default().stamp()));
        } else if after_reboot == AfterReboot::Restore {
            assert_eq!((machine.kernel.tree(), node.stamp()), (was, documents()[3].stamp()));
        }
        let recovered = node.status(now()).unwrap().recovered.unwrap();
        assert_eq!((recovered.after_reboot, recovered.cleared), (boot == "second", starts_clear));
        drop(node);
        let mut node = open();
        node.resume(now());
        assert_eq!(node.status(now()).unwrap().recovered.is_none(), starts_clear, "a cleared node stays clear");
    }
}

#[test]
fn a_confirm_that_cannot_be_journalled_rolls_the_change_back() {
    let machine = Machine::new();
    let mut node = machine.start(now());
    put(&mut node, "a", &documents()[1], now());
    let was = machine.kernel.shaping();
    node.prepare(prepare("b", &documents()[1], &documents()[2]), now()).unwrap();
    node.commit(&commit("b"), &now).unwrap();
    fs::remove_dir_all(machine.folder.path()).unwrap();
    assert_eq!(node.confirm(&confirm("b"), now()).unwrap_err().code, ErrorCode::Failed);
    assert_eq!(machine.kernel.shaping(), was);
    assert_eq!(node.stamp(), documents()[1].stamp());
    assert_eq!(node.confirm(&confirm("b"), now()).unwrap_err().code, ErrorCode::Conflict);
}

#[test]
fn the_status_has_the_path_of_the_journal_if_there_is_one() {
    assert_eq!(n1().status(now()).unwrap().journal, None);
    let machine = Machine::new();
    assert_eq!(machine.start(now()).status(now()).unwrap().journal, Some(machine.journal()));
}

#[test]
fn a_journal_of_the_first_version_is_read() {
    for is_done in [true, false] {
        let machine = Machine::new();
        let mut node = machine.start(now());
        put(&mut node, "a", &documents()[1], now());
        node.prepare(prepare("b", &documents()[1], &documents()[2]), now()).unwrap();
        node.commit(&commit("b"), &now).unwrap();
        if is_done {
            node.confirm(&confirm("b"), now()).unwrap();
        }
        drop(node);
        let text = fs::read_to_string(machine.journal()).unwrap();
        let mut lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        lines[0]["version"] = 1.into();
        lines[1].as_object_mut().unwrap().remove("superseded");
        lines[1]["transaction"].as_object_mut().unwrap().remove("below");
        fs::write(machine.journal(), format!("{}\n{}\n", lines[0], lines[1])).unwrap();
        assert_eq!(machine.start(now()).stamp(), documents()[if is_done { 2 } else { 1 }].stamp());
    }
}

#[test]
fn a_restarted_agent_knows_which_changes_can_be_rolled_back() {
    let [_, first, second, third, ..] = &documents()[..] else { unreachable!() };
    let machine = Machine::new();
    let mut node = machine.start(now());
    put(&mut node, "a", first, now());
    node.confirm(&Confirm { by_all: true, ..confirm("a") }, now()).unwrap();
    put(&mut node, "b", second, now());
    drop(node);
    let mut node = machine.start(now());
    assert!(node.rollback(&rollback("a"), now()).unwrap().kept);
    node.prepare(prepare("c", second, third), now()).unwrap();
    node.commit(&commit("c"), &now).unwrap();
    drop(node);
    // The next start rolls c back, so that b can be rolled back again.
    let mut node = machine.start(now());
    assert_eq!(node.stamp(), second.stamp());
    assert_eq!(node.rollback(&rollback("b"), now()).unwrap().stamp, first.stamp());
    drop(node);
    assert!(machine.start(now()).rollback(&rollback("a"), now()).unwrap().kept);
}

#[test]
fn a_restart_rolls_back_a_covered_change_with_the_unconfirmed_change_on_top() {
    let [_, first, second, third, ..] = &documents()[..] else { unreachable!() };
    for is_confirmed in [false, true] {
        let machine = Machine::new();
        let mut node = machine.start(now());
        put(&mut node, "a", first, now());
        put(&mut node, "b", second, now());
        node.prepare(prepare("c", second, third), now()).unwrap();
        node.commit(&commit("c"), &now).unwrap();
        if is_confirmed {
            node.confirm(&confirm("c"), now()).unwrap();
        }
        node.rollback(&rollback("b"), now()).unwrap_err();
        drop(node);
        let mut node = machine.start(now());
        assert_eq!(node.stamp(), if is_confirmed { third } else { first }.stamp());
        assert_eq!(node.rollback(&rollback("c"), now()).unwrap().stamp, first.stamp());
    }
}
