//! Folds rows into the states of their groups. States come as columns and go
//! back as columns; in between they are values of the author's type.

use crate::bindings::exports::sluicebox::plugin::operators::{
    self, Accumulated, AccumulatedEach, Batch, States, Windows,
};
use crate::bindings::sluicebox::plugin::description::Kind;
use crate::operator::Shape;
use crate::record::{Columns, Origin, Record, Writer};
use crate::transform::{Collector, Outputs, Rows};
use crate::{Parameters, Reject, Timestamp, Window};

/// Folds the rows of a key, and window, into a result.
///
/// The type that implements it has the operator's [`Parameters`] as its fields
/// and carries `#[operator]`; its name in snake case is the operator's.
///
/// The host keeps the states, and may cut the rows of a group anywhere: into
/// several calls, or several states that are merged. So the order of rows from
/// different keys, and where a batch ends, must not matter to the result.
///
/// ```
/// use sluicebox_sdk::prelude::*;
///
/// #[derive(Record)]
/// struct Sale {
///     cents: u32,
/// }
///
/// #[derive(Record, Clone, Default)]
/// struct Total {
///     sales: u64,
///     cents: u64,
/// }
///
/// #[derive(Record, Debug, PartialEq)]
/// struct Mean {
///     cents: f64,
/// }
///
/// /// The mean of sales, up to a limit each.
/// #[operator]
/// struct MeanSale {
///     /// Larger sales are rejected.
///     #[parameter(default = 100_000)]
///     max_cents: u32,
/// }
///
/// impl Aggregate for MeanSale {
///     type Input<'a> = Sale;
///     type State = Total;
///     type Output<'a> = Option<Mean>;
///
///     fn accumulate(&self, total: &mut Total, sale: Sale) -> Result<(), Reject> {
///         if sale.cents > self.max_cents {
///             reject!("{} cents are above {}", sale.cents, self.max_cents);
///         }
///         total.sales += 1;
///         total.cents += u64::from(sale.cents);
///         Ok(())
///     }
///
///     fn merge(&self, total: &mut Total, later: Total) {
///         total.sales += later.sales;
///         total.cents += later.cents;
///     }
///
///     fn finish(&self, total: &Total, _window: Window) -> Option<Mean> {
///         (total.sales > 0).then(|| Mean { cents: total.cents as f64 / total.sales as f64 })
///     }
/// }
///
/// export!(MeanSale);
///
/// // Still plain Rust: a unit test needs no host.
/// let mean = MeanSale { max_cents: 500 };
/// let mut total = Total::default();
/// mean.accumulate(&mut total, Sale { cents: 200 }).unwrap();
/// mean.accumulate(&mut total, Sale { cents: 300 }).unwrap();
/// assert!(mean.accumulate(&mut total, Sale { cents: 501 }).is_err());
/// assert_eq!(mean.finish(&total, Window::ALL), Some(Mean { cents: 250.0 }));
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an aggregate",
    label = "has `#[operator]`, but no `impl Aggregate`",
    note = "a struct with `#[operator]` must implement `sluicebox_sdk::Aggregate`"
)]
pub trait Aggregate: Parameters {
    /// The rows that are folded.
    type Input<'a>: Record<'a>;
    /// What is kept of them. A new group starts from its default.
    type State: for<'a> Record<'a> + Default + Clone;
    /// What is known in the end: a record, or an `Option` or `Vec` of records.
    /// They may borrow from the state.
    type Output<'a>: Outputs<'a>
    where
        Self: 'a;

    /// Folds one row into the state. On `Err`, the state stays as it was before
    /// the row, whatever was done to it.
    fn accumulate(&self, state: &mut Self::State, row: Self::Input<'_>) -> Result<(), Reject>;

    /// Adds the state of later rows (or, in session windows, of rows from a
    /// session that has turned out to be the same).
    fn merge(&self, state: &mut Self::State, later: Self::State);

    /// The result. May be called more than once for a state, as rows go on
    /// coming; running aggregates have it called after each row, for
    /// [`Window::ALL`].
    fn finish<'a>(&'a self, state: &'a Self::State, window: Window) -> Self::Output<'a>;
}

type OutputRow<'a, A> = <<A as Aggregate>::Output<'a> as Outputs<'a>>::Row;

#[doc(hidden)]
pub fn shape<A: Aggregate>() -> Shape {
    let (mut input, mut output, mut state) = (Vec::new(), Vec::new(), Vec::new());
    A::Input::describe(&mut input);
    OutputRow::<A>::describe(&mut output);
    A::State::describe(&mut state);
    Shape {
        kind: Kind::Aggregate,
        input,
        output,
        state,
    }
}

#[doc(hidden)]
pub fn accumulate<A: Aggregate>(
    aggregate: &A,
    input: &Batch,
    groups: &[u32],
    states: &States,
) -> Accumulated {
    let mut fold = Fold::new(aggregate, input, groups, states);
    for row in 0..input.rows {
        fold.step(row);
    }
    fold.accumulated()
}

#[doc(hidden)]
pub fn accumulate_each<A: Aggregate>(
    aggregate: &A,
    input: &Batch,
    groups: &[u32],
    states: &States,
) -> AccumulatedEach {
    let mut fold = Fold::new(aggregate, input, groups, states);
    let mut results = Rows::<OutputRow<'_, A>>::new(input.rows as usize, Vec::new());
    for row in 0..input.rows {
        if let Some(state) = fold.step(row) {
            // SAFETY: the state outlives the loop, and is not written to while
            // the output that borrows from it is there: `give` consumes it, and
            // writers copy what they do not recognise as an input, of which
            // they were given none.
            let state = unsafe { &*std::ptr::from_ref(state) };
            results.give(aggregate.finish(state, Window::ALL), row);
        }
    }
    let results = results.finish();
    let Accumulated { states, rejects } = fold.accumulated();
    AccumulatedEach {
        states,
        results,
        rejects,
    }
}

#[doc(hidden)]
pub fn merge<A: Aggregate>(aggregate: &A, states: &Batch, groups: &[u32]) -> Batch {
    assert_eq!(
        groups.len(),
        states.rows as usize,
        "the host sent another number of groups than of states"
    );
    let mut merged: Vec<A::State> = Vec::with_capacity(groups.len());
    let mut last = None;
    each_state::<A>(states, |row, state| {
        let group = groups[row];
        match merged.last_mut() {
            Some(first) if last == Some(group) => aggregate.merge(first, state),
            _ => merged.push(state),
        }
        last = Some(group);
    });
    columns(&merged)
}

#[doc(hidden)]
pub fn finish<A: Aggregate>(aggregate: &A, states: &Batch, windows: &Windows) -> operators::Rows {
    let rows = states.rows as usize;
    assert!(
        windows.starts.len() == rows && windows.ends.len() == rows,
        "the host sent another number of windows than of states"
    );
    let mut values = Vec::with_capacity(rows);
    each_state::<A>(states, |_, state| values.push(state));
    let mut results = Rows::<OutputRow<'_, A>>::new(rows, Vec::new());
    for (row, state) in values.iter().enumerate() {
        let window = Window {
            start: Timestamp(windows.starts[row]),
            end: Timestamp(windows.ends[row]),
        };
        results.give(aggregate.finish(state, window), row as u32);
    }
    results.finish()
}

/// Rows on their way into states.
struct Fold<'a, A: Aggregate> {
    aggregate: &'a A,
    input: &'a Batch,
    reader: <A::Input<'a> as Record<'a>>::Reader,
    groups: &'a [u32],
    given: &'a States,
    states: Vec<A::State>,
    rejects: Vec<operators::Reject>,
}

impl<'a, A: Aggregate> Fold<'a, A> {
    fn new(aggregate: &'a A, input: &'a Batch, groups: &'a [u32], states: &'a States) -> Self {
        assert_eq!(
            groups.len(),
            input.rows as usize,
            "the host sent another number of groups than of rows"
        );
        Fold {
            aggregate,
            input,
            reader: Columns::read_by::<A::Input<'a>>(input),
            groups,
            given: states,
            states: starting_states::<A>(states),
            rejects: Vec::new(),
        }
    }

    /// Folds in the next row, and gives its group's state if it was taken.
    #[inline(always)]
    fn step(&mut self, row: u32) -> Option<&A::State> {
        let group = self.groups[row as usize] as usize;
        let state = &mut self.states[group];
        // Once a row was rejected in this call, more will be: keep what the
        // state was. Before that, a copy of every state would be for nothing.
        let before = match self.rejects.is_empty() {
            true => None,
            false => Some(state.clone()),
        };
        // SAFETY: the rows are read in order, and there are so many.
        let outcome = match unsafe { A::Input::read(&mut self.reader, row as usize) } {
            Ok(input) => self.aggregate.accumulate(state, input),
            Err(unreadable) => Err(unreadable.into()),
        };
        if let Err(reject) = outcome {
            self.reject(row, group, before, reject);
            return None;
        }
        Some(&self.states[group])
    }

    #[cold]
    fn reject(&mut self, row: u32, group: usize, before: Option<A::State>, reject: Reject) {
        self.states[group] = before.unwrap_or_else(|| self.replay(row, group));
        self.rejects.push(operators::Reject {
            row,
            reason: reject.into_reason(),
        });
    }

    /// A group's state before a row, none before which was rejected.
    fn replay(&self, row: u32, group: usize) -> A::State {
        let mut state = starting_states::<A>(self.given).swap_remove(group);
        let mut reader = Columns::read_by::<A::Input<'a>>(self.input);
        for earlier in 0..row as usize {
            // SAFETY: the rows are read in order, and there are so many.
            let input = unsafe { A::Input::read(&mut reader, earlier) };
            if self.groups[earlier] as usize == group {
                let taken = input
                    .map_err(Reject::from)
                    .and_then(|input| self.aggregate.accumulate(&mut state, input));
                assert!(
                    taken.is_ok(),
                    "the aggregate rejected a row that it took before: \
                     `accumulate` must depend on its arguments only"
                );
            }
        }
        state
    }

    fn accumulated(self) -> Accumulated {
        Accumulated {
            states: columns(&self.states),
            rejects: self.rejects,
        }
    }
}

/// The states given, and new ones for the groups that have none.
fn starting_states<A: Aggregate>(given: &States) -> Vec<A::State> {
    let groups = given.groups as usize;
    assert!(
        given.columns.rows as usize <= groups,
        "the host sent more states than groups"
    );
    let mut states = Vec::with_capacity(groups);
    each_state::<A>(&given.columns, |_, state| states.push(state));
    states.resize_with(groups, A::State::default);
    states
}

fn each_state<A: Aggregate>(batch: &Batch, mut take: impl FnMut(usize, A::State)) {
    let mut reader = Columns::read_by::<A::State>(batch);
    for row in 0..batch.rows as usize {
        // SAFETY: the rows are read in order, and there are so many.
        match unsafe { A::State::read(&mut reader, row) } {
            Ok(state) => take(row, state),
            Err(unreadable) => panic!("a stored state cannot be read: {unreadable}"),
        }
    }
}

fn columns<'a, S: Record<'a>>(states: &[S]) -> Batch {
    let mut writer = S::Writer::default();
    writer.reserve(states.len());
    for state in states {
        // SAFETY: there is room for all of them.
        unsafe { state.write(&mut writer, Origin::NOWHERE) };
    }
    let mut columns = Vec::with_capacity(S::COLUMNS);
    writer.finish(&mut columns);
    Batch {
        rows: states.len() as u32,
        columns,
    }
}
