//! Tells of a partition that has had no rows for a minute and holds back event time,
//! although others have rows: windows do not fire, and nothing else says why. It may be
//! read by another task, or be one of another source of the same windows.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::watermark::SharedWatermarks;
use crate::element::NodeId;
use crate::plan::{NodeKind, Plan};

/// A partition that is silent for so long is told of.
const SILENCE_TOLD_MS: i64 = 60_000;

/// How often it is looked for.
const LOOK_EVERY_MS: i64 = 1_000;

/// What the readers know of each other whose rows come to the same windows.
#[derive(Debug, Default)]
pub struct SilenceWatch(Mutex<Watched>);

#[derive(Debug, Default)]
struct Watched {
    readers: Vec<WatchedReader>,
    look_at_ms: i64,
    /// It is told once.
    is_told: bool,
}

/// One task's partitions of a source.
#[derive(Debug)]
pub(super) struct WatchedReader {
    pub source: Arc<str>,
    /// Whose table has the `watermark`, for messages.
    pub timed_by: &'static str,
    pub watermarks: SharedWatermarks,
    /// Whether its partitions are read whenever they have rows, and not in turn.
    pub is_live: bool,
    pub partitions: Vec<Arc<str>>,
}

impl SilenceWatch {
    /// By node, those of a source: one for all windows of event time that have their
    /// rows from the same sources.
    pub fn of_plan(plan: &Plan) -> Vec<Vec<Arc<SilenceWatch>>> {
        let mut sources_of: Vec<Vec<NodeId>> = Vec::with_capacity(plan.nodes.len());
        let mut watches: BTreeMap<Vec<NodeId>, Arc<SilenceWatch>> = BTreeMap::new();
        for (id, node) in plan.nodes.iter().enumerate() {
            let mut sources: Vec<NodeId> = match node.kind {
                NodeKind::Source(_) => vec![id],
                _ => node
                    .edges()
                    .flat_map(|edge| sources_of[edge.from].clone())
                    .collect(),
            };
            sources.sort_unstable();
            sources.dedup();
            if node.has_timed_windows() {
                watches.entry(sources.clone()).or_default();
            }
            sources_of.push(sources);
        }
        let mut by_node = vec![Vec::new(); plan.nodes.len()];
        for (sources, watch) in watches {
            for source in sources {
                by_node[source].push(watch.clone());
            }
        }
        by_node
    }

    /// Returns the reader's number.
    pub(super) fn join(&self, reader: WatchedReader) -> usize {
        let mut watched = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        watched.readers.push(reader);
        watched.readers.len() - 1
    }

    /// A reader has found another partition.
    pub(super) fn add(&self, reader: usize, partition: Arc<str>) {
        let mut watched = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        watched.readers[reader].partitions.push(partition);
    }

    /// A reader has forgotten a partition. Its watermarks have, too.
    pub(super) fn remove(&self, reader: usize, partition: usize) {
        let mut watched = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        watched.readers[reader].partitions.remove(partition);
    }

    /// A warning of the partition that is silent and holds back event time, if there is
    /// one. The caller has no lock of watermarks.
    pub(super) fn look(&self, now_ms: i64) -> Option<String> {
        let mut watched = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if watched.is_told || now_ms < watched.look_at_ms {
            return None;
        }
        watched.look_at_ms = now_ms.saturating_add(LOOK_EVERY_MS);
        let warning = watched.warning(now_ms)?;
        watched.is_told = true;
        Some(warning)
    }
}

impl Watched {
    fn warning(&self, now_ms: i64) -> Option<String> {
        let is_silent = |since_ms: i64| now_ms.saturating_sub(since_ms) >= SILENCE_TOLD_MS;
        let times = self.readers.iter().filter_map(|reader| {
            let watermarks = reader.watermarks.lock();
            Some((reader, watermarks.lowest()?, watermarks.newest_row_ms()?))
        });
        let times: Vec<_> = times.collect();
        if times.iter().all(|&(.., row_ms)| is_silent(row_ms)) {
            return None;
        }
        let (reader, lowest, newest_row_ms) = times
            .iter()
            .min_by_key(|(_, lowest, _)| (lowest.watermark_ms, lowest.last_row_ms))?;
        let last_row_ms = match reader.is_live {
            true => lowest.last_row_ms,
            // Others may have their turn.
            false => *newest_row_ms,
        };
        if lowest.becomes_idle || !is_silent(last_row_ms) {
            return None;
        }
        Some(format!(
            "source `{}`: partition {} has had no rows for a minute and holds back event time, so \
             windows do not fire, although other partitions have rows. Give {} \
             `watermark = {{ idle_after = \"30s\" }}` if a partition may be silent",
            reader.source, reader.partitions[lowest.partition], reader.timed_by
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::Batch;
    use crate::source::watermark::Watermarks;

    fn reader(source: &str, partitions: usize, idle_after_ms: Option<u64>) -> WatchedReader {
        let names = (0..partitions).map(|number| format!("{source}/{number}").into());
        WatchedReader {
            source: source.into(),
            timed_by: "the source",
            watermarks: SharedWatermarks::new(Watermarks::new(partitions, 0, idle_after_ms, 0)),
            is_live: true,
            partitions: names.collect(),
        }
    }

    /// A row comes to a partition.
    fn row(watermarks: &SharedWatermarks, partition: usize, time_ms: i64, now_ms: i64) {
        let batch = Batch {
            schema: Arc::default(),
            columns: Vec::new(),
            times: vec![time_ms].into(),
            origin: None,
            watermarks: None,
            taken_back: None,
        };
        let mut watermarks = watermarks.lock();
        watermarks.observe(partition, batch, now_ms, &mut Vec::new());
    }

    /// Has readers join a watch, and returns it with their watermarks.
    fn watch<const N: usize>(readers: [WatchedReader; N]) -> (SilenceWatch, [SharedWatermarks; N]) {
        let watch = SilenceWatch::default();
        let watermarks = readers.each_ref().map(|reader| reader.watermarks.clone());
        readers.into_iter().for_each(|reader| {
            watch.join(reader);
        });
        (watch, watermarks)
    }

    #[test]
    fn a_silent_partition_that_holds_back_the_others_is_told_of_once() {
        let (watch, [clicks]) = watch([reader("clicks", 2, None)]);
        row(&clicks, 0, 100, 59_000);
        assert_eq!(watch.look(59_000), None, "not yet a minute");
        let said = watch.look(60_000).expect("a minute");
        assert!(
            said.starts_with("source `clicks`: partition clicks/1 has"),
            "{said}"
        );
        assert_eq!(watch.look(70_000), None, "said once");
    }

    #[test]
    fn it_may_be_another_source_or_that_of_another_task() {
        let (watch, [clicks, prices]) =
            watch([reader("clicks", 1, None), reader("prices", 1, None)]);
        row(&prices, 0, 50, 1_000);
        row(&clicks, 0, 100, 61_000);
        let said = watch.look(61_000).expect("a minute");
        assert!(
            said.starts_with("source `prices`: partition prices/0 has"),
            "{said}"
        );
    }

    #[test]
    fn silence_that_holds_nothing_back_is_not_told_of() {
        let (ahead, [clicks, prices]) =
            watch([reader("clicks", 1, None), reader("prices", 1, None)]);
        row(&prices, 0, 200, 1_000);
        row(&clicks, 0, 100, 61_000);
        assert_eq!(ahead.look(61_000), None, "it is ahead");
        prices.lock().end(0, &mut Vec::new());
        assert_eq!(
            ahead.look(200_000),
            None,
            "it has ended, and all are silent"
        );

        let (idle, [clicks, _]) =
            watch([reader("clicks", 1, None), reader("prices", 1, Some(1_000))]);
        row(&clicks, 0, 100, 61_000);
        assert_eq!(idle.look(61_000), None, "it becomes idle");

        let (alone, _) = watch([reader("clicks", 1, None)]);
        assert_eq!(alone.look(61_000), None, "nobody has rows");
    }

    #[test]
    fn files_are_read_in_turn() {
        let files = WatchedReader {
            is_live: false,
            ..reader("files", 2, None)
        };
        let (watch, [files, clicks]) = watch([files, reader("clicks", 1, None)]);
        row(&files, 0, 10, 61_000);
        row(&clicks, 0, 100, 61_000);
        assert_eq!(watch.look(61_000), None);
    }
}
