//! What lies under a sink's path is never lost, unless the pipeline says so.

/// Signals to a running host.
#[path = "common/signal.rs"]
mod signal;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

const SOURCE: &str = r#"
name = "copying"
[sources.rows]
type = "file"
path = "rows.jsonl"
fields = { n = "int64" }
"#;

/// A folder in which a pipeline copies rows.
struct Copying(TempDir);

impl Copying {
    /// `sink` is the rest of the sink's table.
    fn new(sink: &str) -> Self {
        let copying = Copying(tempfile::tempdir().expect("a temporary folder"));
        copying.write("rows.jsonl", "{\"n\":1}\n{\"n\":2}\n");
        copying.plan("", sink);
        copying
    }

    fn plan(&self, tables: &str, sink: &str) {
        let sink = format!("[sinks.out]\ntype = \"file\"\ninput = \"rows\"\n{sink}\n");
        self.write("copying.toml", &format!("{SOURCE}{tables}\n{sink}"));
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("it is writable");
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sluicebox"));
        command
            .args(["run", "--quiet", "copying.toml"])
            .current_dir(&self.0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        signal::not_ignored(&mut command);
        command
    }

    /// What a run prints, to stdout or as its error.
    fn run(&self) -> Result<String, String> {
        let output = self.command().output().expect("it starts");
        match output.status.code() {
            Some(0) => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
            Some(1 | 2) => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
            other => panic!("{other:?}"),
        }
    }

    fn refuse(&self, expected: &str) {
        let said = self.run().expect_err("it is refused");
        assert!(said.contains(expected), "{said}");
    }
}

const ROWS: &str = "{\"n\":1}\n{\"n\":2}\n";

#[test]
fn a_file_that_is_there_stays_unless_the_pipeline_says_so() {
    let copying = Copying::new("path = \"out.jsonl\"");
    copying.write("out.jsonl", "precious\n");
    copying.refuse("is there, and this run does not go on from it");
    assert_eq!(copying.read("out.jsonl"), "precious\n");

    copying.plan("", "path = \"out.jsonl\"\nif_exists = \"append\"");
    copying.run().expect("it may");
    assert_eq!(copying.read("out.jsonl"), format!("precious\n{ROWS}"));

    copying.plan("", "path = \"out.jsonl\"\nif_exists = \"replace\"");
    copying.run().expect("it may");
    assert_eq!(copying.read("out.jsonl"), ROWS);
}

#[test]
fn a_header_is_not_repeated_in_a_file_that_is_appended_to() {
    let copying = Copying::new("path = \"out.csv\"\nif_exists = \"append\"");
    copying.run().expect("it runs");
    copying.run().expect("it runs");
    assert_eq!(copying.read("out.csv"), "n\n1\n2\n1\n2\n");
}

#[test]
fn a_part_is_no_input_of_the_pipeline_that_writes_it() {
    let copying = Copying::new("path = \"rows\"\nformat = \"json\"");
    copying.write("rows.part", ROWS);
    let text = copying
        .read("copying.toml")
        .replace("rows.jsonl", "rows.part");
    copying.write(
        "copying.toml",
        &text.replace(
            "type = \"file\"\npath",
            "type = \"file\"\nformat = \"json\"\npath",
        ),
    );
    copying.refuse("one file is used twice");
    assert_eq!(copying.read("rows.part"), ROWS);
}

#[test]
fn a_link_stays_a_link() {
    let copying = Copying::new("path = \"link.jsonl\"\nif_exists = \"replace\"");
    copying.write("target.jsonl", "old\n");
    std::os::unix::fs::symlink("target.jsonl", copying.path("link.jsonl")).expect("a link");
    copying.run().expect("it runs");
    assert!(copying.path("link.jsonl").is_symlink());
    assert_eq!(copying.read("target.jsonl"), ROWS);
}

/// What the folder has under these names, links as links.
fn links(copying: &Copying, names: &[&str]) -> Vec<bool> {
    let names = names.iter();
    names.map(|name| copying.path(name).is_symlink()).collect()
}

#[test]
fn a_link_to_what_is_not_there_yet_is_followed() {
    for tables in ["", "[checkpoints]"] {
        for name in ["out.jsonl", "folder/out.jsonl"] {
            let copying = Copying::new("");
            copying.plan(tables, &format!("path = \"{name}\""));
            symlink("deep/er/real.jsonl", copying.path("one"));
            symlink("one", copying.path("out.jsonl"));
            symlink("deep", copying.path("folder"));
            copying.run().expect("it runs");
            let kept = links(&copying, &["one", "out.jsonl", "folder"]);
            assert_eq!(kept, [true; 3], "{name}");
            let real = match name {
                "out.jsonl" => "deep/er/real.jsonl",
                _ => "deep/out.jsonl",
            };
            assert_eq!(copying.read(real), ROWS);
            if !tables.is_empty() {
                copying.run().expect("it goes on");
                assert_eq!(copying.read(real), ROWS);
            }
        }
    }
}

#[test]
fn links_in_a_circle_are_refused_and_kept() {
    for (tables, sink) in [
        ("", "path = \"out.jsonl\""),
        (
            "[checkpoints]",
            "path = \"out.jsonl\"\nif_exists = \"replace\"",
        ),
        ("", "path = \"out.jsonl\"\nformat = \"parquet\""),
    ] {
        let copying = Copying::new("");
        copying.plan(tables, sink);
        symlink("two", copying.path("out.jsonl"));
        symlink("out.jsonl", copying.path("two"));
        copying.refuse("lead in a circle");
        assert_eq!(links(&copying, &["out.jsonl", "two"]), [true; 2], "{sink}");
    }
}

#[test]
fn dead_letters_go_through_a_link_to_what_is_not_there_yet() {
    let copying = Copying::new("path = \"out.jsonl\"");
    copying.write("rows.jsonl", "{\"n\":1}\nbroken\n");
    symlink("deep/dead.jsonl", copying.path("copying.dead.jsonl"));
    copying.run().expect("it runs");
    assert_eq!(links(&copying, &["copying.dead.jsonl"]), [true]);
    assert_eq!(copying.read("deep/dead.jsonl").lines().count(), 1);

    fs::remove_file(copying.path("copying.dead.jsonl")).expect("it is there");
    symlink("copying.dead.jsonl", copying.path("copying.dead.jsonl"));
    fs::remove_file(copying.path("out.jsonl")).expect("it is there");
    copying.refuse("lead in a circle");
}

/// Nor one that a pattern finds once it is there.
#[test]
fn two_do_not_use_one_file_that_links_lead_to() {
    let other = |path: &str| {
        format!("path = \"out.jsonl\"\n[sinks.other]\ntype = \"file\"\ninput = \"rows\"\n{path}")
    };
    let dead = "dead_letters = \"other.jsonl\"";
    for (head, sink) in [
        ("", other("path = \"other.jsonl\"")),
        ("", other("path = \"deep/real.jsonl\"")),
        (
            "",
            other("path = \"deep/real.jsonl.part\"\nformat = \"json\""),
        ),
        (dead, other("path = \"else.jsonl\"")),
    ] {
        let copying = Copying::new("");
        copying.plan("", &sink);
        let text = copying.read("copying.toml");
        copying.write("copying.toml", &format!("{head}\n{text}"));
        symlink("deep/real.jsonl", copying.path("out.jsonl"));
        symlink("deep/real.jsonl", copying.path("other.jsonl"));
        copying.refuse("one file is used twice");
    }
    for (link, file, sink) in [
        ("rows-2.jsonl", "else.jsonl", "rows-2.jsonl"),
        ("rows-2.jsonl", "else.jsonl", "else.jsonl"),
    ] {
        let copying = Copying::new(&format!("path = \"{sink}\"\nif_exists = \"append\""));
        let text = copying.read("copying.toml");
        copying.write("copying.toml", &text.replace("rows.jsonl", "rows*.jsonl"));
        symlink(file, copying.path(link));
        copying.refuse("one file is used twice");
        assert!(!copying.path(file).exists());
    }
}

/// A link with a numbered file's name is not replaced.
#[test]
fn numbered_files_do_not_take_the_place_of_links() {
    let copying = Copying::new("");
    copying.plan(
        "",
        "path = \"out.jsonl\"\nif_exists = \"append\"\nroll = { size = \"1KiB\" }",
    );
    symlink("deep/real.jsonl", copying.path("out-000001.jsonl"));
    copying.run().expect("it goes on behind the link");
    assert_eq!(links(&copying, &["out-000001.jsonl"]), [true]);
    assert_eq!(copying.read("out-000002.jsonl"), ROWS);

    let copying = Copying::new("");
    copying.plan("[checkpoints]", "path = \"out.parquet\"");
    for number in 1..4 {
        let link = copying.path(&format!("out-{number}.parquet"));
        symlink("deep/real.parquet", link);
    }
    copying.refuse("called like the numbered files");
    assert_eq!(links(&copying, &["out-2.parquet"]), [true]);
    assert!(!copying.path("deep").exists());
}

#[test]
fn a_link_to_standard_output_is_written_through() {
    let copying = Copying::new("path = \"out.jsonl\"");
    symlink("/dev/stdout", copying.path("out.jsonl"));
    assert_eq!(copying.run().expect("it runs"), ROWS);
    let printed = copying.path("printed");
    let file = File::create(&printed).expect("it is writable");
    let ran = copying.command().stdout(file).status().expect("it starts");
    assert!(ran.success());
    assert_eq!(copying.read("printed"), ROWS);
    assert_eq!(links(&copying, &["out.jsonl"]), [true]);
    let (ours, theirs) = UnixStream::pair().expect("a socket");
    let host = copying.command().stdout(OwnedFd::from(theirs)).spawn();
    let mut text = String::new();
    let mut ours = ours;
    ours.read_to_string(&mut text).expect("text");
    assert!(
        host.expect("it starts")
            .wait()
            .expect("our child")
            .success()
    );
    assert_eq!(text, ROWS);
}

fn symlink(to: &str, link: PathBuf) {
    std::os::unix::fs::symlink(to, link).expect("a link");
}

#[test]
fn devices_and_pipes_are_written_through() {
    let copying = Copying::new("path = \"/dev/null\"\nformat = \"json\"");
    copying.run().expect("it runs");
    assert!(!Path::new("/dev/null.part").exists());
    assert!(!fs::metadata("/dev/null").expect("it is there").is_file());

    copying.plan("", "path = \"-\"\nformat = \"json\"");
    assert_eq!(copying.run().expect("it runs"), ROWS);

    let fifo = copying.path("fifo");
    let made = Command::new("mkfifo").arg(&fifo).status().expect("a FIFO");
    assert!(made.success());
    copying.plan("", "path = \"fifo\"\nformat = \"json\"");
    let host = copying.command().spawn().expect("it starts");
    let mut text = String::new();
    let mut reader = File::open(&fifo).expect("it is there");
    reader.read_to_string(&mut text).expect("text");
    let output = host.wait_with_output().expect("it is our child");
    assert!(output.status.success());
    assert_eq!(text, ROWS);
}

/// Rows that keep coming.
const ENDLESS: &str = r#"
name = "copying"
[sources.rows]
type = "generator"
rate = 200
"#;

/// Waits until the part of a running host's file has rows.
fn wait_for_rows(part: &Path) {
    let until = Instant::now() + Duration::from_secs(60);
    while fs::metadata(part).map_or(0, |part| part.len()) == 0 {
        assert!(Instant::now() < until, "no rows in {}", part.display());
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn two_runs_do_not_write_one_file() {
    let copying = Copying::new("path = \"out.jsonl\"\nif_exists = \"replace\"");
    let text = copying.read("copying.toml").replace(SOURCE, ENDLESS);
    copying.write("copying.toml", &text);
    let mut first = copying.command().spawn().expect("it starts");
    wait_for_rows(&copying.path("out.jsonl.part"));
    copying.refuse("another run is writing it");
    first.kill().expect("it runs");
    first.wait().expect("it is our child");
}

#[test]
fn a_run_that_is_stopped_does_not_replace_a_complete_file() {
    let copying = Copying::new("path = \"out.jsonl\"\nif_exists = \"replace\"");
    copying.write("out.jsonl", "of the run before\n");
    let text = copying.read("copying.toml").replace(SOURCE, ENDLESS);
    copying.write("copying.toml", &text);
    let host = copying.command().spawn().expect("it starts");
    // Buffered rows are written although time does not advance.
    wait_for_rows(&copying.path("out.jsonl.part"));
    signal::send(&host, libc::SIGINT);
    let output = host.wait_with_output().expect("it is our child");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("the rows so far are in"), "{said}");
    assert_eq!(copying.read("out.jsonl"), "of the run before\n");
    assert!(copying.read("out.jsonl.part").starts_with('{'));
}

#[test]
fn a_file_that_is_not_the_checkpoints_is_left_alone() {
    let copying = Copying::new("");
    copying.plan("[checkpoints]", "path = \"out.jsonl\"");
    copying.run().expect("it runs");
    assert_eq!(copying.read("out.jsonl"), ROWS);
    copying.run().expect("it goes on from its end");
    assert_eq!(copying.read("out.jsonl"), ROWS);
    let other = "{\"n\":8}\n{\"n\":9}\nand more\n";
    copying.write("out.jsonl", other);
    copying.refuse("is not the file of the checkpoint");
    assert_eq!(copying.read("out.jsonl"), other);
}

#[test]
fn what_others_append_to_a_finished_file_is_not_cut_off() {
    let copying = Copying::new("");
    let append = "path = \"out.jsonl\"\nif_exists = \"append\"";
    copying.plan("[checkpoints]", append);
    copying.run().expect("it runs");
    let longer = format!("{ROWS}precious\n");
    copying.write("out.jsonl", &longer);
    copying.refuse("when this pipeline finished it");
    assert_eq!(copying.read("out.jsonl"), longer);
    let dropped = copying.command().args(["--drop", "out"]).status();
    assert!(dropped.expect("it starts").success());
    assert_eq!(copying.read("out.jsonl"), longer);
}

/// Without checkpoints, nobody knows whether another run can write its rows again.
#[test]
fn a_part_that_is_all_there_is_of_a_file_is_not_written_over() {
    for exists in ["fail", "append"] {
        let sink = format!("path = \"out.jsonl\"\nif_exists = \"{exists}\"");
        let copying = Copying::new(&sink);
        copying.write("out.jsonl.part", "precious\n");
        copying.refuse("with rows of a run that did not end");
        assert_eq!(copying.read("out.jsonl.part"), "precious\n");
        copying.plan("", "path = \"out.jsonl\"\nif_exists = \"replace\"");
        copying.run().expect("it may");
        assert_eq!(copying.read("out.jsonl"), ROWS);
    }
}

#[test]
fn parts_of_an_earlier_life_are_not_mixed_with_new_ones() {
    let copying = Copying::new("");
    copying.plan("[checkpoints]", "path = \"out.parquet\"");
    copying.run().expect("it runs");
    let parts = |copying: &Copying| {
        let entries = fs::read_dir(&copying.0).expect("a folder");
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut names: Vec<String> = names.filter(|name| name.ends_with(".parquet")).collect();
        names.sort();
        names
    };
    let before = parts(&copying);
    assert_eq!(before.len(), 1, "{before:?}");
    let bytes = fs::read(copying.path(&before[0])).expect("a file");
    fs::remove_dir_all(copying.path("copying.state")).expect("state");
    copying.refuse("this run does not go on from it");
    assert_eq!(fs::read(copying.path(&before[0])).expect("a file"), bytes);
    copying.plan(
        "[checkpoints]",
        "path = \"out.parquet\"\nif_exists = \"replace\"",
    );
    copying.run().expect("it may");
    assert_eq!(parts(&copying).len(), 1);
}

#[test]
fn rows_come_to_a_pipe_at_once() {
    let copying = Copying::new("path = \"-\"\nformat = \"json\"");
    let text = copying.read("copying.toml").replace(SOURCE, ENDLESS);
    copying.write("copying.toml", &text);
    let mut host = copying.command().spawn().expect("it starts");
    let mut first = [0; 1];
    let mut stdout = host.stdout.take().expect("a pipe");
    stdout.read_exact(&mut first).expect("a row");
    assert_eq!(&first, b"{");
    host.kill().expect("it runs");
    host.wait().expect("it is our child");
}

#[test]
fn a_name_that_is_not_utf8_is_a_file_like_others() {
    let copying = Copying::new("path = \"out.jsonl\"");
    let text = copying.read("copying.toml");
    copying.write("copying.toml", &text.replace("rows.jsonl", "rows*.jsonl"));
    let name = OsStr::from_bytes(b"rows\xe9.jsonl");
    fs::write(copying.0.path().join(name), "{\"n\":3}\n").expect("it is writable");
    copying.run().expect("it runs");
    assert_eq!(copying.read("out.jsonl").lines().count(), 3);
}

#[test]
fn rows_are_appended_below_a_line_without_an_end() {
    let copying = Copying::new("path = \"out.jsonl\"\nif_exists = \"append\"");
    copying.write("out.jsonl", "{\"n\":0}");
    copying.run().expect("it may");
    assert_eq!(copying.read("out.jsonl"), format!("{{\"n\":0}}\n{ROWS}"));
}

/// Its rows would be cut, or read again as they are written.
#[test]
fn a_file_is_not_written_under_another_name_than_it_is_read() {
    for (source, link, if_exists) in [
        ("rows.jsonl", "out.jsonl", "append"),
        ("rows.jsonl", "out.jsonl", "replace"),
        ("rows.jsonl", "out.jsonl", "fail"),
        ("rows.jsonl", "out.jsonl.part", "append"),
        ("rows.jsonl", "out.jsonl.part", "replace"),
        ("ro*.jsonl", "out.jsonl", "append"),
        ("rows.jsonl", "copying.dead.jsonl", "append"),
    ] {
        let copying = Copying::new("");
        let sink = format!("path = \"out.jsonl\"\nif_exists = \"{if_exists}\"");
        copying.plan("[checkpoints]", &sink);
        let text = copying.read("copying.toml");
        copying.write("copying.toml", &text.replace("rows.jsonl", source));
        fs::hard_link(copying.path("rows.jsonl"), copying.path(link)).expect("a link");
        copying.refuse("one file is used twice");
        copying.refuse(", linked to");
        assert_eq!(copying.read("rows.jsonl"), ROWS);
        fs::remove_file(copying.path(link)).expect("it is there");
        fs::hard_link(copying.path("rows.jsonl"), copying.path("elsewhere")).expect("a link");
        copying.run().expect("nobody uses the other name");
    }
}

/// Killed anywhere, also while it is copied.
#[test]
fn a_file_to_which_rows_are_appended_is_there_until_it_is_replaced() {
    for place in [
        "barrier_after",
        "write_before",
        "manifest_after",
        "deliver_before",
    ] {
        for time in 1..4 {
            let copying = Copying::new("");
            copying.plan(
                "[checkpoints]",
                "path = \"out.jsonl\"\nif_exists = \"append\"",
            );
            copying.write("out.jsonl", "precious\n");
            let killed = copying
                .command()
                .env("SLUICEBOX_CRASH_AT", format!("{place}:{time}"))
                .status()
                .expect("it starts");
            let there = copying.read("out.jsonl");
            let whole = format!("precious\n{ROWS}");
            assert!(there == "precious\n" || there == whole, "{there}");
            assert!(!killed.success() || there == whole);
            copying.run().expect("it goes on");
            assert_eq!(copying.read("out.jsonl"), whole, "{place}:{time}");
            assert!(!copying.path("out.jsonl.part").exists());
        }
    }
}

#[test]
fn it_is_said_which_of_two_files_is_finished() {
    for checkpoints in ["", "[checkpoints]"] {
        let copying = Copying::new("");
        copying.plan(checkpoints, "path = \"out.jsonl\"\nif_exists = \"append\"");
        copying.write("out.jsonl", "finished\n");
        copying.write("out.jsonl.part", "other\n");
        copying.refuse("out.jsonl is finished, and ");
        copying.refuse("delete ");
        assert_eq!(copying.read("out.jsonl"), "finished\n");
        assert_eq!(copying.read("out.jsonl.part"), "other\n");
    }
}

/// Only the part has the rows of the checkpoint.
#[test]
fn a_run_without_checkpoints_does_not_write_over_what_one_with_has_appended() {
    let copying = Copying::new("");
    let append = "path = \"out.jsonl\"\nif_exists = \"append\"";
    copying.plan("[checkpoints]", append);
    copying.write("out.jsonl", "precious\n");
    let killed = copying
        .command()
        .env("SLUICEBOX_CRASH_AT", "deliver_before:2")
        .status();
    assert!(!killed.expect("it starts").success());
    let whole = format!("precious\n{ROWS}");
    assert_eq!(copying.read("out.jsonl.part"), whole);
    copying.plan("", append);
    copying.refuse("which are not in the other");
    assert_eq!(copying.read("out.jsonl.part"), whole);
    copying.plan("[checkpoints]", append);
    copying.run().expect("it goes on");
    assert_eq!(copying.read("out.jsonl"), whole);
}

/// As when an archive takes files that were read.
#[test]
fn files_that_were_read_to_their_ends_may_be_gone() {
    let copying = Copying::new("");
    copying.plan("[checkpoints]", "path = \"out.jsonl\"");
    let text = copying.read("copying.toml");
    copying.write("copying.toml", &text.replace("rows.jsonl", "rows*.jsonl"));
    copying.run().expect("it runs");
    fs::remove_file(copying.path("rows.jsonl")).expect("it is there");
    let output = copying.command().output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(
        said.contains("rows.jsonl, which was read to its end, is not"),
        "{said}"
    );
    assert!(said.contains("matches `rows*.jsonl` (any more)"), "{said}");
    copying
        .run()
        .expect("the checkpoint has forgotten the file");
    assert_eq!(copying.read("out.jsonl"), ROWS);
    copying.write("rows-2.jsonl", "{\"n\":3}\n");
    copying.run().expect("it reads what is new");
    assert_eq!(copying.read("out.jsonl"), format!("{ROWS}{{\"n\":3}}\n"));

    // A run that starts anew needs files.
    for file in ["rows-2.jsonl", "out.jsonl"] {
        fs::remove_file(copying.path(file)).expect("it is there");
    }
    let fresh = copying
        .command()
        .arg("--fresh")
        .output()
        .expect("it starts");
    assert_eq!(fresh.status.code(), Some(1));
    let said = String::from_utf8_lossy(&fresh.stderr);
    assert!(said.contains("matches `rows*.jsonl`"), "{said}");
}

#[test]
fn a_file_that_was_not_read_to_its_end_may_not_be_gone() {
    let copying = Copying::new("");
    copying.plan("[checkpoints]", "path = \"out.jsonl\"");
    let text = copying.read("copying.toml");
    copying.write("copying.toml", &text.replace("rows.jsonl", "rows*.jsonl"));
    // After the checkpoint before the first row.
    let killed = copying
        .command()
        .env("SLUICEBOX_CRASH_AT", "deliver_after:1")
        .status();
    assert!(!killed.expect("it starts").success());
    fs::remove_file(copying.path("rows.jsonl")).expect("it is there");
    copying.refuse("the checkpoint had read rows.jsonl up to byte 0");
}

/// Whatever happens between runs and to them, lines that the user wrote stay, and so do
/// the rows of every run that has ended well.
#[test]
fn no_sequence_of_runs_loses_a_line() {
    let (mut ended, mut refused) = (0, 0);
    for seed in 0..80 {
        let mut random = fastrand::Rng::with_seed(seed);
        let copying = Copying::new("path = \"out.jsonl\"");
        let mut kept: BTreeMap<String, usize> = BTreeMap::new();
        let mut story = Vec::new();
        for step in 0..10 {
            let mut ended_well = false;
            match random.u8(0..8) {
                0 => {
                    let files = ["out.jsonl", "out-000001.jsonl", "out-000002.jsonl"];
                    let file = files[random.usize(0..files.len())];
                    let line = format!("{{\"precious\":{step}}}\n");
                    let text = fs::read_to_string(copying.path(file)).unwrap_or_default();
                    copying.write(file, &format!("{text}{line}"));
                    *kept.entry(line.trim_end().to_owned()).or_default() += 1;
                    story.push(format!("the user writes to {file}"));
                }
                1 => {
                    let more = format!("{}{{\"n\":{}}}\n", copying.read("rows.jsonl"), step + 3);
                    copying.write("rows.jsonl", &more);
                    story.push("there is another row".to_owned());
                }
                2 | 3 => {
                    let checkpoints = ["", "[checkpoints]"][random.usize(0..2)];
                    let exists = ["fail", "append"][random.usize(0..2)];
                    let roll = ["", "roll = { size = \"1KiB\" }"][random.usize(0..2)];
                    let sink = format!("path = \"out.jsonl\"\nif_exists = \"{exists}\"\n{roll}");
                    copying.plan(checkpoints, &sink);
                    story.push(format!("{checkpoints} {exists} {roll}"));
                }
                _ => {
                    let arguments: &[&str] = match random.u8(0..5) {
                        0 => &["--fresh"],
                        1 => &["--drop", "out"],
                        _ => &[],
                    };
                    let places = [
                        "barrier_after",
                        "write_before",
                        "manifest_after",
                        "deliver_before",
                        "deliver_after",
                    ];
                    let place = places[random.usize(0..places.len())];
                    let place = format!("{place}:{}", random.u8(1..3));
                    let crashes = random.u8(0..3) == 0;
                    let output = copying
                        .command()
                        .args(arguments)
                        .env("SLUICEBOX_CRASH_AT", if crashes { &place } else { "" })
                        .output()
                        .expect("it starts");
                    let said = String::from_utf8_lossy(&output.stderr);
                    let said = said.lines().last().unwrap_or_default();
                    story.push(format!("run {arguments:?}: {:?} {said}", output.status));
                    ended_well = output.status.success();
                    match output.status.code() {
                        Some(0) => ended += 1,
                        Some(1 | 2) => refused += 1,
                        None if crashes => {}
                        _ => panic!("seed {seed}: {story:#?}"),
                    }
                }
            }
            let now = lines(&copying);
            let mut lost = kept.iter();
            let lost = lost.find(|(line, count)| now.get(*line).unwrap_or(&0) < *count);
            assert_eq!(lost, None, "seed {seed}: {story:#?}");
            if ended_well {
                kept = now;
            }
        }
    }
    // Otherwise it would test little.
    assert!(
        ended > 80 && refused > 40,
        "{ended} ended, {refused} refused"
    );
}

/// The lines of all files that a sink may write, and how often each is there.
fn lines(copying: &Copying) -> BTreeMap<String, usize> {
    let mut lines = BTreeMap::new();
    for entry in fs::read_dir(&copying.0).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("out") {
            let text = fs::read_to_string(&path).expect("text");
            for line in text.lines() {
                *lines.entry(line.to_owned()).or_default() += 1;
            }
        }
    }
    lines
}
