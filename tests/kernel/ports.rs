//! Partitions with `--port`: they silently cut the packets of the port, and no other packets of the same pair.

use std::{
    io::{ErrorKind, Read as _},
    net::IpAddr,
    thread,
    time::Duration,
};

use crate::{
    lab::{Lab, shipped},
    sockets::{Stream, udp, v4, v6},
    tcp::{connect, established, listen, transfer},
};

const DATABASE: u16 = 26257;
const HEALTH: u16 = 8080;
const TIMEOUT: Duration = Duration::from_millis(1_500);

fn partition(lab: &Lab, words: &str) {
    drop(lab.netemctl(&format!("partition {words}")).expect(0));
}

/// The timeout for the first data after `heal`. After a cut of a few seconds, TCP retransmits much sooner.
const RECOVERY: Duration = Duration::from_secs(30);

#[test]
fn a_port_cut_silently_cuts_the_service_and_nothing_else() {
    let lab = Lab::up(&shipped("uniform-3-rtt100.toml"));
    lab.apply(&shipped("uniform-3-rtt100.toml"));
    for to in [v4(2), v6(2)] {
        let (database, health) = (listen(&lab, 2, to, DATABASE), listen(&lab, 2, to, HEALTH));
        let (mut near, mut far) = established(&lab, 1, &database);
        let (mut healthy, mut checked) = established(&lab, 1, &health);
        transfer(&mut near, &mut far, TIMEOUT).unwrap();

        partition(&lab, "n1 --port tcp/26257");
        assert_eq!(connect_error(&lab, 1, to, DATABASE), ErrorKind::TimedOut, "{to}");
        let stalled = transfer(&mut near, &mut far, TIMEOUT).unwrap_err();
        assert_eq!(stalled.kind(), ErrorKind::WouldBlock, "{to}: no data arrives, and no error");
        let stalled = transfer(&mut far, &mut near, TIMEOUT).unwrap_err();
        assert_eq!(stalled.kind(), ErrorKind::WouldBlock, "{to}: no data from the port arrives either");

        transfer(&mut healthy, &mut checked, TIMEOUT).unwrap();
        transfer(&mut checked, &mut healthy, TIMEOUT).unwrap();
        assert!(connect(&lab, 1, to, HEALTH, TIMEOUT).0.is_ok());
        drop(lab.exec("n1", &format!("ping -n -c 1 -W 2 {to}")));
        assert!(connect(&lab, 3, to, DATABASE, TIMEOUT).0.is_ok(), "n3 is on the same side as n2");

        drop(lab.netemctl("heal").expect(0));
        // TCP retransmits the data from the time of the cut.
        for end in [&near, &far] {
            end.set_read_timeout(Some(RECOVERY)).unwrap();
        }
        far.read_exact(&mut [0]).unwrap();
        near.read_exact(&mut [0]).unwrap();
        assert!(connect(&lab, 1, to, DATABASE, TIMEOUT).0.is_ok());
    }
}

#[track_caller]
fn connect_error(lab: &Lab, from: u16, to: IpAddr, port: u16) -> ErrorKind {
    connect(lab, from, to, port, TIMEOUT).0.unwrap_err().kind()
}

#[test]
fn a_port_cut_applies_to_its_protocol_only() {
    let lab = Lab::up(&shipped("uniform-3-rtt100.toml"));
    let before = lab.tc();
    partition(&lab, "n1 --port udp/26257");
    let _listener = listen(&lab, 2, v4(2), DATABASE);
    assert!(connect(&lab, 1, v4(2), DATABASE, TIMEOUT).0.is_ok(), "the TCP port of the same number is not cut");
    for (number, is_cut) in [(DATABASE, true), (DATABASE + 1, false)] {
        let (source, sink) = (udp(&lab, "n1", v4(1), 0), udp(&lab, "n2", v4(2), number));
        sink.set_read_timeout(Some(TIMEOUT)).unwrap();
        source.send_to(b"!", (v4(2), number)).unwrap();
        assert_eq!(sink.recv(&mut [0]).is_err(), is_cut, "to {number}");
        // The cut also drops packets from the port, in the other direction.
        source.set_read_timeout(Some(TIMEOUT)).unwrap();
        sink.send_to(b"!", source.local_addr().unwrap()).unwrap();
        assert_eq!(source.recv(&mut [0]).is_err(), is_cut, "from {number}");
    }
    drop(lab.netemctl("heal").expect(0));
    assert_eq!(lab.tc(), before);
}

/// Datagram sizes in bytes: below the MTU, just above the MTU, and close to the maximum.
const SIZES: [usize; 3] = [100, 1_600, 60_000];

/// Sends a datagram of each size to UDP port 5000 of a node. Returns the sizes of the datagrams that arrive.
fn arriving(lab: &Lab, [from, to]: [u16; 2], address: fn(u16) -> IpAddr, within: Duration) -> Vec<usize> {
    let source = udp(lab, &format!("n{from}"), address(from), 0);
    let sink = udp(lab, &format!("n{to}"), address(to), 5_000);
    for size in SIZES {
        // After a rejected datagram, the next send fails with the error of the rejection.
        drop(source.send_to(&vec![0; size], sink.local_addr().unwrap()));
    }
    sink.set_read_timeout(Some(within)).unwrap();
    let mut buffer = vec![0; 1 << 16];
    let mut sizes: Vec<usize> = SIZES.iter().map_while(|_| sink.recv(&mut buffer).ok()).collect();
    sizes.sort_unstable();
    sizes
}

#[test]
fn datagrams_above_the_mtu_do_not_pass_a_cut_of_their_port() {
    let lab = Lab::up(&shipped("uniform-3-rtt100.toml"));
    let before = lab.tc();
    let families = [v4 as fn(u16) -> IpAddr, v6];
    for (words, is_cut) in [
        ("n1 --port udp/5000", [true, true]),
        ("n1 --port udp/5000 --mode reject", [true, true]),
        ("--one-way n1 n2 --port udp/5000", [true, false]),
        ("--one-way n2 n1 --port udp/5000 --mode reject", [false, true]),
        ("n1 --port tcp/5000", [false, false]),
    ] {
        partition(&lab, words);
        for address in families {
            for (pair, is_cut) in [[1, 2], [2, 1]].into_iter().zip(is_cut) {
                let (expected, within) =
                    if is_cut { (&[][..], Duration::from_millis(200)) } else { (&SIZES[..], TIMEOUT) };
                assert_eq!(arriving(&lab, pair, address, within), expected, "{words}: {pair:?}, {}", address(1));
            }
            assert_eq!(arriving(&lab, [3, 2], address, TIMEOUT), SIZES, "{words}: on the same side");
        }
        // The partition does not cut fragments of ICMP.
        drop(lab.exec("n1", &format!("ping -n -c 1 -W 2 -s 4000 {}", v4(2))));
        drop(lab.netemctl("heal").expect(0));
    }
    for address in families {
        assert_eq!(arriving(&lab, [1, 2], address, TIMEOUT), SIZES, "healed");
    }
    assert_eq!(lab.tc(), before);
}

#[test]
fn every_kind_of_cut_is_read_back_from_the_kernel_as_it_was_written() {
    let lab = Lab::up(&shipped("uniform-3-rtt100.toml"));
    for mode in ["drop", "reject"] {
        let ports = "--port tcp/1 --port tcp/65535 --port udp/1 --port udp/65535";
        partition(&lab, &format!("n1 --mode {mode} {ports}"));
        let status = lab.netemctl("--json status").expect(0).json();
        let n1 = &status["nodes"]["n1"];
        assert_eq!(n1["drift"].as_array().map(Vec::len), Some(0), "{n1}");
        // 2 peers with 3 addresses, 2 directions, and 10 filters each. 8 filters match 4 ports as source or destination, and 2
        // filters match the fragments of 2 protocols.
        assert_eq!(n1["cuts"].as_array().map(Vec::len), Some(2 * 3 * 2 * 10), "{n1}");
        drop(lab.netemctl("heal").expect(0));
    }
}

#[test]
fn cutting_and_healing_a_port_disturbs_no_other_traffic_of_the_same_pair() {
    let lab = Lab::hierarchical();
    lab.apply(&shipped("hierarchical-9.toml"));
    let stream = Stream::start(&lab, 1, 4);
    for _ in 0..3 {
        thread::sleep(Duration::from_millis(300));
        partition(&lab, "n1 n4 --port tcp/26257");
        thread::sleep(Duration::from_millis(300));
        drop(lab.netemctl("heal").expect(0));
    }
    stream.finish().assert_undisturbed(Duration::from_millis(75));
}
