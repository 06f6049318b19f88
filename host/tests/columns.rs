//! Sources of Parquet through the binary: each row is read once, whenever the host is killed,
//! and a file that is not the one any more that was read is refused.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

const PIPELINE: &str = r#"
name = "columns"
batch_rows = 100
parallelism = 2
[checkpoints]
interval = "10ms"
keep = 999
[sources.rows]
type = "file"
path = "in/*.parquet"
fields = { n = "int64", text = "utf8" }
[sinks.out]
type = "file"
path = "out.jsonl"
input = "rows"
roll = { size = "16KiB" }
"#;

/// Makes a file of Parquet of what is in `rows.jsonl`.
const MAKING: &str = r#"
name = "making"
[sources.rows]
type = "file"
path = "rows.jsonl"
fields = { n = "int64", text = "utf8", more = "float64" }
[sinks.out]
type = "file"
path = "made.parquet"
input = "rows"
"#;

const ROWS: usize = 4_000;

struct Columns {
    folder: TempDir,
}

impl Columns {
    fn new() -> Self {
        let columns = Columns {
            folder: tempfile::tempdir().expect("a temporary folder"),
        };
        fs::create_dir(columns.path("in")).expect("a folder");
        columns.write("columns.toml", PIPELINE);
        columns.write("making.toml", MAKING);
        columns
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("it is writable");
    }

    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.path(from), self.path(to)).expect("it is there");
    }

    /// A file with these rows.
    fn make(&self, name: &str, rows: std::ops::Range<usize>) {
        let row = |n| format!("{{\"n\":{n},\"text\":\"t{n}\",\"more\":0.5}}\n");
        self.write("rows.jsonl", &rows.map(row).collect::<String>());
        let (code, said) = self.run("making.toml", &[], None);
        assert_eq!(code, Some(0), "{said}");
        self.rename("made.parquet", &format!("in/{name}.parquet"));
    }

    fn run(
        &self,
        pipeline: &str,
        arguments: &[&str],
        crash: Option<&str>,
    ) -> (Option<i32>, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sluicebox"));
        command
            .args(["run", "--quiet"])
            .args(arguments)
            .arg(pipeline)
            .current_dir(&self.folder)
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        if let Some(place) = crash {
            command.env("SLUICEBOX_CRASH_AT", place);
        }
        let Output { status, stderr, .. } = command.output().expect("it starts");
        (status.code(), String::from_utf8_lossy(&stderr).into_owned())
    }

    fn refused(&self, expected: &str) {
        let (code, said) = self.run("columns.toml", &[], None);
        assert_eq!(code, Some(1), "{said}");
        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(said.contains(expected), "{said}");
    }

    /// All rows below this number were written, each once.
    fn expect(&self, count: usize) {
        let (code, said) = self.run("columns.toml", &[], None);
        assert_eq!(code, Some(0), "{said}");
        let entries = fs::read_dir(&self.folder).expect("a folder");
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let names = names.filter(|name| name.starts_with("out"));
        let text: String = names
            .map(|name| fs::read_to_string(self.path(&name)).expect("text"))
            .collect();
        let mut found: Vec<&str> = text.lines().collect();
        found.sort_unstable();
        let mut expected: Vec<String> = (0..count)
            .map(|n| format!("{{\"n\":{n},\"text\":\"t{n}\"}}"))
            .collect();
        expected.sort_unstable();
        assert!(found == expected, "{} of {count} rows", found.len());
    }
}

#[test]
fn rows_are_read_once_wherever_the_host_is_killed() {
    let columns = Columns::new();
    let places = [
        "barrier_after",
        "write_before",
        "manifest_after",
        "deliver_before",
    ];
    for (file, place) in places.into_iter().enumerate() {
        // There is something to read, however fast the rest was.
        columns.make(&format!("{file}"), file * ROWS..(file + 1) * ROWS);
        let mut kills = 0;
        for nth in [1, 2, 3] {
            let place = format!("{place}:{nth}");
            let (code, said) = columns.run("columns.toml", &[], Some(&place));
            assert!(code.is_none() || code == Some(0), "{place}: {said}");
            kills += usize::from(code.is_none());
        }
        assert!(kills > 0, "not killed at {place}");
    }
    columns.expect(places.len() * ROWS);
}

#[test]
fn a_file_is_known_by_its_end_whatever_its_name() {
    let columns = Columns::new();
    columns.make("a", 0..ROWS);
    columns.make("b", ROWS..2 * ROWS);
    columns.expect(2 * ROWS);
    columns.rename("in/a.parquet", "in/z.parquet");
    columns.expect(2 * ROWS);
    // A copy of one that is gone may be read already, and another file of its name is new.
    fs::copy(columns.path("in/z.parquet"), columns.path("kept")).expect("a copy");
    fs::remove_file(columns.path("in/z.parquet")).expect("it is there");
    columns.expect(2 * ROWS);
    fs::copy(columns.path("kept"), columns.path("in/c.parquet")).expect("a copy");
    columns.refused("begins with the 4000 rows that were read of");
    columns.rename("in/c.parquet", "in/z.parquet");
    columns.expect(2 * ROWS);
    columns.make("b", 5 * ROWS..6 * ROWS);
    columns.refused("in/b.parquet is another file than the one of which 4000 rows were read");
    let (code, said) = columns.run("columns.toml", &["--drop", "rows/in/b.parquet"], None);
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn what_does_not_fit_is_told_before_anything_runs() {
    let columns = Columns::new();
    columns.make("a", 0..10);
    let check = |from: &str, to: &str, expected: &str| {
        assert!(PIPELINE.contains(from), "{from}");
        columns.write("columns.toml", &PIPELINE.replace(from, to));
        let (code, said) = columns.run("columns.toml", &[], None);
        assert_eq!(code, Some(2), "{said}");
        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(said.contains(expected), "{said}");
    };
    check(
        "n = \"int64\"",
        "n = \"int32\"",
        "`n` is int32 in `fields`, and int64 in the file",
    );
    check(
        "n = \"int64\"",
        "m = \"int64\"",
        "`m` is not in the file: it has `n`, `text`, `more`",
    );
    check(
        "n = \"int64\"",
        "n = \"timestamp(s)\"",
        "times have no other format",
    );
    check(
        "path = \"in/",
        "follow = true\npath = \"in/",
        "follows files of Parquet",
    );
    check(
        "path = \"in/",
        "compression = \"gzip\"\npath = \"in/",
        "has a `compression`",
    );
    check(
        "in/*.parquet\"",
        "-\"\nformat = \"parquet\"",
        "reads Parquet from a pipe",
    );
    check(
        "path = \"in/",
        "csv = { header = true }\npath = \"in/",
        "its format is parquet",
    );
    columns.write("in/b.parquet", "text");
    check(
        "keep = 999",
        "keep = 99",
        "in/b.parquet: it is no Parquet file",
    );
}
