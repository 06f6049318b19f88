//! Reads rows that clients send over TCP. The listener is the one partition,
//! for all connections; offsets count rows in the order in which they came.
//!
//! A connection's bytes are cut into rows as they come, however packets divide
//! them. Rows are handed on when no more can be read at once, so a row never
//! waits for a batch to fill.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::frames::{Frames, Framing};
use crate::blame::Fault;
use crate::checkpoint::snapshot::Position;
use crate::connector::listen;
use crate::decode::Decoder;
use crate::descriptors;
use crate::format::{Format, RowFormat};
use crate::source::pieces::{self, PieceChunks, PieceSender, RowCutter, WaitingPieces};
use crate::source::{Arrival, Pending, SourceContext, SourceError, SourceInput};

/// How many bytes are read from a connection at a time.
const READ_BYTES: usize = 64 << 10;

/// How many pieces may wait for the reader; beyond that, connections wait, and
/// so do the clients.
const PIECES_MAX: usize = 64;

/// How many connections are open at a time, fewer where the process may not have as many;
/// others wait to be taken.
const CONNECTIONS_MAX: usize = 1_024;

/// How many bytes of unfinished rows all connections have together.
const UNFINISHED_BYTES_MAX: usize = 64 << 20;

/// What a connection needs to know.
#[derive(Clone)]
struct Shared {
    /// Those of a connection that has sent nothing.
    frames: Frames,
    sender: PieceSender,
    /// Bytes of the unfinished rows of all connections.
    unfinished: Arc<AtomicUsize>,
}

pub struct TcpInput {
    address: SocketAddr,
    waiting: WaitingPieces,
    unfinished: Arc<AtomicUsize>,
    /// Aborts all connections when the input is dropped.
    _listener: JoinSet<()>,
}

impl TcpInput {
    pub async fn open(
        listen: &str,
        framing: Framing,
        connections: Option<u64>,
        format: &RowFormat,
        context: &SourceContext,
    ) -> Result<Self, SourceError> {
        context.check_delimiter(&format.format)?;
        if let Format::Csv(csv) = &format.format
            && csv.header
        {
            return Err(context.refuse(
                "rows over TCP have no header: set `csv = { header = false }` and send the \
                 fields in order",
                Fault::CONFIG,
            ));
        }
        let (listener, address) = listen::bind(listen, context).await?;
        tracing::info!(source = %context.node, %address, "listening");
        let chunks = PieceChunks::new(
            address.to_string().into(),
            Decoder::new(format, &context.schema),
            context,
        );
        let (sender, waiting) = pieces::queue(PIECES_MAX, chunks);
        let mut tasks = JoinSet::new();
        let fields = Some(context.schema.fields.len());
        let rows = RowCutter::new(&format.format, fields, &context.schema);
        let shared = Shared {
            frames: Frames::new(framing, rows),
            sender,
            unfinished: Arc::default(),
        };
        let unfinished = shared.unfinished.clone();
        tasks.spawn(accept(listener, connections, shared));
        Ok(TcpInput {
            address,
            waiting,
            unfinished,
            _listener: tasks,
        })
    }
}

/// What had come and was not read is lost when the input is dropped, as at a signal: it
/// cannot be sent for again.
impl Drop for TcpInput {
    fn drop(&mut self) {
        let rows = self.waiting.rows();
        let bytes = self.unfinished.load(Ordering::Relaxed);
        if rows > 0 || bytes > 0 {
            tracing::warn!(
                "source on {}: the run ends with {rows} rows that had come and were not read, and \
                 {bytes} bytes of rows that had not come to their ends",
                self.address
            );
        }
    }
}

impl SourceInput for TcpInput {
    fn partitions(&self) -> usize {
        1
    }

    /// Its position is the number of its next row.
    fn partition(&self, _: usize) -> (Arc<str>, Position) {
        self.waiting.partition()
    }

    fn next<'a>(&'a mut self, order: &'a [usize]) -> Pending<'a, Arrival> {
        Box::pin(async move {
            match order.first() {
                Some(&partition) => Ok(Arrival::of(partition, self.waiting.next_chunk().await)),
                None => Ok(Arrival::Over),
            }
        })
    }

    fn address(&self) -> Option<SocketAddr> {
        Some(self.address)
    }
}

/// Accepts connections, up to the configured number, and waits until they are
/// closed.
async fn accept(listener: TcpListener, connections: Option<u64>, shared: Shared) {
    let open_max = descriptors::share(CONNECTIONS_MAX, 1);
    let mut open = JoinSet::new();
    let mut taken = 0;
    while connections.is_none_or(|connections| taken < connections) {
        tokio::select! {
            accepted = listener.accept(), if open.len() < open_max => match accepted {
                Ok((stream, _)) => {
                    taken += 1;
                    open.spawn(read(stream, shared.clone()));
                }
                Err(error) => {
                    // Most likely the process has no more file descriptors:
                    // others have to be closed first.
                    tracing::warn!("cannot take a connection: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
            Some(_) = open.join_next(), if !open.is_empty() => {}
        }
    }
    drop(listener);
    // The input ends when the last connection has been read.
    drop(shared);
    while open.join_next().await.is_some() {}
}

/// Reads a connection to its end.
async fn read(mut stream: TcpStream, shared: Shared) {
    let Shared {
        mut frames,
        sender,
        unfinished: of_all,
    } = shared;
    let mut unfinished = Unfinished { of_all, bytes: 0 };
    loop {
        frames.buffer().reserve(READ_BYTES);
        let ended = match stream.read_buf(frames.buffer()).await {
            Ok(0) => Some(None),
            Ok(_) => None,
            Err(error) => Some(Some(error.to_string())),
        };
        let mut is_over = ended.is_some();
        loop {
            let mut piece = match &ended {
                Some(cause) => frames.end(cause.as_deref()),
                None => frames.take(),
            };
            is_over |= frames.lost;
            let length = frames.buffer().len();
            let all = unfinished.set(length);
            if all > UNFINISHED_BYTES_MAX && length > READ_BYTES && piece.broken.is_none() {
                piece.broken = frames.give_up(UNFINISHED_BYTES_MAX >> 20).broken;
                is_over = true;
            }
            if piece.is_empty() {
                break;
            }
            if !sender.send(piece).await {
                return;
            }
        }
        if is_over {
            return;
        }
    }
}

/// A connection's part of the bytes of unfinished rows.
struct Unfinished {
    of_all: Arc<AtomicUsize>,
    bytes: usize,
}

impl Unfinished {
    /// Sets this connection's bytes, and returns those of all.
    fn set(&mut self, bytes: usize) -> usize {
        let before = std::mem::replace(&mut self.bytes, bytes);
        match bytes.checked_sub(before) {
            Some(more) => self.of_all.fetch_add(more, Ordering::Relaxed) + more,
            None => self.of_all.fetch_sub(before - bytes, Ordering::Relaxed) - (before - bytes),
        }
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        self.set(0);
    }
}
