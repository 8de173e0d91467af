//! Link-local addresses of IPv6 are addresses like others: delayed as the link, cut by a partition.

use crate::lab::{Lab, Ran, shipped};

fn ping(lab: &Lab, from: u16, to: &str) -> Ran {
    lab.netemctl(&format!("lab exec n{from} -- ping -n -c 3 -i 0.2 -W 1 {to}%db0"))
}

/// The least of the RTTs that ping shows, in milliseconds.
#[track_caller]
fn least(ran: &Ran) -> f64 {
    let (_, figures) = ran.stdout.split_once("min/avg/max/mdev = ").unwrap_or_else(|| panic!("{}", ran.stdout));
    figures.split('/').next().unwrap().parse().unwrap()
}

#[test]
fn by_their_link_local_addresses_nodes_are_as_far_apart_and_as_cut_off_as_by_all_others() {
    let lab = Lab::up(&shipped("uniform-3-rtt100.toml"));
    assert!(lab.exec("n1", "ip -6 -o address show dev db0 scope link").contains("fe80::1/64"));
    lab.apply(&shipped("uniform-3-rtt100.toml"));
    assert!(least(&ping(&lab, 1, "fe80::2").expect(0)) >= 100.0);

    drop(lab.netemctl("partition n1").expect(0));
    for (from, to) in [(1, "fe80::2"), (2, "fe80::1")] {
        drop(lab.exec(&format!("n{from}"), "ip -6 neigh flush dev db0"));
        let cut = ping(&lab, from, to).expect(1);
        assert!(cut.stdout.contains(" 0 received"), "{}", cut.stdout);
        // Neighbour discovery passes.
        let neighbour = lab.exec(&format!("n{from}"), &format!("ip -6 neigh show {to} dev db0"));
        assert!(neighbour.contains("lladdr"), "{neighbour}");
    }
    assert!(least(&ping(&lab, 2, "fe80::3").expect(0)) >= 100.0, "n3 is on n2's side");
    // The receivers drop multicasts. The bridge answers as well, from an address that may begin with fe80::2.
    let all = ping(&lab, 1, "ff02::1");
    assert!(!all.stdout.contains("fe80::2%") && !all.stdout.contains("fe80::3%"), "{}", all.stdout);

    drop(lab.netemctl("heal").expect(0));
    assert!(least(&ping(&lab, 1, "fe80::2").expect(0)) >= 100.0);
}
