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
    let folder = scratch.path().join("made/here");
    let created = plugin("shop-floor", Some(&folder), None).expect("nothing is in the way");
    assert_eq!(created.files.len(), PLUGIN.len());
    for (path, _) in PLUGIN {
        let text = read(&folder, path);
        assert!(!text.contains("{{"), "{path} has a gap: {text}");
    }
    let manifest: toml::Table = read(&folder, "Cargo.toml").parse().expect("it is TOML");
    assert_eq!(manifest["package"]["name"].as_str(), Some("shop-floor"));
    assert!(manifest.contains_key("workspace"));
    let sdk = manifest["dependencies"]["sluicebox-sdk"]["path"]
        .as_str()
        .expect("this checkout's SDK");
    assert!(Path::new(sdk).join("wit/plugin.wit").exists(), "{sdk}");
    let pipeline: toml::Table = read(&folder, "pipeline.toml").parse().expect("it is TOML");
    assert_eq!(
        pipeline["plugins"]["shop-floor"]["path"].as_str(),
        Some("shop-floor.wasm")
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
    let error = plugin("shop", Some(folder), None).expect_err("README.md is in the way");
    assert!(matches!(&error, NewError::Exists(path) if path.ends_with("README.md")));
    assert_eq!(read(folder, "README.md"), "mine");
    assert_eq!(fs::read_dir(folder).expect("readable").count(), 1);
}

#[test]
fn a_folder_without_the_sdk_is_refused() {
    let scratch = tempfile::tempdir().expect("a folder for the test");
    let refused = |expected: &str| {
        let folder = scratch.path().join("plugin");
        let error = plugin("shop", Some(&folder), Some(scratch.path()))
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
