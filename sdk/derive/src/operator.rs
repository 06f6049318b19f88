//! Expands `#[operator]` to a type with the function's name, since types and
//! functions have separate namespaces; `export!` uses the type. The compiler
//! infers the schemas from the signature, so aliases and paths work.

use proc_macro2::{Group, Ident, Spacing, TokenStream, TokenTree};
use quote::{ToTokens, quote, quote_spanned};
use syn::parse::{Parse, ParseStream, Parser};
use syn::spanned::Spanned;
use syn::{
    DeriveInput, FnArg, GenericParam, Item, ItemFn, ItemStruct, Lifetime, LitStr, ReturnType,
    Token, Type, parenthesized, parse_quote,
};

use crate::{parameters, syntax};

/// The arguments of `#[operator(…)]`.
pub struct Arguments {
    name: Option<String>,
    /// What a struct is.
    role: Role,
    /// The states that earlier versions of it have kept, the newest first.
    migrates: Vec<Type>,
}

/// What a struct is, which the traits that it implements cannot tell the macro.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Aggregate,
    /// An aggregate that takes rows back.
    Retracting,
    Process,
    /// A process that takes rows back.
    RetractingProcess,
    Lookup,
    Recommender,
}

impl Role {
    /// Whether it is run as its stages.
    fn has_stages(self) -> bool {
        matches!(self, Role::Lookup | Role::Recommender)
    }
}

impl Parse for Arguments {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let mut name = None;
        let mut role = Role::Aggregate;
        let mut migrates = Vec::new();
        let parser = syn::meta::parser(|meta| {
            let named = match meta.path.get_ident() {
                Some(ident) if ident == "process" => Some(Role::Process),
                Some(ident) if ident == "lookup" => Some(Role::Lookup),
                Some(ident) if ident == "recommend" => Some(Role::Recommender),
                Some(ident) if ident == "retracts" => Some(Role::Retracting),
                _ => None,
            };
            if let Some(named) = named {
                role = match (role, named) {
                    (Role::Aggregate, named) => named,
                    (Role::Process, Role::Retracting) | (Role::Retracting, Role::Process) => {
                        Role::RetractingProcess
                    }
                    _ => {
                        return Err(meta.error(
                            "an operator is one thing: a process, a look-up, a recommender, or an \
                             aggregate; it and a process may take rows back",
                        ));
                    }
                };
                return Ok(());
            }
            if meta.path.is_ident("migrates") {
                let states;
                parenthesized!(states in meta.input);
                migrates.extend(states.parse_terminated(Type::parse, Token![,])?);
                return Ok(());
            }
            if !meta.path.is_ident("name") {
                return Err(meta.error(
                    "expected `process`, `lookup`, `recommend`, `retracts`, `migrates(…)` or \
                     `name = \"…\"`",
                ));
            }
            let text: LitStr = meta.value()?.parse()?;
            name = Some(checked_name(&text)?);
            Ok(())
        });
        let tokens: TokenStream = input.parse()?;
        parser.parse2(tokens)?;
        Ok(Arguments {
            name,
            role,
            migrates,
        })
    }
}

pub fn expand(arguments: &Arguments, item: Item) -> syn::Result<TokenStream> {
    if let Some(earlier) = arguments.migrates.first()
        && (matches!(item, Item::Fn(_)) || arguments.role.has_stages())
    {
        return Err(syn::Error::new(
            earlier.span(),
            "states of aggregates and processes are migrated",
        ));
    }
    match item {
        Item::Fn(function) => match arguments.role {
            Role::Aggregate => transform(arguments, function),
            Role::Retracting => Err(syn::Error::new(
                function.sig.ident.span(),
                "what takes rows back is a struct that implements `Aggregate` and `Retract`",
            )),
            Role::Process | Role::RetractingProcess => Err(syn::Error::new(
                function.sig.ident.span(),
                "a process is a struct that implements `Process`",
            )),
            Role::Lookup => Err(syn::Error::new(
                function.sig.ident.span(),
                "a look-up is a struct that implements `Lookup`",
            )),
            Role::Recommender => Err(syn::Error::new(
                function.sig.ident.span(),
                "a recommender is a struct that implements `Recommender`",
            )),
        },
        Item::Struct(stateful) => self::stateful(arguments, stateful),
        Item::Impl(other) => Err(syn::Error::new(
            other.span(),
            "`#[operator]` belongs to the struct that implements `Aggregate`, `Process`, `Lookup` \
             or `Recommender`",
        )),
        other => Err(syn::Error::new(
            other.span(),
            "an operator is a function, or a struct that implements `Aggregate`, `Process`, \
             `Lookup` or `Recommender`",
        )),
    }
}

fn transform(arguments: &Arguments, mut function: ItemFn) -> syn::Result<TokenStream> {
    let parameters = parameters(&function)?;
    if parameters.is_some() {
        name_lifetimes(&mut function);
    }

    let visibility = &function.vis;
    let ident = &function.sig.ident;
    let doc = syntax::doc(&function.attrs);
    let name = match &arguments.name {
        Some(name) => name.clone(),
        None => syntax::name(ident),
    };
    // Errors about the return type should point at it: the compiler checks it
    // against `Answer`.
    let answer = match &function.sig.output {
        ReturnType::Type(_, answer) => answer.span(),
        ReturnType::Default => ident.span(),
    };
    let call = match &parameters {
        Some(_) => quote!(#ident),
        None => quote_spanned!(answer=> |row, _parameters: &()| #ident(row)),
    };
    let parameters = match &parameters {
        Some(parameters) => quote!(#parameters),
        None => quote!(()),
    };
    // Errors about the row's type should point at it as well.
    let row = function
        .sig
        .inputs
        .first()
        .map_or(answer, |argument| match argument {
            FnArg::Typed(argument) => argument.ty.span(),
            FnArg::Receiver(receiver) => receiver.span(),
        });
    let with_record = quote_spanned!(row=> ::sluicebox_sdk::private::transform::with_record(#call));
    let shape = quote_spanned!(answer=> ::sluicebox_sdk::private::transform::shape(#with_record));
    let run = quote_spanned! {answer=>
        ::sluicebox_sdk::private::transform::run(
            &::sluicebox_sdk::private::Table::new(input),
            parameters,
            #call,
        )
    };

    Ok(quote! {
        #function

        #[doc(hidden)]
        #[allow(non_camel_case_types, reason = "named as the function that it stands for")]
        #visibility enum #ident {}

        #[automatically_derived]
        impl ::sluicebox_sdk::private::Operator for #ident {
            const NAME: &'static str = #name;
            const DOC: &'static str = #doc;
            const INTERFACES: &'static [::sluicebox_sdk::private::Interface] =
                &[::sluicebox_sdk::private::Interface::Transform];
            type Parameters = #parameters;

            fn shape() -> ::sluicebox_sdk::private::Shape {
                #shape
            }

            fn open(parameters: Self::Parameters) -> ::sluicebox_sdk::private::OpenResult {
                ::core::result::Result::Ok(
                    ::sluicebox_sdk::private::transform::open::<Self>(parameters),
                )
            }
        }

        #[automatically_derived]
        impl ::sluicebox_sdk::private::transform::Transform for #ident {
            fn transform(
                parameters: &Self::Parameters,
                input: &::sluicebox_sdk::private::Batch,
            ) -> ::sluicebox_sdk::private::Transformed {
                #run
            }
        }
    })
}

/// An aggregate, a process, a look-up or a recommender.
fn stateful(arguments: &Arguments, mut stateful: ItemStruct) -> syn::Result<TokenStream> {
    let parameters = parameters::expand(&DeriveInput::from(stateful.clone()))?;
    for field in &mut stateful.fields {
        field
            .attrs
            .retain(|attribute| !attribute.path().is_ident("parameter"));
    }
    let ident = &stateful.ident;
    let doc = syntax::doc(&stateful.attrs);
    let name = match &arguments.name {
        Some(name) => name.clone(),
        None => syntax::snake_case(ident),
    };
    let (interface, module) = match arguments.role {
        Role::Aggregate | Role::Retracting => (quote!(Aggregate), quote!(aggregate)),
        Role::Process | Role::RetractingProcess => (quote!(Process), quote!(process)),
        // They are run as processes.
        Role::Lookup => (quote!(Process), quote!(lookup)),
        Role::Recommender => (quote!(Process), quote!(recommend)),
    };
    let (shape, open) = match arguments.role {
        Role::Retracting | Role::RetractingProcess => {
            (quote!(shape_retracting), quote!(open_retracting))
        }
        _ => (quote!(shape), quote!(open)),
    };
    // An error about a missing implementation should point at the struct.
    let types = match arguments.role {
        // Whether it reads its key is inferred.
        Role::Aggregate | Role::Retracting => quote!(#ident, _),
        Role::Process | Role::RetractingProcess | Role::Lookup | Role::Recommender => {
            quote!(#ident)
        }
    };
    let shape = quote_spanned!(ident.span()=> private::#module::#shape::<#types>);
    let open = match arguments.role {
        Role::Lookup | Role::Recommender => quote!({
            let _ = stateful;
            ::core::result::Result::Err(::std::string::String::from(
                "it is run as its stages: one of these is opened",
            ))
        }),
        _ => {
            let open = quote_spanned!(ident.span()=> private::#module::#open::<#types>);
            quote!(::core::result::Result::Ok(#open(stateful)))
        }
    };
    let mut interfaces = vec![interface];
    if !arguments.migrates.is_empty() {
        interfaces.push(quote!(Transform));
    }
    let listed = listed(arguments, ident, &module, &types);

    Ok(quote! {
        #stateful

        #parameters

        #[allow(unused_qualifications, reason = "the author may have the same in scope")]
        const _: () = {
            use ::sluicebox_sdk::private;

            #[automatically_derived]
            impl private::Operator for #ident {
                const NAME: &'static str = #name;
                const DOC: &'static str = #doc;
                const INTERFACES: &'static [private::Interface] = &[#(private::Interface::#interfaces),*];
                type Parameters = Self;
                #listed

                fn shape() -> private::Shape {
                    #shape()
                }

                fn open(stateful: Self) -> private::OpenResult {
                    #open
                }
            }
        };
    })
}

/// What the plugin lists for the operator, if it is more than itself.
fn listed(
    arguments: &Arguments,
    ident: &Ident,
    module: &TokenStream,
    types: &TokenStream,
) -> Option<TokenStream> {
    if arguments.role.has_stages() {
        let listed = quote_spanned!(ident.span()=> private::#module::listed::<#ident>);
        return Some(quote! {
            const LISTED: &'static [private::ListedOperator] = &#listed();
        });
    }
    if arguments.migrates.is_empty() {
        return None;
    }
    let of = match arguments.role {
        Role::Process | Role::RetractingProcess => quote!(of_process),
        _ => quote!(of_aggregate),
    };
    let migrations = arguments.migrates.iter().zip(1..).map(|(earlier, number)| {
        let stage = format!("earlier_{number}");
        // An error about a missing `From` should point at the earlier state.
        quote_spanned!(earlier.span()=> private::migration::#of::<#types, #earlier>(#stage))
    });
    Some(quote! {
        const LISTED: &'static [private::ListedOperator] =
            &[private::ListedOperator::of::<#ident>(), #(#migrations),*];
    })
}

/// The type of the second argument, without its reference.
fn parameters(function: &ItemFn) -> syn::Result<Option<Type>> {
    let signature = &function.sig;
    let refuse =
        |tokens: &dyn ToTokens, message: &str| Err(syn::Error::new_spanned(tokens, message));
    if let Some(generic) = signature
        .generics
        .params
        .iter()
        .find(|parameter| !matches!(parameter, GenericParam::Lifetime(_)))
    {
        return refuse(
            generic,
            "an operator has fixed schemas and cannot be generic",
        );
    }
    if let Some(keyword) = &signature.asyncness {
        return refuse(
            keyword,
            "an operator computes and does not wait: it cannot be async",
        );
    }
    if let Some(keyword) = &signature.unsafety {
        return refuse(keyword, "an operator must be safe to call");
    }
    let wanted = "an operator takes a row and, if it has parameters, a reference to them: \
                  `fn name(row: Row<'_>, parameters: &Parameters)`";
    let types: Vec<&Type> = signature
        .inputs
        .iter()
        .map(|argument| match argument {
            FnArg::Typed(argument) => Ok(&*argument.ty),
            FnArg::Receiver(receiver) => Err(syn::Error::new_spanned(receiver, wanted)),
        })
        .collect::<syn::Result<_>>()?;
    match types.as_slice() {
        [_row] => Ok(None),
        [_row, Type::Reference(parameters)] if parameters.mutability.is_none() => {
            Ok(Some((*parameters.elem).clone()))
        }
        [] => refuse(&signature.ident, wanted),
        [_row, other] => refuse(other, wanted),
        [_row, _parameters, other, ..] => refuse(other, wanted),
    }
}

/// Names all lifetimes that a signature leaves out the same: with two
/// arguments, Rust cannot know which one the output borrows from.
fn name_lifetimes(function: &mut ItemFn) {
    let signature = &mut function.sig;
    if !signature.generics.params.is_empty() {
        return;
    }
    let row: Lifetime = parse_quote!('row);
    let named = |tokens: TokenStream| named_lifetimes(tokens, &row);
    let output = named(signature.output.to_token_stream());
    let inputs = signature.inputs.iter().map(|argument| match argument {
        FnArg::Typed(argument) => {
            let (pattern, ty) = (&argument.pat, named(argument.ty.to_token_stream()));
            quote!(#pattern: #ty)
        }
        receiver => receiver.to_token_stream(),
    });
    let inputs: Vec<TokenStream> = inputs.collect();
    signature.generics = parse_quote!(<#row>);
    signature.inputs = parse_quote!(#(#inputs),*);
    signature.output = parse_quote!(#output);
}

/// Replaces `&` and `'_` in types by `&'row` and `'row`.
fn named_lifetimes(tokens: TokenStream, row: &Lifetime) -> TokenStream {
    let mut named = TokenStream::new();
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        match token {
            TokenTree::Punct(quote) if quote.as_char() == '\'' => match tokens.next() {
                Some(TokenTree::Ident(ident)) if ident == "_" => row.to_tokens(&mut named),
                ident => named.extend([Some(TokenTree::Punct(quote)), ident].into_iter().flatten()),
            },
            TokenTree::Punct(reference) if reference.as_char() == '&' => {
                let joint = reference.spacing() == Spacing::Joint;
                named.extend([TokenTree::Punct(reference)]);
                let lifetime =
                    matches!(tokens.peek(), Some(TokenTree::Punct(next)) if next.as_char() == '\'');
                if !joint && !lifetime {
                    row.to_tokens(&mut named);
                }
            }
            TokenTree::Group(group) => {
                let mut inner = Group::new(group.delimiter(), named_lifetimes(group.stream(), row));
                inner.set_span(group.span());
                named.extend([TokenTree::Group(inner)]);
            }
            other => named.extend([other]),
        }
    }
    named
}

fn checked_name(text: &LitStr) -> syn::Result<String> {
    let name = text.value();
    let plain =
        |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_';
    match name.starts_with(|first: char| first.is_ascii_lowercase()) && name.chars().all(plain) {
        true => Ok(name),
        false => Err(syn::Error::new(
            text.span(),
            "an operator's name has lowercase letters, digits and `_`, and starts with a letter",
        )),
    }
}
