//! What a checkpoint says, the rows of state aside.

use serde::{Deserialize, Serialize};

use super::snapshot::{CheckpointId, SinkSnapshot, SourceSnapshot};
use crate::plan::AggregatePlan;
use crate::schema::{Field, Schema};

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
    /// It holds only if the pipeline's transaction says that it was committed.
    pub is_transactional: bool,
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
    Source {
        tasks: Vec<SourceSnapshot>,
    },
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

impl AggregateManifest {
    pub fn of(plan: &AggregatePlan, table: u32) -> Self {
        let fields = |schema: &Schema| schema.fields.iter().map(Field::to_string).collect();
        let info = plan.operator.factory.info();
        AggregateManifest {
            table,
            operator: plan.operator.name.clone(),
            digest: plan.operator.factory.digest().to_owned(),
            key: fields(&plan.key_schema),
            state: fields(&info.state),
            window: plan.window.describe(),
            time_ms: None,
        }
    }

    /// What keeps an operator from going on from this state, if anything.
    pub fn difference(&self, now: &AggregateManifest) -> Option<String> {
        let differs = |what: &str, then: &str, now: &str| {
            Some(format!("its {what} was {then} and is now {now}"))
        };
        let fields = |fields: &[String]| match fields {
            [] => "empty".to_owned(),
            fields => fields.join(", "),
        };
        if self.key != now.key {
            return differs("key", &fields(&self.key), &fields(&now.key));
        }
        if self.state != now.state {
            return differs("state", &fields(&self.state), &fields(&now.state));
        }
        if self.window != now.window {
            return differs("window", &self.window, &now.window);
        }
        None
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
