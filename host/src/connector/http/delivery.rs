//! Sends requests until they are answered: what may pass is tried again, later and later; a
//! server that has failed too often in a row gets no request for a while.

use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use jiff::fmt::rfc2822;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use reqwest::{Client, Method, Response, StatusCode, Url, redirect};
use tokio::task::AbortHandle;
use tokio::time::sleep;

use super::IDEMPOTENCY_KEY;
use crate::blame::{Fault, with_causes};
use crate::clock::Clock;
use crate::connector::network;
use crate::connector::server::delay;
use crate::offload::blocking;
use crate::quantity::show_ms;
use crate::stop::Stop;
use crate::text::truncate;

/// No server can have the host wait longer.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3_600);

/// How much of an answer is shown, and read.
const SHOWN_BYTES_MAX: usize = 300;

/// How long an answer is waited for once the run is asked to stop.
const STOP_MAX: Duration = Duration::from_secs(30);

/// How often a waiting thread looks whether the run is to stop.
const LOOK: Duration = Duration::from_millis(100);

/// How often others look whether the first request after a pause is answered.
const TRIAL_LOOK: Duration = Duration::from_millis(20);

/// Where requests go, and how often.
#[derive(Clone, Debug)]
pub struct Target {
    pub url: Url,
    /// The address as messages have it: it may be a secret.
    pub shown: String,
    pub method: Method,
    pub headers: HeaderMap,
    pub connect_within: Duration,
    pub answer_within: Duration,
    pub retry: Retry,
    pub breaker: Breaker,
}

/// How long it takes until a request is sent again: at first, and at most.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    pub from: Duration,
    pub to: Duration,
}

/// After so many failures in a row, no request is sent for a while.
#[derive(Clone, Copy, Debug)]
pub struct Breaker {
    pub failures: u32,
    pub pause: Duration,
}

/// What has become of a request.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    Accepted,
    /// The server would refuse it again. The text is the beginning of its answer.
    Refused(u16, String),
}

/// Why requests cannot be sent.
#[derive(Clone, Debug)]
pub struct Failure {
    pub cause: String,
    pub fault: Fault,
}

/// Sends the requests of one sink.
pub struct Delivery {
    /// "sink `out`".
    who: String,
    target: Target,
    client: Client,
    circuit: Mutex<Circuit>,
    clock: Arc<dyn Clock>,
    stop: Stop,
}

/// How the server has done lately.
#[derive(Debug, Default)]
struct Circuit {
    /// In a row.
    failures: u32,
    /// No request is sent before that.
    open_until: Option<Instant>,
    /// A request is on its way that decides whether others are sent.
    is_tried: bool,
}

/// A request that is on its way. Dropping it gives it up.
pub struct Sent {
    outcome: Receiver<Result<Outcome, Failure>>,
    task: AbortHandle,
    stop: Stop,
}

impl Drop for Sent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Sent {
    /// The outcome, if it is there.
    pub fn take(&self) -> Option<Result<Outcome, Failure>> {
        match self.outcome.try_recv() {
            Ok(outcome) => Some(outcome),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Err(given_up())),
        }
    }

    /// Waits for the outcome, however long it takes; not for ever once the run is asked to
    /// stop.
    pub fn wait(&self) -> Result<Outcome, Failure> {
        blocking(|| {
            let mut stopped: Option<Instant> = None;
            loop {
                match self.outcome.recv_timeout(LOOK) {
                    Ok(outcome) => return outcome,
                    Err(RecvTimeoutError::Disconnected) => return Err(given_up()),
                    Err(RecvTimeoutError::Timeout) => {}
                }
                if self.stop.asked()
                    && stopped.get_or_insert_with(Instant::now).elapsed() > STOP_MAX
                {
                    let seconds = STOP_MAX.as_secs();
                    let cause = format!("no request has succeeded for {seconds} s");
                    return Err(Failure {
                        cause,
                        fault: Fault::OUTSIDE,
                    });
                }
            }
        })
    }
}

fn given_up() -> Failure {
    Failure {
        cause: "the request was given up, which is a bug in Sluicebox".to_owned(),
        fault: Fault::BUG,
    }
}

/// Why an attempt has failed that is made again.
struct Passing {
    why: String,
    /// As the server has asked for.
    not_before: Option<Duration>,
}

impl Delivery {
    pub fn new(
        who: String,
        target: Target,
        clock: Arc<dyn Clock>,
        stop: Stop,
    ) -> Result<Arc<Delivery>, Failure> {
        let client = Client::builder()
            .user_agent(concat!("sluicebox/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(target.connect_within)
            .timeout(target.answer_within)
            .redirect(redirect::Policy::none())
            .build()
            .map_err(|error| Failure {
                cause: format!("HTTP cannot be used: {}", with_causes(&error)),
                fault: Fault::OUTSIDE_LASTING,
            })?;
        Ok(Arc::new(Delivery {
            who,
            target,
            client,
            circuit: Mutex::default(),
            clock,
            stop,
        }))
    }

    /// Begins to send a request.
    pub fn send(self: &Arc<Self>, body: Vec<u8>, key: String) -> Result<Sent, Failure> {
        let network = network::runtime().map_err(|cause| Failure {
            cause,
            fault: Fault::OUTSIDE,
        })?;
        let (sender, outcome) = sync_channel(1);
        let (own, body) = (self.clone(), Bytes::from(body));
        let task = network.spawn(async move {
            // Whoever has sent it may have gone.
            let _ = sender.send(own.deliver(body, &key).await);
        });
        Ok(Sent {
            outcome,
            task: task.abort_handle(),
            stop: self.stop.clone(),
        })
    }

    /// Sends a request until it is answered.
    async fn deliver(&self, body: Bytes, key: &str) -> Result<Outcome, Failure> {
        let mut attempt = 0;
        loop {
            self.pass().await;
            let failed = match self.attempt(body.clone(), key).await? {
                Ok(outcome) => {
                    self.succeeded();
                    return Ok(outcome);
                }
                Err(failed) => failed,
            };
            let delay = self
                .delay(attempt)
                .max(failed.not_before.unwrap_or_default());
            attempt += 1;
            self.failed(&failed.why, delay);
            sleep(delay).await;
        }
    }

    /// Sends a request once. The outer error is one that lasts.
    async fn attempt(&self, body: Bytes, key: &str) -> Result<Result<Outcome, Passing>, Failure> {
        let Target {
            url,
            method,
            headers,
            answer_within,
            ..
        } = &self.target;
        let request = self
            .client
            .request(method.clone(), url.clone())
            .headers(headers.clone())
            .header(IDEMPOTENCY_KEY, key)
            .body(body);
        let answer = match request.send().await {
            Ok(answer) => answer,
            Err(error) if error.is_builder() => {
                return Err(Failure {
                    cause: with_causes(&error.without_url()),
                    fault: Fault::CONFIG,
                });
            }
            Err(error) => {
                let why = match error.is_timeout() && !error.is_connect() {
                    true => format!(
                        "no answer within {}",
                        show_ms(answer_within.as_millis() as i64)
                    ),
                    false => with_causes(&error.without_url()),
                };
                return Ok(Err(Passing {
                    why,
                    not_before: None,
                }));
            }
        };
        let status = answer.status();
        if status.is_success() {
            return Ok(Ok(Outcome::Accepted));
        }
        if status.is_redirection() {
            return Err(Failure {
                cause: format!(
                    "the server has answered {status}, and redirects are not followed: write the \
                     address that it leads to"
                ),
                fault: Fault::OUTSIDE_LASTING,
            });
        }
        let not_before = self.retry_after(answer.headers());
        let text = beginning(answer).await;
        if !is_passing(status) {
            return Ok(Ok(Outcome::Refused(status.as_u16(), text)));
        }
        Ok(Err(Passing {
            why: format!("the server has answered {status}{}", quoted(&text)),
            not_before,
        }))
    }

    /// When the server wants to be asked again.
    fn retry_after(&self, headers: &HeaderMap) -> Option<Duration> {
        let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
        let wait = match text.parse() {
            Ok(seconds) => Duration::from_secs(seconds),
            Err(_) => {
                let at = rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
                let wait_ms = at.as_millisecond().saturating_sub(self.clock.now_ms());
                Duration::from_millis(wait_ms.try_into().unwrap_or(0))
            }
        };
        Some(wait.min(RETRY_AFTER_MAX))
    }

    fn delay(&self, attempt: u32) -> Duration {
        let Retry { from, to } = self.target.retry;
        delay(attempt, from, to)
    }

    fn circuit(&self) -> MutexGuard<'_, Circuit> {
        self.circuit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits while no request is to be sent.
    async fn pass(&self) {
        loop {
            let wait = {
                let mut circuit = self.circuit();
                let Some(until) = circuit.open_until else {
                    return;
                };
                let wait = until.saturating_duration_since(Instant::now());
                if wait.is_zero() && !std::mem::replace(&mut circuit.is_tried, true) {
                    return;
                }
                wait.max(TRIAL_LOOK)
            };
            sleep(wait).await;
        }
    }

    fn succeeded(&self) {
        let before = std::mem::take(&mut *self.circuit());
        if before.open_until.is_some() {
            tracing::info!("{}: {} answers again", self.who, self.target.shown);
        }
    }

    fn failed(&self, why: &str, delay: Duration) {
        let (who, shown) = (&self.who, &self.target.shown);
        let Breaker { failures, pause } = self.target.breaker;
        let mut circuit = self.circuit();
        circuit.failures = circuit.failures.saturating_add(1);
        let was_open = circuit.open_until.is_some();
        circuit.is_tried = false;
        if circuit.failures >= failures {
            circuit.open_until = Some(Instant::now() + pause);
        }
        let (count, is_open) = (circuit.failures, circuit.open_until.is_some());
        drop(circuit);
        let pause = show_ms(pause.as_millis() as i64);
        if is_open && !was_open {
            tracing::warn!(
                "{who}: {shown} has failed {count} times in a row, and gets no request for {pause} \
                 each time; rows wait: {why}"
            );
        } else if count == 1 {
            let delay = show_ms(delay.as_millis() as i64);
            tracing::warn!("{who}: {shown}: {why}; it is tried again in {delay}");
        } else {
            tracing::debug!("{who}: {shown}: {why}, {count} times in a row");
        }
    }
}

/// Whether the same request may succeed later.
fn is_passing(status: StatusCode) -> bool {
    status.is_server_error()
        || status.is_informational()
        || [408, 425, 429].contains(&status.as_u16())
}

/// The beginning of an answer's text.
async fn beginning(mut answer: Response) -> String {
    let mut bytes = Vec::new();
    while bytes.len() < SHOWN_BYTES_MAX
        && let Ok(Some(more)) = answer.chunk().await
    {
        bytes.extend_from_slice(&more);
    }
    let is_cut = bytes.len() > SHOWN_BYTES_MAX;
    let mut text = String::from_utf8_lossy(&bytes).into_owned();
    if is_cut {
        truncate(&mut text, SHOWN_BYTES_MAX);
    }
    text.trim().to_owned()
}

/// `: text`, if there is any.
pub fn quoted(text: &str) -> String {
    match text {
        "" => String::new(),
        text => format!(": {text}"),
    }
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;
    use crate::clock::ManualClock;

    fn delivery(breaker: Breaker) -> Arc<Delivery> {
        let target = Target {
            url: Url::parse("http://127.0.0.1:1/").expect("an address"),
            shown: "http://127.0.0.1:1/".to_owned(),
            method: Method::POST,
            headers: HeaderMap::new(),
            connect_within: Duration::from_secs(1),
            answer_within: Duration::from_secs(1),
            retry: Retry {
                from: Duration::from_millis(100),
                to: Duration::from_secs(3),
            },
            breaker,
        };
        let clock = Arc::new(ManualClock::default());
        // 2024-01-01 10:00:00 UTC.
        clock.set(1_704_103_200_000);
        let delivery = Delivery::new("sink `out`".to_owned(), target, clock, Stop::default());
        delivery.expect("it can be sent")
    }

    const BREAKER: Breaker = Breaker {
        failures: 2,
        pause: Duration::from_millis(100),
    };

    #[test]
    fn a_server_says_when_it_wants_to_be_asked_again() {
        let delivery = delivery(BREAKER);
        let seconds = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, HeaderValue::from_static(text));
            delivery.retry_after(&headers).map(|wait| wait.as_secs())
        };
        assert_eq!(seconds("7"), Some(7));
        assert_eq!(seconds("100000"), Some(3_600));
        assert_eq!(seconds("Mon, 01 Jan 2024 10:00:09 GMT"), Some(9));
        assert_eq!(seconds("Mon, 01 Jan 2024 09:00:00 GMT"), Some(0));
        for wrong in ["", "soon", "-1", "1.5"] {
            assert_eq!(seconds(wrong), None, "{wrong}");
        }
        assert_eq!(delivery.retry_after(&HeaderMap::new()), None);
    }

    #[test]
    fn requests_are_sent_again_later_and_later() {
        let delivery = delivery(BREAKER);
        for (attempt, most_ms) in [(0, 100), (1, 200), (4, 1_600), (5, 3_000), (1_000, 3_000)] {
            for _ in 0..20 {
                let delay = delivery.delay(attempt).as_millis();
                assert!(
                    (most_ms / 2..=most_ms).contains(&delay),
                    "{attempt}: {delay}"
                );
            }
        }
    }

    #[tokio::test]
    async fn after_a_pause_one_request_is_sent_on_trial() {
        let delivery = delivery(BREAKER);
        let is_let_pass = async |within_ms| {
            let within = Duration::from_millis(within_ms);
            tokio::time::timeout(within, delivery.pass()).await.is_ok()
        };
        delivery.failed("it is down", Duration::ZERO);
        assert!(is_let_pass(20).await, "once is not often");
        delivery.failed("it is down", Duration::ZERO);
        assert!(!is_let_pass(20).await);
        assert!(is_let_pass(1_000).await, "on trial");
        assert!(!is_let_pass(200).await, "the trial is not over");
        delivery.failed("it is down", Duration::ZERO);
        assert!(!is_let_pass(20).await);
        assert!(is_let_pass(1_000).await, "on trial");
        delivery.succeeded();
        assert!(is_let_pass(20).await && is_let_pass(20).await);
    }
}
