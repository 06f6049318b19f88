use std::fs;

use expect_test::expect;

use super::*;
use crate::checkpoint::changes::Changes;
use crate::checkpoint::manifest::{NodeManifest, OperatorManifest, ProgressManifest};
use crate::checkpoint::snapshot::{
    PartitionSnapshot, PartitionState, Position, SinkSnapshot, SourceSnapshot,
};
use crate::checkpoint::storage::Storage;
use crate::checkpoint::storage::folder::FolderStorage;
use crate::element::Purpose;
use crate::plan::change::{NodeClass, NodeDescription, OperatorDescription};
use crate::plan::{Alignment, TimeDomain, Window};
use crate::state::spec::{RowKind, TableSpec};

const MINUTE_MS: i64 = 60_000;

/// A pipeline's file, and the storage of a host that runs it.
fn pipeline() -> (tempfile::TempDir, PathBuf, FolderStorage) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("shop.toml");
    fs::write(&file, "name = \"shop\"\n[checkpoints]\n").expect("a file");
    let storage = FolderStorage::open(&folder.path().join("shop.state"), 8 << 20);
    (folder, file, storage.expect("a storage"))
}

fn manifest(id: CheckpointId, name: Option<&str>) -> Manifest {
    Manifest {
        id,
        name: name.map(str::to_owned),
        created_ms: id as i64 * MINUTE_MS,
        pipeline: "shop".into(),
        ..Manifest::default()
    }
}

fn write(storage: &FolderStorage, manifest: Manifest) {
    let mut changes = Changes::default();
    changes.put(
        |bytes| bytes.extend(b"key"),
        |bytes| bytes.extend(manifest.id.to_be_bytes()),
    );
    storage
        .write(manifest, vec![changes])
        .expect("a checkpoint");
}

fn said(error: CliError) -> String {
    match error {
        CliError::Usage(error) => format!("usage: {error:#}"),
        CliError::Failed(error) => format!("failed: {error:#}"),
        CliError::Config(mistakes) => format!("config: {mistakes}"),
        CliError::Run(error) => format!("failed: {error}"),
        CliError::AllBad { rows } => format!("{rows} bad rows"),
    }
}

fn kept(file: &Path) -> PipelineCheckpoints {
    PipelineCheckpoints::open(file).unwrap_or_else(|error| panic!("{}", said(error)))
}

#[test]
fn checkpoints_are_listed() {
    let info = |id: CheckpointId, name: Option<&str>, bytes| CheckpointInfo {
        id,
        name: name.map(str::to_owned),
        created_ms: id as i64 * MINUTE_MS,
        is_transactional: false,
        participants: Vec::new(),
        bytes,
        damage: None,
        given_up: Vec::new(),
    };
    assert_eq!(
        to_text(&[], "/shop.state/checkpoints", 0),
        "no checkpoints in /shop.state/checkpoints\n"
    );
    let damaged = CheckpointInfo {
        damage: Some("CURRENT is missing".into()),
        ..info(10, None, 12_345)
    };
    let list = [
        info(7, None, 999),
        info(8, Some("before-the-sale"), 1_234_567_890),
        damaged,
    ];
    expect![[r#"
         id  name             made           size
          7  -                3m 12s ago    999 B
          8  before-the-sale  2m 12s ago  1.23 GB
         10  -                12s ago     12.3 kB  damaged: CURRENT is missing
        in /shop.state/checkpoints
    "#]]
    .assert_eq(&to_text(
        &list,
        "/shop.state/checkpoints",
        10 * MINUTE_MS + 12_345,
    ));
}

#[test]
fn a_checkpoint_is_found_by_number_or_name() {
    let (_folder, file, storage) = pipeline();
    write(&storage, manifest(7, Some("before-the-sale")));
    write(&storage, manifest(12, None));
    let kept = kept(&file);
    let found = |wanted| match kept.find(wanted) {
        Ok(info) => info.id.to_string(),
        Err(error) => said(error),
    };
    assert_eq!(found(None), "12");
    assert_eq!(found(Some("7")), "7");
    assert_eq!(found(Some("before-the-sale")), "7");
    let not_found = found(Some("before_sale"));
    assert!(not_found.contains(": there is no checkpoint `before_sale`; did you mean"));
    assert!(
        not_found.ends_with(
            "did you mean `before-the-sale`? The checkpoints are: before-the-sale, 12, 7"
        ),
        "{not_found}"
    );
}

#[test]
fn damage_is_found_by_reading() {
    let (_folder, file, storage) = pipeline();
    write(&storage, manifest(1, None));
    write(&storage, manifest(2, None));
    let newest = storage.archive().path(2).join("00000002.changes");
    let mut bytes = fs::read(&newest).expect("a file");
    bytes[30] ^= 1;
    fs::write(&newest, bytes).expect("a changed file");
    let kept = kept(&file);
    assert!(kept.list.iter().all(|info| info.damage.is_none()));
    let verified = kept.verify(None).unwrap_or_else(|t| panic!("{}", said(t)));
    assert_eq!(verified[0], (1, None));
    let damage = verified[1].1.as_deref().unwrap_or_default();
    assert!(
        damage.starts_with("00000002.changes has the checksum"),
        "{damage}"
    );
    let refused = verify(&kept, Some("2"), false).map_err(said);
    assert_eq!(refused, Err("failed: 1 checkpoint is damaged".to_owned()));
    assert_eq!(verify(&kept, Some("1"), true).map_err(said), Ok(()));
}

#[test]
fn what_a_host_may_need_is_not_dropped() {
    let (_folder, file, storage) = pipeline();
    for id in 1..=4 {
        write(&storage, manifest(id, None));
    }
    let delete = |id: &str, force| kept(&file).delete(id, force).map_err(said);
    assert_eq!(delete("2", false), Ok(2));
    let pid = std::process::id();
    for id in ["3", "4"] {
        let expected = format!(
            "failed: checkpoint {id} is one of the last 2, which the host (process {pid}) may \
             need: stop it first"
        );
        assert_eq!(delete(id, true), Err(expected));
    }
    drop(storage);
    assert_eq!(delete("4", false), Ok(4));
    assert_eq!(delete("1", false), Ok(1));
    let refused = delete("3", false).expect_err("the only one");
    assert!(
        refused.starts_with("failed: checkpoint 3 is the only one"),
        "{refused}"
    );
    assert_eq!(delete("3", true), Ok(3));
}

#[test]
fn copies_are_listed_too() {
    let (folder, file, storage) = pipeline();
    write(&storage, manifest(1, None));
    let refused = kept(&file).copies().map(drop).map_err(said);
    let refused = refused.expect_err("there are no copies");
    assert!(
        refused.starts_with("usage: no copies are made"),
        "{refused}"
    );

    let url = format!("file://{}/copies", folder.path().display());
    let upload = format!("name = \"shop\"\n[checkpoints]\nupload = {{ url = \"{url}\" }}\n");
    fs::write(&file, upload).expect("a file");
    let kept = kept(&file);
    let copies = || {
        let (list, place) = kept.copies().unwrap_or_else(|t| panic!("{}", said(t)));
        assert_eq!(place, url);
        list.iter().map(|info| info.id).collect::<Vec<_>>()
    };
    assert!(copies().is_empty());
    let plan = kept.remote.as_ref().expect("there is an object store");
    let remote = RemoteStore::new(plan, "shop").expect("an object store");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let uploaded = runtime.block_on(remote.upload(storage.archive(), 1));
    uploaded.expect("an upload");
    assert_eq!(copies(), [1]);
}

#[test]
fn pipelines_without_checkpoints_say_so() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("shop.toml");
    let open = |text: &str| {
        fs::write(&file, text).expect("a file");
        match PipelineCheckpoints::open(&file) {
            Ok(_) => panic!("there are none"),
            Err(error) => said(error),
        }
    };
    let none = open("name = \"shop\"\n");
    assert!(none.starts_with("usage: shop has no checkpoints: add `[checkpoints]`"));
    let memory = open("name = \"shop\"\n[state]\nbackend = \"memory\"\n");
    assert!(memory.starts_with("usage: shop keeps its checkpoints in memory"));
    assert!(open("nam = 1").starts_with("config: "));
}

#[test]
fn a_manifest_for_people() {
    let partition = |name: &str, offset, state| PartitionSnapshot {
        name: name.into(),
        position: Position {
            offset,
            rows: Some(80),
            ..Position::default()
        },
        newest_ms: Some(1_704_103_200_000),
        state,
        digest: None,
        kept: None,
    };
    let node = |name: &str, class, progress| NodeManifest {
        description: NodeDescription {
            name: name.into(),
            class,
            ..NodeDescription::default()
        },
        progress,
    };
    let source = SourceSnapshot {
        partitions: vec![
            partition("events.jsonl", 8_192, PartitionState::Active),
            partition("old.jsonl", 100, PartitionState::Ended),
        ],
        ..SourceSnapshot::default()
    };
    let added = NodeDescription {
        name: "added".into(),
        class: NodeClass::Aggregate,
        operator: Some(OperatorDescription {
            name: "cart.added".into(),
            digest: "5f70bf18a086".into(),
            ..OperatorDescription::default()
        }),
        window: Some(Window::Tumbling {
            size_ms: MINUTE_MS,
            time: TimeDomain::Event,
            alignment: Alignment::default(),
        }),
        tables: vec![TableSpec {
            role: "windows".into(),
            key: vec!["user_id: utf8".into()],
            state: vec!["items: int64".into(), "total: float64".into()],
            rows: RowKind {
                kind: "tumbling".into(),
                version: 1,
            },
        }],
        ..NodeDescription::default()
    };
    let operator = OperatorManifest {
        tables: vec![3],
        time_ms: Some(1_704_103_140_000),
        ..OperatorManifest::default()
    };
    let sink = SinkSnapshot {
        bytes: Some(4_096),
        digest: None,
        staged: vec![(".part-7".into(), "part-7".into())],
        obsolete: Vec::new(),
        ..SinkSnapshot::default()
    };
    let manifest = Manifest {
        created_ms: 1_704_103_201_000,
        purpose: Purpose::End,
        dead_letter_bytes: Some(17),
        nodes: vec![
            node(
                "actions",
                NodeClass::Source,
                ProgressManifest::Source(vec![source]),
            ),
            NodeManifest {
                description: added,
                progress: ProgressManifest::Operator(operator),
            },
            node("out", NodeClass::Sink, ProgressManifest::Sink(sink)),
        ],
        ..manifest(17, Some("before-the-sale"))
    };
    expect![[r#"
        checkpoint 17 of shop, savepoint `before-the-sale`
          made 2024-01-01T10:00:01Z, 1m ago
          made for: end
          0 B in 0 files
          all inputs had ended, and nothing was left to do
          dead letters: 17 bytes of the file

        actions   source
          events.jsonl   at 8192, 80 rows, newest 2024-01-01T10:00:00Z
          old.jsonl   at 100, 80 rows, newest 2024-01-01T10:00:00Z, at its end

        added   aggregate cart.added
          plugin 5f70bf18a086
          key user_id: utf8
          state items: int64, total: float64
          tumbling window of 1m, event time
          watermark 2024-01-01T09:59:00Z

        out   sink
          4096 bytes of the file
          part-7 is complete and gets its name when this checkpoint is committed
    "#]]
    .assert_eq(&show::to_text(&manifest, 1_704_103_201_000 + MINUTE_MS));
}
