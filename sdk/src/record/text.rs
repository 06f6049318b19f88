//! Texts and bytes: read as slices of the column, written by copying, or passed
//! on without a copy.
//!
//! Borrowed values are only noted while rows come, and copied at the end, all of
//! a column in one go. By then it is known whether every row's slice is the very
//! one (by place and length) that some input field has at the row's parent; if
//! so, the answer names that input and nothing is copied at all.

use std::marker::PhantomData;

use super::{Columns, Field, Origin, Packing, Unreadable, Writer, schema_field};
use crate::bindings::sluicebox::plugin::columns::{Column, Packed, Values};
use crate::bindings::sluicebox::plugin::schemas;
use crate::text;

/// Slices of a column.
#[doc(hidden)]
pub struct TextReader<'a> {
    data: *const u8,
    offsets: *const u32,
    column: PhantomData<&'a [u8]>,
}

impl<'a> TextReader<'a> {
    #[inline(always)]
    pub fn new((data, offsets): (&'a [u8], &'a [u32])) -> Self {
        TextReader {
            data: data.as_ptr(),
            offsets: offsets.as_ptr(),
            column: PhantomData,
        }
    }

    /// # Safety
    /// As [`Field::read`].
    #[inline(always)]
    pub unsafe fn slice(&self, row: usize) -> &'a [u8] {
        // SAFETY: there is one more offset than there are rows; they ascend and
        // lie in the data.
        unsafe {
            let start = *self.offsets.add(row) as usize;
            let end = *self.offsets.add(row + 1) as usize;
            std::slice::from_raw_parts(self.data.add(start), end - start)
        }
    }
}

/// Texts that are copied as they come.
#[doc(hidden)]
#[derive(Default)]
pub struct TextWriter {
    /// Its length counts only when the column is finished.
    ends: Vec<u32>,
    data: Vec<u8>,
}

impl TextWriter {
    /// # Safety
    /// As [`Field::write`].
    #[inline(always)]
    pub unsafe fn copy(&mut self, bytes: &[u8], row: usize) {
        let len = self.data.len();
        if self.data.capacity() - len < bytes.len() {
            self.data = grown(std::mem::take(&mut self.data), bytes.len());
        }
        // SAFETY: there is room for the bytes, and for the row's end.
        unsafe {
            text::copy(bytes.as_ptr(), self.data.as_mut_ptr().add(len), bytes.len());
            self.data.set_len(len + bytes.len());
            self.ends
                .as_mut_ptr()
                .add(row)
                .write((len + bytes.len()) as u32);
        }
    }

    unsafe fn into_values(mut self, rows: usize) -> Values {
        // SAFETY: the caller says that all these rows were written.
        unsafe { self.ends.set_len(rows) };
        Values::Packed(Packed {
            ends: self.ends,
            data: self.data,
        })
    }
}

/// Takes and returns the vector by value, so that a loop may keep its own in
/// registers.
#[cold]
fn grown(mut data: Vec<u8>, additional: usize) -> Vec<u8> {
    assert!(
        u32::try_from(data.len() + additional).is_ok(),
        "a column of an answer has more than 4 GiB"
    );
    data.reserve(additional);
    data
}

impl<'a> Writer<'a> for TextWriter {
    unsafe fn reserve(&mut self, used: usize, total: usize) {
        // SAFETY: the caller says that the used rows were written.
        unsafe { self.ends.set_len(used) };
        self.ends.reserve_exact(total - used);
    }

    unsafe fn settle(&mut self, _rows: usize) {}

    unsafe fn finish(self, rows: usize, _origin: Origin<'a, '_>, columns: &mut Vec<Column>) {
        columns.push(Column {
            validity: None,
            // SAFETY: as the caller says.
            values: unsafe { self.into_values(rows) },
        });
    }
}

/// Texts that are noted as they come, and copied later or not at all.
#[doc(hidden)]
#[derive(Default)]
pub struct SliceWriter<'a, const TEXT: bool> {
    /// Its length counts only when the column is finished.
    slices: Vec<&'a [u8]>,
    /// The first so many rows have been copied.
    settled: usize,
    copied: TextWriter,
}

impl<'a, const TEXT: bool> SliceWriter<'a, TEXT> {
    /// # Safety
    /// As [`Field::write`].
    #[inline(always)]
    pub unsafe fn note(&mut self, bytes: &'a [u8], row: usize) {
        // SAFETY: the caller has reserved the row.
        unsafe { self.slices.as_mut_ptr().add(row).write(bytes) }
    }

    /// The input that has all these slices at these parents.
    fn passed_on(&self, origin: Origin<'a, '_>) -> Option<u32> {
        let (first, parent) = (self.slices.first()?, origin.parents.first()?);
        let mut inputs = origin.inputs.iter();
        // SAFETY, here and below: parents are rows of the table that the inputs
        // are columns of.
        let input = inputs.find(|input| {
            (input.packing == Packing::Text) == TEXT && unsafe { input.is(first, *parent) }
        })?;
        let mut all = true;
        for (slice, &parent) in self.slices.iter().zip(origin.parents) {
            all &= unsafe { input.is(slice, parent) };
        }
        all.then_some(input.index)
    }
}

impl<'a, const TEXT: bool> Writer<'a> for SliceWriter<'a, TEXT> {
    unsafe fn reserve(&mut self, used: usize, total: usize) {
        // SAFETY: the caller says that the used rows were written.
        unsafe { self.slices.set_len(used) };
        self.slices.reserve_exact(total - used);
    }

    unsafe fn settle(&mut self, rows: usize) {
        // SAFETY: the caller says that all these rows were written; the copy
        // has room for as many as there are slices.
        unsafe {
            self.slices.set_len(rows);
            let capacity = self.slices.capacity();
            if self.copied.ends.capacity() < capacity {
                Writer::reserve(&mut self.copied, self.settled, capacity);
            }
            let unsettled = &self.slices[self.settled..];
            self.copied
                .data
                .reserve(unsettled.iter().map(|slice| slice.len()).sum());
            for (slice, row) in unsettled.iter().zip(self.settled..) {
                self.copied.copy(slice, row);
            }
        }
        self.settled = rows;
    }

    unsafe fn finish(mut self, rows: usize, origin: Origin<'a, '_>, columns: &mut Vec<Column>) {
        // SAFETY: the caller says that all these rows were written.
        unsafe { self.slices.set_len(rows) };
        let passed_on = match self.settled {
            0 => self.passed_on(origin),
            _ => None,
        };
        let values = match passed_on {
            Some(index) => Values::Input(index),
            // SAFETY: as above; settling copies every row.
            None => unsafe {
                self.settle(rows);
                self.copied.into_values(rows)
            },
        };
        columns.push(Column {
            validity: None,
            values,
        });
    }
}

macro_rules! packed {
    ($($packed:ty, $type:ident, $passes:expr, $writer:ty, $read:expr, $method:ident, $bytes:expr;)*) => {$(
        impl<'a> Field<'a> for $packed {
            type Reader = TextReader<'a>;
            type Writer = $writer;
            const PASSES: Option<Packing> = $passes;

            fn describe(name: &str, doc: &str, fields: &mut Vec<schemas::Field>) {
                fields.push(schema_field(name, doc, schemas::FieldType::$type));
            }

            #[inline(always)]
            fn reader(columns: &mut Columns<'a>, rows: usize) -> Self::Reader {
                TextReader::new(columns.packed(rows))
            }

            #[inline(always)]
            unsafe fn read(reader: &Self::Reader, row: usize) -> Result<Self, Unreadable> {
                // SAFETY: as the caller says.
                Ok($read(unsafe { reader.slice(row) }))
            }

            #[inline(always)]
            unsafe fn write(&self, writer: &mut Self::Writer, row: usize) {
                // SAFETY: as the caller says.
                unsafe { writer.$method($bytes(self), row) }
            }

            unsafe fn write_missing(writer: &mut Self::Writer, row: usize) {
                // SAFETY: as the caller says.
                unsafe { writer.$method(&[], row) }
            }
        }
    )*};
}

packed! {
    &'a str, Utf8, Some(Packing::Text), SliceWriter<'a, true>,
        utf8, note, |text: &&'a str| text.as_bytes();
    &'a [u8], Bytes, Some(Packing::Bytes), SliceWriter<'a, false>,
        |bytes| bytes, note, |bytes: &&'a [u8]| *bytes;
    String, Utf8, None, TextWriter,
        |bytes| utf8(bytes).to_owned(), copy, String::as_bytes;
    Vec<u8>, Bytes, None, TextWriter,
        <[u8]>::to_vec, copy, Vec::as_slice;
}

/// Text as the host sends it.
#[inline(always)]
fn utf8(bytes: &[u8]) -> &str {
    // SAFETY: the contract says that texts are UTF-8 and their ends lie between
    // characters; the host checks what it takes in.
    unsafe { std::str::from_utf8_unchecked(bytes) }
}
