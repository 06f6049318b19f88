//! Shows the progress of a run: a line for each node while it runs, a table at
//! its end.

use std::io::{self, IsTerminal, Write, stderr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde::Serialize;
use tracing_subscriber::fmt::MakeWriter;

use super::format::{one_line, short, size, time};
use super::print;
use crate::blame::Blame;
use crate::credentials;
use crate::progress::{
    CheckpointProgress, NodeProgress, NodeStatus, Role, StateProgress, StateStatus,
};
use crate::run::{DeadLetterSummary, RunError, Summary};
use crate::text::{cut, printable_json, printable_line};

/// How often the live lines are redrawn.
const DRAW_EVERY: Duration = Duration::from_millis(250);
/// How often progress is printed without a terminal.
const WRITE_EVERY: Duration = Duration::from_secs(5);
/// How often progress is printed as JSON.
const JSON_EVERY: Duration = Duration::from_secs(1);

/// Late rows are told of where they are at least one in this many.
const LATE_ONE_IN: u64 = 10;

/// How much of the first dead letter's message is shown; the file has all of it.
const SAMPLE_CHARS_MAX: usize = 500;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusStyle {
    Quiet,
    /// JSON lines on stdout.
    Json,
    /// Live lines if stderr is a terminal, plain ones otherwise.
    People,
}

/// Shows progress until [`Status::end`].
pub struct Status {
    style: StatusStyle,
    ticker: Option<tokio::task::JoinHandle<()>>,
    live_lines: MultiProgress,
}

/// Writes the log to stderr, above the live lines.
#[derive(Clone, Debug)]
pub struct LogWriter {
    live_lines: MultiProgress,
    style: LogStyle,
}

/// How the lines of the log are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogStyle {
    Text,
    /// Whoever writes escapes the characters that colours are written with.
    ColouredText,
    /// Each line is an object.
    Json,
}

impl LogWriter {
    pub fn above(live_lines: &MultiProgress, style: LogStyle) -> Self {
        LogWriter {
            live_lines: live_lines.clone(),
            style,
        }
    }
}

impl<'a> MakeWriter<'a> for LogWriter {
    type Writer = LogWriter;

    fn make_writer(&'a self) -> LogWriter {
        self.clone()
    }
}

impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes);
        let shown = log_line(&credentials::hidden(&text), self.style);
        self.live_lines
            .suspend(|| stderr().write_all(shown.as_bytes()))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        stderr().flush()
    }
}

/// A line of the log as it is shown. It may quote anybody: nothing in it ends it, so that
/// nobody can have another line stand in the log.
fn log_line(line: &str, style: LogStyle) -> String {
    let line = line.strip_suffix('\n').unwrap_or(line);
    let shown = match style {
        LogStyle::Text => printable_line(line).into_owned(),
        LogStyle::ColouredText => {
            let parts = line.split('\x1B').map(printable_line);
            Vec::from_iter(parts).join("\x1B")
        }
        LogStyle::Json => printable_json(line).into_owned(),
    };
    shown + "\n"
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum JsonLine<'a> {
    Progress {
        seconds: f64,
        nodes: &'a [NodeStatus],
        #[serde(skip_serializing_if = "Option::is_none")]
        state: Option<StateStatus>,
    },
    Summary(&'a Summary),
    Failure {
        message: String,
        blame: Blame,
        /// Whether the same may go well at another time.
        can_pass: bool,
        advice: &'static str,
    },
}

impl Status {
    pub fn start(
        style: StatusStyle,
        live_lines: &MultiProgress,
        nodes: Vec<Arc<NodeProgress>>,
        state: Option<Arc<StateProgress>>,
    ) -> Self {
        let live_lines = live_lines.clone();
        let ticker = match style {
            StatusStyle::Quiet => None,
            StatusStyle::Json => Some(tokio::spawn(write_json(nodes, state))),
            StatusStyle::People => Some(match stderr().is_terminal() {
                true => tokio::spawn(draw(nodes, state, live_lines.clone())),
                false => tokio::spawn(write_lines(nodes, state)),
            }),
        };
        Status {
            style,
            ticker,
            live_lines,
        }
    }

    /// Removes the live lines and shows how the run ended. People learn of a
    /// failure from the command's last message. Programs need the summary: it is an error
    /// if it cannot be printed.
    pub fn end(self, ended: Result<&Summary, &RunError>) -> io::Result<()> {
        if let Some(ticker) = self.ticker {
            ticker.abort();
        }
        // A terminal that is gone is no reason to fail.
        let _ = self.live_lines.clear();
        match (ended, self.style) {
            (Ok(summary), StatusStyle::People) => {
                print::stderr(format_args!("{}\n", table(summary)));
            }
            (Ok(summary), StatusStyle::Quiet) => {
                for node in &summary.nodes {
                    for line in describe_late(node)
                        .into_iter()
                        .chain(describe_lost(node))
                        .chain(describe_cut_times(node))
                    {
                        print::stderr(format_args!("{line}\n"));
                    }
                }
                if let Some(dead_letters) = &summary.dead_letters {
                    print::stderr(format_args!("{}\n", describe_dead_letters(dead_letters)));
                }
            }
            (Ok(summary), StatusStyle::Json) => return print_json(&JsonLine::Summary(summary)),
            (Err(error), StatusStyle::Json) => print_failure(error),
            _ => {}
        }
        Ok(())
    }
}

/// The last line of a run with `--json` that failed, perhaps before anything was shown.
pub(super) fn print_failure(error: &RunError) {
    let fault = error.fault();
    let printed = print_json(&JsonLine::Failure {
        message: error.to_string(),
        blame: fault.blame,
        can_pass: fault.can_pass,
        advice: fault.advice(),
    });
    if let Err(cause) = printed {
        tracing::error!("the failure cannot be printed to standard output: {cause}");
    }
}

async fn draw(
    nodes: Vec<Arc<NodeProgress>>,
    state: Option<Arc<StateProgress>>,
    live_lines: MultiProgress,
) {
    let width = nodes
        .iter()
        .map(|node| node.name.chars().count())
        .max()
        .unwrap_or(0);
    let lines: Vec<ProgressBar> = (0..nodes.len() + usize::from(state.is_some()))
        .map(|_| {
            let bar = live_lines.add(ProgressBar::no_length());
            bar.with_style(
                ProgressStyle::with_template("{msg}")
                    .unwrap_or_else(|_| ProgressStyle::default_bar()),
            )
        })
        .collect();
    let mut rates = Rates::new(&nodes);
    loop {
        tokio::time::sleep(DRAW_EVERY).await;
        for (line, (snapshot, rate)) in lines.iter().zip(rates.next(&nodes)) {
            line.set_message(describe(&snapshot, rate, width));
        }
        if let (Some(line), Some(state)) = (lines.last(), &state) {
            line.set_message(format!(
                "{:width$}  {}",
                "state",
                describe_state(&state.snapshot())
            ));
        }
    }
}

async fn write_lines(nodes: Vec<Arc<NodeProgress>>, state: Option<Arc<StateProgress>>) {
    let mut rates = Rates::new(&nodes);
    loop {
        tokio::time::sleep(WRITE_EVERY).await;
        for (snapshot, rate) in rates.next(&nodes) {
            print::stderr(format_args!("{}\n", describe(&snapshot, rate, 0)));
        }
        if let Some(state) = &state {
            print::stderr(format_args!(
                "state  {}\n",
                describe_state(&state.snapshot())
            ));
        }
    }
}

async fn write_json(nodes: Vec<Arc<NodeProgress>>, state: Option<Arc<StateProgress>>) {
    let started = Instant::now();
    let mut has_failed = false;
    loop {
        tokio::time::sleep(JSON_EVERY).await;
        let snapshots: Vec<NodeStatus> = nodes.iter().map(|node| node.snapshot()).collect();
        let seconds = started.elapsed().as_secs_f64();
        let printed = print_json(&JsonLine::Progress {
            seconds,
            nodes: &snapshots,
            state: state.as_ref().map(|state| state.snapshot()),
        });
        // It is said once, not each second.
        if let (Err(cause), false) = (&printed, has_failed) {
            tracing::error!("progress cannot be printed to standard output: {cause}");
        }
        has_failed = printed.is_err();
    }
}

fn print_json(line: &JsonLine<'_>) -> io::Result<()> {
    print::json(line, false)
}

/// Computes rows a second between two looks.
struct Rates {
    last: Vec<(u64, u64)>,
    at: Instant,
}

#[derive(Clone, Copy)]
struct Rate {
    rows_in: f64,
    rows_out: f64,
}

impl Rates {
    fn new(nodes: &[Arc<NodeProgress>]) -> Self {
        Rates {
            last: vec![(0, 0); nodes.len()],
            at: Instant::now(),
        }
    }

    fn next(&mut self, nodes: &[Arc<NodeProgress>]) -> Vec<(NodeStatus, Rate)> {
        let seconds = self.at.elapsed().as_secs_f64().max(1e-3);
        self.at = Instant::now();
        let rated = nodes.iter().zip(&mut self.last).map(|(node, last)| {
            let snapshot = node.snapshot();
            let rate = Rate {
                rows_in: (snapshot.rows_in - last.0) as f64 / seconds,
                rows_out: (snapshot.rows_out - last.1) as f64 / seconds,
            };
            *last = (snapshot.rows_in, snapshot.rows_out);
            (snapshot, rate)
        });
        rated.collect()
    }
}

fn describe(node: &NodeStatus, rate: Rate, width: usize) -> String {
    let mut line = format!("{:width$}", node.name);
    if node.role != Role::Source {
        line += &format!("  in {:>8}/s", short(rate.rows_in));
    }
    if node.role != Role::Sink {
        line += &format!("  out {:>8}/s", short(rate.rows_out));
    }
    line += &format!(
        "  total {:>8}",
        short(node.rows_in.max(node.rows_out) as f64)
    );
    if let Some(watermark) = node.watermark_ms {
        line += &format!("  watermark {}", time(watermark));
    }
    for (count, what) in [
        (node.late, "late"),
        (node.rejected, "rejected"),
        (node.failed, "failed"),
    ] {
        if count > 0 {
            line += &format!("  {what} {count}");
        }
    }
    if let Some(read) = node.read {
        line += &format!("  {:.0}% read", read * 100.0);
    }
    line
}

fn describe_state(state: &StateStatus) -> String {
    let memory = format!(
        "in memory {} of {}",
        size(state.memory_bytes as u64),
        size(state.memory_bytes_max as u64)
    );
    match &state.checkpoint {
        Some(last) => format!("{memory}  {}", describe_checkpoint(last)),
        None => memory,
    }
}

fn describe_checkpoint(checkpoint: &CheckpointProgress) -> String {
    format!(
        "checkpoint {}: {} in {} ms",
        checkpoint.id,
        size(checkpoint.bytes),
        checkpoint.milliseconds
    )
}

fn table(summary: &Summary) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(["node", "rows in", "rows out", "late", "rejected", "failed"]);
    for node in &summary.nodes {
        let counts = [
            node.rows_in,
            node.rows_out,
            node.late,
            node.rejected,
            node.failed,
        ];
        let mut row = vec![node.name.clone()];
        row.extend(counts.iter().enumerate().map(|(column, &count)| {
            let absent = (column == 1 && node.role == Role::Sink) || (column >= 2 && count == 0);
            if absent {
                "-".to_owned()
            } else {
                count.to_string()
            }
        }));
        table.add_row(row);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let nodes = summary.nodes.iter();
    let odd = nodes.flat_map(|node| {
        describe_late(node)
            .into_iter()
            .chain(describe_lost(node))
            .chain(describe_cut_times(node))
    });
    let odd: String = odd.map(|line| format!("\n{line}")).collect();
    let dead_letters = summary.dead_letters.as_ref();
    let dead_letters = dead_letters.map_or(String::new(), |dead_letters| {
        format!("\n{}", describe_dead_letters(dead_letters))
    });
    let accounted = describe_accounts(summary);
    let ending = if summary.stopped {
        "stopped; open windows were not fired"
    } else {
        "done"
    };
    let last = summary
        .state
        .as_ref()
        .and_then(|state| state.checkpoint.as_ref());
    let last = last.map_or(String::new(), |last| {
        format!("\nlast {}", describe_checkpoint(last))
    });
    format!(
        "{table}{last}{odd}{dead_letters}\n{accounted}\n{}: {ending} after {:.1} s, {} rows/s read",
        summary.pipeline,
        summary.seconds,
        short(summary.rows_read() as f64 / summary.seconds.max(1e-9)),
    )
}

/// Says that many rows of a node were late: probably they are further out of order than
/// the author of the pipeline thinks. But no setting opens windows again that fired since
/// the inputs had ended before.
fn describe_late(node: &NodeStatus) -> Option<String> {
    let (late, rows) = (node.late, node.rows_in);
    (late > 0 && late.saturating_mul(LATE_ONE_IN) >= rows).then(|| {
        let name = &node.name;
        let outputs =
            format!("`{name}.late`, of a join `{name}.late_left` and `{name}.late_right`");
        let advice = match node.had_ended {
            true => format!(
                "when the inputs had ended, before this run, all windows fired, and stay closed; \
                 read {outputs}, and if rows of later windows are late, raise \
                 `out_of_orderness` in the `watermark` of their source"
            ),
            false => format!(
                "raise `out_of_orderness` in the `watermark` of their source, or read {outputs}"
            ),
        };
        format!(
            "{late} of {rows} rows of {name} were late, since their windows had fired: {advice}"
        )
    })
}

/// Says that messages of a source were lost.
fn describe_lost(node: &NodeStatus) -> Option<String> {
    (node.lost > 0).then(|| {
        format!(
            "{} datagrams of {} were dropped by the system before they could be read",
            node.lost, node.name
        )
    })
}

/// Says that times of a source had more digits than are kept.
fn describe_cut_times(node: &NodeStatus) -> Option<String> {
    let cut = node.cut_times.as_ref()?;
    let times = match cut.values {
        1 => "1 time".to_owned(),
        values => format!("{values} times"),
    };
    Some(format!(
        "{times} of {} had more digits than milliseconds, in which times are kept: {}",
        node.name,
        one_line(&cut.example)
    ))
}

/// Says whether the rows of each node are accounted for.
fn describe_accounts(summary: &Summary) -> String {
    let since = match summary.restarts {
        0 => "",
        _ => " since the last restart",
    };
    if summary.imbalances.is_empty() {
        return format!("every row is accounted for{since}, at every node");
    }
    let lines = summary
        .imbalances
        .iter()
        .map(|imbalance| imbalance.to_string());
    let lines: Vec<String> = lines.collect();
    format!(
        "not every row is accounted for{since}; this is a bug of Sluicebox, please report it: {}",
        lines.join("; ")
    )
}

fn describe_dead_letters(dead_letters: &DeadLetterSummary) -> String {
    let mut line = match dead_letters.rows {
        1 => "1 row became a dead letter".to_owned(),
        rows => format!("{rows} rows became dead letters"),
    };
    line += &format!(" in {}; the first: ", dead_letters.path.display());
    line + &one_line(&cut(&dead_letters.first, SAMPLE_CHARS_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::Imbalance;

    #[test]
    fn whether_rows_are_accounted_for_is_told() {
        let mut summary = Summary {
            pipeline: "shop".to_owned(),
            revision: 1,
            seconds: 1.0,
            stopped: false,
            swapped: false,
            restarts: 0,
            nodes: Vec::new(),
            imbalances: Vec::new(),
            dead_letters: None,
            state: None,
        };
        let said = describe_accounts(&summary);
        assert_eq!(said, "every row is accounted for, at every node");
        summary.restarts = 2;
        summary.imbalances.push(Imbalance {
            node: "mean".to_owned(),
            what: "came in".to_owned(),
            rows: 100,
            accounted: 99,
        });
        assert_eq!(
            describe_accounts(&summary),
            "not every row is accounted for since the last restart; this is a bug of Sluicebox, \
             please report it: mean: came in: 100 rows, 99 are accounted for"
        );
    }

    #[test]
    fn what_a_line_of_the_log_quotes_begins_no_other_line() {
        let forged = "failed: x\n2026-11-29T12:00:00Z ERROR all is lost\r\u{2028}\x07";
        let shown = "failed: x\\n2026-11-29T12:00:00Z ERROR all is lost\\r\\u{2028}\\u{7}\n";
        assert_eq!(log_line(&format!("{forged}\n"), LogStyle::Text), shown);
        let coloured = format!("\x1B[31mERROR\x1B[0m {forged}\n");
        let coloured = log_line(&coloured, LogStyle::ColouredText);
        assert_eq!(coloured, format!("\x1B[31mERROR\x1B[0m {shown}"));
        let quoted = serde_json::json!({ "message": forged });
        let json = log_line(&format!("{quoted}\n"), LogStyle::Json);
        assert_eq!(
            (json.lines().count(), json.contains('\u{2028}')),
            (1, false)
        );
        let read: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!(read, quoted);
    }

    #[test]
    fn many_late_rows_are_told_of() {
        let late = |late: u64, rows_in: u64| {
            let node = NodeProgress::new("mean", Role::Operator, 1).snapshot();
            describe_late(&NodeStatus {
                rows_in,
                late,
                ..node
            })
        };
        assert_eq!(late(0, 0), None);
        assert_eq!(late(9, 100), None);
        let said = late(97_718, 100_000).expect("most of them");
        assert!(
            said.starts_with("97718 of 100000 rows of mean were late"),
            "{said}"
        );
    }
}
