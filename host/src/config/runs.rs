//! Reads what an operator runs: an operator of a plugin, or something that needs none.

use std::fmt;

use toml::Spanned;

use super::diagnostics::{Diagnostics, Mistake, Span};
use super::reader::{ConfigValue, Table, check_name};
use crate::builtin::aggregate::call::Call;

#[derive(Debug)]
pub enum Runs {
    Plugin(Spanned<OperatorName>),
    Aggregate(AggregateConfig),
}

/// `plugin.operator`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorName {
    pub plugin: String,
    pub operator: String,
}

/// Functions that make up an aggregate.
#[derive(Debug)]
pub struct AggregateConfig {
    pub place: Span,
    /// The columns of its results, at least one.
    pub columns: Vec<(Spanned<String>, Spanned<Call>)>,
}

impl Runs {
    /// Where messages point.
    pub fn place(&self) -> Span {
        match self {
            Runs::Plugin(operator) => operator.span(),
            Runs::Aggregate(aggregate) => aggregate.place.clone(),
        }
    }

    /// Where a column of its output comes from.
    pub fn column_place(&self, name: &str) -> Span {
        let named = match self {
            Runs::Plugin(_) => None,
            Runs::Aggregate(aggregate) => {
                let mut columns = aggregate.columns.iter();
                columns.find(|(column, _)| column.get_ref() == name)
            }
        };
        named.map_or_else(|| self.place(), |(column, _)| column.span())
    }

    /// The plugin that has the operator, if it is a plugin's.
    pub fn plugin(&self) -> Option<&str> {
        match self {
            Runs::Plugin(operator) => Some(&operator.get_ref().plugin),
            Runs::Aggregate(_) => None,
        }
    }
}

const PLUGIN_WANTED: &str = "a plugin's name and its operator's, such as \"cart.clean\"";

pub(super) fn read(table: &mut Table, mistakes: &mut Diagnostics) -> Option<Runs> {
    let meaning =
        format!("{PLUGIN_WANTED}; or, without a plugin, `aggregate = {{ orders = \"count()\" }}`");
    let (key, value) = table.required_one(&["plugin", "aggregate"], &meaning, mistakes)?;
    match key {
        0 => read_operator_name(&value, mistakes).map(Runs::Plugin),
        _ => read_aggregate(&value, mistakes).map(Runs::Aggregate),
    }
}

fn read_operator_name(
    value: &ConfigValue,
    mistakes: &mut Diagnostics,
) -> Option<Spanned<OperatorName>> {
    let text = value.text(PLUGIN_WANTED, mistakes)?;
    let parts = text.get_ref().split_once('.');
    match parts.filter(|(plugin, operator)| !plugin.is_empty() && !operator.is_empty()) {
        Some((plugin, operator)) => Some(Spanned::new(
            text.span(),
            OperatorName {
                plugin: plugin.to_owned(),
                operator: operator.to_owned(),
            },
        )),
        None => {
            mistakes.push(
                Mistake::new(format!("{} does not name an operator of a plugin", value.what()))
                    .at(text.span(), "")
                    .help("write the plugin's name, a dot, and its operator's name, such as \"cart.clean\""),
            );
            None
        }
    }
}

fn read_aggregate(value: &ConfigValue, mistakes: &mut Diagnostics) -> Option<AggregateConfig> {
    let place = value.key_span();
    let entries = value.table(mistakes)?.into_entries();
    let columns: Vec<Option<_>> = entries
        .map(|(name, value)| {
            let good = check_name("the name of a column", &name, mistakes);
            let call = read_call(&value, mistakes)?;
            good.then_some((name, call))
        })
        .collect();
    if columns.is_empty() {
        mistakes.push(
            Mistake::new(format!("{} is empty", value.what()))
                .at(value.span(), "no function")
                .help("name a column for each function, as in { orders = \"count()\" }"),
        );
        return None;
    }
    let columns = columns.into_iter().collect::<Option<Vec<_>>>()?;
    Some(AggregateConfig { place, columns })
}

fn read_call(value: &ConfigValue, mistakes: &mut Diagnostics) -> Option<Spanned<Call>> {
    let text = value.text("a call of a function, such as \"sum(amount)\"", mistakes)?;
    match Call::parse(text.get_ref()) {
        Ok(call) => Some(Spanned::new(text.span(), call)),
        Err(error) => {
            mistakes.push(
                Mistake::new(format!("{} {}", value.what(), error.problem))
                    .at(text.span(), "")
                    .help(error.help),
            );
            None
        }
    }
}

impl fmt::Display for OperatorName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.plugin, self.operator)
    }
}
