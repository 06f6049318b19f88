//! The pipeline that tests start from, and its plugin: native code that
//! describes itself and computes nothing.

use std::path::Path;
use std::sync::Arc;

use crate::config::{Config, Diagnostics, Look};
use crate::logic::{
    FOUND, Factory, Failure, FailureKind, INTERACTIONS, Instance, KeptPlugin, Kind, Limits,
    LoadError, Loader, MAIN, Module, ModuleInfo, OperatorInfo, Parameter, PluginVersion, Port,
    REQUESTS, Stage, TABLE, Value, ValueType,
};
use crate::plan::Plan;
use crate::planner;
use crate::schema::{DataType, Field, Schema};

pub(super) const BASE: &str = r#"name = "cart"
parallelism = 2

[plugins.cart]
path = "cart.wasm"

[sources.actions]
type = "file"
path = "events.jsonl"
event_time = "ts"
watermark = { out_of_orderness = "2s" }

[sources.actions.fields]
user_id = "utf8"
item_id = "utf8"
action = "add|remove|view"
quantity = "int64"
price = "float64"
note = "utf8?"
tags = "list<utf8>"
ts = "timestamp"

[operators.clean]
plugin = "cart.clean"
input = "actions"
parameters = { max_quantity = 100 }

[operators.added]
plugin = "cart.added"
input = "clean"
key = "user_id"
window = { tumbling = "1m" }
allowed_lateness = "10s"

[sinks.out]
type = "file"
input = "added"
path = "out.jsonl"

[sinks.too_late]
type = "console"
input = "added.late"
"#;

/// The messages about a pipeline, with the folder's name replaced.
pub(super) fn mistakes(text: &str) -> String {
    let folder = folder();
    let said = match plan_in(folder.path(), text) {
        Ok((config, plan)) => planner::warnings(&config, &plan),
        Err(mistakes) => mistakes,
    };
    let said = said.render(Look::Plain);
    said.replace(&folder.path().display().to_string(), "/pipelines")
}

pub(super) fn plan_in(folder: &Path, text: &str) -> Result<(Config, Plan), Diagnostics> {
    let config = Config::parse("cart.toml", text)?;
    let plan = planner::build(&config, folder, &FakeLoader)?;
    Ok((config, plan))
}

/// A folder with the files that the tests' pipelines name.
pub(super) fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let files = [
        "events.jsonl",
        "events-2.jsonl",
        ".hidden.jsonl",
        "table.csv",
        "text.wasm",
    ];
    for file in files {
        std::fs::write(folder.path().join(file), "").expect("an empty file");
    }
    std::fs::write(folder.path().join("prices.csv"), "item,price,when\nx,1,2\n")
        .expect("a file with a header");
    let data = folder.path().join("data");
    std::fs::create_dir(&data).expect("a folder");
    std::os::unix::fs::symlink(&data, folder.path().join("link")).expect("a link");
    folder
}

pub(super) struct FakeLoader;

impl Loader for FakeLoader {
    fn load(&self, path: &Path) -> Result<Arc<dyn Module>, LoadError> {
        match path.file_name().and_then(|name| name.to_str()) {
            Some("cart.wasm") => Ok(Arc::new(FakeModule(cart()))),
            _ => Err(LoadError(
                "it is not a WebAssembly component: build it for wasm32-wasip2".into(),
            )),
        }
    }

    fn kept(&self) -> Option<Vec<PluginVersion>> {
        let version = |name: &str, version: &str| PluginVersion {
            name: name.to_owned(),
            version: version.to_owned(),
        };
        Some(vec![
            version("cart", "0.1.0"),
            version("words", "1.0.0"),
            version("cart", "0.2.0"),
        ])
    }

    fn load_kept(&self, wanted: &KeptPlugin) -> Option<Result<Arc<dyn Module>, LoadError>> {
        match wanted.to_string().as_str() {
            "cart 0.1.0" => Some(Ok(Arc::new(FakeModule(cart())))),
            "words 1.0.0" => Some(Err(LoadError("it was built for another version".into()))),
            _ => None,
        }
    }
}

struct FakeModule(ModuleInfo);

impl Module for FakeModule {
    fn info(&self) -> &ModuleInfo {
        &self.0
    }

    /// Refuses a `max_quantity` below zero, as a plugin may.
    fn factory(
        &self,
        operator: &str,
        arguments: &[(String, Value)],
        _limits: Limits,
        _label: &str,
    ) -> Result<Arc<dyn Factory>, Failure> {
        let negative = |value: &Value| matches!(value, Value::Integer(number) if *number < 0);
        if arguments.iter().any(|(_, value)| negative(value)) {
            return Err(Failure::new(
                FailureKind::Open,
                "max_quantity must not be negative",
            ));
        }
        let info = self.0.operators.iter().find(|info| info.name == operator);
        let info = info.expect("an operator that was described").clone();
        Ok(Arc::new(FakeFactory(info)))
    }
}

struct FakeFactory(OperatorInfo);

impl Factory for FakeFactory {
    fn info(&self) -> &OperatorInfo {
        &self.0
    }

    fn instance(&self) -> Result<Instance, Failure> {
        unreachable!("plans are not run here")
    }
}

fn cart() -> ModuleInfo {
    let text = |name| Field::new(name, DataType::Utf8, false);
    let number = |name| Field::new(name, DataType::Int64, false);
    let time = |name| Field::new(name, DataType::Timestamp, false);
    let added = [text("item_id"), number("quantity")];
    let mut clean = operator(
        "clean",
        Kind::Filter,
        &[text("user_id"), number("quantity")],
        &[],
    );
    clean.parameters = vec![
        parameter("max_quantity", ValueType::Integer, None),
        parameter("strict", ValueType::Boolean, Some(Value::Boolean(false))),
        parameter("share", ValueType::Number, Some(Value::Number(0.5))),
        parameter("actions", ValueType::Texts, Some(Value::Texts(Vec::new()))),
        Parameter {
            optional: true,
            ..parameter("label", ValueType::Text, None)
        },
    ];
    let record = |name, fields: Vec<Field>, nullable| {
        Field::new(name, DataType::Record(fields.into()), nullable)
    };
    let sides = [
        record("left", vec![text("item_id")], false),
        record("right", vec![number("amount")], true),
    ];
    let lines = [
        operator(
            "priced",
            Kind::Transform,
            &[text("item_id")],
            &[text("item_id"), number("cents")],
        ),
        operator(
            "parse",
            Kind::Transform,
            &[text("line")],
            &[text("user_id"), time("ts")],
        ),
        operator("noted", Kind::Transform, &[text("note")], &[text("note")]),
        operator("paired", Kind::Transform, &sides, &[text("item_id")]),
        operator("twins", Kind::Transform, &[], &[text("a"), number("a")]),
        operator("added", Kind::Aggregate, &added, &[number("items")]),
        operator(
            "per_user",
            Kind::Aggregate,
            &added,
            &[text("user_id"), number("items")],
        ),
        operator(
            "recounted",
            Kind::Aggregate,
            &[number("items")],
            &[number("items")],
        ),
        OperatorInfo {
            key: Arc::new(Schema::new(vec![text("user_id"), number("shop")])),
            ..operator("taxed", Kind::Aggregate, &added, &[number("items")])
        },
        operator("spans", Kind::Aggregate, &added, &[time("window_start")]),
        operator("alert", Kind::Join, &added, &[]),
        OperatorInfo {
            inputs: vec![
                port("requests", &[text("item_id"), number("quantity")]),
                port("stock", &[number("quantity")]),
            ],
            outputs: vec![
                port("reserved", &[number("quantity")]),
                port("refused", &[text("item_id"), text("reason")]),
            ],
            key: Arc::new(Schema::new(vec![text("item_id")])),
            ..operator("reserve", Kind::Process, &[], &[])
        },
        OperatorInfo {
            inputs: Vec::new(),
            ..operator("blind", Kind::Filter, &[], &[])
        },
    ];
    let mut operators = vec![clean];
    operators.extend(lines);
    operators.extend(suggest());
    operators.extend(totals());
    ModuleInfo {
        name: "cart".into(),
        version: "0.1.0".into(),
        doc: String::new(),
        operators,
    }
}

/// A recommender and its stages.
fn suggest() -> Vec<OperatorInfo> {
    let text = |name| Field::new(name, DataType::Utf8, false);
    let interaction = [text("action")];
    let request = [Field::new("note", DataType::Utf8, true)];
    let (user, item) = ([text("user")], [text("item")]);
    let stage = |stage: Stage, key: &[Field], inputs: Vec<Port>, outputs: Vec<Port>| OperatorInfo {
        key: Arc::new(Schema::new(key.to_vec())),
        ..OperatorInfo::new(&stage.of("suggest"), Kind::Process, inputs, outputs)
    };
    let main = |fields: &[Field]| vec![port(MAIN, fields)];
    let answer = [text("user"), text("items")];
    let counted = [text("user"), text("item"), text("action")];
    let asked = [text("user"), text("note")];
    let to_all = || vec![port("models", &item), port("answers", &user)];
    let both = vec![port(REQUESTS, &asked), port(INTERACTIONS, &counted)];
    let mut came = vec![text("recommend_user")];
    came.extend(interaction.clone());
    let inputs = vec![port(INTERACTIONS, &interaction), port(REQUESTS, &request)];
    vec![
        OperatorInfo::new("suggest", Kind::Recommend, inputs, main(&answer)),
        stage(Stage::Counts, &item, main(&came), main(&counted)),
        stage(Stage::Requests, &user, main(&request), main(&asked)),
        stage(Stage::Profiles, &user, both, to_all()),
        stage(Stage::ProfilesAsking, &user, main(&counted), to_all()),
        stage(Stage::Models, &[], main(&item), main(&user)),
        stage(Stage::Answers, &user, main(&user), main(&answer)),
    ]
}

/// A look-up and its stages.
fn totals() -> Vec<OperatorInfo> {
    let text = |name| Field::new(name, DataType::Utf8, false);
    let number = |name, data_type| Field::new(name, data_type, false);
    let row = [text("user_id"), text("item_id")];
    let key = [text("item")];
    let table = [number("price", DataType::Float64)];
    let answer = [text("user_id"), number("total", DataType::Float64)];
    let identity = [
        number("lookup_high", DataType::UInt64),
        number("lookup_low", DataType::UInt64),
    ];
    let parts = |name, rest: &[Field]| {
        let mut fields = identity.to_vec();
        fields.push(number(name, DataType::UInt32));
        fields.extend_from_slice(rest);
        fields
    };
    let record = |name, fields: &[Field], nullable| {
        Field::new(name, DataType::Record(fields.into()), nullable)
    };
    let rows = port(
        "rows",
        &parts("lookup_parts", &[record("row", &row, false)]),
    );
    let keys = port("keys", &parts("lookup_part", &key));
    let found = port(FOUND, &parts("lookup_part", &[record(FOUND, &table, true)]));
    let stage = |stage: Stage, inputs, outputs| {
        OperatorInfo::new(&stage.of("totals"), Kind::Process, inputs, outputs)
    };
    let main = |fields: &[Field]| vec![port(MAIN, fields)];
    let inputs = vec![port(MAIN, &row), port(TABLE, &table)];
    vec![
        OperatorInfo {
            key: Arc::new(Schema::new(key.to_vec())),
            ..OperatorInfo::new("totals", Kind::Lookup, inputs, main(&answer))
        },
        stage(Stage::Wanted, main(&row), vec![rows.clone(), keys]),
        stage(Stage::Combined, vec![rows, found], main(&answer)),
    ]
}

fn port(name: &str, fields: &[Field]) -> Port {
    Port {
        name: name.into(),
        schema: Arc::new(Schema::new(fields.to_vec())),
    }
}

fn operator(name: &str, kind: Kind, input: &[Field], output: &[Field]) -> OperatorInfo {
    OperatorInfo::new(
        name,
        kind,
        vec![port(MAIN, input)],
        vec![port(MAIN, output)],
    )
}

fn parameter(name: &str, value_type: ValueType, default: Option<Value>) -> Parameter {
    Parameter {
        name: name.into(),
        value_type,
        default,
        optional: false,
        doc: format!("The {name} of a row."),
    }
}
