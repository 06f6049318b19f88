//! Draws a plan for a terminal: each node below the one that feeds it, with the
//! types of the rows in between.

use std::fmt::Write;

use super::order::depends_on_speed;
use super::{
    AggregatePlan, Delivery, Emit, EventTime, InputPort, JoinPlan, LEFT, MAIN_OUTPUT, Matching,
    Node, NodeKind, OperatorPlan, Plan, ProcessPlan, RIGHT, RestartPlan, RowOrder, SIDES,
    SourcePlan, StateBackend, StatePlan, Window,
};
use crate::dead_letter::OnError;
use crate::element::NodeId;
use crate::logic::{Kind, Value};
use crate::quantity::{show_bytes, show_ms};
use crate::schema::Schema;
use crate::sink::SinkConnector;

/// Lists of columns are wrapped at this width; a terminal wraps longer ones.
const WIDTH: usize = 100;

/// The plan as text, for people.
pub fn draw(plan: &Plan) -> String {
    let mut drawing = Drawing {
        plan,
        tasks: plan.tasks(),
        readers: readers(plan),
        drawn: vec![false; plan.nodes.len()],
        text: String::new(),
    };
    drawing.head();
    for (id, node) in plan.nodes.iter().enumerate() {
        if node.inputs.is_empty() {
            drawing.line("");
            drawing.flow(id);
        }
    }
    drawing.text
}

struct Drawing<'a> {
    plan: &'a Plan,
    tasks: Vec<usize>,
    /// Of each node.
    readers: Vec<Vec<Reader<'a>>>,
    drawn: Vec<bool>,
    text: String,
}

/// A node that reads another one, and which output, if not the main one.
type Reader<'a> = (NodeId, Option<&'a str>);

/// A node still to be drawn.
struct Next<'a> {
    id: NodeId,
    /// The output of the node above that it reads, if not the main one.
    output: Option<&'a str>,
    /// Prefixes of its first line, and of the others.
    lead: String,
    margin: String,
}

impl<'a> Drawing<'a> {
    fn line(&mut self, line: &str) {
        self.text.push_str(line.trim_end());
        self.text.push('\n');
    }

    fn head(&mut self) {
        let plan = self.plan;
        let keyed = tasks(plan.parallelism);
        self.line(&format!(
            "{}   {keyed} a keyed operator · batches of at most {} rows",
            plan.name, plan.batch_rows
        ));
        if let Some(path) = &plan.dead_letters {
            self.line(&format!("dead letters go to {}", path.display()));
        }
        if let Some(state) = &plan.state {
            for line in state_lines(state) {
                self.line(&line);
            }
            self.line(&restart_line(plan.restart));
        } else {
            self.line("no checkpoints: each run begins anew, and writes its rows again");
        }
    }

    /// Draws a source and everything that it feeds.
    fn flow(&mut self, source: NodeId) {
        let mut stack = vec![Next {
            id: source,
            output: None,
            lead: String::new(),
            margin: String::new(),
        }];
        while let Some(next) = stack.pop() {
            let readers = self.node(&next);
            let margin = &next.margin;
            if let [(id, None)] = readers[..] {
                self.line(&format!("{margin}▼"));
                stack.push(Next {
                    id,
                    output: None,
                    lead: margin.clone(),
                    margin: margin.clone(),
                });
                continue;
            }
            let count = readers.len();
            let branches = readers.into_iter().enumerate().map(|(i, (id, output))| {
                let is_last = i + 1 == count;
                Next {
                    id,
                    output,
                    lead: format!("{margin}{}", if is_last { "└─▶ " } else { "├─▶ " }),
                    margin: format!("{margin}{}", if is_last { "    " } else { "│   " }),
                }
            });
            let branches: Vec<Next> = branches.collect();
            stack.extend(branches.into_iter().rev());
        }
    }

    /// Draws a node, and returns the nodes below it.
    fn node(&mut self, next: &Next) -> Vec<Reader<'a>> {
        let plan = self.plan;
        let node = &plan.nodes[next.id];
        let rows = next
            .output
            .map_or_else(String::new, |output| format!("{output} rows to "));
        if std::mem::replace(&mut self.drawn[next.id], true) {
            self.line(&format!("{}{rows}{}   as above", next.lead, node.name));
            return Vec::new();
        }
        let readers = std::mem::take(&mut self.readers[next.id]);
        let tasks = tasks(self.tasks[next.id]);
        self.line(&format!(
            "{}{rows}{}   {} · {tasks}",
            next.lead,
            node.name,
            kind(node)
        ));
        let bar = if readers.is_empty() { "    " } else { "│   " };
        for detail in details(plan, node) {
            self.line(&format!("{}{bar}{detail}", next.margin));
        }
        let columns = match &node.kind {
            NodeKind::Sink(_) if next.output.is_none() => return readers,
            NodeKind::Transform(transform)
                if transform.operator.factory.info().kind == Kind::Filter =>
            {
                vec!["the same rows".to_owned()]
            }
            _ => wrapped(
                node.schema(),
                WIDTH.saturating_sub(next.margin.chars().count() + 4),
            ),
        };
        for (i, line) in columns.iter().enumerate() {
            let mark = if i == 0 { ":" } else { " " };
            let bar = bar.trim_end();
            let bar = if bar.is_empty() { " " } else { bar };
            self.line(&format!("{}{bar} {mark} {line}", next.margin));
        }
        readers
    }
}

fn state_lines(state: &StatePlan) -> Vec<String> {
    let memory = show_bytes(state.memory_bytes_max as u64);
    let mut lines = Vec::new();
    let mut remote_url = None;
    match &state.backend {
        StateBackend::Memory => lines.push(format!(
            "state in memory, {memory}: lost when the process ends"
        )),
        StateBackend::RocksDb {
            folder,
            memory_bytes_max,
            remote,
        } => {
            remote_url = remote.as_ref().map(|remote| remote.url.as_str());
            lines.push(format!(
                "state in {}, {memory} of it in memory, {} for RocksDB",
                folder.display(),
                show_bytes(*memory_bytes_max as u64)
            ));
        }
    }
    lines.push(format!(
        "a checkpoint every {}, the last {} kept · {}",
        show_ms(state.interval_ms as i64),
        state.keep,
        match state.delivery {
            Delivery::ExactlyOnce => "exactly once: rows become visible with their checkpoint",
            Delivery::AtLeastOnce => "at least once: rows become visible at once",
        }
    ));
    lines.extend(remote_url.map(|url| format!("checkpoints are copied to {url}")));
    lines
}

fn restart_line(restart: RestartPlan) -> String {
    match restart {
        RestartPlan::Never => "no restart after a failure".to_owned(),
        RestartPlan::After {
            delay_ms,
            delay_ms_max,
            failures_max,
            within_ms,
            ..
        } => {
            let mut delay = show_ms(delay_ms as i64);
            if delay_ms_max > delay_ms {
                delay = format!("{delay}, up to {}", show_ms(delay_ms_max as i64));
            }
            let failures = match failures_max {
                1 => "1 failure".to_owned(),
                count => format!("{count} failures"),
            };
            format!(
                "restarted {delay} after a failure, given up after {failures} within {}",
                show_ms(within_ms as i64)
            )
        }
    }
}

/// The nodes that read a node, and which output, if not the main one.
fn readers(plan: &Plan) -> Vec<Vec<Reader<'_>>> {
    let mut readers = vec![Vec::new(); plan.nodes.len()];
    for (reader, node) in plan.nodes.iter().enumerate() {
        for edge in node.edges() {
            let outputs = &plan.nodes[edge.from].outputs;
            readers[edge.from].push(match edge.output {
                MAIN_OUTPUT => (reader, None),
                output => (reader, Some(outputs[output].name.as_str())),
            });
        }
    }
    readers
}

fn tasks(count: usize) -> String {
    match count {
        1 => "1 task".to_owned(),
        count => format!("{count} tasks"),
    }
}

fn kind(node: &Node) -> String {
    match &node.kind {
        NodeKind::Source(source) => {
            format!("source, {}", source.connector.describe().headline())
        }
        NodeKind::Transform(transform) => {
            let operator = &transform.operator;
            operator_kind(operator.factory.info().kind.name(), operator)
        }
        NodeKind::Aggregate(aggregate) => operator_kind("aggregate", &aggregate.operator),
        NodeKind::Process(process) => operator_kind("process", &process.operator),
        NodeKind::Join(join) => format!("{} join", join.rule.kind.name()),
        NodeKind::Sink(sink) => format!("sink, {}", sink.connector.describe().headline()),
    }
}

fn operator_kind(kind: &str, operator: &OperatorPlan) -> String {
    match operator.is_plugins() {
        true => format!("{kind} {}", operator.name),
        false => format!("{}, built in", operator.name),
    }
}

fn details(plan: &Plan, node: &Node) -> Vec<String> {
    match &node.kind {
        NodeKind::Source(source) => {
            let mut details = source_details(plan, node, source);
            if plan.state.is_some() && !source.connector.is_replayable() {
                details.push(
                    "cannot be read again: a failure loses rows since the last checkpoint"
                        .to_owned(),
                );
            }
            details
        }
        NodeKind::Transform(transform) => {
            let mut details = merged(plan, node);
            if let Some(time) = &transform.event_time {
                details.push(format!("event time {}", time.field.name(node.schema())));
            }
            details.extend(operator_details(&transform.operator));
            details
        }
        NodeKind::Aggregate(aggregate) => {
            let mut details = merged(plan, node);
            details.extend(aggregate_details(aggregate));
            details.extend(depends_on_speed(plan, node));
            details.extend(operator_details(&aggregate.operator));
            details
        }
        NodeKind::Process(process) => {
            let mut details = merged(plan, node);
            details.push(process_details(process));
            details.extend(depends_on_speed(plan, node));
            details.extend(operator_details(&process.operator));
            details
        }
        NodeKind::Join(join) => {
            let mut details = merged(plan, node);
            details.extend(join_details(join));
            details.extend(depends_on_speed(plan, node));
            details
        }
        NodeKind::Sink(sink) => {
            let mut details = merged(plan, node);
            details.extend(sink.connector.describe().lines);
            details.extend(delivery_line(plan, &*sink.connector));
            details
        }
    }
}

/// What a failure does to the rows of a sink.
fn delivery_line(plan: &Plan, connector: &dyn SinkConnector) -> Option<String> {
    let note = connector.delivery_note();
    let is_transactional = connector.is_transactional();
    let repeats = |note: &str| match note {
        "" => "at least once: rows may be repeated after a failure".to_owned(),
        note => format!("at least once: rows may be repeated after a failure; {note}"),
    };
    match (connector.delivery(), plan.state.as_ref()?.delivery) {
        (Delivery::AtLeastOnce, _) => Some(repeats(note)),
        (Delivery::ExactlyOnce, Delivery::AtLeastOnce) if is_transactional => Some(repeats("")),
        (Delivery::ExactlyOnce, _) => (!note.is_empty()).then(|| format!("exactly once: {note}")),
    }
}

/// Lists the inputs of a node, where the drawing does not show them: of several
/// inputs, or several outputs into one.
fn merged(plan: &Plan, node: &Node) -> Vec<String> {
    let names = |input: &InputPort| {
        let names = input.edges.iter().map(|edge| plan.output_name(edge));
        names.collect::<Vec<_>>().join(", ")
    };
    match node.inputs.as_slice() {
        [input] if input.edges.len() < 2 => Vec::new(),
        [input] => vec![format!("merges {}", names(input))],
        inputs => {
            let line = |input: &InputPort| format!("{} from {}", input.name, names(input));
            inputs.iter().map(line).collect()
        }
    }
}

fn source_details(plan: &Plan, node: &Node, source: &SourcePlan) -> Vec<String> {
    let mut details = source.connector.describe().lines;
    let mut time = match &source.event_time {
        EventTime::Field(field) => format!("event time {}", field.name(node.schema())),
        EventTime::Ingestion => "event time is when the row is read".to_owned(),
        EventTime::Given(given) => format!("event time is {}", given.what()),
        EventTime::Operator(id) => format!("event time from {}", plan.nodes[*id].name),
    };
    match source.out_of_orderness_ms {
        0 => time.push_str(", rows in order"),
        ms => time.push_str(&format!(", rows up to {} out of order", show_ms(ms))),
    }
    if let Some(ms) = source.idle_after_ms {
        let _ = write!(time, ", idle after {}", show_ms(ms as i64));
    }
    details.push(time);
    if source.bootstraps {
        let line = "bootstraps: no event time before what is there at the start has been read";
        details.push(line.to_owned());
    }
    if let Some(checksum) = &source.checksum {
        let name = |at: &usize| node.schema().fields[*at].name.as_str();
        let of: Vec<&str> = checksum.of.iter().map(name).collect();
        let (algorithm, field) = (checksum.algorithm.name(), name(&checksum.field));
        details.push(format!("{field} has the {algorithm} of {}", of.join(", ")));
    }
    details.push(format!("bad rows: {}", policy_name(source.on_error)));
    details
}

fn key_details(key: &Schema) -> String {
    let keys: Vec<&str> = key.fields.iter().map(|f| f.name.as_str()).collect();
    match keys[..] {
        [] => "no key: one group".to_owned(),
        _ => format!("key {}", keys.join(", ")),
    }
}

fn process_details(process: &ProcessPlan) -> String {
    let mut details = key_details(&process.key_schema);
    if process.order == RowOrder::EventTime {
        details.push_str(" · rows in order of event time");
    }
    if let Some(ms) = process.ttl_ms {
        let ttl = format!(" · expires {} after a key's last row", show_ms(ms));
        details.push_str(&ttl);
    }
    details
}

fn aggregate_details(aggregate: &AggregatePlan) -> Vec<String> {
    if aggregate.passes_rows {
        // Its arguments say everything.
        return Vec::new();
    }
    let mut when = vec![
        key_details(&aggregate.key_schema),
        aggregate.window.to_string(),
    ];
    if aggregate.allowed_lateness_ms > 0 {
        let lateness = show_ms(aggregate.allowed_lateness_ms);
        when.push(match aggregate.emit {
            Emit::Change => format!("late rows correct it for {lateness}"),
            Emit::Final => format!("emitted {lateness} after its end, when it is final"),
        });
    }
    if let Some(ms) = aggregate.ttl_ms {
        when.push(format!("expires {} after a key's last row", show_ms(ms)));
    }
    if let Some(ms) = aggregate.early_every_ms {
        let what = match aggregate.window {
            Window::Running => "results",
            _ => "early results",
        };
        when.push(format!("{what} every {}", show_ms(ms as i64)));
    }
    if aggregate.discards {
        when.push("each result has the rows since the one before".to_owned());
    }
    let mut details = vec![when.join(" · ")];
    if aggregate.corrects() {
        let key = aggregate.result_key();
        let key = key.map_or("window".to_owned(), |columns| columns.join(", "));
        let of = match key.as_str() {
            // All rows are one group, and have no window.
            "" => String::new(),
            key => format!(" of the same {key}"),
        };
        details.push(format!("a result replaces the one before{of}"));
    }
    details
}

fn join_details(join: &JoinPlan) -> Vec<String> {
    let keys = join.key_schema.fields.iter();
    let keys: Vec<&str> = keys.map(|field| field.name.as_str()).collect();
    let mut details = vec![format!("key {} · {}", keys.join(", "), join.rule.matching)];
    if let Matching::Interval {
        before_ms,
        after_ms,
    } = join.rule.matching
    {
        // A side's rows wait for the other's as long as this.
        let waits = [(LEFT, after_ms), (RIGHT, before_ms)];
        let endless = waits
            .into_iter()
            .filter(|&(side, ms)| ms.is_none() && join.rule.kind.keeps(side));
        details.extend(endless.map(|(side, _)| {
            format!(
                "{} rows without a match come out when the input ends",
                SIDES[side]
            )
        }));
    }
    details
}

fn operator_details(operator: &OperatorPlan) -> Vec<String> {
    let mut details = Vec::new();
    if !operator.arguments.is_empty() {
        let show = |(name, value): &(String, Value)| format!("{name} = {value}");
        let arguments: Vec<String> = operator.arguments.iter().map(show).collect();
        details.push(arguments.join(", "));
    }
    let mut calls = format!("on error: {}", policy_name(operator.on_error));
    if let Some(limits) = operator.limits {
        let _ = write!(
            calls,
            " · a call has {} of memory, {}, {} of output",
            show_bytes(limits.memory_bytes_max as u64),
            show_ms(limits.call_ms_max as i64),
            show_bytes(limits.output_bytes_max as u64),
        );
    }
    details.push(calls);
    details
}

fn policy_name(policy: OnError) -> String {
    match policy {
        OnError::Fail => "the pipeline fails".to_owned(),
        OnError::Skip => "counted and skipped".to_owned(),
        OnError::DeadLetter => "dead letter".to_owned(),
        OnError::Retry(1) => "1 retry, then dead letter".to_owned(),
        OnError::Retry(times) => format!("{times} retries, then dead letter"),
    }
}

/// The columns in lines of at most `width`, unless one type is longer.
fn wrapped(schema: &Schema, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for (i, field) in schema.fields.iter().enumerate() {
        let comma = if i + 1 == schema.fields.len() {
            ""
        } else {
            ","
        };
        let column = format!("{field}{comma}");
        let last = lines.last_mut().filter(|line| {
            line.is_empty() || line.chars().count() + 1 + column.chars().count() <= width
        });
        match last {
            Some(line) => {
                let space = if line.is_empty() { "" } else { " " };
                line.push_str(space);
                line.push_str(&column);
            }
            None => lines.push(column),
        }
    }
    lines
}
