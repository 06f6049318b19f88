//! Reads the key of a message as a row: an object with the key's fields, or the value of the
//! only one; perhaps in the envelope that Kafka Connect has for what it writes with a schema.

use super::super::fault::RowFault;
use super::members::members;
use super::scanner::Scanner;
use super::{JsonRows, Parser};

impl JsonRows {
    /// Adds the row of a key; after an error, [`Self::truncate`] must follow.
    pub fn push_key(&mut self, key: &[u8]) -> Result<(), RowFault> {
        let scanner = Scanner::new(key, 0, key.len());
        let start = scanner.skip_space(0);
        let payload = self.payload(scanner, key, start)?;
        let at = payload.unwrap_or(start);
        let is_record = scanner.peek(at) == Some(b'{');
        let mut parser = Parser {
            scanner,
            scratch: &mut self.scratch,
        };
        let behind = match (self.rows.fields.as_mut_slice(), is_record) {
            ([field], false) => {
                let nested = &mut self.shape.nested[0];
                let behind = parser.value(at, &mut field.column, nested);
                let behind = behind.map_err(|fault| fault.within(&field.name))?;
                self.rows.end();
                behind
            }
            _ => parser.record(at, &mut self.rows, &mut self.shape)?,
        };
        match payload {
            // Its envelope was read.
            Some(_) => Ok(()),
            None => scanner.finish(behind),
        }
    }

    /// Where the payload of an envelope is, if a key has one.
    fn payload(
        &mut self,
        scanner: Scanner<'_>,
        key: &[u8],
        start: usize,
    ) -> Result<Option<usize>, RowFault> {
        const PAYLOAD: &str = "payload";
        let is_field = self.shape.by_name.contains_key(PAYLOAD.as_bytes());
        if is_field || scanner.peek(start) != Some(b'{') {
            return Ok(None);
        }
        let ([payload], behind) = members(scanner, key, start, [PAYLOAD], &mut self.scratch)?;
        scanner.finish(behind)?;
        Ok(payload.map(|payload| payload.start))
    }
}
