//! Lists: where each row's elements end, then the elements of all rows.
//! `Vec<u8>` is not a list but bytes.

use std::ops::Range;

use super::columns::Columns;
use super::mapping::{Field, schema_field};
use super::slots::{Slots, push_reserved};
use super::source::{Lineage, Origin, Source};
use super::unreadable::Unreadable;
use super::writer::Writer;
use crate::bindings::sluicebox::plugin::columns::{Column, Values};
use crate::bindings::sluicebox::plugin::schemas;

/// Elements, and where each row's elements are.
#[doc(hidden)]
pub struct ListReader<'a, R> {
    offsets: &'a [u32],
    elements: R,
}

/// A column of lists.
#[doc(hidden)]
#[derive(Default)]
pub struct ListWriter<W> {
    ends: Slots<u32>,
    elements: W,
    /// How many elements were written, and how many there is space for.
    count: usize,
    capacity: usize,
}

impl<'a, R> ListReader<'a, R> {
    /// `elements` makes the reader of so many elements.
    pub(super) fn new(
        columns: &mut Columns<'a>,
        rows: usize,
        elements: impl FnOnce(&mut Columns<'a>, usize) -> R,
    ) -> Self {
        let offsets = columns.lists(rows);
        ListReader {
            offsets,
            elements: elements(columns, offsets[rows] as usize),
        }
    }

    pub(super) fn elements(&self) -> &R {
        &self.elements
    }

    /// Where a row's elements are: rows of the elements' reader.
    ///
    /// # Safety
    /// As [`Record::read`](crate::Record::read).
    #[inline]
    pub(super) unsafe fn elements_of(&self, row: usize) -> Range<usize> {
        // SAFETY: there is one more offset than rows; they ascend up to the
        // number of elements that their reader was made for.
        unsafe {
            let start = *self.offsets.get_unchecked(row);
            let end = *self.offsets.get_unchecked(row + 1);
            start as usize..end as usize
        }
    }
}

impl<W> ListWriter<W> {
    /// # Safety
    /// The row must be reserved.
    #[inline(always)]
    pub(super) unsafe fn end(&mut self, row: usize) {
        // SAFETY: as the caller says.
        unsafe { self.ends.put(row, self.count as u32) }
    }
}

impl<'a, W: Writer<'a>> ListWriter<W> {
    #[cold]
    fn grow(&mut self, count: usize) {
        assert!(
            u32::try_from(count).is_ok(),
            "a column of an answer has more than 2³² elements"
        );
        let capacity = count.max(2 * self.capacity);
        // SAFETY: the elements so far were written.
        unsafe { self.elements.reserve(self.count, capacity) };
        self.capacity = capacity;
    }

    /// Writes a row's elements: `write` writes one of them into a row of its own.
    ///
    /// # Safety
    /// As [`Record::write`](crate::Record::write).
    #[inline]
    pub(super) unsafe fn put<T>(
        &mut self,
        row: usize,
        elements: impl ExactSizeIterator<Item = T>,
        write: impl Fn(&mut W, T, usize),
    ) {
        let count = self.count + elements.len();
        if count > self.capacity {
            self.grow(count);
        }
        for (element, at) in elements.zip(self.count..) {
            write(&mut self.elements, element, at);
        }
        self.count = count;
        // SAFETY: the caller answers for the row.
        unsafe { self.end(row) }
    }
}

impl<'a, W: Writer<'a>> ListWriter<W> {
    /// Writes a row's elements, each of which is a field.
    ///
    /// # Safety
    /// As [`Record::write`](crate::Record::write).
    #[inline]
    pub(super) unsafe fn put_fields<'e, T: Field<'a, Writer = W> + 'e>(
        &mut self,
        row: usize,
        elements: impl ExactSizeIterator<Item = &'e T>,
        name: &'static str,
    ) {
        // SAFETY: the writer has space for the elements; the caller answers for the row.
        unsafe {
            self.put(row, elements, |writer, element, at| {
                element.write(writer, at, name, Origin::NOWHERE, false);
            });
        }
    }
}

impl<'a, W: Writer<'a>> Writer<'a> for ListWriter<W> {
    unsafe fn reserve(&mut self, used: usize, total: usize) {
        self.ends.reserve(used, total);
    }

    unsafe fn settle(&mut self, _rows: usize) {
        // SAFETY: this many elements were written.
        unsafe { self.elements.settle(self.count) }
    }

    unsafe fn finish(self, rows: usize, _lineage: Lineage<'a, '_>, columns: &mut Vec<Column>) {
        // SAFETY: the caller promises that all these rows were written, and so
        // were their elements.
        unsafe {
            columns.push(Column {
                validity: None,
                values: Values::Ends(self.ends.into_vec(rows)),
            });
            self.elements.finish(self.count, Lineage::NONE, columns);
        }
    }
}

impl<'a, T: Element<'a>> Field<'a> for Vec<T> {
    type Reader = ListReader<'a, T::Reader>;
    type Writer = ListWriter<T::Writer>;
    const COLUMNS: usize = 1 + T::COLUMNS;

    fn describe(name: &str, doc: &str, fields: &mut Vec<schemas::Field>) {
        fields.push(schema_field(name, doc, schemas::FieldType::List));
        T::describe("element", "", fields);
    }

    fn reader(columns: &mut Columns<'a>, rows: usize) -> Self::Reader {
        ListReader::new(columns, rows, T::reader)
    }

    #[inline]
    unsafe fn read(reader: &Self::Reader, row: usize) -> Result<Self, Unreadable> {
        // SAFETY: the caller answers for the row, and the reader has its elements.
        unsafe {
            let of_row = reader.elements_of(row);
            let mut elements = Vec::with_capacity(of_row.len());
            for element in of_row {
                push_reserved(&mut elements, T::read(&reader.elements, element)?);
            }
            Ok(elements)
        }
    }

    #[inline]
    unsafe fn write<S: Source<'a>>(
        &self,
        writer: &mut Self::Writer,
        row: usize,
        name: &'static str,
        _origin: Origin<'_, S>,
        _passed: bool,
    ) {
        // SAFETY: as the caller says.
        unsafe { writer.put_fields(row, self.iter(), name) }
    }

    unsafe fn write_missing(writer: &mut Self::Writer, row: usize) {
        // SAFETY: as the caller says.
        unsafe { writer.end(row) }
    }
}

/// What a `Vec` in a [`Record`](crate::Record) can hold: any field but `u8`,
/// since `Vec<u8>` is bytes.
#[diagnostic::on_unimplemented(
    message = "a record cannot have a list of `{Self}`",
    label = "not a type that columns have"
)]
pub trait Element<'a>: Field<'a> {}

macro_rules! elements {
    ($($element:ty),*) => {$(
        impl<'a> Element<'a> for $element {}
    )*};
}

elements!(
    i8,
    i16,
    i32,
    i64,
    u16,
    u32,
    u64,
    f32,
    f64,
    bool,
    crate::Timestamp
);
elements!(&'a str, String, crate::Text, &'a [u8], Vec<u8>);

impl<'a, T: Element<'a>> Element<'a> for Vec<T> {}
impl<'a, T: Field<'a>> Element<'a> for Option<T> {}
