//! The types and functions of the contract, generated from `wit/plugin.wit`,
//! and the macro that exports only the kinds that a plugin has.
//!
//! The plugin's core module has the functions of every kind. The worlds in its
//! custom sections decide which of them the component exports: the linker takes
//! the union of the worlds, and drops all other functions. So `__component!`
//! writes one section for each kind: with the world of that kind if the plugin
//! has an operator of it, else with the world that all plugins have. See
//! `docs/decisions/0012`.
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

/// The interface of each kind, and its world.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Interface {
    Transform,
    Aggregate,
    Process,
}

#[cfg(target_arch = "wasm32")]
impl Interface {
    const fn world(self) -> &'static [u8] {
        match self {
            Interface::Transform => sluicebox_sdk_derive::world!("transforms"),
            Interface::Aggregate => sluicebox_sdk_derive::world!("aggregates"),
            Interface::Process => sluicebox_sdk_derive::world!("processes"),
        }
    }

    /// This interface's world if it is in `had`, else the one that all plugins
    /// have.
    pub const fn world_if_in(self, had: &[&[Interface]]) -> &'static [u8] {
        let mut i = 0;
        while i < had.len() {
            let mut j = 0;
            while j < had[i].len() {
                if had[i][j] as u8 == self as u8 {
                    return self.world();
                }
                j += 1;
            }
            i += 1;
        }
        sluicebox_sdk_derive::world!("plugin-base")
    }
}

/// Copies a world's bytes to an array, which a custom section has to be.
#[cfg(target_arch = "wasm32")]
pub const fn section<const N: usize>(world: &[u8]) -> [u8; N] {
    let mut section = [0; N];
    section.copy_from_slice(world);
    section
}

/// Exports the functions of every kind from the core module, and those of
/// `$interfaces` from the component. `$plugin` implements `describe` and
/// `open`; other calls go to the opened instance.
#[doc(hidden)]
#[macro_export]
macro_rules! __component {
    ($plugin:ident, $interfaces:expr) => {
        const _: () = {
            use $crate::bindings::exports::sluicebox::plugin as exports;
            use $crate::bindings::{Interface, section};
            use $crate::private::Opened;

            exports::operators::__export_sluicebox_plugin_operators_0_8_0_cabi!(
                $plugin with_types_in exports::operators
            );
            exports::transform::__export_sluicebox_plugin_transform_0_8_0_cabi!(
                Opened with_types_in exports::transform
            );
            exports::aggregate::__export_sluicebox_plugin_aggregate_0_8_0_cabi!(
                Opened with_types_in exports::aggregate
            );
            exports::process::__export_sluicebox_plugin_process_0_8_0_cabi!(
                Opened with_types_in exports::process
            );

            const TRANSFORM: &[u8] = Interface::Transform.world_if_in($interfaces);
            #[unsafe(link_section = "component-type:sluicebox:transform")]
            static TRANSFORM_SECTION: [u8; TRANSFORM.len()] = section(TRANSFORM);
            const AGGREGATE: &[u8] = Interface::Aggregate.world_if_in($interfaces);
            #[unsafe(link_section = "component-type:sluicebox:aggregate")]
            static AGGREGATE_SECTION: [u8; AGGREGATE.len()] = section(AGGREGATE);
            const PROCESS: &[u8] = Interface::Process.world_if_in($interfaces);
            #[unsafe(link_section = "component-type:sluicebox:process")]
            static PROCESS_SECTION: [u8; PROCESS.len()] = section(PROCESS);
        };
    };
}
