//! Lists: where each row's elements end, and then the elements of all rows.
//! Except for `Vec<u8>`, which is bytes.

use super::{
    Columns, Field, Origin, Packing, TextReader, TextWriter, Unreadable, Writer, assert_ends,
    push_reserved, schema_field, wrong_column,
};
use crate::bindings::sluicebox::plugin::columns::{Column, Values};
use crate::bindings::sluicebox::plugin::schemas;

/// Elements of one row after the other.
#[doc(hidden)]
pub struct ListReader<'a, R> {
    ends: &'a [u32],
    /// Where the next row's elements start.
    start: u32,
    elements: R,
}

/// A column of lists.
#[doc(hidden)]
#[derive(Default)]
pub struct ListWriter<W> {
    ends: Vec<u32>,
    elements: W,
}

impl<W: Writer> Writer for ListWriter<W> {
    fn reserve(&mut self, rows: usize) {
        self.ends.reserve(rows);
    }

    fn finish(self, columns: &mut Vec<Column>) {
        columns.push(Column {
            validity: None,
            values: Values::Ends(self.ends),
        });
        self.elements.finish(columns);
    }
}

impl<W> ListWriter<W> {
    fn len(&self) -> u32 {
        self.ends.last().copied().unwrap_or(0)
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
        let ends = match columns.next(rows) {
            Values::Ends(ends) => ends,
            other => wrong_column("a list", other),
        };
        let elements = assert_ends(ends, rows, None);
        ListReader {
            ends,
            start: 0,
            elements: T::reader(columns, elements),
        }
    }

    #[inline]
    unsafe fn read(reader: &mut Self::Reader, row: usize) -> Result<Self, Unreadable> {
        // SAFETY: there is an end for every row; the elements are read in
        // order, up to the last end, for which their reader was made.
        unsafe {
            let end = *reader.ends.get_unchecked(row);
            let start = std::mem::replace(&mut reader.start, end);
            let mut elements = Vec::with_capacity((end - start) as usize);
            let mut unreadable = None;
            for element in start..end {
                match T::read(&mut reader.elements, element as usize) {
                    Ok(element) => push_reserved(&mut elements, element),
                    Err(cause) => unreadable = unreadable.or(Some(cause)),
                }
            }
            match unreadable {
                None => Ok(elements),
                Some(cause) => Err(cause),
            }
        }
    }

    #[inline]
    unsafe fn skip(reader: &mut Self::Reader, row: usize) {
        // SAFETY: as in `read`.
        unsafe {
            let end = *reader.ends.get_unchecked(row);
            let start = std::mem::replace(&mut reader.start, end);
            for element in start..end {
                T::skip(&mut reader.elements, element as usize);
            }
        }
    }

    #[inline]
    unsafe fn write(&self, writer: &mut Self::Writer, _origin: Origin<'a, '_>) {
        let end = u32::try_from(self.len())
            .ok()
            .and_then(|len| writer.len().checked_add(len))
            .expect("a column of an answer has more than 2³² elements");
        writer.elements.reserve(self.len());
        // SAFETY: the elements have just been reserved, the row by the caller.
        unsafe {
            for element in self {
                element.write(&mut writer.elements, Origin::NOWHERE);
            }
            push_reserved(&mut writer.ends, end);
        }
    }

    unsafe fn write_missing(writer: &mut Self::Writer) {
        let end = writer.len();
        // SAFETY: as the caller says.
        unsafe { push_reserved(&mut writer.ends, end) }
    }
}

impl<'a> Field<'a> for Vec<u8> {
    type Reader = TextReader<'a>;
    type Writer = TextWriter<'a>;

    fn describe(name: &str, doc: &str, fields: &mut Vec<schemas::Field>) {
        <&[u8]>::describe(name, doc, fields);
    }

    fn reader(columns: &mut Columns<'a>, rows: usize) -> Self::Reader {
        TextReader::new(columns, rows)
    }

    #[inline(always)]
    unsafe fn read(reader: &mut Self::Reader, row: usize) -> Result<Self, Unreadable> {
        // SAFETY: as the caller says.
        Ok(unsafe { reader.next(row) }.to_vec())
    }

    #[inline(always)]
    unsafe fn skip(reader: &mut Self::Reader, row: usize) {
        // SAFETY: as the caller says.
        unsafe { reader.next(row) };
    }

    #[inline(always)]
    unsafe fn write(&self, writer: &mut Self::Writer, origin: Origin<'a, '_>) {
        // SAFETY: as the caller says.
        unsafe { writer.push(self, Packing::Bytes, origin) }
    }

    unsafe fn write_missing(writer: &mut Self::Writer) {
        // SAFETY: as the caller says.
        unsafe { <&[u8]>::write_missing(writer) }
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
elements!(&'a str, String, &'a [u8], Vec<u8>);

impl<'a, T: Element<'a>> Element<'a> for Vec<T> {}
impl<'a, T: Field<'a>> Element<'a> for Option<T> {}
