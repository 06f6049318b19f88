//! Deliberate crashes at named places, for the tests that kill a host.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// `NAME` or `NAME:COUNT`: kills the process when it reaches this place (for the
/// COUNTth time). Only for tests.
const VARIABLE: &str = "SLUICEBOX_CRASH_AT";

/// A place to crash at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    BarrierBefore,
    BarrierAfter,
    SnapshotAfter,
    WriteBefore,
    ManifestBefore,
    ManifestAfter,
    OffsetsBefore,
    OffsetsAfter,
    CommitBefore,
    CommitAfter,
    DeliverBefore,
    DeliverAfter,
}

pub const PLACES: [(&str, Place); 12] = [
    ("barrier_before", Place::BarrierBefore),
    ("barrier_after", Place::BarrierAfter),
    ("snapshot_after", Place::SnapshotAfter),
    ("write_before", Place::WriteBefore),
    ("manifest_before", Place::ManifestBefore),
    ("manifest_after", Place::ManifestAfter),
    ("offsets_before", Place::OffsetsBefore),
    ("offsets_after", Place::OffsetsAfter),
    ("commit_before", Place::CommitBefore),
    ("commit_after", Place::CommitAfter),
    ("deliver_before", Place::DeliverBefore),
    ("deliver_after", Place::DeliverAfter),
];

/// Kills the process if it is to crash here.
pub fn point(place: Place) {
    static WANTED: OnceLock<Option<(Place, u64)>> = OnceLock::new();
    static PASSED: AtomicU64 = AtomicU64::new(0);
    let wanted = WANTED.get_or_init(|| {
        let text = std::env::var(VARIABLE).ok()?;
        let (name, count) = text.split_once(':').unwrap_or((&text, "1"));
        let place = PLACES.iter().find(|(known, _)| *known == name)?.1;
        Some((place, count.parse().ok()?))
    });
    if let Some((wanted, count)) = wanted
        && *wanted == place
        && PASSED.fetch_add(1, Ordering::SeqCst) + 1 == *count
    {
        // Like SIGKILL: nothing is flushed, nothing unwinds.
        std::process::abort();
    }
}
