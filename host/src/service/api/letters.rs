//! Shows dead letters, replays them, and notes that some need nothing.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::ops::ControlFlow;
use std::path::Path as FilePath;
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::body::{Object, json, object};
use super::problem::Problem;
use super::{Named, blocking, checkpoints, running};
use crate::dead_letter::DeadLetter;
use crate::plan::Plan;
use crate::quantity::show_bytes;
use crate::service::host::Host;
use crate::service::hosted::{Hosted, Phase};
use crate::service::letters::{LetterStatus, Letters, ReplayRecord, ReplayRow, WantedStatus};
use crate::service::replay::row_of;
use crate::sink::dead_letter;
use crate::sink::dead_letter::kept::{self, Index, KeptLetter};

const LIMIT: usize = 100;
const LIMIT_MAX: usize = 1_000;
/// An answer has no more letters behind those that have so many bytes.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// Where so many letters are is remembered for the next answer.
const INDEX_MAX: usize = 2_000_000;
/// A file in which letters are moved meanwhile is read anew so many times.
const READINGS_MAX: usize = 3;
/// A replay has at most so many letters, with so many bytes of rows, unless it has only one.
const REPLAY_MAX: usize = 10_000;
const REPLAY_BYTES_MAX: usize = 64 << 20;
/// So many letters are named that were left out of a replay.
const LEFT_MAX: usize = 100;

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct LettersQuery {
    /// Of this node
    node: Option<String>,
    /// Of this kind, such as `decode`, `reject` or `trap`
    kind: Option<String>,
    /// `open` by default
    #[serde(default)]
    #[param(inline)]
    status: WantedStatus,
    /// How many there are in an answer at most: 1 to 1000, 100 by default
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// The `next` of the answer before, asked in the same way
    cursor: Option<usize>,
}

/// Dead letters, the newest first.
#[derive(Default, Serialize, ToSchema)]
pub struct LettersView {
    letters: Vec<LetterView>,
    /// How many there are of the node, kind and status that were asked for.
    count: usize,
    /// For `cursor` of the next request; absent where nothing follows.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<usize>,
}

#[derive(Serialize, ToSchema)]
struct LetterView {
    id: String,
    status: LetterStatus,
    /// Why it cannot be replayed as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    stays: Option<String>,
    #[serde(flatten)]
    letter: DeadLetter,
}

/// The dead letters of a pipeline, the newest first
#[utoipa::path(get, path = "/api/v1/pipelines/{name}/dead-letters",
    params(("name" = String, Path), LettersQuery), responses(
    (status = 200, body = LettersView),
    (status = 400, body = Problem, content_type = "application/problem+json"),
    (status = 404, body = Problem, content_type = "application/problem+json"),
    (status = 409, body = Problem, content_type = "application/problem+json",
        description = "Its file has mistakes, or they go to a pipe or device"),
    (status = 500, body = Problem, content_type = "application/problem+json"),
))]
pub async fn letters(
    State(host): State<Arc<Host>>,
    Named(pipeline): Named,
    query: Result<Query<LettersQuery>, QueryRejection>,
) -> Result<Json<LettersView>, Problem> {
    let Query(query) = query.map_err(|error| Problem::bad_request(&error.body_text()))?;
    let limit = query.limit.unwrap_or(LIMIT);
    if !(1..=LIMIT_MAX).contains(&limit) {
        return Err(Problem::bad_request(&format!(
            "`limit` is 1 to {LIMIT_MAX}"
        )));
    }
    let listed = blocking(move || list(&host, &pipeline, &query, limit)).await?;
    Ok(Json(listed))
}

fn list(
    host: &Host,
    pipeline: &Hosted,
    query: &LettersQuery,
    limit: usize,
) -> Result<LettersView, Problem> {
    let plan = checkpoints::plan(host, pipeline)?;
    let known = host.context().store.letters(&pipeline.name)?;
    let Some(path) = file(&plan)? else {
        return Ok(LettersView::default());
    };
    for _ in 0..READINGS_MAX {
        let before = host.letters().take();
        let index = Index::of(path, &pipeline.name, before);
        let index = index.map_err(|error| unreadable(path, &error))?;
        if let Some(listed) = page(&plan, path, &index, &known, query, limit)? {
            if index.count() <= INDEX_MAX {
                *host.letters() = Some(index);
            }
            return Ok(listed);
        }
    }
    Err(Problem::conflict(&format!(
        "letters in {} are moved again and again: try again",
        path.display()
    )))
}

/// A page of the letters in the file; `None` if they are not where the index has them.
fn page(
    plan: &Plan,
    path: &FilePath,
    index: &Index,
    known: &Letters,
    query: &LettersQuery,
    limit: usize,
) -> Result<Option<LettersView>, Problem> {
    let statuses = known.statuses();
    let before = query.cursor.unwrap_or(usize::MAX);
    let mut count = 0;
    // The last ones, and one more if there is one.
    let mut found: VecDeque<usize> = VecDeque::new();
    for letter in 0..index.count() {
        let is_of_node = is(query.node.as_deref(), index.node(letter));
        let is_of_kind = is(query.kind.as_deref(), index.kind(letter));
        if is_of_node && is_of_kind && query.status.has(statuses.of(&index.id(letter))) {
            count += 1;
            if letter < before {
                found.push_back(letter);
            }
            if found.len() > limit + 1 {
                found.pop_front();
            }
        }
    }
    let wanted = found.iter().rev().take(limit).copied();
    let mut letters = Vec::new();
    let (mut next, mut bytes) = (None, 0);
    let read = index.read(
        wanted,
        |letter,
         KeptLetter {
             letter: dead_letter,
             ..
         }| {
            bytes += size(&dead_letter);
            if bytes > ANSWER_BYTES_MAX && !letters.is_empty() {
                return ControlFlow::Break(());
            }
            let id = index.id(letter);
            next = Some(letter);
            letters.push(LetterView {
                stays: row_of(plan, &id, &dead_letter, None).err(),
                status: statuses.of(&id),
                id,
                letter: dead_letter,
            });
            ControlFlow::Continue(())
        },
    );
    let is_there = read.map_err(|error| unreadable(path, &error))?;
    Ok(is_there.then_some(LettersView {
        next: next.filter(|_| letters.len() < found.len()),
        letters,
        count,
    }))
}

/// Whether a name is the one that is wanted, if one is.
fn is(wanted: Option<&str>, name: &str) -> bool {
    wanted.is_none_or(|wanted| wanted == name)
}

/// About what a letter has in bytes.
fn size(letter: &DeadLetter) -> usize {
    let texts = [
        &letter.payload,
        &letter.payload_base64,
        &letter.row,
        &letter.panic,
    ];
    letter.error.len() + texts.into_iter().flatten().map(String::len).sum::<usize>()
}

/// Gives the dead letters of a pipeline to `take`, oldest first.
fn read(
    plan: &Plan,
    pipeline: &str,
    mut take: impl FnMut(String, DeadLetter),
) -> Result<(), Problem> {
    let Some(path) = file(plan)? else {
        return Ok(());
    };
    let read = kept::read(path, pipeline, |id, kept| take(id, kept.letter));
    read.map_err(|error| unreadable(path, &error))
}

/// The file of dead letters, if there may be any.
fn file(plan: &Plan) -> Result<Option<&FilePath>, Problem> {
    match plan.dead_letters.as_deref() {
        Some(path) if dead_letter::is_special(path) => Err(Problem::conflict(&format!(
            "the pipeline writes its dead letters to {}, where they cannot be read again",
            path.display()
        ))),
        path => Ok(path),
    }
}

fn unreadable(path: &FilePath, error: &io::Error) -> Problem {
    Problem::internal(&format!("{} cannot be read: {error}", path.display()))
}

/// Which dead letters to replay: those that are named, or all open ones of a node or kind; the
/// description says that one of the two is given.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct WantedReplay {
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<Vec<WantedLetter>>, nullable = false, min_items = 1)]
    letters: Option<Vec<Object<WantedLetter>>>,
    #[serde(default, deserialize_with = "object")]
    #[schema(value_type = Option<Matching>, nullable = false)]
    matching: Option<Matching>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct WantedLetter {
    id: String,
    /// A row to take in place of the letter's: an object of the fields that come to the node,
    /// or that the source reads.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<Object>, nullable = false)]
    row: Option<Box<RawValue>>,
}

/// A value that is there, be it null, which is none.
fn given<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    T::deserialize(deserializer).map(Some)
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Matching {
    node: Option<String>,
    kind: Option<String>,
    /// The `until` of the answer before: letters that have come since do not count.
    until: Option<String>,
}

/// A replay that was taken.
#[derive(Serialize, ToSchema)]
struct TakenReplay {
    replay: u64,
    /// How many letters it has.
    letters: usize,
    /// Letters that match, and cannot be replayed; 100 at most.
    left: Vec<LeftLetter>,
    /// How many more match: a replay has a part of them, the oldest. When it is done, the same
    /// request with `until` replays the next part.
    more: usize,
    /// The newest letter that matches, if there are more.
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<String>,
}

#[derive(Serialize, ToSchema)]
struct LeftLetter {
    id: String,
    why: String,
}

/// Has rows of dead letters go through the pipeline again, from where they failed
#[utoipa::path(post, path = "/api/v1/pipelines/{name}/dead-letters/replay",
    params(("name" = String, Path)), request_body = WantedReplay, responses(
    (status = 202, body = TakenReplay, description = "They are read as soon as the run has made a checkpoint"),
    (status = 400, body = Problem, content_type = "application/problem+json"),
    (status = 404, body = Problem, content_type = "application/problem+json"),
    (status = 409, body = Problem, content_type = "application/problem+json",
        description = "Another replay is under way, one of them is no open letter, or the pipeline does not run or makes no checkpoints"),
    (status = 413, body = Problem, content_type = "application/problem+json"),
    (status = 422, body = Problem, content_type = "application/problem+json",
        description = "One of them cannot be replayed, or none matches; nothing was done"),
    (status = 500, body = Problem, content_type = "application/problem+json"),
))]
pub async fn replay(
    State(host): State<Arc<Host>>,
    Named(pipeline): Named,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let wanted: WantedReplay = json(body)?;
    let is_clear = match (&wanted.letters, &wanted.matching) {
        (Some(letters), None) => !letters.is_empty(),
        // What names no letter does not mean all.
        (letters, matching) => letters.is_none() && matching.is_some(),
    };
    if !is_clear {
        return Err(Problem::bad_request(
            "name `letters` by their ids, or all that are open by `matching`, which may be {}",
        ));
    }
    let taken = blocking(move || take_replay(&host, &pipeline, wanted)).await?;
    Ok((StatusCode::ACCEPTED, Json(taken)).into_response())
}

fn take_replay(
    host: &Host,
    pipeline: &Hosted,
    wanted: WantedReplay,
) -> Result<TakenReplay, Problem> {
    let running = running(pipeline)?;
    let plan = &running.planned.plan;
    if plan.state.is_none() {
        return Err(Problem::conflict(
            "the pipeline makes no checkpoints, which a replay needs: add [checkpoints] to its file",
        ));
    }
    let phase = pipeline.shown().phase;
    let runs = matches!(phase, Phase::Starting | Phase::Running | Phase::Probation);
    if !runs && phase != Phase::Ended {
        return Err(Problem::conflict(&format!(
            "the pipeline is {}: dead letters are replayed while it runs, or when it has ended",
            phase.name()
        )));
    }
    let context = host.context();
    let taken = context.store.change_letters(&pipeline.name, |known| {
        if known.open.is_some() {
            return Err(Problem::conflict(
                "another replay is under way: wait for its end",
            ));
        }
        let found = wanted.rows(plan, &pipeline.name, known, Part::MAX)?;
        let letters = found.rows.len();
        let replay = known.open(found.rows, context.clock.now_ms());
        Ok(TakenReplay {
            replay,
            letters,
            left: found.left,
            more: found.more,
            until: found.newest.filter(|_| found.more > 0),
        })
    })?;
    pipeline.replay();
    Ok(taken)
}

/// How much a replay has at most.
#[derive(Clone, Copy)]
struct Part {
    letters: usize,
    bytes: usize,
}

impl Part {
    const MAX: Part = Part {
        letters: REPLAY_MAX,
        bytes: REPLAY_BYTES_MAX,
    };
}

/// What a replay has of the letters that are wanted.
#[derive(Default)]
struct Found {
    rows: Vec<ReplayRow>,
    bytes: usize,
    left: Vec<LeftLetter>,
    /// How many more match, if one of them can be replayed.
    more: usize,
    /// The newest that matches.
    newest: Option<String>,
}

impl Found {
    /// Takes a letter that matches. When the part is full, those that come then are counted.
    fn take(&mut self, id: String, row: impl FnOnce() -> Result<ReplayRow, String>, part: Part) {
        self.newest = Some(id.clone());
        if self.more > 0 {
            self.more += 1;
            return;
        }
        match row() {
            Ok(row) => {
                let has_room = self.rows.len() < part.letters
                    && self.bytes + row.row.len() <= part.bytes
                    || self.rows.is_empty();
                if has_room {
                    self.bytes += row.row.len();
                    self.rows.push(row);
                } else {
                    self.more = 1;
                }
            }
            Err(why) if self.left.len() < LEFT_MAX => self.left.push(LeftLetter { id, why }),
            Err(_) => {}
        }
    }
}

impl WantedReplay {
    fn rows(
        &self,
        plan: &Plan,
        pipeline: &str,
        known: &Letters,
        part: Part,
    ) -> Result<Found, Problem> {
        let mut named: BTreeMap<&str, Option<&str>> = BTreeMap::new();
        for Object(letter) in self.letters.iter().flatten() {
            let row = letter.row.as_ref().map(|row| row.get());
            if named.insert(&letter.id, row).is_some() {
                return Err(Problem::bad_request(&format!(
                    "letter {} is named twice",
                    letter.id
                )));
            }
        }
        let mut found = Found::default();
        let mut settled = 0;
        let mut refused = None;
        let statuses = known.statuses();
        let until = self.matching.as_ref().and_then(|it| it.until.as_deref());
        let mut is_over = false;
        read(plan, pipeline, |id, letter| {
            let edited = named.remove(id.as_str());
            let status = statuses.of(&id);
            settled += usize::from(status.is_settled());
            let is_last = until == Some(id.as_str());
            match (&self.matching, edited) {
                (Some(Matching { node, kind, .. }), _) => {
                    let matches = status == LetterStatus::Open
                        && is(node.as_deref(), &letter.node)
                        && is(kind.as_deref(), &letter.kind);
                    if matches && !is_over {
                        let row = || row_of(plan, &id, &letter, None);
                        found.take(id.clone(), row, part);
                    }
                }
                (None, None) => {}
                (None, Some(_)) if status != LetterStatus::Open => {
                    let why = format!("letter {id} is not open: see its `status`");
                    refused.get_or_insert(Problem::conflict(&why));
                }
                (None, Some(edited)) => match row_of(plan, &id, &letter, edited) {
                    Ok(row) => found.take(id, || Ok(row), part),
                    Err(why) => {
                        let why = format!("letter {id} cannot be replayed: {why}");
                        refused.get_or_insert(Problem::refused(&why));
                    }
                },
            }
            is_over |= is_last;
        })?;
        if let Some(refused) = refused {
            return Err(refused);
        }
        let unknown = named.first_key_value().map(|(id, _)| *id);
        if let Some(unknown) = unknown.or(until.filter(|_| !is_over)) {
            return Err(Problem::not_found(&format!("there is no letter {unknown}")));
        }
        if found.more > 0 && self.letters.is_some() {
            return Err(Problem::refused(&format!(
                "these are more than {} letters, or more than {} of rows: name fewer",
                part.letters,
                show_bytes(part.bytes as u64)
            )));
        }
        if found.rows.is_empty() {
            return Err(Problem::refused(match found.left.first() {
                Some(first) => &first.why,
                None => "no open letter matches",
            }));
        }
        known
            .check_room(settled)
            .map_err(|why| Problem::conflict(&why))?;
        Ok(found)
    }
}

#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct WantedDrop {
    /// The ids of letters.
    #[serde(default)]
    #[schema(required, min_items = 1)]
    letters: Vec<String>,
}

/// Notes that dead letters need nothing more; they stay in their file
#[utoipa::path(post, path = "/api/v1/pipelines/{name}/dead-letters/drop",
    params(("name" = String, Path)), request_body = WantedDrop, responses(
    (status = 204, description = "They are not open any more"),
    (status = 400, body = Problem, content_type = "application/problem+json"),
    (status = 404, body = Problem, content_type = "application/problem+json"),
    (status = 409, body = Problem, content_type = "application/problem+json",
        description = "One of them is being replayed, or was"),
    (status = 413, body = Problem, content_type = "application/problem+json"),
    (status = 500, body = Problem, content_type = "application/problem+json"),
))]
pub async fn drop_letters(
    State(host): State<Arc<Host>>,
    Named(pipeline): Named,
    body: Result<Bytes, BytesRejection>,
) -> Result<StatusCode, Problem> {
    let WantedDrop { letters } = json(body)?;
    if letters.is_empty() {
        return Err(Problem::bad_request("name `letters` by their ids"));
    }
    blocking(move || {
        let plan = checkpoints::plan(&host, &pipeline)?;
        host.context()
            .store
            .change_letters(&pipeline.name, |known| {
                note_dropped(&plan, &pipeline.name, known, letters)
            })
    })
    .await?;
    Ok(StatusCode::NO_CONTENT)
}

fn note_dropped(
    plan: &Plan,
    pipeline: &str,
    known: &mut Letters,
    letters: Vec<String>,
) -> Result<(), Problem> {
    let mut missing: BTreeSet<&str> = letters.iter().map(String::as_str).collect();
    let (mut settled, mut refused) = (0, None);
    let statuses = known.statuses();
    read(plan, pipeline, |id, _| {
        let status = statuses.of(&id);
        settled += usize::from(status.is_settled());
        let is_wanted = missing.remove(id.as_str());
        if is_wanted && matches!(status, LetterStatus::Replaying | LetterStatus::Replayed) {
            let why = format!("letter {id} is being replayed, or was");
            refused.get_or_insert(Problem::conflict(&why));
        }
    })?;
    if let Some(refused) = refused {
        return Err(refused);
    }
    if let Some(unknown) = missing.first() {
        return Err(Problem::not_found(&format!("there is no letter {unknown}")));
    }
    known
        .check_room(settled)
        .map_err(|why| Problem::conflict(&why))?;
    known.drop(letters);
    Ok(())
}

/// The replays of a pipeline, oldest first
#[utoipa::path(get, path = "/api/v1/pipelines/{name}/replays", params(("name" = String, Path)), responses(
    (status = 200, body = [ReplayRecord]),
    (status = 400, body = Problem, content_type = "application/problem+json"),
    (status = 404, body = Problem, content_type = "application/problem+json"),
    (status = 500, body = Problem, content_type = "application/problem+json"),
))]
pub async fn replays(
    State(host): State<Arc<Host>>,
    Named(pipeline): Named,
) -> Result<Json<Vec<ReplayRecord>>, Problem> {
    let letters = blocking(move || Ok(host.context().store.letters(&pipeline.name)?)).await?;
    Ok(Json(letters.replays))
}
