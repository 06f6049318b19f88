//! The sink `tcp`: rows are sent to a server, as lines or behind their lengths.
//!
//! With checkpoints, each has a connection of its own. At a barrier, the sink ends it and
//! waits for the server's end, which says that everything was read
//! ([why](../../../../docs/decisions/0039-syslog-udp-and-tcp.md)). A connection that is lost
//! before that fails the run, and rows since the last checkpoint are sent again.

use std::io;
use std::sync::Arc;

use serde_json::json;
use toml::Spanned;

use super::frames::Framing;
use super::outgoing::Outgoing;
use crate::batch::Batch;
use crate::blame::Fault;
use crate::checkpoint::snapshot::SinkSnapshot;
use crate::config::diagnostics::{Diagnostics, Mistake, Span};
use crate::config::reader::{ConfigValue, Table};
use crate::connector::server::{Backoff, Server};
use crate::connector::text_rows::{Csv, JsonLines, RawLines, TextFormat, TextRows};
use crate::connector::{Description, Planning};
use crate::element::CheckpointId;
use crate::format::CsvFormat;
use crate::offload::blocking;
use crate::plan::state::Delivery;
use crate::schema::{DataType, Schema};
use crate::sink::{
    Ending, Sink, SinkConnector, SinkContext, SinkError, SinkKind, SinkSettings, shown,
};
use crate::stop::Stop;

pub const KIND: SinkKind = SinkKind { name: "tcp", read };

/// Rows are sent when they are as long as this, or when there is no reason to wait.
const SEND_BYTES: usize = 64 << 10;

/// The keys of its table.
#[derive(Debug)]
struct TcpSinkSettings {
    sink: TcpSink,
    format_place: Option<Span>,
}

/// The server, and what it gets.
#[derive(Clone, Debug)]
pub struct TcpSink {
    server: Server,
    tls: bool,
    format: TextKind,
    framing: Framing,
    /// Whether a checkpoint waits until the server has read everything.
    is_confirmed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TextKind {
    Json,
    Csv,
    Raw,
}

impl TextKind {
    fn name(self) -> &'static str {
        match self {
            TextKind::Json => "json",
            TextKind::Csv => "csv",
            TextKind::Raw => "raw",
        }
    }
}

fn read(table: &mut Table<'_>, mistakes: &mut Diagnostics) -> Option<Box<dyn SinkSettings>> {
    let meaning = "the address of the server, such as \"127.0.0.1:9000\"";
    let server = table
        .required("server", meaning, mistakes)
        .and_then(|value| read_server(&value, mistakes));
    let mut flag = |key, default| match table.optional(key) {
        Some(value) => value.boolean(mistakes),
        None => Some(default),
    };
    let tls = flag("tls", false);
    let is_confirmed = flag("confirmed", true);
    let formats = [TextKind::Json, TextKind::Csv, TextKind::Raw].map(|it| (it.name(), it));
    let format_place = table.place_of("format");
    let format = match table.optional("format") {
        Some(value) => value.choice(&formats, mistakes).map(Spanned::into_inner),
        None => Some(TextKind::Json),
    };
    let framing = Framing::read(table, mistakes);
    Some(Box::new(TcpSinkSettings {
        sink: TcpSink {
            server: server?,
            tls: tls?,
            format: format?,
            framing: framing?,
            is_confirmed: is_confirmed?,
        },
        format_place,
    }))
}

/// Reads `host:port` or `[::1]:port`.
fn read_server(value: &ConfigValue<'_>, mistakes: &mut Diagnostics) -> Option<Server> {
    let text = value.text("the address of the server, in quotes", mistakes)?;
    // Without a port, it is 0 here.
    let server = Server::parse(text.get_ref(), 0);
    let server = server.filter(|server| !server.host.contains('/') && server.port != 0);
    if server.is_none() {
        mistakes.push(
            Mistake::new(format!("{} is not the address of a server", value.what()))
                .at(text.span(), "")
                .help("write a host and a port, such as \"127.0.0.1:9000\""),
        );
    }
    server
}

impl SinkSettings for TcpSinkSettings {
    fn plan(
        &self,
        columns: Option<&Schema>,
        planning: &mut Planning<'_>,
    ) -> Option<Box<dyn SinkConnector>> {
        let columns = columns?;
        if self.sink.format == TextKind::Raw {
            let is_good = matches!(
                columns.fields.as_slice(),
                [field] if matches!(field.data_type, DataType::Utf8 | DataType::Bytes)
            );
            if !is_good {
                let mistake = Mistake::new(format!(
                    "{} has the format raw, and rows that are not one field of utf8 or bytes: \
                     {columns}",
                    planning.title
                ));
                let mistake = match &self.format_place {
                    Some(place) => mistake.at(place.clone(), ""),
                    None => mistake,
                };
                planning.mistakes.push(
                    mistake.help(
                        "give it one field, by an operator with `select`; or write json or csv",
                    ),
                );
                return None;
            }
        }
        Some(Box::new(self.sink.clone()))
    }
}

impl SinkConnector for TcpSink {
    fn describe(&self) -> Description {
        let (rows, server) = (self.framing.name(), &self.server);
        let encrypted = if self.tls { ", encrypted" } else { "" };
        let delivery = match self.is_confirmed {
            true => "the server has read everything at a checkpoint: it closes the connection then",
            false => "not confirmed: a connection that is lost loses what was on its way",
        };
        Description {
            connector: KIND.name,
            format: Some(self.format.name()),
            lines: vec![
                format!("{rows} to {server}{encrypted}"),
                delivery.to_owned(),
            ],
            settings: json!({
                "server": server.to_string(),
                "tls": self.tls,
                "confirmed": self.is_confirmed,
            }),
            ..Description::default()
        }
    }

    fn delivery(&self) -> Delivery {
        Delivery::AtLeastOnce
    }

    fn delivery_note(&self) -> &'static str {
        match self.is_confirmed {
            true => "a checkpoint waits until the server has read what was sent",
            false => "what is on its way when the server ends may be lost",
        }
    }

    fn open(
        &self,
        node: &str,
        schema: &Arc<Schema>,
        context: &SinkContext,
    ) -> Result<Box<dyn Sink>, SinkError> {
        let format: Box<dyn TextFormat> = match self.format {
            TextKind::Json => Box::new(JsonLines::new(schema)),
            TextKind::Csv => Box::new(Csv::new(schema, CsvFormat::default())),
            TextKind::Raw => Box::new(RawLines),
        };
        let mut writer = TcpWriter {
            node: node.to_owned(),
            plan: self.clone(),
            format,
            rows: TextRows::default(),
            unsent: Vec::new(),
            connection: None,
            is_unconfirmed: false,
            is_checkpointed: context.is_checkpointed,
            stop: context.stop.clone(),
        };
        // Says at once if nobody is there.
        let connection = Outgoing::connect(&self.server, self.tls);
        writer.connection = Some(connection.map_err(|error| writer.error(&error))?);
        Ok(Box::new(writer))
    }
}

/// The sink at work.
struct TcpWriter {
    node: String,
    plan: TcpSink,
    format: Box<dyn TextFormat>,
    /// The rows being written, reused for their memory.
    rows: TextRows,
    /// Those that are to be sent.
    unsent: Vec<u8>,
    connection: Option<Outgoing>,
    /// The server may not have read all that was sent.
    is_unconfirmed: bool,
    is_checkpointed: bool,
    stop: Stop,
}

impl TcpWriter {
    /// Sends what is there. A connection that is lost is made again, unless a restart sends
    /// what was lost with it.
    fn send(&mut self) -> Result<(), SinkError> {
        if self.unsent.is_empty() {
            return Ok(());
        }
        let mut backoff = Backoff::new();
        loop {
            let sent = blocking(|| match &mut self.connection {
                Some(connection) => connection.send(&self.unsent),
                none => {
                    let connection = Outgoing::connect(&self.plan.server, self.plan.tls)?;
                    none.insert(connection).send(&self.unsent)
                }
            });
            let Err(error) = sent else {
                self.unsent.clear();
                self.is_unconfirmed = true;
                return Ok(());
            };
            let was_connected = self.connection.take().is_some();
            if self.is_checkpointed && self.is_unconfirmed || self.stop.asked() {
                return Err(self.error(&error));
            }
            let lost = match was_connected && self.is_unconfirmed {
                true => "; rows that were on their way may be lost",
                false => "",
            };
            let server = &self.plan.server;
            tracing::warn!(
                "sink `{}`: {server}: {error}; trying again{lost}",
                self.node
            );
            self.is_unconfirmed = false;
            blocking(|| std::thread::sleep(backoff.wait()));
        }
    }

    /// Ends the connection, if the server has got something by it, and waits until it has
    /// read that.
    fn confirm(&mut self) -> Result<(), SinkError> {
        self.send()?;
        if !self.plan.is_confirmed || !self.is_unconfirmed {
            return Ok(());
        }
        if let Some(connection) = self.connection.take() {
            let closed = blocking(|| connection.close());
            closed.map_err(|error| self.error(&error))?;
        }
        self.is_unconfirmed = false;
        Ok(())
    }

    fn error(&self, error: &io::Error) -> SinkError {
        let fault = match error.kind() {
            // Its certificate is not what it should be.
            io::ErrorKind::InvalidData => Fault::OUTSIDE_LASTING,
            _ => Fault::OUTSIDE,
        };
        let help = match error.kind() {
            io::ErrorKind::TimedOut if self.plan.is_confirmed => {
                "; a server that keeps connections open needs `confirmed = false`"
            }
            _ => "",
        };
        let what = format!("to {}", self.plan.server);
        SinkError::new(&self.node, what, format!("{error}{help}"), fault)
    }
}

impl Sink for TcpWriter {
    fn write(&mut self, batch: &Batch) -> Result<(), SinkError> {
        self.rows.clear();
        self.format.write(batch, &mut self.rows);
        let is_raw = self.plan.format == TextKind::Raw;
        let mut start = 0;
        for (row, &end) in self.rows.ends.iter().enumerate() {
            // Without its line end.
            let text = &self.rows.text[start..end - 1];
            start = end;
            match self.plan.framing {
                Framing::LengthPrefixed => {
                    // A batch has less than 4 GiB.
                    let length = text.len() as u32;
                    self.unsent.extend_from_slice(&length.to_be_bytes());
                    self.unsent.extend_from_slice(text);
                }
                Framing::OctetCounted => {
                    let length = text.len().to_string();
                    self.unsent.extend_from_slice(length.as_bytes());
                    self.unsent.push(b' ');
                    self.unsent.extend_from_slice(text);
                }
                Framing::Newline if is_raw && memchr::memchr(b'\n', text).is_some() => {
                    let cause = format!(
                        "a line cannot have a line end in it (`framing = \"length_prefixed\"` can); \
                         the row is {}",
                        shown(batch, row)
                    );
                    let what = format!("to {}", self.plan.server);
                    return Err(SinkError::new(&self.node, what, cause, Fault::FATAL_ROW));
                }
                Framing::Newline => {
                    self.unsent.extend_from_slice(text);
                    self.unsent.push(b'\n');
                }
            }
        }
        match self.unsent.len() >= SEND_BYTES {
            true => self.send(),
            false => Ok(()),
        }
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        self.send()
    }

    fn barrier(&mut self, _: CheckpointId) -> Result<SinkSnapshot, SinkError> {
        self.confirm()?;
        Ok(SinkSnapshot::default())
    }

    fn finish(&mut self, _: Ending) -> Result<(), SinkError> {
        self.confirm()
    }
}
