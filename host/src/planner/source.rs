//! Plans sources: their columns, and where the event time of their rows is.

use super::builder::Builder;
use super::columns::{Changes, Relation};
use super::event_time::Owner;
use super::section::{Planned, PlannedOutput, planned};
use crate::config::{ChecksumConfig, Mistake, OperatorConfig, SourceConfig, Spanned};
use crate::element::NodeId;
use crate::logic::MAIN;
use crate::plan::{ChecksumPlan, EventTime, FieldPath, NodeKind, SourcePlan};
use crate::schema::DataType;
use crate::suggest;

impl Builder<'_> {
    /// `timing` is the operator that finds the event time of the rows, if one does.
    pub(super) fn plan_source(
        &mut self,
        source: &SourceConfig,
        timing: Option<(&OperatorConfig, NodeId)>,
    ) -> Planned {
        let title = format!("source `{}`", source.name.get_ref());
        let changes = source.settings.changes();
        let mut relation = Relation::default();
        if let Some(changes) = changes {
            relation.changes = Some(match changes.key {
                Some(_) => Changes::Upserts,
                None => Changes::Rows,
            });
            relation.key = changes.key.clone().unwrap_or_default();
        }
        for column in source.settings.columns() {
            relation.push(column.field.clone(), column.place.clone());
        }
        let connector = source.settings.plan(&mut self.planning(&title));
        if changes.is_some() {
            self.refuse_beside_changes(source, timing.map(|(operator, _)| operator), &title);
        }
        let (event_time, time) = match timing {
            Some((operator, id)) => (Some(EventTime::Operator(id)), &operator.time),
            None => (self.event_time(source, &title, &relation), &source.time),
        };
        let watermark = time.watermark.as_ref();
        let bootstrap = watermark.and_then(|watermark| watermark.bootstrap.as_ref());
        let bootstrap = bootstrap.filter(|bootstrap| *bootstrap.get_ref());
        if let (Some(bootstrap), Some(connector)) = (bootstrap, &connector)
            && !connector.can_bootstrap()
        {
            self.mistakes.push(
                Mistake::new(format!(
                    "{title} cannot have `bootstrap`: nothing is there at the start"
                ))
                .at(bootstrap.span(), "")
                .help("files and topics have an end at the start; remove it"),
            );
        }
        let checksum = match &source.checksum {
            Some(checksum) => self.checksum(checksum, &title, &relation).map(Some),
            None => Some(None),
        };
        let found = connector.zip(event_time).zip(checksum);
        let kind = found.map(|((connector, event_time), checksum)| {
            NodeKind::Source(SourcePlan {
                connector,
                event_time,
                out_of_orderness_ms: watermark
                    .and_then(|watermark| watermark.out_of_orderness_ms)
                    .unwrap_or_else(|| source.settings.out_of_orderness_ms()),
                ahead_ms_max: watermark
                    .and_then(|watermark| watermark.ahead_ms_max)
                    .or_else(|| source.settings.ahead_ms_max()),
                // Known when all nodes are.
                tells_each_watermark: false,
                idle_after_ms: watermark
                    .and_then(|watermark| watermark.idle_after_ms)
                    .or_else(|| source.settings.idle_after_ms())
                    .and_then(|ms| u64::try_from(ms).ok()),
                bootstraps: bootstrap.is_some(),
                on_error: source.on_error.unwrap_or_default(),
                checksum,
            })
        });
        let outputs = vec![PlannedOutput::new(MAIN, Some(relation))];
        planned(&source.name, kind, Some(Vec::new()), outputs)
    }

    /// Refuses what rows cannot have that are changes of a table.
    fn refuse_beside_changes(
        &mut self,
        source: &SourceConfig,
        timing: Option<&OperatorConfig>,
        title: &str,
    ) {
        let time = timing.map_or(&source.time, |operator| &operator.time);
        if let Some(field) = &time.field {
            self.mistakes.push(
                Mistake::new(format!(
                    "the rows of {title} are changes, whose event time is when they were made"
                ))
                .at(field.span(), "")
                .help(
                    "remove `event_time`: what is taken back has the fields that it had, and goes \
                     when the change comes",
                ),
            );
        }
        if let Some(checksum) = &source.checksum {
            self.mistakes.push(
                Mistake::new(format!(
                    "the rows of {title} are changes, without a checksum"
                ))
                .at(checksum.field.span(), "")
                .help("remove `checksum`"),
            );
        }
    }

    fn checksum(
        &mut self,
        checksum: &ChecksumConfig,
        title: &str,
        relation: &Relation,
    ) -> Option<ChecksumPlan> {
        let field = self.checksum_column(&checksum.field, title, relation, |data_type| {
            let is_text = *data_type == DataType::Utf8;
            (!is_text).then_some("a checksum is a text of hexadecimal digits, of the type `utf8`")
        });
        let of = checksum.of.iter().map(|name| {
            self.checksum_column(name, title, relation, |data_type| match data_type {
                DataType::Float32 | DataType::Float64 => {
                    Some("numbers with a fraction have several texts")
                }
                DataType::List(_) | DataType::Record(_) => Some("lists and records have no text"),
                _ => None,
            })
        });
        let of: Vec<Option<usize>> = of.collect();
        Some(ChecksumPlan {
            algorithm: checksum.algorithm,
            field: field?,
            of: of.into_iter().collect::<Option<_>>()?,
        })
    }

    fn checksum_column(
        &mut self,
        name: &Spanned<String>,
        title: &str,
        relation: &Relation,
        refused: impl Fn(&DataType) -> Option<&'static str>,
    ) -> Option<usize> {
        let schema = &relation.schema;
        let Some(column) = schema.index_of(name.get_ref()) else {
            let names = schema.fields.iter().map(|field| field.name.as_str());
            let name_text = name.get_ref();
            self.mistakes.push(
                Mistake::new(format!(
                    "the checksum of {title} names `{name_text}`, which is not one of its fields"
                ))
                .at(name.span(), "")
                .help(suggest::help(name_text, "fields", names)),
            );
            return None;
        };
        let field = &schema.fields[column];
        if let Some(reason) = refused(&field.data_type) {
            self.mistakes.push(
                Mistake::new(format!(
                    "the checksum of {title} cannot use `{field}`: {reason}"
                ))
                .at(name.span(), "")
                .at(relation.places[column].clone(), "this is its type"),
            );
            return None;
        }
        Some(column)
    }

    fn event_time(
        &mut self,
        source: &SourceConfig,
        title: &str,
        relation: &Relation,
    ) -> Option<EventTime> {
        if let Some(given) = source.settings.given_time() {
            return Some(EventTime::Given(given));
        }
        if let Some(name) = &source.time.field {
            let field = self.time_field(name, title, relation, Owner::Source)?;
            return Some(EventTime::Field(field));
        }
        let implied = source.settings.event_time();
        let column = implied.and_then(|name| relation.schema.index_of(name));
        Some(column.map_or(EventTime::Ingestion, |column| {
            EventTime::Field(FieldPath::new(column, Vec::new()))
        }))
    }
}
