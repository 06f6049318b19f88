//! What becomes of a row: the commands for it.

use std::borrow::Cow;
use std::fmt;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef};
use arrow_schema::DataType as ArrowType;

use super::Commands;
use crate::batch::Batch;
use crate::json::{JsonColumns, write_value};
use crate::text::write_text;

/// What a row is in Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A hash with its fields.
    Hash,
    /// A value.
    String,
    /// A member of a sorted set.
    SortedSet,
    /// The last element of a list.
    List,
    /// An entry of a stream.
    Stream,
    /// A message to a channel.
    Publish,
}

pub const KINDS: [(&str, Kind); 6] = [
    ("hash", Kind::Hash),
    ("string", Kind::String),
    ("sorted_set", Kind::SortedSet),
    ("list", Kind::List),
    ("stream", Kind::Stream),
    ("publish", Kind::Publish),
];

impl Kind {
    pub fn name(self) -> &'static str {
        KINDS
            .iter()
            .find(|(_, kind)| *kind == self)
            .map_or("", |(name, _)| name)
    }

    /// Whether the same row written twice is there once.
    pub fn is_idempotent(self) -> bool {
        matches!(self, Kind::Hash | Kind::String | Kind::SortedSet)
    }

    /// Whether it may have only so many rows.
    pub fn has_length(self) -> bool {
        matches!(self, Kind::List | Kind::Stream)
    }

    /// Whether a row is one value, and not its fields.
    pub fn has_value(self) -> bool {
        matches!(self, Kind::String | Kind::List | Kind::Publish)
    }
}

/// A part of a key, with its column.
#[derive(Clone, Debug)]
pub enum KeyPart {
    Text(String),
    Column(usize),
}

/// How rows become commands.
#[derive(Clone, Debug)]
pub struct Layout {
    pub kind: Kind,
    pub key: Vec<KeyPart>,
    /// The names of all columns.
    pub names: Vec<String>,
    /// The column that is the value; without, the row as JSON is.
    pub value: Option<usize>,
    pub member: Option<usize>,
    pub score: Option<usize>,
    pub expires_ms: Option<i64>,
    pub length: Option<i64>,
}

/// Why a row has no command: the column, and what is wrong with its value.
pub type Refused = (usize, &'static str);

impl Layout {
    /// Appends the commands for the rows of a batch, in their order. On an error, the number
    /// of the row comes with it.
    pub fn write(&self, batch: &Batch, out: &mut Commands) -> Result<(), (usize, Refused)> {
        let names = self.names.iter().map(String::as_str);
        let json = JsonColumns::new(names.zip(&batch.columns));
        for row in 0..batch.rows() {
            let at = |refused| (row, refused);
            if batch.is_taken_back(row) {
                if !self.is_replaced(batch, row).map_err(at)? {
                    self.take_back(batch, row, out).map_err(at)?;
                }
                continue;
            }
            self.put(batch, row, &json, out).map_err(at)?;
        }
        Ok(())
    }

    fn put(
        &self,
        batch: &Batch,
        row: usize,
        json: &JsonColumns<'_>,
        out: &mut Commands,
    ) -> Result<(), Refused> {
        let key = self.key(batch, row)?;
        match self.kind {
            Kind::Hash => self.put_hash(batch, row, &key, out),
            Kind::String => {
                let value = self.value(batch, row, json)?;
                let expires = self.expires_ms.map(|ms| ms.to_string());
                match &expires {
                    Some(ms) => out.push(&[b"SET", &key, &value, b"PX", ms.as_bytes()]),
                    None => out.push(&[b"SET", &key, &value]),
                }
                return Ok(());
            }
            Kind::SortedSet => {
                let (Some(member), Some(score)) = (self.member, self.score) else {
                    return Ok(());
                };
                let score = score_of(&batch.columns[score], row).map_err(|why| (score, why))?;
                let member = self.plain(batch, row, member)?;
                out.push(&[b"ZADD", &key, &score, &member]);
            }
            Kind::List => {
                let value = self.value(batch, row, json)?;
                out.push(&[b"RPUSH", &key, &value]);
                if let Some(length) = self.length {
                    let first = (-length).to_string();
                    out.push(&[b"LTRIM", &key, first.as_bytes(), b"-1"]);
                }
            }
            Kind::Stream => {
                let length = self.length.map(|length| length.to_string());
                let mut arguments: Vec<&[u8]> = vec![&b"XADD"[..], key.as_slice()];
                if let Some(length) = &length {
                    arguments.extend([&b"MAXLEN"[..], &b"~"[..], length.as_bytes()]);
                }
                arguments.push(&b"*"[..]);
                let fields = self.fields(batch, row);
                for (name, value) in &fields {
                    arguments.extend([name.as_bytes(), &value[..]]);
                }
                // An entry has a field at least.
                if fields.is_empty() {
                    arguments.extend([&b""[..]; 2]);
                }
                out.push(&arguments);
            }
            Kind::Publish => {
                let value = self.value(batch, row, json)?;
                out.push(&[b"PUBLISH", &key, &value]);
                return Ok(());
            }
        }
        if let Some(ms) = self.expires_ms {
            out.push(&[b"PEXPIRE", &key, ms.to_string().as_bytes()]);
        }
        Ok(())
    }

    /// Sets the fields that have values, and removes those that have none.
    fn put_hash(&self, batch: &Batch, row: usize, key: &[u8], out: &mut Commands) {
        let fields = self.fields(batch, row);
        if !fields.is_empty() {
            let mut arguments: Vec<&[u8]> = vec![&b"HSET"[..], key];
            for (name, value) in &fields {
                arguments.extend([name.as_bytes(), &value[..]]);
            }
            out.push(&arguments);
        }
        if fields.len() < self.names.len() {
            let mut arguments: Vec<&[u8]> = vec![&b"HDEL"[..], key];
            let names = self.names.iter().zip(&batch.columns);
            let without = names.filter(|(_, column)| column.is_null(row));
            arguments.extend(without.map(|(name, _)| name.as_bytes()));
            out.push(&arguments);
        }
    }

    fn take_back(&self, batch: &Batch, row: usize, out: &mut Commands) -> Result<(), Refused> {
        let key = self.key(batch, row)?;
        match self.member {
            Some(member) => {
                let member = self.plain(batch, row, member)?;
                out.push(&[b"ZREM", &key, &member]);
            }
            None => out.push(&[b"DEL", &key]),
        }
        Ok(())
    }

    /// Whether another row takes the place of one that is taken back: one that follows, of
    /// the same key, with which it came.
    fn is_replaced(&self, batch: &Batch, row: usize) -> Result<bool, Refused> {
        let place = |row| {
            let member = self.member.map(|member| self.plain(batch, row, member));
            let member = member.transpose()?.map(Cow::into_owned);
            Ok::<_, Refused>((self.key(batch, row)?, member))
        };
        let own = place(row)?;
        for next in row + 1..batch.rows() {
            if place(next)? != own {
                return Ok(false);
            }
            if !batch.is_taken_back(next) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn key(&self, batch: &Batch, row: usize) -> Result<Vec<u8>, Refused> {
        let mut key = Vec::new();
        for part in &self.key {
            match part {
                KeyPart::Text(text) => key.extend_from_slice(text.as_bytes()),
                KeyPart::Column(column) => key.extend_from_slice(&self.plain(batch, row, *column)?),
            }
        }
        Ok(key)
    }

    /// The fields that have values, by their names.
    fn fields<'b>(&self, batch: &'b Batch, row: usize) -> Vec<(&str, Cow<'b, [u8]>)> {
        let fields = self.names.iter().zip(&batch.columns);
        let fields = fields.filter(|(_, column)| column.is_valid(row));
        fields
            .map(|(name, column)| (name.as_str(), plain(column, row)))
            .collect()
    }

    fn value<'b>(
        &self,
        batch: &'b Batch,
        row: usize,
        json: &JsonColumns<'_>,
    ) -> Result<Cow<'b, [u8]>, Refused> {
        match self.value {
            Some(column) => self.plain(batch, row, column),
            None => {
                let mut text = Vec::new();
                json.write(&mut text, row);
                Ok(text.into())
            }
        }
    }

    fn plain<'b>(
        &self,
        batch: &'b Batch,
        row: usize,
        column: usize,
    ) -> Result<Cow<'b, [u8]>, Refused> {
        let array = &batch.columns[column];
        match array.is_null(row) {
            true => Err((column, "is null")),
            false => Ok(plain(array, row)),
        }
    }
}

/// Texts and bytes as they are, times without quotes, everything else as JSON.
fn plain(column: &ArrayRef, row: usize) -> Cow<'_, [u8]> {
    match column.data_type() {
        ArrowType::Utf8 => column.as_string::<i32>().value(row).as_bytes().into(),
        ArrowType::Binary => column.as_binary::<i32>().value(row).into(),
        _ => {
            let mut text = Vec::new();
            write_text(&mut text, column, row);
            text.into()
        }
    }
}

/// A number as Redis reads it.
fn score_of(column: &ArrayRef, row: usize) -> Result<Vec<u8>, &'static str> {
    if column.is_null(row) {
        return Err("is null, and no score");
    }
    let mut text = Vec::new();
    write_value(&mut text, column, row);
    match text.as_slice() {
        b"\"NaN\"" => Err("is NaN, which is no score"),
        b"\"Infinity\"" => Ok(b"inf".to_vec()),
        b"\"-Infinity\"" => Ok(b"-inf".to_vec()),
        _ => Ok(text),
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
