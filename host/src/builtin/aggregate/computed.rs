//! Calculates what functions combine, of the fields of each row: `price * quantity`.

use std::sync::Arc;

use arrow_array::{ArrayRef, Decimal128Array, Float64Array, Int64Array, UInt64Array};

use crate::builtin::filter::{Expression, NoValue, Value, View};
use crate::builtin::select::Selected;
use crate::decimal::{PRECISION_MAX, fits};
use crate::logic::{Columns, Failure, FailureKind, Reject};
use crate::schema::{DataType, Field};

/// A calculation with fields, which functions take as a field.
#[derive(Clone)]
pub struct Computed {
    /// Its name is the calculation as it is written.
    pub field: Field,
    /// The fields that it reads, by their numbers.
    pub reads: Vec<Selected>,
    pub expression: Expression,
}

impl Computed {
    /// The results for these rows, and the rows that have none: a number is too large. It is
    /// missing where a field is that it reads.
    pub fn of(&self, input: Columns<'_>) -> Result<(ArrayRef, Vec<Reject>), Failure> {
        let columns = self.reads.iter().map(|field| field.of(input.columns));
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        let views: Vec<View<'_>> = columns.iter().map(View::of).collect();
        let mut rejects = Vec::new();
        let mut reject = |row: usize, why: NoValue| {
            let name = |field: usize| self.reads[field].field.name.as_str();
            rejects.push(Reject {
                row: row as u32,
                reason: format!("`{}`: {}", self.field.name, why.in_words(name)),
            });
        };
        let values = (0..input.rows).map(|row| match self.expression.value(&views, row) {
            Ok(value) => value,
            Err(NoValue::Missing(_)) => Value::Null,
            Err(why) => {
                reject(row, why);
                Value::Null
            }
        });
        let values: Vec<Value<'_>> = values.collect();
        let column: ArrayRef = match self.field.data_type {
            DataType::UInt64 => {
                Arc::new(UInt64Array::from_iter(values.iter().map(|it| match it {
                    Value::Uint(uint) => Some(*uint),
                    _ => None,
                })))
            }
            DataType::Float64 => {
                Arc::new(Float64Array::from_iter(values.iter().map(|it| match it {
                    Value::Double(double) => Some(*double),
                    _ => None,
                })))
            }
            DataType::Decimal { scale, .. } => {
                let units = values.iter().enumerate().map(|(row, value)| match value {
                    Value::Decimal(decimal) => {
                        let units = decimal.at_scale(scale);
                        let units = units.filter(|units| fits(*units, PRECISION_MAX));
                        if units.is_none() {
                            reject(row, NoValue::Overflow);
                        }
                        units
                    }
                    _ => None,
                });
                let column = Decimal128Array::from_iter(units);
                let column = column.with_precision_and_scale(PRECISION_MAX, scale as i8);
                Arc::new(
                    column
                        .map_err(|error| Failure::new(FailureKind::Contract, error.to_string()))?,
                )
            }
            _ => Arc::new(Int64Array::from_iter(values.iter().map(|it| match it {
                Value::Int(int) => Some(*int),
                _ => None,
            }))),
        };
        rejects.sort_by_key(|reject| reject.row);
        Ok((column, rejects))
    }
}
