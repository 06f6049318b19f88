//! Rows that a task of the network reads, and the input that hands them out. A connection that
//! is lost is made again, for as long as it takes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{ArrayRef, BooleanArray, Int64Array};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;

use super::Failure;
use super::place::Place;
use super::table_source::TableSource;
use crate::batch::Envelope;
use crate::blame::Fault;
use crate::checkpoint::snapshot::Position;
use crate::connector::messages::Messages;
use crate::connector::network;
use crate::connector::server::Backoff;
use crate::decode::Decoder;
use crate::source::{Arrival, Pending, SourceContext, SourceError, SourceInput};

/// How many blocks of rows are read ahead.
const BLOCKS_AHEAD: usize = 4;

/// A block is handed over with so many rows, or so many bytes of them.
const BLOCK_ROWS: usize = 1_000;
const BLOCK_BYTES: usize = 2 << 20;

/// A row as JSON, or what is wrong with it and what is there.
#[derive(Debug)]
pub struct ReadRow {
    pub payload: Result<Vec<u8>, (String, Vec<u8>)>,
    /// Behind it.
    pub place: Place,
    /// Of changes: whether it takes one back, and when, in ms.
    pub change: Option<(bool, i64)>,
}

/// What a task of the network has to tell.
pub enum Event {
    Rows(Vec<ReadRow>),
    /// All has been read that was there at the start.
    Bootstrapped,
    /// There is nothing before this place any more.
    Passed(Place),
    End,
}

/// Hands over what is read.
pub struct Events {
    sender: mpsc::Sender<Result<Event, Failure>>,
    rows: Vec<ReadRow>,
    bytes: usize,
}

/// Nobody reads on.
pub struct Closed;

/// Why reading ends.
pub enum Ended {
    Failed(Failure),
    Closed,
}

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Self {
        Ended::Failed(failure)
    }
}

impl From<tokio_postgres::Error> for Ended {
    fn from(error: tokio_postgres::Error) -> Self {
        Ended::Failed(error.into())
    }
}

impl From<Closed> for Ended {
    fn from(Closed: Closed) -> Self {
        Ended::Closed
    }
}

impl Events {
    pub async fn push(&mut self, row: ReadRow) -> Result<(), Closed> {
        self.bytes += match &row.payload {
            Ok(payload) | Err((_, payload)) => payload.len(),
        };
        self.rows.push(row);
        match self.rows.len() >= BLOCK_ROWS || self.bytes >= BLOCK_BYTES {
            true => self.flush().await,
            false => Ok(()),
        }
    }

    pub async fn flush(&mut self) -> Result<(), Closed> {
        if self.rows.is_empty() {
            return Ok(());
        }
        self.bytes = 0;
        let rows = std::mem::take(&mut self.rows);
        self.tell(Event::Rows(rows)).await
    }

    pub async fn tell(&self, event: Event) -> Result<(), Closed> {
        self.sender.send(Ok(event)).await.map_err(|_| Closed)
    }
}

/// Reads rows on one connection after another.
pub trait Reader: Send {
    /// Reads on a connection of its own until it is lost, or all has been read. What it
    /// knows of where to go on is that of the rows that it has pushed.
    fn read(&mut self, events: &mut Events) -> impl Future<Output = Result<(), Ended>> + Send;
}

/// A connection that lasts so long is no failed attempt.
const LASTS: Duration = Duration::from_secs(5);

/// Reads on through lost connections.
async fn through_losses(
    mut reader: impl Reader,
    source: Arc<TableSource>,
    who: Arc<str>,
    mut events: Events,
) {
    let mut backoff = Backoff::new();
    let mut has_warned = false;
    loop {
        let began = Instant::now();
        let ended = reader.read(&mut events).await;
        // They are not read again.
        if events.flush().await.is_err() {
            return;
        }
        let failure = match ended {
            Ok(()) | Err(Ended::Closed) => return,
            Err(Ended::Failed(failure)) => failure,
        };
        if !failure.fault.can_pass {
            // Whoever reads may have gone.
            let _ = events.sender.send(Err(failure)).await;
            return;
        }
        if began.elapsed() > LASTS {
            backoff.reset();
            has_warned = false;
        }
        if !std::mem::replace(&mut has_warned, true) {
            let (to, cause) = (&source.connection, &failure.cause);
            tracing::warn!(source = %who, "{to}: {cause}; trying again");
        }
        tokio::time::sleep(backoff.wait()).await;
        if events.sender.is_closed() {
            return;
        }
    }
}

/// Rows of a table, as one partition.
pub struct TableInput {
    name: Arc<str>,
    events: mpsc::Receiver<Result<Event, Failure>>,
    /// Has reading begin, when rows are asked for first: sinks are open then, and a pipeline
    /// that cannot run has made nothing on the server.
    beginning: Option<oneshot::Sender<()>>,
    task: AbortHandle,
    waiting: VecDeque<ReadRow>,
    /// Behind the rows that were handed out.
    given: Place,
    /// Told of the positions that are committed, where the server has to know.
    committed: Option<watch::Sender<Option<Position>>>,
    has_ended: bool,
    is_told: bool,
    decoder: Decoder,
    source: Arc<TableSource>,
    context: SourceContext,
}

impl Drop for TableInput {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl TableInput {
    /// Goes on behind a place, which the reader knows as well.
    pub fn start(
        source: Arc<TableSource>,
        context: &SourceContext,
        start: Place,
        reader: impl Reader + 'static,
        committed: Option<watch::Sender<Option<Position>>>,
    ) -> Result<Self, SourceError> {
        let network = network::runtime();
        let network = network.map_err(|why| context.refuse(why, Fault::OUTSIDE))?;
        let (sender, events) = mpsc::channel(BLOCKS_AHEAD);
        let sender = Events {
            sender,
            rows: Vec::new(),
            bytes: 0,
        };
        let (beginning, asked) = oneshot::channel();
        let reading = through_losses(reader, source.clone(), context.node.clone(), sender);
        let reading = async {
            if asked.await.is_ok() {
                reading.await;
            }
        };
        Ok(TableInput {
            name: source.name().into(),
            events,
            beginning: Some(beginning),
            task: network.spawn(reading).abort_handle(),
            waiting: VecDeque::new(),
            given: start,
            committed,
            has_ended: false,
            is_told: false,
            decoder: Decoder::new(&source.format, &context.schema),
            source,
            context: context.clone(),
        })
    }

    /// The next rows, as many as a batch has. May be dropped while it waits.
    async fn next_of(&mut self) -> Result<Arrival, SourceError> {
        if let Some(beginning) = self.beginning.take() {
            // A task that has gone says so by its events.
            let _ = beginning.send(());
        }
        loop {
            if !self.waiting.is_empty() {
                return Ok(self.take());
            }
            if self.has_ended {
                return Ok(match std::mem::replace(&mut self.is_told, true) {
                    false => Arrival::End(0),
                    true => Arrival::Over,
                });
            }
            let failed = |failure: Failure| {
                let what = self.source.connection.to_string();
                self.context.failed(what, failure.cause, failure.fault)
            };
            match self.events.recv().await {
                Some(Ok(Event::Rows(rows))) => self.waiting = rows.into(),
                Some(Ok(Event::Passed(place))) => {
                    self.given = place;
                    return Ok(self.take());
                }
                Some(Ok(Event::Bootstrapped)) => return Ok(Arrival::Bootstrapped(0)),
                Some(Ok(Event::End)) => self.has_ended = true,
                Some(Err(failure)) => return Err(failed(failure)),
                None => {
                    let cause = "what reads it has ended";
                    return Err(failed(Failure::new(cause, Fault::BUG)));
                }
            }
        }
    }

    fn take(&mut self) -> Arrival {
        let rows_max = self.context.rows_max();
        let mut messages = Messages::default();
        let (mut taken_back, mut times) = (Vec::new(), Vec::new());
        while messages.has_room(rows_max)
            && let Some(row) = self.waiting.pop_front()
        {
            let offset = row.place.position().offset;
            self.given = row.place;
            let envelope = Envelope {
                key: None,
                headers: None,
                timestamp_ms: None,
                is_tombstone: false,
            };
            let is_row = messages.push(offset, envelope, |out| {
                out.extend_from_slice(&row.payload?);
                Ok(())
            });
            if let (true, Some((is_taken_back, time_ms))) = (is_row, row.change) {
                taken_back.push(is_taken_back);
                times.push(time_ms);
            }
        }
        let beside: Vec<ArrayRef> = match self.source.changes() {
            Some(_) => vec![
                Arc::new(BooleanArray::from(taken_back)),
                Arc::new(Int64Array::from(times)),
            ],
            None => Vec::new(),
        };
        let (name, end) = (self.name.clone(), self.given.position());
        let mut chunk = messages.decode(beside, &mut self.decoder, &self.context, name, end);
        if self.source.changes().is_some() {
            let times = chunk.columns.pop();
            chunk.times = times.map(|times| times.as_primitive::<Int64Type>().values().clone());
            let taken_back = chunk.columns.pop();
            chunk.taken_back = taken_back.map(|rows| rows.as_boolean().values().clone());
        }
        Arrival::Rows(0, Box::new(chunk))
    }
}

impl SourceInput for TableInput {
    fn partitions(&self) -> usize {
        1
    }

    fn partition(&self, _: usize) -> (Arc<str>, Position) {
        (self.name.clone(), self.given.position())
    }

    fn kept(&self, _: usize, _: Position) -> Option<String> {
        serde_json::to_string(&self.given).ok()
    }

    fn is_live(&self) -> bool {
        true
    }

    fn wants_commits(&self) -> bool {
        self.committed.is_some()
    }

    fn committed(&mut self, positions: &[(Arc<str>, Position)]) {
        if let (Some(committed), Some((_, position))) = (&self.committed, positions.first()) {
            committed.send_replace(Some(*position));
        }
    }

    fn next<'a>(&'a mut self, _: &'a [usize]) -> Pending<'a, Arrival> {
        Box::pin(self.next_of())
    }
}
