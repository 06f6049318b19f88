//! Runs the blocks of the README, and of the example's, as they are written there.

/// Plugins, built once.
mod common;
/// Blocks of pages.
#[path = "common/pages.rs"]
mod pages;
/// Runs a pipeline as a test.
#[expect(dead_code, reason = "the rows are few enough to be compared whole")]
#[path = "common/pipeline.rs"]
mod pipeline;
/// Addresses.
#[expect(dead_code, reason = "the shell waits")]
#[path = "common/waiting.rs"]
mod waiting;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use pages::{blocks, page};
use pipeline::{plan_of, rows_of, run, to_memory};
use waiting::free_address;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Runs lines of a shell with `sluicebox` on the PATH, and returns what they print. All
/// must succeed.
fn shell(lines: &str, folder: &Path) -> String {
    let binary = Path::new(env!("CARGO_BIN_EXE_sluicebox"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let binaries = binary.parent().map(Path::to_owned).into_iter();
    let path = std::env::join_paths(binaries.chain(std::env::split_paths(&path)));
    let output = Command::new("bash")
        .args(["-euo", "pipefail", "-c", lines])
        .current_dir(folder)
        .env(
            "PATH",
            path.expect("no colon in the path of a target folder"),
        )
        // Outlives the test, so that the next one compiles less.
        .env(
            "CARGO_TARGET_DIR",
            Path::new(env!("CARGO_TARGET_TMPDIR")).join("scaffold"),
        )
        // This workspace needs the same crates, so they are downloaded already.
        .env("CARGO_NET_OFFLINE", "true")
        .env("LOCK", root().join("Cargo.lock"))
        .output()
        .expect("bash runs");
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{lines}\n{stdout}\n{stderr}");
    stdout
}

/// Gives a new plugin this workspace's versions of crates, which are downloaded already.
const LOCKED: &str = r#"sluicebox() {
    command sluicebox "$@"
    if [[ "${1:-} ${2:-}" == "new plugin" ]]; then cp "$LOCK" "$3/Cargo.lock"; fi
}
"#;

#[test]
fn the_plugin_runs_in_the_pipeline() {
    let page = page("README.md");
    let [_, from_scaffold_to_test, first_run, serve, ask] = blocks(&page, "sh");
    let [plugin] = blocks(&page, "rust");
    let [pipeline, _, state, kafka] = blocks(&page, "toml");
    let folder = tempfile::tempdir().expect("a folder for the test");

    let shown = shell(&format!("{LOCKED}{from_scaffold_to_test}"), folder.path());
    for expected in ["test result: ok", "shop.wasm", "1 passed, 0 failed"] {
        assert!(shown.contains(expected), "`{expected}` is not in:\n{shown}");
    }

    let folder = folder.path().join("shop");
    let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).expect("writable");
    // A newcomer has no other rows yet than those of the page.
    write("src/lib.rs", &plugin);
    write("orders.toml", &pipeline);
    let shown = shell(&first_run, &folder);
    for expected in ["status", "cents", "250"] {
        assert!(shown.contains(expected), "`{expected}` is not in:\n{shown}");
    }

    write("pipeline.toml", &pipeline);
    write(
        "orders-1.jsonl",
        "{\"status\":\"paid\",\"cents\":250,\"ts\":0}\n\
         {\"status\":\"paid\",\"cents\":0,\"ts\":1}\n\
         {\"status\":\"open\",\"cents\":777,\"ts\":2}\n",
    );
    write(
        "orders-2.jsonl",
        "{\"status\":\"paid\",\"cents\":431,\"ts\":3}\n",
    );
    let shown = shell("sluicebox build\nsluicebox run pipeline.toml", &folder);
    for (cents, is_kept) in [("250", true), ("431", true), ("777", false)] {
        assert_eq!(shown.contains(cents), is_kept, "{cents} in:\n{shown}");
    }

    // It goes on where it ended.
    write("pipeline.toml", &format!("{pipeline}{state}"));
    for order in [None, Some(987)] {
        let more =
            order.map(|cents| format!("{{\"status\":\"paid\",\"cents\":{cents},\"ts\":4}}\n"));
        write("orders-3.jsonl", &more.unwrap_or_default());
        let shown = shell("sluicebox run pipeline.toml", &folder);
        assert_eq!(shown.contains("250"), order.is_none(), "{shown}");
        assert_eq!(shown.contains("987"), order.is_some(), "{shown}");
    }

    serves(&serve, &ask, &folder);

    // Another source takes the place of its own.
    let (before, rest) = pipeline.split_once("[sources.").expect("it has a source");
    let (_, behind) = rest.split_once("[operators.").expect("it has an operator");
    write("kafka.toml", &format!("{before}{kafka}[operators.{behind}"));
    let shown = shell("sluicebox check kafka.toml", &folder);
    assert!(shown.contains("kafka"), "{shown}");
}

/// Starts the service, at another port than that of the page, and asks it until it knows of
/// all paid orders.
fn serves(serve: &str, ask: &str, folder: &Path) {
    let address = free_address();
    let serve = serve.replace(
        "sluicebox serve service",
        &format!("sluicebox serve service --listen {address} 2> service.log & service=$!"),
    );
    let ask = ask.trim().replace("127.0.0.1:7878", &address);
    let shown = shell(
        &format!(
            "{serve}\ntrap 'kill $service; wait $service' EXIT\n\
             for try in {{1..600}}; do\n\
             answer=$({ask} --silent) && [[ $answer == *1668* ]] && break\n\
             sleep 0.1\ndone\necho \"$answer\""
        ),
        folder,
    );
    let answer: Value = serde_json::from_str(&shown).unwrap_or_else(|_| panic!("{shown}"));
    let entry = &answer["entries"][0];
    assert_eq!(entry["key"], json!({ "status": "paid" }), "{answer:#}");
    // Of five orders, one is open and one of nothing.
    assert_eq!(entry["state"]["count()"], 3, "{answer:#}");
}

fn parse(text: &str) -> toml::Table {
    text.parse::<toml::Table>()
        .unwrap_or_else(|error| panic!("{error}"))
}

/// The example's pipeline with these tables in the place of its own, or beside them.
fn cart_with(tables: &[&str]) -> toml::Table {
    let mut pipeline = parse(&page("examples/cart/pipeline.toml"));
    let cart = common::plugin_file("cart").display().to_string();
    let cart = format!("plugins.cart.path = {cart:?}");
    for part in tables.iter().copied().chain([cart.as_str()]) {
        for (kind, named) in parse(part) {
            let own = pipeline
                .entry(kind)
                .or_insert_with(|| toml::Table::new().into());
            let (Some(own), toml::Value::Table(named)) = (own.as_table_mut(), named) else {
                panic!("{part}");
            };
            own.extend(named);
        }
    }
    pipeline
}

#[test]
fn the_aggregate_runs_in_every_window_that_it_names() {
    let [_, aggregate, _, _] = blocks(&page("README.md"), "toml");
    let [source] = blocks(&page("examples/cart/README.md"), "toml");
    let folder = tempfile::tempdir().expect("a folder for the test");
    let events = [
        ("ann", 2, "2026-01-31T12:00:05Z"),
        ("ann", 3, "2026-01-31T12:00:50Z"),
        ("bob", 1, "2026-01-31T12:01:00Z"),
    ];
    let lines = events.map(|(user, quantity, at)| {
        json!({"user_id": user, "item_id": "tea", "action": "add", "quantity": quantity, "ts": at})
            .to_string()
    });
    std::fs::write(folder.path().join("events-1.jsonl"), lines.join("\n")).expect("writable");
    let out = "[sinks.out]\ntype = \"blackhole\"\ninput = \"added\"\n";
    // The sink of late rows has none where no row is late.
    let with = |aggregate: &str, has_late_rows: bool| {
        let mut pipeline = cart_with(&[&source, aggregate, out]);
        if !has_late_rows {
            let sinks = pipeline["sinks"].as_table_mut();
            sinks.expect("it has sinks").remove("late");
        }
        plan_of(&pipeline.to_string(), folder.path())
    };

    let mut plan = with(&aggregate, true);
    let topic = to_memory(&mut plan, "out");
    run(plan).unwrap_or_else(|error| panic!("{error}"));
    let mut rows = rows_of(&topic);
    rows.sort_by_key(Value::to_string);
    let row = |user: &str, minute: u32, count: u32, sum: u32| {
        json!({
            "user_id": user,
            "window_start": format!("2026-01-31T12:0{minute}:00Z"),
            "window_end": format!("2026-01-31T12:0{}:00Z", minute + 1),
            "count": count,
            "sum": sum,
        })
    };
    let mut expected = [row("ann", 0, 2, 5), row("bob", 1, 1, 1)];
    expected.sort_by_key(Value::to_string);
    assert_eq!(rows, expected);

    // Its late rows are where the comment says, and the example has them.
    assert!(aggregate.contains("\"added.late\""), "{aggregate}");
    assert!(page("examples/cart/pipeline.toml").contains("input = \"added.late\""));

    // The other windows are in the comment behind the first.
    let line = aggregate.lines().find(|line| line.starts_with("window"));
    let line = line.expect("it has a window");
    let (_, others) = line.split_once("# ").expect("there are other windows");
    let others: Vec<&str> = others.split(" | ").collect();
    assert_eq!(others.len(), 6, "{others:?}");
    for other in others {
        // Only windows of event time that end have late rows.
        let kinds = ["sliding", "cumulate", "session"];
        let has_late_rows = kinds.iter().any(|kind| other.contains(kind));
        let lines = aggregate.lines().filter_map(|it| match it {
            it if it == line => Some(format!("window = {other}")),
            it if it.starts_with("allowed_lateness") && !has_late_rows => None,
            it => Some(it.to_owned()),
        });
        let changed = lines.collect::<Vec<_>>().join("\n");
        let mut plan = with(&changed, has_late_rows);
        to_memory(&mut plan, "out");
        run(plan).unwrap_or_else(|error| panic!("{other}: {error}"));
    }
}

#[test]
fn rows_of_your_own_come_from_a_file() {
    let [source] = blocks(&page("examples/cart/README.md"), "toml");
    let folder = tempfile::tempdir().expect("a folder for the test");
    std::fs::write(folder.path().join("events-1.jsonl"), "").expect("writable");
    let plan = plan_of(&cart_with(&[&source]).to_string(), folder.path());
    let source = plan.nodes.iter().find(|node| node.name == "actions");
    assert!(source.is_some(), "the pipeline has another source");
}

#[test]
fn make_knows_its_targets() {
    let [demo_and_test, ..]: [_; 5] = blocks(&page("README.md"), "sh");
    let lines: Vec<&str> = demo_and_test.lines().collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    for line in lines {
        let (command, _) = line.split_once('#').expect("a comment says what it does");
        assert!(command.starts_with("make "), "{command}");
        shell(&format!("{} --dry-run", command.trim()), &root());
    }
}

#[test]
fn the_demo_serves_the_example_and_ends_by_itself() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let demo = Command::new(root().join("scripts/demo.sh"))
        .arg(env!("CARGO_BIN_EXE_sluicebox"))
        .arg(common::plugin_file("cart"))
        .arg("5")
        .arg(folder.path().join("service"))
        .output()
        .expect("bash runs");
    let shown = String::from_utf8_lossy(&demo.stdout);
    let stderr = String::from_utf8_lossy(&demo.stderr);
    assert!(demo.status.success(), "{shown}\n{stderr}");
    for part in [
        "its page is http://127.0.0.1:",
        "It ends in 5 s.",
        "cart: running for",
        "{\"user_id\":\"user-0",
        "visits, the last of ",
        "reject",
    ] {
        assert!(
            shown.contains(part),
            "`{part}` is not in:\n{shown}\n{stderr}"
        );
    }
    assert!(!shown.contains("the last of 0 rows"), "{shown}");
    let state = Command::new("flock")
        .args(["--nonblock", "service/data/lock", "true"])
        .current_dir(folder.path())
        .status()
        .expect("flock runs");
    assert!(state.success(), "a service runs on");
}

#[test]
fn the_commands_are_there() {
    let page = page("README.md");
    let (_, table) = page.split_once("\n## Commands\n").expect("commands");
    let (table, _) = table.split_once("\n## ").expect("more behind them");
    let rows = table
        .lines()
        .filter_map(|line| line.strip_prefix("| `sluicebox "));
    let mut checked = 0;
    for row in rows {
        let (commands, told) = row.split_once(" | ").expect("two columns");
        // `checkpoints list`, `show`: the second word alone where the first is the same.
        let mut first = "";
        for command in commands.split('`').step_by(2) {
            let words: Vec<&str> = command.split(' ').collect();
            let words: Vec<&str> = words
                .into_iter()
                .filter(|word| word.starts_with(char::is_lowercase))
                .collect();
            let command = match words[..] {
                [alone] if !first.is_empty() => format!("{first} {alone}"),
                _ => words.join(" "),
            };
            first = words
                .first()
                .copied()
                .filter(|_| first.is_empty())
                .unwrap_or(first);
            let help = shell(&format!("sluicebox {command} --help"), &root());
            checked += 1;
            let flags = told.split('`').filter(|flag| flag.starts_with("--"));
            for flag in flags {
                assert!(help.contains(flag), "`{command}` has no `{flag}`:\n{help}");
            }
        }
    }
    assert!(checked >= 12, "only {checked} commands were found");
}
