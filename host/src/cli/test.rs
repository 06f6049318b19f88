//! `sluicebox test`: runs test cases and reports their results.

use std::path::{Path, PathBuf};

use clap::Args;

use super::{CliError, loader, print};
use crate::logic::Loader;
use crate::testing::{self, Case, CaseFailure, CaseFailureKind, Outcome};

#[derive(Args)]
pub struct TestArguments {
    /// A pipeline's folder, with cases in `tests/`, or the folder of one case
    #[arg(default_value = ".")]
    folder: PathBuf,
    /// Write the results as the expected rows, if all runs agree
    #[arg(long)]
    update: bool,
    /// First seed for shuffling rows
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Runs every case, even after one has failed.
pub fn test(arguments: &TestArguments) -> Result<(), CliError> {
    let loader = loader()?;
    let cases = testing::find(&arguments.folder).map_err(|error| CliError::Usage(error.into()))?;
    let (mut passed, mut failed, mut untried) = (0, 0, 0);
    for case in &cases {
        match run(case, arguments, &loader) {
            Ok((is_passed, report)) => {
                print(&report)?;
                match is_passed {
                    true => passed += 1,
                    false => failed += 1,
                }
            }
            Err(error) => {
                print::stderr(format_args!("{}: {error}\n", case.name));
                untried += 1;
            }
        }
    }
    print(&format!("{passed} passed, {} failed\n", failed + untried))?;
    match (failed, untried) {
        (0, 0) => Ok(()),
        (_, 0) => Err(CliError::Failed(anyhow::anyhow!("not all tests passed"))),
        _ => Err(CliError::Usage(anyhow::anyhow!(
            "not all tests could be run"
        ))),
    }
}

fn run(
    case: &Case,
    arguments: &TestArguments,
    loader: &dyn Loader,
) -> Result<(bool, String), testing::TestError> {
    let (outcome, written) = match arguments.update {
        true => testing::update(case, loader, arguments.seed)?,
        false => (testing::run(case, loader, arguments.seed)?, Vec::new()),
    };
    let mut text = report(&case.name, &outcome);
    if arguments.update && !outcome.failures.is_empty() {
        text.push_str("  nothing was written: results differ from run to run\n");
    }
    for path in written {
        text += &format!("  written: {}\n", shown(&path).display());
    }
    Ok((outcome.failures.is_empty(), text))
}

/// The report of a case.
fn report(name: &str, outcome: &Outcome) -> String {
    let Outcome {
        runs,
        rows,
        compared,
        notes,
        failures,
    } = outcome;
    let mark = if failures.is_empty() {
        "ok    "
    } else {
        "FAILED"
    };
    let sinks = if *compared == 1 { "sink" } else { "sinks" };
    let mut text =
        format!("{mark} {name}: {rows} rows, {compared} {sinks} compared, {runs} runs\n");
    for note in notes {
        text += &format!("  {note}\n");
    }
    // Each failure is shown once, from the first run that has it, with the
    // number of runs.
    let mut shown: Vec<&CaseFailure> = Vec::new();
    for failure in failures {
        if !shown.iter().any(|other| subject(other) == subject(failure)) {
            shown.push(failure);
        }
    }
    for failure in shown {
        let same: Vec<&CaseFailure> = failures
            .iter()
            .filter(|other| subject(other) == subject(failure))
            .collect();
        text += &format!(
            "  {} ({}; failed in {} of {runs} runs)\n",
            subject(failure),
            failure.variant,
            same.len()
        );
        text += &indented(&details(&failure.kind), "    ");
    }
    if let Some(failure) = failures.first() {
        text += &dead_letters(&failure.dead_letters);
        text += "  SLUICEBOX_LOG=info shows what the host and its plugins log meanwhile\n";
    }
    text
}

fn subject(failure: &CaseFailure) -> String {
    match &failure.kind {
        CaseFailureKind::Run(_) => "the pipeline failed".to_owned(),
        CaseFailureKind::Rows { sink, .. } => {
            format!("sink `{sink}` did not get the expected rows")
        }
        CaseFailureKind::DeadLetters(_) => "the dead letters are not the expected ones".to_owned(),
    }
}

fn details(kind: &CaseFailureKind) -> String {
    match kind {
        CaseFailureKind::Run(error) => error.to_string(),
        CaseFailureKind::Rows { difference, .. } => difference.to_string(),
        CaseFailureKind::DeadLetters(difference) => difference.to_string(),
    }
}

/// Shows some dead letters: a row is often missing because it became one.
fn dead_letters(dead_letters: &[String]) -> String {
    const SHOWN_MAX: usize = 3;
    if dead_letters.is_empty() {
        return String::new();
    }
    let mut text = format!(
        "  {} rows became dead letters, such as\n",
        dead_letters.len()
    );
    for dead_letter in dead_letters.iter().take(SHOWN_MAX) {
        text += &indented(dead_letter, "    ");
    }
    text
}

fn indented(text: &str, by: &str) -> String {
    text.lines().map(|line| format!("{by}{line}\n")).collect()
}

/// The path from the current folder, if it is in it.
fn shown(path: &Path) -> &Path {
    std::env::current_dir()
        .ok()
        .and_then(|folder| path.strip_prefix(folder).ok())
        .unwrap_or(path)
}

#[cfg(test)]
mod tests;
