//! Operators that fail in every way that a plugin can fail, at rows that their
//! parameters name, to test how the host reacts.

/// Counts in a state.
mod recount;
/// Uses of the outside world.
mod world;

use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};

use sluicebox_sdk::prelude::*;

use recount::{Recount, RecountInText};
use world::reach;

#[derive(Record)]
pub struct Row<'a> {
    pub id: &'a str,
    pub n: i64,
}

/// A row that owns its values, so that it can be of any size.
#[derive(Record, Clone, Debug, PartialEq)]
pub struct Owned {
    pub id: String,
    pub n: i64,
}

/// How an operator fails.
#[derive(Symbol, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Nothing,
    /// Rejects the row, as well-behaved plugins do.
    Reject,
    /// Panics with a message.
    Panic,
    /// Traps without a message.
    Trap,
    /// Loops for ever.
    Loop,
    /// Allocates more and more memory.
    Allocate,
    /// Answers with too much.
    Output,
    /// Recurses until the stack overflows.
    Recurse,
    /// Prints to stdout, without failing.
    Stdout,
    /// Prints to stderr, without failing.
    Stderr,
    /// Writes to the host's log, without failing.
    Log,
    /// Traps when its instance has met fifty rows, whichever they are.
    Tire,
    /// Takes long, without failing.
    Slow,
}

#[derive(Parameters)]
pub struct Misbehaviour {
    pub mode: Mode,
    /// The row's id; if not set, every row.
    pub at: Option<String>,
    /// How many bytes, lines or turns, for the modes that have some.
    #[parameter(default = 1_000_000)]
    pub amount: usize,
}

/// Passes every row on.
#[operator]
pub fn pass(row: Row<'_>) -> Row<'_> {
    row
}

/// Passes rows on, but misbehaves at one of them.
#[operator]
pub fn misbehave(row: Row<'_>, misbehaviour: &Misbehaviour) -> Result<Owned, Reject> {
    let Misbehaviour { mode, at, amount } = misbehaviour;
    let mut id = row.id.to_owned();
    if at.as_ref().is_none_or(|at| at == row.id) {
        match mode {
            Mode::Output => id = "x".repeat(*amount),
            mode => mode.trigger(row.id, *amount)?,
        }
    }
    Ok(Owned { id, n: row.n })
}

/// Keeps rows, but misbehaves at one of them.
#[operator]
pub fn misjudge(row: Row<'_>, misbehaviour: &Misbehaviour) -> Result<bool, Reject> {
    let Misbehaviour { mode, at, amount } = misbehaviour;
    if at.as_ref().is_none_or(|at| at == row.id) {
        mode.trigger(row.id, *amount)?;
    }
    Ok(true)
}

/// When an aggregate fails.
#[derive(Symbol, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Accumulate,
    Merge,
    Finish,
}

/// The rows that a group has seen.
#[derive(Record, Clone, Debug, Default, PartialEq)]
pub struct Seen {
    pub rows: i64,
    pub sum: i64,
    /// In the order of the rows.
    pub ids: Vec<String>,
    /// Whether the misbehaving row was among them.
    pub marked: bool,
}

/// Counts and sums, but misbehaves at one row, at once or in a later stage. A
/// rejected row has changed the state by then.
#[operator]
pub struct Miscount {
    pub mode: Mode,
    #[parameter(default = Stage::Accumulate)]
    pub stage: Stage,
    /// The row's id; if not set, every row.
    pub at: Option<String>,
    /// How many bytes, lines or turns, for the modes that have some.
    #[parameter(default = 1_000_000)]
    pub amount: usize,
}

impl Miscount {
    fn trigger(&self, stage: Stage) -> Result<(), Reject> {
        match stage == self.stage {
            true => self
                .mode
                .trigger(self.at.as_deref().unwrap_or(""), self.amount),
            false => Ok(()),
        }
    }
}

impl Aggregate for Miscount {
    type Input<'a> = Row<'a>;
    type State = Seen;
    type Output<'a> = Owned;

    fn accumulate(&self, seen: &mut Seen, row: Row<'_>) -> Result<(), Reject> {
        seen.rows += 1;
        seen.sum += row.n;
        seen.ids.push(row.id.to_owned());
        if self.at.as_ref().is_none_or(|at| at == row.id) {
            seen.marked = true;
            self.trigger(Stage::Accumulate)?;
        }
        Ok(())
    }

    fn merge(&self, seen: &mut Seen, later: Seen) {
        seen.rows += later.rows;
        seen.sum += later.sum;
        seen.ids.extend(later.ids);
        seen.marked |= later.marked;
        if seen.marked {
            self.trigger(Stage::Merge).unwrap_or_default();
        }
    }

    fn finish(&self, seen: &Seen, _window: Window) -> Owned {
        let mut id = seen.ids.join(" ");
        if seen.marked {
            match (self.mode, self.stage) {
                (Mode::Output, Stage::Finish) => id = "x".repeat(self.amount),
                _ => self.trigger(Stage::Finish).unwrap_or_default(),
            }
        }
        Owned { id, n: seen.sum }
    }
}

impl Mode {
    fn trigger(self, id: &str, amount: usize) -> Result<(), Reject> {
        match self {
            Mode::Nothing | Mode::Output => {}
            Mode::Reject => reject!("the row `{id}` is not wanted"),
            Mode::Panic => panic!("hostile: the row `{id}` is too much"),
            Mode::Trap => trap(),
            Mode::Loop => loop {
                black_box(count(usize::MAX));
            },
            Mode::Slow => {
                black_box(count(amount));
            }
            Mode::Allocate => {
                let mut held = Vec::new();
                loop {
                    held.push(black_box(vec![1_u8; 1 << 20]));
                }
            }
            Mode::Recurse => {
                black_box(recurse(&[0; 64]));
            }
            Mode::Stdout => (0..amount).for_each(|line| println!("hostile: stdout line {line}")),
            Mode::Stderr => (0..amount).for_each(|line| eprintln!("hostile: stderr line {line}")),
            Mode::Log => (0..amount).for_each(|line| log::warn!("hostile: log line {line}")),
            Mode::Tire => {
                static MET: AtomicUsize = AtomicUsize::new(0);
                if MET.fetch_add(1, Ordering::Relaxed) >= 50 {
                    trap();
                }
            }
        }
        Ok(())
    }
}

/// Counts one by one.
fn count(turns: usize) -> usize {
    (0..turns).fold(0, |count, _| black_box(count + 1))
}

fn trap() -> ! {
    #[cfg(target_family = "wasm")]
    core::arch::wasm32::unreachable();
    #[cfg(not(target_family = "wasm"))]
    std::process::abort();
}

#[expect(
    unconditional_recursion,
    reason = "it is what the stack's limit is for"
)]
fn recurse(frame: &[u64; 64]) -> u64 {
    let next = black_box(frame.map(|n| n.wrapping_mul(3) + 1));
    recurse(&next) + next[7]
}

export!(
    pass,
    misbehave,
    misjudge,
    Miscount,
    Recount,
    RecountInText,
    reach
);

#[cfg(test)]
mod tests {
    use super::*;

    fn at(mode: Mode, id: &str) -> Misbehaviour {
        Misbehaviour {
            mode,
            at: Some(id.to_owned()),
            amount: 5,
        }
    }

    #[test]
    fn misbehaves_at_its_row_only() {
        let row = |id| Row { id, n: 1 };
        let reject = at(Mode::Reject, "bad");
        assert!(misbehave(row("good"), &reject).is_ok());
        assert!(misbehave(row("bad"), &reject).is_err());
        assert!(misjudge(row("bad"), &reject).is_err());
        let output = misbehave(row("bad"), &at(Mode::Output, "bad"));
        assert_eq!(output.map(|row| row.id), Ok("xxxxx".to_owned()));
    }

    #[test]
    #[should_panic(expected = "the row `bad` is too much")]
    fn panics_with_the_row_in_its_message() {
        let _ = misbehave(Row { id: "bad", n: 1 }, &at(Mode::Panic, "bad"));
    }

    #[test]
    fn miscount_strikes_in_its_stage() {
        let miscount = |stage| Miscount {
            mode: Mode::Panic,
            stage,
            at: Some("bad".to_owned()),
            amount: 1,
        };
        let panics =
            |call: &dyn Fn()| std::panic::catch_unwind(std::panic::AssertUnwindSafe(call)).is_err();
        let accumulated = |aggregate: &Miscount| {
            let mut seen = Seen::default();
            aggregate
                .accumulate(&mut seen, Row { id: "bad", n: 2 })
                .unwrap();
            seen
        };
        assert!(panics(&|| drop(accumulated(&miscount(Stage::Accumulate)))));
        let merging = miscount(Stage::Merge);
        let seen = accumulated(&merging);
        assert!(panics(&|| merging.merge(&mut Seen::default(), seen.clone())));
        assert_eq!(merging.finish(&seen, Window::ALL).n, 2);
        assert!(panics(&|| {
            miscount(Stage::Finish).finish(&seen, Window::ALL);
        }));
    }
}
