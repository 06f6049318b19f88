//! Tests how the host handles misbehaving plugins, call by call: `hostile` fails in
//! every possible way, `lawless` returns what the contract does not allow.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

/// Plugins, built once.
mod common;

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use arrow_array::{Array, ArrayRef, Int64Array, StringArray};
use expect_test::{Expect, expect};
use sluicebox::logic::Limits;
use sluicebox::logic::{
    Aggregate, Columns, Factory, Failure, FailureKind, GroupTimers, Grouped, Keyed, Kind, Module,
    Output, States, Steps, Transform, Transformed, Value,
};
use sluicebox::plugin::Plugin;

/// Small, so that the tests are quick, unless the host does not enforce them.
const LIMITS: Limits = Limits {
    memory_bytes_max: 16 << 20,
    call_ms_max: 200,
    output_bytes_max: 1 << 20,
};

/// For slow calls that must end by themselves.
const PATIENT: Limits = Limits {
    call_ms_max: 120_000,
    ..LIMITS
};

/// Kept, so that it is compiled once.
static HOSTILE: LazyLock<Plugin> = LazyLock::new(|| plugin("hostile"));

fn plugin(name: &str) -> Plugin {
    common::LOADER
        .plugin(&common::plugin_file(name))
        .unwrap_or_else(|error| panic!("{error}"))
}

fn factory(operator: &str, arguments: &[(&str, Value)], limits: Limits) -> Arc<dyn Factory> {
    let arguments: Vec<(String, Value)> = arguments
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.clone()))
        .collect();
    HOSTILE
        .factory(operator, &arguments, limits, "hostile")
        .unwrap_or_else(|failure| panic!("{failure}"))
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

/// Rows of these ids; their numbers count up from 1.
fn rows(ids: &[&str]) -> Vec<ArrayRef> {
    vec![
        Arc::new(StringArray::from(ids.to_vec())),
        Arc::new(Int64Array::from_iter_values(1..=ids.len() as i64)),
    ]
}

fn of(columns: &[ArrayRef]) -> Columns<'_> {
    let rows = columns.first().map_or(0, |column| column.len());
    Columns { rows, columns }
}

fn opened(factory: &Arc<dyn Factory>) -> Box<dyn Transform> {
    factory.instance().unwrap().transform().unwrap()
}

/// The answer for a batch in which the row `bad` misbehaves.
fn misjudge(mode: &str, limits: Limits) -> Result<Transformed, Failure> {
    let arguments = [("mode", text(mode)), ("at", text("bad"))];
    let mut instance = factory("misjudge", &arguments, limits)
        .instance()?
        .transform()?;
    instance.transform(of(&rows(&["good", "bad", "good"])))
}

/// The failure that a mode ends in.
fn check(mode: &str, kind: FailureKind, expected: Expect) -> Failure {
    let failure = misjudge(mode, LIMITS).expect_err(mode);
    assert_eq!(failure.kind, kind, "{mode}: {failure}");
    check_message(&failure, expected);
    failure
}

/// The message, without the line of the plugin's source that it names.
fn check_message(failure: &Failure, expected: Expect) {
    let message = match failure.message.split_once(".rs:") {
        Some((before, after)) => {
            let after = after.trim_start_matches(|c: char| c.is_ascii_digit() || c == ':');
            format!("{before}.rs:{after}")
        }
        None => failure.message.clone(),
    };
    expected.assert_eq(&message);
}

#[test]
fn a_panic_is_reported_with_its_message() {
    let failure = check(
        "panic",
        FailureKind::Trap,
        expect!["panicked at tests/hostile/src/lib.rs: hostile: the row `bad` is too much"],
    );
    let panic = failure.panic.unwrap();
    assert!(panic.contains("the row `bad` is too much"), "{panic}");
}

#[test]
fn a_trap_is_reported_with_its_place() {
    // Which of its functions are inlined is the compiler's choice.
    let failure = misjudge("trap", LIMITS).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Trap);
    let expected = "trapped: wasm `unreachable` instruction executed (in `hostile::";
    assert!(failure.message.starts_with(expected), "{failure}");
    let failure = misjudge("recurse", LIMITS).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Trap);
    assert!(failure.message.contains("stack"), "{failure}");
}

#[test]
fn an_endless_loop_is_stopped_in_time() {
    let start = Instant::now();
    check(
        "loop",
        FailureKind::Deadline,
        expect!["took longer than its limit of 200 ms"],
    );
    let took = start.elapsed();
    assert!(
        took >= Duration::from_millis(LIMITS.call_ms_max),
        "{took:?}"
    );
    // Generous, since machines may be busy.
    assert!(took < Duration::from_secs(30), "{took:?}");
}

#[test]
fn memory_is_limited() {
    check(
        "allocate",
        FailureKind::Memory,
        expect!["needed 17 MiB of memory, and its `limits.memory` is 16 MiB"],
    );
    // Rows that the host passes count as the plugin's memory, too.
    let mut instance = opened(&factory("pass", &[], LIMITS));
    let long = "x".repeat(LIMITS.memory_bytes_max);
    let failure = instance.transform(of(&rows(&[&long]))).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Memory, "{failure}");
    // Too little to start with shows when the operator is made.
    let too_little = Limits {
        memory_bytes_max: 64 << 10,
        ..LIMITS
    };
    let refused = HOSTILE.factory("pass", &[], too_little, "hostile");
    assert_eq!(refused.err().unwrap().kind, FailureKind::Memory);
}

#[test]
fn output_is_limited() {
    let output = |bytes: usize| {
        let arguments = [
            ("mode", text("output")),
            ("amount", Value::Integer(bytes as i64)),
        ];
        let mut instance = factory("misbehave", &arguments, PATIENT)
            .instance()?
            .transform()?;
        instance.transform(of(&rows(&["bad"])))
    };
    assert!(output(LIMITS.output_bytes_max / 2).is_ok());
    let failure = output(LIMITS.output_bytes_max + 1).unwrap_err();
    assert_eq!(failure.kind, FailureKind::OutputSize);
    check_message(
        &failure,
        expect!["answered with more than its limit of 1 MiB"],
    );
}

#[test]
fn a_row_that_is_rejected_is_no_failure() {
    let answer = misjudge("reject", LIMITS).unwrap();
    assert!(matches!(answer.output, Output::Selection(kept) if kept == [0, 2]));
    assert_eq!(answer.rejects.len(), 1);
    assert_eq!(answer.rejects[0].reason, "the row `bad` is not wanted");
}

#[test]
fn printing_without_end_is_harmless() {
    for mode in ["stdout", "stderr", "log"] {
        let arguments = [
            ("mode", text(mode)),
            ("amount", Value::Integer(20_000)),
            ("at", text("bad")),
        ];
        let factory = factory("misjudge", &arguments, PATIENT);
        let mut instance = opened(&factory);
        let answer = instance.transform(of(&rows(&["bad", "good"]))).unwrap();
        assert!(matches!(answer.output, Output::Selection(kept) if kept == [0, 1]));
    }
}

#[test]
fn the_world_is_out_of_reach() {
    let reach = |thing: &str| {
        let mut instance = factory("reach", &[("thing", text(thing))], PATIENT)
            .instance()?
            .transform()?;
        instance.transform(of(&rows(&["row"])))
    };
    let refused = |thing: &str, expected: Expect| {
        let failure = reach(thing).expect_err(thing);
        assert_eq!(failure.kind, FailureKind::Trap, "{thing}: {failure}");
        check_message(&failure, expected);
    };
    refused(
        "clock",
        expect![
            "called `wasi:clocks/wall-clock#now`: plugins have no clock, so that results depend on rows alone: use the event time of the row"
        ],
    );
    refused(
        "network",
        expect![
            "called `wasi:sockets/tcp-create-socket#create-tcp-socket`: plugins have no network"
        ],
    );
    refused(
        "exit",
        expect!["called `wasi:cli/exit#exit`: plugins have no process of their own"],
    );

    let start = Instant::now();
    for nothing in [
        "file",
        "folder",
        "environment",
        "sleep",
        "wait",
        "random",
        "log",
    ] {
        let answer = reach(nothing).unwrap_or_else(|failure| panic!("{nothing}: {failure:?}"));
        let found = !matches!(answer.output, Output::Selection(kept) if kept == [0]);
        assert!(!found, "{nothing}");
    }
    // One of them asked for an hour of sleep.
    assert!(start.elapsed() < Duration::from_secs(600));
}

#[test]
fn a_new_instance_knows_nothing_of_the_failure() {
    let arguments = [("mode", text("panic")), ("at", text("bad"))];
    let factory = factory("misjudge", &arguments, LIMITS);
    for _ in 0..20 {
        let mut instance = opened(&factory);
        assert!(instance.transform(of(&rows(&["bad"]))).is_err());
        let mut instance = opened(&factory);
        assert!(instance.transform(of(&rows(&["good"]))).is_ok());
    }
}

/// An aggregate that fails at a stage, and what it has seen of three rows.
struct Miscount {
    factory: Arc<dyn Factory>,
}

impl Miscount {
    fn new(mode: &str, stage: &str) -> Self {
        let arguments = [
            ("mode", text(mode)),
            ("stage", text(stage)),
            ("at", text("bad")),
        ];
        Miscount {
            factory: factory("miscount", &arguments, LIMITS),
        }
    }

    fn instance(&self) -> Box<dyn Aggregate> {
        self.factory.instance().unwrap().aggregate().unwrap()
    }

    /// States of groups of one row each.
    fn accumulate(&self, ids: &[&str]) -> Result<Vec<ArrayRef>, Failure> {
        let state = &self.factory.info().state.fields;
        let none: Vec<ArrayRef> = state
            .iter()
            .map(|field| arrow_array::new_empty_array(&field.data_type.to_arrow()))
            .collect();
        let groups: Vec<u32> = (0..ids.len() as u32).collect();
        let states = States {
            existing: of(&none),
            groups: ids.len(),
        };
        let accumulated = self
            .instance()
            .accumulate(Grouped::added(of(&rows(ids)), &groups), states)?;
        Ok(accumulated.states)
    }

    fn merge(&self, states: &[ArrayRef], groups: &[u32]) -> Result<Vec<ArrayRef>, Failure> {
        self.instance().merge(of(states), groups)
    }

    fn finish(&self, states: &[ArrayRef]) -> Result<usize, Failure> {
        let states = of(states);
        let windows = vec![0; states.rows];
        let keys = Columns::none(states.rows);
        let results = self.instance().finish(states, keys, &windows, &windows)?;
        Ok(results.parents.len())
    }
}

#[test]
fn aggregates_fail_where_they_fail() {
    let ids = ["good", "bad", "good"];
    let kind = |failure: Failure| failure.kind;
    let at_once = |mode| {
        Miscount::new(mode, "accumulate")
            .accumulate(&ids)
            .map_err(kind)
    };
    assert_eq!(at_once("panic").unwrap_err(), FailureKind::Trap);
    assert_eq!(at_once("loop").unwrap_err(), FailureKind::Deadline);
    assert_eq!(at_once("allocate").unwrap_err(), FailureKind::Memory);

    let merging = Miscount::new("trap", "merge");
    let states = merging.accumulate(&ids).unwrap();
    assert_eq!(merging.finish(&states).unwrap(), 3);
    assert_eq!(merging.merge(&states, &[0, 1, 2]).unwrap()[0].len(), 3);
    let failure = merging.merge(&states, &[0, 0, 1]).unwrap_err();
    assert_eq!(failure.kind, FailureKind::Trap);

    let finishing = Miscount::new("panic", "finish");
    let states = finishing.accumulate(&ids).unwrap();
    let merged = finishing.merge(&states, &[0, 0, 1]).unwrap();
    let failure = finishing.finish(&merged).unwrap_err();
    check_message(
        &failure,
        expect!["panicked at tests/hostile/src/lib.rs: hostile: the row `bad` is too much"],
    );
    let good: Vec<ArrayRef> = merged.iter().map(|state| state.slice(1, 1)).collect();
    assert_eq!(finishing.finish(&good).unwrap(), 1);
}

#[test]
fn arguments_that_the_plugin_refuses_show_when_the_operator_is_made() {
    let refused = |arguments: &[(&str, Value)]| {
        let arguments: Vec<(String, Value)> = arguments
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone()))
            .collect();
        let made = HOSTILE.factory("misjudge", &arguments, LIMITS, "hostile");
        let failure = made.err().unwrap();
        assert_eq!(failure.kind, FailureKind::Open);
        failure.message
    };
    expect!["parameter `mode` is missing and has no default"].assert_eq(&refused(&[]));
    expect![[r#"parameter `mode`: expected `nothing`, `reject`, `panic`, `trap`, `loop`, `allocate`, `output`, `recurse`, `stdout`, `stderr`, `log`, `tire` or `slow`, found "dance""#]].assert_eq(&refused(&[("mode", text("dance"))]));
    expect!["parameter `mode`: expected `nothing`, `reject`, `panic`, `trap`, `loop`, `allocate`, `output`, `recurse`, `stdout`, `stderr`, `log`, `tire` or `slow`, found 1"].assert_eq(&refused(&[("mode", Value::Integer(1))]));
}

#[test]
fn answers_that_break_the_contract_are_not_believed() {
    let plugin = plugin("lawless");
    let mut said = String::new();
    for operator in &plugin.info().operators {
        let factory = plugin
            .factory(&operator.name, &[], PATIENT, "lawless")
            .unwrap();
        let failures = match operator.kind {
            Kind::Aggregate => aggregate_failures(&*factory),
            Kind::Process => vec![process_failure(&*factory)],
            _ => {
                let mut instance = opened(&factory);
                vec![instance.transform(of(&rows(&["a", "b", "c"]))).err()]
            }
        };
        let failures: Vec<Failure> = failures.into_iter().flatten().collect();
        assert!(!failures.is_empty(), "{} was believed", operator.name);
        for failure in failures {
            assert_eq!(failure.kind, FailureKind::Contract, "{failure}");
            said.push_str(&format!("{}: {failure}\n", operator.name));
        }
    }
    expect![[r#"
        parents_descend: gave an invalid answer: parents are not in ascending order
        parents_out_of_range: gave an invalid answer: a parent is row 3 of 3 rows
        parents_too_few: gave an invalid answer: column `id`: 3 values for 2 rows
        column_missing: gave an invalid answer: column `n`: missing
        column_too_short: gave an invalid answer: column `n`: 2 values for 3 rows
        column_of_another_type: gave an invalid answer: column `n`: expected int64, found float64
        column_names_no_input: gave an invalid answer: column `id`: input 7 of 2 inputs
        column_names_another_type: gave an invalid answer: column `id`: expected `id: utf8`, found input `n: int64`
        ends_descend: gave an invalid answer: column `id`: a value ends before it starts
        ends_beyond_data: gave an invalid answer: column `id`: values end at byte 6 of 1
        text_not_utf8: gave an invalid answer: column `id`: text that is not UTF-8
        text_cut_in_a_letter: gave an invalid answer: column `id`: a text that ends within a character
        value_missing: gave an invalid answer: column `n`: 3 missing values in a column without nulls
        validity_too_short: gave an invalid answer: column `n`: 0 bytes of bits for 3 rows
        selection_for_a_transform: gave an invalid answer: expected rows from a transform, found a selection
        rejects_descend: gave an invalid answer: the rows that it rejects are not in ascending order
        rejects_out_of_range: gave an invalid answer: it rejects row 3 of 3 rows
        rejects_a_row_that_it_answers: gave an invalid answer: it rejects row 0 and answers it as well
        selection_descends: gave an invalid answer: the rows that it keeps are not in ascending order
        selection_repeats: gave an invalid answer: the rows that it keeps are not in ascending order
        selection_out_of_range: gave an invalid answer: it keeps row 3 of 3 rows
        rows_from_a_filter: gave an invalid answer: expected a selection of rows from a filter, found rows
        states_too_few: gave an invalid answer: 2 states for 3 groups
        states_too_few: gave an invalid answer: 2 states for 3 groups
        states_too_few: gave an invalid answer: 2 states for 3 groups
        state_of_another_type: gave an invalid answer: column `n`: expected int64, found float64
        state_of_another_type: gave an invalid answer: column `n`: expected int64, found float64
        state_of_another_type: gave an invalid answer: column `n`: expected int64, found float64
        results_descend: gave an invalid answer: parents are not in ascending order
        results_descend: gave an invalid answer: parents are not in ascending order
        results_out_of_range: gave an invalid answer: a parent is row 3 of 3 rows
        results_out_of_range: gave an invalid answer: a parent is row 3 of 3 rows
        process_groups_descend: gave an invalid answer: the groups with a state are not ascending numbers below 3
        process_group_out_of_range: gave an invalid answer: the groups with a state are not ascending numbers below 3
        process_states_too_few: gave an invalid answer: 3 states for 2 groups
        process_without_an_output: gave an invalid answer: 0 outputs of 1
        process_times_too_few: gave an invalid answer: 2 times of 3 rows
        process_parents_descend: gave an invalid answer: column `main`: parents are not in ascending order
        process_passes_input_on: gave an invalid answer: column `main.id`: input 0 of 0 inputs
        process_reject_out_of_range: gave an invalid answer: it rejects row 3 of 3 rows
        timer_of_no_group: gave an invalid answer: timers are not in order of groups, times and names
        timers_out_of_order: gave an invalid answer: timers are not in order of groups, times and names
        timers_of_one_name: gave an invalid answer: a key has two timers of a name, or more than 1000
        timers_without_times: gave an invalid answer: timers without a time or a name
        timer_name_not_utf8: gave an invalid answer: the name of a timer is not UTF-8
        timer_name_too_long: gave an invalid answer: the name of a timer is not a text of at most 1024 bytes
        timer_name_beyond_data: gave an invalid answer: the name of a timer is not a text of at most 1024 bytes
        too_many_timers: gave an invalid answer: a key has two timers of a name, or more than 1000
        rejected_timer_of_no_step: gave an invalid answer: the timers that it rejects are not in order of steps
    "#]].assert_eq(&said);
}

/// The failure of a process's call with three rows of three keys, if any.
fn process_failure(factory: &dyn Factory) -> Option<Failure> {
    let none: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(Vec::<i64>::new()))];
    let steps = Steps {
        inputs: vec![0; 3],
        groups: vec![0, 1, 2],
        times: vec![0; 3],
        watermarks: vec![0; 3],
        taken_back: Vec::new(),
        now_ms: 0,
    };
    let timers = GroupTimers::default();
    let keyed = Keyed {
        groups: 3,
        keys: Columns {
            rows: 3,
            columns: &[],
        },
        states: of(&none),
        event_timers: &timers,
        processing_timers: &timers,
    };
    let mut instance = factory.instance().unwrap().process().unwrap();
    let input = rows(&["a", "b", "c"]);
    instance.process(&[of(&input)], &steps, keyed).err()
}

/// The failure of each of an aggregate's calls, if any.
fn aggregate_failures(factory: &dyn Factory) -> Vec<Option<Failure>> {
    let none: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(Vec::<i64>::new()))];
    let some: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(vec![1, 2, 3]))];
    let input = rows(&["a", "b", "c"]);
    let states = States {
        existing: of(&none),
        groups: 3,
    };
    let instance = || factory.instance().unwrap().aggregate().unwrap();
    let groups = [0, 1, 2];
    vec![
        instance()
            .accumulate(Grouped::added(of(&input), &groups), states)
            .err(),
        instance()
            .accumulate_each(
                Grouped::added(of(&input), &groups),
                states,
                Columns::none(3),
            )
            .err(),
        instance().merge(of(&some), &groups).err(),
        instance()
            .finish(of(&some), Columns::none(3), &[0; 3], &[1; 3])
            .err(),
    ]
}
