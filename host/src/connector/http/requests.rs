//! Cuts rows into requests, by the rows alone: the same rows from the same place on are cut
//! in the same way, whatever batches they come in.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use crate::batch::Batch;
use crate::checkpoint::snapshot::RowNumbers;
use crate::digest::hex;
use crate::json::JsonColumns;
use crate::sink::SentRows;

/// What a request's body has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyKind {
    /// An array of objects.
    Array,
    /// An object a line.
    Lines,
    /// One object.
    Row,
}

impl BodyKind {
    /// As in the config.
    pub fn name(self) -> &'static str {
        match self {
            BodyKind::Array => "array",
            BodyKind::Lines => "lines",
            BodyKind::Row => "row",
        }
    }

    pub fn content_type(self) -> &'static str {
        match self {
            BodyKind::Array | BodyKind::Row => "application/json",
            BodyKind::Lines => "application/x-ndjson",
        }
    }

    /// What a body begins with, has between rows, and ends with.
    fn marks(self) -> (&'static [u8], &'static [u8], &'static [u8]) {
        match self {
            BodyKind::Array => (b"[", b",", b"]"),
            BodyKind::Lines => (b"", b"\n", b"\n"),
            BodyKind::Row => (b"", b"", b""),
        }
    }
}

/// When a request is full.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    pub body: BodyKind,
    pub rows_max: usize,
    /// One row may have more.
    pub bytes_max: usize,
}

/// A request, ready to be sent.
#[derive(Debug)]
pub struct Packed {
    pub body: Vec<u8>,
    /// The same for the same rows at the same place of the pipeline's output.
    pub key: String,
    pub rows: SentRows,
}

/// Fills requests with rows.
pub struct Packer {
    cut: Cut,
    /// The names of the columns.
    names: Arc<[String]>,
    /// Who sends: rows of others have other keys.
    sender: String,
    numbers: RowNumbers,
    body: Vec<u8>,
    rows: SentRows,
    count: usize,
    row: Vec<u8>,
}

impl Packer {
    pub fn new(cut: Cut, names: Vec<String>, sender: String, numbers: RowNumbers) -> Self {
        Packer {
            cut,
            names: names.into(),
            sender,
            numbers,
            body: Vec::new(),
            rows: SentRows::default(),
            count: 0,
            row: Vec::new(),
        }
    }

    /// Whether a request is begun.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How the rows are numbered that come next.
    pub fn numbers(&self) -> &RowNumbers {
        &self.numbers
    }

    /// Adds rows, and hands over each request that is full.
    pub fn add<E>(
        &mut self,
        batch: &Batch,
        mut full: impl FnMut(Packed) -> Result<(), E>,
    ) -> Result<(), E> {
        let names = self.names.clone();
        let names = names.iter().map(String::as_str);
        let columns = JsonColumns::new(names.zip(&batch.columns));
        let mut first = 0;
        for row in 0..batch.rows() {
            self.row.clear();
            columns.write(&mut self.row, row);
            let (begin, between, end) = self.cut.body.marks();
            let length = self.body.len() + between.len() + self.row.len() + end.len();
            if self.count > 0 && length > self.cut.bytes_max {
                self.rows.push(batch, first..row);
                first = row;
                full(self.take())?;
            }
            let before = match self.count {
                0 => begin,
                _ => between,
            };
            self.body.extend_from_slice(before);
            self.body.extend_from_slice(&self.row);
            self.count += 1;
            if self.count >= self.cut.rows_max {
                self.rows.push(batch, first..row + 1);
                first = row + 1;
                full(self.take())?;
            }
        }
        self.rows.push(batch, first..batch.rows());
        Ok(())
    }

    /// Takes the request that is begun.
    pub fn take(&mut self) -> Packed {
        let (.., end) = self.cut.body.marks();
        let mut body = std::mem::take(&mut self.body);
        body.extend_from_slice(end);
        let key = self.key(&body);
        self.numbers.next += self.count as u64;
        self.count = 0;
        Packed {
            body,
            key,
            rows: std::mem::take(&mut self.rows),
        }
    }

    /// Of the place and of the content: were one of them alone in it, a receiver could take
    /// other rows for a repetition.
    fn key(&self, body: &[u8]) -> String {
        let mut digest = Sha256::new();
        for part in [&self.sender, &self.numbers.series] {
            digest.update((part.len() as u64).to_le_bytes());
            digest.update(part);
        }
        digest.update(self.numbers.next.to_le_bytes());
        digest.update(body);
        hex(&digest.finalize()[..16])
    }
}

#[cfg(test)]
mod tests {
    use arrow_array::{ArrayRef, StringArray};
    use proptest::prelude::*;

    use super::*;
    use crate::schema::{DataType, Field, Schema};

    fn batch(texts: &[String]) -> Batch {
        let columns: Vec<ArrayRef> = vec![Arc::new(StringArray::from(texts.to_vec()))];
        Batch {
            schema: Arc::new(Schema::new(vec![Field::new("a", DataType::Utf8, false)])),
            columns,
            times: vec![0; texts.len()].into(),
            origin: None,
            watermarks: None,
            taken_back: None,
        }
    }

    fn packer(cut: Cut, next: u64) -> Packer {
        let numbers = RowNumbers {
            series: "series".to_owned(),
            next,
        };
        Packer::new(cut, vec!["a".to_owned()], "shop/out".to_owned(), numbers)
    }

    /// The requests for rows that come in batches of so many.
    fn requests(packer: &mut Packer, texts: &[String], batch_rows: usize) -> Vec<Packed> {
        let mut requests = Vec::new();
        for texts in texts.chunks(batch_rows) {
            let added = packer.add(&batch(texts), |packed| {
                requests.push(packed);
                Ok::<_, ()>(())
            });
            added.expect("nothing fails");
        }
        if !packer.is_empty() {
            requests.push(packer.take());
        }
        requests
    }

    fn bodies(requests: &[Packed]) -> Vec<String> {
        let text = |it: &Packed| String::from_utf8_lossy(&it.body).into_owned();
        requests.iter().map(text).collect()
    }

    #[test]
    fn bodies_are_as_they_are_said_to_be() {
        let texts = ["x", "y", "z"].map(str::to_owned);
        for (body, expected) in [
            (
                BodyKind::Array,
                vec![r#"[{"a":"x"},{"a":"y"}]"#, r#"[{"a":"z"}]"#],
            ),
            (
                BodyKind::Lines,
                vec!["{\"a\":\"x\"}\n{\"a\":\"y\"}\n", "{\"a\":\"z\"}\n"],
            ),
        ] {
            let cut = Cut {
                body,
                rows_max: 2,
                bytes_max: 1_000,
            };
            let requests = requests(&mut packer(cut, 0), &texts, 3);
            assert_eq!(bodies(&requests), expected);
        }
        let cut = Cut {
            body: BodyKind::Row,
            rows_max: 1,
            bytes_max: 1_000,
        };
        let requests = requests(&mut packer(cut, 0), &texts, 3);
        assert_eq!(
            bodies(&requests),
            [r#"{"a":"x"}"#, r#"{"a":"y"}"#, r#"{"a":"z"}"#]
        );
    }

    #[test]
    fn a_key_is_of_the_place_and_of_the_rows() {
        let cut = Cut {
            body: BodyKind::Row,
            rows_max: 1,
            bytes_max: 1_000,
        };
        let same = ["x", "x"].map(str::to_owned);
        let keys = |next: u64| -> Vec<String> {
            let requests = requests(&mut packer(cut, next), &same, 1);
            requests.into_iter().map(|request| request.key).collect()
        };
        let first = keys(0);
        assert_ne!(first[0], first[1], "equal rows are not one");
        assert_eq!(first, keys(0));
        assert_eq!(
            first[1],
            keys(1)[0],
            "after a restore, the same row has its key"
        );
    }

    proptest! {
        /// However rows come, they are cut in the same way, from a restored place on, too.
        #[test]
        fn cuts_depend_on_rows_alone(
            texts in prop::collection::vec(".{0,12}", 1..30),
            rows_max in 1..6usize,
            bytes_max in 10..60usize,
            batch_rows in 1..8usize,
            restored in 0..4usize,
        ) {
            let cut = Cut { body: BodyKind::Array, rows_max, bytes_max };
            let whole = requests(&mut packer(cut, 0), &texts, texts.len());
            let cut_otherwise = requests(&mut packer(cut, 0), &texts, batch_rows);
            prop_assert_eq!(bodies(&whole), bodies(&cut_otherwise));
            let rows: usize = whole.iter().map(|request| request.rows.iter().count()).sum();
            prop_assert_eq!(rows, texts.len());
            for (one, other) in whole.iter().zip(&cut_otherwise) {
                prop_assert_eq!(&one.key, &other.key);
                prop_assert_eq!(one.rows.iter().count(), other.rows.iter().count());
                prop_assert!(one.body.len() <= bytes_max || one.rows.iter().count() == 1);
            }
            let before: usize = whole.iter().take(restored).map(|it| it.rows.iter().count()).sum();
            let again = requests(&mut packer(cut, before as u64), &texts[before..], batch_rows);
            let keys = |requests: &[Packed]| -> Vec<String> {
                requests.iter().map(|request| request.key.clone()).collect()
            };
            let rest = whole.len().min(restored);
            prop_assert_eq!(&keys(&whole)[rest..], &keys(&again)[..]);
        }
    }
}
