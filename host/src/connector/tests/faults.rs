//! A failed run is tried again where that can help, and only there, whichever part has
//! failed and whoever is to blame.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;
use proptest::sample::select;

use crate::batch::Batch;
use crate::blame::{Blame, Fault};
use crate::checkpoint::snapshot::{Position, SinkSnapshot};
use crate::checkpoint::storage::memory::MemoryStorage;
use crate::clock::SystemClock;
use crate::config::Config;
use crate::connector::Description;
use crate::element::CheckpointId;
use crate::logic::{LoadError, Loader, Module};
use crate::plan::{Delivery, NodeKind, RestartPlan, StateBackend, StatePlan};
use crate::planner;
use crate::run::{Durable, Job};
use crate::schema::Schema;
use crate::sink::{Ending, Sink, SinkConnector, SinkContext, SinkError};
use crate::source::chunk::at_row;
use crate::source::{Arrival, Pending, SourceConnector, SourceContext, SourceError, SourceInput};

/// What fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    OpenSource,
    Read,
    OpenSink,
    Barrier,
    Commit,
    Finish,
}

/// A source without rows and its sink, one part of which fails.
#[derive(Clone)]
struct Faulty {
    part: Part,
    fault: Fault,
    attempts: Arc<AtomicUsize>,
}

impl Faulty {
    fn source(&self, part: Part) -> Result<(), SourceError> {
        match part == self.part {
            true => Err(SourceError::Read {
                node: "in".to_owned(),
                what: "it".to_owned(),
                cause: "it broke".to_owned(),
                fault: self.fault,
            }),
            false => Ok(()),
        }
    }

    fn sink(&self, part: Part) -> Result<(), SinkError> {
        match part == self.part {
            true => Err(SinkError::new("out", "it", "it broke", self.fault)),
            false => Ok(()),
        }
    }
}

impl SourceConnector for Faulty {
    fn describe(&self) -> Description {
        Description {
            connector: "faulty",
            ..Description::default()
        }
    }

    fn partitions(&self) -> Option<usize> {
        Some(1)
    }

    fn open<'a>(&'a self, _: &'a SourceContext) -> Pending<'a, Box<dyn SourceInput>> {
        self.attempts.fetch_add(1, Ordering::Relaxed);
        let opened = self.source(Part::OpenSource);
        let opened = opened.map(|()| Box::new(self.clone()) as Box<dyn SourceInput>);
        Box::pin(std::future::ready(opened))
    }
}

impl SourceInput for Faulty {
    fn partitions(&self) -> usize {
        1
    }

    fn partition(&self, _: usize) -> (Arc<str>, Position) {
        ("only".into(), at_row(0))
    }

    fn next<'a>(&'a mut self, order: &'a [usize]) -> Pending<'a, Arrival> {
        let arrival = match order {
            [] => Arrival::Over,
            _ => Arrival::End(0),
        };
        Box::pin(std::future::ready(
            self.source(Part::Read).map(|()| arrival),
        ))
    }
}

impl SinkConnector for Faulty {
    fn describe(&self) -> Description {
        SourceConnector::describe(self)
    }

    fn delivery(&self) -> Delivery {
        Delivery::ExactlyOnce
    }

    fn open(&self, _: &str, _: &Arc<Schema>, _: &SinkContext) -> Result<Box<dyn Sink>, SinkError> {
        self.sink(Part::OpenSink)?;
        Ok(Box::new(self.clone()))
    }
}

impl Sink for Faulty {
    fn write(&mut self, _: &Batch) -> Result<(), SinkError> {
        Ok(())
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        Ok(())
    }

    fn barrier(&mut self, _: CheckpointId) -> Result<SinkSnapshot, SinkError> {
        self.sink(Part::Barrier).map(|()| SinkSnapshot::default())
    }

    fn committed(&mut self, _: CheckpointId) -> Result<(), SinkError> {
        self.sink(Part::Commit)
    }

    fn finish(&mut self, _: Ending) -> Result<(), SinkError> {
        self.sink(Part::Finish)
    }
}

struct NoPlugins;

impl Loader for NoPlugins {
    fn load(&self, _: &Path) -> Result<Arc<dyn Module>, LoadError> {
        Err(LoadError("there are no plugins here".to_owned()))
    }
}

const PIPELINE: &str = r#"name = "faulty"
[sources.in]
type = "generator"
[sinks.out]
type = "blackhole"
input = "in"
"#;

/// How often a run is tried, and what it says in the end.
fn attempts(part: Part, fault: Fault, failures_max: u32) -> (usize, Fault) {
    let config = Config::parse("faulty.toml", PIPELINE).expect("a pipeline");
    let mut plan = planner::build(&config, Path::new("/pipelines"), &NoPlugins).expect("a plan");
    let faulty = Faulty {
        part,
        fault,
        attempts: Arc::default(),
    };
    for node in &mut plan.nodes {
        match &mut node.kind {
            NodeKind::Source(source) => source.connector = Box::new(faulty.clone()),
            NodeKind::Sink(sink) => sink.connector = Box::new(faulty.clone()),
            _ => {}
        }
    }
    plan.dead_letters = None;
    plan.state = Some(StatePlan {
        backend: StateBackend::Memory,
        memory_bytes_max: 1 << 20,
        interval_ms: 10,
        keep: 2,
        delivery: Delivery::ExactlyOnce,
    });
    plan.restart = RestartPlan::After {
        delay_ms: 1,
        delay_ms_max: 1,
        factor: 1.0,
        failures_max,
        within_ms: 600_000,
    };
    let durable = Durable::new(Arc::new(MemoryStorage::default()));
    let job = Job::new(plan, Arc::new(SystemClock)).keeping(durable);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let failed = runtime.block_on(job.run()).expect_err("a part fails");
    (faulty.attempts.load(Ordering::Relaxed), failed.fault())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn only_what_can_pass_is_tried_again(
        part in select(vec![
            Part::OpenSource,
            Part::Read,
            Part::OpenSink,
            Part::Barrier,
            Part::Commit,
            Part::Finish,
        ]),
        blame in select(vec![
            Blame::Row,
            Blame::Plugin,
            Blame::Config,
            Blame::Outside,
            Blame::Bug,
        ]),
        can_pass in any::<bool>(),
        failures_max in 1..4u32,
    ) {
        let fault = match can_pass {
            true => Fault::passing(blame),
            false => Fault::lasting(blame),
        };
        let (attempts, said) = attempts(part, fault, failures_max);
        let again = if can_pass { failures_max as usize } else { 0 };
        prop_assert_eq!(attempts, 1 + again);
        prop_assert_eq!(said, fault);
    }
}
