//! Parts in folders through the binary: each row is in the folder of its fields, once,
//! whenever the host is killed; and folders are read back as fields.

/// A real host that is killed.
#[path = "common/killed.rs"]
#[expect(dead_code, reason = "no server is killed here")]
mod killed;
/// What a host says.
#[expect(dead_code, reason = "what is told of errors is tested elsewhere")]
#[path = "common/said.rs"]
mod said;
/// Runs that are as long as a test needs them.
#[path = "common/sized.rs"]
mod sized;

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use killed::{host, in_rounds_of, tail};
use said::said;
use sized::rows_for_a_while;
use sluicebox::checkpoint::crash::PLACES;
use tempfile::TempDir;

/// Days in which rows are, and the countries of rows.
const DAYS: i64 = 3;
const COUNTRIES: [&str; 4] = ["de", "a/b", "", "ü"];

const FIELDS: &str = "fields = { id = \"int64\", country = \"utf8\", ts = \"timestamp\" }";

/// A folder with a pipeline that writes rows into folders.
struct Copying {
    folder: TempDir,
}

impl Copying {
    /// With these keys of its sink.
    fn new(head: &str, sink: &str) -> Self {
        let copying = Copying {
            folder: tempfile::tempdir().expect("a temporary folder"),
        };
        let text = format!(
            "name = \"copying\"\n{head}\n[sources.in]\ntype = \"file\"\npath = \"in.jsonl\"\n\
             {FIELDS}\n[sinks.out]\ntype = \"file\"\ninput = \"in\"\n{sink}\n"
        );
        copying.write("pipeline.toml", &text);
        copying
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("it is writable");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn said(&self, command: &str, pipeline: &str) -> (bool, String) {
        let mut host = host();
        host.args([command, pipeline]).current_dir(&self.folder);
        said(&mut host)
    }

    fn run(&self, pipeline: &str) {
        let (is_good, said) = self.said("run", pipeline);
        assert!(is_good, "{said}");
    }

    /// Reads all parts by another pipeline, with their folders as fields: the rows by number.
    fn read_back(&self, format: &str, pattern: &str) -> BTreeMap<i64, (String, String)> {
        let text = format!(
            "name = \"reading\"\n[sources.in]\ntype = \"file\"\npath = \"{pattern}\"\n\
             format = \"{format}\"\nfields = {{ id = \"int64\" }}\n\
             folders = {{ date = \"utf8\", c = \"utf8?\" }}\n\
             [sinks.out]\ntype = \"file\"\npath = \"read.jsonl\"\ninput = \"in\"\n\
             if_exists = \"replace\"\n"
        );
        self.write("reading.toml", &text);
        self.run("reading.toml");
        let text = fs::read_to_string(self.path("read.jsonl")).expect("rows");
        let mut rows = BTreeMap::new();
        for line in text.lines() {
            let row: serde_json::Value = serde_json::from_str(line).expect("JSON");
            let text = |name: &str| row[name].as_str().unwrap_or("null").to_owned();
            let id = row["id"].as_i64().expect("a number");
            let before = rows.insert(id, (text("date"), text("c")));
            assert_eq!(before, None, "{id} came twice");
        }
        rows
    }
}

/// So many rows of a folder follow one another: where few parts are open, each is one.
const ROWS_A_PART: i64 = 50;

fn day(id: i64) -> i64 {
    id / ROWS_A_PART * 7 % DAYS
}

fn country(id: i64) -> &'static str {
    COUNTRIES[(id / ROWS_A_PART * 13 % 4) as usize]
}

fn rows(ids: std::ops::Range<i64>) -> String {
    let row = |id| {
        let (day, country) = (day(id), country(id));
        let second = id % 60;
        format!(
            "{{\"id\":{id},\"country\":\"{country}\",\
             \"ts\":\"2026-01-{:02}T10:00:{second:02}Z\"}}\n",
            day + 30
        )
        .replace("2026-01-32", "2026-02-01")
    };
    ids.map(row).collect()
}

fn expected(ids: std::ops::Range<i64>) -> BTreeMap<i64, (String, String)> {
    let days = ["2026-01-30", "2026-01-31", "2026-02-01"];
    let row = |id| {
        let country = match country(id) {
            "" => "null",
            country => country,
        };
        (id, (days[day(id) as usize].to_owned(), country.to_owned()))
    };
    ids.map(row).collect()
}

/// The files below a folder that are not hidden.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy();
        if name.starts_with('.') {
            continue;
        }
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push(path),
        }
    }
    found.sort();
    found
}

#[test]
fn each_format_is_written_into_folders_and_read_back() {
    for (format, key, extension) in [
        ("json", "", "jsonl"),
        ("json", "compression = \"zstd\"", "jsonl.zst"),
        ("csv", "compression = \"gzip\"", "csv.gz"),
        ("parquet", "", "parquet"),
    ] {
        let sink = format!(
            "path = \"out/date={{ts:%Y-%m-%d}}/c={{country}}/\"\nformat = \"{format}\"\n{key}"
        );
        let copying = Copying::new("", &sink);
        copying.write("in.jsonl", &rows(0..1_000));
        let (is_good, said) = copying.said("check", "pipeline.toml");
        assert!(
            is_good && said.contains("out/date={ts:%Y-%m-%d}/c={country}/"),
            "{said}"
        );
        copying.run("pipeline.toml");
        let found = files(&copying.path("out"));
        assert_eq!(found.len(), 12, "{found:?}");
        let slash = copying.path("out/date=2026-02-01/c=a%2Fb");
        assert!(
            found.iter().any(|path| path.parent() == Some(&slash)),
            "{found:?}"
        );
        let ending = format!(".{extension}");
        assert!(
            found
                .iter()
                .all(|path| path.to_string_lossy().ends_with(&ending)),
            "{found:?}"
        );
        let pattern = format!("out/date=*/c=*/part-*.{extension}");
        assert_eq!(
            copying.read_back(format, &pattern),
            expected(0..1_000),
            "{format}"
        );
    }
}

#[test]
fn nothing_is_lost_or_doubled_by_kills() {
    let formats = [
        (
            "json",
            "roll = { size = \"64KiB\", every = \"1s\" }\ncompression = \"gzip\"",
            "jsonl.gz",
        ),
        ("parquet", "roll = { size = \"64KiB\" }", "parquet"),
        ("csv", "open_parts = 5", "csv"),
    ];
    let copying = |round: usize, count: i64| {
        let (format, keys, _) = formats[round % formats.len()];
        let head = "parallelism = 2\nbatch_rows = 500\n[state]\npath = \"state\"\n[checkpoints]\n\
                    interval = \"50ms\"\n";
        let sink = format!(
            "path = \"out/date={{ts:%Y-%m-%d}}/c={{country}}/\"\nformat = \"{format}\"\n{keys}"
        );
        let copying = Copying::new(head, &sink);
        copying.write("in.jsonl", &rows(0..count));
        copying
    };
    let counts = [0, 1, 2].map(|round| {
        let few = copying(round, 4_000);
        rows_for_a_while(4_000, || few.run("pipeline.toml"))
    });
    let no_server = |_: &str| {};
    in_rounds_of((PLACES.len() + 4, 0), &no_server, |round, kills| {
        let count = counts[round % counts.len()];
        let copying = copying(round, count);
        let log = copying.path("log");
        let done = kills.run(&copying.path("pipeline.toml"), &log);
        let (format, _, extension) = formats[round % formats.len()];
        let pattern = format!("out/date=*/c=*/part-*.{extension}");
        let found = copying.read_back(format, &pattern);
        assert!(
            found == expected(0..count),
            "{} rows of {count}\n{}",
            found.len(),
            tail(&log)
        );
        let hidden = copying.path(&format!("out/.part.{extension}.parts"));
        let left = fs::read_dir(hidden).expect("a folder").count();
        assert_eq!(left, 1, "nothing is left but the list");
        done
    });
}

#[test]
fn a_file_says_which_folder_it_lacks() {
    let copying = Copying::new("", "path = \"out/{country}/\"\nformat = \"csv\"");
    copying.write("in.jsonl", &rows(0..10));
    copying.run("pipeline.toml");
    let text = "name = \"reading\"\n[sources.in]\ntype = \"file\"\npath = \"out/*/*.csv\"\n\
                fields = { id = \"int64\" }\nfolders = { country = \"utf8\" }\n\
                [sinks.out]\ntype = \"blackhole\"\ninput = \"in\"\n";
    copying.write("reading.toml", text);
    let (is_good, said) = copying.said("check", "reading.toml");
    assert!(
        !is_good && said.contains("is in no folder `country=…`"),
        "{said}"
    );
}

/// As for files of other names: rows would be read that are just being written.
#[test]
fn a_pipeline_does_not_read_the_folders_that_it_writes() {
    let copying = Copying::new("", "path = \"out/c={country}/\"\nformat = \"json\"");
    copying.write("in.jsonl", &rows(0..10));
    copying.run("pipeline.toml");
    let text = fs::read_to_string(copying.path("pipeline.toml")).expect("it is there");
    let text = text.replace("in.jsonl", "out/c=*/part-*.jsonl");
    copying.write("pipeline.toml", &text);
    let (is_good, said) = copying.said("check", "pipeline.toml");
    assert!(
        !is_good && said.contains("one file is used twice"),
        "{said}"
    );
}

/// A dead letter that comes again has its folder's fields.
#[test]
fn a_row_that_cannot_be_read_names_its_folder() {
    let copying = Copying::new("", "path = \"unused.jsonl\"");
    let folder = copying.path("rows/k=7");
    fs::create_dir_all(&folder).expect("it is writable");
    fs::write(
        folder.join("a.jsonl"),
        "{\"id\":1}\n{\"id\":\"x\"}\n{\"id\":2}\n",
    )
    .expect("it is");
    let text = "name = \"reading\"\n[sources.in]\ntype = \"file\"\npath = \"rows/k=*/*.jsonl\"\n\
                fields = { id = \"int64\" }\nfolders = { k = \"int64\" }\n\
                [sinks.out]\ntype = \"file\"\npath = \"read.csv\"\ninput = \"in\"\n";
    copying.write("reading.toml", text);
    copying.run("reading.toml");
    let mut read = String::new();
    let mut file = fs::File::open(copying.path("read.csv")).expect("rows");
    file.read_to_string(&mut read).expect("text");
    assert_eq!(read, "id,k\n1,7\n2,7\n");
    let letters = fs::read_to_string(copying.path("reading.dead.jsonl")).expect("a letter");
    assert!(letters.contains("rows/k=7/a.jsonl"), "{letters}");
}
