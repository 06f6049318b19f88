//! Compares every function of every type with a naive computation, wherever batches are
//! cut, states are written to rows and read back, and states are merged.

use std::collections::BTreeSet;

use arrow_array::builder::{Int64Builder, ListBuilder};
use arrow_array::cast::AsArray;
use arrow_array::types::Float64Type;
use arrow_array::{
    Array, BinaryArray, BooleanArray, Decimal128Array, Float32Array, Float64Array, Int8Array,
    Int16Array, Int32Array, Int64Array, ListArray, StringArray, StructArray,
    TimestampMillisecondArray, UInt8Array, UInt16Array, UInt32Array, UInt64Array,
};

use super::*;
use crate::decimal;
use crate::schema::DataType;
use crate::state::table::StateTable;

/// A row: its group, and the number that its value is made of.
type Row = (u32, Option<i64>);

/// As floats have them exactly.
const EIGHTHS: DataType = DataType::Decimal {
    precision: 9,
    scale: 3,
};

fn types() -> Vec<DataType> {
    let number = Field::new("n", DataType::Int64, false);
    vec![
        DataType::Bool,
        DataType::Int8,
        DataType::Int16,
        DataType::Int32,
        DataType::Int64,
        DataType::UInt8,
        DataType::UInt16,
        DataType::UInt32,
        DataType::UInt64,
        DataType::Float32,
        DataType::Float64,
        DataType::Utf8,
        DataType::Symbol(vec!["t000".to_owned()].into()),
        DataType::Bytes,
        DataType::Timestamp,
        EIGHTHS,
        DataType::List(Arc::new(Field::new("item", DataType::Int64, false))),
        DataType::Record(vec![number].into()),
    ]
}

fn calls() -> Vec<Call> {
    let texts = [
        "count()",
        "count(x)",
        "count_distinct(x)",
        "sum(x)",
        "mean(x)",
        "variance(x)",
        "stddev(x)",
        "min(x)",
        "max(x)",
        "first(x)",
        "last(x)",
        "top(1, x)",
        "top(3, x)",
        "approx_count_distinct(x)",
        "median(x)",
        "quantile(x, 0)",
        "quantile(x, 0.9)",
    ];
    let parse = |text: &str| Call::parse(text).unwrap_or_else(|e| panic!("{text}: {e:?}"));
    texts.into_iter().map(parse).collect()
}

/// The value of each number; a larger one has a larger value, but for booleans.
fn values(data_type: &DataType, numbers: &[Option<i64>]) -> ArrayRef {
    macro_rules! array {
        ($array:ty, $value:expr) => {
            Arc::new(numbers.iter().map(|it| it.map($value)).collect::<$array>())
        };
    }
    match data_type {
        DataType::Bool => array!(BooleanArray, |n| n % 2 == 1),
        DataType::Int8 => array!(Int8Array, |n| n as i8 - 50),
        DataType::Int16 => array!(Int16Array, |n| n as i16 - 50),
        DataType::Int32 => array!(Int32Array, |n| n as i32 - 50),
        DataType::Int64 => array!(Int64Array, |n| n - 50),
        DataType::UInt8 => array!(UInt8Array, |n| n as u8),
        DataType::UInt16 => array!(UInt16Array, |n| n as u16),
        DataType::UInt32 => array!(UInt32Array, |n| n as u32),
        DataType::UInt64 => array!(UInt64Array, |n| n as u64),
        DataType::Float32 => array!(Float32Array, |n| n as f32 / 4.0 - 10.0),
        DataType::Float64 => array!(Float64Array, |n| n as f64 / 4.0 - 10.0),
        DataType::Utf8 | DataType::Symbol(_) => array!(StringArray, |n| format!("t{n:03}")),
        DataType::Bytes => array!(BinaryArray, |n| vec![0, n as u8]),
        DataType::Decimal { .. } => decimals(
            data_type,
            numbers.iter().map(|n| n.map(|n| 125 * i128::from(n))),
        ),
        DataType::Timestamp => {
            let times = numbers
                .iter()
                .copied()
                .collect::<TimestampMillisecondArray>();
            Arc::new(times.with_timezone("UTC"))
        }
        DataType::List(element) => {
            let mut lists = ListBuilder::new(Int64Builder::new()).with_field(element.to_arrow());
            for number in numbers {
                lists.append_option(number.map(|n| vec![Some(n); n as usize % 3]));
            }
            Arc::new(lists.finish())
        }
        DataType::Record(fields) => {
            let nulls = numbers.iter().map(Option::is_some).collect::<Vec<_>>();
            let numbers = numbers.iter().map(|number| number.unwrap_or_default());
            Arc::new(StructArray::new(
                fields.iter().map(Field::to_arrow).collect(),
                vec![Arc::new(Int64Array::from_iter_values(numbers))],
                Some(nulls.into()),
            ))
        }
    }
}

fn decimals(data_type: &DataType, units: impl Iterator<Item = Option<i128>>) -> ArrayRef {
    let units = units.collect::<Decimal128Array>();
    Arc::new(units.with_data_type(data_type.to_arrow()))
}

/// The result of a function of these rows, by definition.
fn expected(call: &Call, data_type: &DataType, groups: &[Vec<Option<i64>>]) -> ArrayRef {
    let numbers = |group: &[Option<i64>]| group.iter().copied().flatten().collect::<Vec<i64>>();
    // As numbers compare by their values.
    let ordered = |group: &[Option<i64>]| {
        let mut numbers = numbers(group);
        if *data_type == DataType::Bool {
            numbers.iter_mut().for_each(|number| *number %= 2);
        }
        numbers.sort_unstable();
        numbers
    };
    let chosen = |choose: &dyn Fn(&[Option<i64>]) -> Option<i64>| {
        let chosen: Vec<Option<i64>> = groups.iter().map(|group| choose(group)).collect();
        values(data_type, &chosen)
    };
    let counts = |count: &dyn Fn(&[Option<i64>]) -> usize| -> ArrayRef {
        let counts = groups.iter().map(|group| count(group) as i64);
        Arc::new(Int64Array::from_iter_values(counts))
    };
    let floats = |group: &[Option<i64>]| {
        let known: Vec<Option<i64>> = numbers(group).into_iter().map(Some).collect();
        let values = values(data_type, &known);
        let values = (0..values.len()).map(|row| float_at(&values, row));
        values.collect::<Vec<f64>>()
    };
    let of_floats = |result: &dyn Fn(&[f64]) -> Option<f64>| -> ArrayRef {
        let results = groups.iter().map(|group| result(&floats(group)));
        Arc::new(results.collect::<Float64Array>())
    };
    let variance = |values: &[f64]| {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let squares = values.iter().map(|value| (value - mean) * (value - mean));
        (values.len() > 1).then(|| squares.sum::<f64>() / (values.len() - 1) as f64)
    };
    match call.function {
        Function::CountRows => counts(&|group| group.len()),
        Function::Count => counts(&|group| numbers(group).len()),
        Function::CountDistinct | Function::ApproxCountDistinct => counts(&|group| {
            let distinct: BTreeSet<i64> = ordered(group).into_iter().collect();
            distinct.len()
        }),
        Function::Min => chosen(&|group| ordered(group).first().copied()),
        Function::Max => chosen(&|group| ordered(group).last().copied()),
        Function::First => chosen(&|group| numbers(group).first().copied()),
        Function::Last => chosen(&|group| numbers(group).last().copied()),
        Function::Top(count) => {
            let lists = groups.iter().map(|group| {
                let mut numbers = ordered(group);
                numbers.reverse();
                numbers.truncate(count);
                numbers
            });
            let lists: Vec<Vec<i64>> = lists.collect();
            let all: Vec<Option<i64>> = lists.iter().flatten().copied().map(Some).collect();
            Arc::new(ListArray::new(
                Arc::new(Field::new("item", data_type.clone(), false).to_arrow()),
                arrow_buffer::OffsetBuffer::from_lengths(lists.iter().map(Vec::len)),
                values(data_type, &all),
                None,
            ))
        }
        Function::Mean => of_floats(&|values| {
            (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
        }),
        Function::Median => of_floats(&|values| quantile(values, 0.5)),
        Function::Quantile(share) => of_floats(&|values| quantile(values, share)),
        Function::Variance => of_floats(&variance),
        Function::Stddev => of_floats(&|values| variance(values).map(f64::sqrt)),
        Function::Sum => {
            let sums = of_floats(&|values| (!values.is_empty()).then(|| values.iter().sum()));
            let sums = sums.as_primitive::<Float64Type>();
            match Numbers::of(data_type) {
                Some(Numbers::Unsigned) => {
                    let sums = sums.iter().map(|sum| sum.map(|sum| sum as u64));
                    Arc::new(sums.collect::<UInt64Array>())
                }
                Some(Numbers::Floats) => Arc::new(sums.clone()),
                Some(Numbers::Decimals) => {
                    let sums = sums
                        .iter()
                        .map(|sum| sum.map(|sum| (sum * 1_000.0) as i128));
                    let digits = DataType::Decimal {
                        precision: 38,
                        scale: 3,
                    };
                    decimals(&digits, sums)
                }
                _ => {
                    let sums = sums.iter().map(|sum| sum.map(|sum| sum as i64));
                    Arc::new(sums.collect::<Int64Array>())
                }
            }
        }
    }
}

/// The value that this share of the others comes before.
fn quantile(values: &[f64], share: f64) -> Option<f64> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let rank = share * values.len().saturating_sub(1) as f64;
    values.get(rank as usize).copied()
}

fn float_at(values: &ArrayRef, row: usize) -> f64 {
    let value = take(values, &UInt32Array::from(vec![row as u32]), None);
    let value = value.unwrap_or_else(|e| panic!("{e}"));
    macro_rules! either {
        ($($array:ty)*) => {
            $(if let Some(value) = value.as_any().downcast_ref::<$array>() {
                return value.value(0) as f64;
            })*
        };
    }
    either!(Int8Array Int16Array Int32Array Int64Array UInt8Array UInt16Array UInt32Array);
    either!(UInt64Array Float32Array Float64Array);
    if let Some(value) = value.as_any().downcast_ref::<Decimal128Array>() {
        return value.value(0) as f64 / 1_000.0;
    }
    panic!("{value:?} is not a number")
}

/// Fails if results differ, but for the last digits of variances, and for the error of
/// quantiles. Sketches count few distinct values exactly.
fn compare(what: &str, given: &ArrayRef, expected: &ArrayRef) {
    if what.starts_with("median") || what.starts_with("quantile") {
        let (given, expected) = (given.as_primitive(), expected.as_primitive::<Float64Type>());
        let given: &Float64Array = given;
        assert_eq!(given.len(), expected.len());
        for (given, expected) in given.iter().zip(expected) {
            assert_eq!(given.is_some(), expected.is_some(), "{what}");
            let (given, expected) = (given.unwrap_or_default(), expected.unwrap_or_default());
            let apart = (given - expected).abs();
            assert!(
                apart <= 0.0101 * expected.abs(),
                "{what}: {given} is not {expected}"
            );
        }
        return;
    }
    let is_near = ["variance", "stddev"].iter().any(|name| what.starts_with(name))
        // They are divided by the number of values, then by that of units.
        || (what.starts_with("mean") && what.contains("decimal"));
    if is_near {
        let (given, expected) = (given.as_primitive(), expected.as_primitive::<Float64Type>());
        let given: &Float64Array = given;
        assert_eq!(given.len(), expected.len());
        for (given, expected) in given.iter().zip(expected) {
            let apart = given.unwrap_or(-1.0) - expected.unwrap_or(-1.0);
            assert!(apart.abs() < 1e-9, "{what}: {given:?} is not {expected:?}");
        }
        return;
    }
    assert_eq!(given, expected, "{what}");
}

/// An aggregate with its states, as the host keeps them.
struct Bench {
    functions: Functions,
    instance: Box<dyn Aggregate>,
    states: StateTable,
    /// The slot of each group that has a state.
    slots: Vec<Option<u32>>,
}

impl Bench {
    fn new(calls: &[Call], field: &Field) -> Bench {
        let columns = calls.iter().map(|call| Column {
            name: call.to_string(),
            call: call.clone(),
        });
        let functions = Functions::new(columns.collect(), Schema::new(vec![field.clone()]), false);
        let instance = functions.instance().and_then(Instance::aggregate);
        Bench {
            instance: instance.unwrap_or_else(|e| panic!("{e}")),
            states: StateTable::new(&functions.info().state),
            functions,
            slots: Vec::new(),
        }
    }

    /// Folds rows, and returns the rejected ones and the results after each row.
    fn rows(&mut self, column: &ArrayRef, groups: &[u32], each: bool) -> (Vec<Reject>, Rows) {
        let mut members: Vec<u32> = groups.to_vec();
        members.sort_unstable();
        members.dedup();
        let most = members.last().map_or(0, |last| *last as usize + 1);
        self.slots.resize(self.slots.len().max(most), None);
        members.sort_by_key(|&group| self.slots[group as usize].is_none());
        let of_row: Vec<u32> = groups
            .iter()
            .map(|group| members.iter().position(|it| it == group).unwrap_or(0) as u32)
            .collect();
        let existing: Vec<u32> = members
            .iter()
            .filter_map(|&group| self.slots[group as usize])
            .collect();
        let gathered = self
            .states
            .gather(&existing)
            .unwrap_or_else(|e| panic!("{e}"));
        let input = Columns {
            rows: groups.len(),
            columns: std::slice::from_ref(column),
        };
        let rows = Grouped::added(input, &of_row);
        let states = States {
            existing: Columns {
                rows: existing.len(),
                columns: &gathered,
            },
            groups: members.len(),
        };
        let (accumulated, rows) = if each {
            let both = self
                .instance
                .accumulate_each(rows, states, Columns::none(1));
            both.unwrap_or_else(|e| panic!("{e}"))
        } else {
            let none = Rows {
                parents: Vec::new(),
                columns: Vec::new(),
            };
            let accumulated = self.instance.accumulate(rows, states);
            (accumulated.unwrap_or_else(|e| panic!("{e}")), none)
        };
        let slots: Vec<u32> = members
            .iter()
            .map(|&group| {
                let slot = &mut self.slots[group as usize];
                *slot.get_or_insert_with(|| self.states.allocate())
            })
            .collect();
        let scattered = self.states.scatter(&slots, &accumulated.states);
        scattered.unwrap_or_else(|e| panic!("{e}"));
        (accumulated.rejects, rows)
    }

    fn states(&self) -> Vec<ArrayRef> {
        let slots: Vec<u32> = self.slots.iter().copied().flatten().collect();
        self.states.gather(&slots).unwrap_or_else(|e| panic!("{e}"))
    }

    /// Writes the states to rows, and reads them back.
    fn restore(&mut self) {
        let groups = (0..self.slots.len()).filter(|&group| self.slots[group].is_some());
        let groups: Vec<usize> = groups.collect();
        let slots: Vec<u32> = self.slots.iter().copied().flatten().collect();
        let encoded = self.states.encode(&slots).unwrap_or_else(|e| panic!("{e}"));
        let mut states = StateTable::new(&self.functions.info().state);
        let rows: Vec<&[u8]> = (0..slots.len()).map(|row| encoded.row(row)).collect();
        let read = states
            .decode(rows.into_iter())
            .unwrap_or_else(|e| panic!("{e}"));
        for (group, slot) in groups.into_iter().zip(read) {
            self.slots[group] = Some(slot);
        }
        self.states = states;
    }

    /// The results of all groups together.
    fn merged(&mut self) -> Vec<ArrayRef> {
        let columns = self.states();
        let rows = columns.first().map_or(0, |column| column.len());
        let states = Columns {
            rows,
            columns: &columns,
        };
        let merged = self.instance.merge(states, &vec![0; rows]);
        let merged = merged.unwrap_or_else(|e| panic!("{e}"));
        let states = Columns {
            rows: 1,
            columns: &merged,
        };
        let results = self.instance.finish(states, Columns::none(1), &[0], &[0]);
        results.unwrap_or_else(|e| panic!("{e}")).columns
    }

    /// The results of all groups, which must have a state.
    fn results(&mut self) -> Vec<ArrayRef> {
        let columns = self.states();
        let rows = self.slots.len();
        let times = vec![0; rows];
        let states = Columns {
            rows,
            columns: &columns,
        };
        let results = self
            .instance
            .finish(states, Columns::none(times.len()), &times, &times);
        let results = results.unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(results.parents, (0..rows as u32).collect::<Vec<u32>>());
        results.columns
    }
}

const GROUPS: u32 = 4;

/// Rows of all groups, with missing values where they can be.
fn rows(random: &mut fastrand::Rng, count: usize, nullable: bool) -> Vec<Row> {
    let mut row = |group: u32| {
        let missing = nullable && random.u32(0..3) == 0;
        (group, (!missing).then(|| random.i64(0..100)))
    };
    let mut rows: Vec<Row> = (0..GROUPS).map(&mut row).collect();
    for _ in 0..count {
        rows.push(row(
            fastrand::Rng::with_seed(rows.len() as u64).u32(0..GROUPS)
        ));
    }
    rows
}

fn by_group(rows: &[Row]) -> Vec<Vec<Option<i64>>> {
    let mut groups = vec![Vec::new(); GROUPS as usize];
    for &(group, number) in rows {
        groups[group as usize].push(number);
    }
    groups
}

/// Every type, with missing values and without, and the functions that take it.
fn each_type(mut test: impl FnMut(&DataType, &Field, &[Call], &mut fastrand::Rng)) {
    for (at, data_type) in types().into_iter().enumerate() {
        for nullable in [false, true] {
            let field = Field::new("x", data_type.clone(), nullable);
            let taken: Vec<Call> = calls()
                .into_iter()
                .filter(|call| call.takes(&data_type).is_ok())
                .collect();
            assert!(taken.len() >= 4, "{data_type}");
            let mut random = fastrand::Rng::with_seed(at as u64);
            test(&data_type, &field, &taken, &mut random);
        }
    }
}

#[test]
fn results_are_those_of_the_definition_wherever_batches_are_cut() {
    each_type(|data_type, field, calls, random| {
        for _ in 0..5 {
            let rows = rows(random, 150, field.nullable);
            let mut bench = Bench::new(calls, field);
            let mut left = rows.as_slice();
            while !left.is_empty() {
                let (batch, rest) = left.split_at(random.usize(1..=left.len().min(60)));
                let numbers: Vec<Option<i64>> = batch.iter().map(|row| row.1).collect();
                let groups: Vec<u32> = batch.iter().map(|row| row.0).collect();
                let (rejects, _) = bench.rows(&values(data_type, &numbers), &groups, false);
                assert_eq!(rejects, []);
                if random.bool() {
                    bench.restore();
                }
                left = rest;
            }
            let groups = by_group(&rows);
            for (call, given) in calls.iter().zip(bench.results()) {
                let what = format!("{call} of {field}");
                compare(&what, &given, &expected(call, data_type, &groups));
            }
        }
    });
}

#[test]
fn results_after_each_row_are_those_of_the_rows_so_far() {
    each_type(|data_type, field, calls, random| {
        let rows = rows(random, 60, field.nullable);
        let mut bench = Bench::new(calls, field);
        let mut before = 0;
        for batch in rows.chunks(25) {
            let numbers: Vec<Option<i64>> = batch.iter().map(|row| row.1).collect();
            let groups: Vec<u32> = batch.iter().map(|row| row.0).collect();
            let (_, results) = bench.rows(&values(data_type, &numbers), &groups, true);
            let all: Vec<u32> = (0..batch.len() as u32).collect();
            assert_eq!(results.parents, all);
            let so_far: Vec<Vec<Option<i64>>> = (0..batch.len())
                .map(|row| {
                    let rows = &rows[..=before + row];
                    by_group(rows)[batch[row].0 as usize].clone()
                })
                .collect();
            for (call, given) in calls.iter().zip(&results.columns) {
                let what = format!("{call} of {field}");
                compare(&what, given, &expected(call, data_type, &so_far));
            }
            before += batch.len();
        }
        let groups = by_group(&rows);
        for (call, given) in calls.iter().zip(bench.results()) {
            let what = format!("{call} of {field}");
            compare(&what, &given, &expected(call, data_type, &groups));
        }
    });
}

#[test]
fn merged_states_are_those_of_all_rows() {
    each_type(|data_type, field, calls, random| {
        // Each group is a part; parts 0 and 1, and 2 and 3, become one.
        let rows = rows(random, 100, field.nullable);
        let mut bench = Bench::new(calls, field);
        let numbers: Vec<Option<i64>> = rows.iter().map(|row| row.1).collect();
        let groups: Vec<u32> = rows.iter().map(|row| row.0).collect();
        bench.rows(&values(data_type, &numbers), &groups, false);
        let columns = bench.states();
        let states = Columns {
            rows: 4,
            columns: &columns,
        };
        let merged = bench.instance.merge(states, &[0, 0, 1, 1]);
        let merged = merged.unwrap_or_else(|e| panic!("{e}"));
        let states = Columns {
            rows: 2,
            columns: &merged,
        };
        let results = bench
            .instance
            .finish(states, Columns::none(2), &[0, 0], &[0, 0]);
        let results = results.unwrap_or_else(|e| panic!("{e}")).columns;
        let parts = by_group(&rows);
        let joined = [[&parts[0], &parts[1]], [&parts[2], &parts[3]]];
        let joined = joined.map(|parts| parts.into_iter().flatten().copied().collect::<Vec<_>>());
        for (call, given) in calls.iter().zip(results) {
            let what = format!("{call} of {field}");
            compare(&what, &given, &expected(call, data_type, &joined));
        }
    });
}

fn integers(bench: &mut Bench) -> Vec<Vec<Option<i64>>> {
    let results = bench.results();
    let column = |column: &ArrayRef| {
        let column: &Int64Array = column.as_primitive();
        column.iter().collect()
    };
    results.iter().map(column).collect()
}

fn call(text: &str) -> Call {
    Call::parse(text).unwrap_or_else(|e| panic!("{text}: {e:?}"))
}

/// A row that makes a sum too large changes no function, and what comes behind it is
/// judged without it, wherever batches are cut.
#[test]
fn a_row_with_which_a_sum_overflows_changes_nothing() {
    let numbers = [i64::MAX, 5, -7, 3, i64::MIN, 1, i64::MAX];
    let field = Field::new("x", DataType::Int64, false);
    let calls = ["count()", "sum(x)", "last(x)"].map(call);
    for each in [false, true] {
        for rows in 1..=numbers.len() {
            let mut bench = Bench::new(&calls, &field);
            let mut rejected = Vec::new();
            let mut after = Vec::new();
            for (at, batch) in numbers.chunks(rows).enumerate() {
                let column: ArrayRef = Arc::new(Int64Array::from(batch.to_vec()));
                let (rejects, results) = bench.rows(&column, &vec![0; batch.len()], each);
                let first = at * rows;
                rejected.extend(rejects.iter().map(|reject| first + reject.row as usize));
                after.extend(results.parents.iter().map(|row| first + *row as usize));
                if let Some(reject) = rejects.first() {
                    let reason = "`sum(x)` is too large for its type of 64 bits";
                    assert_eq!(reject.reason, reason);
                }
            }
            // MAX, then -7 makes room for 3, MIN for the rest but not for MAX.
            assert_eq!(rejected, [1], "batches of {rows}");
            if each {
                assert_eq!(after, [0, 2, 3, 4, 5, 6]);
            }
            let sum = i64::MAX as i128 - 7 + 3 + i64::MIN as i128 + 1 + i64::MAX as i128;
            let expected = [6, i64::try_from(sum).unwrap_or(0), i64::MAX];
            assert_eq!(integers(&mut bench), expected.map(|it| vec![Some(it)]));
        }
    }
}

proptest::proptest! {
    /// Sums of decimals are those of whole numbers of any size, which are rejected with the
    /// row that makes them longer than 38 digits; wherever batches are cut.
    #[test]
    fn sums_of_decimals_are_exact(
        units in proptest::collection::vec(-(decimal::limit(38) - 1)..decimal::limit(38), 1..20),
        shift in 0..4_u32,
        rows in 1..8_usize,
    ) {
        let data_type = DataType::Decimal { precision: 38, scale: 5 };
        let field = Field::new("x", data_type.clone(), false);
        let units: Vec<i128> = units.iter().map(|it| it / 10_i128.pow(shift)).collect();
        let mut bench = Bench::new(&["sum(x)", "count()", "mean(x)"].map(call), &field);
        let mut sum = Whole::default();
        let mut expected = 0;
        for batch in units.chunks(rows) {
            let column = decimals(&data_type, batch.iter().copied().map(Some));
            let (rejects, _) = bench.rows(&column, &vec![0; batch.len()], false);
            let mut rejected = rejects.iter().map(|reject| reject.row as usize).peekable();
            for (row, &units) in batch.iter().enumerate() {
                let fits = sum.plus(units).fits();
                assert_eq!(rejected.next_if_eq(&row).is_none(), fits, "{units}");
                if fits {
                    sum = sum.plus(units);
                    expected += 1;
                }
            }
        }
        if expected > 0 {
            let results = bench.results();
            assert_eq!(&results[0], &decimals(&data_type, [Some(sum.units())].into_iter()));
            let mean = results[2].as_primitive::<Float64Type>().value(0);
            let exact = decimal::to_float(sum.units(), 5) / f64::from(expected);
            assert!((mean - exact).abs() <= 1e-12 * exact.abs(), "{mean} is not {exact}");
        }
    }
}

/// A number of units in two parts, each far from the ends of its type.
#[derive(Clone, Copy, Default)]
struct Whole {
    /// Of 10^20 units.
    high: i128,
    low: i128,
}

impl Whole {
    const PART: i128 = 10_i128.pow(20);

    fn plus(self, units: i128) -> Whole {
        let low = self.low + units.rem_euclid(Self::PART);
        Whole {
            high: self.high + units.div_euclid(Self::PART) + low.div_euclid(Self::PART),
            low: low.rem_euclid(Self::PART),
        }
    }

    fn fits(self) -> bool {
        let most = 10_i128.pow(18);
        (-most..most).contains(&self.high) && (self.high, self.low) != (-most, 0)
    }

    fn units(self) -> i128 {
        self.high * Self::PART + self.low
    }
}

#[test]
fn states_whose_sum_overflows_are_not_merged() {
    let field = Field::new("x", DataType::UInt64, false);
    let mut bench = Bench::new(&[call("sum(x)"), call("mean(x)")], &field);
    let column: ArrayRef = Arc::new(UInt64Array::from(vec![u64::MAX, 1]));
    bench.rows(&column, &[0, 1], false);
    let columns = bench.states();
    let states = Columns {
        rows: 2,
        columns: &columns,
    };
    let merged = bench.instance.merge(states, &[0, 0]);
    assert_eq!(merged.err().map(|it| it.kind), Some(FailureKind::Overflow));
    // A mean has room for any number of them.
    let mut bench = Bench::new(&[call("mean(x)")], &field);
    let column: ArrayRef = Arc::new(UInt64Array::from(vec![u64::MAX; 4]));
    bench.rows(&column, &[0; 4], false);
    let mean: ArrayRef = Arc::new(Float64Array::from(vec![u64::MAX as f64]));
    assert_eq!(bench.results(), [mean]);
}

#[test]
fn numbers_that_are_none_are_the_largest() {
    let field = Field::new("x", DataType::Float64, true);
    let calls = ["min(x)", "max(x)", "top(2, x)", "sum(x)"].map(call);
    let mut bench = Bench::new(&calls, &field);
    let numbers = [
        Some(0.0),
        None,
        Some(-f64::NAN),
        Some(-0.0),
        Some(f64::INFINITY),
    ];
    let column: ArrayRef = Arc::new(Float64Array::from(numbers.to_vec()));
    bench.rows(&column, &[0; 5], false);
    let shown: Vec<String> = bench.results().iter().map(|it| format!("{it:?}")).collect();
    let numbers = shown
        .iter()
        .map(|it| it.split_whitespace().collect::<String>());
    let numbers: Vec<String> = numbers.collect();
    assert!(numbers[0].ends_with("[-0.0,]"), "{}", numbers[0]);
    assert!(numbers[1].ends_with("[NaN,]"), "{}", numbers[1]);
    assert!(numbers[2].ends_with("[NaN,inf,],]"), "{}", numbers[2]);
    assert!(numbers[3].ends_with("[NaN,]"), "{}", numbers[3]);
}

/// What a checkpoint keeps does not depend on names and the order of columns, and says
/// what it is.
#[test]
fn a_state_is_named_by_its_functions() {
    let state = |columns: &[(&str, &str)]| {
        let columns = columns.iter().map(|(name, text)| Column {
            name: (*name).to_owned(),
            call: call(text),
        });
        let input = Schema::new(vec![
            Field::new("amount", DataType::Int32, true),
            Field::new("user", DataType::Utf8, false),
        ]);
        let functions = Functions::new(columns.collect(), input, false);
        let info = functions.info();
        (info.state.to_string(), info.outputs[0].schema.to_string())
    };
    let columns = [
        ("orders", "count()"),
        ("revenue", "sum(amount)"),
        ("mean", "mean( amount )"),
        ("best", "top(3,amount)"),
        ("users", "count_distinct(user)"),
        ("again", "sum(amount)"),
    ];
    let (kept, results) = state(&columns);
    expect_test::expect!["count(): int64, count_distinct(user): list<utf8>, mean(amount) values: int64, mean(amount) sum high: int64, mean(amount) sum low: uint64, sum(amount): int64?, top(3, amount): list<int32>"].assert_eq(&kept);
    expect_test::expect!["orders: int64, revenue: int64?, mean: float64?, best: list<int32>, users: int64, again: int64?"].assert_eq(&results);
    let mut others = columns;
    others.reverse();
    others[0].0 = "sum";
    assert_eq!(state(&others).0, kept);
}

/// Rows that are taken back leave what they would have left if they had never come.
#[test]
fn rows_that_are_taken_back_leave_nothing() {
    let calls = [
        "count()",
        "count(n)",
        "sum(n)",
        "mean(n)",
        "variance(n)",
        "stddev(n)",
        "min(n)",
        "max(n)",
        "top(3, n)",
        "count_distinct(n)",
    ];
    let columns = calls.map(|text| Column {
        name: text.to_owned(),
        call: call(text),
    });
    for (data_type, seed) in [
        (DataType::Int64, 1),
        (DataType::UInt8, 2),
        (DataType::Float64, 3),
        (EIGHTHS, 4),
    ] {
        let field = Field::new("n", data_type, true);
        let schema = Schema::new(vec![field.clone()]);
        let of = |retracts| Functions::new(columns.to_vec(), schema.clone(), retracts);
        let instance = |functions: &Functions| {
            let instance = functions.instance().and_then(Instance::aggregate);
            instance.unwrap_or_else(|e| panic!("{e}"))
        };
        let (retracting, plain) = (of(true), of(false));
        assert!(retracting.info().retracts && !plain.info().retracts);
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..200 {
            // The rows that stand of each of two groups, and all in the order in which
            // they come.
            let mut standing: [Vec<Option<i64>>; 2] = Default::default();
            let (mut rows, mut groups, mut taken_back) = (Vec::new(), Vec::new(), Vec::new());
            for row in 0..random.u32(1..40) {
                let group = random.usize(0..2);
                let of_group = &mut standing[group];
                groups.push(group as u32);
                rows.push(if !of_group.is_empty() && random.bool() {
                    taken_back.push(row);
                    of_group.swap_remove(random.usize(0..of_group.len()))
                } else {
                    let value = (random.u32(0..4) > 0).then(|| random.i64(0..50));
                    of_group.push(value);
                    value
                });
            }
            let column = |values: &[Option<i64>]| -> ArrayRef {
                let values = values.iter().copied();
                match field.data_type {
                    DataType::UInt8 => {
                        Arc::new(UInt8Array::from_iter(values.map(|n| Some(n? as u8))))
                    }
                    DataType::Float64 => {
                        Arc::new(Float64Array::from_iter(values.map(|n| Some(n? as f64))))
                    }
                    DataType::Decimal { .. } => {
                        decimals(&field.data_type, values.map(|n| Some(i128::from(n?))))
                    }
                    _ => Arc::new(Int64Array::from_iter(values)),
                }
            };
            let fold =
                |functions: &Functions, rows: &[Option<i64>], groups: &[u32], back: &[u32]| {
                    let mut instance = instance(functions);
                    let none: Vec<ArrayRef> = StateTable::new(&functions.info().state)
                        .gather(&[])
                        .unwrap_or_else(|e| panic!("{e}"));
                    let columns = [column(rows)];
                    let input = Columns {
                        rows: rows.len(),
                        columns: &columns,
                    };
                    let states = States {
                        existing: Columns {
                            rows: 0,
                            columns: &none,
                        },
                        groups: 2,
                    };
                    let rows = Grouped {
                        taken_back: back,
                        ..Grouped::added(input, groups)
                    };
                    let folded = instance.accumulate(rows, states);
                    let folded = folded.unwrap_or_else(|e| panic!("{e}"));
                    assert!(folded.rejects.is_empty());
                    let states = Columns {
                        rows: 2,
                        columns: &folded.states,
                    };
                    let results = instance.finish(states, Columns::none(2), &[0, 0], &[1, 1]);
                    results.unwrap_or_else(|e| panic!("{e}"))
                };
            let results = fold(&retracting, &rows, &groups, &taken_back);
            let all: Vec<Option<i64>> = standing.concat();
            let groups_left = [vec![0; standing[0].len()], vec![1; standing[1].len()]].concat();
            let expected = fold(&plain, &all, &groups_left, &[]);
            let with_rows: Vec<u32> = (0..2)
                .filter(|&group| !standing[group as usize].is_empty())
                .collect();
            assert_eq!(
                results.parents, with_rows,
                "groups without rows have no result"
            );
            for (given, all) in results.columns.iter().zip(&expected.columns) {
                let expected = gather(std::slice::from_ref(all), &with_rows).remove(0);
                assert_close(given, &expected);
            }
        }
    }
}

/// Equal, but for the rounding of floats.
fn assert_close(given: &ArrayRef, expected: &ArrayRef) {
    let (Some(floats), Some(others)) = (
        given.as_primitive_opt::<Float64Type>(),
        expected.as_primitive_opt::<Float64Type>(),
    ) else {
        assert_eq!(given, expected);
        return;
    };
    for (one, other) in floats.iter().zip(others) {
        match (one, other) {
            (Some(one), Some(other)) => assert!((one - other).abs() < 1e-6, "{one} and {other}"),
            (one, other) => assert_eq!(one, other),
        }
    }
}

/// Sketches of many values, of all magnitudes, are the same wherever batches are cut, in
/// whatever order rows come, and whichever parts are merged.
#[test]
fn sketches_depend_on_nothing_but_the_values() {
    let calls = [
        "approx_count_distinct(x)",
        "median(x)",
        "quantile(x, 0.99)",
        "quantile(x, 0.001)",
    ];
    let calls = calls.map(|text| Call::parse(text).unwrap_or_else(|e| panic!("{text}: {e:?}")));
    let integers = Field::new("x", DataType::Int64, false);
    let floats = Field::new("x", DataType::Float64, false);
    for seed in 0..6 {
        let mut random = fastrand::Rng::with_seed(seed);
        let count = [10, 500, 5_000, 100_000][seed as usize % 4];
        let numbers: Vec<i64> = (0..count).map(|_| random.i64(0..count) - 3).collect();
        // Across more magnitudes than there are bins.
        let magnitudes: Vec<f64> = (0..count)
            .map(|_| {
                random.f64() * 10f64.powi(random.i32(-12..300)) * [1.0, -1.0][random.usize(0..2)]
            })
            .collect();
        let mut first: Option<[Vec<ArrayRef>; 2]> = None;
        for _ in 0..4 {
            let mut order: Vec<usize> = (0..numbers.len()).collect();
            random.shuffle(&mut order);
            let of_integers = order.iter().map(|&at| numbers[at]);
            let of_floats = order.iter().map(|&at| magnitudes[at]);
            let columns: [ArrayRef; 2] = [
                Arc::new(Int64Array::from_iter_values(of_integers)),
                Arc::new(Float64Array::from_iter_values(of_floats)),
            ];
            let results = [(&calls[..], &integers), (&calls[1..], &floats)];
            let mut results = results
                .into_iter()
                .zip(&columns)
                .map(|((calls, field), column)| {
                    let mut bench = Bench::new(calls, field);
                    // Parts, which are merged in the end.
                    let parts = random.u32(1..5);
                    let mut at = 0;
                    while at < column.len() {
                        let rows = random
                            .usize(1..=column.len().div_ceil(5))
                            .min(column.len() - at);
                        let part = random.u32(0..parts);
                        bench.rows(&column.slice(at, rows), &vec![part; rows], false);
                        if random.bool() {
                            bench.restore();
                        }
                        at += rows;
                    }
                    bench.merged()
                });
            let results = [(); 2].map(|()| results.next().unwrap_or_default());
            let first = first.get_or_insert_with(|| results.clone());
            assert_eq!(&results, first, "seed {seed}, {count} rows");
        }
        let Some([of_integers, _]) = first else {
            panic!("it ran")
        };
        let distinct = numbers.iter().collect::<BTreeSet<_>>().len() as f64;
        let given = of_integers[0].as_primitive::<Int64Type>().value(0);
        assert!(
            (given as f64 - distinct).abs() <= 0.05 * distinct,
            "{given} of {distinct}"
        );
    }
}

/// What is no finite number is not counted; what is nearly 0 counts as 0, but not beyond
/// the values.
#[test]
fn quantiles_of_odd_numbers() {
    let field = Field::new("x", DataType::Float64, false);
    let median = [Call::parse("median(x)").unwrap_or_else(|e| panic!("{e:?}"))];
    let of = |values: &[f64]| {
        let mut bench = Bench::new(&median, &field);
        let column: ArrayRef = Arc::new(Float64Array::from(values.to_vec()));
        bench.rows(&column, &vec![0; values.len()], false);
        let results = bench.results();
        let result = results[0].as_primitive::<Float64Type>();
        result.is_valid(0).then(|| result.value(0))
    };
    assert_eq!(of(&[f64::NAN, f64::INFINITY, f64::NEG_INFINITY]), None);
    assert_eq!(of(&[f64::NAN, 7.0, f64::INFINITY]), Some(7.0));
    assert_eq!(of(&[1e-10, 1e-10]), Some(1e-10));
    assert_eq!(of(&[-0.0]), Some(0.0));
    assert_eq!(of(&[f64::MAX]), Some(f64::MAX));
    assert_eq!(of(&[f64::MIN]), Some(f64::MIN));
}

/// Functions that keep the same keep it once, and may change.
#[test]
fn quantiles_of_a_field_share_their_sketch() {
    let field = Field::new("x", DataType::Int64, false);
    let state = |texts: &[&str]| {
        let calls: Vec<Call> = texts.iter().flat_map(|text| Call::parse(text)).collect();
        assert_eq!(calls.len(), texts.len());
        Bench::new(&calls, &field).functions.info().state.clone()
    };
    let one = state(&["count()", "median(x)", "sum(x)"]);
    assert_eq!(one.fields.len(), 3);
    let many = state(&["count()", "quantile(x, 0.9)", "sum(x)", "quantile(x, 0.5)"]);
    assert_eq!(one, many);
}

/// A state that this version has written must be read by all later ones.
#[test]
fn sketches_are_kept_in_the_formats_of_others() {
    let field = Field::new("x", DataType::Int64, false);
    let calls = ["approx_count_distinct(x)", "median(x)"];
    let calls: Vec<Call> = calls.iter().flat_map(|text| Call::parse(text)).collect();
    let mut bench = Bench::new(&calls, &field);
    let column: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 2, -3, 0]));
    bench.rows(&column, &[0; 5], false);
    let hex = |state: &ArrayRef| {
        let bytes = state.as_binary::<i32>().value(0).iter();
        bytes.map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    let states: Vec<String> = bench.states().iter().map(hex).collect();
    expect_test::expect![[r#"
        0201070c030804082bf2fb06862ff90dcdbf440acbd7c204
        a0058800000000000008c08c000000000000004084000000000000004002fd4a815abf52f03f0000000000000000040205020002440307016c02"#]].assert_eq(&states.join("\n"));
}
