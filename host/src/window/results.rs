//! Makes batches of results: key columns, the window's bounds if the pipeline wants
//! them, and the plugin's columns.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use arrow_array::{ArrayRef, StringArray};

use super::changes::{Change, ChangesLayout};
use super::time::Span;
use crate::batch::{Batch, gather, pick, timestamps};
use crate::json::render_row;
use crate::logic::Rows;
use crate::operator::Outbox;
use crate::plan::{MAIN_OUTPUT, Timing};
use crate::schema::Schema;
use crate::state::key::{KeyLayout, KeyTable, Selection};
use crate::state::row::RowError;

/// The layout of results.
pub(super) struct ResultLayout {
    /// Columns of each input edge that the plugin reads.
    pub input_columns: Vec<Vec<usize>>,
    pub key_columns: Vec<Vec<usize>>,
    /// The columns of the key that the plugin reads.
    pub key_read: Vec<usize>,
    /// Key columns, bounds and timing if wanted, the plugin's columns.
    pub schema: Arc<Schema>,
    /// Where changes of results go, if something reads them.
    pub changes: Option<ChangesLayout>,
    /// Whether results have no window.
    pub is_running: bool,
    /// Key columns and the window, for messages.
    pub subject_schema: Arc<Schema>,
    pub bounds: bool,
    pub timing: bool,
    /// As in the plan.
    pub passes_rows: bool,
    pub batch_rows: usize,
}

/// States whose results are due.
#[derive(Clone, Copy)]
pub(super) struct Results<'a> {
    pub slots: &'a [u32],
    pub keys: &'a KeyTable,
    pub ids: Ids<'a>,
    pub spans: Spans<'a>,
    pub timing: Timing,
}

/// The key of each state.
#[derive(Clone, Copy)]
pub(super) enum Ids<'a> {
    /// Keys 0, 1, 2 and so on.
    InOrder,
    Each(&'a [u32]),
}

/// The window of each state.
#[derive(Clone, Copy)]
pub(super) enum Spans<'a> {
    Same(Span),
    Each(&'a [Span]),
}

impl ResultLayout {
    /// A batch of result rows. Their parents count from state `first` of `results`.
    pub fn batch(
        &self,
        layout: &KeyLayout,
        results: Results<'_>,
        first: usize,
        rows: Rows,
        mut starts: Vec<i64>,
        mut ends: Vec<i64>,
    ) -> Result<Batch, RowError> {
        let parents = &rows.parents;
        let each_once = parents.len() == starts.len()
            && parents
                .iter()
                .enumerate()
                .all(|(i, &parent)| parent as usize == i);
        let picked: Vec<u32>;
        let selection = if each_once {
            results.ids.select(first..first + starts.len())
        } else {
            starts = parents
                .iter()
                .map(|&parent| starts[parent as usize])
                .collect();
            ends = parents
                .iter()
                .map(|&parent| ends[parent as usize])
                .collect();
            let states = parents.iter().map(|&parent| first + parent as usize);
            picked = states.map(|state| results.ids.of(state)).collect();
            Selection::Each(&picked)
        };
        let mut columns = results.keys.columns(layout, selection)?;
        let times = ends.iter().map(|end| end.saturating_sub(1)).collect();
        if self.bounds {
            columns.extend([timestamps(starts), timestamps(ends)]);
        }
        if self.timing {
            let names = std::iter::repeat_n(results.timing.name(), rows.parents.len());
            columns.push(Arc::new(StringArray::from_iter_values(names)));
        }
        columns.extend(rows.columns);
        Ok(Batch {
            schema: self.schema.clone(),
            columns,
            times,
            origin: None,
            watermarks: None,
            taken_back: None,
        })
    }

    /// Emits results of states, or their changes.
    pub fn put(&self, batch: Batch, change: Change, out: &mut Outbox) {
        let rows_max = self.batch_rows;
        if let Some(changes) = &self.changes
            && change != Change::Withdrawn
        {
            out.put_in_parts(changes.port, changes.of(batch.clone(), change), rows_max);
        }
        if change != Change::TakenBack {
            out.put_in_parts(MAIN_OUTPUT, batch, rows_max);
        }
    }

    /// Emits result rows whose parents are rows of the batch, or these rows.
    pub fn emit_each(&self, batch: &Batch, edge: usize, rows: Rows, out: &mut Outbox) {
        if rows.parents.is_empty() {
            return;
        }
        if self.passes_rows {
            let passed = batch.take(&rows.parents);
            out.put_in_parts(MAIN_OUTPUT, passed, self.batch_rows);
            return;
        }
        let mut columns = match self.key_columns_of(batch, edge) {
            none if none.is_empty() => none,
            keys => gather(&keys, &rows.parents),
        };
        columns.extend(rows.columns);
        let schema = self.schema.clone();
        let mut batch = batch.derive(schema, columns, &rows.parents);
        batch.taken_back = None;
        out.put_in_parts(MAIN_OUTPUT, batch, self.batch_rows);
    }

    /// The columns of the key of a batch from this edge.
    pub fn key_columns_of(&self, batch: &Batch, edge: usize) -> Vec<ArrayRef> {
        pick(batch, &self.key_columns[edge])
    }

    /// What the plugin reads of the keys of these states.
    pub fn keys_read(
        &self,
        layout: &KeyLayout,
        results: Results<'_>,
        states: Range<usize>,
    ) -> Result<Vec<ArrayRef>, RowError> {
        if self.key_read.is_empty() {
            return Ok(Vec::new());
        }
        let columns = results.keys.columns(layout, results.ids.select(states))?;
        let read = self.key_read.iter().map(|&column| columns[column].clone());
        Ok(read.collect())
    }

    /// The windows of states as the plugin gets them: for a running aggregate, all of time.
    pub fn windows<'a>(
        &self,
        starts: &'a [i64],
        ends: &'a [i64],
    ) -> (Cow<'a, [i64]>, Cow<'a, [i64]>) {
        match self.is_running {
            false => (starts.into(), ends.into()),
            true => (
                vec![i64::MIN; starts.len()].into(),
                vec![i64::MAX; ends.len()].into(),
            ),
        }
    }

    /// A key and its window as JSON.
    pub fn subject(&self, layout: &KeyLayout, keys: &KeyTable, id: u32, span: Span) -> String {
        match keys.columns(layout, Selection::Each(&[id])) {
            Ok(mut columns) => {
                columns.extend([timestamps(vec![span.start]), timestamps(vec![span.end])]);
                let batch = Batch {
                    schema: self.subject_schema.clone(),
                    columns,
                    times: vec![span.end.saturating_sub(1)].into(),
                    origin: None,
                    watermarks: None,
                    taken_back: None,
                };
                render_row(&batch, 0)
            }
            Err(error) => format!("(its key cannot be read: {error})"),
        }
    }
}

impl<'a> Ids<'a> {
    /// The keys of these states.
    fn select(&self, states: Range<usize>) -> Selection<'a> {
        match *self {
            Ids::InOrder => Selection::Range(states),
            Ids::Each(ids) => Selection::Each(&ids[states]),
        }
    }

    pub fn of(&self, state: usize) -> u32 {
        match self {
            Ids::InOrder => state as u32,
            Ids::Each(ids) => ids[state],
        }
    }
}

impl Spans<'_> {
    pub fn at(&self, state: usize) -> Span {
        match self {
            Spans::Same(span) => *span,
            Spans::Each(spans) => spans[state],
        }
    }

    pub fn of(&self, states: Range<usize>) -> (Vec<i64>, Vec<i64>) {
        match self {
            Spans::Same(span) => (vec![span.start; states.len()], vec![span.end; states.len()]),
            Spans::Each(spans) => {
                let spans = &spans[states];
                (
                    spans.iter().map(|span| span.start).collect(),
                    spans.iter().map(|span| span.end).collect(),
                )
            }
        }
    }
}
