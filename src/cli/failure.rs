//! [`Failure`]: the exit code, the message and the hints of a failed command.

use std::{collections::BTreeMap, fmt::Display, io};

use serde::Serialize;

use super::Exit;
use crate::{
    fleet::{CallError, Leftover, Phase, RollbackState, TransactionError},
    lab::{ControlError, KeepError, LabError, LayoutError},
    pki::IdentityError,
    plan::EditError,
    topology::{FileReport, NodeName, Problem, hostlist},
    wire::{CONFIRM_WITHIN, ErrorCode},
};

/// A failed command.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Failure {
    #[serde(skip)]
    pub(super) exit: Exit,
    /// The message, without a full stop.
    pub(super) message: String,
    /// The next commands or options.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(test, schemars(with = "Vec<String>"))]
    pub(super) hints: Vec<Hint>,
    /// The failure of each node.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[cfg_attr(test, schemars(with = "BTreeMap<NodeName, String>"))]
    pub(super) nodes: BTreeMap<NodeName, NodeFailure>,
    /// The nodes that did not confirm the rollback of a change.
    #[serde(rename = "rollback", skip_serializing_if = "Leftovers::is_empty")]
    pub(super) left: Box<Leftovers>,
    /// The mistakes of a file.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) problems: Vec<Problem>,
    /// The mistakes with the lines of the file. On stderr, they replace the message.
    #[serde(skip)]
    pub(super) rejected: Option<Box<FileReport>>,
}

/// A hint: the next command or option after a failure.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(super) struct Hint {
    pub(super) text: String,
    /// The recommended option, if only some commands have it.
    #[serde(skip)]
    option: Option<&'static str>,
}

/// The failure of one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(super) struct NodeFailure {
    /// The message.
    pub(super) text: String,
    /// The message without details of the node, such as its agent's address. Equal reasons are printed once.
    #[serde(skip)]
    pub(super) reason: String,
}

impl NodeFailure {
    /// A failure whose message has no details of the node.
    pub(super) fn of(text: String) -> Self {
        Self { reason: text.clone(), text }
    }
}

impl From<&CallError> for NodeFailure {
    fn from(error: &CallError) -> Self {
        Self { text: error.to_string(), reason: error.reason() }
    }
}

/// The nodes that may still have a change that was rolled back.
#[derive(Debug, Default, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(transparent)]
pub(super) struct Leftovers(BTreeMap<NodeName, Left>);

impl Leftovers {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A sentence for each node.
    pub(super) fn said(&self) -> impl Iterator<Item = (&NodeName, String)> {
        self.0.iter().map(|(node, left)| (node, left.said()))
    }
}

/// A node that may still have a change that was rolled back.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Left {
    state: RollbackState,
    /// Why the rollback failed.
    error: String,
}

impl Left {
    fn of(leftover: &Leftover) -> Self {
        Self { state: leftover.state, error: leftover.error.to_string() }
    }

    /// The state as a sentence.
    fn said(&self) -> String {
        let error = &self.error;
        match self.state {
            RollbackState::Covered => {
                format!("a later change is on top ({error}); rolls back if that change is rolled back")
            }
            RollbackState::RollsBack => format!(
                "did not confirm the rollback ({error}); rolls back by itself within {} s, or when its agent restarts",
                CONFIRM_WITHIN.as_secs()
            ),
            RollbackState::Unknown => {
                format!("did not confirm the rollback ({error}); may keep the change")
            }
            RollbackState::Stuck => format!("rollback failed, the agent retries: {error}"),
        }
    }
}

impl Failure {
    pub(super) fn new(exit: Exit, message: impl Display) -> Self {
        Self {
            exit,
            message: message.to_string(),
            hints: Vec::new(),
            nodes: BTreeMap::new(),
            left: Box::default(),
            problems: Vec::new(),
            rejected: None,
        }
    }

    /// The failure for a name that is not among the names of the nodes.
    pub(super) fn no_node<'a>(name: impl Display, nodes: impl IntoIterator<Item = &'a NodeName>) -> Self {
        Self::new(Exit::Usage, format!("no node `{name}`; the nodes are {}", hostlist::fold(nodes)))
    }

    /// The failure of another netemctl process, from its log. `otherwise`: the message if the log has none.
    pub(super) fn from_log(exit: Exit, log: &str, otherwise: impl Display) -> Self {
        let said = |prefix: &'static str| log.lines().filter_map(move |line| line.strip_prefix(prefix));
        let message = said("error: ").next_back().map_or_else(|| otherwise.to_string(), ToOwned::to_owned);
        said("hint: ").fold(Self::new(exit, message), Self::hint)
    }

    /// The failure with the timeout as its cause. `says`: the text that replaces `interrupted`.
    pub(super) fn of_timeout(mut self, says: &str) -> Self {
        if let Some(rest) = self.message.strip_prefix("interrupted") {
            self.message = format!("{says}{rest}");
        }
        if self.exit == Exit::Interrupted {
            self.exit = Exit::TimedOut;
        }
        self
    }

    /// The failure of interrupted work. A change that could not be rolled back keeps [`Exit::Failed`].
    pub(super) fn of_interrupted(mut self) -> Self {
        if !self.message.starts_with("interrupted") {
            self.message = format!("interrupted; {}", self.message);
        }
        if self.exit != Exit::Failed {
            self.exit = Exit::Interrupted;
        }
        self
    }

    /// The failure of a dry run of a topology.
    pub(super) fn of_dry_run(error: TransactionError) -> Self {
        let refusing = match &error {
            TransactionError::Nodes { phase: Phase::Prepare, failures, .. } => hostlist::fold(failures.keys()),
            _ => return error.into(),
        };
        match Self::from(error) {
            conflict if conflict.exit == Exit::Conflict => conflict,
            failure => Self { message: format!("{refusing} cannot apply this topology"), ..failure },
        }
    }

    pub(super) fn hint(mut self, hint: impl Display) -> Self {
        self.hints.push(Hint { text: hint.to_string(), option: None });
        self
    }

    /// Adds a hint that recommends an option. [`Failure::of_command`] drops the hint for commands without the option.
    pub(super) fn hint_option(mut self, option: &'static str, hint: impl Display) -> Self {
        self.hints.push(Hint { text: hint.to_string(), option: Some(option) });
        self
    }

    /// The failure without the hints that recommend an option that the command lacks.
    pub(super) fn of_command(mut self, command: &clap::Command) -> Self {
        let has = |option| command.get_arguments().any(|argument| argument.get_long() == Some(option));
        self.hints.retain(|hint| hint.option.is_none_or(has));
        self
    }
}

/// Converts the error of a step into a failure of the command.
pub(super) trait OrFail<T> {
    /// The value, or a failure with the message `what: error`.
    fn or_fail(self, exit: Exit, what: impl Display) -> Result<T, Failure>;

    /// The value, or a usage error with the error's own message.
    fn or_misused(self) -> Result<T, Failure>;
}

impl<T, E: Display> OrFail<T> for Result<T, E> {
    fn or_fail(self, exit: Exit, what: impl Display) -> Result<T, Failure> {
        self.map_err(|error| Failure::new(exit, format!("{what}: {error}")))
    }

    fn or_misused(self) -> Result<T, Failure> {
        self.map_err(|error| Failure::new(Exit::Usage, error))
    }
}

impl From<FileReport> for Failure {
    fn from(rejected: FileReport) -> Self {
        Self {
            problems: rejected.problems().to_vec(),
            rejected: Some(Box::new(rejected.clone())),
            ..Self::new(Exit::File, rejected.summary())
        }
    }
}

impl From<hostlist::HostlistError> for Failure {
    fn from(malformed: hostlist::HostlistError) -> Self {
        let help = malformed.help();
        Self::new(Exit::Usage, malformed).hint(help)
    }
}

impl From<LayoutError> for Failure {
    fn from(error: LayoutError) -> Self {
        Self::new(Exit::Refused, error)
    }
}

impl From<KeepError> for Failure {
    fn from(error: KeepError) -> Self {
        match error {
            KeepError::Lab(error) => error.into(),
            KeepError::Namespace(_) => Self::new(Exit::Permission, error),
            _ => Self::new(Exit::Failed, error),
        }
    }
}

impl From<IdentityError> for Failure {
    fn from(error: IdentityError) -> Self {
        let hint =
            "issue a controller's certificate: netemctl pki issue --controller; or name another folder: --tls-dir DIR";
        Self::new(Exit::File, error).hint(hint)
    }
}

impl From<LabError> for Failure {
    fn from(error: LabError) -> Self {
        let is_denied = |cause: &io::Error| Exit::of_io(cause) == Exit::Permission;
        let (exit, hint) = match &error {
            LabError::Down => (Exit::Unreachable, Some("start a lab: netemctl lab up TOPOLOGY")),
            LabError::Up(_) => (Exit::Conflict, Some("stop it first: netemctl lab down")),
            LabError::Orphans(_) => (Exit::Conflict, Some("end them: netemctl lab down")),
            LabError::Busy | LabError::Stuck(_) => (Exit::Conflict, None),
            LabError::Directory { error: cause, .. } if is_denied(cause) => {
                (Exit::Permission, Some("choose a directory of your own with --lab-dir"))
            }
            LabError::NotALab(_) | LabError::NotADirectory(_) | LabError::NotOurs { .. } | LabError::Open(_) => {
                (Exit::Refused, Some("choose another directory with --lab-dir"))
            }
            LabError::NoController => {
                (Exit::Usage, Some("bring one up that has: netemctl lab up TOPOLOGY --controller"))
            }
            LabError::TooLong(_) | LabError::NoNode { .. } => (Exit::Usage, None),
            LabError::Hostlist(malformed) => return Self::new(Exit::Usage, &error).hint(malformed.help()),
            LabError::InUse(_) => {
                let failure = Self::new(Exit::Refused, error).hint("see them: netemctl lab ps");
                return failure.hint_option("if-idle", "end them: omit --if-idle");
            }
            LabError::Namespaces { error: cause, .. } | LabError::Processes(cause) if is_denied(cause) => {
                (Exit::Permission, Some("use the lab as the user who brought it up"))
            }
            LabError::Directory { .. }
            | LabError::Namespaces { .. }
            | LabError::Processes(_)
            | LabError::Immortal(_)
            | LabError::Control(ControlError::Failed(_)) => (Exit::Failed, None),
            LabError::Control(ControlError::Silent(..)) => {
                (Exit::Unreachable, Some("restart the lab: netemctl lab down && netemctl lab up TOPOLOGY"))
            }
        };
        hint.into_iter().fold(Self::new(exit, error), Self::hint)
    }
}

impl From<TransactionError> for Failure {
    fn from(error: TransactionError) -> Self {
        let message = error.to_string();
        match error {
            TransactionError::Edit(error) => error.into(),
            TransactionError::Disagreement(_) => Self::new(Exit::Conflict, message)
                .hint("synchronise the nodes: netemctl apply TOPOLOGY, or netemctl clear")
                .hint("look for a change in progress: netemctl status")
                .hint_option("wait", "wait for a change in progress: --wait 30s"),
            TransactionError::Changing(_) => Self::new(Exit::Conflict, message)
                .hint_option("wait", "retry until the other command has ended: --wait 30s"),
            TransactionError::NoTicket(_) => Self::new(Exit::Failed, message),
            TransactionError::Interrupted => Self::new(Exit::Interrupted, message),
            TransactionError::Nodes { phase, failures, left } => of_nodes(phase, &failures, &left),
        }
    }
}

impl From<EditError> for Failure {
    fn from(error: EditError) -> Self {
        match &error {
            EditError::UnknownNodes { .. } => Self::new(Exit::Usage, error).hint(
                "restart the lab with this topology: netemctl lab down && netemctl lab up FILE; or add the nodes to the inventory",
            ),
            EditError::Nowhere(_, by) | EditError::AddressTaken { by, .. } => {
                Self::new(Exit::Refused, &error).hint(by.remedy())
            }
            EditError::UnknownName(_)
            | EditError::Overlay(_)
            | EditError::Partition(_)
            | EditError::NoSuchPartition { .. } => Self::new(Exit::Usage, error),
            EditError::Inventory(_) | EditError::NameTaken(_) => Self::new(Exit::Refused, error),
        }
    }
}

fn of_nodes(phase: Phase, failures: &BTreeMap<NodeName, CallError>, left: &BTreeMap<NodeName, Leftover>) -> Failure {
    let left: BTreeMap<_, _> = left.iter().map(|(node, leftover)| (node.clone(), Left::of(leftover))).collect();
    let state = match phase {
        Phase::Read | Phase::Prepare => "nothing was changed".to_owned(),
        Phase::Commit | Phase::Confirm => state(&left),
    };
    let exit = Exit::of_many(failures.values().map(exit_of)).unwrap_or(Exit::Failed);
    let mut failure = if failures.is_empty() {
        Failure::new(Exit::Failed, format!("interrupted; {state}"))
    } else {
        let failed = hostlist::fold(failures.keys());
        let what = match phase {
            Phase::Read => unread(&failed, failures.values()),
            Phase::Prepare if failures.values().all(|error| exit_of(error) == Exit::Conflict) => {
                "conflict with another change".to_owned()
            }
            Phase::Prepare => format!("{failed} cannot make this change"),
            Phase::Commit => format!("{failed} failed"),
            Phase::Confirm => format!("{failed} did not confirm"),
        };
        Failure::new(exit, format!("{what}; {state}"))
    };
    failure.nodes = failures.iter().map(|(node, error)| (node.clone(), error.into())).collect();
    if !left.is_empty() {
        failure.exit = Exit::Failed;
        failure = failure.hint(
            "see the state of each node: netemctl status; synchronise them: netemctl apply TOPOLOGY, or netemctl clear",
        );
    } else if exit == Exit::Conflict {
        failure = failure.hint_option("wait", "retry: --wait 30s");
    } else if exit == Exit::Unreachable {
        failure = failure
            .hint(remedy_of_silence(failures))
            .hint_option("allow-missing", "leave out nodes that do not answer: --allow-missing");
    }
    failure.left = Box::new(Leftovers(left));
    failure
}

/// A clause about nodes whose state could not be read.
pub(super) fn unread<'a>(names: &str, mut errors: impl Iterator<Item = &'a CallError> + Clone) -> String {
    let is_rejected = |error| matches!(error, &CallError::Untrusted { .. } | &CallError::NoIdentity { .. });
    if errors.clone().next().is_some() && errors.clone().all(is_rejected) {
        format!("no trusted TLS connection to {names}")
    } else if errors.any(|error| matches!(error, CallError::Refused(_))) {
        format!("cannot read the state of {names}")
    } else {
        format!("{names} did not answer")
    }
}

/// A hint after agents did not answer.
pub(super) fn remedy_of_silence(failures: &BTreeMap<NodeName, CallError>) -> String {
    let silent = failures.iter().filter(|(_, error)| exit_of(error) == Exit::Unreachable);
    let socket_in_lab = |(node, error): (&NodeName, &CallError)| match error {
        CallError::Unreachable { at, .. } | CallError::HungUp { at, .. } | CallError::TimedOut { at, .. } => {
            at.ends_with(&format!("/nodes/{node}/agent.sock"))
        }
        _ => false,
    };
    if silent.clone().all(socket_in_lab) {
        format!("restart the agent: netemctl lab restart {}", hostlist::fold(silent.map(|(node, _)| node)))
    } else {
        "see which agents answer: netemctl status".to_owned()
    }
}

/// The state of the nodes after a rollback.
fn state(left: &BTreeMap<NodeName, Left>) -> String {
    let mut states: BTreeMap<RollbackState, Vec<NodeName>> = BTreeMap::new();
    for (node, left) in left {
        states.entry(left.state).or_default().push(node.clone());
    }
    let clauses = states.iter().map(|(state, nodes)| {
        let names = hostlist::fold(nodes);
        match state {
            RollbackState::RollsBack => format!("{names} will roll back"),
            RollbackState::Covered | RollbackState::Unknown => format!("{names} may have the change"),
            RollbackState::Stuck => format!("rollback failed on {names}"),
        }
    });
    let clauses: Vec<_> = clauses.collect();
    match states.keys().next_back() {
        None => "rolled back on all nodes".to_owned(),
        Some(_) => format!("{}; rolled back on all other nodes", clauses.join(", ")),
    }
}

/// The exit code for a failed call.
pub(super) fn exit_of(error: &CallError) -> Exit {
    match error {
        CallError::Refused(error) => match error.code {
            ErrorCode::BadRequest | ErrorCode::NeedsDocument | ErrorCode::Failed | ErrorCode::Broken => Exit::Failed,
            ErrorCode::Refused | ErrorCode::ReadOnly => Exit::Refused,
            ErrorCode::Unsupported => Exit::Unsupported,
            ErrorCode::Permission => Exit::Permission,
            ErrorCode::Conflict => Exit::Conflict,
        },
        CallError::Untrusted { .. } | CallError::NoIdentity { .. } => Exit::Permission,
        CallError::Unreachable { .. } | CallError::HungUp { .. } | CallError::TimedOut { .. } => Exit::Unreachable,
        CallError::Unexpected { .. } | CallError::NoFiles { .. } => Exit::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{pki::Untrusted, wire::ErrorCode};

    fn failed(phase: Phase, node: &str, error: CallError) -> Failure {
        of_nodes(phase, &BTreeMap::from([(node.parse().unwrap(), error)]), &BTreeMap::new())
    }

    #[test]
    fn a_conflict_a_rejected_certificate_and_a_dead_agent_of_a_lab_each_have_their_own_message() {
        let conflict = failed(Phase::Prepare, "n1", ErrorCode::Conflict.error("another change was made first").into());
        assert_eq!(conflict.message, "conflict with another change; nothing was changed");
        assert_eq!(conflict.hints[0].text, "retry: --wait 30s");
        let untrusted = CallError::Untrusted { at: "https://n1:1".to_owned(), why: Untrusted::OurRole };
        let untrusted = failed(Phase::Read, "n1", untrusted);
        assert_eq!(untrusted.message, "no trusted TLS connection to n1; nothing was changed");
        assert!(untrusted.hints.is_empty(), "{untrusted:?}");
        let error = io::Error::from_raw_os_error(111);
        let dead = CallError::Unreachable { at: "/run/netemctl-lab/nodes/n4/agent.sock".to_owned(), error };
        assert_eq!(failed(Phase::Read, "n4", dead).hints[0].text, "restart the agent: netemctl lab restart n4");
    }
}
