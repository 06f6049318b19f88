//! Properties of whole pipelines, of generated rows, names, graphs and damage: no row
//! has power over another, none is dropped without being counted, results are no matter
//! of luck, a file has any name, and what is left of a damaged checkpoint is not taken
//! for all of it.

/// Plugins, built once.
mod common;
/// Runs a pipeline as a test.
#[path = "common/pipeline.rs"]
mod pipeline;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Value, json};
use sluicebox::checkpoint::storage::memory::MemoryStorage;
use sluicebox::clock::{Clock, SystemClock};
use sluicebox::plan::draw::draw;
use sluicebox::plan::{Delivery, Plan, StateBackend, StatePlan};
use sluicebox::plugin::Plugin;
use sluicebox::run::{Durable, Job, Summary};
use tempfile::TempDir;

use pipeline::{assert_accounted, assert_same, plan_of, rows_of, run, runtime, to_memory};

/// Kept as long as the tests run: a plugin is compiled again when nobody has it.
static PLUGIN: LazyLock<Plugin> = LazyLock::new(|| {
    let loaded = common::LOADER.plugin(&common::plugin_file("basics"));
    loaded.unwrap_or_else(|error| panic!("{error}"))
});

fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// The event time of the first rows.
const START_MS: i64 = 1_700_000_000_000;

const DAY_MS: i64 = 86_400_000;

/// The earliest event time that a row may have.
const FIRST_MS: i64 = -62_135_596_800_000;

fn head() -> String {
    LazyLock::force(&PLUGIN);
    format!(
        "name = \"test\"\nplugins.basics.path = {:?}\ndead_letters = \"dead.jsonl\"\n",
        common::plugin_file("basics")
    )
}

const FIELDS: &str =
    "fields = { key = \"utf8\", n = \"int64\", letter = \"utf8\", ts = \"timestamp(ms)\" }";

/// What each letter is about.
fn payloads(folder: &Path) -> Vec<Vec<u8>> {
    let text = fs::read_to_string(folder.join("dead.jsonl")).unwrap_or_default();
    let payload = |line: &str| {
        let letter: Value = serde_json::from_str(line).expect("a letter");
        match (
            letter["payload"].as_str(),
            letter["payload_base64"].as_str(),
        ) {
            (Some(text), _) => text.as_bytes().to_vec(),
            (_, Some(bytes)) => BASE64_STANDARD.decode(bytes).expect("base64"),
            _ => panic!("{line}"),
        }
    };
    let mut payloads: Vec<_> = text.lines().map(payload).collect();
    payloads.sort();
    payloads
}

fn sorted(mut rows: Vec<Value>) -> Vec<Value> {
    rows.sort_by_cached_key(ToString::to_string);
    rows
}

/// A clock that shows the time of the first rows.
struct Stopped;

impl Clock for Stopped {
    fn now_ms(&self) -> i64 {
        START_MS
    }

    fn today_ms(&self) -> Option<i64> {
        Some(START_MS)
    }
}

/// A line of a file.
#[derive(Clone, Debug)]
enum Line {
    /// A row, of one of a few keys, this much before its place in time.
    Row { key: u8, n: i64, back_ms: i64 },
    /// Not a row: these bytes.
    Garbage(Vec<u8>),
    /// A row of another key, this much before the newest row so far.
    Past(i64),
    /// One that is this much further ahead of the clock than a row may be.
    Future(i64),
}

fn row() -> impl Strategy<Value = Line> {
    (0..3u8, 0..100i64, 0..5_000i64).prop_map(|(key, n, back_ms)| Line::Row { key, n, back_ms })
}

/// Lines that are no rows of the format, and none that begins a quoted field.
fn garbage(is_csv: bool) -> BoxedStrategy<Line> {
    let bytes = move |text: String| {
        let mut bytes = text.replace(['\n', '\r', '"'], "").into_bytes();
        if is_csv {
            bytes.retain(|&byte| byte != b',');
        }
        bytes.insert(0, b'#');
        bytes
    };
    let broken = match is_csv {
        true => vec![
            "k0",
            "k0,1",
            "k0,one,l,1",
            "k0,1,l,1,1",
            ",,,",
            "k0,1,l,soon",
            "k0,,l,1700000000000",
        ],
        false => vec![
            "{",
            "[]",
            "1",
            "null",
            "{}",
            "{\"key\":\"k0\"}",
            "{\"key\":\"k0\",\"n\":\"1\",\"letter\":\"l\",\"ts\":1}",
            "{\"key\":\"k0\",\"n\":1,\"letter\":\"l\",\"ts\":1",
            "{\"key\":\"k0\",\"n\":1,\"letter\":\"l\",\"ts\":1}}",
            "{\"key\":null,\"n\":1,\"letter\":\"l\",\"ts\":1}",
            "\"open",
        ],
    };
    prop_oneof![
        any::<String>().prop_map(bytes),
        // A file that begins with other bytes may look like one of another format.
        prop::collection::vec(128..=255u8, 0..20).prop_map(|bytes| [&[128][..], &bytes].concat()),
        select(broken).prop_map(|text| text.as_bytes().to_vec()),
    ]
    .prop_map(Line::Garbage)
    .boxed()
}

fn lines(is_csv: bool) -> impl Strategy<Value = Vec<Line>> {
    let line = prop_oneof![
        6 => row(),
        2 => garbage(is_csv),
        1 => prop_oneof![0..100_000i64, Just(i64::MAX), any::<i64>().prop_map(|ms| ms & i64::MAX)]
            .prop_map(Line::Past),
        1 => prop_oneof![1..100_000i64, Just(i64::MAX)].prop_map(Line::Future),
    ];
    prop::collection::vec(line, 0..60)
}

/// The text of a file with these lines, of which it keeps only the rows if it is clean,
/// and the lines that must be bad.
fn text(lines: &[Line], is_csv: bool, is_clean: bool, now_ms: i64) -> (Vec<u8>, Vec<Vec<u8>>) {
    let row = |key: &str, n: i64, ts: i64| match is_csv {
        true => format!("{key},{n},l,{ts}").into_bytes(),
        false => json!({"key": key, "n": n, "letter": "l", "ts": ts})
            .to_string()
            .into_bytes(),
    };
    let mut text = match is_csv {
        true => b"key,n,letter,ts\n".to_vec(),
        false => Vec::new(),
    };
    let mut bad = Vec::new();
    let mut newest_ms: Option<i64> = None;
    for (place, line) in lines.iter().enumerate() {
        let line = match line {
            Line::Row { key, n, back_ms } => {
                let ts = START_MS + 700 * place as i64 - back_ms;
                newest_ms = newest_ms.max(Some(ts));
                row(&format!("k{key}"), *n, ts)
            }
            _ if is_clean => continue,
            Line::Garbage(bytes) => {
                bad.push(bytes.clone());
                bytes.clone()
            }
            Line::Past(back_ms) => {
                let newest_ms = newest_ms.unwrap_or(START_MS - 60_000);
                let ts = newest_ms.saturating_sub(*back_ms);
                let row = row("stranger", 1, ts);
                if ts < FIRST_MS {
                    bad.push(row.clone());
                }
                row
            }
            Line::Future(ahead_ms) => {
                let row = row("stranger", 1, (now_ms + DAY_MS).saturating_add(*ahead_ms));
                bad.push(row.clone());
                row
            }
        };
        text.extend(line);
        text.push(b'\n');
    }
    bad.sort();
    (text, bad)
}

const WINDOWS: [&str; 5] = [
    "{ tumbling = \"5s\" }",
    "{ sliding = \"6s\", every = \"2s\" }",
    "{ session = \"3s\" }",
    "{ count = 3 }",
    "\"running\"",
];

proptest! {
    #![proptest_config(cases(96))]

    #[test]
    fn a_row_has_no_power_over_others(
        (is_csv, lines) in any::<bool>().prop_flat_map(|csv| (Just(csv), lines(csv))),
        window in select(&WINDOWS[..]),
        batch_rows in prop_oneof![1..10usize, Just(4_096)],
        parallelism in 1..4usize,
        opens_quote in any::<bool>(),
    ) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let extension = if is_csv { "csv" } else { "jsonl" };
        let pipeline = |file: &str| format!(
            r#"
            {}
            [sources.events]
            type = "file"
            path = "{file}.{extension}"
            event_time = "ts"
            watermark = {{ out_of_orderness = "2s" }}
            {FIELDS}
            [operators.result]
            plugin = "basics.stats"
            input = "events"
            key = "key"
            window = {window}
            [sinks.out]
            type = "blackhole"
            input = "result"
            "#,
            head()
        );
        let clock = Arc::new(Stopped);
        let results = |file: &str, batch_rows: usize, parallelism: usize| {
            let _ = fs::remove_file(folder.path().join("dead.jsonl"));
            let mut plan = plan_of(&pipeline(file), folder.path());
            plan.batch_rows = batch_rows;
            plan.parallelism = parallelism;
            let topic = to_memory(&mut plan, "out");
            let summary = runtime().block_on(Job::new(plan, clock.clone()).run());
            let summary = summary.unwrap_or_else(|error| panic!("{error}"));
            assert_accounted(&summary);
            let rows = rows_of(&topic).into_iter().filter(|row| row["key"] != "stranger");
            (sorted(rows.collect()), summary)
        };
        let (clean, _) = text(&lines, is_csv, true, START_MS);
        let (mut foul, mut bad) = text(&lines, is_csv, false, START_MS);
        if is_csv && opens_quote {
            // Among lines with quotes, one that opens a field could be closed.
            let open = b"\"open,1";
            foul.extend([open, &b"\nk0,1,l\n"[..]].concat());
            bad.extend([open.to_vec(), b"k0,1,l".to_vec()]);
            bad.sort();
        }
        fs::write(folder.path().join(format!("clean.{extension}")), clean).expect("writable");
        fs::write(folder.path().join(format!("foul.{extension}")), foul).expect("writable");
        let (expected, _) = results("clean", 4_096, 1);
        let (found, summary) = results("foul", batch_rows, parallelism);
        assert_same(&expected, &found, "with other lines");
        prop_assert_eq!(summary.nodes[0].failed, bad.len() as u64);
        prop_assert_eq!(payloads(folder.path()), bad);
    }
}

proptest! {
    #![proptest_config(cases(48))]

    /// Whether a sum overflows depends on the rows that came before, and on no others.
    #[test]
    fn a_row_that_fails_leaves_all_as_if_it_had_not_come(
        rows in prop::collection::vec(
            (0..2u8, select(vec![1, -5, i64::MAX, i64::MAX / 2, -i64::MAX]), 0..60i64),
            1..24,
        ),
        window in select(vec![
            "{ session = \"5s\" }",
            "{ session = \"5s\" }\nallowed_lateness = \"30s\"\nemit = \"final\"",
            "{ tumbling = \"10s\" }",
        ]),
        out_of_orderness in select(vec!["0s", "10s", "60s"]),
        aggregate in select(vec![
            r#"aggregate = { rows = "count()", sum = "sum(quantity)" }"#,
            r#"plugin = "cart.added""#,
        ]),
    ) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let row = |&(key, quantity, second): &(u8, i64, i64)| {
            let ts = START_MS + 1_000 * second;
            format!("{}\n", json!({"key": format!("k{key}"), "quantity": quantity, "ts": ts}))
        };
        let text: String = rows.iter().map(row).collect();
        fs::write(folder.path().join("rows.jsonl"), text).expect("writable");
        let pipeline = format!(
            r#"
            {}
            plugins.cart.path = {:?}
            [sources.events]
            type = "file"
            path = "rows.jsonl"
            event_time = "ts"
            watermark = {{ out_of_orderness = "{out_of_orderness}" }}
            fields = {{ key = "utf8", quantity = "int64", ts = "timestamp" }}
            [operators.result]
            input = "events"
            key = "key"
            window = {window}
            {aggregate}
            [sinks.out]
            type = "blackhole"
            input = "result"
            "#,
            head(),
            common::plugin_file("cart")
        );
        let results = |batch_rows: usize, parallelism: usize| {
            let _ = fs::remove_file(folder.path().join("dead.jsonl"));
            let mut plan = plan_of(&pipeline, folder.path());
            plan.batch_rows = batch_rows;
            plan.parallelism = parallelism;
            let topic = to_memory(&mut plan, "out");
            let summary = runtime().block_on(Job::new(plan, Arc::new(Stopped)).run());
            assert_accounted(&summary.unwrap_or_else(|error| panic!("{error}")));
            let letters = fs::read_to_string(folder.path().join("dead.jsonl"));
            let mut letters: Vec<String> =
                letters.unwrap_or_default().lines().map(str::to_owned).collect();
            letters.sort();
            (sorted(rows_of(&topic)), letters)
        };
        let expected = results(1, 1);
        for batch_rows in [3, 7, 4_096] {
            for parallelism in [1, 2] {
                let found = results(batch_rows, parallelism);
                assert_same(&expected.0, &found.0, "in larger batches");
                prop_assert_eq!(&expected.1, &found.1);
            }
        }
    }
}

/// An operator of a generated pipeline. What it reads is chosen among the nodes before
/// it that have such rows.
#[derive(Clone, Debug)]
enum Operator {
    /// Keeps events with an even number.
    Even { inputs: Vec<Index> },
    /// Rejects events with a number below 0.
    Stats {
        inputs: Vec<Index>,
        key: bool,
        skips: bool,
        window: &'static str,
    },
    /// Counts results.
    Count { input: Index, window: &'static str },
}

/// Each row is in one window.
const DISJOINT: [&str; 4] = [
    "{ tumbling = \"5s\" }",
    "{ tumbling = \"2s\" }\nallowed_lateness = \"2s\"\nemit = \"final\"",
    "{ session = \"1s\" }",
    "{ count = 3 }",
];

const OVERLAPPING: [&str; 3] = [
    "{ sliding = \"6s\", every = \"2s\" }",
    "{ sliding = \"6s\", every = \"2s\" }\nallowed_lateness = \"3s\"\nemit = \"final\"",
    "{ session = \"3s\" }\nallowed_lateness = \"3s\"\nemit = \"final\"",
];

fn operators(windows: Vec<&'static str>) -> impl Strategy<Value = Vec<Operator>> {
    let inputs = || prop::collection::vec(any::<Index>(), 1..3);
    let window = select(windows);
    let operator = prop_oneof![
        2 => inputs().prop_map(|inputs| Operator::Even { inputs }),
        4 => (inputs(), any::<bool>(), any::<bool>(), window.clone()).prop_map(
            |(inputs, key, skips, window)| Operator::Stats { inputs, key, skips, window }
        ),
        2 => (any::<Index>(), window).prop_map(|(input, window)| Operator::Count { input, window }),
    ];
    prop::collection::vec(operator, 0..5)
}

/// The files of each source, with the lines of each.
fn sources() -> impl Strategy<Value = Vec<Vec<Vec<Line>>>> {
    let line = prop_oneof![
        8 => (0..3u8, -3..20i64, 0..6_000i64)
            .prop_map(|(key, n, back_ms)| Line::Row { key, n, back_ms }),
        1 => garbage(false),
    ];
    let file = prop_oneof![
        8 => prop::collection::vec(line, 0..40),
        1 => prop::collection::vec(garbage(false), 0..4),
    ];
    prop::collection::vec(prop::collection::vec(file, 1..3), 1..3)
}

/// What a node of a generated pipeline puts out, by its name.
struct Output {
    name: String,
    is_event: bool,
}

/// A generated pipeline in a folder of its own. Each output has a sink.
struct Generated {
    folder: TempDir,
    text: String,
    outputs: Vec<Output>,
    /// The inputs of each operator.
    inputs: BTreeMap<String, Vec<String>>,
    bad: Vec<usize>,
}

fn generated(sources: &[Vec<Vec<Line>>], operators: &[Operator]) -> Generated {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut it = Generated {
        folder,
        text: head(),
        outputs: Vec::new(),
        inputs: BTreeMap::new(),
        bad: Vec::new(),
    };
    for (number, files) in sources.iter().enumerate() {
        let mut paths = Vec::new();
        let mut all_bad = 0;
        for (file, lines) in files.iter().enumerate() {
            let (text, bad) = text(lines, false, false, START_MS);
            paths.push(format!("{number}-{file}.jsonl"));
            all_bad += bad.len();
            fs::write(it.folder.path().join(&paths[file]), text).expect("it is writable");
        }
        it.bad.push(all_bad);
        let name = format!("source{number}");
        it.table(&format!(
            "[sources.{name}]\ntype = \"file\"\npath = {paths:?}\nevent_time = \"ts\"\n\
             watermark = {{ out_of_orderness = \"2s\" }}\n{FIELDS}\n"
        ));
        it.output(name, true);
    }
    for (number, operator) in operators.iter().enumerate() {
        let name = format!("operator{number}");
        let (inputs, rest, aggregates) = match operator {
            Operator::Even { inputs } => (
                it.pick(inputs, true),
                "plugin = \"basics.even\"".into(),
                false,
            ),
            Operator::Stats {
                inputs,
                key,
                skips,
                window,
            } => {
                let key = if *key { "key = \"key\"" } else { "" };
                let policy = if *skips { "skip" } else { "dead_letter" };
                let rest = format!(
                    "plugin = \"basics.stats\"\nwindow = {window}\n{key}\non_error = \"{policy}\""
                );
                (it.pick(inputs, true), rest, true)
            }
            Operator::Count { input, window } => {
                let rest = format!("plugin = \"basics.count\"\nwindow = {window}");
                (it.pick(std::slice::from_ref(input), false), rest, true)
            }
        };
        if inputs.is_empty() {
            continue;
        }
        it.table(&format!("[operators.{name}]\ninput = {inputs:?}\n{rest}\n"));
        let late_rows = match operator {
            Operator::Stats { window, .. } if !window.contains("count") => Some(true),
            Operator::Count { window, .. } if !window.contains("count") => Some(false),
            _ => None,
        };
        it.inputs.insert(name.clone(), inputs);
        it.output(name.clone(), !aggregates);
        if let Some(are_events) = late_rows {
            it.output(format!("{name}.late"), are_events);
        }
    }
    it
}

impl Generated {
    fn table(&mut self, table: &str) {
        self.text.push_str(table);
    }

    fn output(&mut self, name: String, is_event: bool) {
        let sink = sink_of(&name);
        let _ = write!(
            self.text,
            "[sinks.{sink}]\ntype = \"blackhole\"\ninput = \"{name}\"\n"
        );
        self.outputs.push(Output { name, is_event });
    }

    /// Different outputs with rows of the same kind.
    fn pick(&self, wanted: &[Index], is_event: bool) -> Vec<String> {
        let fit = self
            .outputs
            .iter()
            .filter(|output| output.is_event == is_event);
        let fit: Vec<&Output> = fit.collect();
        let mut picked: Vec<String> = match fit.is_empty() {
            true => Vec::new(),
            false => wanted
                .iter()
                .map(|index| index.get(&fit).name.clone())
                .collect(),
        };
        picked.sort();
        picked.dedup();
        picked
    }

    fn plan(&self, batch_rows: usize, parallelism: usize) -> Plan {
        let mut plan = plan_of(&self.text, self.folder.path());
        plan.batch_rows = batch_rows;
        plan.parallelism = parallelism;
        plan
    }

    /// The rows of each output, and the summary.
    fn run(&self, mut plan: Plan) -> (BTreeMap<String, Vec<Value>>, Summary) {
        let _ = fs::remove_file(self.folder.path().join("dead.jsonl"));
        let topics: Vec<_> = self
            .outputs
            .iter()
            .map(|output| {
                (
                    output.name.clone(),
                    to_memory(&mut plan, &sink_of(&output.name)),
                )
            })
            .collect();
        let summary = run(plan).unwrap_or_else(|error| panic!("{error}\n{}", self.text));
        let rows = topics
            .into_iter()
            .map(|(name, topic)| (name, sorted(rows_of(&topic))));
        (rows.collect(), summary)
    }
}

fn sink_of(output: &str) -> String {
    format!("of_{}", output.replace('.', "_"))
}

/// The sum of a column.
fn sum(rows: &[Value], column: &str) -> u64 {
    rows.iter().filter_map(|row| row[column].as_u64()).sum()
}

proptest! {
    #![proptest_config(cases(64))]

    #[test]
    fn no_row_is_dropped_uncounted(
        sources in sources(),
        operators in operators(DISJOINT.to_vec()),
        batch_rows in prop_oneof![1..10usize, Just(4_096)],
        parallelism in 1..4usize,
    ) {
        let it = generated(&sources, &operators);
        let (rows, summary) = it.run(it.plan(batch_rows, parallelism));
        let none = Vec::new();
        let of = |output: &str| rows.get(output).unwrap_or(&none);
        let mut letters = 0;
        let mut decoded = 0;
        for node in &summary.nodes {
            let name = &node.name;
            if let Some(number) = name.strip_prefix("source") {
                let number: usize = number.parse().expect("a number");
                let lines: usize = sources[number].iter().map(Vec::len).sum();
                prop_assert_eq!(node.rows_in, lines as u64, "{}", name);
                prop_assert_eq!(node.failed, it.bad[number] as u64, "{}", name);
                prop_assert_eq!(node.rows_out, node.rows_in - node.failed, "{}", name);
                prop_assert_eq!(of(name).len() as u64, node.rows_out, "{}", name);
                letters += node.failed;
                decoded += node.rows_out;
                continue;
            }
            let Some(inputs) = it.inputs.get(name) else {
                continue;
            };
            let came: Vec<&Value> = inputs.iter().flat_map(|input| of(input)).collect();
            prop_assert_eq!(node.rows_in, came.len() as u64, "{}", name);
            let number: usize = name.strip_prefix("operator").expect("a name").parse().expect("a number");
            let is_below = |row: &&Value| row["n"].as_i64().is_some_and(|n| n < 0);
            match &operators[number] {
                Operator::Even { .. } => {
                    let even = came.into_iter().filter(|row| row["n"].as_i64().is_some_and(|n| n % 2 == 0));
                    prop_assert_eq!(&sorted(even.cloned().collect()), of(name), "{}", name);
                    prop_assert_eq!(node.failed + node.rejected + node.late, 0, "{}", name);
                }
                Operator::Stats { skips, .. } => {
                    let late = of(&format!("{name}.late"));
                    let below = came.iter().copied().filter(is_below).count();
                    let below = below - late.iter().filter(is_below).count();
                    prop_assert_eq!(node.late, late.len() as u64, "{}", name);
                    prop_assert_eq!(node.rejected, below as u64, "{}", name);
                    let counted = sum(of(name), "count");
                    prop_assert_eq!(node.rows_in, counted + node.late + node.rejected, "{}", name);
                    letters += if *skips { 0 } else { node.rejected };
                }
                Operator::Count { .. } => {
                    prop_assert_eq!(node.rows_in, sum(of(name), "count") + node.late, "{}", name);
                }
            }
        }
        let told = summary.dead_letters.as_ref().map_or(0, |letters| letters.rows);
        prop_assert_eq!(told, letters);
        prop_assert_eq!(payloads(it.folder.path()).len() as u64, letters);
        let read = summary.rows_read();
        prop_assert_eq!(summary.rows_all_bad(), (read > 0 && decoded == 0).then_some(read));
    }

    /// Where the order of rows is a matter of luck, `check` says so.
    #[test]
    fn results_are_no_matter_of_luck(
        sources in sources(),
        operators in operators([&DISJOINT[..], &OVERLAPPING[..]].concat()),
        runs in prop::collection::vec((prop_oneof![1..10usize, Just(4_096)], 1..5usize), 2),
    ) {
        let it = generated(&sources, &operators);
        let (expected, _) = it.run(it.plan(4_096, 1));
        let is_certain = |plan: &Plan| !draw(plan).contains("depends on their speed");
        prop_assume!(is_certain(&it.plan(4_096, 1)));
        for (batch_rows, parallelism) in runs {
            let plan = it.plan(batch_rows, parallelism);
            if is_certain(&plan) {
                let (found, _) = it.run(plan);
                for (output, expected) in &expected {
                    let when = format!("{output}, {batch_rows}, {parallelism}\n{}", it.text);
                    assert_same(expected, &found[output], &when);
                }
            }
        }
    }
}

/// A file's name: any bytes that a name may have.
fn name() -> impl Strategy<Value = OsString> {
    let likely = select(vec![
        "*",
        "?",
        "[a]",
        "{b}",
        " ",
        "~",
        "$HOME",
        "%20",
        "-",
        ".",
        "\\",
        "\"",
        "'",
        "é",
        "e\u{301}",
        "\n",
        "\u{1b}[1m",
        "#",
        "中",
        "🙂",
    ]);
    let piece = prop_oneof![
        3 => likely.prop_map(|text| text.as_bytes().to_vec()),
        2 => "[a-z]{1,4}".prop_map(String::into_bytes),
        1 => prop::collection::vec(1..=255u8, 1..4),
        1 => Just(vec![b'l'; 60]),
    ];
    prop::collection::vec(piece, 1..6)
        .prop_map(|pieces| OsString::from_vec(pieces.concat()))
        .prop_filter("a name", |name| {
            let bytes = name.as_bytes();
            !bytes.contains(&b'/') && bytes != b"." && bytes != b".." && !bytes.ends_with(b".part")
        })
}

/// Checkpoints that only the test keeps.
fn in_memory() -> StatePlan {
    StatePlan {
        backend: StateBackend::Memory,
        memory_bytes_max: usize::MAX,
        interval_ms: 3_600_000,
        keep: 2,
        delivery: Delivery::ExactlyOnce,
    }
}

/// A text as TOML has it.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

proptest! {
    #![proptest_config(cases(128))]

    #[test]
    fn a_file_has_any_name(
        names in prop::collection::btree_set(name(), 1..4),
        to in name(),
        spelling in 0..4u8,
    ) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for made in ["in", "out"] {
            fs::create_dir(folder.path().join(made)).expect("it is writable");
        }
        let row = |number: usize| format!("{{\"n\":{number}}}\n");
        for (number, name) in names.iter().enumerate() {
            let lines = row(number) + "#\n";
            fs::write(folder.path().join("in").join(name), lines).expect("it is writable");
        }
        let spelled = |of: &str, name: &str| quoted(&match spelling {
            0 => format!("{of}/{name}"),
            1 => format!("./{of}/../{of}//{name}"),
            2 => format!("{}/{of}/{name}", folder.path().display()),
            _ => format!("in/../{of}/./{name}"),
        });
        let read = |path: &str, sink: &str| {
            let text = format!(
                "name = \"test\"\ndead_letters = \"dead.jsonl\"\n\
                 [sources.rows]\ntype = \"file\"\nformat = \"json\"\n\
                 compression = \"none\"\npath = {path}\nfields = {{ n = \"int64\" }}\n\
                 [sinks.out]\ninput = \"rows\"\n{sink}\n"
            );
            plan_of(&text, folder.path())
        };
        let numbers = |plan: Plan| {
            let mut plan = plan;
            let topic = to_memory(&mut plan, "out");
            run(plan).unwrap_or_else(|error| panic!("{error}"));
            let rows = rows_of(&topic);
            let mut numbers: Vec<usize> = rows.iter().filter_map(|row| row["n"].as_u64()).map(|n| n as usize).collect();
            numbers.sort_unstable();
            numbers
        };
        let hides = |name: &OsStr| name.as_bytes().starts_with(b".");
        let seen: Vec<usize> = (0..).zip(&names).filter(|(_, name)| !hides(name)).map(|(number, _)| number).collect();
        if !seen.is_empty() {
            let all = || read(&spelled("in", "*"), "type = \"blackhole\"");
            prop_assert_eq!(numbers(all()), seen.clone());
            // Each is shown by a name of its own.
            let letters = fs::read_to_string(folder.path().join("dead.jsonl")).expect("one a file");
            let letters = letters.lines().map(|line| serde_json::from_str(line).expect("a letter"));
            let partitions = letters.map(|letter: Value| letter["partition"].as_str().expect("a name").to_owned());
            let partitions: BTreeSet<String> = partitions.collect();
            prop_assert_eq!(partitions.len(), seen.len(), "{:?}", partitions);
            for partition in partitions {
                prop_assert!(!partition.contains(char::REPLACEMENT_CHARACTER), "{}", partition);
            }
            // Nor is one read twice by a run that goes on.
            let durable = Durable::new(Arc::new(MemoryStorage::default()));
            for expected in [&seen[..], &[]] {
                let mut plan = all();
                plan.state = Some(in_memory());
                let topic = to_memory(&mut plan, "out");
                let job = Job::new(plan, Arc::new(SystemClock)).keeping(durable.clone());
                runtime().block_on(job.run()).unwrap_or_else(|error| panic!("{error}"));
                let mut found: Vec<usize> = rows_of(&topic).iter().filter_map(|row| row["n"].as_u64()).map(|n| n as usize).collect();
                found.sort_unstable();
                prop_assert_eq!(found, expected);
            }
        }
        for (number, name) in names.iter().enumerate() {
            let Some(name) = name.to_str() else { continue };
            let found = numbers(read(&spelled("in", name), "type = \"blackhole\""));
            match name.contains('*') {
                true => prop_assert!(found.contains(&number), "{:?}: {:?}", name, found),
                false => prop_assert_eq!(found, vec![number], "{:?}", name),
            }
        }
        if let Some(to) = to.to_str() {
            // Braces have fields in them, unless they are twice.
            let named = to.replace('{', "{{").replace('}', "}}");
            let sink = format!(
                "type = \"file\"\nformat = \"json\"\ncompression = \"none\"\npath = {}",
                spelled("out", &named)
            );
            fs::write(folder.path().join("in/last"), row(7)).expect("it is writable");
            run(read("\"in/last\"", &sink)).unwrap_or_else(|error| panic!("{error}"));
            let entries = fs::read_dir(folder.path().join("out")).expect("a folder");
            let written: Vec<OsString> = entries.map(|entry| entry.expect("it is there").file_name()).collect();
            prop_assert_eq!(written, vec![OsString::from(to)]);
            let text = fs::read_to_string(folder.path().join("out").join(to)).expect("it is there");
            prop_assert_eq!(text, row(7));
        }
    }
}

/// What happens to a file.
#[derive(Clone, Debug)]
enum Damage {
    Flip(Index, u8),
    Cut(Index),
    Zeros(Index),
    Gone,
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        6 => (any::<Index>(), 0..8u8).prop_map(|(at, bit)| Damage::Flip(at, bit)),
        2 => any::<Index>().prop_map(Damage::Cut),
        1 => any::<Index>().prop_map(Damage::Zeros),
        1 => Just(Damage::Gone),
    ]
}

impl Damage {
    fn of(&self, file: &Path) {
        let mut bytes = fs::read(file).expect("it is there");
        let length = bytes.len();
        match self {
            Damage::Gone => return fs::remove_file(file).expect("it is there"),
            _ if bytes.is_empty() => bytes.push(7),
            Damage::Flip(at, bit) => bytes[at.index(length)] ^= 1 << bit,
            Damage::Cut(at) => bytes.truncate(at.index(length)),
            Damage::Zeros(at) => bytes[at.index(length)..].fill(0),
        }
        fs::write(file, bytes).expect("it is writable");
    }
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true => files.extend(files_below(&path)),
            false => files.push(path),
        }
    }
    files.sort();
    files
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("it is writable");
    for entry in fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        let to = to.join(path.file_name().expect("a name"));
        match path.is_dir() {
            true => copy(&path, &to),
            false => drop(fs::copy(&path, to).expect("it is writable")),
        }
    }
}

/// Totals of keys, which depend on the state of all runs before.
fn totals() -> String {
    format!(
        r#"
        {}
        [state]
        path = "test.state"
        [checkpoints]
        interval = "20ms"
        [restart]
        strategy = "never"
        [sources.events]
        type = "file"
        path = "in.jsonl"
        event_time = "ts"
        {FIELDS}
        [operators.totals]
        plugin = "basics.stats"
        input = "events"
        key = "key"
        window = "running"
        [sinks.out]
        type = "file"
        input = "totals"
        path = "out.jsonl"
        "#,
        head()
    )
}

fn append_rows(folder: &Path, numbers: std::ops::Range<i64>) {
    let path = folder.join("in.jsonl");
    let mut text = fs::read_to_string(&path).unwrap_or_default();
    for n in numbers {
        let row = json!({"key": format!("k{}", n % 50), "n": n, "letter": "l", "ts": START_MS + n});
        let _ = writeln!(text, "{row}");
    }
    fs::write(path, text).expect("it is writable");
}

/// Runs as the command does.
fn run_totals(folder: &Path) -> Result<(), String> {
    let plan = plan_of(&totals(), folder);
    runtime().block_on(async {
        let durable = Durable::open(&plan).map_err(|error| error.to_string())?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let job = Job::new(plan, clock).keeping(durable.expect("it has checkpoints"));
        job.run().await.map(drop).map_err(|error| error.to_string())
    })
}

/// Folders in which the pipeline has run, once and several times, and what it has
/// written when it has run once more. The state of one run is in a file of changes, and
/// that of several in RocksDB's files, too.
static RUN_BEFORE: LazyLock<[(TempDir, String); 2]> = LazyLock::new(|| [1, 3].map(run_before));

fn run_before(runs: i64) -> (TempDir, String) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let rows = 600 / runs;
    for run in 0..runs {
        append_rows(folder.path(), run * rows..(run + 1) * rows);
        run_totals(folder.path()).expect("it runs");
    }
    let after = tempfile::tempdir().expect("a temporary folder");
    copy(folder.path(), after.path());
    append_rows(after.path(), 600..800);
    run_totals(after.path()).expect("it runs");
    let text = fs::read_to_string(after.path().join("out.jsonl")).expect("it was written");
    assert_eq!(text.lines().count(), 800);
    (folder, text)
}

proptest! {
    #![proptest_config(cases(64))]

    #[test]
    fn a_damaged_checkpoint_is_refused_or_does_no_harm(
        before in 0..2usize,
        file in any::<Index>(),
        damage in damage(),
    ) {
        let (before, expected) = &RUN_BEFORE[before];
        let folder = tempfile::tempdir().expect("a temporary folder");
        copy(before.path(), folder.path());
        append_rows(folder.path(), 600..800);
        let out = || fs::read_to_string(folder.path().join("out.jsonl"));
        let earlier = out().expect("it was written");
        let files = files_below(&folder.path().join("test.state"));
        let file = file.get(&files);
        damage.of(file);
        match run_totals(folder.path()) {
            Ok(()) => {
                let is_right = out().is_ok_and(|text| text == *expected);
                prop_assert!(is_right, "other rows, with {:?}", file);
            }
            Err(said) => {
                let is_kept = out().is_ok_and(|text| text == earlier);
                prop_assert!(is_kept, "changed by a run that failed, with {:?}: {}", file, said);
            }
        }
    }
}
