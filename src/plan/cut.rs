//! Defines the cuts of an interface. A [`Cut`] is one filter that drops packets.

use std::{fmt, net::IpAddr, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::Direction;

/// A cut: the packets that one filter drops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Cut {
    /// The place of the filter: egress for packets to the peer, ingress for packets from the peer.
    pub direction: Direction,
    /// The address of the peer.
    pub address: IpAddr,
    /// The kind of packets that the filter drops.
    pub traffic: Traffic,
    /// The answer to the sender of a cut packet.
    #[serde(default, skip_serializing_if = "Answer::is_silence")]
    pub answer: Answer,
}

/// The kind of packets between two addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Traffic {
    /// All packets.
    All,
    /// The packets to a port.
    ToPort {
        /// The port.
        port: Port,
    },
    /// The packets from a port.
    FromPort {
        /// The port.
        port: Port,
    },
    /// The fragments of a protocol.
    ///
    /// The filter cannot match the ports of fragments. So a cut of a port cuts all fragments of the protocol.
    FragmentsOf {
        /// The protocol.
        protocol: Protocol,
    },
}

/// The answer to the sender of a cut packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// The sender gets no answer.
    #[default]
    Silence,
    /// The sender gets a refusal, as from a router: a TCP reset, or "destination unreachable" for other packets.
    ///
    /// Refusals exist at egress only. The agent of the sender's node sends the refusal. If the agent does not run, the
    /// sender gets no answer.
    Refusal,
}

impl Answer {
    /// True for the default answer. serde skips the default.
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
    fn is_silence(&self) -> bool {
        *self == Self::Silence
    }
}

/// A port of a protocol. The text form is `tcp/26257`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(with = "String"))]
pub struct Port {
    /// The protocol.
    pub protocol: Protocol,
    /// The port number. Port 0 is not allowed.
    pub number: u16,
}

/// A protocol that has ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP (RFC 9293).
    Tcp,
    /// UDP (RFC 768).
    Udp,
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { direction, address, traffic, answer } = self;
        match traffic {
            Traffic::All => write!(f, "{address} at {direction}")?,
            Traffic::ToPort { port } => write!(f, "{address} to {port} at {direction}")?,
            Traffic::FromPort { port } => write!(f, "{address} from {port} at {direction}")?,
            Traffic::FragmentsOf { protocol } => write!(f, "{address} {protocol} fragments at {direction}")?,
        }
        match answer {
            Answer::Silence => Ok(()),
            Answer::Refusal => f.write_str(" with a refusal"),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.protocol, self.number)
    }
}

/// The error for a text that is not a port.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{0}` is not a port: write the protocol and the number, as in tcp/26257 or udp/4567")]
pub struct PortError(String);

impl FromStr for Port {
    type Err = PortError;

    fn from_str(text: &str) -> Result<Self, PortError> {
        let port = text.split_once('/').and_then(|(protocol, number)| {
            let protocol = match protocol {
                "tcp" => Protocol::Tcp,
                "udp" => Protocol::Udp,
                _ => return None,
            };
            let digits = number.bytes().all(|byte| byte.is_ascii_digit());
            let number = number.parse().ok().filter(|number| digits && *number > 0)?;
            Some(Self { protocol, number })
        });
        port.ok_or_else(|| PortError(text.to_owned()))
    }
}

crate::topology::json_text!(Port);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_needs_a_protocol_and_a_number() {
        let port: Port = "tcp/26257".parse().unwrap();
        assert_eq!((port.protocol, port.number, port.to_string().as_str()), (Protocol::Tcp, 26257, "tcp/26257"));
        for text in ["", "26257", "tcp", "tcp/", "tcp/0", "tcp/65536", "tcp/+1", "sctp/1", "TCP/1", "tcp/1/2"] {
            assert_eq!(text.parse::<Port>(), Err(PortError(text.to_owned())));
        }
    }
}
