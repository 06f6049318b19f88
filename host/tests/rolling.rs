//! Numbered files through the binary: each row is in one of them, once, whenever the
//! host is killed; and a pipeline that never ends completes file after file.

/// Signals to a running host.
#[path = "common/signal.rs"]
mod signal;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use parquet::file::reader::SerializedFileReader;
use parquet::record::RowAccessor;
use tempfile::TempDir;

const PIPELINE: &str = r#"
name = "copying"
batch_rows = 2
CHECKPOINTS
[sources.rows]
type = "file"
path = "rows.jsonl"
fields = { n = "int64", text = "utf8" }
[sinks.out]
type = "file"
path = "out.jsonl"
input = "rows"
roll = { size = "4KiB" }
"#;

/// As often as can be, so that a run makes several.
const CHECKPOINTS: &str = "[checkpoints]\nkeep = 999\ninterval = \"10ms\"";

const ROWS: usize = 10_000;

/// A folder in which a pipeline copies rows into numbered files.
struct Copying {
    folder: TempDir,
    rows: usize,
}

impl Copying {
    fn new(checkpoints: &str) -> Self {
        let mut copying = Copying {
            folder: tempfile::tempdir().expect("a temporary folder"),
            rows: 0,
        };
        copying.write(
            "copying.toml",
            &PIPELINE.replace("CHECKPOINTS", checkpoints),
        );
        copying.add_rows(ROWS);
        copying
    }

    fn add_rows(&mut self, count: usize) {
        self.rows += count;
        self.write("rows.jsonl", &rows(self.rows));
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("it is writable");
    }

    fn edit(&self, from: &str, to: &str) {
        let text = fs::read_to_string(self.path("copying.toml")).expect("it is there");
        assert!(text.contains(from), "{text}");
        self.write("copying.toml", &text.replace(from, to));
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sluicebox"));
        command
            .args(["run", "--quiet"])
            .args(arguments)
            .arg("copying.toml")
            .current_dir(&self.folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        signal::not_ignored(&mut command);
        command
    }

    fn run(&self, arguments: &[&str]) -> Result<(), String> {
        let output = self.command(arguments).output().expect("it starts");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        match output.status.code() {
            Some(0) => Ok(()),
            Some(1 | 2) => Err(said),
            other => panic!("{other:?}: {said}"),
        }
    }

    /// Runs the pipeline until it reaches this place. Returns whether it does.
    fn crash(&self, arguments: &[&str], place: &str) -> bool {
        let mut command = self.command(arguments);
        let output = command.env("SLUICEBOX_CRASH_AT", place).output();
        let output = output.expect("it starts");
        let said = String::from_utf8_lossy(&output.stderr);
        match output.status.code() {
            Some(0) => false,
            None => true,
            other => panic!("{other:?} {place} {arguments:?}: {said}"),
        }
    }

    /// The sink's files that are not empty.
    fn files(&self) -> BTreeMap<String, String> {
        let entries = fs::read_dir(&self.folder).expect("a folder");
        let files = entries.filter_map(|entry| {
            let path = entry.ok()?.path();
            let name = path.file_name()?.to_str()?.to_owned();
            let text = name
                .starts_with("out")
                .then(|| fs::read_to_string(path).ok())??;
            Some((name, text)).filter(|(_, text)| !text.is_empty())
        });
        files.collect()
    }

    /// The list of the files that were written.
    fn list(&self, file: &str) -> String {
        let list = self.path(&format!(".{file}.written"));
        fs::read_to_string(list).unwrap_or_default()
    }

    /// Adds files that are gone to the list, until it has so many lines.
    fn lengthen_list(&self, file: &str, lines: usize) {
        let mut list = self.list(file);
        for number in 900_000 + list.lines().count()..900_000 + lines {
            list += &format!("copying {number} 1:1\n");
        }
        self.write(&format!(".{file}.written"), &list);
    }

    /// The rows of the Parquet files, one for each checkpoint, in the order of these.
    fn parquet_rows(&self) -> Vec<i64> {
        let entries = fs::read_dir(&self.folder).expect("a folder");
        let mut files: Vec<(u64, PathBuf)> = entries
            .filter_map(|entry| {
                let path = entry.ok()?.path();
                let number = path.file_name()?.to_str()?.strip_prefix("out-")?;
                let number = number.strip_suffix(".parquet")?.parse().ok()?;
                Some((number, path))
            })
            .collect();
        files.sort();
        let rows = files.into_iter().flat_map(|(_, path)| {
            let file = File::open(path).expect("it is there");
            let reader = SerializedFileReader::new(file).expect("it is whole");
            reader
                .into_iter()
                .map(|row| row.and_then(|row| row.get_long(0)).expect("a number"))
        });
        rows.collect()
    }

    /// Each row is in a file that has its name, once and in its place.
    fn expect_rows(&self, when: &str) {
        let files = self.files();
        let names = Vec::from_iter(files.keys());
        for (index, name) in names.iter().enumerate() {
            assert_eq!(**name, format!("out-{:06}.jsonl", index + 1), "{when}");
        }
        let found: String = files.into_values().collect();
        assert!(found == rows(self.rows), "{when}: other rows");
    }
}

fn rows(count: usize) -> String {
    let row = |n: usize| format!("{{\"n\":{n},\"text\":\"{}\"}}\n", "x".repeat(n % 30));
    (0..count).map(row).collect()
}

/// Where a pipeline without transactions can crash.
const PLACES: [&str; 8] = [
    "barrier_before",
    "barrier_after",
    "snapshot_after",
    "write_before",
    "manifest_before",
    "manifest_after",
    "deliver_before",
    "deliver_after",
];

#[test]
fn a_run_that_is_killed_anywhere_loses_and_doubles_nothing() {
    let mut crashes = 0;
    for place in PLACES {
        let mut copying = Copying::new(CHECKPOINTS);
        for nth in [3, 1] {
            let at = format!("{place}:{nth}");
            crashes += usize::from(copying.crash(&[], &at));
        }
        copying.run(&[]).expect("it goes on");
        copying.expect_rows(place);
        copying.add_rows(500);
        copying.run(&[]).expect("it goes on");
        copying.expect_rows(place);
    }
    // The first one may come too late for a run.
    assert!(crashes >= PLACES.len(), "only {crashes} crashes");
}

/// What a start may be asked for.
const STARTS: [&[&str]; 3] = [
    &["--from", "2"],
    &["--drop", "out", "--drop", "rows"],
    &["--fresh"],
];

/// Lines of files that are gone leave the list of those that were written when it has 1,000
/// lines: here, while files come.
#[test]
fn a_list_that_is_shortened_while_files_come_loses_none_of_them() {
    for (file, place) in [
        ("out.parquet", "snapshot_after"),
        ("out.parquet", "manifest_before"),
        ("out.parquet", "deliver_before"),
        ("out.jsonl", "deliver_before"),
    ] {
        let mut copying = Copying::new(CHECKPOINTS);
        if file == "out.parquet" {
            copying.edit("roll = { size = \"4KiB\" }", "");
            copying.edit("out.jsonl", file);
        }
        for (lines_left, nth) in [(1, 3), (2, 2)] {
            copying.lengthen_list(file, 1_000 - lines_left);
            copying.crash(&[], &format!("{place}:{nth}"));
        }
        for lines_left in [1, 2] {
            copying.lengthen_list(file, 1_000 - lines_left);
            let ended = copying.run(&[]);
            ended.unwrap_or_else(|said| panic!("{file} {place}: {said}"));
            match file {
                "out.parquet" => {
                    let expected: Vec<i64> = (0..copying.rows as i64).collect();
                    assert!(copying.parquet_rows() == expected, "{place}: other rows");
                }
                _ => copying.expect_rows(place),
            }
            copying.add_rows(500);
        }
        let lines = copying.list(file).lines().count();
        assert!(lines < 900, "{file} {place}: {lines} lines");
    }
}

#[test]
fn a_start_that_is_killed_before_its_checkpoint_changes_nothing() {
    for arguments in STARTS {
        for place in ["barrier_after", "write_before", "manifest_before"] {
            let mut copying = Copying::new(CHECKPOINTS);
            copying.edit("roll =", "if_exists = \"replace\"\nroll =");
            copying.run(&[]).expect("it runs");
            let before = copying.files();
            let when = format!("{arguments:?} {place}");
            assert!(copying.crash(arguments, place), "{when}");
            assert!(copying.files() == before, "{when}");
            copying.expect_rows(&when);
            copying.add_rows(500);
            copying.run(&[]).expect("it goes on");
            copying.expect_rows(&when);
        }
    }
}

#[test]
fn a_start_that_is_killed_behind_its_checkpoint_goes_on() {
    for arguments in STARTS {
        for place in [
            "manifest_after",
            "deliver_before",
            "deliver_after",
            "barrier_after:3",
        ] {
            let copying = Copying::new(CHECKPOINTS);
            copying.edit("roll =", "if_exists = \"replace\"\nroll =");
            copying.run(&[]).expect("it runs");
            let when = format!("{arguments:?} {place}");
            copying.crash(arguments, place);
            copying.run(&[]).expect("it goes on");
            copying.run(&[]).expect("it goes on");
            copying.expect_rows(&when);
        }
    }
}

#[test]
fn files_of_an_earlier_run_are_refused_replaced_or_followed() {
    for checkpoints in ["", CHECKPOINTS] {
        let copying = Copying::new(checkpoints);
        copying.run(&[]).expect("it runs");
        copying.expect_rows("the first run");
        let arguments: &[&str] = match checkpoints {
            "" => &[],
            _ => &["--fresh"],
        };
        let before = copying.files();
        let said = copying.run(arguments).expect_err("files are there");
        assert!(said.contains("this run does not go on from it"), "{said}");
        assert!(copying.files() == before);
        copying.edit("roll =", "if_exists = \"replace\"\nroll =");
        copying.run(arguments).expect("it may");
        copying.expect_rows("they are replaced");
        copying.edit("\"replace\"", "\"append\"");
        copying.run(arguments).expect("it may");
        let found: String = copying.files().into_values().collect();
        assert!(found == rows(ROWS).repeat(2), "both runs' rows");
        assert_eq!(copying.files().len(), 2 * before.len());
    }
}

#[test]
fn a_sink_that_begins_or_stops_to_roll_is_another_one() {
    let copying = Copying::new(CHECKPOINTS);
    copying.run(&[]).expect("it runs");
    copying.edit("roll = { size = \"4KiB\" }", "");
    let said = copying.run(&[]).expect_err("other files");
    let expected = "its file was out-*.jsonl and is now out.jsonl";
    assert!(said.contains(expected), "{said}");
}

/// Waits until this file is there.
const ORDERED: &str = r#"
name = "copying"
parallelism = 4
[checkpoints]
interval = "20ms"
[sources.rows]
type = "file"
path = "in-*.jsonl"
fields = { k = "utf8", ts = "int64" }
event_time = "ts"
watermark = { out_of_orderness = "2s" }
[operators.ordered]
order = "event_time"
key = "k"
input = "rows"
[sinks.out]
type = "file"
path = "out.jsonl"
input = "ordered"
roll = { size = "4KiB" }
"#;

/// Sources end one after the other when a run is stopped, and none of that moves time: what
/// the last checkpoint has is not written behind it.
#[test]
fn a_run_that_is_stopped_writes_nothing_behind_its_last_checkpoint() {
    for attempt in 0..4 {
        let copying = Copying::new("");
        copying.write("copying.toml", ORDERED);
        let mut expected = Vec::new();
        for file in 0..5 {
            let row = |n: usize| format!("{{\"k\":\"{file}-{}\",\"ts\":{}}}", n % 7, n * 10 + file);
            let rows: Vec<String> = (0..4_000).map(row).collect();
            copying.write(&format!("in-{file}.jsonl"), &(rows.join("\n") + "\n"));
            expected.extend(rows);
        }
        let mut host = copying.command(&[]).spawn().expect("it starts");
        let began = Instant::now();
        while copying.files().len() < 2 + attempt && began.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(1));
        }
        signal::send(&host, libc::SIGTERM);
        assert_eq!(host.wait().expect("it is ours").code(), Some(0));
        copying.run(&[]).unwrap_or_else(|said| panic!("{said}"));
        let found: String = copying.files().into_values().collect();
        let mut found: Vec<&str> = found.lines().collect();
        found.sort_unstable();
        expected.sort_unstable();
        assert!(
            found == expected,
            "{} of {} rows",
            found.len(),
            expected.len()
        );
    }
}

fn wait_for(copying: &Copying, name: &str, host: &mut Child) {
    let until = Instant::now() + Duration::from_secs(60);
    while !copying.path(name).exists() {
        assert!(host.try_wait().expect("it is our child").is_none());
        assert!(Instant::now() < until, "no {name}: {:?}", copying.files());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_pipeline_that_never_ends_completes_its_files_although_no_row_comes() {
    for checkpoints in ["", CHECKPOINTS] {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound").to_string();
        drop(listener);
        let copying = Copying::new(checkpoints);
        copying.edit(
            "type = \"file\"\npath = \"rows.jsonl\"",
            &format!("type = \"tcp\"\nlisten = \"{address}\""),
        );
        copying.edit("size = \"4KiB\"", "every = \"1s\"");
        let mut host = copying.command(&[]).spawn().expect("it starts");
        let until = Instant::now() + Duration::from_secs(60);
        let mut client = loop {
            match TcpStream::connect(&address) {
                Ok(client) => break client,
                Err(error) => assert!(Instant::now() < until, "{error}"),
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        let row = |n| format!("{{\"n\":{n},\"text\":\"\"}}\n");
        for n in [1, 2] {
            client.write_all(row(n).as_bytes()).expect("it is read");
            let name = format!("out-00000{n}.jsonl");
            wait_for(&copying, &name, &mut host);
            assert_eq!(copying.files()[&name], row(n));
        }
        client.write_all(row(3).as_bytes()).expect("it is read");
        while !copying.files().keys().any(|name| name.contains("-000003.")) {
            assert!(Instant::now() < until, "{:?}", copying.files());
            std::thread::sleep(Duration::from_millis(5));
        }
        signal::send(&host, libc::SIGINT);
        let output = host.wait_with_output().expect("it is our child");
        let said = String::from_utf8_lossy(&output.stderr);
        // The last one has its name, too: the next run goes on with another.
        let names = Vec::from_iter(copying.files().into_keys());
        let numbered = [1, 2, 3].map(|n| format!("out-00000{n}.jsonl"));
        assert_eq!(names, numbered, "{said}");
        let entries = fs::read_dir(&copying.folder).expect("a folder");
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let parts: Vec<String> = names.filter(|name| name.ends_with(".part")).collect();
        assert!(parts.is_empty(), "{parts:?}");
    }
}
