//! Runs the keeper: a temporary agent for a host on which no other agent runs.
//!
//! `netemctl agent --stdio`, the bridge, starts the keeper. The keeper outlives the ssh session, because the keeper
//! must end timed changes and roll back unconfirmed changes in time. The keeper exits when it is no longer needed.
//!
//! The keeper's folder, [`KeeperFolder`], is below `/run`, or below `XDG_RUNTIME_DIR` if the user is not root. A reboot
//! clears both together with the kernel's state. Each bridge holds a shared lock in this folder. A keeper that is no
//! longer needed exits only with the exclusive lock, so no bridge connects to a keeper that exits.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::{
    fcntl::{Flock, FlockArg},
    unistd::{geteuid, getuid},
};
use tokio::sync::{oneshot, watch};
use tracing::info;

use crate::{
    agent::{Config, Limits, Need, Node, ServeError, serve},
    files::if_exists,
    kernel::Kernel,
};

/// The keeper exits after this time without work and without a connected bridge.
const IDLE_TIME: Duration = Duration::from_secs(10);

/// Interval of the check whether the keeper is needed.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// A keeper's folder. Each network namespace has its own folder.
#[derive(Clone, Debug)]
pub struct KeeperFolder(PathBuf);

impl KeeperFolder {
    /// The folder of this process's network namespace.
    pub fn of_this_network() -> io::Result<Self> {
        let own = "/proc/self/ns/net";
        let found = fs::metadata(own).map_err(|error| io::Error::new(error.kind(), format!("{own}: {error}")))?;
        let network = found.ino();
        let parent = if getuid().is_root() {
            PathBuf::from("/run")
        } else {
            let folder = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute());
            folder.ok_or_else(|| io::Error::other("this user is not root and has no XDG_RUNTIME_DIR"))?
        };
        Ok(Self(parent.join("netemctl-ssh").join(format!("net-{network}"))))
    }

    /// The folder at a path.
    pub fn at(path: PathBuf) -> Self {
        Self(path)
    }

    /// The path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The keeper's socket.
    pub fn socket(&self) -> PathBuf {
        self.0.join("agent.sock")
    }

    /// The keeper's journal.
    pub fn journal(&self) -> PathBuf {
        self.0.join("journal.json")
    }

    /// The keeper's configuration.
    pub fn config(&self) -> PathBuf {
        self.0.join("agent.toml")
    }

    /// The keeper's log.
    pub fn log(&self) -> PathBuf {
        self.0.join("keeper.log")
    }

    /// Creates the folder with mode 0700, and takes the shared lock that keeps the keeper from exiting.
    #[must_use = "the keeper may exit without the lock"]
    pub fn enter(&self) -> io::Result<Flock<File>> {
        loop {
            if let Some(parent) = self.0.parent() {
                make_private(parent)?;
            }
            make_private(&self.0)?;
            // The keeper may have just exited and removed the folder.
            let Some(file) = if_exists(self.lock_file())? else { continue };
            let lock = Flock::lock(file, FlockArg::LockShared).map_err(|(_, errno)| io::Error::from(errno))?;
            if self.is_of_this_folder(&lock) {
                return Ok(lock);
            }
        }
    }

    /// Takes the lock that lets only one bridge at a time start a keeper.
    pub fn starting(&self) -> io::Result<Flock<File>> {
        let file = private().open(self.0.join("start"))?;
        Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno.into())
    }

    /// Takes the lock of the only keeper in this folder. Waits until an exiting keeper has released the lock.
    pub fn sole(&self) -> io::Result<Flock<File>> {
        Flock::lock(self.keeper_file()?, FlockArg::LockExclusive).map_err(|(_, errno)| errno.into())
    }

    /// True if a keeper runs here.
    pub(super) fn is_kept(&self) -> bool {
        self.keeper_file().is_ok_and(|file| Flock::lock(file, FlockArg::LockSharedNonblock).is_err())
    }

    fn keeper_file(&self) -> io::Result<File> {
        private().open(self.0.join("keeper"))
    }

    fn lock_file(&self) -> io::Result<File> {
        private().open(self.0.join("use"))
    }

    /// True if the folder still has the locked file. A keeper may have removed the folder before the file was locked.
    fn is_of_this_folder(&self, lock: &File) -> bool {
        let there = fs::metadata(self.0.join("use")).map(|there| there.ino());
        there.ok() == lock.metadata().map(|own| own.ino()).ok()
    }

    /// The exclusive lock on the file that bridges lock shared; `None`: a bridge is connected, or locking failed.
    fn alone(&self) -> Option<Flock<File>> {
        Flock::lock(self.lock_file().ok()?, FlockArg::LockExclusiveNonblock).ok()
    }

    /// Waits until the agent has had no work and no connected bridge for [`IDLE_TIME`].
    ///
    /// Returns the exclusive lock, which keeps bridges from connecting.
    async fn until_not_needed(&self, mut need: watch::Receiver<Need>) -> Flock<File> {
        let mut needed = Instant::now();
        loop {
            if *need.borrow() == Need::Process {
                drop(need.wait_for(|need| *need != Need::Process).await);
                needed = Instant::now();
            }
            tokio::time::sleep(CHECK_INTERVAL).await;
            match self.alone() {
                Some(alone) if *need.borrow() != Need::Process => {
                    if needed.elapsed() >= IDLE_TIME {
                        return alone;
                    }
                }
                _ => needed = Instant::now(),
            }
        }
    }

    /// Removes the folder, and its parent if the parent is empty.
    fn remove(&self) -> io::Result<()> {
        fs::remove_dir_all(&self.0)?;
        match self.0.parent().map(fs::remove_dir) {
            Some(Err(error)) if error.kind() != io::ErrorKind::DirectoryNotEmpty => Err(error),
            _ => Ok(()),
        }
    }
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    options
}

/// Creates a folder with mode 0700, or checks that only this user can access an existing folder.
fn make_private(folder: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    // A keeper may have just removed the folder; the caller retries.
    let Some(there) = if_exists(fs::symlink_metadata(folder))? else { return Ok(()) };
    if !there.is_dir() || there.uid() != geteuid().as_raw() || there.mode() & 0o077 != 0 {
        let why = format!("other users can access {}; remove it", folder.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    Ok(())
}

/// Serves `node` until the node needs no running agent, or until `end`. If the node is then clear, removes the folder,
/// or after `end` only the journal.
pub async fn keep<K: Kernel + 'static>(
    node: Node<K>,
    config: &Config,
    folder: KeeperFolder,
    end: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ServeError> {
    let need = node.need();
    let (tell, told) = oneshot::channel();
    let (watched, own) = (need.clone(), folder.clone());
    let until = async move {
        tokio::select! {
            () = end => {}
            alone = own.until_not_needed(watched) => {
                info!("The keeper is no longer needed.");
                drop(tell.send(alone));
            }
        }
    };
    serve(Limits::default(), node, config, until).await?;
    let is_clear = *need.borrow() == Need::Nothing;
    let removed = match told.await {
        Ok(_alone) if is_clear => folder.remove(),
        // After `end`, a bridge may wait in this folder for the next keeper, so only the journal is removed.
        Err(_) if is_clear => fs::remove_file(folder.journal()),
        _ => Ok(()),
    };
    removed.map_err(|error| ServeError::Folder(folder.0, error))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn folder(parent: &Path) -> KeeperFolder {
        KeeperFolder::at(parent.join("netemctl-ssh").join("net-1"))
    }

    #[test]
    fn a_keeper_exits_only_without_bridges_and_a_later_bridge_creates_the_folder_again() {
        let parent = tempfile::tempdir().unwrap();
        let folder = folder(parent.path());
        let first = folder.enter().unwrap();
        let second = folder.enter().unwrap();
        drop(first);
        assert!(folder.alone().is_none());
        drop(second);
        let alone = folder.alone().unwrap();
        let coming = std::thread::spawn({
            let folder = folder.clone();
            move || folder.enter().map(|presence| (folder.alone().is_none(), presence))
        });
        std::thread::sleep(Duration::from_millis(50));
        folder.remove().unwrap();
        assert!(!parent.path().join("netemctl-ssh").exists());
        drop(alone);
        // The bridge has waited for the lock in the removed folder, and then created a new folder.
        let (is_seen, _presence) = coming.join().unwrap().unwrap();
        assert!(is_seen && folder.path().exists());
    }

    #[test]
    fn a_folder_that_other_users_can_enter_is_refused() {
        let parent = tempfile::tempdir().unwrap();
        let folder = folder(parent.path());
        drop(folder.enter().unwrap());
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(folder.enter().unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        fs::remove_dir_all(folder.path()).unwrap();
        std::os::unix::fs::symlink("/", folder.path()).unwrap();
        assert_eq!(folder.enter().unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    }
}
