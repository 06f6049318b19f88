//! Plans sources: their columns, and where the event time of their rows is.

use super::builder::Builder;
use super::columns::Relation;
use super::event_time::Owner;
use super::section::{Planned, PlannedOutput, planned};
use crate::config::{OperatorConfig, SourceConfig};
use crate::element::NodeId;
use crate::logic::MAIN;
use crate::plan::{EventTime, FieldPath, NodeKind, SourcePlan};

impl Builder<'_> {
    /// `timing` is the operator that finds the event time of the rows, if one does.
    pub(super) fn plan_source(
        &mut self,
        source: &SourceConfig,
        timing: Option<(&OperatorConfig, NodeId)>,
    ) -> Planned {
        let title = format!("source `{}`", source.name.get_ref());
        let mut relation = Relation::default();
        for column in source.settings.columns() {
            relation.push(column.field.clone(), column.place.clone());
        }
        let connector = source.settings.plan(&mut self.planning(&title));
        let (event_time, time) = match timing {
            Some((operator, id)) => (Some(EventTime::Operator(id)), &operator.time),
            None => (self.event_time(source, &title, &relation), &source.time),
        };
        let watermark = time.watermark.as_ref();
        let kind = connector.zip(event_time).map(|(connector, event_time)| {
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
