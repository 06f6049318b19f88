//! Secrets outside a pipeline's file are used, and never shown.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

const PASSWORD: &str = "hunter2-from-outside";

const PIPELINE: &str = r#"
name = "secretive"
[state]
[checkpoints]
upload = { url = "s3://bucket/prefix", options = { region = { env = "TEST_REGION" } } }
[sources.rows]
type = "kafka"
brokers = "127.0.0.1:1"
topic = "rows"
fields = { n = "int64" }
[sources.rows.properties]
"sasl.password" = { file = "secrets/password" }
"sasl.username" = { env = "TEST_USER" }
"isolation.level" = { env = "TEST_LEVEL" }
[sinks.out]
type = "console"
input = "rows"
"#;

/// A folder with the pipeline and its file of a password.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().expect("it is in the folder")).expect("it is writable");
        fs::write(path, text).expect("it is writable");
    };
    write("shop/secretive.toml", PIPELINE);
    write("shop/secrets/password", &format!("{PASSWORD}\n"));
    let case = "pipeline = \"../../secretive.toml\"\n";
    write("shop/tests/two/test.toml", case);
    write("shop/tests/two/input/rows.jsonl", "{\"n\":1}\n{\"n\":2}\n");
    write(
        "shop/tests/two/expected/out.jsonl",
        "{\"n\":1}\n{\"n\":2}\n",
    );
    folder
}

/// Runs the host outside the pipeline's folder.
fn sluicebox(arguments: &[&str], folder: &Path, variables: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sluicebox"))
        .args(arguments)
        .current_dir(folder)
        .envs(variables.iter().copied())
        .output()
        .expect("it starts")
}

fn printed(output: &Output) -> String {
    let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    format!("{out}{err}")
}

#[test]
fn a_plan_has_secrets_and_does_not_show_them() {
    let folder = folder();
    let variables = [
        ("TEST_REGION", PASSWORD),
        ("TEST_USER", PASSWORD),
        ("TEST_LEVEL", "read_committed"),
    ];
    for arguments in [
        &["check", "shop/secretive.toml"][..],
        &["check", "--json", "shop/secretive.toml"],
    ] {
        let output = sluicebox(arguments, folder.path(), &variables);
        let shown = printed(&output);
        assert!(output.status.success(), "{shown}");
        assert!(!shown.contains(PASSWORD), "{shown}");
    }
}

#[test]
fn what_is_missing_or_refused_is_named_without_its_text() {
    let folder = folder();
    fs::remove_file(folder.path().join("shop/secrets/password")).expect("it is there");
    let variables = [("TEST_USER", PASSWORD), ("TEST_LEVEL", PASSWORD)];
    let output = sluicebox(&["check", "shop/secretive.toml"], folder.path(), &variables);
    let shown = printed(&output);
    assert!(!output.status.success(), "{shown}");
    assert!(!shown.contains(PASSWORD), "{shown}");
    for part in [
        "needs the environment variable `TEST_REGION`: it is not set",
        "needs the file `secrets/password`: it does not exist",
        "`isolation.level` of `properties` of source `rows`: librdkafka does not accept its text",
    ] {
        assert!(shown.contains(part), "{shown}");
    }
}

#[test]
fn files_of_secrets_are_not_written() {
    let folder = folder();
    let at = |name: &str| folder.path().join("shop").join(name);
    std::os::unix::fs::symlink("secrets/password", at("link")).expect("a link");
    fs::hard_link(at("secrets/password"), at("other")).expect("a link");
    let replacing = |path: &str| {
        let file = format!(
            "type = \"file\"\nif_exists = \"replace\"\nformat = \"json\"\npath = \"{path}\""
        );
        PIPELINE.replace("type = \"console\"", &file)
    };
    let letters = |path: &str| format!("dead_letters = \"{path}\"\n{PIPELINE}");
    let variables = [
        ("TEST_REGION", PASSWORD),
        ("TEST_USER", PASSWORD),
        ("TEST_LEVEL", "read_committed"),
    ];
    for path in [
        "secrets/password",
        "secrets/../secrets/password",
        "link",
        "other",
    ] {
        for pipeline in [replacing(path), letters(path)] {
            fs::write(at("secretive.toml"), pipeline).expect("it is writable");
            for command in ["check", "run"] {
                let output =
                    sluicebox(&[command, "shop/secretive.toml"], folder.path(), &variables);
                let shown = printed(&output);
                assert_eq!(output.status.code(), Some(2), "{path}: {shown}");
                assert!(shown.contains("one file is used twice"), "{path}: {shown}");
                assert!(shown.contains("a secret is read of it"), "{path}: {shown}");
                assert!(!shown.contains(PASSWORD), "{shown}");
            }
        }
    }
    let text = fs::read_to_string(at("secrets/password")).expect("it is there");
    assert_eq!(text, format!("{PASSWORD}\n"));
}

#[test]
fn tests_need_no_secrets() {
    let folder = folder();
    fs::remove_file(folder.path().join("shop/secrets/password")).expect("it is there");
    let output = sluicebox(&["test", "shop/tests/two"], folder.path(), &[]);
    assert!(output.status.success(), "{}", printed(&output));
}
