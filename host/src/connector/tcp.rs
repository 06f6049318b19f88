//! TCP: rows that clients send, and rows that are sent to a server. Here is the source.

/// Cuts a connection's bytes into rows.
mod frames;
/// Listens, and reads connections.
mod input;
/// A connection to a server, encrypted or not.
mod outgoing;
/// The sink `tcp`.
pub mod sink;

use serde_json::json;

pub use self::frames::Framing;
use self::input::TcpInput;
use crate::config::column::DeclaredColumn;
use crate::config::diagnostics::Diagnostics;
use crate::config::format::{FormatKind, Formats, TEXT, read_rows};
use crate::config::reader::Table;
use crate::connector::{Description, Planning, listen};
use crate::format::RowFormat;
use crate::source::{
    Pending, SourceConnector, SourceContext, SourceInput, SourceKind, SourceSettings,
};

pub const KIND: SourceKind = SourceKind { name: "tcp", read };

#[derive(Debug)]
struct TcpSourceSettings {
    columns: Vec<DeclaredColumn>,
    source: TcpSource,
}

/// The address to listen on, and what clients send.
#[derive(Clone, Debug)]
pub struct TcpSource {
    pub listen: String,
    pub framing: Framing,
    pub format: RowFormat,
    /// The input ends when this many connections have been closed.
    pub connections: Option<u64>,
}

/// Rows come without a header.
const FORMATS: Formats = Formats {
    has_header: false,
    ..TEXT
};

fn read(table: &mut Table<'_>, mistakes: &mut Diagnostics) -> Option<Box<dyn SourceSettings>> {
    let listen = table
        .required("listen", listen::WANTED, mistakes)
        .and_then(|value| listen::read(&value, mistakes));
    let framing = Framing::read(table, mistakes);
    let connections = table
        .optional("connections")
        .and_then(|value| value.integer(1..=i64::MAX, mistakes));
    let rows = read_rows(table, Some(FormatKind::Json), &FORMATS, mistakes)?;
    Some(Box::new(TcpSourceSettings {
        columns: rows.columns,
        source: TcpSource {
            listen: listen?.into_inner(),
            framing: framing?,
            connections: connections.map(|n| n.into_inner() as u64),
            format: rows.format,
        },
    }))
}

impl SourceSettings for TcpSourceSettings {
    fn columns(&self) -> &[DeclaredColumn] {
        &self.columns
    }

    fn plan(&self, _: &mut Planning<'_>) -> Option<Box<dyn SourceConnector>> {
        Some(Box::new(self.source.clone()))
    }
}

impl SourceConnector for TcpSource {
    fn describe(&self) -> Description {
        let framing = self.framing.name();
        let until = match self.connections {
            Some(1) => ", until 1 connection has ended".to_owned(),
            Some(count) => format!(", until {count} connections have ended"),
            None => String::new(),
        };
        Description {
            connector: KIND.name,
            format: Some(self.format.format.name()),
            lines: vec![format!("listens on {}, {framing}{until}", self.listen)],
            settings: json!({ "listen": self.listen, "connections": self.connections }),
            ..Description::default()
        }
    }

    /// One: the listener. Its name is known once it listens.
    fn partitions(&self) -> Option<usize> {
        None
    }

    /// What was sent cannot be sent again.
    fn is_replayable(&self) -> bool {
        false
    }

    fn may_be_quiet(&self) -> bool {
        true
    }

    fn can_bootstrap(&self) -> bool {
        false
    }

    fn row_format(&self) -> RowFormat {
        self.format.clone()
    }

    fn open<'a>(&'a self, context: &'a SourceContext) -> Pending<'a, Box<dyn SourceInput>> {
        Box::pin(async move {
            let (framing, connections) = (self.framing, self.connections);
            let format = &self.format;
            let input = TcpInput::open(&self.listen, framing, connections, format, context);
            Ok(Box::new(input.await?) as Box<dyn SourceInput>)
        })
    }
}
