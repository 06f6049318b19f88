//! Early results that wait when a run ends, and the next one has no room for states.

use std::sync::Arc;

use super::{Bench, Row, Setup, row};
use crate::budget::Budget;
use crate::checkpoint::storage::Storage;
use crate::checkpoint::storage::memory::MemoryStorage;
use crate::operator::Operator;
use crate::plan::{Alignment, TimeDomain, Window};
use crate::shard::SHARDS;
use crate::state::stored::{Restored, StoredTable};

/// The runs of an operator, each of which goes on from the checkpoint before.
pub(super) struct Runs {
    setup: Setup,
    storage: Arc<MemoryStorage>,
    budget: Arc<Budget>,
    checkpoints: u64,
}

impl Runs {
    pub fn new(setup: Setup) -> Self {
        Runs {
            setup,
            storage: Arc::default(),
            budget: Arc::new(Budget::new(1)),
            checkpoints: 0,
        }
    }

    pub fn begin(&mut self, restored: Option<Restored>) -> Bench {
        // There is room for nothing that can be evicted.
        self.budget = Arc::new(Budget::new(1));
        let tables = 0..2;
        let stored = tables.map(|table| StoredTable {
            storage: self.storage.clone(),
            table,
            shards: 0..SHARDS,
            restored,
            budget: self.budget.clone(),
        });
        let bench = self.setup.bench_with(stored.collect());
        bench.expect("the test's plan is right")
    }

    fn checkpoint(&mut self, bench: &mut Bench) -> Restored {
        let snapshot = bench.operator.snapshot().expect("state can be written");
        let snapshot = snapshot.expect("an aggregate has state");
        self.checkpoints += 1;
        self.storage.checkpoint(self.checkpoints, snapshot.changes);
        self.budget.add_write();
        Restored {
            time_ms: snapshot.time_ms,
            read_ms: snapshot.newest_ms,
            newest_ms: snapshot.newest_ms,
            ended_ms: snapshot.ended_ms,
        }
    }

    pub fn restart(&mut self, bench: &mut Bench) -> Bench {
        let restored = self.checkpoint(bench);
        let found = self.storage.restore(self.checkpoints);
        found.expect("there is a checkpoint");
        Bench {
            told: std::mem::take(&mut bench.told),
            ..self.begin(Some(restored))
        }
    }
}

fn of_users(users: std::ops::Range<usize>) -> Vec<Row> {
    let rows = users.map(|user| row(&format!("user {user}"), 5, ""));
    rows.collect()
}

#[test]
fn early_results_that_wait_come_after_a_restore() {
    let time = TimeDomain::Event;
    let alignment = Alignment::default();
    for window in [
        Window::Tumbling {
            size_ms: 100,
            time,
            alignment,
        },
        Window::Sliding {
            size_ms: 100,
            slide_ms: 50,
            time,
            alignment,
        },
        Window::Session { gap_ms: 100, time },
        Window::Count { size: 10 },
        Window::Running,
    ] {
        let setup = Setup::new(window).early(1_000);
        let mut runs = Runs::new(setup);
        let mut bench = runs.begin(None);
        bench.rows(&of_users(0..20)).watermark(5);
        // Those of users from 10 on are told, of the others after a restart.
        bench.clock(1_000);
        let told = bench.lines().lines().count();
        assert!(told >= 20, "{window}: {told}");
        bench.rows(&of_users(0..10));
        let mut bench = runs.restart(&mut bench);
        assert_eq!(bench.lines(), "", "{window}");
        bench.clock(3_000);
        let lines = bench.lines();
        let of_user = |user: usize| {
            let name = format!("user {user} ");
            lines.lines().filter(|line| line.starts_with(&name)).count()
        };
        for user in 0..20 {
            assert_eq!(of_user(user) > 0, user < 10, "{window}: {user} in {lines}");
        }
        // What was told is not told again, whether it is in memory or not.
        let mut bench = runs.restart(&mut bench);
        bench.clock(9_000);
        assert_eq!(bench.lines(), "", "{window}");
    }
}
