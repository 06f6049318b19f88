//! Plans the output of an aggregate that tells what becomes of its results, and refuses
//! what cannot read it.

use super::builder::Builder;
use super::columns::{Changes, Relation};
use super::reading::Reading;
use super::section::{Resolved, Timing, title_of};
use crate::config::{
    JoinConfig, KeyColumns, MatchingConfig, Mistake, OperatorConfig, Runs, SinkConfig, Spanned,
};
use crate::logic::Kind;
use crate::plan::{CHANGES, Emit, RIGHT, RowOrder, SIDES, Window, change_field};
use crate::suggest;

/// Which changes an aggregate can tell; else why it has none to tell.
pub(super) fn told(operator: &OperatorConfig, timing: &Timing) -> Result<Changes, &'static str> {
    const FINAL: &str = "its results are never taken back: read its main output";
    if matches!(operator.runs, Runs::Deduplicate(_)) {
        return Err(FINAL);
    }
    if timing.discards {
        return Err(FINAL);
    }
    let comes_by_the_clock = timing.early_every_ms.is_some();
    match timing.window {
        Window::Running => Ok(Changes::Rows),
        _ if comes_by_the_clock => {
            Err("results of windows that come by the clock are not kept: remove `emit`")
        }
        _ if timing.allowed_lateness_ms <= 0 || timing.emit != Emit::Change => Err(FINAL),
        Window::Count { .. } | Window::Global => Err(FINAL),
        Window::Session { .. } => Ok(Changes::Sessions),
        Window::Tumbling { .. } | Window::Sliding { .. } | Window::Cumulate { .. } => {
            Ok(Changes::Windows)
        }
    }
}

impl Builder<'_> {
    /// Refuses an operator whose rows may take others back, and which cannot do that.
    pub(super) fn check_changes(
        &mut self,
        operator: &OperatorConfig,
        resolved: &Resolved,
        reading: &Reading,
    ) -> bool {
        let Some(changes) = reading.changes() else {
            return true;
        };
        let title = title_of(operator);
        let (problem, help) = match (&operator.runs, resolved.info.kind) {
            (Runs::Join(join), _) if changes == Changes::Upserts => {
                match upserted_side(operator, join, reading) {
                    true => return true,
                    false => (
                        "only the right side of an as-of join by their key, without `tombstone`, \
                         can"
                        .to_owned(),
                        INSTEAD_OF_UPSERTS.to_owned(),
                    ),
                }
            }
            _ if changes == Changes::Upserts => (
                "they take the place of others by a key, and what was there before is not told"
                    .to_owned(),
                INSTEAD_OF_UPSERTS.to_owned(),
            ),
            (_, Kind::Filter | Kind::Transform) => return true,
            (Runs::Join(join), _) => match (table_side(join, reading), reading.has_sessions()) {
                (true, false) => return true,
                (true, true) => (
                    "those of sessions are no table, since a session has another time than those \
                     that it takes the place of"
                        .to_owned(),
                    INSTEAD_OF_TABLE.to_owned(),
                ),
                (false, _) => (
                    "only the right side of an as-of join without `tombstone` can".to_owned(),
                    INSTEAD.to_owned(),
                ),
            },
            (Runs::Deduplicate(_), _) => ("it keeps no rows".to_owned(), INSTEAD.to_owned()),
            (_, Kind::Aggregate) => match why_not(resolved, changes) {
                None => return true,
                Some(reason) => reason,
            },
            (Runs::Plugin(_), Kind::Process) => match process_cannot(operator, resolved) {
                None => return true,
                Some(reason) => reason,
            },
            (_, kind) => (
                format!("a {} cannot do that", kind.name()),
                INSTEAD.to_owned(),
            ),
        };
        let mut mistake = Mistake::new(format!(
            "{title} reads rows that are taken back later: {problem}"
        ))
        .help(help);
        for up in reading.upstreams.iter().flatten() {
            if up.relation.changes.is_some() {
                mistake = mistake.at(up.place.clone(), "they come from here");
            }
        }
        self.mistakes
            .push(mistake.at(operator.runs.place(), "and are read by this"));
        false
    }

    /// What a sink writes: with a column for what becomes of rows, if it names one. It has
    /// to where rows are taken back.
    pub(super) fn with_change_column(
        &mut self,
        sink: &SinkConfig,
        title: &str,
        mut taken: Relation,
    ) -> Option<Relation> {
        let deletes = sink.settings.deletes();
        let wanted = match (&sink.changes, &deletes) {
            (Some(name), Some(deletes)) => {
                self.mistakes.push(
                    Mistake::new(format!(
                        "{title} deletes rows that are taken back, and is to write them as well"
                    ))
                    .at(name.span(), "")
                    .at(deletes.clone(), "")
                    .help("keep one of the two"),
                );
                return None;
            }
            (Some(name), None) => Some(name.span()),
            (None, deletes) => deletes.clone(),
        };
        if let (Some(place), None) = (&wanted, taken.changes) {
            self.mistakes.push(
                Mistake::new(format!("{title}: none of its rows is ever taken back"))
                    .at(place.clone(), "")
                    .help(
                        "remove this; or read the changes of an aggregate, as in \
                         `input = \"totals.changes\"`",
                    ),
            );
            return None;
        }
        if taken.changes == Some(Changes::Upserts) && !self.keeps_upserts(sink, title, &taken) {
            return None;
        }
        let Some(name) = &sink.changes else {
            if taken.changes.is_none() || deletes.is_some() {
                return Some(taken);
            }
            let mistake = Mistake::new(format!(
                "{title} would write rows that are taken back later, and not say so"
            ))
            .help(
                "name a column that says so, such as `changes = \"change\"`: `+` in a row that is \
                 added, `-` in an equal one that is taken back",
            );
            let mut inputs = sink.input.iter();
            let place = inputs.find(|input| input.get_ref().output.as_deref() == Some(CHANGES));
            let place = place.map_or(sink.name.span(), |input| input.span());
            self.mistakes.push(mistake.at(place, ""));
            return None;
        };
        taken.push(change_field(name.get_ref()), name.span());
        self.refuse_duplicates(title, taken, |_, _| {
            "give another name to the column for `changes`".to_owned()
        })
    }
}

impl Builder<'_> {
    /// Whether a sink has the key of rows that take the place of others, and deletes what is
    /// gone.
    fn keeps_upserts(&mut self, sink: &SinkConfig, title: &str, taken: &Relation) -> bool {
        let mut key = sink.settings.key_fields();
        let mut wanted: Vec<&str> = taken.key.iter().map(String::as_str).collect();
        key.sort_unstable();
        wanted.sort_unstable();
        if key == wanted && sink.settings.deletes().is_some() {
            return true;
        }
        let place = sink
            .input
            .first()
            .map_or(sink.name.span(), |input| input.span());
        self.mistakes.push(
            Mistake::new(format!(
                "{title} reads rows that take the place of others by their key, {}",
                suggest::listed(&wanted)
            ))
            .at(place, "")
            .help(
                "have a sink of type \"kafka\", \"postgres\" or \"redis\" write them by that key, \
                 with `tombstones = true` or `deletes = true`",
            ),
        );
        false
    }
}

/// What to do instead of reading rows by a key.
const INSTEAD_OF_UPSERTS: &str = "have a sink write them by their key, or an as-of join read them \
                                  as its right side; or, of a database's changes, have it tell \
                                  whole rows, and name no key (in PostgreSQL `ALTER TABLE … \
                                  REPLICA IDENTITY FULL`)";

/// What to do instead.
const INSTEAD: &str = "have an aggregate read them, a sink that has `changes`, or an as-of join \
                       as its right side";

/// The same for a table.
const INSTEAD_OF_TABLE: &str = "read results that are final (`emit = \"final\"`), or have a \
                                running aggregate of a key read them first";

/// Whether such rows come only to the side of a join that is a table.
fn table_side(join: &JoinConfig, reading: &Reading) -> bool {
    let is_as_of = matches!(
        join.matching,
        Some(MatchingConfig::AsOf {
            tombstone: None,
            ..
        })
    );
    let edges = reading.upstreams.iter().flatten().zip(&reading.ports);
    let mut changing = edges.filter(|(up, _)| up.relation.changes.is_some());
    is_as_of && changing.all(|(_, port)| *port == RIGHT)
}

/// Whether rows that take the place of others by a key come only to the side of a join that is
/// a table by the same key.
fn upserted_side(operator: &OperatorConfig, join: &JoinConfig, reading: &Reading) -> bool {
    let of_side = operator.key.as_ref().map(|key| match &key.columns {
        KeyColumns::Same(names) => names.as_slice(),
        KeyColumns::ByPort(of_ports) => {
            let mut of_ports = of_ports.iter();
            let right = of_ports.find(|(port, _)| port.get_ref() == SIDES[RIGHT]);
            right.map_or(&[][..], |(_, names)| names.as_slice())
        }
    });
    let mut key: Vec<&String> = of_side
        .iter()
        .copied()
        .flatten()
        .map(Spanned::get_ref)
        .collect();
    key.sort_unstable();
    let mut known = reading.upstreams.iter().flatten();
    table_side(join, reading)
        && known.all(|up| {
            let mut wanted: Vec<&String> = up.relation.key.iter().collect();
            wanted.sort_unstable();
            up.relation.changes != Some(Changes::Upserts) || wanted == key
        })
}

/// Why a process cannot read such rows, and what to do.
fn process_cannot(operator: &OperatorConfig, resolved: &Resolved) -> Option<(String, String)> {
    if !resolved.info.retracts {
        let problem = format!("`{}` cannot take rows back", resolved.name);
        let help = "implement `TakeBack` for it and write `#[operator(process, retracts)]`, or \
                    read results that are final: `emit = \"final\"`";
        return Some((problem, help.to_owned()));
    }
    if operator.ttl_ms.is_some() {
        return Some(NO_TTL.map(str::to_owned).into());
    }
    let order = operator.order.as_ref().map(|order| order.value);
    (order == Some(RowOrder::EventTime)).then(|| {
        let problem = "most of them come behind the watermark, and would be late for it";
        let help = "remove `order`: they come in the order in which results have changed";
        (problem.to_owned(), help.to_owned())
    })
}

/// Why a `ttl` is refused, and what to do.
const NO_TTL: [&str; 2] = [
    "its `ttl` lets go of states that they were added to",
    "remove `ttl`",
];

/// Why an aggregate cannot read such rows, and what to do.
fn why_not(resolved: &Resolved, changes: Changes) -> Option<(String, String)> {
    if !resolved.info.retracts {
        let problem = format!("`{}` cannot take rows back", resolved.name);
        let help = "implement `Retract` for it and write `#[operator(retracts)]`, or read results \
                    that are final: `emit = \"final\"`";
        return Some((problem, help.to_owned()));
    }
    let timing = resolved.timing.as_ref()?;
    if timing.ttl_ms.is_some() {
        return Some(NO_TTL.map(str::to_owned).into());
    }
    let event_windows = match timing.window {
        Window::Running => return None,
        Window::Tumbling { .. } | Window::Sliding { .. } | Window::Cumulate { .. } => {
            timing.window.has_late_rows()
        }
        Window::Session { .. } | Window::Count { .. } | Window::Global => false,
    };
    if !event_windows {
        let problem = "of such a window, no row can be taken back".to_owned();
        let help = "choose a tumbling or sliding window in event time, or `window = \"running\"`";
        return Some((problem, help.to_owned()));
    }
    (changes == Changes::Rows).then(|| {
        (
            "they are taken back at another time than that at which they came, which belongs to \
             another window"
                .to_owned(),
            "give it `window = \"running\"`".to_owned(),
        )
    })
}
