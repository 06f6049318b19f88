//! The macros of `sluicebox-sdk`, which re-exports them.

/// Expands `#[operator]`.
mod operator;
/// Expands `#[derive(Parameters)]`.
mod parameters;
/// Expands `#[derive(Ports)]`.
mod ports;
/// Expands `#[derive(Record)]`.
mod record;
/// Expands `#[derive(Symbol)]`.
mod symbol;
/// Reads attributes, names and fields.
mod syntax;
/// Expands `world!`.
mod world;

use proc_macro::TokenStream;
use syn::parse_macro_input;

/// Makes a struct a row, or a part of one.
///
/// Its fields may borrow from the row that is read, with one lifetime. A field's column
/// has its name, or what `#[record(name = "…")]` says.
#[proc_macro_derive(Record, attributes(record))]
pub fn derive_record(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input);
    tokens(record::expand(&input))
}

/// Makes an enum without fields a text with a few possible values.
///
/// The text of a variant is its name in snake case, or what `#[symbol("…")]`
/// says.
#[proc_macro_derive(Symbol, attributes(symbol))]
pub fn derive_symbol(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input);
    tokens(symbol::expand(&input))
}

/// Makes a struct the parameters that a pipeline sets for an operator.
///
/// `#[parameter(default = …)]` on a field sets its default.
#[proc_macro_derive(Parameters, attributes(parameter))]
pub fn derive_parameters(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input);
    tokens(parameters::expand(&input))
}

/// Makes an enum the inputs or outputs of an operator.
///
/// Each variant is a port, and its only field is the record of that port. A port is named
/// after its variant, in snake case.
#[proc_macro_derive(Ports)]
pub fn derive_ports(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input);
    tokens(ports::expand(&input))
}

/// Makes an operator of a function, or of a struct.
///
/// | | |
/// |---|---|
/// | `#[operator]` on a function | a filter or map, or what makes rows of the pairs of a join |
/// | `#[operator]` | a struct that implements `Aggregate` |
/// | `#[operator(retracts)]` | one that implements `Retract` as well |
/// | `#[operator(process)]` | `Process` |
/// | `#[operator(process, retracts)]` | `TakeBack` as well |
/// | `#[operator(lookup)]` | `Lookup` |
/// | `#[operator(recommend)]` | `Recommender` |
///
/// A function takes a record and, optionally, a reference to its parameters.
/// Its return type decides whether it filters, maps or does both. The function
/// itself stays unchanged, with one exception: all lifetimes that its signature
/// leaves out become that of the row, so that
/// `fn f(row: Row<'_>, parameters: &P) -> Option<Out<'_>>` compiles.
///
/// The fields of a struct are the operator's parameters.
///
/// An aggregate or a process whose state has other fields than before says which states it
/// can go on from, with `#[operator(migrates(OldState))]`: see `Aggregate::State`.
///
/// The doc comment becomes the operator's description. The operator is named
/// after the function, or after the struct in snake case, unless
/// `#[operator(name = "…")]` says otherwise.
#[proc_macro_attribute]
pub fn operator(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let arguments = parse_macro_input!(arguments);
    let item = parse_macro_input!(item);
    tokens(operator::expand(&arguments, item))
}

/// The encoded bytes of a world in `wit/`, for `sluicebox-sdk` itself.
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
