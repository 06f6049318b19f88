//! Plugins of this workspace, built once for all tests of a run.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use sluicebox::plugin::PluginLoader;

/// Compiles each plugin once in a test program.
pub static LOADER: LazyLock<PluginLoader> =
    LazyLock::new(|| PluginLoader::new().expect("an engine for this machine"));

/// The `.wasm` file of one of this workspace's plugins.
pub fn plugin_file(name: &str) -> PathBuf {
    static BUILT: LazyLock<PathBuf> = LazyLock::new(build);
    BUILT.join(format!("{name}.wasm"))
}

fn build() -> PathBuf {
    let test = std::env::current_exe().expect("a path to this test");
    // <target>/release/deps/<test>
    let target = test.ancestors().nth(3).expect("a target folder");
    let status = Command::new(env!("CARGO"))
        .args(["build", "--release", "--target", "wasm32-wasip2"])
        .args(["-p", "cart", "-p", "basics", "-p", "hostile", "--target-dir"])
        .arg(target)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
        .status()
        .expect("cargo runs");
    assert!(
        status.success(),
        "the plugins do not build; is the target there? `rustup target add wasm32-wasip2`"
    );
    target.join("wasm32-wasip2").join("release")
}
