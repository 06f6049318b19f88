//! What a run takes of the machine stays bounded, whatever rows and plugins do.

/// Plugins, built once.
#[expect(dead_code, reason = "the host loads its own plugins")]
mod common;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// A run that has ended.
struct Ran {
    /// The summary of each node.
    nodes: Vec<Value>,
    /// The most memory that it had, in bytes.
    peak: usize,
}

impl Ran {
    fn count(&self, node: &str, what: &str) -> u64 {
        let node = self.nodes.iter().find(|found| found["name"] == node);
        node.expect("a node")[what].as_u64().expect("a count")
    }
}

/// Runs a pipeline to its end, and watches its memory.
fn run(pipeline: &str, folder: &Path) -> Ran {
    let path = folder.join("pipeline.toml");
    fs::write(&path, pipeline).expect("it is writable");
    // A pipe that nobody reads meanwhile would be full after a minute.
    let printed = folder.join("printed.jsonl");
    let into = fs::File::create(&printed).expect("it is writable");
    let mut host = Command::new(env!("CARGO_BIN_EXE_sluicebox"))
        .args(["run", "--json"])
        .arg(&path)
        .stdin(Stdio::null())
        .stdout(into)
        .spawn()
        .expect("it starts");
    let status = format!("/proc/{}/status", host.id());
    let mut peak = 0;
    let ended = loop {
        if let Some(ended) = host.try_wait().expect("it is our child") {
            break ended;
        }
        let status = fs::read_to_string(&status).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
        peak = kib.map_or(peak, |kib| kib.parse().expect("a number"));
        std::thread::sleep(Duration::from_millis(10));
    };
    assert!(ended.success());
    let text = fs::read_to_string(&printed).expect("it is text");
    let last = text.lines().last().expect("a summary");
    let summary: Value = serde_json::from_str(last).expect("JSON");
    assert_eq!(summary["imbalances"], Value::Array(Vec::new()));
    let nodes = summary["nodes"].as_array().expect("nodes");
    Ran {
        nodes: nodes.clone(),
        peak: peak * 1_024,
    }
}

fn rows(folder: &Path, rows: impl Iterator<Item = String>) {
    let mut file = fs::File::create(folder.join("rows.jsonl")).expect("it is writable");
    for (row, id) in rows.enumerate() {
        let k = row % 1_000;
        writeln!(file, "{{\"id\":\"{id}\",\"n\":1,\"k\":{k}}}").expect("it is writable");
    }
}

/// Reads rows into an operator of the `hostile` plugin, whose output is dropped.
fn hostile(operator: &str) -> String {
    let plugin = common::plugin_file("hostile");
    format!(
        r#"
        name = "bounds"
        parallelism = 1
        [plugins.hostile]
        path = {plugin:?}
        [sources.rows]
        type = "file"
        path = "rows.jsonl"
        fields = {{ id = "utf8", n = "int64", k = "int64" }}
        [operators.worked]
        input = "rows"
        {operator}
        [sinks.out]
        type = "blackhole"
        input = "worked"
        "#
    )
}

#[test]
fn large_answers_do_not_add_up() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    rows(folder.path(), (0..2_048).map(|row| row.to_string()));
    let ran = run(
        &hostile(
            r#"
            plugin = "hostile.misbehave"
            parameters = { mode = "output", amount = 1000000 }
            "#,
        ),
        folder.path(),
    );
    assert_eq!(ran.count("out", "rows_in"), 2_048);
    assert_eq!(ran.count("worked", "failed"), 0);
    assert!(ran.peak < 1_200 << 20, "{} MiB of 2 GiB", ran.peak >> 20);
}

/// Of an aggregate they are made of states, at the end or after each row.
#[test]
fn large_results_do_not_add_up() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    rows(folder.path(), (0..1_000).map(|row| row.to_string()));
    for window in ["\"global\"", "\"running\"", "{ count = 1 }"] {
        let ran = run(
            &hostile(&format!(
                r#"
                plugin = "hostile.miscount"
                parameters = {{ mode = "output", stage = "finish", amount = 2000000 }}
                key = "k"
                window = {window}
                "#
            )),
            folder.path(),
        );
        assert_eq!(ran.count("out", "rows_in"), 1_000, "{window}");
        assert_eq!(ran.count("worked", "failed"), 0, "{window}");
        let peak = ran.peak >> 20;
        assert!(peak < 1_000, "{window}: {peak} MiB of 2 GB");
    }
}

/// States of 64 KiB a key, which a call cannot have all at once.
#[test]
fn large_states_come_a_few_at_a_time() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    rows(folder.path(), (0..4_000).map(|_| "x".repeat(16_000)));
    let ran = run(
        &hostile(
            r#"
            plugin = "hostile.miscount"
            parameters = { mode = "nothing" }
            key = "k"
            window = { count = 4 }
            limits = { memory = "32MiB" }
            "#,
        ),
        folder.path(),
    );
    assert_eq!(ran.count("worked", "failed"), 0);
    assert_eq!(ran.count("out", "rows_in"), 1_000);
    assert!(ran.peak < 1_000 << 20, "{} MiB", ran.peak >> 20);
}

/// The rows that it has no room for are lost, and no row of a neighbour, however many come
/// in a call. The result is of the rows before.
#[test]
fn a_key_whose_state_outgrows_the_memory_costs_its_own_rows() {
    for window in ["\"global\"", "\"running\"", "{ count = 1000 }"] {
        let mut before = None;
        for batch_rows in [1, 7, 4_096] {
            let folder = tempfile::tempdir().expect("a temporary folder");
            let text: String = (0..120)
                .map(|row| match row % 2 {
                    0 => format!("{{\"id\":\"{}\",\"n\":1,\"k\":0}}\n", "x".repeat(500_000)),
                    _ => format!("{{\"id\":\"near\",\"n\":1,\"k\":{}}}\n", 1 + row % 3),
                })
                .collect();
            fs::write(folder.path().join("rows.jsonl"), text).expect("it is writable");
            let operator = hostile(&format!(
                r#"
                plugin = "hostile.miscount"
                parameters = {{ mode = "nothing" }}
                key = "k"
                window = {window}
                limits = {{ memory = "16MiB" }}
                "#
            ));
            let sink = operator.replace(
                "type = \"blackhole\"",
                "type = \"file\"\npath = \"out.jsonl\"",
            );
            run(&format!("batch_rows = {batch_rows}\n{sink}"), folder.path());
            let at = |name: &str| folder.path().join(name);
            let lines = |name: &str| -> Vec<Value> {
                let text = fs::read_to_string(at(name)).expect("it was written");
                let lines = text.lines();
                lines
                    .map(|line| serde_json::from_str(line).expect("JSON"))
                    .collect()
            };
            // A state that is too large to make a result of is one letter, with its rows.
            let mut lost = 0;
            for letter in lines("bounds.dead.jsonl") {
                let reason = letter["error"].as_str().unwrap_or_default();
                assert!(
                    reason.contains("of memory, and its `limits.memory` is 16 MiB"),
                    "{reason}"
                );
                let text = letter["row"].as_str().expect("a row, or a state");
                assert!(text.contains("xxx"), "a neighbour's");
                let text: Value = serde_json::from_str(text).expect("JSON");
                lost += text["rows"].as_u64().unwrap_or(1);
            }
            let mut sums = [0; 4];
            for row in lines("out.jsonl") {
                let key = row["k"].as_u64().expect("a key") as usize;
                sums[key] = row["n"].as_u64().expect("a number").max(sums[key]);
            }
            assert_eq!(&sums[1..], [20; 3], "{window} {batch_rows}");
            assert_eq!(sums[0] + lost, 60, "{window} {batch_rows}");
            assert_eq!(*before.get_or_insert(sums), sums, "{window} {batch_rows}");
        }
    }
}

/// It is neither tried with each of its rows, nor are its neighbours with it.
#[test]
fn a_key_that_has_outgrown_its_memory_costs_little_time() {
    for batch_rows in [64, 4_096] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let id = "x".repeat(8_000);
        let text: String = (0..2_000)
            .map(|row| match row % 2 {
                0 => format!("{{\"id\":\"{id}{row}\",\"n\":1,\"k\":0}}\n"),
                _ => format!("{{\"id\":\"near\",\"n\":1,\"k\":{}}}\n", 1 + row % 499),
            })
            .collect();
        fs::write(folder.path().join("rows.jsonl"), text).expect("it is writable");
        let operator = hostile(
            r#"
            plugin = "hostile.miscount"
            parameters = { mode = "nothing" }
            key = "k"
            window = "global"
            limits = { memory = "16MiB" }
            "#,
        );
        let began = Instant::now();
        let ran = run(
            &format!("batch_rows = {batch_rows}\n{operator}"),
            folder.path(),
        );
        let took = began.elapsed();
        // It took several minutes.
        assert!(took < Duration::from_secs(120), "{batch_rows}: {took:?}");
        let letters = fs::read_to_string(folder.path().join("bounds.dead.jsonl"));
        let letters = letters.expect("they were written");
        let letters: Vec<Value> = letters
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect();
        assert_eq!(ran.count("worked", "failed"), letters.len() as u64);
        assert!((300..1_000).contains(&letters.len()), "{}", letters.len());
        for letter in &letters {
            let (error, row) = (letter["error"].to_string(), letter["row"].to_string());
            assert!(error.contains("its `limits.memory` is 16 MiB"), "{error}");
            assert!(row.contains("xxx"), "a neighbour's: {row}");
        }
    }
}

/// A user whose items have names of 4 kB: what models answer has no room, and is in no
/// letter.
#[test]
fn a_request_that_is_too_large_is_one_letter() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let plugin = common::plugin_file("recommend");
    let lines = |name: &str, rows: &[Value]| {
        let text: String = rows.iter().map(|row| format!("{row}\n")).collect();
        fs::write(folder.path().join(name), text).expect("it is writable");
    };
    let mut interactions = Vec::new();
    let mut requests = Vec::new();
    for n in 0..60_u64 {
        let name = format!("{n}{}", "x".repeat(4_000));
        for (user, item) in [("ann", format!("tea-{}", n % 7)), ("fat", name)] {
            interactions.push(json!({"ts": 2 * n, "user": user, "item": item, "action": "view"}));
        }
        requests.push(json!({"ts": 2 * n + 1, "user": "ann", "item": null}));
        if n % 10 == 9 {
            requests.push(json!({"ts": 2 * n + 1, "user": "fat", "item": null}));
        }
    }
    lines("interactions.jsonl", &interactions);
    lines("requests.jsonl", &requests);
    let pipeline = format!(
        r#"
        name = "bounds"
        parallelism = 1
        [plugins.recommend]
        path = {plugin:?}
        [sources.interactions]
        type = "file"
        path = "interactions.jsonl"
        event_time = "ts"
        [sources.interactions.fields]
        user = "utf8"
        item = "utf8"
        action = "utf8"
        category = "utf8?"
        ts = "timestamp(s)"
        [sources.requests]
        type = "file"
        path = "requests.jsonl"
        event_time = "ts"
        [sources.requests.fields]
        user = "utf8"
        item = "utf8?"
        request = "utf8?"
        category = "utf8?"
        ts = "timestamp(s)"
        [operators.worked]
        plugin = "recommend.items"
        input = {{ interactions = "interactions", requests = "requests" }}
        key = {{ user = "user", item = "item" }}
        limits = {{ memory = "3MiB" }}
        [sinks.out]
        type = "blackhole"
        input = "worked"
        "#
    );
    let ran = run(&pipeline, folder.path());
    let letters = fs::read_to_string(folder.path().join("bounds.dead.jsonl"));
    let letters = letters.expect("they were written");
    let letters = letters
        .lines()
        .map(|line| -> Value { serde_json::from_str(line).expect("JSON") });
    let letters: Vec<Value> = letters
        .filter(|letter| letter["node"] == "worked")
        .collect();
    let failed = ran.count("worked", "failed");
    assert!(failed > 2 * letters.len() as u64, "{failed}");
    let mut requests = BTreeSet::new();
    for letter in &letters {
        let payload = letter["payload"].as_str().expect("the row");
        assert!(payload.len() < 1_000, "{payload}");
        let row: Value = serde_json::from_str(payload).expect("JSON");
        assert_eq!((&row["user"], row.get("answer")), (&json!("fat"), None));
        assert!(requests.insert(row["row"].as_u64()), "two of {row}");
    }
    assert!((1..=6).contains(&requests.len()), "{requests:?}");
    let answered = ran.count("out", "rows_in");
    assert!((60..=66).contains(&answered), "{answered}");
}

/// Together they are 15 times as large as the memory for states.
#[test]
fn states_that_are_large_together_stay_within_their_memory() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    rows(folder.path(), (0..1_200).map(|_| "x".repeat(200_000)));
    let windows = hostile(
        r#"
        plugin = "hostile.miscount"
        parameters = { mode = "nothing" }
        key = "k"
        window = { count = 3 }
        "#,
    );
    let state = "state = { path = \"data\", memory = \"16MiB\", rocksdb_memory = \"16MiB\" }";
    let ran = run(&format!("{state}\n{windows}"), folder.path());
    assert_eq!(ran.count("worked", "failed"), 0);
    assert_eq!(ran.count("out", "rows_in"), 1_000);
    assert!(ran.peak < 400 << 20, "{} MiB", ran.peak >> 20);
}

/// A source of `key`, `n`, `text` and `ts`, whose rows all wait for its end.
fn waiting(source: &str) -> String {
    format!(
        r#"
        [sources.{source}]
        type = "file"
        path = "{source}.jsonl"
        event_time = "ts"
        watermark = {{ out_of_orderness = "365d" }}
        fields = {{ key = "utf8", n = "int64", text = "utf8?", ts = "timestamp(ms)" }}
        "#
    )
}

fn write_rows(folder: &Path, source: &str, rows: impl Iterator<Item = Value>) {
    let file = fs::File::create(folder.join(format!("{source}.jsonl")));
    let mut file = BufWriter::new(file.expect("it is writable"));
    for row in rows {
        writeln!(file, "{row}").expect("it is writable");
    }
    file.flush().expect("it is writable");
}

/// Timers of many keys that are due at one instant.
#[test]
fn a_storm_of_timers_fires_once_each() {
    const KEYS: i64 = 1_000_000;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let row = |key| json!({"key": format!("k{key}"), "n": 0, "ts": 1_000});
    write_rows(folder.path(), "questions", (0..KEYS).map(row));
    write_rows(folder.path(), "amounts", std::iter::once(row(0)));
    let tally = format!(
        r#"
        name = "storm"
        plugins.basics.path = {:?}
        state = {{ path = "data", memory = "16MiB", rocksdb_memory = "16MiB" }}
        {}{}
        [operators.tally]
        plugin = "basics.tally"
        input = {{ questions = "asked", amounts = "amounts" }}
        key = "key"
        [operators.asked]
        select = {{ key = "key", n = "n", letter = "key" }}
        input = "questions"
        [sinks.out]
        type = "blackhole"
        input = "tally"
        "#,
        common::plugin_file("basics"),
        waiting("questions"),
        waiting("amounts"),
    );
    let ran = run(&tally, folder.path());
    assert_eq!(ran.count("out", "rows_in"), KEYS as u64);
    // 346 MiB where all of them fire before a checkpoint can be made.
    assert!(ran.peak < 300 << 20, "{} MiB", ran.peak >> 20);
}

/// Rows of one key that all wait until the end, in disorder: what each costs must not grow
/// with their number.
#[test]
fn many_rows_of_a_key_wait_in_no_time() {
    const ROWS: i64 = 100_000;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut times: Vec<i64> = (0..ROWS).map(|row| row * 10).collect();
    fastrand::Rng::with_seed(3).shuffle(&mut times);
    let row = |&ts: &i64| json!({"key": "a", "n": ts, "ts": ts});
    write_rows(folder.path(), "rows", times.iter().map(row));
    // One in a thousand.
    let few = times.iter().filter(|&ts| ts % 10_000 == 0);
    write_rows(folder.path(), "few", few.map(row));
    let session = |gap: &str| {
        format!(
            "aggregate = {{ rows = \"count()\" }}\ninput = \"rows\"\n\
             window = {{ session = \"{gap}\" }}"
        )
    };
    let join = "join = { kind = \"left\", before = \"0s\", after = \"50ms\" }\n\
                input = { left = \"rows\", right = \"few\" }\n\
                select = { n = \"left.n\", m = \"right.n\" }";
    for (operator, results) in [
        ("order = \"event_time\"\ninput = \"rows\"".to_owned(), ROWS),
        (join.to_owned(), ROWS),
        (session("1s"), 1),
        (session("1ms"), ROWS),
    ] {
        let text = format!(
            "name = \"waiting\"\n{}{}[operators.worked]\n{operator}\nkey = \"key\"\n\
             [sinks.out]\ntype = \"blackhole\"\ninput = \"worked\"\n{}",
            waiting("rows"),
            waiting("few"),
            "[sinks.few_out]\ntype = \"blackhole\"\ninput = \"few\"\n",
        );
        let started = Instant::now();
        let ran = run(&text, folder.path());
        let took = started.elapsed();
        assert_eq!(ran.count("out", "rows_in"), results as u64, "{operator}");
        assert!(ran.peak < 400 << 20, "{operator}: {} MiB", ran.peak >> 20);
        // As in `check_soon`, the machine may be busy.
        assert!(took < Duration::from_secs(60), "{operator}: {took:?}");
    }
}

/// Sessions of one key that are all open, and begin in disorder.
#[test]
fn many_sessions_of_a_key_are_open_in_no_time() {
    const ROWS: i64 = 1_000_000;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut times: Vec<i64> = (0..ROWS).map(|row| row * 10).collect();
    fastrand::Rng::with_seed(7).shuffle(&mut times);
    let row = |&ts: &i64| json!({"key": "a", "n": ts, "ts": ts});
    write_rows(folder.path(), "rows", times.iter().map(row));
    let text = format!(
        "name = \"sessions\"\n{}[operators.counted]\naggregate = {{ rows = \"count()\" }}\n\
         input = \"rows\"\nkey = \"key\"\nwindow = {{ session = \"1ms\" }}\n\
         [sinks.out]\ntype = \"blackhole\"\ninput = \"counted\"\n",
        waiting("rows"),
    );
    let started = Instant::now();
    let ran = run(&text, folder.path());
    let took = started.elapsed();
    assert_eq!(ran.count("out", "rows_in"), ROWS as u64);
    // As in `check_soon`, the machine may be busy. It took 261 s.
    assert!(took < Duration::from_secs(120), "{took:?}");
}

/// Values of one group, each of which is taken back and replaced once.
#[test]
fn many_values_of_a_group_are_replaced_in_no_time() {
    const KEYS: usize = 100_000;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut values: Vec<usize> = (0..2 * KEYS).collect();
    fastrand::Rng::with_seed(11).shuffle(&mut values);
    let rows = values.iter().enumerate();
    let row = |(row, n): (usize, &usize)| json!({"key": format!("k{}", row % KEYS), "n": n});
    write_rows(folder.path(), "rows", rows.map(row));
    let text = r#"
        name = "replaced"
        parallelism = 1
        [sources.rows]
        type = "file"
        path = "rows.jsonl"
        fields = { key = "utf8", n = "int64" }
        [operators.latest]
        aggregate = { n = "last(n)" }
        input = "rows"
        key = "key"
        window = "running"
        [operators.all]
        aggregate = { least = "min(n)", most = "max(n)", top = "top(2, n)", distinct = "count_distinct(n)" }
        input = "latest.changes"
        window = "running"
        [sinks.out]
        type = "file"
        path = "out.jsonl"
        input = "all"
        "#;
    let started = Instant::now();
    run(text, folder.path());
    let took = started.elapsed();
    let out = fs::read_to_string(folder.path().join("out.jsonl")).expect("it is written");
    let last: Value = serde_json::from_str(out.lines().last().expect("rows")).expect("JSON");
    let mut left = values[KEYS..].to_vec();
    left.sort_unstable();
    let expected = json!({
        "least": left[0],
        "most": left[KEYS - 1],
        "top": [left[KEYS - 1], left[KEYS - 2]],
        "distinct": KEYS,
    });
    assert_eq!(last, expected);
    // As in `check_soon`, the machine may be busy.
    assert!(took < Duration::from_secs(60), "{took:?}");
}

/// A table that rows are joined with as of their time, eight times as large as the memory for
/// states.
#[test]
fn a_table_may_be_larger_than_memory() {
    const KEYS: i64 = 60_000;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let text = "x".repeat(2_000);
    let version = |key| json!({"key": format!("k{key}"), "n": key, "text": text, "ts": 0});
    write_rows(folder.path(), "table", (0..KEYS).map(version));
    // About every other key is in the table.
    let key_of = |row| (row * 7_919) % (2 * KEYS);
    let asked = |row| json!({"key": format!("k{}", key_of(row)), "n": row, "ts": 1_000 + row});
    write_rows(folder.path(), "asked", (0..KEYS).map(asked));
    let joined = format!(
        r#"
        name = "table"
        state = {{ path = "data", memory = "16MiB", rocksdb_memory = "16MiB" }}
        {}{}
        [operators.joined]
        join = {{ kind = "inner", as_of = "event_time" }}
        input = {{ left = "asked", right = "table" }}
        key = "key"
        select = {{ n = "left.n", text = "right.text" }}
        [sinks.out]
        type = "blackhole"
        input = "joined"
        "#,
        waiting("table"),
        waiting("asked"),
    );
    let ran = run(&joined, folder.path());
    let known = (0..KEYS).filter(|&row| key_of(row) < KEYS).count();
    assert_eq!(ran.count("out", "rows_in"), known as u64);
    assert!(ran.peak < 500 << 20, "{} MiB", ran.peak >> 20);
}

/// More files than a process may open, and tasks that share what it may.
#[test]
fn many_files_need_few_descriptors() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let inside = folder.path().join("in");
    fs::create_dir(&inside).expect("it is writable");
    for file in 0..500 {
        let row = format!("{{\"id\":\"{file}\",\"n\":1}}\n");
        fs::write(inside.join(format!("{file}.jsonl")), row).expect("it is writable");
    }
    let pipeline = r#"
        name = "many"
        parallelism = 8
        [checkpoints]
        [sources.rows]
        type = "file"
        path = "in/*.jsonl"
        fields = { id = "utf8", n = "int64" }
        [sinks.out]
        type = "file"
        input = "rows"
        path = "out.jsonl"
        "#;
    fs::write(folder.path().join("pipeline.toml"), pipeline).expect("it is writable");
    let host = env!("CARGO_BIN_EXE_sluicebox");
    let status = Command::new("sh")
        .args([
            "-c",
            &format!("ulimit -n 256; exec {host} run -q pipeline.toml"),
        ])
        .current_dir(folder.path())
        .status();
    assert!(status.expect("it starts").success());
    let rows = fs::read_to_string(folder.path().join("out.jsonl")).expect("it was written");
    assert_eq!(rows.lines().count(), 500);
}

/// Checks a pipeline, which must not take long. Returns the exit code, and what is said.
fn check_soon(what: &str, pipeline: &Path) -> (Option<i32>, String) {
    let started = Instant::now();
    let checked = Command::new(env!("CARGO_BIN_EXE_sluicebox"))
        .arg("check")
        .arg(pipeline)
        .output()
        .expect("it starts");
    let took = started.elapsed();
    let said = String::from_utf8_lossy(&checked.stderr).into_owned();
    // The tests may run on a busy machine, and without optimisations.
    assert!(took < Duration::from_secs(15), "{what}: {took:?}\n{said}");
    (checked.status.code(), said)
}

/// Who looks for what is wrong with 10,000 names does not wait for it.
#[test]
fn many_wrong_names_take_no_time() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let numbered = |text: fn(usize) -> String| (0..10_000).map(text).collect::<String>();
    let rows = "[sources.rows]\ntype = \"generator\"\n";
    let out = "[sinks.out]\ntype = \"blackhole\"\ninput = \"rows\"\n";
    let operators = |n| format!("[operators.op{n}]\nfilter = \"true\"\ninput = \"oq{n}\"\n");
    let sinks = |n| format!("[sinks.out{n}]\ntype = \"blackhole\"\ninput = \"out_{n}\"\n");
    let files = |n| {
        format!(
            "[sources.s{n}]\ntype = \"file\"\npath = \"s{n}.jsonl\"\nfields = {{ a = \"utf8\" }}\n"
        )
    };
    let plugins = |n| format!("[plugins.p{n}]\npath = \"p{n}.wasm\"\n");
    let keys = |n| format!("kez{n} = 1\n");
    let fields = |n| format!("s{n} = \"user_idd{n}\", ");
    let cases = [
        ("operators", format!("{rows}{}{out}", numbered(operators))),
        ("sinks", format!("{rows}{}", numbered(sinks))),
        ("files", format!("{}{out}", numbered(files))),
        ("plugins", format!("{}{rows}{out}", numbered(plugins))),
        ("keys", format!("{rows}{}{out}", numbered(keys))),
        (
            "fields",
            format!(
                "{rows}[operators.s]\ninput = \"rows\"\nselect = {{ {} }}\n{out}",
                numbered(fields).trim_end_matches(", ")
            ),
        ),
    ];
    for (what, pipeline) in cases {
        let path = folder.path().join("pipeline.toml");
        fs::write(&path, format!("name = \"wrong\"\n{pipeline}")).expect("it is writable");
        let (code, said) = check_soon(what, &path);
        assert_eq!(code, Some(2), "{what}: {said}");
        assert!(said.contains("and 99"), "{what}: {said}");
    }
}

/// A batch of rows of few keys stays large, however large the states of these are: a state
/// is read and written once a batch.
#[test]
fn a_large_state_is_not_copied_for_a_few_rows_each() {
    const VALUES: usize = 200_000;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut values: Vec<usize> = (0..VALUES).collect();
    fastrand::Rng::with_seed(5).shuffle(&mut values);
    let row = |n: &usize| json!({"id": "a", "n": n, "k": n % 2});
    let file = fs::File::create(folder.path().join("rows.jsonl"));
    let mut file = BufWriter::new(file.expect("it is writable"));
    for row in values.iter().map(row) {
        writeln!(file, "{row}").expect("it is writable");
    }
    file.flush().expect("it is writable");
    for (key, window, counts) in [
        ("id", "\"global\"", vec![VALUES as i64]),
        ("k", "\"global\"", vec![VALUES as i64 / 2; 2]),
        ("id", "{ count = 100000 }", vec![VALUES as i64 / 2; 2]),
    ] {
        let started = Instant::now();
        let pipeline = format!(
            r#"
            name = "bounds"
            parallelism = 1
            [sources.rows]
            type = "file"
            path = "rows.jsonl"
            fields = {{ id = "utf8", n = "int64", k = "int64" }}
            [operators.counted]
            aggregate = {{ n = "count_distinct(n)" }}
            input = "rows"
            key = "{key}"
            window = {window}
            [sinks.out]
            type = "file"
            path = "out.jsonl"
            if_exists = "replace"
            input = "counted"
            "#
        );
        run(&pipeline, folder.path());
        let out = fs::read_to_string(folder.path().join("out.jsonl")).expect("it is written");
        let rows = out
            .lines()
            .map(|row| serde_json::from_str(row).expect("JSON"));
        let given: Vec<i64> = rows
            .map(|row: Value| row["n"].as_i64().expect("a count"))
            .collect();
        assert_eq!(given, counts, "{key} {window}");
        let took = started.elapsed();
        // As in `check_soon`, the machine may be busy.
        assert!(took < Duration::from_secs(60), "{key} {window}: {took:?}");
    }
}

/// Each file is compared with those that it may be, not with all.
#[test]
fn many_outputs_take_no_time() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let sink =
        |n| format!("[sinks.out{n}]\ntype = \"file\"\npath = \"out{n}.jsonl\"\ninput = \"rows\"\n");
    let sinks: String = (0..3_000).map(sink).collect();
    let path = folder.path().join("pipeline.toml");
    let rows = "name = \"many\"\n[sources.rows]\ntype = \"generator\"\n";
    fs::write(&path, format!("{rows}{sinks}")).expect("it is writable");
    let (code, said) = check_soon("outputs", &path);
    assert_eq!(code, Some(0), "{said}");
}

/// Values of any size, in any shape, through an operator to a sink: what a run has of them
/// at a time does not grow with what there is.
#[test]
fn rows_of_any_size_stay_within_what_is_allowed() {
    const INPUT_BYTES: usize = 400_000_000;
    const STATE_BYTES: usize = 32 << 20;
    // For everything else: batches in channels, blocks of the file, what sinks gather.
    const FIXED_BYTES: usize = 250 << 20;
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    let folder = tempfile::tempdir().expect("a temporary folder");
    for _ in 0..2 {
        let bytes = 10_f64.powf(3.5 + 2.5 * random.f64()) as usize;
        let count = INPUT_BYTES / bytes;
        let is_list = random.bool();
        let file = fs::File::create(folder.path().join("rows.jsonl.zst")).expect("it is writable");
        let mut file = zstd::Encoder::new(file, 1).expect("a writer").auto_finish();
        for row in 0..count {
            let letter = char::from(b'a' + (row % 26) as u8);
            let value = match is_list {
                true => json!(vec![letter.to_string().repeat(bytes / 10); 10]),
                false => json!(letter.to_string().repeat(bytes)),
            };
            let key = random.usize(0..count);
            writeln!(file, "{{\"k\":\"k{key}\",\"n\":{row},\"v\":{value}}}")
                .expect("it is writable");
        }
        drop(file);
        let operator = random.choice([
            "filter = \"n >= 0\"",
            "select = { k = \"k\", v = \"v\", w = \"v\" }",
            "aggregate = { v = \"last(v)\" }\nkey = \"k\"\nwindow = \"running\"",
            "aggregate = { v = \"last(v)\" }\nkey = \"k\"\nwindow = { count = 2 }",
        ]);
        let operator = operator.expect("there are some");
        let mut sinks = vec!["blackhole", "out.jsonl.zst", "out.parquet"];
        if !is_list {
            sinks.push("out.csv");
        }
        let sink = match *random.choice(&sinks).expect("there are some") {
            "blackhole" => "type = \"blackhole\"".to_owned(),
            path => format!("type = \"file\"\npath = \"{path}\"\nif_exists = \"replace\""),
        };
        let data_type = if is_list { "list<utf8>" } else { "utf8" };
        let pipeline = format!(
            r#"
            name = "sizes"
            parallelism = 2
            state = {{ path = "data", memory = "16MiB", rocksdb_memory = "16MiB" }}
            [sources.rows]
            type = "file"
            path = "rows.jsonl.zst"
            fields = {{ k = "utf8", n = "int64", v = "{data_type}" }}
            [operators.worked]
            {operator}
            input = "rows"
            [sinks.out]
            {sink}
            input = "worked"
            "#
        );
        let ran = run(&pipeline, folder.path());
        let what = format!("seed {seed}: {count} rows of {bytes} bytes: {pipeline}");
        assert_eq!(ran.count("rows", "rows_out"), count as u64, "{what}");
        let peak = ran.peak >> 20;
        assert!(ran.peak < STATE_BYTES + FIXED_BYTES, "{peak} MiB: {what}");
        fs::remove_dir_all(folder.path().join("data")).expect("it is there");
    }
}
