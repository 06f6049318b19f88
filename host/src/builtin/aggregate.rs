//! Aggregates that a pipeline's file puts together of functions: `count()`,
//! `sum(amount)`.
//!
//! A call goes through the columns, one function after another. What a function keeps of a
//! group are columns of the state, which is treated like that of a plugin.

/// Reads calls of functions.
pub mod call;
/// What functions take, give and keep.
mod function;
/// What functions combine that is no field.
pub mod computed;
/// How a function is called.
mod fold;
/// Counts, sums, means and variances.
mod numbers;
/// Sums and means of decimals.
mod decimals;
/// Comparing values.
mod order;
/// The least, largest, first or last value.
mod chosen;
/// The largest or distinct values.
mod lists;
/// All values, which rows can take back.
mod values;
/// Distinct values and quantiles, about.
mod sketches;

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{ArrayRef, UInt32Array};
use arrow_select::take::take;

use self::call::{Call, Function};
use self::chosen::{ByArrival, Extreme};
use self::computed::Computed;
use self::decimals::Decimals;
use self::fold::{Fold, Input, Problem, Sums};
use self::function::Numbers;
use self::lists::{CountDistinct, Top};
use self::numbers::{
    Count, CountedSum, DecimalMean, ExactMean, Itself, Mean, Root, Sum, Tallied, Variance,
};
use self::order::for_ordered;
use self::sketches::{DistinctValues, Quantile, Sketched};
use self::values::{Shown, Values};
use crate::batch::gather;
use crate::logic::{
    Accumulated, Aggregate, Callee, Columns, Factory, Failure, FailureKind, Grouped, Instance,
    Kind, OperatorInfo, Port, Reject, Rows, States,
};
use crate::schema::{DataType, Field, Schema};

/// A column of the results.
#[derive(Clone, Debug)]
pub struct Column {
    pub name: String,
    pub call: Call,
}

/// Makes instances of an aggregate.
pub struct Functions {
    info: OperatorInfo,
    functions: Arc<[Typed]>,
    /// The function of each column of the results.
    columns: Arc<[usize]>,
    /// The function that counts rows, where rows are taken back.
    rows: Option<usize>,
    /// Columns behind those of the input.
    computed: Arc<[Computed]>,
}

/// A function of a field with a type.
struct Typed {
    call: Call,
    /// The type of its results.
    result: DataType,
    /// The column that it reads.
    input: Option<usize>,
    /// Its columns of the state.
    state: Range<usize>,
    /// Whether another function keeps the same, and this one only reads it.
    reads_others: bool,
    fold: Box<dyn Fold>,
}

impl Functions {
    /// `input` has the fields that the functions read, of types that they take. With
    /// `retracts`, rows may take others back, which all functions have to be able to.
    pub fn new(columns: Vec<Column>, input: Schema, retracts: bool) -> Self {
        Functions::computing(columns, input, Vec::new(), retracts)
    }

    /// As [`Functions::new`], where functions read what is computed, too.
    pub fn computing(
        columns: Vec<Column>,
        input: Schema,
        computed: Vec<Computed>,
        retracts: bool,
    ) -> Self {
        let mut read = input.clone();
        read.fields
            .extend(computed.iter().map(|it| it.field.clone()));
        // A function that is called twice is computed once. The order of columns plays no
        // part in the state, so that it can change.
        let mut calls: Vec<&Call> = columns.iter().map(|column| &column.call).collect();
        if retracts {
            calls.push(&Call::ROWS);
        }
        calls.sort_by_key(|call| (call.kept(), call.to_string()));
        calls.dedup();
        let mut state = Schema::default();
        let mut functions: Vec<Typed> = Vec::with_capacity(calls.len());
        for call in &calls {
            let at = call.field.as_deref().and_then(|name| read.index_of(name));
            let field = at.map(|at| &read.fields[at]);
            let kept = call.state(field, retracts);
            let fold = fold_of(call, field, &kept, retracts);
            let before = functions.last().filter(|it| it.call.kept() == call.kept());
            let shared = before.map(|before| before.state.clone());
            let reads_others = shared.is_some();
            let state = shared.unwrap_or_else(|| {
                let first = state.fields.len();
                state.fields.extend(kept);
                first..state.fields.len()
            });
            functions.push(Typed {
                call: (*call).clone(),
                result: call.result("", field).data_type,
                input: at,
                state,
                reads_others,
                fold,
            });
        }
        let result = |column: &Column| {
            let name = column.call.field.as_deref();
            let field = name.and_then(|name| read.field(name));
            column.call.result(&column.name, field)
        };
        let output = Schema::new(columns.iter().map(result).collect());
        let place = |column: &Column| calls.iter().position(|call| **call == column.call);
        let places = columns.iter().filter_map(place).collect();
        let rows = retracts.then(|| calls.iter().position(|call| **call == Call::ROWS));
        let inputs = vec![Port::main(Arc::new(input))];
        let outputs = vec![Port::main(Arc::new(output))];
        Functions {
            info: OperatorInfo {
                state: Arc::new(state),
                retracts,
                ..OperatorInfo::new("aggregate", Kind::Aggregate, inputs, outputs)
            },
            functions: functions.into(),
            columns: places,
            rows: rows.flatten(),
            computed: computed.into(),
        }
    }
}

impl Factory for Functions {
    fn info(&self) -> &OperatorInfo {
        &self.info
    }

    fn instance(&self) -> Result<Instance, Failure> {
        Ok(Instance::Aggregate(Box::new(FunctionsInstance {
            functions: self.functions.clone(),
            columns: self.columns.clone(),
            rows: self.rows,
            computed: self.computed.clone(),
        })))
    }
}

fn fold_of(call: &Call, field: Option<&Field>, state: &[Field], retracts: bool) -> Box<dyn Fold> {
    let Some(field) = field else {
        return Tallied::<Count>::boxed();
    };
    let data_type = &field.data_type;
    let list = &state[0].data_type;
    if let &DataType::Decimal { scale, .. } = data_type {
        let of_units = match call.function {
            Function::Sum if retracts => Some(Tallied::<CountedSum<i128>>::boxed()),
            Function::Sum => Some(Tallied::<Sum<i128>>::boxed()),
            Function::Mean => Some(Tallied::<DecimalMean>::boxed()),
            _ => None,
        };
        if let Some(fold) = of_units {
            return Decimals::boxed(fold, scale);
        }
    }
    match call.function {
        Function::CountRows | Function::Count => Tallied::<Count>::boxed(),
        Function::Sum if retracts => match Numbers::of(data_type) {
            Some(Numbers::Floats) => Tallied::<CountedSum<f64>>::boxed(),
            Some(Numbers::Unsigned) => Tallied::<CountedSum<u64>>::boxed(),
            Some(_) | None => Tallied::<CountedSum<i64>>::boxed(),
        },
        Function::Sum => match Numbers::of(data_type) {
            Some(Numbers::Floats) => Tallied::<Sum<f64>>::boxed(),
            Some(Numbers::Unsigned) => Tallied::<Sum<u64>>::boxed(),
            Some(_) | None => Tallied::<Sum<i64>>::boxed(),
        },
        Function::Mean => match Numbers::of(data_type) {
            Some(Numbers::Floats) | None => Tallied::<Mean>::boxed(),
            Some(Numbers::Unsigned) => Tallied::<ExactMean<u64>>::boxed(),
            Some(_) => Tallied::<ExactMean<i64>>::boxed(),
        },
        Function::Variance => Tallied::<Variance<Itself>>::boxed(),
        Function::Stddev => Tallied::<Variance<Root>>::boxed(),
        Function::Min | Function::Max | Function::Top(_) | Function::CountDistinct if retracts => {
            let shown = match call.function {
                Function::Min => Shown::Least,
                Function::Max => Shown::Largest,
                Function::Top(count) => Shown::Top(count),
                _ => Shown::Distinct,
            };
            for_ordered!(data_type, C => Values::<C>::boxed(shown, list), not_compared())
        }
        Function::First => Box::new(ByArrival { last: false }),
        Function::Last => Box::new(ByArrival { last: true }),
        Function::Min => for_ordered!(data_type, C => Extreme::<C>::least(), not_compared()),
        Function::Max => for_ordered!(data_type, C => Extreme::<C>::largest(), not_compared()),
        Function::Top(count) => {
            for_ordered!(data_type, C => Top::<C>::boxed(count, list), not_compared())
        }
        Function::CountDistinct => {
            for_ordered!(data_type, C => CountDistinct::<C>::boxed(list), not_compared())
        }
        Function::ApproxCountDistinct => Sketched::boxed(DistinctValues),
        Function::Median => Sketched::boxed(Quantile { share: 0.5 }),
        Function::Quantile(share) => Sketched::boxed(Quantile { share }),
    }
}

fn not_compared() -> Box<dyn Fold> {
    unreachable!("`Call::takes` refuses lists and records")
}

struct FunctionsInstance {
    functions: Arc<[Typed]>,
    columns: Arc<[usize]>,
    rows: Option<usize>,
    computed: Arc<[Computed]>,
}

/// The states of groups, and the results after each row if wanted.
struct Folded {
    states: Vec<ArrayRef>,
    after: Vec<ArrayRef>,
}

impl FunctionsInstance {
    fn accumulate(
        &self,
        rows: Grouped<'_>,
        states: States<'_>,
        each: bool,
    ) -> Result<(Accumulated, Rows), Failure> {
        if self.computed.is_empty() {
            return self.accumulate_columns(rows, states, Vec::new(), each);
        }
        let mut columns = rows.input.columns.to_vec();
        let mut rejects = Vec::new();
        for computed in &*self.computed {
            let (column, none) = computed.of(rows.input)?;
            columns.push(column);
            rejects.extend(none);
        }
        rejects.sort_by_key(|reject| reject.row);
        rejects.dedup_by_key(|reject| reject.row);
        let input = Columns {
            rows: rows.input.rows,
            columns: &columns,
        };
        self.accumulate_columns(Grouped { input, ..rows }, states, rejects, each)
    }

    /// The same with columns of all that functions read. `rejects` are rows that have no
    /// value in some.
    fn accumulate_columns(
        &self,
        rows: Grouped<'_>,
        states: States<'_>,
        mut rejects: Vec<Reject>,
        each: bool,
    ) -> Result<(Accumulated, Rows), Failure> {
        if rejects.is_empty() {
            match self.fold(rows, states, each) {
                Ok(folded) => {
                    let all = (0..rows.input.rows as u32).collect();
                    return Ok(self.folded(folded, all, Vec::new(), each));
                }
                Err((_, Problem::Overflow)) => {}
                Err((at, problem)) => return Err(self.failure(at, problem)),
            }
        }
        let without: HashSet<u32> = rejects.iter().map(|reject| reject.row).collect();
        rejects.extend(self.overflows(rows, states, &without));
        rejects.sort_by_key(|reject| reject.row);
        let mut rejected = rejects.iter().map(|reject| reject.row).peekable();
        let kept: Vec<u32> = (0..rows.input.rows as u32)
            .filter(|&row| rejected.next_if_eq(&row).is_none())
            .collect();
        let groups: Vec<u32> = kept.iter().map(|&row| rows.groups[row as usize]).collect();
        let is_taken_back = |row: &u32| rows.taken_back.binary_search(row).is_ok();
        let taken_back = (0..).zip(&kept).filter(|(_, row)| is_taken_back(row));
        let taken_back: Vec<u32> = taken_back.map(|(at, _)| at).collect();
        let rows_kept = UInt32Array::from(kept.clone());
        let columns = rows.input.columns.iter().map(|column| {
            take(column, &rows_kept, None)
                .map_err(|error| Failure::new(FailureKind::Memory, error.to_string()))
        });
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        let rows = Grouped {
            input: Columns {
                rows: kept.len(),
                columns: &columns,
            },
            groups: &groups,
            taken_back: &taken_back,
        };
        let folded = self.fold(rows, states, each);
        let folded = folded.map_err(|(at, problem)| self.failure(at, problem))?;
        Ok(self.folded(folded, kept, rejects, each))
    }

    /// The answer. `kept` are the rows that were folded.
    fn folded(
        &self,
        folded: Folded,
        kept: Vec<u32>,
        rejects: Vec<Reject>,
        each: bool,
    ) -> (Accumulated, Rows) {
        let results = match each {
            true => self.of_groups_with_rows(kept, &folded.after),
            false => Rows {
                parents: Vec::new(),
                columns: Vec::new(),
            },
        };
        let accumulated = Accumulated {
            states: folded.states,
            rejects,
        };
        (accumulated, results)
    }

    /// The columns of the results, given those of all functions. A group all of whose rows
    /// were taken back has no result.
    fn of_groups_with_rows(&self, parents: Vec<u32>, functions: &[ArrayRef]) -> Rows {
        let columns: Vec<ArrayRef> = self
            .columns
            .iter()
            .map(|&at| functions[at].clone())
            .collect();
        let Some(rows) = self
            .rows
            .map(|at| functions[at].as_primitive::<Int64Type>())
        else {
            return Rows { parents, columns };
        };
        let known: Vec<u32> = (0..)
            .zip(rows.values())
            .filter(|(_, rows)| **rows != 0)
            .map(|(at, _)| at)
            .collect();
        Rows {
            parents: known.iter().map(|&at| parents[at as usize]).collect(),
            columns: gather(&columns, &known),
        }
    }

    /// All functions, one after another; else the function with a problem.
    fn fold(
        &self,
        rows: Grouped<'_>,
        states: States<'_>,
        each: bool,
    ) -> Result<Folded, (usize, Problem)> {
        let mut folded = Folded {
            states: Vec::with_capacity(states.existing.columns.len()),
            after: Vec::new(),
        };
        for (at, function) in self.functions.iter().enumerate() {
            if function.reads_others && !each {
                continue;
            }
            let input = function.input(rows, states, each);
            let output = function.fold.fold(input).map_err(|problem| (at, problem))?;
            if !function.reads_others {
                folded.states.extend(output.states);
            }
            folded.after.extend(output.after);
        }
        Ok(folded)
    }

    /// The rows with which a sum would be too large. They change nothing, so whether a
    /// row is one depends on those before.
    ///
    /// Those of `without` are rejected already.
    fn overflows(
        &self,
        rows: Grouped<'_>,
        states: States<'_>,
        without: &HashSet<u32>,
    ) -> Vec<Reject> {
        let sums = self.functions.iter().filter_map(|function| {
            let sums = function.fold.sums(function.input(rows, states, false))?;
            Some((function, sums))
        });
        let mut sums: Vec<(&Typed, Sums)> = sums.collect();
        let mut rejects = Vec::new();
        for (row, &group) in rows.groups.iter().enumerate() {
            if without.contains(&(row as u32)) {
                continue;
            }
            let group = group as usize;
            if let Some((function, _)) = sums.iter().find(|(_, sums)| !sums.fits(row, group)) {
                rejects.push(Reject {
                    row: row as u32,
                    reason: too_large(function),
                });
                continue;
            }
            for (_, sums) in &mut sums {
                sums.add(row, group);
            }
        }
        rejects
    }

    fn failure(&self, at: usize, problem: Problem) -> Failure {
        let function = &self.functions[at];
        let call = &function.call;
        match problem {
            Problem::Overflow => Failure::new(FailureKind::Overflow, too_large(function)),
            Problem::Arrow(error) => Failure::new(FailureKind::Memory, format!("{call}: {error}")),
            Problem::Sketch(error) => {
                Failure::new(FailureKind::Contract, format!("{call}: {error}"))
            }
        }
    }
}

impl Typed {
    fn input<'a>(&self, rows: Grouped<'a>, states: States<'a>, each: bool) -> Input<'a> {
        Input {
            column: self.input.map(|at| &rows.input.columns[at]),
            groups: rows.groups,
            taken_back: rows.taken_back,
            existing: &states.existing.columns[self.state.clone()],
            group_count: states.groups,
            each,
        }
    }
}

impl Callee for FunctionsInstance {}

impl Aggregate for FunctionsInstance {
    fn accumulate(
        &mut self,
        rows: Grouped<'_>,
        states: States<'_>,
    ) -> Result<Accumulated, Failure> {
        let (accumulated, _) = FunctionsInstance::accumulate(self, rows, states, false)?;
        Ok(accumulated)
    }

    fn accumulate_each(
        &mut self,
        rows: Grouped<'_>,
        states: States<'_>,
        _keys: Columns<'_>,
    ) -> Result<(Accumulated, Rows), Failure> {
        FunctionsInstance::accumulate(self, rows, states, true)
    }

    fn merge(&mut self, states: Columns<'_>, groups: &[u32]) -> Result<Vec<ArrayRef>, Failure> {
        let mut merged = Vec::with_capacity(states.columns.len());
        let functions = self.functions.iter().enumerate();
        for (at, function) in functions.filter(|(_, function)| !function.reads_others) {
            let states = &states.columns[function.state.clone()];
            let columns = function.fold.merge(states, groups);
            merged.extend(columns.map_err(|problem| self.failure(at, problem))?);
        }
        Ok(merged)
    }

    fn finish(
        &mut self,
        states: Columns<'_>,
        _keys: Columns<'_>,
        _starts: &[i64],
        _ends: &[i64],
    ) -> Result<Rows, Failure> {
        let results = self.functions.iter().enumerate().map(|(at, function)| {
            let states = &states.columns[function.state.clone()];
            let results = function.fold.results(states);
            results.map_err(|problem| self.failure(at, problem))
        });
        let results = results.collect::<Result<Vec<_>, _>>()?;
        Ok(self.of_groups_with_rows((0..states.rows as u32).collect(), &results))
    }
}

fn too_large(function: &Typed) -> String {
    let Typed { call, result, .. } = function;
    match result {
        DataType::Decimal { .. } => format!("`{call}` is too large for its type, {result}"),
        _ => format!("`{call}` is too large for its type of 64 bits"),
    }
}

#[cfg(test)]
mod tests;
