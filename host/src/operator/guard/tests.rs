//! A failing operator costs exactly the rows that it fails on.

use std::sync::atomic::{AtomicUsize, Ordering};

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Int64Array, StringArray};

use super::*;
use crate::dead_letter::OnMigrationError;
use crate::logic::{
    Accumulated, Callee, Columns, Grouped, Kind, Limits, OperatorInfo, Output, Port, States,
    Transformed,
};
use crate::schema::{DataType, Field, Schema};

/// Doubles `n`, or adds it up; panics on some values, and rejects negative ones.
struct Faulty {
    info: OperatorInfo,
    panics_on: Vec<i64>,
    /// A call with more states needs too much memory.
    states_max: usize,
    /// So does one with a larger state.
    state_max: i64,
    /// So many calls with a bad value fail; later ones succeed.
    failures_left: Arc<AtomicUsize>,
    instances: AtomicUsize,
    /// How many failed calls were logged.
    logged: Arc<AtomicUsize>,
}

struct FaultyInstance {
    panics_on: Vec<i64>,
    states_max: usize,
    state_max: i64,
    failures_left: Arc<AtomicUsize>,
    used_up: bool,
    logged: Arc<AtomicUsize>,
}

impl Factory for Faulty {
    fn info(&self) -> &OperatorInfo {
        &self.info
    }

    fn digest(&self) -> &str {
        "sha256:test"
    }

    fn instance(&self) -> Result<Instance, Failure> {
        self.instances.fetch_add(1, Ordering::SeqCst);
        let instance = Box::new(FaultyInstance {
            panics_on: self.panics_on.clone(),
            states_max: self.states_max,
            state_max: self.state_max,
            failures_left: self.failures_left.clone(),
            used_up: false,
            logged: self.logged.clone(),
        });
        Ok(match self.info.kind {
            Kind::Aggregate => Instance::Aggregate(instance),
            _ => Instance::Transform(instance),
        })
    }
}

impl FaultyInstance {
    fn check(&mut self, values: &[i64]) -> Result<(), Failure> {
        assert!(!self.used_up, "an instance was used after it had failed");
        if values.iter().any(|value| self.panics_on.contains(value))
            && self
                .failures_left
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                    left.checked_sub(1)
                })
                .is_ok()
        {
            self.used_up = true;
            return Err(Failure {
                kind: FailureKind::Trap,
                message: "wasm trap: unreachable".to_owned(),
                panic: Some("panicked at 'bad value'".to_owned()),
            });
        }
        Ok(())
    }
}

fn values(columns: Columns<'_>) -> Vec<i64> {
    columns.columns[0]
        .as_primitive::<Int64Type>()
        .values()
        .to_vec()
}

fn column(values: Vec<i64>) -> ArrayRef {
    Arc::new(Int64Array::from(values))
}

fn rejects(values: &[i64]) -> Vec<Reject> {
    let negative = values.iter().enumerate().filter(|(_, value)| **value < 0);
    negative
        .map(|(row, value)| Reject {
            row: row as u32,
            reason: format!("{value} is negative"),
        })
        .collect()
}

impl Callee for FaultyInstance {
    fn log_failed(&mut self) {
        self.logged.fetch_add(1, Ordering::SeqCst);
    }
}

impl Transform for FaultyInstance {
    fn transform(&mut self, input: Columns<'_>) -> Result<Transformed, Failure> {
        let values = values(input);
        self.check(&values)?;
        let parents: Vec<u32> = (0..values.len())
            .filter(|&row| values[row] >= 0)
            .map(|row| row as u32)
            .collect();
        let doubled = parents
            .iter()
            .map(|&row| values[row as usize] * 2)
            .collect();
        Ok(Transformed {
            output: Output::Rows(Rows {
                parents,
                columns: vec![column(doubled)],
            }),
            rejects: rejects(&values),
        })
    }
}

impl Aggregate for FaultyInstance {
    fn accumulate(
        &mut self,
        rows: Grouped<'_>,
        states: States<'_>,
    ) -> Result<Accumulated, Failure> {
        let Grouped { input, groups, .. } = rows;
        let rows = values(input);
        assert!(!rows.is_empty(), "nothing asks for a call without rows");
        self.check(&rows)?;
        if states.groups > self.states_max {
            self.used_up = true;
            return Err(Failure::new(
                FailureKind::Memory,
                "needed 2 states of memory, limit 1",
            ));
        }
        let mut sums = values(states.existing);
        if sums.iter().any(|sum| *sum > self.state_max) {
            self.used_up = true;
            return Err(Failure::new(FailureKind::Memory, "needed too much"));
        }
        sums.resize(states.groups, 0);
        for (value, &group) in rows.iter().zip(groups) {
            sums[group as usize] += (*value).max(0);
        }
        Ok(Accumulated {
            states: vec![column(sums)],
            rejects: rejects(&rows),
        })
    }

    fn accumulate_each(
        &mut self,
        rows: Grouped<'_>,
        states: States<'_>,
        _keys: Columns<'_>,
    ) -> Result<(Accumulated, Rows), Failure> {
        let parents = (0..rows.input.rows as u32).collect();
        let results = vec![column(values(rows.input))];
        Ok((
            self.accumulate(rows, states)?,
            Rows {
                parents,
                columns: results,
            },
        ))
    }

    fn merge(&mut self, states: Columns<'_>, groups: &[u32]) -> Result<Vec<ArrayRef>, Failure> {
        let values = values(states);
        self.check(&values)?;
        let mut sums = vec![0; groups.last().map_or(0, |last| *last as usize + 1)];
        for (value, &group) in values.iter().zip(groups) {
            sums[group as usize] += value;
        }
        Ok(vec![column(sums)])
    }

    fn finish(
        &mut self,
        states: Columns<'_>,
        _keys: Columns<'_>,
        _starts: &[i64],
        _ends: &[i64],
    ) -> Result<Rows, Failure> {
        let values = values(states);
        self.check(&values)?;
        Ok(Rows {
            parents: (0..values.len() as u32).collect(),
            columns: vec![column(values)],
        })
    }
}

fn faulty(kind: Kind, panics_on: &[i64], failures: usize) -> Arc<Faulty> {
    let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
    let ports = vec![Port::main(schema.clone())];
    Arc::new(Faulty {
        info: OperatorInfo {
            state: schema,
            ..OperatorInfo::new("faulty", kind, ports.clone(), ports)
        },
        panics_on: panics_on.to_vec(),
        states_max: usize::MAX,
        state_max: i64::MAX,
        failures_left: Arc::new(AtomicUsize::new(failures)),
        instances: AtomicUsize::new(0),
        logged: Arc::default(),
    })
}

fn plan(factory: &Arc<Faulty>, on_error: OnError) -> OperatorPlan {
    OperatorPlan {
        name: "native.doubled".to_owned(),
        factory: factory.clone(),
        earlier: Vec::new(),
        arguments: Vec::new(),
        limits: Some(Limits::default()),
        on_error,
        on_migration_error: OnMigrationError::default(),
    }
}

fn transforming(factory: &Arc<Faulty>, on_error: OnError) -> TransformGuard {
    TransformGuard::new("doubled", &plan(factory, on_error), &Stop::default()).expect("it opens")
}

fn aggregating(factory: &Arc<Faulty>, on_error: OnError) -> AggregateGuard {
    AggregateGuard::new("doubled", &plan(factory, on_error), &Stop::default()).expect("it opens")
}

fn batch(rows: &[i64]) -> Batch {
    Batch {
        schema: Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)])),
        columns: vec![column(rows.to_vec())],
        times: rows.to_vec().into(),
        origin: None,
        watermarks: None,
        taken_back: None,
    }
}

const ALWAYS: usize = usize::MAX;

fn transform(guard: &mut TransformGuard, batch: &Batch) -> (Vec<u32>, Vec<i64>, Outbox<'static>) {
    let mut out = Outbox::default();
    let (mut parents, mut doubled) = (Vec::new(), Vec::new());
    let put = |_: &TransformGuard, output, _: &mut Outbox| {
        let Output::Rows(rows) = output else {
            panic!("it is no filter");
        };
        parents.extend(rows.parents);
        doubled.extend_from_slice(rows.columns[0].as_primitive::<Int64Type>().values());
        Ok(())
    };
    guard
        .transform(batch, &batch.columns, &mut out, put)
        .expect("the policy takes all rows");
    (parents, doubled, out)
}

#[test]
fn the_batch_is_cut_down_to_the_guilty_rows() {
    let factory = faulty(Kind::Transform, &[3, 6], ALWAYS);
    let mut guard = transforming(&factory, OnError::DeadLetter);
    let (parents, values, out) = transform(&mut guard, &batch(&[0, 1, 2, 3, 4, 5, 6, 7]));
    assert_eq!(parents, [0, 1, 2, 4, 5, 7]);
    let logged = factory.logged.load(Ordering::SeqCst);
    assert_eq!(logged, 2, "the last call of each guilty row");
    assert_eq!(values, [0, 2, 4, 8, 10, 14]);
    assert_eq!(out.counts.failed, 2);
    let dead_letters: Vec<_> = out
        .dead_letters
        .iter()
        .map(|l| (l.event_time.as_deref(), &*l.kind))
        .collect();
    assert_eq!(
        dead_letters,
        [
            (Some("1970-01-01T00:00:00.003Z"), "trap"),
            (Some("1970-01-01T00:00:00.006Z"), "trap")
        ]
    );
    assert_eq!(
        out.dead_letters[0].panic.as_deref(),
        Some("panicked at 'bad value'")
    );
    assert_eq!(
        out.dead_letters[0].plugin_digest.as_deref(),
        Some("sha256:test")
    );
}

#[test]
fn only_guilty_rows_leave_no_output_rows_behind() {
    let factory = faulty(Kind::Transform, &[1], ALWAYS);
    let (parents, values, out) = transform(
        &mut transforming(&factory, OnError::Skip),
        &batch(&[1, 1, 1]),
    );
    assert_eq!((parents.len(), values.len()), (0, 0));
    assert_eq!((out.counts.failed, out.dead_letters.len()), (3, 0));
}

#[test]
fn rejects_are_found_in_every_part() {
    let factory = faulty(Kind::Transform, &[9], ALWAYS);
    let (parents, _, out) = transform(
        &mut transforming(&factory, OnError::DeadLetter),
        &batch(&[-1, 9, 1, -2]),
    );
    assert_eq!(parents, [2]);
    assert_eq!((out.counts.failed, out.counts.rejected), (1, 2));
    let mut errors: Vec<_> = out.dead_letters.iter().map(|l| l.error.as_str()).collect();
    errors.sort_unstable();
    assert_eq!(
        errors,
        ["-1 is negative", "-2 is negative", "wasm trap: unreachable"]
    );
}

#[test]
fn under_fail_the_pipeline_ends_with_the_row() {
    let factory = faulty(Kind::Transform, &[2], ALWAYS);
    let batch = batch(&[1, 2, 3]);
    let mut out = Outbox::default();
    let error = transforming(&factory, OnError::Fail)
        .transform(&batch, &batch.columns, &mut out, |_, _, _| Ok(()))
        .expect_err("a row fails");
    assert!(error.message.contains("bad value"), "{error}");
    assert_eq!(error.node, "doubled");
}

#[test]
fn retries_are_made_on_the_row_alone() {
    // Three calls fail as the batch is cut (4, 2 and 1 rows), the retry does not.
    let factory = faulty(Kind::Transform, &[2], 3);
    let (parents, _, out) = transform(
        &mut transforming(&factory, OnError::Retry(1)),
        &batch(&[0, 1, 2, 3]),
    );
    assert_eq!(parents, [0, 1, 2, 3]);
    assert_eq!((out.counts.failed, out.dead_letters.len()), (0, 0));
    assert_eq!(out.counts.failed_calls, 3);

    let factory = faulty(Kind::Transform, &[2], 4);
    let (parents, _, out) = transform(
        &mut transforming(&factory, OnError::Retry(1)),
        &batch(&[0, 1, 2, 3]),
    );
    assert_eq!(parents, [0, 1, 3]);
    assert_eq!((out.counts.failed, out.dead_letters.len()), (1, 1));
}

#[test]
fn states_carry_from_part_to_part() {
    let rows = batch(&[1, 2, 5, 4, -7]);
    let groups = [0, 1, 0, 1, 0];
    let factory = faulty(Kind::Aggregate, &[5], ALWAYS);
    let mut out = Outbox::default();
    let existing = [column(vec![100])];
    let states = States {
        existing: Columns {
            rows: 1,
            columns: &existing,
        },
        groups: 2,
    };
    let mut pieces = Vec::new();
    let put = |rows, _: &mut Outbox| {
        pieces.push(rows);
        Ok::<_, OperatorError>(())
    };
    let folded = aggregating(&factory, OnError::DeadLetter)
        .accumulate_each(
            &rows,
            &rows.columns,
            &groups,
            states,
            OutgrownGroups::new(),
            &[],
            &mut out,
            put,
        )
        .expect("the policy takes the row");
    let [results]: [Rows; 1] = pieces.try_into().expect("one piece");
    assert_eq!(values_of(&folded), [101, 6]);
    assert_eq!(folded.lost, [2, 4]);
    assert_eq!(results.parents, [0, 1, 3, 4]);
    assert_eq!((out.counts.failed, out.counts.rejected), (1, 1));
}

#[test]
fn a_call_gets_the_states_of_its_own_rows_only() {
    let rows = batch(&[1, 2, 3, 4, 5]);
    let mut factory = faulty(Kind::Aggregate, &[], 0);
    Arc::get_mut(&mut factory)
        .expect("nobody shares it")
        .states_max = 1;
    let existing = [column(vec![100, 200])];
    let states = States {
        existing: Columns {
            rows: 2,
            columns: &existing,
        },
        groups: 4,
    };
    let mut out = Outbox::default();
    let folded = aggregating(&factory, OnError::DeadLetter)
        .accumulate(
            &rows,
            &rows.columns,
            &[0, 3, 1, 2, 3],
            states,
            OutgrownGroups::new(),
            &mut out,
        )
        .expect("no row needs more than one state");
    assert_eq!(values_of(&folded), [101, 203, 4, 7]);
    assert_eq!(folded.groups, Some(vec![0, 1, 2, 3]));
    assert_eq!((folded.lost.len(), out.counts.failed), (0, 0));
}

fn values_of(folded: &Folded) -> Vec<i64> {
    let states = folded.states[0].as_primitive::<Int64Type>();
    states.values().to_vec()
}

#[test]
fn large_rows_come_in_calls_of_their_own() {
    let text = |bytes: usize| "x".repeat(bytes);
    let texts = [
        text(CALL_BYTES_MAX),
        text(10),
        text(CALL_BYTES_MAX),
        text(10),
    ];
    let columns: [ArrayRef; 1] = [Arc::new(StringArray::from_iter_values(texts))];
    let parts: Vec<_> = Parts::of(&columns, 4).0;
    assert_eq!(parts, [3..4, 2..3, 1..2, 0..1]);
    let small: [ArrayRef; 1] = [Arc::new(StringArray::from(vec!["a"; 1_000]))];
    assert_eq!(Parts::of(&small, 1_000).0.len(), 1);
    // A part of a larger whole is as large as it is.
    let slice = [columns[0].slice(1, 1)];
    assert_eq!(Parts::of(&slice, 1).0.len(), 1);
}

#[test]
fn groups_without_any_good_row_have_no_state() {
    let rows = batch(&[5, 5]);
    let factory = faulty(Kind::Aggregate, &[5], ALWAYS);
    let mut out = Outbox::default();
    let existing = [column(vec![7])];
    let states = States {
        existing: Columns {
            rows: 1,
            columns: &existing,
        },
        groups: 3,
    };
    let folded = aggregating(&factory, OnError::Skip)
        .accumulate(
            &rows,
            &rows.columns,
            &[1, 2],
            states,
            OutgrownGroups::new(),
            &mut out,
        )
        .expect("the policy takes the rows");
    assert_eq!(values_of(&folded), [0; 0]);
    assert_eq!(folded.groups, Some(vec![]));
    assert_eq!(folded.lost, [0, 1]);
}

/// A state that has outgrown the memory is not tried with row after row, nor are the rows of
/// its neighbours with it.
#[test]
fn a_state_that_has_outgrown_its_memory_is_tried_once() {
    let mut factory = faulty(Kind::Aggregate, &[], 0);
    Arc::get_mut(&mut factory)
        .expect("nobody shares it")
        .state_max = 500;
    let rows = batch(&[1; 256]);
    let groups: Vec<u32> = (0..256).map(|row| row % 2).collect();
    let existing = [column(vec![600, 3])];
    let states = States {
        existing: Columns {
            rows: 2,
            columns: &existing,
        },
        groups: 2,
    };
    let mut out = Outbox::default();
    let mut guard = aggregating(&factory, OnError::DeadLetter);
    let mut fold = |outgrown| -> OutgrownGroups {
        let folded = guard.accumulate(&rows, &rows.columns, &groups, states, outgrown, &mut out);
        let folded = folded.expect("the policy takes the rows");
        assert_eq!(values_of(&folded), [3 + 128]);
        assert_eq!(folded.groups, Some(vec![1]));
        let hot: Vec<u32> = (0..256).step_by(2).collect();
        assert_eq!(folded.lost, hot);
        folded.outgrown.into_iter().collect()
    };
    // 256, 128 and so on, down to the row.
    let known = fold(OutgrownGroups::new());
    assert_eq!(factory.instances.load(Ordering::SeqCst), 10);
    fold(known);
    assert_eq!(factory.instances.load(Ordering::SeqCst), 10);
    let (letters, _) = out.dead_letters.split_at(128);
    let error = "needed too much, which the state of the row's key, of 8 bytes, has outgrown: \
                 raise it, or have the plugin keep less of a key";
    assert!(
        letters.iter().all(|letter| letter.error == error),
        "{letters:?}"
    );
    assert_eq!(out.dead_letters.len(), 256);
}

#[test]
fn a_failing_merge_keeps_the_first_state() {
    let factory = faulty(Kind::Aggregate, &[13], ALWAYS);
    let states = [column(vec![1, 2, 10, 13, 20, 5])];
    let mut out = Outbox::default();
    let merged = aggregating(&factory, OnError::DeadLetter)
        .merge(
            Columns {
                rows: 6,
                columns: &states,
            },
            &[0, 0, 1, 1, 1, 2],
            &|group| format!("{{\"key\":{group}}}"),
            &mut out,
        )
        .expect("the policy takes the group");
    assert_eq!(
        merged[0].as_primitive::<Int64Type>().values().to_vec(),
        [3, 10, 5]
    );
    // What the others have is in no result.
    let letters = out.dead_letters.iter();
    let letters: Vec<_> = letters
        .map(|letter| (letter.payload.as_deref(), letter.row.as_deref()))
        .collect();
    let of_key = Some("{\"key\":1}");
    let lost = ["{\"n\":13}", "{\"n\":20}"].map(|state| (of_key, Some(state)));
    assert_eq!(letters, lost);
    assert_eq!(out.counts.failed, 2);
}

#[test]
fn a_failing_finish_costs_its_own_result() {
    let factory = faulty(Kind::Aggregate, &[13], ALWAYS);
    let states = [column(vec![1, 13, 5])];
    let mut out = Outbox::default();
    let mut pieces = Vec::new();
    let put = |rows, _: &mut Outbox| {
        pieces.push(rows);
        Ok::<_, OperatorError>(())
    };
    aggregating(&factory, OnError::Skip)
        .finish(
            Columns {
                rows: 3,
                columns: &states,
            },
            &[],
            &[0, 0, 0],
            &[9, 9, 9],
            &|state| state.to_string(),
            &mut out,
            put,
        )
        .expect("the policy takes the state");
    let [rows]: [Rows; 1] = pieces.try_into().expect("one piece");
    assert_eq!(rows.parents, [0, 2]);
    assert_eq!(
        rows.columns[0]
            .as_primitive::<Int64Type>()
            .values()
            .to_vec(),
        [1, 5]
    );
    assert_eq!(out.counts.failed, 1);
}

#[test]
fn an_operator_of_another_kind_does_not_open() {
    let plan = plan(&faulty(Kind::Aggregate, &[], 0), OnError::Skip);
    let error = TransformGuard::new("doubled", &plan, &Stop::default()).map(drop);
    let message = error.expect_err("it is an aggregate").message;
    assert!(
        message.ends_with("an aggregate was opened as a transform, which is a bug in Sluicebox"),
        "{message}"
    );
}
