//! Operators that are run as several, their stages: recommenders, look-ups, and joins whose
//! rows a plugin makes. The stages take the section's place in the graph, and are planned as
//! other operators are.

use super::builder::Builder;
use super::plugin::Plugins;
use crate::config::{
    InputConfig, InputName, KeyColumns, KeyConfig, Mistake, OperatorConfig, OperatorName, Runs,
    Span, Spanned,
};
use crate::logic::{Kind, Stage};
use crate::plan::{LATE, LATE_SIDES, RIGHT, RowOrder};

/// A stage, as a section of its own.
pub(super) struct StageSection {
    pub stage: Stage,
    pub config: OperatorConfig,
    /// In which order it takes rows, if it is a process.
    pub order: RowOrder,
    /// Of a recommender, the field that says who the user of a row is, which has another name
    /// in each pipeline.
    pub user: Option<Spanned<String>>,
}

/// What runs for each operator of the config.
#[derive(Default)]
pub(super) struct Stages {
    /// By the operator's place in the config; empty for one that has none.
    of_operators: Vec<Vec<StageSection>>,
}

/// The output of a look-up with the late rows of its table.
const LATE_TABLE: &str = "late_table";

impl StageSection {
    /// A stage of an operator, with its settings for plugins. The last stage has the
    /// operator's name, since its output is that of all.
    pub fn new(
        operator: &OperatorConfig,
        stage: Stage,
        runs: Runs,
        inputs: Vec<InputConfig>,
        key: Option<KeyColumns>,
    ) -> Self {
        let place = operator.name.span();
        let given = operator.key.as_ref();
        let key_place = given.map_or(place.clone(), |key| key.place.clone());
        let runs_plugin = runs.plugin().is_some();
        let config = OperatorConfig {
            name: match stage {
                Stage::Answers | Stage::Combined | Stage::Made => operator.name.clone(),
                stage => Spanned::new(place, stage.of(operator.name.get_ref())),
            },
            runs,
            inputs,
            parameters: match runs_plugin {
                true => operator.parameters.clone(),
                false => Vec::new(),
            },
            parameters_place: operator.parameters_place.clone(),
            time: Default::default(),
            on_error: operator.on_error.filter(|_| runs_plugin),
            on_migration_error: operator.on_migration_error.clone().filter(|_| runs_plugin),
            limits: operator.limits,
            key: key.map(|columns| KeyConfig {
                place: key_place,
                columns,
            }),
            window: None,
            allowed_lateness_ms: None,
            emit: None,
            ttl_ms: None,
            bounds: None,
            timing: None,
            discard: None,
            order: None,
            table: None,
        };
        StageSection {
            stage,
            config,
            order: RowOrder::EventTime,
            user: None,
        }
    }
}

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
    /// the operator's inputs.
    pub fn origin<'n>(&'n self, name: &'n InputName) -> (&'n str, Option<&'n str>) {
        let given = (name.node.as_str(), name.output.as_deref());
        let mut all = self.of_operators.iter();
        let is_meant = |stage: &StageSection| *stage.config.name.get_ref() == name.node;
        let stages = all.find(|stages| stages.last().is_some_and(is_meant));
        let (Some(output), Some([first, second, ..])) = (given.1, stages.map(Vec::as_slice)) else {
            return given;
        };
        let takes_requests = second.stage == Stage::Requests;
        let (from, output) = match (output, takes_requests) {
            (LATE_TABLE, _) if second.stage == Stage::Found => (second, LATE_SIDES[RIGHT]),
            (LATE, false) | ("late_interactions", true) => (first, LATE),
            ("late_requests", true) => (second, LATE),
            // No stage has another one.
            (late, _) if late.starts_with(LATE) => (first, late),
            _ => return given,
        };
        (from.config.name.get_ref(), Some(output))
    }
}

/// What the plugin calls the stage.
pub(super) fn stage_name(operator: &OperatorName, stage: Stage) -> OperatorName {
    OperatorName {
        plugin: operator.plugin.clone(),
        operator: stage.of(&operator.operator),
    }
}

/// An input of a stage that reads an output of another one of the operator.
pub(super) fn input_from(
    operator: &OperatorConfig,
    port: Option<&str>,
    stage: Stage,
    output: Option<&str>,
) -> InputConfig {
    let place: Span = operator.name.span();
    let from = InputName {
        node: stage.of(operator.name.get_ref()),
        output: output.map(str::to_owned),
    };
    InputConfig {
        port: port.map(|port| Spanned::new(place.clone(), port.to_owned())),
        from: Spanned::new(place, from),
    }
}

impl Builder<'_> {
    /// The stages of all operators that have some, and no mistake.
    pub(super) fn stages(&mut self, plugins: &Plugins) -> Stages {
        let operators = self.config.operators.iter();
        let of_operators = operators.map(|operator| {
            let wanted = match &operator.runs {
                Runs::Plugin(wanted) => wanted.get_ref(),
                Runs::Join(join) => {
                    let wanted = join.plugin.as_ref()?;
                    return self.stages_of_join(operator, join, wanted, plugins);
                }
                _ => return None,
            };
            let module = plugins.get(wanted.plugin.as_str())?.as_ref()?;
            let mut described = module.info().operators.iter();
            let info = described.find(|info| info.name == wanted.operator)?;
            match info.kind {
                Kind::Recommend => self.stages_of_recommender(operator, info, plugins),
                Kind::Lookup => self.stages_of_lookup(operator, info, plugins),
                _ => None,
            }
        });
        Stages {
            of_operators: of_operators.map(Option::unwrap_or_default).collect(),
        }
    }

    /// Refuses a table for operators that find no rows in it.
    pub(super) fn refuse_table(&mut self, operator: &OperatorConfig, title: &str, kind: Kind) {
        if let Some(table) = &operator.table {
            self.mistakes.push(
                Mistake::new(format!("{title}: `table` is for look-ups"))
                    .at(table.place.clone(), "")
                    .at(
                        operator.runs.place(),
                        format!("of the kind `{}`", kind.name()),
                    )
                    .help(
                        "remove it; a `join` with `as_of` adds the columns of a table's row to \
                         each row, without a plugin",
                    ),
            );
        }
    }
}
