//! Parts in folders: that each row is in the folder of its fields, once, whatever is killed
//! between any two steps, and what is refused.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, StringArray};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use proptest::prelude::*;
use tempfile::TempDir;

use super::encode::PartFormat;
use super::local::{LocalParts, PartNames};
use super::{Parts, PartsSink};
use crate::batch::Batch;
use crate::checkpoint::snapshot::SinkSnapshot;
use crate::clock::{Clock, ManualClock};
use crate::connector::file::beginning::IfExists;
use crate::connector::file::folders::{FolderNames, WrittenFolders};
use crate::connector::file::opened::Compression;
use crate::connector::file::rolling::Roll;
use crate::connector::file::sink_format::SinkFormat;
use crate::format::CsvFormat;
use crate::schema::{DataType, Field, Schema};
use crate::sink::{Ending, Sink, SinkContext, SinkError};

const KEYS: usize = 5;

fn schema() -> Arc<Schema> {
    let text = |name: &str| Field::new(name, DataType::Utf8, false);
    Arc::new(Schema::new(vec![text("k"), text("n")]))
}

fn key(number: usize) -> String {
    format!("k{}", number * number % KEYS)
}

fn row(number: usize) -> String {
    format!("{number}-{}", "x".repeat(number % 7))
}

fn rows(numbers: std::ops::Range<usize>) -> Batch {
    let texts = |text: fn(usize) -> String| {
        let texts = numbers.clone().map(text).map(Some);
        Arc::new(texts.collect::<StringArray>())
    };
    Batch {
        schema: schema(),
        columns: vec![texts(key), texts(row)],
        times: vec![0; numbers.len()].into(),
        origin: None,
        watermarks: None,
        taken_back: None,
    }
}

#[derive(Clone, Copy, Debug)]
struct Layout {
    format: SinkFormat,
    compression: Compression,
    roll: Option<u64>,
    open_max: usize,
}

const LAYOUT: Layout = Layout {
    format: SinkFormat::Json,
    compression: Compression::None,
    roll: Some(100),
    open_max: 64,
};

struct Place {
    folder: TempDir,
    clock: Arc<ManualClock>,
    layout: Layout,
    if_exists: IfExists,
}

impl Place {
    fn new(layout: Layout) -> Self {
        Place {
            folder: TempDir::new().unwrap(),
            clock: Arc::default(),
            layout,
            if_exists: IfExists::Fail,
        }
    }

    fn context(&self, restored: Option<&SinkSnapshot>) -> SinkContext {
        SinkContext {
            pipeline: "copying".to_owned(),
            is_checkpointed: true,
            restored: restored.cloned(),
            clock: self.clock.clone(),
            ..SinkContext::default()
        }
    }

    fn open(&self, context: &SinkContext) -> Result<Box<dyn Sink>, SinkError> {
        let Layout {
            format,
            compression,
            roll,
            open_max,
        } = self.layout;
        let names = PartNames::of(self.folder.path(), "part.x");
        let (place, restored) = LocalParts::open("out", names, self.if_exists, context)?;
        let schema = schema();
        let folders = WrittenFolders::parse("k={k}/").expect("a path");
        let folders = folders.plan(&schema).expect("its field is there");
        let parts = Parts {
            node: "out".to_owned(),
            folders: FolderNames::new(folders),
            format: match format {
                SinkFormat::Json => PartFormat::json(&schema, compression),
                SinkFormat::Csv => PartFormat::csv(&schema, CsvFormat::default(), compression),
                SinkFormat::Parquet => PartFormat::parquet(&schema),
            },
            roll: Roll {
                bytes: roll,
                every_ms: roll.map(|_| 60_000),
            },
            open_max,
            goes_on: roll.is_some() && format != SinkFormat::Parquet,
            is_checkpointed: context.is_checkpointed,
            waits_for_commit: context.waits_for_commit,
            clock: context.clock.clone(),
        };
        Ok(Box::new(PartsSink::new(parts, place, restored)))
    }

    fn alone(&self) -> Result<Box<dyn Sink>, SinkError> {
        self.open(&SinkContext {
            is_checkpointed: false,
            ..self.context(None)
        })
    }

    fn refusal(&self, context: &SinkContext) -> String {
        let refused = self.open(context).err().expect("it is refused");
        let folder = self.folder.path().display().to_string();
        refused.to_string().replace(&folder, "")
    }

    /// The files that readers see: their folder and name, and the rows of each.
    fn parts(&self) -> BTreeMap<String, Vec<String>> {
        let mut parts = BTreeMap::new();
        for folder in fs::read_dir(&self.folder).unwrap() {
            let folder = folder.unwrap().path();
            if name_of(&folder).starts_with('.') {
                continue;
            }
            for part in fs::read_dir(&folder).unwrap() {
                let path = part.unwrap().path();
                let name = format!("{}/{}", name_of(&folder), name_of(&path));
                parts.insert(name, self.rows_of(&path));
            }
        }
        parts
    }

    fn rows_of(&self, path: &Path) -> Vec<String> {
        if self.layout.format == SinkFormat::Parquet {
            let file = fs::File::open(path).unwrap();
            let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
            let batches = reader.build().unwrap().map(Result::unwrap);
            let texts = batches.flat_map(|batch| {
                let column = batch.column(1).as_string::<i32>().clone();
                (0..column.len()).map(move |row| column.value(row).to_owned())
            });
            return texts.collect();
        }
        let bytes = fs::read(path).unwrap();
        let mut text = String::new();
        let read = match self.layout.compression {
            Compression::None => bytes.as_slice().read_to_string(&mut text),
            Compression::Gzip => {
                flate2::read::MultiGzDecoder::new(&*bytes).read_to_string(&mut text)
            }
            Compression::Zstd => zstd::Decoder::new(&*bytes)
                .unwrap()
                .read_to_string(&mut text),
        };
        read.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(text.ends_with('\n'), "{text}");
        let mut lines = text.lines();
        if self.layout.format == SinkFormat::Csv {
            assert_eq!(lines.next(), Some("k,n"));
            return lines.map(|line| line[3..].to_owned()).collect();
        }
        lines
            .map(|line| line[15..line.len() - 2].to_owned())
            .collect()
    }

    /// Expects each of these rows to be in the folder of its field, in order and once.
    fn expect_rows(&self, all: std::ops::Range<usize>) {
        let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, rows) in self.parts() {
            let (folder, _) = name.split_once('/').unwrap();
            found.entry(folder.to_owned()).or_default().extend(rows);
        }
        let mut expected: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for number in all {
            let folder = format!("k={}", key(number));
            expected.entry(folder).or_default().push(row(number));
        }
        assert_eq!(found, expected);
    }

    /// What is in the hidden folder.
    fn hidden(&self) -> Vec<String> {
        let folder = self.folder.path().join(".part.x.parts");
        let entries = fs::read_dir(folder).into_iter().flatten();
        let mut names: Vec<String> = entries.map(|it| name_of(&it.unwrap().path())).collect();
        names.sort();
        names
    }
}

fn name_of(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

#[test]
fn a_row_is_in_the_folder_of_its_field() {
    for batch_rows in [1, 7, 100] {
        let place = Place::new(LAYOUT);
        let mut sink = place.alone().unwrap();
        for first in (0..100).step_by(batch_rows) {
            sink.write(&rows(first..(first + batch_rows).min(100)))
                .unwrap();
        }
        assert!(!place.parts().is_empty(), "full ones have their names");
        sink.finish(Ending::Complete).unwrap();
        drop(sink);
        place.expect_rows(0..100);
        assert_eq!(place.hidden(), ["written"]);
        // A part has as many rows as fill it, however they come.
        let sizes = place.parts().into_values().map(|rows| rows.len());
        assert_eq!(sizes.max(), Some(5));
    }
}

#[test]
fn the_part_that_is_idle_for_longest_is_complete_when_another_needs_its_place() {
    let layout = Layout {
        open_max: 2,
        roll: None,
        ..LAYOUT
    };
    let place = Place::new(layout);
    let mut sink = place.alone().unwrap();
    // Their keys are 0, 1, 4, 4, 1, 0.
    sink.write(&rows(0..6)).unwrap();
    assert_eq!(
        Vec::from_iter(place.parts().into_keys()),
        ["k=k0/part-000001.x", "k=k4/part-000003.x"]
    );
    sink.finish(Ending::Complete).unwrap();
    place.expect_rows(0..6);
}

#[test]
fn a_part_is_complete_at_its_age_although_no_row_comes() {
    let place = Place::new(Layout {
        roll: Some(1 << 20),
        ..LAYOUT
    });
    let mut sink = place.alone().unwrap();
    place.clock.set(1_000);
    assert_eq!(sink.flush_at_ms(), None);
    sink.write(&rows(0..1)).unwrap();
    place.clock.set(2_000);
    sink.write(&rows(1..2)).unwrap();
    assert_eq!(sink.flush_at_ms(), Some(61_000));
    place.clock.set(61_000);
    sink.flush().unwrap();
    place.expect_rows(0..1);
    assert_eq!(sink.flush_at_ms(), Some(62_000));
}

#[test]
fn parts_get_their_names_when_their_checkpoint_is_committed() {
    for roll in [None, Some(100)] {
        let place = Place::new(Layout { roll, ..LAYOUT });
        let mut sink = place.open(&place.context(None)).unwrap();
        sink.write(&rows(0..50)).unwrap();
        let first = sink.barrier(1).unwrap();
        sink.write(&rows(50..60)).unwrap();
        assert!(place.parts().is_empty());
        sink.committed(1).unwrap();
        let parts = place.parts();
        let named: usize = parts.values().map(Vec::len).sum();
        match roll {
            None => place.expect_rows(0..50),
            Some(_) => assert!((10..50).contains(&named), "only full ones: {parts:?}"),
        }
        drop(sink);
        let mut sink = place.open(&place.context(Some(&first))).unwrap();
        sink.flush().unwrap();
        assert_eq!(place.parts(), parts, "what was killed left nothing");
        sink.complete().unwrap();
        sink.barrier(2).unwrap();
        sink.committed(2).unwrap();
        sink.finish(Ending::Complete).unwrap();
        place.expect_rows(0..50);
    }
}

#[test]
fn an_older_checkpoint_takes_back_what_came_behind_it() {
    for waits in [false, true] {
        let place = Place::new(LAYOUT);
        let mut sink = place.open(&place.context(None)).unwrap();
        sink.write(&rows(0..33)).unwrap();
        let first = sink.barrier(1).unwrap();
        sink.committed(1).unwrap();
        sink.write(&rows(33..90)).unwrap();
        sink.complete().unwrap();
        sink.barrier(2).unwrap();
        sink.committed(2).unwrap();
        sink.finish(Ending::Complete).unwrap();
        drop(sink);
        place.expect_rows(0..90);
        let before = place.parts();
        let context = SinkContext {
            goes_back_to: Some(1),
            waits_for_commit: waits,
            ..place.context(Some(&first))
        };
        let mut sink = place.open(&context).unwrap();
        sink.flush().unwrap();
        let mut kept = first.clone();
        if waits {
            kept = sink.barrier(3).unwrap();
            assert_eq!(kept, first, "nothing has changed");
            assert_eq!(place.parts(), before);
            sink.committed(3).unwrap();
        }
        let named: usize = place.parts().values().map(Vec::len).sum();
        assert!(named < 33, "{named}");
        drop(sink);
        let mut sink = place.open(&place.context(Some(&kept))).unwrap();
        sink.write(&rows(33..60)).unwrap();
        sink.complete().unwrap();
        sink.barrier(4).unwrap();
        sink.finish(Ending::Complete).unwrap();
        place.expect_rows(0..60);
        // And once more, although the list has some of them twice.
        drop(sink);
        let mut sink = place.open(&context).unwrap();
        sink.barrier(5).unwrap();
        sink.committed(5).unwrap();
        sink.write(&rows(33..40)).unwrap();
        sink.finish(Ending::Complete).unwrap();
        place.expect_rows(0..40);
    }
}

#[test]
fn parts_of_an_earlier_run_are_refused_replaced_or_followed() {
    let mut place = Place::new(LAYOUT);
    let mut sink = place.alone().unwrap();
    sink.write(&rows(0..30)).unwrap();
    sink.finish(Ending::Complete).unwrap();
    drop(sink);
    let before = place.parts();
    for context in [place.context(None), SinkContext::default()] {
        let refused = place.refusal(&context);
        assert!(
            refused.contains("this run does not go on from it"),
            "{refused}"
        );
    }
    place.if_exists = IfExists::Append;
    let mut sink = place.alone().unwrap();
    sink.write(&rows(30..60)).unwrap();
    sink.finish(Ending::Complete).unwrap();
    drop(sink);
    place.expect_rows(0..60);
    assert!(before.keys().all(|name| place.parts().contains_key(name)));
    place.if_exists = IfExists::Replace;
    let mut sink = place.alone().unwrap();
    sink.write(&rows(5..15)).unwrap();
    sink.finish(Ending::Complete).unwrap();
    drop(sink);
    place.expect_rows(5..15);
    // Files of others stay.
    let (name, _) = place.parts().pop_first().expect("a part");
    fs::write(place.folder.path().join(&name), "mine").unwrap();
    let refused = place.refusal(&place.context(None));
    assert!(
        refused.contains(&name) && refused.contains("changed since"),
        "{refused}"
    );
}

#[test]
fn rows_of_a_run_that_was_killed_are_not_passed_over_without_a_word() {
    let place = Place::new(LAYOUT);
    let mut sink = place.alone().unwrap();
    sink.write(&rows(0..1)).unwrap();
    let first = sink.barrier(1).unwrap();
    drop(sink);
    let refused = place.refusal(&place.context(None));
    assert!(
        refused.contains(".part.x.parts/000001.part is there"),
        "{refused}"
    );
    let part = place.folder.path().join(".part.x.parts/000001.part");
    let whole = fs::read(&part).unwrap();
    let mut other = whole.clone();
    other[3] ^= 1;
    for wrong in [&whole[1..], &other] {
        fs::write(&part, wrong).unwrap();
        let refused = place.refusal(&place.context(Some(&first)));
        assert!(refused.contains("is not what the checkpoint"), "{refused}");
    }
    fs::remove_file(&part).unwrap();
    let refused = place.refusal(&place.context(Some(&first)));
    assert!(refused.contains("or is gone"), "{refused}");
}

#[test]
fn no_file_of_somebody_else_is_written_over() {
    let place = Place::new(LAYOUT);
    let mut sink = place.open(&place.context(None)).unwrap();
    sink.write(&rows(0..1)).unwrap();
    sink.complete().unwrap();
    sink.barrier(1).unwrap();
    let theirs = place.folder.path().join("k=k0/part-000001.x");
    fs::create_dir(theirs.parent().unwrap()).unwrap();
    fs::write(&theirs, "mine").unwrap();
    let refused = sink.committed(1).expect_err("it is there").to_string();
    assert!(refused.contains("this run has not written it"), "{refused}");
    assert_eq!(fs::read(&theirs).unwrap(), b"mine");
}

#[test]
fn two_runs_do_not_write_the_same_parts() {
    let place = Place::new(LAYOUT);
    let sink = place.alone().unwrap();
    let refused = place.refusal(&SinkContext::default());
    assert!(refused.contains("another run"), "{refused}");
    drop(sink);
    assert!(place.alone().is_ok());
}

#[test]
fn a_run_without_rows_leaves_nothing() {
    let place = Place::new(LAYOUT);
    let mut sink = place.alone().unwrap();
    sink.finish(Ending::Complete).unwrap();
    drop(sink);
    assert_eq!(fs::read_dir(&place.folder).unwrap().count(), 0);
}

#[derive(Clone, Debug)]
enum Step {
    Write(usize),
    Wait,
    Barrier,
    /// The checkpoint of the last barrier is durable.
    Durable,
    Committed,
    Crash,
}

/// A run with checkpoints, which is killed now and then.
struct Model {
    place: Place,
    sink: Box<dyn Sink>,
    id: u64,
    /// Rows that were written.
    rows: usize,
    /// The last barrier and the rows before it, until it is durable.
    pending: Option<(SinkSnapshot, usize)>,
    /// The last durable checkpoint.
    durable: Option<(SinkSnapshot, usize)>,
    is_committed: bool,
}

impl Model {
    fn new(layout: Layout) -> Self {
        let place = Place::new(layout);
        let mut sink = place.open(&place.context(None)).unwrap();
        let first = sink.barrier(1).unwrap();
        Model {
            place,
            sink,
            id: 1,
            rows: 0,
            pending: None,
            durable: Some((first, 0)),
            is_committed: true,
        }
    }

    fn run(&mut self, step: &Step) {
        match step {
            Step::Write(count) => {
                self.sink
                    .write(&rows(self.rows..self.rows + count))
                    .unwrap();
                self.rows += count;
            }
            Step::Wait => {
                self.place.clock.set(self.place.clock.now_ms() + 40_000);
                self.sink.flush().unwrap();
            }
            // One checkpoint after the other.
            Step::Barrier if self.pending.is_none() && self.is_committed => {
                self.id += 1;
                self.pending = Some((self.sink.barrier(self.id).unwrap(), self.rows));
            }
            Step::Durable if self.pending.is_some() => {
                self.durable = self.pending.take();
                self.is_committed = false;
            }
            Step::Committed if !self.is_committed => {
                self.sink.committed(self.id).unwrap();
                self.is_committed = true;
            }
            Step::Crash => self.crash(),
            _ => {}
        }
    }

    fn crash(&mut self) {
        let (snapshot, rows) = self.durable.clone().expect("a checkpoint");
        let context = self.place.context(Some(&snapshot));
        // A process that is gone has nothing open.
        self.sink = self.place.alone_in_another_folder();
        self.sink = self.place.open(&context).unwrap();
        self.sink.flush().unwrap();
        self.rows = rows;
        self.pending = None;
        self.is_committed = true;
    }

    /// Readers have no row twice, and none that a kill could take back.
    fn check(&self) {
        let durable = self.durable.as_ref().map_or(0, |(_, rows)| *rows);
        let mut found: Vec<String> = self.place.parts().into_values().flatten().collect();
        let count = found.len();
        found.sort();
        found.dedup();
        assert_eq!(found.len(), count, "rows came twice");
        let known: HashSet<String> = (0..durable).map(row).collect();
        assert!(found.iter().all(|row| known.contains(row)), "{found:?}");
    }

    fn end(mut self) {
        self.sink.complete().unwrap();
        let last = self.sink.barrier(self.id + 1).unwrap();
        self.durable = Some((last, self.rows));
        self.crash();
        self.sink.finish(Ending::Complete).unwrap();
        self.place.expect_rows(0..self.rows);
        let hidden = self.place.hidden();
        assert!(hidden.iter().all(|name| name == "written"), "{hidden:?}");
    }
}

impl Place {
    fn alone_in_another_folder(&self) -> Box<dyn Sink> {
        Place::new(self.layout).alone().unwrap()
    }
}

fn layouts() -> impl Strategy<Value = Layout> {
    let formats = vec![
        (SinkFormat::Json, Compression::None),
        (SinkFormat::Json, Compression::Gzip),
        (SinkFormat::Csv, Compression::None),
        (SinkFormat::Csv, Compression::Zstd),
        (SinkFormat::Parquet, Compression::None),
    ];
    let formats = prop::sample::select(formats);
    let rolls = prop::sample::select(vec![None, Some(60), Some(1_000)]);
    (formats, rolls, 1_usize..7).prop_map(|((format, compression), roll, open_max)| Layout {
        format,
        compression,
        roll,
        open_max,
    })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1_usize..30).prop_map(Step::Write),
        1 => Just(Step::Wait),
        3 => Just(Step::Barrier),
        3 => Just(Step::Durable),
        2 => Just(Step::Committed),
        1 => Just(Step::Crash),
    ];
    prop::collection::vec(step, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn whatever_happens_each_row_is_there_once(steps in steps(), layout in layouts()) {
        let mut model = Model::new(layout);
        for step in &steps {
            model.run(step);
            model.check();
        }
        model.end();
    }
}
