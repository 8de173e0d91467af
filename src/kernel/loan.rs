//! A network namespace on loan, for an agent that may not make one.
//!
//! To make a network namespace takes `CAP_SYS_ADMIN`, but in a user namespace of one's own everybody has that
//! (`user_namespaces(7)`). Only a process of one thread may go into one, so a child process does, opens a netlink socket
//! there, hands it over and ends: nothing but the socket holds the namespaces then, and they end with it, however the
//! agent does. Whoever has made a user namespace has every right in it, so the agent may write by that socket.

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

/// The program's own command that [`lend`]s.
pub const LEND_COMMAND: &str = "lend-network";

/// How long the child may take. It takes a few milliseconds.
const PATIENCE: Duration = Duration::from_secs(20);

/// The longest sentence of a child that could not do it.
const SENTENCE: usize = 256;

/// Makes a network namespace in a user namespace of this process, and hands a netlink socket of it to the process at the
/// other end of `to`; or says why not. The process must have one thread.
pub fn lend(to: impl AsFd) -> io::Result<()> {
    let made = make();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut rights = SendAncillaryBuffer::new(&mut space);
    let descriptor = made.as_ref().map(Socket::as_fd);
    let descriptors = descriptor.as_ref().map_or(&[][..], std::slice::from_ref);
    if !descriptors.is_empty() {
        rights.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    let sentence = made.as_ref().err().map_or_else(|| "made".to_owned(), io::Error::to_string);
    sendmsg(to, &[IoSlice::new(sentence.as_bytes())], &mut rights, SendFlags::NOSIGNAL)?;
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "the namespace is this process's whole purpose")]
fn make() -> io::Result<Socket> {
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET)?;
    Socket::open()
}

/// Borrows the netlink socket of a new network namespace from a child process.
pub(super) fn borrow() -> io::Result<Socket> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_read_timeout(Some(PATIENCE))?;
    let mut child = start(theirs)?;
    let lent = receive(&ours);
    if lent.is_err() {
        // It may have ended by itself.
        drop(child.kill());
    }
    child.wait()?;
    lent
}

/// The program is this very one, even if another version of it has been installed in the meantime.
#[expect(clippy::disallowed_methods, reason = "the child of this module's purpose")]
fn start(theirs: UnixStream) -> io::Result<Child> {
    let mut command = Command::new("/proc/self/exe");
    command.arg(LEND_COMMAND).env_clear().stdin(OwnedFd::from(theirs)).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn()
}

fn receive(from: &UnixStream) -> io::Result<Socket> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut rights = RecvAncillaryBuffer::new(&mut space);
    let mut sentence = [0; SENTENCE];
    let received = recvmsg(from, &mut [IoSliceMut::new(&mut sentence)], &mut rights, RecvFlags::CMSG_CLOEXEC)?;
    let descriptor = rights.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    match descriptor {
        Some(descriptor) => Ok(descriptor.into()),
        None if received.bytes == 0 => Err(io::Error::other("the child process that was to make it said nothing")),
        None => Err(io::Error::other(String::from_utf8_lossy(&sentence[..received.bytes.min(SENTENCE)]).into_owned())),
    }
}
