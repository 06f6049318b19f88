//! What changes of a table become: rows that are added or taken back.

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::kept::ANEW;
use super::pgoutput::{Message, Relation, Row, Value};
use crate::blame::Fault;
use crate::connector::postgres::table_source::{Log, TableSource};
use crate::connector::postgres::{Failure, texts};
use crate::schema::{Field, Schema};

/// A row that is added or taken back.
pub struct Changed {
    pub payload: Result<Vec<u8>, (String, Vec<u8>)>,
    pub is_taken_back: bool,
}

/// Checks that the table and its partitions tell what a row was before a change: all of it, or
/// its key. One that tells neither takes no more changes when it is published.
async fn check_identity(
    client: &Client,
    table: &str,
    id: u32,
    by_key: bool,
) -> Result<(), Failure> {
    let lacking = client
        .query_opt(
            "SELECT c.oid::regclass::text FROM pg_class c \
             WHERE c.oid IN (SELECT $1::oid UNION SELECT relid FROM pg_partition_tree($1::oid)) \
               AND c.relreplident <> 'f' \
               AND NOT ($2 AND (c.relreplident = 'i' OR c.relreplident = 'd' AND EXISTS \
                   (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary))) \
             ORDER BY c.oid LIMIT 1",
            &[&id, &by_key],
        )
        .await?;
    let Some(lacking) = lacking else {
        return Ok(());
    };
    let lacking: String = lacking.get(0);
    let which = match lacking == table {
        true => lacking,
        false => format!("{table} ({lacking})"),
    };
    let cause = match by_key {
        true => format!(
            "the table {which} has no primary key, and tells nothing of rows before they \
             change: ALTER TABLE … REPLICA IDENTITY USING INDEX, or FULL has it do that"
        ),
        false => format!(
            "the table {which} does not tell whole rows before they change: ALTER TABLE … \
             REPLICA IDENTITY FULL has it do that, or name its `key`"
        ),
    };
    Err(Failure::new(cause, Fault::OUTSIDE_LASTING))
}

/// The table whose changes are read.
pub struct ChangedTable {
    /// As the server numbers it.
    pub id: u32,
    name: String,
    fields: Vec<Field>,
    /// The name of each field's column.
    names: Vec<String>,
    /// The fields of the key, if rows take the place of others by one.
    key: Option<Vec<usize>>,
    /// The column of each field, as the log has told last.
    columns: Vec<usize>,
}

impl ChangedTable {
    pub async fn find(
        client: &Client,
        source: &TableSource,
        log: &Log,
        schema: &Schema,
    ) -> Result<Self, Failure> {
        let sql = source.table_sql();
        let found = client
            .query_one("SELECT to_regclass($1::text)::oid", &[&sql])
            .await?;
        let id: Option<u32> = found.get(0);
        let id = id.ok_or_else(|| {
            let cause = format!("there is no table {}", source.name());
            Failure::new(cause, Fault::OUTSIDE_LASTING)
        })?;
        let key = log.changes.key.as_ref();
        check_identity(client, &source.name(), id, key.is_some()).await?;
        Ok(ChangedTable {
            id,
            name: source.name(),
            fields: schema.fields.to_vec(),
            names: source.columns(schema),
            key: key.map(|key| {
                key.iter()
                    .filter_map(|name| schema.index_of(name))
                    .collect()
            }),
            columns: Vec::new(),
        })
    }

    /// Takes what the log tells of the table from here on, and compares it with the fields.
    pub fn learn(&mut self, relation: Relation) -> Result<(), Failure> {
        if relation.id != self.id {
            return Ok(());
        }
        let refuse = |what: String| {
            let cause = format!("the table {} {what}", self.name);
            Err(Failure::new(cause, Fault::OUTSIDE_LASTING))
        };
        let mut columns = Vec::with_capacity(self.fields.len());
        for (at, (name, field)) in self.names.iter().zip(&self.fields).enumerate() {
            let mut told = relation.columns.iter();
            let Some(found) = told.position(|column| column.name == *name) else {
                return refuse(format!(
                    "was changed, or does not publish all of its columns: it has no column \
                     `{name}` in this part of the log. Have `names` say what it was called then, \
                     read up to here without the field, or begin anew with the rows that are \
                     there (`--drop`)"
                ));
            };
            let column = &relation.columns[found];
            let of = Type::from_oid(column.type_id);
            if let Some(of) = of.filter(|of| !texts::may_be(&field.data_type, of)) {
                return refuse(format!(
                    "was changed: its column `{name}` is {of}, and the field `{field}` cannot be \
                     read of it. Give the field a type that goes with it"
                ));
            }
            let is_key = self.key.as_ref().is_some_and(|key| key.contains(&at));
            if is_key && !column.is_identity && !relation.tells_whole {
                return refuse(format!(
                    "does not tell the column `{name}` of rows that are gone, and `key` has it: \
                     name its primary key, or ALTER TABLE … REPLICA IDENTITY USING INDEX, or FULL"
                ));
            }
            columns.push(found);
        }
        if self.key.is_none() && !relation.tells_whole {
            return refuse(
                "has not told whole rows before they changed, and does with ALTER TABLE … REPLICA \
                 IDENTITY FULL: begin anew then with the rows that are there (`--drop`), or name \
                 its `key`"
                    .to_owned(),
            );
        }
        self.columns = columns;
        Ok(())
    }

    /// The rows of a change.
    pub fn rows(&self, message: Message<'_>) -> Result<Vec<Changed>, Failure> {
        let whole = |row: &Row<'_>, old: Option<&Row<'_>>, is_taken_back| Changed {
            payload: self.whole(row, old),
            is_taken_back,
        };
        let key = |row: &Row<'_>| Changed {
            payload: Ok(self.key_alone(row)),
            is_taken_back: true,
        };
        Ok(match message {
            Message::Insert { relation, new } if relation == self.id => {
                vec![whole(&new, None, false)]
            }
            Message::Update { relation, old, new } if relation == self.id => {
                let mut rows = Vec::with_capacity(2);
                match (&self.key, &old) {
                    (None, Some(old)) => rows.push(whole(old, None, true)),
                    (None, None) => return Err(self.lacks_old()),
                    (Some(fields), Some(old)) if self.differs(fields, old, &new) => {
                        rows.push(key(old));
                    }
                    (Some(_), _) => {}
                }
                rows.push(whole(&new, old.as_ref(), false));
                rows
            }
            Message::Delete { relation, old } if relation == self.id => match self.key {
                None => vec![whole(&old, None, true)],
                Some(_) => vec![key(&old)],
            },
            Message::Truncate { relations } if relations.contains(&self.id) => vec![Changed {
                payload: Err((
                    format!(
                        "the table {} was emptied (TRUNCATE), which does not tell the rows that \
                         are gone: start with them anew (`--drop`)",
                        self.name
                    ),
                    b"TRUNCATE".to_vec(),
                )),
                is_taken_back: true,
            }],
            _ => Vec::new(),
        })
    }

    fn lacks_old(&self) -> Failure {
        let cause = format!(
            "the table {} has not told the whole row before a change: ALTER TABLE … REPLICA \
             IDENTITY FULL, of each partition if it has some, or name its `key`. The log does not \
             tell it any more, so {ANEW}",
            self.name
        );
        Failure::new(cause, Fault::OUTSIDE_LASTING)
    }

    /// The value of a field in a row.
    fn value<'m>(&self, row: &Row<'m>, field: usize) -> Value<'m> {
        let column = self.columns.get(field);
        let value = column.and_then(|&column| row.get(column));
        value.copied().unwrap_or(Value::Null)
    }

    fn differs(&self, key: &[usize], old: &Row<'_>, new: &Row<'_>) -> bool {
        key.iter().any(|&field| {
            let new = self.value(new, field);
            new != Value::Unchanged && self.value(old, field) != new
        })
    }

    /// A row with all fields. What is large and was not changed is taken from the row before.
    fn whole(&self, row: &Row<'_>, old: Option<&Row<'_>>) -> Result<Vec<u8>, (String, Vec<u8>)> {
        let texts = (0..self.fields.len()).map(|field| {
            let value = match (self.value(row, field), old) {
                (Value::Unchanged, Some(old)) => self.value(old, field),
                (value, _) => value,
            };
            match value {
                Value::Text(text) => Some(text),
                Value::Null | Value::Unchanged => None,
            }
        });
        let texts: Vec<Option<&str>> = texts.collect();
        // Of the row before, there may be the key alone, whose other values are null.
        let unknown = (0..self.fields.len())
            .find(|&field| self.value(row, field) == Value::Unchanged && texts[field].is_none());
        let json = texts::row(&self.names, &self.fields, texts.into_iter());
        match unknown {
            None => Ok(json),
            Some(field) => Err((
                format!(
                    "field `{}` is a large value that the change has left as it was, and that \
                     the server has not told of; it tells with ALTER TABLE … REPLICA IDENTITY FULL",
                    self.names[field]
                ),
                json,
            )),
        }
    }

    fn key_alone(&self, row: &Row<'_>) -> Vec<u8> {
        let key = self.key.as_deref().unwrap_or_default();
        let texts = (0..self.fields.len()).map(|field| match self.value(row, field) {
            Value::Text(text) if key.contains(&field) => Some(text),
            _ => None,
        });
        texts::row(&self.names, &self.fields, texts)
    }
}
