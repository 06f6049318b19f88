//! What the server keeps for the source: a slot, and where it is made here a publication; and
//! for a while a copy of the rows that were there at the start.

use std::sync::Arc;

use tokio_postgres::types::PgLsn;
use tokio_postgres::{Client, RowStream};

use crate::blame::Fault;
use crate::connector::postgres::place::{CopyPlace, LogPlace};
use crate::connector::postgres::snapshot::Snapshot;
use crate::connector::postgres::table_source::{Log, TableSource};
use crate::connector::postgres::{Failure, quoted, shown};
use crate::schema::Schema;

/// The number of a row in the copy.
const ROW: &str = "\"sluicebox row\"";

pub struct Kept {
    pub(super) source: Arc<TableSource>,
    pub(super) log: Log,
}

/// What to do where the log cannot be gone on with.
pub(super) const ANEW: &str = "let go of what the checkpoint knows of this source (`--drop`), \
                               which begins anew with the rows that are there";

pub(super) fn refused(cause: String) -> Failure {
    Failure::new(cause, Fault::OUTSIDE_LASTING)
}

impl Kept {
    pub fn new(source: &Arc<TableSource>, log: &Log) -> Self {
        Kept {
            source: source.clone(),
            log: log.clone(),
        }
    }

    /// Has nobody else read with the slot while this connection lasts. Returns who does, if
    /// somebody does already.
    pub async fn lock(&self, client: &Client) -> Result<Option<String>, Failure> {
        let slot = &self.log.slot;
        let user = client
            .query_opt(
                "WITH lock AS MATERIALIZED (SELECT key, pg_try_advisory_lock(key) AS is_ours \
                     FROM hashtextextended($2, 0) AS key), \
                 used AS (SELECT active_pid AS pid FROM pg_replication_slots \
                     WHERE slot_name = $1 AND active_pid IS NOT NULL \
                   UNION SELECT l.pid FROM pg_locks l, lock \
                     WHERE NOT lock.is_ours AND l.locktype = 'advisory' AND l.granted \
                       AND l.objsubid = 1 AND (l.classid::bigint << 32) | l.objid::bigint = lock.key) \
                 SELECT u.pid, concat_ws(' ', a.usename, a.application_name, \
                     host(a.client_addr), 'since ' || date_trunc('second', a.backend_start)) \
                 FROM lock LEFT JOIN used u ON true LEFT JOIN pg_stat_activity a USING (pid) \
                 WHERE NOT lock.is_ours OR u.pid IS NOT NULL LIMIT 1",
                &[slot, &format!("sluicebox slot {slot}")],
            )
            .await?;
        Ok(user.map(|user| match user.get::<_, Option<i32>>(0) {
            Some(pid) => format!(
                "the slot `{slot}` is used by the server's process {pid} ({}). If that is another \
                 pipeline, give this one a slot of its own (`slot` of `log`); a reader that is \
                 gone is ended by SELECT pg_terminate_backend({pid})",
                user.get::<_, &str>(1)
            ),
            None => format!("the slot `{slot}` was used by another reader a moment ago"),
        }))
    }

    /// Makes all anew, as a first start does. What an earlier one has left is dropped. Returns
    /// the connection's own slot, too. What this fails with leaves nothing on the server.
    pub async fn begin(
        &self,
        client: &Client,
        schema: &Schema,
        table: u32,
        who: &str,
    ) -> Result<(LogPlace, String), Failure> {
        let is_published = self.is_published(client).await?;
        self.check_allowed(client, table, is_published).await?;
        self.drop_slot(client).await?;
        self.drop_copy(client).await?;
        if !is_published {
            client.batch_execute(&self.publication_sql()).await?;
        }
        let begun = self.make(client, schema, table, who).await;
        if begun.is_err() {
            // What fails here, too, says nothing more: the connection is lost, as a rule.
            let _ = client.batch_execute("ROLLBACK").await;
            let _ = self.drop_copy(client).await;
            if !is_published {
                let _ = self.drop_publication(client).await;
            }
        }
        begun
    }

    /// Makes a slot that goes with the connection, and the copy; and last, when all else is
    /// there, the slot that stays.
    async fn make(
        &self,
        client: &Client,
        schema: &Schema,
        table: u32,
        who: &str,
    ) -> Result<(LogPlace, String), Failure> {
        let published = self.look(client, table).await?.published;
        let slot = &self.log.slot;
        tracing::info!(
            source = %who,
            "making the slot `{slot}`, which waits for the transactions that run now"
        );
        let made = client
            .query_one(
                "SELECT slot_name::text, lsn FROM pg_create_logical_replication_slot( \
                     $1::text || '_' || pg_backend_pid()::text, 'pgoutput', true)",
                &[slot],
            )
            .await?;
        let (own, end): (String, PgLsn) = (made.get(0), made.get(1));
        let mut place = LogPlace {
            end: Some(end.into()),
            row: 0,
            copy: None,
            published,
        };
        if self.log.copies {
            place.copy = Some(CopyPlace {
                row: Some(0),
                snapshot: Arc::new(self.copy(client, schema).await?),
            });
        }
        client
            .query_one(
                "SELECT pg_copy_logical_replication_slot($1::text, $2::text, false)",
                &[&own, slot],
            )
            .await?;
        Ok((place, own))
    }

    /// Copies the rows that are there, and says what the copy has seen.
    async fn copy(&self, client: &Client, schema: &Schema) -> Result<Snapshot, Failure> {
        client
            .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
            .await?;
        let taken = client
            .query_one(
                "SELECT pg_current_snapshot()::text, \
                     (extract(epoch FROM clock_timestamp()) * 1000)::bigint",
                &[],
            )
            .await?;
        let columns = self.source.columns(schema);
        let columns: Vec<String> = columns.iter().map(|column| quoted(column)).collect();
        let columns = columns.join(", ");
        let (copy, relation) = (self.copy_name(), self.source.relation());
        client
            .batch_execute(&format!(
                "CREATE TABLE {copy} AS SELECT row_number() OVER () AS {ROW}, {columns} \
                 FROM {relation}; CREATE UNIQUE INDEX ON {copy} ({ROW}); COMMIT"
            ))
            .await?;
        let until = client
            .query_one("SELECT pg_current_wal_insert_lsn()", &[])
            .await?;
        let (text, until): (String, PgLsn) = (taken.get(0), until.get(0));
        Snapshot::parse(&text, until.into(), taken.get(1)).ok_or_else(|| {
            refused(format!(
                "the server has shown a snapshot that is none: {text}"
            ))
        })
    }

    pub(super) fn copy_name(&self) -> String {
        quoted(&format!("{}_copy", self.log.slot))
    }

    /// The rows of the copy behind so many.
    pub async fn rows_of_copy(
        &self,
        client: &Client,
        columns: &[String],
        row: u64,
    ) -> Result<RowStream, Failure> {
        let columns = columns.iter().map(|column| shown(&quoted(column)));
        let columns: Vec<String> = columns.collect();
        let sql = format!(
            "SELECT {} FROM {} WHERE {ROW} > $1 ORDER BY {ROW}",
            columns.join(", "),
            self.copy_name()
        );
        let row = i64::try_from(row).unwrap_or(i64::MAX);
        Ok(client.query_raw(&sql, [row]).await?)
    }

    /// Checks that the slot still has what comes next.
    pub async fn check(&self, client: &Client, end: u64) -> Result<(), Failure> {
        let slot = &self.log.slot;
        let found = client
            .query_opt(
                "SELECT confirmed_flush_lsn, coalesce(wal_status, '') = 'lost' \
                 FROM pg_replication_slots WHERE slot_name = $1",
                &[slot],
            )
            .await?;
        let Some(found) = found else {
            return Err(refused(format!(
                "the slot `{slot}` is gone, and with it the changes since the checkpoint: {ANEW}"
            )));
        };
        let confirmed: Option<PgLsn> = found.get(0);
        if found.get(1) {
            return Err(refused(format!(
                "the server has let go of the log that the slot `{slot}` needs \
                 (`max_slot_wal_keep_size`): {ANEW}"
            )));
        }
        match confirmed.map(u64::from) {
            Some(confirmed) if confirmed > end => Err(refused(format!(
                "the slot `{slot}` was moved on to {}, and the checkpoint has read up to {}: the \
                 changes in between are gone. Start from a later checkpoint, or {ANEW}",
                PgLsn::from(confirmed),
                PgLsn::from(end)
            ))),
            _ => Ok(()),
        }
    }

    /// Makes a copy of the slot that goes with this connection.
    pub async fn copy_slot(&self, client: &Client) -> Result<String, Failure> {
        let made = client
            .query_one(
                "SELECT slot_name::text FROM pg_copy_logical_replication_slot($1::text, \
                     $1::text || '_' || pg_backend_pid()::text, true)",
                &[&self.log.slot],
            )
            .await?;
        Ok(made.get(0))
    }

    /// Up to where a slot was read.
    pub async fn end_of(&self, client: &Client, slot: &str) -> Result<u64, Failure> {
        let found = client
            .query_one(
                "SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = $1",
                &[&slot],
            )
            .await?;
        let end: Option<PgLsn> = found.get(0);
        Ok(end.map_or(0, u64::from))
    }

    /// Has the server let go of the log before this place.
    pub async fn let_go(&self, client: &Client, end: u64) -> Result<(), Failure> {
        client
            .query(
                "SELECT pg_replication_slot_advance(slot_name, $2) FROM pg_replication_slots \
                 WHERE slot_name = $1 AND confirmed_flush_lsn < $2",
                &[&self.log.slot, &PgLsn::from(end)],
            )
            .await?;
        Ok(())
    }

    /// Drops all that is kept, of a source that is not read any more. A publication with a name
    /// of its own is somebody else's.
    pub async fn release(&self, client: &Client) -> Result<Vec<String>, Failure> {
        if let Some(used) = self.lock(client).await? {
            return Err(refused(used));
        }
        let mut released = Vec::new();
        if self.drop_slot(client).await? {
            released.push(format!("the slot `{}`", self.log.slot));
        }
        self.drop_copy(client).await?;
        if self.log.publication == self.log.slot {
            self.drop_publication(client).await?;
        }
        Ok(released)
    }

    pub async fn drop_copy(&self, client: &Client) -> Result<(), Failure> {
        let dropped = format!("DROP TABLE IF EXISTS {}", self.copy_name());
        Ok(client.batch_execute(&dropped).await?)
    }

    /// Returns whether it was there.
    async fn drop_slot(&self, client: &Client) -> Result<bool, Failure> {
        let foreign = client
            .query_opt(
                "SELECT format('%s of the database %s', plugin, database) \
                 FROM pg_replication_slots WHERE slot_name = $1 \
                   AND (database, plugin) IS DISTINCT FROM (current_database(), 'pgoutput')",
                &[&self.log.slot],
            )
            .await?;
        if let Some(foreign) = foreign {
            let of: String = foreign.get(0);
            return Err(refused(format!(
                "the slot `{}` is there already, and is somebody else's, for {of}: give this one \
                 another name (`slot` of `log`)",
                self.log.slot
            )));
        }
        let dropped = client
            .query(
                "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots \
                 WHERE slot_name = $1",
                &[&self.log.slot],
            )
            .await?;
        Ok(!dropped.is_empty())
    }
}
