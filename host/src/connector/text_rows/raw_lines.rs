//! Renders rows of one field, which is a text or bytes. Null is empty.

use arrow_array::Array;
use arrow_array::cast::AsArray;
use arrow_schema::DataType as ArrowType;

use super::{TextFormat, TextRows};
use crate::batch::Batch;
use crate::text::write_text;

pub struct RawLines;

impl TextFormat for RawLines {
    fn head(&self) -> Vec<u8> {
        Vec::new()
    }

    fn write(&mut self, batch: &Batch, rows: &mut TextRows) {
        let column = &batch.columns[0];
        for row in 0..batch.rows() {
            match column.data_type() {
                ArrowType::Binary if column.is_valid(row) => {
                    let bytes = column.as_binary::<i32>().value(row);
                    rows.text.extend_from_slice(bytes);
                }
                _ => {
                    write_text(&mut rows.text, column, row);
                }
            }
            rows.end_row();
        }
    }
}
