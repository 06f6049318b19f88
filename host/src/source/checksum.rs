//! Compares the checksum that a row carries with that of its other fields.

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef};
use sha2::{Digest, Sha256};

use crate::digest::hex;
use crate::plan::{Algorithm, ChecksumPlan};
use crate::schema::Schema;
use crate::text;

/// Between the texts of two fields.
const SEPARATOR: u8 = b'\n';

/// Finds rows that are not as they were sent.
pub struct Checksums {
    plan: ChecksumPlan,
    /// The name of the field with the checksum.
    name: String,
}

impl Checksums {
    pub fn new(plan: ChecksumPlan, schema: &Schema) -> Self {
        let name = schema.fields[plan.field].name.clone();
        Checksums { plan, name }
    }

    /// The rows whose checksum is another, each with what is wrong, ascending.
    pub fn wrong(&self, columns: &[ArrayRef], rows: usize) -> Vec<(u32, String)> {
        let given = columns[self.plan.field].as_string::<i32>();
        let of: Vec<&ArrayRef> = self.plan.of.iter().map(|&at| &columns[at]).collect();
        let mut bytes = Vec::new();
        let mut wrong = Vec::new();
        for row in 0..rows {
            bytes.clear();
            for (at, column) in of.iter().enumerate() {
                if at > 0 {
                    bytes.push(SEPARATOR);
                }
                text::write_text(&mut bytes, column, row);
            }
            let expected = checksum(self.plan.algorithm, &bytes);
            let found = given.is_valid(row).then(|| given.value(row));
            if !found.is_some_and(|found| found.eq_ignore_ascii_case(&expected)) {
                wrong.push((row as u32, self.what_is_wrong(&expected, found)));
            }
        }
        wrong
    }

    #[cold]
    fn what_is_wrong(&self, expected: &str, found: Option<&str>) -> String {
        let (name, algorithm) = (&self.name, self.plan.algorithm.name());
        let found = found.map_or("null".to_owned(), |found| format!("`{found}`"));
        format!("field `{name}`: expected the {algorithm} of the row, `{expected}`, found {found}")
    }
}

/// In hexadecimal digits.
fn checksum(algorithm: Algorithm, bytes: &[u8]) -> String {
    match algorithm {
        Algorithm::Crc32 => format!("{:08x}", crc32fast::hash(bytes)),
        Algorithm::Sha256 => hex(&Sha256::digest(bytes)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{BooleanArray, Int64Array, StringArray, TimestampMillisecondArray};

    use super::*;
    use crate::schema::{DataType, Field};

    /// The checksums were computed by Python's zlib and hashlib.
    #[test]
    fn rows_that_are_not_as_they_were_sent_are_found() {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(vec!["ann", "ann", "bob", "Zürich", "x"])),
            Arc::new(Int64Array::from(vec![
                Some(3),
                Some(4),
                Some(3),
                None,
                None,
            ])),
            Arc::new(BooleanArray::from(vec![true, true, false, false, true])),
            Arc::new(TimestampMillisecondArray::from(vec![0, 0, 1, 1_500, 0]).with_timezone("UTC")),
            Arc::new(StringArray::from(vec![
                Some("4BC1D2E7"),
                Some("4bc1d2e7"),
                Some(""),
                Some("0d3d2b3e"),
                None,
            ])),
        ];
        let names = ["user", "count", "is_new", "at", "checksum"];
        let field = |name| Field::new(name, DataType::Utf8, true);
        let schema = Schema::new(names.map(field).to_vec());
        let plan = ChecksumPlan {
            algorithm: Algorithm::Crc32,
            field: 4,
            of: vec![0, 1, 2, 3],
        };
        let wrong = Checksums::new(plan, &schema).wrong(&columns, 5);
        let rows: Vec<u32> = wrong.iter().map(|(row, _)| *row).collect();
        assert_eq!(rows, [1, 2, 4], "{wrong:?}");
        assert_eq!(
            wrong[1].1,
            "field `checksum`: expected the crc32 of the row, `7b797d0c`, found ``"
        );
    }

    #[test]
    fn sha256_is_in_hexadecimal_digits() {
        assert_eq!(
            checksum(Algorithm::Sha256, b"abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
