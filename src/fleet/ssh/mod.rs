//! Calls agents by ssh. The host needs no agent that runs as a service. The user's own `ssh` runs `netemctl agent
//! --stdio`, which speaks the agent's HTTP on its stdin and stdout.
//!
//! An ssh process may stay open for the next call, at the longest until the [`Fleet`](super::Fleet) is dropped.
//! Concurrent calls to a host use one process each. When the fleet is dropped or this process is killed, stdin closes,
//! and ssh and `agent --stdio` end. netemctl creates no control socket (`ControlPath` of `ssh_config(5)`).

mod command;
mod failure;
mod process;
mod push;
mod session;

use std::{io, path::PathBuf};

use tokio::sync::{OnceCell, Semaphore};

use self::{failure::NO_NETEMCTL, push::Binary, session::Session};
use super::transport::Transport;
use crate::{inventory::InterfaceSelector, plan::SshAddress, topology::NodeName};

/// The largest number of concurrent logins. Nodes may share a jump host. The jump host's sshd refuses some logins when
/// ten are under way (`MaxStartups` of `sshd_config`).
const LOGINS_AT_ONCE: usize = 8;

/// The options of ssh.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The command in place of `ssh`, read by a shell, like git's `GIT_SSH_COMMAND`; `None`: `ssh`.
    pub program: Option<String>,
    /// True to run the agent by `sudo -n`, for a user who may not configure interfaces.
    pub sudo: bool,
    /// True if the netemctl command changes nodes; false if the command only reads.
    pub changes: bool,
    /// The netemctl binary to copy to hosts that lack this build; `None`: no copies, hosts must have netemctl already.
    pub push: Option<PathBuf>,
    /// The function that prints a line about each copy; `None`: nothing is printed.
    pub tell: Option<fn(&str)>,
}

/// The ssh transport to one node's agent.
pub(super) struct Ssh<'a> {
    pub(super) hosts: &'a Hosts,
    pub(super) target: Target,
}

/// The host of one node.
pub(super) struct Target {
    pub(super) address: SshAddress,
    pub(super) node: NodeName,
    /// The interface that the agent may shape; `None`: the agent is only asked about its host.
    pub(super) interface: Option<InterfaceSelector>,
}

/// The state that all ssh connections of a fleet share.
#[derive(Debug)]
pub(super) struct Hosts {
    options: Options,
    logins: Semaphore,
    /// The binary to copy, read once.
    binary: OnceCell<Binary>,
}

impl Hosts {
    pub(super) fn new(options: Options) -> Self {
        Self { options, logins: Semaphore::new(LOGINS_AT_ONCE), binary: OnceCell::new() }
    }
}

impl Transport for Ssh<'_> {
    type Stream = Session;

    /// The stdin, stdout and stderr of ssh.
    const FILES: u32 = 3;

    const IS_LOGIN: bool = true;

    /// Logs in. With [`Options::push`], copies the binary to a host that lacks it, and logs in again.
    async fn connect(&self) -> io::Result<Session> {
        let (Self { target, .. }, Hosts { options, logins, binary }) = (self, self.hosts);
        let _permit = logins.acquire().await.map_err(io::Error::other)?;
        let Some(file) = &options.push else {
            return session::open(options, target, &push::find_any()).await.map_err(|failed| failed.error);
        };
        let binary = binary.get_or_try_init(|| Binary::read(file.clone())).await?;
        let find = binary.find();
        match session::open(options, target, &find).await {
            Err(failed) if failed.code == Some(NO_NETEMCTL) => {}
            opened => return opened.map_err(|failed| failed.error),
        }
        binary.send(options, &target.address).await?;
        session::open(options, target, &find).await.map_err(|failed| match failed.code {
            Some(NO_NETEMCTL) => failure::lasting("the netemctl that was copied to the host is gone"),
            _ => failed.error,
        })
    }

    fn address(&self) -> String {
        self.target.address.to_string()
    }
}
