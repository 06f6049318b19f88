//! The macros of `sluicebox-sdk`, which documents them where it re-exports them.

/// `#[operator]`.
mod operator;
/// `#[derive(Parameters)]`.
mod parameters;
/// `#[derive(Record)]`.
mod record;
/// `#[derive(Symbol)]`.
mod symbol;
/// What is read from attributes and names.
mod syntax;
/// `world!`.
mod world;

use proc_macro::TokenStream;
use syn::parse_macro_input;

/// Makes a struct a row, or a part of one.
///
/// The fields may borrow from the row that is read, with one lifetime.
#[proc_macro_derive(Record)]
pub fn derive_record(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input);
    tokens(record::expand(&input))
}

/// Makes an enum without fields a text that is one of a few.
///
/// `#[symbol("…")]` on a variant gives its text, instead of its name in snake
/// case.
#[proc_macro_derive(Symbol, attributes(symbol))]
pub fn derive_symbol(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input);
    tokens(symbol::expand(&input))
}

/// Makes a struct what a pipeline can set for an operator.
///
/// `#[parameter(default = …)]` on a field gives its default.
#[proc_macro_derive(Parameters, attributes(parameter))]
pub fn derive_parameters(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input);
    tokens(parameters::expand(&input))
}

/// Makes an operator of a function, or of a struct that implements `Aggregate`.
///
/// A function takes a record, and after it, if it likes, a reference to its
/// parameters. What it returns says whether it filters, maps or does both. The
/// function itself stays as it is, but for one convenience: lifetimes that its
/// signature leaves out are all the one of the row, so that
/// `fn f(row: Row<'_>, parameters: &P) -> Option<Out<'_>>` is understood.
///
/// The fields of a struct are the operator's parameters.
///
/// The doc comment is the operator's description, its name (of a struct: in
/// snake case) the operator's name, unless `#[operator(name = "…")]` gives
/// another.
#[proc_macro_attribute]
pub fn operator(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let arguments = parse_macro_input!(arguments);
    let item = parse_macro_input!(item);
    tokens(operator::expand(&arguments, item))
}

/// The bytes of a world of `wit/`, for `sluicebox-sdk` itself.
#[doc(hidden)]
#[proc_macro]
pub fn world(name: TokenStream) -> TokenStream {
    let name = parse_macro_input!(name);
    tokens(world::expand(&name))
}

fn tokens(expanded: syn::Result<proc_macro2::TokenStream>) -> TokenStream {
    expanded
        .unwrap_or_else(|error| error.into_compile_error())
        .into()
}
