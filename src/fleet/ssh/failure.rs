//! Describes failures of ssh, sudo, a shell or the agent on a host in one sentence with the remedy.

use std::io;

use super::Options;
use crate::plan::SshAddress;

/// The exit code of the script `Binary::find` if the host lacks this build: `EX_UNAVAILABLE` of sysexits.h(3head). ssh,
/// sudo, shells and the agent do not use this code.
pub(super) const NO_NETEMCTL: i32 = 69;

/// The exit code of ssh if ssh itself fails (ssh(1)).
const OF_SSH: i32 = 255;
/// The exit code of a shell if a program does not exist.
const NOT_FOUND: i32 = 127;
/// The exit code of a shell if a program exists but cannot be run.
const CANNOT_RUN: i32 = 126;

/// The end of a program that ran on a host.
pub(super) struct Ended<'a> {
    /// The exit code of the command on the host; 255: ssh failed; `None`: a signal ended ssh, or ssh did not exit in
    /// time.
    pub(super) code: Option<i32>,
    pub(super) stderr: &'a str,
    /// The start of stdout. Contains no greeting of an agent (`wire::GREETING`).
    pub(super) stdout: &'a str,
}

/// An error that lasts until somebody changes a setting. The kind `PermissionDenied` marks such errors.
pub(super) fn lasting(why: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, why.into())
}

/// Translates the end of a program into an error. Errors that the agent prints may be temporary.
pub(super) fn failure(options: &Options, address: &SshAddress, ended: &Ended<'_>) -> io::Error {
    let Ended { code, stderr, stdout } = ended;
    let says = |text: &str| stderr.contains(text);
    let to = address.destination();
    match code {
        Some(OF_SSH) if says("REMOTE HOST IDENTIFICATION HAS CHANGED") => lasting(format!(
            "its host key has changed; if the host was reinstalled, remove the old key (ssh-keygen -R {host}) and log in once \
             (ssh {to}) to check the new one",
            host = address.host
        )),
        Some(OF_SSH) if says("Host key verification failed") => {
            lasting(format!("its host key is not known; log in once with ssh {to} and check it"))
        }
        Some(OF_SSH) if says("Permission denied (") || says("Too many authentication failures") => lasting(format!(
            "ssh cannot log in ({}); make ssh -o BatchMode=yes {to} true work: add a key with ssh-add, or set User and \
             IdentityFile in ~/.ssh/config",
            last_line(stderr)
        )),
        Some(OF_SSH) => io::Error::other(match last_line(stderr) {
            "" => format!("ssh failed without a message; try ssh -v {to}"),
            why => why.to_owned(),
        }),
        _ if says("sudo:") => lasting(format!(
            "{}; allow the user to run netemctl by sudo without a password (NOPASSWD), or log in as root",
            line_with(stderr, "sudo:")
        )),
        Some(NO_NETEMCTL | NOT_FOUND) if !says("error: ") => {
            lasting("there is no netemctl on the host; install it there, or copy this one there with --push")
        }
        Some(CANNOT_RUN) if options.push.is_some() => lasting(format!(
            "the copied netemctl does not run there ({}); give --push-binary a build for that machine, and allow programs \
             in that folder",
            last_line(stderr)
        )),
        // The agent prints a line `error: ...` with the error, and lines `hint: ...` with the remedy.
        _ if says("error: ") => {
            let said = |prefix: &'static str| stderr.lines().filter_map(move |line| line.strip_prefix(prefix));
            io::Error::other(said("error: ").take(1).chain(said("hint: ")).collect::<Vec<_>>().join("; "))
        }
        _ => {
            let how = code.map_or_else(|| "was killed".to_owned(), |code| format!("ended with exit code {code}"));
            let said = [last_line(stderr), last_line(stdout)].into_iter().find(|line| !line.is_empty());
            let said = said.map(|line| format!(": {line}")).unwrap_or_default();
            let version = env!("CARGO_PKG_VERSION");
            let why = format!("the program on the host {how}{said}; it has to be netemctl {version}");
            if *code == Some(CANNOT_RUN) { lasting(why) } else { io::Error::other(why) }
        }
    }
}

fn last_line(text: &str) -> &str {
    text.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default()
}

fn line_with<'a>(text: &'a str, what: &str) -> &'a str {
    text.lines().map(str::trim).find(|line| line.contains(what)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(code: i32, stderr: &str) -> io::Error {
        let address = "ssh://root@n1:2222".parse().unwrap();
        failure(&Options::default(), &address, &Ended { code: Some(code), stderr, stdout: "" })
    }

    #[test]
    fn a_failure_that_needs_a_setting_is_not_retried() {
        for (code, stderr) in [
            (255, "Permission denied (publickey)"),
            (255, "Host key verification failed."),
            (127, "not found"),
            (1, "sudo: no"),
        ] {
            assert_eq!(said(code, stderr).kind(), io::ErrorKind::PermissionDenied, "{stderr}");
        }
        for (code, stderr) in [(255, "Connection refused"), (255, ""), (8, "error: the journal is in use")] {
            assert_eq!(said(code, stderr).kind(), io::ErrorKind::Other, "{stderr}");
        }
    }

    #[test]
    fn each_failure_is_one_line_with_the_remedy() {
        let cases = [
            (255, "No ED25519 host key is known for n1.\r\nHost key verification failed.\r\n", "ssh -p 2222 root@n1"),
            (
                255,
                "@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nHost key verification failed.",
                "ssh-keygen -R n1",
            ),
            (255, "root@n1: Permission denied (publickey,password).\r\n", "root@n1: Permission denied (publickey"),
            (255, "ssh: connect to host n1 port 22: Connection refused\r\n", "n1 port 22: Connection refused"),
            (255, "", "ssh -v -p 2222 root@n1"),
            (127, "bash: line 1: exec: netemctl: not found\n", "--push"),
            (1, "sudo: a password is required\n", "NOPASSWD"),
            (8, "error: the agent lacks CAP_NET_ADMIN\nhint: run it as root\n", "CAP_NET_ADMIN; run it as root"),
            (3, "motd\nwhat?\n", "exit code 3: what?"),
        ];
        for (code, stderr, part) in cases {
            let said = said(code, stderr).to_string();
            assert!(said.contains(part) && !said.contains(['\r', '\n']), "{said}");
        }
    }
}
