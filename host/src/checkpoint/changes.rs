//! Rows of state that have changed between two checkpoints, in memory and as a file.
//!
//! The format, version 1: a line `sluicebox changes 1`, and then blocks. Numbers
//! are little-endian.
//!
//! | of a block | |
//! |---|---|
//! | number of ranges | u32 |
//! | each range | lengths of its two keys u32, the keys |
//! | number of rows | u32 |
//! | each row | length of its key u32, length of its value u32 (the greatest number: the row is deleted) |
//! | the rows' bytes | keys and values, in order |
//!
//! The ranges of all blocks are deleted before any row is put.

use std::sync::Arc;

use crate::budget::{Budget, Unwritten};

/// How the names of files of changes end.
pub const SUFFIX: &str = ".changes";

/// What a file of changes begins with.
const HEAD: &[u8] = b"sluicebox changes 1\n";

/// The length of the value of a row that is deleted.
const DELETED: u32 = u32::MAX;

/// Changed rows of one task. A key occurs at most once; ranges are deleted before
/// rows are put.
#[derive(Debug, Default)]
pub struct Changes {
    /// Keys and values of all rows, in order.
    bytes: Vec<u8>,
    rows: Vec<RowLengths>,
    ranges: Vec<(Vec<u8>, Vec<u8>)>,
    /// Counts them in the memory budget.
    unwritten: Option<Unwritten>,
}

/// The lengths of a row's key and value.
#[derive(Clone, Copy, Debug)]
struct RowLengths {
    key: u32,
    value: u32,
}

impl Changes {
    /// Adds a row: `key` and `value` append their bytes.
    pub fn put(&mut self, key: impl FnOnce(&mut Vec<u8>), value: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        key(&mut self.bytes);
        let middle = self.bytes.len();
        value(&mut self.bytes);
        // Neither is longer than a plugin may make it, which is below 4 GiB.
        self.rows.push(RowLengths {
            key: (middle - start) as u32,
            value: (self.bytes.len() - middle) as u32,
        });
    }

    pub fn delete(&mut self, key: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        key(&mut self.bytes);
        self.rows.push(RowLengths {
            key: (self.bytes.len() - start) as u32,
            value: DELETED,
        });
    }

    /// Deletes rows whose keys are in `from..to`.
    pub fn delete_range(&mut self, from: Vec<u8>, to: Vec<u8>) {
        self.ranges.push((from, to));
    }

    /// Keys and values; without a value the row is deleted.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = (&[u8], Option<&[u8]>)> {
        let mut rest = self.bytes.as_slice();
        self.rows.iter().map(move |row| {
            let (key, others) = rest.split_at(row.key as usize);
            rest = others;
            if row.value == DELETED {
                return (key, None);
            }
            let (value, others) = rest.split_at(row.value as usize);
            rest = others;
            (key, Some(value))
        })
    }

    pub fn ranges(&self) -> impl ExactSizeIterator<Item = (&[u8], &[u8])> {
        self.ranges
            .iter()
            .map(|(from, to)| (from.as_slice(), to.as_slice()))
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.ranges.is_empty()
    }

    /// About their size in memory and in a file.
    pub fn bytes(&self) -> usize {
        self.bytes.len() + size_of_val(&*self.rows)
    }

    /// Counts them in the budget until they are written, with the memory to sort
    /// them.
    pub fn count_in(&mut self, budget: &Arc<Budget>) {
        const SORT_BYTES: usize = 48;
        let sorting = self.rows.len() * SORT_BYTES;
        self.unwritten = Some(budget.count_unwritten(self.bytes() + sorting));
    }
}

/// Passes the bytes of a file to `write`, in several parts.
pub fn encode<E>(
    changes: &[Changes],
    mut write: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    write(HEAD)?;
    let mut head = Vec::new();
    let number = |number: usize| (number as u32).to_le_bytes();
    for changes in changes {
        head.clear();
        head.extend(number(changes.ranges.len()));
        for (from, to) in &changes.ranges {
            head.extend(number(from.len()));
            head.extend(number(to.len()));
            head.extend_from_slice(from);
            head.extend_from_slice(to);
        }
        head.extend(number(changes.rows.len()));
        for row in &changes.rows {
            head.extend(row.key.to_le_bytes());
            head.extend(row.value.to_le_bytes());
        }
        write(&head)?;
        write(&changes.bytes)?;
    }
    Ok(())
}

/// Reads what [`encode`] has written. `None` if the format is another one.
pub fn decode(file: &[u8]) -> Option<Vec<Changes>> {
    let mut rest = Rest(file.strip_prefix(HEAD)?);
    let mut blocks = Vec::new();
    while !rest.0.is_empty() {
        let mut changes = Changes::default();
        for _ in 0..rest.number()? {
            let (from, to) = (rest.number()?, rest.number()?);
            let from = rest.take(from as usize)?.to_vec();
            changes
                .ranges
                .push((from, rest.take(to as usize)?.to_vec()));
        }
        let count = rest.number()? as usize;
        let rows = rest.take(count.checked_mul(8)?)?.chunks_exact(8);
        let mut bytes = 0;
        changes.rows = rows
            .map(|row| {
                let mut row = Rest(row);
                let (key, value) = (row.number()?, row.number()?);
                bytes += key as usize + if value == DELETED { 0 } else { value as usize };
                Some(RowLengths { key, value })
            })
            .collect::<Option<_>>()?;
        changes.bytes = rest.take(bytes)?.to_vec();
        blocks.push(changes);
    }
    Some(blocks)
}

/// The bytes that are still to be read.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u32> {
        let bytes = self.take(4)?.try_into().ok()?;
        Some(u32::from_le_bytes(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The changes of two tasks.
    fn some() -> Vec<Changes> {
        let mut one = Changes::default();
        one.put(|key| key.extend(b"ann"), |value| value.extend(b"12"));
        one.delete(|key| key.extend(b"ben"));
        one.put(|key| key.extend(b""), |_| {});
        let mut other = Changes::default();
        other.delete_range(b"c".to_vec(), b"da".to_vec());
        vec![one, other]
    }

    fn bytes(changes: &[Changes]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let written = encode(changes, |part| {
            bytes.extend_from_slice(part);
            Ok::<_, ()>(())
        });
        written.expect("nothing fails");
        bytes
    }

    /// Bytes that a release has written stay readable for ever.
    #[test]
    fn a_file_is_what_it_was() {
        let mut expected = b"sluicebox changes 1\n".to_vec();
        expected.extend([0, 0, 0, 0, 3, 0, 0, 0]);
        expected.extend([3, 0, 0, 0, 2, 0, 0, 0]);
        expected.extend([3, 0, 0, 0, 255, 255, 255, 255]);
        expected.extend([0; 8]);
        expected.extend(b"ann12ben");
        expected.extend([1, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0]);
        expected.extend(b"cda");
        expected.extend([0, 0, 0, 0]);
        assert_eq!(bytes(&some()), expected);
    }

    #[test]
    fn what_was_written_is_read() {
        let read = decode(&bytes(&some())).expect("changes");
        let rows: Vec<_> = read[0].rows().collect();
        let expected: [(&[u8], Option<&[u8]>); 3] =
            [(b"ann", Some(b"12")), (b"ben", None), (b"", Some(b""))];
        assert_eq!(rows, expected);
        let ranges: Vec<_> = read[1].ranges().collect();
        assert_eq!(ranges, [(b"c".as_slice(), b"da".as_slice())]);
        assert_eq!(read.len(), 2);
    }

    #[test]
    fn a_truncated_file_of_changes_is_refused() {
        let whole = bytes(&some());
        let boundary = whole.len() - 19;
        for length in (0..whole.len()).filter(|&length| length != boundary) {
            let is_head = length == HEAD.len();
            assert_eq!(decode(&whole[..length]).is_some(), is_head, "{length}");
        }
        assert!(decode(&[HEAD, &[255; 40]].concat()).is_none());
    }
}
