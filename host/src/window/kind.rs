//! What a kind of window is: it assigns rows, fires, and has keyed state.

use super::accumulators::{Accumulators, Arrived};
use crate::operator::Outbox;
use crate::operator::error::KeyedError;
use crate::state::keyed::KeyedPart;

pub(super) trait WindowKind: Send {
    /// Its keyed state.
    fn keyed(&mut self) -> &mut dyn KeyedPart;

    /// Sets the time of the checkpoint before its rows are restored.
    fn set_time(&mut self, _time_ms: i64) {}

    /// Closes the windows of rows up to this time for good: they fired when the inputs had
    /// ended. Called behind [`WindowKind::set_time`].
    fn seal(&mut self, _newest_ms: i64) {}

    fn rows(
        &mut self,
        accumulators: &mut Accumulators,
        arrived: Arrived,
        now_ms: i64,
        out: &mut Outbox,
    ) -> Result<(), KeyedError>;

    /// Advances time to `now_ms`; it never goes back.
    fn advance(
        &mut self,
        accumulators: &mut Accumulators,
        now_ms: i64,
        out: &mut Outbox,
    ) -> Result<(), KeyedError>;

    /// When the next window ends; `None` where windows do not end by time.
    fn next_end(&self) -> Option<i64> {
        None
    }

    /// Whether there are rows that early results have not shown.
    fn has_early(&self) -> bool {
        false
    }

    /// Emits early results of open windows, for keys with rows since the last ones.
    fn early(
        &mut self,
        _accumulators: &mut Accumulators,
        _out: &mut Outbox,
    ) -> Result<(), KeyedError> {
        Ok(())
    }
}
