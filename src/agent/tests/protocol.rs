//! The protocol check: runs controllers and agents through every order of messages, with a limited number of faults.
//!
//! Agents run `Transactions::step`, and controllers run `fleet::decision`: the product's code, not a model of the code.
//! Only the kernel and the network are simulated. The kernel never fails. A fault is one of these:
//!
//! - The network loses a message or an answer, or delivers a message late or twice.
//! - An agent is killed and started again.
//! - A lease expires early.
//! - A controller is killed, or stops for a minute.
//!
//! An agent that cannot apply the edit of a *prepare* asks for the whole document (`needs-document`). This answer changes no
//! state of the agent, so for the check it is a *prepare* that arrives later.
//!
//! A history is one sequence of messages and faults. At the end of each history, all nodes must have the same document,
//! and each controller's report must be true ([`verdict`]). No protocol can prevent these exceptions, after which nodes
//! may differ:
//!
//! - A controller was killed after some nodes, but not all, received its *confirm* or *roll back*.
//! - A controller reported a node as `unknown`.
//! - A controller stopped for a minute between its *confirm* and its *roll back*, and a command on some of the nodes
//!   did not wait for the controller.

mod agents;
mod controllers;
mod histories;
mod verdict;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use self::{
    agents::{Agent, AgentId, Answer, Input},
    controllers::{Controller, ControllerId, Known},
};
use super::*;
use crate::{fleet::snapshot::Snapshot, plan::Stamp, wire::Document};

/// An index in [`Check::documents`].
type DocumentId = u8;

/// An error that the test adds to the code, to show that the check finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mutant {
    /// No error.
    None,
    /// An agent answers that a change is rolled back although the agent keeps it. An earlier version did this.
    SaysRolledBack,
    /// An agent rolls back a document and does not cancel the change prepared on top.
    KeepsPrepared,
    /// A controller edits any document, also an unconfirmed one.
    EditsAnything,
    /// An agent answers that a change is kept as soon as this agent confirms a change on top. An earlier version did
    /// this.
    SaysKept,
    /// An agent does not record the rollback of a covered change.
    ForgetsRollback,
    /// An agent accepts a change on top of an unfinished change although the new change leaves out some nodes.
    AcceptsSubset,
    /// A controller reports a document as in force although the document may still be rolled back.
    TrustsUnfinished,
}

/// The kind of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    /// Adds an entry to the document, as `partition` does.
    Adds,
    /// Adds an entry, and also works if the nodes have different documents, as `apply` does.
    Replaces,
    /// Asks for the document in force, as a repeated `apply` does.
    Repeats,
}

/// A controller's command, and the nodes that it changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Command<const N: usize> {
    verb: Verb,
    on: [bool; N],
}

/// All permutations of the nodes.
fn permutations<const N: usize>() -> impl Iterator<Item = [usize; N]> {
    let size = u32::try_from(N).unwrap();
    let places = move |number: usize| std::array::from_fn(|place| number / N.pow(place.try_into().unwrap()) % N);
    (0..N.pow(size)).map(places).filter(|names: &[usize; N]| (0..N).all(|name| names.contains(&name)))
}

impl<const N: usize> Command<N> {
    fn is_same_under(&self, names: &[usize; N]) -> bool {
        names.map(|name| self.on[name]) == self.on
    }

    fn all(verb: Verb) -> Self {
        Self { verb, on: [true; N] }
    }

    /// A command with `--only`.
    fn only(verb: Verb, on: [bool; N]) -> Self {
        Self { verb, on }
    }
}

/// An edited document.
#[derive(Clone, Copy)]
struct Draft {
    wanted: DocumentId,
    /// True if all nodes have the document in force, so that no change is necessary.
    is_in_force: bool,
}

/// The controller, the document of each node, the document to edit, and whether that document is unfinished.
type DraftKey<const N: usize> = (u8, [Option<DocumentId>; N], DocumentId, bool);

struct Check<const N: usize, const C: usize> {
    mutant: Mutant,
    commands: [Command<N>; C],
    documents: Vec<(Wanted, Stamp)>,
    drafts: HashMap<DraftKey<N>, Option<Draft>>,
    agents: Vec<Agent>,
    /// For each agent, the controller whose change is under way.
    lease_holders: Vec<Option<u8>>,
    agent_ids: HashMap<Agent, AgentId>,
    agent_steps: HashMap<(AgentId, Input), (AgentId, Answer)>,
    controllers: Vec<Known<N>>,
    controller_ids: HashMap<Controller<N>, ControllerId>,
    controller_steps: HashMap<(ControllerId, usize, Answer), ControllerId>,
    /// The permutations of the nodes that leave each command on the same nodes. States that differ only by such a
    /// permutation are equivalent.
    renamings: Vec<[usize; N]>,
    /// The number of histories from each visited state.
    visited: HashMap<u64, f64>,
    transitions: u64,
    final_states: u64,
    /// The number of final states in which nodes may differ, and the number of those in which nodes do differ.
    exceptions: [u64; 2],
    violation: Option<String>,
}

fn ticket(who: u8) -> Ticket {
    Ticket(["a", "b", "c"][usize::from(who)].to_owned())
}

fn node(number: usize) -> NodeName {
    format!("n{}", number + 1).parse().unwrap()
}

impl<const N: usize, const C: usize> Check<N, C> {
    fn new(mutant: Mutant, commands: [Command<N>; C]) -> Self {
        let mut inventory = inventory();
        inventory.nodes.retain(|name, _| (0..N).any(|number| node(number) == *name));
        let nothing = Wanted { inventory: inventory.into(), ..Wanted::default() };
        // A document is in force at the start, so that documents differ in more than their generation.
        let base = Wanted { inventory: nothing.inventory.clone(), ..parted(&nothing, "n2", None) };
        let stamp = base.stamp();
        Self {
            mutant,
            commands,
            documents: vec![(base, stamp)],
            drafts: HashMap::new(),
            agents: Vec::new(),
            lease_holders: Vec::new(),
            agent_ids: HashMap::new(),
            agent_steps: HashMap::new(),
            controllers: Vec::new(),
            controller_ids: HashMap::new(),
            controller_steps: HashMap::new(),
            renamings: permutations()
                .filter(|names| commands.iter().all(|command| command.is_same_under(names)))
                .collect(),
            visited: HashMap::new(),
            transitions: 0,
            final_states: 0,
            exceptions: [0; 2],
            violation: None,
        }
    }

    fn wanted(&self, document: DocumentId) -> &Wanted {
        &self.documents[usize::from(document)].0
    }

    fn named(&self, stamps: [Option<DocumentId>; N]) -> BTreeMap<NodeName, Stamp> {
        let stamp = |document: DocumentId| self.documents[usize::from(document)].1.clone();
        (0..N).filter_map(|number| Some((node(number), stamp(stamps[number]?)))).collect()
    }

    /// True if a document has a controller's change.
    fn has(&self, document: DocumentId, who: u8) -> bool {
        self.wanted(document).partitions.iter().any(|partition| partition.name == ticket(who).0)
    }

    /// Edits the document `read`, as `Fleet` does.
    fn draft(
        &mut self,
        who: u8,
        stamps: [Option<DocumentId>; N],
        read: DocumentId,
        is_unfinished: bool,
    ) -> Option<Draft> {
        let key = (who, stamps, read, is_unfinished);
        if let Some(draft) = self.drafts.get(&key) {
            return *draft;
        }
        let Command { verb, on } = self.commands[usize::from(who)];
        let unfinished = is_unfinished.then_some(SECOND);
        let document = Document { wanted: self.wanted(read).clone(), unfinished, ..Document::default() };
        let takes_part = |name: &NodeName| (0..N).any(|number| on[number] && node(number) == *name);
        let missing: BTreeSet<_> = (0..N).map(node).filter(|name| !takes_part(name)).collect();
        let edit = |wanted: &Wanted| {
            let mut wanted = wanted.clone();
            if verb != Verb::Repeats {
                wanted = Wanted { inventory: wanted.inventory.clone(), ..parted(&wanted, "n2", None) };
                wanted.partitions.last_mut().unwrap().name = ticket(who).0;
            }
            Ok(wanted)
        };
        let snapshot = Snapshot { stamps: self.named(stamps), document };
        let edited = snapshot.edited(takes_part, missing, verb != Verb::Adds, edit).ok();
        let draft = edited.map(|edited| {
            let trusts = self.mutant == Mutant::TrustsUnfinished;
            let is_in_force = edited.is_unchanged && (trusts || !edited.is_unfinished);
            Draft { wanted: self.document_id(edited.wanted), is_in_force }
        });
        self.drafts.insert(key, draft);
        draft
    }

    fn document_id(&mut self, wanted: Wanted) -> DocumentId {
        let known = self.documents.iter().position(|(known, _)| *known == wanted);
        let id = known.unwrap_or_else(|| {
            let stamp = wanted.stamp();
            self.documents.push((wanted, stamp));
            self.documents.len() - 1
        });
        DocumentId::try_from(id).unwrap()
    }
}

/// Runs every history with at most this many faults. Returns a violation, if there is one.
#[expect(clippy::print_stdout, reason = "reports the number of histories")]
fn check<const N: usize, const C: usize>(mutant: Mutant, commands: [Command<N>; C], faults: u8) -> Option<String> {
    let mut check = Check::new(mutant, commands);
    let began = std::time::Instant::now();
    let histories = check.run(faults);
    let described: Vec<String> = commands.iter().map(Command::describe).collect();
    println!(
        "{N} agents, {C} controllers ({}), up to {faults} faults: {histories:.1e} histories, {} states, {} transitions; \
         {} final states; nodes may differ in {} of them, and differ in {}; {:.1?}",
        described.join(", "),
        check.visited.len(),
        check.transitions,
        check.final_states,
        check.exceptions[0],
        check.exceptions[1],
        began.elapsed()
    );
    check.violation
}

impl<const N: usize> Command<N> {
    fn describe(&self) -> String {
        let nodes: Vec<String> =
            (0..N).filter(|number| self.on[*number]).map(|number| node(number).to_string()).collect();
        let only = if nodes.len() < N { format!(" only {}", nodes.join(" ")) } else { String::new() };
        format!("{:?}{only}", self.verb).to_lowercase()
    }
}

#[test]
fn after_any_fault_all_nodes_have_one_document_and_reports_are_true() {
    for verb in [Verb::Adds, Verb::Replaces, Verb::Repeats] {
        assert_eq!(check(Mutant::None, [Command::<3>::all(Verb::Adds), Command::all(verb)], 1), None);
        assert_eq!(check(Mutant::None, [Command::<2>::all(Verb::Adds), Command::all(verb)], 2), None);
    }
}

#[test]
fn three_commands_on_top_of_each_other_leave_one_document() {
    for verb in [Verb::Adds, Verb::Replaces, Verb::Repeats] {
        let commands = [Command::<2>::all(Verb::Adds), Command::all(Verb::Adds), Command::all(verb)];
        assert_eq!(check(Mutant::None, commands, 0), None);
    }
}

#[test]
fn commands_on_some_nodes_change_all_of_those_or_none_and_reports_are_true() {
    for (one, other) in [
        // Disjoint, overlapping, nested twice.
        ([true, false, false], [false, true, true]),
        ([true, true, false], [false, true, true]),
        ([true, true, true], [true, false, false]),
        ([true, true, true], [false, true, true]),
    ] {
        for verb in [Verb::Adds, Verb::Replaces] {
            let commands = [Command::<3>::only(Verb::Adds, one), Command::only(verb, other)];
            assert_eq!(check(Mutant::None, commands, 1), None);
        }
    }
    let commands = [Command::<2>::all(Verb::Adds), Command::only(Verb::Replaces, [true, false])];
    assert_eq!(check(Mutant::None, commands, 2), None);
}

#[test]
fn the_check_finds_every_race_of_earlier_versions() {
    let whole = |verb| [Command::<2>::all(Verb::Adds), Command::all(verb)];
    let part = |verb| [Command::<2>::all(Verb::Adds), Command::only(verb, [true, false])];
    for (mutant, commands, faults) in [
        (Mutant::SaysRolledBack, whole(Verb::Adds), 1),
        (Mutant::KeepsPrepared, whole(Verb::Adds), 1),
        (Mutant::EditsAnything, whole(Verb::Replaces), 1),
        (Mutant::SaysKept, whole(Verb::Adds), 2),
        (Mutant::ForgetsRollback, whole(Verb::Adds), 2),
        (Mutant::AcceptsSubset, part(Verb::Adds), 1),
        (Mutant::EditsAnything, part(Verb::Replaces), 1),
        (Mutant::TrustsUnfinished, whole(Verb::Repeats), 1),
    ] {
        assert!(check(mutant, commands, faults).is_some(), "{mutant:?}");
    }
}
