//! Shows what a change has changed in a pipeline's file.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use similar::TextDiff;

use super::problem::Problem;
use super::{Named, blocking};
use crate::service::host::Host;

/// Files that differ much are compared for so long, and then roughly.
const PATIENCE: Duration = Duration::from_millis(500);

#[derive(Deserialize)]
pub struct Of {
    digest: String,
}

/// What a change has changed in the pipeline's file; with tokens, for the role `admin` alone
///
/// As `diff -u` writes it, against the content that was to be gone back to then; empty where a
/// plugin alone was another.
#[utoipa::path(get, path = "/api/v1/pipelines/{name}/changes/{digest}/diff",
    params(("name" = String, Path), ("digest" = String, Path, description = "The `digest` of the change")), responses(
    (status = 200, body = String, content_type = "text/plain"),
    (status = 400, body = Problem, content_type = "application/problem+json"),
    (status = 404, body = Problem, content_type = "application/problem+json",
        description = "There is no such pipeline or change, or the file of then is not kept any more"),
    (status = 409, body = Problem, content_type = "application/problem+json",
        description = "The history of its changes is damaged"),
    (status = 500, body = Problem, content_type = "application/problem+json"),
))]
pub async fn diff(
    State(host): State<Arc<Host>>,
    Named(pipeline): Named,
    Path(Of { digest }): Path<Of>,
) -> Result<Response, Problem> {
    let diff = move || {
        let store = &host.context().store;
        let ledger = store.ledger(&pipeline.name);
        let ledger = ledger.map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData => Problem::conflict(&error.to_string()),
            _ => Problem::internal(&error),
        })?;
        let mut changes = ledger.changes.iter().rev();
        let change = changes.find(|change| change.digest == digest);
        let change = change.ok_or_else(|| {
            Problem::not_found(&format!(
                "no change of the pipeline has the digest {digest}"
            ))
        })?;
        let text = |digest: &str| {
            let text = store.text(&pipeline.name, digest)?;
            text.ok_or_else(|| {
                Problem::not_found(&format!(
                    "the file of content {digest} is not kept any more"
                ))
            })
        };
        let then = change.then.as_deref().map(text).transpose()?;
        let (then, now) = (then.unwrap_or_default(), text(&change.digest)?);
        Ok(unified(&then, &now))
    };
    let diff = blocking(diff).await?;
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], diff).into_response())
}

fn unified(then: &str, now: &str) -> String {
    let mut differ = TextDiff::configure();
    let diff = differ.timeout(PATIENCE).diff_lines(then, now);
    diff.unified_diff().context_radius(3).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_compared() {
        let then = "name = \"shop\"\n[sinks.out]\ntype = \"console\"\n";
        let now = "name = \"shop\"\n[sinks.out]\ntype = \"blackhole\"\n";
        expect_test::expect![[r#"
            @@ -1,3 +1,3 @@
             name = "shop"
             [sinks.out]
            -type = "console"
            +type = "blackhole"
        "#]]
        .assert_eq(&unified(then, now));
        assert_eq!(unified(now, now), "");
    }
}
