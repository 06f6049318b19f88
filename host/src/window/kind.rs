//! What a kind of window does.

use super::accumulators::{Accumulators, Arrived};
use super::error::WindowError;
use crate::operator::Outbox;
use crate::state::keyed::KeyedPart;

pub(super) trait WindowKind: Send {
    /// What it keeps of keys.
    fn keyed(&mut self) -> &mut dyn KeyedPart;

    /// Time had come to this at the checkpoint that is about to be restored.
    fn set_time(&mut self, _time_ms: i64) {}

    fn rows(
        &mut self,
        accumulators: &mut Accumulators,
        arrived: Arrived,
        now_ms: i64,
        out: &mut Outbox,
    ) -> Result<(), WindowError>;

    /// Time has come to `now_ms`; it never goes back.
    fn advance(
        &mut self,
        accumulators: &mut Accumulators,
        now_ms: i64,
        out: &mut Outbox,
    ) -> Result<(), WindowError>;

    /// When the next window ends, if time plays a part.
    fn next_end(&self) -> Option<i64> {
        None
    }

    /// Whether there are rows that early results have not shown.
    fn has_early(&self) -> bool {
        false
    }

    /// Puts out what open windows have so far, for keys that have had rows since
    /// the last time.
    fn early(
        &mut self,
        _accumulators: &mut Accumulators,
        _out: &mut Outbox,
    ) -> Result<(), WindowError> {
        Ok(())
    }
}
