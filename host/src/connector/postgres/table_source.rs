//! A table or a query that is read, and how.

use std::time::Duration;

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::table::TableName;
use super::{Failure, PostgresConnection, quoted, texts};
use crate::blame::Fault;
use crate::format::{RowFormat, TableChanges};
use crate::schema::Schema;

/// What is read.
#[derive(Clone, Debug)]
pub struct TableSource {
    pub connection: PostgresConnection,
    pub relation: Relation,
    pub format: RowFormat,
    pub by: By,
}

/// How what is new is found.
#[derive(Clone, Debug)]
pub enum By {
    Growing(Growing),
    Log(Log),
}

#[derive(Clone, Debug)]
pub enum Relation {
    Table(TableName),
    Query(String),
}

/// Rows are asked for by a column whose values grow.
#[derive(Clone, Debug)]
pub struct Growing {
    pub column: String,
    pub poll_every: Duration,
    /// How long transactions are waited for that may commit smaller values.
    pub wait_max: Duration,
    /// Whether the input ends where the table ended at the start.
    pub is_bounded: bool,
}

/// What is read of a table's changes, and by what.
#[derive(Clone, Debug)]
pub struct Log {
    pub changes: TableChanges,
    /// The names of the slot and of the publication.
    pub slot: String,
    pub publication: String,
    /// Whether the rows that are there at the start come first.
    pub copies: bool,
    pub poll_every: Duration,
    /// Whether the input ends where the log ended at the start.
    pub is_bounded: bool,
}

impl TableSource {
    /// The one partition.
    pub fn name(&self) -> String {
        match &self.relation {
            Relation::Table(name) => name.shown(),
            Relation::Query(_) => "query".to_owned(),
        }
    }

    pub fn changes(&self) -> Option<&TableChanges> {
        match &self.by {
            By::Growing(_) => None,
            By::Log(log) => Some(&log.changes),
        }
    }

    /// The table as SQL names it.
    pub fn table_sql(&self) -> String {
        match &self.relation {
            Relation::Table(name) => name.sql(),
            Relation::Query(query) => query.clone(),
        }
    }

    /// What follows FROM; its rows are called `q`.
    pub fn relation(&self) -> String {
        match &self.relation {
            Relation::Table(name) => format!("(SELECT * FROM {}) AS q", name.sql()),
            // What a query ends with may be a comment.
            Relation::Query(query) => format!("({query}\n) AS q"),
        }
    }

    /// The columns that the fields are read from.
    pub fn columns(&self, schema: &Schema) -> Vec<String> {
        let written = self.format.written(schema);
        written.fields.into_iter().map(|field| field.name).collect()
    }

    /// Refuses a user who may not read the table, which the server says too late. What a query
    /// reads it says itself.
    pub async fn check_privileges(&self, client: &Client) -> Result<(), Failure> {
        let Relation::Table(name) = &self.relation else {
            return Ok(());
        };
        let schema = name.schema.as_deref().map(quoted);
        let may_use = client
            .query_one(
                "SELECT coalesce(has_schema_privilege(to_regnamespace($1::text)::oid, 'USAGE'), true)",
                &[&schema],
            )
            .await?;
        let user = quoted(&self.connection.user);
        let mut granted = Vec::new();
        if let (Some(schema), false) = (&schema, may_use.get(0)) {
            // Behind it, nothing is seen of the table.
            granted.push(format!("GRANT USAGE ON SCHEMA {schema} TO {user}"));
        } else {
            let may_select = client
                .query_one(
                    "SELECT coalesce(bool_and(has_column_privilege(attrelid, attnum, 'SELECT')), \
                         true) FROM pg_attribute \
                     WHERE attrelid = to_regclass($1::text)::oid AND attnum > 0 \
                       AND NOT attisdropped",
                    &[&name.sql()],
                )
                .await?;
            if may_select.get(0) {
                return Ok(());
            }
        }
        granted.push(format!("GRANT SELECT ON {} TO {user}", name.sql()));
        let cause = format!(
            "its user may not read the table {}: {}",
            name.shown(),
            granted.join("; ")
        );
        Err(Failure::new(cause, Fault::OUTSIDE_LASTING))
    }

    /// The types of the columns, and of one `more`. Those have to be what the fields are.
    pub async fn types(
        &self,
        client: &Client,
        schema: &Schema,
        more: Option<&str>,
    ) -> Result<Vec<Type>, Failure> {
        let columns = self.columns(schema);
        let selected = columns.iter().map(|column| quoted(column));
        let selected: Vec<String> = selected.chain(more.map(str::to_owned)).collect();
        let sql = format!("SELECT {} FROM {}", selected.join(", "), self.relation());
        let prepared = client.prepare(&sql).await?;
        let types = prepared
            .columns()
            .iter()
            .map(|column| column.type_().clone());
        let types: Vec<Type> = types.collect();
        let fields = schema.fields.iter().zip(&types);
        let wrong = fields.filter(|(field, of)| !texts::may_be(&field.data_type, of));
        let wrong: Vec<String> = wrong
            .map(|(field, of)| format!("the field `{field}` is read of a column of the type {of}"))
            .collect();
        match wrong.is_empty() {
            true => Ok(types),
            false => Err(Failure::new(
                format!("{}: give each a type that goes with it", wrong.join("; ")),
                Fault::OUTSIDE_LASTING,
            )),
        }
    }
}
