//! Files that are replaced as a whole: a crash leaves the old one or the new one.

use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use serde::de::DeserializeOwned;

use crate::paths;

/// What the name of a file begins with that is being written. A crash leaves it.
const UNFINISHED: &str = ".new-";

/// Only the user may read it.
pub(super) fn make_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    let bytes = fs::read(path)?;
    serde_json::from_slice(&bytes).map_err(|error| {
        let message = format!("{} is damaged: {error}", path.display());
        io::Error::new(io::ErrorKind::InvalidData, message)
    })
}

/// Refuses a file of a version that this one does not know.
pub(super) fn check_version(version: u32, known: u32, path: &Path) -> io::Result<()> {
    match version > known {
        true => Err(io::Error::other(format!(
            "{} was written by a newer version of sluicebox",
            path.display()
        ))),
        false => Ok(()),
    }
}

/// `sha256:00ff` is the file `sha256-00ff.json`.
pub(super) fn file_name(digest: &str, extension: &str) -> String {
    format!("{}.{extension}", digest.replace(':', "-"))
}

/// Writes a file. Only the user may use it, or those that `access` says.
pub(super) fn write(
    folder: &Path,
    name: &str,
    bytes: &[u8],
    access: Option<Permissions>,
) -> io::Result<()> {
    let mut file = tempfile::Builder::new()
        .prefix(UNFINISHED)
        .tempfile_in(folder)?;
    file.write_all(bytes)?;
    if let Some(access) = access {
        file.as_file().set_permissions(access)?;
    }
    file.as_file().sync_all()?;
    file.persist(folder.join(name))
        .map_err(|error| error.error)?;
    paths::sync_folder(folder)
}

/// Deletes what a crash has left. Nobody may write there.
pub(super) fn remove_unfinished(folder: &Path) -> io::Result<()> {
    for found in fs::read_dir(folder)? {
        let found = found?;
        if found.file_name().to_string_lossy().starts_with(UNFINISHED) {
            paths::remove(&found.path())?;
        }
    }
    Ok(())
}
