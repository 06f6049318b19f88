//! The config keys that say how a server is reached: `server`, `database`, `user`,
//! `properties`.

use std::time::Duration;

use toml::de::DeValue;

use super::{PostgresConnection, Tls};
use crate::config::diagnostics::{Diagnostics, Mistake};
use crate::config::reader::{ConfigValue, Table, to_i64};
use crate::config::secrets;
use crate::connector::server::{Password, Server};
use crate::suggest;

/// Where the server is if only its host is written.
const PORT: u16 = 5432;

/// How long it may take to connect if the config does not say.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The properties that can be set, as libpq calls them.
const PROPERTIES: [&str; 5] = [
    "password",
    "sslmode",
    "sslrootcert",
    "options",
    "connect_timeout",
];

const MODES: [(&str, Tls); 5] = [
    ("disable", Tls::Disable),
    ("prefer", Tls::Prefer),
    ("require", Tls::Require),
    ("verify-ca", Tls::VerifyCa),
    ("verify-full", Tls::VerifyFull),
];

pub fn read_connection(
    table: &mut Table<'_>,
    mistakes: &mut Diagnostics,
) -> Option<PostgresConnection> {
    let meaning = "the address of the server, such as \"127.0.0.1:5432\"";
    let servers = table
        .required("server", meaning, mistakes)
        .and_then(|value| {
            value.one_or_more(
                "an address or a list of addresses",
                mistakes,
                |value, mistakes| read_server(value, mistakes),
            )
        });
    let mut name = |key, meaning| {
        let value = table.required(key, meaning, mistakes)?;
        read_name(&value, mistakes)
    };
    let database = name("database", "the name of the database");
    let user = name("user", "the user who writes");
    let mut connection = PostgresConnection {
        servers: Vec::new(),
        database: String::new(),
        user: String::new(),
        password: None,
        tls: Tls::Prefer,
        trusted: None,
        options: None,
        connect_timeout: CONNECT_TIMEOUT,
    };
    if let Some(value) = table.optional("properties") {
        read_properties(&value, &mut connection, mistakes);
    }
    connection.servers = servers?;
    connection.database = database?;
    connection.user = user?;
    if connection.servers.is_empty() {
        mistakes.push(
            Mistake::new(format!("{} names no server", table.owner()))
                .at(table.place(), "")
                .help("write the address of one, such as \"127.0.0.1:5432\""),
        );
        return None;
    }
    Some(connection)
}

/// Reads `host`, `host:port`, `[::1]:port`, or the folder of a socket.
fn read_server(value: &ConfigValue<'_>, mistakes: &mut Diagnostics) -> Option<Server> {
    let text = value.text("the address of the server, in quotes", mistakes)?;
    let server = Server::parse(text.get_ref(), PORT);
    if server.is_none() {
        mistakes.push(
            Mistake::new(format!("{} is not the address of a server", value.what()))
                .at(text.span(), "")
                .help(
                    "write a host and a port, such as \"127.0.0.1:5432\", or the folder of its \
                     socket, such as \"/var/run/postgresql\"",
                ),
        );
    }
    server
}

/// Reads a name of something in the server.
pub fn read_name(value: &ConfigValue<'_>, mistakes: &mut Diagnostics) -> Option<String> {
    let text = value.text("a name, in quotes", mistakes)?;
    if is_name(text.get_ref()) {
        return Some(text.into_inner());
    }
    mistakes.push(
        Mistake::new(format!("{} cannot be a name in PostgreSQL", value.what()))
            .at(text.span(), "")
            .help("names have 1 to 63 bytes"),
    );
    None
}

/// PostgreSQL cuts longer names, so that two could be one.
pub fn is_name(text: &str) -> bool {
    (1..=63).contains(&text.len()) && !text.contains('\0')
}

fn read_properties(
    value: &ConfigValue<'_>,
    connection: &mut PostgresConnection,
    mistakes: &mut Diagnostics,
) {
    let Some(table) = value.table(mistakes) else {
        return;
    };
    for (name, value) in table.into_entries() {
        let text = match value.raw() {
            DeValue::String(text) => text.to_string(),
            DeValue::Integer(integer) => match to_i64(integer) {
                Some(integer) => integer.to_string(),
                None => String::new(),
            },
            DeValue::Table(_) => match secrets::read_outside(&value, mistakes) {
                Some(text) => text,
                None => continue,
            },
            _ => {
                value.refuse(
                    "a text, { env = \"NAME\" }, { file = \"path\" } or a number",
                    mistakes,
                );
                continue;
            }
        };
        let mut refuse = |why: String, help: String| {
            mistakes.push(Mistake::new(why).at(name.span(), "").help(help));
        };
        match name.get_ref().as_str() {
            "password" => connection.password = Some(Password(text)),
            "options" => connection.options = Some(text),
            "sslrootcert" => connection.trusted = Some(text.into()),
            "sslmode" => match MODES.iter().find(|(mode, _)| *mode == text) {
                Some((_, tls)) => connection.tls = *tls,
                None => {
                    let modes = MODES.map(|(mode, _)| mode);
                    refuse(
                        format!("{} is none of its choices", value.what()),
                        format!("the choices are: {}", suggest::listed(&modes)),
                    );
                }
            },
            "connect_timeout" => match text.parse::<u64>() {
                Ok(seconds @ 1..=3600) => {
                    connection.connect_timeout = Duration::from_secs(seconds);
                }
                _ => refuse(
                    format!("{} is not a number of seconds", value.what()),
                    "write a whole number from 1 to 3600".to_owned(),
                ),
            },
            other => refuse(
                format!("{} is not known", value.what()),
                suggest::help(other, "properties", PROPERTIES),
            ),
        }
    }
}
