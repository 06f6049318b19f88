//! The SDK's sources, which this binary carries: a new plugin gets them as a
//! folder of its own, so that it builds on any machine, against the contract of
//! this host.

/// The folder in a plugin's.
pub const FOLDER: &str = "sluicebox-sdk";

/// A file of the SDK: its path in the folder, and its text.
type File = (&'static str, &'static str);

macro_rules! files {
    ($($path:literal),+ $(,)?) => {
        &[$(($path, include_str!(concat!("../../../../sdk/", $path)))),+]
    };
}

/// All but the manifests; a test compares the list with the folder.
const SOURCES: &[File] = files![
    "derive/src/lib.rs",
    "derive/src/operator.rs",
    "derive/src/parameters.rs",
    "derive/src/ports.rs",
    "derive/src/record.rs",
    "derive/src/symbol.rs",
    "derive/src/syntax.rs",
    "derive/src/world.rs",
    "src/aggregate.rs",
    "src/aggregate/tests.rs",
    "src/bindings.rs",
    "src/calendar.rs",
    "src/decimal.rs",
    "src/instance.rs",
    "src/lib.rs",
    "src/log.rs",
    "src/lookup.rs",
    "src/lookup/identity.rs",
    "src/lookup/rows.rs",
    "src/lookup/stages.rs",
    "src/lookup/tests.rs",
    "src/migration.rs",
    "src/operator.rs",
    "src/operator/tests.rs",
    "src/outputs.rs",
    "src/parameters.rs",
    "src/ports.rs",
    "src/ports/two.rs",
    "src/process.rs",
    "src/process/one_key.rs",
    "src/process/stages.rs",
    "src/process/tests.rs",
    "src/process/timers.rs",
    "src/recommend.rs",
    "src/recommend/decay.rs",
    "src/recommend/rehearsal.rs",
    "src/recommend/rows.rs",
    "src/recommend/stages.rs",
    "src/recommend/tests.rs",
    "src/record.rs",
    "src/record/collection.rs",
    "src/record/columns.rs",
    "src/record/decimal.rs",
    "src/record/flag.rs",
    "src/record/joined.rs",
    "src/record/list.rs",
    "src/record/mapping.rs",
    "src/record/number.rs",
    "src/record/optional.rs",
    "src/record/rows.rs",
    "src/record/slice.rs",
    "src/record/slots.rs",
    "src/record/source.rs",
    "src/record/symbol.rs",
    "src/record/table.rs",
    "src/record/tests.rs",
    "src/record/text.rs",
    "src/record/unreadable.rs",
    "src/record/writer.rs",
    "src/refused.rs",
    "src/reject.rs",
    "src/text.rs",
    "src/text/short.rs",
    "src/time.rs",
    "src/transform.rs",
    "src/transform/tests.rs",
    "wit/plugin.wit",
];

const MANIFESTS: &[File] = files!["Cargo.toml", "derive/Cargo.toml"];

const LICENSE: &str = include_str!("../../../../LICENSE");

/// What the manifests inherit from.
const WORKSPACE: &str = include_str!("../../../../Cargo.toml");

/// Every file of the folder, with its path in it.
pub fn files() -> Vec<(&'static str, String)> {
    let mut files: Vec<_> = MANIFESTS
        .iter()
        .map(|(path, text)| (*path, standing_alone(text)))
        .collect();
    files.push(("LICENSE", LICENSE.to_owned()));
    files.extend(
        SOURCES
            .iter()
            .map(|(path, text)| (*path, (*text).to_owned())),
    );
    files
}

/// The manifest of a crate in this workspace, with the values that it inherits.
/// Lints are left out: they are for those who change the SDK.
fn standing_alone(manifest: &str) -> String {
    let own = "the manifests of this workspace are TOML";
    let workspace: toml::Table = WORKSPACE.parse().expect(own);
    let mut manifest: toml::Table = manifest.parse().expect(own);
    manifest.remove("lints");
    for (section, inherited) in [
        ("package", "package"),
        ("dependencies", "dependencies"),
        ("dev-dependencies", "dependencies"),
    ] {
        if let Some(toml::Value::Table(section)) = manifest.get_mut(section) {
            for (key, value) in section.iter_mut() {
                inherit(value, &workspace["workspace"][inherited], key);
            }
        }
    }
    let dependencies = manifest.get_mut("dependencies");
    if let Some(derive) = dependencies.and_then(|all| all.get_mut("sluicebox-sdk-derive")) {
        *derive = toml::Value::Table(toml::toml! { path = "derive" });
    }
    manifest.to_string()
}

/// Replaces `{ workspace = true, … }` by the workspace's value of `key`, to which
/// a crate can only add features.
fn inherit(value: &mut toml::Value, workspace: &toml::Value, key: &str) {
    let Some(mut added) = value.as_table().cloned() else {
        return;
    };
    if added.remove("workspace").is_none() {
        return;
    }
    let inherited = workspace[key].clone();
    *value = match inherited {
        _ if added.is_empty() => inherited,
        toml::Value::Table(mut inherited) => {
            inherited.extend(added);
            inherited.into()
        }
        version => {
            added.insert("version".to_owned(), version);
            added.into()
        }
    };
}
