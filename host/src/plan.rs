//! The plan: what a pipeline's config means, checked once, as a graph of typed
//! nodes. Nothing after this module looks at config again.
//!
//! Nodes are in topological order: an edge always points to a smaller id.

/// From config to plan, and every mistake on the way.
mod build;
/// What is odd and runs all the same.
mod warnings;
/// What differs between two plans.
pub mod change;
/// The plan as people read it.
mod draw;
/// The plan as programs read it.
mod json;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub use build::{build, build_state, build_without_inputs};
pub use draw::draw;
pub use json::to_json;
pub use warnings::warnings;

use crate::logic::{Factory, Value};
use crate::schema::{DataType, Schema};
use crate::source::partitions;

pub type NodeId = usize;

pub struct Plan {
    pub name: String,
    /// How many tasks a keyed node runs as, and at most a source.
    pub parallelism: usize,
    /// Rows a batch, at most.
    pub batch_rows: usize,
    /// Where rows go whose node says `dead_letter`. One file a pipeline.
    pub dead_letters: Option<PathBuf>,
    /// Without it nothing outlives the run.
    pub state: Option<StatePlan>,
    pub restart: RestartPlan,
    pub nodes: Vec<Node>,
}

/// Where state and checkpoints are kept, and how often they are written.
#[derive(Clone, Debug, PartialEq)]
pub struct StatePlan {
    pub backend: StateBackend,
    /// Of all keys and states in memory.
    pub memory_bytes_max: usize,
    pub interval_ms: u64,
    /// Checkpoints to keep, savepoints aside; at least 2.
    pub keep: usize,
    pub delivery: Delivery,
}

#[derive(Clone, Debug, PartialEq)]
pub enum StateBackend {
    /// Outlives restarts of the pipeline, but not of the process.
    Memory,
    RocksDb {
        folder: PathBuf,
        /// Of block cache and write buffers together.
        memory_bytes_max: usize,
        /// Checkpoints are copied there too.
        remote: Option<RemotePlan>,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub struct RemotePlan {
    /// `file:///folder` or `s3://bucket/prefix`, as `object_store` takes it.
    pub url: String,
    pub options: Vec<(String, String)>,
}

/// What a failure may do to the rows that sinks with transactions get.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Delivery {
    /// Rows come out with the checkpoint that they belong to.
    #[default]
    ExactlyOnce,
    /// Rows come out at once, and again after a failure.
    AtLeastOnce,
}

/// What becomes of a pipeline that has failed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RestartPlan {
    Never,
    /// Restarted after a delay that grows by `factor` with each failure in a
    /// row, up to `delay_ms_max`; given up after `failures_max` failures within
    /// `within_ms`.
    After {
        delay_ms: u64,
        delay_ms_max: u64,
        factor: f64,
        failures_max: u32,
        within_ms: u64,
    },
}

impl SourceConnector {
    /// Whether rows of before can be read again, so that a restart from a
    /// checkpoint loses none.
    pub fn is_replayable(&self) -> bool {
        match self {
            SourceConnector::File(_)
            | SourceConnector::Generator(_)
            | SourceConnector::Kafka(_)
            | SourceConnector::Memory(_) => true,
            SourceConnector::Tcp(_) => false,
        }
    }
}

impl SinkConnector {
    /// The best that it can do about rows that come again after a failure.
    pub fn delivery(&self) -> Delivery {
        match self {
            SinkConnector::File { .. }
            | SinkConnector::Blackhole
            | SinkConnector::Kafka(_)
            | SinkConnector::Memory(_) => Delivery::ExactlyOnce,
            SinkConnector::Console { .. } => Delivery::AtLeastOnce,
        }
    }
}

impl Delivery {
    /// As in the config.
    pub fn name(self) -> &'static str {
        match self {
            Delivery::ExactlyOnce => "exactly_once",
            Delivery::AtLeastOnce => "at_least_once",
        }
    }
}

impl Plan {
    /// As how many tasks each node runs. Rows that are not keyed stay in the
    /// task that they are in; a sink is one task.
    pub fn tasks(&self) -> Vec<usize> {
        let mut tasks: Vec<usize> = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            let upstream = node.inputs.iter().map(|edge| tasks[edge.from]).max();
            tasks.push(match &node.kind {
                NodeKind::Source(source) => {
                    partitions(source).unwrap_or(1).clamp(1, self.parallelism)
                }
                NodeKind::Transform(_) => upstream.unwrap_or(1),
                NodeKind::Aggregate(aggregate) if aggregate.key_schema.fields.is_empty() => 1,
                NodeKind::Aggregate(_) => self.parallelism,
                NodeKind::Sink(_) => 1,
            });
        }
        tasks
    }
}

pub struct Node {
    /// As in the config: unique among sources, operators and sinks together.
    pub name: String,
    pub kind: NodeKind,
    /// Empty for sources. Several are merged (all have what the node reads).
    pub inputs: Vec<Edge>,
    /// What leaves the main output. For a sink, what it takes.
    pub output: Arc<Schema>,
}

pub struct Edge {
    pub from: NodeId,
    pub port: OutPort,
    pub exchange: Exchange,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutPort {
    Main,
    /// Rows that came after their window had closed, as they came in.
    Late,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exchange {
    /// Task to task; to the one task where there are fewer on this side.
    Forward,
    /// By the hash of these columns of the upstream's output.
    Hash(Vec<usize>),
}

pub enum NodeKind {
    Source(SourcePlan),
    Transform(TransformPlan),
    Aggregate(AggregatePlan),
    Sink(SinkPlan),
}

pub struct SourcePlan {
    pub connector: SourceConnector,
    /// How each timestamp of the source's schema is written outside, depth
    /// first through nested records and lists; unused by connectors that make
    /// columns themselves.
    pub timestamp_formats: Vec<TimestampFormat>,
    /// How a row's event time is found.
    pub event_time: EventTime,
    /// How far behind the newest row a row may come and not be late, in ms.
    pub out_of_orderness_ms: i64,
    /// A partition that is silent for so long stops holding time back.
    pub idle_after_ms: Option<u64>,
    pub on_error: OnError,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventTime {
    /// This column of the source: a timestamp, or an int64 in ms.
    Column(usize),
    /// When the host read the row.
    Ingestion,
}

pub enum SourceConnector {
    File(FileSourcePlan),
    Tcp(TcpSourcePlan),
    Generator(GeneratorPlan),
    Kafka(KafkaSourcePlan),
    /// Rows that the program hands over: tests and benchmarks.
    Memory(Vec<Vec<arrow_array::RecordBatch>>),
}

pub struct FileSourcePlan {
    /// A partition each, in name order.
    pub paths: Vec<PathBuf>,
    pub format: Format,
}

pub struct TcpSourcePlan {
    pub listen: String,
    pub framing: Framing,
    pub format: Format,
    /// The input ends when so many connections have come and gone.
    pub connections: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    Newline,
    /// A big-endian u32 with the length of what follows.
    LengthPrefixed,
}

/// Topics of Kafka; see [`crate::source`].
#[derive(Clone, Debug)]
pub struct KafkaSourcePlan {
    pub connection: KafkaConnection,
    pub topics: Vec<String>,
    /// Of each topic; all, also those that are still to come, when absent.
    pub partitions: Option<Vec<i32>>,
    /// The name that offsets are committed under.
    pub group: String,
    pub start: KafkaStart,
    /// The input ends where each partition ended when it was opened.
    pub is_bounded: bool,
    /// How often new partitions are looked for.
    pub discover_every_ms: u64,
    pub format: Format,
    /// The columns behind those of the format.
    pub metadata: Vec<KafkaColumn>,
}

/// How brokers are reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaConnection {
    /// Addresses, with commas between them.
    pub brokers: String,
    /// Of librdkafka, as in the config.
    pub properties: Vec<(String, String)>,
}

/// Where a partition is read from of which no checkpoint says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KafkaStart {
    Earliest,
    Latest,
    /// Where the group has committed, or else at the earliest.
    Committed,
    /// At the first message of this time, in ms, or later.
    At(i64),
}

/// What of a message, beside its payload, is a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KafkaColumn {
    /// As text.
    Key,
    KeyBytes,
    /// As a JSON object of texts.
    Headers,
    Timestamp,
    Topic,
    Partition,
    Offset,
}

impl KafkaColumn {
    pub fn data_type(self) -> DataType {
        match self {
            KafkaColumn::Key | KafkaColumn::Headers | KafkaColumn::Topic => DataType::Utf8,
            KafkaColumn::KeyBytes => DataType::Bytes,
            KafkaColumn::Timestamp => DataType::Timestamp,
            KafkaColumn::Partition => DataType::Int32,
            KafkaColumn::Offset => DataType::Int64,
        }
    }

    /// Messages need not have a key.
    pub fn is_nullable(self) -> bool {
        matches!(self, KafkaColumn::Key | KafkaColumn::KeyBytes)
    }
}

/// Generated shop events; see [`crate::source::generator`].
#[derive(Clone, Debug)]
pub struct GeneratorPlan {
    pub seed: u64,
    /// Rows a second of wall clock; as fast as they are taken when absent.
    pub rate: Option<f64>,
    /// How many rows; endless when absent.
    pub count: Option<u64>,
    pub users: u32,
    pub items: u32,
    /// Event time of the first row, in ms; now when absent.
    pub start_ms: Option<i64>,
    /// Event-time rows a second.
    pub events_per_second: f64,
    /// Each row is up to so much earlier than its place, in ms.
    pub jitter_ms: u64,
    /// One row in so many is broken on purpose; none when 0.
    pub broken_one_in: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Format {
    Json,
    Csv(CsvFormat),
    /// A row is one value, its bytes or text.
    Raw,
}

impl Format {
    /// As in the config.
    pub fn name(&self) -> &'static str {
        match self {
            Format::Json => "json",
            Format::Csv(_) => "csv",
            Format::Raw => "raw",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CsvFormat {
    /// The first line of each file names the columns; without it the columns
    /// are the fields in order.
    pub header: bool,
    pub delimiter: u8,
}

/// How a timestamp is written outside. Inside it is always ms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum TimestampFormat {
    /// A number of ms, or RFC 3339 text.
    #[default]
    Any,
    Ms,
    /// Seconds, possibly with a fraction.
    Seconds,
    Rfc3339,
}

/// Which plugin's operator runs, and within what bounds.
pub struct OperatorPlan {
    /// `plugin.operator`, as in the config.
    pub name: String,
    pub factory: Arc<dyn Factory>,
    /// What the factory was made with, defaults included.
    pub arguments: Arguments,
    pub limits: Limits,
    pub on_error: OnError,
}

/// What an operator may use. A call that passes one of these is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub memory_bytes_max: usize,
    pub call_ms_max: u64,
    pub output_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            memory_bytes_max: 256 << 20,
            call_ms_max: 5_000,
            output_bytes_max: 256 << 20,
        }
    }
}

/// What becomes of a row that cannot be decoded or that a plugin fails on or rejects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum OnError {
    /// The pipeline stops with the row's error.
    Fail,
    /// Counted and logged.
    Skip,
    /// Counted and written, whole, to the pipeline's dead letters.
    #[default]
    DeadLetter,
    /// Tried so many more times, then a dead letter. For plugins whose
    /// failures may pass; a row that a plugin rejects is not tried again.
    Retry(u32),
}

impl OnError {
    pub fn makes_dead_letters(self) -> bool {
        matches!(self, OnError::DeadLetter | OnError::Retry(_))
    }
}

impl Node {
    /// What becomes of its bad rows. Sinks have none.
    pub fn on_error(&self) -> Option<OnError> {
        match &self.kind {
            NodeKind::Source(source) => Some(source.on_error),
            NodeKind::Transform(transform) => Some(transform.operator.on_error),
            NodeKind::Aggregate(aggregate) => Some(aggregate.operator.on_error),
            NodeKind::Sink(_) => None,
        }
    }
}

pub struct TransformPlan {
    pub operator: OperatorPlan,
    /// For each input edge, which of its columns the operator reads, in the
    /// order of the operator's input schema.
    pub columns: Vec<Vec<usize>>,
}

pub struct AggregatePlan {
    pub operator: OperatorPlan,
    /// As in [`TransformPlan`].
    pub columns: Vec<Vec<usize>>,
    /// For each input edge, its key columns (the same types on every edge).
    pub key: Vec<Vec<usize>>,
    pub key_schema: Arc<Schema>,
    pub window: Window,
    /// How long after the watermark has passed a window's end a row still
    /// corrects it, in ms.
    pub allowed_lateness_ms: i64,
    /// Results of windows that are still open, this often in processing time.
    pub early_every_ms: Option<u64>,
    /// How long the state of a running aggregate lives after its key's last row,
    /// in event time.
    pub ttl_ms: Option<i64>,
    /// Output is: key columns, window bounds where wanted, the plugin's output.
    pub bounds: Option<Bounds>,
    /// Somebody reads the late output.
    pub late_wanted: bool,
}

/// Names of the two timestamp columns that a result's window is given in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bounds {
    pub start: String,
    pub end: String,
}

impl Default for Bounds {
    fn default() -> Self {
        Bounds {
            start: "window_start".into(),
            end: "window_end".into(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Window {
    Tumbling {
        size_ms: i64,
        time: TimeDomain,
    },
    /// `slide_ms` divides `size_ms`.
    Sliding {
        size_ms: i64,
        slide_ms: i64,
        time: TimeDomain,
    },
    Session {
        gap_ms: i64,
        time: TimeDomain,
    },
    /// Every `size` rows of a key, and what is left when the input ends.
    Count {
        size: u64,
    },
    /// No window: a result after each row.
    Running,
}

impl Window {
    /// As people read it.
    pub fn describe(self) -> String {
        draw::window(self)
    }

    /// Rows can come too late for event-time windows only.
    pub fn has_late_rows(self) -> bool {
        match self {
            Window::Tumbling { time, .. }
            | Window::Sliding { time, .. }
            | Window::Session { time, .. } => time == TimeDomain::Event,
            Window::Count { .. } | Window::Running => false,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeDomain {
    Event,
    Processing,
}

impl TimeDomain {
    /// As in the config.
    pub fn name(self) -> &'static str {
        match self {
            TimeDomain::Event => "event",
            TimeDomain::Processing => "processing",
        }
    }
}

pub struct SinkPlan {
    pub connector: SinkConnector,
}

pub enum SinkConnector {
    Console {
        rows_max: Option<u64>,
    },
    File {
        path: PathBuf,
        format: SinkFormat,
    },
    Blackhole,
    Kafka(KafkaSinkPlan),
    /// Rows are handed to the program: tests and `sluicebox test`.
    Memory(Arc<crate::sink::MemoryTopic>),
}

/// A topic of Kafka, a JSON object a message.
#[derive(Clone, Debug)]
pub struct KafkaSinkPlan {
    pub connection: KafkaConnection,
    pub topic: String,
    /// The column whose value is the message's key.
    pub key: Option<usize>,
    /// Headers' names, and the columns whose values they have.
    pub headers: Vec<(String, usize)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SinkFormat {
    Json,
    Csv,
    Parquet,
}

impl SinkFormat {
    /// As in the config.
    pub fn name(self) -> &'static str {
        match self {
            SinkFormat::Json => "json",
            SinkFormat::Csv => "csv",
            SinkFormat::Parquet => "parquet",
        }
    }
}

/// A parameter's value, checked against the operator's description.
pub type Arguments = Vec<(String, Value)>;
