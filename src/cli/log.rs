//! What processes that run on write down: on stderr, or in a file of bounded size.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Mutex,
};

use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

/// How large a log file may become.
const LIMIT: u64 = 512 * 1024;

/// Logs to stderr, by default what an operator wants to know.
pub(super) fn to_stderr() {
    start(io::stderr);
}

/// Logs to a file. When it is full it becomes `FILE.1`, in the place of the one before.
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

/// A file that never becomes larger than its limit, with the one before it as `FILE.1`.
struct BoundedLog {
    path: PathBuf,
    limit: u64,
    file: File,
    size: u64,
}

impl BoundedLog {
    fn open(path: &Path, limit: u64) -> io::Result<Self> {
        let file = open(path)?;
        let size = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), limit, file, size })
    }

    fn turn(&mut self) -> io::Result<()> {
        let mut before = OsString::from(&self.path);
        before.push(".1");
        fs::rename(&self.path, before)?;
        self.file = open(&self.path)?;
        self.size = 0;
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

impl Write for BoundedLog {
    /// One event at a time.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let length = u64::try_from(event.len()).unwrap_or(u64::MAX);
        if self.size > 0 && self.size.saturating_add(length) > self.limit {
            // Where that fails, a log that is too long is better than none.
            let _still_the_old_one = self.turn();
        }
        self.size = self.size.saturating_add(length);
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
    fn a_log_that_is_full_begins_anew_and_keeps_the_one_before() {
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
