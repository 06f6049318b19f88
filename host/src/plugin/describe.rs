//! What a plugin says of itself, checked, in the host's terms.
//!
//! Everything here comes from the plugin: names, counts and nesting are only
//! believed once they have been looked at.

use std::collections::HashSet;
use std::sync::Arc;

use super::contract as wire;
use crate::logic::{Kind, ModuleInfo, OperatorInfo, Parameter, Port, Value, ValueType};
use crate::schema::{DataType, Field, Schema};

/// Records and lists within each other.
const DEPTH_MAX: usize = 32;

/// The host's view of a description, or what is wrong with it.
pub fn module(plugin: wire::Plugin) -> Result<ModuleInfo, String> {
    if plugin.operators.is_empty() {
        return Err("it has no operators".into());
    }
    let mut names = HashSet::new();
    let mut operators = Vec::with_capacity(plugin.operators.len());
    for described in plugin.operators {
        let name = described.name.clone();
        check_name(&name).map_err(|wrong| format!("operator `{name}`: {wrong}"))?;
        if !names.insert(name.clone()) {
            return Err(format!("two operators are called `{name}`"));
        }
        operators.push(operator(described).map_err(|wrong| format!("operator `{name}`: {wrong}"))?);
    }
    Ok(ModuleInfo {
        name: plugin.name,
        version: plugin.version,
        doc: plugin.doc,
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
        wire::Kind::Recommend => Kind::Recommend,
    };
    let mut inputs = Vec::with_capacity(described.inputs.len());
    for port in described.inputs {
        inputs.push(Port {
            schema: schema(port.schema)
                .map_err(|wrong| format!("input `{}`: {wrong}", port.name))?,
            name: port.name,
        });
    }
    let output = schema(described.output).map_err(|wrong| format!("output: {wrong}"))?;
    let state = schema(described.state).map_err(|wrong| format!("state: {wrong}"))?;
    check_shape(kind, inputs.len(), &output, &state)?;

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
        doc: described.doc,
        kind,
        inputs,
        output,
        state,
        parameters,
    })
}

/// Whether a kind has the inputs, the output and the state that it needs. Kinds
/// that this version does not run are only described.
fn check_shape(kind: Kind, inputs: usize, output: &Schema, state: &Schema) -> Result<(), String> {
    let (stateful, answers_rows, name) = match kind {
        Kind::Filter => (false, false, "a filter"),
        Kind::Transform => (false, true, "a transform"),
        Kind::Aggregate => (true, true, "an aggregate"),
        Kind::Process | Kind::Join | Kind::Recommend => return Ok(()),
    };
    if inputs != 1 {
        return Err(format!("{name} has one input, this one has {inputs}"));
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
    match (answers_rows, output.fields.is_empty()) {
        (true, true) => Err(format!(
            "{name} needs an output, and this one has no field in it"
        )),
        (false, false) => Err(format!(
            "{name} has no output schema: its rows go on as they came"
        )),
        _ => Ok(()),
    }
}

fn parameter(described: wire::Parameter) -> Result<Parameter, String> {
    let name = described.name;
    check_name(&name).map_err(|wrong| format!("parameter `{name}`: {wrong}"))?;
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
        doc: described.doc,
    })
}

/// Depth first, a record or list followed by what it holds.
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
        wire::FieldType::Timestamp => DataType::Timestamp,
        wire::FieldType::Symbol(values) => {
            let distinct: HashSet<&String> = values.iter().collect();
            if values.is_empty() || distinct.len() < values.len() {
                return Err(format!(
                    "field `{name}` needs symbols that are all different, and at least one"
                ));
            }
            DataType::Symbol(values.into())
        }
        wire::FieldType::List => {
            // An element has no name of its own to check.
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
        doc: next.doc,
    })
}

fn check_distinct(fields: &[Field]) -> Result<(), String> {
    let mut names = HashSet::new();
    for field in fields {
        if field.name.is_empty() || field.name.chars().any(char::is_control) {
            return Err(format!(
                "`{}` is not a name for a field",
                field.name.escape_debug()
            ));
        }
        if !names.insert(&field.name) {
            return Err(format!("two fields are called `{}`", field.name));
        }
    }
    Ok(())
}

/// Operators and parameters are written in pipeline files, where a `.` divides
/// a plugin's name from its operator's.
fn check_name(name: &str) -> Result<(), String> {
    let plain = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    if name.is_empty() || !name.chars().all(plain) {
        return Err("a name is made of letters, digits, `_` and `-`".into());
    }
    Ok(())
}
