//! Makes a plan of a config: resolves names, loads plugins, and checks types
//! along every edge.
//!
//! A mistake does not stop the checks. What depends on it is skipped (`None`)
//! and everything else is still checked, so that one run shows all mistakes.

/// Warns about plans that can run but are probably not meant.
mod warnings;
/// The state of the checks.
mod builder;
/// What the checks found out about a section.
mod section;
/// Resolves inputs, and orders sections.
mod graph;
/// Resolves plugins' operators and their arguments.
mod plugin;
/// Finds plugins that a service keeps.
mod kept;
/// Resolves operators that need no plugin, and plans some.
mod builtin;
/// Plans sources.
mod source;
/// Finds the field with the event time.
mod event_time;
/// Finds the fields that an operator reads.
mod columns;
/// Refuses aggregates over results that change.
mod corrections;
/// Plans what tells changes of results, and what reads them.
mod changes;
/// What a node reads.
mod reading;
/// Finds the port of each input.
mod ports;
/// Finds the columns of keys.
mod keys;
/// Plans what only aggregates have: window, lateness, bounds.
mod aggregate;
/// Plans processes.
mod process;
/// Operators that are run as several.
mod stages;
/// Makes processes of recommenders.
mod recommend;
/// Makes processes and a join of look-ups.
mod lookup;
/// Makes a join and a transform of joins whose rows a plugin makes.
mod joined;
/// Plans joins.
mod join;
/// Plans state, checkpoints and restarts.
mod state;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use warnings::warnings;

use self::builder::Builder;
use self::columns::Upstream;
use self::graph::{Graph, Section};
use self::reading::Reading;
use self::section::{
    Planned, PlannedOutput, Resolved, UNPLANNED, operator_plan, planned, title_of,
};
use self::stages::StageSection;
use crate::checkpoint::storage::folder::archive::Archive;
use crate::config::diagnostics::Span;
use crate::config::{
    Config, Diagnostics, Mistake, OperatorConfig, Runs, SinkConfig, SourceConfig, Spanned,
};
use crate::connector::InputFiles;
use crate::dead_letter::OnError;
use crate::element::NodeId;
use crate::files::{DEAD_LETTERS, FileUser};
use crate::logic::{Kind, Loader, Port};
use crate::paths::{identity, is_device, is_nowhere, is_standard_output, written_at};
use crate::plan::{
    Delivery, Exchange, LATE_SIDES, MAIN_OUTPUT, Matching, Node, NodeKind, Plan, RIGHT, RowOrder,
    SinkPlan, StateBackend, StatePlan, TransformPlan, Version,
};
use crate::sink::SinkTransaction;
use crate::sink::dead_letter::aside_of;

/// Checks the whole config and plans it. `folder` is the pipeline file's
/// folder, which paths are relative to.
pub fn build(config: &Config, folder: &Path, loader: &dyn Loader) -> Result<Plan, Diagnostics> {
    Builder::new(config, folder, InputFiles::MustExist).build(loader)
}

/// As [`build`], for a run that replaces the rows of its sources: their files
/// need not exist, and patterns match nothing.
pub fn build_without_inputs(
    config: &Config,
    folder: &Path,
    loader: &dyn Loader,
) -> Result<Plan, Diagnostics> {
    Builder::new(config, folder, InputFiles::Replaced).build(loader)
}

/// Plans only the state, which needs neither plugins nor inputs.
pub fn build_state(config: &Config, folder: &Path) -> Result<Option<StatePlan>, Diagnostics> {
    let mut builder = Builder::new(config, folder, InputFiles::Replaced);
    let state = builder.plan_state();
    match builder.mistakes.is_empty() {
        true => Ok(state),
        false => Err(builder.mistakes.sorted()),
    }
}

/// Whether an earlier run has left one.
fn has_checkpoint(state: &StatePlan) -> bool {
    let StateBackend::RocksDb { folder, .. } = &state.backend else {
        return false;
    };
    let mut found = std::fs::read_dir(Archive::of(folder).folder());
    found.as_mut().is_ok_and(|found| found.next().is_some())
}

impl<'a> Builder<'a> {
    fn build(mut self, loader: &dyn Loader) -> Result<Plan, Diagnostics> {
        let config = self.config;
        let itself = FileUser {
            what: "the pipeline is written in it".to_owned(),
            place: None,
        };
        self.files.reads(itself, Path::new(&config.origin.file));
        for file in &config.secret_files {
            let user = FileUser::new("a secret is read of it", file.span());
            self.files.reads(user, &self.folder.join(file.get_ref()));
        }

        self.files.logs();

        let state = self.plan_state();
        let restart = self.plan_restart(state.is_some());
        if self.inputs == InputFiles::MustExist && state.as_ref().is_some_and(has_checkpoint) {
            self.inputs = InputFiles::MayBeGone;
        }

        if state
            .as_ref()
            .is_some_and(|state| state.delivery == Delivery::ExactlyOnce)
        {
            self.check_one_transaction();
        }

        let plugins = self.load_plugins(loader);
        let stages = self.stages(&plugins);
        let graph = Graph::new(config, &stages, &mut self.mistakes);
        let mut resolved: Vec<Option<Resolved>> = graph
            .sections
            .iter()
            .map(|section| match section {
                Section::Operator(operator) => self.resolve_plugin(operator, &plugins),
                Section::Source(_) | Section::Sink(_) => None,
            })
            .collect();
        let kinds = kinds(&graph, &resolved);
        let mut planned: Vec<Planned> = graph.sections.iter().map(|_| UNPLANNED).collect();
        // The node of each section: nodes are numbered in topological order.
        let mut ids = vec![usize::MAX; graph.sections.len()];
        for (id, &at) in graph.order.iter().enumerate() {
            ids[at] = id;
        }
        let timing = self.timing_operators(&graph, &kinds);
        for &at in &graph.order {
            let upstreams = self.upstreams(&graph, at, &planned, &resolved);
            if let Section::Operator(operator) = graph.sections[at] {
                let builtin = self.resolve_builtin(operator, &upstreams);
                resolved[at] = resolved[at].take().or(builtin);
            }
            planned[at] = match graph.sections[at] {
                Section::Source(source) => {
                    let timing = timing[at].and_then(|at| match graph.sections[at] {
                        Section::Operator(operator) => Some((operator, ids[at])),
                        Section::Source(_) | Section::Sink(_) => None,
                    });
                    self.plan_source(source, timing)
                }
                Section::Operator(operator) => {
                    let is_read = |output: &str| graph.is_read(at, output);
                    let timed = timing.iter().position(|timing| *timing == Some(at));
                    let timed = timed.and_then(|at| match graph.sections[at] {
                        Section::Source(source) => Some(source),
                        Section::Operator(_) | Section::Sink(_) => None,
                    });
                    self.plan_operator(
                        operator,
                        resolved[at].as_ref(),
                        &upstreams,
                        &ids,
                        &is_read,
                        &Part {
                            timed,
                            stage: stages.find(operator),
                        },
                    )
                }
                Section::Sink(sink) => self.plan_sink(sink, &upstreams, &ids),
            };
        }
        let dead_letters = self.place_dead_letters(&planned);
        let dead_letters_path = self.dead_letters_path();
        self.files
            .report_missing(&dead_letters_path, &mut self.mistakes);
        self.files.report_long_names(&mut self.mistakes);
        self.files.report_conflicts(&mut self.mistakes);
        if !self.mistakes.is_empty() {
            return Err(self.mistakes.sorted());
        }
        let mut nodes: Vec<Node> = Vec::with_capacity(planned.len());
        for &at in &graph.order {
            nodes.extend(planned[at].node.take());
        }
        if nodes.len() != graph.sections.len() || nodes.is_empty() {
            // Every other way to miss a node has reported a mistake.
            self.mistakes.push(
                Mistake::new("the pipeline is empty")
                    .help("add a source `[sources.NAME]` and a sink `[sinks.NAME]`"),
            );
            return Err(self.mistakes);
        }
        let fires_between_rows = nodes.iter().any(|node| match &node.kind {
            NodeKind::Process(process) => process.order == RowOrder::Arrival,
            _ => false,
        });
        for node in &mut nodes {
            if let NodeKind::Source(source) = &mut node.kind {
                source.tells_each_watermark = fires_between_rows;
            }
        }
        for id in 0..nodes.len() {
            let waits = reads_bootstrapping(&nodes, id);
            if let NodeKind::Join(join) = &mut nodes[id].kind {
                join.waits_for_table =
                    waits && join.rule.matching == Matching::AsOf(Version::Latest);
            }
        }
        for mistake in corrections::counted_again(config, &nodes) {
            self.mistakes.push(mistake);
        }
        if !self.mistakes.is_empty() {
            return Err(self.mistakes.sorted());
        }
        Ok(Plan {
            name: config.name.get_ref().clone(),
            folder: self.folder.to_owned(),
            parallelism: config.parallelism.unwrap_or(1),
            batch_rows: config.batch_rows.unwrap_or(4_096),
            state,
            restart,
            dead_letters,
            files: self.files.shared(),
            nodes,
        })
    }

    /// The outputs that feed a section, as far as they are known.
    fn upstreams<'p>(
        &mut self,
        graph: &Graph,
        at: usize,
        planned: &'p [Planned],
        resolved: &[Option<Resolved>],
    ) -> Vec<Option<Upstream<'p>>> {
        let mut found = Vec::new();
        for input in &graph.inputs[at] {
            let Some(input) = input else {
                found.push(None);
                continue;
            };
            let from = &graph.sections[input.from];
            let outputs = &planned[input.from].outputs;
            let output = match input.output {
                None => Some(MAIN_OUTPUT),
                Some(name) => outputs.iter().position(|output| output.name == name),
            };
            if let (None, Some(name), false) = (output, input.output, outputs.is_empty()) {
                self.refuse_output(from, resolved[input.from].as_ref(), name, &input.place);
            }
            let carried = output.and_then(|at| outputs.get(at)?.relation.as_ref().zip(Some(at)));
            found.push(carried.map(|(relation, output)| Upstream {
                section: input.from,
                output,
                title: from.title(),
                place: input.place.clone(),
                relation,
            }));
        }
        found
    }

    fn plan_operator(
        &mut self,
        operator: &OperatorConfig,
        resolved: Option<&Resolved>,
        upstreams: &[Option<Upstream>],
        ids: &[usize],
        is_read: &dyn Fn(&str) -> bool,
        part: &Part<'_>,
    ) -> Planned {
        let Some(resolved) = resolved else {
            return UNPLANNED;
        };
        let title = title_of(operator);
        let Some(ports) = self.ports(operator, &title, &resolved.info.inputs) else {
            return UNPLANNED;
        };
        self.refuse_order(operator, &title, resolved.info.kind);
        self.refuse_table(operator, &title, resolved.info.kind);
        let reading = Reading {
            upstreams,
            ids,
            ports,
        };
        if !self.check_changes(operator, resolved, &reading) {
            return UNPLANNED;
        }
        match (&operator.runs, resolved.info.kind) {
            (Runs::Join(join), _) => {
                self.plan_join(operator, join, &reading, LATE_SIDES.map(is_read))
            }
            (_, Kind::Aggregate) => self.plan_aggregate(operator, resolved, &reading, is_read),
            (_, Kind::Process) => {
                self.plan_process(operator, resolved, &reading, is_read, part.stage)
            }
            // Kinds that cannot run were refused when resolved.
            _ => self.plan_transform(operator, resolved, &reading, part.timed),
        }
    }

    fn plan_transform(
        &mut self,
        operator: &OperatorConfig,
        resolved: &Resolved,
        reading: &Reading,
        timed: Option<&SourceConfig>,
    ) -> Planned {
        let title = format!("operator `{}`", operator.name.get_ref());
        let columns = self.columns_of_edges(&title, &resolved.info.inputs, reading);
        let output = resolved.output();
        let main = match resolved.info.kind {
            // Fields that a filter lacks would be reported again at each node
            // after it.
            Kind::Filter => reading
                .known()
                .and_then(|upstreams| self.merged(&title, &upstreams))
                .filter(|_| columns.is_some()),
            _ => self.transform_output(operator, &title, &output.schema, reading.changes()),
        };
        let event_time = self.operator_time(operator, timed, &title, main.as_ref());
        let kind = columns.and_then(|columns| {
            Some(NodeKind::Transform(TransformPlan {
                operator: operator_plan(operator, resolved)?,
                columns,
                event_time,
            }))
        });
        let inputs = reading.inputs(&resolved.info.inputs, |_| Exchange::Forward);
        let outputs = vec![PlannedOutput::new(&output.name, main)];
        planned(&operator.name, kind, inputs, outputs)
    }

    fn plan_sink(
        &mut self,
        sink: &SinkConfig,
        upstreams: &[Option<Upstream>],
        ids: &[usize],
    ) -> Planned {
        let title = format!("sink `{}`", sink.name.get_ref());
        let known: Option<Vec<&Upstream>> = upstreams.iter().map(Option::as_ref).collect();
        let taken = known.and_then(|upstreams| self.merged(&title, &upstreams));
        let taken = taken.and_then(|taken| self.with_change_column(sink, &title, taken));
        let columns = taken.as_ref().map(|taken| &taken.schema);
        let connector = sink.settings.plan(columns, &mut self.planning(&title));
        let tells_changes = sink.changes.is_some();
        let kind = connector.map(|connector| {
            NodeKind::Sink(SinkPlan {
                connector,
                tells_changes,
            })
        });
        let reading = Reading {
            upstreams,
            ids,
            ports: vec![0; upstreams.len()],
        };
        let inputs = taken.and_then(|taken| {
            let port = Port::main(Arc::new(taken.schema));
            reading.inputs(&[port], |_| Exchange::Forward)
        });
        planned(&sink.name, kind, inputs, Vec::new())
    }

    /// Checks that all sinks that can use the pipeline's transaction agree on
    /// its owner.
    fn check_one_transaction(&mut self) {
        let sinks = self.config.sinks.iter().filter_map(|sink| {
            let transaction = sink.settings.transaction()?;
            Some((&sink.name, transaction))
        });
        let mut of_systems: Vec<(&Spanned<String>, SinkTransaction)> = Vec::new();
        for (other, theirs) in sinks {
            let mut known = of_systems.iter();
            let Some((first, transaction)) =
                known.find(|(_, transaction)| transaction.system == theirs.system)
            else {
                of_systems.push((other, theirs));
                continue;
            };
            if *transaction == theirs {
                continue;
            }
            self.mistakes.push(
                Mistake::new(format!(
                    "sinks `{}` and `{}` cannot be in one transaction: their {} differ",
                    first.get_ref(),
                    other.get_ref(),
                    transaction.decided_by
                ))
                .at(other.span(), "")
                .at(first.span(), "")
                .help(
                    "give both the same, or write `delivery = \"at_least_once\"` in [checkpoints]",
                ),
            );
        }
    }

    /// The file of dead letters, if any node can write one.
    fn place_dead_letters(&mut self, planned: &[Planned]) -> Option<PathBuf> {
        let config = self.config;
        let given = config.dead_letters.as_ref();
        let nodes = planned.iter().filter_map(|planned| planned.node.as_ref());
        let wanted = nodes
            .filter_map(Node::on_error)
            .any(OnError::makes_dead_letters);
        if given.is_none() && !wanted {
            return None;
        }
        let path = self.dead_letters_path();
        let place = given.unwrap_or(&config.name).span();
        if is_standard_output(&path) && !self.keep_standard_output(planned, place.clone()) {
            return Some(path);
        }
        let user = FileUser::new(DEAD_LETTERS, place);
        let aside = aside_of(&identity(&path));
        match is_device(&path) {
            true if is_nowhere(&path) => {}
            true => self.files.writes(user, &[&path]),
            false => self.files.writes(user, &[&path, &aside]),
        }
        Some(path)
    }

    /// Refuses sinks that write where the dead letters go: their lines would be mixed.
    /// Returns whether there is none.
    fn keep_standard_output(&mut self, planned: &[Planned], place: Span) -> bool {
        let nodes = planned.iter().filter_map(|planned| planned.node.as_ref());
        let mut sinks = nodes.filter(|node| match &node.kind {
            NodeKind::Sink(sink) => sink.connector.writes_stdout(),
            _ => false,
        });
        let Some(sink) = sinks.next() else {
            return true;
        };
        let name = &sink.name;
        self.mistakes.push(
            Mistake::new(format!(
                "dead letters and the rows of sink `{name}` would be mixed on standard output"
            ))
            .at(place, "the dead letters go there")
            .help(format!(
                "give the dead letters a file (`dead_letters = \"…\"`), or sink `{name}` \
                 (`type = \"file\"` with a `path`)"
            )),
        );
        false
    }

    /// Where dead letters go: beside the pipeline's file unless the config says
    /// otherwise, so that none is lost because a setting is missing.
    fn dead_letters_path(&self) -> PathBuf {
        match &self.config.dead_letters {
            Some(path) => written_at(self.folder, path.get_ref()),
            None => {
                let name = self.config.name.get_ref();
                self.folder.join(format!("{name}.dead.jsonl"))
            }
        }
    }
}

/// What else an operator has a part in.
struct Part<'s> {
    /// The source whose rows get their event time from it.
    timed: Option<&'s SourceConfig>,
    /// The stage that it is, of an operator that is run as several.
    stage: Option<&'s StageSection>,
}

/// Whether the right side of a join comes from a source that bootstraps.
fn reads_bootstrapping(nodes: &[Node], join: NodeId) -> bool {
    let Some(right) = nodes[join].inputs.get(RIGHT) else {
        return false;
    };
    let mut from: Vec<NodeId> = right.edges.iter().map(|edge| edge.from).collect();
    let mut seen = vec![false; nodes.len()];
    while let Some(id) = from.pop() {
        if std::mem::replace(&mut seen[id], true) {
            continue;
        }
        if let NodeKind::Source(source) = &nodes[id].kind
            && source.bootstraps
        {
            return true;
        }
        from.extend(nodes[id].edges().map(|edge| edge.from));
    }
    false
}

/// What each section that is an operator is, if that is known.
fn kinds(graph: &Graph, resolved: &[Option<Resolved>]) -> Vec<Option<Kind>> {
    let sections = graph.sections.iter().zip(resolved);
    let kind = |(section, resolved): (&Section, &Option<Resolved>)| match section {
        Section::Operator(operator) => {
            let described = resolved.as_ref().map(|resolved| resolved.info.kind);
            operator.runs.kind().or(described)
        }
        Section::Source(_) | Section::Sink(_) => None,
    };
    sections.map(kind).collect()
}
