//! Passes on the first row of each key, and later ones only some time after it.
//!
//! The host treats it as a running aggregate that keeps the event time of the row of each
//! key that has passed last, and whose results are the rows that pass.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::TimestampMillisecondType;
use arrow_array::{ArrayRef, TimestampMillisecondArray};

use crate::logic::{
    Accumulated, Aggregate, Callee, Columns, Factory, Failure, Grouped, Instance, Kind,
    OperatorInfo, Port, Rows, States,
};
use crate::schema::{DataType, Field, Schema};

/// Makes instances.
pub struct Deduplicate {
    info: OperatorInfo,
    within_ms: u64,
}

impl Deduplicate {
    /// A row is a duplicate if its event time is less than `within_ms` from that of the
    /// row of its key that has passed.
    pub fn new(within_ms: u64) -> Self {
        let passed = Field::new(
            "time of the row that has passed",
            DataType::Timestamp,
            false,
        );
        let rows = vec![Port::main(Arc::default())];
        Deduplicate {
            info: OperatorInfo {
                state: Arc::new(Schema::new(vec![passed])),
                ..OperatorInfo::new("deduplicate", Kind::Aggregate, rows.clone(), rows)
            },
            within_ms,
        }
    }
}

impl Factory for Deduplicate {
    fn info(&self) -> &OperatorInfo {
        &self.info
    }

    fn instance(&self) -> Result<Instance, Failure> {
        Ok(Instance::Aggregate(Box::new(DeduplicateInstance {
            within_ms: self.within_ms,
        })))
    }
}

struct DeduplicateInstance {
    within_ms: u64,
}

impl Callee for DeduplicateInstance {}

impl Aggregate for DeduplicateInstance {
    fn accumulate(
        &mut self,
        rows: Grouped<'_>,
        states: States<'_>,
    ) -> Result<Accumulated, Failure> {
        let keys = Columns::none(states.groups);
        let (accumulated, _) = self.accumulate_each(rows, states, keys)?;
        Ok(accumulated)
    }

    fn accumulate_each(
        &mut self,
        rows: Grouped<'_>,
        states: States<'_>,
        _keys: Columns<'_>,
    ) -> Result<(Accumulated, Rows), Failure> {
        let Grouped { input, groups, .. } = rows;
        let known = times_of(&states.existing.columns[0]);
        let mut passed: Vec<Option<i64>> = known.iter().copied().map(Some).collect();
        passed.resize(states.groups, None);
        let mut parents = Vec::new();
        let rows = times_of(&input.columns[0]).iter().zip(groups);
        for (row, (&time_ms, &group)) in rows.enumerate() {
            let passed = &mut passed[group as usize];
            if passed.is_some_and(|passed| passed.abs_diff(time_ms) < self.within_ms) {
                continue;
            }
            // Of several, the newest one is followed by duplicates for longest.
            *passed = (*passed).max(Some(time_ms));
            parents.push(row as u32);
        }
        // Each group has a row, the first of which has passed.
        let passed = passed.into_iter().map(Option::unwrap_or_default);
        let accumulated = Accumulated {
            states: vec![times(passed)],
            rejects: Vec::new(),
        };
        let columns = Vec::new();
        Ok((accumulated, Rows { parents, columns }))
    }

    fn merge(&mut self, states: Columns<'_>, groups: &[u32]) -> Result<Vec<ArrayRef>, Failure> {
        let count = groups.last().map_or(0, |last| *last as usize + 1);
        let mut merged = vec![i64::MIN; count];
        for (&passed, &group) in times_of(&states.columns[0]).iter().zip(groups) {
            let merged = &mut merged[group as usize];
            *merged = passed.max(*merged);
        }
        Ok(vec![times(merged.into_iter())])
    }

    /// There are no results but the rows that pass.
    fn finish(
        &mut self,
        _: Columns<'_>,
        _: Columns<'_>,
        _: &[i64],
        _: &[i64],
    ) -> Result<Rows, Failure> {
        Ok(Rows {
            parents: Vec::new(),
            columns: Vec::new(),
        })
    }
}

fn times_of(column: &ArrayRef) -> &[i64] {
    let times = column.as_primitive::<TimestampMillisecondType>();
    times.values()
}

fn times(times: impl Iterator<Item = i64>) -> ArrayRef {
    Arc::new(TimestampMillisecondArray::from_iter_values(times).with_timezone("UTC"))
}

#[cfg(test)]
mod tests {
    use arrow_array::Array;

    use super::*;

    /// The rows that pass, wherever batches are cut.
    fn passed(within_ms: u64, times_ms: &[i64], batch_rows: usize) -> Vec<usize> {
        let instance = Deduplicate::new(within_ms).instance();
        let mut instance = instance
            .and_then(Instance::aggregate)
            .unwrap_or_else(|e| panic!("{e}"));
        let mut states = vec![times(std::iter::empty())];
        let mut passed = Vec::new();
        for (at, batch) in times_ms.chunks(batch_rows).enumerate() {
            let column = times(batch.iter().copied());
            let input = Columns {
                rows: batch.len(),
                columns: &[column],
            };
            let known = States {
                existing: Columns {
                    rows: states[0].len(),
                    columns: &states,
                },
                groups: 1,
            };
            let folded = instance.accumulate_each(
                Grouped::added(input, &vec![0; batch.len()]),
                known,
                Columns::none(1),
            );
            let (accumulated, rows) = folded.unwrap_or_else(|e| panic!("{e}"));
            let rows = rows.parents.into_iter();
            passed.extend(rows.map(|row| at * batch_rows + row as usize));
            states = accumulated.states;
        }
        passed
    }

    #[test]
    fn the_first_row_passes_and_others_only_some_time_apart() {
        for batch_rows in 1..=8 {
            let passed = |times: &[i64]| passed(10, times, batch_rows);
            assert_eq!(passed(&[5, 5, 14, 15, 24, 25]), [0, 3, 5]);
            // Duplicates do not make the time longer.
            assert_eq!(passed(&[0, 9, 12, 18, 20]), [0, 2]);
            // Earlier rows are duplicates, too, within the time.
            assert_eq!(passed(&[100, 91, 90, 109, 99]), [0, 2]);
            assert_eq!(passed(&[i64::MAX, i64::MIN, i64::MAX]), [0, 1]);
        }
    }
}
