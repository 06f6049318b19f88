//! Writes a plan as JSON: what the drawing shows, with names and in base units
//! (ms, bytes).

use std::path::Path;

use serde_json::{Value as Json, json};

use super::{
    AggregatePlan, Edge, EventTime, Exchange, JoinPlan, MAIN_OUTPUT, Matching, Node, NodeKind,
    OperatorPlan, Plan, ProcessPlan, RestartPlan, SourcePlan, StateBackend, StatePlan,
    TransformPlan, Window,
};
use crate::dead_letter::OnError;
use crate::logic::Value;
use crate::schema::Schema;
use crate::sink::SinkConnector;

/// The plan for `check --json`.
pub fn to_json(plan: &Plan) -> Json {
    let tasks = plan.tasks();
    let nodes = plan.nodes.iter().zip(tasks);
    json!({
        "name": plan.name,
        "parallelism": plan.parallelism,
        "batch_rows": plan.batch_rows,
        "dead_letters": plan.dead_letters.as_deref().map(path_json),
        "state": plan.state.as_ref().map(state_json),
        "restart": restart_json(plan.restart),
        "nodes": nodes.map(|(node, tasks)| node_json(plan, node, tasks)).collect::<Vec<_>>(),
    })
}

/// JSON has no paths that are not UTF-8.
fn path_json(path: &Path) -> Json {
    json!(path.display().to_string())
}

fn state_json(state: &StatePlan) -> Json {
    let backend = match &state.backend {
        StateBackend::Memory => json!("memory"),
        StateBackend::RocksDb {
            folder,
            memory_bytes_max,
            remote,
        } => json!({
            "rocksdb": {
                "folder": path_json(folder),
                "memory_bytes_max": memory_bytes_max,
                // Without the options, which may contain secrets.
                "upload": remote.as_ref().map(|remote| &remote.url),
            },
        }),
    };
    json!({
        "backend": backend,
        "memory_bytes_max": state.memory_bytes_max,
        "interval_ms": state.interval_ms,
        "keep": state.keep,
        "delivery": state.delivery.name(),
    })
}

fn restart_json(restart: RestartPlan) -> Json {
    match restart {
        RestartPlan::Never => json!("never"),
        RestartPlan::After {
            delay_ms,
            delay_ms_max,
            factor,
            failures_max,
            within_ms,
        } => json!({
            "delay_ms": delay_ms,
            "delay_ms_max": delay_ms_max,
            "factor": factor,
            "failures_max": failures_max,
            "within_ms": within_ms,
        }),
    }
}

fn node_json(plan: &Plan, node: &Node, tasks: usize) -> Json {
    let (role, settings) = match &node.kind {
        NodeKind::Source(source) => ("source", source_json(plan, node, source)),
        NodeKind::Transform(transform) => ("transform", transform_json(node, transform)),
        NodeKind::Aggregate(aggregate) => ("aggregate", aggregate_json(aggregate)),
        NodeKind::Process(process) => ("process", process_json(node, process)),
        NodeKind::Join(join) => ("join", join_json(join)),
        NodeKind::Sink(sink) => ("sink", sink_json(&*sink.connector)),
    };
    let inputs = node.inputs.iter().flat_map(|input| {
        let edges = input.edges.iter().map(|edge| edge_json(plan, edge));
        let port = (node.inputs.len() > 1).then(|| json!({ "port": input.name }));
        edges.map(move |mut json| {
            if let Some(port) = &port {
                merge(&mut json, port.clone());
            }
            json
        })
    });
    let mut json = json!({
        "name": node.name,
        "role": role,
        "tasks": tasks,
        "inputs": inputs.collect::<Vec<_>>(),
        "output": schema_json(node.schema()),
        "on_error": node.on_error().map(policy_json),
    });
    merge(&mut json, settings);
    json
}

fn edge_json(plan: &Plan, edge: &Edge) -> Json {
    let from = &plan.nodes[edge.from];
    let exchange = match &edge.exchange {
        Exchange::Forward => json!("forward"),
        Exchange::Hash(columns) => {
            let fields = &from.outputs[edge.output].schema.fields;
            let names = columns.iter().filter_map(|at| fields.get(*at));
            json!({ "hash": names.map(|field| field.name.as_str()).collect::<Vec<_>>() })
        }
    };
    let mut json = json!({ "from": from.name, "exchange": exchange });
    if edge.output != MAIN_OUTPUT {
        merge(
            &mut json,
            json!({ "output": from.outputs[edge.output].name }),
        );
    }
    json
}

fn schema_json(schema: &Schema) -> Json {
    let field = |field: &crate::schema::Field| {
        json!({
            "name": field.name,
            "type": field.data_type.to_string(),
            "nullable": field.nullable,
        })
    };
    schema.fields.iter().map(field).collect()
}

fn source_json(plan: &Plan, node: &Node, source: &SourcePlan) -> Json {
    let mut json = source.connector.describe().to_json();
    let (event_time, operator) = match &source.event_time {
        EventTime::Field(field) => (Some(field.name(node.schema())), None),
        EventTime::Ingestion | EventTime::Given(_) => (None, None),
        EventTime::Operator(id) => (plan.operator_time(*id), Some(&plan.nodes[*id].name)),
    };
    let time = json!({
        "is_replayable": source.connector.is_replayable(),
        "event_time": event_time,
        "event_time_from": operator,
        "out_of_orderness_ms": source.out_of_orderness_ms,
        "ahead_ms_max": source.ahead_ms_max,
        "idle_after_ms": source.idle_after_ms,
        "bootstraps": source.bootstraps,
    });
    merge(&mut json, time);
    json
}

fn operator_json(operator: &OperatorPlan) -> Json {
    let info = operator.factory.info();
    let arguments = operator.arguments.iter();
    let arguments = arguments.map(|(name, value)| (name.clone(), value_json(value)));
    json!({
        "operator": operator.name,
        "kind": info.kind.name(),
        "digest": operator.factory.digest(),
        "parameters": arguments.collect::<serde_json::Map<_, _>>(),
        "limits": operator.limits.map(|limits| json!({
            "memory_bytes_max": limits.memory_bytes_max,
            "call_ms_max": limits.call_ms_max,
            "output_bytes_max": limits.output_bytes_max,
        })),
    })
}

fn transform_json(node: &Node, transform: &TransformPlan) -> Json {
    let mut json = operator_json(&transform.operator);
    let time = transform.event_time.as_ref();
    let time = time.map(|time| time.field.name(node.schema()));
    merge(&mut json, json!({ "event_time": time }));
    json
}

fn aggregate_json(aggregate: &AggregatePlan) -> Json {
    let mut json = operator_json(&aggregate.operator);
    let keys = aggregate.key_schema.fields.iter();
    let bounds = aggregate.bounds.as_ref();
    let settings = json!({
        "key": keys.map(|field| field.name.as_str()).collect::<Vec<_>>(),
        "window": window_json(aggregate.window),
        "allowed_lateness_ms": aggregate.allowed_lateness_ms,
        "ttl_ms": aggregate.ttl_ms,
        "emit": aggregate.emit.name(),
        "early_every_ms": aggregate.early_every_ms,
        "discards": aggregate.discards,
        "timing": aggregate.timing,
        "bounds": bounds.map(|bounds| json!({ "start": bounds.start, "end": bounds.end })),
    });
    merge(&mut json, settings);
    json
}

fn process_json(node: &Node, process: &ProcessPlan) -> Json {
    let mut json = operator_json(&process.operator);
    let keys = process.key_schema.fields.iter();
    let outputs = node
        .outputs
        .iter()
        .map(|port| json!({ "name": port.name, "fields": schema_json(&port.schema) }));
    let settings = json!({
        "key": keys.map(|field| field.name.as_str()).collect::<Vec<_>>(),
        "ttl_ms": process.ttl_ms,
        "order": process.order.name(),
        "outputs": outputs.collect::<Vec<_>>(),
    });
    merge(&mut json, settings);
    json
}

fn join_json(join: &JoinPlan) -> Json {
    let matching = match join.rule.matching {
        Matching::Interval {
            before_ms,
            after_ms,
        } => json!({ "interval": { "before_ms": before_ms, "after_ms": after_ms } }),
        Matching::Window(window) => json!({ "window": window_json(window) }),
        Matching::AsOf(version) => json!({ "as_of": version }),
    };
    let keys = join.key_schema.fields.iter();
    json!({
        "key": keys.map(|field| field.name.as_str()).collect::<Vec<_>>(),
        "kind": join.rule.kind.name(),
        "matching": matching,
    })
}

fn window_json(window: Window) -> Json {
    match window {
        Window::Tumbling {
            size_ms,
            time,
            alignment,
        } => {
            let mut json = json!({ "size_ms": size_ms, "time": time.name() });
            merge(&mut json, json!(alignment));
            json!({ "tumbling": json })
        }
        Window::Sliding {
            size_ms,
            slide_ms,
            time,
            alignment,
        } => {
            let mut json = json!({ "size_ms": size_ms, "slide_ms": slide_ms, "time": time.name() });
            merge(&mut json, json!(alignment));
            json!({ "sliding": json })
        }
        Window::Cumulate {
            size_ms,
            step_ms,
            time,
            alignment,
        } => {
            let mut json = json!({ "size_ms": size_ms, "step_ms": step_ms, "time": time.name() });
            merge(&mut json, json!(alignment));
            json!({ "cumulate": json })
        }
        Window::Session { gap_ms, time } => {
            json!({ "session": { "gap_ms": gap_ms, "time": time.name() } })
        }
        Window::Count { size } => json!({ "count": { "size": size } }),
        Window::Running => json!("running"),
        Window::Global => json!("global"),
    }
}

fn sink_json(connector: &dyn SinkConnector) -> Json {
    let mut json = connector.describe().to_json();
    let delivery = json!({ "delivery": connector.delivery().name() });
    merge(&mut json, delivery);
    json
}

fn policy_json(policy: OnError) -> Json {
    match policy {
        OnError::Fail => json!("fail"),
        OnError::Skip => json!("skip"),
        OnError::DeadLetter => json!("dead_letter"),
        OnError::Retry(times) => json!({ "retry": times }),
    }
}

fn value_json(value: &Value) -> Json {
    match value {
        Value::Boolean(boolean) => json!(boolean),
        Value::Integer(integer) => json!(integer),
        Value::Number(number) => json!(number),
        Value::Text(text) => json!(text),
        Value::Texts(texts) => json!(texts),
    }
}

fn merge(into: &mut Json, from: Json) {
    if let (Json::Object(into), Json::Object(from)) = (into, from) {
        into.extend(from);
    }
}
