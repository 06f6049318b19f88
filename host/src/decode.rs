//! Decides what a row's bytes say: columns by the source's schema, or one
//! sentence about why not. A bad row costs its neighbours nothing.

/// Columns under construction.
mod column;
/// Rows as comma-separated values.
mod csv;
/// Why a row is bad.
mod fault;
/// Rows as JSON.
mod json;
/// Rows that are one value.
mod raw;

use arrow_array::ArrayRef;

pub(crate) use self::csv::quoted_length;
use self::fault::Fault;
use crate::format::Format;
use crate::schema::Schema;
use crate::timestamp::TimestampFormat;

/// Decodes blocks of rows, one after the other. What a block decodes to does
/// not depend on the blocks before it; only the speed does.
#[derive(Clone, Debug)]
pub struct Decoder(FormatRows);

/// Rows under construction.
#[derive(Clone, Debug)]
enum FormatRows {
    Json(json::JsonRows),
    Csv(csv::CsvRows),
    Raw(raw::RawRows),
}

/// A block's good rows as columns, and its bad rows.
#[derive(Debug)]
pub struct Decoded {
    pub columns: Vec<ArrayRef>,
    /// How many rows the columns have; a schema may be empty.
    pub rows: usize,
    /// Ascending by row.
    pub bad: Vec<UndecodedRow>,
}

/// A row that is not what the schema says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UndecodedRow {
    /// Place among the rows that were given.
    pub row: u32,
    /// What was expected where, and what was found.
    pub error: String,
}

impl Decoder {
    /// `timestamps` are the formats of the schema's timestamps, depth first;
    /// those that are not given are [`TimestampFormat::Any`].
    pub fn new(format: &Format, schema: &Schema, timestamps: &[TimestampFormat]) -> Self {
        Decoder(match format {
            Format::Json => FormatRows::Json(json::JsonRows::new(schema, timestamps)),
            Format::Csv(csv) => {
                FormatRows::Csv(csv::CsvRows::new(csv.delimiter, schema, timestamps))
            }
            Format::Raw => FormatRows::Raw(raw::RawRows::new(schema)),
        })
    }

    /// Reads the line that names the columns and tells how many it names.
    /// Formats that name their fields in each row have none and ignore it.
    pub fn read_header(&mut self, line: &[u8]) -> Result<usize, String> {
        match &mut self.0 {
            FormatRows::Json(_) | FormatRows::Raw(_) => Ok(0),
            FormatRows::Csv(csv) => csv.read_header(line),
        }
    }

    /// Decodes the rows `data[start..end]`, at most 1 GiB together. Spans
    /// ascend and do not overlap.
    pub fn decode(&mut self, data: &[u8], spans: &[(u32, u32)]) -> Decoded {
        // All at once is several times quicker than row by row, and nearly
        // always enough.
        let all_utf8 = simdutf8::basic::from_utf8(data).is_ok();
        let mut rows = 0;
        let mut bad = Vec::new();
        for (index, &(start, end)) in spans.iter().enumerate() {
            let (start, end) = (start as usize, end as usize);
            let pushed = if self.0.is_any_bytes() || is_utf8(data, start, end, all_utf8) {
                self.0.push(data, start, end)
            } else {
                Err(invalid_utf8(&data[start..end]))
            };
            match pushed {
                Ok(()) => rows += 1,
                Err(fault) => {
                    self.0.truncate(rows);
                    bad.push(UndecodedRow {
                        row: index as u32,
                        error: fault.to_string(),
                    });
                }
            }
        }
        let columns = self.0.take();
        Decoded { columns, rows, bad }
    }
}

impl FormatRows {
    /// Adds the row `data[start..end]`; after an error it must be taken back.
    #[inline]
    fn push(&mut self, data: &[u8], start: usize, end: usize) -> Result<(), Fault> {
        match self {
            FormatRows::Json(json) => json.push(data, start, end),
            FormatRows::Csv(csv) => csv.push(&data[start..end]),
            FormatRows::Raw(raw) => {
                raw.push(&data[start..end]);
                Ok(())
            }
        }
    }

    /// Rows need not be text.
    fn is_any_bytes(&self) -> bool {
        match self {
            FormatRows::Json(_) | FormatRows::Csv(_) => false,
            FormatRows::Raw(raw) => raw.is_bytes(),
        }
    }

    /// Takes back what is behind the first `rows` rows.
    fn truncate(&mut self, rows: usize) {
        match self {
            FormatRows::Json(json) => json.truncate(rows),
            FormatRows::Csv(csv) => csv.truncate(rows),
            // Every row is a good one.
            FormatRows::Raw(_) => {}
        }
    }

    fn take(&mut self) -> Vec<ArrayRef> {
        match self {
            FormatRows::Json(json) => json.take(),
            FormatRows::Csv(csv) => csv.take(),
            FormatRows::Raw(raw) => raw.take(),
        }
    }
}

/// Whether a row is text by itself: rows may lie close together, and then two
/// of them may share a character that neither has.
fn is_utf8(data: &[u8], start: usize, end: usize, all_utf8: bool) -> bool {
    let is_cut = |at: usize| data.get(at).is_some_and(|byte| byte & 0xC0 == 0x80);
    if all_utf8 {
        !is_cut(start) && !is_cut(end)
    } else {
        simdutf8::basic::from_utf8(&data[start..end]).is_ok()
    }
}

#[cold]
fn invalid_utf8(row: &[u8]) -> Fault {
    let at = std::str::from_utf8(row).map_or_else(|error| error.valid_up_to(), str::len);
    Fault::new(format!(
        "byte {at}: expected UTF-8 text, found bytes that are none"
    ))
}

#[cfg(test)]
mod tests;
