//! Copying netemctl to a host that does not have that very one: [`Parcel`].

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use super::{
    Options, command,
    complaint::{Complaint, Ended, complaint},
    session::Process,
};
use crate::plan::SshAddress;

/// The exit code of a shell that finds neither the binary nor one like it: no other program's, by `sysexits.h`
/// (`EX_UNAVAILABLE`) and ours.
pub(super) const LACKS: i32 = 69;

/// What it comes to if the binary is not there after it was copied.
pub(super) const NOT_THERE: &str = "the netemctl that was copied there is not there any more";

/// How long the copying may take.
const SENT_WITHIN: Duration = Duration::from_mins(5);

/// How much is read of what the host says to that.
const ANSWER_LIMIT: u64 = 64 * 1024;

/// How much of the hash is in the name: enough that no two builds ever meet.
const HASH_IN_NAME: usize = 16;

/// Where a pushed binary of this version is on a host, below the user's home. The beginning of its hash follows.
const PUSHED: &str = concat!(".cache/netemctl/netemctl-", env!("CARGO_PKG_VERSION"), "-");

/// A script that sets `netemctl` to the binary of this version that was pushed last, or else to what is installed: a command
/// without `--push` finds what a command with it has copied.
pub(super) fn find_any() -> String {
    format!(
        "netemctl=$(ls -t \"$HOME\"/{PUSHED}* 2>/dev/null | head -n 1); [ -x \"$netemctl\" ] || netemctl=netemctl; "
    )
}

/// A binary to copy, with its hash.
#[derive(Debug)]
pub(super) struct Parcel {
    bytes: Vec<u8>,
    /// SHA-256, in hexadecimal.
    hash: String,
}

impl Parcel {
    /// Reads the binary.
    pub(super) async fn read(file: PathBuf) -> Result<Arc<Self>, String> {
        let read = tokio::task::spawn_blocking(move || match fs::read(&file) {
            Ok(bytes) => Ok(Arc::new(Self::of(bytes))),
            Err(error) => Err(format!("cannot read {} to copy it there: {error}", file.display())),
        });
        read.await.unwrap_or_else(|error| Err(error.to_string()))
    }

    fn of(bytes: Vec<u8>) -> Self {
        let hash = Sha256::digest(&bytes).iter().fold(String::new(), |hash, byte| hash + &format!("{byte:02x}"));
        Self { bytes, hash }
    }

    /// Where it is on a host, below the user's home.
    fn path(&self) -> String {
        format!("{PUSHED}{}", &self.hash[..HASH_IN_NAME])
    }

    /// A script that sets `netemctl` to this binary as the host has it, copied there or installed, or ends with
    /// [`LACKS`].
    pub(super) fn find(&self) -> String {
        let Self { hash, .. } = self;
        format!(
            "netemctl=$HOME/{path}; \
             [ -x \"$netemctl\" ] || {{ netemctl=$(command -v netemctl) && [ \"$(sha256sum <\"$netemctl\")\" = \"{hash}  -\" ]; }} \
             || exit {LACKS}; ",
            path = self.path()
        )
    }

    /// A script that puts its stdin there: under a name of its own until it is whole and is known to run.
    fn receive(&self) -> String {
        let Self { bytes, .. } = self;
        format!(
            "set -e; umask 077; netemctl=$HOME/{path}; folder=${{netemctl%/*}}; mkdir -p \"$folder\"; \
             new=$(mktemp \"$folder/.netemctl-XXXXXX\"); trap 'rm -f \"$new\"' EXIT; trap 'exit 1' HUP INT TERM; \
             cat >\"$new\"; \
             [ \"$(wc -c <\"$new\")\" -eq {length} ] || {{ echo \"error: it was cut short\" >&2; exit 1; }}; \
             chmod 700 \"$new\"; \"$new\" --version; mv -f \"$new\" \"$netemctl\"",
            path = self.path(),
            length = bytes.len()
        )
    }

    /// Copies it to a host, and sees that it runs there.
    pub(super) async fn send(&self, options: &Options, address: &SshAddress) -> Result<(), Complaint> {
        let sent = timeout(SENT_WITHIN, self.send_at_leisure(options, address)).await;
        let too_late = || format!("copying netemctl there took more than {} s", SENT_WITHIN.as_secs());
        sent.unwrap_or_else(|_| Err(Complaint::passing(too_late())))?;
        if let Some(tell) = options.tell {
            let Self { bytes, .. } = self;
            let megabytes = bytes.len() as f64 / 1e6;
            tell(&format!("copied this netemctl ({megabytes:.1} MB) to {address}: ~/{}\n", self.path()));
        }
        Ok(())
    }

    async fn send_at_leisure(&self, options: &Options, address: &SshAddress) -> Result<(), Complaint> {
        let started = Process::start(options, address, &command::in_sh(&self.receive()));
        let mut process = started.map_err(Complaint::lasting)?;
        let (stdin, stdout) = (process.child.stdin.take(), process.child.stdout.take());
        let send = async {
            if let Some(mut stdin) = stdin {
                // If the host stops reading, how it ended says why.
                drop(stdin.write_all(&self.bytes).await);
                drop(stdin.shutdown().await);
            }
        };
        let listen = async {
            let mut said = Vec::new();
            if let Some(stdout) = stdout {
                // Who says more is no netemctl.
                drop(stdout.take(ANSWER_LIMIT).read_to_end(&mut said).await);
            }
            said
        };
        let ((), said) = tokio::join!(send, listen);
        let said = String::from_utf8_lossy(&said);
        let status = process.ended().await;
        let is_ours = said.lines().any(|line| line == concat!("netemctl ", env!("CARGO_PKG_VERSION")));
        if status.is_some_and(|status| status.success()) && is_ours {
            return Ok(());
        }
        let code = status.and_then(|status| status.code());
        let stderr = process.stderr();
        let Complaint { why, lasts } = complaint(options, address, &Ended { code, stderr: &stderr, stdout: &said });
        Err(Complaint { why: format!("netemctl could not be copied there: {why}"), lasts })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_on_the_host_says_which_version_and_which_build_it_is() {
        let path = Parcel::of(b"a binary".to_vec()).path();
        let (version, hash) = (env!("CARGO_PKG_VERSION"), "7a0f4d94ae5a7f2f");
        let expected = format!(".cache/netemctl/netemctl-{version}-{hash}");
        assert_eq!(path.len(), expected.len());
        assert_ne!(path, Parcel::of(b"another one".to_vec()).path());
    }
}
