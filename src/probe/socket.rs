//! Raw ICMP sockets whose packets the kernel stamps: requests as they enter the packet scheduler, that is before netem
//! delays them, and everything else as it arrives.

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

/// Room for what arrives while the prober sleeps: some thousand packets.
pub(super) const RECEIVE_BUFFER: usize = 4 * 1024 * 1024;

/// A raw socket for ICMP of one family.
pub(super) struct Socket {
    fd: OwnedFd,
    is_v4: bool,
}

/// One packet that has arrived.
pub(super) struct Received {
    pub(super) packet: Vec<u8>,
    /// When the kernel received it, if it says so.
    pub(super) at: Option<Duration>,
    /// Source and destination, if known.
    pub(super) ends: Option<(IpAddr, IpAddr)>,
}

impl Socket {
    /// Opens one; `None` if the host does not know the family.
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
        // The default holds 250 packets.
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

    /// Sends one. Says whether this machine lets it leave: a firewall that drops at output, and a route that prohibits,
    /// tell the sender so. Errors about the way (no route, no neighbour) mean that the target is not reached.
    pub(super) fn send(&self, packet: &[u8], target: IpAddr) -> bool {
        let address = SockaddrStorage::from(SocketAddr::new(target, 0));
        let sent = sendto(self.fd.as_raw_fd(), packet, &address, MsgFlags::empty());
        !matches!(sent, Err(Errno::EACCES | Errno::EPERM))
    }

    /// The next packet that has arrived.
    pub(super) fn receive(&self) -> io::Result<Option<Received>> {
        self.read(MsgFlags::empty())
    }

    /// The next packet that was sent, with the time at which it entered the packet scheduler.
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
