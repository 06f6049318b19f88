//! Sums and means of decimals: calculated in units, and shown with their digits.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Decimal128Type, Float64Type};
use arrow_array::{ArrayRef, Float64Array};
use arrow_schema::DataType as ArrowType;

use super::fold::{Fold, Input, Output, Problem, Sums};
use crate::decimal::PRECISION_MAX;

/// A function of units, whose sums are units, too, and its means floats.
pub(super) struct Decimals {
    fold: Box<dyn Fold>,
    scale: u8,
}

impl Decimals {
    pub fn boxed(fold: Box<dyn Fold>, scale: u8) -> Box<dyn Fold> {
        Box::new(Decimals { fold, scale })
    }

    fn shown(&self, column: ArrayRef) -> ArrayRef {
        if let Some(units) = column.as_primitive_opt::<Decimal128Type>() {
            let digits = ArrowType::Decimal128(PRECISION_MAX, self.scale as i8);
            return Arc::new(units.clone().with_data_type(digits));
        }
        match column.as_primitive_opt::<Float64Type>() {
            Some(means) => {
                let one = 10_f64.powi(self.scale.into());
                let means: Float64Array = means.unary(|mean| mean / one);
                Arc::new(means)
            }
            None => column,
        }
    }

    fn all_shown(&self, columns: Vec<ArrayRef>) -> Vec<ArrayRef> {
        let columns = columns.into_iter();
        columns.map(|column| self.shown(column)).collect()
    }
}

impl Fold for Decimals {
    fn fold(&self, input: Input<'_>) -> Result<Output, Problem> {
        let Output { states, after } = self.fold.fold(input)?;
        Ok(Output {
            states: self.all_shown(states),
            after: after.map(|column| self.shown(column)),
        })
    }

    fn merge(&self, states: &[ArrayRef], groups: &[u32]) -> Result<Vec<ArrayRef>, Problem> {
        Ok(self.all_shown(self.fold.merge(states, groups)?))
    }

    fn results(&self, states: &[ArrayRef]) -> Result<ArrayRef, Problem> {
        Ok(self.shown(self.fold.results(states)?))
    }

    fn sums(&self, input: Input<'_>) -> Option<Sums> {
        self.fold.sums(input)
    }
}
