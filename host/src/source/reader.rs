//! Reads one task's part of a source: chooses which partition is next, finds
//! event times, emits watermarks, and handles bad rows as the source's policy
//! says.
//!
//! Of several partitions, the one that is furthest behind in event time is read
//! next, for a turn of a fixed number of rows, so that the order of rows
//! depends neither on the size of batches nor on the speed of decoding. Of a
//! live input's partitions, the one that is furthest behind among those that
//! have rows is read next.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arrow_array::{ArrayRef, BooleanArray};

use super::chunk::{BadRow, Chunk, keep};
use super::event_time::{EventTimes, event_times, look_like_seconds, time_at};
use super::watermark::Watermarks;
use super::{Arrival, SourceContext, SourceError, SourceInput, TURN_ROWS};
use crate::batch::{Batch, Block, Origin};
use crate::checkpoint::snapshot::{PartitionSnapshot, PartitionState, Position, SourceSnapshot};
use crate::dead_letter::{DeadLetter, OnError, payload, text_or_base64};
use crate::element::Element;
use crate::plan::{EventTime, SourcePlan};
use crate::timestamp;

/// How often a silent source checks the clock, which need not be the system's.
const IDLE_CHECK_MAX: Duration = Duration::from_millis(100);

/// A partition that is silent for so long, and holds back windows, is told of.
const SILENCE_TOLD_MS: i64 = 60_000;

/// Reads one task's part of a source.
pub struct SourceReader {
    input: Box<dyn SourceInput>,
    watermarks: Watermarks,
    /// The name of each partition, and the position after the rows handed out.
    positions: Vec<(Arc<str>, Position)>,
    /// The positions in the last snapshot, if the input wants to know of
    /// commits.
    snapshot_positions: Vec<(Arc<str>, Position)>,
    /// Whether the restored watermark has still to be emitted, before the first
    /// row.
    is_restored: bool,
    /// The partition whose turn it is, and how many rows of it were read in
    /// this turn.
    turn: Option<(usize, u64)>,
    event_time: EventTime,
    ahead_ms_max: Option<i64>,
    /// Whether a silent partition is still to be told of, once.
    tells_of_silence: bool,
    /// Whether it was said that the event times are probably seconds.
    has_warned_of_seconds: bool,
    /// The newest event time taken from the clock, which may be set back.
    ingested_ms: i64,
    on_error: OnError,
    context: SourceContext,
}

/// What a reader returns at a time.
#[derive(Debug, Default)]
pub struct Pulled {
    /// Batches, watermarks and idleness, in order.
    pub elements: Vec<Element>,
    /// Bad rows that become dead letters.
    pub dead_letters: Vec<DeadLetter>,
    /// How many rows were bad, dead letters or skipped.
    pub failed: u64,
    /// How many rows were read, good and bad.
    pub rows_in: u64,
    /// The fraction of a bounded input that has been read, from 0 to 1.
    pub progress: Option<f64>,
}

impl SourceReader {
    /// Opens one task's part of a source. Without partitions, the input has
    /// ended at once. Must be called within a tokio runtime.
    pub async fn open(plan: &SourcePlan, context: SourceContext) -> Result<Self, SourceError> {
        let input = plan.connector.open(&context).await?;
        let mut watermarks = Watermarks::new(
            input.partitions(),
            plan.out_of_orderness_ms,
            plan.idle_after_ms,
            context.clock.now_ms(),
        );
        let mut positions = Vec::with_capacity(input.partitions());
        let mut turn = None;
        for index in 0..input.partitions() {
            let (name, position) = input.partition(index);
            if let Some(restored) = input.restored(index, &context) {
                let state = match restored.state {
                    // There may be more rows since.
                    PartitionState::Ended => PartitionState::Active,
                    state => state,
                };
                watermarks.restore(index, restored.newest_ms, state);
                let in_turn = context.restored_task().and_then(|task| task.turn.as_ref());
                if let Some((_, rows)) = in_turn.filter(|(known, _)| *known == restored.name) {
                    turn = Some((index, *rows));
                }
            }
            positions.push((name, position));
        }
        let ingested_ms = context.restored.iter().filter_map(|task| task.ingested_ms);
        Ok(SourceReader {
            input,
            watermarks,
            positions,
            snapshot_positions: Vec::new(),
            is_restored: !context.restored.is_empty(),
            turn,
            event_time: plan.event_time,
            ahead_ms_max: plan.ahead_ms_max,
            tells_of_silence: false,
            has_warned_of_seconds: false,
            ingested_ms: ingested_ms.max().unwrap_or(i64::MIN),
            on_error: plan.on_error,
            context,
        })
    }

    /// Has it warn once of a partition that is silent and holds back the windows of
    /// the pipeline, which has some.
    pub fn telling_of_silence(mut self) -> Self {
        self.tells_of_silence = true;
        self
    }

    /// Returns the next rows and watermarks; `None` when the input has ended.
    /// The future may be dropped while it waits, and nothing is lost.
    pub async fn next(&mut self) -> Result<Option<Pulled>, SourceError> {
        if std::mem::take(&mut self.is_restored) {
            let mut pulled = Pulled::default();
            self.watermarks.emit(&mut pulled.elements);
            return Ok(Some(pulled));
        }
        loop {
            // Lets other tasks run even if the input always has rows.
            tokio::task::coop::consume_budget().await;
            let (order, overdue) = self.reading_order();
            let mut pulled = Pulled::default();
            match self.wait_for(&order).await? {
                Arrival::Rows(partition, chunk) => {
                    let rows = (chunk.rows + chunk.bad.len()) as u64;
                    if let Some((_, turn_rows)) = &mut self.turn {
                        *turn_rows += rows;
                    }
                    pulled.rows_in = rows;
                    if overdue > 0 {
                        let silent = order.iter().take(overdue).copied();
                        let silent = silent.take_while(|&index| index != partition);
                        self.watermarks.mark_idle(silent, &mut pulled.elements);
                    }
                    self.emit_chunk(partition, *chunk, &mut pulled)?;
                    if self.tells_of_silence && self.input.is_live() {
                        self.warn_of_silence();
                    }
                }
                Arrival::Silence => {
                    let now_ms = self.context.clock.now_ms();
                    self.watermarks.check_idle(now_ms, &mut pulled.elements);
                }
                Arrival::End(partition) => {
                    self.turn = None;
                    self.watermarks.end(partition, &mut pulled.elements);
                }
                Arrival::Partitions => self.add_partitions(&mut pulled.elements),
                Arrival::Over => return Ok(None),
            }
            if pulled.rows_in > 0 || !pulled.elements.is_empty() {
                pulled.progress = self.input.progress();
                return Ok(Some(pulled));
            }
        }
    }

    /// How far the rows go that [`SourceReader::next`] has returned.
    pub fn snapshot(&mut self) -> SourceSnapshot {
        if self.wants_commits() {
            self.snapshot_positions.clone_from(&self.positions);
        }
        let partitions = self.positions.iter().enumerate();
        SourceSnapshot {
            partitions: partitions
                .map(|(index, (name, position))| {
                    let (newest_ms, state) = self.watermarks.snapshot(index);
                    let digest = self.input.digest(index, *position);
                    PartitionSnapshot {
                        name: name.to_string(),
                        position: *position,
                        newest_ms,
                        state,
                        digest,
                    }
                })
                .collect(),
            turn: self
                .turn
                .map(|(partition, rows)| (self.positions[partition].0.to_string(), rows)),
            ingested_ms: Some(self.ingested_ms).filter(|&ms| ms > i64::MIN),
        }
    }

    /// Whether the input wants to know which offsets are committed.
    pub fn wants_commits(&self) -> bool {
        self.input.is_live() && !self.context.is_transactional
    }

    /// The checkpoint of the last snapshot has been committed.
    pub fn committed(&mut self) {
        if self.wants_commits() {
            self.input.committed(&self.snapshot_positions);
        }
    }

    /// The address that a source listens on.
    pub fn address(&self) -> Option<SocketAddr> {
        self.input.address()
    }

    /// The partitions to read next, the preferred one first, and how many of
    /// the first are overdue to become idle if they have no rows now.
    fn reading_order(&mut self) -> (Vec<usize>, usize) {
        if self.input.is_live() {
            let now_ms = self.context.clock.now_ms();
            return self.watermarks.reading_order(now_ms);
        }
        let partition = match self.turn {
            Some((partition, rows)) if rows < TURN_ROWS => Some(partition),
            _ => {
                let partition = self.watermarks.furthest_behind();
                self.turn = partition.map(|partition| (partition, 0));
                partition
            }
        };
        (partition.into_iter().collect(), 0)
    }

    async fn wait_for(&mut self, order: &[usize]) -> Result<Arrival, SourceError> {
        let Some(idle_at_ms) = self.watermarks.idle_at_ms() else {
            return self.input.next(order).await;
        };
        loop {
            let silence_ms = idle_at_ms.saturating_sub(self.context.clock.now_ms());
            let patience = Duration::from_millis(silence_ms.try_into().unwrap_or(0));
            tokio::select! {
                biased;
                arrival = self.input.next(order) => return arrival,
                () = tokio::time::sleep(patience.min(IDLE_CHECK_MAX)) => {}
            }
            if self.context.clock.now_ms() >= idle_at_ms {
                return Ok(Arrival::Silence);
            }
        }
    }

    /// Adds the partitions that an input has found while it was read.
    fn add_partitions(&mut self, out: &mut Vec<Element>) {
        for index in self.positions.len()..self.input.partitions() {
            self.positions.push(self.input.partition(index));
            self.watermarks.add(self.context.clock.now_ms());
        }
        if self.positions.is_empty() {
            // Without partitions, this task must not hold back event time.
            out.push(Element::Idle);
        }
    }

    /// Finds the event times of rows and emits them; bad rows go to the policy.
    fn emit_chunk(
        &mut self,
        partition: usize,
        chunk: Chunk,
        pulled: &mut Pulled,
    ) -> Result<(), SourceError> {
        let now_ms = self.context.clock.now_ms();
        self.positions[partition].1 = chunk.end;
        let partition_name = chunk.block.partition.clone();
        let mut bad = chunk.bad;
        let block = Arc::new(chunk.block);
        let mut columns = chunk.columns;
        let mut kept = None;
        let times = match self.event_time {
            EventTime::Ingestion => {
                self.ingested_ms = self.ingested_ms.max(now_ms);
                vec![self.ingested_ms; chunk.rows].into()
            }
            EventTime::Column(column) => match event_times(&columns[column], self.latest_ms()) {
                EventTimes::All(times) => times,
                EventTimes::Some(mask, times) => {
                    self.collect_untimed(column, &mask, &columns, &block, &mut bad);
                    columns = columns.iter().map(|column| keep(column, &mask)).collect();
                    kept = Some(
                        (0..)
                            .zip(mask.iter())
                            .filter_map(|(row, kept)| (kept == Some(true)).then_some(row))
                            .collect(),
                    );
                    times
                }
            },
        };
        if let EventTime::Column(column) = self.event_time
            && !self.has_warned_of_seconds
            && look_like_seconds(&times)
        {
            self.has_warned_of_seconds = true;
            self.warn_of_seconds(column, times[0]);
        }
        if !bad.is_empty() {
            bad.sort_by_key(|bad| bad.offset);
            self.handle_bad_rows(&partition_name, bad, pulled)?;
        }
        if !times.is_empty() {
            let batch = Batch {
                schema: self.context.schema.clone(),
                columns,
                times,
                origin: Some(Origin { block, rows: kept }),
            };
            self.watermarks
                .observe(partition, batch, now_ms, &mut pulled.elements);
        }
        Ok(())
    }

    /// The last event time that a row may have now.
    fn latest_ms(&self) -> i64 {
        let today_ms = self.context.clock.today_ms();
        let latest = today_ms.zip(self.ahead_ms_max);
        latest.map_or(i64::MAX, |(today, ahead)| today.saturating_add(ahead))
    }

    fn warn_of_silence(&mut self) {
        let now_ms = self.context.clock.now_ms();
        if let Some(index) = self.watermarks.silent_holder(now_ms, SILENCE_TOLD_MS) {
            self.tells_of_silence = false;
            tracing::warn!(
                "source `{}`: partition {} has had no rows for a minute and holds back event time, \
                 so windows do not fire, although other partitions have rows. Give the source \
                 `watermark = {{ idle_after = \"30s\" }}` if a partition may be silent",
                self.context.node,
                self.positions[index].0
            );
        }
    }

    #[cold]
    fn warn_of_seconds(&self, column: usize, ms: i64) {
        let name = self.field_name(column);
        tracing::warn!(
            "source `{}`: the event times in field `{name}` are in 1970, such as {}: {ms} was read \
             as ms, and is probably in seconds. Give the field the type `\"timestamp(s)\"`",
            self.context.node,
            timestamp::to_text(ms)
        );
    }

    fn field_name(&self, column: usize) -> &str {
        let field = self.context.schema.fields.get(column);
        field.map_or("", |field| &field.name)
    }

    /// Adds rows without a valid event time to the bad ones.
    #[cold]
    fn collect_untimed(
        &self,
        column: usize,
        mask: &BooleanArray,
        columns: &[ArrayRef],
        block: &Arc<Block>,
        bad: &mut Vec<BadRow>,
    ) {
        let name = self.field_name(column);
        let expected =
            format!("field `{name}`: expected an event time in the years 1 to 9999, in ms");
        for (row, kept) in mask.iter().enumerate() {
            if kept == Some(true) {
                continue;
            }
            let error = match time_at(&columns[column], row) {
                Some(ms) if timestamp::is_plausible(ms) => format!(
                    "field `{name}`: expected an event time at most {} ahead of the clock, found \
                     {} (`watermark.max_ahead` allows more)",
                    humantime::format_duration(Duration::from_millis(
                        self.ahead_ms_max.map_or(0, i64::unsigned_abs)
                    )),
                    timestamp::to_text(ms)
                ),
                Some(ms) => format!("{expected}, found {ms}"),
                None => format!("{expected}, found null"),
            };
            bad.push(BadRow {
                offset: block.offset(row as u32),
                error,
                payload: payload(block, row as u32),
                envelope: block.envelopes.get(row).cloned(),
            });
        }
    }

    #[cold]
    fn handle_bad_rows(
        &self,
        partition: &str,
        bad: Vec<BadRow>,
        pulled: &mut Pulled,
    ) -> Result<(), SourceError> {
        let node = &self.context.node;
        match self.on_error {
            OnError::Fail => {
                let first = bad.into_iter().next();
                return first.map_or(Ok(()), |bad| {
                    Err(SourceError::Row {
                        node: node.to_string(),
                        partition: partition.to_owned(),
                        offset: bad.offset,
                        cause: bad.error,
                    })
                });
            }
            OnError::Skip => {
                pulled.failed += bad.len() as u64;
                if let Some(first) = bad.first() {
                    tracing::warn!(
                        source = %node,
                        partition,
                        offset = first.offset,
                        rows = bad.len(),
                        "skipped rows that cannot be decoded; the first: {}",
                        first.error
                    );
                }
            }
            // Reading a row's bytes again would not change them.
            OnError::DeadLetter | OnError::Retry(_) => {
                pulled.failed += bad.len() as u64;
                pulled.dead_letters.extend(bad.into_iter().map(|bad| {
                    let (payload, payload_base64) = text_or_base64(bad.payload);
                    let mut dead_letter = DeadLetter {
                        node: node.to_string(),
                        kind: "decode".to_owned(),
                        error: bad.error,
                        source: Some(node.to_string()),
                        partition: Some(partition.to_owned()),
                        offset: Some(bad.offset),
                        payload,
                        payload_base64,
                        ..DeadLetter::default()
                    };
                    if let Some(envelope) = &bad.envelope {
                        dead_letter.add_envelope(envelope);
                    }
                    dead_letter
                }));
            }
        }
        Ok(())
    }
}
