//! Reads `[state]`, `[checkpoints]` and `[restart]`: where state is kept, how
//! often checkpoints are made, and how a failed pipeline is restarted.

use toml::Spanned;

use super::diagnostics::{Diagnostics, Mistake, Span};
use super::reader::{ConfigValue, Table};
use super::secrets;
use crate::plan::{Delivery, RestartPlan};
use crate::quantity::show_ms;

#[derive(Debug)]
pub struct StateConfig {
    pub backend: Option<Spanned<Backend>>,
    pub path: Option<Spanned<String>>,
    pub memory_bytes_max: Option<u64>,
    pub rocksdb_memory_bytes_max: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Backend {
    #[default]
    RocksDb,
    Memory,
}

#[derive(Debug)]
pub struct CheckpointsConfig {
    pub interval_ms: Option<i64>,
    pub keep: Option<usize>,
    pub delivery: Option<Delivery>,
    pub upload: Option<UploadConfig>,
}

#[derive(Debug)]
pub struct UploadConfig {
    pub url: Spanned<String>,
    pub options: Vec<(String, String)>,
}

#[derive(Debug)]
pub struct RestartConfig {
    pub place: Span,
    pub plan: RestartPlan,
}

const BACKENDS: &[(&str, Backend)] = &[("rocksdb", Backend::RocksDb), ("memory", Backend::Memory)];

const DELIVERIES: &[(&str, Delivery)] = &[
    ("exactly_once", Delivery::ExactlyOnce),
    ("at_least_once", Delivery::AtLeastOnce),
];

#[derive(Clone, Copy, PartialEq)]
enum Strategy {
    Never,
    Fixed,
    Exponential,
}

const STRATEGIES: &[(&str, Strategy)] = &[
    ("never", Strategy::Never),
    ("fixed", Strategy::Fixed),
    ("exponential", Strategy::Exponential),
];

/// The policy without `[restart]`, and the defaults of its keys.
pub const RESTART: RestartPlan = RestartPlan::After {
    delay_ms: DELAY_MS,
    delay_ms_max: DELAY_MS_MAX,
    factor: FACTOR,
    failures_max: FAILURES as u32,
    within_ms: WITHIN_MS,
};
const DELAY_MS: u64 = 1_000;
const DELAY_MS_MAX: u64 = 60_000;
const FACTOR: f64 = 2.0;
const FAILURES: i64 = 10;
const FAILURES_LIMIT: i64 = 1_000_000;
const WITHIN_MS: u64 = 600_000;

/// With less, bookkeeping would take more memory than rows.
const MEMORY_BYTES_MIN: u64 = 1 << 20;
const ROCKSDB_MEMORY_BYTES_MIN: u64 = 8 << 20;
const MEMORY_BYTES_MAX: u64 = 1 << 40;
/// A checkpoint makes files durable, which takes some milliseconds.
const INTERVAL_MS_MIN: i64 = 10;
/// The one before the last is needed until the last one is committed.
const KEEP_MIN: i64 = 2;
const KEEP_MAX: i64 = 1_000;

pub(super) fn read_state(value: &ConfigValue, mistakes: &mut Diagnostics) -> Option<StateConfig> {
    let mut table = section(value, "[state]", mistakes)?;
    let backend = table
        .optional("backend")
        .map(|value| value.choice(BACKENDS, mistakes));
    let path = table.optional("path");
    let memory = table.optional("memory").map(|value| {
        let range = MEMORY_BYTES_MIN..=MEMORY_BYTES_MAX;
        value.bytes(range, mistakes)
    });
    let rocksdb_memory = table.optional("rocksdb_memory");
    let backend = match backend {
        Some(backend) => Some(backend?),
        None => None,
    };
    let is_in_memory = |backend: &Spanned<Backend>| *backend.get_ref() == Backend::Memory;
    if backend.as_ref().is_some_and(is_in_memory) {
        for value in [&path, &rocksdb_memory].into_iter().flatten() {
            mistakes.push(
                Mistake::new(format!("{} is for `backend = \"rocksdb\"`", value.what()))
                    .at(value.key_span(), "the state is in memory")
                    .help("remove it, or the backend: rocksdb is the default"),
            );
        }
    }
    let path = path.map(|value| value.path(mistakes));
    let rocksdb_memory = rocksdb_memory.map(|value| {
        let range = ROCKSDB_MEMORY_BYTES_MIN..=MEMORY_BYTES_MAX;
        value.bytes(range, mistakes)
    });
    table.finish(mistakes);
    Some(StateConfig {
        backend,
        path: path.flatten(),
        memory_bytes_max: memory.flatten(),
        rocksdb_memory_bytes_max: rocksdb_memory.flatten(),
    })
}

pub(super) fn read_checkpoints(
    value: &ConfigValue,
    mistakes: &mut Diagnostics,
) -> Option<CheckpointsConfig> {
    let mut table = section(value, "[checkpoints]", mistakes)?;
    let interval = table
        .optional("interval")
        .and_then(|value| value.duration(INTERVAL_MS_MIN, mistakes));
    let keep = table
        .optional("keep")
        .and_then(|value| value.integer(KEEP_MIN..=KEEP_MAX, mistakes));
    let delivery = table
        .optional("delivery")
        .and_then(|value| value.choice(DELIVERIES, mistakes));
    let upload = table
        .optional("upload")
        .and_then(|value| read_upload(&value, mistakes));
    table.finish(mistakes);
    Some(CheckpointsConfig {
        interval_ms: interval.map(Spanned::into_inner),
        keep: keep.map(|keep| keep.into_inner() as usize),
        delivery: delivery.map(Spanned::into_inner),
        upload,
    })
}

fn read_upload(value: &ConfigValue, mistakes: &mut Diagnostics) -> Option<UploadConfig> {
    let mut table = value.table(mistakes)?;
    let url = table
        .required(
            "url",
            "where checkpoints are copied to, such as \"file:///mnt/checkpoints\" or \
             \"s3://bucket/prefix\"",
            mistakes,
        )
        .and_then(|value| value.text("a URL, in quotes", mistakes));
    let options = table
        .optional("options")
        .and_then(|value| value.table(mistakes));
    let options = options.map(|options| secrets::read_options(options, mistakes));
    table.finish(mistakes);
    Some(UploadConfig {
        url: url?,
        options: options.unwrap_or_default(),
    })
}

pub(super) fn read_restart(
    value: &ConfigValue,
    mistakes: &mut Diagnostics,
) -> Option<RestartConfig> {
    let mut table = section(value, "[restart]", mistakes)?;
    let place = table.place();
    let strategy = match table.optional("strategy") {
        Some(value) => value.choice(STRATEGIES, mistakes)?.into_inner(),
        None => Strategy::Exponential,
    };
    let plan = match strategy {
        Strategy::Never => Some(RestartPlan::Never),
        Strategy::Fixed | Strategy::Exponential => read_delays(&mut table, strategy, mistakes),
    };
    table.finish(mistakes);
    Some(RestartConfig { place, plan: plan? })
}

fn read_delays(
    table: &mut Table,
    strategy: Strategy,
    mistakes: &mut Diagnostics,
) -> Option<RestartPlan> {
    let is_growing = strategy == Strategy::Exponential;
    let delay = read_ms(table.optional("delay"), DELAY_MS, mistakes);
    let mut limit = None;
    let mut growth = Some(1.0);
    if is_growing {
        limit = table.optional("max_delay");
        growth = match table.optional("factor") {
            Some(value) => read_factor(&value, mistakes),
            None => Some(FACTOR),
        };
    }
    let failures = match table.optional("failures") {
        Some(value) => value.integer(1..=FAILURES_LIMIT, mistakes),
        None => Some(Spanned::new(0..0, FAILURES)),
    };
    let within = read_ms(table.optional("within"), WITHIN_MS, mistakes);
    let place = limit.as_ref().map(ConfigValue::span);
    let delay_ms = delay?;
    let delay_ms_max = match is_growing {
        true => read_ms(limit, DELAY_MS_MAX.max(delay_ms), mistakes)?,
        false => delay_ms,
    };
    if let Some(place) = place
        && delay_ms_max < delay_ms
    {
        let delay = show_ms(delay_ms as i64);
        mistakes.push(
            Mistake::new("`max_delay` of [restart] is shorter than its `delay`")
                .at(place, "")
                .help(format!("give at least {delay}, or a shorter `delay`")),
        );
    }
    Some(RestartPlan::After {
        delay_ms,
        delay_ms_max,
        factor: growth?,
        failures_max: failures?.into_inner() as u32,
        within_ms: within?,
    })
}

fn read_ms(value: Option<ConfigValue>, default: u64, mistakes: &mut Diagnostics) -> Option<u64> {
    match value {
        Some(value) => Some(value.duration(0, mistakes)?.into_inner() as u64),
        None => Some(default),
    }
}

fn read_factor(value: &ConfigValue, mistakes: &mut Diagnostics) -> Option<f64> {
    let factor = value.positive_number(mistakes)?;
    if factor < 1.0 {
        mistakes.push(
            Mistake::new(format!("{} must be at least 1", value.what()))
                .at(value.span(), "")
                .help("each delay is the one before times this factor"),
        );
        return None;
    }
    Some(factor)
}

/// A table of the pipeline, named in messages as it is written.
fn section<'a>(
    value: &ConfigValue<'a>,
    name: &str,
    mistakes: &mut Diagnostics,
) -> Option<Table<'a>> {
    let place = value.key_span();
    Some(value.table(mistakes)?.owned_by(name, place))
}
