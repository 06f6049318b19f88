//! Commits by one SQL transaction: the rows of all PostgreSQL sinks of a pipeline become
//! visible together with the checkpoint's number, or never.
//!
//! The number is in the table `sluicebox_checkpoints`, in the pipeline's row, so the last
//! one that can be read is the last committed checkpoint. The row also has the epoch of the
//! run: the next run raises it, and a transaction of another epoch commits nothing. An
//! advisory lock, which each transaction holds, tells the next run which connection an
//! earlier one has left open, so that its rows do not stay locked
//! ([why](../../../../docs/decisions/0026-postgresql.md)).

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error};
use twox_hash::XxHash3_64;

use super::session::Session;
use super::{Failure, PostgresConnection};
use crate::blame::Fault;
use crate::checkpoint::crash::{self, Place};
use crate::checkpoint::manifest::Manifest;
use crate::checkpoint::transaction::{Participant, TransactionError};
use crate::connector::server::Fenced;
use crate::element::CheckpointId;
use crate::offload::blocking;
use crate::sink::CommitContext;
use crate::stop::Stop;

/// Makes the table of committed checkpoints.
pub const TABLE_DDL: &str = "CREATE TABLE IF NOT EXISTS sluicebox_checkpoints (
    pipeline text PRIMARY KEY,
    epoch bigint NOT NULL,
    checkpoint bigint,
    committed_at timestamptz
);";

/// How long an earlier run's transaction may take to end once its connection is ended.
const END_MAX: Duration = Duration::from_secs(60);

/// Ends the connections that hold the advisory lock of a pipeline ($1 and $2: its halves).
const END_OTHERS: &str = "
    SELECT pg_terminate_backend(l.pid)
    FROM pg_locks l JOIN pg_database d ON d.oid = l.database AND d.datname = current_database()
    WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND l.granted
      AND l.classid::bigint = $1 AND l.objid::bigint = $2 AND l.pid <> pg_backend_pid()";

pub struct PostgresTransaction {
    fenced: Fenced<Session>,
    connection: PostgresConnection,
}

impl PostgresTransaction {
    pub fn new(connection: &PostgresConnection, pipeline: &CommitContext<'_>) -> Self {
        PostgresTransaction {
            fenced: Fenced::new(pipeline, connection),
            connection: connection.clone(),
        }
    }

    /// The connection whose transaction has the rows.
    pub fn session(&self) -> Result<Arc<Session>, TransactionError> {
        self.fenced.session()
    }

    fn failed(&self, step: &str, failure: Failure) -> TransactionError {
        self.fenced.failed(step, failure.cause, failure.fault)
    }

    /// The halves of the advisory lock's number, and the number.
    fn lock(&self) -> (i64, i64, i64) {
        let number = XxHash3_64::oneshot(format!("sluicebox {}", self.fenced.pipeline).as_bytes());
        let (high, low) = ((number >> 32) as i64, (number & 0xFFFF_FFFF) as i64);
        (high, low, number.cast_signed())
    }

    /// Ends the transactions of earlier runs. One of another user cannot be ended, and is
    /// waited for.
    fn end_others(&self, session: &Session) -> Result<(), Failure> {
        let (high, low, _) = self.lock();
        let ended = session.run(move |client| async move {
            let ended = client.query(END_OTHERS, &[&high, &low]).await?;
            Ok(ended.len())
        });
        match ended {
            Ok(0) => Ok(()),
            Ok(_) => {
                tracing::info!(
                    "{}: ended the connection of an earlier run to {}",
                    self.fenced.who(),
                    self.connection
                );
                Ok(())
            }
            Err(failure) if failure.code == Some(SqlState::INSUFFICIENT_PRIVILEGE) => Ok(()),
            Err(failure) => Err(failure),
        }
    }

    /// Raises the epoch, and reads what was committed under those before.
    fn raise(&self, session: &Session) -> Result<(i64, Option<i64>), Failure> {
        let until = Instant::now() + END_MAX;
        loop {
            self.end_others(session)?;
            let pipeline = self.fenced.pipeline.clone();
            let raised = session.run(move |client| async move { raise(&client, &pipeline).await });
            match raised {
                // An earlier run is in the middle of a commit.
                Err(failure)
                    if failure.code == Some(SqlState::LOCK_NOT_AVAILABLE)
                        && Instant::now() < until => {}
                raised => return raised,
            }
        }
    }
}

/// The table is not made where it is there: that needs fewer privileges.
async fn raise(client: &Client, pipeline: &str) -> Result<(i64, Option<i64>), Error> {
    let found = "SELECT to_regclass('sluicebox_checkpoints') IS NOT NULL";
    if !client.query_one(found, &[]).await?.get::<_, bool>(0) {
        match client.batch_execute(TABLE_DDL).await {
            // Another pipeline makes it at the same time.
            Err(error) if error.code() == Some(&SqlState::UNIQUE_VIOLATION) => {}
            made => made?,
        }
    }
    client.batch_execute("SET lock_timeout = '2s'").await?;
    let raised = client
        .query_one(
            "INSERT INTO sluicebox_checkpoints AS known (pipeline, epoch) VALUES ($1, 1) \
             ON CONFLICT (pipeline) DO UPDATE SET epoch = known.epoch + 1 \
             RETURNING epoch, checkpoint",
            &[&pipeline],
        )
        .await;
    client.batch_execute("SET lock_timeout = 0").await?;
    let raised = raised?;
    Ok((raised.get(0), raised.get(1)))
}

impl Participant for PostgresTransaction {
    fn name(&self) -> &str {
        "postgres"
    }

    fn fence(&self, stop: &Stop) -> Result<Option<CheckpointId>, TransactionError> {
        self.fenced.close();
        let step = "cannot connect to";
        let session = Session::open(&self.fenced.who(), &self.connection, stop);
        let session = session.map_err(|failure| self.failed(step, failure))?;
        let step = "cannot read the last committed checkpoint in";
        let raised = self.raise(&session).map_err(|mut failure| {
            if failure.code == Some(SqlState::INSUFFICIENT_PRIVILEGE) {
                failure.cause.push_str(
                    "; `sluicebox check --ddl` prints the statement that makes the table \
                     sluicebox_checkpoints: somebody who may has to run it, and to GRANT SELECT, \
                     INSERT, UPDATE on it to this user",
                );
            }
            self.failed(step, failure)
        });
        let (epoch, checkpoint) = raised?;
        self.fenced.open(session, epoch);
        Ok(checkpoint.map(i64::cast_unsigned))
    }

    fn begin(&self) -> Result<(), TransactionError> {
        let step = "cannot begin a transaction in";
        let open = self.fenced.current()?;
        let (_, _, lock) = self.lock();
        let until = Instant::now() + END_MAX;
        loop {
            let pipeline = self.fenced.pipeline.clone();
            let epoch = open.epoch;
            let begun = open.session.run(move |client| async move {
                let begin = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE";
                client.batch_execute(begin).await?;
                let locked = "SELECT pg_try_advisory_xact_lock($1)";
                let is_locked: bool = client.query_one(locked, &[&lock]).await?.get(0);
                // Read behind the lock: who raises the epoch later finds the lock.
                let known = "SELECT epoch = $2 FROM sluicebox_checkpoints WHERE pipeline = $1";
                let known = client.query_opt(known, &[&pipeline, &epoch]).await?;
                let is_current = known.is_some_and(|row| row.get(0));
                if !is_locked || !is_current {
                    client.batch_execute("ROLLBACK").await?;
                }
                Ok((is_locked, is_current))
            });
            match begun.map_err(|failure| self.failed(step, failure))? {
                (_, false) => return Err(self.fenced.is_fenced(step)),
                (true, true) => return Ok(()),
                // Whoever has the lock began before this run.
                (false, true) if Instant::now() < until => {
                    let ended = self.end_others(&open.session);
                    ended.map_err(|failure| self.failed(step, failure))?;
                    blocking(|| std::thread::sleep(Duration::from_millis(50)));
                }
                (false, true) => {
                    let cause = "the transaction of an earlier run, of another user, does not end";
                    return Err(self.failed(step, Failure::new(cause, Fault::OUTSIDE)));
                }
            }
        }
    }

    /// Sinks have waited for their rows at the barrier.
    fn prepare(&self, _: CheckpointId) -> Result<(), TransactionError> {
        Ok(())
    }

    fn commit(&self, manifest: &Manifest) -> Result<(), TransactionError> {
        let step = "cannot commit the transaction in";
        let open = self.fenced.current()?;
        crash::point(Place::OffsetsBefore);
        let (pipeline, epoch) = (self.fenced.pipeline.clone(), open.epoch);
        let id = manifest.id.cast_signed();
        let noted = open.session.run(move |client| async move {
            let note = "UPDATE sluicebox_checkpoints \
                        SET checkpoint = $2, committed_at = clock_timestamp() \
                        WHERE pipeline = $1 AND epoch = $3";
            client.execute(note, &[&pipeline, &id, &epoch]).await
        });
        match noted.map_err(|failure| self.failed(step, failure))? {
            1 => {}
            _ => return Err(self.fenced.is_fenced(step)),
        }
        crash::point(Place::OffsetsAfter);
        crash::point(Place::CommitBefore);
        let committed = open
            .session
            .run(|client| async move { client.batch_execute("COMMIT").await });
        committed.map_err(|failure| self.failed(step, failure.at_commit()))?;
        crash::point(Place::CommitAfter);
        Ok(())
    }

    /// Does nothing: the fence has ended the connection with the open transaction.
    fn abort(&self) -> Result<(), TransactionError> {
        Ok(())
    }

    fn handle(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}
