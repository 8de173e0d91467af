//! What the nodes of a lab see of the host's files: all of them, but for the names of the lab and the interfaces of the
//! node.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use tracing::warn;

use super::{LabError, Layout};
use crate::kernel::{NodeNamespace, add_files, mount_over, mount_sysfs};

const ETC: &str = "/etc";

/// The files below /etc that each node has of the lab.
const FILES: [&str; 2] = ["hosts", "gai.conf"];

/// The lab's files, for all nodes alike.
#[derive(Clone)]
pub(super) struct Wardrobe {
    directory: PathBuf,
}

impl Wardrobe {
    /// Writes them into the lab's directory.
    pub(super) fn fill(directory: &Path, layout: &Layout) -> Result<Self, LabError> {
        for (file, text) in FILES.into_iter().zip([layout.hosts_file(), layout.address_order()]) {
            let path = directory.join(file);
            fs::write(&path, text).map_err(|error| LabError::Directory { path, error })?;
        }
        let path = staging(directory);
        fs::create_dir_all(&path).map_err(|error| LabError::Directory { path, error })?;
        Ok(Self { directory: directory.to_owned() })
    }

    /// Gives namespaces these files and a sysfs of their own.
    pub(super) fn dress(&self, namespace: &NodeNamespace) -> io::Result<()> {
        let wardrobe = self.clone();
        namespace.run(move || wardrobe.put_on())?
    }

    fn put_on(&self) -> io::Result<()> {
        let missing: Vec<&str> = FILES.into_iter().filter(|file| !Path::new(ETC).join(file).exists()).collect();
        if !missing.is_empty() {
            add_files(Path::new(ETC), &missing, &staging(&self.directory))?;
        }
        for file in FILES {
            mount_over(&self.directory.join(file), &Path::new(ETC).join(file))?;
        }
        // Only the speed of the interface is read there; without it, a speed is assumed.
        if let Err(error) = mount_sysfs() {
            warn!(%error, "The node has no sysfs of its own.");
        }
        Ok(())
    }
}

/// An empty folder to make another /etc in.
fn staging(directory: &Path) -> PathBuf {
    directory.join("etc")
}
