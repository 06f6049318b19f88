//! What a plugin exports: its description, and the one operator that an
//! instance serves once it was opened.

use std::cell::OnceCell;

use crate::Parameters;
use crate::bindings::exports::sluicebox::plugin::operators::{
    Accumulated, AccumulatedEach, Argument, Batch, Rows, States, Transformed, Windows,
};
use crate::bindings::sluicebox::plugin::description::{self, Kind, Plugin, Port};
use crate::bindings::sluicebox::plugin::schemas;
use crate::parameters::Arguments;

/// What `#[operator]` makes of a function or an aggregate, for `export!`.
#[doc(hidden)]
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an operator",
    label = "has no `#[operator]`",
    note = "`export!` takes functions and aggregates that have `#[operator]`"
)]
pub trait Operator: 'static {
    const NAME: &'static str;
    const DOC: &'static str;
    type Parameters: Parameters;

    fn shape() -> Shape;

    fn transform(_parameters: &Self::Parameters, _input: &Batch) -> Transformed {
        not_this("transform", Self::NAME)
    }

    fn accumulate(
        _parameters: &Self::Parameters,
        _input: &Batch,
        _groups: &[u32],
        _states: &States,
    ) -> Accumulated {
        not_this("accumulate", Self::NAME)
    }

    fn accumulate_each(
        _parameters: &Self::Parameters,
        _input: &Batch,
        _groups: &[u32],
        _states: &States,
    ) -> AccumulatedEach {
        not_this("accumulate-each", Self::NAME)
    }

    fn merge(_parameters: &Self::Parameters, _states: &Batch, _groups: &[u32]) -> Batch {
        not_this("merge", Self::NAME)
    }

    fn finish(_parameters: &Self::Parameters, _states: &Batch, _windows: &Windows) -> Rows {
        not_this("finish", Self::NAME)
    }
}

#[cold]
fn not_this(call: &str, operator: &str) -> ! {
    panic!("the host called `{call}`, which the operator `{operator}` is not for");
}

/// What an operator takes, gives and keeps.
#[doc(hidden)]
pub struct Shape {
    pub kind: Kind,
    pub input: Vec<schemas::Field>,
    pub output: Vec<schemas::Field>,
    pub state: Vec<schemas::Field>,
}

/// An operator of a plugin, before it is opened.
#[doc(hidden)]
pub struct Entry {
    name: &'static str,
    describe: fn() -> description::Operator,
    open: fn(Vec<Argument>) -> OpenResult,
}

type OpenResult = Result<Box<dyn Instance>, String>;

impl Entry {
    pub const fn of<O: Operator>() -> Self {
        Entry {
            name: O::NAME,
            describe: describe::<O>,
            open: |arguments| {
                let parameters = Arguments::read::<O::Parameters>(arguments)?;
                Ok(Box::new(Opened::<O>(parameters)))
            },
        }
    }
}

/// Refuses to compile a plugin whose operators cannot be told apart.
#[doc(hidden)]
pub const fn assert_distinct(names: &[&str]) {
    let mut i = 0;
    while i < names.len() {
        let mut j = 0;
        while j < i {
            assert!(
                !equal(names[i].as_bytes(), names[j].as_bytes()),
                "two operators of this plugin have the same name: give one of them another, \
                 with `#[operator(name = \"…\")]`"
            );
            j += 1;
        }
        i += 1;
    }
}

const fn equal(a: &[u8], b: &[u8]) -> bool {
    let mut i = 0;
    while i < a.len() && i < b.len() && a[i] == b[i] {
        i += 1;
    }
    i == a.len() && i == b.len()
}

#[doc(hidden)]
pub fn plugin(name: &str, version: &str, doc: &str, entries: &[Entry]) -> Plugin {
    Plugin {
        name: name.to_owned(),
        version: version.to_owned(),
        doc: doc.to_owned(),
        operators: entries.iter().map(|entry| (entry.describe)()).collect(),
    }
}

fn describe<O: Operator>() -> description::Operator {
    let Shape {
        kind,
        input,
        output,
        state,
    } = O::shape();
    description::Operator {
        name: O::NAME.to_owned(),
        doc: O::DOC.to_owned(),
        kind,
        inputs: vec![Port {
            name: "input".to_owned(),
            schema: input,
        }],
        output,
        state,
        parameters: O::Parameters::describe(),
    }
}

/// An operator with its parameters.
#[doc(hidden)]
pub trait Instance {
    fn transform(&self, input: &Batch) -> Transformed;
    fn accumulate(&self, input: &Batch, groups: &[u32], states: &States) -> Accumulated;
    fn accumulate_each(&self, input: &Batch, groups: &[u32], states: &States) -> AccumulatedEach;
    fn merge(&self, states: &Batch, groups: &[u32]) -> Batch;
    fn finish(&self, states: &Batch, windows: &Windows) -> Rows;
}

struct Opened<O: Operator>(O::Parameters);

impl<O: Operator> Instance for Opened<O> {
    fn transform(&self, input: &Batch) -> Transformed {
        O::transform(&self.0, input)
    }

    fn accumulate(&self, input: &Batch, groups: &[u32], states: &States) -> Accumulated {
        O::accumulate(&self.0, input, groups, states)
    }

    fn accumulate_each(&self, input: &Batch, groups: &[u32], states: &States) -> AccumulatedEach {
        O::accumulate_each(&self.0, input, groups, states)
    }

    fn merge(&self, states: &Batch, groups: &[u32]) -> Batch {
        O::merge(&self.0, states, groups)
    }

    fn finish(&self, states: &Batch, windows: &Windows) -> Rows {
        O::finish(&self.0, states, windows)
    }
}

thread_local! {
    static OPENED: OnceCell<Box<dyn Instance>> = const { OnceCell::new() };
}

#[doc(hidden)]
pub fn open(entries: &[Entry], operator: &str, arguments: Vec<Argument>) -> Result<(), String> {
    let Some(entry) = entries.iter().find(|entry| entry.name == operator) else {
        let names: Vec<String> = entries.iter().map(|e| format!("`{}`", e.name)).collect();
        return Err(format!(
            "the plugin has no operator `{operator}`; it has {}",
            names.join(", ")
        ));
    };
    let instance = (entry.open)(arguments)?;
    OPENED.with(|opened| {
        opened
            .set(instance)
            .map_err(|_| "this instance was opened before".to_owned())
    })
}

/// Calls the operator that this instance was opened for.
#[doc(hidden)]
pub fn opened<R>(call: impl FnOnce(&dyn Instance) -> R) -> R {
    OPENED.with(|opened| {
        let instance = opened.get();
        call(&**instance.expect("the host made a call before `open`"))
    })
}

#[cfg(test)]
mod tests;
