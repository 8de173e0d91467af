//! Tests of one node on a kernel in memory, and helpers for all tests of the agent.

mod counters;
mod drift;
mod edits;
pub(crate) mod examples;
mod fleet;
mod guard;
mod keeping;
mod preparation;
mod protocol;
mod refusals;
mod restart;
mod time;
mod watched;

use std::{net::IpAddr, ops::Add, path::Path, sync::Arc, time::Duration};

use super::{AfterReboot, Config, Node, Now};
use crate::{
    fake_kernel::FakeKernel,
    kernel::DefaultRoute,
    plan::{
        AgentAddress, Inventory, Mode, Moment, NodeLocation, OverlayRequest, Partition, Shape, Shaping, Timing, Tree,
        Wanted,
    },
    topology::{LinkChange, NodeName, Source, Topology, hostlist},
    wire::{CONFIRM_WITHIN, Commit, Confirm, ErrorCode, GetReady, OnDrift, Prepare, Rollback, Ticket},
};

/// The time at which the tests begin: one hour after boot.
fn now() -> Now {
    Now { uptime: Duration::from_hours(1), wall: Moment::from_nanos(1_800_000_000_000_000_000) }
}

impl Add<Duration> for Now {
    type Output = Self;

    fn add(self, time: Duration) -> Self {
        self.after(time)
    }
}

fn address(number: u8) -> IpAddr {
    [10, 0, 0, number].into()
}

fn inventory() -> Inventory {
    let place = |number: u8| NodeLocation {
        agent: AgentAddress::Unix(format!("/run/n{number}.sock").into()),
        interface: "db0".parse().unwrap(),
        addresses: vec![address(number)],
    };
    let node = |number: u8| (format!("n{number}").parse::<NodeName>().unwrap(), place(number));
    Inventory { nodes: (1..=3).map(node).collect(), ..Inventory::default() }
}

/// The document `base` with a topology that gives every pair of nodes this RTT.
fn uniform(base: &Wanted, rtt: &str) -> Wanted {
    let text = format!("name = 'uniform'\nnodes = 'n[1-3]'\n[links]\ndefault = {{ rtt = '{rtt}' }}\n");
    let topology = Topology::parse(Source::new("uniform.toml", text)).unwrap();
    let wanted = base.with_topology(topology, inventory()).unwrap();
    Wanted { generation: base.generation + 1, ..wanted }
}

/// The document `base` with a partition between the nodes of `side` and all other nodes.
fn parted(base: &Wanted, side: &str, timing: Option<Timing>) -> Wanted {
    let side = hostlist::expand(side).unwrap().into_iter().map(|name| name.parse().unwrap()).collect();
    let mut wanted = Wanted { generation: base.generation + 1, inventory: inventory().into(), ..base.clone() };
    let name = wanted.partitions.len();
    let name = if name == 0 { "n2".to_owned() } else { format!("another-{name}") };
    wanted.partitions.push(Partition {
        name,
        shape: Shape::Sides { sides: vec![side] },
        ports: [].into(),
        mode: Mode::Drop,
        timing,
        since: wanted.generation,
    });
    wanted
}

/// The configuration of the agent of `n1`.
fn config(journal: Option<&Path>) -> Config {
    let socket = Some("/run/n1.sock".into());
    let config = Config::of("n1".parse().unwrap(), vec!["db0".parse().unwrap()]);
    Config { socket, journal: journal.map(Path::to_owned), ..config }
}

fn clear_kernel() -> FakeKernel {
    let mut kernel = FakeKernel::new("db0".parse().unwrap());
    kernel.interface.addresses = vec![address(1)];
    kernel
}

fn n1() -> Node<FakeKernel> {
    n1_on(FakeKernel::new("db0".parse().unwrap()))
}

fn n1_on(mut kernel: FakeKernel) -> Node<FakeKernel> {
    kernel.interface.addresses = vec![address(1)];
    let sandbox = kernel.clone();
    Node::with_sandbox(config(None), kernel, sandbox, "boot", now()).unwrap()
}

fn prepare(ticket: &str, base: &Wanted, wanted: &Wanted) -> Prepare {
    Prepare { ticket: Ticket(ticket.into()), base: base.stamp(), wanted: Some(wanted.clone()), edit: None }
}

fn commit(ticket: &str) -> Commit {
    Commit { ticket: Ticket(ticket.into()), at: None, clock_ahead_ns: 0, confirm_within: CONFIRM_WITHIN }
}

fn get_ready(ticket: &str) -> GetReady {
    GetReady { ticket: Ticket(ticket.into()) }
}

fn confirm(ticket: &str) -> Confirm {
    Confirm { ticket: Ticket(ticket.into()), by_all: false }
}

fn rollback(ticket: &str) -> Rollback {
    Rollback { ticket: Ticket(ticket.into()) }
}

/// Puts a document in force.
fn put(node: &mut Node<FakeKernel>, ticket: &str, wanted: &Wanted) {
    put_at(node, ticket, wanted, now());
}

/// Puts a document in force at the time `now`.
fn put_at(node: &mut Node<FakeKernel>, ticket: &str, wanted: &Wanted, now: Now) {
    let base = wanted_of(node);
    node.prepare(prepare(ticket, &base, wanted), now).unwrap();
    node.commit(&commit(ticket), &|| now).unwrap();
    node.confirm(&confirm(ticket), now).unwrap();
}

/// Sets the packet counter of each cut.
fn count_cuts(node: &mut Node<FakeKernel>, packets: u64) {
    for tally in node.kernel().tree.counters.cuts.values_mut() {
        tally.packets = packets;
    }
}

/// The document that the node has.
fn wanted_of(node: &Node<FakeKernel>) -> Wanted {
    node.document(now()).wanted
}

#[test]
fn prepare_writes_nothing_and_commit_puts_the_document_in_force() {
    let mut node = n1();
    let wanted = uniform(&Wanted::default(), "100ms");
    let prepared = node.prepare(prepare("a", &Wanted::default(), &wanted), now()).unwrap();
    assert!(!prepared.change.steps.is_empty());
    assert_eq!(node.kernel().writes, 0);
    let committed = node.commit(&commit("a"), &|| now()).unwrap();
    assert_eq!(committed.stamp, wanted.stamp());
    assert_eq!(committed.writes, prepared.change.steps.len());
    let status = node.status(now()).unwrap();
    assert_eq!((status.drift, status.profiles.len()), (vec![], 1));
}

#[test]
fn a_change_of_an_older_document_is_a_conflict() {
    let mut node = n1();
    let first = uniform(&Wanted::default(), "100ms");
    put(&mut node, "a", &first);
    let late = uniform(&Wanted::default(), "300ms");
    let error = node.prepare(prepare("b", &Wanted::default(), &late), now()).unwrap_err();
    assert_eq!(error.code, ErrorCode::Conflict);
    assert_eq!(wanted_of(&node), first);
}

#[test]
fn a_prepared_change_keeps_other_controllers_out_until_it_is_rolled_back() {
    let mut node = n1();
    let (ours, theirs) = (uniform(&Wanted::default(), "100ms"), uniform(&Wanted::default(), "300ms"));
    node.prepare(prepare("ours", &Wanted::default(), &ours), now()).unwrap();
    let error = node.prepare(prepare("theirs", &Wanted::default(), &theirs), now()).unwrap_err();
    assert_eq!(error.code, ErrorCode::Conflict);
    node.rollback(&rollback("ours"), now()).unwrap();
    node.prepare(prepare("theirs", &Wanted::default(), &theirs), now()).unwrap();
    // A change that was rolled back cannot be committed.
    assert_eq!(node.commit(&commit("ours"), &|| now()).unwrap_err().code, ErrorCode::Conflict);
}

#[test]
fn rolling_back_a_committed_change_restores_the_document_before() {
    let mut node = n1();
    put(&mut node, "a", &uniform(&Wanted::default(), "100ms"));
    let (before, tree) = (wanted_of(&node), node.kernel().tree.shaping());
    put(&mut node, "b", &uniform(&before, "300ms"));
    assert_ne!(node.kernel().tree.shaping(), tree);
    // The second rollback of a transaction changes nothing, and so does the rollback of an unknown transaction.
    for ticket in ["b", "b", "unknown"] {
        let rolled_back = node.rollback(&rollback(ticket), now()).unwrap();
        assert_eq!(rolled_back.stamp, before.stamp());
        assert_eq!(node.kernel().tree.shaping(), tree);
    }
}

#[test]
fn rolling_back_the_first_change_removes_all_objects() {
    let mut node = n1();
    put(&mut node, "a", &uniform(&Wanted::default(), "100ms"));
    node.rollback(&rollback("a"), now()).unwrap();
    assert_eq!(node.kernel().tree, Tree::default());
    assert_eq!(wanted_of(&node), Wanted::default());
}

#[test]
fn a_change_that_fails_in_the_kernel_leaves_the_node_as_before() {
    let wanted = uniform(&Wanted::default(), "100ms");
    let steps = n1().prepare(prepare("a", &Wanted::default(), &wanted), now()).unwrap().change.steps.len();
    for step in 0..steps {
        let mut node = n1();
        node.prepare(prepare("a", &Wanted::default(), &wanted), now()).unwrap();
        node.kernel().fails_at = Some(step);
        assert_eq!(node.commit(&commit("a"), &|| now()).unwrap_err().code, ErrorCode::Failed);
        assert_eq!(node.kernel().tree, Tree::default(), "step {step} failed");
        assert_eq!(wanted_of(&node), Wanted::default());
    }
}

#[test]
fn applying_the_document_in_force_writes_nothing() {
    let mut node = n1();
    put(&mut node, "a", &uniform(&Wanted::default(), "100ms"));
    let (wanted, writes) = (wanted_of(&node), node.kernel().writes);
    put(&mut node, "b", &wanted);
    assert_eq!(node.kernel().writes, writes);
}

#[test]
fn a_change_by_another_program_is_drift() {
    let mut node = n1();
    put(&mut node, "a", &uniform(&Wanted::default(), "100ms"));
    node.kernel().tree.egress.active = None;
    assert!(!node.status(now()).unwrap().drift.is_empty());
}

#[test]
fn a_document_whose_inventory_lacks_the_node_or_moves_it_is_refused() {
    let mut node = n1();
    let wanted = uniform(&Wanted::default(), "100ms");
    let name: NodeName = "n1".parse().unwrap();

    let mut without = wanted.clone();
    Arc::make_mut(&mut without.inventory).nodes.remove(&name);
    let error = node.prepare(prepare("a", &Wanted::default(), &without), now()).unwrap_err();
    assert_eq!(error.code, ErrorCode::BadRequest);

    let left_out = Wanted { missing: [(name.clone(), wanted.stamp())].into_iter().collect(), ..wanted.clone() };
    let error = node.prepare(prepare("a", &Wanted::default(), &left_out), now()).unwrap_err();
    assert_eq!((error.code, &*error.message), (ErrorCode::BadRequest, "the document leaves out n1"));

    let mut elsewhere = wanted.clone();
    Arc::make_mut(&mut elsewhere.inventory).nodes.get_mut(&name).unwrap().interface = "eth0".parse().unwrap();
    let error = node.prepare(prepare("a", &Wanted::default(), &elsewhere), now()).unwrap_err();
    assert_eq!(error.code, ErrorCode::Refused);

    let route = DefaultRoute { link: Some(2), gateway: None, table: 254 };
    node.kernel().default_routes.push(route);
    let error = node.prepare(prepare("a", &Wanted::default(), &wanted), now()).unwrap_err();
    assert_eq!(error.code, ErrorCode::Refused);
    assert_eq!(node.kernel().writes, 0);
}

#[test]
fn draining_classes_are_removed_when_they_are_empty() {
    let mut node = n1();
    let zones = |text: &str| {
        let text = format!("name = 'zones'\nzones.A = 'n[1-2]'\nzones.B = 'n3'\n[links]\n{text}\n");
        Topology::parse(Source::new("zones.toml", text)).unwrap()
    };
    let two = zones("intra-zone = { rtt = '10ms' }\ninter-zone = { rtt = '100ms' }");
    let wanted = Wanted::default().with_topology(two, inventory()).unwrap();
    put(&mut node, "a", &Wanted { generation: 1, ..wanted });
    node.kernel().tree.classes.values_mut().for_each(|leaf| leaf.queued = 1);
    let wanted = uniform(&wanted_of(&node), "100ms");
    put(&mut node, "b", &wanted);
    assert!(node.drains());
    node.tick(now()).unwrap();
    assert!(node.drains(), "a draining class still holds a packet");
    node.kernel().tree.classes.values_mut().for_each(|leaf| leaf.queued = 0);
    node.tick(now()).unwrap();
    assert!(!node.drains());
    assert_eq!(node.kernel().tree.classes.len(), 2, "the default class and the class in use");
}

const SECOND: Duration = Duration::from_secs(1);

/// The document `base` with an overlay that delays all links of node n2 for the time `lasts`.
fn delayed(base: &Wanted, delay: &str, lasts: Option<Duration>) -> Wanted {
    overlaid(base, &format!("delay = '{delay}'"), lasts)
}

/// The document `base` with an overlay on all links of node n2 for the time `lasts`.
fn overlaid(base: &Wanted, parameters: &str, lasts: Option<Duration>) -> Wanted {
    let change = LinkChange::parse(Source::new(Source::COMMAND_LINE, parameters), true).unwrap();
    let request = OverlayRequest { name: None, from: "n2".into(), to: "*".into(), both_ways: true, change, lasts };
    let wanted = base.with_overlay(request, inventory()).unwrap();
    Wanted { generation: base.generation + 1, ..wanted }
}

#[test]
fn a_timed_change_ends_by_itself_and_restores_the_tree() {
    let mut node = n1();
    let start = now();
    put(&mut node, "a", &uniform(&Wanted::default(), "100ms"));
    let before = node.kernel().tree.clone();
    let timed = delayed(&wanted_of(&node), "80ms", Some(10 * SECOND));
    put_at(&mut node, "b", &timed, start);
    let during = node.kernel().tree.shaping();
    assert_ne!(during, before.shaping());
    assert_eq!(node.status(start + 3 * SECOND).unwrap().overlays[0].left, Some(7.0));
    assert_eq!(node.tick(start + 9 * SECOND).unwrap(), Some((start + 10 * SECOND).uptime));
    assert_eq!(node.kernel().tree.shaping(), during);

    let stamp = node.stamp();
    assert_eq!(node.tick(start + 10 * SECOND).unwrap(), None);
    assert_eq!(node.kernel().tree, before);
    assert_eq!(node.stamp(), stamp, "the document stays the same on all nodes");
    let document = node.document(start + 10 * SECOND);
    let ended = document.absent.ended.len();
    assert_eq!((document.wanted.overlays.len(), ended, document.in_force().overlays.len()), (1, 1, 0));
    let status = node.status(start + 10 * SECOND).unwrap();
    assert!(status.overlays.is_empty() && status.drift.is_empty());
    let writes = node.kernel().writes;
    node.tick(start + 11 * SECOND).unwrap();
    assert_eq!(node.kernel().writes, writes, "a timed change ends only once");
}

#[test]
fn a_timed_change_without_a_topology_removes_all_objects_at_its_end() {
    let mut node = n1();
    let start = now();
    put_at(&mut node, "a", &delayed(&Wanted::default(), "80ms", Some(SECOND)), start);
    assert!(node.kernel().tree.taken);
    node.tick(start + SECOND).unwrap();
    assert_eq!(node.kernel().tree, Tree::default());
}

#[test]
fn an_edit_keeps_the_times_of_other_changes() {
    let mut node = n1();
    let start = now();
    put_at(&mut node, "a", &delayed(&Wanted::default(), "80ms", Some(10 * SECOND)), start);
    let edited = uniform(&wanted_of(&node), "100ms");
    put_at(&mut node, "b", &edited, start + 6 * SECOND);
    assert_eq!(node.status(start + 6 * SECOND).unwrap().overlays[0].left, Some(4.0));
    // A second overlay with the same content is another timed change, which lasts its full time.
    let anew = delayed(&edited, "80ms", Some(10 * SECOND));
    put_at(&mut node, "c", &anew, start + 7 * SECOND);
    assert_eq!(node.status(start + 7 * SECOND).unwrap().overlays[0].left, Some(10.0));
}

#[test]
fn a_late_edit_does_not_restart_a_timed_change_that_has_ended() {
    let mut node = n1();
    let start = now();
    put_at(&mut node, "a", &delayed(&Wanted::default(), "80ms", Some(10 * SECOND)), start);
    // The controller has read the document from a node on which the timed change had not ended yet.
    let retained = uniform(&wanted_of(&node), "100ms");
    let now = start + 11 * SECOND;
    node.tick(now).unwrap();
    put_at(&mut node, "b", &retained, now);
    assert_eq!(node.stamp(), retained.stamp());
    assert!(node.status(now).unwrap().overlays.is_empty());
    let delays: Vec<_> = node.status(now).unwrap().profiles.iter().map(|leaf| leaf.profile.delay.to_string()).collect();
    assert_eq!(delays, ["50ms"]);
}

#[test]
fn a_failed_end_of_a_timed_change_is_drift_and_is_retried() {
    let mut node = n1();
    let start = now();
    put_at(&mut node, "a", &uniform(&Wanted::default(), "100ms"), start);
    let before = node.kernel().tree.clone();
    let timed = delayed(&wanted_of(&node), "80ms", Some(SECOND));
    put_at(&mut node, "b", &timed, start);
    let now = start + SECOND;
    node.kernel().fails_at = Some(node.kernel().writes);
    assert!(node.tick(now).is_err());
    node.kernel().fails_at = Some(node.kernel().writes);
    assert!(!node.status(now).unwrap().drift.is_empty());
    node.tick(now + SECOND).unwrap();
    assert_eq!(node.kernel().tree, before);
    assert!(node.status(now + SECOND).unwrap().drift.is_empty());
}

#[test]
fn rolling_back_an_edit_restores_the_times_of_removed_changes() {
    let mut node = n1();
    let start = now();
    put_at(&mut node, "a", &delayed(&Wanted::default(), "80ms", Some(10 * SECOND)), start);
    let (document, during) = (wanted_of(&node), node.kernel().tree.shaping());
    let dropped = document.without_overlays(&[], inventory()).unwrap();
    put_at(&mut node, "b", &Wanted { generation: 2, ..dropped.clone() }, start + SECOND);
    assert_eq!(node.kernel().tree, Tree::default());
    node.rollback(&rollback("b"), start + 2 * SECOND).unwrap();
    assert_eq!(node.kernel().tree.shaping(), during);
    assert_eq!(node.status(start + 2 * SECOND).unwrap().overlays[0].left, Some(8.0));

    // A late rollback does not extend the time of the timed change.
    put_at(&mut node, "c", &Wanted { generation: 2, ..dropped }, start + 3 * SECOND);
    node.rollback(&rollback("c"), start + 11 * SECOND).unwrap();
    assert_eq!(node.kernel().tree, Tree::default());
    assert_eq!(node.stamp(), document.stamp());
}

#[test]
fn a_timed_change_applied_again_after_a_rollback_lasts_its_full_time() {
    let mut node = n1();
    let start = now();
    let timed = delayed(&Wanted::default(), "80ms", Some(10 * SECOND));
    put_at(&mut node, "a", &timed, start);
    node.rollback(&rollback("a"), start + SECOND).unwrap();
    assert_eq!(node.tick(start + SECOND).unwrap(), None);
    put_at(&mut node, "b", &timed, start + 5 * SECOND);
    assert_eq!(node.tick(start + 6 * SECOND).unwrap(), Some((start + 15 * SECOND).uptime));
}

#[test]
fn unsupported_parameters_are_refused_before_any_write_with_their_lines() {
    let old = FakeKernel::new("db0".parse().unwrap());
    let mut node = n1_on(FakeKernel { refuses_mixed_duplicates: true, ignores_seeds: true, ..old });
    let text = "name = 'wan'\nnodes = 'n[1-3]'\n[links]\ndefault = { rtt = '10ms', seed = 42 }\n\
                [[links.override]]\nfrom = 'n1'\nto = 'n3'\ndelay = '9ms'\nduplicate = '1%'\n";
    let topology = Topology::parse(Source::new("wan.toml", text)).unwrap();
    let base = Wanted::default();
    let wanted = Wanted { generation: 1, ..base.with_topology(topology, inventory()).unwrap() };
    let error = node.prepare(prepare("a", &base, &wanted), now()).unwrap_err();
    assert_eq!((error.code, node.kernel().writes), (ErrorCode::Unsupported, 0));
    let duplicate = "refuses `duplicate` together with other netems (wan.toml:9); ";
    assert!(error.message.contains(duplicate), "{}", error.message);
    assert!(error.message.contains("ignores `seed` (wan.toml:4)"), "{}", error.message);
}

#[test]
fn invalid_links_are_refused_now_and_after_the_end_of_a_timed_change() {
    let mut node = n1();
    let now = now();
    put_at(&mut node, "a", &uniform(&Wanted::default(), "20ms"), now);
    let base = wanted_of(&node);
    let refused = |node: &mut Node<FakeKernel>, base: &Wanted, wanted: &Wanted| {
        let error = node.prepare(prepare("b", base, wanted), now).unwrap_err();
        assert_eq!(error.code, ErrorCode::Refused);
        error.message
    };
    let wild = overlaid(&base, "jitter = '11ms'", None);
    assert_eq!(
        refused(&mut node, &base, &wild),
        "change n2:*:jitter: the jitter of 11ms is greater than the one-way delay of 10ms; use jitter of at most 10ms, \
         or set delay too"
    );
    put_at(&mut node, "c", &delayed(&base, "80ms", Some(SECOND)), now);
    let base = wanted_of(&node);
    let later = overlaid(&base, "jitter = '11ms'", None);
    let later = refused(&mut node, &base, &later);
    assert!(
        later.starts_with("after the end of all timed changes, change n2:*:jitter: the jitter of 11ms is"),
        "{later}"
    );
    put_at(&mut node, "d", &overlaid(&base, "jitter = '10ms'", None), now);
}
