//! Reads datagrams. The socket is the one partition; offsets count rows in the order in
//! which they came.
//!
//! A task of its own empties the socket, so that what comes in a burst waits here and not in
//! the system's buffer, which is small. What does not fit there is dropped by the system,
//! and counted.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use socket2::SockRef;
use tokio::net::{UdpSocket, lookup_host};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;

use super::drops::Drops;
use super::endpoint::{DatagramFraming, Endpoint};
use crate::blame::Fault;
use crate::checkpoint::snapshot::Position;
use crate::decode::Decoder;
use crate::source::chunk::Chunk;
use crate::source::pieces::{Piece, PieceChunks, RowCutter};
use crate::source::{Arrival, Pending, SourceContext, SourceError, SourceInput};

/// The longest datagram.
const DATAGRAM_BYTES_MAX: usize = 64 << 10;

/// A piece ends at this size.
const PIECE_BYTES: usize = 256 << 10;

/// How many pieces, and how many bytes of rows, may wait for the reader.
const PIECES_MAX: usize = 1_024;
const WAITING_BYTES_MAX: usize = 64 << 20;

/// How often the system is asked what it has dropped.
const LOOK: Duration = Duration::from_secs(1);

/// Rows that wait for the reader, and their room.
type Waiting = (Piece, OwnedSemaphorePermit);

pub struct UdpInput {
    address: SocketAddr,
    socket: Arc<UdpSocket>,
    pieces: mpsc::Receiver<Waiting>,
    chunks: PieceChunks,
    /// Rows that wait for the reader.
    waiting: Arc<AtomicUsize>,
    drops: Drops,
    looked: tokio::time::Instant,
    context: SourceContext,
    /// Aborted when the input is dropped.
    _receiving: JoinSet<()>,
}

impl UdpInput {
    pub async fn open(plan: &Endpoint, context: &SourceContext) -> Result<Self, SourceError> {
        context.check_delimiter(&plan.format.format)?;
        let listen = &plan.listen;
        let refuse = |cause: &dyn std::fmt::Display, fault| {
            context.refuse(format!("cannot listen on {listen}: {cause}"), fault)
        };
        let found = lookup_host(listen).await.map_err(|cause| {
            let why = format!("no address of this machine is found by that name ({cause})");
            refuse(&why, Fault::CONFIG)
        })?;
        let addresses: Vec<SocketAddr> = found.collect();
        let bound = async {
            let socket = UdpSocket::bind(&addresses[..]).await?;
            let address = socket.local_addr()?;
            let options = SockRef::from(&socket);
            options.set_recv_buffer_size(plan.receive_buffer)?;
            // The system's own figure is twice as much.
            let given = options.recv_buffer_size()? / 2;
            Ok::<_, std::io::Error>((socket, address, given))
        };
        let (socket, address, given) = bound
            .await
            .map_err(|cause| refuse(&cause, Fault::of_io(&cause)))?;
        if given < plan.receive_buffer {
            tracing::warn!(
                source = %context.node,
                "the system gives the socket a buffer of {given} bytes instead of {}: raise \
                 net.core.rmem_max, or lower `receive_buffer`",
                plan.receive_buffer
            );
        }
        tracing::info!(source = %context.node, %address, "listening");
        let (sender, pieces) = mpsc::channel(PIECES_MAX);
        let fields = Some(context.schema.fields.len());
        let socket = Arc::new(socket);
        let waiting = Arc::new(AtomicUsize::new(0));
        let receiver = Receiver {
            socket: socket.clone(),
            rows: RowCutter::new(&plan.format.format, fields, &context.schema),
            framing: plan.framing,
            sender,
            room: Arc::new(Semaphore::new(WAITING_BYTES_MAX >> 10)),
            waiting: waiting.clone(),
        };
        let mut receiving = JoinSet::new();
        receiving.spawn(receiver.receive());
        Ok(UdpInput {
            address,
            drops: Drops::of(&socket),
            looked: tokio::time::Instant::now(),
            socket,
            pieces,
            waiting,
            chunks: PieceChunks::new(
                address.to_string().into(),
                Decoder::new(&plan.format, &context.schema),
                context,
            ),
            context: context.clone(),
            _receiving: receiving,
        })
    }

    async fn next_chunk(&mut self) -> Option<Chunk> {
        let first = match self.chunks.left() {
            Some(piece) => piece,
            None => self.pieces.recv().await?.0,
        };
        let more = || self.pieces.try_recv().ok().map(|(piece, _)| piece);
        let chunk = self.chunks.chunk(first, more);
        let rows = chunk.rows + chunk.bad.len();
        self.waiting.fetch_sub(rows, Ordering::Relaxed);
        Some(chunk)
    }
}

/// What had come and was not read is lost when the input is dropped: it cannot be sent for
/// again.
impl Drop for UdpInput {
    fn drop(&mut self) {
        let rows = self.waiting.load(Ordering::Relaxed);
        let dropped = self.drops.new_ones();
        if rows > 0 || dropped > 0 {
            tracing::warn!(
                "source on {}: the run ends with {rows} rows that had come and were not read; the \
                 system has dropped {dropped} datagrams since it was asked last",
                self.address
            );
        }
    }
}

impl SourceInput for UdpInput {
    fn partitions(&self) -> usize {
        1
    }

    /// Its position is the number of its next row.
    fn partition(&self, _: usize) -> (Arc<str>, Position) {
        (self.chunks.partition.clone(), self.chunks.position())
    }

    fn next<'a>(&'a mut self, order: &'a [usize]) -> Pending<'a, Arrival> {
        Box::pin(async move {
            match order.first() {
                // What was dropped is told also while nothing comes.
                Some(&partition) => match tokio::time::timeout(LOOK, self.next_chunk()).await {
                    Ok(chunk) => Ok(Arrival::of(partition, chunk)),
                    Err(_) => Ok(Arrival::Silence),
                },
                None => Ok(Arrival::Over),
            }
        })
    }

    fn new_losses(&mut self) -> u64 {
        if self.looked.elapsed() < LOOK {
            return 0;
        }
        self.looked = tokio::time::Instant::now();
        let dropped = self.drops.new_ones();
        if dropped > 0 {
            let given = SockRef::from(&*self.socket).recv_buffer_size();
            tracing::warn!(
                source = %self.context.node,
                "the system has dropped {dropped} datagrams, which came faster than they were \
                 read (the buffer has {} bytes: `receive_buffer`)",
                given.unwrap_or(0) / 2
            );
        }
        dropped
    }

    fn address(&self) -> Option<SocketAddr> {
        Some(self.address)
    }
}

/// Empties the socket.
struct Receiver {
    socket: Arc<UdpSocket>,
    rows: RowCutter,
    framing: DatagramFraming,
    sender: mpsc::Sender<Waiting>,
    /// A permit for each KiB that may wait.
    room: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
}

impl Receiver {
    async fn receive(mut self) {
        let mut datagram = vec![0; DATAGRAM_BYTES_MAX];
        loop {
            let mut piece = Piece::default();
            match self.socket.recv(&mut datagram).await {
                Ok(length) => self.add(&datagram[..length], &mut piece),
                Err(error) => {
                    // Most likely a report of what this socket has sent: it sends nothing.
                    tracing::warn!("cannot receive datagrams: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
            while piece.data.len() < PIECE_BYTES
                && let Ok(length) = self.socket.try_recv(&mut datagram)
            {
                self.add(&datagram[..length], &mut piece);
            }
            if piece.is_empty() {
                continue;
            }
            self.waiting.fetch_add(piece.rows(), Ordering::Relaxed);
            let kib = piece.data.len().div_ceil(1 << 10) as u32;
            let Ok(room) = self.room.clone().acquire_many_owned(kib).await else {
                return;
            };
            if self.sender.send((piece, room)).await.is_err() {
                return;
            }
        }
    }

    /// Adds the rows of a datagram.
    fn add(&mut self, datagram: &[u8], piece: &mut Piece) {
        let start = piece.data.len() as u32;
        match self.framing {
            DatagramFraming::Newline => {
                self.rows.text.clear();
                self.rows.text.extend_from_slice(datagram);
                // Shorter than any row that is too long.
                let rows = self.rows.take(true);
                let spans = rows.spans.iter();
                piece
                    .spans
                    .extend(spans.map(|(from, to)| (start + from, start + to)));
                piece.data.extend_from_slice(&rows.data);
            }
            DatagramFraming::Datagram => {
                let row = datagram.strip_suffix(b"\n").unwrap_or(datagram);
                let row = row.strip_suffix(b"\r").unwrap_or(row);
                if !row.is_empty() || self.rows.has_empty_rows {
                    piece.data.extend_from_slice(row);
                    piece.spans.push((start, piece.data.len() as u32));
                }
            }
        }
    }
}
