//! Every mistake, with its whole message.
//!
//! A case in `mistakes/*.md` is a change of the base as a diff, and the
//! messages about the result. `UPDATE_EXPECT=1` writes the current messages.

use std::path::Path;

use expect_test::{ExpectFile, expect_file};

use super::support::{BASE, folder, mistakes, plan_in};
use crate::config::Look;

#[test]
fn syntax() {
    check(expect_file!["mistakes/syntax.md"]);
}

#[test]
fn lookups() {
    check(expect_file!["mistakes/lookups.md"]);
}

#[test]
fn unknown_keys() {
    check(expect_file!["mistakes/unknown_keys.md"]);
}

#[test]
fn values() {
    check(expect_file!["mistakes/values.md"]);
}

#[test]
fn file_sinks() {
    check(expect_file!["mistakes/file_sinks.md"]);
}

#[test]
fn field_types() {
    check(expect_file!["mistakes/field_types.md"]);
}

#[test]
fn window_values() {
    check(expect_file!["mistakes/window_values.md"]);
}

#[test]
fn names() {
    check(expect_file!["mistakes/names.md"]);
}

#[test]
fn changes() {
    check(expect_file!["mistakes/changes.md"]);
}

#[test]
fn debezium() {
    check(expect_file!["mistakes/debezium.md"]);
}

#[test]
fn upserts() {
    check(expect_file!["mistakes/upserts.md"]);
}

#[test]
fn postgres_sources() {
    check(expect_file!["mistakes/postgres_sources.md"]);
}

#[test]
fn cycles() {
    check(expect_file!["mistakes/cycles.md"]);
}

#[test]
fn plugins() {
    check(expect_file!["mistakes/plugins.md"]);
}

#[test]
fn kept_plugins() {
    check(expect_file!["mistakes/kept_plugins.md"]);
}

#[test]
fn ports() {
    check(expect_file!["mistakes/ports.md"]);
}

#[test]
fn messages() {
    check(expect_file!["mistakes/messages.md"]);
}

#[test]
fn recommenders() {
    check(expect_file!["mistakes/recommenders.md"]);
}

#[test]
fn parameters() {
    check(expect_file!["mistakes/parameters.md"]);
}

#[test]
fn edges() {
    check(expect_file!["mistakes/edges.md"]);
}

#[test]
fn event_time() {
    check(expect_file!["mistakes/event_time.md"]);
}

#[test]
fn group_keys() {
    check(expect_file!["mistakes/group_keys.md"]);
}

#[test]
fn aggregates() {
    check(expect_file!["mistakes/aggregates.md"]);
}

#[test]
fn functions() {
    check(expect_file!["mistakes/functions.md"]);
}

#[test]
fn rows_without_plugins() {
    check(expect_file!["mistakes/rows_without_plugins.md"]);
}

#[test]
fn joins() {
    check(expect_file!["mistakes/joins.md"]);
}

#[test]
fn late() {
    check(expect_file!["mistakes/late.md"]);
}

#[test]
fn files() {
    check(expect_file!["mistakes/files.md"]);
}

#[test]
fn state() {
    check(expect_file!["mistakes/state.md"]);
}

#[test]
fn kafka() {
    check(expect_file!["mistakes/kafka.md"]);
}

#[test]
fn postgres() {
    check(expect_file!["mistakes/postgres.md"]);
}

#[test]
fn redis() {
    check(expect_file!["mistakes/redis.md"]);
}

#[test]
fn warnings() {
    check(expect_file!["mistakes/warnings.md"]);
}

#[test]
fn together() {
    check(expect_file!["mistakes/together.md"]);
}

/// A file that the pipeline writes is not what its source is meant to read, whatever it is
/// called.
#[test]
fn a_missing_file_is_none_that_the_pipeline_writes() {
    let folder = folder();
    for name in ["out.jsonl", "out-000017.jsonl", "cart.dead.jsonl"] {
        std::fs::write(folder.path().join(name), "").expect("writable");
    }
    std::fs::create_dir(folder.path().join("archive.jsonl")).expect("a folder");
    let nowhere = folder.path().join("nowhere");
    std::os::unix::fs::symlink(&nowhere, folder.path().join("linked.wasm")).expect("a link");
    let suggested = |changes: &[(&str, &str)]| {
        let text = changes
            .iter()
            .fold(BASE.to_owned(), |text, (from, to)| text.replace(from, to));
        let mistakes = plan_in(folder.path(), &text).err();
        let mistakes = mistakes.expect("a file is missing");
        let said = mistakes.render(Look::Plain);
        let (_, near) = said.split_once("did you mean `")?;
        near.split_once('`').map(|(near, _)| near.to_owned())
    };
    let reads = |path: &'static str| ("\"events.jsonl\"", path);
    let rolls = (
        "path = \"out.jsonl\"",
        "path = \"out.jsonl\"\nroll = { every = \"1h\" }",
    );
    let to_events = ("\"out.jsonl\"", "\"events-2.jsonl\"");
    let dead = ("parallelism = 2", "dead_letters = \"events-2.jsonl\"");
    let plugin = |path: &'static str| ("\"cart.wasm\"", path);

    let meant = |name: &str| Some(name.to_owned());
    assert_eq!(
        suggested(&[reads("\"event.jsonl\"")]),
        meant("events.jsonl")
    );
    assert_eq!(
        suggested(&[reads("\"event-2.jsonl\"")]),
        meant("events-2.jsonl")
    );
    assert_eq!(
        suggested(&[reads("\"event-2.jsonl\""), to_events]),
        meant("events.jsonl")
    );
    assert_eq!(
        suggested(&[reads("\"event-2.jsonl\""), dead]),
        meant("events.jsonl")
    );
    assert_eq!(suggested(&[reads("\"out2.jsonl\"")]), None);
    assert_eq!(suggested(&[reads("\"out-00001.jsonl\""), rolls]), None);
    assert_eq!(suggested(&[reads("\"cart.jsonl\"")]), None);
    assert_eq!(suggested(&[reads("\"archive2.jsonl\"")]), None);
    assert_eq!(suggested(&[plugin("\"texts.wasm\"")]), meant("text.wasm"));
    assert_eq!(suggested(&[plugin("\"linked.wasm\"")]), None);
}

/// Plans the base with each diff of a page, and compares the messages.
fn check(page: ExpectFile) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("src/planner/tests")
        .join(&page.path);
    let written =
        std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut now = String::new();
    let mut said = None;
    let mut lines = written.lines();
    while let Some(line) = lines.next() {
        now.push_str(line);
        now.push('\n');
        let mut block = lines.by_ref().take_while(|line| *line != "```");
        match line {
            "```diff" => {
                let diff: Vec<&str> = block.collect();
                said = Some(mistakes(&changed(&diff)));
                now.push_str(&diff.join("\n"));
                now.push_str("\n```\n");
            }
            "```text" => {
                block.by_ref().for_each(drop);
                now.push_str(&said.take().expect("a diff comes before what is said of it"));
                now.push_str("```\n");
            }
            _ => {}
        }
    }
    page.assert_eq(&now);
}

/// The base with each run of `-` lines replaced by the `+` lines that follow;
/// `+` lines alone are appended. `@@` separates two runs that would be one.
fn changed(diff: &[&str]) -> String {
    let mut text: Vec<&str> = BASE.lines().collect();
    let is_hunk =
        |one: &&str, next: &&str| *next != "@@" && (one.starts_with('-') || !next.starts_with('-'));
    for hunk in diff.chunk_by(is_hunk) {
        let old: Vec<&str> = hunk
            .iter()
            .filter_map(|line| line.strip_prefix('-'))
            .collect();
        let new = hunk.iter().filter_map(|line| line.strip_prefix('+'));
        let at = match old.is_empty() {
            true => text.len(),
            false => text
                .windows(old.len())
                .position(|lines| lines == old)
                .unwrap_or_else(|| panic!("the base has no {old:?}")),
        };
        text.splice(at..at + old.len(), new);
    }
    text.join("\n") + "\n"
}
