//! What a field of each of Debezium's types becomes in a column of each kind: what it means, or
//! the reason why it cannot be that.

use super::*;

/// The types of Debezium and of Kafka Connect, and a value of each.
fn types() -> Vec<(&'static str, Value, Value)> {
    let named = |kind: &str, name: &str| json!({"type": kind, "name": name});
    let time = |kind: &str, name: &str| named(kind, &format!("io.debezium.time.{name}"));
    let connect =
        |kind: &str, name: &str| named(kind, &format!("org.apache.kafka.connect.data.{name}"));
    let data = |kind: &str, name: &str| named(kind, &format!("io.debezium.data.{name}"));
    let geometry = || json!({"wkb": "AQE=", "srid": 4326});
    vec![
        ("Date", time("int32", "Date"), json!(19_675)),
        ("Time", time("int32", "Time"), json!(36_000_000)),
        (
            "MicroTime",
            time("int64", "MicroTime"),
            json!(36_000_000_000_i64),
        ),
        (
            "NanoTime",
            time("int64", "NanoTime"),
            json!(36_000_000_000_000_i64),
        ),
        (
            "Timestamp",
            time("int64", "Timestamp"),
            json!(1_700_000_000_123_i64),
        ),
        (
            "MicroTimestamp",
            time("int64", "MicroTimestamp"),
            json!(1_700_000_000_123_456_i64),
        ),
        (
            "NanoTimestamp",
            time("int64", "NanoTimestamp"),
            json!(1_700_000_000_123_456_789_i64),
        ),
        (
            "ZonedTimestamp",
            time("string", "ZonedTimestamp"),
            json!("2023-11-14T22:13:20.123456Z"),
        ),
        ("ZonedTime", time("string", "ZonedTime"), json!("10:00:00Z")),
        ("IsoDate", time("string", "IsoDate"), json!("2023-11-14Z")),
        ("IsoTime", time("string", "IsoTime"), json!("10:00:00Z")),
        (
            "IsoTimestamp",
            time("string", "IsoTimestamp"),
            json!("2023-11-14T22:13:20Z"),
        ),
        ("Year", time("int32", "Year"), json!(2024)),
        (
            "Interval",
            time("string", "Interval"),
            json!("P1Y2M3DT4H5M6.78S"),
        ),
        (
            "MicroDuration",
            time("int64", "MicroDuration"),
            json!(1_000_000),
        ),
        (
            "NanoDuration",
            time("int64", "NanoDuration"),
            json!(1_000_000_000),
        ),
        (
            "StructuredDate",
            time("struct", "StructuredDate"),
            json!({"year": 2024}),
        ),
        ("Unknown", time("int64", "PicoTimestamp"), json!(1)),
        ("connect.Date", connect("int32", "Date"), json!(19_675)),
        ("connect.Time", connect("int32", "Time"), json!(36_000_000)),
        (
            "connect.Timestamp",
            connect("int64", "Timestamp"),
            json!(1_700_000_000_123_i64),
        ),
        (
            "connect.Decimal",
            json!({
                "type": "bytes",
                "name": "org.apache.kafka.connect.data.Decimal",
                "parameters": {"scale": "2"},
            }),
            json!("BNI="),
        ),
        (
            "VariableScaleDecimal",
            data("struct", "VariableScaleDecimal"),
            json!({"scale": 1, "value": "ew=="}),
        ),
        ("Enum", data("string", "Enum"), json!("small")),
        ("EnumSet", data("string", "EnumSet"), json!("a,b")),
        ("Json", data("string", "Json"), json!("{\"a\": 1}")),
        ("Xml", data("string", "Xml"), json!("<a/>")),
        (
            "Uuid",
            data("string", "Uuid"),
            json!("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
        ),
        ("Ltree", data("string", "Ltree"), json!("a.b")),
        ("Bits", data("bytes", "Bits"), json!("Cg==")),
        ("Geometry", data("struct", "geometry.Geometry"), geometry()),
        ("Point", data("struct", "geometry.Point"), geometry()),
        ("DoubleVector", data("array", "DoubleVector"), json!([1.5])),
        ("int16", json!({"type": "int16"}), json!(7)),
        (
            "int64",
            json!({"type": "int64"}),
            json!(1_700_000_000_123_i64),
        ),
        ("double", json!({"type": "double"}), json!(1.5)),
        ("boolean", json!({"type": "boolean"}), json!(true)),
        ("string", json!({"type": "string"}), json!("true")),
        ("bytes", json!({"type": "bytes"}), json!("AP8=")),
        (
            "map",
            json!({"type": "map", "keys": {"type": "string"}, "values": {"type": "string"}}),
            json!({"wkb": "YQ=="}),
        ),
        ("of no kind", json!({"type": "uint128"}), json!("x")),
    ]
}

/// What each type becomes in a column of this type, with the schema and without.
fn read_as(data_type: DataType) -> String {
    let fields = [nullable("v", data_type)];
    let schema = Schema::new(fields.to_vec());
    let mut text = String::new();
    for (name, written, value) in types() {
        let column = ("v", written, value);
        let read = |has_schema: bool| {
            let message = one_of_each(std::slice::from_ref(&column), has_schema);
            let format = format(None, TextDecimals::Precise);
            let decoded = decode(&format, &schema.fields, &[message], &[]);
            let told = decoded.trim_end();
            let told = told.strip_suffix(" 1700000000000").unwrap_or(told);
            told.replace("0 +{\"v\":", "").replace("0: field ", "")
        };
        let (with, without) = (read(true), read(false));
        let _ = match with == without {
            true => writeln!(text, "{name}: {with}"),
            false => writeln!(text, "{name}: {with}\n    without: {without}"),
        };
    }
    text
}

#[test]
fn as_timestamp() {
    expect![""].assert_eq(&read_as(DataType::Timestamp));
}

#[test]
fn as_int64() {
    expect![""].assert_eq(&read_as(DataType::Int64));
}

#[test]
fn as_utf8() {
    expect![""].assert_eq(&read_as(DataType::Utf8));
}

#[test]
fn as_bytes() {
    expect![""].assert_eq(&read_as(DataType::Bytes));
}

#[test]
fn as_decimal() {
    expect![""].assert_eq(&read_as(DECIMAL));
}

#[test]
fn as_float64() {
    expect![""].assert_eq(&read_as(DataType::Float64));
}

#[test]
fn as_bool() {
    expect![""].assert_eq(&read_as(DataType::Bool));
}

#[test]
fn as_record() {
    let fields = vec![
        nullable("wkb", DataType::Bytes),
        nullable("srid", DataType::Int32),
    ];
    expect![""].assert_eq(&read_as(DataType::Record(fields.into())));
}

#[test]
fn as_list() {
    let element = Arc::new(field("item", DataType::Float64));
    expect![""].assert_eq(&read_as(DataType::List(element)));
}

#[test]
fn small_numbers_are_no_times_in_ms() {
    let row = |at: Value| change("c", Value::Null, json!({"at": at})).to_string();
    let messages = [
        row(2024.into()),
        row(19_675.into()),
        row((-1).into()),
        row(0.into()),
        row(86_400_000.into()),
        row("1970-01-01T00:00:01Z".into()),
        row(Value::Null),
    ];
    let fields = [nullable("at", DataType::Timestamp)];
    let mut format = format(None, TextDecimals::Precise);
    expect![""].assert_eq(&decode(&format, &fields, &messages, &[]));
    format.timestamp_formats = vec![TimestampFormat::Number(TimeUnit::Milliseconds)];
    expect![""].assert_eq(&decode(&format, &fields, &messages[..3], &[]));
}
