//! What each function takes, gives and keeps, by the type of its field.

use std::sync::Arc;

use super::call::{Call, Function};
use crate::decimal::PRECISION_MAX;
use crate::schema::{DataType, Field};

impl Call {
    /// Whether it takes values of this type; else why not.
    pub fn takes(&self, data_type: &DataType) -> Result<(), &'static str> {
        match self.function {
            Function::CountRows | Function::Count | Function::First | Function::Last => Ok(()),
            Function::Sum
            | Function::Mean
            | Function::Variance
            | Function::Stddev
            | Function::Median
            | Function::Quantile(_) => match Numbers::of(data_type) {
                Some(_) => Ok(()),
                None => Err("it takes numbers"),
            },
            Function::Min | Function::Max | Function::Top(_) => match data_type {
                DataType::List(_) | DataType::Record(_) => {
                    Err("lists and records are not compared")
                }
                _ => Ok(()),
            },
            Function::CountDistinct | Function::ApproxCountDistinct => match data_type {
                DataType::List(_) | DataType::Record(_) => {
                    Err("lists and records are not compared")
                }
                DataType::Float32 | DataType::Float64 => {
                    Err("floating-point numbers that look equal differ")
                }
                _ => Ok(()),
            },
        }
    }

    /// Whether it can take rows back; else why not.
    pub fn retracts(&self) -> Result<(), &'static str> {
        match self.function {
            Function::CountRows
            | Function::Count
            | Function::Sum
            | Function::Mean
            | Function::Variance
            | Function::Stddev
            | Function::Min
            | Function::Max
            | Function::Top(_)
            | Function::CountDistinct => Ok(()),
            Function::First | Function::Last => {
                Err("which row is the next one then, it does not know")
            }
            Function::ApproxCountDistinct | Function::Median | Function::Quantile(_) => {
                Err("it keeps a sketch, which only grows")
            }
        }
    }

    /// Whether its results depend on the order in which rows come.
    pub fn follows_order(&self) -> bool {
        matches!(self.function, Function::First | Function::Last)
    }

    /// The column of its results. `field` is the one it reads, if it reads one, of a type
    /// that it takes.
    pub(super) fn result(&self, name: &str, field: Option<&Field>) -> Field {
        let Some(field) = field else {
            return Field::new(name, DataType::Int64, false);
        };
        let (data_type, nullable) = match self.function {
            Function::CountRows
            | Function::Count
            | Function::CountDistinct
            | Function::ApproxCountDistinct => (DataType::Int64, false),
            Function::Sum => (sum_type(&field.data_type), field.nullable),
            Function::Mean => (DataType::Float64, field.nullable),
            // NaN and infinities are not among its values.
            Function::Median | Function::Quantile(_) => {
                let can_be_none = Numbers::of(&field.data_type) == Some(Numbers::Floats);
                (DataType::Float64, field.nullable || can_be_none)
            }
            // Of one value there is none.
            Function::Variance | Function::Stddev => (DataType::Float64, true),
            Function::Min | Function::Max | Function::First | Function::Last => {
                (field.data_type.clone(), field.nullable)
            }
            Function::Top(_) => (list_of(&field.data_type), false),
        };
        Field::new(name, data_type, nullable)
    }

    /// The name of what it keeps, by which functions that keep the same are known.
    pub(super) fn kept(&self) -> String {
        match (self.function, &self.field) {
            (Function::Median | Function::Quantile(_), Some(field)) => {
                format!("quantiles({field})")
            }
            _ => self.to_string(),
        }
    }

    /// What it keeps of a group. The names say so in messages, and tell whether a state
    /// of a checkpoint fits.
    pub(super) fn state(&self, field: Option<&Field>, retracts: bool) -> Vec<Field> {
        let kept = self.kept();
        let column = |part: &str, data_type| Field::new(format!("{kept}{part}"), data_type, false);
        let nullable = |data_type| {
            let nullable = field.is_some_and(|field| field.nullable);
            vec![Field::new(self.to_string(), data_type, nullable)]
        };
        let data_type = field.map_or(DataType::Int64, |field| field.data_type.clone());
        match self.function {
            Function::CountRows | Function::Count => vec![column("", DataType::Int64)],
            Function::Min | Function::Max | Function::Top(_) | Function::CountDistinct
                if retracts =>
            {
                vec![column(" values", list_of(&data_type))]
            }
            Function::Sum if retracts => vec![
                column(" values", DataType::Int64),
                column("", sum_type(&data_type)),
            ],
            Function::Sum => nullable(sum_type(&data_type)),
            Function::Mean => match Numbers::of(&data_type) {
                Some(Numbers::Floats) | None => vec![
                    column(" values", DataType::Int64),
                    column(" sum", DataType::Float64),
                ],
                Some(Numbers::Decimals) => vec![
                    column(" values", DataType::Int64),
                    column(" sum", sum_type(&data_type)),
                ],
                Some(_) => vec![
                    column(" values", DataType::Int64),
                    column(" sum high", DataType::Int64),
                    column(" sum low", DataType::UInt64),
                ],
            },
            Function::Variance | Function::Stddev => vec![
                column(" values", DataType::Int64),
                column(" mean", DataType::Float64),
                column(" squares", DataType::Float64),
            ],
            Function::Min | Function::Max | Function::First | Function::Last => nullable(data_type),
            Function::Top(_) | Function::CountDistinct => vec![column("", list_of(&data_type))],
            Function::ApproxCountDistinct | Function::Median | Function::Quantile(_) => {
                vec![column("", DataType::Bytes)]
            }
        }
    }
}

/// How numbers are added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Numbers {
    Signed,
    Unsigned,
    Floats,
    Decimals,
}

impl Numbers {
    /// `None` for a type that is not a number.
    pub fn of(data_type: &DataType) -> Option<Numbers> {
        use DataType::{
            Decimal, Float32, Float64, Int8, Int16, Int32, Int64, UInt8, UInt16, UInt32, UInt64,
        };
        match data_type {
            Int8 | Int16 | Int32 | Int64 => Some(Numbers::Signed),
            UInt8 | UInt16 | UInt32 | UInt64 => Some(Numbers::Unsigned),
            Float32 | Float64 => Some(Numbers::Floats),
            Decimal { .. } => Some(Numbers::Decimals),
            _ => None,
        }
    }
}

fn sum_type(data_type: &DataType) -> DataType {
    if let &DataType::Decimal { scale, .. } = data_type {
        return DataType::Decimal {
            precision: PRECISION_MAX,
            scale,
        };
    }
    match Numbers::of(data_type) {
        Some(Numbers::Unsigned) => DataType::UInt64,
        Some(Numbers::Floats) => DataType::Float64,
        Some(Numbers::Signed | Numbers::Decimals) | None => DataType::Int64,
    }
}

fn list_of(data_type: &DataType) -> DataType {
    DataType::List(Arc::new(Field::new("item", data_type.clone(), false)))
}
