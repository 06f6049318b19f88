//! Mistakes in single values. They are checked through the whole way from text
//! to plan, as a person meets them.

mod keys;
mod syntax;
mod types;
mod values;
mod windows;
