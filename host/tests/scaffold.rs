//! Tests that a plugin from `sluicebox new` builds, passes its own tests and runs,
//! outside of this workspace.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Outlives the test, so that the next one compiles less.
fn target_folder() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("scaffold")
}

fn run(program: &str, arguments: &[&str], folder: &Path) -> Output {
    Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .env("CARGO_TARGET_DIR", target_folder())
        // This workspace needs the same crates, so they are downloaded already.
        .env("CARGO_NET_OFFLINE", "true")
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}"))
}

/// Lets one test at a time create a plugin and build it.
///
/// All build into one target folder, where cargo tells a crate of a workspace by its path
/// in the workspace: the copies of the SDK are one crate there, and the copy that another
/// test has built meanwhile counts as fresh for a test that has changed its own.
fn alone_with_cargo() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a command that must succeed, and returns what it prints.
fn succeed(program: &str, arguments: &[&str], folder: &Path) -> String {
    let output = run(program, arguments, folder);
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{arguments:?}: {}\n{stdout}\n{stderr}",
        output.status
    );
    stdout
}

fn sluicebox(arguments: &[&str], folder: &Path) -> String {
    succeed(env!("CARGO_BIN_EXE_sluicebox"), arguments, folder)
}

fn assert_contains(text: &str, expected: &[&str]) {
    for expected in expected {
        assert!(text.contains(expected), "`{expected}` is not in:\n{text}");
    }
}

#[test]
fn a_new_plugin_builds_passes_its_tests_and_runs() {
    let _alone = alone_with_cargo();
    let scratch = tempfile::tempdir().expect("a folder for the test");
    let made = sluicebox(&["new", "plugin", "shop-floor"], scratch.path());
    assert_contains(&made, &["src/lib.rs", "sluicebox-sdk", "sluicebox build"]);
    let folder = scratch.path().join("shop-floor");
    // On a machine without this checkout it builds as well.
    let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).expect("it was made");
    assert_contains(&manifest, &["path = \"sluicebox-sdk\""]);
    let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.lock");
    std::fs::copy(lock, folder.join("Cargo.lock")).expect("this workspace has a lock file");

    let tests = succeed(env!("CARGO"), &["test"], &folder);
    assert_contains(&tests, &["test result: ok. 3 passed"]);

    let built = sluicebox(&["build"], &folder);
    assert_contains(
        &built,
        &["shop-floor.wasm", "in_use", "measured", "average"],
    );

    let tested = sluicebox(&["test"], &folder);
    assert_contains(&tested, &["ok     first", "21 runs", "1 passed, 0 failed"]);

    let shown = sluicebox(&["run", "pipeline.toml", "--quiet"], &folder);
    assert_contains(&shown, &["cellar", "roof", "51.8"]);
    assert!(!shown.contains("calibration"), "{shown}");

    // A component exports what its operators are called through, and no more.
    let source = folder.join("src/lib.rs");
    let written = std::fs::read_to_string(&source).expect("it was made");
    for (listed, exported, other) in [
        ("in_use, measured, Average", "transform", None),
        ("in_use, measured", "transform", Some("aggregate")),
        ("Average", "aggregate", Some("transform")),
    ] {
        let plugin = written.replace(
            "export!(in_use, measured, Average)",
            &format!("export!({listed})"),
        );
        std::fs::write(&source, plugin).expect("writable");
        sluicebox(&["build"], &folder);
        let inspected = sluicebox(&["inspect", "shop-floor.wasm"], &folder);
        let interface = |name| format!("sluicebox:plugin/{name}@");
        assert_contains(&inspected, &[&interface("operators"), &interface(exported)]);
        if let Some(other) = other {
            assert!(!inspected.contains(&interface(other)), "{inspected}");
        }
    }

    // With the SDK of another version.
    for (file, version, older) in [
        ("wit/plugin.wit", "@0.8.0;", "@0.2.0;"),
        ("src/bindings.rs", "_0_8_0_", "_0_2_0_"),
    ] {
        let path = folder.join("sluicebox-sdk").join(file);
        let text = std::fs::read_to_string(&path).expect("it was made");
        assert!(text.contains(version), "{file}");
        std::fs::write(&path, text.replace(version, older)).expect("writable");
    }
    let refused = run(env!("CARGO_BIN_EXE_sluicebox"), &["build"], &folder);
    assert!(!refused.status.success());
    assert_contains(
        &String::from_utf8_lossy(&refused.stderr),
        &[
            "was built for version 0.2.0 of the contract",
            "this host has version 0.8.0; build it again with the SDK of this version",
        ],
    );
}

#[test]
fn a_new_plugin_of_each_kind_builds_and_passes_its_tests() {
    let _alone = alone_with_cargo();
    let scratch = tempfile::tempdir().expect("a folder for the test");
    for (kind, tests, operator, rows) in [
        ("transform", 2, "measured", ["cellar", "roof"]),
        ("aggregate", 2, "average", ["cellar", "roof"]),
        ("process", 2, "silence", ["cellar", "roof"]),
        ("lookup", 2, "totals", ["b5", "49.85"]),
        ("recommend", 2, "bought_next", ["cem", "pot"]),
    ] {
        sluicebox(&["new", "plugin", kind, "--kind", kind], scratch.path());
        let folder = scratch.path().join(kind);
        let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.lock");
        std::fs::copy(lock, folder.join("Cargo.lock")).expect("this workspace has a lock file");
        let tested = succeed(env!("CARGO"), &["test"], &folder);
        assert_contains(&tested, &[&format!("test result: ok. {tests} passed")]);
        let built = sluicebox(&["build"], &folder);
        assert_contains(&built, &[operator]);
        let tested = sluicebox(&["test"], &folder);
        assert_contains(&tested, &["ok     first", "1 passed, 0 failed"]);
        let shown = sluicebox(&["run", "pipeline.toml", "--quiet"], &folder);
        assert_contains(&shown, &rows);
    }
}

/// In a workspace that says nothing of overflows, and in another crate than the plugin's.
#[test]
fn a_row_whose_numbers_overflow_is_a_dead_letter_in_any_workspace() {
    let _alone = alone_with_cargo();
    let scratch = tempfile::tempdir().expect("a folder for the test");
    let folder = scratch.path();
    sluicebox(&["new", "plugin", "shop"], folder);
    let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.lock");
    std::fs::copy(lock, folder.join("Cargo.lock")).expect("this workspace has a lock file");
    let manifest = std::fs::read_to_string(folder.join("shop/Cargo.toml")).expect("it was made");
    let (crate_alone, _) = manifest
        .split_once("# Small and fast")
        .expect("the profile comes after the dependencies");
    std::fs::create_dir_all(folder.join("sums/src")).expect("writable");
    for (path, text) in [
        (
            "Cargo.toml",
            r#"
            [workspace]
            resolver = "3"
            members = ["shop", "sums"]
            exclude = ["shop/sluicebox-sdk"]
            "#,
        ),
        (
            "sums/Cargo.toml",
            r#"
            [package]
            name = "sums"
            edition = "2024"
            "#,
        ),
        ("sums/src/lib.rs", "pub fn next(n: i64) -> i64 { n + 1 }"),
        (
            "shop/Cargo.toml",
            &format!("{crate_alone}sums = {{ path = \"../sums\" }}\n"),
        ),
        (
            "shop/src/lib.rs",
            r#"
            use sluicebox_sdk::prelude::*;

            #[derive(Record)]
            pub struct Number {
                pub n: i64,
            }

            #[operator]
            pub fn next(number: Number) -> Number {
                Number { n: sums::next(number.n) }
            }

            export!(next);
            "#,
        ),
        (
            "pipeline.toml",
            r#"
            name = "numbers"
            dead_letters = "dead.jsonl"
            plugins.shop.path = "shop/shop.wasm"
            [sources.numbers]
            type = "file"
            path = "numbers.jsonl"
            format = "json"
            fields = { n = "int64" }
            [operators.next]
            plugin = "shop.next"
            input = "numbers"
            [sinks.out]
            type = "file"
            path = "-"
            format = "json"
            input = "next"
            "#,
        ),
        (
            "numbers.jsonl",
            "{\"n\":9223372036854775806}\n{\"n\":9223372036854775807}\n",
        ),
    ] {
        std::fs::write(folder.join(path), text).expect("writable");
    }
    sluicebox(&["build", "shop"], folder);
    let shown = sluicebox(&["run", "pipeline.toml", "--quiet"], folder);
    assert_eq!(shown.trim(), "{\"n\":9223372036854775807}");
    let dead = std::fs::read_to_string(folder.join("dead.jsonl")).expect("a dead letter");
    assert_eq!(dead.lines().count(), 1);
    assert_contains(&dead, &["sums/src/lib.rs", "attempt to add with overflow"]);
}

#[test]
fn a_new_pipeline_passes_its_test_and_runs() {
    let scratch = tempfile::tempdir().expect("a folder for the test");
    sluicebox(&["new", "pipeline", "orders"], scratch.path());
    let folder = scratch.path().join("orders");

    let tested = sluicebox(&["test"], &folder);
    assert_contains(&tested, &["ok     first", "1 passed, 0 failed"]);

    // Not the whole 10,000 rows at 2,000 a second.
    let path = folder.join("pipeline.toml");
    let pipeline = std::fs::read_to_string(&path).expect("it was made");
    let quick = pipeline
        .replace("rate = 2000\n", "")
        .replace("count = 10000\n", "count = 10\n");
    assert_ne!(pipeline, quick);
    std::fs::write(&path, quick).expect("writable");
    let shown = sluicebox(&["run", "pipeline.toml", "--quiet"], &folder);
    assert_contains(&shown, &["user_id", "item-"]);
}

#[test]
fn existing_files_are_left_alone() {
    let scratch = tempfile::tempdir().expect("a folder for the test");
    sluicebox(&["new", "pipeline", "orders"], scratch.path());
    let again = run(
        env!("CARGO_BIN_EXE_sluicebox"),
        &["new", "pipeline", "orders"],
        scratch.path(),
    );
    assert_eq!(again.status.code(), Some(2));
    let stderr = String::from_utf8_lossy(&again.stderr);
    assert_contains(&stderr, &["is already there; nothing was written"]);
}

/// As it is for the other commands that a path is given to.
#[test]
fn to_build_what_is_no_plugin_is_wrong_usage() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let manifest = |name: &str, text: &str| {
        let folder = folder.path().join(name);
        std::fs::create_dir_all(folder.join("src")).expect("it is writable");
        std::fs::write(folder.join("src/lib.rs"), "").expect("it is writable");
        std::fs::write(folder.join("Cargo.toml"), text).expect("it is writable");
    };
    let package = "[package]\nname = \"library\"\nedition = \"2024\"\n";
    manifest("library", &format!("{package}[workspace]\n"));
    manifest("workspace", "[workspace]\n");
    for (path, said) in [
        ("nowhere", "there is no Cargo.toml in `nowhere`"),
        ("library", "is not a plugin"),
        ("workspace", "is a workspace"),
    ] {
        let output = run(
            env!("CARGO_BIN_EXE_sluicebox"),
            &["build", path],
            folder.path(),
        );
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{path}: {stderr}");
        assert!(stderr.contains(said), "{path}: {stderr}");
    }
}
