//! Parts in an object store, through the binary and a real server: each row is in one of
//! them, once, whenever the host is killed, and nothing is left of uploads that were killed.

/// Tests that may be ignored.
#[macro_use]
#[path = "common/harness.rs"]
mod harness;
/// A real host that is killed.
#[expect(dead_code, reason = "the server is never killed here")]
#[path = "common/killed.rs"]
mod killed;
/// A real server.
#[path = "common/s3.rs"]
mod s3;
/// Runs that are as long as a test needs them.
#[path = "common/sized.rs"]
mod sized;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use harness::Outcome;
use killed::{host, in_rounds_of, tail};
use s3::{Server, server};
use sized::rows_for_a_while;
use sluicebox::checkpoint::crash::PLACES;
use tempfile::TempDir;

tests![
    each_format_becomes_objects_in_folders,
    large_parts_are_sent_in_pieces,
    objects_of_an_earlier_run_are_refused_replaced_or_followed,
    an_older_checkpoint_takes_back_what_came_behind_it,
    what_is_wrong_is_told,
    a_store_that_is_slow_is_waited_for,
    an_upload_that_somebody_aborts_is_told,
    objects_are_read_back_with_their_folders,
    what_becomes_of_objects_between_runs_is_not_silent,
    nothing_is_lost_or_doubled_by_kills,
    nothing_is_lost_or_read_twice_by_kills,
];

const KEYS: i64 = 3;

/// A bucket, and a folder with a pipeline that writes to it.
struct Case<'a> {
    server: &'a Server,
    folder: TempDir,
    bucket: &'static str,
}

impl<'a> Case<'a> {
    /// Reads objects by these keys of a source, and writes `out.jsonl`.
    fn reading(server: &'a Server, bucket: &'static str, head: &str, source: &str) -> Self {
        let case = Case {
            server,
            folder: tempfile::tempdir().expect("a temporary folder"),
            bucket,
        };
        let text = format!(
            "name = \"reading\"\n{head}\n[sources.in]\ntype = \"file\"\n{source}\n{}\
             [sinks.out]\ntype = \"file\"\ninput = \"in\"\npath = \"out.jsonl\"\n",
            case.options("sources.in")
        );
        fs::write(case.pipeline(), text).expect("it is writable");
        case
    }

    fn options(&self, of: &str) -> String {
        let address = self.server.address();
        format!(
            "[{of}.options]\nendpoint = \"http://{address}\"\nallow_http = true\n\
             region = \"us-east-1\"\naws_access_key_id = {{ env = \"SHOP_KEY\" }}\n\
             aws_secret_access_key = {{ env = \"SHOP_SECRET\" }}\n"
        )
    }

    /// Makes an object.
    fn put(&self, key: &str, bytes: &[u8]) {
        let file = self.folder.path().join("object");
        fs::write(&file, bytes).expect("it is writable");
        let file = file.to_str().expect("text");
        self.server.client(&["put", self.bucket, key, file]);
    }

    /// The rows that were read.
    fn read(&self) -> String {
        fs::read_to_string(self.folder.path().join("out.jsonl")).expect("rows")
    }

    /// With this head, and these keys of the sink.
    fn new(server: &'a Server, bucket: &'static str, head: &str, sink: &str) -> Self {
        server.client(&["bucket", bucket]);
        let case = Case {
            server,
            folder: tempfile::tempdir().expect("a temporary folder"),
            bucket,
        };
        let text = format!(
            "name = \"copying\"\n{head}\n[sources.in]\ntype = \"file\"\npath = \"in.jsonl\"\n\
             fields = {{ id = \"int64\", key = \"int64\", text = \"utf8\" }}\n\
             [sinks.out]\ntype = \"file\"\ninput = \"in\"\n{sink}\n{}",
            case.options("sinks.out")
        );
        fs::write(case.pipeline(), text).expect("it is writable");
        case
    }

    /// The environment of a host that is killed is that of the test.
    fn has_credentials(&self) {
        let key = format!("\"{}\"", self.server.key);
        let secret = format!("\"{}\"", self.server.secret);
        self.edit("{ env = \"SHOP_KEY\" }", &key);
        self.edit("{ env = \"SHOP_SECRET\" }", &secret);
    }

    fn pipeline(&self) -> PathBuf {
        self.folder.path().join("pipeline.toml")
    }

    fn edit(&self, from: &str, to: &str) {
        let text = fs::read_to_string(self.pipeline()).expect("it is there");
        assert!(text.contains(from), "{text}");
        fs::write(self.pipeline(), text.replace(from, to)).expect("it is writable");
    }

    fn input(&self, ids: std::ops::Range<i64>, bytes: usize) {
        let text = "x".repeat(bytes);
        let row = |id| {
            format!(
                "{{\"id\":{id},\"key\":{},\"text\":\"{text}\"}}\n",
                id % KEYS
            )
        };
        let rows: String = ids.map(row).collect();
        fs::write(self.folder.path().join("in.jsonl"), rows).expect("it is writable");
    }

    fn said(&self, arguments: &[&str]) -> (bool, String) {
        let output = host()
            .args(arguments)
            .arg(self.pipeline())
            .env("SHOP_KEY", &self.server.key)
            .env("SHOP_SECRET", &self.server.secret)
            .output()
            .expect("the host runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!said.contains(&self.server.secret), "{said}");
        (output.status.success(), said)
    }

    fn run(&self, arguments: &[&str]) {
        let all = [&["run", "--quiet"], arguments].concat();
        let (is_good, said) = self.said(&all);
        assert!(is_good, "{said}");
    }

    fn fail(&self) -> String {
        let (is_good, said) = self.said(&["run", "--quiet"]);
        assert!(!is_good, "{said}");
        said
    }

    /// All objects, by their keys.
    fn objects(&self) -> BTreeMap<String, Vec<u8>> {
        let to = tempfile::tempdir().expect("a temporary folder");
        let path = to.path().to_str().expect("text");
        self.server.client(&["get", self.bucket, path]);
        let mut objects = BTreeMap::new();
        let mut folders = vec![to.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).expect("a folder") {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let key = path.strip_prefix(&to).expect("it is in there");
                let key = key.to_str().expect("text").to_owned();
                objects.insert(key, fs::read(path).expect("it is there"));
            }
        }
        objects
    }

    /// The rows of objects with JSON lines, each of which is in the folder of its key.
    fn ids(&self) -> Vec<i64> {
        let mut ids = Vec::new();
        for (key, bytes) in self.objects() {
            let bytes = match key.ends_with(".zst") {
                true => zstd::decode_all(&*bytes).expect("it is whole"),
                false => bytes,
            };
            let text = String::from_utf8(bytes).expect("text");
            for line in text.lines() {
                let row: serde_json::Value = serde_json::from_str(line).expect("JSON");
                assert!(
                    key.contains(&format!("key={}/part-", row["key"])),
                    "{key}: {line}"
                );
                ids.push(row["id"].as_i64().expect("a number"));
            }
        }
        ids.sort_unstable();
        ids
    }

    fn expect_ids(&self, expected: std::ops::Range<i64>) {
        let ids = self.ids();
        assert!(ids.iter().copied().eq(expected), "{} rows", ids.len());
        self.expect_no_upload();
    }

    fn expect_no_upload(&self) {
        let uploads = self.server.client(&["uploads", self.bucket]);
        assert_eq!(uploads, "", "no upload is left");
    }
}

const CHECKPOINTS: &str = "batch_rows = 100\n[state]\npath = \"state\"\n[checkpoints]\n\
                           keep = 999\ninterval = \"100ms\"\n[restart]\nstrategy = \"never\"\n";

fn path(bucket: &str, format: &str) -> String {
    format!("path = \"s3://{bucket}/lake/key={{key}}/\"\nformat = \"{format}\"\n")
}

fn each_format_becomes_objects_in_folders() -> Outcome {
    let server = server()?;
    for (bucket, format, key, extension) in [
        ("shop-json", "json", "compression = \"zstd\"", "jsonl.zst"),
        ("shop-csv", "csv", "", "csv"),
        ("shop-parquet", "parquet", "", "parquet"),
    ] {
        let sink = format!("{}{key}", path(bucket, format));
        let case = Case::new(server, bucket, "", &sink);
        case.input(0..300, 5);
        case.run(&[]);
        let objects = case.objects();
        let names: Vec<String> = objects.keys().cloned().collect();
        let expected = [1, 2, 3]
            .map(|number| format!("lake/key={}/part-00000{number}.{extension}", number - 1));
        assert_eq!(names, expected);
        match format {
            "json" => case.expect_ids(0..300),
            "csv" => {
                let texts = objects
                    .into_values()
                    .map(|it| String::from_utf8(it).expect("text"));
                let lines: usize = texts.map(|it| it.lines().count() - 1).sum();
                assert_eq!(lines, 300);
            }
            _ => assert!(objects.values().all(|bytes| bytes.ends_with(b"PAR1"))),
        }
    }
    // Without fields, all parts are in one place.
    let sink = "path = \"s3://shop-flat/a/rows.jsonl\"";
    let case = Case::new(server, "shop-flat", "", sink);
    case.input(0..10, 5);
    case.run(&[]);
    assert_eq!(
        Vec::from_iter(case.objects().into_keys()),
        ["a/rows-000001.jsonl"]
    );
    Ok(())
}

fn large_parts_are_sent_in_pieces() -> Outcome {
    let server = server()?;
    let sink = format!(
        "{}roll = {{ size = \"20MiB\" }}",
        path("shop-large", "json")
    );
    let case = Case::new(server, "shop-large", "", &sink);
    case.input(0..75_000, 1_000);
    case.run(&[]);
    case.expect_ids(0..75_000);
    let objects = case.objects();
    let largest = objects.values().map(Vec::len).max().expect("an object");
    assert!((20 << 20..21 << 20).contains(&largest), "{largest}");
    Ok(())
}

fn objects_of_an_earlier_run_are_refused_replaced_or_followed() -> Outcome {
    let server = server()?;
    let case = Case::new(server, "shop-again", "", &path("shop-again", "json"));
    case.input(0..30, 5);
    case.run(&[]);
    let said = case.fail();
    assert!(
        said.contains("part-000001.jsonl in s3://shop-again"),
        "{said}"
    );
    assert!(said.contains("this run does not go on from it"), "{said}");
    case.edit("input = \"in\"", "input = \"in\"\nif_exists = \"append\"");
    case.input(30..60, 5);
    case.run(&[]);
    case.expect_ids(0..60);
    case.edit("\"append\"", "\"replace\"");
    case.input(7..20, 5);
    case.run(&[]);
    case.expect_ids(7..20);
    Ok(())
}

fn an_older_checkpoint_takes_back_what_came_behind_it() -> Outcome {
    let server = server()?;
    let case = Case::new(
        server,
        "shop-older",
        CHECKPOINTS,
        &path("shop-older", "json"),
    );
    case.input(0..3_000, 5);
    case.run(&[]);
    case.expect_ids(0..3_000);
    case.run(&["--from", "1"]);
    case.expect_ids(0..3_000);
    case.input(0..4_000, 5);
    case.run(&[]);
    case.expect_ids(0..4_000);
    Ok(())
}

fn what_is_wrong_is_told() -> Outcome {
    let server = server()?;
    let case = Case::new(server, "shop-wrong", "", &path("shop-wrong", "json"));
    case.input(0..10, 5);
    let with = |from: &str, to: &str, expected: &str| {
        case.edit(from, to);
        let said = case.fail();
        assert!(said.contains(expected), "{to}: {said}");
        case.edit(to, from);
    };
    with(
        "s3://shop-wrong/",
        "s3://shop-none/",
        "there is no such bucket",
    );
    let secret = |name: &str| format!("secret_access_key = {{ env = \"{name}\" }}");
    let (right, wrong) = (secret("SHOP_SECRET"), secret("SHOP_PASSWORD"));
    with(&right, &wrong, "correct AWS_SECRET_ACCESS_KEY");
    with("SHOP_KEY", "SHOP_PASSWORD", "correct AWS_ACCESS_KEY_ID");
    with(
        "allow_http = true",
        "allow_http = false",
        "allow it with `allow_http",
    );
    with("region =", "regoin =", "`regoin` is not an option of S3");
    with("s3://shop-wrong/lake", "s3://", "cannot write to");
    case.run(&[]);
    case.expect_ids(0..10);
    Ok(())
}

fn a_store_that_is_slow_is_waited_for() -> Outcome {
    let server = server()?;
    let case = Case::new(server, "shop-slow", CHECKPOINTS, &path("shop-slow", "json"));
    case.input(0..20_000, 5);
    std::thread::scope(|scope| {
        let run = scope.spawn(|| case.run(&[]));
        for _ in 0..3 {
            std::thread::sleep(Duration::from_millis(300));
            server.call("freeze");
            std::thread::sleep(Duration::from_millis(700));
            server.call("thaw");
        }
        run.join().expect("it goes on");
    });
    case.expect_ids(0..20_000);
    Ok(())
}

/// As by a rule of the bucket, while the host is down.
fn an_upload_that_somebody_aborts_is_told() -> Outcome {
    let server = server()?;
    let sink = format!(
        "{}roll = {{ size = \"4KiB\" }}\n",
        path("shop-abort", "json")
    );
    let case = Case::new(server, "shop-abort", CHECKPOINTS, &sink);
    // It has one part for each key, which the next run may complete again.
    case.input(0..30, 5);
    case.run(&[]);
    case.input(0..3_000, 5);
    let output = host()
        .args(["run", "--quiet"])
        .arg(case.pipeline())
        .env("SHOP_KEY", &server.key)
        .env("SHOP_SECRET", &server.secret)
        .env("SLUICEBOX_CRASH_AT", "commit_before:4")
        .output()
        .expect("the host starts");
    assert_eq!(output.status.code(), None, "it was killed");
    assert_ne!(server.client(&["uploads", case.bucket]), "");
    server.client(&["abort", case.bucket]);
    let said = case.fail();
    assert!(said.contains("its upload is gone"), "{said}");
    case.run(&["--from", "1"]);
    case.expect_ids(0..3_000);
    Ok(())
}

fn nothing_is_lost_or_doubled_by_kills() -> Outcome {
    let server = server()?;
    let few = to_be_killed(server, "shop-few", 4_000);
    let count = rows_for_a_while(4_000, || few.run(&[]));
    // What it has is gone when it is killed, so only the host is.
    let no_kill = |_: &str| {};
    in_rounds_of((PLACES.len() + 4, 0), &no_kill, |round, kills| {
        let bucket = format!("shop-kill-{round}").leak();
        let case = to_be_killed(server, bucket, count);
        let log = case.folder.path().join("log");
        let done = kills.run(&case.pipeline(), &log);
        let ids = case.ids();
        assert!(
            ids.iter().copied().eq(0..count),
            "{} rows of {count}\n{}",
            ids.len(),
            tail(&log)
        );
        case.expect_no_upload();
        done
    });
    Ok(())
}

fn to_be_killed<'a>(server: &'a Server, bucket: &'static str, count: i64) -> Case<'a> {
    let sink = format!(
        "{}roll = {{ size = \"100KiB\" }}\ncompression = \"zstd\"",
        path(bucket, "json")
    );
    let head = CHECKPOINTS.replace("batch_rows = 100", "batch_rows = 500\nparallelism = 2");
    let case = Case::new(server, bucket, &head, &sink);
    case.has_credentials();
    case.input(0..count, 20);
    case
}

fn objects_are_read_back_with_their_folders() -> Outcome {
    let server = server()?;
    for (bucket, format, key, extension) in [
        (
            "shop-back-json",
            "json",
            "compression = \"gzip\"",
            "jsonl.gz",
        ),
        (
            "shop-back-csv",
            "csv",
            "csv = { delimiter = \"\\t\" }",
            "csv",
        ),
        ("shop-back-parquet", "parquet", "", "parquet"),
    ] {
        let writing = Case::new(
            server,
            bucket,
            "",
            &format!("{}{key}", path(bucket, format)),
        );
        writing.input(0..5_000, 5);
        writing.run(&[]);
        let csv = match format {
            "csv" => "csv = { delimiter = \"\\t\" }\n",
            _ => "",
        };
        let source = format!(
            "path = \"s3://{bucket}/lake/key=*/part-*.{extension}\"\nformat = \"{format}\"\n{csv}\
             fields = {{ id = \"int64\" }}\nfolders = {{ key = \"int64\" }}\n"
        );
        let reading = Case::reading(server, bucket, "", &source);
        reading.run(&[]);
        let by_key = (0..KEYS).flat_map(|key| (0..5_000).filter(move |id| id % KEYS == key));
        let row = |id| format!("{{\"id\":{id},\"key\":{}}}\n", id % KEYS);
        let expected: String = by_key.map(row).collect();
        assert!(
            reading.read() == expected,
            "{format}: {}",
            reading.read().len()
        );
    }
    Ok(())
}

const ROW: &str = "fields = { id = \"int64\" }\n";

fn rows(ids: std::ops::Range<i64>) -> String {
    ids.map(|id| format!("{{\"id\":{id}}}\n")).collect()
}

fn what_becomes_of_objects_between_runs_is_not_silent() -> Outcome {
    let server = server()?;
    let source = format!("path = \"s3://shop-later/a/*.jsonl\"\n{ROW}");
    let case = Case::reading(server, "shop-later", CHECKPOINTS, &source);
    server.client(&["bucket", case.bucket]);
    let said = case.fail();
    assert!(
        said.contains("no object matches `s3://shop-later/a/*.jsonl`"),
        "{said}"
    );
    case.put("a/2.jsonl", rows(0..100).as_bytes());
    case.put("a/other.txt", b"no rows");
    case.put("a/below/3.jsonl", b"no rows");
    case.run(&[]);
    assert_eq!(case.read(), rows(0..100));
    // One that is new is read, whatever its name; one that is gone was read.
    case.put("a/1.jsonl", rows(100..200).as_bytes());
    server.client(&["delete", case.bucket, "a/2.jsonl"]);
    case.run(&[]);
    assert_eq!(case.read(), rows(0..200));
    case.run(&[]);
    assert_eq!(case.read(), rows(0..200));
    case.put("a/1.jsonl", rows(7..9).as_bytes());
    let said = case.fail();
    assert!(
        said.contains("s3://shop-later/a/1.jsonl is another object"),
        "{said}"
    );
    case.run(&["--drop", "in/s3://shop-later/a/1.jsonl"]);
    assert_eq!(case.read(), rows(0..200) + &rows(7..9));
    case.put("a/9.jsonl", b"{\"id\":1}\n{\"id\":\"x\"}\n");
    case.run(&[]);
    let letters = fs::read_to_string(case.folder.path().join("reading.dead.jsonl"));
    let letters = letters.expect("a letter");
    assert!(letters.contains("s3://shop-later/a/9.jsonl"), "{letters}");
    Ok(())
}

fn nothing_is_lost_or_read_twice_by_kills() -> Outcome {
    const OBJECTS: i64 = 20;
    let server = server()?;
    let source = |bucket: &str| format!("path = \"s3://{bucket}/*.jsonl.zst\"\n{ROW}");
    let head = CHECKPOINTS.replace("100ms", "20ms");
    let reading = |bucket| {
        let case = Case::reading(server, bucket, &head, &source(bucket));
        case.has_credentials();
        case
    };
    let fill = |case: &Case<'_>, count: i64| {
        server.client(&["bucket", case.bucket]);
        let mut arguments = vec!["put".to_owned(), case.bucket.to_owned()];
        for number in 0..OBJECTS {
            let text = rows(number * count / OBJECTS..(number + 1) * count / OBJECTS);
            let bytes = zstd::encode_all(text.as_bytes(), 1).expect("it is compressed");
            let key = format!("{number:03}.jsonl.zst");
            let file = case.folder.path().join(&key);
            fs::write(&file, bytes).expect("it is writable");
            arguments.extend([key, file.display().to_string()]);
        }
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        server.client(&arguments);
    };
    let few = reading("shop-source-few");
    fill(&few, 4_000);
    let count = rows_for_a_while(4_000, || few.run(&[]));
    fill(&reading("shop-source"), count);
    let no_kill = |_: &str| {};
    in_rounds_of((PLACES.len() + 4, 0), &no_kill, |_, kills| {
        let case = reading("shop-source");
        let log = case.folder.path().join("log");
        let done = kills.run(&case.pipeline(), &log);
        assert!(case.read() == rows(0..count), "{}", tail(&log));
        done
    });
    Ok(())
}
