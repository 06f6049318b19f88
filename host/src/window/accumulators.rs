//! The states of a node's groups and what the plugin makes of them: rows folded
//! in, states merged, results put out. Which rows and which states go together
//! is decided by the kinds of windows.

use std::sync::Arc;

use arrow_array::{ArrayRef, TimestampMillisecondArray};
use arrow_buffer::ScalarBuffer;

use super::LoadError;
use super::groups::Groups;
use super::time::Span;
use super::tracker::Tracker;
use crate::batch::Batch;
use crate::checkpoint::storage::StorageError;
use crate::json::render_row;
use crate::logic::{Columns, Rows, States};
use crate::operator::guard::{AggregateGuard, Folded};
use crate::operator::{OperatorError, Outbox};
use crate::plan::AggregatePlan;
use crate::router;
use crate::schema::{DataType, Field, Schema};
use crate::state::key::{BatchKeys, KeyLayout, KeyTable, Selection};
use crate::state::row::{Codec, RowError};
use crate::state::shelf::{Chunk, Shelf};
use crate::state::table::StateTable;

pub(super) struct Accumulators {
    node: Arc<str>,
    guard: AggregateGuard,
    states: StateTable,
    /// States as they lie in a checkpoint.
    codec: Codec,
    output: Output,
    shelf: Option<Shelf>,
}

/// States, each as a row.
pub(super) struct Encoded {
    ends: Vec<usize>,
    bytes: Vec<u8>,
}

impl Encoded {
    pub fn row(&self, row: usize) -> &[u8] {
        let start = if row == 0 { 0 } else { self.ends[row - 1] };
        &self.bytes[start..self.ends[row]]
    }
}

/// What results look like.
struct Output {
    /// Columns of each input edge that the plugin reads.
    input_columns: Vec<Vec<usize>>,
    key_columns: Vec<Vec<usize>>,
    layout: KeyLayout,
    /// Key columns, bounds where wanted, the plugin's columns.
    schema: Arc<Schema>,
    /// Key columns and the window, for messages.
    subject_schema: Arc<Schema>,
    bounds: bool,
    batch_rows: usize,
}

/// Rows on their way into windows.
#[derive(Clone)]
pub(super) struct Arrived {
    pub edge: usize,
    pub batch: Batch,
    /// The time by which each row is put into windows.
    pub times: ScalarBuffer<i64>,
}

/// States whose results are due.
#[derive(Clone, Copy)]
pub(super) struct Results<'a> {
    pub slots: &'a [u32],
    pub keys: &'a KeyTable,
    pub ids: Ids<'a>,
    pub spans: Spans<'a>,
}

/// The key of each state.
#[derive(Clone, Copy)]
pub(super) enum Ids<'a> {
    /// Keys 0, 1, 2 and so on.
    InOrder,
    Each(&'a [u32]),
}

/// The window of each state.
#[derive(Clone, Copy)]
pub(super) enum Spans<'a> {
    Same(Span),
    Each(&'a [Span]),
}

/// States to be merged, earlier ones first, each group into one slot.
#[derive(Debug, Default)]
pub(super) struct Merges {
    inputs: Vec<u32>,
    /// Where each group's inputs end.
    ends: Vec<usize>,
    targets: Vec<u32>,
    ids: Vec<u32>,
    spans: Vec<Span>,
}

impl Arrived {
    pub fn rows(&self) -> usize {
        self.times.len()
    }

    pub fn take(&self, rows: &[u32]) -> Arrived {
        Arrived {
            edge: self.edge,
            batch: self.batch.take(rows),
            times: rows.iter().map(|&row| self.times[row as usize]).collect(),
        }
    }

    /// The rows that are not among these, which ascend.
    pub fn without(&self, rows: &[u32]) -> Arrived {
        if rows.is_empty() {
            return self.clone();
        }
        let mut rows = rows.iter().peekable();
        let kept: Vec<u32> = (0..self.rows() as u32)
            .filter(|row| rows.next_if_eq(&row).is_none())
            .collect();
        self.take(&kept)
    }
}

impl Merges {
    pub fn clear(&mut self) {
        self.inputs.clear();
        self.ends.clear();
        self.targets.clear();
        self.ids.clear();
        self.spans.clear();
    }

    /// One group; `target` may be one of its inputs. The key and window are for
    /// messages.
    pub fn add(&mut self, inputs: &[u32], target: u32, id: u32, span: Span) {
        self.inputs.extend_from_slice(inputs);
        self.ends.push(self.inputs.len());
        self.targets.push(target);
        self.ids.push(id);
        self.spans.push(span);
    }
}

impl Accumulators {
    pub fn new(
        node: &str,
        plan: &AggregatePlan,
        batch_rows: usize,
        shelf: Option<Shelf>,
    ) -> Result<Self, OperatorError> {
        let info = plan.operator.factory.info();
        let (start, end) = match &plan.bounds {
            Some(bounds) => (bounds.start.clone(), bounds.end.clone()),
            None => ("window_start".to_owned(), "window_end".to_owned()),
        };
        let bounds = [start, end].map(|name| Field::new(name, DataType::Timestamp, false));
        let key = plan.key_schema.fields.iter().cloned();
        let wanted = bounds.iter().filter(|_| plan.bounds.is_some()).cloned();
        let columns = info.output.fields.iter().cloned();
        Ok(Accumulators {
            node: node.into(),
            guard: AggregateGuard::new(node, &plan.operator)?,
            states: StateTable::new(&info.state),
            codec: Codec::new(info.state.fields.clone()),
            shelf,
            output: Output {
                input_columns: plan.columns.clone(),
                key_columns: plan.key.clone(),
                layout: KeyLayout::new(&plan.key_schema),
                schema: Arc::new(Schema::new(
                    key.clone().chain(wanted).chain(columns).collect(),
                )),
                subject_schema: Arc::new(Schema::new(key.chain(bounds).collect())),
                bounds: plan.bounds.is_some(),
                batch_rows: batch_rows.max(1),
            },
        })
    }

    pub fn layout(&self) -> &KeyLayout {
        &self.output.layout
    }

    /// Where states are kept, if they outlive the run.
    pub fn shelf(&self) -> Option<&Shelf> {
        self.shelf.as_ref()
    }

    /// What the states take, in bytes.
    pub fn bytes(&self) -> usize {
        self.states.bytes()
    }

    /// The rows in the storage of those runs of keys for which `pane` names one.
    pub fn fetch(
        &self,
        keys: &BatchKeys,
        arrived: &Arrived,
        tracker: &Tracker,
        mut pane: impl FnMut(usize) -> Option<i64>,
    ) -> Result<Chunk, OperatorError> {
        let Some(shelf) = &self.shelf else {
            return Ok(Chunk::default());
        };
        let mut shards = None;
        let mut wanted: Vec<Vec<u8>> = Vec::new();
        for run in 0..keys.runs() {
            let Some(pane) = pane(run) else { continue };
            let shards = shards.get_or_insert_with(|| {
                router::shards(self.key_columns(arrived).iter(), arrived.rows())
            });
            let mut row = Vec::new();
            shelf.write_key(pane, shards[keys.rows(run).start], &[], &mut row);
            self.output.layout.encode(keys.key(run), &mut row);
            if !tracker.is_gone(&row) {
                wanted.push(row);
            }
        }
        wanted.sort_unstable();
        wanted.dedup();
        let wanted: Vec<&[u8]> = wanted.iter().map(Vec::as_slice).collect();
        shelf.fetch(&wanted).map_err(|error| self.failed(&error))
    }

    /// The rows in the storage of a batch's keys that this table has not.
    pub fn fetch_missing(
        &self,
        keys: &KeyTable,
        batch_keys: &BatchKeys,
        arrived: &Arrived,
        tracker: &Tracker,
    ) -> Result<Chunk, OperatorError> {
        self.fetch(batch_keys, arrived, tracker, |run| {
            keys.find(batch_keys.key(run)).is_none().then_some(0)
        })
    }

    /// The number of a key that was a row; a new one if the table has not got it.
    pub fn number(&self, keys: &mut KeyTable, key: &[u8]) -> Result<u32, OperatorError> {
        let upserted = keys.upsert_row(&self.output.layout, key);
        let (id, _) = upserted.map_err(|error| self.broken(&error))?;
        Ok(id)
    }

    /// These states as rows, in this order.
    pub fn encode(&self, slots: &[u32]) -> Result<Encoded, OperatorError> {
        let columns = self.gather(slots)?;
        let encoder = self.codec.encoder(&columns);
        let encoder = encoder.map_err(|error| self.broken(&error))?;
        let mut encoded = Encoded {
            ends: Vec::with_capacity(slots.len()),
            bytes: Vec::new(),
        };
        for row in 0..slots.len() {
            encoder.encode(row, &mut encoded.bytes);
            encoded.ends.push(encoded.bytes.len());
        }
        Ok(encoded)
    }

    /// Puts states that were rows into new slots.
    pub fn decode<'a>(
        &mut self,
        rows: impl ExactSizeIterator<Item = &'a [u8]>,
    ) -> Result<Vec<u32>, OperatorError> {
        let slots: Vec<u32> = (0..rows.len()).map(|_| self.allocate()).collect();
        let columns = self.codec.decode(rows);
        let columns = columns.map_err(|error| self.broken(&error))?;
        self.scatter(&slots, &columns)?;
        Ok(slots)
    }

    /// Reads the keys of rows into runs, cut also where `split` says so.
    pub fn read_keys(
        &self,
        keys: &mut BatchKeys,
        arrived: &Arrived,
        split: impl FnMut(usize) -> bool,
    ) -> Result<(), OperatorError> {
        keys.read(&self.key_columns(arrived), arrived.rows(), split)
            .map_err(|error| self.broken(&error))
    }

    pub fn key_columns(&self, arrived: &Arrived) -> Vec<ArrayRef> {
        pick(&arrived.batch, &self.output.key_columns[arrived.edge])
    }

    pub fn slots(&self) -> usize {
        self.states.slots()
    }

    pub fn slots_in_use(&self) -> usize {
        self.states.slots_in_use()
    }

    pub fn allocate(&mut self) -> u32 {
        self.states.allocate()
    }

    pub fn release(&mut self, slot: u32) {
        self.states.release(slot);
    }

    /// Folds rows into the states of their groups. Nothing is kept before
    /// [`Accumulators::store`].
    pub fn fold(
        &mut self,
        arrived: &Arrived,
        groups: &Groups,
        out: &mut Outbox,
    ) -> Result<Folded, OperatorError> {
        let existing = self.gather(&groups.slots[..groups.existing])?;
        let input = pick(&arrived.batch, &self.output.input_columns[arrived.edge]);
        let states = States {
            existing: Columns {
                rows: groups.existing,
                columns: &existing,
            },
            groups: groups.slots.len(),
        };
        self.guard
            .accumulate(&arrived.batch, &input, &groups.of_row, states, out)
    }

    /// The same, with the result after each row.
    pub fn fold_each(
        &mut self,
        arrived: &Arrived,
        groups: &Groups,
        out: &mut Outbox,
    ) -> Result<(Folded, Rows), OperatorError> {
        let existing = self.gather(&groups.slots[..groups.existing])?;
        let input = pick(&arrived.batch, &self.output.input_columns[arrived.edge]);
        let states = States {
            existing: Columns {
                rows: groups.existing,
                columns: &existing,
            },
            groups: groups.slots.len(),
        };
        self.guard
            .accumulate_each(&arrived.batch, &input, &groups.of_row, states, out)
    }

    /// Keeps the states that a fold has answered with.
    pub fn store(&mut self, groups: &Groups, states: &[ArrayRef]) -> Result<(), OperatorError> {
        self.scatter(&groups.slots, states)
    }

    /// Merges the states of each group into its target.
    pub fn merge(
        &mut self,
        merges: &Merges,
        keys: &KeyTable,
        out: &mut Outbox,
    ) -> Result<(), OperatorError> {
        let mut first = 0;
        while first < merges.targets.len() {
            let start = if first == 0 {
                0
            } else {
                merges.ends[first - 1]
            };
            // As many groups as make a batch of states, at least one.
            let room = start + self.output.batch_rows;
            let more = merges.ends[first + 1..].partition_point(|&end| end <= room);
            let last = first + 1 + more;
            let inputs = &merges.inputs[start..merges.ends[last - 1]];
            let mut groups = Vec::with_capacity(inputs.len());
            for group in first..last {
                groups.resize(merges.ends[group] - start, (group - first) as u32);
            }
            let states = self.gather(inputs)?;
            let subject = |group: u32| {
                let group = first + group as usize;
                self.output
                    .subject(keys, merges.ids[group], merges.spans[group])
            };
            let merged = self.guard.merge(
                Columns {
                    rows: inputs.len(),
                    columns: &states,
                },
                &groups,
                &subject,
                out,
            )?;
            self.scatter(&merges.targets[first..last], &merged)?;
            first = last;
        }
        Ok(())
    }

    /// Puts out the results of states.
    pub fn emit(&mut self, results: Results<'_>, out: &mut Outbox) -> Result<(), OperatorError> {
        let mut first = 0;
        while first < results.slots.len() {
            let last = results.slots.len().min(first + self.output.batch_rows);
            let states = self.gather(&results.slots[first..last])?;
            let (starts, ends) = results.spans.of(first..last);
            let subject = |state: u32| {
                let state = first + state as usize;
                let id = results.ids.of(state);
                self.output
                    .subject(results.keys, id, results.spans.at(state))
            };
            let columns = Columns {
                rows: last - first,
                columns: &states,
            };
            let rows = self.guard.finish(columns, &starts, &ends, &subject, out)?;
            if !rows.parents.is_empty() {
                let batch = self
                    .output
                    .batch(results, first, rows, starts, ends)
                    .map_err(|error| self.broken(&error))?;
                self.put_out(batch, out);
            }
            first = last;
        }
        Ok(())
    }

    /// Puts out a result for each of these rows, whose parents are rows of the batch.
    pub fn emit_each(&self, arrived: &Arrived, rows: Rows, out: &mut Outbox) {
        if rows.parents.is_empty() {
            return;
        }
        let mut columns = match self.key_columns(arrived) {
            none if none.is_empty() => none,
            keys => crate::batch::gather(&keys, &rows.parents),
        };
        if self.output.bounds {
            let times = rows
                .parents
                .iter()
                .map(|&row| arrived.batch.times[row as usize]);
            let starts: Vec<i64> = times.collect();
            let ends = starts.iter().map(|start| start.saturating_add(1)).collect();
            columns.extend([timestamps(starts), timestamps(ends)]);
        }
        columns.extend(rows.columns);
        let schema = self.output.schema.clone();
        let batch = arrived.batch.derive(schema, columns, &rows.parents);
        self.put_out(batch, out);
    }

    fn put_out(&self, batch: Batch, out: &mut Outbox) {
        let most = self.output.batch_rows;
        if batch.rows() <= most {
            out.rows.push(batch);
            return;
        }
        for start in (0..batch.rows()).step_by(most) {
            out.rows
                .push(batch.slice(start, most.min(batch.rows() - start)));
        }
    }

    fn gather(&self, slots: &[u32]) -> Result<Vec<ArrayRef>, OperatorError> {
        self.states
            .gather(slots)
            .map_err(|error| self.broken(&error))
    }

    fn scatter(&mut self, slots: &[u32], states: &[ArrayRef]) -> Result<(), OperatorError> {
        let Err(error) = self.states.scatter(slots, states) else {
            return Ok(());
        };
        Err(self.broken(&error))
    }

    pub fn load_failed(&self, error: LoadError) -> OperatorError {
        match error {
            LoadError::Operator(error) => error,
            LoadError::Storage(error) => self.failed(&error),
        }
    }

    /// What is kept cannot be read.
    pub fn failed(&self, error: &StorageError) -> OperatorError {
        OperatorError {
            node: self.node.to_string(),
            message: format!("its state cannot be read: {error}"),
        }
    }

    /// Keys and states have been checked where they came in: this is a bug.
    pub fn broken(&self, error: &RowError) -> OperatorError {
        OperatorError {
            node: self.node.to_string(),
            message: format!("its keys or states cannot be read or kept: {error}"),
        }
    }
}

impl Output {
    /// Result rows; their parents count from state `first` of the results.
    fn batch(
        &self,
        results: Results<'_>,
        first: usize,
        rows: Rows,
        mut starts: Vec<i64>,
        mut ends: Vec<i64>,
    ) -> Result<Batch, RowError> {
        let parents = &rows.parents;
        let each_once = parents.len() == starts.len()
            && parents
                .iter()
                .enumerate()
                .all(|(i, &parent)| parent as usize == i);
        let picked: Vec<u32>;
        let selection = if each_once {
            match results.ids {
                Ids::InOrder => Selection::Range(first..first + starts.len()),
                Ids::Each(ids) => Selection::Each(&ids[first..first + starts.len()]),
            }
        } else {
            starts = parents
                .iter()
                .map(|&parent| starts[parent as usize])
                .collect();
            ends = parents
                .iter()
                .map(|&parent| ends[parent as usize])
                .collect();
            let states = parents.iter().map(|&parent| first + parent as usize);
            picked = states.map(|state| results.ids.of(state)).collect();
            Selection::Each(&picked)
        };
        let mut columns = results.keys.columns(&self.layout, selection)?;
        let times = ends.iter().map(|end| end.saturating_sub(1)).collect();
        if self.bounds {
            columns.extend([timestamps(starts), timestamps(ends)]);
        }
        columns.extend(rows.columns);
        Ok(Batch {
            schema: self.schema.clone(),
            columns,
            times,
            origin: None,
        })
    }

    /// A key and its window as JSON.
    fn subject(&self, keys: &KeyTable, id: u32, span: Span) -> String {
        match keys.columns(&self.layout, Selection::Each(&[id])) {
            Ok(mut columns) => {
                columns.extend([timestamps(vec![span.start]), timestamps(vec![span.end])]);
                let batch = Batch {
                    schema: self.subject_schema.clone(),
                    columns,
                    times: vec![span.end.saturating_sub(1)].into(),
                    origin: None,
                };
                render_row(&batch, 0)
            }
            Err(error) => format!("(its key cannot be read: {error})"),
        }
    }
}

impl Ids<'_> {
    fn of(&self, state: usize) -> u32 {
        match self {
            Ids::InOrder => state as u32,
            Ids::Each(ids) => ids[state],
        }
    }
}

impl Spans<'_> {
    fn at(&self, state: usize) -> Span {
        match self {
            Spans::Same(span) => *span,
            Spans::Each(spans) => spans[state],
        }
    }

    fn of(&self, states: std::ops::Range<usize>) -> (Vec<i64>, Vec<i64>) {
        match self {
            Spans::Same(span) => (vec![span.start; states.len()], vec![span.end; states.len()]),
            Spans::Each(spans) => {
                let spans = &spans[states];
                (
                    spans.iter().map(|span| span.start).collect(),
                    spans.iter().map(|span| span.end).collect(),
                )
            }
        }
    }
}

fn pick(batch: &Batch, columns: &[usize]) -> Vec<ArrayRef> {
    columns
        .iter()
        .map(|&column| batch.columns[column].clone())
        .collect()
}

fn timestamps(values: Vec<i64>) -> ArrayRef {
    Arc::new(TimestampMillisecondArray::from(values).with_timezone("UTC"))
}
