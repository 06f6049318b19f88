//! Reads batches in memory; offsets count rows. A row that is not from a file
//! is its own payload.

use std::sync::Arc;

use arrow_array::RecordBatch;

use crate::batch::{Block, Offsets, Payload};
use crate::blame::Fault;
use crate::checkpoint::snapshot::Position;
use crate::connector::Description;
use crate::schema::Schema;
use crate::source::chunk::{Chunk, at_row};
use crate::source::{
    Arrival, Pending, SourceConnector, SourceContext, SourceError, SourceInput, TURN_ROWS,
};

/// The batches to read, by partition.
pub struct MemorySource {
    partitions: Vec<Vec<RecordBatch>>,
}

impl MemorySource {
    /// The batches of each partition.
    pub fn new(partitions: Vec<Vec<RecordBatch>>) -> Self {
        MemorySource { partitions }
    }
}

impl SourceConnector for MemorySource {
    fn describe(&self) -> Description {
        Description {
            connector: "memory",
            lines: vec![format!("{} partitions", self.partitions.len())],
            ..Description::default()
        }
    }

    fn partitions(&self) -> Option<usize> {
        Some(self.partitions.len())
    }

    fn open<'a>(&'a self, context: &'a SourceContext) -> Pending<'a, Box<dyn SourceInput>> {
        Box::pin(async move {
            let input = MemoryInput::open(&self.partitions, context)?;
            Ok(Box::new(input) as Box<dyn SourceInput>)
        })
    }
}

struct MemoryInput {
    partitions: Vec<MemoryPartition>,
    /// Whether a batch must not reach into the next turn, since other
    /// partitions are read in between.
    ends_with_turn: bool,
    context: SourceContext,
}

struct MemoryPartition {
    name: Arc<str>,
    batches: Vec<RecordBatch>,
    /// The next row: its batch, and its index there.
    batch: usize,
    row: usize,
    /// Rows handed out so far, and in total.
    given: u64,
    total: u64,
}

impl MemoryInput {
    fn open(partitions: &[Vec<RecordBatch>], context: &SourceContext) -> Result<Self, SourceError> {
        let mine = |index: &usize| context.placement.has_partition(*index);
        let ends_with_turn = partitions.len() > 1;
        let partitions = partitions
            .iter()
            .enumerate()
            .filter(|(index, _)| mine(index))
            .map(|(index, batches)| {
                for batch in batches {
                    check_types(&context.schema, batch)
                        .map_err(|message| context.refuse(message, Fault::CONFIG))?;
                }
                let mut partition = MemoryPartition {
                    name: index.to_string().into(),
                    total: batches.iter().map(|batch| batch.num_rows() as u64).sum(),
                    batches: batches.clone(),
                    batch: 0,
                    row: 0,
                    given: 0,
                };
                if let Some(restored) = context.restored(&partition.name) {
                    partition.seek(restored.position.offset);
                }
                Ok(partition)
            })
            .collect::<Result<_, _>>()?;
        Ok(MemoryInput {
            partitions,
            ends_with_turn,
            context: context.clone(),
        })
    }

    fn next_chunk(&mut self, partition: usize) -> Option<Chunk> {
        let partition = self.partitions.get_mut(partition)?;
        let batch = loop {
            let batch = partition.batches.get(partition.batch)?;
            if partition.row < batch.num_rows() {
                break batch;
            }
            partition.batch += 1;
            partition.row = 0;
        };
        let mut rows = batch.num_rows() - partition.row;
        rows = rows.min(self.context.rows_max());
        if self.ends_with_turn {
            let left_in_turn = TURN_ROWS - partition.given % TURN_ROWS;
            rows = rows.min(usize::try_from(left_in_turn).unwrap_or(usize::MAX));
        }
        let rows = batch.slice(partition.row, rows);
        let offsets = Offsets::From(partition.given);
        partition.row += rows.num_rows();
        partition.given += rows.num_rows() as u64;
        Some(Chunk {
            columns: rows.columns().to_vec(),
            rows: rows.num_rows(),
            block: Block {
                source: self.context.node.clone(),
                partition: partition.name.clone(),
                offsets,
                payload: Payload::Rows(rows),
                envelopes: Vec::new(),
            },
            bad: Vec::new(),
            end: at_row(partition.given),
            cut_times: None,
            times: None,
            taken_back: None,
        })
    }
}

impl SourceInput for MemoryInput {
    fn partitions(&self) -> usize {
        self.partitions.len()
    }

    fn partition(&self, partition: usize) -> (Arc<str>, Position) {
        let partition = &self.partitions[partition];
        (partition.name.clone(), at_row(partition.given))
    }

    fn next<'a>(&'a mut self, order: &'a [usize]) -> Pending<'a, Arrival> {
        Box::pin(async move {
            match order.first() {
                Some(&partition) => Ok(Arrival::of(partition, self.next_chunk(partition))),
                None => Ok(Arrival::Over),
            }
        })
    }

    fn progress(&self) -> Option<f64> {
        let total: u64 = self.partitions.iter().map(|p| p.total).sum();
        let given: u64 = self.partitions.iter().map(|p| p.given).sum();
        (total > 0).then(|| given as f64 / total as f64)
    }
}

impl MemoryPartition {
    fn seek(&mut self, row: u64) {
        self.given = row.min(self.total);
        let mut left = usize::try_from(self.given).unwrap_or(usize::MAX);
        while let Some(batch) = self.batches.get(self.batch)
            && left >= batch.num_rows()
        {
            left -= batch.num_rows();
            self.batch += 1;
        }
        self.row = left;
    }
}

fn check_types(schema: &Schema, batch: &RecordBatch) -> Result<(), String> {
    let expected = schema.to_arrow();
    let found = batch.schema();
    let same = expected.fields().len() == found.fields().len()
        && expected
            .fields()
            .iter()
            .zip(found.fields())
            .all(|(expected, found)| expected.data_type() == found.data_type());
    if same {
        Ok(())
    } else {
        Err(format!("expected rows of {schema}, found {found:?}"))
    }
}
