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

/// What values of these types become in a column of this type, with the schema or without: those
/// that are read, and why others are not.
fn read_as(data_type: &DataType, has_schema: bool) -> (String, String) {
    let fields = [nullable("v", data_type.clone())];
    let format = format(None, TextDecimals::Precise);
    let (mut read, mut refused) = (String::new(), String::new());
    for (name, written, value) in types() {
        let message = one_of_each(&[("v", written, value)], has_schema);
        let decoded = decode(&format, &fields, &[message], &[]);
        let _ = match decoded.strip_prefix("0 +{\"v\":") {
            Some(value) => writeln!(read, "{name}: {}", value.replace("} 1700000000000\n", "")),
            None => write!(refused, "{name}: {}", decoded.replacen("0: field ", "", 1)),
        };
    }
    (read, refused)
}

/// With the schema, these and no others are read.
fn check_read(data_type: DataType, expected: Expect) {
    expected.assert_eq(&read_as(&data_type, true).0);
}

#[test]
fn a_schema_decides_what_is_a_timestamp() {
    let (read, refused) = read_as(&DataType::Timestamp, true);
    expect![[r#"
        Date: "2023-11-14T00:00:00Z"
        Timestamp: "2023-11-14T22:13:20.123Z"
        MicroTimestamp: "2023-11-14T22:13:20.123Z"
        NanoTimestamp: "2023-11-14T22:13:20.123Z"
        ZonedTimestamp: "2023-11-14T22:13:20.123Z"
        IsoTimestamp: "2023-11-14T22:13:20Z"
        connect.Date: "2023-11-14T00:00:00Z"
        connect.Timestamp: "2023-11-14T22:13:20.123Z"
        int64: "2023-11-14T22:13:20.123Z"
    "#]]
    .assert_eq(&read);
    expect![[r#"
        Time: `v` is a time of day, which is no `timestamp`: read it as `int64`
        MicroTime: `v` is a time of day, which is no `timestamp`: read it as `int64`
        NanoTime: `v` is a time of day, which is no `timestamp`: read it as `int64`
        ZonedTime: `v` is a time of day, which is no `timestamp`: read it as `utf8`
        IsoDate: `v` is a date as a text, which is no `timestamp`: read it as `utf8`
        IsoTime: `v` is a time of day, which is no `timestamp`: read it as `utf8`
        Year: `v` is a year, which is no `timestamp`: read it as `int32`
        Interval: `v` is a duration, which is no `timestamp`: read it as `utf8`
        MicroDuration: `v` is a duration, which is no `timestamp`: read it as `int64`
        NanoDuration: `v` is a duration, which is no `timestamp`: read it as `int64`
        StructuredDate: `v` is struct (`io.debezium.time.StructuredDate`) in the message's schema, and timestamp in `fields`: a record reads it
        Unknown: `v` is a `PicoTimestamp`, of which no `timestamp` is known to be made: read it as `int64` or `utf8`
        connect.Time: `v` is a time of day, which is no `timestamp`: read it as `int64`
        connect.Decimal: `v` is a decimal: give the field a type such as `decimal(18,2)`, or the connector `decimal.handling.mode` "string" or "double"
        VariableScaleDecimal: `v` is a decimal: give the field a type such as `decimal(18,2)`, or the connector `decimal.handling.mode` "string" or "double"
        Enum: `after.v`: expected a time in ms since 1970 or as RFC 3339 (`timestamp(FORMAT)` reads others), found "small"
        EnumSet: `after.v`: expected a time in ms since 1970 or as RFC 3339 (`timestamp(FORMAT)` reads others), found "a,b"
        Json: `after.v`: expected a time in ms since 1970 or as RFC 3339 (`timestamp(FORMAT)` reads others), found "{\"a\": 1}"
        Xml: `after.v`: expected a time in ms since 1970 or as RFC 3339 (`timestamp(FORMAT)` reads others), found "<a/>"
        Uuid: `after.v`: expected a time in ms since 1970 or as RFC 3339 (`timestamp(FORMAT)` reads others), found "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"
        Ltree: `after.v`: expected a time in ms since 1970 or as RFC 3339 (`timestamp(FORMAT)` reads others), found "a.b"
        Bits: `v` is bytes (`io.debezium.data.Bits`) in the message's schema, and timestamp in `fields`: `bytes` reads it
        Geometry: `v` is struct (`io.debezium.data.geometry.Geometry`) in the message's schema, and timestamp in `fields`: a record reads it
        Point: `v` is struct (`io.debezium.data.geometry.Point`) in the message's schema, and timestamp in `fields`: a record reads it
        DoubleVector: `v` is array (`io.debezium.data.DoubleVector`) in the message's schema, and timestamp in `fields`: a list reads it
        int16: `v` is int16 in the message's schema, and timestamp in `fields`: `int64` reads it
        double: `v` is double in the message's schema, and timestamp in `fields`: `float64` reads it
        boolean: `v` is boolean in the message's schema, and timestamp in `fields`: `bool` reads it
        string: `after.v`: expected a time in ms since 1970 or as RFC 3339 (`timestamp(FORMAT)` reads others), found "true"
        bytes: `v` is bytes in the message's schema, and timestamp in `fields`: `bytes` reads it
        map: `v` is map in the message's schema, and timestamp in `fields`: a record, whose fields are its keys, reads it
        of no kind: `after.v`: expected a time in ms since 1970 or as RFC 3339 (`timestamp(FORMAT)` reads others), found "x"
    "#]].assert_eq(&refused);
}

#[test]
fn a_schema_decides_what_is_a_text() {
    let (read, refused) = read_as(&DataType::Utf8, true);
    expect![[r#"
        ZonedTimestamp: "2023-11-14T22:13:20.123456Z"
        ZonedTime: "10:00:00Z"
        IsoDate: "2023-11-14Z"
        IsoTime: "10:00:00Z"
        IsoTimestamp: "2023-11-14T22:13:20Z"
        Interval: "P1Y2M3DT4H5M6.78S"
        Enum: "small"
        EnumSet: "a,b"
        Json: "{\"a\": 1}"
        Xml: "<a/>"
        Uuid: "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"
        Ltree: "a.b"
        string: "true"
        of no kind: "x"
    "#]]
    .assert_eq(&read);
    expect![[r#"
        Date: `v` is int32 (`io.debezium.time.Date`) in the message's schema, and utf8 in `fields`: `timestamp` reads it
        Time: `v` is int32 (`io.debezium.time.Time`) in the message's schema, and utf8 in `fields`: `int64` reads it
        MicroTime: `v` is int64 (`io.debezium.time.MicroTime`) in the message's schema, and utf8 in `fields`: `int64` reads it
        NanoTime: `v` is int64 (`io.debezium.time.NanoTime`) in the message's schema, and utf8 in `fields`: `int64` reads it
        Timestamp: `v` is int64 (`io.debezium.time.Timestamp`) in the message's schema, and utf8 in `fields`: `timestamp` reads it
        MicroTimestamp: `v` is int64 (`io.debezium.time.MicroTimestamp`) in the message's schema, and utf8 in `fields`: `timestamp` reads it
        NanoTimestamp: `v` is int64 (`io.debezium.time.NanoTimestamp`) in the message's schema, and utf8 in `fields`: `timestamp` reads it
        Year: `v` is int32 (`io.debezium.time.Year`) in the message's schema, and utf8 in `fields`: `int64` reads it
        MicroDuration: `v` is int64 (`io.debezium.time.MicroDuration`) in the message's schema, and utf8 in `fields`: `int64` reads it
        NanoDuration: `v` is int64 (`io.debezium.time.NanoDuration`) in the message's schema, and utf8 in `fields`: `int64` reads it
        StructuredDate: `v` is struct (`io.debezium.time.StructuredDate`) in the message's schema, and utf8 in `fields`: a record reads it
        Unknown: `v` is int64 (`io.debezium.time.PicoTimestamp`) in the message's schema, and utf8 in `fields`: `int64` reads it
        connect.Date: `v` is int32 (`org.apache.kafka.connect.data.Date`) in the message's schema, and utf8 in `fields`: `timestamp` reads it
        connect.Time: `v` is int32 (`org.apache.kafka.connect.data.Time`) in the message's schema, and utf8 in `fields`: `int64` reads it
        connect.Timestamp: `v` is int64 (`org.apache.kafka.connect.data.Timestamp`) in the message's schema, and utf8 in `fields`: `timestamp` reads it
        connect.Decimal: `v` is a decimal: give the field a type such as `decimal(18,2)`, or the connector `decimal.handling.mode` "string" or "double"
        VariableScaleDecimal: `v` is a decimal: give the field a type such as `decimal(18,2)`, or the connector `decimal.handling.mode` "string" or "double"
        Bits: `v` is bytes (`io.debezium.data.Bits`) in the message's schema, and utf8 in `fields`: `bytes` reads it
        Geometry: `v` is struct (`io.debezium.data.geometry.Geometry`) in the message's schema, and utf8 in `fields`: a record reads it
        Point: `v` is struct (`io.debezium.data.geometry.Point`) in the message's schema, and utf8 in `fields`: a record reads it
        DoubleVector: `v` is array (`io.debezium.data.DoubleVector`) in the message's schema, and utf8 in `fields`: a list reads it
        int16: `v` is int16 in the message's schema, and utf8 in `fields`: `int64` reads it
        int64: `v` is int64 in the message's schema, and utf8 in `fields`: `int64` reads it
        double: `v` is double in the message's schema, and utf8 in `fields`: `float64` reads it
        boolean: `v` is boolean in the message's schema, and utf8 in `fields`: `bool` reads it
        bytes: `v` is bytes in the message's schema, and utf8 in `fields`: `bytes` reads it
        map: `v` is map in the message's schema, and utf8 in `fields`: a record, whose fields are its keys, reads it
    "#]].assert_eq(&refused);
}

#[test]
fn a_schema_decides_what_is_anything_else() {
    check_read(
        DataType::Int64,
        expect![[r#"
        Date: 19675
        Time: 36000000
        MicroTime: 36000000000
        NanoTime: 36000000000000
        Timestamp: 1700000000123
        MicroTimestamp: 1700000000123456
        NanoTimestamp: 1700000000123456789
        Year: 2024
        MicroDuration: 1000000
        NanoDuration: 1000000000
        Unknown: 1
        connect.Date: 19675
        connect.Time: 36000000
        connect.Timestamp: 1700000000123
        int16: 7
        int64: 1700000000123
    "#]],
    );
    check_read(
        DataType::Float64,
        expect![[r#"
        Date: 19675.0
        Time: 36000000.0
        MicroTime: 36000000000.0
        NanoTime: 36000000000000.0
        Timestamp: 1700000000123.0
        MicroTimestamp: 1700000000123456.0
        NanoTimestamp: 1.7000000001234568e+18
        Year: 2024.0
        MicroDuration: 1000000.0
        NanoDuration: 1000000000.0
        Unknown: 1.0
        connect.Date: 19675.0
        connect.Time: 36000000.0
        connect.Timestamp: 1700000000123.0
        int16: 7.0
        int64: 1700000000123.0
        double: 1.5
    "#]],
    );
    check_read(
        DECIMAL,
        expect![[r#"
        Date: 19675.00
        Time: 36000000.00
        Year: 2024.00
        MicroDuration: 1000000.00
        NanoDuration: 1000000000.00
        Unknown: 1.00
        connect.Date: 19675.00
        connect.Time: 36000000.00
        connect.Decimal: 12.34
        VariableScaleDecimal: 12.30
        int16: 7.00
        double: 1.50
    "#]],
    );
    check_read(
        DataType::Bool,
        expect![[r#"
        boolean: true
    "#]],
    );
    check_read(
        DataType::Bytes,
        expect![[r#"
        Bits: "Cg=="
        bytes: "AP8="
    "#]],
    );
    let element = Arc::new(field("item", DataType::Float64));
    check_read(
        DataType::List(element),
        expect![[r#"
        DoubleVector: [1.5]
    "#]],
    );
    let fields = vec![
        nullable("wkb", DataType::Bytes),
        nullable("srid", DataType::Int32),
    ];
    check_read(
        DataType::Record(fields.into()),
        expect![[r#"
        StructuredDate: {"wkb":null,"srid":null}
        Geometry: {"wkb":"AQE=","srid":4326}
        Point: {"wkb":"AQE=","srid":4326}
    "#]],
    );
    let fields = vec![nullable("wkb", DataType::Utf8)];
    check_read(
        DataType::Record(fields.into()),
        expect![[r#"
        StructuredDate: {"wkb":null}
        Geometry: {"wkb":"AQE="}
        Point: {"wkb":"AQE="}
        map: {"wkb":"YQ=="}
    "#]],
    );
}

#[test]
fn without_a_schema_what_a_value_looks_like_decides() {
    expect![[r#"
        MicroTime: "1971-02-21T16:00:00Z"
        NanoTime: "3110-10-18T16:00:00Z"
        Timestamp: "2023-11-14T22:13:20.123Z"
        ZonedTimestamp: "2023-11-14T22:13:20.123Z"
        IsoTimestamp: "2023-11-14T22:13:20Z"
        NanoDuration: "1970-01-12T13:46:40Z"
        connect.Timestamp: "2023-11-14T22:13:20.123Z"
        int64: "2023-11-14T22:13:20.123Z"
    "#]]
    .assert_eq(&read_as(&DataType::Timestamp, false).0);
    expect![[r#"
        Date: 19675
        Time: 36000000
        MicroTime: 36000000000
        NanoTime: 36000000000000
        Timestamp: 1700000000123
        MicroTimestamp: 1700000000123456
        NanoTimestamp: 1700000000123456789
        Year: 2024
        MicroDuration: 1000000
        NanoDuration: 1000000000
        Unknown: 1
        connect.Date: 19675
        connect.Time: 36000000
        connect.Timestamp: 1700000000123
        int16: 7
        int64: 1700000000123
    "#]]
    .assert_eq(&read_as(&DataType::Int64, false).0);
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
    expect![[r#"
        3 +{"at":"1970-01-01T00:00:00Z"} 1700000000000
        4 +{"at":"1970-01-02T00:00:00Z"} 1700000000000
        5 +{"at":"1970-01-01T00:00:01Z"} 1700000000000
        6 +{"at":null} 1700000000000
        0: field `after.at`: expected a time in ms, found 2024, which is in the first day of 1970: days are read by `timestamp(days)`, years and times of day as whole numbers, and `timestamp(ms)` says that it is ms
        1: field `after.at`: expected a time in ms, found 19675, which is in the first day of 1970: days are read by `timestamp(days)`, years and times of day as whole numbers, and `timestamp(ms)` says that it is ms
        2: field `after.at`: expected a time in ms, found -1, which is in the first day of 1970: days are read by `timestamp(days)`, years and times of day as whole numbers, and `timestamp(ms)` says that it is ms
    "#]].assert_eq(&decode(&format, &fields, &messages, &[]));
    format.timestamp_formats = vec![TimestampFormat::Number(TimeUnit::Milliseconds)];
    expect![[r#"
        0 +{"at":"1970-01-01T00:00:02.024Z"} 1700000000000
        1 +{"at":"1970-01-01T00:00:19.675Z"} 1700000000000
        2 +{"at":"1969-12-31T23:59:59.999Z"} 1700000000000
    "#]]
    .assert_eq(&decode(&format, &fields, &messages[..3], &[]));
}
