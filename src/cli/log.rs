//! The log of long-running processes: on stderr, or in a file of bounded size.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Mutex,
};

use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

/// The maximum size of a log file, in bytes.
const LIMIT: u64 = 512 * 1024;

/// Logs to stderr.
///
/// The default level is `info`.
pub(super) fn to_stderr() {
    start(io::stderr);
}

/// Logs to a file.
///
/// A full file is renamed to `FILE.1`, which replaces an older `FILE.1`.
pub(super) fn to_file(path: &Path) -> io::Result<()> {
    start(Mutex::new(BoundedLog::open(path, LIMIT)?));
    Ok(())
}

fn start(writer: impl for<'a> MakeWriter<'a> + Send + Sync + 'static) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_ansi(false);
    // A second call in one process changes nothing.
    drop(log.try_init());
}

/// A log file with a size limit.
///
/// The previous log file is kept as `FILE.1`.
struct BoundedLog {
    path: PathBuf,
    limit: u64,
    file: File,
}

impl BoundedLog {
    fn open(path: &Path, limit: u64) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), limit, file: open(path)? })
    }

    fn rotate(&mut self) -> io::Result<()> {
        let mut before = OsString::from(&self.path);
        before.push(".1");
        fs::rename(&self.path, before)?;
        self.file = open(&self.path)?;
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

impl Write for BoundedLog {
    /// Writes one event of the log.
    ///
    /// `event` is always a whole event.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let size = self.file.metadata()?.len();
        if size > 0 && size.saturating_add(event.len() as u64) > self.limit {
            // If the rename fails, the log exceeds its limit, which is better than no log.
            let _not_rotated = self.rotate();
        }
        self.file.write_all(event)?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_log_starts_a_new_file_and_keeps_the_previous_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.log");
        let text = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
        fs::write(&path, "started before\n").unwrap();
        let mut log = BoundedLog::open(&path, 30).unwrap();
        for event in ["one\n", "two two two\n", "three\n"] {
            log.write_all(event.as_bytes()).unwrap();
        }
        assert_eq!((&*text("agent.log.1"), &*text("agent.log")), ("started before\none\n", "two two two\nthree\n"));
        for _ in 0..100 {
            log.write_all(b"and on it goes\n").unwrap();
        }
        assert!(text("agent.log").len() <= 30 && text("agent.log.1").len() <= 30);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
