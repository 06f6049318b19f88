//! Reads `input`: the outputs that operators and sinks read.

use std::fmt;

use toml::Spanned;
use toml::de::DeValue;

use super::diagnostics::{Diagnostics, Mistake};
use super::reader::{ConfigValue, Table};

/// An output that is read, and the input port that reads it.
#[derive(Clone, Debug)]
pub struct InputConfig {
    /// Absent where the ports are not named, since there is one.
    pub port: Option<Spanned<String>>,
    pub from: Spanned<InputName>,
}

/// `name`, or `name.output` for an output other than the main one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputName {
    pub node: String,
    pub output: Option<String>,
}

impl fmt::Display for InputName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.output {
            None => f.write_str(&self.node),
            Some(output) => write!(f, "{}.{output}", self.node),
        }
    }
}

const INPUT_MEANING: &str = "the source or operator whose rows it takes, or a list of them";

/// Reads the inputs of a sink.
pub(super) fn read_inputs(
    table: &mut Table,
    mistakes: &mut Diagnostics,
) -> Option<Vec<Spanned<InputName>>> {
    let value = table.required("input", INPUT_MEANING, mistakes)?;
    read_names(&value, mistakes)
}

/// Reads the inputs of an operator: names, or a table of names by port.
pub(super) fn read_ports(
    table: &mut Table,
    mistakes: &mut Diagnostics,
) -> Option<Vec<InputConfig>> {
    let value = table.required("input", INPUT_MEANING, mistakes)?;
    if !matches!(value.raw(), DeValue::Table(_)) {
        let names = read_names(&value, mistakes)?.into_iter();
        return Some(names.map(|from| InputConfig { port: None, from }).collect());
    }
    let ports = value.table(mistakes)?.into_entries();
    let inputs: Vec<Option<Vec<InputConfig>>> = ports
        .map(|(port, value)| {
            let names = read_names(&value, mistakes)?.into_iter();
            let input = |from| InputConfig {
                port: Some(port.clone()),
                from,
            };
            Some(names.map(input).collect())
        })
        .collect();
    if inputs.is_empty() {
        mistakes.push(
            Mistake::new(format!("{} is empty", value.what()))
                .at(value.span(), "an empty table")
                .help("write the names of the operator's inputs, each with what it reads"),
        );
        return None;
    }
    let inputs: Option<Vec<Vec<InputConfig>>> = inputs.into_iter().collect();
    Some(inputs?.into_iter().flatten().collect())
}

pub(super) fn read_names(
    value: &ConfigValue,
    mistakes: &mut Diagnostics,
) -> Option<Vec<Spanned<InputName>>> {
    let wanted = "the name of a source or operator, or a list of names";
    let inputs = value.one_or_more(wanted, mistakes, read_input)?;
    if inputs.is_empty() {
        mistakes.push(
            Mistake::new(format!("{} is empty", value.what()))
                .at(value.span(), "an empty list")
                .help(format!("write {INPUT_MEANING}")),
        );
        return None;
    }
    for (i, input) in inputs.iter().enumerate() {
        if let Some(first) = inputs[..i].iter().find(|other| *other == input) {
            mistakes.push(
                Mistake::new(format!(
                    "{} names `{}` twice",
                    value.what(),
                    input.get_ref()
                ))
                .at(input.span(), "again here")
                .at(first.span(), "first here")
                .help("name it once: each of its rows would be read twice"),
            );
            return None;
        }
    }
    Some(inputs)
}

/// Reads `name` or `name.output`. Whether there is such an output, the planner knows.
fn read_input(value: &ConfigValue, mistakes: &mut Diagnostics) -> Option<Spanned<InputName>> {
    let text = value.text("the name of a source or operator, in quotes", mistakes)?;
    let (node, output) = match text.get_ref().split_once('.') {
        None => (text.get_ref().as_str(), None),
        Some((node, output)) => (node, Some(output.to_owned())),
    };
    let name = InputName {
        node: node.to_owned(),
        output,
    };
    Some(Spanned::new(text.span(), name))
}
