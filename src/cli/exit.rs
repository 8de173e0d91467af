//! The exit codes of netemctl.
//!
//! Programs rely on them, so their meanings never change.

use std::process::ExitCode;

/// The outcome of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The command succeeded.
    ///
    /// The state that it prints as in force is in force.
    Ok,
    /// An unexpected failure.
    ///
    /// Nothing has changed, unless the message says otherwise.
    Failed,
    /// The command line is invalid. clap uses the same code.
    Usage,
    /// A file is missing, unreadable or invalid.
    File,
    /// A measurement or a kernel's state differs from the wanted state.
    Differs,
    /// These nodes cannot make the change, or an agent refused the change; nothing has changed.
    Refused,
    /// There is no inventory and no lab, or an agent does not answer; nothing has changed.
    Unreachable,
    /// A node's kernel lacks a needed feature; nothing has changed.
    Unsupported,
    /// A permission is missing; nothing has changed.
    Permission,
    /// Another command changed the state, or the nodes do not agree on the state; nothing has changed.
    Conflict,
    /// The command succeeded, but its answer could not be written to stdout.
    Unwritten,
    /// The time of `--timeout` expired; nothing has changed.
    TimedOut,
    /// `lab exec` cannot run the program.
    CannotRun,
    /// The program of `lab exec` does not exist.
    NoProgram,
    /// The command was interrupted; nothing has changed.
    Interrupted,
    /// The exit code of the program that `lab exec` ran.
    OfProgram(u8),
}

impl Exit {
    /// All exit codes of netemctl itself, without those of programs.
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

    /// The exit code of a command whose nodes fail for different reasons.
    ///
    /// The order of the nodes does not matter. A failure that stays at a retry takes precedence over a failure that may
    /// pass by itself.
    pub fn of_many(exits: impl IntoIterator<Item = Self>) -> Option<Self> {
        exits.into_iter().min_by_key(|exit| match exit {
            Self::Failed => 0,
            Self::Permission => 1,
            Self::Refused => 2,
            Self::Unsupported => 3,
            Self::Unreachable => 4,
            Self::Conflict => 5,
            // The failures of nodes have no other exit codes.
            _ => 6,
        })
    }

    /// The exit code of the process, as a number.
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
            // timeout(1) uses the same code.
            Self::TimedOut => 124,
            Self::CannotRun => 126,
            Self::NoProgram => 127,
            Self::Interrupted => 130,
            Self::OfProgram(code) => code,
        }
    }

    /// The meaning of the exit code, in the words of `--help` and the README.
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
    fn the_exit_code_of_several_nodes_does_not_depend_on_their_order() {
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
