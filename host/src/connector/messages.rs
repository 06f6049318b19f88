//! Collects messages of a partition, to decode them together.

use std::sync::Arc;

use arrow_array::ArrayRef;
use arrow_buffer::Buffer;

use crate::batch::{Envelope, Offsets, gather};
use crate::checkpoint::snapshot::Position;
use crate::decode::{Beside, Decoder};
use crate::source::SourceContext;
use crate::source::chunk::{BadRow, Chunk, chunk_of};
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
        let mut ids = Vec::new();
        for (&(start, end), envelope) in self.spans.iter().zip(&self.envelopes) {
            if !envelope.is_tombstone {
                ids.extend(decoder.lacks(&self.data[start as usize..end as usize]));
            }
            ids.extend(
                envelope
                    .key
                    .iter()
                    .filter_map(|key| decoder.lacks_of_key(key)),
            );
        }
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
        let data = Buffer::from_vec(self.data);
        let message = |index: usize| {
            let envelope = &self.envelopes[index];
            Beside {
                key: envelope.key.as_deref(),
                is_tombstone: envelope.is_tombstone,
                time_ms: envelope.timestamp_ms,
            }
        };
        let decoded = decoder.decode_messages(&data, &self.spans, message);
        let all_are_rows = decoded.bad.is_empty() && decoded.changes.is_none();
        // Offsets are numbers of messages here: entries of a stream may share theirs.
        let mut chunk = chunk_of(
            decoded,
            decoder,
            context.node.clone(),
            partition,
            data,
            self.spans,
            Offsets::From(0),
            end,
        );
        for bad in &mut chunk.bad {
            let message = bad.offset as usize;
            bad.offset = self.offsets[message];
            bad.envelope = Some(self.envelopes[message].clone());
        }
        if all_are_rows {
            chunk.columns.extend(beside);
            chunk.block.offsets = Offsets::Each(self.offsets);
            chunk.block.envelopes = self.envelopes;
        } else {
            let messages: Vec<u32> = (0..chunk.rows as u32)
                .map(|row| chunk.block.offset(row) as u32)
                .collect();
            let of_rows = || messages.iter().map(|&message| message as usize);
            chunk.columns.extend(gather(&beside, &messages));
            let offsets = of_rows().map(|message| self.offsets[message]);
            chunk.block.offsets = Offsets::Each(offsets.collect());
            let envelopes = of_rows().map(|message| self.envelopes[message].clone());
            chunk.block.envelopes = envelopes.collect();
        }
        chunk.bad.extend(self.bad);
        chunk
    }
}
