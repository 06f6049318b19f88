//! Blocks of code of the pages that people read.

use std::path::Path;

/// What a page of this repository says.
pub fn page(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The blocks of a language, which have to be as many as the test knows of.
pub fn blocks<const N: usize>(page: &str, language: &str) -> [String; N] {
    let mut blocks = Vec::new();
    let mut block: Option<(bool, String)> = None;
    for line in page.lines() {
        block = match (block.take(), line.strip_prefix("```")) {
            (None, None) => None,
            (None, Some(of)) => Some((of == language, String::new())),
            (Some((is_wanted, text)), Some(_)) => {
                blocks.extend(is_wanted.then_some(text));
                None
            }
            (Some((is_wanted, text)), None) => Some((is_wanted, text + line + "\n")),
        };
    }
    let found = blocks.len();
    blocks.try_into().unwrap_or_else(|_| {
        panic!("{found} blocks of `{language}`, and {N} that this test knows what to do with")
    })
}
