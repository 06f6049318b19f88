//! What changes decode to, by example; and that no bytes can cause a panic.

/// What is between changes, or no change.
mod messages;
/// What fields of each type become.
mod types;
/// Rows before a change that are not told whole.
mod whole;

use std::fmt::Write as _;
use std::sync::Arc;

use expect_test::{Expect, expect};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::decode::in_tests::changes;
use crate::decode::{Beside, Decoder};
use crate::format::{DebeziumFormat, Format, RowFormat, TableChanges, TextDecimals};
use crate::schema::{DataType, Field, Schema};
use crate::timestamp::{TimeUnit, TimestampFormat};

const DECIMAL: DataType = DataType::Decimal {
    precision: 12,
    scale: 2,
};

fn field(name: &str, data_type: DataType) -> Field {
    Field::new(name, data_type, false)
}

fn nullable(name: &str, data_type: DataType) -> Field {
    Field::new(name, data_type, true)
}

/// The fields of most tests.
fn fields() -> Vec<Field> {
    vec![
        field("id", DataType::Int64),
        nullable("name", DataType::Utf8),
    ]
}

fn format(key: Option<&[&str]>, decimals: TextDecimals) -> RowFormat {
    let key = key.map(|key| key.iter().map(|&name| name.to_owned()).collect());
    RowFormat::from(Format::Debezium(DebeziumFormat {
        changes: TableChanges { key },
        decimals,
    }))
}

fn decode(
    format: &RowFormat,
    fields: &[Field],
    messages: &[String],
    tombstones: &[usize],
) -> String {
    let schema = Schema::new(fields.to_vec());
    let mut decoder = Decoder::new(format, &schema);
    let mut data = Vec::new();
    let mut spans = Vec::new();
    for message in messages {
        let start = data.len() as u32;
        data.extend_from_slice(message.as_bytes());
        spans.push((start, data.len() as u32));
    }
    let beside = |message: usize| Beside {
        is_tombstone: tombstones.contains(&message),
        ..Beside::default()
    };
    let mut once = || changes(decoder.decode_messages(&data, &spans, beside), &schema);
    let first = once();
    // What the decoder has learned from a block does not change results.
    assert_eq!(first, once());
    first
}

fn check(key: Option<&[&str]>, messages: &[Value], expected: Expect) {
    let messages: Vec<String> = messages.iter().map(Value::to_string).collect();
    let format = format(key, TextDecimals::Precise);
    expected.assert_eq(&decode(&format, &fields(), &messages, &[]));
}

fn change(op: &str, before: Value, after: Value) -> Value {
    json!({
        "before": before,
        "after": after,
        "source": {"connector": "postgresql", "ts_ms": 1_700_000_000_000_i64, "lsn": 7},
        "op": op,
        "ts_ms": 1_700_000_000_500_i64,
        "transaction": null,
    })
}

/// A value of each of these columns, with the schema of the row or without.
fn one_of_each(columns: &[(&str, Value, Value)], has_schema: bool) -> String {
    let row: serde_json::Map<String, Value> = columns
        .iter()
        .map(|(name, _, value)| ((*name).to_owned(), value.clone()))
        .collect();
    let change = change("c", Value::Null, row.into());
    if !has_schema {
        return change.to_string();
    }
    let fields = columns.iter().map(|(name, schema, _)| {
        let mut schema = schema.clone();
        schema["field"] = (*name).into();
        schema
    });
    let fields: Vec<Value> = fields.collect();
    let schema = json!({
        "type": "struct",
        "fields": [
            {"type": "struct", "fields": fields, "optional": true, "field": "before"},
            {"type": "struct", "fields": fields, "optional": true, "field": "after"},
            {"type": "string", "field": "op"},
        ],
        "name": "shop.public.items.Envelope",
    });
    json!({ "schema": schema, "payload": change }).to_string()
}

#[test]
fn each_operation_adds_and_takes_back() {
    let tea = || json!({"id": 1, "name": "tea"});
    let mate = || json!({"id": 1, "name": "mate"});
    check(
        None,
        &[
            change("r", Value::Null, tea()),
            change(
                "c",
                Value::Null,
                json!({"name": "öl 🛢", "id": 2, "more": [1]}),
            ),
            change("u", tea(), mate()),
            change("d", mate(), Value::Null),
            json!({"schema": null, "payload": change("c", Value::Null, tea())}),
            json!({"payload": change("u", tea(), mate()), "schema": {"fields": []}}),
        ],
        expect![[r#"
            0 +{"id":1,"name":"tea"} 1700000000000
            1 +{"id":2,"name":"öl 🛢"} 1700000000000
            2 -{"id":1,"name":"tea"} 1700000000000
            2 +{"id":1,"name":"mate"} 1700000000000
            3 -{"id":1,"name":"mate"} 1700000000000
            4 +{"id":1,"name":"tea"} 1700000000000
            5 -{"id":1,"name":"tea"} 1700000000000
            5 +{"id":1,"name":"mate"} 1700000000000
        "#]],
    );
}

#[test]
fn by_a_key_only_what_is_gone_is_taken_back() {
    let row = |id: i64, name: &str| json!({"id": id, "name": name});
    check(
        Some(&["id"]),
        &[
            change("c", Value::Null, row(1, "tea")),
            change("u", Value::Null, row(1, "mate")),
            change("u", row(1, "mate"), row(1, "maté")),
            change("u", json!({"id": 1}), row(2, "maté")),
            change("u", json!({"name": "maté"}), row(2, "mate")),
            change("d", json!({"id": 2, "name": ""}), Value::Null),
            change("d", json!({"name": "mate"}), Value::Null),
            change("d", json!({"id": null}), Value::Null),
        ],
        expect![[r#"
            0 +{"id":1,"name":"tea"} 1700000000000
            1 +{"id":1,"name":"mate"} 1700000000000
            2 +{"id":1,"name":"maté"} 1700000000000
            3 -{"id":1,"name":null} 1700000000000
            3 +{"id":2,"name":"maté"} 1700000000000
            4 +{"id":2,"name":"mate"} 1700000000000
            5 -{"id":2,"name":null} 1700000000000
            6: field `before.id` is missing
            7: field `before.id`: expected int64, found null
        "#]],
    );
}

#[test]
fn what_is_no_row_is_bad() {
    let row = || json!({"id": 1, "name": "tea"});
    let with = |key: &str, value: Value| {
        let mut message = change("c", Value::Null, row());
        message[key] = value;
        message
    };
    check(
        None,
        &[
            change("t", Value::Null, Value::Null),
            change("m", Value::Null, Value::Null),
            change("x", Value::Null, row()),
            change("u", Value::Null, row()),
            change("u", row(), Value::Null),
            change("c", row(), Value::Null),
            change("d", Value::Null, Value::Null),
            change("d", json!({"name": "tea"}), Value::Null),
            change("c", Value::Null, json!({"id": "1", "name": "tea"})),
            row(),
            json!([row()]),
            Value::Null,
            json!({"schema": null, "payload": null}),
            with("source", json!({"ts_ms": "now"})),
            with("source", json!({"ts_ms": 1_700_000_000_000_000_i64})),
            with("op", Value::Null),
            json!({"op": "c", "after": row()}),
            with("source", json!({"lsn": 7})),
        ],
        expect![[r#"
            17 +{"id":1,"name":"tea"} 1700000000500
            0: the table was emptied (TRUNCATE), and the message has none of the rows that are gone
            1: it is a message of the database's log (`pg_logical_emit_message`), and no row
            2: expected an `op` of c, r, u or d, found "x"
            3: has no `before`, the row that is gone: have the database tell it (in PostgreSQL `ALTER TABLE … REPLICA IDENTITY FULL`), or name the table's key: `debezium = { key = … }`
            4: has no `after`, which such a change needs
            5: has no `after`, which such a change needs
            6: has no `before`, the row that is gone: have the database tell it (in PostgreSQL `ALTER TABLE … REPLICA IDENTITY FULL`), or name the table's key: `debezium = { key = … }`
            7: field `before.id` is missing, and what is gone has to be told whole: have the database tell it (in PostgreSQL `ALTER TABLE … REPLICA IDENTITY FULL`), or name the table's key: `debezium = { key = … }`
            8: field `after.id`: expected int64, found "1"
            9: expected a change as Debezium tells it, found a record without `op` (rows that `ExtractNewRecordState` has unpacked are read by `format = "json"` with `upsert`)
            10: byte 0: expected a record, found `[{"id":1,"name":"tea"}]`
            13: field `ts_ms`: expected a time in ms, found "now"
            14: field `ts_ms`: expected a time in ms, found 1700000000000000
            15: is a change without `op`, which says what kind of change it is
            16: has neither `source.ts_ms` nor `ts_ms`, the time of the change
        "#]],
    );
}

#[test]
fn what_is_cut_or_given_twice_is_bad() {
    let whole = change("c", Value::Null, json!({"id": 1, "name": "tea"})).to_string();
    let cut = (0..whole.len()).map(|end| whole[..end].to_owned());
    let format = format(None, TextDecimals::Precise);
    let messages: Vec<String> = cut.collect();
    let decoded = decode(&format, &fields(), &messages, &[]);
    assert_eq!(decoded.lines().count(), messages.len(), "{decoded}");
    assert!(!decoded.contains('+'), "{decoded}");
    let more = |more: &str| whole.replacen('{', &format!("{{{more},"), 1);
    let messages = [
        more("\"op\":\"d\""),
        more("\"after\":null"),
        more("\"other\":1,\"other\":2"),
        format!("{whole}}}"),
        whole.replace("\"id\":1", "\"id\":1,\"id\":1"),
    ];
    expect![[r#"
        2 +{"id":1,"name":"tea"} 1700000000000
        0: field `op` is given twice
        1: field `after` is given twice
        3: byte 161: expected the end of the row, found `}`
        4: field `after.id` is given twice
    "#]]
    .assert_eq(&decode(&format, &fields(), &messages, &[]));
}

#[test]
fn a_tombstone_takes_its_key_back() {
    let messages = [
        json!({"id": 3}).to_string(),
        change("c", Value::Null, json!({"id": 1})).to_string(),
        json!({"id": 1}).to_string(),
        json!({
            "schema": {"type": "struct", "fields": [{"type": "int64", "field": "id"}]},
            "payload": {"id": 2},
        })
        .to_string(),
        json!({"other": 1}).to_string(),
        "key".to_owned(),
    ];
    let tombstones = [0, 2, 3, 4, 5];
    let by_key = format(Some(&["id"]), TextDecimals::Precise);
    expect![[r#"
        0 -{"id":3,"name":null} no time
        1 +{"id":1,"name":null} 1700000000000
        2 -{"id":1,"name":null} no time
        3 -{"id":2,"name":null} no time
        4: field `key.id` is missing
        5: field `key`: byte 0: expected a record, found `key`
    "#]]
    .assert_eq(&decode(&by_key, &fields(), &messages, &tombstones));
    // Where the whole row is told that is gone, that was told before.
    let whole = format(None, TextDecimals::Precise);
    expect![[r#"
        1 +{"id":1,"name":null} 1700000000000
    "#]]
    .assert_eq(&decode(&whole, &fields(), &messages, &tombstones));
}

#[test]
fn a_value_that_is_not_told_is_bad() {
    let unavailable = "__debezium_unavailable_value";
    let fields = vec![
        field("id", DataType::Int64),
        nullable("note", DataType::Utf8),
        nullable("data", DataType::Bytes),
        nullable(
            "tags",
            DataType::List(Arc::new(field("item", DataType::Utf8))),
        ),
    ];
    let messages = [
        json!({"id": 1, "note": unavailable}),
        json!({"id": 2, "data": "X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ=="}),
        json!({"id": 3, "tags": [unavailable]}),
        json!({"id": 4, "not_read": unavailable}),
        json!({"id": 5, "note": format!("\"{unavailable}\" and more")}),
        json!({"id": 6, "note": format!("\"{unavailable}\"")}),
    ];
    let messages = messages.map(|row| change("u", Value::Null, row).to_string());
    let format = format(Some(&["id"]), TextDecimals::Precise);
    expect![[r#"
        3 +{"id":4,"note":null,"data":null,"tags":null} 1700000000000
        4 +{"id":5,"note":"\"__debezium_unavailable_value\" and more","data":null,"tags":null} 1700000000000
        5 +{"id":6,"note":"\"__debezium_unavailable_value\"","data":null,"tags":null} 1700000000000
        0: field `after.note` is a large value that the change has left as it was, and that the database has not told of (`__debezium_unavailable_value`); it tells with `ALTER TABLE … REPLICA IDENTITY FULL`
        1: field `after.data` is a large value that the change has left as it was, and that the database has not told of (`__debezium_unavailable_value`); it tells with `ALTER TABLE … REPLICA IDENTITY FULL`
        2: field `after.tags` is a large value that the change has left as it was, and that the database has not told of (`__debezium_unavailable_value`); it tells with `ALTER TABLE … REPLICA IDENTITY FULL`
    "#]].assert_eq(&decode(&format, &fields, &messages, &[]));
}

/// Columns of a PostgreSQL table as Debezium describes and writes them.
fn encodings() -> Vec<(&'static str, Value, Value)> {
    let named = |kind: &str, name: &str| json!({"type": kind, "name": name});
    let decimal = |scale: &str| {
        json!({
            "type": "bytes",
            "name": "org.apache.kafka.connect.data.Decimal",
            "parameters": {"scale": scale, "connect.decimal.precision": "12"},
        })
    };
    vec![
        ("precise", decimal("2"), json!("BNI=")),
        ("negative", decimal("2"), json!("/w==")),
        ("finer", decimal("4"), json!("AeII")),
        ("whole", decimal("-2"), json!("DA==")),
        (
            "variable",
            named("struct", "io.debezium.data.VariableScaleDecimal"),
            json!({"scale": 1, "value": "ew=="}),
        ),
        ("text", json!({"type": "string"}), json!("12.34")),
        ("double", json!({"type": "double"}), json!(12.5)),
        (
            "day",
            named("int32", "io.debezium.time.Date"),
            json!(19_675),
        ),
        (
            "milli",
            named("int64", "io.debezium.time.Timestamp"),
            json!(1_700_000_000_123_i64),
        ),
        (
            "micro",
            named("int64", "io.debezium.time.MicroTimestamp"),
            json!(1_700_000_000_123_456_i64),
        ),
        (
            "nano",
            named("int64", "io.debezium.time.NanoTimestamp"),
            json!(1_700_000_000_123_456_789_i64),
        ),
        (
            "zoned",
            named("string", "io.debezium.time.ZonedTimestamp"),
            json!("2023-11-14T22:13:20.123456Z"),
        ),
        (
            "connect",
            named("int64", "org.apache.kafka.connect.data.Timestamp"),
            json!(1_700_000_000_123_i64),
        ),
        (
            "time",
            named("int64", "io.debezium.time.MicroTime"),
            json!(36_000_000_000_i64),
        ),
        ("data", json!({"type": "bytes"}), json!("AP8=")),
        (
            "days",
            json!({"type": "array", "items": named("int32", "io.debezium.time.Date")}),
            json!([0, 1]),
        ),
    ]
}

fn encoded_fields() -> Vec<Field> {
    let data_type = |name: &str| match name {
        "precise" | "negative" | "finer" | "whole" | "variable" | "text" | "double" => DECIMAL,
        "time" => DataType::Int64,
        "data" => DataType::Bytes,
        "days" => DataType::List(Arc::new(field("item", DataType::Timestamp))),
        _ => DataType::Timestamp,
    };
    let names = encodings().into_iter().map(|(name, ..)| name);
    names.map(|name| field(name, data_type(name))).collect()
}

#[test]
fn a_schema_says_how_values_are_written() {
    let message = one_of_each(&encodings(), true);
    let format = format(None, TextDecimals::String);
    expect![[r#"
        0 +{"precise":12.34,"negative":-0.01,"finer":12.34,"whole":1200.00,"variable":12.30,"text":12.34,"double":12.50,"day":"2023-11-14T00:00:00Z","milli":"2023-11-14T22:13:20.123Z","micro":"2023-11-14T22:13:20.123Z","nano":"2023-11-14T22:13:20.123Z","zoned":"2023-11-14T22:13:20.123Z","connect":"2023-11-14T22:13:20.123Z","time":36000000000,"data":"AP8=","days":["1970-01-01T00:00:00Z","1970-01-02T00:00:00Z"]} 1700000000000
    "#]]
    .assert_eq(&decode(&format, &encoded_fields(), &[message], &[]));
}

#[test]
fn without_a_schema_the_pipeline_says_it() {
    let left_out = ["finer", "whole", "text"];
    let columns = encodings();
    let columns: Vec<_> = columns
        .into_iter()
        .filter(|(name, ..)| !left_out.contains(name))
        .collect();
    let fields: Vec<Field> = encoded_fields()
        .into_iter()
        .filter(|field| !left_out.contains(&field.name.as_str()))
        .collect();
    let number = TimestampFormat::Number;
    let timestamps = [
        TimestampFormat::Days,
        TimestampFormat::Any,
        number(TimeUnit::Microseconds),
        number(TimeUnit::Nanoseconds),
        TimestampFormat::Any,
        TimestampFormat::Any,
        TimestampFormat::Days,
    ];
    let message = one_of_each(&columns, false);
    let mut precise = format(None, TextDecimals::Precise);
    precise.timestamp_formats = timestamps.to_vec();
    expect![[r#"
        0 +{"precise":12.34,"negative":-0.01,"variable":12.30,"double":12.50,"day":"2023-11-14T00:00:00Z","milli":"2023-11-14T22:13:20.123Z","micro":"2023-11-14T22:13:20.123Z","nano":"2023-11-14T22:13:20.123Z","zoned":"2023-11-14T22:13:20.123Z","connect":"2023-11-14T22:13:20.123Z","time":36000000000,"data":"AP8=","days":["1970-01-01T00:00:00Z","1970-01-02T00:00:00Z"]} 1700000000000
    "#]].assert_eq(&decode(&precise, &fields, &[message], &[]));
    let row = |value: Value| change("c", Value::Null, json!({"price": value, "at": 0})).to_string();
    let late = change(
        "c",
        Value::Null,
        json!({"price": 1, "at": 1_700_000_000_123_456_i64}),
    );
    let messages = [
        row("12.34".into()),
        row("BNI=".into()),
        row("!".into()),
        row("".into()),
        row(12.5.into()),
        row(json!({"scale": 2, "value": "BNI="})),
        row(json!({"scale": 3, "value": "BNI="})),
        row(json!({"scale": "2", "value": 1})),
        row("f////////////////////w==".into()),
        late.to_string(),
    ];
    let fields = [field("price", DECIMAL), field("at", DataType::Timestamp)];
    expect![[r#"
        1 +{"price":12.34,"at":"1970-01-01T00:00:00Z"} 1700000000000
        4 +{"price":12.50,"at":"1970-01-01T00:00:00Z"} 1700000000000
        5 +{"price":12.34,"at":"1970-01-01T00:00:00Z"} 1700000000000
        0: field `after.price`: expected decimal(12,2), found "12.34", which is not base64, as Debezium writes decimals by default (`decimals = "string"` reads texts)
        2: field `after.price`: expected decimal(12,2), found "!", which is not base64, as Debezium writes decimals by default (`decimals = "string"` reads texts)
        3: field `after.price`: expected decimal(12,2), found "", which is not base64, as Debezium writes decimals by default (`decimals = "string"` reads texts)
        6: field `after.price`: expected decimal(12,2), found {"scale":3,"value":"BNI="}, which has more than 2 digits after the point; it is not rounded
        7: field `after.price`: expected decimal(12,2), found {"scale":"2","value":1}
        8: field `after.price`: expected decimal(12,2), found "f////////////////////w==", which has more than 10 digits before the point
        9: field `after.at`: expected a time in ms in the years 1 to 9999, found 1700000000123456 (`timestamp(us)`, `timestamp(ns)` and `timestamp(days)` are other units)
    "#]].assert_eq(&decode(
        &format(None, TextDecimals::Precise),
        &fields,
        &messages,
        &[],
    ));
    expect![[r#"
        0 +{"price":12.34,"at":"1970-01-01T00:00:00Z"} 1700000000000
        4 +{"price":12.50,"at":"1970-01-01T00:00:00Z"} 1700000000000
        1: field `after.price`: expected decimal(12,2), found "BNI="
        2: field `after.price`: expected decimal(12,2), found "!"
        3: field `after.price`: expected decimal(12,2), found ""
        5: field `after.price`: expected decimal(12,2), found {"scale":2,"value":"BNI="}
        6: field `after.price`: expected decimal(12,2), found {"scale":3,"value":"BNI="}
        7: field `after.price`: expected decimal(12,2), found {"scale":"2","value":1}
        8: field `after.price`: expected decimal(12,2), found "f////////////////////w=="
        9: field `after.at`: expected a time in ms in the years 1 to 9999, found 1700000000123456 (`timestamp(us)`, `timestamp(ns)` and `timestamp(days)` are other units)
    "#]].assert_eq(&decode(
        &format(None, TextDecimals::String),
        &fields,
        &messages,
        &[],
    ));
}

#[test]
fn a_field_that_cannot_have_its_values_is_told() {
    let time = ("time", encodings()[13].1.clone(), json!(1));
    let decimal = ("precise", encodings()[0].1.clone(), json!("BNI="));
    let check = |column: &(&str, Value, Value), data_type: DataType, expected: Expect| {
        let message = one_of_each(std::slice::from_ref(column), true);
        let plain = change("c", Value::Null, json!({column.0: "2023-11-14T22:13:20Z"})).to_string();
        let fields = [field(column.0, data_type)];
        let format = format(None, TextDecimals::Precise);
        expected.assert_eq(&decode(&format, &fields, &[message, plain], &[]));
    };
    check(
        &time,
        DataType::Timestamp,
        expect![[r#"
            1 +{"time":"2023-11-14T22:13:20Z"} 1700000000000
            0: field `time` is a time of day, which is no `timestamp`: read it as `int64`
        "#]],
    );
    check(
        &decimal,
        DataType::Utf8,
        expect![[r#"
        1 +{"precise":"2023-11-14T22:13:20Z"} 1700000000000
        0: field `precise` is a decimal: give the field a type such as `decimal(18,2)`, or the connector `decimal.handling.mode` "string" or "double"
    "#]],
    );
}

proptest! {
    #[test]
    fn no_bytes_cause_a_panic(
        op in prop::sample::select(vec!["c", "u", "d", "r"]),
        cut in 0.0..1.0_f64,
        at in 0.0..1.0_f64,
        byte in any::<u8>(),
        has_key in any::<bool>(),
        has_schema in any::<bool>(),
    ) {
        let mut bytes = match has_schema {
            true => one_of_each(&encodings(), true).into_bytes(),
            false => change(op, json!({"precise": "BNI="}), json!({"precise": "BNI="})).to_string().into_bytes(),
        };
        let place = |share: f64, length: usize| (share * length as f64) as usize;
        let changed = place(at, bytes.len());
        bytes[changed] = byte;
        bytes.truncate(bytes.len() - place(cut * cut, bytes.len()));
        let key: &[&str] = &["precise"];
        let schema = Schema::new(encoded_fields());
        let format = format(has_key.then_some(key), TextDecimals::Precise);
        let mut decoder = Decoder::new(&format, &schema);
        let spans = [(0, bytes.len() as u32)];
        for is_tombstone in [false, true] {
            let decoded = decoder.decode_messages(&bytes, &spans, |_| Beside { is_tombstone, ..Beside::default() });
            prop_assert!(decoded.columns.iter().all(|column| column.len() == decoded.rows));
        }
    }

    #[test]
    fn whole_numbers_of_units_are_read(units in -999_999_999_999_i128..=999_999_999_999) {
        use base64::Engine as _;
        let bytes = units.to_be_bytes();
        let sign = if units < 0 { 0xFF } else { 0 };
        // As Java's `BigInteger` writes it: no longer than it has to be.
        let mut start = bytes.iter().take_while(|&&byte| byte == sign).count().min(15);
        if (bytes[start] ^ sign) & 0x80 != 0 {
            start -= 1;
        }
        let text = base64::prelude::BASE64_STANDARD.encode(&bytes[start..]);
        let message = change("c", Value::Null, json!({ "price": text })).to_string();
        let fields = [field("price", DECIMAL)];
        let decoded = decode(&format(None, TextDecimals::Precise), &fields, &[message], &[]);
        let expected = crate::decimal::to_text(units, 2);
        prop_assert_eq!(decoded, format!("0 +{{\"price\":{expected}}} 1700000000000\n"));
    }
}
