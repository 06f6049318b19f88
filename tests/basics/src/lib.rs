//! Small operators for tests of the host.

use sluicebox_sdk::prelude::*;

#[derive(Record)]
struct Nothing {}

#[derive(Record, Clone, Default)]
struct Counter {
    count: i64,
}

/// The number of rows.
#[operator]
struct Count {}

impl Aggregate for Count {
    type Input<'a> = Nothing;
    type State = Counter;
    type Output<'a> = Counter;

    fn accumulate(&self, state: &mut Counter, _row: Nothing) -> Result<(), Reject> {
        state.count += 1;
        Ok(())
    }

    fn merge(&self, state: &mut Counter, later: Counter) {
        state.count += later.count;
    }

    fn finish(&self, state: &Counter, _window: Window) -> Counter {
        state.clone()
    }
}

#[derive(Record)]
struct Value {
    n: i64,
}

#[derive(Record, Clone, Default)]
struct Measures {
    count: i64,
    sum: i64,
    min: Option<i64>,
    max: Option<i64>,
}

/// Count, sum, least and greatest of `n`. Takes no negative numbers.
#[operator]
struct Stats {}

impl Aggregate for Stats {
    type Input<'a> = Value;
    type State = Measures;
    type Output<'a> = Measures;

    fn accumulate(&self, state: &mut Measures, row: Value) -> Result<(), Reject> {
        if row.n < 0 {
            reject!("n is {}, below 0", row.n);
        }
        let one = Measures {
            count: 1,
            sum: row.n,
            min: Some(row.n),
            max: Some(row.n),
        };
        self.merge(state, one);
        Ok(())
    }

    fn merge(&self, state: &mut Measures, later: Measures) {
        state.count += later.count;
        state.sum += later.sum;
        state.min = state.min.into_iter().chain(later.min).min();
        state.max = state.max.into_iter().chain(later.max).max();
    }

    fn finish(&self, state: &Measures, _window: Window) -> Measures {
        state.clone()
    }
}

#[derive(Record)]
struct Letter<'a> {
    letter: &'a str,
}

#[derive(Record, Clone, Default)]
struct Word {
    word: String,
}

/// The letters in the order of their rows.
#[operator]
struct Spell {}

impl Aggregate for Spell {
    type Input<'a> = Letter<'a>;
    type State = Word;
    type Output<'a> = Word;

    fn accumulate(&self, state: &mut Word, row: Letter<'_>) -> Result<(), Reject> {
        state.word.push_str(row.letter);
        Ok(())
    }

    fn merge(&self, state: &mut Word, later: Word) {
        state.word.push_str(&later.word);
    }

    fn finish(&self, state: &Word, _window: Window) -> Word {
        state.clone()
    }
}

#[derive(Record)]
struct Impulse {
    counter: i64,
}

#[derive(Record)]
struct Impulsive {
    user_id: i64,
    n: i64,
}

/// The user of an impulse: every tenth impulse is user 0's, each other one has
/// its own user.
#[operator]
fn user_of(impulse: Impulse) -> Impulsive {
    let n = impulse.counter;
    Impulsive {
        user_id: if n % 10 == 0 { 0 } else { n },
        n,
    }
}

/// Keeps even numbers.
#[operator]
fn even(row: Value) -> bool {
    row.n % 2 == 0
}

export!(Count, Stats, Spell, user_of, even);
