//! What a plugin exports: its description, and the opening of the one operator
//! that an instance of it serves.

use crate::Parameters;
use crate::bindings::Interface;
use crate::bindings::exports::sluicebox::plugin::operators::Argument;
use crate::bindings::sluicebox::plugin::description::{self, Plugin, Port};
use crate::bindings::sluicebox::plugin::schemas;
use crate::instance::{Instance, Opened, Shape};
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
    /// What it is called through.
    const INTERFACE: Interface;
    type Parameters: Parameters;

    fn shape() -> Shape;
    fn open(parameters: Self::Parameters) -> Instance;
}

/// An operator of a plugin, before it is opened.
#[doc(hidden)]
pub struct Listed {
    name: &'static str,
    describe: fn() -> description::Operator,
    open: fn(Vec<Argument>) -> OpenResult,
}

type OpenResult = Result<Instance, String>;

impl Listed {
    pub const fn of<O: Operator>() -> Self {
        Listed {
            name: O::NAME,
            describe: describe::<O>,
            open: |arguments| {
                let parameters = Arguments::read::<O::Parameters>(arguments)?;
                Ok(O::open(parameters))
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
pub fn plugin(name: &str, version: &str, doc: &str, operators: &[Listed]) -> Plugin {
    Plugin {
        name: name.to_owned(),
        version: version.to_owned(),
        doc: doc.to_owned(),
        operators: operators
            .iter()
            .map(|operator| (operator.describe)())
            .collect(),
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
        inputs: main(input),
        outputs: main(output),
        state,
        parameters: O::Parameters::describe(),
    }
}

/// The only port.
fn main(schema: Vec<schemas::Field>) -> Vec<Port> {
    let name = "main".to_owned();
    vec![Port { name, schema }]
}

#[doc(hidden)]
pub fn open(operators: &[Listed], name: &str, arguments: Vec<Argument>) -> Result<(), String> {
    let Some(operator) = operators.iter().find(|operator| operator.name == name) else {
        let names: Vec<String> = operators.iter().map(|o| format!("`{}`", o.name)).collect();
        return Err(format!(
            "the plugin has no operator `{name}`; it has {}",
            names.join(", ")
        ));
    };
    Opened::set((operator.open)(arguments)?)
}

#[cfg(test)]
mod tests;
