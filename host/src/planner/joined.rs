//! Plans joins whose rows a plugin makes: each is run as the join, which puts the rows of both
//! sides together as records, and a transform of these.

use super::builder::Builder;
use super::plugin::Plugins;
use super::stages::{StageSection, input_from};
use crate::config::{
    JoinConfig, JoinedConfig, JoinedFrom, Mistake, OperatorConfig, OperatorName, Runs, Spanned,
};
use crate::logic::{Kind, OperatorInfo, Stage};
use crate::plan::SIDES;
use crate::schema::DataType;

impl Builder<'_> {
    /// The stages of a join whose rows a plugin makes; `None` after a mistake.
    pub(super) fn stages_of_join(
        &mut self,
        operator: &OperatorConfig,
        join: &JoinConfig,
        wanted: &Spanned<OperatorName>,
        plugins: &Plugins,
    ) -> Option<Vec<StageSection>> {
        let title = format!("operator `{}`", operator.name.get_ref());
        let info = self.described(&title, wanted, plugins)?;
        self.refuse_table(operator, &title, Kind::Join);
        let select = self.records(&title, wanted, &info)?;
        let join = JoinConfig {
            place: join.place.clone(),
            kind: join.kind.clone(),
            matching: join.matching.clone(),
            select: Some(select),
            plugin: None,
        };
        let key = operator.key.as_ref().map(|key| key.columns.clone());
        let inputs = operator.inputs.clone();
        let mut joined = StageSection::new(operator, Stage::Joined, Runs::Join(join), inputs, key);
        joined.config.window.clone_from(&operator.window);
        joined
            .config
            .allowed_lateness_ms
            .clone_from(&operator.allowed_lateness_ms);
        joined.config.emit.clone_from(&operator.emit);
        joined.config.ttl_ms.clone_from(&operator.ttl_ms);
        joined.config.bounds.clone_from(&operator.bounds);
        joined.config.timing.clone_from(&operator.timing);
        joined.config.discard.clone_from(&operator.discard);
        joined.config.order.clone_from(&operator.order);
        let inputs = vec![input_from(operator, None, Stage::Joined, None)];
        let runs = Runs::Plugin(wanted.clone());
        let mut made = StageSection::new(operator, Stage::Made, runs, inputs, None);
        made.config.time = operator.time.clone();
        Some(vec![joined, made])
    }

    /// The records that a function reads of pairs.
    fn records(
        &mut self,
        title: &str,
        wanted: &Spanned<OperatorName>,
        info: &OperatorInfo,
    ) -> Option<Vec<JoinedConfig>> {
        let place = wanted.span();
        let refuse = |problem: String| {
            Mistake::new(format!("{title} joins its inputs, and {problem}"))
                .at(place.clone(), "")
                .help(
                    "a function of joined rows is a transform of a record with the fields `left` \
                     and `right`, each a record of the fields that it reads of that side: \
                     `struct Pair { left: Click, right: Option<Purchase> }`",
                )
        };
        let name = wanted.get_ref();
        let input = match (info.kind, info.inputs.as_slice()) {
            (Kind::Transform | Kind::Filter, [input]) => input,
            (kind, _) => {
                let problem = format!("`{name}` is of the kind `{}`", kind.name());
                self.mistakes.push(refuse(problem));
                return None;
            }
        };
        let mut select = Vec::new();
        for field in &input.schema.fields {
            let side = SIDES.iter().position(|side| *side == field.name);
            let (Some(side), DataType::Record(members)) = (side, &field.data_type) else {
                let problem = format!("`{name}` reads `{field}`");
                self.mistakes.push(refuse(problem));
                return None;
            };
            let members = members.to_vec();
            select.push(JoinedConfig {
                name: Spanned::new(place.clone(), field.name.clone()),
                from: JoinedFrom::Record(side, members),
                place: place.clone(),
            });
        }
        if select.is_empty() {
            self.mistakes
                .push(refuse(format!("`{name}` reads nothing")));
            return None;
        }
        Some(select)
    }
}
