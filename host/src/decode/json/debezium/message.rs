//! Tells messages apart: changes of rows, what stands between them, and what is none.

use std::ops::Range;

use serde_json::{Map, Value as Json};

use super::super::super::fault::RowFault;
use super::super::members::members;
use super::super::scanner::Scanner;
use crate::timestamp;

pub(super) enum Message {
    Change(Change),
    /// It has no payload, but as a text: `null`.
    Tombstone,
    /// It says that the connector is there, or where a transaction begins or ends.
    Mark,
}

/// Where the parts of a change are in its message.
pub(super) struct Change {
    pub schema: Option<Range<usize>>,
    pub before: Option<Range<usize>>,
    pub after: Option<Range<usize>>,
    pub operation: Range<usize>,
    pub time_ms: i64,
    pub teller: Teller,
}

/// What is known of how a database tells rows that are gone, by the connector's name.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Teller {
    /// Its connector asks for a database that tells whole rows.
    Whole,
    /// PostgreSQL: each table has a setting, by which mostly the key alone is told.
    Postgres,
    Unknown,
}

impl Teller {
    fn of(connector: &[u8]) -> Self {
        match connector {
            b"\"mysql\"" | b"\"mariadb\"" | b"\"sqlserver\"" | b"\"oracle\"" | b"\"db2\""
            | b"\"informix\"" | b"\"vitess\"" => Teller::Whole,
            b"\"postgresql\"" => Teller::Postgres,
            _ => Teller::Unknown,
        }
    }
}

impl Message {
    pub fn read(
        scanner: Scanner<'_>,
        data: &[u8],
        start: usize,
        scratch: &mut Vec<u8>,
    ) -> Result<Self, RowFault> {
        const NAMES: [&str; 7] = [
            "op", "before", "after", "source", "ts_ms", "schema", "payload",
        ];
        let at = scanner.skip_space(start);
        if let Some(behind) = scanner.take_literal(at, b"null") {
            scanner.finish(behind)?;
            return Ok(Message::Tombstone);
        }
        let (mut parts, behind) = members(scanner, data, at, NAMES, scratch)?;
        scanner.finish(behind)?;
        let (schema, payload) = (parts[5].take(), parts[6].take());
        if let ([None, ..], Some(payload)) = (&parts, payload) {
            (parts, _) = members(scanner, data, payload.start, NAMES, scratch)
                .map_err(|fault| fault.within("payload"))?;
        }
        let [operation, before, after, source, told_ms, ..] = parts;
        let Some(operation) = operation else {
            return without_operation(&data[at..behind]);
        };
        let (committed_ms, connector) = match source {
            Some(source) => {
                let names = ["ts_ms", "connector"];
                let found = members(scanner, data, source.start, names, scratch);
                let ([committed_ms, connector], _) =
                    found.map_err(|fault| fault.within("source"))?;
                (committed_ms, connector)
            }
            None => (None, None),
        };
        let connector = connector.map_or(&b""[..], |connector| &data[connector]);
        let is_text = |row: &Option<Range<usize>>| {
            let first = row.as_ref().and_then(|row| data.get(row.start));
            first == Some(&b'"')
        };
        if connector == b"\"mongodb\"" || is_text(&before) || is_text(&after) {
            return Err(RowFault::new(
                "has documents as texts, as Debezium's connector for MongoDB writes them: have \
                 it unpack them by the transformation `ExtractNewDocumentState`, and read them \
                 by `format = \"json\"`",
            ));
        }
        let time = committed_ms.or(told_ms).ok_or_else(|| {
            RowFault::new("has neither `source.ts_ms` nor `ts_ms`, the time of the change")
        })?;
        let time_ms = scanner.integer(time.start).map(|(_, time_ms)| time_ms);
        let time_ms = time_ms.filter(|&time_ms| timestamp::is_plausible(time_ms));
        Ok(Message::Change(Change {
            schema,
            before,
            after,
            operation,
            time_ms: time_ms
                .ok_or_else(|| scanner.not_a(time.start, "a time in ms").within("ts_ms"))?,
            teller: Teller::of(connector),
        }))
    }
}

/// What a message is that tells no change of a row.
#[cold]
fn without_operation(text: &[u8]) -> Result<Message, RowFault> {
    let message: Map<String, Json> = serde_json::from_slice(text).unwrap_or_default();
    let is_wrapped = message
        .keys()
        .all(|key| key == "schema" || key == "payload");
    let payload = match message.get("payload") {
        Some(Json::Null) if is_wrapped => return Ok(Message::Tombstone),
        Some(Json::Object(payload)) if is_wrapped => payload,
        _ => &message,
    };
    let has = |name: &str| payload.contains_key(name);
    let is_time = |name: &String| matches!(name.as_str(), "ts_ms" | "ts_us" | "ts_ns");
    let is_heartbeat = has("ts_ms") && payload.keys().all(is_time);
    let ends_transaction = ["status", "id", "event_count", "data_collections"];
    if is_heartbeat || ends_transaction.into_iter().all(has) {
        return Ok(Message::Mark);
    }
    Err(RowFault::new(if has("ddl") || has("tableChanges") {
        "is a change of the database's schema, and of no row: those have a topic for each table"
    } else if has("before") || has("after") {
        "is a change without `op`, which says what kind of change it is"
    } else if has("specversion") {
        "is a CloudEvent: have the connector write its changes by `JsonConverter`"
    } else {
        "expected a change as Debezium tells it, found a record without `op` (rows that \
         `ExtractNewRecordState` has unpacked are read by `format = \"json\"` with `upsert`)"
    }))
}
