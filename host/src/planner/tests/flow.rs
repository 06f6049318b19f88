//! Plans of good pipelines, as text and as JSON.

use expect_test::expect;

use super::support::{BASE, folder, mistakes, plan_in};
use std::path::Path;
use std::sync::Arc;

use crate::plan::NodeKind;
use crate::plan::change::{StateChange, changes, describe};
use crate::plan::draw::draw;
use crate::plan::json::to_json;
use crate::schema::Schema;

#[test]
fn the_base_has_no_mistakes_or_warnings() {
    assert_eq!(mistakes(BASE), "");
}

/// The ports as `(name: fields)`.
fn ports<'a>(ports: impl Iterator<Item = (&'a String, &'a Arc<Schema>)>) -> String {
    let port = |(name, schema): (&String, &Arc<Schema>)| {
        let names: Vec<&str> = schema.fields.iter().map(|field| &*field.name).collect();
        format!("({name}: {})", names.join(" "))
    };
    ports.map(port).collect()
}

#[test]
fn edges_lead_from_an_output_to_an_input() {
    let folder = folder();
    let (_, plan) = plan_in(folder.path(), BASE).unwrap_or_else(|m| panic!("{m}"));
    let nodes = plan.nodes.iter().map(|node| {
        let from: Vec<String> = node.edges().map(|edge| plan.output_name(edge)).collect();
        let inputs = ports(node.inputs.iter().map(|port| (&port.name, &port.schema)));
        let outputs = ports(node.outputs.iter().map(|port| (&port.name, &port.schema)));
        let line = [from.join(", "), inputs, node.name.clone(), outputs].join(" ");
        format!("{}\n", line.trim())
    });
    expect![[r#"
        actions (main: user_id item_id action quantity price note tags ts)
        actions (main: user_id quantity) clean (main: user_id item_id action quantity price note tags ts)
        clean (main: item_id quantity) added (main: user_id window_start window_end items)(late: user_id item_id action quantity price note tags ts)
        added (main: user_id window_start window_end items) out
        added.late (main: user_id item_id action quantity price note tags ts) too_late
    "#]]
    .assert_eq(&nodes.collect::<String>());
    let json = to_json(&plan);
    let late = json["nodes"].as_array().into_iter().flatten().last();
    assert_eq!(
        late.map(|node| &node["inputs"][0]["output"]),
        Some(&serde_json::json!("late"))
    );
}

#[test]
fn an_operator_has_the_event_time_of_its_source() {
    let time = "event_time = \"ts\"\nwatermark = { out_of_orderness = \"2s\" }\n";
    let given = "parameters = { max_quantity = 100 }\n";
    let wanted = "event_time = \"ts\"\nwatermark = { idle_after = \"30s\", max_ahead = \"1h\" }\n";
    let text = BASE.replace(time, "");
    let text = text.replace(given, &[given, wanted].concat());
    let folder = folder();
    let (_, plan) = plan_in(folder.path(), &text).unwrap_or_else(|m| panic!("{m}"));
    let drawn = draw(&plan);
    for line in [
        "event time from clean, rows in order, idle after 30s",
        "event time ts\n",
    ] {
        assert!(drawn.contains(line), "{drawn}");
    }
    let json = to_json(&plan);
    let [source, operator] = [&json["nodes"][0], &json["nodes"][1]];
    assert_eq!(source["event_time"], "ts");
    assert_eq!(source["event_time_from"], "clean");
    assert_eq!(source["ahead_ms_max"], 3_600_000);
    assert_eq!(operator["event_time"], "ts");
    let NodeKind::Transform(transform) = &plan.nodes[1].kind else {
        panic!("{operator}");
    };
    let time = transform.event_time.as_ref().expect("it was given");
    assert_eq!(time.ahead_ms_max, Some(3_600_000));
}

#[test]
fn merged_inputs_and_every_window() {
    let more = r#"
[sources.made]
type = "generator"
count = 1000
rate = 50.5
jitter = "3s"
on_error = "fail"

[sources.lines]
type = "tcp"
listen = "127.0.0.1:9000"
framing = "length_prefixed"
connections = 2
event_time = "at"
watermark = { idle_after = "30s" }
on_error = "skip"

[sources.lines.fields]
item_id = "utf8"
quantity = "int64"
at = "timestamp(rfc3339)"
"where?" = { city = "utf8", seen = "list<timestamp(s)?>" }
lines = [{ sku = "utf8" }]

[operators.top]
plugin = "cart.added"
input = ["made", "lines"]
key = "item_id"
window = { sliding = "60s", every = "5s" }
emit = { every = "1s" }
bounds = { start = "from", end = "to" }

[operators.visits]
plugin = "cart.added"
input = ["clean", "made"]
key = ["user_id", "item_id"]
window = { session = "30s", time = "processing" }
bounds = false
on_error = { retry = 3 }
limits = { memory = "64MiB", time = "1s", output = "1MiB" }

[operators.dozens]
plugin = "cart.added"
input = "lines"
window = { count = 12 }

[operators.totals]
plugin = "cart.added"
input = "made"
key = "item_id"
window = "running"

[sinks.tops]
type = "file"
input = "top"
path = "top.parquet"

[sinks.rest]
type = "blackhole"
input = ["dozens"]

[sinks.shown]
type = "console"
rows = 20
input = "visits"

[sinks.sums]
type = "file"
input = "totals"
path = "totals.csv"
"#;
    let folder = folder();
    let (_, plan) =
        plan_in(folder.path(), &format!("{BASE}{more}")).unwrap_or_else(|m| panic!("{m}"));
    let drawn = draw(&plan).replace(&folder.path().display().to_string(), "/pipelines");
    expect![[r#"
        cart   2 tasks a keyed operator · batches of at most 4096 rows
        dead letters go to /pipelines/cart.dead.jsonl
        no checkpoints: each run begins anew, and writes its rows again

        actions   source, file, json · 1 task
        │   /pipelines/events.jsonl
        │   event time ts, rows up to 2s out of order
        │   bad rows: dead letter
        │ : user_id: utf8, item_id: utf8, action: add|remove|view, quantity: int64, price: float64,
        │   note: utf8?, tags: list<utf8>, ts: timestamp
        ▼
        clean   filter cart.clean · 1 task
        │   max_quantity = 100, strict = false, share = 0.5, actions = []
        │   on error: dead letter · a call has 256MiB of memory, 5s, 256MiB of output
        │ : the same rows
        ├─▶ added   aggregate cart.added · 2 tasks
        │   │   key user_id · tumbling window of 1m, event time · late rows correct it for 10s
        │   │   a result replaces the one before of the same user_id, window_start, window_end
        │   │   on error: dead letter · a call has 256MiB of memory, 5s, 256MiB of output
        │   │ : user_id: utf8, window_start: timestamp, window_end: timestamp, items: int64
        │   ├─▶ out   sink, file, json · 1 task
        │   │       /pipelines/out.jsonl
        │   └─▶ late rows to too_late   sink, console · 1 task
        │         : user_id: utf8, item_id: utf8, action: add|remove|view, quantity: int64, price: float64,
        │           note: utf8?, tags: list<utf8>, ts: timestamp
        └─▶ visits   aggregate cart.added · 2 tasks
            │   merges clean, made
            │   key user_id, item_id · session window with a gap of 30s, processing time
            │   on error: 3 retries, then dead letter · a call has 64MiB of memory, 1s, 1MiB of output
            │ : user_id: utf8, item_id: utf8, items: int64
            ▼
            shown   sink, console · 1 task
                at most 20 rows

        made   source, generator · 1 task
        │   1000 rows, 50.5 a second, of 1000 users and 200 items, seed 0
        │   event time ts, rows up to 3s out of order
        │   bad rows: the pipeline fails
        │ : user_id: utf8, item_id: utf8, action: utf8, quantity: int64, ts: timestamp
        ├─▶ top   aggregate cart.added · 2 tasks
        │   │   merges made, lines
        │   │   key item_id · sliding window of 1m every 5s, event time · early results every 1s
        │   │   a result replaces the one before of the same item_id, from, to
        │   │   its rows come by 2 ways (tasks and inputs): which rows are late depends on their speed
        │   │   on error: dead letter · a call has 256MiB of memory, 5s, 256MiB of output
        │   │ : item_id: utf8, from: timestamp, to: timestamp, items: int64
        │   ▼
        │   tops   sink, file, parquet · 1 task
        │       /pipelines/top.parquet
        ├─▶ visits   as above
        └─▶ totals   aggregate cart.added · 2 tasks
            │   key item_id · running: a result after each row
            │   on error: dead letter · a call has 256MiB of memory, 5s, 256MiB of output
            │ : item_id: utf8, items: int64
            ▼
            sums   sink, file, csv · 1 task
                /pipelines/totals.csv

        lines   source, tcp, json · 1 task
        │   listens on 127.0.0.1:9000, length-prefixed frames, until 2 connections have ended
        │   event time at, rows in order, idle after 30s
        │   bad rows: counted and skipped
        │ : item_id: utf8, quantity: int64, at: timestamp, where: {city: utf8, seen: list<timestamp?>}?,
        │   lines: list<{sku: utf8}>
        ├─▶ top   as above
        └─▶ dozens   aggregate cart.added · 1 task
            │   no key: one group · count window of 12 rows
            │   on error: dead letter · a call has 256MiB of memory, 5s, 256MiB of output
            │ : window_start: timestamp, window_end: timestamp, items: int64
            ▼
            rest   sink, blackhole · 1 task
    "#]].assert_eq(&drawn);
}

#[test]
fn the_plan_for_programs() {
    let folder = folder();
    let (_, plan) = plan_in(folder.path(), BASE).unwrap_or_else(|m| panic!("{m}"));
    let json = to_json(&plan);
    let keys: Vec<&String> = json
        .as_object()
        .into_iter()
        .flat_map(|object| object.keys())
        .collect();
    expect![[r#"
        [
            "batch_rows",
            "dead_letters",
            "name",
            "nodes",
            "parallelism",
            "restart",
            "state",
        ]
    "#]]
    .assert_debug_eq(&keys);
    let aggregate = serde_json::to_string_pretty(&json["nodes"][2]).unwrap_or_default();
    expect![[r#"
        {
          "allowed_lateness_ms": 10000,
          "bounds": {
            "end": "window_end",
            "start": "window_start"
          },
          "digest": "native",
          "discards": false,
          "early_every_ms": null,
          "emit": "change",
          "inputs": [
            {
              "exchange": {
                "hash": [
                  "user_id"
                ]
              },
              "from": "clean"
            }
          ],
          "key": [
            "user_id"
          ],
          "kind": "aggregate",
          "limits": {
            "call_ms_max": 5000,
            "memory_bytes_max": 268435456,
            "output_bytes_max": 268435456
          },
          "name": "added",
          "on_error": "dead_letter",
          "operator": "cart.added",
          "output": [
            {
              "name": "user_id",
              "nullable": false,
              "type": "utf8"
            },
            {
              "name": "window_start",
              "nullable": false,
              "type": "timestamp"
            },
            {
              "name": "window_end",
              "nullable": false,
              "type": "timestamp"
            },
            {
              "name": "items",
              "nullable": false,
              "type": "int64"
            }
          ],
          "parameters": {},
          "role": "aggregate",
          "tasks": 2,
          "timing": null,
          "ttl_ms": null,
          "window": {
            "tumbling": {
              "size_ms": 60000,
              "time": "event"
            }
          }
        }"#]]
    .assert_eq(&aggregate);
}

#[test]
fn files_are_read_once_and_in_the_order_of_their_names() {
    let folder = folder();
    let path = r#"path = ["events.jsonl", "./ev*.jsonl"]"#;
    let text = BASE.replace(r#"path = "events.jsonl""#, path);
    let (_, plan) = plan_in(folder.path(), &text).unwrap_or_else(|m| panic!("{m}"));
    let NodeKind::Source(source) = &plan.nodes[0].kind else {
        panic!("the first node is the source");
    };
    let json = source.connector.describe().to_json();
    let names = json["paths"].as_array().into_iter().flatten().map(|path| {
        let path = Path::new(path.as_str().unwrap_or_default());
        path.file_name()
    });
    expect![[r#"
        [
            Some(
                "events-2.jsonl",
            ),
            Some(
                "events.jsonl",
            ),
        ]
    "#]]
    .assert_debug_eq(&names.collect::<Vec<_>>());
}

#[test]
fn operators_without_a_plugin_are_drawn_with_what_they_do() {
    let folder = folder();
    let text = BASE.replace(
        "plugin = \"cart.added\"",
        "aggregate = { rows = \"count()\", best = \"top(3, price)\", noted = \"last(note)\" }",
    ) + "
[operators.once]
deduplicate = { by = \"user_id\", within = \"1h\" }
input = \"actions\"
[operators.in_order]
order = \"event_time\"
input = \"once\"
key = \"user_id\"
[operators.few]
select = { user = \"user_id\", at = \"ts\" }
input = \"in_order\"
[operators.fewer]
drop = \"user\"
input = \"few\"
on_error = \"skip\"
[sinks.few]
type = \"blackhole\"
input = \"fewer\"
";
    let (_, plan) = plan_in(folder.path(), &text.replace("sinks.few", "sinks.few_out"))
        .unwrap_or_else(|m| panic!("{m}"));
    let drawn = draw(&plan).replace(&folder.path().display().to_string(), "/pipelines");
    expect![[r#"
        cart   2 tasks a keyed operator · batches of at most 4096 rows
        dead letters go to /pipelines/cart.dead.jsonl
        no checkpoints: each run begins anew, and writes its rows again

        actions   source, file, json · 1 task
        │   /pipelines/events.jsonl
        │   event time ts, rows up to 2s out of order
        │   bad rows: dead letter
        │ : user_id: utf8, item_id: utf8, action: add|remove|view, quantity: int64, price: float64,
        │   note: utf8?, tags: list<utf8>, ts: timestamp
        ├─▶ clean   filter cart.clean · 1 task
        │   │   max_quantity = 100, strict = false, share = 0.5, actions = []
        │   │   on error: dead letter · a call has 256MiB of memory, 5s, 256MiB of output
        │   │ : the same rows
        │   ▼
        │   added   aggregate, built in · 2 tasks
        │   │   key user_id · tumbling window of 1m, event time · late rows correct it for 10s
        │   │   a result replaces the one before of the same user_id, window_start, window_end
        │   │   rows = "count()", best = "top(3, price)", noted = "last(note)"
        │   │   on error: dead letter
        │   │ : user_id: utf8, window_start: timestamp, window_end: timestamp, rows: int64,
        │   │   best: list<float64>, noted: utf8?
        │   ├─▶ out   sink, file, json · 1 task
        │   │       /pipelines/out.jsonl
        │   └─▶ late rows to too_late   sink, console · 1 task
        │         : user_id: utf8, item_id: utf8, action: add|remove|view, quantity: int64, price: float64,
        │           note: utf8?, tags: list<utf8>, ts: timestamp
        └─▶ once   deduplicate, built in · 2 tasks
            │   by = ["user_id"], within = "1h"
            │   on error: dead letter
            │ : user_id: utf8, item_id: utf8, action: add|remove|view, quantity: int64, price: float64,
            │   note: utf8?, tags: list<utf8>, ts: timestamp
            ▼
            in_order   order, built in · 2 tasks
            │   key user_id · rows in order of event time
            │   its rows come by 2 ways (tasks and inputs): which rows are late depends on their speed
            │   on error: dead letter
            │ : user_id: utf8, item_id: utf8, action: add|remove|view, quantity: int64, price: float64,
            │   note: utf8?, tags: list<utf8>, ts: timestamp
            ▼
            few   select, built in · 2 tasks
            │   user = "user_id", at = "ts"
            │   on error: dead letter
            │ : user: utf8, at: timestamp
            ▼
            fewer   drop, built in · 2 tasks
            │   drop = ["user"]
            │   on error: counted and skipped
            │ : at: timestamp
            ▼
            few_out   sink, blackhole · 1 task
    "#]].assert_eq(&drawn);
    let json = to_json(&plan);
    let nodes = json["nodes"].as_array().into_iter().flatten();
    let added: Vec<_> = nodes.filter(|node| node["name"] == "added").collect();
    let of = |key: &str| added[0][key].clone();
    assert_eq!(of("operator"), "aggregate");
    assert_eq!(of("limits"), serde_json::Value::Null);
    assert_eq!(of("parameters")["best"], "top(3, price)");
}

/// What happens to the state of `added` if its functions change.
fn state_change(then: &str, now: &str) -> StateChange {
    let folder = folder();
    let described = |aggregate: &str| {
        let text = BASE.replace("plugin = \"cart.added\"", aggregate);
        let (_, plan) = plan_in(folder.path(), &text).unwrap_or_else(|m| panic!("{m}"));
        describe(&plan)
    };
    let changes = changes(&described(then), &described(now));
    let added = changes.into_iter().find(|change| change.name == "added");
    added.unwrap_or_else(|| panic!("it is in both")).state
}

#[test]
fn a_state_is_kept_while_its_functions_are_the_same() {
    let then = "aggregate = { rows = \"count()\", total = \"sum(quantity)\" }";
    let renamed = "aggregate = { sum = \"sum( quantity )\", rows = \"count()\" }";
    assert_eq!(state_change(then, renamed), StateChange::Kept);
    let other = "aggregate = { rows = \"count()\", total = \"max(quantity)\" }";
    assert_eq!(
        state_change(then, other),
        StateChange::Incompatible(
            "its state was count(): int64, sum(quantity): int64 and is now count(): int64, \
             max(quantity): int64"
                .to_owned()
        )
    );
}

#[test]
fn joins_have_two_inputs() {
    let more = r#"
[sources.buys]
type = "file"
path = "events-2.jsonl"
event_time = "ts"
fields = { user = "utf8", amount = "int64", gone = "bool?", ts = "timestamp" }

[operators.near]
join = { kind = "left", before = "5m", after = "unbounded" }
input = { left = ["actions", "clean"], right = "buys" }
key = { left = "user_id", right = "user" }
select = { user = "key.user_id", item = "left.item_id", amount = "right.amount", note = "left.note" }

[operators.together]
join = { kind = "full" }
window = { tumbling = "1h" }
input = { left = "near", right = "near.late_right" }
key = "user"
select = { user = "key.user", amount = "left.amount", ts = "right.ts" }

[operators.versions]
join = { kind = "inner", as_of = "event_time", tombstone = "gone" }
input = { left = "together", right = "buys" }
key = "user"
select = { amount = "right.amount" }

[sinks.joined]
type = "console"
input = "versions"
"#;
    let folder = folder();
    let (_, plan) =
        plan_in(folder.path(), &format!("{BASE}{more}")).unwrap_or_else(|m| panic!("{m}"));
    let drawn = draw(&plan);
    let drawn = drawn.replace(&folder.path().display().to_string(), "/pipelines");
    let from = drawn.find("near   ").expect("it is drawn");
    expect![[r#"
        near   left join · 2 tasks
        │       │   left from actions, clean
        │       │   right from buys
        │       │   key user_id · right rows from 5m before to any time after the left one
        │       │   left rows without a match come out when the input ends
        │       │   its rows come by 3 ways (tasks and inputs): which rows are late depends on their speed
        │       │ : user: utf8, item: utf8, amount: int64?, note: utf8?
        │       ├─▶ together   full join · 2 tasks
        │       │   │   left from near
        │       │   │   right from near.late_right
        │       │   │   key user · tumbling window of 1h, event time
        │       │   │   its rows come by 4 ways (tasks and inputs): which rows are late depends on their speed
        │       │   │ : user: utf8, amount: int64?, ts: timestamp?
        │       │   ▼
        │       │   versions   inner join · 2 tasks
        │       │   │   left from together
        │       │   │   right from buys
        │       │   │   key user · the last right row as of the left one's event time
        │       │   │   its rows come by 3 ways (tasks and inputs): which rows are late depends on their speed
        │       │   │ : amount: int64
        │       │   ▼
        │       │   joined   sink, console · 1 task
        │       └─▶ late_right rows to together   as above
        └─▶ near   as above

        buys   source, file, json · 1 task
        │   /pipelines/events-2.jsonl
        │   event time ts, rows in order
        │   bad rows: dead letter
        │ : user: utf8, amount: int64, gone: bool?, ts: timestamp
        ├─▶ near   as above
        └─▶ versions   as above
    "#]]
    .assert_eq(&drawn[from..]);
    let json = to_json(&plan);
    let nodes = json["nodes"].as_array().into_iter().flatten();
    let mut nodes = nodes.filter(|node| node["name"] == "near");
    let near = nodes.next().expect("it is there");
    expect![[r#"
        {
          "inputs": [
            {
              "exchange": {
                "hash": [
                  "user_id"
                ]
              },
              "from": "actions",
              "port": "left"
            },
            {
              "exchange": {
                "hash": [
                  "user_id"
                ]
              },
              "from": "clean",
              "port": "left"
            },
            {
              "exchange": {
                "hash": [
                  "user"
                ]
              },
              "from": "buys",
              "port": "right"
            }
          ],
          "key": [
            "user_id"
          ],
          "kind": "left",
          "matching": {
            "interval": {
              "after_ms": null,
              "before_ms": 300000
            }
          },
          "name": "near",
          "on_error": null,
          "output": [
            {
              "name": "user",
              "nullable": false,
              "type": "utf8"
            },
            {
              "name": "item",
              "nullable": false,
              "type": "utf8"
            },
            {
              "name": "amount",
              "nullable": true,
              "type": "int64"
            },
            {
              "name": "note",
              "nullable": true,
              "type": "utf8"
            }
          ],
          "role": "join",
          "tasks": 2
        }"#]]
    .assert_eq(&format!("{near:#}"));
}
