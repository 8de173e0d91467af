//! The instruments: UDP streams that know when each packet was sent, when it arrived and whether it is whole, and TCP
//! that takes what it gets.
//!
//! All nodes of a lab are in one kernel, so that one clock stamps both ends: the sender's call before it sends, the
//! kernel's `SO_TIMESTAMPNS` where the packet arrives. On user-mode Linux 0.1 ms lies between the two on a bare LAN.
//! One thread sends everything and reads it when all has arrived; nothing has to be scheduled in between.

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

/// As much as a socket may hold: whole streams wait in it to be read.
const BUFFER: usize = 64 * 1024 * 1024;

/// So long nothing arrives when everything has: longer than any two packets here are apart.
const SILENCE: Duration = Duration::from_millis(400);

/// What an IPv4 and a UDP header take.
const IPV4_UDP_HEADERS: usize = 28;

/// The least packet: run, number, stamp, checksum.
pub(crate) const SMALL: usize = 24;

/// One way from a node to another.
pub(crate) struct Flow {
    source: UdpSocket,
    sink: UdpSocket,
    /// Sees the packets before their UDP checksum is looked at.
    raw: Option<UdpSocket>,
}

/// What became of a stream.
#[derive(Debug, Default)]
pub(crate) struct Streamed {
    /// How many packets were sent.
    pub(crate) sent: usize,
    /// Those that arrived whole, in the order in which they did.
    pub(crate) arrivals: Vec<Arrival>,
    /// How many arrived that are not as they were sent.
    pub(crate) altered: usize,
    /// How many the kernel handed to a UDP socket; the others that arrived are seen by raw flows only.
    pub(crate) accepted: usize,
    /// How many of those are not as they were sent.
    pub(crate) undetected: usize,
}

/// A packet that arrived.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    /// The how manieth it was when sent, from 0.
    pub(crate) number: usize,
    /// One way, in milliseconds.
    pub(crate) delay: f64,
    /// When, in milliseconds from the first send.
    pub(crate) at: f64,
    /// Its two bits of explicit congestion notification (RFC 3168).
    pub(crate) ecn: u8,
}

/// How a stream is sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// How many packets, of each flow.
    pub(crate) packets: usize,
    /// From one to the next, of each flow; zero: as fast as can be.
    pub(crate) every: Duration,
    /// The size of the UDP payload, in bytes, at least [`SMALL`].
    pub(crate) size: usize,
}

impl Pace {
    /// A stream of small packets.
    pub(crate) const fn of(packets: usize, every: Duration) -> Self {
        Self { packets, every, size: SMALL }
    }

    /// Packets that are sent all at once.
    pub(crate) const fn burst(packets: usize) -> Self {
        Self::of(packets, Duration::ZERO)
    }

    /// The same with larger packets.
    pub(crate) const fn sized(self, size: usize) -> Self {
        Self { size, ..self }
    }
}

impl Flow {
    /// Opens one between the addresses of two nodes. To be done before anything is shaped, so that neighbours are
    /// resolved by then.
    pub(crate) fn open(lab: &Lab, (from, source): (u16, IpAddr), (to, sink): (u16, IpAddr)) -> Self {
        static PORT: AtomicU16 = AtomicU16::new(20_000);
        let port = PORT.fetch_add(1, Ordering::Relaxed);
        let source = udp(lab, &format!("n{from}"), source, 0);
        source.connect((sink, port)).unwrap();
        setsockopt(&source, sockopt::SndBufForce, &BUFFER).unwrap();
        let sink = udp(lab, &format!("n{to}"), sink, port);
        setsockopt(&sink, sockopt::IpRecvTos, &true).unwrap();
        let flow = Self { source, sink, raw: None };
        prepare(&flow.sink);
        flow.source.send(b"whom do I ask for whom").unwrap();
        flow.sink.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        assert_eq!(flow.sink.recv(&mut [0; 64]).unwrap(), 22);
        flow.sink.set_nonblocking(true).unwrap();
        flow
    }

    /// From one node to another, by their numbers, on the lab's IPv4 network.
    pub(crate) fn v4(lab: &Lab, from: u16, to: u16) -> Self {
        Self::open(lab, (from, crate::sockets::v4(from)), (to, crate::sockets::v4(to)))
    }

    /// The same for IPv6.
    pub(crate) fn v6(lab: &Lab, from: u16, to: u16) -> Self {
        Self::open(lab, (from, crate::sockets::v6(from)), (to, crate::sockets::v6(to)))
    }

    /// The same for IPv4, with what arrives looked at before the kernel throws away what has a wrong checksum.
    pub(crate) fn raw(lab: &Lab, from: u16, to: u16) -> Self {
        let open = || socket(AddressFamily::Inet, SockType::Raw, SockFlag::empty(), SockProtocol::Udp).unwrap();
        let raw = UdpSocket::from(within(lab, &format!("n{to}"), open));
        prepare(&raw);
        raw.set_nonblocking(true).unwrap();
        Self { raw: Some(raw), ..Self::v4(lab, from, to) }
    }

    /// Has its packets say that they can carry a congestion mark.
    pub(crate) fn mark_as_ecn_capable(&self) {
        const ECT_0: i32 = 2;
        setsockopt(&self.source, sockopt::Ipv4Tos, &ECT_0).unwrap();
    }
}

fn prepare(sink: &UdpSocket) {
    setsockopt(sink, sockopt::RcvBufForce, &BUFFER).unwrap();
    setsockopt(sink, sockopt::ReceiveTimestampns, &true).unwrap();
}

/// Sends a stream through one flow and waits for it.
pub(crate) fn stream(flow: &Flow, pace: Pace) -> Streamed {
    streams(std::slice::from_ref(flow), pace).remove(0)
}

/// Sends a stream through each flow, all of them at once, and waits until nothing more arrives.
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
    /// Reads what has arrived; answers whether anything has.
    fn read(&self, run: u32, epoch: u64, streamed: &mut Streamed) -> bool {
        let mut any = false;
        while let Some((bytes, arrived, ecn)) = receive(&self.sink) {
            any = true;
            streamed.accepted += 1;
            streamed.undetected += usize::from(read_packet(&bytes).is_none());
            if self.raw.is_none() {
                streamed.take(&bytes, run, epoch, arrived, ecn);
            }
        }
        while let Some((bytes, arrived, ecn)) = self.raw.as_ref().and_then(receive) {
            any = true;
            streamed.take(&bytes[IPV4_UDP_HEADERS.min(bytes.len())..], run, epoch, arrived, ecn);
        }
        any
    }
}

impl Streamed {
    fn take(&mut self, bytes: &[u8], run: u32, epoch: u64, arrived: u64, ecn: u8) {
        let Some((packet_run, number, sent)) = read_packet(bytes) else {
            self.altered += 1;
            return;
        };
        assert_eq!(packet_run, run, "a packet of an earlier stream is late");
        let milliseconds = |since: u64| (arrived as f64 - since as f64) / 1e6;
        let (delay, at) = (signed(arrived, sent), milliseconds(epoch));
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

    /// Of each packet, in the order of sending, whether it never arrived whole.
    pub(crate) fn lost(&self) -> Vec<bool> {
        let mut lost = vec![true; self.sent];
        self.arrivals.iter().for_each(|arrival| lost[arrival.number] = false);
        lost
    }

    /// How many packets arrived more than once.
    pub(crate) fn duplicates(&self) -> usize {
        let different = self.lost().iter().filter(|lost| !**lost).count();
        self.arrivals.len() - different
    }

    /// How many packets arrived after one that was sent later.
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

/// Nanoseconds of the clock that the kernel stamps arrivals with.
fn now() -> u64 {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    u64::try_from(since_1970.as_nanos()).unwrap()
}

fn signed(later: u64, earlier: u64) -> f64 {
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

/// Run, number and stamp of a packet that is whole.
fn read_packet(bytes: &[u8]) -> Option<(u32, usize, u64)> {
    let number = |range: std::ops::Range<usize>| -> Option<u64> {
        Some(bytes.get(range)?.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    };
    let is_whole = number(16..24)? == checksum(bytes);
    let (run, stamp) = (u32::try_from(number(0..4)?).ok()?, number(8..16)?);
    is_whole.then_some((run, usize::try_from(number(4..8)?).ok()?, stamp))
}

/// Fowler, Noll and Vo's hash (FNV-1a) of everything but the place of the checksum.
fn checksum(bytes: &[u8]) -> u64 {
    let mixed = bytes[..16].iter().chain(&bytes[24..]);
    mixed.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// What is next in a socket that does not block: bytes, when they arrived, congestion bits.
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
            other => panic!("{other:?} was not asked for"),
        }
    }
    let stamp = Duration::from(stamp.unwrap());
    let length = received.bytes;
    bytes.truncate(length);
    Some((bytes, u64::try_from(stamp.as_nanos()).unwrap(), ecn))
}

/// What a TCP connection brings to the application at its other end, in bits per second, over `lasting` after a
/// `warm_up`; of several connections at once, each from a node, by its number, to an address of another.
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

/// A connection on which one side sends all it can.
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
            // What one connection learns of a path, reordering for one, is not to help the next.
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
            // The other end may have told it already.
            let _shut = end.shutdown(Shutdown::Both);
        }
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}
