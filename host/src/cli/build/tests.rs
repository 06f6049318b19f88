use std::sync::Arc;

use super::*;
use crate::logic::{Kind, Module, OperatorInfo};

/// Refuses every plugin.
struct Strict;

impl Loader for Strict {
    fn load(&self, path: &Path) -> Result<Arc<dyn Module>, LoadError> {
        Err(LoadError(format!("{} is refused", path.display())))
    }
}

fn crate_with(manifest: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder for the test");
    fs::create_dir(folder.path().join("src")).expect("writable");
    fs::write(folder.path().join("src/lib.rs"), "").expect("writable");
    fs::write(folder.path().join("Cargo.toml"), manifest).expect("writable");
    folder
}

const PLUGIN: &str = "[package]\nname = \"shop-floor\"\nedition = \"2024\"\n\
    [lib]\ncrate-type = [\"cdylib\"]\n[workspace]\n";

#[test]
fn a_crate_is_found_from_inside_it() {
    let folder = crate_with(PLUGIN);
    let root = folder.path().canonicalize().expect("it is there");
    for inside in ["", "src", "src/lib.rs", "Cargo.toml"] {
        let package = find(&folder.path().join(inside)).expect("there is a crate");
        assert_eq!(
            (package.name.as_str(), &package.folder),
            ("shop-floor", &root)
        );
    }
}

/// Overflow checks are on unless the crate says otherwise.
#[test]
fn a_crate_decides_about_overflow_or_it_is_checked() {
    let decides = |profile: &str| {
        let folder = crate_with(&format!("{PLUGIN}{profile}"));
        let package = find(folder.path()).expect("there is a crate");
        package.overflow_checks
    };
    assert_eq!(decides(""), None);
    assert_eq!(decides("[profile.release]\nlto = true\n"), None);
    assert_eq!(decides("[profile.dev]\noverflow-checks = true\n"), None);
    let all = "[profile.release]\noverflow-checks = false\n";
    assert_eq!(decides(all), Some(false));
    let own = "[profile.release.package.shop-floor]\noverflow-checks = true\n";
    assert_eq!(decides(own), Some(true));
    assert_eq!(decides(&format!("{all}{own}")), Some(true));
    assert_eq!(decides(&own.replace("shop-floor", "other")), None);
}

/// However they are built: `make` builds them with cargo alone.
#[test]
fn overflow_is_checked_in_every_plugin_of_this_workspace() {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let metadata = metadata(&workspace.join("Cargo.toml")).expect("there is a workspace");
    let plugins = metadata.packages.iter().filter(|it| it.library().is_some());
    let unchecked: Vec<&str> = plugins
        .map(|plugin| plugin.name.as_str())
        .filter(|name| overflow_checks(&metadata.workspace_root, name) != Some(true))
        .collect();
    assert!(
        unchecked.is_empty(),
        "add them to [profile.release.package] in Cargo.toml: {unchecked:?}"
    );
}

#[test]
fn what_is_no_plugin_says_what_to_do() {
    let said = |path: &Path| match build(path, &Strict) {
        Ok(built) => panic!("{} was built", built.path.display()),
        Err(error) => error.to_string(),
    };
    assert!(said(Path::new("/nowhere")).contains("sluicebox new plugin"));

    let library = crate_with("[package]\nname = \"plain\"\n[workspace]\n");
    assert!(said(library.path()).contains("crate-type = [\"cdylib\", \"rlib\"]"));

    let broken = crate_with("[package]\nname = 1\n");
    assert!(said(broken.path()).contains("invalid type"));

    let workspace = crate_with("[workspace]\nmembers = [\"inner\"]\n");
    let inner = workspace.path().join("inner");
    fs::create_dir_all(inner.join("src")).expect("writable");
    fs::write(inner.join("src/lib.rs"), "").expect("writable");
    fs::write(
        inner.join("Cargo.toml"),
        PLUGIN.replace("[workspace]\n", ""),
    )
    .expect("writable");
    assert!(said(workspace.path()).contains("/inner`"));
}

#[test]
fn an_invalid_plugin_is_not_put_in_place() {
    let folder = crate_with(PLUGIN);
    let error = build(folder.path(), &Strict).expect_err("the loader refuses all");
    assert!(
        error
            .to_string()
            .starts_with("crate `shop-floor` builds, but is not a valid plugin: "),
        "{error}"
    );
    assert!(!folder.path().join("shop-floor.wasm").exists());
}

#[test]
fn a_built_plugin_is_shown_with_a_line_for_each_operator() {
    let operator = |name: &str, kind, doc: &str| OperatorInfo {
        doc: doc.to_owned(),
        ..OperatorInfo::new(name, kind, Vec::new(), Vec::new())
    };
    let built = Built {
        plugin: ModuleInfo {
            name: "shop".to_owned(),
            version: "1.2.3".to_owned(),
            doc: String::new(),
            operators: vec![
                operator(
                    "clean",
                    Kind::Filter,
                    "Takes out the bad ones.\n\nAll of them.",
                ),
                operator("revenue", Kind::Aggregate, ""),
            ],
        },
        path: "shop.wasm".into(),
        bytes: 1025,
        artifact: "shop_floor.wasm".into(),
    };
    expect_test::expect![[r#"
        shop.wasm (2 KiB): plugin shop 1.2.3
          clean    filter     Takes out the bad ones.
          revenue  aggregate"#]]
    .assert_eq(&built.to_string());
}
