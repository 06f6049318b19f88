use std::fs;
use std::path::Path;

use expect_test::{Expect, expect};

use super::*;

fn refused(name: &str, expected: Expect) {
    let error = check_name(name).expect_err("this name must be refused");
    expected.assert_eq(&error.to_string());
}

fn read(folder: &Path, path: &str) -> String {
    fs::read_to_string(folder.join(path)).expect("the scaffold has this file")
}

#[test]
fn a_name_serves_crate_file_and_table() {
    for name in ["cart", "shop-2", "a_b", "x"] {
        assert!(check_name(name).is_ok(), "{name}");
    }
    refused("", expect!["`` cannot be a name: it is empty"]);
    refused(
        "My Plugin",
        expect![
            "`My Plugin` cannot be a name: it must start with a lower-case letter. How about `my-plugin`?"
        ],
    );
    refused(
        "cart.clean",
        expect![
            "`cart.clean` cannot be a name: `.` is not a lower-case letter, digit, `-` or `_`. How about `cart-clean`?"
        ],
    );
    refused(
        "../cart",
        expect![
            "`../cart` cannot be a name: it must start with a lower-case letter. How about `cart`?"
        ],
    );
    refused(
        "2fast",
        expect![
            "`2fast` cannot be a name: it must start with a lower-case letter. How about `fast`?"
        ],
    );
    refused(
        "test",
        expect!["`test` cannot be a name: it is reserved by Rust or cargo. How about `my-test`?"],
    );
    refused(
        "sluicebox_sdk",
        expect![
            "`sluicebox_sdk` cannot be a name: it is reserved by Rust or cargo. How about `my-sluicebox_sdk`?"
        ],
    );
    refused(
        "é",
        expect!["`é` cannot be a name: it must start with a lower-case letter"],
    );
    assert!(check_name(&"a".repeat(65)).is_err());
}

#[test]
fn a_plugin_is_filled_in_and_stands_alone() {
    let scratch = tempfile::tempdir().expect("a folder for the test");
    for kind in PluginKind::value_variants() {
        let folder = scratch.path().join(format!("{kind:?}"));
        let created = plugin("shop-floor", *kind, Some(&folder), None);
        let created = created.expect("nothing is in the way");
        let own = kind.templates();
        assert_eq!(created.files.len(), PLUGIN.len() + own.len() + 1);
        for (path, _) in PLUGIN.iter().chain(own) {
            let text = read(&folder, path);
            assert!(!text.contains("{{"), "{path} has a gap: {text}");
        }
        let input = format!("tests/first/input/{}.jsonl", kind.source());
        let expected = format!("tests/first/expected/{}.jsonl", kind.sink());
        assert!(folder.join(input).exists(), "{kind:?}");
        assert!(folder.join(expected).exists(), "{kind:?}");
    }
    let folder = scratch.path().join("Mixed");
    let manifest: toml::Table = read(&folder, "Cargo.toml").parse().expect("it is TOML");
    assert_eq!(manifest["package"]["name"].as_str(), Some("shop-floor"));
    assert!(manifest.contains_key("workspace"));
    assert_eq!(
        manifest["dependencies"]["sluicebox-sdk"]["path"].as_str(),
        Some("sluicebox-sdk")
    );
    assert!(folder.join("sluicebox-sdk/wit/plugin.wit").exists());
    let pipeline: toml::Table = read(&folder, "pipeline.toml").parse().expect("it is TOML");
    assert_eq!(
        pipeline["plugins"]["shop-floor"]["path"].as_str(),
        Some("shop-floor.wasm")
    );
}

#[test]
fn an_own_sdk_may_be_named() {
    let scratch = tempfile::tempdir().expect("a folder for the test");
    let folder = scratch.path().join("shop");
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sdk");
    plugin("shop", PluginKind::Mixed, Some(&folder), Some(&checkout))
        .expect("nothing is in the way");
    let manifest: toml::Table = read(&folder, "Cargo.toml").parse().expect("it is TOML");
    let path = manifest["dependencies"]["sluicebox-sdk"]["path"].as_str();
    let path = Path::new(path.expect("a path"));
    assert_eq!(path, checkout.canonicalize().expect("it exists"));
    assert!(!folder.join("sluicebox-sdk").exists());
}

#[test]
fn the_binary_carries_every_file_of_the_sdk() {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sdk");
    let carried = sdk::files();
    let mut carried: Vec<&str> = carried.iter().map(|(path, _)| *path).collect();
    carried.retain(|path| *path != "LICENSE");
    carried.sort_unstable();
    let mut found = Vec::new();
    let mut folders = vec![checkout.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("readable") {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let path = path.strip_prefix(&checkout).expect("it is in it");
                found.push(path.to_str().expect("UTF-8").to_owned());
            }
        }
    }
    found.sort_unstable();
    assert_eq!(carried, found, "update the list in new/sdk.rs");
}

#[test]
fn the_sdk_inherits_nothing() {
    let files = sdk::files();
    let manifest = |path| {
        let (_, text) = files.iter().find(|(known, _)| *known == path).expect(path);
        assert!(!text.contains("workspace"), "{text}");
        text.parse::<toml::Table>().expect("it is TOML")
    };
    let sdk = manifest("Cargo.toml");
    assert_eq!(
        sdk["package"]["version"].as_str(),
        Some(env!("CARGO_PKG_VERSION"))
    );
    assert_eq!(
        sdk["dependencies"]["sluicebox-sdk-derive"]["path"].as_str(),
        Some("derive")
    );
    let features = &sdk["dependencies"]["wit-bindgen"]["features"];
    assert!(features.as_array().is_some_and(|all| all.len() == 2));
    let derive = manifest("derive/Cargo.toml");
    assert!(derive["dependencies"]["syn"]["version"].is_str());
    assert_eq!(
        derive["dependencies"]["syn"]["features"][0].as_str(),
        Some("full")
    );
}

#[test]
fn a_pipeline_is_filled_in() {
    let scratch = tempfile::tempdir().expect("a folder for the test");
    let folder = scratch.path().join("orders");
    pipeline("orders", Some(&folder)).expect("nothing is in the way");
    for (path, _) in PIPELINE {
        assert!(!read(&folder, path).contains("{{"), "{path} has a gap");
    }
    let pipeline: toml::Table = read(&folder, "pipeline.toml").parse().expect("it is TOML");
    assert_eq!(pipeline["name"].as_str(), Some("orders"));
}

#[test]
fn an_existing_file_is_left_alone() {
    let scratch = tempfile::tempdir().expect("a folder for the test");
    let folder = scratch.path();
    fs::write(folder.join("README.md"), "mine").expect("writable");
    let error =
        plugin("shop", PluginKind::Mixed, Some(folder), None).expect_err("README.md is in the way");
    assert!(matches!(&error, NewError::Exists(path) if path.ends_with("README.md")));
    assert_eq!(read(folder, "README.md"), "mine");
    assert_eq!(fs::read_dir(folder).expect("readable").count(), 1);
}

#[test]
fn a_folder_without_the_sdk_is_refused() {
    let scratch = tempfile::tempdir().expect("a folder for the test");
    let refused = |expected: &str| {
        let folder = scratch.path().join("plugin");
        let error = plugin(
            "shop",
            PluginKind::Mixed,
            Some(&folder),
            Some(scratch.path()),
        )
        .expect_err("there is no SDK here")
        .to_string();
        assert!(error.contains(expected), "{error}");
        assert!(!folder.exists());
    };
    refused("Cargo.toml in it: No such file");
    fs::write(
        scratch.path().join("Cargo.toml"),
        "[package]\nname = \"other\"\n",
    )
    .expect("writable");
    refused("it contains `other`");
}
