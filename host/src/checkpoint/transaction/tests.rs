use super::memory::{Lost, MemoryTransaction};
use super::*;
use crate::topic::MemoryTopic;

fn participants(all: [&Arc<MemoryTransaction>; 2]) -> Participants {
    let mut participants = Participants::default();
    for one in all {
        participants.add(one.clone());
    }
    participants
}

fn memory(name: &str) -> MemoryTransaction {
    MemoryTransaction::new(vec![Arc::new(MemoryTopic::default())]).named(name)
}

fn checkpoint(participants: &Participants, id: CheckpointId) -> Result<Manifest, TransactionError> {
    participants.begin()?;
    participants.prepare(id)?;
    let manifest = Manifest {
        id,
        participants: participants.names(),
        ..Manifest::default()
    };
    participants.commit(&manifest)?;
    Ok(manifest)
}

#[test]
fn those_that_lose_rows_with_the_process_commit_first() {
    let (lasting, broker) = (
        Arc::new(memory("database").lasting()),
        Arc::new(memory("broker")),
    );
    assert_eq!(
        participants([&lasting, &broker]).names(),
        ["broker", "database"]
    );
}

#[test]
fn a_participant_that_is_behind_commits_what_it_was_prepared_with() {
    let (broker, database) = (
        Arc::new(memory("broker")),
        Arc::new(memory("database").lasting()),
    );
    let all = participants([&broker, &database]);
    let first = checkpoint(&all, 1).expect("both commit");
    assert_eq!(
        all.fence(&Stop::default()).expect("a fence").newest(),
        Some(1)
    );

    database.lose(Lost::Request);
    checkpoint(&all, 2).expect_err("the second one's commit is lost");
    let committed = all.fence(&Stop::default()).expect("a fence");
    assert_eq!(committed, Committed(vec![Some(2), Some(1)]));
    let second = Manifest {
        id: 2,
        ..first.clone()
    };
    assert_eq!(all.disagreement(&committed, &second), None);
    all.settle(&committed, Some(&second)).expect("it can");
    assert_eq!(
        all.fence(&Stop::default()).expect("a fence"),
        Committed(vec![Some(2), Some(2)])
    );
}

#[test]
fn what_nobody_has_committed_never_happened() {
    let (broker, database) = (
        Arc::new(memory("broker")),
        Arc::new(memory("database").lasting()),
    );
    let all = participants([&broker, &database]);
    let first = checkpoint(&all, 1).expect("both commit");
    broker.lose(Lost::Request);
    checkpoint(&all, 2).expect_err("the first one's commit is lost");
    let committed = all.fence(&Stop::default()).expect("a fence");
    assert_eq!(committed, Committed(vec![Some(1), Some(1)]));
    all.settle(&committed, Some(&first)).expect("nothing to do");
    let later = Manifest { id: 2, ..first };
    database.commit_later(&later).expect_err("it was forgotten");
}

#[test]
fn two_participants_that_lose_rows_disagree() {
    let (left, right) = (Arc::new(memory("left")), Arc::new(memory("right")));
    let all = participants([&left, &right]);
    let first = checkpoint(&all, 1).expect("both commit");
    right.lose(Lost::Request);
    checkpoint(&all, 2).expect_err("the second one's commit is lost");
    let committed = all.fence(&Stop::default()).expect("a fence");
    let second = Manifest { id: 2, ..first };
    let said = all
        .disagreement(&committed, &second)
        .expect("they disagree");
    assert!(
        said.starts_with("left has committed checkpoint 2, and right only checkpoint 1"),
        "{said}"
    );
}

#[test]
fn a_new_participant_is_not_behind() {
    let (left, right) = (Arc::new(memory("left")), Arc::new(memory("right")));
    let mut alone = Participants::default();
    alone.add(left.clone());
    let first = checkpoint(&alone, 1).expect("it commits");
    let all = participants([&left, &right]);
    let committed = all.fence(&Stop::default()).expect("a fence");
    assert_eq!(all.disagreement(&committed, &first), None);
}

#[test]
fn sinks_find_what_they_write_with_by_its_type() {
    let left = Arc::new(memory("left"));
    let mut all = Participants::default();
    assert!(all.handle::<MemoryTransaction>().is_none());
    all.add(left);
    assert_eq!(
        all.handle::<MemoryTransaction>()
            .expect("it is there")
            .name(),
        "left"
    );
    assert!(all.handle::<String>().is_none());
}
