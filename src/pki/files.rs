//! Names the files of an identity, and reads the table `[tls]` with their paths.

use std::{
    ops::Range,
    path::{Path, PathBuf},
};

use crate::topology::{Finding, Source, TableEntry, Word};

/// The file name of the CA's certificate, in the folder of an identity.
pub const CA_FILE: &str = "ca.pem";
/// The file name of the identity's own certificate.
pub const CERTIFICATE_FILE: &str = "cert.pem";
/// The file name of the private key.
pub const KEY_FILE: &str = "key.pem";

/// The paths of an identity's files, all PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificates of trusted CAs.
    pub ca: PathBuf,
    /// The identity's own certificate.
    pub cert: PathBuf,
    /// The private key, which no other user may read.
    pub key: PathBuf,
}

impl TlsFiles {
    /// The files in a folder that [`pki issue`](super::store) made.
    pub fn in_folder(folder: &Path) -> Self {
        Self { ca: folder.join(CA_FILE), cert: folder.join(CERTIFICATE_FILE), key: folder.join(KEY_FILE) }
    }
}

/// The table `[tls]` of a file.
pub(crate) struct TlsTable<'t> {
    /// The span of the key `tls`.
    pub(crate) key: Range<usize>,
    /// `ca`, `cert` and `key`. `None`: the value is missing or not a string. The error is reported.
    pub(crate) files: [Option<Word<'t>>; 3],
}

impl<'t> TlsTable<'t> {
    /// Reads the table and reports errors.
    pub(crate) fn read(entry: TableEntry<'t>, findings: &mut Vec<Finding>) -> Option<Self> {
        let mut table = entry.table("`tls`", findings)?;
        let files = ["ca", "cert", "key"].map(|key| {
            let file = table.take(key);
            if file.is_none() {
                Finding::new(entry.key_span(), format!("`tls` needs `{key}`"))
                    .label(format!("`{key}` is missing"))
                    .help("`netemctl pki issue` makes the files of `ca`, `cert` and `key`")
                    .report(findings);
            }
            file?.file_name(findings)
        });
        table.close(findings);
        Some(Self { key: entry.key_span(), files })
    }

    /// The paths of the files, resolved relative to the folder of `source`. `None`: a path is missing.
    pub(crate) fn files(&self, source: &Source) -> Option<TlsFiles> {
        let path = |word: &Option<Word<'_>>| Some(source.path_of(word.as_ref()?.get_ref()).into());
        let [ca, cert, key] = &self.files;
        Some(TlsFiles { ca: path(ca)?, cert: path(cert)?, key: path(key)? })
    }
}
