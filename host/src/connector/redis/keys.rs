//! The config keys that say how a server is reached: `server`, `database`, `user`, `tls`,
//! `properties`.

use super::RedisConnection;
use crate::config::diagnostics::{Diagnostics, Mistake};
use crate::config::reader::{ConfigValue, Table};
use crate::config::secrets;
use crate::connector::server::{Password, Server};
use crate::suggest;

/// Where the server is if only its host is written.
const PORT: u16 = 6379;

pub fn read_connection(
    table: &mut Table<'_>,
    mistakes: &mut Diagnostics,
) -> Option<RedisConnection> {
    let meaning = "the address of the server, such as \"127.0.0.1:6379\"";
    let server = table
        .required("server", meaning, mistakes)
        .and_then(|value| read_server(&value, mistakes));
    let database = match table.optional("database") {
        Some(value) => value
            .integer(0..=1_000_000, mistakes)
            .map(toml::Spanned::into_inner),
        None => Some(0),
    };
    let user = table
        .optional("user")
        .and_then(|value| value.text("the name of a user, in quotes", mistakes));
    let tls = table
        .optional("tls")
        .and_then(|value| value.boolean(mistakes));
    let password = table
        .optional("properties")
        .and_then(|value| read_password(&value, mistakes));
    Some(RedisConnection {
        server: server?,
        database: database?,
        user: user.map(toml::Spanned::into_inner),
        password,
        tls: tls.unwrap_or(false),
    })
}

/// Reads `host`, `host:port` or `[::1]:port`.
fn read_server(value: &ConfigValue<'_>, mistakes: &mut Diagnostics) -> Option<Server> {
    let text = value.text("the address of the server, in quotes", mistakes)?;
    let server = Server::parse(text.get_ref(), PORT);
    let server = server.filter(|server| !server.host.contains('/'));
    if server.is_none() {
        mistakes.push(
            Mistake::new(format!("{} is not the address of a server", value.what()))
                .at(text.span(), "")
                .help("write a host and a port, such as \"127.0.0.1:6379\""),
        );
    }
    server
}

fn read_password(value: &ConfigValue<'_>, mistakes: &mut Diagnostics) -> Option<Password> {
    let mut password = None;
    for (name, value) in value.table(mistakes)?.into_entries() {
        if name.get_ref() != "password" {
            mistakes.push(
                Mistake::new(format!("{} is not known", value.what()))
                    .at(name.span(), "")
                    .help(suggest::help(name.get_ref(), "properties", ["password"])),
            );
            continue;
        }
        password = secrets::read(&value, mistakes).map(Password);
    }
    password
}
