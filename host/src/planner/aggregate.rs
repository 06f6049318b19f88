//! Plans what only aggregates have (key, window, lateness, bounds), and refuses
//! it for other operators.

use super::builder::Builder;
use super::columns::{Relation, Upstream};
use super::graph::Section;
use super::section::{Resolved, Timing};
use crate::config::{BoundsChoice, Mistake, OperatorConfig, Span};
use crate::logic::Kind;
use crate::plan::{Bounds, Emit, Timing as PlanTiming, Window};
use crate::schema::{DataType, Field, Schema};
use crate::suggest;

/// An aggregate's key: its columns on each edge, and their schema.
pub(super) struct Keys {
    pub columns: Vec<Vec<usize>>,
    pub relation: Relation,
}

impl Builder<'_> {
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
            emit: operator.emit.as_ref().map_or(Emit::default(), |s| s.value),
            early_every_ms: operator.early_every_ms.as_ref().map(|s| s.value as u64),
            ttl_ms: operator.ttl_ms.as_ref().map(|s| s.value),
            bounds: None,
            column: None,
            bounds_place: place.clone(),
        };
        let (name, has_results_before_its_end, has_bounds) = match timing.window {
            Window::Running => ("a running aggregate", false, false),
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
        let early = operator.early_every_ms.as_ref();
        if let Some(setting) = early.filter(|_| !has_results_before_its_end) {
            refused.push((
                &setting.key,
                "early_every",
                "its results do not depend on time",
            ));
        }
        let emit = operator.emit.as_ref();
        if let Some(setting) = emit.filter(|_| !timing.window.has_late_rows()) {
            refused.push((&setting.key, "emit", "no late row changes its results"));
        }
        let column = operator.timing.as_ref();
        if let Some(setting) = column.filter(|_| !has_results_before_its_end) {
            refused.push((&setting.key, "timing", "no result of it replaces another"));
        }
        if let Some(setting) = operator.bounds.as_ref().filter(|_| !has_bounds) {
            refused.push((&setting.key, "bounds", "it has no window"));
        }
        let ttl = operator.ttl_ms.as_ref();
        if let Some(setting) = ttl.filter(|_| timing.window != Window::Running) {
            refused.push((
                &setting.key,
                "ttl",
                "its states live as long as its windows",
            ));
        }
        let mut good = refused.is_empty();
        if let (Some(early), Some(emit), Emit::Final) = (early, emit, timing.emit) {
            good = false;
            self.mistakes.push(
                Mistake::new(format!(
                    "{title} has early results, and is to emit final ones only"
                ))
                .at(early.key.clone(), "")
                .at(emit.key.clone(), "")
                .help("remove `early_every`, or `emit = \"final\"`"),
            );
        }
        timing.column = column.map(|setting| (setting.value.clone(), setting.key.clone()));
        for (key, setting, reason) in refused {
            self.mistakes.push(
                Mistake::new(format!(
                    "{title}: `{setting}` makes no sense for {name}: {reason}"
                ))
                .at(key.clone(), "")
                .at(place.clone(), "its window")
                .help("remove it, or choose an event-time window"),
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

    fn refuse_aggregate_settings(&mut self, operator: &OperatorConfig, title: &str, kind: Kind) {
        let settings = [
            ("key", operator.key.as_ref().map(|key| key.place.clone())),
            (
                "window",
                operator.window.as_ref().map(|window| window.span()),
            ),
            (
                "allowed_lateness",
                operator.allowed_lateness_ms.as_ref().map(|s| s.key.clone()),
            ),
            (
                "early_every",
                operator.early_every_ms.as_ref().map(|s| s.key.clone()),
            ),
            ("ttl", operator.ttl_ms.as_ref().map(|s| s.key.clone())),
            ("bounds", operator.bounds.as_ref().map(|s| s.key.clone())),
            ("emit", operator.emit.as_ref().map(|s| s.key.clone())),
            ("timing", operator.timing.as_ref().map(|s| s.key.clone())),
        ];
        let given: Vec<(&str, Span)> = settings
            .into_iter()
            .filter_map(|(setting, place)| Some((setting, place?)))
            .collect();
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
        let operator = operator.operator.span();
        self.mistakes
            .push(mistake.at(operator, format!("this is a {kind}")));
    }

    /// Reports an input that names the late output of a node without one.
    pub(super) fn refuse_late(
        &mut self,
        from: &Section,
        resolved: Option<&Resolved>,
        place: &Span,
    ) {
        let reason = match (from, resolved) {
            (Section::Operator(_), None) => return,
            (Section::Operator(_), Some(resolved)) => {
                match (resolved.info.kind, &resolved.timing) {
                    (Kind::Aggregate, None) => return,
                    (Kind::Aggregate, Some(timing)) if timing.window.has_late_rows() => return,
                    (Kind::Aggregate, Some(_)) => "no row is ever late for its window".to_owned(),
                    (kind, _) => format!("it is a {}", kind.name()),
                }
            }
            _ => "only windows have late rows".to_owned(),
        };
        self.mistakes.push(
            Mistake::new(format!("{} has no late output: {reason}", from.title()))
                .at(place.clone(), "")
                .help("aggregates with an event-time window have one"),
        );
    }

    /// The key's columns on each edge. The types must be the same on all edges.
    pub(super) fn keys(
        &mut self,
        operator: &OperatorConfig,
        title: &str,
        upstreams: &[Option<Upstream>],
    ) -> Option<Keys> {
        let names = operator
            .key
            .as_ref()
            .map_or(&[][..], |key| key.columns.as_slice());
        let mut relation = Relation::default();
        let mut columns: Vec<Vec<usize>> = vec![Vec::new(); upstreams.len()];
        let mut good = true;
        for name in names {
            let mut first: Option<(&Upstream, Field)> = None;
            for (edge, up) in upstreams.iter().enumerate() {
                let Some(up) = up else {
                    good = false;
                    continue;
                };
                let place = name.span();
                let Some(column) = self.key_column(title, name.get_ref(), &place, up) else {
                    good = false;
                    continue;
                };
                columns[edge].push(column);
                let field = up.field(column);
                match &mut first {
                    None => first = Some((up, field.clone())),
                    Some((_, key)) if key.data_type == field.data_type => {
                        key.nullable |= field.nullable;
                    }
                    Some((other, key)) => {
                        good = false;
                        self.mistakes.push(
                            Mistake::new(format!(
                                "{title} has inputs whose key differs: {} has `{key}`, {} has `{field}`",
                                other.title, up.title
                            ))
                            .at(name.span(), "the key")
                            .at(other.field_place(other.find(name.get_ref()).unwrap_or(0)), format!("`{key}` is from here"))
                            .at(up.field_place(column), format!("`{field}` is from here"))
                            .help("a key must have the same type on all inputs"),
                        );
                    }
                }
            }
            if let Some((_, field)) = first {
                relation.push(field, name.span());
            }
        }
        good.then_some(Keys { columns, relation })
    }

    fn key_column(
        &mut self,
        title: &str,
        name: &str,
        place: &Span,
        up: &Upstream,
    ) -> Option<usize> {
        let Ok(column) = up.find(name) else {
            let fields = &up.relation.schema.fields;
            let names = fields.iter().map(|field| field.name.as_str());
            let nouns = format!("fields of {}", up.title);
            self.mistakes.push(
                Mistake::new(format!(
                    "{title} has the key `{name}`; {} has no such field",
                    up.title
                ))
                .at(place.clone(), "the key")
                .at(up.place.clone(), "rows come from here")
                .help(suggest::help(name, &nouns, names)),
            );
            return None;
        };
        let field = up.field(column);
        let reason = match field.data_type {
            DataType::Float32 | DataType::Float64 => {
                "floating-point numbers that look equal differ"
            }
            DataType::List(_) | DataType::Record(_) => "lists and records are not compared",
            _ => return Some(column),
        };
        self.mistakes.push(
            Mistake::new(format!("{title} cannot have `{field}` as a key: {reason}"))
                .at(place.clone(), "the key")
                .at(up.field_place(column), format!("`{field}` is from here"))
                .help("keys are whole numbers, texts, symbols, bytes, booleans or timestamps"),
        );
        None
    }

    /// The aggregate's output columns: key, window bounds, the plugin's output.
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
        for field in &output.fields {
            relation.push(field.clone(), operator.operator.span());
        }
        let is_bound = |column| (key_columns..own_columns).contains(&column);
        self.refuse_duplicates(title, relation, |first, second| {
            if is_bound(first) || is_bound(second) {
                "rename the window's bounds: `bounds = { start = \"from\", end = \"to\" }`, \
                 or leave them out: `bounds = false`; or rename the column for `timing`"
            } else if first < key_columns {
                "the key's columns are in every result already: leave it out of the plugin's output"
            } else {
                "this is a mistake in the plugin: rename one of its output fields"
            }
            .to_owned()
        })
    }
}
