//! Tests that rows are read as they were written, and that tables keep their contents.

use std::sync::Arc;

use arrow_array::builder::{Int64Builder, ListBuilder};
use arrow_array::cast::AsArray;
use arrow_array::types::Float64Type;
use arrow_array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Decimal128Array, Float64Array, Int64Array,
    ListArray, StringArray, StructArray, UInt8Array,
};
use arrow_buffer::OffsetBuffer;
use arrow_select::take::take;
use proptest::prelude::*;

use super::key::{BatchKeys, KeyLayout, KeyTable, Selection};
use super::row::Codec;
use super::table::StateTable;
use crate::schema::{DataType, Field, Schema};

/// One value of each type that states and keys are made of.
#[derive(Clone, Debug)]
struct Value {
    flag: Option<bool>,
    byte: u8,
    number: Option<i64>,
    /// Bits, so that all floats are tried.
    float: u64,
    text: Option<String>,
    bytes: Vec<u8>,
    list: Option<Vec<Option<i64>>>,
    /// A record with a text, which may be missing as a whole.
    record: Option<(i64, String)>,
    /// A record of numbers.
    pair: Option<(i64, Option<bool>)>,
    decimal: Option<i128>,
}

const DECIMAL: DataType = DataType::Decimal {
    precision: 38,
    scale: 2,
};

fn schema() -> Schema {
    let list = DataType::List(Arc::new(Field::new("item", DataType::Int64, true)));
    let record = [
        Field::new("number", DataType::Int64, false),
        Field::new("text", DataType::Utf8, false),
    ];
    let pair = [
        Field::new("number", DataType::Int64, false),
        Field::new("flag", DataType::Bool, true),
    ];
    Schema::new(vec![
        Field::new("flag", DataType::Bool, true),
        Field::new("byte", DataType::UInt8, false),
        Field::new("number", DataType::Int64, true),
        Field::new("float", DataType::Float64, false),
        Field::new("text", DataType::Utf8, true),
        Field::new("bytes", DataType::Bytes, false),
        Field::new("list", list, true),
        Field::new("record", DataType::Record(Arc::new(record)), true),
        Field::new("pair", DataType::Record(Arc::new(pair)), true),
        Field::new("decimal", DECIMAL, true),
    ])
}

fn value() -> impl Strategy<Value = Value> {
    let record = proptest::option::of((any::<i64>(), any::<String>()));
    let list = proptest::option::of(proptest::collection::vec(any::<Option<i64>>(), 0..200));
    (
        any::<Option<bool>>(),
        any::<u8>(),
        any::<Option<i64>>(),
        any::<u64>(),
        any::<Option<String>>(),
        any::<Vec<u8>>(),
        list,
        record,
        (any::<Option<(i64, Option<bool>)>>(), any::<Option<i128>>()),
    )
        .prop_map(
            |(flag, byte, number, float, text, bytes, list, record, (pair, decimal))| Value {
                flag,
                byte,
                number,
                float,
                text,
                bytes,
                list,
                record,
                pair,
                decimal: decimal.map(|units| units / 10),
            },
        )
}

fn columns(values: &[Value]) -> Vec<ArrayRef> {
    let schema = schema();
    let record = |index: usize, members: Vec<ArrayRef>, valid: Vec<bool>| -> ArrayRef {
        let DataType::Record(fields) = &schema.fields[index].data_type else {
            unreachable!("it is a record")
        };
        let fields = fields.iter().map(Field::to_arrow).collect();
        Arc::new(StructArray::new(fields, members, Some(valid.into())))
    };
    let mut lists = ListBuilder::new(Int64Builder::new());
    for value in values {
        lists.append_option(value.list.clone());
    }
    let records = || values.iter().map(|value| value.record.clone());
    let pairs = || values.iter().map(|value| value.pair);
    let numbers = Int64Array::from_iter_values(records().map(|r| r.unwrap_or_default().0));
    let texts = StringArray::from_iter_values(records().map(|r| r.unwrap_or_default().1));
    let pair_numbers = Int64Array::from_iter_values(pairs().map(|p| p.unwrap_or_default().0));
    let pair_flags: BooleanArray = pairs().map(|p| p.and_then(|p| p.1)).collect();
    vec![
        Arc::new(values.iter().map(|v| v.flag).collect::<BooleanArray>()),
        Arc::new(UInt8Array::from_iter_values(values.iter().map(|v| v.byte))),
        Arc::new(values.iter().map(|v| v.number).collect::<Int64Array>()),
        Arc::new(Float64Array::from_iter_values(
            values.iter().map(|v| f64::from_bits(v.float)),
        )),
        Arc::new(
            values
                .iter()
                .map(|v| v.text.as_deref())
                .collect::<StringArray>(),
        ),
        Arc::new(BinaryArray::from_iter_values(
            values.iter().map(|v| &v.bytes),
        )),
        Arc::new(lists.finish()),
        record(
            7,
            vec![Arc::new(numbers), Arc::new(texts)],
            records().map(|r| r.is_some()).collect(),
        ),
        record(
            8,
            vec![Arc::new(pair_numbers), Arc::new(pair_flags)],
            pairs().map(|p| p.is_some()).collect(),
        ),
        Arc::new(
            values
                .iter()
                .map(|v| v.decimal)
                .collect::<Decimal128Array>()
                .with_data_type(DECIMAL.to_arrow()),
        ),
    ]
}

/// Floats are compared by their bits, and all else as it is shown.
fn shown(columns: &[ArrayRef]) -> String {
    let shown = |column: &ArrayRef| match column.as_primitive_opt::<Float64Type>() {
        Some(floats) => format!(
            "{:?}",
            floats
                .values()
                .iter()
                .map(|it| it.to_bits())
                .collect::<Vec<_>>()
        ),
        None => format!("{column:?}"),
    };
    columns.iter().map(shown).collect()
}

fn pick(columns: &[ArrayRef], rows: &[u32]) -> Vec<ArrayRef> {
    let rows = arrow_array::UInt32Array::from(rows.to_vec());
    columns
        .iter()
        .map(|column| take(column, &rows, None).expect("rows are in range"))
        .collect()
}

fn encode(codec: &Codec, columns: &[ArrayRef]) -> Vec<Vec<u8>> {
    let encoder = codec
        .encoder(columns)
        .expect("columns are of the codec's types");
    (0..columns[0].len())
        .map(|row| {
            let mut bytes = Vec::new();
            encoder.encode(row, &mut bytes);
            bytes
        })
        .collect()
}

proptest! {
    #[test]
    fn rows_come_back_as_they_were(values in proptest::collection::vec(value(), 1..20)) {
        let columns = columns(&values);
        let codec = Codec::new(schema().fields);
        let rows = encode(&codec, &columns);
        let back = codec.decode(rows.iter().map(Vec::as_slice)).expect("they were just written");
        prop_assert_eq!(shown(&back), shown(&columns));
        prop_assert_eq!(encode(&codec, &back), rows);
    }

    #[test]
    fn broken_rows_are_errors(value in value(), at in any::<prop::sample::Index>(), byte: u8) {
        let codec = Codec::new(schema().fields);
        let mut row = encode(&codec, &columns(&[value])).remove(0);
        let at = at.index(row.len());
        prop_assert!(codec.decode([&row[..at]].into_iter()).is_err());
        row[at] = byte;
        // Damaged bytes are read or refused, without a panic.
        let _ = codec.decode([row.as_slice()].into_iter());
        row.push(0);
        let _ = codec.decode([row.as_slice()].into_iter());
    }

    #[test]
    fn states_stay_in_their_slots(
        values in proptest::collection::vec(value(), 8..30),
        writes in proptest::collection::vec((0u32..12, any::<prop::sample::Index>()), 1..60),
    ) {
        let values = columns(&values);
        let mut table = StateTable::new(&schema());
        let slots: Vec<u32> = (0..12).map(|_| table.allocate()).collect();
        let rows: Vec<u32> = vec![0; 12];
        table.scatter(&slots, &pick(&values, &rows)).expect("of the table's types");
        let mut model = vec![0u32; 12];
        for (slot, row) in writes {
            let row = row.index(values[0].len()) as u32;
            table.release(slots[slot as usize]);
            prop_assert_eq!(table.allocate(), slots[slot as usize]);
            table.scatter(&[slots[slot as usize]], &pick(&values, &[row])).expect("of its types");
            model[slot as usize] = row;
        }
        let given = table.gather(&slots).expect("what was put in");
        let expected = pick(&values, &model);
        prop_assert_eq!(shown(&given), shown(&expected));
        for (at, expected) in expected.into_iter().enumerate() {
            let column = table.gather_column(&slots, at).expect("one of its columns");
            prop_assert_eq!(shown(&[column]), shown(&[expected]));
        }
    }

    /// The elements of lists are kept by column, in each other's lists as well.
    #[test]
    fn lists_of_records_stay_in_their_slots(
        states in proptest::collection::vec(proptest::collection::vec(line(), 0..20), 1..10),
        order in proptest::collection::vec(any::<prop::sample::Index>(), 1..20),
    ) {
        let (schema, lines) = lines(&states);
        let mut table = StateTable::new(&schema);
        let slots: Vec<u32> = states.iter().map(|_| table.allocate()).collect();
        table.scatter(&slots, &lines).expect("of the table's types");
        let rows: Vec<u32> = order.iter().map(|at| at.index(states.len()) as u32).collect();
        let wanted: Vec<u32> = rows.iter().map(|&row| slots[row as usize]).collect();
        let given = table.gather(&wanted).expect("what was put in");
        prop_assert_eq!(shown(&given), shown(&pick(&lines, &rows)));
        // They are kept in another form.
        let encoded = table.encode(&wanted).expect("they are states");
        let rows: Vec<&[u8]> = (0..wanted.len()).map(|row| encoded.row(row)).collect();
        let decoded = table.decode(rows.into_iter()).expect("they were just written");
        prop_assert_eq!(shown(&table.gather(&decoded).expect("they are there")), shown(&given));
    }
}

/// A text, a number that may be missing, and more texts.
type Line = (String, Option<i64>, Vec<String>);

fn line() -> impl Strategy<Value = Line> {
    let texts = proptest::collection::vec(any::<String>(), 0..4);
    (any::<String>(), any::<Option<i64>>(), texts)
}

/// A column with a list of lines in each row, and its schema.
fn lines(rows: &[Vec<Line>]) -> (Schema, Vec<ArrayRef>) {
    let text = Field::new("element", DataType::Utf8, false);
    let members = [
        Field::new("text", DataType::Utf8, false),
        Field::new("number", DataType::Int64, true),
        Field::new("texts", DataType::List(Arc::new(text.clone())), false),
    ];
    let line = Field::new(
        "element",
        DataType::Record(Arc::new(members.clone())),
        false,
    );
    let all = || rows.iter().flatten();
    let texts = StringArray::from_iter_values(all().flat_map(|line| &line.2));
    let texts = ListArray::new(
        Arc::new(text.to_arrow()),
        OffsetBuffer::from_lengths(all().map(|line| line.2.len())),
        Arc::new(texts),
        None,
    );
    let elements: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(all().map(|line| &line.0))),
        Arc::new(all().map(|line| line.1).collect::<Int64Array>()),
        Arc::new(texts),
    ];
    let fields = members.iter().map(Field::to_arrow).collect();
    let elements = StructArray::new(fields, elements, None);
    let lists = ListArray::new(
        Arc::new(line.to_arrow()),
        OffsetBuffer::from_lengths(rows.iter().map(Vec::len)),
        Arc::new(elements),
        None,
    );
    let field = Field::new("lines", DataType::List(Arc::new(line)), false);
    (Schema::new(vec![field]), vec![Arc::new(lists)])
}

/// Every version must read what a release has written.
#[test]
fn version_1_is_what_it_was() {
    let value = Value {
        flag: Some(true),
        byte: 7,
        number: Some(-2),
        float: 1.5f64.to_bits(),
        text: Some("né".to_owned()),
        bytes: vec![0; 130],
        list: Some(vec![Some(1), None]),
        record: None,
        pair: Some((3, None)),
        decimal: Some(-2),
    };
    let codec = Codec::new(schema().fields);
    let row = encode(&codec, &columns(&[value])).remove(0);
    let mut expected = vec![1, 1, 7, 1];
    expected.extend((-2i64).to_le_bytes());
    expected.extend(1.5f64.to_le_bytes());
    expected.extend([1, 3, b'n', 0xc3, 0xa9, 0x82, 0x01]);
    expected.extend([0; 130]);
    expected.extend([1, 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
    expected.extend([0, 1, 3, 0, 0, 0, 0, 0, 0, 0, 0]);
    expected.push(1);
    expected.extend((-2i128).to_le_bytes());
    assert_eq!(row, expected);
    assert_eq!(super::row::VERSION, 1);
}

#[test]
fn columns_of_other_types_are_refused() {
    let codec = Codec::new(vec![Field::new("n", DataType::Int64, false)]);
    let text: ArrayRef = Arc::new(StringArray::from(vec!["a"]));
    let error = codec.encoder(&[text]).err().map(|error| error.to_string());
    assert_eq!(
        error.as_deref(),
        Some("column `n` is Utf8 where int64 is expected")
    );
}

/// Upserts and removes keys at random and compares with a list.
#[test]
fn keys_keep_their_numbers() {
    let text = Schema::new(vec![Field::new("user", DataType::Utf8, true)]);
    let pair = Schema::new(vec![
        Field::new("user", DataType::Utf8, true),
        Field::new("n", DataType::Int64, false),
    ]);
    for schema in [text, pair] {
        let layout = KeyLayout::new(&schema);
        let mut random = fastrand::Rng::with_seed(1);
        let mut table = KeyTable::default();
        let mut batch = BatchKeys::new(layout.clone());
        let mut model: Vec<Option<(Option<String>, i64)>> = Vec::new();
        let width = schema.fields.len();
        for round in 0..60 {
            // Now and then with long runs.
            let run = if round % 3 == 0 { 20 } else { 1 };
            let keys: Vec<(Option<String>, i64)> = (0..200)
                .map(|_| {
                    let n = random.u32(0..500);
                    let user = match n {
                        0 => None,
                        1 => Some(String::new()),
                        n => Some(format!("{n}").repeat(n as usize)),
                    };
                    (user, if width == 1 { 0 } else { random.i64(0..3) })
                })
                .flat_map(|key| std::iter::repeat_n(key, run))
                .collect();
            let users: StringArray = keys.iter().map(|key| key.0.as_deref()).collect();
            let numbers = Int64Array::from_iter_values(keys.iter().map(|key| key.1));
            let columns: [ArrayRef; 2] = [Arc::new(users), Arc::new(numbers)];
            batch
                .read(columns[..width].to_vec(), keys.len(), |_| false)
                .expect("of its types");
            let mut covered = 0;
            for run in 0..batch.runs() {
                let rows = batch.rows(run);
                assert_eq!(rows.start, covered);
                covered = rows.end;
                let key = &keys[rows.start];
                assert!(keys[rows].iter().all(|other| other == key));
                let known = model.iter().position(|other| other.as_ref() == Some(key));
                let found = table.find(batch.key(run));
                assert_eq!(found.map(|id| id as usize), known);
                let (id, is_new) = table.upsert(batch.key(run));
                assert_eq!(is_new, known.is_none());
                if is_new {
                    model.resize(model.len().max(id as usize + 1), None);
                    assert_eq!(model[id as usize], None);
                    model[id as usize] = Some(key.clone());
                }
            }
            assert_eq!(covered, keys.len());
            for (id, key) in model.iter_mut().enumerate() {
                if key.is_some() && random.bool() {
                    table.remove(id as u32);
                    *key = None;
                }
            }
            let living: Vec<u32> = (0..model.len() as u32)
                .filter(|&id| model[id as usize].is_some())
                .collect();
            assert_eq!(table.len(), living.len());
            let columns = table
                .columns(&layout, Selection::Each(&living))
                .expect("its own");
            let users = columns[0]
                .as_any()
                .downcast_ref::<StringArray>()
                .expect("text");
            for (row, &id) in living.iter().enumerate() {
                let user = users.is_valid(row).then(|| users.value(row).to_owned());
                assert_eq!(Some(&user), model[id as usize].as_ref().map(|key| &key.0));
            }
        }
    }
}

/// A batch has the state of a key once, however many rows of it there are.
#[test]
fn rows_of_few_keys_have_room_beside_large_states() {
    const LARGE: usize = 1 << 20;
    let mut table = StateTable::new(&Schema::new(vec![Field::new(
        "text",
        DataType::Utf8,
        false,
    )]));
    let slots = [table.allocate(), table.allocate()];
    let text = "x".repeat(LARGE);
    let states: ArrayRef = Arc::new(StringArray::from(vec![text.as_str(); 2]));
    table.scatter(&slots, &[states]).expect("it fits");
    assert_eq!(
        table.room_for_rows(8 * LARGE),
        7,
        "nothing is known of rows"
    );
    for _ in 0..10 {
        table.note_batch(1_024, 2);
    }
    let rows = table.room_for_rows(8 * LARGE);
    assert!((3_500..=4_096).contains(&rows), "{rows}");
    assert_eq!(table.room(8 * LARGE), 7, "states are as large as before");
    // Keys that are many all at once are believed at once.
    table.note_batch(10, 10);
    assert_eq!(table.room_for_rows(8 * LARGE), 7);
    table.note_batch(1_024, 2);
    let rows = table.room_for_rows(8 * LARGE);
    assert!((14..17).contains(&rows), "{rows}");
}
