//! UDP traffic of the tests: a mesh of sockets in all nodes, and a stream of packets with timestamps.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nix::{
    sched::{CloneFlags, setns},
    sys::socket::{setsockopt, sockopt},
};

use crate::lab::Lab;

/// The UDP port of each node of a mesh.
pub(crate) const PORT: u16 = 7000;

/// The time until all packets have arrived: longer than any delay in these tests plus the neighbour resolution.
pub(crate) const WAIT: Duration = Duration::from_secs(1);

/// Runs `work` on a new thread in the network namespace of a node. Sockets that `work` opens stay in the namespace.
#[expect(clippy::disallowed_methods, reason = "only a new thread of the test enters the namespace")]
pub(crate) fn within<T: Send>(lab: &Lab, node: &str, work: impl FnOnce() -> T + Send) -> T {
    let network = lab.network(node);
    let enter_and_work = move || {
        setns(network, CloneFlags::CLONE_NEWNET).unwrap();
        work()
    };
    thread::scope(|scope| scope.spawn(enter_and_work).join().unwrap())
}

/// A UDP socket in a node, bound to an address and a port of the node.
pub(crate) fn udp(lab: &Lab, node: &str, address: IpAddr, port: u16) -> UdpSocket {
    within(lab, node, || UdpSocket::bind((address, port)).unwrap())
}

/// The IPv4 address of node `number` in the lab's database network.
pub(crate) fn v4(number: u16) -> IpAddr {
    let [high, low] = number.to_be_bytes();
    [10, 78, high, low].into()
}

/// The IPv6 address of node `number` in the lab's database network.
pub(crate) fn v6(number: u16) -> IpAddr {
    [0xfd78, 0, 0, 0, 0, 0, 0, number].into()
}

/// A UDP socket for each node and address family. Each socket can send to all others of its family.
pub(crate) struct Mesh {
    sockets: BTreeMap<(u16, bool), UdpSocket>,
}

/// A packet that arrived: the number of the sender, the number of the receiver, and true for IPv4.
pub(crate) type Heard = (u16, u16, bool);

impl Mesh {
    pub(crate) fn of(lab: &Lab, nodes: u16) -> Self {
        let mut sockets = BTreeMap::new();
        for number in 1..=nodes {
            for (address, is_v4) in [(v4(number), true), (v6(number), false)] {
                let socket = udp(lab, &format!("n{number}"), address, PORT);
                socket.set_nonblocking(true).unwrap();
                sockets.insert((number, is_v4), socket);
            }
        }
        Self { sockets }
    }

    /// Sends a packet between all pairs. Checks that packets arrive between the pairs that `reaches` accepts, and
    /// between no others.
    #[track_caller]
    pub(crate) fn assert_heard(&self, reaches: impl Fn(u16, u16) -> bool) {
        let (heard, wanted) = (self.exchange(), self.pairs(reaches));
        let missing: Vec<_> = wanted.difference(&heard).collect();
        let leaked: Vec<_> = heard.difference(&wanted).collect();
        assert!(missing.is_empty() && leaked.is_empty(), "(from, to, IPv4) missing: {missing:?}, leaked: {leaked:?}");
    }

    /// Sends a packet between all pairs, waits, and returns the packets that arrived. Panics if a send fails.
    fn exchange(&self) -> BTreeSet<Heard> {
        self.drain();
        self.send();
        thread::sleep(WAIT);
        self.drain()
    }

    /// Sends a packet between all pairs. Panics if a send fails.
    pub(crate) fn send(&self) {
        for ((from, is_v4), socket) in &self.sockets {
            for (to, _) in self.sockets.keys().filter(|(to, family)| to != from && family == is_v4) {
                let address = if *is_v4 { v4(*to) } else { v6(*to) };
                let sent = socket.send_to(&from.to_be_bytes(), SocketAddr::new(address, PORT));
                sent.unwrap_or_else(|error| panic!("n{from} cannot send to n{to}: {error}"));
            }
            // The first packet to an address causes a broadcast, which the bridge copies to every port. Without this
            // pause, the copies overflow the receive queue that all namespaces share (net.core.netdev_max_backlog).
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// All ordered pairs that `keep` accepts, for both address families.
    fn pairs(&self, keep: impl Fn(u16, u16) -> bool) -> BTreeSet<Heard> {
        let ends = self.sockets.keys().flat_map(|from| self.sockets.keys().map(move |to| (from, to)));
        let pairs = ends.filter(|(from, to)| from.1 == to.1 && from.0 != to.0 && keep(from.0, to.0));
        pairs.map(|((from, is_v4), (to, _))| (*from, *to, *is_v4)).collect()
    }

    /// The packets that arrived since the last call.
    pub(crate) fn drain(&self) -> BTreeSet<Heard> {
        let mut heard = BTreeSet::new();
        for ((to, is_v4), socket) in &self.sockets {
            let mut packet = [0; 2];
            while socket.recv(&mut packet).is_ok() {
                heard.insert((u16::from_be_bytes(packet), *to, *is_v4));
            }
        }
        heard
    }
}

/// A stream of 1,000 UDP packets per second from one node to another.
pub(crate) struct Stream {
    stop: Arc<AtomicBool>,
    sender: JoinHandle<u64>,
    receiver: JoinHandle<Vec<Duration>>,
}

/// The result of a stream.
#[derive(Debug)]
pub(crate) struct Streamed {
    pub(crate) sent: u64,
    /// The one-way delay of each packet that arrived.
    pub(crate) delays: Vec<Duration>,
}

impl Streamed {
    /// Checks that no packet was lost, that no packet was early, and that the median packet was not late.
    #[track_caller]
    pub(crate) fn assert_undisturbed(mut self, one_way: Duration) {
        assert!(self.sent > 1_000, "the stream sent only {} packets", self.sent);
        assert_eq!(self.delays.len() as u64, self.sent, "packets were lost");
        self.delays.sort();
        let (min, median) = (self.delays[0], self.delays[self.delays.len() / 2]);
        assert!(min >= one_way && median < one_way + Duration::from_millis(50), "minimum {min:?}, median {median:?}");
    }
}

impl Stream {
    pub(crate) fn start(lab: &Lab, from: u16, to: u16) -> Self {
        let source = udp(lab, &format!("n{from}"), v4(from), 0);
        let sink = udp(lab, &format!("n{to}"), v4(to), 7001);
        source.connect((v4(to), 7001)).unwrap();
        sink.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        // On a busy CPU, the receiver reads late. The large buffer prevents drops, which would look like loss.
        setsockopt(&sink, sockopt::RcvBufForce, &(16 * 1024 * 1024)).unwrap();
        let epoch = Instant::now();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let sender = thread::spawn(move || {
            let mut sent = 0;
            while !stopped.load(Ordering::Relaxed) {
                let now = u64::try_from(epoch.elapsed().as_nanos()).unwrap();
                source.send(&now.to_be_bytes()).unwrap();
                sent += 1;
                let next = Duration::from_millis(sent);
                thread::sleep(next.saturating_sub(epoch.elapsed()));
            }
            sent
        });
        let receiver = thread::spawn(move || {
            let mut packet = [0; 8];
            let mut delays = Vec::new();
            // The stream has ended if no packet arrives for 2 s, which is longer than any delay in these tests.
            while sink.recv(&mut packet).is_ok() {
                delays.push(epoch.elapsed().saturating_sub(Duration::from_nanos(u64::from_be_bytes(packet))));
            }
            delays
        });
        Self { stop, sender, receiver }
    }

    pub(crate) fn finish(self) -> Streamed {
        self.stop.store(true, Ordering::Relaxed);
        let sent = self.sender.join().unwrap();
        Streamed { sent, delays: self.receiver.join().unwrap() }
    }
}
