//! A plugin whose answers break the contract, which the SDK cannot do, to test
//! how the host reacts. Each operator breaks the rule in its name. They take
//! rows of `id: utf8, n: int64`.
#![cfg(target_family = "wasm")]

use sluicebox_sdk::bindings;
use sluicebox_sdk::bindings::exports::sluicebox::plugin::aggregate::{
    self, Accumulated, AccumulatedEach, Grouped, States, Windows,
};
use sluicebox_sdk::bindings::exports::sluicebox::plugin::operators::{self, Argument};
use sluicebox_sdk::bindings::exports::sluicebox::plugin::process::{
    self, Keyed, Processed, RejectedTimer, Steps, Timers,
};
use sluicebox_sdk::bindings::exports::sluicebox::plugin::transform::{self, Output, Transformed};
use sluicebox_sdk::bindings::sluicebox::plugin::answers::{Reject, Rows};
use sluicebox_sdk::bindings::sluicebox::plugin::columns::{Batch, Column, Packed, Values};
use sluicebox_sdk::bindings::sluicebox::plugin::description::{Kind, Operator, Plugin, Port};
use sluicebox_sdk::bindings::sluicebox::plugin::schemas::{Field, FieldType};
use std::sync::OnceLock;

/// A rule, and a function whose answers break it.
type Broken = (&'static str, fn(Batch) -> Transformed);

/// Rules for answers of transforms.
const TRANSFORMS: &[Broken] = &[
    ("parents_descend", |input| {
        let rows = input.rows;
        rows_of((0..rows).rev().collect(), texts(rows), numbers(rows))
    }),
    ("parents_out_of_range", |input| {
        let rows = input.rows;
        rows_of((1..=rows).collect(), texts(rows), numbers(rows))
    }),
    ("parents_too_few", |input| {
        let rows = input.rows;
        rows_of((1..rows).collect(), texts(rows), numbers(rows))
    }),
    ("column_missing", |input| {
        let mut answer = lawful(input.rows);
        if let Output::Rows(rows) = &mut answer.output {
            rows.columns.columns.pop();
        }
        answer
    }),
    ("column_too_short", |input| {
        let rows = input.rows;
        rows_of((0..rows).collect(), texts(rows), numbers(rows - 1))
    }),
    ("column_of_another_type", |input| {
        let rows = input.rows;
        let wrong = column(Values::Float64(vec![0.5; rows as usize]));
        rows_of((0..rows).collect(), texts(rows), wrong)
    }),
    ("column_names_no_input", |input| {
        let rows = input.rows;
        rows_of((0..rows).collect(), column(Values::Input(7)), numbers(rows))
    }),
    ("column_names_another_type", |input| {
        let rows = input.rows;
        rows_of((0..rows).collect(), column(Values::Input(1)), numbers(rows))
    }),
    ("ends_descend", |input| {
        let rows = input.rows;
        let ends = (0..rows).rev().map(|row| row * 2).collect();
        let data = vec![b'a'; rows as usize * 2];
        rows_of((0..rows).collect(), packed(ends, data), numbers(rows))
    }),
    ("ends_beyond_data", |input| {
        let rows = input.rows;
        let ends = (1..=rows).map(|row| row * 2).collect();
        rows_of((0..rows).collect(), packed(ends, vec![b'a']), numbers(rows))
    }),
    ("text_not_utf8", |input| {
        let rows = input.rows;
        let ends = (1..=rows).collect();
        let data = vec![0xff; rows as usize];
        rows_of((0..rows).collect(), packed(ends, data), numbers(rows))
    }),
    ("text_cut_in_a_letter", |input| {
        let rows = input.rows;
        let data = "é".repeat(rows as usize).into_bytes();
        let mut ends: Vec<u32> = (1..=rows).map(|row| row * 2 - 1).collect();
        if let Some(last) = ends.last_mut() {
            *last += 1;
        }
        rows_of((0..rows).collect(), packed(ends, data), numbers(rows))
    }),
    ("value_missing", |input| {
        let rows = input.rows;
        let missing = Column {
            validity: Some(vec![0; (rows as usize).div_ceil(8)]),
            ..numbers(rows)
        };
        rows_of((0..rows).collect(), texts(rows), missing)
    }),
    ("validity_too_short", |input| {
        let rows = input.rows;
        let short = Column {
            validity: Some(Vec::new()),
            ..numbers(rows)
        };
        rows_of((0..rows).collect(), texts(rows), short)
    }),
    ("selection_for_a_transform", |input| {
        selection((0..input.rows).collect())
    }),
    ("rejects_descend", |input| {
        let mut answer = lawful(0);
        answer.rejects = (0..input.rows).rev().map(reject).collect();
        answer
    }),
    ("rejects_out_of_range", |input| {
        let mut answer = lawful(0);
        answer.rejects = vec![reject(input.rows)];
        answer
    }),
    ("rejects_a_row_that_it_answers", |input| {
        let mut answer = lawful(input.rows);
        answer.rejects = vec![reject(0)];
        answer
    }),
];

/// Rules for answers of filters.
const FILTERS: &[Broken] = &[
    ("selection_descends", |input| {
        selection((0..input.rows).rev().collect())
    }),
    ("selection_repeats", |input| {
        selection(vec![0; input.rows as usize + 1])
    }),
    ("selection_out_of_range", |input| {
        selection(vec![input.rows])
    }),
    ("rows_from_a_filter", |input| lawful(input.rows)),
];

/// Rules for answers of aggregates.
const AGGREGATES: &[&str] = &[
    "states_too_few",
    "state_of_another_type",
    "results_descend",
    "results_out_of_range",
];

/// What breaks a rule in a process's answer to a call with as many steps as groups.
type Breaks = fn(&mut Processed, u32);

/// Rules for answers of processes.
const PROCESSES: &[(&str, Breaks)] = &[
    ("process_groups_descend", |answer, _| {
        answer.groups.reverse()
    }),
    ("process_group_out_of_range", |answer, count| {
        answer.groups = (1..=count).collect();
    }),
    ("process_states_too_few", |answer, _| {
        answer.groups.pop();
    }),
    ("process_without_an_output", |answer, _| {
        answer.outputs.clear()
    }),
    ("process_times_too_few", |answer, _| {
        answer.outputs[0].times.pop();
    }),
    ("process_parents_descend", |answer, _| {
        answer.outputs[0].rows.parents.reverse();
    }),
    ("process_passes_input_on", |answer, _| {
        answer.outputs[0].rows.columns.columns[0] = column(Values::Input(0));
    }),
    ("process_reject_out_of_range", |answer, count| {
        answer.rejects = vec![reject(count)];
    }),
    ("timer_of_no_group", |answer, count| {
        answer.event_timers = timers(&[(count, 0, b"a")]);
    }),
    ("timers_out_of_order", |answer, _| {
        answer.event_timers = timers(&[(0, 5, b"a"), (0, 4, b"b")]);
    }),
    ("timers_of_one_name", |answer, _| {
        answer.processing_timers = timers(&[(0, 4, b"a"), (0, 5, b"a")]);
    }),
    ("timers_without_times", |answer, _| {
        answer.event_timers = timers(&[(0, 4, b"a")]);
        answer.event_timers.times.clear();
    }),
    ("timer_name_not_utf8", |answer, _| {
        answer.event_timers = timers(&[(0, 4, b"\xff")]);
    }),
    ("timer_name_too_long", |answer, _| {
        answer.event_timers = timers(&[(0, 4, &[b'a'; 2_000])]);
    }),
    ("timer_name_beyond_data", |answer, _| {
        answer.event_timers = timers(&[(0, 4, b"a")]);
        answer.event_timers.names.ends = vec![7];
    }),
    ("too_many_timers", |answer, _| {
        let names: Vec<String> = (0..1_001).map(|i| format!("{i:04}")).collect();
        let each: Vec<(u32, i64, &[u8])> =
            names.iter().map(|name| (0, 4, name.as_bytes())).collect();
        answer.event_timers = timers(&each);
    }),
    ("rejected_timer_of_no_step", |answer, count| {
        answer.rejected_timers = vec![RejectedTimer {
            step: count,
            name: String::new(),
            time: 0,
            reason: String::new(),
        }];
    }),
];

static OPENED: OnceLock<String> = OnceLock::new();

struct Lawless;

impl operators::Guest for Lawless {
    fn describe() -> Plugin {
        let transforms = TRANSFORMS
            .iter()
            .map(|(name, _)| operator(name, Kind::Transform));
        let filters = FILTERS.iter().map(|(name, _)| operator(name, Kind::Filter));
        let aggregates = AGGREGATES
            .iter()
            .map(|name| operator(name, Kind::Aggregate));
        let processes = PROCESSES
            .iter()
            .map(|(name, _)| operator(name, Kind::Process));
        Plugin {
            name: "lawless".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            doc: env!("CARGO_PKG_DESCRIPTION").to_owned(),
            operators: transforms
                .chain(filters)
                .chain(aggregates)
                .chain(processes)
                .collect(),
        }
    }

    fn open(operator: String, _arguments: Vec<Argument>) -> Result<(), String> {
        OPENED.set(operator)
    }
}

impl transform::Guest for Lawless {
    fn transform(input: Batch) -> Transformed {
        let mut operators = TRANSFORMS.iter().chain(FILTERS);
        let found = operators.find(|(name, _)| opened(name));
        let (_, answer) = found.expect("a transform was opened");
        answer(input)
    }
}

impl aggregate::Guest for Lawless {
    fn accumulate(_rows: Grouped, states: States) -> Accumulated {
        Accumulated {
            states: new_states(states.groups),
            rejects: Vec::new(),
        }
    }

    fn accumulate_each(rows: Grouped, states: States, _keys: Batch) -> AccumulatedEach {
        AccumulatedEach {
            states: new_states(states.groups),
            results: results(rows.columns.rows),
            rejects: Vec::new(),
        }
    }

    fn merge(_states: Batch, groups: Vec<u32>) -> Batch {
        new_states(groups.last().map_or(0, |last| last + 1))
    }

    fn finish(states: Batch, _keys: Batch, _windows: Windows) -> Rows {
        results(states.rows)
    }
}

impl process::Guest for Lawless {
    fn process(_inputs: Vec<Batch>, steps: Steps, keyed: Keyed) -> Processed {
        let (count, groups) = (steps.inputs.len() as u32, keyed.groups);
        let rows = Rows {
            parents: (0..count).collect(),
            columns: batch(count, vec![texts(count), numbers(count)]),
        };
        let mut answer = Processed {
            groups: (0..groups).collect(),
            states: batch(groups, vec![numbers(groups)]),
            event_timers: timers(&[]),
            processing_timers: timers(&[]),
            outputs: vec![process::Output {
                rows,
                times: steps.times,
            }],
            rejects: Vec::new(),
            rejected_timers: Vec::new(),
        };
        let found = PROCESSES.iter().find(|(name, _)| opened(name));
        let (_, breaks) = found.expect("a process was opened");
        breaks(&mut answer, count);
        answer
    }
}

bindings::export_every_kind!(Lawless with_types_in bindings);

fn opened(name: &str) -> bool {
    OPENED.get().is_some_and(|opened| opened == name)
}

fn new_states(groups: u32) -> Batch {
    let values = match opened("state_of_another_type") {
        true => column(Values::Float64(vec![0.5; groups as usize])),
        false => numbers(groups),
    };
    match opened("states_too_few") {
        true => batch(groups - 1, vec![numbers(groups - 1)]),
        false => batch(groups, vec![values]),
    }
}

fn results(rows: u32) -> Rows {
    let parents = match opened("results_descend") {
        true => (0..rows).rev().collect(),
        false if opened("results_out_of_range") => (1..=rows).collect(),
        false => (0..rows).collect(),
    };
    Rows {
        parents,
        columns: batch(rows, vec![texts(rows), numbers(rows)]),
    }
}

fn operator(name: &str, kind: Kind) -> Operator {
    let field = |name: &str, type_| Field {
        name: name.to_owned(),
        type_,
        nullable: false,
        doc: String::new(),
    };
    let main = |schema| Port {
        name: "main".to_owned(),
        schema,
    };
    let schema = || vec![field("id", FieldType::Utf8), field("n", FieldType::Int64)];
    Operator {
        name: name.to_owned(),
        doc: String::new(),
        kind,
        inputs: vec![main(schema())],
        outputs: vec![main(match kind {
            Kind::Filter => Vec::new(),
            _ => schema(),
        })],
        state: match kind {
            Kind::Aggregate | Kind::Process => vec![field("n", FieldType::Int64)],
            _ => Vec::new(),
        },
        key: Vec::new(),
        retracts: false,
        parameters: Vec::new(),
    }
}

/// A valid answer, to be broken in one place.
fn lawful(rows: u32) -> Transformed {
    rows_of((0..rows).collect(), texts(rows), numbers(rows))
}

fn rows_of(parents: Vec<u32>, id: Column, n: Column) -> Transformed {
    let rows = parents.len() as u32;
    Transformed {
        output: Output::Rows(Rows {
            parents,
            columns: batch(rows, vec![id, n]),
        }),
        rejects: Vec::new(),
    }
}

/// Timers by group, time and name.
fn timers(each: &[(u32, i64, &[u8])]) -> Timers {
    let mut names = Packed {
        ends: Vec::new(),
        data: Vec::new(),
    };
    for (_, _, name) in each {
        names.data.extend_from_slice(name);
        names.ends.push(names.data.len() as u32);
    }
    Timers {
        groups: each.iter().map(|timer| timer.0).collect(),
        times: each.iter().map(|timer| timer.1).collect(),
        names,
    }
}

fn selection(rows: Vec<u32>) -> Transformed {
    Transformed {
        output: Output::Selection(rows),
        rejects: Vec::new(),
    }
}

fn reject(row: u32) -> Reject {
    Reject {
        row,
        reason: "not wanted".to_owned(),
    }
}

fn batch(rows: u32, columns: Vec<Column>) -> Batch {
    Batch { rows, columns }
}

fn texts(rows: u32) -> Column {
    packed((1..=rows).collect(), vec![b'a'; rows as usize])
}

fn packed(ends: Vec<u32>, data: Vec<u8>) -> Column {
    column(Values::Packed(Packed { ends, data }))
}

fn numbers(rows: u32) -> Column {
    column(Values::Int64((0..i64::from(rows)).collect()))
}

fn column(values: Values) -> Column {
    Column {
        validity: None,
        values,
    }
}
