//! Lists the inventory keys for the address of an agent, by transport.

use crate::plan::Transport;

/// The keys for the address of an agent with this transport.
pub(super) fn keys(transport: Transport) -> &'static [&'static str] {
    match transport {
        Transport::Unix => &["socket"],
        Transport::Https => &["host", "port"],
        Transport::Ssh => &["host", "port", "user"],
    }
}

/// The transports that use this key.
pub(super) fn with_key(key: &str) -> impl Iterator<Item = Transport> {
    Transport::ALL.into_iter().filter(move |transport| keys(*transport).contains(&key))
}
