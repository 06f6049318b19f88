//! Rows as the text that `COPY` reads: a line for each row, columns between tabs, `\N` for
//! null. The server reads each value as it reads a literal of the column's type, so a text
//! may go to a `uuid` or a `date`, and a whole number to a `numeric`.

use std::fmt;
use std::io::Write as _;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    TimestampMillisecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef};
use arrow_schema::DataType as ArrowType;

use crate::json::{write_json, write_value};
use crate::timestamp::{DAY_MS, date_of};
use crate::{decimal, non_finite, timestamp};

/// The first and the last millisecond of PostgreSQL's timestamps: 4714-11-24 BC to the end of
/// the year 294276.
const TIMES_MS: std::ops::RangeInclusive<i64> = -210_866_803_200_000..=9_224_318_015_999_999;

/// What a value is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As a literal of its type.
    Plain,
    /// A list as an array.
    Array,
    /// A list or a record as JSON.
    Json,
}

/// Why a value is none that PostgreSQL has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    Zero,
    Time(i64),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::Zero => f.write_str("has the character U+0000, which no text there can have"),
            Refused::Time(ms) => write!(
                f,
                "is a time that PostgreSQL does not have ({ms} ms since 1970): its years go from \
                 4714 BC to 294276"
            ),
        }
    }
}

/// A column of a batch with its type looked up once, not for each row.
pub struct Encoder<'a> {
    array: &'a ArrayRef,
    values: Values<'a>,
}

enum Values<'a> {
    Bool(&'a arrow_array::BooleanArray),
    Int8(&'a [i8]),
    Int16(&'a [i16]),
    Int32(&'a [i32]),
    Int64(&'a [i64]),
    UInt8(&'a [u8]),
    UInt16(&'a [u16]),
    UInt32(&'a [u32]),
    UInt64(&'a [u64]),
    Float32(&'a [f32]),
    Float64(&'a [f64]),
    Decimal(&'a [i128], u8),
    Timestamp(&'a [i64]),
    Utf8(&'a arrow_array::StringArray),
    Bytes(&'a arrow_array::BinaryArray),
    Array(&'a [i32], Box<Encoder<'a>>),
    Json,
}

impl<'a> Encoder<'a> {
    pub fn new(array: &'a ArrayRef, form: Form) -> Self {
        let values = match array.data_type() {
            _ if form == Form::Json => Values::Json,
            ArrowType::Boolean => Values::Bool(array.as_boolean()),
            ArrowType::Int8 => Values::Int8(array.as_primitive::<Int8Type>().values()),
            ArrowType::Int16 => Values::Int16(array.as_primitive::<Int16Type>().values()),
            ArrowType::Int32 => Values::Int32(array.as_primitive::<Int32Type>().values()),
            ArrowType::Int64 => Values::Int64(array.as_primitive::<Int64Type>().values()),
            ArrowType::UInt8 => Values::UInt8(array.as_primitive::<UInt8Type>().values()),
            ArrowType::UInt16 => Values::UInt16(array.as_primitive::<UInt16Type>().values()),
            ArrowType::UInt32 => Values::UInt32(array.as_primitive::<UInt32Type>().values()),
            ArrowType::UInt64 => Values::UInt64(array.as_primitive::<UInt64Type>().values()),
            ArrowType::Float32 => Values::Float32(array.as_primitive::<Float32Type>().values()),
            ArrowType::Float64 => Values::Float64(array.as_primitive::<Float64Type>().values()),
            ArrowType::Decimal128(_, scale) => Values::Decimal(
                array.as_primitive::<Decimal128Type>().values(),
                scale.unsigned_abs(),
            ),
            ArrowType::Timestamp(_, _) => array
                .as_primitive_opt::<TimestampMillisecondType>()
                .map_or(Values::Json, |array| Values::Timestamp(array.values())),
            ArrowType::Utf8 => Values::Utf8(array.as_string()),
            ArrowType::Binary => Values::Bytes(array.as_binary()),
            ArrowType::List(_) if form == Form::Array => {
                let list = array.as_list::<i32>();
                let elements = Encoder::new(list.values(), Form::Plain);
                Values::Array(list.value_offsets(), Box::new(elements))
            }
            _ => Values::Json,
        };
        Encoder { array, values }
    }

    pub fn is_null(&self, row: usize) -> bool {
        self.array.is_null(row)
    }

    /// Appends a value.
    pub fn write(&self, out: &mut Vec<u8>, row: usize) -> Result<(), Refused> {
        if self.array.is_null(row) {
            out.extend_from_slice(b"\\N");
            return Ok(());
        }
        match &self.values {
            Values::Utf8(values) => escape(out, values.value(row).as_bytes())?,
            Values::Json => {
                let mut json = Vec::new();
                write_value(&mut json, self.array, row);
                escape(out, &json)?;
            }
            Values::Array(offsets, elements) => {
                let mut text = Vec::new();
                let range = offsets[row] as usize..offsets[row + 1] as usize;
                elements.write_elements(&mut text, range)?;
                escape(out, &text)?;
            }
            Values::Bytes(values) => {
                out.push(b'\\');
                hex(out, values.value(row));
            }
            _ => self.write_bare(out, row)?,
        }
        Ok(())
    }

    /// Appends `{1,NULL,"a"}`.
    fn write_elements(
        &self,
        out: &mut Vec<u8>,
        range: std::ops::Range<usize>,
    ) -> Result<(), Refused> {
        out.push(b'{');
        for element in range.clone() {
            if element > range.start {
                out.push(b',');
            }
            if self.array.is_null(element) {
                out.extend_from_slice(b"NULL");
                continue;
            }
            out.push(b'"');
            let start = out.len();
            match &self.values {
                Values::Utf8(values) => out.extend_from_slice(values.value(element).as_bytes()),
                Values::Bytes(values) => hex(out, values.value(element)),
                Values::Json | Values::Array(..) => write_value(out, self.array, element),
                _ => self.write_bare(out, element)?,
            }
            if memchr::memchr2(b'"', b'\\', &out[start..]).is_some() {
                let text = out.split_off(start);
                for byte in text {
                    if matches!(byte, b'"' | b'\\') {
                        out.push(b'\\');
                    }
                    out.push(byte);
                }
            }
            out.push(b'"');
        }
        out.push(b'}');
        Ok(())
    }

    /// Appends a value whose text needs no escapes.
    fn write_bare(&self, out: &mut Vec<u8>, row: usize) -> Result<(), Refused> {
        match &self.values {
            Values::Bool(values) => out.push(if values.value(row) { b't' } else { b'f' }),
            Values::Int8(values) => write_json(out, &values[row]),
            Values::Int16(values) => write_json(out, &values[row]),
            Values::Int32(values) => write_json(out, &values[row]),
            Values::Int64(values) => write_json(out, &values[row]),
            Values::UInt8(values) => write_json(out, &values[row]),
            Values::UInt16(values) => write_json(out, &values[row]),
            Values::UInt32(values) => write_json(out, &values[row]),
            Values::UInt64(values) => write_json(out, &values[row]),
            // The words of both systems are the same.
            Values::Float32(values) => match non_finite::word(values[row].into()) {
                Some(word) => out.extend_from_slice(word.as_bytes()),
                None => write_json(out, &values[row]),
            },
            Values::Float64(values) => match non_finite::word(values[row]) {
                Some(word) => out.extend_from_slice(word.as_bytes()),
                None => write_json(out, &values[row]),
            },
            Values::Decimal(units, scale) => decimal::write(out, units[row], *scale),
            Values::Timestamp(values) => write_time(out, values[row])?,
            Values::Utf8(_) | Values::Bytes(_) | Values::Array(..) | Values::Json => {}
        }
        Ok(())
    }
}

/// Appends a text, with escapes for what `COPY` takes for the end of a value or a row.
fn escape(out: &mut Vec<u8>, text: &[u8]) -> Result<(), Refused> {
    let mut start = 0;
    for (at, byte) in text.iter().enumerate() {
        let escaped = match byte {
            b'\\' => b'\\',
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            0 => return Err(Refused::Zero),
            _ => continue,
        };
        out.extend_from_slice(&text[start..at]);
        out.extend_from_slice(&[b'\\', escaped]);
        start = at + 1;
    }
    out.extend_from_slice(&text[start..]);
    Ok(())
}

/// Appends `\x00ff`.
fn hex(out: &mut Vec<u8>, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.extend_from_slice(b"\\x");
    for byte in bytes {
        out.push(DIGITS[usize::from(byte >> 4)]);
        out.push(DIGITS[usize::from(byte & 15)]);
    }
}

/// Appends a time in UTC. Before the year 1, years are counted backwards.
fn write_time(out: &mut Vec<u8>, ms: i64) -> Result<(), Refused> {
    if !TIMES_MS.contains(&ms) {
        return Err(Refused::Time(ms));
    }
    let (year, month, day) = date_of(ms.div_euclid(DAY_MS));
    if (1..=9999).contains(&year) {
        timestamp::write(out, ms);
        return Ok(());
    }
    let (year, era) = match year {
        1.. => (year, ""),
        _ => (1 - year, " BC"),
    };
    let within = ms.rem_euclid(DAY_MS);
    let (hour, minute) = (within / 3_600_000, within / 60_000 % 60);
    let (second, milli) = (within / 1_000 % 60, within % 1_000);
    // Writing to memory does not fail.
    let _ = write!(
        out,
        "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{milli:03}+00{era}"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{BinaryArray, Float64Array, ListArray, StringArray};

    use super::*;

    fn written(array: ArrayRef, form: Form) -> String {
        let encoder = Encoder::new(&array, form);
        let mut out = Vec::new();
        for row in 0..array.len() {
            encoder.write(&mut out, row).expect("it has such values");
            out.push(b'\n');
        }
        String::from_utf8(out).expect("it is text")
    }

    #[test]
    fn what_ends_values_and_rows_is_escaped() {
        let texts = StringArray::from(vec![Some("a\tb\\N\r\nü"), None, Some(""), Some("\\.")]);
        let text = written(Arc::new(texts), Form::Plain);
        assert_eq!(text, "a\\tb\\\\N\\r\\nü\n\\N\n\n\\\\.\n");
        let bytes = BinaryArray::from(vec![&[0_u8, 255, b'\n'][..], b""]);
        assert_eq!(
            written(Arc::new(bytes), Form::Plain),
            "\\\\x00ff0a\n\\\\x\n"
        );
    }

    #[test]
    fn elements_are_quoted_and_then_escaped() {
        let mut list =
            arrow_array::builder::ListBuilder::new(arrow_array::builder::StringBuilder::new());
        list.append_value([Some("a\"b\\"), None, Some("NULL"), Some("{,}\t")]);
        list.append_value::<_, &str>([]);
        list.append_null();
        let list: ListArray = list.finish();
        let list: ArrayRef = Arc::new(list);
        assert_eq!(
            written(list.clone(), Form::Array),
            "{\"a\\\\\"b\\\\\\\\\",NULL,\"NULL\",\"{,}\\t\"}\n{}\n\\N\n"
        );
        assert!(written(list, Form::Json).starts_with("[\"a\\\\\"b\\\\\\\\\",null,"));
    }

    #[test]
    fn numbers_that_are_none_are_words() {
        let floats = Float64Array::from(vec![f64::NAN, f64::INFINITY, -f64::INFINITY, 1e300, 0.1]);
        let text = written(Arc::new(floats), Form::Plain);
        assert_eq!(text, "NaN\nInfinity\n-Infinity\n1e+300\n0.1\n");
    }

    #[test]
    fn a_text_with_a_zero_byte_is_refused() {
        assert_eq!(escape(&mut Vec::new(), b"a\0"), Err(Refused::Zero));
    }

    #[test]
    fn times_have_the_years_of_postgresql() {
        let text = |ms| {
            let mut out = Vec::new();
            write_time(&mut out, ms)?;
            Ok::<_, Refused>(String::from_utf8_lossy(&out).into_owned())
        };
        assert_eq!(text(0).unwrap(), "1970-01-01T00:00:00Z");
        assert_eq!(
            text(*TIMES_MS.start()).unwrap(),
            "4714-11-24 00:00:00.000+00 BC"
        );
        assert_eq!(
            text(*TIMES_MS.end()).unwrap(),
            "294276-12-31 23:59:59.999+00"
        );
        assert_eq!(
            text(-62_135_596_800_001).unwrap(),
            "0001-12-31 23:59:59.999+00 BC"
        );
        assert_eq!(
            text(*TIMES_MS.end() + 1),
            Err(Refused::Time(TIMES_MS.end() + 1))
        );
        assert_eq!(text(i64::MIN), Err(Refused::Time(i64::MIN)));
    }
}
