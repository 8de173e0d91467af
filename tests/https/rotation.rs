//! Replacement of certificates while the agent runs.

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

    // An incomplete replacement: the new key does not match the old certificate.
    let other = authority();
    let elsewhere = site.folder.path().join("elsewhere");
    write_identity(&elsewhere, &other, &other, agent_of("n1"), valid());
    std::fs::copy(elsewhere.join(KEY_FILE), agent.join(KEY_FILE)).unwrap();
    assert!(site.ask().await.is_ok(), "the agent continues with the old certificate");
    assert!(site.ask().await.is_ok());
    assert_eq!(log.text().matches("new certificate is unusable").count(), 1, "{}", log.text());

    // A complete replacement with another CA. From now on the agent accepts only controllers of this CA.
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
    assert!(site.ask().await.is_ok(), "the agent accepts the controller of the old CA");
    write_identity(&site.controller(), &new, &new, Role::Controller, valid());
    std::fs::write(site.controller().join("ca.pem"), both).unwrap();
    assert!(site.ask().await.is_ok(), "a controller of the new CA accepts the agent of the old CA");
}
