//! Plans what only aggregates have (key, window, lateness, bounds), and refuses
//! it for other operators.

use std::sync::Arc;

use super::builder::Builder;
use super::changes::told;
use super::columns::Relation;
use super::keys::Keys;
use super::reading::Reading;
use super::section::{Planned, PlannedOutput, Resolved, Timing, operator_plan, planned};
use crate::builtin::aggregate::call::Call;
use crate::config::{BoundsChoice, EmitChoice, Mistake, OperatorConfig, Runs, Span};
use crate::logic::{Kind, MAIN};
use crate::plan::{
    AggregatePlan, Bounds, CHANGES, Emit, Exchange, LATE, NodeKind, Timing as PlanTiming, Window,
};
use crate::schema::{DataType, Field, Schema};

impl Builder<'_> {
    /// Deduplication is an aggregate whose results are some of its rows.
    pub(super) fn plan_aggregate(
        &mut self,
        operator: &OperatorConfig,
        resolved: &Resolved,
        reading: &Reading,
        is_read: &dyn Fn(&str) -> bool,
    ) -> Planned {
        let title = format!("operator `{}`", operator.name.get_ref());
        let ports = &resolved.info.inputs;
        let columns = self.columns_of_edges(&title, ports, reading);
        let timing = resolved.timing.as_ref();
        let keys = self.keys(operator, &title, ports, reading);
        let key_read = keys
            .as_ref()
            .and_then(|keys| self.key_read(operator, &title, &resolved.info.key, keys));
        let late_wanted =
            is_read(LATE) && timing.is_none_or(|timing| timing.window.has_late_output());
        let known = reading.known();
        let late = known
            .as_ref()
            .filter(|_| late_wanted && timing.is_some())
            .and_then(|upstreams| self.merged(&format!("the late output of {title}"), upstreams));
        let passes_rows = matches!(operator.runs, Runs::Deduplicate(_));
        let main = match passes_rows {
            true => known.and_then(|upstreams| self.merged(&title, &upstreams)),
            false => keys.as_ref().zip(timing).and_then(|(keys, timing)| {
                let output = &resolved.output().schema;
                self.aggregate_output(operator, &title, output, keys, timing)
            }),
        };
        let changes = timing.filter(|_| is_read(CHANGES));
        let changes = changes.and_then(|timing| told(operator, timing).ok());
        let changes_output = changes.map(|_| 1 + usize::from(late_wanted));
        let inputs = keys.as_ref().and_then(|keys| {
            reading.inputs(ports, |edge| Exchange::Hash(keys.columns[edge].clone()))
        });
        let kind = keys.zip(timing).and_then(|(keys, timing)| {
            Some(NodeKind::Aggregate(AggregatePlan {
                operator: operator_plan(operator, resolved)?,
                columns: columns?,
                key: keys.columns,
                key_schema: Arc::new(keys.relation.schema),
                key_read: key_read?,
                window: timing.window,
                allowed_lateness_ms: timing.allowed_lateness_ms,
                emit: timing.emit,
                early_every_ms: timing.early_every_ms,
                discards: timing.discards,
                ttl_ms: timing.ttl_ms,
                bounds: timing.bounds.clone(),
                timing: timing.column.as_ref().map(|(name, _)| name.clone()),
                late_wanted,
                changes_output,
                passes_rows,
                follows_order: follows_order(operator),
            }))
        });
        let change_rows = main.clone().zip(changes).map(|(mut main, changes)| {
            if let Some((name, _)) = timing.and_then(|timing| timing.column.as_ref()) {
                main.remove(name);
            }
            main.changes = Some(changes);
            main
        });
        let mut outputs = vec![PlannedOutput::new(MAIN, main)];
        if late_wanted {
            outputs.push(PlannedOutput::new(LATE, late));
        }
        if changes.is_some() {
            outputs.push(PlannedOutput::new(CHANGES, change_rows));
        }
        planned(&operator.name, kind, inputs, outputs)
    }

    /// `None` for other operators, and after a mistake.
    pub(super) fn timing(
        &mut self,
        operator: &OperatorConfig,
        title: &str,
        kind: Kind,
    ) -> Option<Timing> {
        if kind != Kind::Aggregate {
            self.refuse_aggregate_settings(operator, title, kind);
            return None;
        }
        let Some(window) = &operator.window else {
            self.mistakes.push(
                Mistake::new(format!("{title} is an aggregate and has no `window`"))
                    .at(operator.name.span(), "")
                    .help(
                        "say which rows it combines, such as `window = { tumbling = \"1m\" }`; \
                         `window = \"running\"` gives a result after each row",
                    ),
            );
            return None;
        };
        let place = window.span();
        let mut timing = Timing {
            window: *window.get_ref(),
            allowed_lateness_ms: operator.allowed_lateness_ms.as_ref().map_or(0, |s| s.value),
            emit: Emit::Change,
            early_every_ms: None,
            discards: operator.discard.as_ref().is_some_and(|s| s.value),
            ttl_ms: operator.ttl_ms.as_ref().map(|s| s.value),
            bounds: None,
            column: None,
            bounds_place: place.clone(),
        };
        let (name, has_results_before_its_end, has_bounds) = match timing.window {
            Window::Running => ("a running aggregate", false, false),
            Window::Global => ("the global window", true, false),
            Window::Count { .. } => ("a count window", false, true),
            _ if !timing.window.has_late_rows() => ("a processing-time window", true, true),
            _ => ("an event-time window", true, true),
        };
        let mut refused = Vec::new();
        let lateness = operator.allowed_lateness_ms.as_ref();
        if let Some(setting) = lateness.filter(|_| !timing.window.has_late_rows()) {
            refused.push((
                &setting.key,
                "allowed_lateness",
                "no row is ever late for it",
            ));
        }
        if let Some(setting) = &operator.emit {
            match setting.value {
                EmitChoice::Every(every_ms) => {
                    timing.early_every_ms = Some(every_ms.unsigned_abs());
                    if matches!(timing.window, Window::Count { .. }) {
                        refused.push((&setting.key, "emit", "its results do not depend on time"));
                    }
                }
                EmitChoice::Final => timing.emit = Emit::Final,
                EmitChoice::Change => {}
            }
            let is_of_late_rows = !matches!(setting.value, EmitChoice::Every(_));
            if is_of_late_rows && !timing.window.has_late_rows() {
                refused.push((&setting.key, "emit", "no late row changes its results"));
            }
        }
        if let Some(setting) = operator.discard.as_ref().filter(|s| s.value) {
            let corrects = timing.allowed_lateness_ms > 0 && timing.emit == Emit::Change;
            if !matches!(timing.window, Window::Tumbling { .. }) {
                let reason = "its rows may be in several windows";
                refused.push((&setting.key, "discard", reason));
            } else if !corrects && timing.early_every_ms.is_none() {
                refused.push((&setting.key, "discard", "each window has one result"));
            }
        }
        let column = operator.timing.as_ref();
        if let Some(setting) = column.filter(|_| !has_results_before_its_end) {
            refused.push((&setting.key, "timing", "no result of it replaces another"));
        }
        if let Some(setting) = operator.bounds.as_ref().filter(|_| !has_bounds) {
            refused.push((&setting.key, "bounds", "it has none"));
        }
        let ttl = operator.ttl_ms.as_ref();
        if let Some(setting) = ttl.filter(|_| timing.window != Window::Running) {
            refused.push((
                &setting.key,
                "ttl",
                "its states live as long as its windows",
            ));
        }
        let good = refused.is_empty();
        timing.column = column.map(|setting| (setting.value.clone(), setting.key.clone()));
        for (key, setting, reason) in refused {
            self.mistakes.push(
                Mistake::new(format!(
                    "{title}: `{setting}` makes no sense for {name}: {reason}"
                ))
                .at(key.clone(), "")
                .at(place.clone(), "its window")
                .help(match setting {
                    "discard" => {
                        "remove it, or choose a tumbling window with `allowed_lateness` or \
                         `emit = { every = \"…\" }`"
                    }
                    _ => "remove it, or choose an event-time window",
                }),
            );
        }
        if has_bounds {
            timing.bounds = match &operator.bounds {
                None => Some(Bounds::default()),
                Some(setting) => {
                    timing.bounds_place = setting.key.clone();
                    match &setting.value {
                        BoundsChoice::Absent => None,
                        BoundsChoice::Named(bounds) => Some(bounds.clone()),
                    }
                }
            };
        }
        good.then_some(timing)
    }

    /// Refuses settings that other kinds of operators do not have.
    pub(super) fn refuse_aggregate_settings(
        &mut self,
        operator: &OperatorConfig,
        title: &str,
        kind: Kind,
    ) {
        let is_keyed = matches!(kind, Kind::Process | Kind::Recommend);
        let key = operator.key.as_ref().map(|key| key.place.clone());
        let mut given = given([
            ("key", key.filter(|_| !is_keyed)),
            (
                "window",
                operator.window.as_ref().map(|window| window.span()),
            ),
        ]);
        let of_results = settings_of_results(operator).into_iter();
        given.extend(of_results.filter(|(setting, _)| !is_keyed || *setting != "ttl"));
        if given.is_empty() {
            return;
        }
        let names: Vec<String> = given
            .iter()
            .map(|(setting, _)| format!("`{setting}`"))
            .collect();
        let kind = kind.name();
        let mut mistake = Mistake::new(format!(
            "{title} runs a {kind}, which has no {}",
            names.join(", no ")
        ))
        .help("remove it: only aggregates combine rows");
        for (_, place) in given {
            mistake = mistake.at(place, "only for aggregates");
        }
        self.mistakes
            .push(mistake.at(operator.runs.place(), format!("this is a {kind}")));
    }

    /// The aggregate's output columns: key, window bounds, timing, and its own.
    pub(super) fn aggregate_output(
        &mut self,
        operator: &OperatorConfig,
        title: &str,
        output: &Schema,
        keys: &Keys,
        timing: &Timing,
    ) -> Option<Relation> {
        let mut relation = keys.relation.clone();
        let key_columns = relation.places.len();
        if let Some(bounds) = &timing.bounds {
            for name in [&bounds.start, &bounds.end] {
                let field = Field::new(name, DataType::Timestamp, false);
                relation.push(field, timing.bounds_place.clone());
            }
        }
        if let Some((name, place)) = &timing.column {
            relation.push(PlanTiming::field(name), place.clone());
        }
        let own_columns = relation.places.len();
        relation.push_output(operator, output);
        let is_bound = |column| (key_columns..own_columns).contains(&column);
        self.refuse_duplicates(title, relation, |first, second| {
            if is_bound(first) || is_bound(second) {
                "rename the window's bounds: `bounds = { start = \"from\", end = \"to\" }`, \
                 or leave them out: `bounds = false`; or rename the column for `timing`"
            } else if first < key_columns && operator.runs.plugin().is_none() {
                "the key's columns are in every result already: give this one another name"
            } else if first < key_columns {
                "the key's columns are in every result already: leave it out of the plugin's output"
            } else {
                "this is a mistake in the plugin: rename one of its output fields"
            }
            .to_owned()
        })
    }
}

/// Plugins do not say it.
fn follows_order(operator: &OperatorConfig) -> bool {
    match &operator.runs {
        Runs::Aggregate(aggregate) => {
            let mut calls = aggregate.columns.iter().map(|(_, call)| call.get_ref());
            calls.any(Call::follows_order)
        }
        Runs::Deduplicate(_) => true,
        _ => false,
    }
}

/// The settings that say when an aggregate emits which results, as far as they are
/// given.
pub(super) fn settings_of_results(operator: &OperatorConfig) -> Vec<(&'static str, Span)> {
    given([
        (
            "allowed_lateness",
            operator.allowed_lateness_ms.as_ref().map(|s| s.key.clone()),
        ),
        ("ttl", operator.ttl_ms.as_ref().map(|s| s.key.clone())),
        ("bounds", operator.bounds.as_ref().map(|s| s.key.clone())),
        ("emit", operator.emit.as_ref().map(|s| s.key.clone())),
        ("timing", operator.timing.as_ref().map(|s| s.key.clone())),
        ("discard", operator.discard.as_ref().map(|s| s.key.clone())),
    ])
}

fn given<const N: usize>(settings: [(&'static str, Option<Span>); N]) -> Vec<(&'static str, Span)> {
    let settings = settings.into_iter();
    let given = settings.filter_map(|(setting, place)| Some((setting, place?)));
    given.collect()
}
