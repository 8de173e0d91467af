//! Exit codes. They are part of the contract with whatever calls netemctl and never change their meaning.

use std::process::ExitCode;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It did what it was asked; what it says is in force is in force.
    Ok,
    /// Something failed that should not have. Unless the message says otherwise, nothing has changed.
    Failed,
    /// The command line makes no sense (clap's own code).
    Usage,
    /// A file is missing, unreadable or wrong.
    File,
    /// What is measured or in the kernel differs from what is wanted.
    Differs,
    /// What is asked cannot be done on these nodes, or an agent's guard refused; nothing has changed.
    Refused,
    /// There is no fleet, or an agent does not answer; nothing has changed.
    Unreachable,
    /// A node's kernel lacks what is needed; nothing has changed.
    Unsupported,
    /// A right is missing; nothing has changed.
    Permission,
    /// Somebody else changed the state, or the nodes do not agree on it; nothing has changed.
    Conflict,
    /// It did what it was asked, and its answer could not be written to stdout.
    Unwritten,
    /// The time that `--timeout` gave was over; nothing has changed.
    TimedOut,
    /// The program that `lab exec` was to run cannot be run.
    CannotRun,
    /// There is no such program for `lab exec` to run.
    NoProgram,
    /// Interrupted; nothing has changed.
    Interrupted,
    /// As the program did that `lab exec` has run.
    OfProgram(u8),
}

impl Exit {
    /// All of netemctl's own.
    pub const ALL: [Self; 15] = [
        Self::Ok,
        Self::Failed,
        Self::Usage,
        Self::File,
        Self::Differs,
        Self::Refused,
        Self::Unreachable,
        Self::Unsupported,
        Self::Permission,
        Self::Conflict,
        Self::Unwritten,
        Self::TimedOut,
        Self::CannotRun,
        Self::NoProgram,
        Self::Interrupted,
    ];

    /// The one that counts where nodes fail for different reasons, whatever their order: what another try does not change
    /// comes before what may pass by itself.
    pub fn of_many(exits: impl IntoIterator<Item = Self>) -> Option<Self> {
        exits.into_iter().min_by_key(|exit| match exit {
            Self::Failed => 0,
            Self::Permission => 1,
            Self::Refused => 2,
            Self::Unsupported => 3,
            Self::Unreachable => 4,
            Self::Conflict => 5,
            // No node ends with another one.
            _ => 6,
        })
    }

    /// The number that the process ends with.
    pub fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::File => 3,
            Self::Differs => 4,
            Self::Refused => 5,
            Self::Unreachable => 6,
            Self::Unsupported => 7,
            Self::Permission => 8,
            Self::Conflict => 9,
            Self::Unwritten => 10,
            // As timeout(1) has it.
            Self::TimedOut => 124,
            Self::CannotRun => 126,
            Self::NoProgram => 127,
            Self::Interrupted => 130,
            Self::OfProgram(code) => code,
        }
    }

    /// What it means, in the words of `--help` and the README.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Usage => "usage",
            Self::File => "bad file",
            Self::Differs => "differs from what is wanted",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::Unsupported => "not supported by the kernel",
            Self::Permission => "no permission",
            Self::Conflict => "conflict with another change",
            Self::Unwritten => "answer not written",
            Self::TimedOut => "timed out",
            Self::CannotRun => "cannot run the program",
            Self::NoProgram => "no such program",
            Self::Interrupted => "interrupted",
            Self::OfProgram(_) => "as the program ended",
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        exit.code().into()
    }
}

#[cfg(test)]
mod tests {
    use super::Exit::{self, Conflict, Failed, Permission, Refused, Unreachable, Unsupported};

    #[test]
    fn of_several_nodes_the_exit_code_does_not_depend_on_their_order() {
        let in_order = [Failed, Permission, Refused, Unsupported, Unreachable, Conflict];
        for (position, first) in in_order.iter().enumerate() {
            for other in &in_order[position..] {
                assert_eq!(Exit::of_many([*first, *other]), Some(*first));
                assert_eq!(Exit::of_many([*other, *first]), Some(*first));
            }
        }
        assert_eq!(Exit::of_many([]), None);
    }
}
