//! What every verb needs: how to print, where the fleet is, an async runtime that Ctrl-C and `--timeout` reach.

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal, Write},
    path::PathBuf,
    process,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde::Serialize;
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{MissedTickBehavior, interval_at, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    Exit, Failure, pki,
    whereabouts::{Given, Whereabouts},
};
use crate::{
    fleet::{Access, CALL_TIMEOUT, Fleet, ssh},
    inventory::Contact,
    lab::{Lab, LabDirectory},
    pki::{Identity, Role, TlsFiles, store::Store},
    plan::{AgentAddress, Inventory},
    topology::{NodeName, Problem, Topology, Warnings, hostlist},
};

/// How long something may take before it says that it is at work.
const SILENCE: Duration = Duration::from_secs(1);

/// The width of what is drawn where there is no terminal.
const WIDTH: usize = 100;

/// How much earlier than the whole command a question to the agents is over, so that what they said is still printed.
const TO_PRINT: Duration = Duration::from_millis(100);

/// What a command that failed prints.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Report<'a> {
    /// What the command ends with.
    exit_code: u8,
    error: &'a Failure,
}

#[derive(Clone)]
pub(super) struct Context {
    json: bool,
    lab_dir: Option<PathBuf>,
    ssh: ssh::Options,
    tls_dir: Option<PathBuf>,
    inventory: Option<Given>,
    deadline: Option<Deadline>,
    /// Whether the end of the time is no reason any more to end on the spot.
    settled: Arc<Mutex<bool>>,
    /// Whether it was the end of the time that has interrupted something.
    timed_out: Arc<AtomicBool>,
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
struct Deadline {
    given: Duration,
    at: Instant,
}

impl Deadline {
    fn left(&self) -> Duration {
        self.at.saturating_duration_since(Instant::now())
    }

    fn says(&self) -> String {
        format!("timed out after {} s", self.given.as_secs_f64())
    }
}

impl Context {
    pub(super) fn new(json: bool, lab_dir: Option<PathBuf>, timeout: Option<Duration>) -> Self {
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

    /// Ends the process when its time is up, unless by then it runs something that [`Context::block_on`] ends in good
    /// order, or prints its answer: that is for files and
    /// pipes that somebody else never finishes to write. `fate` is what has become of everything then.
    pub(super) fn watch(&self, fate: &'static str) {
        let Some(deadline) = self.deadline.clone() else { return };
        let context = self.clone();
        thread::spawn(move || {
            thread::sleep(deadline.left());
            let settled = context.settled.lock().unwrap_or_else(PoisonError::into_inner);
            if !*settled {
                let failure = Failure::new(Exit::TimedOut, format!("{}; {fate}", deadline.says()));
                let exit = context.say(&failure);
                process::exit(i32::from(exit.code()));
            }
        });
    }

    /// From now on nothing but the command itself says how it ends.
    fn settle(&self) {
        *self.settled.lock().unwrap_or_else(PoisonError::into_inner) = true;
    }

    /// Whether the command has a time limit.
    pub(super) fn is_limited(&self) -> bool {
        self.deadline.is_some()
    }

    /// How long agents may take to answer a question, so that there is an answer before the time is up.
    pub(super) fn patience(&self) -> Duration {
        match &self.deadline {
            Some(deadline) => deadline.left().saturating_sub(TO_PRINT).min(CALL_TIMEOUT),
            None => CALL_TIMEOUT,
        }
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
        self.json
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
        Whereabouts::find(self.inventory.as_ref(), topology, || Ok(self.lab_directory()?.find()))
    }

    /// The fleet to talk to.
    pub(super) fn fleet(&self) -> Result<Fleet, Failure> {
        self.whereabouts(None)?.fleet(self)
    }

    /// The fleet to put a topology in force on.
    pub(super) fn fleet_for(&self, topology: &Topology) -> Result<Fleet, Failure> {
        self.whereabouts(Some(topology))?.fleet(self)
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

    /// Runs `work` to its end. The token it gets is cancelled by Ctrl-C, by SIGTERM and by the end of the time that the
    /// command has; what that means is up to the work.
    pub(super) fn block_on<T>(
        &self,
        work: impl AsyncFnOnce(CancellationToken) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let failed = |error: io::Error| Failure::new(Exit::Failed, error);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        self.settle();
        runtime.block_on(async {
            let interrupt = CancellationToken::new();
            let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
            let (cancel, expired, deadline) = (interrupt.clone(), self.timed_out.clone(), self.deadline.clone());
            tokio::spawn(async move {
                let time_is_up = async {
                    match deadline {
                        Some(deadline) => sleep_until(deadline.at.into()).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    pressed = tokio::signal::ctrl_c() => if pressed.is_err() { return },
                    _ = terminate.recv() => {}
                    () = time_is_up => expired.store(true, Ordering::Relaxed),
                }
                cancel.cancel();
            });
            work(interrupt).await
        })
    }

    /// The failure, where it was not a person who has interrupted something but the end of the time.
    pub(super) fn blaming_the_clock(&self, failure: Failure) -> Failure {
        match &self.deadline {
            Some(deadline) if self.timed_out.load(Ordering::Relaxed) => failure.because_of_time(&deadline.says()),
            _ => failure,
        }
    }

    /// Waits for something that changes nothing, unless the command is interrupted.
    pub(super) async fn unless_interrupted<T>(
        interrupt: &CancellationToken,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        tokio::select! {
            biased;
            () = interrupt.cancelled() => Err(Failure::new(Exit::Interrupted, "interrupted; nothing was changed")),
            done = work => done,
        }
    }

    /// Waits for `work`, saying on stderr what is going on if it takes over a second.
    pub(super) async fn meanwhile<T>(what: &str, work: impl Future<Output = T>) -> T {
        let start = Instant::now();
        let mut ticks = interval_at((start + SILENCE).into(), SILENCE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let on_terminal = io::stderr().is_terminal();
        let mut said = false;
        tokio::pin!(work);
        loop {
            tokio::select! {
                biased;
                result = &mut work => {
                    if said && on_terminal {
                        talk("\r\x1b[K");
                    }
                    return result;
                }
                _ = ticks.tick() => {
                    let seconds = start.elapsed().as_secs();
                    if on_terminal {
                        talk(&format!("\r{what} … {seconds} s\x1b[K"));
                    } else if !said {
                        talk(&format!("{what} …\n"));
                    }
                    said = true;
                }
            }
        }
    }

    /// Prints the answer: as data for programs, or drawn for people, whichever is asked for.
    pub(super) fn answer(&self, data: &impl Serialize, drawn: impl FnOnce() -> String) -> Result<(), Failure> {
        self.settle();
        self.print(data, drawn)
    }

    fn print(&self, data: &impl Serialize, drawn: impl FnOnce() -> String) -> Result<(), Failure> {
        let text = if self.json {
            serde_json::to_string_pretty(data).map_err(|error| Failure::new(Exit::Failed, error))?
        } else {
            drawn()
        };
        let mut stdout = io::stdout().lock();
        let line_break = if text.ends_with('\n') { "" } else { "\n" };
        let printed = stdout.write_all(text.as_bytes()).and_then(|()| stdout.write_all(line_break.as_bytes()));
        match printed.and_then(|()| stdout.flush()) {
            // Whoever reads our output has had enough of it.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(Failure::new(Exit::Failed, format!("cannot write to stdout: {error}")))
            }
            _ => Ok(()),
        }
    }

    /// Says on stderr what is probably not meant in a file, with the lines. For programs it is in the answer.
    pub(super) fn warn(&self, warnings: &Warnings) {
        if !self.json {
            talk(&warnings.render(Self::is_styled(&io::stderr()), WIDTH));
        }
    }

    /// The same, in a line each.
    pub(super) fn mention(&self, warnings: &Warnings) {
        if self.json {
            return;
        }
        let (on, off) = if Self::is_styled(&io::stderr()) { ("\x1b[1;33m", "\x1b[0m") } else { ("", "") };
        for Problem { message, path, line, .. } in warnings.problems() {
            talk(&format!("{on}warning:{off} {message} ({path}:{line})\n"));
        }
    }

    /// Reports a failure and answers with its exit code.
    pub(super) fn report(&self, failure: &Failure) -> Exit {
        self.settle();
        self.say(failure)
    }

    fn say(&self, failure: &Failure) -> Exit {
        if self.json {
            let report = Report { exit_code: failure.exit.code(), error: failure };
            // There is nobody left to tell if stdout is gone.
            drop(self.print(&report, String::new));
        }
        let (on, off) = if Self::is_styled(&io::stderr()) { ("\x1b[1;31m", "\x1b[0m") } else { ("", "") };
        match &failure.rejected {
            Some(rejected) => talk(&rejected.render(Self::is_styled(&io::stderr()), WIDTH)),
            None => talk(&format!("{on}error:{off} {}\n", failure.message)),
        }
        // What many nodes say alike is said once.
        let mut sayings: BTreeMap<String, Vec<NodeName>> = BTreeMap::new();
        for (node, said) in failure.nodes.iter().map(|(node, said)| (node, said.clone())).chain(failure.left.said()) {
            sayings.entry(said).or_default().push(node.clone());
        }
        for (said, nodes) in sayings {
            talk(&format!("  {}: {said}\n", hostlist::fold(&nodes)));
        }
        for hint in &failure.hints {
            talk(&format!("hint: {hint}\n"));
        }
        failure.exit
    }

    /// Whether colours are wanted on this stream (`NO_COLOR`: no-color.org).
    pub(super) fn is_styled(stream: &impl IsTerminal) -> bool {
        stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
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

/// Says something that is not the answer.
pub(super) fn talk(text: &str) {
    // There is nobody left to tell if stderr is gone.
    drop(io::stderr().write_all(text.as_bytes()));
}
