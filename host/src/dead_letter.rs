//! Dead letters: rows that could not be processed, with all that is needed to
//! find and replay them.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::batch::{Batch, Block, Envelope, NO_TIME, Origin, Payload};
use crate::json;
use crate::timestamp;

/// What is done with a row that cannot be decoded, or that a plugin fails on or
/// rejects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum OnError {
    /// The pipeline stops with the row's error.
    Fail,
    /// Counted and logged.
    Skip,
    /// Counted and written, whole, to the pipeline's dead letters.
    #[default]
    DeadLetter,
    /// Tried again at most this many times, then a dead letter. A row that a
    /// plugin rejects is not tried again.
    Retry(u32),
}

/// What is done with a state that the migration of a plugin refuses, or fails on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum OnMigrationError {
    /// The pipeline does not start: nothing of the states is changed.
    #[default]
    Fail,
    /// It is written to the pipeline's dead letters, and its key begins anew.
    DeadLetter,
}

impl OnError {
    pub fn makes_dead_letters(self) -> bool {
        matches!(self, OnError::DeadLetter | OnError::Retry(_))
    }
}

/// A row that could not be processed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DeadLetter {
    /// Node that gave up on the row.
    pub node: String,
    /// `plugin.operator`.
    pub plugin: Option<String>,
    pub plugin_digest: Option<String>,
    /// `decode`, `reject`, `trap`, `deadline`, `memory`, `output_size`, `contract`,
    /// `event_time`, `migration`, `refused`.
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
    /// Of a message: its key, as text or, if it is not UTF-8, as base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_base64: Option<String>,
    /// A JSON object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub headers: Option<String>,
    /// RFC 3339.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_time: Option<String>,
    /// The row as the node saw it, as JSON (absent for decode errors). Of a state that
    /// is in no result, the state.
    pub row: Option<String>,
}

impl DeadLetter {
    /// Adds what a message has besides its payload.
    pub fn add_envelope(&mut self, envelope: &Envelope) {
        if let Some(key) = &envelope.key {
            (self.key, self.key_base64) = text_or_base64(key.to_vec());
        }
        self.headers.clone_from(&envelope.headers);
        self.message_time = envelope.timestamp_ms.map(timestamp::to_text);
        if envelope.is_tombstone {
            self.payload = None;
        }
    }
}

/// Where a row comes from, as a dead letter shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provenance {
    pub source: String,
    pub partition: String,
    pub offset: u64,
    /// The original text, or its base64 when it is not UTF-8.
    pub payload: Option<String>,
    pub payload_base64: Option<String>,
}

/// A dead letter of a row, without the error. The payload is what the source
/// read, or the row itself where it was computed from several.
pub fn of_row(batch: &Batch, row: usize) -> DeadLetter {
    let rendered = json::render_row(batch, row);
    let time_ms = Some(batch.times[row]).filter(|&ms| ms != NO_TIME);
    let mut dead_letter = DeadLetter {
        event_time: time_ms.map(timestamp::to_text),
        ..DeadLetter::default()
    };
    match &batch.origin {
        Some(origin) => {
            let provenance = provenance(origin, row);
            dead_letter.source = Some(provenance.source);
            dead_letter.partition = Some(provenance.partition);
            dead_letter.offset = Some(provenance.offset);
            dead_letter.payload = provenance.payload;
            dead_letter.payload_base64 = provenance.payload_base64;
            if let Some(envelope) = origin.block.envelopes.get(origin.row(row) as usize) {
                dead_letter.add_envelope(envelope);
            }
            dead_letter.row = Some(rendered);
        }
        None => dead_letter.payload = Some(rendered),
    }
    dead_letter
}

/// A dead letter of a state, where no single row failed: its key and window, and where its
/// rows are in no result, the state itself.
pub fn of_state(rendered: &str, state: Option<&str>) -> DeadLetter {
    DeadLetter {
        payload: Some(rendered.to_owned()),
        row: state.map(str::to_owned),
        ..DeadLetter::default()
    }
}

/// The dead letter as one sentence, for the log and for errors.
pub fn sentence(dead_letter: &DeadLetter) -> String {
    let place = match (
        &dead_letter.source,
        &dead_letter.partition,
        dead_letter.offset,
    ) {
        (Some(source), Some(partition), Some(offset)) => {
            format!("the row of source `{source}`, {partition}, offset {offset}")
        }
        _ => format!(
            "row {}",
            dead_letter.payload.as_deref().unwrap_or("unknown")
        ),
    };
    let panic = match &dead_letter.panic {
        Some(panic) => format!(" (it said: {})", panic.trim_end()),
        None => String::new(),
    };
    format!(
        "{}: {}{panic}: {place}",
        dead_letter.kind, dead_letter.error
    )
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

/// The bytes that a row was decoded from; JSON where the source makes columns itself.
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

/// The payload as text, or as base64 where it is not UTF-8.
pub fn text_or_base64(payload: Vec<u8>) -> (Option<String>, Option<String>) {
    match String::from_utf8(payload) {
        Ok(text) => (Some(text), None),
        Err(error) => (None, Some(BASE64_STANDARD.encode(error.as_bytes()))),
    }
}
