//! Calls a function for the rows of a batch. The function's return type decides
//! whether it filters, maps or does both.

use std::marker::PhantomData;

use crate::Reject;
use crate::bindings::exports::sluicebox::plugin::transform::{Guest, Output, Transformed};
use crate::bindings::sluicebox::plugin::columns::Batch;
use crate::bindings::sluicebox::plugin::description::{Kind, Port};
use crate::bindings::sluicebox::plugin::{answers, schemas};
use crate::instance::{Instance, Opened, Shape, TransformInstance, not_of_kind};
use crate::operator::Operator;
use crate::outputs::{OutputRows, Outputs};
use crate::ports::Ports;
use crate::record::{InputColumn, Record, Slots, Source, Table};

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
/// `Form` distinguishes these and is always inferred.
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

/// `bool` and `()`: which rows are kept.
#[doc(hidden)]
pub enum Keep {}
/// Rows whose type is [`Outputs`].
#[doc(hidden)]
pub enum Give {}
/// Rows of an iterator.
#[doc(hidden)]
pub enum Iterate {}
/// Any of these, or a rejection.
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
        // Storing first and counting after saves a branch that is hard to
        // predict.
        // SAFETY: there is space for all rows, and this is one of them.
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
    type Collector = OutputRows<'a, O::Row>;

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
    type Collector = OutputRows<'a, I::Item>;

    #[inline]
    fn give<S: Source<'a>>(
        self,
        row: u32,
        source: &S,
        rows: &mut Self::Collector,
    ) -> Result<(), Reject> {
        self.for_each(|output| {
            rows.make_room();
            // SAFETY: there is space for this row.
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

/// Collects the answers for the rows of a batch.
#[doc(hidden)]
pub trait Collector<'a> {
    const KIND: Kind;

    fn describe() -> Vec<schemas::Field>;
    /// Reserves space for one answer a row.
    fn new<S: Source<'a>>(rows: usize, source: &S) -> Self;
    fn finish(self, inputs: &[InputColumn<'a>]) -> Output;
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
    fn finish(self, _inputs: &[InputColumn<'a>]) -> Output {
        // SAFETY: this many were stored.
        Output::Selection(unsafe { self.rows.into_vec(self.count) })
    }
}

impl<'a, R: Record<'a>> Collector<'a> for OutputRows<'a, R> {
    const KIND: Kind = Kind::Transform;

    fn describe() -> Vec<schemas::Field> {
        let mut fields = Vec::new();
        R::describe(&mut fields);
        fields
    }

    #[inline(always)]
    fn new<S: Source<'a>>(rows: usize, source: &S) -> Self {
        OutputRows::with_capacity(rows, source)
    }

    #[inline(always)]
    fn finish(self, inputs: &[InputColumn<'a>]) -> Output {
        Output::Rows(OutputRows::finish(self, inputs))
    }
}

/// Requires only that a function takes a record, so that errors about its input
/// and its output are reported separately.
#[doc(hidden)]
pub fn with_record<'a, P, I, O, F>(transform: F) -> F
where
    P: 'a,
    I: Record<'a>,
    F: Fn(I, &'a P) -> O,
{
    transform
}

/// The kind and schemas of a function, without calling it.
#[doc(hidden)]
pub fn shape<'a, P, I, O, Form>(_transform: impl Fn(I, &'a P) -> O) -> Shape
where
    P: 'a,
    I: Record<'a>,
    O: Answer<'a, Form>,
{
    let output = Port {
        name: "main".to_owned(),
        schema: O::Collector::describe(),
    };
    Shape {
        kind: O::Collector::KIND,
        inputs: I::describe_ports(),
        outputs: vec![output],
        key: Vec::new(),
        state: Vec::new(),
        retracts: false,
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

/// Implemented by `#[operator]` for functions, besides [`Operator`].
#[doc(hidden)]
pub trait Transform: Operator {
    fn transform(parameters: &Self::Parameters, input: &Batch) -> Transformed;
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
            _ => not_of_kind("transform"),
        })
    }
}

#[cfg(test)]
mod tests;
