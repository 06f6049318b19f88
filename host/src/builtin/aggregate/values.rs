//! Functions of all values of a group, which rows can take back: the least, the largest,
//! the largest few, how many different ones there are.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, Int64Array};

use super::chosen::{NOWHERE, pick};
use super::fold::{Fold, Input, Output, Problem, count_of};
use super::lists::{Known, Lists, Place, Places, Value};
use super::order::Ordered;
use crate::chunked::ChunkedList;
use crate::schema::DataType;

/// What is shown of a group's values.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shown {
    Least,
    Largest,
    /// This many of the largest, in descending order.
    Top(usize),
    Distinct,
}

/// Keeps all values of a group, in ascending order.
pub(super) struct Values<C> {
    shown: Shown,
    lists: Lists<C>,
}

/// The values of a group in ascending order, and where each is.
struct Group<'a, C: Ordered> {
    values: ChunkedList<(Value<'a, C>, Place)>,
    /// How many different ones there are, where that is shown after each row.
    distinct: Option<usize>,
}

impl<'a, C: Ordered> Group<'a, C> {
    fn new(values: ChunkedList<(Value<'a, C>, Place)>, counts: bool) -> Self {
        let distinct = counts.then(|| distinct(values.iter()));
        Group { values, distinct }
    }

    fn add(&mut self, value: Value<'a, C>, row: usize) {
        let at = self.place(&value);
        let is_new = !self.has(at, &value);
        self.count(is_new, 1);
        self.values.insert(at, (value, (1, row)));
    }

    /// Removes an equal value, if there is one: it came before.
    fn take_back(&mut self, value: &Value<'a, C>) {
        let at = self.place(value);
        if self.has(at, value) {
            self.values.remove(at);
            let is_gone = !self.has(at, value);
            self.count(is_gone, -1);
        }
    }

    fn count(&mut self, changes: bool, by: isize) {
        if changes && let Some(distinct) = &mut self.distinct {
            *distinct = distinct.saturating_add_signed(by);
        }
    }

    /// Where the first value is that is not less.
    fn place(&self, value: &Value<'a, C>) -> usize {
        self.values.partition_point(|(known, _)| known < value)
    }

    fn has(&self, at: usize, value: &Value<'a, C>) -> bool {
        let found = self.values.get(at);
        found.is_some_and(|(known, _)| known == value)
    }

    fn places(&self) -> impl DoubleEndedIterator<Item = Place> {
        self.values.iter().map(|(_, place)| *place)
    }
}

/// How many different values there are among some in order.
fn distinct<'v, 'a: 'v, C: Ordered>(
    values: impl Iterator<Item = &'v (Value<'a, C>, Place)>,
) -> usize {
    let mut last = None;
    let values = values.map(|(value, _)| value);
    let new = values.filter(|&value| last.replace(value) != Some(value));
    new.count()
}

impl<C: Ordered> Values<C> {
    pub fn boxed(shown: Shown, list: &DataType) -> Box<dyn Fold> {
        Box::new(Values::<C> {
            shown,
            lists: Lists::new(list),
        })
    }

    /// The result of each group. The values are those of states, and of rows.
    fn show(
        &self,
        known: &ArrayRef,
        rows: Option<&ArrayRef>,
        groups: &Results,
    ) -> Result<ArrayRef, Problem> {
        match (groups, rows) {
            (Results::Counts(counts), _) => Ok(Arc::new(Int64Array::from(counts.clone()))),
            (Results::Lists(lists), rows) => self.lists.write(known, rows, lists),
            (Results::Chosen(places), rows) => {
                let place = |place: &Option<Place>| match *place {
                    None => NOWHERE,
                    Some((0, at)) => at as u32,
                    Some((_, row)) => (known.len() + row) as u32,
                };
                let places: Vec<u32> = places.iter().map(place).collect();
                match rows {
                    Some(rows) => pick(&[known, rows], &places),
                    None => pick(&[known], &places),
                }
            }
        }
    }

    fn no_results(&self) -> Results {
        match self.shown {
            Shown::Least | Shown::Largest => Results::Chosen(Vec::new()),
            Shown::Top(_) => Results::Lists(Places::default()),
            Shown::Distinct => Results::Counts(Vec::new()),
        }
    }

    fn add_result(&self, results: &mut Results, group: &Group<'_, C>) {
        match (results, self.shown) {
            (Results::Chosen(chosen), Shown::Least) => chosen.push(group.places().next()),
            (Results::Chosen(chosen), _) => chosen.push(group.places().next_back()),
            (Results::Lists(lists), Shown::Top(count)) => {
                lists.push(group.places().rev().take(count));
            }
            (Results::Lists(lists), _) => lists.push(group.places()),
            (Results::Counts(counts), _) => {
                let known = group.distinct;
                let distinct = known.unwrap_or_else(|| distinct(group.values.iter()));
                counts.push(distinct as i64);
            }
        }
    }
}

/// Results of groups, as they are collected.
enum Results {
    Chosen(Vec<Option<Place>>),
    Lists(Places),
    Counts(Vec<i64>),
}

impl<C: Ordered> Fold for Values<C> {
    fn fold(&self, input: Input<'_>) -> Result<Output, Problem> {
        let known = Known::<C>::new(&input.existing[0]);
        let counts = input.each && matches!(self.shown, Shown::Distinct);
        let group = |values| Group::new(values, counts);
        let existing = known.groups().map(|values| group(values.collect()));
        let mut groups: Vec<Group<C>> = existing.collect();
        groups.resize_with(input.group_count, || group(ChunkedList::default()));
        let mut after = self.no_results();
        if let Some(column) = input.column {
            let values = C::of(column);
            let nulls = input.nulls();
            let mut taken_back = input.taken_back.iter().peekable();
            for (row, &group) in input.groups.iter().enumerate() {
                let is_taken_back = taken_back.next_if(|&&back| back as usize == row).is_some();
                let group = &mut groups[group as usize];
                if nulls.is_none_or(|nulls| nulls.is_valid(row)) {
                    let value = Value(values.at(row));
                    match is_taken_back {
                        false => group.add(value, row),
                        true => group.take_back(&value),
                    }
                }
                if input.each {
                    self.add_result(&mut after, group);
                }
            }
        }
        let places = Places::of(groups.iter().map(Group::places));
        let states = self.lists.write(known.values, input.column, &places)?;
        let after = input
            .each
            .then(|| self.show(known.values, input.column, &after));
        Ok(Output {
            states: vec![states],
            after: after.transpose()?,
        })
    }

    fn merge(&self, states: &[ArrayRef], groups: &[u32]) -> Result<Vec<ArrayRef>, Problem> {
        let known = Known::<C>::new(&states[0]);
        let mut merged: Vec<Vec<(Value<C>, Place)>> = Vec::new();
        merged.resize_with(count_of(groups), Vec::new);
        for (values, &group) in known.groups().zip(groups) {
            merged[group as usize].extend(values);
        }
        for group in &mut merged {
            group.sort_by(|(one, _), (other, _)| one.cmp(other));
        }
        let places = merged.iter();
        let places = Places::of(places.map(|group| group.iter().map(|(_, place)| *place)));
        Ok(vec![self.lists.write(known.values, None, &places)?])
    }

    fn results(&self, states: &[ArrayRef]) -> Result<ArrayRef, Problem> {
        let known = Known::<C>::new(&states[0]);
        let mut results = self.no_results();
        for values in known.groups() {
            self.add_result(&mut results, &Group::new(values.collect(), false));
        }
        self.show(states[0].as_list::<i32>().values(), None, &results)
    }
}
