//! Collects output rows, each with its parent: the input row that it was made
//! from.

use crate::bindings::sluicebox::plugin::answers;
use crate::bindings::sluicebox::plugin::columns::Batch;
use crate::record::{InputColumn, Lineage, Origin, Record, Slots, Source, Writer};

/// Zero or more output rows, as an operator returns them.
///
/// A record is one row; `Option`, `Vec` and arrays of records are as many rows
/// as they have elements.
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
pub struct OutputRows<'a, R: Record<'a>> {
    parents: Slots<u32>,
    columns: R::Writer,
    count: usize,
    capacity: usize,
}

impl<'a, R: Record<'a>> OutputRows<'a, R> {
    #[inline(always)]
    pub fn with_capacity<S: Source<'a>>(rows: usize, source: &S) -> Self {
        let mut parents = Slots::default();
        let mut columns = R::Writer::default();
        parents.reserve(0, rows);
        columns.offer("", source);
        // SAFETY: no row was written.
        unsafe { columns.reserve(0, rows) };
        OutputRows {
            parents,
            columns,
            count: 0,
            capacity: rows,
        }
    }

    /// Adds all output rows of one input row. Where there is at most one, its
    /// space was reserved at the start.
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

    /// Copies what the rows still borrow.
    pub fn settle(&mut self) {
        // SAFETY: this many rows were written.
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
        // SAFETY: this many rows were written.
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
        // SAFETY: parents and columns have the same capacity, and space for one
        // row is left.
        unsafe {
            output.write(&mut self.columns, self.count, origin);
            parents.add(self.count).write(parent);
        }
        self.count += 1;
    }

    #[inline(always)]
    pub fn finish(self, inputs: &[InputColumn<'a>]) -> answers::Rows {
        let mut columns = Vec::with_capacity(R::COLUMNS);
        // SAFETY: this many rows were written, and their parents are rows of
        // the table that the inputs belong to.
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
