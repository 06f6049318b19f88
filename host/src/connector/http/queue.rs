//! Between requests and the source's task: rows that have come wait here, in the order in
//! which requests were taken, each as a whole or not at all. Whoever posted them learns when
//! the task has taken them, when a checkpoint has them, and which of them are bad.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use tokio::sync::{Notify, watch};

use super::repeats::{OtherBody, PostedAs, Repeats};
use crate::clock::Clock;
use crate::source::chunk::BadRow;
use crate::source::pieces::Piece;

/// How many bad rows of a request are told with their reasons.
const REASONS_MAX: usize = 5;

/// When a request is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acknowledge {
    /// When its rows are in the pipeline.
    Taken,
    /// When a checkpoint that is durable has them.
    Checkpoint,
}

impl Acknowledge {
    /// As in the config.
    pub fn name(self) -> &'static str {
        match self {
            Acknowledge::Taken => "taken",
            Acknowledge::Checkpoint => "checkpoint",
        }
    }
}

/// How much may wait for the task. A request that is longer may, if nothing else does; one
/// that has more rows never comes here.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    pub rows_max: usize,
    pub bytes_max: usize,
}

/// Rows that wait for the source's task.
pub struct Queue {
    acknowledge: Acknowledge,
    room: Room,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    /// Rows have come.
    arrived: Notify,
    /// Rows have been handed out.
    left: Notify,
    progress: watch::Sender<Progress>,
}

struct State {
    pieces: VecDeque<Piece>,
    /// Requests whose rows are not all handed out.
    held: VecDeque<Held>,
    rows: usize,
    bytes: usize,
    /// Requests that are not to be answered yet.
    posted: VecDeque<Arc<Posted>>,
    next_row: u64,
    repeats: Repeats,
    is_closed: bool,
}

/// What a request takes of the room until its last row is handed out.
struct Held {
    end: u64,
    rows: usize,
    bytes: usize,
}

#[derive(Clone, Copy, Default)]
struct Progress {
    /// The position up to which requests are answered.
    answered: u64,
    is_closed: bool,
}

/// A request's rows in the queue.
pub struct Posted {
    first: u64,
    end: u64,
    /// How many of its rows are in a checkpoint of an earlier run, or were in this one.
    before: u64,
    key: Option<PostedAs>,
    bad: Mutex<Bad>,
}

#[derive(Clone, Debug, Default)]
struct Bad {
    rows: u64,
    reasons: Vec<Reason>,
}

/// Why a row was not taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// Its number in the request, from 1.
    pub row: u64,
    pub error: String,
}

/// What a request wants to have taken.
pub struct Request {
    pub pieces: Vec<Piece>,
    pub bytes: usize,
    pub key: Option<PostedAs>,
}

impl Request {
    /// How many rows it has.
    pub fn rows(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.rows() as u64).sum()
    }

    /// Leaves out the first rows.
    fn skip(&mut self, mut rows: u64) {
        for piece in &mut self.pieces {
            let spans = rows.min(piece.spans.len() as u64);
            piece.spans.drain(..spans as usize);
            rows -= spans;
            if rows > 0 && piece.broken.take().is_some() {
                rows -= 1;
            }
        }
    }
}

/// What becomes of a request.
pub enum Offered {
    /// Its rows are in the queue, or were before.
    In(Ticket),
    /// There is no room for it now.
    Full,
    /// Its key was that of another body.
    OtherBody,
    /// The run ends.
    Closed,
}

/// By which the answer to a request is found.
pub struct Ticket {
    end: u64,
    posted: Option<Arc<Posted>>,
    rows: u64,
    /// If `posted` is not there any more.
    bad: u64,
    pub is_repeated: bool,
}

/// What has become of the rows of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Counted {
    pub taken: u64,
    pub not_taken: u64,
    /// Of the first few that were not.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<Reason>,
}

impl Ticket {
    pub fn counted(&self) -> Counted {
        let bad = match &self.posted {
            Some(posted) => posted.bad().clone(),
            None => Bad {
                rows: self.bad,
                reasons: Vec::new(),
            },
        };
        Counted {
            taken: self.rows.saturating_sub(bad.rows),
            not_taken: bad.rows,
            reasons: bad.reasons,
        }
    }
}

impl Posted {
    fn bad(&self) -> MutexGuard<'_, Bad> {
        self.bad.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    /// Rows are numbered from this position on.
    pub fn new(
        acknowledge: Acknowledge,
        room: Room,
        repeats: Repeats,
        position: u64,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Queue {
            acknowledge,
            room,
            clock,
            state: Mutex::new(State {
                pieces: VecDeque::new(),
                held: VecDeque::new(),
                rows: 0,
                bytes: 0,
                posted: VecDeque::new(),
                next_row: position,
                repeats,
                is_closed: false,
            }),
            arrived: Notify::new(),
            left: Notify::new(),
            progress: watch::Sender::new(Progress {
                answered: position,
                is_closed: false,
            }),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a request's rows into the queue, all or none. It is taken away if they are there.
    pub fn offer(&self, request: &mut Option<Request>) -> Offered {
        let mut state = self.state();
        if state.is_closed {
            return Offered::Closed;
        }
        let Some(wanted) = request.as_mut() else {
            return Offered::Closed;
        };
        let now_ms = self.clock.now_ms();
        let known = match &wanted.key {
            None => None,
            Some(key) => match state.repeats.find(key, now_ms) {
                Ok(known) => known,
                Err(OtherBody) => return Offered::OtherBody,
            },
        };
        let all = wanted.rows();
        let before = known.map_or(0, |known| known.before);
        if let Some(known) = known
            && let Some(end) = match known.first {
                Some(first) => Some(first + known.rows - known.before),
                // An earlier run has handed out all.
                None => (known.before == known.rows).then_some(0),
            }
        {
            let mut posted = state.posted.iter();
            let posted = known
                .first
                .and_then(|first| posted.find(|it| it.first == first));
            return Offered::In(Ticket {
                end,
                posted: posted.cloned(),
                rows: known.rows,
                bad: known.bad,
                is_repeated: true,
            });
        }
        let rows = (all - before.min(all)) as usize;
        let is_full = state.rows + rows > self.room.rows_max
            || state.bytes + wanted.bytes > self.room.bytes_max;
        if is_full && !state.held.is_empty() {
            return Offered::Full;
        }
        let Some(mut taken) = request.take() else {
            return Offered::Closed;
        };
        taken.skip(before);
        let first = state.next_row;
        let end = first + rows as u64;
        if let Some(key) = &taken.key {
            state.repeats.note(key, all, first, now_ms);
        }
        let posted = Arc::new(Posted {
            first,
            end,
            before,
            key: taken.key,
            bad: Mutex::new(Bad {
                rows: known.map_or(0, |known| known.bad),
                reasons: Vec::new(),
            }),
        });
        if rows > 0 {
            state.next_row = end;
            state.rows += rows;
            state.bytes += taken.bytes;
            state.held.push_back(Held {
                end,
                rows,
                bytes: taken.bytes,
            });
            state.posted.push_back(posted.clone());
            let pieces = taken.pieces.into_iter();
            state
                .pieces
                .extend(pieces.filter(|piece| !piece.is_empty()));
        }
        drop(state);
        self.arrived.notify_one();
        Offered::In(Ticket {
            end,
            posted: Some(posted),
            rows: all,
            bad: 0,
            is_repeated: false,
        })
    }

    /// Waits until the request is to be answered. Returns whether its rows have come as far as
    /// they should; the run may end before.
    pub async fn settled(&self, ticket: &Ticket) -> bool {
        let mut progress = self.progress.subscribe();
        let settled = progress.wait_for(|it| it.answered >= ticket.end || it.is_closed);
        settled.await.is_ok_and(|it| it.answered >= ticket.end)
    }

    /// Waits until the run ends.
    pub async fn closed(&self) {
        let mut progress = self.progress.subscribe();
        // The sender lives as long as the queue.
        let _ = progress.wait_for(|progress| progress.is_closed).await;
    }

    /// Rows have left, and there may be room.
    pub fn left(&self) -> &Notify {
        &self.left
    }

    /// The next rows, if there are some.
    pub fn take(&self) -> Option<Piece> {
        self.state().pieces.pop_front()
    }

    /// Waits until rows may have come.
    pub async fn arrived(&self) {
        self.arrived.notified().await;
    }

    /// Rows up to this position are handed out.
    pub fn handed_out(&self, position: u64) {
        let mut state = self.state();
        while let Some(held) = state.held.pop_front_if(|held| held.end <= position) {
            state.rows -= held.rows;
            state.bytes -= held.bytes;
        }
        drop(state);
        self.left.notify_waiters();
    }

    /// The task has taken the rows up to this position.
    pub fn taken(&self, position: u64) {
        if self.acknowledge == Acknowledge::Taken {
            self.answer(position);
        }
    }

    /// A checkpoint that is durable has the rows up to this position.
    pub fn committed(&self, position: u64) {
        if self.acknowledge == Acknowledge::Checkpoint {
            self.answer(position);
        }
    }

    fn answer(&self, position: u64) {
        let mut state = self.state();
        while state.posted.pop_front_if(|it| it.end <= position).is_some() {}
        drop(state);
        self.progress.send_if_modified(|progress| {
            let is_further = position > progress.answered;
            progress.answered = progress.answered.max(position);
            is_further
        });
    }

    /// Notes rows that are bad.
    pub fn bad(&self, bad: &[BadRow]) {
        let mut state = self.state();
        let State {
            posted, repeats, ..
        } = &mut *state;
        for row in bad {
            // In the order of their rows.
            let at = posted.partition_point(|it| it.end <= row.offset);
            let Some(posted) = posted.get(at).filter(|it| it.first <= row.offset) else {
                continue;
            };
            let mut noted = posted.bad();
            noted.rows += 1;
            if noted.reasons.len() < REASONS_MAX {
                noted.reasons.push(Reason {
                    row: row.offset - posted.first + posted.before + 1,
                    error: row.error.clone(),
                });
            }
            if let Some(key) = &posted.key {
                repeats.note_bad(key);
            }
        }
    }

    /// What a checkpoint with this position keeps of keys.
    pub fn kept(&self, position: u64) -> Option<String> {
        self.state().repeats.kept(position)
    }

    /// Takes no more requests. Those that are not to be answered yet are told that the run
    /// ends.
    pub fn close(&self) {
        self.state().is_closed = true;
        self.progress
            .send_modify(|progress| progress.is_closed = true);
        self.left.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::super::repeats::Memory;
    use super::*;
    use crate::clock::ManualClock;

    const MEMORY: Memory = Memory {
        keys_max: 10,
        age_ms_max: 1_000,
    };

    fn queue(acknowledge: Acknowledge, repeats: Repeats, position: u64) -> Queue {
        let room = Room {
            rows_max: 10,
            bytes_max: 100,
        };
        let clock = Arc::new(ManualClock::default());
        Queue::new(acknowledge, room, repeats, position, clock)
    }

    fn request(rows: u32, bytes: usize, key: Option<&str>) -> Option<Request> {
        Some(Request {
            pieces: vec![Piece {
                data: vec![b'1'; rows as usize],
                spans: (0..rows).map(|row| (row, row + 1)).collect(),
                ..Piece::default()
            }],
            bytes,
            key: key.map(|key| PostedAs::new(key, b"body")),
        })
    }

    fn taken(queue: &Queue, rows: u32, key: Option<&str>) -> Ticket {
        match queue.offer(&mut request(rows, 10, key)) {
            Offered::In(ticket) => ticket,
            _ => panic!("it is not taken"),
        }
    }

    fn bad(offset: u64) -> BadRow {
        BadRow {
            offset,
            error: format!("row {offset}"),
            payload: Vec::new(),
            envelope: None,
        }
    }

    fn is_settled(queue: &Queue, ticket: &Ticket) -> bool {
        let mut settled = std::pin::pin!(queue.settled(ticket));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        settled.as_mut().poll(&mut context).is_ready()
    }

    #[test]
    fn a_request_comes_whole_or_waits_for_room() {
        let queue = queue(Acknowledge::Taken, Repeats::new(MEMORY), 0);
        taken(&queue, 6, None);
        let mut waiting = request(5, 10, None);
        assert!(matches!(queue.offer(&mut waiting), Offered::Full));
        assert!(waiting.is_some(), "it can be offered again");
        let mut heavy = request(1, 95, None);
        assert!(matches!(queue.offer(&mut heavy), Offered::Full));
        queue.handed_out(5);
        assert!(matches!(queue.offer(&mut waiting), Offered::Full));
        queue.handed_out(6);
        assert!(matches!(queue.offer(&mut waiting), Offered::In(_)));
        queue.handed_out(11);
        // Longer than all that may wait: alone.
        assert!(matches!(
            queue.offer(&mut request(5, 500, None)),
            Offered::In(_)
        ));
        queue.close();
        assert!(matches!(queue.offer(&mut heavy), Offered::Closed));
    }

    #[test]
    fn requests_are_answered_when_their_last_row_has_come_so_far() {
        for acknowledge in [Acknowledge::Taken, Acknowledge::Checkpoint] {
            let queue = queue(acknowledge, Repeats::new(MEMORY), 100);
            let (one, two) = (taken(&queue, 3, None), taken(&queue, 2, None));
            let empty = taken(&queue, 0, None);
            let advance = |position| match acknowledge {
                Acknowledge::Taken => queue.taken(position),
                Acknowledge::Checkpoint => {
                    queue.taken(1_000);
                    queue.committed(position);
                }
            };
            queue.bad(&[bad(101), bad(103), bad(104)]);
            advance(102);
            assert!(!is_settled(&queue, &one));
            advance(104);
            assert!(is_settled(&queue, &one) && !is_settled(&queue, &two));
            assert!(!is_settled(&queue, &empty), "it came behind them");
            let reason = |row, offset| Reason {
                row,
                error: format!("row {offset}"),
            };
            let counted = one.counted();
            assert_eq!((counted.taken, counted.not_taken), (2, 1));
            assert_eq!(counted.reasons, [reason(2, 101)]);
            let counted = two.counted();
            assert_eq!((counted.taken, counted.not_taken), (0, 2));
            assert_eq!(counted.reasons, [reason(1, 103), reason(2, 104)]);
            queue.close();
            let runtime = tokio::runtime::Builder::new_current_thread().build();
            let runtime = runtime.expect("a runtime");
            assert!(runtime.block_on(queue.settled(&one)));
            assert!(!runtime.block_on(queue.settled(&two)), "the run has ended");
        }
    }

    #[test]
    fn what_is_posted_again_waits_for_the_same_rows() {
        let queue = queue(Acknowledge::Checkpoint, Repeats::new(MEMORY), 0);
        let first = taken(&queue, 3, Some("a"));
        queue.bad(&[bad(1)]);
        let again = taken(&queue, 3, Some("a"));
        assert!(again.is_repeated && !first.is_repeated);
        assert!(!is_settled(&queue, &again));
        queue.committed(3);
        assert!(is_settled(&queue, &again));
        assert_eq!(again.counted(), first.counted());
        let later = taken(&queue, 3, Some("a"));
        assert_eq!((later.counted().taken, later.counted().not_taken), (2, 1));
        let mut other = request(3, 10, None);
        if let Some(other) = &mut other {
            other.key = Some(PostedAs::new("a", b"other"));
        }
        assert!(matches!(queue.offer(&mut other), Offered::OtherBody));
    }

    #[test]
    fn after_a_crash_only_the_rows_come_that_no_checkpoint_has() {
        let before = queue(Acknowledge::Checkpoint, Repeats::new(MEMORY), 0);
        taken(&before, 4, Some("a"));
        taken(&before, 4, Some("b"));
        taken(&before, 2, Some("c"));
        before.bad(&[bad(4)]);
        let kept = before.kept(6).expect("two have rows in it");
        let repeats = Repeats::restore(MEMORY, &kept, 0).expect("it was kept");
        let queue = queue(Acknowledge::Checkpoint, repeats, 6);
        let whole = taken(&queue, 4, Some("a"));
        assert!(is_settled(&queue, &whole) && whole.is_repeated);
        let part = taken(&queue, 4, Some("b"));
        assert!(!is_settled(&queue, &part));
        taken(&queue, 2, Some("c"));
        let rows = |piece: Piece| piece.spans;
        assert_eq!(queue.take().map(rows), Some(vec![(2, 3), (3, 4)]));
        assert_eq!(queue.take().map(|piece| piece.rows()), Some(2));
        assert!(queue.take().is_none());
        queue.bad(&[bad(7)]);
        queue.committed(8);
        assert!(is_settled(&queue, &part));
        let counted = part.counted();
        assert_eq!((counted.taken, counted.not_taken), (2, 2));
        assert_eq!(counted.reasons.len(), 1);
        assert_eq!(counted.reasons[0].row, 4);
    }

    #[test]
    fn skipped_rows_are_the_first_ones_good_or_bad() {
        let piece = |rows: u32, is_broken: bool| Piece {
            data: vec![0; 9],
            spans: (0..rows).map(|row| (row, row + 1)).collect(),
            broken: is_broken.then(|| bad(0)),
            skipped: 0,
        };
        for (skipped, expected) in [
            (0, [3, 2]),
            (2, [1, 2]),
            (3, [0, 2]),
            (4, [0, 1]),
            (5, [0, 0]),
        ] {
            let mut request = Request {
                pieces: vec![piece(2, true), piece(2, false)],
                bytes: 0,
                key: None,
            };
            request.skip(skipped);
            let rows: Vec<usize> = request.pieces.iter().map(Piece::rows).collect();
            assert_eq!(rows, expected, "{skipped}");
        }
    }
}
