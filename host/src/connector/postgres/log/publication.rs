//! The publication by which the log is told: made, looked at, and compared with what it was.

use std::sync::Arc;

use tokio_postgres::Client;

use super::kept::{ANEW, Kept, refused};
use crate::connector::postgres::{Failure, quoted};

/// What a look has found.
pub struct Look {
    /// Another text whenever the publication was altered in what it tells of the table, also if
    /// that was taken back since; none without a publication.
    pub published: Option<Arc<str>>,
    /// All transactions below have ended that the look could see.
    pub ended: u64,
    /// None from here on had begun.
    pub next: u64,
}

impl Kept {
    /// Looks at the publication of a table, as the server numbers it. Members of a publication
    /// keep their numbers until they are dropped.
    pub async fn look(&self, client: &Client, table: u32) -> Result<Look, Failure> {
        let row = client
            .query_one(
                "SELECT (SELECT concat_ws(' ', p.oid, p.xmin, \
                         (SELECT string_agg(DISTINCT d.objid::text, ' ') FROM pg_depend d \
                          JOIN pg_depend o ON o.classid = d.classid AND o.objid = d.objid \
                          WHERE d.refclassid = 'pg_publication'::regclass AND d.refobjid = p.oid \
                            AND (o.refclassid = 'pg_class'::regclass AND o.refobjid IN \
                                    (SELECT $2::oid UNION \
                                     SELECT relid FROM pg_partition_ancestors($2::oid)) \
                              OR o.refclassid = 'pg_namespace'::regclass AND o.refobjid = \
                                    (SELECT relnamespace FROM pg_class WHERE oid = $2::oid)))) \
                     FROM pg_publication p WHERE pubname = $1), \
                     pg_snapshot_xmin(s)::text::bigint, pg_snapshot_xmax(s)::text::bigint \
                 FROM pg_current_snapshot() AS s",
                &[&self.log.publication, &table],
            )
            .await?;
        let published: Option<&str> = row.get(0);
        let number = |column| row.get::<_, i64>(column).cast_unsigned();
        Ok(Look {
            published: published.map(Arc::from),
            ended: number(1),
            next: number(2),
        })
    }

    /// Why a publication that is not what it was when reading began cannot be gone on with.
    pub async fn altered(&self, client: &Client) -> Failure {
        let name = &self.log.publication;
        match self.is_published(client).await {
            Err(failure) => failure,
            Ok(false) => refused(format!(
                "the publication `{name}` is gone, and with it what has changed since: {ANEW}"
            )),
            Ok(true) => refused(format!(
                "the publication `{name}` was altered or made anew since its changes began to be \
                 read, and tells nothing of what it has left out meanwhile: {ANEW}"
            )),
        }
    }

    pub fn publication_sql(&self) -> String {
        format!(
            "CREATE PUBLICATION {} FOR TABLE {} WITH (publish_via_partition_root = true)",
            quoted(&self.log.publication),
            self.source.table_sql()
        )
    }

    pub async fn drop_publication(&self, client: &Client) -> Result<(), Failure> {
        let name = quoted(&self.log.publication);
        let dropped = format!("DROP PUBLICATION IF EXISTS {name}");
        Ok(client.batch_execute(&dropped).await?)
    }

    /// Whether the publication is there. One that does not tell all of the table is refused.
    pub async fn is_published(&self, client: &Client) -> Result<bool, Failure> {
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
}
