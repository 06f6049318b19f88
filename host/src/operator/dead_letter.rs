//! Dead letters of operators: what a row that was given up is found and
//! replayed by.

use super::DeadLetter;
use crate::batch::Batch;
use crate::sink::dead_letter::render_row;
use crate::source::provenance;
use crate::timestamp;

/// Everything that the row itself tells. Rows that come from a source have
/// their original payload; rows computed from many, the row as their payload.
pub fn of_row(batch: &Batch, row: usize) -> DeadLetter {
    let rendered = render_row(batch, row);
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
