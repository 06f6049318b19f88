//! Decides whether a config makes sense, and what it means: names are resolved,
//! plugins opened, types checked along every edge.
//!
//! A mistake does not stop the checks: what depends on it is passed over
//! (`None`), everything else is still looked at, so that one run shows all.

/// Names, inputs and the order of flow.
mod graph;
/// Which operator of which plugin, with which arguments.
mod plugin;
mod source;
/// Fields that an operator reads, found in what comes.
mod columns;
/// What only aggregates have: key, window, lateness, bounds.
mod aggregate;
/// Where state is kept, and what becomes of a pipeline that has failed.
mod state;
/// That nothing is written where something else is read or written.
mod files;

use std::path::Path;
use std::sync::Arc;

use self::columns::{Relation, Upstream};
use self::files::{DEAD_LETTERS, Files, User};
use self::graph::{Graph, Section};
use self::plugin::Resolved;
use super::{
    AggregatePlan, Delivery, Edge, Exchange, KafkaSinkPlan, Node, NodeKind, OnError, OperatorPlan,
    OutPort, Plan, SinkConnector, SinkPlan, StatePlan, TransformPlan,
};
use crate::config::{
    Config, Diagnostics, KafkaSink, Mistake, Operator, Sink, SinkKind, Spanned, suggest,
};
use crate::logic::{Kind, Loader};
use crate::schema::Schema;

/// Checks the whole config and plans it. `folder` is the pipeline file's:
/// paths are relative to it.
pub fn build(config: &Config, folder: &Path, loader: &dyn Loader) -> Result<Plan, Diagnostics> {
    Builder::new(config, folder, Inputs::MustExist).build(loader)
}

/// The same plan for a run that replaces the rows of its sources: their files
/// need not exist, and patterns match nothing.
pub fn build_without_inputs(
    config: &Config,
    folder: &Path,
    loader: &dyn Loader,
) -> Result<Plan, Diagnostics> {
    Builder::new(config, folder, Inputs::Replaced).build(loader)
}

/// Only where its state is kept, which needs neither plugins nor inputs.
pub fn build_state(config: &Config, folder: &Path) -> Result<Option<StatePlan>, Diagnostics> {
    let mut builder = Builder::new(config, folder, Inputs::Replaced);
    let state = builder.plan_state();
    match builder.mistakes.is_empty() {
        true => Ok(state),
        false => Err(builder.mistakes.sorted()),
    }
}

/// What is asked of the files that sources read.
#[derive(Clone, Copy, PartialEq)]
enum Inputs {
    MustExist,
    Replaced,
}

struct Builder<'a> {
    config: &'a Config,
    folder: &'a Path,
    inputs: Inputs,
    files: Files,
    mistakes: Diagnostics,
}

/// A planned section and what its outputs carry.
struct Planned {
    node: Option<Node>,
    main: Option<Relation>,
    late: Option<Relation>,
}

const NOTHING: Planned = Planned {
    node: None,
    main: None,
    late: None,
};

impl<'a> Builder<'a> {
    fn new(config: &'a Config, folder: &'a Path, inputs: Inputs) -> Self {
        Builder {
            config,
            folder,
            inputs,
            files: Files::default(),
            mistakes: Diagnostics::new(config.origin.clone()),
        }
    }

    fn build(mut self, loader: &dyn Loader) -> Result<Plan, Diagnostics> {
        let config = self.config;
        let itself = User {
            what: "the pipeline is written in it".to_owned(),
            place: None,
        };
        self.files.reads(itself, Path::new(&config.origin.file));

        let state = self.plan_state();
        let restart = self.plan_restart(state.is_some());

        if state
            .as_ref()
            .is_some_and(|state| state.delivery == Delivery::ExactlyOnce)
        {
            self.check_one_transaction();
        }

        let graph = Graph::new(config, &mut self.mistakes);
        let plugins = self.load_plugins(loader);
        let resolved: Vec<Option<Resolved>> = graph
            .sections
            .iter()
            .map(|section| match section {
                Section::Operator(operator) => self.resolve(operator, &plugins),
                Section::Source(_) | Section::Sink(_) => None,
            })
            .collect();
        let mut planned: Vec<Planned> = graph.sections.iter().map(|_| NOTHING).collect();
        // The node of each section: nodes are numbered in the order of flow.
        let mut ids = vec![usize::MAX; graph.sections.len()];
        for (id, &at) in graph.order.iter().enumerate() {
            ids[at] = id;
            let ups = self.upstreams(&graph, at, &planned, &resolved);
            planned[at] = match graph.sections[at] {
                Section::Source(source) => self.plan_source(source),
                Section::Operator(operator) => {
                    let late_wanted = graph.is_late_wanted(at);
                    self.plan_operator(operator, resolved[at].as_ref(), &ups, &ids, late_wanted)
                }
                Section::Sink(sink) => self.plan_sink(sink, &ups, &ids),
            };
        }
        let dead_letters = self.place_dead_letters(&planned);
        self.files.report_conflicts(&mut self.mistakes);
        if !self.mistakes.is_empty() {
            return Err(self.mistakes.sorted());
        }
        let mut nodes = Vec::with_capacity(planned.len());
        for &at in &graph.order {
            nodes.extend(planned[at].node.take());
        }
        if nodes.len() != graph.sections.len() || nodes.is_empty() {
            // Every way to lose a node has reported a mistake, but one.
            self.mistakes.push(
                Mistake::new("the pipeline is empty")
                    .help("add a source `[sources.NAME]` and a sink `[sinks.NAME]`"),
            );
            return Err(self.mistakes);
        }
        Ok(Plan {
            name: config.name.get_ref().clone(),
            parallelism: config.parallelism.unwrap_or(1),
            batch_rows: config.batch_rows.unwrap_or(4_096),
            state,
            restart,
            dead_letters,
            nodes,
        })
    }

    /// What a section's inputs carry, as far as it is known.
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
            let relation = if input.late {
                self.check_late(from, resolved[input.from].as_ref(), &input.place);
                planned[input.from].late.as_ref()
            } else {
                planned[input.from].main.as_ref()
            };
            found.push(relation.map(|relation| Upstream {
                section: input.from,
                port: if input.late {
                    OutPort::Late
                } else {
                    OutPort::Main
                },
                title: from.title(),
                place: input.place.clone(),
                relation,
            }));
        }
        found
    }

    fn plan_operator(
        &mut self,
        operator: &Operator,
        resolved: Option<&Resolved>,
        ups: &[Option<Upstream>],
        ids: &[usize],
        late_wanted: bool,
    ) -> Planned {
        let Some(resolved) = resolved else {
            return NOTHING;
        };
        let title = format!("operator `{}`", operator.name.get_ref());
        let columns: Option<Vec<Vec<usize>>> = ups
            .iter()
            .map(|up| self.columns_read(&title, &resolved.input, up.as_ref()?))
            .collect::<Vec<_>>()
            .into_iter()
            .collect();
        let known: Option<Vec<&Upstream>> = ups.iter().map(Option::as_ref).collect();
        let name = operator.name.get_ref().clone();
        let output = &resolved.info.output;
        if resolved.info.kind == Kind::Aggregate {
            let timing = resolved.timing.as_ref();
            let keys = self.keys(operator, &title, ups);
            let late = known
                .filter(|_| {
                    late_wanted && timing.is_some_and(|timing| timing.window.has_late_rows())
                })
                .and_then(|ups| self.merged(&format!("the late output of {title}"), &ups));
            let main = keys.as_ref().zip(timing).and_then(|(keys, timing)| {
                self.aggregate_output(operator, &title, output, keys, timing)
            });
            let node = main.as_ref().and_then(|main| {
                let (keys, timing) = (keys?, timing?);
                let inputs = edges(ups, ids, |i| Exchange::Hash(keys.columns[i].clone()))?;
                let kind = NodeKind::Aggregate(AggregatePlan {
                    operator: operator_plan(operator, resolved)?,
                    columns: columns?,
                    key: keys.columns,
                    key_schema: Arc::new(keys.relation.schema),
                    window: timing.window,
                    allowed_lateness_ms: timing.allowed_lateness_ms,
                    early_every_ms: timing.early_every_ms,
                    ttl_ms: timing.ttl_ms,
                    bounds: timing.bounds.clone(),
                    late_wanted,
                });
                Some(node(name, kind, inputs, main))
            });
            return Planned { node, main, late };
        }
        // Filters and transforms: other kinds were refused when resolved.
        let main = match resolved.info.kind {
            // What a filter misses, everybody after it would miss again.
            Kind::Filter => known
                .and_then(|ups| self.merged(&title, &ups))
                .filter(|_| columns.is_some()),
            _ => self.transform_output(operator, &title, output),
        };
        let node = main.as_ref().and_then(|main| {
            let kind = NodeKind::Transform(TransformPlan {
                operator: operator_plan(operator, resolved)?,
                columns: columns?,
            });
            Some(node(name, kind, forward_edges(ups, ids)?, main))
        });
        Planned {
            node,
            main,
            late: None,
        }
    }

    fn plan_sink(&mut self, sink: &Sink, ups: &[Option<Upstream>], ids: &[usize]) -> Planned {
        let title = format!("sink `{}`", sink.name.get_ref());
        let known: Option<Vec<&Upstream>> = ups.iter().map(Option::as_ref).collect();
        let taken = known.and_then(|ups| self.merged(&title, &ups));
        let connector = match &sink.kind {
            SinkKind::File { path, format } => {
                let file = self.folder.join(path.get_ref());
                let user = User::new(format!("{title} writes it"), path.span());
                self.files.writes(user, &file);
                SinkConnector::File {
                    path: file,
                    format: *format,
                }
            }
            SinkKind::Console { rows_max } => SinkConnector::Console {
                rows_max: *rows_max,
            },
            SinkKind::Blackhole => SinkConnector::Blackhole,
            SinkKind::Kafka(kafka) => {
                let columns = taken.as_ref().map(|taken| &taken.schema);
                match columns.and_then(|columns| self.plan_kafka_sink(&title, kafka, columns)) {
                    Some(kafka) => SinkConnector::Kafka(kafka),
                    None => return NOTHING,
                }
            }
        };
        let node = taken.and_then(|taken| {
            let kind = NodeKind::Sink(SinkPlan { connector });
            let name = sink.name.get_ref().clone();
            Some(node(name, kind, forward_edges(ups, ids)?, &taken))
        });
        Planned { node, ..NOTHING }
    }

    fn plan_kafka_sink(
        &mut self,
        title: &str,
        kafka: &KafkaSink,
        columns: &Schema,
    ) -> Option<KafkaSinkPlan> {
        let mut column = |role: &str, name: &Spanned<String>| {
            let found = columns.index_of(name.get_ref());
            if found.is_none() {
                let fields = columns.fields.iter().map(|field| field.name.as_str());
                self.mistakes.push(
                    Mistake::new(format!(
                        "{title} takes {role} from `{}`, which no row has",
                        name.get_ref()
                    ))
                    .at(name.span(), "")
                    .help(suggest::help(name.get_ref(), "fields", fields)),
                );
            }
            found
        };
        let key = kafka.key.as_ref().map(|name| column("the key", name));
        let headers: Vec<Option<(String, usize)>> = kafka
            .headers
            .iter()
            .map(|(header, name)| {
                let role = format!("the header `{header}`");
                Some((header.clone(), column(&role, name)?))
            })
            .collect();
        Some(KafkaSinkPlan {
            connection: kafka.connection.clone(),
            topic: kafka.topic.clone(),
            key: match key {
                Some(key) => Some(key?),
                None => None,
            },
            headers: headers.into_iter().collect::<Option<_>>()?,
        })
    }

    /// A transaction is of one producer, so all sinks that are in it have the
    /// same brokers.
    fn check_one_transaction(&mut self) {
        let mut sinks = self
            .config
            .sinks
            .iter()
            .filter_map(|sink| match &sink.kind {
                SinkKind::Kafka(kafka) => Some((&sink.name, &kafka.connection)),
                _ => None,
            });
        let Some((first, connection)) = sinks.next() else {
            return;
        };
        for (other, _) in sinks.filter(|(_, other)| *other != connection) {
            self.mistakes.push(
                Mistake::new(format!(
                    "sinks `{}` and `{}` cannot be in one transaction: their `brokers` or \
                     `properties` differ",
                    first.get_ref(),
                    other.get_ref()
                ))
                .at(other.span(), "")
                .at(first.span(), "")
                .help(
                    "give both the same, or write `delivery = \"at_least_once\"` in [checkpoints]",
                ),
            );
        }
    }

    /// Where rows go whose policy says so; beside the pipeline's file unless
    /// the config says otherwise, so that none is lost for want of a setting.
    fn place_dead_letters(&mut self, planned: &[Planned]) -> Option<std::path::PathBuf> {
        let config = self.config;
        let given = config.dead_letters.as_ref();
        let nodes = planned.iter().filter_map(|planned| planned.node.as_ref());
        let wanted = nodes
            .filter_map(Node::on_error)
            .any(OnError::makes_dead_letters);
        if given.is_none() && !wanted {
            return None;
        }
        let path = match given {
            Some(path) => self.folder.join(path.get_ref()),
            None => self
                .folder
                .join(format!("{}.dead.jsonl", config.name.get_ref())),
        };
        let place = given.unwrap_or(&config.name).span();
        let user = User::new(DEAD_LETTERS, place);
        self.files.writes(user, &path);
        Some(path)
    }
}

fn node(name: String, kind: NodeKind, inputs: Vec<Edge>, output: &Relation) -> Node {
    Node {
        name,
        kind,
        inputs,
        output: Arc::new(output.schema.clone()),
    }
}

fn operator_plan(operator: &Operator, resolved: &Resolved) -> Option<OperatorPlan> {
    Some(OperatorPlan {
        name: operator.operator.get_ref().to_string(),
        factory: resolved.factory.clone()?,
        arguments: resolved.arguments.clone(),
        limits: operator.limits,
        on_error: operator.on_error.unwrap_or_default(),
    })
}

fn forward_edges(ups: &[Option<Upstream>], ids: &[usize]) -> Option<Vec<Edge>> {
    edges(ups, ids, |_| Exchange::Forward)
}

fn edges(
    ups: &[Option<Upstream>],
    ids: &[usize],
    exchange: impl Fn(usize) -> Exchange,
) -> Option<Vec<Edge>> {
    let edge = |(i, up): (usize, &Option<Upstream>)| {
        let up = up.as_ref()?;
        Some(Edge {
            from: ids[up.section],
            port: up.port,
            exchange: exchange(i),
        })
    };
    ups.iter().enumerate().map(edge).collect()
}
