//! The source `http`: rows that clients post to the host.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use toml::Spanned;

use super::endpoint::{Endpoint, TlsFiles};
use super::input::HttpInput;
use super::queue::{Acknowledge, Room};
use super::read_secret;
use super::repeats::Memory;
use crate::config::column::DeclaredColumn;
use crate::config::diagnostics::{Diagnostics, Mistake, Span};
use crate::config::format::{FormatKind, Formats, TEXT, read_rows};
use crate::config::reader::{ConfigValue, Table};
use crate::connector::{Description, Planning, listen};
use crate::format::RowFormat;
use crate::source::row_ends::ROW_BYTES_MAX;
use crate::source::{
    Pending, SourceConnector, SourceContext, SourceInput, SourceKind, SourceSettings,
};

pub const KIND: SourceKind = SourceKind { name: "http", read };

#[derive(Debug)]
struct HttpSourceSettings {
    columns: Vec<DeclaredColumn>,
    /// If it is written.
    acknowledge: Option<Spanned<Acknowledge>>,
    endpoint: Endpoint,
}

struct HttpSource(Endpoint);

/// Rows come without a header.
const FORMATS: Formats = Formats {
    has_header: false,
    ..TEXT
};

/// A body is not longer than a row may be.
const BODY_BYTES: std::ops::RangeInclusive<u64> = 1 << 10..=ROW_BYTES_MAX as u64;

fn read(table: &mut Table<'_>, mistakes: &mut Diagnostics) -> Option<Box<dyn SourceSettings>> {
    let listen = table
        .required("listen", listen::WANTED, mistakes)
        .and_then(|value| listen::read(&value, mistakes));
    let path = match table.optional("path") {
        Some(value) => read_path(&value, mistakes),
        None => Some("/events".to_owned()),
    };
    let choices = &[Acknowledge::Taken, Acknowledge::Checkpoint].map(|it| (it.name(), it));
    let acknowledge = table
        .optional("acknowledge")
        .and_then(|value| value.choice(choices, mistakes));
    let token_place = table.place_of("token");
    let token = table
        .optional("token")
        .and_then(|value| read_secret(&value, mistakes));
    let is_open = table
        .optional("without_token")
        .and_then(|value| Some((value.boolean(mistakes)?, value.key_span())));
    let tls_place = table.place_of("tls");
    let tls = table
        .optional("tls")
        .and_then(|value| read_tls(value.table(mistakes)?, mistakes));
    let mut bytes = |key, range, default| match table.optional(key) {
        Some(value) => value.bytes(range, mistakes),
        None => Some(default),
    };
    let body_bytes = bytes("body_bytes", BODY_BYTES, 8 << 20);
    let queue_bytes = bytes("queue_bytes", 1 << 10..=1 << 30, 64 << 20);
    let mut number = |key, most, default| match table.optional(key) {
        Some(value) => value.integer(1..=most, mistakes).map(Spanned::into_inner),
        None => Some(default),
    };
    let queue_rows = number("queue_rows", 100_000_000, 100_000);
    let keys = number("remembered_keys", 1_000_000, 10_000);
    let mut duration = |key, default| match table.optional(key) {
        Some(value) => value.duration(1, mistakes).map(Spanned::into_inner),
        None => Some(default),
    };
    let age_ms = duration("remembered_for", 24 * 3_600_000);
    let answer_ms = duration("answer_within", 60_000);
    let rows = read_rows(table, Some(FormatKind::Json), &FORMATS, mistakes)?;
    let listen = listen?;
    check_token(&listen, token_place, is_open, table, mistakes)?;
    if tls_place.is_some() && tls.is_none() {
        return None;
    }
    Some(Box::new(HttpSourceSettings {
        columns: rows.columns,
        acknowledge,
        endpoint: Endpoint {
            listen: listen.into_inner(),
            path: path?,
            acknowledge: Acknowledge::Taken,
            token,
            tls,
            format: rows.format,
            body_bytes_max: body_bytes? as usize,
            room: Room {
                rows_max: queue_rows? as usize,
                bytes_max: queue_bytes? as usize,
            },
            answer_within: Duration::from_millis(answer_ms?.unsigned_abs()),
            memory: Memory {
                keys_max: keys? as usize,
                age_ms_max: age_ms?,
            },
        },
    }))
}

fn read_path(value: &ConfigValue<'_>, mistakes: &mut Diagnostics) -> Option<String> {
    let path = value.text("a path, such as \"/events\"", mistakes)?;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._~/".contains(c);
    if !path.get_ref().starts_with('/') || !path.get_ref().chars().all(is_plain) {
        mistakes.push(
            Mistake::new(format!("{} is not the path of an address", value.what()))
                .at(path.span(), "")
                .help("write one such as \"/events\": `/`, then letters, digits, - . _ ~ and /"),
        );
        return None;
    }
    Some(path.into_inner())
}

fn read_tls(mut table: Table<'_>, mistakes: &mut Diagnostics) -> Option<TlsFiles> {
    let mut file = |key, wanted: &str| {
        let value = table.required(key, wanted, mistakes)?;
        Some(PathBuf::from(value.path(mistakes)?.into_inner()))
    };
    let certificate = file("certificate", "the file of a certificate, as PEM");
    let key = file("key", "the file of its key, as PEM");
    table.finish(mistakes);
    Some(TlsFiles {
        certificate: certificate?,
        key: key?,
    })
}

/// Refuses an address that others reach, if nobody needs a token there.
fn check_token(
    listen: &Spanned<String>,
    token: Option<Span>,
    is_open: Option<(bool, Span)>,
    table: &Table<'_>,
    mistakes: &mut Diagnostics,
) -> Option<()> {
    let mistake = match (token, is_open) {
        (Some(token), Some((true, place))) => Mistake::new(format!(
            "{} has a `token`, and `without_token` as well",
            table.owner()
        ))
        .at(place, "")
        .at(token, "")
        .help("remove one of them"),
        (None, None | Some((false, _))) if !listen::is_loopback(listen.get_ref()) => {
            Mistake::new(format!(
                "everybody who reaches {} could post rows to {}",
                listen.get_ref(),
                table.owner()
            ))
            .at(listen.span(), "")
            .help(
                "give it a token, as by `token = { env = \"NAME\" }`; or listen on this machine \
                 alone, as on \"127.0.0.1:8088\"; or write `without_token = true`, if they may",
            )
        }
        _ => return Some(()),
    };
    mistakes.push(mistake);
    None
}

impl SourceSettings for HttpSourceSettings {
    fn columns(&self) -> &[DeclaredColumn] {
        &self.columns
    }

    fn plan(&self, planning: &mut Planning<'_>) -> Option<Box<dyn SourceConnector>> {
        let acknowledge = match &self.acknowledge {
            Some(chosen)
                if *chosen.get_ref() == Acknowledge::Checkpoint && !planning.has_checkpoints =>
            {
                planning.mistakes.push(
                    Mistake::new(format!(
                        "{} cannot wait for checkpoints: the pipeline makes none",
                        planning.title
                    ))
                    .at(chosen.span(), "")
                    .help("add a table [state], or write `acknowledge = \"taken\"`"),
                );
                return None;
            }
            Some(chosen) => *chosen.get_ref(),
            // Who gets an answer forgets the rows: they must not be lost then.
            None if planning.has_checkpoints => Acknowledge::Checkpoint,
            None => Acknowledge::Taken,
        };
        let tls = self.endpoint.tls.as_ref().map(|tls| TlsFiles {
            certificate: planning.folder.join(&tls.certificate),
            key: planning.folder.join(&tls.key),
        });
        Some(Box::new(HttpSource(Endpoint {
            acknowledge,
            tls,
            ..self.endpoint.clone()
        })))
    }
}

impl SourceConnector for HttpSource {
    fn describe(&self) -> Description {
        let endpoint = &self.0;
        let scheme = match endpoint.tls {
            Some(_) => "https",
            None => "http",
        };
        let answered = match endpoint.acknowledge {
            Acknowledge::Taken => "answers when the pipeline has taken the rows",
            Acknowledge::Checkpoint => {
                "answers when a checkpoint has the rows: at least once; exactly once with an \
                 Idempotency-Key"
            }
        };
        Description {
            connector: KIND.name,
            format: Some(endpoint.format.format.name()),
            lines: vec![
                format!("listens on {scheme}://{}{}", endpoint.listen, endpoint.path),
                answered.to_owned(),
            ],
            settings: json!({
                "listen": endpoint.listen,
                "path": endpoint.path,
                "acknowledge": endpoint.acknowledge.name(),
                "has_token": endpoint.token.is_some(),
                "has_tls": endpoint.tls.is_some(),
                "body_bytes": endpoint.body_bytes_max,
                "queue_bytes": endpoint.room.bytes_max,
                "queue_rows": endpoint.room.rows_max,
            }),
            ..Description::default()
        }
    }

    /// One: what is posted, in the order in which it is taken.
    fn partitions(&self) -> Option<usize> {
        Some(1)
    }

    /// Clients post again what was not answered.
    fn is_replayable(&self) -> bool {
        self.0.acknowledge == Acknowledge::Checkpoint
    }

    fn may_be_quiet(&self) -> bool {
        true
    }

    fn can_bootstrap(&self) -> bool {
        false
    }

    fn row_format(&self) -> RowFormat {
        self.0.format.clone()
    }

    fn open<'a>(&'a self, context: &'a SourceContext) -> Pending<'a, Box<dyn SourceInput>> {
        Box::pin(async move {
            let input = HttpInput::open(&self.0, context).await?;
            Ok(Box::new(input) as Box<dyn SourceInput>)
        })
    }
}
