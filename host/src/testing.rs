//! Tests a pipeline: whether it gives the expected rows, however its input is
//! cut into batches, spread over tasks, and shuffled.
//!
//! A case is a folder, by default two levels below its pipeline:
//!
//! ```text
//! pipeline.toml
//! tests/NAME/input/SOURCE.jsonl      the rows that replace a source
//! tests/NAME/input/SOURCE/*.jsonl    the same, as several partitions
//! tests/NAME/expected/SINK.jsonl     the rows that a sink must get, in any order
//! tests/NAME/expected/dead_letters.jsonl
//! tests/NAME/test.toml               optional, see [`CaseSettings`]
//! ```
//!
//! Every run reads its sources' rows from these files, in each source's own
//! format, and writes its sinks' rows to memory. The clock stands still: there
//! are no early results, and all processing times are the same. Some runs are
//! killed several times, and each time restored from the last checkpoint with
//! another parallelism.

/// The files of a case.
mod case;
/// Compares actual rows with expected ones.
mod compare;
/// Why a case could not be run.
mod error;
/// Orders of rows that must give the same results.
mod disorder;
/// Runs a pipeline in an order that a seed decides, with crashes.
pub mod simulation;
/// Reads files of rows, and writes them in other orders.
mod input;
/// Results that replace others.
mod table;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use serde_json::{Map, Value};

pub use case::{Case, CaseSettings, find};
pub use compare::{ChangedRow, DeadLetterDifference, Difference};
pub use error::TestError;
pub use input::Order;

use self::case::{DEAD_LETTERS, Expectations};
use self::compare::{ComparableRows, one_line};
use self::input::Inputs;
use self::simulation::{Ended, Simulation};
use self::table::{ResultTable, standing};
use crate::checkpoint::storage::memory::MemoryStorage;
use crate::checkpoint::transaction::memory::MemoryTransaction;
use crate::clock::ManualClock;
use crate::config::Config;
use crate::connector::memory::sink::MemorySink;
use crate::json::render_exact_row;
use crate::logic::{LoadError, Loader, Module};
use crate::plan::{NodeKind, Plan, RowOrder, Window};
use crate::planner;
use crate::run::{Durable, Job, RunError};
use crate::topic::MemoryTopic;

const DEAD_LETTERS_FILE: &str = "dead_letters.jsonl";

const BATCH_ROWS: [usize; 3] = [4096, 7, 1];
const PARALLELISM: [usize; 3] = [1, 2, 4];
/// For the runs that are killed.
const CRASHING_BATCH_ROWS: [usize; 3] = [4096, 1024, 64];
/// How often each of those runs is killed.
const CRASHES: u32 = 4;

/// How a run of a case differs from the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Variant {
    pub batch_rows: usize,
    pub parallelism: usize,
    pub order: Order,
    /// The run is killed several times, as this seed decides.
    pub crashes: Option<u64>,
}

/// The result of all runs of a case.
#[derive(Debug)]
pub struct Outcome {
    pub runs: usize,
    /// Rows of all inputs together.
    pub rows: usize,
    /// How many sinks were compared.
    pub compared: usize,
    /// Notes for the reader, such as what was not compared.
    pub notes: Vec<String>,
    /// The runs with other results than expected.
    pub failures: Vec<CaseFailure>,
}

/// A difference between a run and what was expected.
#[derive(Debug)]
pub struct CaseFailure {
    pub variant: Variant,
    pub kind: CaseFailureKind,
    /// The run's dead letters, a line each: they often explain the difference.
    pub dead_letters: Vec<String>,
}

#[derive(Debug)]
pub enum CaseFailureKind {
    Run(RunError),
    Rows {
        sink: String,
        difference: Difference,
    },
    DeadLetters(DeadLetterDifference),
}

/// The output of a run.
struct RunOutput {
    /// In the order of [`Trial::sinks`].
    rows: Vec<Vec<Map<String, Value>>>,
    dead_letters: Vec<Map<String, Value>>,
}

/// A case with everything that its runs share.
struct Trial<'a> {
    config: Config,
    folder: PathBuf,
    loader: CachingLoader<'a>,
    inputs: Inputs,
    sinks: Vec<SinkUnderTest>,
    /// Nodes whose results depend on the order of rows, directly or through an
    /// input.
    ordered: Vec<String>,
    scratch: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
}

struct SinkUnderTest {
    name: String,
    schema: Arc<crate::schema::Schema>,
    /// Whether its rows depend on the order of the input.
    is_ordered: bool,
    /// If later rows replace earlier ones: those that are left in the end are
    /// compared.
    table: Option<ResultTable>,
    /// The column that says which rows are taken back: those that stand in the end are
    /// compared, without it.
    change: Option<String>,
}

/// Runs a case at every batch size and parallelism, in the given order and
/// shuffled, and compares results with expectations.
pub fn run(case: &Case, loader: &dyn Loader, seed: u64) -> Result<Outcome, TestError> {
    let trial = Trial::new(case, loader)?;
    let expectations = Expectations::read(case, &trial.tables())?;
    let (variants, mut notes) = trial.variants(case, seed);
    let mut failures = Vec::new();
    let mut unchecked_dead_letters = 0;
    for &variant in &variants {
        match trial.run(variant)? {
            Err(error) => failures.push(CaseFailure {
                variant,
                kind: CaseFailureKind::Run(error),
                dead_letters: Vec::new(),
            }),
            Ok(results) => {
                unchecked_dead_letters = unchecked_dead_letters.max(results.dead_letters.len());
                failures.extend(trial.compare_run(variant, &results, &expectations));
            }
        }
    }
    if expectations.dead_letters.is_none() && unchecked_dead_letters > 0 {
        notes.push(format!(
            "{unchecked_dead_letters} rows became dead letters; to check them, add expected/{DEAD_LETTERS}.jsonl"
        ));
    }
    let names = trial.sinks.iter().map(|sink| sink.name.as_str());
    let uncompared: Vec<&str> = names
        .filter(|name| !expectations.rows.contains_key(*name))
        .collect();
    if !uncompared.is_empty() {
        notes.push(format!("not compared: {}", uncompared.join(", ")));
    }
    Ok(Outcome {
        runs: variants.len(),
        rows: trial.inputs.rows(),
        compared: expectations.rows.len(),
        notes,
        failures,
    })
}

/// Writes the results as expectations, if all runs agree, and returns the files
/// that were written.
pub fn update(
    case: &Case,
    loader: &dyn Loader,
    seed: u64,
) -> Result<(Outcome, Vec<PathBuf>), TestError> {
    let trial = Trial::new(case, loader)?;
    let (variants, notes) = trial.variants(case, seed);
    let mut outcome = Outcome {
        runs: variants.len(),
        rows: trial.inputs.rows(),
        compared: trial.sinks.len(),
        notes,
        failures: Vec::new(),
    };
    let mut first: Option<Expectations> = None;
    for &variant in &variants {
        let results = match trial.run(variant)? {
            Ok(results) => results,
            Err(error) => {
                outcome.failures.push(CaseFailure {
                    variant,
                    kind: CaseFailureKind::Run(error),
                    dead_letters: Vec::new(),
                });
                break;
            }
        };
        match &first {
            None => {
                first = Some(Expectations::of(
                    &trial.tables(),
                    &results.rows,
                    &results.dead_letters,
                )?);
            }
            Some(first) => outcome
                .failures
                .extend(trial.compare_run(variant, &results, first)),
        }
    }
    let written = match first {
        Some(first) if outcome.failures.is_empty() => first.write(case)?,
        _ => Vec::new(),
    };
    Ok((outcome, written))
}

impl<'a> Trial<'a> {
    fn new(case: &Case, loader: &'a dyn Loader) -> Result<Self, TestError> {
        let config = Config::read_without_secrets(&case.pipeline).map_err(TestError::Pipeline)?;
        let folder = case.pipeline.parent().unwrap_or(Path::new("")).to_owned();
        let loader = CachingLoader {
            inner: loader,
            loaded: Mutex::default(),
        };
        let plan = planner::build_without_inputs(&config, &folder, &loader)
            .map_err(TestError::Pipeline)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|cause| TestError::Internal(cause.to_string()))?;
        let inputs = runtime.block_on(Inputs::read(case, &plan))?;
        let is_ordered = depends_on_order(&plan);
        let nodes = || plan.nodes.iter().zip(&is_ordered);
        let mut trial = Trial {
            sinks: nodes()
                .zip(plan.tables_read())
                .filter_map(|((node, &is_ordered), table)| {
                    let NodeKind::Sink(sink) = &node.kind else {
                        return None;
                    };
                    let mut schema = node.schema().clone();
                    let change = match sink.tells_changes {
                        true => Arc::make_mut(&mut schema).fields.pop(),
                        false => None,
                    };
                    Some(SinkUnderTest {
                        name: node.name.clone(),
                        schema,
                        is_ordered,
                        table: table.map(ResultTable),
                        change: change.map(|field| field.name),
                    })
                })
                .collect(),
            ordered: nodes()
                .filter(|&(_, &is_ordered)| is_ordered)
                .map(|(node, _)| node.name.clone())
                .collect(),
            config,
            folder,
            loader,
            inputs,
            scratch: tempfile::tempdir().map_err(|cause| TestError::Internal(cause.to_string()))?,
            runtime,
        };
        trial.find_tables()?;
        Ok(trial)
    }

    /// Which sinks' rows can be compared as tables: not those whose results have
    /// several rows each, which cannot be told from corrections.
    fn find_tables(&mut self) -> Result<(), TestError> {
        if self.sinks.iter().all(|sink| sink.table.is_none()) {
            return Ok(());
        }
        let whole = Variant {
            batch_rows: BATCH_ROWS[0],
            parallelism: PARALLELISM[0],
            order: Order::Given,
            crashes: None,
        };
        let topics: Vec<Arc<MemoryTopic>> = self.sinks.iter().map(|_| Arc::default()).collect();
        // If it fails, the case's own runs will say so.
        let _ = self.fill(whole, self.scratch_folder()?.path(), &topics)?;
        for (sink, topic) in self.sinks.iter_mut().zip(&topics) {
            let batches = topic.rows();
            sink.table
                .take_if(|table| batches.iter().any(|batch| table.has_several(batch)));
            if let Some(table) = &sink.table {
                sink.schema = Arc::new(table.without_timing(&sink.schema));
            }
        }
        Ok(())
    }

    fn scratch_folder(&self) -> Result<tempfile::TempDir, TestError> {
        tempfile::tempdir_in(self.scratch.path())
            .map_err(|cause| TestError::Internal(cause.to_string()))
    }

    /// The names and schemas of the sinks.
    fn tables(&self) -> Vec<(&str, &crate::schema::Schema)> {
        let tables = self
            .sinks
            .iter()
            .map(|sink| (sink.name.as_str(), &*sink.schema));
        tables.collect()
    }

    fn variants(&self, case: &Case, seed: u64) -> (Vec<Variant>, Vec<String>) {
        let mut notes = Vec::new();
        let unordered: Vec<&str> = self.names(false);
        let shuffled = case.settings.disorder && !unordered.is_empty();
        if !case.settings.disorder {
            notes.push("rows are never shuffled: test.toml says `disorder = false`".to_owned());
        } else if unordered.len() < self.sinks.len() {
            notes.push(format!(
                "rows are not shuffled for {}: running and count windows, processes and as-of joins \
                 depend on their order",
                self.names(true).join(", ")
            ));
        }
        let mut variants = Vec::new();
        for is_shuffled in [false, true] {
            for batch_rows in BATCH_ROWS {
                for parallelism in PARALLELISM {
                    let order = match is_shuffled {
                        false => Order::Given,
                        true => Order::Shuffled {
                            seed: seed.wrapping_add(variants.len() as u64),
                        },
                    };
                    if !is_shuffled || shuffled {
                        variants.push(Variant {
                            batch_rows,
                            parallelism,
                            order,
                            crashes: None,
                        });
                    }
                }
            }
        }
        let crashing = (seed..).zip(CRASHING_BATCH_ROWS).zip(PARALLELISM);
        variants.extend(crashing.map(|((seed, batch_rows), parallelism)| Variant {
            batch_rows,
            parallelism,
            order: Order::Given,
            crashes: Some(seed),
        }));
        (variants, notes)
    }

    fn names(&self, is_ordered: bool) -> Vec<&str> {
        let sinks = self
            .sinks
            .iter()
            .filter(|sink| sink.is_ordered == is_ordered);
        sinks.map(|sink| sink.name.as_str()).collect()
    }

    /// The outer error is the test's, the inner one the pipeline's.
    fn run(&self, variant: Variant) -> Result<Result<RunOutput, RunError>, TestError> {
        let folder = self.scratch_folder()?;
        let topics: Vec<Arc<MemoryTopic>> = self.sinks.iter().map(|_| Arc::default()).collect();
        if let Err(error) = self.fill(variant, folder.path(), &topics)? {
            return Ok(Err(error));
        }
        let rows = topics.iter().zip(&self.sinks).map(|(topic, sink)| {
            let rows = rendered(topic)?;
            Ok::<_, TestError>(match (&sink.table, &sink.change) {
                (Some(table), _) => table.left_of(rows),
                (None, Some(change)) => standing(rows, change),
                (None, None) => rows,
            })
        });
        let dead_letters = case::json_lines(&folder.path().join(DEAD_LETTERS_FILE))?;
        Ok(Ok(RunOutput {
            rows: rows.collect::<Result<_, _>>()?,
            dead_letters: dead_letters.unwrap_or_default(),
        }))
    }

    /// Runs the pipeline into these topics, one for each sink.
    fn fill(
        &self,
        variant: Variant,
        folder: &Path,
        topics: &[Arc<MemoryTopic>],
    ) -> Result<Result<(), RunError>, TestError> {
        if let Some(seed) = variant.crashes {
            return self.run_with_crashes(variant, seed, folder, topics);
        }
        let plan = self.plan(variant, folder, topics)?;
        let job = Job::new(plan, Arc::new(ManualClock::default()));
        let ended = self.runtime.block_on(job.run());
        Ok(ended.and_then(|summary| match summary.imbalances.first() {
            Some(imbalance) => Err(RunError::Internal(imbalance.to_string())),
            None => Ok(()),
        }))
    }

    /// Kills the run after a number of steps and restores it, several times.
    fn run_with_crashes(
        &self,
        variant: Variant,
        seed: u64,
        folder: &Path,
        topics: &[Arc<MemoryTopic>],
    ) -> Result<Result<(), RunError>, TestError> {
        let transaction = Arc::new(MemoryTransaction::new(topics.to_vec()));
        let storage = Arc::new(MemoryStorage::new());
        let mut simulation = Simulation::new(seed);
        let mut random = fastrand::Rng::with_seed(seed);
        for crash in 0..=CRASHES {
            let round = Variant {
                parallelism: random.usize(1..=variant.parallelism),
                ..variant
            };
            let plan = self.plan(round, folder, topics)?;
            let durable = Durable::new(storage.clone()).committing(transaction.clone());
            let job = Job::new(plan, Arc::new(ManualClock::default())).keeping(durable);
            let steps = (crash < CRASHES).then(|| 1 << random.u32(4..12));
            match simulation.run(job, steps) {
                Ended::Killed => {}
                Ended::Done => return Ok(Ok(())),
                Ended::Failed(error) => return Ok(Err(error)),
            }
        }
        Ok(Err(RunError::Internal("a run has no end".to_owned())))
    }

    /// The pipeline with the case's files as its sources and topics in memory
    /// as its sinks.
    fn plan(
        &self,
        variant: Variant,
        folder: &Path,
        topics: &[Arc<MemoryTopic>],
    ) -> Result<Plan, TestError> {
        let mut plan = planner::build_without_inputs(&self.config, &self.folder, &self.loader)
            .map_err(TestError::Pipeline)?;
        plan.batch_rows = variant.batch_rows;
        plan.parallelism = variant.parallelism;
        plan.state = None;
        plan.dead_letters = Some(folder.join(DEAD_LETTERS_FILE));
        self.inputs.write_to(&mut plan, variant.order, folder)?;
        let mut topics = topics.iter();
        for node in &mut plan.nodes {
            match &mut node.kind {
                NodeKind::Sink(sink) => {
                    // There is one topic for each sink, in the same order.
                    if let Some(topic) = topics.next() {
                        sink.connector = Box::new(MemorySink::new(topic.clone()));
                    }
                }
                // No time passes. A running aggregate emits its results at the end.
                NodeKind::Aggregate(aggregate) if aggregate.window != Window::Running => {
                    aggregate.early_every_ms = None;
                }
                NodeKind::Source(_)
                | NodeKind::Transform(_)
                | NodeKind::Aggregate(_)
                | NodeKind::Process(_)
                | NodeKind::Join(_) => {}
            }
        }
        Ok(plan)
    }

    fn compare_run(
        &self,
        variant: Variant,
        results: &RunOutput,
        expectations: &Expectations,
    ) -> Vec<CaseFailure> {
        let is_shuffled = variant.order != Order::Given;
        let mut kinds = Vec::new();
        for (sink, rows) in self.sinks.iter().zip(&results.rows) {
            let Some(expected) = expectations.rows.get(&sink.name) else {
                continue;
            };
            if is_shuffled && sink.is_ordered {
                continue;
            }
            let difference = match ComparableRows::parse(&sink.schema, rows) {
                Ok(table) => expected.compare(&table),
                Err((_, message)) => Difference::unreadable(message),
            };
            if !difference.is_empty() {
                let sink = sink.name.clone();
                kinds.push(CaseFailureKind::Rows { sink, difference });
            }
        }
        if let Some(expected) = &expectations.dead_letters {
            // Which rows a node refuses may depend on the order, too.
            let ignored: &[String] = if is_shuffled { &self.ordered } else { &[] };
            let difference = compare::dead_letters(expected, &results.dead_letters, ignored);
            if !difference.is_empty() {
                kinds.push(CaseFailureKind::DeadLetters(difference));
            }
        }
        let dead_letters: Vec<String> = results.dead_letters.iter().map(one_line).collect();
        kinds
            .into_iter()
            .map(|kind| CaseFailure {
                variant,
                kind,
                dead_letters: dead_letters.clone(),
            })
            .collect()
    }
}

fn rendered(topic: &MemoryTopic) -> Result<Vec<Map<String, Value>>, TestError> {
    let batches = topic.rows();
    let rows = batches
        .iter()
        .flat_map(|batch| (0..batch.rows()).map(|row| render_exact_row(batch, row)));
    rows.map(|text| {
        serde_json::from_str(&text)
            .map_err(|cause| TestError::Internal(format!("a row is not JSON, {cause}: {text}")))
    })
    .collect()
}

/// Which nodes' results depend on the order of rows within the bound.
fn depends_on_order(plan: &Plan) -> Vec<bool> {
    let mut sees: Vec<bool> = Vec::with_capacity(plan.nodes.len());
    for node in &plan.nodes {
        let itself = match &node.kind {
            NodeKind::Aggregate(aggregate) => aggregate.depends_on_order(),
            NodeKind::Process(process) => process.order == RowOrder::Arrival,
            NodeKind::Join(join) => join.rule.matching.depends_on_order(),
            NodeKind::Source(_) | NodeKind::Transform(_) | NodeKind::Sink(_) => false,
        };
        sees.push(itself || node.edges().any(|edge| sees[edge.from]));
    }
    sees
}

/// Loads each plugin once for all runs of a case.
struct CachingLoader<'a> {
    inner: &'a dyn Loader,
    loaded: Mutex<HashMap<PathBuf, Arc<dyn Module>>>,
}

impl Loader for CachingLoader<'_> {
    fn load(&self, path: &Path) -> Result<Arc<dyn Module>, LoadError> {
        let Ok(mut loaded) = self.loaded.lock() else {
            return self.inner.load(path);
        };
        if let Some(module) = loaded.get(path) {
            return Ok(module.clone());
        }
        let module = self.inner.load(path)?;
        loaded.insert(path.to_owned(), module.clone());
        Ok(module)
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "batch_rows = {}, parallelism = {}, {}",
            self.batch_rows, self.parallelism, self.order
        )?;
        match self.crashes {
            Some(seed) => write!(f, ", killed {CRASHES} times (seed {seed})"),
            None => Ok(()),
        }
    }
}

impl TestError {
    fn io(path: &Path, cause: &io::Error) -> Self {
        TestError::File {
            path: path.to_owned(),
            message: cause.to_string(),
        }
    }
}

#[cfg(test)]
mod tests;
