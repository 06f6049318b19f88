//! Resolves the inputs of sections, and orders sections topologically.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::section::{title_of, whole_name};
use super::stages::Stages;
use crate::config::{
    Config, Diagnostics, InputName, Mistake, OperatorConfig, SinkConfig, SourceConfig, Span,
    Spanned,
};
use crate::suggest;

/// A message does not name more sections of a cycle.
const CYCLE_SHOWN_MAX: usize = 20;

/// All sections (sources, operators, sinks, in this order), and their inputs.
pub(super) struct Graph<'a> {
    pub sections: Vec<Section<'a>>,
    /// The inputs of each section; `None` for one that cannot be resolved.
    pub inputs: Vec<Vec<Option<ResolvedInput<'a>>>>,
    /// Sections in topological order, without those on a cycle.
    pub order: Vec<usize>,
}

#[derive(Clone, Copy)]
pub(super) enum Section<'a> {
    Source(&'a SourceConfig),
    Operator(&'a OperatorConfig),
    Sink(&'a SinkConfig),
}

pub(super) struct ResolvedInput<'a> {
    pub from: usize,
    /// The output that it reads, if not the main one.
    pub output: Option<&'a str>,
    pub place: Span,
}

impl<'a> Section<'a> {
    pub fn name(&self) -> &'a Spanned<String> {
        match self {
            Section::Source(source) => &source.name,
            Section::Operator(operator) => &operator.name,
            Section::Sink(sink) => &sink.name,
        }
    }

    /// The name in the pipeline's file, also for a stage.
    fn whole_name(&self) -> &'a str {
        whole_name(self.name().get_ref())
    }

    /// The section's name in messages.
    pub fn title(&self) -> String {
        let role = match self {
            Section::Source(_) => "source",
            Section::Operator(operator) => return title_of(operator),
            Section::Sink(_) => "sink",
        };
        format!("{role} `{}`", self.name().get_ref())
    }

    fn inputs(&self) -> Vec<&'a Spanned<InputName>> {
        match self {
            Section::Source(_) => Vec::new(),
            Section::Operator(operator) => {
                operator.inputs.iter().map(|input| &input.from).collect()
            }
            Section::Sink(sink) => sink.input.iter().collect(),
        }
    }
}

impl<'a> Graph<'a> {
    /// `stages` run in place of the operators that have some.
    pub fn new(config: &'a Config, stages: &'a Stages, mistakes: &mut Diagnostics) -> Self {
        let sources = config.sources.iter().map(Section::Source);
        let operators = config.operators.iter().enumerate();
        let operators = operators.flat_map(|(at, operator)| {
            let stages = stages.of(at);
            let itself = stages.is_empty().then_some(operator);
            let stages = stages.iter().map(|stage| &stage.config);
            itself.into_iter().chain(stages).map(Section::Operator)
        });
        let sinks = config.sinks.iter().map(Section::Sink);
        let sections: Vec<Section> = sources.chain(operators).chain(sinks).collect();
        let by_name = index(&sections, mistakes);
        let inputs = sections
            .iter()
            .map(|section| resolve_inputs(section, &sections, stages, &by_name, mistakes))
            .collect();
        let mut graph = Graph {
            sections,
            inputs,
            order: Vec::new(),
        };
        graph.order(mistakes);
        graph
    }

    /// Whether an input reads this output, which is not the main one.
    pub fn is_read(&self, at: usize, output: &str) -> bool {
        let mut inputs = self.inputs.iter().flatten().flatten();
        inputs.any(|input| input.from == at && input.output == Some(output))
    }

    /// Repeatedly takes the first section in the file whose inputs have all
    /// been taken. If there is none, there is a cycle: it is reported and
    /// removed, so that the sections after it are still checked.
    fn order(&mut self, mistakes: &mut Diagnostics) {
        let mut waiting: BTreeSet<usize> = (0..self.sections.len()).collect();
        while !waiting.is_empty() {
            let ready = waiting.iter().copied().find(|at| {
                let mut froms = self.inputs[*at].iter().flatten().map(|input| input.from);
                froms.all(|from| !waiting.contains(&from))
            });
            match ready {
                Some(at) => {
                    waiting.remove(&at);
                    self.order.push(at);
                }
                None => {
                    let cycle = self.find_cycle(&waiting);
                    mistakes.push(self.describe_cycle(&cycle));
                    for (at, _) in cycle {
                        waiting.remove(&at);
                    }
                }
            }
        }
    }

    /// Finds a cycle: its sections in the order of flow, each with the place of
    /// the input that reads the one before.
    fn find_cycle(&self, waiting: &BTreeSet<usize>) -> Vec<(usize, Span)> {
        let mut path: Vec<(usize, Span)> = Vec::new();
        let mut seen = HashSet::new();
        let mut at = waiting.first().copied().unwrap_or_default();
        // Each waiting section has a waiting input, so following inputs ends at
        // a section that was visited before.
        while seen.insert(at) {
            let mut inputs = self.inputs[at].iter().flatten();
            let Some(input) = inputs.find(|input| waiting.contains(&input.from)) else {
                break;
            };
            path.push((at, input.place.clone()));
            at = input.from;
        }
        let start = path.iter().position(|(seen, _)| *seen == at).unwrap_or(0);
        let mut cycle = path.split_off(start);
        cycle.reverse();
        let first = cycle.iter().enumerate().min_by_key(|(_, (at, _))| *at);
        let first = first.map_or(0, |(position, _)| position);
        cycle.rotate_left(first);
        cycle
    }

    fn describe_cycle(&self, cycle: &[(usize, Span)]) -> Mistake {
        let name = |at: usize| self.sections[at].name().get_ref().as_str();
        let shown = &cycle[..cycle.len().min(CYCLE_SHOWN_MAX)];
        let mut around: Vec<String> = shown.iter().map(|(at, _)| name(*at).to_owned()).collect();
        if shown.len() < cycle.len() {
            around.push(format!("{} more", cycle.len() - shown.len()));
        }
        around.extend(shown.first().map(|(at, _)| name(*at).to_owned()));
        let mut mistake =
            Mistake::new(format!("these inputs form a cycle: {}", around.join(" → ")))
                .help("remove one of these inputs: rows flow from sources to sinks");
        for (at, place) in shown {
            mistake = mistake.at(place.clone(), format!("input of `{}`", name(*at)));
        }
        mistake
    }
}

fn index<'a>(sections: &[Section<'a>], mistakes: &mut Diagnostics) -> HashMap<&'a str, usize> {
    let mut by_name: HashMap<&str, usize> = HashMap::new();
    for (at, section) in sections.iter().enumerate() {
        let name = section.name();
        let first = *by_name.entry(name.get_ref()).or_insert(at);
        if first != at {
            let first = &sections[first];
            mistakes.push(
                Mistake::new(format!("two sections are named `{}`", name.get_ref()))
                    .at(name.span(), format!("{} here", section.title()))
                    .at(first.name().span(), format!("{} here", first.title()))
                    .help(format!(
                        "sources, operators and sinks share their names: rename one, such as to \
                         `{}`",
                        free_name(name.get_ref(), sections)
                    )),
            );
        }
    }
    by_name
}

fn resolve_inputs<'a>(
    section: &Section<'a>,
    sections: &[Section],
    stages: &'a Stages,
    by_name: &HashMap<&str, usize>,
    mistakes: &mut Diagnostics,
) -> Vec<Option<ResolvedInput<'a>>> {
    let resolve = |input: &'a Spanned<InputName>| {
        let name = input.get_ref();
        let (node, output) = stages.origin(name);
        let found = by_name.get(node).copied();
        let problem = match found.map(|at| &sections[at]) {
            None => format!("{} reads `{name}`, which does not exist", section.title()),
            Some(Section::Sink(_)) => {
                format!(
                    "{} reads `{name}`, which is a sink: sinks have no output",
                    section.title()
                )
            }
            Some(_) => {
                return found.map(|from| ResolvedInput {
                    from,
                    output,
                    place: input.span(),
                });
            }
        };
        let mut mistake = Mistake::new(problem).at(input.span(), "");
        if mistakes.wants_help() {
            let feeding = sources_of(section, sections);
            mistake = mistake.help(suggest::help(&name.node, "sources and operators", feeding));
        }
        mistakes.push(mistake);
        None
    };
    section.inputs().into_iter().map(resolve).collect()
}

/// The names of the sections that a section can read: neither its own, nor those of
/// sections that read it, or that read what reads it.
fn sources_of<'a>(section: &Section<'a>, sections: &[Section<'a>]) -> Vec<&'a str> {
    let mut behind = HashSet::from([section.whole_name()]);
    loop {
        let before = behind.len();
        for other in sections {
            let mut inputs = other.inputs().into_iter();
            if inputs.any(|input| behind.contains(whole_name(&input.get_ref().node))) {
                behind.insert(other.whole_name());
            }
        }
        if behind.len() == before {
            break;
        }
    }
    let mut seen = HashSet::new();
    sections
        .iter()
        .filter(|other| !matches!(other, Section::Sink(_)))
        .map(Section::whole_name)
        .filter(|name| !behind.contains(name) && seen.insert(*name))
        .collect()
}

/// The first name with a number behind it that no section has.
fn free_name(name: &str, sections: &[Section]) -> String {
    let is_taken = |free: &String| sections.iter().any(|it| it.name().get_ref() == free);
    let mut numbered = (2..).map(|number| format!("{name}_{number}"));
    numbered
        .find(|free| !is_taken(free))
        .expect("there are more numbers than sections")
}
