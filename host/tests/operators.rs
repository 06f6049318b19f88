//! Tests the cart plugin's operators, called as the host calls any operator.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

/// Plugins, built once.
mod common;

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, Int64Array, StringArray};
use expect_test::{Expect, expect};
use sluicebox::logic::Limits;
use sluicebox::logic::{
    Aggregate, Columns, Grouped, Instance, Module, Output, Reject, Rows, States, Transform,
    Transformed, Value,
};
use sluicebox::plugin::Plugin;

fn cart() -> Plugin {
    common::LOADER
        .plugin(&common::plugin_file("cart"))
        .unwrap_or_else(|error| panic!("{error}"))
}

fn operator(name: &str, arguments: &[(&str, Value)]) -> Instance {
    let arguments: Vec<(String, Value)> = arguments
        .iter()
        .map(|(name, value)| ((*name).to_owned(), value.clone()))
        .collect();
    let plugin = cart();
    let factory = plugin
        .factory(name, &arguments, Limits::default(), "test")
        .unwrap();
    factory.instance().unwrap()
}

fn transform(name: &str, arguments: &[(&str, Value)]) -> Box<dyn Transform> {
    operator(name, arguments).transform().unwrap()
}

fn aggregate(name: &str, arguments: &[(&str, Value)]) -> Box<dyn Aggregate> {
    operator(name, arguments).aggregate().unwrap()
}

fn texts(values: &[&str]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

fn integers(values: &[i64]) -> ArrayRef {
    Arc::new(Int64Array::from(values.to_vec()))
}

fn of(columns: &[ArrayRef]) -> Columns<'_> {
    let rows = columns.first().map_or(0, |column| column.len());
    Columns { rows, columns }
}

/// Columns as people write rows: `a 1 | b 2`.
fn shown(columns: &[ArrayRef]) -> String {
    let shown = |column: &ArrayRef, row: usize| {
        let any = column.as_any();
        match (
            any.downcast_ref::<StringArray>(),
            any.downcast_ref::<Int64Array>(),
        ) {
            (Some(texts), _) => texts.value(row).to_owned(),
            (_, Some(integers)) => integers.value(row).to_string(),
            _ => format!("{:?}", column.slice(row, 1)),
        }
    };
    let rows: Vec<String> = (0..of(columns).rows)
        .map(|row| {
            let row: Vec<String> = columns.iter().map(|column| shown(column, row)).collect();
            row.join(" ")
        })
        .collect();
    rows.join(" | ")
}

fn check_rows(rows: &Rows, expected: Expect) {
    expected.assert_eq(&format!("{:?}: {}", rows.parents, shown(&rows.columns)));
}

#[test]
fn a_filter_keeps_and_rejects() {
    let mut clean = transform("clean", &[("max_quantity", Value::Integer(9))]);
    let input = [
        texts(&["zoe", "", "adam", "eve", "eve"]),
        texts(&["tea", "tea", "jam", "jam", "pen"]),
        texts(&["add", "add", "dance", "view", "remove"]),
        integers(&[1, 1, 1, 10, 9]),
    ];
    let Transformed { output, rejects } = clean.transform(of(&input)).unwrap();
    let Output::Selection(kept) = output else {
        panic!("{output:?}");
    };
    assert_eq!(kept, [0, 4]);
    let rejects: Vec<String> = rejects
        .iter()
        .map(|Reject { row, reason }| format!("{row}: {reason}"))
        .collect();
    expect![[r#"
        1: `user_id` is empty
        2: field `action`: expected `add`, `remove`, `view` or `checkout`, found `dance`
        3: `quantity` is 10, expected at most 9"#]]
    .assert_eq(&rejects.join("\n"));
}

#[test]
fn a_transform_passes_on_what_it_does_not_change() {
    let mut changes = transform("changes", &[]);
    // A slice, so that nothing starts where its buffer does.
    let input: Vec<ArrayRef> = [
        texts(&["nobody", "zoe", "adam", "eve", "zoe"]),
        texts(&[
            "nothing",
            "tea",
            "a large teapot of fine china",
            "jam",
            "tea",
        ]),
        texts(&["add", "add", "view", "remove", "add"]),
        integers(&[0, 2, 7, 3, 4]),
    ]
    .iter()
    .map(|column| column.slice(1, 4))
    .collect();
    let answer = changes.transform(of(&input)).unwrap();
    let Output::Rows(rows) = answer.output else {
        panic!("{answer:?}");
    };
    check_rows(
        &rows,
        expect!["[0, 2, 3]: zoe tea 2 | eve jam -3 | zoe tea 4"],
    );

    let empty: Vec<ArrayRef> = input.iter().map(|column| column.slice(0, 0)).collect();
    let answer = changes.transform(of(&empty)).unwrap();
    let Output::Rows(rows) = answer.output else {
        panic!("{answer:?}");
    };
    check_rows(&rows, expect!["[]: "]);
}

#[test]
fn an_aggregate_gives_its_states_back() {
    let mut added = aggregate("added", &[]);
    let input = [integers(&[1, 2, 3, 4])];
    let none = [integers(&[]), integers(&[])];
    let new = States {
        existing: of(&none),
        groups: 2,
    };
    let first = added
        .accumulate(Grouped::added(of(&input), &[0, 1, 0, 0]), new)
        .unwrap()
        .states;
    expect!["3 8 | 1 2"].assert_eq(&shown(&first));

    let grown = States {
        existing: of(&first),
        groups: 3,
    };
    let second = added
        .accumulate(Grouped::added(of(&input), &[1, 2, 2, 1]), grown)
        .unwrap()
        .states;
    expect!["3 8 | 3 7 | 2 5"].assert_eq(&shown(&second));

    let merged = added.merge(of(&second), &[0, 0, 1]).unwrap();
    expect!["6 15 | 2 5"].assert_eq(&shown(&merged));
    let results = added
        .finish(of(&merged), Columns::none(2), &[0, 0], &[10, 10])
        .unwrap();
    check_rows(&results, expect!["[0, 1]: 6 15 | 2 5"]);
}

#[test]
fn an_aggregate_answers_after_each_row() {
    let mut cart = aggregate("running_cart", &[]);
    let input = [
        texts(&["add", "add", "dance", "remove"]),
        integers(&[3, 5, 1, 2]),
    ];
    let state = [integers(&[10])];
    let states = States {
        existing: of(&state),
        groups: 2,
    };
    let (accumulated, rows) = cart
        .accumulate_each(
            Grouped::added(of(&input), &[0, 1, 0, 0]),
            states,
            Columns::none(2),
        )
        .unwrap();
    check_rows(&rows, expect!["[0, 1, 3]: 13 | 5 | 11"]);
    expect!["11 | 5"].assert_eq(&shown(&accumulated.states));
    assert_eq!(accumulated.rejects.len(), 1);
    assert_eq!(accumulated.rejects[0].row, 2);
}

#[test]
fn a_state_may_have_lists_and_a_result_many_rows() {
    let mut top = aggregate("top", &[("n", Value::Integer(2))]);
    let input = [
        texts(&["tea", "jam", "pen", "tea"]),
        integers(&[1, 2, 3, 9]),
    ];
    let plugin = cart();
    let top_info = plugin
        .info()
        .operators
        .iter()
        .find(|info| info.name == "top")
        .unwrap();
    let none: Vec<ArrayRef> = top_info
        .state
        .fields
        .iter()
        .map(|field| arrow_array::new_empty_array(&field.data_type.to_arrow()))
        .collect();
    let states = States {
        existing: of(&none),
        groups: 2,
    };
    let states = top
        .accumulate(Grouped::added(of(&input), &[0, 0, 0, 1]), states)
        .unwrap()
        .states;
    let results = top
        .finish(of(&states), Columns::none(2), &[0, 0], &[10, 10])
        .unwrap();
    check_rows(&results, expect!["[0, 0, 1]: 1 pen 3 | 2 jam 2 | 1 tea 9"]);
    // A slice of a list starts in the middle of its elements.
    let second: Vec<ArrayRef> = states.iter().map(|column| column.slice(1, 1)).collect();
    let results = top
        .finish(of(&second), Columns::none(1), &[0], &[10])
        .unwrap();
    check_rows(&results, expect!["[0]: 1 tea 9"]);
}

#[test]
fn an_instance_is_of_its_kind_only() {
    let failure = operator("adds", &[]).aggregate().map(drop).unwrap_err();
    expect!["a transform was opened as an aggregate, which is a bug in Sluicebox"]
        .assert_eq(&failure.message);
    let failure = operator("added", &[]).transform().map(drop).unwrap_err();
    expect!["an aggregate was opened as a transform, which is a bug in Sluicebox"]
        .assert_eq(&failure.message);
}

#[test]
fn instances_are_apart() {
    let plugin = cart();
    let factory = plugin
        .factory("adds", &[], Limits::default(), "test")
        .unwrap();
    assert!(factory.digest().starts_with("sha256:"));
    let mut instances: Vec<Box<dyn Transform>> = (0..3)
        .map(|_| factory.instance().unwrap().transform().unwrap())
        .collect();
    let input = [texts(&["add", "remove"])];
    for instance in &mut instances {
        let answer = instance.transform(of(&input)).unwrap();
        assert!(matches!(answer.output, Output::Selection(kept) if kept == [0]));
    }
    assert!(
        plugin
            .factory("nothing", &[], Limits::default(), "test")
            .is_err()
    );
}

#[test]
fn a_plugin_can_be_inspected() {
    let mut inspection = cart().inspect();
    inspection
        .operators
        .retain(|operator| ["clean", "top"].contains(&operator.name.as_str()));
    // Which version of WASI is imported is the toolchain's choice.
    inspection.imports = inspection
        .imports
        .iter()
        .filter_map(|import| import.strip_prefix("wasi:cli/std")?.split('@').next())
        .map(str::to_owned)
        .collect();
    inspection.digest = "sha256:…".into();
    inspection.bytes = 300_000;
    expect![[r#"
        cart 0.1.0
          Shopping carts: events cleaned, counted and ranked
          293 KiB, sha256:…

        clean (filter)
          Rejects events that cannot be true: without a user or an item, with an
          action that nobody knows, or about less than one or too many of an item.
          input
            user_id: utf8
            item_id: utf8
            action: add|remove|view|checkout
            quantity: int64
              How many of the item.
          output: the rows that it keeps, unchanged
          parameters
            max_quantity: integer = 1000
              The largest quantity of an event.

        top (aggregate)
          The items with the highest counts; of equal ones, the first by `item_id`.
          Takes one row an item, keyed by window bounds.
          input
            item_id: utf8
            count: int64
          state
            items: list<{item_id: utf8, count: int64}>
          output
            rank: int64
            item_id: utf8
            count: int64
          parameters
            n: integer = 10
              How many items.

        exports
          sluicebox:plugin/aggregate@0.8.0
          sluicebox:plugin/operators@0.8.0
          sluicebox:plugin/process@0.8.0
          sluicebox:plugin/transform@0.8.0

        imports
          in
          out
          err"#]]
    .assert_eq(&inspection.to_text());
    let json = serde_json::to_string_pretty(&inspection.operators[0].parameters).unwrap();
    expect![[r#"
        [
          {
            "name": "max_quantity",
            "type": "integer",
            "default": 1000,
            "required": false,
            "doc": "The largest quantity of an event."
          }
        ]"#]]
    .assert_eq(&json);
}

#[test]
fn operators_are_inspected_with_what_they_read_of_their_keys() {
    let inspection = common::LOADER
        .plugin(&common::plugin_file("basics"))
        .unwrap_or_else(|error| panic!("{error}"))
        .inspect();
    let text = inspection.to_text();
    let of = |name: &str| {
        let mut parts = text.split("\n\n");
        let part = parts.find(|part| part.starts_with(name));
        part.expect("it is an operator")
    };
    expect![[r#"
        own (aggregate)
          How many values of `n` there are, and the key that it is told. Fails on negative numbers.
          input
            n: int64
          key
            key: utf8
          state
            values: int64
            total: int64
          output
            told: utf8
            values: int64"#]]
    .assert_eq(of("own"));
    expect![[r#"
        tally (process)
          Sums amounts, and says the sum some time after a question.
          input questions
            n: int64
            letter: utf8
              What to do, separated by `;`.
          input amounts
            n: int64
          key
            key: utf8
          state
            sum: int64
          output
            key: utf8
            sum: int64
          parameters
            after_ms: integer = 1000"#]]
    .assert_eq(of("tally"));
}
