//! Answers requests: takes their rows into the queue and waits until they have come as far as
//! they should, or says by RFC 9457 why not.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request as HttpRequest, State};
use axum::http::header::{
    ACCEPT_ENCODING, ALLOW, AUTHORIZATION, CONTENT_TYPE, ORIGIN, RETRY_AFTER, WWW_AUTHENTICATE,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde::Serialize;
use subtle::ConstantTimeEq;
use tokio::time::{Instant, timeout, timeout_at};

use super::IDEMPOTENCY_KEY;
use super::body::{BodyError, Reading, coding};
use super::queue::{Acknowledge, Counted, Offered, Queue, Reason, Request, Ticket};
use super::repeats::PostedAs;
use super::rows::{cut, shape_of};
use crate::connector::server::Password;
use crate::format::Format;
use crate::quantity::show_bytes;
use crate::source::pieces::RowCutter;
use crate::stop::Stop;

/// How long a request waits for room in the queue.
const ROOM_WAIT: Duration = Duration::from_secs(1);

/// When a client is to try again, in s.
const RETRY_AFTER_SECONDS: &str = "1";

/// Keys are no longer.
const KEY_BYTES_MAX: usize = 255;

/// What is known of all requests.
pub struct Reception {
    pub queue: Arc<Queue>,
    pub acknowledge: Acknowledge,
    pub token: Option<Password>,
    pub format: Format,
    /// One that has seen nothing.
    pub cutter: RowCutter,
    pub body_bytes_max: usize,
    /// How many rows a request may have.
    pub rows_max: usize,
    pub reading: Reading,
    /// How long a request waits for its answer.
    pub answer_within: Duration,
    /// Of the run.
    pub stop: Stop,
}

/// Answers requests to this path, and refuses all others.
pub fn router(path: &str, reception: Reception) -> Router {
    let place = format!("rows are posted to {path}");
    let elsewhere = place.clone();
    Router::new()
        .route(path, post(take))
        .method_not_allowed_fallback(async move || {
            let refusal = Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", place);
            refusal.with(ALLOW, "POST").into_response()
        })
        .fallback(async move || Refusal::new(StatusCode::NOT_FOUND, "not_found", elsewhere))
        .with_state(Arc::new(reception))
}

async fn take(State(reception): State<Arc<Reception>>, request: HttpRequest) -> Response {
    match reception.take(request).await {
        Ok(answer) => answer.into_response(),
        Err(refusal) => refusal.into_response(),
    }
}

impl Reception {
    async fn take(&self, request: HttpRequest) -> Result<Answer, Refusal> {
        if self.stop.asked() {
            return Err(Refusal::ending());
        }
        let (parts, body) = request.into_parts();
        let headers = parts.headers;
        self.check_sender(&headers)?;
        let content_type = headers.get(CONTENT_TYPE);
        let content_type = content_type.and_then(|text| text.to_str().ok());
        let shape = shape_of(&self.format, content_type).map_err(Refusal::media_type)?;
        coding(&headers).map_err(|other| {
            let detail = format!("the body is `{other}`: send it as it is, or with `gzip`");
            Refusal::media_type(detail).with(ACCEPT_ENCODING, "gzip")
        })?;
        let key = key_of(&headers)?;
        let (body, room) = tokio::select! {
            read = self.reading.read(&headers, body) => {
                read.map_err(|error| self.unread(error))?
            }
            () = self.stop.wait() => return Err(Refusal::ending()),
            () = self.queue.closed() => return Err(Refusal::ending()),
        };
        if body.is_empty() {
            return Err(Refusal::bad_request("the body is empty: send rows in it"));
        }
        let (key, bytes) = (key.map(|key| PostedAs::new(key, &body)), body.len());
        let pieces = cut(body, shape, &self.format, &self.cutter);
        let pieces =
            pieces.map_err(|why| Refusal::bad_request(format!("{why}; no row is taken")))?;
        let request = Request { pieces, bytes, key };
        if request.rows() > self.rows_max as u64 {
            return Err(Refusal::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "too_large",
                format!(
                    "the body has {} rows: send them in several requests (`queue_rows` of the \
                     source, {}, is the limit)",
                    request.rows(),
                    self.rows_max
                ),
            ));
        }
        let ticket = self.offer(request).await?;
        drop(room);
        self.answer(&ticket).await
    }

    /// Refuses whoever has not the token, and pages that a browser shows where there is none.
    fn check_sender(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let Some(Password(token)) = &self.token else {
            return match headers.contains_key(ORIGIN) {
                true => Err(Refusal::new(
                    StatusCode::FORBIDDEN,
                    "forbidden",
                    "pages in a browser may not post here: give the source a `token`",
                )),
                false => Ok(()),
            };
        };
        let given = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes);
        let given = given.and_then(|text| text.split_at_checked("Bearer ".len()));
        let given = given.filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"Bearer "));
        let detail = match given {
            Some((_, given)) if bool::from(given.trim_ascii().ct_eq(token.as_bytes())) => {
                return Ok(());
            }
            Some(_) => "this is not the token of the source",
            None => "this needs a token: send `Authorization: Bearer TOKEN`",
        };
        let refusal = Refusal::new(StatusCode::UNAUTHORIZED, "unauthorized", detail);
        Err(refusal.with(WWW_AUTHENTICATE, "Bearer"))
    }

    /// Puts rows into the queue, where there is room for them soon.
    async fn offer(&self, request: Request) -> Result<Ticket, Refusal> {
        let until = Instant::now() + ROOM_WAIT;
        let mut request = Some(request);
        loop {
            let mut left = std::pin::pin!(self.queue.left().notified());
            // What leaves from now on is noticed.
            left.as_mut().enable();
            match self.queue.offer(&mut request) {
                Offered::In(ticket) => return Ok(ticket),
                Offered::Closed => return Err(Refusal::ending()),
                Offered::OtherBody => {
                    return Err(Refusal::new(
                        StatusCode::UNPROCESSABLE_ENTITY,
                        "key_of_another_body",
                        "another body was posted with this Idempotency-Key: each has its own",
                    ));
                }
                Offered::Full => {}
            }
            if timeout_at(until, left).await.is_err() {
                return Err(Refusal::too_many(
                    "the pipeline does not take rows as fast as they come: try again later",
                ));
            }
        }
    }

    /// Waits until the rows have come as far as they should.
    async fn answer(&self, ticket: &Ticket) -> Result<Answer, Refusal> {
        match timeout(self.answer_within, self.queue.settled(ticket)).await {
            Ok(true) => {}
            Ok(false) => return Err(Refusal::ending()),
            Err(_) => {
                return Err(Refusal::unavailable(
                    "unanswered",
                    "the rows have come, and not as far as they should in time: post them again \
                     with the same Idempotency-Key, or they may be taken twice",
                ));
            }
        }
        let counted = ticket.counted();
        if counted.taken == 0 && counted.not_taken > 0 {
            let detail = match counted.reasons.first() {
                Some(Reason { row, error }) => format!("no row is taken; row {row}: {error}"),
                None => "no row is taken".to_owned(),
            };
            let mut refusal = Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "bad_rows", detail);
            refusal.problem.counted = Some(counted);
            return Err(refusal);
        }
        Ok(Answer {
            status: match self.acknowledge {
                Acknowledge::Taken => StatusCode::ACCEPTED,
                Acknowledge::Checkpoint => StatusCode::OK,
            },
            counted,
            is_repeated: ticket.is_repeated,
        })
    }

    fn unread(&self, error: BodyError) -> Refusal {
        match error {
            BodyError::TooLarge => Refusal::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "too_large",
                format!(
                    "the body is larger than {}: send rows in several requests (`body_bytes` of \
                     the source is the limit)",
                    show_bytes(self.body_bytes_max as u64)
                ),
            ),
            BodyError::NoRoom => {
                Refusal::too_many("too many bodies are being read: try again later")
            }
            BodyError::Late => Refusal::new(
                StatusCode::REQUEST_TIMEOUT,
                "timeout",
                "the body does not come in time",
            ),
            BodyError::Broken(why) => Refusal::bad_request(why),
        }
    }
}

/// The key by which the request is known if it is sent again.
fn key_of(headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
    let Some(key) = headers.get(IDEMPOTENCY_KEY) else {
        return Ok(None);
    };
    let is_good = |key: &&str| (1..=KEY_BYTES_MAX).contains(&key.len());
    match key.to_str().ok().filter(is_good) {
        Some(key) => Ok(Some(key)),
        None => Err(Refusal::bad_request(format!(
            "Idempotency-Key has up to {KEY_BYTES_MAX} characters of ASCII"
        ))),
    }
}

/// Rows were taken.
#[derive(Debug, Serialize)]
struct Answer {
    #[serde(skip)]
    status: StatusCode,
    #[serde(flatten)]
    counted: Counted,
    /// They had been posted before.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    is_repeated: bool,
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let json = [(CONTENT_TYPE, "application/json")];
        (self.status, json, body).into_response()
    }
}

/// Why rows are not taken.
#[derive(Debug)]
struct Refusal {
    status: StatusCode,
    problem: Box<Problem>,
    headers: Vec<(HeaderName, &'static str)>,
}

#[derive(Debug, Serialize)]
struct Problem {
    status: u16,
    title: &'static str,
    detail: String,
    /// For programs; codes stay the same.
    code: &'static str,
    #[serde(flatten)]
    counted: Option<Counted>,
}

impl Refusal {
    fn new(status: StatusCode, code: &'static str, detail: impl Display) -> Self {
        Refusal {
            status,
            problem: Box::new(Problem {
                status: status.as_u16(),
                title: status.canonical_reason().unwrap_or("Error"),
                detail: detail.to_string(),
                code,
                counted: None,
            }),
            headers: Vec::new(),
        }
    }

    fn with(mut self, name: HeaderName, value: &'static str) -> Self {
        self.headers.push((name, value));
        self
    }

    fn bad_request(detail: impl Display) -> Self {
        Refusal::new(StatusCode::BAD_REQUEST, "bad_request", detail)
    }

    fn media_type(detail: impl Display) -> Self {
        Refusal::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            detail,
        )
    }

    fn too_many(detail: &str) -> Self {
        Refusal::new(StatusCode::TOO_MANY_REQUESTS, "too_many", detail)
            .with(RETRY_AFTER, RETRY_AFTER_SECONDS)
    }

    fn unavailable(code: &'static str, detail: &str) -> Self {
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, code, detail)
            .with(RETRY_AFTER, RETRY_AFTER_SECONDS)
    }

    fn ending() -> Self {
        Refusal::unavailable(
            "ending",
            "the pipeline stops, or begins again: post the rows again later",
        )
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&self.problem).unwrap_or_default();
        let json = [(CONTENT_TYPE, "application/problem+json")];
        let mut answer = (self.status, json, body).into_response();
        for (name, value) in self.headers {
            answer
                .headers_mut()
                .insert(name, HeaderValue::from_static(value));
        }
        answer
    }
}
