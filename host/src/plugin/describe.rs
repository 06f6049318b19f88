//! Checks a plugin's description, and translates it into the host's types.
//!
//! All of it comes from the plugin: names, counts and nesting are checked
//! before they are used.

use std::collections::HashSet;
use std::sync::Arc;

use super::contract as wire;
use crate::decimal::PRECISION_MAX;
use crate::logic::{
    FOUND, INTERACTIONS, Kind, MAIN, ModuleInfo, OperatorInfo, PORTS_MAX, Parameter, Port,
    REQUESTS, Stage, TABLE, Value, ValueType,
};
use crate::schema::{DataType, Field, Schema};

/// How deep records and lists may nest.
const DEPTH_MAX: usize = 32;

/// The checked description, or what is wrong with it.
pub fn module(plugin: wire::Plugin) -> Result<ModuleInfo, String> {
    if plugin.operators.is_empty() {
        return Err("it has no operators".into());
    }
    let mut names = HashSet::new();
    let mut operators = Vec::with_capacity(plugin.operators.len());
    for described in plugin.operators {
        let name = described.name.clone();
        check_operator_name(&name).map_err(|wrong| format!("operator {wrong}"))?;
        if !names.insert(name.clone()) {
            return Err(format!("two operators are called `{name}`"));
        }
        operators.push(operator(described).map_err(|wrong| format!("operator `{name}`: {wrong}"))?);
    }
    for operator in &operators {
        check_stages(operator, &operators)
            .map_err(|wrong| format!("operator `{}`: {wrong}", operator.name))?;
    }
    Ok(ModuleInfo {
        name: plain(&plugin.name),
        version: plain(&plugin.version),
        doc: plain(&plugin.doc),
        operators,
    })
}

fn operator(described: wire::Operator) -> Result<OperatorInfo, String> {
    let kind = match described.kind {
        wire::Kind::Filter => Kind::Filter,
        wire::Kind::Transform => Kind::Transform,
        wire::Kind::Aggregate => Kind::Aggregate,
        wire::Kind::Process => Kind::Process,
        wire::Kind::Join => Kind::Join,
        wire::Kind::Lookup => Kind::Lookup,
        wire::Kind::Recommend => Kind::Recommend,
    };
    let inputs = ports("input", described.inputs)?;
    let outputs = ports("output", described.outputs)?;
    let key = schema(described.key).map_err(|wrong| format!("key: {wrong}"))?;
    let state = schema(described.state).map_err(|wrong| format!("state: {wrong}"))?;
    check_shape(kind, &inputs, &outputs, &state)?;
    if kind == Kind::Lookup {
        check_lookup(&inputs, &outputs, &key)?;
    }
    let may_read_key = matches!(kind, Kind::Aggregate | Kind::Process | Kind::Lookup);
    if !may_read_key && !key.fields.is_empty() {
        let kind = kind.name();
        return Err(format!(
            "a {kind} reads nothing of its key, and this one describes it"
        ));
    }

    if described.retracts && !matches!(kind, Kind::Aggregate | Kind::Process) {
        return Err(format!("a {} cannot take rows back", kind.name()));
    }

    let mut names = HashSet::new();
    let mut parameters = Vec::with_capacity(described.parameters.len());
    for described in described.parameters {
        let parameter = parameter(described)?;
        if !names.insert(parameter.name.clone()) {
            return Err(format!("two parameters are called `{}`", parameter.name));
        }
        parameters.push(parameter);
    }
    Ok(OperatorInfo {
        name: described.name,
        doc: plain(&described.doc),
        kind,
        inputs,
        outputs,
        key,
        state,
        retracts: described.retracts,
        parameters,
    })
}

/// Checks inputs or outputs, whose names must differ.
fn ports(what: &str, described: Vec<wire::Port>) -> Result<Vec<Port>, String> {
    let mut names = HashSet::new();
    let mut ports = Vec::with_capacity(described.len());
    for port in described {
        check_name(&port.name).map_err(|wrong| format!("{what} {wrong}"))?;
        if !names.insert(port.name.clone()) {
            return Err(format!("two {what}s are called `{}`", port.name));
        }
        ports.push(Port {
            schema: schema(port.schema)
                .map_err(|wrong| format!("{what} `{}`: {wrong}", port.name))?,
            name: port.name,
        });
    }
    Ok(ports)
}

/// Checks that an operator has the inputs, outputs and state of its kind. Kinds
/// that this version cannot run are not checked.
fn check_shape(
    kind: Kind,
    inputs: &[Port],
    outputs: &[Port],
    state: &Schema,
) -> Result<(), String> {
    let (stateful, answers_rows, name) = match kind {
        Kind::Filter => (false, false, "a filter"),
        Kind::Transform => (false, true, "a transform"),
        Kind::Aggregate => (true, true, "an aggregate"),
        Kind::Process => return check_process(inputs, outputs),
        Kind::Recommend => return check_recommender(inputs, outputs),
        // A look-up is checked with its key.
        Kind::Join | Kind::Lookup => return Ok(()),
    };
    for (what, ports) in [("input", inputs), ("output", outputs)] {
        if ports.len() != 1 {
            let count = ports.len();
            return Err(format!("{name} has one {what}, this one has {count}"));
        }
    }
    match (stateful, state.fields.is_empty()) {
        (true, true) => {
            return Err(format!(
                "{name} needs a state, and this one has no field in it"
            ));
        }
        (false, false) => return Err(format!("{name} has no state, and this one describes one")),
        _ => {}
    }
    match (answers_rows, outputs[0].schema.fields.is_empty()) {
        (true, true) => Err(format!(
            "{name} needs an output, and this one has no field in it"
        )),
        (false, false) => Err(format!(
            "{name} has no output schema: it passes rows on unchanged"
        )),
        _ => Ok(()),
    }
}

fn check_process(inputs: &[Port], outputs: &[Port]) -> Result<(), String> {
    for (what, ports) in [("input", inputs), ("output", outputs)] {
        let count = ports.len();
        if count == 0 || count > PORTS_MAX {
            return Err(format!(
                "a process has one to {PORTS_MAX} {what}s, this one has {count}"
            ));
        }
    }
    match outputs.iter().find(|port| port.schema.fields.is_empty()) {
        Some(port) => Err(format!("output `{}` has no field", port.name)),
        None => Ok(()),
    }
}

fn check_recommender(inputs: &[Port], outputs: &[Port]) -> Result<(), String> {
    let names: Vec<&str> = inputs.iter().map(|port| port.name.as_str()).collect();
    if names != [INTERACTIONS, REQUESTS] || outputs.len() != 1 {
        return Err(format!(
            "a recommender has the inputs `{INTERACTIONS}` and `{REQUESTS}`, and one output"
        ));
    }
    Ok(())
}

fn check_lookup(inputs: &[Port], outputs: &[Port], key: &Schema) -> Result<(), String> {
    let names: Vec<&str> = inputs.iter().map(|port| port.name.as_str()).collect();
    let has_fields = |port: &Port| !port.schema.fields.is_empty();
    if names != [MAIN, TABLE] || !inputs.iter().all(has_fields) {
        return Err(format!(
            "a look-up has the inputs `{MAIN}` and `{TABLE}`, each with fields"
        ));
    }
    if outputs.len() != 1 || !outputs.iter().all(has_fields) {
        return Err("a look-up has one output, which has fields".into());
    }
    match key.fields.is_empty() {
        true => Err("a look-up needs a key, and this one has no field in it".into()),
        false => Ok(()),
    }
}

/// Checks that a recommender or look-up has its stages, with the parameters and the inputs and outputs
/// that the planner connects, and that a stage has such an operator.
fn check_stages(operator: &OperatorInfo, all: &[OperatorInfo]) -> Result<(), String> {
    let find = |name: &str| all.iter().find(|operator| operator.name == name);
    if let Some((whole, stage)) = operator.name.split_once('.') {
        if operator.migrates(whole) {
            return check_migration(operator, find(whole));
        }
        let stages = find(whole).map_or(&[][..], |whole| whole.kind.stages());
        return match stages.iter().any(|known| known.name() == stage) {
            true => Ok(()),
            false => Err(
                "only the stages of a recommender or look-up, and what migrates states, have \
                     a `.` in their name"
                    .into(),
            ),
        };
    }
    for &stage in operator.kind.stages() {
        let name = stage.of(&operator.name);
        let found = find(&name).ok_or_else(|| format!("its stage `{name}` is missing"))?;
        let (inputs, outputs): (&[&str], &[&str]) = match stage {
            Stage::Counts | Stage::Requests | Stage::Models | Stage::Answers => (&[MAIN], &[MAIN]),
            Stage::Profiles => (&[REQUESTS, INTERACTIONS], &["models", "answers"]),
            Stage::ProfilesAsking => (&[MAIN], &["models", "answers"]),
            Stage::Wanted => (&[MAIN], &["rows", "keys"]),
            Stage::Combined => (&["rows", FOUND], &[MAIN]),
            // No plugin describes them.
            Stage::Found | Stage::Joined | Stage::Made => continue,
        };
        let has = |ports: &[Port], names: &[&str]| {
            let found = ports.iter().map(|port| port.name.as_str());
            found.eq(names.iter().copied())
        };
        let same_parameters = |a: &Parameter, b: &Parameter| {
            (&a.name, a.value_type, a.optional) == (&b.name, b.value_type, b.optional)
        };
        let parameters = found.parameters.iter().zip(&operator.parameters);
        let good = found.kind == Kind::Process
            && has(&found.inputs, inputs)
            && has(&found.outputs, outputs)
            && found.parameters.len() == operator.parameters.len()
            && { parameters }.all(|(one, other)| same_parameters(one, other))
            && found.key.fields.len() == fields_of_key(stage);
        if !good {
            return Err(format!("its stage `{name}` is not as the contract says"));
        }
    }
    Ok(())
}

/// Checks that a transform makes states of an operator of records with other fields.
fn check_migration(operator: &OperatorInfo, of: Option<&OperatorInfo>) -> Result<(), String> {
    let has_state = |of: &&OperatorInfo| matches!(of.kind, Kind::Aggregate | Kind::Process);
    let Some(of) = of.filter(has_state) else {
        return Err("it migrates states of an operator that has none".into());
    };
    let good = operator.kind == Kind::Transform
        && operator.outputs[0].schema == of.state
        && operator.parameters.is_empty();
    match good {
        true => Ok(()),
        false => Err(format!(
            "it is no transform to the state of `{}` without parameters",
            of.name
        )),
    }
}

/// How many fields of its key a stage reads.
fn fields_of_key(stage: Stage) -> usize {
    match stage {
        Stage::Counts
        | Stage::Requests
        | Stage::Profiles
        | Stage::ProfilesAsking
        | Stage::Answers => 1,
        // They are told what they need of it with each row.
        Stage::Models
        | Stage::Wanted
        | Stage::Found
        | Stage::Combined
        | Stage::Joined
        | Stage::Made => 0,
    }
}

fn parameter(described: wire::Parameter) -> Result<Parameter, String> {
    let name = described.name;
    check_name(&name).map_err(|wrong| format!("parameter {wrong}"))?;
    let value_type = match described.value_type {
        wire::ValueType::Boolean => ValueType::Boolean,
        wire::ValueType::Integer => ValueType::Integer,
        wire::ValueType::Number => ValueType::Number,
        wire::ValueType::Text => ValueType::Text,
        wire::ValueType::Texts => ValueType::Texts,
    };
    let default = described.default.map(|value| match value {
        wire::Value::Boolean(value) => Value::Boolean(value),
        wire::Value::Integer(value) => Value::Integer(value),
        wire::Value::Number(value) => Value::Number(value),
        wire::Value::Text(value) => Value::Text(value),
        wire::Value::Texts(value) => Value::Texts(value),
    });
    let fits = match &default {
        None => true,
        Some(Value::Boolean(_)) => value_type == ValueType::Boolean,
        Some(Value::Integer(_)) => value_type == ValueType::Integer,
        Some(Value::Number(_)) => value_type == ValueType::Number,
        Some(Value::Text(_)) => value_type == ValueType::Text,
        Some(Value::Texts(_)) => value_type == ValueType::Texts,
    };
    if !fits {
        return Err(format!(
            "parameter `{name}`: its default is of another type"
        ));
    }
    Ok(Parameter {
        name,
        value_type,
        default,
        optional: described.optional,
        doc: plain(&described.doc),
    })
}

/// Reads fields listed depth first: a record or list, then what it contains.
fn schema(described: Vec<wire::Field>) -> Result<Arc<Schema>, String> {
    let mut described = described.into_iter();
    let mut fields = Vec::new();
    while described.len() > 0 {
        fields.push(field(&mut described, 0)?);
    }
    check_distinct(&fields)?;
    Ok(Arc::new(Schema::new(fields)))
}

fn field(described: &mut std::vec::IntoIter<wire::Field>, depth: usize) -> Result<Field, String> {
    let Some(next) = described.next() else {
        return Err("a list or record promises more fields than follow it".into());
    };
    let name = next.name;
    if depth == DEPTH_MAX {
        return Err(format!(
            "field `{name}` is nested more than {DEPTH_MAX} deep"
        ));
    }
    let data_type = match next.field_type {
        wire::FieldType::Boolean => DataType::Bool,
        wire::FieldType::Int8 => DataType::Int8,
        wire::FieldType::Int16 => DataType::Int16,
        wire::FieldType::Int32 => DataType::Int32,
        wire::FieldType::Int64 => DataType::Int64,
        wire::FieldType::UInt8 => DataType::UInt8,
        wire::FieldType::UInt16 => DataType::UInt16,
        wire::FieldType::UInt32 => DataType::UInt32,
        wire::FieldType::UInt64 => DataType::UInt64,
        wire::FieldType::Float32 => DataType::Float32,
        wire::FieldType::Float64 => DataType::Float64,
        wire::FieldType::Utf8 => DataType::Utf8,
        wire::FieldType::Bytes => DataType::Bytes,
        wire::FieldType::Decimal(wire::Digits { precision, scale }) => {
            if !(1..=PRECISION_MAX).contains(&precision) || scale > precision {
                return Err(format!(
                    "field `{name}` is a decimal of {precision} digits, {scale} of them behind \
                     the point: it has 1 to {PRECISION_MAX}"
                ));
            }
            DataType::Decimal { precision, scale }
        }
        wire::FieldType::Timestamp => DataType::Timestamp,
        wire::FieldType::Symbol(values) => {
            let distinct: HashSet<&String> = values.iter().collect();
            if values
                .iter()
                .any(|value| value.chars().any(char::is_control))
            {
                return Err(format!(
                    "field `{name}` has symbols with control characters"
                ));
            }
            if values.is_empty() || distinct.len() < values.len() {
                return Err(format!(
                    "field `{name}` needs symbols that are all different, and at least one"
                ));
            }
            DataType::Symbol(values.into())
        }
        wire::FieldType::List => {
            // The name of a list's element is ignored.
            let element =
                field(described, depth + 1).map_err(|wrong| format!("field `{name}`: {wrong}"))?;
            DataType::List(Arc::new(element))
        }
        wire::FieldType::Record(members) => {
            if members == 0 {
                return Err(format!("field `{name}` is a record without members"));
            }
            let mut fields = Vec::new();
            for _ in 0..members {
                fields.push(
                    field(described, depth + 1)
                        .map_err(|wrong| format!("field `{name}`: {wrong}"))?,
                );
            }
            check_distinct(&fields).map_err(|wrong| format!("field `{name}`: {wrong}"))?;
            DataType::Record(fields.into())
        }
    };
    Ok(Field {
        name,
        data_type,
        nullable: next.nullable,
        doc: plain(&next.doc),
    })
}

fn check_distinct(fields: &[Field]) -> Result<(), String> {
    let mut names = HashSet::new();
    for field in fields {
        if field.name.is_empty() || field.name.chars().any(char::is_control) {
            return Err(format!(
                "`{}` is not a name for a field",
                shown(&field.name)
            ));
        }
        if !names.insert(&field.name) {
            return Err(format!("two fields are called `{}`", field.name));
        }
    }
    Ok(())
}

/// Checks an operator's name; that of a stage has a `.` after its operator's.
fn check_operator_name(name: &str) -> Result<(), String> {
    match name.split_once('.') {
        Some((recommender, stage)) => check_name(recommender).and_then(|()| check_name(stage)),
        None => check_name(name),
    }
}

/// Checks an operator's or parameter's name. Pipeline files separate the names
/// of plugin and operator by a `.`.
fn check_name(name: &str) -> Result<(), String> {
    let plain = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    if name.is_empty() || !name.chars().all(plain) {
        return Err(format!(
            "`{}`: a name is made of letters, digits, `_` and `-`",
            shown(name)
        ));
    }
    Ok(())
}

/// Escapes control characters: docs are shown on terminals.
fn plain(doc: &str) -> String {
    doc.chars()
        .filter(|c| !c.is_control() || matches!(c, '\n' | '\t'))
        .collect()
}

/// Cuts and escapes an invalid name for a message.
fn shown(name: &str) -> String {
    const SHOWN_MAX: usize = 60;
    name.chars()
        .take(SHOWN_MAX)
        .flat_map(char::escape_debug)
        .collect()
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::wire::FieldType;
    use super::*;

    fn field(name: &str, field_type: FieldType) -> wire::Field {
        wire::Field {
            name: name.into(),
            field_type,
            nullable: false,
            doc: String::new(),
        }
    }

    fn port(name: &str, schema: Vec<wire::Field>) -> wire::Port {
        let name = name.into();
        wire::Port { name, schema }
    }

    fn transform() -> wire::Operator {
        wire::Operator {
            name: "clean".into(),
            doc: String::new(),
            kind: wire::Kind::Transform,
            inputs: vec![port("main", vec![field("n", FieldType::Int64)])],
            outputs: vec![port("main", vec![field("n", FieldType::Int64)])],
            key: Vec::new(),
            state: Vec::new(),
            retracts: false,
            parameters: Vec::new(),
        }
    }

    fn described(operators: Vec<wire::Operator>) -> Result<ModuleInfo, String> {
        module(wire::Plugin {
            name: "cart".into(),
            version: "0.1.0".into(),
            doc: String::new(),
            operators,
        })
    }

    fn check(operators: Vec<wire::Operator>, expected: Expect) {
        let shown = match described(operators) {
            Ok(info) => info.operators[0].outputs[0].schema.to_string(),
            Err(wrong) => wrong,
        };
        expected.assert_eq(&shown);
    }

    #[test]
    fn schemas_nest() {
        let output = vec![
            field("lines", FieldType::List),
            field("element", FieldType::Record(2)),
            field("sku", FieldType::Utf8),
            field("tags", FieldType::List),
            field("element", FieldType::Symbol(vec!["a".into(), "b".into()])),
            field("ts", FieldType::Timestamp),
        ];
        let operator = wire::Operator {
            outputs: vec![port("main", output)],
            ..transform()
        };
        check(
            vec![operator],
            expect!["lines: list<{sku: utf8, tags: list<a|b>}>, ts: timestamp"],
        );
    }

    #[test]
    fn wrong_schemas_are_noticed() {
        let check = |output: Vec<wire::Field>, expected: Expect| {
            check(
                vec![wire::Operator {
                    outputs: vec![port("main", output)],
                    ..transform()
                }],
                expected,
            );
        };
        check(
            vec![],
            expect![
                "operator `clean`: a transform needs an output, and this one has no field in it"
            ],
        );
        check(
            vec![field("lines", FieldType::List)],
            expect![
                "operator `clean`: output `main`: field `lines`: a list or record promises more fields than follow it"
            ],
        );
        check(
            vec![
                field("a", FieldType::Record(u32::MAX)),
                field("b", FieldType::Int8),
            ],
            expect![
                "operator `clean`: output `main`: field `a`: a list or record promises more fields than follow it"
            ],
        );
        check(
            vec![field("a", FieldType::Record(0))],
            expect!["operator `clean`: output `main`: field `a` is a record without members"],
        );
        check(
            vec![field("a", FieldType::Int8), field("a", FieldType::Utf8)],
            expect!["operator `clean`: output `main`: two fields are called `a`"],
        );
        check(
            vec![
                field("a", FieldType::Record(2)),
                field("b", FieldType::Int8),
                field("b", FieldType::Utf8),
            ],
            expect!["operator `clean`: output `main`: field `a`: two fields are called `b`"],
        );
        let digits = |precision, scale| FieldType::Decimal(wire::Digits { precision, scale });
        check(
            vec![field("a", digits(39, 2))],
            expect![
                "operator `clean`: output `main`: field `a` is a decimal of 39 digits, 2 of them behind the point: it has 1 to 38"
            ],
        );
        check(
            vec![field("a", digits(2, 3))],
            expect![
                "operator `clean`: output `main`: field `a` is a decimal of 2 digits, 3 of them behind the point: it has 1 to 38"
            ],
        );
        check(
            vec![field("a", digits(38, 38))],
            expect!["a: decimal(38,38)"],
        );
        check(
            vec![field("", FieldType::Int8)],
            expect!["operator `clean`: output `main`: `` is not a name for a field"],
        );
        check(
            vec![field("a\u{1b}[2J", FieldType::Int8)],
            expect![[r#"operator `clean`: output `main`: `a\u{1b}[2J` is not a name for a field"#]],
        );
        check(
            vec![field("a", FieldType::Symbol(vec![]))],
            expect![
                "operator `clean`: output `main`: field `a` needs symbols that are all different, and at least one"
            ],
        );
        check(
            vec![field("a", FieldType::Symbol(vec!["x".into(), "x".into()]))],
            expect![
                "operator `clean`: output `main`: field `a` needs symbols that are all different, and at least one"
            ],
        );
        let deep = |_| field("a", FieldType::List);
        let output = (0..100_000).map(deep).collect();
        let wrong = described(vec![wire::Operator {
            outputs: vec![port("main", output)],
            ..transform()
        }]);
        assert!(wrong.is_err_and(|wrong| wrong.ends_with("`a` is nested more than 32 deep")));
    }

    #[test]
    fn wrong_operators_are_noticed() {
        check(vec![], expect!["it has no operators"]);
        check(
            vec![transform(), transform()],
            expect!["two operators are called `clean`"],
        );
        let named = |name: &str| wire::Operator {
            name: name.into(),
            ..transform()
        };
        check(
            vec![named("")],
            expect!["operator ``: a name is made of letters, digits, `_` and `-`"],
        );
        check(
            vec![named("a.b")],
            expect![
                "operator `a.b`: only the stages of a recommender or look-up, and what migrates states, have a `.` in their name"
            ],
        );

        let counts = |state| wire::Operator {
            name: "counts".into(),
            kind: wire::Kind::Aggregate,
            state: vec![field("n", state)],
            ..transform()
        };
        let earlier = || named("counts.earlier_1");
        check(
            vec![counts(FieldType::Int64), earlier()],
            expect!["n: int64"],
        );
        check(
            vec![earlier()],
            expect!["operator `counts.earlier_1`: it migrates states of an operator that has none"],
        );
        check(
            vec![counts(FieldType::Int32), earlier()],
            expect![
                "operator `counts.earlier_1`: it is no transform to the state of `counts` without parameters"
            ],
        );

        let of_kind = |kind| wire::Operator {
            kind,
            ..transform()
        };
        check(
            vec![of_kind(wire::Kind::Aggregate)],
            expect![
                "operator `clean`: an aggregate needs a state, and this one has no field in it"
            ],
        );
        check(
            vec![of_kind(wire::Kind::Filter)],
            expect!["operator `clean`: a filter has no output schema: it passes rows on unchanged"],
        );
        // Kinds that are not run yet may look as they like.
        check(vec![of_kind(wire::Kind::Process)], expect!["n: int64"]);
        let inputs = Vec::new();
        check(
            vec![wire::Operator {
                inputs,
                ..transform()
            }],
            expect!["operator `clean`: a transform has one input, this one has 0"],
        );
        let outputs = Vec::new();
        check(
            vec![wire::Operator {
                outputs,
                ..transform()
            }],
            expect!["operator `clean`: a transform has one output, this one has 0"],
        );
        let outputs = vec![port("reserved", Vec::new()), port("reserved", Vec::new())];
        check(
            vec![wire::Operator {
                outputs,
                ..of_kind(wire::Kind::Process)
            }],
            expect!["operator `clean`: two outputs are called `reserved`"],
        );
        let inputs = vec![port("re\nserved", Vec::new())];
        check(
            vec![wire::Operator {
                inputs,
                ..transform()
            }],
            expect![[
                r#"operator `clean`: input `re\nserved`: a name is made of letters, digits, `_` and `-`"#
            ]],
        );
        let state = vec![field("n", FieldType::Int64)];
        check(
            vec![wire::Operator {
                state: state.clone(),
                ..transform()
            }],
            expect!["operator `clean`: a transform has no state, and this one describes one"],
        );
        let key = vec![field("user", FieldType::Utf8)];
        check(
            vec![wire::Operator {
                key: key.clone(),
                ..transform()
            }],
            expect![
                "operator `clean`: a transform reads nothing of its key, and this one describes it"
            ],
        );
        check(
            vec![wire::Operator {
                key,
                state,
                ..of_kind(wire::Kind::Aggregate)
            }],
            expect!["n: int64"],
        );
    }

    #[test]
    fn wrong_parameters_are_noticed() {
        let parameter = |name: &str, default| wire::Parameter {
            name: name.into(),
            value_type: wire::ValueType::Integer,
            default,
            optional: false,
            doc: String::new(),
        };
        let check = |parameters: Vec<wire::Parameter>, expected: Expect| {
            check(
                vec![wire::Operator {
                    parameters,
                    ..transform()
                }],
                expected,
            );
        };
        check(
            vec![parameter("n", Some(wire::Value::Integer(1)))],
            expect!["n: int64"],
        );
        check(
            vec![parameter("n", None), parameter("n", None)],
            expect!["operator `clean`: two parameters are called `n`"],
        );
        check(
            vec![parameter("n", Some(wire::Value::Number(1.5)))],
            expect!["operator `clean`: parameter `n`: its default is of another type"],
        );
        check(
            vec![parameter("n m", None)],
            expect![
                "operator `clean`: parameter `n m`: a name is made of letters, digits, `_` and `-`"
            ],
        );
    }
}
