//! Makes states that an earlier version of an operator has kept those of this one.

use std::convert::Infallible;
use std::marker::PhantomData;

use crate::bindings::exports::sluicebox::plugin::transform::Transformed;
use crate::bindings::sluicebox::plugin::columns::Batch;
use crate::bindings::sluicebox::plugin::description;
use crate::instance::{Instance, TransformInstance};
use crate::operator::{ListedOperator, OpenResult, Operator, described};
use crate::record::{Record, Table};
use crate::{Aggregate, Process, Reject, Told, transform};

/// A state that was kept before, as the operator's state now.
pub trait Earlier<State>: for<'a> Record<'a> + 'static {
    fn migrate(self) -> Result<State, Reject>;
}

impl<State, Old> Earlier<State> for Old
where
    Old: for<'a> Record<'a> + 'static,
    State: TryFrom<Old, Error: Into<Reject>>,
{
    fn migrate(self) -> Result<State, Reject> {
        State::try_from(self).map_err(Into::into)
    }
}

impl From<Infallible> for Reject {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// Lists the migration of an aggregate's states from `Old`.
#[doc(hidden)]
pub const fn of_aggregate<A, G, Old>(stage: &'static str) -> ListedOperator
where
    A: Aggregate<G> + Operator,
    G: Told,
    Old: Earlier<A::State>,
{
    ListedOperator::stage::<A>(stage, describe::<A, Old, A::State>, |_| {
        open::<Old, A::State>()
    })
}

/// Lists the migration of a process's states from `Old`.
#[doc(hidden)]
pub const fn of_process<P, Old>(stage: &'static str) -> ListedOperator
where
    P: Process + Operator,
    Old: Earlier<P::State>,
{
    ListedOperator::stage::<P>(stage, describe::<P, Old, P::State>, |_| {
        open::<Old, P::State>()
    })
}

fn describe<O, Old, State>() -> description::Operator
where
    O: Operator,
    Old: Earlier<State>,
    State: for<'a> Record<'a>,
{
    description::Operator {
        parameters: Vec::new(),
        ..described::<O>(transform::shape(migrated::<Old, State>))
    }
}

fn open<Old: Earlier<State>, State: for<'a> Record<'a> + 'static>() -> OpenResult {
    let migration = Migration::<Old, State>(PhantomData);
    Ok(Instance::Transform(Box::new(migration)))
}

struct Migration<Old, State>(PhantomData<fn(Old) -> State>);

impl<Old, State> TransformInstance for Migration<Old, State>
where
    Old: Earlier<State>,
    State: for<'a> Record<'a>,
{
    fn transform(&self, states: &Batch) -> Transformed {
        transform::run(&Table::new(states), &(), migrated::<Old, State>)
    }
}

fn migrated<Old: Earlier<State>, State>(
    old: Old,
    _parameters: &(),
) -> Result<Option<State>, Reject> {
    old.migrate().map(Some)
}
