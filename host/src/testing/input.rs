//! The files that replace a pipeline's sources: reads them row by row with the
//! event times that the source itself finds, or an operator behind it, and writes them
//! for each run in another order.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::case::{Case, check_names};
use super::disorder::disorder;
use super::error::TestError;
use crate::batch::Batch;
use crate::budget::Budget;
use crate::clock::ManualClock;
use crate::connector::file::source::FileSource;
use crate::dead_letter::OnError;
use crate::element::{Element, Inlet};
use crate::operator::transform::TransformOperator;
use crate::operator::{Operator, Outbox};
use crate::placement::Placement;
use crate::plan::{EventTime, Node, NodeKind, OperatorPlan, Plan, SourcePlan, TransformPlan};
use crate::source::SourceContext;
use crate::source::pace::Pace;
use crate::source::reader::SourceReader;
use crate::source::watermark::SharedWatermarks;
use crate::stop::Stop;

/// How many rows are read at a time; nothing depends on it.
const READ_ROWS: usize = 4_096;

/// The order of a run's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Given,
    Shuffled { seed: u64 },
}

/// The rows of every source.
pub(super) struct Inputs {
    sources: BTreeMap<String, Vec<Partition>>,
}

/// A file, split into rows.
struct Partition {
    file_name: String,
    /// What precedes the first row, such as the header of CSV.
    head: Vec<u8>,
    rows: Vec<InputRow>,
}

struct InputRow {
    /// The text of the row, with its line end.
    text: Vec<u8>,
    /// None for a row that could not be decoded or that an operator drops, several for
    /// one of which it makes rows with several times.
    times_ms: Vec<i64>,
}

impl Inputs {
    /// Reads a case's `input` folder, which must have files for every source.
    pub(super) async fn read(case: &Case, plan: &Plan) -> Result<Self, TestError> {
        let folder = case.folder.join("input");
        check_names(
            &folder,
            "source",
            sources(plan).map(|(node, _)| node.name.as_str()),
        )?;
        let mut inputs = BTreeMap::new();
        for (node, source) in sources(plan) {
            let mut partitions = Vec::new();
            for path in files(&folder, &node.name)? {
                partitions.push(Partition::read(&path, plan, node, source).await?);
            }
            inputs.insert(node.name.clone(), partitions);
        }
        Ok(Inputs { sources: inputs })
    }

    pub(super) fn rows(&self) -> usize {
        self.sources
            .values()
            .flatten()
            .map(|partition| partition.rows.len())
            .sum()
    }

    /// Writes the rows to files in `folder`, and makes the plan's sources read
    /// them.
    pub(super) fn write_to(
        &self,
        plan: &mut Plan,
        order: Order,
        folder: &Path,
    ) -> Result<(), TestError> {
        for node in &mut plan.nodes {
            let NodeKind::Source(source) = &mut node.kind else {
                continue;
            };
            let folder = folder.join(&node.name);
            fs::create_dir_all(&folder).map_err(|cause| TestError::io(&folder, &cause))?;
            let mut paths = Vec::new();
            for partition in self.sources.get(&node.name).into_iter().flatten() {
                let path = folder.join(&partition.file_name);
                fs::write(&path, partition.text(order, source.out_of_orderness_ms))
                    .map_err(|cause| TestError::io(&path, &cause))?;
                paths.push(path);
            }
            let format = source.connector.row_format();
            source.connector = Box::new(FileSource::new(paths, PathBuf::new(), format, None));
            source.idle_after_ms = None;
        }
        Ok(())
    }
}

impl Partition {
    async fn read(
        path: &Path,
        plan: &Plan,
        node: &Node,
        source: &SourcePlan,
    ) -> Result<Self, TestError> {
        let bytes = fs::read(path).map_err(|cause| TestError::io(path, &cause))?;
        let starts = starts(path, plan, node, source).await?;
        let first = starts.keys().next().copied();
        let ends: Vec<usize> = starts
            .keys()
            .skip(1)
            .copied()
            .chain([bytes.len()])
            .collect();
        let piece = |start: usize, end: usize| bytes.get(start..end).unwrap_or_default().to_vec();
        let rows = starts.into_iter().zip(ends);
        let rows = rows.map(|((start, times_ms), end)| {
            let mut text = piece(start, end);
            if !text.ends_with(b"\n") {
                text.push(b'\n');
            }
            InputRow { text, times_ms }
        });
        Ok(Partition {
            file_name: path
                .file_name()
                .map_or_else(String::new, |name| name.to_string_lossy().into_owned()),
            rows: rows.collect(),
            head: piece(0, first.unwrap_or(bytes.len())),
        })
    }

    fn text(&self, order: Order, out_of_orderness_ms: i64) -> Vec<u8> {
        let order: Vec<usize> = match order {
            Order::Given => (0..self.rows.len()).collect(),
            Order::Shuffled { seed } => {
                let times = self.rows.iter().map(|row| row.times_ms.clone());
                let times: Vec<Vec<i64>> = times.collect();
                disorder(&times, out_of_orderness_ms, seed)
            }
        };
        let mut text = self.head.clone();
        for row in order {
            text.extend_from_slice(&self.rows[row].text);
        }
        text
    }
}

/// The start of each row of a file, and the event times of what the source, or the
/// operator that has its event times, makes of it.
async fn starts(
    path: &Path,
    plan: &Plan,
    node: &Node,
    source: &SourcePlan,
) -> Result<BTreeMap<usize, Vec<i64>>, TestError> {
    let of_file = SourcePlan {
        connector: Box::new(FileSource::new(
            vec![path.to_owned()],
            PathBuf::new(),
            source.connector.row_format(),
            None,
        )),
        event_time: source.event_time.clone(),
        out_of_orderness_ms: source.out_of_orderness_ms,
        ahead_ms_max: source.ahead_ms_max,
        idle_after_ms: None,
        bootstraps: false,
        tells_each_watermark: false,
        on_error: OnError::DeadLetter,
        checksum: None,
    };
    let clock = Arc::new(ManualClock::default());
    let context = SourceContext {
        node: node.name.as_str().into(),
        schema: node.schema().clone(),
        placement: Placement::on_one_host(0, 1),
        batch_rows: READ_ROWS,
        budget: Arc::new(Budget::new(usize::MAX)),
        pace: Arc::new(Pace::unbound()),
        decode_workers: 1,
        clock: clock.clone(),
        is_transactional: false,
        bootstraps: false,
        is_checkpointed: false,
        are_checkpoints_kept: false,
        restored: Arc::new([]),
        left_by_others: Arc::new([]),
        stop: Stop::default(),
    };
    let mut reader = SourceReader::open(&of_file, context).await?;
    let mut operators = operators(plan, source, &reader.watermarks(), &clock)?;
    let mut starts = BTreeMap::new();
    while let Some(pulled) = reader.next().await? {
        for element in pulled.elements {
            let Element::Batch(batch) = element else {
                continue;
            };
            starts.extend(times(&batch).map(|(start, _)| (start, Vec::new())));
            let mut made = vec![batch];
            for operator in &mut operators {
                let mut out = Outbox::default();
                for batch in made {
                    operator.rows(Inlet::default(), batch, &mut out)?;
                }
                made = out.into_batches().map(|(_, batch)| batch).collect();
            }
            for (start, time_ms) in made.iter().flat_map(times) {
                if let Entry::Occupied(mut row) = starts.entry(start)
                    && !row.get().contains(&time_ms)
                {
                    row.get_mut().push(time_ms);
                }
            }
        }
        let bad = pulled
            .dead_letters
            .iter()
            .filter_map(|letter| letter.offset);
        starts.extend(bad.map(|offset| (place(offset), Vec::new())));
    }
    Ok(starts)
}

/// The operators between a source and its event times; none if it has them itself.
fn operators(
    plan: &Plan,
    source: &SourcePlan,
    watermarks: &SharedWatermarks,
    clock: &Arc<ManualClock>,
) -> Result<Vec<TransformOperator>, TestError> {
    let mut operators = Vec::new();
    let mut next = match source.event_time {
        EventTime::Operator(id) => Some(id),
        EventTime::Field(_) | EventTime::Ingestion | EventTime::Given(_) => None,
    };
    while let Some(id) = next {
        let node = &plan.nodes[id];
        let NodeKind::Transform(transform) = &node.kind else {
            break;
        };
        let lenient = TransformPlan {
            operator: OperatorPlan {
                on_error: OnError::DeadLetter,
                ..transform.operator.clone()
            },
            columns: transform.columns.clone(),
            event_time: transform.event_time.clone(),
        };
        let output = node.schema().clone();
        let mut operator = TransformOperator::new(&node.name, &lenient, output, &Stop::default())?;
        if let Some(time) = &lenient.event_time {
            operator = operator.timing(&node.name, time, watermarks.clone(), clock.clone());
        }
        operators.push(operator);
        next = node.edges().next().map(|edge| edge.from);
    }
    operators.reverse();
    Ok(operators)
}

/// For each row, the start of the source's row that it comes from, and its event time.
fn times(batch: &Batch) -> impl Iterator<Item = (usize, i64)> {
    let origin = batch.origin.as_ref();
    let start = move |row: usize| {
        let origin = origin?;
        let offset = origin.block.offset(origin.row(row));
        Some((place(offset), batch.times[row]))
    };
    (0..batch.rows()).filter_map(start)
}

/// An offset in a file that fits into memory.
fn place(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

fn sources(plan: &Plan) -> impl Iterator<Item = (&Node, &SourcePlan)> {
    plan.nodes.iter().filter_map(|node| match &node.kind {
        NodeKind::Source(source) => Some((node, source)),
        _ => None,
    })
}

/// A source's files: `input/SOURCE.*`, or all in `input/SOURCE/`, in the order
/// of their names.
fn files(folder: &Path, source: &str) -> Result<Vec<PathBuf>, TestError> {
    let inside = folder.join(source);
    let (folder, is_folder) = match inside.is_dir() {
        true => (inside.as_path(), true),
        false => (folder, false),
    };
    let entries = fs::read_dir(folder).map_err(|cause| TestError::io(folder, &cause))?;
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(|cause| TestError::io(folder, &cause))?.path();
        let is_hidden = path
            .file_name()
            .is_none_or(|name| name.to_string_lossy().starts_with('.'));
        let is_named = is_folder || path.file_stem().is_some_and(|stem| stem == source);
        if path.is_file() && is_named && !is_hidden {
            paths.push(path);
        }
    }
    paths.sort();
    if paths.is_empty() {
        return Err(TestError::File {
            path: inside.with_extension("jsonl"),
            message: format!("the rows for source `{source}` are missing"),
        });
    }
    Ok(paths)
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Order::Given => f.write_str("rows as given"),
            Order::Shuffled { seed } => write!(f, "rows shuffled with seed {seed}"),
        }
    }
}
