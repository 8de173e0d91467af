//! `netemctl inventory init`: writes an inventory file from the agents' answers.

use std::{
    collections::BTreeMap,
    fs::OpenOptions,
    io::{self, Write},
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::{Context, Exit, Failure, OrFail, context::Agents, exit_of, output::talk, render::count};
use crate::{
    fleet::split,
    inventory::{Contact, Draft, Drafted, draft},
    pki::TlsFiles,
    plan::{AddressDefaults, AgentAddress, TransportKind},
    topology::{Hostlist, NodeName},
    wire::GetHost,
};

/// The maximum number of characters in a host's name or in an address.
const MAX_CHARS: usize = 253;

/// Ask hosts for their interfaces, addresses and speeds, and write an inventory file
///
/// Proposes the interface that the agent's config allows. Writes nothing if a host does not answer.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  netemctl inventory init 'n[1-9]' --tls-dir pki/controller
  netemctl inventory init 'ssh://root@n[1-9]' --output cluster.toml")]
pub(super) struct Init {
    #[arg(
        required = true,
        value_name = "HOST",
        help = "Hosts and hostlists: n[1-9].example.org, https://HOST[:PORT], ssh://[USER@]HOST[:PORT], unix:/PATH"
    )]
    hosts: Vec<String>,

    /// Default transport
    #[arg(long, value_name = "TRANSPORT", default_value = "https", value_parser = ["https", "ssh"])]
    transport: String,

    /// Default port
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,

    /// Default user, with ssh
    #[arg(long, value_name = "USER")]
    user: Option<String>,

    /// Write to this file instead of stdout
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Overwrite an existing file
    #[arg(long, requires = "output")]
    force: bool,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "InventoryInit"))]
pub(in crate::cli) struct Initial<'a> {
    /// The written file; `None`: the text of the file is in `text`.
    file: Option<&'a Path>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    nodes: &'a BTreeMap<NodeName, Drafted>,
}

impl Init {
    pub(super) fn run(self, context: &Context) -> Result<Exit, Failure> {
        if let Some(file) = self.output.as_ref().filter(|file| !self.force && file.exists()) {
            return Err(exists(file));
        }
        let addresses = self.addresses()?;
        let has_https = addresses.iter().any(|address| address.transport() == TransportKind::Https);
        // The inventory names only the certificate of --tls-dir. The default certificate needs no entry.
        let tls = context.tls_files().filter(|_| has_https);
        if has_https && context.certificate(None).is_none() {
            return Err(Failure::new(Exit::Usage, "agents with HTTPS require a controller's certificate")
                .hint("make one: netemctl pki issue --controller; or name its folder: --tls-dir DIR")
                .hint("or reach the hosts by ssh: --transport ssh"));
        }
        let hosts = ask(context, &addresses, tls.as_ref())?;
        let draft = draft(&hosts, self.written(tls).as_ref()).map_err(|error| Failure::new(Exit::Refused, error))?;
        if let Some(file) = &self.output {
            self.write(file, &draft.text)?;
        }
        self.answer(context, &draft)
    }

    fn answer(&self, context: &Context, draft: &Draft) -> Result<Exit, Failure> {
        let file = self.output.as_deref();
        let text = file.is_none().then_some(&*draft.text);
        let initial = Initial { file, text, nodes: &draft.nodes };
        let exit = match file {
            Some(file) => context.answer(&initial, || {
                let (file, nodes) = (file.display(), count(draft.nodes.len(), "node"));
                format!("{file}: {nodes}; review it, then run: netemctl inventory check {file}")
            })?,
            None => context.answer_as_is(&initial, || draft.text.clone())?,
        };
        for (node, drafted) in &draft.nodes {
            if let Some(warning) = &drafted.warning {
                talk(&format!("warning: {node}: {warning}\n"));
            }
        }
        Ok(exit)
    }

    /// The addresses of the agents, without duplicates.
    fn addresses(&self) -> Result<Vec<AgentAddress>, Failure> {
        let transport = TransportKind::ALL.into_iter().find(|transport| transport.name() == self.transport);
        let transport = transport.unwrap_or(TransportKind::Https);
        let defaults = AddressDefaults { transport, port: self.port, user: self.user.clone() };
        let mut addresses = Vec::new();
        for word in &self.hosts {
            // Brackets after :// belong to an IPv6 address, not to a hostlist.
            let texts = if word.contains("://[") {
                vec![word.clone()]
            } else {
                let list = Hostlist::parse_up_to(word, MAX_CHARS);
                list.map_err(|error| Failure::new(Exit::Usage, &error).hint(error.help()))?.names()
            };
            for text in texts {
                let address = AgentAddress::parse(&text, &defaults);
                let invalid = |reason: &str| Failure::new(Exit::Usage, format!("`{text}` is not a host: {reason}"));
                let address = address.map_err(|error| invalid(&error.reason))?;
                if matches!(address, AgentAddress::Http(_)) {
                    return Err(invalid("there is no transport `http`"));
                }
                if !addresses.contains(&address) {
                    addresses.push(address);
                }
            }
        }
        Ok(addresses)
    }

    /// The TLS files as the inventory names them.
    ///
    /// Paths in an inventory are relative to its folder. If this folder is not the current directory, the paths become
    /// absolute.
    fn written(&self, tls: Option<TlsFiles>) -> Option<TlsFiles> {
        let folder = self.output.as_deref().and_then(Path::parent).unwrap_or_else(|| Path::new(""));
        let written = |path: PathBuf| {
            if folder == Path::new("") { path } else { std::path::absolute(&path).unwrap_or(path) }
        };
        let TlsFiles { ca, cert, key } = tls?;
        Some(TlsFiles { ca: written(ca), cert: written(cert), key: written(key) })
    }

    fn write(&self, file: &Path, text: &str) -> Result<(), Failure> {
        let opened = OpenOptions::new().write(true).create(true).truncate(true).create_new(!self.force).open(file);
        opened.and_then(|mut opened| opened.write_all(text.as_bytes())).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => exists(file),
            _ => Failure::new(Exit::File, format!("cannot write {}: {error}", file.display())),
        })
    }
}

fn exists(file: &Path) -> Failure {
    Failure::new(Exit::Refused, format!("{} exists already; nothing was written", file.display()))
        .hint("choose another name, or overwrite it with --force")
}

/// Asks each agent about its host.
fn ask(
    context: &Context,
    addresses: &[AgentAddress],
    tls: Option<&TlsFiles>,
) -> Result<Vec<(AgentAddress, crate::wire::Host)>, Failure> {
    let mut agents: BTreeMap<NodeName, Contact> = BTreeMap::new();
    for (number, address) in (1..).zip(addresses) {
        // The path of a socket is not a node's name.
        let given = address.host().and_then(|host| host.parse().ok()).filter(|name| !agents.contains_key(name));
        let numbered = || format!("host-{number}").parse();
        let name: NodeName = given.map_or_else(numbered, Ok).or_misused()?;
        agents.insert(name, Contact { agent: address.clone(), interface: None });
    }
    let fleet = context.fleet_of(Agents::Unplaced(agents.clone()), tls)?;
    let (hosts, silent) = context.ask(&format!("asking {}", count(addresses.len(), "host")), async |_| {
        Ok(split(fleet.call(context.timeouts(), |_| GetHost {}).await))
    })?;
    if !silent.is_empty() {
        let exit = Exit::of_many(silent.values().map(exit_of)).unwrap_or(Exit::Unreachable);
        let mut failure = Failure::new(
            exit,
            format!("{} of {} did not answer; nothing was written", silent.len(), count(addresses.len(), "host")),
        );
        failure.nodes = silent.iter().map(|(name, error)| (name.clone(), error.into())).collect();
        return Err(failure);
    }
    Ok(hosts.into_iter().filter_map(|(name, host)| Some((agents.remove(&name)?.agent, host))).collect())
}
