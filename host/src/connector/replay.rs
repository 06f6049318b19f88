//! Reads rows of dead letters again, each with the event time that it had. A pipeline's
//! file cannot name it: the service adds such a source to a pipeline for as long as it
//! replays dead letters.

use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow_buffer::ScalarBuffer;

use super::{Description, Planning, REPLAY};
use crate::batch::{Block, Offsets, Payload};
use crate::blame::Fault;
use crate::checkpoint::snapshot::Position;
use crate::config::column::DeclaredColumn;
use crate::plan::GivenTime;
use crate::schema::Schema;
use crate::source::chunk::{Chunk, at_row};
use crate::source::{
    Arrival, Pending, SourceConnector, SourceContext, SourceInput, SourceSettings,
};

/// Rows of one input, or of one source.
#[derive(Clone, Debug)]
pub struct ReplayedRows {
    schema: Arc<Schema>,
    columns: Vec<DeclaredColumn>,
    rows: RecordBatch,
    /// Absent where they are a column of the rows, or where rows have none yet.
    times: Option<ScalarBuffer<i64>>,
}

impl ReplayedRows {
    /// Of columns with this schema.
    pub fn new(
        schema: &Schema,
        columns: Vec<ArrayRef>,
        rows: usize,
        times: Option<Vec<i64>>,
    ) -> Result<Self, String> {
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let rows = RecordBatch::try_new_with_options(schema.to_arrow().into(), columns, &options)
            .map_err(|error| error.to_string())?;
        let column = |field: &crate::schema::Field| DeclaredColumn {
            field: field.clone(),
            place: 0..0,
            timestamp_formats: Vec::new(),
        };
        Ok(ReplayedRows {
            schema: Arc::new(schema.clone()),
            columns: schema.fields.iter().map(column).collect(),
            rows,
            times: times.map(Into::into),
        })
    }
}

/// Rows keep the times that they had, in whatever order: none moves time ahead, nor is it
/// late before an operator has it.
const OUT_OF_ORDERNESS_MS: i64 = 1_000_000_000_000_000;

impl SourceSettings for ReplayedRows {
    fn columns(&self) -> &[DeclaredColumn] {
        &self.columns
    }

    fn given_time(&self) -> Option<GivenTime> {
        self.times.as_ref().map(|_| GivenTime::Before)
    }

    fn out_of_orderness_ms(&self) -> i64 {
        OUT_OF_ORDERNESS_MS
    }

    fn plan(&self, _: &mut Planning<'_>) -> Option<Box<dyn SourceConnector>> {
        Some(Box::new(self.clone()))
    }
}

impl SourceConnector for ReplayedRows {
    fn describe(&self) -> Description {
        Description {
            connector: REPLAY,
            lines: vec![format!("{} rows of dead letters", self.rows.num_rows())],
            ..Description::default()
        }
    }

    fn partitions(&self) -> Option<usize> {
        Some(1)
    }

    fn open<'a>(&'a self, context: &'a SourceContext) -> Pending<'a, Box<dyn SourceInput>> {
        Box::pin(async move {
            if context.schema.fields != self.schema.fields {
                let message = format!("the rows have {}, and not this", self.schema);
                return Err(context.refuse(message, Fault::BUG));
            }
            let mut input = ReplayInput {
                rows: self.clone(),
                given: 0,
                context: context.clone(),
            };
            if let Some(restored) = context.restored(PARTITION) {
                let given = usize::try_from(restored.position.offset).unwrap_or(usize::MAX);
                input.given = given.min(self.rows.num_rows());
            }
            Ok(Box::new(input) as Box<dyn SourceInput>)
        })
    }
}

/// There is one.
const PARTITION: &str = "letters";

struct ReplayInput {
    rows: ReplayedRows,
    /// How many rows were handed out.
    given: usize,
    context: SourceContext,
}

impl ReplayInput {
    fn next_chunk(&mut self) -> Option<Chunk> {
        let left = self.rows.rows.num_rows() - self.given;
        let count = left.min(self.context.rows_max());
        if count == 0 {
            return None;
        }
        let rows = self.rows.rows.slice(self.given, count);
        let times = self.rows.times.as_ref();
        let times = times.map(|times| times.slice(self.given, count));
        let offsets = Offsets::From(self.given as u64);
        self.given += count;
        Some(Chunk {
            columns: rows.columns().to_vec(),
            rows: count,
            block: Block {
                source: self.context.node.clone(),
                partition: PARTITION.into(),
                offsets,
                payload: Payload::Rows(rows),
                envelopes: Vec::new(),
            },
            bad: Vec::new(),
            end: at_row(self.given as u64),
            cut_times: None,
            times,
            taken_back: None,
        })
    }
}

impl SourceInput for ReplayInput {
    fn partitions(&self) -> usize {
        1
    }

    fn partition(&self, _: usize) -> (Arc<str>, Position) {
        (PARTITION.into(), at_row(self.given as u64))
    }

    fn next<'a>(&'a mut self, order: &'a [usize]) -> Pending<'a, Arrival> {
        Box::pin(async move {
            Ok(match order.first() {
                Some(&partition) => Arrival::of(partition, self.next_chunk()),
                None => Arrival::Over,
            })
        })
    }

    fn progress(&self) -> Option<f64> {
        match self.rows.rows.num_rows() {
            0 => None,
            rows => Some(self.given as f64 / rows as f64),
        }
    }
}
