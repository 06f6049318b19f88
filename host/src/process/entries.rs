//! What a process keeps for each key: its state and its timers.

use super::tables::{HAS_EVENT_TIMERS, HAS_PROCESSING_TIMERS, HAS_STATE};
use crate::state::calendar::NEVER;
use crate::state::entry_row::{EntryReader, write_i64, write_length, write_state};
use crate::state::groups::NO_SLOT;
use crate::state::keyed::Entries;
use crate::state::row::RowError;
use crate::state::table::StateTable;
use crate::state::timer::Timers;

/// The entries by key, and when they are due.
pub(super) struct ProcessEntries {
    /// How long a state without timers is kept after its key's last row, in event time.
    ttl_ms: Option<i64>,
    entries: Vec<Entry>,
    /// When to look at a key: at its first timer, or whether its state has expired.
    event: Timers,
    processing: Timers,
    /// Bytes that the timers of keys take.
    timer_bytes: usize,
}

pub(super) struct Entry {
    /// [`NO_SLOT`] without a state.
    pub slot: u32,
    /// Event time of its newest row.
    pub newest_ms: i64,
    timers: Option<Box<KeyTimers>>,
    /// When `event` and `processing` have the key; other times there are out of date.
    event_at_ms: i64,
    processing_at_ms: i64,
}

/// The timers of a key, by time, then by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct KeyTimers {
    pub event: Vec<KeyTimer>,
    pub processing: Vec<KeyTimer>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KeyTimer {
    pub time_ms: i64,
    pub name: Box<str>,
}

/// A row of the storage.
pub(super) struct StoredEntry {
    pub newest_ms: i64,
    has_state: bool,
    pub timers: Option<Box<KeyTimers>>,
}

impl Default for Entry {
    fn default() -> Self {
        Entry {
            slot: NO_SLOT,
            newest_ms: i64::MIN,
            timers: None,
            event_at_ms: NEVER,
            processing_at_ms: NEVER,
        }
    }
}

impl KeyTimers {
    fn bytes(&self) -> usize {
        let timers = self.event.iter().chain(&self.processing);
        size_of::<Self>()
            + timers
                .map(|timer| size_of::<KeyTimer>() + timer.name.len())
                .sum::<usize>()
    }
}

impl ProcessEntries {
    /// `horizon_ms` is how far ahead keys are usually due.
    pub fn new(ttl_ms: Option<i64>, horizon_ms: i64) -> Self {
        ProcessEntries {
            ttl_ms,
            entries: Vec::new(),
            event: Timers::new(horizon_ms),
            processing: Timers::new(horizon_ms),
            timer_bytes: 0,
        }
    }

    pub fn entry(&mut self, id: u32) -> &mut Entry {
        let index = id as usize;
        if index >= self.entries.len() {
            self.entries.resize_with(index + 1, Entry::default);
        }
        &mut self.entries[index]
    }

    pub fn slot(&self, id: u32) -> u32 {
        self.entries
            .get(id as usize)
            .map_or(NO_SLOT, |entry| entry.slot)
    }

    pub fn newest_ms(&self, id: u32) -> i64 {
        self.entries[id as usize].newest_ms
    }

    pub fn timers(&self, id: u32) -> Option<&KeyTimers> {
        self.entries[id as usize].timers.as_deref()
    }

    /// Whether nothing is to be kept of the key.
    pub fn is_empty(&self, id: u32) -> bool {
        let entry = &self.entries[id as usize];
        entry.slot == NO_SLOT && entry.timers.is_none()
    }

    /// Whether the state would have expired at this time, if the key has no timers.
    pub fn is_over(&self, id: u32, now_ms: i64) -> bool {
        let entry = &self.entries[id as usize];
        let over = |ttl_ms| entry.newest_ms.saturating_add(ttl_ms) < now_ms;
        entry.newest_ms > i64::MIN && self.ttl_ms.is_some_and(over)
    }

    pub fn has_ttl(&self) -> bool {
        self.ttl_ms.is_some()
    }

    /// Sets all timers of a key, which are in order.
    pub fn set_timers(&mut self, id: u32, timers: KeyTimers) {
        let timers = match timers.event.is_empty() && timers.processing.is_empty() {
            true => None,
            false => Some(Box::new(timers)),
        };
        let entry = self.entry(id);
        let before = std::mem::replace(&mut entry.timers, timers);
        let bytes = |timers: &Option<Box<KeyTimers>>| timers.as_ref().map_or(0, |it| it.bytes());
        let (less, more) = (bytes(&before), bytes(&self.entries[id as usize].timers));
        self.timer_bytes = self.timer_bytes + more - less;
    }

    pub fn remove_timer(&mut self, id: u32, name: &str, in_processing_time: bool) {
        let mut timers = self.timers(id).cloned().unwrap_or_default();
        let list = match in_processing_time {
            true => &mut timers.processing,
            false => &mut timers.event,
        };
        list.retain(|timer| *timer.name != *name);
        self.set_timers(id, timers);
    }

    /// Notes when the key is due next.
    pub fn arm(&mut self, id: u32) {
        let (event_ms, processing_ms) = (self.due_of(id), self.processing_due_of(id));
        let entry = &mut self.entries[id as usize];
        if event_ms < entry.event_at_ms {
            entry.event_at_ms = event_ms;
            self.event.set(event_ms, id);
        }
        if processing_ms < entry.processing_at_ms {
            entry.processing_at_ms = processing_ms;
            self.processing.set(processing_ms, id);
        }
    }

    /// Takes the keys in memory that are due at these times, each once.
    pub fn take_due(&mut self, event_ms: i64, processing_ms: i64) -> Vec<u32> {
        let entries = &mut self.entries;
        let by_event = self
            .event
            .take_noted(event_ms, entries, |entry| &mut entry.event_at_ms);
        let by_processing = self
            .processing
            .take_noted(processing_ms, entries, |entry| &mut entry.processing_at_ms);
        let mut due = Vec::new();
        for id in by_event.into_iter().chain(by_processing) {
            match self.due_of(id) <= event_ms || self.processing_due_of(id) <= processing_ms {
                true => due.push(id),
                false => self.arm(id),
            }
        }
        due.sort_unstable();
        due.dedup();
        due
    }

    /// When the first key in memory is due in processing time, or before.
    pub fn next_processing_ms(&self) -> Option<i64> {
        self.processing.next()
    }
}

/// The first timer's time; without timers, when the state has expired.
fn due_ms(timers: Option<&KeyTimers>, has_state: bool, newest_ms: i64, ttl_ms: Option<i64>) -> i64 {
    match (timers, ttl_ms) {
        (Some(timers), _) => timers.event.first().map_or(NEVER, |timer| timer.time_ms),
        (None, Some(ttl_ms)) if has_state => newest_ms.saturating_add(ttl_ms).saturating_add(1),
        (None, _) => NEVER,
    }
}

fn processing_due_ms(timers: Option<&KeyTimers>) -> i64 {
    let first = timers.and_then(|timers| timers.processing.first());
    first.map_or(NEVER, |timer| timer.time_ms)
}

impl Entries for ProcessEntries {
    type Entry = StoredEntry;

    const BYTES: usize = size_of::<Entry>();

    fn read<'a>(&self, row: &'a [u8], states: &mut Vec<&'a [u8]>) -> Result<Self::Entry, RowError> {
        read_entry(row, states)
    }

    fn write(&self, id: u32, states: &[&[u8]], row: &mut Vec<u8>) {
        let entry = &self.entries[id as usize];
        write_i64(entry.newest_ms, row);
        let lists = match &entry.timers {
            Some(timers) => [&timers.event[..], &timers.processing[..]],
            None => [&[][..], &[]],
        };
        let mut flags = 0;
        for (list, flag) in lists.iter().zip([HAS_EVENT_TIMERS, HAS_PROCESSING_TIMERS]) {
            if !list.is_empty() {
                flags |= flag;
            }
        }
        if !states.is_empty() {
            flags |= HAS_STATE;
        }
        row.push(flags);
        for list in lists.into_iter().filter(|list| !list.is_empty()) {
            write_length(list.len(), row);
            for timer in list {
                write_i64(timer.time_ms, row);
                write_state(timer.name.as_bytes(), row);
            }
        }
        row.extend(states.iter().copied().flatten());
    }

    fn slots(&self, id: u32, slots: &mut Vec<u32>) {
        slots.extend(Some(self.slot(id)).filter(|&slot| slot != NO_SLOT));
    }

    fn has_row(&self, id: u32) -> bool {
        !self.is_empty(id)
    }

    fn insert(&mut self, id: u32, stored: StoredEntry, slots: &mut dyn Iterator<Item = u32>) {
        let entry = self.entry(id);
        entry.newest_ms = stored.newest_ms;
        entry.slot = match stored.has_state {
            true => slots.next().unwrap_or(NO_SLOT),
            false => NO_SLOT,
        };
        self.set_timers(id, stored.timers.map(|timers| *timers).unwrap_or_default());
        self.arm(id);
    }

    fn evict(&mut self, id: u32, states: &mut StateTable) {
        self.set_timers(id, KeyTimers::default());
        let entry = std::mem::take(self.entry(id));
        if entry.slot != NO_SLOT {
            states.release(entry.slot);
        }
    }

    fn is_pinned(&self, _id: u32) -> bool {
        false
    }

    fn bytes(&self) -> usize {
        self.timer_bytes
    }

    fn due_ms(&self, entry: &StoredEntry) -> i64 {
        let timers = entry.timers.as_deref();
        due_ms(timers, entry.has_state, entry.newest_ms, self.ttl_ms)
    }

    fn due_of(&self, id: u32) -> i64 {
        let entry = &self.entries[id as usize];
        let has_state = entry.slot != NO_SLOT;
        due_ms(
            entry.timers.as_deref(),
            has_state,
            entry.newest_ms,
            self.ttl_ms,
        )
    }

    fn processing_due_ms(&self, entry: &StoredEntry) -> i64 {
        processing_due_ms(entry.timers.as_deref())
    }

    fn processing_due_of(&self, id: u32) -> i64 {
        processing_due_ms(self.timers(id))
    }
}

/// Reads a row of the storage, and appends its state to `states`.
pub(super) fn read_entry<'a>(
    row: &'a [u8],
    states: &mut Vec<&'a [u8]>,
) -> Result<StoredEntry, RowError> {
    let mut reader = EntryReader(row);
    let newest_ms = reader.i64()?;
    let flags = reader.flags()?;
    let mut list = |flag| match flags & flag {
        0 => Ok(Vec::new()),
        _ => read_timers(&mut reader),
    };
    let timers = KeyTimers {
        event: list(HAS_EVENT_TIMERS)?,
        processing: list(HAS_PROCESSING_TIMERS)?,
    };
    let has_state = flags & HAS_STATE != 0;
    if has_state {
        states.push(reader.last_state());
    }
    let has_timers = flags & (HAS_EVENT_TIMERS | HAS_PROCESSING_TIMERS) != 0;
    Ok(StoredEntry {
        newest_ms,
        has_state,
        timers: has_timers.then(|| Box::new(timers)),
    })
}

fn read_timers(reader: &mut EntryReader<'_>) -> Result<Vec<KeyTimer>, RowError> {
    let count = reader.length()?;
    let mut timers = Vec::new();
    for _ in 0..count {
        let time_ms = reader.i64()?;
        let name = std::str::from_utf8(reader.state()?);
        let name = name.map_err(|_| RowError::new("the name of a timer is not UTF-8"))?;
        timers.push(KeyTimer {
            time_ms,
            name: name.into(),
        });
    }
    Ok(timers)
}
