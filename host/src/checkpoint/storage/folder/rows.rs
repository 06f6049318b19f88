//! The current rows of a data folder: a RocksDB database that is scratch, since
//! only checkpoints outlive the process.
//!
//! Changes come as sorted files that are added to the database at once, rather
//! than through its write buffers: the rows of a checkpoint, or of some, are all
//! there at one moment, each key once.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rocksdb::checkpoint::Checkpoint;
use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, ColumnFamilyDescriptor, DB, DBCompactionStyle,
    DBCompressionType, IngestExternalFileOptions, LogLevel, Options, ReadOptions, SstFileWriter,
    UniversalCompactOptions, WriteBufferManager,
};

use super::archive;
use super::trouble::{io, rocks};
use crate::checkpoint::changes::Changes;
use crate::checkpoint::storage::StorageError;

/// The one table of the database.
const FAMILY: &str = "default";
/// Files with changes are about that large at most.
const FILE_BYTES: u64 = 64 << 20;
/// How many files are open at once; their number grows with the state.
const FILES_OPEN_MAX: i32 = 512;
/// Compaction runs beside the pipeline, on two cores or more.
const BACKGROUND_JOBS: i32 = 2;
/// Sorted runs before they are merged.
const RUNS_MAX: i32 = 8;
/// Runs at which merging has fallen far behind.
const RUNS_BEHIND: u64 = 4 * RUNS_MAX as u64;
/// Bits a key of the filters: one in a hundred lookups in vain.
const FILTER_BITS: f64 = 10.0;
const BLOCK_BYTES: usize = 4 << 10;
/// Parts of filters and indexes are about that large. A lookup finds its part
/// in each file that may have the key, so that many small ones cost much.
const METADATA_BYTES: usize = 32 << 10;

/// What all databases of a folder share.
#[derive(Clone)]
pub struct Memory {
    cache: Cache,
    write_buffers: WriteBufferManager,
}

/// Current rows. Its folder goes with it.
pub struct Rows {
    db: DB,
    folder: PathBuf,
    options: Options,
}

impl Memory {
    /// One budget: blocks, indexes, filters and write buffers together.
    pub fn new(bytes_max: usize) -> Memory {
        let cache = Cache::new_hyper_clock_cache(bytes_max, 0);
        // Changes do not go through write buffers, so there is next to nothing
        // in them.
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

impl Rows {
    /// Opens the database in `folder`, or begins one.
    pub fn open(folder: PathBuf, memory: &Memory) -> Result<Rows, StorageError> {
        let options = options(memory);
        let family = ColumnFamilyDescriptor::new(FAMILY, options.clone());
        let db = DB::open_cf_descriptors(&options, &folder, [family])
            .map_err(|cause| rocks("open the state in", &folder, &cause))?;
        Ok(Rows {
            db,
            folder,
            options,
        })
    }

    /// Makes all changes at once, which are those of some checkpoints, oldest
    /// first. Afterwards they are on disk, though only a checkpoint says so.
    pub fn apply(&self, changes: &[Vec<Changes>]) -> Result<(), StorageError> {
        let mut files = Files {
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
        // Nobody holds a snapshot of the database.
        ingest.set_snapshot_consistency(false);
        self.db
            .ingest_external_file_opts(&ingest, files.paths.clone())
            .map_err(|cause| rocks("write state in", &self.folder, &cause))
    }

    /// Readers pay for every run, so that what is added waits while merging is
    /// far behind.
    fn wait_for_merges(&self) {
        let number = |name| self.db.property_int_value(name).ok().flatten();
        let is_behind = || {
            let runs = number("rocksdb.num-files-at-level0").unwrap_or(0);
            let merging = number("rocksdb.num-running-compactions").unwrap_or(0);
            let has_failed = number("rocksdb.background-errors") > Some(0);
            runs >= RUNS_BEHIND && merging > 0 && !has_failed
        };
        while is_behind() {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Links and copies the database's files to a folder that is not there yet.
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
        // Otherwise RocksDB puts them in order once more.
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
        // What is read once for a restore does not push out what is read often.
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

impl Drop for Rows {
    fn drop(&mut self) {
        self.db.cancel_all_background_work(true);
        // Otherwise it is removed when the data folder is opened again; the
        // database closes its files after that.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Files with changes on their way into the database.
struct Files<'a> {
    rows: &'a Rows,
    paths: Vec<PathBuf>,
}

impl Files<'_> {
    /// Ranges go into a file of their own that is older than the others, so
    /// that they do not touch the rows of this checkpoint.
    fn write_ranges(&mut self, changes: &[Vec<Changes>]) -> Result<(), StorageError> {
        let ranges = merged(changes.iter().flatten().flat_map(Changes::ranges));
        if ranges.is_empty() {
            return Ok(());
        }
        let path = self.next_path();
        let writing = |cause| rocks("write state to", &path, &cause);
        let mut writer = SstFileWriter::create(&self.rows.options);
        writer.open(&path).map_err(writing)?;
        for (from, to) in ranges {
            writer.delete_range(from, to).map_err(writing)?;
        }
        writer.finish().map_err(writing)
    }

    fn write_rows(&mut self, rows: &[Row]) -> Result<(), StorageError> {
        let mut rows = rows.iter().peekable();
        while rows.peek().is_some() {
            let path = self.next_path();
            let writing = |cause| rocks("write state to", &path, &cause);
            let mut writer = SstFileWriter::create(&self.rows.options);
            writer.open(&path).map_err(writing)?;
            let mut bytes = 0;
            while let Some(row) = rows.next_if(|_| bytes < FILE_BYTES) {
                // Of one key's changes the last one holds.
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

impl Drop for Files<'_> {
    /// What the database has taken has moved.
    fn drop(&mut self) {
        for path in &self.paths {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// A row's change; without a value it is deleted.
struct Row<'a> {
    /// Some bytes of the key: to compare keys themselves would be slow, since
    /// they are all over the memory.
    part: u128,
    key: &'a [u8],
    value: Option<&'a [u8]>,
}

/// Bytes of a part.
const PART: usize = size_of::<u128>();

fn sorted(changes: &[Vec<Changes>]) -> Vec<Row<'_>> {
    let count = changes.iter().flatten().map(|changes| changes.rows().len());
    let mut rows = Vec::with_capacity(count.sum());
    for (checkpoint, blocks) in changes.iter().enumerate() {
        let later = changes[checkpoint + 1..].iter().flatten();
        let later = merged(later.flat_map(Changes::ranges));
        let of_checkpoint = blocks.iter().flat_map(Changes::rows);
        let kept = of_checkpoint.filter(|(key, _)| !is_within(&later, key));
        rows.extend(kept.map(|(key, value)| Row {
            part: 0,
            key,
            value,
        }));
    }
    // Which operator's they are, and often of which pane, is the same for all.
    let common = common_prefix(&rows);
    sort(&mut rows, common);
    rows
}

/// Sorts rows whose keys have so many bytes in common, those of one key in the
/// order in which they are.
fn sort(rows: &mut [Row], common: usize) {
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
            // They differ in zeros at their ends alone.
            same.sort_by_key(|row| row.key.len());
        }
    }
}

/// Ranges of keys, from and to.
type Ranges<'a> = Vec<(&'a [u8], &'a [u8])>;

/// In order, none of them touching another.
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

/// With how many same bytes all keys begin.
fn common_prefix(rows: &[Row]) -> usize {
    let Some(first) = rows.first() else { return 0 };
    rows.iter().fold(first.key.len(), |common, row| {
        let pairs = first.key[..common].iter().zip(row.key);
        pairs.take_while(|(one, other)| one == other).count()
    })
}

impl Row<'_> {
    fn has_key_of(&self, other: &Row) -> bool {
        self.part == other.part && self.key == other.key
    }
}

fn options(memory: &Memory) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&memory.cache);
    table.set_block_size(BLOCK_BYTES);
    table.set_bloom_filter(FILTER_BITS, false);
    // Filters and indexes are in the cache, and so in the budget, in parts, so
    // that those of a state far larger than the budget do not fill it.
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
    // Most rows of a checkpoint are newer versions of rows anywhere: merging
    // runs of one size copies each a few times, levels would a dozen times.
    options.set_compaction_style(DBCompactionStyle::Universal);
    let mut universal = UniversalCompactOptions::default();
    universal.set_size_ratio(10);
    universal.set_max_size_amplification_percent(100);
    options.set_universal_compaction_options(&universal);
    options.set_level_zero_file_num_compaction_trigger(RUNS_MAX);
    options.set_target_file_size_base(FILE_BYTES);
    options.set_max_background_jobs(BACKGROUND_JOBS);
    options.set_max_open_files(FILES_OPEN_MAX);
    // Long writes of a compaction do not hold up the checkpoint's at their end.
    options.set_bytes_per_sync(1 << 20);
    // Copied for each checkpoint.
    options.set_max_manifest_file_size(1 << 20);
    options.set_log_level(LogLevel::Warn);
    options.set_keep_log_file_num(1);
    options.set_stats_dump_period_sec(0);
    options
}

/// Puts a checkpoint's files where they can be opened: shared where they never
/// change, copied where they do.
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
