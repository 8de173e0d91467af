//! Partitions with `--mode reject`: TCP connections, UDP datagrams and pings fail at once with an error.

use std::{
    io::{ErrorKind, Read},
    net::{IpAddr, UdpSocket},
    thread,
    time::Duration,
};

use crate::{
    lab::{Lab, Ran, shipped},
    sockets::{Mesh, Stream, udp, v4, v6},
    tcp::{connect, established, inside, listen, send_until_error, transfer},
    timing::{Restarted, kill_agent},
};

const PORT: u16 = 26257;

/// A topology with an RTT of 1 s. A rejection takes much less, even on a busy machine.
const SLOW: &str = "name = 'slow'\nnodes = 'n[1-3]'\n[links]\ndefault = { rtt = '1s' }\n";
/// The maximum duration of a rejection: less than an RTT, so the answer cannot come from the peer.
const AT_ONCE: Duration = Duration::from_millis(500);
const TIMEOUT: Duration = Duration::from_secs(3);

/// Starts three nodes with a one-way delay of 500 ms.
fn slow() -> Lab {
    let lab = Lab::up(&shipped("uniform-3-rtt100.toml"));
    let slow = lab.topology(SLOW);
    lab.apply(&slow);
    lab
}

const REJECT: &str = "n1 --name p --mode reject";
/// Rejects one port only.
const REJECT_PORT: &str = "n1 --name p --mode reject --port tcp/26257";

fn partition(lab: &Lab, words: &str) {
    drop(lab.netemctl(&format!("partition {words}")).expect(0));
}

fn ping(lab: &Lab, from: u16, to: IpAddr) -> Ran {
    lab.netemctl(&format!("lab exec n{from} -- ping -n -c 1 -W 3 {to}"))
}

/// Sends a datagram from a connected UDP socket. Returns the errno that the socket reports, if any.
fn datagram_error(socket: &UdpSocket) -> Option<i32> {
    socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    socket.send(b"?").unwrap();
    socket.recv(&mut [0]).err().filter(|error| error.kind() != ErrorKind::WouldBlock)?.raw_os_error()
}

fn connected(lab: &Lab, from: u16, source: IpAddr, to: IpAddr) -> UdpSocket {
    let socket = udp(lab, &format!("n{from}"), source, 0);
    socket.connect((to, 9)).unwrap();
    socket
}

/// The sockets of a node for samples (generic netlink) and for answers (raw IP with headers).
fn sockets(lab: &Lab, node: u16) -> Vec<String> {
    let read = |file: &str| lab.exec(&format!("n{node}"), &format!("cat /proc/net/{file}"));
    let field = |line: &str, number: usize| line.split_whitespace().nth(number).unwrap_or_default().to_owned();
    // Generic netlink is protocol 16; the kernel's own socket has port 0. IPPROTO_RAW is 255, shown as the local port.
    let netlink = read("netlink").lines().filter(|line| field(line, 1) == "16" && field(line, 2) != "0").count();
    let raw = |file| read(file).lines().filter(|line| field(line, 1).ends_with(":00FF")).count();
    let counts = [("genetlink", netlink), ("raw", raw("raw")), ("raw6", raw("raw6"))];
    counts.into_iter().flat_map(|(name, count)| vec![name.to_owned(); count]).collect()
}

#[test]
fn tcp_is_refused_at_once_and_reset_where_it_is_established() {
    let lab = slow();
    let mut streams = Vec::new();
    for to in [v4(2), v6(2)] {
        let listener = listen(&lab, 2, to, PORT);
        streams.push((established(&lab, 1, &listener), listener));
    }
    partition(&lab, REJECT);
    for ((near, far), listener) in &mut streams {
        let to = listener.local_addr().unwrap().ip();
        let (refused, time) = connect(&lab, 1, to, PORT, TIMEOUT);
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::ConnectionRefused, "{to}");
        assert!(time < AT_ONCE, "{to}: refused after {time:?}");
        // Each end gets the error when it sends.
        for end in [near, far] {
            assert_eq!(send_until_error(end, TIMEOUT), Some(ErrorKind::ConnectionReset), "{to}");
        }
    }
    // n3 is on the same side as n2.
    let (answered, _) = connect(&lab, 3, v4(2), PORT, TIMEOUT);
    assert!(answered.is_ok());
    let (refused, _) = connect(&lab, 2, v4(1), PORT, TIMEOUT);
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::ConnectionRefused, "the other direction is also rejected");
}

#[test]
fn a_stream_that_is_sending_when_it_is_cut_is_reset() {
    let lab = slow();
    let listener = listen(&lab, 2, v4(2), PORT);
    let (mut near, mut far) = established(&lab, 1, &listener);
    let sending = thread::spawn(move || send_until_error(&mut near, Duration::from_secs(20)));
    let receiving = thread::spawn(move || {
        far.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        // The thread reads until the sender is silent.
        while far.read(&mut [0; 4096]).is_ok_and(|bytes| bytes > 0) {}
        far
    });
    thread::sleep(Duration::from_secs(3));
    partition(&lab, REJECT);
    assert_eq!(sending.join().unwrap(), Some(ErrorKind::ConnectionReset));
    drop(receiving.join().unwrap());
}

#[test]
fn datagrams_and_pings_are_told_that_they_are_prohibited() {
    let lab = slow();
    let sockets = [connected(&lab, 1, v4(1), v4(2)), connected(&lab, 1, v6(1), v6(2))];
    partition(&lab, REJECT);
    let [four, six] = sockets.each_ref().map(datagram_error);
    assert_eq!(four, Some(nix::errno::Errno::EHOSTUNREACH as i32));
    assert_eq!(six, Some(nix::errno::Errno::EACCES as i32));
    let four = ping(&lab, 1, v4(2)).expect(1).stdout;
    assert!(four.contains("Packet filtered"), "{four}");
    let six = ping(&lab, 1, v6(2)).expect(1).stdout;
    assert!(six.contains("Administratively prohibited"), "{six}");
}

#[test]
fn one_way_rejects_one_way() {
    let lab = slow();
    partition(&lab, "--one-way n2 n1 --mode reject");
    let sink = udp(&lab, "n2", v4(2), 7001);
    sink.set_read_timeout(Some(TIMEOUT)).unwrap();
    let source = connected(&lab, 1, v4(1), v4(2));
    source.connect((v4(2), 7001)).unwrap();
    source.send(b"!").unwrap();
    assert!(sink.recv(&mut [0]).is_ok(), "the other direction passes");
    assert_eq!(datagram_error(&connected(&lab, 2, v4(2), v4(1))), Some(nix::errno::Errno::EHOSTUNREACH as i32));

    let (refused, time) = connect(&lab, 2, v4(1), PORT, TIMEOUT);
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    assert!(time < AT_ONCE);
    // n2 receives the SYN. The agent of n2 rejects the answer, so n1 receives nothing.
    let _listener = listen(&lab, 2, v4(2), PORT);
    let (silent, _) = connect(&lab, 1, v4(2), PORT, TIMEOUT);
    assert_eq!(silent.unwrap_err().kind(), ErrorKind::TimedOut);
}

#[test]
fn with_a_port_only_that_port_is_rejected() {
    let lab = slow();
    for (from, to) in [(v4(1), v4(2)), (v6(1), v6(2))] {
        let (database, health) = (listen(&lab, 2, to, PORT), listen(&lab, 2, to, 8080));
        let (mut near, mut far) = established(&lab, 1, &database);
        let (mut healthy, mut checked) = established(&lab, 1, &health);
        partition(&lab, REJECT_PORT);
        let (refused, time) = connect(&lab, 1, to, PORT, TIMEOUT);
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::ConnectionRefused, "{to}");
        assert!(time < AT_ONCE);
        assert_eq!(send_until_error(&mut far, TIMEOUT), Some(ErrorKind::ConnectionReset), "from the port");
        assert_eq!(send_until_error(&mut near, TIMEOUT), Some(ErrorKind::ConnectionReset), "to the port");
        transfer(&mut healthy, &mut checked, TIMEOUT).unwrap();
        assert!(connect(&lab, 1, to, 8080, TIMEOUT).0.is_ok());
        drop(ping(&lab, 1, to).expect(0));
        let (source, sink) = (udp(&lab, "n1", from, 0), udp(&lab, "n2", to, PORT));
        sink.set_read_timeout(Some(TIMEOUT)).unwrap();
        source.send_to(b"!", (to, PORT)).unwrap();
        assert!(sink.recv(&mut [0]).is_ok(), "{to}: the UDP port of the same number is not cut");
        drop(lab.netemctl("heal").expect(0));
        assert_connects(&lab, to);
    }
}

/// Checks that n1 can connect to a service on n2 and send data.
#[track_caller]
fn assert_connects(lab: &Lab, to: IpAddr) {
    let listener = listen(lab, 2, to, 5000);
    let (mut near, mut far) = established(lab, 1, &listener);
    transfer(&mut near, &mut far, TIMEOUT).unwrap();
}

#[test]
fn heal_brings_all_back_and_leaves_neither_a_filter_nor_a_socket() {
    let lab = slow();
    let (before, idle) = (lab.tc(), sockets(&lab, 1));
    partition(&lab, REJECT);
    assert_ne!(lab.tc(), before);
    let mut answering = sockets(&lab, 1);
    for socket in &idle {
        answering.remove(answering.iter().position(|other| other == socket).unwrap());
    }
    assert_eq!(answering, ["genetlink", "raw", "raw6"]);
    // The agent has no packet socket, which would slow down all packets.
    assert_eq!(lab.exec("n1", "cat /proc/net/packet").lines().count(), 1, "the header line and no socket");
    drop(lab.netemctl("heal").expect(0));
    assert_eq!(lab.tc(), before);
    assert_eq!(sockets(&lab, 1), idle);
    for to in [v4(2), v6(2)] {
        assert_connects(&lab, to);
        drop(ping(&lab, 1, to).expect(0));
    }
    partition(&lab, REJECT);
    drop(lab.netemctl("clear").expect(0));
    assert_eq!(sockets(&lab, 1), idle);
    assert!(!lab.exec("n1", "tc qdisc show dev db0").contains("4e7e"));
}

#[test]
fn a_bare_lan_rejects_as_well_and_only_the_pairs_that_it_should() {
    let lab = Lab::hierarchical();
    let before = lab.tc();
    partition(&lab, "Z3 --mode reject");
    for to in [v4(9), v6(9)] {
        let (refused, _) = connect(&lab, 1, to, PORT, TIMEOUT);
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::ConnectionRefused);
        let listener = listen(&lab, 9, to, PORT);
        let (mut near, mut far) = established(&lab, 7, &listener);
        transfer(&mut near, &mut far, TIMEOUT).unwrap();
    }
    drop(lab.verify("--tolerance 50").expect(0));
    drop(lab.netemctl("heal").expect(0));
    Mesh::of(&lab, 9).assert_heard(|_, _| true);
    assert_eq!(lab.tc(), before);
}

#[test]
fn a_silent_partition_takes_precedence_over_a_rejecting_one() {
    let lab = slow();
    partition(&lab, "n1 --name loud --mode reject");
    partition(&lab, "n1 n2 --name silent");
    let (cut, _) = connect(&lab, 1, v4(2), PORT, TIMEOUT);
    assert_eq!(cut.unwrap_err().kind(), ErrorKind::TimedOut);
    let (refused, _) = connect(&lab, 1, v4(3), PORT, TIMEOUT);
    assert_eq!(
        refused.err().map(|error| error.kind()),
        Some(ErrorKind::TimedOut),
        "the silent partition also cuts n1 from the rest, n3"
    );
    drop(lab.netemctl("heal silent").expect(0));
    for to in [v4(2), v4(3)] {
        let (refused, _) = connect(&lab, 1, to, PORT, TIMEOUT);
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    }
}

#[test]
fn without_its_agent_a_node_is_cut_in_silence_until_there_is_one_again() {
    let lab = slow();
    let socket = connected(&lab, 1, v4(1), v4(2));
    partition(&lab, REJECT);
    assert!(datagram_error(&socket).is_some());
    kill_agent(&lab, "n1");
    assert_eq!(datagram_error(&socket), None);
    let (silent, _) = connect(&lab, 1, v4(2), PORT, TIMEOUT);
    assert_eq!(silent.unwrap_err().kind(), ErrorKind::TimedOut);
    drop(ping(&lab, 1, v6(2)).expect(1));
    // The agent of n2 still rejects the packets of n2.
    let (refused, _) = connect(&lab, 2, v4(1), PORT, TIMEOUT);
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::ConnectionRefused);

    let _agent = Restarted::start(&lab, "n1");
    let (refused, _) = connect(&lab, 1, v4(2), PORT, TIMEOUT);
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    drop(lab.netemctl("heal").expect(0));
    assert_connects(&lab, v4(2));
}

#[test]
fn rejecting_and_healing_disturb_no_other_pair() {
    let lab = Lab::hierarchical();
    lab.apply(&shipped("hierarchical-9.toml"));
    let stream = Stream::start(&lab, 1, 4);
    for ports in ["", "--port udp/9 --port tcp/26257"] {
        thread::sleep(Duration::from_millis(300));
        partition(&lab, &format!("Z3 --mode reject {ports}"));
        inside(&lab, 1, || {
            for _ in 0..20 {
                let socket = UdpSocket::bind(("0.0.0.0", 0)).unwrap();
                socket.connect((v4(9), 9)).unwrap();
                assert!(datagram_error(&socket).is_some());
            }
        });
        thread::sleep(Duration::from_millis(300));
        drop(lab.netemctl("heal").expect(0));
    }
    stream.finish().assert_undisturbed(Duration::from_millis(75));
}
