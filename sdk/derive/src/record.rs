//! Expands `#[derive(Record)]` to a reader and a writer with a part for each
//! field.

use proc_macro2::TokenStream;
use quote::{quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{DeriveInput, Field, GenericParam, Ident, Lifetime, LitStr, Type, parse_quote};

use crate::syntax;

pub fn expand(input: &DeriveInput) -> syn::Result<TokenStream> {
    let belongs = "this belongs to a field: `#[record(name = \"…\")]`";
    syntax::refuse_on_type(input, "record", belongs)?;
    let fields = syntax::fields(input, "a record")?;
    let row = lifetime(input)?;
    for field in &fields {
        refuse_static(&field.ty)?;
    }
    let record = &input.ident;
    let (_, generics, _) = input.generics.split_for_impl();

    let count = fields.len() as u32;
    let types: Vec<&Type> = fields.iter().map(|field| &field.ty).collect();
    let idents: Vec<_> = fields
        .iter()
        .filter_map(|field| field.ident.as_ref())
        .collect();
    let names = column_names(&fields)?;
    let docs: Vec<String> = fields
        .iter()
        .map(|field| syntax::doc(&field.attrs))
        .collect();
    let indexes: Vec<u32> = (0..fields.len() as u32).collect();
    let numbers = 0..fields.len();
    // Errors about a field's type should point at the type, so all tokens of a
    // path have its span.
    let parts = |item: &str| -> Vec<TokenStream> {
        let part = |field: &&Type| {
            let item = Ident::new(item, field.span());
            quote_spanned!(field.span()=> <#field as ::sluicebox_sdk::Field<#row>>::#item)
        };
        types.iter().map(part).collect()
    };
    let reader_types = parts("Reader");
    let writer_types = parts("Writer");
    let column_counts = parts("COLUMNS");
    let describe = parts("describe");
    let input = parts("input");
    let reader = parts("reader");
    let read = parts("read");
    let is_passed = parts("is_passed");
    let write = parts("write");
    let write_missing = parts("write_missing");

    Ok(quote! {
        #[allow(unused_qualifications, reason = "the author may have the same in scope")]
        #[allow(non_snake_case, reason = "the names are the author's, and reported in the struct")]
        const _: () = {
            use ::sluicebox_sdk::private;

            #[doc(hidden)]
            pub struct Reader<#row> {
                #(#idents: #reader_types,)*
                __row: ::core::marker::PhantomData<&#row ()>,
            }

            #[doc(hidden)]
            pub struct Writer<#row> {
                #(#idents: #writer_types,)*
                __row: ::core::marker::PhantomData<&#row ()>,
            }

            impl<#row> private::Source<#row> for Reader<#row> {
                #[inline(always)]
                fn input(&self, name: &str) -> ::core::option::Option<private::InputColumn<#row>> {
                    match name {
                        #(#names => #input(&self.#idents, #indexes),)*
                        _ => ::core::option::Option::None,
                    }
                }

                #[inline(always)]
                fn inputs(&self) -> ::std::vec::Vec<private::InputColumn<#row>> {
                    let inputs: [::core::option::Option<private::InputColumn<#row>>; _] =
                        [#(#input(&self.#idents, #indexes)),*];
                    ::core::iter::IntoIterator::into_iter(inputs).flatten().collect()
                }
            }

            impl<#row> ::core::default::Default for Writer<#row> {
                #[inline(always)]
                fn default() -> Self {
                    Writer {
                        #(#idents: ::core::default::Default::default(),)*
                        __row: ::core::marker::PhantomData,
                    }
                }
            }

            impl<#row> private::Writer<#row> for Writer<#row> {
                #[inline(always)]
                fn offer<S: private::Source<#row>>(&mut self, _name: &'static str, source: &S) {
                    let _ = source;
                    #(private::Writer::offer(&mut self.#idents, #names, source);)*
                }

                #[inline(always)]
                unsafe fn reserve(&mut self, used: usize, total: usize) {
                    // SAFETY: as the caller says, for each field.
                    #(unsafe { private::Writer::reserve(&mut self.#idents, used, total) };)*
                }

                unsafe fn settle(&mut self, rows: usize) {
                    // SAFETY: as the caller says, for each field.
                    #(unsafe { private::Writer::settle(&mut self.#idents, rows) };)*
                }

                #[inline(always)]
                unsafe fn finish(
                    self,
                    rows: usize,
                    lineage: private::Lineage<#row, '_>,
                    columns: &mut ::std::vec::Vec<private::Column>,
                ) {
                    // SAFETY: as the caller says, for each field.
                    #(unsafe { private::Writer::finish(self.#idents, rows, lineage, columns) };)*
                }
            }

            #[automatically_derived]
            impl<#row> ::sluicebox_sdk::Record<#row> for #record #generics {
                type Reader = Reader<#row>;
                type Writer = Writer<#row>;
                const COLUMNS: usize = 0 #(+ #column_counts)*;

                fn describe(fields: &mut ::std::vec::Vec<private::SchemaField>) {
                    #(#describe(#names, #docs, fields);)*
                }

                #[inline(always)]
                fn reader(columns: &mut private::Columns<#row>, rows: usize) -> Reader<#row> {
                    Reader {
                        #(#idents: #reader(columns, rows),)*
                        __row: ::core::marker::PhantomData,
                    }
                }

                #[inline(always)]
                unsafe fn read(
                    reader: &Reader<#row>,
                    row: usize,
                ) -> ::core::result::Result<Self, private::Unreadable> {
                    let _ = (reader, row);
                    ::core::result::Result::Ok(#record {
                        // SAFETY: as the caller says, for each field.
                        #(#idents: match unsafe { #read(&reader.#idents, row) } {
                            ::core::result::Result::Ok(value) => value,
                            ::core::result::Result::Err(cause) => {
                                return ::core::result::Result::Err(cause.within(#names));
                            }
                        },)*
                    })
                }

                #[inline(always)]
                unsafe fn write<S: private::Source<#row>>(
                    &self,
                    writer: &mut Writer<#row>,
                    row: usize,
                    origin: private::Origin<'_, S>,
                ) {
                    // SAFETY, here and below: as the caller says, for each field.
                    let passed: [bool; _] =
                        [#(unsafe { #is_passed(&self.#idents, #names, origin) }),*];
                    let _ = (&writer, row, origin, passed);
                    #(
                        let into = &mut writer.#idents;
                        let this = passed[#numbers];
                        unsafe { #write(&self.#idents, into, row, #names, origin, this) };
                    )*
                }

                unsafe fn write_missing(writer: &mut Writer<#row>, row: usize) {
                    // SAFETY: as the caller says, for each field.
                    #(unsafe { #write_missing(&mut writer.#idents, row) };)*
                }
            }

            #[automatically_derived]
            impl<#row> ::sluicebox_sdk::Field<#row> for #record #generics {
                type Reader = Reader<#row>;
                type Writer = private::RecordWriter<Writer<#row>>;
                const COLUMNS: usize = 1 + <Self as ::sluicebox_sdk::Record<#row>>::COLUMNS;

                fn describe(
                    name: &str,
                    doc: &str,
                    fields: &mut ::std::vec::Vec<private::SchemaField>,
                ) {
                    let own = private::FieldType::Record(#count);
                    fields.push(private::schema_field(name, doc, own));
                    <Self as ::sluicebox_sdk::Record<#row>>::describe(fields);
                }

                fn reader(columns: &mut private::Columns<#row>, rows: usize) -> Reader<#row> {
                    columns.record(rows);
                    <Self as ::sluicebox_sdk::Record<#row>>::reader(columns, rows)
                }

                #[inline(always)]
                unsafe fn read(
                    reader: &Reader<#row>,
                    row: usize,
                ) -> ::core::result::Result<Self, private::Unreadable> {
                    // SAFETY: as the caller says.
                    unsafe { <Self as ::sluicebox_sdk::Record<#row>>::read(reader, row) }
                }

                #[inline(always)]
                unsafe fn write<S: private::Source<#row>>(
                    &self,
                    writer: &mut Self::Writer,
                    row: usize,
                    _name: &'static str,
                    _origin: private::Origin<'_, S>,
                    _passed: bool,
                ) {
                    let (members, origin) = (&mut writer.0, private::Origin::NOWHERE);
                    // SAFETY: as the caller says.
                    unsafe { ::sluicebox_sdk::Record::write(self, members, row, origin) }
                }

                unsafe fn write_missing(writer: &mut Self::Writer, row: usize) {
                    let members = &mut writer.0;
                    // SAFETY: as the caller says.
                    unsafe { <Self as ::sluicebox_sdk::Record<#row>>::write_missing(members, row) }
                }
            }

            #[automatically_derived]
            impl<#row> ::sluicebox_sdk::Element<#row> for #record #generics {}

            #[automatically_derived]
            impl<#row> ::sluicebox_sdk::Outputs<#row> for #record #generics {
                type Row = Self;
                const AT_MOST_ONE: bool = true;

                #[inline(always)]
                fn each(self, mut take: impl FnMut(Self)) {
                    take(self);
                }
            }
        };
    })
}

/// The names of the columns: those of the fields, or `#[record(name = "InvoiceNo")]`.
fn column_names(fields: &[&Field]) -> syn::Result<Vec<String>> {
    let mut names: Vec<String> = Vec::new();
    for field in fields {
        let given = given_name(field)?;
        let name = match (&given, &field.ident) {
            (Some(given), _) => given.value(),
            (None, Some(ident)) => syntax::name(ident),
            (None, None) => String::new(),
        };
        let refuse = |message: &str| match &given {
            Some(given) => Err(syn::Error::new(given.span(), message)),
            None => Err(syn::Error::new(field.ident.span(), message)),
        };
        if name.is_empty() {
            return refuse("a column needs a name");
        }
        if names.contains(&name) {
            return refuse(&format!("two fields have the column `{name}`"));
        }
        names.push(name);
    }
    Ok(names)
}

/// The name in `#[record(name = "InvoiceNo")]`.
fn given_name(field: &Field) -> syn::Result<Option<LitStr>> {
    let mut given = None;
    for attribute in &field.attrs {
        if !attribute.path().is_ident("record") {
            continue;
        }
        attribute.parse_nested_meta(|meta| {
            if !meta.path.is_ident("name") {
                return Err(meta.error("expected `name = \"…\"`, the name of the column"));
            }
            if given.is_some() {
                return Err(meta.error("a field has one column, with one name"));
            }
            given = Some(meta.value()?.parse()?);
            Ok(())
        })?;
    }
    Ok(given)
}

/// Refuses `&'static` fields with a message that is clearer than rustc's: what
/// is read lives only as long as its row.
fn refuse_static(field: &Type) -> syn::Result<()> {
    match field {
        Type::Reference(reference)
            if let Some(lifetime) = &reference.lifetime
                && lifetime.ident == "static" =>
        {
            Err(syn::Error::new(
                field.span(),
                "a field borrows from the row, with a lifetime of the struct (`struct Row<'a> { \
                 field: &'a str }`); a constant can be stored in such a field too",
            ))
        }
        _ => Ok(()),
    }
}

/// The struct's lifetime, or a new one for the row.
fn lifetime(input: &DeriveInput) -> syn::Result<Lifetime> {
    let mut lifetime = None;
    for parameter in &input.generics.params {
        match parameter {
            GenericParam::Lifetime(parameter) if lifetime.is_none() => {
                lifetime = Some(parameter.lifetime.clone());
            }
            GenericParam::Lifetime(second) => {
                return Err(syn::Error::new(
                    second.span(),
                    "a record borrows from one row, with one lifetime",
                ));
            }
            other => {
                return Err(syn::Error::new(
                    other.span(),
                    "a record has a fixed schema and cannot be generic",
                ));
            }
        }
    }
    Ok(lifetime.unwrap_or_else(|| parse_quote!('row)))
}
