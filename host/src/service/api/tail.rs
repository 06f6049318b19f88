//! Shows rows as they leave a node, as server-sent events: as many a second as are asked
//! for, and how many others there were.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Query, State};
use axum::response::Sse;
use axum::response::sse::{Event, KeepAlive};
use futures_util::stream::{Stream, unfold};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Interval, MissedTickBehavior, interval};
use utoipa::ToSchema;

use super::access::Session;
use super::problem::Problem;
use super::{Named, running};
use crate::batch::{Batch, NO_TIME};
use crate::json::render_exact_row;
use crate::logic::Port;
use crate::plan::{MAIN_OUTPUT, Node, Plan};
use crate::run::Looks;
use crate::service::host::Host;
use crate::service::hosted::{Hosted, Phase};
use crate::stop::Stop;
use crate::suggest;
use crate::tap::Listening;

const RATE: u32 = 10;
const RATE_MAX: u32 = 1_000;

/// How often rows that were left out are told, and it is noticed that the pipeline runs anew or
/// the token is gone.
const TELL_EVERY: Duration = Duration::from_millis(500);

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct TailQuery {
    /// A node, or `NODE.OUTPUT` for another output than its main one
    from: String,
    /// How many rows a second are shown at most: 1 to 1000, 10 by default
    #[param(minimum = 1, maximum = 1000)]
    rate: Option<u32>,
}

/// An event `row`.
#[derive(Serialize, ToSchema)]
struct TailRow {
    /// Its event time; absent before it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    time_ms: Option<i64>,
    /// Of changes of a table: it takes back a row that came before.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    taken_back: bool,
    #[schema(value_type = Object)]
    row: Box<RawValue>,
}

/// An event `left_out`.
#[derive(Serialize, ToSchema)]
struct LeftOut {
    /// How many rows were not shown since the event before.
    rows: u64,
}

/// An event `end`, the last one.
#[derive(Serialize, ToSchema)]
struct TailEnd {
    why: &'static str,
}

#[derive(ToSchema)]
#[expect(dead_code, reason = "it describes the events")]
enum TailEvent {
    Row(TailRow),
    LeftOut(LeftOut),
    End(TailEnd),
}

/// Rows as they leave a node, as server-sent events `row`, `left_out` and `end`
#[utoipa::path(get, path = "/api/v1/pipelines/{name}/tail",
    params(("name" = String, Path), TailQuery), responses(
    (status = 200, body = TailEvent, content_type = "text/event-stream"),
    (status = 400, body = Problem, content_type = "application/problem+json"),
    (status = 404, body = Problem, content_type = "application/problem+json"),
    (status = 409, body = Problem, content_type = "application/problem+json"),
    (status = 429, body = Problem, content_type = "application/problem+json",
        description = "Too many are listening"),
))]
pub async fn tail(
    State(host): State<Arc<Host>>,
    Extension(session): Extension<Session>,
    Named(pipeline): Named,
    query: Result<Query<TailQuery>, QueryRejection>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let Query(TailQuery { from, rate }) =
        query.map_err(|error| Problem::bad_request(&error.body_text()))?;
    let rate = rate.unwrap_or(RATE);
    if !(1..=RATE_MAX).contains(&rate) {
        return Err(Problem::bad_request(&format!(
            "`rate` is {rate}; it must be 1 to {RATE_MAX} rows a second"
        )));
    }
    let permit = host.tails().clone().try_acquire_owned();
    let permit =
        permit.map_err(|_| Problem::too_many("too many are listening: try again later"))?;
    let seen = running(&pipeline)?;
    let looks = seen.pipeline.looks().clone();
    let listening = listen(&seen.planned.plan, &looks, &from, rate);
    let mut ticks = interval(TELL_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let tail = Tail {
        listening: listening.map_err(|why| Problem::not_found(&why))?,
        looks,
        from,
        rate,
        pipeline,
        session,
        stop: host.stop().clone(),
        ticks,
        ready: VecDeque::new(),
        has_ended: false,
        _permit: permit,
    };
    let events = unfold(tail, async |mut tail| {
        let event = tail.next().await?;
        Some((Ok(event), tail))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::default()))
}

/// Listens to an output by its name. The error lists those that there are.
fn listen(plan: &Plan, looks: &Looks, from: &str, rate: u32) -> Result<Listening, String> {
    let outputs = || plan.nodes.iter().flat_map(outputs);
    let is_main = |node: &Node, port: &Port| node.outputs[MAIN_OUTPUT].name == port.name;
    let named = |node: &Node, port: &Port| format!("{}.{}", node.name, port.name);
    let found = outputs()
        .find(|(node, port)| named(node, port) == from || is_main(node, port) && node.name == from);
    let (node, port) = found.ok_or_else(|| {
        let names = outputs().map(|(node, port)| match is_main(node, port) {
            true => node.name.clone(),
            false => named(node, port),
        });
        let names: Vec<String> = names.collect();
        let help = suggest::help(from, "outputs", names.iter().map(String::as_str));
        format!("there is no output `{from}`: {help}")
    })?;
    Ok(looks.tap(&node.name, &port.name).listen(rate))
}

fn outputs(node: &Node) -> impl Iterator<Item = (&Node, &Port)> {
    node.outputs.iter().map(move |port| (node, port))
}

struct Tail {
    listening: Listening,
    looks: Looks,
    from: String,
    rate: u32,
    pipeline: Arc<Hosted>,
    session: Session,
    stop: Stop,
    ticks: Interval,
    ready: VecDeque<Event>,
    has_ended: bool,
    _permit: OwnedSemaphorePermit,
}

impl Tail {
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            if self.has_ended {
                return None;
            }
            tokio::select! {
                biased;
                () = self.stop.wait() => self.end("the host is stopping"),
                _ = self.ticks.tick() => self.look_up(),
                batch = self.listening.next() => self.show(&batch),
            }
        }
    }

    fn show(&mut self, batch: &Batch) {
        for row in 0..batch.rows() {
            let Ok(value) = RawValue::from_string(render_exact_row(batch, row)) else {
                continue;
            };
            let shown = TailRow {
                time_ms: Some(batch.times[row]).filter(|&time_ms| time_ms != NO_TIME),
                taken_back: batch.is_taken_back(row),
                row: value,
            };
            self.push("row", &shown);
        }
    }

    /// Tells how many rows were left out, and follows the pipeline to its next run.
    fn look_up(&mut self) {
        if !self.session.holds() {
            return self.end("its token is not valid any more");
        }
        let rows = self.listening.take_left_out();
        if rows > 0 {
            self.push("left_out", &LeftOut { rows });
        }
        let shown = self.pipeline.shown();
        if shown.phase == Phase::Stopped {
            return self.end("the pipeline's file is gone");
        }
        let Some(running) = shown.running else {
            return;
        };
        let looks = running.pipeline.looks();
        if looks.is_same(&self.looks) {
            return;
        }
        match listen(&running.planned.plan, looks, &self.from, self.rate) {
            Ok(listening) => {
                self.listening = listening;
                self.looks = looks.clone();
            }
            Err(_) => self.end("the pipeline was changed, and has no such output any more"),
        }
    }

    fn end(&mut self, why: &'static str) {
        self.push("end", &TailEnd { why });
        self.has_ended = true;
    }

    fn push(&mut self, name: &str, data: &impl Serialize) {
        if let Ok(event) = Event::default().event(name).json_data(data) {
            self.ready.push_back(event);
        }
    }
}
