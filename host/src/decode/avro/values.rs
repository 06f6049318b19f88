//! Reads values of rows, within the bytes that there are.

use super::program::{Absent, Program, Read, ReadRecord, Skip, Step, Top};
use crate::avro::ByteSize;
use crate::decode::column::{ColumnBuilder, RecordBuilder, ValuesBuilder};
use crate::decode::fault::{RowFault, ends_within, no_number, utf8};
use crate::decode::push::{
    push_bytes, push_decimal_bytes, push_f32, push_f64, push_symbol, push_text, push_time,
    push_whole, unplanned,
};
use crate::timestamp::TimeUnit;
use crate::varint;

/// So many elements may take no byte.
const EMPTY_ELEMENTS_MAX: usize = 1 << 10;

/// A row may have so many bytes more than it is long, of symbols and defaults that it does
/// not write.
const UNWRITTEN_BYTES_MAX: usize = 1 << 16;

/// Records that are skipped are nested at most so deep.
const DEPTH_MAX: usize = 64;

const DAY_MS: i64 = 86_400_000;

/// Reads a row.
pub(super) fn read_row(
    program: &Program,
    row: &[u8],
    rows: &mut RecordBuilder,
) -> Result<(), RowFault> {
    let mut reader = Reader {
        data: row,
        at: 0,
        skipped: &program.skipped,
        elements: row.len().saturating_add(EMPTY_ELEMENTS_MAX),
        unwritten: row
            .len()
            .saturating_mul(16)
            .saturating_add(UNWRITTEN_BYTES_MAX),
    };
    reader.top(&program.top, rows)?;
    match row.len() - reader.at {
        0 => Ok(()),
        more => Err(RowFault::new(format!(
            "expected the end of the row at byte {}, found {more} more",
            reader.at
        ))),
    }
}

/// Where in a row it reads, and how much more it may make of it.
struct Reader<'d, 'p> {
    data: &'d [u8],
    at: usize,
    skipped: &'p [Vec<Skip>],
    elements: usize,
    unwritten: usize,
}

impl<'d, 'p> Reader<'d, 'p> {
    fn top(&mut self, top: &Top, rows: &mut RecordBuilder) -> Result<(), RowFault> {
        match top {
            Top::Record(record) => self.record(record, rows),
            Top::Value(read) => {
                let field = &mut rows.fields[0];
                self.value(read, &mut field.column)
                    .map_err(|fault| fault.within(&field.name))?;
                rows.end();
                Ok(())
            }
            Top::Union(tops) => {
                let top = self.variant(tops)?;
                self.top(top, rows)
            }
        }
    }

    fn record(&mut self, read: &ReadRecord, record: &mut RecordBuilder) -> Result<(), RowFault> {
        for step in &read.steps {
            match step {
                Step::Read(column, read) => {
                    let field = &mut record.fields[*column];
                    if let Err(fault) = self.value(read, &mut field.column) {
                        return Err(fault.within(&field.name));
                    }
                }
                Step::Skip(skip) => self.skip(skip, 0)?,
            }
        }
        for (column, absent) in &read.absent {
            let field = &mut record.fields[*column];
            let filled = self.absent(absent, &mut field.column);
            filled.map_err(|fault| fault.within(&field.name))?;
        }
        record.end();
        Ok(())
    }

    fn absent(&mut self, absent: &Absent, column: &mut ColumnBuilder) -> Result<(), RowFault> {
        match absent {
            Absent::Null => {
                column.push_null();
                Ok(())
            }
            Absent::Default {
                bytes,
                read,
                skipped,
            } => {
                self.add_unwritten(bytes.len())?;
                let mut reader = Reader {
                    data: bytes,
                    at: 0,
                    skipped,
                    elements: bytes.len() + EMPTY_ELEMENTS_MAX,
                    unwritten: self.unwritten,
                };
                reader.value(read, column)?;
                self.unwritten = reader.unwritten;
                Ok(())
            }
        }
    }

    /// Reads values of the commonest types inline.
    #[inline(always)]
    fn value(&mut self, read: &Read, column: &mut ColumnBuilder) -> Result<(), RowFault> {
        match (read, &mut column.values) {
            (Read::Long, ValuesBuilder::Int64(values)) => {
                values.push(self.long()?);
                column.end_value();
                Ok(())
            }
            (Read::Text, ValuesBuilder::Utf8(texts)) => {
                let text = self.text()?;
                texts.data.extend_from_slice(text);
                texts.end();
                column.end_value();
                Ok(())
            }
            _ => self.other_value(read, column),
        }
    }

    #[inline(never)]
    fn other_value(&mut self, read: &Read, column: &mut ColumnBuilder) -> Result<(), RowFault> {
        match read {
            Read::Null => {
                column.push_null();
                return Ok(());
            }
            Read::Optional { null, read } => {
                return match self.long()? {
                    branch @ (0 | 1) if branch.cast_unsigned() == *null => {
                        column.push_null();
                        Ok(())
                    }
                    0 | 1 => self.value(read, column),
                    branch => Err(no_variant(branch, 2)),
                };
            }
            Read::Union(reads) => {
                let read = self.variant(reads)?;
                return self.value(read, column);
            }
            Read::Bool => match (self.bytes(1, "a boolean")?, &mut column.values) {
                ([byte @ (0 | 1)], ValuesBuilder::Bool(values)) => values.push(*byte == 1),
                (bytes, _) => {
                    return Err(RowFault::new(format!(
                        "expected a boolean, found the byte {}",
                        bytes.first().copied().unwrap_or_default()
                    )));
                }
            },
            Read::Int => {
                let value = self.int()?;
                push_whole(column, value.into())?;
            }
            Read::Long => {
                let value = self.long()?;
                push_whole(column, value.into())?;
            }
            Read::Float => {
                let value = f32::from_le_bytes(self.array("a float")?);
                push_f32(column, value)?;
            }
            Read::Double => {
                let value = f64::from_le_bytes(self.array("a double")?);
                push_f64(column, value)?;
            }
            Read::Date => {
                let ms = i64::from(self.int()?) * DAY_MS;
                push_time(column, ms, TimeUnit::Milliseconds)?;
            }
            Read::Time(unit) => {
                let time = self.long()?;
                push_time(column, time, *unit)?;
            }
            Read::Text => {
                let text = self.text()?;
                push_text(column, text)?;
            }
            Read::Bytes => {
                let bytes = self.length_and_bytes("bytes")?;
                push_bytes(column, bytes)?;
            }
            Read::Fixed(size) => {
                let bytes = self.bytes(*size, "fixed bytes")?;
                push_bytes(column, bytes)?;
            }
            Read::Uuid(size) => {
                let bytes = self.sized(*size, "a UUID")?;
                self.add_unwritten(36)?;
                push_text(column, uuid_text(bytes)?.as_bytes())?;
            }
            Read::Decimal { size, scale } => {
                let bytes = self.sized(*size, "a decimal")?;
                push_decimal_bytes(column, bytes, *scale)?;
            }
            Read::Enum(symbols) => {
                let index = self.long()?;
                let symbol = usize::try_from(index).ok().and_then(|at| symbols.get(at));
                match symbol {
                    Some(Ok(symbol)) => {
                        self.add_unwritten(symbol.len())?;
                        push_symbol(column, symbol.as_bytes())?;
                    }
                    Some(Err(why)) => return Err(RowFault::new(why.as_str())),
                    None => {
                        return Err(RowFault::new(format!(
                            "expected the number of one of {} symbols, found {index}",
                            symbols.len()
                        )));
                    }
                }
            }
            Read::List(read) => {
                let ValuesBuilder::List(list) = &mut column.values else {
                    return Err(unplanned());
                };
                let mut index = 0;
                while let Some(count) = self.block()? {
                    for _ in 0..count {
                        self.value(read, &mut list.element)
                            .map_err(|fault| fault.at_element(index))?;
                        index += 1;
                    }
                }
                list.end();
            }
            Read::Entries(read) => {
                let ValuesBuilder::List(list) = &mut column.values else {
                    return Err(unplanned());
                };
                let mut index = 0;
                while let Some(count) = self.block()? {
                    for _ in 0..count {
                        self.entry(read, &mut list.element)
                            .map_err(|fault| fault.at_element(index))?;
                        index += 1;
                    }
                }
                list.end();
            }
            Read::Keys { fields, other } => {
                let ValuesBuilder::Record(record) = &mut column.values else {
                    return Err(unplanned());
                };
                self.keys(fields, other, record)?;
            }
            Read::Record(read) => {
                let ValuesBuilder::Record(record) = &mut column.values else {
                    return Err(unplanned());
                };
                self.record(read, record)?;
            }
        }
        column.end_value();
        Ok(())
    }

    /// Reads an entry of a map as a record of its key and its value.
    fn entry(&mut self, read: &Read, column: &mut ColumnBuilder) -> Result<(), RowFault> {
        let ValuesBuilder::Record(record) = &mut column.values else {
            return Err(unplanned());
        };
        let [key, value] = &mut record.fields[..] else {
            return Err(unplanned());
        };
        self.value(&Read::Text, &mut key.column)
            .map_err(|fault| fault.within(&key.name))?;
        self.value(read, &mut value.column)
            .map_err(|fault| fault.within(&value.name))?;
        record.end();
        column.end_value();
        Ok(())
    }

    /// Reads a map as a record, as an object of JSON is.
    fn keys(
        &mut self,
        reads: &[Read],
        other: &Skip,
        record: &mut RecordBuilder,
    ) -> Result<(), RowFault> {
        let row = record.rows();
        while let Some(count) = self.block()? {
            for _ in 0..count {
                let key = self.text()?;
                let mut fields = record.fields.iter_mut().zip(reads);
                let Some((field, read)) = fields.find(|(it, _)| it.name.as_bytes() == key) else {
                    self.skip(other, 0)?;
                    continue;
                };
                if field.column.len() > row {
                    return Err(RowFault::new("is given twice").within(&field.name));
                }
                self.value(read, &mut field.column)
                    .map_err(|fault| fault.within(&field.name))?;
            }
        }
        record.fill_missing()?;
        record.end();
        Ok(())
    }

    fn skip(&mut self, skip: &Skip, depth: usize) -> Result<(), RowFault> {
        match skip {
            Skip::Fixed(size) => {
                self.bytes(*size, "a value")?;
            }
            Skip::Varint => {
                self.long()?;
            }
            Skip::Bytes => {
                self.length_and_bytes("bytes")?;
            }
            Skip::List(item) => {
                while let Some(count) = self.block_to_skip()? {
                    for _ in 0..count {
                        self.skip(item, depth)?;
                    }
                }
            }
            Skip::Map(value) => {
                while let Some(count) = self.block_to_skip()? {
                    for _ in 0..count {
                        self.length_and_bytes("a key")?;
                        self.skip(value, depth)?;
                    }
                }
            }
            Skip::Union(variants) => {
                let branch = self.long()?;
                let variant = usize::try_from(branch).ok();
                let variant = variant.and_then(|at| variants.get(at));
                let variant = variant.ok_or_else(|| no_variant(branch, variants.len()))?;
                self.skip(variant, depth)?;
            }
            Skip::Record(number) => {
                if depth == DEPTH_MAX {
                    return Err(RowFault::new(format!(
                        "a record that is not read is nested more than {DEPTH_MAX} deep"
                    )));
                }
                let skipped = self.skipped;
                for field in &skipped[*number] {
                    self.skip(field, depth + 1)?;
                }
            }
        }
        Ok(())
    }

    /// Which type of a union a value has.
    fn variant<'r, T>(&mut self, reads: &'r [Result<T, String>]) -> Result<&'r T, RowFault> {
        let branch = self.long()?;
        match usize::try_from(branch).ok().and_then(|at| reads.get(at)) {
            Some(Ok(read)) => Ok(read),
            Some(Err(why)) => Err(RowFault::new(why.as_str())),
            None => Err(no_variant(branch, reads.len())),
        }
    }

    /// How many elements the next block of a list or map has; `None` at its end.
    fn block(&mut self) -> Result<Option<usize>, RowFault> {
        Ok(self.block_start()?.map(|(count, _)| count))
    }

    /// The same; a block that says how long it is has been skipped.
    fn block_to_skip(&mut self) -> Result<Option<usize>, RowFault> {
        match self.block_start()? {
            Some((_, Some(bytes))) => {
                self.bytes(bytes, "a block of a list")?;
                Ok(Some(0))
            }
            Some((count, None)) => Ok(Some(count)),
            None => Ok(None),
        }
    }

    fn block_start(&mut self) -> Result<Option<(usize, Option<usize>)>, RowFault> {
        let count = self.long()?;
        if count == 0 {
            return Ok(None);
        }
        let bytes = match count < 0 {
            true => Some(self.length("a block of a list")?),
            false => None,
        };
        let elements = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX);
        match self.elements.checked_sub(elements) {
            Some(left) => self.elements = left,
            None => {
                return Err(RowFault::new(format!(
                    "expected a list, found one of {elements} elements in a row of {} bytes",
                    self.data.len()
                )));
            }
        }
        Ok(Some((elements, bytes)))
    }

    fn sized(&mut self, size: ByteSize, what: &str) -> Result<&'d [u8], RowFault> {
        match size {
            ByteSize::Any => self.length_and_bytes(what),
            ByteSize::Fixed(size) => self.bytes(size, what),
        }
    }

    #[inline]
    fn text(&mut self) -> Result<&'d [u8], RowFault> {
        utf8(self.length_and_bytes("a text")?)
    }

    #[inline]
    fn length_and_bytes(&mut self, what: &str) -> Result<&'d [u8], RowFault> {
        let length = self.length(what)?;
        self.bytes(length, what)
    }

    #[inline]
    fn length(&mut self, what: &str) -> Result<usize, RowFault> {
        let length = self.long()?;
        usize::try_from(length)
            .map_err(|_| RowFault::new(format!("expected the length of {what}, found {length}")))
    }

    #[inline]
    fn bytes(&mut self, size: usize, what: &str) -> Result<&'d [u8], RowFault> {
        let rest = &self.data[self.at..];
        match rest.get(..size) {
            Some(bytes) => {
                self.at += size;
                Ok(bytes)
            }
            None => Err(ends_within(what, size, rest.len())),
        }
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], RowFault> {
        let bytes = self.bytes(N, what)?;
        bytes
            .try_into()
            .map_err(|_| ends_within(what, N, bytes.len()))
    }

    fn int(&mut self) -> Result<i32, RowFault> {
        let value = self.long()?;
        i32::try_from(value).map_err(|_| RowFault::new(format!("expected an int, found {value}")))
    }

    #[inline]
    fn long(&mut self) -> Result<i64, RowFault> {
        let rest = &self.data[self.at..];
        let (value, bytes) = varint::read(rest).ok_or_else(|| no_number(rest.len()))?;
        self.at += bytes;
        Ok(varint::from_zigzag(value))
    }

    fn add_unwritten(&mut self, bytes: usize) -> Result<(), RowFault> {
        match self.unwritten.checked_sub(bytes) {
            Some(left) => {
                self.unwritten = left;
                Ok(())
            }
            None => Err(RowFault::new(format!(
                "a row of {} bytes has symbols and defaults of more than {} bytes",
                self.data.len(),
                self.data.len().saturating_mul(16) + UNWRITTEN_BYTES_MAX
            ))),
        }
    }
}

/// As other systems write it: `00112233-4455-6677-8899-aabbccddeeff`.
fn uuid_text(bytes: &[u8]) -> Result<String, RowFault> {
    use std::fmt::Write as _;
    if bytes.len() != 16 {
        let size = bytes.len();
        return Err(RowFault::new(format!(
            "expected a UUID of 16 bytes, found {size}"
        )));
    }
    let mut text = String::with_capacity(36);
    for (index, byte) in bytes.iter().enumerate() {
        if [4, 6, 8, 10].contains(&index) {
            text.push('-');
        }
        let _ = write!(text, "{byte:02x}");
    }
    Ok(text)
}

#[cold]
fn no_variant(branch: i64, variants: usize) -> RowFault {
    RowFault::new(format!(
        "expected the number of one of a union's {variants} types, found {branch}"
    ))
}
