//! Expands `#[derive(Ports)]`.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::spanned::Spanned;
use syn::{Data, DeriveInput, Fields, GenericParam, Lifetime, Type, Variant, parse_quote};

use crate::syntax;

/// Readers and writers of ports are tuples, of which the standard library has defaults
/// up to this length.
const PORTS_MAX: usize = 12;

pub fn expand(input: &DeriveInput) -> syn::Result<TokenStream> {
    let ident = &input.ident;
    let Data::Enum(data) = &input.data else {
        return Err(syn::Error::new(
            ident.span(),
            "ports are an enum with a variant for each; a single port is a struct with \
             `#[derive(Record)]`",
        ));
    };
    let variants: Vec<&Variant> = data.variants.iter().collect();
    if variants.is_empty() || variants.len() > PORTS_MAX {
        return Err(syn::Error::new(
            ident.span(),
            format!("an operator has one to {PORTS_MAX} inputs, and as many outputs"),
        ));
    }
    let lifetime = lifetime(input)?;
    let (_, generics, _) = input.generics.split_for_impl();
    let records: Vec<&Type> = variants
        .iter()
        .map(|variant| record(variant))
        .collect::<syn::Result<_>>()?;
    let names = variants
        .iter()
        .map(|variant| syntax::snake_case(&variant.ident));
    let variants: Vec<_> = variants.iter().map(|variant| &variant.ident).collect();
    let numbers: Vec<syn::Index> = (0..variants.len()).map(syn::Index::from).collect();
    let ports = (0..variants.len()).collect::<Vec<usize>>();
    let rows = format_ident!("rows");

    Ok(quote! {
        #[allow(unused_qualifications, reason = "the author may have the same in scope")]
        const _: () = {
            use ::sluicebox_sdk::private;

            #[automatically_derived]
            impl<#lifetime> ::sluicebox_sdk::Ports<#lifetime> for #ident #generics {
                type Readers =
                    (#(<#records as ::sluicebox_sdk::Record<#lifetime>>::Reader,)*);
                type Writers = (#(private::ports::PortRows<#lifetime, #records>,)*);

                fn describe_ports() -> ::std::vec::Vec<private::ports::Port> {
                    ::std::vec![#(private::ports::port::<#records>(#names)),*]
                }

                fn read_ports(tables: &#lifetime [private::Table<#lifetime>]) -> Self::Readers {
                    (#(tables[#ports].reader::<#records>(),)*)
                }

                #[inline(always)]
                unsafe fn read_port(
                    readers: &Self::Readers,
                    port: usize,
                    row: usize,
                ) -> ::core::result::Result<Self, private::Unreadable> {
                    match port {
                        #(
                            // SAFETY: as the caller says.
                            #ports => unsafe {
                                <#records as ::sluicebox_sdk::Record<#lifetime>>::read(
                                    &readers.#numbers,
                                    row,
                                )
                            }
                            .map(#ident::#variants),
                        )*
                        _ => ::core::unreachable!("the caller asks for a port that there is"),
                    }
                }

                #[inline(always)]
                fn write_port(self, writers: &mut Self::Writers, step: u32, time_ms: i64) {
                    match self {
                        #(#ident::#variants(#rows) => {
                            writers.#numbers.put(&#rows, step, time_ms);
                        })*
                    }
                }

                fn finish_ports(writers: Self::Writers) -> ::std::vec::Vec<private::ports::Output> {
                    ::std::vec![#(writers.#numbers.finish()),*]
                }
            }
        };
    })
}

/// The record of a port.
fn record(variant: &Variant) -> syn::Result<&Type> {
    match &variant.fields {
        Fields::Unnamed(fields) if fields.unnamed.len() == 1 => Ok(&fields.unnamed[0].ty),
        _ => Err(syn::Error::new(
            variant.span(),
            "a port has one field, its record: `Requests(Request<'a>)`",
        )),
    }
}

/// The enum's lifetime, or a new one for the rows.
fn lifetime(input: &DeriveInput) -> syn::Result<Lifetime> {
    let mut parameters = input.generics.params.iter();
    let lifetime = match parameters.next() {
        None => parse_quote!('row),
        Some(GenericParam::Lifetime(parameter)) => parameter.lifetime.clone(),
        Some(other) => {
            return Err(syn::Error::new(
                other.span(),
                "ports have fixed schemas and cannot be generic",
            ));
        }
    };
    match parameters.next() {
        None => Ok(lifetime),
        Some(second) => Err(syn::Error::new(
            second.span(),
            "the records of ports borrow from one batch, with one lifetime",
        )),
    }
}
