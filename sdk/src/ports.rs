//! The inputs and outputs of an operator: one record for each port.

/// Two ports, of operators that the SDK makes.
pub mod two;

use crate::bindings::exports::sluicebox::plugin::process::Output;
use crate::bindings::sluicebox::plugin::description::Port;
use crate::outputs::OutputRows;
use crate::record::{Nowhere, Record, Table, Unreadable, schema_of};

/// Rows of several inputs or outputs: an enum with a variant for each, whose field is the
/// record of that port. A record alone is the only port.
///
/// Derive it. A port is named after its variant, in snake case. The first output is the
/// main one, which is what a pipeline reads as `operator`; it reads others as
/// `operator.port`.
///
/// ```
/// use sluicebox_sdk::prelude::*;
///
/// #[derive(Record)]
/// struct Request<'a> { order: &'a str, quantity: u32 }
///
/// #[derive(Record)]
/// struct Delivery { quantity: u32 }
///
/// #[derive(Ports)]
/// enum Input<'a> {
///     Requests(Request<'a>),
///     Deliveries(Delivery),
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is neither a record nor a set of ports",
    note = "use a struct with `#[derive(Record)]`, or an enum of such structs with `#[derive(Ports)]`"
)]
pub trait Ports<'a>: Sized {
    #[doc(hidden)]
    type Readers;
    #[doc(hidden)]
    type Writers: Default;

    #[doc(hidden)]
    fn describe_ports() -> Vec<Port>;

    /// Readers of the rows of each port.
    #[doc(hidden)]
    fn read_ports(tables: &'a [Table<'a>]) -> Self::Readers;

    /// # Safety
    /// `port` is one of the ports, and its table has this row.
    #[doc(hidden)]
    unsafe fn read_port(
        readers: &Self::Readers,
        port: usize,
        row: usize,
    ) -> Result<Self, Unreadable>;

    #[doc(hidden)]
    fn write_port(self, writers: &mut Self::Writers, step: u32, time_ms: i64);

    #[doc(hidden)]
    fn finish_ports(writers: Self::Writers) -> Vec<Output>;
}

impl<'a, R: Record<'a>> Ports<'a> for R {
    type Readers = R::Reader;
    type Writers = PortRows<'a, R>;

    fn describe_ports() -> Vec<Port> {
        vec![port::<R>("main")]
    }

    fn read_ports(tables: &'a [Table<'a>]) -> R::Reader {
        tables[0].reader::<R>()
    }

    #[inline(always)]
    unsafe fn read_port(reader: &R::Reader, _port: usize, row: usize) -> Result<Self, Unreadable> {
        // SAFETY: as the caller says.
        unsafe { R::read(reader, row) }
    }

    #[inline(always)]
    fn write_port(self, rows: &mut Self::Writers, step: u32, time_ms: i64) {
        rows.put(&self, step, time_ms);
    }

    fn finish_ports(rows: Self::Writers) -> Vec<Output> {
        vec![rows.finish()]
    }
}

/// Describes a port.
#[doc(hidden)]
pub fn port<'a, R: Record<'a>>(name: &str) -> Port {
    Port {
        name: name.to_owned(),
        schema: schema_of::<R>(),
    }
}

/// Rows of an output, with their parents and event times.
#[doc(hidden)]
pub struct PortRows<'a, R: Record<'a>> {
    rows: OutputRows<'a, R>,
    times: Vec<i64>,
}

impl<'a, R: Record<'a>> Default for PortRows<'a, R> {
    fn default() -> Self {
        PortRows {
            rows: OutputRows::with_capacity(0, &Nowhere),
            times: Vec::new(),
        }
    }
}

impl<'a, R: Record<'a>> PortRows<'a, R> {
    #[inline(always)]
    pub fn put(&mut self, row: &R, step: u32, time_ms: i64) {
        self.rows.make_room();
        // SAFETY: there is room for this one.
        unsafe { self.rows.push(row, step, &Nowhere) };
        self.times.push(time_ms);
    }

    pub fn finish(self) -> Output {
        Output {
            rows: self.rows.finish(&[]),
            times: self.times,
        }
    }
}
