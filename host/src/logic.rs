//! The traits by which the host calls an operator's logic: columns in, columns
//! out, nothing kept between calls.
//!
//! Plugin instances implement them ([`crate::plugin`]), operators that need no plugin
//! ([`crate::builtin`]), and native code in benchmarks and tests. Results must not depend on the size of batches, so a
//! caller may cut them anywhere.

use std::fmt;
use std::sync::Arc;

use arrow_array::ArrayRef;

use crate::blame::Fault;
use crate::schema::Schema;
use crate::stop::Stop;

/// What an operator is, from its plugin's description.
#[derive(Clone, Debug)]
pub struct OperatorInfo {
    pub name: String,
    pub doc: String,
    pub kind: Kind,
    /// Filters, transforms and aggregates have one, processes at least one.
    pub inputs: Vec<Port>,
    /// Filters, transforms and aggregates have one; that of a filter has no
    /// fields, since it passes rows on unchanged. Processes have at least one.
    pub outputs: Vec<Port>,
    /// What an aggregate or a process reads of its key, and the key of a look-up's table;
    /// empty for other kinds.
    pub key: Arc<Schema>,
    /// Empty where there is no state.
    pub state: Arc<Schema>,
    /// Whether it is an aggregate that can take rows back.
    pub retracts: bool,
    pub parameters: Vec<Parameter>,
}

impl OperatorInfo {
    /// One without documentation, key, state and parameters.
    pub fn new(name: &str, kind: Kind, inputs: Vec<Port>, outputs: Vec<Port>) -> Self {
        OperatorInfo {
            name: name.to_owned(),
            doc: String::new(),
            kind,
            inputs,
            outputs,
            key: Arc::default(),
            state: Arc::default(),
            retracts: false,
            parameters: Vec::new(),
        }
    }

    /// Whether it makes states of an earlier version of this operator those of now.
    pub fn migrates(&self, operator: &str) -> bool {
        let stage = self.name.strip_prefix(operator);
        stage.is_some_and(|stage| stage.starts_with(".earlier_"))
    }

    /// Whether it takes, keeps and puts out the same as another one.
    pub fn is_like(&self, other: &OperatorInfo) -> bool {
        (self.kind, self.retracts) == (other.kind, other.retracts)
            && self.inputs == other.inputs
            && self.outputs == other.outputs
            && self.key == other.key
            && self.state == other.state
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Filter,
    Transform,
    Aggregate,
    Process,
    Join,
    Lookup,
    Recommend,
}

impl Kind {
    /// As in messages.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Filter => "filter",
            Kind::Transform => "transform",
            Kind::Aggregate => "aggregate",
            Kind::Process => "process",
            Kind::Join => "join",
            Kind::Lookup => "look-up",
            Kind::Recommend => "recommender",
        }
    }

    /// Whether this version calls operators of this kind. Plugins may describe
    /// others; some are run as their [stages](Stage).
    pub fn is_runnable(self) -> bool {
        !matches!(self, Kind::Join | Kind::Lookup | Kind::Recommend)
    }

    /// The stages that its plugin describes, for a kind that is run as some.
    pub fn stages(self) -> &'static [Stage] {
        match self {
            Kind::Lookup => &[Stage::Wanted, Stage::Combined],
            Kind::Recommend => &Stage::OF_RECOMMENDERS,
            _ => &[],
        }
    }
}

/// What a recommender, a look-up, or a join with a plugin is run as. A plugin describes each
/// process of these, under its operator's name and its own: `items.counts`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// By item: adds to interactions how popular their item is.
    Counts,
    /// By user: passes requests on that are not late.
    Requests,
    /// By user: keeps profiles; has models learn, and asks them for requests.
    Profiles,
    /// The same, where each interaction is a request.
    ProfilesAsking,
    /// By item: keeps models.
    Models,
    /// By user: gathers what models answer, and ranks it.
    Answers,
    /// Of a look-up: says which keys rows want.
    Wanted,
    /// Of a look-up: the join with the table, which is the host's.
    Found,
    /// Of a look-up: gathers what was found for each row.
    Combined,
    /// Of a join whose rows a plugin makes: the join, which is the host's.
    Joined,
    /// Of such a join: makes rows of pairs. It is an operator of its own as well.
    Made,
}

impl Stage {
    const OF_RECOMMENDERS: [Stage; 6] = [
        Stage::Counts,
        Stage::Requests,
        Stage::Profiles,
        Stage::ProfilesAsking,
        Stage::Models,
        Stage::Answers,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Stage::Counts => "counts",
            Stage::Requests => "requests",
            Stage::Profiles => "profiles",
            Stage::ProfilesAsking => "profiles_asking",
            Stage::Models => "models",
            Stage::Answers => "answers",
            Stage::Wanted => "wanted",
            Stage::Found => "found",
            Stage::Combined => "combined",
            Stage::Joined => "joined",
            Stage::Made => "made",
        }
    }

    /// The name of an operator's stage.
    pub fn of(self, operator: &str) -> String {
        format!("{operator}.{}", self.name())
    }
}

/// The inputs of a recommender.
pub const INTERACTIONS: &str = "interactions";
pub const REQUESTS: &str = "requests";

/// The input of a look-up whose rows are looked up in, and what was found for a key.
pub const TABLE: &str = "table";
pub const FOUND: &str = "found";

/// An input or output of an operator, with its own schema. No two inputs of an
/// operator have the same name, and no two outputs.
#[derive(Clone, Debug, PartialEq)]
pub struct Port {
    pub name: String,
    pub schema: Arc<Schema>,
}

/// The name of an operator's only input or output.
pub const MAIN: &str = "main";

impl Port {
    /// An operator's only input or output.
    pub fn main(schema: Arc<Schema>) -> Self {
        Port {
            name: MAIN.to_owned(),
            schema,
        }
    }
}

#[derive(Clone, Debug)]
pub struct Parameter {
    pub name: String,
    pub value_type: ValueType,
    pub default: Option<Value>,
    /// May be left out although it has no default.
    pub optional: bool,
    pub doc: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueType {
    Boolean,
    Integer,
    Number,
    Text,
    Texts,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Boolean(bool),
    Integer(i64),
    Number(f64),
    Text(String),
    Texts(Vec<String>),
}

/// As in a pipeline's file.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Boolean(boolean) => write!(f, "{boolean}"),
            Value::Integer(integer) => write!(f, "{integer}"),
            Value::Number(number) => write!(f, "{number}"),
            Value::Text(text) => write!(f, "{text:?}"),
            Value::Texts(texts) => write!(f, "{texts:?}"),
        }
    }
}

/// What an operator may use. A call that exceeds one of these is stopped.
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

/// Makes instances of one operator: one for each task, and a new one after a
/// failure.
pub trait Factory: Send + Sync {
    fn info(&self) -> &OperatorInfo;
    /// Digest of the plugin's bytes (`sha256:…`), or `native`.
    fn digest(&self) -> &str {
        "native"
    }
    fn instance(&self) -> Result<Instance, Failure>;
}

/// A running operator, by its kind. A caller passes exactly the columns of the
/// operator's input schema, in its order; `rows` is their length (a schema may
/// be empty).
///
/// After an `Err` the instance may be in any state and must be dropped.
pub enum Instance {
    /// A filter or a transform.
    Transform(Box<dyn Transform>),
    Aggregate(Box<dyn Aggregate>),
    Process(Box<dyn Process>),
}

impl Instance {
    pub fn transform(self) -> Result<Box<dyn Transform>, Failure> {
        match self {
            Instance::Transform(transform) => Ok(transform),
            other => Err(other.not_of_kind("a transform")),
        }
    }

    pub fn aggregate(self) -> Result<Box<dyn Aggregate>, Failure> {
        match self {
            Instance::Aggregate(aggregate) => Ok(aggregate),
            other => Err(other.not_of_kind("an aggregate")),
        }
    }

    pub fn process(self) -> Result<Box<dyn Process>, Failure> {
        match self {
            Instance::Process(process) => Ok(process),
            other => Err(other.not_of_kind("a process")),
        }
    }

    fn not_of_kind(&self, wanted: &str) -> Failure {
        let is = match self {
            Instance::Transform(_) => "a transform",
            Instance::Aggregate(_) => "an aggregate",
            Instance::Process(_) => "a process",
        };
        Failure::new(
            FailureKind::Open,
            format!("{is} was opened as {wanted}, which is a bug in Sluicebox"),
        )
    }
}

/// What instances of all kinds have. Native code needs none of it.
pub trait Callee: Send {
    /// Has calls end soon after the run is asked to stop.
    fn obey(&mut self, _: &Stop) {}

    /// Logs what the last call printed, which has failed and is not repeated.
    fn log_failed(&mut self) {}
}

/// A filter or a transform: rows in, rows out.
pub trait Transform: Callee {
    fn transform(&mut self, input: Columns<'_>) -> Result<Transformed, Failure>;
}

/// Rows of a key (and window) folded into a state.
pub trait Aggregate: Callee {
    /// Folds each row into the state of its group.
    fn accumulate(&mut self, rows: Grouped<'_>, states: States<'_>)
    -> Result<Accumulated, Failure>;

    /// Like `accumulate`, and returns the result after each row, too. `keys` is what the
    /// operator reads of the key of each group.
    fn accumulate_each(
        &mut self,
        rows: Grouped<'_>,
        states: States<'_>,
        keys: Columns<'_>,
    ) -> Result<(Accumulated, Rows), Failure>;

    /// Merges the states of each group, in order, into one row a group.
    /// `groups` has one entry a state, starts at 0, never decreases, skips none.
    fn merge(&mut self, states: Columns<'_>, groups: &[u32]) -> Result<Vec<ArrayRef>, Failure>;

    /// The results of states; `keys` is what the operator reads of the key of each, `starts`
    /// and `ends` are their windows, in ms. Parents are rows of `states`.
    fn finish(
        &mut self,
        states: Columns<'_>,
        keys: Columns<'_>,
        starts: &[i64],
        ends: &[i64],
    ) -> Result<Rows, Failure>;
}

/// Rows and timers that change the states of keys, and make rows.
pub trait Process: Callee {
    /// Takes the steps in order; how they fire timers is said in the contract
    /// (`sdk/wit/plugin.wit`). `inputs` has the rows of each input.
    fn process(
        &mut self,
        inputs: &[Columns<'_>],
        steps: &Steps,
        keyed: Keyed<'_>,
    ) -> Result<Processed, Failure>;
}

/// What a process takes in a call, in order.
#[derive(Debug, Default)]
pub struct Steps {
    /// What each step is, as the contract says.
    pub inputs: Vec<u8>,
    /// The group of each step.
    pub groups: Vec<u32>,
    /// The event time of each row, in ms; for a step without a row, that of what timers
    /// in processing time put out.
    pub times: Vec<i64>,
    /// In ms.
    pub watermarks: Vec<i64>,
    /// The steps whose rows take back an equal one that was taken before, ascending. Only a
    /// process that retracts gets any.
    pub taken_back: Vec<u32>,
    /// The processing time, in ms.
    pub now_ms: i64,
}

/// Groups `0..groups`, each a key. The first ones have the `states`, the rest have none.
#[derive(Clone, Copy, Debug)]
pub struct Keyed<'a> {
    pub groups: usize,
    /// What the operator reads of each key.
    pub keys: Columns<'a>,
    pub states: Columns<'a>,
    pub event_timers: &'a GroupTimers,
    pub processing_timers: &'a GroupTimers,
}

/// Timers of groups: ascending by group, then by time and name. A group has one of a
/// name at most.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupTimers {
    pub groups: Vec<u32>,
    /// In ms.
    pub times: Vec<i64>,
    /// Where each name ends in `names`.
    pub ends: Vec<u32>,
    /// Names, one after another.
    pub names: Vec<u8>,
}

/// A step of a process: the row of an input, or none, and which timers fire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The next row of the input, and timers that are due before and after it.
    Row(usize),
    /// Timers that are due.
    Due,
    /// The first timer that is due.
    First,
    /// The next row of the input, and no timers.
    RowAlone(usize),
}

impl Step {
    /// Its code in the contract, where an operator has this many inputs.
    pub fn code(self, inputs: usize) -> u8 {
        let code = match self {
            Step::Row(input) => input,
            Step::Due => inputs,
            Step::First => inputs + 1,
            Step::RowAlone(input) => inputs + 2 + input,
        };
        // A process has at most `PORTS_MAX` inputs.
        code as u8
    }

    /// Whether the step with this code has a row.
    pub fn has_row(code: u8, inputs: usize) -> bool {
        code != Step::Due.code(inputs) && code != Step::First.code(inputs)
    }
}

/// How many inputs a process can have, and how many outputs.
pub const PORTS_MAX: usize = 100;

impl GroupTimers {
    pub fn push(&mut self, group: u32, time_ms: i64, name: &str) {
        self.groups.push(group);
        self.times.push(time_ms);
        self.names.extend_from_slice(name.as_bytes());
        self.ends.push(self.names.len() as u32);
    }

    /// Group, time and name of each.
    pub fn each(&self) -> impl Iterator<Item = (u32, i64, &str)> {
        let starts = [0].into_iter().chain(self.ends.iter().copied());
        let names = starts.zip(&self.ends).map(|(start, &end)| {
            // A plugin's names are checked before they are kept.
            std::str::from_utf8(&self.names[start as usize..end as usize]).unwrap_or_default()
        });
        let timers = self.groups.iter().zip(&self.times).zip(names);
        timers.map(|((&group, &time_ms), name)| (group, time_ms, name))
    }
}

/// How many timers a key can have in each kind of time.
pub const TIMERS_MAX: usize = 1_000;

#[derive(Debug)]
pub struct Processed {
    /// The groups that have a state now, ascending, and their states.
    pub groups: Vec<u32>,
    pub states: Vec<ArrayRef>,
    /// All timers that the groups have now.
    pub event_timers: GroupTimers,
    pub processing_timers: GroupTimers,
    /// Of each output.
    pub outputs: Vec<TimedRows>,
    /// Steps whose rows are rejected, ascending. They have changed nothing.
    pub rejects: Vec<Reject>,
    /// Timers that are rejected, ascending by step. They are gone, and have changed
    /// nothing else.
    pub rejected_timers: Vec<RejectedTimer>,
}

/// Rows whose parents are steps, and the event time of each, in ms.
#[derive(Debug)]
pub struct TimedRows {
    pub rows: Rows,
    pub times: Vec<i64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RejectedTimer {
    pub step: u32,
    pub name: String,
    pub time_ms: i64,
    pub reason: String,
}

#[derive(Clone, Copy, Debug)]
pub struct Columns<'a> {
    pub rows: usize,
    pub columns: &'a [ArrayRef],
}

impl Columns<'_> {
    /// So many rows without a column.
    pub fn none(rows: usize) -> Self {
        Columns { rows, columns: &[] }
    }
}

/// Rows for an aggregate.
#[derive(Clone, Copy, Debug)]
pub struct Grouped<'a> {
    pub input: Columns<'a>,
    /// The group of each row.
    pub groups: &'a [u32],
    /// The rows that take back an equal one that was folded before, ascending. Only an
    /// aggregate that retracts gets any.
    pub taken_back: &'a [u32],
}

impl<'a> Grouped<'a> {
    /// Rows none of which takes another one back.
    pub fn added(input: Columns<'a>, groups: &'a [u32]) -> Self {
        Grouped {
            input,
            groups,
            taken_back: &[],
        }
    }
}

/// States of groups `0..groups`: the first ones exist and are in `existing`;
/// the rest are new and start from the operator's default.
#[derive(Clone, Copy, Debug)]
pub struct States<'a> {
    pub existing: Columns<'a>,
    pub groups: usize,
}

#[derive(Debug)]
pub struct Transformed {
    pub output: Output,
    /// Ascending by row. A rejected row has no output.
    pub rejects: Vec<Reject>,
}

#[derive(Debug)]
pub enum Output {
    /// The input rows to keep, ascending.
    Selection(Vec<u32>),
    Rows(Rows),
}

/// Output rows in the operator's output schema. `parents` names the input row
/// (or state) that each comes from, and never decreases.
#[derive(Debug)]
pub struct Rows {
    pub parents: Vec<u32>,
    pub columns: Vec<ArrayRef>,
}

/// New states, one row for each group. A rejected row has not changed its group's state.
#[derive(Debug)]
pub struct Accumulated {
    pub states: Vec<ArrayRef>,
    pub rejects: Vec<Reject>,
}

/// A row that the operator rejects, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject {
    pub row: u32,
    pub reason: String,
}

/// Why a call failed. The message says what was needed and what the limit is, or
/// what the plugin printed when it panicked.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    pub kind: FailureKind,
    pub message: String,
    /// What the plugin wrote to stderr during the call, usually a panic's text.
    pub panic: Option<String>,
}

impl Failure {
    /// One without a panic.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Failure {
            kind,
            message: message.into(),
            panic: None,
        }
    }

    /// Who is to blame, and whether the same call may succeed another time.
    pub fn fault(&self) -> Fault {
        match self.kind {
            FailureKind::Deadline => Fault::SLOW_PLUGIN,
            FailureKind::Overflow => Fault::ROW,
            _ => Fault::PLUGIN,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// A trap or panic in the plugin.
    Trap,
    /// The call took longer than its limit.
    Deadline,
    /// The run was asked to stop during the call, which did not end soon.
    Stopped,
    /// The plugin wanted more memory than its limit.
    Memory,
    /// The answer is larger than its limit.
    OutputSize,
    /// The answer breaks the contract: lengths, offsets, text that is not UTF-8.
    Contract,
    /// The plugin refused to be opened with these parameters.
    Open,
    /// A number is too large for its type. Only of operators without a plugin: a plugin
    /// traps.
    Overflow,
}

/// A loaded plugin: its description, and factories of its operators.
pub trait Module: Send + Sync {
    fn info(&self) -> &ModuleInfo;

    /// `label` is the node's name, for the log and for messages. The caller has
    /// checked the arguments against the description. The plugin itself may
    /// still refuse them (`FailureKind::Open`): it does so here, not at the first
    /// row.
    fn factory(
        &self,
        operator: &str,
        arguments: &[(String, Value)],
        limits: Limits,
        label: &str,
    ) -> Result<Arc<dyn Factory>, Failure>;
}

#[derive(Clone, Debug)]
pub struct ModuleInfo {
    pub name: String,
    pub version: String,
    pub doc: String,
    pub operators: Vec<OperatorInfo>,
}

/// Loads the plugins that a pipeline names. The host's loader compiles
/// `.wasm` files; those of tests and benchmarks return native code.
pub trait Loader: Send + Sync {
    /// The plugin at a path.
    fn load(&self, path: &std::path::Path) -> Result<Arc<dyn Module>, LoadError>;

    /// Which plugins a service keeps; `None` where there is no service.
    fn kept(&self) -> Option<Vec<PluginVersion>> {
        None
    }

    /// A plugin that a service keeps; `None` if it does not.
    fn load_kept(&self, _: &KeptPlugin) -> Option<Result<Arc<dyn Module>, LoadError>> {
        None
    }
}

/// A plugin that was uploaded to a service, as a pipeline names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeptPlugin {
    Version(PluginVersion),
    /// By the digest of its bytes.
    Digest(String),
}

/// What a plugin calls itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginVersion {
    pub name: String,
    pub version: String,
}

impl fmt::Display for KeptPlugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeptPlugin::Version(PluginVersion { name, version }) => write!(f, "{name} {version}"),
            KeptPlugin::Digest(digest) => f.write_str(digest),
        }
    }
}

/// Why a file is not a usable plugin, in one sentence that says what to do.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct LoadError(pub String);
