//! Plans processes: their ports, their key, and what they read of it.

use std::sync::Arc;

use super::builder::Builder;
use super::reading::Reading;
use super::recommend;
use super::section::{Planned, PlannedOutput, Resolved, operator_plan, planned, title_of};
use super::stages::StageSection;
use crate::config::{Mistake, OperatorConfig, Runs};
use crate::logic::{Kind, Port, Stage};
use crate::plan::{Exchange, LATE, NodeKind, PortPlan, ProcessPlan, RowOrder, Ties};

impl Builder<'_> {
    pub(super) fn plan_process(
        &mut self,
        operator: &OperatorConfig,
        resolved: &Resolved,
        reading: &Reading,
        is_read: &dyn Fn(&str) -> bool,
        stage: Option<&StageSection>,
    ) -> Planned {
        let title = title_of(operator);
        let ports = &resolved.info.inputs;
        let columns = match stage {
            Some(stage) if stage.stage == Stage::Counts => {
                self.columns_of_interactions(&title, stage, &ports[0], reading)
            }
            _ => self.columns_of_edges(&title, ports, reading),
        };
        let keys = self.keys(operator, &title, ports, reading);
        let key_read = keys.as_ref().and_then(|keys| {
            let wanted = &resolved.info.key;
            match stage {
                Some(_) => self.stage_key_read(&title, wanted, keys),
                None => self.key_read(operator, &title, wanted, keys),
            }
        });
        let mut outputs: Vec<PlannedOutput> = resolved
            .info
            .outputs
            .iter()
            .map(|port| {
                let relation = self.transform_output(operator, &title, &port.schema, None);
                PlannedOutput::new(&port.name, relation)
            })
            .collect();
        let (order, ties) = match stage {
            Some(stage) => (stage.order, Ties::Content),
            None => {
                let order = operator.order.as_ref().map(|order| order.value);
                // Which row is the next one must not depend on which comes first.
                let ties = match &operator.runs {
                    Runs::Order(order) if !order.add.is_empty() => Ties::Content,
                    _ => Ties::Arrival,
                };
                (order.unwrap_or_default(), ties)
            }
        };
        let mut late_outputs = vec![None; ports.len()];
        if order == RowOrder::EventTime {
            for (port, late_output) in late_outputs.iter_mut().enumerate() {
                let name = late_name(ports, port);
                if !is_read(&name) {
                    continue;
                }
                *late_output = Some(outputs.len());
                let late = reading.known().and_then(|upstreams| {
                    let of_port = reading.of_port(&upstreams, port);
                    self.merged(&format!("the output `{name}` of {title}"), &of_port)
                });
                outputs.push(PlannedOutput::new(&name, late));
            }
        }
        let inputs = keys.as_ref().and_then(|keys| {
            reading.inputs(ports, |edge| Exchange::Hash(keys.columns[edge].clone()))
        });
        let kind = keys.zip(columns).and_then(|(keys, columns)| {
            let columns = reading.by_port(ports.len(), columns).into_iter();
            let key = reading.by_port(ports.len(), keys.columns);
            let port = |((columns, key), late_output)| PortPlan {
                columns,
                key,
                late_output,
            };
            Some(NodeKind::Process(ProcessPlan {
                operator: operator_plan(operator, resolved)?,
                ports: columns.zip(key).zip(late_outputs).map(port).collect(),
                key_schema: Arc::new(keys.relation.schema),
                key_read: key_read?,
                ttl_ms: operator.ttl_ms.as_ref().map(|setting| setting.value),
                order,
                ties,
                requests: stage
                    .filter(|stage| stage.stage == Stage::Answers)
                    .and_then(|_| recommend::request_columns(&ports[0])),
            }))
        });
        planned(&operator.name, kind, inputs, outputs)
    }

    /// Refuses an order of rows for operators that are no processes.
    pub(super) fn refuse_order(&mut self, operator: &OperatorConfig, title: &str, kind: Kind) {
        if let Some(order) = &operator.order
            && kind != Kind::Process
        {
            self.mistakes.push(
                Mistake::new(format!("{title}: `order` is for processes"))
                    .at(order.key.clone(), "")
                    .at(operator.runs.place(), format!("this is a {}", kind.name()))
                    .help("remove it"),
            );
        }
    }
}

/// The name of the output for the late rows of an input.
pub(super) fn late_name(ports: &[Port], port: usize) -> String {
    match ports {
        [_] => LATE.to_owned(),
        ports => format!("{LATE}_{}", ports[port].name),
    }
}
