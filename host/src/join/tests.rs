//! Tests every rule against its definition, and single behaviours.

/// Single behaviours.
mod cases;
/// Compares every rule with a model.
mod model;

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, ArrayRef, BooleanArray, Int64Array, StringArray};

use super::{JoinOperator, tables};
use crate::batch::Batch;
use crate::budget::Budget;
use crate::checkpoint::storage::Storage;
use crate::checkpoint::storage::memory::MemoryStorage;
use crate::clock::ManualClock;
use crate::element::{END_OF_TIME, Inlet};
use crate::operator::{Counts, Operator, Outbox};
use crate::plan::{
    JoinColumn, JoinKind, JoinPlan, JoinRule, JoinSide, LEFT, MAIN_OUTPUT, Matching, RIGHT,
};
use crate::schema::{DataType, Field, Schema};
use crate::shard::SHARDS;
use crate::state::stored::{Restored, StoredTable};

/// A row of the tests' input. `id` tells rows apart.
#[derive(Clone, Debug, PartialEq)]
struct Row {
    side: usize,
    key: Option<String>,
    time: i64,
    id: i64,
    deletes: bool,
}

fn row(side: usize, key: &str, time: i64, id: i64) -> Row {
    Row {
        side,
        key: (key != "-").then(|| key.to_owned()),
        time,
        id,
        deletes: false,
    }
}

fn left(key: &str, time: i64, id: i64) -> Row {
    row(LEFT, key, time, id)
}

fn right(key: &str, time: i64, id: i64) -> Row {
    row(RIGHT, key, time, id)
}

fn deletes(key: &str, time: i64) -> Row {
    Row {
        deletes: true,
        ..right(key, time, 0)
    }
}

fn rule(kind: JoinKind, matching: Matching) -> JoinRule {
    JoinRule { kind, matching }
}

/// An operator and all its output so far.
struct Bench {
    plan: JoinPlan,
    output: Arc<Schema>,
    operator: JoinOperator,
    batch_rows: usize,
    clock: Arc<ManualClock>,
    storage: Arc<MemoryStorage>,
    budget: Arc<Budget>,
    checkpoints: u64,
    /// Joined rows as text: `key left right @time`.
    lines: Vec<String>,
    /// The ids of late rows, by side.
    late: [Vec<i64>; 2],
    counts: Counts,
    watermark_out: i64,
}

/// The fields of a side: key, id, and a text of the id, so that there is one of
/// variable size.
fn fields() -> Vec<Field> {
    vec![
        Field::new("key", DataType::Utf8, true),
        Field::new("id", DataType::Int64, false),
        Field::new("text", DataType::Utf8, false),
    ]
}

fn plan(rule: JoinRule) -> JoinPlan {
    let schema = Arc::new(Schema::new(fields()));
    let side = |side: usize| JoinSide {
        schema: schema.clone(),
        columns: vec![vec![0, 1, 2]],
        key: vec![vec![0]],
        tombstone: matches!((rule.matching, side), (Matching::AsOf(_), RIGHT)).then(|| vec![3]),
        late_output: Some(1 + side),
    };
    JoinPlan {
        waits_for_table: false,
        rule,
        key_schema: Arc::new(Schema::new(fields()[..1].to_vec())),
        sides: [side(LEFT), side(RIGHT)],
        output: vec![
            JoinColumn::Key { left: 0, right: 0 },
            JoinColumn::Left(1),
            JoinColumn::Right(1),
            JoinColumn::Left(2),
            JoinColumn::Right(2),
        ],
    }
}

impl Bench {
    fn new(rule: JoinRule) -> Self {
        Bench::with(rule, 4096, usize::MAX)
    }

    fn with(rule: JoinRule, batch_rows: usize, memory_bytes_max: usize) -> Self {
        let plan = plan(rule);
        let nullable = |name: &str, data_type| Field::new(name, data_type, true);
        let output = Arc::new(Schema::new(vec![
            nullable("key", DataType::Utf8),
            nullable("left", DataType::Int64),
            nullable("right", DataType::Int64),
            nullable("left_text", DataType::Utf8),
            nullable("right_text", DataType::Utf8),
        ]));
        let storage = Arc::new(MemoryStorage::new());
        let budget = Arc::new(Budget::new(memory_bytes_max));
        let clock = Arc::new(ManualClock::default());
        let stored = stored(&plan, &storage, &budget, None);
        let operator = JoinOperator::new(
            "joined",
            &plan,
            output.clone(),
            batch_rows,
            clock.clone(),
            stored,
        );
        Bench {
            operator: operator.expect("the test's plan is right"),
            plan,
            output,
            batch_rows,
            clock,
            storage,
            budget,
            checkpoints: 0,
            lines: Vec::new(),
            late: [Vec::new(), Vec::new()],
            counts: Counts::default(),
            watermark_out: i64::MIN,
        }
    }

    /// Passes rows of one side.
    fn rows(&mut self, rows: &[Row]) -> &mut Self {
        let Some(first) = rows.first() else {
            return self;
        };
        let inlet = Inlet {
            port: first.side,
            edge: 0,
        };
        let mut out = Outbox::default();
        let done = self.operator.rows(inlet, batch(rows), &mut out);
        done.expect("no row stops a join");
        self.take(out);
        self
    }

    fn watermark(&mut self, watermark_ms: i64) -> &mut Self {
        let mut out = Outbox::default();
        let done = self.operator.watermark(watermark_ms, &mut out);
        done.expect("no watermark stops a join");
        self.take(out);
        let passed_on = self.operator.watermark_out(watermark_ms);
        assert!(passed_on >= self.watermark_out, "it went back");
        self.watermark_out = passed_on;
        self
    }

    fn end(&mut self) -> &mut Self {
        self.watermark(END_OF_TIME)
    }

    /// Sets the clock, and wakes the operator as a task does.
    fn clock(&mut self, now_ms: i64) -> &mut Self {
        self.clock.set(now_ms);
        while self.operator.wake_at().is_some_and(|due| due <= now_ms) {
            let mut out = Outbox::default();
            let done = self.operator.wake(now_ms, &mut out);
            done.expect("no timer stops a join");
            self.take(out);
        }
        self
    }

    /// Makes a checkpoint.
    fn checkpoint(&mut self) -> Option<i64> {
        let snapshot = self.operator.snapshot().expect("state can be written");
        let snapshot = snapshot.expect("a join has state");
        self.checkpoints += 1;
        self.storage.checkpoint(self.checkpoints, snapshot.changes);
        self.budget.add_write();
        snapshot.time_ms
    }

    /// Replaces the operator by one that is restored from the last checkpoint.
    fn restore(&mut self, restored: Restored) {
        let found = self.storage.restore(self.checkpoints);
        found.expect("there is a checkpoint");
        // The budget of the former run went with it.
        self.budget = Arc::new(Budget::new(self.budget.bytes_max()));
        let stored = stored(&self.plan, &self.storage, &self.budget, Some(restored));
        let operator = JoinOperator::new(
            "joined",
            &self.plan,
            self.output.clone(),
            self.batch_rows,
            self.clock.clone(),
            stored,
        );
        self.operator = operator.expect("the state is there");
        self.watermark_out = i64::MIN;
    }

    fn restart(&mut self) -> &mut Self {
        let time_ms = self.checkpoint();
        self.restore(Restored {
            time_ms,
            ..Restored::default()
        });
        self
    }

    /// How many rows of state the last checkpoint has.
    fn stored_rows(&self) -> usize {
        let mut rows = 0;
        let scanned = self.storage.scan(&[], &[0xff; 8], &mut |_, _| {
            rows += 1;
            true
        });
        scanned.expect("memory can be read");
        rows
    }

    /// Joined rows since the last call, sorted.
    fn lines(&mut self) -> String {
        let mut lines = std::mem::take(&mut self.lines);
        lines.sort();
        lines.iter().map(|line| format!("{line}\n")).collect()
    }

    fn take(&mut self, out: Outbox) {
        self.counts.late += out.counts.late;
        self.counts.out += out.counts.out;
        for (port, batch) in out.into_batches() {
            batch.to_arrow().expect("columns are as the schema says");
            assert!(batch.rows() <= self.batch_rows.max(1) || port != MAIN_OUTPUT);
            for row in 0..batch.rows() {
                match port {
                    MAIN_OUTPUT => self.lines.push(line(&batch, row)),
                    port => {
                        let ids = batch.columns[1].as_primitive::<Int64Type>();
                        self.late[port - 1].push(ids.value(row));
                    }
                }
                if port == MAIN_OUTPUT && self.plan.rule.matching.has_late_rows() {
                    let time_ms = batch.times[row];
                    let watermark_ms = self.watermark_out;
                    assert!(time_ms >= watermark_ms, "{time_ms} behind {watermark_ms}");
                }
            }
        }
    }
}

fn stored(
    plan: &JoinPlan,
    storage: &Arc<MemoryStorage>,
    budget: &Arc<Budget>,
    restored: Option<Restored>,
) -> Vec<StoredTable> {
    let tables = 0..tables::tables(plan).len() as u32;
    let stored = tables.map(|table| StoredTable {
        storage: storage.clone(),
        table,
        shards: 0..SHARDS,
        restored,
        budget: budget.clone(),
    });
    stored.collect()
}

fn line(batch: &Batch, row: usize) -> String {
    let key = batch.columns[0].as_string::<i32>();
    let key = if key.is_valid(row) {
        key.value(row)
    } else {
        "-"
    };
    let id = |number: usize, text: usize| {
        let numbers = batch.columns[number].as_primitive::<Int64Type>();
        let texts = batch.columns[text].as_string::<i32>();
        assert_eq!(numbers.is_valid(row), texts.is_valid(row));
        match numbers.is_valid(row) {
            true => {
                assert_eq!(texts.value(row), text_of(numbers.value(row)));
                numbers.value(row).to_string()
            }
            false => "-".to_owned(),
        }
    };
    format!("{key} {} {} @{}", id(1, 3), id(2, 4), batch.times[row])
}

fn text_of(id: i64) -> String {
    format!("text {id}")
}

fn batch(rows: &[Row]) -> Batch {
    let keys: StringArray = rows.iter().map(|row| row.key.as_deref()).collect();
    let ids = Int64Array::from_iter_values(rows.iter().map(|row| row.id));
    let texts = StringArray::from_iter_values(rows.iter().map(|row| text_of(row.id)));
    let deletes: BooleanArray = rows.iter().map(|row| Some(row.deletes)).collect();
    let mut schema = fields();
    schema.push(Field::new("deletes", DataType::Bool, true));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(keys),
        Arc::new(ids),
        Arc::new(texts),
        Arc::new(deletes),
    ];
    Batch {
        schema: Arc::new(Schema::new(schema)),
        columns,
        times: rows.iter().map(|row| row.time).collect(),
        origin: None,
        watermarks: None,
        taken_back: None,
    }
}
