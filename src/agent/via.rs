//! [`Via`]: the two ends of the network connection of a request.

use std::net::{IpAddr, SocketAddr};

/// Both ends of the network connection that a request came by. Both are `None` for a local request over a Unix socket.
///
/// The guard refuses to shape the interface that carries this connection, unless the config allows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Via {
    /// The address of this host.
    pub local: Option<SocketAddr>,
    /// The address of the controller.
    pub peer: Option<SocketAddr>,
}

impl Via {
    /// Parses `SSH_CONNECTION` (ssh(1)): address and port of the client, then of the server.
    pub fn of_ssh_connection(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace();
        let mut end = || -> Option<SocketAddr> {
            // A link-local address ends with the interface (fe80::1%eno1). The interface is not used here.
            let address = words.next()?.split('%').next()?.parse().ok()?;
            Some(SocketAddr::new(address, words.next()?.parse().ok()?))
        };
        let (peer, local) = (end(), end());
        peer.zip(local).map(|(peer, local)| Self { local: Some(local), peer: Some(peer) })
    }

    /// The address of this host; `None`: unknown or unspecified. An IPv4-mapped IPv6 address becomes IPv4.
    pub(super) fn local_address(&self) -> Option<IpAddr> {
        self.local.map(|local| local.ip().to_canonical()).filter(|address| !address.is_unspecified())
    }

    /// The address of the controller.
    pub(super) fn peer_address(&self) -> Option<IpAddr> {
        self.peer.map(|peer| peer.ip().to_canonical())
    }

    /// The index of the link of a link-local connection, from the scope id of either address; `None`: neither has one.
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
    fn ssh_connection_has_the_client_first() {
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
    fn an_ipv4_mapped_address_is_the_ipv4_address() {
        let via = Via { local: Some("[::ffff:10.0.0.1]:1".parse().unwrap()), peer: Some("[::]:0".parse().unwrap()) };
        assert_eq!(via.local_address(), Some([10, 0, 0, 1].into()));
        assert_eq!(Via { local: via.peer, ..via }.local_address(), None);
        let via = Via { peer: Some("[fe80::7%3]:1".parse().unwrap()), ..via };
        assert_eq!(via.named_link(), Some(3));
    }
}
