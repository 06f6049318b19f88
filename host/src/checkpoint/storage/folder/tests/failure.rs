use std::fs;
use std::process::Command;

use super::*;

#[test]
fn a_second_host_is_refused_and_told_the_owner() {
    let folder = folder();
    let first = open(&folder);
    let Err(refused) = FolderStorage::open(folder.path(), MEMORY) else {
        panic!("two hosts have one folder");
    };
    let said = refused.to_string();
    let pid = std::process::id();
    let expected = format!("another host (process {pid}) keeps its state in ");
    assert!(said.starts_with(&expected), "{said}");
    assert!(said.contains("a folder of its own by `path`"), "{said}");
    assert_eq!(FolderLock::owner(folder.path()), Some(pid.to_string()));
    drop(first);
    assert_eq!(FolderLock::owner(folder.path()), None);
    open(&folder);
}

#[test]
fn what_crashes_leave_over_is_removed() {
    let folder = folder();
    let storage = open(&folder);
    write(&storage, 1, &[("a", "1")]);
    drop(storage);
    let left_over = [
        "live/3/000009.sst",
        "checkpoints/.writing-2/sluicebox.manifest",
        "checkpoints/.writing-2.tmp/CURRENT",
        "checkpoints/.deleting-1/CURRENT",
        "checkpoints/.held-1-0/000009.sst",
    ];
    for file in left_over {
        let path = folder.path().join(file);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, "half").expect("a file");
    }
    let storage = open(&folder);
    for file in left_over {
        assert!(!folder.path().join(file).exists(), "{file} is still there");
    }
    storage.restore(1).expect("checkpoint 1");
    assert_eq!(rows(&storage), pairs(&[("a", "1")]));
}

#[test]
fn a_folder_that_cannot_be_made_says_what_to_do() {
    let folder = folder();
    let file = folder.path().join("file");
    fs::write(&file, "").expect("a file");
    let Err(refused) = FolderStorage::open(&file.join("state"), MEMORY) else {
        panic!("a folder was made in a file");
    };
    let said = refused.to_string();
    assert!(said.starts_with("cannot make the folder "), "{said}");
    assert!(
        said.ends_with("choose another folder by `path` in [state]"),
        "{said}"
    );
}

#[test]
fn a_write_that_fails_can_be_tried_again() {
    let folder = folder();
    let storage = open(&folder);
    write(&storage, 1, &[("a", "1")]);
    // Nothing can be made there.
    let checkpoints = folder.path().join("checkpoints");
    let away = folder.path().join("away");
    fs::rename(&checkpoints, &away).expect("a folder to move");
    fs::write(&checkpoints, "").expect("a file");
    let changes = || puts([("b", "2")]);
    storage
        .write(manifest(2), changes())
        .expect_err("a file is no folder");
    fs::remove_file(&checkpoints).expect("a file to remove");
    fs::rename(&away, &checkpoints).expect("a folder to move");

    storage.restore(1).expect("the last good one");
    assert_eq!(rows(&storage), pairs(&[("a", "1")]));
    storage.write(manifest(2), changes()).expect("a checkpoint");
    assert_eq!(rows(&storage), pairs(&[("a", "1"), ("b", "2")]));
    storage.restore(2).expect("checkpoint 2");
}

const FOLDER: &str = "SLUICEBOX_TEST_FULL_DISK";

/// In a process of its own that may write no file of more than 64 KiB: as on a
/// full disk, a file is cut off in its midst.
#[test]
fn a_full_disk_leaves_the_last_checkpoint() {
    let folder = folder();
    if let Some(folder) = std::env::var_os(FOLDER) {
        return write_until_full(Path::new(&folder));
    }
    let this = std::env::current_exe().expect("the test's own path");
    let name =
        "checkpoint::storage::folder::tests::failure::a_full_disk_leaves_the_last_checkpoint";
    // Blocks of 512 bytes (or 1 KiB, in some shells).
    let script = "trap '' XFSZ; ulimit -f 128; exec \"$0\" --exact \"$1\" --nocapture";
    let output = Command::new("sh")
        .args(["-c", script])
        .arg(this)
        .arg(name)
        .env(FOLDER, folder.path())
        .output()
        .expect("a process");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let failed = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{failed}");
    assert!(said.contains("make room there"), "{said}\n{failed}");

    let storage = open(&folder);
    assert_eq!(ids(&storage), [1]);
    storage.restore(1).expect("the last good one");
    assert_eq!(rows(&storage), pairs(&[("a", "1")]));
}

fn write_until_full(folder: &Path) {
    let storage = FolderStorage::open(folder, MEMORY).expect("a storage");
    write(&storage, 1, &[("a", "1")]);
    let mut changes = Changes::default();
    let mut random = fastrand::Rng::with_seed(1);
    for _ in 0..20_000 {
        changes.put(
            |bytes| bytes.extend(random.u64(..).to_be_bytes()),
            |bytes| bytes.extend(b"value of a row"),
        );
    }
    let refused = storage
        .write(manifest(2), vec![changes])
        .expect_err("the disk is full");
    println!("{refused}");
    assert_eq!(storage.list().expect("a list").len(), 1);
    storage.restore(1).expect("the last good one, here too");
    write(&storage, 2, &[("b", "2")]);
    storage.delete(2).expect("a checkpoint to drop");
}

const CRASH: &str = "SLUICEBOX_TEST_CRASH";

/// In a process of its own that is killed in its third checkpoint.
#[test]
fn a_crash_leaves_a_checkpoint_whole_or_not_at_all() {
    if let Some(folder) = std::env::var_os(CRASH) {
        let storage = FolderStorage::open(Path::new(&folder), MEMORY).expect("a storage");
        for id in 1..=3 {
            let value = id.to_string();
            write(&storage, id, &[("a", &value), (&value, "x")]);
        }
        panic!("it did not crash");
    }
    let this = std::env::current_exe().expect("the test's own path");
    let name = "checkpoint::storage::folder::tests::failure::\
                a_crash_leaves_a_checkpoint_whole_or_not_at_all";
    for place in ["write_before", "manifest_before", "manifest_after"] {
        let folder = folder();
        let output = Command::new(&this)
            .args(["--exact", name])
            .env(CRASH, folder.path())
            .env("SLUICEBOX_CRASH_AT", format!("{place}:3"))
            .output()
            .expect("a process");
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), None, "it was not killed: {said}");

        let storage = open(&folder);
        assert_eq!(ids(&storage), [1, 2], "{place}");
        storage.restore(2).expect("the last whole one");
        assert_eq!(rows(&storage), pairs(&[("1", "x"), ("2", "x"), ("a", "2")]));
        write(&storage, 3, &[("a", "3")]);
        storage.restore(3).expect("it was written anew");
    }
}
