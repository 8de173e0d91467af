//! Measurement: UDP streams that record when each packet was sent and arrived and if it is intact, and the goodput of
//! TCP.
//!
//! All nodes of a lab share one kernel and one clock. The sender stamps a packet just before the send call. The kernel
//! stamps its arrival (`SO_TIMESTAMPNS`). On user-mode Linux an unshaped packet takes 0.1 ms. One thread sends a whole
//! stream, and reads it when all packets have arrived. So no other thread has to be scheduled in between.

use std::{
    fs,
    io::{IoSliceMut, Read, Write},
    net::{IpAddr, Shutdown, TcpListener, TcpStream, UdpSocket},
    os::fd::AsRawFd,
    sync::{
        Arc,
        atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use nix::{
    cmsg_space,
    sys::{
        socket::{
            AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockProtocol, SockType, recvmsg, setsockopt,
            socket, sockopt,
        },
        time::TimeSpec,
    },
};

use crate::{
    lab::Lab,
    sockets::{udp, within},
};

/// The size of a socket's buffer. It holds a whole stream until the stream is read.
const BUFFER: usize = 64 * 1024 * 1024;

/// A stream has ended when nothing has arrived for this time. It exceeds the time between any two packets of these
/// tests.
const SILENCE: Duration = Duration::from_millis(400);

/// The bytes of an IPv4 and a UDP header.
const IPV4_UDP_HEADERS: usize = 28;

/// The smallest payload, in bytes: run, number, time stamp, checksum.
pub(crate) const MIN_PAYLOAD: usize = 24;

/// A UDP flow from one node to another.
pub(crate) struct Flow {
    source: UdpSocket,
    sink: UdpSocket,
    /// Receives the packets before the kernel checks their UDP checksum.
    raw: Option<UdpSocket>,
}

/// The result of a stream.
#[derive(Debug, Default)]
pub(crate) struct Streamed {
    /// The number of packets that were sent.
    pub(crate) sent: usize,
    /// The packets that arrived intact, in the order of arrival.
    pub(crate) arrivals: Vec<Arrival>,
    /// The number of packets that arrived corrupted.
    pub(crate) altered: usize,
    /// The number of packets that the UDP socket received. Only raw flows see the others that arrived.
    pub(crate) accepted: usize,
    /// The number of corrupted packets among these.
    pub(crate) undetected: usize,
}

/// A packet that arrived.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    /// The packet's position in the order of sending, from 0.
    pub(crate) number: usize,
    /// The one-way delay, in milliseconds.
    pub(crate) delay: f64,
    /// The time of arrival, in milliseconds after the first send.
    pub(crate) at: f64,
    /// Its two bits of explicit congestion notification (RFC 3168).
    pub(crate) ecn: u8,
}

/// The number, the spacing and the size of a stream's packets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// The number of packets of each flow.
    pub(crate) packets: usize,
    /// The time from one packet of a flow to the next; zero: as fast as possible.
    pub(crate) every: Duration,
    /// The size of the UDP payload, in bytes: at least [`MIN_PAYLOAD`].
    pub(crate) size: usize,
}

impl Pace {
    /// A stream of small packets.
    pub(crate) const fn of(packets: usize, every: Duration) -> Self {
        Self { packets, every, size: MIN_PAYLOAD }
    }

    /// Small packets that are sent as fast as possible.
    pub(crate) const fn burst(packets: usize) -> Self {
        Self::of(packets, Duration::ZERO)
    }

    /// The same pace with packets of this size.
    pub(crate) const fn sized(self, size: usize) -> Self {
        Self { size, ..self }
    }
}

impl Flow {
    /// Opens a flow between addresses of two nodes. Open flows before links are shaped: opening resolves the neighbour.
    pub(crate) fn open(lab: &Lab, (from, source): (u16, IpAddr), (to, sink): (u16, IpAddr)) -> Self {
        static PORT: AtomicU16 = AtomicU16::new(20_000);
        let port = PORT.fetch_add(1, Ordering::Relaxed);
        let source = udp(lab, &format!("n{from}"), source, 0);
        source.connect((sink, port)).unwrap();
        setsockopt(&source, sockopt::SndBufForce, &BUFFER).unwrap();
        let sink = udp(lab, &format!("n{to}"), sink, port);
        setsockopt(&sink, sockopt::IpRecvTos, &true).unwrap();
        let flow = Self { source, sink, raw: None };
        prepare_sink(&flow.sink);
        flow.source.send(b"whom do I ask for whom").unwrap();
        flow.sink.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        assert_eq!(flow.sink.recv(&mut [0; 64]).unwrap(), 22);
        flow.sink.set_nonblocking(true).unwrap();
        flow
    }

    /// Opens a flow on the lab's IPv4 network, between nodes given by number.
    pub(crate) fn v4(lab: &Lab, from: u16, to: u16) -> Self {
        Self::open(lab, (from, crate::sockets::v4(from)), (to, crate::sockets::v4(to)))
    }

    /// Opens a flow on the lab's IPv6 network.
    pub(crate) fn v6(lab: &Lab, from: u16, to: u16) -> Self {
        Self::open(lab, (from, crate::sockets::v6(from)), (to, crate::sockets::v6(to)))
    }

    /// Opens a flow on IPv4 that also receives packets before the kernel drops those with a wrong checksum.
    pub(crate) fn raw(lab: &Lab, from: u16, to: u16) -> Self {
        let open = || socket(AddressFamily::Inet, SockType::Raw, SockFlag::empty(), SockProtocol::Udp).unwrap();
        let raw = UdpSocket::from(within(lab, &format!("n{to}"), open));
        prepare_sink(&raw);
        raw.set_nonblocking(true).unwrap();
        Self { raw: Some(raw), ..Self::v4(lab, from, to) }
    }

    /// Marks the flow's packets as ECN-capable.
    pub(crate) fn mark_as_ecn_capable(&self) {
        const ECT_0: i32 = 2;
        setsockopt(&self.source, sockopt::Ipv4Tos, &ECT_0).unwrap();
    }
}

fn prepare_sink(sink: &UdpSocket) {
    setsockopt(sink, sockopt::RcvBufForce, &BUFFER).unwrap();
    setsockopt(sink, sockopt::ReceiveTimestampns, &true).unwrap();
}

/// Sends a stream through one flow, and waits until nothing more arrives.
pub(crate) fn stream(flow: &Flow, pace: Pace) -> Streamed {
    streams(std::slice::from_ref(flow), pace).remove(0)
}

/// Sends a stream through each flow at the same time, and waits until nothing more arrives.
pub(crate) fn streams(flows: &[Flow], pace: Pace) -> Vec<Streamed> {
    static RUN: AtomicU32 = AtomicU32::new(0);
    let run = RUN.fetch_add(1, Ordering::Relaxed);
    let (start, epoch) = (Instant::now(), now());
    for number in 0..pace.packets {
        for (flow, slot) in flows.iter().zip(0_u32..) {
            let due = f64::from(slot) / flows.len() as f64 + number as f64;
            thread::sleep(pace.every.mul_f64(due).saturating_sub(start.elapsed()));
            flow.source.send(&packet(run, number, pace.size)).unwrap();
        }
    }
    let mut streamed: Vec<Streamed> =
        flows.iter().map(|_| Streamed { sent: pace.packets, ..Streamed::default() }).collect();
    let mut heard = Instant::now();
    while heard.elapsed() < SILENCE {
        for (flow, streamed) in flows.iter().zip(&mut streamed) {
            if flow.read(run, epoch, streamed) {
                heard = Instant::now();
            }
        }
        thread::sleep(Duration::from_millis(20));
    }
    streamed
}

impl Flow {
    /// Reads all packets that have arrived. Returns true if there were any.
    fn read(&self, run: u32, epoch: u64, streamed: &mut Streamed) -> bool {
        let mut any = false;
        while let Some((bytes, arrived, ecn)) = receive(&self.sink) {
            any = true;
            streamed.accepted += 1;
            streamed.undetected += usize::from(read_packet(&bytes).is_none());
            if self.raw.is_none() {
                streamed.record(&bytes, run, epoch, arrived, ecn);
            }
        }
        while let Some((bytes, arrived, ecn)) = self.raw.as_ref().and_then(receive) {
            any = true;
            streamed.record(&bytes[IPV4_UDP_HEADERS.min(bytes.len())..], run, epoch, arrived, ecn);
        }
        any
    }
}

impl Streamed {
    fn record(&mut self, bytes: &[u8], run: u32, epoch: u64, arrived: u64, ecn: u8) {
        let Some((packet_run, number, sent)) = read_packet(bytes) else {
            self.altered += 1;
            return;
        };
        assert_eq!(packet_run, run, "a packet of an earlier stream arrived late");
        let milliseconds = |since: u64| (arrived as f64 - since as f64) / 1e6;
        let (delay, at) = (milliseconds_between(arrived, sent), milliseconds(epoch));
        self.arrivals.push(Arrival { number, delay, at, ecn });
    }

    /// The delays, in milliseconds, in the order of arrival.
    pub(crate) fn delays(&self) -> Vec<f64> {
        self.arrivals.iter().map(|arrival| arrival.delay).collect()
    }

    /// The delays in the order in which the packets were sent.
    pub(crate) fn delays_as_sent(&self) -> Vec<f64> {
        let mut arrivals = self.arrivals.clone();
        arrivals.sort_by_key(|arrival| arrival.number);
        arrivals.iter().map(|arrival| arrival.delay).collect()
    }

    /// For each packet, in the order of sending: true if no intact copy arrived.
    pub(crate) fn lost(&self) -> Vec<bool> {
        let mut lost = vec![true; self.sent];
        self.arrivals.iter().for_each(|arrival| lost[arrival.number] = false);
        lost
    }

    /// The number of copies beyond the first of each packet.
    pub(crate) fn duplicates(&self) -> usize {
        let different = self.lost().iter().filter(|lost| !**lost).count();
        self.arrivals.len() - different
    }

    /// The number of packets that arrived after a packet that was sent later.
    pub(crate) fn overtaken(&self) -> usize {
        let mut latest = 0;
        let is_overtaken = |arrival: &&Arrival| {
            let is_late = arrival.number < latest;
            latest = latest.max(arrival.number);
            is_late
        };
        self.arrivals.iter().filter(is_overtaken).count()
    }
}

/// The time in nanoseconds, by the clock with which the kernel stamps arrivals.
fn now() -> u64 {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    u64::try_from(since_1970.as_nanos()).unwrap()
}

fn milliseconds_between(later: u64, earlier: u64) -> f64 {
    (i128::from(later) - i128::from(earlier)) as f64 / 1e6
}

fn packet(run: u32, number: usize, size: usize) -> Vec<u8> {
    let mut bytes = vec![0x5a; size];
    bytes[0..4].copy_from_slice(&run.to_be_bytes());
    bytes[4..8].copy_from_slice(&u32::try_from(number).unwrap().to_be_bytes());
    bytes[8..16].copy_from_slice(&now().to_be_bytes());
    let sum = checksum(&bytes);
    bytes[16..24].copy_from_slice(&sum.to_be_bytes());
    bytes
}

/// The run, the number and the time stamp of an intact packet; `None`: the packet is corrupted.
fn read_packet(bytes: &[u8]) -> Option<(u32, usize, u64)> {
    let number = |range: std::ops::Range<usize>| -> Option<u64> {
        Some(bytes.get(range)?.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    };
    let is_intact = number(16..24)? == checksum(bytes);
    let (run, stamp) = (u32::try_from(number(0..4)?).ok()?, number(8..16)?);
    is_intact.then_some((run, usize::try_from(number(4..8)?).ok()?, stamp))
}

/// The FNV-1a hash (Fowler, Noll, Vo) of all bytes except those of the checksum.
fn checksum(bytes: &[u8]) -> u64 {
    let mixed = bytes[..16].iter().chain(&bytes[24..]);
    mixed.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Reads the next packet from a non-blocking socket: its bytes, its time of arrival, its ECN bits.
fn receive(sink: &UdpSocket) -> Option<(Vec<u8>, u64, u8)> {
    let mut bytes = vec![0; 2048];
    let mut control = cmsg_space!(TimeSpec, u8);
    let mut buffer = [IoSliceMut::new(&mut bytes)];
    let received = recvmsg::<()>(sink.as_raw_fd(), &mut buffer, Some(&mut control), MsgFlags::empty()).ok()?;
    let (mut stamp, mut ecn) = (None, 0);
    for message in received.cmsgs().unwrap() {
        match message {
            ControlMessageOwned::ScmTimestampns(time) => stamp = Some(time),
            ControlMessageOwned::Ipv4Tos(tos) => ecn = tos & 3,
            other => panic!("unexpected control message {other:?}"),
        }
    }
    let stamp = Duration::from(stamp.unwrap());
    let length = received.bytes;
    bytes.truncate(length);
    Some((bytes, u64::try_from(stamp.as_nanos()).unwrap(), ecn))
}

/// The TCP goodput of several simultaneous connections, in bits per second, over `lasting` after a `warm_up`. A
/// connection goes from a node to another node, both given by number, and to an address of the latter.
pub(crate) fn goodputs(
    lab: &Lab,
    connections: &[(u16, (u16, IpAddr))],
    warm_up: Duration,
    lasting: Duration,
) -> Vec<f64> {
    let running: Vec<Bulk> = connections.iter().map(|(from, to)| Bulk::start(lab, *from, *to)).collect();
    thread::sleep(warm_up);
    let (before, start) = (running.iter().map(Bulk::bytes).collect::<Vec<_>>(), Instant::now());
    thread::sleep(lasting);
    let (after, seconds) = (running.iter().map(Bulk::bytes).collect::<Vec<_>>(), start.elapsed().as_secs_f64());
    running.into_iter().for_each(Bulk::stop);
    before.iter().zip(after).map(|(before, after)| (after - before) as f64 * 8.0 / seconds).collect()
}

/// A TCP connection on which one side sends as fast as possible.
struct Bulk {
    received: Arc<AtomicU64>,
    ends: [TcpStream; 2],
    threads: [thread::JoinHandle<()>; 2],
}

impl Bulk {
    fn start(lab: &Lab, from: u16, (to, sink): (u16, IpAddr)) -> Self {
        let listener = within(lab, &format!("n{to}"), || TcpListener::bind((sink, 0)).unwrap());
        let address = listener.local_addr().unwrap();
        let sender = within(lab, &format!("n{from}"), || {
            // Without this, the kernel reuses metrics of earlier connections, for example reordering.
            fs::write("/proc/sys/net/ipv4/tcp_no_metrics_save", "1").unwrap();
            TcpStream::connect(address).unwrap()
        });
        let receiver = listener.accept().unwrap().0;
        let ends = [sender.try_clone().unwrap(), receiver.try_clone().unwrap()];
        let received = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&received);
        let send = thread::spawn(move || {
            let (mut sender, block) = (sender, vec![0; 128 * 1024]);
            while sender.write_all(&block).is_ok() {}
        });
        let receive = thread::spawn(move || {
            let (mut receiver, mut block) = (receiver, vec![0; 256 * 1024]);
            while let Ok(bytes @ 1..) = receiver.read(&mut block) {
                count.fetch_add(bytes as u64, Ordering::Relaxed);
            }
        });
        Self { received, ends, threads: [send, receive] }
    }

    fn bytes(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    fn stop(self) {
        for end in &self.ends {
            // Fails if the other end has shut the connection down already.
            let _shut = end.shutdown(Shutdown::Both);
        }
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}
