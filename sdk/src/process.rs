//! Takes the rows and timers of keys one by one. The host sends the states and timers of
//! the keys along, and gets them back.

/// A key in a unit test.
pub mod one_key;
/// Processes that other operators are run as.
pub mod stages;
#[cfg(test)]
mod tests;
/// The timers of a key.
mod timers;

use crate::bindings::exports::sluicebox::plugin::process::{
    Guest, Keyed, Processed, RejectedTimer, Steps,
};
use crate::bindings::sluicebox::plugin::answers;
use crate::bindings::sluicebox::plugin::columns::Batch;
use crate::bindings::sluicebox::plugin::description::Kind;
use crate::instance::{Instance, Opened, ProcessInstance, Shape, not_of_kind};
use crate::ports::Ports;
use crate::record::{Record, Table, columns, read_all, read_table, schema_of};
use crate::{Parameters, Reject, Timestamp};
pub use timers::TIMERS_MAX;
use timers::{Due, Timers, Unpacked, packed};

/// Takes the rows of a key one by one, with a state and timers, and makes rows.
///
/// The type that implements it carries `#[operator(process)]`, and its fields are the
/// operator's [`Parameters`]. The operator is named after it, in snake case.
///
/// The host keeps state and timers by key; the value itself must keep nothing. A row that
/// is rejected, or on which the process panics, has changed nothing.
///
/// ```
/// use sluicebox_sdk::prelude::*;
///
/// #[derive(Record)]
/// struct Visit<'a> {
///     user: &'a str,
///     bought: bool,
/// }
///
/// #[derive(Record)]
/// struct User<'a> {
///     user: &'a str,
/// }
///
/// #[derive(Record, Clone, Default)]
/// struct Visits {
///     count: u32,
/// }
///
/// #[derive(Record, Debug, PartialEq)]
/// struct Abandoned {
///     user: String,
///     visits: u32,
/// }
///
/// /// Users who came, and did not buy anything for some time.
/// #[operator(process)]
/// struct AbandonedVisits {
///     #[parameter(default = 1_800_000)]
///     after_ms: i64,
/// }
///
/// impl Process for AbandonedVisits {
///     type Input<'a> = Visit<'a>;
///     type Key<'a> = User<'a>;
///     type State = Visits;
///     type Output<'a> = Abandoned;
///
///     fn row<'a>(
///         &self,
///         visits: &mut Option<Visits>,
///         visit: Visit<'a>,
///         context: &mut Context<'a, Self>,
///     ) -> Result<(), Reject> {
///         if visit.bought {
///             *visits = None;
///             context.cancel("abandoned");
///         } else {
///             visits.get_or_insert_default().count += 1;
///             let due = context.time().0 + self.after_ms;
///             context.set("abandoned", Timestamp(due));
///         }
///         Ok(())
///     }
///
///     fn timer<'a>(
///         &self,
///         visits: &mut Option<Visits>,
///         _timer: Timer<'_>,
///         context: &mut Context<'a, Self>,
///     ) -> Result<(), Reject> {
///         let user = context.key().user.to_owned();
///         if let Some(visits) = visits.take() {
///             context.emit(Abandoned { user, visits: visits.count });
///         }
///         Ok(())
///     }
/// }
///
/// export!(AbandonedVisits);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a process",
    label = "has `#[operator(process)]`, but no `impl Process`",
    note = "a struct with `#[operator(process)]` must implement `sluicebox_sdk::Process`"
)]
pub trait Process: Parameters {
    /// The rows that come in: a record, or an enum of several with
    /// [`#[derive(Ports)]`](macro@crate::Ports).
    type Input<'a>: Ports<'a>;
    /// What it reads of the key: a record with fields of the key, or `()`.
    type Key<'a>: Record<'a>;
    /// What is kept for a key; `()` for a process that only has timers. Where it has other
    /// fields than before, it is migrated as that of an aggregate is: see
    /// [`Aggregate::State`](crate::Aggregate::State).
    type State: for<'a> Record<'a> + Clone;
    /// The rows that it makes: a record, or an enum of several with
    /// [`#[derive(Ports)]`](macro@crate::Ports).
    type Output<'a>: Ports<'a>;

    /// Takes a row. `state` is `None` for a key without one; a process that sets it to
    /// `None` removes it.
    fn row<'a>(
        &self,
        state: &mut Option<Self::State>,
        row: Self::Input<'a>,
        context: &mut Context<'a, Self>,
    ) -> Result<(), Reject>;

    /// Takes a timer whose time has come. It is not set any more.
    ///
    /// When all inputs have ended, the watermark is `i64::MAX`, and each name of the key
    /// fires once: timers that are set then are gone. So a process that has one timer for
    /// the next of several things takes all that are left then.
    fn timer<'a>(
        &self,
        state: &mut Option<Self::State>,
        timer: Timer<'_>,
        context: &mut Context<'a, Self>,
    ) -> Result<(), Reject> {
        let _ = (state, timer, context);
        Ok(())
    }
}

/// A process that can also take rows back, so that it can read the changes of a table: the
/// results of another aggregate that are replaced or gone (`input = "totals.changes"`).
///
/// The struct carries `#[operator(process, retracts)]`.
///
/// ```
/// use sluicebox_sdk::prelude::*;
/// use sluicebox_sdk::OneKey;
///
/// # #[derive(Record)]
/// # struct Total { cents: i64 }
/// # #[derive(Record, Clone, Default)]
/// # struct Open { cents: i64 }
/// # #[derive(Record, Debug, PartialEq)]
/// # struct Alarm { cents: i64 }
/// /// Says when the totals of all orders of a user are too much together.
/// #[operator(process, retracts)]
/// struct TooMuch {
///     #[parameter(default = 100_000)]
///     cents_max: i64,
/// }
///
/// impl Process for TooMuch {
///     type Input<'a> = Total;
///     type Key<'a> = ();
///     type State = Open;
///     type Output<'a> = Alarm;
///
///     fn row<'a>(&self, open: &mut Option<Open>, total: Total, context: &mut Context<'a, Self>)
///         -> Result<(), Reject> {
///         let open = open.get_or_insert_default();
///         open.cents += total.cents;
///         if open.cents > self.cents_max {
///             context.emit(Alarm { cents: open.cents });
///         }
///         Ok(())
///     }
/// }
///
/// impl TakeBack for TooMuch {
///     fn take_back<'a>(&self, open: &mut Option<Open>, total: Total, _: &mut Context<'a, Self>)
///         -> Result<(), Reject> {
///         open.get_or_insert_default().cents -= total.cents;
///         Ok(())
///     }
/// }
///
/// export!(TooMuch);
///
/// let mut user = OneKey::new(TooMuch { cents_max: 100 }, ());
/// let at = Timestamp(0);
/// assert_eq!(user.row(at, Total { cents: 90 }), Ok(vec![]));
/// assert_eq!(user.take_back(at, Total { cents: 90 }), Ok(vec![]));
/// assert_eq!(user.row(at, Total { cents: 95 }), Ok(vec![]));
/// assert_eq!(user.row(at, Total { cents: 20 }), Ok(vec![Alarm { cents: 115 }]));
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot take rows back",
    label = "has `#[operator(process, retracts)]`, but no `impl TakeBack`",
    note = "without `retracts` it is a process of rows that stay"
)]
pub trait TakeBack: Process {
    /// Takes back one row, equal to one that came before. It may put out rows and set
    /// timers, as [`row`](Process::row) does; what was put out before stays.
    ///
    /// It has to reject the rows that `row` rejects, which have left the state as it was.
    fn take_back<'a>(
        &self,
        state: &mut Option<Self::State>,
        row: Self::Input<'a>,
        context: &mut Context<'a, Self>,
    ) -> Result<(), Reject>;
}

/// [`TakeBack::take_back`], if there is one.
pub(crate) type TakesBack<P> = for<'a> fn(
    &P,
    &mut Option<<P as Process>::State>,
    <P as Process>::Input<'a>,
    &mut Context<'a, P>,
) -> Result<(), Reject>;

fn never<P: Process>(
    _: &P,
    _: &mut Option<P::State>,
    _: P::Input<'_>,
    _: &mut Context<'_, P>,
) -> Result<(), Reject> {
    panic!("the host takes a row back from a process that cannot do that");
}

/// A timer whose time has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timer<'a> {
    /// The name that it was set by.
    pub name: &'a str,
    /// The time that it was set for.
    pub time: Timestamp,
    /// Whether it was set in processing time.
    pub in_processing_time: bool,
}

/// What a process knows besides the row, and what it can do: put out rows, set timers.
pub struct Context<'a, P: Process> {
    keys: Vec<P::Key<'a>>,
    timers: Vec<Timers>,
    /// The group whose turn it is.
    group: usize,
    time_ms: i64,
    watermark_ms: i64,
    now_ms: i64,
    outputs: Vec<P::Output<'a>>,
    /// Whether a timer was set beyond [`TIMERS_MAX`].
    has_too_many: bool,
}

impl<'a, P: Process> Context<'a, P> {
    /// The row's key.
    pub fn key(&self) -> &P::Key<'a> {
        &self.keys[self.group]
    }

    /// The event time of the row, or of the timer.
    pub fn time(&self) -> Timestamp {
        Timestamp(self.time_ms)
    }

    /// How far event time has come: rows before it are late.
    pub fn watermark(&self) -> Timestamp {
        Timestamp(self.watermark_ms)
    }

    /// Whether all inputs have ended: then timers fire for the last time.
    pub fn has_ended(&self) -> bool {
        self.watermark_ms == i64::MAX
    }

    /// The time of the host's clock. Results that depend on it differ from run to run.
    pub fn now(&self) -> Timestamp {
        Timestamp(self.now_ms)
    }

    /// Puts out a row, with the event time of the row or timer.
    pub fn emit(&mut self, row: P::Output<'a>) {
        self.outputs.push(row);
    }

    /// Sets the key's timer of this name, in place of an earlier one, to fire when the
    /// watermark reaches a time. It fires at once if that is so already.
    pub fn set(&mut self, name: &str, time: Timestamp) {
        self.has_too_many |= !self.timers[self.group].event.set(name, time.0);
    }

    /// [`Context::set`] for a time of the host's clock.
    pub fn set_in_processing_time(&mut self, name: &str, time: Timestamp) {
        self.has_too_many |= !self.timers[self.group].processing.set(name, time.0);
    }

    /// Cancels the key's timer of this name, if it is set.
    pub fn cancel(&mut self, name: &str) {
        self.timers[self.group].event.cancel(name);
    }

    /// Cancels the key's timer of this name in processing time, if it is set.
    pub fn cancel_in_processing_time(&mut self, name: &str) {
        self.timers[self.group].processing.cancel(name);
    }

    /// When the key's timer of this name fires, if it is set.
    pub fn timer(&self, name: &str) -> Option<Timestamp> {
        self.timers[self.group].event.time(name).map(Timestamp)
    }

    /// When the key's timer of this name in processing time fires, if it is set.
    pub fn timer_in_processing_time(&self, name: &str) -> Option<Timestamp> {
        self.timers[self.group].processing.time(name).map(Timestamp)
    }
}

#[doc(hidden)]
pub fn shape<P: Process>() -> Shape {
    Shape {
        kind: Kind::Process,
        inputs: P::Input::describe_ports(),
        outputs: P::Output::describe_ports(),
        key: schema_of::<P::Key<'_>>(),
        state: schema_of::<P::State>(),
        retracts: false,
    }
}

#[doc(hidden)]
pub fn shape_retracting<P: TakeBack>() -> Shape {
    Shape {
        retracts: true,
        ..shape::<P>()
    }
}

#[doc(hidden)]
pub fn open<P: Process + 'static>(process: P) -> Instance {
    Instance::Process(Box::new(KeyedProcess {
        process,
        take_back: never::<P>,
    }))
}

#[doc(hidden)]
pub fn open_retracting<P: TakeBack + 'static>(process: P) -> Instance {
    Instance::Process(Box::new(KeyedProcess {
        process,
        take_back: P::take_back,
    }))
}

struct KeyedProcess<P: Process> {
    process: P,
    take_back: TakesBack<P>,
}

impl<P: Process> ProcessInstance for KeyedProcess<P> {
    fn process(&self, inputs: &[Batch], steps: &Steps, keyed: &Keyed) -> Processed {
        process(&self.process, self.take_back, inputs, steps, keyed)
    }
}

impl Guest for Opened {
    fn process(inputs: Vec<Batch>, steps: Steps, keyed: Keyed) -> Processed {
        Opened::with(|instance| match instance {
            Instance::Process(process) => process.process(&inputs, &steps, &keyed),
            _ => not_of_kind("process"),
        })
    }
}

fn process<P: Process>(
    process: &P,
    take_back: TakesBack<P>,
    inputs: &[Batch],
    steps: &Steps,
    keyed: &Keyed,
) -> Processed {
    let count = steps.inputs.len();
    let lengths = [
        steps.groups.len(),
        steps.times.len(),
        steps.watermarks.len(),
    ];
    assert!(
        lengths == [count; 3],
        "the host sent steps of different lengths"
    );
    let tables: Vec<Table<'_>> = inputs.iter().map(Table::new).collect();
    let keys = Table::new(&keyed.keys);
    let call = Call {
        process,
        take_back,
        tables: &tables,
        keys: &keys,
        steps,
        keyed,
    };
    // Most calls have no rejects, and need no copies of states.
    let processed = Run::new(&call, false).all();
    let processed = processed.or_else(|| Run::new(&call, true).all());
    processed.expect("a careful run goes on after a reject")
}

/// What the host has sent.
struct Call<'a, P: Process> {
    process: &'a P,
    take_back: TakesBack<P>,
    tables: &'a [Table<'a>],
    keys: &'a Table<'a>,
    steps: &'a Steps,
    keyed: &'a Keyed,
}

/// Which timers a step fires.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fires {
    /// All that are due.
    Due,
    /// The first that is due.
    First,
    Nothing,
}

/// Takes the steps of a call.
struct Run<'c, 'a, P: Process> {
    call: &'c Call<'a, P>,
    /// Whether states and timers are copied, so that what is rejected changes nothing.
    is_careful: bool,
    states: Vec<Option<P::State>>,
    context: Context<'a, P>,
    writers: <P::Output<'a> as Ports<'a>>::Writers,
    rejects: Vec<answers::Reject>,
    rejected_timers: Vec<RejectedTimer>,
}

impl<'c, 'a, P: Process> Run<'c, 'a, P> {
    fn new(call: &'c Call<'a, P>, is_careful: bool) -> Self {
        let groups = call.keyed.groups as usize;
        let keys = read_table::<P::Key<'a>>(call.keys);
        let states = read_all::<P::State>(&call.keyed.states, groups);
        assert!(
            keys.len() == groups && states.len() <= groups,
            "the host sent another number of keys or states than of groups"
        );
        let mut states: Vec<Option<P::State>> = states.into_iter().map(Some).collect();
        states.resize_with(groups, || None);
        let mut timers = Vec::new();
        timers.resize_with(groups, Timers::default);
        for timer in Unpacked::of(&call.keyed.event_timers) {
            timers[timer.group].event.add(timer.name, timer.time_ms);
        }
        for timer in Unpacked::of(&call.keyed.processing_timers) {
            timers[timer.group]
                .processing
                .add(timer.name, timer.time_ms);
        }
        Run {
            call,
            is_careful,
            states,
            context: Context {
                keys,
                timers,
                group: 0,
                time_ms: i64::MIN,
                watermark_ms: i64::MIN,
                now_ms: call.steps.now,
                outputs: Vec::new(),
                has_too_many: false,
            },
            writers: <P::Output<'a> as Ports<'a>>::Writers::default(),
            rejects: Vec::new(),
            rejected_timers: Vec::new(),
        }
    }

    /// Takes all steps; `None` after a reject, unless it is careful.
    fn all(mut self) -> Option<Processed> {
        let Call { tables, steps, .. } = *self.call;
        let readers = P::Input::read_ports(tables);
        let mut next_rows = vec![0; tables.len()];
        let mut taken_back = steps.taken_back.iter().copied().peekable();
        for (step, &input) in steps.inputs.iter().enumerate() {
            let group = steps.groups[step] as usize;
            self.context.group = group;
            self.context.watermark_ms = steps.watermarks[step];
            let (input, fires) = match usize::from(input) {
                input if input < tables.len() => (Some(input), Fires::Due),
                input if input == tables.len() => (None, Fires::Due),
                input if input == tables.len() + 1 => (None, Fires::First),
                input => (Some(input - tables.len() - 2), Fires::Nothing),
            };
            self.context.time_ms = match fires {
                Fires::First => steps.times[step],
                Fires::Due | Fires::Nothing => i64::MIN,
            };
            self.fire(step, fires)?;
            let Some(input) = input else { continue };
            let row = next_rows[input];
            next_rows[input] += 1;
            assert!(row < tables[input].rows(), "the host sent too few rows");
            self.context.time_ms = steps.times[step];
            // SAFETY: there is a table for this port, and it has this row.
            let row = unsafe { P::Input::read_port(&readers, input, row) };
            let is_taken_back = taken_back.next_if_eq(&(step as u32)).is_some();
            let outcome = self.attempt(step, |run| {
                let row = row.map_err(Reject::from)?;
                let (process, take_back) = (run.call.process, run.call.take_back);
                let state = &mut run.states[group];
                match is_taken_back {
                    false => process.row(state, row, &mut run.context),
                    true => take_back(process, state, row, &mut run.context),
                }
            });
            if let Err(reject) = outcome {
                if !self.is_careful {
                    return None;
                }
                self.rejects.push(answers::Reject {
                    row: step as u32,
                    reason: reject.into_reason(),
                });
            } else {
                self.fire(step, fires)?;
            }
        }
        Some(self.finish())
    }

    /// Fires timers of the group that are due, in order. `None` after a reject, unless it
    /// is careful.
    #[inline(always)]
    fn fire(&mut self, step: usize, fires: Fires) -> Option<()> {
        let group = self.context.group;
        if fires == Fires::Nothing || self.context.timers[group].are_empty() {
            return Some(());
        }
        self.fire_due(step, fires)
    }

    fn fire_due(&mut self, step: usize, fires: Fires) -> Option<()> {
        let group = self.context.group;
        let (watermark_ms, now_ms) = (self.context.watermark_ms, self.context.now_ms);
        // At the end of time, a name fires once.
        let mut fired_at_end: Vec<Due> = Vec::new();
        loop {
            let is_done = |name: &str, in_processing_time: bool| {
                let mut fired = fired_at_end.iter();
                fired.any(|due| due.name == name && due.in_processing_time == in_processing_time)
            };
            let timers = &self.context.timers[group];
            let Some(due) = timers.next_due(watermark_ms, now_ms, is_done) else {
                if fires == Fires::Due {
                    self.context.timers[group].end(watermark_ms, now_ms);
                }
                return Some(());
            };
            self.context.timers[group].remove(&due);
            let (time_ms, end_ms) = match due.in_processing_time {
                true => (self.call.steps.times[step], now_ms),
                false => (due.time_ms, watermark_ms),
            };
            // A timer that was set behind time has the time of what set it.
            self.context.time_ms = self.context.time_ms.max(time_ms);
            let outcome = self.attempt(step, |run| {
                let timer = Timer {
                    name: &due.name,
                    time: Timestamp(due.time_ms),
                    in_processing_time: due.in_processing_time,
                };
                let state = &mut run.states[group];
                run.call.process.timer(state, timer, &mut run.context)
            });
            if let Err(reject) = outcome {
                if !self.is_careful {
                    return None;
                }
                self.rejected_timers.push(RejectedTimer {
                    step: step as u32,
                    name: due.name.clone(),
                    time: due.time_ms,
                    reason: reject.into_reason(),
                });
            }
            if fires == Fires::First {
                return Some(());
            }
            if end_ms == i64::MAX {
                fired_at_end.push(due);
            }
        }
    }

    /// Takes a row or timer, and writes what it puts out. If it is rejected and the run
    /// is careful, it has changed nothing.
    #[inline(always)]
    fn attempt(
        &mut self,
        step: usize,
        take: impl FnOnce(&mut Self) -> Result<(), Reject>,
    ) -> Result<(), Reject> {
        let group = self.context.group;
        let before = self.is_careful.then(|| {
            let timers = self.context.timers[group].clone();
            (self.states[group].clone(), timers)
        });
        let mut outcome = take(self);
        if std::mem::take(&mut self.context.has_too_many) && outcome.is_ok() {
            let reason = format!("it sets more than {TIMERS_MAX} timers for its key");
            outcome = Err(Reject::new(reason));
        }
        if outcome.is_ok() {
            let time_ms = self.context.time_ms;
            for row in self.context.outputs.drain(..) {
                row.write_port(&mut self.writers, step as u32, time_ms);
            }
        } else {
            self.context.outputs.clear();
            if let Some((state, timers)) = before {
                self.states[group] = state;
                self.context.timers[group] = timers;
            }
        }
        outcome
    }

    fn finish(self) -> Processed {
        let mut groups = Vec::new();
        let mut states = Vec::with_capacity(self.states.len());
        for (group, state) in (0..).zip(self.states) {
            if let Some(state) = state {
                groups.push(group);
                states.push(state);
            }
        }
        let timers = &self.context.timers;
        Processed {
            groups,
            states: columns(&states),
            event_timers: packed(timers.iter().map(|timers| &timers.event)),
            processing_timers: packed(timers.iter().map(|timers| &timers.processing)),
            outputs: P::Output::finish_ports(self.writers),
            rejects: self.rejects,
            rejected_timers: self.rejected_timers,
        }
    }
}
