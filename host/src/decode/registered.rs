//! Rows that say which schema they are written with: a zero byte, the number of the schema
//! in a registry as four bytes, and what is written with it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::HashMap;

use super::fault::RowFault;
use crate::avro::AvroSchema;
use crate::protobuf::ProtoFile;

/// What registries call the languages.
pub const AVRO: &str = "AVRO";
pub const PROTOBUF: &str = "PROTOBUF";

/// A schema of a registry, as its text, with those that it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisteredSchema {
    /// As the registry calls the language: `AVRO`, `PROTOBUF` or `JSON`.
    pub language: String,
    pub text: String,
    /// What it names, directly or by way of others, by the name that they call it by.
    pub references: Vec<(String, String)>,
}

impl RegisteredSchema {
    /// Reads it, which has to be of Avro.
    pub fn avro(&self) -> Result<AvroSchema, String> {
        self.check_language(AVRO)?;
        let references = self.references.iter().map(|(_, text)| text.as_str());
        let references: Vec<&str> = references.collect();
        AvroSchema::parse(&self.text, &references)
    }

    /// Reads it, which has to be of Protobuf.
    pub fn protobuf(&self) -> Result<ProtoFile, String> {
        self.check_language(PROTOBUF)?;
        ProtoFile::read(&self.text, &self.references)
    }

    fn check_language(&self, expected: &str) -> Result<(), String> {
        let (language, format) = (&self.language, expected.to_ascii_lowercase());
        match language == expected {
            true => Ok(()),
            false => Err(format!("it is of {language}, and `format` is \"{format}\"")),
        }
    }
}

/// What rows begin with that say which schema they have.
const MAGIC: u8 = 0;
const PREFIX: usize = 5;

/// So many schemas are remembered that rows can be read with, beside those of a block, and so
/// many that no row can: a number may be anything. What is forgotten is asked for again.
const USABLE_MAX: usize = 1_000;
const UNUSABLE_MAX: usize = 10_000;

/// How long a schema is unusable: a registry that lacked it may get it, from a backup.
const UNUSABLE_FOR: Duration = Duration::from_secs(60);

/// How rows are read: all with one schema, or each with the one whose number it has. The first
/// is what reads rows of the one, the second what reads those of a number.
#[derive(Clone, Debug)]
pub(super) enum Schemas<O, R> {
    One(Result<O, String>),
    Registered(Registered<R>),
}

impl<O, R> Schemas<O, R> {
    pub fn one(schema: Result<O, RowFault>) -> Self {
        Schemas::One(schema.map_err(|fault| fault.to_string()))
    }

    /// Whether a row has to wait until its schema is learned.
    pub fn lacks(&self, row: &[u8]) -> Option<u32> {
        let Schemas::Registered(schemas) = self else {
            return None;
        };
        let (id, _) = split(row).ok()?;
        schemas.lacks(id).then_some(id)
    }

    pub fn learn(&mut self, id: u32, schema: Result<R, String>) {
        if let Schemas::Registered(schemas) = self {
            schemas.learn(id, schema);
        }
    }

    /// Forgets schemas between two blocks.
    pub fn tidy(&mut self) {
        if let Schemas::Registered(schemas) = self {
            schemas.tidy(Instant::now());
        }
    }
}

/// What is known of schemas by their numbers: a program that reads rows, or why there is none.
#[derive(Clone, Debug)]
pub(super) struct Registered<P> {
    usable: HashMap<u32, P>,
    unusable: HashMap<u32, Arc<str>>,
    /// When the first of them was learned.
    unusable_since: Instant,
}

impl<P> Registered<P> {
    pub fn new() -> Self {
        Registered {
            usable: HashMap::new(),
            unusable: HashMap::new(),
            unusable_since: Instant::now(),
        }
    }

    /// Whether nothing is known of a schema.
    fn lacks(&self, id: u32) -> bool {
        !self.usable.contains_key(&id) && !self.unusable.contains_key(&id)
    }

    fn learn(&mut self, id: u32, program: Result<P, String>) {
        match program {
            Ok(program) => {
                self.usable.insert(id, program);
            }
            Err(why) => {
                if self.unusable.is_empty() {
                    self.unusable_since = Instant::now();
                }
                self.unusable.insert(id, why.into());
            }
        }
    }

    /// Forgets schemas, if they are many, or may have become usable.
    fn tidy(&mut self, now: Instant) {
        if self.usable.len() > USABLE_MAX {
            self.usable.clear();
        }
        let age = now.saturating_duration_since(self.unusable_since);
        if self.unusable.len() > UNUSABLE_MAX || age > UNUSABLE_FOR {
            self.unusable.clear();
        }
    }

    pub fn find(&self, id: u32) -> Result<&P, RowFault> {
        self.usable
            .get(&id)
            .ok_or_else(|| lacking(&self.unusable, id))
    }

    /// To learn more of it.
    pub fn find_mut(&mut self, id: u32) -> Result<&mut P, RowFault> {
        match self.usable.get_mut(&id) {
            Some(known) => Ok(known),
            None => Err(lacking(&self.unusable, id)),
        }
    }
}

#[cold]
fn lacking(unusable: &HashMap<u32, Arc<str>>, id: u32) -> RowFault {
    RowFault::new(match unusable.get(&id) {
        Some(why) => format!("schema {id} of the registry: {why}"),
        None => format!("schema {id} of the registry is not known"),
    })
}

/// The number of the schema that a row has, and what is written with it.
pub(super) fn split(row: &[u8]) -> Result<(u32, &[u8]), RowFault> {
    match row.split_at_checked(PREFIX) {
        Some(([MAGIC, id @ ..], rest)) if let Ok(id) = id.try_into() => {
            Ok((u32::from_be_bytes(id), rest))
        }
        _ => Err(not_framed(row)),
    }
}

#[cold]
fn not_framed(row: &[u8]) -> RowFault {
    let found = match row {
        [] => "an empty message".to_owned(),
        [MAGIC, ..] => format!("a message of {} bytes", row.len()),
        [first, ..] => format!("the byte {first}"),
    };
    RowFault::new(format!(
        "expected a zero byte and the four of a schema's number, found {found} (without \
         `registry`, messages have no such beginning)"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemas_are_forgotten_that_are_many_or_were_lacking() {
        let mut schemas = Registered::new();
        schemas.learn(u32::MAX, Err("none".to_owned()));
        for id in 0..=USABLE_MAX as u32 {
            assert!(schemas.lacks(id));
            schemas.learn(id, Ok(id));
        }
        assert_eq!(schemas.find(7).map_err(|fault| fault.to_string()), Ok(&7));
        schemas.tidy(Instant::now());
        assert!(schemas.lacks(7));
        assert!(!schemas.lacks(u32::MAX));
        for id in 0..UNUSABLE_MAX as u32 {
            schemas.learn(id, Err("none".to_owned()));
        }
        schemas.tidy(Instant::now());
        assert!(schemas.lacks(7) && schemas.lacks(u32::MAX));
        schemas.learn(7, Err("none".to_owned()));
        schemas.tidy(Instant::now());
        assert!(!schemas.lacks(7));
        schemas.tidy(Instant::now() + 2 * UNUSABLE_FOR);
        assert!(schemas.lacks(7));
    }
}
