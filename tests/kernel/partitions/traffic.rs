//! Traffic between all nodes of a lab: ICMP, UDP, new TCP connections and existing TCP connections.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::{AsRawFd, OwnedFd},
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, connect, socket},
};
use serde_json::Value;

use crate::{
    lab::Lab,
    sockets::{Mesh, PORT, WAIT, v4, within},
};

/// The TCP ports on which every node listens: a database and its health check.
pub(crate) const SERVICES: [u16; 2] = [26257, 8080];

/// The timeout for all connections while nothing is cut.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The packets between two nodes that a partition cuts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Packets {
    All,
    Tcp(u16),
    Udp(u16),
}

impl Packets {
    fn cuts_tcp(self, port: u16) -> bool {
        self == Self::All || self == Self::Tcp(port)
    }

    fn cuts_udp(self) -> bool {
        self == Self::All || self == Self::Udp(PORT)
    }
}

/// The sockets of all nodes of a lab.
pub(crate) struct Traffic<'a> {
    lab: &'a Lab,
    nodes: Vec<u16>,
    mesh: Mesh,
    services: BTreeMap<(u16, u16), TcpListener>,
}

/// The TCP connections, each with the client's and the server's end. The key is (client node, server node, port).
pub(crate) type Connections = BTreeMap<(u16, u16, u16), (TcpStream, TcpStream)>;

impl<'a> Traffic<'a> {
    pub(crate) fn of(lab: &'a Lab, nodes: u16) -> Self {
        let nodes: Vec<u16> = (1..=nodes).collect();
        let mut services = BTreeMap::new();
        for node in &nodes {
            for port in SERVICES {
                let listener = within(lab, &format!("n{node}"), || TcpListener::bind((v4(*node), port)).unwrap());
                listener.set_nonblocking(true).unwrap();
                services.insert((*node, port), listener);
            }
        }
        let mesh = Mesh::of(lab, nodes.len().try_into().unwrap());
        Self { lab, nodes, mesh, services }
    }

    /// All ordered pairs of nodes.
    fn pairs(&self) -> impl Iterator<Item = (u16, u16)> {
        let pairs = self.nodes.iter().flat_map(|from| self.nodes.iter().map(move |to| (*from, *to)));
        pairs.filter(|(from, to)| from != to)
    }

    /// Connects each node to each service of all nodes with a higher number. Nothing may be cut.
    pub(crate) fn connections(&self) -> Connections {
        self.discard_pending_connections();
        let mut clients = BTreeMap::new();
        for ((from, to, port), stream) in self.start_connecting(|from, to| from < to) {
            clients.insert((to, port, stream.local_addr().unwrap()), (from, stream));
        }
        let mut connections = Connections::new();
        let deadline = Instant::now() + TIMEOUT;
        while connections.len() < clients.len() {
            for ((to, port), listener) in &self.services {
                while let Ok((server, client)) = listener.accept() {
                    server.set_nonblocking(true).unwrap();
                    let (from, stream) = &clients[&(*to, *port, client)];
                    connections.insert((*from, *to, *port), (stream.try_clone().unwrap(), server));
                }
            }
            assert!(Instant::now() < deadline, "{} of {} connections", connections.len(), clients.len());
            thread::sleep(Duration::from_millis(20));
        }
        connections
    }

    /// Checks that a partition cuts `packets` between the ordered pairs for which `is_cut` is true, and nothing else.
    #[track_caller]
    pub(crate) fn check(
        &self,
        form: &str,
        is_cut: impl Fn(u16, u16) -> bool,
        packets: Packets,
        connections: &mut Connections,
    ) {
        self.discard_pending_connections();
        self.mesh.drain();
        self.mesh.send();
        let attempts = self.start_connecting(|_, _| true);
        for (client, server) in connections.values_mut() {
            client.write_all(b"!").unwrap();
            server.write_all(b"?").unwrap();
        }
        let start = Instant::now();
        let report = self.lab.netemctl("--json verify --count 2 --tolerance 50").json();
        thread::sleep(WAIT.saturating_sub(start.elapsed()));

        let passes = |from, to| !is_cut(from, to);
        let heard = self.pairs().filter(|(from, to)| passes(*from, *to) || !packets.cuts_udp());
        let heard = heard.flat_map(|(from, to)| [true, false].map(|is_v4| (from, to, is_v4)));
        assert_same(form, "UDP", &self.mesh.drain(), heard);

        let connected = attempts.iter().filter(|(_, stream)| stream.peer_addr().is_ok()).map(|(ends, _)| *ends);
        let wanted = attempts.iter().map(|(ends, _)| *ends);
        let wanted =
            wanted.filter(|(from, to, port)| passes(*from, *to) && passes(*to, *from) || !packets.cuts_tcp(*port));
        assert_same(form, "TCP connections", &connected.collect(), wanted);

        let mut carried = BTreeSet::new();
        for ((from, to, port), (client, server)) in &mut *connections {
            let mut byte = [0];
            carried.extend(server.read(&mut byte).is_ok_and(|read| read == 1).then_some((*from, *to, *port)));
            carried.extend(client.read(&mut byte).is_ok_and(|read| read == 1).then_some((*to, *from, *port)));
        }
        let ends = connections.keys().flat_map(|(from, to, port)| [(*from, *to, *port), (*to, *from, *port)]);
        let wanted = ends.filter(|(from, to, port)| passes(*from, *to) || !packets.cuts_tcp(*port));
        assert_same(form, "TCP streams", &carried, wanted);

        let pairs = report["pairs"].as_array().unwrap();
        let node = |name: &Value| name.as_str().unwrap()[1..].parse::<u16>().unwrap();
        let pairs_with = |has: fn(&Value) -> bool| -> BTreeSet<(u16, u16)> {
            let matching = pairs.iter().filter(|pair| pair["measured"].as_array().unwrap().iter().any(has));
            matching.map(|pair| (node(&pair["from"]), node(&pair["to"]))).collect()
        };
        let cuts_icmp = packets == Packets::All;
        let arrive = self.pairs().filter(|(from, to)| passes(*from, *to) || !cuts_icmp);
        assert_same(form, "ICMP requests", &pairs_with(|measured| measured["arrived"] != 0), arrive);
        let come_back = self.pairs().filter(|(from, to)| passes(*from, *to) && passes(*to, *from) || !cuts_icmp);
        assert_same(
            form,
            "ICMP answers",
            &pairs_with(|measured| measured["rtts_ns"] != Value::Array(Vec::new())),
            come_back,
        );
        // A busy machine cannot judge delays. Whether packets arrive is asserted above.
        let judged = ["right", "off", "busy", "not-judged"].map(Value::from);
        let wrong: Vec<_> = pairs.iter().filter(|pair| !judged.contains(&pair["verdict"])).collect();
        assert!(wrong.is_empty(), "{form}: wrong verdicts of verify: {wrong:?}");
    }

    /// Starts a connection to each service for the pairs (from, to) that `which` selects. Does not wait for the result.
    fn start_connecting(&self, which: impl Fn(u16, u16) -> bool) -> Vec<((u16, u16, u16), TcpStream)> {
        let mut attempts = Vec::new();
        for from in &self.nodes {
            let ends: Vec<_> = self.pairs().filter(|(client, to)| client == from && which(*from, *to)).collect();
            let open = || socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_NONBLOCK, None).unwrap();
            let sockets: Vec<OwnedFd> =
                within(self.lab, &format!("n{from}"), || (0..ends.len() * SERVICES.len()).map(|_| open()).collect());
            let services = ends.iter().flat_map(|(_, to)| SERVICES.map(|port| (*to, port)));
            for (socket, (to, port)) in sockets.into_iter().zip(services) {
                let address = SockaddrStorage::from(SocketAddr::new(v4(to), port));
                match connect(socket.as_raw_fd(), &address) {
                    Ok(()) | Err(Errno::EINPROGRESS) => attempts.push(((*from, to, port), TcpStream::from(socket))),
                    Err(errno) => panic!("n{from} cannot connect to n{to}: {errno}"),
                }
            }
        }
        attempts
    }

    /// Empties the accept queues of all services.
    fn discard_pending_connections(&self) {
        for listener in self.services.values() {
            while listener.accept().is_ok() {}
        }
    }
}

#[track_caller]
fn assert_same<T: Ord + Debug>(form: &str, what: &str, seen: &BTreeSet<T>, wanted: impl Iterator<Item = T>) {
    let wanted: BTreeSet<T> = wanted.collect();
    let missing: Vec<_> = wanted.difference(seen).collect();
    let leaked: Vec<_> = seen.difference(&wanted).collect();
    assert!(missing.is_empty() && leaked.is_empty(), "{form}: {what} missing: {missing:?}, leaked: {leaked:?}");
}
