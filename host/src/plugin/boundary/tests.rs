//! Rows come out as they went in, however they were sliced; and answers that
//! break the contract are refused.

use std::sync::Arc;

use arrow_array::builder::BooleanBufferBuilder;
use arrow_array::types::{
    Decimal128Type, Float64Type, Int8Type, Int64Type, TimestampMillisecondType, UInt32Type,
};
use arrow_array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Int64Array, ListArray, PrimitiveArray, StringArray,
    StructArray, UInt32Array,
};
use arrow_buffer::{NullBuffer, OffsetBuffer};
use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::gather::Picks;
use super::lift;
use super::lower::CallInput;
use crate::logic::{self, Columns, FailureKind};
use crate::plugin::contract::{
    BatchRef, ValuesRef, {self as wire},
};
use crate::schema::{DataType, Field, Schema};

const LIMIT: usize = 1 << 20;

fn action() -> DataType {
    DataType::Symbol(vec!["add".to_owned(), "considered".to_owned()].into())
}

/// Has room for all integers of 64 bits.
const CENTS: DataType = DataType::Decimal {
    precision: 20,
    scale: 2,
};

/// A schema with everything that the boundary treats specially.
fn schema() -> Schema {
    let line = DataType::Record(
        vec![
            Field::new("sku", DataType::Utf8, false),
            Field::new("gift", DataType::Bool, true),
        ]
        .into(),
    );
    Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("small", DataType::Int8, true),
        Field::new("price", DataType::Float64, true),
        Field::new("cents", CENTS, true),
        Field::new("ts", DataType::Timestamp, false),
        Field::new("user", DataType::Utf8, false),
        Field::new("note", DataType::Utf8, true),
        Field::new("action", action(), true),
        Field::new("raw", DataType::Bytes, true),
        Field::new("paid", DataType::Bool, false),
        Field::new(
            "tags",
            DataType::List(Arc::new(Field::new("element", DataType::Utf8, true))),
            true,
        ),
        Field::new(
            "lines",
            DataType::List(Arc::new(Field::new("element", line.clone(), false))),
            false,
        ),
        Field::new("gift", line, true),
    ])
}

fn random_array(field: &Field, rows: usize, random: &mut fastrand::Rng) -> ArrayRef {
    let nulls = field.nullable.then(|| {
        let mut bits = BooleanBufferBuilder::new(rows);
        (0..rows).for_each(|_| bits.append(random.u8(..4) > 0));
        NullBuffer::new(bits.finish())
    });
    let offsets = |random: &mut fastrand::Rng| {
        OffsetBuffer::from_lengths((0..rows).map(|_| random.usize(..4)))
    };
    // Lengths below and above the limit for copies in one step.
    let text = |random: &mut fastrand::Rng| match random.u8(..4) {
        0 => "grün 日本".to_owned(),
        _ => "x".repeat(random.usize(..40)),
    };
    match &field.data_type {
        DataType::Bool => {
            let mut bits = BooleanBufferBuilder::new(rows);
            (0..rows).for_each(|_| bits.append(random.bool()));
            Arc::new(BooleanArray::new(bits.finish(), nulls))
        }
        DataType::Int8 => {
            let values: Vec<i8> = (0..rows).map(|_| random.i8(..)).collect();
            Arc::new(PrimitiveArray::<Int8Type>::new(values.into(), nulls))
        }
        DataType::Int64 => {
            let values: Vec<i64> = (0..rows).map(|_| random.i64(..)).collect();
            Arc::new(PrimitiveArray::<Int64Type>::new(values.into(), nulls))
        }
        DataType::Float64 => {
            let values: Vec<f64> = (0..rows).map(|_| random.f64()).collect();
            Arc::new(PrimitiveArray::<Float64Type>::new(values.into(), nulls))
        }
        DataType::Decimal { .. } => {
            let values: Vec<i128> = (0..rows).map(|_| random.i64(..).into()).collect();
            let array = PrimitiveArray::<Decimal128Type>::new(values.into(), nulls);
            Arc::new(array.with_data_type(CENTS.to_arrow()))
        }
        DataType::Timestamp => {
            let values: Vec<i64> = (0..rows).map(|_| random.i64(..)).collect();
            let array = PrimitiveArray::<TimestampMillisecondType>::new(values.into(), nulls);
            Arc::new(array.with_timezone("UTC"))
        }
        DataType::Utf8 => {
            let texts = StringArray::from_iter_values((0..rows).map(|_| text(random)));
            Arc::new(StringArray::new(
                texts.offsets().clone(),
                texts.values().clone(),
                nulls,
            ))
        }
        DataType::Symbol(symbols) => {
            let one = |_| &symbols[random.usize(..symbols.len())];
            let texts = StringArray::from_iter_values((0..rows).map(one));
            Arc::new(StringArray::new(
                texts.offsets().clone(),
                texts.values().clone(),
                nulls,
            ))
        }
        DataType::Bytes => {
            let bytes = BinaryArray::from_iter_values((0..rows).map(|_| [0xff, random.u8(..)]));
            Arc::new(BinaryArray::new(
                bytes.offsets().clone(),
                bytes.values().clone(),
                nulls,
            ))
        }
        DataType::List(element) => {
            let offsets = offsets(random);
            let elements = offsets[rows] as usize;
            let values = random_array(element, elements, random);
            let element = Arc::new(element.to_arrow());
            Arc::new(ListArray::new(element, offsets, values, nulls))
        }
        DataType::Record(members) => {
            let columns = members
                .iter()
                .map(|member| random_array(member, rows, random))
                .collect();
            let fields = members.iter().map(Field::to_arrow).collect();
            Arc::new(StructArray::new(fields, columns, nulls))
        }
        other => unreachable!("{other} is not in the schema"),
    }
}

fn random_columns(rows: usize, seed: u64) -> Vec<ArrayRef> {
    let mut random = fastrand::Rng::with_seed(seed);
    let schema = schema();
    let fields = schema.fields.iter();
    fields
        .map(|field| random_array(field, rows, &mut random))
        .collect()
}

/// The answer of a plugin that returns its input.
fn echoed(batch: &BatchRef<'_>) -> wire::Batch {
    let columns = batch.columns.iter().map(|column| wire::Column {
        validity: column.validity.map(<[u8]>::to_vec),
        values: match &column.values {
            ValuesRef::None => wire::Values::None,
            ValuesRef::Bits(values) => wire::Values::Bits(values.to_vec()),
            ValuesRef::Int8(values) => wire::Values::Int8(values.to_vec()),
            ValuesRef::Int64(values) => wire::Values::Int64(values.to_vec()),
            ValuesRef::Float64(values) => wire::Values::Float64(values.to_vec()),
            ValuesRef::Decimals(bytes) => wire::Values::Decimals(bytes.to_vec()),
            ValuesRef::Packed(packed) => wire::Values::Packed(wire::Packed {
                ends: packed.ends.to_vec(),
                data: packed.data.to_vec(),
            }),
            ValuesRef::Ends(ends) => wire::Values::Ends(ends.to_vec()),
            other => unreachable!("{other:?} is not in the schema"),
        },
    });
    wire::Batch {
        rows: batch.rows,
        columns: columns.collect(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn what_goes_in_comes_out(
        seed: u64,
        rows in 0usize..60,
        (start, end) in (0usize..60, 0usize..60),
    ) {
        let start = start.min(rows);
        let end = end.clamp(start, rows);
        let given: Vec<ArrayRef> = random_columns(rows, seed)
            .iter()
            .map(|column| column.slice(start, end - start))
            .collect();
        let columns = Columns { rows: end - start, columns: &given };
        let schema = schema();
        let input = CallInput::new(&schema, columns).unwrap();
        let answer = wire::Rows {
            parents: (0..columns.rows as u32).collect(),
            columns: echoed(&input.batch().unwrap()),
        };
        let lifted = lift::rows(answer, &schema, &schema, columns, LIMIT).unwrap();
        for ((given, lifted), field) in given.iter().zip(&lifted.columns).zip(&schema.fields) {
            prop_assert_eq!(given, lifted, "{}", field);
            prop_assert_eq!(lifted.data_type(), &field.data_type.to_arrow());
            lifted.to_data().validate_full().unwrap();
        }
    }

    /// Any answer gives valid arrays or a failure.
    #[test]
    fn no_answer_makes_an_invalid_array(seed: u64, rows in 0usize..20, changes in 1usize..4) {
        let given = random_columns(rows, seed);
        let columns = Columns { rows, columns: &given };
        let schema = schema();
        let input = CallInput::new(&schema, columns).unwrap();
        let mut answer = wire::Rows {
            parents: (0..rows as u32).collect(),
            columns: echoed(&input.batch().unwrap()),
        };
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..changes {
            change(&mut answer, &mut random);
        }
        if let Ok(rows) = lift::rows(answer, &schema, &schema, columns, LIMIT) {
            for (column, field) in rows.columns.iter().zip(&schema.fields) {
                prop_assert_eq!(column.data_type(), &field.data_type.to_arrow());
                prop_assert_eq!(column.len(), rows.parents.len());
                column.to_data().validate_full().unwrap();
            }
        }
    }

    #[test]
    fn picked_rows_are_those_that_arrow_takes(
        seed: u64,
        rows in 1usize..60,
        start in 0usize..60,
        picked in prop_oneof![
            proptest::collection::vec(0u32..60, 0..40),
            (0u32..60, 0u32..60).prop_map(|(from, to)| (from..to).collect::<Vec<u32>>()),
            proptest::collection::vec((0u32..60, 0u32..12), 0..4)
                .prop_map(|runs| runs.iter().flat_map(|&(from, len)| from..from + len).collect()),
        ],
    ) {
        let start = start.min(rows - 1);
        let picked: Vec<u32> = picked
            .into_iter()
            .filter(|&row| (row as usize) < rows - start)
            .collect();
        for column in random_columns(rows, seed) {
            let column = column.slice(start, rows - start);
            let taken =
                arrow_select::take::take(&column, &UInt32Array::from(picked.clone()), None).unwrap();
            let mut bytes_left = LIMIT;
            let gathered = Picks::new(&picked).of(&column, &mut bytes_left).unwrap();
            prop_assert_eq!(&gathered, &taken);
            gathered.to_data().validate_full().unwrap();
        }
    }
}

/// Changes something in an answer.
fn change(answer: &mut wire::Rows, random: &mut fastrand::Rng) {
    fn change_one<T>(values: &mut Vec<T>, random: &mut fastrand::Rng, new: T) {
        match (random.u8(..4), values.is_empty()) {
            (0, _) => values.push(new),
            (1, false) => drop(values.pop()),
            (_, false) => {
                // Often the first, where a small change stays small.
                let at = random.usize(..values.len()) * usize::from(random.bool());
                values[at] = new;
            }
            (_, true) => {}
        }
    }
    let small = random.u32(..24);
    if random.u8(..8) == 0 {
        change_one(&mut answer.parents, random, small);
        answer.columns.rows = answer.parents.len() as u32;
        return;
    }
    let columns = &mut answer.columns.columns;
    if random.u8(..8) == 0 {
        change_one(columns, random, column(wire::Values::Input(small)));
        return;
    }
    if columns.is_empty() {
        return;
    }
    let at = random.usize(..columns.len());
    let changed = &mut columns[at];
    if random.bool()
        && let Some(validity) = &mut changed.validity
    {
        let bits = random.u8(..);
        change_one(validity, random, bits);
        return;
    }
    match &mut changed.values {
        wire::Values::Bits(bits) => change_one(bits, random, small as u8),
        wire::Values::Int64(values) => change_one(values, random, small.into()),
        wire::Values::Ends(ends) => change_one(ends, random, small),
        wire::Values::Packed(packed) if random.bool() => {
            // A small change is more likely to be missed than a large one.
            let end = match packed.ends.first() {
                Some(&end) if random.bool() => end.wrapping_add_signed(random.i32(-2..3)),
                _ => random.u32(..),
            };
            change_one(&mut packed.ends, random, end);
        }
        wire::Values::Packed(packed) => {
            let byte = random.u8(..);
            change_one(&mut packed.data, random, byte);
        }
        other => *other = wire::Values::Input(small),
    }
}

#[test]
fn a_few_rows_cannot_be_passed_on_as_more_than_the_limit() {
    let input: Vec<ArrayRef> = vec![Arc::new(StringArray::from(vec!["x".repeat(1000)]))];
    let schema = Schema::new(vec![Field::new("text", DataType::Utf8, false)]);
    let columns = Columns {
        rows: 1,
        columns: &input,
    };
    let answer = |rows: u32| wire::Rows {
        parents: vec![0; rows as usize],
        columns: wire::Batch {
            rows,
            columns: vec![column(wire::Values::Input(0))],
        },
    };
    assert!(lift::rows(answer(1000), &schema, &schema, columns, LIMIT).is_ok());
    let failure = lift::rows(answer(2000), &schema, &schema, columns, LIMIT)
        .unwrap_err()
        .into_failure(LIMIT);
    assert_eq!(failure.kind, FailureKind::OutputSize);
    assert_eq!(
        failure.message,
        "answered with more than its limit of 1 MiB"
    );
}

/// A bit each in the answer, but a byte or more after it.
#[test]
fn a_few_bytes_cannot_be_more_booleans_than_the_limit() {
    let item = Field::new("item", DataType::Bool, false);
    let list = DataType::List(Arc::new(item));
    let schema = Schema::new(vec![Field::new("flags", list, false)]);
    let input = Columns {
        rows: 1,
        columns: &[],
    };
    let answer = |flags: usize| wire::Rows {
        parents: vec![0],
        columns: wire::Batch {
            rows: 1,
            columns: vec![
                column(wire::Values::Ends(vec![flags as u32])),
                column(wire::Values::Bits(vec![0; flags.div_ceil(8)])),
            ],
        },
    };
    let none = Schema::new(Vec::new());
    assert!(lift::rows(answer(LIMIT), &schema, &none, input, LIMIT).is_ok());
    let failure = lift::rows(answer(LIMIT + 1), &schema, &none, input, LIMIT)
        .unwrap_err()
        .into_failure(LIMIT);
    assert_eq!(failure.kind, FailureKind::OutputSize);
}

fn column(values: wire::Values) -> wire::Column {
    wire::Column {
        validity: None,
        values,
    }
}

fn packed(ends: &[u32], data: &[u8]) -> wire::Column {
    column(wire::Values::Packed(wire::Packed {
        ends: ends.to_vec(),
        data: data.to_vec(),
    }))
}

/// Makes rows of an answer of two rows to an input of three.
fn answer(
    data_type: DataType,
    nullable: bool,
    columns: Vec<wire::Column>,
) -> Result<logic::Rows, String> {
    let output = Schema::new(vec![Field::new("out", data_type, nullable)]);
    let answer = wire::Rows {
        parents: vec![0, 2],
        columns: wire::Batch { rows: 2, columns },
    };
    rows(answer, &output)
}

fn rows(answer: wire::Rows, output: &Schema) -> Result<logic::Rows, String> {
    let input_schema = Schema::new(vec![
        Field::new("n", DataType::Int64, true),
        Field::new("text", DataType::Utf8, false),
        Field::new("action", action(), false),
    ]);
    let input: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(vec![Some(1), None, Some(3)])),
        Arc::new(StringArray::from(vec!["a", "b", "c"])),
        Arc::new(StringArray::from(vec!["add", "add", "subtract"])),
    ];
    let columns = Columns {
        rows: 3,
        columns: &input,
    };
    lift::rows(answer, output, &input_schema, columns, LIMIT)
        .map_err(|broken| broken.into_failure(LIMIT).message)
}

fn check(answer: Result<logic::Rows, String>, expected: Expect) {
    let shown = match answer {
        Ok(rows) => format!("{:?}", rows.columns),
        Err(message) => message,
    };
    expected.assert_eq(&shown);
}

#[test]
fn wrong_lengths_are_noticed() {
    use DataType::{Bool, Bytes, Int64, List, Timestamp, Utf8};
    let int64 = |values: &[i64]| column(wire::Values::Int64(values.to_vec()));
    check(
        answer(Int64, false, vec![]),
        expect!["gave an invalid answer: column `out`: missing"],
    );
    check(
        answer(Int64, false, vec![int64(&[1, 2]), int64(&[1, 2])]),
        expect!["gave an invalid answer: 1 columns more than its schema has"],
    );
    check(
        answer(Int64, false, vec![int64(&[1])]),
        expect!["gave an invalid answer: column `out`: 1 values for 2 rows"],
    );
    check(
        answer(Timestamp, false, vec![int64(&[1, 2, 3])]),
        expect!["gave an invalid answer: column `out`: 3 values for 2 rows"],
    );
    let decimals = |units: &[i128]| {
        let bytes = units.iter().flat_map(|units| units.to_le_bytes());
        column(wire::Values::Decimals(bytes.collect()))
    };
    let tens = DataType::Decimal {
        precision: 2,
        scale: 1,
    };
    check(
        answer(tens.clone(), false, vec![decimals(&[1])]),
        expect!["gave an invalid answer: column `out`: 1 values for 2 rows"],
    );
    let cut = column(wire::Values::Decimals(vec![0; 33]));
    check(
        answer(tens.clone(), false, vec![cut]),
        expect!["gave an invalid answer: column `out`: decimals that are not 16 bytes each"],
    );
    check(
        answer(tens.clone(), false, vec![decimals(&[99, 100])]),
        expect!["gave an invalid answer: column `out`: a decimal of more than 2 digits: 100 units"],
    );
    check(
        answer(tens.clone(), false, vec![decimals(&[i128::MIN, 0])]),
        expect![
            "gave an invalid answer: column `out`: a decimal of more than 2 digits: -170141183460469231731687303715884105728 units"
        ],
    );
    check(
        answer(tens, false, vec![decimals(&[-99, 99])]),
        expect![[r#"
        [PrimitiveArray<Decimal128(2, 1)>
        [
          -99,
          99,
        ]]"#]],
    );
    check(
        answer(Bool, false, vec![column(wire::Values::Bits(vec![1, 1]))]),
        expect!["gave an invalid answer: column `out`: 2 bytes of bits for 2 rows"],
    );
    check(
        answer(Utf8, false, vec![packed(&[1], b"a")]),
        expect!["gave an invalid answer: column `out`: 1 values for 2 rows"],
    );
    check(
        answer(Bytes, false, vec![packed(&[1, 3], b"ab")]),
        expect!["gave an invalid answer: column `out`: values end at byte 3 of 2"],
    );
    check(
        answer(Bytes, false, vec![packed(&[2, 1], b"ab")]),
        expect!["gave an invalid answer: column `out`: a value ends before it starts"],
    );
    check(
        answer(Bytes, false, vec![packed(&[0, u32::MAX], b"ab")]),
        expect![
            "gave an invalid answer: column `out`: a value ends at 4294967295, past what a column can hold"
        ],
    );
    let list = List(Arc::new(Field::new("element", Int64, false)));
    let ends = column(wire::Values::Ends(vec![1, 2]));
    check(
        answer(list.clone(), false, vec![ends.clone(), int64(&[7])]),
        expect!["gave an invalid answer: column `out.element`: 1 values for 2 rows"],
    );
    check(
        answer(list, false, vec![ends]),
        expect!["gave an invalid answer: column `out.element`: missing"],
    );
}

#[test]
fn wrong_values_are_noticed() {
    use DataType::{Int64, Utf8};
    let record = DataType::Record(vec![Field::new("sku", Utf8, false)].into());
    let none = || column(wire::Values::None);
    check(
        answer(Utf8, false, vec![packed(&[1, 2], &[b'a', 0xff])]),
        expect!["gave an invalid answer: column `out`: text that is not UTF-8"],
    );
    check(
        answer(Utf8, false, vec![packed(&[1, 2], "ü".as_bytes())]),
        expect!["gave an invalid answer: column `out`: a text that ends within a character"],
    );
    check(
        answer(Utf8, false, vec![packed(&[1, 2], b"ab and more")]),
        expect![[r#"
            [StringArray
            [
              "a",
              "b",
            ]]"#]],
    );
    check(
        answer(action(), false, vec![packed(&[3, 13], b"addconsidered")]),
        expect![[r#"
            [StringArray
            [
              "add",
              "considered",
            ]]"#]],
    );
    check(
        answer(action(), false, vec![packed(&[3, 6], b"addsub")]),
        expect!["gave an invalid answer: column `out`: `sub` is not one of add|considered"],
    );
    check(
        answer(action(), false, vec![packed(&[3, 14], b"addconsidering")]),
        expect!["gave an invalid answer: column `out`: `considering` is not one of add|considered"],
    );
    check(
        answer(action(), false, vec![packed(&[3, 3], b"add")]),
        expect!["gave an invalid answer: column `out`: `` is not one of add|considered"],
    );
    check(
        answer(Int64, false, vec![packed(&[0, 0], b"")]),
        expect!["gave an invalid answer: column `out`: expected int64, found text or bytes"],
    );
    check(
        answer(
            record.clone(),
            false,
            vec![none(), column(wire::Values::Int64(vec![1, 2]))],
        ),
        expect!["gave an invalid answer: column `out.sku`: expected utf8, found int64"],
    );
    check(
        answer(record, false, vec![none()]),
        expect!["gave an invalid answer: column `out.sku`: missing"],
    );
}

#[test]
fn wrong_validity_is_noticed() {
    let int64 = |bits: &[u8]| wire::Column {
        validity: Some(bits.to_vec()),
        values: wire::Values::Int64(vec![1, 2]),
    };
    check(
        answer(DataType::Int64, true, vec![int64(&[0b01])]),
        expect![[r#"
            [PrimitiveArray<Int64>
            [
              1,
              null,
            ]]"#]],
    );
    check(
        answer(DataType::Int64, true, vec![int64(&[])]),
        expect!["gave an invalid answer: column `out`: 0 bytes of bits for 2 rows"],
    );
    check(
        answer(DataType::Int64, false, vec![int64(&[0b11])]),
        expect![[r#"
            [PrimitiveArray<Int64>
            [
              1,
              2,
            ]]"#]],
    );
    check(
        answer(DataType::Int64, false, vec![int64(&[0b01])]),
        expect!["gave an invalid answer: column `out`: 1 missing values in a column without nulls"],
    );
}

#[test]
fn what_a_missing_record_hides_may_be_anything() {
    let members = vec![
        Field::new("action", action(), false),
        Field::new("count", DataType::Int64, false),
    ];
    let record = DataType::Record(members.into());
    let columns = |count_bits: u8, action: &[u8]| {
        let mut count = column(wire::Values::Int64(vec![1, 2]));
        count.validity = Some(vec![count_bits]);
        let mut record = column(wire::Values::None);
        record.validity = Some(vec![0b01]);
        let ends = [3, action.len() as u32];
        vec![record, packed(&ends, action), count]
    };
    assert!(answer(record.clone(), true, columns(0b01, b"add?")).is_ok());
    check(
        answer(record.clone(), true, columns(0b01, b"sub")),
        expect!["gave an invalid answer: column `out.action`: `sub` is not one of add|considered"],
    );
    check(
        answer(record, true, columns(0b10, b"add")),
        expect![
            "gave an invalid answer: column `out.count`: 1 missing values in a column without nulls"
        ],
    );
}

#[test]
fn wrong_inputs_are_noticed() {
    use DataType::{Int64, Utf8};
    let input = |index| vec![column(wire::Values::Input(index))];
    check(
        answer(Int64, true, input(0)),
        expect![[r#"
        [PrimitiveArray<Int64>
        [
          1,
          3,
        ]]"#]],
    );
    check(
        answer(Utf8, true, input(1)),
        expect![[r#"
        [StringArray
        [
          "a",
          "c",
        ]]"#]],
    );
    check(
        answer(Int64, false, input(0)),
        expect![
            "gave an invalid answer: column `out`: expected `out: int64`, found input `n: int64?`"
        ],
    );
    check(
        answer(Utf8, false, input(0)),
        expect![
            "gave an invalid answer: column `out`: expected `out: utf8`, found input `n: int64?`"
        ],
    );
    check(
        answer(Utf8, false, input(3)),
        expect!["gave an invalid answer: column `out`: input 3 of 3 inputs"],
    );
    // The host trusts symbols from upstream, but not from a plugin.
    check(
        answer(action(), false, input(2)),
        expect!["gave an invalid answer: column `out`: `subtract` is not one of add|considered"],
    );
    let list = DataType::List(Arc::new(Field::new("element", Utf8, false)));
    let nested = vec![
        column(wire::Values::Ends(vec![1, 2])),
        column(wire::Values::Input(1)),
    ];
    check(
        answer(list, false, nested),
        expect!["gave an invalid answer: column `out.element`: no input can be passed on here"],
    );
    let states = wire::Batch {
        rows: 1,
        columns: input(0),
    };
    let schema = Schema::new(vec![Field::new("count", Int64, false)]);
    let failure = lift::states(states, &schema, 1)
        .unwrap_err()
        .into_failure(LIMIT);
    expect!["gave an invalid answer: column `count`: no input can be passed on here"]
        .assert_eq(&failure.message);
}

#[test]
fn wrong_rows_are_noticed() {
    let output = Schema::new(vec![Field::new("text", DataType::Utf8, false)]);
    let answer = |parents: &[u32], rows| wire::Rows {
        parents: parents.to_vec(),
        columns: wire::Batch {
            rows,
            columns: vec![column(wire::Values::Input(1))],
        },
    };
    check(
        rows(answer(&[0, 0, 2], 3), &output),
        expect![[r#"
        [StringArray
        [
          "a",
          "a",
          "c",
        ]]"#]],
    );
    check(
        rows(answer(&[0, 0, 2], 2), &output),
        expect!["gave an invalid answer: 2 rows with 3 parents"],
    );
    check(
        rows(answer(&[0, 3], 2), &output),
        expect!["gave an invalid answer: a parent is row 3 of 3 rows"],
    );
    check(
        rows(answer(&[2, 1], 2), &output),
        expect!["gave an invalid answer: parents are not in ascending order"],
    );

    let reject = |row| wire::Reject {
        row,
        reason: "é".repeat(1 << 20),
    };
    let rejects = |rows: &[u32]| {
        let rejects = rows.iter().copied().map(reject).collect();
        match lift::rejects(rejects, 3, &[0, 0, 2]) {
            Ok(rejects) => format!("{} of {} bytes", rejects.len(), rejects[0].reason.len()),
            Err(broken) => broken.into_failure(LIMIT).message,
        }
    };
    expect!["1 of 4096 bytes"].assert_eq(&rejects(&[1]));
    expect!["gave an invalid answer: it rejects row 2 and answers it as well"]
        .assert_eq(&rejects(&[2]));
    expect!["gave an invalid answer: the rows that it rejects are not in ascending order"]
        .assert_eq(&rejects(&[1, 1]));
    expect!["gave an invalid answer: it rejects row 3 of 3 rows"].assert_eq(&rejects(&[3]));

    let selection = |kept: &[u32]| match lift::selection(kept.to_vec(), 3) {
        Ok(kept) => format!("{kept:?}"),
        Err(broken) => broken.into_failure(LIMIT).message,
    };
    expect!["[0, 2]"].assert_eq(&selection(&[0, 2]));
    expect!["gave an invalid answer: the rows that it keeps are not in ascending order"]
        .assert_eq(&selection(&[0, 0]));
    expect!["gave an invalid answer: it keeps row 3 of 3 rows"].assert_eq(&selection(&[3]));

    let states = wire::Batch {
        rows: 2,
        columns: vec![packed(&[1, 2], b"ab")],
    };
    let failure = lift::states(states, &output, 3)
        .unwrap_err()
        .into_failure(LIMIT);
    expect!["gave an invalid answer: 2 states for 3 groups"].assert_eq(&failure.message);
}

#[test]
fn the_hosts_own_mistakes_are_not_the_plugins() {
    let array: ArrayRef = Arc::new(PrimitiveArray::<UInt32Type>::from(vec![1, 2]));
    let schema = Schema::new(vec![Field::new("n", DataType::Int64, false)]);
    let message = |rows, columns: &[ArrayRef]| {
        let columns = Columns { rows, columns };
        match CallInput::new(&schema, columns).and_then(|input| input.batch().map(|_| ())) {
            Ok(()) => "fine".to_owned(),
            Err(failure) => failure.message,
        }
    };
    expect!["the host gave it column `n: int64` is UInt32, which is a bug in Sluicebox"]
        .assert_eq(&message(2, std::slice::from_ref(&array)));
    expect!["the host gave it a column of 2 in a batch of 3 rows, which is a bug in Sluicebox"]
        .assert_eq(&message(3, std::slice::from_ref(&array)));
    expect!["the host gave it 0 columns for a schema of 1, which is a bug in Sluicebox"]
        .assert_eq(&message(2, &[]));
}
