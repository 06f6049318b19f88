//! An operator in the plan: which plugin it comes from, which columns it reads,
//! its key and its window.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

use super::event_time::OperatorTime;
use crate::dead_letter::{OnError, OnMigrationError};
use crate::logic::{Factory, Limits, Value};
use crate::quantity::show_ms;
use crate::schema::{DataType, Field, Schema};
use crate::timestamp::zone::Zone;

/// A plugin's operator and its limits, or one that needs no plugin.
#[derive(Clone)]
pub struct OperatorPlan {
    /// `plugin.operator`, as in the config; or the key that says what it does.
    pub name: String,
    pub factory: Arc<dyn Factory>,
    /// Transforms from the states of earlier versions of it.
    pub earlier: Vec<Arc<dyn Factory>>,
    /// The arguments that the factory was made with, including defaults.
    pub arguments: Arguments,
    /// Only plugins have limits.
    pub limits: Option<Limits>,
    pub on_error: OnError,
    pub on_migration_error: OnMigrationError,
}

impl OperatorPlan {
    pub fn is_plugins(&self) -> bool {
        self.limits.is_some()
    }

    /// Whether its logic is that of another one: the same code with the same arguments and
    /// limits.
    pub fn calls_the_same(&self, other: &OperatorPlan) -> bool {
        self.factory.digest() == other.factory.digest()
            && self.arguments == other.arguments
            && self.limits == other.limits
    }
}

pub struct TransformPlan {
    pub operator: OperatorPlan,
    /// For each edge of the input, the columns that the operator reads, in the
    /// order of the input's schema.
    pub columns: Vec<Vec<usize>>,
    /// Where its rows get their event time from, if they have none before.
    pub event_time: Option<OperatorTime>,
}

pub struct AggregatePlan {
    pub operator: OperatorPlan,
    /// As in [`TransformPlan`].
    pub columns: Vec<Vec<usize>>,
    /// For each edge of the input, its key columns, of the same types on every
    /// edge.
    pub key: Vec<Vec<usize>>,
    pub key_schema: Arc<Schema>,
    /// The columns of the key that the operator reads.
    pub key_read: Vec<usize>,
    pub window: Window,
    /// How long after the watermark has passed a window's end a row still
    /// corrects it, in ms.
    pub allowed_lateness_ms: i64,
    /// Whether results come out before they are final.
    pub emit: Emit,
    /// How often open windows emit early results, in ms of processing time. A running
    /// aggregate emits no others.
    pub early_every_ms: Option<u64>,
    /// Whether each result has only the rows since the one before it.
    pub discards: bool,
    /// How long a running aggregate keeps a key's state after its last row, in
    /// event time.
    pub ttl_ms: Option<i64>,
    /// The names of the columns with the window's bounds, if wanted. Output
    /// columns are: key, bounds, the plugin's output.
    pub bounds: Option<Bounds>,
    /// The name of the column that tells corrections from other results, if wanted.
    /// It comes behind the bounds.
    pub timing: Option<String>,
    /// Whether something reads the late output, so that the node has it.
    pub late_wanted: bool,
    /// The output for changes of its results, if something reads it.
    pub changes_output: Option<usize>,
    /// Whether it passes on some of its rows as they are, instead of results. Its logic
    /// then reads their event times, and nothing else.
    pub passes_rows: bool,
    /// Whether its logic is known to depend on the order in which rows of a key come.
    pub follows_order: bool,
}

pub struct ProcessPlan {
    pub operator: OperatorPlan,
    /// Of each of the operator's inputs.
    pub ports: Vec<PortPlan>,
    pub key_schema: Arc<Schema>,
    /// The columns of the key that the operator reads.
    pub key_read: Vec<usize>,
    /// How long a key's state is kept after its last row, in event time, if the key has
    /// no timers.
    pub ttl_ms: Option<i64>,
    pub order: RowOrder,
    pub ties: Ties,
    /// Where rows are parts of requests.
    pub requests: Option<RequestColumns>,
}

/// The columns of rows that are parts of requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestColumns {
    /// What tells one request from another.
    pub request: Vec<usize>,
    /// What a dead letter shows of a row.
    pub shown: Vec<usize>,
}

impl ProcessPlan {
    /// Whether an output has the late rows of an input.
    pub fn is_late_output(&self, output: usize) -> bool {
        let mut ports = self.ports.iter();
        ports.any(|port| port.late_output == Some(output))
    }
}

/// In which order a process takes rows of a key that have the same event time, if it takes
/// them in order of event time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ties {
    /// As they come.
    #[default]
    Arrival,
    /// By input, then by their columns, from the first on: their order depends on the rows
    /// alone.
    Content,
}

/// In which order a process takes the rows of a key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RowOrder {
    /// As they come.
    #[default]
    Arrival,
    /// In order of event time: they wait for the watermark.
    EventTime,
}

impl RowOrder {
    /// Its name in the config.
    pub fn name(self) -> &'static str {
        match self {
            RowOrder::Arrival => "arrival",
            RowOrder::EventTime => "event_time",
        }
    }
}

/// What comes into an input port of a keyed operator.
#[derive(Clone)]
pub struct PortPlan {
    /// As in [`TransformPlan`].
    pub columns: Vec<Vec<usize>>,
    /// As in [`AggregatePlan`].
    pub key: Vec<Vec<usize>>,
    /// The output for its late rows, if something reads it.
    pub late_output: Option<usize>,
}

impl AggregatePlan {
    /// Whether a later result replaces an earlier one of the same key and window.
    pub fn corrects(&self) -> bool {
        let by_late_rows = self.allowed_lateness_ms > 0 && self.emit == Emit::Change;
        !self.discards && (by_late_rows || self.early_every_ms.is_some())
    }

    /// Whether its results are known to depend on the order of rows within the watermark's
    /// bound.
    pub fn depends_on_order(&self) -> bool {
        self.follows_order || matches!(self.window, Window::Running | Window::Count { .. })
    }

    /// The columns by which a later result replaces an earlier one, if it does, and if
    /// they tell it.
    pub fn result_key(&self) -> Option<Vec<String>> {
        if !self.corrects() {
            return None;
        }
        let key = self.key_schema.fields.iter().map(|field| &field.name);
        match (&self.bounds, self.window) {
            (_, Window::Running | Window::Global) => Some(key.cloned().collect()),
            (Some(bounds), _) => Some(key.chain([&bounds.start, &bounds.end]).cloned().collect()),
            (None, _) => None,
        }
    }
}

/// When the result of a window comes out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Emit {
    /// When the window ends, and again whenever a late row changes it.
    #[default]
    Change,
    /// Once, when no row can change it any more.
    Final,
}

impl Emit {
    pub fn is_change(&self) -> bool {
        *self == Emit::Change
    }

    /// Its name in the config.
    pub fn name(self) -> &'static str {
        match self {
            Emit::Change => "change",
            Emit::Final => "final",
        }
    }
}

/// When a result was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timing {
    /// Before its window's end.
    Early,
    /// At its window's end.
    OnTime,
    /// Later, because of a late row: it replaces the result before.
    Late,
    /// It withdraws the result of a session that has other bounds now.
    Gone,
}

impl Timing {
    pub const ALL: [Timing; 4] = [Timing::Early, Timing::OnTime, Timing::Late, Timing::Gone];

    /// As in results.
    pub fn name(self) -> &'static str {
        match self {
            Timing::Early => "early",
            Timing::OnTime => "on_time",
            Timing::Late => "late",
            Timing::Gone => "gone",
        }
    }

    /// The column that says it.
    pub fn field(name: &str) -> Field {
        let names = Timing::ALL.map(|timing| timing.name().to_owned());
        Field::new(name, DataType::Symbol(names.into()), false)
    }
}

/// The name of an aggregate's output for late rows, which are passed on
/// unchanged.
pub const LATE: &str = "late";

/// The name of an aggregate's output for changes of its results: a result that is replaced
/// or gone comes once more, as a row that is taken back, before the one in its place.
pub const CHANGES: &str = "changes";

/// The index of the output for late rows.
pub const LATE_OUTPUT: usize = 1;

/// Names of the two timestamp columns with a result's window.
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
        #[serde(default, flatten)]
        alignment: Alignment,
    },
    Sliding {
        size_ms: i64,
        slide_ms: i64,
        time: TimeDomain,
        #[serde(default, flatten)]
        alignment: Alignment,
    },
    /// Windows of one step, two steps and so on up to the size start together, and the
    /// next ones when the longest ends. `step_ms` divides `size_ms`.
    Cumulate {
        size_ms: i64,
        step_ms: i64,
        time: TimeDomain,
        #[serde(default, flatten)]
        alignment: Alignment,
    },
    Session {
        gap_ms: i64,
        time: TimeDomain,
    },
    /// Every `size` rows of a key, and the rest when the input ends.
    Count {
        size: u64,
    },
    /// No window: a result after each row.
    Running,
    /// One window of all rows, until the input ends.
    Global,
}

/// Where windows of a fixed size start: at multiples of their size, or of their slide,
/// after this.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alignment {
    /// How long after 1970-01-01 00:00, in ms.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub offset_ms: i64,
    /// Where it is that time; UTC by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<Zone>,
}

fn is_zero(ms: &i64) -> bool {
    *ms == 0
}

impl fmt::Display for Alignment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.offset_ms != 0 {
            write!(f, " offset by {}", show_ms(self.offset_ms))?;
        }
        match self.zone {
            Some(zone) => write!(f, " in {}", zone.name()),
            None => Ok(()),
        }
    }
}

impl Window {
    /// The time that it goes by; `None` where windows do not end by time.
    pub fn time(self) -> Option<TimeDomain> {
        match self {
            Window::Tumbling { time, .. }
            | Window::Sliding { time, .. }
            | Window::Cumulate { time, .. }
            | Window::Session { time, .. } => Some(time),
            Window::Count { .. } | Window::Running | Window::Global => None,
        }
    }

    /// Whether rows can be late while the input lasts: only for event-time windows.
    pub fn has_late_rows(self) -> bool {
        self.time() == Some(TimeDomain::Event)
    }

    /// Whether rows can be late at all: for the global window, those of a run that goes on
    /// after its input had ended.
    pub fn has_late_output(self) -> bool {
        self.has_late_rows() || self == Window::Global
    }
}

/// For people. Checkpoints compare windows as data.
impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Window::Tumbling {
                size_ms,
                time,
                alignment,
            } => write!(
                f,
                "tumbling window of {}{alignment}, {} time",
                show_ms(size_ms),
                time.name()
            ),
            Window::Sliding {
                size_ms,
                slide_ms,
                time,
                alignment,
            } => write!(
                f,
                "sliding window of {} every {}{alignment}, {} time",
                show_ms(size_ms),
                show_ms(slide_ms),
                time.name()
            ),
            Window::Cumulate {
                size_ms,
                step_ms,
                time,
                alignment,
            } => write!(
                f,
                "cumulating window of up to {} in steps of {}{alignment}, {} time",
                show_ms(size_ms),
                show_ms(step_ms),
                time.name()
            ),
            Window::Session { gap_ms, time } => write!(
                f,
                "session window with a gap of {}, {} time",
                show_ms(gap_ms),
                time.name()
            ),
            Window::Count { size } => write!(f, "count window of {size} rows"),
            Window::Running => f.write_str("running: a result after each row"),
            Window::Global => f.write_str("global window of all rows"),
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
    /// Its name in the config.
    pub fn name(self) -> &'static str {
        match self {
            TimeDomain::Event => "event",
            TimeDomain::Processing => "processing",
        }
    }
}

/// Parameters' values, checked against the operator's description.
pub type Arguments = Vec<(String, Value)>;
