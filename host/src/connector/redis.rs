//! Redis: reads streams and channels, and writes keys, streams and channels, within
//! transactions too. Here is what they share: how a server is reached, and what its errors
//! mean.

/// Listens to channels.
mod channel;
/// What becomes of a row: the commands for it.
mod command;
/// Entries of streams, and their ids.
mod entry;
/// The config keys that say how a server is reached.
mod keys;
/// Collects messages, to decode them together.
mod messages;
/// Reads entries on a thread of its own, through lost connections.
mod reading;
/// The sink `redis`.
pub mod sink;
/// The source `redis`.
pub mod source;
/// Reads streams, each from a position.
mod stream;
/// Rows and the checkpoint's number committed together.
pub mod transaction;

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use redis::{
    Client, Cmd, Connection, ConnectionAddr, ErrorKind, IntoConnectionInfo, RedisConnectionInfo,
    RedisError, RedisResult, ServerError, Value,
};

use super::server::{Password, Server};
use crate::blame::Fault;
use crate::offload::blocking;

/// How long it may take to connect.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// How long an answer may take; a server that executes a large transaction answers nobody
/// meanwhile.
const ANSWER_MAX: Duration = Duration::from_secs(60);

/// How a server is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisConnection {
    pub server: Server,
    pub database: i64,
    pub user: Option<String>,
    pub password: Option<Password>,
    /// Whether the connection is encrypted, and the server's certificate verified.
    pub tls: bool,
}

/// "127.0.0.1:6379, database 0".
impl fmt::Display for RedisConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, database {}", self.server, self.database)
    }
}

/// Why the server has not done what it was asked for.
#[derive(Clone, Debug)]
pub struct Failure {
    pub cause: String,
    pub fault: Fault,
}

impl Failure {
    fn new(cause: impl Into<String>, fault: Fault) -> Self {
        Failure {
            cause: cause.into(),
            fault,
        }
    }
}

impl From<RedisError> for Failure {
    fn from(error: RedisError) -> Self {
        match error.kind() {
            ErrorKind::Server(_) | ErrorKind::Extension => refusal(
                error.code().unwrap_or_default(),
                error.detail().unwrap_or_default(),
            ),
            // What the server has said is not kept.
            ErrorKind::AuthenticationFailed => refusal(
                "WRONGPASS",
                "the server does not take the user or the password",
            ),
            _ if error.is_timeout() => {
                let seconds = ANSWER_MAX.as_secs();
                let cause = format!("the server has not answered for {seconds} s");
                Failure::new(cause, Fault::OUTSIDE)
            }
            // A connection may come back, whatever has become of it.
            ErrorKind::Io => Failure::new(error.to_string(), Fault::OUTSIDE),
            _ => Failure::new(error.to_string(), Fault::OUTSIDE_LASTING),
        }
    }
}

/// Who is to blame for an error of the server, by its code, whether it can pass, and what to
/// do.
fn refusal(code: &str, details: &str) -> Failure {
    // A whole transaction is refused for the reason of one command.
    if code == "EXECABORT"
        && let Some((discarded, reason)) = details.split_once("because of: ")
    {
        let (code, details) = reason.split_once(' ').unwrap_or((reason, ""));
        let Failure { cause, fault } = refusal(code, details);
        return Failure::new(format!("EXECABORT {discarded}because of: {cause}"), fault);
    }
    let fault = match code {
        "OOM" | "LOADING" | "BUSY" | "READONLY" | "MASTERDOWN" | "MISCONF" | "NOREPLICAS"
        | "TRYAGAIN" | "CLUSTERDOWN" | "UNBLOCKED" => Fault::OUTSIDE,
        "ERR" if details.contains("max number of clients") => Fault::OUTSIDE,
        _ => Fault::OUTSIDE_LASTING,
    };
    let help = match code {
        "WRONGPASS" | "NOAUTH" => "; correct `user`, or the password in `properties`",
        "NOPERM" => "; allow this user the command and the keys (ACL SETUSER)",
        "OOM" => "; raise the server's `maxmemory`",
        "MISCONF" => "; make room where the server keeps its data",
        "WRONGTYPE" => "; delete that key, or give the sink another `key`",
        "MOVED" | "ASK" | "CROSSSLOT" => "; a cluster is not supported, only one server",
        _ => "",
    };
    let code = match details.starts_with(code) {
        true => String::new(),
        false => format!("{code} "),
    };
    Failure::new(format!("{code}{details}{help}"), fault)
}

/// The same of an answer.
fn refused(error: &ServerError) -> Failure {
    refusal(error.code(), error.details().unwrap_or_default())
}

/// A connection that several sinks may use, one after the other.
pub struct Session {
    connection: Mutex<Connection>,
}

impl Session {
    pub fn open(to: &RedisConnection) -> Result<Session, Failure> {
        let connection = blocking(|| connect(to))?;
        let session = Session {
            connection: Mutex::new(connection),
        };
        // Says at once what a password would be needed for.
        session.ask(&[b"PING"])?;
        Ok(session)
    }

    pub fn into_connection(self) -> Connection {
        let connection = self.connection.into_inner();
        connection.unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends commands, and returns the answer to each.
    pub fn run(&self, commands: &Commands) -> Result<Vec<Value>, Failure> {
        blocking(|| {
            let connection = self.connection.lock();
            let mut connection = connection.unwrap_or_else(PoisonError::into_inner);
            // The server keeps its answers until they are read.
            connection.send_packed_command(&commands.packed)?;
            let answers = (0..commands.count).map(|_| connection.recv_response());
            Ok(answers.collect::<RedisResult<_>>()?)
        })
    }

    /// Sends one command.
    pub fn ask(&self, arguments: &[&[u8]]) -> Result<Value, Failure> {
        let mut commands = Commands::default();
        commands.push(arguments);
        checked(self.run(&commands)?.pop().unwrap_or(Value::Nil))
    }
}

fn connect(to: &RedisConnection) -> RedisResult<Connection> {
    let Server { host, port } = to.server.clone();
    let address = match to.tls {
        true => ConnectionAddr::TcpTls {
            host,
            port,
            insecure: false,
            tls_params: None,
        },
        false => ConnectionAddr::Tcp(host, port),
    };
    // By this name, the server's list of clients has it.
    let mut settings = RedisConnectionInfo::default()
        .set_db(to.database)
        .set_lib_name("sluicebox", env!("CARGO_PKG_VERSION"));
    if let Some(user) = &to.user {
        settings = settings.set_username(user);
    }
    if let Some(Password(password)) = &to.password {
        settings = settings.set_password(password);
    }
    let info = address.into_connection_info()?.set_redis_settings(settings);
    let connection = Client::open(info)?.get_connection_with_timeout(CONNECT_MAX)?;
    connection.set_read_timeout(Some(ANSWER_MAX))?;
    connection.set_write_timeout(Some(ANSWER_MAX))?;
    Ok(connection)
}

/// The answer, unless it is an error.
fn checked(answer: Value) -> Result<Value, Failure> {
    match answer {
        Value::ServerError(error) => Err(refused(&error)),
        answer => Ok(answer),
    }
}

/// Commands as the server reads them.
#[derive(Clone, Debug, Default)]
pub struct Commands {
    packed: Vec<u8>,
    count: usize,
}

impl Commands {
    pub fn push(&mut self, arguments: &[&[u8]]) {
        let mut command = Cmd::new();
        for argument in arguments {
            command.arg(argument);
        }
        command.write_packed_command(&mut self.packed);
        self.count += 1;
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub fn bytes(&self) -> usize {
        self.packed.len()
    }

    pub fn clear(&mut self) {
        self.packed.clear();
        self.count = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::refusal;

    #[test]
    fn a_transaction_is_refused_as_its_command_is() {
        let full = "OOM command not allowed when used memory > 'maxmemory'.";
        let discarded = format!("Transaction discarded because of: {full}");
        let failure = refusal("EXECABORT", &discarded);
        assert_eq!(
            failure.cause,
            format!("EXECABORT {discarded}; raise the server's `maxmemory`")
        );
        assert!(failure.fault.can_pass);
        let discarded = "Transaction discarded because of previous errors.";
        assert!(!refusal("EXECABORT", discarded).fault.can_pass);
    }
}
