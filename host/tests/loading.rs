//! Tests the messages for files that are not plugins: one sentence that says what to do.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

/// Plugins, built once.
mod common;

use std::path::Path;

use common::LOADER;
use expect_test::{Expect, expect};
use sluicebox::logic::Limits;
use sluicebox::logic::Loader;

/// Loads a file of these bytes; the message without the file's path.
fn check(bytes: &[u8], expected: Expect) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("it.wasm");
    std::fs::write(&path, bytes).unwrap();
    check_path(&path, expected);
}

fn check_path(path: &Path, expected: Expect) {
    let message = match LOADER.plugin(path) {
        Ok(plugin) => format!("loaded {}", plugin.inspect().name),
        Err(error) => error.to_string(),
    };
    expected.assert_eq(&message.replace(path.to_str().unwrap(), "it.wasm"));
}

fn cart() -> Vec<u8> {
    std::fs::read(common::plugin_file("cart")).unwrap()
}

/// The cart plugin with a name in it replaced by one that is as long.
fn cart_with(name: &str, replacement: &str) -> Vec<u8> {
    assert_eq!(name.len(), replacement.len());
    let mut bytes = cart();
    let mut replaced = 0;
    for at in 0..bytes.len() - name.len() {
        if bytes[at..].starts_with(name.as_bytes()) {
            bytes[at..at + name.len()].copy_from_slice(replacement.as_bytes());
            replaced += 1;
        }
    }
    assert!(replaced > 0, "{name} is not in the plugin");
    bytes
}

#[test]
fn files_that_are_no_components() {
    let folder = tempfile::tempdir().unwrap();
    check_path(
        &folder.path().join("missing.wasm"),
        expect!["plugin it.wasm does not exist; build it with `sluicebox build`"],
    );
    check_path(
        folder.path(),
        expect![
            "plugin it.wasm is a folder; give the .wasm file that `sluicebox build` makes in it"
        ],
    );
    check_path(
        Path::new("/dev/zero"),
        expect![
            "plugin it.wasm is not a regular file; give the .wasm file that `sluicebox build` makes"
        ],
    );
    let large = folder.path().join("large.wasm");
    std::fs::File::create(&large)
        .unwrap()
        .set_len((64 << 20) + 1)
        .unwrap();
    check_path(
        &large,
        expect![[
            r#"plugin it.wasm is 65 MiB large, and a plugin may have 64 MiB at most; build it with `sluicebox build`, and with `strip = "debuginfo"` in its [profile.release]"#
        ]],
    );
    check(
        b"",
        expect!["plugin it.wasm is empty; build it with `sluicebox build`"],
    );
    check(
        b"\0as",
        expect!["plugin it.wasm is cut short; copy or build it again"],
    );
    check(
        b"hello there, this is no Wasm",
        expect![
            "plugin it.wasm is not a Wasm component; give a .wasm file that `sluicebox build` made"
        ],
    );
    check(
        b"\0asm\x01\0\0\0",
        expect![
            "plugin it.wasm is a core Wasm module and not a component; build it with `sluicebox build`, or for the target wasm32-wasip2"
        ],
    );
    check(
        b"\0asm\x07\0\x01\0",
        expect![
            "plugin it.wasm is Wasm of an unknown version [07, 00, 01, 00]; build it with `sluicebox build`"
        ],
    );

    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut bytes = vec![0; 10_000];
    random.fill(&mut bytes);
    assert!(load(&bytes).is_err());
    bytes[..8].copy_from_slice(b"\0asm\x0d\0\x01\0");
    assert!(load(&bytes).is_err());
}

#[test]
fn broken_components() {
    let bytes = cart();
    check(
        &bytes[..8],
        expect![
            "plugin it.wasm is a component that exports nothing, and a plugin exports `sluicebox:plugin/operators@0.8.0`; use `sluicebox_sdk::export!`"
        ],
    );
    let cut = load(&bytes[..bytes.len() / 2]).unwrap_err();
    assert!(
        cut.contains("is cut short") && cut.contains("build it again"),
        "{cut}"
    );
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    // A plugin may still work with some of its bytes changed; the host must.
    for _ in 0..5 {
        let mut bytes = bytes.clone();
        for _ in 0..10 {
            let at = random.usize(8..bytes.len());
            bytes[at] = random.u8(..);
        }
        let _ = load(&bytes);
        let _ = load(&bytes[..random.usize(..bytes.len())]);
    }
}

fn load(bytes: &[u8]) -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("it.wasm");
    std::fs::write(&path, bytes).unwrap();
    match LOADER.plugin(&path) {
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

#[test]
fn components_that_are_no_plugins_of_this_host() {
    check(
        &cart_with(
            "sluicebox:plugin/operators@0.8.0",
            "sluicebox:puddle/operators@0.8.0",
        ),
        expect![
            "plugin it.wasm is a component but no Sluicebox plugin: it exports `sluicebox:plugin/aggregate@0.8.0`, `sluicebox:plugin/process@0.8.0`, `sluicebox:plugin/transform@0.8.0`, `sluicebox:puddle/operators@0.8.0`, and a plugin exports `sluicebox:plugin/operators@0.8.0`"
        ],
    );
    check(
        &cart_with("accumulate-each", "accumulate-some"),
        expect![
            "plugin it.wasm does not keep to the contract: `sluicebox:plugin/aggregate@0.8.0` lacks `accumulate-each`; build it again with the SDK of this version: `sluicebox new plugin` makes a folder `sluicebox-sdk`, which takes the place of the plugin's"
        ],
    );
    check(
        &cart_with(
            "sluicebox:plugin/aggregate@0.8.0",
            "sluicebox:puddle/aggregate@0.8.0",
        ),
        expect![
            "plugin it.wasm has an invalid description: operator `running_cart` is of the kind `aggregate`, and the plugin does not export `sluicebox:plugin/aggregate@0.8.0`, which operators of this kind are called through"
        ],
    );
    let message = load(&cart_with("wasi:cli/stderr@", "evil:net/socket@")).unwrap_err();
    assert!(message.contains("imports `evil:net/socket@"), "{message}");
    assert!(
        message.contains("which the host does not give; it may use"),
        "{message}"
    );
    check(
        &cart_with("running_cart", "running.cart"),
        expect![
            "plugin it.wasm has an invalid description: operator `running.cart`: only the stages of a recommender or look-up, and what migrates states, have a `.` in their name"
        ],
    );
}

/// The cart plugin with all of the contract's interfaces in another version.
fn cart_of(version: &str) -> Vec<u8> {
    let mut bytes = cart();
    let (package, ours) = (b"sluicebox:plugin/", "0.8.0");
    assert_eq!(version.len(), ours.len());
    let mut replaced = 0;
    for at in 0..bytes.len() - package.len() {
        if !bytes[at..].starts_with(package) {
            continue;
        }
        let name = &bytes[at + package.len()..];
        let letters = name.iter().take_while(|byte| byte.is_ascii_lowercase());
        let start = at + package.len() + letters.count() + 1;
        if bytes[start - 1..].starts_with(format!("@{ours}").as_bytes()) {
            bytes[start..start + version.len()].copy_from_slice(version.as_bytes());
            replaced += 1;
        }
    }
    assert!(replaced >= 4, "{replaced} names are not all interfaces");
    bytes
}

#[test]
fn a_plugin_of_another_contract_is_to_be_built_again() {
    check(
        &cart_of("0.2.0"),
        expect![
            "plugin it.wasm was built for version 0.2.0 of the contract between plugins and their host, and this host has version 0.8.0; build it again with the SDK of this version: `sluicebox new plugin` makes a folder `sluicebox-sdk`, which takes the place of the plugin's"
        ],
    );
    check(
        &cart_of("0.9.0"),
        expect![
            "plugin it.wasm was built for version 0.9.0 of the contract between plugins and their host, and this host has version 0.8.0; build it again with the SDK of this version: `sluicebox new plugin` makes a folder `sluicebox-sdk`, which takes the place of the plugin's, or use a newer Sluicebox"
        ],
    );
    // In a part of it.
    let part = cart_with("plugin/aggregate@0.8.0", "plugin/aggregate@0.1.0");
    let message = load(&part).unwrap_err();
    assert!(message.contains("was built for version 0.1.0"), "{message}");
}

#[test]
fn a_plugin_is_compiled_once_while_an_operator_of_it_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cart.wasm");
    let load = || {
        let module = LOADER.load(&path).unwrap();
        module
            .factory("adds", &[], Limits::default(), "adds")
            .unwrap()
    };
    std::fs::write(&path, cart()).unwrap();
    let first = load();
    let again = load();
    assert!(std::ptr::eq(first.info(), again.info()));

    // The same plugin in other bytes.
    std::fs::write(&path, cart_with("expected at most", "expected so much")).unwrap();
    let changed = load();
    assert!(!std::ptr::eq(first.info(), changed.info()));
    assert_ne!(first.digest(), changed.digest());
}
