//! What rows decode to, by example; and that no bytes can cause a panic.

use std::fmt::Write as _;
use std::sync::Arc;

use expect_test::{Expect, expect};
use proptest::prelude::*;
use serde_json::{Map, Value};

use super::*;
use crate::batch::Batch;
use crate::format::CsvFormat;
use crate::json::render_row;
use crate::schema::{DataType, Field};
use crate::timestamp::{self, TimePattern, TimeUnit, TimestampFormat};

const CSV: Format = Format::Csv(CsvFormat {
    header: false,
    delimiter: b',',
});

fn field(name: &str, data_type: DataType) -> Field {
    Field::new(name, data_type, false)
}

fn nullable(name: &str, data_type: DataType) -> Field {
    Field::new(name, data_type, true)
}

fn list(element: Field) -> DataType {
    DataType::List(Arc::new(element))
}

fn symbols(values: &[&str]) -> DataType {
    DataType::Symbol(values.iter().map(|value| (*value).to_owned()).collect())
}

/// The spans of lines, as a file source finds them.
fn lines(text: &[u8]) -> Vec<(u32, u32)> {
    let mut start = 0;
    memchr::memchr_iter(b'\n', text)
        .chain([text.len()])
        .map(|end| {
            let span = (start as u32, end as u32);
            start = end + 1;
            span
        })
        .filter(|(start, end)| end > start)
        .collect()
}

/// Good rows as JSON, and the messages of bad ones.
fn render(decoded: Decoded, schema: &Schema) -> String {
    assert!(
        decoded
            .columns
            .iter()
            .all(|column| column.len() == decoded.rows)
    );
    let batch = Batch {
        schema: Arc::new(schema.clone()),
        columns: decoded.columns,
        times: vec![0; decoded.rows].into(),
        origin: None,
        watermarks: None,
        taken_back: None,
    };
    // The types are exactly those of the schema.
    batch.to_arrow().unwrap();
    let mut text = String::new();
    for row in 0..batch.rows() {
        writeln!(text, "{}", render_row(&batch, row)).unwrap();
    }
    for bad in decoded.bad {
        writeln!(text, "row {}: {}", bad.row, bad.error).unwrap();
    }
    text
}

fn check_with(
    format: &Format,
    timestamps: &[TimestampFormat],
    fields: Vec<Field>,
    text: &[u8],
    expected: Expect,
) {
    let schema = Schema::new(fields);
    let rows = RowFormat {
        timestamp_formats: timestamps.to_vec(),
        ..format.clone().into()
    };
    let mut decoder = Decoder::new(&rows, &schema);
    let first = render(decoder.decode(text, &lines(text)), &schema);
    // What the decoder has learned from a block does not change results.
    let again = render(decoder.decode(text, &lines(text)), &schema);
    assert_eq!(first, again);
    expected.assert_eq(&first);
}

fn check(fields: Vec<Field>, text: &str, expected: Expect) {
    check_with(&Format::Json, &[], fields, text.as_bytes(), expected);
}

fn check_csv(fields: Vec<Field>, text: &str, expected: Expect) {
    check_with(&CSV, &[], fields, text.as_bytes(), expected);
}

#[test]
fn a_bad_row_does_not_affect_its_neighbours() {
    let fields = vec![
        field("user", DataType::Utf8),
        field("action", symbols(&["add", "remove"])),
        field("quantity", DataType::Int32),
        nullable("note", DataType::Utf8),
    ];
    let text = r#"
{"user":"a","action":"add","quantity":1,"note":"n"}
{"user":"b","action":"add"}
{"user":"c","action":"steal","quantity":1}
{"user":"d","action":"remove","quantity":"2"}
{"user":"e","action":"remove","quantity":2147483648}
{"user":"f","action":"remove","quantity":2.5}
{"user":"g","action":"remove","quantity":-7}
{"user":null,"action":"remove","quantity":2}
{"user":"h","user":"i","action":"remove","quantity":2}
{"user":"j","action":"remove","quantity":2}}
{"user":"k","action":"remove","quantity":2
{"user":"l
[1]
nonsense
{"quantity":3,"note":null,"action":"add","user":"m","other":{"a":[1,"}"]}}
"#;
    check(
        fields,
        text,
        expect![[r#"
            {"user":"a","action":"add","quantity":1,"note":"n"}
            {"user":"g","action":"remove","quantity":-7,"note":null}
            {"user":"m","action":"add","quantity":3,"note":null}
            row 1: field `quantity` is missing
            row 2: field `action`: expected add|remove, found "steal"
            row 3: field `quantity`: expected int32, found "2"
            row 4: field `quantity`: expected int32, found 2147483648
            row 5: field `quantity`: expected int32, found 2.5, which has digits after the point; it is not rounded
            row 7: field `user`: expected utf8, found null
            row 8: field `user` is given twice
            row 9: byte 43: expected the end of the row, found `}`
            row 10: byte 42: expected `,` or `}`, found the end of the row
            row 11: field `user`: byte 10: expected `"` at the end of a text, found the end of the row
            row 12: byte 0: expected a record, found `[1]`
            row 13: byte 0: expected a record, found `nonsense`
        "#]],
    );
}

#[test]
fn invalid_utf8_is_a_bad_row() {
    let text = b"{\"a\":\"\xC3\xA9\"}\n{\"a\":\"\xC3\"}\n{\"a\":\"b\"}\n\xFF";
    check_with(
        &Format::Json,
        &[],
        vec![field("a", DataType::Utf8)],
        text,
        expect![[r#"
            {"a":"é"}
            {"a":"b"}
            row 1: byte 6: expected UTF-8 text, found other bytes
            row 3: byte 0: expected UTF-8 text, found other bytes
        "#]],
    );
}

#[test]
fn rows_that_share_a_character_are_both_bad() {
    let schema = Schema::new(vec![field("a", DataType::Utf8)]);
    let mut decoder = Decoder::new(&CSV.into(), &schema);
    // Valid UTF-8, cut in the middle of its only character.
    let decoded = decoder.decode("é".as_bytes(), &[(0, 1), (1, 2)]);
    assert_eq!((decoded.rows, decoded.bad.len()), (0, 2));
}

#[test]
fn escapes_are_taken_out_of_texts_and_names() {
    let text = r#"
{"a":"\"\\\/\b\f\n\r\t é \ud83d\ude00 ok"}
{"\u0061":"name"}
{"a":"a text that is longer than sixteen bytes, \"quoted\""}
{"a":"\x"}
{"a":"\ud83d"}
{"a":"\ud83d\u0020"}
{"a":"\u12"}
{"a":"\
{"a":"tab	in text"}
"#;
    check(
        vec![field("a", DataType::Utf8)],
        text,
        expect![[r#"
            {"a":"\"\\/\b\f\n\r\t é 😀 ok"}
            {"a":"name"}
            {"a":"a text that is longer than sixteen bytes, \"quoted\""}
            row 3: field `a`: byte 6: expected an escape that JSON has, found `\x"}`
            row 4: field `a`: byte 6: expected two escapes that are one character together, found `\ud83d"}`
            row 5: field `a`: byte 6: expected two escapes that are one character together, found `\ud83d\u0020"}`
            row 6: field `a`: byte 6: expected `\u` and four hexadecimal digits, found `\u12"}`
            row 7: field `a`: byte 6: expected an escape that JSON has, found `\`
            row 8: field `a`: byte 9: expected no control character in a text, found `	in text"}`
        "#]],
    );
}

#[test]
fn integers_keep_to_their_range() {
    let fields = vec![
        nullable("i8", DataType::Int8),
        nullable("u8", DataType::UInt8),
        nullable("i64", DataType::Int64),
        nullable("u64", DataType::UInt64),
    ];
    let text = r#"
{"i8":-128,"u8":255,"i64":-9223372036854775808,"u64":18446744073709551615}
{"i64":9223372036854775807}
{"i64":9223372036854775808}
{"i64":-9223372036854775809}
{"u64":18446744073709551616}
{"u64":-1}
{"i8":128}
{"u8":256}
{"u8":-0}
{"i64":1234567890123456}
{"i64":12345678}
{"i64":01}
{"i64":-}
{"i64":1e3}
{"i64":+1}
"#;
    check(
        fields,
        text,
        expect![[r#"
            {"i8":-128,"u8":255,"i64":-9223372036854775808,"u64":18446744073709551615}
            {"i8":null,"u8":null,"i64":9223372036854775807,"u64":null}
            {"i8":null,"u8":0,"i64":null,"u64":null}
            {"i8":null,"u8":null,"i64":1234567890123456,"u64":null}
            {"i8":null,"u8":null,"i64":12345678,"u64":null}
            {"i8":null,"u8":null,"i64":1000,"u64":null}
            row 2: field `i64`: expected int64, found 9223372036854775808
            row 3: field `i64`: expected int64, found -9223372036854775809
            row 4: field `u64`: expected uint64, found 18446744073709551616
            row 5: field `u64`: expected uint64, found -1
            row 6: field `i8`: expected int8, found 128
            row 7: field `u8`: expected uint8, found 256
            row 11: field `i64`: expected int64, found `01}`
            row 12: field `i64`: expected int64, found `-}`
            row 14: field `i64`: expected int64, found `+1}`
        "#]],
    );
}

/// However it is written; nothing is rounded.
#[test]
fn whole_numbers_may_have_a_point_or_an_exponent() {
    let fields = || {
        vec![
            nullable("i8", DataType::Int8),
            nullable("u64", DataType::UInt64),
            nullable("at", DataType::Timestamp),
        ]
    };
    let text = r#"
{"i8":1.0,"u64":1.8446744073709551615e19,"at":1.7e12}
{"i8":-12e1,"u64":5E3,"at":1700000000000.0}
{"i8":100e-2,"u64":-0.0,"at":-1.5}
{"i8":1.5}
{"i8":1e3}
{"u64":-1.0}
{"u64":1e400}
{"u64":1.}
{"at":1e400}
"#;
    check(
        fields(),
        text,
        expect![[r#"
        {"i8":1,"u64":18446744073709551615,"at":"2023-11-14T22:13:20Z"}
        {"i8":-120,"u64":5000,"at":"2023-11-14T22:13:20Z"}
        {"i8":1,"u64":0,"at":"1969-12-31T23:59:59.998Z"}
        row 3: field `i8`: expected int8, found 1.5, which has digits after the point; it is not rounded
        row 4: field `i8`: expected int8, found 1e3
        row 5: field `u64`: expected uint64, found -1.0
        row 6: field `u64`: expected uint64, found 1e400, which has more than 38 digits before the point
        row 7: field `u64`: expected uint64, found `1.}`
        row 8: field `at`: expected a time in ms since 1970 or as RFC 3339 (`timestamp(FORMAT)` reads others), found 1e400
    "#]],
    );
    let text = "
1.0,1.8446744073709551615e19,1.7e12
-12e1,5E3,1700000000000.0
+1,.5e1,-1.5
1.5,,
1e3,,
,-1.0,
,1e400,
,e,
,,1e400
";
    check_csv(
        fields(),
        text,
        expect![[r#"
        {"i8":1,"u64":18446744073709551615,"at":"2023-11-14T22:13:20Z"}
        {"i8":-120,"u64":5000,"at":"2023-11-14T22:13:20Z"}
        {"i8":1,"u64":5,"at":"1969-12-31T23:59:59.998Z"}
        row 3: field `i8`: expected int8, found `1.5`, which has digits after the point; it is not rounded
        row 4: field `i8`: expected int8, found `1e3`
        row 5: field `u64`: expected uint64, found `-1.0`
        row 6: field `u64`: expected uint64, found `1e400`, which has more than 38 digits before the point
        row 7: field `u64`: expected uint64, found `e`
        row 8: field `at`: expected a time in ms since 1970 or as RFC 3339 (`timestamp(FORMAT)` reads others), found `1e400`
    "#]],
    );
}

#[test]
fn floats_and_booleans() {
    let fields = vec![
        nullable("f32", DataType::Float32),
        nullable("f64", DataType::Float64),
        nullable("b", DataType::Bool),
    ];
    let text = r#"
{"f32":1,"f64":-0.5e-3,"b":true}
{"f32":0.1,"f64":0.1,"b":false}
{"f32":1e39}
{"f64":1e309}
{"f64":.5}
{"f64":NaN}
{"b":1}
{"b":truely}
"#;
    check(
        fields,
        text,
        expect![[r#"
            {"f32":1.0,"f64":-0.0005,"b":true}
            {"f32":0.1,"f64":0.1,"b":false}
            row 2: field `f32`: expected float32, found 1e39
            row 3: field `f64`: expected float64, found 1e309
            row 4: field `f64`: expected float64, found `.5}`
            row 5: field `f64`: expected float64, found `NaN}`
            row 6: field `b`: expected bool, found 1
            row 7: byte 9: expected `,` or `}`, found `ly}`
        "#]],
    );
}

fn decimal(precision: u8, scale: u8) -> DataType {
    DataType::Decimal { precision, scale }
}

#[test]
fn decimals_are_never_rounded() {
    let fields = || {
        vec![
            nullable("price", decimal(5, 2)),
            nullable("all", decimal(38, 0)),
            nullable("list", list(field("", decimal(3, 1)))),
        ]
    };
    let text = r#"
{"price":1.5,"all":99999999999999999999999999999999999999,"list":[1,"2.50",-0.1]}
{"price":"-999.990","all":"-1e37","list":[]}
{"price":1e2,"all":null}
{"price":1.005}
{"price":"1.005"}
{"price":1000}
{"all":1e38}
{"all":0.5}
{"price":"many"}
{"price":true}
{"price":01}
{"list":[1,22.25]}
"#;
    check(
        fields(),
        text,
        expect![[r#"
        {"price":1.50,"all":99999999999999999999999999999999999999,"list":[1.0,2.5,-0.1]}
        {"price":-999.99,"all":-10000000000000000000000000000000000000,"list":[]}
        {"price":100.00,"all":null,"list":null}
        row 3: field `price`: expected decimal(5,2), found 1.005, which has more than 2 digits after the point; it is not rounded
        row 4: field `price`: expected decimal(5,2), found "1.005", which has more than 2 digits after the point; it is not rounded
        row 5: field `price`: expected decimal(5,2), found 1000, which has more than 3 digits before the point
        row 6: field `all`: expected decimal(38,0), found 1e38, which has more than 38 digits before the point
        row 7: field `all`: expected decimal(38,0), found 0.5, which has digits after the point; it is not rounded
        row 8: field `price`: expected decimal(5,2), found "many"
        row 9: field `price`: expected decimal(5,2), found true
        row 10: field `price`: expected decimal(5,2), found `01}`
        row 11: field `list[1]`: expected decimal(3,1), found 22.25, which has more than 1 digits after the point; it is not rounded
    "#]],
    );
    let text = "\
1.5,+7,\"[1.5]\"
 -0.01 ,\"12\",
,,
1.005,1,
1000,1,
x,1,
";
    check_csv(
        fields(),
        text,
        expect![[r#"
        {"price":1.50,"all":7,"list":[1.5]}
        {"price":-0.01,"all":12,"list":null}
        {"price":null,"all":null,"list":null}
        row 3: field `price`: expected decimal(5,2), found `1.005`, which has more than 2 digits after the point; it is not rounded
        row 4: field `price`: expected decimal(5,2), found `1000`, which has more than 3 digits before the point
        row 5: field `price`: expected decimal(5,2), found `x`
    "#]],
    );
}

#[test]
fn timestamps_are_read_as_the_plan_says() {
    let fields = || {
        vec![
            nullable("any", DataType::Timestamp),
            nullable(
                "in",
                DataType::Record([nullable("ms", DataType::Timestamp)].into()),
            ),
            nullable("s", list(field("", DataType::Timestamp))),
            nullable("text", DataType::Timestamp),
        ]
    };
    let formats = [
        TimestampFormat::Any,
        TimestampFormat::Number(TimeUnit::Milliseconds),
        TimestampFormat::Number(TimeUnit::Seconds),
        TimestampFormat::Rfc3339,
    ];
    let text = r#"
{"any":1700000000000,"in":{"ms":1700000000000},"s":[1700000000,1700000000.25],"text":"2023-11-14T22:13:20Z"}
{"any":"2023-11-14T23:13:20.5+01:00","in":{"ms":-1}}
{"any":1700000000000.9}
{"any":"soon"}
{"in":{"ms":"2023-11-14T22:13:20Z"}}
{"s":[1700000000,"2023-11-14T22:13:20Z"]}
{"text":1700000000000}
{"text":"2023-11-14T22:13:20"}
"#;
    check_with(
        &Format::Json,
        &formats,
        fields(),
        text.as_bytes(),
        expect![[r#"
            {"any":"2023-11-14T22:13:20Z","in":{"ms":"2023-11-14T22:13:20Z"},"s":["2023-11-14T22:13:20Z","2023-11-14T22:13:20.250Z"],"text":"2023-11-14T22:13:20Z"}
            {"any":"2023-11-14T22:13:20.500Z","in":{"ms":"1969-12-31T23:59:59.999Z"},"s":null,"text":null}
            {"any":"2023-11-14T22:13:20Z","in":null,"s":null,"text":null}
            row 3: field `any`: expected a time in ms since 1970 or as RFC 3339 (`timestamp(FORMAT)` reads others), found "soon"
            row 4: field `in.ms`: expected a time in ms since 1970, found "2023-11-14T22:13:20Z"
            row 5: field `s[1]`: expected a time in seconds since 1970, found "2023-11-14T22:13:20Z"
            row 6: field `text`: expected a time as RFC 3339, found 1700000000000
            row 7: field `text`: expected a time as RFC 3339, found "2023-11-14T22:13:20"
        "#]],
    );
}

/// Those of bad rows are not counted.
#[test]
fn times_that_are_cut_are_counted() {
    let row = DataType::Record(vec![field("at", DataType::Timestamp)].into());
    let schema = Schema::new(vec![
        field("rows", list(field("element", row))),
        field("n", DataType::Int8),
    ]);
    let mut decoder = Decoder::new(&Format::Json.into(), &schema);
    let mut cut = |text: &str| {
        decoder
            .decode(text.as_bytes(), &lines(text.as_bytes()))
            .cut_times
    };
    assert_eq!(cut("{\"rows\":[{\"at\":1.0}],\"n\":1}\n"), None);
    let text = "{\"rows\":[{\"at\":5.5},{\"at\":6.0}],\"n\":\"bad\"}
{\"rows\":[{\"at\":1.0},{\"at\":-2.5}],\"n\":1}
{\"rows\":[{\"at\":\"2024-01-01T10:00:00.123456Z\"},{\"at\":7.1}],\"n\":1}
{\"rows\":[{\"at\":8.1}],\"n\":1.5}
";
    let expected = CutTimes {
        values: 3,
        example: "`-2.5` of field `rows` was read as 1969-12-31T23:59:59.997Z".to_owned(),
    };
    assert_eq!(cut(text), Some(expected));
    assert_eq!(cut("{\"rows\":[],\"n\":1}\n"), None);
}

#[test]
fn timestamps_can_have_a_pattern_of_their_own() {
    let pattern = |pattern, zone| {
        TimestampFormat::Pattern(Arc::new(TimePattern::new(pattern, zone).unwrap()))
    };
    let formats = [
        pattern("%d/%m/%Y %H:%M", Some("Europe/London")),
        pattern("%Y%m%d", None),
        TimestampFormat::Number(TimeUnit::Microseconds),
    ];
    let fields = || {
        vec![
            field("at", DataType::Timestamp),
            nullable("day", DataType::Timestamp),
            nullable("us", DataType::Timestamp),
        ]
    };
    check_with(
        &Format::Json,
        &formats,
        fields(),
        br#"
{"at":"1/7/2011 8:26","day":20110701,"us":-1}
{"at":"01/07/2011 08:26","day":"20110701","us":1700000000000999}
{"at":"2011-07-01T08:26:00Z"}
{"at":1309505160000}
{"at":"1/7/2011 8:26","day":20111301}
"#,
        expect![[r#"
            {"at":"2011-07-01T07:26:00Z","day":"2011-07-01T00:00:00Z","us":"1969-12-31T23:59:59.999Z"}
            {"at":"2011-07-01T07:26:00Z","day":"2011-07-01T00:00:00Z","us":"2023-11-14T22:13:20Z"}
            row 2: field `at`: expected a time as `%d/%m/%Y %H:%M`, found "2011-07-01T08:26:00Z"
            row 3: field `at`: expected a time as `%d/%m/%Y %H:%M`, found 1309505160000
            row 4: field `day`: expected a time as `%Y%m%d`, found 20111301
        "#]],
    );
    check_with(
        &CSV,
        &formats,
        fields(),
        b"1/7/2011 8:26,20110701,1700000000000999
\"1/7/2011 8:26\",,
 31/12/2011 23:59 ,,
31/11/2011 23:59,,
,,
1/7/2011 8:26,,2011-07-01T08:26:00Z
",
        expect![[r#"
            {"at":"2011-07-01T07:26:00Z","day":"2011-07-01T00:00:00Z","us":"2023-11-14T22:13:20Z"}
            {"at":"2011-07-01T07:26:00Z","day":null,"us":null}
            {"at":"2011-12-31T23:59:00Z","day":null,"us":null}
            row 3: field `at`: expected a time as `%d/%m/%Y %H:%M`, found `31/11/2011 23:59`
            row 4: field `at`: expected a time as `%d/%m/%Y %H:%M`, found nothing
            row 5: field `us`: expected a time in µs since 1970, found `2011-07-01T08:26:00Z`
        "#]],
    );
}

#[test]
fn fields_can_have_another_name_in_the_bytes() {
    let schema = Schema::new(vec![
        field("invoice", DataType::Utf8),
        field("InvoiceNo", DataType::Int64),
    ]);
    let names = [("invoice", "InvoiceNo"), ("InvoiceNo", "Invoice No.")];
    let named = |format: Format| RowFormat {
        names: names
            .map(|(own, written)| (own.to_owned(), written.to_owned()))
            .into(),
        ..format.into()
    };
    let text = br#"{"InvoiceNo":"a","Invoice No.":1,"invoice":2}
{"invoice":"a","Invoice No.":1}
{"InvoiceNo":"a","Invoice No.":"b"}"#;
    let decoded = Decoder::new(&named(Format::Json), &schema).decode(text, &lines(text));
    expect![[r#"
        {"invoice":"a","InvoiceNo":1}
        row 1: field `InvoiceNo` is missing
        row 2: field `Invoice No.`: expected int64, found "b"
    "#]]
    .assert_eq(&render(decoded, &schema));

    let mut csv = Decoder::new(&named(CSV), &schema);
    csv.read_header(b"Invoice No.,invoice,InvoiceNo").unwrap();
    let decoded = csv.decode(b"1,2,a", &[(0, 5)]);
    assert_eq!(
        render(decoded, &schema),
        "{\"invoice\":\"a\",\"InvoiceNo\":1}\n"
    );
}

#[test]
fn records_and_lists_nest() {
    let line =
        DataType::Record([field("sku", DataType::Utf8), nullable("n", DataType::Int64)].into());
    let fields = vec![
        nullable("lines", list(field("", line))),
        nullable("tags", list(nullable("", DataType::Utf8))),
        nullable("raw", DataType::Bytes),
        nullable("empty", DataType::Record([].into())),
    ];
    let text = r#"
 { "lines" : [ { "sku" : "a" , "n" : 1 } , { "n":null,"sku":"b" } ] , "tags" : [ "x" , null ] , "raw" : "aGk=" , "empty" : { } } 
{"lines":[],"tags":[],"raw":"","empty":{"x":1}}
{"lines":[{"sku":"c"},{"n":1}]}
{"lines":[{"sku":"c"},{"sku":7}]}
{"lines":{"sku":"c"}}
{"tags":["a",]}
{"tags":["a" "b"]}
{"raw":"a?"}
{"empty":[]}
"#;
    check(
        fields,
        text,
        expect![[r#"
            {"lines":[{"sku":"a","n":1},{"sku":"b","n":null}],"tags":["x",null],"raw":"aGk=","empty":{}}
            {"lines":[],"tags":[],"raw":"","empty":{}}
            row 2: field `lines[1].sku` is missing
            row 3: field `lines[1].sku`: expected utf8, found 7
            row 4: field `lines`: expected list<{sku: utf8, n: int64?}>, found {"sku":"c"}
            row 5: field `tags[1]`: expected utf8, found `]}`
            row 6: field `tags`: byte 13: expected `,` or `]`, found `"b"]}`
            row 7: field `raw`: expected bytes as base64, found "a?"
            row 8: field `empty`: expected {}, found []
        "#]],
    );
}

#[test]
fn skipped_fields_must_be_valid_json() {
    let deep = |depth: usize| format!("{{\"x\":{}{}}}\n", "[".repeat(depth), "]".repeat(depth));
    let text = format!(
        r#"
{{"x":{{"a":[1,2,{{}}],"b":"\n"}},"y":-1.5e+7,"z":null}}
{{"x":[1,2}}
{{"x":01}}
{{"x":nul}}
{{"x"}}
{{"x":1,}}
{{x:1}}
{}{}"#,
        deep(128),
        deep(129),
    );
    check(
        vec![],
        &text,
        expect![[r#"
            {}
            {}
            row 1: byte 9: expected `,` or `]`, found `}`
            row 2: byte 5: expected a value, found `01}`
            row 3: byte 5: expected a value, found `nul}`
            row 4: byte 4: expected `:`, found `}`
            row 5: byte 7: expected a field's name in quotes, found `}`
            row 6: byte 1: expected a field's name in quotes, found `x:1}`
            row 8: byte 133: expected values nested at most 128 deep, found `[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]…`
        "#]],
    );
}

#[test]
fn csv_fields_are_in_order() {
    let fields = vec![
        field("user", DataType::Utf8),
        nullable("note", DataType::Utf8),
        nullable("n", DataType::Int64),
        nullable("price", DataType::Float64),
        nullable("at", DataType::Timestamp),
        nullable("ok", DataType::Bool),
        nullable("tags", list(field("", DataType::Utf8))),
    ];
    let text = r#"
ada,hi,1,0.5,1700000000000,true,"[""x"",""y""]"
"a, ""b""","", 2 ,,2023-11-14T22:13:20Z,false,[]
,,,,,,
5" pipe,x,1,1,,,
eve,x,1
eve,x,1,1,,,,
eve,x,one,1,,,
eve,x,1,inf,,,
eve,x,1,1,soon,,
eve,x,1,1,,yes,
eve,x,1,1,,,[1]
eve,"x"y,1,1,,,
eve,"x,1,1,,,
"#;
    check_csv(
        fields,
        text,
        expect![[r#"
            {"user":"ada","note":"hi","n":1,"price":0.5,"at":"2023-11-14T22:13:20Z","ok":true,"tags":["x","y"]}
            {"user":"a, \"b\"","note":"","n":2,"price":null,"at":"2023-11-14T22:13:20Z","ok":false,"tags":[]}
            {"user":"","note":null,"n":null,"price":null,"at":null,"ok":null,"tags":null}
            {"user":"5\" pipe","note":"x","n":1,"price":1.0,"at":null,"ok":null,"tags":null}
            row 4: expected 7 fields, found 3
            row 5: expected 7 fields, found 8
            row 6: field `n`: expected int64, found `one`
            row 7: field `price`: expected float64, found `inf`
            row 8: field `at`: expected a time in ms since 1970 or as RFC 3339 (`timestamp(FORMAT)` reads others), found `soon`
            row 9: field `ok`: expected true or false, found `yes`
            row 10: field `tags[0]`: expected utf8, found 1
            row 11: byte 7: expected `,` behind the quoted field, found y,1,1,,,
            row 12: byte 4: expected `"` at the end of the field, found "x,1,1,,,
        "#]],
    );
}

#[test]
fn a_csv_header_says_which_column_is_where() {
    let schema = Schema::new(vec![
        field("a", DataType::Int64),
        nullable("b", DataType::Int64),
        nullable("c", DataType::Int64),
    ]);
    let mut decoder = Decoder::new(&CSV.into(), &schema);
    let header = decoder.read_header(b"c,other,\"a\"").unwrap();
    assert_eq!(header.fields, 3);
    expect![
        "the header has no column `b`, which is null in all its rows; it names `c`, `other`, `a`"
    ]
    .assert_eq(&header.lacks.unwrap());
    let decoded = decoder.decode(b"3,x,1", &[(0, 5)]);
    assert_eq!(render(decoded, &schema), "{\"a\":1,\"b\":null,\"c\":3}\n");

    let others_twice = Decoder::new(&CSV.into(), &schema).read_header(b"a,,c,,x,x");
    assert!(others_twice.is_ok(), "{others_twice:?}");

    let fails = |header: &[u8]| {
        Decoder::new(&CSV.into(), &schema)
            .read_header(header)
            .unwrap_err()
    };
    expect!["the header has no column `a`, which the fields have; it names `b`, `c`"]
        .assert_eq(&fails(b"b,c"));
    expect![[r#"the header has no column `a`, which the fields have; it names `a	b	c` (one column; if it is several, give the source `csv = { delimiter = "\t" }`)"#]].assert_eq(&fails(b"a\tb\tc"));
    expect!["the header names column `a` twice"].assert_eq(&fails(b"a,b,a"));
    expect![[r"the header has no column `a`, which the fields have; it names `a\nx`, `c`"]]
        .assert_eq(&fails(b"\"a\nx\",c"));
    expect![[r#"in the header: byte 0: expected `"` at the end of the field, found "a"#]]
        .assert_eq(&fails(b"\"a"));
}

#[test]
fn what_a_csv_header_lacks_is_said_with_what_may_be_meant() {
    let schema = Schema::new(vec![
        field("id", DataType::Int64),
        nullable("price", DataType::Utf8),
    ]);
    let read = |header: &str| {
        let mut decoder = Decoder::new(&CSV.into(), &schema);
        decoder.read_header(header.as_bytes()).map(|it| it.lacks)
    };
    for header in [
        "id,price",
        "price,id\r\r\n",
        "id,price\r",
        "\"id\",\"price\"",
    ] {
        assert_eq!(read(header), Ok(None), "{header}");
    }
    for (header, near) in [
        ("id, price", "; is `price` its ` price`, which has a blank?"),
        (
            "id,price\t",
            "; is `price` its `price\t`, which has a blank?",
        ),
        (
            "id,\u{FEFF}price",
            "; is `price` its `\u{FEFF}price`, which has a blank?",
        ),
        (
            "id,\u{A0}Price",
            "; is `price` its `\u{A0}Price`, which has a blank?",
        ),
        ("id,Price", "; is `price` its `Price`?"),
        ("id,prise", "; is `price` its `prise`?"),
        ("id,other", ""),
    ] {
        let lacks = read(header).unwrap().unwrap();
        let named = header.replace(',', "`, `");
        let expected = format!(
            "the header has no column `price`, which is null in all its rows; it names \
             `{named}`{near}"
        );
        assert_eq!(lacks, expected);
    }
    expect!["the header has no column `id`, which the fields have; it names ` id`, `price`; is `id` its ` id`, which has a blank?"].assert_eq(&read(" id,price").unwrap_err());
    let none = |header: &str| {
        let schema = Schema::new(vec![
            nullable("id", DataType::Int64),
            nullable("b", DataType::Utf8),
        ]);
        let mut decoder = Decoder::new(&CSV.into(), &schema);
        decoder.read_header(header.as_bytes()).unwrap_err()
    };
    expect![[r#"the header has none of the fields; it names `id;b` (one column; if it is several, give the source `csv = { delimiter = ";" }`)"#]].assert_eq(&none("id;b"));
    expect![[r#"expected lines that end in `\n` or `\r\n`, found a `\r` alone outside quotes, as lines of old Macs end: convert it (`tr '\r' '\n'`), or quote the value if it has one"#]].assert_eq(&none("id\r1\r2"));
}

#[test]
fn a_return_alone_ends_no_line_of_csv() {
    let schema = Schema::new(vec![
        field("id", DataType::Int64),
        nullable("b", DataType::Utf8),
    ]);
    let mut decoder = Decoder::new(&CSV.into(), &schema);
    let error = decoder.read_header(b"id,b\r1,x\r2,y").unwrap_err();
    expect![[r#"expected lines that end in `\n` or `\r\n`, found a `\r` alone outside quotes, as lines of old Macs end: convert it (`tr '\r' '\n'`), or quote the value if it has one"#]].assert_eq(&error);
    check_csv(
        schema.fields,
        "1,x\r2,y\n1,\"x\ry\"\n1,x\ry\n1,x\r\r\n",
        expect![[r#"
            {"id":1,"b":"x\ry"}
            {"id":1,"b":"x"}
            row 0: expected lines that end in `\n` or `\r\n`, found a `\r` alone outside quotes, as lines of old Macs end: convert it (`tr '\r' '\n'`), or quote the value if it has one
            row 2: expected lines that end in `\n` or `\r\n`, found a `\r` alone outside quotes, as lines of old Macs end: convert it (`tr '\r' '\n'`), or quote the value if it has one
        "#]],
    );
}

/// A schema with every type, some nullable and nested.
fn everything() -> Schema {
    let line = [
        field("sku", DataType::Utf8),
        nullable("at", DataType::Timestamp),
    ];
    Schema::new(vec![
        field("text", DataType::Utf8),
        nullable("action", symbols(&["add", "remove"])),
        field("i8", DataType::Int8),
        nullable("u64", DataType::UInt64),
        field("i64", DataType::Int64),
        nullable("f64", DataType::Float64),
        nullable("ok", DataType::Bool),
        field("at", DataType::Timestamp),
        nullable(
            "lines",
            list(field("", DataType::Record(line.clone().into()))),
        ),
        field("tags", list(nullable("", DataType::Utf8))),
        nullable("address", DataType::Record(line.into())),
    ])
}

/// A row as an author may write it, with fields in any order, and unknown ones.
fn any_row() -> impl Strategy<Value = Map<String, Value>> {
    fn value_of(data_type: &DataType) -> BoxedStrategy<Value> {
        match data_type {
            DataType::Utf8 => any::<String>().prop_map(Value::from).boxed(),
            DataType::Symbol(symbols) => prop::sample::select(symbols.to_vec())
                .prop_map(Value::from)
                .boxed(),
            DataType::Int8 => any::<i8>().prop_map(Value::from).boxed(),
            DataType::UInt64 => any::<u64>().prop_map(Value::from).boxed(),
            DataType::Int64 => any::<i64>().prop_map(Value::from).boxed(),
            // Only floats that every reader parses alike.
            DataType::Float64 => any::<i32>()
                .prop_map(|n| Value::from(f64::from(n) / 8.0))
                .boxed(),
            DataType::Bool => any::<bool>().prop_map(Value::from).boxed(),
            DataType::Timestamp => (timestamp::FIRST_MS..=timestamp::LAST_MS, any::<bool>())
                .prop_map(|(ms, as_text)| match as_text {
                    true => timestamp::to_text(ms).into(),
                    false => ms.into(),
                })
                .boxed(),
            DataType::List(element) => prop::collection::vec(value_in(element), 0..3)
                .prop_map(Value::from)
                .boxed(),
            DataType::Record(fields) => record_of(fields).prop_map(Value::from).boxed(),
            other => unreachable!("{other} is not among everything"),
        }
    }
    fn value_in(field: &Field) -> BoxedStrategy<Value> {
        let value = value_of(&field.data_type);
        if field.nullable {
            prop_oneof![3 => value, 1 => Just(Value::Null)].boxed()
        } else {
            value
        }
    }
    fn record_of(fields: &[Field]) -> impl Strategy<Value = Map<String, Value>> + use<> {
        let values: Vec<_> = fields.iter().map(value_in).collect();
        let names: Vec<_> = fields.iter().map(|field| field.name.clone()).collect();
        values.prop_map(move |values| names.iter().cloned().zip(values).collect())
    }
    (record_of(&everything().fields), any::<Option<i32>>()).prop_map(|(mut row, other)| {
        row.extend(other.map(|other| ("other".to_owned(), other.into())));
        row
    })
}

/// The row with exactly the schema's fields, and times as text.
fn canonical(fields: &[Field], row: &Map<String, Value>) -> Value {
    fn value(data_type: &DataType, given: &Value) -> Value {
        match (data_type, given) {
            (_, Value::Null) => Value::Null,
            (DataType::Timestamp, Value::Number(ms)) => {
                timestamp::to_text(ms.as_i64().unwrap()).into()
            }
            (DataType::Record(fields), Value::Object(row)) => canonical(fields, row),
            (DataType::List(element), Value::Array(values)) => values
                .iter()
                .map(|given| value(&element.data_type, given))
                .collect(),
            _ => given.clone(),
        }
    }
    let null = Value::Null;
    let fields = fields.iter().map(|field| {
        let given = row.get(&field.name).unwrap_or(&null);
        (field.name.clone(), value(&field.data_type, given))
    });
    Value::Object(fields.collect())
}

fn good_rows(decoded: Decoded, schema: &Schema) -> Vec<Value> {
    assert_eq!(decoded.bad, []);
    let rendered = render(decoded, schema);
    rendered
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// A number in other words: with a point that is moved by an exponent, and zeros.
fn spelled(number: i64, shift: usize, zeros: usize) -> String {
    let sign = if number < 0 { "-" } else { "" };
    let digits = number.unsigned_abs().to_string();
    let point = digits.len().saturating_sub(shift).max(1);
    let (whole, fraction) = digits.split_at(point);
    let zeros = "0".repeat(zeros + usize::from(fraction.is_empty()));
    format!("{sign}{whole}.{fraction}{zeros}e{}", digits.len() - point)
}

proptest! {
    #[test]
    fn a_number_is_the_same_however_it_is_written(
        number in any::<i64>(),
        small in any::<i16>(),
        shift in 0usize..20,
        zeros in 0usize..4,
    ) {
        let schema = Schema::new(vec![
            field("number", DataType::Int64),
            field("small", DataType::Int16),
            field("at", DataType::Timestamp),
        ]);
        let [number_text, small_text] =
            [number, small.into()].map(|number| spelled(number, shift, zeros));
        for (format, row) in [
            (Format::Json, format!(
                "{{\"number\":{number_text},\"small\":{small_text},\"at\":{small_text}}}"
            )),
            (CSV, format!("{number_text},{small_text},{small_text}")),
        ] {
            let mut decoder = Decoder::new(&format.into(), &schema);
            let decoded = decoder.decode(row.as_bytes(), &[(0, row.len() as u32)]);
            prop_assert_eq!(decoded.cut_times.clone(), None);
            let plain = serde_json::json!({ "number": number, "small": small,
                "at": timestamp::to_text(small.into()) });
            prop_assert_eq!(good_rows(decoded, &schema), vec![plain], "{}", row);
        }
    }

    #[test]
    fn reads_all_json_that_fits_the_schema(
        rows in prop::collection::vec((any_row(), any::<bool>(), any::<u64>()), 1..5),
    ) {
        let schema = everything();
        let mut text = Vec::new();
        let mut spans = Vec::new();
        for (row, pretty, order) in &rows {
            // In another order than the schema's.
            let mut fields: Vec<_> = row.iter().collect();
            let turn = *order as usize % fields.len();
            fields.rotate_left(turn);
            let parts: Vec<_> = fields
                .iter()
                .map(|(name, value)| match pretty {
                    true => format!(" {} :\t{value:#} ", Value::from(name.as_str())),
                    false => format!("{}:{value}", Value::from(name.as_str())),
                })
                .collect();
            let start = text.len() as u32;
            text.extend_from_slice(format!("{{{}}}", parts.join(",")).as_bytes());
            spans.push((start, text.len() as u32));
        }
        let decoded = Decoder::new(&Format::Json.into(), &schema).decode(&text, &spans);
        let expected: Vec<_> =
            rows.iter().map(|(row, _, _)| canonical(&schema.fields, row)).collect();
        prop_assert_eq!(good_rows(decoded, &schema), expected);
    }

    #[test]
    fn agrees_with_serde_json_on_what_is_json(
        text in prop_oneof![
            // Texts that look like JSON, and mostly are not.
            r#"\{("[ab\\u00e9]{0,3}":(-?[0-9.eE+-]{1,4}|true|null|"[^"]{0,5}"|\[[0-9,]{0,3}\]),?){0,3}\}"#,
            any_row().prop_map(|row| Value::Object(row).to_string()),
        ],
        cut in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        change in 0..3,
    ) {
        let mut text = text.into_bytes();
        match change {
            0 => text.truncate(cut.index(text.len() + 1)),
            1 if !text.is_empty() => {
                let at = at.index(text.len());
                text[at] = byte;
            }
            _ => {}
        }
        let theirs: Result<Map<String, Value>, _> = serde_json::from_slice(&text);
        let ours = Decoder::new(&Format::Json.into(), &Schema::default())
            .decode(&text, &[(0, text.len() as u32)]);
        match theirs {
            Ok(_) => prop_assert_eq!(ours.bad, []),
            // Serde refuses large numbers even in fields that are skipped.
            Err(error) if error.to_string().starts_with("number out of range") => {}
            Err(error) => prop_assert_eq!(ours.rows, 0, "{}", error),
        }
    }

    /// With bad rows among good ones, in either format, the good rows decode as
    /// they would alone.
    #[test]
    fn random_bytes_do_not_affect_good_rows(
        rows in prop::collection::vec(
            prop_oneof![
                prop::collection::vec(any::<u8>(), 0..60),
                (any_row(), any::<prop::sample::Index>()).prop_map(|(row, cut)| {
                    let mut text = Value::Object(row).to_string().into_bytes();
                    text.truncate(cut.index(text.len() + 1));
                    text
                }),
                any_row().prop_map(|row| Value::Object(row).to_string().into_bytes()),
                r#"[a-z",\n]{0,30}"#.prop_map(String::into_bytes),
            ],
            0..8,
        ),
        csv in any::<bool>(),
    ) {
        let format = if csv { CSV } else { Format::Json };
        let schema = everything();
        let spans_of = |rows: &[&Vec<u8>]| {
            let mut at = 0;
            rows.iter()
                .map(|row| {
                    let start = at;
                    at += row.len() as u32;
                    (start, at)
                })
                .collect::<Vec<_>>()
        };
        let all: Vec<_> = rows.iter().collect();
        let together = Decoder::new(&format.clone().into(), &schema).decode(&rows.concat(), &spans_of(&all));
        let is_bad = |row: &usize| together.bad.iter().any(|bad| bad.row as usize == *row);
        let good: Vec<_> = (0..rows.len()).filter(|row| !is_bad(row)).map(|row| &rows[row]).collect();
        prop_assert_eq!(together.rows, good.len());
        let good_text: Vec<u8> = good.iter().flat_map(|row| row.iter().copied()).collect();
        let alone = Decoder::new(&format.clone().into(), &schema).decode(&good_text, &spans_of(&good));
        prop_assert_eq!(&alone.bad, &[]);
        prop_assert_eq!(alone.columns, together.columns);
    }

    #[test]
    fn floats_are_read_to_the_last_bit(value in any::<f64>().prop_filter("JSON has no other", |v| v.is_finite())) {
        let schema = Schema::new(vec![field("f", DataType::Float64)]);
        let text = format!("{{\"f\":{value:e}}}");
        let decoded = Decoder::new(&Format::Json.into(), &schema).decode(text.as_bytes(), &[(0, text.len() as u32)]);
        prop_assert_eq!(decoded.bad, []);
        let floats = arrow_array::cast::AsArray::as_primitive::<arrow_array::types::Float64Type>(&decoded.columns[0]);
        prop_assert_eq!(floats.value(0).to_bits(), value.to_bits());
    }
}
