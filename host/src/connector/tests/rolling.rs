//! Numbered files: when one is complete, when it gets its name, and that kills
//! between any two steps lose and double nothing.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use arrow_array::StringArray;
use arrow_array::cast::AsArray;
use proptest::prelude::*;
use tempfile::TempDir;

use crate::batch::Batch;
use crate::checkpoint::snapshot::SinkSnapshot;
use crate::clock::ManualClock;
use crate::connector::file::beginning::IfExists;
use crate::connector::file::opened::Compression;
use crate::connector::file::rolling::Roll;
use crate::connector::file::sink::FileSink;
use crate::connector::file::sink_format::SinkFormat;
use crate::element::CheckpointId;
use crate::format::CsvFormat;
use crate::schema::{DataType, Field, Schema};
use crate::sink::{Ending, Sink, SinkConnector, SinkContext, SinkError};

fn schema() -> Arc<Schema> {
    Arc::new(Schema::new(vec![Field::new("n", DataType::Utf8, false)]))
}

/// Rows with these numbers, of different lengths.
fn rows(numbers: std::ops::Range<usize>) -> Batch {
    let texts = numbers.clone().map(row).map(Some);
    Batch {
        schema: schema(),
        columns: vec![Arc::new(texts.collect::<StringArray>())],
        times: vec![0; numbers.len()].into(),
        origin: None,
        watermarks: None,
        taken_back: None,
    }
}

fn row(number: usize) -> String {
    format!("{number}-{}", "x".repeat(number % 7))
}

/// A folder that a sink writes to.
struct Folder {
    folder: TempDir,
    clock: Arc<ManualClock>,
    sink: FileSink,
}

impl Folder {
    fn new(format: SinkFormat, compression: Compression, roll: Roll) -> Self {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("out.txt");
        Folder {
            folder,
            clock: Arc::default(),
            sink: FileSink {
                path,
                folder: PathBuf::new(),
                format,
                compression,
                if_exists: IfExists::Fail,
                csv: CsvFormat::default(),
                // Those of Parquet are numbered by checkpoints.
                roll: (format != SinkFormat::Parquet).then_some(roll),
            },
        }
    }

    fn of_lines(bytes: u64) -> Self {
        let roll = Roll {
            bytes: Some(bytes),
            every_ms: None,
        };
        Folder::new(SinkFormat::Json, Compression::None, roll)
    }

    fn if_exists(mut self, if_exists: IfExists) -> Self {
        self.sink.if_exists = if_exists;
        self
    }

    fn context(&self, restored: Option<&SinkSnapshot>) -> SinkContext {
        SinkContext {
            is_checkpointed: true,
            restored: restored.cloned(),
            clock: self.clock.clone(),
            ..SinkContext::default()
        }
    }

    fn try_open(&self, context: &SinkContext) -> Result<Box<dyn Sink>, SinkError> {
        self.sink.open("out", &schema(), context)
    }

    /// Opens it for a run without checkpoints.
    fn alone(&self) -> Box<dyn Sink> {
        let context = SinkContext {
            clock: self.clock.clone(),
            ..SinkContext::default()
        };
        self.try_open(&context).unwrap()
    }

    /// Opens it for a run with checkpoints that goes on from one.
    fn restored(&self, restored: &SinkSnapshot) -> Box<dyn Sink> {
        self.restored_in(&self.context(Some(restored)))
    }

    fn restored_in(&self, context: &SinkContext) -> Box<dyn Sink> {
        let before = self.files();
        let mut sink = self.try_open(context).unwrap();
        assert_eq!(self.files(), before, "another sink may not be opened");
        sink.flush().unwrap();
        sink
    }

    /// As [`Folder::restored`], from a checkpoint that is not the last one.
    fn restored_older(&self, restored: &SinkSnapshot) -> Box<dyn Sink> {
        let context = SinkContext {
            goes_back_to: Some(1),
            ..self.context(Some(restored))
        };
        let mut sink = self.try_open(&context).unwrap();
        sink.flush().unwrap();
        sink
    }

    /// Opens it for a run with checkpoints that does not change anything before its
    /// first one.
    fn waiting(&self, restored: Option<&SinkSnapshot>) -> Result<Box<dyn Sink>, SinkError> {
        self.try_open(&SinkContext {
            waits_for_commit: true,
            goes_back_to: restored.map(|_| 1),
            ..self.context(restored)
        })
    }

    /// A run that has made its first checkpoint.
    fn begun(&self) -> Box<dyn Sink> {
        let mut sink = self.waiting(None).unwrap();
        sink.barrier(1).unwrap();
        sink.committed(1).unwrap();
        sink
    }

    fn refusal(&self, context: &SinkContext) -> String {
        let refused = self.try_open(context).err().expect("it is refused");
        let folder = self.folder.path().display().to_string();
        refused.to_string().replace(&folder, "")
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.folder.path().join(name), text).unwrap();
    }

    /// The files that are not empty, without the list of them.
    fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let files = fs::read_dir(self.folder.path()).unwrap().map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, fs::read(path).unwrap())
        });
        let files = files.filter(|(name, bytes)| !bytes.is_empty() && !name.starts_with('.'));
        files.collect()
    }

    fn names(&self) -> Vec<String> {
        self.files().into_keys().collect()
    }

    /// The rows of files with these names, each of which must be whole.
    fn rows_of(&self, is_wanted: impl Fn(&str) -> bool) -> Vec<String> {
        let mut rows = Vec::new();
        let mut files = Vec::from_iter(self.files());
        files.retain(|(name, _)| is_wanted(name));
        files.sort_by_key(|(name, _)| (name.len(), name.clone()));
        for (name, bytes) in files {
            if self.sink.format == SinkFormat::Parquet {
                rows.extend(parquet_rows(&self.folder.path().join(name)));
                continue;
            }
            let mut text = String::new();
            let mut bytes = bytes.as_slice();
            let read = match self.sink.compression {
                Compression::None => bytes.read_to_string(&mut text),
                Compression::Gzip => {
                    flate2::read::MultiGzDecoder::new(bytes).read_to_string(&mut text)
                }
                Compression::Zstd => zstd::Decoder::new(bytes).unwrap().read_to_string(&mut text),
            };
            read.unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(text.ends_with('\n'), "{name}: {text}");
            let mut lines = text.lines();
            if self.sink.format == SinkFormat::Csv {
                assert_eq!(lines.next(), Some("n"), "{name}");
            }
            rows.extend(lines.map(|line| match self.sink.format {
                SinkFormat::Csv => line.to_owned(),
                _ => line[6..line.len() - 2].to_owned(),
            }));
        }
        rows
    }

    /// The rows that readers have.
    fn rows(&self) -> Vec<String> {
        self.rows_of(|name| !name.ends_with(".part"))
    }
}

fn parquet_rows(path: &Path) -> Vec<String> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap());
    let batches = reader.unwrap().build().unwrap();
    let rows = |batch: arrow_array::RecordBatch| {
        let texts = batch.column(0).as_string::<i32>().clone();
        Vec::from_iter(texts.iter().map(|text| text.unwrap().to_owned()))
    };
    batches.flat_map(|batch| rows(batch.unwrap())).collect()
}

/// How many bytes a row has in JSON.
fn bytes(number: usize) -> usize {
    r#"{"n":""}"#.len() + row(number).len() + 1
}

#[test]
fn a_file_is_complete_with_the_row_that_fills_it() {
    let mut whole = None;
    for batch_rows in [1, 3, 100] {
        let folder = Folder::of_lines(100);
        let mut sink = folder.alone();
        for first in (0..100).step_by(batch_rows) {
            let last = (first + batch_rows).min(100);
            sink.write(&rows(first..last)).unwrap();
        }
        assert!(folder.names().contains(&"out-000001.txt".to_owned()));
        sink.finish(Ending::Complete).unwrap();
        drop(sink);
        let expected: Vec<String> = (0..100).map(row).collect();
        assert_eq!(folder.rows(), expected);
        let files = folder.files();
        let mut number = 0;
        for (index, (name, text)) in files.iter().enumerate() {
            assert_eq!(*name, format!("out-{:06}.txt", index + 1));
            number += text.iter().filter(|byte| **byte == b'\n').count();
            if index + 1 < files.len() {
                assert!(text.len() >= 100, "{name}");
                assert!(text.len() - bytes(number - 1) < 100, "{name}");
            }
        }
        let entries = fs::read_dir(folder.folder.path()).unwrap().count();
        assert_eq!(entries, files.len() + 1, "nothing is left but the list");
        let first = whole.get_or_insert_with(|| files.clone());
        assert_eq!(*first, files, "batches do not matter");
    }
}

#[test]
fn each_file_has_a_header_and_may_be_compressed() {
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let roll = Roll {
            bytes: Some(60),
            every_ms: None,
        };
        let folder = Folder::new(SinkFormat::Csv, compression, roll);
        let mut sink = folder.alone();
        for number in 0..100 {
            sink.write(&rows(number..number + 1)).unwrap();
            sink.flush().unwrap();
        }
        sink.finish(Ending::Complete).unwrap();
        let expected: Vec<String> = (0..100).map(row).collect();
        assert_eq!(folder.rows(), expected, "{compression:?}");
        assert!(folder.names().len() > 5, "{compression:?}");
    }
}

#[test]
fn a_file_is_complete_at_its_age_although_no_row_comes() {
    let roll = Roll {
        bytes: None,
        every_ms: Some(60_000),
    };
    let folder = Folder::new(SinkFormat::Json, Compression::None, roll);
    let mut sink = folder.alone();
    folder.clock.set(1_000);
    sink.flush().unwrap();
    assert_eq!(sink.flush_at_ms(), None, "no row, no age");
    sink.write(&rows(0..1)).unwrap();
    assert_eq!(sink.flush_at_ms(), Some(61_000));
    folder.clock.set(60_999);
    sink.write(&rows(1..2)).unwrap();
    sink.flush().unwrap();
    assert_eq!(folder.names(), ["out-000001.txt.part"]);
    folder.clock.set(61_000);
    sink.flush().unwrap();
    assert_eq!(folder.names(), ["out-000001.txt"]);
    assert_eq!(sink.flush_at_ms(), None);
    folder.clock.set(200_000);
    sink.flush().unwrap();
    sink.write(&rows(2..3)).unwrap();
    folder.clock.set(270_000);
    // The row that comes too late for a file is in the next one.
    sink.write(&rows(3..4)).unwrap();
    assert_eq!(folder.rows(), ["0-", "1-x", "2-xx"]);
    // Its rows are whole, and the next run goes on with another file.
    sink.finish(Ending::Stopped).unwrap();
    assert_eq!(folder.rows(), ["0-", "1-x", "2-xx", "3-xxx"]);
    assert_eq!(folder.names().len(), 3);
}

#[test]
fn only_what_was_written_gets_its_name_when_it_is_committed() {
    for is_replaced in [false, true] {
        let folder = Folder::of_lines(20);
        let mut sink = folder.begun();
        sink.write(&rows(0..3)).unwrap();
        sink.barrier(2).unwrap();
        let path = |name: &str| folder.folder.path().join(name);
        fs::remove_file(path("out-000001.txt.part")).unwrap();
        if is_replaced {
            fs::write(path("out-000001.txt.part"), "mine").unwrap();
        }
        let refused = sink.committed(2).expect_err("it is another file");
        assert!(
            refused.to_string().contains("was removed, or replaced"),
            "{refused}"
        );
        assert!(!path("out-000001.txt").exists());
    }
}

#[test]
fn a_restored_file_gets_its_name_only_if_it_is_what_was_written() {
    let folder = Folder::of_lines(20);
    let mut sink = folder.begun();
    sink.write(&rows(0..3)).unwrap();
    let second = sink.barrier(2).unwrap();
    drop(sink);
    let [part, named] = ["out-000001.txt.part", "out-000001.txt"];
    let path = |name: &str| folder.folder.path().join(name);
    let whole = fs::read(path(part)).unwrap();
    let refusal = || {
        let mut sink = folder.try_open(&folder.context(Some(&second))).unwrap();
        sink.flush().expect_err("it is refused").to_string()
    };
    folder.write(part, "precious");
    let said = refusal();
    assert!(said.contains("is not the file of the checkpoint"), "{said}");
    assert_eq!(fs::read(path(part)).unwrap(), b"precious");
    fs::write(path(part), &whole).unwrap();
    folder.write(named, "precious");
    let said = refusal();
    assert!(said.contains("the checkpoint does not know it"), "{said}");
    assert_eq!(fs::read(path(named)).unwrap(), b"precious");
    fs::remove_file(path(named)).unwrap();
    drop(folder.restored(&second));
    assert_eq!(fs::read(path(named)).unwrap(), whole);
}

#[test]
fn what_has_the_temporary_name_of_a_file_that_goes_on_is_not_written_over() {
    let folder = Folder::of_lines(100);
    let mut sink = folder.begun();
    sink.write(&rows(0..1)).unwrap();
    let snapshot = sink.barrier(2).unwrap();
    sink.finish(Ending::Complete).unwrap();
    drop(sink);
    assert_eq!(folder.names(), ["out-000001.txt"]);
    folder.write("out-000001.txt.part", "precious");
    let refused = folder.waiting(Some(&snapshot)).err().unwrap();
    assert!(
        refused.to_string().contains("out-000001.txt.part has rows"),
        "{refused}"
    );
    let part = folder.folder.path().join("out-000001.txt.part");
    fs::remove_file(part).unwrap();
    drop(folder.restored_older(&snapshot));
    assert_eq!(folder.names(), ["out-000001.txt.part"]);
}

#[test]
fn what_somebody_makes_under_the_name_of_a_file_that_is_written_stays() {
    let is_refused = |done: Result<(), SinkError>| {
        let refused = done.unwrap_err().to_string();
        assert!(refused.contains("has not written it: move it"), "{refused}");
    };
    // Between the row that fills a file and the commit.
    let folder = Folder::of_lines(20);
    let mut sink = folder.begun();
    sink.write(&rows(0..3)).unwrap();
    folder.write("out-000001.txt", "precious");
    let snapshot = sink.barrier(2).unwrap();
    is_refused(sink.committed(2));
    drop(sink);
    assert_eq!(folder.files()["out-000001.txt"], b"precious");
    // The next run says the same, and goes on when it was moved away.
    let mut sink = folder.try_open(&folder.context(Some(&snapshot))).unwrap();
    assert!(sink.flush().is_err());
    drop(sink);
    assert_eq!(folder.files()["out-000001.txt"], b"precious");
    fs::remove_file(folder.folder.path().join("out-000001.txt")).unwrap();
    let mut sink = folder.restored(&snapshot);
    sink.finish(Ending::Complete).unwrap();
    drop(sink);
    assert_eq!(folder.rows(), (0..3).map(row).collect::<Vec<_>>());
    // The last one, and those of a run without checkpoints.
    for bytes in [20, 1_000] {
        let folder = Folder::of_lines(bytes);
        let mut sink = folder.alone();
        sink.write(&rows(0..1)).unwrap();
        folder.write("out-000001.txt", "precious");
        let written = sink.write(&rows(1..3));
        is_refused(written.and_then(|()| sink.finish(Ending::Complete)));
        drop(sink);
        assert_eq!(folder.files()["out-000001.txt"], b"precious");
        assert!(folder.names().contains(&"out-000001.txt.part".to_owned()));
    }
}

/// Then the checkpoint knows what is in the file.
#[test]
fn without_its_list_a_file_gets_its_name_only_if_it_is_the_one_of_the_checkpoint() {
    let folder = Folder::of_lines(20);
    let mut sink = folder.begun();
    sink.write(&rows(0..3)).unwrap();
    let snapshot = sink.barrier(2).unwrap();
    drop(sink);
    let part = folder.folder.path().join("out-000001.txt.part");
    let list = folder.folder.path().join(".out.txt.written");
    let whole = fs::read(&part).unwrap();
    let mut edited = whole.clone();
    edited[3] ^= 1;
    for other in [&b"precious"[..], &edited] {
        fs::remove_file(&list).unwrap();
        fs::write(&part, other).unwrap();
        let mut sink = folder.try_open(&folder.context(Some(&snapshot))).unwrap();
        let refused = sink.flush().unwrap_err().to_string();
        assert!(refused.contains("is not the file of"), "{refused}");
        drop(sink);
        assert_eq!(fs::read(&part).unwrap(), other);
        fs::write(&list, "").unwrap();
    }
    fs::remove_file(&list).unwrap();
    fs::write(&part, whole).unwrap();
    drop(folder.restored(&snapshot));
    assert_eq!(folder.names()[0], "out-000001.txt");
    // Checkpoints of earlier versions have only the names.
    fs::rename(folder.folder.path().join("out-000001.txt"), &part).unwrap();
    fs::remove_file(&list).unwrap();
    let earlier = SinkSnapshot {
        staged_digests: Vec::new(),
        ..snapshot
    };
    drop(folder.restored(&earlier));
    assert_eq!(folder.names()[0], "out-000001.txt");
}

#[test]
fn no_rows_no_files() {
    let folder = Folder::of_lines(100);
    folder.alone().finish(Ending::Complete).unwrap();
    let mut sink = folder.begun();
    sink.finish(Ending::Complete).unwrap();
    drop(sink);
    assert_eq!(fs::read_dir(folder.folder.path()).unwrap().count(), 0);
}

#[test]
fn a_file_gets_its_name_when_the_checkpoint_with_its_last_row_is_committed() {
    let folder = Folder::of_lines(20);
    let mut sink = folder.begun();
    sink.write(&rows(0..3)).unwrap();
    let second = sink.barrier(2).unwrap();
    assert_eq!(second.staged.len(), 1);
    sink.write(&rows(3..5)).unwrap();
    sink.flush().unwrap();
    let (part, named) = (
        |number| format!("out-{number:06}.txt.part"),
        |number| format!("out-{number:06}.txt"),
    );
    assert_eq!(folder.names(), [part(1), part(2), part(3)]);
    sink.barrier(3).unwrap();
    sink.committed(2).unwrap();
    assert_eq!(folder.names(), [named(1), part(2), part(3)]);
    sink.committed(3).unwrap();
    assert_eq!(folder.names(), [named(1), named(2), part(3)]);
    drop(sink);

    // The rename may have been done, or not.
    for _ in 0..2 {
        drop(folder.restored_older(&second));
        assert_eq!(folder.names()[0], named(1));
        let from = folder.folder.path().join(named(1));
        fs::rename(from, folder.folder.path().join(part(1))).unwrap();
        let at = folder.folder.path().join(named(2));
        let _ = fs::rename(at, folder.folder.path().join(part(2)));
    }
    let mut sink = folder.restored_older(&second);
    sink.write(&rows(3..5)).unwrap();
    sink.finish(Ending::Complete).unwrap();
    assert_eq!(folder.rows(), ["0-", "1-x", "2-xx", "3-xxx", "4-xxxx"]);
}

#[test]
fn the_age_of_a_file_is_kept() {
    let roll = Roll {
        bytes: None,
        every_ms: Some(60_000),
    };
    let folder = Folder::new(SinkFormat::Json, Compression::None, roll);
    let mut sink = folder.begun();
    folder.clock.set(1_000);
    sink.write(&rows(0..1)).unwrap();
    let kept = sink.barrier(2).unwrap();
    drop(sink);
    folder.clock.set(50_000);
    let mut sink = folder.restored(&kept);
    assert_eq!(sink.flush_at_ms(), Some(61_000));
    folder.clock.set(61_000);
    // It is complete, so the checkpoint has it.
    let kept = sink.barrier(3).unwrap();
    assert_eq!((kept.number, kept.bytes), (Some(2), Some(0)));
    sink.committed(3).unwrap();
    assert_eq!(folder.rows(), ["0-"]);
}

#[test]
fn files_that_are_there_are_treated_as_the_pipeline_says() {
    let there = || {
        let folder = Folder::of_lines(20);
        folder.write("out-000002.txt", "{\"n\":\"old\"}\n");
        folder.write("out-3.txt", "not numbered");
        folder
    };
    for is_checkpointed in [false, true] {
        let open = |folder: &Folder| match is_checkpointed {
            true => folder.begun(),
            false => folder.alone(),
        };
        let folder = there();
        let context = SinkContext {
            is_checkpointed,
            waits_for_commit: is_checkpointed,
            ..SinkContext::default()
        };
        let said = folder.refusal(&context);
        assert!(
            said.starts_with("sink `out`: cannot write /out-000002.txt: /out-000002.txt is there"),
            "{said}"
        );
        assert_eq!(folder.files().len(), 2);

        let folder = there().if_exists(IfExists::Append);
        let mut sink = open(&folder);
        sink.write(&rows(0..3)).unwrap();
        sink.finish(Ending::Complete).unwrap();
        let files = folder.files();
        let names = ["out-000002.txt", "out-000003.txt", "out-000004.txt"];
        assert!(names.iter().all(|name| files.contains_key(*name)));
        let text = folder.rows_of(|name| name.starts_with("out-0"));
        assert_eq!(text, ["old", "0-", "1-x", "2-xx"]);

        let folder = there().if_exists(IfExists::Replace);
        fs::remove_file(folder.folder.path().join("out-000002.txt")).unwrap();
        for last in [9, 1] {
            let mut sink = open(&folder);
            sink.write(&rows(0..last)).unwrap();
            sink.finish(Ending::Complete).unwrap();
        }
        assert_eq!(folder.names(), ["out-000001.txt", "out-3.txt"]);
    }
}

/// Whoever has called a file like those of the sink, or has changed one of them.
#[test]
fn files_of_others_are_neither_deleted_nor_written_over() {
    for is_checkpointed in [false, true] {
        let context = |pipeline: &str| SinkContext {
            pipeline: pipeline.to_owned(),
            is_checkpointed,
            ..SinkContext::default()
        };
        let folder = Folder::of_lines(20).if_exists(IfExists::Replace);
        let run = |pipeline: &str| -> Result<(), SinkError> {
            let mut sink = folder.try_open(&context(pipeline))?;
            sink.write(&rows(0..5))?;
            sink.finish(Ending::Complete)
        };
        run("one").unwrap();
        let refuse = |pipeline: &str, expected: &str| {
            let before = folder.files();
            let said = folder.refusal(&context(pipeline));
            assert!(said.contains(expected), "{said}");
            assert!(said.contains("not known to be this pipeline's"), "{said}");
            assert_eq!(folder.files(), before);
        };
        refuse("other", "/out-000001.txt, /out-000002.txt");

        let path = |name: &str| folder.folder.path().join(name);
        for name in ["out-002023.txt", "out-000001.txt.part"] {
            folder.write(name, "{\"n\":\"precious\"}\n");
            refuse("one", name);
            fs::remove_file(path(name)).unwrap();
        }
        let second = fs::read(path("out-000002.txt")).unwrap();
        let added = [second.as_slice(), b"precious\n"].concat();
        fs::write(path("out-000002.txt"), added).unwrap();
        refuse("one", "/out-000002.txt:");
        // A copy has nothing that the sink has not written.
        fs::remove_file(path("out-000002.txt")).unwrap();
        fs::write(path("out-000002.txt"), second).unwrap();
        run("one").unwrap();

        // While a run goes on, too.
        let mut sink = folder.try_open(&context("one")).unwrap();
        sink.write(&rows(0..1)).unwrap();
        folder.write("out-000002.txt.part", "precious");
        let failed = sink.write(&rows(1..9)).unwrap_err().to_string();
        assert!(failed.contains("/out-000002.txt.part: called"), "{failed}");
        assert_eq!(fs::read(path("out-000002.txt.part")).unwrap(), b"precious");
    }
}

/// A file without a number may be called like one with.
#[test]
fn a_numbered_file_that_has_no_name_yet_is_no_other_sinks() {
    let folder = Folder::of_lines(20);
    let mut sink = folder.begun();
    sink.write(&rows(0..3)).unwrap();
    sink.barrier(2).unwrap();
    let before = folder.files();
    for if_exists in [IfExists::Append, IfExists::Replace] {
        for number in [1, 2] {
            let plain = FileSink {
                path: folder.folder.path().join(format!("out-00000{number}.txt")),
                roll: None,
                if_exists,
                ..folder.sink.clone()
            };
            let refused = plain.open("plain", &schema(), &folder.context(None)).err();
            let refused = refused.unwrap().to_string();
            assert!(
                refused.contains("is one of the numbered files"),
                "{refused}"
            );
        }
    }
    assert_eq!(folder.files(), before);
    sink.committed(2).unwrap();
    sink.finish(Ending::Complete).unwrap();
    assert_eq!(folder.rows(), ["0-", "1-x", "2-xx"]);
}

#[test]
fn files_are_replaced_when_there_is_a_checkpoint() {
    for crashes in [false, true] {
        let folder = Folder::of_lines(20).if_exists(IfExists::Replace);
        let mut killed = folder.begun();
        killed.write(&rows(0..9)).unwrap();
        killed.barrier(2).unwrap();
        killed.committed(2).unwrap();
        killed.write(&rows(9..13)).unwrap();
        killed.flush().unwrap();
        drop(killed);
        let before = folder.files();
        let parts = before.keys().filter(|name| name.ends_with(".part"));
        assert!(parts.count() > 1 && before.len() > 4, "{:?}", before.keys());
        let mut sink = folder.waiting(None).unwrap();
        sink.flush().unwrap();
        let kept = sink.barrier(1).unwrap();
        assert_eq!(folder.files(), before, "the run may be withdrawn");
        if crashes {
            drop(sink);
            sink = folder.restored(&kept);
        } else {
            sink.committed(1).unwrap();
        }
        assert!(folder.names().is_empty());
    }
}

#[test]
fn rows_that_some_checkpoint_may_know_are_not_overwritten() {
    let part = |folder: &Folder| folder.write("out-000004.txt.part", "{\"n\":\"old\"}\n");
    let folder = Folder::of_lines(20);
    part(&folder);
    let said = folder.refusal(&folder.context(None));
    assert!(said.contains("/out-000004.txt.part is there"), "{said}");
    let folder = folder.if_exists(IfExists::Append);
    let mut sink = folder.begun();
    sink.write(&rows(0..1)).unwrap();
    sink.finish(Ending::Complete).unwrap();
    assert_eq!(folder.names(), ["out-000004.txt.part", "out-000005.txt"]);
    // Nor are those that a run without checkpoints has left.
    let folder = Folder::of_lines(20).if_exists(IfExists::Append);
    for part in 1..3 {
        let mut failed = folder.alone();
        failed.write(&rows(0..1)).unwrap();
        failed.flush().unwrap();
        drop(failed);
        assert_eq!(folder.names().len(), part);
    }
    let mut sink = folder.alone();
    sink.write(&rows(5..6)).unwrap();
    sink.finish(Ending::Complete).unwrap();
    let names = [
        "out-000001.txt.part",
        "out-000002.txt.part",
        "out-000003.txt",
    ];
    assert_eq!(folder.names(), names);
    drop(sink);
    let folder = folder.if_exists(IfExists::Replace);
    let mut sink = folder.alone();
    sink.write(&rows(5..6)).unwrap();
    sink.finish(Ending::Complete).unwrap();
    assert_eq!(folder.names(), ["out-000001.txt"]);
}

#[test]
fn a_file_that_the_checkpoint_does_not_know_is_left_alone() {
    let folder = Folder::of_lines(20);
    let mut sink = folder.begun();
    sink.write(&rows(0..3)).unwrap();
    let kept = sink.barrier(2).unwrap();
    drop(sink);
    folder.write("out-000003.txt", "of somebody else");
    let said = folder.refusal(&folder.context(Some(&kept)));
    let expected = "/out-000003.txt: it is there, and the checkpoint does not know it";
    assert!(said.contains(expected), "{said}");
    fs::remove_file(folder.folder.path().join("out-000003.txt")).unwrap();
    let mut sink = folder.restored(&kept);
    folder.write("out-000003.txt", "of somebody else");
    let failed = sink.write(&rows(3..9)).unwrap_err().to_string();
    assert!(failed.contains("this run has not written it"), "{failed}");
    drop(sink);

    // Nor is another file taken for the checkpoint's.
    fs::remove_file(folder.folder.path().join("out-000003.txt")).unwrap();
    folder.write("out-000002.txt.part", &"other ".repeat(100));
    let said = folder.refusal(&folder.context(Some(&kept)));
    assert!(said.contains("is not the file of the checkpoint"), "{said}");
}

#[test]
fn two_runs_do_not_write_one_row_of_files() {
    let folder = Folder::of_lines(20).if_exists(IfExists::Append);
    let mut sink = folder.alone();
    sink.write(&rows(0..9)).unwrap();
    let said = folder.refusal(&SinkContext::default());
    assert!(said.contains("another run is writing it"), "{said}");
    drop(sink);
    folder.alone();
}

#[test]
fn files_that_a_run_has_completed_may_be_taken_away() {
    let folder = Folder::of_lines(1_000);
    let mut sink = folder.begun();
    sink.write(&rows(0..3)).unwrap();
    sink.complete().unwrap();
    let last = sink.barrier(2).unwrap();
    assert_eq!((last.number, last.bytes), (Some(2), Some(0)));
    sink.committed(2).unwrap();
    sink.finish(Ending::Complete).unwrap();
    drop(sink);
    assert_eq!(folder.names(), ["out-000001.txt"]);
    fs::remove_file(folder.folder.path().join("out-000001.txt")).unwrap();
    let mut sink = folder.restored(&last);
    sink.write(&rows(3..4)).unwrap();
    sink.finish(Ending::Complete).unwrap();
    assert_eq!(folder.names(), ["out-000002.txt"]);
    assert_eq!(folder.rows(), ["3-xxx"]);
}

/// What happens to a sink.
#[derive(Clone, Debug)]
enum Step {
    Write(usize),
    Flush,
    Wait(i64),
    /// A barrier, and how far its checkpoint gets.
    Checkpoint(Fate),
    /// The run is killed, and goes on from the last checkpoint.
    Kill,
    /// It ends, and the next one goes on.
    End,
    /// It is killed, and started from an older checkpoint.
    Older(usize, Fate),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    /// The host is killed before it is durable.
    Lost,
    /// Or before the sink is told.
    Durable,
    Committed,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let fate = || {
        prop_oneof![
            1 => Just(Fate::Lost),
            2 => Just(Fate::Durable),
            4 => Just(Fate::Committed),
        ]
    };
    let step = prop_oneof![
        6 => (1..20usize).prop_map(Step::Write),
        2 => Just(Step::Flush),
        1 => (0..80i64).prop_map(Step::Wait),
        3 => fate().prop_map(Step::Checkpoint),
        1 => Just(Step::Kill),
        1 => Just(Step::End),
        1 => (0..9usize, fate()).prop_map(|(back, fate)| Step::Older(back, fate)),
    ];
    prop::collection::vec(step, 1..40)
}

/// A pipeline of one sink, which writes rows in the order of their numbers.
struct Model {
    folder: Folder,
    sink: Box<dyn Sink>,
    next: usize,
    clock_ms: i64,
    id: CheckpointId,
    /// The checkpoints, and the row behind each.
    known: Vec<(CheckpointId, SinkSnapshot, usize)>,
}

impl Model {
    fn new(format: SinkFormat, compression: Compression) -> Self {
        let roll = Roll {
            bytes: Some(60),
            every_ms: Some(100),
        };
        let folder = Folder::new(format, compression, roll);
        let mut sink = folder.waiting(None).unwrap();
        let first = sink.barrier(1).unwrap();
        sink.committed(1).unwrap();
        Model {
            folder,
            sink,
            next: 0,
            clock_ms: 0,
            id: 1,
            known: vec![(1, first, 0)],
        }
    }

    fn run(&mut self, step: &Step) {
        match *step {
            Step::Write(count) => {
                let batch = rows(self.next..self.next + count);
                self.sink.write(&batch).unwrap();
                self.next += count;
            }
            Step::Flush => self.sink.flush().unwrap(),
            Step::Wait(ms) => {
                self.clock_ms += ms;
                self.folder.clock.set(self.clock_ms);
            }
            Step::Checkpoint(fate) => self.checkpoint(fate),
            Step::Kill => self.kill(),
            Step::End => {
                self.sink.complete().unwrap();
                self.checkpoint(Fate::Committed);
                self.sink.flush().unwrap();
                self.sink.finish(Ending::Stopped).unwrap();
                let names = self.folder.names();
                assert!(
                    !names.iter().any(|name| name.ends_with(".part")),
                    "{names:?}"
                );
                self.expect_rows(true);
                self.kill();
            }
            Step::Older(back, fate) => self.start_older(back, fate),
        }
    }

    /// What is not written to the file system yet is lost.
    fn drop_sink(&mut self) {
        let other = Folder::of_lines(20);
        self.sink = other.alone();
    }

    fn kill(&mut self) {
        self.drop_sink();
        let (id, kept, next) = self.known.last().unwrap();
        self.sink = self.folder.restored_in(&SinkContext {
            checkpoint: Some(*id),
            ..self.folder.context(Some(kept))
        });
        self.next = *next;
    }

    fn checkpoint(&mut self, fate: Fate) {
        self.id += 1;
        let kept = self.sink.barrier(self.id).unwrap();
        match fate {
            // The next one gets its number.
            Fate::Lost => self.id -= 1,
            _ => self.known.push((self.id, kept, self.next)),
        }
        match fate {
            Fate::Committed => self.sink.committed(self.id).unwrap(),
            Fate::Durable | Fate::Lost => self.kill(),
        }
    }

    fn start_older(&mut self, back: usize, fate: Fate) {
        self.drop_sink();
        // What was durable is committed before anything else starts.
        self.kill();
        self.drop_sink();
        let before = self.folder.files();
        let chosen = self.known.len() - 1 - back % self.known.len();
        let (id, restored, next) = self.known[chosen].clone();
        let context = SinkContext {
            waits_for_commit: true,
            checkpoint: Some(id),
            goes_back_to: Some(id),
            ..self.folder.context(Some(&restored))
        };
        let mut sink = self.folder.try_open(&context).unwrap();
        sink.flush().unwrap();
        self.id += 1;
        let kept = sink.barrier(self.id).unwrap();
        assert_eq!(self.folder.files(), before, "the start may be withdrawn");
        if fate == Fate::Lost {
            drop(sink);
            return self.kill();
        }
        self.known.truncate(chosen + 1);
        self.known.push((self.id, kept, next));
        self.sink = sink;
        self.next = next;
        match fate {
            Fate::Committed => self.sink.committed(self.id).unwrap(),
            _ => self.kill(),
        }
    }

    /// What has a name is whole, and has the first rows once.
    fn expect_rows(&self, all: bool) {
        let found = self.folder.rows();
        let expected: Vec<String> = (0..self.next).map(row).collect();
        if all {
            assert_eq!(found, expected);
        } else {
            assert_eq!(found, expected[..found.len()]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn whatever_happens_each_row_is_there_once(
        steps in steps(),
        format in prop::sample::select(
            vec![SinkFormat::Json, SinkFormat::Csv, SinkFormat::Parquet]
        ),
        compression in prop::sample::select(
            vec![Compression::None, Compression::Gzip, Compression::Zstd]
        ),
    ) {
        let compression = match format {
            SinkFormat::Parquet => Compression::None,
            _ => compression,
        };
        let mut model = Model::new(format, compression);
        for step in &steps {
            model.run(step);
            model.expect_rows(false);
        }
        model.run(&Step::End);
    }
}

/// Lines of files that are gone leave the list again and again while files come, and those
/// of files that have not got their names yet stay.
#[test]
fn however_many_files_come_each_row_is_there_once() {
    let fates = [Fate::Committed, Fate::Durable, Fate::Lost];
    for (format, kill_every) in [SinkFormat::Json, SinkFormat::Parquet]
        .into_iter()
        .flat_map(|format| [2, 3, 5, usize::MAX].map(|every| (format, every)))
    {
        let mut model = Model::new(format, Compression::None);
        for checkpoint in 1..=60 {
            model.run(&Step::Write(checkpoint % 4 + 1));
            let fate = match checkpoint % kill_every {
                0 => fates[checkpoint / kill_every % fates.len()],
                _ => Fate::Committed,
            };
            model.run(&Step::Checkpoint(fate));
            model.expect_rows(false);
        }
        model.run(&Step::End);
    }
}

#[test]
fn a_path_without_a_folder_is_here() {
    let sink = FileSink {
        path: Path::new("out.jsonl").to_owned(),
        ..Folder::of_lines(20).sink
    };
    let shown = sink.describe();
    assert_eq!(shown.lines, ["out-*.jsonl"]);
    assert_eq!(shown.settings["roll"]["size"], 20);
}
