//! An operator in the plan: which plugin's it is, what it reads, by which key
//! and in which windows.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;

use crate::dead_letter::OnError;
use crate::logic::{Factory, Limits, Value};
use crate::quantity::show_ms;
use crate::schema::Schema;

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

pub struct TransformPlan {
    pub operator: OperatorPlan,
    /// For each edge of the input, which of its columns the operator reads, in
    /// the order of the input's schema.
    pub columns: Vec<Vec<usize>>,
}

pub struct AggregatePlan {
    pub operator: OperatorPlan,
    /// As in [`TransformPlan`].
    pub columns: Vec<Vec<usize>>,
    /// For each edge of the input, its key columns (the same types on every edge).
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
    /// Somebody reads the late output, and the node has it.
    pub late_wanted: bool,
}

/// Name of the output of an aggregate for rows that came after their window had
/// closed, as they came in.
pub const LATE: &str = "late";

/// Index of that output.
pub const LATE_OUTPUT: usize = 1;

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

/// As people read it, and as checkpoints compare it.
impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Window::Tumbling { size_ms, time } => write!(
                f,
                "tumbling window of {}, {} time",
                show_ms(size_ms),
                time.name()
            ),
            Window::Sliding {
                size_ms,
                slide_ms,
                time,
            } => write!(
                f,
                "sliding window of {} every {}, {} time",
                show_ms(size_ms),
                show_ms(slide_ms),
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

/// A parameter's value, checked against the operator's description.
pub type Arguments = Vec<(String, Value)>;
