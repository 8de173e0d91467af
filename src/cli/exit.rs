//! The exit codes of netemctl.
//!
//! Programs rely on them, so their meanings never change.

use std::{
    io,
    process::{ExitCode, ExitStatus},
};

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
    /// All exit codes of netemctl itself, with their meanings in the words of `--help` and the README.
    pub const ALL: [(Self, u8, &str); 15] = [
        (Self::Ok, 0, "ok"),
        (Self::Failed, 1, "failed"),
        (Self::Usage, 2, "usage"),
        (Self::File, 3, "bad file"),
        (Self::Differs, 4, "differs from what is wanted"),
        (Self::Refused, 5, "refused"),
        (Self::Unreachable, 6, "unreachable"),
        (Self::Unsupported, 7, "not supported by the kernel"),
        (Self::Permission, 8, "no permission"),
        (Self::Conflict, 9, "conflict with another change"),
        (Self::Unwritten, 10, "answer not written"),
        // timeout(1) uses the same code.
        (Self::TimedOut, 124, "timed out"),
        (Self::CannotRun, 126, "cannot run the program"),
        (Self::NoProgram, 127, "no such program"),
        (Self::Interrupted, 130, "interrupted"),
    ];

    /// The exit code of a command whose nodes fail for different reasons.
    ///
    /// The order of the nodes does not matter. A permanent failure takes precedence over a temporary failure.
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
        let known = || Self::ALL.into_iter().find(|(exit, ..)| *exit == self);
        match self {
            Self::OfProgram(code) => code,
            _ => known().map_or(1, |(_, code, _)| code),
        }
    }

    /// The exit code of a failed system call.
    pub(super) fn of_io(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::PermissionDenied { Self::Permission } else { Self::Failed }
    }

    /// The exit code of another netemctl; an unknown code, or the end by a signal, is a failure.
    pub(super) fn of_netemctl(status: ExitStatus) -> Self {
        let known = Self::ALL.into_iter().find(|(_, code, _)| status.code() == Some(i32::from(*code)));
        known.map_or(Self::Failed, |(exit, ..)| exit)
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
