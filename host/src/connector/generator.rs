//! The source `generator`: generated shop events, to try things out without
//! data.

/// Generates the events.
pub mod events;

use std::sync::Arc;
use std::time::Duration;

use arrow_array::RecordBatch;
use serde_json::json;
use tokio::time::Instant;
use toml::Spanned;

use self::events::{Events, EventsPlan};
use crate::batch::{Block, Offsets, Payload};
use crate::blame::Fault;
use crate::checkpoint::snapshot::Position;
use crate::config::column::DeclaredColumn;
use crate::config::diagnostics::Diagnostics;
use crate::config::format::read_instant;
use crate::config::reader::{ConfigValue, Table};
use crate::connector::{Description, Planning};
use crate::schema::Schema;
use crate::source::chunk::{Chunk, at_row};
use crate::source::{
    Arrival, Pending, SourceConnector, SourceContext, SourceError, SourceInput, SourceKind,
    SourceSettings,
};

pub const KIND: SourceKind = SourceKind {
    name: "generator",
    read,
};

/// At a slow rate, rows that are due wait at most this long for others.
const TICK: Duration = Duration::from_millis(50);

/// The only partition's name.
const PARTITION: &str = "0";

/// Longer than any run, and short enough for every clock to add.
const NEVER: Duration = Duration::from_secs(100 * 365 * 86_400);

/// How many rows are generated at once, at most.
const ROWS_MAX: usize = 1 << 16;

/// How many users and items there may be, at most: each takes 8 bytes, and 24 while
/// the generator starts.
const ENTITIES_MAX: i64 = 10_000_000;

#[derive(Debug)]
struct GeneratorSettings {
    columns: Vec<DeclaredColumn>,
    events: EventsPlan,
}

/// The events to generate.
pub struct GeneratorSource {
    pub events: EventsPlan,
}

fn read(table: &mut Table<'_>, mistakes: &mut Diagnostics) -> Option<Box<dyn SourceSettings>> {
    let mut integer = |key, least, most, default: i64, mistakes: &mut Diagnostics| {
        table
            .optional(key)
            .and_then(|value: ConfigValue| value.integer(least..=most, mistakes))
            .map_or(default, Spanned::into_inner)
    };
    let seed = integer("seed", 0, i64::MAX, 0, mistakes);
    let count = integer("count", 0, i64::MAX, -1, mistakes);
    let users = integer("users", 1, ENTITIES_MAX, 1_000, mistakes);
    let items = integer("items", 1, ENTITIES_MAX, 200, mistakes);
    let broken_one_in = integer("broken_one_in", 0, i64::MAX, 0, mistakes);
    let rate = table
        .optional("rate")
        .and_then(|value| value.positive_number(mistakes));
    let events_per_second = table
        .optional("events_per_second")
        .and_then(|value| value.positive_number(mistakes));
    let start_ms = table
        .optional("start")
        .and_then(|value| read_instant(&value, mistakes));
    let jitter_ms = table
        .optional("jitter")
        .and_then(|value| value.duration(0, mistakes))
        .map_or(0, Spanned::into_inner);
    let prices = table
        .optional("prices")
        .and_then(|value| value.boolean(mistakes));
    let prices = prices.unwrap_or(false);
    let events = EventsPlan {
        seed: seed as u64,
        rate,
        count: u64::try_from(count).ok(),
        users: users as u32,
        items: items as u32,
        start_ms,
        // By default, event time advances as fast as the wall clock.
        events_per_second: events_per_second.or(rate).unwrap_or(1_000.0),
        jitter_ms: jitter_ms as u64,
        broken_one_in: broken_one_in as u64,
        prices,
    };
    // The columns are not written in the file, so mistakes point at `type`.
    let place = table.place_of("type").unwrap_or_else(|| table.place());
    let schema = events::schema(prices);
    let columns = schema.fields.iter().map(|field| DeclaredColumn {
        field: field.clone(),
        place: place.clone(),
        timestamp_formats: Vec::new(),
    });
    Some(Box::new(GeneratorSettings {
        columns: columns.collect(),
        events,
    }))
}

impl SourceSettings for GeneratorSettings {
    fn columns(&self) -> &[DeclaredColumn] {
        &self.columns
    }

    fn event_time(&self) -> Option<&str> {
        Some("ts")
    }

    fn out_of_orderness_ms(&self) -> i64 {
        i64::try_from(self.events.jitter_ms).unwrap_or(0)
    }

    fn ahead_ms_max(&self) -> Option<i64> {
        None
    }

    fn plan(&self, _: &mut Planning<'_>) -> Option<Box<dyn SourceConnector>> {
        Some(Box::new(GeneratorSource {
            events: self.events.clone(),
        }))
    }
}

impl SourceConnector for GeneratorSource {
    fn describe(&self) -> Description {
        let events = &self.events;
        let count = match events.count {
            Some(count) => format!("{count} rows"),
            None => "endless rows".to_owned(),
        };
        let rate = match events.rate {
            Some(rate) => format!("{rate} a second"),
            None => "as fast as they are taken".to_owned(),
        };
        let line = format!(
            "{count}, {rate}, of {} users and {} items, seed {}",
            events.users, events.items, events.seed
        );
        Description {
            connector: KIND.name,
            format: None,
            lines: vec![line],
            settings: json!({
                "seed": events.seed,
                "count": events.count,
                "rate": events.rate,
            }),
            ..Description::default()
        }
    }

    fn partitions(&self) -> Option<usize> {
        Some(1)
    }

    fn can_bootstrap(&self) -> bool {
        self.events.count.is_some()
    }

    fn open<'a>(&'a self, context: &'a SourceContext) -> Pending<'a, Box<dyn SourceInput>> {
        Box::pin(async move {
            let input = GeneratorInput::open(&self.events, context)?;
            Ok(Box::new(input) as Box<dyn SourceInput>)
        })
    }
}

struct GeneratorInput {
    /// `None` in all tasks but the one that reads the partition.
    partition: Option<GeneratorPartition>,
    context: SourceContext,
}

struct GeneratorPartition {
    schema: Arc<Schema>,
    events: Events,
    next: u64,
    count: Option<u64>,
    pace: Option<Pace>,
}

/// Decides how many rows are due by the wall clock.
struct Pace {
    rows_per_second: f64,
    /// The number of the first row of this run.
    first: u64,
    /// When that row was asked for.
    since: Option<Instant>,
}

impl GeneratorInput {
    fn open(plan: &EventsPlan, context: &SourceContext) -> Result<Self, SourceError> {
        let is_positive = |number: f64| number.is_finite() && number > 0.0;
        if !is_positive(plan.events_per_second) {
            return Err(context.refuse(
                "`events_per_second` has to be greater than 0",
                Fault::CONFIG,
            ));
        }
        if plan.rate.is_some_and(|rate| !is_positive(rate)) {
            return Err(context.refuse(
                "`rate` has to be greater than 0; leave it out for no limit",
                Fault::CONFIG,
            ));
        }
        let restored = context.restored(PARTITION).map(|found| found.position);
        let partition = context.placement.has_partition(0).then(|| {
            let start_ms = restored
                .and_then(|position| position.start_ms)
                .or(plan.start_ms)
                .unwrap_or_else(|| context.clock.now_ms());
            let next = restored.map_or(0, |position| position.offset);
            GeneratorPartition {
                schema: events::schema(plan.prices),
                events: Events::new(plan, start_ms),
                next,
                count: plan.count,
                pace: plan.rate.map(|rows_per_second| Pace {
                    rows_per_second,
                    first: next,
                    since: None,
                }),
            }
        });
        Ok(GeneratorInput {
            partition,
            context: context.clone(),
        })
    }

    async fn next_chunk(&mut self) -> Option<Chunk> {
        let partition = self.partition.as_mut()?;
        let left = partition
            .count
            .map_or(u64::MAX, |count| count.saturating_sub(partition.next));
        if left == 0 {
            return None;
        }
        let mut rows = (self.context.rows_max().min(ROWS_MAX) as u64).min(left);
        if let Some(pace) = &mut partition.pace {
            rows = pace.due(partition.next - pace.first, rows).await;
        }
        let columns = partition.events.rows(partition.next, rows as usize);
        let first = partition.next;
        partition.next += rows;
        let schema = Arc::new(partition.schema.to_arrow());
        let payload = RecordBatch::try_new(schema, columns.clone())
            .unwrap_or_else(|error| unreachable!("columns are made by this schema: {error}"));
        Some(Chunk {
            rows: rows as usize,
            columns,
            block: Block {
                source: self.context.node.clone(),
                partition: PARTITION.into(),
                offsets: Offsets::From(first),
                payload: Payload::Rows(payload),
                envelopes: Vec::new(),
            },
            bad: Vec::new(),
            end: partition.position(),
            cut_times: None,
            times: None,
            taken_back: None,
        })
    }
}

impl SourceInput for GeneratorInput {
    fn partitions(&self) -> usize {
        usize::from(self.partition.is_some())
    }

    fn partition(&self, _: usize) -> (Arc<str>, Position) {
        let position = self.partition.as_ref().map(GeneratorPartition::position);
        (PARTITION.into(), position.unwrap_or_default())
    }

    fn next<'a>(&'a mut self, order: &'a [usize]) -> Pending<'a, Arrival> {
        Box::pin(async move {
            match order.first() {
                Some(&partition) => Ok(Arrival::of(partition, self.next_chunk().await)),
                None => Ok(Arrival::Over),
            }
        })
    }

    fn progress(&self) -> Option<f64> {
        let partition = self.partition.as_ref()?;
        let count = partition.count.filter(|&count| count > 0)?;
        Some(partition.next as f64 / count as f64)
    }
}

impl GeneratorPartition {
    fn position(&self) -> Position {
        Position {
            start_ms: Some(self.events.start_ms),
            ..at_row(self.next)
        }
    }
}

impl Pace {
    /// Waits until rows are due, and returns how many, at least one: full
    /// batches at a fast rate, the rows of one tick at a slow one. When it
    /// wakes depends on the row numbers alone, so the future may be dropped and
    /// made again.
    async fn due(&mut self, given: u64, rows_max: u64) -> u64 {
        let since = *self.since.get_or_insert_with(Instant::now);
        let a_tick_later = (self.due_after(given) + TICK).max(self.due_after(given + 1));
        let wake = a_tick_later.min(self.due_after(given + rows_max));
        if wake > since.elapsed() {
            tokio::time::sleep_until(since + wake).await;
        }
        let due = (since.elapsed().as_secs_f64() * self.rows_per_second) as u64;
        due.saturating_sub(given).clamp(1, rows_max)
    }

    fn due_after(&self, rows: u64) -> Duration {
        let seconds = rows as f64 / self.rows_per_second;
        Duration::try_from_secs_f64(seconds).map_or(NEVER, |duration| duration.min(NEVER))
    }
}
