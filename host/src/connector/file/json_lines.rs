//! Writes rows as JSON, one a line.

use std::sync::Arc;

use super::part::Part;
use crate::batch::Batch;
use crate::checkpoint::snapshot::SinkSnapshot;
use crate::element::CheckpointId;
use crate::json::JsonColumns;
use crate::schema::Schema;
use crate::sink::{Sink, SinkError};

pub(super) struct JsonLines {
    part: Part,
    names: Vec<String>,
    text: Vec<u8>,
}

impl JsonLines {
    pub fn new(part: Part, schema: &Arc<Schema>) -> Self {
        JsonLines {
            part,
            names: schema
                .fields
                .iter()
                .map(|field| field.name.clone())
                .collect(),
            text: Vec::new(),
        }
    }
}

impl Sink for JsonLines {
    fn write(&mut self, batch: &Batch) -> Result<(), SinkError> {
        self.text.clear();
        let names = self.names.iter().map(String::as_str);
        let rows = JsonColumns::new(names.zip(&batch.columns));
        for row in 0..batch.rows() {
            rows.write(&mut self.text, row);
            self.text.push(b'\n');
        }
        self.part.write(&self.text)
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        self.part.flush()
    }

    fn barrier(&mut self, _: CheckpointId) -> Result<SinkSnapshot, SinkError> {
        self.part.keep()
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        self.part.finish()
    }
}
