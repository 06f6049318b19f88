//! What a rule is by which rows match: it takes rows, and has buffers of them.

use arrow_array::ArrayRef;

use super::joined::Joined;
use crate::operator::Outbox;
use crate::state::error::StateError;
use crate::state::key::{BatchKeys, KeyLayout};
use crate::state::rows::RowBuffer;

/// What all rules need to join rows.
pub(super) struct Joining {
    pub layout: KeyLayout,
    /// The keys of the current batch.
    pub keys: BatchKeys,
    pub joined: Joined,
}

/// Rows of a side that are in time.
pub(super) struct Arrived {
    pub side: usize,
    pub times: Vec<i64>,
    pub key: Vec<ArrayRef>,
    /// The columns that joined rows have of the side.
    pub columns: Vec<ArrayRef>,
    /// Which rows delete the one before, where rows say it.
    pub deletes: Option<Vec<bool>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lateness {
    InTime,
    /// It is late for some of its windows.
    LateForSome,
    Late,
}

pub(super) trait Rule: Send {
    fn buffers(&mut self) -> &mut [RowBuffer];

    fn is_full(&self) -> bool;

    /// Sets the time of the checkpoint before its rows are restored.
    fn set_time(&mut self, _time_ms: i64) {}

    /// The time at which nothing can match a row any more that the end has let out; `None`
    /// where nothing comes out by time.
    fn over_at(&self, row_ms: i64) -> Option<i64>;

    fn lateness(&self, time_ms: i64, now_ms: i64) -> Lateness;

    /// Joins rows whose keys have all fields.
    fn rows(
        &mut self,
        joining: &mut Joining,
        arrived: Arrived,
        out: &mut Outbox,
    ) -> Result<(), StateError>;

    /// Takes rows whose keys lack a field, so that nothing can match them.
    fn keyless(
        &mut self,
        joining: &mut Joining,
        arrived: Arrived,
        out: &mut Outbox,
    ) -> Result<(), StateError>;

    /// Advances time to `now_ms`; it never goes back.
    fn advance(
        &mut self,
        joining: &mut Joining,
        now_ms: i64,
        out: &mut Outbox,
    ) -> Result<(), StateError>;

    /// The watermark to pass on, before the end of time: no row that is still to come
    /// out is before it.
    fn watermark_out(&self, watermark_ms: i64) -> i64 {
        watermark_ms
    }

    /// When the next window ends; `None` where none does.
    fn next_end(&self) -> Option<i64> {
        None
    }
}
