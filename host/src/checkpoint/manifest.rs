//! What a checkpoint says, the rows of state aside.

use serde::{Deserialize, Serialize};

use super::snapshot::{CheckpointId, SinkSnapshot, SourceSnapshot};

/// Version of the format. A change to it needs a new number and a reader for the old one.
pub const VERSION: u32 = 1;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    pub id: CheckpointId,
    /// Of a savepoint.
    pub name: Option<String>,
    /// Milliseconds since 1970.
    pub created_ms: i64,
    pub pipeline: String,
    /// All inputs had ended, and nothing is left to do.
    pub is_complete: bool,
    /// In the plan's order.
    pub nodes: Vec<NodeManifest>,
    /// Bytes of the dead letters' file that are this checkpoint's.
    pub dead_letter_bytes: Option<u64>,
    /// Filled in by the storage.
    pub files: Vec<FileManifest>,
}

/// What a checkpoint knows of a node, which is found again by its name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeManifest {
    pub name: String,
    #[serde(flatten)]
    pub kind: NodeManifestKind,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum NodeManifestKind {
    /// One entry a task.
    Source { tasks: Vec<SourceSnapshot> },
    Aggregate(AggregateManifest),
    Sink(SinkSnapshot),
}

/// What has to be the same when an aggregate goes on from its state, and where
/// that is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AggregateManifest {
    /// First bytes of the keys of its rows.
    pub table: u32,
    /// `plugin.operator`, for people.
    pub operator: String,
    /// Of the plugin's bytes, for people.
    pub digest: String,
    /// Fields as `name: type`.
    pub key: Vec<String>,
    pub state: Vec<String>,
    /// Kind and sizes.
    pub window: String,
    /// How far time has come.
    pub time_ms: Option<i64>,
}

/// A file of a checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FileManifest {
    pub name: String,
    pub bytes: u64,
    /// XXH3 (64 bits) of its content, in hex.
    pub checksum: String,
}
