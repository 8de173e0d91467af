//! The options for agents that are reached by ssh, from the command line and the environment.

use std::path::PathBuf;

use super::output::talk;
use crate::fleet::ssh::Options;

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "SSH options")]
pub(super) struct Ssh {
    #[arg(
        long,
        global = true,
        value_name = "COMMAND",
        help = "SSH command to run [env: NETEMCTL_SSH]",
        long_help = "SSH command to run, with its options, as a shell command [env: NETEMCTL_SSH]"
    )]
    ssh: Option<String>,

    /// Run the remote agent with sudo -n
    #[arg(long, global = true)]
    ssh_sudo: bool,

    /// Copy this netemctl to hosts that lack this build
    ///
    /// The copy is in ~/.cache/netemctl.
    #[arg(long, global = true)]
    push: bool,

    /// Copy this file instead of this netemctl
    ///
    /// Use a build for the architecture of the hosts.
    #[arg(long, global = true, value_name = "FILE")]
    push_binary: Option<PathBuf>,
}

impl Ssh {
    pub(super) fn options(self, changes: bool, is_quiet: bool) -> Options {
        let own = self.push.then(|| PathBuf::from("/proc/self/exe"));
        Options {
            // netemctl reads the variable itself: an error of clap would name the option, even if only the variable is
            // set.
            program: self.ssh.or_else(|| std::env::var("NETEMCTL_SSH").ok()).filter(|program| !program.is_empty()),
            sudo: self.ssh_sudo,
            changes,
            push: self.push_binary.or(own),
            tell: (!is_quiet).then_some(talk),
        }
    }
}
