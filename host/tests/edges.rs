//! Starts the examples with their real edges, as their READMEs say, looks at what has come to
//! the servers by their own clients, and ends them: nothing is left.

/// Plugins, built once.
#[expect(dead_code, reason = "the binary loads the plugins")]
mod common;
/// Tests that may be ignored.
#[macro_use]
#[path = "common/harness.rs"]
mod harness;
/// Reads the examples' files.
#[path = "common/pages.rs"]
mod pages;
/// Whether tests may be ignored.
#[expect(dead_code, reason = "the examples start their servers")]
#[path = "common/scripted.rs"]
mod scripted;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use harness::{Absent, Outcome};
use pages::{blocks, page};

tests![
    carts_are_in_postgresql_and_redis,
    recommendations_are_in_redis_and_asked_for,
    notifications_are_published_and_posted_once,
    hours_are_computed_over_kafka_and_queried,
];

/// An example that is up. It is ended with it.
struct Up {
    name: &'static str,
    folder: PathBuf,
    said: String,
    _alone: MutexGuard<'static, ()>,
}

fn make(name: &str, what: &str) -> Command {
    let mut make = Command::new("make");
    make.args(["--no-print-directory", "-C"])
        .arg(root().join("examples").join(name))
        .arg(what)
        .stdin(Stdio::null());
    make
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

impl Up {
    fn start(name: &'static str) -> Result<Up, Absent> {
        // They are measured against the clock, and like the same port.
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let output = make(name, "up")
            .env("SLUICEBOX", env!("CARGO_BIN_EXE_sluicebox"))
            .env("PLUGINS", common::plugin_file("cart").with_file_name(""))
            .output()
            .map_err(|error| Absent(format!("make: {error}")))?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            // Debian's packages may be missing.
            let why = errors.lines().find(|line| line.contains(" is missing: "));
            match why {
                Some(why) if !scripted::is_ci() => return Err(Absent(why.to_owned())),
                _ => panic!("{name} does not come up:\n{said}\n{errors}"),
            }
        }
        let link = root().join("examples").join(name).join("out/edges");
        Ok(Up {
            name,
            folder: std::fs::read_link(link).expect("it leads to the folder"),
            said,
            _alone: alone,
        })
    }

    fn address(&self, server: &str) -> String {
        let file = self.folder.join(server).join("address");
        let address = std::fs::read_to_string(file).expect("the server runs");
        address.trim().to_owned()
    }

    /// The rows of a query, with `|` between fields.
    fn sql(&self, sql: &str) -> Vec<String> {
        let url = format!("postgresql://shop:s3cret@{}/shop", self.address("postgres"));
        let printed = printed(Command::new("psql").args(["-XAtq", &url, "-c", sql]));
        printed.lines().map(str::to_owned).collect()
    }

    fn redis(&self, arguments: &[&str]) -> String {
        let url = format!("redis://default:s3cret@{}", self.address("redis"));
        let mut ask = Command::new("redis-cli");
        ask.args(["-u", &url, "--no-auth-warning"]);
        printed(ask.args(arguments)).trim_end().to_owned()
    }

    /// Where the service answers.
    fn service(&self) -> &str {
        let page = self.said.split_once("its page is ").expect("it says so").1;
        page.split_once("/\n").expect("an address").0
    }

    /// What a GET request of the service answers.
    fn get(&self, path: &str, query: &[&str]) -> String {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--fail-with-body", "--get"]);
        for parameter in query {
            curl.args(["--data-urlencode", parameter]);
        }
        printed(curl.arg(format!("{}{path}", self.service())))
    }

    /// Compares what it has said with the README's, but for what differs each time.
    fn said_as_in_readme(&self) {
        let readme = page(&format!("examples/{}/README.md", self.name));
        let up = format!("\nmake -C examples/{} up", self.name);
        assert!(readme.contains(&up), "{up}");
        let [shown] = blocks(&readme, "console");
        let said = without_places(&self.said);
        for line in without_places(&shown).lines() {
            assert!(
                said.lines().any(|other| other == line) || line.contains("\"checkpoint\""),
                "the README has {line:?}, and not:\n{said}"
            );
        }
    }

    /// Ends it, and looks whether anything is left.
    fn end(self) {
        let again = make(self.name, "up").output().expect("make runs");
        let errors = String::from_utf8_lossy(&again.stderr);
        assert!(
            !again.status.success() && errors.contains("it is up already"),
            "{errors}"
        );
        assert!(
            !processes(&self.folder).is_empty(),
            "nothing runs that could be left"
        );
        printed(&mut make(self.name, "down"));
        let left = processes(&self.folder);
        assert!(left.is_empty(), "{left:?}");
        assert!(!self.folder.exists(), "{}", self.folder.display());
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = make(self.name, "down").output();
    }
}

/// What a command prints, which succeeds.
fn printed(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().expect("it runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}\n{errors}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// The processes that were started with a folder's path, or work in it.
fn processes(folder: &Path) -> Vec<String> {
    let path = folder.to_str().expect("UTF-8");
    let all = std::fs::read_dir("/proc").expect("it is mounted");
    let found = all.flatten().filter_map(|process| {
        let command = std::fs::read(process.path().join("cmdline")).ok()?;
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        let place = std::fs::read_link(process.path().join("cwd"));
        let is_in = place.is_ok_and(|place| place.starts_with(folder));
        (is_in || command.contains(path)).then_some(command)
    });
    found.collect()
}

/// A text with no ports and no names of temporary folders.
fn without_places(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((at, marker)) = ["127.0.0.1:", "sluicebox-"]
        .iter()
        .filter_map(|marker| Some((rest.find(marker)?, marker)))
        .min()
    {
        let (before, behind) = rest.split_at(at + marker.len());
        out.push_str(before);
        let is_place = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
        rest = behind.trim_start_matches(is_place);
    }
    out + rest
}

fn json_lines(text: &str) -> Vec<Value> {
    let parse = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
    text.lines().map(parse).collect()
}

fn text<'a>(row: &'a Value, field: &str) -> &'a str {
    row[field].as_str().expect("a text")
}

fn expected(example: &str, sink: &str) -> Vec<Value> {
    json_lines(&page(&format!(
        "examples/{example}/tests/small/expected/{sink}.jsonl"
    )))
}

/// Both are committed together, so that they have the same carts at each checkpoint.
fn carts_are_in_postgresql_and_redis() -> Outcome {
    let up = Up::start("cart")?;
    assert!(up.get("/", &[]).contains("<html"), "no page");
    let mut pause = Command::new(env!("CARGO_BIN_EXE_sluicebox"));
    printed(pause.args(["pipelines", "pause", "cart", "--host", up.service()]));
    let in_tables = up.sql("SELECT user_id, item_id, quantity FROM carts");
    let all = "local all = {} for _, key in ipairs(redis.call('KEYS', 'cart:*')) do \
               local cart = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES') \
               for i = 1, #cart, 2 do \
               all[#all + 1] = key:sub(6) .. '|' .. cart[i] .. '|' .. cart[i + 1] end end \
               return all";
    let in_redis = up.redis(&["EVAL", all, "0"]);
    let in_tables: BTreeSet<&str> = in_tables.iter().map(String::as_str).collect();
    let in_redis: BTreeSet<&str> = in_redis.lines().collect();
    assert!(in_tables.len() > 100, "{in_tables:?}");
    assert_eq!(in_tables, in_redis);
    let visits = up.sql("SELECT count(*) > 0, bool_and(window_end > window_start) FROM visits");
    assert_eq!(visits, ["t|t"]);
    let rank = up.redis(&["HGET", "top:1", "rank"]);
    assert_eq!(rank, "1");
    up.end();
    Ok(())
}

/// The last row of each key.
fn last_of(rows: &[Value], key: &dyn Fn(&Value) -> String) -> BTreeMap<String, Value> {
    let mut last: BTreeMap<String, &Value> = BTreeMap::new();
    for row in rows {
        let known = last.entry(key(row)).or_insert(row);
        if text(row, "time") >= text(known, "time") {
            *known = row;
        }
    }
    let of = |(key, row): (String, &Value)| (key, row["recommended"].clone());
    last.into_iter().map(of).collect()
}

fn recommendations_are_in_redis_and_asked_for() -> Outcome {
    let up = Up::start("recommend")?;
    up.said_as_in_readme();
    let parsed = |text: String| -> Value {
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{text}: {error}"))
    };
    let suggested = expected("recommend", "suggestions");
    for (user, wanted) in last_of(&suggested, &|row| text(row, "user").to_owned()) {
        let found = up.redis(&["HGET", &format!("suggested:{user}"), "recommended"]);
        assert_eq!(parsed(found), wanted, "{user}");
        let path = "/api/v1/pipelines/recommend/operators/latest/state";
        let state = parsed(up.get(path, &[&format!("key={{\"user\":\"{user}\"}}")]));
        let state = &state["entries"][0]["state"]["last(recommended)"];
        assert_eq!(*state, wanted, "{user}");
    }
    for (sink, prefix) in [("similar_items", "similar"), ("together", "together")] {
        let key = |row: &Value| format!("{prefix}:{}:{}", text(row, "user"), text(row, "item"));
        for (key, wanted) in last_of(&expected("recommend", sink), &key) {
            assert_eq!(parsed(up.redis(&["GET", &key])), wanted, "{key}");
        }
    }
    up.end();
    Ok(())
}

fn sorted(rows: &[Value]) -> Vec<String> {
    let mut rows: Vec<String> = rows.iter().map(Value::to_string).collect();
    rows.sort_unstable();
    rows
}

fn notifications_are_published_and_posted_once() -> Outcome {
    let up = Up::start("notify")?;
    up.said_as_in_readme();
    let expected = expected("notify", "notifications");
    let users: BTreeSet<&str> = expected.iter().map(|row| text(row, "user_id")).collect();
    let mut inboxes = Vec::new();
    for user in users {
        let inbox = up.redis(&["LRANGE", &format!("inbox:{user}"), "0", "-1"]);
        inboxes.extend(json_lines(&inbox));
    }
    assert_eq!(sorted(&inboxes), sorted(&expected));
    let heard = std::fs::read_to_string(up.folder.join("listener/log")).expect("it listens");
    let heard: Vec<&str> = heard.lines().filter(|line| line.starts_with('{')).collect();
    assert_eq!(sorted(&json_lines(&heard.join("\n"))), sorted(&expected));
    up.end();
    Ok(())
}

#[derive(Default)]
struct Hour {
    events: u64,
    users: BTreeSet<String>,
    units: i64,
}

/// Whatever is in the table is computed again of what is in the topic.
fn hours_are_computed_over_kafka_and_queried() -> Outcome {
    let up = Up::start("warehouse")?;
    // The first hour has what is out of order before the second, and the last is not whole yet.
    let hours = "SELECT count(DISTINCT window_start) > 2 FROM hourly";
    let until = Instant::now() + Duration::from_secs(60);
    while up.sql(hours) != ["t"] {
        assert!(Instant::now() < until, "no third hour comes");
        std::thread::sleep(Duration::from_millis(200));
    }
    let stored = up.sql(
        "SELECT to_char(window_start AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24'), item_id, action, \
         events, users, units FROM hourly \
         WHERE window_start < (SELECT max(window_start) FROM hourly)",
    );
    let brokers = up.address("kafka");
    let mut kcat = Command::new("kcat");
    kcat.args(["-C", "-q", "-e", "-b", &brokers, "-t", "clean-actions"]);
    let topic = printed(kcat.args(["-o", "beginning"]));
    let mut seen = BTreeSet::new();
    let mut hours: BTreeMap<[String; 3], Hour> = BTreeMap::new();
    for row in json_lines(&topic) {
        if !seen.insert(row.to_string()) {
            continue;
        }
        let start = text(&row, "ts")[..13].to_owned();
        let key = [
            start,
            text(&row, "item_id").into(),
            text(&row, "action").into(),
        ];
        let hour = hours.entry(key).or_default();
        hour.events += 1;
        hour.users.insert(text(&row, "user_id").to_owned());
        hour.units += row["quantity"].as_i64().expect("a number");
    }
    let whole: BTreeSet<&str> = stored.iter().map(|row| &row[..13]).collect();
    let wanted = hours.iter().filter(|(key, _)| whole.contains(&*key[0]));
    let wanted: BTreeSet<String> = wanted
        .map(|(key, hour)| {
            let (key, users) = (key.join("|"), hour.users.len());
            format!("{key}|{}|{users}|{}", hour.events, hour.units)
        })
        .collect();
    assert!(wanted.len() > 50, "{wanted:?}");
    assert_eq!(stored.into_iter().collect::<BTreeSet<_>>(), wanted);
    up.end();
    Ok(())
}
