use proptest::prelude::*;

use super::*;
use crate::checkpoint::snapshot::{
    PartSnapshot, PartitionSnapshot, PartitionState, PartsSnapshot, Position, RowNumbers,
};
use crate::plan::change::{ConnectorDescription, NodeClass, OperatorDescription};
use crate::plan::{Alignment, Emit, JoinKind, JoinRule, Matching, TimeDomain, Version, Window};
use crate::state::spec::{RowKind, TableSpec};
use crate::timestamp::zone::Zone;

/// Version 2 as it was first written: kept for ever.
const FIXTURE: &[u8] = include_bytes!("v2.manifest");

/// What is in that file.
fn fixture() -> Manifest {
    let partition = |name: &str, offset, state| PartitionSnapshot {
        name: name.into(),
        position: Position {
            offset,
            sequence: None,
            rows: Some(offset / 100),
            is_in_row: offset > 0,
            is_in_quotes: false,
            start_ms: None,
        },
        newest_ms: Some(1_704_103_200_000),
        state,
        digest: None,
        kept: None,
    };
    let source = SourceSnapshot {
        partitions: vec![
            partition("events.jsonl", 8_192, PartitionState::Active),
            partition("events-2.jsonl", 0, PartitionState::Idle),
        ],
        turn: Some(("events.jsonl".into(), 12)),
        ingested_ms: None,
    };
    let window = Window::Tumbling {
        size_ms: 60_000,
        time: TimeDomain::Event,
        alignment: Alignment::default(),
    };
    let windows = TableSpec {
        role: "windows".into(),
        key: vec!["user_id: utf8".into()],
        state: vec!["items: int64".into(), "total: float64".into()],
        rows: RowKind {
            kind: "tumbling".into(),
            version: 1,
        },
    };
    let added = NodeDescription {
        name: "added".into(),
        class: NodeClass::Aggregate,
        inputs: vec!["actions".into()],
        ports: Vec::new(),
        output: vec!["user_id: utf8".into(), "total: float64".into()],
        operator: Some(OperatorDescription {
            name: "cart.added".into(),
            digest: "sha256:5f70bf18a086".into(),
            arguments: vec!["least = 3".into()],
        }),
        connector: None,
        window: Some(window),
        join: None,
        ttl: None,
        emit: Emit::Change,
        tables: vec![windows],
        earlier: Vec::new(),
    };
    let operator = OperatorManifest {
        tables: vec![3],
        time_ms: Some(1_704_103_140_000),
        ..OperatorManifest::default()
    };
    let sink = SinkSnapshot {
        bytes: Some(4_096),
        digest: None,
        staged: vec![("out/.part-7".into(), "out/part-7".into())],
        obsolete: Vec::new(),
        ..SinkSnapshot::default()
    };
    let node = |name: &str, class, progress| NodeManifest {
        description: NodeDescription {
            name: name.into(),
            class,
            ..NodeDescription::default()
        },
        progress,
    };
    Manifest {
        id: 17,
        name: Some("before-the-sale".into()),
        created_ms: 1_704_103_201_234,
        pipeline: "shop".into(),
        purpose: Purpose::Savepoint,
        participants: vec!["kafka".into()],
        nodes: vec![
            node(
                "actions",
                NodeClass::Source,
                ProgressManifest::Source(vec![source, SourceSnapshot::default()]),
            ),
            node("clean", NodeClass::Transform, ProgressManifest::Nothing),
            NodeManifest {
                description: added,
                progress: ProgressManifest::Operator(operator),
            },
            node("out", NodeClass::Sink, ProgressManifest::Sink(sink)),
        ],
        dead_letter_bytes: Some(0),
        dead_letters: None,
        given_up: Vec::new(),
        left_bytes: 0,
        files: vec![FileManifest {
            name: "000012.sst".into(),
            bytes: 1_048_576,
            checksum: "00c0ffee00c0ffee".into(),
        }],
    }
}

#[test]
fn version_2_reads_the_same_for_ever() {
    assert_eq!(Manifest::decode(FIXTURE), Ok(fixture()));
}

#[test]
fn version_2_is_written_the_same() {
    let written = fixture().encode();
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/src/checkpoint/manifest/v2.manifest"
        );
        std::fs::write(path, &written).expect("the fixture");
    }
    assert_eq!(
        String::from_utf8_lossy(&written),
        String::from_utf8_lossy(FIXTURE),
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
        let mut manifest = fixture();
        manifest.files[0].name = name.into();
        let read = Manifest::decode(&manifest.encode());
        assert!(matches!(read, Err(ManifestError::Content(_))), "{read:?}");
    }
}

#[test]
fn a_newer_version_says_what_to_do() {
    let error = Manifest::decode(b"sluicebox checkpoint 3 lz4 whatever\n\0\0").expect_err("newer");
    assert_eq!(error, ManifestError::Newer { found: 3 });
    assert!(error.to_string().contains("a newer one"), "{error}");
}

#[test]
fn every_truncation_is_found() {
    for length in 0..FIXTURE.len() {
        let read = Manifest::decode(&FIXTURE[..length]);
        assert!(read.is_err(), "{length} bytes were taken for a manifest");
    }
    let mut longer = FIXTURE.to_vec();
    longer.push(b' ');
    assert!(matches!(
        Manifest::decode(&longer),
        Err(ManifestError::TooLong { .. })
    ));
}

#[test]
fn every_changed_byte_is_found() {
    for at in 0..FIXTURE.len() {
        let mut changed = FIXTURE.to_vec();
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
        let mut file = b"sluicebox checkpoint 2 ".to_vec();
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
    let rest = (
        (purposes(), any::<Vec<String>>()),
        any::<(
            Option<u64>,
            Option<(i64, Option<String>, Vec<(String, u64, Option<String>)>)>,
            u64,
        )>(),
        any::<Vec<(u64, u64)>>(),
    );
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
            purpose: rest.0.0,
            participants: rest.0.1,
            nodes,
            dead_letter_bytes: rest.1.0,
            dead_letters: rest.1.1.map(|(started_ms, place, after)| LettersManifest {
                started_ms,
                place,
                taken_back: after
                    .into_iter()
                    .map(|(pipeline, checkpoint, place)| LettersAfter {
                        pipeline,
                        checkpoint,
                        place,
                    })
                    .collect(),
            }),
            given_up: rest
                .2
                .into_iter()
                .map(|(behind, until)| GivenUp { behind, until })
                .collect(),
            left_bytes: rest.1.2,
            files: files.into_iter().map(file).collect(),
        }
    })
}

fn purposes() -> impl Strategy<Value = Purpose> {
    prop_oneof![
        Just(Purpose::Start),
        Just(Purpose::Interval),
        Just(Purpose::Pressure),
        Just(Purpose::Savepoint),
        Just(Purpose::Stop),
        Just(Purpose::Swap),
        Just(Purpose::End),
    ]
}

/// Parts that begin with this number.
fn parts(next: u64) -> PartsSnapshot {
    let open = PartSnapshot {
        number: next,
        folder: format!("k={next}/ü"),
        bytes: next,
        digest: format!("{next:x}"),
        began_ms: Some(-1),
        ..PartSnapshot::default()
    };
    let complete = PartSnapshot {
        upload: Some(format!("{next:x}")),
        pieces: vec![String::new(); next as usize % 3],
        ..PartSnapshot::default()
    };
    PartsSnapshot {
        next,
        open: vec![open],
        complete: vec![complete],
    }
}

fn nodes() -> impl Strategy<Value = NodeManifest> {
    let operator = any::<(Vec<u32>, [Option<i64>; 3])>();
    let operator = operator.prop_map(|(tables, [time_ms, newest_ms, ended_ms])| {
        ProgressManifest::Operator(OperatorManifest {
            tables,
            time_ms,
            newest_ms,
            ended_ms,
        })
    });
    let sink = any::<(
        Option<u64>,
        Option<String>,
        Vec<(String, String, Option<String>)>,
        Vec<String>,
        (Option<u64>, Option<u64>, Option<i64>, Option<String>),
    )>()
    .prop_map(|(bytes, digest, staged, obsolete, more)| {
        let (uncut_bytes, number, began_ms, replaces) = more;
        let staged = staged
            .into_iter()
            .map(|(from, to, digest)| ((from, to), digest));
        let (staged, staged_digests) = staged.unzip();
        ProgressManifest::Sink(SinkSnapshot {
            bytes,
            uncut_bytes,
            digest,
            replaces,
            staged,
            staged_digests,
            obsolete,
            number,
            began_ms,
            numbers: number.map(|next| RowNumbers {
                series: format!("{next:x}"),
                next,
            }),
            parts: number.map(parts),
        })
    });
    let source = prop::collection::vec(sources(), 0..3).prop_map(ProgressManifest::Source);
    let progress = prop_oneof![Just(ProgressManifest::Nothing), source, operator, sink];
    (descriptions(), progress).prop_map(|(description, progress)| NodeManifest {
        description,
        progress,
    })
}

fn descriptions() -> impl Strategy<Value = NodeDescription> {
    let window = prop_oneof![
        Just(Window::Running),
        Just(Window::Global),
        any::<(i64, i64)>().prop_map(|(size_ms, step_ms)| Window::Cumulate {
            size_ms,
            step_ms,
            time: TimeDomain::Event,
            alignment: Alignment::default(),
        }),
        any::<u64>().prop_map(|size| Window::Count { size }),
        any::<(i64, i64, i64, bool)>().prop_map(|(size_ms, slide_ms, offset_ms, is_zoned)| {
            let zone = is_zoned.then(|| Zone::named("Europe/Berlin").expect("it is known"));
            Window::Sliding {
                size_ms,
                slide_ms,
                time: TimeDomain::Processing,
                alignment: Alignment { offset_ms, zone },
            }
        }),
        any::<i64>().prop_map(|gap_ms| Window::Session {
            gap_ms,
            time: TimeDomain::Event,
        }),
    ];
    let table = any::<(String, Vec<String>, Vec<String>, (String, u32))>().prop_map(
        |(role, key, state, (kind, version))| TableSpec {
            role,
            key,
            state,
            rows: RowKind { kind, version },
        },
    );
    let operator = any::<(String, String, Vec<String>)>().prop_map(|(name, digest, arguments)| {
        OperatorDescription {
            name,
            digest,
            arguments,
        }
    });
    let connector = any::<(
        String,
        Option<String>,
        Option<String>,
        Vec<String>,
        Option<String>,
    )>()
    .prop_map(
        |(kind, format, place, columns, event_time)| ConnectorDescription {
            kind,
            format,
            place,
            columns,
            event_time,
        },
    );
    let interval = any::<(Option<i64>, Option<i64>)>();
    let matching = prop_oneof![
        interval.prop_map(|(before_ms, after_ms)| Matching::Interval {
            before_ms,
            after_ms,
        }),
        any::<u64>().prop_map(|size| Matching::Window(Window::Count { size })),
        Just(Matching::AsOf(Version::EventTime)),
        Just(Matching::AsOf(Version::Latest)),
    ];
    let kinds = [
        JoinKind::Inner,
        JoinKind::Left,
        JoinKind::Right,
        JoinKind::Full,
    ];
    let joins = (prop::sample::select(kinds.to_vec()), matching)
        .prop_map(|(kind, matching)| JoinRule { kind, matching });
    let fields = any::<(String, [Vec<String>; 3])>();
    let emits = prop_oneof![Just(Emit::Change), Just(Emit::Final)];
    (
        fields,
        prop::option::of(operator),
        prop::option::of(connector),
        (
            prop::option::of(window),
            prop::option::of(joins),
            any::<Option<String>>(),
            emits,
        ),
        (
            prop::collection::vec(table, 0..3),
            prop::collection::vec(any::<[String; 2]>().prop_map(Vec::from), 0..3),
        ),
    )
        .prop_map(
            |(
                (name, [inputs, ports, output]),
                operator,
                connector,
                (window, join, ttl, emit),
                (tables, earlier),
            )| {
                NodeDescription {
                    name,
                    class: NodeClass::Aggregate,
                    inputs,
                    ports,
                    output,
                    operator,
                    connector,
                    window,
                    join,
                    ttl,
                    emit,
                    tables,
                    earlier,
                }
            },
        )
}

fn sources() -> impl Strategy<Value = SourceSnapshot> {
    let state = prop_oneof![
        Just(PartitionState::Active),
        Just(PartitionState::Idle),
        Just(PartitionState::Ended),
    ];
    type Parts = (u64, Option<u64>, Option<u64>, (bool, bool), Option<i64>);
    let position = any::<Parts>().prop_map(
        |(offset, sequence, rows, (is_in_row, is_in_quotes), start_ms)| Position {
            offset,
            sequence,
            rows,
            is_in_row,
            is_in_quotes,
            start_ms,
        },
    );
    let digest = any::<Option<String>>();
    let newest = any::<Option<i64>>();
    let partition = (any::<String>(), position, newest, state, digest).prop_map(
        |(name, position, newest_ms, state, digest)| PartitionSnapshot {
            name,
            position,
            newest_ms,
            state,
            kept: digest.clone(),
            digest,
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
