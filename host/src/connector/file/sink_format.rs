//! The formats of files that are written.

use super::opened::Compression;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SinkFormat {
    Json,
    Csv,
    Parquet,
}

impl SinkFormat {
    /// Its name in the config.
    pub fn name(self) -> &'static str {
        match self {
            SinkFormat::Json => "json",
            SinkFormat::Csv => "csv",
            SinkFormat::Parquet => "parquet",
        }
    }

    /// With its compression: a file goes on as it was begun.
    pub fn compressed_name(self, compression: Compression) -> &'static str {
        match (self, compression) {
            (SinkFormat::Json, Compression::Gzip) => "json, gzip",
            (SinkFormat::Json, Compression::Zstd) => "json, zstd",
            (SinkFormat::Csv, Compression::Gzip) => "csv, gzip",
            (SinkFormat::Csv, Compression::Zstd) => "csv, zstd",
            (format, _) => format.name(),
        }
    }
}

/// As `format` names them.
pub const SINK_FORMATS: &[(&str, SinkFormat)] = &[
    ("json", SinkFormat::Json),
    ("csv", SinkFormat::Csv),
    ("parquet", SinkFormat::Parquet),
];
