//! The contract's types and functions, as `wit/plugin.wit` gives them, and what
//! makes a component of them that exports only the kinds that a plugin has.
//!
//! The plugin's core module has the functions of every kind. Which of them the
//! component exports is decided by the worlds that its custom sections name: the
//! linker reads them all and takes their union, and drops the other functions.
//! So `__component!` writes one section for each kind, with the world of that
//! kind where the plugin has an operator of it, and with the world that all
//! plugins have where it does not. See `docs/decisions/0012`.
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
    world: "every-kind",
    pub_export_macro: true,
    export_macro_name: "export_every_kind",
    default_bindings_module: "sluicebox_sdk::bindings",
});

/// A kind's interface and its world, one line each.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Interface {
    Transform,
    Aggregate,
}

#[cfg(target_arch = "wasm32")]
impl Interface {
    const fn world(self) -> &'static [u8] {
        match self {
            Interface::Transform => sluicebox_sdk_derive::world!("transforms"),
            Interface::Aggregate => sluicebox_sdk_derive::world!("aggregates"),
        }
    }

    /// This interface's world if it is among those that a plugin has.
    pub const fn world_if_in(self, had: &[Interface]) -> &'static [u8] {
        let mut i = 0;
        while i < had.len() {
            if had[i] as u8 == self as u8 {
                return self.world();
            }
            i += 1;
        }
        sluicebox_sdk_derive::world!("plugin-base")
    }
}

/// A custom section is an array.
#[cfg(target_arch = "wasm32")]
pub const fn section<const N: usize>(world: &[u8]) -> [u8; N] {
    let mut section = [0; N];
    section.copy_from_slice(world);
    section
}

/// Exports the functions of every kind from the core module, and those of
/// `$interfaces` from the component. `$plugin` has the description, the rest is
/// the instance that was opened.
#[doc(hidden)]
#[macro_export]
macro_rules! __component {
    ($plugin:ident, $interfaces:expr) => {
        const _: () = {
            use $crate::bindings::exports::sluicebox::plugin as exports;
            use $crate::bindings::{Interface, section};
            use $crate::private::Opened;

            exports::operators::__export_sluicebox_plugin_operators_0_2_0_cabi!(
                $plugin with_types_in exports::operators
            );
            exports::transform::__export_sluicebox_plugin_transform_0_2_0_cabi!(
                Opened with_types_in exports::transform
            );
            exports::aggregate::__export_sluicebox_plugin_aggregate_0_2_0_cabi!(
                Opened with_types_in exports::aggregate
            );

            const TRANSFORM: &[u8] = Interface::Transform.world_if_in($interfaces);
            #[unsafe(link_section = "component-type:sluicebox:transform")]
            static TRANSFORM_SECTION: [u8; TRANSFORM.len()] = section(TRANSFORM);
            const AGGREGATE: &[u8] = Interface::Aggregate.world_if_in($interfaces);
            #[unsafe(link_section = "component-type:sluicebox:aggregate")]
            static AGGREGATE_SECTION: [u8; AGGREGATE.len()] = section(AGGREGATE);
        };
    };
}
