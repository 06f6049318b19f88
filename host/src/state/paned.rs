//! Keyed state in panes of time: each pane has keys of its own, and is dropped as a
//! whole.
//!
//! A pane all of whose keys were evicted takes next to nothing in memory: there may be
//! one for each second for which a side of a join has been silent.

use std::collections::BTreeMap;
use std::ops::{RangeBounds, RangeInclusive};
use std::sync::Arc;

use super::error::StateError;
use super::key::BatchKeys;
use super::keyed::{Entries, KeyedPart, KeyedStates, KeyedTable};
use super::look::{Look, Place, Seen};
use super::stored::{Scan, StoredRows};
use super::table::StateTable;
use crate::checkpoint::changes::Changes;

/// Entries of a pane.
pub trait PaneEntries: Entries + Clone {
    /// Removes all entries, releases their slots, and keeps the allocated memory.
    fn clear(&mut self, states: &mut StateTable);
}

pub struct PanedStates<E> {
    table: Arc<KeyedTable>,
    /// The entries of a new pane.
    empty: E,
    /// How far ahead the keys of a pane are usually due.
    horizon_ms: i64,
    /// Where each pane is.
    places: BTreeMap<i64, Whereabouts>,
    panes: Vec<KeyedStates<E>>,
    /// Indices of unused elements of `panes`.
    spare: Vec<u32>,
    /// Dropped panes whose rows the next checkpoint deletes.
    dropped: Vec<i64>,
}

/// Where the keys of a pane are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whereabouts {
    /// Some may be in memory: its index in `panes`.
    Memory(u32),
    /// All are in the storage alone, and none is due before this.
    Storage { due_ms: i64 },
}

/// How many unused panes keep the memory that they had.
const SPARE_WITH_MEMORY: usize = 8;

impl<E: PaneEntries> PanedStates<E> {
    /// `horizon_ms` is how far ahead the keys of a pane are usually due, if ever.
    pub fn new(table: Arc<KeyedTable>, horizon_ms: i64, empty: E) -> Self {
        PanedStates {
            table,
            empty,
            horizon_ms,
            places: BTreeMap::new(),
            panes: Vec::new(),
            spare: Vec::new(),
            dropped: Vec::new(),
        }
    }

    /// The place of a pane, which is made if it does not exist.
    pub fn place(&mut self, pane: i64) -> u32 {
        let due_ms = match self.places.get(&pane) {
            Some(&Whereabouts::Memory(place)) => return place,
            Some(&Whereabouts::Storage { due_ms }) => Some(due_ms),
            None => None,
        };
        let place = match self.spare.pop() {
            Some(place) => {
                self.panes[place as usize].clear(pane);
                place
            }
            None => {
                self.panes.push(self.unknown(pane));
                (self.panes.len() - 1) as u32
            }
        };
        if let Some(due_ms) = due_ms {
            self.panes[place as usize].set_evicted(due_ms);
        }
        self.places.insert(pane, Whereabouts::Memory(place));
        place
    }

    /// A pane of which nothing is in memory.
    fn unknown(&self, pane: i64) -> KeyedStates<E> {
        let entries = self.empty.clone();
        KeyedStates::new(self.table.clone(), pane, self.horizon_ms, entries)
    }

    pub fn at(&self, place: u32) -> &KeyedStates<E> {
        &self.panes[place as usize]
    }

    pub fn at_mut(&mut self, place: u32) -> &mut KeyedStates<E> {
        &mut self.panes[place as usize]
    }

    /// Reads evicted keys of a batch back in these panes. `pane_of` returns the pane
    /// of a run.
    pub fn read_back(
        &mut self,
        panes: RangeInclusive<i64>,
        states: &mut StateTable,
        batch: &BatchKeys,
        pane_of: impl Fn(usize) -> i64,
    ) -> Result<(), StateError> {
        let in_storage = self.places.range(panes.clone());
        let in_storage = in_storage.filter(|(_, at)| matches!(at, Whereabouts::Storage { .. }));
        let mut wanted: Vec<i64> = in_storage.map(|(&pane, _)| pane).collect();
        if !wanted.is_empty() {
            let mut of_batch: Vec<i64> = (0..batch.runs()).map(&pane_of).collect();
            of_batch.sort_unstable();
            wanted.retain(|pane| of_batch.binary_search(pane).is_ok());
        }
        for pane in wanted {
            self.place(pane);
        }
        for (pane, place) in self.in_memory(panes).collect::<Vec<_>>() {
            let keyed = &mut self.panes[place as usize];
            keyed.read_back(states, batch, |run| pane_of(run) == pane)?;
        }
        Ok(())
    }

    /// Panes in order. Who needs the places of many calls [`PanedStates::put_back`] after
    /// each.
    pub fn range(&self, panes: impl RangeBounds<i64>) -> impl Iterator<Item = i64> {
        self.places.range(panes).map(|(&pane, _)| pane)
    }

    /// Panes that may have keys in memory, in order, and their places.
    pub fn in_memory(&self, panes: impl RangeBounds<i64>) -> impl Iterator<Item = (i64, u32)> {
        let panes = self.places.range(panes);
        panes.filter_map(|(&pane, at)| match at {
            Whereabouts::Memory(place) => Some((pane, *place)),
            Whereabouts::Storage { .. } => None,
        })
    }

    /// Gives back what a pane takes in memory, if all of its keys are in the storage alone.
    /// Its place is that of another pane then.
    pub fn put_back(&mut self, pane: i64) {
        let Some(at) = self.places.get_mut(&pane) else {
            return;
        };
        if let Whereabouts::Memory(place) = *at
            && let Some(due_ms) = self.panes[place as usize].all_evicted()
        {
            *at = Whereabouts::Storage { due_ms };
            self.panes[place as usize] = self.unknown(pane);
            self.spare.push(place);
        }
    }

    /// Drops the first pane, if `is_over` is true for it.
    pub fn drop_first(
        &mut self,
        states: &mut StateTable,
        is_over: impl FnOnce(i64) -> bool,
    ) -> bool {
        let Some(first) = self
            .places
            .first_entry()
            .filter(|first| is_over(*first.key()))
        else {
            return false;
        };
        let (pane, at) = first.remove_entry();
        let Whereabouts::Memory(place) = at else {
            self.dropped.push(pane);
            return true;
        };
        let keyed = &mut self.panes[place as usize];
        if keyed.has_stored() {
            self.dropped.push(pane);
        }
        keyed.entries.clear(states);
        keyed.clear(pane);
        if self.spare.len() >= SPARE_WITH_MEMORY {
            self.panes[place as usize] = self.unknown(pane);
        }
        self.spare.push(place);
        true
    }

    /// Those in memory, and unused ones, which have nothing.
    fn all(&self) -> impl Iterator<Item = &KeyedStates<E>> {
        self.panes.iter()
    }
}

impl<E: PaneEntries> KeyedPart for PanedStates<E> {
    fn bytes(&self) -> usize {
        let places = self.places.len() * size_of::<(i64, Whereabouts)>();
        let panes = self.panes.len() * size_of::<KeyedStates<E>>();
        places + panes + self.all().map(KeyedPart::bytes).sum::<usize>()
    }

    fn keys_in_memory(&self) -> usize {
        self.all().map(KeyedPart::keys_in_memory).sum()
    }

    fn changed(&self) -> usize {
        self.all().map(KeyedPart::changed).sum()
    }

    fn deletions(&self) -> usize {
        self.all().map(KeyedPart::deletions).sum()
    }

    fn has_evicted(&self) -> bool {
        self.places.len() > self.panes.len() - self.spare.len()
            || self.all().any(KeyedPart::has_evicted)
    }

    fn evict(&mut self, states: &mut StateTable, keys: usize) {
        let mut left = keys;
        for (pane, place) in self.in_memory(..).collect::<Vec<_>>() {
            let keyed = &mut self.panes[place as usize];
            let before = keyed.keys().len();
            keyed.evict(states, left);
            left -= before - keyed.keys().len();
            self.put_back(pane);
        }
    }

    fn snapshot(&mut self, states: &StateTable, changes: &mut Changes) -> Result<(), StateError> {
        if let Some(stored) = &self.table.stored {
            for pane in self.dropped.drain(..) {
                stored.delete_pane(pane, changes);
            }
        }
        for (_, place) in self.in_memory(..).collect::<Vec<_>>() {
            self.panes[place as usize].snapshot(states, changes)?;
        }
        Ok(())
    }

    fn scans(&self) -> Result<Vec<Scan>, StateError> {
        let Some(stored) = &self.table.stored else {
            return Ok(Vec::new());
        };
        let panes = stored.panes()?.into_iter();
        Ok(panes.map(|pane| stored.scan(pane)).collect())
    }

    fn restore(&mut self, states: &mut StateTable, rows: &StoredRows) -> Result<(), StateError> {
        let Some(pane) = rows.pane() else {
            return Ok(());
        };
        let place = self.place(pane);
        self.at_mut(place).restore(states, rows)
    }

    fn leave_evicted(
        &mut self,
        states: &mut StateTable,
        rows: StoredRows,
    ) -> Result<bool, StateError> {
        let Some(pane) = rows.pane() else {
            return Ok(true);
        };
        let place = self.place(pane);
        self.at_mut(place).leave_evicted(states, rows)
    }

    fn look(&self, states: &StateTable, look: &Look, seen: &mut Seen) -> Result<(), StateError> {
        for (&pane, &at) in self.places.range(look.from.pane..) {
            if seen.is_full() {
                seen.next = Some(Place::of(pane));
                return Ok(());
            }
            let from = match pane == look.from.pane {
                true => look.from.clone(),
                false => Place::of(pane),
            };
            let look = Look {
                from,
                ..look.clone()
            };
            match at {
                Whereabouts::Memory(place) => self.at(place).look(states, &look, seen)?,
                Whereabouts::Storage { due_ms } => {
                    let mut keyed = self.unknown(pane);
                    keyed.set_evicted(due_ms);
                    keyed.look(states, &look, seen)?;
                }
            }
            if seen.next.is_some() {
                return Ok(());
            }
        }
        Ok(())
    }
}
