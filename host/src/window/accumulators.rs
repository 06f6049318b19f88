//! Calls the plugin for an aggregate: folds rows into states, merges states, and emits
//! results. The kinds of windows decide which rows and states belong together.

use std::sync::Arc;

use arrow_array::ArrayRef;
use arrow_buffer::ScalarBuffer;

use super::changes::{Before, Change, ChangesLayout, Replaced, replaced};
use super::results::{ResultLayout, Results};
use super::time::Span;
use crate::batch::{Batch, gather, pick, timestamps};
use crate::logic::{Columns, Factory, Rows, States};
use crate::operator::error::KeyedError;
use crate::operator::guard::{AggregateGuard, CALL_BYTES_MAX, Folded, OutgrownGroups};
use crate::operator::{Counts, OperatorError, Outbox};
use crate::plan::{AggregatePlan, Timing, Window};
use crate::schema::{DataType, Field, Schema};
use crate::state::error::StateError;
use crate::state::groups::Groups;
use crate::state::key::{BatchKeys, KeyLayout, KeyTable};
use crate::state::keyed::{Entries, KeyedStates, KeyedTable};
use crate::state::row::RowError;
use crate::state::stored::{StoredRows, StoredTable};
use crate::state::table::StateTable;
use crate::stop::Stop;

pub(super) struct Accumulators {
    guard: AggregateGuard,
    pub states: StateTable,
    pub table: Arc<KeyedTable>,
    /// The keys of the current batch.
    pub keys: BatchKeys,
    /// The states that the batch's rows are folded into.
    pub groups: Groups,
    output: ResultLayout,
}

/// Input rows that windows are to take.
#[derive(Clone)]
pub(super) struct Arrived {
    pub edge: usize,
    pub batch: Batch,
    /// The time by which each row is assigned to windows.
    pub times: ScalarBuffer<i64>,
}

/// Groups of states to merge, earlier states first, each group into one slot.
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

    /// All rows but these, which are ascending.
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

    /// Two halves in the order of a stack: the first half on top.
    pub fn halves(&self) -> [Arrived; 2] {
        let part = |start: usize, end: usize| Arrived {
            edge: self.edge,
            batch: self.batch.slice(start, end - start),
            times: self.times.slice(start, end - start),
        };
        let middle = self.rows() / 2;
        [part(middle, self.rows()), part(0, middle)]
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

    /// Adds a group; `target` may be one of its inputs. `id` and `span` are for
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
        stored: Option<StoredTable>,
        stop: &Stop,
    ) -> Result<Self, OperatorError> {
        let info = plan.operator.factory.info();
        let (start, end) = match &plan.bounds {
            Some(bounds) => (bounds.start.clone(), bounds.end.clone()),
            None => ("window_start".to_owned(), "window_end".to_owned()),
        };
        let bounds = [start, end].map(|name| Field::new(name, DataType::Timestamp, false));
        let key = plan.key_schema.fields.iter().cloned();
        let wanted = bounds.iter().filter(|_| plan.bounds.is_some()).cloned();
        let timing = plan.timing.as_deref().map(Timing::field);
        let columns = info.outputs[0].schema.fields.iter().cloned();
        let layout = KeyLayout::new(&plan.key_schema);
        let fields = |timing: Option<Field>| {
            let before = key.clone().chain(wanted.clone());
            Arc::new(Schema::new(
                before.chain(timing).chain(columns.clone()).collect(),
            ))
        };
        let changes = plan.changes_output.map(|port| ChangesLayout {
            port,
            schema: fields(None),
            timing: timing
                .is_some()
                .then(|| key.clone().count() + wanted.clone().count()),
        });
        Ok(Accumulators {
            guard: AggregateGuard::new(node, &plan.operator, stop)?,
            states: StateTable::new(&info.state),
            keys: BatchKeys::new(layout.clone()),
            table: Arc::new(KeyedTable { layout, stored }),
            groups: Groups::default(),
            output: ResultLayout {
                input_columns: plan.columns.clone(),
                key_columns: plan.key.clone(),
                key_read: plan.key_read.clone(),
                schema: fields(timing),
                changes,
                is_running: plan.window == Window::Running,
                subject_schema: Arc::new(Schema::new(key.chain(bounds).collect())),
                bounds: plan.bounds.is_some(),
                timing: plan.timing.is_some(),
                passes_rows: plan.passes_rows,
                batch_rows: batch_rows.max(1),
            },
        })
    }

    /// Calls other logic from now on.
    pub fn replace(&mut self, factory: Arc<dyn Factory>) -> Result<(), OperatorError> {
        self.states.forget_outgrown();
        self.guard.replace(factory)
    }

    /// Begins a batch: reads its keys into runs, which also end where `split` is true,
    /// and has `read_back` read evicted keys.
    pub fn begin(
        &mut self,
        arrived: &Arrived,
        split: impl FnMut(usize) -> bool,
        read_back: impl FnOnce(&mut StateTable, &BatchKeys) -> Result<(), StateError>,
    ) -> Result<(), KeyedError> {
        let columns = self.output.key_columns_of(&arrived.batch, arrived.edge);
        self.keys.read(columns, arrived.rows(), split)?;
        read_back(&mut self.states, &self.keys)?;
        self.groups.begin(self.states.slots());
        Ok(())
    }

    /// [`Accumulators::begin`] for a kind whose keys are all in one table.
    pub fn begin_keyed<E: Entries>(
        &mut self,
        keyed: &mut KeyedStates<E>,
        arrived: &Arrived,
        split: impl FnMut(usize) -> bool,
    ) -> Result<(), KeyedError> {
        self.begin(arrived, split, |states, keys| {
            keyed.read_back(states, keys, |_| true)
        })
    }

    /// Allocates a state, and returns its slot and its group in the batch.
    #[inline]
    pub fn allocate_group(&mut self) -> (u32, u32) {
        let slot = self.states.allocate();
        (slot, self.groups.of_new(slot))
    }

    /// Folds rows into the states of their groups. Stores nothing before
    /// [`Accumulators::store`].
    pub fn fold(&mut self, arrived: &Arrived, out: &mut Outbox) -> Result<Folded, KeyedError> {
        let (input, existing) = self.fold_input(arrived)?;
        let outgrown = self.outgrown();
        let (rows, states) = (&self.groups.of_row, states_of(&self.groups, &existing));
        let guard = &mut self.guard;
        let folded = guard.accumulate(&arrived.batch, &input, rows, states, outgrown, out)?;
        if folded.lost.len() == arrived.rows() {
            // Nothing will be stored.
            self.note_outgrown(&folded);
        }
        Ok(folded)
    }

    /// What is known of the groups of the batch whose states have outgrown the plugin's
    /// memory.
    fn outgrown(&self) -> OutgrownGroups {
        let states = &self.states;
        if !states.has_outgrown() {
            return OutgrownGroups::new();
        }
        let existing = &self.groups.slots[..self.groups.existing];
        let known = (0..).zip(existing);
        let known =
            known.filter_map(|(group, &slot)| Some((group, states.outgrown(slot)?.clone())));
        known.collect()
    }

    fn note_outgrown(&mut self, folded: &Folded) {
        for (group, outgrown) in &folded.outgrown {
            let slot = self.groups.slots[*group as usize];
            self.states.note_outgrown(slot, outgrown);
        }
    }

    /// Copies states to other slots.
    pub fn copy(&mut self, from: &[u32], to: &[u32]) -> Result<(), KeyedError> {
        if !from.is_empty() {
            let states = self.states.gather(from)?;
            self.states.scatter(to, &states)?;
        }
        Ok(())
    }

    /// [`Accumulators::fold`] in one call, or nothing if a row would be lost.
    pub fn fold_whole(
        &mut self,
        arrived: &Arrived,
        counts: &mut Counts,
    ) -> Result<Option<Folded>, KeyedError> {
        if !self.outgrown().is_empty() {
            return Ok(None);
        }
        let (input, existing) = self.fold_input(arrived)?;
        let (rows, states) = (&self.groups.of_row, states_of(&self.groups, &existing));
        let guard = &mut self.guard;
        Ok(guard.accumulate_whole(&arrived.batch, &input, rows, states, counts)?)
    }

    /// What the plugin reads of the keys of these rows.
    pub fn keys_read(&self, arrived: &Arrived, rows: &[u32]) -> Vec<ArrayRef> {
        let columns = &self.output.key_columns[arrived.edge];
        let read = self.output.key_read.iter();
        let read: Vec<usize> = read.map(|&column| columns[column]).collect();
        gather(&pick(&arrived.batch, &read), rows)
    }

    /// What the plugin reads of the key of each group.
    pub fn keys_of_groups(&self, arrived: &Arrived) -> Vec<ArrayRef> {
        if self.output.key_read.is_empty() {
            return Vec::new();
        }
        self.keys_read(arrived, &self.groups.last_rows())
    }

    /// [`Accumulators::fold`], with the result after each row, which is returned where
    /// changes are told, and else emitted. `keys` is what the plugin reads of the key of
    /// each group.
    pub fn fold_each(
        &mut self,
        arrived: &Arrived,
        keys: &[ArrayRef],
        out: &mut Outbox,
    ) -> Result<(Folded, Rows), KeyedError> {
        let (input, existing) = self.fold_input(arrived)?;
        let outgrown = self.outgrown();
        let (rows, states) = (&self.groups.of_row, states_of(&self.groups, &existing));
        let (output, guard) = (&self.output, &mut self.guard);
        let mut returned = Vec::new();
        let put = |rows, out: &mut Outbox| {
            match output.changes {
                Some(_) => returned.push((0, rows)),
                None => output.emit_each(&arrived.batch, arrived.edge, rows, out),
            }
            Ok::<_, KeyedError>(())
        };
        let batch = &arrived.batch;
        let folded =
            guard.accumulate_each(batch, &input, rows, states, outgrown, keys, out, put)?;
        Ok((folded, guard.join_rows(returned)?))
    }

    /// The columns that the logic reads, and the existing states.
    fn fold_input(&self, arrived: &Arrived) -> Result<(Vec<ArrayRef>, Vec<ArrayRef>), KeyedError> {
        let input = match self.output.passes_rows {
            true => vec![timestamps(arrived.batch.times.to_vec())],
            false => pick(&arrived.batch, &self.output.input_columns[arrived.edge]),
        };
        let existing = &self.groups.slots[..self.groups.existing];
        Ok((input, self.states.gather(existing)?))
    }

    /// Stores the states that a fold of these rows has returned.
    pub fn store(
        &mut self,
        arrived: &Arrived,
        folded: &Folded,
        out: &mut Outbox,
    ) -> Result<(), KeyedError> {
        out.counts.taken += (arrived.rows() - folded.lost.len()) as u64;
        let slots = &self.groups.slots;
        self.states.note_batch(arrived.rows(), slots.len());
        match &folded.groups {
            None => self.states.scatter(slots, &folded.states)?,
            Some(groups) => {
                let slots = groups.iter().map(|&group| slots[group as usize]);
                self.states
                    .scatter(&slots.collect::<Vec<_>>(), &folded.states)?;
            }
        }
        self.note_outgrown(folded);
        Ok(())
    }

    /// How many of these states, at least one, fit into a call.
    fn fit(&self, slots: &[u32]) -> usize {
        let slots = &slots[..slots.len().min(self.output.batch_rows)];
        self.states.fit(slots, CALL_BYTES_MAX)
    }

    /// Merges the states of each group into its target.
    pub fn merge(
        &mut self,
        merges: &Merges,
        keys: &KeyTable,
        out: &mut Outbox,
    ) -> Result<(), KeyedError> {
        let mut first = 0;
        while first < merges.targets.len() {
            let start = if first == 0 {
                0
            } else {
                merges.ends[first - 1]
            };
            // As many groups as fit into a call, at least one.
            let room = start + self.fit(&merges.inputs[start..]);
            let more = merges.ends[first + 1..].partition_point(|&end| end <= room);
            let last = first + 1 + more;
            let inputs = &merges.inputs[start..merges.ends[last - 1]];
            let mut groups = Vec::with_capacity(inputs.len());
            for group in first..last {
                groups.resize(merges.ends[group] - start, (group - first) as u32);
            }
            let states = self.states.gather(inputs)?;
            let subject = |group: u32| {
                let group = first + group as usize;
                self.output.subject(
                    &self.table.layout,
                    keys,
                    merges.ids[group],
                    merges.spans[group],
                )
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
            self.states.scatter(&merges.targets[first..last], &merged)?;
            first = last;
        }
        Ok(())
    }

    /// Emits the results of states.
    pub fn emit(&mut self, results: Results<'_>, out: &mut Outbox) -> Result<(), KeyedError> {
        self.tell(results, Change::Told, out)
    }

    /// Whether something reads what becomes of results.
    pub fn tells_changes(&self) -> bool {
        self.output.changes.is_some()
    }

    /// Emits the results of states, or takes them back before these change or go.
    pub fn tell(
        &mut self,
        results: Results<'_>,
        change: Change,
        out: &mut Outbox,
    ) -> Result<(), KeyedError> {
        let mut first = 0;
        while first < results.slots.len() {
            let last = first + self.fit(&results.slots[first..]);
            let states = self.states.gather(&results.slots[first..last])?;
            let (starts, ends) = results.spans.of(first..last);
            let subject = |state: u32| {
                let state = first + state as usize;
                let id = results.ids.of(state);
                self.output.subject(
                    &self.table.layout,
                    results.keys,
                    id,
                    results.spans.at(state),
                )
            };
            let columns = Columns {
                rows: last - first,
                columns: &states,
            };
            let keys = self
                .output
                .keys_read(&self.table.layout, results, first..last)?;
            let (of_starts, of_ends) = self.output.windows(&starts, &ends);
            let (output, layout, guard) = (&self.output, &self.table.layout, &mut self.guard);
            let put = |rows: Rows, out: &mut Outbox| {
                if !rows.parents.is_empty() {
                    let (starts, ends) = (starts.clone(), ends.clone());
                    let batch = output.batch(layout, results, first, rows, starts, ends)?;
                    output.put(batch, change, out);
                }
                Ok::<_, KeyedError>(())
            };
            match change {
                Change::Told | Change::Withdrawn => {
                    guard.finish(columns, &keys, &of_starts, &of_ends, &subject, out, put)?;
                }
                Change::TakenBack => {
                    // Failures were told when the results were.
                    let told = &mut Outbox::default();
                    let put = |rows, _: &mut Outbox| put(rows, out);
                    guard.finish(columns, &keys, &of_starts, &of_ends, &subject, told, put)?;
                }
            }
            first = last;
        }
        Ok(())
    }

    /// What states of a running aggregate have told last, by their places here. `keys` is
    /// what the plugin reads of the key of each.
    pub fn told(&mut self, slots: &[u32], keys: &[ArrayRef]) -> Result<Rows, KeyedError> {
        let mut parts = Vec::new();
        let mut first = 0;
        while first < slots.len() {
            let last = first + self.fit(&slots[first..]);
            let states = self.states.gather(&slots[first..last])?;
            let states = Columns {
                rows: last - first,
                columns: &states,
            };
            let windows = vec![0; states.rows];
            let (starts, ends) = self.output.windows(&windows, &windows);
            let (subject, mut failures) = (|_| String::new(), Outbox::default());
            let guard = &mut self.guard;
            let keys: Vec<ArrayRef> = keys
                .iter()
                .map(|column| column.slice(first, last - first))
                .collect();
            let put = |rows, _: &mut Outbox| {
                parts.push((first, rows));
                Ok::<_, KeyedError>(())
            };
            guard.finish(states, &keys, &starts, &ends, &subject, &mut failures, put)?;
            first = last;
        }
        Ok(self.guard.join_rows(parts)?)
    }

    /// [`Accumulators::told`] of the existing states of the batch. `keys` has those of all
    /// its groups.
    pub fn told_before(&mut self, keys: &[ArrayRef]) -> Result<Rows, KeyedError> {
        let existing = self.groups.slots[..self.groups.existing].to_vec();
        self.told(&existing, keys)
    }

    /// Has these stored states for as long as they are told; `tell` gets their keys, slots
    /// and entries.
    pub fn with_evicted<E: Entries>(
        &mut self,
        rows: &StoredRows,
        entries: &E,
        tell: impl FnOnce(&mut Self, &KeyTable, &[u32], &[E::Entry]) -> Result<(), KeyedError>,
    ) -> Result<(), KeyedError> {
        let mut keys = KeyTable::default();
        let mut states = Vec::with_capacity(rows.len());
        let mut read = Vec::with_capacity(rows.len());
        for (_, key, row) in rows.rows() {
            keys.upsert_row(&self.table.layout, key)?;
            read.push(entries.read(row, &mut states)?);
        }
        let slots = self.states.decode(states.into_iter())?;
        tell(self, &keys, &slots, &read)?;
        for slot in slots {
            self.states.release(slot);
        }
        Ok(())
    }

    /// Emits the results of rows of the batch that [`Accumulators::fold_each`] returned.
    pub fn emit_each(&self, arrived: &Arrived, rows: Rows, out: &mut Outbox) {
        let (batch, edge) = (&arrived.batch, arrived.edge);
        self.output.emit_each(batch, edge, rows, out);
    }

    /// Tells which results rows of the batch take back, and which come in their place.
    /// `each` are the results after each row that is not `lost`.
    pub fn emit_changes(
        &self,
        arrived: &Arrived,
        each: &Rows,
        before: &Before<'_>,
        lost: &[u32],
        out: &mut Outbox,
    ) -> Result<(), KeyedError> {
        let Some(changes) = &self.output.changes else {
            return Ok(());
        };
        let is_lost = |row: u32| lost.binary_search(&row).is_ok();
        let changed = replaced(
            (&self.groups.of_row, &arrived.batch.times),
            each,
            before,
            is_lost,
        );
        let Replaced {
            columns: results,
            rows,
            times,
            taken_back,
        } = changed.map_err(|error| RowError::new(error.to_string()))?;
        let keys = self.output.key_columns_of(&arrived.batch, arrived.edge);
        let mut columns = match keys.is_empty() {
            true => keys,
            false => gather(&keys, &rows),
        };
        columns.extend(results);
        let mut batch = arrived.batch.derive(changes.schema.clone(), columns, &rows);
        batch.times = times.into();
        batch.taken_back = Some(taken_back);
        out.put_in_parts(changes.port, batch, self.output.batch_rows);
        Ok(())
    }
}

/// The states that rows are folded into, as the plugin gets them.
fn states_of<'a>(groups: &Groups, existing: &'a [ArrayRef]) -> States<'a> {
    States {
        existing: Columns {
            rows: groups.existing,
            columns: existing,
        },
        groups: groups.slots.len(),
    }
}
