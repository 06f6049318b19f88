//! Texts and bytes: read as slices of the column, written by copying, or passed
//! on without a copy.
//!
//! A column whose every slice is the very one (by place and length) that one
//! input field has at the row's parent is not copied: the answer names the
//! input. The input of the same name is tried row by row, at no cost where the
//! compiler sees that it is the same. Otherwise slices are noted, and in the end
//! other inputs are tried, or all of the column is copied in one go.

use std::mem::ManuallyDrop;

use super::columns::Columns;
use super::mapping::{Field, schema_field};
use super::slice::TextReader;
use super::slots::Slots;
use super::source::{Input, Lineage, Origin, Packing, Source};
use super::unreadable::Unreadable;
use super::writer::Writer;
use crate::bindings::sluicebox::plugin::columns::{Column, Packed, Values};
use crate::bindings::sluicebox::plugin::schemas;
use crate::text;

/// Texts that are copied as they come.
#[doc(hidden)]
#[derive(Default)]
pub struct TextWriter {
    ends: Slots<u32>,
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
            self.ends.put(row, (len + bytes.len()) as u32);
        }
    }

    #[inline(always)]
    unsafe fn into_values(self, rows: usize) -> Values {
        Values::Packed(Packed {
            // SAFETY: the caller says that all these rows were written.
            ends: unsafe { self.ends.into_vec(rows) },
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
    #[inline(always)]
    unsafe fn reserve(&mut self, used: usize, total: usize) {
        self.ends.reserve(used, total);
    }

    unsafe fn settle(&mut self, _rows: usize) {}

    #[inline(always)]
    unsafe fn finish(self, rows: usize, _lineage: Lineage<'a, '_>, columns: &mut Vec<Column>) {
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
    /// The input of the same name.
    named: Option<u32>,
    /// Some row was not its, and all rows are in `slices`.
    noted: bool,
    slices: Slots<&'a [u8]>,
    /// The first so many rows have been copied.
    settled: usize,
    copied: TextWriter,
}

impl<'a, const TEXT: bool> SliceWriter<'a, TEXT> {
    /// # Safety
    /// As [`Field::is_passed`].
    #[inline(always)]
    unsafe fn is_passed<S: Source<'a>>(
        bytes: &'a [u8],
        name: &'static str,
        origin: Origin<'_, S>,
    ) -> bool {
        // SAFETY: as the caller says.
        Self::named(name, origin.source)
            .is_some_and(|input| unsafe { input.is(bytes, origin.parent) })
    }

    /// # Safety
    /// As [`Field::write`].
    #[inline(always)]
    unsafe fn write<S: Source<'a>>(
        &mut self,
        bytes: &'a [u8],
        row: usize,
        name: &'static str,
        origin: Origin<'_, S>,
        passed: bool,
    ) {
        if !self.noted {
            if passed {
                return;
            }
            if let Some(input) = Self::named(name, origin.source) {
                self.noted = true;
                // SAFETY: the rows so far have parents, and room for slices.
                unsafe { note_passed(self.slices.as_mut_ptr(), row, origin.parents, input) };
            }
        }
        // SAFETY: as the caller says.
        unsafe { self.note(bytes, row) }
    }

    #[inline(always)]
    fn named<S: Source<'a>>(name: &'static str, source: &S) -> Option<Input<'a>> {
        let input = source.input(name)?;
        ((input.packing == Packing::Text) == TEXT).then_some(input)
    }

    /// # Safety
    /// As [`Field::write`].
    #[inline(always)]
    pub unsafe fn note(&mut self, bytes: &'a [u8], row: usize) {
        // SAFETY: the caller has reserved the row.
        unsafe { self.slices.put(row, bytes) }
    }

    /// # Safety
    /// So many rows were noted, or settled.
    #[inline(never)]
    unsafe fn into_values(mut self, rows: usize, lineage: Lineage<'a, '_>) -> Values {
        // SAFETY: as the caller says; settling copies every row.
        unsafe {
            if self.settled == 0
                && let Some(index) = Self::passed_on(self.slices.stored(rows), lineage)
            {
                return Values::Input(index);
            }
            self.settle(rows);
            self.copied.into_values(rows)
        }
    }

    /// The input that has all these slices at these parents.
    fn passed_on(slices: &[&'a [u8]], lineage: Lineage<'a, '_>) -> Option<u32> {
        let is = |slice: &[u8], input: &Input<'a>, parent: u32| {
            // SAFETY: parents are rows of the table that the inputs are columns of.
            (input.packing == Packing::Text) == TEXT && unsafe { input.is(slice, parent) }
        };
        let (first, &parent) = (slices.first()?, lineage.parents.first()?);
        let mut inputs = lineage.inputs.iter();
        let input = inputs.find(|input| is(first, input, parent))?;
        let mut all = true;
        for (slice, &parent) in slices.iter().zip(lineage.parents) {
            all &= is(slice, input, parent);
        }
        all.then_some(input.index)
    }
}

/// The same in a place of its own: a call that takes a large value by its
/// address would otherwise keep what the value is a part of out of registers.
#[inline(always)]
fn detached<T>(value: T) -> T {
    let value = ManuallyDrop::new(value);
    // SAFETY: the original is forgotten.
    unsafe { std::ptr::read(&*value) }
}

/// Notes rows that were passed on until another one was not.
#[cold]
unsafe fn note_passed<'a>(
    slices: *mut &'a [u8],
    rows: usize,
    parents: *const u32,
    input: Input<'a>,
) {
    for row in 0..rows {
        // SAFETY: the caller says that there are so many parents, and slices.
        unsafe {
            let slice = input.texts.slice(*parents.add(row) as usize);
            slices.add(row).write(slice);
        }
    }
}

impl<'a, const TEXT: bool> Writer<'a> for SliceWriter<'a, TEXT> {
    #[inline(always)]
    fn offer<S: Source<'a>>(&mut self, name: &'static str, source: &S) {
        self.named = Self::named(name, source).map(|input| input.index);
    }

    #[inline(always)]
    unsafe fn reserve(&mut self, used: usize, total: usize) {
        self.slices.reserve(used, total);
    }

    unsafe fn settle(&mut self, rows: usize) {
        let capacity = self.slices.capacity();
        if self.copied.ends.capacity() < capacity {
            self.copied.ends.reserve(self.settled, capacity);
        }
        // SAFETY: the caller says that all these rows were written, from
        // nowhere, so they were noted; the copy has room for as many as there
        // are slices.
        unsafe {
            let unsettled = &self.slices.stored(rows)[self.settled..];
            let bytes = unsettled.iter().map(|slice| slice.len()).sum();
            self.copied.data.reserve(bytes);
            for (slice, row) in unsettled.iter().zip(self.settled..) {
                self.copied.copy(slice, row);
            }
        }
        self.settled = rows;
    }

    #[inline(always)]
    unsafe fn finish(self, rows: usize, lineage: Lineage<'a, '_>, columns: &mut Vec<Column>) {
        let values = match self.named {
            Some(input) if !self.noted => Values::Input(input),
            // SAFETY: the caller says that all these rows were written.
            _ => unsafe { detached(self).into_values(rows, lineage) },
        };
        columns.push(Column {
            validity: None,
            values,
        });
    }
}

macro_rules! borrowed {
    ($($packed:ty, $packing:ident, $type:ident, $read:expr, $bytes:expr;)*) => {$(
        impl<'a> Field<'a> for $packed {
            type Reader = TextReader<'a>;
            type Writer = SliceWriter<'a, { matches!(Packing::$packing, Packing::Text) }>;

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
            fn input(reader: &Self::Reader, index: u32) -> Option<Input<'a>> {
                Some(Input {
                    index,
                    packing: Packing::$packing,
                    texts: *reader,
                })
            }

            #[inline(always)]
            unsafe fn is_passed<S: Source<'a>>(
                &self,
                name: &'static str,
                origin: Origin<'_, S>,
            ) -> bool {
                // SAFETY: as the caller says.
                unsafe { Self::Writer::is_passed($bytes(self), name, origin) }
            }

            #[inline(always)]
            unsafe fn write<S: Source<'a>>(
                &self,
                writer: &mut Self::Writer,
                row: usize,
                name: &'static str,
                origin: Origin<'_, S>,
                passed: bool,
            ) {
                // SAFETY: as the caller says.
                unsafe { writer.write($bytes(self), row, name, origin, passed) }
            }

            unsafe fn write_missing(writer: &mut Self::Writer, row: usize) {
                // SAFETY: as the caller says.
                unsafe { writer.note(&[], row) }
            }
        }
    )*};
}

borrowed! {
    &'a str, Text, Utf8, utf8, |text: &&'a str| text.as_bytes();
    &'a [u8], Bytes, Bytes, |bytes| bytes, |bytes: &&'a [u8]| *bytes;
}

macro_rules! owned {
    ($($packed:ty, $type:ident, $read:expr;)*) => {$(
        impl<'a> Field<'a> for $packed {
            type Reader = TextReader<'a>;
            type Writer = TextWriter;

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
            unsafe fn write<S: Source<'a>>(
                &self,
                writer: &mut Self::Writer,
                row: usize,
                _name: &'static str,
                _origin: Origin<'_, S>,
                _passed: bool,
            ) {
                // SAFETY: as the caller says.
                unsafe { writer.copy(self.as_ref(), row) }
            }

            unsafe fn write_missing(writer: &mut Self::Writer, row: usize) {
                // SAFETY: as the caller says.
                unsafe { writer.copy(&[], row) }
            }
        }
    )*};
}

owned! {
    String, Utf8, |bytes| utf8(bytes).to_owned();
    Vec<u8>, Bytes, <[u8]>::to_vec;
}

/// Text as the host sends it.
#[inline(always)]
fn utf8(bytes: &[u8]) -> &str {
    // SAFETY: the contract says that texts are UTF-8 and their ends lie between
    // characters; the host checks what it takes in.
    unsafe { std::str::from_utf8_unchecked(bytes) }
}
