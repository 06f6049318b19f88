//! Collects messages of a partition, to decode them together.

use std::sync::Arc;

use arrow_array::{ArrayRef, BooleanArray};
use arrow_buffer::Buffer;

use crate::batch::{Envelope, Offsets};
use crate::checkpoint::snapshot::Position;
use crate::decode::Decoder;
use crate::source::SourceContext;
use crate::source::chunk::{BadRow, Chunk, decode, keep};
use crate::source::row_ends::{ROW_BYTES_MAX, bad_row, too_long};

/// A block ends at this size, even if it has fewer rows than a batch.
const BLOCK_BYTES_MAX: usize = 8 << 20;

/// Messages under construction: their payloads, and what dead letters have of them. The
/// columns beside the payloads are the connector's.
#[derive(Default)]
pub struct Messages {
    /// The payloads, one after another.
    data: Vec<u8>,
    spans: Vec<(u32, u32)>,
    offsets: Vec<u64>,
    envelopes: Vec<Envelope>,
    /// Those that are bad before their payload is decoded.
    bad: Vec<BadRow>,
}

impl Messages {
    pub fn is_empty(&self) -> bool {
        self.rows() == 0
    }

    pub fn has_room(&self, rows_max: usize) -> bool {
        self.rows() < rows_max && self.data.len() < BLOCK_BYTES_MAX
    }

    fn rows(&self) -> usize {
        self.spans.len() + self.bad.len()
    }

    /// Adds a message whose payload `write` appends; the error says why it has none, and what
    /// is there instead. Returns whether the message is one to decode, which has values in
    /// the columns beside the payload.
    pub fn push(
        &mut self,
        offset: u64,
        envelope: Envelope,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), (String, Vec<u8>)>,
    ) -> bool {
        let start = self.data.len();
        let written = write(&mut self.data);
        let payload = &self.data[start..];
        let bad = match written {
            Ok(()) if payload.len() <= ROW_BYTES_MAX => {
                // A block has a little more than one row beyond `BLOCK_BYTES_MAX`.
                self.spans.push((start as u32, self.data.len() as u32));
                self.offsets.push(offset);
                self.envelopes.push(envelope);
                return true;
            }
            Ok(()) => too_long(offset, payload),
            Err((error, shown)) => bad_row(offset, error, &shown),
        };
        self.data.truncate(start);
        self.push_bad(bad, envelope);
        false
    }

    /// Adds a message that is bad without being decoded.
    #[cold]
    pub fn push_bad(&mut self, mut bad: BadRow, envelope: Envelope) {
        bad.envelope = Some(envelope);
        self.bad.push(bad);
    }

    /// The numbers of schemas that have to be learned before the rows can be decoded.
    pub fn lacking(&self, decoder: &Decoder) -> Vec<u32> {
        let rows = self.spans.iter();
        let rows = rows.map(|&(start, end)| &self.data[start as usize..end as usize]);
        let mut ids: Vec<u32> = rows.filter_map(|row| decoder.lacks(row)).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// Decodes the payloads. `beside` are the columns behind those of the payload.
    pub fn decode(
        self,
        beside: Vec<ArrayRef>,
        decoder: &mut Decoder,
        context: &SourceContext,
        partition: Arc<str>,
        end: Position,
    ) -> Chunk {
        // Offsets are numbers of messages here: entries of a stream may share theirs.
        let mut chunk = decode(
            decoder,
            context.node.clone(),
            partition,
            Buffer::from_vec(self.data),
            self.spans,
            Offsets::From(0),
            end,
        );
        if chunk.bad.is_empty() {
            chunk.columns.extend(beside);
            chunk.block.offsets = Offsets::Each(self.offsets);
            chunk.block.envelopes = self.envelopes;
        } else {
            let mut bad = chunk.bad.iter_mut().peekable();
            let mut good = Vec::with_capacity(self.offsets.len());
            let mut offsets = Vec::with_capacity(self.offsets.len());
            let messages = self.offsets.into_iter().zip(self.envelopes);
            for (message, (offset, envelope)) in (0_u64..).zip(messages) {
                let is_bad = bad.next_if(|bad| bad.offset == message);
                good.push(is_bad.is_none());
                match is_bad {
                    Some(bad) => {
                        bad.offset = offset;
                        bad.envelope = Some(envelope);
                    }
                    None => {
                        offsets.push(offset);
                        chunk.block.envelopes.push(envelope);
                    }
                }
            }
            let good = BooleanArray::from(good);
            let beside = beside.iter().map(|column| keep(column, &good));
            chunk.columns.extend(beside);
            chunk.block.offsets = Offsets::Each(offsets);
        }
        chunk.bad.extend(self.bad);
        chunk
    }
}
