//! Code that must not compile, with a corrected version that must.
//!
//! A field of a type that columns do not have:
//! ```compile_fail
//! #[derive(sluicebox_sdk::Record)]
//! struct Row { n: u128 }
//! ```
//! ```
//! #[derive(sluicebox_sdk::Record)]
//! struct Row { n: u64 }
//! ```
//!
//! A field that is optional twice:
//! ```compile_fail
//! use sluicebox_sdk::prelude::*;
//! #[derive(Record)]
//! struct Row { n: Option<Option<u64>> }
//! #[operator]
//! fn keep(row: Row) -> bool { row.n.is_some() }
//! export!(keep);
//! # fn main() {
//! #     let _ = <Option<Option<u64>> as sluicebox_sdk::Field>::describe("", "", &mut Vec::new());
//! # }
//! ```
//!
//! A field without a name, a field that outlives its row, a generic record, and
//! an enum:
//! ```compile_fail
//! #[derive(sluicebox_sdk::Record)]
//! struct Row(u64);
//! ```
//! ```compile_fail
//! #[derive(sluicebox_sdk::Record)]
//! struct Row { text: &'static str }
//! ```
//! ```compile_fail
//! #[derive(sluicebox_sdk::Record)]
//! struct Row<T> { value: T }
//! ```
//! ```compile_fail
//! #[derive(sluicebox_sdk::Record)]
//! enum Action { Add, Remove }
//! ```
//! ```
//! #[derive(sluicebox_sdk::Symbol)]
//! enum Action { Add, Remove }
//! ```
//!
//! What keeps no state, and migrates some:
//! ```compile_fail
//! use sluicebox_sdk::prelude::*;
//! #[derive(Record)]
//! struct Row { n: u64 }
//! #[derive(Record)]
//! struct Before { count: u64 }
//! #[operator(migrates(Before))]
//! fn keep(row: Row) -> bool { row.n > 0 }
//! export!(keep);
//! ```
//! ```
//! use sluicebox_sdk::prelude::*;
//! #[derive(Record)]
//! struct Row { n: u64 }
//! #[operator]
//! fn keep(row: Row) -> bool { row.n > 0 }
//! export!(keep);
//! ```
//!
//! Columns with the same name, without one, and with another setting:
//! ```compile_fail
//! #[derive(sluicebox_sdk::Record)]
//! struct Row { a: u64, #[record(name = "a")] b: u64 }
//! ```
//! ```compile_fail
//! #[derive(sluicebox_sdk::Record)]
//! struct Row { #[record(name = "")] a: u64 }
//! ```
//! ```compile_fail
//! #[derive(sluicebox_sdk::Record)]
//! struct Row { #[record(rename = "b")] a: u64 }
//! ```
//! ```
//! #[derive(sluicebox_sdk::Record)]
//! struct Row { a: u64, #[record(name = "c")] b: u64 }
//! ```
//!
//! A setting of fields on their struct:
//! ```compile_fail
//! #[derive(sluicebox_sdk::Record)]
//! #[record(rename_all = "PascalCase")]
//! struct Row { a: u64 }
//! ```
//!
//! Two values with the same text:
//! ```compile_fail
//! #[derive(sluicebox_sdk::Symbol)]
//! enum Action { Add, #[symbol("add")] Plus }
//! ```
//!
//! Two operators with the same name:
//! ```compile_fail
//! use sluicebox_sdk::prelude::*;
//! #[derive(Record)]
//! struct Row { n: u64 }
//! #[operator]
//! fn keep(row: Row) -> bool { row.n > 0 }
//! mod other {
//!     use sluicebox_sdk::prelude::*;
//!     #[derive(Record)]
//!     pub struct Row { n: u64 }
//!     #[operator]
//!     pub fn keep(row: Row) -> bool { row.n > 1 }
//! }
//! export!(keep, other::keep);
//! ```
//! ```
//! use sluicebox_sdk::prelude::*;
//! #[derive(Record)]
//! struct Row { n: u64 }
//! #[operator]
//! fn keep(row: Row) -> bool { row.n > 0 }
//! mod other {
//!     use sluicebox_sdk::prelude::*;
//!     #[derive(Record)]
//!     pub struct Row { n: u64 }
//!     #[operator(name = "keep_more")]
//!     pub fn keep(row: Row) -> bool { row.n > 1 }
//! }
//! export!(keep, other::keep);
//! ```
//!
//! An operator that returns no row, takes no record, changes its parameters, or
//! implements nothing:
//! ```compile_fail
//! use sluicebox_sdk::prelude::*;
//! #[derive(Record)]
//! struct Row { n: u64 }
//! #[operator]
//! fn double(row: Row) -> u64 { row.n * 2 }
//! ```
//! ```compile_fail
//! use sluicebox_sdk::prelude::*;
//! #[operator]
//! fn positive(n: u64) -> bool { n > 0 }
//! ```
//! ```compile_fail
//! use sluicebox_sdk::prelude::*;
//! #[derive(Record)]
//! struct Row { n: u64 }
//! #[derive(Parameters)]
//! struct Settings { least: u64 }
//! #[operator]
//! fn keep(row: Row, settings: &mut Settings) -> bool { row.n > settings.least }
//! ```
//! ```
//! use sluicebox_sdk::prelude::*;
//! #[derive(Record)]
//! struct Row { n: u64 }
//! #[derive(Parameters)]
//! struct Settings { least: u64 }
//! #[operator]
//! fn keep(row: Row, settings: &Settings) -> bool { row.n > settings.least }
//! ```
//! ```compile_fail
//! use sluicebox_sdk::prelude::*;
//! #[operator]
//! struct Total;
//! ```
