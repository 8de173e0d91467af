//! Reads the TOML of an inventory into a [`Document`]: the first pass, before `gather`.
//!
//! The pass checks keys and types. It does not expand node names. A word is a string with its span in the file.

use std::ops::Range;

use ipnetwork::IpNetwork;
use toml::Spanned;

use super::pattern::Pattern;
use crate::{
    pki::TlsTable,
    plan::TransportKind,
    topology::{Finding, Reported, Table, TableEntry, Word, integer},
};

/// An inventory with checked keys and types.
pub(super) struct Document<'t> {
    pub(super) defaults: Keys<'t>,
    pub(super) groups: Vec<Group<'t>>,
    pub(super) zones: Vec<Zone<'t>>,
    pub(super) tls: Option<TlsTable<'t>>,
}

/// One entry of `[nodes]`.
pub(super) struct Group<'t> {
    /// A name or a hostlist.
    pub(super) names: Word<'t>,
    /// `None`: the value is not a table. The error is reported.
    pub(super) keys: Option<Keys<'t>>,
}

/// One entry of `[zones]`.
pub(super) struct Zone<'t> {
    pub(super) name: Word<'t>,
    pub(super) members: Vec<Word<'t>>,
}

/// The value of a key in the file. [`Reported`]: the value is wrong, and the findings have the mistake.
type Value<T> = Result<T, Reported>;

/// The keys of one entry, or of `[defaults]`.
#[derive(Default)]
pub(super) struct Keys<'t> {
    /// The keys in the file that belong to the agent's address, with their spans.
    pub(super) of_transports: Vec<(&'t str, Range<usize>)>,
    pub(super) transport: Option<Value<TransportKind>>,
    pub(super) host: Option<Value<Pattern<'t>>>,
    pub(super) port: Option<Value<u16>>,
    pub(super) user: Option<Value<Word<'t>>>,
    pub(super) socket: Option<Value<Pattern<'t>>>,
    pub(super) interface: Option<Value<Selector<'t>>>,
    pub(super) addresses: Option<Value<Vec<Pattern<'t>>>>,
}

/// The selection of an interface, by `interface` or by `network`.
#[derive(Clone, Debug)]
pub(super) enum Selector<'t> {
    Interface(Pattern<'t>),
    Network(IpNetwork),
}

impl<'t> Keys<'t> {
    fn take(table: &mut Table<'t>, is_default: bool, findings: &mut Vec<Finding>) -> Self {
        let host = table.take("host");
        let (interface, network) = (table.take("interface"), table.take("network"));
        // Two nodes never share an address, so `addresses` has no default.
        let addresses = if is_default { None } else { table.take("addresses") };
        let [transport, port, user, socket] = ["transport", "port", "user", "socket"].map(|key| table.take(key));
        let of_transports = [host, port, user, socket].into_iter().flatten();
        Self {
            of_transports: of_transports.map(|entry| (entry.key(), entry.key_span())).collect(),
            transport: transport.map(|entry| read_transport(entry, findings).ok_or(Reported)),
            host: host.map(|entry| read_pattern(entry, findings)),
            port: port.map(|entry| read_port(entry, findings).ok_or(Reported)),
            user: user.map(|entry| entry.string(findings).ok_or(Reported)),
            socket: socket.map(|entry| read_pattern(entry, findings)),
            interface: read_selector(interface, network, findings),
            addresses: addresses.map(|entry| read_addresses(entry, findings).ok_or(Reported)),
        }
    }
}

/// Reads a whole inventory. `place` is the span for a finding about the whole inventory.
pub(super) fn read<'t>(mut top: Table<'t>, place: &Range<usize>, findings: &mut Vec<Finding>) -> Document<'t> {
    let defaults = top.take("defaults").and_then(|entry| {
        let mut table = entry.table("`defaults`", findings)?;
        let keys = Keys::take(&mut table, true, findings);
        table.close(findings);
        Some(keys)
    });
    let nodes = top.take("nodes");
    if nodes.is_none() {
        Finding::new(place.clone(), "an inventory needs nodes")
            .label("`[nodes]` is missing")
            .help("add `[nodes]` and `\"n[1-9]\" = { interface = \"eno2\" }`")
            .report(findings);
    }
    let groups = nodes.map(|nodes| read_nodes(nodes, findings)).unwrap_or_default();
    let tls = top.take("tls").and_then(|entry| TlsTable::read(entry, findings));
    let zones = top.take("zones").map(|entry| read_zones(entry, findings)).unwrap_or_default();
    top.close(findings);
    Document { defaults: defaults.unwrap_or_default(), groups, zones, tls }
}

fn read_nodes<'t>(entry: TableEntry<'t>, findings: &mut Vec<Finding>) -> Vec<Group<'t>> {
    const HELP: &str = "write `\"n[1-9]\" = {}`, with the nodes' own keys between the braces";
    let Some(nodes) = entry.value().get_ref().as_table() else {
        entry.wrong_type("a table of nodes").help(HELP).report(findings);
        return Vec::new();
    };
    let entries = Table::open("the nodes", nodes).take_rest();
    if entries.is_empty() {
        Finding::new(entry.key_span(), "`nodes` is empty").label("no node").help(HELP).report(findings);
    }
    let group = |group: TableEntry<'t>| {
        let names = Spanned::new(group.key_span(), group.key());
        let Some(keys) = group.value().get_ref().as_table() else {
            group.wrong_type("a table").help(HELP).report(findings);
            return Group { names, keys: None };
        };
        let mut table = Table::open("a node", keys);
        let keys = Keys::take(&mut table, false, findings);
        // TOML reads `n1.example.org = {}` as nested tables.
        let dotted = table.take_tables();
        if let Some(dotted) = dotted.first() {
            let name = format!("{}.{}", group.key(), dotted.key());
            Finding::new(dotted.key_span(), format!("TOML reads `{name}` as two nested tables"))
                .label("the second part")
                .help("put a name with dots in quotes, as in `\"n1.example.org\" = {}`")
                .report(findings);
        }
        table.close(findings);
        Group { names, keys: dotted.is_empty().then_some(keys) }
    };
    entries.into_iter().map(group).collect()
}

fn read_zones<'t>(entry: TableEntry<'t>, findings: &mut Vec<Finding>) -> Vec<Zone<'t>> {
    let Some(mut table) = entry.table("the zones", findings) else { return Vec::new() };
    let zone = |zone: TableEntry<'t>| {
        let members = zone.words(findings)?;
        if zone.value().get_ref().as_array().is_some_and(|array| array.is_empty()) {
            let finding = Finding::new(zone.key_span(), format!("the zone `{}` is empty", zone.key()));
            finding.label("no member").help("add a node, or remove the zone").report(findings);
        }
        Some(Zone { name: Spanned::new(zone.key_span(), zone.key()), members })
    };
    table.take_rest().into_iter().filter_map(zone).collect()
}

fn read_transport(entry: TableEntry<'_>, findings: &mut Vec<Finding>) -> Option<TransportKind> {
    let help = "the transports are \"https\", \"ssh\" and, on this machine, \"unix\"";
    let transports = TransportKind::ALL.map(|transport| (transport.name(), transport));
    entry.choice_of(&entry.string(findings)?, &transports, help, findings)
}

fn read_port(entry: TableEntry<'_>, findings: &mut Vec<Finding>) -> Option<u16> {
    integer(entry, 1..=u16::MAX, "the port of the agents, or of the SSH servers", findings)
}

fn read_network(entry: TableEntry<'_>, findings: &mut Vec<Finding>) -> Option<IpNetwork> {
    const HELP: &str = "write the network of the database's interfaces, as in \"10.20.0.0/16\"";
    let word = entry.string(findings)?;
    let text = *word.get_ref();
    let finding = match text.parse::<IpNetwork>() {
        Ok(_) if !text.contains('/') => Finding::new(word.span(), format!("`{text}` has no prefix length")).help(HELP),
        Ok(network) if network.network() != network.ip() => {
            let right = format!("{}/{}", network.network(), network.prefix());
            Finding::new(word.span(), format!("`{text}` is not the first address of the network"))
                .help(format!("write \"{right}\""))
        }
        Ok(network) if network.prefix() == 0 => {
            Finding::new(word.span(), "this network contains every address").help(HELP)
        }
        Ok(network) => return Some(network),
        Err(_) => Finding::new(word.span(), format!("`{text}` is not a network")).help(HELP),
    };
    finding.refuse(findings)
}

fn read_addresses<'t>(entry: TableEntry<'t>, findings: &mut Vec<Finding>) -> Option<Vec<Pattern<'t>>> {
    let words = entry.words(findings)?;
    if words.is_empty() && entry.value().get_ref().as_array().is_some_and(|array| array.is_empty()) {
        Finding::new(entry.key_span(), "`addresses` is empty")
            .help("remove it: netemctl then asks the agent for the interface's addresses")
            .report(findings);
    }
    words.into_iter().map(|word| Pattern::read(word, findings)).collect()
}

fn read_pattern<'t>(entry: TableEntry<'t>, findings: &mut Vec<Finding>) -> Value<Pattern<'t>> {
    entry.string(findings).and_then(|word| Pattern::read(word, findings)).ok_or(Reported)
}

/// Reads `interface` or `network`. Reports an error if both are present.
fn read_selector<'t>(
    interface: Option<TableEntry<'t>>,
    network: Option<TableEntry<'t>>,
    findings: &mut Vec<Finding>,
) -> Option<Value<Selector<'t>>> {
    let name = interface.map(|entry| read_pattern(entry, findings).map(Selector::Interface));
    let addresses = network.map(|entry| read_network(entry, findings).map(Selector::Network).ok_or(Reported));
    let (Some(one), Some(other)) = (interface, network) else { return name.or(addresses) };
    let finding = Finding::new(other.key_span(), "`interface` and `network` exclude each other")
        .label("by network")
        .related(one.key_span(), "by name")
        .help("keep `interface` if all these nodes use the same name, otherwise `network`");
    Some(Err(finding.report(findings)))
}
