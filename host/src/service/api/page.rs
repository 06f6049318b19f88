//! The live page: files that are a part of the binary.

use axum::Router;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;

/// Path, kind and content of each file.
type PageFile = (&'static str, &'static str, &'static str);

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";

macro_rules! part {
    ($kind:expr, $name:literal) => {
        (
            concat!("/page/", $name),
            $kind,
            include_str!(concat!("../page/", $name)),
        )
    };
    ($kind:expr, vendor $name:literal) => {
        (
            concat!("/page/", $name),
            $kind,
            include_str!(concat!("../page/vendor/", $name)),
        )
    };
}

const FILES: [PageFile; 24] = [
    ("/", HTML, include_str!("../page/index.html")),
    part!("image/svg+xml", "icon.svg"),
    part!(STYLE, "style.css"),
    part!(SCRIPT, "app.js"),
    part!(SCRIPT, "changes.js"),
    part!(SCRIPT, "charts.js"),
    part!(SCRIPT, "checkpoints.js"),
    part!(SCRIPT, "file.js"),
    part!(SCRIPT, "format.js"),
    part!(SCRIPT, "graph.js"),
    part!(SCRIPT, "host.js"),
    part!(SCRIPT, "letters.js"),
    part!(SCRIPT, "list.js"),
    part!(SCRIPT, "parts.js"),
    part!(SCRIPT, "pipeline.js"),
    part!(SCRIPT, "plugins.js"),
    part!(SCRIPT, "state.js"),
    part!(SCRIPT, "tail.js"),
    part!(SCRIPT, vendor "preact.js"),
    part!(SCRIPT, vendor "hooks.js"),
    part!(SCRIPT, vendor "htm.js"),
    part!(SCRIPT, vendor "uplot.js"),
    part!(STYLE, vendor "uplot.css"),
    part!(SCRIPT, vendor "dagre.js"),
];

/// The page uses what this host serves, and nothing else. No other page may show it within
/// itself.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

pub fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    FILES
        .into_iter()
        .fold(Router::new(), |router, (path, kind, content)| {
            router.route(path, get(async move || answer(kind, content)))
        })
}

fn answer(kind: &'static str, content: &'static str) -> impl IntoResponse {
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        // Another version of the host has other files.
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, content)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn every_file_of_the_page_is_served_and_asks_for_no_other() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/service/page");
        let served: BTreeSet<&str> = FILES
            .iter()
            .filter_map(|(path, _, _)| path.strip_prefix("/page/"))
            .collect();
        for folder in [&folder, &folder.join("vendor")] {
            for found in fs::read_dir(folder).expect("it is there") {
                let name = found.expect("readable").file_name();
                let name = name.to_str().expect("UTF-8");
                let is_code = [".js", ".css", ".svg"]
                    .iter()
                    .any(|end| name.ends_with(end));
                assert!(!is_code || served.contains(name), "{name}");
            }
        }
        for (path, _, content) in FILES {
            let quoted = content.split(['"', '\'', '`']);
            let links = quoted.filter_map(|text| {
                let beside = text.strip_prefix("./").filter(|name| name.ends_with(".js"));
                text.strip_prefix("/page/").or(beside)
            });
            for link in links {
                assert!(served.contains(link), "{path}: {link}");
            }
        }
    }
}
