//! Sources from end to end: from a file, a connection or a plan to rows, times
//! and dead letters.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::task::Poll;
use std::time::{Duration, Instant};

use arrow_array::{ArrayRef, Int64Array, RecordBatch};
use expect_test::{Expect, expect};
use flate2::write::GzEncoder;
use proptest::prelude::*;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use std::sync::Arc;

use arrow_array::cast::AsArray;

use crate::budget::Budget;
use crate::clock::{ManualClock, SystemClock};
use crate::connector::file::opened::Compression;
use crate::connector::file::pipe::{Pipe, PipeSource};
use crate::connector::file::source::FileSource;
use crate::connector::generator::GeneratorSource;
use crate::connector::generator::events::{self, EventsPlan};
use crate::connector::memory::source::MemorySource;
use crate::connector::tcp::{Framing, TcpSource};
use crate::dead_letter::{DeadLetter, OnError, Provenance, provenance};
use crate::element::Element;
use crate::format::{CsvFormat, Format};
use crate::json::render_row;
use crate::placement::Placement;
use crate::plan::{EventTime, FieldPath, SourcePlan};
use crate::schema::{DataType, Field, Schema};
use crate::source::pace::Pace;
use crate::source::reader::{Pulled, SourceReader};
use crate::source::{SourceConnector, SourceContext, SourceError, TURN_ROWS};
use crate::stop::Stop;

pub(super) const CSV: Format = Format::Csv(CsvFormat {
    header: true,
    delimiter: b',',
});

const CSV_ROWS: Format = Format::Csv(CsvFormat {
    header: false,
    delimiter: b',',
});

/// `id` identifies a row, `ts` is its event time.
fn schema() -> Arc<Schema> {
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Utf8, false),
        Field::new("ts", DataType::Int64, true),
    ]))
}

pub(super) fn plan(connector: impl SourceConnector) -> SourcePlan {
    SourcePlan {
        connector: Box::new(connector),
        event_time: EventTime::Field(FieldPath::new(1, Vec::new())),
        out_of_orderness_ms: 0,
        ahead_ms_max: Some(86_400_000),
        idle_after_ms: None,
        bootstraps: false,
        tells_each_watermark: false,
        on_error: OnError::DeadLetter,
        checksum: None,
    }
}

pub(super) fn files(paths: &[&Path], format: Format) -> SourcePlan {
    plan(FileSource::new(
        paths.iter().map(|path| path.to_path_buf()).collect(),
        PathBuf::new(),
        format.into(),
        None,
    ))
}

pub(in crate::connector) fn context(batch_rows: usize) -> SourceContext {
    SourceContext {
        node: "events".into(),
        schema: schema(),
        placement: Placement::on_one_host(0, 1),
        batch_rows,
        budget: Arc::new(Budget::new(usize::MAX)),
        pace: Arc::new(Pace::unbound()),
        decode_workers: 1,
        clock: Arc::new(SystemClock),
        is_transactional: false,
        bootstraps: false,
        is_checkpointed: true,
        are_checkpoints_kept: true,
        restored: Arc::new([]),
        left_by_others: Arc::new([]),
        stop: Stop::default(),
    }
}

/// What was read from a source, to its end.
#[derive(Debug, Default)]
pub(super) struct Read {
    /// `id` of each row, with `!` if the watermark has passed it.
    pub ids: Vec<String>,
    /// As a dead letter would name it.
    origins: Vec<Provenance>,
    dead_letters: Vec<DeadLetter>,
    failed: u64,
    watermark: Option<i64>,
    rows_in: u64,
    progress: Option<f64>,
}

impl Read {
    pub(super) fn add(&mut self, pulled: Pulled) {
        for element in pulled.elements {
            match element {
                Element::Batch(batch) => {
                    let ids = batch.columns[0].as_string::<i32>();
                    for row in 0..batch.rows() {
                        let is_late = self.watermark.is_some_and(|ms| batch.times[row] < ms);
                        let mark = if is_late { "!" } else { "" };
                        self.ids.push(format!("{}{mark}", ids.value(row)));
                        self.origins
                            .push(provenance(batch.origin.as_ref().unwrap(), row));
                    }
                }
                Element::Watermark(ms) => {
                    assert!(self.watermark.is_none_or(|told| told < ms));
                    self.watermark = Some(ms);
                }
                other => panic!("unexpected {other:?}"),
            }
        }
        self.dead_letters.extend(pulled.dead_letters);
        self.failed += pulled.failed;
        self.rows_in += pulled.rows_in;
        self.progress = pulled.progress.or(self.progress);
    }

    fn errors(&self) -> String {
        let line = |letter: &DeadLetter| {
            let payload = letter
                .payload
                .as_ref()
                .or(letter.payload_base64.as_ref())
                .unwrap();
            let cut: String = payload.chars().take(30).collect();
            format!("{} | {} | {cut:?}\n", letter.offset.unwrap(), letter.error)
        };
        self.dead_letters.iter().map(line).collect()
    }
}

async fn read(plan: &SourcePlan, context: SourceContext) -> Read {
    let mut reader = SourceReader::open(plan, context).await.unwrap();
    let mut read = Read::default();
    while let Some(pulled) = reader.next().await.unwrap() {
        read.add(pulled);
    }
    read
}

fn write(folder: &TempDir, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.path().join(name);
    fs::write(&path, text).unwrap();
    path
}

/// Checks that each row's origin is where the row is in the text.
fn assert_origins_are_true(read: &Read, text: &[u8]) {
    for origin in &read.origins {
        let payload = origin.payload.as_ref().unwrap().as_bytes();
        let at = origin.offset as usize;
        assert_eq!(&text[at..at + payload.len()], payload);
    }
    for letter in &read.dead_letters {
        let payload = letter.payload.as_ref().unwrap().as_bytes();
        let at = letter.offset.unwrap() as usize;
        assert_eq!(&text[at..at + payload.len()], payload);
    }
}

#[tokio::test]
async fn lines_are_rows_whatever_their_ends() {
    let folder = TempDir::new().unwrap();
    let text = "\u{FEFF}{\"id\":\"a\",\"ts\":1}\r\n\r\n\n{\"id\":\"b\",\"ts\":2}\nbad\r\n{\"id\":\"c\",\"ts\":3}";
    let path = write(&folder, "events.jsonl", text);
    for batch_rows in [1, 2, 4_096] {
        let read = read(&files(&[&path], Format::Json), context(batch_rows)).await;
        assert_eq!(read.ids, ["a", "b", "c"]);
        expect![[r#"
            43 | byte 0: expected a record, found `bad` | "bad"
        "#]]
        .assert_eq(&read.errors());
        assert_origins_are_true(&read, text.as_bytes());
        assert_eq!(read.origins[1].offset, 25);
        assert_eq!(read.origins[1].partition, path.display().to_string());
        assert_eq!(read.origins[1].source, "events");
        assert_eq!((read.rows_in, read.failed), (4, 1));
        assert_eq!(read.watermark, Some(3));
        assert_eq!(read.progress, Some(1.0));
    }
}

#[tokio::test]
async fn csv_rows_may_have_line_ends_and_broken_ones_stay_alone() {
    let folder = TempDir::new().unwrap();
    let text = "\r\nts,id\r\n1,\"a\nb\"\r\n2,\"c\n3,d\n4,\"e\"x\n\n5,\"f\"\"\",\n6,\"g\"\"\"\n7,\"h\n8,i\n";
    let path = write(&folder, "events.csv", text);
    for batch_rows in [1, 2, 4_096] {
        let read = read(&files(&[&path], CSV), context(batch_rows)).await;
        assert_eq!(read.ids, ["a\nb", "d", "g\"", "i"]);
        expect![[r#"
            18 | byte 2: expected `"` at the end of the field, found "c | "2,\"c"
            27 | byte 5: expected `,` behind the quoted field, found x | "4,\"e\"x"
            35 | expected 2 fields, found 3 | "5,\"f\"\"\","
            52 | byte 2: expected `"` at the end of the field, found "h | "7,\"h"
        "#]]
        .assert_eq(&read.errors());
        assert_origins_are_true(&read, text.as_bytes());
    }
}

#[tokio::test]
async fn a_stray_quote_affects_only_its_row() {
    let folder = TempDir::new().unwrap();
    let path = write(&folder, "events.csv", "ts,id\n1,\"a\n2,b\n3,c\n\",d\n5,e\n");
    let read = read(&files(&[&path], CSV), context(4_096)).await;
    assert_eq!(read.ids, ["b", "c", "e"]);
    assert_eq!(read.failed, 2);
}

#[tokio::test]
async fn empty_files_have_no_rows() {
    let folder = TempDir::new().unwrap();
    for (text, format) in [
        ("", Format::Json),
        ("\n\n", Format::Json),
        ("", CSV),
        ("ts,id\n", CSV),
    ] {
        let path = write(&folder, "events", text);
        let read = read(&files(&[&path], format), context(7)).await;
        assert_eq!((read.rows_in, read.watermark), (0, None), "{text:?}");
    }
}

#[tokio::test]
async fn a_row_that_is_too_long_is_one_bad_row() {
    let folder = TempDir::new().unwrap();
    let long = "x".repeat((16 << 20) + (10 << 10));
    let text = format!("{{\"id\":\"a\",\"ts\":1}}\n{long}\n{{\"id\":\"b\",\"ts\":2}}\n{long}");
    let path = write(&folder, "events.jsonl", &text);
    for batch_rows in [1, 4_096] {
        let read = read(&files(&[&path], Format::Json), context(batch_rows)).await;
        assert_eq!(read.ids, ["a", "b"]);
        expect![[r#"
            18 | expected a row of at most 16 MiB, found a longer one; its first 64 KiB are kept | "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
            16787493 | expected a row of at most 16 MiB, found a longer one; its first 64 KiB are kept | "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
        "#]]
        .assert_eq(&read.errors());
    }
}

/// A CSV file with a quoted field that is too long, and what is around it.
fn huge_field(field: &str, behind: &str) -> String {
    format!("id,ts\na,1\n\"{field}\"{behind}\nb,2\n\"c\nd\",3\n")
}

#[tokio::test]
async fn a_field_that_is_too_long_is_one_bad_row() {
    let folder = TempDir::new().unwrap();
    let lines = "x,\"\"y\"\",2\n".repeat((17 << 20) / 10);
    let text = huge_field(&lines, ",\"1\n1\"");
    let path = write(&folder, "events.csv", &text);
    let unclosed = write(&folder, "unclosed.csv", text.replace("y\"\"", "y"));
    for (batch_rows, decode_workers) in [(1, 1), (4_096, 1), (4_096, 2)] {
        let context = || SourceContext {
            decode_workers,
            ..context(batch_rows)
        };
        let closed = read(&files(&[&path], CSV), context()).await;
        assert_eq!(closed.ids, ["a", "b", "c\nd"]);
        expect![[r#"
            10 | expected a row of at most 16 MiB, found a longer one, in which a quoted field goes on: the row is skipped up to the closing quote and its line end, or to the end of the file; its first 64 KiB are kept | "\"x,\"\"y\"\",2\nx,\"\"y\"\",2\nx,\"\"y\"\",2"
        "#]]
        .assert_eq(&closed.errors());
        assert_origins_are_true(&closed, text.as_bytes());
        assert_eq!(
            closed.dead_letters[0].payload.as_ref().unwrap().len(),
            64 << 10
        );
        let open = read(&files(&[&unclosed], CSV), context()).await;
        assert_eq!((open.rows_in, open.failed), (closed.rows_in, 1));
    }
    let open = write(
        &folder,
        "open.csv",
        text.replace("\",\"1\n1\"\nb,2\n\"c\nd\",3", ""),
    );
    let open = read(&files(&[&open], CSV), context(4_096)).await;
    assert_eq!((open.ids, open.failed), (vec!["a".to_owned()], 1));
}

/// Wherever the longest row that there may be ends, the rows behind it are read.
#[tokio::test]
async fn the_end_of_a_field_that_is_too_long_may_be_anywhere() {
    let folder = TempDir::new().unwrap();
    for (distance, ends) in (0..8).flat_map(|at| [(at, "\n"), (at, "\r\n")]) {
        for last in ["x", "x\"\"", "x\"\"\"\""] {
            let field = format!(
                "\n{}{last}",
                "y".repeat((16 << 20) - 6 + distance - last.len())
            );
            let text = huge_field(&field, ",1").replace("\nb", &format!("{ends}b"));
            let path = write(&folder, "events.csv", &text);
            let small = read(&files(&[&path], CSV), context(1)).await;
            let large = read(&files(&[&path], CSV), context(4_096)).await;
            assert_eq!(small.ids, large.ids);
            assert_eq!(small.dead_letters, large.dead_letters);
            // With the quotes, the comma and the time, it is 4 bytes longer.
            let is_good = field.len() + 4 <= 16 << 20;
            assert_eq!(
                small.failed,
                u64::from(!is_good),
                "{distance} {ends:?} {last:?}"
            );
            assert_eq!(small.ids.last().map(String::as_str), Some("c\nd"));
            assert_eq!(small.rows_in, 4);
        }
    }
}

#[tokio::test]
async fn a_field_that_is_too_long_may_begin_before_a_checkpoint() {
    let folder = TempDir::new().unwrap();
    let lines = "x,\"\"y\"\",2\n".repeat((33 << 20) / 10);
    let path = write(&folder, "events.csv", huge_field(&lines, ",1"));
    let plan = files(&[&path], CSV);
    let mut reader = SourceReader::open(&plan, context(1)).await.unwrap();
    while reader.next().await.unwrap().unwrap().failed == 0 {}
    let snapshot = reader.snapshot();
    let position = snapshot.partitions[0].position;
    assert!(position.is_in_row && position.is_in_quotes);
    let context = SourceContext {
        restored: Arc::new([snapshot]),
        ..context(1)
    };
    let rest = read(&plan, context).await;
    assert_eq!((&*rest.ids.join(" "), rest.failed), ("b c\nd", 0));
}

/// Compressed in two pieces, as appending does.
pub(super) fn compressed(text: &str, compression: Compression) -> Vec<u8> {
    let (first, second) = text.split_at(text.len() / 3);
    let pieces = [first, second].map(|piece| compressed_once(piece.as_bytes(), compression));
    pieces.concat()
}

pub(super) fn compressed_once(text: &[u8], compression: Compression) -> Vec<u8> {
    match compression {
        Compression::Gzip => {
            let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(text).unwrap();
            encoder.finish().unwrap()
        }
        Compression::Zstd => zstd::encode_all(text, 1).unwrap(),
        Compression::None => text.to_vec(),
    }
}

pub(super) const COMPRESSIONS: [(Compression, &str); 3] = [
    (Compression::Gzip, "events.csv.gz"),
    (Compression::Zstd, "events.csv.zst"),
    (Compression::None, "events.csv"),
];

#[tokio::test]
async fn compressed_files_are_read_wherever_a_run_begins() {
    let folder = TempDir::new().unwrap();
    let rows: String = (0..5_000).map(|row| format!("row-{row},{row}\n")).collect();
    let text = format!("id,ts\n{rows}");
    let ids: Vec<String> = (0..5_000).map(|row| format!("row-{row}")).collect();
    for (compression, name) in COMPRESSIONS {
        let path = write(&folder, name, compressed(&text, compression));
        let plan = files(&[&path], CSV);
        let whole = read(&plan, context(100)).await;
        assert_eq!(whole.ids, ids, "{name}");
        assert_origins_are_true(&whole, text.as_bytes());
        for cut in [100, 1_700, 4_900] {
            let mut reader = SourceReader::open(&plan, context(100)).await.unwrap();
            let mut before = Read::default();
            while before.ids.len() < cut {
                before.add(reader.next().await.unwrap().unwrap());
            }
            let context = SourceContext {
                restored: Arc::new([reader.snapshot()]),
                ..context(100)
            };
            let after = read(&plan, context).await;
            assert_eq!(
                [before.ids, after.ids].concat(),
                ids,
                "{name}, cut at {cut}"
            );
        }
    }
}

/// A file that had ended holds back no event time after a restore.
#[tokio::test]
async fn the_same_rows_are_late_after_a_restore() {
    let folder = TempDir::new().unwrap();
    let short = write(&folder, "short.csv", "id,ts\na,0\n");
    let mut text = "id,ts\n".to_owned();
    for number in 0..9_000 {
        let late_ms = if number % 7 == 0 { 15_000 } else { 0 };
        text += &format!("b{number},{}\n", number * 1_000 - late_ms);
    }
    let plan = files(&[&short, &write(&folder, "long.csv", text)], CSV);
    let undisturbed = read(&plan, context(100)).await.ids;
    assert!(undisturbed.iter().filter(|id| id.ends_with('!')).count() > 1_000);
    for pulls in [1, 2, 3, 20, 60] {
        let mut read = Read::default();
        let mut reader = SourceReader::open(&plan, context(100)).await.unwrap();
        for _ in 0..pulls {
            read.add(reader.next().await.unwrap().unwrap());
        }
        // It may fail again before it has read a row.
        for _ in 0..2 {
            let restored = SourceContext {
                restored: Arc::new([reader.snapshot()]),
                ..context(100)
            };
            reader = SourceReader::open(&plan, restored).await.unwrap();
        }
        let mut rest = Read::default();
        while let Some(pulled) = reader.next().await.unwrap() {
            rest.add(pulled);
        }
        read.ids.append(&mut rest.ids);
        assert!(read.ids == undisturbed, "after {pulls}");
    }
}

/// What a file gets after its end was read, and what of it is new.
#[tokio::test]
async fn a_file_may_grow_from_nothing_and_behind_its_last_row() {
    let folder = TempDir::new().unwrap();
    let fine: [(&str, &str, &[&str]); 8] = [
        ("", "id,ts\na,1\n", &["a"]),
        ("\n\n", "id,ts\na,1\n", &["a"]),
        ("id,ts\n", "a,1\n", &["a"]),
        ("id,ts\na,1\n", "b,2\n", &["b"]),
        ("id,ts\na,1", "\nb,2\n", &["b"]),
        ("id,ts\na,1", "\r\nb,2", &["b"]),
        ("id,ts\na,1\r", "\nb,2", &["b"]),
        ("id,ts\na,1", "\r", &[]),
    ];
    let again = |reader: &mut SourceReader| SourceContext {
        restored: Arc::new([reader.snapshot()]),
        ..context(100)
    };
    for (compression, name) in COMPRESSIONS {
        for (text, more, expected) in fine {
            let path = write(&folder, name, compressed(text, compression));
            let plan = files(&[&path], CSV);
            let mut reader = SourceReader::open(&plan, context(100)).await.unwrap();
            while reader.next().await.unwrap().is_some() {}
            let mut grown = fs::read(&path).unwrap();
            grown.extend(compressed(more, compression));
            fs::write(&path, grown).unwrap();
            let read = read(&plan, again(&mut reader)).await;
            assert_eq!(read.ids, expected, "{name}: {text:?}, {more:?}");
            assert_eq!(read.failed, 0);
        }
        let path = write(&folder, name, compressed("id,ts\na,1", compression));
        let plan = files(&[&path], CSV);
        let mut reader = SourceReader::open(&plan, context(100)).await.unwrap();
        while reader.next().await.unwrap().is_some() {}
        let mut grown = fs::read(&path).unwrap();
        grown.extend(compressed("2\n", compression));
        fs::write(&path, grown).unwrap();
        let refused = SourceReader::open(&plan, again(&mut reader)).await;
        let said = refused.err().expect("it is refused").to_string();
        assert!(said.contains("goes on within its last row"), "{said}");
    }
}

#[tokio::test]
async fn a_compressed_file_is_known_by_how_it_begins() {
    let folder = TempDir::new().unwrap();
    for (compression, name) in &COMPRESSIONS[..2] {
        let text = |id: &str| format!("id,ts\n{id},1\n{id},2\n");
        let path = write(&folder, name, compressed(&text("a"), *compression));
        let plan = files(&[&path], CSV);
        let mut reader = SourceReader::open(&plan, context(100)).await.unwrap();
        while reader.next().await.unwrap().is_some() {}
        let snapshot = [reader.snapshot()];
        let restored = || SourceContext {
            restored: Arc::new(snapshot.clone()),
            ..context(100)
        };
        let mut more = fs::read(&path).unwrap();
        more.extend(compressed("b,3\n", *compression));
        fs::write(&path, more).unwrap();
        assert_eq!(read(&plan, restored()).await.ids, ["b"], "{name}");
        fs::write(&path, compressed(&text("c"), *compression)).unwrap();
        let error = SourceReader::open(&plan, restored()).await.err().unwrap();
        assert!(error.to_string().contains("is another file"), "{error}");
    }
}

/// Its rows come from the file that was opened, whatever has its name by now.
#[tokio::test]
async fn a_file_that_is_replaced_while_it_is_read_is_another_one() {
    let folder = TempDir::new().unwrap();
    for (compression, name) in COMPRESSIONS {
        let text = |id: &str| format!("id,ts\n{}", format!("{id},1\n").repeat(5_000));
        let path = write(&folder, name, compressed(&text("a"), compression));
        let plan = files(&[&path], CSV);
        let mut reader = SourceReader::open(&plan, context(100)).await.unwrap();
        reader.next().await.unwrap().unwrap();
        let new = write(&folder, "new", compressed(&text("b"), compression));
        fs::rename(new, &path).unwrap();
        let context = SourceContext {
            restored: Arc::new([reader.snapshot()]),
            ..context(100)
        };
        let error = SourceReader::open(&plan, context).await.err().unwrap();
        assert!(
            error.to_string().contains("is another file"),
            "{name}: {error}"
        );
    }
}

#[tokio::test]
async fn damaged_compression_and_other_formats_are_told() {
    let folder = TempDir::new().unwrap();
    let failure = async |path: &Path| {
        let plan = files(&[path], CSV);
        let failed = async {
            let mut reader = SourceReader::open(&plan, context(100)).await?;
            while reader.next().await?.is_some() {}
            Ok::<_, SourceError>(())
        };
        let error = failed.await.unwrap_err();
        assert!(!error.fault().can_pass, "{error}");
        error
            .to_string()
            .replace(&folder.path().display().to_string(), "FOLDER")
    };
    let text = format!("id,ts\n{}", "a,1\n".repeat(10_000));
    for (compression, name) in &COMPRESSIONS[..2] {
        let whole = compressed(&text, *compression);
        let short = write(&folder, name, &whole[..whole.len() - 5]);
        let said = failure(&short).await;
        assert!(
            said.contains("data is damaged, or ends too early, about byte "),
            "{said}"
        );
        let undeclared = write(&folder, "events.csv", &whole);
        let said = failure(&undeclared).await;
        let looks = format!(
            "source `events`: FOLDER/events.csv looks like {}",
            compression.name()
        );
        assert!(said.starts_with(&looks), "{said}");
    }
    for (name, start, expected) in [
        (
            "a.csv.gz",
            b"id,ts\na,1\n".to_vec(),
            "gzip, as its name or `compression` says, and looks like text: \
             `compression = \"none\"` reads it as it is",
        ),
        (
            "b.csv.zst",
            b"id,ts\na,1\n".to_vec(),
            "zstd, as its name or `compression` says, and looks like text: \
             `compression = \"none\"` reads it as it is",
        ),
        (
            "c.csv.gz",
            compressed(&text, Compression::Zstd),
            "gzip, as its name or `compression` says, and looks like zstd: name it `.zst`, or \
             write `compression = \"zstd\"`",
        ),
    ] {
        let said = failure(&write(&folder, name, start)).await;
        let expected = format!("source `events`: cannot read FOLDER/{name}: it is not {expected}");
        assert_eq!(said, expected);
    }
    let twice = compressed("id,ts\n", Compression::Gzip);
    let mut twice = [twice.clone(), twice].concat();
    let whole = twice.len();
    for (rest, look) in [
        (&b"junk that follows"[..], "text"),
        (b"j", "text"),
        (&[0; 1000], "zeros"),
        (b"\x28\xB5\x2F\xFD", "zstd"),
    ] {
        twice.truncate(whole);
        twice.extend(rest);
        let said = failure(&write(&folder, "twice.csv.gz", &twice)).await;
        let expected = format!(
            "source `events`: cannot read FOLDER/twice.csv.gz: behind its gzip data, from byte \
             {whole} on, is what looks like {look}: cut it off, or give it a file of its own"
        );
        assert_eq!(said, expected);
    }
    let inside = compressed_once(&compressed(&text, Compression::Zstd), Compression::Gzip);
    let said = failure(&write(&folder, "inside.csv.gz", inside)).await;
    assert_eq!(
        said,
        "source `events`: what FOLDER/inside.csv.gz has compressed with gzip looks like zstd: \
         text is expected there"
    );
    for (start, format) in [
        (&b"\xFD7zXZ\0\0\x04\xE6"[..], "xz"),
        (b"BZh91AY&SY\x8A", "bzip2"),
        (b"PK\x03\x04\x14\0\0\0", "zip"),
        (b"\x04\x22\x4D\x18\x64\x40", "lz4"),
        (b"i\0d\0,\0t\0s\0\n\0", "UTF-16"),
        (b"\0i\0d\0,\0t\0s\0\n", "UTF-16"),
    ] {
        let said = failure(&write(&folder, "other.csv", start)).await;
        let looks = format!("source `events`: FOLDER/other.csv looks like {format}: ");
        assert!(said.starts_with(&looks), "{said}");
    }
    let utf16: Vec<u8> = "\u{FEFF}id,ts\n"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    let said = failure(&write(&folder, "wide.csv", utf16)).await;
    assert_eq!(
        said,
        "source `events`: FOLDER/wide.csv looks like UTF-16: UTF-8 is expected, convert it; \
         `compression = \"none\"` reads it as it is"
    );
}

#[tokio::test]
async fn what_is_not_compressed_may_look_like_another_format() {
    let folder = TempDir::new().unwrap();
    for name in ["events.log", "events.gz"] {
        let text = [&b"PAR1,1\n"[..], &compressed("a", Compression::Gzip)].concat();
        let path = write(&folder, name, text);
        let plan = plan(FileSource::new(
            vec![path],
            PathBuf::new(),
            CSV_ROWS.into(),
            Some(Compression::None),
        ));
        let read = read(&plan, context(100)).await;
        assert_eq!(read.ids, ["PAR1"], "{name}");
        assert!(read.failed > 0, "{name}");
    }
}

/// A named pipe.
fn pipe(folder: &TempDir) -> PathBuf {
    let path = folder.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&path).status();
    assert!(made.unwrap().success());
    path
}

fn piped(path: &Path, format: Format, compression: Option<Compression>) -> SourcePlan {
    let folder = path.parent().unwrap();
    let pipe = Pipe::at("pipe", path).unwrap();
    plan(PipeSource::new(pipe, folder, format.into(), compression))
}

/// Writes pieces to a pipe, with a pause after each.
fn pour(path: &Path, pieces: Vec<Vec<u8>>) -> std::thread::JoinHandle<()> {
    let path = path.to_owned();
    std::thread::spawn(move || {
        let mut pipe = fs::OpenOptions::new().write(true).open(path).unwrap();
        for piece in pieces {
            pipe.write_all(&piece).unwrap();
            std::thread::sleep(Duration::from_millis(1));
        }
    })
}

/// A pipe has the rows that a file with the same text has.
#[tokio::test]
async fn a_pipe_is_read_as_a_file_is() {
    let long = format!("id,ts\na,1\n\"{}\",2\nb,3\n", "x".repeat(17 << 20));
    let texts = [
        ("", Format::Json),
        ("1\n", Format::Json),
        (
            "\u{FEFF}{\"id\":\"a\",\"ts\":1}\r\n\n{\"id\":\"b\",\"ts\":2}",
            Format::Json,
        ),
        ("", CSV),
        ("\n", CSV),
        (
            "\n\r\nts,id\r\n1,\"a\nb\"\r\n2,\"c\n3,d\n4,\"e\"x\n\n5,\"f\"\"\",\n7,\"h\n8,i\n",
            CSV,
        ),
        ("PAR", CSV_ROWS),
        (&long, CSV),
    ];
    for (text, format) in texts {
        let folder = TempDir::new().unwrap();
        let file = write(&folder, "file", text);
        let of_file = read(&files(&[&file], format.clone()), context(2)).await;
        let path = pipe(&folder);
        for (compression, size) in [
            (None, 1),
            (None, 7),
            (Some(Compression::Gzip), 9),
            (Some(Compression::Zstd), 1_000),
        ] {
            let size = if text.len() > 1_000 { 1 << 20 } else { size };
            let bytes = compressed(text, compression.unwrap_or(Compression::None));
            let pieces = bytes.chunks(size).map(<[u8]>::to_vec).collect();
            let writer = pour(&path, pieces);
            let plan = piped(&path, format.clone(), compression);
            let of_pipe = read(&plan, context(2)).await;
            writer.join().unwrap();
            assert_eq!(of_pipe.ids, of_file.ids);
            let errors = |read: &Read| {
                let letters = read.dead_letters.iter();
                letters
                    .map(|letter| (letter.error.clone(), letter.payload.clone()))
                    .collect::<Vec<_>>()
            };
            assert_eq!(errors(&of_pipe), errors(&of_file));
            assert_eq!(of_pipe.rows_in, of_file.rows_in);
            let offsets = of_pipe.origins.iter().map(|origin| origin.offset);
            assert!(offsets.is_sorted_by(|one, next| one < next));
        }
    }
}

/// Rows are handed on while more may come, and what comes after a failure is read by
/// the next attempt, from where the last one was in the text.
#[tokio::test]
async fn a_pipe_is_read_on_after_a_failure() {
    let folder = TempDir::new().unwrap();
    let path = pipe(&folder);
    let plan = piped(&path, CSV, None);
    assert!(!plan.connector.is_replayable());
    let mut reader = SourceReader::open(&plan, context(1)).await.unwrap();
    let mut first = Box::pin(reader.next());
    let asked = std::future::poll_fn(|context| Poll::Ready(first.as_mut().poll(context)));
    assert!(asked.await.is_pending());
    let mut writer = {
        let path = path.clone();
        let open = move || fs::OpenOptions::new().write(true).open(path).unwrap();
        tokio::task::spawn_blocking(open).await.unwrap()
    };
    writer.write_all(b"ts,id\n1,a\n2,\"b\nb").unwrap();
    let mut before = Read::default();
    before.add(first.await.unwrap().unwrap());
    assert_eq!(before.ids, ["a"]);
    assert_eq!(soon(&mut reader).await, "nothing");
    let snapshot = reader.snapshot();
    drop(reader);
    writer.write_all(b"\"\n3,c").unwrap();
    drop(writer);
    let restored = SourceContext {
        restored: Arc::new([snapshot]),
        ..context(1)
    };
    let after = read(&plan, restored).await;
    assert_eq!(after.ids, ["b\nb", "c"]);
    assert_eq!(after.origins[0].offset, 1);
    assert_eq!(after.origins[0].partition, "pipe");
}

#[tokio::test]
async fn what_is_wrong_with_a_pipe_is_told() {
    let failure = async |bytes: &[u8], compression| {
        let folder = TempDir::new().unwrap();
        let path = pipe(&folder);
        let writer = pour(&path, vec![bytes.to_vec()]);
        let plan = piped(&path, CSV, compression);
        let failed = async {
            let mut reader = SourceReader::open(&plan, context(100)).await?;
            while reader.next().await?.is_some() {}
            Ok::<_, SourceError>(())
        };
        let error = failed.await.unwrap_err();
        writer.join().unwrap();
        assert!(!error.fault().can_pass, "{error}");
        error
            .to_string()
            .replace(&folder.path().display().to_string(), "FOLDER")
    };
    let gzip = compressed("id,ts\na,1\n", Compression::Gzip);
    expect![[r#"source `events`: FOLDER/pipe looks like gzip: name it `.gz`, or write `compression = "gzip"`; `compression = "none"` reads it as it is"#]].assert_eq(&failure(&gzip, None).await);
    expect!["source `events`: cannot read FOLDER/pipe: its gzip data is damaged, or ends too early, about byte 45, which is behind byte 10 of the text: unexpected end of file"].assert_eq(&failure(&gzip[..gzip.len() - 5], Some(Compression::Gzip)).await);
    let garbage = [&gzip[..], b"junk"].concat();
    expect!["source `events`: cannot read FOLDER/pipe: behind its gzip data, from byte 50 on, is what looks like text: cut it off, or give it a file of its own"].assert_eq(&failure(&garbage, Some(Compression::Gzip)).await);
    expect!["source `events`: cannot read FOLDER/pipe: it is not gzip, as its name or `compression` says, and looks like text: `compression = \"none\"` reads it as it is"].assert_eq(&failure(b"id,ts\na,1\n", Some(Compression::Gzip)).await);
    expect!["source `events`: FOLDER/pipe: the header has no column `id`, which the fields have; it names `name`, `ts`"].assert_eq(&failure(b"name,ts\na,1\n", None).await);
    let folder = TempDir::new().unwrap();
    let path = pipe(&folder);
    let files = files(&[&write(&folder, "other.csv", "")], CSV);
    let mut reader = SourceReader::open(&files, context(1)).await.unwrap();
    let restored = SourceContext {
        restored: Arc::new([reader.snapshot()]),
        ..context(1)
    };
    let plan = piped(&path, CSV, None);
    let error = SourceReader::open(&plan, restored).await.err().unwrap();
    assert!(
        error.to_string().contains("is not among the files"),
        "{error}"
    );
}

/// More files than are open at a time, read in turns.
#[tokio::test]
async fn files_that_are_not_read_now_are_closed() {
    let folder = TempDir::new().unwrap();
    let turns = 2 * TURN_ROWS as usize + 10;
    let paths: Vec<PathBuf> = (0..70)
        .map(|file| {
            let row = |row: usize| format!("{{\"id\":\"{file}\",\"ts\":{row}}}\n");
            let text: String = (0..turns).map(row).collect();
            write(&folder, &format!("{file}.jsonl"), text)
        })
        .collect();
    let paths: Vec<&Path> = paths.iter().map(PathBuf::as_path).collect();
    let read = read(&files(&paths, Format::Json), context(4_096)).await;
    assert_eq!(read.rows_in as usize, 70 * turns);
    assert_eq!(read.failed, 0);
    let of_last = read.ids.iter().filter(|id| *id == "69").count();
    assert_eq!(of_last, turns);
}

#[tokio::test]
async fn what_cannot_be_opened_says_why() {
    async fn fails(plan: SourcePlan, folder: &TempDir) -> String {
        match SourceReader::open(&plan, context(7)).await {
            Ok(_) => panic!("opened"),
            Err(error) => error
                .to_string()
                .replace(&folder.path().display().to_string(), ""),
        }
    }
    let folder = TempDir::new().unwrap();
    let missing = folder.path().join("missing.jsonl");
    let csv = write(&folder, "events.csv", "identity,ts\n");
    expect!["source `events`: cannot read /missing.jsonl: No such file or directory (os error 2)"]
        .assert_eq(&fails(files(&[&missing], Format::Json), &folder).await);
    expect!["source `events`: cannot read : it is a folder; name the files in it, as in `*.jsonl`"]
        .assert_eq(&fails(files(&[folder.path()], Format::Json), &folder).await);
    expect!["source `events`: /events.csv: the header has no column `id`, which the fields have; it names `identity`, `ts`"]
        .assert_eq(&fails(files(&[&csv], CSV), &folder).await);
    let half_a_character = Format::Csv(CsvFormat {
        header: true,
        delimiter: 0xC3,
    });
    expect!["source `events`: the CSV delimiter has to be an ASCII character, and neither a quote nor a line end"]
        .assert_eq(&fails(files(&[&csv], half_a_character), &folder).await);
    let tcp = |listen: &str, format: Format| {
        plan(TcpSource {
            listen: listen.to_owned(),
            framing: Framing::Newline,
            format: format.into(),
            connections: None,
        })
    };
    expect!["source `events`: rows over TCP have no header: set `csv = { header = false }` and send the fields in order"]
        .assert_eq(&fails(tcp("127.0.0.1:0", CSV), &folder).await);
    expect!["source `events`: cannot listen on nowhere: no address of this machine is found by that name (invalid socket address)"]
        .assert_eq(&fails(tcp("nowhere", Format::Json), &folder).await);
    let batch =
        RecordBatch::try_from_iter([("id", Arc::new(Int64Array::from(vec![1])) as ArrayRef)])
            .unwrap();
    let memory = plan(MemorySource::new(vec![vec![batch]]));
    assert!(
        fails(memory, &folder)
            .await
            .contains("expected rows of id: utf8, ts: int64?")
    );
}

#[tokio::test]
async fn rows_without_a_usable_event_time_are_bad() {
    let folder = TempDir::new().unwrap();
    let text = "{\"id\":\"a\",\"ts\":1}\n{\"id\":\"b\"}\n{\"id\":\"c\",\"ts\":1700000000000000}\n{\"id\":\"d\",\"ts\":2}\n";
    let path = write(&folder, "events.jsonl", text);
    for batch_rows in [1, 4_096] {
        let read = read(&files(&[&path], Format::Json), context(batch_rows)).await;
        assert_eq!(read.ids, ["a", "d"]);
        assert_eq!(read.watermark, Some(2));
        expect![[r#"
            18 | field `ts`: expected an event time in the years 1 to 9999, in ms, found null | "{\"id\":\"b\"}"
            29 | field `ts`: expected an event time in the years 1 to 9999, in ms, found 1700000000000000; this looks like microseconds, as those of 2023-11-14T22:13:20Z: give the field the type `"timestamp(us)"` if it is | "{\"id\":\"c\",\"ts\":170000000000000"
        "#]]
        .assert_eq(&read.errors());
        assert_origins_are_true(&read, text.as_bytes());
    }
}

#[tokio::test]
async fn bad_rows_go_where_the_policy_says() {
    let folder = TempDir::new().unwrap();
    let path = write(&folder, "events.jsonl", b"{\"id\":\"a\",\"ts\":1}\n\xFF\n");
    let mut plan = files(&[&path], Format::Json);
    let raw = write(&folder, "raw.jsonl", b"\xFF\xFE\n");
    let dead = read(&files(&[&raw], Format::Json), context(7)).await;
    assert_eq!(dead.dead_letters[0].payload, None);
    assert_eq!(dead.dead_letters[0].payload_base64.as_deref(), Some("//4="));
    assert_eq!(dead.dead_letters[0].kind, "decode");

    plan.on_error = OnError::Skip;
    let skipped = read(&plan, context(7)).await;
    assert_eq!(
        (
            skipped.failed,
            skipped.dead_letters.len(),
            skipped.ids.len()
        ),
        (1, 0, 1)
    );

    plan.on_error = OnError::Fail;
    let mut reader = SourceReader::open(&plan, context(7)).await.unwrap();
    let error = reader.next().await.unwrap_err().to_string();
    let error = error.replace(&folder.path().display().to_string(), "");
    expect![[r#"source `events`: /events.jsonl, offset 18: byte 0: expected UTF-8 text, found other bytes (`on_error` is "fail"; "skip" or "dead_letter" continue without the row)"#]]
        .assert_eq(&error);
}

#[tokio::test]
async fn without_an_event_time_the_clock_gives_one() {
    let folder = TempDir::new().unwrap();
    let path = write(
        &folder,
        "events.jsonl",
        "{\"id\":\"a\"}\n{\"id\":\"b\"}\n{\"id\":\"c\"}\n",
    );
    let clock = Arc::new(ManualClock::default());
    let mut plan = files(&[&path], Format::Json);
    plan.event_time = EventTime::Ingestion;
    let mut reader = SourceReader::open(
        &plan,
        SourceContext {
            clock: clock.clone(),
            ..context(1)
        },
    )
    .await
    .unwrap();
    let mut times = Vec::new();
    // The clock is set back before the last row.
    for now_ms in [1_000, 2_000, 1_500] {
        clock.set(now_ms);
        for element in reader.next().await.unwrap().unwrap().elements {
            if let Element::Batch(batch) = element {
                times.extend(batch.times.iter().copied());
            }
        }
    }
    assert_eq!(times, [1_000, 2_000, 2_000]);
    assert!(reader.next().await.unwrap().is_none());
}

/// Two files that are read in turns, one behind the other, with late rows.
fn two_files(folder: &TempDir) -> [PathBuf; 2] {
    let text = |name: &str, times: &dyn Fn(i64) -> i64| -> String {
        (0..20_000)
            .map(|row| format!("{{\"id\":\"{name}{row}\",\"ts\":{}}}\n", times(row)))
            .collect()
    };
    [
        write(
            folder,
            "a",
            text("a", &|row| row - i64::from(row % 1_000 == 7) * 5_000),
        ),
        write(
            folder,
            "b",
            text("b", &|row| {
                row / 2 + 3_000 - i64::from(row % 999 == 8) * 4_000
            }),
        ),
    ]
}

#[tokio::test]
async fn order_depends_on_neither_batches_nor_workers() {
    let folder = TempDir::new().unwrap();
    let [a, b] = two_files(&folder);
    let plan = files(&[&a, &b], Format::Json);
    assert_eq!(plan.connector.partitions(), Some(2));
    let first = read(&plan, context(4_096)).await;
    assert_eq!(first.ids.len(), 40_000);
    assert!(first.ids.iter().any(|id| id.ends_with('!')));
    // The file that is behind is read as soon as the other is ahead of it.
    assert_eq!((&*first.ids[4_096], &*first.ids[8_192]), ("b0", "a4096"));
    for (batch_rows, decode_workers) in [(1, 1), (7, 3), (5_000, 1), (1_000, 2)] {
        let context = SourceContext {
            decode_workers,
            ..context(batch_rows)
        };
        let read = read(&plan, context).await;
        assert!(
            read.ids == first.ids,
            "{batch_rows} rows, {decode_workers} workers"
        );
        assert_eq!(read.watermark, first.watermark);
    }
}

/// A run that goes on from a checkpoint reads in the same order, and takes the same rows
/// for late, as one that was not interrupted.
#[tokio::test]
async fn event_times_go_on_where_they_were() {
    let folder = TempDir::new().unwrap();
    let [a, b] = two_files(&folder);
    let plan = files(&[&a, &b], Format::Json);
    let whole = read(&plan, context(500)).await;
    for cut in [1, 4_000, 4_096, 9_000, 20_000, 39_000] {
        let mut parts = Read::default();
        let mut reader = SourceReader::open(&plan, context(500)).await.unwrap();
        while parts.ids.len() < cut {
            parts.add(reader.next().await.unwrap().unwrap());
        }
        let context = SourceContext {
            restored: Arc::new([reader.snapshot()]),
            ..context(500)
        };
        // It is told again.
        parts.watermark = None;
        let mut reader = SourceReader::open(&plan, context).await.unwrap();
        while let Some(pulled) = reader.next().await.unwrap() {
            parts.add(pulled);
        }
        assert!(parts.ids == whole.ids, "cut at {cut}");
        assert_eq!(parts.watermark, whole.watermark);
    }
}

/// Each file is decompressed once, although not all can be open: what was read of it is
/// spoiled here when others are read.
#[tokio::test]
async fn many_compressed_files_are_decompressed_once() {
    const FILES: usize = 70;
    const ROWS: usize = TURN_ROWS as usize + 1_000;
    for compression in [Compression::Gzip, Compression::Zstd] {
        let folder = TempDir::new().unwrap();
        let mut random = fastrand::Rng::with_seed(7);
        let paths: Vec<PathBuf> = (0..FILES)
            .map(|file| {
                let row = |row| {
                    let id: String = (0..16).map(|_| random.alphanumeric()).collect();
                    format!("{{\"id\":\"{id}\",\"ts\":{row}}}\n")
                };
                let text: String = (0..ROWS).map(row).collect();
                let extension = if compression == Compression::Gzip {
                    "gz"
                } else {
                    "zst"
                };
                let name = format!("{file:02}.{extension}");
                write(&folder, &name, compressed(&text, compression))
            })
            .collect();
        let plan = files(
            &Vec::from_iter(paths.iter().map(PathBuf::as_path)),
            Format::Json,
        );
        let mut reader = SourceReader::open(&plan, context(4_096)).await.unwrap();
        let mut read = Read::default();
        while read.ids.len() < FILES * TURN_ROWS as usize {
            read.add(reader.next().await.unwrap().unwrap());
        }
        for path in &paths {
            let file = fs::OpenOptions::new().write(true).open(path).unwrap();
            std::os::unix::fs::FileExt::write_all_at(&file, &[0; 4_096], 8_192).unwrap();
        }
        while let Some(pulled) = reader.next().await.unwrap() {
            read.add(pulled);
        }
        read.ids.sort();
        read.ids.dedup();
        assert_eq!(read.ids.len(), FILES * ROWS);
    }
}

#[tokio::test]
async fn tasks_share_the_partitions() {
    let folder = TempDir::new().unwrap();
    let paths: Vec<_> = ["a", "b", "c"]
        .map(|name| write(&folder, name, format!("{{\"id\":\"{name}\",\"ts\":1}}\n")))
        .into();
    let paths: Vec<_> = paths.iter().map(PathBuf::as_path).collect();
    let plan = files(&paths, Format::Json);
    let mut ids = Vec::new();
    for task in 0..4 {
        ids.push(
            read(
                &plan,
                SourceContext {
                    placement: Placement::on_one_host(task, 4),
                    ..context(7)
                },
            )
            .await
            .ids,
        );
    }
    assert_eq!(ids, [vec!["a"], vec!["b"], vec!["c"], vec![]]);
}

#[tokio::test]
async fn a_reader_that_was_interrupted_loses_nothing() {
    let folder = TempDir::new().unwrap();
    let [a, b] = two_files(&folder);
    let plan = files(&[&a, &b], Format::Json);
    let whole = read(&plan, context(100)).await;
    let context = SourceContext {
        decode_workers: 4,
        ..context(100)
    };
    let mut reader = SourceReader::open(&plan, context).await.unwrap();
    let mut read = Read::default();
    let mut interrupted = 0;
    loop {
        // Polled once and dropped, ready or not.
        let asked = {
            let mut next = std::pin::pin!(reader.next());
            std::future::poll_fn(|context| Poll::Ready(next.as_mut().poll(context))).await
        };
        match asked {
            Poll::Ready(pulled) => match pulled.unwrap() {
                Some(pulled) => read.add(pulled),
                None => break,
            },
            Poll::Pending => {
                interrupted += 1;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }
    assert!(interrupted > 0);
    assert_eq!(read.ids, whole.ids);
}

#[tokio::test]
async fn rows_in_memory_are_their_own_payload() {
    let batch = |ids: &[&str], times: &[Option<i64>]| {
        RecordBatch::try_new(
            Arc::new(schema().to_arrow()),
            vec![
                Arc::new(arrow_array::StringArray::from(ids.to_vec())),
                Arc::new(Int64Array::from(times.to_vec())),
            ],
        )
        .unwrap()
    };
    let partition = vec![
        batch(&["a", "b"], &[Some(1), None]),
        batch(&[], &[]),
        batch(&["c"], &[Some(3)]),
    ];
    let plan = plan(MemorySource::new(vec![partition]));
    for batch_rows in [1, 7] {
        let read = read(&plan, context(batch_rows)).await;
        assert_eq!(read.ids, ["a", "c"]);
        assert_eq!(read.origins[1].offset, 2);
        assert_eq!(
            read.origins[1].payload.as_deref(),
            Some(r#"{"id":"c","ts":3}"#)
        );
        assert_eq!(read.dead_letters[0].offset, Some(1));
        assert_eq!(
            read.dead_letters[0].payload.as_deref(),
            Some(r#"{"id":"b","ts":null}"#)
        );
        assert_eq!((read.rows_in, read.progress), (3, Some(1.0)));
    }
}

fn generated(count: u64) -> EventsPlan {
    EventsPlan {
        seed: 7,
        rate: None,
        count: Some(count),
        users: 100_000,
        items: 20_000,
        start_ms: Some(1_700_000_000_000),
        events_per_second: 500.0,
        jitter_ms: 2_000,
        broken_one_in: 0,
        prices: false,
    }
}

async fn generate(generator: EventsPlan, batch_rows: usize) -> Vec<String> {
    let plan = SourcePlan {
        event_time: EventTime::Field(FieldPath::new(4, Vec::new())),
        out_of_orderness_ms: 2_000,
        ahead_ms_max: Some(86_400_000),
        ..plan(GeneratorSource {
            events: generator.clone(),
        })
    };
    let context = SourceContext {
        schema: events::schema(generator.prices),
        ..context(batch_rows)
    };
    let mut reader = SourceReader::open(&plan, context).await.unwrap();
    let mut rows = Vec::new();
    while let Some(pulled) = reader.next().await.unwrap() {
        for element in pulled.elements {
            match element {
                Element::Batch(batch) => {
                    rows.extend((0..batch.rows()).map(|row| render_row(&batch, row)));
                }
                Element::Watermark(_) => {}
                other => panic!("unexpected {other:?}"),
            }
        }
    }
    rows
}

#[tokio::test]
async fn the_generator_makes_the_same_rows_for_the_same_seed() {
    let rows = generate(generated(2_000), 4_096).await;
    expect![[r#"
        {"user_id":"user-049872","item_id":"item-19232","action":"view","quantity":1,"ts":"2023-11-14T22:13:19.952Z"}
        {"user_id":"user-097395","item_id":"item-11020","action":"view","quantity":2,"ts":"2023-11-14T22:13:19.659Z"}
        {"user_id":"user-064970","item_id":"item-03359","action":"add","quantity":4,"ts":"2023-11-14T22:13:18.016Z"}"#]]
    .assert_eq(&rows[..3].join("\n"));
    assert_eq!(generate(generated(2_000), 7).await, rows);
    assert_ne!(
        generate(
            EventsPlan {
                seed: 8,
                ..generated(2_000)
            },
            7
        )
        .await,
        rows
    );
}

#[tokio::test]
async fn an_item_has_one_price() {
    let plan = |items| EventsPlan {
        prices: true,
        items,
        broken_one_in: 10,
        ..generated(2_000)
    };
    let mut prices: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for row in generate(plan(50), 4_096).await {
        let row: serde_json::Value = serde_json::from_str(&row).unwrap();
        let item = row["item_id"].as_str().unwrap().to_owned();
        let price = row["price"].as_f64().unwrap();
        assert!((0.99..=199.98).contains(&price), "{price}");
        prices.entry(item).or_default().insert(price.to_string());
    }
    // What has no item has that of some item.
    prices.remove("");
    assert!(
        prices.values().all(|prices| prices.len() == 1),
        "{prices:?}"
    );
    let different: BTreeSet<_> = prices.values().flatten().collect();
    assert!(prices.len() > 40 && different.len() > 35, "{prices:?}");
}

#[tokio::test]
async fn generated_lines_are_the_generated_rows() {
    for prices in [false, true] {
        check_generated_lines(EventsPlan {
            broken_one_in: 10,
            prices,
            ..generated(5_000)
        })
        .await;
    }
}

async fn check_generated_lines(plan: EventsPlan) {
    let folder = TempDir::new().unwrap();
    let mut text = Vec::new();
    events::write_json_lines(&plan, &mut text).unwrap();
    let path = write(&folder, "events.jsonl", &text);
    let plan_of_file = SourcePlan {
        event_time: EventTime::Field(FieldPath::new(4, Vec::new())),
        ..files(&[&path], Format::Json)
    };
    let context = SourceContext {
        schema: events::schema(plan.prices),
        ..context(4_096)
    };
    let mut reader = SourceReader::open(&plan_of_file, context).await.unwrap();
    let mut rows = Vec::new();
    while let Some(pulled) = reader.next().await.unwrap() {
        assert_eq!(pulled.failed, 0);
        for element in pulled.elements {
            if let Element::Batch(batch) = element {
                rows.extend((0..batch.rows()).map(|row| render_row(&batch, row)));
            }
        }
    }
    assert_eq!(rows, generate(plan, 4_096).await);
}

/// As in the events that the fixtures were made from.
#[tokio::test]
async fn generated_events_are_as_skewed_as_a_shop_is() {
    let rows = generate(
        EventsPlan {
            broken_one_in: 100,
            ..generated(200_000)
        },
        4_096,
    )
    .await;
    let share = |text: &str| {
        let with = rows.iter().filter(|row| row.contains(text)).count();
        with as f64 / rows.len() as f64
    };
    let check = |text: &str, expected: f64| {
        let share = share(text);
        assert!(
            (share - expected).abs() < expected / 10.0,
            "{text}: {share}, not {expected}"
        );
    };
    check("item-00042", 0.094);
    check("item-07961", 0.047);
    check("user-000123", 0.0217);
    check("user-050122", 0.0126);
    check("\"add\"", 0.45);
    check("\"view\"", 0.40);
    check("\"remove\"", 0.10);
    check("\"checkout\"", 0.05);
    check("\"quantity\":3", 0.2);
    check("\"steal\"", 0.002);
    check("\"user_id\":\"\"", 0.002);
    check("\"item_id\":\"\"", 0.002);
    check("\"quantity\":0", 0.002);
    check("\"quantity\":10000", 0.002);
}

#[tokio::test]
async fn the_generator_keeps_its_rate() {
    let started = Instant::now();
    let rows = generate(
        EventsPlan {
            rate: Some(1_000.0),
            ..generated(150)
        },
        20,
    )
    .await;
    assert_eq!(rows.len(), 150);
    // The machine may be late, but the generator is never early.
    assert!(
        started.elapsed() >= Duration::from_millis(148),
        "{:?}",
        started.elapsed()
    );
}

fn tcp(framing: Framing, connections: Option<u64>) -> SourcePlan {
    tcp_of(Format::Json, framing, connections)
}

fn tcp_of(format: Format, framing: Framing, connections: Option<u64>) -> SourcePlan {
    plan(TcpSource {
        listen: "127.0.0.1:0".to_owned(),
        framing,
        format: format.into(),
        connections,
    })
}

/// Sends pieces on one connection, with a pause after each.
async fn send(address: SocketAddr, pieces: Vec<Vec<u8>>) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    for piece in pieces {
        stream.write_all(&piece).await.unwrap();
        stream.flush().await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    stream.shutdown().await.unwrap();
}

async fn receive(framing: Framing, connections: Vec<Vec<Vec<u8>>>) -> Read {
    let plan = tcp(framing, Some(connections.len() as u64));
    receive_as(&plan, context(4_096), connections).await
}

async fn receive_as(
    plan: &SourcePlan,
    context: SourceContext,
    connections: Vec<Vec<Vec<u8>>>,
) -> Read {
    let mut reader = SourceReader::open(plan, context).await.unwrap();
    let address = reader.address().unwrap();
    for pieces in connections {
        tokio::spawn(send(address, pieces));
    }
    let mut read = Read::default();
    while let Some(pulled) = reader.next().await.unwrap() {
        read.add(pulled);
    }
    read
}

fn prefixed(text: &str) -> Vec<u8> {
    let length = u32::try_from(text.len()).unwrap();
    [&length.to_be_bytes()[..], text.as_bytes()].concat()
}

/// Connections that never end their rows cost no more memory than one long row.
#[tokio::test]
async fn unfinished_rows_of_many_connections_are_bounded() {
    const CONNECTIONS: usize = 12;
    let plan = tcp(Framing::Newline, Some(CONNECTIONS as u64));
    let mut reader = SourceReader::open(&plan, context(4_096)).await.unwrap();
    let address = reader.address().unwrap();
    let all_have_sent = Arc::new(tokio::sync::Barrier::new(CONNECTIONS));
    for _ in 0..CONNECTIONS {
        let all_have_sent = all_have_sent.clone();
        tokio::spawn(async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            // The connection may be closed in between.
            let _ = stream.write_all(&vec![b'x'; 8 << 20]).await;
            all_have_sent.wait().await;
            // What was sent may still be on its way.
            tokio::time::sleep(Duration::from_millis(500)).await;
            let _ = stream.write_all(b"\n{\"id\":\"a\",\"ts\":1}\n").await;
        });
    }
    let mut read = Read::default();
    while let Some(pulled) = reader.next().await.unwrap() {
        read.add(pulled);
    }
    let given_up = read.dead_letters.iter().filter(|letter| {
        let whole = "MiB of unfinished rows; the connection was closed";
        letter.error.ends_with(whole)
    });
    let given_up = given_up.count();
    assert!(
        (4..CONNECTIONS).contains(&given_up),
        "{given_up} of {CONNECTIONS}"
    );
    assert_eq!(read.failed as usize, CONNECTIONS);
    assert_eq!(read.ids.len(), CONNECTIONS - given_up);
}

#[tokio::test]
async fn lines_arrive_in_pieces_and_together() {
    let text = b"{\"id\":\"a\",\"ts\":1}\r\n\n{\"id\":\"b\",\"ts\":2}\n{\"id\":\"c\",\"ts\":3}";
    for size in [1, 10, 1_000] {
        let pieces = text.chunks(size).map(<[u8]>::to_vec).collect();
        let read = receive(Framing::Newline, vec![pieces]).await;
        assert_eq!(read.ids, ["a", "b", "c"], "pieces of {size}");
        assert_eq!(read.origins[2].offset, 2);
        assert_eq!(
            read.origins[2].payload.as_deref(),
            Some("{\"id\":\"c\",\"ts\":3}")
        );
    }
}

#[tokio::test]
async fn frames_arrive_in_pieces_and_together() {
    let frames = [
        prefixed("{\"id\":\"a\",\"ts\":1}"),
        prefixed(""),
        prefixed("{\"id\":\"b\"\n,\"ts\":2}"),
        prefixed("nonsense"),
        prefixed("{\"id\":\"c\",\"ts\":3}"),
    ]
    .concat();
    for size in [1, 9, 1_000] {
        let pieces = frames.chunks(size).map(<[u8]>::to_vec).collect();
        let read = receive(Framing::LengthPrefixed, vec![pieces]).await;
        assert_eq!(read.ids, ["a", "b", "c"], "pieces of {size}");
        expect![[r#"
            2 | byte 0: expected a record, found `nonsense` | "nonsense"
        "#]]
        .assert_eq(&read.errors());
        assert_eq!(read.origins[2].offset, 3);
    }
}

#[tokio::test]
async fn a_frame_that_breaks_off_or_is_too_long_is_one_bad_row() {
    let good = prefixed("{\"id\":\"a\",\"ts\":1}");
    let check = async |frames: Vec<u8>, expected: Expect| {
        let read = receive(Framing::LengthPrefixed, vec![vec![good.clone(), frames]]).await;
        assert_eq!(read.ids, ["a"]);
        expected.assert_eq(&read.errors());
    };
    check(
        b"\0\0\0\x09{\"id\"".to_vec(),
        expect![[r#"
            1 | expected the rest of a frame, found 9 bytes of it and the end of the connection: it was closed | "\0\0\0\t{\"id\""
        "#]],
    )
    .await;
    check(
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        expect![[r#"
            1 | expected a frame of at most 16 MiB behind its length, found a length of 1195725856 bytes; the connection was closed | "GET / HTTP/1.1\r\n\r\n"
        "#]],
    )
    .await;
}

#[tokio::test]
async fn a_line_that_is_too_long_is_skipped_to_its_end() {
    let long = vec![b'x'; (16 << 20) + (200 << 10)];
    let end = b"x\n{\"id\":\"b\",\"ts\":2}\n".to_vec();
    let pieces = vec![b"{\"id\":\"a\",\"ts\":1}\n".to_vec(), long, end];
    let read = receive(Framing::Newline, vec![pieces]).await;
    assert_eq!(read.ids, ["a", "b"]);
    expect![[r#"
        1 | expected a row of at most 16 MiB, found a longer one; its first 64 KiB are kept | "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
    "#]]
    .assert_eq(&read.errors());
}

async fn receive_csv(pieces: Vec<Vec<u8>>, batch_rows: usize) -> Read {
    let plan = tcp_of(CSV_ROWS, Framing::Newline, Some(1));
    receive_as(&plan, context(batch_rows), vec![pieces]).await
}

#[tokio::test]
async fn csv_over_tcp_may_have_line_ends_in_its_fields() {
    let text =
        b"a,1\n\n\"two\nlines\",2\r\n\"\"\"\r\n\"\"\",3\n\"stray\nd,4\n\"x,5\ne,6\n\"the\nlast\",7";
    for (size, batch_rows) in [(1, 4_096), (3, 1), (10, 2), (1_000, 4_096)] {
        let pieces = text.chunks(size).map(<[u8]>::to_vec).collect();
        let read = receive_csv(pieces, batch_rows).await;
        let ids = ["a", "two\nlines", "\"\r\n\"", "d", "e", "the\nlast"];
        assert_eq!(read.ids, ids, "pieces of {size}");
        expect![[r#"
            3 | byte 0: expected `"` at the end of the field, found "stray | "\"stray"
            5 | byte 0: expected `"` at the end of the field, found "x,5 | "\"x,5"
        "#]]
        .assert_eq(&read.errors());
        assert_eq!(read.rows_in, 8);
        let offsets = read.origins.iter().map(|origin| origin.offset);
        assert!(offsets.eq([0, 1, 2, 4, 6, 7]), "{:?}", read.origins);
        assert_eq!(read.origins[1].payload.as_deref(), Some("\"two\nlines\",2"));
    }
}

#[tokio::test]
async fn a_connection_that_ends_in_a_quoted_field_leaves_one_bad_row() {
    for size in [1, 1_000] {
        let text = b"a,1\n\"b\nc,2\nd,3\r\n";
        let pieces = text.chunks(size).map(<[u8]>::to_vec).collect();
        let read = receive_csv(pieces, 4_096).await;
        assert_eq!(read.ids, ["a"]);
        expect![[r#"
            1 | expected the closing quote of a field, found 12 bytes of its row and the end of the connection | "\"b\nc,2\nd,3\r\n"
        "#]]
        .assert_eq(&read.errors());
    }
}

/// A quoted field with many line ends is one bad row if it is too long, and the
/// rows behind it are handed on with it.
#[tokio::test]
async fn a_field_over_tcp_that_is_too_long_is_one_bad_row() {
    let text = huge_field(&"x,\"\"y\"\",2\n".repeat((17 << 20) / 10), ",\"1\n1\"");
    let text = text.strip_prefix("id,ts\n").unwrap();
    for size in [64 << 10, text.len()] {
        let pieces = text.as_bytes().chunks(size).map(<[u8]>::to_vec).collect();
        let read = receive_csv(pieces, 4_096).await;
        assert_eq!(read.ids, ["a", "b", "c\nd"]);
        assert_eq!((read.rows_in, read.failed), (4, 1));
        assert_eq!(read.dead_letters[0].offset, Some(1));
        assert!(
            read.dead_letters[0]
                .error
                .contains("in which a quoted field goes on"),
            "{}",
            read.dead_letters[0].error
        );
    }
}

/// Raw rows have no field for the time.
fn raw_plan(plan: SourcePlan) -> SourcePlan {
    SourcePlan {
        event_time: EventTime::Ingestion,
        ..plan
    }
}

/// A row is one value.
fn raw_context(batch_rows: usize, data_type: DataType) -> SourceContext {
    SourceContext {
        schema: Arc::new(Schema::new(vec![Field::new("id", data_type, false)])),
        ..context(batch_rows)
    }
}

const LINES: &str = "first\r\n\n{\"a\": 1}\n\r\n\"x\ny,\"z\n  \n\nlast";
const VALUES: [&str; 9] = [
    "first",
    "",
    "{\"a\": 1}",
    "",
    "\"x",
    "y,\"z",
    "  ",
    "",
    "last",
];

#[tokio::test]
async fn raw_lines_are_values_wherever_a_run_begins() {
    let folder = TempDir::new().unwrap();
    for (compression, name) in COMPRESSIONS {
        let path = write(&folder, name, compressed(LINES, compression));
        let plan = raw_plan(files(&[&path], Format::Raw));
        for cut in 0..=VALUES.len() {
            let context = raw_context(1, DataType::Utf8);
            let mut reader = SourceReader::open(&plan, context).await.unwrap();
            let mut before = Read::default();
            while before.ids.len() < cut {
                before.add(reader.next().await.unwrap().unwrap());
            }
            let context = SourceContext {
                restored: Arc::new([reader.snapshot()]),
                ..raw_context(4, DataType::Utf8)
            };
            let after = read(&plan, context).await;
            assert_eq!([before.ids, after.ids].concat(), VALUES, "{name}, {cut}");
            assert_eq!(after.failed, 0);
        }
    }
    let path = write(&folder, "ended.log", "one\n\n");
    let plan = raw_plan(files(&[&path], Format::Raw));
    let ended = read(&plan, raw_context(4_096, DataType::Utf8)).await;
    assert_eq!(ended.ids, ["one", ""]);
    let long = "x".repeat((16 << 20) + 1);
    let path = write(
        &folder,
        "bad.log",
        [b"a\n\xFF\n\n", long.as_bytes(), b"\n\nb"].concat(),
    );
    let plan = raw_plan(files(&[&path], Format::Raw));
    let bad = read(&plan, raw_context(4_096, DataType::Utf8)).await;
    assert_eq!(bad.ids, ["a", "", "", "b"]);
    assert!(bad.origins.iter().map(|origin| origin.offset).eq([
        0,
        4,
        5 + long.len() as u64 + 1,
        5 + long.len() as u64 + 2
    ]));
    expect![[r#"
        2 | byte 0: expected UTF-8 text, found other bytes | "/w=="
        5 | expected a row of at most 16 MiB, found a longer one; its first 64 KiB are kept | "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
    "#]]
    .assert_eq(&bad.errors());
}

#[tokio::test]
async fn raw_bytes_need_not_be_text() {
    let folder = TempDir::new().unwrap();
    let path = write(&folder, "events.log", b"\xFF\x00\r\n\nb\r");
    let plan = raw_plan(files(&[&path], Format::Raw));
    let context = raw_context(4_096, DataType::Bytes);
    let mut reader = SourceReader::open(&plan, context).await.unwrap();
    let pulled = reader.next().await.unwrap().unwrap();
    let Element::Batch(batch) = &pulled.elements[0] else {
        panic!("{pulled:?}");
    };
    let values: Vec<&[u8]> = batch.columns[0]
        .as_binary::<i32>()
        .iter()
        .flatten()
        .collect();
    assert_eq!(values, [&b"\xFF\x00"[..], b"", b"b"]);
}

#[tokio::test]
async fn raw_lines_and_frames_come_over_tcp() {
    for size in [1, 5, 1_000] {
        let plan = |framing| raw_plan(tcp_of(Format::Raw, framing, Some(1)));
        let in_pieces = |bytes: &[u8]| vec![bytes.chunks(size).map(<[u8]>::to_vec).collect()];
        let context = || raw_context(2, DataType::Utf8);
        let lines = in_pieces(LINES.as_bytes());
        let lines = receive_as(&plan(Framing::Newline), context(), lines).await;
        assert_eq!(lines.ids, VALUES, "pieces of {size}");
        assert!(lines.origins.iter().map(|origin| origin.offset).eq(0..9));
        let values = ["a\n", "", "\r\n"];
        let frames = in_pieces(&values.map(prefixed).concat());
        let frames = receive_as(&plan(Framing::LengthPrefixed), context(), frames).await;
        assert_eq!(frames.ids, values, "pieces of {size}");
    }
}

#[tokio::test]
async fn many_connections_are_read_at_once() {
    let connections = (0..50)
        .map(|connection| {
            (0..20)
                .map(|row| format!("{{\"id\":\"{connection}/{row}\",\"ts\":1}}\n").into_bytes())
                .collect()
        })
        .collect();
    let mut read = receive(Framing::Newline, connections).await;
    let mut expected: Vec<_> = (0..50)
        .flat_map(|c| (0..20).map(move |row| format!("{c}/{row}")))
        .collect();
    read.ids.sort();
    expected.sort();
    assert_eq!(read.ids, expected);
    assert!(read.origins.iter().map(|origin| origin.offset).eq(0..1_000));
}

#[tokio::test]
async fn a_row_is_handed_on_before_a_batch_is_full_and_cut_when_it_is() {
    let mut reader = SourceReader::open(&tcp(Framing::Newline, None), context(2))
        .await
        .unwrap();
    let mut stream = TcpStream::connect(reader.address().unwrap()).await.unwrap();
    let row = b"{\"id\":\"a\",\"ts\":1}\n";
    stream.write_all(row).await.unwrap();
    assert_eq!(reader.next().await.unwrap().unwrap().rows_in, 1);
    stream.write_all(&row.repeat(5)).await.unwrap();
    let mut sizes = Vec::new();
    while sizes.iter().sum::<u64>() < 5 {
        sizes.push(reader.next().await.unwrap().unwrap().rows_in);
    }
    assert!(sizes.iter().all(|&size| size <= 2), "{sizes:?}");
    // A client that still writes finds the connection closed when the reader is
    // gone.
    drop(reader);
    tokio::time::sleep(Duration::from_millis(20)).await;
    let mut result = stream.write_all(row).await;
    for _ in 0..50 {
        tokio::time::sleep(Duration::from_millis(5)).await;
        result = result.and(stream.write_all(row).await);
    }
    assert!(result.is_err());
}

/// What a reader emits within a moment.
async fn soon(reader: &mut SourceReader) -> &'static str {
    match tokio::time::timeout(Duration::from_millis(300), reader.next()).await {
        Err(_) => "nothing",
        Ok(pulled) => match &pulled.unwrap().unwrap().elements[..] {
            [Element::Idle] => "idle",
            _ => "something else",
        },
    }
}

#[tokio::test]
async fn silence_is_told_once_and_ends_with_the_next_row() {
    let clock = Arc::new(ManualClock::default());
    let plan = SourcePlan {
        idle_after_ms: Some(1_000),
        tells_each_watermark: false,
        ..tcp(Framing::Newline, None)
    };
    let context = SourceContext {
        clock: clock.clone(),
        ..context(7)
    };
    let mut reader = SourceReader::open(&plan, context).await.unwrap();
    assert_eq!(soon(&mut reader).await, "nothing");
    clock.set(1_000);
    assert_eq!(soon(&mut reader).await, "idle");
    assert_eq!(soon(&mut reader).await, "nothing");
    let mut stream = TcpStream::connect(reader.address().unwrap()).await.unwrap();
    stream
        .write_all(b"{\"id\":\"a\",\"ts\":5}\n")
        .await
        .unwrap();
    let pulled = reader.next().await.unwrap().unwrap();
    assert!(matches!(
        pulled.elements[..],
        [Element::Batch(_), Element::Watermark(5)]
    ));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A file's rows are its lines, however it is read.
    #[test]
    fn blocks_are_cut_between_rows(
        rows in prop::collection::vec((0usize..12_000, "\r?\n{1,3}"), 1..40),
        batch_rows in 1usize..20,
        csv in any::<bool>(),
        open_end in any::<bool>(),
    ) {
        let folder = TempDir::new().unwrap();
        let mut text = if csv { "id,ts\n".to_owned() } else { String::new() };
        let mut expected = Vec::new();
        for (index, (length, end)) in rows.iter().enumerate() {
            let is_last = index + 1 == rows.len();
            let end = if is_last && open_end { "" } else { end };
            let id = format!("{index}{}", "é".repeat(*length));
            match (csv, index % 3) {
                (false, _) => text += &format!("{{\"id\":\"{id}\",\"ts\":1}}{end}"),
                // A line end and a doubled quote, each somewhere in a block.
                (true, 0) => text += &format!("\"{id}\n\"\"\",1{end}"),
                (true, 1) => text += &format!("\"{id}\",1{end}"),
                (true, _) => text += &format!("{id},1{end}"),
            }
            expected.push(if csv && index % 3 == 0 { format!("{id}\n\"") } else { id });
        }
        let path = write(&folder, "rows", &text);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let plan = files(&[&path], if csv { CSV } else { Format::Json });
        let read = runtime.block_on(read(&plan, context(batch_rows)));
        prop_assert_eq!(read.errors(), "");
        assert_origins_are_true(&read, text.as_bytes());
        prop_assert!(read.ids == expected);
    }

    /// Whatever a file contains, nothing panics and every row is accounted for.
    #[test]
    fn no_file_causes_a_panic(
        bytes in prop::collection::vec(
            prop_oneof![Just(b'"'), Just(b'\n'), Just(b','), Just(b'\r'), Just(b'1'), any::<u8>()],
            0..300,
        ),
        batch_rows in 1usize..5,
        csv in any::<bool>(),
    ) {
        let folder = TempDir::new().unwrap();
        let header = if csv { &b"id,ts\n"[..] } else { b"" };
        let path = write(&folder, "rows", [header, &bytes].concat());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let plan = files(&[&path], if csv { CSV } else { Format::Json });
        let first = runtime.block_on(read(&plan, context(batch_rows)));
        prop_assert_eq!(first.rows_in, first.ids.len() as u64 + first.failed);
        let again = runtime.block_on(read(&plan, context(4_096)));
        prop_assert_eq!(first.ids, again.ids);
        prop_assert_eq!(first.dead_letters, again.dead_letters);
    }
}
