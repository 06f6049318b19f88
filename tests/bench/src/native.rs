//! The cart plugin's operators as native code on Arrow arrays, run by the same
//! host: what a pipeline costs without the sandbox.

use std::path::Path;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{ArrayRef, Int64Array, ListArray, StringArray, StructArray};
use arrow_buffer::{OffsetBuffer, ScalarBuffer};
use sluicebox::batch::gather;
use sluicebox::logic::Limits;
use sluicebox::logic::{
    Accumulated, Aggregate, Callee, Columns, Factory, Failure, Grouped, Instance, Kind, LoadError,
    Loader, Module, ModuleInfo, OperatorInfo, Output, Port, Rows, States, Transform, Transformed,
    Value,
};
use sluicebox::schema::{DataType, Field, Schema};

/// Loads the native operators, whatever path a pipeline names.
pub struct NativeLoader;

impl Loader for NativeLoader {
    fn load(&self, _path: &Path) -> Result<Arc<dyn Module>, LoadError> {
        let operators = Operator::ALL.map(Operator::info).to_vec();
        Ok(Arc::new(NativeModule(ModuleInfo {
            name: "cart".to_owned(),
            version: "native".to_owned(),
            doc: String::new(),
            operators,
        })))
    }
}

struct NativeModule(ModuleInfo);

impl Module for NativeModule {
    fn info(&self) -> &ModuleInfo {
        &self.0
    }

    fn factory(
        &self,
        operator: &str,
        _arguments: &[(String, Value)],
        _limits: Limits,
        _label: &str,
    ) -> Result<Arc<dyn Factory>, Failure> {
        let operator = Operator::ALL
            .into_iter()
            .find(|known| known.info().name == operator);
        match operator {
            Some(operator) => Ok(Arc::new(NativeFactory {
                operator,
                info: operator.info(),
            })),
            None => unreachable!("the planner has found the operator"),
        }
    }
}

struct NativeFactory {
    operator: Operator,
    info: OperatorInfo,
}

impl Factory for NativeFactory {
    fn info(&self) -> &OperatorInfo {
        &self.info
    }

    fn instance(&self) -> Result<Instance, Failure> {
        Ok(match self.operator {
            Operator::Rows(rowwise) => Instance::Transform(Box::new(rowwise)),
            Operator::Fold(fold) => Instance::Aggregate(Box::new(fold)),
        })
    }
}

#[derive(Clone, Copy)]
enum Operator {
    Rows(Rowwise),
    Fold(Fold),
}

#[derive(Clone, Copy)]
enum Rowwise {
    Changes,
    Adds,
}

#[derive(Clone, Copy)]
enum Fold {
    Added,
    ItemCounts,
    Top,
    Session,
    /// Keeps the last text: a state of any size.
    Blob,
}

const SESSION_COUNTS: [&str; 6] = [
    "events",
    "adds",
    "removes",
    "views",
    "checkouts",
    "quantity",
];
const BEST: usize = 10;

impl Operator {
    const ALL: [Operator; 7] = [
        Operator::Rows(Rowwise::Changes),
        Operator::Rows(Rowwise::Adds),
        Operator::Fold(Fold::Added),
        Operator::Fold(Fold::ItemCounts),
        Operator::Fold(Fold::Top),
        Operator::Fold(Fold::Session),
        Operator::Fold(Fold::Blob),
    ];

    fn info(self) -> OperatorInfo {
        let (name, kind, input, output, state) = match self {
            Operator::Rows(Rowwise::Changes) => (
                "changes",
                Kind::Transform,
                vec![
                    text("user_id"),
                    text("item_id"),
                    text("action"),
                    integer("quantity"),
                ],
                vec![text("user_id"), text("item_id"), integer("delta")],
                vec![],
            ),
            Operator::Rows(Rowwise::Adds) => {
                ("adds", Kind::Filter, vec![text("action")], vec![], vec![])
            }
            Operator::Fold(Fold::Added) => (
                "added",
                Kind::Aggregate,
                vec![integer("quantity")],
                vec![integer("count"), integer("sum")],
                vec![integer("count"), integer("sum")],
            ),
            Operator::Fold(Fold::ItemCounts) => (
                "item_counts",
                Kind::Aggregate,
                vec![],
                vec![integer("count")],
                vec![integer("count")],
            ),
            Operator::Fold(Fold::Top) => (
                "top",
                Kind::Aggregate,
                vec![text("item_id"), integer("count")],
                vec![integer("rank"), text("item_id"), integer("count")],
                vec![Field::new(
                    "best",
                    DataType::List(Arc::new(ranked_element())),
                    false,
                )],
            ),
            Operator::Fold(Fold::Session) => (
                "session",
                Kind::Aggregate,
                vec![text("action"), integer("quantity")],
                SESSION_COUNTS.map(integer).to_vec(),
                SESSION_COUNTS.map(integer).to_vec(),
            ),
            Operator::Fold(Fold::Blob) => (
                "blob",
                Kind::Aggregate,
                vec![text("blob")],
                vec![text("blob")],
                vec![text("blob")],
            ),
        };
        let inputs = vec![Port::main(Arc::new(Schema::new(input)))];
        let outputs = vec![Port::main(Arc::new(Schema::new(output)))];
        OperatorInfo {
            state: Arc::new(Schema::new(state)),
            ..OperatorInfo::new(name, kind, inputs, outputs)
        }
    }
}

impl Callee for Rowwise {}

impl Transform for Rowwise {
    fn transform(&mut self, input: Columns<'_>) -> Result<Transformed, Failure> {
        let output = match self {
            Rowwise::Changes => Output::Rows(changes(input.columns)),
            Rowwise::Adds => {
                let actions = input.columns[0].as_string::<i32>();
                Output::Selection(
                    (0..input.rows as u32)
                        .filter(|&row| actions.value(row as usize) == "add")
                        .collect(),
                )
            }
        };
        Ok(Transformed {
            output,
            rejects: Vec::new(),
        })
    }
}

impl Callee for Fold {}

impl Aggregate for Fold {
    fn accumulate(
        &mut self,
        rows: Grouped<'_>,
        states: States<'_>,
    ) -> Result<Accumulated, Failure> {
        let Grouped { input, groups, .. } = rows;
        let states = match self {
            Fold::Added => {
                let mut counts = counters(states, 0);
                let mut sums = counters(states, 1);
                let quantities = integers(&input.columns[0]);
                for (row, &group) in groups.iter().enumerate() {
                    counts[group as usize] += 1;
                    sums[group as usize] += quantities[row];
                }
                vec![column(counts), column(sums)]
            }
            Fold::ItemCounts => {
                let mut counts = counters(states, 0);
                for &group in groups {
                    counts[group as usize] += 1;
                }
                vec![column(counts)]
            }
            Fold::Top => {
                let mut best = rankings(states.existing);
                best.resize(states.groups, Vec::new());
                let items = input.columns[0].as_string::<i32>();
                let counts = integers(&input.columns[1]);
                for (row, &group) in groups.iter().enumerate() {
                    rank(&mut best[group as usize], (counts[row], items.value(row)));
                }
                vec![rankings_column(&best)]
            }
            Fold::Session => {
                let mut columns: Vec<Vec<i64>> = (0..SESSION_COUNTS.len())
                    .map(|c| counters(states, c))
                    .collect();
                let actions = input.columns[0].as_string::<i32>();
                let quantities = integers(&input.columns[1]);
                for (row, &group) in groups.iter().enumerate() {
                    let group = group as usize;
                    let action = match actions.value(row) {
                        "add" => 1,
                        "remove" => 2,
                        "view" => 3,
                        _ => 4,
                    };
                    columns[0][group] += 1;
                    columns[action][group] += 1;
                    columns[5][group] += quantities[row];
                }
                columns.into_iter().map(column).collect()
            }
            Fold::Blob => {
                let known = states.existing.columns[0].as_string::<i32>();
                let mut blobs: Vec<&str> = known.iter().map(Option::unwrap_or_default).collect();
                blobs.resize(states.groups, "");
                let column = input.columns[0].as_string::<i32>();
                for (row, &group) in groups.iter().enumerate() {
                    blobs[group as usize] = column.value(row);
                }
                vec![Arc::new(StringArray::from_iter_values(blobs)) as ArrayRef]
            }
        };
        Ok(Accumulated {
            states,
            rejects: Vec::new(),
        })
    }

    fn accumulate_each(
        &mut self,
        _rows: Grouped<'_>,
        _states: States<'_>,
        _keys: Columns<'_>,
    ) -> Result<(Accumulated, Rows), Failure> {
        unreachable!("no benchmark has a running aggregate")
    }

    fn merge(&mut self, states: Columns<'_>, groups: &[u32]) -> Result<Vec<ArrayRef>, Failure> {
        let group_count = groups.last().map_or(0, |last| *last as usize + 1);
        if let Fold::Top = self {
            let parts = rankings(states);
            let mut best = vec![Vec::new(); group_count];
            for (part, &group) in parts.into_iter().zip(groups) {
                for entry in part {
                    rank(&mut best[group as usize], entry);
                }
            }
            return Ok(vec![rankings_column(&best)]);
        }
        let sums = states.columns.iter().map(|state| {
            let mut sums = vec![0; group_count];
            for (value, &group) in integers(state).iter().zip(groups) {
                sums[group as usize] += value;
            }
            column(sums)
        });
        Ok(sums.collect())
    }

    fn finish(
        &mut self,
        states: Columns<'_>,
        _keys: Columns<'_>,
        _starts: &[i64],
        _ends: &[i64],
    ) -> Result<Rows, Failure> {
        let Fold::Top = self else {
            return Ok(Rows {
                parents: (0..states.rows as u32).collect(),
                columns: states.columns.to_vec(),
            });
        };
        let best = states.columns[0].as_list::<i32>();
        let entries = best.values().as_struct();
        let mut parents = Vec::new();
        let mut ranks = Vec::new();
        let mut rows = Vec::new();
        for (state, bounds) in best.offsets().windows(2).enumerate() {
            for (rank, row) in (bounds[0]..bounds[1]).enumerate() {
                parents.push(state as u32);
                ranks.push(rank as i64 + 1);
                rows.push(row as u32);
            }
        }
        let mut columns = vec![column(ranks)];
        columns.extend(gather(entries.columns(), &rows));
        Ok(Rows { parents, columns })
    }
}

fn changes(input: &[ArrayRef]) -> Rows {
    let actions = input[2].as_string::<i32>();
    let quantities = integers(&input[3]);
    let mut parents = Vec::with_capacity(quantities.len());
    let mut deltas = Vec::with_capacity(quantities.len());
    for (row, &quantity) in quantities.iter().enumerate() {
        let delta = match actions.value(row) {
            "add" => quantity,
            "remove" => -quantity,
            _ => continue,
        };
        parents.push(row as u32);
        deltas.push(delta);
    }
    let mut columns = gather(&input[..2], &parents);
    columns.push(column(deltas));
    Rows { parents, columns }
}

/// Keeps the best ten: the highest counts, ties ordered by item.
fn rank<'a>(best: &mut Vec<(i64, &'a str)>, entry: (i64, &'a str)) {
    let before = |a: (i64, &str), b: (i64, &str)| a.0 > b.0 || (a.0 == b.0 && a.1 < b.1);
    if best.len() == BEST && !best.last().is_some_and(|&last| before(entry, last)) {
        return;
    }
    let place = best.partition_point(|&other| before(other, entry));
    best.insert(place, entry);
    best.truncate(BEST);
}

fn rankings<'a>(states: Columns<'a>) -> Vec<Vec<(i64, &'a str)>> {
    let best = states.columns[0].as_list::<i32>();
    let entries = best.values().as_struct();
    let items = entries.column(0).as_string::<i32>();
    let counts = integers(entries.column(1));
    let ranges = best
        .offsets()
        .windows(2)
        .map(|pair| pair[0] as usize..pair[1] as usize);
    ranges
        .map(|range| range.map(|row| (counts[row], items.value(row))).collect())
        .collect()
}

fn rankings_column(best: &[Vec<(i64, &str)>]) -> ArrayRef {
    let offsets = OffsetBuffer::from_lengths(best.iter().map(Vec::len));
    let items = StringArray::from_iter_values(best.iter().flatten().map(|(_, item)| item));
    let counts = Int64Array::from_iter_values(best.iter().flatten().map(|(count, _)| *count));
    let DataType::Record(fields) = ranked_element().data_type else {
        unreachable!("it is a record")
    };
    let entries = StructArray::new(
        fields.iter().map(Field::to_arrow).collect(),
        vec![Arc::new(items), Arc::new(counts)],
        None,
    );
    Arc::new(ListArray::new(
        Arc::new(ranked_element().to_arrow()),
        offsets,
        Arc::new(entries),
        None,
    ))
}

fn ranked_element() -> Field {
    let fields = [text("item_id"), integer("count")];
    Field::new("item", DataType::Record(Arc::new(fields)), false)
}

/// A state column, extended for the new groups.
fn counters(states: States<'_>, index: usize) -> Vec<i64> {
    let mut counters = integers(&states.existing.columns[index]).to_vec();
    counters.resize(states.groups, 0);
    counters
}

fn integers(column: &ArrayRef) -> &ScalarBuffer<i64> {
    column.as_primitive::<Int64Type>().values()
}

fn column(values: Vec<i64>) -> ArrayRef {
    Arc::new(Int64Array::from(values))
}

fn text(name: &str) -> Field {
    Field::new(name, DataType::Utf8, false)
}

fn integer(name: &str) -> Field {
    Field::new(name, DataType::Int64, false)
}
