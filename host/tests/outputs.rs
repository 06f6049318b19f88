//! A file that has its name is whole, and stays as it is until the next whole one takes
//! its place: whether a run ends, is stopped or is killed.

/// Signals to a running host.
#[path = "common/signal.rs"]
mod signal;

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use flate2::read::MultiGzDecoder;
use parquet::file::reader::SerializedFileReader;
use parquet::record::RowAccessor;
use tempfile::TempDir;

/// Copies the rows of a file, and goes on until its standard input ends.
const SOURCES: &str = r#"
name = "copying"
[sources.rows]
type = "file"
path = "rows.jsonl"
fields = { n = "int64" }
[sources.open]
type = "file"
path = "-"
format = "json"
fields = { n = "int64" }
[sinks.out]
type = "file"
input = ["rows", "open"]
"#;

const CHECKPOINTS: &str = "[checkpoints]\ninterval = \"20ms\"\n";

/// A few restarts, where there are checkpoints.
const RESTART: &str = "[restart]\nstrategy = \"fixed\"\ndelay = \"1ms\"\nfailures = 2\n";

/// A folder with a pipeline, and the file that it writes.
struct Copying {
    folder: TempDir,
    file: String,
    /// How many rows there are to copy.
    rows: usize,
}

/// How a run is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Finished,
    CtrlC,
    Terminated,
    Killed,
}

impl Copying {
    /// `tables` come behind the rest of the sink's table.
    fn new(file: &str, if_exists: &str, tables: &str) -> Self {
        let copying = Copying {
            folder: tempfile::tempdir().expect("a temporary folder"),
            file: file.to_owned(),
            rows: 0,
        };
        let sink = format!("path = \"{file}\"\nif_exists = \"{if_exists}\"\n");
        let text = format!("{SOURCES}{sink}{tables}");
        fs::write(copying.path("copying.toml"), text).expect("it is writable");
        copying
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn whole(&self) -> PathBuf {
        self.path(&self.file)
    }

    fn part(&self) -> PathBuf {
        self.path(&format!("{}.part", self.file))
    }

    fn add_rows(&mut self, more: usize) {
        self.rows += more;
        let rows: String = (1..=self.rows).map(row).collect();
        fs::write(self.path("rows.jsonl"), rows).expect("it is writable");
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sluicebox"));
        command
            .args(["run", "--quiet", "copying.toml"])
            .current_dir(&self.folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        signal::not_ignored(&mut command);
        command
    }

    fn start(&self) -> Child {
        self.command().spawn().expect("it starts")
    }

    /// A run that all rows come from.
    fn run(&self) -> Output {
        end(self.start(), End::Finished)
    }

    fn finish(&self) {
        let output = self.run();
        assert!(output.status.success(), "{}", said(&output));
    }

    fn refuse(&self, expected: &str) {
        let output = self.run();
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        assert!(said(&output).contains(expected), "{}", said(&output));
    }

    /// A run that is ended when all rows are in the part.
    fn end_by(&self, how: End) -> Output {
        let host = self.start();
        self.wait_for_rows();
        end(host, how)
    }

    fn wait_for_rows(&self) {
        let last = row(self.rows);
        let until = Instant::now() + Duration::from_secs(60);
        while !fs::read_to_string(self.part()).is_ok_and(|text| text.ends_with(&last)) {
            assert!(Instant::now() < until, "no rows in {}", self.file);
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn row(n: usize) -> String {
    format!("{{\"n\":{n}}}\n")
}

fn rows(numbers: std::ops::RangeInclusive<usize>) -> String {
    numbers.map(row).collect()
}

fn end(mut host: Child, how: End) -> Output {
    match how {
        End::Finished => drop(host.stdin.take()),
        End::CtrlC => signal::send(&host, libc::SIGINT),
        End::Terminated => signal::send(&host, libc::SIGTERM),
        End::Killed => signal::send(&host, libc::SIGKILL),
    }
    // Its standard input stays open until it has ended.
    let input = host.stdin.take();
    let output = host.wait_with_output().expect("it is our child");
    drop(input);
    output
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn stopping_is_not_finishing() {
    for how in [End::CtrlC, End::Terminated] {
        for tables in ["", CHECKPOINTS] {
            for if_exists in ["fail", "replace", "append"] {
                let what = format!("{how:?} {tables} {if_exists}");
                let mut copying = Copying::new("out.jsonl", if_exists, tables);
                copying.add_rows(3);
                let mut old = String::new();
                if if_exists != "fail" {
                    old = row(0);
                    fs::write(copying.whole(), &old).expect("it is writable");
                }
                let kept = if if_exists == "append" { &old } else { "" };
                for stops in 1..3 {
                    let output = copying.end_by(how);
                    assert!(output.status.success(), "{what}: {}", said(&output));
                    let there = fs::read_to_string(copying.whole()).unwrap_or_default();
                    assert_eq!(there, old, "{what}");
                    let expected = format!("{kept}{}", rows(1..=copying.rows));
                    assert_eq!(read(&copying.part()), expected, "{what}");
                    if tables.is_empty() {
                        break;
                    }
                    copying.add_rows(stops);
                }
                if tables.is_empty() && if_exists != "replace" {
                    copying.refuse("out.jsonl.part");
                    continue;
                }
                copying.finish();
                let expected = format!("{kept}{}", rows(1..=copying.rows));
                assert_eq!(read(&copying.whole()), expected, "{what}");
                assert!(!copying.part().exists(), "{what}");
            }
        }
    }
}

#[test]
fn a_finished_file_has_its_name_until_the_next_whole_one() {
    for if_exists in ["fail", "replace", "append"] {
        for how in [End::Finished, End::CtrlC, End::Killed] {
            let what = format!("{if_exists} {how:?}");
            let mut copying = Copying::new("out.jsonl", if_exists, CHECKPOINTS);
            copying.add_rows(2);
            copying.finish();
            let before = rows(1..=2);
            assert_eq!(read(&copying.whole()), before, "{what}");
            copying.add_rows(3);
            let host = copying.start();
            copying.wait_for_rows();
            assert_eq!(read(&copying.whole()), before, "{what}");
            let output = end(host, how);
            if how != End::Finished {
                assert_eq!(read(&copying.whole()), before, "{what}: {}", said(&output));
                copying.finish();
            }
            assert_eq!(read(&copying.whole()), rows(1..=5), "{what}");
            assert!(!copying.part().exists(), "{what}");
        }
    }
}

/// It is not even copied: that takes time and room.
#[test]
fn a_finished_file_to_which_no_row_comes_stays() {
    for if_exists in ["fail", "replace", "append"] {
        let mut copying = Copying::new("out.jsonl", if_exists, CHECKPOINTS);
        copying.add_rows(2);
        copying.finish();
        let changed = || fs::metadata(copying.whole()).and_then(|found| found.modified());
        let before = changed().expect("it is there");
        copying.finish();
        assert_eq!(changed().expect("it is there"), before);
        assert_eq!(read(&copying.whole()), rows(1..=2));
        assert!(!copying.part().exists());
    }
}

/// Of numbered files.
const ROLL: &str = "roll = { size = \"1KiB\" }\n";

#[test]
fn what_has_the_temporary_name_of_a_finished_numbered_file_stays() {
    for (file, roll) in [
        ("out.jsonl", ROLL),
        ("out.csv", ROLL),
        ("out.jsonl.gz", ROLL),
        ("out.parquet", ""),
    ] {
        for if_exists in ["fail", "replace", "append"] {
            if roll.is_empty() && if_exists == "append" {
                continue;
            }
            for more in [0, 3] {
                let what = format!("{file} {if_exists} {more}");
                let mut copying = Copying::new(file, if_exists, &format!("{roll}{CHECKPOINTS}"));
                copying.add_rows(3);
                copying.finish();
                let finished = outputs(copying.folder.path());
                let finished = finished.last().expect("it has rows");
                let name = finished.file_name().and_then(OsStr::to_str);
                name.expect("it is text").clone_into(&mut copying.file);
                let before = fs::read(finished).expect("it is there");
                fs::write(copying.part(), "precious").expect("it is writable");
                copying.add_rows(more);
                copying.finish();
                assert_eq!(fs::read(finished).expect("it is there"), before, "{what}");
                assert_eq!(read(&copying.part()), "precious", "{what}");
            }
        }
    }
}

#[test]
fn a_part_that_is_removed_or_replaced_does_not_get_the_name() {
    for (name, tables) in [
        ("out.jsonl", String::new()),
        ("out.jsonl", format!("{CHECKPOINTS}{RESTART}")),
        ("out-000001.jsonl", ROLL.to_owned()),
        ("out-000001.jsonl", format!("{ROLL}{CHECKPOINTS}{RESTART}")),
    ] {
        for if_exists in ["fail", "replace", "append"] {
            for how in [End::Finished, End::CtrlC] {
                for is_replaced in [false, true] {
                    let what = format!("{tables} {if_exists} {how:?} {is_replaced}");
                    let mut copying = Copying::new("out.jsonl", if_exists, &tables);
                    name.clone_into(&mut copying.file);
                    copying.add_rows(3);
                    let host = copying.start();
                    copying.wait_for_rows();
                    fs::remove_file(copying.part()).expect("it is there");
                    if is_replaced {
                        fs::write(copying.part(), "mine\n").expect("it is writable");
                    }
                    let output = end(host, how);
                    assert_eq!(output.status.code(), Some(1), "{what}: {}", said(&output));
                    let expected = "was removed, or replaced by another file";
                    assert!(
                        said(&output).contains(expected),
                        "{what}: {}",
                        said(&output)
                    );
                    assert!(!copying.whole().exists(), "{what}");
                    let part = fs::read_to_string(copying.part()).ok();
                    assert_eq!(part.as_deref(), is_replaced.then_some("mine\n"), "{what}");
                }
            }
        }
    }
}

#[test]
fn a_run_whose_part_was_removed_does_not_give_its_name_to_that_of_another_run() {
    for name in ["out.jsonl", "out.parquet"] {
        let mut copying = Copying::new(name, "fail", "");
        copying.add_rows(3);
        let wait = || {
            let until = Instant::now() + Duration::from_secs(60);
            while !copying.part().exists() {
                assert!(Instant::now() < until, "no part of {name}");
                std::thread::sleep(Duration::from_millis(5));
            }
        };
        let first = copying.start();
        wait();
        fs::remove_file(copying.part()).expect("it is there");
        let second = copying.start();
        wait();
        let output = end(first, End::Finished);
        assert_eq!(output.status.code(), Some(1), "{name}: {}", said(&output));
        assert!(
            copying.part().exists() && !copying.whole().exists(),
            "{name}"
        );
        let output = end(second, End::Finished);
        assert!(output.status.success(), "{name}: {}", said(&output));
        assert!(copying.whole().exists(), "{name}");
    }
}

#[test]
fn a_run_goes_on_behind_a_compressed_file_without_rows() {
    for file in ["out.jsonl.gz", "out.jsonl.zst"] {
        for if_exists in ["fail", "replace", "append"] {
            for checkpoints in ["", CHECKPOINTS] {
                let what = format!("{file} {if_exists} {checkpoints}");
                let mut copying = Copying::new(file, if_exists, checkpoints);
                copying.add_rows(0);
                let read = || {
                    let bytes = fs::read(copying.whole()).expect("it is there");
                    assert!(!bytes.is_empty(), "{what}");
                    match file.ends_with(".gz") {
                        true => std::io::read_to_string(MultiGzDecoder::new(&*bytes)),
                        false => std::io::read_to_string(
                            zstd::Decoder::new(&*bytes).expect("it is compressed"),
                        ),
                    }
                    .expect("it is whole")
                };
                for _ in 0..2 {
                    copying.finish();
                    assert_eq!(read(), "", "{what}");
                }
                let rows_2 = rows(1..=2);
                fs::write(copying.path("rows.jsonl"), &rows_2).expect("it is writable");
                copying.finish();
                assert_eq!(read(), rows_2, "{what}");
            }
        }
    }
}

/// Beside rows of a run that was stopped or killed, there is the file that they replace.
#[test]
fn what_somebody_else_has_made_of_a_finished_file_is_not_replaced() {
    for if_exists in ["fail", "append"] {
        for how in [End::CtrlC, End::Killed] {
            let mut copying = Copying::new("out.jsonl", if_exists, CHECKPOINTS);
            copying.add_rows(2);
            copying.finish();
            copying.add_rows(1);
            copying.end_by(how);
            let edited = format!("{}precious\n", rows(1..=2));
            fs::write(copying.whole(), &edited).expect("it is writable");
            copying.refuse("this run does not go on from it: move it away");
            assert_eq!(read(&copying.whole()), edited);
            fs::rename(copying.whole(), copying.path("elsewhere")).expect("it is there");
            copying.finish();
            assert_eq!(read(&copying.whole()), rows(1..=3));
        }
    }
}

/// The other name would keep what is there, or the rows would be in two files.
#[test]
fn nothing_is_appended_to_a_file_with_two_names() {
    for tables in ["", CHECKPOINTS] {
        let mut copying = Copying::new("out.jsonl", "append", tables);
        copying.add_rows(2);
        let other = copying.path("other.jsonl");
        fs::write(copying.whole(), row(7)).expect("it is writable");
        fs::hard_link(copying.whole(), &other).expect("a link");
        copying.refuse("has another name (a hard link)");
        assert!(!copying.part().exists());
        for path in [&copying.whole(), &other] {
            assert_eq!(read(path), row(7));
        }
        fs::remove_file(&other).expect("it is there");
        copying.finish();
        assert_eq!(read(&copying.whole()), format!("{}{}", row(7), rows(1..=2)));
    }
}

/// By whom is not known, so it is not advised to replace it.
#[test]
fn a_file_that_is_edited_while_rows_are_appended_stays() {
    for tables in ["", CHECKPOINTS] {
        let mut copying = Copying::new("out.jsonl", "append", tables);
        copying.add_rows(2);
        fs::write(copying.whole(), row(7)).expect("it is writable");
        let host = copying.start();
        copying.wait_for_rows();
        let edited = format!("{}precious\n", row(7));
        fs::write(copying.whole(), &edited).expect("it is writable");
        let output = end(host, End::Finished);
        let said = said(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(
            said.contains("was written by somebody else while"),
            "{said}"
        );
        assert!(!said.contains("if_exists"), "{said}");
        assert_eq!(read(&copying.whole()), edited);
        let all = format!("{}{}", row(7), rows(1..=2));
        assert_eq!(read(&copying.part()), all);
        // As it advises.
        fs::rename(copying.whole(), copying.path("elsewhere")).expect("it is there");
        match tables.is_empty() {
            true => fs::rename(copying.part(), copying.whole()).expect("it is there"),
            false => copying.finish(),
        }
        assert_eq!(read(&copying.whole()), all);
    }
}

/// Also far from where the next run goes on.
#[test]
fn an_edit_anywhere_is_refused() {
    for if_exists in ["fail", "replace", "append"] {
        for how in [End::Finished, End::CtrlC, End::Killed] {
            let what = format!("{if_exists} {how:?}");
            let mut copying = Copying::new("out.jsonl", if_exists, CHECKPOINTS);
            copying.add_rows(2_000);
            let host = copying.start();
            copying.wait_for_rows();
            // Until a checkpoint knows them.
            std::thread::sleep(Duration::from_millis(200));
            end(host, how);
            copying.add_rows(1);
            let file = match how {
                End::Finished => copying.whole(),
                _ => copying.part(),
            };
            let before = read(&file);
            let edited = before.replacen("{\"n\":7}", "{\"n\":8}", 1);
            fs::write(&file, &edited).expect("it is writable");
            copying.refuse("is not the file of the checkpoint: put back the file");
            assert_eq!(read(&file), edited, "{what}");
            fs::write(&file, &before).expect("it is writable");
            copying.finish();
            assert_eq!(read(&copying.whole()), rows(1..=2_001), "{what}");
        }
    }
}

/// As on a full disk.
#[test]
fn a_finished_file_that_cannot_be_copied_stays() {
    let tables = format!("{CHECKPOINTS}{RESTART}");
    let mut copying = Copying::new("out.jsonl", "append", &tables);
    let old: String = (0..400_000).map(|_| row(0)).collect();
    fs::write(copying.whole(), &old).expect("it is writable");
    copying.add_rows(1);
    let mut limited = copying.command();
    // SAFETY: between `fork` and `exec`, a signal's action and a limit may be set.
    unsafe {
        limited.pre_exec(|| {
            let bytes = 2 << 20;
            let limit = libc::rlimit {
                rlim_cur: bytes,
                rlim_max: bytes,
            };
            libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
            match libc::setrlimit(libc::RLIMIT_FSIZE, &limit) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        });
    }
    let output = end(limited.spawn().expect("it starts"), End::Finished);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(
        said(&output).contains("out.jsonl.part"),
        "{}",
        said(&output)
    );
    assert!(read(&copying.whole()) == old);
    let left = fs::metadata(copying.part()).map_or(0, |part| part.len());
    assert_eq!(left, 0, "half a copy takes room");
    copying.finish();
    assert!(read(&copying.whole()) == format!("{old}{}", row(1)));
}

/// The permissions of a file.
fn mode(path: &Path) -> u32 {
    let found = fs::metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    found.permissions().mode() & 0o7777
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("it is ours");
}

/// The files in a folder that a sink may have written, but for its list.
fn outputs(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let is_output = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str());
        name.is_some_and(|name| name.starts_with("out"))
    };
    let mut paths: Vec<PathBuf> = paths.filter(is_output).collect();
    paths.sort();
    paths
}

/// From its first byte on.
#[test]
fn a_file_has_the_permissions_of_the_one_that_it_replaces() {
    for (if_exists, tables, file) in [
        ("replace", "", "out.jsonl"),
        ("replace", "", "out.parquet"),
        ("append", "", "out.csv.gz"),
        ("fail", CHECKPOINTS, "out.jsonl"),
        ("replace", CHECKPOINTS, "out.csv"),
        ("append", CHECKPOINTS, "out.jsonl"),
    ] {
        for kept in [0o600, 0o640, 0o666] {
            let what = format!("{if_exists} {tables} {file} {kept:o}");
            let mut copying = Copying::new(file, if_exists, tables);
            copying.add_rows(2);
            copying.finish();
            chmod(&copying.whole(), kept);
            copying.add_rows(2);
            let host = copying.start();
            let until = Instant::now() + Duration::from_secs(60);
            // Parquet has its rows when it ends.
            let has_rows = |part: fs::Metadata| part.len() > 0 || file == "out.parquet";
            while !fs::metadata(copying.part()).is_ok_and(has_rows) {
                assert!(Instant::now() < until, "{what}");
                if copying.part().exists() {
                    assert_eq!(mode(&copying.part()) & !kept, 0, "{what}");
                }
            }
            assert_eq!(mode(&copying.part()) & !kept, 0, "{what}");
            let output = end(host, End::Finished);
            assert!(output.status.success(), "{what}: {}", said(&output));
            assert_eq!(mode(&copying.whole()), kept, "{what}");
        }
    }
}

/// With such a list, the bits of the group are those of all who are in the list.
#[test]
fn a_group_may_not_do_what_an_access_control_list_let_others_do() {
    let list: Vec<u8> = [
        // The owner, somebody else, the group, the most that these may, others.
        (1_u16, 6_u16, u32::MAX),
        (2, 6, 12_345),
        (4, 4, u32::MAX),
        (16, 6, u32::MAX),
        (32, 0, u32::MAX),
    ]
    .iter()
    .flat_map(|(tag, may, who)| {
        [
            &tag.to_le_bytes()[..],
            &may.to_le_bytes(),
            &who.to_le_bytes(),
        ]
        .concat()
    })
    .collect();
    let list = [&2_u32.to_le_bytes()[..], &list].concat();
    let mut copying = Copying::new("out.jsonl", "replace", "");
    copying.add_rows(2);
    copying.finish();
    let (whole, name) = (copying.whole(), "system.posix_acl_access");
    rustix::fs::setxattr(&whole, name, &list, rustix::fs::XattrFlags::empty()).expect("it is ours");
    assert_eq!(mode(&whole), 0o660, "as `chmod` sees it");
    copying.finish();
    assert_eq!(mode(&whole), 0o640);
}

#[test]
fn numbered_files_have_the_permissions_of_those_before_them() {
    for (if_exists, tables, file, rest) in [
        ("replace", "", "out.jsonl", "roll = { size = \"1KiB\" }\n"),
        ("append", "", "out.jsonl", "roll = { size = \"1KiB\" }\n"),
        (
            "fail",
            CHECKPOINTS,
            "out.jsonl",
            "roll = { size = \"1KiB\" }\n",
        ),
        ("fail", CHECKPOINTS, "out.parquet", ""),
    ] {
        let what = format!("{if_exists} {tables} {file}");
        let mut copying = Copying::new(file, if_exists, &format!("{rest}{tables}"));
        copying.add_rows(300);
        copying.finish();
        for path in outputs(copying.folder.path()) {
            chmod(&path, 0o600);
        }
        copying.add_rows(300);
        copying.finish();
        let files = outputs(copying.folder.path());
        assert!(files.len() > 1, "{what}: {files:?}");
        for path in files {
            assert_eq!(mode(&path), 0o600, "{what}: {}", path.display());
        }
    }
}

/// Whoever has protected it wants to keep it.
#[test]
fn a_read_only_file_is_not_replaced() {
    for (if_exists, tables, rest) in [
        ("replace", "", ""),
        ("append", "", ""),
        ("fail", CHECKPOINTS, ""),
        ("replace", CHECKPOINTS, ""),
        ("append", CHECKPOINTS, ""),
        ("replace", "", "roll = { size = \"1KiB\" }\n"),
    ] {
        let mut copying = Copying::new("out.jsonl", if_exists, &format!("{rest}{tables}"));
        copying.add_rows(2);
        copying.finish();
        let file = outputs(copying.folder.path()).remove(0);
        chmod(&file, 0o444);
        copying.add_rows(1);
        copying.refuse("read-only");
        assert_eq!(outputs(copying.folder.path()), [file.as_path()]);
        assert_eq!(read(&file), rows(1..=2));
        // Or while rows come.
        chmod(&file, 0o644);
        if rest.is_empty() {
            let host = copying.start();
            copying.wait_for_rows();
            chmod(&file, 0o444);
            let output = end(host, End::Finished);
            assert!(said(&output).contains("read-only"), "{}", said(&output));
            assert_eq!(read(&file), rows(1..=2));
        }
    }
}

/// What it leads to is somebody else's, and would be cut and written.
#[test]
fn a_part_that_is_a_link_is_refused() {
    for if_exists in ["fail", "replace", "append"] {
        for tables in ["", &format!("{CHECKPOINTS}{RESTART}")] {
            for kind in ["link", "broken", "circle", "hard link", "folder"] {
                let what = format!("{if_exists} {tables} {kind}");
                let mut copying = Copying::new("out.jsonl", if_exists, tables);
                copying.add_rows(1);
                let (part, other) = (copying.part(), copying.path("precious.jsonl"));
                fs::write(&other, "precious\n").expect("it is writable");
                match kind {
                    "link" => symlink(&other, &part).expect("a link"),
                    "broken" => symlink("missing.jsonl", &part).expect("a link"),
                    "circle" => symlink(&part, &part).expect("a link"),
                    "hard link" => fs::hard_link(&other, &part).expect("a link"),
                    _ => fs::create_dir(&part).expect("a folder"),
                }
                let output = copying.run();
                assert_eq!(output.status.code(), Some(1), "{what}");
                let said = said(&output);
                assert!(
                    said.contains("delete it, or move it away"),
                    "{what}: {said}"
                );
                assert!(!said.contains("restarts in"), "{what}: {said}");
                assert_eq!(read(&other), "precious\n", "{what}");
                assert!(!copying.path("missing.jsonl").exists(), "{what}");
                assert!(!copying.whole().exists(), "{what}");
            }
        }
    }
}

/// A run that is killed while a checkpoint is made leaves a file that the next one does not
/// write over, if it has no rows for the checkpoint of the same number.
#[test]
fn killed_runs_leave_no_parquet_files_behind() {
    let mut copying = Copying::new("out.parquet", "fail", CHECKPOINTS);
    copying.add_rows(3);
    copying.finish();
    let whole = outputs(copying.folder.path());
    let others = copying.path("out-1000000.parquet.part");
    fs::write(&others, OTHERS).expect("it is writable");
    let parts = |copying: &Copying| {
        let mut files = outputs(copying.folder.path());
        files.retain(|path| path.extension() == Some(OsStr::new("part")) && *path != others);
        files
    };
    for place in ["snapshot_after", "write_before", "manifest_before"] {
        for kills in 1..3 {
            for _ in 0..kills {
                let mut command = copying.command();
                command.env("SLUICEBOX_CRASH_AT", place);
                let mut host = command.spawn().expect("it starts");
                let mut input = host.stdin.take().expect("it is piped");
                input.write_all(row(9).as_bytes()).expect("it is read");
                drop(input);
                let output = end(host, End::Finished);
                assert_eq!(output.status.code(), None, "{place}: {}", said(&output));
            }
            assert_eq!(parts(&copying).len(), 1, "{place}");
            // No row comes again: nobody has kept the input.
            copying.finish();
            assert_eq!(parts(&copying), Vec::<PathBuf>::new(), "{place}");
        }
    }
    assert_eq!(read(&others), OTHERS);
    let mut files = outputs(copying.folder.path());
    files.retain(|path| *path != others);
    assert_eq!(files, whole);
}

/// Nor where they and the next one start anew.
#[test]
fn runs_that_start_anew_leave_no_parquet_files_behind() {
    let mut copying = Copying::new("out.parquet", "replace", CHECKPOINTS);
    copying.add_rows(3);
    copying.finish();
    let anew = |crash: Option<&str>| {
        let mut command = copying.command();
        command.arg("--fresh");
        if let Some(place) = crash {
            command.env("SLUICEBOX_CRASH_AT", place);
        }
        let mut host = command.spawn().expect("it starts");
        let mut input = host.stdin.take().expect("it is piped");
        input.write_all(row(9).as_bytes()).expect("it is read");
        drop(input);
        end(host, End::Finished)
    };
    for place in ["write_before", "manifest_before"] {
        let output = anew(Some(place));
        assert_eq!(output.status.code(), None, "{place}: {}", said(&output));
        let output = anew(None);
        assert_eq!(output.status.code(), Some(0), "{place}: {}", said(&output));
        let files = outputs(copying.folder.path());
        let is_whole = |path: &PathBuf| path.extension() == Some(OsStr::new("parquet"));
        assert!(
            !files.is_empty() && files.iter().all(is_whole),
            "{place}: {files:?}"
        );
    }
}

/// Whatever happens between runs and to them: a file that has its name is whole, and what
/// it was until the next whole one; no line of the user's is lost; and over runs that go
/// on, no row is doubled or lost.
#[test]
fn no_sequence_of_runs_breaks_a_file() {
    const CASES: u64 = 60;
    const THREADS: u64 = 4;
    let seeds = match std::env::var("SEED") {
        Ok(seed) => {
            let seed = seed.parse().expect("a number");
            seed..seed + 1
        }
        Err(_) => 0..CASES,
    };
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let seeds = seeds.clone().filter(move |seed| seed % THREADS == thread);
            scope.spawn(move || seeds.for_each(|seed| Story::new(seed).go_on()));
        }
    });
}

const OTHERS: &str = "somebody else's";

/// What happens to a file, and what it has to be.
struct Story {
    random: fastrand::Rng,
    copying: Copying,
    if_exists: &'static str,
    is_checkpointed: bool,
    /// The numbers that the user's file had, to which rows are appended.
    base: Vec<i64>,
    /// A run without checkpoints may have left a part.
    has_part: bool,
    told: Vec<String>,
}

impl Story {
    fn new(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let files = [
            "out.jsonl",
            "out.csv",
            "out.jsonl.gz",
            "out.csv.zst",
            "out.parquet",
        ];
        let file = files[random.usize(0..files.len())];
        let all = ["fail", "replace", "append"];
        let known = if file == "out.parquet" { 2 } else { 3 };
        let if_exists = all[random.usize(0..known)];
        let is_checkpointed = random.bool();
        let tables = if is_checkpointed { CHECKPOINTS } else { "" };
        let mut story = Story {
            copying: Copying::new(file, if_exists, tables),
            if_exists,
            is_checkpointed,
            base: Vec::new(),
            has_part: false,
            told: vec![format!("seed {seed}: {file} {if_exists} {tables}")],
            random,
        };
        if story.is_numbered() {
            fs::write(story.others(), OTHERS).expect("it is writable");
        }
        if !story.is_numbered() && story.random.bool() {
            let numbers = [-1, -2];
            story.user_writes(&numbers);
            if if_exists == "append" {
                story.base = numbers.to_vec();
            }
        }
        story
    }

    fn go_on(mut self) {
        for _ in 0..7 {
            let more = self.random.usize(1..4);
            self.copying.add_rows(more);
            match self.random.u8(0..6) {
                0 => self.stops(End::CtrlC),
                1 => self.stops(End::Terminated),
                2 => self.stops(End::Killed),
                3 => self.user_edits(),
                4 => self.user_protects(),
                _ => self.finishes(),
            }
        }
        self.finishes();
    }

    /// With checkpoints, each of them has a Parquet file of its own.
    fn is_numbered(&self) -> bool {
        self.is_checkpointed && self.copying.file == "out.parquet"
    }

    /// Somebody's file, called like one of a checkpoint that is not there yet.
    fn others(&self) -> PathBuf {
        self.copying.path("out-1000000.parquet.part")
    }

    /// Whether the next run goes on from a checkpoint: a run that is ended in its first
    /// moments makes none.
    fn goes_on(&self) -> bool {
        let checkpoints = self.copying.path("copying.state/checkpoints");
        let mut entries = fs::read_dir(checkpoints).into_iter().flatten();
        entries.any(|entry| {
            let name = entry.expect("an entry").file_name();
            name.to_str()
                .is_some_and(|name| name.parse::<u64>().is_ok())
        })
    }

    fn tell(&mut self, what: impl Into<String>) {
        self.told.push(what.into());
    }

    /// What is there under the name of the file.
    fn there(&self) -> Option<Vec<u8>> {
        fs::read(self.copying.whole()).ok()
    }

    /// What the file has when all rows have come.
    fn expected(&self) -> Vec<i64> {
        let rows = (1..=self.copying.rows).map(|n| n as i64);
        self.base.iter().copied().chain(rows).collect()
    }

    /// The numbers in the files that have their names. Each is whole.
    fn numbers(&self) -> Vec<i64> {
        let files = outputs(self.copying.folder.path()).into_iter();
        let files = files.filter(|path| path.extension() != Some(OsStr::new("part")));
        let numbers = files.map(|path| numbers(&path).unwrap_or_else(|| self.fail("not whole")));
        let mut numbers: Vec<i64> = numbers.flatten().collect();
        if self.is_numbered() {
            numbers.sort_unstable();
        }
        numbers
    }

    fn fail<T>(&self, why: &str) -> T {
        panic!("{why}: {:#?}", self.told)
    }

    fn check(&self, is_so: bool, why: &str) {
        if !is_so {
            self.fail::<()>(why);
        }
    }

    /// A run that is ended early, at some time.
    fn stops(&mut self, how: End) {
        let before = self.there();
        let host = self.copying.start();
        let wait_ms = self.random.u64(0..400);
        std::thread::sleep(Duration::from_millis(wait_ms));
        let output = end(host, how);
        self.tell(format!("{how:?} after {wait_ms} ms: {}", said(&output)));
        self.check(self.there() == before, "it was replaced");
        if self.is_numbered() {
            let expected = self.expected();
            self.check(expected.starts_with(&self.numbers()), "rows are doubled");
        }
        self.has_part = true;
    }

    /// A run that all rows come from, if nothing is in its way.
    fn finishes(&mut self) {
        let there = self.there();
        let begins = !self.goes_on();
        if begins && self.if_exists == "append" && there.is_some() {
            // Where a run that was killed has begun already, this is what it began with.
            self.base = numbers(&self.copying.whole()).unwrap_or_else(|| self.fail("not whole"));
        }
        let kept = there.as_ref().map(|_| mode(&self.copying.whole()));
        let output = self.copying.run();
        self.tell(format!("run: {}", said(&output)));
        if output.status.success() {
            self.check(self.numbers() == self.expected(), "other rows");
            let of_run = |path: &PathBuf| path.extension() == Some(OsStr::new("part"));
            let mut files = outputs(self.copying.folder.path());
            files.retain(|path| of_run(path) && *path != self.others());
            self.check(files.is_empty(), &format!("{files:?} are left"));
            if self.is_numbered() {
                self.check(read(&self.others()) == OTHERS, "somebody's file");
            }
            let now = kept.map(|_| mode(&self.copying.whole()));
            self.check(now == kept, "other permissions");
            self.has_part = false;
            return;
        }
        self.check(self.there() == there, "a run that failed replaced it");
        let is_in_the_way = there.is_some() && self.if_exists == "fail" && begins;
        let has_other_part = self.has_part && !self.is_checkpointed && self.if_exists != "replace";
        self.check(is_in_the_way || has_other_part, "refused");
        // The user keeps both, elsewhere.
        let _ = fs::rename(self.copying.part(), self.copying.path("kept.part"));
        self.has_part = false;
        if is_in_the_way {
            fs::rename(self.copying.whole(), self.copying.path("kept")).expect("it is there");
            self.base.clear();
        }
        self.finishes();
    }

    /// The user changes the file, or makes one, and sees that nothing of that is lost.
    fn user_edits(&mut self) {
        if self.is_numbered() || (self.is_checkpointed && !self.goes_on()) {
            return;
        }
        let before = self.there();
        match &before {
            Some(bytes) if self.is_checkpointed && self.random.bool() => {
                let mut bytes = bytes.clone();
                let at = self.random.usize(0..bytes.len());
                bytes[at] ^= 1;
                fs::write(self.copying.whole(), bytes).expect("it is writable");
                self.tell(format!("byte {at} is edited"));
            }
            _ if self.copying.file == "out.parquet" => return,
            _ => self.user_writes(&[-3]),
        }
        let edited = self.there();
        if !self.is_checkpointed {
            return self.finishes();
        }
        let output = self.copying.run();
        self.tell(format!("run: {}", said(&output)));
        if output.status.success() {
            // Of a file that the run does not go on from.
            self.check(self.if_exists == "replace", "an edit is lost");
            return self.check(self.numbers() == self.expected(), "other rows");
        }
        self.check(self.there() == edited, "an edit is lost");
        self.tell("the edit is undone");
        match before {
            Some(bytes) => fs::write(self.copying.whole(), bytes),
            None => fs::remove_file(self.copying.whole()),
        }
        .expect("it is ours");
        self.finishes();
    }

    fn user_protects(&mut self) {
        let Some(before) = self.there() else {
            return self.finishes();
        };
        let modes = [0o600, 0o640, 0o644, 0o444];
        let chosen = modes[self.random.usize(0..modes.len())];
        chmod(&self.copying.whole(), chosen);
        self.tell(format!("chmod {chosen:o}"));
        if chosen == 0o444 {
            let output = self.copying.run();
            self.tell(format!("run: {}", said(&output)));
            self.check(!output.status.success(), "it is read-only");
            self.check(self.there() == Some(before), "it is read-only");
            chmod(&self.copying.whole(), 0o644);
        }
        self.finishes();
    }

    /// Adds numbers to the file.
    fn user_writes(&mut self, numbers: &[i64]) {
        let is_new = self.there().is_none();
        let is_csv = self.copying.file.contains(".csv");
        let head = if is_csv && is_new { "n\n" } else { "" };
        let lines = numbers.iter().map(|n| match is_csv {
            true => format!("{n}\n"),
            false => format!("{{\"n\":{n}}}\n"),
        });
        let text = format!("{head}{}", lines.collect::<String>());
        let bytes = match self.copying.whole().extension().and_then(OsStr::to_str) {
            Some("gz") => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), Default::default());
                encoder.write_all(text.as_bytes()).expect("in memory");
                encoder.finish().expect("in memory")
            }
            Some("zst") => zstd::encode_all(text.as_bytes(), 0).expect("in memory"),
            // Nobody appends to it.
            Some("parquet") => return,
            _ => text.into_bytes(),
        };
        let all = [self.there().unwrap_or_default(), bytes].concat();
        fs::write(self.copying.whole(), all).expect("it is writable");
        self.tell(format!("the user writes {numbers:?}"));
    }
}

/// The numbers in a file, if it is whole.
fn numbers(path: &Path) -> Option<Vec<i64>> {
    let name = path.to_str()?;
    let file = File::open(path).ok()?;
    let mut text = String::new();
    if name.ends_with(".parquet") {
        let rows = SerializedFileReader::new(file).ok()?.into_iter();
        let numbers = rows.map(|row| row.ok()?.get_long(0).ok());
        return numbers.collect();
    }
    let read = match name {
        name if name.ends_with(".gz") => MultiGzDecoder::new(file).read_to_string(&mut text),
        name if name.ends_with(".zst") => zstd::Decoder::new(file).ok()?.read_to_string(&mut text),
        _ => (&file).read_to_string(&mut text),
    };
    read.ok()?;
    if !text.is_empty() && !text.ends_with('\n') {
        return None;
    }
    let mut lines = text.lines();
    if name.contains(".csv") {
        lines.next();
    }
    let numbers = lines.map(|line| line.trim_start_matches("{\"n\":").trim_end_matches('}'));
    numbers.map(|number| number.parse().ok()).collect()
}
