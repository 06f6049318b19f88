//! Dead letters: what a row that was given up is found and replayed by, and when
//! there is one.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use crate::batch::{Batch, Block, Origin, Payload};
use crate::json;
use crate::timestamp;

/// What becomes of a row that cannot be decoded or that a plugin fails on or rejects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum OnError {
    /// The pipeline stops with the row's error.
    Fail,
    /// Counted and logged.
    Skip,
    /// Counted and written, whole, to the pipeline's dead letters.
    #[default]
    DeadLetter,
    /// Tried so many more times, then a dead letter. For plugins whose
    /// failures may pass; a row that a plugin rejects is not tried again.
    Retry(u32),
}

impl OnError {
    pub fn makes_dead_letters(self) -> bool {
        matches!(self, OnError::DeadLetter | OnError::Retry(_))
    }
}

/// A row that could not be processed.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct DeadLetter {
    /// Node that gave up on the row.
    pub node: String,
    /// `plugin.operator`.
    pub plugin: Option<String>,
    pub plugin_digest: Option<String>,
    /// `decode`, `reject`, `trap`, `deadline`, `memory`, `output_size`, `contract`.
    pub kind: String,
    pub error: String,
    pub panic: Option<String>,
    pub source: Option<String>,
    pub partition: Option<String>,
    pub offset: Option<u64>,
    /// RFC 3339.
    pub event_time: Option<String>,
    /// The original text; base64 with `payload_base64` when it is not UTF-8.
    /// For rows that were computed from many, the row itself as JSON.
    pub payload: Option<String>,
    pub payload_base64: Option<String>,
    /// The row as the node saw it, as JSON (absent for decode errors).
    pub row: Option<String>,
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

/// Everything that the row itself tells. Rows that come from a source have
/// their original payload; rows computed from many, the row as their payload.
pub fn of_row(batch: &Batch, row: usize) -> DeadLetter {
    let rendered = json::render_row(batch, row);
    let mut letter = DeadLetter {
        event_time: Some(timestamp::to_text(batch.times[row])),
        ..DeadLetter::default()
    };
    match &batch.origin {
        Some(origin) => {
            let provenance = provenance(origin, row);
            letter.source = Some(provenance.source);
            letter.partition = Some(provenance.partition);
            letter.offset = Some(provenance.offset);
            letter.payload = provenance.payload;
            letter.payload_base64 = provenance.payload_base64;
            letter.row = Some(rendered);
        }
        None => letter.payload = Some(rendered),
    }
    letter
}

/// A state with no single row to blame: its key and window.
pub fn of_state(rendered: &str) -> DeadLetter {
    DeadLetter {
        payload: Some(rendered.to_owned()),
        ..DeadLetter::default()
    }
}

/// The letter as one sentence, for the log and for errors.
pub fn sentence(letter: &DeadLetter) -> String {
    let place = match (&letter.source, &letter.partition, letter.offset) {
        (Some(source), Some(partition), Some(offset)) => {
            format!("the row of source `{source}`, {partition}, offset {offset}")
        }
        _ => format!("row {}", letter.payload.as_deref().unwrap_or("unknown")),
    };
    let panic = match &letter.panic {
        Some(panic) => format!(" (it said: {})", panic.trim_end()),
        None => String::new(),
    };
    format!("{}: {}{panic}: {place}", letter.kind, letter.error)
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
pub fn payload(block: &Block, row: u32) -> Vec<u8> {
    match &block.payload {
        Payload::Bytes { data, spans } => spans
            .get(row as usize)
            .and_then(|&(start, end)| data.get(start as usize..end as usize))
            .unwrap_or_default()
            .to_vec(),
        Payload::Rows(rows) => json::render_record(rows, row as usize).into_bytes(),
    }
}

/// As text, or as base64 what is none.
pub fn text_or_base64(payload: Vec<u8>) -> (Option<String>, Option<String>) {
    match String::from_utf8(payload) {
        Ok(text) => (Some(text), None),
        Err(error) => (None, Some(BASE64_STANDARD.encode(error.as_bytes()))),
    }
}
