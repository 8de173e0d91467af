//! Opens a netlink socket in a new network namespace, for an agent without `CAP_SYS_ADMIN`.
//!
//! A new network namespace requires `CAP_SYS_ADMIN`. Every user has this capability in a user namespace of their own
//! (`user_namespaces(7)`). Only a process with one thread may make a user namespace, and the agent has several threads.
//! So a child process makes both namespaces, opens a netlink socket, sends the socket to the agent and ends. The open
//! socket keeps the namespaces, so they end with the agent. The agent's user made the user namespace and has all
//! capabilities in it. So the agent may change the network by this socket.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    process::{Child, Command, Stdio},
    time::Duration,
};

use nix::sched::{CloneFlags, unshare};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};

use super::socket::Socket;

/// The hidden command that calls [`send_namespace_socket`].
const COMMAND: &str = "send-namespace-socket";

/// The timeout for the child, which needs a few milliseconds.
const TIMEOUT: Duration = Duration::from_secs(20);

/// The longest error text of a child, in bytes.
const ERROR_LENGTH: usize = 256;

/// Makes a network namespace in a new user namespace, and sends a netlink socket of the namespace to the peer of `to`.
///
/// After an error, the peer gets the text of the error. The process must have only one thread.
pub fn send_namespace_socket(to: impl AsFd) -> io::Result<()> {
    let made = new_namespace_socket();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut rights = SendAncillaryBuffer::new(&mut space);
    let descriptor = made.as_ref().map(Socket::as_fd);
    let descriptors = descriptor.as_ref().map_or(&[][..], std::slice::from_ref);
    if !descriptors.is_empty() {
        rights.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    let text = made.as_ref().err().map_or_else(|| "made".to_owned(), io::Error::to_string);
    sendmsg(to, &[IoSlice::new(text.as_bytes())], &mut rights, SendFlags::NOSIGNAL)?;
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "this process exists for the namespace")]
fn new_namespace_socket() -> io::Result<Socket> {
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET)?;
    Socket::open()
}

/// Starts a child process that makes a network namespace, and returns the netlink socket that the child sends.
pub(super) fn request_namespace_socket() -> io::Result<Socket> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_read_timeout(Some(TIMEOUT))?;
    let mut child = start(theirs)?;
    let received = receive(&ours);
    if received.is_err() {
        // The child may have ended already.
        drop(child.kill());
    }
    child.wait()?;
    received
}

/// Starts this executable, even if another version has replaced its file.
#[expect(clippy::disallowed_methods, reason = "this module needs a child process")]
fn start(theirs: UnixStream) -> io::Result<Child> {
    let mut command = Command::new("/proc/self/exe");
    command.arg(COMMAND).env_clear().stdin(OwnedFd::from(theirs)).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn()
}

fn receive(from: &UnixStream) -> io::Result<Socket> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut rights = RecvAncillaryBuffer::new(&mut space);
    let mut text = [0; ERROR_LENGTH];
    let received = recvmsg(from, &mut [IoSliceMut::new(&mut text)], &mut rights, RecvFlags::CMSG_CLOEXEC)?;
    let descriptor = rights.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    match descriptor {
        Some(descriptor) => Ok(descriptor.into()),
        None if received.bytes == 0 => Err(io::Error::other("the child process ended without an answer")),
        None => Err(io::Error::other(String::from_utf8_lossy(&text[..received.bytes.min(ERROR_LENGTH)]).into_owned())),
    }
}
