//! `pki`: the CA, its certificates, and agents with TLS.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use super::harness::{Answer, Lab, Sandbox};

/// The answer with `[DATE]` in place of dates.
fn dateless(answer: &Answer) -> String {
    let text = answer.to_string();
    text.split('\n')
        .map(|line| line.split_whitespace().map(date).fold(line.to_owned(), undate))
        .collect::<Vec<_>>()
        .join("\n")
}

/// The date in a word, or an empty text.
fn date(word: &str) -> &str {
    let word = word.trim_matches(|c| matches!(c, '"' | ',' | ';'));
    if word.starts_with("20") && word.ends_with('Z') { word } else { "" }
}

fn undate(line: String, date: &str) -> String {
    if date.is_empty() { line } else { line.replace(date, "[DATE]") }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("the path exists").permissions().mode() & 0o7777
}

#[test]
fn a_ca_issues_certificates_for_nodes_and_the_controller_and_shows_them() {
    let sandbox = Sandbox::new();
    insta::assert_snapshot!(sandbox.run(["pki", "init", "--dir", "pki"]), @"
    --- stdout
    made a CA in pki; next: netemctl pki issue NODE... --controller
    --- stderr
    --- exit status: 0
    ");
    insta::assert_snapshot!(sandbox.run(["pki", "issue", "n[1-3]", "--controller", "--dir", "pki"]), @"
    --- stdout
    issued 4 certificates in pki
    copy pki/nodes/NODE/ to /etc/netemctl/tls on NODE; set ca, cert and key in [tls] of its config
    --- stderr
    --- exit status: 0
    ");
    insta::assert_snapshot!(dateless(&sandbox.run(["pki", "show", "--dir", "pki"])), @"
    --- stdout
    pki

    CERTIFICATE     VALID UNTIL               STATE
    the CA          [DATE]  ok
    the controller  [DATE]  ok
    n1              [DATE]  ok
    n2              [DATE]  ok
    n3              [DATE]  ok
    --- stderr
    --- exit status: 0
    ");
    let shown = sandbox.run(["pki", "show", "--dir", "pki", "--json"]).ended(0).json();
    assert_eq!(shown["ok"], true);
    assert_eq!(shown["nodes"]["n2"]["state"], "ok");
    assert_eq!(shown["nodes"]["n2"]["folder"], "pki/nodes/n2");
    assert_eq!(shown["controller"]["state"], "ok");
    let pki = sandbox.path().join("pki");
    for folder in ["", "ca", "nodes", "nodes/n1", "controller"] {
        assert_eq!(mode(&pki.join(folder)), 0o700, "{folder}");
    }
    for key in ["ca/key.pem", "nodes/n1/key.pem", "controller/key.pem"] {
        assert_eq!(mode(&pki.join(key)), 0o600, "{key}");
    }
    let entries = fs::read_dir(&pki).expect("the path exists").count();
    assert_eq!(entries, 3, "pki has only ca, controller and nodes");
    let issued = sandbox.run(["pki", "issue", "--viewer", "--dir", "pki", "--json"]).ended(0).json();
    assert_eq!(issued["issued"], serde_json::json!(["pki/viewer"]));
    let shown = sandbox.run(["pki", "show", "--dir", "pki", "--json"]).ended(0).json();
    assert_eq!(shown["viewer"]["state"], "ok");
}

#[test]
fn nothing_is_replaced_unless_that_is_asked_for() {
    let sandbox = Sandbox::new();
    let read = |file: &str| fs::read_to_string(sandbox.path().join("pki").join(file)).expect("the path exists");
    let _init = sandbox.run(["pki", "init", "--dir", "pki"]).ended(0);
    let _issue = sandbox.run(["pki", "issue", "n1", "n2", "--dir", "pki"]).ended(0);
    let (ca, n2) = (read("ca/cert.pem"), read("nodes/n2/key.pem"));
    insta::assert_snapshot!(sandbox.run(["pki", "init", "--dir", "pki"]), @"
    --- stdout
    --- stderr
    error: pki has a CA already
    hint: replace the CA: netemctl pki init --force; then issue all certificates again: netemctl pki issue NODE... --controller --force
    --- exit status: 5
    ");
    insta::assert_snapshot!(sandbox.run(["pki", "issue", "n2", "--dir", "pki"]), @"
    --- stdout
    --- stderr
    error: certificates for n2 exist already
    hint: replace them with --force; list them: netemctl pki show
    --- exit status: 5
    ");
    assert_eq!((read("ca/cert.pem"), read("nodes/n2/key.pem")), (ca.clone(), n2.clone()));

    let _forced = sandbox.run(["pki", "issue", "n[2-3]", "--force", "--dir", "pki"]).ended(0);
    assert_ne!(read("nodes/n2/key.pem"), n2);
    insta::assert_snapshot!(sandbox.run(["pki", "init", "--force", "--dir", "pki"]), @"
    --- stdout
    made a CA in pki; next: netemctl pki issue NODE... --controller --force
    --- stderr
    --- exit status: 0
    ");
    assert_ne!(read("ca/cert.pem"), ca);
    insta::assert_snapshot!(dateless(&sandbox.run(["pki", "show", "--dir", "pki"])), @"
    --- stdout
    pki

    CERTIFICATE  VALID UNTIL               STATE
    the CA       [DATE]  ok
    n1           [DATE]  signed by another CA
    n2           [DATE]  signed by another CA
    n3           [DATE]  signed by another CA
    --- stderr
    --- exit status: 4
    ");
}

#[test]
fn certificates_are_added_to_those_that_are_there_and_replace_none() {
    let sandbox = Sandbox::new();
    let read = |file: &str| fs::read_to_string(sandbox.path().join("pki").join(file)).expect("the path exists");
    let _init = sandbox.run(["pki", "init", "--dir", "pki"]).ended(0);
    let _issue = sandbox.run(["pki", "issue", "n[1-3]", "--dir", "pki"]).ended(0);
    let n3 = read("nodes/n3/key.pem");
    insta::assert_snapshot!(sandbox.run(["pki", "issue", "n[3-4]", "--controller", "--dir", "pki"]), @"
    --- stdout
    issued 2 certificates in pki
    kept the certificates of n3; --force replaces them
    copy pki/nodes/n4/ to /etc/netemctl/tls on n4; set ca, cert and key in [tls] of its config
    --- stderr
    --- exit status: 0
    ");
    assert_eq!(read("nodes/n3/key.pem"), n3);
    assert!(sandbox.path().join("pki/controller/key.pem").exists() && sandbox.path().join("pki/nodes/n4").exists());
    let added = sandbox.run(["pki", "issue", "n[3-4]", "--viewer", "--json", "--dir", "pki"]).ended(0).json();
    assert_eq!(added["kept"].as_array().map(Vec::len), Some(2), "{added}");
}

#[test]
fn a_certificate_that_cannot_be_issued_is_an_error() {
    let sandbox = Sandbox::new();
    insta::assert_snapshot!(sandbox.run(["pki", "issue", "n1", "--dir", "pki"]), @"
    --- stdout
    --- stderr
    error: pki has no CA
    hint: make one: netemctl pki init; or name another folder with --dir
    --- exit status: 3
    ");
    insta::assert_snapshot!(sandbox.run(["pki", "show"]), @"
    --- stdout
    --- stderr
    error: neither HOME nor XDG_CONFIG_HOME is set
    hint: name a folder with --dir
    --- exit status: 2
    ");
    let _init = sandbox.run(["pki", "init", "--days", "100", "--dir", "pki"]).ended(0);
    insta::assert_snapshot!(dateless(&sandbox.run(["pki", "issue", "n1", "--days", "101", "--dir", "pki"])), @"
    --- stdout
    --- stderr
    error: the CA expires earlier, [DATE]; use fewer --days, or make a new CA
    --- exit status: 2
    ");
    insta::assert_snapshot!(sandbox.run(["pki", "issue", "n1", "--days", "1", "--host", "a b", "--dir", "pki"]), @"
    --- stdout
    --- stderr
    error: `a b` is neither a host name nor an address
    --- exit status: 2
    ");
    insta::assert_snapshot!(sandbox.run(["pki", "issue", "n[1-2]", "--host", "a", "--dir", "pki"]), @"
    --- stdout
    --- stderr
    error: --host needs exactly one node
    hint: issue one node at a time: netemctl pki issue n7 --host n7.example.org
    --- exit status: 2
    ");
    insta::assert_snapshot!(sandbox.run(["pki", "issue", "n[1-", "--dir", "pki"]), @r#"
    --- stdout
    --- stderr
    error: unmatched bracket in `n[1-`
    hint: brackets are not nested: "n[1-3]" is n1, n2 and n3
    --- exit status: 2
    "#);
    let pki = sandbox.path().join("pki");
    fs::set_permissions(&pki, fs::Permissions::from_mode(0o755)).expect("an own file");
    insta::assert_snapshot!(sandbox.run(["pki", "issue", "n1", "--days", "1", "--dir", "pki"]), @"
    --- stdout
    --- stderr
    error: other users have access to pki (mode 0755); run: chmod 700 pki
    --- exit status: 3
    ");
    fs::set_permissions(&pki, fs::Permissions::from_mode(0o700)).expect("an own file");
    fs::set_permissions(pki.join("ca/key.pem"), fs::Permissions::from_mode(0o644)).expect("an own file");
    insta::assert_snapshot!(sandbox.run(["pki", "issue", "n1", "--days", "1", "--dir", "pki"]), @"
    --- stdout
    --- stderr
    error: other users may read the private key pki/ca/key.pem (mode 0644); run chmod 600; if they may have read it, issue a new one
    --- exit status: 3
    ");
}

#[test]
fn a_config_that_would_let_anybody_in_is_refused() {
    let sandbox = Sandbox::new();
    let start = |rest: &str| {
        sandbox.write("agent.toml", format!("node = 'n1'\ninterfaces = ['db0']\n{rest}"));
        sandbox.run(["agent", "--config", "agent.toml"])
    };
    insta::assert_snapshot!(start("listen = '10.0.0.7:7946'\n"), @"
    --- stdout
    --- stderr
    error: anyone who reaches 10.0.0.7:7946 could change this node: [tls] is missing
     --> agent.toml:3:10
      |
    3 | listen = '10.0.0.7:7946'
      |          ^^^^^^^^^^^^^^^
      |
      = help: add a [tls] section with the files of `netemctl pki issue`, or listen on 127.0.0.1

    error: agent.toml: 1 error
    --- exit status: 3
    ");
    insta::assert_snapshot!(start("socket = '/tmp/a'\n[tls]\nca = 'a'\ncert = 'b'\nkey = 'c'\n"), @r#"
    --- stdout
    --- stderr
    error: `tls` is for a port, and there is none
     --> agent.toml:4:2
      |
    4 | [tls]
      |  ^^^
      |
      = help: add `listen = "ADDRESS:PORT"`

    error: agent.toml: 1 error
    --- exit status: 3
    "#);
}

/// The controller host reaches the agents by TLS over the management network. Wrong certificates have their own errors.
#[test]
fn a_lab_with_tls_is_driven_from_its_controller_host() {
    let sandbox = Sandbox::new();
    let file = sandbox.topology("uniform-3-rtt0");
    let _up = sandbox.run(["lab", "up", &file, "--tls"]).ended(0);
    let lab = Lab { sandbox };
    let controller = |line: &str| {
        let line = format!("$NETEMCTL {line}");
        lab.run(["lab", "exec", "controller", "--", "sh", "-c", &line])
    };
    insta::assert_snapshot!(controller("status"), @"
    --- stdout
    nothing is in force on 3 nodes

    NODE    INTERFACE  ONE-WAY DELAYS  CUT ADDRESSES  STATE
    n[1-3]  db0        -               -              ok
    --- stderr
    --- exit status: 0
    ");
    // Outside the controller host, commands use the agents' Unix sockets, without TLS.
    let _status = lab.run(["status"]).ended(0);
    let _node = lab.run(["lab", "exec", "n1", "--", "sh", "-c", "$NETEMCTL status"]).ended(0);
    let log =
        || fs::read_to_string(lab.sandbox.lab_directory().join("nodes/n1/agent.log")).expect("the agent has a log");
    assert!(!log().contains("Refused"), "{}", log());

    // A controller with a certificate of another CA does not trust the agents.
    let _init = lab.run(["pki", "init", "--dir", "other"]).ended(0);
    let _issue = lab.run(["pki", "issue", "--controller", "--dir", "other"]).ended(0);
    let answer = controller("status --tls-dir other/controller").ended(6);
    assert_eq!(answer.stdout.matches("the agent's CA is not the controller's CA").count(), 3, "{answer}");
    // The same controller with the agents' CA trusts them, but they do not trust its certificate.
    let ca = lab.sandbox.lab_directory().join("pki/ca/cert.pem");
    fs::copy(ca, lab.sandbox.path().join("other/controller/ca.pem")).expect("the CA can be copied");
    let answer = controller("status --tls-dir other/controller").ended(6);
    assert_eq!(answer.stdout.matches("it refuses our certificate: the agent's CA is not").count(), 3, "{answer}");
    assert!(log().contains("Refused a connection: its certificate is signed by another CA."), "{}", log());
    let answer = controller("apply uniform-3-rtt0.toml --tls-dir other/controller").ended(8);
    assert!(answer.stderr.contains("nothing was changed"), "{answer}");
    // A node's certificate is not a controller's.
    insta::assert_snapshot!(controller("status --tls-dir lab/pki/nodes/n1"), @"
    --- stdout
    --- stderr
    error: lab/pki/nodes/n1/cert.pem is the certificate of the agent of n1, not of a controller
    hint: issue a controller's certificate: netemctl pki issue --controller; or name another folder: --tls-dir DIR
    --- exit status: 3
    ");
    // Agents use renewed certificates without a restart.
    let _renew = lab.run(["pki", "issue", "n[1-3]", "--controller", "--force", "--dir", "lab/pki"]).ended(0);
    let _status = controller("status").ended(0);
    assert_eq!(log().matches("The agent's certificate is valid.").count(), 2, "{}", log());
}

/// README.md shows this command without --tls-dir. The command uses the controller's certificate in the user's PKI
/// folder.
#[test]
fn inventory_init_by_https_takes_the_certificate_of_the_users_own_ca() {
    let sandbox = Sandbox::new();
    let file = sandbox.topology("uniform-3-rtt0");
    let _up = sandbox.run(["lab", "up", &file, "--tls"]).ended(0);
    let lab = Lab { sandbox };
    let controller = |line: &str| {
        let line = format!("export NETEMCTL_PKI_DIR=lab/pki; $NETEMCTL {line}");
        lab.run(["lab", "exec", "controller", "--", "sh", "-c", &line])
    };
    let _init = controller("inventory init 'https://10.77.0.[1-3]' --output cluster.toml").ended(0);
    let text = fs::read_to_string(lab.sandbox.path().join("cluster.toml")).expect("the inventory exists");
    assert!(!text.contains("[tls]") && text.contains("n3 = { host = \"10.77.0.3\""), "{text}");
    let status = controller("--json --inventory cluster.toml status").ended(0).json();
    assert_eq!(status["nodes"].as_object().map(serde_json::Map::len), Some(3), "{status}");
}
