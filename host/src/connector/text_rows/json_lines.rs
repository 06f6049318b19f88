//! Renders rows as JSON, one a line.

use super::{TextFormat, TextRows};
use crate::batch::Batch;
use crate::json::JsonColumns;
use crate::schema::Schema;

pub struct JsonLines {
    names: Vec<String>,
}

impl JsonLines {
    pub fn new(schema: &Schema) -> Self {
        let names = schema.fields.iter().map(|field| field.name.clone());
        JsonLines {
            names: names.collect(),
        }
    }
}

impl TextFormat for JsonLines {
    fn head(&self) -> Vec<u8> {
        Vec::new()
    }

    fn write(&mut self, batch: &Batch, rows: &mut TextRows) {
        let names = self.names.iter().map(String::as_str);
        let columns = JsonColumns::new(names.zip(&batch.columns));
        for row in 0..batch.rows() {
            columns.write(&mut rows.text, row);
            rows.end_row();
        }
    }
}
