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

/// What keys begin with that the pipelines' own numbers are at.
pub const OWN_KEYS: &str = "sluicebox:";

/// Why a row has no command: the column, and what is wrong with its value.
pub type Refused = (usize, &'static str);

/// What a row is written to: a key, and a member of its sorted set.
#[derive(PartialEq, Eq)]
struct Place {
    key: Vec<u8>,
    member: Option<Vec<u8>>,
}

impl Layout {
    /// Appends the commands for the rows of a batch, in their order. `refuse` is told which
    /// rows have none, and says whether to go on.
    pub fn write<E>(
        &self,
        batch: &Batch,
        out: &mut Commands,
        mut refuse: impl FnMut(usize, Refused) -> Result<(), E>,
    ) -> Result<(), E> {
        let names = self.names.iter().map(String::as_str);
        let json = JsonColumns::new(names.zip(&batch.columns));
        // What was taken back last, until another row of its place is written behind it.
        let mut gone: Option<Place> = None;
        for row in 0..batch.rows() {
            let place = match self.place(batch, row) {
                Ok(place) => place,
                Err(refused) => {
                    refuse(row, refused)?;
                    continue;
                }
            };
            if let Some(gone) = gone.take_if(|gone| *gone != place) {
                self.delete(&gone, out);
            }
            if batch.is_taken_back(row) {
                gone = Some(place);
                continue;
            }
            match self.put(batch, row, &place, &json, out) {
                Ok(()) => gone = None,
                Err(refused) => refuse(row, refused)?,
            }
        }
        if let Some(gone) = gone {
            self.delete(&gone, out);
        }
        Ok(())
    }

    /// Appends the commands for a row, or none.
    fn put(
        &self,
        batch: &Batch,
        row: usize,
        place: &Place,
        json: &JsonColumns<'_>,
        out: &mut Commands,
    ) -> Result<(), Refused> {
        let key = &place.key;
        match self.kind {
            Kind::Hash => self.put_hash(batch, row, key, out),
            Kind::String => {
                let value = self.value(batch, row, json)?;
                let expires = self.expires_ms.map(|ms| ms.to_string());
                match &expires {
                    Some(ms) => out.push(&[b"SET", key, &value, b"PX", ms.as_bytes()]),
                    None => out.push(&[b"SET", key, &value]),
                }
                return Ok(());
            }
            Kind::SortedSet => {
                let (Some(member), Some(score)) = (&place.member, self.score) else {
                    return Ok(());
                };
                let score = score_of(&batch.columns[score], row).map_err(|why| (score, why))?;
                out.push(&[b"ZADD", key, &score, member]);
            }
            Kind::List => {
                let value = self.value(batch, row, json)?;
                out.push(&[b"RPUSH", key, &value]);
                if let Some(length) = self.length {
                    let first = (-length).to_string();
                    out.push(&[b"LTRIM", key, first.as_bytes(), b"-1"]);
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
                out.push(&[b"PUBLISH", key, &value]);
                return Ok(());
            }
        }
        if let Some(ms) = self.expires_ms {
            out.push(&[b"PEXPIRE", key, ms.to_string().as_bytes()]);
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

    fn delete(&self, place: &Place, out: &mut Commands) {
        match &place.member {
            Some(member) => out.push(&[b"ZREM", &place.key, member]),
            None => out.push(&[b"DEL", &place.key]),
        }
    }

    fn place(&self, batch: &Batch, row: usize) -> Result<Place, Refused> {
        let member = |column| self.plain(batch, row, column).map(Cow::into_owned);
        Ok(Place {
            key: self.key(batch, row)?,
            member: self.member.map(member).transpose()?,
        })
    }

    fn key(&self, batch: &Batch, row: usize) -> Result<Vec<u8>, Refused> {
        let mut key = Vec::new();
        for part in &self.key {
            match part {
                KeyPart::Text(text) => key.extend_from_slice(text.as_bytes()),
                KeyPart::Column(column) => {
                    key.extend_from_slice(&self.plain(batch, row, *column)?);
                    if key.starts_with(OWN_KEYS.as_bytes()) {
                        let why =
                            "makes a key that begins with `sluicebox:`, as a pipeline's own do";
                        return Err((*column, why));
                    }
                }
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{Float64Array, StringArray};

    use super::*;
    use crate::schema::{DataType, Field, Schema};

    /// The commands for members with scores, some taken back, at this key, and which rows are
    /// refused.
    fn written_at(key: KeyPart, rows: &[(char, Option<&str>, f64)]) -> (String, Vec<usize>) {
        let members = rows.iter().map(|(_, member, _)| *member);
        let scores = rows.iter().map(|(_, _, score)| *score);
        let batch = Batch {
            schema: Arc::new(Schema::new(vec![
                Field::new("member", DataType::Utf8, true),
                Field::new("score", DataType::Float64, false),
            ])),
            columns: vec![
                Arc::new(StringArray::from_iter(members)),
                Arc::new(Float64Array::from_iter_values(scores)),
            ],
            times: vec![0; rows.len()].into(),
            origin: None,
            watermarks: None,
            taken_back: Some(rows.iter().map(|(change, ..)| *change == '-').collect()),
        };
        let layout = Layout {
            kind: Kind::SortedSet,
            key: vec![key],
            names: vec!["member".to_owned(), "score".to_owned()],
            value: None,
            member: Some(0),
            score: Some(1),
            expires_ms: None,
            length: None,
        };
        let (mut out, mut refused) = (Commands::default(), Vec::new());
        let done = layout.write(&batch, &mut out, |row, _| {
            refused.push(row);
            Ok::<_, ()>(())
        });
        done.expect("it goes on");
        let text = String::from_utf8(out.packed).expect("it is text");
        let words = text.lines().filter(|line| !line.starts_with('$'));
        let words = words.map(|word| if word.starts_with('*') { "|" } else { word });
        (Vec::from_iter(words).join(" "), refused)
    }

    fn written(rows: &[(char, Option<&str>, f64)]) -> (String, Vec<usize>) {
        written_at(KeyPart::Text("k".to_owned()), rows)
    }

    #[test]
    fn a_member_is_removed_unless_another_row_takes_its_place() {
        let replaced = [('-', Some("a"), 1.0), ('+', Some("a"), 2.0)];
        assert_eq!(written(&replaced), ("| ZADD k 2.0 a".to_owned(), vec![]));
        let gone = [('-', Some("a"), 1.0), ('+', Some("b"), 2.0)];
        let commands = "| ZREM k a | ZADD k 2.0 b";
        assert_eq!(written(&gone), (commands.to_owned(), vec![]));
    }

    #[test]
    fn no_row_takes_the_place_of_a_checkpoint() {
        let rows = [('+', Some("sluicebox:shop"), 1.0), ('+', Some("a"), 1.0)];
        let commands = "| ZADD a 1.0 a";
        let written = written_at(KeyPart::Column(0), &rows);
        assert_eq!(written, (commands.to_owned(), vec![0]));
    }

    #[test]
    fn a_refused_row_is_as_one_that_has_not_come() {
        // It takes no place.
        let refused = [('-', Some("a"), 1.0), ('+', Some("a"), f64::NAN)];
        assert_eq!(written(&refused), ("| ZREM k a".to_owned(), vec![1]));
        // It does not come between others.
        let between = [
            ('-', Some("a"), 1.0),
            ('+', None, 2.0),
            ('+', Some("a"), 3.0),
            ('-', None, 4.0),
        ];
        let commands = "| ZADD k 3.0 a";
        assert_eq!(written(&between), (commands.to_owned(), vec![1, 3]));
    }
}
