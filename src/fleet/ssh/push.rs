//! Copies netemctl to a host that lacks the same build: [`Binary`].

use std::{fs, io, path::PathBuf, time::Duration};

use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use super::{
    Options, command,
    failure::{Ended, NO_NETEMCTL, failure, lasting},
    process::Process,
};
use crate::plan::SshAddress;

/// The time limit of copying, including the login.
const SENT_WITHIN: Duration = Duration::from_mins(5);

/// The number of bytes that are read from the host's stdout at most.
const ANSWER_LIMIT: u64 = 64 * 1024;

/// The number of hexadecimal digits of the hash in the file's name. 16 digits are 64 bits, enough to distinguish
/// builds.
const HASH_IN_NAME: usize = 16;

/// The path of a pushed binary of this version, below the user's home, without the hash at its end.
const PUSHED: &str = concat!(".cache/netemctl/netemctl-", env!("CARGO_PKG_VERSION"), "-");

/// A shell script that sets `$netemctl` to the newest pushed binary of this version, or else to the installed binary.
/// So a command without `--push` finds the binary that an earlier command copied.
pub(super) fn find_any() -> String {
    format!(
        "netemctl=$(ls -t \"$HOME\"/{PUSHED}* 2>/dev/null | head -n 1); [ -x \"$netemctl\" ] || netemctl=netemctl; "
    )
}

/// A binary to copy.
#[derive(Debug)]
pub(super) struct Binary {
    bytes: Vec<u8>,
    /// SHA-256, in hexadecimal.
    hash: String,
}

impl Binary {
    pub(super) async fn read(file: PathBuf) -> io::Result<Self> {
        let read = tokio::task::spawn_blocking(move || match fs::read(&file) {
            Ok(bytes) => Ok(Self::of(bytes)),
            Err(error) => Err(lasting(format!("cannot read {} to copy it there: {error}", file.display()))),
        });
        read.await.map_err(io::Error::other)?
    }

    fn of(bytes: Vec<u8>) -> Self {
        let hash = Sha256::digest(&bytes).iter().fold(String::new(), |hash, byte| hash + &format!("{byte:02x}"));
        Self { bytes, hash }
    }

    /// The path on a host, below the user's home.
    fn path(&self) -> String {
        format!("{PUSHED}{}", &self.hash[..HASH_IN_NAME])
    }

    /// A shell script that sets `$netemctl` to this build, pushed or installed. Exits with [`NO_NETEMCTL`] if the host
    /// lacks this build.
    pub(super) fn find(&self) -> String {
        format!(
            "netemctl=$HOME/{path}; \
             [ -x \"$netemctl\" ] || {{ netemctl=$(command -v netemctl) && [ \"$(sha256sum <\"$netemctl\")\" = \"{hash}  -\" ]; }} \
             || exit {NO_NETEMCTL}; ",
            path = self.path(),
            hash = self.hash
        )
    }

    /// A shell script that writes its stdin to a temporary file, checks the length of the file, runs the file with
    /// `--version`, and moves the file to [`Self::path`].
    fn receive(&self) -> String {
        format!(
            "set -e; umask 077; netemctl=$HOME/{path}; folder=${{netemctl%/*}}; mkdir -p \"$folder\"; \
             new=$(mktemp \"$folder/.netemctl-XXXXXX\"); trap 'rm -f \"$new\"' EXIT; trap 'exit 1' HUP INT TERM; \
             cat >\"$new\"; \
             [ \"$(wc -c <\"$new\")\" -eq {length} ] || {{ echo \"error: the copy is incomplete\" >&2; exit 1; }}; \
             chmod 700 \"$new\"; \"$new\" --version; mv -f \"$new\" \"$netemctl\"",
            path = self.path(),
            length = self.bytes.len()
        )
    }

    /// Copies the binary to a host, and checks that the copy runs there.
    pub(super) async fn send(&self, options: &Options, address: &SshAddress) -> io::Result<()> {
        let too_late = || io::Error::other(format!("copying netemctl took more than {} s", SENT_WITHIN.as_secs()));
        timeout(SENT_WITHIN, self.copy(options, address)).await.unwrap_or_else(|_| Err(too_late()))?;
        if let Some(tell) = options.tell {
            let megabytes = self.bytes.len() as f64 / 1e6;
            tell(&format!("copied this netemctl ({megabytes:.1} MB) to {address}: ~/{}\n", self.path()));
        }
        Ok(())
    }

    async fn copy(&self, options: &Options, address: &SshAddress) -> io::Result<()> {
        let (mut process, mut stdin, stdout) = Process::start(options, address, &command::in_sh(&self.receive()))?;
        let send = async move {
            // A write error needs no report: the exit code and stderr show the cause.
            drop(stdin.write_all(&self.bytes).await);
            drop(stdin.shutdown().await);
        };
        // At the limit, stdout is closed, which ends an ssh process that writes without end.
        let listen = async move {
            let mut said = Vec::new();
            drop(stdout.take(ANSWER_LIMIT).read_to_end(&mut said).await);
            said
        };
        let ((), said) = tokio::join!(send, listen);
        let said = String::from_utf8_lossy(&said);
        let status = process.ended().await;
        let runs = said.lines().any(|line| line == concat!("netemctl ", env!("CARGO_PKG_VERSION")));
        if runs && status.is_some_and(|status| status.success()) {
            return Ok(());
        }
        let code = status.and_then(|status| status.code());
        let error = failure(options, address, &Ended { code, stderr: &process.stderr(), stdout: &said });
        Err(io::Error::new(error.kind(), format!("netemctl could not be copied there: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_on_the_host_has_the_version_and_the_hash_of_the_build() {
        let path = Binary::of(b"a binary".to_vec()).path();
        let (version, hash) = (env!("CARGO_PKG_VERSION"), "7a0f4d94ae5a7f2f");
        let expected = format!(".cache/netemctl/netemctl-{version}-{hash}");
        assert_eq!(path.len(), expected.len());
        assert_ne!(path, Binary::of(b"another one".to_vec()).path());
    }
}
