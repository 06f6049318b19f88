//! Writes texts and bytes: copies them, or passes an input column on without a
//! copy.
//!
//! If every slice of an output column is the very slice (by address and length)
//! that one input field has at the row's parent, the column is not copied: the
//! answer refers to the input. Each row is first compared with the input of the
//! same name, which costs nothing where the compiler sees that they are the
//! same. From the first row that differs, slices are collected, and at the end
//! they are compared with the other inputs, or copied all at once.

use std::mem::ManuallyDrop;

use super::columns::Columns;
use super::mapping::{Field, schema_field};
use super::slice::TextReader;
use super::slots::Slots;
use super::source::{InputColumn, Lineage, Origin, Packing, Source};
use super::unreadable::Unreadable;
use super::writer::Writer;
use crate::bindings::sluicebox::plugin::columns::{Column, Packed, Values};
use crate::bindings::sluicebox::plugin::schemas;
use crate::text;

/// Texts that are copied at once.
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
        // SAFETY: there is space for the bytes, and for the row's end.
        unsafe {
            text::copy(bytes.as_ptr(), self.data.as_mut_ptr().add(len), bytes.len());
            self.data.set_len(len + bytes.len());
            self.ends.put(row, (len + bytes.len()) as u32);
        }
    }

    #[inline(always)]
    unsafe fn into_values(self, rows: usize) -> Values {
        Values::Packed(Packed {
            // SAFETY: the caller promises that all these rows were written.
            ends: unsafe { self.ends.into_vec(rows) },
            data: self.data,
        })
    }
}

/// Grows a vector; takes and returns it by value, so that a loop can keep its
/// own in registers.
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
            // SAFETY: as the caller promises.
            values: unsafe { self.into_values(rows) },
        });
    }
}

/// Texts that are collected as slices, and copied later or not at all.
#[doc(hidden)]
#[derive(Default)]
pub struct SliceWriter<'a, const TEXT: bool> {
    /// The index of the input with the same name.
    named: Option<u32>,
    /// Some row differed from that input, so all rows are in `slices`.
    noted: bool,
    slices: Slots<&'a [u8]>,
    /// How many of the first rows have been copied.
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
                // SAFETY: the rows so far have parents, and there is space for
                // their slices.
                unsafe { note_passed(self.slices.as_mut_ptr(), row, origin.parents, input) };
            }
        }
        // SAFETY: as the caller says.
        unsafe { self.note(bytes, row) }
    }

    #[inline(always)]
    fn named<S: Source<'a>>(name: &'static str, source: &S) -> Option<InputColumn<'a>> {
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
    /// This many rows were collected or copied.
    #[inline(never)]
    unsafe fn into_values(mut self, rows: usize, lineage: Lineage<'a, '_>) -> Values {
        // SAFETY: as the caller promises; settling copies every row.
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

    /// The input that has exactly these slices at these parents.
    fn passed_on(slices: &[&'a [u8]], lineage: Lineage<'a, '_>) -> Option<u32> {
        let is = |slice: &[u8], input: &InputColumn<'a>, parent: u32| {
            // SAFETY: parents are rows of the table that the inputs belong to.
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

/// Moves a value to its own place: passing a large value by address would
/// otherwise keep the struct that it is part of out of registers.
#[inline(always)]
fn moved<T>(value: T) -> T {
    let value = ManuallyDrop::new(value);
    // SAFETY: the original is forgotten.
    unsafe { std::ptr::read(&*value) }
}

/// Collects the slices of rows that were passed on until another row was not.
#[cold]
unsafe fn note_passed<'a>(
    slices: *mut &'a [u8],
    rows: usize,
    parents: *const u32,
    input: InputColumn<'a>,
) {
    for row in 0..rows {
        // SAFETY: the caller promises this many parents and slices.
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
        // SAFETY: the caller promises that all these rows were written without
        // an origin, so their slices were collected; the copy has space for as
        // many.
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
            // SAFETY: the caller promises that all these rows were written.
            _ => unsafe { moved(self).into_values(rows, lineage) },
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
            fn input(reader: &Self::Reader, index: u32) -> Option<InputColumn<'a>> {
                Some(InputColumn {
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
    text::short::Text, Utf8, |bytes| text::short::Text::from(utf8(bytes));
    Vec<u8>, Bytes, <[u8]>::to_vec;
}

/// A text from the host.
#[inline(always)]
fn utf8(bytes: &[u8]) -> &str {
    // SAFETY: the contract says that texts are UTF-8 and end between
    // characters; the host checks its input.
    unsafe { std::str::from_utf8_unchecked(bytes) }
}
