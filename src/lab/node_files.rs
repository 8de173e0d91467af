//! Replaces files of the host in the nodes of a lab: `/etc/hosts`, `/etc/gai.conf` and `/sys`.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use tracing::warn;

use super::{LabError, Layout};
use crate::kernel::{NodeNamespace, add_files, mount_over, mount_sysfs};

const ETC: &str = "/etc";

/// The files in /etc that the lab replaces.
const FILES: [&str; 2] = ["hosts", "gai.conf"];

/// Writes the files into the lab's directory. All nodes have the same files.
pub(super) fn write(directory: &Path, layout: &Layout) -> Result<(), LabError> {
    for (file, text) in FILES.into_iter().zip([layout.hosts_file(), layout.address_order()]) {
        let path = directory.join(file);
        fs::write(&path, text).map_err(|error| LabError::Directory { path, error })?;
    }
    let path = staging(directory);
    fs::create_dir_all(&path).map_err(|error| LabError::Directory { path, error })
}

/// Mounts the files, and a sysfs for the node's own network, in a node's mount namespace.
pub(super) fn mount(directory: &Path, namespace: &NodeNamespace) -> io::Result<()> {
    let directory = directory.to_owned();
    namespace.run(move || {
        let missing: Vec<&str> = FILES.into_iter().filter(|file| !Path::new(ETC).join(file).exists()).collect();
        if !missing.is_empty() {
            add_files(Path::new(ETC), &missing, &staging(&directory))?;
        }
        for file in FILES {
            mount_over(&directory.join(file), &Path::new(ETC).join(file))?;
        }
        // A node works without its own sysfs: the agent reads only the interface's speed there, and has a default.
        if let Err(error) = mount_sysfs() {
            warn!(%error, "The node has no sysfs of its own.");
        }
        Ok(())
    })?
}

/// The empty folder on which [`add_files`] temporarily mounts a copy of /etc.
fn staging(directory: &Path) -> PathBuf {
    directory.join("etc")
}
