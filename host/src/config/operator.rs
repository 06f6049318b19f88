//! Reads `[operators.NAME]`: what it runs, its inputs, parameters, key and window.

use toml::Spanned;
use toml::de::{DeArray, DeValue};

use super::diagnostics::{Diagnostics, Mistake, Span};
use super::event_time::{self, EventTimeConfig};
use super::input::{InputConfig, read_ports};
use super::join::{self, TableConfig};
use super::key::{self, KeyConfig};
use super::reader::{ConfigValue, Table, to_i64};
use super::runs::{self, Runs};
use crate::dead_letter::{OnError, OnMigrationError};
use crate::logic;
use crate::logic::Limits;
use crate::plan::{Alignment, Bounds, RowOrder, TimeDomain, Window};
use crate::timestamp::DAY_MS;
use crate::timestamp::zone::Zone;

/// An operator's section. Settings for aggregates are accepted on any operator:
/// only the planner knows which kind it is.
#[derive(Debug)]
pub struct OperatorConfig {
    pub name: Spanned<String>,
    pub runs: Runs,
    pub inputs: Vec<InputConfig>,
    pub parameters: Vec<(Spanned<String>, Spanned<logic::Value>)>,
    /// Where messages point about parameters that are not given.
    pub parameters_place: Span,
    pub time: EventTimeConfig,
    pub on_error: Option<OnError>,
    pub on_migration_error: Option<Setting<OnMigrationError>>,
    pub limits: Limits,
    pub key: Option<KeyConfig>,
    pub window: Option<Spanned<Window>>,
    pub allowed_lateness_ms: Option<Setting<i64>>,
    pub emit: Option<Setting<EmitChoice>>,
    pub ttl_ms: Option<Setting<i64>>,
    pub bounds: Option<Setting<BoundsChoice>>,
    pub timing: Option<Setting<String>>,
    /// Whether each result has only the rows since the one before.
    pub discard: Option<Setting<bool>>,
    pub order: Option<Setting<RowOrder>>,
    /// Where a look-up finds rows.
    pub table: Option<TableConfig>,
}

/// When results come out.
#[derive(Clone, Copy, Debug)]
pub enum EmitChoice {
    Change,
    Final,
    /// Also this often, in ms of processing time.
    Every(i64),
}

/// A value and the place of its key.
#[derive(Clone, Debug)]
pub struct Setting<T> {
    pub key: Span,
    pub value: T,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BoundsChoice {
    Absent,
    Named(Bounds),
}

const ORDERS: &[(&str, RowOrder)] = &[
    ("arrival", RowOrder::Arrival),
    ("event_time", RowOrder::EventTime),
];

const EMIT: &[(&str, EmitChoice)] = &[("change", EmitChoice::Change), ("final", EmitChoice::Final)];

pub(super) fn read(
    name: Spanned<String>,
    mut table: Table,
    mistakes: &mut Diagnostics,
) -> Option<OperatorConfig> {
    let runs = runs::read(&mut table, mistakes);
    let inputs = read_ports(&mut table, mistakes);
    let parameters_value = table.optional("parameters");
    let parameters_place = parameters_value
        .as_ref()
        .map_or(table.place(), ConfigValue::key_span);
    let parameters = parameters_value
        .as_ref()
        .map_or(Some(Vec::new()), |value| read_parameters(value, mistakes));
    let time = event_time::read(&mut table, mistakes);
    let on_error = table
        .optional("on_error")
        .and_then(|value| read_policy(&value, mistakes));
    let limits = table.optional("limits");
    let of_migrations = table.optional("on_migration_error");
    if runs.as_ref().is_some_and(|runs| runs.plugin().is_none()) {
        let given = [&parameters_value, &limits, &of_migrations];
        for value in given.into_iter().flatten() {
            refuse_extra(value, "only operators of plugins have it", mistakes);
        }
    }
    let limits = limits
        .and_then(|value| value.table(mistakes))
        .map_or(Limits::default(), |table| read_limits(table, mistakes));
    let on_migration_error = of_migrations.and_then(|value| {
        Some(Setting {
            key: value.key_span(),
            value: value.choice(MIGRATION_POLICIES, mistakes)?.into_inner(),
        })
    });
    let key = table
        .optional("key")
        .and_then(|value| key::read(&value, mistakes));
    let window = table
        .optional("window")
        .and_then(|value| read_window(&value, mistakes));
    let allowed_lateness_ms = setting(&mut table, "allowed_lateness", |value| {
        Some(value.duration(0, mistakes)?.into_inner())
    });
    let ttl_ms = setting(&mut table, "ttl", |value| {
        Some(value.duration(1, mistakes)?.into_inner())
    });
    let bounds = setting(&mut table, "bounds", |value| read_bounds(value, mistakes));
    let emit = setting(&mut table, "emit", |value| read_emit(value, mistakes));
    let timing = setting(&mut table, "timing", |value| {
        Some(value.name("the name of a column", mistakes)?.into_inner())
    });
    let discard = setting(&mut table, "discard", |value| value.boolean(mistakes));
    let order = setting(&mut table, "order", |value| {
        Some(value.choice(ORDERS, mistakes)?.into_inner())
    });
    let looked_up = table
        .optional("table")
        .and_then(|value| join::read_table(&value, mistakes));
    table.finish(mistakes);
    Some(OperatorConfig {
        name,
        runs: runs?,
        inputs: inputs?,
        parameters: parameters?,
        parameters_place,
        time,
        on_error,
        on_migration_error,
        limits,
        key,
        window,
        allowed_lateness_ms,
        emit,
        ttl_ms,
        bounds,
        timing,
        discard,
        order,
        table: looked_up,
    })
}

/// Reads a value, if there is one, and notes the place of its key.
fn setting<T>(
    table: &mut Table,
    key: &'static str,
    read: impl FnOnce(&ConfigValue<'_>) -> Option<T>,
) -> Option<Setting<T>> {
    let value = table.optional(key)?;
    Some(Setting {
        key: value.key_span(),
        value: read(&value)?,
    })
}

fn read_emit(value: &ConfigValue<'_>, mistakes: &mut Diagnostics) -> Option<EmitChoice> {
    match value.raw() {
        DeValue::Table(_) => {
            let mut table = value.table(mistakes)?;
            let every = table.required("every", "how often results come", mistakes);
            let every_ms = every.and_then(|value| value.duration(1, mistakes));
            table.finish(mistakes);
            Some(EmitChoice::Every(every_ms?.into_inner()))
        }
        DeValue::String(_) => Some(value.choice(EMIT, mistakes)?.into_inner()),
        _ => {
            let wanted = "\"change\", \"final\", or how often, as in `{ every = \"5s\" }`";
            value.refuse(wanted, mistakes);
            None
        }
    }
}

fn read_parameters(
    value: &ConfigValue,
    mistakes: &mut Diagnostics,
) -> Option<Vec<(Spanned<String>, Spanned<logic::Value>)>> {
    let table = value.table(mistakes)?;
    let parameters: Vec<Option<_>> = table
        .into_entries()
        .map(|(name, value)| {
            let parameter = parameter_value(value.raw());
            if parameter.is_none() {
                let wanted = "true or false, a number of 64 bits, a text, or a list of texts";
                value.refuse(wanted, mistakes);
            }
            Some((name, Spanned::new(value.span(), parameter?)))
        })
        .collect();
    parameters.into_iter().collect()
}

fn parameter_value(value: &DeValue) -> Option<logic::Value> {
    let texts = |elements: &DeArray| {
        let texts = elements
            .iter()
            .map(|element| element.get_ref().as_str().map(str::to_owned));
        texts.collect::<Option<Vec<String>>>()
    };
    match value {
        DeValue::Boolean(boolean) => Some(logic::Value::Boolean(*boolean)),
        DeValue::Integer(integer) => to_i64(integer).map(logic::Value::Integer),
        DeValue::Float(float) => float.as_str().parse().ok().map(logic::Value::Number),
        DeValue::String(text) => Some(logic::Value::Text(text.to_string())),
        DeValue::Array(elements) => texts(elements).map(logic::Value::Texts),
        DeValue::Datetime(_) | DeValue::Table(_) => None,
    }
}

const RETRIES_MAX: i64 = 100;

const MIGRATION_POLICIES: &[(&str, OnMigrationError)] = &[
    ("fail", OnMigrationError::Fail),
    ("dead_letter", OnMigrationError::DeadLetter),
];

fn read_policy(value: &ConfigValue, mistakes: &mut Diagnostics) -> Option<OnError> {
    if !matches!(value.raw(), DeValue::Table(_)) {
        let policies = &[
            ("fail", Some(OnError::Fail)),
            ("skip", Some(OnError::Skip)),
            ("dead_letter", Some(OnError::DeadLetter)),
            ("retry", None),
        ];
        let policy = value.choice(policies, mistakes)?;
        if policy.get_ref().is_none() {
            value.refuse("a table that says how often: { retry = 3 }", mistakes);
        }
        return policy.into_inner();
    }
    let mut table = value.table(mistakes)?;
    let retries = table
        .required("retry", "how many more times a row is tried", mistakes)
        .and_then(|value| value.integer(1..=RETRIES_MAX, mistakes));
    table.finish(mistakes);
    Some(OnError::Retry(retries?.into_inner() as u32))
}

/// How much memory a 32-bit plugin can address.
const WASM_BYTES_MAX: u64 = 4 << 30;

fn read_limits(mut table: Table, mistakes: &mut Diagnostics) -> Limits {
    let defaults = Limits::default();
    let mut bytes = |key, least, default, mistakes: &mut Diagnostics| {
        table
            .optional(key)
            .and_then(|value: ConfigValue| value.bytes(least..=WASM_BYTES_MAX, mistakes))
            .map_or(default, |bytes| {
                usize::try_from(bytes).unwrap_or(usize::MAX)
            })
    };
    let memory_bytes_max = bytes("memory", 1 << 20, defaults.memory_bytes_max, mistakes);
    let output_bytes_max = bytes("output", 1 << 10, defaults.output_bytes_max, mistakes);
    let time = table
        .optional("time")
        .and_then(|value| value.duration(1, mistakes));
    table.finish(mistakes);
    Limits {
        memory_bytes_max,
        call_ms_max: time.map_or(defaults.call_ms_max, |ms| ms.into_inner() as u64),
        output_bytes_max,
    }
}

/// More windows for each row are a mistake in a unit.
const WINDOWS_OF_A_ROW_MAX: i64 = 100_000;

const WINDOW_WANTED: &str = "{ tumbling = \"1m\" }, { sliding = \"60s\", every = \"5s\" }, \
    { cumulate = \"1h\", every = \"10m\" }, { session = \"30s\" }, { count = 100 }, \"running\" or \
    \"global\"";

fn read_window(value: &ConfigValue, mistakes: &mut Diagnostics) -> Option<Spanned<Window>> {
    let window = match value.raw() {
        DeValue::String(word) if word == "running" => Window::Running,
        DeValue::String(word) if word == "global" => Window::Global,
        DeValue::String(word) => {
            let meant = match crate::suggest::nearest(word, ["running", "global"]) {
                Some(word) => format!("did you mean \"{word}\"? Else "),
                None => String::new(),
            };
            mistakes.push(
                Mistake::new(format!("{} cannot be `{word}`", value.what()))
                    .at(value.span(), "")
                    .help(format!("{meant}write {WINDOW_WANTED}")),
            );
            return None;
        }
        DeValue::Table(_) => read_timed_window(value, mistakes)?,
        _ => {
            value.refuse(WINDOW_WANTED, mistakes);
            return None;
        }
    };
    Some(Spanned::new(value.span(), window))
}

fn read_timed_window(value: &ConfigValue, mistakes: &mut Diagnostics) -> Option<Window> {
    let mut table = value.table(mistakes)?;
    let kinds = ["tumbling", "sliding", "cumulate", "session", "count"];
    let kinds = kinds.map(|kind| table.optional(kind));
    let every = table.optional("every");
    let time = table.optional("time");
    let offset = table.optional("offset");
    let zone = table.optional("zone");
    let given = kinds.iter().flatten().count();
    table.finish(mistakes);
    if given != 1 {
        let found = if given == 0 {
            "no kind of window"
        } else {
            "several kinds"
        };
        mistakes.push(
            Mistake::new(format!(
                "{} must have exactly one kind of window",
                value.what()
            ))
            .at(value.span(), found)
            .help(format!("write {WINDOW_WANTED}")),
        );
        return None;
    }
    let [tumbling, sliding, cumulate, session, count] = kinds;
    if let (Some(every), None, None) = (&every, &sliding, &cumulate) {
        let reason = "only sliding and cumulating windows have `every`";
        refuse_extra(every, reason, mistakes);
        return None;
    }
    if let (Some(time), Some(_)) = (&time, &count) {
        refuse_extra(time, "count windows count rows, not time", mistakes);
        return None;
    }
    let starts_at_given_times = tumbling.is_some() || sliding.is_some() || cumulate.is_some();
    if let (false, Some(extra)) = (starts_at_given_times, offset.as_ref().or(zone.as_ref())) {
        let reason = "only tumbling, sliding and cumulating windows start at given times";
        refuse_extra(extra, reason, mistakes);
        return None;
    }
    let times = &[
        ("event", TimeDomain::Event),
        ("processing", TimeDomain::Processing),
    ];
    let time = match time {
        Some(time) => time.choice(times, mistakes)?.into_inner(),
        None => TimeDomain::Event,
    };
    if let Some(size) = tumbling {
        let size_ms = size.duration(1, mistakes)?.into_inner();
        let starts = Starts::of(&size, size_ms, offset.as_ref(), zone.as_ref());
        let alignment = starts.read(&[(&size, size_ms)], mistakes)?;
        return Some(Window::Tumbling {
            size_ms,
            time,
            alignment,
        });
    }
    if let Some(size) = sliding {
        let (every, size_ms, slide_ms) = read_every(&size, every.as_ref(), false, mistakes)?;
        let starts = Starts::of(every, slide_ms, offset.as_ref(), zone.as_ref());
        let alignment = starts.read(&[(every, slide_ms), (&size, size_ms)], mistakes)?;
        return Some(Window::Sliding {
            size_ms,
            slide_ms,
            time,
            alignment,
        });
    }
    if let Some(size) = cumulate {
        let (every, size_ms, step_ms) = read_every(&size, every.as_ref(), true, mistakes)?;
        let starts = Starts::of(&size, size_ms, offset.as_ref(), zone.as_ref());
        let alignment = starts.read(&[(every, step_ms)], mistakes)?;
        return Some(Window::Cumulate {
            size_ms,
            step_ms,
            time,
            alignment,
        });
    }
    if let Some(gap) = session {
        let gap_ms = gap.duration(1, mistakes)?.into_inner();
        return Some(Window::Session { gap_ms, time });
    }
    let size = count?.integer(1..=i64::MAX, mistakes)?.into_inner() as u64;
    Some(Window::Count { size })
}

fn refuse_extra(value: &ConfigValue, reason: &str, mistakes: &mut Diagnostics) {
    mistakes.push(
        Mistake::new(format!("{} makes no sense here: {reason}", value.what()))
            .at(value.key_span(), "")
            .help("remove it"),
    );
}

/// Where windows start.
struct Starts<'a> {
    /// How often they do.
    every: &'a ConfigValue<'a>,
    every_ms: i64,
    offset: Option<&'a ConfigValue<'a>>,
    zone: Option<&'a ConfigValue<'a>>,
}

impl<'a> Starts<'a> {
    fn of(
        every: &'a ConfigValue<'a>,
        every_ms: i64,
        offset: Option<&'a ConfigValue<'a>>,
        zone: Option<&'a ConfigValue<'a>>,
    ) -> Self {
        Starts {
            every,
            every_ms,
            offset,
            zone,
        }
    }

    /// `lengths` are those that must be whole days in a time zone.
    fn read(
        &self,
        lengths: &[(&ConfigValue<'_>, i64)],
        mistakes: &mut Diagnostics,
    ) -> Option<Alignment> {
        let mut alignment = Alignment::default();
        if let Some(offset) = self.offset {
            alignment.offset_ms = offset.duration(0, mistakes)?.into_inner();
            if alignment.offset_ms >= self.every_ms {
                mistakes.push(
                    Mistake::new(format!(
                        "{} is not shorter than what it shifts",
                        offset.what()
                    ))
                    .at(offset.span(), "")
                    .at(self.every.span(), "a window starts this often")
                    .help(
                        "write the part of it that is left over: windows start at the same times",
                    ),
                );
                return None;
            }
        }
        if let Some(zone) = self.zone {
            let name = zone.text(
                "the name of a time zone, such as \"Europe/Berlin\"",
                mistakes,
            )?;
            match Zone::named(name.get_ref()) {
                Ok(zone) => alignment.zone = Some(zone),
                Err(unknown) => {
                    let mistake = Mistake::new(format!("{}: {}", zone.what(), unknown.message));
                    mistakes.push(mistake.at(zone.span(), "").help(unknown.help));
                    return None;
                }
            }
            let mut lengths = lengths.iter();
            if let Some((length, _)) = lengths.find(|(_, length_ms)| length_ms % DAY_MS != 0) {
                mistakes.push(
                    Mistake::new(format!("{} is for windows of whole days", zone.what()))
                        .at(zone.span(), "")
                        .at(length.span(), "not whole days")
                        .help(
                            "remove it: shorter windows start at the same times in every zone, \
                             but for parts of an hour, which `offset` can shift",
                        ),
                );
                return None;
            }
        }
        Some(alignment)
    }
}

/// Reads a window's size, in ms, and how often one starts, or ends if they cumulate.
fn read_every<'a>(
    size: &ConfigValue<'_>,
    every: Option<&'a ConfigValue<'a>>,
    cumulates: bool,
    mistakes: &mut Diagnostics,
) -> Option<(&'a ConfigValue<'a>, i64, i64)> {
    let (what, example) = match cumulates {
        false => ("starts", "{ sliding = \"60s\", every = \"5s\" }"),
        true => ("ends", "{ cumulate = \"1h\", every = \"10m\" }"),
    };
    let Some(every) = every else {
        mistakes.push(
            Mistake::new(format!(
                "{} does not say how often a window {what}",
                size.what()
            ))
            .at(size.span(), "`every` is missing")
            .help(format!("add it: {example}")),
        );
        return None;
    };
    let size_span = size.span();
    let size_ms = size.duration(1, mistakes).map(Spanned::into_inner);
    let every_ms = every.duration(1, mistakes)?.into_inner();
    let size_ms = size_ms?;
    let (problem, help) = if every_ms > size_ms {
        (
            "is longer than the window: rows between two windows would be lost",
            "choose a shorter `every`",
        )
    } else if cumulates && size_ms % every_ms != 0 {
        (
            "does not divide the window's length",
            "choose an `every` that divides the length, such as \"10m\" for \"1h\"",
        )
    } else if size_ms / every_ms > WINDOWS_OF_A_ROW_MAX {
        (
            "puts each row into more than 100,000 windows",
            "choose a longer `every`",
        )
    } else {
        return Some((every, size_ms, every_ms));
    };
    mistakes.push(
        Mistake::new(format!("{} {problem}", every.what()))
            .at(every.span(), format!("a window {what} this often"))
            .at(size_span, "and is this long")
            .help(help),
    );
    None
}

fn read_bounds(value: &ConfigValue, mistakes: &mut Diagnostics) -> Option<BoundsChoice> {
    match value.raw() {
        DeValue::Boolean(false) => return Some(BoundsChoice::Absent),
        DeValue::Table(_) => {}
        _ => {
            let wanted = "false, or the names of two columns: { start = \"from\", end = \"to\" }";
            value.refuse(wanted, mistakes);
            return None;
        }
    }
    let mut table = value.table(mistakes)?;
    let mut name = |key, default: &str, mistakes: &mut Diagnostics| match table.optional(key) {
        Some(value) => value
            .name("the name of a column", mistakes)
            .map(Spanned::into_inner),
        None => Some(default.to_owned()),
    };
    let defaults = Bounds::default();
    let start = name("start", &defaults.start, mistakes);
    let end = name("end", &defaults.end, mistakes);
    table.finish(mistakes);
    Some(BoundsChoice::Named(Bounds {
        start: start?,
        end: end?,
    }))
}
