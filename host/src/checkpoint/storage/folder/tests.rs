/// Behaves like the storage in memory.
mod model;
/// Files that are missing, cut off or changed.
mod damage;
/// Crashes, full disks, other hosts.
mod failure;
/// Measures times; run by hand.
mod measure;

use std::collections::BTreeMap;

use super::*;

const MEMORY: usize = 8 << 20;

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

fn open(folder: &tempfile::TempDir) -> FolderStorage {
    FolderStorage::open(folder.path(), MEMORY).expect("a storage")
}

fn manifest(id: CheckpointId) -> Manifest {
    Manifest {
        id,
        created_ms: id as i64 * 1_000,
        pipeline: "shop".into(),
        ..Manifest::default()
    }
}

fn puts<'a>(rows: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<Changes> {
    let mut changes = Changes::default();
    for (key, value) in rows {
        changes.put(
            |bytes| bytes.extend(key.as_bytes()),
            |bytes| bytes.extend(value.as_bytes()),
        );
    }
    vec![changes]
}

fn write(storage: &FolderStorage, id: CheckpointId, rows: &[(&str, &str)]) {
    storage
        .write(manifest(id), puts(rows.iter().copied()))
        .expect("a checkpoint");
}

/// The checkpoints that are listed, oldest first.
fn ids(storage: &FolderStorage) -> Vec<CheckpointId> {
    let listed = storage.list().expect("a list");
    listed.iter().map(|info| info.id).collect()
}

/// All current rows.
fn rows(storage: &dyn Storage) -> Vec<(String, String)> {
    let mut rows = Vec::new();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let scanned = storage.scan(b"", b"\xff\xff", &mut |key, value| {
        rows.push((text(key), text(value)));
        true
    });
    scanned.expect("rows");
    rows
}

fn pairs(rows: &[(&str, &str)]) -> Vec<(String, String)> {
    rows.iter()
        .map(|&(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

#[test]
fn checkpoints_are_written_listed_restored_and_dropped() {
    let folder = folder();
    let storage = open(&folder);
    write(&storage, 1, &[("a", "1"), ("b", "1")]);
    write(&storage, 2, &[("b", "2"), ("c", "2")]);
    let named = Manifest {
        name: Some("before-the-sale".into()),
        ..manifest(3)
    };
    storage.write(named, Vec::new()).expect("a savepoint");
    let listed = storage.list().expect("a list");
    let shown: Vec<_> = listed
        .iter()
        .map(|info| (info.id, info.name.as_deref(), info.damage.as_deref()))
        .collect();
    let name = Some("before-the-sale");
    assert_eq!(shown, [(1, None, None), (2, None, None), (3, name, None)]);

    drop(storage);
    let storage = open(&folder);
    assert_eq!(rows(&storage), [], "rows are only what was restored");
    let restored = storage.restore(1).expect("checkpoint 1");
    assert_eq!((restored.id, restored.created_ms), (1, 1_000));
    assert_eq!(rows(&storage), pairs(&[("a", "1"), ("b", "1")]));
    storage.restore(2).expect("checkpoint 2");
    assert_eq!(rows(&storage), pairs(&[("a", "1"), ("b", "2"), ("c", "2")]));

    storage.delete(2).expect("a checkpoint to drop");
    assert!(matches!(
        storage.restore(2),
        Err(StorageError::Missing { id: 2, .. })
    ));
    assert!(storage.delete(2).is_err(), "it was dropped twice");
    let got = storage.get_many(&[b"c", b"x", b"a"]).expect("values");
    assert_eq!(got, [Some(b"2".to_vec()), None, Some(b"1".to_vec())]);
}

#[test]
fn a_checkpoint_shares_the_files_that_have_not_changed() {
    use std::os::unix::fs::MetadataExt;

    let folder = folder();
    let storage = open(&folder);
    write(&storage, 1, &[("a", "1")]);
    write(&storage, 2, &[]);
    let tables = |id: CheckpointId| -> Vec<u64> {
        let entries = fs::read_dir(storage.archive.path(id)).expect("a folder");
        entries
            .map(|entry| entry.expect("an entry"))
            .filter(|entry| archive::is_immutable(&entry.file_name().to_string_lossy()))
            .map(|entry| entry.metadata().expect("metadata").ino())
            .collect()
    };
    assert_eq!(tables(1).len(), 1);
    assert_eq!(tables(1), tables(2));
}

fn names(storage: &FolderStorage, id: CheckpointId, ending: &str) -> Vec<String> {
    let manifest = storage.archive.manifest(id).expect("a checkpoint");
    let names = manifest.files.into_iter().map(|file| file.name);
    names.filter(|name| name.ends_with(ending)).collect()
}

#[test]
fn a_long_or_read_journal_goes_into_the_database() {
    let folder = folder();
    let storage = open(&folder);
    for id in 1..=40 {
        write(&storage, id, &[("a", &id.to_string())]);
    }
    assert_eq!(names(&storage, 1, ".changes").len(), 1);
    assert_eq!(names(&storage, 32, ".changes").len(), 32);
    assert_eq!(names(&storage, 32, ".sst").len(), 0);
    assert_eq!(names(&storage, 40, ".changes").len(), 7);
    assert_eq!(names(&storage, 40, ".sst").len(), 1);
    assert_eq!(rows(&storage), pairs(&[("a", "40")]));
    write(&storage, 41, &[("b", "41")]);
    assert_eq!(names(&storage, 41, ".changes").len(), 0);

    storage.restore(32).expect("checkpoint 32");
    write(&storage, 33, &[("b", "33")]);
    write(&storage, 34, &[("b", "34")]);
    storage.restore(34).expect("checkpoint 34");
    assert_eq!(rows(&storage), pairs(&[("a", "32"), ("b", "34")]));
}

#[test]
fn a_range_is_gone_from_what_was_written_before() {
    let folder = folder();
    let storage = open(&folder);
    write(&storage, 1, &[("a1", "1"), ("a2", "1"), ("b", "1")]);
    let mut changes = Changes::default();
    changes.delete_range(b"a".to_vec(), b"b".to_vec());
    changes.put(|key| key.extend(b"a2"), |value| value.extend(b"2"));
    let written = storage.write(manifest(2), vec![changes]);
    written.expect("a checkpoint");
    write(&storage, 3, &[("a3", "3")]);
    let expected = pairs(&[("a2", "2"), ("a3", "3"), ("b", "1")]);
    assert_eq!(rows(&storage), expected);
}

#[test]
fn keys_with_a_long_common_prefix_are_distinct() {
    let folder = folder();
    let storage = open(&folder);
    let long = |end: &str| format!("{}{end}", "x".repeat(40));
    let keys = [
        "",
        "\0",
        "\0\0",
        "a",
        "a\0",
        "b\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        "b",
    ];
    let mut keys: Vec<String> = keys.map(str::to_owned).to_vec();
    keys.extend([long("2"), long(""), long("1\0"), long("1"), long("10")]);
    for id in 1..=2 {
        let id_text = id.to_string();
        let written: Vec<_> = keys.iter().map(|key| (&**key, &*id_text)).collect();
        write(&storage, id, &written);
    }
    keys.sort_unstable();
    let expected: Vec<_> = keys.iter().map(|key| (&**key, "2")).collect();
    assert_eq!(rows(&storage), pairs(&expected));
}

#[test]
fn rows_are_read_while_others_are_written() {
    let folder = folder();
    let storage = open(&folder);
    write(&storage, 1, &[("a", "1"), ("b", "1")]);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for id in 2..30 {
                let value = id.to_string();
                write(&storage, id, &[("a", &value), ("b", &value)]);
                if id == 15 {
                    storage.restore(id).expect("a checkpoint");
                }
            }
            done.store(true, Ordering::Relaxed);
        });
        while !done.load(Ordering::Relaxed) {
            let got = storage.get_many(&[b"a", b"b"]).expect("values");
            assert!(got[0].is_some());
            assert_eq!(got[0], got[1], "half of a checkpoint was seen");
            assert_eq!(rows(&storage).len(), 2);
        }
    });
}

#[test]
fn a_number_that_is_written_again_replaces_what_it_was() {
    let folder = folder();
    let storage = open(&folder);
    write(&storage, 1, &[("a", "1")]);
    write(&storage, 2, &[("a", "2")]);
    storage.restore(1).expect("checkpoint 1");
    write(&storage, 2, &[("b", "2")]);
    storage.reset().expect("no rows");
    assert_eq!(rows(&storage), []);
    storage.restore(2).expect("checkpoint 2");
    assert_eq!(rows(&storage), pairs(&[("a", "1"), ("b", "2")]));
}

#[test]
fn a_checkpoint_is_looked_at_beside_the_current_rows() {
    let folder = folder();
    let storage = open(&folder);
    write(&storage, 1, &[("a", "1")]);
    write(&storage, 2, &[("a", "2"), ("b", "2")]);
    let archive = storage.archive().clone();
    let before = files_of(&archive.path(1));
    let looked = CheckpointRows::open(&archive, 1).expect("checkpoint 1");
    assert_eq!(looked.manifest.id, 1);
    assert_eq!(rows(&*looked.storage()), pairs(&[("a", "1")]));
    storage.delete(2).expect("it is there");
    write(&storage, 2, &[("c", "3")]);
    drop(looked);
    assert_eq!(files_of(&archive.path(1)), before, "as it was");
    assert_eq!(archive.verify(1).expect("whole").id, 1);
    let names = fs::read_dir(archive.folder()).expect("readable");
    let names = names.map(|entry| entry.expect("readable").file_name());
    assert_eq!(names.count(), 2, "nothing is left");
    assert!(CheckpointRows::open(&archive, 7).is_err());
}

/// The names and contents of a folder's files.
fn files_of(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = fs::read_dir(folder).expect("readable");
    files
        .map(|entry| {
            let path = entry.expect("readable").path();
            let bytes = fs::read(&path).expect("readable");
            (path, bytes)
        })
        .collect()
}

#[test]
fn held_files_outlive_their_checkpoint() {
    let folder = folder();
    let storage = open(&folder);
    write(&storage, 1, &[("a", "1")]);
    let held = storage.archive.hold(1).expect("checkpoint 1");
    storage.delete(1).expect("a checkpoint to drop");
    for file in &held.manifest.files {
        let kept = fs::metadata(held.folder.join(&file.name)).expect("a file");
        assert_eq!(kept.len(), file.bytes);
    }
    let place = held.folder.clone();
    drop(held);
    assert!(!place.exists());
}

/// As windows do: each checkpoint has rows behind all others, and deletes what it had twelve
/// checkpoints ago.
fn write_in_order_of_time(storage: &FolderStorage, ids: std::ops::Range<u64>, value: &[u8]) {
    for id in ids {
        let mut changes = Changes::default();
        for row in 0..4_u64 {
            changes.put(
                |bytes| bytes.extend([id.to_be_bytes(), row.to_be_bytes()].concat()),
                |bytes| bytes.extend(value),
            );
        }
        let end = id.saturating_sub(12);
        changes.delete_range(vec![0; 8], end.to_be_bytes().to_vec());
        storage
            .write(manifest(id), vec![changes])
            .expect("a checkpoint");
        if let Some(old) = id.checked_sub(2).filter(|id| *id > 0) {
            storage.delete(old).expect("it is there");
        }
        // What is read goes into the database first.
        let kept = storage.get_many(&[&[end.to_be_bytes(), [0; 8]].concat()]);
        assert_eq!(kept.expect("it reads")[0].is_some(), end > 0);
    }
}

/// The number and the bytes of files of the current rows.
fn files_of_rows(folder: &tempfile::TempDir) -> (usize, u64) {
    let live = fs::read_dir(folder.path().join("live")).expect("it is there");
    let databases = live.filter_map(|found| Some(found.ok()?.path()));
    let databases = databases.filter(|path| path.is_dir() && path.extension().is_none());
    let files = databases.flat_map(|path| fs::read_dir(path).expect("it is there"));
    let files = files.filter_map(|found| Some(found.ok()?.path()));
    let files: Vec<u64> = files
        .filter(|path| path.extension().is_some_and(|extension| extension == "sst"))
        .filter_map(|path| Some(path.metadata().ok()?.len()))
        .collect();
    (files.len(), files.iter().sum())
}

#[test]
fn the_files_of_deleted_rows_go() {
    let folder = folder();
    let mut storage = open(&folder);
    let mut most = 0;
    for part in 0..3 {
        let first = 1 + 110 * part;
        write_in_order_of_time(&storage, first..first + 110, b"small");
        most = most.max(files_of_rows(&folder).0);
        // Also where it is restored again and again.
        drop(storage);
        storage = open(&folder);
        storage.restore(first + 109).expect("it is there");
    }
    assert!(most < 220, "{most} files of 48 rows");
    let expected: Vec<u64> = (318..=330).flat_map(|id| [id; 4]).collect();
    let mut found = Vec::new();
    let scanned = storage.scan(&[0; 8], &[0xff; 8], &mut |key, _| {
        found.push(u64::from_be_bytes(key[..8].try_into().expect("eight")));
        true
    });
    scanned.expect("it reads");
    assert_eq!(found, expected);
}

#[test]
fn the_bytes_of_deleted_rows_go() {
    let folder = folder();
    let storage = open(&folder);
    // It cannot be compressed.
    let value: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..))
        .take(1 << 20)
        .collect();
    let mut most = 0;
    for part in 0..20 {
        let first = 1 + 10 * part;
        write_in_order_of_time(&storage, first..first + 10, &value);
        most = most.max(files_of_rows(&folder).1);
    }
    // 48 MiB of rows, and 800 MiB that were written.
    assert!(most < 400 << 20, "{} MiB", most >> 20);
}
