//! The sink `postgres`: writes rows to a table, by `COPY`. With a `key`, a row takes the
//! place of the one before it of the same key, by `INSERT … ON CONFLICT`.
//!
//! With the pipeline's transaction, readers see rows when their checkpoint is committed.
//! Rows that come during the commit belong to the next transaction, and are kept as text
//! until then. Without it, rows are written at once, some at a time, each time all or none
//! of them; a checkpoint waits until they are, and after a failure, those since the last
//! checkpoint are written again. Rows that cannot be written, and what the server refuses, are
//! left out if `on_error` says so.

use std::collections::HashSet;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use serde_json::json;
use tokio_postgres::Client;
use toml::Spanned;
use twox_hash::XxHash3_64;

use super::copying::{Apart, Refused, SAVE, Statements, copy};
use super::encode::{Encoder, Form};
use super::keys::{is_name, read_connection};
use super::session::{Answer, Session};
use super::table::{self, TableName, Target};
use super::transaction::{PostgresTransaction, TABLE_DDL};
use super::{Failure, PostgresConnection, quoted};
use crate::batch::Batch;
use crate::blame::{Blame, Fault};
use crate::checkpoint::snapshot::SinkSnapshot;
use crate::checkpoint::transaction::Participant;
use crate::clock::Clock;
use crate::config::diagnostics::{Diagnostics, Mistake, Span};
use crate::config::reader::{ConfigValue, Table};
use crate::connector::server::Turn;
use crate::connector::{Description, Planning};
use crate::dead_letter::OnError;
use crate::element::CheckpointId;
use crate::plan::state::Delivery;
use crate::schema::Schema;
use crate::sink::{
    CommitContext, Ending, Refusals, RefusedRows, SentRows, Sink, SinkConnector, SinkContext,
    SinkError, SinkKind, SinkSettings, SinkTransaction, describe_refused, read_on_error,
};
use crate::suggest;

pub const KIND: SinkKind = SinkKind {
    name: "postgres",
    read,
};

/// Rows are sent when their text is as long as this, or when there is no reason to wait.
const SEND_BYTES: usize = 1 << 20;

/// How many bytes of rows are kept during a commit; beyond that no rows are taken.
const HELD_BYTES_MAX: usize = 64 << 20;

/// How long it takes at most until a refusal is noticed while no rows come.
const LOOK_AFTER_MS: i64 = 200;

/// The number of a row among those that are sent together, and whether it is taken back.
const ROW: &str = "sluicebox row";
const GONE: &str = "sluicebox gone";

/// The keys of its table.
#[derive(Debug)]
struct PostgresSinkSettings {
    connection: PostgresConnection,
    table: String,
    key: Option<Vec<Spanned<String>>>,
    names: Vec<(Spanned<String>, Spanned<String>)>,
    /// The place of `deletes = true`.
    deletes: Option<Span>,
    on_error: OnError,
}

/// The table to write, and what goes to its columns.
#[derive(Clone, Debug)]
pub struct PostgresSink {
    connection: PostgresConnection,
    table: TableName,
    /// In the order of the fields.
    targets: Vec<Target>,
    /// The columns by which rows take each other's place; empty: they do not.
    key: Vec<String>,
    /// Whether a row that is taken back deletes its key.
    deletes: bool,
    on_error: OnError,
}

fn read(table: &mut Table<'_>, mistakes: &mut Diagnostics) -> Option<Box<dyn SinkSettings>> {
    let connection = read_connection(table, mistakes);
    let meaning = "the table to write, such as \"orders\" or \"shop.orders\"";
    let name = table
        .required("table", meaning, mistakes)
        .and_then(|value| read_table(&value, mistakes));
    let field = "the name of a field, in quotes, or a list of them";
    let key = table
        .optional("key")
        .and_then(|value| value.one_or_more(field, mistakes, |value, it| value.text(field, it)));
    let names = table
        .optional("names")
        .and_then(|value| value.table(mistakes))
        .map(|names| {
            let names = names.into_entries();
            let names = names.filter_map(|(field, value)| {
                let column = value.text("the name of a column, in quotes", mistakes)?;
                Some((field, column))
            });
            names.collect()
        });
    let deletes = table.optional("deletes").and_then(|value| {
        let is_wanted = value.boolean(mistakes)?;
        is_wanted.then(|| value.span())
    });
    if let (Some(place), None) = (&deletes, &key) {
        mistakes.push(
            Mistake::new(format!(
                "{} has `deletes`, and no key whose rows it could delete",
                table.owner()
            ))
            .at(place.clone(), "")
            .help("add `key = \"…\"`: the field by which results replace each other"),
        );
    }
    let on_error = read_on_error(table, mistakes);
    Some(Box::new(PostgresSinkSettings {
        connection: connection?,
        table: name?,
        key,
        names: names.unwrap_or_default(),
        deletes,
        on_error: on_error?,
    }))
}

/// Reads the name of a table.
pub fn read_table(value: &ConfigValue<'_>, mistakes: &mut Diagnostics) -> Option<String> {
    let text = value.text("the name of a table, in quotes", mistakes)?;
    let name = TableName::parse(text.get_ref());
    if is_name(&name.table) && name.schema.as_deref().is_none_or(is_name) {
        return Some(text.into_inner());
    }
    mistakes.push(
        Mistake::new(format!("{} cannot be the name of a table", value.what()))
            .at(text.span(), "")
            .help("write \"table\" or \"schema.table\", each of 1 to 63 bytes"),
    );
    None
}

impl SinkSettings for PostgresSinkSettings {
    fn plan(
        &self,
        columns: Option<&Schema>,
        planning: &mut Planning<'_>,
    ) -> Option<Box<dyn SinkConnector>> {
        let columns = columns?;
        let named = self.names.iter().map(|(field, _)| ("a column", field));
        let keys = self.key.iter().flatten().map(|field| ("the key", field));
        let mut is_good = true;
        for (role, name) in named.chain(keys) {
            if columns.index_of(name.get_ref()).is_some() {
                continue;
            }
            is_good = false;
            let fields = columns.fields.iter().map(|field| field.name.as_str());
            planning.mistakes.push(
                Mistake::new(format!(
                    "{} takes {role} from `{}`, which no row has",
                    planning.title,
                    name.get_ref()
                ))
                .at(name.span(), "")
                .help(suggest::help(name.get_ref(), "fields", fields)),
            );
        }
        let column_of = |field: &str| {
            let mut names = self.names.iter();
            let renamed = names.find(|(known, _)| known.get_ref() == field);
            renamed
                .map_or(field, |(_, column)| column.get_ref())
                .to_owned()
        };
        let mut seen = HashSet::new();
        for field in &columns.fields {
            let column = column_of(&field.name);
            let why = match (is_name(&column), seen.insert(column.clone())) {
                (false, _) => "no column can be called like that: names have 1 to 63 bytes",
                (true, false) => "two fields would go there",
                (true, true) => continue,
            };
            is_good = false;
            let mut names = self.names.iter();
            let place = names.find(|(known, _)| *known.get_ref() == field.name);
            let mut mistake = Mistake::new(format!(
                "{} cannot write the field `{}` to the column `{column}`: {why}",
                planning.title, field.name
            ))
            .help("give the column another name in `names = { field = \"column\" }`");
            if let Some((_, column)) = place {
                mistake = mistake.at(column.span(), "");
            }
            planning.mistakes.push(mistake);
        }
        if !is_good {
            return None;
        }
        let mut connection = self.connection.clone();
        connection.trusted = connection.trusted.map(|path| planning.folder.join(path));
        let key = self.key.iter().flatten();
        Some(Box::new(PostgresSink {
            connection,
            table: TableName::parse(&self.table),
            targets: columns
                .fields
                .iter()
                .map(|field| Target {
                    column: column_of(&field.name),
                    field: field.clone(),
                })
                .collect(),
            key: key.map(|field| column_of(field.get_ref())).collect(),
            deletes: self.deletes.is_some(),
            on_error: self.on_error,
        }))
    }

    fn deletes(&self) -> Option<Span> {
        self.deletes.clone()
    }

    fn key_fields(&self) -> Vec<&str> {
        let key = self.key.iter().flatten();
        key.map(|field| field.get_ref().as_str()).collect()
    }

    /// A transaction belongs to one connection.
    fn transaction(&self) -> Option<SinkTransaction> {
        let PostgresConnection { servers, .. } = &self.connection;
        Some(SinkTransaction {
            system: "PostgreSQL",
            owner: format!("{servers:?} {:?}", self.connection),
            decided_by: "`server`, `database`, `user` or `properties`",
        })
    }
}

impl SinkConnector for PostgresSink {
    fn describe(&self) -> Description {
        let (table, connection) = (self.table.shown(), &self.connection);
        let what = match (self.key.is_empty(), self.deletes) {
            (true, _) => "rows are added".to_owned(),
            (false, false) => format!("rows replace each other by {}", self.key.join(", ")),
            (false, true) => format!(
                "rows replace each other, and are deleted, by {}",
                self.key.join(", ")
            ),
        };
        Description {
            connector: KIND.name,
            lines: vec![
                format!("table {table} of {connection}"),
                what,
                describe_refused(self.on_error),
            ],
            settings: json!({
                "server": connection.places(),
                "database": connection.database,
                "table": table,
                "key": self.key,
            }),
            ..Description::default()
        }
    }

    fn delivery(&self) -> Delivery {
        Delivery::ExactlyOnce
    }

    fn delivery_note(&self) -> &'static str {
        "in one transaction with the number of their checkpoint"
    }

    fn is_transactional(&self) -> bool {
        true
    }

    fn on_error(&self) -> Option<OnError> {
        Some(self.on_error)
    }

    fn participant(&self, pipeline: &CommitContext<'_>) -> Option<Arc<dyn Participant>> {
        Some(Arc::new(PostgresTransaction::new(
            &self.connection,
            pipeline,
        )))
    }

    fn ddl(&self, delivery: Option<Delivery>) -> Vec<String> {
        let table = table::ddl(&self.table, &self.targets, &self.key);
        let progress = (delivery == Some(Delivery::ExactlyOnce)).then(|| TABLE_DDL.to_owned());
        [Some(table), progress].into_iter().flatten().collect()
    }

    fn open(
        &self,
        node: &str,
        _: &Arc<Schema>,
        context: &SinkContext,
    ) -> Result<Box<dyn Sink>, SinkError> {
        Ok(Box::new(PostgresWriter::open(node, self, context)?))
    }
}

/// The sink at work.
struct PostgresWriter {
    node: String,
    plan: PostgresSink,
    session: Arc<Session>,
    turn: Turn,
    statements: Arc<Statements>,
    /// How the values of each column are written.
    forms: Vec<Form>,
    /// The fields of the key.
    key: Vec<usize>,
    /// Rows that are to be sent.
    rows: Vec<u8>,
    row_count: u64,
    /// The same, and those that are on their way, where some may be refused.
    unsent: SentRows,
    under_way: SentRows,
    sent: Option<Answer<Vec<Refused>>>,
    refusals: Refusals,
    /// When it is looked at whether they have arrived, in ms of the clock.
    look_at_ms: i64,
    clock: Arc<dyn Clock>,
}

impl PostgresWriter {
    fn open(node: &str, plan: &PostgresSink, context: &SinkContext) -> Result<Self, SinkError> {
        let who = format!("sink `{node}`");
        let failed = |failure: Failure| error_of(node, plan, failure.cause, failure.fault);
        let transaction = context.transaction::<PostgresTransaction>();
        let session = match &transaction {
            Some(transaction) => transaction
                .session()
                .map_err(|error| error_of(node, plan, error, Fault::BUG))?,
            None => {
                let session = Session::open(&who, &plan.connection, &context.stop);
                Arc::new(session.map_err(failed)?)
            }
        };
        let (name, privileges) = (plan.table.clone(), plan.privileges());
        let found = session.run(move |client: Arc<Client>| async move {
            table::find(&client, &name, privileges).await
        });
        let Some(found) = found.map_err(failed)? else {
            let cause = "there is no such table; create it, as `sluicebox check --ddl` prints it, \
                         or correct `table`, where capital letters count";
            return Err(error_of(node, plan, cause, Fault::OUTSIDE_LASTING));
        };
        let problems = found.problems(&plan.table, &plan.targets, &plan.key);
        if !problems.is_empty() {
            let cause = problems.join("; ");
            return Err(error_of(node, plan, cause, Fault::OUTSIDE_LASTING));
        }
        let refusals = Refusals::new(node, plan.on_error);
        for column in found.nullable(&plan.targets) {
            let becomes = match refusals.goes_on() {
                true => "be refused",
                false => "stop the pipeline",
            };
            tracing::warn!(
                "{who}: the column `{column}` of table {} is NOT NULL, and its field may be null: \
                 such a row would {becomes}",
                plan.table.shown()
            );
        }
        let is_transactional = transaction.is_some();
        let key = plan.targets.iter().enumerate();
        let key = key.filter(|(_, target)| plan.key.contains(&target.column));
        Ok(PostgresWriter {
            node: node.to_owned(),
            session,
            turn: Turn::new(is_transactional),
            statements: Arc::new(plan.statements(node, is_transactional)),
            forms: plan.targets.iter().map(|it| found.form(it)).collect(),
            key: key.map(|(index, _)| index).collect(),
            plan: plan.clone(),
            rows: Vec::new(),
            row_count: 0,
            unsent: SentRows::default(),
            under_way: SentRows::default(),
            sent: None,
            refusals,
            look_at_ms: i64::MIN,
            clock: context.clock.clone(),
        })
    }

    /// Appends the rows' text.
    fn encode(&mut self, batch: &Batch) -> Result<(), SinkError> {
        let columns = batch.columns.iter().zip(&self.forms);
        let columns: Vec<Encoder<'_>> = columns
            .map(|(array, form)| Encoder::new(array, *form))
            .collect();
        let has_key = !self.key.is_empty();
        let mut first = 0;
        for row in 0..batch.rows() {
            let start = self.rows.len();
            if let Err((column, why)) = write_row(&mut self.rows, &columns, &self.key, row) {
                self.rows.truncate(start);
                self.note(batch, first..row);
                first = row + 1;
                let field = &self.plan.targets[column].field.name;
                let why = format!("the field `{field}` {why}");
                self.refuse(&why, batch, row)?;
                continue;
            }
            if has_key {
                let gone = if batch.is_taken_back(row) { 't' } else { 'f' };
                let tail = format!("\t{}\t{gone}", self.row_count);
                self.rows.extend_from_slice(tail.as_bytes());
            }
            self.rows.push(b'\n');
            self.row_count += 1;
        }
        self.note(batch, first..batch.rows());
        Ok(())
    }

    /// Remembers whose rows are to be sent.
    fn note(&mut self, batch: &Batch, rows: Range<usize>) {
        if self.refusals.goes_on() {
            self.unsent.push(batch, rows);
        }
    }

    /// A row that the table cannot take: it would fail again.
    fn refuse(&mut self, why: &str, batch: &Batch, row: usize) -> Result<(), SinkError> {
        let refused = self.refusals.refuse_row(batch, row, why);
        refused.map_err(|cause| self.error(cause, Fault::ROW))
    }

    /// Sends the rows, when those before them have arrived.
    fn send(&mut self) -> Result<(), SinkError> {
        self.wait()?;
        if self.rows.is_empty() {
            return Ok(());
        }
        let room = self.rows.len();
        let rows = std::mem::replace(&mut self.rows, Vec::with_capacity(room));
        self.row_count = 0;
        self.under_way = std::mem::take(&mut self.unsent);
        let statements = self.statements.clone();
        let sent = self.session.start_series(|client, answered| async move {
            copy(&client, &statements, rows, &answered).await
        });
        self.sent = Some(sent.map_err(|failure| self.failed(failure))?);
        self.look_at_ms = self.clock.now_ms().saturating_add(LOOK_AFTER_MS);
        Ok(())
    }

    /// Waits until the rows that were sent have arrived.
    fn wait(&mut self) -> Result<(), SinkError> {
        match self.sent.take() {
            Some(sent) => self.settle(sent.wait()),
            None => Ok(()),
        }
    }

    /// Sees to the rows that the server has refused.
    fn settle(&mut self, answer: Result<Vec<Refused>, Failure>) -> Result<(), SinkError> {
        let rows = std::mem::take(&mut self.under_way);
        let refused = answer.map_err(|failure| self.failed(failure))?;
        let mut refused = refused.into_iter().peekable();
        for (number, (batch, row)) in rows.iter().enumerate() {
            match refused.next_if(|(refused, _)| *refused == number) {
                Some((_, why)) => self.refuse(&why, batch, row)?,
                None if refused.peek().is_none() => break,
                None => {}
            }
        }
        Ok(())
    }

    fn failed(&self, failure: Failure) -> SinkError {
        // Otherwise such rows were refused before.
        let fault = match failure.fault.blame == Blame::Row && !self.refusals.goes_on() {
            true => Fault::ROW,
            false => failure.fault,
        };
        self.error(failure.cause, fault)
    }

    fn error(&self, cause: impl fmt::Display, fault: Fault) -> SinkError {
        error_of(&self.node, &self.plan, cause, fault)
    }
}

impl Sink for PostgresWriter {
    fn write(&mut self, batch: &Batch) -> Result<(), SinkError> {
        self.encode(batch)?;
        if !self.turn.waits() && self.rows.len() >= SEND_BYTES {
            self.send()?;
        }
        Ok(())
    }

    /// Nobody sees the rows of a transaction earlier if they are sent earlier.
    fn flush(&mut self) -> Result<(), SinkError> {
        if let Some(answer) = self.sent.as_ref().and_then(Answer::take) {
            self.sent = None;
            self.settle(answer)?;
        }
        self.look_at_ms = self.clock.now_ms().saturating_add(LOOK_AFTER_MS);
        match self.turn.is_transactional {
            true => Ok(()),
            false => self.send(),
        }
    }

    /// What has become of the rows that were sent is looked at although no more come.
    fn flush_at_ms(&self) -> Option<i64> {
        self.sent.is_some().then_some(self.look_at_ms)
    }

    fn drain(&mut self) -> Result<(), SinkError> {
        match self.turn.is_transactional {
            true => Ok(()),
            false => {
                self.send()?;
                self.wait()
            }
        }
    }

    fn take_refused(&mut self) -> RefusedRows {
        self.refusals.take()
    }

    fn barrier(&mut self, id: CheckpointId) -> Result<SinkSnapshot, SinkError> {
        self.send()?;
        self.wait()?;
        self.turn.barrier(id);
        Ok(SinkSnapshot::default())
    }

    fn committed(&mut self, id: CheckpointId) -> Result<(), SinkError> {
        match self.turn.committed(id) && self.rows.len() >= SEND_BYTES {
            true => self.send(),
            false => Ok(()),
        }
    }

    fn is_full(&self) -> bool {
        self.turn.waits() && self.rows.len() >= HELD_BYTES_MAX
    }

    /// All was sent at the end of the input, or with the last checkpoint.
    fn finish(&mut self, _: Ending) -> Result<(), SinkError> {
        Ok(())
    }
}

/// Appends a row's values. The error says which column cannot be written, and why.
fn write_row(
    out: &mut Vec<u8>,
    columns: &[Encoder<'_>],
    key: &[usize],
    row: usize,
) -> Result<(), (usize, String)> {
    if let Some(&column) = key.iter().find(|&&column| columns[column].is_null(row)) {
        let why = "is null, and rows replace each other by it";
        return Err((column, why.to_owned()));
    }
    for (column, encoder) in columns.iter().enumerate() {
        if column > 0 {
            out.push(b'\t');
        }
        let written = encoder.write(out, row);
        written.map_err(|why| (column, why.to_string()))?;
    }
    Ok(())
}

impl PostgresSink {
    /// What its user has to be allowed.
    fn privileges(&self) -> &'static [&'static str] {
        match (self.key.is_empty(), self.deletes) {
            (true, _) => &["INSERT"],
            (false, false) => &["INSERT", "UPDATE", "SELECT"],
            (false, true) => &["INSERT", "UPDATE", "SELECT", "DELETE"],
        }
    }

    fn statements(&self, node: &str, is_transactional: bool) -> Statements {
        let table = self.table.sql();
        let columns: Vec<String> = self.targets.iter().map(|it| quoted(&it.column)).collect();
        let all = columns.join(", ");
        let goes_on = self.on_error != OnError::Fail;
        let apart = |before: &str, copy: String, write: Vec<String>, end: Option<String>| {
            let opened = if is_transactional { "" } else { "BEGIN; " };
            Statements::Apart(Apart {
                begin: format!("{opened}{before}{SAVE}"),
                copy,
                write,
                end,
                commits: !is_transactional,
            })
        };
        if self.key.is_empty() {
            let copy = format!("COPY {table} ({all}) FROM STDIN");
            return match goes_on {
                true => apart("", copy, Vec::new(), None),
                false => Statements::Whole {
                    before: None,
                    copy,
                    after: None,
                },
            };
        }
        // Rows go to a table of the connection first, with the target's types. Of several
        // rows of a key, the last one counts. They are written in the order of their keys,
        // so that two writers do not wait for each other in a circle.
        let number = XxHash3_64::oneshot(node.as_bytes());
        let own = quoted(&format!("sluicebox_{number:016x}"));
        let (row, gone) = (quoted(ROW), quoted(GONE));
        let made = format!(
            "CREATE TEMPORARY TABLE IF NOT EXISTS {own} ON COMMIT DELETE ROWS AS \
             SELECT {all}, 0::bigint AS {row}, false AS {gone} FROM {table} WITH NO DATA"
        );
        let key: Vec<String> = self.key.iter().map(|column| quoted(column)).collect();
        let key = key.join(", ");
        let others = columns.iter().filter(|column| {
            let is_key = |key: &String| quoted(key) == **column;
            !self.key.iter().any(is_key)
        });
        let others: Vec<String> = others
            .map(|column| format!("{column} = EXCLUDED.{column}"))
            .collect();
        let replace = match others.is_empty() {
            true => "NOTHING".to_owned(),
            false => format!("UPDATE SET {}", others.join(", ")),
        };
        // Of rows for which this holds.
        let write = |which: &str| {
            let last = format!(
                "(SELECT DISTINCT ON ({key}) * FROM {own}{which} ORDER BY {key}, {row} DESC) AS came"
            );
            let same = self.key.iter().map(|column| {
                let column = quoted(column);
                format!("target.{column} = came.{column}")
            });
            let same = Vec::from_iter(same).join(" AND ");
            let delete =
                format!("DELETE FROM {table} AS target USING {last} WHERE came.{gone} AND {same}");
            let insert = format!(
                "INSERT INTO {table} ({all}) SELECT {all} FROM {last} WHERE NOT came.{gone} \
                 ORDER BY {key} ON CONFLICT ({key}) DO {replace}"
            );
            let delete = self.deletes.then_some(delete);
            Vec::from_iter(delete.into_iter().chain([insert]))
        };
        let copy = format!("COPY {own} FROM STDIN");
        let emptied = format!("TRUNCATE {own}");
        if goes_on {
            let write = write(&format!(" WHERE {row} >= $1 AND {row} < $2"));
            return apart(&format!("{made}; "), copy, write, Some(emptied));
        }
        let (opened, end) = match is_transactional {
            true => ("", emptied.as_str()),
            false => ("BEGIN; ", "COMMIT"),
        };
        Statements::Whole {
            before: Some(format!("{opened}{made}")),
            copy,
            after: Some(format!("{}; {end}", write("").join("; "))),
        }
    }
}

fn error_of(node: &str, plan: &PostgresSink, cause: impl fmt::Display, fault: Fault) -> SinkError {
    let what = format!("to table `{}` of {}", plan.table.shown(), plan.connection);
    SinkError::new(node, what, cause, fault)
}
