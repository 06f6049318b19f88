//! Decides how a struct of the author's maps to columns: which columns it has,
//! how a row is read from them, and how rows become columns again.
//!
//! A [`Table`] and its readers check the columns when they are made, and nothing
//! is checked after that; hence the `unsafe` methods, whose callers are the loops
//! in [`crate::transform`] and [`crate::aggregate`].

mod flag;
mod list;
mod number;
mod optional;
mod slots;
mod symbol;
mod table;
mod text;

use std::fmt;

use crate::Reject;
use crate::bindings::sluicebox::plugin::columns::{Column, Values};
use crate::bindings::sluicebox::plugin::schemas;

pub use flag::Bits;
pub use list::Element;
pub use slots::Slots;
pub use symbol::{Symbol, SymbolReader};
pub use table::{Columns, Table};
pub use text::{Input, SliceWriter, TextReader};

/// A struct whose fields are the columns of a row.
///
/// Derive it; the trait's methods are for the code that the derive writes.
///
/// A field may be of any integer or float, `bool`, `&'a str` or `String`,
/// `&'a [u8]` or `Vec<u8>` (bytes), [`Timestamp`](crate::Timestamp), an enum
/// with `#[derive(Symbol)]`, another record, `Option` of these (may be missing)
/// or `Vec` of these (a list). Borrowed fields are read without a copy. Doc
/// comments of fields are shown to those who build pipelines.
///
/// ```
/// use sluicebox_sdk::prelude::*;
///
/// /// Something that a shopper did.
/// #[derive(Record)]
/// struct Event<'a> {
///     /// Who did it.
///     user_id: &'a str,
///     action: Action,
///     quantity: Option<u32>,
///     lines: Vec<Line>,
///     ts: Timestamp,
/// }
///
/// #[derive(Record)]
/// struct Line {
///     sku: String,
///     cents: i64,
/// }
///
/// #[derive(Symbol)]
/// enum Action {
///     Add,
///     Remove,
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a record",
    label = "not a record",
    note = "rows are read and written as structs with `#[derive(Record)]`"
)]
pub trait Record<'a>: Sized {
    #[doc(hidden)]
    type Reader: Source<'a>;
    #[doc(hidden)]
    type Writer: Writer<'a>;
    /// How many columns the fields have, with all that is nested in them.
    #[doc(hidden)]
    const COLUMNS: usize;

    #[doc(hidden)]
    fn describe(fields: &mut Vec<schemas::Field>);

    #[doc(hidden)]
    fn reader(columns: &mut Columns<'a>, rows: usize) -> Self::Reader;

    /// # Safety
    /// `row` is less than the `rows` that the reader was made for.
    #[doc(hidden)]
    unsafe fn read(reader: &Self::Reader, row: usize) -> Result<Self, Unreadable>;

    /// # Safety
    /// The row has been reserved, and those before it were written.
    #[doc(hidden)]
    unsafe fn write<S: Source<'a>>(
        &self,
        writer: &mut Self::Writer,
        row: usize,
        origin: Origin<'_, S>,
    );

    /// Takes up a row in every column, for a record that is missing.
    ///
    /// # Safety
    /// As [`Record::write`].
    #[doc(hidden)]
    unsafe fn write_missing(writer: &mut Self::Writer, row: usize);
}

/// What a field of a [`Record`] can be.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a field of a record",
    label = "not a type that columns have",
    note = "fields are integers up to 64 bits, floats, `bool`, `&'a str`, `String`, `&'a [u8]`, \
            `Vec<u8>`, `Timestamp`, enums with `#[derive(Symbol)]`, structs with \
            `#[derive(Record)]`, and `Option` or `Vec` of these"
)]
pub trait Field<'a>: Sized {
    #[doc(hidden)]
    type Reader;
    #[doc(hidden)]
    type Writer: Writer<'a>;
    #[doc(hidden)]
    const COLUMNS: usize = 1;
    #[doc(hidden)]
    const NULLABLE: bool = false;

    #[doc(hidden)]
    fn describe(name: &str, doc: &str, fields: &mut Vec<schemas::Field>);

    #[doc(hidden)]
    fn reader(columns: &mut Columns<'a>, rows: usize) -> Self::Reader;

    /// # Safety
    /// As [`Record::read`].
    #[doc(hidden)]
    unsafe fn read(reader: &Self::Reader, row: usize) -> Result<Self, Unreadable>;

    /// The column as an answer could pass it on: borrowed texts and bytes can
    /// be recognised there.
    #[doc(hidden)]
    #[inline(always)]
    fn input(reader: &Self::Reader, index: u32) -> Option<Input<'a>> {
        let _ = (reader, index);
        None
    }

    /// Whether this is the very value of the input field of the same name.
    ///
    /// Asked of all fields of a row before any is written: what was read has
    /// not changed for the compiler then, and it often sees the answer.
    ///
    /// # Safety
    /// The origin is a row of its source.
    #[doc(hidden)]
    #[inline(always)]
    unsafe fn is_passed<S: Source<'a>>(&self, name: &'static str, origin: Origin<'_, S>) -> bool {
        let _ = (name, origin);
        false
    }

    /// # Safety
    /// As [`Record::write`]; `passed` is what [`Field::is_passed`] said.
    #[doc(hidden)]
    unsafe fn write<S: Source<'a>>(
        &self,
        writer: &mut Self::Writer,
        row: usize,
        name: &'static str,
        origin: Origin<'_, S>,
        passed: bool,
    );

    /// # Safety
    /// As [`Record::write`].
    #[doc(hidden)]
    unsafe fn write_missing(writer: &mut Self::Writer, row: usize);
}

/// Columns that are being built. Values are stored by row; how many rows there
/// are is known to whoever writes them, and told in the end.
#[doc(hidden)]
pub trait Writer<'a>: Default {
    /// Says, before any row, what rows are read from.
    #[inline(always)]
    fn offer<S: Source<'a>>(&mut self, name: &'static str, source: &S) {
        let _ = (name, source);
    }

    /// Makes room for `total` rows.
    ///
    /// # Safety
    /// The first `used` rows, and no others, were written.
    unsafe fn reserve(&mut self, used: usize, total: usize);

    /// Copies what is still borrowed.
    ///
    /// # Safety
    /// The first `rows` rows, and no others, were written.
    unsafe fn settle(&mut self, rows: usize);

    /// # Safety
    /// As [`Writer::settle`].
    unsafe fn finish(self, rows: usize, lineage: Lineage<'a, '_>, columns: &mut Vec<Column>);
}

/// The columns of a record inside of another: its own, then its members'.
#[doc(hidden)]
#[derive(Default)]
pub struct RecordWriter<W>(pub W);

impl<'a, W: Writer<'a>> Writer<'a> for RecordWriter<W> {
    unsafe fn reserve(&mut self, used: usize, total: usize) {
        // SAFETY: as the caller says.
        unsafe { self.0.reserve(used, total) }
    }

    unsafe fn settle(&mut self, rows: usize) {
        // SAFETY: as the caller says.
        unsafe { self.0.settle(rows) }
    }

    unsafe fn finish(self, rows: usize, _lineage: Lineage<'a, '_>, columns: &mut Vec<Column>) {
        columns.push(Column {
            validity: None,
            values: Values::None,
        });
        // SAFETY: as the caller says.
        unsafe { self.0.finish(rows, Lineage::NONE, columns) }
    }
}

/// What rows are read from, for answers that pass columns of it on.
#[doc(hidden)]
pub trait Source<'a> {
    /// The column of a field, if an answer can pass it on.
    fn input(&self, name: &str) -> Option<Input<'a>>;

    /// All of them.
    fn inputs(&self) -> Vec<Input<'a>>;
}

/// Where nothing is passed on from.
#[doc(hidden)]
pub struct Nowhere;

impl<'a> Source<'a> for Nowhere {
    #[inline(always)]
    fn input(&self, _name: &str) -> Option<Input<'a>> {
        None
    }

    fn inputs(&self) -> Vec<Input<'a>> {
        Vec::new()
    }
}

/// Which input row an output row is made from.
#[doc(hidden)]
pub struct Origin<'call, S> {
    pub source: &'call S,
    pub parent: u32,
    /// One for each output row before this one.
    pub parents: *const u32,
}

impl<S> Clone for Origin<'_, S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<S> Copy for Origin<'_, S> {}

impl Origin<'_, Nowhere> {
    /// For values that are not a whole column of an answer.
    pub const NOWHERE: Self = Origin {
        source: &Nowhere,
        parent: 0,
        parents: std::ptr::null(),
    };
}

/// Which input rows all output rows are made from.
#[doc(hidden)]
#[derive(Clone, Copy)]
pub struct Lineage<'a, 'call> {
    pub inputs: &'call [Input<'a>],
    /// One a row, all of them rows of the table that the inputs are columns of.
    pub parents: &'call [u32],
}

impl Lineage<'_, '_> {
    /// For values that are not a whole column of an answer.
    pub const NONE: Self = Lineage {
        inputs: &[],
        parents: &[],
    };
}

/// A value that is not what its field's type allows, and where.
///
/// Boxed, so that reading a row that is fine moves no more than a pointer.
#[doc(hidden)]
#[derive(Debug)]
pub struct Unreadable(Box<Mismatch>);

#[derive(Debug)]
struct Mismatch {
    /// Innermost first.
    path: Vec<&'static str>,
    expected: &'static [&'static str],
    found: String,
}

impl Unreadable {
    #[cold]
    pub fn symbol(expected: &'static [&'static str], found: &[u8]) -> Self {
        const SHOWN: usize = 60;
        let mut found = String::from_utf8_lossy(found).into_owned();
        if let Some((cut, _)) = found.char_indices().nth(SHOWN) {
            found.truncate(cut);
            found.push('…');
        }
        Unreadable(Box::new(Mismatch {
            path: Vec::new(),
            expected,
            found,
        }))
    }

    /// The same, seen from the record that has the field.
    #[cold]
    pub fn within(mut self, field: &'static str) -> Self {
        self.0.path.push(field);
        self
    }
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Mismatch {
            path,
            expected,
            found,
        } = &*self.0;
        let path: Vec<&str> = path.iter().rev().copied().collect();
        write!(
            f,
            "field `{}`: expected {}, found `{found}`",
            path.join("."),
            Choice(expected)
        )
    }
}

impl From<Unreadable> for Reject {
    #[cold]
    fn from(unreadable: Unreadable) -> Self {
        Reject::new(unreadable)
    }
}

/// As people list alternatives: `a`, `b` or `c`.
#[doc(hidden)]
pub struct Choice(pub &'static [&'static str]);

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, value) in self.0.iter().enumerate() {
            let between = match i {
                0 => "",
                _ if i + 1 == self.0.len() => " or ",
                _ => ", ",
            };
            write!(f, "{between}`{value}`")?;
        }
        Ok(())
    }
}

/// A field of the schema that has no descendants, or whose descendants follow.
#[doc(hidden)]
pub fn schema_field(name: &str, doc: &str, field_type: schemas::FieldType) -> schemas::Field {
    schemas::Field {
        name: name.to_owned(),
        type_: field_type,
        nullable: false,
        doc: doc.to_owned(),
    }
}

/// Appends to a vector that has room.
///
/// # Safety
/// The vector's length is less than its capacity.
#[doc(hidden)]
#[inline(always)]
pub unsafe fn push_reserved<T>(values: &mut Vec<T>, value: T) {
    debug_assert!(values.len() < values.capacity());
    // SAFETY: there is room for one more, and it is written before it counts.
    unsafe {
        values.as_mut_ptr().add(values.len()).write(value);
        values.set_len(values.len() + 1);
    }
}

#[cfg(test)]
mod tests;
