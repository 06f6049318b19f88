//! Guards that no row is taken back that nobody added, because the database has told its key
//! alone.

use super::*;

/// Decodes changes of a table in whole rows; each with the key of its message, if there is one.
fn decode_keyed(format: &RowFormat, messages: &[(Option<Value>, Value)]) -> String {
    let texts: Vec<String> = messages.iter().map(|(_, it)| it.to_string()).collect();
    let keys: Vec<Option<String>> = messages
        .iter()
        .map(|(key, _)| key.as_ref().map(Value::to_string))
        .collect();
    let mut spans = Vec::new();
    let mut data = Vec::new();
    for text in &texts {
        let start = data.len() as u32;
        data.extend_from_slice(text.as_bytes());
        spans.push((start, data.len() as u32));
    }
    let schema = Schema::new(fields());
    let mut decoder = Decoder::new(format, &schema);
    let beside = |message: usize| Beside {
        key: keys[message].as_deref().map(str::as_bytes),
        ..Beside::default()
    };
    changes(decoder.decode_messages(&data, &spans, beside), &schema)
}

/// A change that this connector has told.
fn told_by(connector: Value, op: &str, before: Value, after: Value) -> Value {
    let mut change = change(op, before, after);
    change["source"]["connector"] = connector;
    change
}

#[test]
fn a_row_that_lacks_fields_is_not_taken_back() {
    let tea = || json!({"id": 1, "name": "tea"});
    check(
        None,
        &[
            change("u", json!({"id": 1}), tea()),
            change("d", json!({"id": 1}), Value::Null),
            // The table has no such field yet.
            change("u", json!({"id": 1}), json!({"id": 2})),
            // Nor has it by its schema.
            json!({
                "schema": {"fields": [{"field": "before", "fields": [{"field": "id"}]}]},
                "payload": change("d", json!({"id": 1}), Value::Null),
            }),
            json!({
                "schema": {"fields": [{"field": "before", "fields": [
                    {"field": "id"}, {"field": "name"},
                ]}]},
                "payload": change("u", json!({"id": 1}), json!({"id": 2})),
            }),
        ],
        expect![[r#"
            2 -{"id":1,"name":null} 1700000000000
            2 +{"id":2,"name":null} 1700000000000
            3 -{"id":1,"name":null} 1700000000000
            0: field `before.name` is missing, and what is gone has to be told whole: have the database tell it (in PostgreSQL `ALTER TABLE … REPLICA IDENTITY FULL`), or name the table's key: `debezium = { key = … }`
            1: field `before.name` is missing, and what is gone has to be told whole: have the database tell it (in PostgreSQL `ALTER TABLE … REPLICA IDENTITY FULL`), or name the table's key: `debezium = { key = … }`
            4: field `before.name` is missing, and what is gone has to be told whole: have the database tell it (in PostgreSQL `ALTER TABLE … REPLICA IDENTITY FULL`), or name the table's key: `debezium = { key = … }`
        "#]],
    );
}

#[test]
fn a_key_alone_is_not_taken_back() {
    let postgres = |op: &str, before: Value, after: Value| {
        let change = told_by("postgresql".into(), op, before, after);
        (None, change)
    };
    let unknown =
        |op: &str, before: Value, after: Value| (None, told_by(Value::Null, op, before, after));
    let row = |id: i64, name: Value| json!({"id": id, "name": name, "cents": null});
    let messages = [
        postgres("d", row(0, Value::Null), Value::Null),
        // What Debezium has for a column that cannot be null.
        postgres("d", row(1, "".into()), Value::Null),
        postgres("d", row(2, "tea".into()), Value::Null),
        unknown("d", row(3, Value::Null), Value::Null),
        unknown("d", row(4, "".into()), Value::Null),
        // Another key is told of an update, and the same one is not.
        postgres("u", row(5, Value::Null), row(6, "tea".into())),
        postgres("u", row(7, Value::Null), row(7, "tea".into())),
        // They were null, and still are.
        postgres("u", row(8, Value::Null), row(9, Value::Null)),
        (
            None,
            told_by("mysql".into(), "d", row(10, Value::Null), Value::Null),
        ),
    ];
    let mut format = format(None, TextDecimals::Precise);
    expect![[r#"
        2 -{"id":2,"name":"tea"} 1700000000000
        4 -{"id":4,"name":""} 1700000000000
        6 -{"id":7,"name":null} 1700000000000
        6 +{"id":7,"name":"tea"} 1700000000000
        7 -{"id":8,"name":null} 1700000000000
        7 +{"id":9,"name":null} 1700000000000
        8 -{"id":10,"name":null} 1700000000000
        0: field `before` is a key alone, as it seems, and no whole row: have the database tell it (in PostgreSQL `ALTER TABLE … REPLICA IDENTITY FULL`), or name the table's key: `debezium = { key = … }`. If it is whole, `debezium = { replica_identity = "full" }` says so
        1: field `before` is a key alone, as it seems, and no whole row: have the database tell it (in PostgreSQL `ALTER TABLE … REPLICA IDENTITY FULL`), or name the table's key: `debezium = { key = … }`. If it is whole, `debezium = { replica_identity = "full" }` says so
        3: field `before` is a key alone, as it seems, and no whole row: have the database tell it (in PostgreSQL `ALTER TABLE … REPLICA IDENTITY FULL`), or name the table's key: `debezium = { key = … }`. If it is whole, `debezium = { replica_identity = "full" }` says so
        5: field `before` is a key alone, as it seems, and no whole row: have the database tell it (in PostgreSQL `ALTER TABLE … REPLICA IDENTITY FULL`), or name the table's key: `debezium = { key = … }`. If it is whole, `debezium = { replica_identity = "full" }` says so
    "#]].assert_eq(&decode_keyed(&format, &messages));
    format.tells_whole_rows = true;
    expect![[r#"
        0 -{"id":0,"name":null} 1700000000000
        1 -{"id":1,"name":""} 1700000000000
        2 -{"id":2,"name":"tea"} 1700000000000
        3 -{"id":3,"name":null} 1700000000000
        4 -{"id":4,"name":""} 1700000000000
        5 -{"id":5,"name":null} 1700000000000
        5 +{"id":6,"name":"tea"} 1700000000000
        6 -{"id":7,"name":null} 1700000000000
        6 +{"id":7,"name":"tea"} 1700000000000
        7 -{"id":8,"name":null} 1700000000000
        7 +{"id":9,"name":null} 1700000000000
        8 -{"id":10,"name":null} 1700000000000
    "#]]
    .assert_eq(&decode_keyed(&format, &messages));
}

#[test]
fn the_key_of_a_message_tells_which_fields_it_has() {
    let deleted = |row: Value| told_by("postgresql".into(), "d", row, Value::Null);
    let both = || json!({"id": 1, "name": "tea", "cents": 0});
    let messages = [
        (Some(json!({"id": 1, "name": "tea"})), deleted(both())),
        (
            Some(json!({"schema": null, "payload": {"id": 1, "name": "tea"}})),
            deleted(both()),
        ),
        (Some(json!({"id": 1})), deleted(both())),
        // A key that is none of the row's fields says nothing.
        (Some(json!({"other": 1})), deleted(both())),
        (Some(json!("1")), deleted(both())),
        // The key is all that the table has.
        (
            Some(json!({"id": 0, "name": ""})),
            deleted(json!({"id": 0, "name": ""})),
        ),
    ];
    let format = format(None, TextDecimals::Precise);
    expect![[r#"
        2 -{"id":1,"name":"tea"} 1700000000000
        3 -{"id":1,"name":"tea"} 1700000000000
        4 -{"id":1,"name":"tea"} 1700000000000
        5 -{"id":0,"name":""} 1700000000000
        0: field `before` is a key alone, as it seems, and no whole row: have the database tell it (in PostgreSQL `ALTER TABLE … REPLICA IDENTITY FULL`), or name the table's key: `debezium = { key = … }`. If it is whole, `debezium = { replica_identity = "full" }` says so
        1: field `before` is a key alone, as it seems, and no whole row: have the database tell it (in PostgreSQL `ALTER TABLE … REPLICA IDENTITY FULL`), or name the table's key: `debezium = { key = … }`. If it is whole, `debezium = { replica_identity = "full" }` says so
    "#]].assert_eq(&decode_keyed(&format, &messages));
}

/// As Debezium's connector writes them for columns that cannot be null, or have a default.
#[test]
fn what_stands_for_values_is_known_by_its_type() {
    let deleted = |value: &Value| {
        let row = json!({"id": 1, "name": null, "it": value});
        let change = told_by("postgresql".into(), "d", row, Value::Null);
        (Some(json!({"id": 1})), change)
    };
    let empty = json!([
        0, 0.0, false, "", "0", "0.00", "AA==", "AAAAAAAAAAA=", "{}", "1970-01-01",
        "1970-01-01T00:00:00Z", "1970-01-01T00:00:00.000000Z", "00:00:00Z", "00:00:00+00:00",
        "P0Y0M0DT0H0M0S", "00000000-0000-0000-0000-000000000000",
        {"scale": 0, "value": "AA=="},
        {"x": 0.0, "y": 0.0, "wkb": "AQEAAAAAAAAAAAAAAAAAAAAAAAAA", "srid": null},
        [], {},
    ]);
    let told = json!([
        1, true, "7", "0.01", "AQ==", "E", "T", "1970-01-02T00:00:00Z", "00:00:01Z",
        {"scale": 0, "value": "AQ=="}, {"x": 0.0, "y": 1.0, "wkb": "AQE="}, [1],
    ]);
    let format = format(None, TextDecimals::Precise);
    let rows_of = |values: &Value| {
        let values = values.as_array().expect("a list");
        let messages: Vec<_> = values.iter().map(deleted).collect();
        let decoded = decode_keyed(&format, &messages);
        let taken_back = decoded.lines().filter(|line| line.contains(" -{"));
        (values.len(), taken_back.count())
    };
    let (count, taken_back) = rows_of(&empty);
    assert_eq!((count, taken_back), (20, 0));
    let (count, taken_back) = rows_of(&told);
    assert_eq!(taken_back, count);
}

#[test]
fn defaults_show_in_messages_with_their_schema() {
    let row = |status: &str| json!({"id": 1, "name": "new", "status": status});
    let with_schema = |row: Value| {
        let fields = json!([
            {"field": "id", "type": "int64"},
            {"field": "name", "type": "string", "default": "new"},
            {"field": "status", "type": "string", "default": "open"},
        ]);
        let change = json!({
            "schema": {"fields": [{"field": "before", "fields": fields}]},
            "payload": told_by("postgresql".into(), "d", row, Value::Null),
        });
        (Some(json!({"id": 1})), change)
    };
    let messages = [with_schema(row("open")), with_schema(row("paid"))];
    let format = format(None, TextDecimals::Precise);
    expect![[r#"
        1 -{"id":1,"name":"new"} 1700000000000
        0: field `before` is a key alone, as it seems, and no whole row: have the database tell it (in PostgreSQL `ALTER TABLE … REPLICA IDENTITY FULL`), or name the table's key: `debezium = { key = … }`. If it is whole, `debezium = { replica_identity = "full" }` says so
    "#]].assert_eq(&decode_keyed(&format, &messages));
}

#[test]
fn by_a_key_nothing_else_is_needed() {
    let key: &[&str] = &["id"];
    check(
        Some(key),
        &[
            told_by(
                "postgresql".into(),
                "d",
                json!({"id": 1, "name": null}),
                Value::Null,
            ),
            change(
                "u",
                json!({"id": 1, "name": ""}),
                json!({"id": 2, "name": "tea"}),
            ),
        ],
        expect![[r#"
            0 -{"id":1,"name":null} 1700000000000
            1 -{"id":1,"name":null} 1700000000000
            1 +{"id":2,"name":"tea"} 1700000000000
        "#]],
    );
}
