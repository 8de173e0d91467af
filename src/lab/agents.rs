//! Starts, restarts and ends the agents of a lab. Each node has one agent, a child process of the keeper.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io,
    os::unix::{net::UnixStream, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use tracing::{info, warn};

use super::{
    KeepError, Layout, Member,
    layout::{DATABASE, agent_port, agent_socket, certificates, node_directory},
};
use crate::{
    kernel::NodeNamespace,
    pki::{CA_FILE, CERTIFICATE_FILE, KEY_FILE, Role},
    topology::NodeName,
};

/// The timeout for all agents to listen.
pub(super) const READY_WITHIN: Duration = Duration::from_secs(30);

/// The time for agents to end before SIGKILL.
const END_WITHIN: Duration = Duration::from_secs(5);

/// The running agents. They end when this value is dropped.
pub(super) struct Agents<'a> {
    directory: &'a Path,
    nodes: &'a BTreeMap<NodeName, NodeNamespace>,
    layout: &'a Layout,
    children: BTreeMap<NodeName, Child>,
}

impl<'a> Agents<'a> {
    /// Starts an agent in every node, and waits until all listen.
    pub(super) fn start(
        directory: &'a Path,
        nodes: &'a BTreeMap<NodeName, NodeNamespace>,
        layout: &'a Layout,
    ) -> Result<Self, KeepError> {
        let mut agents = Self { directory, nodes, layout, children: BTreeMap::new() };
        agents.start_all(layout.members.iter())?;
        Ok(agents)
    }

    /// Restarts the agents of these nodes, also agents that have ended. Each agent continues from its journal.
    pub(super) fn restart(&mut self, nodes: &[NodeName]) -> Result<(), KeepError> {
        let (ending, staying) =
            std::mem::take(&mut self.children).into_iter().partition(|(node, _)| nodes.contains(node));
        self.children = staying;
        end(ending);
        let layout = self.layout;
        self.start_all(layout.members.iter().filter(|member| nodes.contains(&member.node)))?;
        info!(?nodes, "The agents have restarted.");
        Ok(())
    }

    /// Reaps agents that have ended. The kernel keeps the rules in their namespaces.
    pub(super) fn collect(&mut self) {
        self.children.retain(|node, child| match child.try_wait() {
            Ok(Some(status)) => {
                warn!(%node, %status, "An agent has ended.");
                false
            }
            _ => true,
        });
    }

    fn start_all<'m>(&mut self, members: impl Iterator<Item = &'m Member> + Clone) -> Result<(), KeepError> {
        for member in members.clone() {
            let child = self.spawn_agent(member)?;
            drop(self.children.insert(member.node.clone(), child));
        }
        let deadline = Instant::now() + READY_WITHIN;
        members.map(|member| &member.node).try_for_each(|node| self.wait_for(node, deadline))
    }

    /// Starts an agent inside the namespaces of its node.
    #[expect(clippy::disallowed_methods, reason = "the keeper is the parent of the agents")]
    fn spawn_agent(&self, member: &Member) -> Result<Child, KeepError> {
        let node = &member.node;
        let failed = |path: PathBuf| {
            let node = node.clone();
            move |error: io::Error| KeepError::Start { node, path, error }
        };
        let home = node_directory(self.directory, node);
        fs::create_dir_all(&home).map_err(failed(home.clone()))?;
        let config = home.join("agent.toml");
        fs::write(&config, self.config(member)).map_err(failed(config.clone()))?;
        let log = home.join("agent.log");
        let stderr = OpenOptions::new().append(true).create(true).open(&log).map_err(failed(log.clone()))?;
        // The executable of this process, even if another version has replaced its file.
        let program = PathBuf::from("/proc/self/exe");
        let mut command = Command::new(&program);
        command.arg0("netemctl").args(["agent", "--until-stdin-closes", "--log"]).arg(&log).arg("--config").arg(config);
        // If a service manager runs the lab, agents must not notify this service manager (sd_notify(3)).
        command.env_remove("NOTIFY_SOCKET");
        // As in the systemd unit: the allocator of glibc returns freed memory to the kernel (mallopt(3)).
        command.envs([("MALLOC_ARENA_MAX", "1"), ("MALLOC_TRIM_THRESHOLD_", "131072")]);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(stderr);
        let namespace = self.nodes.get(node).ok_or_else(|| failed(log)(io::ErrorKind::NotFound.into()))?;
        let started = namespace.run(move || command.spawn()).and_then(|started| started);
        started.map_err(failed(program))
    }

    fn config(&self, member: &Member) -> String {
        let node = &member.node;
        let home = node_directory(self.directory, node);
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        let mut text = format!(
            "node = {}\ninterfaces = [{}]\nsocket = {}\njournal = {}\n",
            quoted(node.as_str()),
            quoted(DATABASE),
            quoted(&agent_socket(self.directory, node).to_string_lossy()),
            quoted(&home.join("journal.json").to_string_lossy())
        );
        if let Some(address) = agent_port(member).filter(|_| self.layout.tls) {
            let folder = certificates(self.directory).folder(&Role::Agent(node.clone()));
            text += &format!("listen = {}\n[tls]\n", quoted(&address.to_string()));
            for (key, file) in [("ca", CA_FILE), ("cert", CERTIFICATE_FILE), ("key", KEY_FILE)] {
                text += &format!("{key} = {}\n", quoted(&folder.join(file).to_string_lossy()));
            }
        }
        text
    }

    fn wait_for(&mut self, node: &NodeName, deadline: Instant) -> Result<(), KeepError> {
        while UnixStream::connect(agent_socket(self.directory, node)).is_err() {
            let child = self.children.get_mut(node);
            if let Some(Ok(Some(status))) = child.map(Child::try_wait) {
                let log = fs::read_to_string(node_directory(self.directory, node).join("agent.log"));
                return Err(KeepError::AgentEnded { node: node.clone(), status, log: log.unwrap_or_default() });
            }
            if Instant::now() > deadline {
                return Err(KeepError::AgentSilent(node.clone()));
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Drop for Agents<'_> {
    fn drop(&mut self) {
        end(std::mem::take(&mut self.children));
    }
}

fn end(mut children: BTreeMap<NodeName, Child>) {
    for child in children.values_mut() {
        // The agent ends when its stdin closes.
        drop(child.stdin.take());
    }
    let deadline = Instant::now() + END_WITHIN;
    while !children.is_empty() && Instant::now() < deadline {
        children.retain(|_, child| !matches!(child.try_wait(), Ok(Some(_))));
        thread::sleep(Duration::from_millis(5));
    }
    for child in children.values_mut() {
        // The agent may have ended already.
        drop(child.kill());
        drop(child.wait());
    }
}
