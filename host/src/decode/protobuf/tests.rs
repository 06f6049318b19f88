//! What rows of Protobuf decode to; the bytes are written by another implementation, prost.

use std::collections::BTreeMap;

use expect_test::{Expect, expect};
use prost::Message;

use super::*;
use crate::decode::in_tests::{
    bytes, damage, decoded, decoder, field, framed, list, nullable, record,
};
use crate::decode::{PROTOBUF, RegisteredSchema};
use crate::format::MessageFormat;
use crate::schema::DataType as D;
use crate::timestamp::TimeUnit;

const ALL: &str = include_str!("tests/all.proto");

#[derive(Clone, PartialEq, Message)]
struct All {
    #[prost(bool, tag = "1")]
    bool: bool,
    #[prost(int32, tag = "2")]
    int32: i32,
    #[prost(int64, tag = "3")]
    int64: i64,
    #[prost(uint32, tag = "4")]
    uint32: u32,
    #[prost(uint64, tag = "5")]
    uint64: u64,
    #[prost(sint32, tag = "6")]
    sint32: i32,
    #[prost(sint64, tag = "7")]
    sint64: i64,
    #[prost(fixed32, tag = "8")]
    fixed32: u32,
    #[prost(fixed64, tag = "9")]
    fixed64: u64,
    #[prost(sfixed32, tag = "10")]
    sfixed32: i32,
    #[prost(sfixed64, tag = "11")]
    sfixed64: i64,
    #[prost(float, tag = "12")]
    float: f32,
    #[prost(double, tag = "13")]
    double: f64,
    #[prost(string, tag = "14")]
    text: String,
    #[prost(bytes, tag = "15")]
    bytes: Vec<u8>,
    #[prost(int32, tag = "16")]
    color: i32,
    #[prost(string, optional, tag = "17")]
    maybe: Option<String>,
    #[prost(message, optional, tag = "18")]
    place: Option<Place>,
    #[prost(sint64, repeated, tag = "19")]
    ids: Vec<i64>,
    #[prost(string, repeated, tag = "20")]
    tags: Vec<String>,
    #[prost(int32, repeated, tag = "21")]
    colors: Vec<i32>,
    #[prost(message, repeated, tag = "22")]
    places: Vec<Place>,
    #[prost(btree_map = "string, int64", tag = "23")]
    counts: BTreeMap<String, i64>,
    #[prost(btree_map = "int32, message", tag = "24")]
    numbered: BTreeMap<i32, Place>,
    #[prost(oneof = "Either", tags = "300, 301, 302")]
    either: Option<Either>,
    #[prost(message, optional, tag = "400")]
    at: Option<Seconds>,
    #[prost(message, optional, tag = "401")]
    took: Option<Seconds>,
    #[prost(message, optional, tag = "402")]
    wrapped: Option<Wrapped>,
    #[prost(string, optional, tag = "1000")]
    unknown: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
struct Place {
    #[prost(string, tag = "1")]
    city: String,
    #[prost(message, optional, tag = "2")]
    geo: Option<Geo>,
    #[prost(int32, repeated, tag = "3")]
    zones: Vec<i32>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Geo {
    #[prost(double, tag = "1")]
    lat: f64,
    #[prost(double, optional, tag = "2")]
    lon: Option<f64>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Either {
    #[prost(int64, tag = "300")]
    Number(i64),
    #[prost(string, tag = "301")]
    Word(String),
    #[prost(message, tag = "302")]
    There(Place),
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Seconds {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Wrapped {
    #[prost(int64, tag = "1")]
    value: i64,
}

fn place(city: &str, lat: f64) -> Place {
    Place {
        city: city.to_owned(),
        geo: Some(Geo { lat, lon: None }),
        zones: vec![1, -1],
    }
}

fn full() -> All {
    All {
        bool: true,
        int32: i32::MIN,
        int64: i64::MIN,
        uint32: u32::MAX,
        uint64: u64::MAX,
        sint32: i32::MIN,
        sint64: i64::MIN,
        fixed32: u32::MAX,
        fixed64: u64::MAX,
        sfixed32: i32::MIN,
        sfixed64: i64::MIN,
        float: 1.5,
        double: -0.1,
        text: "żółw 🐢".to_owned(),
        bytes: vec![0, 255],
        color: 1000,
        maybe: Some(String::new()),
        place: Some(place("Oslo", 59.9)),
        ids: vec![0, -1, i64::MAX],
        tags: vec!["a".to_owned(), String::new()],
        colors: vec![0, 1, 2, 1000],
        places: vec![place("Bergen", 60.4), Place::default()],
        counts: [("a".to_owned(), 1), ("b".to_owned(), 0)].into(),
        numbered: [(-1, place("Moss", 0.0)), (0, Place::default())].into(),
        either: Some(Either::There(place("Hamar", 1.0))),
        at: Some(Seconds {
            seconds: 1_709_209_845,
            nanos: 123_000_000,
        }),
        took: Some(Seconds {
            seconds: -1,
            nanos: -500_000_000,
        }),
        wrapped: Some(Wrapped { value: 0 }),
        unknown: Some("?".to_owned()),
    }
}

fn place_fields() -> D {
    let geo = vec![field("lat", D::Float64), nullable("lon", D::Float64)];
    record(vec![
        field("city", D::Utf8),
        nullable("geo", record(geo)),
        field("zones", list(field("item", D::Int8))),
    ])
}

fn all_fields() -> Vec<Field> {
    let count = record(vec![field("key", D::Utf8), field("value", D::Int64)]);
    let numbered = record(vec![field("key", D::Int32), field("value", place_fields())]);
    let colors = ["NONE", "RED", "GREEN", "FAR"].map(str::to_owned);
    vec![
        field("bool", D::Bool),
        field("int32", D::Int32),
        field("int64", D::Int64),
        field("uint32", D::UInt32),
        field("uint64", D::UInt64),
        field("sint32", D::Int32),
        field("sint64", D::Int64),
        field("fixed32", D::UInt32),
        field("fixed64", D::UInt64),
        field("sfixed32", D::Int32),
        field("sfixed64", D::Int64),
        field("float", D::Float32),
        field("double", D::Float64),
        field("text", D::Utf8),
        field("bytes", D::Bytes),
        field("color", D::Symbol(colors.as_slice().into())),
        nullable("maybe", D::Utf8),
        nullable("place", place_fields()),
        field("ids", list(field("item", D::Int64))),
        nullable("tags", list(field("item", D::Utf8))),
        field("colors", list(field("item", D::Utf8))),
        field("places", list(field("item", place_fields()))),
        field("counts", list(field("item", count))),
        field("numbered", list(field("item", numbered))),
        nullable("number", D::Int64),
        nullable("word", D::Utf8),
        nullable("there", place_fields()),
        nullable("at", D::Timestamp),
        nullable(
            "took",
            D::Decimal {
                precision: 20,
                scale: 9,
            },
        ),
        nullable("wrapped", D::Int64),
        nullable("named", D::Utf8),
    ]
}

fn file(schema: &str) -> ProtoFile {
    ProtoFile::parse("test.proto", schema, |_| None).unwrap()
}

fn plain(schema: &str, message: Option<&str>) -> MessageFormat {
    MessageFormat::Protobuf(ProtobufFormat {
        schema: Some(file(schema).message(message).unwrap()),
        message: None,
        is_registered: false,
    })
}

/// Rows of `shop.All`.
fn check(fields: Vec<Field>, rows: &[Vec<u8>], expected: Expect) {
    check_schema(ALL, Some("shop.All"), fields, rows, expected);
}

fn check_schema(
    schema: &str,
    message: Option<&str>,
    fields: Vec<Field>,
    rows: &[Vec<u8>],
    expected: Expect,
) {
    let mut decoder = decoder(plain(schema, message), &[], &fields);
    let first = decoded(&mut decoder, &fields, rows);
    let again = decoded(&mut decoder, &fields, rows);
    assert_eq!(first, again, "a decoder keeps nothing of a block");
    expected.assert_eq(&first);
}

fn hex(rows: &[&str]) -> Vec<Vec<u8>> {
    rows.iter()
        .map(|row| bytes(&row.replace(' ', "")))
        .collect()
}

fn refused(fields: Vec<Field>, expected: Expect) {
    let schema = file(ALL).message(Some("shop.All")).unwrap();
    let fault = super::check(&schema, &fields).expect_err("it does not fit");
    expected.assert_eq(&fault.to_string());
}

#[test]
fn a_field_that_no_message_has_is_refused_also_where_it_may_be_missing() {
    refused(
        vec![nullable("wrod", D::Utf8)],
        expect![
            "field `wrod` is missing in the schema; did you mean `word`? The fields are: bool, int32, int64, uint32, uint64, sint32, sint64, fixed32, fixed64, sfixed32, sfixed64, float, double, text, bytes, color, maybe, place, ids, tags, colors, places, counts, numbered and 8 more"
        ],
    );
    refused(
        vec![nullable("nothing_like_it", D::Utf8)],
        expect![
            "field `nothing_like_it` is missing in the schema; the fields are: bool, int32, int64, uint32, uint64, sint32, sint64, fixed32, fixed64, sfixed32, sfixed64, float, double, text, bytes, color, maybe, place, ids, tags, colors, places, counts, numbered and 8 more"
        ],
    );
    let geo = record(vec![
        nullable("lat", D::Float64),
        nullable("long", D::Float64),
    ]);
    let place = record(vec![field("city", D::Utf8), nullable("geo", geo)]);
    refused(
        vec![nullable("place", place.clone())],
        expect![
            "field `place.geo.long` is missing in the schema; did you mean `lon`? The fields are: lat, lon"
        ],
    );
    refused(
        vec![field("places", list(field("item", place.clone())))],
        expect![
            "field `places.geo.long` is missing in the schema; did you mean `lon`? The fields are: lat, lon"
        ],
    );
    let entry = record(vec![field("key", D::Int32), nullable("value", place)]);
    refused(
        vec![field("numbered", list(field("item", entry)))],
        expect![
            "field `numbered.value.geo.long` is missing in the schema; did you mean `lon`? The fields are: lat, lon"
        ],
    );
    // The keys of a map are in no schema.
    let schema = file(ALL).message(Some("shop.All")).unwrap();
    let counts = record(vec![nullable("anything", D::Int64)]);
    assert!(super::check(&schema, &[field("counts", counts)]).is_ok());
}

#[test]
fn decimals_and_dates_of_connect_are_read() {
    let schema = "syntax = \"proto3\"; import \"confluent/type/decimal.proto\"; \
                  import \"google/type/date.proto\"; \
                  message M { confluent.type.Decimal d = 1; google.type.Date day = 2; }";
    let rows = hex(&[
        "0a080a0204d210041802120708e70f100b180e",
        "0a080a02fb2e10041802",
        "",
        "0a00",
        "0a0e0a010118feffffffffffffffff01",
        "0a050a01011827",
        "0a030a01010a021802",
        "120308e70f",
        "120708e70f1002181d",
    ]);
    check_schema(
        schema,
        None,
        vec![
            nullable(
                "d",
                D::Decimal {
                    precision: 9,
                    scale: 2,
                },
            ),
            nullable("day", D::Timestamp),
        ],
        &rows,
        expect![[r#"
            {"d":12.34,"day":"2023-11-14T00:00:00Z"}
            {"d":-12.34,"day":null}
            {"d":null,"day":null}
            {"d":0.00,"day":null}
            {"d":0.01,"day":null}
            row 4: field `d`: expected a decimal with 0 to 38 digits behind the point, found -2
            row 5: field `d`: expected a decimal with 0 to 38 digits behind the point, found 39
            row 7: field `day`: expected a date, found the year 2023, the month 0 and the day 0
            row 8: field `day`: expected a date, found the year 2023, the month 2 and the day 29
        "#]],
    );
    check_schema(
        schema,
        None,
        vec![
            nullable("d", record(vec![field("scale", D::Int32)])),
            nullable("day", record(vec![field("year", D::Int32)])),
        ],
        &rows[..1],
        expect![[r#"
            {"d":{"scale":2},"day":{"year":2023}}
        "#]],
    );
}

#[test]
fn every_type_is_read() {
    let rows = [full().encode_to_vec(), All::default().encode_to_vec()];
    check(
        all_fields(),
        &rows,
        expect![[r#"
        {"bool":true,"int32":-2147483648,"int64":-9223372036854775808,"uint32":4294967295,"uint64":18446744073709551615,"sint32":-2147483648,"sint64":-9223372036854775808,"fixed32":4294967295,"fixed64":18446744073709551615,"sfixed32":-2147483648,"sfixed64":-9223372036854775808,"float":1.5,"double":-0.1,"text":"żółw 🐢","bytes":"AP8=","color":"FAR","maybe":"","place":{"city":"Oslo","geo":{"lat":59.9,"lon":null},"zones":[1,-1]},"ids":[0,-1,9223372036854775807],"tags":["a",""],"colors":["NONE","RED","GREEN","FAR"],"places":[{"city":"Bergen","geo":{"lat":60.4,"lon":null},"zones":[1,-1]},{"city":"","geo":null,"zones":[]}],"counts":[{"key":"a","value":1},{"key":"b","value":0}],"numbered":[{"key":-1,"value":{"city":"Moss","geo":{"lat":0.0,"lon":null},"zones":[1,-1]}},{"key":0,"value":{"city":"","geo":null,"zones":[]}}],"number":null,"word":null,"there":{"city":"Hamar","geo":{"lat":1.0,"lon":null},"zones":[1,-1]},"at":"2024-02-29T12:30:45.123Z","took":-1.500000000,"wrapped":0,"named":null}
        {"bool":false,"int32":0,"int64":0,"uint32":0,"uint64":0,"sint32":0,"sint64":0,"fixed32":0,"fixed64":0,"sfixed32":0,"sfixed64":0,"float":0.0,"double":0.0,"text":"","bytes":"","color":"NONE","maybe":null,"place":null,"ids":[],"tags":[],"colors":[],"places":[],"counts":[],"numbered":[],"number":null,"word":null,"there":null,"at":null,"took":null,"wrapped":null,"named":null}
    "#]],
    );
}

#[test]
fn numbers_fit_other_columns_and_texts_are_values() {
    let keys = vec![nullable("b", D::Int16), nullable("c", D::Float64)];
    let numbers = vec![
        field("color", D::Int16),
        field("bytes", D::Bytes),
        field("text", D::Bytes),
        field("float", D::Float64),
        field("counts", record(keys)),
        field("int32", D::Float32),
        field(
            "uint64",
            D::Decimal {
                precision: 22,
                scale: 1,
            },
        ),
        field("took", D::Float64),
        field(
            "at",
            record(vec![field("seconds", D::Int64), field("nanos", D::UInt32)]),
        ),
        field("wrapped", record(vec![field("value", D::UInt8)])),
        nullable("absent", D::Timestamp),
    ];
    check(
        numbers,
        &[full().encode_to_vec()],
        expect![[r#"
        {"color":1000,"bytes":"AP8=","text":"xbzDs8WCdyDwn5Ci","float":1.5,"counts":{"b":0,"c":null},"int32":-2147483600.0,"uint64":18446744073709551615.0,"took":-1.5,"at":{"seconds":1709209845,"nanos":123000000},"wrapped":{"value":0},"absent":null}
    "#]],
    );
    let fields = vec![
        field("int64", D::Timestamp),
        field("text", D::Timestamp),
        field("at", D::Timestamp),
        field("bytes", D::Utf8),
    ];
    let formats = [
        TimestampFormat::Number(TimeUnit::Seconds),
        TimestampFormat::Rfc3339,
    ];
    let row = |text: &str, nanos, seconds| All {
        int64: 1_700_000_000,
        text: text.to_owned(),
        at: Some(Seconds { seconds, nanos }),
        bytes: b"text".to_vec(),
        ..All::default()
    };
    let rows = [
        row("2024-01-01T10:00:00Z", 999_999_999, -1),
        row("today", 0, 0),
        row("2024-01-01T10:00:00Z", -1_000_000_000, 0),
        row("2024-01-01T10:00:00Z", 0, i64::MAX),
        All {
            bytes: vec![b'a', 0xFF],
            ..row("2024-01-01T10:00:00Z", 0, 0)
        },
    ];
    let rows = rows.map(|row| row.encode_to_vec());
    let mut decoder = decoder(plain(ALL, Some("shop.All")), &formats, &fields);
    expect![[r#"
        {"int64":"2023-11-14T22:13:20Z","text":"2024-01-01T10:00:00Z","at":"1969-12-31T23:59:59.999Z","bytes":"text"}
        row 1: field `text`: expected a time as RFC 3339, found `today`
        row 2: field `at`: expected at most 999999999 nanoseconds, found -1000000000
        row 3: field `at`: expected a time, found 9223372036854775807 s since 1970
        row 4: field `bytes`: byte 1: expected UTF-8 text, found other bytes
        1 times were cut: `-1 s and 999999999 ns` of field `at` was read as 1969-12-31T23:59:59.999Z
    "#]].assert_eq(&decoded(&mut decoder, &fields, &rows));
}

#[test]
fn what_does_not_fit_is_refused() {
    refused(
        vec![field("text", D::Int64)],
        expect!["field `text` is int64 in `fields`, and string in the schema"],
    );
    refused(
        vec![field("int64", D::Bool)],
        expect!["field `int64` is bool in `fields`, and int64 in the schema"],
    );
    refused(
        vec![field("absent", D::Utf8)],
        expect![
            "field `absent` is missing in the schema; the fields are: bool, int32, int64, uint32, uint64, sint32, sint64, fixed32, fixed64, sfixed32, sfixed64, float, double, text, bytes, color, maybe, place, ids, tags, colors, places, counts, numbered and 8 more"
        ],
    );
    refused(
        vec![field("double", D::Float32)],
        expect!["field `double` is float32 in `fields`, and double in the schema"],
    );
    refused(
        vec![field("ids", D::Int64)],
        expect!["field `ids` is int64 in `fields`, and repeated sint64 in the schema"],
    );
    refused(
        vec![field("ids", list(field("item", D::Utf8)))],
        expect!["field `ids.[]` is utf8 in `fields`, and sint64 in the schema"],
    );
    refused(
        vec![field("int32", list(field("item", D::Int32)))],
        expect!["field `int32` is list<int32> in `fields`, and int32 in the schema"],
    );
    refused(
        vec![field("counts", D::Utf8)],
        expect!["field `counts` is utf8 in `fields`, and map<string, int64> in the schema"],
    );
    refused(
        vec![field("any", D::Utf8)],
        expect!["field `any` is utf8 in `fields`, and google.protobuf.Struct in the schema"],
    );
    refused(
        vec![field("at", D::Int64)],
        expect!["field `at` is int64 in `fields`, and google.protobuf.Timestamp in the schema"],
    );
    refused(
        vec![field("took", D::Timestamp)],
        expect![
            "field `took` is timestamp in `fields`, and google.protobuf.Duration in the schema"
        ],
    );
    refused(
        vec![field("named", D::Int64)],
        expect!["field `named` is int64 in `fields`, and string in the schema"],
    );
    let geo = record(vec![field("lat", D::Utf8)]);
    let place = record(vec![field("geo", geo)]);
    refused(
        vec![field("place", place.clone())],
        expect!["field `place.geo.lat` is utf8 in `fields`, and double in the schema"],
    );
    refused(
        vec![field("places", list(field("item", place)))],
        expect!["field `places.[].geo.lat` is utf8 in `fields`, and double in the schema"],
    );
    let keys = record(vec![field("a", D::Utf8)]);
    refused(
        vec![field("counts", keys.clone())],
        expect!["field `counts.a` is utf8 in `fields`, and int64 in the schema"],
    );
    refused(
        vec![field("numbered", keys)],
        expect![
            "field `numbered` is {a: utf8} in `fields`, and map<int32, shop.All.Place> in the schema"
        ],
    );
}

#[test]
fn what_columns_have_no_room_for_is_a_bad_row() {
    let colors = ["RED", "BLUE"].map(str::to_owned);
    let fields = vec![
        field("uint64", D::Int64),
        field("color", D::Symbol(colors.as_slice().into())),
        field("maybe", D::Utf8),
        field(
            "place",
            record(vec![field("geo", record(vec![field("lon", D::Float64)]))]),
        ),
        field("colors", list(field("item", D::Utf8))),
    ];
    let good = All {
        color: 1,
        maybe: Some("x".to_owned()),
        place: Some(Place {
            geo: Some(Geo {
                lat: 0.0,
                lon: Some(0.0),
            }),
            ..Place::default()
        }),
        ..All::default()
    };
    let rows = [
        good.clone(),
        All {
            uint64: 1 << 63,
            ..good.clone()
        },
        All {
            color: 0,
            ..good.clone()
        },
        All {
            color: -7,
            ..good.clone()
        },
        All {
            maybe: None,
            ..good.clone()
        },
        All {
            place: Some(place("Oslo", 1.0)),
            ..good.clone()
        },
        All {
            place: Some(Place::default()),
            ..good.clone()
        },
        All {
            colors: vec![1, 7],
            ..good
        },
    ];
    let rows = rows.map(|row| row.encode_to_vec());
    check(
        fields,
        &rows,
        expect![[r#"
        {"uint64":0,"color":"RED","maybe":"x","place":{"geo":{"lon":0.0}},"colors":[]}
        row 1: field `uint64`: expected int64, found 9223372036854775808
        row 2: field `color`: expected RED|BLUE, found NONE
        row 3: field `color`: expected the number of one of the 4 values of shop.Color, found -7
        row 4: field `maybe` is missing
        row 5: field `place.geo.lon` is missing
        row 6: field `place.geo` is missing
        row 7: field `colors[1]`: expected the number of one of the 4 values of shop.Color, found 7
    "#]],
    );
}

#[test]
fn the_last_value_counts_and_parts_of_messages_are_one() {
    let either = |either| All {
        either: Some(either),
        ..All::default()
    };
    let both =
        |parts: &[All]| -> Vec<u8> { parts.iter().flat_map(Message::encode_to_vec).collect() };
    let in_place = |place: Place| All {
        place: Some(place),
        ..All::default()
    };
    let only_lon = Place {
        geo: Some(Geo {
            lat: 0.0,
            lon: Some(2.0),
        }),
        zones: vec![7],
        ..Place::default()
    };
    let city = |city: &str| Place {
        city: city.to_owned(),
        ..Place::default()
    };
    let ids = |ids: &[i64]| All {
        ids: ids.to_vec(),
        ..All::default()
    };
    let rows = [
        both(&[full(), full()]),
        both(&[
            in_place(place("Oslo", 59.9)),
            in_place(only_lon.clone()),
            in_place(city("Moss")),
        ]),
        // A member of `oneof` takes the place of others, also if they come again.
        both(&[
            either(Either::There(place("Oslo", 1.0))),
            either(Either::Word("w".to_owned())),
            either(Either::Number(5)),
        ]),
        both(&[
            either(Either::There(place("Oslo", 1.0))),
            either(Either::Word("w".to_owned())),
            either(Either::There(only_lon)),
            either(Either::There(city("Moss"))),
        ]),
        // Elements one by one, and several at once.
        [
            both(&[ids(&[1, 2])]),
            hex(&["980106 980108"])[0].clone(),
            both(&[ids(&[5])]),
        ]
        .concat(),
    ];
    let names = ["text", "place", "ids", "number", "word", "there"];
    let fields = all_fields();
    let fields = fields
        .into_iter()
        .filter(|it| names.contains(&it.name.as_str()));
    check(
        fields.collect(),
        &rows,
        expect![[r#"
        {"text":"żółw 🐢","place":{"city":"Oslo","geo":{"lat":59.9,"lon":null},"zones":[1,-1,1,-1]},"ids":[0,-1,9223372036854775807,0,-1,9223372036854775807],"number":null,"word":null,"there":{"city":"Hamar","geo":{"lat":1.0,"lon":null},"zones":[1,-1,1,-1]}}
        {"text":"","place":{"city":"Moss","geo":{"lat":59.9,"lon":2.0},"zones":[1,-1,7]},"ids":[],"number":null,"word":null,"there":null}
        {"text":"","place":null,"ids":[],"number":5,"word":null,"there":null}
        {"text":"","place":null,"ids":[],"number":null,"word":null,"there":{"city":"Moss","geo":{"lat":0.0,"lon":2.0},"zones":[7]}}
        {"text":"","place":null,"ids":[1,2,3,4,5],"number":null,"word":null,"there":null}
    "#]],
    );
    // What is not read of a `oneof` counts, too.
    let number = vec![nullable("number", D::Int64)];
    let rows = [
        both(&[
            either(Either::Number(5)),
            either(Either::Word(String::new())),
        ]),
        both(&[
            either(Either::Word(String::new())),
            either(Either::Number(5)),
        ]),
    ];
    check(
        number,
        &rows,
        expect![[r#"
        {"number":null}
        {"number":5}
    "#]],
    );
}

const OLD: &str = r#"
    syntax = "proto2";
    enum Color { RED = 1; GREEN = 2; }
    message Old {
      required int32 id = 1;
      optional int32 count = 2 [default = -7];
      optional string name = 3 [default = "no\tname"];
      optional Color color = 4 [default = GREEN];
      optional double ratio = 5 [default = inf];
      optional sint64 zig = 6 [default = -2];
      optional fixed32 fixed = 7 [default = 9];
      optional bytes raw = 8 [default = "\377"];
      optional bool flag = 9 [default = true];
      optional int64 plain = 10;
      repeated int32 unpacked = 11;
      repeated int32 packed = 12 [packed = true];
      optional group Line = 13 { optional string sku = 1; optional group Deep = 2 { optional int32 n = 1; } }
      repeated group Lines = 14 { optional string sku = 1; }
      map<string, int32> counts = 15;
      extensions 100 to 200;
    }
"#;

#[test]
fn fields_of_proto2_have_defaults_and_groups() {
    let line = vec![
        nullable("sku", D::Utf8),
        nullable("deep", record(vec![field("n", D::Int32)])),
    ];
    let entry = record(vec![field("key", D::Utf8), field("value", D::Int32)]);
    let fields = vec![
        field("id", D::Int32),
        nullable("count", D::Int32),
        field("name", D::Utf8),
        field("color", D::Utf8),
        field("ratio", D::Float64),
        field("zig", D::Int64),
        field("fixed", D::Int64),
        field("raw", D::Bytes),
        field("flag", D::Bool),
        nullable("plain", D::Int64),
        field("unpacked", list(field("item", D::Int32))),
        field("packed", list(field("item", D::Int32))),
        nullable("line", record(line)),
        field(
            "lines",
            list(field("item", record(vec![nullable("sku", D::Utf8)]))),
        ),
        field("counts", list(field("item", entry))),
    ];
    let rows = hex(&[
        "0801",
        // Groups, of which one is in two parts, and one is unknown.
        "0801 6b 0a0161 6c 6b 13 0805 14 6c 73 0a0178 74 73 74 a306 a306 0801 a406 08 02 a406 0801",
        // Lists packed and not, whatever the schema says, and entries without key or value.
        "0801 5a020102 5803 6003 62020102 7a00 7a030a0161 7a021005 5001",
        // An id that is not there.
        "5001",
    ]);
    check_schema(
        OLD,
        None,
        fields,
        &rows,
        expect![[r#"
        {"id":1,"count":-7,"name":"no\tname","color":"GREEN","ratio":"Infinity","zig":-2,"fixed":9,"raw":"/w==","flag":true,"plain":null,"unpacked":[],"packed":[],"line":null,"lines":[],"counts":[]}
        {"id":1,"count":-7,"name":"no\tname","color":"GREEN","ratio":"Infinity","zig":-2,"fixed":9,"raw":"/w==","flag":true,"plain":null,"unpacked":[],"packed":[],"line":{"sku":"a","deep":{"n":5}},"lines":[{"sku":"x"},{"sku":null}],"counts":[]}
        {"id":1,"count":-7,"name":"no\tname","color":"GREEN","ratio":"Infinity","zig":-2,"fixed":9,"raw":"/w==","flag":true,"plain":1,"unpacked":[1,2,3],"packed":[3,1,2],"line":null,"lines":[],"counts":[{"key":"","value":0},{"key":"a","value":0},{"key":"","value":5}]}
        row 3: field `id` is missing
    "#]],
    );
}

#[test]
fn bad_bytes_are_bad_rows() {
    let place = record(vec![field("city", D::Utf8)]);
    let fields = vec![
        field("int64", D::Int64),
        field("text", D::Utf8),
        field("ids", list(field("item", D::Int64))),
        nullable("place", place.clone()),
        field("places", list(field("item", place))),
    ];
    let rows = hex(&[
        "",
        "1801 7203c3a961",
        // Cut off: in a key, a number, a length, a text, four and eight bytes.
        "80",
        "18",
        "72",
        "720261",
        "c53e0102",
        "c13e01020304050607",
        // No text, no field, fields of no kind or number.
        "7202c328",
        "00",
        "1f",
        "f8ffffffffff01",
        // A number that is too long, a length that no memory has.
        "18ffffffffffffffffff02",
        "72ffffffffffffffffff01",
        // Values of other kinds.
        "1901020304050607 08",
        "7001",
        "9201 03 0a0561",
        "b201 03 0a0561",
        "9801 80",
        "9a01 03 020480",
        "9d01 01020304",
        "9001 01",
        // Groups that do not begin, do not end, or end others.
        "a43e",
        "a33e",
        "a33e ab3e a43e",
        "1c",
    ]);
    let mut rows = rows;
    rows.push([0xA3, 0x3E].repeat(101));
    check(
        fields,
        &rows,
        expect![[r#"
            {"int64":0,"text":"","ids":[],"place":null,"places":[]}
            {"int64":1,"text":"éa","ids":[],"place":null,"places":[]}
            row 2: expected a number, found the end of the row
            row 3: field `int64`: expected a number, found the end of the row
            row 4: field `text`: expected a number, found the end of the row
            row 5: field `text`: expected a text of 2 bytes, found the end of the row after 1
            row 6: expected a value of 4 bytes, found the end of the row after 2
            row 7: expected a value of 8 bytes, found the end of the row after 7
            row 8: field `text`: byte 0: expected UTF-8 text, found other bytes
            row 9: expected a field, found one of number 0 and kind 0
            row 10: expected a field, found one of number 3 and kind 7
            row 11: expected a field, found one of number 1099511627775 and kind 0
            row 12: field `int64`: expected a number of 64 bits, found a longer one
            row 13: field `text`: expected a text of 18446744073709551615 bytes, found the end of the row after 0
            row 14: field `int64`: expected a number of any length, found 8 bytes
            row 15: field `text`: expected bytes with their length, found a number of any length
            row 16: field `place.city`: expected a text of 5 bytes, found the end of the row after 1
            row 17: field `places[0].city`: expected a text of 5 bytes, found the end of the row after 1
            row 18: field `ids[0]`: expected a number, found the end of the row
            row 19: field `ids[2]`: expected a number, found the end of the row
            row 20: field `ids[0]`: expected a number of any length, found 4 bytes
            row 21: field `place`: expected a message, found a number of any length
            row 22: expected a field, found the end of group 996
            row 23: expected a number, found the end of the row
            row 24: expected a field, found the end of group 996
            row 25: field `int64`: expected a number of any length, found a group
            row 26: groups are nested more than 100 deep
        "#]],
    );
}

#[test]
fn rows_make_no_more_than_they_may() {
    let name = "N".repeat(1 << 12);
    let schema = format!(
        "syntax = \"proto3\"; enum E {{ {name} = 0; }} message M {{ repeated E a = 1; repeated M b = 2; }}"
    );
    let names = [&[0x0A, 0x90, 0x4E][..], &[0; 10_000]].concat();
    let fields = vec![field("a", list(field("item", D::Utf8)))];
    check_schema(
        &schema,
        None,
        fields,
        &[names],
        expect![[r#"
        row 0: field `a[55]`: a row of 10003 bytes stands for more than 225584 bytes of names and of fields that it does not have
    "#]],
    );
    // Many messages without fields, and two that have all of the others in parts.
    let wide = (0..2_000).map(|at| nullable(&format!("f{at}"), D::Int64));
    let fields = vec![field("b", list(field("item", record(wide.collect()))))];
    check_schema(
        &schema,
        None,
        fields,
        &[[0x12, 0].repeat(1_000)],
        expect![[r#"
            row 0: field `b[48]`: a row of 2000 bytes stands for more than 97536 bytes of names and of fields that it does not have
        "#]],
    );
}

#[test]
fn parts_within_parts_take_time_by_their_length_only() {
    let schema = "syntax = \"proto3\"; message M { M m = 1; int64 n = 2; }";
    let mut fields = vec![nullable("n", D::Int64)];
    let mut row = vec![0x10, 1];
    for _ in 0..24 {
        fields = vec![nullable("m", record(fields))];
        let mut outer = vec![0x0A];
        varint::write(&mut outer, row.len() as u64);
        outer.extend_from_slice(&row);
        // A second part, which has nothing.
        outer.extend_from_slice(&[0x0A, 0]);
        row = outer;
    }
    let mut decoder = decoder(plain(schema, None), &[], &fields);
    let read = decoded(&mut decoder, &fields, &[row]);
    assert!(read.contains("\"n\":1"), "{read}");
}

fn registered(text: &str, references: &[(&str, &str)]) -> RegisteredSchema {
    let owned = |(name, text): &(&str, &str)| ((*name).to_owned(), (*text).to_owned());
    RegisteredSchema {
        language: PROTOBUF.to_owned(),
        text: text.to_owned(),
        references: references.iter().map(owned).collect(),
    }
}

const FIRST: &str = r#"
    syntax = "proto3";
    package shop;
    import "shop/line.proto";
    message Other { string id = 1; }
    message Order {
      int64 id = 1;
      map<string, int32> counts = 3;
      message Inner { int64 id = 7; Line line = 2; }
      Line line = 2;
    }
"#;
const LINE: &str = "syntax = \"proto3\"; package shop; message Line { string sku = 1; }";

fn registry_format(schema: Option<&str>, message: Option<&str>) -> MessageFormat {
    MessageFormat::Protobuf(ProtobufFormat {
        schema: schema.map(|schema| file(schema).message(message).unwrap()),
        message: message.map(str::to_owned),
        is_registered: true,
    })
}

#[test]
fn rows_of_several_messages_and_schemas_may_follow_one_another() {
    let fields = vec![
        field("id", D::Int64),
        nullable("line", record(vec![field("sku", D::Utf8)])),
    ];
    let second = "syntax = \"proto3\"; package shop; message Order { int64 id = 5; }";
    let rows = hex(&[
        "00 00000001 0202 0807 12030a0178",
        "00 00000001 040200 3808",
        // The first message, short and long.
        "00 00000002 00 2809",
        "00 00000002 0200 280a",
        "00 00000001 00 0a0178",
        // No message is there, within none, and at no place.
        "00 00000001 0208 0807",
        "00 00000001 040208 0807",
        "00 00000001 0201 0807",
        "00 00000001 01",
        "00 00000001 feffffff0f",
        "00 00000001 04",
        "00 00000001",
        "00 00000003 00",
        "00 00000004 00",
        "00 00000005 00",
        "7b7d",
    ]);
    let learn = |decoder: &mut crate::decode::Decoder| {
        assert_eq!(decoder.lacks(&rows[0]), Some(1));
        assert_eq!(decoder.lacks(&rows[15]), None);
        decoder.learn(1, Ok(&registered(FIRST, &[("shop/line.proto", LINE)])));
        decoder.learn(2, Ok(&registered(second, &[])));
        decoder.learn(3, Err("nobody has it".to_owned()));
        decoder.learn(4, Ok(&registered(FIRST, &[])));
        let avro = RegisteredSchema {
            language: "AVRO".to_owned(),
            ..registered("\"long\"", &[])
        };
        decoder.learn(5, Ok(&avro));
        assert!(rows.iter().all(|row| decoder.lacks(row).is_none()));
    };
    let mut any = decoder(registry_format(None, None), &[], &fields);
    learn(&mut any);
    expect![[r#"
        {"id":7,"line":{"sku":"x"}}
        {"id":8,"line":null}
        {"id":9,"line":null}
        {"id":10,"line":null}
        row 4: schema 1 of the registry: field `id` is int64 in `fields`, and string in the schema
        row 5: schema 1 of the registry: it has no message at [4]
        row 6: schema 1 of the registry: it has no message at [1, 4]
        row 7: expected the place of the message in its schema, found other bytes
        row 8: expected the place of the message in its schema, found other bytes
        row 9: expected the place of the message in its schema, found other bytes
        row 10: expected the place of the message in its schema, found other bytes
        row 11: expected the place of the message in its schema, found other bytes
        row 12: schema 3 of the registry: nobody has it
        row 13: schema 4 of the registry: schema.proto:4:5: import 'shop/line.proto' not found
        row 14: schema 5 of the registry: it is of AVRO, and `format` is "protobuf"
        row 15: expected a zero byte and the four of a schema's number, found the byte 123 (without `registry`, messages have no such beginning)
    "#]].assert_eq(&decoded(&mut any, &fields, &rows));
    let mut one = decoder(registry_format(None, Some("shop.Order")), &[], &fields);
    learn(&mut one);
    expect![[r#"
        {"id":7,"line":{"sku":"x"}}
        {"id":9,"line":null}
        {"id":10,"line":null}
        row 1: schema 1 of the registry: the message is shop.Order.Inner, and `message` is shop.Order
        row 4: schema 1 of the registry: the message is shop.Other, and `message` is shop.Order
    "#]].assert_eq(&decoded(&mut one, &fields, &rows[..5]));
    // Fields are found by the numbers that the pipeline's schema has.
    let own = r#"
        syntax = "proto3"; package shop;
        message Order { int64 number = 1; optional int64 newer = 5; }
    "#;
    let fields = vec![field("number", D::Int64), nullable("newer", D::Int32)];
    let mut own = decoder(registry_format(Some(own), Some("shop.Order")), &[], &fields);
    learn(&mut own);
    expect![[r#"
        {"number":7,"newer":null}
        {"number":0,"newer":9}
        {"number":0,"newer":10}
        row 1: schema 1 of the registry: the message is shop.Order.Inner, and `message` is shop.Order
        row 4: schema 1 of the registry: the message is shop.Other, and `message` is shop.Order
    "#]].assert_eq(&decoded(&mut own, &fields, &rows[..5]));
}

#[test]
fn a_schema_of_the_registry_may_be_compiled() {
    use base64::Engine;
    use base64::prelude::BASE64_STANDARD;
    let fields = vec![field("sku", D::Utf8)];
    let pool = file(LINE).message(None).unwrap();
    let compiled = pool.message().parent_file().encode_to_vec();
    let compiled = BASE64_STANDARD.encode(compiled);
    let mut decoder = decoder(registry_format(None, None), &[], &fields);
    decoder.learn(1, Ok(&registered(&compiled, &[])));
    decoder.learn(2, Ok(&registered("AAAA", &[])));
    let rows = [framed(1, &bytes("000a0178")), framed(2, &[0])];
    expect![[r#"
        {"sku":"x"}
        row 1: schema 2 of the registry: schema.proto is no file that is compiled: failed to decode Protobuf message: invalid tag value: 0
    "#]].assert_eq(&decoded(&mut decoder, &fields, &rows));
}

#[test]
fn no_bytes_cause_a_panic() {
    let fields = all_fields();
    let mut whole = decoder(plain(ALL, Some("shop.All")), &[], &fields);
    let there = vec![
        field("city", D::Utf8),
        field("zones", list(field("item", D::Int32))),
    ];
    let some = vec![nullable("there", record(there))];
    let mut part = decoder(plain(ALL, Some("shop.All")), &[], &some);
    let mut framed_rows = decoder(registry_format(None, None), &[], &fields);
    framed_rows.learn(1, Ok(&registered(ALL, &[])));
    let good = [full().encode_to_vec(), {
        let mut both = full();
        both.either = Some(Either::Word("w".to_owned()));
        [both.encode_to_vec(), full().encode_to_vec()].concat()
    }];
    let mut random = fastrand::Rng::with_seed(42);
    let mut bad = 0;
    for _ in 0..20_000 {
        let mut row = good[random.usize(..2)].clone();
        damage(&mut row, &mut random);
        let read = decoded(&mut whole, &fields, &[row.clone(), good[0].clone()]);
        assert!(read.contains("Hamar"), "its neighbour is lost: {row:?}");
        bad += usize::from(read.contains("row 0: "));
        // What prost reads, the columns of one field have room for.
        let read = decoded(&mut part, &some, std::slice::from_ref(&row));
        assert!(
            !read.contains("row 0: ") || All::decode(&row[..]).is_err(),
            "{read}: {row:?}"
        );
        decoded(&mut framed_rows, &fields, &[framed(1, &row)]);
        let noise: Vec<u8> = (0..random.usize(..40)).map(|_| random.u8(..)).collect();
        decoded(&mut whole, &fields, std::slice::from_ref(&noise));
        decoded(&mut framed_rows, &fields, &[framed(1, &noise)]);
    }
    assert!(bad > 5_000, "only {bad} rows were bad");
}
