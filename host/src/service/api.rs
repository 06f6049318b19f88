//! The HTTP interface: pipelines are listed, changed, paused and started; health and
//! metrics are shown. Described by OpenAPI at `/api/v1/openapi.json`.

/// What is answered where something is wrong.
pub mod problem;
/// Reads bodies of JSON.
mod body;
/// What is shown of a pipeline.
mod views;
/// Metrics for Prometheus.
mod metrics;
/// Which requests are answered.
pub mod access;
/// The files of the live page.
mod page;
/// Shows the state of an operator.
mod state;
/// Shows rows as they leave a node.
mod tail;
/// Shows and replays dead letters.
mod letters;
/// Takes, shows and deletes plugins.
mod plugins;
/// Lists checkpoints, and finds the one to go back to.
mod checkpoints;
/// Shows what changes have changed in a pipeline's file.
mod changes;

use std::fs;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{
    DefaultBodyLimit, Extension, FromRequestParts, MatchedPath, Path, Query, Request, State,
};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::task::{block_in_place, spawn_blocking};
use tokio::time::Instant;
use tracing::Instrument;
use tracing::field::Empty;
use utoipa::openapi::OpenApi;
use utoipa::{OpenApi as _, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::access::{Access, Caller};
use self::body::json;
use self::problem::Problem;
use self::views::{CheckpointView, PipelineLine, PipelineView};
use super::change::ChangePlan;
use super::content;
use super::host::{Host, Proposal};
use super::hosted::{Hosted, Running};
use super::kept::Kept;
use super::store;
use crate::checkpoint::coordinator::CompletedCheckpoint;
use crate::checkpoint::savepoint;
use crate::config::{FILE_BYTES_MAX, NAME_PATTERN, NAMES, is_name};
use crate::element::NodeId;
use crate::http::connections::{self, Limits};
use crate::http::listener::Listener;
use crate::paths;
use crate::plan::json::to_json;
use crate::run::Pipeline;
use crate::suggest;
use crate::traces;

/// How long a request for a savepoint waits for it.
const SAVEPOINT_WAIT: Duration = Duration::from_secs(60);
const SAVEPOINT_LOOK: Duration = Duration::from_millis(20);
/// How long the last answers may take when the host is asked to stop.
const LAST_ANSWERS: Duration = Duration::from_secs(2);
/// How often addresses are forgotten that have sent no request lately.
const FORGET_EVERY: Duration = Duration::from_secs(60);

#[derive(utoipa::OpenApi)]
#[openapi(info(
    title = "Sluicebox",
    description = "Looks at the pipelines of a host, and changes them. Where the host has \
                   tokens, all but health needs one, as bearer token or as password.",
    license(name = "Apache-2.0", identifier = "Apache-2.0")
))]
struct Description;

/// Answers requests until the host is asked to stop.
pub async fn serve(host: Arc<Host>, listener: Listener, access: Arc<Access>) -> io::Result<()> {
    let (stop, stopped) = (host.stop().clone(), host.stop().clone());
    let router = router(host, access.clone());
    tokio::select! {
        () = connections::serve(listener, router, &stop, Limits::default()) => Ok(()),
        () = forget(&access) => Ok(()),
        // Whoever does not read an answer does not hold up the end.
        () = async {
            stopped.wait().await;
            tokio::time::sleep(LAST_ANSWERS).await;
        } => Ok(()),
    }
}

/// Addresses that have asked once do not take memory for ever.
async fn forget(access: &Access) {
    loop {
        tokio::time::sleep(FORGET_EVERY).await;
        access.forget();
    }
}

fn router(host: Arc<Host>, access: Arc<Access>) -> Router {
    let (router, description) = routes();
    let description = Arc::new(described(&description));
    let openapi = move || async move { Json(&*description).into_response() };
    router
        .route("/api/v1/openapi.json", axum::routing::get(openapi))
        .merge(page::routes())
        .fallback(async || Problem::not_found("there is nothing at this path"))
        .method_not_allowed_fallback(async || Problem::method())
        .layer(DefaultBodyLimit::max(FILE_BYTES_MAX as usize))
        .layer(middleware::from_fn_with_state(access, access::check))
        .layer(middleware::from_fn(traced))
        .with_state(host)
}

/// Answers a request in a span of its own, unless somebody asks how the service is.
async fn traced(request: Request, next: middleware::Next) -> Response {
    if access::OPEN.contains(&request.uri().path()) {
        return next.run(request).await;
    }
    let method = request.method();
    let route = request.extensions().get::<MatchedPath>();
    let route = route.map_or("nothing", MatchedPath::as_str);
    let span = traces::span!(
        "request",
        otel.name = format!("{method} {route}"),
        otel.kind = "server",
        http.request.method = method.as_str(),
        http.route = route,
        url.path = request.uri().path(),
        http.response.status_code = Empty,
    );
    traces::follow(&span, request.headers());
    let response = next.run(request).instrument(span.clone()).await;
    let status = response.status();
    span.record("http.response.status_code", status.as_u16());
    if status.is_server_error() {
        traces::fail(&span, &status);
    }
    response
}

/// The description, with what `access` may answer to every request.
fn described(description: &OpenApi) -> Value {
    let mut json = serde_json::to_value(description)
        .unwrap_or_else(|error| unreachable!("it has only texts and lists: {error}"));
    json["components"]["securitySchemes"] = json!({
        "token": { "type": "http", "scheme": "bearer" },
        "password": { "type": "http", "scheme": "basic" },
    });
    json["security"] = json!([{}, { "token": [] }, { "password": [] }]);
    let schema = json!({ "$ref": "#/components/schemas/Problem" });
    // Neither both nor none.
    json["components"]["schemas"]["WantedReplay"]["oneOf"] =
        json!([{ "required": ["letters"] }, { "required": ["matching"] }]);
    let paths = json["paths"].as_object_mut().into_iter().flatten();
    for (path, operations) in paths {
        for (_, operation) in operations.as_object_mut().into_iter().flatten() {
            // Those without parameters have no list of them.
            let parameters = operation
                .get_mut("parameters")
                .and_then(Value::as_array_mut);
            for parameter in parameters
                .into_iter()
                .flatten()
                .filter(|parameter| parameter["name"] == "name")
            {
                parameter["schema"]["pattern"] = json!(NAME_PATTERN);
            }
            for (status, why) in [
                ("401", "It has no token that the host knows"),
                (
                    "403",
                    "The token's role, or a page of another site, may not do this",
                ),
                ("429", "Too many requests of this address"),
            ] {
                let answers = &mut operation["responses"];
                let is_open = access::OPEN.contains(&path.as_str());
                if answers[status].is_null() && (!is_open || status == "403") {
                    answers[status] = json!({
                        "description": why,
                        "content": { "application/problem+json": { "schema": schema } },
                    });
                }
            }
        }
    }
    json
}

fn routes() -> (Router<Arc<Host>>, OpenApi) {
    OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(pipelines))
        .routes(routes!(pipeline, put, delete))
        .routes(routes!(propose))
        .routes(routes!(graph))
        .routes(routes!(file))
        .routes(routes!(changes::diff))
        .routes(routes!(state::state))
        .routes(routes!(tail::tail))
        .routes(routes!(letters::letters))
        .routes(routes!(letters::replay))
        .routes(routes!(letters::drop_letters))
        .routes(routes!(letters::replays))
        .routes(routes!(checkpoints::checkpoints))
        .routes(routes!(pause))
        .routes(routes!(start))
        .routes(routes!(savepoint))
        .routes(routes!(checkpoints::delete_savepoint))
        .merge(plugins::routes())
        .routes(routes!(health))
        .routes(routes!(ready))
        .routes(routes!(metrics))
        .split_for_parts()
}

/// A pipeline that a path names.
struct Named(Arc<Hosted>);

impl FromRequestParts<Arc<Host>> for Named {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, host: &Arc<Host>) -> Result<Self, Problem> {
        let Name(name) = Name::from_request_parts(parts, host).await?;
        host.pipeline(&name).map(Named).ok_or_else(|| {
            let pipelines = host.pipelines();
            let names = pipelines.iter().map(|pipeline| pipeline.name.as_str());
            let help = suggest::help(&name, "pipelines", names);
            Problem::not_found(&format!("there is no pipeline `{name}`: {help}"))
        })
    }
}

/// A node of a pipeline that a path names, of the plan that runs or has run last.
struct NamedNode {
    pipeline: Arc<Hosted>,
    node: NodeId,
}

impl FromRequestParts<Arc<Host>> for NamedNode {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, host: &Arc<Host>) -> Result<Self, Problem> {
        #[derive(Deserialize)]
        struct Segment {
            node: String,
        }
        let name = Path::<Segment>::from_request_parts(parts, host).await;
        let Path(Segment { node: name }) =
            name.map_err(|rejection| Problem::bad_request(&rejection.body_text()))?;
        let Named(pipeline) = Named::from_request_parts(parts, host).await?;
        let plan = &running(&pipeline)?.planned.plan;
        let node = plan.nodes.iter().position(|node| node.name == name);
        let node = node.ok_or_else(|| {
            let names = plan.nodes.iter().map(|node| node.name.as_str());
            Problem::not_found(&format!(
                "there is no node `{name}`: {}",
                suggest::help(&name, "nodes", names)
            ))
        })?;
        Ok(NamedNode { pipeline, node })
    }
}

/// A name in a path that a pipeline can have.
struct Name(String);

impl FromRequestParts<Arc<Host>> for Name {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, host: &Arc<Host>) -> Result<Self, Problem> {
        #[derive(Deserialize)]
        struct Segment {
            name: String,
        }
        let name = Path::<Segment>::from_request_parts(parts, host).await;
        match name {
            Ok(Path(Segment { name })) if is_name(&name) => Ok(Name(name)),
            _ => Err(Problem::bad_request(&format!(
                "the path has no name of a pipeline: {NAMES}"
            ))),
        }
    }
}

/// The body of a request, which is a pipeline's file.
fn text(body: Result<Bytes, BytesRejection>) -> Result<String, Problem> {
    let body = body.map_err(|rejection| Problem::body(&rejection, FILE_BYTES_MAX))?;
    String::from_utf8(body.into()).map_err(|_| {
        Problem::bad_request("the body is not text: a pipeline's file is TOML in UTF-8")
    })
}

/// Does what waits for files or a plugin on a thread of its own.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    match spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(Problem::internal(&error)),
    }
}

/// What runs, or has run last.
fn running(pipeline: &Hosted) -> Result<Running, Problem> {
    pipeline.shown().running.ok_or_else(|| {
        Problem::conflict(&format!(
            "pipeline `{}` has not run since the host was started",
            pipeline.name
        ))
    })
}

/// All pipelines
#[utoipa::path(get, path = "/api/v1/pipelines", responses(
    (status = 200, body = [PipelineLine]),
))]
async fn pipelines(State(host): State<Arc<Host>>) -> Json<Vec<PipelineLine>> {
    let (pipelines, now_ms) = (host.pipelines(), host.context().clock.now_ms());
    let lines = pipelines.iter().map(|it| PipelineLine::of(it, now_ms));
    Json(lines.collect())
}

/// One pipeline: its nodes with their counts, its checkpoints, its changes
#[utoipa::path(get, path = "/api/v1/pipelines/{name}", params(("name" = String, Path)), responses(
    (status = 200, body = PipelineView),
    (status = 400, body = Problem, content_type = "application/problem+json"),
    (status = 404, body = Problem, content_type = "application/problem+json"),
))]
async fn pipeline(
    State(host): State<Arc<Host>>,
    Named(pipeline): Named,
) -> Result<Json<PipelineView>, Problem> {
    let ledger = block_in_place(|| host.context().store.ledger(&pipeline.name));
    Ok(Json(PipelineView::of(&pipeline, ledger)))
}

#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Consent {
    /// The nodes whose state may go, with commas between them
    drop: Option<String>,
}

impl Consent {
    fn names(query: Result<Query<Consent>, QueryRejection>) -> Result<Vec<String>, Problem> {
        let Query(Consent { drop }) =
            query.map_err(|error| Problem::bad_request(&error.body_text()))?;
        let names = drop.as_deref().unwrap_or_default().split(',');
        let names = names.map(str::trim).filter(|name| !name.is_empty());
        Ok(names.map(str::to_owned).collect())
    }
}

/// Writes a pipeline's file, which then takes effect as if somebody had edited it
///
/// With `drop`, it takes effect as by a request to start.
#[utoipa::path(put, path = "/api/v1/pipelines/{name}", params(("name" = String, Path), Consent),
    request_body(content = String, content_type = "application/toml"), responses(
    (status = 202, body = ChangePlan, description = "What the change does"),
    (status = 400, body = Problem, content_type = "application/problem+json"),
    (status = 413, body = Problem, content_type = "application/problem+json"),
    (status = 422, body = Problem, content_type = "application/problem+json",
        description = "It has mistakes, or would lose state; nothing was written"),
    (status = 500, body = Problem, content_type = "application/problem+json"),
))]
async fn put(
    State(host): State<Arc<Host>>,
    Extension(Caller(by)): Extension<Caller>,
    Name(name): Name,
    query: Result<Query<Consent>, QueryRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let dropped = Consent::names(query)?;
    let text = text(body)?;
    let Proposal { planned, change } = plan(&host, &name, text.clone(), &dropped).await?;
    if let Some(why) = change.loses() {
        return Err(Problem::refused(&why));
    }
    let Some(file) = host.file(&name) else {
        return Err(Problem::not_found("this host runs one other pipeline"));
    };
    let digest = planned.content.digest.clone();
    host.note_asked(&name, &digest, &by);
    let (context, of, may_go) = (host.context().clone(), name.clone(), dropped.clone());
    let written = blocking(move || {
        if !may_go.is_empty() {
            // Before the file is found, and before the answer.
            context.store.agree(&of, &digest, &may_go)?;
        }
        write(&file, &text).map_err(|error| Problem::internal(&error))
    });
    written.await?;
    if let (false, Some(pipeline)) = (dropped.is_empty(), host.pipeline(&name)) {
        // Before the file is looked at: without the consent it would be refused.
        pipeline.agree(planned.content, &dropped, &by);
    }
    Ok((StatusCode::ACCEPTED, Json(change)).into_response())
}

/// Writes a pipeline's file as a whole. Links are followed, and who may read it stays.
fn write(file: &std::path::Path, text: &str) -> io::Result<()> {
    let file = paths::target(file)?;
    let before = fs::metadata(&file).ok();
    let (Some(folder), Some(name)) = (file.parent(), file.file_name().and_then(|it| it.to_str()))
    else {
        return Err(io::Error::other(format!("{} is no file", file.display())));
    };
    let access = before.map(|before| before.permissions());
    store::write(folder, name, text.as_bytes(), access)
}

/// Deletes a pipeline's file, with which the pipeline stops at a checkpoint; its state stays
#[utoipa::path(delete, path = "/api/v1/pipelines/{name}", params(("name" = String, Path)), responses(
    (status = 202, description = "It stops"),
    (status = 400, body = Problem, content_type = "application/problem+json"),
    (status = 404, body = Problem, content_type = "application/problem+json"),
    (status = 500, body = Problem, content_type = "application/problem+json"),
))]
async fn delete(Named(pipeline): Named) -> Result<StatusCode, Problem> {
    let deleted = block_in_place(|| paths::remove(&pipeline.file));
    deleted.map_err(|error| Problem::internal(&error))?;
    Ok(StatusCode::ACCEPTED)
}

/// A pipeline's file as it is now; with tokens, for the role `admin` alone
#[utoipa::path(get, path = "/api/v1/pipelines/{name}/file", params(("name" = String, Path)), responses(
    (status = 200, body = String, content_type = "application/toml"),
    (status = 400, body = Problem, content_type = "application/problem+json"),
    (status = 404, body = Problem, content_type = "application/problem+json"),
    (status = 500, body = Problem, content_type = "application/problem+json"),
))]
async fn file(Named(pipeline): Named) -> Result<Response, Problem> {
    let text = block_in_place(|| content::read_text(&pipeline.file));
    let text = text.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Problem::not_found("the pipeline's file is gone"),
        _ => Problem::internal(&error),
    })?;
    Ok(([(header::CONTENT_TYPE, "application/toml")], text).into_response())
}

/// What a file would change, without changing anything
#[utoipa::path(post, path = "/api/v1/pipelines/{name}/plan", params(("name" = String, Path), Consent),
    request_body(content = String, content_type = "application/toml"), responses(
    (status = 200, body = ChangePlan),
    (status = 400, body = Problem, content_type = "application/problem+json"),
    (status = 413, body = Problem, content_type = "application/problem+json"),
    (status = 422, body = Problem, content_type = "application/problem+json", description = "It has mistakes"),
    (status = 500, body = Problem, content_type = "application/problem+json"),
))]
async fn propose(
    State(host): State<Arc<Host>>,
    Name(name): Name,
    query: Result<Query<Consent>, QueryRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<ChangePlan>, Problem> {
    let dropped = Consent::names(query)?;
    let proposal = plan(&host, &name, text(body)?, &dropped).await?;
    Ok(Json(proposal.change))
}

async fn plan(
    host: &Arc<Host>,
    name: &str,
    text: String,
    dropped: &[String],
) -> Result<Proposal, Problem> {
    let (host, name, dropped) = (host.clone(), name.to_owned(), dropped.to_vec());
    let propose = move || host.propose(&name, text, &dropped);
    blocking(move || propose().map_err(|why| Problem::refused(&why))).await
}

/// The plan that runs, or has run last, as `sluicebox check --json` prints it
#[utoipa::path(get, path = "/api/v1/pipelines/{name}/graph", params(("name" = String, Path)), responses(
    (status = 200, body = Value),
    (status = 400, body = Problem, content_type = "application/problem+json"),
    (status = 404, body = Problem, content_type = "application/problem+json"),
    (status = 409, body = Problem, content_type = "application/problem+json"),
))]
async fn graph(Named(pipeline): Named) -> Result<Json<Value>, Problem> {
    Ok(Json(to_json(&running(&pipeline)?.planned.plan)))
}

/// Stops a pipeline at a checkpoint until it is started
#[utoipa::path(post, path = "/api/v1/pipelines/{name}/pause", params(("name" = String, Path)), responses(
    (status = 202, description = "It stops"),
    (status = 400, body = Problem, content_type = "application/problem+json"),
    (status = 404, body = Problem, content_type = "application/problem+json"),
))]
async fn pause(Named(pipeline): Named) -> StatusCode {
    pipeline.pause();
    StatusCode::ACCEPTED
}

#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Start {
    /// The nodes whose state may go.
    #[serde(default)]
    drop: Vec<String>,
    /// The checkpoint to go back to, by its name or number.
    from: Option<String>,
}

/// Starts a pipeline that was paused or has failed, and tries a content again that was
/// refused or taken back
///
/// With `from`, it goes back to that checkpoint, also if it runs.
#[utoipa::path(post, path = "/api/v1/pipelines/{name}/start", params(("name" = String, Path)),
    request_body = Option<Start>, responses(
    (status = 202, description = "It starts"),
    (status = 400, body = Problem, content_type = "application/problem+json"),
    (status = 404, body = Problem, content_type = "application/problem+json"),
    (status = 409, body = Problem, content_type = "application/problem+json",
        description = "It cannot go back to a checkpoint now, or makes none"),
    (status = 413, body = Problem, content_type = "application/problem+json"),
    (status = 422, body = Problem, content_type = "application/problem+json",
        description = "Going back to the checkpoint would lose state, or there is no node to drop"),
    (status = 500, body = Problem, content_type = "application/problem+json"),
))]
async fn start(
    State(host): State<Arc<Host>>,
    Extension(Caller(by)): Extension<Caller>,
    Named(pipeline): Named,
    body: Result<Bytes, BytesRejection>,
) -> Result<StatusCode, Problem> {
    let Start { drop, from } = json(body)?;
    let (of, dropped) = (pipeline.clone(), drop.clone());
    let prepare = move || match from {
        Some(from) => {
            let spared = checkpoints::go_back(&host, &of, &from, &dropped)?;
            Ok(Some(Arc::new(spared)))
        }
        None if dropped.is_empty() => Ok(None),
        None => agree(&host, &of, &dropped).map(|()| None),
    };
    let from = blocking(prepare).await?;
    pipeline.start(&drop, from, &by);
    Ok(StatusCode::ACCEPTED)
}

/// Notes that these states may go when a pipeline is started, if they are there.
fn agree(host: &Host, pipeline: &Hosted, dropped: &[String]) -> Result<(), Problem> {
    let plan = checkpoints::plan(host, pipeline)?;
    if let Some(why) = Kept::of_shown(Some(pipeline.shown()), &plan).lacks(dropped) {
        return Err(Problem::refused(&why));
    }
    let content = pipeline.wanted_content().ok_or_else(|| {
        Problem::conflict("its file is not read yet, or has mistakes: look at it first")
    })?;
    // Before the answer: nothing else would know of it after a crash.
    let store = &host.context().store;
    Ok(store.agree(&pipeline.name, &content.digest, dropped)?)
}

#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Savepoint {
    #[serde(default)]
    #[schema(required, pattern = "^(?![0-9]+$)[A-Za-z0-9._-]{1,100}$")]
    name: String,
}

/// Makes a checkpoint that is kept under a name, and waits for it
#[utoipa::path(post, path = "/api/v1/pipelines/{name}/savepoints", params(("name" = String, Path)),
    request_body = Savepoint, responses(
    (status = 201, body = CheckpointView),
    (status = 400, body = Problem, content_type = "application/problem+json"),
    (status = 404, body = Problem, content_type = "application/problem+json"),
    (status = 409, body = Problem, content_type = "application/problem+json",
        description = "It does not run, or makes no checkpoints"),
    (status = 413, body = Problem, content_type = "application/problem+json"),
    (status = 504, body = Problem, content_type = "application/problem+json"),
))]
async fn savepoint(
    Named(pipeline): Named,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let Savepoint { name } = json(body)?;
    savepoint::check_name(&name).map_err(|why| Problem::bad_request(&why))?;
    let running = running(&pipeline)?;
    if running.state.is_none() {
        return Err(Problem::conflict(
            "the pipeline makes no checkpoints: add [checkpoints] to its file",
        ));
    }
    // An older one may have the name, too.
    let mut before = running.pipeline.history().last().map(|done| done.id);
    let mut asked: Option<Pipeline> = None;
    let until = Instant::now() + SAVEPOINT_WAIT;
    while Instant::now() < until {
        let phase = pipeline.phase().phase;
        if phase.rests() {
            return Err(Problem::conflict(
                "the pipeline does not run: start it first",
            ));
        }
        if let Some(done) = asked.as_ref().and_then(|asked| made(asked, &name, before)) {
            return Ok((StatusCode::CREATED, Json(CheckpointView::of(&done))).into_response());
        }
        // A run that ends meanwhile may not have made it.
        if let Some(running) = pipeline.shown().running.filter(|_| phase.reads_rows())
            && !asked
                .as_ref()
                .is_some_and(|asked| asked.is_same(&running.pipeline))
        {
            before = before.max(running.pipeline.history().last().map(|done| done.id));
            running.pipeline.requests().savepoint(&name);
            asked = Some(running.pipeline);
        }
        tokio::time::sleep(SAVEPOINT_LOOK).await;
    }
    if let Some(asked) = asked {
        asked.requests().withdraw_savepoint(&name);
    }
    Err(Problem::timeout(
        "the savepoint was not complete within 60 seconds, and is not wanted any more",
    ))
}

/// The savepoint of this name that a pipeline has made behind the checkpoint `before`.
fn made(pipeline: &Pipeline, name: &str, before: Option<u64>) -> Option<CompletedCheckpoint> {
    let is_it =
        |done: &CompletedCheckpoint| done.name.as_deref() == Some(name) && Some(done.id) > before;
    pipeline.history().into_iter().rfind(is_it)
}

#[derive(Serialize, ToSchema)]
struct Health {
    status: &'static str,
}

/// Whether the host answers
#[utoipa::path(get, path = "/healthz", responses((status = 200, body = Health)))]
async fn health() -> Json<Health> {
    Json(Health { status: "ok" })
}

/// Whether all pipelines have been started, and the host is not stopping
#[utoipa::path(get, path = "/readyz", responses(
    (status = 200, body = Health),
    (status = 503, body = Health),
))]
async fn ready(State(host): State<Arc<Host>>) -> (StatusCode, Json<Health>) {
    match host.is_ready() {
        true => (StatusCode::OK, Json(Health { status: "ready" })),
        false => (
            StatusCode::SERVICE_UNAVAILABLE,
            Json(Health {
                status: "starting or stopping",
            }),
        ),
    }
}

/// Counters for Prometheus, as OpenMetrics for those who accept it
#[utoipa::path(get, path = "/metrics", responses(
    (status = 200, content((String = "application/openmetrics-text"), (String = "text/plain"))),
    (status = 500, body = Problem, content_type = "application/problem+json"),
))]
async fn metrics(State(host): State<Arc<Host>>, headers: HeaderMap) -> Result<Response, Problem> {
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok());
    let format = metrics::Format::accepted(accept.unwrap_or_default());
    let text = metrics::text(&host, format).map_err(|error| Problem::internal(&error))?;
    Ok(([(header::CONTENT_TYPE, format.content_type())], text).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `routes` serves is described there, and the one path more describes them.
    #[test]
    fn the_description_has_every_path_with_its_answers() {
        let (_, description) = routes();
        let paths: Vec<&String> = description.paths.paths.keys().collect();
        assert_eq!(paths.len(), 22, "{paths:?}");
        for path in access::FILES {
            assert!(paths.contains(&&path.to_owned()), "{path}");
        }
        let json = described(&description);
        let operations = json["paths"].as_object().expect("paths");
        for (path, methods) in operations {
            for (method, operation) in methods.as_object().expect("methods") {
                let answers = operation["responses"].as_object().expect("answers");
                assert!(
                    answers.keys().any(|code| code.starts_with('2')),
                    "{method} {path}"
                );
                let can_be_bad = path.contains("{name}") || method == "post";
                assert_eq!(answers.contains_key("400"), can_be_bad, "{method} {path}");
                assert!(operation["summary"].is_string(), "{method} {path}");
            }
        }
    }

    #[test]
    fn letters_that_are_named_are_described_as_some() {
        let (_, description) = routes();
        let json = described(&description);
        for body in ["WantedReplay", "WantedDrop"] {
            let letters = &json["components"]["schemas"][body]["properties"]["letters"];
            assert_eq!(letters["type"], "array", "{body}: {letters}");
            assert_eq!(letters["minItems"], 1, "{body}: {letters}");
        }
        let replay = &json["components"]["schemas"]["WantedReplay"];
        let either = json!([{ "required": ["letters"] }, { "required": ["matching"] }]);
        assert_eq!(replay["oneOf"], either, "{replay}");
        let matching = &replay["properties"]["matching"];
        assert_eq!(matching["$ref"], "#/components/schemas/Matching", "no null");
    }
}
