//! What every verb needs: how to print, where the fleet is, how long it may take.

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

use super::{
    Exit, Failure,
    output::JsonForm,
    pki,
    whereabouts::{Given, Whereabouts, nowhere},
};
use crate::{
    fleet::{Access, CALL_TIMEOUT, Fleet, Timeouts, ssh},
    inventory::Contact,
    lab::{Lab, LabDirectory},
    pki::{Identity, Role, TlsFiles, store::Store},
    plan::{AgentAddress, Inventory},
    topology::{NodeName, Topology},
};

/// How much earlier than the whole command a question to the agents is over at the most, so that what they said is still
/// printed.
const TO_PRINT: Duration = Duration::from_millis(500);

#[derive(Clone)]
pub(super) struct Context {
    pub(super) json: Option<JsonForm>,
    lab_dir: Option<PathBuf>,
    ssh: ssh::Options,
    tls_dir: Option<PathBuf>,
    inventory: Option<Given>,
    pub(super) deadline: Option<Deadline>,
    /// Whether the end of the time is no reason any more to end on the spot.
    pub(super) settled: Arc<Mutex<bool>>,
    /// Whether it was the end of the time that has interrupted something.
    pub(super) timed_out: Arc<AtomicBool>,
}

/// Agents to talk to.
pub(super) enum Agents {
    /// Those of an inventory.
    Placed(Inventory),
    /// Those whose interfaces and addresses are not known.
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

/// When the whole command has to be over.
#[derive(Clone)]
pub(super) struct Deadline {
    given: Duration,
    pub(super) at: Instant,
}

impl Deadline {
    pub(super) fn left(&self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }

    pub(super) fn says(&self) -> String {
        format!("timed out after {} s", self.given.as_secs_f64())
    }
}

impl Context {
    pub(super) fn new(json: Option<JsonForm>, lab_dir: Option<PathBuf>, timeout: Option<Duration>) -> Self {
        let deadline = timeout.map(|given| Deadline { given, at: Instant::now() + given });
        Self {
            json,
            lab_dir,
            ssh: ssh::Options::default(),
            tls_dir: None,
            inventory: None,
            deadline,
            settled: Arc::default(),
            timed_out: Arc::default(),
        }
    }

    /// With what it takes to reach agents elsewhere.
    pub(super) fn with_access(self, ssh: ssh::Options, tls_dir: Option<PathBuf>) -> Self {
        Self { ssh, tls_dir, ..self }
    }

    /// With the inventory file that is given on the command line or in the environment.
    pub(super) fn with_inventory(self, inventory: Option<Given>) -> Self {
        Self { inventory, ..self }
    }

    /// Whether the command has a time limit.
    pub(super) fn is_limited(&self) -> bool {
        self.deadline.is_some()
    }

    /// How long agents may take to answer a question, so that there is an answer before the time is up.
    pub(super) fn patience(&self) -> Timeouts {
        let deadline = self.deadline.as_ref().map(|deadline| {
            let left = deadline.left();
            Instant::now() + left.saturating_sub((left / 4).min(TO_PRINT))
        });
        Timeouts { answer: CALL_TIMEOUT, deadline }
    }

    /// Fails at once if something takes longer than there is time.
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

    /// Whether the answer is for a program.
    pub(super) fn is_json(&self) -> bool {
        self.json.is_some()
    }

    /// The directory of the lab.
    pub(super) fn lab_directory(&self) -> Result<LabDirectory, Failure> {
        Ok(LabDirectory::of_user(self.lab_dir.clone())?)
    }

    /// The lab that is up.
    pub(super) fn lab(&self) -> Result<Lab, Failure> {
        Ok(self.lab_directory()?.find()?)
    }

    /// Where the nodes are, as the first of these says: the file given, the topology's own table, the lab.
    pub(super) fn whereabouts(&self, topology: Option<&Topology>) -> Result<Whereabouts, Failure> {
        self.whereabouts_if_any(topology)?.ok_or_else(nowhere)
    }

    /// The same; `None`: nothing says where the nodes are.
    pub(super) fn whereabouts_if_any(&self, topology: Option<&Topology>) -> Result<Option<Whereabouts>, Failure> {
        let found = self.find_nodes(topology)?;
        if let Some(whereabouts) = &found {
            self.mention(whereabouts.file.warnings());
        }
        Ok(found)
    }

    /// The same, without a word of what is probably not meant there.
    pub(super) fn find_nodes(&self, topology: Option<&Topology>) -> Result<Option<Whereabouts>, Failure> {
        Whereabouts::find(self.inventory.as_ref(), topology, || Ok(self.lab_directory()?.find()))
    }

    /// The fleet to talk to.
    pub(super) fn fleet(&self) -> Result<Fleet, Failure> {
        self.whereabouts(None)?.fleet(self)
    }

    /// Who this controller is, as the command line or the environment says: a folder as `netemctl pki issue` makes it.
    pub(super) fn tls_files(&self) -> Option<TlsFiles> {
        self.tls_dir.as_deref().map(TlsFiles::in_folder)
    }

    /// A fleet: the one place where one is made.
    pub(super) fn fleet_of(&self, agents: Agents, tls: Option<&TlsFiles>) -> Result<Fleet, Failure> {
        let tls = if agents.are_reached_by_https() { self.identity(tls)? } else { None };
        let access = Access { tls, ssh: self.ssh.clone() };
        allow_many_connections();
        Ok(match agents {
            Agents::Placed(inventory) => Fleet::new(inventory, access),
            Agents::Unplaced(agents) => Fleet::of_agents(agents, access),
        })
    }

    /// Who this controller is, to agents that are reached by HTTPS. Without a certificate it can ask only those that need
    /// none.
    fn identity(&self, tls: Option<&TlsFiles>) -> Result<Option<Arc<Identity>>, Failure> {
        let Some(files) = self.certificate(tls) else { return Ok(None) };
        Ok(Some(Arc::new(Identity::read(&files)?.only_of(&Role::Controller, &files.cert)?)))
    }

    /// The certificate for agents that are reached by HTTPS: that of `--tls-dir`, of what says where the nodes are, or of
    /// the user's own CA.
    pub(super) fn certificate(&self, tls: Option<&TlsFiles>) -> Option<TlsFiles> {
        let of_user = || {
            let folder = Store::at(pki::folder(None).ok()?).folder(&Role::Controller);
            folder.exists().then(|| TlsFiles::in_folder(&folder))
        };
        self.tls_files().or_else(|| tls.cloned()).or_else(of_user)
    }

    /// The failure, where it was not a person who has interrupted something but the end of the time.
    pub(super) fn blaming_the_clock(&self, failure: Failure) -> Failure {
        if self.has_timed_out() { failure.because_of_time(&self.why_interrupted()) } else { failure }
    }

    /// Why the command is interrupted: the beginning of a sentence.
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

/// Each agent is an open file, by ssh three. The soft limit of most systems is 1,024, for the sake of programs with
/// select(2); the hard one is what a process may really have (getrlimit(2)).
fn allow_many_connections() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        // Refused, it is as it was, which does for most fleets; a larger one has fewer connections at once.
        let _refused = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}
