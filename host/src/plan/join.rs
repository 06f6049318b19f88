//! A join in the plan: which rows of its two sides belong together, and what comes of
//! them.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::operator::{TimeDomain, Window};
use crate::quantity::show_ms;
use crate::schema::Schema;

pub struct JoinPlan {
    pub rule: JoinRule,
    pub key_schema: Arc<Schema>,
    pub sides: [JoinSide; 2],
    /// The columns of a joined row, in order.
    pub output: Vec<JoinColumn>,
    /// Whether left rows that take the latest version wait until there is event time, which a
    /// table that bootstraps does not have before it is whole.
    pub waits_for_table: bool,
}

/// The sides of a join, which are its input ports, too.
pub const LEFT: usize = 0;
pub const RIGHT: usize = 1;
pub const SIDES: [&str; 2] = ["left", "right"];

/// The outputs with the late rows of each side.
pub const LATE_SIDES: [&str; 2] = ["late_left", "late_right"];

/// What a join reads of one side.
pub struct JoinSide {
    /// The columns that joined rows have of it.
    pub schema: Arc<Schema>,
    /// For each edge of the side, where these columns are.
    pub columns: Vec<Vec<usize>>,
    /// For each edge, the key's columns.
    pub key: Vec<Vec<usize>>,
    /// For each edge, the column that says which rows delete the one before.
    pub tombstone: Option<Vec<usize>>,
    /// The output for its late rows, if something reads it.
    pub late_output: Option<usize>,
}

/// Where a column of a joined row comes from: columns of the sides' schemas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JoinColumn {
    Left(usize),
    Right(usize),
    /// A record of columns of a side, which is missing where there is none.
    Record(usize, Vec<usize>),
    /// The key, which is the same on both sides: of whichever there is.
    Key {
        left: usize,
        right: usize,
    },
}

/// Which rows are joined. A checkpoint can only be restored by the same rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRule {
    pub kind: JoinKind,
    #[serde(flatten)]
    pub matching: Matching,
}

/// Of which sides rows come out that match none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JoinKind {
    Inner,
    Left,
    Right,
    Full,
}

/// Which rows with the same key match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Matching {
    /// Rows of the right side from `before_ms` before the left row to `after_ms` after
    /// it, both inclusive. `None` is without a bound.
    Interval {
        before_ms: Option<i64>,
        after_ms: Option<i64>,
    },
    /// Rows in the same window, tumbling or sliding.
    Window(Window),
    /// The last row of the right side at or before the left one.
    AsOf(Version),
}

/// Which version of the right side's rows a left row takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Version {
    /// The last one by event time, once the watermark says that it is the last.
    EventTime,
    /// The last one known when the left row comes.
    Latest,
}

impl JoinKind {
    /// Its name in the config.
    pub fn name(self) -> &'static str {
        match self {
            JoinKind::Inner => "inner",
            JoinKind::Left => "left",
            JoinKind::Right => "right",
            JoinKind::Full => "full",
        }
    }

    /// Whether rows of a side come out that match none.
    pub fn keeps(self, side: usize) -> bool {
        match self {
            JoinKind::Inner => false,
            JoinKind::Left => side == LEFT,
            JoinKind::Right => side == RIGHT,
            JoinKind::Full => true,
        }
    }
}

impl Matching {
    /// Whether rows of a side can be late.
    pub fn has_late_rows(self) -> bool {
        match self {
            Matching::Interval { .. } | Matching::AsOf(Version::EventTime) => true,
            Matching::Window(window) => window.has_late_rows(),
            Matching::AsOf(Version::Latest) => false,
        }
    }

    /// Whether results depend on the order in which rows come: for versions, at least of
    /// those with the same time.
    pub fn depends_on_order(self) -> bool {
        matches!(self, Matching::AsOf(_)) || self.depends_on_arrival()
    }

    /// Whether results depend on when rows of one side come before those of the other.
    pub fn depends_on_arrival(self) -> bool {
        match self {
            Matching::AsOf(Version::Latest) => true,
            Matching::Window(window) => window.time() == Some(TimeDomain::Processing),
            _ => false,
        }
    }
}

/// For people. Checkpoints compare rules as data.
impl fmt::Display for JoinRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} join, {}", self.kind.name(), self.matching)
    }
}

impl fmt::Display for Matching {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Matching::Interval {
                before_ms,
                after_ms,
            } => {
                let bound = |ms: Option<i64>| ms.map_or("any time".to_owned(), show_ms);
                let (before, after) = (bound(before_ms), bound(after_ms));
                write!(
                    f,
                    "right rows from {before} before to {after} after the left one"
                )
            }
            Matching::Window(window) => window.fmt(f),
            Matching::AsOf(Version::EventTime) => {
                f.write_str("the last right row as of the left one's event time")
            }
            Matching::AsOf(Version::Latest) => {
                f.write_str("the last right row that has come before the left one")
            }
        }
    }
}
