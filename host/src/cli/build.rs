//! Builds a plugin's crate into the `.wasm` file that pipelines name: cargo
//! builds it, the loader checks it, and only a valid plugin is put in place.

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Deserialize;

use crate::logic::{LoadError, Loader, ModuleInfo};
use crate::paths::here_if_empty;

const TARGET: &str = "wasm32-wasip2";

/// A plugin that was built and checked.
#[derive(Clone, Debug)]
pub struct Built {
    pub plugin: ModuleInfo,
    /// `NAME.wasm` beside the crate's Cargo.toml.
    pub path: PathBuf,
    pub bytes: u64,
    /// What cargo has built: a file with the extension `d` beside it lists of what.
    pub artifact: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error(
        "there is no Cargo.toml in `{}` or above it. Name the folder of a plugin's crate, \
         or create one: `sluicebox new plugin NAME`", .0.display()
    )]
    NoCrate(PathBuf),
    #[error("`{}` is a workspace, not a plugin. Name one of its crates: {}", .manifest.display(), listed(.plugins))]
    Workspace {
        manifest: PathBuf,
        plugins: Vec<PathBuf>,
    },
    #[error(
        "crate `{name}` is not a plugin: it builds no cdylib. Put this into {}:\n\n\
         [lib]\ncrate-type = [\"cdylib\", \"rlib\"]", .manifest.display()
    )]
    NoLibrary { name: String, manifest: PathBuf },
    #[error("this Rust cannot build plugins yet. Add the target with: rustup target add {TARGET}")]
    NoTarget,
    #[error("cannot run `{program}`: {cause}. Install Rust with rustup, or put it on the PATH")]
    Program { program: String, cause: io::Error },
    #[error("cargo cannot read `{}`:\n{message}", .manifest.display())]
    Metadata { manifest: PathBuf, message: String },
    #[error("crate `{name}` does not build; see above")]
    Failed { name: String },
    #[error(
        "cargo built crate `{name}` and named no .wasm file: this is a bug in Sluicebox, or cargo is newer than it knows"
    )]
    NoArtifact { name: String },
    #[error("crate `{name}` builds, but is not a valid plugin: {cause}")]
    Unusable { name: String, cause: LoadError },
    #[error("cannot put the plugin at `{}`: {cause}", .path.display())]
    Place { path: PathBuf, cause: io::Error },
}

impl BuildError {
    /// Whether what was named is not the crate of a plugin.
    pub fn is_wrong_usage(&self) -> bool {
        matches!(
            self,
            BuildError::NoCrate(_) | BuildError::Workspace { .. } | BuildError::NoLibrary { .. }
        )
    }
}

/// Builds the crate at `path` (its folder, a folder in it, or its Cargo.toml).
/// Cargo's messages go to stderr.
pub fn build(path: &Path, loader: &dyn Loader) -> Result<Built, BuildError> {
    let package = find(path)?;
    check_target(&package.folder)?;
    package.build(loader, &Cargo::default())
}

/// A plugin's crate.
#[derive(Clone, Debug)]
pub struct Package {
    pub name: String,
    pub manifest: PathBuf,
    pub folder: PathBuf,
    /// The first file of its source.
    pub library: PathBuf,
    /// Whether numbers that overflow are noticed, if its workspace says so.
    overflow_checks: Option<bool>,
}

impl Package {
    /// The crate that [`build`] makes the file `plugin` of; `None` if there is no such crate.
    pub fn of_plugin(plugin: &Path) -> Result<Option<Package>, BuildError> {
        let folder = plugin.parent().map_or(Path::new("."), here_if_empty);
        if !folder.join("Cargo.toml").is_file() {
            return Ok(None);
        }
        let package = match find(folder) {
            Ok(package) => package,
            Err(error) if error.is_wrong_usage() => return Ok(None),
            Err(error) => return Err(error),
        };
        let is_placed = package.placed().file_name() == plugin.file_name();
        Ok(is_placed.then_some(package))
    }

    /// Where its plugin is put.
    fn placed(&self) -> PathBuf {
        self.folder.join(format!("{}.wasm", self.name))
    }

    /// Builds it, and puts the plugin in its place if it is valid.
    pub fn build(&self, loader: &dyn Loader, cargo: &Cargo) -> Result<Built, BuildError> {
        let artifact = compile(self, cargo)?;
        let module = loader
            .load(&artifact)
            .map_err(|cause| BuildError::Unusable {
                name: self.name.clone(),
                cause,
            })?;
        let placed = self.placed();
        let bytes = place(&artifact, &placed).map_err(|cause| BuildError::Place {
            path: placed.clone(),
            cause,
        })?;
        Ok(Built {
            plugin: module.info().clone(),
            path: placed,
            bytes,
            artifact,
        })
    }
}

/// Runs cargo.
#[derive(Debug, Default)]
pub struct Cargo {
    /// Whether it can be ended with all that it has started, and is not by Ctrl-C.
    can_be_ended: bool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The number of the process and of its group, while it runs.
    process: Option<i32>,
    is_ended: bool,
}

impl Cargo {
    /// One that [`Cargo::end`] ends.
    pub fn to_be_ended() -> Self {
        Cargo {
            can_be_ended: true,
            ..Cargo::default()
        }
    }

    /// Ends a build, and all that begin later.
    pub fn end(&self) {
        let mut state = self.lock();
        state.is_ended = true;
        if let Some(process) = state.process.filter(|_| self.can_be_ended) {
            // SAFETY: it only sends a signal, to the group of a process of ours that was not
            // waited for yet.
            unsafe { libc::kill(-process, libc::SIGTERM) };
        }
    }

    /// Runs a build to its end, and returns what it prints to stdout.
    fn run(&self, command: &mut Command) -> io::Result<Output> {
        let mut child = {
            let mut state = self.lock();
            if state.is_ended {
                return Err(io::Error::from(io::ErrorKind::Interrupted));
            }
            if self.can_be_ended {
                command.process_group(0);
            }
            let child = command.stdout(Stdio::piped()).spawn()?;
            state.process = Some(child.id() as i32);
            child
        };
        let mut stdout = Vec::new();
        let read = child
            .stdout
            .take()
            .map(|mut out| out.read_to_end(&mut stdout));
        let mut state = self.lock();
        // From here on, another process may get the number.
        let status = child.wait();
        state.process = None;
        read.transpose()?;
        Ok(Output {
            status: status?,
            stdout,
            stderr: Vec::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves no change half made.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The parts of `cargo metadata` that are used.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<MetadataPackage>,
    workspace_root: PathBuf,
}

#[derive(Deserialize)]
struct MetadataPackage {
    name: String,
    manifest_path: PathBuf,
    targets: Vec<MetadataTarget>,
}

#[derive(Deserialize)]
struct MetadataTarget {
    crate_types: Vec<String>,
    src_path: PathBuf,
}

/// A line that `cargo build` prints as JSON.
#[derive(Deserialize)]
struct Message {
    reason: String,
    #[serde(default)]
    manifest_path: PathBuf,
    #[serde(default)]
    filenames: Vec<PathBuf>,
}

fn find(path: &Path) -> Result<Package, BuildError> {
    let manifest = manifest_of(path).ok_or_else(|| BuildError::NoCrate(path.to_owned()))?;
    let metadata = metadata(&manifest)?;
    let plugins = metadata
        .packages
        .iter()
        .filter(|package| package.library().is_some());
    let Some(package) = metadata
        .packages
        .iter()
        .find(|package| package.manifest_path == manifest)
    else {
        let plugins = plugins
            .filter_map(|package| package.manifest_path.parent())
            .map(Path::to_owned)
            .collect();
        return Err(BuildError::Workspace { manifest, plugins });
    };
    let Some(library) = package.library() else {
        return Err(BuildError::NoLibrary {
            name: package.name.clone(),
            manifest,
        });
    };
    let library = library.src_path.clone();
    let folder = manifest.parent().unwrap_or(Path::new("/")).to_owned();
    Ok(Package {
        name: package.name.clone(),
        overflow_checks: overflow_checks(&metadata.workspace_root, &package.name),
        manifest,
        folder,
        library,
    })
}

/// What the release profile of a workspace says about `overflow-checks`, for this package
/// or for all.
fn overflow_checks(workspace: &Path, package: &str) -> Option<bool> {
    let manifest = fs::read_to_string(workspace.join("Cargo.toml")).ok()?;
    let manifest: toml::Table = toml::from_str(&manifest).ok()?;
    let release = manifest.get("profile")?.get("release")?;
    let of_package = release.get("package").and_then(|all| all.get(package));
    let profiles = [of_package, Some(release)].into_iter().flatten();
    let mut checks = profiles.filter_map(|profile| profile.get("overflow-checks"));
    checks.next()?.as_bool()
}

impl MetadataPackage {
    /// Its plugin, if it is one.
    fn library(&self) -> Option<&MetadataTarget> {
        let is_plugin = |target: &&MetadataTarget| {
            let mut types = target.crate_types.iter();
            types.any(|crate_type| crate_type == "cdylib")
        };
        self.targets.iter().find(is_plugin)
    }
}

fn manifest_of(path: &Path) -> Option<PathBuf> {
    let path = path.canonicalize().ok()?;
    let folder = if path.is_dir() { &path } else { path.parent()? };
    folder
        .ancestors()
        .map(|folder| folder.join("Cargo.toml"))
        .find(|manifest| manifest.is_file())
}

fn metadata(manifest: &Path) -> Result<Metadata, BuildError> {
    let refuse = |message: String| BuildError::Metadata {
        manifest: manifest.to_owned(),
        message,
    };
    // Without `--no-deps`, cargo would need the dependencies of every platform.
    let output = output(
        cargo()
            .args(["metadata", "--no-deps", "--format-version", "1"])
            .arg("--manifest-path")
            .arg(manifest),
    )?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr);
        return Err(refuse(message.trim_end().to_owned()));
    }
    serde_json::from_slice(&output.stdout).map_err(|cause| refuse(cause.to_string()))
}

/// Runs in the crate's folder, where a toolchain file may select another Rust.
pub fn check_target(folder: &Path) -> Result<(), BuildError> {
    let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or("rustc".into()));
    let output = output(
        rustc
            .args(["--print", "target-libdir", "--target", TARGET])
            .current_dir(folder)
            .stdin(Stdio::null()),
    )?;
    let libraries = String::from_utf8_lossy(&output.stdout);
    if output.status.success() && Path::new(libraries.trim_end()).is_dir() {
        Ok(())
    } else {
        Err(BuildError::NoTarget)
    }
}

fn compile(package: &Package, running: &Cargo) -> Result<PathBuf, BuildError> {
    let mut cargo = cargo();
    if package.overflow_checks.is_none() {
        // A row whose numbers overflow is a dead letter, not a wrong result, also where a
        // crate that the plugin uses computes with them.
        cargo.args(["--config", "profile.release.overflow-checks=true"]);
    }
    cargo
        .args(["build", "--release", "--target", TARGET])
        .arg("--message-format=json-render-diagnostics")
        .args(["--package", &package.name, "--manifest-path"])
        .arg(&package.manifest)
        .current_dir(&package.folder)
        .stderr(Stdio::inherit());
    let output = running.run(&mut cargo);
    let output = output.map_err(|cause| cannot_run(&cargo, cause))?;
    if !output.status.success() {
        return Err(BuildError::Failed {
            name: package.name.clone(),
        });
    }
    output
        .stdout
        .split(|&byte| byte == b'\n')
        .filter_map(|line| serde_json::from_slice::<Message>(line).ok())
        .filter(|message| {
            message.reason == "compiler-artifact" && message.manifest_path == package.manifest
        })
        .flat_map(|message| message.filenames)
        .find(|file| {
            file.extension()
                .is_some_and(|extension| extension == "wasm")
        })
        .ok_or_else(|| BuildError::NoArtifact {
            name: package.name.clone(),
        })
}

/// Copies the plugin beside its place and renames it, so that nothing ever
/// reads half a plugin.
fn place(artifact: &Path, placed: &Path) -> io::Result<u64> {
    let beside = placed.with_extension("wasm.new");
    let bytes = fs::copy(artifact, &beside)?;
    fs::rename(&beside, placed)?;
    Ok(bytes)
}

fn cargo() -> Command {
    let mut cargo = Command::new(program());
    cargo.stdin(Stdio::null());
    cargo
}

fn program() -> OsString {
    std::env::var_os("CARGO").unwrap_or("cargo".into())
}

fn output(command: &mut Command) -> Result<Output, BuildError> {
    let output = command.output();
    output.map_err(|cause| cannot_run(command, cause))
}

fn cannot_run(command: &Command, cause: io::Error) -> BuildError {
    BuildError::Program {
        program: command.get_program().to_string_lossy().into_owned(),
        cause,
    }
}

fn listed(plugins: &[PathBuf]) -> String {
    if plugins.is_empty() {
        return "none of them builds a cdylib".to_owned();
    }
    let names: Vec<String> = plugins
        .iter()
        .map(|plugin| format!("`{}`", plugin.display()))
        .collect();
    names.join(", ")
}

impl fmt::Display for Built {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ModuleInfo {
            name,
            version,
            operators,
            ..
        } = &self.plugin;
        let kibibytes = self.bytes.div_ceil(1024);
        write!(
            f,
            "{} ({kibibytes} KiB): plugin {name} {version}",
            self.path.display()
        )?;
        let width = operators
            .iter()
            .map(|operator| operator.name.len())
            .max()
            .unwrap_or(0);
        for operator in operators {
            let (name, kind) = (&operator.name, operator.kind.name());
            let about = operator.doc.lines().next().unwrap_or_default();
            let line = format!("  {name:width$}  {kind:9}  {about}");
            write!(f, "\n{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
