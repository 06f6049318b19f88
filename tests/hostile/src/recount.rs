//! An operator with state, and another one with a state of its name that does not fit.

use sluicebox_sdk::prelude::*;

use crate::{Mode, Row};

/// Numbers the rows of each id, but misbehaves at one of them.
#[operator(process)]
pub struct Recount {
    pub mode: Mode,
    /// The row's id; if not set, every row.
    pub at: Option<String>,
    /// How many bytes, lines or turns, for the modes that have some.
    #[parameter(default = 1_000_000)]
    pub amount: usize,
}

/// The rows of an id so far.
#[derive(Record, Clone, Debug, Default, PartialEq)]
pub struct Count {
    pub rows: i64,
}

#[derive(Record)]
pub struct Id<'a> {
    pub id: &'a str,
}

/// A row with its number among those of its id, from 1 on.
#[derive(Record, Debug, PartialEq)]
pub struct Numbered {
    pub id: String,
    pub n: i64,
    pub number: i64,
}

impl Process for Recount {
    type Input<'a> = Row<'a>;
    type Key<'a> = Id<'a>;
    type State = Count;
    type Output<'a> = Numbered;

    fn row<'a>(
        &self,
        count: &mut Option<Count>,
        row: Row<'a>,
        context: &mut Context<'a, Self>,
    ) -> Result<(), Reject> {
        let count = count.get_or_insert_default();
        count.rows += 1;
        if self.at.as_ref().is_none_or(|at| at == row.id) {
            self.mode.trigger(row.id, self.amount)?;
        }
        context.emit(Numbered {
            id: row.id.to_owned(),
            n: row.n,
            number: count.rows,
        });
        Ok(())
    }
}

/// Numbers rows as [`Recount`] does, but counts in text, which its state does not become.
#[operator(process)]
pub struct RecountInText {}

/// The rows of an id so far, each as a letter.
#[derive(Record, Clone, Debug, Default, PartialEq)]
pub struct Tally {
    pub rows: String,
}

impl Process for RecountInText {
    type Input<'a> = Row<'a>;
    type Key<'a> = Id<'a>;
    type State = Tally;
    type Output<'a> = Numbered;

    fn row<'a>(
        &self,
        tally: &mut Option<Tally>,
        row: Row<'a>,
        context: &mut Context<'a, Self>,
    ) -> Result<(), Reject> {
        let tally = tally.get_or_insert_default();
        tally.rows.push('i');
        context.emit(Numbered {
            id: row.id.to_owned(),
            n: row.n,
            number: tally.rows.len() as i64,
        });
        Ok(())
    }
}
