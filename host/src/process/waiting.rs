//! Rows of a process that wait for the watermark, to be taken in order of event time.

use std::ops::Range;
use std::sync::Arc;

use arrow_array::{ArrayRef, UInt32Array, new_null_array};
use arrow_cmp::make_comparator;
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
///
/// A column is read only of rows that are equal up to there: the first ones usually tell
/// rows apart, and the others may be large.
fn sorted_by_content(handed: &HandedOut<'_>) -> Result<Option<Vec<BufferedRow>>, RowError> {
    let place = |at: usize| (handed.ids[at], handed.rows[at].time_ms);
    let mut ties = runs(handed.rows.len(), |at, next| place(at) == place(next));
    if ties.is_empty() {
        return Ok(None);
    }
    let mut sorted = handed.rows.to_vec();
    for column in 0..=handed.columns.width() {
        let tied = ties.iter().flat_map(|tie| &sorted[tie.clone()]);
        let tied: Vec<BufferedRow> = tied.copied().collect();
        let values: ArrayRef = match column.checked_sub(1) {
            None => Arc::new(
                tied.iter()
                    .map(|row| Some(row.mark))
                    .collect::<UInt32Array>(),
            ),
            Some(column) => {
                let slots: Vec<u32> = tied.iter().map(|row| row.slot).collect();
                handed.columns.gather_column(&slots, column)?
            }
        };
        let compare = make_comparator(&values, &values, SortOptions::default())
            .map_err(|error| RowError::new(format!("a column has no order: {error}")))?;
        let mut first = 0;
        let mut left = Vec::new();
        for tie in ties {
            let mut places: Vec<usize> = (first..first + tie.len()).collect();
            first += tie.len();
            places.sort_by(|&one, &two| compare(one, two));
            for (row, &place) in sorted[tie.clone()].iter_mut().zip(&places) {
                *row = tied[place];
            }
            let equal = runs(tie.len(), |at, next| {
                compare(places[at], places[next]).is_eq()
            });
            left.extend(
                equal
                    .into_iter()
                    .map(|run| tie.start + run.start..tie.start + run.end),
            );
        }
        ties = left;
        if ties.is_empty() {
            break;
        }
    }
    Ok(Some(sorted))
}

/// The runs of two places or more, each of which goes on as long as `is_same` says so of a
/// place and the next one.
fn runs(places: usize, is_same: impl Fn(usize, usize) -> bool) -> Vec<Range<usize>> {
    let mut runs = Vec::new();
    let mut first = 0;
    for end in 1..=places {
        if end < places && is_same(end - 1, end) {
            continue;
        }
        if end - first > 1 {
            runs.push(first..end);
        }
        first = end;
    }
    runs
}

fn pane_of(time_ms: i64) -> i64 {
    time_ms.div_euclid(PANE_MS)
}
