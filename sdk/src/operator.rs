//! Describes a plugin's operators, and opens the one that an instance serves.

use crate::Parameters;
use crate::bindings::Interface;
use crate::bindings::exports::sluicebox::plugin::operators::Argument;
use crate::bindings::sluicebox::plugin::description::{self, Plugin};
use crate::instance::{Instance, Opened, Shape};
use crate::parameters::Arguments;

/// Implemented by `#[operator]` for each function or struct, for `export!`.
#[doc(hidden)]
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an operator",
    label = "has no `#[operator]`",
    note = "`export!` takes functions and structs that have `#[operator]`"
)]
pub trait Operator: Sized + 'static {
    const NAME: &'static str;
    const DOC: &'static str;
    /// The interfaces that the host calls it through.
    const INTERFACES: &'static [Interface];
    type Parameters: Parameters;
    /// What the plugin lists for it.
    const LISTED: &'static [ListedOperator] = &[ListedOperator::of::<Self>()];

    fn shape() -> Shape;
    fn open(parameters: Self::Parameters) -> OpenResult;
}

/// An operator in a plugin's list.
#[doc(hidden)]
pub struct ListedOperator {
    name: &'static str,
    /// Which part of the operator it is, if it is not all of it.
    stage: Option<&'static str>,
    describe: fn() -> description::Operator,
    open: fn(Vec<Argument>) -> OpenResult,
}

#[doc(hidden)]
pub type OpenResult = Result<Instance, String>;

impl ListedOperator {
    pub const fn of<O: Operator>() -> Self {
        ListedOperator {
            name: O::NAME,
            stage: None,
            describe: || described::<O>(O::shape()),
            open: |arguments| {
                let parameters = Arguments::read::<O::Parameters>(arguments)?;
                O::open(parameters)
            },
        }
    }

    /// A stage that the operator is run as.
    pub const fn stage<O: Operator>(
        stage: &'static str,
        describe: fn() -> description::Operator,
        open: fn(Vec<Argument>) -> OpenResult,
    ) -> Self {
        ListedOperator {
            name: O::NAME,
            stage: Some(stage),
            describe,
            open,
        }
    }

    fn full_name(&self) -> String {
        match self.stage {
            Some(stage) => format!("{}.{stage}", self.name),
            None => self.name.to_owned(),
        }
    }

    fn describe(&self) -> description::Operator {
        description::Operator {
            name: self.full_name(),
            ..(self.describe)()
        }
    }
}

/// Fails to compile if two operators of a plugin have the same name.
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
pub fn plugin(name: &str, version: &str, doc: &str, operators: &[&[ListedOperator]]) -> Plugin {
    Plugin {
        name: name.to_owned(),
        version: version.to_owned(),
        doc: doc.to_owned(),
        operators: operators
            .iter()
            .copied()
            .flatten()
            .map(ListedOperator::describe)
            .collect(),
    }
}

/// The description of an operator, or of a stage of it, with this shape.
#[doc(hidden)]
pub fn described<O: Operator>(shape: Shape) -> description::Operator {
    let Shape {
        kind,
        inputs,
        outputs,
        key,
        state,
        retracts,
    } = shape;
    description::Operator {
        name: O::NAME.to_owned(),
        doc: O::DOC.to_owned(),
        kind,
        inputs,
        outputs,
        key,
        state,
        retracts,
        parameters: O::Parameters::describe(),
    }
}

#[doc(hidden)]
pub fn open(
    operators: &[&[ListedOperator]],
    name: &str,
    arguments: Vec<Argument>,
) -> Result<(), String> {
    let mut listed = operators.iter().copied().flatten();
    let Some(operator) = listed.find(|operator| operator.full_name() == name) else {
        let whole = operators.iter().copied().flatten();
        let whole = whole.filter(|operator| operator.stage.is_none());
        let names: Vec<String> = whole.map(|o| format!("`{}`", o.name)).collect();
        return Err(format!(
            "the plugin has no operator `{name}`; it has {}",
            names.join(", ")
        ));
    };
    Opened::set((operator.open)(arguments)?)
}

#[cfg(test)]
mod tests;
