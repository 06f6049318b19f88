//! Adds values that formats have to columns of other types.

use std::fmt::Display;
use std::sync::Arc;

use super::column::{ColumnBuilder, ValuesBuilder};
use super::fault::{RowFault, excerpt};
use crate::decimal::{self, PRECISION_MAX};
use crate::schema::DataType;
use crate::timestamp::{ReadTime, TimeUnit, TimestampFormat, is_plausible};

/// Adds a whole number.
pub fn push_whole(column: &mut ColumnBuilder, value: i128) -> Result<(), RowFault> {
    let data_type = &column.data_type;
    let mismatch = || RowFault::new(format!("expected {data_type}, found {value}"));
    match &mut column.values {
        ValuesBuilder::Int64(values) => values.push(value.try_into().map_err(|_| mismatch())?),
        ValuesBuilder::Int32(values) => values.push(value.try_into().map_err(|_| mismatch())?),
        ValuesBuilder::Int16(values) => values.push(value.try_into().map_err(|_| mismatch())?),
        ValuesBuilder::Int8(values) => values.push(value.try_into().map_err(|_| mismatch())?),
        ValuesBuilder::UInt64(values) => values.push(value.try_into().map_err(|_| mismatch())?),
        ValuesBuilder::UInt32(values) => values.push(value.try_into().map_err(|_| mismatch())?),
        ValuesBuilder::UInt16(values) => values.push(value.try_into().map_err(|_| mismatch())?),
        ValuesBuilder::UInt8(values) => values.push(value.try_into().map_err(|_| mismatch())?),
        ValuesBuilder::Float64(values) => values.push(value as f64),
        ValuesBuilder::Float32(values) => values.push(value as f32),
        ValuesBuilder::Decimal(values, digits) => {
            let read = digits.rescale(value, 0);
            values.push(read.map_err(|why| mismatch().because(&why))?);
        }
        ValuesBuilder::Timestamp(times) => match &times.format {
            TimestampFormat::Any => {
                let ms = i64::try_from(value).ok().filter(|ms| is_plausible(*ms));
                times.values.push(ms.ok_or_else(|| no_time_in_ms(value))?);
            }
            TimestampFormat::Number(TimeUnit::Milliseconds) => {
                times.values.push(value.try_into().map_err(|_| mismatch())?);
            }
            format => {
                let text = value.to_string();
                let expected = || {
                    let expected = format.expected();
                    RowFault::new(format!("expected {expected}, found {value}"))
                };
                let time = format.read_number(text.as_bytes()).ok_or_else(expected)?;
                times.push(time, text.as_bytes());
            }
        },
        _ => return Err(unplanned()),
    }
    Ok(())
}

/// Nobody has said that a number is in ms, and it is too large for that.
#[cold]
pub fn no_time_in_ms(value: impl Display) -> RowFault {
    RowFault::new(format!(
        "expected a time in ms in the years 1 to 9999, found {value} (`timestamp(us)`, \
         `timestamp(ns)` and `timestamp(days)` are other units)"
    ))
}

pub fn push_f32(column: &mut ColumnBuilder, value: f32) -> Result<(), RowFault> {
    match &mut column.values {
        ValuesBuilder::Float32(values) => values.push(value),
        ValuesBuilder::Float64(values) => values.push(value.into()),
        _ => return Err(unplanned()),
    }
    Ok(())
}

pub fn push_f64(column: &mut ColumnBuilder, value: f64) -> Result<(), RowFault> {
    match &mut column.values {
        ValuesBuilder::Float64(values) => values.push(value),
        _ => return Err(unplanned()),
    }
    Ok(())
}

/// Adds a time of this unit.
pub fn push_time(column: &mut ColumnBuilder, time: i64, unit: TimeUnit) -> Result<(), RowFault> {
    let ValuesBuilder::Timestamp(times) = &mut column.values else {
        return Err(unplanned());
    };
    let per_ms = match unit {
        TimeUnit::Seconds | TimeUnit::Milliseconds => 1,
        TimeUnit::Microseconds => 1_000,
        TimeUnit::Nanoseconds => 1_000_000,
    };
    let read = ReadTime {
        ms: time.div_euclid(per_ms),
        is_cut: time.rem_euclid(per_ms) != 0,
    };
    match read.is_cut {
        true => times.push(read, format!("{time} {}", unit.name()).as_bytes()),
        false => times.values.push(read.ms),
    }
    Ok(())
}

/// Adds what a text says.
pub fn push_text(column: &mut ColumnBuilder, text: &[u8]) -> Result<(), RowFault> {
    let data_type = &column.data_type;
    let mismatch =
        |expected: &str| RowFault::new(format!("expected {expected}, found `{}`", excerpt(text)));
    match &mut column.values {
        ValuesBuilder::Utf8(texts) => {
            texts.data.extend_from_slice(text);
            texts.end();
        }
        ValuesBuilder::Symbol(texts, symbols) => {
            if !symbols.iter().any(|symbol| symbol.as_bytes() == text) {
                return Err(mismatch(&data_type.to_string()));
            }
            texts.data.extend_from_slice(text);
            texts.end();
        }
        ValuesBuilder::Timestamp(times) => {
            let time = times.format.read_text(text);
            let time = time.ok_or_else(|| mismatch(&times.format.expected()))?;
            times.push(time, text);
        }
        ValuesBuilder::Decimal(values, digits) => {
            let read = digits.parse(text);
            values.push(read.map_err(|why| mismatch(&data_type.to_string()).because(&why))?);
        }
        _ => return Err(unplanned()),
    }
    Ok(())
}

/// The text of a symbol in a column of this type, or why it is none of the column.
pub fn symbol_of(
    written: &str,
    default: Option<&str>,
    wanted: &DataType,
) -> Result<Arc<str>, String> {
    let DataType::Symbol(symbols) = wanted else {
        return Ok(written.into());
    };
    let find = |text: &str| symbols.iter().find(|symbol| *symbol == text);
    match find(written).or_else(|| find(default?)) {
        Some(symbol) => Ok(symbol.as_str().into()),
        None => Err(format!("expected {wanted}, found {written}")),
    }
}

/// Adds a symbol that is known to be one of the column.
pub fn push_symbol(column: &mut ColumnBuilder, symbol: &[u8]) -> Result<(), RowFault> {
    let (ValuesBuilder::Utf8(texts) | ValuesBuilder::Symbol(texts, _)) = &mut column.values else {
        return Err(unplanned());
    };
    texts.data.extend_from_slice(symbol);
    texts.end();
    Ok(())
}

pub fn push_bytes(column: &mut ColumnBuilder, bytes: &[u8]) -> Result<(), RowFault> {
    let ValuesBuilder::Bytes(values) = &mut column.values else {
        return Err(unplanned());
    };
    values.data.extend_from_slice(bytes);
    values.end();
    Ok(())
}

/// Adds a number of units of the last digit.
pub fn push_decimal(column: &mut ColumnBuilder, units: i128, scale: u8) -> Result<(), RowFault> {
    let data_type = column.data_type.clone();
    let found = || {
        let found = decimal::to_text(units, scale);
        RowFault::new(format!("expected {data_type}, found {found}"))
    };
    match &mut column.values {
        ValuesBuilder::Decimal(values, digits) => {
            let read = digits.rescale(units, scale);
            values.push(read.map_err(|why| found().because(&why))?);
            Ok(())
        }
        ValuesBuilder::Float64(values) => {
            values.push(decimal::to_float(units, scale));
            Ok(())
        }
        ValuesBuilder::Float32(values) => {
            values.push(decimal::to_float(units, scale) as f32);
            Ok(())
        }
        _ => {
            let whole = decimal::rescale(units, scale, PRECISION_MAX, 0);
            push_whole(column, whole.map_err(|why| found().because(&why))?)
        }
    }
}

/// Adds a number of units of the last digit, as the two's complement of any length.
pub fn push_decimal_bytes(
    column: &mut ColumnBuilder,
    bytes: &[u8],
    scale: u8,
) -> Result<(), RowFault> {
    let Some(units) = units_of(bytes) else {
        let (data_type, size) = (&column.data_type, bytes.len());
        return Err(RowFault::new(format!(
            "expected {data_type}, found a number of {size} bytes"
        )));
    };
    push_decimal(column, units, scale)
}

/// A number of at most 128 bits, of bytes of which the first may only repeat the sign.
fn units_of(bytes: &[u8]) -> Option<i128> {
    let sign = match bytes.first() {
        Some(first) if *first >= 0x80 => 0xFF,
        _ => 0,
    };
    let (front, back) = bytes.split_at(bytes.len().saturating_sub(16));
    let mut units = [sign; 16];
    units[16 - back.len()..].copy_from_slice(back);
    let units = i128::from_be_bytes(units);
    let fits = front.iter().all(|byte| *byte == sign) && (units < 0) == (sign == 0xFF);
    fits.then_some(units)
}

/// The program was made for other columns.
#[cold]
pub fn unplanned() -> RowFault {
    RowFault::new("the row cannot be read, which is a bug in Sluicebox")
}
