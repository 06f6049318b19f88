//! Makes the stored states of an earlier version of an operator those that it keeps now:
//! its plugin has a transform from one to the other.
//!
//! All rows of a table are rewritten before the first row is read, and nothing else of
//! them is changed; a row with a state that is lost is deleted. A restore of the checkpoint
//! undoes it.

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
    /// How many states may be lost, to become dead letters.
    pub lost_max: usize,
}

/// What became of the states of a table.
#[derive(Debug, Default)]
pub struct Migrated {
    pub states: u64,
    /// Those that there is no state of now.
    pub lost: Vec<LostState>,
}

/// A state that the plugin rejects, or fails on.
#[derive(Debug)]
pub struct LostState {
    /// As JSON.
    pub key: String,
    /// As JSON, of the earlier version.
    pub state: String,
    pub why: String,
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
    /// Of the first state that is lost, and must not be.
    #[error("the state of the key {key} cannot be migrated: {why}")]
    State { key: String, why: String },
    #[error(
        "{} of its states and more cannot be migrated, the first one of the key {}: {}",
        .lost.len(), .lost[0].key, .lost[0].why
    )]
    States { lost: Vec<LostState> },
}

impl Migration {
    /// Rewrites all rows.
    pub fn run(&self) -> Result<Migrated, MigrationError> {
        let info = self.factory.info();
        let mut caller = Caller {
            factory: &*self.factory,
            logic: None,
            then: Codec::new(info.inputs[0].schema.fields.clone()),
            now: Codec::new(info.outputs[0].schema.fields.clone()),
        };
        let mut migrated = Migrated::default();
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
                    Some(rows) => {
                        if let Err(error) =
                            self.rewrite(&rows, &mut caller, &mut migrated, &mut part)
                        {
                            failed = Some(error);
                            return Ok(None);
                        }
                    }
                    None => scan = None,
                }
            }
            Ok(Some(part).filter(|part| !part.is_empty()))
        };
        self.table.storage.rewrite(&mut next_part)?;
        match failed {
            Some(error) => Err(error),
            None => Ok(migrated),
        }
    }

    /// Adds these rows with other states, and deletes those that have none any more.
    fn rewrite(
        &self,
        rows: &StoredRows,
        caller: &mut Caller<'_>,
        migrated: &mut Migrated,
        out: &mut Changes,
    ) -> Result<(), MigrationError> {
        let mut states = Vec::with_capacity(rows.len());
        let mut of_rows = Vec::with_capacity(rows.len());
        for (_, _, row) in rows.rows() {
            let last = (self.layout)(row, &mut states)?;
            of_rows.push((states.len(), last));
        }
        let left = self.lost_max - migrated.lost.len();
        let made = caller.migrate(&states, left)?;
        let mut first = 0;
        for ((stored, (_, key, row)), (end, last)) in
            rows.storage_keys().zip(rows.rows()).zip(of_rows)
        {
            let (then, made) = (&states[first..end], &made[first..end]);
            first = end;
            let now: Result<Vec<&[u8]>, &str> = made
                .iter()
                .map(|made| made.as_deref().map_err(String::as_str))
                .collect();
            match now {
                Ok(now) => {
                    migrated.states += now.len() as u64;
                    out.put(
                        |bytes| bytes.extend_from_slice(stored),
                        |bytes| write_with(row, then, &now, last, bytes),
                    );
                }
                Err(why) if self.lost_max == 0 => {
                    return Err(MigrationError::State {
                        key: shown(&self.key, key),
                        why: why.to_owned(),
                    });
                }
                Err(_) => {
                    for (state, made) in then.iter().zip(made) {
                        let why = made.as_ref().err().map_or(BESIDE, String::as_str);
                        self.lose(key, state, why, migrated)?;
                    }
                    out.delete(|bytes| bytes.extend_from_slice(stored));
                }
            }
        }
        Ok(())
    }

    /// Notes a state that is lost, unless too many are.
    fn lose(
        &self,
        key: &[u8],
        state: &[u8],
        why: &str,
        migrated: &mut Migrated,
    ) -> Result<(), MigrationError> {
        migrated.lost.push(LostState {
            key: shown(&self.key, key),
            state: shown(&self.factory.info().inputs[0].schema, state),
            why: why.to_owned(),
        });
        match migrated.lost.len() > self.lost_max {
            true => Err(MigrationError::States {
                lost: std::mem::take(&mut migrated.lost),
            }),
            false => Ok(()),
        }
    }
}

/// A row as JSON; empty if it cannot be read.
fn shown(schema: &Schema, row: &[u8]) -> String {
    let shown = show_rows(schema, &[row]).ok();
    let shown = shown.and_then(|mut rows| rows.pop());
    shown.map_or_else(String::new, |row| row.get().to_owned())
}

/// Why a state is lost that can be migrated, or may be.
const BESIDE: &str = "another state of the key cannot be migrated";

/// Appends a row with other states in place of these, which are parts of it.
fn write_with(row: &[u8], then: &[&[u8]], now: &[&[u8]], last: LastState, out: &mut Vec<u8>) {
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
    /// Makes a state of each, or says why not. Parts on which the plugin fails are halved,
    /// since it may be for want of memory or time. Behind one more that is lost than may be,
    /// none is tried: each may take as long as a call may.
    fn migrate(
        &mut self,
        states: &[&[u8]],
        lost_max: usize,
    ) -> Result<Vec<Result<Vec<u8>, String>>, MigrationError> {
        let mut migrated: Vec<Result<Vec<u8>, String>> = Vec::with_capacity(states.len());
        let mut rest = vec![(0, states.len())];
        let mut lost = 0;
        while let Some((from, to)) = rest.pop() {
            if lost > lost_max {
                migrated.resize(states.len(), Err(BESIDE.to_owned()));
                break;
            }
            let columns = self.then.decode(states[from..to].iter().copied())?;
            let input = Columns {
                rows: to - from,
                columns: &columns,
            };
            match self.logic()?.transform(input) {
                Ok(answer) => self.take(answer, to - from, &mut migrated)?,
                Err(failure) => {
                    self.logic = None;
                    match to - from {
                        1 => migrated.push(Err(failure.to_string())),
                        count => {
                            let middle = from + count / 2;
                            rest.extend([(middle, to), (from, middle)]);
                        }
                    }
                }
            }
            let made = migrated.get(from..).unwrap_or_default();
            lost += made.iter().filter(|made| made.is_err()).count();
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

    /// Takes the states of an answer to so many.
    fn take(
        &self,
        answer: Transformed,
        count: usize,
        migrated: &mut Vec<Result<Vec<u8>, String>>,
    ) -> Result<(), MigrationError> {
        let first = migrated.len();
        let nothing = || Err("the plugin makes no state of it".to_owned());
        migrated.extend((0..count).map(|_| nothing()));
        let made = &mut migrated[first..];
        for reject in answer.rejects {
            if let Some(made) = made.get_mut(reject.row as usize) {
                *made = Err(reject.reason);
            }
        }
        let Output::Rows(rows) = answer.output else {
            return Ok(());
        };
        let encoder = self.now.encoder(&rows.columns)?;
        let mut before = None;
        for (row, &parent) in rows.parents.iter().enumerate() {
            let Some(made) = made.get_mut(parent as usize) else {
                continue;
            };
            *made = match before == Some(parent) {
                true => Err("the plugin makes several states of it".to_owned()),
                false => {
                    let mut state = Vec::new();
                    encoder.encode(row, &mut state);
                    Ok(state)
                }
            };
            before = Some(parent);
        }
        Ok(())
    }
}
