//! Encodes a world of the SDK's WIT files, as components carry it in a custom
//! section.

use std::path::Path;

use proc_macro2::{Literal, TokenStream};
use quote::ToTokens;
use syn::LitStr;
use wit_component::StringEncoding;
use wit_parser::Resolve;

pub fn expand(name: &LitStr) -> syn::Result<TokenStream> {
    let encoded = encoded(&name.value())
        .map_err(|error| syn::Error::new(name.span(), format!("{error:#}")))?;
    Ok(Literal::byte_string(&encoded).into_token_stream())
}

fn encoded(name: &str) -> anyhow::Result<Vec<u8>> {
    let package = std::env::var("CARGO_MANIFEST_DIR")?;
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(Path::new(&package).join("wit"))?;
    let world = resolve.select_world(&[package], Some(name))?;
    wit_component::metadata::encode(&resolve, world, StringEncoding::UTF8, None)
}
