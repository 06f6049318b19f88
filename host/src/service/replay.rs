//! Rows of dead letters that go through their pipeline again, each where it has failed: a
//! row that an operator failed on, or a sink was refused, goes to the input of that one, and
//! one that a source could not decode to all that read the source. A replay is a revision of the pipeline with a source
//! more for each such place, so that checkpoints know how far it has come.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use arrow_array::ArrayRef;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value as Json;
use serde_json::value::{RawValue, to_raw_value};

use super::letters::{Replay, ReplayRow};
use crate::config::{
    Config, EventTimeConfig, InputConfig, InputName, SourceConfig, Spanned, WatermarkConfig,
};
use crate::connector::replay::ReplayedRows;
use crate::dead_letter::DeadLetter;
use crate::decode::Decoder;
use crate::element::NodeId;
use crate::format::{CsvFormat, Format, RowFormat};
use crate::json::render_columns;
use crate::plan::{CHANGES, EventTime, InputPort, Node, NodeKind, Plan};
use crate::schema::{DataType, Field, Schema};
use crate::source::SourceConnector;
use crate::suggest;
use crate::timestamp;

/// Where the row of a dead letter goes, and what it is; else why it cannot be replayed.
/// `edited` is a row to take in its place.
pub fn row_of(
    plan: &Plan,
    id: &str,
    letter: &DeadLetter,
    edited: Option<&str>,
) -> Result<ReplayRow, String> {
    let name = &letter.node;
    let Some(at) = plan.nodes.iter().position(|node| node.name == *name) else {
        return Err(format!("the pipeline has no node `{name}` any more"));
    };
    let node = &plan.nodes[at];
    match &node.kind {
        NodeKind::Source(source) => {
            if let EventTime::Operator(operator) = &source.event_time {
                let operator = &plan.nodes[*operator].name;
                return Err(format!(
                    "rows of source `{name}` get their event time from operator `{operator}`, \
                     which knows only those that the source has read"
                ));
            }
            if source.event_time.is_of_changes() {
                return Err(format!(
                    "rows of source `{name}` are changes, which come in their order or not at all"
                ));
            }
            let connector = &*source.connector;
            let fields = &node.schema().fields;
            let (own, beside) = fields.split_at(fields.len() - connector.columns_beside_rows());
            let row = match edited {
                Some(edited) => {
                    check_names(edited, fields)?;
                    edited.to_owned()
                }
                None => {
                    let schema = Schema::new(own.to_vec());
                    decoded(letter, connector, &schema)?
                }
            };
            let row = with_beside(row, beside, connector.told_beside_row(letter))?;
            check(&row, node.schema())?;
            Ok(ReplayRow {
                letter: id.to_owned(),
                node: name.clone(),
                port: None,
                time_ms: None,
                row,
            })
        }
        NodeKind::Join(_) => Err(format!("`{name}` reads no rows by itself")),
        kind @ (NodeKind::Transform(_)
        | NodeKind::Aggregate(_)
        | NodeKind::Process(_)
        | NodeKind::Sink(_)) => {
            let row = failed_row(letter)?;
            if reads_changes(plan, at) {
                return Err(format!(
                    "rows of `{name}` may take others back, which a dead letter does not tell"
                ));
            }
            let time_ms = match &letter.event_time {
                Some(time) => {
                    let time_ms = timestamp::from_rfc3339(time.as_bytes());
                    Some(time_ms.ok_or_else(|| format!("{time} is no event time"))?)
                }
                // Sinks need none.
                None if matches!(kind, NodeKind::Sink(_)) => None,
                None => return Err("the row has no event time yet".to_owned()),
            };
            let port = port_of(plan, node, row)?;
            if let Some(edited) = edited {
                check_names(edited, &port_schema(plan, port).fields)?;
            }
            let row = edited.unwrap_or(row);
            check(row, port_schema(plan, port))?;
            Ok(ReplayRow {
                letter: id.to_owned(),
                node: name.clone(),
                port: (node.inputs.len() > 1).then(|| port.name.clone()),
                time_ms,
                row: row.to_owned(),
            })
        }
    }
}

/// The row that an operator failed on, as JSON.
fn failed_row(letter: &DeadLetter) -> Result<&str, String> {
    // Its time cannot be read of what the operator has made of the row.
    let is_of_output = letter.kind == "event_time";
    let row = match letter.offset {
        Some(_) => letter.row.as_deref(),
        // It was computed from several.
        None => letter.payload.as_deref().filter(|_| letter.row.is_none()),
    };
    row.filter(|_| !is_of_output)
        .ok_or_else(|| "no single row has failed, but a state, a timer or a result".to_owned())
}

/// The text that a source could not decode, as a row, if it can be decoded now.
fn decoded(
    letter: &DeadLetter,
    connector: &dyn SourceConnector,
    schema: &Schema,
) -> Result<String, String> {
    let format = connector.payload_format();
    if let Format::Csv(CsvFormat { header: true, .. }) = format.format {
        return Err(
            "a line of CSV does not tell which columns it has, where a header names them: give \
             its `row` as JSON"
                .to_owned(),
        );
    }
    let bytes = match (&letter.payload, &letter.payload_base64) {
        (Some(text), _) => text.clone().into_bytes(),
        (None, Some(base64)) => BASE64_STANDARD
            .decode(base64)
            .map_err(|error| error.to_string())?,
        (None, None) => return Err("it has no payload: give its `row` as JSON".to_owned()),
    };
    let mut decoder = Decoder::new(&format, schema);
    connector.teach(&mut decoder, &bytes)?;
    let columns = decode_with(&mut decoder, &[&bytes])?;
    Ok(render_columns(schema, &columns, 0))
}

/// A row of a source with the columns that are in no payload: as the row has them, or else as
/// its letter tells them.
fn with_beside(
    row: String,
    beside: &[Field],
    told: Vec<Result<Json, String>>,
) -> Result<String, String> {
    if beside.is_empty() {
        return Ok(row);
    }
    let values: Result<BTreeMap<String, Box<RawValue>>, _> = serde_json::from_str(&row);
    let mut values = values.map_err(|error| format!("the row is no object: {error}"))?;
    for (Field { name, .. }, told) in beside.iter().zip(told) {
        if !values.contains_key(name) {
            let told = told.map_err(|why| format!("{why}: give its `row`, with `{name}`"))?;
            let told = to_raw_value(&told).map_err(|error| error.to_string())?;
            values.insert(name.clone(), told);
        }
    }
    serde_json::to_string(&values).map_err(|error| error.to_string())
}

/// Checks that somebody who has written a row means fields that there are: what others say
/// would be lost.
fn check_names(row: &str, fields: &[Field]) -> Result<(), String> {
    // What is no row, the decoder tells.
    let Ok(Json::Object(row)) = serde_json::from_str(row) else {
        return Ok(());
    };
    check_names_of(&row, fields, "")
}

fn check_names_of(
    row: &serde_json::Map<String, Json>,
    fields: &[Field],
    within: &str,
) -> Result<(), String> {
    for (name, value) in row {
        let Some(field) = fields.iter().find(|field| field.name == *name) else {
            let names = fields.iter().map(|field| field.name.as_str());
            let help = suggest::help(name, "fields", names);
            return Err(format!("there is no field `{within}{name}`: {help}"));
        };
        check_names_in(value, &field.data_type, &format!("{within}{name}"))?;
    }
    Ok(())
}

fn check_names_in(value: &Json, data_type: &DataType, place: &str) -> Result<(), String> {
    match (value, data_type) {
        (Json::Object(record), DataType::Record(fields)) => {
            check_names_of(record, fields, &format!("{place}."))
        }
        (Json::Array(elements), DataType::List(element)) => elements
            .iter()
            .try_for_each(|value| check_names_in(value, &element.data_type, place)),
        _ => Ok(()),
    }
}

/// Decodes rows, all of which must be good.
fn decode(format: &RowFormat, schema: &Schema, rows: &[&[u8]]) -> Result<Vec<ArrayRef>, String> {
    decode_with(&mut Decoder::new(format, schema), rows)
}

fn decode_with(decoder: &mut Decoder, rows: &[&[u8]]) -> Result<Vec<ArrayRef>, String> {
    let mut spans: Vec<Range<usize>> = Vec::with_capacity(rows.len());
    for row in rows {
        let start = spans.last().map_or(0, |last| last.end);
        spans.push(start..start + row.len());
    }
    let spans: Vec<(u32, u32)> = spans
        .iter()
        .map(|span| (span.start as u32, span.end as u32))
        .collect();
    let decoded = decoder.decode(&rows.concat(), &spans);
    match decoded.bad.into_iter().next() {
        None => Ok(decoded.columns),
        Some(bad) => Err(bad.error),
    }
}

fn check(row: &str, schema: &Schema) -> Result<(), String> {
    decode(&Format::Json.into(), schema, &[row.as_bytes()]).map(drop)
}

/// Whether rows that come to a node may take others back.
fn reads_changes(plan: &Plan, at: NodeId) -> bool {
    plan.nodes[at].edges().any(|edge| {
        let from = &plan.nodes[edge.from];
        let passes_on = matches!(from.kind, NodeKind::Transform(_));
        if let NodeKind::Source(source) = &from.kind
            && source.event_time.is_of_changes()
        {
            return true;
        }
        from.outputs[edge.output].name == CHANGES || (passes_on && reads_changes(plan, edge.from))
    })
}

/// The input that a row has come by: the one that has all of its fields.
fn port_of<'p>(plan: &Plan, node: &'p Node, row: &str) -> Result<&'p InputPort, String> {
    let row: Json = serde_json::from_str(row).map_err(|error| error.to_string())?;
    let has = |port: &&InputPort| {
        let mut fields = port_schema(plan, port).fields.iter();
        fields.all(|field| row.get(&field.name).is_some())
    };
    let mut ports = node.inputs.iter().filter(has);
    match (ports.next(), ports.next()) {
        (Some(port), None) => Ok(port),
        (None, _) => Err(format!(
            "the row does not have the fields that come to `{}` now",
            node.name
        )),
        (Some(_), Some(_)) => Err(format!(
            "the row may have come by several inputs of `{}`",
            node.name
        )),
    }
}

/// The columns that come in by a port.
fn port_schema<'p>(plan: &'p Plan, port: &'p InputPort) -> &'p Schema {
    match port.edges.first() {
        Some(edge) => &plan.nodes[edge.from].outputs[edge.output].schema,
        None => &port.schema,
    }
}

/// What the names of its sources begin with: nothing in a pipeline's file can have such a name.
const PREFIX: &str = "replay ";

/// Whether a source has this name that reads dead letters again.
pub fn is_replay(source: &str) -> bool {
    source.starts_with(PREFIX)
}

/// The rows of a replay by the node and input that they go to, in the order in which each
/// source reads them.
fn places(replay: &Replay) -> BTreeMap<(&str, Option<&str>), Vec<&ReplayRow>> {
    let mut places: BTreeMap<_, Vec<&ReplayRow>> = BTreeMap::new();
    for row in &replay.rows {
        let place = (row.node.as_str(), row.port.as_deref());
        places.entry(place).or_default().push(row);
    }
    places
}

/// The name of the source that reads rows for a node.
fn source_of(replay: &Replay, node: &str, port: Option<&str>) -> String {
    match port {
        None => format!("{PREFIX}{}:{node}", replay.number),
        Some(port) => format!("{PREFIX}{}:{node}:{port}", replay.number),
    }
}

/// The letters whose rows were read, where so many rows of each source were.
pub fn letters_read(replay: &Replay, read: &BTreeMap<String, u64>) -> BTreeSet<String> {
    let mut letters = BTreeSet::new();
    for ((node, port), rows) in places(replay) {
        let rows_read = read.get(&source_of(replay, node, port)).copied();
        let rows_read = usize::try_from(rows_read.unwrap_or(0)).unwrap_or(usize::MAX);
        letters.extend(rows.iter().take(rows_read).map(|row| row.letter.clone()));
    }
    letters
}

/// Adds the sources of a replay to a pipeline, which was planned without them as `plan`.
pub fn add(config: &mut Config, plan: &Plan, replay: &Replay) -> Result<(), String> {
    for ((name, port), rows) in places(replay) {
        let gone = || format!("the pipeline has no node `{name}` any more");
        let node = plan.nodes.iter().find(|node| node.name == name);
        let node = node.ok_or_else(gone)?;
        let schema = match port {
            _ if node.inputs.is_empty() => node.schema(),
            None => port_schema(plan, &node.inputs[0]),
            Some(port) => {
                let port = node.inputs.iter().find(|input| input.name == port);
                port_schema(plan, port.ok_or_else(gone)?)
            }
        };
        let texts: Vec<&[u8]> = rows.iter().map(|row| row.row.as_bytes()).collect();
        let columns = decode(&Format::Json.into(), schema, &texts)?;
        let times: Option<Vec<i64>> = rows.iter().map(|row| row.time_ms).collect();
        let settings = ReplayedRows::new(schema, columns, rows.len(), times)?;
        let source = source_of(replay, name, port);
        let like = config.sources.iter().find(|it| it.name.get_ref() == name);
        let added = SourceConfig {
            name: Spanned::new(0..0, source.clone()),
            settings: Box::new(settings),
            time: like.map_or_else(EventTimeConfig::default, replayed_time),
            on_error: like.and_then(|like| like.on_error),
            checksum: like.and_then(|like| like.checksum.clone()),
        };
        match node.kind {
            NodeKind::Source(_) => read_with(config, name, &source),
            NodeKind::Sink(_) => {
                let sinks = config.sinks.iter_mut();
                let of_name = sinks.filter(|sink| sink.name.get_ref() == name);
                of_name.for_each(|sink| sink.input.push(main_output(&source)));
            }
            _ => read_by(config, plan, node, port, &source)?,
        }
        config.sources.push(added);
    }
    Ok(())
}

/// Rows have their time as the source's have it, and do not move it ahead.
fn replayed_time(like: &SourceConfig) -> EventTimeConfig {
    let watermark = like.time.watermark.as_ref();
    EventTimeConfig {
        field: like.time.field.clone(),
        watermark: watermark.map(|watermark| WatermarkConfig {
            place: watermark.place.clone(),
            out_of_orderness_ms: None,
            idle_after_ms: None,
            ahead_ms_max: watermark.ahead_ms_max,
            bootstrap: None,
        }),
    }
}

fn main_output(node: &str) -> Spanned<InputName> {
    let name = InputName {
        node: node.to_owned(),
        output: None,
    };
    Spanned::new(0..0, name)
}

/// Has all that read a node read a source as well.
fn read_with(config: &mut Config, node: &str, source: &str) {
    let reads = |input: &Spanned<InputName>| {
        let input = input.get_ref();
        input.node == node && input.output.is_none()
    };
    for operator in &mut config.operators {
        let ports = operator.inputs.iter().filter(|input| reads(&input.from));
        let ports: Vec<Option<Spanned<String>>> = ports.map(|input| input.port.clone()).collect();
        let more = ports.into_iter().map(|port| InputConfig {
            port,
            from: main_output(source),
        });
        operator.inputs.extend(more);
        if let Some(table) = &mut operator.table
            && table.inputs.iter().any(reads)
        {
            table.inputs.push(main_output(source));
        }
    }
    for sink in &mut config.sinks {
        if sink.input.iter().any(reads) {
            sink.input.push(main_output(source));
        }
    }
}

/// Has an operator read a source as well, by this port.
fn read_by(
    config: &mut Config,
    plan: &Plan,
    node: &Node,
    port: Option<&str>,
    source: &str,
) -> Result<(), String> {
    let mut operators = config.operators.iter_mut();
    let operator = operators.find(|operator| *operator.name.get_ref() == node.name);
    // Parts of an operator that is run as several are not in the file.
    let reads_as_written = |operator: &&mut crate::config::OperatorConfig| {
        let written = operator.inputs.iter().map(|input| input.from.get_ref());
        let written: Vec<String> = written.map(ToString::to_string).collect();
        node.edges()
            .all(|edge| written.contains(&plan.output_name(edge)))
    };
    let Some(operator) = operator.filter(reads_as_written) else {
        return Err(format!(
            "`{}` is a part of an operator, and rows cannot go to it alone",
            node.name
        ));
    };
    let ports = operator.inputs.iter().map(|input| &input.port);
    let of_name = |known: &&Option<Spanned<String>>| match (known, port) {
        (Some(known), Some(port)) => known.get_ref() == port,
        (_, None) => true,
        (None, Some(_)) => false,
    };
    let port = ports.into_iter().find(of_name).cloned().flatten();
    operator.inputs.push(InputConfig {
        port,
        from: main_output(source),
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;
    use crate::logic::{LoadError, Loader, Module};
    use crate::planner;

    struct NoPlugins;

    impl Loader for NoPlugins {
        fn load(&self, _: &Path) -> Result<std::sync::Arc<dyn Module>, LoadError> {
            Err(LoadError("there are no plugins here".to_owned()))
        }
    }

    /// Rows of messages, with what `more` says.
    fn of_messages(more: &str) -> Plan {
        let text = format!(
            r#"name = "shop"
            [sources.orders]
            type = "kafka"
            brokers = "127.0.0.1:9092"
            topic = "orders"
            fields = {{ id = "utf8", n = "int64" }}
            metadata = {{ key = "k", headers = "h", timestamp = "at", partition = "p", offset = "o" }}
            {more}
            [sinks.out]
            type = "blackhole"
            input = "orders"
            "#
        );
        let config = Config::parse("shop.toml", &text).expect("a pipeline");
        let built = planner::build(&config, Path::new("/pipelines"), &NoPlugins);
        built.unwrap_or_else(|mistakes| panic!("{mistakes:?}"))
    }

    fn of_message(payload: &str) -> DeadLetter {
        DeadLetter {
            node: "orders".to_owned(),
            kind: "decode".to_owned(),
            source: Some("orders".to_owned()),
            partition: Some("orders/2".to_owned()),
            offset: Some(7),
            payload: Some(payload.to_owned()),
            key: Some("ann".to_owned()),
            headers: Some(r#"{"trace":"x"}"#.to_owned()),
            message_time: Some("2024-01-01T10:00:00Z".to_owned()),
            ..DeadLetter::default()
        }
    }

    #[test]
    fn a_replayed_message_has_what_it_had_beside_its_payload() {
        let row = |plan: &Plan, letter: &DeadLetter, edited: Option<&str>| {
            let row = row_of(plan, "1", letter, edited)?;
            Ok::<Json, String>(serde_json::from_str(&row.row).expect("it is JSON"))
        };
        let whole = |n: i64, key: Json, offset: i64| {
            json!({
                "id": "a", "n": n, "k": key, "h": "{\"trace\":\"x\"}",
                "at": "2024-01-01T10:00:00Z", "p": 2, "o": offset,
            })
        };
        let plan = of_messages("");
        let bad = of_message(r#"{"id":"a","n":"one"}"#);
        let error = row(&plan, &bad, None).expect_err("it is bad still");
        assert!(error.contains("field `n`"), "{error}");
        let edited = row(&plan, &bad, Some(r#"{"id":"a","n":1}"#));
        assert_eq!(edited, Ok(whole(1, json!("ann"), 7)));
        let edited = row(&plan, &bad, Some(r#"{"id":"a","n":1,"k":null,"o":8}"#));
        assert_eq!(edited, Ok(whole(1, Json::Null, 8)));
        let error = row(&plan, &bad, Some(r#"{"id":"a","n":1,"key":"b"}"#));
        let error = error.expect_err("the column is `k`");
        assert!(error.contains("there is no field `key`"), "{error}");

        // As it is, in the format of the payload.
        let good = row(&plan, &of_message(r#"{"id":"a","n":1}"#), None);
        assert_eq!(good, Ok(whole(1, json!("ann"), 7)));
        let good = row(&of_messages("format = \"csv\""), &of_message("a,1"), None);
        assert_eq!(good, Ok(whole(1, json!("ann"), 7)));
        let no_text = DeadLetter {
            key: None,
            key_base64: Some("/w==".to_owned()),
            ..bad
        };
        let error = row(&plan, &no_text, Some(r#"{"id":"a","n":1}"#));
        let error = error.expect_err("its key is no text");
        assert!(error.contains("with `k`"), "{error}");
        let edited = row(&plan, &no_text, Some(r#"{"id":"a","n":1,"k":"ann"}"#));
        assert_eq!(edited, Ok(whole(1, json!("ann"), 7)));
    }

    #[test]
    fn a_field_that_is_not_there_is_refused_with_the_nearest_one() {
        let place = Field::new("city", DataType::Utf8, true);
        let place = DataType::Record(vec![place].into());
        let fields = [
            Field::new("quantity", DataType::Int64, false),
            Field::new("place", place.clone(), true),
            Field::new(
                "places",
                DataType::List(Field::new("item", place, false).into()),
                true,
            ),
        ];
        for (row, what) in [
            (
                json!({ "quantty": 1 }),
                "`quantty`: did you mean `quantity`",
            ),
            (
                json!({ "place": { "ctiy": "x" } }),
                "`place.ctiy`: did you mean `city`",
            ),
            (
                json!({ "places": [{}, { "zzz": 5 }] }),
                "`places.zzz`: the fields are: city",
            ),
        ] {
            let error = check_names(&row.to_string(), &fields).expect_err("it is not there");
            assert!(error.contains(what), "{error}");
        }
        for row in [
            json!({ "quantity": 1, "place": { "city": "x" }, "places": [{}, null] }),
            json!({ "quantity": { "of": 1 } }),
            json!([1]),
        ] {
            check_names(&row.to_string(), &fields).expect("all are there");
        }
    }

    #[test]
    fn what_a_letter_tells_beside_its_row_is_taken_where_the_row_does_not_have_it() {
        let beside = ["key", "at"].map(|name| Field::new(name, DataType::Utf8, true));
        let told = || vec![Ok(json!("k")), Err("it is not told".to_owned())];
        let with = |row: &str| with_beside(row.to_owned(), &beside, told());
        assert_eq!(
            with(r#"{"n":1.0,"at":"x"}"#),
            Ok(r#"{"at":"x","key":"k","n":1.0}"#.to_owned())
        );
        assert_eq!(
            with(r#"{"n":1,"at":"x","key":null}"#),
            Ok(r#"{"at":"x","key":null,"n":1}"#.to_owned())
        );
        let error = with(r#"{"n":1}"#).expect_err("nobody tells `at`");
        assert!(error.contains("`at`"), "{error}");
        with("[1]").expect_err("it is no object");
        assert_eq!(
            with_beside("[1]".to_owned(), &[], Vec::new()),
            Ok("[1]".to_owned())
        );
    }
}
