//! The contract's types and functions, as `wit/plugin.wit` gives them.
#![allow(
    missing_docs,
    unused_qualifications,
    clippy::all,
    clippy::pedantic,
    clippy::restriction,
    reason = "generated from the WIT file"
)]

wit_bindgen::generate!({
    path: "wit",
    world: "guest",
    pub_export_macro: true,
    export_macro_name: "export_guest",
    default_bindings_module: "sluicebox_sdk::bindings",
});
