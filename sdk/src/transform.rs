//! Runs a plain function over the rows of a batch, and decides from what the
//! function returns whether it filters, maps or does both.

use std::marker::PhantomData;

use crate::Reject;
use crate::bindings::exports::sluicebox::plugin::transform::{Guest, Output, Transformed};
use crate::bindings::sluicebox::plugin::columns::Batch;
use crate::bindings::sluicebox::plugin::description::Kind;
use crate::bindings::sluicebox::plugin::{answers, schemas};
use crate::operator::{Instance, Opened, Operator, Shape, not_of_kind};
use crate::record::{Input, Lineage, Origin, Record, Slots, Source, Table, Writer};

/// What a transform can return.
///
/// | returns | and so |
/// |---|---|
/// | `bool` | keeps the row as it came, or drops it |
/// | `()` | keeps every row |
/// | a record | maps each row |
/// | `Option` of a record | maps the rows that it keeps |
/// | `Vec`, array or iterator of records | gives any number of rows for each |
/// | `Result<…, Reject>` of any of these | may reject a row, with a reason |
///
/// `Form` tells these apart and is always inferred.
#[diagnostic::on_unimplemented(
    message = "an operator cannot return `{Self}`",
    label = "not rows and not a decision",
    note = "return `bool` to filter, a struct with `#[derive(Record)]` to map, `Option`, `Vec` or \
            an iterator of such structs to give none or several rows, or `Result<_, Reject>` of \
            any of these"
)]
pub trait Answer<'a, Form>: Sized {
    #[doc(hidden)]
    type Collector: Collector<'a>;

    #[doc(hidden)]
    fn give<S: Source<'a>>(
        self,
        row: u32,
        source: &S,
        collector: &mut Self::Collector,
    ) -> Result<(), Reject>;
}

/// One row, or none, or several, as an operator gives them.
///
/// Every record is one row by itself; `Option`, `Vec` and arrays of records are
/// as many as there are in them.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a record, nor several",
    note = "rows are structs with `#[derive(Record)]`, or `Option` or `Vec` of these"
)]
pub trait Outputs<'a> {
    #[doc(hidden)]
    type Row: Record<'a>;
    #[doc(hidden)]
    const AT_MOST_ONE: bool;

    #[doc(hidden)]
    fn each(self, take: impl FnMut(Self::Row));
}

impl<'a, R: Record<'a>> Outputs<'a> for Option<R> {
    type Row = R;
    const AT_MOST_ONE: bool = true;

    #[inline(always)]
    fn each(self, mut take: impl FnMut(R)) {
        if let Some(row) = self {
            take(row);
        }
    }
}

macro_rules! several {
    ($([$($generics:tt)*] $rows:ty;)*) => {$(
        impl<'a, R: Record<'a>, $($generics)*> Outputs<'a> for $rows {
            type Row = R;
            const AT_MOST_ONE: bool = false;

            #[inline]
            fn each(self, take: impl FnMut(R)) {
                self.into_iter().for_each(take);
            }
        }
    )*};
}

several! {
    [] Vec<R>;
    [const N: usize] [R; N];
}

/// Which rows are kept.
#[doc(hidden)]
pub enum Keep {}
/// Rows that can be named as a type.
#[doc(hidden)]
pub enum Give {}
/// Rows of an iterator.
#[doc(hidden)]
pub enum Iterate {}
/// Any of these, unless the row is rejected.
#[doc(hidden)]
pub struct Judge<Form>(PhantomData<Form>);

impl<'a> Answer<'a, Keep> for bool {
    type Collector = Selection;

    #[inline(always)]
    fn give<S: Source<'a>>(
        self,
        row: u32,
        _source: &S,
        selection: &mut Selection,
    ) -> Result<(), Reject> {
        // Writing first and counting then saves a branch that is hard to predict.
        // SAFETY: there is room for all rows, and this is one of them.
        unsafe { selection.rows.as_mut_ptr().add(selection.count).write(row) };
        selection.count += usize::from(self);
        Ok(())
    }
}

impl<'a> Answer<'a, Keep> for () {
    type Collector = Selection;

    #[inline(always)]
    fn give<S: Source<'a>>(
        self,
        row: u32,
        source: &S,
        selection: &mut Selection,
    ) -> Result<(), Reject> {
        Answer::<Keep>::give(true, row, source, selection)
    }
}

impl<'a, O: Outputs<'a>> Answer<'a, Give> for O {
    type Collector = Rows<'a, O::Row>;

    #[inline(always)]
    fn give<S: Source<'a>>(
        self,
        row: u32,
        source: &S,
        rows: &mut Self::Collector,
    ) -> Result<(), Reject> {
        rows.give(self, row, source);
        Ok(())
    }
}

impl<'a, I: Iterator<Item: Record<'a>>> Answer<'a, Iterate> for I {
    type Collector = Rows<'a, I::Item>;

    #[inline]
    fn give<S: Source<'a>>(
        self,
        row: u32,
        source: &S,
        rows: &mut Self::Collector,
    ) -> Result<(), Reject> {
        self.for_each(|output| {
            rows.make_room();
            // SAFETY: there is room for this one.
            unsafe { rows.push(&output, row, source) };
        });
        Ok(())
    }
}

impl<'a, Form, A: Answer<'a, Form>> Answer<'a, Judge<Form>> for Result<A, Reject> {
    type Collector = A::Collector;

    #[inline(always)]
    fn give<S: Source<'a>>(
        self,
        row: u32,
        source: &S,
        collector: &mut Self::Collector,
    ) -> Result<(), Reject> {
        self?.give(row, source, collector)
    }
}

/// What the answers for the rows of a batch add up to.
#[doc(hidden)]
pub trait Collector<'a> {
    const KIND: Kind;

    fn describe() -> Vec<schemas::Field>;
    /// With room for one answer a row.
    fn new<S: Source<'a>>(rows: usize, source: &S) -> Self;
    fn finish(self, inputs: &[Input<'a>]) -> Output;
}

#[doc(hidden)]
pub struct Selection {
    rows: Slots<u32>,
    count: usize,
}

impl<'a> Collector<'a> for Selection {
    const KIND: Kind = Kind::Filter;

    fn describe() -> Vec<schemas::Field> {
        Vec::new()
    }

    #[inline(always)]
    fn new<S: Source<'a>>(capacity: usize, _source: &S) -> Self {
        let mut rows = Slots::default();
        rows.reserve(0, capacity);
        Selection { rows, count: 0 }
    }

    #[inline(always)]
    fn finish(self, _inputs: &[Input<'a>]) -> Output {
        // SAFETY: so many were stored.
        Output::Selection(unsafe { self.rows.into_vec(self.count) })
    }
}

/// Output rows and their parents.
#[doc(hidden)]
pub struct Rows<'a, R: Record<'a>> {
    parents: Slots<u32>,
    columns: R::Writer,
    count: usize,
    capacity: usize,
}

impl<'a, R: Record<'a>> Rows<'a, R> {
    #[inline(always)]
    pub fn with_capacity<S: Source<'a>>(rows: usize, source: &S) -> Self {
        let mut parents = Slots::default();
        let mut columns = R::Writer::default();
        parents.reserve(0, rows);
        columns.offer("", source);
        // SAFETY: no row was written.
        unsafe { columns.reserve(0, rows) };
        Rows {
            parents,
            columns,
            count: 0,
            capacity: rows,
        }
    }

    /// Takes all output rows of one input row. Those that are at most one have
    /// had their room since the beginning.
    #[inline(always)]
    pub fn give<O: Outputs<'a, Row = R>, S: Source<'a>>(
        &mut self,
        outputs: O,
        parent: u32,
        source: &S,
    ) {
        outputs.each(|output| {
            if !O::AT_MOST_ONE {
                self.make_room();
            }
            // SAFETY: there is room for this one.
            unsafe { self.push(&output, parent, source) };
        });
    }

    /// Copies what is still borrowed from what the rows were made of.
    pub fn settle(&mut self) {
        // SAFETY: so many rows were written.
        unsafe { self.columns.settle(self.count) }
    }

    #[inline(always)]
    fn make_room(&mut self) {
        if self.count == self.capacity {
            self.grow();
        }
    }

    #[cold]
    fn grow(&mut self) {
        self.capacity = (2 * self.capacity).max(16);
        self.parents.reserve(self.count, self.capacity);
        // SAFETY: so many rows were written.
        unsafe { self.columns.reserve(self.count, self.capacity) };
    }

    /// # Safety
    /// There is room for one more.
    #[inline(always)]
    unsafe fn push<S: Source<'a>>(&mut self, output: &R, parent: u32, source: &S) {
        let parents = self.parents.as_mut_ptr();
        let origin = Origin {
            source,
            parent,
            parents,
        };
        // SAFETY: parents and columns have the same room, and one is left.
        unsafe {
            output.write(&mut self.columns, self.count, origin);
            parents.add(self.count).write(parent);
        }
        self.count += 1;
    }

    #[inline(always)]
    pub fn finish(self, inputs: &[Input<'a>]) -> answers::Rows {
        let mut columns = Vec::with_capacity(R::COLUMNS);
        // SAFETY: so many rows were written, and their parents are rows of the
        // table that the inputs are columns of.
        let parents = unsafe {
            let parents = self.parents.into_vec(self.count);
            let lineage = Lineage {
                inputs,
                parents: &parents,
            };
            self.columns.finish(self.count, lineage, &mut columns);
            parents
        };
        answers::Rows {
            parents,
            columns: Batch {
                rows: self.count as u32,
                columns,
            },
        }
    }
}

impl<'a, R: Record<'a>> Collector<'a> for Rows<'a, R> {
    const KIND: Kind = Kind::Transform;

    fn describe() -> Vec<schemas::Field> {
        let mut fields = Vec::new();
        R::describe(&mut fields);
        fields
    }

    #[inline(always)]
    fn new<S: Source<'a>>(rows: usize, source: &S) -> Self {
        Rows::with_capacity(rows, source)
    }

    #[inline(always)]
    fn finish(self, inputs: &[Input<'a>]) -> Output {
        Output::Rows(Rows::finish(self, inputs))
    }
}

/// Asks of a function only that it takes a record, to complain of what it takes
/// and of what it gives apart.
#[doc(hidden)]
pub fn taking<'a, P, I, O, F>(transform: F) -> F
where
    P: 'a,
    I: Record<'a>,
    F: Fn(I, &'a P) -> O,
{
    transform
}

/// What the function takes and gives, without calling it.
#[doc(hidden)]
pub fn shape<'a, P, I, O, Form>(_transform: impl Fn(I, &'a P) -> O) -> Shape
where
    P: 'a,
    I: Record<'a>,
    O: Answer<'a, Form>,
{
    let mut input = Vec::new();
    I::describe(&mut input);
    Shape {
        kind: O::Collector::KIND,
        input,
        output: O::Collector::describe(),
        state: Vec::new(),
    }
}

/// Calls the function for each row.
#[doc(hidden)]
#[inline(always)]
pub fn run<'a, P, I, O, Form>(
    table: &'a Table<'_>,
    parameters: &'a P,
    transform: impl Fn(I, &'a P) -> O,
) -> Transformed
where
    I: Record<'a>,
    O: Answer<'a, Form>,
{
    let reader = table.reader::<I>();
    let mut collector = O::Collector::new(table.rows(), &reader);
    let mut rejects = Vec::new();
    for row in 0..table.rows() as u32 {
        // SAFETY: the table has this row.
        let outcome = match unsafe { I::read(&reader, row as usize) } {
            Ok(input) => transform(input, parameters).give(row, &reader, &mut collector),
            Err(unreadable) => Err(unreadable.into()),
        };
        if let Err(reject) = outcome {
            rejects.push(answers::Reject {
                row,
                reason: reject.into_reason(),
            });
        }
    }
    Transformed {
        output: collector.finish(&reader.inputs()),
        rejects,
    }
}

/// What `#[operator]` makes of a function, beside the [`Operator`].
#[doc(hidden)]
pub trait Transform: Operator {
    fn transform(parameters: &Self::Parameters, input: &Batch) -> Transformed;
}

/// A function with its parameters.
#[doc(hidden)]
pub trait TransformInstance {
    fn transform(&self, input: &Batch) -> Transformed;
}

struct WithParameters<T: Transform>(T::Parameters);

impl<T: Transform> TransformInstance for WithParameters<T> {
    fn transform(&self, input: &Batch) -> Transformed {
        T::transform(&self.0, input)
    }
}

#[doc(hidden)]
pub fn open<T: Transform>(parameters: T::Parameters) -> Instance {
    Instance::Transform(Box::new(WithParameters::<T>(parameters)))
}

impl Guest for Opened {
    fn transform(input: Batch) -> Transformed {
        Opened::with(|instance| match instance {
            Instance::Transform(transform) => transform.transform(&input),
            Instance::Aggregate(_) => not_of_kind("transform"),
        })
    }
}

#[cfg(test)]
mod tests;
