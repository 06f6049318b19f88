use expect_test::{Expect, expect};
use serde_json::json;

use super::*;

fn schema() -> Schema {
    let field = |name: &str, data_type, nullable| Field::new(name, data_type, nullable);
    Schema::new(vec![
        field("user", DataType::Utf8, false),
        field("end", DataType::Timestamp, false),
        field("count", DataType::Int64, false),
        field("mean", DataType::Float64, true),
        field(
            "tags",
            DataType::List(field("element", DataType::Utf8, false).into()),
            true,
        ),
    ])
}

fn rows(values: &[Value]) -> Vec<Map<String, Value>> {
    let rows = values
        .iter()
        .map(|value| value.as_object().expect("a row").clone());
    rows.collect()
}

fn difference(expected: &[Value], came: &[Value]) -> Difference {
    let table =
        |values| ComparableRows::parse(&schema(), &rows(values)).expect("rows of the schema");
    table(expected).compare(&table(came))
}

fn check(expected: &[Value], came: &[Value], shown: Expect) {
    shown.assert_eq(&difference(expected, came).to_string());
}

fn row(user: &str, count: i64, mean: f64) -> Value {
    json!({"user": user, "end": 60_000, "count": count, "mean": mean})
}

#[test]
fn order_and_spelling_do_not_matter() {
    let expected = [
        json!({"user": "ann", "end": "1970-01-01T00:01:00Z", "count": 3.0, "mean": 1}),
        json!({"end": 60_000, "count": "4", "user": "bob", "mean": null, "tags": ["a"]}),
    ];
    let came = [
        json!({"user": "bob", "end": "1970-01-01T00:01:00.000Z", "count": 4, "tags": ["a"]}),
        json!({"user": "ann", "end": "1970-01-01T01:01:00+01:00", "count": 3, "mean": 1.0, "tags": null}),
    ];
    assert_eq!(difference(&expected, &came), Difference::default());
}

#[test]
fn floats_are_the_same_but_for_their_last_digits() {
    let sum = 0.1 + 0.2;
    assert!(difference(&[row("ann", 1, 0.3)], &[row("ann", 1, sum)]).is_empty());
    assert!(!difference(&[row("ann", 1, 0.3)], &[row("ann", 1, 0.3001)]).is_empty());
}

#[test]
fn a_row_counts_as_often_as_it_is_there() {
    let [once, twice] = [vec![row("ann", 1, 0.5)], vec![row("ann", 1, 0.5); 2]];
    assert_eq!(difference(&twice, &once).missing.len(), 1);
    assert_eq!(difference(&once, &twice).unexpected.len(), 1);
}

#[test]
fn the_nearest_row_shows_which_fields_differ() {
    check(
        &[row("ann", 1, 0.5), row("bob", 2, 0.5), row("cem", 3, 0.5)],
        &[
            row("bob", 7, 0.5),
            row("ann", 1, 0.5),
            json!({"user": "dia", "end": 0, "count": 9}),
        ],
        expect![[r#"
            rows: 1 different, 1 missing, 1 unexpected
              ~ {"user":"bob","end":"1970-01-01T00:01:00Z","count":2,"mean":0.5,"tags":null}
                  count: expected 2, found 7
              - {"user":"cem","end":"1970-01-01T00:01:00Z","count":3,"mean":0.5,"tags":null}
              + {"user":"dia","end":"1970-01-01T00:00:00Z","count":9,"mean":null,"tags":null}"#]],
    );
}

#[test]
fn of_rows_that_are_as_near_the_one_with_the_same_key_is_taken() {
    let difference = difference(
        &[row("ann", 1, 0.5)],
        &[row("bob", 1, 0.5), row("ann", 2, 0.5)],
    );
    assert_eq!(difference.changed[0].fields[0].0, "count");
}

#[test]
fn long_lists_are_cut() {
    let many: Vec<Value> = (0..12)
        .map(|n| json!({"user": n.to_string(), "end": n, "count": n}))
        .collect();
    let text = difference(&many, &[]).to_string();
    assert!(text.starts_with("rows: 12 missing\n"), "{text}");
    assert!(text.ends_with("\n    … and 2 more"), "{text}");
}

#[test]
fn invalid_expected_rows_are_explained() {
    let refused = |row: Value, shown: Expect| {
        let (at, message) =
            ComparableRows::parse(&schema(), &rows(&[row])).expect_err("it is no row");
        assert_eq!(at, 0);
        shown.assert_eq(&message);
    };
    refused(
        json!({"usr": "ann"}),
        expect![
            "there is no field `usr`: did you mean `user`? The fields are: user, end, count, mean, tags"
        ],
    );
    refused(
        json!({"user": "ann"}),
        expect!["`end`: a value of timestamp is missing"],
    );
    refused(
        json!({"user": "ann", "end": "noon"}),
        expect![[r#"`end`: expected timestamp, found "noon""#]],
    );
    refused(
        json!({"user": "ann", "end": 0, "count": 1.5}),
        expect!["`count`: expected int64, found 1.5"],
    );
}

#[test]
fn lines_are_in_order_of_time() {
    let row = |user: &str, end: i64| json!({"user": user, "end": end, "count": 1});
    let table = ComparableRows::parse(
        &schema(),
        &rows(&[row("b", 2_000), row("c", 1_000), row("a", 2_000)]),
    );
    let users: Vec<String> = table
        .expect("rows of the schema")
        .lines()
        .iter()
        .map(|line| line[9..10].to_owned())
        .collect();
    assert_eq!(users, ["c", "a", "b"]);
}

#[test]
fn dead_letters_are_compared_by_what_is_expected_of_them() {
    let came = rows(&[
        json!({"node": "clean", "kind": "reject", "error": "no user", "offset": 7}),
        json!({"node": "clean", "kind": "reject", "error": "no item", "offset": 9}),
    ]);
    let check = |expected: &[Value], passed_over: &[String], shown: Expect| {
        let difference = dead_letters(&rows(expected), &came, passed_over);
        shown.assert_eq(&difference.to_string());
    };
    // The one that says less must not take the other's letter.
    check(
        &[json!({"kind": "reject"}), json!({"error": "no user"})],
        &[],
        expect!["dead letters: 0 missing, 0 unexpected"],
    );
    check(
        &[json!({"node": "clean", "error": "no price"})],
        &[],
        expect![[r#"
            dead letters: 1 missing, 2 unexpected
              - {"error":"no price","node":"clean"}
              + clean: reject: no user
              + clean: reject: no item"#]],
    );
    let clean = ["clean".to_owned()];
    check(
        &[json!({"node": "clean"})],
        &clean,
        expect!["dead letters: 0 missing, 0 unexpected"],
    );
    check(
        &[],
        &clean,
        expect!["dead letters: 0 missing, 0 unexpected"],
    );
}

#[test]
fn decimals_are_compared_by_all_their_digits() {
    let digits = DataType::Decimal {
        precision: 38,
        scale: 2,
    };
    let schema = Schema::new(vec![Field::new("price", digits, false)]);
    let parse = |price: Value| {
        let row = rows(&[json!({"price": price})]);
        ComparableRows::parse(&schema, &row).map_err(|(_, message)| message)
    };
    let table = |price: Value| parse(price).expect("a decimal");
    let is_same = |one: Value, other: Value| table(one).compare(&table(other)).is_empty();
    assert!(is_same(json!(12.3), json!("12.30")));
    assert!(is_same(json!(7), json!("7.00")));
    let long = "123456789012345678901234567890.12";
    assert!(is_same(json!(long), json!(long)));
    assert!(!is_same(json!(long), json!(long.replace(".12", ".13"))));
    // As tests are written, they are read.
    let shown = table(json!(long)).lines().remove(0);
    expect![[r#"{"price":"123456789012345678901234567890.12"}"#]].assert_eq(&shown);
    expect![[r#"{"price":12.30}"#]].assert_eq(&table(json!(12.3)).lines().remove(0));
    let refused = |price: Value| parse(price).expect_err("it is not exact");
    expect![[r#"`price`: 1234567890123456.8 has more digits than numbers in tests can have: write it in quotes"#]]
        .assert_eq(&refused(json!(1_234_567_890_123_456.8)));
    expect!["`price`: expected decimal(38,2), found 0.001, which has more than 2 digits after the point; it is not rounded"]
        .assert_eq(&refused(json!(0.001)));
}
