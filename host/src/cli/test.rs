//! `sluicebox test`: tells what the runs of each case have shown.

use std::path::{Path, PathBuf};

use clap::Args;

use super::{Trouble, loader};
use crate::logic::Loader;
use crate::testing::{self, Case, Failure, FailureKind, Outcome};

#[derive(Args)]
pub struct TestArguments {
    /// A pipeline's folder, with cases in `tests/`, or the folder of one case
    #[arg(default_value = ".")]
    folder: PathBuf,
    /// Write what comes as what is expected, if all runs agree
    #[arg(long)]
    update: bool,
    /// Where the orders of shuffled rows start from
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Runs every case, also after one has failed.
pub fn test(arguments: &TestArguments) -> Result<(), Trouble> {
    let loader = loader()?;
    let cases = testing::find(&arguments.folder).map_err(|error| Trouble::Usage(error.into()))?;
    let (mut passed, mut failed, mut untried) = (0, 0, 0);
    for case in &cases {
        match run(case, arguments, &loader) {
            Ok(true) => passed += 1,
            Ok(false) => failed += 1,
            Err(error) => {
                eprintln!("{}: {error}", case.name);
                untried += 1;
            }
        }
    }
    println!("{passed} passed, {} failed", failed + untried);
    match (failed, untried) {
        (0, 0) => Ok(()),
        (_, 0) => Err(Trouble::Failed(anyhow::anyhow!("not all tests passed"))),
        _ => Err(Trouble::Usage(anyhow::anyhow!(
            "not all tests could be tried"
        ))),
    }
}

fn run(
    case: &Case,
    arguments: &TestArguments,
    loader: &dyn Loader,
) -> Result<bool, testing::TestError> {
    let (outcome, written) = match arguments.update {
        true => testing::update(case, loader, arguments.seed)?,
        false => (testing::run(case, loader, arguments.seed)?, Vec::new()),
    };
    print!("{}", report(&case.name, &outcome));
    if arguments.update && !outcome.failures.is_empty() {
        println!("  nothing was written: what comes depends on the run");
    }
    for path in written {
        println!("  written: {}", shown(&path).display());
    }
    Ok(outcome.failures.is_empty())
}

/// What a person sees of a case.
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
    // The first run shows a failure, the others where else it is.
    let mut shown: Vec<&Failure> = Vec::new();
    for failure in failures {
        if !shown.iter().any(|other| subject(other) == subject(failure)) {
            shown.push(failure);
        }
    }
    for failure in shown {
        let same: Vec<&Failure> = failures
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
        text += &letters(&failure.dead_letters);
    }
    text
}

fn subject(failure: &Failure) -> String {
    match &failure.kind {
        FailureKind::Run(_) => "the pipeline failed".to_owned(),
        FailureKind::Rows { sink, .. } => format!("sink `{sink}` got other rows"),
        FailureKind::DeadLetters(_) => "other dead letters came".to_owned(),
    }
}

fn details(kind: &FailureKind) -> String {
    match kind {
        FailureKind::Run(error) => error.to_string(),
        FailureKind::Rows { difference, .. } => difference.to_string(),
        FailureKind::DeadLetters(difference) => difference.to_string(),
    }
}

/// Often a row is missing because it was refused on the way.
fn letters(letters: &[String]) -> String {
    const SHOWN_MAX: usize = 3;
    if letters.is_empty() {
        return String::new();
    }
    let mut text = format!("  {} rows became dead letters, such as\n", letters.len());
    for letter in letters.iter().take(SHOWN_MAX) {
        text += &indented(letter, "    ");
    }
    text
}

fn indented(text: &str, by: &str) -> String {
    text.lines().map(|line| format!("{by}{line}\n")).collect()
}

/// Relative to where the user is, where that is shorter.
fn shown(path: &Path) -> &Path {
    std::env::current_dir()
        .ok()
        .and_then(|folder| path.strip_prefix(folder).ok())
        .unwrap_or(path)
}

#[cfg(test)]
mod tests;
