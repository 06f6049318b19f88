//! Plans processes: their ports, their key, and what they read of it.

use std::sync::Arc;

use super::builder::Builder;
use super::columns::Relation;
use super::keys::Keys;
use super::reading::Reading;
use super::section::{Planned, PlannedOutput, Resolved, operator_plan, planned};
use crate::config::{Mistake, OperatorConfig};
use crate::plan::{Exchange, NodeKind, PortPlan, ProcessPlan};
use crate::schema::Schema;
use crate::suggest;

impl Builder<'_> {
    pub(super) fn plan_process(
        &mut self,
        operator: &OperatorConfig,
        resolved: &Resolved,
        reading: &Reading,
    ) -> Planned {
        let title = format!("operator `{}`", operator.name.get_ref());
        let ports = &resolved.info.inputs;
        let columns = self.columns_of_edges(&title, ports, reading);
        let keys = self.keys(operator, &title, ports, reading);
        let key_read = keys
            .as_ref()
            .and_then(|keys| self.key_read(operator, &title, &resolved.info.key, keys));
        let outputs: Vec<PlannedOutput> = resolved
            .info
            .outputs
            .iter()
            .map(|port| {
                let relation = self.transform_output(operator, &title, &port.schema);
                PlannedOutput::new(&port.name, relation)
            })
            .collect();
        let inputs = keys.as_ref().and_then(|keys| {
            reading.inputs(ports, |edge| Exchange::Hash(keys.columns[edge].clone()))
        });
        let kind = keys.zip(columns).and_then(|(keys, columns)| {
            let columns = reading.by_port(ports.len(), columns).into_iter();
            let key = reading.by_port(ports.len(), keys.columns);
            let port = |(columns, key)| PortPlan { columns, key };
            Some(NodeKind::Process(ProcessPlan {
                operator: operator_plan(operator, resolved)?,
                ports: columns.zip(key).map(port).collect(),
                key_schema: Arc::new(keys.relation.schema),
                key_read: key_read?,
                ttl_ms: operator.ttl_ms.as_ref().map(|setting| setting.value),
            }))
        });
        planned(&operator.name, kind, inputs, outputs)
    }

    /// The columns of the key that the operator reads.
    fn key_read(
        &mut self,
        operator: &OperatorConfig,
        title: &str,
        wanted: &Schema,
        keys: &Keys,
    ) -> Option<Vec<usize>> {
        let Relation { schema, places } = &keys.relation;
        let mut good = true;
        let mut columns = Vec::with_capacity(wanted.fields.len());
        for field in &wanted.fields {
            match schema.index_of(&field.name) {
                Some(column) if field.reads(&schema.fields[column]) => columns.push(column),
                Some(column) => {
                    good = false;
                    let given = &schema.fields[column];
                    self.mistakes.push(
                        Mistake::new(format!(
                            "{title} reads `{field}` of its key, which has `{given}`"
                        ))
                        .at(places[column].clone(), "the key")
                        .at(operator.runs.place(), "this reads it")
                        .help("both must have the same type"),
                    );
                }
                None => {
                    good = false;
                    let names = schema.fields.iter().map(|field| field.name.as_str());
                    let place = match &operator.key {
                        Some(key) => key.place.clone(),
                        None => operator.name.span(),
                    };
                    let help = match schema.fields.is_empty() {
                        true => format!("add it: key = \"{}\"", field.name),
                        false => suggest::help(&field.name, "fields of the key", names),
                    };
                    self.mistakes.push(
                        Mistake::new(format!(
                            "{title} reads `{field}` of its key, which has no such field"
                        ))
                        .at(place, "")
                        .help(help),
                    );
                }
            }
        }
        good.then_some(columns)
    }
}
