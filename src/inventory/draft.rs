//! From what agents say of their hosts to an inventory file, with comments for the person who completes it: [`draft`].

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use thiserror::Error;

use crate::{
    pki::TlsFiles,
    plan::{AGENT_PORT, AgentAddress, IfName, Transport},
    topology::NodeName,
    wire::{Host, HostInterface},
};

/// A file to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// Its text.
    pub text: String,
    /// What it says of each node.
    pub nodes: BTreeMap<NodeName, Drafted>,
}

/// What a draft says of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drafted {
    /// Its agent's address.
    pub agent: String,
    /// The interface that is proposed; `None`: none can be, and the file is not valid until somebody chooses one.
    pub interface: Option<IfName>,
    /// Its addresses there.
    pub addresses: Vec<IpAddr>,
    /// Why there is no proposal, or what is to be looked at before it is taken.
    pub warning: Option<String>,
}

/// Two hosts have one name.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SameNode {
    /// By their agents' configs.
    #[error("the agents at {0} and {1} are both configured as node {2}; correct `node` in one config")]
    Configured(String, String, NodeName),
    /// By themselves, as they have no config.
    #[error("the hosts at {0} and {1} have the same name, {2}; give each its own host name")]
    Named(String, String, NodeName),
}

/// One node of the file to be.
struct Line<'h> {
    agent: &'h AgentAddress,
    host: &'h Host,
    proposal: Option<&'h HostInterface>,
}

/// Makes a file of where the agents were found and what they said.
///
/// # Errors
///
/// When two of them are the same node.
pub fn draft(found: &[(AgentAddress, Host)], tls: Option<&TlsFiles>) -> Result<Draft, SameNode> {
    let names = names(found);
    let mut lines: BTreeMap<&NodeName, Line<'_>> = BTreeMap::new();
    let mut nodes = BTreeMap::new();
    for ((agent, host), name) in found.iter().zip(&names) {
        let (proposal, warning) = propose(agent, host);
        let address = agent.to_string();
        let drafted = Drafted {
            agent: address.clone(),
            interface: proposal.map(|interface| interface.name.clone()),
            addresses: proposal.into_iter().flat_map(HostInterface::reachable).collect(),
            warning,
        };
        if let Some(Drafted { agent, .. }) = nodes.insert(name.clone(), drafted) {
            let same = if host.is_configured { SameNode::Configured } else { SameNode::Named };
            return Err(same(agent, address, name.clone()));
        }
        lines.insert(name, Line { agent, host, proposal });
    }
    Ok(Draft { text: text(&lines, &nodes, tls), nodes })
}

/// Which node each host is to be: the one that its config says. A host without a config has the name by which it was found;
/// one that was found by an address has its own, if no other host has that.
fn names(found: &[(AgentAddress, Host)]) -> Vec<NodeName> {
    let label = |agent: &AgentAddress| place_of(agent).split('.').next().unwrap_or_default().to_owned();
    let count = |is_so: &dyn Fn(&(AgentAddress, Host)) -> bool| found.iter().filter(|one| is_so(one)).count();
    let name = |(agent, host): &(AgentAddress, Host)| {
        let given = if host.is_configured {
            return host.node.clone();
        } else if place_of(agent).parse::<IpAddr>().is_ok() {
            let is_unique = count(&|(_, other)| other.node == host.node) == 1;
            if is_unique { host.node.to_string() } else { place_of(agent) }
        } else {
            let is_unique = count(&|(other, _)| label(other) == label(agent)) == 1;
            if is_unique { label(agent) } else { place_of(agent) }
        };
        given.parse().unwrap_or_else(|_| host.node.clone())
    };
    found.iter().map(name).collect()
}

/// The interface that the agent's config allows and that nothing speaks against; and what is to be said of that.
fn propose<'h>(agent: &AgentAddress, host: &'h Host) -> (Option<&'h HostInterface>, Option<String>) {
    let names = |interfaces: &[&HostInterface]| {
        interfaces.iter().map(|interface| interface.name.to_string()).collect::<Vec<_>>().join(", ")
    };
    let allowed: Vec<_> = host.interfaces.iter().filter(|interface| interface.is_allowed).collect();
    let is_free = |interface: &&&HostInterface| !interface.carries_default_route;
    let free: Vec<_> = allowed.iter().filter(is_free).copied().collect();
    let good: Vec<_> = free.iter().filter(|interface| interface.reachable().next().is_some()).copied().collect();
    let none = |why: String| (None, Some(why));
    match (&good[..], &free[..], &allowed[..]) {
        ([only], ..) => (Some(only), None),
        ([first, ..], ..) => {
            let warning = format!("its agent's config allows {}; {} is proposed", names(&good), first.name);
            (Some(first), Some(warning))
        }
        ([], [_, ..], _) => none(format!("{} has no address that other nodes can reach", names(&free))),
        ([], [], [_, ..]) => none(format!(
            "{} carries a default route, so more than the database's traffic leaves by it; use an interface dedicated to \
             the database",
            names(&allowed)
        )),
        ([], [], []) if agent.transport() == Transport::Ssh => {
            none("write `interface = \"...\"` here: the interface dedicated to the database".to_owned())
        }
        ([], [], []) => none(
            "its agent's config allows none of its interfaces; add the database's to `interfaces` there".to_owned(),
        ),
    }
}

fn text(lines: &BTreeMap<&NodeName, Line<'_>>, nodes: &BTreeMap<NodeName, Drafted>, tls: Option<&TlsFiles>) -> String {
    let common = Common::of(lines);
    let mut text = format!(
        "# Inventory from the agents' answers (netemctl {}). An asterisk marks the proposed interface of each node.\n\
         # Review them, then run `netemctl inventory check` on this file. docs/inventory.md describes the format.\n\n",
        env!("CARGO_PKG_VERSION")
    );
    let defaults = common.keys();
    if !defaults.is_empty() {
        text += "[defaults]\n";
        text.extend(defaults.iter().map(|(key, value)| format!("{key} = {value}\n")));
        text += "\n";
    }
    text += "[nodes]\n";
    for (node, line) in lines {
        text += &format!("# {node}: kernel {}\n", line.host.kernel);
        text.extend(line.host.interfaces.iter().map(|interface| described(interface, line.proposal)));
        let warning = nodes.get(*node).and_then(|drafted| drafted.warning.as_ref());
        text.extend(warning.map(|warning| format!("# Warning: {warning}\n")));
        let own: Vec<_> =
            common.own_keys(node, line).into_iter().map(|(key, value)| format!("{key} = {value}")).collect();
        let own = if own.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", own.join(", ")) };
        let name = if node.as_str().contains('.') { quoted(node.as_str()) } else { node.to_string() };
        text += &format!("{name} = {own}\n\n");
    }
    if let Some(TlsFiles { ca, cert, key }) = tls {
        let file = |path: &std::path::Path| quoted(&path.display().to_string());
        text += &format!("[tls]\nca = {}\ncert = {}\nkey = {}\n\n", file(ca), file(cert), file(key));
    }
    text + "# Zones, while no topology with zones is in force:\n# [zones]\n# Z1 = \"n[1-3]\"\n"
}

/// One interface of a host, as a comment.
fn described(interface: &HostInterface, proposal: Option<&HostInterface>) -> String {
    let mark = if proposal == Some(interface) { '*' } else { ' ' };
    let addresses: Vec<_> = interface.addresses.iter().map(ToString::to_string).collect();
    let speed = interface.speed_mbit.map(|mbit| format!("{mbit} Mbit/s"));
    let notes = [
        Some(if interface.is_up { "up" } else { "down" }.to_owned()),
        speed,
        Some(if addresses.is_empty() { "no address".to_owned() } else { addresses.join(" ") }),
        interface.carries_default_route.then(|| "default route".to_owned()),
        interface.is_allowed.then(|| "allowed by its agent".to_owned()),
    ];
    let notes: Vec<_> = notes.into_iter().flatten().collect();
    format!("# {mark} {}: {}\n", interface.name, notes.join(", "))
}

/// What is the same for all nodes, and so goes into `[defaults]`.
struct Common {
    transport: Option<Transport>,
    /// The hosts or sockets, with `{node}` for the node's name.
    place: Option<String>,
    port: Option<u16>,
    user: Option<String>,
    interface: Option<IfName>,
}

type Keys = Vec<(&'static str, String)>;

impl Common {
    fn of(lines: &BTreeMap<&NodeName, Line<'_>>) -> Self {
        let transport = the_only(lines.values().map(|line| Some(line.agent.transport())));
        let place = the_only(lines.iter().map(|(node, line)| pattern(&place_of(line.agent), node)));
        Self {
            transport,
            // A host of one transport is no socket of another.
            place: place.filter(|_| transport.is_some()),
            port: the_only(lines.values().map(|line| port_of(line.agent))),
            user: the_only(lines.values().map(|line| user_of(line.agent).map(str::to_owned))),
            interface: the_only(lines.values().map(|line| Some(line.proposal?.name.clone()))),
        }
    }

    fn keys(&self) -> Keys {
        let place = self.transport.zip(self.place.clone()).and_then(|(transport, place)| place_key(transport, &place));
        let transport = self.transport.map(|transport| ("transport", quoted(transport.name())));
        let port = self.port.map(|port| ("port", port.to_string()));
        let user = self.user.as_ref().map(|user| ("user", quoted(user)));
        let interface = self.interface.as_ref().map(|interface| ("interface", quoted(interface.as_str())));
        [transport, place, port, user, interface].into_iter().flatten().collect()
    }

    /// What is to be said of one node besides.
    fn own_keys(&self, node: &NodeName, line: &Line<'_>) -> Keys {
        let (transport, host) = (line.agent.transport(), place_of(line.agent));
        let own_transport = self.transport.is_none().then(|| ("transport", quoted(transport.name())));
        let is_named_so = transport != Transport::Unix && host == node.as_str();
        let place = (self.place.is_none() && !is_named_so).then(|| place_key(transport, &host)).flatten();
        let port = port_of(line.agent).filter(|_| self.port.is_none()).map(|port| ("port", port.to_string()));
        let user = user_of(line.agent).filter(|_| self.user.is_none()).map(|user| ("user", quoted(user)));
        let interface = line.proposal.filter(|_| self.interface.is_none());
        let interface = interface.map(|interface| ("interface", quoted(interface.name.as_str())));
        let addresses: Vec<_> =
            line.proposal.into_iter().flat_map(HostInterface::reachable).map(|own| quoted(&own.to_string())).collect();
        let addresses = (!addresses.is_empty()).then(|| ("addresses", format!("[{}]", addresses.join(", "))));
        [own_transport, place, port, user, interface, addresses].into_iter().flatten().collect()
    }
}

/// The host of an agent, or the path of its socket.
fn place_of(agent: &AgentAddress) -> String {
    match agent {
        AgentAddress::Unix(socket) => socket.display().to_string(),
        _ => agent.host().unwrap_or_default().to_owned(),
    }
}

/// The port of an agent, unless the inventory may leave it out.
fn port_of(agent: &AgentAddress) -> Option<u16> {
    agent.port().filter(|port| agent.transport() != Transport::Https || *port != AGENT_PORT)
}

fn user_of(agent: &AgentAddress) -> Option<&str> {
    match agent {
        AgentAddress::Ssh(address) => address.user(),
        _ => None,
    }
}

/// The key that says where an agent is, unless it goes without saying.
fn place_key(transport: Transport, place: &str) -> Option<(&'static str, String)> {
    match transport {
        Transport::Unix => Some(("socket", quoted(place))),
        Transport::Https | Transport::Ssh if place == "{node}" => None,
        Transport::Https | Transport::Ssh => Some(("host", quoted(place))),
    }
}

/// The text with `{node}` for the node's name, where it is a word of its own in it.
fn pattern(text: &str, node: &NodeName) -> Option<String> {
    let is_word_character = |character: char| character.is_ascii_alphanumeric();
    text.match_indices(node.as_str()).find_map(|(start, name)| {
        let (before, behind) = (&text[..start], &text[start + name.len()..]);
        let stands_alone = !before.ends_with(is_word_character) && !behind.starts_with(is_word_character);
        stands_alone.then(|| format!("{before}{{node}}{behind}"))
    })
}

/// What all of them are, if it is the same.
fn the_only<T: Ord>(values: impl Iterator<Item = Option<T>>) -> Option<T> {
    let mut values: BTreeSet<Option<T>> = values.collect();
    let first = values.pop_first()?;
    first.filter(|_| values.is_empty())
}

/// A string of TOML. Those of JSON are strings of TOML, too.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
