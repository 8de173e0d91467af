//! Partitions silently cut the right pairs, in both directions and for IPv4 and IPv6. `heal` removes the cuts.

mod forms;
mod traffic;
mod verdicts;

use std::{net::UdpSocket, thread, time::Duration};

use nix::sys::socket::{setsockopt, sockopt::Ipv4RecvErr};

use crate::{
    lab::{Lab, shipped},
    sockets::{Mesh, Stream, udp, v4},
};

fn in_z3(node: u16) -> bool {
    node >= 7
}

#[test]
fn partition_z3_cuts_exactly_the_right_pairs_and_heal_brings_the_delays_back() {
    let lab = Lab::hierarchical();
    lab.apply(&shipped("hierarchical-9.toml"));
    let mesh = Mesh::of(&lab, 9);
    mesh.assert_heard(|_, _| true);
    let before = lab.tc();

    drop(lab.netemctl("partition Z3").expect(0));
    mesh.assert_heard(|a, b| in_z3(a) == in_z3(b));
    let report = lab.verify("--tolerance 50").expect(0).json();
    let cut = report["pairs"].as_array().unwrap().iter().filter(|pair| pair["wanted_rtt_ms"].is_null()).count();
    assert_eq!(cut, 36);
    let again = lab.netemctl("--json partition Z3").expect(0).json();
    assert_eq!(again["changed"], false);

    drop(lab.netemctl("heal").expect(0));
    mesh.assert_heard(|_, _| true);
    assert_eq!(lab.tc(), before, "heal restores the state from before the cut");
    drop(lab.verify("--tolerance 50").expect(0));
}

#[test]
fn a_bare_lan_is_cut_as_well_and_given_back_as_it_was() {
    let lab = Lab::hierarchical();
    let before = lab.tc();
    let mesh = Mesh::of(&lab, 9);
    drop(lab.netemctl("partition Z1,n4 n9").expect(0));
    let side = |node| match node {
        1..=4 => 0,
        9 => 1,
        _ => 2,
    };
    mesh.assert_heard(|a, b| side(a) == side(b));
    drop(lab.netemctl("heal").expect(0));
    mesh.assert_heard(|_, _| true);
    assert_eq!(lab.tc(), before);
}

#[test]
fn overlapping_partitions_add_up_and_heal_one_by_one() {
    let lab = Lab::hierarchical();
    let mesh = Mesh::of(&lab, 9);
    drop(lab.netemctl("partition Z3").expect(0));
    drop(lab.netemctl("partition --name west n1 n2").expect(0));
    let west = |node| if node <= 2 { node } else { 0 };
    mesh.assert_heard(|a, b| in_z3(a) == in_z3(b) && west(a) == west(b));
    drop(lab.netemctl("heal Z3").expect(0));
    mesh.assert_heard(|a, b| west(a) == west(b));
    drop(lab.netemctl("heal west").expect(0));
    mesh.assert_heard(|_, _| true);
}

#[test]
fn packets_in_flight_are_cut_as_well() {
    let lab = Lab::hierarchical();
    let slow = lab.topology("name = 'slow'\nnodes = 'n[1-9]'\n[links]\ndefault = { rtt = '12s' }\n");
    lab.apply(&slow);
    let source = udp(&lab, "n1", v4(1), 0);
    let sink = udp(&lab, "n9", v4(9), 7001);
    let send = || {
        for _ in 0..100 {
            source.send_to(b"in flight", (v4(9), 7001)).unwrap();
        }
    };
    send();
    drop(lab.netemctl("partition n9").expect(0));
    assert_eq!(received(&sink, Duration::from_secs(8)), 0, "the packets were in flight: the one-way delay is 6 s");
    drop(lab.netemctl("heal").expect(0));
    send();
    assert_eq!(received(&sink, Duration::from_secs(8)), 100, "after heal, all packets arrive");
}

/// Counts the packets that arrive: the first within the timeout, each other within a second after the packet before.
fn received(sink: &UdpSocket, timeout: Duration) -> usize {
    sink.set_read_timeout(Some(timeout)).unwrap();
    let mut packets = 0;
    while sink.recv(&mut [0; 16]).is_ok() {
        packets += 1;
        sink.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    }
    packets
}

#[test]
fn a_cut_is_silent_to_the_sender() {
    let lab = Lab::hierarchical();
    lab.apply(&shipped("hierarchical-9.toml"));
    let source = udp(&lab, "n1", v4(1), 0);
    // With IP_RECVERR, the socket reports every local and remote error (ip(7)).
    setsockopt(&source, Ipv4RecvErr, &true).unwrap();
    source.connect((v4(9), 7001)).unwrap();
    drop(lab.netemctl("partition Z3").expect(0));
    for _ in 0..200 {
        source.send(b"into the void").unwrap();
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(source.take_error().unwrap().map(|error| error.to_string()), None);
}

#[test]
fn a_cut_and_a_heal_disturb_no_other_pair() {
    let lab = Lab::hierarchical();
    lab.apply(&shipped("hierarchical-9.toml"));
    let stream = Stream::start(&lab, 1, 4);
    for _ in 0..2 {
        thread::sleep(Duration::from_millis(300));
        drop(lab.netemctl("partition Z3").expect(0));
        thread::sleep(Duration::from_millis(300));
        drop(lab.netemctl("heal").expect(0));
    }
    stream.finish().assert_undisturbed(Duration::from_millis(75));
}
