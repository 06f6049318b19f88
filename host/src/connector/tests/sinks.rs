//! What sinks write, by example, and that it can be read back.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use ::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use arrow_array::builder::{ListBuilder, StringBuilder};
use arrow_array::{
    ArrayRef, BinaryArray, BooleanArray, Float64Array, Int64Array, StringArray, StructArray,
    TimestampMillisecondArray,
};
use expect_test::expect;
use flate2::read::MultiGzDecoder;
use tempfile::TempDir;

use std::sync::Arc;

use crate::batch::Batch;
use crate::checkpoint::snapshot::SinkSnapshot;
use crate::checkpoint::transaction::Participants;
use crate::checkpoint::transaction::memory::MemoryTransaction;
use crate::connector::console::Console;
use crate::connector::file::beginning::IfExists;
use crate::connector::file::opened::Compression;
use crate::connector::file::sink::FileSink;
use crate::connector::file::sink_format::SinkFormat;
use crate::connector::memory::sink::MemorySink;
use crate::dead_letter::DeadLetter;
use crate::decode::Decoder;
use crate::element::CheckpointId;
use crate::format::{CsvFormat, Format};
use crate::schema::{DataType, Field, Schema};
use crate::sink::{Ending, Sink, SinkConnector, SinkContext, SinkError, dead_letter};
use crate::topic::MemoryTopic;

fn schema() -> Arc<Schema> {
    let text = |nullable| Field::new("item", DataType::Utf8, nullable);
    Arc::new(Schema::new(vec![
        Field::new("user, \"id\"", DataType::Utf8, true),
        Field::new("count", DataType::Int64, false),
        Field::new("mean", DataType::Float64, true),
        Field::new("at", DataType::Timestamp, true),
        Field::new("ok", DataType::Bool, false),
        Field::new("raw", DataType::Bytes, true),
        Field::new("tags", DataType::List(Arc::new(text(true))), true),
        Field::new("line", DataType::Record([text(false)].into()), false),
    ]))
}

fn batch() -> Batch {
    let schema = schema();
    let mut tags = ListBuilder::new(StringBuilder::new());
    tags.append_value([Some("a\nb"), None]);
    tags.append_null();
    tags.append_value([None::<&str>; 0]);
    let fields = schema.to_arrow();
    let arrow_schema::DataType::Struct(line) = fields.field(7).data_type() else {
        panic!("a record");
    };
    let items: ArrayRef = Arc::new(StringArray::from(vec!["x", "y", "é\u{1b}[1m"]));
    let at = TimestampMillisecondArray::from(vec![Some(0), Some(1_700_000_000_120), None]);
    Batch {
        columns: vec![
            Arc::new(StringArray::from(vec![Some("ada, \"b\""), None, Some("")])),
            Arc::new(Int64Array::from(vec![i64::MIN, 0, 1_000_000])),
            Arc::new(Float64Array::from(vec![
                Some(0.1),
                None,
                Some(f64::INFINITY),
            ])),
            Arc::new(at.with_timezone("UTC")),
            Arc::new(BooleanArray::from(vec![true, false, true])),
            Arc::new(BinaryArray::from_opt_vec(vec![
                Some(b"\xFF\x00"),
                None,
                Some(b""),
            ])),
            Arc::new(tags.finish()),
            Arc::new(StructArray::new(line.clone(), vec![items], None)),
        ],
        schema,
        times: vec![0, 1, 2].into(),
        origin: None,
        watermarks: None,
        taken_back: None,
    }
}

fn open_file(path: &Path, format: SinkFormat) -> Result<Box<dyn Sink>, SinkError> {
    open_alone(FileSink {
        path: path.to_owned(),
        folder: PathBuf::new(),
        format,
        compression: Compression::None,
        if_exists: IfExists::Replace,
        csv: CsvFormat::default(),
        roll: None,
    })
}

/// Opens a sink for a run without checkpoints.
fn open_alone(connector: impl SinkConnector) -> Result<Box<dyn Sink>, SinkError> {
    let context = SinkContext::default();
    connector.open("out", &schema(), &context)
}

/// Writes the batch whole and in three parts, which must give the same bytes.
fn written(format: SinkFormat) -> Vec<u8> {
    let folder = TempDir::new().unwrap();
    let files = ["whole", "parts"].map(|name| folder.path().join("new/folder").join(name));
    for (path, parts) in files.iter().zip([1, 3]) {
        let mut sink = open_file(path, format).unwrap();
        for part in 0..parts {
            sink.write(&batch().slice(part * 3 / parts, 3 / parts))
                .unwrap();
        }
        sink.finish(Ending::Complete).unwrap();
    }
    let [whole, parts] = files.map(|path| fs::read(path).unwrap());
    assert_eq!(whole, parts);
    whole
}

#[test]
fn json_lines() {
    let text = String::from_utf8(written(SinkFormat::Json)).unwrap();
    expect![[r#"
        {"user, \"id\"":"ada, \"b\"","count":-9223372036854775808,"mean":0.1,"at":"1970-01-01T00:00:00Z","ok":true,"raw":"/wA=","tags":["a\nb",null],"line":{"item":"x"}}
        {"user, \"id\"":null,"count":0,"mean":null,"at":"2023-11-14T22:13:20.120Z","ok":false,"raw":null,"tags":null,"line":{"item":"y"}}
        {"user, \"id\"":"","count":1000000,"mean":"Infinity","at":null,"ok":true,"raw":"","tags":[],"line":{"item":"é\u001b[1m"}}
    "#]]
    .assert_eq(&text);
}

#[test]
fn csv() {
    let text = String::from_utf8(written(SinkFormat::Csv)).unwrap();
    expect![[r#"
        "user, ""id""",count,mean,at,ok,raw,tags,line
        "ada, ""b""",-9223372036854775808,0.1,1970-01-01T00:00:00Z,true,/wA=,"[""a\nb"",null]","{""item"":""x""}"
        ,0,,2023-11-14T22:13:20.120Z,false,,,"{""item"":""y""}"
        "",1000000,Infinity,,true,"",[],"{""item"":""é\u001b[1m""}"
    "#]]
    .assert_eq(&text);
}

/// Our sources read what our text formats write.
#[test]
fn text_formats_are_read_back() {
    let csv = Format::Csv(CsvFormat {
        header: true,
        delimiter: b',',
    });
    let expected = batch();
    for (sink, source) in [(SinkFormat::Json, Format::Json), (SinkFormat::Csv, csv)] {
        let text = written(sink);
        let mut decoder = Decoder::new(&source.into(), &schema());
        let mut lines = text.split_inclusive(|byte| *byte == b'\n');
        if sink == SinkFormat::Csv {
            let header = lines.next().unwrap();
            decoder.read_header(header.trim_ascii_end()).unwrap();
        }
        for row in 0..3 {
            let line = lines.next().unwrap().trim_ascii_end();
            let decoded = decoder.decode(line, &[(0, line.len() as u32)]);
            assert_eq!(decoded.bad, []);
            assert_eq!(decoded.columns, expected.slice(row, 1).columns);
        }
    }
}

#[test]
fn parquet_is_read_back() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("rows.parquet");
    let mut sink = open_file(&path, SinkFormat::Parquet).unwrap();
    sink.write(&batch()).unwrap();
    sink.flush().unwrap();
    sink.write(&batch()).unwrap();
    sink.finish(Ending::Complete).unwrap();
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(&path).unwrap()).unwrap();
    let compression = reader.metadata().row_group(0).column(0).compression();
    assert!(
        format!("{compression:?}").starts_with("ZSTD"),
        "{compression:?}"
    );
    let batches: Vec<_> = reader.build().unwrap().map(Result::unwrap).collect();
    let rows = arrow_select::concat::concat_batches(&batches[0].schema(), &batches).unwrap();
    assert_eq!(rows.slice(0, 3).columns(), batch().columns);
    assert_eq!(rows.slice(3, 3).columns(), batch().columns);
}

#[test]
fn a_file_has_its_name_only_when_it_is_whole() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("out.jsonl");
    let part = folder.path().join("out.jsonl.part");
    fs::write(&path, "of the run before").unwrap();
    let mut sink = open_file(&path, SinkFormat::Json).unwrap();
    sink.write(&batch()).unwrap();
    sink.flush().unwrap();
    // What has been flushed can be read, and the run before is still there.
    assert_eq!(fs::read_to_string(&part).unwrap().lines().count(), 3);
    assert_eq!(fs::read_to_string(&path).unwrap(), "of the run before");
    drop(sink);
    assert!(part.exists());
    let mut sink = open_file(&path, SinkFormat::Json).unwrap();
    sink.finish(Ending::Complete).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "");
    assert!(!part.exists());
}

#[test]
fn what_cannot_be_written_says_where() {
    let folder = TempDir::new().unwrap();
    let fails = |path: &Path| match open_file(path, SinkFormat::Json) {
        Ok(_) => panic!("opened"),
        Err(error) => error
            .to_string()
            .replace(&folder.path().display().to_string(), ""),
    };
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    expect!["sink `out`: cannot write : a folder has this name"].assert_eq(&fails(folder.path()));
    expect!["sink `out`: cannot write /file/below: cannot make the folder /file: File exists (os error 17)"]
        .assert_eq(&fails(&file.join("below")));
    let full = Path::new("/dev/full");
    if full.exists() {
        expect!["sink `out`: cannot write /dev/full: it is a device that is always full: give the path of a file or a pipe"]
            .assert_eq(&fails(full));
    }
}

#[derive(Clone, Default)]
struct Screen(Arc<Mutex<Vec<u8>>>);

impl Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn the_console_shows_a_table() {
    let screen = Screen::default();
    let console = |node: &str, rows_max| {
        Console::with_output(node, &schema(), rows_max, Box::new(screen.clone()))
    };
    let mut first = console("first", Some(4));
    let mut second = console("second", None);
    let mut long = batch();
    let text = "a text that is much longer than any screen is wide";
    long.columns[0] = Arc::new(StringArray::from(vec![text; 3]));
    first.write(&batch().slice(0, 2)).unwrap();
    first.flush().unwrap();
    first.flush().unwrap();
    first.write(&batch().slice(1, 1)).unwrap();
    first.flush().unwrap();
    second.write(&batch().slice(2, 1)).unwrap();
    second.finish(Ending::Complete).unwrap();
    first.write(&long).unwrap();
    first.finish(Ending::Complete).unwrap();
    let shown = String::from_utf8(screen.0.lock().unwrap().clone()).unwrap();
    expect![[r#"

        [first]
        user, "id"                 count  mean  at                        ok     raw   tags           line
        ada, "b"    -9223372036854775808   0.1  1970-01-01T00:00:00Z      true   /wA=  ["a\nb",null]  {"item":"x"}
                                       0        2023-11-14T22:13:20.120Z  false                       {"item":"y"}
                                       0        2023-11-14T22:13:20.120Z  false                       {"item":"y"}

        [second]
        user, "id"    count      mean  at  ok    raw  tags  line
                    1000000  Infinity      true       []    {"item":"é\u001b[1m"}

        [first]
        user, "id"                                                count  mean  at                        ok     raw   tags           line
        a text that is much longer than any scre…  -9223372036854775808   0.1  1970-01-01T00:00:00Z      true   /wA=  ["a\nb",null]  {"item":"x"}
        … and 2 more rows of first
    "#]].assert_eq(&shown);
}

#[test]
fn the_program_gets_the_rows() {
    let topic = Arc::new(MemoryTopic::default());
    let connector = MemorySink::new(topic.clone());
    let mut sink = open_alone(connector).unwrap();
    sink.write(&batch()).unwrap();
    sink.finish(Ending::Complete).unwrap();
    assert_eq!(topic.rows()[0].columns, batch().columns);
}

#[test]
fn rows_of_a_transaction_are_seen_when_it_is_committed() {
    let topic = Arc::new(MemoryTopic::default());
    let mut participants = Participants::default();
    participants.add(Arc::new(MemoryTransaction::new(vec![topic.clone()])));
    let context = SinkContext {
        is_checkpointed: true,
        participants,
        ..SinkContext::default()
    };
    let connector = MemorySink::new(topic.clone());
    let mut sink = connector.open("out", &schema(), &context).unwrap();
    sink.write(&batch()).unwrap();
    sink.barrier(1).unwrap();
    sink.write(&batch()).unwrap();
    assert_eq!(topic.rows().len(), 0);
    topic.commit();
    assert_eq!(topic.rows().len(), 1, "what is behind the barrier waits");
    sink.committed(1).unwrap();
    topic.abort();
    topic.commit();
    assert_eq!(topic.rows().len(), 1);
}

/// Opens a file's sink for a run with checkpoints, restored from a snapshot that may not
/// be the last one.
fn reopened(
    path: &Path,
    format: SinkFormat,
    restored: Option<SinkSnapshot>,
) -> Result<Box<dyn Sink>, SinkError> {
    let context = SinkContext {
        is_checkpointed: true,
        goes_back_to: restored.as_ref().map(|_| CheckpointId::MAX),
        restored,
        ..SinkContext::default()
    };
    let path = path.to_owned();
    let connector = FileSink {
        path,
        folder: PathBuf::new(),
        format,
        compression: Compression::None,
        if_exists: IfExists::Replace,
        csv: CsvFormat::default(),
        roll: None,
    };
    let mut sink = connector.open("out", &schema(), &context)?;
    sink.flush()?;
    Ok(sink)
}

#[test]
fn a_run_that_goes_on_finds_the_file_as_it_was_at_the_checkpoint() {
    for (format, name) in [
        (SinkFormat::Json, "out.jsonl"),
        (SinkFormat::Csv, "out.csv"),
    ] {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join(name);
        let mut first = reopened(&path, format, None).unwrap();
        first.write(&batch()).unwrap();
        let snapshot = first.barrier(1).unwrap();
        first.write(&batch()).unwrap();
        first.flush().unwrap();
        drop(first);

        let mut second = reopened(&path, format, Some(snapshot.clone())).unwrap();
        second.write(&batch()).unwrap();
        second.finish(Ending::Complete).unwrap();
        let whole = fs::read_to_string(&path).unwrap();

        // The same from a file that has been finished.
        let mut third = reopened(&path, format, Some(snapshot.clone())).unwrap();
        third.write(&batch()).unwrap();
        third.flush().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), whole, "it is whole");
        third.finish(Ending::Complete).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), whole);

        let mut once = open_alone(FileSink {
            path: path.clone(),
            folder: PathBuf::new(),
            format,
            compression: Compression::None,
            if_exists: IfExists::Replace,
            csv: CsvFormat::default(),
            roll: None,
        })
        .unwrap();
        once.write(&batch()).unwrap();
        once.write(&batch()).unwrap();
        once.finish(Ending::Complete).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), whole);

        fs::write(&path, "short").unwrap();
        let refused = reopened(&path, format, Some(snapshot));
        let refused = refused.err().map(|error| error.to_string());
        let refused = refused.unwrap_or_default();
        assert!(refused.contains("has 5 bytes, and had"), "{refused}");
    }
}

#[test]
fn parquet_is_a_file_a_checkpoint() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("out.parquet");
    let names = || {
        let entries = fs::read_dir(folder.path()).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            // The list of them.
            .filter(|name| !name.starts_with('.'))
            .collect();
        names.sort();
        names
    };
    let mut first = reopened(&path, SinkFormat::Parquet, None).unwrap();
    first.write(&batch()).unwrap();
    first.barrier(3).unwrap();
    assert_eq!(names(), ["out-3.parquet.part"]);
    first.committed(3).unwrap();
    assert_eq!(names(), ["out-3.parquet"]);
    first.barrier(4).unwrap();
    first.committed(4).unwrap();
    assert_eq!(names(), ["out-3.parquet"], "no rows, no file");
    first.write(&batch()).unwrap();
    let snapshot = first.barrier(5).unwrap();
    first.write(&batch()).unwrap();
    drop(first);

    // The file was durable, and had not got its name yet.
    let mut second = reopened(&path, SinkFormat::Parquet, Some(snapshot.clone())).unwrap();
    assert!(names().contains(&"out-5.parquet".to_owned()));
    second.finish(Ending::Complete).unwrap();
    drop(second);
    // Doing it again changes nothing.
    reopened(&path, SinkFormat::Parquet, Some(snapshot)).unwrap();
}

/// A run is killed before the checkpoint is written that a file waits for: the next one
/// deletes the file, and none of somebody else.
#[test]
fn parquet_files_that_no_checkpoint_waits_for_go() {
    for waits_for_commit in [false, true] {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("out.parquet");
        let there = |name: &str| folder.path().join(name).exists();
        let start = |checkpoint, restored, waits_for_commit| {
            let context = SinkContext {
                is_checkpointed: true,
                checkpoint: Some(checkpoint),
                restored: Some(restored),
                waits_for_commit,
                ..SinkContext::default()
            };
            let connector = FileSink {
                format: SinkFormat::Parquet,
                ..compressing(&path, Compression::None, IfExists::Fail)
            };
            connector.open("out", &schema(), &context).unwrap()
        };
        let mut killed = start(1, SinkSnapshot::default(), false);
        killed.write(&batch()).unwrap();
        let second = killed.barrier(2).unwrap();
        killed.write(&batch()).unwrap();
        killed.barrier(3).unwrap();
        killed.write(&batch()).unwrap();
        drop(killed);
        // The same rows, and others, under names that the pipeline may give.
        fs::copy(
            folder.path().join("out-2.parquet.part"),
            folder.path().join("out-1.parquet.part"),
        )
        .unwrap();
        fs::write(folder.path().join("out-4.parquet.part"), "others'").unwrap();
        fs::write(folder.path().join("out-5.parquet.part"), "").unwrap();
        assert!(there("out-3.parquet.part") && there("out.parquet.part"));

        let mut next = start(2, second.clone(), waits_for_commit);
        let all = [
            "out-2.parquet.part",
            "out-3.parquet.part",
            "out.parquet.part",
        ];
        assert!(all.iter().all(|name| there(name)), "it may be withdrawn");
        next.flush().unwrap();
        assert_eq!(all.map(there), [waits_for_commit; 3]);
        let third = next.barrier(3).unwrap();
        next.committed(3).unwrap();
        assert_eq!(all.map(there), [false; 3]);
        assert!(there("out-2.parquet"));
        drop(next);

        // From the same checkpoints again.
        for (checkpoint, snapshot) in [(2, second), (3, third)] {
            start(checkpoint, snapshot, false).flush().unwrap();
            assert!(there("out-2.parquet"));
        }
        for number in [1, 4, 5] {
            assert!(there(&format!("out-{number}.parquet.part")), "{number}");
        }
    }
}

/// Others may write to the place where the file was that a killed run has left open.
#[test]
fn a_parquet_file_that_is_being_written_stays() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("out.parquet");
    let part = folder.path().join("out.parquet.part");
    let start = || {
        let context = SinkContext {
            is_checkpointed: true,
            checkpoint: Some(1),
            restored: Some(SinkSnapshot::default()),
            ..SinkContext::default()
        };
        let connector = FileSink {
            format: SinkFormat::Parquet,
            ..compressing(&path, Compression::None, IfExists::Fail)
        };
        connector.open("out", &schema(), &context).unwrap()
    };
    start().write(&batch()).unwrap();
    let writer = File::open(&part).unwrap();
    writer.lock().unwrap();
    start().flush().unwrap();
    assert!(part.exists());
    drop(writer);
    fs::rename(&part, folder.path().join("kept")).unwrap();
    fs::write(&part, "others'").unwrap();
    start().flush().unwrap();
    assert_eq!(fs::read_to_string(&part).unwrap(), "others'");
    fs::rename(folder.path().join("kept"), &part).unwrap();
    start().flush().unwrap();
    assert!(!part.exists());
}

#[test]
fn parquet_files_of_an_earlier_run_go_when_there_is_a_checkpoint() {
    for crashes in [false, true] {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("out.parquet");
        let old = folder.path().join("out-7.parquet");
        let waiting = |restored| {
            let context = SinkContext {
                is_checkpointed: true,
                waits_for_commit: true,
                restored,
                ..SinkContext::default()
            };
            let connector = FileSink {
                format: SinkFormat::Parquet,
                ..compressing(&path, Compression::None, IfExists::Replace)
            };
            connector.open("out", &schema(), &context).unwrap()
        };
        let mut earlier = reopened(&path, SinkFormat::Parquet, None).unwrap();
        earlier.write(&batch()).unwrap();
        earlier.barrier(7).unwrap();
        earlier.committed(7).unwrap();
        drop(earlier);
        let mut sink = waiting(None);
        sink.flush().unwrap();
        let snapshot = sink.barrier(8).unwrap();
        assert!(old.exists(), "the run may be withdrawn");
        if crashes {
            drop(sink);
            sink = reopened(&path, SinkFormat::Parquet, Some(snapshot.clone())).unwrap();
        } else {
            sink.committed(8).unwrap();
        }
        assert!(!old.exists());
        drop(sink);
        // From that checkpoint again, when its name is that of another file.
        fs::write(&old, "of this run").unwrap();
        let mut sink = waiting(Some(snapshot));
        sink.barrier(9).unwrap();
        sink.committed(9).unwrap();
        assert!(old.exists());
    }
}

/// Between the barrier and the commit.
#[test]
fn a_parquet_file_that_somebody_makes_meanwhile_stays() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("out.parquet");
    let named = folder.path().join("out-7.parquet");
    let mut sink = reopened(&path, SinkFormat::Parquet, None).unwrap();
    sink.write(&batch()).unwrap();
    sink.barrier(7).unwrap();
    fs::write(&named, "precious").unwrap();
    let refused = sink.committed(7).unwrap_err().to_string();
    assert!(refused.contains("has not written it: move it"), "{refused}");
    assert_eq!(fs::read(&named).unwrap(), b"precious");
    assert!(folder.path().join("out-7.parquet.part").exists());
}

/// Only where the next process finds the checkpoint, there is something to drop.
#[test]
fn a_file_that_is_gone_or_emptied_is_told_as_that() {
    for (are_checkpoints_kept, advice) in [
        (true, "`sluicebox run --drop out`"),
        (false, "or start the pipeline again"),
    ] {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("out.csv");
        let open = |restored| {
            let context = SinkContext {
                is_checkpointed: true,
                are_checkpoints_kept,
                restored,
                ..SinkContext::default()
            };
            compressing(&path, Compression::None, IfExists::Fail).open("out", &schema(), &context)
        };
        let mut sink = open(None).unwrap();
        sink.write(&batch()).unwrap();
        let snapshot = sink.barrier(2).unwrap();
        sink.finish(Ending::Complete).unwrap();
        drop(sink);
        fs::remove_file(&path).unwrap();
        let refused = open(Some(snapshot.clone())).err().unwrap().to_string();
        assert!(refused.contains("out.csv is gone, and had"), "{refused}");
        assert!(refused.contains(advice), "{refused}");
        fs::write(&path, "").unwrap();
        let refused = open(Some(snapshot)).err().unwrap().to_string();
        assert!(
            refused.contains("out.csv has 0 bytes, and had"),
            "{refused}"
        );
        assert_eq!(
            refused.contains("--drop"),
            are_checkpoints_kept,
            "{refused}"
        );
    }
}

/// As a file for a year beside one for all years.
#[test]
fn parquet_files_of_others_are_left_alone() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("sales.parquet");
    let other = folder.path().join("sales-2023.parquet");
    fs::write(&other, "precious").unwrap();
    let refused = reopened(&path, SinkFormat::Parquet, None).err().unwrap();
    let refused = refused.to_string();
    assert!(
        refused.contains("/sales-2023.parquet: called like"),
        "{refused}"
    );
    fs::remove_file(&other).unwrap();
    let mut sink = reopened(&path, SinkFormat::Parquet, None).unwrap();
    let second = reopened(&path, SinkFormat::Parquet, None).err().unwrap();
    assert!(second.to_string().contains("another run is writing it"));
    sink.write(&batch()).unwrap();
    fs::write(&other, "precious").unwrap();
    let failed = sink.barrier(2023).unwrap_err().to_string();
    assert!(
        failed.contains("/sales-2023.parquet: called like"),
        "{failed}"
    );
    assert_eq!(fs::read(&other).unwrap(), b"precious");
}

/// While rows are appended, what is there can be read under its name, and a kill at any
/// time changes nothing about that.
#[test]
fn a_file_stays_as_it_is_while_rows_are_appended() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("out.csv");
    let part = folder.path().join("out.csv.part");
    let text = String::from_utf8(written(SinkFormat::Csv)).unwrap();
    let (_, rows) = text.split_once('\n').unwrap();
    let old = format!("{text}{rows}");
    let open = |restored: Option<SinkSnapshot>, goes_back: bool| {
        let context = SinkContext {
            is_checkpointed: true,
            goes_back_to: goes_back.then_some(1),
            restored,
            ..SinkContext::default()
        };
        compressing(&path, Compression::None, IfExists::Append).open("out", &schema(), &context)
    };
    let there = || fs::read_to_string(&path).unwrap();
    fs::write(&path, &old).unwrap();
    let mut sink = open(None, false).unwrap();
    let zeroth = sink.barrier(1).unwrap();
    sink.committed(1).unwrap();
    sink.write(&batch()).unwrap();
    let first = sink.barrier(2).unwrap();
    sink.write(&batch()).unwrap();
    sink.flush().unwrap();
    drop(sink);
    assert_eq!(there(), old);
    // A kill while it was copied: what is there is copied again.
    let copied = fs::read(&part).unwrap();
    fs::write(&part, &old[..20]).unwrap();
    drop(open(Some(zeroth.clone()), false).unwrap());
    fs::write(&part, copied).unwrap();
    // Somebody has added to it meanwhile, before a start or during a run.
    fs::write(&path, format!("{old}precious\n")).unwrap();
    let refused = open(Some(first.clone()), false).err().unwrap().to_string();
    assert!(refused.contains("does not go on from it"), "{refused}");
    fs::write(&path, &old).unwrap();
    let mut sink = open(Some(first.clone()), false).unwrap();
    sink.write(&batch()).unwrap();
    fs::write(&path, format!("{old}precious\n")).unwrap();
    let refused = sink.finish(Ending::Complete).unwrap_err().to_string();
    assert!(refused.contains("written by somebody else"), "{refused}");
    assert!(!refused.contains("replace\""), "{refused}");
    drop(sink);
    assert_eq!(there(), format!("{old}precious\n"));

    fs::write(&path, &old).unwrap();
    let mut sink = open(Some(first.clone()), false).unwrap();
    sink.write(&batch()).unwrap();
    let last = sink.barrier(3).unwrap();
    sink.finish(Ending::Complete).unwrap();
    drop(sink);
    assert_eq!(there(), format!("{old}{rows}{rows}"));
    assert!(!part.exists());
    // The next run goes on with it, or an older checkpoint takes rows back.
    let mut sink = open(Some(last), false).unwrap();
    sink.write(&batch()).unwrap();
    sink.flush().unwrap();
    drop(sink);
    assert_eq!(there(), format!("{old}{rows}{rows}"));
    for _ in 0..2 {
        let mut sink = open(Some(first.clone()), true).unwrap();
        sink.write(&batch()).unwrap();
        sink.flush().unwrap();
        drop(sink);
        assert_eq!(there(), format!("{old}{rows}{rows}"));
    }
    let mut sink = open(Some(first), true).unwrap();
    sink.finish(Ending::Complete).unwrap();
    assert_eq!(there(), format!("{old}{rows}"));
}

/// Their checkpoints have a digest of the last 4 KiB.
#[test]
fn a_file_of_an_earlier_version_is_gone_on_with() {
    let text = String::from_utf8(written(SinkFormat::Csv)).unwrap();
    let (_, rows) = text.split_once('\n').unwrap();
    let old = format!("{text}{}", rows.repeat(100));
    let end = &old.as_bytes()[old.len() - 4096..];
    let restored = SinkSnapshot {
        bytes: Some(old.len() as u64),
        digest: Some(format!("{:016x}", twox_hash::XxHash3_64::oneshot(end))),
        ..SinkSnapshot::default()
    };
    for if_exists in [IfExists::Fail, IfExists::Replace, IfExists::Append] {
        for name in ["out.csv", "out.csv.part"] {
            let folder = TempDir::new().unwrap();
            let path = folder.path().join("out.csv");
            let there = folder.path().join(name);
            let open = || {
                let context = SinkContext {
                    is_checkpointed: true,
                    restored: Some(restored.clone()),
                    ..SinkContext::default()
                };
                compressing(&path, Compression::None, if_exists).open("out", &schema(), &context)
            };
            let edited = format!("{}edited\n", &old[..old.len() - 7]);
            fs::write(&there, &edited).unwrap();
            let refused = open().err().unwrap().to_string();
            assert!(refused.contains("is not the file of"), "{refused}");
            assert_eq!(fs::read_to_string(&there).unwrap(), edited);
            fs::write(&there, &old).unwrap();
            let mut sink = open().unwrap();
            sink.write(&batch()).unwrap();
            sink.finish(Ending::Complete).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), format!("{old}{rows}"));
        }
    }
}

#[test]
fn nothing_is_appended_to_compressed_data_that_is_cut_off() {
    for (compression, extension) in COMPRESSED {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("out.csv").with_extension(extension);
        let connector = compressing(&path, compression, IfExists::Append);
        for _ in 0..2 {
            let mut sink = open_alone(connector.clone()).unwrap();
            sink.write(&batch()).unwrap();
            sink.finish(Ending::Complete).unwrap();
        }
        let whole = fs::read(&path).unwrap();
        for cut in [1, 10, whole.len() / 2 - 5] {
            let cut = &whole[..whole.len() - cut];
            fs::write(&path, cut).unwrap();
            for is_checkpointed in [false, true] {
                let context = SinkContext {
                    is_checkpointed,
                    ..SinkContext::default()
                };
                let refused = connector.open("out", &schema(), &context).err().unwrap();
                let refused = refused.to_string();
                assert!(refused.contains("nobody could read them"), "{refused}");
                assert_eq!(fs::read(&path).unwrap(), cut);
            }
        }
        fs::write(&path, &whole).unwrap();
        open_alone(connector).unwrap();
    }
}

fn writer(pipeline: &str) -> dead_letter::Writer {
    dead_letter::Writer {
        pipeline: pipeline.to_owned(),
        started_ms: Some(7),
    }
}

fn letters_of(path: &Path, pipeline: &str) -> dead_letter::DeadLetters {
    dead_letter::DeadLetters::open(path, writer(pipeline)).unwrap()
}

fn letter(error: &str) -> DeadLetter {
    DeadLetter {
        error: error.to_owned(),
        ..DeadLetter::default()
    }
}

/// The errors in a file of dead letters.
fn errors(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    lines
        .map(|line: serde_json::Value| line["error"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn dead_letters_behind_a_checkpoint_are_written_again() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("dead.jsonl");
    let mut letters = letters_of(&path, "p");
    letters.write(2, &[letter("before")]).unwrap();
    let kept = letters.sync().unwrap();
    letters.write(3, &[letter("after")]).unwrap();
    letters.write(4, &[letter("later")]).unwrap();
    drop(letters);
    dead_letter::DeadLetters::take_back(&path, &writer("p"), 3).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().len(), kept);
    let mut letters = letters_of(&path, "p");
    letters.write(3, &[letter("again")]).unwrap();
    assert_eq!(errors(&path), ["before", "again"]);
    // Another life of the pipeline has numbers of its own.
    let other = dead_letter::Writer {
        started_ms: Some(8),
        ..writer("p")
    };
    dead_letter::DeadLetters::take_back(&path, &other, 0).unwrap();
    assert_eq!(errors(&path), ["before", "again"]);
}

#[test]
fn pipelines_that_share_a_file_keep_their_dead_letters() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("dead.jsonl");
    let (mut p, mut q) = (letters_of(&path, "p"), letters_of(&path, "q"));
    p.write(1, &[letter("p kept")]).unwrap();
    p.write(2, &[letter("p again, a longer one")]).unwrap();
    q.write(5, &[letter("q kept")]).unwrap();
    q.write(6, &[letter("q again")]).unwrap();
    drop((p, q));
    // What a crash leaves of a line.
    let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(b"{\"pipeline\":\"p\",").unwrap();

    let take_back = |pipeline: &str, after| {
        dead_letter::DeadLetters::take_back(&path, &writer(pipeline), after).unwrap()
    };
    assert!(take_back("p", 2));
    assert_eq!(errors(&path), ["p kept", "q kept", "q again"]);
    letters_of(&path, "p")
        .write(2, &[letter("p after")])
        .unwrap();
    // Its lines are not where they were, and are found all the same.
    assert!(take_back("q", 6));
    assert_eq!(errors(&path), ["p kept", "q kept", "p after"]);
    assert!(!take_back("q", 6));

    let file = fs::OpenOptions::new().append(true).open(&path);
    file.unwrap().write_all(b"{\"pipel").unwrap();
    letters_of(&path, "r").write(1, &[letter("r")]).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(text.lines().rev().nth(1), Some("{\"pipel"));
}

/// A crash while lines are moved loses none, of whichever pipeline, and doubles none.
#[test]
fn dead_letters_that_are_being_moved_survive_a_crash() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("dead.jsonl");
    let aside = folder.path().join("dead.jsonl.aside");
    let (mut p, mut q) = (letters_of(&path, "p"), letters_of(&path, "q"));
    for number in 0..20 {
        p.write(number, &[letter(&format!("p{number}"))]).unwrap();
        q.write(number, &[letter(&format!("q{number}"))]).unwrap();
    }
    drop((p, q));
    let before = fs::read(&path).unwrap();
    dead_letter::DeadLetters::take_back(&path, &writer("p"), 0).unwrap();
    let after = fs::read(&path).unwrap();
    let first = before.iter().position(|byte| *byte == b'\n').unwrap() as u64 + 1;
    assert!(!aside.exists());
    // What was put aside, and how far the lines were moved when it ended.
    let moved = &after[..];
    let mut put = moved.to_vec();
    put.extend(0u64.to_le_bytes());
    put.extend((moved.len() as u64).to_le_bytes());
    put.extend(b"is whole");
    for cut in [0, first as usize, moved.len() / 2, moved.len()] {
        fs::write(&aside, &put).unwrap();
        fs::write(&path, &moved[..cut]).unwrap();
        letters_of(&path, "r").write(1, &[letter("r")]).unwrap();
        assert!(!aside.exists());
        let found = fs::read(&path).unwrap();
        assert!(found.starts_with(moved), "cut at {cut}");
        assert_eq!(errors(&path).len(), 21);
    }
    // Not complete: the lines were not moved yet.
    fs::write(&aside, &put[..put.len() - 1]).unwrap();
    fs::write(&path, &before).unwrap();
    letters_of(&path, "r").write(1, &[letter("r")]).unwrap();
    assert_eq!(errors(&path).len(), 41);
}

#[test]
fn dead_letters_are_put_behind_those_of_before() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("new/dead.jsonl");
    for offset in [7, 8] {
        let mut letters = letters_of(&path, "p");
        let letter = DeadLetter {
            node: "clean".to_owned(),
            kind: "trap".to_owned(),
            error: "a \"quoted\" error".to_owned(),
            offset: Some(offset),
            payload: Some("{\"a\":1}".to_owned()),
            ..DeadLetter::default()
        };
        letters.write(1, &[letter]).unwrap();
        // Written before the file is closed.
        assert_eq!(
            fs::read_to_string(&path).unwrap().lines().count() as u64,
            offset - 6
        );
    }
    let text = fs::read_to_string(&path).unwrap();
    let letter: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(letter["pipeline"], "p");
    assert_eq!(letter["offset"], 8);
    assert_eq!(letter["error"], "a \"quoted\" error");
    assert_eq!(letter["payload"], "{\"a\":1}");
    assert_eq!(letter["row"], serde_json::Value::Null);
}

/// What gzip and zstd are in names.
const COMPRESSED: [(Compression, &str); 2] =
    [(Compression::Gzip, "gz"), (Compression::Zstd, "zst")];

/// The text of a compressed file, as far as it can be read; and whether that is all.
fn decompressed(path: &Path, compression: Compression) -> (String, bool) {
    let file = File::open(path).unwrap();
    let mut text = Vec::new();
    let read = match compression {
        Compression::Gzip => MultiGzDecoder::new(file).read_to_end(&mut text),
        Compression::Zstd => zstd::Decoder::new(file).unwrap().read_to_end(&mut text),
        Compression::None => panic!("it is not compressed"),
    };
    (String::from_utf8(text).unwrap(), read.is_ok())
}

/// How many pieces a file has that can be read by themselves.
fn pieces(path: &Path, compression: Compression) -> usize {
    let bytes = fs::read(path).unwrap();
    let mut rest = bytes.as_slice();
    let mut pieces = 0;
    while !rest.is_empty() {
        let mut text = Vec::new();
        match compression {
            Compression::Gzip => {
                let mut decoder = flate2::bufread::GzDecoder::new(&mut rest);
                decoder.read_to_end(&mut text).unwrap();
            }
            _ => {
                let decoder = zstd::Decoder::with_buffer(&mut rest).unwrap();
                decoder.single_frame().read_to_end(&mut text).unwrap();
            }
        }
        pieces += 1;
    }
    pieces
}

fn compressing(path: &Path, compression: Compression, if_exists: IfExists) -> FileSink {
    FileSink {
        path: path.to_owned(),
        folder: PathBuf::new(),
        format: SinkFormat::Csv,
        compression,
        if_exists,
        csv: CsvFormat::default(),
        roll: None,
    }
}

#[test]
fn a_compressed_file_goes_on_in_a_new_piece_behind_a_checkpoint() {
    let plain = String::from_utf8(written(SinkFormat::Csv)).unwrap();
    let (header, rows) = plain.split_once('\n').unwrap();
    for (compression, extension) in COMPRESSED {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("out.csv").with_extension(extension);
        let part = path.with_extension(format!("{extension}.part"));
        let open = |restored: Option<SinkSnapshot>| {
            let context = SinkContext {
                is_checkpointed: true,
                goes_back_to: restored.as_ref().map(|_| CheckpointId::MAX),
                restored,
                ..SinkContext::default()
            };
            let connector = compressing(&path, compression, IfExists::Fail);
            let mut sink = connector.open("out", &schema(), &context).unwrap();
            sink.flush().unwrap();
            sink
        };
        let bytes = || fs::metadata(&part).unwrap().len();
        let mut first = open(None);
        first.write(&batch()).unwrap();
        let kept = first.barrier(1).unwrap();
        assert_eq!(kept.bytes, Some(bytes()));
        let again = first.barrier(2).unwrap();
        assert_eq!(again, kept, "no rows, no bytes");
        first.write(&batch()).unwrap();
        // Flushed is not yet complete, and can be read.
        first.flush().unwrap();
        let flushed = bytes();
        let text = format!("{header}\n{rows}{rows}");
        assert_eq!(decompressed(&part, compression), (text.clone(), false));
        first.flush().unwrap();
        assert_eq!(bytes(), flushed, "nothing new, no bytes");
        drop(first);

        // From the checkpoint on, twice: the second time the file has its name.
        for is_finished in [false, true] {
            let mut second = open(Some(kept.clone()));
            let there = if is_finished { 0 } else { kept.bytes.unwrap() };
            assert_eq!(
                bytes(),
                there,
                "a finished one is copied when there is a row"
            );
            second.write(&batch()).unwrap();
            second.write(&batch()).unwrap();
            second.finish(Ending::Complete).unwrap();
            let text = format!("{header}\n{rows}{rows}{rows}");
            assert_eq!(decompressed(&path, compression), (text, true));
            assert_eq!(pieces(&path, compression), 2);
        }
    }
}

#[test]
fn rows_are_appended_to_a_compressed_file_in_a_new_piece() {
    let plain = String::from_utf8(written(SinkFormat::Csv)).unwrap();
    let (header, rows) = plain.split_once('\n').unwrap();
    for (compression, extension) in COMPRESSED {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("out.csv").with_extension(extension);
        for run in 1..=3 {
            let mut sink = open_alone(compressing(&path, compression, IfExists::Append)).unwrap();
            sink.write(&batch()).unwrap();
            sink.finish(Ending::Complete).unwrap();
            let text = format!("{header}\n{}", rows.repeat(run));
            assert_eq!(decompressed(&path, compression), (text, true));
            assert_eq!(pieces(&path, compression), run);
        }
        fs::write(&path, "text\n").unwrap();
        let refused = open_alone(compressing(&path, compression, IfExists::Append));
        let refused = refused.err().unwrap().to_string();
        assert!(refused.contains("does not begin as they do"), "{refused}");
        assert_eq!(fs::read(&path).unwrap(), b"text\n");

        // What another sink left behind its checkpoint may end anywhere.
        fs::remove_file(&path).unwrap();
        let part = path.with_extension(format!("{extension}.part"));
        fs::write(&part, compression.mark()).unwrap();
        let context = SinkContext {
            is_checkpointed: true,
            ..SinkContext::default()
        };
        let connector = compressing(&path, compression, IfExists::Append);
        let refused = connector.open("out", &schema(), &context).err().unwrap();
        assert!(
            refused.to_string().contains("may not be complete"),
            "{refused}"
        );
    }
}

#[test]
fn a_compressed_file_is_whole_however_it_ends() {
    for (compression, extension) in COMPRESSED {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("out.jsonl").with_extension(extension);
        let open = || {
            open_alone(FileSink {
                format: SinkFormat::Json,
                ..compressing(&path, compression, IfExists::Replace)
            })
            .unwrap()
        };
        // Without a row it is compressed text, too.
        open().finish(Ending::Complete).unwrap();
        assert_eq!(decompressed(&path, compression), (String::new(), true));
        assert_eq!(pieces(&path, compression), 1);
        let mut stopped = open();
        stopped.write(&batch()).unwrap();
        stopped.finish(Ending::Stopped).unwrap();
        let part = path.with_extension(format!("{extension}.part"));
        let (text, is_whole) = decompressed(&part, compression);
        assert!(is_whole);
        assert_eq!(text.as_bytes(), written(SinkFormat::Json));
    }
}
