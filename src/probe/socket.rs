//! Sends and receives packets on raw ICMP sockets with kernel timestamps.
//!
//! The timestamp of a request is the time at which the request enters the qdisc, before netem delays it. The timestamp
//! of a received packet is its arrival.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsRawFd, OwnedFd},
    time::Duration,
};

use nix::{
    cmsg_space,
    errno::Errno,
    libc::{self, in6_pktinfo, sock_extended_err, sockaddr_in6},
    sys::{
        socket::{
            AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage,
            TimestampingFlag, recvmsg, sendto, setsockopt, socket,
            sockopt::{Ipv6RecvPacketInfo, RcvBufForce, Timestamping},
        },
        time::TimeSpec,
    },
};

use super::packet;

/// The size of the receive buffer, in bytes: some thousand packets may arrive while the prober sleeps.
pub(super) const RECEIVE_BUFFER: usize = 4 * 1024 * 1024;

/// A raw ICMP socket of one address family.
pub(super) struct Socket {
    fd: OwnedFd,
    is_v4: bool,
}

/// A packet that arrived, or a sent packet that the kernel returned with its timestamp.
pub(super) struct Received {
    pub(super) packet: Vec<u8>,
    /// The kernel's timestamp, if any.
    pub(super) at: Option<Duration>,
    /// The source and the destination, if known.
    pub(super) ends: Option<(IpAddr, IpAddr)>,
}

impl Socket {
    /// Opens a socket; `None`: the host has no such address family.
    pub(super) fn open(is_v4: bool) -> io::Result<Option<Self>> {
        let (family, protocol) = if is_v4 {
            (AddressFamily::Inet, SockProtocol::Icmp)
        } else {
            (AddressFamily::Inet6, SockProtocol::IcmpV6)
        };
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let fd = match socket(family, SockType::Raw, flags, protocol) {
            Err(Errno::EAFNOSUPPORT) => return Ok(None),
            opened => opened?,
        };
        // The default buffer holds 250 packets.
        setsockopt(&fd, RcvBufForce, &RECEIVE_BUFFER)?;
        let stamps = TimestampingFlag::SOF_TIMESTAMPING_SOFTWARE
            | TimestampingFlag::SOF_TIMESTAMPING_RX_SOFTWARE
            | TimestampingFlag::from_bits_retain(libc::SOF_TIMESTAMPING_TX_SCHED);
        setsockopt(&fd, Timestamping, &stamps)?;
        if !is_v4 {
            setsockopt(&fd, Ipv6RecvPacketInfo, &true)?;
        }
        Ok(Some(Self { fd, is_v4 }))
    }

    pub(super) fn is_v4(&self) -> bool {
        self.is_v4
    }

    /// Sends a packet. False if a firewall or a `prohibit` route of this machine refuses the packet. True for other
    /// errors, such as no route or no neighbour: the packet then counts as lost on the network.
    pub(super) fn send(&self, packet: &[u8], target: IpAddr) -> bool {
        let address = SockaddrStorage::from(SocketAddr::new(target, 0));
        let sent = sendto(self.fd.as_raw_fd(), packet, &address, MsgFlags::empty());
        !matches!(sent, Err(Errno::EACCES | Errno::EPERM))
    }

    /// Reads the next packet that has arrived.
    pub(super) fn receive(&self) -> io::Result<Option<Received>> {
        self.read(MsgFlags::empty())
    }

    /// Reads the next sent packet, with the time at which the packet entered the qdisc.
    pub(super) fn sent(&self) -> io::Result<Option<Received>> {
        self.read(MsgFlags::MSG_ERRQUEUE)
    }

    fn read(&self, flags: MsgFlags) -> io::Result<Option<Received>> {
        let mut buffer = vec![0; 256];
        let mut control = cmsg_space!([TimeSpec; 3], in6_pktinfo, (sock_extended_err, sockaddr_in6));
        let mut slices = [io::IoSliceMut::new(&mut buffer)];
        let message = match recvmsg::<SockaddrStorage>(self.fd.as_raw_fd(), &mut slices, Some(&mut control), flags) {
            Ok(message) => message,
            Err(Errno::EAGAIN) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        let (mut at, mut to) = (None, None);
        for control in message.cmsgs()? {
            match control {
                ControlMessageOwned::ScmTimestampsns(stamps) => at = Some(Duration::from(stamps.system)),
                ControlMessageOwned::Ipv6PacketInfo(info) => to = Some(IpAddr::from(info.ipi6_addr.s6_addr)),
                _ => {}
            }
        }
        let from = message.address.and_then(|address| Some(IpAddr::from(address.as_sockaddr_in6()?.ip())));
        let length = message.bytes;
        buffer.truncate(length);
        let ends = if self.is_v4 { packet::ends(&buffer) } else { from.zip(to) };
        Ok(Some(Received { packet: buffer, at: at.filter(|at| !at.is_zero()), ends }))
    }
}
