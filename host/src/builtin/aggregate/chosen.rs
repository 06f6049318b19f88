//! Functions that choose one value of each group: the least, the largest, the first, the
//! last.
//!
//! A chosen value is known by its place, so that values of all types are handled alike:
//! places count the states first, and the rows behind them.

use std::cmp::Ordering;
use std::marker::PhantomData;

use arrow_array::{Array, ArrayRef, new_null_array};
use arrow_select::interleave::interleave;

use super::fold::{Fold, Input, Output, Problem, count_of};
use super::order::Ordered;

/// The place of a group without a value.
pub(super) const NOWHERE: u32 = u32::MAX;

/// `first(field)` and `last(field)`, in the order in which rows come.
pub(super) struct ByArrival {
    pub last: bool,
}

impl ByArrival {
    fn choose(&self, chosen: &mut u32, place: u32) {
        if self.last || *chosen == NOWHERE {
            *chosen = place;
        }
    }
}

impl Fold for ByArrival {
    fn fold(&self, input: Input<'_>) -> Result<Output, Problem> {
        let Some(column) = input.column else {
            return Ok(no_column());
        };
        let known = &input.existing[0];
        let mut chosen = places_of(known);
        chosen.resize(input.group_count, NOWHERE);
        let first = known.len() as u32;
        let nulls = input.nulls();
        let mut after = Vec::new();
        for (row, &group) in input.groups.iter().enumerate() {
            let chosen = &mut chosen[group as usize];
            if nulls.is_none_or(|nulls| nulls.is_valid(row)) {
                self.choose(chosen, first + row as u32);
            }
            if input.each {
                after.push(*chosen);
            }
        }
        output(known, column, &chosen, input.each.then_some(&after))
    }

    fn merge(&self, states: &[ArrayRef], groups: &[u32]) -> Result<Vec<ArrayRef>, Problem> {
        let mut merged = vec![NOWHERE; count_of(groups)];
        for (place, &group) in places_of(&states[0]).into_iter().zip(groups) {
            if place != NOWHERE {
                self.choose(&mut merged[group as usize], place);
            }
        }
        Ok(vec![pick(&[&states[0]], &merged)?])
    }

    fn results(&self, states: &[ArrayRef]) -> Result<ArrayRef, Problem> {
        Ok(states[0].clone())
    }
}

/// `min(field)` and `max(field)`.
pub(super) struct Extreme<C> {
    /// How a value compares with the one that it replaces.
    replaces: Ordering,
    column: PhantomData<C>,
}

/// The best value of a group so far, and its place.
type Best<'a, C> = Option<(<C as Ordered>::Value<'a>, u32)>;

impl<C: Ordered> Extreme<C> {
    pub fn least() -> Box<dyn Fold> {
        Box::new(Extreme::<C> {
            replaces: Ordering::Less,
            column: PhantomData,
        })
    }

    pub fn largest() -> Box<dyn Fold> {
        Box::new(Extreme::<C> {
            replaces: Ordering::Greater,
            column: PhantomData,
        })
    }

    #[inline]
    fn choose<'a>(&self, best: &mut Best<'a, C>, value: C::Value<'a>, place: u32) {
        let replaces = match *best {
            Some((known, _)) => C::compare(value, known) == self.replaces,
            None => true,
        };
        if replaces {
            *best = Some((value, place));
        }
    }

    fn best_of<'a>(&self, states: &'a ArrayRef) -> Vec<Best<'a, C>> {
        let values = C::of(states);
        let best = places_of(states).into_iter().enumerate();
        best.map(|(row, place)| (place != NOWHERE).then(|| (values.at(row), place)))
            .collect()
    }
}

impl<C: Ordered> Fold for Extreme<C> {
    fn fold(&self, input: Input<'_>) -> Result<Output, Problem> {
        let Some(column) = input.column else {
            return Ok(no_column());
        };
        let known = &input.existing[0];
        let mut best = self.best_of(known);
        best.resize(input.group_count, None);
        let first = known.len() as u32;
        let values = C::of(column);
        let nulls = input.nulls();
        let mut after = Vec::new();
        for (row, &group) in input.groups.iter().enumerate() {
            let best = &mut best[group as usize];
            if nulls.is_none_or(|nulls| nulls.is_valid(row)) {
                self.choose(best, values.at(row), first + row as u32);
            }
            if input.each {
                after.push(place::<C>(*best));
            }
        }
        let chosen: Vec<u32> = best.into_iter().map(place::<C>).collect();
        output(known, column, &chosen, input.each.then_some(&after))
    }

    fn merge(&self, states: &[ArrayRef], groups: &[u32]) -> Result<Vec<ArrayRef>, Problem> {
        let mut merged: Vec<Best<'_, C>> = vec![None; count_of(groups)];
        for (best, &group) in self.best_of(&states[0]).into_iter().zip(groups) {
            if let Some((value, place)) = best {
                self.choose(&mut merged[group as usize], value, place);
            }
        }
        let chosen: Vec<u32> = merged.into_iter().map(place::<C>).collect();
        Ok(vec![pick(&[&states[0]], &chosen)?])
    }

    fn results(&self, states: &[ArrayRef]) -> Result<ArrayRef, Problem> {
        Ok(states[0].clone())
    }
}

fn place<C: Ordered>(best: Best<'_, C>) -> u32 {
    best.map_or(NOWHERE, |(_, place)| place)
}

/// The places of states that have a value.
fn places_of(states: &ArrayRef) -> Vec<u32> {
    let nulls = states.nulls();
    (0..states.len() as u32)
        .map(
            |row| match nulls.is_none_or(|it| it.is_valid(row as usize)) {
                true => row,
                false => NOWHERE,
            },
        )
        .collect()
}

fn output(
    known: &ArrayRef,
    column: &ArrayRef,
    chosen: &[u32],
    after: Option<&Vec<u32>>,
) -> Result<Output, Problem> {
    let after = after
        .map(|after| pick(&[known, column], after))
        .transpose()?;
    Ok(Output {
        states: vec![pick(&[known, column], chosen)?],
        after,
    })
}

/// The planner gives each of these functions a field.
fn no_column() -> Output {
    Output {
        states: Vec::new(),
        after: None,
    }
}

/// The values at places that count through the columns.
pub(super) fn pick(columns: &[&ArrayRef], places: &[u32]) -> Result<ArrayRef, Problem> {
    let missing = new_null_array(columns[0].data_type(), 1);
    let first = columns[0].len() as u32;
    let place = |&place: &u32| match place {
        NOWHERE => (columns.len(), 0),
        place if place < first => (0, place as usize),
        place => (1, (place - first) as usize),
    };
    let places: Vec<(usize, usize)> = places.iter().map(place).collect();
    let columns = columns.iter().copied().chain([&missing]);
    let columns: Vec<&dyn Array> = columns.map(|column| column.as_ref()).collect();
    Ok(interleave(&columns, &places)?)
}
