//! Finds the field with the event time of rows: of a source, or of an operator behind it.
//!
//! An operator gives rows their event time in the task that reads their source, so that
//! each partition has a watermark of its own. So it gets all its rows from one source, by
//! way of filters and transforms alone, and no other rows of that source are counted by
//! time.

use super::builder::Builder;
use super::columns::{Relation, find};
use super::graph::{Graph, Section};
use crate::config::{Mistake, OperatorConfig, SourceConfig, Span, Spanned};
use crate::logic::Kind;
use crate::plan::{FieldPath, OperatorTime};
use crate::schema::{DataType, Field};
use crate::suggest;

/// Whose field it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    Source,
    Operator,
}

const RULE: &str = "`event_time` is possible on a source, and on a filter or transform whose rows \
                    all come from one source that has none, with filters and transforms between";

impl Builder<'_> {
    /// For each section that is a source, the operator that finds the event time of its
    /// rows, if there is one. `kinds` are those of the sections that are operators.
    pub(super) fn timing_operators(
        &mut self,
        graph: &Graph,
        kinds: &[Option<Kind>],
    ) -> Vec<Option<usize>> {
        let mut operators: Vec<Option<usize>> = vec![None; graph.sections.len()];
        for (at, section) in graph.sections.iter().enumerate() {
            let Section::Operator(operator) = section else {
                continue;
            };
            let Some(name) = &operator.time.field else {
                self.refuse_watermark_alone(operator);
                continue;
            };
            let (why, place) = match timed_source(graph, kinds, at) {
                Traced::Unknown => continue,
                Traced::Refused { why, place } => (why, place),
                Traced::Source(source) => match operators[source].replace(at) {
                    None => {
                        self.refuse_other_readers(graph, kinds, source, at, name);
                        continue;
                    }
                    Some(other) => {
                        let (one, other) = (&graph.sections[source], &graph.sections[other]);
                        let why = format!("{} finds that of {}", other.title(), one.title());
                        (why, other.name().span())
                    }
                },
            };
            let mut mistake = Mistake::new(format!(
                "{} cannot have an `event_time`: {why}",
                section.title()
            ))
            .at(name.span(), "")
            .help(RULE);
            if !place.is_empty() {
                mistake = mistake.at(place, "because of this");
            }
            self.mistakes.push(mistake);
        }
        for (source, operator) in graph.sections.iter().zip(&operators) {
            if let (Section::Source(source), Some(operator)) = (source, operator) {
                self.refuse_watermark_of_source(source, &graph.sections[*operator].title());
            }
        }
        operators
    }

    fn refuse_watermark_alone(&mut self, operator: &OperatorConfig) {
        if let Some(watermark) = &operator.time.watermark {
            self.mistakes.push(
                Mistake::new(format!(
                    "operator `{}` has a `watermark`, and no `event_time`",
                    operator.name.get_ref()
                ))
                .at(watermark.place.clone(), "")
                .help(
                    "add `event_time`, the name of the field of its output with the event time, \
                     or give the `watermark` to the source that has the `event_time`",
                ),
            );
        }
    }

    fn refuse_watermark_of_source(&mut self, source: &SourceConfig, operator: &str) {
        if let Some(watermark) = &source.time.watermark {
            self.mistakes.push(
                Mistake::new(format!(
                    "source `{}` has a `watermark`, and {operator} finds the event time of its rows",
                    source.name.get_ref()
                ))
                .at(watermark.place.clone(), "")
                .help(format!("give it to {operator}")),
            );
        }
    }

    /// Refuses aggregates, joins and processes to which rows of the source come without an event time.
    fn refuse_other_readers(
        &mut self,
        graph: &Graph,
        kinds: &[Option<Kind>],
        source: usize,
        operator: usize,
        name: &Spanned<String>,
    ) {
        let mut untimed = vec![false; graph.sections.len()];
        untimed[source] = true;
        for &at in &graph.order {
            let mut inputs = graph.inputs[at].iter().flatten();
            let Some(input) = inputs.find(|input| untimed[input.from]) else {
                continue;
            };
            let what = match kinds[at] {
                Some(Kind::Aggregate) => "an aggregate",
                Some(Kind::Join) => "a join",
                Some(Kind::Process) => "a process",
                _ => {
                    untimed[at] = at != operator;
                    continue;
                }
            };
            let title = |at: usize| graph.sections[at].title();
            self.mistakes.push(
                Mistake::new(format!(
                    "rows of {} come to {}, {what}, without an event time: {} finds it",
                    title(source),
                    title(at),
                    title(operator)
                ))
                .at(input.place.clone(), "they come from here")
                .at(name.span(), "their event time is from here")
                .help(format!(
                    "have it read `{}`, or write a second source that reads the same",
                    graph.sections[operator].name().get_ref()
                )),
            );
        }
    }

    /// The event time that an operator gives to its rows, if it does.
    pub(super) fn operator_time(
        &mut self,
        operator: &OperatorConfig,
        source: Option<&SourceConfig>,
        title: &str,
        output: Option<&Relation>,
    ) -> Option<OperatorTime> {
        let name = operator.time.field.as_ref()?;
        let field = self.time_field(name, title, output?, Owner::Operator)?;
        let watermark = operator.time.watermark.as_ref();
        Some(OperatorTime {
            field,
            ahead_ms_max: watermark
                .and_then(|watermark| watermark.ahead_ms_max)
                .or_else(|| source?.settings.ahead_ms_max()),
        })
    }

    /// Finds the field that has the event time, by its name.
    pub(super) fn time_field(
        &mut self,
        name: &Spanned<String>,
        title: &str,
        relation: &Relation,
        owner: Owner,
    ) -> Option<FieldPath> {
        let fields = &relation.schema.fields;
        let Some(found) = find(fields, name.get_ref()) else {
            let mut times = Vec::new();
            list_times(fields, "", &mut times);
            let times = times.iter().map(String::as_str);
            self.mistakes.push(
                Mistake::new(format!(
                    "{title} takes its event time from `{}`, which is not one of its fields",
                    name.get_ref()
                ))
                .at(name.span(), "")
                .help(suggest::help(
                    name.get_ref(),
                    "fields that can be a time",
                    times,
                )),
            );
            return None;
        };
        let Some(refused) = found.fields.iter().enumerate().find(|(depth, field)| {
            let is_last = depth + 1 == found.fields.len();
            field.nullable || (is_last && !is_time(field))
        }) else {
            return Some(FieldPath::new(found.column, found.members));
        };
        let (depth, field) = refused;
        let names = found.fields[..=depth].iter();
        let names: Vec<&str> = names.map(|field| field.name.as_str()).collect();
        let mut shown = (*field).clone();
        shown.name = names.join(".");
        let reason = match field.nullable {
            true => "every row needs an event time",
            false => "a time is a timestamp, or an int64 in ms",
        };
        let help = match (owner, &field.data_type) {
            (_, DataType::Record(members)) if !field.nullable => {
                let mut times = Vec::new();
                list_times(members, &format!("{}.", shown.name), &mut times);
                let times: Vec<&str> = times.iter().map(String::as_str).collect();
                match times.is_empty() {
                    true => "no member of it can be a time".to_owned(),
                    false => format!("name a member of it: {}", suggest::listed(&times)),
                }
            }
            (Owner::Source, DataType::Record(_)) => {
                format!("declare `{}` without `?`", shown.name)
            }
            (Owner::Source, _) => format!("declare it as `{} = \"timestamp\"`", field.name),
            (Owner::Operator, _) if field.nullable => format!(
                "let `{}` never be missing: without `Option` in the plugin's output, or, where \
                 that is passed on, without `?` in the source's `fields`",
                shown.name
            ),
            (Owner::Operator, _) => format!(
                "let the plugin give `{}` as a `Timestamp`, or as an `i64` in ms",
                shown.name
            ),
        };
        let place = relation.places.get(found.column).cloned();
        self.mistakes.push(
            Mistake::new(format!(
                "{title} cannot take its event time from `{shown}`: {reason}"
            ))
            .at(name.span(), "")
            .at(
                place.unwrap_or_default(),
                format!("`{}` is from here", fields[found.column]),
            )
            .help(help),
        );
        None
    }
}

/// What the rows of an operator come from.
enum Traced {
    /// Only rows of this source, through filters and transforms.
    Source(usize),
    /// Rows that cannot get an event time here.
    Refused { why: String, place: Span },
    /// A mistake was or will be reported where it is.
    Unknown,
}

fn timed_source(graph: &Graph, kinds: &[Option<Kind>], operator: usize) -> Traced {
    let windowed = "whose results have the time of their window";
    let joined = "whose rows have the times of those that they are made of";
    let refused = |why: String, place: Span| Traced::Refused { why, place };
    match kinds[operator] {
        None => return Traced::Unknown,
        Some(Kind::Aggregate) => {
            let why = format!("it is an aggregate, {windowed}");
            return refused(why, graph.sections[operator].name().span());
        }
        Some(Kind::Join) => {
            let why = format!("it is a join, {joined}");
            return refused(why, graph.sections[operator].name().span());
        }
        Some(_) => {}
    }
    let mut at = operator;
    // There are no more steps than sections, unless the inputs form a cycle.
    for _ in &graph.sections {
        let input = match graph.inputs[at].as_slice() {
            [Some(input)] => input,
            [_, Some(second), ..] => {
                let what = match at == operator {
                    true => "it".to_owned(),
                    false => graph.sections[at].title(),
                };
                return refused(format!("{what} merges inputs"), second.place.clone());
            }
            _ => return Traced::Unknown,
        };
        let from = &graph.sections[input.from];
        let title = from.title();
        match from {
            Section::Source(source) => {
                if let Some(name) = &source.time.field {
                    return refused(format!("{title} has one"), name.span());
                }
                if source.settings.event_time().is_some() {
                    let why = format!("{title} has one of its own");
                    return refused(why, source.name.span());
                }
                return Traced::Source(input.from);
            }
            Section::Operator(before) => {
                match kinds[input.from] {
                    None => return Traced::Unknown,
                    Some(Kind::Aggregate) => {
                        let why = format!("its rows come from {title}, an aggregate, {windowed}");
                        return refused(why, input.place.clone());
                    }
                    Some(Kind::Join) => {
                        let why = format!("its rows come from {title}, a join, {joined}");
                        return refused(why, input.place.clone());
                    }
                    Some(_) => {}
                }
                if let Some(name) = &before.time.field {
                    return refused(format!("its rows have theirs from {title}"), name.span());
                }
                at = input.from;
            }
            Section::Sink(_) => return Traced::Unknown,
        }
    }
    Traced::Unknown
}

/// Adds the names of the fields that can be an event time.
fn list_times(fields: &[Field], prefix: &str, names: &mut Vec<String>) {
    for field in fields.iter().filter(|field| !field.nullable) {
        let name = format!("{prefix}{}", field.name);
        match &field.data_type {
            DataType::Record(members) => list_times(members, &format!("{name}."), names),
            _ if is_time(field) => names.push(name),
            _ => {}
        }
    }
}

fn is_time(field: &Field) -> bool {
    matches!(field.data_type, DataType::Timestamp | DataType::Int64)
}
