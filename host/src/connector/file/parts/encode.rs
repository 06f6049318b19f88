//! Renders the rows of a part as its format says, and compresses them.

use std::fmt;
use std::io;
use std::sync::Arc;

use arrow_array::RecordBatch;
use parquet::arrow::ArrowWriter;
use parquet::errors::ParquetError;

use super::super::encoder::Encoder;
use super::super::opened::Compression;
use super::super::parquet::writer_properties;
use crate::batch::Batch;
use crate::blame::Fault;
use crate::connector::text_rows::{Csv, JsonLines, TextFormat, TextRows};
use crate::format::CsvFormat;
use crate::schema::Schema;
use crate::sink::SinkError;

/// How the rows of all parts are written.
pub(in super::super) enum PartFormat {
    Text {
        format: Box<dyn TextFormat>,
        compression: Compression,
    },
    Parquet {
        schema: Arc<arrow_schema::Schema>,
    },
}

impl PartFormat {
    pub fn json(schema: &Schema, compression: Compression) -> Self {
        PartFormat::Text {
            format: Box::new(JsonLines::new(schema)),
            compression,
        }
    }

    pub fn csv(schema: &Schema, csv: CsvFormat, compression: Compression) -> Self {
        PartFormat::Text {
            format: Box::new(Csv::new(schema, csv)),
            compression,
        }
    }

    pub fn parquet(schema: &Schema) -> Self {
        PartFormat::Parquet {
            schema: Arc::new(schema.to_arrow()),
        }
    }

    /// What each part begins with.
    pub fn head(&self) -> Vec<u8> {
        match self {
            PartFormat::Text { format, .. } => format.head(),
            PartFormat::Parquet { .. } => Vec::new(),
        }
    }

    /// Renders all rows of a batch, if they are text.
    pub fn render(&mut self, batch: &Batch, rows: &mut TextRows) {
        if let PartFormat::Text { format, .. } = self {
            format.write(batch, rows);
        }
    }

    /// For a part, or the rest of one.
    pub fn encoder(&self) -> Result<PartEncoder, EncodeError> {
        Ok(match self {
            PartFormat::Text { compression, .. } => PartEncoder::Text(Encoder::new(*compression)),
            PartFormat::Parquet { schema } => {
                let properties = Some(writer_properties());
                let writer = ArrowWriter::try_new(Vec::new(), schema.clone(), properties)?;
                PartEncoder::Parquet {
                    writer: Some(Box::new(writer)),
                    schema: schema.clone(),
                }
            }
        })
    }
}

/// Writes the rows of one part.
pub(in super::super) enum PartEncoder {
    Text(Encoder),
    Parquet {
        /// Absent once it has ended.
        writer: Option<Box<ArrowWriter<Vec<u8>>>>,
        schema: Arc<arrow_schema::Schema>,
    },
}

/// Why rows cannot be written.
#[derive(Debug)]
pub(in super::super) enum EncodeError {
    Io(io::Error),
    Parquet(ParquetError),
}

impl From<io::Error> for EncodeError {
    fn from(cause: io::Error) -> Self {
        EncodeError::Io(cause)
    }
}

impl From<ParquetError> for EncodeError {
    fn from(cause: ParquetError) -> Self {
        EncodeError::Parquet(cause)
    }
}

impl EncodeError {
    pub fn of_sink(&self, node: &str, what: impl fmt::Display) -> SinkError {
        match self {
            EncodeError::Io(cause) => SinkError::io(node, what, cause),
            EncodeError::Parquet(cause) => {
                SinkError::new(node, format!("{what} as Parquet"), cause, Fault::BUG)
            }
        }
    }
}

impl PartEncoder {
    /// Writes what is no row. Parquet has nothing of the kind.
    pub fn write_text(&mut self, text: &[u8]) -> Result<(), EncodeError> {
        match self {
            PartEncoder::Text(encoder) => Ok(encoder.write(text)?),
            PartEncoder::Parquet { .. } => Ok(()),
        }
    }

    /// Writes as many of these rows as fill so many bytes, and at least one. `text` has all
    /// rows of the batch, if they are text. Returns how many.
    pub fn write(
        &mut self,
        batch: &Batch,
        rows: &[u32],
        text: &TextRows,
        mut room: u64,
    ) -> Result<usize, EncodeError> {
        match self {
            PartEncoder::Text(encoder) => {
                for (count, row) in rows.iter().enumerate() {
                    let row = *row as usize;
                    let start = row.checked_sub(1).map_or(0, |before| text.ends[before]);
                    let bytes = &text.text[start..text.ends[row]];
                    encoder.write(bytes)?;
                    // Compressed ones take less, so that more may follow.
                    room = room.saturating_sub(bytes.len() as u64);
                    if room == 0 {
                        return Ok(count + 1);
                    }
                }
                Ok(rows.len())
            }
            PartEncoder::Parquet { writer, schema } => {
                let Some(writer) = writer else {
                    return Ok(rows.len());
                };
                // What rows take is known once they are written.
                let count = rows.len().min(PARQUET_ROWS);
                let batch = batch.take(&rows[..count]);
                let batch = RecordBatch::try_new(schema.clone(), batch.columns);
                let batch = batch.map_err(ParquetError::from)?;
                writer.write(&batch)?;
                Ok(count)
            }
        }
    }

    /// The bytes that are ready to be written, to be taken from there.
    pub fn output(&mut self) -> Option<&mut Vec<u8>> {
        match self {
            PartEncoder::Text(encoder) => encoder.output(),
            PartEncoder::Parquet { writer, .. } => Some(writer.as_mut()?.inner_mut()),
        }
    }

    /// How many bytes there will be of what is not ready, as far as that is known.
    pub fn bytes_waiting(&self) -> u64 {
        match self {
            PartEncoder::Text(_) => 0,
            PartEncoder::Parquet { writer, .. } => {
                writer.as_ref().map_or(0, |it| it.in_progress_size() as u64)
            }
        }
    }

    /// How much memory rows take that are kept until there are more of them.
    pub fn memory_bytes(&self) -> usize {
        match self {
            PartEncoder::Text(_) => 0,
            PartEncoder::Parquet { writer, .. } => writer.as_ref().map_or(0, |it| it.memory_size()),
        }
    }

    /// Ends a row group, so that its rows leave the memory.
    pub fn end_group(&mut self) -> Result<(), EncodeError> {
        if let PartEncoder::Parquet {
            writer: Some(writer),
            ..
        } = self
        {
            writer.flush()?;
        }
        Ok(())
    }

    /// Ends what is being written, and returns its last bytes. Text may go on behind it.
    pub fn end(&mut self) -> Result<Vec<u8>, EncodeError> {
        match self {
            PartEncoder::Text(encoder) => Ok(encoder.end()?),
            PartEncoder::Parquet { writer, .. } => match writer.take() {
                Some(writer) => Ok(writer.into_inner()?),
                None => Ok(Vec::new()),
            },
        }
    }
}

/// So many rows are written to Parquet before its size is looked at.
const PARQUET_ROWS: usize = 1_024;
