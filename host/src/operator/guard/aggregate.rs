use std::collections::HashMap;
use std::ops::Range;

use arrow_array::{Array, ArrayRef};
use arrow_select::interleave::interleave;

use super::{AggregateGuard, Guard, Parts, Pieces, Subject, halves, slice, taken_back};
use crate::batch::{Batch, bytes, gather};
use crate::blame::Fault;
use crate::json::render_columns;
use crate::logic::{
    Accumulated, Aggregate, Columns, Failure, FailureKind, Grouped, Instance, Rows, States,
};
use crate::operator::{Counts, OperatorError, Outbox};
use crate::plan::OperatorPlan;
use crate::state::table::Outgrown;
use crate::stop::Stop;

/// The outcome of folding rows into states.
#[derive(Debug)]
pub struct Folded {
    /// One row for each of `groups`.
    pub states: Vec<ArrayRef>,
    /// The groups that have another state than before, ascending. Absent if all have.
    pub groups: Option<Vec<u32>>,
    /// Rows that were rejected or failed on, ascending. They changed no state.
    pub lost: Vec<u32>,
    /// What was found out about states as they are now.
    pub outgrown: Vec<(u32, Outgrown)>,
}

/// What is known of the states of groups that have outgrown the plugin's memory.
pub type OutgrownGroups = HashMap<u32, Outgrown>;

impl AggregateGuard {
    pub fn new(node: &str, plan: &OperatorPlan, stop: &Stop) -> Result<Self, OperatorError> {
        Guard::open(node, plan, Instance::aggregate, stop)
    }

    /// Folds rows, at least one, into states. `groups` has one entry a row.
    pub fn accumulate(
        &mut self,
        batch: &Batch,
        input: &[ArrayRef],
        groups: &[u32],
        states: States<'_>,
        outgrown: OutgrownGroups,
        out: &mut Outbox,
    ) -> Result<Folded, OperatorError> {
        let fold = |logic: &mut dyn Aggregate, rows: Grouped<'_>, states: States<'_>, _: &[u32]| {
            logic.accumulate(rows, states).map(|done| (done, None))
        };
        let put = |_: &Self, _, _, _: &mut Outbox| Ok(());
        self.fold(batch, input, groups, states, outgrown, out, fold, put)
    }

    /// Like `accumulate`, of at least two rows in one call, or nothing if the call fails, is
    /// too large or rejects a row. `on_error` is not applied, since the rows come again in
    /// parts.
    pub fn accumulate_whole(
        &mut self,
        batch: &Batch,
        input: &[ArrayRef],
        groups: &[u32],
        states: States<'_>,
        counts: &mut Counts,
    ) -> Result<Option<Folded>, OperatorError> {
        if Parts::of(input, batch.rows()).0.len() > 1 {
            return Ok(None);
        }
        let taken_back = taken_back(batch, &(0..batch.rows()));
        let rows = grouped(input, groups, &taken_back);
        let done = self.call(false, counts, |logic| logic.accumulate(rows, states))?;
        let done = done.ok().filter(|done| done.rejects.is_empty());
        Ok(done.map(|done| Folded {
            states: done.states,
            groups: None,
            lost: Vec::new(),
            outgrown: Vec::new(),
        }))
    }

    /// Like `accumulate`, with the result after each row; parents are rows. `keys` is what
    /// the plugin reads of the key of each group. `put` gets the results, in pieces if they
    /// are large.
    #[expect(clippy::too_many_arguments, reason = "a call has as many parts")]
    pub fn accumulate_each<E: From<OperatorError>>(
        &mut self,
        batch: &Batch,
        input: &[ArrayRef],
        groups: &[u32],
        states: States<'_>,
        outgrown: OutgrownGroups,
        keys: &[ArrayRef],
        out: &mut Outbox,
        mut put: impl FnMut(Rows, &mut Outbox) -> Result<(), E>,
    ) -> Result<Folded, E> {
        let fold =
            |logic: &mut dyn Aggregate, rows: Grouped<'_>, states: States<'_>, of: &[u32]| {
                let columns = gather(keys, of);
                let keys = Columns {
                    rows: of.len(),
                    columns: &columns,
                };
                logic
                    .accumulate_each(rows, states, keys)
                    .map(|(done, rows)| (done, Some(rows)))
            };
        let mut pieces = Pieces::default();
        let add = |guard: &Self, first: usize, rows: Rows, out: &mut Outbox| match pieces
            .add(first, rows)
        {
            Some(piece) => put(guard.join_rows(piece)?, out),
            None => Ok(()),
        };
        let folded = self.fold(batch, input, groups, states, outgrown, out, fold, add)?;
        if let Some(piece) = pieces.rest() {
            put(self.join_rows(piece)?, out)?;
        }
        Ok(folded)
    }

    /// Merges the states of each group into one. A group whose merge fails keeps its
    /// first state, and each of the others counts as a failed row, since it may be that of
    /// many; `subject` renders a group (its key and window as JSON) for the dead letters.
    pub fn merge(
        &mut self,
        states: Columns<'_>,
        groups: &[u32],
        subject: &dyn Fn(u32) -> String,
        out: &mut Outbox,
    ) -> Result<Vec<ArrayRef>, OperatorError> {
        let group_count = groups.last().map_or(0, |last| *last as usize + 1);
        let schema = self.factory.info().state.clone();
        let mut parts = Vec::new();
        let mut rest = Parts::whole(group_count);
        let rows_of = |part: &Range<usize>| {
            groups.partition_point(|&group| (group as usize) < part.start)
                ..groups.partition_point(|&group| (group as usize) < part.end)
        };
        let merge = |logic: &mut (dyn Aggregate + 'static), part: &Range<usize>| {
            let rows = rows_of(part);
            let first = part.start as u32;
            let groups: Vec<u32> = groups[rows.clone()].iter().map(|g| g - first).collect();
            let columns = slice(states.columns, &rows);
            let states = Columns {
                rows: rows.len(),
                columns: &columns,
            };
            logic.merge(states, &groups)
        };
        while let Some((part, called)) = self.next_part(&mut rest, &mut out.counts, merge)? {
            match called {
                Ok(merged) => parts.push(merged),
                Err(failure) => {
                    let place = subject(part.start as u32);
                    let Range { start, end } = rows_of(&part);
                    for lost in (start + 1).min(end - 1)..end {
                        let state = render_columns(&schema, states.columns, lost);
                        let subject = Subject::State(place.clone(), Some(state));
                        self.handle_failure(&subject, &failure, out)?;
                    }
                    parts.push(slice(states.columns, &(start..start + part.len())));
                }
            }
        }
        self.join_columns(parts)
    }

    /// The results of states, which `put` gets, in pieces if they are large; a state whose
    /// `finish` fails has none. `keys` is what the plugin reads of the key of each.
    /// `subject` renders a state's key and window as JSON for the dead letter.
    #[expect(clippy::too_many_arguments, reason = "a call has as many parts")]
    pub fn finish<E: From<OperatorError>>(
        &mut self,
        states: Columns<'_>,
        keys: &[ArrayRef],
        starts: &[i64],
        ends: &[i64],
        subject: &dyn Fn(u32) -> String,
        out: &mut Outbox,
        mut put: impl FnMut(Rows, &mut Outbox) -> Result<(), E>,
    ) -> Result<(), E> {
        let schema = self.factory.info().state.clone();
        let mut pieces = Pieces::default();
        let mut rest = Parts::whole(states.rows);
        let finish = |logic: &mut (dyn Aggregate + 'static), part: &Range<usize>| {
            let (columns, keys) = (slice(states.columns, part), slice(keys, part));
            let states = Columns {
                rows: part.len(),
                columns: &columns,
            };
            let keys = Columns {
                rows: part.len(),
                columns: &keys,
            };
            logic.finish(states, keys, &starts[part.clone()], &ends[part.clone()])
        };
        while let Some((part, called)) = self.next_part(&mut rest, &mut out.counts, finish)? {
            match called {
                Ok(rows) => {
                    if let Some(piece) = pieces.add(part.start, rows) {
                        put(self.join_rows(piece)?, out)?;
                    }
                }
                Err(failure) => {
                    let state = render_columns(&schema, states.columns, part.start);
                    let subject = Subject::State(subject(part.start as u32), Some(state));
                    self.handle_failure(&subject, &failure, out)?;
                }
            }
        }
        match pieces.rest() {
            Some(piece) => put(self.join_rows(piece)?, out),
            None => Ok(()),
        }
    }

    /// Folds the parts of a batch in order, each into the states after the previous
    /// one. A call gets the states of its own rows only, and is told which groups these are.
    /// `put` gets the results of a call, if it has some, and where its rows begin.
    ///
    /// A row whose group's state has outgrown the plugin's memory is in a call of its own, and
    /// in none if a row of its size has already failed with that state: else each call would
    /// fail, be repeated in halves down to that row, and take memory in vain.
    #[expect(clippy::too_many_arguments, reason = "a call has as many parts")]
    fn fold<E: From<OperatorError>>(
        &mut self,
        batch: &Batch,
        input: &[ArrayRef],
        groups: &[u32],
        states: States<'_>,
        mut outgrown: OutgrownGroups,
        out: &mut Outbox,
        accumulate: impl Fn(
            &mut dyn Aggregate,
            Grouped<'_>,
            States<'_>,
            &[u32],
        ) -> Result<(Accumulated, Option<Rows>), Failure>,
        mut put: impl FnMut(&Self, usize, Rows, &mut Outbox) -> Result<(), E>,
    ) -> Result<Folded, E> {
        let mut lost = Vec::new();
        let mut rest = Parts::of(input, batch.rows());
        // Most batches are one call.
        if let [_] = rest.0.as_slice()
            && batch.rows() > 1
            && outgrown.is_empty()
        {
            let taken_back = taken_back(batch, &(0..batch.rows()));
            let rows = grouped(input, groups, &taken_back);
            let all: Vec<u32> = (0..states.groups as u32).collect();
            match self.call(false, &mut out.counts, |logic| {
                accumulate(logic, rows, states, &all)
            })? {
                Ok((done, rows)) => {
                    self.handle_rejects(batch, 0, &done.rejects, out)?;
                    let folded = Folded {
                        states: done.states,
                        groups: None,
                        lost: done.rejects.iter().map(|reject| reject.row).collect(),
                        outgrown: Vec::new(),
                    };
                    if let Some(rows) = rows {
                        put(self, 0, rows, out)?;
                    }
                    return Ok(folded);
                }
                Err(_) => rest.0 = halves(&(0..batch.rows())).into(),
            }
        }
        let mut newest = NewestStates::new(states);
        loop {
            rest.set_apart(|row| outgrown.contains_key(&groups[row]));
            let next = rest.0.last().filter(|part| part.len() == 1).cloned();
            if let Some(part) = next
                && let Some(known) = outgrown.get(&groups[part.start])
                && let Some(failure) = known.refusal(0, bytes(input, &part))
            {
                rest.0.pop();
                let row = part.start as u32;
                self.handle_failure(&Subject::Row(batch, row), failure, out)?;
                lost.push(row);
                continue;
            }
            let part = self.next_part(&mut rest, &mut out.counts, |logic, part| {
                let columns = slice(input, part);
                let of_part = newest.of(&groups[part.clone()])?;
                let taken_back = taken_back(batch, part);
                let rows = grouped(&columns, &of_part.of_row, &taken_back);
                let members = of_part.members.as_slice();
                let (done, rows) = accumulate(logic, rows, of_part.states(), members)?;
                Ok((done, rows, of_part.members))
            })?;
            match part {
                None => break,
                Some((part, Ok((done, rows, members)))) => {
                    self.handle_rejects(batch, part.start, &done.rejects, out)?;
                    lost.extend(done.rejects.iter().map(|r| r.row + part.start as u32));
                    if let Some(rows) = rows {
                        put(self, part.start, rows, out)?;
                    }
                    newest.put(&members, done.states);
                    if let Some(changed) = outgrown.get_mut(&groups[part.start]) {
                        changed.0 = None;
                    }
                }
                Some((part, Err(mut failure))) => {
                    let row = part.start as u32;
                    let group = groups[part.start];
                    let sizes = [0, bytes(input, &part)];
                    let state_bytes = newest.bytes(group);
                    if let Some(found) = self.outgrown(&mut failure, sizes, state_bytes) {
                        outgrown.insert(group, found);
                    }
                    self.handle_failure(&Subject::Row(batch, row), &failure, out)?;
                    lost.push(row);
                }
            }
        }
        let (groups, states) = newest
            .changed()
            .map_err(|error| self.fatal(error.message, Fault::FATAL_ROW))?;
        let folded = Folded {
            states,
            groups: Some(groups),
            lost,
            outgrown: outgrown.into_iter().collect(),
        };
        Ok(folded)
    }
}

/// Rows for one call, with the group of each, and those that take others back.
fn grouped<'a>(columns: &'a [ArrayRef], groups: &'a [u32], taken_back: &'a [u32]) -> Grouped<'a> {
    Grouped {
        input: Columns {
            rows: groups.len(),
            columns,
        },
        groups,
        taken_back,
    }
}

/// The states of a batch's groups, as the calls so far have left them.
struct NewestStates {
    /// The states that the batch found, and those that each call has returned.
    returned: Vec<Vec<ArrayRef>>,
    /// Where the newest state of each group is: an index in `returned`, and a row.
    /// Absent for a new group without one.
    places: Vec<Option<(usize, usize)>>,
}

/// What a call gets of the states.
struct PartStates {
    /// The groups of its rows: those with a state first.
    members: Vec<u32>,
    /// The place among the members of each row's group.
    of_row: Vec<u32>,
    existing: Vec<ArrayRef>,
    existing_rows: usize,
}

impl PartStates {
    fn states(&self) -> States<'_> {
        States {
            existing: Columns {
                rows: self.existing_rows,
                columns: &self.existing,
            },
            groups: self.members.len(),
        }
    }
}

impl NewestStates {
    fn new(states: States<'_>) -> Self {
        let mut places = vec![None; states.groups];
        for (row, place) in places.iter_mut().enumerate().take(states.existing.rows) {
            *place = Some((0, row));
        }
        NewestStates {
            returned: vec![states.existing.columns.to_vec()],
            places,
        }
    }

    /// The states of the groups of some rows.
    fn of(&self, groups: &[u32]) -> Result<PartStates, Failure> {
        let mut members = groups.to_vec();
        members.sort_unstable();
        members.dedup();
        members.sort_by_key(|&group| self.places[group as usize].is_none());
        let mut number = vec![0; self.places.len()];
        for (index, &group) in members.iter().enumerate() {
            number[group as usize] = index as u32;
        }
        let places = members
            .iter()
            .map_while(|&group| self.places[group as usize]);
        let places: Vec<(usize, usize)> = places.collect();
        Ok(PartStates {
            of_row: groups.iter().map(|&group| number[group as usize]).collect(),
            existing: self.gather(&places)?,
            existing_rows: places.len(),
            members,
        })
    }

    fn put(&mut self, members: &[u32], states: Vec<ArrayRef>) {
        for (row, &group) in members.iter().enumerate() {
            self.places[group as usize] = Some((self.returned.len(), row));
        }
        self.returned.push(states);
    }

    /// Bytes of the state of a group; none if it has no state yet.
    fn bytes(&self, group: u32) -> usize {
        let place = self.places[group as usize];
        place.map_or(0, |(of, row)| bytes(&self.returned[of], &(row..row + 1)))
    }

    /// The groups whose states were returned, and these.
    fn changed(self) -> Result<(Vec<u32>, Vec<ArrayRef>), Failure> {
        let places = (0..).zip(&self.places);
        let places = places.filter_map(|(group, place)| Some((group, (*place)?)));
        let (groups, places): (Vec<u32>, Vec<(usize, usize)>) =
            places.filter(|(_, (of, _))| *of > 0).unzip();
        let states = self.gather(&places)?;
        Ok((groups, states))
    }

    fn gather(&self, places: &[(usize, usize)]) -> Result<Vec<ArrayRef>, Failure> {
        if places.is_empty() {
            return Ok(slice(&self.returned[0], &(0..0)));
        }
        let of = places[0].0;
        let columns = &self.returned[of];
        // All that one call has returned.
        let rows = columns.first().map_or(places.len(), |column| column.len());
        let is_whole = places.len() == rows
            && places
                .iter()
                .enumerate()
                .all(|(row, place)| *place == (of, row));
        if is_whole {
            return Ok(columns.clone());
        }
        // Of many calls, few have returned these.
        let mut used: Vec<usize> = places.iter().map(|(of, _)| *of).collect();
        used.sort_unstable();
        used.dedup();
        let places = places
            .iter()
            .map(|(of, row)| (used.partition_point(|it| it < of), *row));
        let places: Vec<(usize, usize)> = places.collect();
        (0..columns.len())
            .map(|column| {
                let returned = used.iter().map(|&of| self.returned[of][column].as_ref());
                let returned: Vec<&dyn Array> = returned.collect();
                interleave(&returned, &places).map_err(|error| {
                    Failure::new(
                        FailureKind::Memory,
                        format!("its states are too large for one call: {error}"),
                    )
                })
            })
            .collect()
    }
}
