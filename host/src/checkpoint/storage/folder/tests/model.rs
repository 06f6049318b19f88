use proptest::prelude::*;

use super::*;
use crate::checkpoint::storage::memory::MemoryStorage;

#[derive(Clone, Debug)]
enum Step {
    Write(Vec<Vec<Change>>),
    /// The same number as the last one.
    WriteAgain(Vec<Vec<Change>>),
    Restore(prop::sample::Index),
    Delete(prop::sample::Index),
    Reset,
    Scan(Vec<u8>, Vec<u8>, usize),
    /// At everything: what is only written for long is kept in another way.
    Look,
    Reopen,
}

#[derive(Clone, Debug)]
enum Change {
    Put(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
    Range(Vec<u8>, Vec<u8>),
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_folder_does_what_memory_does(steps in prop::collection::vec(steps(), 1..24)) {
        let folder = folder();
        let mut storage = Some(open(&folder));
        let memory = MemoryStorage::new();
        let mut ids = 0;
        for step in steps {
            let open_one = storage.as_ref().expect("it is always opened again");
            match step {
                Step::Write(changes) => {
                    ids += 1;
                    open_one.write(manifest(ids), given(&changes)).expect("a checkpoint");
                    memory.write(manifest(ids), given(&changes)).expect("a checkpoint");
                }
                Step::WriteAgain(changes) => {
                    open_one.write(manifest(ids), given(&changes)).expect("a checkpoint");
                    memory.write(manifest(ids), given(&changes)).expect("a checkpoint");
                }
                Step::Restore(which) => {
                    let id = which.index(ids as usize + 2) as CheckpointId;
                    let found = open_one.restore(id).map(without_files).ok();
                    prop_assert_eq!(found, memory.restore(id).ok());
                }
                Step::Delete(which) => {
                    let id = which.index(ids as usize + 2) as CheckpointId;
                    prop_assert_eq!(open_one.delete(id).is_ok(), memory.delete(id).is_ok());
                }
                Step::Reset => {
                    open_one.reset().expect("no rows");
                    memory.reset().expect("no rows");
                }
                Step::Scan(from, to, rows) => {
                    let one = scanned(open_one, &from, &to, rows);
                    prop_assert_eq!(one, scanned(&memory, &from, &to, rows));
                }
                Step::Look => look(open_one, &memory)?,
                Step::Reopen => {
                    drop(storage.take());
                    storage = Some(open(&folder));
                    memory.reset().expect("no rows");
                }
            }
            let storage = storage.as_ref().expect("it is always opened again");
            let (one, other) = (ids_of(storage), ids_of(&memory));
            prop_assert_eq!(one, other);
        }
        let storage = storage.expect("it is always opened again");
        look(&storage, &memory)?;
        for (id, ..) in ids_of(&memory) {
            storage.restore(id).expect("a checkpoint");
            memory.restore(id).expect("a checkpoint");
            look(&storage, &memory)?;
        }
    }
}

fn look(one: &dyn Storage, other: &dyn Storage) -> Result<(), TestCaseError> {
    let all = |storage| scanned(storage, b"", b"\xff", usize::MAX);
    prop_assert_eq!(all(one), all(other));
    let keys: Vec<Vec<u8>> = (0..4)
        .flat_map(|a| (0..4).map(move |b| vec![a, b]))
        .collect();
    let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
    let values = |storage: &dyn Storage| storage.get_many(&keys).expect("values");
    prop_assert_eq!(values(one), values(other));
    Ok(())
}

fn steps() -> impl Strategy<Value = Step> {
    let key = || prop::collection::vec(0..4_u8, 0..3);
    let value = prop::collection::vec(any::<u8>(), 0..20);
    let change = prop_oneof![
        8 => (key(), value).prop_map(|(key, value)| Change::Put(key, value)),
        3 => key().prop_map(Change::Delete),
        1 => (key(), key()).prop_map(|(from, to)| Change::Range(from, to)),
    ];
    let changes = prop::collection::vec(prop::collection::vec(change, 0..12), 0..3);
    prop_oneof![
        8 => changes.clone().prop_map(Step::Write),
        1 => changes.prop_map(Step::WriteAgain),
        2 => any::<prop::sample::Index>().prop_map(Step::Restore),
        1 => any::<prop::sample::Index>().prop_map(Step::Delete),
        1 => Just(Step::Reset),
        2 => Just(Step::Look),
        2 => (key(), key(), 0..5_usize).prop_map(|(from, to, rows)| Step::Scan(from, to, rows)),
        1 => Just(Step::Reopen),
    ]
}

fn given(changes: &[Vec<Change>]) -> Vec<Changes> {
    let one = |changes: &Vec<Change>| {
        let mut given = Changes::default();
        for change in changes {
            match change {
                Change::Put(key, value) => {
                    given.put(|bytes| bytes.extend(key), |bytes| bytes.extend(value));
                }
                Change::Delete(key) => given.delete(|bytes| bytes.extend(key)),
                Change::Range(from, to) => given.delete_range(from.clone(), to.clone()),
            }
        }
        given
    };
    changes.iter().map(one).collect()
}

fn scanned(storage: &dyn Storage, from: &[u8], to: &[u8], most: usize) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut rows = Vec::new();
    let scanned = storage.scan(from, to, &mut |key, value| {
        rows.push((key.to_vec(), value.to_vec()));
        rows.len() < most
    });
    scanned.expect("rows");
    rows
}

fn ids_of(storage: &dyn Storage) -> Vec<(CheckpointId, i64, Option<String>)> {
    let list = storage.list().expect("a list");
    let one = |info: CheckpointInfo| (info.id, info.created_ms, info.damage);
    list.into_iter().map(one).collect()
}

fn without_files(manifest: Manifest) -> Manifest {
    Manifest {
        files: Vec::new(),
        ..manifest
    }
}
