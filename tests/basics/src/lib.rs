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

#[derive(Record)]
struct Line<'a> {
    line: &'a str,
}

#[derive(Record)]
struct Event<'a> {
    key: &'a str,
    n: i64,
    letter: &'a str,
    ts: Timestamp,
}

/// The event in a line of JSON that has no nested values.
#[operator]
fn parse(line: Line<'_>) -> Result<Event<'_>, Reject> {
    let (Some(key), Some(n), Some(letter), Some(ts)) = (
        value(line.line, "key"),
        number(line.line, "n"),
        value(line.line, "letter"),
        number(line.line, "ts"),
    ) else {
        reject!("it is not an event");
    };
    let ts = Timestamp(ts);
    Ok(Event { key, n, letter, ts })
}

/// An event a second, from a line of JSON on, as many as it says.
#[operator]
fn repeat(line: Line<'_>) -> Vec<Event<'_>> {
    let (Some(n), Some(ts)) = (number(line.line, "n"), number(line.line, "ts")) else {
        return Vec::new();
    };
    let key = value(line.line, "key").unwrap_or_default();
    let event = |n| Event {
        key,
        n,
        letter: "",
        ts: Timestamp(ts + n * 1000),
    };
    (0..n).map(event).collect()
}

fn number(line: &str, name: &str) -> Option<i64> {
    value(line, name)?.parse().ok()
}

fn value<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = line.split_once(&format!("\"{name}\":"))?;
    let (value, _) = rest.split_once([',', '}'])?;
    Some(value.trim().trim_matches('"'))
}

export!(Count, Stats, Spell, user_of, even, parse, repeat);
