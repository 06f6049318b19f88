//! Rows as text, each in its line.

/// Comma-separated values.
mod csv;
/// JSON, a row a line.
mod json_lines;
/// A text or bytes, as they are.
mod raw_lines;

use crate::batch::Batch;

pub use self::csv::Csv;
pub use self::json_lines::JsonLines;
pub use self::raw_lines::RawLines;

/// How a text format renders rows.
pub trait TextFormat: Send {
    /// What is written above all rows.
    fn head(&self) -> Vec<u8>;

    /// Appends the rows of a batch.
    fn write(&mut self, batch: &Batch, rows: &mut TextRows);
}

/// Rows as text.
#[derive(Default)]
pub struct TextRows {
    pub text: Vec<u8>,
    /// Where each row ends in the text.
    pub ends: Vec<usize>,
}

impl TextRows {
    /// Ends a row, and its line.
    pub fn end_row(&mut self) {
        self.text.push(b'\n');
        self.ends.push(self.text.len());
    }

    pub fn clear(&mut self) {
        self.text.clear();
        self.ends.clear();
    }
}
