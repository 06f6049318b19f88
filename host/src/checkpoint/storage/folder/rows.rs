//! The current rows of a data folder: a RocksDB database. It is scratch, since only
//! checkpoints outlive the process.
//!
//! Changes do not go through the database's write buffers: they are written to
//! sorted files, each key once, and RocksDB ingests all these files atomically.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rocksdb::checkpoint::Checkpoint;
use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, BottommostLevelCompaction, Cache,
    ColumnFamilyDescriptor, CompactOptions, DB, DBCompactionStyle, DBCompressionType,
    IngestExternalFileOptions, LogLevel, Options, ReadOptions, SstFileWriter,
    UniversalCompactOptions, WriteBufferManager,
};

use super::archive;
use super::trouble::{io, rocks};
use crate::checkpoint::changes::Changes;
use crate::checkpoint::storage::StorageError;

/// The one table of the database.
const FAMILY: &str = "default";
/// About the largest size of a file with changes.
const FILE_BYTES: u64 = 64 << 20;
/// How many files are open at once; their number grows with the state.
const FILES_OPEN_MAX: i32 = 512;
/// Compaction runs beside the pipeline, on two cores or more.
const BACKGROUND_JOBS: i32 = 2;
/// How many sorted runs there are when RocksDB merges them.
const RUNS_MAX: i32 = 8;
/// How many files there may be beyond twice those that the rows need, before all are merged.
const FILES_SPARE: u64 = 128;
/// How many runs there are when writers wait for the merging.
const RUNS_BEHIND: u64 = 4 * RUNS_MAX as u64;
/// Bits for each key in the filters: of a hundred lookups of missing keys, one
/// reads a block.
const FILTER_BITS: f64 = 10.0;
const BLOCK_BYTES: usize = 4 << 10;
/// About the size of a partition of filters and indexes. A lookup searches one in
/// each file that may have the key, so many small ones would be slow.
const METADATA_BYTES: usize = 32 << 10;

/// The memory that all databases of a folder share.
#[derive(Clone)]
pub struct Memory {
    cache: Cache,
    write_buffers: WriteBufferManager,
}

/// The database of the current rows. Dropping it removes its folder.
pub struct RowDatabase {
    db: Arc<DB>,
    folder: PathBuf,
    options: Options,
    whole: Mutex<WholeMerges>,
}

/// Merges of all files into one run.
struct WholeMerges {
    /// How many bytes of files the last one has left.
    left_bytes: u64,
    running: Option<JoinHandle<u64>>,
}

impl Memory {
    /// Blocks, indexes, filters and write buffers share `bytes_max`.
    pub fn new(bytes_max: usize) -> Memory {
        let cache = Cache::new_hyper_clock_cache(bytes_max, 0);
        // Changes do not go through write buffers, so these stay nearly empty.
        let write_buffers = WriteBufferManager::new_write_buffer_manager_with_cache(
            bytes_max / 8,
            false,
            cache.clone(),
        );
        Memory {
            cache,
            write_buffers,
        }
    }
}

impl RowDatabase {
    /// Opens the database in `folder`, or makes an empty one. The last merge of all its
    /// files has left so many bytes.
    pub fn open(
        folder: PathBuf,
        memory: &Memory,
        left_bytes: u64,
    ) -> Result<RowDatabase, StorageError> {
        let options = options(memory);
        let family = ColumnFamilyDescriptor::new(FAMILY, options.clone());
        let db = DB::open_cf_descriptors(&options, &folder, [family])
            .map_err(|cause| rocks("open the state in", &folder, &cause))?;
        Ok(RowDatabase {
            db: Arc::new(db),
            folder,
            options,
            whole: Mutex::new(WholeMerges {
                left_bytes,
                running: None,
            }),
        })
    }

    /// Applies the changes of several checkpoints, oldest first, atomically, and
    /// syncs them to the disk.
    pub fn apply(&self, changes: &[Vec<Changes>]) -> Result<(), StorageError> {
        let mut files = IngestFiles {
            rows: self,
            paths: Vec::new(),
        };
        files.write_ranges(changes)?;
        files.write_rows(&sorted(changes))?;
        if files.paths.is_empty() {
            return Ok(());
        }
        self.wait_for_merges();
        let mut ingest = IngestExternalFileOptions::default();
        ingest.set_move_files(true);
        // There are no RocksDB snapshots that would have to stay consistent.
        ingest.set_snapshot_consistency(false);
        self.db
            .ingest_external_file_opts(&ingest, files.paths.clone())
            .map_err(|cause| rocks("write state in", &self.folder, &cause))?;
        self.merge_whole_if_due();
        Ok(())
    }

    /// Merges all files, beside the pipeline, when there is twice as much as was left the
    /// last time.
    ///
    /// RocksDB would not: it merges runs that are large beside the last one, which it takes
    /// for live. But where keys grow with time, as those of windows do, files are ingested
    /// into the last run at once, and stay there when all their rows are deleted.
    fn merge_whole_if_due(&self) {
        let mut whole = self.whole.lock().unwrap_or_else(PoisonError::into_inner);
        whole.end();
        let (files, bytes) = size(&self.db);
        let is_due = bytes > 2 * whole.left_bytes + FILE_BYTES
            || files > FILES_SPARE + 2 * (bytes / FILE_BYTES);
        if !is_due || whole.running.is_some() {
            return;
        }
        let db = self.db.clone();
        let merge = move || {
            let mut options = CompactOptions::default();
            options.set_bottommost_level_compaction(BottommostLevelCompaction::Force);
            // RocksDB merges what is written meanwhile.
            options.set_exclusive_manual_compaction(false);
            db.compact_range_opt(None::<&[u8]>, None::<&[u8]>, &options);
            size(&db).1
        };
        let thread = thread::Builder::new().name("merge".to_owned()).spawn(merge);
        // Without a thread now, there may be one the next time.
        whole.running = thread.ok();
    }

    /// How many bytes of files the last merge of all has left.
    pub fn left_bytes(&self) -> u64 {
        let mut whole = self.whole.lock().unwrap_or_else(PoisonError::into_inner);
        whole.end();
        whole.left_bytes
    }

    /// Every run slows readers down, so writers wait while merging is far behind.
    fn wait_for_merges(&self) {
        let number = |name| self.db.property_int_value(name).ok().flatten();
        let is_behind = || {
            let runs = number("rocksdb.num-files-at-level0").unwrap_or(0);
            let merging = number("rocksdb.num-running-compactions").unwrap_or(0);
            let has_failed = number("rocksdb.background-errors") > Some(0);
            runs >= RUNS_BEHIND && merging > 0 && !has_failed
        };
        while is_behind() {
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Links and copies the database's files to a new folder.
    pub fn snapshot(&self, folder: &Path) -> Result<(), StorageError> {
        Checkpoint::new(&self.db)
            .and_then(|checkpoint| checkpoint.create_checkpoint(folder))
            .map_err(|cause| rocks("write the checkpoint in", folder, &cause))
    }

    pub fn get_many(&self, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, StorageError> {
        let family = self
            .db
            .cf_handle(FAMILY)
            .expect("the database was opened with it");
        // RocksDB need not sort keys that are in order.
        let in_order = keys.is_sorted();
        let found = self
            .db
            .batched_multi_get_cf(family, keys.iter().copied(), in_order);
        let value = |found: Result<Option<rocksdb::DBPinnableSlice>, _>| match found {
            Ok(value) => Ok(value.map(|value| value.to_vec())),
            Err(cause) => Err(rocks("read state in", &self.folder, &cause)),
        };
        found.into_iter().map(value).collect()
    }

    pub fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StorageError> {
        if from >= to {
            return Ok(());
        }
        let mut reading = ReadOptions::default();
        reading.set_iterate_lower_bound(from);
        reading.set_iterate_upper_bound(to);
        // A restore reads these rows once: keep rows that are read often cached.
        reading.fill_cache(false);
        reading.set_readahead_size(256 << 10);
        let mut rows = self.db.raw_iterator_opt(reading);
        rows.seek_to_first();
        while let Some((key, value)) = rows.item() {
            if !visit(key, value) {
                return Ok(());
            }
            rows.next();
        }
        rows.status()
            .map_err(|cause| rocks("read state in", &self.folder, &cause))
    }
}

/// The number of files, and their bytes.
fn size(db: &DB) -> (u64, u64) {
    // If it cannot tell, there is nothing to be merged.
    let files = db.live_files().unwrap_or_default();
    let bytes = files.iter().map(|file| file.size as u64).sum();
    (files.len() as u64, bytes)
}

impl WholeMerges {
    /// Notes what one has left that has ended.
    fn end(&mut self) {
        let ended = self.running.take_if(|thread| thread.is_finished());
        if let Some(Ok(left_bytes)) = ended.map(JoinHandle::join) {
            self.left_bytes = left_bytes;
        }
    }
}

impl Drop for RowDatabase {
    fn drop(&mut self) {
        self.db.cancel_all_background_work(true);
        let whole = self.whole.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = whole.running.take() {
            // It has the database open.
            let _ = thread.join();
        }
        // If this fails, opening the data folder removes it. The database closes its
        // files after this.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Files with changes that the database is to ingest. Dropping this removes those
/// that it has not taken.
struct IngestFiles<'a> {
    rows: &'a RowDatabase,
    paths: Vec<PathBuf>,
}

impl IngestFiles<'_> {
    /// Deleted ranges go into the first file: it counts as older than the others,
    /// so that they do not delete the rows of these checkpoints.
    fn write_ranges(&mut self, changes: &[Vec<Changes>]) -> Result<(), StorageError> {
        let ranges = merged(changes.iter().flatten().flat_map(Changes::ranges));
        if ranges.is_empty() {
            return Ok(());
        }
        let path = self.next_path();
        let writing = |cause| rocks("write state to", &path, &cause);
        let mut writer = SstFileWriter::create(&self.rows.options);
        writer.open(&path).map_err(writing)?;
        // RocksDB keeps files of one range alone out of its merges, to delete whole files by
        // them; but it does not do so where all runs have such a file: then it merges nothing
        // any more, and writers wait for ever. So none is alone.
        writer.delete(ranges[0].0).map_err(writing)?;
        for (from, to) in ranges {
            writer.delete_range(from, to).map_err(writing)?;
        }
        writer.finish().map_err(writing)
    }

    fn write_rows(&mut self, rows: &[RowChange]) -> Result<(), StorageError> {
        let mut rows = rows.iter().peekable();
        while rows.peek().is_some() {
            let path = self.next_path();
            let writing = |cause| rocks("write state to", &path, &cause);
            let mut writer = SstFileWriter::create(&self.rows.options);
            writer.open(&path).map_err(writing)?;
            let mut bytes = 0;
            while let Some(row) = rows.next_if(|_| bytes < FILE_BYTES) {
                // The last of several changes of one key counts.
                if rows.peek().is_some_and(|next| next.has_key_of(row)) {
                    continue;
                }
                bytes += (row.key.len() + row.value.map_or(0, <[u8]>::len)) as u64;
                let written = match row.value {
                    Some(value) => writer.put(row.key, value),
                    None => writer.delete(row.key),
                };
                written.map_err(writing)?;
            }
            writer.finish().map_err(writing)?;
        }
        Ok(())
    }

    fn next_path(&mut self) -> PathBuf {
        let path = self
            .rows
            .folder
            .join(format!("changes-{}", self.paths.len()));
        self.paths.push(path.clone());
        path
    }
}

impl Drop for IngestFiles<'_> {
    fn drop(&mut self) {
        for path in &self.paths {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// A changed row, or a deleted one, which has no value.
struct RowChange<'a> {
    /// Some bytes of the key. Comparing whole keys would be slow, since each is a
    /// cache miss.
    part: u128,
    key: &'a [u8],
    value: Option<&'a [u8]>,
}

/// Length of `RowChange::part`.
const PART: usize = size_of::<u128>();

/// All changed rows, sorted by key, those of one key oldest first, without rows that
/// a later checkpoint deletes by range.
fn sorted(changes: &[Vec<Changes>]) -> Vec<RowChange<'_>> {
    let count = changes.iter().flatten().map(|changes| changes.rows().len());
    let mut rows = Vec::with_capacity(count.sum());
    for (checkpoint, blocks) in changes.iter().enumerate() {
        let later = changes[checkpoint + 1..].iter().flatten();
        let later = merged(later.flat_map(Changes::ranges));
        let of_checkpoint = blocks.iter().flat_map(Changes::rows);
        let kept = of_checkpoint.filter(|(key, _)| !is_within(&later, key));
        rows.extend(kept.map(|(key, value)| RowChange {
            part: 0,
            key,
            value,
        }));
    }
    // All keys often begin with the same table and pane.
    let common = common_prefix(&rows);
    sort(&mut rows, common);
    rows
}

/// Sorts rows whose keys all begin with the same `common` bytes. Rows of one key
/// keep their order.
fn sort(rows: &mut [RowChange], common: usize) {
    for row in &mut *rows {
        let rest = row.key.get(common..).unwrap_or_default();
        let mut part = [0; PART];
        let length = rest.len().min(PART);
        part[..length].copy_from_slice(&rest[..length]);
        row.part = u128::from_be_bytes(part);
    }
    rows.sort_by_key(|row| row.part);
    for same in rows.chunk_by_mut(|one, other| one.part == other.part) {
        if same.iter().any(|row| row.key.len() > common + PART) {
            if same.len() > 1 {
                sort(same, common + PART);
            }
        } else {
            // The keys differ only in zeros at their ends.
            same.sort_by_key(|row| row.key.len());
        }
    }
}

/// Ranges of keys, from and to.
type Ranges<'a> = Vec<(&'a [u8], &'a [u8])>;

/// The ranges in order, with those that touch merged.
fn merged<'a>(ranges: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Ranges<'a> {
    let mut ranges: Ranges = ranges.filter(|(from, to)| from < to).collect();
    ranges.sort_unstable();
    let mut merged: Ranges = Vec::with_capacity(ranges.len());
    for (from, to) in ranges {
        match merged.last_mut() {
            Some((_, end)) if from <= *end => *end = to.max(end),
            _ => merged.push((from, to)),
        }
    }
    merged
}

fn is_within(ranges: &Ranges, key: &[u8]) -> bool {
    let before = ranges.partition_point(|(from, _)| *from <= key);
    before > 0 && key < ranges[before - 1].1
}

/// The length of the longest common prefix of all keys.
fn common_prefix(rows: &[RowChange]) -> usize {
    let Some(first) = rows.first() else { return 0 };
    rows.iter().fold(first.key.len(), |common, row| {
        let pairs = first.key[..common].iter().zip(row.key);
        pairs.take_while(|(one, other)| one == other).count()
    })
}

impl RowChange<'_> {
    fn has_key_of(&self, other: &RowChange) -> bool {
        self.part == other.part && self.key == other.key
    }
}

fn options(memory: &Memory) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&memory.cache);
    table.set_block_size(BLOCK_BYTES);
    table.set_bloom_filter(FILTER_BITS, false);
    // Filters and indexes are in the cache, and so in the budget, but partitioned,
    // so that those of a state far larger than the budget do not fill it.
    table.set_cache_index_and_filter_blocks(true);
    table.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
    table.set_partition_filters(true);
    table.set_metadata_block_size(METADATA_BYTES);
    table.set_pin_top_level_index_and_filter(true);

    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_block_based_table_factory(&table);
    options.set_write_buffer_manager(&memory.write_buffers);
    options.set_compression_type(DBCompressionType::Lz4);
    // Most rows of a checkpoint replace rows anywhere in the key space: universal
    // compaction copies each a few times, levelled compaction a dozen times.
    options.set_compaction_style(DBCompactionStyle::Universal);
    let mut universal = UniversalCompactOptions::default();
    universal.set_size_ratio(10);
    universal.set_max_size_amplification_percent(100);
    options.set_universal_compaction_options(&universal);
    options.set_level_zero_file_num_compaction_trigger(RUNS_MAX);
    options.set_target_file_size_base(FILE_BYTES);
    options.set_max_background_jobs(BACKGROUND_JOBS);
    options.set_max_open_files(FILES_OPEN_MAX);
    // A compaction syncs as it goes, so that the checkpoint's sync need not wait.
    options.set_bytes_per_sync(1 << 20);
    // RocksDB's manifest is copied for each checkpoint.
    options.set_max_manifest_file_size(1 << 20);
    options.set_log_level(LogLevel::Warn);
    options.set_keep_log_file_num(1);
    options.set_stats_dump_period_sec(0);
    options
}

/// Puts a checkpoint's files in a folder where the database can open them: links
/// those that never change, and copies the others.
pub fn lay_out<'a>(
    from: &Path,
    files: impl Iterator<Item = &'a str>,
    to: &Path,
) -> Result<(), StorageError> {
    std::fs::create_dir_all(to).map_err(|cause| io("make the folder", to, cause))?;
    for name in files {
        let (from, to) = (from.join(name), to.join(name));
        match archive::is_immutable(name) {
            true => archive::link(&from, &to)?,
            false => archive::copy(&from, &to)?,
        }
    }
    Ok(())
}
