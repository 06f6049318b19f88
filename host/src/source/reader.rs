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

use arrow_buffer::ScalarBuffer;

use super::checksum::Checksums;
use super::chunk::{BadRow, Chunk};
use super::event_time::{Ahead, EventTimes, TimeReader, TimesMadeBy};
use super::misspelt::MisspeltFields;
use super::silence::{SilenceWatch, WatchedReader};
use super::watermark::{SharedWatermarks, Watermarks};
use super::{Arrival, SourceContext, SourceError, SourceInput, TURN_ROWS};
use crate::batch::{Batch, Block, NO_TIME, Origin, gather};
use crate::checkpoint::snapshot::{PartitionSnapshot, PartitionState, Position, SourceSnapshot};
use crate::dead_letter::{DeadLetter, OnError, payload, text_or_base64};
use crate::element::Element;
use crate::plan::{EventTime, GivenTime, SourcePlan};
use crate::progress::{Backlog, SlowestPartition};
use crate::timestamp::CutTimes;

/// How often a silent source checks the clock, which need not be the system's.
const IDLE_CHECK_MAX: Duration = Duration::from_millis(100);

/// Reads one task's part of a source.
pub struct SourceReader {
    input: Box<dyn SourceInput>,
    watermarks: SharedWatermarks,
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
    /// Partitions that had ended before the checkpoint. They are read first: until it is
    /// known whether they have more rows, they hold back event time.
    ended: Vec<usize>,
    /// An overdue partition that has had rows, and when the last row with an event time
    /// had come before.
    doubted: Option<(usize, i64)>,
    checksums: Option<Checksums>,
    /// Until it is known that there are none.
    misspelt: Option<MisspeltFields>,
    is_over: bool,
    times: Times,
    /// Each with this reader's number in it.
    watches: Vec<(Arc<SilenceWatch>, usize)>,
    /// The newest event time taken from the clock, which may be set back.
    ingested_ms: i64,
    on_error: OnError,
    context: SourceContext,
}

/// Where rows get their event time from.
enum Times {
    Field(TimeReader),
    Clock,
    /// The input has them; those of clocks that nobody checks may be too far ahead.
    Given(Option<Ahead>),
    /// An operator of this task, by the shared watermarks.
    Operator,
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
    /// How many messages were lost before they could be read.
    pub lost: u64,
    /// The fraction of a bounded input that has been read, from 0 to 1.
    pub progress: Option<f64>,
    /// Times that were rounded down.
    pub cut_times: Option<CutTimes>,
    /// Says that keys of rows are nearly the names of fields.
    pub misspelt: Option<String>,
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
        )
        .telling_each(plan.tells_each_watermark)
        .bootstrapping(plan.bootstraps);
        let mut positions = Vec::with_capacity(input.partitions());
        let mut turn = None;
        let mut ended = Vec::new();
        for index in 0..input.partitions() {
            let (name, position) = input.partition(index);
            if let Some(restored) = input.restored(index, &context) {
                let state = match restored.state {
                    // There may be more rows since.
                    PartitionState::Ended => {
                        ended.push(index);
                        PartitionState::Active
                    }
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
        let times = match &plan.event_time {
            EventTime::Field(field) => Times::Field(TimeReader::new(
                format!("source `{}`", context.node),
                field.clone(),
                &context.schema,
                plan.ahead_ms_max,
                context.clock.clone(),
                TimesMadeBy::Source(field.unit(
                    &context.schema,
                    &plan.connector.row_format().timestamp_formats,
                )),
            )),
            EventTime::Ingestion => Times::Clock,
            EventTime::Given(given) => Times::Given(match given {
                GivenTime::Message => Some(Ahead::new(plan.ahead_ms_max, context.clock.clone())),
                GivenTime::Before | GivenTime::Change => None,
            }),
            EventTime::Operator(_) => Times::Operator,
        };
        Ok(SourceReader {
            input,
            watermarks: SharedWatermarks::new(watermarks),
            positions,
            snapshot_positions: Vec::new(),
            is_restored: !context.restored.is_empty(),
            turn,
            ended,
            doubted: None,
            checksums: plan
                .checksum
                .clone()
                .map(|checksum| Checksums::new(checksum, &context.schema)),
            misspelt: MisspeltFields::of(
                &context.node,
                &plan.connector.payload_format(),
                &context.schema,
                plan.connector.columns_beside_rows(),
            ),
            is_over: false,
            times,
            watches: Vec::new(),
            ingested_ms: ingested_ms.max().unwrap_or(i64::MIN),
            on_error: plan.on_error,
            context,
        })
    }

    /// Has it warn of partitions that are silent and hold back windows, its own and
    /// those of others that join these watches.
    pub fn watching(mut self, watches: &[Arc<SilenceWatch>]) -> Self {
        let join = |watch: &Arc<SilenceWatch>| {
            let names = self.positions.iter().map(|(name, _)| name.clone());
            let number = watch.join(WatchedReader {
                source: self.context.node.clone(),
                timed_by: match self.times {
                    Times::Operator => "the operator with their event time",
                    Times::Field(_) | Times::Clock | Times::Given(_) => "the source",
                },
                watermarks: self.watermarks.clone(),
                is_live: self.input.is_live(),
                partitions: names.collect(),
            });
            (watch.clone(), number)
        };
        self.watches = watches.iter().map(join).collect();
        self
    }

    /// For the operator of the same task that finds the event times.
    pub fn watermarks(&self) -> SharedWatermarks {
        self.watermarks.clone()
    }

    /// Returns the next rows and watermarks; `None` when the input has ended.
    /// The future may be dropped while it waits, and nothing is lost.
    pub async fn next(&mut self) -> Result<Option<Pulled>, SourceError> {
        let mut pulled = Pulled::default();
        if self.is_over {
            return Ok(None);
        }
        if std::mem::take(&mut self.is_restored) {
            self.watermarks.lock().emit(&mut pulled.elements);
            return Ok(Some(pulled));
        }
        self.check_doubted(&mut pulled.elements);
        if !pulled.elements.is_empty() {
            return Ok(Some(pulled));
        }
        loop {
            // Lets other tasks run even if the input always has rows.
            tokio::task::coop::consume_budget().await;
            let (order, overdue) = self.reading_order();
            match self.wait_for(&order).await? {
                Arrival::Rows(partition, chunk) => {
                    let rows = (chunk.rows + chunk.bad.len()) as u64;
                    if self.was_ended(partition) {
                        self.turn = Some((partition, 0));
                    }
                    if let Some((_, turn_rows)) = &mut self.turn {
                        *turn_rows += rows;
                    }
                    pulled.rows_in = rows;
                    pulled.cut_times.clone_from(&chunk.cut_times);
                    let misspelt = self.misspelt.as_mut();
                    if misspelt.is_some_and(|fields| fields.look(&chunk)) {
                        pulled.misspelt = self.misspelt.take().and_then(|fields| fields.tell());
                    }
                    if let Some(overdue) = order.get(..overdue).filter(|them| !them.is_empty()) {
                        let mut watermarks = self.watermarks.lock();
                        let silent = overdue.iter().copied();
                        let silent = silent
                            .take_while(|&index| index != partition)
                            .filter(|&index| !self.input.holds_rows(index));
                        watermarks.mark_idle(silent, &mut pulled.elements);
                        if overdue.contains(&partition) {
                            self.doubted = Some((partition, watermarks.last_row_ms(partition)));
                        }
                    }
                    self.emit_chunk(partition, *chunk, &mut pulled)?;
                    self.warn_of_silence();
                }
                Arrival::Silence => {
                    let now_ms = self.context.clock.now_ms();
                    let mut watermarks = self.watermarks.lock();
                    let known = 0..self.positions.len();
                    for held in known.filter(|&index| self.input.holds_rows(index)) {
                        watermarks.heard(held, now_ms);
                    }
                    watermarks.check_idle(now_ms, &mut pulled.elements);
                }
                Arrival::Bootstrapped(partition) => {
                    let mut watermarks = self.watermarks.lock();
                    watermarks.bootstrapped(partition, &mut pulled.elements);
                }
                Arrival::End(partition) => {
                    if !self.was_ended(partition) {
                        self.turn = None;
                    }
                    self.watermarks.lock().end(partition, &mut pulled.elements);
                }
                Arrival::Partitions => self.add_partitions(&mut pulled.elements),
                Arrival::Forgotten(partition) => self.forget(partition, &mut pulled.elements),
                Arrival::Over => {
                    self.is_over = true;
                    pulled.misspelt = self.misspelt.take().and_then(|fields| fields.tell());
                    return Ok(pulled.misspelt.is_some().then_some(pulled));
                }
            }
            pulled.lost += self.input.new_losses();
            if pulled.rows_in > 0 || pulled.lost > 0 || !pulled.elements.is_empty() {
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
        let partitions = partitions.map(|(index, (name, position))| {
            let (newest_ms, mut state) = self.watermarks.lock().snapshot(index);
            if self.ended.contains(&index) {
                state = PartitionState::Ended;
            }
            let kept = self.input.kept(index, *position);
            let digest = self.input.digest(index, *position);
            PartitionSnapshot {
                name: name.to_string(),
                position: *position,
                newest_ms,
                state,
                digest,
                kept,
            }
        });
        let mut partitions: Vec<PartitionSnapshot> = partitions.collect();
        partitions.extend_from_slice(self.input.absent());
        SourceSnapshot {
            partitions,
            turn: self
                .turn
                .map(|(partition, rows)| (self.positions[partition].0.to_string(), rows)),
            ingested_ms: Some(self.ingested_ms).filter(|&ms| ms > i64::MIN),
        }
    }

    /// Whether the input wants to know which positions are committed.
    pub fn wants_commits(&self) -> bool {
        self.input.wants_commits()
    }

    /// The checkpoint of the last snapshot has been committed.
    pub fn committed(&mut self) {
        if self.wants_commits() {
            self.input.committed(&self.snapshot_positions);
        }
    }

    /// Whether it finds the event times itself.
    pub fn finds_times(&self) -> bool {
        !matches!(self.times, Times::Operator)
    }

    /// How many messages wait to be read, if somebody finds that out.
    pub fn backlog(&self) -> Option<Arc<Backlog>> {
        self.input.backlog()
    }

    /// The partition that holds back the watermark. Where an operator finds the event times,
    /// that is known of the rows which it has seen.
    pub fn slowest(&self) -> Option<SlowestPartition> {
        let lowest = self.watermarks.lock().lowest()?;
        Some(SlowestPartition {
            name: self.positions.get(lowest.partition)?.0.clone(),
            watermark_ms: lowest.watermark_ms,
            last_row_ms: lowest.last_row_ms,
        })
    }

    /// Notes how long it took until a batch was taken.
    pub fn taken(&self, took: Duration) {
        self.context.pace.note(took);
    }

    /// The address that a source listens on.
    pub fn address(&self) -> Option<SocketAddr> {
        self.input.address()
    }

    /// The partitions to read next, the preferred one first, and how many of
    /// the first are overdue to become idle if they have no rows now.
    fn reading_order(&mut self) -> (Vec<usize>, usize) {
        if let Some(&ended) = self.ended.last() {
            return (vec![ended], 0);
        }
        if self.input.is_live() {
            let now_ms = self.context.clock.now_ms();
            return self.watermarks.lock().reading_order(now_ms);
        }
        let partition = match self.turn {
            Some((partition, rows)) if rows < TURN_ROWS => Some(partition),
            _ => {
                let partition = self.watermarks.lock().furthest_behind();
                self.turn = partition.map(|partition| (partition, 0));
                partition
            }
        };
        (partition.into_iter().collect(), 0)
    }

    /// Whether a partition had ended before the checkpoint, and was not read since.
    fn was_ended(&mut self, partition: usize) -> bool {
        let known = self.ended.iter().position(|&ended| ended == partition);
        known.map(|at| self.ended.remove(at)).is_some()
    }

    async fn wait_for(&mut self, order: &[usize]) -> Result<Arrival, SourceError> {
        let idle_at_ms = self.watermarks.lock().idle_at_ms();
        let Some(idle_at_ms) = idle_at_ms else {
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
            for (watch, number) in &self.watches {
                watch.add(*number, self.positions[index].0.clone());
            }
            let now_ms = self.context.clock.now_ms();
            self.watermarks.lock().add(now_ms);
        }
        if self.positions.is_empty() {
            // Without partitions, this task must not hold back event time.
            out.push(Element::Idle);
        }
    }

    /// Forgets a partition that has no more rows. Those behind it move up.
    fn forget(&mut self, partition: usize, out: &mut Vec<Element>) {
        self.positions.remove(partition);
        // Of a checkpoint in which partitions were read in turns.
        self.turn = None;
        self.watermarks.lock().remove(partition, out);
        for (watch, number) in &self.watches {
            watch.remove(*number, partition);
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
        let mut rows = chunk.rows;
        let mut kept: Option<Vec<u32>> = None;
        let wrong = self.checksums.as_ref().map(|it| it.wrong(&columns, rows));
        if let Some(wrong) = wrong.filter(|wrong| !wrong.is_empty()) {
            let mut wrong_rows = wrong.iter().map(|(row, _)| *row).peekable();
            let is_right = |row: &u32| wrong_rows.next_if_eq(row).is_none();
            let right: Vec<u32> = (0..rows as u32).filter(is_right).collect();
            bad.extend(bad_rows(&block, wrong));
            columns = gather(&columns, &right);
            rows = right.len();
            kept = Some(right);
        }
        let mut taken_back = chunk.taken_back;
        let times = match &mut self.times {
            Times::Clock => {
                self.ingested_ms = self.ingested_ms.max(now_ms);
                EventTimes::All(vec![self.ingested_ms; rows].into())
            }
            Times::Given(ahead) => {
                let times = given_times(chunk.times, kept.as_deref(), rows);
                match ahead {
                    Some(ahead) => ahead.check(times),
                    None => EventTimes::All(times),
                }
            }
            Times::Operator => EventTimes::All(vec![NO_TIME; rows].into()),
            Times::Field(reader) => reader.read(&columns),
        };
        let times = match times {
            EventTimes::All(times) => times,
            EventTimes::Some {
                rows: timed,
                times,
                bad: untimed,
            } => {
                columns = gather(&columns, &timed);
                let place = |row: u32| kept.as_ref().map_or(row, |kept| kept[row as usize]);
                let untimed = untimed.into_iter();
                let untimed = untimed.map(|(row, error)| (place(row), error));
                bad.extend(bad_rows(&block, untimed));
                kept = Some(timed.into_iter().map(place).collect());
                times
            }
        };
        if !bad.is_empty() {
            bad.sort_by_key(|bad| bad.offset);
            self.input.bad(partition, &bad);
            self.handle_bad_rows(&partition_name, bad, pulled)?;
        }
        if let (Some(rows), Some(kept)) = (&taken_back, &kept) {
            let of_kept = kept.iter().map(|&row| rows.value(row as usize));
            taken_back = Some(of_kept.collect());
        }
        let (times, void) = match taken_back.is_some() {
            true => self.times_of_changes(partition, times),
            false => (times, 0),
        };
        pulled.rows_in -= void as u64;
        if times.len() > void {
            let batch = Batch {
                schema: self.context.schema.clone(),
                columns,
                times,
                origin: Some(Origin {
                    block,
                    rows: kept.map(Into::into),
                }),
                watermarks: None,
                taken_back,
            };
            let batch = match void {
                0 => batch,
                void => batch.slice(void, batch.rows() - void),
            };
            let mut watermarks = self.watermarks.lock();
            match self.times {
                Times::Operator => {
                    watermarks.begin(partition);
                    pulled.elements.push(Element::Batch(batch));
                }
                Times::Field(_) | Times::Clock | Times::Given(_) => {
                    watermarks.observe(partition, batch, now_ms, &mut pulled.elements);
                }
            }
        }
        Ok(())
    }

    /// Makes no change older than the one before it: their order is that in which they were
    /// made, whatever clocks have said, and some do not tell a time at all. So many of the
    /// first ones are void: nothing of their partition has come that they could take back.
    fn times_of_changes(
        &self,
        partition: usize,
        times: ScalarBuffer<i64>,
    ) -> (ScalarBuffer<i64>, usize) {
        let (newest_ms, _) = self.watermarks.lock().snapshot(partition);
        let mut last_ms = newest_ms.unwrap_or(NO_TIME);
        let untimed = |&&ms: &&i64| last_ms == NO_TIME && ms == NO_TIME;
        let first = times.iter().take_while(untimed).count();
        let times = times.iter().map(|&ms| {
            last_ms = last_ms.max(ms);
            last_ms
        });
        (times.collect(), first)
    }

    /// Marks an overdue partition as idle whose rows had no event time: it would be read
    /// before all others for ever.
    fn check_doubted(&mut self, out: &mut Vec<Element>) {
        if let Some((partition, before_ms)) = self.doubted.take() {
            let mut watermarks = self.watermarks.lock();
            if watermarks.last_row_ms(partition) == before_ms {
                watermarks.mark_idle([partition], out);
            }
        }
    }

    fn warn_of_silence(&self) {
        let now_ms = self.context.clock.now_ms();
        for (watch, _) in &self.watches {
            if let Some(warning) = watch.look(now_ms) {
                tracing::warn!("{warning}");
            }
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

/// The times that an input gives, of the rows that are kept.
fn given_times(
    given: Option<ScalarBuffer<i64>>,
    kept: Option<&[u32]>,
    rows: usize,
) -> ScalarBuffer<i64> {
    match (given, kept) {
        (Some(given), None) => given,
        (Some(given), Some(kept)) => kept.iter().map(|&row| given[row as usize]).collect(),
        (None, _) => vec![NO_TIME; rows].into(),
    }
}

/// Decoded rows that are bad all the same, each with what is wrong.
fn bad_rows(
    block: &Block,
    rows: impl IntoIterator<Item = (u32, String)>,
) -> impl Iterator<Item = BadRow> {
    rows.into_iter().map(|(row, error)| BadRow {
        offset: block.offset(row),
        error,
        payload: payload(block, row),
        envelope: block.envelopes.get(row as usize).cloned(),
    })
}

#[cfg(test)]
mod tests {
    use arrow_array::cast::AsArray;
    use arrow_array::types::Int64Type;
    use arrow_array::{Array, ArrayRef, Int64Array, RecordBatch};

    use super::*;
    use crate::batch::{Block, Offsets, Payload};
    use crate::clock::ManualClock;
    use crate::connector::Description;
    use crate::placement::Placement;
    use crate::plan::FieldPath;
    use crate::schema::{DataType, Field, Schema};
    use crate::source::chunk::at_row;
    use crate::source::{Pending, SourceConnector};
    use crate::stop::Stop;

    /// Two partitions that always have a row: the first one without a time, the second
    /// with times that advance. The first may also hold its rows; then the second has one
    /// every other time.
    struct Restless {
        holds: bool,
    }

    struct RestlessInput {
        holds: bool,
        rows: i64,
        schema: Arc<Schema>,
    }

    impl SourceConnector for Restless {
        fn describe(&self) -> Description {
            Description::default()
        }

        fn partitions(&self) -> Option<usize> {
            Some(2)
        }

        fn open<'a>(&'a self, context: &'a SourceContext) -> Pending<'a, Box<dyn SourceInput>> {
            let schema = context.schema.clone();
            let (rows, holds) = (0, self.holds);
            let input = RestlessInput {
                holds,
                rows,
                schema,
            };
            Box::pin(async { Ok(Box::new(input) as Box<dyn SourceInput>) })
        }
    }

    impl SourceInput for RestlessInput {
        fn partitions(&self) -> usize {
            2
        }

        fn partition(&self, partition: usize) -> (Arc<str>, Position) {
            (partition.to_string().into(), at_row(0))
        }

        fn is_live(&self) -> bool {
            true
        }

        fn next<'a>(&'a mut self, order: &'a [usize]) -> Pending<'a, Arrival> {
            Box::pin(async move {
                self.rows += 1;
                if self.holds && self.rows % 2 == 0 {
                    std::future::pending::<()>().await;
                }
                let partition = if self.holds { 1 } else { order[0] };
                let time = Some(self.rows).filter(|_| partition == 1);
                let columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(vec![time]))];
                let arrow = Arc::new(self.schema.to_arrow());
                let rows = RecordBatch::try_new(arrow, columns.clone()).expect("one column");
                let chunk = Chunk {
                    columns,
                    rows: 1,
                    block: Block {
                        source: "restless".into(),
                        partition: partition.to_string().into(),
                        offsets: Offsets::From(0),
                        payload: Payload::Rows(rows),
                        envelopes: Vec::new(),
                    },
                    bad: Vec::new(),
                    end: at_row(1),
                    cut_times: None,
                    times: None,
                    taken_back: None,
                };
                Ok(Arrival::of(partition, Some(chunk)))
            })
        }

        fn holds_rows(&self, partition: usize) -> bool {
            self.holds && partition == 0
        }
    }

    async fn restless(
        holds: bool,
        event_time: EventTime,
        clock: &Arc<ManualClock>,
    ) -> SourceReader {
        let plan = SourcePlan {
            connector: Box::new(Restless { holds }),
            event_time,
            out_of_orderness_ms: 0,
            ahead_ms_max: None,
            idle_after_ms: Some(1_000),
            tells_each_watermark: false,
            bootstraps: false,
            on_error: OnError::DeadLetter,
            checksum: None,
        };
        let context = SourceContext {
            node: "restless".into(),
            schema: Arc::new(Schema::new(vec![Field::new("ts", DataType::Int64, true)])),
            placement: Placement::on_one_host(0, 1),
            batch_rows: 1,
            budget: Arc::new(crate::budget::Budget::new(usize::MAX)),
            pace: Arc::default(),
            decode_workers: 1,
            clock: clock.clone(),
            is_transactional: false,
            bootstraps: false,
            is_checkpointed: false,
            are_checkpoints_kept: false,
            restored: Arc::new([]),
            left_by_others: Arc::new([]),
            stop: Stop::default(),
        };
        SourceReader::open(&plan, context).await.expect("it opens")
    }

    #[tokio::test]
    async fn a_partition_of_rows_without_a_time_becomes_idle_and_lets_others_be_read() {
        let field = EventTime::Field(FieldPath::new(0, Vec::new()));
        for event_time in [field, EventTime::Operator(1)] {
            let clock = Arc::new(ManualClock::default());
            let mut reader = restless(false, event_time.clone(), &clock).await;
            let mut advanced = 0;
            for second in 0..20 {
                let now_ms = second * 1_000;
                clock.set(now_ms);
                let pulled = reader.next().await.expect("it reads").expect("rows");
                let mut elements = Vec::new();
                for element in pulled.elements {
                    match element {
                        // The operator takes the times of its rows from the column.
                        Element::Batch(mut batch) if event_time == EventTime::Operator(1) => {
                            assert_eq!(batch.times[..], [NO_TIME]);
                            let column = &batch.columns[0];
                            if column.null_count() == 0 {
                                batch.times = column.as_primitive::<Int64Type>().values().clone();
                                let mut watermarks = reader.watermarks.lock();
                                watermarks.observe_current(batch, now_ms, &mut elements);
                            }
                        }
                        element => elements.push(element),
                    }
                }
                let is_time = |it: &&Element| matches!(it, Element::Watermark(_));
                advanced += elements.iter().filter(is_time).count();
            }
            assert!(
                advanced > 5,
                "{event_time:?}: time advanced {advanced} times"
            );
            let states: Vec<PartitionState> = (0..2)
                .map(|partition| reader.watermarks.lock().snapshot(partition).1)
                .collect();
            assert_eq!(states, [PartitionState::Idle, PartitionState::Active]);
        }
    }

    #[tokio::test]
    async fn a_partition_that_holds_its_rows_is_not_idle() {
        let field = EventTime::Field(FieldPath::new(0, Vec::new()));
        let clock = Arc::new(ManualClock::default());
        let mut reader = restless(true, field, &clock).await;
        for second in 0..20 {
            clock.set(second * 1_000);
            let pulled = reader.next().await.expect("it reads").expect("rows");
            let is_batch = |element: &Element| matches!(element, Element::Batch(_));
            assert!(pulled.elements.iter().all(is_batch), "time waits");
        }
        let state = reader.watermarks.lock().snapshot(0).1;
        assert_eq!(state, PartitionState::Active);
    }
}
