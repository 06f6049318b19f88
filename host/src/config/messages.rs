//! Reads what formats have a schema of: a file beside the pipeline's.

use std::fs::File;
use std::io::{self, Read};

use super::diagnostics::{Diagnostics, Mistake};
use super::reader::{ConfigValue, Table};
use crate::avro::AvroSchema;
use crate::format::{AvroFormat, MessageFormat};

/// No schema is longer; a larger file was named by mistake.
const SCHEMA_BYTES_MAX: u64 = 16 << 20;

/// The keys that formats with a schema have, as far as they are there.
pub struct MessageKeys<'a> {
    schema: Option<ConfigValue<'a>>,
    /// Whether rows say which schema of a registry they have.
    is_registered: bool,
}

impl<'a> MessageKeys<'a> {
    /// `registry` is the connector's to read.
    pub fn read(table: &mut Table<'a>) -> Self {
        MessageKeys {
            schema: table.optional("schema"),
            is_registered: table.place_of("registry").is_some(),
        }
    }

    /// The format of rows in Avro.
    pub fn avro(&self, table: &Table, mistakes: &mut Diagnostics) -> Option<MessageFormat> {
        let schema = match &self.schema {
            Some(value) => Some(read_avro(value, mistakes)?),
            None if self.is_registered => None,
            None => {
                mistakes.push(
                    Mistake::new(format!(
                        "{} has the format avro, and says not where its schema is",
                        table.owner()
                    ))
                    .at(table.place(), "")
                    .help(
                        "add `schema = \"rows.avsc\"`, the file with the schema of all rows, or \
                         `registry = \"http://…\"`, where rows begin with the number of theirs",
                    ),
                );
                return None;
            }
        };
        Some(MessageFormat::Avro(AvroFormat {
            schema,
            is_registered: self.is_registered,
        }))
    }

    /// Refuses the keys beside a format that has no schema.
    pub fn refuse(&self, table: &Table, format: &str, mistakes: &mut Diagnostics) {
        let schema = self
            .schema
            .as_ref()
            .map(|value| ("schema", value.key_span()));
        let registry = table.place_of("registry").map(|place| ("registry", place));
        for (key, place) in schema.into_iter().chain(registry) {
            mistakes.push(
                Mistake::new(format!(
                    "{} has a `{key}`, and its format is {format}",
                    table.owner()
                ))
                .at(place, "")
                .help("remove it, or write `format = \"avro\"`"),
            );
        }
    }
}

/// Reads a schema of Avro of the file that is named.
fn read_avro(value: &ConfigValue<'_>, mistakes: &mut Diagnostics) -> Option<AvroSchema> {
    let text = read_text(value, mistakes)?;
    let schema = AvroSchema::parse(&text, &[]);
    if let Err(why) = &schema {
        mistakes.push(
            Mistake::new(format!("{} cannot be read: {why}", value.what()))
                .at(value.span(), "")
                .help("the file has one schema as JSON, with all the types that it names"),
        );
    }
    schema.ok()
}

/// Reads a file that is named, as text.
fn read_text(value: &ConfigValue<'_>, mistakes: &mut Diagnostics) -> Option<String> {
    let path = value.path(mistakes)?;
    let file = mistakes.folder().join(path.get_ref());
    let mut bytes = Vec::new();
    let read =
        File::open(&file).and_then(|file| file.take(SCHEMA_BYTES_MAX + 1).read_to_end(&mut bytes));
    let problem = match read {
        Err(error) if error.kind() == io::ErrorKind::NotFound => "it does not exist".to_owned(),
        Err(error) => error.to_string(),
        Ok(_) if bytes.len() as u64 > SCHEMA_BYTES_MAX => "it is too large for a schema".to_owned(),
        Ok(_) => match String::from_utf8(bytes) {
            Ok(text) => return Some(text),
            Err(_) => "it is not text in UTF-8".to_owned(),
        },
    };
    mistakes.push(
        Mistake::new(format!(
            "{} needs the file `{}`: {problem}",
            value.what(),
            path.get_ref()
        ))
        .at(path.span(), "")
        .help("paths are relative to the pipeline's file"),
    );
    None
}
