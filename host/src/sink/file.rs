//! A file that has its own name only when it is whole.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::SinkError;

/// `<name>.part`, to become `<name>`.
pub(super) struct Part {
    node: String,
    path: PathBuf,
    part: PathBuf,
    file: BufWriter<File>,
}

impl Part {
    /// Makes the folder too if there is none. What an earlier run has left
    /// under the part's name is written over.
    pub fn create(node: &str, path: &Path) -> Result<Self, SinkError> {
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        let created = create_folder_of(&part).and_then(|()| {
            // Said now and not after hours of work.
            if path.is_dir() {
                return Err(io::Error::other("a folder has this name"));
            }
            File::create(&part)
        });
        match created {
            Ok(file) => Ok(Part {
                node: node.to_owned(),
                path: path.to_owned(),
                part,
                file: BufWriter::with_capacity(256 << 10, file),
            }),
            Err(cause) => Err(SinkError::File {
                node: node.to_owned(),
                path: path.to_owned(),
                cause,
            }),
        }
    }

    pub fn write(&mut self, bytes: &[u8]) -> Result<(), SinkError> {
        let written = self.file.write_all(bytes);
        written.map_err(|cause| self.error(cause))
    }

    pub fn flush(&mut self) -> Result<(), SinkError> {
        let flushed = self.file.flush();
        flushed.map_err(|cause| self.error(cause))
    }

    /// Everything is on the disk before the file has its name.
    pub fn finish(&mut self) -> Result<(), SinkError> {
        self.flush()?;
        let finished = self
            .file
            .get_ref()
            .sync_all()
            .and_then(|()| fs::rename(&self.part, &self.path));
        finished.map_err(|cause| self.error(cause))
    }

    pub fn node(&self) -> &str {
        &self.node
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file itself, for a writer that buffers by itself.
    pub fn file(&self) -> io::Result<File> {
        self.file.get_ref().try_clone()
    }

    pub fn error(&self, cause: io::Error) -> SinkError {
        SinkError::File {
            node: self.node.clone(),
            path: self.part.clone(),
            cause,
        }
    }
}

/// Makes the folder that a file is to lie in.
pub(super) fn create_folder_of(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => {
            fs::create_dir_all(folder).map_err(|cause| {
                let message = format!("cannot make the folder {}: {cause}", folder.display());
                io::Error::new(cause.kind(), message)
            })
        }
        _ => Ok(()),
    }
}
