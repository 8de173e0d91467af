//! Addresses that an interface gets after something was put in force there.

use std::path::Path;

use crate::lab::{Lab, Ran, shipped};

/// A virtual address passed every partition undelayed, and the status said ok.
#[test]
fn an_address_that_is_added_is_drift_at_once_until_apply_takes_it_in() {
    let lab = Lab::up(&shipped("uniform-3-rtt100.toml"));
    let sockets = lab.directory().join("nodes/{node}/agent.sock");
    let inventory = lab.topology(&format!(
        "[defaults]\ntransport = 'unix'\nsocket = '{}'\ninterface = 'db0'\n[nodes]\n'n[1-3]' = {{}}\n",
        sockets.display()
    ));
    let by = |line: &str| -> Ran {
        let arguments = [Path::new("--inventory"), inventory.as_path()].into_iter();
        lab.run(arguments.chain(line.split_whitespace().map(Path::new)))
    };
    let wan = shipped("uniform-3-rtt100.toml");
    let apply = format!("apply {}", wan.display());
    drop(by(&apply).expect(0));
    drop(by("status").expect(0));

    drop(lab.exec("n2", "ip address add 10.78.0.77/32 dev db0"));
    drop(lab.exec("n2", "ip address add fd78::77/64 dev db0 nodad"));
    let status = by("status").expect(4).stdout;
    assert!(status.contains("apply again: address 10.78.0.77 of interface db0 is new"), "{status}");
    let all = by("status --json").expect(4).stdout;
    for address in ["10.78.0.77", "fd78::77"] {
        assert!(all.contains(&format!("address {address} of interface db0 is new")), "{all}");
    }
    // Gone again, it is no drift; and what is there when a node is put in force has been seen.
    drop(lab.exec("n2", "ip address del 10.78.0.77/32 dev db0"));
    drop(lab.exec("n2", "ip address del fd78::77/64 dev db0"));
    drop(by("status").expect(0));

    drop(lab.exec("n2", "ip address add 10.78.0.77/32 dev db0"));
    drop(by("status").expect(4));
    drop(by(&apply).expect(0));
    drop(by("status").expect(0));
    assert!(lab.exec("n1", "tc filter show dev db0").contains("10.78.0.77"), "it is delayed");
    drop(by("partition n2").expect(0));
    let reached = lab.netemctl("lab exec n1 -- ping -n -c 1 -W 1 10.78.0.77");
    assert_ne!(reached.code, Some(0), "it is cut");
}
