//! Rows that have lately come to the plugins of a run: a few of each, so that another
//! plugin can be tried on them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::task::JoinSet;

use crate::batch::Batch;
use crate::element::NodeId;
use crate::plan::{Edge, Node, OperatorPlan, Plan};
use crate::run::Looks;
use crate::tap::Listening;

/// How many rows of an output are kept. Those that were left out in between are not missed:
/// both plugins get the same.
const ROWS_MAX: usize = 500;
/// Large rows are fewer.
const BYTES_MAX: usize = 1 << 20;
/// How many rows a second are copied at most.
const RATE: u32 = 100;

/// The recent rows of a run, by the output that they have left.
pub struct Recent {
    outputs: BTreeMap<(NodeId, usize), Arc<Ring>>,
    /// Ends with it.
    _listening: JoinSet<()>,
}

impl Recent {
    /// Keeps rows for the plugins of this plan from now on. Must be called within a tokio
    /// runtime.
    pub fn of(plan: &Plan, looks: &Looks) -> Recent {
        let is_plugins = |node: &&Node| {
            let operator = node.kind.operator();
            operator.is_some_and(OperatorPlan::is_plugins)
        };
        let mut outputs = BTreeMap::new();
        let mut listening = JoinSet::new();
        for edge in plan.nodes.iter().filter(is_plugins).flat_map(Node::edges) {
            outputs.entry((edge.from, edge.output)).or_insert_with(|| {
                let from = &plan.nodes[edge.from];
                let tap = looks.tap(&from.name, &from.outputs[edge.output].name);
                let ring = Arc::new(Ring::default());
                listening.spawn(fill(ring.clone(), tap.listen(RATE)));
                ring
            });
        }
        Recent {
            outputs,
            _listening: listening,
        }
    }

    /// Those that have come by an edge of the plan, oldest first.
    pub fn rows(&self, edge: &Edge) -> Vec<Batch> {
        let ring = self.outputs.get(&(edge.from, edge.output));
        ring.map_or_else(Vec::new, |ring| ring.lock().iter().cloned().collect())
    }
}

#[derive(Default)]
struct Ring(Mutex<VecDeque<Batch>>);

async fn fill(ring: Arc<Ring>, mut listening: Listening) {
    loop {
        let batch = listening.next().await;
        ring.push(batch);
    }
}

impl Ring {
    fn push(&self, batch: Batch) {
        let rows = batch.rows();
        let fitting = rows.saturating_mul(BYTES_MAX) / batch.bytes().max(1);
        let kept = rows.min(fitting.clamp(1, ROWS_MAX));
        let newest: Vec<u32> = ((rows - kept) as u32..rows as u32).collect();
        let mut batches = self.lock();
        batches.push_back(batch.take(&newest));
        let mut rows: usize = batches.iter().map(Batch::rows).sum();
        let mut bytes: usize = batches.iter().map(Batch::bytes).sum();
        while rows > ROWS_MAX || bytes > BYTES_MAX && batches.len() > 1 {
            let Some(oldest) = batches.pop_front() else {
                break;
            };
            rows -= oldest.rows();
            bytes = bytes.saturating_sub(oldest.bytes());
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Batch>> {
        // A panic elsewhere leaves no change half made.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use arrow_array::{ArrayRef, StringArray};

    use super::*;

    fn batch(times: Range<i64>, text: &str) -> Batch {
        let texts: StringArray = times.clone().map(|_| Some(text)).collect();
        Batch {
            schema: Arc::default(),
            columns: vec![Arc::new(texts) as ArrayRef],
            times: times.collect(),
            origin: None,
            watermarks: None,
            taken_back: None,
        }
    }

    fn times(ring: &Ring) -> Vec<i64> {
        let batches = ring.lock();
        batches
            .iter()
            .flat_map(|batch| batch.times.to_vec())
            .collect()
    }

    #[test]
    fn the_newest_rows_are_kept() {
        let ring = Ring::default();
        for times in [0..300, 300..310, 310..700, 700..800] {
            ring.push(batch(times, "short"));
        }
        assert_eq!(times(&ring), Vec::from_iter(300..800));
        ring.push(batch(0..900, "short"));
        assert_eq!(times(&ring), Vec::from_iter(400..900));
    }

    #[test]
    fn large_rows_are_few() {
        let ring = Ring::default();
        let text = "x".repeat(BYTES_MAX / 4);
        for time in 0..10 {
            ring.push(batch(time..time + 1, &text));
        }
        assert!((2..5).contains(&times(&ring).len()), "{:?}", times(&ring));
        ring.push(batch(0..100, &text));
        assert!(times(&ring).len() < 5, "{:?}", times(&ring));
        ring.push(batch(7..8, &"x".repeat(2 * BYTES_MAX)));
        assert_eq!(times(&ring), [7]);
    }
}
