//! The formats of rows in a stream of bytes.

use std::sync::Arc;

use crate::avro::AvroSchema;
use crate::protobuf::ProtoSchema;
use crate::schema::Schema;
use crate::timestamp::{PatternProblem, TimePattern, TimestampFormat};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Format {
    Json,
    Csv(CsvFormat),
    /// A row is one value, its bytes or text.
    Raw,
    Syslog(SyslogFormat),
    /// A message is a change of a table, in JSON: no row of it, one or two.
    Debezium(DebeziumFormat),
    /// A row is a message of its own, whose bytes a schema explains: nothing in them says
    /// where it ends.
    Message(MessageFormat),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MessageFormat {
    Avro(AvroFormat),
    Protobuf(ProtobufFormat),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AvroFormat {
    /// What rows are written with or, where they say that themselves, what they are read as.
    pub schema: Option<AvroSchema>,
    /// Whether rows begin with the number that their schema has in a registry.
    pub is_registered: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DebeziumFormat {
    pub changes: TableChanges,
    pub decimals: TextDecimals,
}

/// Rows that are changes of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableChanges {
    /// The fields by which a row takes the place of the one before it, and what is gone has no
    /// others. Without them, a row that is replaced or gone comes once more, as it was.
    pub key: Option<Vec<String>>,
}

/// Rows that are messages, each of which takes the place of the one before it with the same
/// key. Those without a payload delete theirs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upserts {
    /// By a key, whose fields the message's key has, and not its payload.
    pub changes: TableChanges,
    pub key_format: KeyFormat,
}

/// How the key of a message is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyFormat {
    /// As sinks write one: texts and bytes as they are, everything else as JSON.
    Text,
    /// An object with the fields, or the value of the only one.
    Json,
    /// A record whose schema is in a registry.
    Avro,
    /// The same as a message of Protobuf.
    Protobuf,
}

impl KeyFormat {
    /// As in the config.
    pub fn name(self) -> &'static str {
        match self {
            KeyFormat::Text => "text",
            KeyFormat::Json => "json",
            KeyFormat::Avro => "avro",
            KeyFormat::Protobuf => "protobuf",
        }
    }

    /// The format of rows that have the key's fields alone.
    fn of_rows(self) -> Format {
        match self {
            KeyFormat::Text | KeyFormat::Json => Format::Json,
            KeyFormat::Avro => Format::Message(MessageFormat::Avro(AvroFormat {
                schema: None,
                is_registered: true,
            })),
            KeyFormat::Protobuf => Format::Message(MessageFormat::Protobuf(ProtobufFormat {
                schema: None,
                message: None,
                is_registered: true,
            })),
        }
    }
}

/// What a decimal is that is a text, where no schema says so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TextDecimals {
    /// The bytes of a whole number of units, as base64.
    #[default]
    Precise,
    /// Its digits.
    String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProtobufFormat {
    /// What rows are read and written as.
    pub schema: Option<ProtoSchema>,
    /// The name of the message, where only the registry has the schema.
    pub message: Option<String>,
    /// Whether rows begin with the number that their schema has in a registry.
    pub is_registered: bool,
}

impl Format {
    /// What its rows are, if they are changes of a table.
    pub fn changes(&self) -> Option<&TableChanges> {
        match self {
            Format::Debezium(debezium) => Some(&debezium.changes),
            Format::Json
            | Format::Csv(_)
            | Format::Raw
            | Format::Syslog(_)
            | Format::Message(_) => None,
        }
    }

    /// As in the config.
    pub fn name(&self) -> &'static str {
        match self {
            Format::Json => "json",
            Format::Csv(_) => "csv",
            Format::Raw => "raw",
            Format::Syslog(_) => "syslog",
            Format::Debezium(_) => "debezium-json",
            Format::Message(message) => message.name(),
        }
    }
}

impl MessageFormat {
    /// As in the config.
    pub fn name(&self) -> &'static str {
        match self {
            MessageFormat::Avro(_) => "avro",
            MessageFormat::Protobuf(_) => "protobuf",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CsvFormat {
    /// The first line of each file names the columns; without it the columns
    /// are the fields in order.
    pub header: bool,
    pub delimiter: u8,
}

/// The parts of a message of syslog, which fields have the names of.
pub const SYSLOG_FIELDS: [&str; 10] = [
    "facility",
    "severity",
    "version",
    "timestamp",
    "hostname",
    "appname",
    "procid",
    "msgid",
    "data",
    "message",
];

/// What times are that do not say it themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyslogFormat {
    /// Reads them, with a year in front.
    pub pattern: Arc<TimePattern>,
    /// Without it, the last one in which they are not ahead of the clock.
    pub year: Option<i16>,
}

impl SyslogFormat {
    /// Times are those of a zone; UTC by default.
    pub fn new(zone: Option<&str>, year: Option<i16>) -> Result<Self, PatternProblem> {
        let pattern = TimePattern::new("%Y %b %d %H:%M:%S", zone)?;
        Ok(SyslogFormat {
            pattern: Arc::new(pattern),
            year,
        })
    }
}

/// How a row's bytes become columns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowFormat {
    pub format: Format,
    /// The format of each timestamp field, depth first through nested records and
    /// lists. Fields after its end may be in any format.
    pub timestamp_formats: Vec<TimestampFormat>,
    /// Fields that have another name in the bytes: their own, and that one.
    pub names: Vec<(String, String)>,
    /// Of changes: what is gone is told whole, also where it looks like a key alone.
    pub tells_whole_rows: bool,
    /// Of messages whose rows take the place of one another by their keys.
    pub upserts: Option<Upserts>,
}

impl Default for CsvFormat {
    /// With a header, and commas.
    fn default() -> Self {
        CsvFormat {
            header: true,
            delimiter: b',',
        }
    }
}

impl RowFormat {
    /// What rows are, if they are changes of a table.
    pub fn changes(&self) -> Option<&TableChanges> {
        match &self.upserts {
            Some(upserts) => Some(&upserts.changes),
            None => self.format.changes(),
        }
    }

    /// The format of what messages have in their payload, and the fields that are there: of
    /// rows with these fields, all but those that their keys have.
    pub fn of_payload(&self, schema: &Schema) -> (RowFormat, Schema) {
        self.part(schema, self.format.clone(), false)
    }

    /// The same of the keys.
    pub fn of_key(&self, schema: &Schema, key_format: KeyFormat) -> (RowFormat, Schema) {
        self.part(schema, key_format.of_rows(), true)
    }

    /// Whether a field is in the keys of messages, and not in their payload.
    pub fn is_of_key(&self, field: &str) -> bool {
        let upserts = self.upserts.iter();
        let mut key = upserts.flat_map(|it| it.changes.key.iter().flatten());
        key.any(|name| name == field)
    }

    fn part(&self, schema: &Schema, format: Format, of_key: bool) -> (RowFormat, Schema) {
        let mut formats = self.timestamp_formats.iter().cloned();
        let mut timestamp_formats = Vec::new();
        let mut fields = Vec::new();
        for field in &schema.fields {
            let own = (0..field.timestamps()).map(|_| formats.next().unwrap_or_default());
            let own: Vec<TimestampFormat> = own.collect();
            if self.is_of_key(&field.name) == of_key {
                timestamp_formats.extend(own);
                fields.push(field.clone());
            }
        }
        let rows = RowFormat {
            format,
            timestamp_formats,
            upserts: None,
            ..self.clone()
        };
        (rows, Schema::new(fields))
    }

    /// The schema with the names that its fields have in the bytes.
    pub fn written(&self, schema: &Schema) -> Schema {
        let mut written = schema.clone();
        for field in &mut written.fields {
            if let Some((_, name)) = self.names.iter().find(|(own, _)| *own == field.name) {
                field.name.clone_from(name);
            }
        }
        written
    }
}

impl From<Format> for RowFormat {
    /// With timestamps in any format, and fields under their own names.
    fn from(format: Format) -> Self {
        RowFormat {
            format,
            timestamp_formats: Vec::new(),
            names: Vec::new(),
            tells_whole_rows: false,
            upserts: None,
        }
    }
}
