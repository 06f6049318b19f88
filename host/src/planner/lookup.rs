//! Plans look-ups: each is run as a process that says which keys its rows want, a join of
//! these with the table as of a time, and a process that gathers what was found. See
//! `docs/decisions/0020`.

use super::builder::Builder;
use super::plugin::Plugins;
use super::stages::{StageSection, input_from, stage_name};
use crate::config::{
    InputConfig, JoinConfig, JoinedConfig, JoinedFrom, KeyColumns, MatchingConfig, Mistake,
    OperatorConfig, OperatorName, Runs, Span, Spanned, TableConfig,
};
use crate::logic::{FOUND, Kind, OperatorInfo, Stage};
use crate::plan::{JoinKind, LEFT, RIGHT, RowOrder, SIDES, Version};
use crate::schema::{DataType, Schema};

/// What tells a row from others.
const IDENTITY: [&str; 2] = ["lookup_high", "lookup_low"];
/// Which of its keys it is.
const PART: &str = "lookup_part";

impl Builder<'_> {
    /// The stages of a look-up; `None` after a mistake.
    pub(super) fn stages_of_lookup(
        &mut self,
        operator: &OperatorConfig,
        info: &OperatorInfo,
        plugins: &Plugins,
    ) -> Option<Vec<StageSection>> {
        let title = format!("operator `{}`", operator.name.get_ref());
        let Runs::Plugin(wanted) = &operator.runs else {
            return None;
        };
        self.refuse_aggregate_settings(operator, &title, Kind::Lookup);
        self.refuse_order(operator, &title, Kind::Lookup);
        if operator.table.is_none() {
            self.mistakes.push(
                Mistake::new(format!("{title} is a look-up and has no `table`"))
                    .at(operator.name.span(), "")
                    .help(
                        "name the source or operator whose rows it finds: `table = \"prices\"`, \
                         or `table = { input = \"prices\", as_of = \"latest\" }`",
                    ),
            );
        }
        let arguments = self.arguments(operator, wanted.get_ref(), &title, &info.parameters);
        let module = plugins.get(wanted.get_ref().plugin.as_str())?.as_ref()?;
        let first = stage_name(wanted.get_ref(), Stage::Wanted);
        // All stages have the same parameters: what one does not take is said once.
        self.open(operator, &first, module.as_ref(), &arguments?)?;
        let table = operator.table.as_ref()?;
        Some(vec![
            wanted_section(operator, info, wanted),
            found_section(operator, info, table),
            combined_section(operator, wanted, table),
        ])
    }
}

/// The process that says which keys rows want.
fn wanted_section(
    operator: &OperatorConfig,
    info: &OperatorInfo,
    wanted: &Spanned<OperatorName>,
) -> StageSection {
    // It needs no key: any that spreads rows over tasks will do.
    let key = keys_of(&info.inputs[0].schema, wanted.span());
    let key = (!key.is_empty()).then_some(KeyColumns::Same(key));
    let runs = of_plugin(wanted, Stage::Wanted);
    let inputs = operator.inputs.clone();
    let mut section = StageSection::new(operator, Stage::Wanted, runs, inputs, key);
    section.config.time = operator.time.clone();
    section
}

/// The join of keys with the table.
fn found_section(
    operator: &OperatorConfig,
    info: &OperatorInfo,
    table: &TableConfig,
) -> StageSection {
    let keys = input_from(operator, Some(SIDES[LEFT]), Stage::Wanted, Some("keys"));
    let of_table = table.inputs.iter().map(|from| InputConfig {
        port: Some(Spanned::new(from.span(), SIDES[RIGHT].to_owned())),
        from: from.clone(),
    });
    let inputs = std::iter::once(keys).chain(of_table).collect();
    let place = &table.place;
    let named = |name: &str| Spanned::new(place.clone(), name.to_owned());
    let fields = info.key.fields.iter();
    let key: Vec<Spanned<String>> = fields.map(|field| named(&field.name)).collect();
    let key = SIDES.map(|side| (named(side), key.clone()));

    let column = |name: &str, from| JoinedConfig {
        name: named(name),
        from,
        place: place.clone(),
    };
    let of_row = [IDENTITY[0], IDENTITY[1], PART].into_iter();
    let of_row = of_row.map(|name| column(name, JoinedFrom::Side(LEFT, name.to_owned())));
    let record = column(
        FOUND,
        JoinedFrom::Record(RIGHT, info.inputs[1].schema.fields.clone()),
    );
    let join = JoinConfig {
        place: place.clone(),
        kind: Spanned::new(place.clone(), JoinKind::Left),
        matching: Some(MatchingConfig::AsOf {
            version: table.version,
            tombstone: table.tombstone.clone(),
        }),
        select: Some(of_row.chain([record]).collect()),
        plugin: None,
    };
    let key = Some(KeyColumns::ByPort(key.to_vec()));
    StageSection::new(operator, Stage::Found, Runs::Join(join), inputs, key)
}

/// The process that gathers what was found for each row.
fn combined_section(
    operator: &OperatorConfig,
    wanted: &Spanned<OperatorName>,
    table: &TableConfig,
) -> StageSection {
    let inputs = vec![
        input_from(operator, Some("rows"), Stage::Wanted, None),
        input_from(operator, Some(FOUND), Stage::Found, None),
    ];
    let identity = IDENTITY.map(|field| Spanned::new(operator.name.span(), field.to_owned()));
    let key = Some(KeyColumns::Same(identity.to_vec()));
    let runs = of_plugin(wanted, Stage::Combined);
    let mut section = StageSection::new(operator, Stage::Combined, runs, inputs, key);
    section.order = match table.version {
        Version::EventTime => RowOrder::EventTime,
        // What is found at once does not wait for the table's time.
        Version::Latest => RowOrder::Arrival,
    };
    section
}

fn of_plugin(wanted: &Spanned<OperatorName>, stage: Stage) -> Runs {
    let name = stage_name(wanted.get_ref(), stage);
    Runs::Plugin(Spanned::new(wanted.span(), name))
}

/// The fields that can be a part of a key.
fn keys_of(schema: &Schema, place: Span) -> Vec<Spanned<String>> {
    let fields = schema.fields.iter().filter(|field| {
        !matches!(
            field.data_type,
            DataType::Float32 | DataType::Float64 | DataType::List(_) | DataType::Record(_)
        )
    });
    fields
        .map(|field| Spanned::new(place.clone(), field.name.clone()))
        .collect()
}
