//! Decoded rows of one partition: what a source hands out at a time.

use std::sync::Arc;

use arrow_array::ArrayRef;
use arrow_buffer::{BooleanBuffer, Buffer, ScalarBuffer};

use crate::batch::{Block, Envelope, Offsets, Payload};
use crate::checkpoint::snapshot::Position;
use crate::decode::{Decoded, Decoder};
use crate::source::looks::other_format;
use crate::timestamp::CutTimes;

/// Decoded rows of one partition.
pub struct Chunk {
    pub columns: Vec<ArrayRef>,
    pub rows: usize,
    pub block: Block,
    /// In ascending order of offset.
    pub bad: Vec<BadRow>,
    /// The position after its rows.
    pub end: Position,
    /// Times of its rows that were rounded down.
    pub cut_times: Option<CutTimes>,
    /// The event time of each row, of a source that gives them. Of changes, it may be
    /// [`crate::batch::NO_TIME`]: no earlier than the row before.
    pub times: Option<ScalarBuffer<i64>>,
    /// Of changes of a table: which rows take back one that came before.
    pub taken_back: Option<BooleanBuffer>,
}

/// A row that could not be decoded.
#[derive(Debug)]
pub struct BadRow {
    pub offset: u64,
    pub error: String,
    pub payload: Vec<u8>,
    /// If it was a message.
    pub envelope: Option<Envelope>,
}

/// Decodes the rows of `data` that `spans` delimit. Bad rows lose their spans.
pub fn decode(
    decoder: &mut Decoder,
    source: Arc<str>,
    partition: Arc<str>,
    data: Buffer,
    spans: Vec<(u32, u32)>,
    offsets: Offsets,
    end: Position,
) -> Chunk {
    let decoded = decoder.decode(&data, &spans);
    chunk_of(
        decoded, decoder, source, partition, data, spans, offsets, end,
    )
}

/// The chunk of rows that were decoded.
#[expect(
    clippy::too_many_arguments,
    reason = "they are what a block is made of"
)]
pub fn chunk_of(
    decoded: Decoded,
    decoder: &Decoder,
    source: Arc<str>,
    partition: Arc<str>,
    data: Buffer,
    mut spans: Vec<(u32, u32)>,
    mut offsets: Offsets,
    end: Position,
) -> Chunk {
    let mut bad = Vec::new();
    if !decoded.bad.is_empty() {
        // With rows missing, offsets no longer follow from the first.
        if let Offsets::From(first) = offsets {
            offsets = Offsets::Each((first..).take(spans.len()).collect());
        }
        let mut is_bad = vec![false; spans.len()];
        for row in decoded.bad {
            let index = row.row as usize;
            is_bad[index] = true;
            let (start, end) = spans[index];
            let payload = data[start as usize..end as usize].to_vec();
            let look = decoder
                .reads_text()
                .then(|| other_format(&payload))
                .flatten();
            let error = match look {
                Some(look) => format!("{}; it looks like {}", row.error, look.format),
                None => row.error,
            };
            bad.push(BadRow {
                offset: match &offsets {
                    Offsets::From(first) => first + u64::from(row.row),
                    Offsets::Bytes(first) => first + u64::from(start),
                    Offsets::Each(offsets) => offsets[index],
                },
                error,
                payload,
                envelope: None,
            });
        }
        if decoded.changes.is_none() {
            let mut bad_rows = is_bad.iter();
            spans.retain(|_| bad_rows.next() == Some(&false));
            if let Offsets::Each(offsets) = &mut offsets {
                let mut bad_rows = is_bad.iter();
                offsets.retain(|_| bad_rows.next() == Some(&false));
            }
        }
    }
    if let Some(changes) = &decoded.changes {
        let parents = || changes.parents.iter().map(|&parent| parent as usize);
        spans = parents().map(|parent| spans[parent]).collect();
        offsets = match offsets {
            Offsets::Bytes(first) => Offsets::Bytes(first),
            Offsets::From(first) => {
                Offsets::Each(parents().map(|parent| first + parent as u64).collect())
            }
            Offsets::Each(each) => Offsets::Each(parents().map(|parent| each[parent]).collect()),
        };
    }
    let (taken_back, times) = match decoded.changes {
        Some(changes) => (Some(changes.taken_back), Some(changes.times)),
        None => (None, None),
    };
    Chunk {
        columns: decoded.columns,
        rows: decoded.rows,
        block: Block {
            source,
            partition,
            offsets,
            payload: Payload::Bytes { data, spans },
            envelopes: Vec::new(),
        },
        bad,
        end,
        cut_times: decoded.cut_times,
        times,
        taken_back,
    }
}

/// A position that is the number of a row.
pub fn at_row(row: u64) -> Position {
    Position {
        offset: row,
        ..Position::default()
    }
}
