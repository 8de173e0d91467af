//! Certificates are replaced under a running agent.

use netemctl::{
    agent::Limits,
    fleet::CallError,
    pki::{KEY_FILE, Role, Untrusted},
};

use super::site::{Log, Site, agent_of, authority, valid, write_identity};

#[tokio::test]
async fn new_files_are_used_by_the_next_connection_and_bad_ones_by_none() {
    let log = Log::start();
    let site = Site::up(Limits::default()).await;
    let agent = site.folder.path().join("agent");
    assert!(site.ask().await.is_ok());

    // Half of a replacement: the key is that of another certificate.
    let other = authority();
    let elsewhere = site.folder.path().join("elsewhere");
    write_identity(&elsewhere, &other, &other, agent_of("n1"), valid());
    std::fs::copy(elsewhere.join(KEY_FILE), agent.join(KEY_FILE)).unwrap();
    assert!(site.ask().await.is_ok(), "it goes on with what it had");
    assert!(site.ask().await.is_ok());
    assert_eq!(log.text().matches("new certificate is unusable").count(), 1, "{}", log.text());

    // All of it: another CA, whose controllers alone are listened to from now on.
    write_identity(&agent, &other, &other, agent_of("n1"), valid());
    match site.ask().await {
        Err(CallError::Untrusted { why: Untrusted::OtherCa(_), .. }) => {}
        other => panic!("{other:?}"),
    }
    write_identity(&site.controller(), &other, &other, Role::Controller, valid());
    assert!(site.ask().await.is_ok());
}

#[tokio::test]
async fn while_a_ca_is_replaced_both_can_be_trusted() {
    let site = Site::up(Limits::default()).await;
    let agent = site.folder.path().join("agent");
    let new = authority();
    let both = format!("{}{}", site.authority.certificate(), new.certificate());
    std::fs::write(agent.join("ca.pem"), &both).unwrap();
    assert!(site.ask().await.is_ok(), "the old controller");
    write_identity(&site.controller(), &new, &new, Role::Controller, valid());
    std::fs::write(site.controller().join("ca.pem"), both).unwrap();
    assert!(site.ask().await.is_ok(), "the new one, to an agent with an old certificate");
}
