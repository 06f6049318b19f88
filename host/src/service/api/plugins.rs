//! Takes plugins, which pipelines then name by name and version, or by digest; shows them,
//! and deletes those that nothing needs.

use std::io;
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Extension, Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::access::Caller;
use super::blocking;
use super::problem::Problem;
use crate::plugin::FILE_BYTES_MAX;
use crate::plugin::inspect::Inspection;
use crate::service::host::Host;
use crate::service::needs::{Need, needs};
use crate::service::uploads::{Added, Upload, Uploads};

/// A plugin that was uploaded.
#[derive(Serialize, ToSchema)]
struct PluginLine {
    #[serde(flatten)]
    upload: Upload,
    /// The pipelines that need it.
    needed_by: Vec<Need>,
}

/// A plugin that was uploaded, with what it says of itself.
#[derive(Serialize, ToSchema)]
struct PluginView {
    #[serde(flatten)]
    inspection: Inspection,
    uploaded_ms: i64,
    /// The name of a token, or `http` where the host has none.
    uploaded_by: String,
    /// The pipelines that need it.
    needed_by: Vec<Need>,
}

pub fn routes() -> OpenApiRouter<Arc<Host>> {
    OpenApiRouter::new()
        .routes(routes!(plugins, put))
        .routes(routes!(plugin, delete))
        .layer(DefaultBodyLimit::max(FILE_BYTES_MAX as usize))
}

fn uploads(host: &Host) -> Result<&Uploads, Problem> {
    host.context().store.uploads.as_ref().ok_or_else(|| {
        Problem::conflict(
            "this host runs one pipeline while it is written, whose plugins are files: \
             `sluicebox serve` takes plugins",
        )
    })
}

/// All plugins that were uploaded, in the order in which they came
#[utoipa::path(get, path = "/api/v1/plugins", responses(
    (status = 200, body = [PluginLine]),
    (status = 500, body = Problem, content_type = "application/problem+json"),
))]
async fn plugins(State(host): State<Arc<Host>>) -> Result<Json<Vec<PluginLine>>, Problem> {
    let list = move || {
        let uploads = host.context().store.uploads.iter();
        let list: Vec<Upload> = uploads.flat_map(Uploads::list).collect();
        if list.is_empty() {
            return Ok(Json(Vec::new()));
        }
        let needs = needs(&host).map_err(|error| Problem::internal(&error))?;
        let lines = list.into_iter().map(|upload| PluginLine {
            needed_by: needs.get(&upload.digest).cloned().unwrap_or_default(),
            upload,
        });
        Ok(Json(lines.collect()))
    };
    blocking(list).await
}

/// Takes a plugin, after it was compiled and has described itself
///
/// The body is its component, as `sluicebox build` makes it. A version is never overwritten.
#[utoipa::path(post, path = "/api/v1/plugins",
    request_body(content = Vec<u8>, content_type = "application/wasm"), responses(
    (status = 201, body = Upload),
    (status = 200, body = Upload, description = "It was there already"),
    (status = 400, body = Problem, content_type = "application/problem+json"),
    (status = 409, body = Problem, content_type = "application/problem+json",
        description = "Its version is there with other bytes, or this host takes no plugins"),
    (status = 413, body = Problem, content_type = "application/problem+json"),
    (status = 422, body = Problem, content_type = "application/problem+json",
        description = "It is no plugin that this host can run"),
    (status = 500, body = Problem, content_type = "application/problem+json"),
))]
async fn put(
    State(host): State<Arc<Host>>,
    Extension(Caller(by)): Extension<Caller>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    uploads(&host)?;
    let bytes = body.map_err(|rejection| Problem::body(&rejection, FILE_BYTES_MAX))?;
    // To compile takes much memory, and most of a second: one after the other.
    let turn = host.upload_turn().await;
    let added = blocking(move || {
        let added = add(&host, &bytes, by);
        drop(turn);
        added
    });
    Ok(match added.await? {
        Added::New(upload) => {
            tracing::info!(
                by = upload.uploaded_by,
                "plugin {} {} was uploaded: {}",
                upload.name,
                upload.version,
                upload.digest
            );
            (StatusCode::CREATED, Json(upload)).into_response()
        }
        Added::There(upload) => Json(upload).into_response(),
        Added::Taken(there) => {
            return Err(Problem::conflict(&format!(
                "there is a version {} of `{}` with other bytes: {}, uploaded by {}. A version \
                 stays what it is: give the plugin another one in its Cargo.toml, and build it \
                 again",
                there.version, there.name, there.digest, there.uploaded_by
            )));
        }
    })
}

fn add(host: &Host, bytes: &[u8], by: String) -> Result<Added, Problem> {
    let context = host.context();
    let checked = context.loader.check(bytes);
    let plugin = checked.map_err(|error| Problem::refused(&error.to_string()))?;
    let Inspection {
        name,
        version,
        digest,
        ..
    } = plugin.inspect();
    if name.is_empty() || version.is_empty() {
        return Err(Problem::refused(
            "the plugin has no name or no version, by which pipelines could name it: they are \
             those in its Cargo.toml",
        ));
    }
    let _holding = context.store.holding_plugins();
    let keep = || context.store.keep_plugin(&digest, bytes);
    let upload = Upload {
        name,
        version,
        digest: digest.clone(),
        bytes: bytes.len() as u64,
        uploaded_ms: context.clock.now_ms(),
        uploaded_by: by,
    };
    Ok(uploads(host)?.add(upload, keep)?)
}

/// A plugin that was uploaded, as `sluicebox inspect --json` shows it
#[utoipa::path(get, path = "/api/v1/plugins/{digest}", params(("digest" = String, Path, pattern = "^sha256:[0-9a-f]{64}$")), responses(
    (status = 200, body = PluginView),
    (status = 404, body = Problem, content_type = "application/problem+json"),
    (status = 409, body = Problem, content_type = "application/problem+json",
        description = "This version of the host cannot run it, or takes no plugins"),
    (status = 500, body = Problem, content_type = "application/problem+json"),
))]
async fn plugin(
    State(host): State<Arc<Host>>,
    Path(digest): Path<String>,
) -> Result<Json<PluginView>, Problem> {
    let show = move || {
        let upload = found(&host, &digest)?;
        let context = host.context();
        let path = context.store.plugin_path(&upload.digest);
        let plugin = context.loader.plugin(&path);
        let plugin = plugin.map_err(|error| Problem::conflict(&error.to_string()))?;
        Ok(Json(PluginView {
            inspection: plugin.inspect(),
            uploaded_ms: upload.uploaded_ms,
            uploaded_by: upload.uploaded_by,
            needed_by: needed_by(&host, &upload.digest)?,
        }))
    };
    blocking(show).await
}

/// Deletes a plugin that nothing needs
#[utoipa::path(delete, path = "/api/v1/plugins/{digest}", params(("digest" = String, Path, pattern = "^sha256:[0-9a-f]{64}$")), responses(
    (status = 204, description = "It is gone"),
    (status = 404, body = Problem, content_type = "application/problem+json"),
    (status = 409, body = Problem, content_type = "application/problem+json",
        description = "Something needs it, or this host takes no plugins"),
    (status = 500, body = Problem, content_type = "application/problem+json"),
))]
async fn delete(
    State(host): State<Arc<Host>>,
    Extension(Caller(by)): Extension<Caller>,
    Path(digest): Path<String>,
) -> Result<StatusCode, Problem> {
    let delete = move || {
        let Upload { name, version, .. } = found(&host, &digest)?;
        uploads(&host)?.remove(&digest, || {
            let needed_by = needed_by(&host, &digest)?;
            match needed_by.is_empty() {
                true => Ok(()),
                false => {
                    let needs: Vec<String> = needed_by.iter().map(Need::to_string).collect();
                    Err(Problem::conflict(&format!(
                        "{name} {version} is needed by {}",
                        needs.join("; ")
                    )))
                }
            }
        })?;
        tracing::info!(by, "plugin {name} {version} was deleted: {digest}");
        host.drop_plugins();
        Ok(StatusCode::NO_CONTENT)
    };
    blocking(delete).await
}

fn found(host: &Host, digest: &str) -> Result<Upload, Problem> {
    uploads(host)?.get(digest).ok_or_else(|| {
        Problem::not_found(
            "no plugin of this digest was uploaded: /api/v1/plugins lists those that were",
        )
    })
}

fn needed_by(host: &Host, digest: &str) -> Result<Vec<Need>, Problem> {
    let needs = needs(host).map_err(io::Error::other)?;
    Ok(needs.get(digest).cloned().unwrap_or_default())
}
