//! `sluicebox changes`: shows what became of the changes of a pipeline on a running host.

use anyhow::anyhow;
use clap::Args;
use serde::Deserialize;

use super::client::HostArguments;
use super::format::{ago, cut, table};
use super::{CliError, plan, print_json};
use crate::clock::{Clock, SystemClock};
use crate::service::store::{ChangeOutcome, ChangeRecord};
use crate::text::printable_line;

#[derive(Args)]
pub struct ChangesArguments {
    /// The pipeline's name
    pipeline: String,
    /// How many are shown at most, of the newest
    #[arg(long, default_value = "20", value_name = "CHANGES")]
    limit: usize,
    /// Show what a change has changed in the pipeline's file instead: its content, or the
    /// beginning of it, such as `sha256:0a1b`
    #[arg(long, value_name = "CONTENT")]
    diff: Option<String>,
    #[command(flatten)]
    host: HostArguments,
}

#[derive(Deserialize)]
struct View {
    /// Oldest first.
    changes: Vec<ChangeRecord>,
}

/// How many characters of a digest tell contents apart.
const DIGEST_CHARS: usize = "sha256:".len() + 12;
const WHAT_CHARS: usize = 160;

pub fn changes(arguments: &ChangesArguments) -> Result<(), CliError> {
    let client = arguments.host.client()?;
    let View { mut changes } = client.get(&[&arguments.pipeline], &[])?.read()?;
    if let Some(wanted) = &arguments.diff {
        let mut newest = changes.iter().rev();
        let change = newest.find(|change| change.digest.starts_with(wanted));
        let change = change.ok_or_else(|| {
            CliError::Usage(anyhow!(
                "no change has the content {wanted}: `sluicebox changes {}` lists them",
                arguments.pipeline
            ))
        })?;
        let path = [&arguments.pipeline, "changes", &change.digest, "diff"];
        let answer = client.get(&path, &[])?;
        let lines = answer.text().lines().map(printable_line);
        return match arguments.host.json {
            true => print_json(&answer.text()),
            false => super::print(&lines.map(|line| format!("{line}\n")).collect::<String>()),
        };
    }
    changes.drain(..changes.len().saturating_sub(arguments.limit));
    match arguments.host.json {
        true => print_json(&changes),
        false => super::print(&to_text(&changes)),
    }
}

fn to_text(changes: &[ChangeRecord]) -> String {
    if changes.is_empty() {
        return "no changes yet\n".to_owned();
    }
    let now_ms = SystemClock.now_ms();
    let rows = changes.iter().map(|change| {
        let plan = change.plan.as_ref().map(plan::summary);
        let what: Vec<String> = plan.into_iter().chain(change.why.clone()).collect();
        let pause = change.pause_ms.map(|ms| format!("{ms} ms"));
        vec![
            ago(change.at_ms, now_ms),
            change.digest.chars().take(DIGEST_CHARS).collect(),
            change.by.clone().unwrap_or_else(|| "-".to_owned()),
            outcome(change.outcome).to_owned(),
            pause.unwrap_or_else(|| "-".to_owned()),
            match change.in_place {
                true => "in place".to_owned(),
                false => "-".to_owned(),
            },
            cut(&what.join(": "), WHAT_CHARS),
        ]
    });
    let header = ["when", "content", "by", "outcome", ">pause", "how", ""];
    table(&header, rows)
}

fn outcome(outcome: ChangeOutcome) -> &'static str {
    match outcome {
        ChangeOutcome::Refused => "refused",
        ChangeOutcome::Waiting => "waiting",
        ChangeOutcome::Probation => "on probation",
        ChangeOutcome::Held => "held",
        ChangeOutcome::TakenBack => "taken back",
        ChangeOutcome::Replaced => "replaced",
    }
}
