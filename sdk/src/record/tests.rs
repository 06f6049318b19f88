use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use expect_test::expect;
use proptest::prelude::*;

use super::*;
use crate::bindings::sluicebox::plugin::columns::{Batch, Column, Packed, Values};
use crate::bindings::sluicebox::plugin::schemas;
use crate::prelude::*;
use crate::{Field, Record};

/// A record with every type of field, owned.
#[derive(Record, Clone, Debug, Default, PartialEq)]
struct Everything {
    flag: bool,
    tiny: i8,
    small: i16,
    medium: i32,
    large: i64,
    tiny_positive: u8,
    small_positive: u16,
    medium_positive: u32,
    large_positive: u64,
    half: f32,
    whole: f64,
    text: String,
    bytes: Vec<u8>,
    at: Timestamp,
    price: Decimal<2>,
    prices: Vec<Option<Decimal<38>>>,
    colour: Colour,
    shade: LongNamed,
    maybe: Option<String>,
    maybe_flag: Option<bool>,
    parts: Vec<Part>,
    numbers: Option<Vec<i64>>,
    flags: Vec<Option<bool>>,
    lists: Vec<Vec<String>>,
    set: BTreeSet<String>,
    map: BTreeMap<String, Option<i64>>,
    nested: BTreeMap<i64, BTreeMap<u32, Vec<bool>>>,
    part: Part,
    maybe_part: Option<Part>,
    r#type: Option<Colour>,
}

#[derive(Record, Clone, Debug, Default, PartialEq)]
struct Part {
    /// What it is called.
    name: String,
    colour: Colour,
    weight: Option<f64>,
    tags: Vec<String>,
}

#[derive(Symbol, Clone, Copy, Debug, Default, PartialEq)]
enum Colour {
    #[default]
    Red,
    DarkBlue,
    #[symbol("g")]
    Green,
}

#[derive(Symbol, Clone, Copy, Debug, Default, PartialEq)]
enum LongNamed {
    #[default]
    ALongNameForAShade,
    AnotherNameForAShade,
    Shade,
}

fn read_all<'t, R: Record<'t>>(table: &'t Table<'_>) -> Vec<Result<R, String>> {
    let reader = table.reader::<R>();
    (0..table.rows())
        // SAFETY: these are the rows of the table.
        .map(|row| unsafe { R::read(&reader, row) }.map_err(|cause| cause.to_string()))
        .collect()
}

fn colour() -> impl Strategy<Value = Colour> {
    prop_oneof![
        Just(Colour::Red),
        Just(Colour::DarkBlue),
        Just(Colour::Green)
    ]
}

fn part() -> impl Strategy<Value = Part> {
    let tags = prop::collection::vec(".{0,40}", 0..3);
    let weight = prop::option::of(-1e3..1e3);
    (".{0,9}", colour(), weight, tags).prop_map(|(name, colour, weight, tags)| Part {
        name,
        colour,
        weight,
        tags,
    })
}

prop_compose! {
    fn everything()(
        numbers in any::<(bool, i8, i16, i32, i64, u8, u16, u32, u64)>(),
        floats in (-1e3_f32..1e3, -1e6..1e6),
        text in ".{0,70}",
        bytes in prop::collection::vec(any::<u8>(), 0..70),
        (at, price, prices) in (
            any::<i64>(),
            any::<i128>(),
            prop::collection::vec(prop::option::of(any::<i128>()), 0..4),
        ),
        colours in (colour(), prop::option::of(colour())),
        shade in prop_oneof![
            Just(LongNamed::ALongNameForAShade),
            Just(LongNamed::AnotherNameForAShade),
            Just(LongNamed::Shade),
        ],
        maybe in (prop::option::of(".{0,20}"), prop::option::of(any::<bool>())),
        parts in prop::collection::vec(part(), 0..4),
        integers in prop::option::of(prop::collection::vec(any::<i64>(), 0..5)),
        flags in prop::collection::vec(prop::option::of(any::<bool>()), 0..12),
        lists in prop::collection::vec(prop::collection::vec(".{0,5}", 0..3), 0..3),
        set in prop::collection::btree_set(".{0,5}", 0..4),
        map in prop::collection::btree_map(".{0,5}", prop::option::of(any::<i64>()), 0..4),
        nested in prop::collection::btree_map(
            any::<i64>(),
            prop::collection::btree_map(
                any::<u32>(),
                prop::collection::vec(any::<bool>(), 0..3),
                0..3,
            ),
            0..3,
        ),
        part_and in (part(), prop::option::of(part())),
    ) -> Everything {
        let (flag, tiny, small, medium, large, p8, p16, p32, p64) = numbers;
        Everything {
            flag, tiny, small, medium, large,
            tiny_positive: p8,
            small_positive: p16,
            medium_positive: p32,
            large_positive: p64,
            half: floats.0,
            whole: floats.1,
            text,
            bytes,
            at: Timestamp(at),
            price: Decimal::from_units(price / 10),
            prices: prices
                .into_iter()
                .map(|units| units.map(|units| Decimal::from_units(units / 10)))
                .collect(),
            colour: colours.0,
            shade,
            maybe: maybe.0,
            maybe_flag: maybe.1,
            parts,
            numbers: integers,
            flags,
            lists,
            set,
            map,
            nested,
            part: part_and.0,
            maybe_part: part_and.1,
            r#type: colours.1,
        }
    }
}

proptest! {
    #[test]
    fn rows_come_back_from_columns(rows in prop::collection::vec(everything(), 0..40)) {
        let batch = columns(&rows);
        let table = Table::new(&batch);
        let read: Result<Vec<Everything>, String> = read_all(&table).into_iter().collect();
        prop_assert_eq!(read, Ok(rows));
    }
}

#[test]
fn borrowed_fields_are_slices_of_the_column() {
    #[derive(Record, Debug, PartialEq)]
    struct Borrowed<'a> {
        text: &'a str,
        bytes: &'a [u8],
        maybe: Option<&'a str>,
        several: Vec<&'a str>,
    }
    let row = Borrowed {
        text: "à la carte",
        bytes: &[0, 255],
        maybe: None,
        several: vec!["a", "", "bc"],
    };
    let batch = columns(std::slice::from_ref(&row));
    let table = Table::new(&batch);
    let read = read_all::<Borrowed<'_>>(&table);
    assert_eq!(read, vec![Ok(row)]);
    let Values::Packed(column) = &batch.columns[0].values else {
        panic!("not packed");
    };
    let text = read[0].as_ref().map(|row| row.text.as_ptr());
    assert_eq!(text, Ok(column.data.as_ptr()));
}

#[test]
#[deny(non_snake_case)]
fn a_column_can_have_another_name_than_its_field() {
    #[derive(Record, Clone, Debug, PartialEq)]
    #[allow(non_snake_case, reason = "the name is that of the column")]
    struct Invoice {
        #[record(name = "InvoiceNo")]
        number: String,
        #[record(name = "unit price")]
        unit_price: f64,
        StockCode: String,
    }

    let mut fields = Vec::new();
    <Invoice as Record>::describe(&mut fields);
    let names: Vec<&str> = fields.iter().map(|field| field.name.as_str()).collect();
    assert_eq!(names, ["InvoiceNo", "unit price", "StockCode"]);

    let invoice = Invoice {
        number: "536365".into(),
        unit_price: 2.55,
        StockCode: "85123A".into(),
    };
    let batch = columns(std::slice::from_ref(&invoice));
    let table = Table::new(&batch);
    assert_eq!(read_all::<Invoice>(&table), [Ok(invoice)]);
}

#[test]
fn a_schema_is_depth_first() {
    let mut fields = Vec::new();
    <Option<Part> as Field>::describe("part", "A part.", &mut fields);
    let lines: Vec<String> = fields
        .iter()
        .map(|field| {
            let mark = if field.nullable { "?" } else { "" };
            format!("{}: {:?}{mark} {}", field.name, field.type_, field.doc)
        })
        .collect();
    expect![[r#"
        part: FieldType::Record(4)? A part.
        name: FieldType::Utf8 What it is called.
        colour: FieldType::Symbol(["red", "dark_blue", "g"]) 
        weight: FieldType::Float64? 
        tags: FieldType::List 
        element: FieldType::Utf8 "#]]
    .assert_eq(&lines.join("\n"));
    assert_eq!(fields.len(), <Part as Field>::COLUMNS);
}

/// Sets and maps are lists in other languages, and of older plugins.
#[test]
fn sets_and_maps_are_lists() {
    #[derive(Record, Debug, PartialEq)]
    struct Sets {
        set: BTreeSet<u32>,
        map: BTreeMap<String, u32>,
    }

    #[derive(Record)]
    struct Lists {
        set: Vec<u32>,
        map: Vec<Entry>,
    }

    #[derive(Record)]
    struct Entry {
        key: String,
        value: u32,
    }

    let shown = |fields: Vec<schemas::Field>| {
        let field = |field: &schemas::Field| format!("{}: {:?}", field.name, field.type_);
        fields.iter().map(field).collect::<Vec<_>>()
    };
    assert_eq!(shown(schema_of::<Sets>()), shown(schema_of::<Lists>()));
    let entry = |key: &str, value| Entry {
        key: key.to_owned(),
        value,
    };
    let lists = Lists {
        set: vec![3, 1, 3],
        map: vec![entry("b", 1), entry("a", 2), entry("b", 3)],
    };
    let batch = columns(std::slice::from_ref(&lists));
    let sets = Sets {
        set: BTreeSet::from([1, 3]),
        map: BTreeMap::from([("a".to_owned(), 2), ("b".to_owned(), 3)]),
    };
    assert_eq!(read_all::<Sets>(&Table::new(&batch)), [Ok(sets)]);
}

#[derive(Record, Debug, PartialEq)]
struct Outer {
    inner: Inner,
    many: Vec<Colour>,
}

#[derive(Record, Debug, PartialEq)]
struct Inner {
    colour: Colour,
}

fn texts(values: &[&str]) -> Column {
    let mut packed = Packed {
        ends: Vec::new(),
        data: Vec::new(),
    };
    for value in values {
        packed.data.extend_from_slice(value.as_bytes());
        packed.ends.push(packed.data.len() as u32);
    }
    column(Values::Packed(packed))
}

fn column(values: Values) -> Column {
    Column {
        validity: None,
        values,
    }
}

fn batch(rows: u32, columns: Vec<Column>) -> Batch {
    Batch { rows, columns }
}

#[test]
fn an_unknown_symbol_is_reported_with_its_place() {
    let long = "x".repeat(100);
    let batch = batch(
        3,
        vec![
            column(Values::None),
            texts(&["g", "red!", long.as_str()]),
            column(Values::Ends(vec![1, 1, 1])),
            texts(&["pink"]),
        ],
    );
    let table = Table::new(&batch);
    let read: Vec<String> = read_all::<Outer>(&table)
        .into_iter()
        .map(|row| row.expect_err("every row has an unknown symbol"))
        .collect();
    expect![[r#"
        field `many`: expected `red`, `dark_blue` or `g`, found `pink`
        field `inner.colour`: expected `red`, `dark_blue` or `g`, found `red!`
        field `inner.colour`: expected `red`, `dark_blue` or `g`, found `xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…`"#]]
    .assert_eq(&read.join("\n"));
}

#[test]
fn symbols_are_told_apart_wherever_they_lie() {
    // At the end of the column's data, where eight bytes cannot be read, and
    // before; beside texts that could be taken for a part of them.
    let words = [
        "red",
        "re",
        "redg",
        "g",
        "",
        "gg",
        "dark_blue",
        "dark_blu",
        "Red",
        "g\0",
        "red",
    ];
    for skipped in 0..words.len() {
        let words = &words[skipped..];
        let batch = batch(words.len() as u32, vec![texts(words)]);
        let table = Table::new(&batch);
        for (row, word) in read_all::<Inner>(&table).into_iter().zip(words) {
            assert_eq!(
                row.ok().map(|row| row.colour),
                Colour::from_text(word),
                "{word:?}"
            );
        }
    }
}

#[test]
fn short_symbols_are_told_apart_wherever_they_lie() {
    #[derive(Symbol, Clone, Copy, Debug, PartialEq)]
    enum Action {
        Add,
        Remove,
        Checkout,
    }
    #[derive(Record)]
    struct Row {
        action: Action,
    }
    let words = [
        "add",
        "ad",
        "remove",
        "checkout",
        "checkouts",
        "add\0",
        "",
        "removed",
        "add",
    ];
    for skipped in 0..words.len() {
        let words = &words[skipped..];
        let batch = batch(words.len() as u32, vec![texts(words)]);
        let table = Table::new(&batch);
        for (row, word) in read_all::<Row>(&table).into_iter().zip(words) {
            assert_eq!(
                row.ok().map(|row| row.action),
                Action::from_text(word),
                "{word:?}"
            );
        }
    }
}

/// Reads a batch that does not have the agreed columns, and returns the panic's
/// message.
fn refused<R: for<'t> Record<'t>>(batch: &Batch) -> String {
    let panic = catch_unwind(AssertUnwindSafe(|| {
        let table = Table::new(batch);
        table.reader::<R>();
    }));
    match panic.expect_err("the batch was taken").downcast::<String>() {
        Ok(message) => *message,
        Err(other) => (*other.downcast::<&str>().expect("a text")).to_owned(),
    }
}

#[test]
fn a_wrong_batch_is_refused_at_once() {
    #[derive(Record)]
    struct Text {
        text: String,
    }
    let packed = |ends: &[u32], data: &[u8]| {
        column(Values::Packed(Packed {
            ends: ends.to_vec(),
            data: data.to_vec(),
        }))
    };
    let long: Vec<u32> = (0..100).map(|i| if i == 60 { 3 } else { i }).collect();
    let cases = [
        batch(2, vec![packed(&[2, 1], b"abc")]),
        batch(2, vec![packed(&[1, 4], b"abc")]),
        batch(100, vec![packed(&long, &[b'a'; 100])]),
        batch(2, vec![packed(&[1], b"a")]),
        batch(1, vec![column(Values::Int64(vec![1]))]),
        batch(1, Vec::new()),
        batch(
            2,
            vec![Column {
                validity: Some(vec![0b01]),
                ..texts(&["a", ""])
            }],
        ),
    ];
    let messages: Vec<String> = cases.iter().map(refused::<Text>).collect();
    expect![[r#"
        the host sent ends that are not in order
        the host sent ends that are not in order
        the host sent ends that are not in order
        the host sent a column of 2 entries for 3
        the host sent other numbers where text or bytes was agreed
        assertion `left == right` failed: the host sent another number of columns than agreed
          left: 0
         right: 1
        the host sent no value for a required field"#]]
    .assert_eq(&messages.join("\n"));
}

#[test]
fn members_of_a_missing_record_may_be_missing_too() {
    #[derive(Record, Debug, PartialEq)]
    struct Row {
        part: Option<Inner>,
    }
    let validity = Some(vec![0b10]);
    let batch = batch(
        2,
        vec![
            Column {
                validity: validity.clone(),
                values: Values::None,
            },
            Column {
                validity,
                ..texts(&["", "red"])
            },
        ],
    );
    let table = Table::new(&batch);
    let red = Inner {
        colour: Colour::Red,
    };
    let expected = vec![Ok(Row { part: None }), Ok(Row { part: Some(red) })];
    assert_eq!(read_all::<Row>(&table), expected);
}
