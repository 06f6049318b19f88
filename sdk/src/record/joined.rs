//! Records that are made of others: the rows that pass between the stages of a recommender
//! have columns of the SDK's and of the author's.

use std::marker::PhantomData;

use super::columns::Columns;
use super::mapping::{Field, Record};
use super::source::{InputColumn, Origin, Source};
use super::unreadable::Unreadable;
use crate::bindings::sluicebox::plugin::schemas;

/// The fields of one record, followed by those of another.
#[derive(Clone, Debug, Default)]
pub struct And<A, B>(pub A, pub B);

#[doc(hidden)]
pub struct AndReader<A, B>(A, B);

impl<'a, A: Source<'a>, B: Source<'a>> Source<'a> for AndReader<A, B> {
    fn input(&self, _name: &str) -> Option<InputColumn<'a>> {
        None
    }

    fn inputs(&self) -> Vec<InputColumn<'a>> {
        Vec::new()
    }
}

impl<'a, A: Record<'a>, B: Record<'a>> Record<'a> for And<A, B> {
    type Reader = AndReader<A::Reader, B::Reader>;
    type Writer = (A::Writer, B::Writer);
    const COLUMNS: usize = A::COLUMNS + B::COLUMNS;

    fn describe(fields: &mut Vec<schemas::Field>) {
        A::describe(fields);
        B::describe(fields);
    }

    fn reader(columns: &mut Columns<'a>, rows: usize) -> Self::Reader {
        AndReader(A::reader(columns, rows), B::reader(columns, rows))
    }

    #[inline(always)]
    unsafe fn read(reader: &Self::Reader, row: usize) -> Result<Self, Unreadable> {
        // SAFETY: as the caller says.
        unsafe { Ok(And(A::read(&reader.0, row)?, B::read(&reader.1, row)?)) }
    }

    #[inline(always)]
    unsafe fn write<S: Source<'a>>(
        &self,
        writer: &mut Self::Writer,
        row: usize,
        _origin: Origin<'_, S>,
    ) {
        // SAFETY: as the caller says.
        unsafe {
            self.0.write(&mut writer.0, row, Origin::NOWHERE);
            self.1.write(&mut writer.1, row, Origin::NOWHERE);
        }
    }

    unsafe fn write_missing(writer: &mut Self::Writer, row: usize) {
        // SAFETY: as the caller says.
        unsafe {
            A::write_missing(&mut writer.0, row);
            B::write_missing(&mut writer.1, row);
        }
    }
}

/// The name of a field.
pub trait FieldName {
    const NAME: &'static str;
}

/// Defines names of fields.
macro_rules! field_names {
    ($($marker:ident: $name:literal),* $(,)?) => {$(
        #[derive(Debug)]
        pub enum $marker {}

        impl $crate::record::FieldName for $marker {
            const NAME: &'static str = $name;
        }
    )*};
}

pub(crate) use field_names;

/// A record with one field.
#[derive(Debug)]
pub struct Named<N, F> {
    pub value: F,
    name: PhantomData<N>,
}

impl<N, F> Named<N, F> {
    pub fn new(value: F) -> Self {
        Named {
            value,
            name: PhantomData,
        }
    }
}

impl<N, F: Clone> Clone for Named<N, F> {
    fn clone(&self) -> Self {
        Named::new(self.value.clone())
    }
}

impl<N, F: Default> Default for Named<N, F> {
    fn default() -> Self {
        Named::new(F::default())
    }
}

#[doc(hidden)]
pub struct NamedReader<R>(R);

impl<'a, R> Source<'a> for NamedReader<R> {
    fn input(&self, _name: &str) -> Option<InputColumn<'a>> {
        None
    }

    fn inputs(&self) -> Vec<InputColumn<'a>> {
        Vec::new()
    }
}

impl<'a, N: FieldName, F: Field<'a>> Record<'a> for Named<N, F> {
    type Reader = NamedReader<F::Reader>;
    type Writer = F::Writer;
    const COLUMNS: usize = F::COLUMNS;

    fn describe(fields: &mut Vec<schemas::Field>) {
        F::describe(N::NAME, "", fields);
    }

    fn reader(columns: &mut Columns<'a>, rows: usize) -> Self::Reader {
        NamedReader(F::reader(columns, rows))
    }

    #[inline(always)]
    unsafe fn read(reader: &Self::Reader, row: usize) -> Result<Self, Unreadable> {
        // SAFETY: as the caller says.
        let value = unsafe { F::read(&reader.0, row) };
        value.map(Named::new).map_err(|cause| cause.within(N::NAME))
    }

    #[inline(always)]
    unsafe fn write<S: Source<'a>>(
        &self,
        writer: &mut Self::Writer,
        row: usize,
        _origin: Origin<'_, S>,
    ) {
        // SAFETY: as the caller says.
        unsafe {
            self.value
                .write(writer, row, N::NAME, Origin::NOWHERE, false);
        }
    }

    unsafe fn write_missing(writer: &mut Self::Writer, row: usize) {
        // SAFETY: as the caller says.
        unsafe { F::write_missing(writer, row) }
    }
}
