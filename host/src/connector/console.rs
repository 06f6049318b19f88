//! The sink `console`: prints rows as an aligned table on standard output.
//!
//! The header is printed once, and again when another sink has printed in
//! between or a column has become wider. Wide values are cut.

use std::io::{self, ErrorKind, LineWriter, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use comfy_table::{CellAlignment, ColumnConstraint, Width, presets};
use serde_json::json;
use toml::Spanned;

use crate::batch::Batch;
use crate::blame::Fault;
use crate::checkpoint::snapshot::SinkSnapshot;
use crate::config::diagnostics::Diagnostics;
use crate::config::reader::Table;
use crate::connector::{Description, Planning};
use crate::devices::StandardOutput;
use crate::element::CheckpointId;
use crate::files::FileUser;
use crate::paths::STANDARD_OUTPUT;
use crate::plan::state::Delivery;
use crate::schema::Schema;
use crate::sink::{Ending, Sink, SinkConnector, SinkContext, SinkError, SinkKind, SinkSettings};
use crate::text::{push_printable, write_text};

pub const KIND: SinkKind = SinkKind {
    name: "console",
    read,
};

/// How many rows are printed.
#[derive(Clone, Debug)]
pub struct ConsoleSink {
    pub rows_max: Option<u64>,
}

fn read(table: &mut Table<'_>, mistakes: &mut Diagnostics) -> Option<Box<dyn SinkSettings>> {
    let rows = table
        .optional("rows")
        .and_then(|value| value.integer(1..=i64::MAX, mistakes));
    let rows_max = rows.map(|rows| Spanned::into_inner(rows) as u64);
    Some(Box::new(ConsoleSink { rows_max }))
}

impl SinkSettings for ConsoleSink {
    fn plan(
        &self,
        _: Option<&Schema>,
        planning: &mut Planning<'_>,
    ) -> Option<Box<dyn SinkConnector>> {
        let user = FileUser {
            what: format!("{} prints to it", planning.title),
            place: None,
        };
        planning.files.prints(user, Path::new(STANDARD_OUTPUT));
        Some(Box::new(self.clone()))
    }
}

impl SinkConnector for ConsoleSink {
    fn describe(&self) -> Description {
        let shown = self.rows_max.map(|rows| format!("at most {rows} rows"));
        Description {
            connector: KIND.name,
            lines: shown.into_iter().collect(),
            settings: json!({ "rows_max": self.rows_max }),
            ..Description::default()
        }
    }

    fn writes_stdout(&self) -> bool {
        true
    }

    /// A row that was printed cannot be taken back.
    fn delivery(&self) -> Delivery {
        Delivery::AtLeastOnce
    }

    fn open(
        &self,
        node: &str,
        schema: &Arc<Schema>,
        context: &SinkContext,
    ) -> Result<Box<dyn Sink>, SinkError> {
        let output = StandardOutput::new(context.stop.clone());
        let output = output.map_err(|cause| error(node, cause))?;
        let output = Box::new(LineWriter::new(output));
        let console = Console::with_output(node, schema, self.rows_max, output);
        Ok(Box::new(console))
    }
}

/// Longer values are cut.
const CELL_CHARS_MAX: usize = 40;

/// How many rows are collected at most before they are aligned and printed.
const ROWS_KEPT_MAX: usize = 1_000;

/// Spaces between two columns.
const GAP: u16 = 2;

/// The last header that was printed: the sinks of all pipelines of the process
/// share the screen.
static LAST: Mutex<Option<String>> = Mutex::new(None);

pub struct Console {
    node: String,
    schema: Arc<Schema>,
    rows_max: Option<u64>,
    /// Rows that came, printed or not.
    rows: u64,
    /// Rows to print at the next flush.
    kept: Vec<Vec<String>>,
    /// The widest value of each column so far.
    widths: Vec<u16>,
    output: Box<dyn Write + Send>,
}

impl Console {
    pub fn with_output(
        node: &str,
        schema: &Arc<Schema>,
        rows_max: Option<u64>,
        output: Box<dyn Write + Send>,
    ) -> Self {
        Console {
            node: node.to_owned(),
            schema: schema.clone(),
            rows_max,
            rows: 0,
            kept: Vec::new(),
            widths: vec![0; schema.fields.len()],
            output,
        }
    }

    fn show(&mut self) -> io::Result<()> {
        if self.kept.is_empty() {
            return Ok(());
        }
        let mut table = comfy_table::Table::new();
        table.load_style(presets::NOTHING);
        table.force_no_tty();
        table.set_header(
            self.schema
                .fields
                .iter()
                .map(|field| printable(&field.name)),
        );
        table.add_rows(self.kept.drain(..));
        let widths = table.column_max_content_widths();
        for (old, new) in self.widths.iter_mut().zip(widths) {
            *old = new.max(*old);
        }
        let columns = table.column_iter_mut().zip(&self.schema.fields);
        for ((column, field), &width) in columns.zip(&self.widths) {
            column.set_padding((0, GAP));
            column.set_constraint(ColumnConstraint::Absolute(Width::Fixed(width + GAP)));
            if field.data_type.is_number() {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
        let mut lines = table.lines();
        let columns = lines.next().unwrap_or_default();
        let header = format!("[{}]\n{}", self.node, columns.trim_end());
        if last.as_ref() != Some(&header) {
            writeln!(self.output, "\n{header}")?;
            *last = Some(header);
        }
        for line in lines {
            writeln!(self.output, "{}", line.trim_end())?;
        }
        self.output.flush()
    }

    fn show_rest(&mut self) -> io::Result<()> {
        self.show()?;
        let hidden = self.rows.saturating_sub(self.rows_max.unwrap_or(u64::MAX));
        if hidden > 0 {
            let rows = if hidden == 1 { "row" } else { "rows" };
            writeln!(self.output, "… and {hidden} more {rows} of {}", self.node)?;
        }
        self.output.flush()
    }

    fn error(&self, cause: io::Error) -> SinkError {
        error(&self.node, cause)
    }
}

fn error(node: &str, cause: io::Error) -> SinkError {
    let what = "to standard output";
    match cause.kind() {
        ErrorKind::BrokenPipe => SinkError::reader_is_gone(node, what),
        // It was redirected to a file.
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => SinkError::io(node, what, &cause),
        // A terminal that is gone does not come back.
        _ => SinkError::new(node, what, cause, Fault::OUTSIDE_LASTING),
    }
}

impl Sink for Console {
    fn write(&mut self, batch: &Batch) -> Result<(), SinkError> {
        for row in 0..batch.rows() {
            self.rows += 1;
            if self.rows_max.is_some_and(|rows_max| self.rows > rows_max) {
                continue;
            }
            let cells = batch.columns.iter().map(|column| {
                let mut text = Vec::new();
                write_text(&mut text, column, row);
                printable(&String::from_utf8_lossy(&text))
            });
            self.kept.push(cells.collect());
            if self.kept.len() >= ROWS_KEPT_MAX {
                self.flush()?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        let shown = self.show();
        shown.map_err(|cause| self.error(cause))
    }

    fn barrier(&mut self, _: CheckpointId) -> Result<SinkSnapshot, SinkError> {
        self.flush()?;
        Ok(SinkSnapshot::default())
    }

    fn finish(&mut self, _: Ending) -> Result<(), SinkError> {
        let shown = self.show_rest();
        shown.map_err(|cause| self.error(cause))
    }
}

/// Cuts long text, and escapes what would move the cursor: a row's text may
/// come from anybody.
fn printable(text: &str) -> String {
    let mut printable = String::new();
    for (count, character) in text.chars().enumerate() {
        if count == CELL_CHARS_MAX {
            printable.push('…');
            break;
        }
        push_printable(&mut printable, character);
    }
    printable
}
