//! Makes the stored states of an earlier version of an operator those that it keeps now:
//! its plugin has a transform from one to the other.
//!
//! All rows of a table are rewritten before the first row is read, and nothing else of
//! them is changed. A restore of the checkpoint undoes it.

use std::sync::Arc;

use super::entry_row::{LENGTH_BYTES, write_state};
use super::row::{Codec, RowError};
use super::shown::show_rows;
use super::stored::{StoredRows, StoredTable};
use crate::checkpoint::changes::Changes;
use crate::checkpoint::storage::StorageError;
use crate::logic::{Columns, Factory, Failure, Instance, Output, Transform, Transformed};
use crate::schema::Schema;

/// A part of the rewritten rows has about this many bytes.
const PART_BYTES: usize = 32 << 20;

/// A table of keyed state, and what makes its states those of now.
pub struct Migration {
    pub table: StoredTable,
    /// The transform from the earlier state to that of now.
    pub factory: Arc<dyn Factory>,
    pub key: Arc<Schema>,
    pub layout: Layout,
}

/// Finds the states in a row of the table, in their order.
pub type Layout =
    Box<dyn for<'a> Fn(&'a [u8], &mut Vec<&'a [u8]>) -> Result<LastState, RowError> + Send>;

/// How the last state of a row is stored. All others follow their length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastState {
    AfterLength,
    /// To the end of the row.
    Rest,
}

/// Why states cannot be migrated.
#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error("a stored row cannot be read: {0}")]
    Row(#[from] RowError),
    #[error("the migration cannot be opened: {0}")]
    Open(Failure),
    /// Of the first state that is rejected, or that the plugin fails on.
    #[error("the state of the key {key} cannot be migrated: {why}")]
    State { key: String, why: String },
}

impl Migration {
    /// Rewrites all rows, and returns how many states they have.
    pub fn run(&self) -> Result<u64, MigrationError> {
        let mut caller = Caller {
            factory: &*self.factory,
            logic: None,
            then: Codec::new(self.factory.info().inputs[0].schema.fields.clone()),
            now: Codec::new(self.factory.info().outputs[0].schema.fields.clone()),
        };
        let mut count = 0;
        let mut failed = None;
        let mut panes = self.table.panes()?.into_iter();
        let mut scan = None;
        let mut next_part = || {
            let mut part = Changes::default();
            while part.bytes() < PART_BYTES {
                if scan.is_none() {
                    scan = panes.next().map(|pane| self.table.scan(pane));
                }
                let Some(open) = &mut scan else { break };
                match self.table.next(open)? {
                    Some(rows) => match self.rewrite(&rows, &mut caller, &mut part) {
                        Ok(states) => count += states as u64,
                        Err(error) => {
                            failed = Some(error);
                            return Ok(None);
                        }
                    },
                    None => scan = None,
                }
            }
            Ok(Some(part).filter(|part| !part.is_empty()))
        };
        self.table.storage.rewrite(&mut next_part)?;
        match failed {
            Some(error) => Err(error),
            None => Ok(count),
        }
    }

    /// Adds these rows with other states, and returns how many states they have.
    fn rewrite(
        &self,
        rows: &StoredRows,
        caller: &mut Caller<'_>,
        out: &mut Changes,
    ) -> Result<usize, MigrationError> {
        let mut states = Vec::with_capacity(rows.len());
        let mut of_rows = Vec::with_capacity(rows.len());
        for (_, _, row) in rows.rows() {
            let last = (self.layout)(row, &mut states)?;
            of_rows.push((states.len(), last));
        }
        let key_of = |state: usize| {
            let row = of_rows.partition_point(|(end, _)| *end <= state);
            let key = rows.rows().nth(row).map_or(&[][..], |(_, key, _)| key);
            let shown = show_rows(&self.key, &[key]).ok();
            let shown = shown.and_then(|mut keys| keys.pop());
            shown.map_or_else(String::new, |key| key.get().to_owned())
        };
        let migrated = caller.migrate(&states, key_of)?;
        let mut first = 0;
        for ((key, (_, _, row)), (end, last)) in rows.storage_keys().zip(rows.rows()).zip(of_rows) {
            let (then, now) = (&states[first..end], &migrated[first..end]);
            out.put(
                |bytes| bytes.extend_from_slice(key),
                |bytes| write_with(row, then, now, last, bytes),
            );
            first = end;
        }
        Ok(states.len())
    }
}

/// Appends a row with other states in place of these, which are parts of it.
fn write_with(row: &[u8], then: &[&[u8]], now: &[Vec<u8>], last: LastState, out: &mut Vec<u8>) {
    let (count, mut written) = (then.len(), 0);
    for (at, (then, now)) in then.iter().zip(now).enumerate() {
        let start = then.as_ptr() as usize - row.as_ptr() as usize;
        if at + 1 == count && last == LastState::Rest {
            out.extend_from_slice(&row[written..start]);
            out.extend_from_slice(now);
        } else {
            out.extend_from_slice(&row[written..start - LENGTH_BYTES]);
            write_state(now, out);
        }
        written = start + then.len();
    }
    out.extend_from_slice(&row[written..]);
}

/// Calls the transform, on a new instance after a failure.
struct Caller<'a> {
    factory: &'a dyn Factory,
    logic: Option<Box<dyn Transform>>,
    then: Codec,
    now: Codec,
}

impl Caller<'_> {
    /// Makes a state of each. Parts on which the plugin fails are halved, since it may be
    /// for want of memory or time.
    fn migrate(
        &mut self,
        states: &[&[u8]],
        key_of: impl Fn(usize) -> String,
    ) -> Result<Vec<Vec<u8>>, MigrationError> {
        let mut migrated = Vec::with_capacity(states.len());
        let mut rest = vec![(0, states.len())];
        while let Some((from, to)) = rest.pop() {
            let columns = self.then.decode(states[from..to].iter().copied())?;
            let input = Columns {
                rows: to - from,
                columns: &columns,
            };
            match self.logic()?.transform(input) {
                Ok(answer) => {
                    let why = |(row, why)| MigrationError::State {
                        key: key_of(from + row),
                        why,
                    };
                    self.take(answer, to - from, &mut migrated)?.map_err(why)?;
                }
                Err(failure) => {
                    self.logic = None;
                    if to - from == 1 {
                        return Err(MigrationError::State {
                            key: key_of(from),
                            why: failure.to_string(),
                        });
                    }
                    let middle = from + (to - from) / 2;
                    rest.extend([(middle, to), (from, middle)]);
                }
            }
        }
        Ok(migrated)
    }

    fn logic(&mut self) -> Result<&mut dyn Transform, MigrationError> {
        let logic = match self.logic.take() {
            Some(logic) => logic,
            None => {
                let opened = self.factory.instance().and_then(Instance::transform);
                opened.map_err(MigrationError::Open)?
            }
        };
        Ok(self.logic.insert(logic).as_mut())
    }

    /// Takes the states of an answer; or the first that there is none of, and why.
    fn take(
        &self,
        answer: Transformed,
        count: usize,
        migrated: &mut Vec<Vec<u8>>,
    ) -> Result<Result<(), (usize, String)>, MigrationError> {
        if let Some(reject) = answer.rejects.into_iter().next() {
            return Ok(Err((reject.row as usize, reject.reason)));
        }
        let Output::Rows(rows) = answer.output else {
            return Ok(Err((0, "the plugin makes no states of them".to_owned())));
        };
        let parents = rows.parents.iter().copied();
        if !parents.eq(0..count as u32) {
            let why = format!("the plugin made {} states of {count}", rows.parents.len());
            return Ok(Err((0, why)));
        }
        let encoder = self.now.encoder(&rows.columns)?;
        migrated.extend((0..count).map(|row| {
            let mut state = Vec::new();
            encoder.encode(row, &mut state);
            state
        }));
        Ok(Ok(()))
    }
}
