//! A plugin's description for `sluicebox inspect`, as text and as JSON.

use std::fmt::Write;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Plugin;
use crate::logic::{self, OperatorInfo, Value, ValueType};
use crate::quantity::ShownBytes;
use crate::schema::{DataType, Schema};

/// A plugin's description, as `sluicebox inspect --json` prints it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Inspection {
    pub name: String,
    pub version: String,
    pub doc: String,
    pub digest: String,
    pub bytes: usize,
    pub operators: Vec<InspectedOperator>,
    /// Interfaces that the host calls: one that every plugin has, and one for
    /// each kind of its operators.
    pub exports: Vec<String>,
    /// Interfaces that the plugin imports from the host.
    pub imports: Vec<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct InspectedOperator {
    pub name: String,
    pub kind: String,
    pub doc: String,
    pub inputs: Vec<InspectedPort>,
    pub outputs: Vec<InspectedPort>,
    /// What it reads of its key, which the pipeline must have among its key's fields.
    pub key: Vec<InspectedField>,
    pub state: Vec<InspectedField>,
    /// Whether it is an aggregate that can take rows back.
    pub retracts: bool,
    pub parameters: Vec<InspectedParameter>,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct InspectedPort {
    pub name: String,
    pub fields: Vec<InspectedField>,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct InspectedField {
    pub name: String,
    /// As in a pipeline file, with a `?` at the end if it may be missing.
    #[serde(rename = "type")]
    pub field_type: String,
    pub doc: String,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct InspectedParameter {
    pub name: String,
    #[serde(rename = "type")]
    pub value_type: String,
    pub default: Option<serde_json::Value>,
    pub required: bool,
    pub doc: String,
}

impl Plugin {
    pub fn inspect(&self) -> Inspection {
        let Plugin(plugin) = self;
        Inspection {
            name: plugin.info.name.clone(),
            version: plugin.info.version.clone(),
            doc: plugin.info.doc.clone(),
            digest: plugin.digest.to_string(),
            bytes: plugin.bytes,
            operators: plugin.info.operators.iter().map(operator).collect(),
            exports: plugin.exports.clone(),
            imports: plugin.imports.clone(),
        }
    }
}

impl Inspection {
    /// The description as lines for a terminal, without a final line end.
    pub fn to_text(&self) -> String {
        let mut text = format!("{} {}", self.name, self.version);
        doc(&mut text, "  ", &self.doc);
        let size = ShownBytes(self.bytes);
        push(&mut text, format_args!("\n  {size}, {}", self.digest));
        for operator in &self.operators {
            operator.push_to(&mut text);
        }
        interfaces(&mut text, "exports", &self.exports);
        interfaces(&mut text, "imports", &self.imports);
        text
    }
}

impl InspectedOperator {
    fn push_to(&self, text: &mut String) {
        push(text, format_args!("\n\n{} ({})", self.name, self.kind));
        doc(text, "  ", &self.doc);
        ports(text, "input", &self.inputs);
        fields(text, "key", &self.key);
        fields(text, "state", &self.state);
        ports(text, "output", &self.outputs);
        if self.kind == "filter" {
            text.push_str("\n  output: the rows that it keeps, unchanged");
        }
        if !self.parameters.is_empty() {
            text.push_str("\n  parameters");
        }
        for parameter in &self.parameters {
            let InspectedParameter {
                name, value_type, ..
            } = parameter;
            push(text, format_args!("\n    {name}: {value_type}"));
            match &parameter.default {
                Some(default) => push(text, format_args!(" = {default}")),
                None if parameter.required => text.push_str(", required"),
                None => text.push_str(", optional"),
            }
            doc(text, "      ", &parameter.doc);
        }
    }
}

fn interfaces(text: &mut String, title: &str, names: &[String]) {
    push(text, format_args!("\n\n{title}"));
    for name in names {
        push(text, format_args!("\n  {name}"));
    }
    if names.is_empty() {
        text.push_str(" nothing");
    }
}

/// Ports are named only where an operator has several inputs or outputs.
fn ports(text: &mut String, what: &str, ports: &[InspectedPort]) {
    for port in ports {
        let title = match ports.len() {
            1 => what.to_owned(),
            _ => format!("{what} {}", port.name),
        };
        fields(text, &title, &port.fields);
    }
}

fn fields(text: &mut String, title: &str, fields: &[InspectedField]) {
    if fields.is_empty() {
        return;
    }
    push(text, format_args!("\n  {title}"));
    for field in fields {
        push(
            text,
            format_args!("\n    {}: {}", field.name, field.field_type),
        );
        doc(text, "      ", &field.doc);
    }
}

fn doc(text: &mut String, indent: &str, doc: &str) {
    for line in doc.trim().lines() {
        push(text, format_args!("\n{indent}{}", line.trim_end()));
    }
}

fn push(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = text.write_fmt(arguments);
}

fn operator(info: &OperatorInfo) -> InspectedOperator {
    InspectedOperator {
        name: info.name.clone(),
        kind: info.kind.name().to_owned(),
        doc: info.doc.clone(),
        inputs: info.inputs.iter().map(port).collect(),
        outputs: info.outputs.iter().map(port).collect(),
        key: schema(&info.key),
        state: schema(&info.state),
        retracts: info.retracts,
        parameters: info
            .parameters
            .iter()
            .map(|parameter| InspectedParameter {
                name: parameter.name.clone(),
                value_type: type_name(parameter.value_type).to_owned(),
                default: parameter.default.as_ref().map(value),
                required: parameter.default.is_none() && !parameter.optional,
                doc: parameter.doc.clone(),
            })
            .collect(),
    }
}

fn port(port: &logic::Port) -> InspectedPort {
    InspectedPort {
        name: port.name.clone(),
        fields: schema(&port.schema),
    }
}

fn schema(schema: &Schema) -> Vec<InspectedField> {
    schema
        .fields
        .iter()
        .map(|field| InspectedField {
            name: field.name.clone(),
            field_type: match (&field.data_type, field.nullable) {
                (data_type @ DataType::Symbol(_), true) => format!("({data_type})?"),
                (data_type, true) => format!("{data_type}?"),
                (data_type, false) => data_type.to_string(),
            },
            doc: field.doc.clone(),
        })
        .collect()
}

fn value(value: &Value) -> serde_json::Value {
    match value {
        Value::Boolean(value) => (*value).into(),
        Value::Integer(value) => (*value).into(),
        Value::Number(value) => (*value).into(),
        Value::Text(value) => value.as_str().into(),
        Value::Texts(values) => values.as_slice().into(),
    }
}

fn type_name(value_type: ValueType) -> &'static str {
    match value_type {
        ValueType::Boolean => "boolean",
        ValueType::Integer => "integer",
        ValueType::Number => "number",
        ValueType::Text => "text",
        ValueType::Texts => "texts",
    }
}
