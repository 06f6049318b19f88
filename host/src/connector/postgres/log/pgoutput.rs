//! Messages of the plugin `pgoutput`, protocol version 1, by which the server tells what
//! transactions have changed.

/// What is told.
#[derive(Debug, PartialEq, Eq)]
pub enum Message<'m> {
    Begin {
        /// Where the record of the commit is.
        commit: u64,
        /// In ms since 1970.
        time_ms: i64,
        transaction: u32,
    },
    Commit {
        /// Behind the record of the commit.
        end: u64,
    },
    Relation(Relation),
    Insert {
        relation: u32,
        new: Row<'m>,
    },
    Update {
        relation: u32,
        /// The row before, or its key if that has changed.
        old: Option<Row<'m>>,
        new: Row<'m>,
    },
    Delete {
        relation: u32,
        /// The row, or its key.
        old: Row<'m>,
    },
    Truncate {
        relations: Vec<u32>,
    },
    /// Origins and types, which no row needs.
    Other,
}

/// A table, as it is for the rows that follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation {
    pub id: u32,
    /// Whether the row before a change is told as a whole.
    pub tells_whole: bool,
    pub columns: Vec<Column>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    /// Whether the row before a change has it at least.
    pub is_identity: bool,
    pub type_id: u32,
}

/// The values of a row, in the order of the columns.
pub type Row<'m> = Vec<Value<'m>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'m> {
    Null,
    /// It is large, and the change has left it as it was.
    Unchanged,
    Text(&'m str),
}

/// The server's times begin in 2000.
const YEAR_2000_MS: i64 = 946_684_800_000;

/// Reads a message; `None` if it is none.
pub fn read(bytes: &[u8]) -> Option<Message<'_>> {
    let mut parts = Parts(bytes);
    let message = match parts.byte()? {
        b'B' => Message::Begin {
            commit: parts.u64()?,
            time_ms: parts.u64()?.cast_signed().div_euclid(1_000) + YEAR_2000_MS,
            transaction: parts.u32()?,
        },
        b'C' => {
            parts.take(1 + 8)?;
            let end = parts.u64()?;
            parts.u64()?;
            Message::Commit { end }
        }
        b'R' => Message::Relation(parts.relation()?),
        b'I' => {
            let relation = parts.u32()?;
            let b'N' = parts.byte()? else { return None };
            let new = parts.row()?;
            Message::Insert { relation, new }
        }
        b'U' => {
            let relation = parts.u32()?;
            let (old, kind) = match parts.byte()? {
                b'K' | b'O' => (Some(parts.row()?), parts.byte()?),
                kind => (None, kind),
            };
            let b'N' = kind else { return None };
            let new = parts.row()?;
            Message::Update { relation, old, new }
        }
        b'D' => {
            let relation = parts.u32()?;
            let (b'K' | b'O') = parts.byte()? else {
                return None;
            };
            let old = parts.row()?;
            Message::Delete { relation, old }
        }
        b'T' => {
            let count = parts.u32()?;
            parts.byte()?;
            let relations = (0..count).map(|_| parts.u32());
            Message::Truncate {
                relations: relations.collect::<Option<_>>()?,
            }
        }
        b'O' | b'Y' | b'M' => return Some(Message::Other),
        _ => return None,
    };
    parts.0.is_empty().then_some(message)
}

/// What is left of a message.
struct Parts<'m>(&'m [u8]);

impl<'m> Parts<'m> {
    fn take(&mut self, length: usize) -> Option<&'m [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_be_bytes(self.take(8)?.try_into().ok()?))
    }

    /// A text up to a zero byte.
    fn name(&mut self) -> Option<&'m str> {
        let end = memchr::memchr(0, self.0)?;
        let name = std::str::from_utf8(self.take(end)?).ok()?;
        self.byte()?;
        Some(name)
    }

    fn relation(&mut self) -> Option<Relation> {
        let id = self.u32()?;
        self.name()?;
        self.name()?;
        let tells_whole = self.byte()? == b'f';
        let count = self.u16()?;
        let columns = (0..count).map(|_| {
            let is_identity = self.byte()? & 1 == 1;
            let name = self.name()?.to_owned();
            let type_id = self.u32()?;
            self.u32()?;
            Some(Column {
                name,
                is_identity,
                type_id,
            })
        });
        let columns = columns.collect::<Option<_>>()?;
        Some(Relation {
            id,
            tells_whole,
            columns,
        })
    }

    fn row(&mut self) -> Option<Row<'m>> {
        let count = self.u16()?;
        let values = (0..count).map(|_| {
            Some(match self.byte()? {
                b'n' => Value::Null,
                b'u' => Value::Unchanged,
                b't' => {
                    let length = usize::try_from(self.u32()?).ok()?;
                    Value::Text(std::str::from_utf8(self.take(length)?).ok()?)
                }
                _ => return None,
            })
        });
        values.collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn row(values: &[Option<&str>]) -> Vec<u8> {
        let mut bytes = (values.len() as u16).to_be_bytes().to_vec();
        for value in values {
            match value {
                None => bytes.push(b'n'),
                Some("unchanged") => bytes.push(b'u'),
                Some(text) => {
                    bytes.push(b't');
                    bytes.extend((text.len() as u32).to_be_bytes());
                    bytes.extend(text.as_bytes());
                }
            }
        }
        bytes
    }

    fn message(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
        [&[kind], parts.concat().as_slice()].concat()
    }

    const TABLE: [u8; 4] = [0, 0, 64, 1];

    fn of_table() -> Vec<u8> {
        let column = |flags: u8, name: &str, type_id: u32| {
            let numbers = [type_id.to_be_bytes(), [255; 4]].concat();
            [&[flags], name.as_bytes(), &[0], numbers.as_slice()].concat()
        };
        let columns = [column(1, "id", 20), column(0, "näme", 25)].concat();
        message(
            b'R',
            &[&TABLE, b"public\0", b"items\0", b"d", &[0, 2], &columns],
        )
    }

    #[test]
    fn messages_are_read() {
        let values = row(&[Some("1"), Some("ü"), None, Some("unchanged")]);
        let read_values = || {
            vec![
                Value::Text("1"),
                Value::Text("ü"),
                Value::Null,
                Value::Unchanged,
            ]
        };
        let time = 86_400_000_001_u64.to_be_bytes();
        let begin = message(b'B', &[&7_u64.to_be_bytes(), &time, &9_u32.to_be_bytes()]);
        let commit = message(
            b'C',
            &[&[0], &7_u64.to_be_bytes(), &8_u64.to_be_bytes(), &time],
        );
        let update = message(b'U', &[&TABLE, b"K", &row(&[Some("0")]), b"N", &values]);
        let told = |bytes: &[u8]| format!("{:?}", read(bytes));
        assert_eq!(
            read(&begin),
            Some(Message::Begin {
                commit: 7,
                time_ms: YEAR_2000_MS + 86_400_000,
                transaction: 9
            })
        );
        assert_eq!(read(&commit), Some(Message::Commit { end: 8 }));
        assert!(
            told(&of_table()).contains("tells_whole: false"),
            "{}",
            told(&of_table())
        );
        assert!(told(&of_table()).contains("\"näme\", is_identity: false, type_id: 25"));
        let insert = message(b'I', &[&TABLE, b"N", &values]);
        let (relation, new) = (16_385, read_values());
        assert_eq!(read(&insert), Some(Message::Insert { relation, new }));
        let old = Some(vec![Value::Text("0")]);
        let new = read_values();
        assert_eq!(read(&update), Some(Message::Update { relation, old, new }));
        let delete = message(b'D', &[&TABLE, b"O", &values]);
        let old = read_values();
        assert_eq!(read(&delete), Some(Message::Delete { relation, old }));
        let truncate = message(b'T', &[&1_u32.to_be_bytes(), &[0], &TABLE]);
        let relations = vec![relation];
        assert_eq!(read(&truncate), Some(Message::Truncate { relations }));
        assert_eq!(read(b"Ywhatever"), Some(Message::Other));
        for whole in [begin, commit, update, insert, delete, truncate, of_table()] {
            for end in 0..whole.len() {
                assert_eq!(read(&whole[..end]), None, "{whole:?} {end}");
            }
            assert_eq!(read(&[&whole[..], &[0]].concat()), None, "{whole:?}");
        }
        assert_eq!(read(b"X"), None);
        assert_eq!(read(&message(b'I', &[&TABLE, b"O", &values])), None);
    }

    proptest! {
        #[test]
        fn no_bytes_cause_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            for kind in *b"BCRIUDTOYMX" {
                let _ = read(&message(kind, &[&bytes]));
            }
        }
    }
}
