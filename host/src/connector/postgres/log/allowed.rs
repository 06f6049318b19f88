//! What the server and the user's privileges have to allow, before anything is made.

use tokio_postgres::Client;

use super::kept::{Kept, refused};
use crate::blame::Fault;
use crate::connector::postgres::{Failure, quoted};

/// The slot, and one for the connection.
const SLOTS: i64 = 2;
/// Whose members may read the log where Amazon manages the server and gives nobody `REPLICATION`.
const MANAGED: &str = "rds_replication";

impl Kept {
    /// Refuses what would fail half-way, with the statements that allow it.
    pub async fn check_allowed(
        &self,
        client: &Client,
        table: u32,
        is_published: bool,
    ) -> Result<(), Failure> {
        let row = client
            .query_one(
                "SELECT current_setting('wal_level'), \
                     current_setting('max_replication_slots')::bigint - \
                         (SELECT count(*) FROM pg_replication_slots WHERE slot_name <> $2), \
                     (SELECT rolreplication OR rolsuper OR EXISTS (SELECT FROM pg_roles m \
                             WHERE m.rolname = $3 AND pg_has_role(m.oid, 'MEMBER')) \
                         FROM pg_roles r WHERE r.rolname = current_user), \
                     current_schema()::text, \
                     coalesce(has_schema_privilege(current_schema(), 'CREATE'), false), \
                     row_security_active($1::oid), \
                     current_database()::text, \
                     has_database_privilege(current_database(), 'CREATE'), \
                     (SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = $1::oid)",
                &[&table, &self.log.slot, &MANAGED],
            )
            .await?;
        let level: String = row.get(0);
        if level != "logical" {
            return Err(refused(format!(
                "the server's `wal_level` is {level}, and its log has no changes of rows: set it \
                 to logical, and start the server again"
            )));
        }
        let free: i64 = row.get(1);
        if free < SLOTS {
            let cause = format!(
                "the source needs {SLOTS} replication slots, and the server has {free} free: \
                 raise its `max_replication_slots`, or drop some (pg_replication_slots has them)"
            );
            return Err(Failure::new(cause, Fault::OUTSIDE));
        }
        let may = |column| row.get::<_, Option<bool>>(column).unwrap_or(false);
        let user = quoted(&self.source.connection.user);
        let mut lacking = Vec::new();
        if !may(2) {
            lacking.push(format!("read the log: ALTER ROLE {user} REPLICATION"));
        }
        if self.log.copies && !may(4) {
            let schema: Option<String> = row.get(3);
            let schema = quoted(schema.as_deref().unwrap_or("public"));
            lacking.push(format!(
                "make the table {}, which the rows that are there are copied to: GRANT CREATE ON \
                 SCHEMA {schema} TO {user} (or do without these rows: `copy = false`)",
                self.copy_name()
            ));
        }
        if self.log.copies && may(5) {
            lacking.push(format!(
                "see all rows of the table, as the log does: ALTER ROLE {user} BYPASSRLS"
            ));
        }
        let (publication, made) = (&self.log.publication, self.publication_sql());
        if !is_published && !may(8) {
            lacking.push(format!(
                "publish the table, which others own: have its owner {made}"
            ));
        } else if !is_published && !may(7) {
            let database = quoted(row.get(6));
            lacking.push(format!(
                "make the publication `{publication}`: GRANT CREATE ON DATABASE {database} TO \
                 {user} (or have a superuser {made})"
            ));
        }
        match lacking.is_empty() {
            true => Ok(()),
            false => Err(refused(format!(
                "its user may not {}",
                lacking.join("; and may not ")
            ))),
        }
    }
}
