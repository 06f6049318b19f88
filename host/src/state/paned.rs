//! Keyed state in panes of time: each pane has keys of its own, and is dropped as a
//! whole.

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
    /// The index in `panes` of each pane.
    places: BTreeMap<i64, u32>,
    panes: Vec<KeyedStates<E>>,
    /// Indices of unused elements of `panes`.
    spare: Vec<u32>,
    /// Dropped panes whose rows the next checkpoint deletes.
    dropped: Vec<i64>,
}

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
        let PanedStates {
            table,
            empty,
            horizon_ms,
            places,
            panes,
            spare,
            ..
        } = self;
        *places.entry(pane).or_insert_with(|| match spare.pop() {
            Some(place) => {
                panes[place as usize].clear(pane);
                place
            }
            None => {
                panes.push(KeyedStates::new(
                    table.clone(),
                    pane,
                    *horizon_ms,
                    empty.clone(),
                ));
                (panes.len() - 1) as u32
            }
        })
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
        for (&pane, &place) in self.places.range(panes) {
            let keyed = &mut self.panes[place as usize];
            keyed.read_back(states, batch, |run| pane_of(run) == pane)?;
        }
        Ok(())
    }

    /// Panes in order, and their places.
    pub fn range(&self, panes: impl RangeBounds<i64>) -> impl Iterator<Item = (i64, u32)> {
        self.places
            .range(panes)
            .map(|(&pane, &place)| (pane, place))
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
        let (pane, place) = first.remove_entry();
        let keyed = &mut self.panes[place as usize];
        if keyed.has_stored() {
            self.dropped.push(pane);
        }
        keyed.entries.clear(states);
        keyed.clear(pane);
        self.spare.push(place);
        true
    }

    fn all(&self) -> impl Iterator<Item = &KeyedStates<E>> {
        self.places.values().map(|&place| self.at(place))
    }
}

impl<E: PaneEntries> KeyedPart for PanedStates<E> {
    fn bytes(&self) -> usize {
        self.all().map(KeyedPart::bytes).sum()
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
        self.all().any(KeyedPart::has_evicted)
    }

    fn evict(&mut self, states: &mut StateTable, keys: usize) {
        let mut left = keys;
        for &place in self.places.values() {
            let keyed = &mut self.panes[place as usize];
            let before = keyed.keys().len();
            keyed.evict(states, left);
            left -= before - keyed.keys().len();
        }
    }

    fn snapshot(&mut self, states: &StateTable, changes: &mut Changes) -> Result<(), StateError> {
        if let Some(stored) = &self.table.stored {
            for pane in self.dropped.drain(..) {
                stored.delete_pane(pane, changes);
            }
        }
        for &place in self.places.values() {
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

    fn leave_evicted(&mut self, rows: &StoredRows) -> Result<bool, StateError> {
        let Some(pane) = rows.pane() else {
            return Ok(true);
        };
        let place = self.place(pane);
        self.at_mut(place).leave_evicted(rows)
    }

    fn look(&self, states: &StateTable, look: &Look, seen: &mut Seen) -> Result<(), StateError> {
        for (pane, place) in self.range(look.from.pane..) {
            if seen.is_full() {
                seen.next = Some(Place::of(pane));
                return Ok(());
            }
            let from = match pane == look.from.pane {
                true => look.from.clone(),
                false => Place::of(pane),
            };
            self.at(place).look(
                states,
                &Look {
                    from,
                    ..look.clone()
                },
                seen,
            )?;
            if seen.next.is_some() {
                return Ok(());
            }
        }
        Ok(())
    }
}
