//! Rows of a process that wait for the watermark, to be taken in order of event time.

use std::cmp::Ordering;
use std::ops::Range;
use std::sync::Arc;

use arrow_array::{ArrayRef, new_null_array};
use arrow_cmp::{DynComparator, make_comparator};
use arrow_schema::SortOptions;

use super::tables::waiting_rows;
use crate::batch::Batch;
use crate::logic::Port;
use crate::plan::Ties;
use crate::schema::Schema;
use crate::state::error::StateError;
use crate::state::key::{BatchKeys, KeyLayout, Selection};
use crate::state::row::RowError;
use crate::state::rows::{BufferedRow, HandedOut, HandsOut, NewRows, RowBuffer};
use crate::state::stored::StoredTable;
use crate::state::table::StateTable;

/// How long a pane of the buffer is; a part of the format.
const PANE_MS: i64 = 60_000;

pub(super) struct Waiting {
    pub buffer: RowBuffer,
    pub schema: Arc<Schema>,
    /// The columns of each input.
    pub columns: Vec<Range<usize>>,
    ties: Ties,
}

/// Rows whose time has come: those of a key follow one another, in order of time.
pub(super) struct DueRows {
    pub batch: Batch,
    pub key: Vec<ArrayRef>,
    /// The input of each row.
    pub ports: Vec<u32>,
}

impl Waiting {
    pub fn new(
        inputs: &[Port],
        layout: KeyLayout,
        stored: Option<StoredTable>,
        ties: Ties,
    ) -> Self {
        let schema = waiting_rows(inputs);
        let mut start = 0;
        let range = |port: &Port| {
            let first = start;
            start += port.schema.fields.len();
            first..start
        };
        Waiting {
            buffer: RowBuffer::new(&schema, layout, stored, HandsOut::All, PANE_MS),
            columns: inputs.iter().map(range).collect(),
            ties,
            schema: Arc::new(schema),
        }
    }

    /// Adds the rows of a batch that came by an input. `read` are the columns that the
    /// operator reads of it.
    pub fn insert(
        &mut self,
        keys: &mut BatchKeys,
        key: Vec<ArrayRef>,
        batch: &Batch,
        port: usize,
        read: &[usize],
    ) -> Result<(), StateError> {
        let rows = batch.rows();
        let own = &self.columns[port];
        let fields = self.schema.fields.iter().enumerate();
        let columns = fields.map(|(at, field)| match own.contains(&at) {
            true => batch.columns[read[at - own.start]].clone(),
            false => new_null_array(&field.data_type.to_arrow(), rows),
        });
        let columns: Vec<ArrayRef> = columns.collect();
        let panes: Vec<i64> = batch
            .times
            .iter()
            .map(|&time_ms| pane_of(time_ms))
            .collect();
        keys.read(key, rows, |row| row > 0 && panes[row] != panes[row - 1])?;
        let new = NewRows {
            panes: &panes,
            times: &batch.times,
            marks: &vec![port as u32; rows],
            columns: &columns,
        };
        self.buffer.insert(keys, new)?;
        self.buffer.evict_excess();
        Ok(())
    }

    /// Hands out the next rows before the watermark, in batches of at most `batch_rows`, and
    /// forgets them. Returns whether there may be more.
    pub fn pass<E: From<StateError>>(
        &mut self,
        layout: &KeyLayout,
        watermark_ms: i64,
        batch_rows: usize,
        bytes_max: usize,
        mut take: impl FnMut(DueRows) -> Result<(), E>,
    ) -> Result<bool, E> {
        let Some(up_to_ms) = watermark_ms.checked_sub(1) else {
            return Ok(false);
        };
        let last_pane = pane_of(up_to_ms);
        let schema = self.schema.clone();
        let ties = self.ties;
        let has_several_inputs = self.columns.len() > 1;
        let is_over = |pane| pane < pane_of(watermark_ms);
        self.buffer
            .pass_piece(up_to_ms, last_pane, is_over, |handed| {
                let sorted = match ties {
                    Ties::Arrival => has_several_inputs.then(|| by_input(handed.ids, handed.rows)),
                    Ties::Content => sorted_by_content(&handed).map_err(StateError::from)?,
                };
                let handed = HandedOut {
                    rows: sorted.as_deref().unwrap_or(handed.rows),
                    ..handed
                };
                let mut first = 0;
                while first < handed.rows.len() {
                    let last = (first + batch_rows).min(handed.rows.len());
                    let rows = handed.rows[first..last].iter();
                    let slots: Vec<u32> = rows.map(|row| row.slot).collect();
                    let last = first + handed.columns.fit(&slots, bytes_max);
                    take(due_rows(&schema, layout, &handed, first..last)?)?;
                    first = last;
                }
                Ok(())
            })
    }
}

/// The rows of each key by time, and by input where that is the same: which input is
/// faster must not matter. Those of one input stay as they came.
fn by_input(ids: &[u32], rows: &[BufferedRow]) -> Vec<BufferedRow> {
    let mut sorted = rows.to_vec();
    let mut rest = &mut sorted[..];
    for of_key in ids.chunk_by(|id, next| id == next) {
        let (rows, others) = rest.split_at_mut(of_key.len());
        rows.sort_by_key(|row| (row.time_ms, row.mark));
        rest = others;
    }
    sorted
}

fn due_rows(
    schema: &Arc<Schema>,
    layout: &KeyLayout,
    handed: &HandedOut<'_>,
    part: Range<usize>,
) -> Result<DueRows, StateError> {
    let rows = &handed.rows[part.clone()];
    let slots: Vec<u32> = rows.iter().map(|row| row.slot).collect();
    let times: Vec<i64> = rows.iter().map(|row| row.time_ms).collect();
    let key = Selection::Each(&handed.ids[part]);
    Ok(DueRows {
        batch: Batch {
            schema: schema.clone(),
            columns: handed.columns.gather(&slots)?,
            // A timer comes before a row of its time.
            watermarks: Some(times.clone().into()),
            taken_back: None,
            times: times.into(),
            origin: None,
        },
        key: handed.keys.columns(layout, key)?,
        ports: rows.iter().map(|row| row.mark).collect(),
    })
}

/// The rows with those of the same key and time in order of their input and columns; `None`
/// if no two have the same.
fn sorted_by_content(handed: &HandedOut<'_>) -> Result<Option<Vec<BufferedRow>>, RowError> {
    let is_tie = |one: usize, two: usize| {
        handed.ids[one] == handed.ids[two] && handed.rows[one].time_ms == handed.rows[two].time_ms
    };
    let mut ties: Vec<Range<usize>> = Vec::new();
    let mut first = 0;
    while first < handed.rows.len() {
        let rest = first + 1..handed.rows.len();
        let end = rest.clone().find(|&row| !is_tie(first, row));
        let end = end.unwrap_or(rest.end);
        if end - first > 1 {
            ties.push(first..end);
        }
        first = end;
    }
    if ties.is_empty() {
        return Ok(None);
    }
    let tied: Vec<BufferedRow> = ties
        .iter()
        .flat_map(|tie| &handed.rows[tie.clone()])
        .copied()
        .collect();
    let order = content_order(handed.columns, &tied)?;
    let mut sorted = handed.rows.to_vec();
    let mut at = 0;
    for tie in ties {
        let mut places: Vec<usize> = (at..at + tie.len()).collect();
        at += tie.len();
        places.sort_by(|&one, &two| order(one, two));
        for (row, place) in sorted[tie].iter_mut().zip(places) {
            *row = tied[place];
        }
    }
    Ok(Some(sorted))
}

/// Compares rows by their input, then by their columns, given their places.
fn content_order<'r>(
    columns: &StateTable,
    rows: &'r [BufferedRow],
) -> Result<impl Fn(usize, usize) -> Ordering + 'r, RowError> {
    let slots: Vec<u32> = rows.iter().map(|row| row.slot).collect();
    let columns = columns.gather(&slots)?;
    let comparator = |column: &ArrayRef| {
        let comparator = make_comparator(column, column, SortOptions::default());
        comparator.map_err(|error| RowError::new(format!("a column has no order: {error}")))
    };
    let comparators = columns.iter().map(comparator);
    let comparators: Vec<DynComparator> = comparators.collect::<Result<_, _>>()?;
    Ok(move |one: usize, two: usize| {
        let by_columns = || {
            let mut orders = comparators.iter().map(|compare| compare(one, two));
            orders
                .find(|order| order.is_ne())
                .unwrap_or(Ordering::Equal)
        };
        rows[one].mark.cmp(&rows[two].mark).then_with(by_columns)
    })
}

fn pane_of(time_ms: i64) -> i64 {
    time_ms.div_euclid(PANE_MS)
}
