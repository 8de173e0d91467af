//! Invalid certificates of agents and controllers: each kind is refused with its own message.

use std::{
    io::{Read, Write},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use netemctl::{
    agent::{Config, Limits, ServeError},
    fleet::{Access, CallError, Fleet},
    inventory::{Contact, InterfaceSelector},
    pki::{Identity, IdentityError, KEY_FILE, Role, TlsFiles, Untrusted, Validity},
    plan::{AgentAddress, HostPort, Wanted},
    wire::{
        ApiError, Call, Commit, Confirm, ErrorCode, GetHost, GetStamp, GetStatus, GetWanted, Plan, Prepare, Probe,
        Rollback, Ticket,
    },
};

use super::site::{
    DAY, Log, PATIENCE, Site, agent_of, authority, files, inventory, name, spawn, valid, write_identity,
};

fn past() -> Validity {
    let now = SystemTime::now();
    Validity { from: (now - 2 * DAY).into(), until: (now - DAY).into() }
}

fn future() -> Validity {
    let now = SystemTime::now();
    Validity { from: (now + DAY).into(), until: (now + 2 * DAY).into() }
}

/// The reason why agent and controller do not trust each other.
async fn untrusted(fleet: &Fleet, node: &str) -> Untrusted {
    match fleet.call_one(PATIENCE, &name(node), GetStamp {}).await {
        Err(CallError::Untrusted { why, .. }) => why,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_controller_and_an_agent_of_one_ca_talk() {
    let site = Site::up(Limits::default()).await;
    assert_eq!(site.ask().await.unwrap().generation, 0);
}

/// Regression: monitoring needed a controller's certificate, which gives the right to change every node.
#[tokio::test]
async fn a_viewer_may_read_and_neither_change_nor_measure() {
    let log = Log::start();
    let site = Site::up(Limits::default()).await;
    let folder = site.folder.path().join("viewer");
    write_identity(&folder, &site.authority, &site.authority, Role::Viewer, valid());
    let identity = Identity::read(&TlsFiles::in_folder(&folder)).unwrap().require_role(&Role::Controller, &folder);
    assert!(identity.is_ok(), "commands accept a viewer's certificate in place of a controller's");
    let (viewer, n1) = (site.fleet(Some(&folder)), name("n1"));
    let stamp = viewer.call_one(PATIENCE, &n1, GetStamp {}).await.unwrap();
    assert_eq!(viewer.call_one(PATIENCE, &n1, GetHost {}).await.unwrap().node, n1);
    assert_eq!(viewer.call_one(PATIENCE, &n1, GetWanted {}).await.unwrap().wanted.stamp(), stamp);
    // The call may fail, because the agent's interface does not exist. The viewer's role must not be the reason.
    let status = viewer.call_one(PATIENCE, &n1, GetStatus {}).await;
    assert!(status.as_ref().err().is_none_or(|error| !error.to_string().contains("viewer")), "{status:?}");

    let ticket = || Ticket("t".to_owned());
    let wanted = Wanted::default;
    let asked = [
        refusal(&viewer, Plan { base: stamp.clone(), wanted: Some(wanted()), edit: None }).await,
        refusal(&viewer, Prepare { ticket: ticket(), base: stamp.clone(), wanted: Some(wanted()), edit: None }).await,
        refusal(&viewer, Commit { ticket: ticket(), at: None, clock_ahead_ns: 0, confirm_within: DAY }).await,
        refusal(&viewer, Confirm { ticket: ticket(), by_all: false }).await,
        refusal(&viewer, Rollback { ticket: ticket() }).await,
        refusal(&viewer, probe()).await,
    ];
    for error in asked {
        assert!(error.code == ErrorCode::ReadOnly && error.message.contains("a viewer's"), "{error}");
    }
    assert_eq!(log.refusals(), [""; 0], "the agent accepts the connection");
    let controller = site.fleet(Some(&site.controller()));
    assert_ne!(refusal(&controller, Confirm { ticket: ticket(), by_all: false }).await.code, ErrorCode::Refused);
}

/// The error with which n1 refuses a request.
async fn refusal<C: Call>(fleet: &Fleet, request: C) -> ApiError
where
    C::Reply: std::fmt::Debug,
{
    match fleet.call_one(PATIENCE, &name("n1"), request).await {
        Err(CallError::Refused(error)) => error,
        other => panic!("{other:?}"),
    }
}

fn probe() -> Probe {
    let no = Duration::ZERO;
    Probe { run: 1, targets: Vec::new(), count: 1, settle: no, interval: no, timeout: no, listen: no }
}

/// `inventory init` calls agents whose node name it does not know yet.
#[tokio::test]
async fn a_controller_without_a_known_node_name_accepts_any_agent_of_its_ca_and_no_other() {
    let ask = async |site: &Site| {
        let agent = AgentAddress::Https(HostPort { host: site.address.ip().to_string(), port: site.address.port() });
        let identity = Identity::read(&TlsFiles::in_folder(&site.controller())).expect("an identity");
        let access = Access { tls: Some(Arc::new(identity)), ..Access::default() };
        let contact = |interface| [(name("host-1"), Contact { agent: agent.clone(), interface })].into();
        let unknown = Fleet::of_agents(contact(None), access.clone());
        let known = Fleet::of_agents(contact(Some(InterfaceSelector::Named("db0".parse().expect("a name")))), access);
        let ask = async |fleet: &Fleet| fleet.call_one(PATIENCE, &name("host-1"), GetStamp {}).await;
        (ask(&unknown).await, ask(&known).await)
    };
    let (unknown, known) = ask(&Site::up(Limits::default()).await).await;
    assert_eq!(unknown.expect("any agent of the CA is accepted").generation, 0);
    assert!(matches!(known, Err(CallError::Untrusted { why: Untrusted::OtherNode { .. }, .. })), "{known:?}");
    let site = Site::with(Limits::default(), true, authority(), |folder, authority| {
        write_identity(folder, authority, &super::site::authority(), agent_of("n1"), valid());
    });
    let (unknown, _) = ask(&site.await).await;
    assert!(matches!(unknown, Err(CallError::Untrusted { why: Untrusted::OtherCa(_), .. })), "{unknown:?}");
}

/// Each case has issuer, role and validity of the client's certificate, the controller's message, and the agent's log
/// line.
#[tokio::test]
async fn each_kind_of_wrong_client_is_refused_in_its_own_words() {
    let log = Log::start();
    let site = Site::up(Limits::default()).await;
    let other = authority();
    let refused = [
        (
            &other,
            Role::Controller,
            valid(),
            "the agent's CA is not the controller's CA",
            "its certificate is signed by another CA",
        ),
        (
            &site.authority,
            agent_of("n1"),
            valid(),
            "not a controller's",
            "the certificate is that of the agent of n1, not of",
        ),
        (&site.authority, Role::Controller, past(), "is expired or not yet valid", "its certificate expired "),
        (
            &site.authority,
            Role::Controller,
            future(),
            "is expired or not yet valid",
            "its certificate is not valid before ",
        ),
    ];
    for (issuer, role, validity, says, logs) in refused {
        let folder = site.folder.path().join("other");
        write_identity(&folder, &site.authority, issuer, role, validity);
        let said = untrusted(&site.fleet(Some(&folder)), "n1").await.to_string();
        assert!(said.starts_with("it refuses our certificate") && said.contains(says), "{said}");
        let last = log.refusals().pop().unwrap_or_default();
        assert!(last.starts_with(logs), "{last}");
    }
    let none = site.fleet(None).call_one(PATIENCE, &name("n1"), GetStamp {}).await.unwrap_err().to_string();
    assert!(none.contains("--tls-dir") && none.contains("netemctl pki issue --controller"), "{none}");
    assert_eq!(site.ask().await.unwrap().generation, 0, "a valid certificate is still accepted");
    assert_eq!(log.refusals().len(), 4, "{}", log.text());
}

/// True if the reason is the expected one.
type IsExpected = fn(&Untrusted) -> bool;

/// Each case has issuer, role and validity of the agent's certificate, and the controller's reason.
#[tokio::test]
async fn each_kind_of_wrong_agent_is_refused_in_its_own_words() {
    let (own, other) = (authority(), authority());
    let n1 = || name("n1");
    let agents: [(_, Role, Validity, IsExpected); 4] = [
        (&other, agent_of("n1"), valid(), |why| matches!(why, Untrusted::OtherCa(_))),
        (&own, agent_of("n1"), past(), |why| matches!(why, Untrusted::Expired(..))),
        (&own, agent_of("n1"), future(), |why| matches!(why, Untrusted::Early(_))),
        (
            &own,
            agent_of("n1"),
            valid(),
            |why| matches!(why, Untrusted::OtherNode { node, other } if node.as_str() == "n2" && other.as_str() == "n1"),
        ),
    ];
    let mut sentences = Vec::new();
    for (index, (issuer, role, validity, is_expected)) in agents.into_iter().enumerate() {
        let agent = Site::with(Limits::default(), true, authority(), |folder, _| {
            write_identity(folder, &own, issuer, role, validity);
        });
        let site = agent.await;
        let controller = site.folder.path().join("controller");
        write_identity(&controller, &own, &own, Role::Controller, valid());
        let node = if index == 3 { "n2" } else { "n1" };
        let why = untrusted(&site.fleet_of(node, Some(&controller)), node).await;
        assert!(is_expected(&why), "{why:?}");
        sentences.push(why.to_string());
    }
    let all = sentences.join("\n");
    for says in [
        "the agent's CA is not the controller's CA",
        "expired 20",
        "is not valid before 20",
        "the agent of n1, not of n2",
    ] {
        assert_eq!(sentences.iter().filter(|said| said.contains(says)).count(), 1, "{says}: {all}");
    }
    assert!(all.contains(&format!("netemctl pki issue {} --force", n1())), "{all}");
}

#[tokio::test]
async fn a_controller_is_no_agent_even_if_its_certificate_is_used_as_one() {
    // An agent does not start with a controller's certificate, so this test has its own TLS server.
    let own = authority();
    let folder = tempfile::tempdir().unwrap();
    write_identity(&folder.path().join("c"), &own, &own, Role::Controller, valid());
    let identity = Identity::read(&TlsFiles::in_folder(&folder.path().join("c"))).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(identity.server().unwrap()));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            drop(acceptor.accept(stream).await);
        }
    });
    let agent = AgentAddress::Https(HostPort { host: "localhost".to_owned(), port: address.port() });
    let access = Access { tls: Some(Arc::new(identity)), ..Access::default() };
    let why = untrusted(&Fleet::new(inventory("n1", agent), access), "n1").await;
    assert!(matches!(&why, Untrusted::NoAgent(said, _) if said.contains("that of a controller")), "{why:?}");
}

#[tokio::test]
async fn tls_to_a_plain_port_and_plain_http_to_one_with_tls_are_told_apart() {
    let log = Log::start();
    let plain = Site::plain(Limits::default()).await;
    assert_eq!(untrusted(&plain.fleet(Some(&plain.controller())), "n1").await, Untrusted::Plain);

    let site = Site::up(Limits::default()).await;
    let address = HostPort { host: site.address.ip().to_string(), port: site.address.port() };
    let fleet = Fleet::new(inventory("n1", AgentAddress::Http(address)), Access::default());
    match fleet.call_one(PATIENCE, &name("n1"), GetStamp {}).await {
        Err(CallError::Refused(error)) => {
            assert_eq!(error.code, ErrorCode::BadRequest);
            assert!(error.message.contains("HTTPS only"), "{error}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(log.refusals(), ["it does not speak TLS (plain HTTP?)"]);
}

#[tokio::test]
async fn without_tls_only_programs_of_this_machine_are_answered() {
    let site = Site::plain(Limits::default()).await;
    let address = HostPort { host: site.address.ip().to_string(), port: site.address.port() };
    let fleet = Fleet::new(inventory("n1", AgentAddress::Http(address)), Access::default());
    assert!(fleet.call_one(PATIENCE, &name("n1"), GetStamp {}).await.is_ok());
    // A web page can make a browser send such requests. Its host name resolves to the loopback, or `origin` names its
    // site.
    for (header, status) in [
        ("host: evil.example", "403"),
        ("host: localhost\r\norigin: http://evil.example", "403"),
        ("host: localhost:7946", "200"),
        ("host: [::1]:7946", "200"),
    ] {
        let address = site.address;
        let answer = tokio::task::spawn_blocking(move || {
            let mut stream = std::net::TcpStream::connect(address).unwrap();
            let body = "content-type: application/json\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}";
            write!(stream, "POST /v1/stamp HTTP/1.1\r\n{header}\r\n{body}").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        });
        let answer = answer.await.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{header}: {answer}");
    }
}

#[tokio::test]
async fn an_agent_does_not_start_with_a_certificate_of_another_node_or_a_key_that_others_can_read() {
    let own = authority();
    let folder = tempfile::tempdir().unwrap();
    let start = async |folder: PathBuf| {
        let config = Config {
            listen: Some(([127, 0, 0, 1], 0).into()),
            tls: Some(files(&folder)),
            ..Config::of(name("n1"), Vec::new())
        };
        let agent = tokio::time::timeout(Duration::from_secs(5), spawn(Limits::default(), config)).await;
        match agent.expect("the agent exits at once").unwrap() {
            Err(ServeError::Credentials(error)) => error.to_string(),
            other => panic!("{other:?}"),
        }
    };
    let of_n2 = folder.path().join("n2");
    write_identity(&of_n2, &own, &own, agent_of("n2"), valid());
    let error = start(of_n2).await;
    assert!(error.ends_with("is the certificate of the agent of n2, not of the agent of n1"), "{error}");

    let open = folder.path().join("open");
    write_identity(&open, &own, &own, agent_of("n1"), valid());
    for mode in [0o640, 0o604, 0o660] {
        std::fs::set_permissions(open.join(KEY_FILE), std::fs::Permissions::from_mode(mode)).unwrap();
        let error = start(open.clone()).await;
        assert!(error.contains(&format!("(mode {mode:04o}); run chmod 600")), "{error}");
    }

    let mixed = folder.path().join("mixed");
    write_identity(&mixed, &own, &own, agent_of("n1"), valid());
    std::fs::copy(folder.path().join("n2").join(KEY_FILE), mixed.join(KEY_FILE)).unwrap();
    let error = start(mixed.clone()).await;
    assert!(error.contains("is not the certificate of the key"), "{error}");
    std::fs::write(mixed.join(KEY_FILE), "nonsense").unwrap();
    let error = start(mixed.clone()).await;
    assert!(error.contains("has no private key: "), "{error}");
    std::fs::remove_file(mixed.join(KEY_FILE)).unwrap();
    let error = start(mixed).await;
    assert!(error.starts_with("cannot read"), "{error}");
}

#[test]
fn a_certificate_with_no_role_or_two_roles_is_refused() {
    use rcgen::{CertificateParams, KeyPair, SanType};

    let folder = tempfile::tempdir().unwrap();
    let own = authority();
    let read = |uris: &[&str]| {
        write_identity(folder.path(), &own, &own, Role::Controller, valid());
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        let uri = |uri: &&str| SanType::URI((*uri).try_into().unwrap());
        params.subject_alt_names = uris.iter().map(uri).collect();
        let certificate = params.self_signed(&key).unwrap().pem();
        std::fs::write(folder.path().join("cert.pem"), certificate).unwrap();
        std::fs::write(folder.path().join(KEY_FILE), key.serialize_pem()).unwrap();
        Identity::read(&TlsFiles::in_folder(folder.path()))
    };
    assert_eq!(read(&["netemctl:agent/n7"]).unwrap().role(), &agent_of("n7"));
    assert_eq!(read(&["https://example.org", "netemctl:controller"]).unwrap().role(), &Role::Controller);
    let none: [&[&str]; 6] = [
        &[],
        &["https://example.org"],
        &["netemctl:agent/n1", "netemctl:controller"],
        &["netemctl:agent/"],
        &["netemctl:agent/n1/n2"],
        &["netemctl:root"],
    ];
    for uris in none {
        assert!(matches!(read(uris), Err(IdentityError::NoRole(_))), "{uris:?}");
    }
}
