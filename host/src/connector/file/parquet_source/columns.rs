//! Makes columns of a source's fields of a Parquet file's columns.
//!
//! Whether the types fit is decided once for each file, with [`fits`]. What is then left to
//! go wrong is a value: one that is missing, is none of a field's symbols, or is a time that
//! ms cannot tell. [`Checked`] finds the rows with such values, and [`column`] makes the
//! columns of the others.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    ArrowPrimitiveType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type,
    Int32Type, Int64Type, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{
    Array, ArrayRef, BinaryArray, Decimal128Array, ListArray, PrimitiveArray, StructArray,
    TimestampMillisecondArray, new_null_array,
};
use arrow_buffer::NullBuffer;
use arrow_schema::{DataType as ArrowType, Fields, TimeUnit};

use crate::schema::{DataType, Field};
use crate::timestamp::{self, CutTimes};

const DAY_MS: i64 = 86_400_000;

/// Why a column of a file cannot be read as a field; `None` if it can. `name` is that of the
/// field, with those of the records around it.
pub(super) fn fits(name: &str, given: &ArrowType, wanted: &DataType) -> Result<(), String> {
    use ArrowType as A;
    use DataType as D;
    let mismatch = || {
        let given = type_name(given);
        Err(format!(
            "`{name}` is {wanted} in `fields`, and {given} in the file"
        ))
    };
    let is_good = match (given, wanted) {
        (A::Boolean, D::Bool)
        | (A::Float32, D::Float32 | D::Float64)
        | (A::Float64, D::Float64)
        | (A::Utf8, D::Utf8 | D::Symbol(_))
        | (A::Binary | A::FixedSizeBinary(_), D::Bytes)
        | (A::Timestamp(..) | A::Date32, D::Timestamp) => true,
        (A::Int8, _) => matches!(wanted, D::Int8 | D::Int16 | D::Int32 | D::Int64),
        (A::Int16, _) => matches!(wanted, D::Int16 | D::Int32 | D::Int64),
        (A::Int32, _) => matches!(wanted, D::Int32 | D::Int64),
        (A::Int64, _) => matches!(wanted, D::Int64),
        (A::UInt8, _) => matches!(
            wanted,
            D::UInt8 | D::UInt16 | D::UInt32 | D::UInt64 | D::Int16 | D::Int32 | D::Int64
        ),
        (A::UInt16, _) => matches!(
            wanted,
            D::UInt16 | D::UInt32 | D::UInt64 | D::Int32 | D::Int64
        ),
        (A::UInt32, _) => matches!(wanted, D::UInt32 | D::UInt64 | D::Int64),
        (A::UInt64, _) => matches!(wanted, D::UInt64),
        (A::Decimal128(given, given_scale), &D::Decimal { precision, scale }) => {
            // No digit is lost, in front of the point or behind it.
            let behind = i16::from(scale) - i16::from(*given_scale);
            behind >= 0 && i16::from(*given) + behind <= i16::from(precision)
        }
        (A::List(given), D::List(element)) => {
            return fits(&format!("{name}[]"), given.data_type(), &element.data_type);
        }
        (A::Struct(given), D::Record(fields)) => {
            for field in fields.iter() {
                let name = format!("{name}.{}", field.name);
                match find(given, &field.name) {
                    Some((_, given)) => fits(&name, given, &field.data_type)?,
                    None if field.nullable => {}
                    None => return Err(format!("`{name}` is not in the file: {}", names(given))),
                }
            }
            true
        }
        _ => false,
    };
    match is_good {
        true => Ok(()),
        false => mismatch(),
    }
}

/// The columns that a file has, for messages.
pub(super) fn names(fields: &Fields) -> String {
    const SHOWN: usize = 10;
    let shown = fields.iter().take(SHOWN);
    let shown: Vec<String> = shown.map(|field| format!("`{}`", field.name())).collect();
    let more = match fields.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("it has {}{more}", shown.join(", "))
}

/// A column, or a member of a record, by its name. One that is said to have no value at all,
/// as pandas writes it, is none.
pub(super) fn find<'a>(fields: &'a Fields, name: &str) -> Option<(usize, &'a ArrowType)> {
    let (index, field) = fields.find(name)?;
    Some((index, field.data_type())).filter(|(_, given)| **given != ArrowType::Null)
}

/// A type of a file, as the pipeline's file names it, or else as Arrow does.
fn type_name(given: &ArrowType) -> String {
    let known = match given {
        ArrowType::Boolean => DataType::Bool,
        ArrowType::Int8 => DataType::Int8,
        ArrowType::Int16 => DataType::Int16,
        ArrowType::Int32 => DataType::Int32,
        ArrowType::Int64 => DataType::Int64,
        ArrowType::UInt8 => DataType::UInt8,
        ArrowType::UInt16 => DataType::UInt16,
        ArrowType::UInt32 => DataType::UInt32,
        ArrowType::UInt64 => DataType::UInt64,
        ArrowType::Float32 => DataType::Float32,
        ArrowType::Float64 => DataType::Float64,
        ArrowType::Utf8 => DataType::Utf8,
        ArrowType::Binary | ArrowType::FixedSizeBinary(_) => DataType::Bytes,
        ArrowType::Timestamp(..) => DataType::Timestamp,
        ArrowType::Date32 => return "a date, which `timestamp` reads".to_owned(),
        ArrowType::Decimal128(precision, scale) => return format!("decimal({precision},{scale})"),
        ArrowType::List(element) => return format!("list<{}>", type_name(element.data_type())),
        ArrowType::Struct(fields) => {
            let members = fields.iter();
            let members = members.map(|it| format!("{}: {}", it.name(), type_name(it.data_type())));
            return format!("{{{}}}", Vec::from_iter(members).join(", "));
        }
        other => return format!("{other}, which no field can be"),
    };
    known.to_string()
}

/// What is wrong with rows, and which times are rounded.
#[derive(Default)]
pub(super) struct Checked {
    /// By the numbers of the rows.
    pub bad: BTreeMap<usize, String>,
    pub cut_times: Option<CutTimes>,
}

impl Checked {
    /// Checks the column of a field; `None` where the file has none.
    pub fn column(&mut self, field: &Field, given: Option<&ArrayRef>) {
        if let Some(given) = given {
            self.values(&field.name, field, given, None, &|index| index);
        }
    }

    /// `row` is that of a value. Where `around` has no value, nobody misses one.
    fn values(
        &mut self,
        name: &str,
        field: &Field,
        given: &ArrayRef,
        around: Option<&NullBuffer>,
        row: &dyn Fn(usize) -> usize,
    ) {
        if *given.data_type() == ArrowType::Null {
            return;
        }
        let is_expected = |index: usize| around.is_none_or(|around| around.is_valid(index));
        if !field.nullable && given.null_count() > 0 {
            for index in 0..given.len() {
                if given.is_null(index) && is_expected(index) {
                    let wrong = format!("`{name}` is missing, and has no `?` in `fields`");
                    self.bad.entry(row(index)).or_insert(wrong);
                }
            }
        }
        match &field.data_type {
            DataType::Symbol(symbols) => {
                let texts = given.as_string::<i32>();
                for (index, text) in texts.iter().enumerate() {
                    if let Some(text) = text
                        && !symbols.iter().any(|symbol| symbol == text)
                    {
                        let wrong = format!(
                            "`{name}`: expected one of {}, found `{}`",
                            symbols.join("|"),
                            text.chars().take(100).collect::<String>()
                        );
                        self.bad.entry(row(index)).or_insert(wrong);
                    }
                }
            }
            DataType::Timestamp => self.times(name, given, row),
            DataType::List(element) => {
                let lists = given.as_list::<i32>();
                let offsets = lists.value_offsets();
                let first = offsets.first().copied().unwrap_or_default();
                let last = offsets.last().copied().unwrap_or_default();
                let elements = lists
                    .values()
                    .slice(first as usize, (last - first) as usize);
                let of_element = |index: usize| {
                    let index = index as i32 + first;
                    row(offsets.partition_point(|&offset| offset <= index) - 1)
                };
                self.values(&format!("{name}[]"), element, &elements, None, &of_element);
            }
            DataType::Record(fields) => {
                let record = given.as_struct();
                let nulls = NullBuffer::union(around, record.nulls());
                for field in fields.iter() {
                    if let Some(given) = record.column_by_name(&field.name) {
                        let name = format!("{name}.{}", field.name);
                        self.values(&name, field, given, nulls.as_ref(), row);
                    }
                }
            }
            _ => {}
        }
    }

    fn times(&mut self, name: &str, given: &ArrayRef, row: &dyn Fn(usize) -> usize) {
        let per_ms = match given.data_type() {
            ArrowType::Timestamp(TimeUnit::Microsecond, _) => 1_000,
            ArrowType::Timestamp(TimeUnit::Nanosecond, _) => 1_000_000,
            ArrowType::Timestamp(TimeUnit::Second, _) => {
                for (index, time) in given
                    .as_primitive::<TimestampSecondType>()
                    .iter()
                    .enumerate()
                {
                    if time.is_some_and(|time| time.checked_mul(1_000).is_none()) {
                        let wrong = format!("`{name}` is a time that is too far away");
                        self.bad.entry(row(index)).or_insert(wrong);
                    }
                }
                return;
            }
            _ => return,
        };
        let cut = |time: i64| time.rem_euclid(per_ms) != 0;
        let times = match per_ms {
            1_000 => given.as_primitive::<TimestampMicrosecondType>().values(),
            _ => given.as_primitive::<TimestampNanosecondType>().values(),
        };
        let is_cut = |index: &usize| given.is_valid(*index) && cut(times[*index]);
        let mut cut = (0..given.len()).filter(is_cut);
        let Some(first) = cut.next() else {
            return;
        };
        let count = 1 + cut.count() as u64;
        let cut_times = self.cut_times.get_or_insert_with(|| {
            let unit = if per_ms == 1_000 { "µs" } else { "ns" };
            let time = times[first];
            let read = timestamp::to_text(time.div_euclid(per_ms));
            CutTimes {
                values: 0,
                example: format!("{time} {unit} of field `{name}` was read as {read}"),
            }
        });
        cut_times.values += count;
    }
}

/// The column of a field, of rows that have been checked, or of any if it may lack all
/// values. Where the file has none, all values are missing.
pub(super) fn column(field: &Field, given: Option<&ArrayRef>, rows: usize) -> ArrayRef {
    let given = given.filter(|given| *given.data_type() != ArrowType::Null);
    let Some(given) = given else {
        return new_null_array(&field.data_type.to_arrow(), rows);
    };
    let column = values(&field.data_type, given);
    match field.nullable || column.nulls().is_none() {
        true => column,
        false => without_nulls(&column),
    }
}

/// The same values where none is missing.
fn without_nulls(column: &ArrayRef) -> ArrayRef {
    let data = column.to_data().into_builder().nulls(None);
    match data.build() {
        Ok(data) => arrow_array::make_array(data),
        Err(_) => column.clone(),
    }
}

fn values(wanted: &DataType, given: &ArrayRef) -> ArrayRef {
    match wanted {
        DataType::Bool | DataType::Utf8 | DataType::Symbol(_) => given.clone(),
        DataType::Int8 => given.clone(),
        DataType::Int16 => number::<Int16Type>(given, |value| value as i16),
        DataType::Int32 => number::<Int32Type>(given, |value| value as i32),
        DataType::Int64 => number::<Int64Type>(given, |value| value as i64),
        DataType::UInt8 => given.clone(),
        DataType::UInt16 => number::<UInt16Type>(given, |value| value as u16),
        DataType::UInt32 => number::<UInt32Type>(given, |value| value as u32),
        DataType::UInt64 => number::<UInt64Type>(given, |value| value as u64),
        DataType::Float32 => given.clone(),
        DataType::Float64 => match given.data_type() {
            ArrowType::Float32 => {
                let given = given.as_primitive::<Float32Type>();
                Arc::new(given.unary::<_, Float64Type>(f64::from))
            }
            _ => given.clone(),
        },
        DataType::Bytes => match given.data_type() {
            ArrowType::FixedSizeBinary(_) => {
                let given = given.as_fixed_size_binary();
                Arc::new(given.iter().collect::<BinaryArray>())
            }
            _ => given.clone(),
        },
        DataType::Decimal { scale, .. } => {
            let given = given.as_primitive::<Decimal128Type>();
            let behind = u32::from(*scale).saturating_sub(given.scale().max(0) as u32);
            // A negative scale stands for zeros in front of the point.
            let before = given.scale().min(0).unsigned_abs();
            let factor = 10_i128.pow(behind + u32::from(before));
            let scaled: Decimal128Array = match factor {
                1 => given.clone(),
                // What is checked to fit has room for the zeros.
                factor => given.unary(|units| units.wrapping_mul(factor)),
            };
            Arc::new(scaled.with_data_type(wanted.to_arrow()))
        }
        DataType::Timestamp => Arc::new(times(given).with_timezone("UTC")),
        DataType::List(element) => {
            let lists = given.as_list::<i32>();
            let elements = column(element, Some(lists.values()), lists.values().len());
            Arc::new(ListArray::new(
                Arc::new(element.to_arrow()),
                lists.offsets().clone(),
                elements,
                lists.nulls().cloned(),
            ))
        }
        DataType::Record(fields) => {
            let record = given.as_struct();
            let members = fields
                .iter()
                .map(|field| column(field, record.column_by_name(&field.name), record.len()));
            Arc::new(StructArray::new(
                fields.iter().map(Field::to_arrow).collect(),
                members.collect(),
                record.nulls().cloned(),
            ))
        }
    }
}

/// Whole numbers of a type that has all of those given.
fn number<T: ArrowPrimitiveType>(given: &ArrayRef, make: impl Fn(i128) -> T::Native) -> ArrayRef {
    macro_rules! of {
        ($($arrow:ident $given:ty),*) => {
            match given.data_type() {
                same if *same == T::DATA_TYPE => given.clone(),
                $(ArrowType::$arrow => {
                    let given = given.as_primitive::<$given>();
                    let made: PrimitiveArray<T> = given.unary(|value| make(i128::from(value)));
                    Arc::new(made)
                })*
                _ => given.clone(),
            }
        };
    }
    of!(
        Int8 Int8Type, Int16 Int16Type, Int32 Int32Type, Int64 Int64Type,
        UInt8 UInt8Type, UInt16 UInt16Type, UInt32 UInt32Type, UInt64 UInt64Type
    )
}

/// Times in ms, rounded down. One that is too far away is missing.
fn times(given: &ArrayRef) -> TimestampMillisecondArray {
    match given.data_type() {
        ArrowType::Timestamp(TimeUnit::Second, _) => given
            .as_primitive::<TimestampSecondType>()
            .unary_opt(|time| time.checked_mul(1_000)),
        ArrowType::Timestamp(TimeUnit::Microsecond, _) => given
            .as_primitive::<TimestampMicrosecondType>()
            .unary(|time| time.div_euclid(1_000)),
        ArrowType::Timestamp(TimeUnit::Nanosecond, _) => given
            .as_primitive::<TimestampNanosecondType>()
            .unary(|time| time.div_euclid(1_000_000)),
        ArrowType::Date32 => given
            .as_primitive::<Date32Type>()
            .unary(|day| i64::from(day) * DAY_MS),
        _ => {
            let given = given.as_primitive::<TimestampMillisecondType>();
            TimestampMillisecondArray::new(given.values().clone(), given.nulls().cloned())
        }
    }
}

/// A field of which anything may be missing, for rows that are bad.
pub(super) fn lenient(field: &Field) -> Field {
    let data_type = match &field.data_type {
        DataType::Symbol(_) => DataType::Utf8,
        DataType::List(element) => DataType::List(Arc::new(lenient(element))),
        DataType::Record(fields) => DataType::Record(fields.iter().map(lenient).collect()),
        other => other.clone(),
    };
    Field::new(&field.name, data_type, true)
}
