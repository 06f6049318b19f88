//! The source `postgres`: rows of a table, or of what a query gives, by a column that grows;
//! or the changes of a table from the server's log.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::watch;
use twox_hash::XxHash3_64;

use super::Failure;
use super::growing::GrowingReader;
use super::keys::{read_connection, read_name};
use super::log::LogReader;
use super::log::kept::Kept;
use super::place::{GrowingPlace, LogPlace, Place};
use super::reading::TableInput;
use super::session::connect;
use super::sink::read_table;
use super::table::TableName;
use super::table_source::{By, Growing, Log, Relation, TableSource};
use crate::blame::Fault;
use crate::config::column::DeclaredColumn;
use crate::config::diagnostics::{Diagnostics, Mistake, Span};
use crate::config::format::{read_rows_of_system, read_table_key};
use crate::config::reader::{ConfigValue, Table};
use crate::connector::{Description, Planning, network};
use crate::format::{DebeziumFormat, Format, RowFormat, TableChanges, TextDecimals};
use crate::source::{
    Pending, SourceConnector, SourceContext, SourceError, SourceInput, SourceKind, SourceSettings,
};
use crate::timestamp::TimestampFormat;

pub const KIND: SourceKind = SourceKind {
    name: "postgres",
    read,
};

const POLL_EVERY: Duration = Duration::from_secs(1);

/// A transaction that runs longer is not waited for.
const WAIT_MAX: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct PostgresSourceSettings {
    columns: Vec<DeclaredColumn>,
    source: TableSource,
    /// Where it is written by what new rows are found.
    by: Span,
}

fn read(table: &mut Table<'_>, mistakes: &mut Diagnostics) -> Option<Box<dyn SourceSettings>> {
    let connection = read_connection(table, mistakes);
    let relation = table.required_one(
        &["table", "query"],
        "the table to read, such as \"orders\" or \"shop.orders\", or a `query`",
        "a source reads a table or a query",
        mistakes,
    );
    let relation = relation.and_then(|(at, value)| match at {
        0 => read_table(&value, mistakes).map(|name| Relation::Table(TableName::parse(&name))),
        _ => {
            let query = value.text("a SELECT, in quotes", mistakes)?;
            let query = query.get_ref().trim().trim_end_matches(';').to_owned();
            Some(Relation::Query(query))
        }
    });
    let by = table.required_one(
        &["growing", "log"],
        "the column whose values grow with each new or changed row, such as \"updated_at\"; or \
         `log = {}`, for changes from the server's log",
        "a source reads by one of the two",
        mistakes,
    );
    let mut time = |key, least_ms| {
        let value = table.optional(key)?;
        let ms = value.duration(least_ms, mistakes)?;
        u64::try_from(ms.into_inner())
            .ok()
            .map(Duration::from_millis)
    };
    let poll_every = time("poll_every", 10);
    let wait_max = time("wait_max", 0);
    let until = table
        .optional("until")
        .and_then(|value| value.choice(&[("end", ())], mistakes));
    let poll_every = poll_every.unwrap_or(POLL_EVERY);
    let is_bounded = until.is_some();
    let rows = read_rows_of_system(table, mistakes)?;
    let place = by.as_ref().map(|(_, value)| value.span());
    let by = by.and_then(|(at, value)| match at {
        0 => Some(By::Growing(Growing {
            column: read_name(&value, mistakes)?,
            poll_every,
            wait_max: wait_max.unwrap_or(WAIT_MAX),
            is_bounded,
        })),
        _ => {
            let log = read_log(&value, &rows.columns, mistakes)?;
            Some(By::Log(Log {
                poll_every,
                is_bounded,
                ..log
            }))
        }
    });
    if let (Some(By::Log(_)), Some(Relation::Query(_))) = (&by, &relation) {
        let what = format!("{} reads a query, whose changes no log has", table.owner());
        let place = table.place_of("query").unwrap_or_else(|| table.place());
        mistakes.push(Mistake::new(what).at(place, "").help("name the `table`"));
        return None;
    }
    if let (Some(By::Log(_)), Some(_)) = (&by, wait_max) {
        let place = table.place_of("wait_max").unwrap_or_else(|| table.place());
        let what = format!(
            "{} waits for no transaction: the log has them in order",
            table.owner()
        );
        mistakes.push(Mistake::new(what).at(place, "").help("remove `wait_max`"));
        return None;
    }
    for column in &rows.columns {
        let mut formats = column.timestamp_formats.iter();
        if formats.any(|format| *format != TimestampFormat::default()) {
            let what = format!("{} reads times that have no other format", table.owner());
            let mistake = Mistake::new(what).at(column.place.clone(), "");
            mistakes.push(mistake.help("write `timestamp`: the server says what it is"));
            return None;
        }
    }
    Some(Box::new(PostgresSourceSettings {
        columns: rows.columns,
        source: TableSource {
            connection: connection?,
            relation: relation?,
            format: rows.format,
            by: by?,
        },
        by: place?,
    }))
}

/// Reads what the log is read by.
fn read_log(
    value: &ConfigValue<'_>,
    columns: &[DeclaredColumn],
    mistakes: &mut Diagnostics,
) -> Option<Log> {
    let mut table = value.table(mistakes)?;
    let key = table.optional("key");
    let key = key.map(|key| read_table_key(&key, columns, mistakes));
    let mut name = |key| {
        let value = table.optional(key)?;
        Some(read_name(&value, mistakes))
    };
    let (slot, publication) = (name("slot"), name("publication"));
    let copies = table.optional("copy").map(|value| value.boolean(mistakes));
    table.finish(mistakes);
    let slot = match slot {
        Some(slot) => slot?,
        None => String::new(),
    };
    let is_slot = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if !slot.chars().all(is_slot) || slot.len() > SLOT_MAX {
        mistakes.push(
            Mistake::new(format!(
                "{} has a `slot` that cannot be its name",
                value.what()
            ))
            .at(value.span(), "")
            .help(format!("slots have up to {SLOT_MAX} of: a to z, digits, _")),
        );
        return None;
    }
    Some(Log {
        changes: TableChanges {
            key: match key {
                Some(key) => Some(key?),
                None => None,
            },
        },
        publication: match publication {
            Some(publication) => publication?,
            None => String::new(),
        },
        slot,
        copies: match copies {
            Some(copies) => copies?,
            None => true,
        },
        poll_every: POLL_EVERY,
        is_bounded: false,
    })
}

/// Behind it, copies of it have a number of their own.
const SLOT_MAX: usize = 50;

/// The slot of a pipeline's table, if nobody names it: the server takes few characters.
fn slot_of(pipeline: &str, table: &str) -> String {
    let name = format!("sluicebox_{pipeline}_{table}");
    let plain = |c: char| match c.to_ascii_lowercase() {
        c @ ('a'..='z' | '0'..='9' | '_') => c,
        _ => '_',
    };
    let slot: String = name.chars().map(plain).collect();
    if slot == name && slot.len() <= SLOT_MAX {
        return slot;
    }
    let digest = XxHash3_64::oneshot(name.as_bytes());
    format!("{}_{digest:016x}", &slot[..slot.len().min(SLOT_MAX - 17)])
}

impl SourceSettings for PostgresSourceSettings {
    fn columns(&self) -> &[DeclaredColumn] {
        &self.columns
    }

    fn changes(&self) -> Option<&TableChanges> {
        self.source.changes()
    }

    fn plan(&self, planning: &mut Planning<'_>) -> Option<Box<dyn SourceConnector>> {
        let mut source = self.source.clone();
        let trusted = source.connection.trusted.take();
        source.connection.trusted = trusted.map(|path| planning.folder.join(path));
        let name = source.name();
        if let By::Log(log) = &mut source.by {
            if log.slot.is_empty() {
                log.slot = slot_of(planning.pipeline, &name);
            }
            if log.publication.is_empty() {
                log.publication.clone_from(&log.slot);
            }
            if !planning.has_checkpoints {
                planning.mistakes.push(
                    Mistake::new(format!(
                        "{} cannot read the log without checkpoints, by which the server knows \
                         what it may let go of: the pipeline makes none",
                        planning.title
                    ))
                    .at(self.by.clone(), "")
                    .help("add a table [checkpoints], and [state] with the folder to keep them"),
                );
                return None;
            }
            let slot = format!("the slot `{}` on {}", log.slot, source.connection.places());
            let help = "give one of them another name in `log`, as `log = { slot = \"…\" }`, or \
                        have both read what one source does";
            planning.reserve(slot, self.by.clone(), help)?;
        }
        Some(Box::new(PostgresSource(Arc::new(source))))
    }
}

struct PostgresSource(Arc<TableSource>);

impl SourceConnector for PostgresSource {
    fn describe(&self) -> Description {
        let source = &self.0;
        let what = match &source.relation {
            Relation::Table(name) => format!("table {}", name.shown()),
            Relation::Query(_) => "a query".to_owned(),
        };
        let servers = source.connection.servers.iter().map(ToString::to_string);
        let mut settings = json!({
            "servers": servers.collect::<Vec<_>>(),
            "database": source.connection.database,
            "table": source.name(),
        });
        let (line, delivery) = match &source.by {
            By::Growing(growing) => {
                settings["growing"] = growing.column.clone().into();
                let until = if growing.is_bounded {
                    ", to its end"
                } else {
                    ""
                };
                (
                    format!("by {}{until}", growing.column),
                    "exactly once with checkpoints, as long as its values grow".to_owned(),
                )
            }
            By::Log(log) => {
                settings["slot"] = log.slot.clone().into();
                settings["publication"] = log.publication.clone().into();
                let first = if log.copies { "its rows, then " } else { "" };
                (
                    format!("{first}its changes from the log"),
                    format!(
                        "exactly once: the slot `{}` keeps the log from the last checkpoint on",
                        log.slot
                    ),
                )
            }
        };
        Description {
            connector: KIND.name,
            lines: vec![format!("{what} of {}, {line}", source.connection), delivery],
            settings,
            ..Description::default()
        }
    }

    fn partitions(&self) -> Option<usize> {
        Some(1)
    }

    fn payload_format(&self) -> RowFormat {
        self.0.format.clone()
    }

    /// In a file, changes are told as Debezium tells them.
    fn row_format(&self) -> RowFormat {
        match &self.0.by {
            By::Growing(_) => self.0.format.clone(),
            By::Log(log) => RowFormat {
                format: Format::Debezium(DebeziumFormat {
                    changes: log.changes.clone(),
                    decimals: TextDecimals::String,
                }),
                ..self.0.format.clone()
            },
        }
    }

    fn release(&self) -> Result<Vec<String>, String> {
        let By::Log(log) = &self.0.by else {
            return Ok(Vec::new());
        };
        let kept = Kept::new(&self.0, log);
        let released = network::runtime()?.block_on(async {
            let (client, _driver) = connect(&self.0.connection).await?;
            kept.release(&client).await
        });
        released.map_err(|failure: Failure| format!("{}: {}", self.0.connection, failure.cause))
    }

    fn open<'a>(&'a self, context: &'a SourceContext) -> Pending<'a, Box<dyn SourceInput>> {
        Box::pin(async move { Ok(Box::new(open(&self.0, context).await?) as Box<dyn SourceInput>) })
    }
}

async fn open(
    source: &Arc<TableSource>,
    context: &SourceContext,
) -> Result<TableInput, SourceError> {
    let name = source.name();
    let mut restored = None;
    for known in context.restored.iter().flat_map(|task| &task.partitions) {
        let kept = known.kept.as_deref().unwrap_or_default();
        let place = serde_json::from_str(kept).ok();
        restored = match (place, &source.by) {
            (Some(Place::Growing(place)), By::Growing(growing))
                if known.name == name && place.by == growing.column =>
            {
                Some(Place::Growing(place))
            }
            (Some(place @ Place::Log(_)), By::Log(_)) if known.name == name => Some(place),
            _ => {
                return Err(context.refuse(
                    format!(
                        "the checkpoint had read {}, which the source does not read any more, or \
                         not in this way: read it as before, or {}",
                        known.name,
                        context.beginning_anew()
                    ),
                    Fault::OUTSIDE_LASTING,
                ));
            }
        };
    }
    match &source.by {
        By::Growing(growing) => {
            let place = match restored {
                Some(Place::Growing(place)) => place,
                _ => GrowingPlace {
                    by: growing.column.clone(),
                    ..GrowingPlace::default()
                },
            };
            let start = Place::Growing(place.clone());
            let reader = GrowingReader::new(source.clone(), growing.clone(), context, place);
            TableInput::start(source.clone(), context, start, reader, None)
        }
        // Who embeds the host may run a plan with checkpoints, and keep none.
        By::Log(_) if !context.is_checkpointed => Err(context.refuse(
            "a run that reads the log needs checkpoints, by which the server knows what it may \
             let go of: have it keep some",
            Fault::CONFIG,
        )),
        By::Log(log) => {
            let place = match restored {
                Some(Place::Log(place)) => place,
                _ => LogPlace::default(),
            };
            if let Some(end) = place.end {
                check_kept(source, log, end, context).await?;
            }
            let start = Place::Log(place.clone());
            let (committed, watched) = watch::channel(None);
            let reader = LogReader::new(source.clone(), log.clone(), context, place, watched);
            TableInput::start(source.clone(), context, start, reader, Some(committed))
        }
    }
}

/// Refuses to go on from a place in the log that the server has let go of, before the run has
/// changed anything. A server that is away now will be asked when rows are.
async fn check_kept(
    source: &Arc<TableSource>,
    log: &Log,
    end: u64,
    context: &SourceContext,
) -> Result<(), SourceError> {
    let network = network::runtime().map_err(|why| context.refuse(why, Fault::OUTSIDE))?;
    let (asked, log) = (source.clone(), log.clone());
    let check = network.spawn(async move {
        let (client, _driver) = connect(&asked.connection).await?;
        Kept::new(&asked, &log).check(&client, end).await
    });
    match check.await {
        Ok(Err(failure)) if !failure.fault.can_pass => {
            let what = source.connection.to_string();
            Err(context.failed(what, failure.cause, failure.fault))
        }
        _ => Ok(()),
    }
}
