//! Files that are edited between runs: an edit of what was read is seen, wherever it is,
//! and rows that are added are read.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use tempfile::TempDir;

use super::sources::{COMPRESSIONS, CSV, Read, compressed_once, context, files};
use crate::checkpoint::snapshot::SourceSnapshot;
use crate::clock::{Clock, ManualClock, SystemClock};
use crate::connector::file::opened::Compression;
use crate::source::SourceContext;
use crate::source::reader::SourceReader;

/// One run, which reads about this many rows and makes a checkpoint.
struct Run {
    batch_rows: usize,
    decode_workers: usize,
    clock: Arc<dyn Clock>,
    rows: usize,
}

impl Run {
    fn with(random: &mut fastrand::Rng) -> Self {
        Run {
            batch_rows: [1, 3, 50][random.usize(0..3)],
            decode_workers: random.usize(1..3),
            clock: Arc::new(SystemClock),
            rows: [random.usize(0..40), usize::MAX][random.usize(0..2)],
        }
    }

    async fn of(
        self,
        path: &Path,
        restored: &mut Arc<[SourceSnapshot]>,
    ) -> Result<Vec<String>, String> {
        let context = SourceContext {
            decode_workers: self.decode_workers,
            clock: self.clock,
            restored: restored.clone(),
            ..context(self.batch_rows)
        };
        let plan = files(&[path], CSV);
        let reader = SourceReader::open(&plan, context).await;
        let mut reader = reader.map_err(|error| error.to_string())?;
        let mut read = Read::default();
        while read.ids.len() < self.rows
            && let Some(pulled) = reader.next().await.unwrap()
        {
            read.add(pulled);
        }
        *restored = Arc::new([reader.snapshot()]);
        Ok(read.ids)
    }
}

/// A file of rows, of which several runs read more and more.
struct Rows {
    folder: TempDir,
    compression: Compression,
    /// The texts that were added, each compressed by itself.
    pieces: Vec<String>,
    ids: Vec<String>,
    random: fastrand::Rng,
}

impl Rows {
    fn new(compression: Compression, seed: u64) -> Self {
        Rows {
            folder: TempDir::new().unwrap(),
            compression,
            pieces: vec!["id,ts\n".to_owned()],
            ids: Vec::new(),
            random: fastrand::Rng::with_seed(seed),
        }
    }

    fn path(&self) -> std::path::PathBuf {
        let name = match self.compression {
            Compression::None => "rows.csv",
            Compression::Gzip => "rows.csv.gz",
            Compression::Zstd => "rows.csv.zst",
        };
        self.folder.path().join(name)
    }

    fn append(&mut self, rows: usize) {
        let from = self.ids.len();
        // More than can be compressed to the few bytes that each checkpoint has looked at.
        let random = &mut self.random;
        let mut id = |row| format!("row {row} {:x}{:x}", random.u128(..), random.u128(..));
        self.ids.extend((from..from + rows).map(&mut id));
        let lines = self.ids[from..].iter().map(|id| format!("{id},1\n"));
        self.pieces.push(lines.collect());
        self.write(None);
    }

    /// Writes the file, with another byte at some place in its text.
    fn write(&self, edit: Option<(usize, u8)>) {
        let mut from = 0;
        let pieces = self.pieces.iter().map(|piece| {
            let mut piece = piece.clone().into_bytes();
            let length = piece.len();
            if let Some((at, other)) = edit
                && let Some(byte) = at.checked_sub(from).and_then(|at| piece.get_mut(at))
            {
                *byte ^= other;
            }
            from += length;
            compressed_once(&piece, self.compression)
        });
        let pieces: Vec<Vec<u8>> = pieces.collect();
        fs::write(self.path(), pieces.concat()).unwrap();
    }
}

#[tokio::test]
async fn any_edit_of_what_was_read_is_seen() {
    for seed in 0..300 {
        let mut random = fastrand::Rng::with_seed(seed);
        let (compression, _) = COMPRESSIONS[seed as usize % COMPRESSIONS.len()];
        let mut rows = Rows::new(compression, seed);
        let (mut restored, mut ids): (Arc<[SourceSnapshot]>, _) = (Arc::default(), Vec::new());
        rows.append(random.usize(1..100));
        for _ in 0..random.usize(1..5) {
            let run = Run::with(&mut random);
            ids.extend(run.of(&rows.path(), &mut restored).await.unwrap());
            assert!(rows.ids.starts_with(&ids), "seed {seed}");
            rows.append(random.usize(0..30));
        }
        let position = restored[0].partitions[0].position;
        if position.rows == Some(0) {
            continue;
        }
        let at = random.usize(0..position.offset as usize);
        rows.write(Some((at, random.u8(1..))));
        let run = Run::with(&mut random);
        let read = run.of(&rows.path(), &mut restored).await;
        let said = read.expect_err(&format!("seed {seed}: byte {at}"));
        // Or it begins otherwise, without a header.
        let is_in_header = at < "id,ts\n".len();
        let expected = [
            "has been changed in what was read",
            "is another file than",
            "looks like",
        ];
        let is_told = expected.iter().any(|expected| said.contains(expected));
        assert!(is_told || is_in_header, "seed {seed}: {said}");

        rows.write(None);
        let mut run = Run::with(&mut random);
        run.rows = usize::MAX;
        ids.extend(run.of(&rows.path(), &mut restored).await.unwrap());
        assert_eq!(ids, rows.ids, "seed {seed}");
    }
}

/// In the first of many lines, and rows are added.
#[tokio::test]
async fn an_edit_long_before_the_place_to_go_on_from_is_refused() {
    let mut rows = Rows::new(Compression::None, 1);
    rows.append(500);
    let mut restored = Arc::default();
    let all = || Run {
        rows: usize::MAX,
        ..Run::with(&mut fastrand::Rng::with_seed(1))
    };
    all().of(&rows.path(), &mut restored).await.unwrap();
    rows.append(1);
    rows.write(Some(("id,ts\n".len(), 1)));
    let said = all().of(&rows.path(), &mut restored).await.unwrap_err();
    assert!(
        said.contains("rows.csv has been changed in what was read"),
        "{said}"
    );
    assert!(said.contains("`sluicebox run --drop events/"), "{said}");
}

/// What has not changed since a checkpoint is known without reading it, and goes on as if
/// it had been read.
#[tokio::test]
async fn files_that_are_as_they_were_go_on_from_their_last_block() {
    for (compression, _) in COMPRESSIONS {
        let mut rows = Rows::new(compression, 2);
        rows.append(500);
        let clock = ManualClock::default();
        clock.set(i64::MAX / 1_000_000);
        let clock: Arc<dyn Clock> = Arc::new(clock);
        let (mut restored, mut ids) = (Arc::default(), Vec::new());
        let mut read = 0;
        for rows_max in [90, 1, 200, usize::MAX] {
            let run = Run {
                batch_rows: 7,
                decode_workers: 1,
                clock: clock.clone(),
                rows: rows_max,
            };
            ids.extend(run.of(&rows.path(), &mut restored).await.unwrap());
            let mark = mark(&restored);
            assert!(mark.contains(" seen="), "{mark}");
            assert!(ids.len() > read, "{rows_max}");
            read = ids.len();
        }
        assert_eq!(ids, rows.ids);
        let mut at_once = Arc::default();
        let run = Run {
            batch_rows: 4_096,
            decode_workers: 1,
            clock,
            rows: usize::MAX,
        };
        run.of(&rows.path(), &mut at_once).await.unwrap();
        assert_eq!(mark(&at_once), mark(&restored));
    }
}

/// It is as it was when it is opened, and rows are added before it is read.
#[tokio::test]
async fn a_file_at_rest_that_grows_goes_on() {
    let mut rows = Rows::new(Compression::None, 4);
    rows.append(500);
    let clock = ManualClock::default();
    clock.set(i64::MAX / 1_000_000);
    let clock: Arc<dyn Clock> = Arc::new(clock);
    let run = || Run {
        batch_rows: 7,
        decode_workers: 1,
        clock: clock.clone(),
        rows: usize::MAX,
    };
    let mut restored = Arc::default();
    run().of(&rows.path(), &mut restored).await.unwrap();
    let context = SourceContext {
        clock: clock.clone(),
        restored: restored.clone(),
        ..context(7)
    };
    let path = rows.path();
    let plan = files(&[&path], CSV);
    let mut reader = SourceReader::open(&plan, context).await.unwrap();
    let before = rows.ids.len();
    rows.append(100);
    let mut read = Read::default();
    while let Some(pulled) = reader.next().await.unwrap() {
        read.add(pulled);
    }
    assert_eq!(read.ids, rows.ids[before..]);
    let mut at_once = Arc::default();
    run().of(&rows.path(), &mut at_once).await.unwrap();
    let all = |mark: &str| {
        mark.split(' ')
            .find(|word| word.starts_with("all="))
            .map(str::to_owned)
    };
    assert_eq!(all(mark(&[reader.snapshot()])), all(mark(&at_once)));
}

/// They have no digest of all that was read; the next ones do.
#[tokio::test]
async fn checkpoints_of_earlier_versions_are_gone_on_from() {
    for (compression, _) in COMPRESSIONS {
        let mut rows = Rows::new(compression, 3);
        rows.append(100);
        let (mut restored, mut at_once): (Arc<[SourceSnapshot]>, _) = Default::default();
        let run = |rows| Run {
            batch_rows: 10,
            decode_workers: 1,
            clock: Arc::new(SystemClock),
            rows,
        };
        run(usize::MAX)
            .of(&rows.path(), &mut at_once)
            .await
            .unwrap();
        let mut ids = run(30).of(&rows.path(), &mut restored).await.unwrap();
        let mut earlier = restored[0].clone();
        let without = mark(&restored).split(" all=").next().map(str::to_owned);
        earlier.partitions[0].digest = without;
        restored = Arc::new([earlier]);
        ids.extend(
            run(usize::MAX)
                .of(&rows.path(), &mut restored)
                .await
                .unwrap(),
        );
        assert_eq!(ids, rows.ids);
        assert_eq!(mark(&at_once), mark(&restored));
    }
}

fn mark(snapshot: &[SourceSnapshot]) -> &str {
    snapshot[0].partitions[0]
        .digest
        .as_deref()
        .unwrap_or_default()
}
