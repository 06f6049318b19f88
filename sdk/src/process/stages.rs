//! Processes that an operator of another kind is run as, its stages. They have its
//! parameters.

use super::{Process, open, shape};
use crate::bindings::exports::sluicebox::plugin::operators::Argument;
use crate::operator::{ListedOperator, Operator, described};
use crate::parameters::Arguments;

/// Lists a stage of the operator.
pub const fn stage<O: Operator, S: Process + 'static>(name: &'static str) -> ListedOperator {
    ListedOperator::stage::<O>(
        name,
        || described::<O>(shape::<S>()),
        |arguments: Vec<Argument>| Arguments::read::<S>(arguments).map(open),
    )
}

/// Defines stages of an operator that is a type `P`.
macro_rules! stages {
    ($($(#[$doc:meta])* $stage:ident;)*) => {$(
        $(#[$doc])*
        pub struct $stage<P>(pub P);

        /// Those of the operator.
        impl<P: $crate::Parameters> $crate::Parameters for $stage<P> {
            fn describe() -> Vec<$crate::bindings::sluicebox::plugin::description::Parameter> {
                P::describe()
            }

            fn from_arguments(
                arguments: &mut $crate::parameters::Arguments,
            ) -> Result<Self, String> {
                P::from_arguments(arguments).map($stage)
            }
        }
    )*};
}

pub(crate) use stages;
