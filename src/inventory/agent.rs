//! Lists the inventory keys for the address of an agent, by transport.

use crate::plan::TransportKind;

/// The keys for the address of an agent with this transport.
pub(super) fn keys(transport: TransportKind) -> &'static [&'static str] {
    match transport {
        TransportKind::Unix => &["socket"],
        TransportKind::Https => &["host", "port"],
        TransportKind::Ssh => &["host", "port", "user"],
    }
}

/// The transports that use this key.
pub(super) fn with_key(key: &str) -> impl Iterator<Item = TransportKind> {
    TransportKind::ALL.into_iter().filter(move |transport| keys(*transport).contains(&key))
}
