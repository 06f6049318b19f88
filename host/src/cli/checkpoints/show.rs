//! Shows a manifest as text.

use std::fmt::Write;

use super::super::format::{ago, size, time};
use crate::checkpoint::manifest::{Manifest, NodeManifest, OperatorManifest, ProgressManifest};
use crate::checkpoint::snapshot::{PartitionSnapshot, PartitionState, SinkSnapshot};
use crate::element::{END_OF_TIME, Purpose};

pub(super) fn to_text(manifest: &Manifest, now_ms: i64) -> String {
    let mut text = format!("checkpoint {} of {}", manifest.id, manifest.pipeline);
    if let Some(name) = &manifest.name {
        let _ = write!(text, ", savepoint `{name}`");
    }
    let bytes = manifest.files.iter().map(|file| file.bytes).sum();
    let made = ago(manifest.created_ms, now_ms);
    let _ = writeln!(text, "\n  made {}, {made}", time(manifest.created_ms));
    let _ = writeln!(text, "  made for: {}", manifest.purpose.name());
    let _ = writeln!(text, "  {} in {} files", size(bytes), manifest.files.len());
    if !manifest.participants.is_empty() {
        let names = manifest.participants.join(", ");
        let _ = writeln!(text, "  valid only if committed by: {names}");
    }
    if manifest.purpose == Purpose::End {
        text.push_str("  all inputs had ended, and nothing was left to do\n");
    }
    if let Some(bytes) = manifest.dead_letter_bytes {
        let letters = manifest.dead_letters.as_ref();
        let file = letters.and_then(|letters| letters.place.as_deref());
        let file = file.unwrap_or("the file");
        let _ = writeln!(text, "  dead letters: {bytes} bytes of {file}");
    }
    for node in &manifest.nodes {
        show_node(node, &mut text);
    }
    text
}

fn show_node(node: &NodeManifest, text: &mut String) {
    let name = node.name();
    match &node.progress {
        ProgressManifest::Nothing => {}
        ProgressManifest::Source(tasks) => {
            let _ = writeln!(text, "\n{name}   source");
            for partition in tasks.iter().flat_map(|task| &task.partitions) {
                let _ = writeln!(text, "  {}", show_partition(partition));
            }
        }
        ProgressManifest::Operator(operator) => show_operator(node, operator, text),
        ProgressManifest::Sink(sink) => {
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
        PartitionState::Active => "",
        PartitionState::Idle => ", idle",
        PartitionState::Ended => ", at its end",
    });
    line
}

fn show_operator(node: &NodeManifest, operator: &OperatorManifest, text: &mut String) {
    let description = &node.description;
    let class = description.class.name();
    let plugin = description.operator.clone().unwrap_or_default();
    let _ = writeln!(text, "\n{}   {class} {}", node.name(), plugin.name);
    let _ = writeln!(text, "  plugin {}", plugin.digest);
    let fields = |fields: &[String]| match fields {
        [] => "none".to_owned(),
        fields => fields.join(", "),
    };
    for table in &description.tables {
        if description.tables.len() > 1 {
            let _ = writeln!(text, "  table {}", table.role);
        }
        let _ = writeln!(text, "  key {}", fields(&table.key));
        let _ = writeln!(text, "  state {}", fields(&table.state));
    }
    if let Some(window) = description.window {
        let _ = writeln!(text, "  {window}");
    }
    if let Some(ms) = operator.time_ms {
        let at = match ms {
            END_OF_TIME => "at the end of time".to_owned(),
            ms => time(ms),
        };
        let _ = writeln!(text, "  watermark {at}");
    }
}

fn show_sink(sink: &SinkSnapshot, text: &mut String) {
    if let Some(bytes) = sink.bytes {
        let _ = match sink.number {
            Some(number) => writeln!(text, "  {bytes} bytes of file number {number}"),
            None => writeln!(text, "  {bytes} bytes of the file"),
        };
    }
    for (_, to) in &sink.staged {
        let _ = writeln!(
            text,
            "  {to} is complete and gets its name when this checkpoint is committed"
        );
    }
}
