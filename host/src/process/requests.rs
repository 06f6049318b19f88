//! Dead letters of requests, whose answers come in many rows: one letter for each request,
//! without what has been gathered to answer it, which is much larger than what was asked.

use std::sync::Arc;

use crate::batch::Batch;
use crate::json;
use crate::plan::RequestColumns;
use crate::schema::Schema;

/// Which request has its letter. The rows of a request follow one another.
pub(super) struct Requests {
    columns: RequestColumns,
    /// The latest, as JSON. Where a run goes on between the rows of one request, it may
    /// have two letters.
    told: Option<String>,
}

impl Requests {
    pub fn new(columns: RequestColumns) -> Self {
        Requests {
            columns,
            told: None,
        }
    }

    /// The row as the letter of its request shows it; `None` if the request has a letter.
    pub fn letter(&mut self, batch: &Batch, row: usize) -> Option<Batch> {
        let request = json::render_row(&only(batch, row, &self.columns.request), 0);
        if self.told.as_ref() == Some(&request) {
            return None;
        }
        self.told = Some(request);
        Some(only(batch, row, &self.columns.shown))
    }
}

/// These columns of a row.
fn only(batch: &Batch, row: usize, columns: &[usize]) -> Batch {
    let fields = columns.iter().map(|&at| batch.schema.fields[at].clone());
    let values = columns.iter().map(|&at| batch.columns[at].slice(row, 1));
    Batch {
        schema: Arc::new(Schema::new(fields.collect())),
        columns: values.collect(),
        times: batch.times.slice(row, 1),
        watermarks: None,
        taken_back: None,
        origin: None,
    }
}
