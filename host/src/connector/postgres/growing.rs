//! Reads a table, or what a query gives, by a column whose values grow: what is new is asked
//! for again and again.
//!
//! A transaction may commit a value that is smaller than one which others have committed
//! before: it has drawn it earlier. So rows up to the largest value are read when all
//! transactions have ended that ran when this value was seen. Within one value, rows are in
//! the order of a hash of all their columns, so that a place is a value and a hash
//! ([why](../../../../docs/decisions/0036-postgresql-sources.md)).

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row};

use super::place::{GrowingPlace, Place};
use super::reading::{Ended, Event, Events, ReadRow, Reader};
use super::session::connect;
use super::table_source::{Growing, TableSource};
use super::{Failure, quoted, shown, texts};
use crate::blame::Fault;
use crate::schema::{Field, Schema};
use crate::source::SourceContext;
use crate::text::truncate;

/// How many rows a query asks for.
const PAGE_ROWS: i64 = 10_000;

/// Tells rows of one value apart.
const HASH: &str = "md5(q::text) COLLATE \"C\"";

/// How much messages show of a row.
const SHOWN_BYTES_MAX: usize = 200;

/// How often it is looked whether transactions have ended.
const LOOK: Duration = Duration::from_millis(20);

/// Reads on one connection after another.
pub struct GrowingReader {
    pub source: Arc<TableSource>,
    pub growing: Growing,
    pub schema: Arc<Schema>,
    pub who: Arc<str>,
    pub place: GrowingPlace,
    /// Where a bounded input ends: the largest value at the start, if there was one.
    end: Option<Option<String>>,
    is_bootstrapped: bool,
}

impl GrowingReader {
    pub fn new(
        source: Arc<TableSource>,
        growing: Growing,
        context: &SourceContext,
        place: GrowingPlace,
    ) -> Self {
        GrowingReader {
            source,
            growing,
            schema: context.schema.clone(),
            who: context.node.clone(),
            place,
            end: None,
            is_bootstrapped: false,
        }
    }
}

impl Reader for GrowingReader {
    async fn read(&mut self, events: &mut Events) -> Result<(), Ended> {
        let (client, _driver) = connect(&self.source.connection).await?;
        self.source.check_privileges(&client).await?;
        let value_type = self.value_type(&client).await?;
        let pages = Pages {
            source: &self.source,
            growing: &self.growing,
            fields: &self.schema.fields,
            columns: self.source.columns(&self.schema),
            client,
            value_type,
        };
        if let Some((last, _)) = &self.place.last
            && pages.is_endless(last)
        {
            let cause = format!(
                "the checkpoint has read up to {last} in `{}`, behind which no row is found: let \
                 go of what it knows of this source (`--drop`), which begins anew",
                self.growing.column
            );
            return Err(Failure::new(cause, Fault::OUTSIDE_LASTING).into());
        }
        loop {
            let mut largest = pages.largest().await?;
            if self.growing.is_bounded {
                largest = self.end.get_or_insert(largest).clone();
            }
            if let Some(largest) = &largest {
                let last = self.place.last.as_ref();
                if last.is_none_or(|(last, _)| last != largest) {
                    pages.wait_for_others(&self.who).await?;
                }
                while pages.read(largest, &mut self.place, events).await? {}
            }
            events.flush().await?;
            if !std::mem::replace(&mut self.is_bootstrapped, true) {
                events.tell(Event::Bootstrapped).await?;
            }
            if self.growing.is_bounded {
                events.tell(Event::End).await?;
                return Ok(());
            }
            tokio::time::sleep(self.growing.poll_every).await;
        }
    }
}

impl GrowingReader {
    /// Compares the columns with the fields. Returns the type of the growing column, as SQL
    /// names it.
    async fn value_type(&self, client: &Client) -> Result<String, Failure> {
        let more = quoted(&self.growing.column);
        let types = self.source.types(client, &self.schema, Some(&more)).await?;
        let of = types.last().map_or("nothing", Type::name);
        match types.last().filter(|of| VALUES.contains(of)) {
            Some(of) => Ok(of.name().to_owned()),
            None => Err(Failure::new(
                format!(
                    "`growing` names the column `{}`, whose type is {of}: it has to be a whole \
                     number, a numeric, a time, a date, a text or a uuid",
                    self.growing.column
                ),
                Fault::OUTSIDE_LASTING,
            )),
        }
    }
}

/// What is asked for on a connection.
struct Pages<'s> {
    source: &'s TableSource,
    growing: &'s Growing,
    fields: &'s [Field],
    /// What the fields are read from.
    columns: Vec<String>,
    client: Client,
    value_type: String,
}

impl Pages<'_> {
    /// The largest value. One that no later row could exceed is refused: whoever reads up to it
    /// finds nothing any more.
    async fn largest(&self) -> Result<Option<String>, Failure> {
        let value = self.value();
        let sql = format!(
            "SELECT {} FROM {} WHERE {value} IS NOT NULL ORDER BY {value} DESC LIMIT 1",
            self.selected(),
            self.source.relation()
        );
        let Some(row) = self.client.query_opt(&sql, &[]).await? else {
            return Ok(None);
        };
        let largest: String = row.get(0);
        if self.is_endless(&largest) {
            let column = &self.growing.column;
            let mut shown = String::from_utf8_lossy(&self.json(&row)?).into_owned();
            truncate(&mut shown, SHOWN_BYTES_MAX);
            let cause = format!(
                "`growing` names the column `{column}` of {}, and it is {largest} in the row \
                 {shown}: no value is larger, and no later row would be found. Give it another \
                 value, or none, or read a `query` that leaves such rows out",
                self.source.name()
            );
            return Err(Failure::new(cause, Fault::OUTSIDE_LASTING));
        }
        Ok(Some(largest))
    }

    /// Whether nothing is larger, as the server writes it.
    fn is_endless(&self, value: &str) -> bool {
        let is_text = [Type::TEXT, Type::VARCHAR]
            .iter()
            .any(|of| of.name() == self.value_type);
        !is_text && ["infinity", "Infinity", "NaN"].contains(&value)
    }

    fn value(&self) -> String {
        format!("q.{}", quoted(&self.growing.column))
    }

    /// What is selected of a row: its value, its hash, and the columns of the fields.
    fn selected(&self) -> String {
        let columns: String = self
            .columns
            .iter()
            .map(|column| format!(", {}", shown(&format!("q.{}", quoted(column)))))
            .collect();
        format!("{}::text, {HASH}{columns}", self.value())
    }

    /// Waits until all transactions have ended that run now, but not for ever.
    async fn wait_for_others(&self, who: &str) -> Result<(), Failure> {
        // Those of other databases cannot write here.
        const RUNNING: &str = "SELECT virtualxid FROM pg_locks l WHERE locktype = 'virtualxid' AND granted \
             AND pid IS DISTINCT FROM pg_backend_pid() AND NOT EXISTS \
                 (SELECT FROM pg_stat_activity a WHERE a.pid = l.pid \
                  AND a.datname <> current_database())";
        let began = Instant::now();
        let running: Vec<String> = self
            .client
            .query(RUNNING, &[])
            .await?
            .iter()
            .map(|row| row.get(0))
            .collect();
        let still = format!("SELECT count(*) FROM ({RUNNING}) AS r WHERE virtualxid = ANY ($1)");
        loop {
            let left: i64 = self.client.query_one(&still, &[&running]).await?.get(0);
            if left == 0 {
                return Ok(());
            }
            if began.elapsed() > self.growing.wait_max {
                tracing::warn!(
                    source = %who,
                    "{left} transactions have run for more than {:?}; rows that they commit with \
                     values smaller than those that are read now are not read (`wait_max`)",
                    self.growing.wait_max
                );
                return Ok(());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Reads the next rows up to a value. Returns whether there may be more.
    async fn read(
        &self,
        largest: &str,
        place: &mut GrowingPlace,
        events: &mut Events,
    ) -> Result<bool, Ended> {
        let (value, of) = (self.value(), &self.value_type);
        let last = place.last.clone().unwrap_or_default();
        let mut parameters: Vec<&(dyn ToSql + Sync)> = vec![&largest];
        let behind = match place.last {
            Some(_) => {
                parameters.extend([&last.0 as &(dyn ToSql + Sync), &last.1]);
                format!(
                    "AND {value} >= $2::text::{of} \
                     AND ({value} > $2::text::{of} OR {HASH} >= $3::text)"
                )
            }
            None => String::new(),
        };
        // Those that are equal to the last one come first, and were read.
        let limit = PAGE_ROWS.saturating_add(i64::try_from(place.same).unwrap_or(0));
        let sql = format!(
            "SELECT {} FROM {} WHERE {value} <= $1::text::{of} {behind} \
             ORDER BY {value}, {HASH} LIMIT {limit}",
            self.selected(),
            self.source.relation()
        );
        let mut rows = pin!(self.client.query_raw(&sql, parameters).await?);
        let mut to_skip = place.same;
        let mut read = 0;
        while let Some(row) = rows.try_next().await? {
            read += 1;
            let found: (String, String) = (row.try_get(0)?, row.try_get(1)?);
            let is_same = place.last.as_ref() == Some(&found);
            if is_same && to_skip > 0 {
                to_skip -= 1;
                continue;
            }
            to_skip = 0;
            place.same = if is_same { place.same + 1 } else { 1 };
            place.last = Some(found);
            place.rows += 1;
            let row = ReadRow {
                payload: Ok(self.json(&row)?),
                place: Place::Growing(place.clone()),
                change: None,
            };
            events.push(row).await?;
        }
        Ok(read == limit)
    }

    fn json(&self, row: &Row) -> Result<Vec<u8>, Failure> {
        let mut values = Vec::with_capacity(self.fields.len());
        for at in 0..self.fields.len() {
            values.push(row.try_get::<_, Option<&str>>(at + 2)?);
        }
        Ok(texts::row(&self.columns, self.fields, values.into_iter()))
    }
}

/// The types of columns that can grow.
const VALUES: &[Type] = &[
    Type::INT2,
    Type::INT4,
    Type::INT8,
    Type::NUMERIC,
    Type::TIMESTAMPTZ,
    Type::TIMESTAMP,
    Type::DATE,
    Type::TEXT,
    Type::VARCHAR,
    Type::UUID,
];
