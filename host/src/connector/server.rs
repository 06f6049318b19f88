//! What connectors of servers share: how a server is called, and its password; and where rows
//! are written within transactions of the server's own, how earlier runs are fenced by an
//! epoch, and which rows wait for a commit; and how long it takes until a lost connection is
//! made again.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::blame::Fault;
use crate::checkpoint::transaction::TransactionError;
use crate::element::CheckpointId;
use crate::sink::CommitContext;

/// An address, or the folder of the server's socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    pub host: String,
    pub port: u16,
}

impl Server {
    /// Reads `host`, `host:port`, `[::1]:port`, or the folder of a socket.
    pub fn parse(text: &str, default_port: u16) -> Option<Server> {
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !port.contains(']') => (host, port.parse().ok()?),
            _ => (text, default_port),
        };
        let host = match host.strip_prefix('[') {
            Some(rest) => rest.strip_suffix(']')?,
            None => host,
        };
        let is_good = !host.is_empty()
            && !host.contains([' ', '@', '?', '\0'])
            && (host.starts_with('/') || !host.contains('/'));
        is_good.then(|| Server {
            host: host.to_owned(),
            port,
        })
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// It is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(pub String);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// The connection of a pipeline's transactions, in which each run has an epoch of its own:
/// the next run raises it.
pub struct Fenced<S> {
    pub pipeline: String,
    /// The server, as messages call it.
    place: String,
    open: Mutex<Option<Arc<OpenTransaction<S>>>>,
}

/// A connection of a run that has fenced any earlier one.
pub struct OpenTransaction<S> {
    pub session: Arc<S>,
    pub epoch: i64,
}

impl<S> Fenced<S> {
    pub fn new(pipeline: &CommitContext<'_>, place: &impl fmt::Display) -> Self {
        Fenced {
            pipeline: pipeline.name.to_owned(),
            place: place.to_string(),
            open: Mutex::new(None),
        }
    }

    /// The connection whose transaction has the rows.
    pub fn session(&self) -> Result<Arc<S>, TransactionError> {
        Ok(self.current()?.session.clone())
    }

    pub fn current(&self) -> Result<Arc<OpenTransaction<S>>, TransactionError> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.clone().ok_or_else(|| TransactionError {
            what: format!("{}: the transaction is not open", self.who()),
            cause: "no earlier run was fenced, which is a bug in Sluicebox".to_owned(),
            fault: Fault::BUG,
        })
    }

    /// Ends the connection of this process's run before, and its open transaction.
    pub fn close(&self) {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub fn open(&self, session: S, epoch: i64) {
        let session = Arc::new(session);
        let open = Arc::new(OpenTransaction { session, epoch });
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = Some(open);
    }

    pub fn who(&self) -> String {
        format!("pipeline `{}`", self.pipeline)
    }

    pub fn failed(&self, step: &str, cause: impl Into<String>, fault: Fault) -> TransactionError {
        TransactionError {
            what: format!("{}: {step} {}", self.who(), self.place),
            cause: cause.into(),
            fault,
        }
    }

    /// Another run has raised the epoch. Trying again would fence that one.
    pub fn is_fenced(&self, step: &str) -> TransactionError {
        let cause = "another host runs this pipeline and has taken over";
        self.failed(step, cause, Fault::OUTSIDE_LASTING)
    }
}

/// Which transaction a sink's rows are in: those that come while a checkpoint is committed
/// belong to the next one.
pub struct Turn {
    /// Whether rows are in the pipeline's transaction.
    pub is_transactional: bool,
    /// The checkpoint of the last barrier, until it is committed.
    uncommitted: Option<CheckpointId>,
}

impl Turn {
    pub fn new(is_transactional: bool) -> Self {
        Turn {
            is_transactional,
            uncommitted: None,
        }
    }

    /// Whether rows have to wait for a commit.
    pub fn waits(&self) -> bool {
        self.uncommitted.is_some()
    }

    pub fn barrier(&mut self, id: CheckpointId) {
        if self.is_transactional {
            self.uncommitted = Some(id);
        }
    }

    /// Returns whether rows that have waited need not wait any more.
    pub fn committed(&mut self, id: CheckpointId) -> bool {
        self.uncommitted
            .take_if(|uncommitted| *uncommitted <= id)
            .is_some()
    }
}

/// How long to wait until a lost connection is made again: twice as long each time, less up
/// to a quarter by chance.
#[derive(Debug)]
pub struct Backoff {
    next: Duration,
}

impl Backoff {
    const FIRST: Duration = Duration::from_millis(100);
    const LONGEST: Duration = Duration::from_secs(5);

    pub fn new() -> Self {
        Backoff { next: Self::FIRST }
    }

    pub fn wait(&mut self) -> Duration {
        let wait = self.next;
        self.next = (wait * 2).min(Self::LONGEST);
        wait.mul_f64(1.0 - fastrand::f64() / 4.0)
    }

    /// The connection is there again.
    pub fn reset(&mut self) {
        self.next = Self::FIRST;
    }
}

/// How long to wait until a request is sent again: twice as long each time, from and to these
/// times, and not at the same moment as others.
pub fn delay(attempt: u32, from: Duration, to: Duration) -> Duration {
    let most = from.saturating_mul(1 << attempt.min(20)).min(to);
    most / 2 + most.mul_f64(fastrand::f64() / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_connection_is_made_again_after_longer_and_longer_times() {
        let mut backoff = Backoff::new();
        let waits = Vec::from_iter((0..10).map(|_| backoff.wait()));
        for (wait, longest) in waits
            .iter()
            .zip([100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000])
        {
            let longest = Duration::from_millis(longest);
            assert!((longest * 3 / 4..=longest).contains(wait), "{waits:?}");
        }
        backoff.reset();
        assert!(backoff.wait() <= Backoff::FIRST);
    }

    #[test]
    fn servers_have_a_host_and_perhaps_a_port() {
        let parsed = |text| Server::parse(text, 5432).map(|server| server.to_string());
        for (text, expected) in [
            ("localhost", "localhost:5432"),
            ("db.example.org:6000", "db.example.org:6000"),
            ("127.0.0.1:1", "127.0.0.1:1"),
            ("[::1]", "[::1]:5432"),
            ("[::1]:6000", "[::1]:6000"),
            ("/var/run/postgresql", "/var/run/postgresql:5432"),
            ("/tmp:6000", "/tmp:6000"),
        ] {
            assert_eq!(parsed(text).as_deref(), Some(expected), "{text}");
        }
        for text in [
            "",
            ":5432",
            "a b",
            "host:port",
            "host:99999",
            "user@host",
            "a/b",
            "[::1",
        ] {
            assert_eq!(parsed(text), None, "{text}");
        }
    }
}
