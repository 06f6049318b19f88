//! Reads what an operator runs: an operator of a plugin, or something that needs none.

use std::collections::HashMap;

use toml::Spanned;
use toml::de::DeValue;

use super::diagnostics::{Diagnostics, Mistake, Span};
use super::join::{self, JoinConfig};
use super::key::{FIELD_WANTED, read_fields};
use super::name::OperatorName;
use super::reader::{ConfigValue, Table, check_name};
use crate::builtin::aggregate::call::{Call, CallError};
use crate::builtin::neighbours::call::Call as NeighbourCall;
use crate::logic::Kind;

#[derive(Debug)]
pub enum Runs {
    Plugin(Spanned<OperatorName>),
    Aggregate(AggregateConfig),
    Select(SelectConfig),
    Drop(DropConfig),
    Deduplicate(DeduplicateConfig),
    Filter(FilterConfig),
    Order(OrderConfig),
    Join(JoinConfig),
}

/// Functions that make up an aggregate.
#[derive(Debug)]
pub struct AggregateConfig {
    pub place: Span,
    /// The columns of its results, at least one.
    pub columns: Vec<(Spanned<String>, Spanned<Call>)>,
}

/// The fields of rows that are kept, under new names.
#[derive(Debug)]
pub struct SelectConfig {
    pub place: Span,
    /// Names, and the fields or members of records that they are of; at least one.
    pub columns: Vec<(Spanned<String>, Spanned<String>)>,
}

/// The fields of rows that are left out.
#[derive(Debug)]
pub struct DropConfig {
    pub place: Span,
    pub fields: Vec<Spanned<String>>,
}

/// What makes a row a duplicate.
#[derive(Debug)]
pub struct DeduplicateConfig {
    pub place: Span,
    /// The fields that duplicates have in common, at least one.
    pub by: Vec<Spanned<String>>,
    pub within_ms: i64,
}

/// What is added to rows that come in order.
#[derive(Debug)]
pub struct OrderConfig {
    pub place: Span,
    /// The columns, if there are any.
    pub add: Vec<(Spanned<String>, Spanned<NeighbourCall>)>,
}

/// What is true of the rows that are kept.
#[derive(Debug)]
pub struct FilterConfig {
    pub place: Span,
    pub expression: Spanned<String>,
}

impl Runs {
    /// Where messages point.
    pub fn place(&self) -> Span {
        match self {
            Runs::Plugin(operator) => operator.span(),
            Runs::Aggregate(aggregate) => aggregate.place.clone(),
            Runs::Select(select) => select.place.clone(),
            Runs::Drop(drop) => drop.place.clone(),
            Runs::Deduplicate(deduplicate) => deduplicate.place.clone(),
            Runs::Filter(filter) => filter.place.clone(),
            Runs::Order(order) => order.place.clone(),
            Runs::Join(join) => join.place.clone(),
        }
    }

    /// What it is, unless only its plugin knows.
    pub fn kind(&self) -> Option<Kind> {
        match self {
            Runs::Plugin(_) => None,
            Runs::Aggregate(_) | Runs::Deduplicate(_) => Some(Kind::Aggregate),
            Runs::Select(_) | Runs::Drop(_) => Some(Kind::Transform),
            Runs::Filter(_) => Some(Kind::Filter),
            Runs::Order(_) => Some(Kind::Process),
            Runs::Join(_) => Some(Kind::Join),
        }
    }

    /// Where the columns of its output come from that it names; others come from its
    /// [`Runs::place`].
    pub fn column_places(&self) -> HashMap<&str, Span> {
        let names: Vec<&Spanned<String>> = match self {
            Runs::Aggregate(aggregate) => aggregate.columns.iter().map(|(name, _)| name).collect(),
            Runs::Select(select) => select.columns.iter().map(|(name, _)| name).collect(),
            Runs::Order(order) => order.add.iter().map(|(name, _)| name).collect(),
            Runs::Plugin(_)
            | Runs::Drop(_)
            | Runs::Deduplicate(_)
            | Runs::Filter(_)
            | Runs::Join(_) => Vec::new(),
        };
        let places = names
            .iter()
            .map(|name| (name.get_ref().as_str(), name.span()));
        places.collect()
    }

    /// The plugin that has the operator, if it is a plugin's.
    pub fn plugin(&self) -> Option<&str> {
        match self {
            Runs::Plugin(operator) => Some(&operator.get_ref().plugin),
            Runs::Join(join) => join.plugin.as_ref().map(|it| it.get_ref().plugin.as_str()),
            _ => None,
        }
    }
}

/// The keys that say what an operator runs. So does `order`, where none of them is given:
/// a plugin's process has it as well.
const KEYS: [&str; 6] = [
    "plugin",
    "aggregate",
    "filter",
    "select",
    "drop",
    "deduplicate",
];

const PLUGIN_WANTED: &str = "a plugin's name and its operator's, such as \"cart.clean\"";

pub(super) fn read(table: &mut Table, mistakes: &mut Diagnostics) -> Option<Runs> {
    let meaning = format!(
        "{PLUGIN_WANTED}; or, without a plugin, `aggregate = {{ orders = \"count()\" }}`, \
         `filter`, `select`, `drop`, `deduplicate`, `order` or `join`"
    );
    if let Some(join) = table.optional("join") {
        return read_join(&join, table, mistakes).map(Runs::Join);
    }
    if let Some(order) = table.optional("order")
        && KEYS.iter().all(|key| table.optional(key).is_none())
    {
        let add = match table.optional("add") {
            Some(add) => read_calls(&add, mistakes, NeighbourCall::parse)?,
            None => Vec::new(),
        };
        let place = order.key_span();
        return Some(Runs::Order(OrderConfig { place, add }));
    }
    let (key, value) =
        table.required_one(&KEYS, &meaning, "an operator does one thing", mistakes)?;
    match KEYS[key] {
        "aggregate" => read_aggregate(&value, mistakes).map(Runs::Aggregate),
        "filter" => read_filter(&value, mistakes).map(Runs::Filter),
        "select" => read_select(&value, mistakes).map(Runs::Select),
        "drop" => read_drop(&value, mistakes).map(Runs::Drop),
        "deduplicate" => read_deduplicate(&value, mistakes).map(Runs::Deduplicate),
        _ => read_operator_name(&value, mistakes).map(Runs::Plugin),
    }
}

/// Reads a join, with the `select` that says which columns joined rows have, or the plugin
/// that makes them.
fn read_join(
    join: &ConfigValue,
    table: &mut Table,
    mistakes: &mut Diagnostics,
) -> Option<JoinConfig> {
    let select = table.optional("select");
    let plugin = table.optional("plugin");
    if let (Some(select), Some(plugin)) = (&select, &plugin) {
        mistakes.push(
            Mistake::new(format!("{} has a `select` and a `plugin`", table.owner()))
                .at(select.key_span(), "either this")
                .at(plugin.key_span(), "or this")
                .help("remove one of them: either makes the joined rows"),
        );
        return None;
    }
    let plugin = match plugin {
        Some(plugin) => Some(read_operator_name(&plugin, mistakes)?),
        None => None,
    };
    for key in KEYS
        .into_iter()
        .filter(|key| !["select", "plugin"].contains(key))
    {
        if let Some(other) = table.optional(key) {
            mistakes.push(
                Mistake::new(format!("{} has a `{key}` and a `join`", table.owner()))
                    .at(other.key_span(), "")
                    .at(join.key_span(), "")
                    .help("remove one of them: an operator does one thing"),
            );
            return None;
        }
    }
    join::read(join, select, plugin, mistakes)
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
    Some(AggregateConfig {
        place: value.key_span(),
        columns: read_calls(value, mistakes, Call::parse)?,
    })
}

/// Reads columns, at least one, each with a call of a function.
fn read_calls<C>(
    value: &ConfigValue,
    mistakes: &mut Diagnostics,
    parse: fn(&str) -> Result<C, CallError>,
) -> Option<Vec<(Spanned<String>, Spanned<C>)>> {
    let entries = value.table(mistakes)?.into_entries();
    let columns: Vec<Option<_>> = entries
        .map(|(name, value)| {
            let good = check_name("the name of a column", &name, mistakes);
            let call = read_call(&value, mistakes, parse)?;
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
    columns.into_iter().collect()
}

fn read_call<C>(
    value: &ConfigValue,
    mistakes: &mut Diagnostics,
    parse: fn(&str) -> Result<C, CallError>,
) -> Option<Spanned<C>> {
    let text = value.text("a call of a function, such as \"sum(amount)\"", mistakes)?;
    match parse(text.get_ref()) {
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

fn read_select(value: &ConfigValue, mistakes: &mut Diagnostics) -> Option<SelectConfig> {
    let what = "the name of a column";
    let columns: Vec<Option<_>> = match value.raw() {
        DeValue::Table(_) => {
            let entries = value.table(mistakes)?.into_entries();
            entries
                .map(|(name, value)| {
                    let good = check_name(what, &name, mistakes);
                    let field = value.text(FIELD_WANTED, mistakes)?;
                    good.then_some((name, field))
                })
                .collect()
        }
        _ => {
            let names = read_fields(value, mistakes)?.into_iter();
            names
                .map(|name| check_name(what, &name, mistakes).then(|| (name.clone(), name)))
                .collect()
        }
    };
    if columns.is_empty() {
        refuse_empty(value, mistakes);
        return None;
    }
    Some(SelectConfig {
        place: value.key_span(),
        columns: columns.into_iter().collect::<Option<_>>()?,
    })
}

/// Reads names of fields, at least one.
fn read_some_fields(
    value: &ConfigValue,
    mistakes: &mut Diagnostics,
) -> Option<Vec<Spanned<String>>> {
    let fields = read_fields(value, mistakes)?;
    if fields.is_empty() {
        refuse_empty(value, mistakes);
    }
    (!fields.is_empty()).then_some(fields)
}

fn refuse_empty(value: &ConfigValue, mistakes: &mut Diagnostics) {
    mistakes.push(
        Mistake::new(format!("{} is empty", value.what()))
            .at(value.span(), "no field")
            .help("name a field of its input"),
    );
}

fn read_drop(value: &ConfigValue, mistakes: &mut Diagnostics) -> Option<DropConfig> {
    Some(DropConfig {
        place: value.key_span(),
        fields: read_some_fields(value, mistakes)?,
    })
}

fn read_filter(value: &ConfigValue, mistakes: &mut Diagnostics) -> Option<FilterConfig> {
    let wanted = "what is true of the rows to keep, such as \"amount > 100\"";
    Some(FilterConfig {
        place: value.key_span(),
        expression: value.text(wanted, mistakes)?,
    })
}

fn read_deduplicate(value: &ConfigValue, mistakes: &mut Diagnostics) -> Option<DeduplicateConfig> {
    let mut table = value.table(mistakes)?;
    let by = table
        .required("by", "the fields that duplicates have in common", mistakes)
        .and_then(|value| read_some_fields(&value, mistakes));
    let meaning = "how far a duplicate may be from the row before it, in event time";
    let within_ms = table
        .required("within", meaning, mistakes)
        .and_then(|value| value.duration(1, mistakes));
    table.finish(mistakes);
    Some(DeduplicateConfig {
        place: value.key_span(),
        by: by?,
        within_ms: within_ms?.into_inner(),
    })
}
