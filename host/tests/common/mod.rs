//! Plugins of this workspace, built once for all tests of a run.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use sluicebox::plugin::PluginLoader;

const PLUGINS: [&str; 11] = [
    "behaviour",
    "campaign",
    "cart",
    "inventory",
    "monitoring",
    "notify",
    "recommend",
    "words",
    "basics",
    "hostile",
    "lawless",
];

/// Compiles each plugin once, also where the pipelines that use it come one after another.
pub static LOADER: LazyLock<PluginLoader> = LazyLock::new(|| {
    let loader = PluginLoader::new().expect("an engine for this machine");
    loader.with_user_cache()
});

/// The `.wasm` file of one of this workspace's plugins.
pub fn plugin_file(name: &str) -> PathBuf {
    static BUILT: LazyLock<Result<PathBuf, String>> = LazyLock::new(build);
    match &*BUILT {
        Ok(folder) => folder.join(format!("{name}.wasm")),
        Err(why) => panic!("{why}"),
    }
}

fn build() -> Result<PathBuf, String> {
    let test = std::env::current_exe().map_err(|error| error.to_string())?;
    // <target>/release/deps/<test>
    let target = test.ancestors().nth(3).ok_or("no target folder")?;
    let built = Command::new(env!("CARGO"))
        .args(["build", "--release", "--target", "wasm32-wasip2"])
        .args(PLUGINS.iter().flat_map(|plugin| ["-p", plugin]))
        .arg("--target-dir")
        .arg(target)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
        .output()
        .map_err(|error| format!("cargo does not run: {error}"))?;
    if !built.status.success() {
        let errors = String::from_utf8_lossy(&built.stderr);
        return Err(format!(
            "the plugins do not build; is the target there (`rustup target add \
             wasm32-wasip2`)?\n{errors}"
        ));
    }
    Ok(target.join("wasm32-wasip2").join("release"))
}
