//! Plans recommenders: each is run as processes, its stages, which its plugin describes
//! beside it. They take the section's place in the graph, and are planned as other
//! processes are.
//!
//! Rows of a stage are in order of event time, then of their input and columns, so that
//! answers depend on nothing but the rows.

use super::builder::Builder;
use super::keys::Keys;
use super::plugin::Plugins;
use super::reading::Reading;
use crate::config::{
    InputConfig, InputName, KeyColumns, KeyConfig, Mistake, OperatorConfig, OperatorName, Runs,
    Span, Spanned,
};
use crate::logic::{INTERACTIONS, Kind, OperatorInfo, Port, REQUESTS, Stage};
use crate::plan::{LATE, RowOrder};
use crate::schema::{Field, Schema};
use crate::suggest;

/// A stage of a recommender, as a section of its own.
pub(super) struct StageSection {
    pub stage: Stage,
    pub config: OperatorConfig,
    /// The field that says who the user of a row is, which has another name in each pipeline.
    pub user: Spanned<String>,
}

/// What runs for each operator of the config.
#[derive(Default)]
pub(super) struct Stages {
    /// By the operator's place in the config; empty for one that is no recommender.
    of_operators: Vec<Vec<StageSection>>,
}

/// Which columns of its input say who and what a row is about.
struct Subjects<'c> {
    user: &'c Spanned<String>,
    item: &'c Spanned<String>,
}

/// The columns by which stages pass on users and items.
const USER: &str = "user";
const ITEM: &str = "item";

impl Stages {
    /// The stages of an operator, by its place in the config.
    pub fn of(&self, operator: usize) -> &[StageSection] {
        self.of_operators.get(operator).map_or(&[], Vec::as_slice)
    }

    /// The stage that this section is, if it is one.
    pub fn find(&self, operator: &OperatorConfig) -> Option<&StageSection> {
        let mut all = self.of_operators.iter().flatten();
        all.find(|stage| std::ptr::eq(&raw const stage.config, operator))
    }

    /// The section and output that an input reads: late rows come from the stages that take
    /// the recommender's inputs.
    pub fn origin<'n>(&'n self, name: &'n InputName) -> (&'n str, Option<&'n str>) {
        let given = (name.node.as_str(), name.output.as_deref());
        let mut all = self.of_operators.iter();
        let is_meant = |stage: &StageSection| *stage.config.name.get_ref() == name.node;
        let stages = all.find(|stages| stages.last().is_some_and(is_meant));
        let (Some(output), Some([counts, second, ..])) = (given.1, stages.map(Vec::as_slice))
        else {
            return given;
        };
        let takes_requests = second.stage == Stage::Requests;
        let (from, output) = match (output, takes_requests) {
            ("late", false) | ("late_interactions", true) => (counts, LATE),
            ("late_requests", true) => (second, LATE),
            // No stage has another one.
            (late, _) if late.starts_with(LATE) => (counts, late),
            _ => return given,
        };
        (from.config.name.get_ref(), Some(output))
    }
}

/// What messages call the operator that a section belongs to.
pub(super) fn title_of(operator: &OperatorConfig) -> String {
    format!("operator `{}`", whole_name(operator.name.get_ref()))
}

/// The name of a recommender for that of one of its stages; other names have no `.`.
pub(super) fn whole_name(name: &str) -> &str {
    name.split_once('.').map_or(name, |(whole, _)| whole)
}

impl Builder<'_> {
    /// The stages of all recommenders that have no mistake.
    pub(super) fn stages(&mut self, plugins: &Plugins) -> Stages {
        let operators = self.config.operators.iter();
        let of_operators = operators.map(|operator| {
            let info = recommender(operator, plugins);
            info.and_then(|info| self.stages_of(operator, info, plugins))
                .unwrap_or_default()
        });
        Stages {
            of_operators: of_operators.collect(),
        }
    }

    fn stages_of(
        &mut self,
        operator: &OperatorConfig,
        info: &OperatorInfo,
        plugins: &Plugins,
    ) -> Option<Vec<StageSection>> {
        let name = operator.name.get_ref();
        let title = format!("operator `{name}`");
        let Runs::Plugin(wanted) = &operator.runs else {
            return None;
        };
        self.refuse_aggregate_settings(operator, &title, Kind::Recommend);
        if let Some(order) = &operator.order
            && order.value != RowOrder::EventTime
        {
            self.mistakes.push(
                Mistake::new(format!(
                    "{title}: a recommender takes its rows in order of event time"
                ))
                .at(order.key.clone(), "")
                .help("remove it"),
            );
        }
        let subjects = self.subjects(operator, &title);
        let asks = self.requests(operator, &title, info);
        let arguments = self.arguments(operator, wanted.get_ref(), &title, &info.parameters);
        let module = plugins.get(wanted.get_ref().plugin.as_str())?.as_ref()?;
        let counts = stage_name(wanted.get_ref(), Stage::Counts);
        // All stages have the same parameters: what one does not take is said once.
        self.open(operator, &counts, module.as_ref(), &arguments?)?;
        Some(sections(operator, wanted, &subjects?, asks?))
    }

    /// The fields for the user and the item, which the key names.
    fn subjects<'c>(&mut self, operator: &'c OperatorConfig, title: &str) -> Option<Subjects<'c>> {
        let example = "write `key = { user = \"…\", item = \"…\" }`, each with a field of its \
                       input";
        let wanted = |at: Span| {
            Mistake::new(format!(
                "{title} is a recommender: its key says which fields are the user and the item"
            ))
            .at(at, "")
            .help(example)
        };
        let Some(key) = &operator.key else {
            self.mistakes.push(wanted(operator.name.span()));
            return None;
        };
        let KeyColumns::ByPort(parts) = &key.columns else {
            self.mistakes.push(wanted(key.place.clone()));
            return None;
        };
        let mut good = true;
        for (name, _) in parts {
            if ![USER, ITEM].contains(&name.get_ref().as_str()) {
                good = false;
                let help = suggest::help(name.get_ref(), "parts of the key", [USER, ITEM]);
                self.mistakes.push(
                    Mistake::new(format!(
                        "the key of {title} has no part `{}`",
                        name.get_ref()
                    ))
                    .at(name.span(), "")
                    .help(help),
                );
            }
        }
        let mut part = |wanted_part: &str| {
            let (name, fields) = parts
                .iter()
                .find(|(name, _)| name.get_ref() == wanted_part)?;
            match fields.as_slice() {
                [field] => Some(field),
                _ => {
                    self.mistakes.push(
                        Mistake::new(format!(
                            "the {wanted_part} of {title} is one field, not several"
                        ))
                        .at(name.span(), "")
                        .help(example),
                    );
                    good = false;
                    None
                }
            }
        };
        let (user, item) = (part(USER), part(ITEM));
        if good && (user.is_none() || item.is_none()) {
            self.mistakes.push(wanted(key.place.clone()));
        }
        Some(Subjects {
            user: user?,
            item: item?,
        })
    }

    /// Whether requests come by an input of their own; `None` after a mistake.
    fn requests(
        &mut self,
        operator: &OperatorConfig,
        title: &str,
        info: &OperatorInfo,
    ) -> Option<bool> {
        let named = || {
            operator
                .inputs
                .iter()
                .filter_map(|input| input.port.as_ref())
        };
        let mut good = true;
        for name in named() {
            if info.inputs.iter().all(|port| port.name != *name.get_ref()) {
                good = false;
                let names = info.inputs.iter().map(|port| port.name.as_str());
                let help = suggest::help(name.get_ref(), &format!("inputs of {title}"), names);
                self.mistakes.push(
                    Mistake::new(format!("{title} has no input `{}`", name.get_ref()))
                        .at(name.span(), "")
                        .help(help),
                );
            }
        }
        let has = |wanted: &str| named().any(|name| name.get_ref() == wanted);
        let is_unnamed = operator.inputs.iter().any(|input| input.port.is_none());
        if good && !is_unnamed && !has(INTERACTIONS) {
            good = false;
            self.mistakes.push(
                Mistake::new(format!(
                    "nothing comes into the input `{INTERACTIONS}` of {title}"
                ))
                .at(operator.name.span(), "")
                .help(format!("add it to its `input`: {INTERACTIONS} = \"…\"")),
            );
        }
        good.then(|| has(REQUESTS))
    }

    /// The columns that the first stage reads of its edges: the user, then those of the
    /// interaction.
    pub(super) fn columns_of_interactions(
        &mut self,
        title: &str,
        stage: &StageSection,
        port: &Port,
        reading: &Reading,
    ) -> Option<Vec<Vec<usize>>> {
        let (user, interaction) = port.schema.fields.split_first()?;
        let interaction = Schema::new(interaction.to_vec());
        let name = stage.user.get_ref();
        let edges = reading.upstreams.iter().map(|up| {
            let up = up.as_ref()?;
            let column = match up.find(name) {
                Ok(column) if user.reads(up.field(column)) => Some(column),
                Ok(column) => {
                    let (given, place) = (up.field(column), stage.user.span());
                    let mistake = not_text(title, given, USER, place);
                    let mistake = mistake.at(up.field_place(column), "it is from here");
                    self.mistakes.push(mistake);
                    None
                }
                Err(_) => {
                    let reads = format!("{title} has the key");
                    let mistake = up.lacks(&reads, name, &stage.user.span(), "the user");
                    self.mistakes.push(mistake);
                    None
                }
            };
            let mut columns = vec![column];
            let rest = self.columns_read(title, &interaction, up)?;
            columns.extend(rest.into_iter().map(Some));
            columns.into_iter().collect()
        });
        let edges: Vec<Option<Vec<usize>>> = edges.collect();
        edges.into_iter().collect()
    }

    /// The columns of the key that a stage reads: all, in their order, whatever their names.
    pub(super) fn stage_key_read(
        &mut self,
        title: &str,
        wanted: &Schema,
        keys: &Keys,
    ) -> Option<Vec<usize>> {
        let given = keys
            .relation
            .schema
            .fields
            .iter()
            .zip(&keys.relation.places);
        for (wanted, (given, place)) in wanted.fields.iter().zip(given) {
            if !wanted.reads(given) {
                self.mistakes
                    .push(not_text(title, given, &wanted.name, place.clone()));
                return None;
            }
        }
        Some((0..wanted.fields.len()).collect())
    }
}

fn not_text(title: &str, given: &Field, what: &str, place: Span) -> Mistake {
    Mistake::new(format!("`{given}` cannot be the {what} of {title}"))
        .at(place, "")
        .help(
            "users and items are texts that are never missing: declare the field as utf8, or have \
             a transform make a text of it",
        )
}

/// The description of the recommender that an operator runs, if it is one.
fn recommender<'p>(operator: &OperatorConfig, plugins: &'p Plugins) -> Option<&'p OperatorInfo> {
    let Runs::Plugin(wanted) = &operator.runs else {
        return None;
    };
    let wanted = wanted.get_ref();
    let module = plugins.get(wanted.plugin.as_str())?.as_ref()?;
    let mut operators = module.info().operators.iter();
    operators.find(|info| info.kind == Kind::Recommend && info.name == wanted.operator)
}

fn stage_name(recommender: &OperatorName, stage: Stage) -> OperatorName {
    OperatorName {
        plugin: recommender.plugin.clone(),
        operator: stage.of(&recommender.operator),
    }
}

/// The sections of a recommender's stages, in the order of flow. The last one has the
/// recommender's name, since its output is that of all.
fn sections(
    operator: &OperatorConfig,
    wanted: &Spanned<OperatorName>,
    subjects: &Subjects<'_>,
    takes_requests: bool,
) -> Vec<StageSection> {
    let name = operator.name.get_ref();
    let place = operator.name.span();
    let named = |text: &str| Spanned::new(place.clone(), text.to_owned());
    let from = |port: Option<&str>, stage: Stage, output: Option<&str>| InputConfig {
        port: port.map(named),
        from: Spanned::new(
            place.clone(),
            InputName {
                node: stage.of(name),
                output: output.map(str::to_owned),
            },
        ),
    };
    // A stage that takes an input of the recommender has no other.
    let of_port = |wanted: &str| {
        let inputs = operator.inputs.iter().filter(|input| {
            let port = input.port.as_ref();
            port.map_or(INTERACTIONS, |port| port.get_ref()) == wanted
        });
        let input = |input: &InputConfig| InputConfig {
            port: None,
            from: input.from.clone(),
        };
        inputs.map(input).collect::<Vec<InputConfig>>()
    };
    let same = |field: &Spanned<String>| KeyColumns::Same(vec![field.clone()]);
    let section = |stage: Stage, inputs: Vec<InputConfig>, columns: KeyColumns| {
        let is_first = stage == Stage::Counts;
        let config = OperatorConfig {
            name: match stage {
                Stage::Answers => operator.name.clone(),
                stage => named(&stage.of(name)),
            },
            runs: Runs::Plugin(Spanned::new(
                wanted.span(),
                stage_name(wanted.get_ref(), stage),
            )),
            inputs,
            parameters: operator.parameters.clone(),
            parameters_place: operator.parameters_place.clone(),
            time: match is_first {
                true => operator.time.clone(),
                false => Default::default(),
            },
            on_error: operator.on_error,
            limits: operator.limits,
            key: Some(KeyConfig {
                place: operator
                    .key
                    .as_ref()
                    .map_or(place.clone(), |key| key.place.clone()),
                columns,
            }),
            window: None,
            allowed_lateness_ms: None,
            emit: None,
            // What waits for answers goes by itself.
            ttl_ms: operator.ttl_ms.clone().filter(|_| stage != Stage::Answers),
            bounds: None,
            timing: None,
            discard: None,
            order: None,
        };
        StageSection {
            stage,
            config,
            user: subjects.user.clone(),
        }
    };
    let interactions = of_port(INTERACTIONS);
    let mut sections = vec![section(Stage::Counts, interactions, same(subjects.item))];
    let by_user = || same(&named(USER));
    let of_profiles = match takes_requests {
        true => Stage::Profiles,
        false => Stage::ProfilesAsking,
    };
    if takes_requests {
        let requests = of_port(REQUESTS);
        sections.push(section(Stage::Requests, requests, same(subjects.user)));
        let both = vec![
            from(Some(REQUESTS), Stage::Requests, None),
            from(Some(INTERACTIONS), Stage::Counts, None),
        ];
        sections.push(section(of_profiles, both, by_user()));
    } else {
        let counted = vec![from(None, Stage::Counts, None)];
        sections.push(section(of_profiles, counted, by_user()));
    }
    let asked = vec![from(None, of_profiles, None)];
    sections.push(section(Stage::Models, asked, same(&named(ITEM))));
    let answered = vec![
        from(None, of_profiles, Some("answers")),
        from(None, Stage::Models, None),
    ];
    sections.push(section(Stage::Answers, answered, by_user()));
    sections
}
