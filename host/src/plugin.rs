//! Plugins: Wasm components that are compiled once, describe themselves, and
//! are called within limits.
//!
//! From a file to an operator at work: [`PluginLoader`] reads and compiles it,
//! [`cache`] keeps the compiled code for later starts, [`describe`] checks its
//! description, [`wasi`] decides what it may import, [`instance`] calls it,
//! [`boundary`] passes rows in and out, [`limits`] and [`engine`] stop it.

/// Passes Arrow arrays into a plugin and takes its answers.
pub(crate) mod boundary;
/// Keeps compiled plugins on disk.
mod cache;
/// The WIT contract as Rust types.
mod contract;
/// Checks a plugin's description.
mod describe;
/// Compiles plugins, and keeps the deadlines of their calls.
mod engine;
/// A plugin's description for `sluicebox inspect`.
pub mod inspect;
/// An instance of a plugin that serves one operator.
mod instance;
/// Limits of memory, time and output, and the messages when one is exceeded.
mod limits;
/// Logs what a plugin prints.
mod printed;
/// What a plugin may import from the host.
mod wasi;

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, PoisonError, Weak};

use wasmtime::Engine;
use wasmtime::component::{Component, ComponentExportIndex};

use crate::digest::digest;
use crate::logic::{
    Factory, Failure, FailureKind, Instance, Kind, Limits, LoadError, Loader, Module, ModuleInfo,
    OperatorInfo, Value,
};
use crate::quantity::ShownBytes;
use cache::PluginCache;
use engine::Deadlines;
use instance::{AggregateExports, Compiled, Exports};
use printed::OperatorLog;

/// A larger file is refused before it is read: compiling it would take minutes, and
/// some twenty times its size of memory.
pub const FILE_BYTES_MAX: u64 = 64 << 20;
/// While a larger file is compiled, the user is told what takes so long.
const FILE_BYTES_QUICK: usize = 8 << 20;

/// Limits while a plugin describes itself.
const DESCRIBE_LIMITS: Limits = Limits {
    memory_bytes_max: 64 << 20,
    call_ms_max: 5_000,
    output_bytes_max: 4 << 20,
};

/// Compiles each plugin once, however many nodes use it. A process has one
/// loader.
pub struct PluginLoader {
    engine: Engine,
    deadlines: Arc<Deadlines>,
    /// Looked for with the first plugin: without one, nobody misses it.
    cache: LazyLock<Option<PluginCache>>,
    /// Plugins by path and digest.
    loaded: Mutex<HashMap<(PathBuf, String), Arc<Slot>>>,
}

/// A plugin, for as long as something uses it. The lock is held while the
/// plugin is compiled, so only those who need the same plugin wait.
type Slot = Mutex<Weak<Loaded>>;

/// A plugin that has been compiled and has described itself.
pub struct Plugin(Arc<Loaded>);

struct Loaded {
    info: ModuleInfo,
    operators: Vec<Arc<OperatorInfo>>,
    compiled: Compiled,
    digest: String,
    /// The interfaces that it exports.
    exports: Vec<String>,
    /// The interfaces that it imports.
    imports: Vec<String>,
    bytes: usize,
}

impl PluginLoader {
    pub fn new() -> Result<Self, LoadError> {
        let cannot = |error: wasmtime::Error| {
            LoadError(format!("this machine cannot run plugins: {error:#}"))
        };
        let engine = engine::engine().map_err(cannot)?;
        let deadlines = Deadlines::start(engine.clone()).map_err(|error| cannot(error.into()))?;
        Ok(PluginLoader {
            engine,
            deadlines,
            cache: LazyLock::new(|| None),
            loaded: Mutex::default(),
        })
    }

    /// Keeps compiled plugins in the user's cache folder, if that is safe, and
    /// loads them from there next time.
    pub fn with_user_cache(mut self) -> Self {
        self.cache = LazyLock::new(PluginCache::of_user);
        self
    }

    /// Compiles a plugin that somebody has sent, and lets it describe itself.
    pub fn check(&self, bytes: &[u8]) -> Result<Plugin, LoadError> {
        let digest = digest(bytes);
        let plugin = self.compile(Path::new("of the request"), bytes, digest)?;
        Ok(Plugin(Arc::new(plugin)))
    }

    /// As [`Loader::load`], with the concrete type.
    pub fn plugin(&self, path: &Path) -> Result<Plugin, LoadError> {
        let bytes = read(path)?;
        let digest = digest(&bytes);
        let slot = self.slot(path, &digest);
        let mut loaded = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(plugin) = loaded.upgrade() {
            return Ok(Plugin(plugin));
        }
        let plugin = Arc::new(self.compile(path, &bytes, digest)?);
        *loaded = Arc::downgrade(&plugin);
        Ok(Plugin(plugin))
    }

    /// The slot that the plugin is in, or will be once it is compiled.
    fn slot(&self, path: &Path, digest: &str) -> Arc<Slot> {
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        // A slot with other users is being compiled.
        loaded.retain(|_, slot| {
            Arc::strong_count(slot) > 1
                || slot
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .strong_count()
                    > 0
        });
        let slot = loaded.entry((path.to_owned(), digest.to_owned()));
        Arc::clone(slot.or_default())
    }

    fn compile(&self, path: &Path, bytes: &[u8], digest: String) -> Result<Loaded, LoadError> {
        let wrong = |what: String| LoadError(format!("plugin {} {what}", path.display()));
        check_header(bytes).map_err(wrong)?;
        let cache = (*self.cache).as_ref();
        let kept = cache.and_then(|cache| cache.load(&self.engine, &digest));
        let component = match kept {
            Some(component) => component,
            None => {
                if bytes.len() > FILE_BYTES_QUICK {
                    tracing::info!(
                        "compiling plugin {}, which is {} large: this takes a while",
                        path.display(),
                        ShownBytes(bytes.len())
                    );
                }
                let component =
                    Component::new(&self.engine, bytes).map_err(|error| wrong(invalid(&error)))?;
                if let Some(cache) = cache {
                    cache.store(&component, &digest);
                }
                component
            }
        };
        let (export_names, import_names) = (export_names(&component), import_names(&component));
        contract::check_version(&export_names, &import_names).map_err(wrong)?;
        let exports = exports(&component, &export_names).map_err(wrong)?;
        let linker = wasi::linker(&component)
            .map_err(|error| wrong(format!("cannot be linked: {error:#}")))?
            .map_err(|import| {
                wrong(format!(
                    "imports `{import}`, which the host does not give; it may use {} and the parts \
                     of WASI 0.2 that need no capability",
                    contract::LOGGING
                ))
            })?;
        let pre = linker
            .instantiate_pre(&component)
            .map_err(|error| wrong(format!("cannot be linked: {error:#}")))?;
        let compiled = Compiled {
            pre,
            exports,
            deadlines: Arc::clone(&self.deadlines),
        };
        let name = path.file_stem().unwrap_or_default().to_string_lossy();
        let described = compiled
            .describe(DESCRIBE_LIMITS, &OperatorLog::new(&name))
            .map_err(|failure| wrong(format!("cannot describe itself: it {failure}")))?;
        let info = describe::module(described)
            .and_then(|info| check_exported(&info, &compiled.exports).map(|()| info))
            .map_err(|what| wrong(format!("has an invalid description: {what}")))?;
        Ok(Loaded {
            operators: info.operators.iter().cloned().map(Arc::new).collect(),
            info,
            compiled,
            exports: export_names,
            imports: import_names,
            bytes: bytes.len(),
            digest,
        })
    }
}

impl Loader for PluginLoader {
    fn load(&self, path: &Path) -> Result<Arc<dyn Module>, LoadError> {
        Ok(Arc::new(self.plugin(path)?))
    }
}

impl Module for Plugin {
    fn info(&self) -> &ModuleInfo {
        &self.0.info
    }

    fn factory(
        &self,
        operator: &str,
        arguments: &[(String, Value)],
        limits: Limits,
        label: &str,
    ) -> Result<Arc<dyn Factory>, Failure> {
        let refused = |message: String| Failure::new(FailureKind::Open, message);
        let Some(info) = self.0.operators.iter().find(|info| info.name == operator) else {
            return Err(refused(format!("there is no operator `{operator}`")));
        };
        if !info.kind.is_runnable() {
            return Err(refused(format!(
                "`{operator}` is a {} operator, which this version of Sluicebox does not run yet",
                info.kind.name()
            )));
        }
        let mut arguments = arguments.to_vec();
        for parameter in &info.parameters {
            let given = arguments.iter().any(|(name, _)| *name == parameter.name);
            if let (false, Some(default)) = (given, &parameter.default) {
                arguments.push((parameter.name.clone(), default.clone()));
            }
        }
        let factory = InstanceFactory {
            plugin: Arc::clone(&self.0),
            operator: Arc::clone(info),
            arguments,
            limits,
            log: OperatorLog::new(label),
            first: Mutex::default(),
        };
        let first = factory.open()?;
        *factory.first.lock().unwrap_or_else(PoisonError::into_inner) = Some(first);
        Ok(Arc::new(factory))
    }
}

/// Makes instances of one operator with given arguments.
struct InstanceFactory {
    plugin: Arc<Loaded>,
    operator: Arc<OperatorInfo>,
    arguments: Vec<(String, Value)>,
    limits: Limits,
    log: Arc<OperatorLog>,
    /// The instance that was opened to check the arguments.
    first: Mutex<Option<Instance>>,
}

impl InstanceFactory {
    fn open(&self) -> Result<Instance, Failure> {
        self.plugin
            .compiled
            .open(&self.operator, &self.arguments, self.limits, &self.log)
    }
}

impl Factory for InstanceFactory {
    fn info(&self) -> &OperatorInfo {
        &self.operator
    }

    fn digest(&self) -> &str {
        &self.plugin.digest
    }

    fn instance(&self) -> Result<Instance, Failure> {
        let first = self
            .first
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        match first {
            Some(first) => Ok(first),
            None => self.open(),
        }
    }
}

/// Reads a plugin's file, if it can be one by its kind and size.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, LoadError> {
    let unreadable = |why: String| LoadError(format!("plugin {} {why}", path.display()));
    let metadata = std::fs::metadata(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            unreadable("does not exist; build it with `sluicebox build`".into())
        }
        _ => unreadable(format!("cannot be read: {error}")),
    })?;
    if metadata.is_dir() {
        return Err(unreadable(
            "is a folder; give the .wasm file that `sluicebox build` makes in it".into(),
        ));
    }
    if !metadata.is_file() {
        return Err(unreadable(
            "is not a regular file; give the .wasm file that `sluicebox build` makes".into(),
        ));
    }
    let too_large = |bytes: u64| {
        unreadable(format!(
            "is {} large, and a plugin may have {} at most; build it with `sluicebox build`, and \
             with `strip = \"debuginfo\"` in its [profile.release]",
            ShownBytes(bytes as usize),
            ShownBytes(FILE_BYTES_MAX as usize)
        ))
    };
    if metadata.len() > FILE_BYTES_MAX {
        return Err(too_large(metadata.len()));
    }
    let mut bytes = Vec::with_capacity(metadata.len() as usize);
    // It may have become another one since.
    File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(|error| unreadable(format!("cannot be read: {error}")))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(too_large(bytes.len() as u64));
    }
    Ok(bytes)
}

/// Distinguishes what is not a component from a broken one.
fn check_header(bytes: &[u8]) -> Result<(), String> {
    const MAGIC: &[u8] = b"\0asm";
    const MODULE: &[u8] = &[1, 0, 0, 0];
    const COMPONENT: &[u8] = &[0x0d, 0, 1, 0];
    if bytes.is_empty() {
        return Err("is empty; build it with `sluicebox build`".into());
    }
    if bytes.len() < 8 && (MAGIC.starts_with(bytes) || bytes.starts_with(MAGIC)) {
        return Err("is cut short; copy or build it again".into());
    }
    match (bytes.get(..4), bytes.get(4..8)) {
        (Some(MAGIC), Some(COMPONENT)) => Ok(()),
        (Some(MAGIC), Some(MODULE)) => Err(
            "is a core Wasm module and not a component; build it with `sluicebox build`, or for \
             the target wasm32-wasip2"
                .into(),
        ),
        (Some(MAGIC), Some(version)) => Err(format!(
            "is Wasm of an unknown version {version:02x?}; build it with `sluicebox build`"
        )),
        _ => Err("is not a Wasm component; give a .wasm file that `sluicebox build` made".into()),
    }
}

/// The message for a component that does not compile.
fn invalid(error: &wasmtime::Error) -> String {
    let cause = format!("{:#}", error.root_cause());
    // How the parser reports that a section or value continues after the last
    // byte.
    if cause.contains("unexpected end") || cause.contains("out of bounds (bound") {
        format!("is cut short ({cause}); copy or build it again")
    } else {
        format!("is not a valid Wasm component ({cause}); copy or build it again")
    }
}

/// Finds the contract's functions in a component: those that every plugin has,
/// and those of the kinds whose interface it exports.
fn exports(component: &Component, names: &[String]) -> Result<Exports, String> {
    let wanted = contract::OPERATORS;
    let Some(operators) = Exported::find(component, names, wanted) else {
        return Err(match names.is_empty() {
            true => format!(
                "is a component that exports nothing, and a plugin exports `{wanted}`; use \
                 `sluicebox_sdk::export!`"
            ),
            false => format!(
                "is a component but no Sluicebox plugin: it exports {}, and a plugin exports \
                 `{wanted}`",
                listed(names)
            ),
        });
    };
    let transform = Exported::find(component, names, contract::TRANSFORM);
    let aggregate = Exported::find(component, names, contract::AGGREGATE);
    let process = Exported::find(component, names, contract::PROCESS);
    Ok(Exports {
        describe: operators.function("describe")?,
        open: operators.function("open")?,
        transform: transform
            .map(|interface| interface.function("transform"))
            .transpose()?,
        aggregate: aggregate
            .map(|interface| {
                Ok::<_, String>(AggregateExports {
                    accumulate: interface.function("accumulate")?,
                    accumulate_each: interface.function("accumulate-each")?,
                    merge: interface.function("merge")?,
                    finish: interface.function("finish")?,
                })
            })
            .transpose()?,
        process: process
            .map(|interface| interface.function("process"))
            .transpose()?,
    })
}

/// An interface that a component exports.
struct Exported<'a> {
    component: &'a Component,
    name: &'static str,
    index: ComponentExportIndex,
}

impl<'a> Exported<'a> {
    fn find(component: &'a Component, names: &[String], name: &'static str) -> Option<Self> {
        let is_there = names.iter().any(|exported| exported == name);
        let index = is_there.then(|| component.get_export_index(None, name));
        Some(Exported {
            component,
            name,
            index: index??,
        })
    }

    fn function(&self, function: &str) -> Result<ComponentExportIndex, String> {
        self.component
            .get_export_index(Some(&self.index), function)
            .ok_or_else(|| {
                let name = self.name;
                let again = contract::BUILD_AGAIN;
                format!("does not keep to the contract: `{name}` lacks `{function}`; {again}")
            })
    }
}

/// Checks that a plugin exports the interface of each kind that it describes.
fn check_exported(info: &ModuleInfo, exports: &Exports) -> Result<(), String> {
    for operator in &info.operators {
        let (interface, is_there) = match operator.kind {
            Kind::Filter | Kind::Transform => (contract::TRANSFORM, exports.transform.is_some()),
            Kind::Aggregate => (contract::AGGREGATE, exports.aggregate.is_some()),
            // Some are run as processes.
            Kind::Process | Kind::Lookup | Kind::Recommend => {
                (contract::PROCESS, exports.process.is_some())
            }
            // It can be described, but not run yet.
            Kind::Join => continue,
        };
        if !is_there {
            return Err(format!(
                "operator `{}` is of the kind `{}`, and the plugin does not export `{interface}`, \
                 which operators of this kind are called through",
                operator.name,
                operator.kind.name()
            ));
        }
    }
    Ok(())
}

/// The interfaces that a component exports, by name.
fn export_names(component: &Component) -> Vec<String> {
    let component_type = component.component_type();
    let exports = component_type.exports(component.engine());
    let mut names: Vec<String> = exports.map(|(name, _)| name.to_owned()).collect();
    names.sort_unstable();
    names
}

/// The interfaces that a component imports, except those with nothing but
/// types.
fn import_names(component: &Component) -> Vec<String> {
    let engine = component.engine();
    component
        .component_type()
        .imports(engine)
        .filter(|(_, item)| !wasi::is_plain_type(&item.ty, engine))
        .map(|(name, _)| name.to_owned())
        .collect()
}

fn listed(names: &[String]) -> String {
    const SHOWN_MAX: usize = 5;
    let mut shown: Vec<String> = names
        .iter()
        .take(SHOWN_MAX)
        .map(|name| format!("`{name}`"))
        .collect();
    if names.len() > SHOWN_MAX {
        shown.push(format!("{} more", names.len() - SHOWN_MAX));
    }
    shown.join(", ")
}
