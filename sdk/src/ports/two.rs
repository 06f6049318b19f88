//! Two inputs or outputs of an operator that the SDK makes: rows of either come one by one.

use std::marker::PhantomData;

use super::{PortRows, Ports, port};
use crate::Record;
use crate::bindings::exports::sluicebox::plugin::process::Output;
use crate::bindings::sluicebox::plugin::description::Port;
use crate::record::{Table, Unreadable};

/// A row of one of two inputs or outputs, which `N` names.
pub struct Two<N, A, B>(pub OneOf<A, B>, PhantomData<N>);

pub enum OneOf<A, B> {
    First(A),
    Second(B),
}

impl<N, A, B> Two<N, A, B> {
    pub fn first(row: A) -> Self {
        Two(OneOf::First(row), PhantomData)
    }

    pub fn second(row: B) -> Self {
        Two(OneOf::Second(row), PhantomData)
    }
}

pub trait PortNames {
    const NAMES: [&'static str; 2];
}

impl<'a, N: PortNames, A: Record<'a>, B: Record<'a>> Ports<'a> for Two<N, A, B> {
    type Readers = (A::Reader, B::Reader);
    type Writers = (PortRows<'a, A>, PortRows<'a, B>);

    fn describe_ports() -> Vec<Port> {
        let [first, second] = N::NAMES;
        vec![port::<A>(first), port::<B>(second)]
    }

    fn read_ports(tables: &'a [Table<'a>]) -> Self::Readers {
        (tables[0].reader::<A>(), tables[1].reader::<B>())
    }

    #[inline(always)]
    unsafe fn read_port(
        readers: &Self::Readers,
        port: usize,
        row: usize,
    ) -> Result<Self, Unreadable> {
        // SAFETY: as the caller says.
        unsafe {
            match port {
                0 => A::read(&readers.0, row).map(Two::first),
                _ => B::read(&readers.1, row).map(Two::second),
            }
        }
    }

    #[inline(always)]
    fn write_port(self, writers: &mut Self::Writers, step: u32, time_ms: i64) {
        match self.0 {
            OneOf::First(row) => writers.0.put(&row, step, time_ms),
            OneOf::Second(row) => writers.1.put(&row, step, time_ms),
        }
    }

    fn finish_ports(writers: Self::Writers) -> Vec<Output> {
        vec![writers.0.finish(), writers.1.finish()]
    }
}
