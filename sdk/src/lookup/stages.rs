//! The stages of a look-up. The join with the table is the host's:
//!
//! ```text
//!            rows ┌──────────────────┐
//! main ─▶ wanted ─┤            ┌──▶ combined ─▶
//!            keys └─▶ the join ┘ found
//! table ───────────▶
//! ```

use super::Lookup;
use super::identity::identity;
use super::rows::{Answered, Asked, Part, Parts, Pending};
use crate::bindings::sluicebox::plugin::description::Kind;
use crate::instance::Shape;
use crate::operator::{ListedOperator, Operator};
use crate::ports::port;
use crate::ports::two::{OneOf, Two};
use crate::process::stages::{stage, stages};
use crate::process::{Context, Process, Timer};
use crate::record::{And, Named, schema_of};
use crate::{Reject, Timestamp};

/// The operators that a look-up is described as: itself, and its stages.
#[doc(hidden)]
pub const fn listed<P: Lookup + Operator<Parameters = P>>() -> [ListedOperator; 3] {
    [
        ListedOperator::of::<P>(),
        stage::<P, Wanted<P>>("wanted"),
        stage::<P, Combined<P>>("combined"),
    ]
}

#[doc(hidden)]
pub fn shape<P: Lookup>() -> Shape {
    Shape {
        kind: Kind::Lookup,
        inputs: vec![port::<P::Row>("main"), port::<P::Found>("table")],
        outputs: vec![port::<P::Output>("main")],
        key: schema_of::<P::Key>(),
        state: Vec::new(),
        retracts: false,
    }
}

stages! {
    /// Puts out the keys that a row wants. Which rows are late is decided here, where they
    /// come in one by one: of the keys of a row, all are found or none.
    Wanted;
    /// By row: gathers what was found for its keys.
    Combined;
}

impl<P: Lookup> Process for Wanted<P> {
    type Input<'a> = P::Row;
    type Key<'a> = ();
    type State = ();
    type Output<'a> = Asked<P>;

    fn row<'a>(
        &self,
        _state: &mut Option<()>,
        row: P::Row,
        context: &mut Context<'a, Self>,
    ) -> Result<(), Reject> {
        let keys = self.0.wanted(&row)?;
        let [lookup_high, lookup_low] = identity(&row, context.time());
        let parts = Parts {
            lookup_high,
            lookup_low,
            lookup_parts: keys.len() as u32,
        };
        context.emit(Two::first(And(parts, Named::new(row))));
        for (lookup_part, key) in (0..).zip(keys) {
            let part = Part {
                lookup_high,
                lookup_low,
                lookup_part,
            };
            context.emit(Two::second(And(part, key)));
        }
        Ok(())
    }
}

/// Fires when answers can come no more.
const OVER: &str = "over";

impl<P: Lookup> Process for Combined<P> {
    type Input<'a> = Answered<P>;
    type Key<'a> = ();
    type State = Pending<P>;
    type Output<'a> = P::Output;

    fn row<'a>(
        &self,
        state: &mut Option<Pending<P>>,
        row: Answered<P>,
        context: &mut Context<'a, Self>,
    ) -> Result<(), Reject> {
        let mut pending = state.take().unwrap_or_default();
        let And(rows, And(row_of, answers)) = &mut pending;
        match row.0 {
            OneOf::First(And(parts, row)) => {
                rows.rows += 1;
                rows.parts = parts.lookup_parts;
                row_of.value = Some(row.value);
            }
            OneOf::Second(And(part, found)) => {
                rows.answered.push(part.lookup_part);
                answers.value.push(found.value);
            }
        }
        if let Some((row, found)) = complete::<P>(&mut pending) {
            for output in self.0.found(row, found)? {
                context.emit(output);
            }
        }
        let And(rows, _) = &pending;
        if rows.rows == 0 && rows.answered.is_empty() {
            context.cancel(OVER);
        } else {
            context.set(OVER, Timestamp(context.time().0.saturating_add(1)));
            *state = Some(pending);
        }
        Ok(())
    }

    /// What is left is of rows that have failed here.
    fn timer<'a>(
        &self,
        state: &mut Option<Pending<P>>,
        _timer: Timer<'_>,
        _context: &mut Context<'a, Self>,
    ) -> Result<(), Reject> {
        *state = None;
        Ok(())
    }
}

/// A row with what was found for its keys.
type Complete<P> = (<P as Lookup>::Row, Vec<Option<<P as Lookup>::Found>>);

/// A row with all of its answers, which are taken out of what is pending.
fn complete<P: Lookup>(pending: &mut Pending<P>) -> Option<Complete<P>> {
    let And(rows, And(Named { value: row, .. }, Named { value: answers, .. })) = pending;
    let parts = rows.parts as usize;
    if rows.rows == 0 || rows.answered.len() < parts {
        return None;
    }
    let mut first = vec![None; parts];
    for (at, &part) in rows.answered.iter().enumerate() {
        let place = first.get_mut(part as usize)?;
        place.get_or_insert(at);
    }
    let taken: Vec<usize> = first.into_iter().collect::<Option<_>>()?;
    let found = taken.iter().map(|&at| answers[at].take()).collect();
    let mut is_left = vec![true; answers.len()];
    taken.iter().for_each(|&at| is_left[at] = false);
    retain(&mut rows.answered, &is_left);
    retain(answers, &is_left);
    rows.rows -= 1;
    let row = match rows.rows {
        0 => row.take(),
        _ => row.clone(),
    };
    row.map(|row| (row, found))
}

fn retain<T>(values: &mut Vec<T>, is_left: &[bool]) {
    let mut is_left = is_left.iter();
    values.retain(|_| is_left.next().copied().unwrap_or_default());
}
