//! How the host calls one function: columns in, columns out.

use arrow_array::{Array, ArrayRef};
use arrow_buffer::NullBuffer;
use arrow_schema::ArrowError;

/// Rows of several groups, and what the function has kept of these so far.
#[derive(Clone, Copy)]
pub(super) struct Input<'a> {
    /// The field's column; absent for a function of rows.
    pub column: Option<&'a ArrayRef>,
    /// The group of each row.
    pub groups: &'a [u32],
    /// The rows that take others back, ascending; none unless the function can.
    pub taken_back: &'a [u32],
    /// The function's state columns: of the first groups. The others are new.
    pub existing: &'a [ArrayRef],
    pub group_count: usize,
    /// Whether the result after each row is wanted.
    pub each: bool,
}

pub(super) struct Output {
    /// The state columns of all groups.
    pub states: Vec<ArrayRef>,
    /// The result after each row, if wanted.
    pub after: Option<ArrayRef>,
}

/// Why a function has no result.
#[derive(Debug)]
pub(super) enum Problem {
    /// It is larger than its type.
    Overflow,
    Arrow(ArrowError),
    /// A sketch cannot be read, or not be merged.
    Sketch(String),
}

impl From<ArrowError> for Problem {
    fn from(error: ArrowError) -> Self {
        Problem::Arrow(error)
    }
}

/// A function of values of one type. Missing values are skipped.
pub(super) trait Fold: Send + Sync {
    /// Fails with [`Problem::Overflow`] if a row makes a sum too large.
    fn fold(&self, input: Input<'_>) -> Result<Output, Problem>;

    /// Merges the states of each group, in order. `groups` has one entry a state, starts
    /// at 0, never decreases, skips none.
    fn merge(&self, states: &[ArrayRef], groups: &[u32]) -> Result<Vec<ArrayRef>, Problem>;

    /// The results of states.
    fn results(&self, states: &[ArrayRef]) -> Result<ArrayRef, Problem>;

    /// Tells which rows make a sum too large; absent for a function that has no sum.
    fn sums(&self, _: Input<'_>) -> Option<Sums> {
        None
    }
}

/// The sums of groups, row by row.
pub(super) struct Sums {
    /// By how much each row changes the sum; 0 where its value is missing.
    pub values: Vec<i128>,
    /// By group.
    pub sums: Vec<i128>,
    pub least: i128,
    pub most: i128,
}

impl Sums {
    pub fn fits(&self, row: usize, group: usize) -> bool {
        // What does not fit into 128 bits stays out of bounds.
        let sum = self.sums[group].saturating_add(self.values[row]);
        (self.least..=self.most).contains(&sum)
    }

    pub fn add(&mut self, row: usize, group: usize) {
        self.sums[group] += self.values[row];
    }
}

impl<'a> Input<'a> {
    /// The places of missing values, if there are any.
    pub fn nulls(&self) -> Option<&'a NullBuffer> {
        let nulls = self.column?.nulls()?;
        (nulls.null_count() > 0).then_some(nulls)
    }
}

/// How many groups there are.
pub(super) fn count_of(groups: &[u32]) -> usize {
    groups.last().map_or(0, |last| *last as usize + 1)
}
