//! Calls a plugin, and isolates the rows that it fails on: takes a new instance, halves
//! the batch until it has found the row, and applies the node's `on_error` to it.
//!
//! A plugin keeps nothing between calls, so a failed call has no effect and can be
//! repeated in parts. The parts of a batch have the same results as the whole.

/// Calls into an aggregate.
mod aggregate;
/// Calls into a process.
mod process;
/// Calls into a filter or transform.
mod transform;

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_array::{Array, ArrayRef};
use arrow_select::concat::concat;

use super::{Counts, OperatorError, Outbox};
use crate::batch::{Batch, bytes};
use crate::blame::Fault;
use crate::dead_letter::{self, OnError};
use crate::logic::{
    Aggregate, Callee, Factory, Failure, FailureKind, Instance, Process, Reject, Rows, Transform,
};
use crate::plan::OperatorPlan;
use crate::quantity::ShownBytes;
use crate::state::table::{Outgrown, OutgrownRow};
use crate::stop::Stop;

pub use aggregate::{Folded, OutgrownGroups};

/// Calls a filter or transform, and applies the node's `on_error`.
pub type TransformGuard = Guard<dyn Transform>;
/// Calls an aggregate, and applies the node's `on_error`.
pub type AggregateGuard = Guard<dyn Aggregate>;

/// Calls a process, and applies the node's `on_error`.
pub type ProcessGuard = Guard<dyn Process>;

/// A call gets at most about this many bytes of rows and states, but at least a
/// row: what a plugin may use is limited, and it has its input several times.
pub const CALL_BYTES_MAX: usize = 4 << 20;

/// How long a plugin may fail on rows after the run was asked to stop, or to give way. The rows
/// that are on their way are few, unless each of them fails slowly.
const STOP_FAILING_MAX: Duration = Duration::from_secs(3);

/// An instance of one kind of operator, with the node's `on_error`. Counts and dead
/// letters go to the outbox. An `Err` ends the run: `on_error = "fail"`, or the plugin
/// cannot be opened any more.
pub struct Guard<L: Callee + ?Sized> {
    node: Arc<str>,
    /// `plugin.operator`, of a plugin's operator.
    plugin: Option<Arc<str>>,
    factory: Arc<dyn Factory>,
    on_error: OnError,
    as_kind: fn(Instance) -> Result<Box<L>, Failure>,
    stop: Stop,
    /// When a call failed for the first time after the run was asked to stop, or to give way.
    failing_since: Option<Instant>,
    /// Whether it was told that the state of a key has outgrown the plugin's memory.
    is_outgrown_told: bool,
    /// Whether it was told that a call has failed.
    is_failed_call_told: bool,
    /// Absent before the first call and after a failure.
    instance: Option<Box<L>>,
}

/// What the plugin failed on, for the dead letter.
enum Subject<'a> {
    Row(&'a Batch, u32),
    /// A state: its key and window as JSON, and the state if its rows are in no result.
    State(String, Option<String>),
}

impl<L: Callee + ?Sized> Guard<L> {
    /// Opens the first instance, so that a plugin that refuses its parameters fails
    /// here and not at the first row.
    fn open(
        node: &str,
        plan: &OperatorPlan,
        as_kind: fn(Instance) -> Result<Box<L>, Failure>,
        stop: &Stop,
    ) -> Result<Self, OperatorError> {
        let mut guard = Guard {
            node: node.into(),
            plugin: plan.is_plugins().then(|| plan.name.as_str().into()),
            factory: plan.factory.clone(),
            on_error: plan.on_error,
            as_kind,
            stop: stop.clone(),
            failing_since: None,
            is_outgrown_told: false,
            is_failed_call_told: false,
            instance: None,
        };
        guard.instance()?;
        Ok(guard)
    }

    /// Calls other logic from now on, whose instance is opened here.
    pub fn replace(&mut self, factory: Arc<dyn Factory>) -> Result<(), OperatorError> {
        self.factory = factory;
        self.is_failed_call_told = false;
        self.instance = None;
        self.instance().map(drop)
    }

    /// Calls with the next part, in halves while the call fails, and returns the first
    /// part with an answer, or a single row (or group) that the operator fails on.
    /// `None` when no part is left.
    fn next_part<T>(
        &mut self,
        rest: &mut Parts,
        counts: &mut Counts,
        call: impl Fn(&mut L, &Range<usize>) -> Result<T, Failure>,
    ) -> Result<Option<CalledPart<T>>, OperatorError> {
        while let Some(rows) = rest.0.pop() {
            let is_last = rows.len() <= 1;
            match self.call(is_last, counts, |logic| call(logic, &rows))? {
                Err(_) if !is_last => rest.0.extend(halves(&rows)),
                done => return Ok(Some((rows, done))),
            }
        }
        Ok(None)
    }

    /// One call, on a new instance if the last one has failed. `last` says that the
    /// input cannot be halved further: then `on_error`'s retries are made.
    fn call<T>(
        &mut self,
        last: bool,
        counts: &mut Counts,
        mut call: impl FnMut(&mut L) -> Result<T, Failure>,
    ) -> Result<Result<T, Failure>, OperatorError> {
        let mut attempts_left = match self.on_error {
            OnError::Retry(more) if last => more,
            _ => 0,
        };
        loop {
            let is_used = self.instance.is_some();
            match call(self.instance()?) {
                Ok(answer) => return Ok(Ok(answer)),
                Err(failure) => {
                    let failed = self.instance.take();
                    self.check_stop(&failure)?;
                    self.count_failed(&failure, counts);
                    // What other calls have left of its memory must not decide.
                    if last && is_used && failure.kind == FailureKind::Memory {
                        continue;
                    }
                    if attempts_left == 0 {
                        // A call that is repeated in parts logs the same again.
                        if let Some(mut failed) = failed.filter(|_| last) {
                            failed.log_failed();
                        }
                        return Ok(Err(failure));
                    }
                    attempts_left -= 1;
                }
            }
        }
    }

    /// Counts a call that no limit has ended, and tells of the first one: the rows of a
    /// plugin that fails once in a while have answers when their call is repeated.
    fn count_failed(&mut self, failure: &Failure, counts: &mut Counts) {
        if !matches!(failure.kind, FailureKind::Trap | FailureKind::Contract) {
            return;
        }
        counts.failed_calls += 1;
        if !std::mem::replace(&mut self.is_failed_call_told, true) {
            tracing::warn!(
                operator = %self.node,
                "a call has failed, and is repeated by a new instance, in parts until it is known \
                 which row is to blame: the plugin {failure}; more of them are only counted"
            );
        }
    }

    /// Gives up a run that was asked to stop, or to give way to a change, and that its plugin
    /// holds up: by a call that does not end, or by failing on row after row, each of which
    /// takes calls of its own. Its rows have no result, so that no checkpoint may follow.
    fn check_stop(&mut self, failure: &Failure) -> Result<(), OperatorError> {
        if self.stop.is_given_up() {
            return Err(self.fatal("the run is given up".to_owned(), Fault::SLOW_PLUGIN));
        }
        let is_asked = self.stop.asked();
        // Nothing else ends a call like that: no row is to blame.
        let is_ended = failure.kind == FailureKind::Stopped;
        if !is_asked && !is_ended && !self.stop.is_hurried() {
            self.failing_since = None;
            return Ok(());
        }
        let failing_since = *self.failing_since.get_or_insert_with(Instant::now);
        let (what, fault) = match failure.kind {
            FailureKind::Stopped | FailureKind::Deadline if is_asked || is_ended => {
                ("did not answer soon".to_owned(), Fault::SLOW_PLUGIN)
            }
            _ if failing_since.elapsed() > STOP_FAILING_MAX => (
                format!("fails on row after row ({failure})"),
                failure.fault(),
            ),
            _ => return Ok(()),
        };
        let asked = match is_asked {
            true => "was asked to stop",
            false => "has to give way to a change",
        };
        let message = format!(
            "the run {asked}, and its plugin {what}: the next run goes on from the last \
             checkpoint, or from the beginning if the pipeline makes none"
        );
        Err(self.fatal(message, fault))
    }

    fn instance(&mut self) -> Result<&mut L, OperatorError> {
        if self.instance.is_none() {
            let opened = self.factory.instance().and_then(self.as_kind);
            let mut opened = opened.map_err(|failure| {
                let message = format!("its plugin could not be opened: {failure}");
                self.fatal(message, failure.fault())
            })?;
            opened.obey(&self.stop);
            self.instance = Some(opened);
        }
        match &mut self.instance {
            Some(instance) => Ok(instance.as_mut()),
            None => unreachable!("it was just opened"),
        }
    }

    /// Counts rejected rows, and applies `on_error` to them.
    fn handle_rejects(
        &self,
        batch: &Batch,
        first_row: usize,
        rejects: &[Reject],
        out: &mut Outbox,
    ) -> Result<(), OperatorError> {
        for reject in rejects {
            out.counts.rejected += 1;
            out.counts.lost += 1;
            let row = first_row as u32 + reject.row;
            self.apply_on_error(
                &Subject::Row(batch, row),
                "reject",
                &reject.reason,
                None,
                Fault::ROW,
                out,
            )?;
        }
        Ok(())
    }

    /// What is known of the state of a row's key by a call with both that has failed, if it
    /// has outgrown the plugin's memory, and not the row; the failure then says so.
    pub fn outgrown(
        &mut self,
        failure: &mut Failure,
        [port, row_bytes]: [usize; 2],
        state_bytes: usize,
    ) -> Option<Outgrown> {
        if failure.kind != FailureKind::Memory || state_bytes < row_bytes {
            return None;
        }
        failure.message += &format!(
            ", which the state of the row's key, of {}, has outgrown: raise it, or have the \
             plugin keep less of a key",
            ShownBytes(state_bytes)
        );
        if !std::mem::replace(&mut self.is_outgrown_told, true) {
            tracing::warn!(
                operator = %self.node,
                "the plugin {failure}; rows of such keys are lost, as `on_error` says, until then"
            );
        }
        Some(Outgrown(Some(OutgrownRow {
            port,
            bytes: row_bytes,
            failure: failure.clone(),
        })))
    }

    /// Counts a row (or state) that the plugin fails on, and applies `on_error` to it.
    fn handle_failure(
        &self,
        subject: &Subject<'_>,
        failure: &Failure,
        out: &mut Outbox,
    ) -> Result<(), OperatorError> {
        out.counts.failed += 1;
        out.counts.lost += u64::from(matches!(subject, Subject::Row(..)));
        let panic = failure.panic.as_deref();
        self.apply_on_error(
            subject,
            kind_name(failure.kind),
            &failure.message,
            panic,
            failure.fault(),
            out,
        )
    }

    fn apply_on_error(
        &self,
        subject: &Subject<'_>,
        kind: &str,
        error: &str,
        panic: Option<&str>,
        fault: Fault,
        out: &mut Outbox,
    ) -> Result<(), OperatorError> {
        let mut dead_letter = match subject {
            Subject::Row(batch, row) => dead_letter::of_row(batch, *row as usize),
            Subject::State(rendered, state) => dead_letter::of_state(rendered, state.as_deref()),
        };
        dead_letter.node = self.node.to_string();
        dead_letter.plugin = self.plugin.as_deref().map(str::to_owned);
        let digest = || self.factory.digest().to_owned();
        dead_letter.plugin_digest = self.plugin.as_ref().map(|_| digest());
        dead_letter.kind = kind.to_owned();
        dead_letter.error = error.to_owned();
        dead_letter.panic = panic.map(str::to_owned);
        match self.on_error {
            OnError::Fail => Err(self.fatal(dead_letter::sentence(&dead_letter), fault)),
            OnError::Skip => {
                tracing::warn!(operator = %self.node, "skipped: {}", dead_letter::sentence(&dead_letter));
                Ok(())
            }
            OnError::DeadLetter | OnError::Retry(_) => {
                out.put_dead_letter(dead_letter);
                Ok(())
            }
        }
    }

    /// Joins the outputs of parts, each with its first row.
    pub fn join_rows(&self, mut parts: Vec<(usize, Rows)>) -> Result<Rows, OperatorError> {
        if parts.is_empty() {
            return Ok(Rows {
                parents: Vec::new(),
                columns: self.factory.info().outputs[0].schema.no_rows(),
            });
        }
        if parts.len() == 1 && parts[0].0 == 0 {
            return Ok(parts.remove(0).1);
        }
        let mut parents = Vec::new();
        let mut columns = Vec::new();
        for (first, part) in parts {
            parents.extend(part.parents.iter().map(|parent| parent + first as u32));
            columns.push(part.columns);
        }
        Ok(Rows {
            parents,
            columns: self.join_columns(columns)?,
        })
    }

    fn join_columns(&self, mut parts: Vec<Vec<ArrayRef>>) -> Result<Vec<ArrayRef>, OperatorError> {
        if parts.len() == 1 {
            return Ok(parts.remove(0));
        }
        let count = parts.first().map_or(0, Vec::len);
        (0..count)
            .map(|column| {
                let arrays: Vec<&dyn Array> =
                    parts.iter().map(|part| part[column].as_ref()).collect();
                concat(&arrays).map_err(|error| self.fatal(error.to_string(), Fault::FATAL_ROW))
            })
            .collect()
    }

    fn fatal(&self, message: String, fault: Fault) -> OperatorError {
        OperatorError {
            node: self.node.to_string(),
            message,
            fault,
        }
    }
}

/// A part of a batch, and the answer or failure of its call.
type CalledPart<T> = (Range<usize>, Result<T, Failure>);

/// The parts of a batch that are still to be called, the next one on top.
struct Parts(Vec<Range<usize>>);

impl Parts {
    /// All rows (or groups) in one part.
    fn whole(rows: usize) -> Self {
        Parts(vec![Range {
            start: 0,
            end: rows,
        }])
    }

    /// Has the rows that `is_alone` says, if the next part has some, be parts of their own.
    fn set_apart(&mut self, is_alone: impl Fn(usize) -> bool) {
        let Some(next) = self.0.pop() else {
            return;
        };
        match next.clone().find(|&row| is_alone(row)) {
            Some(row) if next.len() > 1 => {
                let parts = [row + 1..next.end, row..row + 1, next.start..row];
                self.0
                    .extend(parts.into_iter().filter(|part| !part.is_empty()));
            }
            _ => self.0.push(next),
        }
    }

    /// All rows, in parts that a call may get.
    fn of(columns: &[ArrayRef], rows: usize) -> Self {
        let whole = Parts::whole(rows);
        // More than the rows take, but quickly known.
        let buffers = columns.iter().map(|column| column.get_buffer_memory_size());
        if buffers.sum::<usize>() <= CALL_BYTES_MAX {
            return whole;
        }
        let mut parts = Vec::new();
        let mut rest = whole.0;
        while let Some(part) = rest.pop() {
            match part.len() > 1 && bytes(columns, &part) > CALL_BYTES_MAX {
                true => rest.extend(halves(&part)),
                false => parts.push(part),
            }
        }
        parts.reverse();
        Parts(parts)
    }
}

/// Rows that calls return, until they are a piece that is handed on, so that results do
/// not add up.
#[derive(Default)]
struct Pieces {
    /// Their parents count from these rows (or groups).
    parts: Vec<(usize, Rows)>,
    bytes: usize,
}

impl Pieces {
    /// Adds rows, and returns the parts of a piece that is large enough.
    fn add(&mut self, first: usize, rows: Rows) -> Option<Vec<(usize, Rows)>> {
        self.bytes += bytes(&rows.columns, &(0..rows.parents.len()));
        self.parts.push((first, rows));
        if self.bytes <= CALL_BYTES_MAX {
            return None;
        }
        self.bytes = 0;
        Some(std::mem::take(&mut self.parts))
    }

    /// The parts of the last piece.
    fn rest(self) -> Option<Vec<(usize, Rows)>> {
        Some(self.parts).filter(|parts| !parts.is_empty())
    }
}

/// Two halves in the order of a stack: the first half on top.
fn halves(range: &Range<usize>) -> [Range<usize>; 2] {
    let middle = range.start + range.len() / 2;
    [middle..range.end, range.start..middle]
}

/// Which of these rows take others back, counted from the first.
pub fn taken_back(batch: &Batch, part: &Range<usize>) -> Vec<u32> {
    let Some(taken_back) = &batch.taken_back else {
        return Vec::new();
    };
    let of_part = taken_back.slice(part.start, part.len());
    of_part.set_indices().map(|row| row as u32).collect()
}

/// These rows of each column, uncopied.
pub fn slice(columns: &[ArrayRef], rows: &Range<usize>) -> Vec<ArrayRef> {
    columns
        .iter()
        .map(|column| column.slice(rows.start, rows.len()))
        .collect()
}

fn kind_name(kind: FailureKind) -> &'static str {
    match kind {
        FailureKind::Trap => "trap",
        FailureKind::Deadline | FailureKind::Stopped => "deadline",
        FailureKind::Memory => "memory",
        FailureKind::OutputSize => "output_size",
        FailureKind::Contract => "contract",
        FailureKind::Open => "open",
        FailureKind::Overflow => "overflow",
    }
}

#[cfg(test)]
mod tests;
