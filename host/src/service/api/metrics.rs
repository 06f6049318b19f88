//! Counters for Prometheus, made of those of the pipelines when they are asked for.
//! There are as many series as pipelines and nodes, whatever the rows are.

use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::{EncodeLabelSet, text::encode};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::super::host::Host;
use super::super::hosted::Phase;
use crate::progress::NodeStatus;

/// The formats of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    OpenMetrics,
    /// The older one, for those who do not ask for the other.
    Plain,
}

impl Format {
    /// The one that a request with this `Accept` gets.
    pub fn accepted(accept: &str) -> Format {
        match accept.contains("application/openmetrics-text") {
            true => Format::OpenMetrics,
            false => Format::Plain,
        }
    }

    pub fn content_type(self) -> &'static str {
        match self {
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Format::Plain => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfPipeline {
    pipeline: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfPhase {
    pipeline: String,
    phase: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfNode {
    pipeline: String,
    node: String,
    role: String,
}

type Seconds = Gauge<f64, AtomicU64>;
type SecondsSpent = Counter<f64, AtomicU64>;
/// A name, what it counts, and the counter.
type NodeCounter = (&'static str, &'static str, fn(&NodeStatus) -> u64);

const COUNTERS: [NodeCounter; 7] = [
    ("rows_in", "Rows that came in", |node| node.rows_in),
    ("rows_out", "Rows that were put out", |node| node.rows_out),
    (
        "rows_late",
        "Rows that came too late for a window",
        |node| node.late,
    ),
    (
        "rows_rejected",
        "Rows that were rejected with a reason",
        |node| node.rejected,
    ),
    ("rows_failed", "Rows that the plugin failed on", |node| {
        node.failed
    }),
    (
        "calls_failed",
        "Calls in which the plugin failed, and which were repeated",
        |node| node.failed_calls,
    ),
    (
        "messages_lost",
        "Messages that were lost before a source could read them",
        |node| node.lost,
    ),
];

/// A name, what takes the time, and the time in ms, of all tasks of a node together.
type NodeTime = (&'static str, &'static str, fn(&NodeStatus) -> f64);

const TIMES: [NodeTime; 2] = [
    (
        "busy",
        "How long the operator's tasks have worked",
        |node| node.busy_ms,
    ),
    (
        "blocked",
        "How long the node's tasks have waited for those behind them to have room",
        |node| node.blocked_ms,
    ),
];

/// The metrics as text.
pub fn text(host: &Host, format: Format) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("sluicebox");
    let phases = Family::<OfPhase, Gauge>::default();
    let watermarks = Family::<OfNode, Seconds>::default();
    let state = Family::<OfPipeline, Gauge>::default();
    let state_max = Family::<OfPipeline, Gauge>::default();
    let checkpoints = Family::<OfPipeline, Gauge>::default();
    let durations = Family::<OfPipeline, Seconds>::default();
    let completed = Family::<OfPipeline, Seconds>::default();
    let restarts = Family::<OfPipeline, Counter>::default();
    let counters = COUNTERS.map(|(name, help, count)| {
        let family = Family::<OfNode, Counter>::default();
        registry.register(name, help, family.clone());
        (family, count)
    });
    let times = TIMES.map(|(name, help, time_ms)| {
        let family = Family::<OfNode, SecondsSpent>::default();
        registry.register_with_unit(name, help, Unit::Seconds, family.clone());
        (family, time_ms)
    });
    let letters = Family::<OfNode, Counter>::default();
    registry.register(
        "dead_letters",
        "Rows and states that became dead letters",
        letters.clone(),
    );
    registry.register(
        "pipeline_phase",
        "1 for the phase that the pipeline is in",
        phases.clone(),
    );
    registry.register(
        "pipeline_restarts",
        "How often the pipeline has failed and was restarted by itself",
        restarts.clone(),
    );
    let backlogs = Family::<OfNode, Gauge>::default();
    registry.register(
        "source_backlog_messages",
        "Messages that wait to be read, as brokers have told last",
        backlogs.clone(),
    );
    registry.register_with_unit(
        "watermark_timestamp",
        "The event time that no later row is expected before",
        Unit::Seconds,
        watermarks.clone(),
    );
    registry.register_with_unit(
        "state_memory",
        "What keys and states take in memory",
        Unit::Bytes,
        state.clone(),
    );
    registry.register_with_unit(
        "state_memory_limit",
        "What keys and states may take in memory",
        Unit::Bytes,
        state_max.clone(),
    );
    registry.register_with_unit(
        "checkpoint_size",
        "The size of the last complete checkpoint",
        Unit::Bytes,
        checkpoints.clone(),
    );
    registry.register_with_unit(
        "checkpoint_duration",
        "How long the last complete checkpoint took",
        Unit::Seconds,
        durations.clone(),
    );
    registry.register_with_unit(
        "checkpoint_timestamp",
        "When the last complete checkpoint was complete",
        Unit::Seconds,
        completed.clone(),
    );
    for pipeline in host.pipelines() {
        let shown = pipeline.shown();
        let of_pipeline = OfPipeline {
            pipeline: pipeline.name.clone(),
        };
        let now = pipeline.phase().phase;
        restarts
            .get_or_create(&of_pipeline)
            .inc_by(pipeline.restarts.count());
        for phase in Phase::ALL {
            let of_phase = OfPhase {
                pipeline: pipeline.name.clone(),
                phase: phase.name().to_owned(),
            };
            phases.get_or_create(&of_phase).set(i64::from(now == phase));
        }
        let Some(running) = shown.running else {
            continue;
        };
        for progress in &running.nodes {
            let node = progress.snapshot();
            let of_node = OfNode {
                pipeline: pipeline.name.clone(),
                node: node.name.clone(),
                role: node.role.name().to_owned(),
            };
            for (family, count) in &counters {
                family.get_or_create(&of_node).inc_by(count(&node));
            }
            for (family, time_ms) in &times {
                let seconds = time_ms(&node) / 1e3;
                family.get_or_create(&of_node).inc_by(seconds);
            }
            let dead = progress.dead_letters();
            letters.get_or_create(&of_node).inc_by(dead);
            if let Some(backlog) = node.backlog {
                backlogs.get_or_create(&of_node).set(gauge(backlog));
            }
            if let Some(watermark_ms) = node.watermark_ms {
                let seconds = watermark_ms as f64 / 1e3;
                watermarks.get_or_create(&of_node).set(seconds);
            }
        }
        if let Some(status) = running.state.map(|state| state.snapshot()) {
            state
                .get_or_create(&of_pipeline)
                .set(gauge(status.memory_bytes as u64));
            if status.memory_bytes_max != usize::MAX {
                state_max
                    .get_or_create(&of_pipeline)
                    .set(gauge(status.memory_bytes_max as u64));
            }
            if let Some(checkpoint) = status.checkpoint {
                checkpoints
                    .get_or_create(&of_pipeline)
                    .set(gauge(checkpoint.bytes));
                let seconds = checkpoint.milliseconds as f64 / 1e3;
                durations.get_or_create(&of_pipeline).set(seconds);
                let seconds = checkpoint.completed_ms as f64 / 1e3;
                completed.get_or_create(&of_pipeline).set(seconds);
            }
        }
    }
    let mut text = String::new();
    encode(&mut text, &registry)?;
    Ok(match format {
        Format::OpenMetrics => text,
        Format::Plain => plain(&text),
    })
}

/// The same in the older format: it calls a counter by the name of its series, and knows
/// neither units nor an end.
fn plain(text: &str) -> String {
    let counter = |line: &str| {
        let name = line.strip_prefix("# TYPE ")?.strip_suffix(" counter")?;
        Some(name.to_owned())
    };
    let counters: HashSet<String> = text.lines().filter_map(counter).collect();
    let mut plain = String::with_capacity(text.len());
    for line in text.lines() {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        match words.as_slice() {
            ["#", "UNIT" | "EOF", ..] => {}
            ["#", what, name, rest] if counters.contains(*name) => {
                plain.push_str(&format!("# {what} {name}_total {rest}\n"));
            }
            _ => {
                plain.push_str(line);
                plain.push('\n');
            }
        }
    }
    plain
}

fn gauge(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_format_names_counters_by_their_series() {
        let text = "# HELP rows_in Rows # that came in.\n# TYPE rows_in counter\n\
                    rows_in_total{node=\"a b\"} 3\n# HELP size_bytes The size.\n\
                    # TYPE size_bytes gauge\n# UNIT size_bytes bytes\nsize_bytes 1\n# EOF\n";
        let expected = "# HELP rows_in_total Rows # that came in.\n\
                        # TYPE rows_in_total counter\nrows_in_total{node=\"a b\"} 3\n\
                        # HELP size_bytes The size.\n# TYPE size_bytes gauge\nsize_bytes 1\n";
        assert_eq!(plain(text), expected);
        assert_eq!(Format::accepted("*/*"), Format::Plain);
        let asked = "application/openmetrics-text;version=1.0.0;q=0.75,text/plain;q=0.5";
        assert_eq!(Format::accepted(asked), Format::OpenMetrics);
    }
}
