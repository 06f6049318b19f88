//! Where rows get their event time from: which field of a source or an operator.

use arrow_array::ArrayRef;
use arrow_array::cast::AsArray;

use crate::element::NodeId;
use crate::schema::{DataType, Field, Schema};
use crate::timestamp::{TimeUnit, TimestampFormat};

/// How the rows of a source get their event time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventTime {
    /// This field of the source.
    Field(FieldPath),
    /// When the host read the row.
    Ingestion,
    /// The source has them from elsewhere.
    Given(GivenTime),
    /// A field of what this operator makes of the rows; they have none before.
    Operator(NodeId),
}

impl EventTime {
    /// Whether rows are changes of a table.
    pub fn is_of_changes(&self) -> bool {
        matches!(
            self,
            EventTime::Given(GivenTime::Change | GivenTime::Message)
        )
    }
}

/// Which times a source has that are no field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GivenTime {
    /// Those that rows had before, which come again.
    Before,
    /// Those of the changes that rows tell of.
    Change,
    /// Those of the messages that rows are, which are changes by their keys.
    Message,
}

impl GivenTime {
    /// As in "event time is …".
    pub fn what(self) -> &'static str {
        match self {
            GivenTime::Before => "what a row had before",
            GivenTime::Change => "when a change was made",
            GivenTime::Message => "the timestamp of a message",
        }
    }
}

/// The event time of the rows that an operator makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperatorTime {
    pub field: FieldPath,
    /// How far ahead of the clock it may be, as for a source.
    pub ahead_ms_max: Option<i64>,
}

/// A field with event times, a timestamp or an int64 in ms: a column, or a member of
/// records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldPath {
    column: usize,
    /// The indices of the member in the column's record, of the one in that record, and
    /// so on.
    members: Vec<usize>,
}

impl FieldPath {
    pub fn new(column: usize, members: Vec<usize>) -> Self {
        FieldPath { column, members }
    }

    /// As the pipeline's file names it: `meta.ts`.
    pub fn name(&self, schema: &Schema) -> String {
        let mut fields = schema.fields.as_slice();
        let mut names = Vec::with_capacity(1 + self.members.len());
        for &index in [self.column].iter().chain(&self.members) {
            let Some(field) = fields.get(index) else {
                break;
            };
            names.push(field.name.as_str());
            fields = match &field.data_type {
                DataType::Record(members) => members,
                _ => &[],
            };
        }
        names.join(".")
    }

    /// The unit in which its numbers are read by these formats, which timestamps have
    /// depth first; `None` if it is read from texts alone.
    pub fn unit(&self, schema: &Schema, formats: &[TimestampFormat]) -> Option<TimeUnit> {
        let mut fields = schema.fields.as_slice();
        let mut before = 0;
        for &index in [self.column].iter().chain(&self.members) {
            let (earlier, rest) = fields.split_at(index.min(fields.len()));
            before += earlier.iter().map(Field::timestamps).sum::<usize>();
            fields = match rest.first().map(|field| &field.data_type) {
                Some(DataType::Record(members)) => members,
                Some(DataType::Timestamp) => {
                    let format = formats.get(before).unwrap_or(&TimestampFormat::Any);
                    return format.unit();
                }
                _ => &[],
            };
        }
        Some(TimeUnit::Milliseconds)
    }

    /// Its values; the planner has checked that the columns have it.
    pub fn values(&self, columns: &[ArrayRef]) -> ArrayRef {
        let column = columns[self.column].clone();
        self.members.iter().fold(column, |record, &member| {
            record.as_struct().column(member).clone()
        })
    }
}
