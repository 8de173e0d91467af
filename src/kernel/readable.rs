//! Waits for descriptors of the kernel on the async runtime.

use std::{io, os::fd::OwnedFd};

use tokio::io::{Interest, unix::AsyncFd};

/// Registers a descriptor with the runtime, to wait until the descriptor is readable.
#[expect(
    deprecated,
    reason = "its replacement is an unsafe function; an OwnedFd owns its descriptor, so this function is sound"
)]
pub(crate) fn readable(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(descriptor, Interest::READABLE)
}
