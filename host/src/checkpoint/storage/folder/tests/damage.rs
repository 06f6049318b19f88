use std::fs;

use super::*;

/// Damages the second of two checkpoints by `harm`, and returns the messages when it
/// is listed and restored.
fn damaged(harm: impl FnOnce(&Path)) -> (Option<String>, String) {
    let folder = folder();
    let storage = open(&folder);
    write(&storage, 1, &[("a", "1")]);
    write(&storage, 2, &[("a", "2"), ("b", "2")]);
    drop(storage);
    harm(&folder.path().join("checkpoints/2"));

    let storage = open(&folder);
    let listed = storage.list().expect("a list");
    assert_eq!(listed[0].damage, None, "the first is whole");
    let refused = storage.restore(2).expect_err("a damaged checkpoint");
    assert!(matches!(refused, StorageError::Damaged { id: 2, .. }));
    storage.restore(1).expect("the one before");
    assert_eq!(rows(&storage), pairs(&[("a", "1")]));
    write(&storage, 2, &[("a", "3")]);
    storage.restore(2).expect("it was written anew");
    (listed[1].damage.clone(), refused.to_string())
}

/// The file that the second checkpoint does not share with the first.
fn newest_file(folder: &Path) -> PathBuf {
    let entries = fs::read_dir(folder).expect("a folder");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let files = paths.filter(|path| path.extension().is_some_and(|end| end == "changes"));
    files.max().expect("a file of changes")
}

#[test]
fn a_file_is_missing() {
    let (listed, refused) = damaged(|folder| {
        fs::remove_file(newest_file(folder)).expect("a file to remove");
    });
    let listed = listed.expect("damage");
    assert!(listed.ends_with(".changes is missing"), "{listed}");
    assert_eq!(refused, format!("checkpoint 2 is damaged: {listed}"));
}

#[test]
fn a_file_is_short() {
    let (listed, _) = damaged(|folder| {
        let newest = newest_file(folder);
        let bytes = fs::read(&newest).expect("a file");
        fs::write(&newest, &bytes[..30]).expect("a shorter file");
    });
    let listed = listed.expect("damage");
    assert!(
        listed.contains(".changes has 30 bytes instead of "),
        "{listed}"
    );
}

#[test]
fn a_bit_has_flipped() {
    let (listed, refused) = damaged(|folder| {
        let newest = newest_file(folder);
        let mut bytes = fs::read(&newest).expect("a file");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x10;
        fs::write(&newest, &bytes).expect("a changed file");
    });
    assert_eq!(listed, None, "a list does not read whole files");
    assert!(refused.contains(".changes has the checksum "), "{refused}");
    assert!(refused.ends_with("its content has changed"), "{refused}");
}

#[test]
fn the_manifest_is_missing() {
    let (listed, _) = damaged(|folder| {
        fs::remove_file(folder.join("sluicebox.manifest")).expect("a file to remove");
    });
    let said = "its manifest (sluicebox.manifest) is missing";
    assert_eq!(listed.as_deref(), Some(said));
}

#[test]
fn the_manifest_is_cut_short() {
    let (listed, _) = damaged(|folder| {
        let path = folder.join("sluicebox.manifest");
        let bytes = fs::read(&path).expect("a file");
        fs::write(&path, &bytes[..bytes.len() - 7]).expect("a shorter file");
    });
    let listed = listed.expect("damage");
    assert!(
        listed.starts_with("sluicebox.manifest: it is cut short"),
        "{listed}"
    );
}

#[test]
fn the_manifest_is_that_of_another() {
    let (listed, _) = damaged(|folder| {
        let other = folder.with_file_name("1").join("sluicebox.manifest");
        fs::copy(other, folder.join("sluicebox.manifest")).expect("a copy");
    });
    let listed = listed.expect("damage");
    assert_eq!(listed, "sluicebox.manifest: it is that of checkpoint 1");
}

#[test]
fn only_checkpoints_are_listed() {
    let folder = folder();
    let storage = open(&folder);
    write(&storage, 1, &[("a", "1")]);
    for name in ["notes", "007", "-1", "1e3"] {
        fs::create_dir(folder.path().join("checkpoints").join(name)).expect("a folder");
    }
    assert_eq!(ids(&storage), [1]);
}
