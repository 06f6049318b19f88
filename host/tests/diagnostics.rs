//! What commands say: it fits what is there, controls no terminal, and shows no secret.

/// Signals to a running host.
#[path = "common/signal.rs"]
mod signal;

use std::fs;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

const HOST: &str = env!("CARGO_BIN_EXE_sluicebox");

fn sluicebox(arguments: &[&str], folder: &Path) -> Output {
    let mut command = Command::new(HOST);
    command.args(arguments).current_dir(folder);
    command.stdin(Stdio::null()).output().expect("it starts")
}

fn printed(output: &Output) -> String {
    let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    format!("{out}{err}")
}

/// A pipeline of rows of this file, in a folder.
fn pipeline(path: &str, fields: &str, more: &str) -> String {
    format!(
        "name = \"said\"\n[sources.rows]\ntype = \"file\"\npath = \"{path}\"\n\
         fields = {{ {fields} }}\n{more}\n[sinks.out]\ntype = \"file\"\npath = \"out.jsonl\"\n\
         if_exists = \"replace\"\ninput = \"rows\"\n"
    )
}

fn write(folder: &Path, name: &str, content: impl AsRef<[u8]>) {
    fs::write(folder.join(name), content).expect("it is writable");
}

/// No column is lost without a word: what the header lacks is said, or refused.
#[test]
fn columns_that_a_header_lacks_are_told_of() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    write(
        at,
        "p.toml",
        pipeline("rows.csv", "id = \"int64\", b = \"utf8?\"", ""),
    );
    let near = |name: &str| {
        format!(
            "the header has no column `b`, which is null in all its rows; it names `id`, `{name}`; is `b` its `{name}`"
        )
    };
    for (text, code, said) in [
        ("id,b\n1,x\n", 0, None),
        ("\u{FEFF}id,b\r\n1,x\r\n", 0, None),
        ("id,b\r\r\n1,x\r\r\n", 0, None),
        ("\"id\",\"b\"\n1,x\n", 0, None),
        ("id, b\n1,x\n", 0, Some(near(" b"))),
        ("id,B\n1,x\n", 0, Some(near("B"))),
        ("id,c\n1,x\n", 0, Some("has no column `b`".to_owned())),
        ("id;b\n1;x\n", 2, Some("delimiter = \";\"".to_owned())),
        ("id\tb\n1\tx\n", 2, Some("delimiter = \"\\t\"".to_owned())),
        ("id,b,b\n1,x,y\n", 2, Some("column `b` twice".to_owned())),
        (
            "id,b\r1,x\r2,y\r",
            2,
            Some("found a `\\r` alone".to_owned()),
        ),
    ] {
        write(at, "rows.csv", text);
        for command in ["check", "run"] {
            let output = sluicebox(&[command, "p.toml"], at);
            let shown = printed(&output);
            assert_eq!(output.status.code(), Some(code), "{text:?}: {shown}");
            match &said {
                Some(said) => assert!(shown.contains(said), "{text:?}: {shown}"),
                None => assert!(!shown.contains("header"), "{text:?}: {shown}"),
            }
        }
        if said.is_none() {
            let rows = fs::read_to_string(at.join("out.jsonl")).expect("it was written");
            assert_eq!(rows, "{\"id\":1,\"b\":\"x\"}\n", "{text:?}");
        }
    }
    // A header that is longer than what is looked at.
    write(at, "rows.csv", format!("id,b{}", "\r1,x".repeat(100_000)));
    let shown = printed(&sluicebox(&["check", "p.toml"], at));
    assert!(shown.contains("found a `\\r` alone"), "{shown}");
    // Of a pipe, only the run can tell.
    write(
        at,
        "p.toml",
        pipeline("-", "id = \"int64\", b = \"utf8?\"", "format = \"csv\""),
    );
    let mut host = Command::new(HOST)
        .args(["run", "p.toml"])
        .current_dir(at)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut input = host.stdin.take().expect("it is a pipe");
    input.write_all(b"id, b\n1,x\n").expect("it is read");
    drop(input);
    let shown = printed(&host.wait_with_output().expect("it ends"));
    assert!(shown.contains(&near(" b")), "{shown}");
}

/// One warning for many files alike.
#[test]
fn files_that_lack_the_same_are_told_of_together() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    for n in 0..20 {
        write(at, &format!("r{n:02}.csv"), "id\n1\n");
    }
    let fields = "id = \"int64\", b = \"utf8?\"";
    write(at, "p.toml", pipeline("r*.csv", fields, ""));
    let shown = printed(&sluicebox(&["check", "p.toml"], at));
    assert_eq!(shown.matches("has no column").count(), 1, "{shown}");
    assert!(shown.contains("r00.csv and 19 other files"), "{shown}");
}

/// What a terminal would not just show.
fn is_odd(character: char) -> bool {
    let is_line = matches!(character, '\n' | '\t');
    let is_direction = matches!(
        character,
        '\u{061C}' | '\u{200E}' | '\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}'
    );
    is_direction || (character.is_control() && !is_line)
}

const ODD: [char; 14] = [
    '\x01', '\x07', '\x08', '\r', '\x1B', '\x7F', '\u{80}', '\u{9B}', '\u{9D}', '\u{061C}',
    '\u{200F}', '\u{2028}', '\u{202E}', '\u{2066}',
];

/// Wherever a text comes from: the file, its name, a header, a row, an argument.
#[test]
fn what_is_said_controls_no_terminal() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    for case in 0..60 {
        let mut odd = String::new();
        for _ in 0..random.usize(1..6) {
            odd.push(random.choice(ODD).expect("there are some"));
            odd.push_str("[2J");
        }
        let basic: String = odd
            .chars()
            .map(|it| format!("\\u{:04x}", u32::from(it)))
            .collect();
        // C0 cannot be written as it is.
        let raw: String = odd.chars().filter(|it| !it.is_ascii_control()).collect();
        let written = match random.bool() {
            true => &basic,
            false => &raw,
        };
        let mut text = pipeline("rows.csv", "id = \"int64\", b = \"utf8?\"", "");
        let mut name = "p.toml".to_owned();
        let mut header = "id,b".to_owned();
        match case % 12 {
            0 => name = format!("p{odd}.toml"),
            1 => header = format!("id,b{odd}"),
            2 => header = format!("\"{odd}\",b"),
            3 => text = text.replace("rows.csv", &format!("rows{written}.csv")),
            4 => text = text.replace("input = \"rows\"", &format!("input = \"{written}\"")),
            5 => text = text.replace("int64", written),
            6 => text = text.replace("b = \"utf8?\"", &format!("\"{written}\" = \"utf8?\"")),
            7 => text = text.replace("[sinks.out]", &format!("[sinks.\"{written}\"]")),
            8 => text = text.replace("\"replace\"", &format!("\"{written}")),
            9 => text.push_str(&format!("# {odd}\nx = {odd}\n")),
            10 => {
                text = text.replace(
                    "type = \"file\"\npath = \"out.jsonl\"\nif_exists = \"replace\"",
                    &format!(
                        "type = \"kafka\"\nbrokers = \"127.0.0.1:1\"\ntopic = \"{written}\"\n\
                         properties = {{ \"linger.ms\" = {{ env = \"{written}\" }} }}"
                    ),
                );
            }
            _ => {
                text = text.replace("rows.csv", "odd*.csv");
                write(
                    at,
                    &format!("odd{odd}.csv"),
                    format!("id,c\n1,x\n{odd},y\n"),
                );
            }
        }
        write(at, &name, &text);
        write(at, "rows.csv", format!("{header}\n1,x\n{odd},{odd}\n"));
        for arguments in [
            &["check", &name][..],
            &["check", "--json", &name],
            &["run", &name],
            &["run", "--json", &name],
            &["run", &name, "--from", &odd],
            &["check", &odd],
            &["run", &format!("--{odd}")],
        ] {
            let output = sluicebox(arguments, at);
            for stream in [&output.stdout, &output.stderr] {
                let shown = String::from_utf8_lossy(stream);
                let found: Vec<char> = shown.chars().filter(|it| is_odd(*it)).collect();
                assert!(
                    found.is_empty(),
                    "seed {seed}, case {case}, {arguments:?}: {found:?} in {shown}"
                );
            }
        }
        fs::remove_file(at.join(&name)).expect("it is there");
        for file in fs::read_dir(at).expect("a folder") {
            let path = file.expect("a file").path();
            fs::remove_file(path).expect("it is there");
        }
    }
}

/// Wherever somebody writes it that is not meant for it.
#[test]
fn no_secret_is_said() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    write(at, "rows.jsonl", "{\"id\":1}\n");
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    let base = pipeline("rows.jsonl", "id = \"int64\"", "").replace(
        "[sources.rows]",
        "[state]\npath = \"state\"\n[checkpoints]\nupload = { url = \"file:///tmp\", options = { region = \"r\" } }\n\
         [sources.clicks]\ntype = \"kafka\"\nbrokers = \"127.0.0.1:1\"\ntopic = \"clicks\"\n\
         fields = { id = \"int64\" }\nproperties = { \"client.id\" = \"c\" }\n[sources.rows]",
    );
    let places = [
        "\"said\"",
        "\"rows.jsonl\"",
        "\"out.jsonl\"",
        "\"replace\"",
        "\"rows\"\n",
        "\"file:///tmp\"",
        "\"127.0.0.1:1\"",
        "\"clicks\"\nfields",
        "\"state\"",
        "{ region = \"r\" }",
        "\"c\"",
        "\"int64\"",
        "[sinks.out]",
        "\"kafka\"",
    ];
    for case in 0..120 {
        let secret: String = (0..12).map(|_| random.alphanumeric()).collect();
        let address = match random.u8(0..7) {
            0 => format!("s3://key:{secret}@host/prefix"),
            1 => format!("https://key:a/{secret}@host:9000/prefix"),
            2 => format!("user:{secret}@host:9092"),
            3 => format!("https://{secret}@host"),
            4 => format!("https://host/p?n=1&X-Amz-Signature={secret}"),
            5 => format!("https://host/p?token={secret}#a"),
            _ => format!("kafka://u:{secret}@[::1]:9092"),
        };
        let place = places[case % places.len()];
        let instead = match place {
            "[sinks.out]" => format!("[sinks.\"{address}\"]"),
            "{ region = \"r\" }" => format!("{{ endpoint = \"{address}\" }}"),
            "\"rows\"\n" => format!("\"{address}\"\n"),
            "\"clicks\"\nfields" => format!("\"{address}\"\nfields"),
            _ if random.u8(0..5) == 0 => format!("\"{address}"),
            _ => format!("\"{address}\""),
        };
        let text = base.replacen(place, &instead, 1);
        assert!(text.contains(&secret), "{place}");
        write(at, "p.toml", &text);
        for arguments in [
            &["check", "p.toml"][..],
            &["check", "--json", "p.toml"],
            &["checkpoints", "list", "p.toml"],
        ] {
            let output = sluicebox(arguments, at);
            let shown = printed(&output);
            assert!(
                !shown.contains(&secret),
                "seed {seed}, case {case}, {arguments:?}: {text}{shown}"
            );
            let is_hidden = ["{ region = \"r\" }", "\"c\""].contains(&place);
            if arguments[0] == "check" && !is_hidden {
                assert_eq!(output.status.code(), Some(2), "{address}: {shown}");
            }
        }
    }
}

/// With few descriptors, a run goes well, or says that they are few.
#[test]
fn too_few_descriptors_are_told_of() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    write(at, "rows.jsonl", "{\"id\":1}\n".repeat(10));
    let plain = pipeline("rows.jsonl", "id = \"int64\"", "");
    let kept = format!("state = {{ path = \"state\" }}\ncheckpoints = {{}}\n{plain}");
    for (name, text) in [("plain", plain), ("kept", kept)] {
        write(at, "p.toml", text);
        for allowed in 5..41 {
            let output = Command::new("sh")
                .args([
                    "-c",
                    &format!("ulimit -n {allowed}; exec {HOST} run -q p.toml"),
                ])
                .current_dir(at)
                .output()
                .expect("it starts");
            let shown = printed(&output);
            let of_what = format!("{name}, {allowed} descriptors: {shown}");
            assert!(!shown.contains("internal error"), "{of_what}");
            assert!(!shown.contains("a bug"), "{of_what}");
            if !output.status.success() {
                assert_eq!(output.status.code(), Some(1), "{of_what}");
                assert!(shown.contains("raise the limit (`ulimit -n`)"), "{of_what}");
            }
            let _ = fs::remove_dir_all(at.join("state"));
        }
    }
}

/// A type of a megabyte takes no time, nor do fields beyond number.
#[test]
fn what_is_beyond_reason_is_refused_at_once() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    write(at, "rows.jsonl", "");
    let symbols = |count: usize| {
        let symbols: Vec<String> = (0..count).map(|n| format!("s{n}")).collect();
        format!("id = \"{}\"", symbols.join("|"))
    };
    let fields = |count: usize| {
        let fields: Vec<String> = (0..count).map(|n| format!("f{n} = \"utf8?\"")).collect();
        fields.join(", ")
    };
    for (fields, said) in [
        (symbols(1_000), None),
        (symbols(100_000), Some("it has 100000 symbols")),
        (fields(10_000), None),
        (fields(50_000), Some("names 50000 fields")),
    ] {
        write(at, "p.toml", pipeline("rows.jsonl", &fields, ""));
        let started = Instant::now();
        let output = sluicebox(&["check", "p.toml"], at);
        let shown = printed(&output);
        let took = started.elapsed();
        assert!(took < Duration::from_secs(10), "{said:?}: {took:?}");
        match said {
            Some(said) => assert!(shown.contains(said), "{shown}"),
            None => assert!(output.status.success(), "{shown}"),
        }
    }
}

/// Numbers that are no times are not taken for other ones, and shown as they were written.
#[test]
fn event_times_that_are_meant_otherwise_are_told_of() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    for (data_type, time, said) in [
        (
            "timestamp",
            "20240131",
            "give the field the type `\"timestamp(%Y%m%d)\"`",
        ),
        ("timestamp(ms)", "20240131235959", "timestamp(%Y%m%d%H%M%S)"),
        (
            "timestamp(s)",
            "1700000000000",
            "in seconds, found 1700000000000;",
        ),
        (
            "timestamp",
            "1700000000000000",
            "this looks like microseconds",
        ),
        (
            "timestamp",
            "\"2023-01-01T10:00:60Z\"",
            "found \"2023-01-01T10:00:60Z\"",
        ),
        (
            "timestamp(%F %T)",
            "\"2023-01-01 10:00:60\"",
            "found \"2023-01-01 10:00:60\"",
        ),
        (
            "timestamp",
            "\"9999-12-31T00:00:00Z\"",
            "ahead of the clock, found 9999-12-31",
        ),
    ] {
        write(at, "rows.jsonl", format!("{{\"ts\":{time}}}\n"));
        let fields = format!("ts = \"{data_type}\"");
        let more = "event_time = \"ts\"\nwatermark = { max_ahead = \"1h\" }";
        write(at, "p.toml", pipeline("rows.jsonl", &fields, more));
        let shown = printed(&sluicebox(&["run", "p.toml"], at));
        assert!(shown.contains(said), "{time} as {data_type}: {shown}");
        if time.starts_with("\"9999") {
            let hint = "if it is a number, this looks like microseconds";
            assert!(shown.contains(hint), "{shown}");
        }
    }
}

/// What had come over TCP, and cannot be sent for again, is told of.
#[test]
fn unfinished_rows_of_connections_are_told_of() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = folder.path();
    let port = TcpListener::bind("127.0.0.1:0")
        .and_then(|it| it.local_addr())
        .expect("a free port")
        .port();
    let text = pipeline("x", "id = \"int64\"", "").replace(
        "type = \"file\"\npath = \"x\"",
        &format!("type = \"tcp\"\nlisten = \"127.0.0.1:{port}\""),
    );
    write(at, "p.toml", text);
    let mut command = Command::new(HOST);
    command.args(["run", "p.toml"]).current_dir(at);
    let host = signal::not_ignored(&mut command)
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let connect = || {
        let started = Instant::now();
        loop {
            match TcpStream::connect(("127.0.0.1", port)) {
                Ok(stream) => return stream,
                Err(error) => assert!(started.elapsed().as_secs() < 30, "{error}"),
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    let mut clients = [connect(), connect()];
    for client in &mut clients {
        client
            .write_all(b"{\"id\":1}\n{\"id\":2}")
            .expect("it listens");
    }
    std::thread::sleep(Duration::from_secs(1));
    signal::send(&host, libc::SIGTERM);
    let shown = printed(&host.wait_with_output().expect("it ends"));
    let said = "0 rows that had come and were not read, and 16 bytes of rows that had not come";
    assert!(shown.contains(said), "{shown}");
    // The last line of a connection that ends is a row.
    drop(clients);
}
