//! Session windows: rows of a key that are at most a gap apart, in event time.
//!
//! A session lasts from its first row to a gap after its last one, inclusive; so it
//! fires when the watermark has passed its end. A row may extend a session, or fill
//! the gap between two sessions and join them. Joined sessions keep a state each, in
//! order of time, until the joined session fires; rows are folded into the last
//! state. So results do not depend on where batches are cut, for every plugin for
//! which it makes no difference whether a row is folded in before or after its state
//! is merged with earlier ones.
//!
//! With allowed lateness, a session that has fired is kept, and later rows that reach
//! it correct it: its result is emitted again. If it has another span now, the result
//! of the former one is withdrawn, where results tell their timing. A reader of changes
//! has the results of all sessions that a row reaches taken back, before that of the one
//! in their place comes.
//!
//! A row is in time if a session of it alone could still be corrected, if it lies within
//! a session that can, or if it extends such a session and is not later than that by
//! more than another gap. When no row can correct a session any more, its state goes,
//! but when it ended is known for as long as a row in time could reach it: that row is
//! late. So sessions of a key never overlap. When the inputs end, all sessions are over: a
//! row of a later run is late if it is not newer than all rows before, or reaches one of
//! those sessions.

use super::accumulators::{Accumulators, Arrived, Merges};
use super::changes::Change;
use super::early::EarlyKeys;
use super::ended::{EndedSessions, Over};
use super::kind::WindowKind;
use super::results::{Ids, Results, Spans};
use super::tables::{EARLY, FIRED, FRESH, SHOWN};
use super::time::{Span, TIME_MAX_MS};
use crate::checkpoint::changes::Changes;
use crate::chunked::ChunkedList;
use crate::operator::Outbox;
use crate::operator::error::KeyedError;
use crate::plan::{AggregatePlan, LATE_OUTPUT, Timing};
use crate::state::calendar::NEVER;
use crate::state::entry_row::{EntryReader, write_i64, write_length, write_state};
use crate::state::error::StateError;
use crate::state::groups::NO_SLOT;
use crate::state::key::KeyTable;
use crate::state::keyed::{Entries, KeyedPart, KeyedStates};
use crate::state::look::{Look, Seen};
use crate::state::row::RowError;
use crate::state::stored::{Scan, StoredRows, StoredTable};
use crate::state::table::StateTable;
use crate::state::timer::Timers;

pub(super) struct Sessions {
    late_wanted: bool,
    keyed: KeyedStates<SessionEntries>,
    /// Sessions that are over; in processing time, no row comes to these.
    ended: Option<EndedSessions>,
    /// All sessions of rows up to this time were over when the inputs had ended.
    sealed_ms: i64,
    journal: BatchJournal,
}

/// How long the gap between sessions is, and how long after its end a session fires, and
/// can be corrected.
#[derive(Clone, Copy, Debug)]
pub(super) struct Periods {
    pub gap_ms: i64,
    pub hold_ms: i64,
    pub lateness_ms: i64,
}

#[derive(Debug)]
struct SessionEntries {
    periods: Periods,
    /// Whether results tell their timing.
    tells_timing: bool,
    /// By key.
    entries: Vec<SessionEntry>,
    /// When to check a key.
    timers: Timers,
    early: EarlyKeys,
}

#[derive(Debug)]
struct SessionEntry {
    /// Sessions of the key in order of time, more than a gap apart; most keys have few.
    sessions: ChunkedList<Session>,
    /// The earliest timer that is set for the key. Other timers are ignored.
    due_ms: i64,
}

/// It is small, since every row of it reads it.
#[derive(Clone, Debug)]
struct Session {
    first_ms: i64,
    last_ms: i64,
    /// The state that rows are folded into.
    slot: u32,
    fired: bool,
    /// It has rows that no result has shown.
    fresh: bool,
    /// What few sessions have.
    more: Option<Box<MoreOfSession>>,
}

#[derive(Clone, Debug, Default)]
struct MoreOfSession {
    /// The states of the sessions that it was joined of, but for the last, in order of
    /// time.
    earlier: Vec<u32>,
    /// The spans of its results that stand, if results tell their timing.
    shown: Vec<Span>,
}

/// What a batch has changed, so that it can be undone.
#[derive(Default)]
struct BatchJournal {
    changes: Vec<SessionChange>,
    /// States to merge after the fold, in order, so that a session joined of very many
    /// does not keep them all. These states do not change any more.
    compactions: Vec<Compaction>,
    /// Keys with sessions that may have to fire at once.
    due: Vec<u32>,
    /// Rows that were late for every session.
    late: Vec<u32>,
    /// Sessions that have fired, as they were before the batch changed them.
    replaced: SessionResults,
}

enum SessionChange {
    NewKey(u32),
    /// A key, and the index of its new session.
    Begun(u32, u32),
    /// A key, and the index of a session that was this one before.
    Extended(u32, u32, Session),
    /// A key, and the index of a session that was these two before.
    Joined(u32, u32, Box<(Session, Session)>),
}

struct Compaction {
    id: u32,
    inputs: Vec<u32>,
    target: u32,
    span: Span,
}

/// How many states a session keeps at most before its last one.
const EARLIER_MAX: usize = 16;

impl Sessions {
    pub fn new(
        accumulators: &Accumulators,
        periods: Periods,
        stored: Option<StoredTable>,
        plan: &AggregatePlan,
    ) -> Result<Self, StateError> {
        let ended = match plan.window.has_late_rows() {
            true => Some(EndedSessions::new(
                periods.gap_ms,
                periods.lateness_ms,
                stored,
            )?),
            false => None,
        };
        let gap_ms = periods.gap_ms;
        let entries = SessionEntries {
            periods,
            tells_timing: plan.timing.is_some(),
            entries: Vec::new(),
            timers: Timers::new(gap_ms),
            early: EarlyKeys::new(plan.early_every_ms.is_some()),
        };
        Ok(Sessions {
            late_wanted: plan.late_wanted,
            keyed: KeyedStates::new(accumulators.table.clone(), 0, gap_ms, entries),
            ended,
            sealed_ms: i64::MIN,
            journal: BatchJournal::default(),
        })
    }

    /// Assigns each row to a session, and notes in the journal what that changes.
    fn assign(
        &mut self,
        accumulators: &mut Accumulators,
        arrived: &Arrived,
        watermark_ms: i64,
    ) -> Result<(), KeyedError> {
        accumulators.begin_keyed(&mut self.keyed, arrived, |_| false)?;
        for run in 0..accumulators.keys.runs() {
            let (id, is_new) = self.keyed.upsert_run(&accumulators.keys, run);
            if is_new {
                self.journal.changes.push(SessionChange::NewKey(id));
                self.keyed.entries.reserve(id);
            }
            for row in accumulators.keys.rows(run) {
                let time = arrived.times[row];
                match self.assign_row(accumulators, id, row, time, watermark_ms)? {
                    Some(group) => accumulators.groups.of_row.push(group),
                    None => self.journal.late.push(row as u32),
                }
            }
        }
        accumulators.groups.end();
        Ok(())
    }

    /// The group of a row, unless it is late.
    fn assign_row(
        &mut self,
        accumulators: &mut Accumulators,
        id: u32,
        row: usize,
        time: i64,
        watermark_ms: i64,
    ) -> Result<Option<u32>, KeyedError> {
        if time <= self.sealed_ms {
            return Ok(None);
        }
        let Periods {
            gap_ms,
            hold_ms,
            lateness_ms,
        } = self.keyed.entries.periods;
        let SessionEntries {
            entries,
            timers,
            early,
            ..
        } = &mut self.keyed.entries;
        let entry = &mut entries[id as usize];
        let sessions = &mut entry.sessions;
        let at = sessions.partition_point(|session| session.last_ms + gap_ms < time);
        let later = (at..).map_while(|at| sessions.get(at));
        let reached = later
            .take_while(|session| session.first_ms - gap_ms <= time)
            .count();
        let extends_back = reached == 1 && time < sessions[at].first_ms;
        // Sessions that are over ended before the watermark, less the lateness, or with
        // the inputs.
        let may_reach_over = watermark_ms > time + lateness_ms || time - gap_ms <= self.sealed_ms;
        if (reached == 0 || extends_back) && may_reach_over {
            let gaps_late = if extends_back { 2 } else { 1 };
            if watermark_ms > time + lateness_ms + gaps_late * gap_ms {
                return Ok(None);
            }
            if let Some(ended) = &mut self.ended
                && ended.reach(accumulators.keys.columns(), row, time)?
            {
                return Ok(None);
            }
        }
        for at in at..at + reached {
            let session = &sessions[at];
            if session.fired {
                let (slot, span) = (session.slot, session.span(gap_ms));
                self.journal.replaced.push(id, slot, span);
            }
        }
        let place = at as u32;
        let (session, group) = match reached {
            0 => {
                let due_ms = time + gap_ms + hold_ms + 1;
                if watermark_ms >= due_ms {
                    self.journal.due.push(id);
                }
                if due_ms <= entry.due_ms {
                    entry.due_ms = due_ms;
                    timers.set(due_ms, id);
                }
                self.journal.changes.push(SessionChange::Begun(id, place));
                let (slot, group) = accumulators.allocate_group();
                sessions.insert(at, Session::new(time, slot));
                (&mut sessions[at], group)
            }
            1 => {
                let session = &mut sessions[at];
                let before = SessionChange::Extended(id, place, session.clone());
                self.journal.changes.push(before);
                session.first_ms = session.first_ms.min(time);
                session.last_ms = session.last_ms.max(time);
                let group = accumulators.groups.of(session.slot);
                (session, group)
            }
            _ => {
                // The row can join only these two, since sessions are more than a gap
                // apart.
                let later = sessions.remove(at + 1);
                let session = &mut sessions[at];
                let pair = Box::new((session.clone(), later.clone()));
                self.journal
                    .changes
                    .push(SessionChange::Joined(id, place, pair));
                session.join(later);
                let earlier = &mut session.more().earlier;
                if earlier.len() > EARLIER_MAX {
                    let target = accumulators.states.allocate();
                    self.journal.compactions.push(Compaction {
                        id,
                        inputs: std::mem::replace(earlier, vec![target]),
                        target,
                        span: session.span(gap_ms),
                    });
                }
                let group = accumulators.groups.of(session.slot);
                (session, group)
            }
        };
        session.fresh = true;
        if std::mem::replace(&mut session.fired, false) {
            self.journal.due.push(id);
        }
        early.note(id);
        Ok(Some(group))
    }

    /// Undoes what [`Sessions::assign`] has done. Timers stay: they are ignored, or
    /// find nothing due.
    fn undo(&mut self, accumulators: &mut Accumulators) -> Result<(), KeyedError> {
        for change in self.journal.changes.drain(..).rev() {
            match change {
                SessionChange::NewKey(id) => {
                    self.keyed.remove(&[id])?;
                    self.keyed.entries.forget(id);
                }
                SessionChange::Begun(id, at) => {
                    let begun = self.keyed.entries.entries[id as usize]
                        .sessions
                        .remove(at as usize);
                    accumulators.states.release(begun.slot);
                }
                SessionChange::Extended(id, at, before) => {
                    self.keyed.entries.entries[id as usize].sessions[at as usize] = before;
                }
                SessionChange::Joined(id, at, before) => {
                    let sessions = &mut self.keyed.entries.entries[id as usize].sessions;
                    let (earlier, later) = *before;
                    sessions[at as usize] = earlier;
                    sessions.insert(at as usize + 1, later);
                }
            }
        }
        for compaction in self.journal.compactions.drain(..) {
            accumulators.states.release(compaction.target);
        }
        self.journal.due.clear();
        self.journal.late.clear();
        self.journal.replaced = SessionResults::default();
        Ok(())
    }

    /// Completes a batch after its states were stored.
    fn commit(
        &mut self,
        accumulators: &mut Accumulators,
        arrived: &Arrived,
        watermark_ms: i64,
        out: &mut Outbox,
    ) -> Result<(), KeyedError> {
        let late = std::mem::take(&mut self.journal.late);
        if !late.is_empty() {
            out.counts.late += late.len() as u64;
            out.put_late(
                self.late_wanted.then_some(LATE_OUTPUT),
                &arrived.batch,
                &late,
            );
            for change in &self.journal.changes {
                if let SessionChange::NewKey(id) = *change
                    && self.keyed.entries.entries[id as usize].sessions.is_empty()
                {
                    self.keyed.remove(&[id])?;
                }
            }
        }
        self.journal.changes.clear();
        let mut merges = Merges::default();
        for compaction in self.journal.compactions.drain(..) {
            merges.clear();
            let Compaction {
                id,
                inputs,
                target,
                span,
            } = compaction;
            merges.add(&inputs, target, id, span);
            accumulators.merge(&merges, self.keyed.keys(), out)?;
            for slot in inputs {
                accumulators.states.release(slot);
            }
        }
        let mut due = std::mem::take(&mut self.journal.due);
        due.sort_unstable();
        due.dedup();
        self.fire(accumulators, &due, watermark_ms, Timing::Late, out)
    }

    /// Fires the sessions that have ended of the keys in memory.
    fn fire_due(
        &mut self,
        accumulators: &mut Accumulators,
        watermark_ms: i64,
        out: &mut Outbox,
    ) -> Result<(), KeyedError> {
        let ids = self.keyed.entries.take_due(watermark_ms);
        self.fire(accumulators, &ids, watermark_ms, Timing::OnTime, out)
    }

    /// Fires the sessions of these keys that have ended, lets go of those that no row
    /// can correct any more, and sets the keys' timers.
    fn fire(
        &mut self,
        accumulators: &mut Accumulators,
        ids: &[u32],
        watermark_ms: i64,
        timing: Timing,
        out: &mut Outbox,
    ) -> Result<(), KeyedError> {
        let mut due = Due::default();
        let mut unused = Vec::new();
        let mut over = Over::default();
        let SessionEntries {
            periods,
            tells_timing,
            ..
        } = self.keyed.entries;
        let mut gone = Vec::new();
        for &id in ids {
            self.keyed.touch(id);
            let entry = &mut self.keyed.entries.entries[id as usize];
            for session in entry.sessions.iter_mut() {
                let span = session.span(periods.gap_ms);
                // The earliest sessions end first.
                if watermark_ms <= span.end + periods.hold_ms {
                    break;
                }
                if !session.fired {
                    if !session.earlier().is_empty() {
                        due.merges.add(&session.states(), session.slot, id, span);
                        unused.append(&mut session.more().earlier);
                    }
                    due.push(id, session.slot, span);
                    if tells_timing {
                        due.replace(id, session.slot, &mut session.more().shown, span);
                    }
                    session.fired = true;
                    session.fresh = false;
                }
            }
            let is_over = |session: &Session| {
                watermark_ms > session.span(periods.gap_ms).end + periods.lateness_ms
            };
            let count = entry.sessions.partition_point(is_over);
            entry.sessions.take_first(count, |session| {
                unused.push(session.slot);
                over.ids.push(id);
                over.last_ms.push(session.last_ms);
            });
            let next_ms = entry.next_ms(periods);
            if entry.sessions.is_empty() {
                gone.push(id);
            } else if next_ms < entry.due_ms {
                entry.due_ms = next_ms;
                self.keyed.entries.timers.set(next_ms, id);
            }
        }
        due.emit(accumulators, self.keyed.keys(), timing, out)?;
        for slot in unused {
            accumulators.states.release(slot);
        }
        if let Some(ended) = &mut self.ended {
            let layout = &accumulators.table.layout;
            ended.add(layout, self.keyed.keys(), &over, watermark_ms)?;
        }
        self.keyed.remove(&gone)?;
        for id in gone {
            self.keyed.entries.forget(id);
        }
        Ok(())
    }
}

impl WindowKind for Sessions {
    fn keyed(&mut self) -> &mut dyn KeyedPart {
        self
    }

    fn seal(&mut self, newest_ms: i64) {
        self.sealed_ms = newest_ms.clamp(-TIME_MAX_MS, TIME_MAX_MS);
    }

    fn rows(
        &mut self,
        accumulators: &mut Accumulators,
        arrived: Arrived,
        watermark_ms: i64,
        out: &mut Outbox,
    ) -> Result<(), KeyedError> {
        // Which session a row belongs to depends on the rows before it, and so do the rows
        // that the plugin fails on: it may take a row that does not reach the session of
        // one that it fails on any more. So a part counts only if no row of it is lost;
        // else it is undone, and its halves come one after the other.
        let mut rest = vec![arrived];
        while let Some(part) = rest.pop() {
            self.assign(accumulators, &part, watermark_ms)?;
            let in_time = part.without(&self.journal.late);
            if in_time.rows() > 0 {
                let folded = match part.rows() {
                    1 => Some(accumulators.fold(&in_time, out)?).filter(|f| f.lost.is_empty()),
                    _ => accumulators.fold_whole(&in_time, &mut out.counts)?,
                };
                let Some(folded) = folded else {
                    self.undo(accumulators)?;
                    if part.rows() > 1 {
                        rest.extend(part.halves());
                    }
                    continue;
                };
                let replaced = std::mem::take(&mut self.journal.replaced);
                if accumulators.tells_changes() {
                    let told = (Timing::Late, Change::TakenBack);
                    replaced.tell(accumulators, self.keyed.keys(), told, out)?;
                }
                accumulators.store(&in_time, &folded, out)?;
            }
            self.commit(accumulators, &part, watermark_ms, out)?;
        }
        Ok(())
    }

    /// Fires the sessions that have ended.
    fn advance(
        &mut self,
        accumulators: &mut Accumulators,
        watermark_ms: i64,
        out: &mut Outbox,
    ) -> Result<(), KeyedError> {
        if let Some(mut sweep) = self.keyed.sweep(watermark_ms) {
            while let Some(due) = self.keyed.next_due_or_soon(&mut sweep, watermark_ms)? {
                self.keyed.insert(&mut accumulators.states, &due)?;
                self.fire_due(accumulators, watermark_ms, out)?;
            }
        }
        self.fire_due(accumulators, watermark_ms, out)?;
        if let Some(ended) = &mut self.ended {
            ended.forget(watermark_ms);
        }
        Ok(())
    }

    /// A time before which no session fires.
    fn next_end(&self) -> Option<i64> {
        let in_memory = self.keyed.entries.timers.next().into_iter();
        in_memory.chain(self.keyed.first_due_ms()).min()
    }

    fn has_early(&self) -> bool {
        !self.keyed.entries.early.is_empty()
    }

    fn early(
        &mut self,
        accumulators: &mut Accumulators,
        out: &mut Outbox,
    ) -> Result<(), KeyedError> {
        let mut due = Due::default();
        let mut merged = Vec::new();
        let shown = self.keyed.entries.early.take();
        for &id in &shown {
            // The next checkpoint notes that it does not wait any more.
            self.keyed.touch(id);
        }
        let (entries, keys) = self.keyed.parts();
        for id in shown {
            let entry = &mut entries.entries[id as usize];
            let open = entry.sessions.iter_mut().filter(|session| !session.fired);
            for session in open.filter(|session| session.fresh) {
                session.fresh = false;
                let span = session.span(entries.periods.gap_ms);
                let mut slot = session.slot;
                if !session.earlier().is_empty() {
                    slot = accumulators.states.allocate();
                    due.merges.add(&session.states(), slot, id, span);
                    merged.push(slot);
                }
                due.push(id, slot, span);
                if entries.tells_timing {
                    due.replace(id, slot, &mut session.more().shown, span);
                }
            }
        }
        due.emit(accumulators, keys, Timing::Early, out)?;
        for slot in merged {
            accumulators.states.release(slot);
        }
        Ok(())
    }
}

impl KeyedPart for Sessions {
    fn bytes(&self) -> usize {
        self.keyed.bytes() + self.ended.as_ref().map_or(0, EndedSessions::bytes)
    }

    fn keys_in_memory(&self) -> usize {
        self.keyed.keys_in_memory()
    }

    fn changed(&self) -> usize {
        self.keyed.changed()
    }

    fn deletions(&self) -> usize {
        self.keyed.deletions()
    }

    fn has_evicted(&self) -> bool {
        self.keyed.has_evicted()
    }

    fn evict(&mut self, states: &mut StateTable, keys: usize) {
        if let Some(ended) = &mut self.ended {
            ended.evict();
        }
        self.keyed.evict(states, keys);
    }

    fn snapshot(&mut self, states: &StateTable, changes: &mut Changes) -> Result<(), StateError> {
        if let Some(ended) = &mut self.ended {
            ended.snapshot(changes);
        }
        self.keyed.snapshot(states, changes)
    }

    fn scans(&self) -> Result<Vec<Scan>, StateError> {
        self.keyed.scans()
    }

    fn restore(&mut self, states: &mut StateTable, rows: &StoredRows) -> Result<(), StateError> {
        self.keyed.restore(states, rows)
    }

    fn leave_evicted(
        &mut self,
        states: &mut StateTable,
        rows: StoredRows,
    ) -> Result<bool, StateError> {
        self.keyed.leave_evicted(states, rows)
    }

    fn look(&self, states: &StateTable, look: &Look, seen: &mut Seen) -> Result<(), StateError> {
        self.keyed.look(states, look, seen)
    }
}

impl SessionEntries {
    fn reserve(&mut self, id: u32) {
        if id as usize >= self.entries.len() {
            self.entries
                .resize_with(id as usize + 1, SessionEntry::default);
        }
    }

    /// Clears the entry of a removed key, whose timer is ignored from now on.
    fn forget(&mut self, id: u32) {
        let entry = &mut self.entries[id as usize];
        entry.sessions.clear();
        entry.due_ms = NEVER;
        self.early.forget(id);
    }

    /// Takes the keys whose timers are due.
    fn take_due(&mut self, now_ms: i64) -> Vec<u32> {
        self.timers
            .take_noted(now_ms, &mut self.entries, |entry| &mut entry.due_ms)
    }
}

/// Reads whether early results of a key wait, and its sessions, which have no slots yet.
/// Appends their states to `states`.
fn read<'a>(row: &'a [u8], states: &mut Vec<&'a [u8]>) -> Result<(bool, SessionEntry), RowError> {
    let mut reader = EntryReader(row);
    let is_early = reader.flags()? & EARLY != 0;
    Ok((is_early, SessionEntry::read(reader, states)?))
}

/// Appends the states of a key's row to `states`.
pub(super) fn states<'a>(row: &'a [u8], states: &mut Vec<&'a [u8]>) -> Result<(), RowError> {
    read(row, states).map(drop)
}

/// The span of each state of a key's row: a session that was joined of others may have
/// several. Appends the states to `states`.
pub(super) fn spans<'a>(
    row: &'a [u8],
    gap_ms: i64,
    states: &mut Vec<&'a [u8]>,
) -> Result<Vec<Span>, RowError> {
    let (_, entry) = read(row, states)?;
    let spans = entry
        .sessions
        .iter()
        .flat_map(|session| std::iter::repeat_n(session.span(gap_ms), session.earlier().len() + 1));
    Ok(spans.collect())
}

impl Entries for SessionEntries {
    /// Whether early results wait, and the sessions.
    type Entry = (bool, SessionEntry);

    const BYTES: usize =
        size_of::<SessionEntry>() + size_of::<Session>() + size_of::<(i64, u32)>() + 1;

    const NEEDS_DUE: bool = true;

    fn read<'a>(&self, row: &'a [u8], states: &mut Vec<&'a [u8]>) -> Result<Self::Entry, RowError> {
        read(row, states)
    }

    fn write(&self, id: u32, states: &[&[u8]], row: &mut Vec<u8>) {
        row.push(self.early.flag(id));
        self.entries[id as usize].write(states, row);
    }

    fn slots(&self, id: u32, slots: &mut Vec<u32>) {
        for session in self.entries[id as usize].sessions.iter() {
            slots.extend(session.states());
        }
    }

    fn insert(&mut self, id: u32, entry: Self::Entry, slots: &mut dyn Iterator<Item = u32>) {
        let (is_early, mut entry) = entry;
        for session in entry.sessions.iter_mut() {
            let earlier = session.more.iter_mut().flat_map(|more| &mut more.earlier);
            for slot in earlier.chain([&mut session.slot]) {
                *slot = slots.next().unwrap_or(NO_SLOT);
            }
        }
        if is_early {
            self.early.note(id);
        }
        entry.due_ms = entry.next_ms(self.periods);
        self.timers.set(entry.due_ms, id);
        self.reserve(id);
        self.entries[id as usize] = entry;
    }

    fn evict(&mut self, id: u32, states: &mut StateTable) {
        let entry = std::mem::take(&mut self.entries[id as usize]);
        for session in entry.sessions.iter() {
            for slot in session.states() {
                states.release(slot);
            }
        }
    }

    fn is_pinned(&self, id: u32) -> bool {
        self.early.has(id)
    }

    fn may_be_pinned(&self) -> bool {
        self.early.are_wanted()
    }

    fn was_pinned(&self, (is_early, _): &Self::Entry) -> bool {
        *is_early && self.early.are_wanted()
    }

    fn due_ms(&self, (_, entry): &Self::Entry) -> i64 {
        entry.next_ms(self.periods)
    }

    fn due_of(&self, id: u32) -> i64 {
        self.entries[id as usize].next_ms(self.periods)
    }
}

/// Sessions whose results are emitted together.
#[derive(Default)]
struct Due {
    results: SessionResults,
    /// Those that the results replace, with former spans.
    gone: SessionResults,
    merges: Merges,
}

#[derive(Default)]
struct SessionResults {
    ids: Vec<u32>,
    slots: Vec<u32>,
    spans: Vec<Span>,
}

impl Due {
    fn push(&mut self, id: u32, slot: u32, span: Span) {
        self.results.push(id, slot, span);
    }

    /// Notes the new span of a result, and that those of other spans are gone.
    fn replace(&mut self, id: u32, slot: u32, shown: &mut Vec<Span>, span: Span) {
        for former in shown.drain(..).filter(|former| *former != span) {
            self.gone.push(id, slot, former);
        }
        shown.push(span);
    }

    fn emit(
        &self,
        accumulators: &mut Accumulators,
        keys: &KeyTable,
        timing: Timing,
        out: &mut Outbox,
    ) -> Result<(), KeyedError> {
        accumulators.merge(&self.merges, keys, out)?;
        let withdrawn = (Timing::Gone, Change::Withdrawn);
        self.gone.tell(accumulators, keys, withdrawn, out)?;
        let told = (timing, Change::Told);
        self.results.tell(accumulators, keys, told, out)
    }
}

impl SessionResults {
    fn push(&mut self, id: u32, slot: u32, span: Span) {
        self.ids.push(id);
        self.slots.push(slot);
        self.spans.push(span);
    }

    fn tell(
        &self,
        accumulators: &mut Accumulators,
        keys: &KeyTable,
        (timing, change): (Timing, Change),
        out: &mut Outbox,
    ) -> Result<(), KeyedError> {
        let results = Results {
            slots: &self.slots,
            keys,
            ids: Ids::Each(&self.ids),
            spans: Spans::Each(&self.spans),
            timing,
        };
        accumulators.tell(results, change, out)
    }
}

impl Default for SessionEntry {
    fn default() -> Self {
        SessionEntry {
            sessions: ChunkedList::default(),
            due_ms: NEVER,
        }
    }
}

impl SessionEntry {
    /// When to check the key again.
    fn next_ms(&self, periods: Periods) -> i64 {
        let next = |session: &Session| {
            let end = session.span(periods.gap_ms).end + 1;
            match session.fired {
                false => end + periods.hold_ms,
                true => end + periods.lateness_ms,
            }
        };
        // The earliest sessions fire first, and are over first.
        let first_open = self.sessions.partition_point(|session| session.fired);
        let first = [self.sessions.get(0), self.sessions.get(first_open)];
        let first = first.into_iter().flatten().map(next);
        first.min().unwrap_or(NEVER)
    }

    /// Writes the sessions into the key's row; `states` are all of their states, in
    /// order.
    fn write(&self, states: &[&[u8]], row: &mut Vec<u8>) {
        let mut states = states.iter();
        for session in self.sessions.iter() {
            write_i64(session.first_ms, row);
            write_i64(session.last_ms, row);
            let flags = [
                (session.fired, FIRED),
                (session.fresh, FRESH),
                (!session.shown().is_empty(), SHOWN),
            ];
            let flags = flags.into_iter().filter(|&(is_set, _)| is_set);
            row.push(flags.fold(0, |flags, (_, flag)| flags | flag));
            let count = session.earlier().len() + 1;
            write_length(count, row);
            for state in states.by_ref().take(count) {
                write_state(state, row);
            }
            if !session.shown().is_empty() {
                write_length(session.shown().len(), row);
                for span in session.shown() {
                    write_i64(span.start, row);
                    write_i64(span.end, row);
                }
            }
        }
    }

    /// Reads the sessions of a key's row. Appends their states, which have no slots
    /// yet, to `states`.
    fn read<'a>(mut row: EntryReader<'a>, states: &mut Vec<&'a [u8]>) -> Result<Self, RowError> {
        let mut sessions = Vec::new();
        while !row.is_at_end() {
            let (first_ms, last_ms) = (row.i64()?, row.i64()?);
            let flags = row.flags()?;
            let count = row.length()?;
            for _ in 0..count {
                states.push(row.state()?);
            }
            let mut shown = Vec::new();
            if flags & SHOWN != 0 {
                for _ in 0..row.length()? {
                    let (start, end) = (row.i64()?, row.i64()?);
                    shown.push(Span { start, end });
                }
            }
            let mut session = Session {
                last_ms,
                fired: flags & FIRED != 0,
                fresh: flags & FRESH != 0,
                ..Session::new(first_ms, NO_SLOT)
            };
            if count > 1 || !shown.is_empty() {
                *session.more() = MoreOfSession {
                    earlier: vec![NO_SLOT; count.saturating_sub(1)],
                    shown,
                };
            }
            sessions.push(session);
        }
        Ok(SessionEntry {
            sessions: sessions.into_iter().collect(),
            ..SessionEntry::default()
        })
    }
}

impl Session {
    fn new(time: i64, slot: u32) -> Self {
        Session {
            first_ms: time,
            last_ms: time,
            slot,
            fired: false,
            fresh: true,
            more: None,
        }
    }

    fn earlier(&self) -> &[u32] {
        self.more.as_ref().map_or(&[], |more| &more.earlier)
    }

    fn shown(&self) -> &[Span] {
        self.more.as_ref().map_or(&[], |more| &more.shown)
    }

    fn more(&mut self) -> &mut MoreOfSession {
        self.more.get_or_insert_default()
    }

    fn span(&self, gap_ms: i64) -> Span {
        Span {
            start: self.first_ms,
            end: self.last_ms + gap_ms,
        }
    }

    /// All states of the session, in order of time.
    fn states(&self) -> Vec<u32> {
        let mut states = self.earlier().to_vec();
        states.push(self.slot);
        states
    }

    fn join(&mut self, later: Session) {
        let slot = std::mem::replace(&mut self.slot, later.slot);
        let more = self.more();
        more.earlier.push(slot);
        if let Some(later) = later.more {
            more.earlier.extend(later.earlier);
            more.shown.extend(later.shown);
        }
        self.last_ms = later.last_ms;
        self.fired |= later.fired;
    }
}
