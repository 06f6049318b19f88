//! Tests every kind of window against its definition, at several batch sizes, and
//! single behaviours.

/// Single behaviours.
mod cases;
/// Runs that go on after their inputs had ended.
mod ends;
/// Early results of states that are not in memory.
mod evicted;
/// The tests' plugin.
mod ledger;
/// Compares every kind of window with a model.
mod model;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, TimestampMillisecondType};
use arrow_array::{Array, ArrayRef, Int64Array, StringArray};

use super::AggregateOperator;
use crate::batch::Batch;
use crate::clock::ManualClock;
use crate::dead_letter::{DeadLetter, OnError, OnMigrationError};
use crate::element::{END_OF_TIME, Inlet};
use crate::logic::Limits;
use crate::operator::{Counts, Operator, OperatorError, Outbox};
use crate::plan::{
    AggregatePlan, Alignment, Bounds, Emit, LATE_OUTPUT, MAIN_OUTPUT, OperatorPlan, TimeDomain,
    Window,
};
use crate::schema::{DataType, Field, Schema};
use crate::state::stored::StoredTable;
use crate::stop::Stop;
use ledger::Ledger;

/// A row of the tests' input. `word` tells [`Ledger`] what to do.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    pub user: Option<String>,
    pub shop: i64,
    pub time: i64,
    pub amount: i64,
    pub word: String,
}

pub(super) fn row(user: &str, time: i64, word: &str) -> Row {
    Row {
        user: (user != "-").then(|| user.to_owned()),
        shop: 1,
        time,
        amount: time % 10,
        word: word.to_owned(),
    }
}

/// The output for changes of results, behind that for late rows.
const CHANGES_OUTPUT: usize = 2;

/// An operator and all its output so far.
pub(super) struct Bench {
    operator: AggregateOperator,
    clock: Arc<ManualClock>,
    key: Key,
    calls: Arc<Mutex<ledger::Calls>>,
    /// Results as text: `key [start, end) count sum least most words`.
    lines: Vec<String>,
    late: Vec<String>,
    /// How often each result stands, by what was told of changes.
    told: BTreeMap<String, i64>,
    dead_letters: Vec<DeadLetter>,
    counts: Counts,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    None,
    User,
    Shop,
    UserAndShop,
}

/// What differs between tests.
#[derive(Clone, Debug)]
pub(super) struct Setup {
    pub window: Window,
    pub key: Key,
    pub allowed_lateness_ms: i64,
    pub emit: Emit,
    pub early_every_ms: Option<u64>,
    pub discards: bool,
    pub ttl_ms: Option<i64>,
    pub timing: bool,
    pub on_error: OnError,
    pub bounds: bool,
    pub batch_rows: usize,
}

impl Setup {
    pub fn new(window: Window) -> Self {
        Setup {
            window,
            key: Key::User,
            allowed_lateness_ms: 0,
            emit: Emit::Change,
            early_every_ms: None,
            discards: false,
            ttl_ms: None,
            timing: false,
            on_error: OnError::DeadLetter,
            bounds: true,
            batch_rows: 4096,
        }
    }

    pub fn lateness(self, allowed_lateness_ms: i64) -> Self {
        Setup {
            allowed_lateness_ms,
            ..self
        }
    }

    pub fn final_only(self) -> Self {
        Setup {
            emit: Emit::Final,
            ..self
        }
    }

    pub fn timing(self) -> Self {
        Setup {
            timing: true,
            ..self
        }
    }

    pub fn offset(mut self, by_ms: i64) -> Self {
        if let Window::Sliding { alignment, .. } | Window::Cumulate { alignment, .. } =
            &mut self.window
        {
            alignment.offset_ms = by_ms;
        }
        self
    }

    pub fn key(self, key: Key) -> Self {
        Setup { key, ..self }
    }

    pub fn early(self, every_ms: u64) -> Self {
        Setup {
            early_every_ms: Some(every_ms),
            ..self
        }
    }

    pub fn discarding(self) -> Self {
        Setup {
            discards: true,
            ..self
        }
    }

    pub fn on_error(self, on_error: OnError) -> Self {
        Setup { on_error, ..self }
    }

    /// A running aggregate has no window.
    fn has_bounds(&self) -> bool {
        self.bounds && self.window != Window::Running
    }

    /// Whether the planner lets something read the changes of results.
    pub fn tells_changes(&self) -> bool {
        let is_session = matches!(self.window, Window::Session { .. });
        let is_early = self.early_every_ms.is_some() && self.window != Window::Running;
        !is_session && !is_early && !self.discards
    }

    pub fn bench(&self) -> Bench {
        self.try_bench().expect("the test's plan is right")
    }

    pub fn try_bench(&self) -> Result<Bench, OperatorError> {
        self.bench_with(Vec::new())
    }

    /// With tables in a storage.
    pub fn bench_with(&self, stored: Vec<StoredTable>) -> Result<Bench, OperatorError> {
        let ledger = Ledger::default();
        let calls = ledger.calls.clone();
        let clock = Arc::new(ManualClock::default());
        let key = self.key.columns();
        let fields = input_schema().fields;
        let plan = AggregatePlan {
            operator: OperatorPlan {
                name: "native.ledger".to_owned(),
                arguments: Vec::new(),
                limits: Some(Limits::default()),
                factory: Arc::new(ledger),
                earlier: Vec::new(),
                on_error: self.on_error,
                on_migration_error: OnMigrationError::default(),
            },
            columns: vec![vec![2, 3]],
            key_schema: Arc::new(Schema::new(
                key.iter().map(|&i| fields[i].clone()).collect(),
            )),
            key: vec![key],
            key_read: Vec::new(),
            window: self.window,
            allowed_lateness_ms: self.allowed_lateness_ms,
            emit: self.emit,
            early_every_ms: self.early_every_ms,
            discards: self.discards,
            ttl_ms: self.ttl_ms,
            bounds: self.has_bounds().then(|| Bounds {
                start: "start".to_owned(),
                end: "end".to_owned(),
            }),
            timing: self.timing.then(|| "timing".to_owned()),
            late_wanted: true,
            changes_output: self.tells_changes().then_some(CHANGES_OUTPUT),
            passes_rows: false,
            follows_order: false,
        };
        Ok(Bench {
            operator: AggregateOperator::new(
                "sums",
                &plan,
                self.batch_rows,
                clock.clone(),
                stored,
                &Stop::default(),
            )?,
            clock,
            key: self.key,
            calls,
            lines: Vec::new(),
            late: Vec::new(),
            told: BTreeMap::new(),
            dead_letters: Vec::new(),
            counts: Counts::default(),
        })
    }
}

impl Key {
    fn columns(self) -> Vec<usize> {
        match self {
            Key::None => vec![],
            Key::User => vec![0],
            Key::Shop => vec![1],
            Key::UserAndShop => vec![0, 1],
        }
    }

    pub fn of(self, row: &Row) -> String {
        let user = row.user.as_deref().unwrap_or("-");
        match self {
            Key::None => String::new(),
            Key::User => user.to_owned(),
            Key::Shop => row.shop.to_string(),
            Key::UserAndShop => format!("{user} {}", row.shop),
        }
    }
}

impl Bench {
    pub fn try_rows(&mut self, rows: &[Row]) -> Result<(), OperatorError> {
        let mut out = Outbox::default();
        let done = self.operator.rows(Inlet::default(), batch(rows), &mut out);
        self.take(out);
        done
    }

    pub fn rows(&mut self, rows: &[Row]) -> &mut Self {
        self.try_rows(rows)
            .expect("no row stops the test's pipeline");
        self
    }

    pub fn watermark(&mut self, watermark_ms: i64) -> &mut Self {
        let mut out = Outbox::default();
        self.operator
            .watermark(watermark_ms, &mut out)
            .expect("no row stops the test's pipeline");
        self.take(out);
        self
    }

    pub fn end(&mut self) -> &mut Self {
        self.watermark(END_OF_TIME)
    }

    /// Sets the clock, and wakes the operator as a task does.
    pub fn clock(&mut self, now_ms: i64) -> &mut Self {
        self.clock.set(now_ms);
        let mut wakes = 0;
        while self.operator.wake_at().is_some_and(|due| due <= now_ms) {
            let mut out = Outbox::default();
            self.operator
                .wake(now_ms, &mut out)
                .expect("no row stops the test's pipeline");
            self.take(out);
            wakes += 1;
            assert!(wakes < 10, "the operator wants to be woken without end");
        }
        self
    }

    /// Passes rows as a source does: in batches, with a watermark after each batch and
    /// before each late row.
    pub fn source(&mut self, rows: &[Row], out_of_orderness_ms: i64, batch_rows: usize) {
        self.go_on(rows, out_of_orderness_ms, batch_rows, i64::MIN);
        self.end();
    }

    /// Does so without the end, behind rows of which this was the newest time. Returns the
    /// newest time then.
    pub fn go_on(
        &mut self,
        rows: &[Row],
        out_of_orderness_ms: i64,
        batch_rows: usize,
        mut newest: i64,
    ) -> i64 {
        let mut batch: Vec<Row> = Vec::new();
        let mut watermark = newest.saturating_sub(out_of_orderness_ms);
        for row in rows {
            if batch.len() == batch_rows || row.time < watermark {
                if !batch.is_empty() {
                    self.rows(&batch);
                    batch.clear();
                }
                self.watermark(watermark);
            }
            newest = newest.max(row.time);
            watermark = newest - out_of_orderness_ms;
            batch.push(row.clone());
        }
        if !batch.is_empty() {
            self.rows(&batch);
        }
        self.watermark(watermark);
        newest
    }

    /// Results since the last call, sorted within.
    pub fn lines(&mut self) -> String {
        let mut lines = std::mem::take(&mut self.lines);
        lines.sort();
        lines.iter().map(|line| format!("{line}\n")).collect()
    }

    fn take(&mut self, mut out: Outbox) {
        self.dead_letters.append(&mut out.dead_letters);
        self.counts.late += out.counts.late;
        self.counts.rejected += out.counts.rejected;
        self.counts.failed += out.counts.failed;
        for (port, batch) in out.into_batches() {
            if port == MAIN_OUTPUT {
                let lines = self.lines_of(&batch);
                self.lines.extend(lines);
                continue;
            }
            if port == CHANGES_OUTPUT {
                self.take_changes(&batch);
                continue;
            }
            assert_eq!(port, LATE_OUTPUT);
            for row in 0..batch.rows() {
                let word = batch.columns[3].as_string::<i32>().value(row);
                self.late.push(format!("{}:{word}", batch.times[row]));
            }
        }
    }

    fn take_changes(&mut self, batch: &Batch) {
        for (row, line) in self.lines_of(batch).into_iter().enumerate() {
            let taken_back = batch.taken_back.as_ref();
            let is_taken_back = taken_back.is_some_and(|rows| rows.value(row));
            let stands = self.told.entry(line.clone()).or_default();
            *stands += if is_taken_back { -1 } else { 1 };
            assert!(*stands >= 0, "{line} does not stand, and is taken back");
        }
    }

    /// The results that stand, by what was told of changes.
    pub fn standing(&self) -> Vec<String> {
        let standing = self.told.iter().filter(|(_, times)| **times > 0);
        let lines = standing.inspect(|(line, times)| {
            assert_eq!(**times, 1, "{line} stands several times");
        });
        lines.map(|(line, _)| line.clone()).collect()
    }

    fn lines_of(&self, batch: &Batch) -> Vec<String> {
        let mut lines = Vec::with_capacity(batch.rows());
        batch.to_arrow().expect("columns are as the schema says");
        let keys = self.key.columns().len();
        for row in 0..batch.rows() {
            let mut line: Vec<String> = batch.columns[..keys]
                .iter()
                .map(|column| text(column, row))
                .collect();
            let mut columns = &batch.columns[keys..];
            if columns.len() > 5 {
                let start = text(&columns[0], row);
                let end = text(&columns[1], row);
                let after = batch.times[row].saturating_add(1);
                assert_eq!(after.to_string(), end);
                line.push(format!("[{start}, {end})"));
                columns = &columns[2..];
                if columns.len() > 5 {
                    line.push(text(&columns[0], row));
                    columns = &columns[1..];
                }
            }
            line.extend(columns.iter().map(|column| text(column, row)));
            lines.push(line.join(" "));
        }
        lines
    }
}

/// The results that count in the end: the last line of each key and window.
pub(super) fn last_of_each(lines: &[String]) -> Vec<String> {
    let mut last: BTreeMap<&str, &String> = BTreeMap::new();
    for line in lines {
        let window = line
            .split_once(") ")
            .map_or(line.as_str(), |(window, _)| window);
        last.insert(window, line);
    }
    last.into_values().cloned().collect()
}

fn text(column: &ArrayRef, row: usize) -> String {
    if column.is_null(row) {
        "-".to_owned()
    } else if let Some(text) = column.as_string_opt::<i32>() {
        text.value(row).to_owned()
    } else if let Some(number) = column.as_primitive_opt::<Int64Type>() {
        number.value(row).to_string()
    } else {
        column
            .as_primitive::<TimestampMillisecondType>()
            .value(row)
            .to_string()
    }
}

fn input_schema() -> Schema {
    Schema::new(vec![
        Field::new("user", DataType::Utf8, true),
        Field::new("shop", DataType::Int64, false),
        Field::new("amount", DataType::Int64, false),
        Field::new("word", DataType::Utf8, false),
    ])
}

fn batch(rows: &[Row]) -> Batch {
    let users: StringArray = rows.iter().map(|row| row.user.as_deref()).collect();
    let words = StringArray::from_iter_values(rows.iter().map(|row| &row.word));
    Batch {
        schema: Arc::new(input_schema()),
        columns: vec![
            Arc::new(users),
            Arc::new(Int64Array::from_iter_values(
                rows.iter().map(|row| row.shop),
            )),
            Arc::new(Int64Array::from_iter_values(
                rows.iter().map(|row| row.amount),
            )),
            Arc::new(words),
        ],
        times: rows.iter().map(|row| row.time).collect(),
        origin: None,
        watermarks: None,
        taken_back: None,
    }
}

pub(super) fn tumbling(size_ms: i64) -> Setup {
    Setup::new(Window::Tumbling {
        size_ms,
        time: TimeDomain::Event,
        alignment: Alignment::default(),
    })
}

pub(super) fn sliding(size_ms: i64, slide_ms: i64) -> Setup {
    Setup::new(Window::Sliding {
        size_ms,
        slide_ms,
        time: TimeDomain::Event,
        alignment: Alignment::default(),
    })
}

pub(super) fn cumulate(size_ms: i64, step_ms: i64) -> Setup {
    Setup::new(Window::Cumulate {
        size_ms,
        step_ms,
        time: TimeDomain::Event,
        alignment: Alignment::default(),
    })
}

pub(super) fn session(gap_ms: i64) -> Setup {
    Setup::new(Window::Session {
        gap_ms,
        time: TimeDomain::Event,
    })
}
