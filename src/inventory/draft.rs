//! Writes a new inventory file from the agents' answers, with comments for the user: [`draft`].

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use serde::Serialize;
use thiserror::Error;

use crate::{
    pki::TlsFiles,
    plan::{AGENT_PORT, AgentAddress, IfName, TransportKind},
    topology::NodeName,
    wire::{Host, HostInterface},
};

/// A new inventory file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// The text of the file.
    pub text: String,
    /// The nodes of the file.
    pub nodes: BTreeMap<NodeName, Drafted>,
}

/// A node of a draft.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "InventoryInitNode"))]
pub struct Drafted {
    /// The address of the node's agent.
    pub agent: String,
    /// The proposed interface. `None`: no interface is suitable. The file is then invalid until the user adds an
    /// interface.
    pub interface: Option<IfName>,
    /// The node's addresses on the proposed interface.
    pub addresses: Vec<IpAddr>,
    /// The reason why no interface is proposed, or why the proposed interface may be wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
}

/// Two hosts have the same name.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SameNode {
    /// Two agents' configs have the same node name.
    #[error("the agents at {0} and {1} are both configured as node {2}; correct `node` in one config")]
    Configured(String, String, NodeName),
    /// Two hosts without an agent config have the same host name.
    #[error("the hosts at {0} and {1} have the same name, {2}; give each its own host name")]
    Named(String, String, NodeName),
}

/// An entry of the new file.
struct Entry<'h> {
    agent: &'h AgentAddress,
    host: &'h Host,
    proposal: Option<&'h HostInterface>,
}

/// Makes an inventory file from the agents' addresses and answers.
///
/// # Errors
///
/// Two hosts have the same name.
pub fn draft(found: &[(AgentAddress, Host)], tls: Option<&TlsFiles>) -> Result<Draft, SameNode> {
    let names = names(found);
    let mut entries: BTreeMap<&NodeName, Entry<'_>> = BTreeMap::new();
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
        entries.insert(name, Entry { agent, host, proposal });
    }
    Ok(Draft { text: text(&entries, &nodes, tls), nodes })
}

/// The node name of each host.
///
/// - A host with an agent config has the name in the config.
/// - A host that the user gave by name has the first label of this name. If the label is not unique, the host
///   has the whole name.
/// - A host that the user gave by address has its own host name. If the host name is not unique, the host has the
///   address.
///
/// If the result is not a valid node name, the host has its own host name.
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

/// The proposed interface and a warning.
///
/// The agent's config allows the proposed interface. The proposed interface has an address and carries no default
/// route.
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
        ([], [], []) if agent.transport() == TransportKind::Ssh => {
            none("write `interface = \"...\"` here: the interface dedicated to the database".to_owned())
        }
        ([], [], []) => none(
            "its agent's config allows none of its interfaces; add the database's to `interfaces` there".to_owned(),
        ),
    }
}

fn text(
    entries: &BTreeMap<&NodeName, Entry<'_>>,
    nodes: &BTreeMap<NodeName, Drafted>,
    tls: Option<&TlsFiles>,
) -> String {
    let keys: BTreeMap<_, _> = entries.iter().map(|(node, entry)| (*node, keys(node, entry))).collect();
    // A key goes to `[defaults]` if all nodes have the same value for this key.
    let shared = |number: usize| {
        let values = keys.values().map(|keys| &keys[number]);
        the_only(values.map(|key| Some((key.name, key.in_defaults.as_deref()?))))
    };
    let common: [_; 5] = std::array::from_fn(shared);
    let mut text = format!(
        "# Inventory from the agents' answers (netemctl {}). An asterisk marks the proposed interface of each node.\n\
         # Check this file: netemctl inventory check FILE. docs/inventory.md describes the format.\n\n",
        env!("CARGO_PKG_VERSION")
    );
    let defaults: Vec<_> = common.iter().flatten().filter(|key| **key != ("host", "\"{node}\"")).collect();
    if !defaults.is_empty() {
        text += "[defaults]\n";
        text.extend(defaults.iter().map(|(key, value)| format!("{key} = {value}\n")));
        text += "\n";
    }
    text += "[nodes]\n";
    for (node, entry) in entries {
        text += &format!("# {node}: kernel {}\n", entry.host.kernel);
        text.extend(entry.host.interfaces.iter().map(|interface| described(interface, entry.proposal)));
        let warning = nodes.get(*node).and_then(|drafted| drafted.warning.as_ref());
        text.extend(warning.map(|warning| format!("# Warning: {warning}\n")));
        let own = keys[node].iter().zip(&common).filter(|(_, common)| common.is_none());
        let own = own.filter_map(|(key, _)| Some(format!("{} = {}", key.name, key.in_entry.as_ref()?)));
        let addresses: Vec<_> =
            entry.proposal.into_iter().flat_map(HostInterface::reachable).map(|own| quoted(&own.to_string())).collect();
        let addresses = (!addresses.is_empty()).then(|| format!("addresses = [{}]", addresses.join(", ")));
        let own: Vec<_> = own.chain(addresses).collect();
        let own = if own.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", own.join(", ")) };
        let name = if node.as_str().contains('.') { quoted(node.as_str()) } else { node.to_string() };
        text += &format!("{name} = {own}\n\n");
    }
    if let Some(TlsFiles { ca, cert, key }) = tls {
        let file = |path: &std::path::Path| quoted(&path.display().to_string());
        text += &format!("[tls]\nca = {}\ncert = {}\nkey = {}\n\n", file(ca), file(cert), file(key));
    }
    text + "# Zones for partition and set, used until a topology with zones is applied:\n# [zones]\n# Z1 = \"n[1-3]\"\n"
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

/// A key of a node, with its TOML value in `[defaults]` and its TOML value in an entry. `None`: the key is left out.
struct Key {
    name: &'static str,
    in_defaults: Option<String>,
    in_entry: Option<String>,
}

/// The keys of a node that may move to `[defaults]`.
fn keys(node: &NodeName, entry: &Entry<'_>) -> [Key; 5] {
    let transport = entry.agent.transport();
    let key = |name, value: Option<String>| Key { name, in_defaults: value.clone(), in_entry: value };
    let place = place_of(entry.agent);
    let is_implied = transport != TransportKind::Unix && place == node.as_str();
    let port = entry.agent.port().filter(|port| transport != TransportKind::Https || *port != AGENT_PORT);
    let user = match entry.agent {
        AgentAddress::Ssh(address) => address.user.as_deref(),
        _ => None,
    };
    [
        key("transport", Some(quoted(transport.name()))),
        Key {
            name: if transport == TransportKind::Unix { "socket" } else { "host" },
            in_defaults: pattern(&place, node).as_deref().map(quoted),
            in_entry: (!is_implied).then(|| quoted(&place)),
        },
        key("port", port.map(|port| port.to_string())),
        key("user", user.map(quoted)),
        key("interface", entry.proposal.map(|interface| quoted(interface.name.as_str()))),
    ]
}

/// The host of an agent, or the path of its socket.
fn place_of(agent: &AgentAddress) -> String {
    match agent {
        AgentAddress::Unix(socket) => socket.display().to_string(),
        _ => agent.host().unwrap_or_default().to_owned(),
    }
}

/// The text with the node's name replaced by `{node}`. `None`: the name is not a whole word of the text.
fn pattern(text: &str, node: &NodeName) -> Option<String> {
    let is_word_character = |character: char| character.is_ascii_alphanumeric();
    text.match_indices(node.as_str()).find_map(|(start, name)| {
        let (before, behind) = (&text[..start], &text[start + name.len()..]);
        let stands_alone = !before.ends_with(is_word_character) && !behind.starts_with(is_word_character);
        stands_alone.then(|| format!("{before}{{node}}{behind}"))
    })
}

/// The common value, if all values are equal.
fn the_only<T: Ord>(values: impl Iterator<Item = Option<T>>) -> Option<T> {
    let mut values: BTreeSet<Option<T>> = values.collect();
    let first = values.pop_first()?;
    first.filter(|_| values.is_empty())
}

/// A TOML string. JSON strings are valid TOML strings.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
