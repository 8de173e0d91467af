//! The keeper: an agent that nobody installed. `netemctl agent --stdio` starts it when it is needed; it outlives the ssh
//! session, since deadlines and what is under way must, and ends when it is not needed any more.
//!
//! Where it lives, [`KeeperFolder`], is below `/run`, as what the kernel has is gone after a reboot as well. Everybody
//! who is connected holds a shared lock there for as long; the keeper ends only while it holds that lock alone, so
//! nobody ever finds a keeper that is about to go.

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
    agent::{Config, Need, Node, ServeError, serve},
    kernel::Kernel,
};

/// How long nothing may have been needed of it before it ends.
const LINGERS: Duration = Duration::from_secs(10);

/// How often it is looked.
const LOOKS_EVERY: Duration = Duration::from_millis(500);

/// A keeper's folder, one for each network namespace.
#[derive(Clone, Debug)]
pub struct KeeperFolder(PathBuf);

/// Says that somebody is connected, as long as it lives.
#[must_use = "the keeper may end without it"]
#[derive(Debug)]
pub struct FolderLock {
    _lock: Flock<File>,
}

impl KeeperFolder {
    /// That of the network namespace that this process is in.
    pub fn of_this_network() -> io::Result<Self> {
        let own = "/proc/self/ns/net";
        let found = fs::metadata(own).map_err(|error| io::Error::new(error.kind(), format!("{own}: {error}")))?;
        let network = found.ino();
        let parent = if getuid().is_root() {
            PathBuf::from("/run")
        } else {
            let folder = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute());
            folder.ok_or_else(|| io::Error::other("this user is not root, and has no XDG_RUNTIME_DIR either"))?
        };
        Ok(Self(parent.join("netemctl-ssh").join(format!("net-{network}"))))
    }

    /// The one at a path.
    pub fn at(path: PathBuf) -> Self {
        Self(path)
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Where the keeper listens.
    pub fn socket(&self) -> PathBuf {
        self.0.join("agent.sock")
    }

    /// Where it keeps what is in force.
    pub fn journal(&self) -> PathBuf {
        self.0.join("journal.json")
    }

    /// Its configuration.
    pub fn config(&self) -> PathBuf {
        self.0.join("agent.toml")
    }

    /// What it says.
    pub fn log(&self) -> PathBuf {
        self.0.join("keeper.log")
    }

    /// Makes the folder, for this user alone, and keeps a keeper that is there from ending.
    pub fn enter(&self) -> io::Result<FolderLock> {
        loop {
            if let Some(parent) = self.0.parent() {
                make_private(parent)?;
            }
            make_private(&self.0)?;
            let lock = match self.lock_file() {
                Ok(file) => Flock::lock(file, FlockArg::LockShared).map_err(|(_, errno)| io::Error::from(errno))?,
                // The keeper has just ended and taken the folder along.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            if self.is_of_this_folder(&lock) {
                return Ok(FolderLock { _lock: lock });
            }
        }
    }

    /// Lets nobody else start a keeper at the same time.
    pub fn starting(&self) -> io::Result<Flock<File>> {
        let file = private().open(self.0.join("start"))?;
        Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno.into())
    }

    /// Waits until no other keeper is at work here, if one is still ending; none is as long as the answer lives.
    pub fn sole(&self) -> io::Result<Flock<File>> {
        Flock::lock(self.keeper_file()?, FlockArg::LockExclusive).map_err(|(_, errno)| errno.into())
    }

    /// Whether a keeper is at work here.
    pub(super) fn is_kept(&self) -> bool {
        self.keeper_file().is_ok_and(|file| Flock::lock(file, FlockArg::LockSharedNonblock).is_err())
    }

    fn keeper_file(&self) -> io::Result<File> {
        private().open(self.0.join("keeper"))
    }

    fn lock_file(&self) -> io::Result<File> {
        private().open(self.0.join("use"))
    }

    /// Whether the file that is locked is the one that others would lock.
    fn is_of_this_folder(&self, lock: &File) -> bool {
        let there = fs::metadata(self.0.join("use")).map(|there| there.ino());
        there.ok() == lock.metadata().map(|own| own.ino()).ok()
    }

    /// The folder for oneself, if nobody is connected.
    fn alone(&self) -> Option<Flock<File>> {
        Flock::lock(self.lock_file().ok()?, FlockArg::LockExclusiveNonblock).ok()
    }

    /// Waits until the agent has not been needed for a while. Nobody connects as long as the answer lives.
    async fn until_not_needed(&self, mut need: watch::Receiver<Need>) -> Flock<File> {
        let mut needed = Instant::now();
        loop {
            if *need.borrow() == Need::Process {
                drop(need.wait_for(|need| *need != Need::Process).await);
                needed = Instant::now();
            }
            tokio::time::sleep(LOOKS_EVERY).await;
            match self.alone() {
                Some(alone) if *need.borrow() != Need::Process => {
                    if needed.elapsed() >= LINGERS {
                        return alone;
                    }
                }
                _ => needed = Instant::now(),
            }
        }
    }

    /// Removes everything, the folder that all are in as well if it is the last.
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

/// Makes a folder for this user alone, or sees that it is one.
fn make_private(folder: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let there = match fs::symlink_metadata(folder) {
        // It has just been removed; whoever asks tries again.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        there => there?,
    };
    if !there.is_dir() || there.uid() != geteuid().as_raw() || there.mode() & 0o077 != 0 {
        let why = format!("{} is not a folder of this user alone; remove it", folder.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    Ok(())
}

/// Serves `node` until it is not needed, or until `end`. Leaves the journal if something is in force, and else nothing.
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
                info!("The keeper is not needed any more.");
                drop(tell.send(alone));
            }
        }
    };
    serve(node, config, until).await?;
    let is_clear = *need.borrow() == Need::Nothing;
    let removed = match told.await {
        Ok(_alone) if is_clear => folder.remove(),
        // Somebody is connected, and waits for the next keeper.
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
    fn a_keeper_is_never_alone_while_somebody_is_connected_and_somebody_may_come_after_it_has_gone() {
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
        // What it had waited for is not the folder that there is now.
        let (is_seen, _presence) = coming.join().unwrap().unwrap();
        assert!(is_seen && folder.path().exists());
    }

    #[test]
    fn a_folder_that_others_can_enter_is_none_of_ours() {
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
