//! Plans sources: their columns, and which one has the event time.

use super::builder::Builder;
use super::columns::Relation;
use super::section::{Planned, PlannedOutput, planned};
use crate::config::{Mistake, SourceConfig};
use crate::logic::MAIN;
use crate::plan::{EventTime, NodeKind, SourcePlan};
use crate::schema::{DataType, Field};
use crate::suggest;

impl Builder<'_> {
    pub(super) fn plan_source(&mut self, source: &SourceConfig) -> Planned {
        let title = format!("source `{}`", source.name.get_ref());
        let mut relation = Relation::default();
        for column in source.settings.columns() {
            relation.push(column.field.clone(), column.place.clone());
        }
        let connector = source.settings.plan(&mut self.planning(&title));
        let event_time = self.event_time(source, &title, &relation);
        let watermark = &source.watermark;
        let kind = connector.zip(event_time).map(|(connector, event_time)| {
            NodeKind::Source(SourcePlan {
                connector,
                event_time,
                out_of_orderness_ms: watermark
                    .out_of_orderness_ms
                    .unwrap_or_else(|| source.settings.out_of_orderness_ms()),
                ahead_ms_max: watermark
                    .ahead_ms_max
                    .or_else(|| source.settings.ahead_ms_max()),
                idle_after_ms: watermark
                    .idle_after_ms
                    .and_then(|ms| u64::try_from(ms).ok()),
                on_error: source.on_error.unwrap_or_default(),
            })
        });
        let outputs = vec![PlannedOutput::new(MAIN, Some(relation))];
        planned(&source.name, kind, Some(Vec::new()), outputs)
    }

    fn event_time(
        &mut self,
        source: &SourceConfig,
        title: &str,
        relation: &Relation,
    ) -> Option<EventTime> {
        let fields = &relation.schema.fields;
        let Some(name) = &source.event_time else {
            let implied = source.settings.event_time();
            let column = implied.and_then(|name| relation.schema.index_of(name));
            return Some(column.map_or(EventTime::Ingestion, EventTime::Column));
        };
        let Some(column) = relation.schema.index_of(name.get_ref()) else {
            let times: Vec<&str> = fields
                .iter()
                .filter(|field| can_be_time(field))
                .map(|field| field.name.as_str())
                .collect();
            self.mistakes.push(
                Mistake::new(format!(
                    "{title} takes its event time from `{}`, which is not one of its fields",
                    name.get_ref()
                ))
                .at(name.span(), "")
                .help(suggest::help(
                    name.get_ref(),
                    "fields that can be a time",
                    times,
                )),
            );
            return None;
        };
        let field = &fields[column];
        if !can_be_time(field) {
            let reason = match field.nullable {
                true => "every row needs an event time",
                false => "a time is a timestamp, or an int64 in ms",
            };
            let place = relation.places.get(column).cloned().unwrap_or_default();
            self.mistakes.push(
                Mistake::new(format!(
                    "{title} cannot take its event time from `{field}`: {reason}"
                ))
                .at(name.span(), "")
                .at(place, format!("`{field}` is from here"))
                .help(format!("declare it as `{} = \"timestamp\"`", field.name)),
            );
            return None;
        }
        Some(EventTime::Column(column))
    }
}

fn can_be_time(field: &Field) -> bool {
    !field.nullable && matches!(field.data_type, DataType::Timestamp | DataType::Int64)
}
