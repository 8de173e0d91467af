//! How a controller's request came to this host: [`Via`].

use std::net::{IpAddr, SocketAddr};

/// The two ends of the connection that a request came by, as far as it came over a network.
///
/// The guard keeps the agent from shaping the interface that carries it. Nothing is known, and nothing is to be kept, of a
/// Unix socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Via {
    /// The address of this host.
    pub local: Option<SocketAddr>,
    /// The address of the controller.
    pub peer: Option<SocketAddr>,
}

impl Via {
    /// The connection that sshd describes in `SSH_CONNECTION` (ssh(1)): the client's address and port, then the
    /// server's; `None`: it is not that.
    pub fn of_ssh_connection(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace();
        let mut end = || -> Option<SocketAddr> {
            // A link-local address has its link behind it: fe80::1%eno1.
            let address = words.next()?.split('%').next()?.parse().ok()?;
            Some(SocketAddr::new(address, words.next()?.parse().ok()?))
        };
        let (peer, local) = (end(), end());
        peer.zip(local).map(|(peer, local)| Self { local: Some(local), peer: Some(peer) })
    }

    /// The address of this host. One of IPv4 that a socket of IPv6 shows is one of IPv4.
    pub(super) fn local_address(&self) -> Option<IpAddr> {
        self.local.map(|local| local.ip().to_canonical()).filter(|address| !address.is_unspecified())
    }

    /// The address of the controller.
    pub(super) fn peer_address(&self) -> Option<IpAddr> {
        self.peer.map(|peer| peer.ip().to_canonical())
    }

    /// The link that the connection names itself, which link-local addresses do.
    pub(super) fn named_link(&self) -> Option<u32> {
        let scope = |end: Option<SocketAddr>| match end {
            Some(SocketAddr::V6(address)) => Some(address.scope_id()).filter(|link| *link > 0),
            _ => None,
        };
        scope(self.local).or_else(|| scope(self.peer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_sshd_says_of_its_connection_is_the_client_first() {
        let via = Via::of_ssh_connection("192.0.2.7 50022 192.0.2.1 22").unwrap();
        assert_eq!(via.peer_address(), Some([192, 0, 2, 7].into()));
        assert_eq!(via.local, Some("192.0.2.1:22".parse().unwrap()));
        let via = Via::of_ssh_connection("fe80::7%eno1 50022 fe80::1%eno1 22").unwrap();
        assert_eq!(via.local_address(), Some("fe80::1".parse().unwrap()));
        for other in ["", "192.0.2.7 50022 192.0.2.1", "192.0.2.7 x 192.0.2.1 22", "UNKNOWN 65535 UNKNOWN 65535"] {
            assert_eq!(Via::of_ssh_connection(other), None, "{other}");
        }
    }

    #[test]
    fn an_address_is_the_one_that_the_host_has() {
        let via = Via { local: Some("[::ffff:10.0.0.1]:1".parse().unwrap()), peer: Some("[::]:0".parse().unwrap()) };
        assert_eq!(via.local_address(), Some([10, 0, 0, 1].into()));
        assert_eq!(Via { local: via.peer, ..via }.local_address(), None);
        let via = Via { peer: Some("[fe80::7%3]:1".parse().unwrap()), ..via };
        assert_eq!(via.named_link(), Some(3));
    }
}
