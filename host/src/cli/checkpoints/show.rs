//! Decides how a manifest reads on a terminal.

use std::fmt::Write;

use super::{ago, size};
use crate::checkpoint::manifest::{AggregateManifest, Manifest, NodeManifest, NodeManifestKind};
use crate::checkpoint::snapshot::{PartitionSnapshot, PartitionState, SinkSnapshot};
use crate::element::END_OF_TIME;

pub(super) fn to_text(manifest: &Manifest, now_ms: i64) -> String {
    let mut text = format!("checkpoint {} of {}", manifest.id, manifest.pipeline);
    if let Some(name) = &manifest.name {
        let _ = write!(text, ", savepoint `{name}`");
    }
    let bytes = manifest.files.iter().map(|file| file.bytes).sum();
    let made = ago(manifest.created_ms, now_ms);
    let _ = writeln!(text, "\n  made {}, {made}", time(manifest.created_ms));
    let _ = writeln!(text, "  {} in {} files", size(bytes), manifest.files.len());
    if manifest.is_transactional {
        text.push_str("  holds if the pipeline's transaction says that it was committed\n");
    }
    if manifest.is_complete {
        text.push_str("  all inputs had ended, and nothing was left to do\n");
    }
    if let Some(bytes) = manifest.dead_letter_bytes {
        let _ = writeln!(text, "  dead letters: {bytes} bytes of the file");
    }
    for node in &manifest.nodes {
        show_node(node, &mut text);
    }
    text
}

fn show_node(node: &NodeManifest, text: &mut String) {
    let name = &node.name;
    match &node.kind {
        NodeManifestKind::Source { tasks } => {
            let _ = writeln!(text, "\n{name}   source");
            for partition in tasks.iter().flat_map(|task| &task.partitions) {
                let _ = writeln!(text, "  {}", show_partition(partition));
            }
        }
        NodeManifestKind::Aggregate(aggregate) => {
            let _ = writeln!(text, "\n{name}   aggregate {}", aggregate.operator);
            show_aggregate(aggregate, text);
        }
        NodeManifestKind::Sink(sink) => {
            let _ = writeln!(text, "\n{name}   sink");
            show_sink(sink, text);
        }
    }
}

fn show_partition(partition: &PartitionSnapshot) -> String {
    let mut line = format!("{}   at {}", partition.name, partition.position.offset);
    if let Some(rows) = partition.position.rows {
        let _ = write!(line, ", {rows} rows");
    }
    if let Some(ms) = partition.newest_ms {
        let _ = write!(line, ", newest {}", time(ms));
    }
    line.push_str(match partition.state {
        PartitionState::Speaking => "",
        PartitionState::Idle => ", idle",
        PartitionState::Ended => ", at its end",
    });
    line
}

fn show_aggregate(aggregate: &AggregateManifest, text: &mut String) {
    let _ = writeln!(text, "  plugin {}", aggregate.digest);
    let fields = |fields: &[String]| match fields {
        [] => "none".to_owned(),
        fields => fields.join(", "),
    };
    let _ = writeln!(text, "  key {}", fields(&aggregate.key));
    let _ = writeln!(text, "  state {}", fields(&aggregate.state));
    let _ = writeln!(text, "  {}", aggregate.window);
    if let Some(ms) = aggregate.time_ms {
        let at = match ms {
            END_OF_TIME => "at the end of time".to_owned(),
            ms => time(ms),
        };
        let _ = writeln!(text, "  watermark {at}");
    }
}

fn show_sink(sink: &SinkSnapshot, text: &mut String) {
    if let Some(bytes) = sink.bytes {
        let _ = writeln!(text, "  {bytes} bytes of the file");
    }
    for (_, to) in &sink.staged {
        let _ = writeln!(
            text,
            "  {to} is written and gets its name with this checkpoint"
        );
    }
}

fn time(ms: i64) -> String {
    jiff::Timestamp::from_millisecond(ms).map_or_else(|_| ms.to_string(), |time| time.to_string())
}
