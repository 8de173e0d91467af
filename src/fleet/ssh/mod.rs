//! Agents by ssh, with no daemon on the host: the user's own `ssh` runs `netemctl agent --stdio` there, which speaks
//! the agent's HTTP on its stdin and stdout.
//!
//! One ssh process a host is kept as long as the [`Fleet`](super::Fleet) lives, and used for one call after the other;
//! where two are made at once, there is a second one for the moment. When the fleet ends, and also when this process is
//! killed, their stdin closes, and ssh and what it has started on the host end by themselves. Nothing is left to find
//! again, such as a control socket.

mod command;
mod complaint;
mod push;
mod session;

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    sync::{OnceCell, Semaphore},
    time::timeout,
};

use self::{
    complaint::Complaint,
    push::Parcel,
    session::{NotReady, Process},
};
use super::{
    CallError,
    connection::{Connection, Idle},
    files::{Files, Share},
};
use crate::{inventory::Which, plan::SshAddress, topology::NodeName, wire::Call};

/// How long ssh may take from its start until the agent there is ready, the copying of the binary apart.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// How many logins are under way at once. One host is asked once, but a jump host is for all that are behind it, and
/// its sshd refuses some logins when ten are under way (`MaxStartups`).
const LOGINS_AT_ONCE: usize = 8;

/// How many files an ssh takes: its stdin, stdout and stderr.
const FILES: u32 = 3;

/// How agents are reached by ssh.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// What is run in place of `ssh`, with options, if any: a command for the shell, as git has it in `GIT_SSH_COMMAND`.
    pub program: Option<String>,
    /// Whether the agent is run by `sudo -n` there, as the user that ssh is on the host cannot shape.
    pub sudo: bool,
    /// Whether something is to be changed.
    pub changes: bool,
    /// The binary to copy to hosts that do not have that very one; `None`: hosts have to have netemctl.
    pub push: Option<PathBuf>,
    /// Who is told what is done beside what was asked for: the copying.
    pub tell: Option<fn(&str)>,
}

/// Whom to ask by ssh.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Target {
    /// Where.
    pub(super) address: SshAddress,
    /// Which node that host is to be.
    pub(super) node: NodeName,
    /// The interface that it may shape; `None`: it is only asked about its host.
    pub(super) interface: Option<Which>,
}

/// The hosts, with the connections that are kept.
#[derive(Debug)]
pub(super) struct Hosts {
    options: Options,
    idle: Idle<Target, (Process, Share)>,
    logins: Semaphore,
    /// What is to be copied, read once.
    parcel: OnceCell<Arc<Parcel>>,
}

impl Hosts {
    /// Nobody is called yet.
    pub(super) fn new(options: Options, files: Files) -> Self {
        let logins = Semaphore::new(LOGINS_AT_ONCE);
        Self { options, idle: Idle::new(files), logins, parcel: OnceCell::new() }
    }

    /// Makes one call. The agent has `after` to answer once the connection is there.
    pub(super) async fn call<C: Call>(
        &self,
        target: &Target,
        body: Vec<u8>,
        after: Duration,
    ) -> Result<C::Reply, CallError> {
        let at = target.address.to_string();
        let connection = match self.idle.take(target).await {
            Some(connection) => connection,
            None => self.open(target).await?,
        };
        let exchange = self.idle.exchange::<C>(target, connection, &at, body.into());
        timeout(after, exchange).await.unwrap_or_else(|_| Err(CallError::TimedOut { at: at.clone(), after }))
    }

    /// Logs in, and copies the binary first if it is to be there and is not.
    async fn open(&self, target: &Target) -> Result<Connection<(Process, Share)>, CallError> {
        let at = target.address.to_string();
        let unreachable = |Complaint { why, lasts }: Complaint| {
            let at = at.clone();
            if lasts {
                CallError::Barred { at, why }
            } else {
                CallError::Unreachable { at, error: io::Error::other(why) }
            }
        };
        let not_ready = |failed: NotReady<'_>| match failed {
            NotReady::Failed(complaint) => unreachable(complaint),
            lacks @ NotReady::Lacks(_) => unreachable(Complaint::lasting(lacks.to_string())),
        };
        // Closed only with the hosts themselves.
        let permit = self.logins.acquire().await;
        let _permit = permit.map_err(|error| unreachable(Complaint::lasting(error.to_string())))?;
        let parcel = self.parcel().await.map_err(|why| unreachable(Complaint::lasting(why)))?;
        let (options, parcel) = (&self.options, parcel.as_deref());
        let share = self.idle.files.take(FILES).await;
        let first = session::open(options, target, parcel, READY_WITHIN, share).await;
        let Err(NotReady::Lacks(parcel)) = first else {
            return first.map_err(not_ready);
        };
        parcel.send(options, &target.address).await.map_err(unreachable)?;
        let share = self.idle.files.take(FILES).await;
        let again = session::open(options, target, Some(parcel), READY_WITHIN, share).await;
        again.map_err(not_ready)
    }

    async fn parcel(&self) -> Result<Option<Arc<Parcel>>, String> {
        let Some(file) = &self.options.push else { return Ok(None) };
        self.parcel.get_or_try_init(|| Parcel::read(file.clone())).await.map(|parcel| Some(Arc::clone(parcel)))
    }
}
