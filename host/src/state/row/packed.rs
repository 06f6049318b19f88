//! Rows in memory alone, which are copied more often than anything else: the elements of a
//! list lie together by column, so that they are read and written a column at a time, not
//! value by value.
//!
//! In other respects they are as [the rows that are kept](super). Nothing depends on their
//! bytes: equal values may give different ones, and no version of them is ever stored.

use std::ops::Range;

use arrow_array::ArrayRef;
use arrow_buffer::OffsetBuffer;

use super::{
    BuilderValues, Codec, ColumnBuilder, Encoder, Reader, RowError, View, ViewValues, end,
    write_length,
};

impl Encoder {
    /// Appends the bytes of a row in memory.
    pub fn pack(&self, row: usize, bytes: &mut Vec<u8>) {
        for column in &self.columns {
            column.pack(row..row + 1, bytes);
        }
    }
}

impl Codec {
    /// Reads the columns of these rows in memory, in order.
    pub fn unpack<'a>(
        &self,
        rows: impl Iterator<Item = &'a [u8]>,
    ) -> Result<Vec<ArrayRef>, RowError> {
        let columns = self.unpack_first(self.fields.len(), rows)?;
        columns.into_iter().map(ColumnBuilder::finish).collect()
    }

    /// Reads one of the columns.
    pub fn unpack_column<'a>(
        &self,
        column: usize,
        rows: impl Iterator<Item = &'a [u8]>,
    ) -> Result<ArrayRef, RowError> {
        let columns = self.unpack_first(column + 1, rows)?.pop();
        let column = columns.ok_or_else(|| RowError::new("there is no such column"));
        column?.finish()
    }

    fn unpack_first<'a>(
        &self,
        count: usize,
        rows: impl Iterator<Item = &'a [u8]>,
    ) -> Result<Vec<ColumnBuilder>, RowError> {
        let capacity = rows.size_hint().0;
        let fields = self.fields.iter().take(count);
        let mut columns: Vec<ColumnBuilder> = fields
            .map(|field| ColumnBuilder::new(field, capacity))
            .collect();
        for row in rows {
            let mut reader = Reader(row);
            for column in &mut columns {
                column.unpack(1, &mut reader)?;
            }
        }
        Ok(columns)
    }
}

impl View {
    /// Writes these values, which are one where they are no elements of lists.
    fn pack(&self, rows: Range<usize>, bytes: &mut Vec<u8>) {
        if self.nullable {
            let nulls = self.nulls.as_ref();
            let is_present = |row| nulls.is_none_or(|nulls| nulls.is_valid(row));
            bytes.extend(rows.clone().map(|row| u8::from(is_present(row))));
            if rows.len() == 1 && !is_present(rows.start) {
                return;
            }
        }
        match &self.values {
            ViewValues::Bits(bits) => bytes.extend(rows.map(|row| u8::from(bits.value(row)))),
            ViewValues::Fixed { width, bytes: from } => {
                bytes.extend_from_slice(&from[rows.start * width..rows.end * width]);
            }
            ViewValues::Packed { ends, bytes: from } => {
                let range = pack_lengths(ends, rows, bytes);
                bytes.extend_from_slice(&from[range]);
            }
            ViewValues::List { ends, elements } => {
                let range = pack_lengths(ends, rows, bytes);
                elements.pack(range, bytes);
            }
            ViewValues::Record(members) => {
                for member in members {
                    member.pack(rows.clone(), bytes);
                }
            }
        }
    }
}

impl ColumnBuilder {
    /// Reads the next values, so many of them.
    fn unpack(&mut self, rows: usize, reader: &mut Reader<'_>) -> Result<(), RowError> {
        if let Some(valid) = &mut self.valid {
            let present = reader.take(rows)?;
            present.iter().for_each(|&it| valid.append(it != 0));
            if present == [0] {
                self.skip();
                return Ok(());
            }
        }
        self.rows += rows;
        match &mut self.values {
            BuilderValues::Bits(bits) => {
                let values = reader.take(rows)?;
                values.iter().for_each(|&it| bits.append(it != 0));
            }
            BuilderValues::Fixed { width, bytes } => {
                bytes.extend_from_slice(reader.take(width.saturating_mul(rows))?);
            }
            BuilderValues::Packed { ends, bytes } => {
                let length = unpack_lengths(rows, bytes.len(), ends, reader)?;
                bytes.extend_from_slice(reader.take(length)?);
            }
            BuilderValues::List { ends, elements } => {
                let length = unpack_lengths(rows, elements.rows, ends, reader)?;
                elements.unpack(length, reader)?;
            }
            BuilderValues::Record(members) => {
                for member in members {
                    member.unpack(rows, reader)?;
                }
            }
        }
        Ok(())
    }
}

/// Writes the lengths of these values, and returns where they are.
fn pack_lengths(ends: &OffsetBuffer<i32>, rows: Range<usize>, bytes: &mut Vec<u8>) -> Range<usize> {
    let ends = &ends[rows.start..=rows.end];
    for pair in ends.windows(2) {
        write_length((pair[1] - pair[0]) as usize, bytes);
    }
    ends[0] as usize..ends[rows.len()] as usize
}

/// Reads the lengths of the next values, the first of which begins at `start`. Returns how
/// long they are together.
fn unpack_lengths(
    rows: usize,
    start: usize,
    ends: &mut Vec<i32>,
    reader: &mut Reader<'_>,
) -> Result<usize, RowError> {
    let mut length = 0_usize;
    ends.reserve(rows);
    for _ in 0..rows {
        length = length.saturating_add(reader.length()?);
        ends.push(end(start.saturating_add(length))?);
    }
    Ok(length)
}
