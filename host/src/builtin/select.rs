//! Makes rows of some of the fields of others, under names of its own.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, make_array};
use arrow_buffer::NullBuffer;

use crate::logic::{
    Callee, Columns, Factory, Failure, FailureKind, Instance, Kind, OperatorInfo, Output, Port,
    Rows, Transform, Transformed,
};
use crate::schema::{Field, Schema};

/// Makes instances.
pub struct Select {
    info: OperatorInfo,
    columns: Arc<[Selected]>,
}

/// A field of the output.
#[derive(Clone, Debug)]
pub struct Selected {
    /// Its name and type.
    pub field: Field,
    /// The column of the input.
    pub column: usize,
    /// The member of the record that it is, the member of that record, and so on.
    pub members: Vec<usize>,
}

impl Select {
    pub fn new(input: Schema, columns: Vec<Selected>) -> Self {
        let output = columns.iter().map(|column| column.field.clone());
        let output = Schema::new(output.collect());
        let inputs = vec![Port::main(Arc::new(input))];
        let outputs = vec![Port::main(Arc::new(output))];
        Select {
            info: OperatorInfo::new("select", Kind::Transform, inputs, outputs),
            columns: columns.into(),
        }
    }

    /// The same under the name of the key by which it is written.
    pub fn named(mut self, name: &str) -> Self {
        name.clone_into(&mut self.info.name);
        self
    }
}

impl Factory for Select {
    fn info(&self) -> &OperatorInfo {
        &self.info
    }

    fn instance(&self) -> Result<Instance, Failure> {
        Ok(Instance::Transform(Box::new(SelectInstance(
            self.columns.clone(),
        ))))
    }
}

struct SelectInstance(Arc<[Selected]>);

impl Callee for SelectInstance {}

impl Transform for SelectInstance {
    fn transform(&mut self, input: Columns<'_>) -> Result<Transformed, Failure> {
        let columns = self.0.iter();
        let columns = columns.map(|selected| selected.of(input.columns));
        Ok(Transformed {
            output: Output::Rows(Rows {
                parents: (0..input.rows as u32).collect(),
                columns: columns.collect::<Result<_, _>>()?,
            }),
            rejects: Vec::new(),
        })
    }
}

impl Selected {
    pub(super) fn of(&self, columns: &[ArrayRef]) -> Result<ArrayRef, Failure> {
        let mut column = columns[self.column].clone();
        for &member in &self.members {
            let record = column.as_struct();
            let value = record.column(member);
            // Without the record, there is no member.
            column = match record.nulls() {
                Some(nulls) => {
                    let nulls = NullBuffer::union(Some(nulls), value.nulls());
                    let value = value.to_data().into_builder().nulls(nulls).build();
                    make_array(value.map_err(|error| {
                        Failure::new(
                            FailureKind::Contract,
                            format!("`{}`: {error}", self.field.name),
                        )
                    })?)
                }
                None => value.clone(),
            };
        }
        Ok(column)
    }
}

#[cfg(test)]
mod tests {
    use arrow_array::{Int64Array, StringArray, StructArray};

    use super::*;
    use crate::schema::DataType;

    #[test]
    fn fields_and_members_are_picked_in_order() {
        let member = Field::new("n", DataType::Int64, true);
        let record = StructArray::new(
            vec![member.to_arrow()].into(),
            vec![Arc::new(Int64Array::from(vec![Some(1), None, Some(3)]))],
            Some(vec![true, true, false].into()),
        );
        let input = Schema::new(vec![
            Field::new("text", DataType::Utf8, false),
            Field::new("record", DataType::Record(vec![member].into()), true),
        ]);
        let selected = |name: &str, data_type, column, members| Selected {
            field: Field::new(name, data_type, true),
            column,
            members,
        };
        let select = Select::new(
            input,
            vec![
                selected("n", DataType::Int64, 1, vec![0]),
                selected("text", DataType::Utf8, 0, Vec::new()),
            ],
        );
        let texts: ArrayRef = Arc::new(StringArray::from(vec!["a", "b", "c"]));
        let columns: [ArrayRef; 2] = [texts.clone(), Arc::new(record)];
        let input = Columns {
            rows: 3,
            columns: &columns,
        };
        let instance = select.instance().and_then(Instance::transform);
        let mut instance = instance.unwrap_or_else(|e| panic!("{e}"));
        let transformed = instance.transform(input).unwrap_or_else(|e| panic!("{e}"));
        let Output::Rows(rows) = transformed.output else {
            panic!("it makes rows");
        };
        assert_eq!(rows.parents, [0, 1, 2]);
        let numbers: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None, None]));
        assert_eq!(rows.columns, [numbers, texts]);
    }
}
