//! Keyed processes: rows and timers of a key change its state, and make rows for several
//! outputs.
//!
//! A [`ProcessOperator`] looks up the key of each row, and has the plugin take the rows of
//! a batch in one call, with the states and timers of their keys. When time reaches the
//! timers of keys, it has the plugin take these. The plugin fires the timers of a key in
//! order of time; those that it sets behind time fire at once.
//!
//! Where rows are to be taken in order of event time, they wait in a
//! [`RowBuffer`](crate::state::rows::RowBuffer) until the watermark has passed them. Those
//! behind it are late. A timer comes before a row of its time.
//!
//! A row that the plugin rejects or fails on changes nothing, and nor does such a timer,
//! which is gone.

/// What is kept for each key.
mod entries;
/// Where the state is in a row, for what migrates it.
pub mod migrated;
/// Dead letters of requests.
mod requests;
/// What is seen of its state.
mod show;
/// The tables of state, and the layout of their rows.
pub mod tables;
/// Rows that wait to be taken in order of event time.
mod waiting;

use std::ops::Range;
use std::sync::Arc;

use arrow_array::{ArrayRef, StringArray};

use crate::batch::{Batch, bytes, gather, pick, timestamps};
use crate::checkpoint::changes::Changes;
use crate::checkpoint::snapshot::OperatorSnapshot;
use crate::clock::Clock;
use crate::element::{END_OF_TIME, Inlet};
use crate::json::render_row;
use crate::logic::{
    Columns, Factory, Failure, GroupTimers, Keyed, Processed, Step, Steps, TIMERS_MAX,
};
use crate::operator::error::KeyedError;
use crate::operator::guard::{CALL_BYTES_MAX, ProcessGuard, slice, taken_back};
use crate::operator::{Operator, OperatorError, Outbox};
use crate::plan::{PortPlan, ProcessPlan, RowOrder};
use crate::schema::{DataType, Field, Schema};
use crate::state::error::StateError;
use crate::state::groups::NO_SLOT;
use crate::state::key::{BatchKeys, KeyLayout, Selection};
use crate::state::keyed::{Entries, KeyedPart, KeyedStates, KeyedTable, Reached};
use crate::state::look::{Look, Seen};
use crate::state::stored::{Scan, StoredTable};
use crate::state::table::StateTable;
use crate::state::upkeep::Upkeep;
use crate::stop::Stop;
use entries::{KeyTimer, KeyTimers, ProcessEntries};
use requests::Requests;
pub use show::show;
use waiting::{DueRows, Waiting};

/// How far ahead timers are usually set, where nothing tells.
const HORIZON_MS: i64 = 60 * 60 * 1_000;

pub struct ProcessOperator {
    node: Arc<str>,
    guard: ProcessGuard,
    /// The operator's inputs.
    ports: Vec<PortPlan>,
    /// No rows of each input.
    no_rows: Vec<Vec<ArrayRef>>,
    key_schema: Arc<Schema>,
    /// The columns of the key that the operator reads.
    key_read: Vec<usize>,
    outputs: Vec<Arc<Schema>>,
    batch_rows: usize,
    table: Arc<KeyedTable>,
    keyed: KeyedStates<ProcessEntries>,
    states: StateTable,
    /// The keys of the current batch.
    keys: BatchKeys,
    groups: Groups,
    /// Absent where rows are taken as they come.
    waiting: Option<Waiting>,
    /// Where rows are parts of requests.
    requests: Option<Requests>,
    watermark_ms: i64,
    /// The newest event time of rows.
    newest_ms: Option<i64>,
    /// Whether timers may be overdue that were left to this run.
    is_restored: bool,
    sweep: Option<Sweep>,
    /// Whether rows may wait that the watermark has passed. Timers come behind them.
    is_taking: bool,
    clock: Arc<dyn Clock>,
    upkeep: Upkeep,
}

/// A sweep through evicted keys for those that are due. It goes on in pieces, so that a
/// checkpoint can be made in between: what is done with a key is in memory until then.
struct Sweep {
    scan: Scan,
    /// How far time had come when it began.
    began: Reached,
}

/// What the plugin is to take: the rows of a batch, or timers.
struct Work<'a> {
    /// The key of each row, or of the timers.
    ids: &'a [u32],
    rows: Option<Rows<'a>>,
    /// The event time of what a single timer puts out, at least.
    least_ms: Option<i64>,
    now: Reached,
}

impl Work<'_> {
    /// How far time has come before a row.
    fn now_at(&self, at: usize) -> Reached {
        match &self.rows {
            Some(rows) => before_row(rows.batch, at, self.now),
            None => self.now,
        }
    }
}

/// How far time has come before a row of a batch, which came at `now`.
fn before_row(batch: &Batch, row: usize, now: Reached) -> Reached {
    let watermarks = batch.watermarks.as_ref();
    let time_ms = watermarks.map_or(i64::MIN, |watermarks| watermarks[row]);
    Reached {
        time_ms: time_ms.max(now.time_ms),
        ..now
    }
}

struct Rows<'a> {
    batch: &'a Batch,
    /// The columns that the operator reads.
    columns: Vec<ArrayRef>,
    ports: RowPorts<'a>,
}

/// By which input rows came.
enum RowPorts<'a> {
    /// All by this one, and `columns` are what it reads.
    One(usize),
    /// Each by one of its own, and `columns` are those of all inputs, which have these
    /// ranges.
    Each(&'a [u32], &'a [Range<usize>]),
}

impl Rows<'_> {
    fn port(&self, row: usize) -> usize {
        match self.ports {
            RowPorts::One(port) => port,
            RowPorts::Each(ports, _) => ports[row] as usize,
        }
    }

    /// The input by which a row came, and its bytes.
    fn size(&self, row: usize) -> [usize; 2] {
        let port = self.port(row);
        let (_, columns) = self.input(port, &(row..row + 1));
        [port, bytes(&columns, &(0..1))]
    }

    /// What an input has of a part of the rows, and how many these are.
    fn input(&self, port: usize, part: &Range<usize>) -> (usize, Vec<ArrayRef>) {
        match self.ports {
            RowPorts::One(only) if only == port => (part.len(), slice(&self.columns, part)),
            RowPorts::One(_) => (0, Vec::new()),
            RowPorts::Each(ports, ranges) => {
                let rows = part.clone().filter(|&row| ports[row] as usize == port);
                let rows: Vec<u32> = rows.map(|row| row as u32).collect();
                let columns = &self.columns[ranges[port].clone()];
                let columns = match rows.len() == part.len() {
                    true => slice(columns, part),
                    false => gather(columns, &rows),
                };
                (rows.len(), columns)
            }
        }
    }
}

/// What a call takes of its part of the work.
#[derive(Clone, Copy)]
enum Take {
    /// Rows, with the timers before and after them; or timers.
    Whole,
    /// The first timer that is due.
    FirstTimer,
    /// Rows without timers.
    RowsAlone,
}

/// The groups of a call.
#[derive(Default)]
struct Groups {
    /// The key of each group: first those with a state.
    ids: Vec<u32>,
    stateful: usize,
    /// The group of each step.
    of_step: Vec<u32>,
    /// By key, the call in which it was last seen, and its group there.
    seen: Vec<(u32, u32)>,
    call: u32,
}

impl Groups {
    /// Numbers the keys of the steps of a call.
    fn number(&mut self, ids: &[u32], has_state: impl Fn(u32) -> bool) {
        self.call = self.call.wrapping_add(1);
        if self.call == 0 {
            self.seen.clear();
            self.call = 1;
        }
        self.ids.clear();
        let mut stateless = Vec::new();
        for &id in ids {
            let index = id as usize;
            if index >= self.seen.len() {
                self.seen.resize(index + 1, (0, 0));
            }
            if self.seen[index].0 == self.call {
                continue;
            }
            self.seen[index].0 = self.call;
            match has_state(id) {
                true => self.ids.push(id),
                false => stateless.push(id),
            }
        }
        self.stateful = self.ids.len();
        self.ids.append(&mut stateless);
        for (group, &id) in (0..).zip(&self.ids) {
            self.seen[id as usize].1 = group;
        }
        let seen = &self.seen;
        self.of_step.clear();
        self.of_step
            .extend(ids.iter().map(|&id| seen[id as usize].1));
    }
}

impl ProcessOperator {
    /// `stored` are the node's tables in the storage, in the order of [`tables::tables`]; none
    /// where the pipeline has no checkpoints.
    pub fn new(
        node: &str,
        plan: &ProcessPlan,
        batch_rows: usize,
        clock: Arc<dyn Clock>,
        stored: Vec<StoredTable>,
        stop: &Stop,
    ) -> Result<Self, OperatorError> {
        let info = plan.operator.factory.info();
        let layout = KeyLayout::new(&plan.key_schema);
        let mut tables = stored.into_iter();
        let stored = tables.next();
        let upkeep = Upkeep::new(stored.as_ref());
        let table = Arc::new(KeyedTable {
            layout: layout.clone(),
            stored,
        });
        let horizon_ms = plan.ttl_ms.unwrap_or(HORIZON_MS);
        let entries = ProcessEntries::new(plan.ttl_ms, horizon_ms);
        let no_rows = info.inputs.iter().map(|port| port.schema.no_rows());
        let mut operator = ProcessOperator {
            node: node.into(),
            guard: ProcessGuard::new(node, &plan.operator, stop)?,
            ports: plan.ports.clone(),
            no_rows: no_rows.collect(),
            key_schema: plan.key_schema.clone(),
            key_read: plan.key_read.clone(),
            outputs: info
                .outputs
                .iter()
                .map(|port| port.schema.clone())
                .collect(),
            batch_rows: batch_rows.max(1),
            keyed: KeyedStates::new(table.clone(), 0, horizon_ms, entries),
            table,
            states: StateTable::new(&info.state),
            keys: BatchKeys::new(layout.clone()),
            groups: Groups::default(),
            waiting: match plan.order {
                RowOrder::Arrival => None,
                RowOrder::EventTime => {
                    Some(Waiting::new(&info.inputs, layout, tables.next(), plan.ties))
                }
            },
            requests: plan.requests.clone().map(Requests::new),
            watermark_ms: i64::MIN,
            newest_ms: None,
            is_restored: false,
            sweep: None,
            is_taking: false,
            clock,
            upkeep,
        };
        operator.restore().map_err(|error| operator.failed(error))?;
        Ok(operator)
    }

    fn restore(&mut self) -> Result<(), StateError> {
        let table = self.table.clone();
        let Some(stored) = &table.stored else {
            return Ok(());
        };
        let Some(restored) = stored.restored else {
            return Ok(());
        };
        let time_ms = match restored.time_ms {
            // There may be more rows now.
            Some(END_OF_TIME) => match self.waiting {
                // All rows up to the newest have been taken.
                Some(_) => restored.newest_ms,
                None => restored.read_ms,
            },
            time_ms => time_ms,
        };
        self.newest_ms = restored.newest_ms;
        self.watermark_ms = time_ms.unwrap_or(i64::MIN);
        self.is_restored = true;
        self.upkeep
            .restore(stored, &mut self.states, &mut self.keyed)?;
        match &mut self.waiting {
            Some(waiting) => waiting.buffer.restore(),
            None => Ok(()),
        }
    }

    fn failed(&self, error: impl Into<KeyedError>) -> OperatorError {
        error.into().of(&self.node)
    }

    /// How far time has come; at the end of event time, all timers are due.
    fn now(&self) -> Reached {
        Reached {
            time_ms: self.watermark_ms,
            processing_ms: match self.watermark_ms {
                END_OF_TIME => END_OF_TIME,
                _ => self.clock.now_ms(),
            },
        }
    }

    /// Has rows taken as they come.
    fn take_arrived(
        &mut self,
        inlet: Inlet,
        batch: &Batch,
        out: &mut Outbox,
    ) -> Result<(), OperatorError> {
        let port = &self.ports[inlet.port];
        let key = pick(batch, &port.key[inlet.edge]);
        let columns = pick(batch, &port.columns[inlet.edge]);
        let ports = RowPorts::One(inlet.port);
        let now = self.now();
        self.take_rows(batch, key, columns, ports, now, out)
    }

    /// Puts rows into the buffer, in order of event time; late ones are put out.
    fn wait(&mut self, inlet: Inlet, batch: &Batch, out: &mut Outbox) -> Result<(), OperatorError> {
        let port = &self.ports[inlet.port];
        let rows = 0..batch.rows() as u32;
        let is_late = |row: &u32| batch.times[*row as usize] < self.watermark_ms;
        let (late, in_time): (Vec<u32>, Vec<u32>) = rows.partition(is_late);
        out.counts.late += late.len() as u64;
        out.put_late(port.late_output, batch, &late);
        let Some(waiting) = self.waiting.as_mut().filter(|_| !in_time.is_empty()) else {
            return Ok(());
        };
        out.counts.held += in_time.len() as i64;
        let batch = batch.take(&in_time);
        let key = pick(&batch, &port.key[inlet.edge]);
        let read = &port.columns[inlet.edge];
        let inserted = waiting.insert(&mut self.keys, key, &batch, inlet.port, read);
        inserted.map_err(|error| self.failed(error))
    }

    /// Has the next rows taken that the watermark has passed. Returns whether there may be
    /// more.
    fn take_waiting(&mut self, out: &mut Outbox) -> Result<bool, OperatorError> {
        let Some(mut waiting) = self.waiting.take() else {
            return Ok(false);
        };
        let columns = waiting.columns.clone();
        let table = self.table.clone();
        let now = Reached {
            time_ms: i64::MIN,
            ..self.now()
        };
        let rows = self.batch_rows;
        let passed = waiting.pass(
            &table.layout,
            self.watermark_ms,
            rows,
            CALL_BYTES_MAX,
            |due| {
                let DueRows { batch, key, ports } = due;
                out.counts.held -= batch.rows() as i64;
                let read = batch.columns.clone();
                let ports = RowPorts::Each(&ports, &columns);
                self.take_rows(&batch, key, read, ports, now, out)?;
                Ok(())
            },
        );
        waiting.buffer.evict_excess();
        self.waiting = Some(waiting);
        passed.map_err(|error: KeyedError| self.failed(error))
    }

    /// Processes the next part of what the watermark has passed: rows, and behind them
    /// timers.
    fn take_passed(&mut self, out: &mut Outbox) -> Result<(), OperatorError> {
        self.is_taking = self.take_waiting(out)?;
        match self.is_taking {
            true => Ok(()),
            false => self.fire(out),
        }
    }

    /// Has rows taken; `key` is the columns of their keys.
    fn take_rows(
        &mut self,
        batch: &Batch,
        key: Vec<ArrayRef>,
        columns: Vec<ArrayRef>,
        ports: RowPorts<'_>,
        now: Reached,
        out: &mut Outbox,
    ) -> Result<(), OperatorError> {
        let mut ids = self
            .read_keys(key, batch.rows())
            .map_err(|error| self.failed(error))?;
        let mut first = 0;
        while first < batch.rows() {
            self.expire(ids[first], batch, first, now, out)?;
            let rows = self.before_expiry(&ids, batch, first, now);
            let part = first..first + rows;
            let rows_of_part = batch.slice(first, rows);
            let work = Work {
                ids: &ids[part.clone()],
                rows: Some(Rows {
                    batch: &rows_of_part,
                    columns: slice(&columns, &part),
                    ports: match ports {
                        RowPorts::One(port) => RowPorts::One(port),
                        RowPorts::Each(each, ranges) => RowPorts::Each(&each[part.clone()], ranges),
                    },
                }),
                least_ms: None,
                now,
            };
            self.take(&work, 0..rows, out)?;
            first += rows;
        }
        ids.sort_unstable();
        ids.dedup();
        self.states.note_batch(batch.rows(), ids.len());
        self.settle(ids, true).map_err(|error| self.failed(error))
    }

    /// The key of each row; their entries are in memory then.
    fn read_keys(&mut self, key: Vec<ArrayRef>, rows: usize) -> Result<Vec<u32>, StateError> {
        self.keys.read(key, rows, |_| false)?;
        self.keyed
            .read_back(&mut self.states, &self.keys, |_| true)?;
        let mut ids = Vec::with_capacity(rows);
        for run in 0..self.keys.runs() {
            let (id, _) = self.keyed.upsert_run(&self.keys, run);
            // Every key of a batch has an entry.
            self.keyed.entries.entry(id);
            ids.resize(self.keys.rows(run).end, id);
        }
        Ok(ids)
    }

    /// How many rows from the first on, at least one, come before a row whose key's state
    /// has expired by then.
    ///
    /// Whether it has expired depends on the row's time, or the watermark if that is
    /// later; not on where batches are cut.
    fn before_expiry(&mut self, ids: &[u32], batch: &Batch, first: usize, now: Reached) -> usize {
        for (row, &id) in ids.iter().enumerate().skip(first) {
            let time_ms = batch.times[row];
            if row > first && self.has_expired(id, time_ms, before_row(batch, row, now)) {
                return row - first;
            }
            let entry = self.keyed.entries.entry(id);
            entry.newest_ms = entry.newest_ms.max(time_ms);
        }
        ids.len() - first
    }

    fn has_expired(&self, id: u32, time_ms: i64, now: Reached) -> bool {
        let entries = &self.keyed.entries;
        entries.has_ttl() && entries.is_over(id, time_ms.max(now.time_ms))
    }

    /// Removes the state of a row's key if it has expired, and has no timers any more.
    fn expire(
        &mut self,
        id: u32,
        batch: &Batch,
        row: usize,
        now: Reached,
        out: &mut Outbox,
    ) -> Result<(), OperatorError> {
        let now = before_row(batch, row, now);
        if !self.has_expired(id, batch.times[row], now) {
            return Ok(());
        }
        if self.next_due(id, now).is_some() {
            let timers = Work {
                ids: &[id],
                rows: None,
                least_ms: None,
                now,
            };
            self.take(&timers, 0..1, out)?;
        }
        let entries = &mut self.keyed.entries;
        if entries.timers(id).is_none() {
            release(entries, &mut self.states, id);
        }
        Ok(())
    }

    /// Has the timers of these keys taken that are due.
    fn take_timers(
        &mut self,
        mut ids: Vec<u32>,
        now: Reached,
        out: &mut Outbox,
    ) -> Result<(), OperatorError> {
        let is_end = now.time_ms == END_OF_TIME;
        if is_end {
            // The rows of another run may come before states have expired.
            let entries = &self.keyed.entries;
            ids.retain(|&id| entries.timers(id).is_some());
        }
        for &id in &ids {
            self.keyed.touch(id);
            let entries = &mut self.keyed.entries;
            // Keys without timers are due because their states have expired.
            if entries.timers(id).is_none() {
                release(entries, &mut self.states, id);
            }
        }
        let entries = &self.keyed.entries;
        let with_timers = ids.iter().copied();
        let with_timers: Vec<u32> = with_timers
            .filter(|&id| entries.timers(id).is_some())
            .collect();
        let mut rest = with_timers.as_slice();
        while !rest.is_empty() {
            let room = self.states.room(CALL_BYTES_MAX).min(self.batch_rows);
            let (ids, others) = rest.split_at(room.min(rest.len()));
            rest = others;
            let work = Work {
                ids,
                rows: None,
                least_ms: None,
                now,
            };
            self.take(&work, 0..ids.len(), out)?;
        }
        // Nothing is due after the end.
        self.settle(ids, !is_end)
            .map_err(|error| self.failed(error))
    }

    /// Has a part of the work taken. Rows of keys whose states have outgrown the plugin's
    /// memory are taken one by one, so that no other row is in a call that fails.
    fn take(
        &mut self,
        work: &Work<'_>,
        mut part: Range<usize>,
        out: &mut Outbox,
    ) -> Result<(), OperatorError> {
        while self.states.has_outgrown()
            && let Some(at) = part.clone().find(|&at| self.has_outgrown(work.ids[at]))
        {
            self.take_together(work, part.start..at, out)?;
            self.take_one(work, at, out)?;
            part.start = at + 1;
        }
        self.take_together(work, part, out)
    }

    fn has_outgrown(&self, id: u32) -> bool {
        let slot = self.keyed.entries.slot(id);
        slot != NO_SLOT && self.states.outgrown(slot).is_some()
    }

    /// Has a part taken in one call, or in halves where it is too large for a call, or where
    /// the call fails, until it is a single row or timer.
    fn take_together(
        &mut self,
        work: &Work<'_>,
        part: Range<usize>,
        out: &mut Outbox,
    ) -> Result<(), OperatorError> {
        if part.len() > 1 && (self.is_too_large(work, &part) || !self.call(work, &part, out)?) {
            let middle = part.start + part.len() / 2;
            self.take(work, part.start..middle, out)?;
            return self.take(work, middle..part.end, out);
        }
        if part.len() == 1 {
            self.take_one(work, part.start, out)?;
        }
        Ok(())
    }

    fn is_too_large(&self, work: &Work<'_>, part: &Range<usize>) -> bool {
        let columns = work.rows.as_ref().map_or(&[][..], |rows| &rows.columns);
        // More than the rows take, but quickly known.
        let buffers = columns.iter().map(|column| column.get_buffer_memory_size());
        let rows = match buffers.sum::<usize>() > CALL_BYTES_MAX {
            true => bytes(columns, part),
            false => 0,
        };
        let slots = work.ids[part.clone()].iter();
        let mut slots: Vec<u32> = slots
            .map(|&id| self.keyed.entries.slot(id))
            .filter(|&slot| slot != NO_SLOT)
            .collect();
        // A call has the state of a key once.
        slots.sort_unstable();
        slots.dedup();
        let left = CALL_BYTES_MAX.saturating_sub(rows);
        left == 0 || self.states.fit(&slots, left) < slots.len()
    }

    /// Has a single row, or the timers of a single key, taken.
    fn take_one(
        &mut self,
        work: &Work<'_>,
        at: usize,
        out: &mut Outbox,
    ) -> Result<(), OperatorError> {
        let part = at..at + 1;
        let size = work.rows.as_ref().map(|rows| rows.size(at));
        let slot = self.keyed.entries.slot(work.ids[at]);
        if let (Some(rows), Some([port, bytes])) = (&work.rows, size)
            && self.next_due(work.ids[at], work.now_at(at)).is_none()
            && let Some(failure) = self
                .states
                .outgrown(slot)
                .and_then(|it| it.refusal(port, bytes))
        {
            let failure = failure.clone();
            return self.fail_on_row(rows.batch, at, &failure, out);
        }
        let Err(failure) = self.call_last(work, &part, Take::Whole, out)? else {
            return Ok(());
        };
        let now = work.now_at(at);
        self.take_timers_singly(work, at, now, i64::MIN, &failure, out)?;
        let Some(rows) = &work.rows else {
            return Ok(());
        };
        if let Err(mut failure) = self.call_last(work, &part, Take::RowsAlone, out)? {
            let slot = self.keyed.entries.slot(work.ids[at]);
            if let (Some(size), true) = (size, slot != NO_SLOT) {
                let state_bytes = self.states.bytes_of(slot);
                let outgrown = self.guard.outgrown(&mut failure, size, state_bytes);
                if let Some(outgrown) = outgrown {
                    self.states.note_outgrown(slot, &outgrown);
                }
            }
            return self.fail_on_row(rows.batch, at, &failure, out);
        }
        let row_ms = rows.batch.times[at];
        self.take_timers_singly(work, at, now, row_ms, &failure, out)
    }

    fn fail_on_row(
        &mut self,
        batch: &Batch,
        row: usize,
        failure: &Failure,
        out: &mut Outbox,
    ) -> Result<(), OperatorError> {
        let Some(requests) = &mut self.requests else {
            return self.guard.fail_on_row(batch, row, failure, out);
        };
        match requests.letter(batch, row) {
            Some(shown) => self.guard.fail_on_row(&shown, 0, failure, out),
            None => {
                self.guard.fail_again(out);
                Ok(())
            }
        }
    }

    /// Has the due timers of a key taken one by one. What they put out has at least this
    /// event time. `failure` is that of all together.
    fn take_timers_singly(
        &mut self,
        work: &Work<'_>,
        at: usize,
        now: Reached,
        mut least_ms: i64,
        failure: &Failure,
        out: &mut Outbox,
    ) -> Result<(), OperatorError> {
        let part = at..at + 1;
        let id = work.ids[at];
        let step_ms = self.step_time(work, at);
        let mut fired: Vec<(KeyTimer, bool)> = Vec::new();
        while let Some((timer, in_processing_time)) = self.next_due(id, now) {
            if in_processing_time {
                least_ms = least_ms.max(step_ms);
            }
            let single = Work {
                ids: work.ids,
                rows: None,
                least_ms: Some(least_ms),
                now,
            };
            if !in_processing_time {
                least_ms = least_ms.max(timer.time_ms);
            }
            let called = match fired.len() < TIMERS_MAX {
                true => self.call_last(&single, &part, Take::FirstTimer, out)?,
                // They are set again and again.
                false => Err(failure.clone()),
            };
            if let Err(failure) = &called {
                let subject = self.subject(id, &timer.name, timer.time_ms);
                self.guard.fail_on_timer(subject, failure, out)?;
            }
            let entries = &mut self.keyed.entries;
            if called.is_err() {
                entries.remove_timer(id, &timer.name, in_processing_time);
            }
            fired.push((timer, in_processing_time));
            // At the end of time, timers that are set again are gone.
            if now.time_ms == END_OF_TIME {
                for (timer, in_processing_time) in &fired {
                    entries.remove_timer(id, &timer.name, *in_processing_time);
                }
            }
        }
        Ok(())
    }

    /// The event time of a row; without one, that of what timers in processing time put
    /// out.
    fn step_time(&self, work: &Work<'_>, at: usize) -> i64 {
        if let Some(rows) = &work.rows {
            return rows.batch.times[at];
        }
        let newest_ms = self.keyed.entries.newest_ms(work.ids[at]);
        match work.now.time_ms {
            END_OF_TIME => newest_ms,
            watermark_ms => newest_ms.max(watermark_ms),
        }
    }

    /// The next timer of a key that is due, and whether it is in processing time.
    fn next_due(&self, id: u32, now: Reached) -> Option<(KeyTimer, bool)> {
        let timers = self.keyed.entries.timers(id)?;
        let due = |timers: &[KeyTimer], now_ms| {
            let first = timers.first().filter(|timer| timer.time_ms <= now_ms);
            first.cloned()
        };
        let event = due(&timers.event, now.time_ms);
        let processing = due(&timers.processing, now.processing_ms);
        match (event, processing) {
            (Some(event), Some(processing)) if processing.time_ms < event.time_ms => {
                Some((processing, true))
            }
            (Some(event), _) => Some((event, false)),
            (None, processing) => Some((processing?, true)),
        }
    }

    /// One call that can be divided further. Returns whether it has succeeded.
    fn call(
        &mut self,
        work: &Work<'_>,
        part: &Range<usize>,
        out: &mut Outbox,
    ) -> Result<bool, OperatorError> {
        let called = self.call_plugin(work, part, Take::Whole, false, out)?;
        match called {
            Ok(processed) => {
                self.apply(work, part, processed, out)?;
                Ok(true)
            }
            Err(_) => Ok(false),
        }
    }

    /// One call for a single row, or the timers of a single key.
    fn call_last(
        &mut self,
        work: &Work<'_>,
        part: &Range<usize>,
        take: Take,
        out: &mut Outbox,
    ) -> Result<Result<(), Failure>, OperatorError> {
        match self.call_plugin(work, part, take, true, out)? {
            Ok(processed) => self.apply(work, part, processed, out).map(Ok),
            Err(failure) => Ok(Err(failure)),
        }
    }

    fn call_plugin(
        &mut self,
        work: &Work<'_>,
        part: &Range<usize>,
        take: Take,
        is_last: bool,
        out: &mut Outbox,
    ) -> Result<Result<Processed, Failure>, OperatorError> {
        let ids = &work.ids[part.clone()];
        let entries = &self.keyed.entries;
        self.groups.number(ids, |id| entries.slot(id) != NO_SLOT);
        let groups = &self.groups;
        let code = |at| {
            let step = match (take, &work.rows) {
                (Take::Whole, Some(rows)) => Step::Row(rows.port(at)),
                (Take::RowsAlone, Some(rows)) => Step::RowAlone(rows.port(at)),
                (Take::FirstTimer, _) => Step::First,
                (Take::Whole | Take::RowsAlone, None) => Step::Due,
            };
            step.code(self.ports.len())
        };
        let time = |at| work.least_ms.unwrap_or_else(|| self.step_time(work, at));
        let steps = Steps {
            inputs: part.clone().map(code).collect(),
            groups: groups.of_step.clone(),
            times: part.clone().map(time).collect(),
            watermarks: part.clone().map(|at| work.now_at(at).time_ms).collect(),
            taken_back: match &work.rows {
                Some(rows) => taken_back(rows.batch, part),
                None => Vec::new(),
            },
            now_ms: work.now.processing_ms,
        };
        let slots = groups.ids[..groups.stateful].iter();
        let slots: Vec<u32> = slots.map(|&id| entries.slot(id)).collect();
        let (event_timers, processing_timers) = timers_of(&groups.ids, entries);
        let states = self.states.gather(&slots);
        let states = states.map_err(|error| self.failed(error))?;
        let keys = self.keys_of(&groups.ids);
        let keys = keys.map_err(|error| self.failed(error))?;
        let of_ports: Vec<(usize, Vec<ArrayRef>)> = (0..self.ports.len())
            .map(|port| match &work.rows {
                Some(rows) => rows.input(port, part),
                None => (0, Vec::new()),
            })
            .collect();
        let ports = of_ports.iter().zip(&self.no_rows);
        let inputs: Vec<Columns<'_>> = ports
            .map(|((rows, columns), no_rows)| Columns {
                rows: *rows,
                columns: if *rows == 0 { no_rows } else { columns },
            })
            .collect();
        let keyed = Keyed {
            groups: groups.ids.len(),
            keys: Columns {
                rows: groups.ids.len(),
                columns: &keys,
            },
            states: Columns {
                rows: groups.stateful,
                columns: &states,
            },
            event_timers: &event_timers,
            processing_timers: &processing_timers,
        };
        self.guard.process(is_last, &inputs, &steps, keyed, out)
    }

    /// What the operator reads of these keys.
    fn keys_of(&self, ids: &[u32]) -> Result<Vec<ArrayRef>, StateError> {
        if self.key_read.is_empty() {
            return Ok(Vec::new());
        }
        let keys = self.keyed.keys();
        let columns = keys.columns(&self.table.layout, Selection::Each(ids))?;
        let read = self.key_read.iter().map(|&column| columns[column].clone());
        Ok(read.collect())
    }

    /// Stores the states and timers that a call has returned, and puts out its rows.
    fn apply(
        &mut self,
        work: &Work<'_>,
        part: &Range<usize>,
        processed: Processed,
        out: &mut Outbox,
    ) -> Result<(), OperatorError> {
        self.store(&processed).map_err(|error| self.failed(error))?;
        let ids = &work.ids[part.clone()];
        for timer in &processed.rejected_timers {
            let subject = self.subject(ids[timer.step as usize], &timer.name, timer.time_ms);
            self.guard.reject_timer(subject, &timer.reason, out)?;
        }
        if let Some(rows) = &work.rows {
            self.guard
                .reject_rows(rows.batch, part.start, &processed.rejects, out)?;
            out.counts.taken += (part.len() - processed.rejects.len()) as u64;
        }
        for (port, output) in processed.outputs.into_iter().enumerate() {
            let parents = output.rows.parents;
            if parents.is_empty() {
                continue;
            }
            out.counts.made += parents.len() as u64;
            let origin = work.rows.as_ref().and_then(|rows| {
                let first = part.start as u32;
                let parents: Vec<u32> = parents.iter().map(|parent| parent + first).collect();
                rows.batch.origin_of(&parents)
            });
            let batch = Batch {
                schema: self.outputs[port].clone(),
                columns: output.rows.columns,
                times: output.times.into(),
                origin,
                watermarks: None,
                taken_back: None,
            };
            out.put_in_parts(port, batch, self.batch_rows);
        }
        Ok(())
    }

    fn store(&mut self, processed: &Processed) -> Result<(), StateError> {
        let ProcessOperator {
            keyed,
            states,
            groups,
            ..
        } = self;
        let entries = &mut keyed.entries;
        let mut slots = Vec::with_capacity(processed.groups.len());
        let mut stateful = processed.groups.iter().copied().peekable();
        let mut timers: Vec<KeyTimers> = Vec::new();
        timers.resize_with(groups.ids.len(), KeyTimers::default);
        let timer = |time_ms, name: &str| KeyTimer {
            time_ms,
            name: name.into(),
        };
        for (group, time_ms, name) in processed.event_timers.each() {
            timers[group as usize].event.push(timer(time_ms, name));
        }
        for (group, time_ms, name) in processed.processing_timers.each() {
            timers[group as usize].processing.push(timer(time_ms, name));
        }
        for ((group, &id), timers) in (0..).zip(&groups.ids).zip(timers) {
            let slot = entries.slot(id);
            match (stateful.next_if_eq(&group).is_some(), slot != NO_SLOT) {
                (true, true) => slots.push(slot),
                (true, false) => {
                    let slot = states.allocate();
                    entries.entry(id).slot = slot;
                    slots.push(slot);
                }
                (false, true) => release(entries, states, id),
                (false, false) => {}
            }
            entries.set_timers(id, timers);
        }
        Ok(states.scatter(&slots, &processed.states)?)
    }

    /// After keys were taken: notes when they are due, removes those of which nothing is
    /// kept, and evicts others where states take too much memory.
    fn settle(&mut self, mut ids: Vec<u32>, arms: bool) -> Result<(), StateError> {
        ids.sort_unstable();
        ids.dedup();
        let entries = &mut self.keyed.entries;
        ids.retain(|&id| {
            let is_empty = entries.is_empty(id);
            if !is_empty && arms {
                entries.arm(id);
            }
            is_empty
        });
        self.keyed.remove(&ids)?;
        for id in ids {
            self.keyed.entries.evict(id, &mut self.states);
        }
        self.upkeep.evict_excess(&mut self.states, &mut self.keyed);
        Ok(())
    }

    /// A timer and its key as JSON, for its dead letter.
    fn subject(&self, id: u32, name: &str, time_ms: i64) -> String {
        let keys = self.keyed.keys();
        let columns = keys.columns(&self.table.layout, Selection::Each(&[id]));
        let mut columns = match columns {
            Ok(columns) => columns,
            Err(error) => return format!("(its key cannot be read: {error})"),
        };
        columns.push(Arc::new(StringArray::from(vec![name])));
        columns.push(timestamps(vec![time_ms]));
        let timer = [
            Field::new("timer", DataType::Utf8, false),
            Field::new("time", DataType::Timestamp, false),
        ];
        let key = self.key_schema.fields.iter().cloned();
        let batch = Batch {
            schema: Arc::new(Schema::new(key.chain(timer).collect())),
            columns,
            times: vec![time_ms].into(),
            origin: None,
            watermarks: None,
            taken_back: None,
        };
        render_row(&batch, 0)
    }

    /// Has the timers taken that are due of keys in memory, and begins with the others.
    fn fire(&mut self, out: &mut Outbox) -> Result<(), OperatorError> {
        let now = self.now();
        let due = self.keyed.entries.take_due(now.time_ms, now.processing_ms);
        self.take_timers(due, now, out)?;
        if self.sweep.is_none() {
            self.begin_sweep(now);
        }
        Ok(())
    }

    fn begin_sweep(&mut self, now: Reached) {
        let scan = self.keyed.sweep(now);
        self.sweep = scan.map(|scan| Sweep { scan, began: now });
    }

    /// Reads the next evicted keys back that are due; `None` where the sweep has ended.
    fn next_evicted(&mut self, now: Reached) -> Result<Option<Vec<u32>>, StateError> {
        let Some(Sweep { scan, began }) = &mut self.sweep else {
            return Ok(None);
        };
        let Some(rows) = self.keyed.next_due_or_soon(scan, now)? else {
            let has_time_passed = now.time_ms > began.time_ms;
            self.sweep = None;
            // Keys that it has passed may be due by now.
            if has_time_passed {
                self.begin_sweep(now);
            }
            return Ok(None);
        };
        self.keyed.insert(&mut self.states, &rows)?;
        Ok(Some(
            self.keyed.entries.take_due(now.time_ms, now.processing_ms),
        ))
    }
}

/// Removes a key's state.
fn release(entries: &mut ProcessEntries, states: &mut StateTable, id: u32) {
    let slot = std::mem::replace(&mut entries.entry(id).slot, NO_SLOT);
    if slot != NO_SLOT {
        states.release(slot);
    }
}

/// The timers of these keys, in event time and in processing time.
fn timers_of(ids: &[u32], entries: &ProcessEntries) -> (GroupTimers, GroupTimers) {
    let mut of_groups = (GroupTimers::default(), GroupTimers::default());
    for (group, &id) in (0..).zip(ids) {
        let Some(timers) = entries.timers(id) else {
            continue;
        };
        for timer in &timers.event {
            of_groups.0.push(group, timer.time_ms, &timer.name);
        }
        for timer in &timers.processing {
            of_groups.1.push(group, timer.time_ms, &timer.name);
        }
    }
    of_groups
}

impl Operator for ProcessOperator {
    fn rows(&mut self, inlet: Inlet, batch: Batch, out: &mut Outbox) -> Result<(), OperatorError> {
        self.newest_ms = self.newest_ms.max(batch.newest_ms());
        let mut first = 0;
        while first < batch.rows() {
            let room = self.states.room_for_rows(CALL_BYTES_MAX);
            let rows = room.min(batch.rows() - first);
            let part = batch.slice(first, rows);
            match self.waiting {
                Some(_) => self.wait(inlet, &part, out)?,
                None => self.take_arrived(inlet, &part, out)?,
            }
            first += rows;
        }
        Ok(())
    }

    fn watermark(&mut self, watermark_ms: i64, out: &mut Outbox) -> Result<(), OperatorError> {
        if watermark_ms > self.watermark_ms || std::mem::take(&mut self.is_restored) {
            self.watermark_ms = watermark_ms.max(self.watermark_ms);
            self.take_passed(out)?;
        }
        Ok(())
    }

    fn has_more(&self) -> bool {
        self.is_taking || self.sweep.is_some()
    }

    fn go_on(&mut self, out: &mut Outbox) -> Result<(), OperatorError> {
        if self.is_taking {
            return self.take_passed(out);
        }
        let now = self.now();
        let next = self.next_evicted(now);
        match next.map_err(|error| self.failed(error))? {
            Some(ids) => self.take_timers(ids, now, out),
            None => Ok(()),
        }
    }

    fn snapshot(&mut self) -> Result<Option<OperatorSnapshot>, OperatorError> {
        let mut changes = Changes::default();
        self.keyed
            .snapshot(&self.states, &mut changes)
            .map_err(|error| self.failed(error))?;
        if let Some(waiting) = &mut self.waiting {
            let kept = waiting.buffer.snapshot(&mut changes);
            kept.map_err(|error| self.failed(error))?;
        }
        self.upkeep.count(&mut changes);
        Ok(Some(OperatorSnapshot {
            time_ms: Some(self.watermark_ms).filter(|&time_ms| time_ms > i64::MIN),
            newest_ms: self.newest_ms,
            ended_ms: None,
            changes,
        }))
    }

    fn replace(&mut self, factory: Arc<dyn Factory>) -> Result<(), OperatorError> {
        self.states.forget_outgrown();
        self.guard.replace(factory)
    }

    fn look(&mut self, look: &Look, seen: &mut Seen) -> Result<(), StateError> {
        match (look.table, &self.waiting) {
            (0, _) => self.keyed.look(&self.states, look, seen),
            (_, Some(waiting)) => waiting.buffer.look(look, seen),
            (_, None) => Ok(()),
        }
    }

    fn is_full(&self) -> bool {
        let waiting = self.waiting.as_ref();
        self.upkeep.is_full() || waiting.is_some_and(|waiting| waiting.buffer.upkeep().is_full())
    }

    fn wake_at(&self) -> Option<i64> {
        if self.is_taking {
            return None;
        }
        let in_memory = self.keyed.entries.next_processing_ms();
        // A sweep in progress finds those that are due.
        let evicted = match self.sweep {
            Some(_) => None,
            None => self.keyed.first_processing_due_ms(),
        };
        in_memory.into_iter().chain(evicted).min()
    }

    fn wake(&mut self, _now_ms: i64, out: &mut Outbox) -> Result<(), OperatorError> {
        self.fire(out)
    }
}
