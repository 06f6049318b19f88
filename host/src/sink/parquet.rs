//! Writes rows as Parquet, compressed with zstd.

use std::fs::File;
use std::sync::Arc;

use arrow_array::RecordBatch;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;

use super::file::Part;
use super::{Sink, SinkError};
use crate::batch::Batch;
use crate::schema::Schema;

/// Rows are kept in memory until a group of them is so large.
const GROUP_BYTES: usize = 64 << 20;

pub(super) struct Parquet {
    part: Part,
    schema: Arc<arrow_schema::Schema>,
    /// Gone when it is finished.
    writer: Option<ArrowWriter<File>>,
}

impl Parquet {
    pub fn new(part: Part, schema: &Arc<Schema>) -> Result<Self, SinkError> {
        let schema = Arc::new(schema.to_arrow());
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .build();
        let file = part.file().map_err(|cause| part.error(cause))?;
        let writer = ArrowWriter::try_new(file, schema.clone(), Some(properties));
        Ok(Parquet {
            writer: Some(writer.map_err(|cause| error(&part, cause))?),
            part,
            schema,
        })
    }

    fn try_write(&mut self, batch: &Batch) -> Result<(), ParquetError> {
        let rows = RecordBatch::try_new(self.schema.clone(), batch.columns.clone())?;
        if let Some(writer) = &mut self.writer {
            writer.write(&rows)?;
            if writer.in_progress_size() > GROUP_BYTES {
                writer.flush()?;
            }
        }
        Ok(())
    }
}

impl Sink for Parquet {
    fn write(&mut self, batch: &Batch) -> Result<(), SinkError> {
        let written = self.try_write(batch);
        written.map_err(|cause| error(&self.part, cause))
    }

    /// Nothing: a Parquet file cannot be read before it is finished, and small
    /// groups of rows make it large and slow.
    fn flush(&mut self) -> Result<(), SinkError> {
        Ok(())
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        if let Some(writer) = self.writer.take() {
            writer.close().map_err(|cause| error(&self.part, cause))?;
        }
        self.part.finish()
    }
}

fn error(part: &Part, cause: ParquetError) -> SinkError {
    SinkError::Parquet {
        node: part.node().to_owned(),
        path: part.path().to_owned(),
        cause,
    }
}
