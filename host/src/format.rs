//! The formats of rows in a stream of bytes.

use crate::timestamp::TimestampFormat;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Format {
    Json,
    Csv(CsvFormat),
    /// A row is one value, its bytes or text.
    Raw,
}

impl Format {
    /// As in the config.
    pub fn name(&self) -> &'static str {
        match self {
            Format::Json => "json",
            Format::Csv(_) => "csv",
            Format::Raw => "raw",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CsvFormat {
    /// The first line of each file names the columns; without it the columns
    /// are the fields in order.
    pub header: bool,
    pub delimiter: u8,
}

/// How a row's bytes become columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowFormat {
    pub format: Format,
    /// The format of each timestamp field, depth first through nested records and
    /// lists. Fields after its end may be in any format.
    pub timestamp_formats: Vec<TimestampFormat>,
}

impl From<Format> for RowFormat {
    /// With timestamps in any format.
    fn from(format: Format) -> Self {
        RowFormat {
            format,
            timestamp_formats: Vec::new(),
        }
    }
}
