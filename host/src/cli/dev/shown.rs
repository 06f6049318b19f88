//! What is printed while a pipeline is written.

use std::fmt::{Display, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::cli::print;
use crate::progress::{NodeProgress, Role};
use crate::service::change::ChangePlan;
use crate::service::shadow::{Comparison, Difference, Tried};
use crate::service::store::ChangeRecord;

/// Prints a line to stderr: rows go to stdout.
pub fn tell(line: impl Display) {
    print::stderr(format_args!("dev: {line}\n"));
}

/// How a change took effect.
pub enum Effect {
    /// In the tasks that run.
    InPlace { pause_ms: u64 },
    /// In tasks of its own, which go on from a checkpoint.
    Restarted,
    /// The same without one.
    Begun,
}

/// What somebody has saved.
pub fn saved<'a>(paths: impl IntoIterator<Item = &'a PathBuf>) -> String {
    let names = paths.into_iter().map(|path| {
        let name = path.file_name().unwrap_or(path.as_os_str());
        name.display().to_string()
    });
    format!("saved: {}", Vec::from_iter(names).join(", "))
}

/// What was saved is what runs.
pub fn effect(effect: &Effect, since: Duration, rebuild: Option<Duration>) -> String {
    let how = match effect {
        Effect::InPlace { pause_ms } => {
            format!("took over in place, with all states; rows waited {pause_ms} ms")
        }
        Effect::Restarted => "took over at a checkpoint, by a restart".to_owned(),
        Effect::Begun => "begins anew".to_owned(),
    };
    let seconds = |duration: Duration| format!("{:.2} s", duration.as_secs_f64());
    let parts = match rebuild {
        Some(rebuild) => format!(
            ": {} to build, {} for the rest",
            seconds(rebuild),
            seconds(since.saturating_sub(rebuild))
        ),
        None => String::new(),
    };
    format!("{how}; {} after it was saved{parts}", seconds(since))
}

/// A content has held.
pub fn held(change: &ChangeRecord) -> String {
    match change.pause_ms.filter(|_| !change.in_place) {
        Some(pause_ms) => format!("it has held; no row was read for {pause_ms} ms"),
        None => "it has held".to_owned(),
    }
}

/// Why a content is not run, and what to do.
pub fn refused(change: &ChangeRecord, pipeline: &str, url: &str) -> String {
    let lost = change.plan.iter().flat_map(ChangePlan::lost);
    let lost = Vec::from_iter(lost.map(|node| node.name.as_str()));
    if lost.is_empty() {
        let why = change.why.as_deref().unwrap_or_default();
        return format!("refused, and what runs goes on: {why}");
    }
    let mut text = "refused, and what runs goes on:".to_owned();
    for node in change.plan.iter().flat_map(ChangePlan::lost) {
        let why = node.why_lost();
        let _ = write!(
            text,
            "\n  {} {} cannot keep its state: {why}",
            node.role, node.name
        );
    }
    let names = serde_json::to_string(&lost).unwrap_or_default();
    let _ = write!(
        text,
        "\n  change it back, or let the state go:\n  curl -d '{{\"drop\": {names}}}' \
         {url}api/v1/pipelines/{pipeline}/start"
    );
    text
}

/// Where plugins differ from those that run, if they do.
pub fn compared(plan: &ChangePlan) -> String {
    let mut text = String::new();
    let nodes = plan.nodes.iter();
    let compared = nodes.filter_map(|node| Some((node.name.as_str(), node.compared.as_ref()?)));
    let (differing, same): (Vec<_>, Vec<_>) =
        compared.partition(|(_, compared)| compared.differing > 0);
    for (name, compared) in differing {
        difference(name, compared, &mut text);
    }
    if !same.is_empty() {
        let same = Vec::from_iter(same.iter().map(|(name, _)| *name));
        let _ = writeln!(text, "dev: as before on recent rows: {}", same.join(", "));
    }
    text
}

fn difference(name: &str, compared: &Comparison, text: &mut String) {
    let Comparison {
        of,
        tried,
        differing,
        first,
    } = compared;
    let what = match of {
        Tried::Rows => "recent rows",
        Tried::Keys => "keys, with their recent rows alone",
    };
    let _ = writeln!(
        text,
        "dev: {name}: something else for {differing} of {tried} {what}"
    );
    for Difference { input, then, now } in first {
        let _ = writeln!(text, "  {input}");
        for (when, lines) in [("then", then), ("now ", now)] {
            if lines.is_empty() {
                let _ = writeln!(text, "    {when} nothing");
            }
            for line in lines {
                let _ = writeln!(text, "    {when} {line}");
            }
        }
    }
    let more = differing - first.len() as u64;
    if more > 0 {
        let _ = writeln!(text, "  and {more} more");
    }
}

/// The inputs have ended.
pub fn ended(nodes: &[Arc<NodeProgress>]) -> String {
    let nodes = Vec::from_iter(nodes.iter().map(|node| node.snapshot()));
    let rows = |role| {
        let nodes = nodes.iter().filter(move |node| node.role == role);
        nodes.map(|node| node.rows_in).sum::<u64>()
    };
    let mut text = format!(
        "the inputs have ended: {} rows read, {} written",
        rows(Role::Source),
        rows(Role::Sink)
    );
    let sums = [
        ("late", nodes.iter().map(|node| node.late).sum::<u64>()),
        ("rejected", nodes.iter().map(|node| node.rejected).sum()),
        ("failed", nodes.iter().map(|node| node.failed).sum()),
    ];
    for (what, count) in sums.into_iter().filter(|(_, count)| *count > 0) {
        let _ = write!(text, ", {count} {what}");
    }
    text.push_str("; waiting for changes");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::change::{NodeEffect, NodePlan, StateEffect};
    use crate::service::store::ChangeOutcome;

    fn node(state: StateEffect) -> NodePlan {
        NodePlan {
            name: "average".to_owned(),
            role: "operator".to_owned(),
            change: NodeEffect::Changed,
            fields: Vec::new(),
            state,
            why: Some("`state.sum` is gone".to_owned()),
            compared: None,
        }
    }

    #[test]
    fn what_differs_is_shown_with_what_it_was() {
        let difference = Difference {
            input: "{\"n\":1}".to_owned(),
            then: vec!["{\"m\":2}".to_owned()],
            now: Vec::new(),
        };
        let same = NodePlan {
            name: "clean".to_owned(),
            compared: Some(Comparison {
                of: Tried::Keys,
                tried: 1,
                differing: 0,
                first: Vec::new(),
            }),
            ..node(StateEffect::Kept)
        };
        let compared_node = NodePlan {
            compared: Some(Comparison {
                of: Tried::Rows,
                tried: 9,
                differing: 2,
                first: vec![difference],
            }),
            ..node(StateEffect::Kept)
        };
        let plan = ChangePlan {
            nodes: vec![node(StateEffect::Kept), same, compared_node],
            in_place: true,
        };
        assert_eq!(
            compared(&plan),
            "dev: average: something else for 2 of 9 recent rows\n  {\"n\":1}\n    then {\"m\":2}\n    \
             now  nothing\n  and 1 more\ndev: as before on recent rows: clean\n"
        );
    }

    #[test]
    fn a_refusal_says_which_state_and_what_to_do() {
        let change = ChangeRecord {
            at_ms: 0,
            digest: String::new(),
            then: None,
            by: None,
            outcome: ChangeOutcome::Refused,
            why: Some("it is long".to_owned()),
            plan: Some(ChangePlan {
                nodes: vec![node(StateEffect::Kept), node(StateEffect::Incompatible)],
                in_place: false,
            }),
            pause_ms: None,
            in_place: false,
        };
        assert_eq!(
            refused(&change, "shop", "http://127.0.0.1:1/"),
            "refused, and what runs goes on:\n  operator average cannot keep its state: `state.sum` is \
             gone\n  change it back, or let the state go:\n  curl -d '{\"drop\": [\"average\"]}' \
             http://127.0.0.1:1/api/v1/pipelines/shop/start"
        );
        let change = ChangeRecord {
            plan: None,
            ..change
        };
        let shown = refused(&change, "shop", "");
        assert_eq!(shown, "refused, and what runs goes on: it is long");
    }

    #[test]
    fn an_effect_says_where_the_time_went() {
        let (since, rebuild) = (Duration::from_millis(1_730), Duration::from_millis(1_600));
        assert_eq!(
            effect(&Effect::InPlace { pause_ms: 2 }, since, Some(rebuild)),
            "took over in place, with all states; rows waited 2 ms; 1.73 s after it was saved: \
             1.60 s to build, 0.13 s for the rest"
        );
        assert_eq!(
            effect(&Effect::Begun, rebuild, None),
            "begins anew; 1.60 s after it was saved"
        );
    }
}
