//! How agents are reached by ssh, as the command line and the environment say.

use std::path::PathBuf;

use super::output::talk;
use crate::fleet::ssh::Options;

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Agents by ssh")]
pub(super) struct Ssh {
    #[arg(
        long,
        global = true,
        value_name = "COMMAND",
        help = "The ssh to run, with options if need be: a command for the shell [env: NETEMCTL_SSH]"
    )]
    ssh: Option<String>,

    /// Run the agent there by sudo -n
    #[arg(long, global = true)]
    ssh_sudo: bool,

    /// Copy this netemctl to hosts that have none or another build of it, to ~/.cache/netemctl
    #[arg(long, global = true)]
    push: bool,

    /// The same with another file, such as a static binary or one for the machines there
    #[arg(long, global = true, value_name = "FILE")]
    push_binary: Option<PathBuf>,
}

impl Ssh {
    pub(super) fn options(self, changes: bool, is_quiet: bool) -> Options {
        let own = self.push.then(|| PathBuf::from("/proc/self/exe"));
        Options {
            // Read here, since clap would show the variable as if it were given on the command line.
            program: self.ssh.or_else(|| std::env::var("NETEMCTL_SSH").ok()).filter(|program| !program.is_empty()),
            sudo: self.ssh_sudo,
            changes,
            push: self.push_binary.or(own),
            tell: (!is_quiet).then_some(talk),
        }
    }
}
