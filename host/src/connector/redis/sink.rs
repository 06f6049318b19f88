//! The sink `redis`: each row is a hash, a value, a member of a sorted set, an element of a
//! list, an entry of a stream, or a message.
//!
//! With the pipeline's transaction, the server queues commands until their checkpoint is
//! committed. Those of rows that come during the commit belong to the next transaction, and
//! are kept until then. Without it, commands are executed at once; a checkpoint waits until
//! they are, and after a failure, those since the last checkpoint are sent again.

use std::fmt;
use std::sync::Arc;

use serde_json::json;
use toml::Spanned;

use super::command::{KINDS, KeyPart, Kind, Layout, OWN_KEYS};
use super::keys::read_connection;
use super::transaction::{RedisTransaction, queued};
use super::{Commands, Failure, RedisConnection, Session, checked};
use crate::batch::Batch;
use crate::blame::Fault;
use crate::checkpoint::snapshot::SinkSnapshot;
use crate::checkpoint::transaction::Participant;
use crate::config::diagnostics::{Diagnostics, Mistake, Span};
use crate::config::reader::{ConfigValue, Table};
use crate::connector::server::Turn;
use crate::connector::template::{self, Part};
use crate::connector::{Description, Planning};
use crate::dead_letter::OnError;
use crate::element::CheckpointId;
use crate::plan::state::Delivery;
use crate::quantity::show_ms;
use crate::schema::Schema;
use crate::sink::{
    CommitContext, Ending, Refusals, RefusedRows, Sink, SinkConnector, SinkContext, SinkError,
    SinkKind, SinkSettings, SinkTransaction, describe_refused, read_on_error,
};
use crate::suggest;

pub const KIND: SinkKind = SinkKind {
    name: "redis",
    read,
};

/// Commands are sent when they are as long as this, or when there is no reason to wait.
const SEND_BYTES: usize = 256 << 10;

/// How many bytes of commands are kept during a commit; beyond that no rows are taken.
const HELD_BYTES_MAX: usize = 64 << 20;

/// The keys of its table.
#[derive(Debug)]
struct RedisSinkSettings {
    connection: RedisConnection,
    kind: Kind,
    key: Vec<Part>,
    /// Where the template is, behind its quote.
    key_at: usize,
    key_place: Span,
    value: Option<Spanned<String>>,
    member: Option<Spanned<String>>,
    score: Option<Spanned<String>>,
    expires_ms: Option<i64>,
    length: Option<i64>,
    /// The place of `deletes = true`.
    deletes: Option<Span>,
    on_error: OnError,
}

/// The server to write to, and what rows are there.
#[derive(Clone, Debug)]
pub struct RedisSink {
    connection: RedisConnection,
    /// As it is written.
    key: String,
    layout: Layout,
    on_error: OnError,
}

fn read(table: &mut Table<'_>, mistakes: &mut Diagnostics) -> Option<Box<dyn SinkSettings>> {
    let connection = read_connection(table, mistakes);
    let meaning = "what a row is there: \"hash\", \"string\", \"sorted_set\", \"list\", \"stream\" or \"publish\"";
    let kind = table
        .required("as", meaning, mistakes)
        .and_then(|value| value.choice(&KINDS, mistakes));
    let meaning = "the key, stream or channel, such as \"cart:{user_id}\"";
    let key = table.required("key", meaning, mistakes).and_then(|value| {
        let parts = read_key(&value, mistakes)?;
        Some((parts, value.span()))
    });
    let field = "the name of a field, in quotes";
    let sorted: fn(Kind) -> bool = |kind| kind == Kind::SortedSet;
    let mut only = |key: &'static str, is_good: fn(Kind) -> bool| {
        read_only(table, key, kind.as_ref(), is_good, mistakes)
    };
    let value = only("value", Kind::has_value);
    let member = only("member", sorted);
    let score = only("score", sorted);
    let length = only("length", Kind::has_length);
    let expires = only("expires", |kind| kind != Kind::Publish);
    let deletes = only("deletes", Kind::is_idempotent);
    let value = value.and_then(|value| value.text(field, mistakes));
    let member = member.and_then(|value| value.text(field, mistakes));
    let score = score.and_then(|value| value.text(field, mistakes));
    let length = length.and_then(|value| value.integer(1..=1_000_000_000, mistakes));
    let expires = expires.and_then(|value| value.duration(1, mistakes));
    let deletes = deletes.and_then(|value| {
        let is_wanted = value.boolean(mistakes)?;
        is_wanted.then(|| value.span())
    });
    let on_error = read_on_error(table, mistakes);
    let kind = kind?;
    if *kind.get_ref() == Kind::SortedSet {
        for (name, given) in [("member", &member), ("score", &score)] {
            if given.is_none() && table.place_of(name).is_none() {
                mistakes.push(
                    Mistake::new(format!("{} has no `{name}`", table.owner()))
                        .at(kind.span(), "")
                        .help(format!("add `{name} = \"…\"`: the field with it")),
                );
            }
        }
        member.as_ref().zip(score.as_ref())?;
    }
    let (key, key_place) = key?;
    Some(Box::new(RedisSinkSettings {
        connection: connection?,
        kind: kind.into_inner(),
        key,
        key_at: key_place.start + 1,
        key_place,
        value,
        member,
        score,
        expires_ms: expires.map(Spanned::into_inner),
        length: length.map(Spanned::into_inner),
        deletes,
        on_error: on_error?,
    }))
}

/// Reads a key that only some kinds of rows have.
fn read_only<'a>(
    table: &mut Table<'a>,
    key: &'static str,
    kind: Option<&Spanned<Kind>>,
    is_good: fn(Kind) -> bool,
    mistakes: &mut Diagnostics,
) -> Option<ConfigValue<'a>> {
    let value = table.optional(key)?;
    let kind = kind?;
    if is_good(*kind.get_ref()) {
        return Some(value);
    }
    let kinds = KINDS.iter().filter(|(_, kind)| is_good(*kind));
    let names: Vec<&str> = kinds.map(|(name, _)| *name).collect();
    mistakes.push(
        value
            .means_nothing(format!("it is for `as`: {}", suggest::one_of(&names)))
            .at(kind.span(), ""),
    );
    None
}

fn read_key(value: &ConfigValue<'_>, mistakes: &mut Diagnostics) -> Option<Vec<Part>> {
    let text = value.text("a key, in quotes", mistakes)?;
    match template::parse(text.get_ref()) {
        Ok(parts) if matches!(parts.first(), Some(Part::Text(text)) if text.starts_with(OWN_KEYS)) =>
        {
            mistakes.push(
                Mistake::new(format!(
                    "{} begins with `{OWN_KEYS}`, as the keys do that have the numbers of checkpoints",
                    value.what()
                ))
                .at(text.span(), "")
                .help("begin it with another word"),
            );
            None
        }
        Ok(parts) => Some(parts),
        Err((why, _)) => {
            mistakes.push(
                Mistake::new(format!("{} cannot be a key: {why}", value.what()))
                    .at(text.span(), "")
                    .help("write fields in braces, as in \"cart:{user_id}\""),
            );
            None
        }
    }
}

impl SinkSettings for RedisSinkSettings {
    fn plan(
        &self,
        columns: Option<&Schema>,
        planning: &mut Planning<'_>,
    ) -> Option<Box<dyn SinkConnector>> {
        let columns = columns?;
        let title = planning.title;
        let mut column = |role: &str, name: &str, place: Span| {
            let found = columns.index_of(name);
            if found.is_none() {
                let fields = columns.fields.iter().map(|field| field.name.as_str());
                planning.mistakes.push(
                    Mistake::new(format!(
                        "{title} takes {role} from `{name}`, which no row has"
                    ))
                    .at(place, "")
                    .help(suggest::help(name, "fields", fields)),
                );
            }
            found
        };
        let mut key = Vec::new();
        let mut shown = String::new();
        for part in &self.key {
            match part {
                Part::Text(text) => {
                    shown.push_str(text);
                    key.push(Some(KeyPart::Text(text.clone())));
                }
                Part::Field(name, at) => {
                    shown.push_str(&format!("{{{name}}}"));
                    // Escapes in the quotes would move it.
                    let length = self.key_place.len();
                    let place = match at.end + 2 <= length {
                        true => self.key_at + at.start..self.key_at + at.end,
                        false => self.key_place.clone(),
                    };
                    key.push(column("the key", name, place).map(KeyPart::Column));
                }
            }
        }
        let mut of = |role: &str, field: &Option<Spanned<String>>| match field {
            None => Some(None),
            Some(field) => column(role, field.get_ref(), field.span()).map(Some),
        };
        let value = of("the value", &self.value);
        let member = of("the member", &self.member);
        let score = of("the score", &self.score);
        if let (Some(Some(score)), Some(name)) = (score, &self.score) {
            let data_type = &columns.fields[score].data_type;
            if !data_type.is_number() {
                planning.mistakes.push(
                    Mistake::new(format!(
                        "{title} takes the score from `{}`, which is {data_type} and no number",
                        name.get_ref()
                    ))
                    .at(name.span(), ""),
                );
                return None;
            }
        }
        Some(Box::new(RedisSink {
            connection: self.connection.clone(),
            key: shown,
            layout: Layout {
                kind: self.kind,
                key: key.into_iter().collect::<Option<_>>()?,
                names: columns.fields.iter().map(|it| it.name.clone()).collect(),
                value: value?,
                member: member?,
                score: score?,
                expires_ms: self.expires_ms,
                length: self.length,
            },
            on_error: self.on_error,
        }))
    }

    fn deletes(&self) -> Option<Span> {
        self.deletes.clone()
    }

    fn key_fields(&self) -> Vec<&str> {
        let fields = self.key.iter().filter_map(|part| match part {
            Part::Field(name, _) => Some(name.as_str()),
            Part::Text(_) => None,
        });
        let member = self.member.iter().map(|field| field.get_ref().as_str());
        fields.chain(member).collect()
    }

    /// A transaction belongs to one connection.
    fn transaction(&self) -> Option<SinkTransaction> {
        Some(SinkTransaction {
            system: "Redis",
            owner: format!("{:?}", self.connection),
            decided_by: "`server`, `database`, `user` or `tls`",
        })
    }
}

impl SinkConnector for RedisSink {
    fn describe(&self) -> Description {
        let (key, kind) = (&self.key, self.layout.kind);
        let what = match kind {
            Kind::Hash => format!("a hash at {key}"),
            Kind::String => format!("a value at {key}"),
            Kind::SortedSet => format!("a member of the sorted set {key}"),
            Kind::List => format!("an element of the list {key}"),
            Kind::Stream => format!("an entry of the stream {key}"),
            Kind::Publish => format!("a message to the channel {key}"),
        };
        let mut lines = vec![format!("{what} on {}", self.connection)];
        let expires = self
            .layout
            .expires_ms
            .map(|ms| format!("expires after {}", show_ms(ms)));
        let length = self.layout.length.map(|length| match kind {
            Kind::Stream => format!("about the last {length} entries are kept"),
            _ => format!("the last {length} elements are kept"),
        });
        lines.extend([expires, length].into_iter().flatten());
        lines.push(describe_refused(self.on_error));
        Description {
            connector: KIND.name,
            lines,
            settings: json!({
                "server": format!("{}:{}", self.connection.server.host, self.connection.server.port),
                "database": self.connection.database,
                "as": kind.name(),
                "key": key,
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
        Some(Arc::new(RedisTransaction::new(&self.connection, pipeline)))
    }

    fn open(
        &self,
        node: &str,
        _: &Arc<Schema>,
        context: &SinkContext,
    ) -> Result<Box<dyn Sink>, SinkError> {
        let transaction = context.transaction::<RedisTransaction>();
        let session = match &transaction {
            Some(transaction) => transaction
                .session()
                .map_err(|error| error_of(node, self, error, Fault::BUG))?,
            None => {
                let session = Session::open(&self.connection);
                let failed = |failure: Failure| error_of(node, self, failure.cause, failure.fault);
                Arc::new(session.map_err(failed)?)
            }
        };
        Ok(Box::new(RedisWriter {
            node: node.to_owned(),
            plan: self.clone(),
            session,
            turn: Turn::new(transaction.is_some()),
            commands: Commands::default(),
            refusals: Refusals::new(node, self.on_error),
        }))
    }
}

/// The sink at work.
struct RedisWriter {
    node: String,
    plan: RedisSink,
    session: Arc<Session>,
    turn: Turn,
    /// Those that are to be sent.
    commands: Commands,
    refusals: Refusals,
}

impl RedisWriter {
    /// Sends the commands, and waits until they are executed, or queued.
    fn send(&mut self) -> Result<(), SinkError> {
        if self.commands.is_empty() {
            return Ok(());
        }
        let answers = self.session.run(&self.commands);
        self.commands.clear();
        let done = answers.and_then(|answers| match self.turn.is_transactional {
            true => queued(answers),
            false => answers
                .into_iter()
                .try_for_each(|answer| checked(answer).map(drop)),
        });
        done.map_err(|failure| self.error(failure.cause, failure.fault))
    }

    fn error(&self, cause: impl fmt::Display, fault: Fault) -> SinkError {
        error_of(&self.node, &self.plan, cause, fault)
    }
}

impl Sink for RedisWriter {
    fn write(&mut self, batch: &Batch) -> Result<(), SinkError> {
        let RedisSink { layout, .. } = &self.plan;
        let (commands, refusals) = (&mut self.commands, &mut self.refusals);
        let written = layout.write(batch, commands, |row, (column, why)| {
            let why = format!("the field `{}` {why}", layout.names[column]);
            refusals.refuse_row(batch, row, &why)
        });
        written.map_err(|cause| self.error(cause, Fault::ROW))?;
        match !self.turn.waits() && self.commands.bytes() >= SEND_BYTES {
            true => self.send(),
            false => Ok(()),
        }
    }

    /// The commands of a transaction are not executed earlier if they are sent earlier.
    fn flush(&mut self) -> Result<(), SinkError> {
        match self.turn.is_transactional {
            true => Ok(()),
            false => self.send(),
        }
    }

    fn take_refused(&mut self) -> RefusedRows {
        self.refusals.take()
    }

    fn barrier(&mut self, id: CheckpointId) -> Result<SinkSnapshot, SinkError> {
        self.send()?;
        self.turn.barrier(id);
        Ok(SinkSnapshot::default())
    }

    fn committed(&mut self, id: CheckpointId) -> Result<(), SinkError> {
        match self.turn.committed(id) && self.commands.bytes() >= SEND_BYTES {
            true => self.send(),
            false => Ok(()),
        }
    }

    fn is_full(&self) -> bool {
        self.turn.waits() && self.commands.bytes() >= HELD_BYTES_MAX
    }

    /// The last checkpoint has committed all commands of the transaction.
    fn finish(&mut self, _: Ending) -> Result<(), SinkError> {
        match self.turn.is_transactional {
            true => Ok(()),
            false => self.send(),
        }
    }
}

fn error_of(node: &str, plan: &RedisSink, cause: impl fmt::Display, fault: Fault) -> SinkError {
    let what = format!("to `{}` on {}", plan.key, plan.connection);
    SinkError::new(node, what, cause, fault)
}
