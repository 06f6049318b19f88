//! What an operator gives: rows, each with the input row that it is made from.

use crate::bindings::sluicebox::plugin::answers;
use crate::bindings::sluicebox::plugin::columns::Batch;
use crate::record::{Input, Lineage, Origin, Record, Slots, Source, Writer};

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
    pub fn make_room(&mut self) {
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
    pub unsafe fn push<S: Source<'a>>(&mut self, output: &R, parent: u32, source: &S) {
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
