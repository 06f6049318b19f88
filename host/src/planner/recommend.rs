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
use super::section::title_of;
use super::stages::{StageSection, input_from, stage_name};
use crate::config::{
    InputConfig, KeyColumns, Mistake, OperatorConfig, OperatorName, Runs, Span, Spanned,
};
use crate::logic::{INTERACTIONS, Kind, OperatorInfo, Port, REQUESTS, Stage};
use crate::plan::{RequestColumns, RowOrder};
use crate::schema::{Field, Schema};
use crate::suggest;

/// Which columns of its input say who and what a row is about.
struct Subjects<'c> {
    user: &'c Spanned<String>,
    item: &'c Spanned<String>,
}

/// The columns by which stages pass on users and items.
const USER: &str = "user";
const ITEM: &str = "item";

impl Builder<'_> {
    /// The stages of a recommender; `None` after a mistake.
    pub(super) fn stages_of_recommender(
        &mut self,
        operator: &OperatorConfig,
        info: &OperatorInfo,
        plugins: &Plugins,
    ) -> Option<Vec<StageSection>> {
        let title = title_of(operator);
        let Runs::Plugin(wanted) = &operator.runs else {
            return None;
        };
        self.refuse_table(operator, &title, info.kind);
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
        let field_of_user = stage.user.as_ref()?;
        let name = field_of_user.get_ref();
        let edges = reading.upstreams.iter().map(|up| {
            let up = up.as_ref()?;
            let column = match up.find(name) {
                Ok(column) if user.reads(up.field(column)) => Some(column),
                Ok(column) => {
                    let (given, place) = (up.field(column), field_of_user.span());
                    let mistake = not_text(title, given, USER, place);
                    let mistake = mistake.at(up.field_place(column), "it is from here");
                    self.mistakes.push(mistake);
                    None
                }
                Err(_) => {
                    let reads = format!("{title} has the key");
                    let mistake = up.lacks(&reads, name, &field_of_user.span(), "the user");
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

/// The columns of a request's parts: its user and number tell it from others, and a dead
/// letter shows all but the answers of models. `None` where a plugin has other columns.
pub(super) fn request_columns(port: &Port) -> Option<RequestColumns> {
    let fields = &port.schema.fields;
    let column = |name: &str| fields.iter().position(|field| field.name == name);
    let (user, number, answer) = (column(USER)?, column("row")?, column("answer")?);
    Some(RequestColumns {
        request: vec![user, number],
        shown: (0..fields.len()).filter(|&at| at != answer).collect(),
    })
}

/// The sections of a recommender's stages, in the order of flow.
fn sections(
    operator: &OperatorConfig,
    wanted: &Spanned<OperatorName>,
    subjects: &Subjects<'_>,
    takes_requests: bool,
) -> Vec<StageSection> {
    let named = |text: &str| Spanned::new(operator.name.span(), text.to_owned());
    let from = |port, stage, output| input_from(operator, port, stage, output);
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
        let name = stage_name(wanted.get_ref(), stage);
        let runs = Runs::Plugin(Spanned::new(wanted.span(), name));
        let mut section = StageSection::new(operator, stage, runs, inputs, Some(columns));
        if stage == Stage::Counts {
            section.config.time = operator.time.clone();
        }
        // What waits for answers goes by itself.
        if stage != Stage::Answers {
            section.config.ttl_ms.clone_from(&operator.ttl_ms);
        }
        section.user = Some(subjects.user.clone());
        section
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
