//! Addresses that are added to an interface after an apply.

use std::path::Path;

use crate::lab::{Lab, Ran, shipped};

/// Regression: packets to an added (virtual) address were neither delayed nor cut, and `status` reported ok.
#[test]
fn an_added_address_is_drift_at_once_until_the_next_apply() {
    let lab = Lab::up(&shipped("uniform-3-rtt100.toml"));
    let sockets = lab.directory().join("nodes/{node}/agent.sock");
    let inventory = lab.topology(&format!(
        "[defaults]\ntransport = 'unix'\nsocket = '{}'\ninterface = 'db0'\n[nodes]\n'n[1-3]' = {{}}\n",
        sockets.display()
    ));
    let netemctl = |line: &str| -> Ran {
        let arguments = [Path::new("--inventory"), inventory.as_path()].into_iter();
        lab.run(arguments.chain(line.split_whitespace().map(Path::new)))
    };
    let topology = shipped("uniform-3-rtt100.toml");
    let apply = format!("apply {}", topology.display());
    drop(netemctl(&apply).expect(0));
    drop(netemctl("status").expect(0));

    drop(lab.exec("n2", "ip address add 10.78.0.77/32 dev db0"));
    drop(lab.exec("n2", "ip address add fd78::77/64 dev db0 nodad"));
    let status = netemctl("status").expect(4).stdout;
    assert!(status.contains("apply again: address 10.78.0.77 of interface db0 is new"), "{status}");
    let document = netemctl("status --json").expect(4).stdout;
    for address in ["10.78.0.77", "fd78::77"] {
        assert!(document.contains(&format!("address {address} of interface db0 is new")), "{document}");
    }
    // The drift ends when the addresses are removed, or when an apply includes them.
    drop(lab.exec("n2", "ip address del 10.78.0.77/32 dev db0"));
    drop(lab.exec("n2", "ip address del fd78::77/64 dev db0"));
    drop(netemctl("status").expect(0));

    drop(lab.exec("n2", "ip address add 10.78.0.77/32 dev db0"));
    drop(netemctl("status").expect(4));
    drop(netemctl(&apply).expect(0));
    drop(netemctl("status").expect(0));
    assert!(lab.exec("n1", "tc filter show dev db0").contains("10.78.0.77"), "packets to the address are not delayed");
    drop(netemctl("partition n2").expect(0));
    let reached = lab.netemctl("lab exec n1 -- ping -n -c 1 -W 1 10.78.0.77");
    assert_ne!(reached.code, Some(0), "packets to the address are not cut");
}
