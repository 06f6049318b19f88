//! The sink `http`: posts rows, in batches, to a server.
//!
//! A request is sent until the server answers it with 2xx, or refuses it for good. A
//! checkpoint waits until all requests before it are answered; after a failure, rows since the
//! last one are sent again. A request has a key that is the same when the same rows are sent
//! again.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue,
    TRANSFER_ENCODING,
};
use reqwest::{Method, Url};
use serde_json::json;
use toml::Spanned;
use toml::de::DeValue;

use super::delivery::{Breaker, Delivery, Failure, Outcome, Retry, Sent, Target, quoted};
use super::requests::{BodyKind, Cut, Packed, Packer};
use super::{IDEMPOTENCY_KEY, read_secret};
use crate::batch::Batch;
use crate::blame::Fault;
use crate::checkpoint::snapshot::{RowNumbers, SinkSnapshot};
use crate::clock::Clock;
use crate::config::diagnostics::{Diagnostics, Mistake};
use crate::config::reader::{ConfigValue, Table};
use crate::connector::server::Password;
use crate::connector::{Description, Planning};
use crate::dead_letter::OnError;
use crate::element::CheckpointId;
use crate::plan::state::Delivery as Guarantee;
use crate::schema::Schema;
use crate::sink::{
    Ending, Refusals, RefusedRows, SentRows, Sink, SinkConnector, SinkContext, SinkError, SinkKind,
    SinkSettings, describe_refused, read_on_error,
};

pub const KIND: SinkKind = SinkKind { name: "http", read };

/// Headers that the sink writes itself.
const OWN_HEADERS: [HeaderName; 5] = [
    HOST,
    CONTENT_LENGTH,
    TRANSFER_ENCODING,
    CONNECTION,
    HeaderName::from_static(IDEMPOTENCY_KEY),
];

/// Where rows go, and in which requests.
#[derive(Clone, Debug)]
pub struct HttpSink {
    target: Target,
    cut: Cut,
    linger_ms: i64,
    in_flight: usize,
    on_error: OnError,
}

fn read(table: &mut Table<'_>, mistakes: &mut Diagnostics) -> Option<Box<dyn SinkSettings>> {
    let meaning = "the address to post to, such as \"https://example.org/hook\"";
    let url = table
        .required("url", meaning, mistakes)
        .and_then(|value| read_url(&value, mistakes));
    let methods = &[("POST", Method::POST), ("PUT", Method::PUT)];
    let method = match table.optional("method") {
        Some(value) => value.choice(methods, mistakes).map(Spanned::into_inner),
        None => Some(Method::POST),
    };
    let bodies = &[BodyKind::Array, BodyKind::Lines, BodyKind::Row].map(|it| (it.name(), it));
    let body = match table.optional("body") {
        Some(value) => value.choice(bodies, mistakes).map(Spanned::into_inner),
        None => Some(BodyKind::Array),
    };
    let mut headers = HeaderMap::new();
    if let Some(body) = body {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(body.content_type()));
    }
    let headers = match table.optional("headers") {
        Some(value) => read_headers(&value, headers, mistakes),
        None => Some(headers),
    };
    let rows = table.optional("batch_rows");
    if let (Some(BodyKind::Row), Some(rows)) = (body, &rows) {
        let help = "`body = \"row\"` has one row in each request; remove it";
        mistakes.push(rows.means_nothing(help));
    }
    let rows = match rows {
        Some(value) => value.integer(1..=1_000_000, mistakes),
        None => Some(Spanned::new(0..0, 100)),
    };
    let bytes = match table.optional("batch_bytes") {
        Some(value) => value.bytes(1..=64 << 20, mistakes),
        None => Some(1 << 20),
    };
    let mut duration = |key, least, default| match table.optional(key) {
        Some(value) => value.duration(least, mistakes).map(Spanned::into_inner),
        None => Some(default),
    };
    let linger_ms = duration("linger", 0, 200);
    let connect_within = duration("connect_within", 1, 10_000);
    let answer_within = duration("answer_within", 1, 30_000);
    let in_flight = match table.optional("in_flight") {
        Some(value) => value.integer(1..=100, mistakes).map(Spanned::into_inner),
        None => Some(1),
    };
    let on_error = read_on_error(table, mistakes);
    let retry = match table.optional("retry") {
        Some(value) => read_retry(value.table(mistakes)?, mistakes),
        None => Some(RETRY),
    };
    let breaker = match table.optional("breaker") {
        Some(value) => read_breaker(value.table(mistakes)?, mistakes),
        None => Some(BREAKER),
    };
    let (url, shown) = url?;
    let (body, rows) = (body?, rows?);
    let ms = |ms: i64| Duration::from_millis(ms.unsigned_abs());
    Some(Box::new(HttpSink {
        target: Target {
            url,
            shown,
            method: method?,
            headers: headers?,
            connect_within: ms(connect_within?),
            answer_within: ms(answer_within?),
            retry: retry?,
            breaker: breaker?,
        },
        cut: Cut {
            body,
            rows_max: match body {
                BodyKind::Row => 1,
                BodyKind::Array | BodyKind::Lines => rows.into_inner() as usize,
            },
            bytes_max: bytes? as usize,
        },
        linger_ms: linger_ms?,
        in_flight: in_flight? as usize,
        on_error: on_error?,
    }))
}

const RETRY: Retry = Retry {
    from: Duration::from_millis(200),
    to: Duration::from_secs(30),
};

const BREAKER: Breaker = Breaker {
    failures: 10,
    pause: Duration::from_secs(30),
};

/// Reads an address, and returns how messages show it: one from outside is a secret, as those
/// of many hooks are.
fn read_url(value: &ConfigValue<'_>, mistakes: &mut Diagnostics) -> Option<(Url, String)> {
    let is_secret = matches!(value.raw(), DeValue::Table(_));
    let text = match is_secret {
        true if !mistakes.reads_secrets() => {
            // Its place is checked all the same.
            read_secret(value, mistakes);
            "http://secret.invalid/".to_owned()
        }
        true => read_secret(value, mistakes)?.0,
        false => value
            .text(
                "an address, { env = \"NAME\" } or { file = \"path\" }",
                mistakes,
            )?
            .into_inner(),
    };
    let url = Url::parse(&text).ok();
    let is_good = |url: &Url| {
        let is_plain = url.username().is_empty() && url.password().is_none();
        ["http", "https"].contains(&url.scheme()) && url.has_host() && is_plain
    };
    let Some(mut url) = url.filter(is_good) else {
        mistakes.push(
            Mistake::new(format!("{} is not the address of a server", value.what()))
                .at(value.span(), "")
                .help(
                    "write one such as \"https://example.org/hook\", without a user or a password: \
                     these go into `headers`",
                ),
        );
        return None;
    };
    url.set_fragment(None);
    let shown = match is_secret {
        true => "a secret address".to_owned(),
        false => url.to_string(),
    };
    Some((url, shown))
}

fn read_headers(
    value: &ConfigValue<'_>,
    mut headers: HeaderMap,
    mistakes: &mut Diagnostics,
) -> Option<HeaderMap> {
    for (name, value) in value.table(mistakes)?.into_entries() {
        let place = name.span();
        let parsed = name.get_ref().parse::<HeaderName>().ok();
        let mut refuse = |help: &str| {
            let what = value.what();
            mistakes.push(
                Mistake::new(format!("{what} is not a header that can be set"))
                    .at(place.clone(), "")
                    .help(help),
            );
        };
        let Some(name) = parsed else {
            refuse("names of headers have letters, digits and -");
            continue;
        };
        if OWN_HEADERS.contains(&name) {
            refuse("the sink writes it itself; remove it");
            continue;
        }
        if let Some(Password(text)) = read_secret(&value, mistakes)
            && let Ok(mut text) = HeaderValue::from_str(&text)
        {
            text.set_sensitive(true);
            headers.insert(name, text);
        }
    }
    Some(headers)
}

fn read_retry(mut table: Table<'_>, mistakes: &mut Diagnostics) -> Option<Retry> {
    let mut duration = |key, default: Duration| match table.optional(key) {
        Some(value) => {
            let ms = value.duration(1, mistakes)?.into_inner();
            Some(Duration::from_millis(ms.unsigned_abs()))
        }
        None => Some(default),
    };
    let (from, to) = (duration("from", RETRY.from), duration("to", RETRY.to));
    table.finish(mistakes);
    let from = from?;
    Some(Retry {
        from,
        to: to?.max(from),
    })
}

fn read_breaker(mut table: Table<'_>, mistakes: &mut Diagnostics) -> Option<Breaker> {
    let failures = match table.optional("failures") {
        Some(value) => value
            .integer(1..=1_000_000, mistakes)
            .map(Spanned::into_inner),
        None => Some(i64::from(BREAKER.failures)),
    };
    let pause = match table.optional("pause") {
        Some(value) => value.duration(1, mistakes).map(Spanned::into_inner),
        None => Some(BREAKER.pause.as_millis() as i64),
    };
    table.finish(mistakes);
    Some(Breaker {
        failures: failures? as u32,
        pause: Duration::from_millis(pause?.unsigned_abs()),
    })
}

impl SinkSettings for HttpSink {
    fn plan(&self, _: Option<&Schema>, _: &mut Planning<'_>) -> Option<Box<dyn SinkConnector>> {
        Some(Box::new(self.clone()))
    }
}

impl SinkConnector for HttpSink {
    fn describe(&self) -> Description {
        let Cut {
            body,
            rows_max,
            bytes_max,
        } = self.cut;
        let Target { method, shown, .. } = &self.target;
        let what = match body {
            BodyKind::Array => format!("arrays of up to {rows_max} rows"),
            BodyKind::Lines => format!("up to {rows_max} rows, one a line"),
            BodyKind::Row => "a row in each request".to_owned(),
        };
        Description {
            connector: KIND.name,
            format: Some("json"),
            lines: vec![
                format!("{method} {shown}, {what}"),
                describe_refused(self.on_error),
            ],
            settings: json!({
                "url": shown,
                "method": method.as_str(),
                "body": body.name(),
                "batch_rows": rows_max,
                "batch_bytes": bytes_max,
                "linger_ms": self.linger_ms,
                "in_flight": self.in_flight,
            }),
            ..Description::default()
        }
    }

    /// What is answered and not in a checkpoint is sent again. A server that knows keys takes
    /// the same request once.
    fn delivery(&self) -> Guarantee {
        Guarantee::AtLeastOnce
    }

    fn delivery_note(&self) -> &'static str {
        match self.cut.body {
            BodyKind::Row => "a row that is repeated has the same idempotency-key",
            _ => "",
        }
    }

    fn on_error(&self) -> Option<OnError> {
        Some(self.on_error)
    }

    fn open(
        &self,
        node: &str,
        schema: &Arc<Schema>,
        context: &SinkContext,
    ) -> Result<Box<dyn Sink>, SinkError> {
        let numbers = context.restored.as_ref().and_then(|it| it.numbers.clone());
        let numbers = numbers.unwrap_or_else(|| RowNumbers {
            series: format!("{:032x}", fastrand::u128(..)),
            next: 0,
        });
        let names = schema.fields.iter().map(|field| field.name.clone());
        let sender = format!("{}/{node}", context.pipeline);
        let delivery = Delivery::new(
            format!("sink `{node}`"),
            self.target.clone(),
            context.clock.clone(),
            context.stop.clone(),
        );
        let delivery = delivery.map_err(|failure| self.error(node, failure.cause, failure.fault));
        Ok(Box::new(HttpWriter {
            packer: Packer::new(self.cut, names.collect(), sender, numbers),
            due_ms: None,
            requests: Requests {
                node: node.to_owned(),
                plan: self.clone(),
                delivery: delivery?,
                sent: VecDeque::new(),
                refusals: Refusals::new(node, self.on_error),
            },
            linger_ms: self.linger_ms,
            clock: context.clock.clone(),
        }))
    }
}

impl HttpSink {
    fn error(&self, node: &str, cause: impl fmt::Display, fault: Fault) -> SinkError {
        let Target { method, shown, .. } = &self.target;
        SinkError::new(node, format!("by {method} to {shown}"), cause, fault)
    }
}

/// The sink at work.
struct HttpWriter {
    packer: Packer,
    /// When the request that is begun has to be sent.
    due_ms: Option<i64>,
    requests: Requests,
    linger_ms: i64,
    clock: Arc<dyn Clock>,
}

/// The requests of a sink.
struct Requests {
    node: String,
    plan: HttpSink,
    delivery: Arc<Delivery>,
    /// Those that are not answered, the oldest first.
    sent: VecDeque<(Sent, SentRows)>,
    refusals: Refusals,
}

impl Requests {
    fn send(&mut self, packed: Packed) -> Result<(), SinkError> {
        while self.sent.len() >= self.plan.in_flight {
            self.wait_for_first()?;
        }
        let sent = self.delivery.send(packed.body, packed.key);
        let sent = sent.map_err(|failure| self.failed(failure))?;
        self.sent.push_back((sent, packed.rows));
        Ok(())
    }

    fn wait_for_first(&mut self) -> Result<(), SinkError> {
        match self.sent.pop_front() {
            Some((sent, rows)) => self.settle(sent.wait(), &rows),
            None => Ok(()),
        }
    }

    fn wait_for_all(&mut self) -> Result<(), SinkError> {
        while !self.sent.is_empty() {
            self.wait_for_first()?;
        }
        Ok(())
    }

    /// Sees to those that are answered.
    fn settle_answered(&mut self) -> Result<(), SinkError> {
        while let Some(outcome) = self.sent.front().and_then(|(sent, _)| sent.take()) {
            if let Some((_, rows)) = self.sent.pop_front() {
                self.settle(outcome, &rows)?;
            }
        }
        Ok(())
    }

    fn settle(
        &mut self,
        outcome: Result<Outcome, Failure>,
        rows: &SentRows,
    ) -> Result<(), SinkError> {
        let (status, text) = match outcome.map_err(|failure| self.failed(failure))? {
            Outcome::Accepted => return Ok(()),
            Outcome::Refused(status, text) => (status, text),
        };
        let said = format!("the server has answered {status}{}", quoted(&text));
        let refused = self.refusals.refuse(rows.iter(), &said);
        refused.map_err(|cause| self.plan.error(&self.node, cause, fault_of(status)))
    }

    fn failed(&self, failure: Failure) -> SinkError {
        self.plan.error(&self.node, failure.cause, failure.fault)
    }
}

/// Who is to blame for what the server refuses: the row, or whoever has written the address
/// and the token.
fn fault_of(status: u16) -> Fault {
    match status {
        401 | 403 | 404 | 405 | 407 | 410 => Fault::OUTSIDE_LASTING,
        _ => Fault::ROW,
    }
}

impl HttpWriter {
    /// Sends the request that is begun.
    fn send_begun(&mut self) -> Result<(), SinkError> {
        self.due_ms = None;
        match self.packer.is_empty() {
            true => Ok(()),
            false => self.requests.send(self.packer.take()),
        }
    }
}

impl Sink for HttpWriter {
    fn write(&mut self, batch: &Batch) -> Result<(), SinkError> {
        self.requests.settle_answered()?;
        let (requests, due_ms) = (&mut self.requests, &mut self.due_ms);
        self.packer.add(batch, |packed| {
            *due_ms = None;
            requests.send(packed)
        })?;
        if !self.packer.is_empty() {
            let due_ms = self.clock.now_ms().saturating_add(self.linger_ms);
            self.due_ms.get_or_insert(due_ms);
        }
        Ok(())
    }

    /// Sends what has waited long enough.
    fn flush(&mut self) -> Result<(), SinkError> {
        self.requests.settle_answered()?;
        match self
            .due_ms
            .is_some_and(|due_ms| self.clock.now_ms() >= due_ms)
        {
            true => self.send_begun(),
            false => Ok(()),
        }
    }

    fn flush_at_ms(&self) -> Option<i64> {
        self.due_ms
    }

    fn drain(&mut self) -> Result<(), SinkError> {
        self.send_begun()?;
        self.requests.wait_for_all()
    }

    fn take_refused(&mut self) -> RefusedRows {
        self.requests.refusals.take()
    }

    fn barrier(&mut self, _: CheckpointId) -> Result<SinkSnapshot, SinkError> {
        self.drain()?;
        Ok(SinkSnapshot {
            numbers: Some(self.packer.numbers().clone()),
            ..SinkSnapshot::default()
        })
    }

    /// All was sent at the end of the input, or with the last checkpoint.
    fn finish(&mut self, _: Ending) -> Result<(), SinkError> {
        Ok(())
    }
}
