use super::{Process, TakeBack, TakesBack, never, process};
use crate::bindings::exports::sluicebox::plugin::process::{Keyed, Processed, Steps, Timers};
use crate::bindings::sluicebox::plugin::columns::{Batch, Packed};
use crate::ports::Ports;
use crate::record::{Table, columns, read_all};
use crate::{Reject, Timestamp};

/// One key of a process, for unit tests: keeps its state and timers as the host does.
///
/// Its outputs are never freed, which is why it is for tests.
///
/// ```
/// # use sluicebox_sdk::prelude::*;
/// use sluicebox_sdk::OneKey;
///
/// # #[derive(Record)]
/// # struct Visit { page: u32 }
/// # #[derive(Record, Debug, PartialEq)]
/// # struct Gone { pages: u32 }
/// # #[derive(Record, Clone, Default)]
/// # struct Pages { count: u32 }
/// # #[operator(process)]
/// # struct Leaving {}
/// # impl Process for Leaving {
/// #     type Input<'a> = Visit;
/// #     type Key<'a> = ();
/// #     type State = Pages;
/// #     type Output<'a> = Gone;
/// #     fn row<'a>(&self, pages: &mut Option<Pages>, _: Visit, context: &mut Context<'a, Self>)
/// #         -> Result<(), Reject> {
/// #         pages.get_or_insert_default().count += 1;
/// #         context.set("gone", Timestamp(context.time().0 + 60_000));
/// #         Ok(())
/// #     }
/// #     fn timer<'a>(&self, pages: &mut Option<Pages>, _: Timer<'_>, context: &mut Context<'a, Self>)
/// #         -> Result<(), Reject> {
/// #         let pages = pages.take().map_or(0, |pages| pages.count);
/// #         context.emit(Gone { pages });
/// #         Ok(())
/// #     }
/// # }
/// # export!(Leaving);
/// let mut user = OneKey::new(Leaving {}, ());
/// assert_eq!(user.row(Timestamp(0), Visit { page: 1 }), Ok(vec![]));
/// assert_eq!(user.row(Timestamp(5_000), Visit { page: 2 }), Ok(vec![]));
/// assert_eq!(user.advance(Timestamp(60_000)), Ok(vec![]));
/// assert_eq!(user.advance(Timestamp(65_000)), Ok(vec![Gone { pages: 2 }]));
/// ```
pub struct OneKey<P: Process> {
    process: P,
    keyed: Keyed,
    pub(super) watermark_ms: i64,
    now_ms: i64,
}

impl<P: Process> OneKey<P> {
    /// A key without state and timers, before any time.
    pub fn new(process: P, key: P::Key<'_>) -> Self {
        OneKey {
            process,
            keyed: Keyed {
                groups: 1,
                keys: columns(&[key]),
                states: columns::<P::State>(&[]),
                event_timers: no_timers(),
                processing_timers: no_timers(),
            },
            watermark_ms: i64::MIN,
            now_ms: i64::MIN,
        }
    }

    /// Takes a row of this event time, and returns what it puts out, by output, or why it
    /// is rejected.
    pub fn row(
        &mut self,
        time: Timestamp,
        row: P::Input<'_>,
    ) -> Result<Vec<P::Output<'static>>, Reject> {
        self.take(time, row, None)
    }

    /// Takes a row back, and returns what is put out for that, by output, or why it is
    /// rejected.
    pub fn take_back(
        &mut self,
        time: Timestamp,
        row: P::Input<'_>,
    ) -> Result<Vec<P::Output<'static>>, Reject>
    where
        P: TakeBack,
    {
        self.take(time, row, Some(P::take_back))
    }

    fn take(
        &mut self,
        time: Timestamp,
        row: P::Input<'_>,
        take_back: Option<TakesBack<P>>,
    ) -> Result<Vec<P::Output<'static>>, Reject> {
        let mut rows = Default::default();
        row.write_port(&mut rows, 0, time.0);
        let inputs = <P::Input<'_> as Ports<'_>>::finish_ports(rows).into_iter();
        let inputs: Vec<Batch> = inputs.map(|port| port.rows.columns).collect();
        let input = inputs.iter().position(|batch| batch.rows == 1);
        self.step(&inputs, input.unwrap_or_default(), time.0, take_back)
    }

    /// Advances the watermark, and returns what the timers put out, or why one is
    /// rejected.
    pub fn advance(&mut self, watermark: Timestamp) -> Result<Vec<P::Output<'static>>, Reject> {
        self.watermark_ms = watermark.0;
        self.fire()
    }

    /// Advances the host's clock, and returns what the timers put out, or why one is
    /// rejected.
    pub fn advance_clock(&mut self, now: Timestamp) -> Result<Vec<P::Output<'static>>, Reject> {
        self.now_ms = now.0;
        self.fire()
    }

    /// The key's state, if it has one.
    pub fn state(&self) -> Option<P::State> {
        read_all(&self.keyed.states, 0).pop()
    }

    fn fire(&mut self) -> Result<Vec<P::Output<'static>>, Reject> {
        let ports = P::Input::describe_ports().len();
        let no_rows = <P::Input<'_> as Ports<'_>>::finish_ports(Default::default()).into_iter();
        let inputs: Vec<Batch> = no_rows.map(|port| port.rows.columns).collect();
        self.step(&inputs, ports, self.watermark_ms, None)
    }

    fn step(
        &mut self,
        inputs: &[Batch],
        code: usize,
        time_ms: i64,
        take_back: Option<TakesBack<P>>,
    ) -> Result<Vec<P::Output<'static>>, Reject> {
        let steps = Steps {
            inputs: vec![code as u8],
            groups: vec![0],
            times: vec![time_ms],
            watermarks: vec![self.watermark_ms],
            taken_back: take_back.map(|_| 0).into_iter().collect(),
            now: self.now_ms,
        };
        let take_back = take_back.unwrap_or(never::<P>);
        let processed = process(&self.process, take_back, inputs, &steps, &self.keyed);
        let Processed {
            states,
            event_timers,
            processing_timers,
            outputs,
            mut rejects,
            mut rejected_timers,
            ..
        } = processed;
        self.keyed = Keyed {
            groups: 1,
            keys: self.keyed.keys.clone(),
            states,
            event_timers,
            processing_timers,
        };
        if let Some(reject) = rejects.pop() {
            return Err(Reject::new(reject.reason));
        }
        if let Some(timer) = rejected_timers.pop() {
            return Err(Reject::new(timer.reason));
        }
        let batches = outputs.into_iter().map(|output| output.rows.columns);
        let batches: &'static [Batch] = batches.collect::<Vec<_>>().leak();
        let tables: &'static [Table<'static>] =
            batches.iter().map(Table::new).collect::<Vec<_>>().leak();
        let readers = <P::Output<'static> as Ports<'static>>::read_ports(tables);
        let mut rows = Vec::new();
        for (port, table) in tables.iter().enumerate() {
            for row in 0..table.rows() {
                // SAFETY: there is a table for this port, and it has this row.
                let output = unsafe { P::Output::read_port(&readers, port, row) };
                rows.push(output.unwrap_or_else(|error| panic!("it was just written: {error}")));
            }
        }
        Ok(rows)
    }
}

fn no_timers() -> Timers {
    Timers {
        groups: Vec::new(),
        times: Vec::new(),
        names: Packed {
            ends: Vec::new(),
            data: Vec::new(),
        },
    }
}
