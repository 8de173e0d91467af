//! Makes the nodes of an inventory from the entries and the defaults: the second pass, after `words`.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    ops::Range,
};

use super::{
    InterfaceSelector, InventoryFile, NodeEntry, agent,
    pattern::Pattern,
    words::{self, Group, Keys, Selector},
    zones,
};
use crate::{
    pki::TlsTable,
    plan::{AGENT_PORT, AddressError, AgentAddress, TransportKind, is_link_local},
    topology::{
        FileReport, Finding, Hostlist, Lines, MAX_NODES, NodeName, Origin, Reported, Source, Table, Word,
        ranges_without_brackets,
    },
};

/// Reads an inventory from a table: a whole file, or the table at `place` of a topology.
pub(super) fn read(table: Table<'_>, place: Range<usize>, source: &Source) -> Result<InventoryFile, Vec<Finding>> {
    let mut findings = Vec::new();
    let document = words::read(table, &place, &mut findings);
    let mut gathering = Gathering {
        defaults: &document.defaults,
        path: &source.path,
        lines: Lines::of(&source.text),
        nodes: BTreeMap::new(),
        agents: HashMap::new(),
        owners: HashMap::new(),
        wrong: BTreeSet::new(),
        transports: BTreeSet::new(),
        transports_known: !document.groups.is_empty(),
        entries: Vec::new(),
        findings,
    };
    for group in &document.groups {
        gathering.add(group);
    }
    let Gathering { entries, nodes, transports, transports_known, mut findings, .. } = gathering;
    if transports_known {
        findings.extend(idle_defaults(&document.defaults, &transports));
        findings.extend(needless_tls(document.tls.as_ref(), &transports));
    }
    let zones = zones::read(&document.zones, &nodes, &mut findings);
    let tls = document.tls.and_then(|tls| tls.files(source));
    findings.extend(ranges_without_brackets(document.groups.iter().map(|group| &group.names), &nodes.keys()));
    if findings.iter().any(Finding::is_error) {
        return Err(findings);
    }
    let nodes = entries.into_iter().collect();
    Ok(InventoryFile { nodes, zones, tls, warnings: FileReport::new(source.clone(), findings) })
}

/// An error in the text of a value.
struct Wrong {
    /// The wrong bytes of the text. `None`: the whole text is wrong.
    span: Option<Range<usize>>,
    reason: String,
}

impl From<&str> for Wrong {
    fn from(reason: &str) -> Self {
        Self { span: None, reason: reason.to_owned() }
    }
}

impl From<AddressError> for Wrong {
    fn from(error: AddressError) -> Self {
        Self { span: Some(error.span), reason: error.reason }
    }
}

/// The span of a part of a value in the file. `None`: the value has escapes or placeholders, or the part is empty.
fn part_of(word: &Word<'_>, text: &str, part: &Range<usize>) -> Option<Range<usize>> {
    let start = word.span().start + 1;
    let is_verbatim = *word.get_ref() == text && word.span().len() == text.len() + 2;
    (is_verbatim && !part.is_empty()).then(|| start + part.start..start + part.end)
}

/// The state of the pass: the nodes so far and the findings.
struct Gathering<'d, 't> {
    defaults: &'d Keys<'t>,
    path: &'d str,
    lines: Lines<'d>,
    /// The nodes, with the spans of their names.
    nodes: BTreeMap<NodeName, Range<usize>>,
    /// The node and its span, by the address of its agent.
    agents: HashMap<AgentAddress, (NodeName, Range<usize>)>,
    /// The node and the span of the address, by address.
    owners: HashMap<IpAddr, (NodeName, Range<usize>)>,
    /// The positions of wrong values. A wrong default concerns every node, but is reported once.
    wrong: BTreeSet<usize>,
    transports: BTreeSet<TransportKind>,
    /// True if `transports` has the transports of all nodes.
    transports_known: bool,
    entries: Vec<(NodeName, NodeEntry)>,
    findings: Vec<Finding>,
}

impl<'d, 't> Gathering<'d, 't> {
    fn add(&mut self, group: &'d Group<'t>) {
        let nodes = self.add_names(&group.names);
        let transport = group.keys.as_ref().and_then(|keys| self.transport(keys));
        match transport {
            Some(transport) => drop(self.transports.insert(transport)),
            None => self.transports_known = false,
        }
        let (Some(nodes), Some(keys)) = (nodes, &group.keys) else { return };
        let agents = transport.and_then(|transport| self.agents(&group.names, keys, transport, &nodes).ok());
        let interfaces = self.interfaces(&group.names, keys, &nodes).ok();
        let addresses = self.addresses(keys, &nodes).ok();
        let (Some(agents), Some(interfaces), Some(addresses)) = (agents, interfaces, addresses) else { return };
        let (line, _) = self.lines.position(group.names.span().start);
        for (((node, agent), interface), addresses) in nodes.into_iter().zip(agents).zip(interfaces).zip(addresses) {
            let origin = Some(Origin { path: self.path.to_owned(), line });
            self.entries.push((node, NodeEntry { agent, interface, addresses, origin }));
        }
    }

    /// Adds the nodes of an entry. Reports at most one error, so the report of a long list is short.
    fn add_names(&mut self, word: &Word<'_>) -> Option<Vec<NodeName>> {
        let finding = match Hostlist::parse(word.get_ref()) {
            Err(error) => Finding::new(word.span(), error.to_string()).help(error.help()),
            Ok(list) if self.nodes.len() + list.count() > MAX_NODES => {
                Finding::new(word.span(), format!("more than {MAX_NODES} nodes")).label("too many from here on")
            }
            Ok(list) => {
                let mut nodes = Vec::new();
                let mut finding = None;
                for name in list.names() {
                    match name.parse::<NodeName>() {
                        Ok(node) => match self.nodes.insert(node.clone(), word.span()) {
                            None => nodes.push(node),
                            Some(earlier) => drop(finding.get_or_insert_with(|| repeated(&node, word, earlier))),
                        },
                        Err(error) => finding = Some(error.finding(word.span(), &name, "a node's name")),
                    }
                }
                let Some(finding) = finding else { return Some(nodes) };
                finding
            }
        };
        finding.refuse(&mut self.findings)
    }

    fn transport(&mut self, keys: &Keys<'_>) -> Option<TransportKind> {
        let transport = own_or_default(keys.transport.as_ref(), self.defaults.transport.as_ref()).ok()?;
        let transport = transport.copied().unwrap_or(TransportKind::Https);
        for (key, place) in keys.of_transports.iter().filter(|(key, _)| !agent::keys(transport).contains(key)) {
            Finding::new(place.clone(), format!("`{key}` does not go with the transport `{}`", transport.name()))
                .help(goes_with(key))
                .report(&mut self.findings);
        }
        Some(transport)
    }

    /// The address of each node's agent.
    fn agents(
        &mut self,
        names: &Word<'_>,
        keys: &'d Keys<'t>,
        transport: TransportKind,
        nodes: &[NodeName],
    ) -> Result<Vec<AgentAddress>, Reported> {
        let (own, defaults) = (keys, self.defaults);
        let place = names.span();
        let agents = if transport == TransportKind::Unix {
            let Some(socket) = own_or_default(own.socket.as_ref(), defaults.socket.as_ref())? else {
                let message = format!("the agent of `{}` has no socket", names.get_ref());
                let help = "add `socket = \"/run/netemctl/{node}.sock\"` here or to `[defaults]`";
                return Err(Finding::new(place, message).label("no `socket`").help(help).report(&mut self.findings));
            };
            self.each(socket, nodes, "a socket", AgentAddress::unix)?
        } else {
            let port = own_or_default(own.port.as_ref(), defaults.port.as_ref())?.copied();
            let user =
                own_or_default(own.user.as_ref(), defaults.user.as_ref())?.filter(|_| transport == TransportKind::Ssh);
            if let Some(user) = user {
                let check = AgentAddress::check_user(user.get_ref());
                check.map_err(|error| self.report_wrong(user, user.get_ref(), "a user", &error.into()))?;
            }
            let address = |host: &str| match transport {
                TransportKind::Ssh => AgentAddress::ssh(user.map(|user| *user.get_ref()), host, port),
                _ => AgentAddress::https(host, port.unwrap_or(AGENT_PORT)),
            };
            match own_or_default(own.host.as_ref(), defaults.host.as_ref())? {
                Some(host) => self.each(host, nodes, "a host", address)?,
                // The default host is the node's name.
                None => nodes.iter().filter_map(|node| address(node.as_str()).ok()).collect(),
            }
        };
        for (node, agent) in nodes.iter().zip(&agents) {
            if let Some((other, earlier)) = self.agents.insert(agent.clone(), (node.clone(), place.clone())) {
                let finding =
                    Finding::new(place.clone(), format!("`{other}` and `{node}` have the same agent: {agent}"))
                        .help("each node needs its own agent: write `{node}` or a hostlist in `host` or `socket`");
                let same = earlier == place;
                let finding = if same { finding } else { finding.related(earlier, format!("`{other}`")) };
                return Err(finding.report(&mut self.findings));
            }
        }
        Ok(agents)
    }

    fn interfaces(
        &mut self,
        names: &Word<'_>,
        keys: &'d Keys<'t>,
        nodes: &[NodeName],
    ) -> Result<Vec<InterfaceSelector>, Reported> {
        match own_or_default(keys.interface.as_ref(), self.defaults.interface.as_ref())? {
            Some(Selector::Interface(name)) => {
                let named = |name: &str| {
                    let interface = name.parse().map(InterfaceSelector::Named);
                    interface.map_err(|_| "1 to 15 bytes without `/`, `:` or white space")
                };
                self.each(name, nodes, "an interface's name", named)
            }
            Some(Selector::Network(network)) => Ok(vec![InterfaceSelector::InNetwork(*network); nodes.len()]),
            None => {
                let message = format!("`{}` has no interface", names.get_ref());
                let help = "add `interface = \"eno2\"` or `network = \"10.20.0.0/16\"`, here or to `[defaults]`";
                let finding = Finding::new(names.span(), message).label("no `interface` and no `network`").help(help);
                Err(finding.report(&mut self.findings))
            }
        }
    }

    /// The addresses of each node. Empty: netemctl asks the agent.
    fn addresses(&mut self, keys: &'d Keys<'t>, nodes: &[NodeName]) -> Result<Vec<Vec<IpAddr>>, Reported> {
        let mut addresses = vec![Vec::new(); nodes.len()];
        for pattern in own_or_default(keys.addresses.as_ref(), None)?.into_iter().flatten() {
            let place = pattern.word.span();
            for ((node, all), address) in
                nodes.iter().zip(&mut addresses).zip(self.each(pattern, nodes, "an address", usable)?)
            {
                if let Some((other, earlier)) = self.owners.insert(address, (node.clone(), place.clone())) {
                    let message = if other == *node {
                        format!("`{node}` has the address {address} twice")
                    } else {
                        format!("{address} is the address of both `{other}` and `{node}`")
                    };
                    let finding = Finding::new(place.clone(), message);
                    let finding = if earlier == place {
                        finding.help("write a hostlist, as in \"10.20.0.[1-9]\"")
                    } else {
                        finding.related(earlier, "here first")
                    };
                    return Err(finding.report(&mut self.findings));
                }
                all.push(address);
            }
        }
        Ok(addresses)
    }

    /// The value of a pattern for each node. Reports the first error.
    fn each<T, E: Into<Wrong>>(
        &mut self,
        pattern: &Pattern<'_>,
        nodes: &[NodeName],
        what: &str,
        read: impl Fn(&str) -> Result<T, E>,
    ) -> Result<Vec<T>, Reported> {
        let texts = pattern.of(nodes).map_err(|finding| self.report(&pattern.word, *finding))?;
        let values = texts.into_iter().map(|text| read(&text).map_err(|wrong| (text, wrong.into())));
        let values: Result<Vec<T>, _> = values.collect();
        values.map_err(|(text, wrong)| self.report_wrong(&pattern.word, &text, what, &wrong))
    }

    fn report_wrong(&mut self, word: &Word<'_>, text: &str, what: &str, wrong: &Wrong) -> Reported {
        let place = wrong.span.clone().and_then(|span| part_of(word, text, &span)).unwrap_or_else(|| word.span());
        self.report(word, Finding::new(place, format!("`{text}` is not {what}")).label(&*wrong.reason))
    }

    fn report(&mut self, word: &Word<'_>, finding: Finding) -> Reported {
        if self.wrong.insert(word.span().start) {
            finding.report(&mut self.findings);
        }
        Reported
    }
}

/// The value of the entry, or else the value of the defaults.
fn own_or_default<'k, T>(
    own: Option<&'k Result<T, Reported>>,
    default: Option<&'k Result<T, Reported>>,
) -> Result<Option<&'k T>, Reported> {
    own.or(default).map(Result::as_ref).transpose().map_err(|reported| *reported)
}

fn repeated(node: &NodeName, word: &Word<'_>, earlier: Range<usize>) -> Finding {
    let finding = Finding::new(word.span(), format!("the node `{node}` is twice in `nodes`"))
        .help("a node has one entry; put values of several nodes into a hostlist entry or `[defaults]`");
    if earlier == word.span() {
        finding.label("twice here")
    } else {
        finding.label("again here").related(earlier, "here first")
    }
}

/// Reads an address. Fails if other nodes cannot reach the address.
fn usable(text: &str) -> Result<IpAddr, &'static str> {
    let address: IpAddr = text.parse().map_err(|_| "write it as in \"10.20.0.1\" or \"fd20::1\"")?;
    if address.is_unspecified() || address.is_multicast() || address.is_loopback() {
        return Err("other nodes cannot reach it");
    }
    if is_link_local(&address) {
        return Err("remove it: netemctl asks the agent for link-local addresses");
    }
    Ok(address)
}

fn goes_with(key: &str) -> String {
    let transports: Vec<_> = agent::with_key(key).map(|transport| format!("`{}`", transport.name())).collect();
    format!("`{key}` goes with the transport {}", transports.join(" or "))
}

/// The findings about defaults that no node uses.
fn idle_defaults(defaults: &Keys<'_>, transports: &BTreeSet<TransportKind>) -> Vec<Finding> {
    let is_idle = |key: &str| !transports.iter().any(|transport| agent::keys(*transport).contains(&key));
    let keys = defaults.of_transports.iter().filter(|(key, _)| is_idle(key));
    keys.map(|(key, place)| {
        Finding::new(place.clone(), format!("no node uses `{key}`")).help(format!("{}; remove it", goes_with(key)))
    })
    .collect()
}

fn needless_tls(tls: Option<&TlsTable<'_>>, transports: &BTreeSet<TransportKind>) -> Option<Finding> {
    let tls = tls.filter(|_| !transports.contains(&TransportKind::Https))?;
    let finding = Finding::new(tls.key.clone(), "no agent uses HTTPS, so `tls` is unused");
    Some(finding.help("remove it, or write `transport = \"https\"`"))
}
