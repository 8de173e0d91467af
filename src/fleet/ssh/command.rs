//! The command lines: that of the user's ssh, and that of the shell on the host.

use std::{
    ffi::OsString,
    os::unix::process::CommandExt,
    process::{Command, Stdio},
};

use super::{
    Options, Target,
    push::{self, Parcel},
};
use crate::{inventory::Which, plan::SshAddress};

/// Options that hold whatever the user's config says. Nobody is there to be asked, no port is forwarded twice, nothing
/// but the agent runs, and a host that is gone is noticed.
const FIXED: [&str; 8] = [
    "BatchMode=yes",
    "ConnectTimeout=10",
    "ServerAliveInterval=5",
    "ServerAliveCountMax=3",
    "ClearAllForwardings=yes",
    "ForwardAgent=no",
    "ForwardX11=no",
    "RemoteCommand=none",
];

/// ssh, about to run `remote` on a host.
pub(super) fn ssh(options: &Options, address: &SshAddress, remote: &str) -> tokio::process::Command {
    let (program, arguments) = line(options, address, remote);
    #[expect(clippy::disallowed_methods, reason = "the user's own ssh is the transport")]
    let mut command = Command::new(program);
    command.args(arguments);
    // A group of its own: Ctrl-C is for netemctl, which has something to roll back by this very connection.
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    command.into()
}

fn line(options: &Options, address: &SshAddress, remote: &str) -> (String, Vec<OsString>) {
    // As git does: a shell reads the words, and exec leaves no shell between ssh and whoever ends it.
    let (program, mut words) = match &options.program {
        Some(program) => ("sh", vec!["-c".to_owned(), format!("exec {program} \"$@\""), "ssh".to_owned()]),
        None => ("ssh", Vec::new()),
    };
    words.push("-T".to_owned());
    words.extend(FIXED.iter().flat_map(|option| ["-o".to_owned(), (*option).to_owned()]));
    if let Some(port) = address.port() {
        words.extend(["-p".to_owned(), port.to_string()]);
    }
    if let Some(user) = address.user() {
        words.extend(["-l".to_owned(), user.to_owned()]);
    }
    words.extend(["--".to_owned(), address.host().to_owned(), remote.to_owned()]);
    (program.to_owned(), words.into_iter().map(Into::into).collect())
}

/// What the shell of the host is to run for the agent. With a parcel: that very binary wherever it is there, and else
/// nothing, with [`LACKS`](super::push::LACKS) as the exit code. Without one: what an earlier command has pushed there, or
/// what is installed.
pub(super) fn agent(options: &Options, target: &Target, parcel: Option<&Parcel>) -> String {
    let sudo = if options.sudo { "sudo -n " } else { "" };
    // Who only asks what a host is like does not say which node it is to be.
    let part = match &target.interface {
        Some(Which::Named(name)) => format!("--node {} --interface {} ", target.node, quoted(name.as_str())),
        Some(Which::InNetwork(network)) => {
            format!("--node {} --network {} ", target.node, quoted(&network.to_string()))
        }
        None => String::new(),
    };
    let change = if options.changes { "--change " } else { "" };
    // sshd sets the variable; sudo would take it away.
    let arguments = format!("agent --stdio {part}{change}--from \"$SSH_CONNECTION\"");
    let find = parcel.map_or_else(push::find_any, Parcel::find);
    in_sh(&format!("{find}exec {sudo}\"$netemctl\" {arguments}"))
}

/// A script for any login shell to give to a POSIX one.
pub(super) fn in_sh(script: &str) -> String {
    format!("exec sh -c {}", quoted(script))
}

/// One word for a shell.
pub(super) fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(options: &Options, address: &str) -> String {
        let (program, arguments) = line(options, &address.parse().unwrap(), "remote");
        let words: Vec<_> = arguments.iter().map(|word| word.to_string_lossy().into_owned()).collect();
        let fixed = FIXED.map(|option| format!("-o {option} ")).concat();
        format!("{program} {}", words.join(" ")).replace(&fixed, "FIXED ")
    }

    #[test]
    fn a_host_is_always_behind_the_end_of_the_options() {
        let options = Options::default();
        assert_eq!(words(&options, "ssh://n1"), "ssh -T FIXED -- n1 remote");
        assert_eq!(words(&options, "ssh://root@[fd78::1]:22"), "ssh -T FIXED -p 22 -l root -- fd78::1 remote");
    }

    #[test]
    fn another_ssh_with_options_is_read_by_a_shell() {
        let options = Options { program: Some("ssh -F 'my config'".to_owned()), ..Options::default() };
        assert_eq!(words(&options, "ssh://n1"), "sh -c exec ssh -F 'my config' \"$@\" ssh -T FIXED -- n1 remote");
    }

    #[test]
    fn the_shell_of_the_host_gets_words_that_it_cannot_take_for_anything_else() {
        let target = |interface: &str| Target {
            address: "ssh://n1".parse().unwrap(),
            node: "n1".parse().unwrap(),
            interface: interface.parse().ok().map(Which::Named),
        };
        let options = Options { sudo: true, changes: true, ..Options::default() };
        let command = agent(&options, &target("db0"), None);
        let expected = "exec sudo -n \"$netemctl\" agent --stdio --node n1 --interface db0 --change \
                        --from \"$SSH_CONNECTION\"'";
        assert!(command.starts_with("exec sh -c '") && command.ends_with(expected), "{command}");
        // Quoted for a POSIX shell, and once more for the login shell.
        let command = agent(&options, &target("a';id'"), None);
        assert!(command.contains(r"--interface '\''a'\''\'\'''\'';id'\''\'\'''\'''\'' --change --from"), "{command}");
    }
}
