//! Tells what becomes of results: each one that is replaced or gone is taken back, before
//! the one in its place comes.
//!
//! What a window told last of a key is not kept: it is the result of the state that the
//! key had before the rows that change it.

use std::sync::Arc;

use arrow_array::{Array, ArrayRef};
use arrow_buffer::BooleanBuffer;
use arrow_schema::ArrowError;
use arrow_select::interleave::interleave;

use crate::batch::Batch;
use crate::logic::Rows;
use crate::schema::Schema;

/// Where changes of results go.
pub(super) struct ChangesLayout {
    /// The output.
    pub port: usize,
    /// That of results, without their timing.
    pub schema: Arc<Schema>,
    /// The column of results that is left out.
    pub timing: Option<usize>,
}

/// Whether results are told, or taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Told,
    TakenBack,
    /// Only who reads results, and not their changes, is told.
    Withdrawn,
}

impl ChangesLayout {
    /// A batch of results as changes.
    pub fn of(&self, mut results: Batch, change: Change) -> Batch {
        if let Some(column) = self.timing {
            results.columns.remove(column);
        }
        results.schema = self.schema.clone();
        let rows = results.rows();
        results.taken_back = match change {
            Change::Told | Change::Withdrawn => None,
            Change::TakenBack => Some(BooleanBuffer::new_set(rows)),
        };
        results
    }
}

/// The results after each row of a batch, with those that they replace.
pub(super) struct Replaced {
    /// The columns of results.
    pub columns: Vec<ArrayRef>,
    /// The row of the batch that each is because of, and its time: that of the row, or when
    /// a state expired.
    pub rows: Vec<u32>,
    pub times: Vec<i64>,
    pub taken_back: BooleanBuffer,
}

/// What there was before the rows of a batch.
pub(super) struct Before<'a> {
    /// Results of groups, in their order: what each group told before the batch.
    pub told: Rows,
    /// Groups that begin in the batch, each with the place in `gone` of the state that it
    /// takes the place of, in order of groups.
    pub after: &'a [(u32, u32)],
    /// Results of states that expired, by their places, and when they did.
    pub gone: Rows,
    pub gone_ms: &'a [i64],
}

/// Finds what is taken back. `groups` has the group of each row, `times` its time, `each`
/// the results after each row that was not lost, which `is_lost` tells.
pub(super) fn replaced(
    (groups, times): (&[u32], &[i64]),
    each: &Rows,
    before: &Before<'_>,
    is_lost: impl Fn(u32) -> bool,
) -> Result<Replaced, ArrowError> {
    const EACH: usize = 0;
    const TOLD: usize = 1;
    const GONE: usize = 2;
    let group_count = groups.iter().max().map_or(0, |last| *last as usize + 1);
    // What each group has told last: of whose rows, and which.
    let mut last = vec![(TOLD, 0..0); group_count];
    for (group, last) in last.iter_mut().enumerate() {
        last.1 = of_parent(&before.told.parents, group as u32);
    }
    for &(group, place) in before.after {
        last[group as usize] = (GONE, of_parent(&before.gone.parents, place));
    }
    // When the state expired that a group takes the place of.
    let expired_ms = |group: u32| {
        let found = before
            .after
            .binary_search_by_key(&group, |(group, _)| *group);
        let (_, place) = before.after[found.ok()?];
        Some(before.gone_ms[place as usize])
    };
    let mut picks: Vec<(usize, usize)> = Vec::new();
    let mut rows = Vec::new();
    let mut changed_ms = Vec::new();
    let mut taken_back = Vec::new();
    for (row, &group) in (0..).zip(groups) {
        let (of, told) = last[group as usize].clone();
        let expired_ms = expired_ms(group).filter(|_| of == GONE);
        if is_lost(row) && expired_ms.is_none() {
            continue;
        }
        picks.extend(told.map(|at| (of, at)));
        taken_back.resize(picks.len(), true);
        let row_ms = times[row as usize];
        changed_ms.resize(picks.len(), expired_ms.unwrap_or(row_ms));
        let now = of_parent(&each.parents, row);
        picks.extend(now.clone().map(|at| (EACH, at)));
        taken_back.resize(picks.len(), false);
        changed_ms.resize(picks.len(), row_ms);
        rows.resize(picks.len(), row);
        last[group as usize] = (EACH, now);
    }
    let columns = (0..each.columns.len()).map(|column| {
        let of = [&each.columns, &before.told.columns, &before.gone.columns];
        let of = of.map(|columns| columns[column].as_ref() as &dyn Array);
        interleave(&of, &picks)
    });
    Ok(Replaced {
        columns: columns.collect::<Result<_, _>>()?,
        rows,
        times: changed_ms,
        taken_back: taken_back.into(),
    })
}

/// The rows of one parent; parents never decrease.
fn of_parent(parents: &[u32], parent: u32) -> std::ops::Range<usize> {
    let start = parents.partition_point(|&it| it < parent);
    start..start + parents[start..].partition_point(|&it| it == parent)
}
