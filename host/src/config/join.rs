//! Reads `join` and `select` of an operator: which rows of two inputs belong together,
//! and which of their columns make a row.

use toml::Spanned;
use toml::de::DeValue;

use super::diagnostics::{Diagnostics, Mistake, Span};
use super::input::{InputName, read_names};
use super::name::OperatorName;
use super::reader::ConfigValue;
use crate::plan::{JoinKind, LEFT, RIGHT, SIDES, Version};
use crate::schema::Field;

/// What an operator has instead of a plugin if it joins its inputs.
#[derive(Debug)]
pub struct JoinConfig {
    /// Of the key `join`.
    pub place: Span,
    pub kind: Spanned<JoinKind>,
    /// `None` if a window says it.
    pub matching: Option<MatchingConfig>,
    pub select: Option<Vec<JoinedConfig>>,
    /// Makes rows of pairs, in place of `select`.
    pub plugin: Option<Spanned<OperatorName>>,
}

/// Which rows match, unless a window says it.
#[derive(Clone, Debug)]
pub enum MatchingConfig {
    /// `None` is without a bound.
    Interval {
        before_ms: Option<i64>,
        after_ms: Option<i64>,
    },
    AsOf {
        version: Version,
        tombstone: Option<Spanned<String>>,
    },
}

/// What a look-up finds rows in.
#[derive(Debug)]
pub struct TableConfig {
    /// Of the key `table`.
    pub place: Span,
    pub inputs: Vec<Spanned<InputName>>,
    pub version: Version,
    pub tombstone: Option<Spanned<String>>,
}

/// A column of joined rows.
#[derive(Debug)]
pub struct JoinedConfig {
    pub name: Spanned<String>,
    pub from: JoinedFrom,
    pub place: Span,
}

#[derive(Debug)]
pub enum JoinedFrom {
    /// A field of a side.
    Side(usize, String),
    /// A field of the key, as the left side names it.
    Key(String),
    /// A record of these fields of a side, which is missing where none matches.
    Record(usize, Vec<Field>),
}

const KINDS: &[(&str, JoinKind)] = &[
    ("inner", JoinKind::Inner),
    ("left", JoinKind::Left),
    ("right", JoinKind::Right),
    ("full", JoinKind::Full),
];

const VERSIONS: &[(&str, Version)] = &[
    ("event_time", Version::EventTime),
    ("latest", Version::Latest),
];

const JOIN_MEANING: &str = "such as `{ kind = \"inner\", before = \"5m\", after = \"1m\" }`, \
     `{ kind = \"left\", as_of = \"event_time\" }`, or `{ kind = \"full\" }` with a `window`";

/// Reads a join with its `select` or `plugin`, if it has one.
pub(super) fn read(
    join: &ConfigValue,
    select: Option<ConfigValue>,
    plugin: Option<Spanned<OperatorName>>,
    mistakes: &mut Diagnostics,
) -> Option<JoinConfig> {
    let rule = read_rule(join, mistakes);
    let select = match select {
        Some(value) => Some(read_select(&value, mistakes)?),
        None => None,
    };
    let (kind, matching) = rule?;
    Some(JoinConfig {
        place: join.key_span(),
        kind,
        matching,
        select,
        plugin,
    })
}

/// Reads the table of a look-up: what it is read from, or that and how.
pub(super) fn read_table(value: &ConfigValue, mistakes: &mut Diagnostics) -> Option<TableConfig> {
    let place = value.key_span();
    if !matches!(value.raw(), DeValue::Table(_)) {
        return Some(TableConfig {
            place,
            inputs: read_names(value, mistakes)?,
            version: Version::EventTime,
            tombstone: None,
        });
    }
    let mut table = value.table(mistakes)?;
    let input = table.required(
        "input",
        "the source or operator whose rows it has",
        mistakes,
    );
    let as_of = table.optional("as_of");
    let tombstone = table.optional("tombstone");
    table.finish(mistakes);
    let version = match as_of {
        Some(as_of) => as_of.choice(VERSIONS, mistakes)?.into_inner(),
        None => Version::EventTime,
    };
    let tombstone = match tombstone {
        Some(field) => Some(field.text("the name of a field of the table", mistakes)?),
        None => None,
    };
    Some(TableConfig {
        place,
        inputs: read_names(&input?, mistakes)?,
        version,
        tombstone,
    })
}

fn read_rule(
    value: &ConfigValue,
    mistakes: &mut Diagnostics,
) -> Option<(Spanned<JoinKind>, Option<MatchingConfig>)> {
    if !matches!(value.raw(), DeValue::Table(_)) {
        value.refuse(&format!("a table, {JOIN_MEANING}"), mistakes);
        return None;
    }
    let mut table = value.table(mistakes)?;
    let kind = table
        .required(
            "kind",
            "\"inner\", \"left\", \"right\" or \"full\"",
            mistakes,
        )
        .and_then(|kind| kind.choice(KINDS, mistakes));
    let before = table.optional("before");
    let after = table.optional("after");
    let as_of = table.optional("as_of");
    let tombstone = table.optional("tombstone");
    table.finish(mistakes);
    let kind = kind?;
    if let Some(as_of) = as_of {
        if let Some(bound) = before.or(after) {
            refuse_beside(&bound, &as_of, mistakes);
            return None;
        }
        if kind.get_ref().keeps(RIGHT) {
            mistakes.push(
                Mistake::new(format!(
                    "{} cannot be \"{}\" with `as_of`: versions are not rows that wait for a match",
                    value.what(),
                    kind.get_ref().name()
                ))
                .at(kind.span(), "")
                .at(as_of.key_span(), "because of this")
                .help("write `kind = \"inner\"` or `kind = \"left\"`"),
            );
            return None;
        }
        let tombstone = match tombstone {
            Some(field) => Some(field.text("the name of a field of the right side", mistakes)?),
            None => None,
        };
        let version = as_of.choice(VERSIONS, mistakes)?.into_inner();
        return Some((kind, Some(MatchingConfig::AsOf { version, tombstone })));
    }
    if let Some(tombstone) = tombstone {
        mistakes.push(
            Mistake::new(format!(
                "{} makes no sense without `as_of`: only versions are deleted",
                tombstone.what()
            ))
            .at(tombstone.key_span(), "")
            .help("remove it, or add `as_of = \"event_time\"`"),
        );
        return None;
    }
    match (before, after) {
        (None, None) => Some((kind, None)),
        (Some(before), Some(after)) => {
            let before_ms = read_bound(&before, mistakes);
            let after_ms = read_bound(&after, mistakes);
            let matching = MatchingConfig::Interval {
                before_ms: before_ms?,
                after_ms: after_ms?,
            };
            Some((kind, Some(matching)))
        }
        (before, after) => {
            let (given, missing) = match &before {
                Some(_) => ("before", "after"),
                None => ("after", "before"),
            };
            let place = before
                .or(after)
                .map_or(value.span(), |bound| bound.key_span());
            mistakes.push(
                Mistake::new(format!(
                    "{} has `{given}`, and no `{missing}`",
                    value.what()
                ))
                .at(place, "")
                .help(format!(
                    "add `{missing} = \"0s\"`, or a longer time: right rows match from `before` \
                     before the left row to `after` after it"
                )),
            );
            None
        }
    }
}

fn refuse_beside(bound: &ConfigValue, as_of: &ConfigValue, mistakes: &mut Diagnostics) {
    mistakes.push(
        Mistake::new(format!(
            "{} makes no sense beside `as_of`: the last version counts, however old it is",
            bound.what()
        ))
        .at(bound.key_span(), "")
        .at(as_of.key_span(), "because of this")
        .help("remove one of them"),
    );
}

/// A bound of an interval; `Some(None)` is without one.
fn read_bound(value: &ConfigValue, mistakes: &mut Diagnostics) -> Option<Option<i64>> {
    if matches!(value.raw(), DeValue::String(word) if word == "unbounded") {
        return Some(None);
    }
    Some(Some(value.duration(0, mistakes)?.into_inner()))
}

fn read_select(value: &ConfigValue, mistakes: &mut Diagnostics) -> Option<Vec<JoinedConfig>> {
    let columns = value.table(mistakes)?.into_entries();
    let columns: Vec<Option<JoinedConfig>> = columns
        .map(|(name, value)| {
            let wanted = "a field of a side, such as \"left.id\" or \"right.amount\"";
            let text = value.text(wanted, mistakes)?;
            let from = match text.get_ref().split_once('.') {
                Some((_, "")) => None,
                Some((side, field)) if side == SIDES[LEFT] => {
                    Some(JoinedFrom::Side(LEFT, field.to_owned()))
                }
                Some((side, field)) if side == SIDES[RIGHT] => {
                    Some(JoinedFrom::Side(RIGHT, field.to_owned()))
                }
                Some(("key", field)) => Some(JoinedFrom::Key(field.to_owned())),
                _ => None,
            };
            let Some(from) = from else {
                mistakes.push(
                    Mistake::new(format!(
                        "{} is `{}`, which names no field of a side",
                        value.what(),
                        text.get_ref()
                    ))
                    .at(text.span(), "")
                    .help(
                        "write \"left.FIELD\" or \"right.FIELD\"; \"key.FIELD\" is a field of \
                         the key, of whichever side there is",
                    ),
                );
                return None;
            };
            Some(JoinedConfig {
                name,
                from,
                place: text.span(),
            })
        })
        .collect();
    if columns.is_empty() {
        mistakes.push(
            Mistake::new(format!("{} is empty", value.what()))
                .at(value.span(), "an empty table")
                .help("name the columns of joined rows, or remove it for all of both sides"),
        );
        return None;
    }
    columns.into_iter().collect()
}
