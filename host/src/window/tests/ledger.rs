//! The tests' plugin: an aggregate whose state has a field of every sort, and
//! whose result tells the order in which rows were folded and states merged.

use std::sync::{Arc, Mutex};

use arrow_array::builder::{Int64Builder, ListBuilder};
use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{Array, ArrayRef, Int64Array, ListArray, StringArray};

use crate::logic::{
    Accumulated, Aggregate, Callee, Columns, Factory, Failure, FailureKind, Grouped, Instance,
    Kind, OperatorInfo, Port, Reject, Rows, States,
};
use crate::schema::{DataType, Field, Schema};

/// Rows whose word is `no` are rejected; on `boom` it panics. Sums may overflow.
pub(super) struct Ledger {
    info: OperatorInfo,
    pub calls: Arc<Mutex<Calls>>,
}

/// States that were merged, in all calls.
#[derive(Debug, Default)]
pub(super) struct Calls {
    pub merges: u64,
    pub merged_states: u64,
}

#[derive(Clone, Debug, Default)]
struct State {
    count: i64,
    sum: i64,
    least: Option<i64>,
    most: Option<i64>,
    amounts: Vec<i64>,
    words: String,
}

impl Default for Ledger {
    fn default() -> Self {
        let integer = |name: &str| Field::new(name, DataType::Int64, false);
        let maybe = |name: &str| Field::new(name, DataType::Int64, true);
        let text = |name: &str| Field::new(name, DataType::Utf8, false);
        let amounts = DataType::List(Arc::new(integer("item")));
        let inputs = vec![Port::main(Arc::new(Schema::new(vec![
            integer("amount"),
            text("word"),
        ])))];
        let outputs = vec![Port::main(Arc::new(Schema::new(vec![
            integer("count"),
            integer("sum"),
            maybe("least"),
            maybe("most"),
            text("words"),
        ])))];
        Ledger {
            info: OperatorInfo {
                state: Arc::new(Schema::new(vec![
                    integer("count"),
                    Field::new("amounts", amounts, false),
                    integer("sum"),
                    maybe("least"),
                    maybe("most"),
                    text("words"),
                ])),
                ..OperatorInfo::new("ledger", Kind::Aggregate, inputs, outputs)
            },
            calls: Arc::default(),
        }
    }
}

impl Factory for Ledger {
    fn info(&self) -> &OperatorInfo {
        &self.info
    }

    fn instance(&self) -> Result<Instance, Failure> {
        Ok(Instance::Aggregate(Box::new(LedgerInstance(
            self.calls.clone(),
        ))))
    }
}

struct LedgerInstance(Arc<Mutex<Calls>>);

impl Callee for LedgerInstance {}

impl Aggregate for LedgerInstance {
    fn accumulate(
        &mut self,
        rows: Grouped<'_>,
        states: States<'_>,
    ) -> Result<Accumulated, Failure> {
        let (accumulated, _) = fold(rows, states)?;
        Ok(accumulated)
    }

    fn accumulate_each(
        &mut self,
        rows: Grouped<'_>,
        states: States<'_>,
        _keys: Columns<'_>,
    ) -> Result<(Accumulated, Rows), Failure> {
        let (accumulated, results) = fold(rows, states)?;
        let (parents, states): (Vec<u32>, Vec<State>) = results.into_iter().unzip();
        let rows = Rows {
            parents,
            columns: output(&states),
        };
        Ok((accumulated, rows))
    }

    fn merge(&mut self, states: Columns<'_>, groups: &[u32]) -> Result<Vec<ArrayRef>, Failure> {
        let mut calls = self.0.lock().expect("no test panics here");
        calls.merges += 1;
        calls.merged_states += states.rows as u64;
        let mut merged: Vec<State> = Vec::new();
        for (state, &group) in read(states).into_iter().zip(groups) {
            if group as usize == merged.len() {
                merged.push(state);
            } else {
                merged[group as usize].merge(state)?;
            }
        }
        Ok(write(&merged))
    }

    fn finish(
        &mut self,
        states: Columns<'_>,
        _keys: Columns<'_>,
        starts: &[i64],
        ends: &[i64],
    ) -> Result<Rows, Failure> {
        assert_eq!((starts.len(), ends.len()), (states.rows, states.rows));
        Ok(Rows {
            parents: (0..states.rows as u32).collect(),
            columns: output(&read(states)),
        })
    }
}

impl State {
    fn fold(&mut self, amount: i64, word: &str) -> Result<(), Failure> {
        self.count += 1;
        self.add(amount)?;
        self.least = Some(self.least.map_or(amount, |least| least.min(amount)));
        self.most = Some(self.most.map_or(amount, |most| most.max(amount)));
        self.amounts.push(amount);
        self.words.push_str(word);
        Ok(())
    }

    fn merge(&mut self, later: State) -> Result<(), Failure> {
        self.count += later.count;
        self.add(later.sum)?;
        self.least = self.least.into_iter().chain(later.least).min();
        self.most = self.most.into_iter().chain(later.most).max();
        self.amounts.extend(later.amounts);
        self.words.push_str(&later.words);
        Ok(())
    }

    fn add(&mut self, amount: i64) -> Result<(), Failure> {
        let overflow = || Failure::new(FailureKind::Overflow, "the sum overflows".to_owned());
        self.sum = self.sum.checked_add(amount).ok_or_else(overflow)?;
        Ok(())
    }
}

fn fold(
    rows: Grouped<'_>,
    states: States<'_>,
) -> Result<(Accumulated, Vec<(u32, State)>), Failure> {
    let Grouped { input, groups, .. } = rows;
    let mut folded = read(states.existing);
    folded.resize(states.groups, State::default());
    let amounts = input.columns[0].as_primitive::<Int64Type>();
    let words = input.columns[1].as_string::<i32>();
    let mut rejects = Vec::new();
    let mut results = Vec::new();
    for (row, &group) in groups.iter().enumerate() {
        match words.value(row) {
            "no" => rejects.push(Reject {
                row: row as u32,
                reason: "no means no".to_owned(),
            }),
            "boom" => {
                return Err(Failure {
                    kind: FailureKind::Trap,
                    message: "panicked".to_owned(),
                    panic: Some("boom".to_owned()),
                });
            }
            word => {
                let state = &mut folded[group as usize];
                state.fold(amounts.value(row), word)?;
                results.push((row as u32, state.clone()));
            }
        }
    }
    Ok((
        Accumulated {
            states: write(&folded),
            rejects,
        },
        results,
    ))
}

fn read(states: Columns<'_>) -> Vec<State> {
    let integers = |column: usize| states.columns[column].as_primitive::<Int64Type>();
    let maybe = |column: usize, row: usize| {
        let column = integers(column);
        column.is_valid(row).then(|| column.value(row))
    };
    (0..states.rows)
        .map(|row| {
            let amounts = states.columns[1].as_list::<i32>().value(row);
            State {
                count: integers(0).value(row),
                amounts: amounts.as_primitive::<Int64Type>().values().to_vec(),
                sum: integers(2).value(row),
                least: maybe(3, row),
                most: maybe(4, row),
                words: states.columns[5].as_string::<i32>().value(row).to_owned(),
            }
        })
        .collect()
}

fn write(states: &[State]) -> Vec<ArrayRef> {
    let item = Field::new("item", DataType::Int64, false).to_arrow();
    let mut amounts = ListBuilder::new(Int64Builder::new()).with_field(item);
    for state in states {
        amounts.append_value(state.amounts.iter().copied().map(Some));
    }
    let amounts: ListArray = amounts.finish();
    let mut columns = output(states);
    columns.insert(1, Arc::new(amounts));
    columns
}

fn output(states: &[State]) -> Vec<ArrayRef> {
    let count = Int64Array::from_iter_values(states.iter().map(|state| state.count));
    let sum = Int64Array::from_iter_values(states.iter().map(|state| {
        assert_eq!(state.count as usize, state.amounts.len());
        assert_eq!(state.sum, state.amounts.iter().sum::<i64>());
        state.sum
    }));
    let least: Int64Array = states.iter().map(|state| state.least).collect();
    let most: Int64Array = states.iter().map(|state| state.most).collect();
    let words = StringArray::from_iter_values(states.iter().map(|state| &state.words));
    vec![
        Arc::new(count),
        Arc::new(sum),
        Arc::new(least),
        Arc::new(most),
        Arc::new(words),
    ]
}
