//! The sink `blackhole`: discards rows, for benchmarks and for pipelines that
//! are run only for their counts.

use std::sync::Arc;

use crate::batch::Batch;
use crate::checkpoint::snapshot::SinkSnapshot;
use crate::element::CheckpointId;

use crate::config::diagnostics::Diagnostics;
use crate::config::reader::Table;
use crate::connector::{Description, Planning};
use crate::plan::state::Delivery;
use crate::schema::Schema;
use crate::sink::{Ending, Sink, SinkConnector, SinkContext, SinkError, SinkKind, SinkSettings};

pub const KIND: SinkKind = SinkKind {
    name: "blackhole",
    read,
};

/// Settings, connector and sink in one: there is nothing to configure.
#[derive(Clone, Copy, Debug)]
struct Blackhole;

fn read(_: &mut Table<'_>, _: &mut Diagnostics) -> Option<Box<dyn SinkSettings>> {
    Some(Box::new(Blackhole))
}

impl SinkSettings for Blackhole {
    fn plan(&self, _: Option<&Schema>, _: &mut Planning<'_>) -> Option<Box<dyn SinkConnector>> {
        Some(Box::new(Blackhole))
    }
}

impl SinkConnector for Blackhole {
    fn describe(&self) -> Description {
        Description {
            connector: KIND.name,
            ..Description::default()
        }
    }

    /// It has none.
    fn takes_rows_back(&self) -> bool {
        true
    }

    fn delivery(&self) -> Delivery {
        Delivery::ExactlyOnce
    }

    fn open(&self, _: &str, _: &Arc<Schema>, _: &SinkContext) -> Result<Box<dyn Sink>, SinkError> {
        Ok(Box::new(Blackhole))
    }
}

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

    fn finish(&mut self, _: Ending) -> Result<(), SinkError> {
        Ok(())
    }
}
