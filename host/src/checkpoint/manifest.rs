//! A checkpoint's manifest: everything in it but the rows of state, and its format.
//!
//! A manifest is a line with the length and checksum of what follows, and then JSON:
//!
//! ```text
//! sluicebox checkpoint 2 bytes=812 xxh3=8f0c63a1b2d4e5f6
//! { "id": 17, … }
//! ```

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use super::checksum::Checksum;
use super::snapshot::{SinkSnapshot, SourceSnapshot};
use crate::element::{CheckpointId, Purpose};
use crate::plan::change::NodeDescription;

/// Version of the format. A change to it needs a new number and a reader for the old one.
pub const VERSION: u32 = 2;

/// The start of the first line in every version.
const MAGIC: &str = "sluicebox checkpoint ";

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    pub id: CheckpointId,
    /// Only a savepoint has one.
    pub name: Option<String>,
    /// Milliseconds since 1970.
    pub created_ms: i64,
    pub pipeline: String,
    /// Why it was made.
    pub purpose: Purpose,
    /// The participants in its commit. If there are any, it counts only if they have
    /// committed it.
    pub participants: Vec<String>,
    /// In the plan's order.
    pub nodes: Vec<NodeManifest>,
    /// Length of the file of dead letters at this checkpoint.
    pub dead_letter_bytes: Option<u64>,
    /// Which of the dead letters belong to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead_letters: Option<LettersManifest>,
    /// The checkpoints before it that it does not go on from, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub given_up: Vec<GivenUp>,
    /// How many bytes of files the storage's last merge of all of them has left; 0 before
    /// the first.
    #[serde(default, skip_serializing_if = "is_none_left")]
    pub left_bytes: u64,
    /// Set by the storage.
    pub files: Vec<FileManifest>,
}

fn is_none_left(left_bytes: &u64) -> bool {
    *left_bytes == 0
}

/// The checkpoints behind one that a run has gone back to. What the files of sinks had by then
/// is taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenUp {
    /// What was gone back to.
    pub behind: CheckpointId,
    /// The last one then.
    pub until: CheckpointId,
}

impl GivenUp {
    pub fn has(&self, id: CheckpointId) -> bool {
        self.behind < id && id <= self.until
    }
}

/// How a checkpoint's dead letters are told from later ones.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LettersManifest {
    /// When the pipeline started without a checkpoint, in ms since 1970. Its dead
    /// letters name it.
    pub started_ms: i64,
    /// Their file, relative to the pipeline's folder if it is in there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
    /// Those that the run takes back once this checkpoint is committed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub taken_back: Vec<LettersAfter>,
}

/// The dead letters after a checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LettersAfter {
    /// The name that the pipeline had.
    pub pipeline: String,
    pub checkpoint: CheckpointId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
}

/// A node of the checkpoint. A restore finds it by its name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeManifest {
    /// The node in the plan of that run.
    #[serde(flatten)]
    pub description: NodeDescription,
    pub progress: ProgressManifest,
}

/// How far a node has come.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProgressManifest {
    /// The node has nothing to restore.
    #[default]
    Nothing,
    /// One snapshot for each task.
    Source(Vec<SourceSnapshot>),
    Operator(OperatorManifest),
    Sink(SinkSnapshot),
}

/// The progress of an operator, and where its state is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OperatorManifest {
    /// The number of each table of the description. The storage keys of a table's
    /// rows begin with it.
    pub tables: Vec<u32>,
    /// Its watermark, or processing time.
    pub time_ms: Option<i64>,
    /// The newest event time of its rows. Earlier versions did not note it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newest_ms: Option<i64>,
    /// The newest event time when all inputs ended in an earlier run. In earlier versions,
    /// the watermark was beyond the windows that fired then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_ms: Option<i64>,
}

impl NodeManifest {
    pub fn name(&self) -> &str {
        &self.description.name
    }

    /// The table of this role.
    pub fn table(&self, role: &str) -> Option<u32> {
        let ProgressManifest::Operator(operator) = &self.progress else {
            return None;
        };
        let mut roles = self.description.tables.iter();
        let index = roles.position(|table| table.role == role)?;
        operator.tables.get(index).copied()
    }
}

/// A file of a checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FileManifest {
    pub name: String,
    pub bytes: u64,
    /// XXH3 (64 bits) of its content, in hex.
    pub checksum: String,
}

/// Why this host cannot restore from these bytes.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum ManifestError {
    #[error("it does not start like a manifest (`sluicebox checkpoint …`)")]
    Foreign,
    #[error(
        "it is written in version {found} of the format, and this host knows versions up to \
         {VERSION}: continue with the host that wrote it, or a newer one"
    )]
    Newer { found: u32 },
    #[error("it ends within its first line")]
    Headless,
    #[error("it is cut short: {found} bytes of content instead of {expected}")]
    Truncated { expected: usize, found: usize },
    #[error("it has {found} bytes of content instead of {expected}")]
    TooLong { expected: usize, found: usize },
    #[error("its content has the checksum {found} instead of {expected}")]
    Checksum { expected: String, found: String },
    #[error("its content is not what a manifest says: {0}")]
    Content(String),
}

impl Manifest {
    /// The bytes of its file.
    pub fn encode(&self) -> Vec<u8> {
        let content = serde_json::to_vec_pretty(self)
            .expect("a manifest has only fields that JSON has, and text for keys");
        let (bytes, sum) = (content.len(), Checksum::of(&content));
        let mut file = format!("{MAGIC}{VERSION} bytes={bytes} xxh3={sum}\n").into_bytes();
        file.extend(content);
        file
    }

    /// Reads what [`Manifest::encode`] has written, in this version or before.
    pub fn decode(file: &[u8]) -> Result<Manifest, ManifestError> {
        let (head, content) = split_head(file)?;
        if head.version > VERSION {
            return Err(ManifestError::Newer {
                found: head.version,
            });
        }
        let (expected, found) = (head.bytes, content.len());
        if found < expected {
            return Err(ManifestError::Truncated { expected, found });
        }
        if found > expected {
            return Err(ManifestError::TooLong { expected, found });
        }
        let sum = Checksum::of(content);
        if sum != head.checksum {
            return Err(ManifestError::Checksum {
                expected: head.checksum.to_owned(),
                found: sum,
            });
        }
        let manifest: Manifest = serde_json::from_slice(content)
            .map_err(|error| ManifestError::Content(error.to_string()))?;
        match manifest.files.iter().find(|file| !is_plain(&file.name)) {
            Some(file) => Err(ManifestError::Content(format!(
                "`{}` is not the name of a file beside it",
                file.name
            ))),
            None => Ok(manifest),
        }
    }
}

/// Files of a checkpoint are in its folder, and nowhere else.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\\', '\0'])
}

/// What the first line says.
struct Head<'a> {
    version: u32,
    bytes: usize,
    checksum: &'a str,
}

/// Only the version is read of a line that a newer host has written.
fn split_head(file: &[u8]) -> Result<(Head<'_>, &[u8]), ManifestError> {
    let rest = file
        .strip_prefix(MAGIC.as_bytes())
        .ok_or(ManifestError::Foreign)?;
    let end = memchr::memchr(b'\n', rest).ok_or(ManifestError::Headless)?;
    let line = std::str::from_utf8(&rest[..end]).map_err(|_| ManifestError::Foreign)?;
    let mut words = line.split(' ');
    let version = words
        .next()
        .and_then(|word| word.parse().ok())
        .filter(|version| *version > 0)
        .ok_or(ManifestError::Foreign)?;
    let mut head = Head {
        version,
        bytes: 0,
        checksum: "",
    };
    if version <= VERSION {
        let mut value = |name: &str| words.next()?.strip_prefix(name)?.strip_prefix('=');
        head.bytes = value("bytes")
            .and_then(|bytes| bytes.parse().ok())
            .ok_or(ManifestError::Foreign)?;
        head.checksum = value("xxh3").ok_or(ManifestError::Foreign)?;
    }
    Ok((head, &rest[end + 1..]))
}
