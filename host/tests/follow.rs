//! Files that grow and are rotated, through the binary: each line is read once, in the order
//! of its file, whatever becomes of the file, and whenever the host is killed.
//!
//! `SLUICEBOX_KILLS` is how often it is killed, and `SLUICEBOX_SEED` repeats random choices,
//! though not exact times. `SLUICEBOX_HOST` is the binary to kill; the default is the one that
//! was just built.

/// Signals to a running host.
#[path = "common/signal.rs"]
mod signal;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fastrand::Rng;
use tempfile::TempDir;

const PIPELINE: &str = r#"
name = "following"
parallelism = 1
[checkpoints]
interval = "30ms"
[sources.rows]
type = "file"
path = "app.log*"
format = "json"
follow = true
fields = { f = "int64", n = "int64", text = "utf8" }
[sinks.out]
type = "file"
path = "out.jsonl"
input = "rows"
roll = { size = "64KiB" }
"#;

/// How often the host is killed where nobody says.
const KILLS: u64 = 8;

const PATIENCE: Duration = Duration::from_secs(60);

/// A folder in which a pipeline follows files.
struct Following {
    folder: TempDir,
}

impl Following {
    fn new() -> Self {
        let following = Following {
            folder: tempfile::tempdir().expect("a temporary folder"),
        };
        following.write("following.toml", PIPELINE);
        following
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("it is writable");
    }

    fn append(&self, name: &str, text: &str) {
        self.appended(name)
            .write_all(text.as_bytes())
            .expect("it is writable");
    }

    fn appended(&self, name: &str) -> File {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.path(name));
        file.expect("it is writable")
    }

    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.path(from), self.path(to)).expect("it is there");
    }

    fn edit(&self, from: &str, to: &str) {
        let text = fs::read_to_string(self.path("following.toml")).expect("it is there");
        assert!(text.contains(from), "{text}");
        self.write("following.toml", &text.replace(from, to));
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let built = env!("CARGO_BIN_EXE_sluicebox");
        let host = std::env::var("SLUICEBOX_HOST").unwrap_or(built.to_owned());
        let mut command = Command::new(host);
        command
            .args(arguments)
            .arg("following.toml")
            .current_dir(&self.folder)
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        signal::not_ignored(&mut command);
        command
    }

    fn start(&self) -> Child {
        let mut command = self.command(&["run", "--quiet"]);
        command.stderr(self.appended("log.txt"));
        command.spawn().expect("it starts")
    }

    /// Runs a command that ends by itself.
    fn said(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let mut command = self.command(arguments);
        let Output {
            status,
            stdout,
            stderr,
        } = command.stdout(Stdio::piped()).output().expect("it starts");
        let said = [stdout, stderr].concat();
        (status.code(), String::from_utf8_lossy(&said).into_owned())
    }

    /// What the sink has written, in its order.
    fn rows(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.folder).expect("a folder");
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut names: Vec<String> = names.filter(|name| name.starts_with("out")).collect();
        names.sort_unstable();
        let text = |name: &String| fs::read_to_string(self.path(name)).unwrap_or_default();
        let text: String = names.iter().map(text).collect();
        text.lines().map(str::to_owned).collect()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("log.txt")).unwrap_or_default()
    }

    /// Waits until so many rows are written.
    fn wait_for(&self, rows: usize, host: &mut Child) {
        self.wait_until(host, || self.rows().len() >= rows);
    }

    fn wait_until(&self, host: &mut Child, is_so: impl Fn() -> bool) {
        let until = Instant::now() + PATIENCE;
        while !is_so() {
            let ended = host.try_wait().expect("it is our child");
            assert!(ended.is_none(), "{ended:?}\n{}", self.log());
            assert!(
                Instant::now() < until,
                "{} rows\n{}",
                self.rows().len(),
                self.log()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn stop(&self, mut host: Child) {
        signal::send(&host, libc::SIGINT);
        let ended = host.wait().expect("it is our child");
        assert_eq!(ended.code(), Some(0), "{}", self.log());
    }

    /// Runs until these rows are written, and stops. No others come.
    fn run_to(&self, expected: &[String]) {
        let mut host = self.start();
        self.wait_for(expected.len(), &mut host);
        // What comes twice, comes behind the others.
        std::thread::sleep(Duration::from_millis(300));
        self.stop(host);
        self.expect(expected);
    }

    /// These rows were written, in any order of files, but each file's in its order.
    fn expect(&self, expected: &[String]) {
        let (found, log) = (self.rows(), self.log());
        let by_file = |rows: &[String]| {
            let mut by_file: BTreeMap<String, Vec<String>> = BTreeMap::new();
            for row in rows {
                let file = row.split(',').next().unwrap_or_default();
                by_file
                    .entry(file.to_owned())
                    .or_default()
                    .push(row.clone());
            }
            by_file
        };
        let (found, expected) = (by_file(&found), by_file(expected));
        for (file, rows) in &expected {
            let got = found.get(file).map(Vec::as_slice).unwrap_or_default();
            let at = rows.iter().zip(got).take_while(|(one, other)| one == other);
            let at = at.count();
            assert!(
                got == rows,
                "{file}: {} of {} rows, other ones from {at} on: {:?} instead of {:?}\n{log}",
                got.len(),
                rows.len(),
                got.get(at),
                rows.get(at)
            );
        }
        assert_eq!(found.len(), expected.len(), "rows of other files\n{log}");
    }
}

fn row(file: u64, n: u64) -> String {
    format!(
        "{{\"f\":{file},\"n\":{n},\"text\":\"{}\"}}",
        "x".repeat(n as usize % 40)
    )
}

fn text(file: u64, rows: std::ops::Range<u64>) -> String {
    rows.map(|n| row(file, n) + "\n").collect()
}

fn rows(file: u64, rows: std::ops::Range<u64>) -> Vec<String> {
    rows.map(|n| row(file, n)).collect()
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{variable} must be a number, and is {text:?}")))
}

/// What a rotation does with `app.log` before file number `.1` is written. Returns the file
/// that is written from then on.
type Rotation = fn(&Following, File, u64, &mut Vec<String>) -> File;

/// Writes some thousand lines a second and rotates every 100 ms until it is told to stop.
/// Returns all rows that it has written.
fn write_and_rotate(following: &Following, rotate: Rotation, is_done: &AtomicBool) -> Vec<String> {
    let mut written = Vec::new();
    let mut file = following.appended("app.log");
    for number in 0.. {
        let until = Instant::now() + Duration::from_millis(100);
        let mut n = 0;
        while Instant::now() < until {
            // A line is not always there at once.
            let text = text(number, n..n + 5);
            let (first, second) = text.split_at(text.len() / 2 + n as usize % 7);
            file.write_all(first.as_bytes()).expect("it is writable");
            file.write_all(second.as_bytes()).expect("it is writable");
            written.extend(rows(number, n..n + 5));
            n += 5;
            std::thread::sleep(Duration::from_micros(700));
        }
        if is_done.load(Ordering::Relaxed) {
            return written;
        }
        file = rotate(following, file, number, &mut written);
    }
    unreachable!("there are always more files")
}

/// Kills the host again and again while files are written and rotated.
fn through_kills(following: Following, rotate: Rotation) {
    let kills = number("SLUICEBOX_KILLS").unwrap_or(KILLS);
    let seed = number("SLUICEBOX_SEED").unwrap_or_else(|| fastrand::u64(..));
    eprintln!("{kills} kills, SLUICEBOX_SEED={seed}");
    let mut random = Rng::with_seed(seed);
    let following = Arc::new(following);
    let is_done = Arc::new(AtomicBool::new(false));
    let writer = std::thread::spawn({
        let (following, is_done) = (following.clone(), is_done.clone());
        move || write_and_rotate(&following, rotate, &is_done)
    });
    for _ in 0..kills {
        let mut host = following.start();
        std::thread::sleep(Duration::from_millis(random.u64(50..900)));
        let ended = host.try_wait().expect("it is our child");
        assert!(ended.is_none(), "{ended:?}\n{}", following.log());
        host.kill().expect("it is our child");
        host.wait().expect("it is our child");
        std::thread::sleep(Duration::from_millis(random.u64(0..300)));
    }
    is_done.store(true, Ordering::Relaxed);
    let written = writer.join().expect("it only writes");
    assert!(written.len() as u64 > kills * 100, "{}", written.len());
    following.run_to(&written);
}

/// The old file gets another name, and some more rows from its writer after that.
fn rename(following: &Following, mut old: File, number: u64, written: &mut Vec<String>) -> File {
    following.rename("app.log", &format!("app.log.{number}"));
    let new = following.appended("app.log");
    for late in 1_000_000..1_000_003 {
        let row = row(number, late);
        old.write_all(format!("{row}\n").as_bytes())
            .expect("it is writable");
        written.push(row);
        std::thread::sleep(Duration::from_millis(1));
    }
    new
}

/// All files get another name.
fn shift(following: &Following, _: File, number: u64, _: &mut Vec<String>) -> File {
    for older in (1..=number).rev() {
        following.rename(
            &format!("app.log.{older}"),
            &format!("app.log.{}", older + 1),
        );
    }
    following.rename("app.log", "app.log.1");
    following.appended("app.log")
}

/// A copy is made of the file, which is cut then. What is written in between is lost to all:
/// this writer writes nothing then.
fn copy_and_truncate(following: &Following, file: File, number: u64, _: &mut Vec<String>) -> File {
    fs::copy(
        following.path("app.log"),
        following.path(&format!("app.log.{number}")),
    )
    .expect("it is there");
    file.set_len(0).expect("it is writable");
    file
}

#[test]
fn nothing_is_lost_or_read_twice_by_kills_where_files_are_renamed() {
    through_kills(Following::new(), rename);
}

#[test]
fn nothing_is_lost_or_read_twice_by_kills_where_names_are_shifted() {
    let following = Following::new();
    following.edit("parallelism = 1", "parallelism = 2");
    through_kills(following, shift);
}

#[test]
fn nothing_is_lost_or_read_twice_by_kills_where_files_are_copied_and_cut() {
    let following = Following::new();
    following.edit("parallelism = 1", "parallelism = 2");
    through_kills(following, copy_and_truncate);
}

/// The copies are read although `path` does not name them: as far as they have what was not
/// read of the file.
#[test]
fn what_was_not_read_of_a_file_that_was_cut_is_in_its_copy() {
    let following = Arc::new(Following::new());
    following.edit("app.log*", "app.log");
    let mut host = following.start();
    following.append("app.log", &text(0, 0..100));
    following.wait_for(100, &mut host);
    let mut expected = rows(0, 0..100);
    for number in 0..5 {
        following.append("app.log", &text(number, 100..10_000));
        let file = following.appended("app.log");
        let file = copy_and_truncate(&following, file, number, &mut Vec::new());
        drop(file);
        following.append("app.log", &text(number + 1, 0..100));
        expected.extend(rows(number, 100..10_000));
        expected.extend(rows(number + 1, 0..100));
        following.wait_for(expected.len(), &mut host);
    }
    following.stop(host);
    following.expect(&expected);
    // Between two runs, too, and the copy may have got another name.
    following.append("app.log", &text(5, 100..300));
    let file = following.appended("app.log");
    drop(copy_and_truncate(&following, file, 5, &mut Vec::new()));
    following.rename("app.log.5", "app.log.6");
    following.append("app.log", &text(6, 0..10));
    expected.extend(rows(5, 100..300));
    expected.extend(rows(6, 0..10));
    following.run_to(&expected);
}

/// A run that starts between the copy and the cut knows neither of the two files.
#[test]
fn a_copy_that_was_made_just_before_a_start_is_no_other_file() {
    let following = Following::new();
    following.append("app.log", &text(0, 0..2_000));
    let copied = following.path("app.log.1");
    fs::copy(following.path("app.log"), copied).expect("it is there");
    let mut host = following.start();
    let mut expected = rows(0, 0..2_000);
    following.wait_for(expected.len(), &mut host);
    let file = following.appended("app.log");
    file.set_len(0).expect("it is writable");
    following.append("app.log", &text(1, 0..10));
    expected.extend(rows(1, 0..10));
    following.wait_for(expected.len(), &mut host);
    following.stop(host);
    following.run_to(&expected);
}

#[test]
fn files_come_and_go() {
    let following = Following::new();
    fs::create_dir(following.path("others")).expect("a folder");
    following.edit(
        "path = \"app.log*\"",
        "path = [\"app.log*\", \"others/*.jsonl\", \"later.jsonl\", \"current\"]",
    );
    following.write("app.log", &text(0, 0..10));
    following.write("app.log.2.gz", "no text");
    let mut host = following.start();
    let mut expected = rows(0, 0..10);
    following.wait_for(10, &mut host);
    following.write("others/a.jsonl", &text(1, 0..10));
    following.write("others/b.jsonl", &text(2, 0..10));
    following.write("later.jsonl", &text(3, 0..10));
    (1..4).for_each(|file| expected.extend(rows(file, 0..10)));
    following.wait_for(expected.len(), &mut host);
    // A file that is deleted is read on as long as it is open.
    let mut deleted = following.appended("others/a.jsonl");
    fs::remove_file(following.path("others/a.jsonl")).expect("it is there");
    deleted
        .write_all(text(1, 10..20).as_bytes())
        .expect("it is writable");
    // One is replaced by a link to another one, which is read once all the same.
    following.rename("later.jsonl", "app.log.later");
    symlink("app.log.later", following.path("later.jsonl")).expect("a link");
    following.append("later.jsonl", &text(3, 10..20));
    // A link leads to one file after the other.
    following.write("current-1", &text(4, 0..10));
    symlink("current-1", following.path("current")).expect("a link");
    expected.extend(rows(1, 10..20));
    expected.extend(rows(3, 10..20));
    expected.extend(rows(4, 0..10));
    following.wait_for(expected.len(), &mut host);
    following.append("current", &text(4, 10..20));
    following.write("current-2", &text(5, 0..10));
    symlink("current-2", following.path("next")).expect("a link");
    following.rename("next", "current");
    expected.extend(rows(4, 10..20));
    expected.extend(rows(5, 0..10));
    following.wait_for(expected.len(), &mut host);
    following.stop(host);
    following.expect(&expected);
    let log = following.log();
    assert!(
        log.contains("app.log.2.gz is compressed, and not read"),
        "{log}"
    );
    // What happens between two runs is found, too.
    following.append("current-1", &text(4, 20..30));
    following.append("current", &text(5, 10..20));
    following.rename("app.log", "app.log.1");
    following.append("app.log.1", &text(0, 10..20));
    following.write("app.log", &text(6, 0..10));
    expected.extend(rows(4, 20..30));
    expected.extend(rows(5, 10..20));
    expected.extend(rows(0, 10..20));
    expected.extend(rows(6, 0..10));
    following.run_to(&expected);
}

/// Rotated files that are gone are forgotten, and so is what checkpoints know of them.
#[test]
fn what_was_read_and_is_gone_is_let_go_of() {
    let following = Following::new();
    following.write("app.log", &text(0, 0..10));
    let mut host = following.start();
    let mut expected = rows(0, 0..10);
    for number in 1..20 {
        following.wait_for(expected.len(), &mut host);
        following.rename("app.log", "app.log.1");
        following.write("app.log", &text(number, 0..10));
        expected.extend(rows(number, 0..10));
    }
    following.wait_for(expected.len(), &mut host);
    let let_go = || following.log().matches("and is let go of").count();
    following.wait_until(&mut host, || let_go() == 18);
    following.append("app.log.1", &text(18, 10..20));
    expected.extend(rows(18, 10..20));
    following.wait_for(expected.len(), &mut host);
    following.stop(host);
    let (code, said) = following.said(&["checkpoints", "list", "--json"]);
    assert_eq!(code, Some(0), "{said}");
    following.expect(&expected);
    following.run_to(&expected);
}

/// A last line waits for its line end, until nothing more is expected of its file.
#[test]
fn a_last_line_is_a_row_when_its_file_was_rotated_away() {
    let following = Following::new();
    let unfinished = row(0, 10);
    following.write("app.log", &(text(0, 0..10) + &unfinished[..20]));
    let mut host = following.start();
    following.wait_for(10, &mut host);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(following.rows().len(), 10, "it is not finished");
    following.append("app.log", &unfinished[20..]);
    following.stop(host);
    let mut host = following.start();
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(following.rows().len(), 10, "it has no line end");
    following.rename("app.log", "app.log.1");
    following.write("app.log", &text(1, 0..10));
    following.wait_for(21, &mut host);
    // Its line end may come all the same, and more.
    following.append("app.log.1", &format!("\n{}", text(0, 11..20)));
    following.wait_for(30, &mut host);
    following.stop(host);
    following.run_to(&[rows(0, 0..20), rows(1, 0..10)].concat());
    let letters = fs::read_to_string(following.path("following.dead.jsonl"));
    assert_eq!(letters.unwrap_or_default(), "");
}

#[test]
fn a_line_that_is_too_long_is_one_bad_row() {
    let following = Following::new();
    following.write("app.log", &text(0, 0..10));
    let mut host = following.start();
    following.wait_for(10, &mut host);
    let piece = "y".repeat(4 << 20);
    for _ in 0..5 {
        following.append("app.log", &piece);
        std::thread::sleep(Duration::from_millis(200));
    }
    let letters = || fs::read_to_string(following.path("following.dead.jsonl")).unwrap_or_default();
    following.wait_until(&mut host, || letters().lines().count() == 1);
    // It is skipped on by the next run.
    following.stop(host);
    let mut host = following.start();
    following.append("app.log", &piece);
    following.append("app.log", &format!("\n{}", text(0, 10..20)));
    following.wait_for(20, &mut host);
    following.stop(host);
    following.expect(&rows(0, 0..20));
    assert_eq!(letters().lines().count(), 1);
    assert!(letters().contains("16 MiB"), "{}", &letters()[..2_000]);
}

#[test]
fn a_csv_file_has_its_header_each_time() {
    let following = Following::new();
    following.edit("format = \"json\"", "format = \"csv\"");
    let csv = |file: u64, header: &str, n: std::ops::Range<u64>| {
        let rows = n.map(|n| format!("{file},{n},{}\n", "x".repeat(n as usize % 40)));
        header.to_owned() + &rows.collect::<String>()
    };
    following.write("app.log", "");
    let mut host = following.start();
    following.append("app.log", "f,n,");
    std::thread::sleep(Duration::from_millis(300));
    following.append("app.log", &csv(0, "text\n", 0..10));
    following.wait_for(10, &mut host);
    following.rename("app.log", "app.log.1");
    following.write("app.log", &csv(1, "f,n,text\n", 0..10));
    following.wait_for(20, &mut host);
    following.stop(host);
    following.append("app.log.1", &csv(0, "", 10..20));
    following.append("app.log", &csv(1, "", 10..20));
    following.run_to(&[rows(0, 0..20), rows(1, 0..20)].concat());
}

/// A file that is renamed out of `path` is found by its place on the disk.
#[test]
fn a_name_alone_is_followed_beyond_a_rotation_between_two_runs() {
    let following = Following::new();
    following.edit("app.log*", "app.log");
    following.write("app.log", &text(0, 0..10));
    following.run_to(&rows(0, 0..10));
    following.append("app.log", &text(0, 10..20));
    following.rename("app.log", "app.log.1");
    let expected = [rows(0, 0..20), rows(1, 0..10)].concat();
    let mut host = following.start();
    following.wait_for(20, &mut host);
    following.write("app.log", &text(1, 0..10));
    following.wait_for(30, &mut host);
    following.stop(host);
    following.expect(&expected);
}

#[test]
fn what_would_lose_rows_is_refused() {
    let following = Following::new();
    following.edit("interval = \"30ms\"", "interval = \"1h\"");
    following.write("app.log", &(text(0, 0..10) + "{\"f\":0,"));
    let mut host = following.start();
    following.wait_for(0, &mut host);
    std::thread::sleep(Duration::from_millis(500));
    following.stop(host);
    following.expect(&rows(0, 0..10));
    following.rename("app.log", "other");
    fs::create_dir(following.path("elsewhere")).expect("a folder");
    following.rename("other", "elsewhere/app.log");
    let (code, said) = following.said(&["run", "--quiet"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("app.log had been read up to byte"), "{said}");
    following.rename("elsewhere/app.log", "app.log.7");
    following.append("app.log.7", &row(0, 10)["{\"f\":0,".len()..]);
    following.append("app.log.7", "\n{");
    following.run_to(&rows(0, 0..11));
    // It is cut, and no copy is there.
    let file = OpenOptions::new()
        .write(true)
        .open(following.path("app.log.7"));
    file.and_then(|file| file.set_len(3)).expect("it is there");
    let (code, said) = following.said(&["run", "--quiet"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("app.log was cut when"), "{said}");
    assert!(said.contains("--drop"), "{said}");
    let mut command = following.command(&["run", "--quiet", "--drop", "rows/app.log"]);
    let mut host = command.spawn().expect("it starts");
    following.append("app.log.7", &format!("{}\n", &row(0, 11)[3..]));
    following.wait_for(12, &mut host);
    following.stop(host);
    following.expect(&rows(0, 0..12));
}

#[test]
fn files_begin_at_their_ends_if_that_is_asked_for() {
    let following = Following::new();
    following.edit("follow = true", "follow = true\nstart = \"end\"");
    let unfinished = row(0, 10);
    following.write("app.log", &(text(0, 0..10) + &unfinished[..10]));
    let mut host = following.start();
    following.wait_until(&mut host, || following.path("following.state").exists());
    std::thread::sleep(Duration::from_millis(500));
    following.append("app.log", &format!("{}\n", &unfinished[10..]));
    following.append("app.log", &text(0, 11..20));
    following.write("app.log.1", &text(1, 0..10));
    following.wait_for(20, &mut host);
    following.stop(host);
    // Files that are new to a run that goes on are read from their beginnings.
    following.write("app.log.2", &text(2, 0..10));
    following.run_to(&[rows(0, 10..20), rows(1, 0..10), rows(2, 0..10)].concat());
}

/// What a run has read to its end is followed by the next one.
#[test]
fn a_source_begins_to_follow_what_it_has_read() {
    let following = Following::new();
    following.edit("follow = true", "");
    following.write("app.log", &text(0, 0..10));
    following.write("app.log.1", &text(1, 0..10));
    let (code, said) = following.said(&["run", "--quiet"]);
    assert_eq!(code, Some(0), "{said}");
    following.edit("format = \"json\"", "format = \"json\"\nfollow = true");
    following.append("app.log", &text(0, 10..20));
    following.run_to(&[rows(0, 0..20), rows(1, 0..10)].concat());
}

/// Files that have no more rows do not hold back event time for ever.
#[test]
fn windows_fire_although_files_are_silent() {
    let following = Following::new();
    following.edit(
        "fields = {",
        "event_time = \"ts\"\nwatermark = { idle_after = \"1s\" }\nfields = { ts = \"int64\",",
    );
    following.edit(
        "[sinks.out]",
        "[operators.counts]\naggregate = { n = \"count()\" }\ninput = \"rows\"\nkey = \"f\"\n\
         window = { tumbling = \"1s\" }\n[sinks.out]",
    );
    following.edit("input = \"rows\"\nroll", "input = \"counts\"\nroll");
    let timed = |file: u64, seconds: std::ops::Range<u64>| -> String {
        let row = |n| format!("{{\"ts\":{},{}\n", n * 1_000 + 500, &row(file, n)[1..]);
        seconds.map(row).collect()
    };
    following.write("app.log", &timed(7, 0..3));
    let mut host = following.start();
    following.wait_for(2, &mut host);
    following.rename("app.log", "app.log.1");
    following.write("app.log", &timed(7, 3..6));
    // The last second's window is open, and all others have fired.
    following.wait_for(5, &mut host);
    following.stop(host);
}

#[test]
fn mistakes_are_told() {
    let following = Following::new();
    let check = |from: &str, to: &str, expected: &str| {
        following.write("following.toml", PIPELINE);
        following.edit(from, to);
        let (code, said) = following.said(&["check"]);
        assert_eq!(code, Some(2), "{said}");
        let said = said.replace(['\n', '│'], " ");
        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(said.contains(expected), "{said}");
    };
    check("app.log*", "app.gz", "follows compressed files");
    check("app.log*", "none/*.log", "cannot look for `*.log` in");
    check("app.log*", "-", "follows a pipe");
    check("app.log*", "*/a.log", "has a `*` in a folder's name");
    check(
        "\"app.log*\"",
        "\"app.log*\"\ncompression = \"zstd\"",
        "follows compressed files",
    );
    check(
        "follow = true",
        "start = \"end\"",
        "has a `start`, and reads all of its files",
    );
    check(
        "follow = true",
        "follow = true\nstart = \"now\"",
        "cannot be `now`",
    );
    following.write("following.toml", PIPELINE);
    let (code, said) = following.said(&["check"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("follows "), "{said}");
    assert!(said.contains("the run waits for files"), "{said}");
    // What is no text is refused when it comes.
    let mut host = following.start();
    following.write("app.log", "\u{1F}\u{8B}\n");
    fs::write(following.path("app.log"), b"\x1F\x8B\x08\n").expect("it is writable");
    let ended = host.wait().expect("it is our child");
    assert_eq!(ended.code(), Some(1), "{}", following.log());
    assert!(
        following.log().contains("looks like gzip"),
        "{}",
        following.log()
    );
}
