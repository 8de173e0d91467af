//! `netemctl pki`: makes a private CA, and the certificates with which agents and controllers authenticate.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Serialize;

use super::{
    Context, Exit, Failure, OrFail,
    render::{count, table},
};
use crate::{
    pki::{
        AuthorityError, CertificateRequest, Role, Validity,
        store::{Store, StoreError, StoredIdentity, describe},
    },
    topology::{NodeName, hostlist},
};

/// Make certificates for agents and controllers
///
/// The PKI folder has a private CA, and a folder with ca.pem, cert.pem and key.pem for each node, the controller and
/// the viewer. Keep the CA's key secret: its holder can change every node.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
A fleet of nine:
  netemctl pki init
  netemctl pki issue 'n[1-9]' --controller
  ssh root@n1 install -d -m 700 -o netemctl /etc/netemctl/tls
  scp -p ~/.config/netemctl/pki/nodes/n1/*.pem root@n1:/etc/netemctl/tls/
  ssh root@n1 chown -R netemctl: /etc/netemctl/tls
  netemctl pki issue n7 --force         a new certificate for n7; copy it to n7

Then set listen and [tls] in each agent's config (netemctl agent --help).")]
pub(super) struct PkiArgs {
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        help = "PKI folder [env: NETEMCTL_PKI_DIR] [default: ~/.config/netemctl/pki]"
    )]
    dir: Option<PathBuf>,

    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Make the CA
    Init {
        /// Validity in days
        #[arg(long, default_value_t = 3650, value_parser = clap::value_parser!(u32).range(1..=36_500))]
        days: u32,

        /// Replace the existing CA. Nodes that trust the new CA reject certificates of the old one
        #[arg(long)]
        force: bool,
    },
    /// Make certificates with their keys
    Issue {
        /// Nodes whose agents get a certificate: n7, n[1-9]
        #[arg(value_name = "NODE")]
        nodes: Vec<String>,

        /// Also make a controller's certificate
        #[arg(long)]
        controller: bool,

        /// Also make a viewer's certificate, which is read-only, for monitoring
        #[arg(long)]
        viewer: bool,

        /// Host name or address to add to a node's certificate, for other clients of the HTTP API
        #[arg(long, value_name = "HOST")]
        host: Vec<String>,

        /// Validity in days
        #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=36_500))]
        days: u32,

        /// Replace existing certificates
        #[arg(long)]
        force: bool,
    },
    /// Show the certificates and how long they are valid
    Show,
}

impl PkiArgs {
    pub(super) fn run(self, context: &Context) -> Result<Exit, Failure> {
        let store = Store::at(folder(self.dir)?);
        match self.verb {
            Verb::Init { days, force } => init(context, &store, days, force),
            Verb::Issue { nodes, controller, viewer, host, days, force } => {
                if nodes.is_empty() && !controller && !viewer {
                    return Err(Failure::new(Exit::Usage, "name nodes, --controller or --viewer")
                        .hint("an example: netemctl pki issue 'n[1-9]' --controller"));
                }
                let clients = [(controller, Role::Controller), (viewer, Role::Viewer)];
                let clients = clients.into_iter().filter(|(is_wanted, _)| *is_wanted).map(|(_, role)| role);
                let requests = requests(&nodes, clients, &host, days)?;
                issue(context, &store, &requests, force)
            }
            Verb::Show => show(context, &store),
        }
    }
}

/// The PKI folder: `chosen`, else `NETEMCTL_PKI_DIR`, else the default (XDG Base Directory).
pub(super) fn folder(chosen: Option<PathBuf>) -> Result<PathBuf, Failure> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let config = || {
        let folder = variable("XDG_CONFIG_HOME").filter(|path| path.is_absolute());
        let folder = folder.or_else(|| variable("HOME").map(|home| home.join(".config")));
        folder.map(|folder| folder.join("netemctl/pki"))
    };
    chosen.or_else(|| variable("NETEMCTL_PKI_DIR")).or_else(config).ok_or_else(|| {
        Failure::new(Exit::Usage, "neither HOME nor XDG_CONFIG_HOME is set").hint("name a folder with --dir")
    })
}

fn init(context: &Context, store: &Store, days: u32, force: bool) -> Result<Exit, Failure> {
    store.init(Validity::days(days), force)?;
    // The CA is new, so each other entry is a certificate of an older CA.
    let replaces_certificates = store.list().map_or(true, |entries| entries.len() > 1);
    let made = Made { directory: store.path() };
    context.answer(&made, || {
        let path = made.directory.display();
        let replace = if replaces_certificates { " --force" } else { "" };
        format!("made a CA in {path}; next: netemctl pki issue NODE... --controller{replace}")
    })
}

fn requests(
    nodes: &[String],
    clients: impl Iterator<Item = Role>,
    hosts: &[String],
    days: u32,
) -> Result<Vec<CertificateRequest>, Failure> {
    let mut names = BTreeSet::<NodeName>::new();
    for list in nodes {
        for name in hostlist::expand(list)? {
            names.insert(name.parse().or_fail(Exit::Usage, format!("`{name}` is not a node's name"))?);
        }
    }
    if !hosts.is_empty() && names.len() != 1 {
        return Err(Failure::new(Exit::Usage, "--host needs exactly one node")
            .hint("issue one node at a time: netemctl pki issue n7 --host n7.example.org"));
    }
    let validity = Validity::days(days);
    let of_client = |role| CertificateRequest { role, hosts: Vec::new(), validity };
    let of_node = |node| CertificateRequest { role: Role::Agent(node), hosts: hosts.to_vec(), validity };
    Ok(clients.map(of_client).chain(names.into_iter().map(of_node)).collect())
}

fn issue(context: &Context, store: &Store, requests: &[CertificateRequest], force: bool) -> Result<Exit, Failure> {
    // Existing certificates are kept. If all exist, the store returns an error.
    let is_there = |request: &CertificateRequest| !force && store.folder(&request.role).exists();
    let (mut kept, mut missing): (Vec<CertificateRequest>, Vec<CertificateRequest>) =
        requests.iter().cloned().partition(is_there);
    if missing.is_empty() {
        std::mem::swap(&mut kept, &mut missing);
    }
    let issued = store.issue(&missing, force)?;
    let issued = Issued { issued, kept: kept.iter().map(|request| store.folder(&request.role)).collect() };
    context.answer(&issued, || {
        let path = store.path().display();
        let mut text = format!("issued {} in {path}\n", count(issued.issued.len(), "certificate"));
        if !kept.is_empty() {
            let roles: Vec<_> = kept.iter().map(|request| &request.role).collect();
            text += &format!("kept the certificates of {}; --force replaces them\n", describe(&roles));
        }
        let agent = |request: &CertificateRequest| match &request.role {
            Role::Agent(node) => Some(node.clone()),
            _ => None,
        };
        let nodes: Vec<NodeName> = missing.iter().filter_map(agent).collect();
        let node = match &nodes[..] {
            [] => return text,
            [only] => only.as_str(),
            _ => "NODE",
        };
        text += &format!(
            "copy {path}/nodes/{node}/ to /etc/netemctl/tls on {node}; set ca, cert and key in [tls] of its config\n"
        );
        text
    })
}

/// The document of `pki init`.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "PkiInit"))]
pub(in crate::cli) struct Made<'a> {
    directory: &'a Path,
}

/// The document of `pki issue`, with the folders of the new certificates.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "PkiIssue"))]
pub(in crate::cli) struct Issued {
    issued: Vec<PathBuf>,
    /// The folders of certificates that existed already.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    kept: Vec<PathBuf>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "PkiShow"))]
pub(in crate::cli) struct Shown {
    directory: PathBuf,
    /// True if all certificates are valid and signed by the CA.
    ok: bool,
    ca: Certificate,
    #[serde(skip_serializing_if = "Option::is_none")]
    controller: Option<Certificate>,
    #[serde(skip_serializing_if = "Option::is_none")]
    viewer: Option<Certificate>,
    nodes: BTreeMap<NodeName, Certificate>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Certificate"))]
struct Certificate {
    folder: PathBuf,
    from: String,
    until: String,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "CertificateState"))]
#[serde(rename_all = "kebab-case")]
enum State {
    Ok,
    /// The certificate expires within two weeks.
    EndsSoon,
    Expired,
    /// Another CA signed the certificate, usually a CA that was replaced.
    OtherCa,
}

impl State {
    fn of(entry: &StoredIdentity) -> Self {
        match entry.validity.left() {
            _ if !entry.is_ours => Self::OtherCa,
            None => Self::Expired,
            Some(left) if left < Duration::from_hours(14 * 24) => Self::EndsSoon,
            Some(_) => Self::Ok,
        }
    }

    fn describe(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::EndsSoon => "ends soon",
            Self::Expired => "expired",
            Self::OtherCa => "signed by another CA",
        }
    }
}

fn show(context: &Context, store: &Store) -> Result<Exit, Failure> {
    let entries = store.list()?;
    let certificate = |entry: &StoredIdentity| Certificate {
        folder: entry.folder.clone(),
        from: entry.validity.from.to_string(),
        until: entry.validity.until.to_string(),
        state: State::of(entry),
    };
    let ok = entries.iter().all(|entry| matches!(State::of(entry), State::Ok | State::EndsSoon));
    let of = |role: Option<Role>| entries.iter().find(|entry| entry.role == role).map(certificate);
    // `list` fails without a CA.
    let Some(ca) = of(None) else { return Err(StoreError::NoCa(store.path().into()).into()) };
    let node = |entry: &StoredIdentity| match &entry.role {
        Some(Role::Agent(node)) => Some((node.clone(), certificate(entry))),
        _ => None,
    };
    let shown = Shown {
        directory: store.path().into(),
        ok,
        ca,
        controller: of(Some(Role::Controller)),
        viewer: of(Some(Role::Viewer)),
        nodes: entries.iter().filter_map(node).collect(),
    };
    context.answer(&shown, || {
        let row = |name: String, one: &Certificate| vec![name, one.until.clone(), one.state.describe().to_owned()];
        let others = [("the controller", &shown.controller), ("the viewer", &shown.viewer)];
        let others = others.into_iter().filter_map(|(name, one)| Some(row(name.to_owned(), one.as_ref()?)));
        let nodes = shown.nodes.iter().map(|(node, one)| row(node.to_string(), one));
        let rows = std::iter::once(row("the CA".to_owned(), &shown.ca)).chain(others).chain(nodes);
        let table = table(&["CERTIFICATE", "VALID UNTIL", "STATE"], rows);
        format!("{}\n\n{table}", shown.directory.display())
    })?;
    Ok(if ok { Exit::Ok } else { Exit::Differs })
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let (exit, hint) = match &error {
            StoreError::HasCa(_) => (
                Exit::Refused,
                Some(
                    "replace the CA: netemctl pki init --force; then issue all certificates again: netemctl pki issue \
                     NODE... --controller --force",
                ),
            ),
            StoreError::Issued(_) => (Exit::Refused, Some("replace them with --force; list them: netemctl pki show")),
            StoreError::NoCa(_) => (Exit::File, Some("make one: netemctl pki init; or name another folder with --dir")),
            StoreError::Authority(AuthorityError::Host(_) | AuthorityError::Outlives(_)) => (Exit::Usage, None),
            StoreError::Read(cause, _) | StoreError::Create(cause, _) => {
                (Exit::of_io(cause), Some("choose another folder: --dir DIR"))
            }
            StoreError::Open(..) | StoreError::Authority(_) | StoreError::Key(_) | StoreError::Odd(_) => {
                (Exit::File, None)
            }
        };
        hint.into_iter().fold(Self::new(exit, error), Self::hint)
    }
}
