//! Where rows come from: a source's partitions are read, their bytes decoded,
//! event times found, and watermarks told.
//!
//! Each task reads the partitions that its placement gives it. Where it has
//! several, the one that is furthest behind in event time is read next,
//! a turn of a fixed number of rows at a time, so that the order of rows
//! depends on neither the size of batches nor the pace of decoding.
//!
//! A live input is one whose partitions get their rows from outside while it is
//! read. It waits for no single one of them: of those that have rows, the one
//! that is furthest behind is read next.

mod file;
mod framing;
pub mod generator;
mod kafka;
mod memory;
mod tcp;
pub mod watermark;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, TimestampMillisecondType};
use arrow_array::{Array, ArrayRef, BooleanArray};
use arrow_buffer::{Buffer, ScalarBuffer};
use arrow_schema::DataType as ArrowType;
use arrow_select::filter::filter;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use self::watermark::Watermarks;
use crate::batch::{Batch, Block, Offsets, Origin, Payload};
use crate::checkpoint::snapshot::{PartitionSnapshot, PartitionState, Position, SourceSnapshot};
use crate::clock::Clock;
use crate::decode::Decoder;
use crate::element::Element;
use crate::operator::DeadLetter;
use crate::placement::Placement;
use crate::plan::{EventTime, Format, OnError, SourceConnector, SourcePlan};
use crate::schema::Schema;
use crate::sink::json_lines;
use crate::timestamp;

/// How many rows of a partition are read before it is seen which one is behind.
const TURN_ROWS: u64 = 4_096;

/// How often a silent source looks at the clock, which need not be the system's.
const IDLE_CHECK_MAX: Duration = Duration::from_millis(100);

/// What a source needs to know of the task that reads it.
#[derive(Clone)]
pub struct SourceContext {
    pub node: Arc<str>,
    pub schema: Arc<Schema>,
    pub placement: Placement,
    pub batch_rows: usize,
    /// Blocks decoded at the same time, in order; one is decoded where it is read.
    pub decode_workers: usize,
    pub clock: Arc<dyn Clock>,
    /// How far it has come is part of the pipeline's transaction.
    pub is_transactional: bool,
    /// How far the source's tasks had come at the checkpoint that is restored.
    pub restored: Arc<[SourceSnapshot]>,
}

impl SourceContext {
    /// How far a partition had come, whichever task had it.
    fn restored(&self, partition: &str) -> Option<&PartitionSnapshot> {
        let mut partitions = self.restored.iter().flat_map(|task| &task.partitions);
        partitions.find(|known| known.name == partition)
    }

    /// The same task's own snapshot, if there were as many tasks.
    fn restored_task(&self) -> Option<&SourceSnapshot> {
        self.restored
            .get(self.placement.task)
            .filter(|_| self.restored.len() == self.placement.tasks)
    }
}

/// Why a source cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("source `{node}`: {message}")]
    Open { node: String, message: String },
    #[error("source `{node}`: decoding {partition} broke off, which is a bug of ours: {cause}")]
    Bug {
        node: String,
        partition: String,
        cause: String,
    },
    #[error("source `{node}`: cannot read {}: {cause}", path.display())]
    Read {
        node: String,
        path: PathBuf,
        cause: std::io::Error,
    },
    #[error("source `{node}`: {what}: {cause}")]
    Kafka {
        node: String,
        what: String,
        cause: String,
    },
    #[error(
        "source `{node}`: {partition}, offset {offset}: {cause} \
         (`on_error` is \"fail\"; \"skip\" or \"dead_letter\" go on without the row)"
    )]
    Row {
        node: String,
        partition: String,
        offset: u64,
        cause: String,
    },
}

/// How many partitions a source has, and so how many tasks may read it at most.
/// `None` where that is not known before it is opened.
pub fn partitions(plan: &SourcePlan) -> Option<usize> {
    match &plan.connector {
        SourceConnector::File(file) => Some(file.paths.len()),
        SourceConnector::Memory(partitions) => Some(partitions.len()),
        SourceConnector::Generator(_) => Some(1),
        SourceConnector::Kafka(kafka) => Some(match &kafka.partitions {
            Some(numbers) => kafka.topics.len() * numbers.len(),
            // Only the brokers know, and there may be more tomorrow.
            None => usize::MAX,
        }),
        SourceConnector::Tcp(_) => None,
    }
}

/// Opens what this task reads of a source. A task without partitions gets a
/// reader whose input has ended. Must be called within a tokio runtime.
pub async fn open(plan: &SourcePlan, context: SourceContext) -> Result<Reader, SourceError> {
    check_delimiter(&plan.connector, &context)?;
    let input = match &plan.connector {
        SourceConnector::File(file) => Input::File(file::FileInput::open(file, plan, &context)?),
        SourceConnector::Memory(partitions) => {
            Input::Memory(memory::MemoryInput::open(partitions, &context)?)
        }
        SourceConnector::Generator(generator) => {
            Input::Generator(generator::GeneratorInput::open(generator, &context)?)
        }
        SourceConnector::Tcp(tcp) => Input::Tcp(tcp::TcpInput::open(tcp, plan, &context).await?),
        SourceConnector::Kafka(kafka) => {
            let input = kafka::KafkaInput::open(kafka, plan, &context).await?;
            Input::Kafka(Box::new(input))
        }
    };
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
        if let Some(restored) = context.restored(&name) {
            let state = match restored.state {
                // There may be more since.
                PartitionState::Ended if input.is_live() => PartitionState::Speaking,
                state => state,
            };
            watermarks.restore(index, restored.newest_ms, state);
        }
        let in_turn = context.restored_task().and_then(|task| task.turn.clone());
        if let Some((_, rows)) = in_turn.filter(|(partition, _)| **partition == *name) {
            turn = Some((index, rows));
        }
        positions.push((name, position));
    }
    let ingested_ms = context.restored.iter().filter_map(|task| task.ingested_ms);
    Ok(Reader {
        input,
        watermarks,
        positions,
        handed_over: Vec::new(),
        is_restored: !context.restored.is_empty(),
        turn,
        event_time: plan.event_time,
        ingested_ms: ingested_ms.max().unwrap_or(i64::MIN),
        on_error: plan.on_error,
        context,
    })
}

/// A delimiter that is no character by itself would cut texts in the middle of one.
fn check_delimiter(
    connector: &SourceConnector,
    context: &SourceContext,
) -> Result<(), SourceError> {
    let format = match connector {
        SourceConnector::File(file) => &file.format,
        SourceConnector::Tcp(tcp) => &tcp.format,
        SourceConnector::Kafka(kafka) => &kafka.format,
        SourceConnector::Generator(_) | SourceConnector::Memory(_) => return Ok(()),
    };
    match format {
        Format::Csv(csv) if !csv.delimiter.is_ascii() || b"\"\r\n".contains(&csv.delimiter) => {
            Err(SourceError::Open {
                node: context.node.to_string(),
                message: "the CSV delimiter has to be an ASCII character, and neither a quote nor \
                          a line end"
                    .to_owned(),
            })
        }
        _ => Ok(()),
    }
}

/// One task's part of a source.
pub struct Reader {
    input: Input,
    watermarks: Watermarks,
    /// The partitions' names, and where the rows end that were given.
    positions: Vec<(Arc<str>, Position)>,
    /// Those of the last snapshot, where somebody is to be told.
    handed_over: Vec<(Arc<str>, Position)>,
    /// Time was told before the checkpoint, and has to be told anew.
    is_restored: bool,
    /// The partition whose turn it is, and how many rows it has had in it.
    turn: Option<(usize, u64)>,
    event_time: EventTime,
    /// The newest event time given by the clock, which may be set back.
    ingested_ms: i64,
    on_error: OnError,
    context: SourceContext,
}

/// What a reader gives at a time.
#[derive(Debug, Default)]
pub struct Pulled {
    /// Batches, watermarks and silences, in order.
    pub elements: Vec<Element>,
    /// Rows that are not in them, where the source's policy asks for that.
    pub dead_letters: Vec<DeadLetter>,
    /// Rows that are not in them, either way.
    pub failed: u64,
    /// Rows read, good and bad.
    pub rows_in: u64,
    /// What part of a bounded input has been read, from 0 to 1.
    pub progress: Option<f64>,
}

/// Where a row comes from, as a dead letter says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provenance {
    pub source: String,
    pub partition: String,
    pub offset: u64,
    /// The original text, or its base64 when it is not UTF-8.
    pub payload: Option<String>,
    pub payload_base64: Option<String>,
}

enum Input {
    File(file::FileInput),
    Memory(memory::MemoryInput),
    Generator(generator::GeneratorInput),
    Tcp(tcp::TcpInput),
    Kafka(Box<kafka::KafkaInput>),
}

/// What an input has next.
enum Heard {
    /// Of this partition.
    Rows(usize, Box<Chunk>),
    /// Nothing came for as long as a partition may be silent.
    Silence,
    /// This partition has no more rows.
    End(usize),
    /// It is known now which partitions there are, or there are more.
    Partitions,
    /// No partition has more rows, and none is to come.
    Over,
}

/// Rows of one partition, decoded.
struct Chunk {
    columns: Vec<ArrayRef>,
    rows: usize,
    block: Block,
    /// Ascending by offset.
    bad: Vec<BadInput>,
    /// Behind its rows.
    end: Position,
}

/// A row that could not be decoded.
#[derive(Debug)]
struct BadInput {
    offset: u64,
    error: String,
    payload: Vec<u8>,
}

impl Reader {
    /// The next rows and times; `None` when the input has ended. May be dropped
    /// while it waits, and called again: nothing is lost.
    pub async fn next(&mut self) -> Result<Option<Pulled>, SourceError> {
        if std::mem::take(&mut self.is_restored) {
            let mut pulled = Pulled::default();
            self.watermarks.tell(&mut pulled.elements);
            return Ok(Some(pulled));
        }
        loop {
            // An input that is always ready must let others have their turn.
            tokio::task::coop::consume_budget().await;
            let (order, overdue) = self.reading_order();
            let mut pulled = Pulled::default();
            match self.wait_for(&order).await? {
                Heard::Rows(partition, chunk) => {
                    let rows = (chunk.rows + chunk.bad.len()) as u64;
                    if let Some((_, turn_rows)) = &mut self.turn {
                        *turn_rows += rows;
                    }
                    pulled.rows_in = rows;
                    if overdue > 0 {
                        let silent = order.iter().take(overdue).copied();
                        let silent = silent.take_while(|&index| index != partition);
                        self.watermarks.fall_idle(silent, &mut pulled.elements);
                    }
                    self.accept(partition, *chunk, &mut pulled)?;
                }
                Heard::Silence => {
                    let now_ms = self.context.clock.now_ms();
                    self.watermarks.check_idle(now_ms, &mut pulled.elements);
                }
                Heard::End(partition) => {
                    self.turn = None;
                    self.watermarks.end(partition, &mut pulled.elements);
                }
                Heard::Partitions => self.meet_partitions(&mut pulled.elements),
                Heard::Over => return Ok(None),
            }
            if pulled.rows_in > 0 || !pulled.elements.is_empty() {
                pulled.progress = self.input.progress();
                return Ok(Some(pulled));
            }
        }
    }

    /// How far it has come with the rows that [`Reader::next`] has given.
    pub fn snapshot(&mut self) -> SourceSnapshot {
        if self.hears_of_commits() {
            self.handed_over.clone_from(&self.positions);
        }
        let partitions = self.positions.iter().enumerate();
        SourceSnapshot {
            partitions: partitions
                .map(|(index, (name, position))| {
                    let (newest_ms, state) = self.watermarks.snapshot(index);
                    PartitionSnapshot {
                        name: name.to_string(),
                        position: *position,
                        newest_ms,
                        state,
                    }
                })
                .collect(),
            turn: self
                .turn
                .map(|(partition, rows)| (self.positions[partition].0.to_string(), rows)),
            ingested_ms: Some(self.ingested_ms).filter(|&ms| ms > i64::MIN),
        }
    }

    /// Whether somebody is to be told how far checkpoints have come.
    pub fn hears_of_commits(&self) -> bool {
        self.input.is_live() && !self.context.is_transactional
    }

    /// The checkpoint of the last snapshot is done.
    pub fn committed(&mut self) {
        if self.hears_of_commits()
            && let Input::Kafka(kafka) = &mut self.input
        {
            kafka.commit(&self.handed_over);
        }
    }

    /// Where a source that others connect to listens.
    pub fn address(&self) -> Option<SocketAddr> {
        match &self.input {
            Input::Tcp(tcp) => Some(tcp.address()),
            _ => None,
        }
    }

    /// The partitions that may be read next, the preferred one first, and how
    /// many of the first have been silent for too long if they have no rows now.
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

    async fn wait_for(&mut self, order: &[usize]) -> Result<Heard, SourceError> {
        let Some(idle_at_ms) = self.watermarks.idle_at_ms() else {
            return self.input.next_of(order).await;
        };
        loop {
            let silence_ms = idle_at_ms.saturating_sub(self.context.clock.now_ms());
            let patience = Duration::from_millis(silence_ms.try_into().unwrap_or(0));
            tokio::select! {
                biased;
                heard = self.input.next_of(order) => return heard,
                () = tokio::time::sleep(patience.min(IDLE_CHECK_MAX)) => {}
            }
            if self.context.clock.now_ms() >= idle_at_ms {
                return Ok(Heard::Silence);
            }
        }
    }

    /// Takes on the partitions that an input has found while it was read.
    fn meet_partitions(&mut self, out: &mut Vec<Element>) {
        for index in self.positions.len()..self.input.partitions() {
            self.positions.push(self.input.partition(index));
            self.watermarks.add(self.context.clock.now_ms());
        }
        if self.positions.is_empty() {
            // A task without partitions has nothing to say about time.
            out.push(Element::Idle);
        }
    }

    /// Gives rows their event times and passes them on; bad rows go to the policy.
    fn accept(
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
            EventTime::Column(column) => match event_times(&columns[column]) {
                EventTimes::All(times) => times,
                EventTimes::Some(mask, times) => {
                    self.set_aside(column, &mask, &columns, &block, &mut bad);
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
        if !bad.is_empty() {
            bad.sort_by_key(|bad| bad.offset);
            self.give_up(&partition_name, bad, pulled)?;
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

    /// Rows whose event time cannot be one.
    #[cold]
    fn set_aside(
        &self,
        column: usize,
        mask: &BooleanArray,
        columns: &[ArrayRef],
        block: &Arc<Block>,
        bad: &mut Vec<BadInput>,
    ) {
        let name = self
            .context
            .schema
            .fields
            .get(column)
            .map_or("", |field| field.name.as_str());
        for (row, kept) in mask.iter().enumerate() {
            if kept == Some(true) {
                continue;
            }
            let found = match time_at(&columns[column], row) {
                Some(ms) => ms.to_string(),
                None => "null".to_owned(),
            };
            bad.push(BadInput {
                offset: block.offset(row as u32),
                error: format!(
                    "field `{name}`: expected an event time in the years 1 to 9999, in ms, \
                     found {found}"
                ),
                payload: payload(block, row as u32),
            });
        }
    }

    #[cold]
    fn give_up(
        &self,
        partition: &str,
        bad: Vec<BadInput>,
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
            // What a row's bytes say does not change by reading them again.
            OnError::DeadLetter | OnError::Retry(_) => {
                pulled.failed += bad.len() as u64;
                pulled.dead_letters.extend(bad.into_iter().map(|bad| {
                    let (payload, payload_base64) = text_or_base64(bad.payload);
                    DeadLetter {
                        node: node.to_string(),
                        kind: "decode".to_owned(),
                        error: bad.error,
                        source: Some(node.to_string()),
                        partition: Some(partition.to_owned()),
                        offset: Some(bad.offset),
                        payload,
                        payload_base64,
                        ..DeadLetter::default()
                    }
                }));
            }
        }
        Ok(())
    }
}

impl Input {
    /// How many partitions this task has.
    fn partitions(&self) -> usize {
        match self {
            Input::File(file) => file.partitions(),
            Input::Memory(memory) => memory.partitions(),
            Input::Generator(generator) => generator.partitions(),
            Input::Tcp(_) => 1,
            Input::Kafka(kafka) => kafka.partitions(),
        }
    }

    /// Whether rows come from outside while it is read, and partitions too.
    fn is_live(&self) -> bool {
        matches!(self, Input::Kafka(_))
    }

    /// The name of a partition, and where its first row is.
    fn partition(&self, partition: usize) -> (Arc<str>, Position) {
        match self {
            Input::File(file) => file.partition(partition),
            Input::Memory(memory) => memory.partition(partition),
            Input::Generator(generator) => generator.partition(),
            Input::Tcp(tcp) => tcp.partition(),
            Input::Kafka(kafka) => kafka.partition(partition),
        }
    }

    /// The next rows of the first of these partitions, or if it is live, of the
    /// first that has some. May be dropped while it waits.
    async fn next_of(&mut self, order: &[usize]) -> Result<Heard, SourceError> {
        if let Input::Kafka(kafka) = self {
            return kafka.next_of(order).await;
        }
        let Some(&partition) = order.first() else {
            return Ok(Heard::Over);
        };
        let chunk = match self {
            Input::File(file) => file.next(partition).await?,
            Input::Memory(memory) => memory.next(partition),
            Input::Generator(generator) => generator.next().await,
            Input::Tcp(tcp) => tcp.next().await,
            Input::Kafka(_) => None,
        };
        Ok(match chunk {
            Some(chunk) => Heard::Rows(partition, Box::new(chunk)),
            None => Heard::End(partition),
        })
    }

    fn progress(&self) -> Option<f64> {
        match self {
            Input::File(file) => file.progress(),
            Input::Memory(memory) => memory.progress(),
            Input::Generator(generator) => generator.progress(),
            Input::Tcp(_) => None,
            Input::Kafka(kafka) => kafka.progress(),
        }
    }
}

/// Where a batch's row comes from.
pub fn provenance(origin: &Origin, row: usize) -> Provenance {
    let block = &origin.block;
    let row = origin.row(row);
    let (payload, payload_base64) = text_or_base64(payload(block, row));
    Provenance {
        source: block.source.to_string(),
        partition: block.partition.to_string(),
        offset: block.offset(row),
        payload,
        payload_base64,
    }
}

/// The bytes that a row was decoded from; as JSON where it never was bytes.
fn payload(block: &Block, row: u32) -> Vec<u8> {
    match &block.payload {
        Payload::Bytes { data, spans } => spans
            .get(row as usize)
            .and_then(|&(start, end)| data.get(start as usize..end as usize))
            .unwrap_or_default()
            .to_vec(),
        Payload::Rows(rows) => json_lines::render_record(rows, row as usize).into_bytes(),
    }
}

fn text_or_base64(payload: Vec<u8>) -> (Option<String>, Option<String>) {
    match String::from_utf8(payload) {
        Ok(text) => (Some(text), None),
        Err(error) => (None, Some(BASE64_STANDARD.encode(error.as_bytes()))),
    }
}

/// Decodes the rows of a block; the good ones keep their spans.
fn decode(
    decoder: &mut Decoder,
    source: Arc<str>,
    partition: Arc<str>,
    data: Buffer,
    mut spans: Vec<(u32, u32)>,
    mut offsets: Offsets,
    end: Position,
) -> Chunk {
    let decoded = decoder.decode(&data, &spans);
    let mut bad = Vec::new();
    if !decoded.bad.is_empty() {
        // Rows are no longer one behind the other.
        if let Offsets::From(first) = offsets {
            offsets = Offsets::Each((first..).take(spans.len()).collect());
        }
        let mut is_bad = vec![false; spans.len()];
        for row in decoded.bad {
            let index = row.row as usize;
            is_bad[index] = true;
            let (start, end) = spans[index];
            bad.push(BadInput {
                offset: match &offsets {
                    Offsets::From(first) => first + u64::from(row.row),
                    Offsets::Bytes(first) => first + u64::from(start),
                    Offsets::Each(offsets) => offsets[index],
                },
                error: row.error,
                payload: data[start as usize..end as usize].to_vec(),
            });
        }
        let mut bad_rows = is_bad.iter();
        spans.retain(|_| bad_rows.next() == Some(&false));
        if let Offsets::Each(offsets) = &mut offsets {
            let mut bad_rows = is_bad.iter();
            offsets.retain(|_| bad_rows.next() == Some(&false));
        }
    }
    Chunk {
        columns: decoded.columns,
        rows: decoded.rows,
        block: Block {
            source,
            partition,
            offsets,
            payload: Payload::Bytes { data, spans },
        },
        bad,
        end,
    }
}

/// The position of a row that is told by its number.
fn at_row(row: u64) -> Position {
    Position {
        offset: row,
        ..Position::default()
    }
}

enum EventTimes {
    /// Every row has one.
    All(ScalarBuffer<i64>),
    /// These rows have one.
    Some(BooleanArray, ScalarBuffer<i64>),
}

fn event_times(column: &ArrayRef) -> EventTimes {
    let values = time_values(column);
    let plausible = values.iter().all(|&ms| timestamp::is_plausible(ms));
    if plausible && column.null_count() == 0 && values.len() == column.len() {
        return EventTimes::All(values);
    }
    let times: Vec<Option<i64>> = (0..column.len())
        .map(|row| time_at(column, row).filter(|&ms| timestamp::is_plausible(ms)))
        .collect();
    let mask = times.iter().map(|time| Some(time.is_some())).collect();
    EventTimes::Some(mask, times.into_iter().flatten().collect())
}

/// A timestamp's or integer's values, which the plan has seen that it is.
fn time_values(column: &ArrayRef) -> ScalarBuffer<i64> {
    match column.data_type() {
        ArrowType::Int64 => column.as_primitive::<Int64Type>().values().clone(),
        ArrowType::Timestamp(_, _) => column
            .as_primitive_opt::<TimestampMillisecondType>()
            .map(|column| column.values().clone())
            .unwrap_or_default(),
        _ => ScalarBuffer::default(),
    }
}

fn time_at(column: &ArrayRef, row: usize) -> Option<i64> {
    if column.is_null(row) {
        return None;
    }
    time_values(column).get(row).copied()
}

fn keep(column: &ArrayRef, mask: &BooleanArray) -> ArrayRef {
    filter(column, mask)
        .unwrap_or_else(|error| unreachable!("the mask has an entry a row: {error}"))
}

#[cfg(test)]
mod tests;
