use proptest::prelude::*;

use super::*;
use crate::checkpoint::snapshot::{PartitionSnapshot, PartitionState, Position};

/// Version 1 as it was first written: kept for ever.
const V1: &[u8] = include_bytes!("v1.manifest");

/// What is in that file.
fn v1() -> Manifest {
    let partition = |name: &str, offset, state| PartitionSnapshot {
        name: name.into(),
        position: Position {
            offset,
            rows: Some(offset / 100),
            is_in_row: offset > 0,
            start_ms: None,
        },
        newest_ms: Some(1_704_103_200_000),
        state,
    };
    let source = SourceSnapshot {
        partitions: vec![
            partition("events.jsonl", 8_192, PartitionState::Speaking),
            partition("events-2.jsonl", 0, PartitionState::Idle),
        ],
        turn: Some(("events.jsonl".into(), 12)),
        ingested_ms: None,
    };
    let aggregate = AggregateManifest {
        table: 3,
        operator: "cart.added".into(),
        digest: "sha256:5f70bf18a086".into(),
        key: vec!["user_id: utf8".into()],
        state: vec!["items: int64".into(), "total: float64".into()],
        window: "tumbling 60000 ms, event time".into(),
        time_ms: Some(1_704_103_140_000),
    };
    let sink = SinkSnapshot {
        bytes: Some(4_096),
        staged: vec![("out/.part-7".into(), "out/part-7".into())],
    };
    let node = |name: &str, kind| NodeManifest {
        name: name.into(),
        kind,
    };
    Manifest {
        id: 17,
        name: Some("before-the-sale".into()),
        created_ms: 1_704_103_201_234,
        pipeline: "shop".into(),
        is_complete: false,
        is_transactional: true,
        nodes: vec![
            node(
                "actions",
                NodeManifestKind::Source {
                    tasks: vec![source, SourceSnapshot::default()],
                },
            ),
            node("added", NodeManifestKind::Aggregate(aggregate)),
            node("out", NodeManifestKind::Sink(sink)),
        ],
        dead_letter_bytes: Some(0),
        files: vec![FileManifest {
            name: "000012.sst".into(),
            bytes: 1_048_576,
            checksum: "00c0ffee00c0ffee".into(),
        }],
    }
}

#[test]
fn the_first_version_reads_the_same_for_ever() {
    assert_eq!(Manifest::decode(V1), Ok(v1()));
}

#[test]
fn the_first_version_is_written_the_same() {
    let written = v1().encode();
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/src/checkpoint/manifest/v1.manifest"
        );
        std::fs::write(path, &written).expect("the fixture");
    }
    assert_eq!(
        String::from_utf8_lossy(&written),
        String::from_utf8_lossy(V1),
        "a change to the format needs a new version; the old fixture stays"
    );
}

#[test]
fn a_foreign_file_is_no_manifest() {
    for bytes in [
        &b""[..],
        b"{}",
        b"sluicebox chec",
        b"sluicebox checkpoint x\n",
    ] {
        assert_eq!(Manifest::decode(bytes), Err(ManifestError::Foreign));
    }
}

#[test]
fn files_are_nowhere_else() {
    for name in ["../7/000012.sst", "/etc/passwd", "..", ""] {
        let mut manifest = v1();
        manifest.files[0].name = name.into();
        let read = Manifest::decode(&manifest.encode());
        assert!(matches!(read, Err(ManifestError::Content(_))), "{read:?}");
    }
}

#[test]
fn a_newer_version_says_what_to_do() {
    let error = Manifest::decode(b"sluicebox checkpoint 2 lz4 whatever\n\0\0").expect_err("newer");
    assert_eq!(error, ManifestError::Newer { found: 2 });
    assert!(error.to_string().contains("a newer one"), "{error}");
}

#[test]
fn every_truncation_is_found() {
    for length in 0..V1.len() {
        let read = Manifest::decode(&V1[..length]);
        assert!(read.is_err(), "{length} bytes were taken for a manifest");
    }
    let mut longer = V1.to_vec();
    longer.push(b' ');
    assert!(matches!(
        Manifest::decode(&longer),
        Err(ManifestError::TooLong { .. })
    ));
}

#[test]
fn every_changed_byte_is_found() {
    for at in 0..V1.len() {
        let mut changed = V1.to_vec();
        changed[at] ^= 0x01;
        let read = Manifest::decode(&changed);
        assert!(read.is_err(), "byte {at} was changed and nobody noticed");
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read(manifest in manifests()) {
        prop_assert_eq!(Manifest::decode(&manifest.encode()), Ok(manifest));
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
        let _ = Manifest::decode(&bytes);
        let mut file = b"sluicebox checkpoint 1 ".to_vec();
        file.extend(&bytes);
        prop_assert!(Manifest::decode(&file).is_err());
    }
}

fn manifests() -> impl Strategy<Value = Manifest> {
    let head = (
        any::<u64>(),
        any::<Option<String>>(),
        any::<i64>(),
        any::<String>(),
    );
    let rest = (any::<(bool, bool)>(), any::<Option<u64>>());
    let nodes = prop::collection::vec(nodes(), 0..4);
    let files = prop::collection::vec(("[a-z0-9][a-z0-9.-]{0,9}", any::<(u64, String)>()), 0..4);
    (head, rest, nodes, files).prop_map(|(head, rest, nodes, files)| {
        let file = |(name, (bytes, checksum))| FileManifest {
            name,
            bytes,
            checksum,
        };
        Manifest {
            id: head.0,
            name: head.1,
            created_ms: head.2,
            pipeline: head.3,
            is_complete: rest.0.0,
            is_transactional: rest.0.1,
            nodes,
            dead_letter_bytes: rest.1,
            files: files.into_iter().map(file).collect(),
        }
    })
}

fn nodes() -> impl Strategy<Value = NodeManifest> {
    let aggregate = (
        any::<u32>(),
        any::<(String, String, String)>(),
        any::<(Vec<String>, Vec<String>)>(),
        any::<Option<i64>>(),
    )
        .prop_map(|(table, texts, fields, time_ms)| {
            NodeManifestKind::Aggregate(AggregateManifest {
                table,
                operator: texts.0,
                digest: texts.1,
                key: fields.0,
                state: fields.1,
                window: texts.2,
                time_ms,
            })
        });
    let sink = any::<(Option<u64>, Vec<(String, String)>)>()
        .prop_map(|(bytes, staged)| NodeManifestKind::Sink(SinkSnapshot { bytes, staged }));
    let source =
        prop::collection::vec(sources(), 0..3).prop_map(|tasks| NodeManifestKind::Source { tasks });
    (any::<String>(), prop_oneof![source, aggregate, sink])
        .prop_map(|(name, kind)| NodeManifest { name, kind })
}

fn sources() -> impl Strategy<Value = SourceSnapshot> {
    let state = prop_oneof![
        Just(PartitionState::Speaking),
        Just(PartitionState::Idle),
        Just(PartitionState::Ended),
    ];
    let position = any::<(u64, Option<u64>, bool, Option<i64>)>().prop_map(
        |(offset, rows, is_in_row, start_ms)| Position {
            offset,
            rows,
            is_in_row,
            start_ms,
        },
    );
    let partition = (any::<String>(), position, any::<Option<i64>>(), state).prop_map(
        |(name, position, newest_ms, state)| PartitionSnapshot {
            name,
            position,
            newest_ms,
            state,
        },
    );
    let partitions = prop::collection::vec(partition, 0..3);
    (
        partitions,
        any::<Option<(String, u64)>>(),
        any::<Option<i64>>(),
    )
        .prop_map(|(partitions, turn, ingested_ms)| SourceSnapshot {
            partitions,
            turn,
            ingested_ms,
        })
}
