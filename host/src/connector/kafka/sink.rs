//! The sink `kafka`: writes rows to a topic, each as a JSON object, or as a message with a
//! schema.
//!
//! Without a transaction, rows are sent at once, and a checkpoint waits until
//! they have arrived: after a failure, rows since the last checkpoint are sent
//! again. With the pipeline's transaction, readers see rows when their
//! checkpoint is committed. Rows that come during the commit belong to the next
//! transaction and are held until then.

use std::sync::Arc;
use std::time::Duration;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef};
use arrow_schema::DataType as ArrowType;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::{Header, OwnedHeaders};

use serde_json::json;
use toml::Spanned;

use super::keys::{Owned, RegistryKeys, read_connection, read_registry, read_topic};
use super::producer::{DEFAULTS, Patience, Producer, REQUIRED, SendFailure, TransactionProducer};
use super::registry::{OwnSchema, Registry, RegistryConnection};
use super::transaction::KafkaTransaction;
use super::{KafkaConnection, cause, fault_of, settings};
use crate::batch::Batch;
use crate::blame::Fault;
use crate::checkpoint::snapshot::SinkSnapshot;
use crate::checkpoint::transaction::Participant;
use crate::config::diagnostics::{Diagnostics, Mistake, Span};
use crate::config::format::FormatKind;
use crate::config::messages::MessageKeys;
use crate::config::reader::{ConfigValue, Table};
use crate::connector::{Description, Planning};
use crate::dead_letter::OnError;
use crate::element::CheckpointId;
use crate::encode::MessageEncoder;
use crate::format::MessageFormat;
use crate::json::{JsonColumns, write_value};
use crate::plan::state::Delivery;
use crate::schema::Schema;
use crate::sink::{
    CommitContext, Ending, Refusals, RefusedRows, Sink, SinkConnector, SinkContext, SinkError,
    SinkKind, SinkSettings, SinkTransaction, describe_refused, read_on_error,
};
use crate::stop::Stop;
use crate::suggest;

pub const KIND: SinkKind = SinkKind {
    name: "kafka",
    read,
};

/// Without a transaction, a row waits this long for others to be sent with.
const LINGER: (&str, &str) = ("linger.ms", "1");

/// How many bytes of rows are held during a commit; beyond that no rows are
/// taken.
const HELD_BYTES_MAX: usize = 64 << 20;

/// Normally not reached: rows that do not arrive fail after
/// `message.timeout.ms`, five minutes unless the config says otherwise.
const ARRIVAL_MAX: Duration = Duration::from_secs(3_600);

/// The keys of its table.
#[derive(Debug)]
struct KafkaSinkSettings {
    connection: KafkaConnection,
    topic: String,
    key: Option<Spanned<String>>,
    /// The place of `tombstones = true`.
    tombstones: Option<Span>,
    /// Names of headers, and the fields that their values are taken from.
    headers: Vec<(String, Spanned<String>)>,
    /// `None` for JSON, else the place of `format`.
    message: Option<(MessageFormat, Span)>,
    registry: Option<RegistryKeys>,
    on_error: OnError,
}

/// The topic to write, and what becomes key and headers.
#[derive(Clone, Debug)]
pub struct KafkaSink {
    pub connection: KafkaConnection,
    pub topic: String,
    /// The column whose value is the message's key.
    pub key: Option<usize>,
    /// Whether a row that is taken back deletes its key.
    pub has_tombstones: bool,
    /// Names of headers, and the columns that their values are taken from.
    pub headers: Vec<(String, usize)>,
    pub payload: PayloadPlan,
    pub on_error: OnError,
}

/// What the message of a row is.
#[derive(Clone, Debug)]
pub enum PayloadPlan {
    Json,
    Message(Arc<MessagePayload>),
}

/// Rows whose bytes a schema explains.
#[derive(Debug)]
pub struct MessagePayload {
    encoder: MessageEncoder,
    registry: Option<RegisteredIn>,
}

/// Where a schema gets the number that messages begin with.
#[derive(Debug)]
struct RegisteredIn {
    connection: RegistryConnection,
    subject: String,
    /// Whether it may be added.
    registers: bool,
    /// The schema.
    text: String,
}

impl RegisteredIn {
    fn own(&self, encoder: &MessageEncoder) -> OwnSchema {
        let own = encoder.clone();
        OwnSchema {
            subject: self.subject.clone(),
            language: encoder.language(),
            text: self.text.clone(),
            may_be_added: self.registers,
            is_same: Box::new(move |other| own.is_written_as(other)),
        }
    }
}

const OWNED_BY_SINKS: Owned = &[
    (
        "transactional.id",
        "the pipeline's transaction is named after the pipeline",
    ),
    (
        "enable.idempotence",
        "it is always on, so that no row comes twice",
    ),
];

const FORMATS: [(&str, FormatKind); 3] = [
    ("json", FormatKind::Json),
    ("avro", FormatKind::Avro),
    ("protobuf", FormatKind::Protobuf),
];

fn read(table: &mut Table<'_>, mistakes: &mut Diagnostics) -> Option<Box<dyn SinkSettings>> {
    let connection = read_connection(table, OWNED_BY_SINKS, mistakes);
    let topic = table
        .required("topic", "the topic to write", mistakes)
        .and_then(|value| read_topic(&value, mistakes));
    let format = table.optional("format");
    let place = format.as_ref().map(ConfigValue::span);
    let format = format.and_then(|value| value.choice(&FORMATS, mistakes));
    let keys = MessageKeys::read(table);
    let message = match format.map(Spanned::into_inner) {
        Some(FormatKind::Avro) => Some(keys.avro(table, mistakes)),
        Some(FormatKind::Protobuf) => Some(keys.protobuf(table, mistakes)),
        _ => {
            keys.refuse(table, "json", mistakes);
            None
        }
    };
    let registry = table
        .optional("registry")
        .map(|value| read_registry(&value, true, mistakes));
    let field = "the name of a field, in quotes";
    let key = table
        .optional("key")
        .and_then(|value| value.text(field, mistakes));
    let tombstones = table.optional("tombstones").and_then(|value| {
        let is_wanted = value.boolean(mistakes)?;
        is_wanted.then(|| value.span())
    });
    if let (Some(place), None) = (&tombstones, &key) {
        mistakes.push(
            Mistake::new(format!(
                "{} has `tombstones`, and no key that they could delete",
                table.owner()
            ))
            .at(place.clone(), "")
            .help("add `key = \"…\"`: the field by which results replace each other"),
        );
    }
    let headers = table
        .optional("headers")
        .and_then(|value| value.table(mistakes))
        .map(|headers| {
            headers
                .into_entries()
                .filter_map(|(name, value)| Some((name.into_inner(), value.text(field, mistakes)?)))
                .collect()
        });
    let on_error = read_on_error(table, mistakes);
    Some(Box::new(KafkaSinkSettings {
        connection: connection?,
        topic: topic?,
        key,
        tombstones,
        headers: headers.unwrap_or_default(),
        message: match message {
            Some(message) => Some(message?).zip(place),
            None => None,
        },
        registry: match registry {
            Some(registry) => Some(registry?),
            None => None,
        },
        on_error: on_error?,
    }))
}

impl SinkSettings for KafkaSinkSettings {
    fn plan(
        &self,
        columns: Option<&Schema>,
        planning: &mut Planning<'_>,
    ) -> Option<Box<dyn SinkConnector>> {
        let (title, columns) = (planning.title, columns?);
        let mut column = |role: &str, name: &Spanned<String>| {
            let found = columns.index_of(name.get_ref());
            if found.is_none() {
                let fields = columns.fields.iter().map(|field| field.name.as_str());
                planning.mistakes.push(
                    Mistake::new(format!(
                        "{title} takes {role} from `{}`, which no row has",
                        name.get_ref()
                    ))
                    .at(name.span(), "")
                    .help(suggest::help(name.get_ref(), "fields", fields)),
                );
            }
            found
        };
        let key = self.key.as_ref().map(|name| column("the key", name));
        let headers: Vec<Option<(String, usize)>> = self
            .headers
            .iter()
            .map(|(header, name)| {
                let role = format!("the header `{header}`");
                Some((header.clone(), column(&role, name)?))
            })
            .collect();
        let payload = match &self.message {
            Some((format, place)) => {
                let planned = self.message(format, columns);
                if let Err(why) = &planned {
                    let language = match format {
                        MessageFormat::Avro(_) => "Avro",
                        MessageFormat::Protobuf(_) => "Protobuf",
                    };
                    planning.mistakes.push(
                        Mistake::new(format!(
                            "{title} cannot write its rows as {language}: {why}"
                        ))
                        .at(place.clone(), "")
                        .help(
                            "correct the schema, or the rows: an operator with `select` \
                                 renames fields and leaves some out",
                        ),
                    );
                }
                planned
                    .ok()
                    .map(|planned| PayloadPlan::Message(Arc::new(planned)))
            }
            None => Some(PayloadPlan::Json),
        };
        Some(Box::new(KafkaSink {
            payload: payload?,
            connection: self.connection.clone(),
            topic: self.topic.clone(),
            key: match key {
                Some(key) => Some(key?),
                None => None,
            },
            has_tombstones: self.tombstones.is_some(),
            headers: headers.into_iter().collect::<Option<_>>()?,
            on_error: self.on_error,
        }))
    }

    fn deletes(&self) -> Option<Span> {
        self.tombstones.clone()
    }

    fn key_fields(&self) -> Vec<&str> {
        let key = self.key.iter();
        key.map(|field| field.get_ref().as_str()).collect()
    }

    /// A transaction belongs to one producer, and so to one cluster.
    fn transaction(&self) -> Option<SinkTransaction> {
        Some(SinkTransaction {
            system: "Kafka",
            owner: format!("{:?}", self.connection),
            decided_by: "`brokers` or `properties`",
        })
    }
}

impl KafkaSinkSettings {
    /// How rows of these columns are written.
    fn message(&self, format: &MessageFormat, columns: &Schema) -> Result<MessagePayload, String> {
        let encoder = MessageEncoder::new(format, columns, &self.topic)?;
        let registry = match &self.registry {
            Some(keys) => Some(RegisteredIn {
                connection: keys.connection.clone(),
                subject: match &keys.subject {
                    Some(subject) => subject.clone(),
                    None => format!("{}-value", self.topic),
                },
                registers: keys.registers,
                text: encoder.schema_text()?.to_owned(),
            }),
            None => None,
        };
        Ok(MessagePayload { encoder, registry })
    }
}

impl SinkConnector for KafkaSink {
    fn describe(&self) -> Description {
        let (topic, brokers) = (&self.topic, &self.connection.brokers);
        let mut lines = vec![format!("topic {topic} on {brokers}")];
        let mut settings = json!({ "brokers": brokers, "topic": topic });
        let format = match &self.payload {
            PayloadPlan::Json => "json",
            PayloadPlan::Message(message) => {
                if let Some(registered) = &message.registry {
                    let (registry, subject) = (&registered.connection, &registered.subject);
                    lines.push(format!("schema of subject {subject} of {registry}"));
                    settings["registry"] = registry.to_string().into();
                    settings["subject"] = subject.as_str().into();
                }
                message.encoder.format()
            }
        };
        lines.push(describe_refused(self.on_error));
        Description {
            connector: KIND.name,
            format: Some(format),
            lines,
            settings,
            ..Description::default()
        }
    }

    fn delivery(&self) -> Delivery {
        Delivery::ExactlyOnce
    }

    fn delivery_note(&self) -> &'static str {
        "seen with their checkpoint by readers of what is committed"
    }

    fn is_transactional(&self) -> bool {
        true
    }

    fn on_error(&self) -> Option<OnError> {
        Some(self.on_error)
    }

    fn participant(&self, pipeline: &CommitContext<'_>) -> Option<Arc<dyn Participant>> {
        Some(Arc::new(KafkaTransaction::new(&self.connection, pipeline)))
    }

    fn open(
        &self,
        node: &str,
        schema: &Arc<Schema>,
        context: &SinkContext,
    ) -> Result<Box<dyn Sink>, SinkError> {
        let transaction = context.transaction();
        Ok(Box::new(KafkaWriter::open(
            node,
            self,
            schema,
            transaction,
            &context.stop,
        )?))
    }
}

/// The sink at work.
struct KafkaWriter {
    node: String,
    plan: Arc<KafkaSink>,
    names: Arc<[String]>,
    route: Route,
    patience: Patience,
    /// The checkpoint of the last barrier, until it is committed.
    uncommitted: Option<CheckpointId>,
    /// Rows that came after that barrier.
    held: Vec<Batch>,
    held_bytes: usize,
    /// What messages begin with, once it is known.
    prefix: Option<Vec<u8>>,
    refusals: Refusals,
    stop: Stop,
    /// A row's key and value, reused for their memory.
    key: Vec<u8>,
    payload: Vec<u8>,
}

/// Which producer sends the rows.
enum Route {
    Own(Arc<Producer>),
    Transaction(Arc<TransactionProducer>),
}

impl KafkaWriter {
    fn open(
        node: &str,
        plan: &KafkaSink,
        schema: &Arc<Schema>,
        transaction: Option<Arc<TransactionProducer>>,
        stop: &Stop,
    ) -> Result<Self, SinkError> {
        let route = match transaction {
            Some(transaction) => Route::Transaction(transaction),
            None => {
                let mut defaults = DEFAULTS.to_vec();
                defaults.push(LINGER);
                let settings = settings(&plan.connection, &defaults, REQUIRED);
                let producer = Producer::new(&format!("sink `{node}`"), &settings);
                let producer =
                    producer.map_err(|error| error_of(node, plan, cause(&error), Fault::CONFIG))?;
                Route::Own(Arc::new(producer))
            }
        };
        Ok(KafkaWriter {
            node: node.to_owned(),
            plan: Arc::new(plan.clone()),
            names: schema.fields.iter().map(|f| f.name.clone()).collect(),
            route,
            patience: Patience::of(stop),
            uncommitted: None,
            held: Vec::new(),
            held_bytes: 0,
            prefix: None,
            refusals: Refusals::new(node, plan.on_error),
            stop: stop.clone(),
            key: Vec::new(),
            payload: Vec::new(),
        })
    }

    fn send(&mut self, batch: &Batch) -> Result<(), SinkError> {
        let producer = self.producer()?;
        producer.check().map_err(|failure| self.failed(failure))?;
        let (plan, names) = (self.plan.clone(), self.names.clone());
        let names = names.iter().map(String::as_str);
        let rows = match &plan.payload {
            PayloadPlan::Json => Payloads::Json(JsonColumns::new(names.zip(&batch.columns))),
            PayloadPlan::Message(message) => {
                if self.prefix.is_none() {
                    self.prefix = Some(self.prefix_of(message)?);
                }
                Payloads::Message(&message.encoder, &batch.columns)
            }
        };
        let key = plan.key.map(|column| &batch.columns[column]);
        let has_other_key = |one: usize, other: usize| {
            key.is_none_or(|key| key.slice(one, 1).to_data() != key.slice(other, 1).to_data())
        };
        // What was taken back last, until another row of its key is sent behind it.
        let mut gone = None;
        for row in 0..batch.rows() {
            if let Some(gone) = gone.take_if(|gone| has_other_key(*gone, row)) {
                self.send_row(&producer, batch, gone, None)?;
            }
            if batch.is_taken_back(row) {
                gone = key.is_some_and(|key| key.is_valid(row)).then_some(row);
            } else if self.send_row(&producer, batch, row, Some(&rows))? {
                gone = None;
            }
        }
        if let Some(gone) = gone {
            self.send_row(&producer, batch, gone, None)?;
        }
        Ok(())
    }

    /// Sends a row, or deletes its key, and returns whether it is on its way. Otherwise it was
    /// refused.
    fn send_row(
        &mut self,
        producer: &Producer,
        batch: &Batch,
        row: usize,
        rows: Option<&Payloads<'_>>,
    ) -> Result<bool, SinkError> {
        self.payload.clear();
        if let Some(rows) = rows {
            self.payload.extend(self.prefix.iter().flatten());
            if let Err(why) = rows.write(&mut self.payload, row) {
                self.refuse(batch, row, &why)?;
                return Ok(false);
            }
        }
        let key = self.plan.key.map(|column| &batch.columns[column]);
        let key = key.filter(|column| column.is_valid(row));
        if let Some(column) = key {
            self.key.clear();
            write_plain(&mut self.key, column, row);
        }
        let headers = (!self.plan.headers.is_empty()).then(|| self.headers(batch, row));
        let sent = producer.send(
            &self.plan.topic,
            key.map(|_| self.key.as_slice()),
            rows.map(|_| self.payload.as_slice()),
            headers,
            &mut self.patience,
        );
        match sent {
            Ok(()) => Ok(true),
            Err(failure) if failure.is_of_message => {
                let why = "the message is larger than `message.max.bytes`: raise that in the \
                           sink's `properties`, and `max.message.bytes` of the topic";
                self.refuse(batch, row, why)?;
                Ok(false)
            }
            Err(failure) => Err(self.failed(failure)),
        }
    }

    fn refuse(&mut self, batch: &Batch, row: usize, why: &str) -> Result<(), SinkError> {
        let refused = self.refusals.refuse_row(batch, row, why);
        refused.map_err(|cause| error_of(&self.node, &self.plan, cause, Fault::ROW))
    }

    /// What messages begin with: nothing, or the number of their schema.
    fn prefix_of(&self, message: &MessagePayload) -> Result<Vec<u8>, SinkError> {
        let Some(registered) = &message.registry else {
            return Ok(Vec::new());
        };
        let who = format!("sink `{}`", self.node);
        let number = Registry::new(&who, &registered.connection)
            .and_then(|registry| registry.register(registered.own(&message.encoder), &self.stop));
        let number = number.map_err(|problem| {
            let cause = format!(
                "the schema registry {}: {}",
                registered.connection, problem.cause
            );
            error_of(&self.node, &self.plan, cause, problem.fault)
        })?;
        let mut prefix = vec![0];
        prefix.extend_from_slice(&number.to_be_bytes());
        message.encoder.write_place(&mut prefix);
        Ok(prefix)
    }

    fn headers(&self, batch: &Batch, row: usize) -> OwnedHeaders {
        let mut headers = OwnedHeaders::new_with_capacity(self.plan.headers.len());
        let mut text = Vec::new();
        for (name, column) in &self.plan.headers {
            let column = &batch.columns[*column];
            let value = column.is_valid(row).then(|| {
                text.clear();
                write_plain(&mut text, column, row);
                &text
            });
            headers = headers.insert(Header { key: name, value });
        }
        headers
    }

    fn producer(&self) -> Result<Arc<Producer>, SinkError> {
        match &self.route {
            Route::Own(producer) => Ok(producer.clone()),
            Route::Transaction(transaction) => transaction
                .current()
                .map_err(|cause| error_of(&self.node, &self.plan, cause, Fault::BUG)),
        }
    }

    fn failed(&self, failure: SendFailure) -> SinkError {
        let mut fault = fault_of(failure.code);
        let help = match failure.code {
            Some(RDKafkaErrorCode::UnknownTopic | RDKafkaErrorCode::UnknownTopicOrPartition) => {
                // Where it was written before, it may come back.
                let producer = self.producer().ok();
                if producer.is_some_and(|producer| !producer.has_delivered()) {
                    fault = Fault::OUTSIDE_LASTING;
                }
                "; create the topic, or correct its name"
            }
            Some(RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::InvalidMessageSize) => {
                "; raise `max.message.bytes` of the topic, or lower `message.max.bytes` in the \
                 sink's `properties` to it: then `on_error` decides about each row that is too \
                 long"
            }
            Some(RDKafkaErrorCode::MessageTimedOut) => {
                "; the brokers could not be reached, or were too slow, for the whole of \
                 `message.timeout.ms`"
            }
            Some(RDKafkaErrorCode::TopicAuthorizationFailed) => {
                "; allow this user to write to the topic"
            }
            _ => "",
        };
        let cause = format!("{}{help}", failure.cause);
        error_of(&self.node, &self.plan, cause, fault)
    }
}

impl Sink for KafkaWriter {
    fn write(&mut self, batch: &Batch) -> Result<(), SinkError> {
        if self.uncommitted.is_none() {
            return self.send(batch);
        }
        let columns = batch.columns.iter();
        self.held_bytes += columns.map(|c| c.get_array_memory_size()).sum::<usize>();
        self.held.push(batch.clone());
        Ok(())
    }

    /// Rows are on their way already; this reports those that failed.
    fn flush(&mut self) -> Result<(), SinkError> {
        let producer = self.producer()?;
        producer.check().map_err(|failure| self.failed(failure))
    }

    fn take_refused(&mut self) -> RefusedRows {
        self.refusals.take()
    }

    fn barrier(&mut self, id: CheckpointId) -> Result<SinkSnapshot, SinkError> {
        match &self.route {
            Route::Own(producer) => {
                let arrived = producer.flush(ARRIVAL_MAX, &mut self.patience);
                arrived.map_err(|failure| self.failed(failure))?;
            }
            Route::Transaction(_) => self.uncommitted = Some(id),
        }
        Ok(SinkSnapshot::default())
    }

    fn committed(&mut self, id: CheckpointId) -> Result<(), SinkError> {
        if self.uncommitted.is_none_or(|uncommitted| uncommitted > id) {
            return Ok(());
        }
        self.uncommitted = None;
        self.held_bytes = 0;
        for batch in std::mem::take(&mut self.held) {
            self.send(&batch)?;
        }
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.held_bytes >= HELD_BYTES_MAX
    }

    fn finish(&mut self, _: Ending) -> Result<(), SinkError> {
        match &self.route {
            Route::Own(producer) => {
                let arrived = producer.flush(ARRIVAL_MAX, &mut self.patience);
                arrived.map_err(|failure| self.failed(failure))
            }
            // The last checkpoint has committed all rows.
            Route::Transaction(_) => Ok(()),
        }
    }
}

/// The rows of a batch as messages have them.
enum Payloads<'a> {
    Json(JsonColumns<'a>),
    Message(&'a MessageEncoder, &'a [ArrayRef]),
}

impl Payloads<'_> {
    fn write(&self, out: &mut Vec<u8>, row: usize) -> Result<(), String> {
        match self {
            Payloads::Json(rows) => {
                rows.write(out, row);
                Ok(())
            }
            Payloads::Message(encoder, columns) => encoder.write(columns, row, out),
        }
    }
}

fn error_of(node: &str, plan: &KafkaSink, cause: String, fault: Fault) -> SinkError {
    let (topic, brokers) = (&plan.topic, &plan.connection.brokers);
    SinkError::new(
        node,
        format!("to topic `{topic}` on {brokers}"),
        cause,
        fault,
    )
}

/// Writes text and bytes as they are, everything else as JSON.
fn write_plain(out: &mut Vec<u8>, column: &ArrayRef, row: usize) {
    match column.data_type() {
        ArrowType::Utf8 => out.extend_from_slice(column.as_string::<i32>().value(row).as_bytes()),
        ArrowType::Binary => out.extend_from_slice(column.as_binary::<i32>().value(row)),
        _ => write_value(out, column, row),
    }
}
