//! IPv6 link-local addresses: their traffic has the link's delay, and partitions cut it.

use crate::lab::{Lab, Ran, shipped};

fn ping(lab: &Lab, from: u16, to: &str) -> Ran {
    lab.netemctl(&format!("lab exec n{from} -- ping -n -c 3 -i 0.2 -W 1 {to}%db0"))
}

/// The minimum RTT in ping's output, in milliseconds.
#[track_caller]
fn min_rtt(ran: &Ran) -> f64 {
    let (_, figures) = ran.stdout.split_once("min/avg/max/mdev = ").unwrap_or_else(|| panic!("{}", ran.stdout));
    figures.split('/').next().unwrap().parse().unwrap()
}

#[test]
fn link_local_traffic_is_delayed_and_cut_like_all_other_traffic() {
    let lab = Lab::up(&shipped("uniform-3-rtt100.toml"));
    assert!(lab.exec("n1", "ip -6 -o address show dev db0 scope link").contains("fe80::1/64"));
    lab.apply(&shipped("uniform-3-rtt100.toml"));
    assert!(min_rtt(&ping(&lab, 1, "fe80::2").expect(0)) >= 100.0);

    drop(lab.netemctl("partition n1").expect(0));
    for (from, to) in [(1, "fe80::2"), (2, "fe80::1")] {
        drop(lab.exec(&format!("n{from}"), "ip -6 neigh flush dev db0"));
        let cut = ping(&lab, from, to).expect(1);
        assert!(cut.stdout.contains(" 0 received"), "{}", cut.stdout);
        // The partition does not cut neighbour discovery.
        let neighbour = lab.exec(&format!("n{from}"), &format!("ip -6 neigh show {to} dev db0"));
        assert!(neighbour.contains("lladdr"), "{neighbour}");
    }
    assert!(min_rtt(&ping(&lab, 2, "fe80::3").expect(0)) >= 100.0, "n3 is on n2's side");
    // The other nodes drop multicast packets from n1 at ingress. The bridge answers too, and its address may begin with
    // fe80::2.
    let all = ping(&lab, 1, "ff02::1");
    assert!(!all.stdout.contains("fe80::2%") && !all.stdout.contains("fe80::3%"), "{}", all.stdout);

    drop(lab.netemctl("heal").expect(0));
    assert!(min_rtt(&ping(&lab, 1, "fe80::2").expect(0)) >= 100.0);
}
