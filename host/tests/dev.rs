//! Writes a plugin while `sluicebox dev` runs its pipeline: what is saved takes over with the
//! state, and what is wrong with it does not stop what runs.

/// Signals to a running host.
#[path = "common/signal.rs"]
mod signal;

use std::fs::{self, File};
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// The first build compiles the SDK.
const WAIT: Duration = Duration::from_secs(300);

/// An author at work on a new plugin.
struct Author {
    scratch: TempDir,
    name: &'static str,
    host: Child,
    runtime: tokio::runtime::Runtime,
    /// How much of the log was read.
    read: usize,
}

impl Author {
    /// Starts with `sluicebox new plugin --kind`, and this change of its pipeline.
    fn new(
        name: &'static str,
        kind: &str,
        pipeline: impl Fn(String) -> String,
        arguments: &[&str],
    ) -> Author {
        let scratch = tempfile::tempdir().expect("a folder for the test");
        let sluicebox = env!("CARGO_BIN_EXE_sluicebox");
        let made = Command::new(sluicebox)
            .args(["new", "plugin", name, "--kind", kind])
            .current_dir(scratch.path())
            .output()
            .expect("it runs");
        assert!(made.status.success(), "{made:?}");
        let folder = scratch.path().join(name);
        let lock = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.lock");
        fs::copy(lock, folder.join("Cargo.lock")).expect("this workspace has a lock file");
        let file = folder.join("pipeline.toml");
        let text = fs::read_to_string(&file).expect("it was made");
        fs::write(&file, pipeline(text)).expect("writable");
        let output = |name| File::create(scratch.path().join(name)).expect("writable");
        let mut command = Command::new(sluicebox);
        command
            .args(["dev", "pipeline.toml", "--port", "0"])
            .args(arguments)
            .current_dir(&folder)
            // Outlives the test, so that the next one compiles less.
            .env(
                "CARGO_TARGET_DIR",
                Path::new(env!("CARGO_TARGET_TMPDIR")).join("scaffold"),
            )
            // This workspace needs the same crates, so they are downloaded already.
            .env("CARGO_NET_OFFLINE", "true")
            .stdin(Stdio::null())
            .stdout(output("rows"))
            .stderr(output("log"));
        Author {
            host: signal::not_ignored(&mut command)
                .spawn()
                .expect("it starts"),
            scratch,
            name,
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime"),
            read: 0,
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.scratch.path().join(self.name).join(name)
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.scratch.path().join(name)).expect("it is there")
    }

    /// Replaces a text in a file of the plugin's folder, as an editor writes it.
    fn edit(&self, name: &str, then: &str, now: &str) {
        let file = self.file(name);
        let text = fs::read_to_string(&file).expect("it is there");
        assert!(text.contains(then), "`{then}` is not in:\n{text}");
        self.write(name, &text.replace(then, now));
    }

    fn write(&self, name: &str, text: &str) {
        let file = self.file(name);
        let beside = file.with_extension("tmp");
        fs::write(&beside, text).expect("writable");
        fs::rename(beside, file).expect("writable");
    }

    /// Waits for a line of the log behind those that were waited for before, and returns what
    /// is between, with the line.
    fn until(&mut self, line: &str) -> String {
        self.until_one_of(&[line])
    }

    fn until_one_of(&mut self, lines: &[&str]) -> String {
        let began = Instant::now();
        loop {
            let log = self.text("log");
            let new = &log[self.read..];
            if let Some(at) = lines.iter().filter_map(|line| new.find(line)).min() {
                let end = new[at..].find('\n').map_or(new.len(), |end| at + end);
                self.read += end;
                return new[..end].to_owned();
            }
            let ended = self.host.try_wait().expect("it is ours");
            assert!(
                ended.is_none() && began.elapsed() < WAIT,
                "never `{lines:?}`: {ended:?}\n{log}"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn get(&self, path: &str) -> Value {
        let log = self.text("log");
        let (_, behind) = log.split_once("http://").expect("its address");
        let address = behind.split('/').next().expect("an address");
        let url = format!("http://{address}/api/v1/pipelines/{}{path}", self.name);
        self.runtime.block_on(async {
            let answer = reqwest::get(url).await.expect("an answer");
            let text = answer.text().await.expect("a text");
            serde_json::from_str(&text).unwrap_or(Value::String(text))
        })
    }

    /// How many readings the roof's state has, once there are more than `than`.
    fn readings_above(&self, than: u64) -> u64 {
        let began = Instant::now();
        loop {
            let state = self.get("/operators/average/state");
            let readings = state["entries"][0]["state"]["readings"].as_u64();
            if let Some(readings) = readings.filter(|readings| *readings > than) {
                return readings;
            }
            let log = self.text("log");
            assert!(began.elapsed() < WAIT, "not above {than}: {state}\n{log}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn end(mut self) {
        signal::send(&self.host, libc::SIGINT);
        let status = self.host.wait().expect("it is ours");
        assert!(status.success(), "{status}\n{}", self.text("log"));
    }
}

impl Drop for Author {
    fn drop(&mut self) {
        let _ = self.host.kill();
        let _ = self.host.wait();
    }
}

/// Sends readings of one sensor until it is dropped, also when it has to connect again.
struct Sensor {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Sensor {
    fn start(port: u16) -> Sensor {
        let is_over = Arc::new(AtomicBool::new(false));
        let over = is_over.clone();
        let thread = std::thread::spawn(move || {
            let mut connection: Option<TcpStream> = None;
            while !over.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(10));
                let Some(sending) = &mut connection else {
                    connection = TcpStream::connect(("127.0.0.1", port)).ok();
                    continue;
                };
                let row =
                    "{\"sensor\":\"roof\",\"celsius\":20.0,\"ts\":\"2024-01-01T00:00:01Z\"}\n";
                if sending.write_all(row.as_bytes()).is_err() {
                    connection = None;
                }
            }
        });
        Sensor {
            is_over,
            thread: Some(thread),
        }
    }
}

impl Drop for Sensor {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

const FAHRENHEIT: &str = "celsius * 1.8 + 32.0,\n";

fn contains(text: &str, expected: &[&str]) {
    for expected in expected {
        assert!(text.contains(expected), "`{expected}` is not in:\n{text}");
    }
}

#[test]
fn what_is_saved_takes_over_with_the_state() {
    let free = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = free.local_addr().expect("bound").port();
    drop(free);
    let mut author = Author::new(
        "followed",
        "mixed",
        |pipeline| {
            let path = "type = \"file\"\npath = \"tests/first/input/readings.jsonl\"\n";
            assert!(pipeline.contains(path), "{pipeline}");
            pipeline
                .replace(
                    path,
                    &format!("type = \"tcp\"\nlisten = \"127.0.0.1:{port}\"\n"),
                )
                .replace("{ tumbling = \"1m\" }", "\"running\"")
        },
        &["--probation", "700ms"],
    );
    author.until("pipeline followed: http://127.0.0.1:");
    let sensor = Sensor::start(port);
    let before = author.readings_above(20);

    author.edit("src/lib.rs", FAHRENHEIT, "celsius * 1.8 + 52.0,\n");
    let told = author.until("took over in place");
    contains(
        &told,
        &[
            "saved: lib.rs",
            "measured: something else for",
            "then {\"sensor\":\"roof\",\"fahrenheit\":68",
            "now  {\"sensor\":\"roof\",\"fahrenheit\":88",
            "as before on recent rows: in_use, average",
            "to build",
        ],
    );
    author.until("it has held");
    let after = author.readings_above(before);
    let change = author.get("")["changes"]
        .as_array()
        .expect("changes")
        .last()
        .cloned();
    let change = change.expect("one");
    assert_eq!(change["in_place"], true, "{change}");
    assert_eq!(change["outcome"], "held", "{change}");

    // What does not compile, and then what is not what cargo can build.
    author.edit("src/lib.rs", "+ 52.0,\n", "+ nothing,\n");
    let told = author.until("does not build; see above; what runs goes on");
    contains(&told, &["cannot find value `nothing`", "src/lib.rs:"]);
    let after = author.readings_above(after);

    // A state that does not fit.
    author.edit("src/lib.rs", "+ nothing,\n", "+ 52.0,\n");
    author.until("nothing of it changes what runs");
    author.edit("src/lib.rs", "readings", "counted");
    let told = author.until("/api/v1/pipelines/followed/start");
    contains(
        &told,
        &[
            "refused, and what runs goes on:",
            "operator average cannot keep its state",
            "readings",
            "{\"drop\": [\"average\"]}",
        ],
    );
    author.edit("src/lib.rs", "counted", "readings");
    author.until("this is what runs");
    let after = author.readings_above(after);

    // It fails on every row.
    author.edit(
        "src/lib.rs",
        "+ 52.0,\n",
        "+ Option::<f64>::None.expect(\"a bias\"),\n",
    );
    let told = author.until("taken back: ");
    contains(
        &told,
        &[
            "fails: panicked",
            "operator `measured` has failed on",
            "a bias",
        ],
    );
    author.edit(
        "src/lib.rs",
        "Option::<f64>::None.expect(\"a bias\")",
        "52.0",
    );
    author.readings_above(after);

    // The pipeline's own file.
    author.edit(
        "pipeline.toml",
        "plugin = \"followed.in_use\"\n",
        "plugin = \"followed.in_us\"\n",
    );
    contains(&author.until("in_use"), &["refused", "in_us"]);
    drop(sensor);
    author.end();
}

#[test]
fn a_finite_input_is_read_again_after_each_change() {
    let mut author = Author::new("rerun", "mixed", |pipeline| pipeline, &[]);
    let written = fs::read_to_string(author.file("src/lib.rs")).expect("it was made");
    let with = |bias: &str| {
        let now = format!("celsius * 1.8 + {bias},\n");
        assert!(written.contains(FAHRENHEIT));
        written.replace(FAHRENHEIT, &now)
    };
    let told = author.until("the inputs have ended");
    contains(&told, &["8 rows read, 3 written", "1 rejected"]);
    contains(&author.text("rows"), &["51.8"]);

    author.write("src/lib.rs", &with("132.0"));
    let told = author.until("the inputs have ended");
    contains(&told, &["begins anew", "8 rows read, 3 written"]);
    contains(&author.text("rows"), &["151.8"]);

    // It fails: the next change is tried from the beginning all the same.
    author.write("src/lib.rs", &with("Option::<f64>::None.unwrap()"));
    author.until("taken back: operator `measured` has failed on");
    author.write("src/lib.rs", &with("232.0"));
    author.until("begins anew");
    author.until("the inputs have ended");
    contains(&author.text("rows"), &["251.8"]);

    // Many saves, and one more while they are built.
    for bias in 0..20 {
        author.write("src/lib.rs", &with(&format!("{bias}.0")));
        std::thread::sleep(Duration::from_millis(3));
    }
    author.until("saved: lib.rs");
    author.write("src/lib.rs", &with("332.0"));
    // The build of the one before may have read it, and that of the last changes nothing then.
    let effects = ["begins anew", "nothing of it changes what runs"];
    let told = author.until_one_of(&effects) + &author.until_one_of(&effects);
    contains(&told, &["saved: lib.rs"]);
    if !told.contains(effects[1]) {
        author.until("the inputs have ended");
    }
    contains(&author.text("rows"), &["351.8"]);
    assert!(author.text("rows").matches("38.8").count() <= 1, "{told}");

    // The pipeline's own file is taken without a build.
    author.edit(
        "pipeline.toml",
        "plugin = \"rerun.in_use\"\n",
        "plugin = \"rerun.in_use\"\nparameters = { ignored = \"roof\" }\n",
    );
    let told = author.until("the inputs have ended");
    contains(&told, &["saved: pipeline.toml", "begins anew"]);
    assert!(!told.contains("to build"), "{told}");
    author.end();
}

#[test]
fn a_process_is_compared_by_key() {
    let mut author = Author::new("silences", "process", |pipeline| pipeline, &[]);
    author.until("the inputs have ended");
    author.edit(
        "src/lib.rs",
        "                since: at,\n",
        "                since: Timestamp(0),\n",
    );
    let told = author.until("the inputs have ended");
    contains(
        &told,
        &[
            "silence: something else for 3 of 3 keys",
            "{\"sensor\":\"cellar\"}",
            "\"since\":\"1970-01-01T00:00:00Z\"",
            "begins anew",
        ],
    );
    author.end();
}
