//! Expands `#[derive(Symbol)]`. A few short texts are compared as numbers,
//! without branches; others by their length and then by a few loads.

use std::collections::BTreeMap;

use proc_macro2::{Literal, TokenStream};
use quote::quote;
use syn::spanned::Spanned;
use syn::{Data, DataEnum, DeriveInput, Fields, LitStr, Variant};

use crate::syntax;

pub fn expand(input: &DeriveInput) -> syn::Result<TokenStream> {
    let belongs = "this belongs to a value: `#[symbol(\"…\")]`";
    syntax::refuse_on_type(input, "symbol", belongs)?;
    let Data::Enum(data) = &input.data else {
        return Err(syn::Error::new(
            input.ident.span(),
            "a symbol is an enum; structs can have `#[derive(Record)]`",
        ));
    };
    if !input.generics.params.is_empty() {
        return Err(syn::Error::new(
            input.generics.span(),
            "a symbol's values are texts, it cannot be generic",
        ));
    }
    if data.variants.is_empty() {
        return Err(syn::Error::new(
            input.ident.span(),
            "a symbol has at least one value",
        ));
    }

    let mut texts: Vec<String> = Vec::new();
    let mut by_length: BTreeMap<usize, Vec<TokenStream>> = BTreeMap::new();
    for variant in &data.variants {
        let text = text(variant)?;
        if texts.contains(&text) {
            return Err(syn::Error::new(
                variant.span(),
                format!("two values have the text `{text}`"),
            ));
        }
        let ident = &variant.ident;
        let bytes = Literal::byte_string(text.as_bytes());
        by_length.entry(text.len()).or_default().push(quote! {
            if private::same(text, #bytes) {
                return ::core::option::Option::Some(Self::#ident);
            }
        });
        texts.push(text);
    }
    let symbol = &input.ident;
    let from_word = from_word(symbol, data, &texts);
    let idents: Vec<_> = data.variants.iter().map(|variant| &variant.ident).collect();
    let first = &texts[0];
    let lengths = by_length.keys();
    let comparisons = by_length
        .values()
        .map(|comparisons| quote!(#(#comparisons)*));

    Ok(quote! {
        #[allow(unused_qualifications, reason = "the author may have the same in scope")]
        const _: () = {
            use ::sluicebox_sdk::private;

            const TEXTS: &[&str] = &[#(#texts),*];

            impl #symbol {
                #from_word

                #[inline(always)]
                fn from_bytes(text: &[u8]) -> ::core::option::Option<Self> {
                    match text.len() {
                        #(#lengths => {
                            let text = text.first_chunk::<#lengths>()?;
                            #comparisons
                            ::core::option::Option::None
                        })*
                        _ => ::core::option::Option::None,
                    }
                }
            }

            #[automatically_derived]
            impl ::sluicebox_sdk::Symbol for #symbol {
                const TEXTS: &'static [&'static str] = TEXTS;

                #[inline]
                fn from_text(text: &str) -> ::core::option::Option<Self> {
                    Self::from_bytes(text.as_bytes())
                }

                #[inline]
                fn text(&self) -> &'static str {
                    match self {
                        #(Self::#idents => #texts,)*
                    }
                }
            }

            #[automatically_derived]
            impl<'row> ::sluicebox_sdk::Field<'row> for #symbol {
                type Reader = private::SymbolReader<'row>;
                type Writer = private::SliceWriter<'row, true>;

                fn describe(
                    name: &str,
                    doc: &str,
                    fields: &mut ::std::vec::Vec<private::SchemaField>,
                ) {
                    let texts = TEXTS.iter().map(|&text| ::std::string::String::from(text));
                    let own = private::FieldType::Symbol(texts.collect());
                    fields.push(private::schema_field(name, doc, own));
                }

                #[inline(always)]
                fn reader(
                    columns: &mut private::Columns<'row>,
                    rows: usize,
                ) -> private::SymbolReader<'row> {
                    private::SymbolReader::new(columns, rows)
                }

                #[inline(always)]
                unsafe fn read(
                    reader: &private::SymbolReader<'row>,
                    row: usize,
                ) -> ::core::result::Result<Self, private::Unreadable> {
                    // SAFETY: as the caller says.
                    let (word, text) = unsafe { reader.word(row) };
                    match Self::from_word(word, text) {
                        ::core::option::Option::Some(value) => ::core::result::Result::Ok(value),
                        ::core::option::Option::None => ::core::result::Result::Err(
                            private::Unreadable::symbol(TEXTS, text),
                        ),
                    }
                }

                #[inline(always)]
                unsafe fn write<S: private::Source<'row>>(
                    &self,
                    writer: &mut Self::Writer,
                    row: usize,
                    _name: &'static str,
                    _origin: private::Origin<'_, S>,
                    _passed: bool,
                ) {
                    let text = ::sluicebox_sdk::Symbol::text(self).as_bytes();
                    // SAFETY: as the caller says.
                    unsafe { writer.note(text, row) }
                }

                unsafe fn write_missing(writer: &mut Self::Writer, row: usize) {
                    // SAFETY: as the caller says.
                    unsafe { writer.note(#first.as_bytes(), row) }
                }
            }

            #[automatically_derived]
            impl ::sluicebox_sdk::Element<'_> for #symbol {}

            #[automatically_derived]
            impl ::sluicebox_sdk::ParameterType for #symbol {
                const TYPE: private::ValueType = private::ValueType::Text;

                fn from_value(
                    value: private::Value,
                ) -> ::core::result::Result<Self, ::std::string::String> {
                    private::symbol_parameter(value)
                }

                fn into_value(self) -> ::core::option::Option<private::Value> {
                    let text = ::sluicebox_sdk::Symbol::text(&self);
                    ::core::option::Option::Some(private::Value::Text(text.into()))
                }
            }
        };
    })
}

/// Reads a value, given the text's first eight bytes as a number.
///
/// The comparisons are summed to the value's index (from 1) and, in the higher
/// bits, the length of its text. A chain of conditions would compile to
/// branches that are as hard to predict as the data.
fn from_word(symbol: &syn::Ident, data: &DataEnum, texts: &[String]) -> TokenStream {
    const MANY: usize = 8;
    let fits = |text: &String| text.len() <= size_of::<u64>() && !text.contains('\0');
    if texts.len() > MANY || !texts.iter().all(fits) {
        return quote! {
            #[inline(always)]
            fn from_word(_word: u64, text: &[u8]) -> ::core::option::Option<Self> {
                Self::from_bytes(text)
            }
        };
    }
    let numbers = 1..=texts.len() as u32;
    let sums = texts.iter().zip(numbers).map(|(text, number)| {
        let length = text.len() as u32;
        length << 8 | number
    });
    let idents = data.variants.iter().map(|variant| &variant.ident);
    let count = texts.len();
    quote! {
        #[inline(always)]
        fn from_word(word: u64, text: &[u8]) -> ::core::option::Option<Self> {
            let mut sum = 0;
            #(
                let same = word == const { private::word(#texts.as_bytes()) };
                sum += #sums * u32::from(same);
            )*
            // A longer text with the same first eight bytes has another length.
            if sum == 0 || (sum >> 8) as usize != text.len() {
                return ::core::option::Option::None;
            }
            // A look-up table, since the compiler would merge a `match` with
            // the author's.
            static VALUES: [#symbol; #count] = [#(#symbol::#idents),*];
            let index = (sum & 0xff) as usize - 1;
            // SAFETY: each sum contains the index of a value, from 1; the
            // values of an enum without fields may be copied bit by bit.
            ::core::option::Option::Some(unsafe { VALUES.as_ptr().add(index).read() })
        }
    }
}

fn text(variant: &Variant) -> syn::Result<String> {
    if !matches!(variant.fields, Fields::Unit) {
        return Err(syn::Error::new(
            variant.span(),
            "a symbol's values have no fields: each is one text",
        ));
    }
    let given = variant
        .attrs
        .iter()
        .find(|attribute| attribute.path().is_ident("symbol"));
    match given {
        Some(attribute) => Ok(attribute.parse_args::<LitStr>()?.value()),
        None => Ok(syntax::snake_case(&variant.ident)),
    }
}
