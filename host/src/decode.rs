//! Decodes rows: from bytes to columns by the source's schema, or to one
//! sentence that says what is wrong. A bad row does not affect its neighbours.

/// Decodes Avro.
mod avro;
/// What rows are that are changes.
mod changes;
/// Builds columns.
mod column;
/// Decodes comma-separated values.
mod csv;
/// Says what is wrong with a row.
mod fault;
/// Decodes JSON.
mod json;
/// Decodes Protobuf.
mod protobuf;
/// Adds values to columns.
mod push;
/// Decodes rows that are a single value.
mod raw;
/// Rows that say which schema of a registry they have.
mod registered;
/// Decodes messages of syslog.
mod syslog;
/// Decodes messages that take the place of one another by their keys.
mod upserts;

use arrow_array::ArrayRef;

use self::changes::Changes;
pub use self::changes::DecodedChanges;
pub(crate) use self::csv::{quoted_length, quoted_length_from};
use self::fault::RowFault;
use self::push::unplanned;
pub use self::registered::{AVRO, PROTOBUF, RegisteredSchema};
use crate::format::{Format, MessageFormat, RowFormat};
use crate::schema::Schema;
use crate::timestamp::CutTimes;

/// Decodes blocks of rows, one after the other. What it learns from a block
/// makes the next one faster, and never changes a result.
#[derive(Clone, Debug)]
pub struct Decoder(FormatRows);

/// What the line has that names the columns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// How many columns it names.
    pub fields: usize,
    /// Says which fields it lacks that may be missing.
    pub lacks: Option<String>,
}

/// Refuses the beginning of a header that is too long where its lines end in `\r` alone.
pub(crate) fn check_header_start(format: &Format, start: &[u8]) -> Result<(), String> {
    match format {
        Format::Json
        | Format::Raw
        | Format::Syslog(_)
        | Format::Debezium(_)
        | Format::Message(_) => Ok(()),
        Format::Csv(format) => csv::check_line_ends(start, format.delimiter),
    }
}

/// Checks that rows can be read into columns, as far as the format's schema tells. The error
/// says what is wrong with which column.
pub(crate) fn check_columns(rows: &RowFormat, schema: &Schema) -> Result<(), String> {
    let (rows, schema) = rows.of_payload(schema);
    let fields = rows.written(&schema).fields;
    let checked = match &rows.format {
        Format::Message(MessageFormat::Avro(avro)) => avro::check(avro, &fields),
        Format::Message(MessageFormat::Protobuf(protobuf)) => match &protobuf.schema {
            Some(schema) => protobuf::check(schema, &fields),
            None => Ok(()),
        },
        Format::Json | Format::Csv(_) | Format::Raw | Format::Syslog(_) | Format::Debezium(_) => {
            Ok(())
        }
    };
    checked.map_err(|fault| fault.to_string())
}

/// The rows under construction, by format.
#[derive(Clone, Debug)]
enum FormatRows {
    Json(json::JsonRows),
    Csv(csv::CsvRows),
    Raw(raw::RawRows),
    Syslog(syslog::SyslogRows),
    Debezium(Box<json::DebeziumRows>),
    Avro(avro::AvroRows),
    Protobuf(protobuf::ProtobufRows),
    Upserts(Box<upserts::UpsertRows>),
}

/// The good rows of a block as columns, and the bad ones.
#[derive(Debug)]
pub struct Decoded {
    pub columns: Vec<ArrayRef>,
    /// How many rows the columns have, since a schema may have no fields.
    pub rows: usize,
    /// In ascending order.
    pub bad: Vec<UndecodedRow>,
    /// Of the good rows.
    pub cut_times: Option<CutTimes>,
    /// What the good rows are, if they are changes of a table.
    pub changes: Option<DecodedChanges>,
}

/// What a message has beside the bytes that are given of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Beside<'m> {
    pub key: Option<&'m [u8]>,
    /// It has no payload: its key is what is given.
    pub is_tombstone: bool,
    /// Its timestamp.
    pub time_ms: Option<i64>,
}

/// A row that is not what the schema says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UndecodedRow {
    /// Its index among the rows that were given.
    pub row: u32,
    /// Where it is wrong, what was expected, and what was found.
    pub error: String,
}

impl Decoder {
    pub fn new(rows: &RowFormat, schema: &Schema) -> Self {
        Decoder(FormatRows::new(rows, schema))
    }

    /// Whether rows are text, as far as their format says.
    pub fn reads_text(&self) -> bool {
        self.0.reads_text()
    }

    /// The number of the schema that a row has in a registry, if it has to be learned first.
    pub fn lacks(&self, row: &[u8]) -> Option<u32> {
        self.0.lacks(row)
    }

    /// The same of the key of a message.
    pub fn lacks_of_key(&self, key: &[u8]) -> Option<u32> {
        match &self.0 {
            FormatRows::Upserts(rows) => rows.registered_key()?.lacks(key),
            _ => None,
        }
    }

    /// Learns a schema of a registry, or why there is none of this number.
    pub fn learn(&mut self, id: u32, schema: Result<&RegisteredSchema, String>) {
        self.0.learn(id, schema);
    }

    /// Reads the line that names the columns. Formats that name their fields in each row
    /// ignore it.
    pub fn read_header(&mut self, line: &[u8]) -> Result<Header, String> {
        match &mut self.0 {
            FormatRows::Json(_)
            | FormatRows::Raw(_)
            | FormatRows::Syslog(_)
            | FormatRows::Debezium(_)
            | FormatRows::Avro(_)
            | FormatRows::Protobuf(_)
            | FormatRows::Upserts(_) => Ok(Header::default()),
            FormatRows::Csv(csv) => csv.read_header(line),
        }
    }

    /// Decodes the rows `data[start..end]` of `spans`, which ascend, do not
    /// overlap, and are at most 1 GiB together.
    pub fn decode(&mut self, data: &[u8], spans: &[(u32, u32)]) -> Decoded {
        self.decode_messages(data, spans, |_| Beside::default())
    }

    /// As [`Self::decode`], of messages: of those without a payload, the key is given. Their
    /// format has to be one that reads them.
    pub fn decode_messages<'m>(
        &mut self,
        data: &[u8],
        spans: &[(u32, u32)],
        beside: impl Fn(usize) -> Beside<'m>,
    ) -> Decoded {
        // Checking the whole block is several times faster than each row, and
        // nearly always enough.
        let all_utf8 = !self.0.is_any_bytes() && simdutf8::basic::from_utf8(data).is_ok();
        let mut rows = 0;
        let mut bad = Vec::new();
        for (index, &(start, end)) in spans.iter().enumerate() {
            let (start, end) = (start as usize, end as usize);
            let pushed = if self.0.is_any_bytes() || is_utf8(data, start, end, all_utf8) {
                let beside = beside(index);
                match beside.is_tombstone {
                    false => self.0.push(data, start, end, beside),
                    true => self.0.push_tombstone(data, start, end, beside),
                }
            } else {
                Err(RowFault::not_utf8(&data[start..end]))
            };
            match pushed {
                Ok(()) => match self.0.changes() {
                    Some(changes) => rows = changes.end_message(index as u32),
                    None => rows += 1,
                },
                Err(fault) => {
                    self.0.truncate(rows);
                    bad.push(UndecodedRow {
                        row: index as u32,
                        error: fault.to_string(),
                    });
                }
            }
        }
        let cut_times = self.0.take_cut_times();
        let columns = self.0.take();
        let changes = self.0.changes().map(Changes::take);
        Decoded {
            columns,
            rows,
            bad,
            cut_times,
            changes,
        }
    }
}

impl FormatRows {
    fn new(rows: &RowFormat, schema: &Schema) -> Self {
        if let Some(upserts) = &rows.upserts {
            let rows = upserts::UpsertRows::new(upserts, rows, schema);
            return FormatRows::Upserts(Box::new(rows));
        }
        let own = schema;
        let schema = &rows.written(schema);
        let timestamps = &rows.timestamp_formats;
        match &rows.format {
            Format::Json => FormatRows::Json(json::JsonRows::new(schema, timestamps)),
            Format::Csv(csv) => {
                FormatRows::Csv(csv::CsvRows::new(csv.delimiter, schema, timestamps))
            }
            Format::Raw => FormatRows::Raw(raw::RawRows::new(schema)),
            Format::Syslog(format) => {
                FormatRows::Syslog(syslog::SyslogRows::new(format, schema, timestamps))
            }
            Format::Debezium(format) => {
                let rows = json::DebeziumRows::new(format, rows, own, schema);
                FormatRows::Debezium(Box::new(rows))
            }
            Format::Message(MessageFormat::Avro(avro)) => {
                FormatRows::Avro(avro::AvroRows::new(avro, schema, timestamps))
            }
            Format::Message(MessageFormat::Protobuf(protobuf)) => {
                FormatRows::Protobuf(protobuf::ProtobufRows::new(protobuf, schema, timestamps))
            }
        }
    }

    fn reads_text(&self) -> bool {
        match self {
            FormatRows::Json(_)
            | FormatRows::Csv(_)
            | FormatRows::Raw(_)
            | FormatRows::Syslog(_)
            | FormatRows::Debezium(_) => true,
            FormatRows::Avro(_) | FormatRows::Protobuf(_) => false,
            FormatRows::Upserts(rows) => rows.payload().reads_text(),
        }
    }

    fn lacks(&self, row: &[u8]) -> Option<u32> {
        match self {
            FormatRows::Json(_)
            | FormatRows::Csv(_)
            | FormatRows::Raw(_)
            | FormatRows::Syslog(_)
            | FormatRows::Debezium(_) => None,
            FormatRows::Avro(avro) => avro.lacks(row),
            FormatRows::Protobuf(protobuf) => protobuf.lacks(row),
            FormatRows::Upserts(rows) => rows.payload().lacks(row),
        }
    }

    fn learn(&mut self, id: u32, schema: Result<&RegisteredSchema, String>) {
        match self {
            FormatRows::Json(_)
            | FormatRows::Csv(_)
            | FormatRows::Raw(_)
            | FormatRows::Syslog(_)
            | FormatRows::Debezium(_) => {}
            FormatRows::Avro(avro) => avro.learn(id, schema),
            FormatRows::Protobuf(protobuf) => protobuf.learn(id, schema),
            FormatRows::Upserts(rows) => {
                for rows in rows.learning() {
                    rows.learn(id, schema.clone());
                }
            }
        }
    }

    /// Adds the row `data[start..end]`, which is perhaps a message; after an error,
    /// [`Self::truncate`] must follow.
    #[inline]
    fn push(
        &mut self,
        data: &[u8],
        start: usize,
        end: usize,
        beside: Beside<'_>,
    ) -> Result<(), RowFault> {
        match self {
            FormatRows::Json(json) => json.push(data, start, end),
            FormatRows::Csv(csv) => csv.push(&data[start..end]),
            FormatRows::Raw(raw) => {
                raw.push(&data[start..end]);
                Ok(())
            }
            FormatRows::Syslog(syslog) => syslog.push(&data[start..end]),
            FormatRows::Debezium(changes) => changes.push(data, start, end, beside),
            FormatRows::Avro(avro) => avro.push(&data[start..end]),
            FormatRows::Protobuf(protobuf) => protobuf.push(&data[start..end]),
            FormatRows::Upserts(rows) => rows.push(data, start, end, beside),
        }
    }

    /// The same of a message without a payload, by its key.
    fn push_tombstone(
        &mut self,
        data: &[u8],
        start: usize,
        end: usize,
        beside: Beside<'_>,
    ) -> Result<(), RowFault> {
        match self {
            FormatRows::Debezium(changes) => changes.push_tombstone(data, start, end),
            FormatRows::Upserts(rows) => rows.push_tombstone(beside),
            _ => Err(RowFault::new("expected a row, found a tombstone")),
        }
    }

    /// Adds a row without a value in any field, which all may be missing.
    fn push_null(&mut self) -> Result<(), RowFault> {
        match self {
            FormatRows::Json(json) => json.push_null(),
            FormatRows::Csv(csv) => csv.push_null(),
            FormatRows::Avro(avro) => avro.push_null(),
            FormatRows::Protobuf(protobuf) => protobuf.push_null(),
            // Their messages have no rows of a key.
            FormatRows::Raw(_)
            | FormatRows::Syslog(_)
            | FormatRows::Debezium(_)
            | FormatRows::Upserts(_) => return Err(unplanned()),
        }
        Ok(())
    }

    /// What the rows are, if they are changes.
    fn changes(&mut self) -> Option<&mut Changes> {
        match self {
            FormatRows::Debezium(rows) => Some(rows.changes()),
            FormatRows::Upserts(rows) => Some(rows.changes()),
            _ => None,
        }
    }

    /// Whether rows need not be UTF-8.
    fn is_any_bytes(&self) -> bool {
        match self {
            FormatRows::Json(_)
            | FormatRows::Csv(_)
            | FormatRows::Syslog(_)
            | FormatRows::Debezium(_) => false,
            FormatRows::Raw(raw) => raw.is_bytes(),
            // A key may be, whatever a payload is.
            FormatRows::Avro(_) | FormatRows::Protobuf(_) | FormatRows::Upserts(_) => true,
        }
    }

    /// Removes all but the first `rows` rows.
    fn truncate(&mut self, rows: usize) {
        match self {
            FormatRows::Json(json) => json.truncate(rows),
            FormatRows::Csv(csv) => csv.truncate(rows),
            // Raw rows are never bad.
            FormatRows::Raw(_) => {}
            FormatRows::Syslog(syslog) => syslog.truncate(rows),
            FormatRows::Debezium(changes) => changes.truncate(rows),
            FormatRows::Avro(avro) => avro.truncate(rows),
            FormatRows::Protobuf(protobuf) => protobuf.truncate(rows),
            FormatRows::Upserts(upserts) => upserts.truncate(rows),
        }
    }

    /// The times that were rounded down since the last call.
    fn take_cut_times(&mut self) -> Option<CutTimes> {
        match self {
            FormatRows::Json(json) => json.take_cut_times(),
            FormatRows::Csv(csv) => csv.take_cut_times(),
            // They have no times.
            FormatRows::Raw(_) => None,
            FormatRows::Syslog(syslog) => syslog.take_cut_times(),
            FormatRows::Debezium(changes) => changes.take_cut_times(),
            FormatRows::Avro(avro) => avro.take_cut_times(),
            FormatRows::Protobuf(protobuf) => protobuf.take_cut_times(),
            FormatRows::Upserts(upserts) => upserts.take_cut_times(),
        }
    }

    fn take(&mut self) -> Vec<ArrayRef> {
        match self {
            FormatRows::Json(json) => json.take(),
            FormatRows::Csv(csv) => csv.take(),
            FormatRows::Raw(raw) => raw.take(),
            FormatRows::Syslog(syslog) => syslog.take(),
            FormatRows::Debezium(changes) => changes.take(),
            FormatRows::Avro(avro) => avro.take(),
            FormatRows::Protobuf(protobuf) => protobuf.take(),
            FormatRows::Upserts(upserts) => upserts.take(),
        }
    }
}

/// Whether a row is valid UTF-8 by itself: the block may be, and the row still
/// begin or end within a character.
fn is_utf8(data: &[u8], start: usize, end: usize, all_utf8: bool) -> bool {
    let is_cut = |at: usize| data.get(at).is_some_and(|byte| byte & 0xC0 == 0x80);
    if all_utf8 {
        !is_cut(start) && !is_cut(end)
    } else {
        simdutf8::basic::from_utf8(&data[start..end]).is_ok()
    }
}

/// Schemas and rows for the tests of formats.
#[cfg(test)]
pub(crate) mod in_tests;
#[cfg(test)]
mod tests;
