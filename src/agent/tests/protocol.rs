//! The protocol, checked: controllers and agents, through every order of messages and a number of faults.
//!
//! What an agent does is `Transactions::step`, what a controller does is `fleet::decision`: the code itself, not a model of
//! it. The only things that are made up are the kernel, which does as it is told, and the network. It may lose a message or
//! its answer, deliver it late or twice; an agent may be killed and started again, a lease may be over early, a controller
//! may be killed or be held up for a minute.
//!
//! After every history, when everything has come to rest, all nodes have one document, and what each controller has said
//! is true ([`verdict`]). The exceptions are what no protocol can rule out. Nodes may differ after a controller was killed
//! when some nodes had its *confirm* or *roll back* and others had not, and after one has said `unknown` of a node. So they may
//! after one was held up for a minute between its *confirm* and its *roll back*, and a command on some nodes has not waited.

mod agents;
mod controllers;
mod histories;
mod verdict;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use self::{
    agents::{Agent, AgentId, Answer, Happening},
    controllers::{Controller, ControllerId, Known},
};
use super::*;
use crate::{fleet::snapshot::Snapshot, plan::Stamp, wire::Document};

/// A document, by its place in [`Check::documents`].
type DocumentId = u8;

/// What is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mutant {
    /// The code as it is.
    None,
    /// An agent that says of what it keeps that it is rolled back, as it once did.
    SaysRolledBack,
    /// An agent that keeps what is prepared when it rolls back the document below.
    KeepsPrepared,
    /// A controller that edits whatever document it reads.
    EditsAnything,
    /// An agent that says of a change that it is kept when another one on top of it is confirmed there, as it once did.
    SaysKept,
    /// An agent that does not record the rollback of a covered change.
    ForgetsRollback,
    /// An agent that takes a change of some nodes on top of one that is not finished.
    PartsUnfinished,
    /// A controller that says of a document that it is in force without asking whether it is finished.
    TrustsUnfinished,
}

/// What a command does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    /// Adds something, as `partition` does.
    Adds,
    /// The same, and brings nodes in line that do not agree, as `apply` does.
    Replaces,
    /// Asks for what is there, as a repeated `apply` does.
    Repeats,
}

/// A controller's command, and the nodes that it is made on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Command<const N: usize> {
    verb: Verb,
    on: [bool; N],
}

/// All orders of the nodes.
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

    /// One with `--only`.
    fn only(verb: Verb, on: [bool; N]) -> Self {
        Self { verb, on }
    }
}

/// An edited document.
#[derive(Clone, Copy)]
struct Draft {
    wanted: DocumentId,
    /// Whether nothing is to be done for it to be in force.
    is_in_force: bool,
}

/// Who edits which document, what all nodes have, and whether the document is not finished.
type DraftKey<const N: usize> = (u8, [Option<DocumentId>; N], DocumentId, bool);

struct Check<const N: usize, const C: usize> {
    mutant: Mutant,
    commands: [Command<N>; C],
    documents: Vec<(Wanted, Stamp)>,
    drafts: HashMap<DraftKey<N>, Option<Draft>>,
    agents: Vec<Agent>,
    /// Whose change is under way on each of them.
    holders: Vec<Option<u8>>,
    agent_ids: HashMap<Agent, AgentId>,
    happened: HashMap<(AgentId, Happening), (AgentId, Answer)>,
    controllers: Vec<Known<N>>,
    controller_ids: HashMap<Controller<N>, ControllerId>,
    answered: HashMap<(ControllerId, usize, Answer), ControllerId>,
    /// The ways in which nodes can be called otherwise so that each command is on the same nodes as before: they make
    /// no difference.
    names: Vec<[usize; N]>,
    /// How many histories lead on from a state.
    visited: HashMap<u64, f64>,
    transitions: u64,
    rests: u64,
    /// The states at rest in which nodes may differ, and those of them in which they do.
    residues: [u64; 2],
    wrong: Option<String>,
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
        let nothing = Wanted { inventory, ..Wanted::default() };
        // Something is in force, so that documents differ in more than their generation.
        let base = Wanted { inventory: nothing.inventory.clone(), ..parted(&nothing, "n2", None) };
        let stamp = base.stamp();
        Self {
            mutant,
            commands,
            documents: vec![(base, stamp)],
            drafts: HashMap::new(),
            agents: Vec::new(),
            holders: Vec::new(),
            agent_ids: HashMap::new(),
            happened: HashMap::new(),
            controllers: Vec::new(),
            controller_ids: HashMap::new(),
            answered: HashMap::new(),
            names: permutations().filter(|names| commands.iter().all(|command| command.is_same_under(names))).collect(),
            visited: HashMap::new(),
            transitions: 0,
            rests: 0,
            residues: [0; 2],
            wrong: None,
        }
    }

    fn wanted(&self, document: DocumentId) -> &Wanted {
        &self.documents[usize::from(document)].0
    }

    fn named(&self, stamps: [Option<DocumentId>; N]) -> BTreeMap<NodeName, Stamp> {
        let stamp = |document: DocumentId| self.documents[usize::from(document)].1.clone();
        (0..N).filter_map(|number| Some((node(number), stamp(stamps[number]?)))).collect()
    }

    /// Whether a document has a controller's change.
    fn has(&self, document: DocumentId, who: u8) -> bool {
        self.wanted(document).partitions.iter().any(|partition| partition.name == ticket(who).0)
    }

    /// Edits the document that was read, as `Fleet` does.
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
            let is_in_force = edited.said_already && (trusts || !edited.is_unfinished);
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

/// Goes through every history with that many faults.
#[expect(clippy::print_stdout, reason = "says how much was enumerated")]
fn check<const N: usize, const C: usize>(mutant: Mutant, commands: [Command<N>; C], faults: u8) -> Option<String> {
    let mut check = Check::new(mutant, commands);
    let began = std::time::Instant::now();
    let histories = check.run(faults);
    let said: Vec<String> = commands.iter().map(Command::said).collect();
    println!(
        "{N} agents, {C} controllers ({}), up to {faults} faults: {histories:.1e} histories, {} states, {} transitions; \
         at rest in {} states, in {} of them nodes may differ, in {} they do; {:.1?}",
        said.join(", "),
        check.visited.len(),
        check.transitions,
        check.rests,
        check.residues[0],
        check.residues[1],
        began.elapsed()
    );
    check.wrong
}

impl<const N: usize> Command<N> {
    fn said(&self) -> String {
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
        // Disjoint, overlapping, one in the other.
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
        (Mutant::PartsUnfinished, part(Verb::Adds), 1),
        (Mutant::EditsAnything, part(Verb::Replaces), 1),
        (Mutant::TrustsUnfinished, whole(Verb::Repeats), 1),
    ] {
        assert!(check(mutant, commands, faults).is_some(), "{mutant:?}");
    }
}
