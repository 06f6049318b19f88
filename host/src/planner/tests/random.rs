//! No file makes planning panic.

use std::sync::LazyLock;

use proptest::prelude::*;

use super::support::{BASE, folder, plan_in};
use crate::config::Look;

/// Pieces that mean something to the parser or the planner.
const PIECES: &[&str] = &[
    "[",
    "]",
    "{",
    "}",
    "=",
    ".",
    ",",
    "\"",
    "\n",
    "'''",
    "\\",
    "#",
    "-",
    "?",
    "|",
    "<",
    ">",
    "*",
    "é",
    "\u{1F600}",
    "\r\n",
    "\0",
    "list<",
    "timestamp(",
    "0x",
    "1e999",
    "inf",
    "name",
    "input",
    "window",
    "key",
    "fields",
    "operators",
    "sinks",
    "sources",
    "clean",
    "added",
    ".late",
    "5m",
    "99999999999999999999",
    "true",
    "[[sinks]]",
    "[sources.actions]",
    "[state]",
    "[checkpoints]",
    "[restart]",
];

static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(folder);

fn survives(text: &str) {
    if let Err(mistakes) = plan_in(FOLDER.path(), text) {
        assert!(!mistakes.is_empty(), "refused without a reason");
        mistakes.render(Look::Plain);
        mistakes.render(Look::Terminal { width: 40 });
    }
}

proptest! {
    #[test]
    fn any_text(text in ".{0,200}") {
        survives(&text);
    }

    #[test]
    fn any_pieces(pieces in prop::collection::vec(prop::sample::select(PIECES), 0..60)) {
        survives(&pieces.concat());
    }

    /// A good pipeline with a few places deleted or overwritten.
    #[test]
    fn a_pipeline_with_typing_errors(
        slips in prop::collection::vec(
            (any::<prop::sample::Index>(), 0..12usize, prop::sample::select(PIECES)),
            1..5,
        )
    ) {
        let mut text = BASE.to_owned();
        for (at, length, piece) in slips {
            let start = text.floor_char_boundary(at.index(text.len()));
            let end = text.floor_char_boundary(start + length).max(start);
            text.replace_range(start..end, piece);
        }
        survives(&text);
    }

    /// Lines of a good pipeline in any order.
    #[test]
    fn any_order_of_lines(
        lines in Just(BASE.lines().collect::<Vec<_>>()).prop_shuffle(),
        kept in 0..50usize,
    ) {
        survives(&lines[..kept.min(lines.len())].join("\n"));
    }
}

#[test]
fn deep_nesting_is_refused() {
    let keys = vec!["a"; 20_000].join(".");
    survives(&format!("{keys} = 1"));
    survives(&format!("a = {}", "[".repeat(100_000)));
    let lists = format!("{}utf8{}", "list<".repeat(100_000), ">".repeat(100_000));
    survives(&BASE.replace("list<utf8>", &lists));
}
