//! The one operator that an instance of a plugin serves, after it has been
//! opened.

use std::cell::OnceCell;

use crate::bindings::exports::sluicebox::plugin::aggregate::{
    Accumulated, AccumulatedEach, Grouped, States, Windows,
};
use crate::bindings::exports::sluicebox::plugin::process::{Keyed, Processed, Steps};
use crate::bindings::exports::sluicebox::plugin::transform::Transformed;
use crate::bindings::sluicebox::plugin::columns::Batch;
use crate::bindings::sluicebox::plugin::description::{Kind, Port};
use crate::bindings::sluicebox::plugin::{answers, schemas};

/// An operator's kind and schemas.
#[doc(hidden)]
pub struct Shape {
    pub kind: Kind,
    pub inputs: Vec<Port>,
    pub outputs: Vec<Port>,
    pub key: Vec<schemas::Field>,
    pub state: Vec<schemas::Field>,
    /// Whether it is an aggregate that can take rows back.
    pub retracts: bool,
}

/// An operator with its parameters, by the interface that calls it.
#[doc(hidden)]
pub enum Instance {
    Transform(Box<dyn TransformInstance>),
    Aggregate(Box<dyn AggregateInstance>),
    Process(Box<dyn ProcessInstance>),
}

/// A function with its parameters.
#[doc(hidden)]
pub trait TransformInstance {
    fn transform(&self, input: &Batch) -> Transformed;
}

/// An aggregate with its parameters.
#[doc(hidden)]
pub trait AggregateInstance {
    fn accumulate(&self, rows: &Grouped, states: &States) -> Accumulated;
    fn accumulate_each(&self, rows: &Grouped, states: &States, keys: &Batch) -> AccumulatedEach;
    fn merge(&self, states: &Batch, groups: &[u32]) -> Batch;
    fn finish(&self, states: &Batch, keys: &Batch, windows: &Windows) -> answers::Rows;
}

/// A process with its parameters.
#[doc(hidden)]
pub trait ProcessInstance {
    fn process(&self, inputs: &[Batch], steps: &Steps, keyed: &Keyed) -> Processed;
}

thread_local! {
    static OPENED: OnceCell<Instance> = const { OnceCell::new() };
}

/// The operator that this instance has opened. Each kind implements its
/// interface for it.
#[doc(hidden)]
pub struct Opened;

impl Opened {
    pub(crate) fn set(instance: Instance) -> Result<(), String> {
        OPENED.with(|opened| {
            opened
                .set(instance)
                .map_err(|_| "this instance was opened before".to_owned())
        })
    }

    pub(crate) fn with<R>(call: impl FnOnce(&Instance) -> R) -> R {
        OPENED.with(|opened| call(opened.get().expect("the host made a call before `open`")))
    }
}

/// The host called an interface of another kind than the opened operator's.
#[cold]
pub(crate) fn not_of_kind(interface: &str) -> ! {
    panic!("the host called `{interface}`, and has opened an operator of another kind");
}
