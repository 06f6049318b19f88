//! Expands `#[derive(Parameters)]`.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{DeriveInput, Expr, ExprLit, Field, Lit};

use crate::syntax;

pub fn expand(input: &DeriveInput) -> syn::Result<TokenStream> {
    let belongs = "this belongs to a field: `#[parameter(default = …)]`";
    syntax::refuse_on_type(input, "parameter", belongs)?;
    let fields = syntax::fields(input, "a set of parameters")?;
    if !input.generics.params.is_empty() {
        return Err(syn::Error::new(
            input.generics.span(),
            "parameters are kept between calls: they own their values and are not generic",
        ));
    }
    let ident = &input.ident;
    let idents = fields.iter().filter_map(|field| field.ident.as_ref());
    let mut descriptions = Vec::new();
    let mut values = Vec::new();
    for (field, ident) in fields.iter().zip(idents.clone()) {
        let name = syntax::name(ident);
        let doc = syntax::doc(&field.attrs);
        let value = &field.ty;
        let default = default(field)?;
        descriptions.push(quote_spanned! {value.span()=>
            private::describe_parameter::<#value>(#name, #doc, #default)
        });
        values.push(quote_spanned!(value.span()=> arguments.take::<#value>(#name, #default)?));
    }
    Ok(quote! {
        #[allow(unused_qualifications, reason = "the author may have the same in scope")]
        const _: () = {
            use ::sluicebox_sdk::private;

            #[automatically_derived]
            impl ::sluicebox_sdk::Parameters for #ident {
                fn describe() -> ::std::vec::Vec<private::Parameter> {
                    ::std::vec![#(#descriptions),*]
                }

                fn from_arguments(
                    arguments: &mut private::Arguments,
                ) -> ::core::result::Result<Self, ::std::string::String> {
                    let _ = &arguments;
                    ::core::result::Result::Ok(#ident {
                        #(#idents: #values,)*
                    })
                }
            }
        };
    })
}

/// The field's default as an `Option`.
fn default(field: &Field) -> syn::Result<TokenStream> {
    let mut default = None;
    for attribute in &field.attrs {
        if !attribute.path().is_ident("parameter") {
            continue;
        }
        attribute.parse_nested_meta(|meta| {
            if !meta.path.is_ident("default") {
                return Err(meta.error("expected `default = …`"));
            }
            default = Some(meta.value()?.parse::<Expr>()?);
            Ok(())
        })?;
    }
    Ok(match &default {
        Some(default) => {
            let default = owned(default);
            quote!(::core::option::Option::Some(#default))
        }
        None => quote!(::core::option::Option::None),
    })
}

/// Converts literal texts, and lists of them, to owned ones.
fn owned(default: &Expr) -> TokenStream {
    match default {
        Expr::Lit(ExprLit {
            lit: Lit::Str(text),
            ..
        }) => quote!(::std::string::String::from(#text)),
        Expr::Array(array) => {
            let elements = array.elems.iter().map(owned);
            quote!(::std::vec![#(#elements),*])
        }
        other => quote!(#other),
    }
}
