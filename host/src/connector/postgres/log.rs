//! Reads the changes of a table from the server's log, as its plugin `pgoutput` tells them: by
//! plain SQL, since no client that Sluicebox uses speaks the protocol of replication.
//!
//! The source has a slot, which keeps the log from what the last committed checkpoint has, and
//! is moved on with each. What is read goes through a temporary copy of it, which moves on as
//! it is read, and goes with its connection. A place is the end of the last transaction that
//! was read whole, and how many rows of the next one were: transactions come whole, in the
//! order of their commits, so that the next connection finds the same rows again.
//!
//! The rows that are there at the start are first copied to a table of the source's own. The
//! copy has a snapshot, and transactions that it has seen are passed over in the log
//! ([why](../../../../docs/decisions/0036-postgresql-sources.md)).

/// What the server and the user's privileges have to allow.
mod allowed;
/// Up to where the log is known to have told all changes.
mod complete;
/// What the server keeps for the source: the slot, the publication, the copy.
pub mod kept;
/// Messages of `pgoutput`.
mod pgoutput;
/// The publication by which the log is told.
mod publication;
/// What changes become.
mod rows;

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use tokio::sync::watch;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::PgLsn;

use self::complete::Complete;
use self::kept::Kept;
use self::pgoutput::{Message, read as read_message};
use self::rows::{Changed, ChangedTable};
use super::Failure;
use super::place::{CopyPlace, LogPlace, Place};
use super::reading::{Ended, Event, Events, ReadRow, Reader};
use super::session::connect;
use super::snapshot::Snapshot;
use super::table_source::{Log, TableSource};
use super::texts;
use crate::blame::Fault;
use crate::checkpoint::snapshot::Position;
use crate::schema::Schema;
use crate::source::SourceContext;

/// About how many changes are asked for at a time; transactions come whole.
const CHANGES: i32 = 10_000;

/// The log is let go of, without a row, when it has grown by so many bytes.
const SILENT_BYTES: u64 = 16 << 20;

/// How long a start waits for who reads with the slot. A server notices within ten seconds that
/// a host was killed.
const PATIENCE: Duration = Duration::from_secs(20);

/// How often it is looked whether they have ended.
const LOOK: Duration = Duration::from_millis(200);

/// Reads on one connection after another.
pub struct LogReader {
    source: Arc<TableSource>,
    log: Log,
    schema: Arc<Schema>,
    who: Arc<str>,
    place: LogPlace,
    /// The position that the last committed checkpoint has.
    committed: watch::Receiver<Option<Position>>,
    is_bootstrapped: bool,
    /// Whether the copy may be there: also one that an earlier run had no time to drop.
    has_copy: bool,
    /// How far the input knows.
    told: u64,
    /// Up to where what was read has all changes.
    complete: Complete,
    /// Up to where the server was told to let go on this connection.
    let_go_of: u64,
    /// Whether an earlier connection of this reader had the slot.
    has_locked: bool,
}

impl LogReader {
    pub fn new(
        source: Arc<TableSource>,
        log: Log,
        context: &SourceContext,
        place: LogPlace,
        committed: watch::Receiver<Option<Position>>,
    ) -> Self {
        LogReader {
            source,
            log,
            schema: context.schema.clone(),
            who: context.node.clone(),
            place,
            committed,
            is_bootstrapped: false,
            has_copy: true,
            told: 0,
            complete: Complete::default(),
            let_go_of: 0,
            has_locked: false,
        }
    }
}

impl Reader for LogReader {
    async fn read(&mut self, events: &mut Events) -> Result<(), Ended> {
        let (client, _driver) = connect(&self.source.connection).await?;
        let kept = Kept::new(&self.source, &self.log);
        self.lock(&client, &kept).await?;
        if self.place.end.is_none() {
            self.source.check_privileges(&client).await?;
        }
        self.source.types(&client, &self.schema, None).await?;
        let mut table = ChangedTable::find(&client, &self.source, &self.log, &self.schema).await?;
        let copied = match self.place.end {
            None => {
                let begun = kept.begin(&client, &self.schema, table.id, &self.who);
                let (place, copied) = begun.await?;
                self.place = place;
                self.tell_place(events).await?;
                copied
            }
            Some(_) => {
                self.look(&client, &kept, table.id).await?;
                kept.copy_slot(&client).await?
            }
        };
        if let Some((row, snapshot)) = self.place.in_copy() {
            self.read_copy(&client, &kept, row, snapshot, events)
                .await?;
        }
        self.let_go_of = 0;
        loop {
            self.let_go(&client, &kept).await?;
            let found = match self.read_log(&client, &copied, &mut table, events).await {
                // In this part of the log, there is no publication of the name.
                Err(Ended::Failed(failure)) if failure.code == Some(SqlState::UNDEFINED_OBJECT) => {
                    return Err(kept.altered(&client).await.into());
                }
                found => found?,
            };
            self.look(&client, &kept, table.id).await?;
            events.flush().await?;
            if found {
                continue;
            }
            if !std::mem::replace(&mut self.is_bootstrapped, true) {
                events.tell(Event::Bootstrapped).await?;
                if self.log.is_bounded {
                    events.tell(Event::End).await?;
                }
            }
            let end = kept.end_of(&client, &copied).await?;
            if self.place.row == 0 && end > self.told + SILENT_BYTES {
                self.place = self.place.behind(end.max(self.told));
                self.tell_place(events).await?;
            }
            // What is committed ends the wait, too: after the end, that is all there is to do.
            tokio::select! {
                () = tokio::time::sleep(self.log.poll_every) => {}
                changed = self.committed.changed() => {
                    if changed.is_err() {
                        return Err(Ended::Closed);
                    }
                }
            }
        }
    }
}

impl LogReader {
    /// Waits for who reads with the slot: an earlier connection of the pipeline may take a moment
    /// to be noticed as gone.
    async fn lock(&mut self, client: &Client, kept: &Kept) -> Result<(), Failure> {
        let began = Instant::now();
        let mut has_warned = false;
        while let Some(used) = kept.lock(client).await? {
            let fault = match self.has_locked {
                // It is this reader's own, as a rule, and is waited for as the server is.
                true => Some(Fault::OUTSIDE),
                false => (began.elapsed() > PATIENCE).then_some(Fault::OUTSIDE_LASTING),
            };
            if let Some(fault) = fault {
                return Err(Failure::new(used, fault));
            }
            if !std::mem::replace(&mut has_warned, true) {
                tracing::warn!(source = %self.who, "{used}; waiting for {PATIENCE:?}");
            }
            tokio::time::sleep(LOOK).await;
        }
        self.has_locked = true;
        Ok(())
    }

    /// Looks whether the slot is there, and the publication is what it was when reading began.
    async fn look(&mut self, client: &Client, kept: &Kept, table: u32) -> Result<(), Failure> {
        let read = self.place.end.unwrap_or(0);
        kept.check(client, read).await?;
        let look = kept.look(client, table).await?;
        if self.place.published.is_none() {
            // A checkpoint of an earlier version has nothing of it.
            kept.is_published(client).await?;
            self.place.published.clone_from(&look.published);
        }
        if look.published.is_none() || look.published != self.place.published {
            return Err(kept.altered(client).await);
        }
        self.complete.looked(read, look.ended, look.next);
        Ok(())
    }

    /// Lets go of what the last committed checkpoint has, as far as no change can lack in it.
    async fn let_go(&mut self, client: &Client, kept: &Kept) -> Result<(), Failure> {
        let Some(position) = *self.committed.borrow_and_update() else {
            return Ok(());
        };
        let end = position.offset.min(self.complete.end());
        if end > self.let_go_of {
            kept.let_go(client, end).await?;
            self.let_go_of = end;
        }
        let is_copy_read = position.offset > 0 && position.rows.is_none();
        if self.has_copy && is_copy_read {
            kept.drop_copy(client).await?;
            self.has_copy = false;
        }
        Ok(())
    }

    /// Reads what is left of the copy.
    async fn read_copy(
        &mut self,
        client: &Client,
        kept: &Kept,
        mut row: u64,
        snapshot: Arc<Snapshot>,
        events: &mut Events,
    ) -> Result<(), Ended> {
        let names = self.source.columns(&self.schema);
        let rows = kept.rows_of_copy(client, &names, row).await?;
        let mut rows = pin!(rows);
        while let Some(found) = rows.try_next().await? {
            let mut values = Vec::with_capacity(self.schema.fields.len());
            for at in 0..self.schema.fields.len() {
                values.push(found.try_get::<_, Option<&str>>(at)?);
            }
            row += 1;
            self.place.copy = Some(CopyPlace {
                row: Some(row),
                snapshot: snapshot.clone(),
            });
            let payload = texts::row(&names, &self.schema.fields, values.into_iter());
            events
                .push(ReadRow {
                    payload: Ok(payload),
                    place: Place::Log(self.place.clone()),
                    change: Some((false, snapshot.taken_ms)),
                })
                .await?;
        }
        self.place.copy = Some(CopyPlace {
            row: None,
            snapshot,
        });
        self.tell_place(events).await
    }

    /// Reads what is there by way of the copied slot, which moves on. Returns whether there
    /// was anything.
    async fn read_log(
        &mut self,
        client: &Client,
        copied: &str,
        table: &mut ChangedTable,
        events: &mut Events,
    ) -> Result<bool, Ended> {
        let sql = "SELECT lsn, data FROM pg_logical_slot_get_binary_changes($1, NULL, $2, \
                   'proto_version', '1', 'publication_names', $3)";
        let publication = super::quoted(&self.log.publication);
        let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 3] =
            [&copied, &CHANGES, &publication];
        let mut messages = pin!(client.query_raw(sql, parameters).await?);
        let mut transaction = Transaction::default();
        let mut found = false;
        while let Some(message) = messages.try_next().await? {
            // Also if it was read before: more may follow.
            found = true;
            let at: PgLsn = message.try_get(0)?;
            let bytes: &[u8] = message.try_get(1)?;
            let message = read_message(bytes).ok_or_else(|| {
                Failure::new(
                    format!("the server has told a change at {at} that is none of `pgoutput`"),
                    Fault::OUTSIDE_LASTING,
                )
            })?;
            match message {
                Message::Begin {
                    commit,
                    time_ms,
                    transaction: id,
                } => {
                    let was_read = self.place.end.is_some_and(|end| commit < end);
                    let copy = self.place.copy.as_ref();
                    let is_in_copy = copy.is_some_and(|copy| copy.snapshot.has_seen(id, commit));
                    transaction = Transaction {
                        time_ms,
                        is_passed: was_read || is_in_copy,
                        to_skip: self.place.row,
                        last: None,
                    };
                }
                Message::Commit { end } => {
                    if self.place.end.is_none_or(|before| before < end) {
                        self.place = self.place.behind(end);
                        if let Some(last) = transaction.last.take() {
                            self.push(last, transaction.time_ms, events).await?;
                        }
                    }
                }
                Message::Relation(relation) => table.learn(relation)?,
                _ if transaction.is_passed => {}
                message => {
                    for row in table.rows(message)? {
                        if transaction.to_skip > 0 {
                            transaction.to_skip -= 1;
                        } else if let Some(last) = transaction.last.replace(row) {
                            self.place.row += 1;
                            self.push(last, transaction.time_ms, events).await?;
                        }
                    }
                }
            }
        }
        Ok(found)
    }

    /// Hands over a row behind which the place is.
    async fn push(&mut self, row: Changed, time_ms: i64, events: &mut Events) -> Result<(), Ended> {
        self.told = self.place.end.unwrap_or(0);
        let row = ReadRow {
            payload: row.payload,
            place: Place::Log(self.place.clone()),
            change: Some((row.is_taken_back, time_ms)),
        };
        Ok(events.push(row).await?)
    }

    /// Tells of a place without a row.
    async fn tell_place(&mut self, events: &mut Events) -> Result<(), Ended> {
        events.flush().await?;
        self.told = self.place.end.unwrap_or(0);
        let place = Place::Log(self.place.clone());
        Ok(events.tell(Event::Passed(place)).await?)
    }
}

/// A transaction that is being read.
#[derive(Default)]
struct Transaction {
    time_ms: i64,
    /// None of its rows are read: they were, or are in the copy.
    is_passed: bool,
    /// How many of its first rows were handed over on a connection before.
    to_skip: u64,
    /// The row that is not handed over yet: it may be the one that ends the transaction.
    last: Option<Changed>,
}
