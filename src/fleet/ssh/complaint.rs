//! What ssh, sudo, a shell or the agent said before it ended, as one sentence with what to do.

use std::fmt;

use super::{Options, push};
use crate::plan::SshAddress;

/// How something ended that was to run on a host.
pub(super) struct Ended<'a> {
    /// The exit code, that of the host's command or ssh's own 255; `None`: by a signal.
    pub(super) code: Option<i32>,
    /// What came on stderr.
    pub(super) stderr: &'a str,
    /// The first of what came on stdout that is no greeting.
    pub(super) stdout: &'a str,
}

/// ssh's own failures.
const OF_SSH: i32 = 255;
/// A shell's: there is no such program, or it cannot be run.
const NOT_FOUND: i32 = 127;
const NOT_RUN: i32 = 126;

/// Why no agent can be reached by ssh.
#[derive(Debug)]
pub(super) struct Complaint {
    /// The sentence, without a full stop.
    pub(super) why: String,
    /// Whether it is the same until somebody changes something.
    pub(super) lasts: bool,
}

impl Complaint {
    pub(super) fn lasting(why: impl Into<String>) -> Self {
        Self { why: why.into(), lasts: true }
    }

    pub(super) fn passing(why: impl Into<String>) -> Self {
        Self { why: why.into(), lasts: false }
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why)
    }
}

/// What the end of what was run says.
pub(super) fn complaint(options: &Options, address: &SshAddress, ended: &Ended<'_>) -> Complaint {
    let Ended { code, stderr, .. } = ended;
    let says = |texts: &[&str]| texts.iter().any(|text| stderr.contains(text));
    let lasts = match code {
        Some(OF_SSH) => says(&[
            "REMOTE HOST IDENTIFICATION HAS CHANGED",
            "Host key verification failed",
            "Permission denied (",
            "Too many authentication failures",
        ]),
        // An agent of ours may say of itself that it cannot start at this moment.
        Some(push::LACKS | NOT_FOUND | NOT_RUN) => !says(&["error: "]),
        _ => says(&["sudo:"]),
    };
    Complaint { why: sentence(options, address, ended), lasts }
}

fn sentence(options: &Options, address: &SshAddress, ended: &Ended<'_>) -> String {
    let Ended { code, stderr, stdout } = ended;
    let says = |text: &str| stderr.contains(text);
    let to = address.destination();
    match code {
        Some(OF_SSH) if says("REMOTE HOST IDENTIFICATION HAS CHANGED") => format!(
            "its host key is not the one that is known; if it was installed anew, forget the old one with \
             ssh-keygen -R {host} and log in once with ssh {to} to check the new one",
            host = address.host()
        ),
        Some(OF_SSH) if says("Host key verification failed") => {
            format!("its host key is not known; log in once with ssh {to} and check it")
        }
        Some(OF_SSH) if says("Permission denied (") || says("Too many authentication failures") => format!(
            "ssh is not let in ({}); see that ssh -o BatchMode=yes {to} true works: give the agent a key by ssh-add, \
             or set User and IdentityFile in ~/.ssh/config",
            last_line(stderr)
        ),
        Some(OF_SSH) => match last_line(stderr) {
            "" => format!("ssh failed without a word; try ssh -v {to}"),
            why => why.to_owned(),
        },
        _ if says("sudo:") => format!(
            "{}; allow the user on the host to run netemctl by sudo without a password (NOPASSWD), or log in as root",
            line_with(stderr, "sudo:")
        ),
        Some(push::LACKS | NOT_FOUND) if !says("error: ") => {
            "there is no netemctl on the host; install it there, or copy this one there with --push".to_owned()
        }
        Some(NOT_RUN) if options.push.is_some() => format!(
            "the netemctl that was copied there does not run ({}); give --push-binary one that is built for that \
             machine, and for a folder that allows programs",
            last_line(stderr)
        ),
        // An agent of ours says what is wrong, and what to do about it.
        _ if says("error: ") => {
            let said = |prefix: &'static str| stderr.lines().filter_map(move |line| line.strip_prefix(prefix));
            said("error: ").take(1).chain(said("hint: ")).collect::<Vec<_>>().join("; ")
        }
        _ => {
            let how = code.map_or_else(|| "was killed".to_owned(), |code| format!("ended with exit code {code}"));
            let said = [last_line(stderr), last_line(stdout)].into_iter().find(|line| !line.is_empty());
            let said = said.map(|line| format!(": {line}")).unwrap_or_default();
            format!("what ssh ran there {how}{said}; it has to be netemctl {}", env!("CARGO_PKG_VERSION"))
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

    fn said(code: i32, stderr: &str) -> Complaint {
        let address = "ssh://root@n1:2222".parse().unwrap();
        complaint(&Options::default(), &address, &Ended { code: Some(code), stderr, stdout: "" })
    }

    #[test]
    fn only_what_may_change_by_itself_is_worth_another_login() {
        for (code, stderr) in [
            (255, "Permission denied (publickey)"),
            (255, "Host key verification failed."),
            (127, "not found"),
            (1, "sudo: no"),
        ] {
            assert!(said(code, stderr).lasts, "{stderr}");
        }
        for (code, stderr) in [(255, "Connection refused"), (255, ""), (8, "error: the journal is in use")] {
            assert!(!said(code, stderr).lasts, "{stderr}");
        }
    }

    #[test]
    fn each_way_to_fail_is_one_line_that_says_what_to_do() {
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
            let said = said(code, stderr).why;
            assert!(said.contains(part) && !said.contains(['\r', '\n']), "{said}");
        }
    }
}
