//! Tries a plugin that is to take over on recent rows, beside the one that runs, and tells
//! where they differ. Nothing comes of what they put out here.
//!
//! Keyed operators start without states here, and tell of each key what becomes of its
//! recent rows alone.

use std::collections::HashMap;
use std::ops::Range;
use std::time::{Duration, Instant};

use arrow_array::{Array, ArrayRef};
use arrow_schema::ArrowError;
use arrow_select::concat::concat;
use serde::{Deserialize, Serialize};
use tracing::subscriber::{NoSubscriber, with_default};
use utoipa::ToSchema;

use super::recent::Recent;
use crate::batch::{Batch, gather, pick};
use crate::element::END_OF_TIME;
use crate::json::{render_exact_columns, render_exact_row};
use crate::logic::{
    Columns, Failure, FailureKind, GroupTimers, Grouped, Instance, Keyed, OperatorInfo, Output,
    Reject, Rows, States, Step, Steps,
};
use crate::plan::{AggregatePlan, Node, NodeKind, OperatorPlan, Plan, PortPlan, ProcessPlan};
use crate::schema::Schema;
use crate::stop::Stop;
use crate::text::cut;

/// How many of the rows or keys that differ are shown.
const SHOWN_MAX: usize = 3;
/// More of what one row becomes is not shown.
const LINES_MAX: usize = 5;
const LINE_CHARS_MAX: usize = 500;
/// What one plugin may take for one operator, besides the end of its last call.
const BUDGET: Duration = Duration::from_millis(300);
/// After so many failures, the rest is not tried.
const FAILURES_MAX: usize = 3;

/// Where the plugins of an operator differ on its recent rows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Comparison {
    /// What each was tried on: `rows`, or the recent rows of `keys`.
    pub of: Tried,
    /// How many of these both were tried on.
    pub tried: u64,
    /// Of how many of them something else becomes.
    pub differing: u64,
    /// The first of these.
    pub first: Vec<Difference>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Tried {
    Rows,
    Keys,
}

/// What becomes of a row, or of the recent rows of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Difference {
    /// The row or the key as JSON.
    pub input: String,
    /// The rows that come of it, as JSON, or why there is none.
    pub then: Vec<String>,
    pub now: Vec<String>,
}

/// Tries the plugins that differ on the recent rows of `then`, which runs. By operator; an
/// operator that got no rows, or does not get the same rows from now on, has none.
pub fn compare(then: &Plan, now: &Plan, recent: &Recent) -> HashMap<String, Comparison> {
    // What they log here would be taken for what they log in the pipeline.
    with_default(NoSubscriber::default(), || {
        let nodes = now.nodes.iter().filter_map(|node| {
            let before = then.nodes.iter().find(|then| then.name == node.name)?;
            let ours = node.kind.operator()?;
            let is_other = ours.is_plugins() && !ours.calls_the_same(before.kind.operator()?);
            if !is_other || !reads_the_same((then, before), (now, node)) {
                return None;
            }
            Some((node.name.clone(), compare_node(before, node, recent)?))
        });
        nodes.collect()
    })
}

/// Whether both nodes get the same rows.
fn reads_the_same((then, before): (&Plan, &Node), (now, node): (&Plan, &Node)) -> bool {
    let read = |plan: &Plan, node: &Node| {
        let edges = node.inputs.iter().enumerate().flat_map(|(port, input)| {
            let edges = input.edges.iter();
            edges.map(move |edge| {
                let output = plan.nodes[edge.from].outputs[edge.output].schema.clone();
                (port, plan.output_name(edge), output)
            })
        });
        edges.collect::<Vec<_>>()
    };
    read(then, before) == read(now, node)
}

fn compare_node(then: &Node, now: &Node, recent: &Recent) -> Option<Comparison> {
    let mut rows = Vec::new();
    for (port, input) in then.inputs.iter().enumerate() {
        for (edge, from) in input.edges.iter().enumerate() {
            let batches = recent.rows(from).into_iter();
            rows.extend(batches.map(|batch| ((port, edge), batch)));
        }
    }
    // Rows that take others back need those.
    rows.retain(|(_, batch): &(_, Batch)| batch.rows() > 0 && batch.taken_back.is_none());
    let (of, then) = outcomes(then, &rows)?;
    let (_, now) = outcomes(now, &rows)?;
    let both = then.into_iter().zip(now);
    // With another key, they are others.
    let both = both.filter(|((then, _), (now, _))| then == now);
    let both = both.filter_map(|((input, then), (_, now))| Some((input, then?, now?)));
    let mut comparison = Comparison {
        of,
        tried: 0,
        differing: 0,
        first: Vec::new(),
    };
    for (input, then, now) in both {
        comparison.tried += 1;
        if then == now {
            continue;
        }
        comparison.differing += 1;
        if comparison.first.len() < SHOWN_MAX {
            comparison.first.push(Difference {
                input: line_of(&input),
                then: shown(&then),
                now: shown(&now),
            });
        }
    }
    (comparison.tried > 0).then_some(comparison)
}

fn shown(lines: &[String]) -> Vec<String> {
    let mut shown: Vec<String> = lines
        .iter()
        .take(LINES_MAX)
        .map(|line| line_of(line))
        .collect();
    if lines.len() > LINES_MAX {
        shown.push(format!("and {} more", lines.len() - LINES_MAX));
    }
    shown
}

fn line_of(text: &str) -> String {
    cut(text, LINE_CHARS_MAX).into_owned()
}

/// Rows with the port and the edge that they have come by.
type Arrived = [((usize, usize), Batch)];

/// Rows or keys, and what becomes of each: `None` if it was not tried.
type Outcomes = Vec<(String, Option<Vec<String>>)>;

/// What a node's plugin makes of rows; `None` if it cannot be tried on them.
fn outcomes(node: &Node, rows: &Arrived) -> Option<(Tried, Outcomes)> {
    let operator = node.kind.operator()?;
    let mut caller = Caller::new(operator);
    let tried = match &node.kind {
        NodeKind::Transform(plan) => {
            let of = |((_, edge), batch): &((usize, usize), Batch)| {
                transformed(&mut caller, batch, &plan.columns[*edge])
            };
            (Tried::Rows, rows.iter().flat_map(of).collect())
        }
        NodeKind::Aggregate(plan) => {
            let port = PortPlan {
                columns: plan.columns.clone(),
                key: plan.key.clone(),
                late_output: None,
            };
            let keyed = KeyedRows::new(&[port], &plan.key_schema, &plan.key_read, rows).ok()??;
            (Tried::Keys, keyed.each(&mut caller, plan, aggregated))
        }
        NodeKind::Process(plan) => {
            let keyed = KeyedRows::new(&plan.ports, &plan.key_schema, &plan.key_read, rows);
            (Tried::Keys, keyed.ok()??.each(&mut caller, plan, processed))
        }
        NodeKind::Source(_) | NodeKind::Join(_) | NodeKind::Sink(_) => return None,
    };
    Some(tried)
}

/// Calls a plugin within the budget.
struct Caller<'a> {
    operator: &'a OperatorPlan,
    /// Absent before the first call and after a failure.
    instance: Option<Instance>,
    began: Instant,
    failures: usize,
    stop: Stop,
}

impl<'a> Caller<'a> {
    fn new(operator: &'a OperatorPlan) -> Self {
        let stop = Stop::default();
        let asked = stop.clone();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            // It ends a call that does not end by itself.
            runtime.spawn(async move {
                tokio::time::sleep(BUDGET).await;
                asked.ask();
            });
        }
        Caller {
            operator,
            instance: None,
            began: Instant::now(),
            failures: 0,
            stop,
        }
    }

    fn info(&self) -> &'a OperatorInfo {
        self.operator.factory.info()
    }

    fn is_over(&self) -> bool {
        self.failures >= FAILURES_MAX || self.began.elapsed() > BUDGET
    }

    fn call<T>(
        &mut self,
        call: impl FnOnce(&mut Instance) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let mut instance = match self.instance.take() {
            Some(instance) => instance,
            None => {
                let mut opened = self.operator.factory.instance()?;
                match &mut opened {
                    Instance::Transform(instance) => instance.obey(&self.stop),
                    Instance::Aggregate(instance) => instance.obey(&self.stop),
                    Instance::Process(instance) => instance.obey(&self.stop),
                }
                opened
            }
        };
        let answer = call(&mut instance)?;
        self.instance = Some(instance);
        Ok(answer)
    }

    /// What becomes of so many rows or keys: of all by one call, or else of each by its own.
    fn each(
        &mut self,
        count: usize,
        mut call: impl FnMut(&mut Self, Range<usize>) -> Result<Texts, Failure>,
    ) -> Vec<Option<Vec<String>>> {
        if self.is_over() {
            return vec![None; count];
        }
        if count > 1
            && let Ok(all) = call(self, 0..count)
        {
            return all.into_iter().map(Some).collect();
        }
        let one = |at: usize| {
            if self.is_over() {
                return None;
            }
            match call(self, at..at + 1) {
                Ok(mut outcome) => outcome.pop(),
                Err(failure) => {
                    self.failures += 1;
                    Some(vec![format!("fails: {failure}")])
                }
            }
        };
        (0..count).map(one).collect()
    }
}

fn wrong_kind() -> Failure {
    Failure::new(FailureKind::Open, "it is of another kind")
}

fn rejected(reject: &Reject) -> String {
    format!("rejected: {}", reject.reason)
}

/// Adds rows to what becomes of their parents.
fn add(outcomes: &mut [Vec<String>], of: impl Fn(u32) -> usize, rows: &Rows, schema: &Schema) {
    for (row, &parent) in rows.parents.iter().enumerate() {
        let line = render_exact_columns(schema, &rows.columns, row);
        if let Some(outcome) = outcomes.get_mut(of(parent)) {
            outcome.push(line);
        }
    }
}

fn transformed(caller: &mut Caller<'_>, batch: &Batch, columns: &[usize]) -> Outcomes {
    let info = caller.info();
    let found = caller.each(batch.rows(), |caller, part| {
        let part = batch.slice(part.start, part.len());
        let input = pick(&part, columns);
        let answer = caller.call(|instance| {
            let Instance::Transform(transform) = instance else {
                return Err(wrong_kind());
            };
            transform.transform(Columns {
                rows: part.rows(),
                columns: &input,
            })
        })?;
        let mut outcomes = vec![Vec::new(); part.rows()];
        match &answer.output {
            Output::Selection(kept) => {
                for &row in kept {
                    outcomes[row as usize].push(render_exact_row(&part, row as usize));
                }
            }
            Output::Rows(rows) => {
                let schema = &info.outputs[0].schema;
                add(&mut outcomes, |parent| parent as usize, rows, schema);
            }
        }
        for reject in &answer.rejects {
            outcomes[reject.row as usize].push(rejected(reject));
        }
        Ok(outcomes)
    });
    let inputs = (0..batch.rows()).map(|row| render_exact_row(batch, row));
    inputs.zip(found).collect()
}

/// The recent rows of a keyed operator, by key.
struct KeyedRows {
    /// Of each port: its columns.
    inputs: Vec<Vec<ArrayRef>>,
    /// Where each row is: its port, its place there, and its time. In order of time.
    rows: Vec<KeyedRow>,
    /// Of each group: its key as JSON, and what the operator reads of it.
    labels: Vec<String>,
    keys: Vec<ArrayRef>,
}

#[derive(Clone, Copy)]
struct KeyedRow {
    port: usize,
    place: usize,
    time_ms: i64,
    group: usize,
}

impl KeyedRows {
    /// `None` if there are none, or an input has none: nothing tells its columns.
    fn new(
        ports: &[PortPlan],
        key_schema: &Schema,
        key_read: &[usize],
        arrived: &Arrived,
    ) -> Result<Option<KeyedRows>, ArrowError> {
        let mut inputs = Vec::new();
        let mut keys = Vec::new();
        let (mut rows, mut labels, mut firsts) = (Vec::new(), Vec::new(), Vec::new());
        let mut groups: HashMap<String, usize> = HashMap::new();
        let mut key_rows = 0;
        for (port, plan) in ports.iter().enumerate() {
            let of_port = arrived.iter().filter(|((of, _), _)| *of == port);
            let (mut columns, mut place) = (Vec::new(), 0);
            for ((_, edge), batch) in of_port {
                columns.push(pick(batch, &plan.columns[*edge]));
                let key = pick(batch, &plan.key[*edge]);
                for row in 0..batch.rows() {
                    let label = render_exact_columns(key_schema, &key, row);
                    let group = *groups.entry(label).or_insert_with_key(|label| {
                        labels.push(label.clone());
                        firsts.push((key_rows + row) as u32);
                        labels.len() - 1
                    });
                    rows.push(KeyedRow {
                        port,
                        place: place + row,
                        time_ms: batch.times[row],
                        group,
                    });
                }
                place += batch.rows();
                key_rows += batch.rows();
                keys.push(key_read.iter().map(|&at| key[at].clone()).collect());
            }
            if columns.is_empty() {
                return Ok(None);
            }
            inputs.push(joined(&columns)?);
        }
        rows.sort_by_key(|row| row.time_ms);
        let keys: Vec<ArrayRef> = joined(&keys)?;
        Ok((!rows.is_empty()).then(|| KeyedRows {
            inputs,
            rows,
            labels,
            keys: gather(&keys, &firsts),
        }))
    }

    /// What becomes of each key, by calls with some of them.
    fn each<P>(
        &self,
        caller: &mut Caller<'_>,
        plan: &P,
        call: fn(&mut Caller<'_>, &P, &Part<'_>) -> Result<Texts, Failure>,
    ) -> Outcomes {
        let found = caller.each(self.labels.len(), |caller, groups| {
            let rows = self.rows.iter().filter(|row| groups.contains(&row.group));
            let part = Part {
                of: self,
                keys: self
                    .keys
                    .iter()
                    .map(|key| key.slice(groups.start, groups.len()))
                    .collect(),
                rows: rows
                    .map(|row| KeyedRow {
                        group: row.group - groups.start,
                        ..*row
                    })
                    .collect(),
                groups: groups.len(),
            };
            call(caller, plan, &part)
        });
        self.labels.iter().cloned().zip(found).collect()
    }
}

/// What each row or key becomes, as texts.
type Texts = Vec<Vec<String>>;

/// Some of the keys, with groups from 0 on.
struct Part<'a> {
    of: &'a KeyedRows,
    rows: Vec<KeyedRow>,
    keys: Vec<ArrayRef>,
    groups: usize,
}

impl Part<'_> {
    /// The columns of a port, of the rows that this part has, in order of time.
    fn input(&self, port: usize) -> (usize, Vec<ArrayRef>) {
        let rows = self.rows.iter().filter(|row| row.port == port);
        let places: Vec<u32> = rows.map(|row| row.place as u32).collect();
        (places.len(), gather(&self.of.inputs[port], &places))
    }

    fn groups_of_rows(&self) -> Vec<u32> {
        self.rows.iter().map(|row| row.group as u32).collect()
    }

    fn keys(&self) -> Columns<'_> {
        Columns {
            rows: self.groups,
            columns: &self.keys,
        }
    }

    fn times(&self) -> Range<i64> {
        let times = || self.rows.iter().map(|row| row.time_ms);
        let end = times().max().unwrap_or_default();
        times().min().unwrap_or_default()..end.saturating_add(1)
    }
}

fn joined(parts: &[Vec<ArrayRef>]) -> Result<Vec<ArrayRef>, ArrowError> {
    let columns = parts.first().map_or(0, Vec::len);
    let column = |at: usize| {
        let arrays: Vec<&dyn Array> = parts.iter().map(|part| part[at].as_ref()).collect();
        concat(&arrays)
    };
    (0..columns).map(column).collect()
}

/// The result of each key, of one window with all its rows.
fn aggregated(
    caller: &mut Caller<'_>,
    _: &AggregatePlan,
    part: &Part<'_>,
) -> Result<Texts, Failure> {
    let info = caller.info();
    let (rows, columns) = part.input(0);
    let groups = part.groups_of_rows();
    let window = part.times();
    let (starts, ends) = (
        vec![window.start; part.groups],
        vec![window.end; part.groups],
    );
    let none = info.state.no_rows();
    let (folded, results) = caller.call(|instance| {
        let Instance::Aggregate(aggregate) = instance else {
            return Err(wrong_kind());
        };
        let input = Columns {
            rows,
            columns: &columns,
        };
        let states = States {
            existing: Columns {
                rows: 0,
                columns: &none,
            },
            groups: part.groups,
        };
        let folded = aggregate.accumulate(Grouped::added(input, &groups), states)?;
        let states = Columns {
            rows: part.groups,
            columns: &folded.states,
        };
        let results = aggregate.finish(states, part.keys(), &starts, &ends)?;
        Ok((folded, results))
    })?;
    let mut outcomes = vec![Vec::new(); part.groups];
    let schema = &info.outputs[0].schema;
    add(&mut outcomes, |group| group as usize, &results, schema);
    for reject in &folded.rejects {
        outcomes[groups[reject.row as usize] as usize].push(rejected(reject));
    }
    Ok(outcomes)
}

/// What a process puts out for the rows of each key, and for its timers when they have ended.
fn processed(
    caller: &mut Caller<'_>,
    plan: &ProcessPlan,
    part: &Part<'_>,
) -> Result<Texts, Failure> {
    let info = caller.info();
    let ports = plan.ports.len();
    let inputs: Vec<(usize, Vec<ArrayRef>)> = (0..ports).map(|port| part.input(port)).collect();
    let mut steps = Steps {
        now_ms: part.times().end,
        ..Steps::default()
    };
    let mut push = |step: Step, group: usize, time_ms: i64, watermark_ms: i64| {
        steps.inputs.push(step.code(ports));
        steps.groups.push(group as u32);
        steps.times.push(time_ms);
        steps.watermarks.push(watermark_ms);
    };
    for row in &part.rows {
        // In order of time: nothing is late.
        push(
            Step::Row(row.port),
            row.group,
            row.time_ms,
            row.time_ms.saturating_sub(1),
        );
    }
    for group in 0..part.groups {
        push(Step::Due, group, part.times().end, END_OF_TIME);
    }
    let none = info.state.no_rows();
    let timers = GroupTimers::default();
    let answer = caller.call(|instance| {
        let Instance::Process(process) = instance else {
            return Err(wrong_kind());
        };
        let inputs = inputs.iter().map(|(rows, columns)| Columns {
            rows: *rows,
            columns,
        });
        let keyed = Keyed {
            groups: part.groups,
            keys: part.keys(),
            states: Columns {
                rows: 0,
                columns: &none,
            },
            event_timers: &timers,
            processing_timers: &timers,
        };
        process.process(&Vec::from_iter(inputs), &steps, keyed)
    })?;
    let group_of = |step: u32| steps.groups[step as usize] as usize;
    let mut outcomes = vec![Vec::new(); part.groups];
    for (output, port) in answer.outputs.iter().zip(&info.outputs) {
        add(&mut outcomes, group_of, &output.rows, &port.schema);
    }
    for reject in &answer.rejects {
        outcomes[group_of(reject.row)].push(rejected(reject));
    }
    for timer in &answer.rejected_timers {
        let line = format!("timer {} rejected: {}", timer.name, timer.reason);
        outcomes[group_of(timer.step)].push(line);
    }
    Ok(outcomes)
}
