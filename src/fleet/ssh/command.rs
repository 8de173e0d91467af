//! The command lines of the user's ssh on this machine and of the shell on the host.

use std::{
    ffi::OsString,
    os::unix::process::CommandExt,
    process::{Command, Stdio},
};

use super::{Options, Target};
use crate::{inventory::InterfaceSelector, plan::SshAddress};

/// Options that override the user's config. They forbid prompts, forwarding and the user's `RemoteCommand`, and detect
/// a dead host.
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

/// The command that runs `remote` on a host by ssh.
pub(super) fn ssh(options: &Options, address: &SshAddress, remote: &str) -> tokio::process::Command {
    let (program, arguments) = line(options, address, remote);
    #[expect(clippy::disallowed_methods, reason = "the user's own ssh is the transport")]
    let mut command = Command::new(program);
    command.args(arguments);
    // A process group of its own: Ctrl-C must not end ssh, because netemctl rolls back over this connection.
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    command.into()
}

fn line(options: &Options, address: &SshAddress, remote: &str) -> (String, Vec<OsString>) {
    // A shell splits `program` into words, like git's GIT_SSH_COMMAND. `exec` replaces the shell by ssh.
    let (program, mut words) = match &options.program {
        Some(program) => ("sh", vec!["-c".to_owned(), format!("exec {program} \"$@\""), "ssh".to_owned()]),
        None => ("ssh", Vec::new()),
    };
    words.push("-T".to_owned());
    words.extend(FIXED.iter().flat_map(|option| ["-o".to_owned(), (*option).to_owned()]));
    if let Some(port) = address.port {
        words.extend(["-p".to_owned(), port.to_string()]);
    }
    if let Some(user) = &address.user {
        words.extend(["-l".to_owned(), user.to_owned()]);
    }
    words.extend(["--".to_owned(), address.host.clone(), remote.to_owned()]);
    (program.to_owned(), words.into_iter().map(Into::into).collect())
}

/// The command line of the agent on the host. The script `find` sets the shell variable `netemctl` to the binary.
pub(super) fn agent(options: &Options, target: &Target, find: &str) -> String {
    let sudo = if options.sudo { "sudo -n " } else { "" };
    // A call that only asks about the host needs neither a node nor an interface.
    let interface = match &target.interface {
        Some(InterfaceSelector::Named(name)) => {
            format!("--node {} --interface {} ", target.node, quoted(name.as_str()))
        }
        Some(InterfaceSelector::InNetwork(network)) => {
            format!("--node {} --network {} ", target.node, quoted(&network.to_string()))
        }
        None => String::new(),
    };
    let change = if options.changes { "--change " } else { "" };
    // sshd sets SSH_CONNECTION. sudo removes the variable, so the value is an argument.
    let arguments = format!("agent --stdio {interface}{change}--from \"$SSH_CONNECTION\"");
    in_sh(&format!("{find}exec {sudo}\"$netemctl\" {arguments}"))
}

/// The command line that runs a script in a POSIX shell. Any login shell can run this command line.
pub(super) fn in_sh(script: &str) -> String {
    format!("exec sh -c {}", quoted(script))
}

/// Quotes one word for a shell. Quoting fails only on a NUL byte, and no word here contains one.
fn quoted(word: &str) -> String {
    shlex::try_quote(word).map(Into::into).unwrap_or_default()
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
    fn a_host_name_is_never_read_as_an_option() {
        let options = Options::default();
        assert_eq!(words(&options, "ssh://n1"), "ssh -T FIXED -- n1 remote");
        assert_eq!(words(&options, "ssh://root@[fd78::1]:22"), "ssh -T FIXED -p 22 -l root -- fd78::1 remote");
    }

    #[test]
    fn a_custom_ssh_command_is_read_by_a_shell() {
        let options = Options { program: Some("ssh -F 'my config'".to_owned()), ..Options::default() };
        assert_eq!(words(&options, "ssh://n1"), "sh -c exec ssh -F 'my config' \"$@\" ssh -T FIXED -- n1 remote");
    }

    #[test]
    fn an_interface_name_with_quotes_stays_one_word_on_the_host() {
        let target = |interface: &str| Target {
            address: "ssh://n1".parse().unwrap(),
            node: "n1".parse().unwrap(),
            interface: interface.parse().ok().map(InterfaceSelector::Named),
        };
        let options = Options { sudo: true, changes: true, ..Options::default() };
        let command = |interface: &str| agent(&options, &target(interface), "");
        let expected = "exec sudo -n \"$netemctl\" agent --stdio --node n1 --interface db0 --change \
                        --from \"$SSH_CONNECTION\"'";
        assert!(command("db0").starts_with("exec sh -c '") && command("db0").ends_with(expected), "{}", command("db0"));
        // The login shell reads the script as one word. The POSIX shell reads the interface as one word of the script.
        let words = shlex::split(&command("a';id'")).unwrap();
        assert_eq!(words.len(), 4, "{words:?}");
        let script = shlex::split(&words[3]).unwrap();
        assert!(script.windows(2).any(|pair| pair == ["--interface", "a';id'"]), "{script:?}");
    }
}
