//! TCP of the tests' own: services and connections in the nodes.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use nix::sched::{CloneFlags, setns};

use crate::lab::Lab;

/// Does something in a node's network, in a thread of its own.
#[expect(clippy::disallowed_methods, reason = "a thread of the test's own moves, and ends")]
pub(crate) fn inside<T: Send + 'static>(lab: &Lab, node: u16, work: impl FnOnce() -> T + Send + 'static) -> T {
    let network = lab.network(&format!("n{node}"));
    let moved = move || {
        setns(network, CloneFlags::CLONE_NEWNET).unwrap();
        work()
    };
    thread::spawn(moved).join().unwrap()
}

/// A service on a port of a node, on an address of it.
pub(crate) fn listen(lab: &Lab, node: u16, address: IpAddr, port: u16) -> TcpListener {
    let listener = inside(lab, node, move || TcpListener::bind((address, port)).unwrap());
    listener.set_nonblocking(true).unwrap();
    listener
}

/// Connects from a node; what came of it, and how long it took.
pub(crate) fn connect(
    lab: &Lab,
    node: u16,
    address: IpAddr,
    port: u16,
    patience: Duration,
) -> (io::Result<TcpStream>, Duration) {
    inside(lab, node, move || {
        let start = Instant::now();
        let connected = TcpStream::connect_timeout(&SocketAddr::new(address, port), patience);
        (connected, start.elapsed())
    })
}

/// A connection and the service's end of it.
pub(crate) fn established(lab: &Lab, from: u16, listener: &TcpListener) -> (TcpStream, TcpStream) {
    let service = listener.local_addr().unwrap();
    let (stream, _) = connect(lab, from, service.ip(), service.port(), Duration::from_secs(10));
    let stream = stream.unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    let accepted = loop {
        match listener.accept() {
            Ok((accepted, _)) => break accepted,
            Err(error) if error.kind() == ErrorKind::WouldBlock && Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(5));
            }
            Err(error) => panic!("{error}"),
        }
    };
    accepted.set_nonblocking(false).unwrap();
    (stream, accepted)
}

/// Whether what one end sends arrives at the other in time.
pub(crate) fn carries(from: &mut TcpStream, to: &mut TcpStream, patience: Duration) -> io::Result<()> {
    from.write_all(b"x")?;
    to.set_read_timeout(Some(patience)).unwrap();
    to.read_exact(&mut [0])
}

/// Has an end of a connection send until it hears of an error.
pub(crate) fn send_until_error(stream: &mut TcpStream, patience: Duration) -> Option<ErrorKind> {
    let deadline = Instant::now() + patience;
    while Instant::now() < deadline {
        if let Err(error) = stream.write_all(b"y") {
            return Some(error.kind());
        }
        thread::sleep(Duration::from_millis(5));
    }
    None
}
