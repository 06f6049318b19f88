//! Reads values of rows, within the bytes that there are.

use super::program::{
    Absent, Key, Merged, Nested, Program, Read, ReadMessage, Rival, Scalar, Step, Wire,
};
use crate::decimal::PRECISION_MAX;
use crate::decode::column::{ColumnBuilder, RecordBuilder, ValuesBuilder};
use crate::decode::fault::{RowFault, ends_within, no_number, utf8};
use crate::decode::push::{
    push_bytes, push_decimal, push_decimal_bytes, push_f32, push_f64, push_symbol, push_text,
    push_time, push_whole, unplanned,
};
use crate::timestamp::{self, ReadTime, TimeUnit};
use crate::varint;

/// A row may make so many more values than it has bytes, of names of enums, defaults and
/// fields that it does not have.
const UNWRITTEN_MAX: usize = 1 << 16;

/// Groups that are not read are nested at most so deep.
const DEPTH_MAX: usize = 100;

const NANOS_MAX: u32 = 999_999_999;

/// Where the last part of a message is, and how many there are.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Parts {
    count: usize,
    start: usize,
    end: usize,
}

/// Reads a row. `parts` is kept for its memory.
pub(super) fn read_row(
    program: &Program,
    row: &[u8],
    rows: &mut RecordBuilder,
    parts: &mut Vec<Parts>,
) -> Result<(), RowFault> {
    parts.clear();
    let mut reader = Reader {
        data: row,
        at: 0,
        end: row.len(),
        row: row.len(),
        unwritten: unwritten_max(row.len()),
        parts,
    };
    reader.message(&program.0, rows)
}

fn unwritten_max(row: usize) -> usize {
    row.saturating_mul(16).saturating_add(UNWRITTEN_MAX)
}

/// Where in a row it reads, and how much more it may make of it.
struct Reader<'d, 'p> {
    data: &'d [u8],
    at: usize,
    /// Where the message ends that is read.
    end: usize,
    /// How long the row is.
    row: usize,
    unwritten: usize,
    /// Of the messages that are read, the outermost first.
    parts: &'p mut Vec<Parts>,
}

impl<'d> Reader<'d, '_> {
    fn message(&mut self, read: &ReadMessage, record: &mut RecordBuilder) -> Result<(), RowFault> {
        let (start, row, own) = (self.at, record.rows(), self.parts.len());
        self.parts.resize(own + read.merged.len(), Parts::default());
        while self.at < self.end {
            let (number, wire) = self.key()?;
            let Some(field) = read.find(number) else {
                self.skip(number, wire)?;
                continue;
            };
            for rival in &field.rivals {
                match rival {
                    Rival::Column(at) => forget(&mut record.fields[*at].column, row),
                    Rival::Merged(at) => self.parts[own + at] = Parts::default(),
                }
            }
            let column = &mut record.fields[field.column];
            let stepped = match &field.step {
                Step::Scalar(scalar) => {
                    forget(&mut column.column, row);
                    self.scalar(scalar, wire, &mut column.column)
                }
                Step::Merged(at) => self.message_bytes(number, wire).map(|(start, end)| {
                    let parts = &mut self.parts[own + at];
                    *parts = Parts {
                        count: parts.count + 1,
                        start,
                        end,
                    };
                }),
                Step::List(read) => self.elements(read, number, wire, &mut column.column),
                Step::Keys(keys) => self.entry(keys, number, wire, &mut column.column),
                Step::Skip => {
                    self.skip(number, wire)?;
                    continue;
                }
            };
            if let Err(fault) = stepped {
                return Err(fault.within(&column.name));
            }
        }
        for (at, merged) in read.merged.iter().enumerate() {
            let parts = self.parts[own + at];
            if parts.count > 0 || merged.is_always_there {
                let column = &mut record.fields[merged.column];
                self.merged(read, merged, parts, start, &mut column.column)
                    .map_err(|fault| fault.within(&column.name))?;
            }
        }
        self.parts.truncate(own);
        for (absent, column) in read.absent.iter().zip(&mut record.fields) {
            if column.column.len() == row
                && let Err(fault) = self.absent(absent, &mut column.column)
            {
                return Err(fault.within(&column.name));
            }
        }
        record.end();
        Ok(())
    }

    /// Reads a message of which all parts are known. What follows one another is the same as
    /// one message.
    fn merged(
        &mut self,
        read: &ReadMessage,
        merged: &Merged,
        parts: Parts,
        start: usize,
        column: &mut ColumnBuilder,
    ) -> Result<(), RowFault> {
        if parts.count <= 1 {
            return self.within(parts.start, parts.end, |it| it.nested(&merged.read, column));
        }
        let joined = self.joined(read, merged, start)?;
        let mut reader = Reader {
            data: &joined,
            at: 0,
            end: joined.len(),
            row: self.row,
            unwritten: self.unwritten,
            parts: &mut *self.parts,
        };
        reader.nested(&merged.read, column)?;
        self.unwritten = reader.unwritten;
        Ok(())
    }

    /// All parts of a message that are in the one that begins at `start`.
    fn joined(
        &mut self,
        read: &ReadMessage,
        merged: &Merged,
        start: usize,
    ) -> Result<Vec<u8>, RowFault> {
        let mut joined = Vec::new();
        let after = self.at;
        self.at = start;
        while self.at < self.end {
            let (number, wire) = self.key()?;
            if number == merged.number {
                let (start, end) = self.message_bytes(number, wire)?;
                joined.extend_from_slice(&self.data[start..end]);
                continue;
            }
            self.skip(number, wire)?;
            let is_own = |rival: &Rival| match rival {
                Rival::Merged(at) => read.merged[*at].number == merged.number,
                Rival::Column(_) => false,
            };
            if read
                .find(number)
                .is_some_and(|it| it.rivals.iter().any(is_own))
            {
                joined.clear();
            }
        }
        self.at = after;
        Ok(joined)
    }

    fn absent(&mut self, absent: &Absent, column: &mut ColumnBuilder) -> Result<(), RowFault> {
        match absent {
            Absent::Null => column.push_null(),
            Absent::Missing => return Err(RowFault::new("is missing")),
            Absent::Default(scalar, bytes) => self.unwritten(scalar, bytes, column)?,
            Absent::List => {
                let ValuesBuilder::List(list) = &mut column.values else {
                    return Err(unplanned());
                };
                list.end();
                column.end_value();
            }
            Absent::Keys => {
                let ValuesBuilder::Record(record) = &mut column.values else {
                    return Err(unplanned());
                };
                record.fill_missing()?;
                record.end();
                column.end_value();
            }
        }
        Ok(())
    }

    /// Adds a value that is not in the row.
    fn unwritten(
        &mut self,
        scalar: &Scalar,
        bytes: &[u8],
        column: &mut ColumnBuilder,
    ) -> Result<(), RowFault> {
        self.add_unwritten(bytes.len())?;
        let mut reader = Reader {
            data: bytes,
            at: 0,
            end: bytes.len(),
            row: self.row,
            unwritten: self.unwritten,
            parts: &mut *self.parts,
        };
        reader.scalar_value(scalar, column)?;
        self.unwritten = reader.unwritten;
        Ok(())
    }

    /// Reads an element of a list, or several at once.
    fn elements(
        &mut self,
        read: &Read,
        number: u32,
        wire: Wire,
        column: &mut ColumnBuilder,
    ) -> Result<(), RowFault> {
        let ValuesBuilder::List(list) = &mut column.values else {
            return Err(unplanned());
        };
        let first = list.unfinished();
        let (mut index, element) = (first, &mut list.element);
        let added = match read {
            Read::Scalar(scalar) if wire == Wire::Length && scalar.wire() != Wire::Length => {
                let (start, end) = self.message_bytes(number, wire)?;
                self.within(start, end, |it| {
                    while it.at < it.end {
                        it.scalar_value(scalar, element)?;
                        index += 1;
                    }
                    Ok(())
                })
            }
            Read::Scalar(scalar) => self.scalar(scalar, wire, element),
            Read::Message(nested) => self
                .add_unwritten(nested.width())
                .and_then(|()| self.value(read, number, wire, element)),
        };
        added.map_err(|fault| fault.at_element(index))
    }

    /// Reads an entry of a map, whose key may be a field of the record.
    fn entry(
        &mut self,
        keys: &[Key],
        number: u32,
        wire: Wire,
        column: &mut ColumnBuilder,
    ) -> Result<(), RowFault> {
        let ValuesBuilder::Record(record) = &mut column.values else {
            return Err(unplanned());
        };
        let row = record.rows();
        let (start, end) = self.message_bytes(number, wire)?;
        self.within(start, end, |it| {
            let (mut name, mut value) = (&[][..], None);
            while it.at < it.end {
                match it.key()? {
                    (1, Wire::Length) => name = it.length_and_bytes("a key")?,
                    (number, wire) => {
                        if number == 2 {
                            value = Some((it.at, wire));
                        }
                        it.skip(number, wire)?;
                    }
                }
            }
            let mut fields = record.fields.iter_mut().zip(keys);
            let found = fields.find(|(field, _)| field.name.as_bytes() == name);
            let Some((field, Key { read, zero })) = found else {
                return Ok(());
            };
            forget(&mut field.column, row);
            let added = match (value, read) {
                (Some((at, wire)), read) => {
                    it.at = at;
                    let added = it.value(read, 2, wire, &mut field.column);
                    it.at = it.end;
                    added
                }
                (None, Read::Scalar(scalar)) => it.unwritten(scalar, zero, &mut field.column),
                // It stands at its end.
                (None, Read::Message(nested)) => it.nested(nested, &mut field.column),
            };
            added.map_err(|fault| fault.within(&field.name))
        })
    }

    fn value(
        &mut self,
        read: &Read,
        number: u32,
        wire: Wire,
        column: &mut ColumnBuilder,
    ) -> Result<(), RowFault> {
        match read {
            Read::Scalar(scalar) => self.scalar(scalar, wire, column),
            Read::Message(nested) => {
                let (start, end) = self.message_bytes(number, wire)?;
                self.within(start, end, |it| it.nested(nested, column))
            }
        }
    }

    /// Reads a message, which is all that is left.
    fn nested(&mut self, read: &Nested, column: &mut ColumnBuilder) -> Result<(), RowFault> {
        match read {
            Nested::Record(read) => {
                let ValuesBuilder::Record(record) = &mut column.values else {
                    return Err(unplanned());
                };
                self.message(read, record)?;
            }
            Nested::Timestamp => {
                let (seconds, nanos) = self.seconds_and_nanos()?;
                push_instant(column, seconds, nanos)?;
            }
            Nested::Duration => {
                let (seconds, nanos) = self.seconds_and_nanos()?;
                let units = i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
                push_decimal(column, units, 9)?;
            }
            Nested::Decimal => {
                let (bytes, scale) = self.units_and_scale()?;
                push_decimal_bytes(column, bytes, scale)?;
            }
            Nested::Date => {
                let ms = self.date()?;
                push_time(column, ms, TimeUnit::Milliseconds)?;
            }
            Nested::Wrapper { read, zero } => {
                let mut value = None;
                while self.at < self.end {
                    let (number, wire) = self.key()?;
                    if number == 1 {
                        value = Some((self.at, wire));
                    }
                    self.skip(number, wire)?;
                }
                return match value {
                    Some((at, wire)) => {
                        self.at = at;
                        self.scalar(read, wire, column)
                    }
                    None => self.unwritten(read, zero, column),
                };
            }
        }
        column.end_value();
        Ok(())
    }

    /// The two fields of a `Timestamp` and of a `Duration`.
    fn seconds_and_nanos(&mut self) -> Result<(i64, i32), RowFault> {
        let (mut seconds, mut nanos) = (0, 0);
        while self.at < self.end {
            match self.key()? {
                (1, Wire::Varint) => seconds = self.varint()?.cast_signed(),
                (2, Wire::Varint) => nanos = self.varint()? as i32,
                (number, wire) => self.skip(number, wire)?,
            }
        }
        match nanos.unsigned_abs() <= NANOS_MAX {
            true => Ok((seconds, nanos)),
            false => Err(RowFault::new(format!(
                "expected at most {NANOS_MAX} nanoseconds, found {nanos}"
            ))),
        }
    }

    /// The fields of a `confluent.type.Decimal` that its value depends on.
    fn units_and_scale(&mut self) -> Result<(&'d [u8], u8), RowFault> {
        let (mut bytes, mut scale) = (&[][..], 0);
        while self.at < self.end {
            match self.key()? {
                (1, Wire::Length) => bytes = self.length_and_bytes("a decimal")?,
                (3, Wire::Varint) => scale = self.varint()? as i32,
                (number, wire) => self.skip(number, wire)?,
            }
        }
        let digits = u8::try_from(scale).ok();
        match digits.filter(|digits| *digits <= PRECISION_MAX) {
            Some(digits) => Ok((bytes, digits)),
            None => Err(RowFault::new(format!(
                "expected a decimal with 0 to {PRECISION_MAX} digits behind the point, found \
                 {scale}"
            ))),
        }
    }

    /// When a `google.type.Date` begins, in ms.
    fn date(&mut self) -> Result<i64, RowFault> {
        let mut parts = [0; 3];
        while self.at < self.end {
            match self.key()? {
                (number @ 1..=3, Wire::Varint) => {
                    parts[number as usize - 1] = i64::from(self.varint()? as i32);
                }
                (number, wire) => self.skip(number, wire)?,
            }
        }
        let [year, month, day] = parts;
        timestamp::from_date(year, month, day).ok_or_else(|| {
            RowFault::new(format!(
                "expected a date, found the year {year}, the month {month} and the day {day}"
            ))
        })
    }

    #[inline(always)]
    fn scalar(
        &mut self,
        scalar: &Scalar,
        wire: Wire,
        column: &mut ColumnBuilder,
    ) -> Result<(), RowFault> {
        match wire == scalar.wire() {
            true => self.scalar_value(scalar, column),
            false => Err(other_wire(scalar.wire().name(), wire)),
        }
    }

    /// Reads values of the commonest types inline.
    #[inline(always)]
    fn scalar_value(
        &mut self,
        scalar: &Scalar,
        column: &mut ColumnBuilder,
    ) -> Result<(), RowFault> {
        match (scalar, &mut column.values) {
            (Scalar::Int64, ValuesBuilder::Int64(values)) => {
                values.push(self.varint()?.cast_signed());
            }
            (Scalar::Text, ValuesBuilder::Utf8(texts)) => {
                let text = self.text()?;
                texts.data.extend_from_slice(text);
                texts.end();
            }
            _ => self.other_value(scalar, column)?,
        }
        column.end_value();
        Ok(())
    }

    /// Numbers of 32 bits are the lowest ones of what is written.
    #[inline(never)]
    fn other_value(&mut self, scalar: &Scalar, column: &mut ColumnBuilder) -> Result<(), RowFault> {
        match scalar {
            Scalar::Int32 => push_whole(column, (self.varint()? as i32).into()),
            Scalar::Int64 => push_whole(column, self.varint()?.cast_signed().into()),
            Scalar::UInt32 => push_whole(column, (self.varint()? as u32).into()),
            Scalar::UInt64 => push_whole(column, self.varint()?.into()),
            Scalar::SInt32 => {
                let value = u64::from(self.varint()? as u32);
                push_whole(column, varint::from_zigzag(value).into())
            }
            Scalar::SInt64 => push_whole(column, varint::from_zigzag(self.varint()?).into()),
            Scalar::Fixed32 => push_whole(column, u32::from_le_bytes(self.array()?).into()),
            Scalar::Fixed64 => push_whole(column, u64::from_le_bytes(self.array()?).into()),
            Scalar::SFixed32 => push_whole(column, i32::from_le_bytes(self.array()?).into()),
            Scalar::SFixed64 => push_whole(column, i64::from_le_bytes(self.array()?).into()),
            Scalar::Float => push_f32(column, f32::from_le_bytes(self.array()?)),
            Scalar::Double => push_f64(column, f64::from_le_bytes(self.array()?)),
            Scalar::Bool => {
                let value = self.varint()? != 0;
                match &mut column.values {
                    ValuesBuilder::Bool(values) => values.push(value),
                    _ => return Err(unplanned()),
                }
                Ok(())
            }
            Scalar::Text => push_text(column, self.text()?),
            Scalar::Bytes => push_bytes(column, self.length_and_bytes("bytes")?),
            Scalar::Enum(names) => {
                let number = self.varint()? as i32;
                match names.find(number) {
                    Some(Ok(name)) => {
                        self.add_unwritten(name.len())?;
                        push_symbol(column, name.as_bytes())
                    }
                    Some(Err(why)) => Err(RowFault::new(why.as_str())),
                    None => Err(RowFault::new(format!(
                        "expected the number of one of the {} values of {}, found {number}",
                        names.len(),
                        names.of
                    ))),
                }
            }
        }
    }

    /// Reads what begins and ends there, and stands behind it where it stood before.
    fn within<T>(
        &mut self,
        start: usize,
        end: usize,
        read: impl FnOnce(&mut Self) -> Result<T, RowFault>,
    ) -> Result<T, RowFault> {
        let outer = (self.at, self.end);
        (self.at, self.end) = (start, end);
        let read = read(self)?;
        (self.at, self.end) = outer;
        Ok(read)
    }

    /// Where a message begins and ends, which it passes.
    fn message_bytes(&mut self, number: u32, wire: Wire) -> Result<(usize, usize), RowFault> {
        match wire {
            Wire::Length => {
                let bytes = self.length_and_bytes("a message")?;
                Ok((self.at - bytes.len(), self.at))
            }
            Wire::GroupStart => {
                let start = self.at;
                Ok((start, self.skip_group(number)?))
            }
            wire => Err(other_wire("a message", wire)),
        }
    }

    #[inline]
    fn skip(&mut self, number: u32, wire: Wire) -> Result<(), RowFault> {
        match wire {
            Wire::Varint => {
                self.varint()?;
            }
            Wire::Fixed64 => {
                self.bytes(8, "a value")?;
            }
            Wire::Length => {
                self.length_and_bytes("a value")?;
            }
            Wire::Fixed32 => {
                self.bytes(4, "a value")?;
            }
            Wire::GroupStart => {
                self.skip_group(number)?;
            }
            Wire::GroupEnd => return Err(no_group(number)),
        }
        Ok(())
    }

    /// Passes a group, and returns where its fields end.
    #[inline(never)]
    fn skip_group(&mut self, number: u32) -> Result<usize, RowFault> {
        let mut open = vec![number];
        loop {
            let end = self.at;
            match self.key()? {
                (number, Wire::GroupStart) if open.len() < DEPTH_MAX => open.push(number),
                (_, Wire::GroupStart) => {
                    return Err(RowFault::new(format!(
                        "groups are nested more than {DEPTH_MAX} deep"
                    )));
                }
                (number, Wire::GroupEnd) => {
                    if open.pop() != Some(number) {
                        return Err(no_group(number));
                    }
                    if open.is_empty() {
                        return Ok(end);
                    }
                }
                (number, wire) => self.skip(number, wire)?,
            }
        }
    }

    /// The number of the next field, and how its value is written.
    #[inline(always)]
    fn key(&mut self) -> Result<(u32, Wire), RowFault> {
        let key = self.varint()?;
        match (u32::try_from(key >> 3), Wire::of(key)) {
            (Ok(number @ 1..=0x1FFF_FFFF), Some(wire)) => Ok((number, wire)),
            _ => Err(no_field(key)),
        }
    }

    #[inline]
    fn text(&mut self) -> Result<&'d [u8], RowFault> {
        utf8(self.length_and_bytes("a text")?)
    }

    #[inline]
    fn length_and_bytes(&mut self, what: &str) -> Result<&'d [u8], RowFault> {
        let length = self.varint()?;
        // What is more than this is more than there is.
        self.bytes(usize::try_from(length).unwrap_or(usize::MAX), what)
    }

    #[inline]
    fn bytes(&mut self, size: usize, what: &str) -> Result<&'d [u8], RowFault> {
        let rest = &self.data[self.at..self.end];
        match rest.get(..size) {
            Some(bytes) => {
                self.at += size;
                Ok(bytes)
            }
            None => Err(ends_within(what, size, rest.len())),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], RowFault> {
        let bytes = self.bytes(N, "a number")?;
        bytes
            .try_into()
            .map_err(|_| ends_within("a number", N, bytes.len()))
    }

    #[inline(always)]
    fn varint(&mut self) -> Result<u64, RowFault> {
        let rest = &self.data[self.at..self.end];
        let (value, bytes) = varint::read(rest).ok_or_else(|| no_number(rest.len()))?;
        self.at += bytes;
        Ok(value)
    }

    fn add_unwritten(&mut self, count: usize) -> Result<(), RowFault> {
        match self.unwritten.checked_sub(count) {
            Some(left) => {
                self.unwritten = left;
                Ok(())
            }
            None => Err(RowFault::new(format!(
                "a row of {} bytes stands for more than {} bytes of names and of fields that it \
                 does not have",
                self.row,
                unwritten_max(self.row)
            ))),
        }
    }
}

/// Removes the value that a row has so far, if it has one.
#[inline]
fn forget(column: &mut ColumnBuilder, row: usize) {
    if column.len() > row {
        column.truncate(row);
    }
}

/// Adds an instant, which a `Timestamp` is.
fn push_instant(column: &mut ColumnBuilder, seconds: i64, nanos: i32) -> Result<(), RowFault> {
    let ValuesBuilder::Timestamp(times) = &mut column.values else {
        return Err(unplanned());
    };
    let ms = i64::from(nanos.div_euclid(1_000_000));
    let ms = seconds.checked_mul(1_000).and_then(|it| it.checked_add(ms));
    let ms =
        ms.ok_or_else(|| RowFault::new(format!("expected a time, found {seconds} s since 1970")))?;
    let read = ReadTime {
        ms,
        is_cut: nanos.rem_euclid(1_000_000) != 0,
    };
    match read.is_cut {
        true => times.push(read, format!("{seconds} s and {nanos} ns").as_bytes()),
        false => times.values.push(ms),
    }
    Ok(())
}

#[cold]
fn other_wire(expected: &str, found: Wire) -> RowFault {
    RowFault::new(format!("expected {expected}, found {}", found.name()))
}

#[cold]
fn no_group(number: u32) -> RowFault {
    RowFault::new(format!("expected a field, found the end of group {number}"))
}

#[cold]
fn no_field(key: u64) -> RowFault {
    let (number, kind) = (key >> 3, key & 7);
    RowFault::new(format!(
        "expected a field, found one of number {number} and kind {kind}"
    ))
}
