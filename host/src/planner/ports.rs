//! Which port of an operator each of its inputs comes into, and which outputs others
//! may read.

use super::builder::Builder;
use super::changes::told;
use super::graph::Section;
use super::section::Resolved;
use crate::config::{Mistake, OperatorConfig, Span, Spanned};
use crate::logic::{Kind, Port};
use crate::plan::{CHANGES, LATE, LATE_SIDES};
use crate::suggest;

impl Builder<'_> {
    /// The port of each of the operator's inputs. Every port must be read by one at
    /// least.
    pub(super) fn ports(
        &mut self,
        operator: &OperatorConfig,
        title: &str,
        ports: &[Port],
    ) -> Option<Vec<usize>> {
        let names = || ports.iter().map(|port| port.name.as_str());
        let unnamed = operator.inputs.iter().find(|input| input.port.is_none());
        if let Some(unnamed) = unnamed {
            if ports.len() == 1 {
                return Some(vec![0; operator.inputs.len()]);
            }
            let names: Vec<&str> = names().collect();
            let example: Vec<String> = names.iter().map(|name| format!("{name} = \"…\"")).collect();
            self.mistakes.push(
                Mistake::new(format!(
                    "{title} has the inputs {}: it must say which of them this is",
                    names.join(", ")
                ))
                .at(unnamed.from.span(), "")
                .help(format!("write `input = {{ {} }}`", example.join(", "))),
            );
            return None;
        }
        let mut good = true;
        let mut found = Vec::with_capacity(operator.inputs.len());
        let mut unknown: Vec<&Spanned<String>> = Vec::new();
        for name in operator
            .inputs
            .iter()
            .filter_map(|input| input.port.as_ref())
        {
            match ports.iter().position(|port| port.name == *name.get_ref()) {
                Some(port) => found.push(port),
                None if unknown.contains(&name) => {}
                None => unknown.push(name),
            }
        }
        for name in &unknown {
            good = false;
            let help = suggest::help(name.get_ref(), &format!("inputs of {title}"), names());
            self.mistakes.push(
                Mistake::new(format!("{title} has no input `{}`", name.get_ref()))
                    .at(name.span(), "")
                    .help(help),
            );
        }
        let missing = ports.iter().enumerate();
        let missing = missing.filter(|(port, _)| !found.contains(port));
        for (_, port) in missing.filter(|_| unknown.is_empty()) {
            good = false;
            let name = &port.name;
            self.mistakes.push(
                Mistake::new(format!("nothing comes into the input `{name}` of {title}"))
                    .at(operator.name.span(), "")
                    .help(format!("add it to its `input`: {name} = \"…\"")),
            );
        }
        good.then_some(found)
    }

    /// Reports an input that names an output which a section does not have.
    pub(super) fn refuse_output(
        &mut self,
        from: &Section,
        resolved: Option<&Resolved>,
        output: &str,
        place: &Span,
    ) {
        if matches!(from, Section::Operator(_)) && resolved.is_none() {
            // Its own mistake is reported.
            return;
        }
        let kind = resolved.map(|resolved| resolved.info.kind);
        let mistake = match output {
            LATE => {
                let Some(reason) = why_not_late(resolved) else {
                    return;
                };
                Mistake::new(format!("{} has no late output: {reason}", from.title())).help(
                    match kind {
                        Some(Kind::Join) => "its sides have one each: `late_left`, `late_right`",
                        Some(Kind::Process) => {
                            "with `order = \"event_time\"`, each input has one: `late_` and its \
                             name, or `late` for an only input"
                        }
                        _ => {
                            "aggregates with an event-time window have one, operators with `order = \
                             \"event_time\"` one for each input, and joins one for each side"
                        }
                    },
                )
            }
            CHANGES => match why_no_changes(from, resolved) {
                Some(reason) => Mistake::new(format!(
                    "{} tells no changes: {reason}",
                    from.title()
                ))
                .help(
                    "running aggregates do, and those with a tumbling, sliding or session window \
                         in event time that have `allowed_lateness`",
                ),
                // Its own mistake is reported.
                None => return,
            },
            output if kind == Some(Kind::Process) && output.starts_with("late_") => {
                Mistake::new(format!("{} has no output `{output}`", from.title())).help(
                    "with `order = \"event_time\"`, each of its inputs has an output for late \
                     rows: `late_` and the input's name, or `late` for an only input",
                )
            }
            output if LATE_SIDES.contains(&output) && kind == Some(Kind::Join) => {
                Mistake::new(format!("{} has no output `{output}`", from.title()))
                    .help("remove this: no row is ever late for this join")
            }
            output => {
                let name = from.name().get_ref();
                let outputs = resolved.map_or(&[][..], |resolved| &resolved.info.outputs);
                let help = match outputs {
                    [] | [_] => format!("write \"{name}\" for its rows"),
                    outputs => suggest::help(
                        output,
                        &format!("outputs of `{name}`"),
                        outputs.iter().map(|port| port.name.as_str()),
                    ),
                };
                Mistake::new(format!("{} has no output `{output}`", from.title())).help(help)
            }
        };
        self.mistakes.push(mistake.at(place.clone(), ""));
    }
}

/// Why a section has no output for changes; `None` after a mistake.
fn why_no_changes(from: &Section, resolved: Option<&Resolved>) -> Option<&'static str> {
    let (Section::Operator(operator), Some(resolved)) = (from, resolved) else {
        return Some("only results of aggregates change");
    };
    match (resolved.info.kind, &resolved.timing) {
        (Kind::Aggregate, None) => None,
        (Kind::Aggregate, Some(timing)) => told(operator, timing).err(),
        _ => Some("only results of aggregates change"),
    }
}

fn why_not_late(resolved: Option<&Resolved>) -> Option<String> {
    let Some(resolved) = resolved else {
        return Some("only operators that wait for event time have late rows".to_owned());
    };
    match (resolved.info.kind, &resolved.timing) {
        (Kind::Aggregate, None) => None,
        (Kind::Aggregate, Some(timing)) if timing.window.has_late_output() => None,
        (Kind::Aggregate, Some(_)) => Some("no row is ever late for its window".to_owned()),
        (Kind::Process, _) => Some("it takes rows as they come, or has several inputs".to_owned()),
        (kind, _) => Some(format!("it is a {}", kind.name())),
    }
}
