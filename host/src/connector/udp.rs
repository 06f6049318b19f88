//! The source `udp`: rows in datagrams.

/// Counts datagrams that the system has dropped.
mod drops;
/// Where datagrams come, and what they have.
mod endpoint;
/// Listens, and cuts datagrams into rows.
mod input;

use serde_json::json;
use toml::Spanned;

use self::endpoint::{DatagramFraming, Endpoint};
use self::input::UdpInput;
use crate::config::column::DeclaredColumn;
use crate::config::diagnostics::Diagnostics;
use crate::config::format::{FormatKind, Formats, TEXT, read_rows};
use crate::config::reader::Table;
use crate::connector::{Description, Planning, listen};
use crate::format::{Format, RowFormat};
use crate::source::{
    Pending, SourceConnector, SourceContext, SourceInput, SourceKind, SourceSettings,
};

pub const KIND: SourceKind = SourceKind { name: "udp", read };

#[derive(Debug)]
struct UdpSourceSettings {
    columns: Vec<DeclaredColumn>,
    endpoint: Endpoint,
}

struct UdpSource(Endpoint);

/// Rows come without a header.
const FORMATS: Formats = Formats {
    has_header: false,
    ..TEXT
};

/// Some systems give 200 KiB, which a hundred long datagrams fill.
const RECEIVE_BUFFER: u64 = 4 << 20;

fn read(table: &mut Table<'_>, mistakes: &mut Diagnostics) -> Option<Box<dyn SourceSettings>> {
    let listen = table
        .required("listen", listen::WANTED, mistakes)
        .and_then(|value| listen::read(&value, mistakes));
    let framings = &[
        ("newline", DatagramFraming::Newline),
        ("datagram", DatagramFraming::Datagram),
    ];
    let framing = table.optional("framing");
    let framing = framing.map(|value| value.choice(framings, mistakes));
    let receive_buffer = match table.optional("receive_buffer") {
        Some(value) => value.bytes(4 << 10..=1 << 30, mistakes),
        None => Some(RECEIVE_BUFFER),
    };
    let rows = read_rows(table, Some(FormatKind::Json), &FORMATS, mistakes)?;
    // RFC 5426: a datagram is a message, which may have line ends in it.
    let implied = match rows.format.format {
        Format::Syslog(_) => DatagramFraming::Datagram,
        _ => DatagramFraming::Newline,
    };
    Some(Box::new(UdpSourceSettings {
        columns: rows.columns,
        endpoint: Endpoint {
            listen: listen.map(Spanned::into_inner)?,
            framing: match framing {
                Some(chosen) => chosen?.into_inner(),
                None => implied,
            },
            format: rows.format,
            receive_buffer: usize::try_from(receive_buffer?).unwrap_or(usize::MAX),
        },
    }))
}

impl SourceSettings for UdpSourceSettings {
    fn columns(&self) -> &[DeclaredColumn] {
        &self.columns
    }

    fn plan(&self, _: &mut Planning<'_>) -> Option<Box<dyn SourceConnector>> {
        Some(Box::new(UdpSource(self.endpoint.clone())))
    }
}

impl SourceConnector for UdpSource {
    fn describe(&self) -> Description {
        let rows = match self.0.framing {
            DatagramFraming::Newline => "a row each line of a datagram",
            DatagramFraming::Datagram => "a row each datagram",
        };
        Description {
            connector: KIND.name,
            format: Some(self.0.format.format.name()),
            lines: vec![
                format!("listens on {}, {rows}", self.0.listen),
                "at most once: datagrams are lost that come while nobody listens, or faster than \
                 they are read"
                    .to_owned(),
            ],
            settings: json!({
                "listen": self.0.listen,
                "receive_buffer": self.0.receive_buffer,
            }),
            ..Description::default()
        }
    }

    /// One: the socket. Its name is known once it listens.
    fn partitions(&self) -> Option<usize> {
        None
    }

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
        self.0.format.clone()
    }

    fn open<'a>(&'a self, context: &'a SourceContext) -> Pending<'a, Box<dyn SourceInput>> {
        Box::pin(async move {
            let input = UdpInput::open(&self.0, context).await?;
            Ok(Box::new(input) as Box<dyn SourceInput>)
        })
    }
}
