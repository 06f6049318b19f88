//! Write the operators of a Sluicebox pipeline as plain Rust.
//!
//! Rows are structs with [`#[derive(Record)]`](Record). A transform is a
//! function that takes a row, and an [`Aggregate`] folds the rows of a key and
//! window. A [`Process`] takes the rows and timers of a key one by one; a
//! [`Lookup`] finds rows of a table; a [`Recommender`] learns what goes with
//! what. All carry
//! [`#[operator]`](operator) and are listed in one [`export!`]. This is a whole
//! plugin:
//!
//! ```
//! use sluicebox_sdk::prelude::*;
//!
//! #[derive(Record)]
//! struct Order<'a> { status: &'a str, cents: i64 }
//!
//! /// Keeps orders that were paid.
//! #[operator]
//! fn paid(order: Order<'_>) -> bool { order.status == "paid" && order.cents > 0 }
//!
//! export!(paid);
//! #
//! # assert!(paid(Order { status: "paid", cents: 100 }));
//! ```
//!
//! Its `Cargo.toml` has `crate-type = ["cdylib", "rlib"]` and this crate as a
//! dependency; `sluicebox build` (or `cargo build --target wasm32-wasip2`)
//! makes the component that pipelines name.
//!
//! What a transform returns decides what it does: `bool` filters, a record
//! maps, `Option` does both, `Vec` or an iterator emits several rows, and a
//! `Result` may [reject](Reject) a row with a reason: see [`Answer`]. It may
//! take [`Parameters`] that the pipeline sets. Functions and aggregates remain
//! ordinary Rust, so their unit tests need no host:
//!
//! ```
//! use sluicebox_sdk::prelude::*;
//!
//! #[derive(Record)]
//! struct Event<'a> {
//!     item_id: &'a str,
//!     action: Action,
//!     quantity: i64,
//! }
//!
//! #[derive(Symbol)]
//! enum Action { Add, Remove, View }
//!
//! #[derive(Record, Debug, PartialEq)]
//! struct Change<'a> {
//!     item_id: &'a str,
//!     /// Negative for what was taken out.
//!     delta: i64,
//! }
//!
//! #[derive(Parameters)]
//! struct Limits {
//!     /// The most of an item in one go.
//!     #[parameter(default = 100)]
//!     max_quantity: i64,
//! }
//!
//! /// What an event changes in a cart.
//! #[operator]
//! fn changes(event: Event<'_>, limits: &Limits) -> Result<Option<Change<'_>>, Reject> {
//!     let Event { item_id, action, quantity } = event;
//!     if quantity > limits.max_quantity {
//!         reject!("quantity {quantity} is above {}", limits.max_quantity);
//!     }
//!     Ok(match action {
//!         Action::Add => Some(Change { item_id, delta: quantity }),
//!         Action::Remove => Some(Change { item_id, delta: -quantity }),
//!         Action::View => None,
//!     })
//! }
//!
//! export!(changes);
//!
//! let limits = Limits { max_quantity: 5 };
//! let event = |quantity| Event { item_id: "tea", action: Action::Remove, quantity };
//! assert_eq!(changes(event(2), &limits), Ok(Some(Change { item_id: "tea", delta: -2 })));
//! assert!(changes(event(6), &limits).is_err());
//! ```

#![deny(missing_docs)]

extern crate self as sluicebox_sdk;

/// Folds rows into states.
mod aggregate;
/// The contract, generated from the WIT file.
#[doc(hidden)]
pub mod bindings;
/// Dates and times of day.
mod calendar;
/// Exact numbers with digits behind the point.
mod decimal;
/// The operator that an instance serves.
mod instance;
/// Writes to the host's log.
pub mod log;
/// Looks rows up in a table.
mod lookup;
/// Describes and opens operators.
mod operator;
/// Collects output rows.
mod outputs;
/// Makes earlier states those of an operator.
mod migration;
/// What pipelines can set for an operator.
mod parameters;
/// The inputs and outputs of an operator.
mod ports;
/// Takes the rows and timers of keys.
mod process;
/// Recommends items to users.
mod recommend;
/// Maps structs to rows.
mod record;
/// Rejected rows.
mod reject;
/// Copies and compares short texts.
mod text;
/// Event times and windows.
mod time;
/// Calls functions for the rows of a batch.
mod transform;

pub use aggregate::{Aggregate, Group, Retract, Told};
pub use calendar::{CalendarTime, Weekday};
pub use decimal::{Decimal, NotDecimal};
pub use lookup::Lookup;
pub use outputs::Outputs;
pub use parameters::{ParameterType, Parameters};
pub use ports::Ports;
pub use process::one_key::OneKey;
pub use process::{Context, Process, TIMERS_MAX, TakeBack, Timer};
pub use recommend::rehearsal::Rehearsal;
pub use recommend::{
    Answered, Ask, Asking, Candidate, Event, Lesson, Question, Recommender, decayed,
};
pub use record::{Element, Field, Owned, Record, Symbol};
pub use reject::Reject;
pub use sluicebox_sdk_derive::{Parameters, Ports, Record, Symbol, operator};
pub use text::short::Text;
pub use time::{Timestamp, Window};
pub use transform::Answer;

/// What most plugins need: `use sluicebox_sdk::prelude::*;`.
pub mod prelude {
    pub use crate::{
        Aggregate, Answered, Ask, Asking, Candidate, Context, Decimal, Event, Group, Lesson,
        Lookup, Parameters, Ports, Process, Question, Recommender, Record, Reject, Retract, Symbol,
        TakeBack, Text, Timer, Timestamp, Window, decayed, export, log, operator, reject,
    };
}

/// Code that must not compile.
#[cfg(doctest)]
mod refused;

/// For the code that the macros generate.
#[doc(hidden)]
pub mod private {
    pub use crate::bindings::Interface;
    pub use crate::bindings::exports::sluicebox::plugin::operators::{Argument, Guest};
    pub use crate::bindings::exports::sluicebox::plugin::transform::Transformed;
    pub use crate::bindings::sluicebox::plugin::columns::{Batch, Column};
    pub use crate::bindings::sluicebox::plugin::description::{
        Parameter, Plugin, Value, ValueType,
    };
    pub use crate::bindings::sluicebox::plugin::schemas::{Field as SchemaField, FieldType};
    pub use crate::instance::{Instance, Opened, Shape};
    pub use crate::operator::{
        ListedOperator, OpenResult, Operator, assert_distinct, open, plugin,
    };
    pub use crate::parameters::{
        Arguments, describe as describe_parameter, symbol as symbol_parameter,
    };
    pub use crate::record::{
        Columns, InputColumn, Lineage, Nowhere, Origin, RecordWriter, SliceWriter, Source,
        SymbolReader, Table, Unreadable, Writer, schema_field,
    };
    pub use crate::text::{same, word};

    pub mod aggregate {
        pub use crate::aggregate::{open, open_retracting, shape, shape_retracting};
    }

    pub mod migration {
        pub use crate::migration::{of_aggregate, of_process};
    }

    pub mod lookup {
        pub use crate::lookup::stages::{listed, shape};
    }

    pub mod ports {
        pub use crate::bindings::exports::sluicebox::plugin::process::Output;
        pub use crate::bindings::sluicebox::plugin::description::Port;
        pub use crate::ports::{PortRows, port};
    }

    pub mod process {
        pub use crate::process::{open, open_retracting, shape, shape_retracting};
    }

    pub mod recommend {
        pub use crate::recommend::stages::{listed, shape};
    }

    pub mod transform {
        pub use crate::transform::{Transform, open, run, shape, with_record};
    }
}

/// Makes a plugin of the listed operators.
///
/// Use it once, anywhere in the crate. Each operator is a function or an
/// aggregate with [`#[operator]`](macro@operator), given by its path:
///
/// ```
/// use sluicebox_sdk::prelude::*;
///
/// mod words {
///     use sluicebox_sdk::prelude::*;
///
///     #[derive(Record)]
///     pub struct Line<'a> { text: &'a str }
///
///     #[derive(Record)]
///     pub struct Word<'a> { word: &'a str }
///
///     /// The words of each line.
///     #[operator]
///     pub fn split(line: Line<'_>) -> impl Iterator<Item = Word<'_>> {
///         line.text.split_whitespace().map(|word| Word { word })
///     }
/// }
///
/// export!(words::split);
/// ```
#[macro_export]
macro_rules! export {
    ($($operator:path),+ $(,)?) => {
        const _: () = {
            struct Plugin;

            const NAMES: &[&str] = &[$(<$operator as $crate::private::Operator>::NAME),+];
            const _: () = $crate::private::assert_distinct(NAMES);

            const OPERATORS: &[&[$crate::private::ListedOperator]] =
                &[$(<$operator as $crate::private::Operator>::LISTED),+];

            impl $crate::private::Guest for Plugin {
                fn describe() -> $crate::private::Plugin {
                    $crate::private::plugin(
                        env!("CARGO_PKG_NAME"),
                        env!("CARGO_PKG_VERSION"),
                        env!("CARGO_PKG_DESCRIPTION"),
                        OPERATORS,
                    )
                }

                fn open(
                    operator: ::std::string::String,
                    arguments: ::std::vec::Vec<$crate::private::Argument>,
                ) -> ::core::result::Result<(), ::std::string::String> {
                    $crate::private::open(OPERATORS, &operator, arguments)
                }
            }

            #[cfg(target_family = "wasm")]
            $crate::__component!(
                Plugin,
                &[$(<$operator as $crate::private::Operator>::INTERFACES),+]
            );
        };
    };
}
