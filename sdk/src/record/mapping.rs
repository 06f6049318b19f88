//! The traits of records and fields: how they are described, read and written.

use super::columns::Columns;
use super::source::{InputColumn, Origin, Source};
use super::unreadable::Unreadable;
use super::writer::Writer;
use crate::bindings::sluicebox::plugin::schemas;

/// A struct whose fields are the columns of a row.
///
/// Derive it; the trait's methods are for generated code.
///
/// A field may be any integer or float, `bool`, `&'a str`, `String` or
/// [`Text`](crate::Text) (usually short),
/// `&'a [u8]` or `Vec<u8>` (bytes), [`Timestamp`](crate::Timestamp),
/// [`Decimal`](crate::Decimal), an enum
/// with `#[derive(Symbol)]`, another record, an `Option` of these (may be
/// missing), a `Vec` or `BTreeSet` of these (a list), or a `BTreeMap` (a list of records
/// with a `key` and a `value`). Borrowed fields are read without a
/// copy. Doc comments of fields are shown to authors of pipelines. A column has the
/// field's name; `#[record(name = "InvoiceNo")]` on the field gives it another.
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
    /// The number of columns, nested ones included.
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
    /// The row is reserved, and the rows before it were written.
    #[doc(hidden)]
    unsafe fn write<S: Source<'a>>(
        &self,
        writer: &mut Self::Writer,
        row: usize,
        origin: Origin<'_, S>,
    );

    /// Fills the row in every column, for a record that is missing.
    ///
    /// # Safety
    /// As [`Record::write`].
    #[doc(hidden)]
    unsafe fn write_missing(writer: &mut Self::Writer, row: usize);
}

/// The types that a field of a [`Record`] can have.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a field of a record",
    label = "not a type that columns have",
    note = "fields are integers up to 64 bits, floats, `bool`, `&'a str`, `String`, `Text`, \
            `&'a [u8]`, `Vec<u8>`, `Timestamp`, `Decimal`, enums with `#[derive(Symbol)]`, structs with \
            `#[derive(Record)]`, and `Option`, `Vec`, `BTreeSet` or `BTreeMap` of these"
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

    /// The column if an answer could pass it on. Only borrowed texts and bytes
    /// can be recognised as unchanged.
    #[doc(hidden)]
    #[inline(always)]
    fn input(reader: &Self::Reader, index: u32) -> Option<InputColumn<'a>> {
        let _ = (reader, index);
        None
    }

    /// Whether this is the very value of the input field with the same name.
    ///
    /// Called for all fields of a row before any is written: until then the
    /// compiler knows that the input has not changed, and can often compute the
    /// result.
    ///
    /// # Safety
    /// The origin's row is a row of its source.
    #[doc(hidden)]
    #[inline(always)]
    unsafe fn is_passed<S: Source<'a>>(&self, name: &'static str, origin: Origin<'_, S>) -> bool {
        let _ = (name, origin);
        false
    }

    /// # Safety
    /// As [`Record::write`]; `passed` is the result of [`Field::is_passed`].
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

/// A field of the schema without its descendants, which follow it.
#[doc(hidden)]
pub fn schema_field(name: &str, doc: &str, field_type: schemas::FieldType) -> schemas::Field {
    schemas::Field {
        name: name.to_owned(),
        type_: field_type,
        nullable: false,
        doc: doc.to_owned(),
    }
}

/// A record that borrows nothing, so that the host can keep it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a record that can be kept",
    note = "use a struct without lifetimes with `#[derive(Record, Clone)]`"
)]
pub trait Owned: for<'a> Record<'a> + for<'a> Field<'a> + Clone + 'static {}

impl<T: for<'a> Record<'a> + for<'a> Field<'a> + Clone + 'static> Owned for T {}
