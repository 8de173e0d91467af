//! TCP traffic of the tests: services and connections in the nodes.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use nix::sched::{CloneFlags, setns};

use crate::lab::Lab;

/// Runs `work` on a new thread in the network namespace of a node.
#[expect(clippy::disallowed_methods, reason = "only a new thread of the test enters the namespace")]
pub(crate) fn inside<T: Send + 'static>(lab: &Lab, node: u16, work: impl FnOnce() -> T + Send + 'static) -> T {
    let network = lab.network(&format!("n{node}"));
    let enter_and_work = move || {
        setns(network, CloneFlags::CLONE_NEWNET).unwrap();
        work()
    };
    thread::spawn(enter_and_work).join().unwrap()
}

/// Listens on an address and a port of a node. The listener is non-blocking.
pub(crate) fn listen(lab: &Lab, node: u16, address: IpAddr, port: u16) -> TcpListener {
    let listener = inside(lab, node, move || TcpListener::bind((address, port)).unwrap());
    listener.set_nonblocking(true).unwrap();
    listener
}

/// Connects from a node. Returns the result and its duration.
pub(crate) fn connect(
    lab: &Lab,
    node: u16,
    address: IpAddr,
    port: u16,
    timeout: Duration,
) -> (io::Result<TcpStream>, Duration) {
    inside(lab, node, move || {
        let start = Instant::now();
        let connected = TcpStream::connect_timeout(&SocketAddr::new(address, port), timeout);
        (connected, start.elapsed())
    })
}

/// Connects from a node to a listener. Returns the end of the client and the end of the service.
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

/// Sends a byte at one end of a connection and reads it at the other end. Fails after the timeout.
pub(crate) fn transfer(from: &mut TcpStream, to: &mut TcpStream, timeout: Duration) -> io::Result<()> {
    from.write_all(b"x")?;
    to.set_read_timeout(Some(timeout)).unwrap();
    to.read_exact(&mut [0])
}

/// Sends at one end of a connection until a send fails. Returns the error, or `None` after the timeout.
pub(crate) fn send_until_error(stream: &mut TcpStream, timeout: Duration) -> Option<ErrorKind> {
    let deadline = Instant::now() + timeout;
    while Instant::now() < deadline {
        if let Err(error) = stream.write_all(b"y") {
            return Some(error.kind());
        }
        thread::sleep(Duration::from_millis(5));
    }
    None
}
