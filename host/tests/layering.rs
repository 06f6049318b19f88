//! Checks the layers: no two files of the host, or of the SDK, import each other, also
//! not by way of others. And every file is a module, and every `mod` line has a comment.
//!
//! Files are read as text. `use` and paths written out count, from `crate::`,
//! `super::`, `self::` and a file's own modules. A `pub use` of a file's own
//! modules does not: it hands names on to those above. Tests do not count.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// A file's place among modules: `["plan", "source"]`.
type Module = Vec<String>;
/// For each file, the names that it imports from other files.
type Imports = BTreeMap<Module, BTreeMap<Module, BTreeSet<String>>>;

/// The folders that have layers.
const LAYERED: [&str; 3] = ["host/src", "sdk/src", "sdk/derive/src"];

/// All folders with Rust code.
const ALL: [&str; 5] = ["host", "sdk", "plugins", "tests", "examples"];

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[test]
fn no_files_import_each_other() {
    let mut message = String::new();
    for folder in LAYERED {
        let root = workspace().join(folder);
        let mut sources = BTreeMap::new();
        read(&root, &Vec::new(), &mut sources);
        assert!(sources.len() > 3, "no sources at {}", root.display());
        describe_circles(folder, &imports(&sources), &mut message);
    }
    assert!(message.is_empty(), "{message}");
}

fn describe_circles(folder: &str, imports: &Imports, message: &mut String) {
    for circle in circles(imports) {
        message.push_str("\nthese files import each other; a word is without a home:\n");
        for from in &circle {
            for (to, names) in imports.get(from).into_iter().flatten() {
                if circle.contains(to) {
                    let names: Vec<&str> = names.iter().map(String::as_str).collect();
                    let (from, to) = (from.join("/"), to.join("/"));
                    let names = names.join(", ");
                    let _ = writeln!(message, "  {folder}/{from}.rs -> {to}.rs: {names}");
                }
            }
        }
    }
}

/// A file that no `mod` line names is not compiled, and nothing tells that it is wrong.
#[test]
fn every_file_is_a_module() {
    let mut forgotten = String::new();
    for folder in LAYERED {
        let root = workspace().join(folder);
        let mut sources = BTreeMap::new();
        read(&root, &Vec::new(), &mut sources);
        let tops = ["lib.rs", "main.rs"].map(|top| std::fs::read_to_string(root.join(top)));
        let top: String = tops.into_iter().flatten().collect();
        for module in sources.keys() {
            let (name, within) = module.split_last().expect("it has a name");
            let parent = match within {
                [] => Some(&top),
                within => sources.get(within),
            };
            let mut named = parent.into_iter().flat_map(|text| modules(text));
            if !named.any(|(_, known, _)| known == name) {
                let _ = write!(forgotten, "\n  {folder}/{}.rs", module.join("/"));
            }
        }
    }
    assert!(forgotten.is_empty(), "no module is in:{forgotten}");
}

#[test]
fn every_module_is_explained() {
    let mut lines = 0;
    let mut unexplained = String::new();
    let mut folders: Vec<PathBuf> = ALL.map(|folder| workspace().join(folder)).into();
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{folder:?}: {e}"));
        for entry in entries {
            let path = entry.unwrap_or_else(|e| panic!("{folder:?}: {e}")).path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path);
                let text = text.unwrap_or_else(|e| panic!("{path:?}: {e}"));
                for (line, module, is_explained) in modules(&text) {
                    lines += 1;
                    if !is_explained {
                        let _ = write!(unexplained, "\n  {}:{line}: {module}", path.display());
                    }
                }
            }
        }
    }
    assert!(lines > 100, "only {lines} modules were found");
    assert!(
        unexplained.is_empty(),
        "a comment above each of these has to say what is there:{unexplained}"
    );
}

#[test]
fn a_module_without_a_comment_is_found() {
    let text = "//! Of the file.\n\nmod a;\n/// B.\npub mod b;\n// C.\n#[path = \"c.rs\"]\n\
                pub(crate) mod c;\nmod d;\n#[cfg(test)]\nmod tests;\nmod e {\n}\n";
    let found: Vec<_> = modules(text).collect();
    assert_eq!(
        found,
        [
            (3, "a", false),
            (5, "b", true),
            (8, "c", true),
            (9, "d", false)
        ]
    );
}

/// The modules in files of their own: the line, the name, and whether there is
/// a comment above it. `tests` says it all.
fn modules(text: &str) -> impl Iterator<Item = (usize, &str, bool)> {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    (0..lines.len()).filter_map(move |at| {
        let line = lines[at].strip_suffix(';')?;
        let (visible, module) = line.split_once("mod ").unwrap_or(("-", ""));
        let is_visible =
            visible.is_empty() || (visible.starts_with("pub") && visible.ends_with(' '));
        let is_name = module.chars().all(|c| c.is_alphanumeric() || c == '_');
        if !is_visible || !is_name || module == "tests" {
            return None;
        }
        let mut above = lines[..at].iter().rev();
        let above = above.find(|line| !line.starts_with("#["));
        let above = above.unwrap_or(&"");
        let is_explained = above.starts_with("//") && !above.starts_with("//!");
        Some((at + 1, module, is_explained))
    })
}

#[test]
fn a_circle_by_way_of_a_third_file_is_found() {
    let sources = [
        (module("a"), "use crate::b::{self, Low};".to_owned()),
        (module("b"), "fn f() -> crate::c::d::Name { }".to_owned()),
        (module("c"), "pub use d::Name;\nmod d;".to_owned()),
        (
            vec!["c".to_owned(), "d".to_owned()],
            "use super::super::a::High; // use crate::e".to_owned(),
        ),
        (module("e"), "use crate::a::High;".to_owned()),
    ];
    let circles = circles(&imports(&sources.into_iter().collect()));
    let names: Vec<String> = circles
        .iter()
        .flatten()
        .map(|file| file.join("/"))
        .collect();
    assert_eq!(circles.len(), 1, "{circles:?}");
    assert_eq!(names, ["a", "b", "c/d"]);
}

fn module(name: &str) -> Module {
    vec![name.to_owned()]
}

/// All files below a folder, but for those of tests.
fn read(folder: &Path, module: &Module, sources: &mut BTreeMap<Module, String>) {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    for entry in entries {
        let path = entry
            .unwrap_or_else(|error| panic!("{folder:?}: {error}"))
            .path();
        let name = path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let mut place = module.clone();
        place.push(name.clone());
        if name == "tests" {
            continue;
        } else if path.is_dir() {
            read(&path, &place, sources);
        } else if path.extension().is_some_and(|extension| extension == "rs")
            && !["lib", "main"].contains(&name.as_str())
        {
            let text = std::fs::read_to_string(&path);
            sources.insert(
                place,
                text.unwrap_or_else(|error| panic!("{path:?}: {error}")),
            );
        }
    }
}

fn imports(sources: &BTreeMap<Module, String>) -> Imports {
    let mut imports = Imports::new();
    for (module, text) in sources {
        for path in paths(&code(text)) {
            let Some(target) = resolve(module, &path, sources) else {
                continue;
            };
            let length = (1..=target.len())
                .rev()
                .find(|&length| sources.contains_key(&target[..length]));
            if let Some(length) = length
                && target[..length] != module[..]
            {
                let (file, name) = target.split_at(length);
                let from = imports.entry(module.clone()).or_default();
                let names = from.entry(file.to_vec()).or_default();
                names.insert(name.join("::"));
            }
        }
    }
    imports
}

/// The text without comments, and without the module of tests at its end.
fn code(text: &str) -> String {
    let tests = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
    let lines = text[..tests].lines();
    lines
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join("\n")
}

/// Paths of `use`, taken apart, and those that are written out.
fn paths(code: &str) -> Vec<Vec<String>> {
    let mut paths = Vec::new();
    let mut rest = String::new();
    for statement in code.split_inclusive(';') {
        let start = statement.find("use ").filter(|&start| {
            let before = statement[..start].chars().next_back();
            before.is_none_or(char::is_whitespace)
        });
        match start {
            Some(start) => {
                let before = statement[..start].trim_end();
                let hands_on = before.ends_with("pub") || before.ends_with(')');
                let used = statement[start + 4..].trim_end_matches(';');
                let mut found = Vec::new();
                take_apart(&[], used, &mut found);
                let anchors = ["crate", "super"];
                found.retain(|path| !hands_on || anchors.contains(&path[0].as_str()));
                paths.extend(found);
                rest.push_str(&statement[..start]);
            }
            None => rest.push_str(statement),
        }
    }
    let words = rest.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'));
    for word in words {
        let path: Vec<String> = word.split("::").map(str::to_owned).collect();
        if path.len() > 1 && ["crate", "super", "self"].contains(&path[0].as_str()) {
            paths.push(path);
        }
    }
    paths
}

/// `a::{b, c::d}` as `a::b` and `a::c::d`.
fn take_apart(front: &[String], used: &str, found: &mut Vec<Vec<String>>) {
    let used = used.trim();
    let (path, group) = match used.find('{') {
        Some(brace) => (&used[..brace], used[brace + 1..].strip_suffix('}')),
        None => (used.split(" as ").next().unwrap_or_default(), None),
    };
    let names = path
        .split("::")
        .map(str::trim)
        .filter(|name| !name.is_empty());
    let whole: Vec<String> = front
        .iter()
        .cloned()
        .chain(names.map(str::to_owned))
        .collect();
    let Some(group) = group else {
        found.push(whole);
        return;
    };
    let mut depth = 0;
    let parts = group.split(|c| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        c == ',' && depth == 0
    });
    for part in parts.filter(|part| !part.trim().is_empty()) {
        take_apart(&whole, part, found);
    }
}

/// The path from the root; `None` where it leads out of the crate.
fn resolve(module: &Module, path: &[String], sources: &BTreeMap<Module, String>) -> Option<Module> {
    let mut place = module.clone();
    let mut rest = path;
    match path.first()?.as_str() {
        "crate" => {
            place.clear();
            rest = &path[1..];
        }
        "self" => rest = &path[1..],
        "super" => {
            while rest.first().is_some_and(|name| name == "super") {
                place.pop();
                rest = &rest[1..];
            }
        }
        own => {
            place.push(own.to_owned());
            if !sources.contains_key(&place) {
                return None;
            }
            rest = &path[1..];
        }
    }
    place.extend(rest.iter().filter(|name| *name != "self").cloned());
    Some(place)
}

/// Files that can be reached from one another.
fn circles(imports: &Imports) -> Vec<BTreeSet<Module>> {
    let reached: BTreeMap<&Module, BTreeSet<Module>> = imports
        .keys()
        .map(|file| {
            let mut reached = BTreeSet::new();
            let mut open = vec![file];
            while let Some(next) = open.pop() {
                for to in imports.get(next).into_iter().flat_map(BTreeMap::keys) {
                    if reached.insert(to.clone()) {
                        open.push(to);
                    }
                }
            }
            (file, reached)
        })
        .collect();
    let mut circles: Vec<BTreeSet<Module>> = Vec::new();
    for (file, to) in &reached {
        if to.contains(*file) && !circles.iter().any(|circle| circle.contains(*file)) {
            let back = |other: &&Module| reached.get(other).is_some_and(|to| to.contains(*file));
            circles.push(to.iter().filter(back).cloned().collect());
        }
    }
    circles
}
