//! What several parts of a pipeline may write to and read, by whichever names: files, pipes,
//! and what a shell has redirected.

/// Signals to a running host.
#[expect(dead_code, reason = "no run here ignores any")]
#[path = "common/signal.rs"]
mod signal;

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

const SOURCE: &str = "[sources.rows]\ntype = \"file\"\nformat = \"json\"\n\
    fields = { id = \"utf8\", n = \"int64\" }\n";

/// Makes the files that pipelines here name.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = |name: &str| folder.path().join(name);
    fs::write(at("rows.jsonl"), "{\"id\":\"a\",\"n\":1}\n").expect("it is writable");
    let made = Command::new("mkfifo").arg(at("pipe")).status();
    assert!(made.expect("it is there").success());
    fs::write(at("f.jsonl.part"), "").expect("it is writable");
    fs::hard_link(at("pipe"), at("hard")).expect("another name");
    symlink("pipe", at("link")).expect("a link");
    folder
}

fn source(path: &str) -> String {
    format!("{SOURCE}path = \"{path}\"\n")
}

fn sink(name: &str, path: &str) -> String {
    let kind = match path {
        "console" => "type = \"console\"".to_owned(),
        path => format!(
            "type = \"file\"\nformat = \"json\"\nif_exists = \"replace\"\npath = \"{path}\""
        ),
    };
    format!("[sinks.{name}]\ninput = \"rows\"\n{kind}\n")
}

/// Checks a pipeline in a shell that redirects its command so.
fn checked(pipeline: &str, redirected: &str, folder: &Path) -> Output {
    fs::write(folder.join("pipeline.toml"), pipeline).expect("it is writable");
    let script = format!("\"$0\" check pipeline.toml {redirected}");
    let mut shell = Command::new("sh");
    let command = shell.arg("-c").arg(script);
    let command = command.arg(env!("CARGO_BIN_EXE_sluicebox"));
    let output = command.current_dir(folder).stdin(Stdio::null()).output();
    output.expect("there is a shell")
}

/// What a command said, wherever its standard error went.
fn said(output: &Output, folder: &Path) -> String {
    let files = [
        "all",
        "other",
        "rows.jsonl",
        "f.jsonl",
        "f.jsonl.part",
        "dead.jsonl",
    ];
    let files = files.map(|name| fs::read_to_string(folder.join(name)).unwrap_or_default());
    let printed = [&*output.stdout, &*output.stderr].concat();
    format!("{}{}", String::from_utf8_lossy(&printed), files.concat())
}

#[test]
fn what_several_names_lead_to_is_used_once() {
    let one_and_other = |one: &str, other: &str| {
        format!(
            "name = \"p\"\n{}{}{}",
            source("rows.jsonl"),
            sink("one", one),
            sink("other", other)
        )
    };
    let reads = |path: &str, to: &str| format!("name = \"p\"\n{}{}", source(path), sink("out", to));
    let letters = |path: &str, to: &str| {
        let (source, sink) = (source("rows.jsonl"), sink("out", to));
        format!("name = \"p\"\ndead_letters = \"{path}\"\n{source}{sink}")
    };
    let two_sources = |one: &str, other: &str| {
        let other = source(other).replace("sources.rows", "sources.more");
        let more = sink("out_more", "/dev/null").replace("\"rows\"", "\"more\"");
        format!("{}{other}{more}", reads(one, "/dev/null"))
    };
    let cases = [
        // Two sinks.
        (
            one_and_other("/dev/fd/3", "/proc/self/fd/3"),
            "3>all",
            Some("file"),
        ),
        (
            one_and_other("/dev/fd/3", "/proc/thread-self/fd/3"),
            "3>all",
            Some("file"),
        ),
        (
            one_and_other("/dev/fd/3", "/dev/fd/4"),
            "3>all 4>&3",
            Some("file"),
        ),
        (
            one_and_other("/dev/fd/3", "/dev/fd/4"),
            "3>>all 4>>all",
            Some("file"),
        ),
        (
            one_and_other("/dev/fd/3", "/dev/fd/4"),
            "3>all 4>other",
            None,
        ),
        (
            one_and_other("/dev/fd/3", "/dev/fd/4"),
            "3>/dev/null 4>&3",
            None,
        ),
        (one_and_other("-", "/dev/stderr"), ">all 2>&1", Some("file")),
        (
            one_and_other("console", "/dev/stderr"),
            ">all 2>&1",
            Some("file"),
        ),
        (one_and_other("-", "/dev/stderr"), "2>&1", Some("pipe")),
        (one_and_other("-", "/dev/fd/3"), "3>&1", Some("pipe")),
        (one_and_other("-", "/dev/fd/3"), "3>&2", None),
        (one_and_other("-", "/dev/stderr"), ">/dev/null 2>&1", None),
        (one_and_other("pipe", "hard"), "", Some("pipe")),
        (one_and_other("link", "hard"), "", Some("pipe")),
        (one_and_other("-", "hard"), "1<>pipe", Some("pipe")),
        (one_and_other("-", "f.jsonl"), ">f.jsonl", Some("file")),
        (
            one_and_other("f.jsonl", "-"),
            ">>f.jsonl.part",
            Some("file"),
        ),
        (
            one_and_other("f.jsonl", "console"),
            ">f.jsonl.part",
            Some("file"),
        ),
        (one_and_other("f.jsonl", "-"), ">all", None),
        // The log beside rows is wanted, but not in a sink's own file.
        (reads("rows.jsonl", "-"), ">all 2>&1", None),
        (reads("rows.jsonl", "console"), ">all 2>&1", None),
        (reads("rows.jsonl", "/dev/stderr"), "2>all", None),
        (
            reads("rows.jsonl", "f.jsonl"),
            "2>f.jsonl.part",
            Some("file"),
        ),
        (reads("rows.jsonl", "f.jsonl"), "2>all", None),
        // What is read.
        (reads("rows.jsonl", "-"), ">>rows.jsonl", Some("file")),
        (reads("r*.jsonl", "-"), ">>rows.jsonl", Some("file")),
        (reads("rows.jsonl", "console"), ">>rows.jsonl", Some("file")),
        (
            reads("rows.jsonl", "/dev/fd/3"),
            "3>>rows.jsonl",
            Some("file"),
        ),
        (reads("-", "-"), "<rows.jsonl >>rows.jsonl", Some("file")),
        (reads("-", "f.jsonl"), "<f.jsonl.part", Some("file")),
        (reads("-", "pipe"), "<>hard", Some("pipe")),
        (reads("pipe", "hard"), "", Some("pipe")),
        (reads("pipe", "-"), "1<>pipe", Some("pipe")),
        // A run would read its own log for ever.
        (reads("rows.jsonl", "-"), "2>>rows.jsonl", Some("file")),
        (reads("r*.jsonl", "f.jsonl"), "2>>rows.jsonl", Some("file")),
        (
            reads("-", "f.jsonl"),
            "<rows.jsonl 2>>rows.jsonl",
            Some("file"),
        ),
        (two_sources("pipe", "hard"), "", Some("pipe")),
        (two_sources("-", "hard"), "<>pipe", Some("pipe")),
        (
            two_sources("/dev/fd/3", "/dev/fd/4"),
            "3<>pipe 4<&3",
            Some("pipe"),
        ),
        // Each reads it from its beginning.
        (two_sources("-", "rows.jsonl"), "<rows.jsonl", None),
        // Dead letters.
        (letters("/dev/stderr", "-"), ">all 2>&1", Some("file")),
        (letters("-", "/dev/stderr"), ">all 2>&1", Some("file")),
        (letters("-", "/dev/fd/3"), "3>&1", Some("pipe")),
        (letters("pipe", "hard"), "", Some("pipe")),
        (letters("dead.jsonl", "-"), ">dead.jsonl", Some("file")),
        (
            letters("dead.jsonl", "f.jsonl"),
            "2>dead.jsonl",
            Some("file"),
        ),
        (letters("-", "f.jsonl"), ">f.jsonl.part", Some("file")),
        (letters("-", "f.jsonl"), ">>rows.jsonl", Some("file")),
        (letters("-", "f.jsonl"), ">all 2>&1", None),
    ];
    for (pipeline, redirected, shared) in cases {
        let folder = folder();
        let output = checked(&pipeline, redirected, folder.path());
        let said = said(&output, folder.path());
        let how = format!("{redirected}\n{pipeline}\n{said}");
        let code = if shared.is_some() { 2 } else { 0 };
        assert_eq!(output.status.code(), Some(code), "{how}");
        if let Some(shared) = shared {
            // Once where the log goes there, too.
            let expected = format!("one {shared} is used twice: ");
            let reports = said.matches(&expected).count();
            assert!(reports == 1 || redirected.contains("2>&1"), "{how}");
        }
    }
}

/// What a shell has opened there lies between the host's own files, and goes with them.
#[test]
fn nothing_is_redirected_to_the_folders_of_the_host() {
    for (to, redirected, used) in [
        ("-", ">state/x", Some("sink `out` writes it")),
        ("-", ">>state/deep/x", Some("sink `out` writes it")),
        ("console", ">state/x", Some("sink `out` prints to it")),
        ("/dev/fd/3", "3>state/x", Some("sink `out` writes it")),
        ("-", ">copies/p/x", Some("sink `out` writes it")),
        ("f.jsonl", "2>state/x", Some("the log goes to it")),
        ("f.jsonl", "2>copies/p/x", Some("the log goes to it")),
        // Those of other pipelines have folders of their own there.
        ("-", ">copies/x", None),
        ("-", ">state-of-others", None),
        // Nothing is written to it.
        ("f.jsonl", ">state/x", None),
    ] {
        let folder = folder();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("state/deep")).expect("a folder");
        fs::create_dir_all(at("copies/p")).expect("a folder");
        let (source, sink) = (source("rows.jsonl"), sink("out", to));
        let copies = at("copies");
        let pipeline = format!(
            "name = \"p\"\n[state]\npath = \"state\"\n[checkpoints]\n\
             upload = {{ url = \"file://{}\" }}\n{source}{sink}",
            copies.display()
        );
        let output = checked(&pipeline, redirected, folder.path());
        let mut said = said(&output, folder.path());
        for file in ["state/x", "copies/p/x"] {
            said += &fs::read_to_string(at(file)).unwrap_or_default();
        }
        let code = if used.is_some() { 2 } else { 0 };
        assert_eq!(
            output.status.code(),
            Some(code),
            "{to} {redirected}: {said}"
        );
        if let Some(used) = used {
            assert!(said.contains("one file is used twice: "), "{said}");
            assert!(said.contains(used), "{redirected}: {said}");
        }
    }
}

/// Two runs at the same time, whose rows would be mixed.
#[test]
fn a_pipe_is_written_by_one_run() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    // It has no end.
    let source = "[sources.rows]\ntype = \"tcp\"\nlisten = \"127.0.0.1:0\"\n\
                  format = \"json\"\nfields = { id = \"utf8\" }\n";
    let sink = sink("out", "pipe");
    fs::write(at("one.toml"), format!("name = \"one\"\n{source}{sink}")).expect("it is writable");
    let restart = "[restart]\ndelay = \"1ms\"\n[checkpoints]\n";
    let two = format!("name = \"two\"\n{restart}{source}{sink}");
    fs::write(at("two.toml"), two).expect("it is writable");
    let reader = File::options().read(true).write(true).open(at("pipe"));
    let _reader = reader.expect("a pipe");
    let run = |name: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sluicebox"));
        let command = command.args(["run", "--quiet", name]);
        let command = command.current_dir(folder.path()).stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        command.spawn().expect("it starts")
    };
    let mut one = run("one.toml");
    std::thread::sleep(Duration::from_secs(2));
    let two = run("two.toml").wait_with_output().expect("it is our child");
    let said = String::from_utf8_lossy(&two.stderr);
    assert_eq!(two.status.code(), Some(1), "{said}");
    assert!(said.contains("another run is writing it"), "{said}");
    assert!(!said.contains("restarts in"), "{said}");
    assert!(
        one.try_wait().expect("it is our child").is_none(),
        "it runs"
    );
    one.kill().expect("it runs");
    one.wait().expect("it is our child");
}

/// Both names are said, and what to do.
#[test]
fn a_shared_pipe_is_told_of_by_its_names() {
    let folder = folder();
    let pipeline = format!(
        "name = \"p\"\n{}{}{}",
        source("rows.jsonl"),
        sink("one", "-"),
        sink("other", "/proc/self/fd/3")
    );
    let output = checked(&pipeline, "3>&1", folder.path());
    let said = said(&output, folder.path());
    for expected in [
        "one pipe is used twice: sink `other` writes it, and sink `one` writes it",
        "both /dev/fd/3 and /dev/stdout lead to it",
        "redirect one of them to another file or pipe, or change its `path`",
    ] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
}

/// A terminal is standard output and error at once, as a socket of the system's journal is.
#[test]
fn a_terminal_and_a_socket_are_shared() {
    // SAFETY: it opens a terminal, whose two ends nobody else has.
    let (people, terminal) = unsafe {
        let people = libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY);
        assert_ne!(people, -1, "a terminal");
        assert_eq!((libc::grantpt(people), libc::unlockpt(people)), (0, 0));
        let name = std::ffi::CStr::from_ptr(libc::ptsname(people)).to_owned();
        let name = name.into_string().expect("a path");
        let mut options = File::options();
        let terminal = options.read(true).write(true).open(name);
        (
            OwnedFd::from_raw_fd(people),
            OwnedFd::from(terminal.expect("a terminal")),
        )
    };
    let (reader, socket) = UnixStream::pair().expect("a socket");
    for shared in [terminal, OwnedFd::from(socket)] {
        let folder = folder();
        let (source, one) = (source("-"), sink("one", "-"));
        let two = sink("two", "/dev/stderr");
        let pipeline = format!("name = \"p\"\n{source}{one}{two}");
        fs::write(folder.path().join("pipeline.toml"), pipeline).expect("it is writable");
        let end = || Stdio::from(shared.try_clone().expect("another descriptor"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_sluicebox"));
        command
            .args(["check", "pipeline.toml"])
            .current_dir(folder.path());
        let status = command.stdin(end()).stdout(end()).stderr(end()).status();
        assert_eq!(status.expect("it starts").code(), Some(0));
    }
    drop((people, reader));
}

/// Whatever a shell has made of the descriptors, rows of two sinks are mixed nowhere.
#[test]
fn no_redirection_hides_that_two_are_one() {
    #[derive(Clone, Copy, PartialEq, Debug)]
    enum Place {
        Nothing,
        Null,
        File(&'static str),
        Pipe,
    }
    for seed in 0..80 {
        let mut random = fastrand::Rng::with_seed(seed);
        let folder = folder();
        let mut leads = [Place::Nothing; 6];
        // The test's own pipes.
        leads[1] = Place::File("stdout");
        leads[2] = Place::File("stderr");
        let mut redirected = String::new();
        for _ in 0..random.usize(1..6) {
            let number = random.usize(1..6);
            let from = random.usize(1..6);
            let (how, place) = match random.usize(0..8) {
                0 => ("<>/dev/null".to_owned(), Place::Null),
                1 => ("<>hard".to_owned(), Place::Pipe),
                2 => (">>rows.jsonl".to_owned(), Place::File("rows")),
                3 => (">f.jsonl".to_owned(), Place::File("f")),
                4 => (">f.jsonl.part".to_owned(), Place::File("f.part")),
                5 => (">all".to_owned(), Place::File("all")),
                _ if leads[from] == Place::Nothing => continue,
                _ => (format!(">&{from}"), leads[from]),
            };
            redirected += &format!(" {number}{how}");
            leads[number] = place;
        }
        // A name, its descriptor if it is one, and where it leads.
        let mut named = || {
            let number = random.usize(1..6);
            let folder = random.choice(["/dev/fd", "/proc/self/fd"]).expect("some");
            match random.usize(0..6) {
                0 => ("pipe".to_owned(), None, vec![Place::Pipe]),
                1 => (
                    "./f.jsonl".to_owned(),
                    None,
                    vec![Place::File("f"), Place::File("f.part")],
                ),
                2 => ("-".to_owned(), Some(1), vec![leads[1]]),
                3 => ("/dev/stderr".to_owned(), Some(2), vec![leads[2]]),
                _ => (
                    format!("{folder}/{number}"),
                    Some(number),
                    vec![leads[number]],
                ),
            }
        };
        let (one, other) = (named(), named());
        let is_mixed = |place: &Place| matches!(place, Place::File(_) | Place::Pipe);
        let meets = |places: &[Place]| {
            let mut places = places.iter().filter(|place| is_mixed(place));
            places.any(|place| other.2.contains(place))
        };
        let is_same = one.1.is_some() && one.1 == other.1;
        let is_input = [&one, &other]
            .iter()
            .any(|it| it.2.contains(&Place::File("rows")));
        let has_log = |it: &(String, Option<usize>, Vec<Place>)| {
            it.1.is_none() && is_mixed(&leads[2]) && it.2.contains(&leads[2])
        };
        let is_log_read = leads[2] == Place::File("rows");
        let has_log = is_log_read || has_log(&one) || has_log(&other);
        let refused = is_same || meets(&one.2) || is_input || has_log;
        let pipeline = format!(
            "name = \"p\"\n{}{}{}",
            source("rows.jsonl"),
            sink("one", &one.0),
            sink("other", &other.0)
        );
        let output = checked(&pipeline, &redirected, folder.path());
        let code = if refused { 2 } else { 0 };
        let said = said(&output, folder.path());
        let how = format!("seed {seed}: {redirected}\n{pipeline}\n{said}");
        assert_eq!(output.status.code(), Some(code), "{how}");
    }
}

/// Its reader was late before the signal, and is back.
#[test]
fn a_reader_that_is_back_gets_all_rows_after_a_signal() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let rows = "{\"id\":\"a\",\"n\":1}\n".repeat(20_000);
    fs::write(at("rows.jsonl"), &rows).expect("it is writable");
    let pipeline = format!(
        "name = \"p\"\nbatch_rows = 10000\n{}{}",
        source("rows.jsonl"),
        sink("out", "pipe")
    );
    fs::write(at("pipeline.toml"), pipeline).expect("it is writable");
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluicebox"));
    let command = command.args(["run", "--quiet"]).arg(at("pipeline.toml"));
    let host = command.stderr(Stdio::piped()).spawn().expect("it starts");
    let mut reader = File::open(at("pipe")).expect("a pipe");
    let mut text = vec![0; 1 << 10];
    reader.read_exact(&mut text).expect("rows");
    // For longer than a run waits that was asked to stop.
    std::thread::sleep(Duration::from_millis(2_000));
    signal::send(&host, libc::SIGTERM);
    std::thread::sleep(Duration::from_millis(500));
    reader.read_to_end(&mut text).expect("rows");
    let output = host.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(text.ends_with(b"\n"), "{said}");
}
