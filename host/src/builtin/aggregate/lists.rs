//! Functions that keep several values of each group: the largest ones, or the distinct
//! ones.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, Int64Array, ListArray, make_array};
use arrow_buffer::OffsetBuffer;
use arrow_data::transform::MutableArrayData;
use arrow_schema::FieldRef;
use arrow_select::interleave::interleave;

use super::fold::{Fold, Input, Output, Problem, count_of};
use super::order::Ordered;
use crate::schema::DataType;

/// A value of a column with an order.
pub(super) struct Value<'a, C: Ordered>(pub C::Value<'a>);

/// Where a value is: 0 and its place in the lists of states, or 1 and its row.
pub(super) type Place = (usize, usize);

/// `top(n, field)`: the largest values, in descending order.
pub(super) struct Top<C> {
    count: usize,
    lists: Lists<C>,
}

impl<C: Ordered> Top<C> {
    pub fn boxed(count: usize, list: &DataType) -> Box<dyn Fold> {
        Box::new(Top::<C> {
            count,
            lists: Lists::new(list),
        })
    }

    fn add<'a>(&self, best: &mut Vec<(Value<'a, C>, Place)>, value: C::Value<'a>, place: Place) {
        let value = Value(value);
        if best.len() == self.count && best.last().is_some_and(|(least, _)| value <= *least) {
            return;
        }
        let at = best.partition_point(|(known, _)| *known >= value);
        best.insert(at, (value, place));
        best.truncate(self.count);
    }
}

impl<C: Ordered> Fold for Top<C> {
    fn fold(&self, input: Input<'_>) -> Result<Output, Problem> {
        let known = Known::<C>::new(&input.existing[0]);
        let mut best: Vec<Vec<(Value<C>, Place)>> =
            known.groups().map(|values| values.collect()).collect();
        best.resize_with(input.group_count, Vec::new);
        let mut after = Places::default();
        if let Some(column) = input.column {
            let values = C::of(column);
            let nulls = input.nulls();
            for (row, &group) in input.groups.iter().enumerate() {
                let best = &mut best[group as usize];
                if nulls.is_none_or(|nulls| nulls.is_valid(row)) {
                    self.add(best, values.at(row), (1, row));
                }
                if input.each {
                    after.push(best.iter().map(|(_, place)| *place));
                }
            }
        }
        let places = Places::of(best.iter().map(|best| best.iter().map(|(_, place)| *place)));
        let states = self.lists.write(known.values, input.column, &places)?;
        let after = input
            .each
            .then(|| self.lists.write(known.values, input.column, &after));
        Ok(Output {
            states: vec![states],
            after: after.transpose()?,
        })
    }

    fn merge(&self, states: &[ArrayRef], groups: &[u32]) -> Result<Vec<ArrayRef>, Problem> {
        let known = Known::<C>::new(&states[0]);
        let mut best: Vec<Vec<(Value<C>, Place)>> = Vec::new();
        best.resize_with(count_of(groups), Vec::new);
        for (values, &group) in known.groups().zip(groups) {
            for (value, place) in values {
                self.add(&mut best[group as usize], value.0, place);
            }
        }
        let places = Places::of(best.iter().map(|best| best.iter().map(|(_, place)| *place)));
        Ok(vec![self.lists.write(known.values, None, &places)?])
    }

    fn results(&self, states: &[ArrayRef]) -> Result<ArrayRef, Problem> {
        Ok(states[0].clone())
    }
}

/// `count_distinct(field)`: keeps the values in ascending order.
pub(super) struct CountDistinct<C> {
    lists: Lists<C>,
}

/// The values of a group: the known ones in order, and what rows add to them.
struct Distinct<'a, C: Ordered> {
    known: Range<usize>,
    /// The row of each value.
    added: BTreeMap<Value<'a, C>, usize>,
}

impl<C: Ordered> CountDistinct<C> {
    pub fn boxed(list: &DataType) -> Box<dyn Fold> {
        Box::new(CountDistinct::<C> {
            lists: Lists::new(list),
        })
    }

    /// The states of groups. Known values, which may be many, are copied in runs.
    fn write(
        &self,
        known: &Known<'_, C>,
        column: &ArrayRef,
        groups: &[Distinct<'_, C>],
    ) -> Result<ArrayRef, Problem> {
        let lengths = groups.iter().map(Distinct::len);
        let ends = OffsetBuffer::from_lengths(lengths.clone());
        let (of_states, of_rows) = (known.values.to_data(), column.to_data());
        let mut values = MutableArrayData::new(vec![&of_states, &of_rows], false, lengths.sum());
        for group in groups {
            let mut rest = group.known.clone();
            for (value, &row) in &group.added {
                let at = known.place(&rest, value);
                values.try_extend(0, rest.start, at)?;
                values.try_extend(1, row, row + 1)?;
                rest.start = at;
            }
            values.try_extend(0, rest.start, rest.end)?;
        }
        self.lists.of(ends, make_array(values.freeze()))
    }
}

impl<C: Ordered> Distinct<'_, C> {
    fn len(&self) -> usize {
        self.known.len() + self.added.len()
    }
}

impl<C: Ordered> Fold for CountDistinct<C> {
    fn fold(&self, input: Input<'_>) -> Result<Output, Problem> {
        let known = Known::<C>::new(&input.existing[0]);
        let group = |known| Distinct {
            known,
            added: BTreeMap::new(),
        };
        let mut groups: Vec<Distinct<C>> = known.ranges().map(group).collect();
        groups.resize_with(input.group_count, || group(0..0));
        let mut after: Vec<i64> = Vec::new();
        if let Some(column) = input.column {
            let values = C::of(column);
            let nulls = input.nulls();
            for (row, &group) in input.groups.iter().enumerate() {
                let group = &mut groups[group as usize];
                if nulls.is_none_or(|nulls| nulls.is_valid(row)) {
                    let value = Value(values.at(row));
                    if !known.has(&group.known, &value) {
                        group.added.entry(value).or_insert(row);
                    }
                }
                if input.each {
                    after.push(group.len() as i64);
                }
            }
        }
        let is_same = groups.len() == input.existing[0].len()
            && groups.iter().all(|group| group.added.is_empty());
        let states = match input.column.filter(|_| !is_same) {
            Some(column) => self.write(&known, column, &groups)?,
            None => input.existing[0].clone(),
        };
        Ok(Output {
            states: vec![states],
            after: input
                .each
                .then(|| Arc::new(Int64Array::from(after)) as ArrayRef),
        })
    }

    fn merge(&self, states: &[ArrayRef], groups: &[u32]) -> Result<Vec<ArrayRef>, Problem> {
        let known = Known::<C>::new(&states[0]);
        let mut distinct: Vec<BTreeMap<Value<C>, Place>> = Vec::new();
        distinct.resize_with(count_of(groups), BTreeMap::new);
        for (values, &group) in known.groups().zip(groups) {
            distinct[group as usize].extend(values);
        }
        let places = Places::of(distinct.iter().map(|values| values.values().copied()));
        Ok(vec![self.lists.write(known.values, None, &places)?])
    }

    fn results(&self, states: &[ArrayRef]) -> Result<ArrayRef, Problem> {
        let lengths = states[0].as_list::<i32>().offsets().lengths();
        let counts = lengths.map(|length| length as i64);
        Ok(Arc::new(Int64Array::from_iter_values(counts)))
    }
}

/// The lists of states.
pub(super) struct Known<'a, C> {
    lists: &'a ListArray,
    pub values: &'a ArrayRef,
    column: &'a C,
}

impl<'a, C: Ordered> Known<'a, C> {
    pub fn new(states: &'a ArrayRef) -> Self {
        let lists = states.as_list::<i32>();
        Known {
            lists,
            values: lists.values(),
            column: C::of(lists.values()),
        }
    }

    /// The values of each state.
    pub fn groups(&self) -> impl Iterator<Item = impl Iterator<Item = (Value<'a, C>, Place)>> {
        let column = self.column;
        self.ranges()
            .map(move |places| places.map(move |place| (Value(column.at(place)), (0, place))))
    }

    /// Where the values of each state are.
    fn ranges(&self) -> impl Iterator<Item = Range<usize>> + use<'a, C> {
        let ends = self.lists.offsets().windows(2);
        ends.map(|ends| ends[0] as usize..ends[1] as usize)
    }

    /// Where the first of some values is, which are in ascending order, that is not less.
    fn place(&self, values: &Range<usize>, value: &Value<'_, C>) -> usize {
        let (mut least, mut most) = (values.start, values.end);
        while least < most {
            let middle = least + (most - least) / 2;
            match C::compare(self.column.at(middle), value.0) {
                Ordering::Less => least = middle + 1,
                Ordering::Equal | Ordering::Greater => most = middle,
            }
        }
        least
    }

    /// Whether a value is among some, which are in ascending order.
    fn has(&self, values: &Range<usize>, value: &Value<'_, C>) -> bool {
        let at = self.place(values, value);
        at < values.end && C::compare(self.column.at(at), value.0) == Ordering::Equal
    }
}

/// Lists of values by their places.
#[derive(Default)]
pub(super) struct Places {
    places: Vec<Place>,
    lengths: Vec<usize>,
}

impl Places {
    pub fn of(lists: impl Iterator<Item = impl Iterator<Item = Place>>) -> Self {
        let mut places = Places::default();
        for list in lists {
            places.push(list);
        }
        places
    }

    pub fn push(&mut self, list: impl Iterator<Item = Place>) {
        let before = self.places.len();
        self.places.extend(list);
        self.lengths.push(self.places.len() - before);
    }
}

/// Writes columns of lists.
pub(super) struct Lists<C> {
    element: FieldRef,
    column: std::marker::PhantomData<C>,
}

impl<C> Lists<C> {
    pub fn new(list: &DataType) -> Self {
        let element = match list {
            DataType::List(element) => element.to_arrow(),
            other => arrow_schema::Field::new("item", other.to_arrow(), false),
        };
        Lists {
            element: Arc::new(element),
            column: std::marker::PhantomData,
        }
    }

    pub fn write(
        &self,
        known: &ArrayRef,
        rows: Option<&ArrayRef>,
        lists: &Places,
    ) -> Result<ArrayRef, Problem> {
        let columns = [Some(known), rows];
        let columns = columns.iter().flatten();
        let columns: Vec<&dyn Array> = columns.map(|column| column.as_ref()).collect();
        let values = interleave(&columns, &lists.places)?;
        let ends = OffsetBuffer::from_lengths(lists.lengths.iter().copied());
        self.of(ends, values)
    }

    fn of(&self, ends: OffsetBuffer<i32>, values: ArrayRef) -> Result<ArrayRef, Problem> {
        let lists = ListArray::try_new(self.element.clone(), ends, values, None)?;
        Ok(Arc::new(lists))
    }
}

impl<C: Ordered> PartialEq for Value<'_, C> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<C: Ordered> Eq for Value<'_, C> {}

impl<C: Ordered> PartialOrd for Value<'_, C> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<C: Ordered> Ord for Value<'_, C> {
    fn cmp(&self, other: &Self) -> Ordering {
        C::compare(self.0, other.0)
    }
}
