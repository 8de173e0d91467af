//! [`Context`]: the global options that every command gets, the time limit, and the access to agents.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::{Exit, Failure, inventory_in_use::InventoryArgument, output::JsonForm, pki};
use crate::{
    fleet::{Access, CALL_TIMEOUT, Fleet, Timeouts, ssh},
    inventory::Contact,
    lab::{Lab, LabDirectory, LabError},
    pki::{Identity, Role, TlsFiles, store::Store},
    plan::{AgentAddress, Inventory},
    topology::NodeName,
};

/// The maximum time reserved for printing: calls to agents end this long before the command's time limit.
const TO_PRINT: Duration = Duration::from_millis(500);

#[derive(Clone, Default)]
pub(super) struct Context {
    pub(super) json: Option<JsonForm>,
    pub(super) lab_dir: Option<PathBuf>,
    /// The options for agents on other hosts.
    pub(super) ssh: ssh::Options,
    pub(super) tls_dir: Option<PathBuf>,
    /// The inventory file of the command line or the environment.
    pub(super) inventory: Option<InventoryArgument>,
    pub(super) deadline: Option<Deadline>,
    /// True once the timeout no longer ends the process immediately: see [`Context::settle`].
    pub(super) settled: Arc<Mutex<bool>>,
    /// True if the timeout interrupted the command.
    pub(super) timed_out: Arc<AtomicBool>,
}

/// The agents of a fleet.
pub(super) enum Agents {
    /// The agents of an inventory.
    Placed(Inventory),
    /// Agents whose interfaces and addresses are unknown.
    Unplaced(BTreeMap<NodeName, Contact>),
}

impl Agents {
    fn are_reached_by_https(&self) -> bool {
        let is_https = |agent: &AgentAddress| matches!(agent, AgentAddress::Https(_));
        match self {
            Self::Placed(inventory) => inventory.nodes.values().any(|place| is_https(&place.agent)),
            Self::Unplaced(contacts) => contacts.values().any(|contact| is_https(&contact.agent)),
        }
    }
}

/// The end of the command's time, from `--timeout`.
#[derive(Clone)]
pub(super) struct Deadline {
    given: Duration,
    pub(super) at: Instant,
}

impl Deadline {
    pub(super) fn after(given: Duration) -> Self {
        Self { given, at: Instant::now() + given }
    }

    pub(super) fn left(&self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }

    pub(super) fn says(&self) -> String {
        format!("timed out after {} s", self.given.as_secs_f64())
    }
}

impl Context {
    /// True if the command has a time limit.
    pub(super) fn is_limited(&self) -> bool {
        self.deadline.is_some()
    }

    /// The time limits of calls to agents. They leave time to print the answers.
    pub(super) fn timeouts(&self) -> Timeouts {
        let deadline = self.deadline.as_ref().map(|deadline| {
            let left = deadline.left();
            Instant::now() + left.saturating_sub((left / 4).min(TO_PRINT))
        });
        Timeouts { answer: CALL_TIMEOUT, deadline }
    }

    /// Fails if `what` takes longer than the time that is left.
    pub(super) fn check_time_for(&self, what: &str, takes: Duration) -> Result<(), Failure> {
        match &self.deadline {
            Some(deadline) if deadline.left() < takes => Err(Failure::new(
                Exit::TimedOut,
                format!(
                    "{what} takes {:.1} s, and --timeout leaves {:.1} s",
                    takes.as_secs_f64(),
                    deadline.left().as_secs_f64()
                ),
            )),
            _ => Ok(()),
        }
    }

    /// True with `--json`.
    pub(super) fn is_json(&self) -> bool {
        self.json.is_some()
    }

    /// The directory of the lab.
    pub(super) fn lab_directory(&self) -> Result<LabDirectory, Failure> {
        Ok(LabDirectory::of_user(self.lab_dir.clone())?)
    }

    /// The lab that is up.
    pub(super) fn lab(&self) -> Result<Lab, Failure> {
        let directory = self.lab_directory()?;
        match directory.find() {
            Err(error @ LabError::Down) if directory.has_orphans() => {
                Err(Failure::new(Exit::Unreachable, error).hint("clean up: netemctl lab down"))
            }
            found => Ok(found?),
        }
    }

    /// The certificate of `--tls-dir`: a folder as `netemctl pki issue` makes it.
    pub(super) fn tls_files(&self) -> Option<TlsFiles> {
        self.tls_dir.as_deref().map(TlsFiles::in_folder)
    }

    /// Makes the fleet of a command, with the certificate and the ssh options for its agents.
    pub(super) fn fleet_of(&self, agents: Agents, tls: Option<&TlsFiles>) -> Result<Fleet, Failure> {
        let tls = if agents.are_reached_by_https() { self.identity(tls)? } else { None };
        let access = Access { tls, ssh: self.ssh.clone() };
        allow_many_files();
        Ok(match agents {
            Agents::Placed(inventory) => Fleet::new(inventory, access),
            Agents::Unplaced(agents) => Fleet::of_agents(agents, access),
        })
    }

    /// The controller's identity for HTTPS. `None`: the controller has no certificate.
    fn identity(&self, tls: Option<&TlsFiles>) -> Result<Option<Arc<Identity>>, Failure> {
        let Some(files) = self.certificate(tls) else { return Ok(None) };
        Ok(Some(Arc::new(Identity::read(&files)?.require_role(&Role::Controller, &files.cert)?)))
    }

    /// The controller's certificate for HTTPS: of `--tls-dir`, else of the inventory, else of the user's PKI folder.
    pub(super) fn certificate(&self, tls: Option<&TlsFiles>) -> Option<TlsFiles> {
        let of_user = || {
            let folder = Store::at(pki::folder(None).ok()?).folder(&Role::Controller);
            folder.exists().then(|| TlsFiles::in_folder(&folder))
        };
        self.tls_files().or_else(|| tls.cloned()).or_else(of_user)
    }

    /// The failure, with the timeout as its cause if the timeout interrupted the command.
    pub(super) fn with_timeout_as_cause(&self, failure: Failure) -> Failure {
        if self.has_timed_out() { failure.of_timeout(&self.why_interrupted()) } else { failure }
    }

    /// The reason for the interruption, as the beginning of a sentence.
    pub(super) fn why_interrupted(&self) -> String {
        match &self.deadline {
            Some(deadline) if self.has_timed_out() => deadline.says(),
            _ => "interrupted".to_owned(),
        }
    }

    fn has_timed_out(&self) -> bool {
        self.timed_out.load(Ordering::Relaxed)
    }
}

/// Raises the soft limit of open files to the hard limit (getrlimit(2)).
///
/// Each agent needs one open file, or three by ssh. Each node of a lab needs four in the keeper. The soft limit is
/// 1,024 on most systems, for programs that use select(2).
pub(super) fn allow_many_files() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        // A failure is harmless: large fleets then use fewer connections at a time.
        let _refused = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}
