//! Takes rows and forgets them: for benchmarks, and for pipelines that are run
//! for their counts.

use super::{Sink, SinkError};
use crate::batch::Batch;
use crate::checkpoint::snapshot::{CheckpointId, SinkSnapshot};

pub(super) struct Blackhole;

impl Sink for Blackhole {
    fn write(&mut self, _: &Batch) -> Result<(), SinkError> {
        Ok(())
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        Ok(())
    }

    fn barrier(&mut self, _: CheckpointId) -> Result<SinkSnapshot, SinkError> {
        Ok(SinkSnapshot::default())
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        Ok(())
    }
}
