//! Reads what formats have a schema of: a file beside the pipeline's.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use toml::Spanned;

use super::diagnostics::{Diagnostics, Mistake};
use super::reader::{ConfigValue, Table};
use crate::avro::AvroSchema;
use crate::format::{AvroFormat, MessageFormat, ProtobufFormat};
use crate::paths;
use crate::protobuf::{ProtoFile, ProtoSchema};

/// No schema is longer; a larger file was named by mistake.
const SCHEMA_BYTES_MAX: u64 = 16 << 20;

/// The keys that formats with a schema have, as far as they are there.
pub struct MessageKeys<'a> {
    schema: Option<ConfigValue<'a>>,
    message: Option<ConfigValue<'a>>,
    /// Whether rows say which schema of a registry they have.
    is_registered: bool,
}

impl<'a> MessageKeys<'a> {
    /// `registry` is the connector's to read.
    pub fn read(table: &mut Table<'a>) -> Self {
        MessageKeys {
            schema: table.optional("schema"),
            message: table.optional("message"),
            is_registered: table.place_of("registry").is_some(),
        }
    }

    /// The format of rows in Avro.
    pub fn avro(&self, table: &Table, mistakes: &mut Diagnostics) -> Option<MessageFormat> {
        let schema = match &self.schema {
            Some(value) => Some(read_avro(value, mistakes)?),
            None if self.is_registered => None,
            None => {
                mistakes.push(without_schema(table, "avro", "rows.avsc"));
                return None;
            }
        };
        if let Some(value) = &self.message {
            mistakes.push(value.means_nothing("remove it, or write `format = \"protobuf\"`"));
            return None;
        }
        Some(MessageFormat::Avro(AvroFormat {
            schema,
            is_registered: self.is_registered,
        }))
    }

    /// The format of rows in Protobuf.
    pub fn protobuf(&self, table: &Table, mistakes: &mut Diagnostics) -> Option<MessageFormat> {
        let message = match &self.message {
            Some(value) => {
                Some(value.text("the name of a message, such as \"shop.Order\"", mistakes)?)
            }
            None => None,
        };
        let schema = match &self.schema {
            Some(value) => Some(read_protobuf(value, message.as_ref(), mistakes)?),
            None if self.is_registered => None,
            None => {
                mistakes.push(without_schema(table, "protobuf", "rows.proto"));
                return None;
            }
        };
        Some(MessageFormat::Protobuf(ProtobufFormat {
            schema,
            message: message.map(Spanned::into_inner),
            is_registered: self.is_registered,
        }))
    }

    /// Refuses the keys beside a format that has no schema.
    pub fn refuse(&self, table: &Table, format: &str, mistakes: &mut Diagnostics) {
        let place = |value: &ConfigValue| value.key_span();
        let any = "\"avro\"` or \"protobuf\"";
        let keys = [
            ("schema", any, self.schema.as_ref().map(place)),
            ("message", "\"protobuf\"`", self.message.as_ref().map(place)),
            ("registry", any, table.place_of("registry")),
        ];
        for (key, formats, place) in keys {
            let Some(place) = place else { continue };
            mistakes.push(
                Mistake::new(format!(
                    "{} has a `{key}`, and its format is {format}",
                    table.owner()
                ))
                .at(place, "")
                .help(format!("remove it, or write `format = {formats}")),
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

/// Reads a message of Protobuf of the file that is named.
fn read_protobuf(
    value: &ConfigValue<'_>,
    message: Option<&Spanned<String>>,
    mistakes: &mut Diagnostics,
) -> Option<ProtoSchema> {
    let path = value.path(mistakes)?;
    let file = mistakes.folder().join(path.get_ref());
    let is_text = paths::extension(path.get_ref()) == "proto";
    let read = match is_text {
        true => read_proto(value, &file, mistakes)?,
        false => ProtoFile::decode(&read_bytes(value, mistakes)?),
    };
    let read = match read {
        Ok(file) => file,
        Err(why) => {
            let help = match is_text {
                true if why.ends_with("not found") => {
                    "files that it imports are looked for in its folder, and in those above it, \
                     up to that of the pipeline's file"
                }
                true => "the file has a schema as `protoc` reads it, in proto2 or proto3",
                false => {
                    "a file whose name does not end with `.proto` is what `protoc \
                     --include_imports --descriptor_set_out=FILE` writes"
                }
            };
            mistakes.push(
                Mistake::new(format!("{} cannot be read: {why}", value.what()))
                    .at(value.span(), "")
                    .help(help),
            );
            return None;
        }
    };
    let schema = read.message(message.map(|it| it.get_ref().as_str()));
    if let Err(why) = &schema {
        mistakes.push(
            Mistake::new(format!("{}: {why}", value.what()))
                .at(message.map_or_else(|| value.span(), Spanned::span), "")
                .help("write `message = \"shop.Order\"`, with the name of its package"),
        );
    }
    schema.ok()
}

/// Reads a file of text, with what it imports.
fn read_proto(
    value: &ConfigValue<'_>,
    file: &Path,
    mistakes: &mut Diagnostics,
) -> Option<Result<ProtoFile, String>> {
    let text = read_text(value, mistakes)?;
    let top = mistakes.folder().to_owned();
    let folders = file.ancestors().skip(1);
    let mut folders: Vec<PathBuf> = folders.map(Path::to_owned).collect();
    // Outside of the pipeline's folder, only its own.
    let above = folders.iter().position(|folder| *folder == top);
    folders.truncate(above.unwrap_or(0) + 1);
    let open = move |name: &str| {
        let is_below = Path::new(name)
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
        let mut files = folders.iter().map(|folder| folder.join(name));
        let found = files.find(|file| file.is_file()).filter(|_| is_below)?;
        let is_short = fs::metadata(&found).is_ok_and(|it| it.len() <= SCHEMA_BYTES_MAX);
        is_short.then(|| fs::read_to_string(found).ok()).flatten()
    };
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    Some(ProtoFile::parse(&name, &text, open))
}

/// Reads a file that is named, as text.
fn read_text(value: &ConfigValue<'_>, mistakes: &mut Diagnostics) -> Option<String> {
    match String::from_utf8(read_bytes(value, mistakes)?) {
        Ok(text) => Some(text),
        Err(_) => {
            unreadable(value, "it is not text in UTF-8", mistakes);
            None
        }
    }
}

/// Reads a file that is named.
fn read_bytes(value: &ConfigValue<'_>, mistakes: &mut Diagnostics) -> Option<Vec<u8>> {
    let path = value.path(mistakes)?;
    let file = mistakes.folder().join(path.get_ref());
    let mut bytes = Vec::new();
    let read =
        File::open(&file).and_then(|file| file.take(SCHEMA_BYTES_MAX + 1).read_to_end(&mut bytes));
    let problem = match read {
        Err(error) if error.kind() == io::ErrorKind::NotFound => "it does not exist".to_owned(),
        Err(error) => error.to_string(),
        Ok(_) if bytes.len() as u64 > SCHEMA_BYTES_MAX => "it is too large for a schema".to_owned(),
        Ok(_) => return Some(bytes),
    };
    unreadable(value, &problem, mistakes);
    None
}

fn unreadable(value: &ConfigValue<'_>, problem: &str, mistakes: &mut Diagnostics) {
    let Some(path) = value.path(mistakes) else {
        return;
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
}

/// Neither a file nor a registry is named.
fn without_schema(table: &Table, format: &str, file: &str) -> Mistake {
    Mistake::new(format!(
        "{} has the format {format}, and says not where its schema is",
        table.owner()
    ))
    .at(table.place(), "")
    .help(format!(
        "add `schema = \"{file}\"`, the file with the schema of all rows, or \
         `registry = \"http://…\"`, where rows begin with the number of theirs"
    ))
}
