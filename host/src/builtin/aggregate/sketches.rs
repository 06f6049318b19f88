//! Functions that keep a sketch of each group: much less than its values, and enough for a
//! result that is near to the exact one. A sketch is the same in whatever order its values
//! come, and so is its result.
//!
//! States are in formats that other programs read: HyperLogLog as of Apache DataSketches,
//! DDSketch as of its authors' Java library.

use std::borrow::Cow;
use std::fmt::Display;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::TimestampMillisecondType;
use arrow_array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Float64Array, Int64Array, StringArray,
};
use arrow_schema::DataType as ArrowType;
use datasketches::hll::{Coupon, HllSketch, HllType, HllUnion};
use sketches_ddsketch::{Config, DDSketch};

use super::fold::{Fold, Input, Output, Problem, count_of};
use crate::builtin::values::{floats, integers, naturals, units};

/// A kind of sketch, and what is read off it.
pub(super) trait Sketches: Send + Sync + 'static {
    type Sketch;
    /// The values of a column, also where one is missing.
    type Values<'a>;
    type Result;

    fn empty(&self) -> Result<Self::Sketch, Problem>;
    fn read(bytes: &[u8]) -> Result<Self::Sketch, Problem>;
    fn write(sketch: &Self::Sketch) -> Vec<u8>;
    fn values(column: &ArrayRef) -> Self::Values<'_>;
    fn add(sketch: &mut Self::Sketch, values: &Self::Values<'_>, row: usize);
    fn merge(sketch: Self::Sketch, later: &Self::Sketch) -> Result<Self::Sketch, Problem>;
    fn result(&self, sketch: &Self::Sketch) -> Result<Self::Result, Problem>;
    fn column(results: Vec<Self::Result>) -> ArrayRef;
}

pub(super) struct Sketched<S>(S);

impl<S: Sketches> Sketched<S> {
    pub fn boxed(sketches: S) -> Box<dyn Fold> {
        Box::new(Sketched(sketches))
    }

    fn states(sketches: &[S::Sketch]) -> Vec<ArrayRef> {
        let bytes = sketches.iter().map(S::write);
        vec![Arc::new(BinaryArray::from_iter_values(bytes))]
    }
}

impl<S: Sketches> Fold for Sketched<S> {
    fn fold(&self, input: Input<'_>) -> Result<Output, Problem> {
        let mut sketches = read_all::<S>(&input.existing[0])?;
        while sketches.len() < input.group_count {
            sketches.push(self.0.empty()?);
        }
        let mut after = Vec::new();
        if let Some(column) = input.column {
            let values = S::values(column);
            let nulls = input.nulls();
            for (row, &group) in input.groups.iter().enumerate() {
                let sketch = &mut sketches[group as usize];
                if nulls.is_none_or(|nulls| nulls.is_valid(row)) {
                    S::add(sketch, &values, row);
                }
                if input.each {
                    after.push(self.0.result(sketch)?);
                }
            }
        }
        Ok(Output {
            states: Self::states(&sketches),
            after: input.each.then(|| S::column(after)),
        })
    }

    fn merge(&self, states: &[ArrayRef], groups: &[u32]) -> Result<Vec<ArrayRef>, Problem> {
        let mut merged: Vec<S::Sketch> = Vec::with_capacity(count_of(groups));
        for (sketch, &group) in read_all::<S>(&states[0])?.into_iter().zip(groups) {
            let is_first = group as usize == merged.len();
            let sketch = match merged.pop() {
                Some(before) if !is_first => S::merge(before, &sketch)?,
                before => {
                    merged.extend(before);
                    sketch
                }
            };
            merged.push(sketch);
        }
        Ok(Self::states(&merged))
    }

    fn results(&self, states: &[ArrayRef]) -> Result<ArrayRef, Problem> {
        let sketches = read_all::<S>(&states[0])?;
        let results = sketches.iter().map(|sketch| self.0.result(sketch));
        Ok(S::column(results.collect::<Result<_, _>>()?))
    }
}

fn read_all<S: Sketches>(states: &ArrayRef) -> Result<Vec<S::Sketch>, Problem> {
    states
        .as_binary::<i32>()
        .iter()
        .flatten()
        .map(S::read)
        .collect()
}

fn unreadable(error: impl Display) -> Problem {
    Problem::Sketch(error.to_string())
}

/// `approx_count_distinct(field)`: HyperLogLog by Flajolet et al. (2007).
pub(super) struct DistinctValues;

/// The logarithm of the number of registers, each of a byte: 4 KiB at most a sketch, and a
/// standard error of 1.6%.
const REGISTERS_LOG: u8 = 12;

/// Values that are counted.
pub(super) enum Countable<'a> {
    Integers(Cow<'a, [i64]>),
    Decimals(&'a [i128]),
    Naturals(Cow<'a, [u64]>),
    Texts(&'a StringArray),
    Bytes(&'a BinaryArray),
    Booleans(&'a BooleanArray),
}

/// Bytes that are hashed as they are.
struct Raw<'a>(&'a [u8]);

impl Hash for Raw<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(self.0);
    }
}

impl Sketches for DistinctValues {
    type Sketch = HllSketch;
    type Values<'a> = Countable<'a>;
    type Result = i64;

    fn empty(&self) -> Result<HllSketch, Problem> {
        HllSketch::new(REGISTERS_LOG, HllType::Hll8).map_err(unreadable)
    }

    fn read(bytes: &[u8]) -> Result<HllSketch, Problem> {
        HllSketch::deserialize(bytes).map_err(unreadable)
    }

    fn write(sketch: &HllSketch) -> Vec<u8> {
        sketch.serialize()
    }

    fn values(column: &ArrayRef) -> Countable<'_> {
        match column.data_type() {
            ArrowType::Boolean => Countable::Booleans(column.as_boolean()),
            ArrowType::Utf8 => Countable::Texts(column.as_string::<i32>()),
            ArrowType::Binary => Countable::Bytes(column.as_binary::<i32>()),
            ArrowType::UInt8 | ArrowType::UInt16 | ArrowType::UInt32 | ArrowType::UInt64 => {
                Countable::Naturals(naturals(column))
            }
            ArrowType::Decimal128(_, _) => Countable::Decimals(units(column)),
            ArrowType::Timestamp(_, _) => {
                let times = column.as_primitive::<TimestampMillisecondType>();
                Countable::Integers(Cow::Borrowed(times.values()))
            }
            _ => Countable::Integers(integers(column)),
        }
    }

    fn add(sketch: &mut HllSketch, values: &Countable<'_>, row: usize) {
        let coupon = match values {
            Countable::Integers(values) => Coupon::from_value(Raw(&values[row].to_le_bytes())),
            Countable::Decimals(values) => Coupon::from_value(Raw(&values[row].to_le_bytes())),
            Countable::Naturals(values) => Coupon::from_value(Raw(&values[row].to_le_bytes())),
            Countable::Texts(values) => Coupon::from_value(Raw(values.value(row).as_bytes())),
            Countable::Bytes(values) => Coupon::from_value(Raw(values.value(row))),
            Countable::Booleans(values) => Coupon::from_value(Raw(&[values.value(row).into()])),
        };
        sketch.update_with_coupon(coupon);
    }

    fn merge(sketch: HllSketch, later: &HllSketch) -> Result<HllSketch, Problem> {
        let mut union = HllUnion::new(REGISTERS_LOG).map_err(unreadable)?;
        union.update(&sketch);
        union.update(later);
        Ok(union.to_sketch(HllType::Hll8))
    }

    /// The composite estimate: the usual one depends on the order of values.
    fn result(&self, sketch: &HllSketch) -> Result<i64, Problem> {
        Ok(sketch.composite_estimate().round() as i64)
    }

    fn column(results: Vec<i64>) -> ArrayRef {
        Arc::new(Int64Array::from(results))
    }
}

/// `quantile(field, share)` and `median(field)`: DDSketch by Masson, Rim and Lee (2019),
/// which counts values in bins that are 2% wide each.
pub(super) struct Quantile {
    pub share: f64,
}

impl Sketches for Quantile {
    type Sketch = DDSketch;
    type Values<'a> = Cow<'a, [f64]>;
    type Result = Option<f64>;

    fn empty(&self) -> Result<DDSketch, Problem> {
        // A relative error of 1%, which is what is read back, too.
        Ok(DDSketch::new(Config::defaults()))
    }

    fn read(bytes: &[u8]) -> Result<DDSketch, Problem> {
        DDSketch::from_java_bytes(bytes).map_err(unreadable)
    }

    fn write(sketch: &DDSketch) -> Vec<u8> {
        sketch.to_java_bytes()
    }

    fn values(column: &ArrayRef) -> Cow<'_, [f64]> {
        floats(column)
    }

    /// What is not a finite number has no place among the others.
    fn add(sketch: &mut DDSketch, values: &Cow<'_, [f64]>, row: usize) {
        let value = values[row];
        if value.is_finite() {
            sketch.add(value);
        }
    }

    fn merge(mut sketch: DDSketch, later: &DDSketch) -> Result<DDSketch, Problem> {
        sketch.merge(later).map_err(unreadable)?;
        Ok(sketch)
    }

    fn result(&self, sketch: &DDSketch) -> Result<Option<f64>, Problem> {
        let quantile = sketch.quantile(self.share).map_err(unreadable)?;
        // A bin may reach beyond the values.
        let bounds = sketch.min().zip(sketch.max());
        Ok(quantile
            .zip(bounds)
            .map(|(quantile, (min, max))| quantile.max(min).min(max)))
    }

    fn column(results: Vec<Option<f64>>) -> ArrayRef {
        Arc::new(Float64Array::from(results))
    }
}
