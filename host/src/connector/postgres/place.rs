//! Where to go on: what a checkpoint keeps of a source.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::snapshot::Snapshot;
use crate::checkpoint::snapshot::Position;

/// Where to go on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    Growing(GrowingPlace),
    Log(LogPlace),
}

impl Place {
    /// The number of rows before it, or the place in the server's log.
    pub fn position(&self) -> Position {
        match self {
            Place::Growing(place) => Position {
                offset: place.rows,
                ..Position::default()
            },
            Place::Log(place) => place.position(),
        }
    }
}

/// Behind a row.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrowingPlace {
    /// The column whose values grow.
    pub by: String,
    /// How many rows are before it.
    pub rows: u64,
    /// The last value as the server writes it, and the hash of the last row with it.
    pub last: Option<(String, String)>,
    /// How many rows with this value and hash are before it, which are equal.
    pub same: u64,
}

/// Behind a row.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogPlace {
    /// The end of the last transaction that was read whole; absent before the slot was made.
    pub end: Option<u64>,
    /// How many rows of the next one are before it.
    pub row: u64,
    /// The copy, until the log has come to what it has not seen.
    pub copy: Option<CopyPlace>,
    /// What the publication was when reading began; absent in checkpoints of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub published: Option<Arc<str>>,
}

/// In a copy of the table, or behind it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CopyPlace {
    /// How many rows are before it, until all are.
    pub row: Option<u64>,
    pub snapshot: Arc<Snapshot>,
}

impl LogPlace {
    fn position(&self) -> Position {
        Position {
            offset: self.end.unwrap_or(0),
            sequence: Some(self.row),
            rows: self.copy.as_ref().and_then(|copy| copy.row),
            ..Position::default()
        }
    }

    /// The place in the copy, while it is read.
    pub fn in_copy(&self) -> Option<(u64, Arc<Snapshot>)> {
        let copy = self.copy.as_ref()?;
        Some((copy.row?, copy.snapshot.clone()))
    }

    /// Behind a whole transaction.
    pub fn behind(&self, end: u64) -> Self {
        let copy = self.copy.clone();
        LogPlace {
            end: Some(end),
            row: 0,
            copy: copy.filter(|copy| copy.snapshot.until > end),
            published: self.published.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_checkpoint_keeps_is_read_for_ever() {
        for kept in [
            r#"{"growing":{"by":"id","rows":0,"last":null,"same":0}}"#,
            r#"{"growing":{"by":"at","rows":3,"last":["2024-01-01 00:00:00+00","0cc175b9"],"same":1}}"#,
            r#"{"log":{"end":null,"row":0,"copy":null}}"#,
            r#"{"log":{"end":26,"row":0,"copy":{"row":7,"snapshot":{"ended":1,"next":4,"running":[1,2],"until":99,"taken_ms":5}}}}"#,
            r#"{"log":{"end":28,"row":0,"copy":null,"published":"16391 728 16392"}}"#,
            r#"{"log":{"end":27,"row":3,"copy":{"row":null,"snapshot":{"ended":1,"next":1,"running":[],"until":99,"taken_ms":5}}}}"#,
        ] {
            let place: Place = serde_json::from_str(kept).expect("a place");
            let written = serde_json::to_string(&place).expect("JSON");
            assert_eq!(written, kept);
        }
    }
}
