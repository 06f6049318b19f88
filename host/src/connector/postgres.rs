//! PostgreSQL: reads tables, and writes them, within transactions too. Here is what sources,
//! sinks and their transaction share: how a server is reached, and what its errors mean.

/// Has the server read rows.
mod copying;
/// Rows as the text that `COPY` reads.
mod encode;
/// Reads a table by a column that grows.
mod growing;
/// The config keys that say how a server is reached.
mod keys;
/// Reads the changes of a table from the server's log.
mod log;
/// Where to go on.
mod place;
/// Rows that are read on threads of the network, through lost connections.
mod reading;
/// A connection, and waiting for its answers.
mod session;
/// The sink `postgres`.
pub mod sink;
/// Which transactions a copy of a table has seen.
mod snapshot;
/// The source `postgres`.
pub mod source;
/// A table: its columns, whether rows fit into them, and the statement that makes it.
mod table;
/// A table or a query that is read, and how.
mod table_source;
/// Values of the server's texts as JSON.
mod texts;
/// Rows and the checkpoint's number committed together.
pub mod transaction;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio_postgres::Error;
use tokio_postgres::error::{DbError, SqlState};

use super::server::{Password, Server};
use crate::blame::{Blame, Fault, causes};

/// How a server is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresConnection {
    /// Where it may be; the first that takes writes is used.
    pub servers: Vec<Server>,
    pub database: String,
    pub user: String,
    pub password: Option<Password>,
    pub tls: Tls,
    /// The certificates that are trusted instead of the system's.
    pub trusted: Option<PathBuf>,
    /// Options of the server for this connection, as `-c work_mem=64MB`.
    pub options: Option<String>,
    pub connect_timeout: Duration,
}

/// How a connection is encrypted, in libpq's words (`sslmode`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    Disable,
    /// If the server can, whoever it is.
    Prefer,
    /// Whoever the server is.
    Require,
    /// The server has a certificate for another name, perhaps.
    VerifyCa,
    VerifyFull,
}

/// "database `shop` on 127.0.0.1:5432".
impl fmt::Display for PostgresConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "database `{}` on {}", self.database, self.places())
    }
}

impl PostgresConnection {
    fn places(&self) -> String {
        let servers: Vec<String> = self.servers.iter().map(Server::to_string).collect();
        servers.join(", ")
    }
}

/// Why the server has not done what it was asked for.
#[derive(Clone, Debug)]
pub struct Failure {
    pub cause: String,
    pub fault: Fault,
    /// What the server says by `SQLSTATE`, if it has said anything.
    pub code: Option<SqlState>,
}

impl Failure {
    pub fn new(cause: impl Into<String>, fault: Fault) -> Self {
        Failure {
            cause: cause.into(),
            fault,
            code: None,
        }
    }

    /// Of a commit, which does not tell which row has done it.
    fn at_commit(mut self) -> Self {
        if self.fault.blame == Blame::Row {
            self.cause.push_str(
                "; the constraint is DEFERRED, so that the server looks at all rows of a \
                 checkpoint together, and tells none from the others: ALTER it to NOT DEFERRABLE, \
                 and the `on_error` of the sink decides about each row",
            );
        }
        self
    }

    /// An earlier statement of the transaction has failed, which says why.
    pub fn is_echo(&self) -> bool {
        self.code == Some(SqlState::IN_FAILED_SQL_TRANSACTION)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error.as_db_error() {
            Some(said) => Failure {
                cause: explain(said),
                fault: fault_of(said.code()),
                code: Some(said.code().clone()),
            },
            None => Failure::new(explained(&error), fault_without_code(&error)),
        }
    }
}

/// An error with all that led to it.
fn explained(error: &Error) -> String {
    let mut text = error.to_string();
    for cause in causes(error) {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// The server was not reached, or has not answered.
fn fault_without_code(error: &Error) -> Fault {
    let is_lost = |cause: &(dyn std::error::Error + 'static)| {
        // OpenSSL has its own of a connection that ends in the middle of a handshake.
        cause.is::<io::Error>() || cause.to_string().to_lowercase().contains("unexpected eof")
    };
    if causes(error).any(is_lost) {
        return Fault::OUTSIDE;
    }
    // The kinds of errors have no other names.
    let text = error.to_string();
    let lasting = [
        "error performing TLS handshake",
        "authentication error",
        "invalid configuration",
    ];
    match lasting.iter().any(|kind| text.starts_with(kind)) {
        true => Fault::OUTSIDE_LASTING,
        false => Fault::OUTSIDE,
    }
}

/// What the server says, with the row or statement that it is about, and what to do.
fn explain(said: &DbError) -> String {
    let mut text = said.message().to_owned();
    let context = said.where_().and_then(|context| context.lines().next());
    for more in [said.detail(), context, said.hint()].into_iter().flatten() {
        text.push_str("; ");
        text.push_str(more.trim_end_matches('.'));
    }
    text.push_str(&format!(" (SQLSTATE {})", said.code().code()));
    text.push_str(match *said.code() {
        SqlState::INVALID_PASSWORD | SqlState::INVALID_AUTHORIZATION_SPECIFICATION => {
            "; correct `user` or the password in `properties`, or allow this user in the server's \
             pg_hba.conf"
        }
        SqlState::INVALID_CATALOG_NAME => "; create the database, or correct `database`",
        SqlState::UNDEFINED_TABLE => {
            "; create the table (`sluicebox check --ddl` prints those of sinks), or correct `table`"
        }
        SqlState::UNDEFINED_COLUMN => "; correct `fields` or `names`",
        SqlState::DISK_FULL => "; make room where the server keeps its data",
        SqlState::TOO_MANY_CONNECTIONS => "; raise the server's `max_connections`, or end others",
        _ => "",
    });
    text
}

/// Who is to blame, by the classes of SQLSTATE, and whether it can pass.
fn fault_of(code: &SqlState) -> Fault {
    match code.code() {
        // Another transaction was in the way, or another server takes writes now.
        "25006" | "25P02" | "25P03" | "25P04" => Fault::OUTSIDE,
        code => match code.get(..2).unwrap_or_default() {
            // Of a value, of a constraint that it breaks, of a limit that it exceeds.
            "21" | "22" | "23" | "44" | "54" => Fault::FATAL_ROW,
            // Of what a trigger or a function of the user's raises.
            "P0" | "38" | "39" => Fault::FATAL_ROW,
            // Lost connections, deadlocks, full disks, shutdowns, errors of the disk.
            "08" | "40" | "53" | "55" | "57" | "58" | "XX" => Fault::OUTSIDE,
            // Wrong names, privileges, passwords, versions.
            _ => Fault::OUTSIDE_LASTING,
        },
    }
}

/// The text of a value as the log has it, too. A cast to text may be another: of `boolean`,
/// `char(n)` and `inet` it is.
fn shown(value: &str) -> String {
    format!("CASE WHEN {value} IS DISTINCT FROM NULL THEN format('%s', {value}) END")
}

/// A name as SQL quotes it.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
