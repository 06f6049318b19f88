use expect_test::expect;

use super::*;
use crate::bindings::exports::sluicebox::plugin::aggregate;
use crate::bindings::sluicebox::plugin::columns::Batch;
use crate::bindings::sluicebox::plugin::description::{Kind, Value};
use crate::prelude::*;

#[derive(Record)]
struct Row {
    n: i64,
}

#[derive(Symbol, Clone, Copy, Debug, PartialEq)]
enum Mode {
    Fast,
    Careful,
}

#[derive(Parameters, Debug)]
#[expect(dead_code, reason = "most of it is only printed")]
struct Settings {
    /// The least.
    least: i8,
    #[parameter(default = 0.5)]
    share: f64,
    #[parameter(default = "none")]
    name: String,
    #[parameter(default = ["a", "b"])]
    tags: Vec<String>,
    #[parameter(default = Mode::Fast)]
    mode: Mode,
    strict: Option<bool>,
    #[parameter(default = Decimal::from_units(1_999))]
    price: Decimal<2>,
}

/// Keeps rows that are
/// large enough.
#[operator]
fn large(row: Row, settings: &Settings) -> bool {
    row.n >= i64::from(settings.least)
}

#[operator(name = "every_row")]
fn all(_row: Row) -> bool {
    true
}

const OPERATORS: &[&[ListedOperator]] = &[large::LISTED, all::LISTED];

fn argument(name: &str, value: Value) -> Argument {
    Argument {
        name: name.to_owned(),
        value,
    }
}

fn settings(arguments: Vec<Argument>) -> String {
    match Arguments::read::<Settings>(arguments) {
        Ok(settings) => format!("{settings:?}"),
        Err(message) => message,
    }
}

#[test]
fn operators_describe_themselves() {
    let plugin = plugin("test", "1.2.3", "", OPERATORS);
    let names: Vec<&str> = plugin.operators.iter().map(|o| o.name.as_str()).collect();
    assert_eq!(names, ["large", "every_row"]);
    let large = &plugin.operators[0];
    assert_eq!(large.doc, "Keeps rows that are\nlarge enough.");
    assert_eq!(large.kind, Kind::Filter);
    let parameters: Vec<String> = large
        .parameters
        .iter()
        .map(|p| {
            format!(
                "{}: {:?} {:?} {} {}",
                p.name, p.type_, p.default, p.optional, p.doc
            )
        })
        .collect();
    expect![[r#"
        least: ValueType::Integer None false The least.
        share: ValueType::Number Some(Value::Number(0.5)) false 
        name: ValueType::Text Some(Value::Text("none")) false 
        tags: ValueType::Texts Some(Value::Texts(["a", "b"])) false 
        mode: ValueType::Text Some(Value::Text("fast")) false 
        strict: ValueType::Boolean None true 
        price: ValueType::Text Some(Value::Text("19.99")) false "#]]
    .assert_eq(&parameters.join("\n"));
}

#[test]
fn parameters_are_read_with_defaults() {
    let least = || argument("least", Value::Integer(3));
    expect![[r#"Settings { least: 3, share: 0.5, name: "none", tags: ["a", "b"], mode: Fast, strict: None, price: 19.99 }"#]]
        .assert_eq(&settings(vec![least()]));
    expect![[r#"Settings { least: 3, share: 2.0, name: "x", tags: [], mode: Careful, strict: Some(true), price: -0.50 }"#]].assert_eq(
        &settings(vec![
            argument("share", Value::Integer(2)),
            argument("name", Value::Text("x".to_owned())),
            argument("tags", Value::Texts(Vec::new())),
            argument("mode", Value::Text("careful".to_owned())),
            argument("strict", Value::Boolean(true)),
            argument("price", Value::Text("-0.5".to_owned())),
            least(),
        ]),
    );
}

#[test]
fn wrong_parameters_are_refused() {
    let least = || argument("least", Value::Integer(3));
    let messages = [
        settings(Vec::new()),
        settings(vec![argument("least", Value::Integer(1000))]),
        settings(vec![argument("least", Value::Text("3".to_owned()))]),
        settings(vec![
            least(),
            argument("mode", Value::Text("slow".to_owned())),
        ]),
        settings(vec![least(), argument("tags", Value::Text("a".to_owned()))]),
        settings(vec![
            least(),
            argument("price", Value::Text("1.999".to_owned())),
        ]),
        settings(vec![least(), argument("price", Value::Number(2.5))]),
        settings(vec![least(), argument("lest", Value::Integer(3))]),
    ];
    expect![[r#"
        parameter `least` is missing and has no default
        parameter `least`: expected an integer from -128 to 127, found 1000
        parameter `least`: expected an integer from -128 to 127, found "3"
        parameter `mode`: expected `fast` or `careful`, found "slow"
        parameter `tags`: expected a list of texts, found "a"
        parameter `price`: `1.999` is not a number of at most 38 digits, 2 of them behind the point
        parameter `price`: expected a decimal in quotes, found 2.5
        the operator has no parameter `lest`; it has `least`, `share`, `name`, `tags`, `mode`, `strict`, `price`"#]]
    .assert_eq(&messages.join("\n"));
}

#[test]
fn an_instance_is_opened_once_and_by_a_known_name() {
    expect!["the plugin has no operator `small`; it has `large`, `every_row`"]
        .assert_eq(&open(OPERATORS, "small", Vec::new()).unwrap_err());
    assert_eq!(open(OPERATORS, "every_row", Vec::new()), Ok(()));
    let again = open(OPERATORS, "every_row", Vec::new());
    assert_eq!(again, Err("this instance was opened before".to_owned()));
}

#[test]
#[should_panic(
    expected = "the host called `aggregate`, and has opened an operator of another kind"
)]
fn an_interface_of_another_kind_is_not_called() {
    open(OPERATORS, "every_row", Vec::new()).unwrap();
    let states = Batch {
        rows: 0,
        columns: Vec::new(),
    };
    <Opened as aggregate::Guest>::merge(states, Vec::new());
}
