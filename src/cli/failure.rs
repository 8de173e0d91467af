//! Why a command failed, in one place: the exit code, the sentence, what to do about it.

use std::{collections::BTreeMap, fmt::Display};

use serde::Serialize;

use super::Exit;
use crate::{
    fleet::{CallError, Phase, TransactionError},
    lab::{KeepError, LabError, LayoutError},
    plan::EditError,
    topology::{NodeName, Problem, Rejected},
    wire::ErrorCode,
};

/// A failed command.
#[derive(Debug, Serialize)]
pub(super) struct Failure {
    #[serde(skip)]
    pub(super) exit: Exit,
    /// The sentence, without a full stop.
    pub(super) message: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) hints: Vec<String>,
    /// What each node said.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) nodes: BTreeMap<NodeName, String>,
    /// What is wrong with a file.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) problems: Vec<Problem>,
    /// The same for people, in place of the message.
    #[serde(skip)]
    pub(super) rejected: Option<Box<Rejected>>,
}

impl Failure {
    pub(super) fn new(exit: Exit, message: impl Display) -> Self {
        Self {
            exit,
            message: message.to_string(),
            hints: Vec::new(),
            nodes: BTreeMap::new(),
            problems: Vec::new(),
            rejected: None,
        }
    }

    pub(super) fn hint(mut self, hint: impl Display) -> Self {
        self.hints.push(hint.to_string());
        self
    }
}

impl From<Rejected> for Failure {
    fn from(rejected: Rejected) -> Self {
        Self {
            problems: rejected.problems().to_vec(),
            rejected: Some(Box::new(rejected.clone())),
            ..Self::new(Exit::File, rejected.summary())
        }
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

impl From<LabError> for Failure {
    fn from(error: LabError) -> Self {
        match &error {
            LabError::Down => Self::new(Exit::Unreachable, error).hint("bring one up: netemctl lab up TOPOLOGY"),
            LabError::Up(_) => Self::new(Exit::Conflict, error).hint("take it down first: netemctl lab down"),
            LabError::Busy | LabError::Stuck(_) => Self::new(Exit::Conflict, error),
            LabError::Directory { error: cause, .. } if cause.kind() == std::io::ErrorKind::PermissionDenied => {
                Self::new(Exit::Permission, error).hint("choose a directory of your own with --lab-dir")
            }
            LabError::Directory { .. } => Self::new(Exit::Failed, error),
            LabError::NotALab(_) | LabError::NotADirectory(_) | LabError::NotOurs(_) => {
                Self::new(Exit::Refused, error).hint("choose another directory with --lab-dir")
            }
            LabError::NoController => {
                Self::new(Exit::Usage, error).hint("bring one up that has: netemctl lab up TOPOLOGY --controller")
            }
            LabError::TooLong(_) | LabError::NoNode { .. } => Self::new(Exit::Usage, error),
        }
    }
}

impl From<TransactionError> for Failure {
    fn from(error: TransactionError) -> Self {
        let message = error.to_string();
        match error {
            TransactionError::Edit(error) => error.into(),
            TransactionError::Disagreement(_) => Self::new(Exit::Conflict, message)
                .hint("bring them in line: netemctl apply TOPOLOGY, or netemctl clear"),
            TransactionError::Interrupted => Self::new(Exit::Interrupted, message),
            TransactionError::Nodes { phase, failures, stuck } => of_nodes(phase, &failures, &stuck),
        }
    }
}

impl From<EditError> for Failure {
    fn from(error: EditError) -> Self {
        match &error {
            EditError::UnknownName(_)
            | EditError::Overlay(_)
            | EditError::Partition(_)
            | EditError::NoSuchPartition { .. } => Self::new(Exit::Usage, error),
            EditError::Homeless { .. } => Self::new(Exit::Refused, error).hint(
                "a lab has the nodes of the topology that it was brought up with (netemctl lab down, then lab up), an inventory \
                 those that it names",
            ),
            EditError::Inventory(_) | EditError::NameTaken(_) => Self::new(Exit::Refused, error),
        }
    }
}

fn of_nodes(phase: Phase, failures: &BTreeMap<NodeName, CallError>, stuck: &BTreeMap<NodeName, CallError>) -> Failure {
    let names = |nodes: &BTreeMap<NodeName, CallError>| {
        crate::topology::hostlist::fold(&nodes.keys().cloned().collect::<Vec<_>>())
    };
    let (what, fate) = match phase {
        Phase::Read => ("could not be asked", "nothing was changed"),
        Phase::Prepare => ("cannot do this", "nothing was changed on any node"),
        Phase::Commit if stuck.is_empty() => ("failed", "every node is as it was"),
        Phase::Commit => ("failed", "some nodes could not go back to what they had"),
    };
    let exit = failures.values().map(exit_of).next().unwrap_or(Exit::Failed);
    let mut failure = if failures.is_empty() {
        Failure::new(Exit::Failed, format!("interrupted, and {fate}: {}", names(stuck)))
    } else {
        Failure::new(exit, format!("{} {what}; {fate}", names(failures)))
    };
    let said = failures.iter().chain(stuck).map(|(node, error)| (node.clone(), error.to_string()));
    failure.nodes = said.collect();
    if !stuck.is_empty() {
        failure.exit = Exit::Failed;
        failure = failure.hint("look at netemctl status, then bring all nodes in line with netemctl apply or clear");
    } else if exit == Exit::Unreachable {
        failure = failure.hint("see which agents live: netemctl status");
    }
    failure
}

fn exit_of(error: &CallError) -> Exit {
    match error {
        CallError::Refused(error) => match error.code {
            ErrorCode::BadRequest | ErrorCode::Failed | ErrorCode::Broken => Exit::Failed,
            ErrorCode::Refused => Exit::Refused,
            ErrorCode::Unsupported => Exit::Unsupported,
            ErrorCode::Permission => Exit::Permission,
            ErrorCode::Conflict => Exit::Conflict,
        },
        CallError::Untrusted { .. } | CallError::NoIdentity { .. } => Exit::Permission,
        CallError::Unreachable { .. } | CallError::HungUp { .. } | CallError::TimedOut { .. } => Exit::Unreachable,
        CallError::Garbled { .. } => Exit::Failed,
    }
}
