//! Reads datagrams. The socket is the one partition; offsets count rows in the order in
//! which they came.
//!
//! A task of its own empties the socket, so that what comes in a burst waits here and not in
//! the system's buffer, which is small. What does not fit there is dropped by the system,
//! and counted.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;
use tokio::net::UdpSocket;
use tokio::task::JoinSet;

use super::drops::Drops;
use super::endpoint::{DatagramFraming, Endpoint};
use crate::checkpoint::snapshot::Position;
use crate::connector::listen;
use crate::decode::Decoder;
use crate::source::pieces::{self, Piece, PieceChunks, PieceSender, RowCutter, WaitingPieces};
use crate::source::{Arrival, Pending, SourceContext, SourceError, SourceInput};

/// The longest datagram.
const DATAGRAM_BYTES_MAX: usize = 64 << 10;

/// A piece ends at this size.
const PIECE_BYTES: usize = 256 << 10;

/// How many pieces may wait for the reader.
const PIECES_MAX: usize = 1_024;

/// How often the system is asked what it has dropped.
const LOOK: Duration = Duration::from_secs(1);

pub struct UdpInput {
    address: SocketAddr,
    socket: Arc<UdpSocket>,
    waiting: WaitingPieces,
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
        let addresses = listen::addresses(listen, context).await?;
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
            .map_err(|cause| listen::refused(listen, &cause, context))?;
        if given < plan.receive_buffer {
            tracing::warn!(
                source = %context.node,
                "the system gives the socket a buffer of {given} bytes instead of {}: raise \
                 net.core.rmem_max, or lower `receive_buffer`",
                plan.receive_buffer
            );
        }
        tracing::info!(source = %context.node, %address, "listening");
        let chunks = PieceChunks::new(
            address.to_string().into(),
            Decoder::new(&plan.format, &context.schema),
            context,
        );
        let (sender, waiting) = pieces::queue(PIECES_MAX, chunks);
        let fields = Some(context.schema.fields.len());
        let socket = Arc::new(socket);
        let receiver = Receiver {
            socket: socket.clone(),
            rows: RowCutter::new(&plan.format.format, fields, &context.schema),
            framing: plan.framing,
            sender,
        };
        let mut receiving = JoinSet::new();
        receiving.spawn(receiver.receive());
        Ok(UdpInput {
            address,
            drops: Drops::of(&socket),
            looked: tokio::time::Instant::now(),
            socket,
            waiting,
            context: context.clone(),
            _receiving: receiving,
        })
    }
}

/// What had come and was not read is lost when the input is dropped: it cannot be sent for
/// again.
impl Drop for UdpInput {
    fn drop(&mut self) {
        let rows = self.waiting.rows();
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
        self.waiting.partition()
    }

    fn next<'a>(&'a mut self, order: &'a [usize]) -> Pending<'a, Arrival> {
        Box::pin(async move {
            match order.first() {
                // What was dropped is told also while nothing comes.
                Some(&partition) => {
                    match tokio::time::timeout(LOOK, self.waiting.next_chunk()).await {
                        Ok(chunk) => Ok(Arrival::of(partition, chunk)),
                        Err(_) => Ok(Arrival::Silence),
                    }
                }
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
    sender: PieceSender,
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
            if !self.sender.send(piece).await {
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
