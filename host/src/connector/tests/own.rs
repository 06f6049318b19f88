//! A whole connector, source and sink, that only this test knows: nothing
//! outside its own code names it.

use std::path::Path;
use std::sync::{Arc, Mutex};

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{ArrayRef, Int64Array, RecordBatch};
use expect_test::expect;
use serde_json::json;
use toml::Spanned;

use crate::batch::{Batch, Block, Offsets, Payload};
use crate::checkpoint::snapshot::{Position, SinkSnapshot};
use crate::clock::SystemClock;
use crate::config::column::DeclaredColumn;
use crate::config::diagnostics::{Diagnostics, Look};
use crate::config::reader::Table;
use crate::config::{Config, Diagnostics as Mistakes};
use crate::connector::registry::Registry;
use crate::connector::{Description, Planning};
use crate::element::CheckpointId;
use crate::logic::{LoadError, Loader, Module};
use crate::plan::state::Delivery;
use crate::plan::{Plan, draw, json::to_json};
use crate::planner;
use crate::run::Job;
use crate::schema::{DataType, Field, Schema};
use crate::sink::{Ending, Sink, SinkConnector, SinkContext, SinkError, SinkKind, SinkSettings};
use crate::source::chunk::{Chunk, at_row};
use crate::source::{
    Arrival, Pending, SourceConnector, SourceContext, SourceInput, SourceKind, SourceSettings,
};

const CONNECTORS: Registry = Registry {
    sources: &[SourceKind {
        name: "countdown",
        read: read_source,
    }],
    sinks: &[SinkKind {
        name: "sum",
        read: read_sink,
    }],
};

/// Emits the numbers from `from` down to 1.
#[derive(Clone, Debug)]
struct Countdown {
    from: i64,
    columns: Vec<DeclaredColumn>,
}

fn read_source(
    table: &mut Table<'_>,
    mistakes: &mut Diagnostics,
) -> Option<Box<dyn SourceSettings>> {
    let from = table
        .required("from", "the first number", mistakes)
        .and_then(|value| value.integer(1..=100, mistakes));
    Some(Box::new(Countdown {
        from: from.map(Spanned::into_inner)?,
        columns: vec![DeclaredColumn {
            field: Field::new("number", DataType::Int64, false),
            place: table.place_of("type")?,
            timestamp_formats: Vec::new(),
        }],
    }))
}

impl SourceSettings for Countdown {
    fn columns(&self) -> &[DeclaredColumn] {
        &self.columns
    }

    fn plan(&self, _: &mut Planning<'_>) -> Option<Box<dyn SourceConnector>> {
        Some(Box::new(self.clone()))
    }
}

impl SourceConnector for Countdown {
    fn describe(&self) -> Description {
        Description {
            connector: "countdown",
            lines: vec![format!("from {}", self.from)],
            settings: json!({ "from": self.from }),
            ..Description::default()
        }
    }

    fn partitions(&self) -> Option<usize> {
        Some(1)
    }

    fn open<'a>(&'a self, context: &'a SourceContext) -> Pending<'a, Box<dyn SourceInput>> {
        let numbers = (1..=self.from).rev().collect::<Vec<_>>();
        let input = CountdownInput {
            left: Some(numbers),
            context: context.clone(),
        };
        Box::pin(async move { Ok(Box::new(input) as Box<dyn SourceInput>) })
    }
}

struct CountdownInput {
    /// All rows are emitted at once.
    left: Option<Vec<i64>>,
    context: SourceContext,
}

impl SourceInput for CountdownInput {
    fn partitions(&self) -> usize {
        1
    }

    fn partition(&self, _: usize) -> (Arc<str>, Position) {
        ("only".into(), at_row(0))
    }

    fn next<'a>(&'a mut self, _: &'a [usize]) -> Pending<'a, Arrival> {
        Box::pin(async move {
            let Some(numbers) = self.left.take() else {
                return Ok(Arrival::Over);
            };
            let rows = numbers.len();
            let columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(numbers))];
            let schema = Arc::new(self.context.schema.to_arrow());
            let payload = RecordBatch::try_new(schema, columns.clone()).expect("one column");
            let chunk = Chunk {
                columns,
                rows,
                block: Block {
                    source: self.context.node.clone(),
                    partition: "only".into(),
                    offsets: Offsets::From(0),
                    payload: Payload::Rows(payload),
                    envelopes: Vec::new(),
                },
                bad: Vec::new(),
                end: at_row(rows as u64),
                cut_times: None,
                times: None,
                taken_back: None,
            };
            Ok(Arrival::of(0, Some(chunk)))
        })
    }
}

/// The sum of all rows that the sinks of these tests have received.
static SUM: Mutex<i64> = Mutex::new(0);

#[derive(Debug)]
struct Sum;

fn read_sink(_: &mut Table<'_>, _: &mut Diagnostics) -> Option<Box<dyn SinkSettings>> {
    Some(Box::new(Sum))
}

impl SinkSettings for Sum {
    fn plan(&self, _: Option<&Schema>, _: &mut Planning<'_>) -> Option<Box<dyn SinkConnector>> {
        Some(Box::new(Sum))
    }
}

impl SinkConnector for Sum {
    fn describe(&self) -> Description {
        Description {
            connector: "sum",
            format: Some("number"),
            ..Description::default()
        }
    }

    fn delivery(&self) -> Delivery {
        Delivery::AtLeastOnce
    }

    fn open(&self, _: &str, _: &Arc<Schema>, _: &SinkContext) -> Result<Box<dyn Sink>, SinkError> {
        Ok(Box::new(Sum))
    }
}

impl Sink for Sum {
    fn write(&mut self, batch: &Batch) -> Result<(), SinkError> {
        let numbers = batch.columns[0].as_primitive::<Int64Type>();
        *SUM.lock().expect("no panic") += numbers.values().iter().sum::<i64>();
        Ok(())
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        Ok(())
    }

    fn barrier(&mut self, _: CheckpointId) -> Result<SinkSnapshot, SinkError> {
        Ok(SinkSnapshot::default())
    }

    fn finish(&mut self, _: Ending) -> Result<(), SinkError> {
        Ok(())
    }
}

struct NoPlugins;

impl Loader for NoPlugins {
    fn load(&self, _: &Path) -> Result<Arc<dyn Module>, LoadError> {
        Err(LoadError("there are no plugins here".to_owned()))
    }
}

fn plan(text: &str) -> Result<Plan, Mistakes> {
    let config = Config::parse_with("own.toml", text, CONNECTORS)?;
    planner::build(&config, Path::new("/pipelines"), &NoPlugins)
}

const PIPELINE: &str = r#"name = "own"
[sources.numbers]
type = "countdown"
from = 4
[sinks.total]
type = "sum"
input = "numbers"
"#;

#[test]
fn a_connector_is_read_drawn_and_run() {
    let planned = plan(PIPELINE).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    expect![[r#"
        own   1 task a keyed operator · batches of at most 4096 rows
        dead letters go to /pipelines/own.dead.jsonl
        no checkpoints: each run begins anew, and writes its rows again

        numbers   source, countdown · 1 task
        │   from 4
        │   event time is when the row is read, rows in order
        │   bad rows: dead letter
        │ : number: int64
        ▼
        total   sink, sum, number · 1 task
    "#]]
    .assert_eq(&draw::draw(&planned));
    let json = to_json(&planned);
    expect![[r#"{"ahead_ms_max":86400000,"bootstraps":false,"connector":"countdown","event_time":null,"event_time_from":null,"from":4,"idle_after_ms":null,"inputs":[],"is_replayable":true,"name":"numbers","on_error":"dead_letter","out_of_orderness_ms":0,"output":[{"name":"number","nullable":false,"type":"int64"}],"role":"source","tasks":1} {"connector":"sum","delivery":"at_least_once","format":"number","inputs":[{"exchange":"forward","from":"numbers"}],"name":"total","on_error":null,"output":[{"name":"number","nullable":false,"type":"int64"}],"role":"sink","tasks":1}"#]].assert_eq(&format!("{} {}", json["nodes"][0], json["nodes"][1]));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let job = Job::new(planned, Arc::new(SystemClock));
    runtime.block_on(job.run()).expect("it runs to its end");
    assert_eq!(*SUM.lock().expect("no panic"), 4 + 3 + 2 + 1);
}

#[test]
fn its_keys_and_name_are_suggested() {
    let said = |from: &str, to: &str| match plan(&PIPELINE.replace(from, to)) {
        Ok(_) => panic!("it was planned"),
        Err(mistakes) => mistakes.render(Look::Plain),
    };
    let all = [
        said("\"countdown\"", "\"count_down\""),
        said("from = 4", "form = 4"),
        said("\"sum\"", "\"file\""),
        said("type = \"sum\"\n", ""),
    ];
    expect![[r#"
        of each slip
          x `type` of source `numbers` cannot be `count_down`
           ,-[own.toml:3:8]
         3 | type = "count_down"
           :        ^^^^^^^^^^^^
           `----
          help: did you mean `countdown`?
          x source `numbers` has an unknown key `form`
           ,-[own.toml:4:1]
         4 | form = 4
           : ^^|^
           :   `-- unknown key
           `----
          help: did you mean `from`? The keys here are: type, event_time, watermark, on_error, checksum, from
          x `type` of sink `total` cannot be `file`
           ,-[own.toml:6:8]
         6 | type = "file"
           :        ^^^^^^
           `----
          help: the choices are: sum
          x sink `total` has no `type`
           ,-[own.toml:5:8]
         5 | [sinks.total]
           :        ^^^^^
           `----
          help: add `type = …`: sum
    "#]]
    .assert_eq(&format!("of each slip\n{}", all.concat()));
}
