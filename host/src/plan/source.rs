//! A source in the plan: what it reads, and how its rows get their event time.

use super::event_time::EventTime;
use crate::dead_letter::OnError;
use crate::source::SourceConnector;

/// Where an operator gives the rows their event time, the settings of its watermark are
/// here: the partitions are the source's.
pub struct SourcePlan {
    pub connector: Box<dyn SourceConnector>,
    /// How a row's event time is found.
    pub event_time: EventTime,
    /// How far behind the newest row a row may be and not be late, in ms.
    pub out_of_orderness_ms: i64,
    /// How far ahead of the clock a row's event time may be, in ms: one row of the
    /// far future would make all later ones late. `None` for a source whose time is
    /// made up.
    pub ahead_ms_max: Option<i64>,
    /// A partition without rows for this long no longer holds back the
    /// watermark.
    pub idle_after_ms: Option<u64>,
    /// Whether there is no event time before what is there at the start has been read.
    pub bootstraps: bool,
    /// Whether batches tell the watermark before each row, for timers that fire between
    /// rows.
    pub tells_each_watermark: bool,
    pub on_error: OnError,
    pub checksum: Option<ChecksumPlan>,
}

/// Rows carry a checksum of other fields; those with another one are bad.
#[derive(Clone, Debug)]
pub struct ChecksumPlan {
    pub algorithm: Algorithm,
    /// The column of the checksum, a text.
    pub field: usize,
    /// The columns that it is of.
    pub of: Vec<usize>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Algorithm {
    #[default]
    Crc32,
    Sha256,
}

impl Algorithm {
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::Crc32 => "crc32",
            Algorithm::Sha256 => "sha256",
        }
    }
}
