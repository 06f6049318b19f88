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
    source: Arc<TableSource>,
    log: Log,
}

fn refused(cause: String) -> Failure {
    Failure::new(cause, Fault::OUTSIDE_LASTING)
}

impl Kept {
    pub fn new(source: &Arc<TableSource>, log: &Log) -> Self {
        Kept {
            source: source.clone(),
            log: log.clone(),
        }
    }

    /// Has nobody else read with the slot while this connection lasts. An earlier one of this
    /// pipeline may take a moment to be noticed as gone.
    pub async fn lock(&self, client: &Client) -> Result<(), Failure> {
        let slot = format!("sluicebox slot {}", self.log.slot);
        let locked = client
            .query_one(
                "SELECT pg_try_advisory_lock(hashtextextended($1, 0))",
                &[&slot],
            )
            .await?;
        if locked.get(0) {
            return Ok(());
        }
        let cause = format!("another run reads with the slot `{}`", self.log.slot);
        Err(Failure::new(cause, Fault::OUTSIDE))
    }

    /// Makes all anew, as a first start does. What an earlier one has left is dropped.
    pub async fn begin(
        &self,
        client: &Client,
        schema: &Schema,
        who: &str,
    ) -> Result<LogPlace, Failure> {
        self.check_server(client).await?;
        self.drop_slot(client).await?;
        self.drop_copy(client).await?;
        self.publish(client).await?;
        let slot = &self.log.slot;
        tracing::info!(
            source = %who,
            "making the slot `{slot}`, which waits for the transactions that run now"
        );
        let made = client
            .query_one(
                "SELECT lsn FROM pg_create_logical_replication_slot($1, 'pgoutput')",
                &[slot],
            )
            .await?;
        let end: PgLsn = made.get(0);
        let mut place = LogPlace {
            end: Some(end.into()),
            row: 0,
            copy: None,
        };
        if self.log.copies {
            place.copy = Some(CopyPlace {
                row: Some(0),
                snapshot: Arc::new(self.copy(client, schema).await?),
            });
        }
        Ok(place)
    }

    async fn check_server(&self, client: &Client) -> Result<(), Failure> {
        let row = client
            .query_one(
                "SELECT current_setting('wal_level'), rolreplication OR rolsuper \
                 FROM pg_roles WHERE rolname = current_user",
                &[],
            )
            .await?;
        let level: String = row.get(0);
        if level != "logical" {
            return Err(refused(format!(
                "the server's `wal_level` is {level}, and its log has no changes of rows: set it \
                 to logical, and start the server again"
            )));
        }
        let may: bool = row.get(1);
        if !may {
            let user = quoted(&self.source.connection.user);
            return Err(refused(format!(
                "its user may not read the log: ALTER ROLE {user} REPLICATION allows it"
            )));
        }
        Ok(())
    }

    /// Makes the publication, unless it is there.
    async fn publish(&self, client: &Client) -> Result<(), Failure> {
        if self.is_published(client).await? {
            return Ok(());
        }
        let made = format!(
            "CREATE PUBLICATION {} FOR TABLE {} WITH (publish_via_partition_root = true)",
            quoted(&self.log.publication),
            self.source.table_sql()
        );
        client.batch_execute(&made).await.map_err(|error| {
            let failure = Failure::from(error);
            Failure {
                cause: format!("{}; who owns the table may run {made}", failure.cause),
                ..failure
            }
        })
    }

    /// Whether the publication is there. One that does not tell all of the table is refused.
    async fn is_published(&self, client: &Client) -> Result<bool, Failure> {
        let (name, table) = (&self.log.publication, self.source.table_sql());
        // Older servers have neither lists of columns nor conditions.
        let found = client
            .query_opt(
                "SELECT EXISTS (SELECT FROM pg_publication_tables t \
                     JOIN pg_class c ON c.oid = to_regclass($2::text) \
                     JOIN pg_namespace n ON n.oid = c.relnamespace \
                     WHERE t.pubname = p.pubname AND t.schemaname = n.nspname \
                       AND t.tablename = c.relname), \
                     pubinsert AND pubupdate AND pubdelete AND pubtruncate, \
                     EXISTS (SELECT FROM pg_publication_rel r, to_jsonb(r) AS j \
                         WHERE r.prpubid = p.oid AND r.prrelid = to_regclass($2::text) \
                           AND coalesce(j ->> 'prattrs', j ->> 'prqual') IS NOT NULL) \
                 FROM pg_publication p WHERE pubname = $1",
                &[name, &table],
            )
            .await?;
        let altered = format!("ALTER PUBLICATION {}", quoted(name));
        match found.map(|row| (row.get(0), row.get(1), row.get(2))) {
            None => Ok(false),
            Some((true, true, false)) => Ok(true),
            Some((false, _, _)) => Err(refused(format!(
                "the publication `{name}` does not have the table, as when it was made anew: \
                 {altered} ADD TABLE {table}; what has changed meanwhile is not told, so begin \
                 anew then with the rows that are there (`--drop`)"
            ))),
            Some((true, false, _)) => Err(refused(format!(
                "the publication `{name}` leaves some changes out: {altered} SET (publish = \
                 'insert, update, delete, truncate')"
            ))),
            Some((true, true, true)) => Err(refused(format!(
                "the publication `{name}` leaves columns or rows of the table out: {altered} SET \
                 TABLE {table}"
            ))),
        }
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

    fn copy_name(&self) -> String {
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
        let anew = "let go of what the checkpoint knows of this source (`--drop`), which begins \
                    anew with the rows that are there";
        let Some(found) = found else {
            return Err(refused(format!(
                "the slot `{slot}` is gone, and with it the changes since the checkpoint: {anew}"
            )));
        };
        let confirmed: Option<PgLsn> = found.get(0);
        if found.get(1) {
            return Err(refused(format!(
                "the server has let go of the log that the slot `{slot}` needs \
                 (`max_slot_wal_keep_size`): {anew}"
            )));
        }
        if !self.is_published(client).await? {
            return Err(refused(format!(
                "the publication `{}` is gone, and with it what has changed since: {anew}",
                self.log.publication
            )));
        }
        match confirmed.map(u64::from) {
            Some(confirmed) if confirmed > end => Err(refused(format!(
                "the slot `{slot}` was moved on to {}, and the checkpoint has read up to {}: the \
                 changes in between are gone. Start from a later checkpoint, or {anew}",
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
        self.lock(client).await?;
        let mut released = Vec::new();
        if self.drop_slot(client).await? {
            released.push(format!("the slot `{}`", self.log.slot));
        }
        self.drop_copy(client).await?;
        if self.log.publication == self.log.slot {
            let dropped = format!(
                "DROP PUBLICATION IF EXISTS {}",
                quoted(&self.log.publication)
            );
            client.batch_execute(&dropped).await?;
        }
        Ok(released)
    }

    pub async fn drop_copy(&self, client: &Client) -> Result<(), Failure> {
        let dropped = format!("DROP TABLE IF EXISTS {}", self.copy_name());
        Ok(client.batch_execute(&dropped).await?)
    }

    /// Returns whether it was there.
    pub async fn drop_slot(&self, client: &Client) -> Result<bool, Failure> {
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
