//! Folds rows into the states of their groups. The host sends states as columns
//! and gets them back as columns; in between they are values of the author's
//! type.

use crate::bindings::exports::sluicebox::plugin::aggregate::{
    Accumulated, AccumulatedEach, Grouped, Guest, States, Windows,
};
use crate::bindings::sluicebox::plugin::answers;
use crate::bindings::sluicebox::plugin::columns::Batch;
use crate::bindings::sluicebox::plugin::description::Kind;
use crate::instance::{AggregateInstance, Instance, Opened, Shape, not_of_kind};
use crate::outputs::{OutputRows, Outputs};
use crate::ports::Ports;
use crate::record::{Nowhere, Record, Table, columns, read_all, schema_of};
use crate::{Parameters, Reject, Timestamp, Window};

/// Folds the rows of a key and window into a result.
///
/// The type that implements it carries `#[operator]`, and its fields are the
/// operator's [`Parameters`]. The operator is named after it, in snake case.
///
/// A result that depends on the key needs [`Group`].
///
/// The host keeps the states, and may cut the rows of a group anywhere: into
/// several calls, or into several states that are merged. So neither the order
/// of rows from different keys nor the end of a batch may affect the result.
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
pub trait Aggregate<G: Told = Window>: Parameters {
    /// The rows that are folded.
    type Input<'a>: Record<'a>;
    /// What is kept between rows. A new group starts with the default.
    ///
    /// Where it has other fields than in the version before, `#[operator(migrates(Before))]`
    /// names the record of that version, and `From` (or `TryFrom`, whose error is a
    /// [`Reject`]) makes a state of it. Then the host goes on with what it has, which it
    /// would refuse otherwise. Several records are named with the newest first.
    ///
    /// ```
    /// use sluicebox_sdk::prelude::*;
    ///
    /// # #[derive(Record)]
    /// # struct Sale { cents: u64 }
    /// # #[derive(Record)]
    /// # struct Mean { cents: f64 }
    /// /// The state as it was.
    /// #[derive(Record)]
    /// struct Before {
    ///     sales: u64,
    ///     cents: u64,
    /// }
    ///
    /// #[derive(Record, Clone, Default, Debug, PartialEq)]
    /// struct Total {
    ///     sales: u64,
    ///     cents: u64,
    ///     /// Unknown where there were sales before it was kept.
    ///     highest: Option<u64>,
    /// }
    ///
    /// impl From<Before> for Total {
    ///     fn from(before: Before) -> Total {
    ///         Total { sales: before.sales, cents: before.cents, highest: None }
    ///     }
    /// }
    ///
    /// /// The mean of sales.
    /// #[operator(migrates(Before))]
    /// struct MeanSale {}
    /// # impl Aggregate for MeanSale {
    /// #     type Input<'a> = Sale;
    /// #     type State = Total;
    /// #     type Output<'a> = Mean;
    /// #     fn accumulate(&self, total: &mut Total, sale: Sale) -> Result<(), Reject> {
    /// #         total.sales += 1;
    /// #         total.cents += sale.cents;
    /// #         Ok(())
    /// #     }
    /// #     fn merge(&self, total: &mut Total, later: Total) { total.sales += later.sales }
    /// #     fn finish(&self, total: &Total, _: Window) -> Mean {
    /// #         Mean { cents: total.cents as f64 / total.sales as f64 }
    /// #     }
    /// # }
    ///
    /// export!(MeanSale);
    ///
    /// let total = Total::from(Before { sales: 2, cents: 500 });
    /// assert_eq!(total, Total { sales: 2, cents: 500, highest: None });
    /// ```
    type State: for<'a> Record<'a> + Default + Clone;
    /// The result: a record, or an `Option` or `Vec` of records. They may
    /// borrow from the state.
    type Output<'a>: Outputs<'a>
    where
        Self: 'a;

    /// Folds one row into the state. On `Err`, the state is restored to what it
    /// was before the row.
    fn accumulate(&self, state: &mut Self::State, row: Self::Input<'_>) -> Result<(), Reject>;

    /// Merges in the state of later rows (or, in session windows, of rows from
    /// another session that now turns out to be the same).
    fn merge(&self, state: &mut Self::State, later: Self::State);

    /// Returns the result. It may be called several times for a state, as more
    /// rows come; for running aggregates it is called after each row, with
    /// [`Window::ALL`]. An `Aggregate<Group<Key>>` is told the key as well: see [`Group`].
    fn finish<'a>(&'a self, state: &'a Self::State, group: G::Given<'a>) -> Self::Output<'a>;
}

/// A key and a window, for an aggregate whose results depend on their key:
/// `Aggregate<Group<Key>>`.
///
/// The fields of `Key` are those of the pipeline's `key` that the aggregate reads, by name
/// and type. `sluicebox check` refuses a pipeline whose key lacks one. Results have all fields of
/// the key anyway, so there is no need to repeat them.
///
/// ```
/// use sluicebox_sdk::prelude::*;
///
/// #[derive(Record)]
/// struct Sale {
///     cents: i64,
/// }
///
/// #[derive(Record, Clone, Default)]
/// struct Total {
///     cents: i64,
/// }
///
/// #[derive(Record)]
/// struct Shop {
///     country: String,
/// }
///
/// #[derive(Record, Debug, PartialEq)]
/// struct Taxed {
///     cents: i64,
///     tax_cents: i64,
/// }
///
/// /// Sales of a shop, with the tax of its country.
/// #[operator]
/// struct Sales {}
///
/// impl Aggregate<Group<Shop>> for Sales {
///     type Input<'a> = Sale;
///     type State = Total;
///     type Output<'a> = Taxed;
///
///     fn accumulate(&self, total: &mut Total, sale: Sale) -> Result<(), Reject> {
///         total.cents += sale.cents;
///         Ok(())
///     }
///
///     fn merge(&self, total: &mut Total, later: Total) {
///         total.cents += later.cents;
///     }
///
///     fn finish(&self, total: &Total, shop: &Group<Shop>) -> Taxed {
///         let percent = match shop.key.country.as_str() {
///             "LU" => 17,
///             _ => 20,
///         };
///         Taxed { cents: total.cents, tax_cents: total.cents * percent / 100 }
///     }
/// }
///
/// export!(Sales);
///
/// let key = Shop { country: "LU".to_owned() };
/// let shop = Group { key, window: Window::ALL };
/// let taxed = Taxed { cents: 200, tax_cents: 34 };
/// assert_eq!(Sales {}.finish(&Total { cents: 200 }, &shop), taxed);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group<K> {
    /// What the aggregate reads of the key.
    pub key: K,
    /// The window of the result.
    pub window: Window,
}

/// What [`Aggregate::finish`] is told beside a state: its [`Window`], or a [`Group`], which
/// has its key as well.
#[diagnostic::on_unimplemented(
    message = "an aggregate is not told a `{Self}`",
    note = "write `Aggregate`, or `Aggregate<Group<Key>>` to read the fields of `Key`, a record \
            that owns its fields"
)]
pub trait Told: Sized + 'static {
    /// As `finish` gets it.
    type Given<'a>;
    #[doc(hidden)]
    type Key: for<'a> Record<'a>;
    #[doc(hidden)]
    fn new(key: Self::Key, window: Window) -> Self;
    #[doc(hidden)]
    fn given(&self) -> Self::Given<'_>;
}

impl Told for Window {
    type Given<'a> = Window;
    type Key = ();

    #[inline(always)]
    fn new((): (), window: Window) -> Self {
        window
    }

    #[inline(always)]
    fn given(&self) -> Window {
        *self
    }
}

impl<K: for<'a> Record<'a> + 'static> Told for Group<K> {
    type Given<'a> = &'a Group<K>;
    type Key = K;

    fn new(key: K, window: Window) -> Self {
        Group { key, window }
    }

    fn given(&self) -> &Self {
        self
    }
}

/// Takes rows back, for an aggregate that may read the changes of a table
/// (`input = "totals.changes"`): each row that is replaced or gone comes once more, and
/// has to leave the state as if it had never come.
///
/// The struct carries `#[operator(retracts)]`.
///
/// ```
/// use sluicebox_sdk::prelude::*;
///
/// #[derive(Record)]
/// struct Basket {
///     cents: i64,
/// }
///
/// #[derive(Record, Clone, Default)]
/// struct Baskets {
///     count: i64,
///     cents: i64,
/// }
///
/// #[operator(retracts)]
/// struct OpenBaskets {}
///
/// impl Aggregate for OpenBaskets {
///     type Input<'a> = Basket;
///     type State = Baskets;
///     // Without baskets there is no result.
///     type Output<'a> = Option<Baskets>;
///
///     fn accumulate(&self, open: &mut Baskets, basket: Basket) -> Result<(), Reject> {
///         open.count += 1;
///         open.cents += basket.cents;
///         Ok(())
///     }
///
///     fn merge(&self, open: &mut Baskets, later: Baskets) {
///         open.count += later.count;
///         open.cents += later.cents;
///     }
///
///     fn finish(&self, open: &Baskets, _window: Window) -> Option<Baskets> {
///         (open.count > 0).then(|| open.clone())
///     }
/// }
///
/// impl Retract for OpenBaskets {
///     fn retract(&self, open: &mut Baskets, basket: Basket) -> Result<(), Reject> {
///         open.count -= 1;
///         open.cents -= basket.cents;
///         Ok(())
///     }
/// }
///
/// export!(OpenBaskets);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot take rows back",
    label = "has `#[operator(retracts)]`, but no `impl Retract`",
    note = "without `retracts` it is an aggregate of rows that stay"
)]
pub trait Retract<G: Told = Window>: Aggregate<G> {
    /// Takes back one row, equal to one that was folded before, from this state or from
    /// one that will be merged with it. So counts are best signed numbers.
    ///
    /// It has to reject the rows that `accumulate` rejects, which have left the state as
    /// it was.
    fn retract(&self, state: &mut Self::State, row: Self::Input<'_>) -> Result<(), Reject>;
}

/// [`Retract::retract`], if there is one.
type TakeBack<A, G> = for<'r> fn(
    &A,
    &mut <A as Aggregate<G>>::State,
    <A as Aggregate<G>>::Input<'r>,
) -> Result<(), Reject>;

fn never<A: Aggregate<G>, G: Told>(_: &A, _: &mut A::State, _: A::Input<'_>) -> Result<(), Reject> {
    panic!("the host takes a row back from an aggregate that cannot do that");
}

type OutputRow<'a, A, G> = <<A as Aggregate<G>>::Output<'a> as Outputs<'a>>::Row;

#[doc(hidden)]
pub fn shape<A: Aggregate<G>, G: Told>() -> Shape {
    Shape {
        kind: Kind::Aggregate,
        inputs: A::Input::describe_ports(),
        outputs: OutputRow::<A, G>::describe_ports(),
        key: schema_of::<G::Key>(),
        state: schema_of::<A::State>(),
        retracts: false,
    }
}

#[doc(hidden)]
pub fn shape_retracting<A: Retract<G>, G: Told>() -> Shape {
    Shape {
        retracts: true,
        ..shape::<A, G>()
    }
}

fn accumulate<A: Aggregate<G>, G: Told>(
    logic: &ColumnarAggregate<A, G>,
    rows: &Grouped,
    states: &States,
) -> Accumulated {
    let table = Table::new(&rows.columns);
    let fold = Fold::new(logic, &table, rows, states);
    match fold.without_rejects(|_, _, _| ()) {
        Some(states) => accumulated(&states, Vec::new()),
        None => {
            let (states, rejects) = fold.with_rejects(|_, _, _| ());
            accumulated(&states, rejects)
        }
    }
}

fn accumulate_each<A: Aggregate<G>, G: Told>(
    logic: &ColumnarAggregate<A, G>,
    rows: &Grouped,
    states: &States,
    keys: &Batch,
) -> AccumulatedEach {
    let groups: Vec<G> = told(keys, states.groups as usize, |_| Window::ALL);
    let table = Table::new(&rows.columns);
    let fold = Fold::new(logic, &table, rows, states);
    let aggregate = &logic.aggregate;
    let mut results = ResultRows::new(aggregate, table.rows());
    let folded = fold.without_rejects(|row, group, state| results.add(row, &groups[group], state));
    let (states, rejects) = match folded {
        Some(states) => (states, Vec::new()),
        None => {
            results = ResultRows::new(aggregate, table.rows());
            fold.with_rejects(|row, group, state| results.add(row, &groups[group], state))
        }
    };
    AccumulatedEach {
        states: columns(&states),
        results: results.rows.finish(&[]),
        rejects,
    }
}

fn merge<A: Aggregate<G>, G: Told>(aggregate: &A, states: &Batch, groups: &[u32]) -> Batch {
    assert_eq!(
        groups.len(),
        states.rows as usize,
        "the host sent another number of groups than of states"
    );
    let mut merged: Vec<A::State> = Vec::with_capacity(groups.len());
    let mut last = None;
    for (state, &group) in read_all::<A::State>(states, 0).into_iter().zip(groups) {
        match merged.last_mut() {
            Some(first) if last == Some(group) => aggregate.merge(first, state),
            _ => merged.push(state),
        }
        last = Some(group);
    }
    columns(&merged)
}

fn finish<A: Aggregate<G>, G: Told>(
    aggregate: &A,
    states: &Batch,
    keys: &Batch,
    windows: &Windows,
) -> answers::Rows {
    let rows = states.rows as usize;
    assert!(
        windows.starts.len() == rows && windows.ends.len() == rows,
        "the host sent another number of windows than of states"
    );
    let values = read_all::<A::State>(states, 0);
    let groups: Vec<G> = told(keys, rows, |row| Window {
        start: Timestamp(windows.starts[row]),
        end: Timestamp(windows.ends[row]),
    });
    let mut results = OutputRows::<OutputRow<'_, A, G>>::with_capacity(rows, &Nowhere);
    for (row, (state, group)) in values.iter().zip(&groups).enumerate() {
        let outputs = aggregate.finish(state, group.given());
        results.give(outputs, row as u32, &Nowhere);
    }
    results.finish(&[])
}

/// What each of so many groups or states is told of itself.
fn told<G: Told>(keys: &Batch, count: usize, window: impl Fn(usize) -> Window) -> Vec<G> {
    let keys = read_all::<G::Key>(keys, 0).into_iter();
    assert_eq!(
        keys.len(),
        count,
        "the host sent another number of keys than of groups"
    );
    let told = keys.enumerate();
    told.map(|(at, key)| G::new(key, window(at))).collect()
}

struct ColumnarAggregate<A: Aggregate<G>, G: Told> {
    aggregate: A,
    take_back: TakeBack<A, G>,
}

impl<A: Aggregate<G>, G: Told> AggregateInstance for ColumnarAggregate<A, G> {
    fn accumulate(&self, rows: &Grouped, states: &States) -> Accumulated {
        accumulate(self, rows, states)
    }

    fn accumulate_each(&self, rows: &Grouped, states: &States, keys: &Batch) -> AccumulatedEach {
        accumulate_each(self, rows, states, keys)
    }

    fn merge(&self, states: &Batch, groups: &[u32]) -> Batch {
        merge(&self.aggregate, states, groups)
    }

    fn finish(&self, states: &Batch, keys: &Batch, windows: &Windows) -> answers::Rows {
        finish(&self.aggregate, states, keys, windows)
    }
}

#[doc(hidden)]
pub fn open<A: Aggregate<G> + 'static, G: Told>(aggregate: A) -> Instance {
    Instance::Aggregate(Box::new(ColumnarAggregate {
        aggregate,
        take_back: never,
    }))
}

#[doc(hidden)]
pub fn open_retracting<A: Retract<G> + 'static, G: Told>(aggregate: A) -> Instance {
    Instance::Aggregate(Box::new(ColumnarAggregate {
        aggregate,
        take_back: A::retract,
    }))
}

impl Opened {
    fn aggregate<R>(call: impl FnOnce(&dyn AggregateInstance) -> R) -> R {
        Opened::with(|instance| match instance {
            Instance::Aggregate(aggregate) => call(&**aggregate),
            _ => not_of_kind("aggregate"),
        })
    }
}

impl Guest for Opened {
    fn accumulate(rows: Grouped, states: States) -> Accumulated {
        Opened::aggregate(|aggregate| aggregate.accumulate(&rows, &states))
    }

    fn accumulate_each(rows: Grouped, states: States, keys: Batch) -> AccumulatedEach {
        Opened::aggregate(|aggregate| aggregate.accumulate_each(&rows, &states, &keys))
    }

    fn merge(states: Batch, groups: Vec<u32>) -> Batch {
        Opened::aggregate(|aggregate| aggregate.merge(&states, &groups))
    }

    fn finish(states: Batch, keys: Batch, windows: Windows) -> answers::Rows {
        Opened::aggregate(|aggregate| aggregate.finish(&states, &keys, &windows))
    }
}

/// Folds the rows of a batch into states.
struct Fold<'a, A: Aggregate<G>, G: Told> {
    logic: &'a ColumnarAggregate<A, G>,
    input: &'a Table<'a>,
    rows: &'a Grouped,
    given: &'a States,
}

/// The rows that take others back: each is asked for in its turn.
struct TakenBack<'a> {
    next: u32,
    rest: std::slice::Iter<'a, u32>,
}

impl<'a> TakenBack<'a> {
    fn new(rows: &'a [u32]) -> Self {
        let mut rest = rows.iter();
        TakenBack {
            next: rest.next().copied().unwrap_or(u32::MAX),
            rest,
        }
    }

    #[inline(always)]
    fn has(&mut self, row: usize) -> bool {
        let has = row as u32 == self.next;
        if has {
            self.next = self.rest.next().copied().unwrap_or(u32::MAX);
        }
        has
    }
}

impl<'a, A: Aggregate<G>, G: Told> Fold<'a, A, G> {
    fn new(
        logic: &'a ColumnarAggregate<A, G>,
        input: &'a Table<'a>,
        rows: &'a Grouped,
        given: &'a States,
    ) -> Self {
        assert_eq!(
            rows.groups.len(),
            input.rows(),
            "the host sent another number of groups than of rows"
        );
        Fold {
            logic,
            input,
            rows,
            given,
        }
    }

    #[inline(always)]
    fn change(
        &self,
        is_taken_back: bool,
        state: &mut A::State,
        row: A::Input<'a>,
    ) -> Result<(), Reject> {
        match is_taken_back {
            false => self.logic.aggregate.accumulate(state, row),
            true => (self.logic.take_back)(&self.logic.aggregate, state, row),
        }
    }

    /// The new states if no row is rejected, the usual case; else `None`.
    /// `folded` sees each row, its group, and the state after it.
    #[inline(always)]
    fn without_rejects(
        &self,
        mut folded: impl FnMut(u32, usize, &A::State),
    ) -> Option<Vec<A::State>> {
        let mut states = starting_states::<A, G>(self.given);
        let reader = self.input.reader::<A::Input<'a>>();
        let mut taken_back = TakenBack::new(&self.rows.taken_back);
        for (row, &group) in self.rows.groups.iter().enumerate() {
            let state = &mut states[group as usize];
            // SAFETY: the table has this row.
            let input = unsafe { A::Input::read(&reader, row) }.ok()?;
            self.change(taken_back.has(row), state, input).ok()?;
            folded(row as u32, group as usize, state);
        }
        Some(states)
    }

    /// The new states and the rejected rows. Each row is folded into a copy, so
    /// that a rejected row changes nothing.
    #[cold]
    fn with_rejects(
        &self,
        mut folded: impl FnMut(u32, usize, &A::State),
    ) -> (Vec<A::State>, Vec<answers::Reject>) {
        let mut states = starting_states::<A, G>(self.given);
        let reader = self.input.reader::<A::Input<'a>>();
        let mut taken_back = TakenBack::new(&self.rows.taken_back);
        let mut rejects = Vec::new();
        for (row, &group) in self.rows.groups.iter().enumerate() {
            let is_taken_back = taken_back.has(row);
            let mut state = states[group as usize].clone();
            // SAFETY: the table has this row.
            let input = unsafe { A::Input::read(&reader, row) };
            let outcome = input
                .map_err(Reject::from)
                .and_then(|input| self.change(is_taken_back, &mut state, input));
            match outcome {
                Ok(()) => {
                    folded(row as u32, group as usize, &state);
                    states[group as usize] = state;
                }
                Err(reject) => rejects.push(answers::Reject {
                    row: row as u32,
                    reason: reject.into_reason(),
                }),
            }
        }
        (states, rejects)
    }
}

fn accumulated<'a, S: Record<'a>>(states: &[S], rejects: Vec<answers::Reject>) -> Accumulated {
    Accumulated {
        states: columns(states),
        rejects,
    }
}

/// The results after each row.
struct ResultRows<'a, A: Aggregate<G>, G: Told> {
    aggregate: &'a A,
    rows: OutputRows<'a, OutputRow<'a, A, G>>,
}

impl<'a, A: Aggregate<G>, G: Told> ResultRows<'a, A, G> {
    fn new(aggregate: &'a A, rows: usize) -> Self {
        ResultRows {
            aggregate,
            rows: OutputRows::with_capacity(rows, &Nowhere),
        }
    }

    #[inline(always)]
    fn add(&mut self, row: u32, group: &'a G, state: &A::State) {
        // SAFETY: the result borrows from the state for longer than the state
        // stays unchanged, but is gone before it changes: `give` consumes the
        // result, and `settle` copies what its rows have borrowed.
        let state = unsafe { &*std::ptr::from_ref(state) };
        self.rows
            .give(self.aggregate.finish(state, group.given()), row, &Nowhere);
        self.rows.settle();
    }
}

/// The given states, then default ones for the new groups.
fn starting_states<A: Aggregate<G>, G: Told>(given: &States) -> Vec<A::State> {
    let groups = given.groups as usize;
    assert!(
        given.columns.rows as usize <= groups,
        "the host sent more states than groups"
    );
    let mut states = read_all::<A::State>(&given.columns, groups);
    states.resize_with(groups, A::State::default);
    states
}

#[cfg(test)]
mod tests;
