//! Reads attributes, names and fields.

use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{
    Attribute, Data, DataStruct, DeriveInput, Expr, ExprLit, Field, Fields, Ident, Lit, Meta,
};

/// The text of doc comments, without the space that starts each line.
pub fn doc(attributes: &[Attribute]) -> String {
    let mut lines = Vec::new();
    for attribute in attributes {
        if !attribute.path().is_ident("doc") {
            continue;
        }
        if let Meta::NameValue(pair) = &attribute.meta
            && let Expr::Lit(ExprLit {
                lit: Lit::Str(text),
                ..
            }) = &pair.value
        {
            let text = text.value();
            for line in text.split('\n') {
                lines.push(line.strip_prefix(' ').unwrap_or(line).trim_end().to_owned());
            }
        }
    }
    lines.join("\n").trim().to_owned()
}

/// Refuses an attribute on a type that belongs to its fields or values.
pub fn refuse_on_type(input: &DeriveInput, attribute: &str, belongs: &str) -> syn::Result<()> {
    let mut attributes = input.attrs.iter();
    match attributes.find(|found| found.path().is_ident(attribute)) {
        Some(found) => Err(syn::Error::new(found.span(), belongs)),
        None => Ok(()),
    }
}

/// A field's name in the schema: `type` for `r#type`.
pub fn name(ident: &Ident) -> String {
    ident.unraw().to_string()
}

/// `add_to_cart` for `AddToCart`; a run of capitals is one word.
pub fn snake_case(ident: &Ident) -> String {
    let letters: Vec<char> = name(ident).chars().collect();
    let mut snake = String::new();
    for (i, &letter) in letters.iter().enumerate() {
        let before = i.checked_sub(1).map(|i| letters[i]);
        let starts_word = letter.is_uppercase()
            && before.is_some_and(|before| {
                let ends_run = letters.get(i + 1).is_some_and(|next| next.is_lowercase());
                before != '_' && (!before.is_uppercase() || ends_run)
            });
        if starts_word {
            snake.push('_');
        }
        snake.extend(letter.to_lowercase());
    }
    snake
}

/// The named fields of a struct; a unit struct has none.
pub fn fields<'a>(input: &'a DeriveInput, what: &str) -> syn::Result<Vec<&'a Field>> {
    let Data::Struct(DataStruct { fields, .. }) = &input.data else {
        let hint = match (&input.data, what) {
            (Data::Enum(_), "a record") => "; an enum without fields can have `#[derive(Symbol)]`",
            _ => "",
        };
        return Err(syn::Error::new(
            input.ident.span(),
            format!("{what} is a struct with named fields{hint}"),
        ));
    };
    match fields {
        Fields::Named(fields) => Ok(fields.named.iter().collect()),
        Fields::Unit => Ok(Vec::new()),
        Fields::Unnamed(_) => Err(syn::Error::new(
            input.ident.span(),
            format!("the fields of {what} have names, which pipelines use"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snake_case_keeps_words() {
        let check = |camel: &str, snake: &str| {
            let ident = Ident::new(camel, proc_macro2::Span::call_site());
            assert_eq!(snake_case(&ident), snake);
        };
        check("Add", "add");
        check("AddToCart", "add_to_cart");
        check("HTTPError", "http_error");
        check("Top10", "top10");
        check("already_snake", "already_snake");
    }

    #[test]
    fn doc_joins_lines() {
        let item: syn::ItemStruct = syn::parse_quote! {
            /// One.
            ///   Two.
            #[allow(unused)]
            /// Three.
            struct Item;
        };
        assert_eq!(doc(&item.attrs), "One.\n  Two.\nThree.");
    }
}
