//! Keeps the rows for which an expression is true: `amount > 100 && country == "DE"`.
//!
//! Expressions are those of CEL, the Common Expression Language (<https://cel.dev>), as far
//! as they make sense of a row: its own crate reads them, and types are checked when a
//! pipeline is planned. A row for which the expression has no value, since a number is too
//! large or a value is missing, is rejected.

/// Makes a typed expression of what was written.
mod check;
/// Expressions, and their values.
mod expression;

use std::sync::Arc;

use crate::builtin::select::Selected;
use crate::logic::{
    Callee, Columns, Factory, Failure, Instance, Kind, OperatorInfo, Output, Port, Reject,
    Transform, Transformed,
};
use crate::schema::Schema;
pub use check::{CheckError, Fields, check, check_number};
pub use expression::{Expression, NoValue, Value, View};

/// Makes instances.
pub struct Filter {
    info: OperatorInfo,
    condition: Arc<Condition>,
}

struct Condition {
    /// The fields that it reads, and the columns or members that they are.
    fields: Vec<Selected>,
    expression: Expression,
}

impl Filter {
    /// `fields` are those of the expression, by their numbers.
    pub fn new(input: Schema, fields: Vec<Selected>, expression: Expression) -> Self {
        let inputs = vec![Port::main(Arc::new(input))];
        let outputs = vec![Port::main(Arc::default())];
        Filter {
            info: OperatorInfo::new("filter", Kind::Filter, inputs, outputs),
            condition: Arc::new(Condition { fields, expression }),
        }
    }
}

impl Factory for Filter {
    fn info(&self) -> &OperatorInfo {
        &self.info
    }

    fn instance(&self) -> Result<Instance, Failure> {
        let condition = self.condition.clone();
        Ok(Instance::Transform(Box::new(FilterInstance(condition))))
    }
}

struct FilterInstance(Arc<Condition>);

impl Callee for FilterInstance {}

impl Transform for FilterInstance {
    fn transform(&mut self, input: Columns<'_>) -> Result<Transformed, Failure> {
        let Condition { fields, expression } = &*self.0;
        let columns = fields.iter().map(|field| field.of(input.columns));
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        let views: Vec<View<'_>> = columns.iter().map(View::of).collect();
        let mut kept = Vec::with_capacity(input.rows);
        let mut rejects = Vec::new();
        for row in 0..input.rows {
            let reason = match expression.value(&views, row) {
                Ok(Value::Bool(is_kept)) => {
                    if is_kept {
                        kept.push(row as u32);
                    }
                    continue;
                }
                // It is of type bool, or missing.
                Ok(_) => "the expression has no value".to_owned(),
                Err(error) => error.in_words(|field| fields[field].field.name.as_str()),
            };
            rejects.push(Reject {
                row: row as u32,
                reason,
            });
        }
        Ok(Transformed {
            output: Output::Selection(kept),
            rejects,
        })
    }
}

#[cfg(test)]
mod tests;
