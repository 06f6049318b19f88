//! Reads streams: each is a partition, and a position is the id of the entry before it.
//!
//! No consumer group is used: the checkpoint alone says where to go on. A position has a
//! count as well, of the entries that were added to the stream before it, by which it is
//! noticed that entries were trimmed away, or that the stream is another one
//! ([why](../../../../docs/decisions/0038-redis-streams.md)).

use std::collections::VecDeque;
use std::sync::Arc;

use super::entry::{Entry, EntryId, EntryRows, Place};
use super::messages::{MessageOrigin, Messages, RedisColumn};
use super::reading::{Read, Reading, Request, StreamState, Wanted, look};
use super::{Failure, RedisConnection, Session};
use crate::blame::Fault;
use crate::checkpoint::snapshot::Position;
use crate::decode::Decoder;
use crate::format::RowFormat;
use crate::source::{Arrival, Pending, SourceContext, SourceError, SourceInput};
use crate::suggest;

/// About how many bytes of entries are read ahead, of all streams of a task.
const AHEAD_BYTES: usize = 8 << 20;

/// Of one stream at least.
const AHEAD_BYTES_LEAST: usize = 64 << 10;

/// How many entries are read at a time: at first, while nobody knows how long they are, and
/// at most.
const COUNT_FIRST: usize = 64;
const COUNT_MAX: usize = 4_096;

/// Which streams are read, and as which columns.
#[derive(Clone, Debug)]
pub struct Streams {
    pub connection: RedisConnection,
    pub keys: Vec<String>,
    pub start: StreamStart,
    /// Whether the input ends where each stream ended when it was opened.
    pub is_bounded: bool,
    /// The field of an entry that has its row; without, the entry's fields are columns.
    pub payload: Option<String>,
    pub format: RowFormat,
    /// The columns after those of the row.
    pub metadata: Vec<RedisColumn>,
}

/// Where to start in a stream that no checkpoint has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamStart {
    Earliest,
    Latest,
    /// At this entry, or the first after it.
    At(EntryId),
}

impl StreamStart {
    fn place(self, state: StreamState) -> Place {
        match self {
            StreamStart::Earliest => Place {
                after: EntryId::default(),
                added: state.gone(),
            },
            StreamStart::Latest => Place {
                after: state.last,
                added: state.added,
            },
            StreamStart::At(id) => Place {
                after: id.previous(),
                // Others may be before it, which nobody counts.
                added: state.gone(),
            },
        }
    }
}

pub struct StreamInput {
    partitions: Vec<StreamPartition>,
    rows: EntryRows,
    decoder: Decoder,
    reading: Reading,
    /// An answer is still to come.
    is_reading: bool,
    plan: Arc<Streams>,
    context: SourceContext,
}

struct StreamPartition {
    key: Arc<str>,
    /// Where this run started.
    first: Place,
    /// Behind the rows that were handed out, and behind those that were read.
    given: Place,
    read: Place,
    /// Those in between.
    entries: VecDeque<(Entry, Place)>,
    bytes: usize,
    /// How many to read next.
    count: usize,
    /// The stream had no more when it was read last.
    is_all_read: bool,
    /// Where a bounded input ends.
    end: Option<Place>,
    /// Where the stream ended when it was opened, until that has been read.
    bootstrap_end: Option<EntryId>,
}

impl StreamInput {
    pub async fn open(plan: &Streams, context: &SourceContext) -> Result<Self, SourceError> {
        context.check_delimiter(&plan.format.format)?;
        let refused = |failure: Failure| {
            let message = format!("cannot read from {}: {}", plan.connection, failure.cause);
            context.refuse(message, failure.fault)
        };
        refuse_unread(plan, context)?;
        let session = Session::open(&plan.connection).map_err(refused)?;
        let mut partitions = Vec::new();
        for (index, key) in plan.keys.iter().enumerate() {
            if !context.placement.has_partition(index) {
                continue;
            }
            let found = look(&session, key).map_err(refused)?;
            if found.is_none() {
                let to = &plan.connection;
                tracing::info!(source = %context.node, "{to}: there is no stream `{key}` yet");
            }
            let state = found.unwrap_or_default();
            let place = match context.restored(key) {
                Some(known) => known.position.into(),
                None => plan.start.place(state),
            };
            let partition = StreamPartition::new(key, place, state, plan.is_bounded, context);
            partition.check(state, context)?;
            tracing::info!(
                source = %context.node,
                partition = %partition.key,
                after = %partition.read.after,
                "reading"
            );
            partitions.push(partition);
        }
        let columns = context.columns_in_rows(plan.metadata.len());
        let reading = Reading::start(session, &plan.connection, &context.node);
        let reading = reading.map_err(|error| {
            let message = format!("cannot start a thread: {error}");
            context.refuse(message, Fault::of_io(&error))
        })?;
        Ok(StreamInput {
            partitions,
            rows: EntryRows::new(&plan.format.written(&columns)),
            decoder: Decoder::new(&plan.format, &columns),
            reading,
            is_reading: false,
            plan: Arc::new(plan.clone()),
            context: context.clone(),
        })
    }

    /// Takes what was read of the first stream in `order` that has something. May be dropped
    /// while it waits.
    async fn next_of(&mut self, order: &[usize]) -> Result<Arrival, SourceError> {
        loop {
            for &index in order {
                if let Some(arrival) = self.take(index) {
                    self.read_on(false);
                    return Ok(arrival);
                }
            }
            if self.partitions.iter().all(StreamPartition::has_ended) {
                return Ok(Arrival::Over);
            }
            self.read_on(true);
            let answer = self.reading.answer().await;
            self.is_reading = false;
            let failed = |failure: Failure| {
                let what = self.plan.connection.to_string();
                self.context.failed(what, failure.cause, failure.fault)
            };
            let room = self.room();
            let Some(answer) = answer else {
                let cause = "the thread that reads it has ended";
                return Err(failed(Failure::new(cause, Fault::BUG)));
            };
            for read in answer.map_err(failed)? {
                let partition = &mut self.partitions[read.stream];
                partition.check(read.state, &self.context)?;
                partition.keep(read, room);
            }
        }
    }

    /// How many bytes of a stream's entries are read ahead.
    fn room(&self) -> usize {
        (AHEAD_BYTES / self.partitions.len().max(1)).max(AHEAD_BYTES_LEAST)
    }

    /// Has the streams read that have room, unless that is being done.
    fn read_on(&mut self, waits: bool) {
        if self.is_reading {
            return;
        }
        let room = self.room();
        let partitions = self.partitions.iter().enumerate();
        let wanted = partitions.filter(|(_, partition)| partition.has_room(room));
        let wanted: Vec<Wanted> = wanted
            .map(|(stream, partition)| Wanted {
                stream,
                key: partition.key.clone(),
                after: partition.read.after,
                count: partition.count,
            })
            .collect();
        if !wanted.is_empty() {
            self.reading.ask(Request { wanted, waits });
            self.is_reading = true;
        }
    }

    /// The next rows of a stream, as many as a batch has, or what else is to be said of it.
    fn take(&mut self, index: usize) -> Option<Arrival> {
        let partition = &mut self.partitions[index];
        if partition.is_bootstrapped() {
            return Some(Arrival::Bootstrapped(index));
        }
        if partition.has_ended() {
            return Some(Arrival::End(index));
        }
        let rows_max = self.context.rows_max();
        let mut messages = Messages::new(&self.plan.metadata);
        while messages.has_room(rows_max)
            && let Some((entry, place)) = partition.next()
        {
            partition.given = place;
            let from = MessageOrigin {
                offset: entry.id.ms,
                place: &partition.key,
                entry: Some((
                    entry.id.to_string(),
                    i64::try_from(entry.id.ms).unwrap_or(i64::MAX),
                )),
            };
            messages.push(from, |out| match &self.plan.payload {
                None => {
                    self.rows.write(out, &entry.fields);
                    Ok(())
                }
                Some(name) => match entry.fields.iter().find(|it| it.0 == name.as_bytes()) {
                    Some((_, payload)) => {
                        out.extend_from_slice(payload);
                        Ok(())
                    }
                    None => Err(without_payload(&self.rows, name, &entry)),
                },
            });
        }
        if messages.is_empty() {
            return None;
        }
        let (key, end) = (partition.key.clone(), partition.given.into());
        let chunk = messages.decode(&mut self.decoder, &self.context, key, end);
        Some(Arrival::Rows(index, Box::new(chunk)))
    }
}

/// What is wrong with an entry that lacks the field with its row, and what it has.
fn without_payload(rows: &EntryRows, name: &str, entry: &Entry) -> (String, Vec<u8>) {
    let names = entry.fields.iter().map(|(name, _)| name);
    let names: Vec<_> = names.map(|name| String::from_utf8_lossy(name)).collect();
    let names: Vec<&str> = names.iter().map(|name| name.as_ref()).take(20).collect();
    let error = format!(
        "expected the field `{name}` with the row, found an entry with {}",
        suggest::listed(&names)
    );
    let mut shown = Vec::new();
    rows.write(&mut shown, &entry.fields);
    (error, shown)
}

/// Refuses a start where the checkpoint has a stream that is not read any more.
fn refuse_unread(plan: &Streams, context: &SourceContext) -> Result<(), SourceError> {
    let known = context.restored.iter().flat_map(|task| &task.partitions);
    for known in known {
        if !plan.keys.contains(&known.name) {
            let after = Place::from(known.position).after;
            return Err(context.refuse(
                format!(
                    "the checkpoint had read the stream `{}` up to the entry {after}, which the \
                     source does not read any more: name it again, or {}",
                    known.name,
                    context.beginning_anew()
                ),
                Fault::OUTSIDE_LASTING,
            ));
        }
    }
    Ok(())
}

impl StreamPartition {
    fn new(
        key: &str,
        place: Place,
        state: StreamState,
        is_bounded: bool,
        context: &SourceContext,
    ) -> Self {
        let end = Place {
            after: state.last,
            added: state.added,
        };
        StreamPartition {
            key: key.into(),
            first: place,
            given: place,
            read: place,
            entries: VecDeque::new(),
            bytes: 0,
            count: COUNT_FIRST,
            is_all_read: false,
            end: is_bounded.then_some(end),
            bootstrap_end: context.bootstraps.then_some(end.after),
        }
    }

    /// Whether the stream still has what comes next, by what it is now. Its first entry is
    /// one that was read, or all of its entries were read or come next.
    fn check(&self, now: StreamState, context: &SourceContext) -> Result<(), SourceError> {
        let Place { after, added } = self.read;
        let is_behind = now.first.is_none_or(|first| first > after);
        let cause = if now.added < added || is_behind && now.gone() < added {
            format!(
                "the stream was deleted and created again, or its server has lost entries: {added} \
                 were added to it before the entry that was read last, {after}, and now it has \
                 had {}, of which {} are there; to read what is there as `start` says, {}",
                now.added,
                now.length,
                context.beginning_anew()
            )
        } else if is_behind && now.gone() > added {
            format!(
                "entries are gone that come after {after}, the last one that was read: up to {} \
                 were trimmed away or deleted before they were read (have XADD or XTRIM keep \
                 more); to go on without them, {}",
                now.gone() - added,
                context.beginning_anew()
            )
        } else {
            return Ok(());
        };
        let what = format!("stream `{}`", self.key);
        Err(context.failed(what, cause, Fault::OUTSIDE_LASTING))
    }

    /// Keeps what was read until it is handed out. With `bytes_max`, the stream has no room.
    fn keep(&mut self, read: Read, bytes_max: usize) {
        let rows = read.entries.len();
        let bytes: usize = read.entries.iter().map(Entry::bytes).sum();
        if rows > 0 {
            let wanted = (bytes_max / 8).max(AHEAD_BYTES_LEAST);
            let fitting = (wanted * rows / bytes.max(1)).max(1);
            self.count = fitting.min(self.count * 4).min(COUNT_MAX);
        }
        self.is_all_read = read.is_all;
        for entry in read.entries {
            if self.end.is_some_and(|end| entry.id > end.after) {
                self.is_all_read = true;
                return;
            }
            self.bytes += entry.bytes();
            self.read.after = entry.id;
            self.read.added += 1;
            self.entries.push_back((entry, self.read));
        }
        // Nothing comes after these: that tells how many there were, also where some were
        // deleted one by one.
        if read.is_all {
            self.read.added = read.state.added;
            if let Some((_, place)) = self.entries.back_mut() {
                place.added = read.state.added;
            }
        }
    }

    /// The next entry to hand out, up to where the bootstrap ends.
    fn next(&mut self) -> Option<(Entry, Place)> {
        let (entry, _) = self.entries.front()?;
        if self.bootstrap_end.is_some_and(|end| entry.id > end) {
            return None;
        }
        let (entry, place) = self.entries.pop_front()?;
        self.bytes -= entry.bytes();
        Some((entry, place))
    }

    /// Says once that all has been handed out that was there at the start.
    fn is_bootstrapped(&mut self) -> bool {
        let next = self.entries.front().map(|(entry, _)| entry.id);
        let (read, is_all_read) = (self.read.after, self.is_all_read);
        let is_over = |end: &mut EntryId| match next {
            Some(next) => next > *end,
            None => read >= *end || is_all_read,
        };
        self.bootstrap_end.take_if(is_over).is_some()
    }

    fn has_ended(&self) -> bool {
        let is_over = |end: Place| self.read.after >= end.after || self.is_all_read;
        self.entries.is_empty() && self.end.is_some_and(is_over)
    }

    fn has_room(&self, bytes_max: usize) -> bool {
        !self.has_ended() && self.bytes < bytes_max && self.entries.len() < COUNT_MAX
    }
}

impl SourceInput for StreamInput {
    fn partitions(&self) -> usize {
        self.partitions.len()
    }

    fn partition(&self, partition: usize) -> (Arc<str>, Position) {
        let partition = &self.partitions[partition];
        (partition.key.clone(), partition.given.into())
    }

    fn is_live(&self) -> bool {
        true
    }

    fn next<'a>(&'a mut self, order: &'a [usize]) -> Pending<'a, Arrival> {
        Box::pin(self.next_of(order))
    }

    fn progress(&self) -> Option<f64> {
        let mut total = 0;
        let mut given = 0;
        for partition in &self.partitions {
            let end = partition.end?.added;
            total += end.saturating_sub(partition.first.added);
            given += partition
                .given
                .added
                .min(end)
                .saturating_sub(partition.first.added);
        }
        (total > 0).then(|| given as f64 / total as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(ms: u64) -> EntryId {
        EntryId { ms, sequence: 0 }
    }

    #[test]
    fn a_start_is_a_place() {
        let state = StreamState {
            length: 3,
            added: 10,
            last: id(9),
            first: Some(id(7)),
        };
        let place = |start: StreamStart| {
            let place = start.place(state);
            (place.after.to_string(), place.added)
        };
        assert_eq!(place(StreamStart::Earliest), ("0-0".to_owned(), 7));
        assert_eq!(place(StreamStart::Latest), ("9-0".to_owned(), 10));
        let before = "7-18446744073709551615".to_owned();
        assert_eq!(place(StreamStart::At(id(8))), (before, 7));
    }
}
