//! The crates that a pipeline's plugins are built of.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::watch::{Changed, Sources, Watched};
use crate::cli::build::{BuildError, Cargo, Package, check_target};
use crate::clock::{Clock, SystemClock};
use crate::logic::Loader;
use crate::paths::here_if_empty;

/// The plugins that a pipeline names, each with its crate if there is one.
#[derive(Default)]
pub struct Crates(Vec<Crate>);

/// A plugin.
struct Crate {
    /// Where the pipeline has it.
    plugin: PathBuf,
    /// Absent before it was found, and where the file comes from elsewhere.
    package: Option<Package>,
    sources: Sources,
    watched: Watched,
}

/// A build to be made.
pub struct Build {
    plugin: PathBuf,
    /// Absent if it is to be found.
    package: Option<Package>,
}

/// A build that was made, or tried.
pub struct Built {
    plugin: PathBuf,
    package: Option<Package>,
    /// What cargo has built.
    pub artifact: Option<PathBuf>,
    began_ms: i64,
    pub took: Duration,
    pub error: Option<String>,
}

impl Crates {
    /// The pipeline names these now. Those that it has named before stay as they are.
    pub fn name(&mut self, plugins: Vec<PathBuf>) {
        self.0.retain(|known| plugins.contains(&known.plugin));
        for plugin in plugins {
            if self.0.iter().any(|known| known.plugin == plugin) {
                continue;
            }
            let folder = plugin.parent().map_or(Path::new("."), here_if_empty);
            let sources = Sources::of(folder, None);
            self.0.push(Crate {
                plugin,
                package: None,
                sources,
                watched: Watched::default(),
            });
        }
    }

    pub fn plugins(&self) -> impl Iterator<Item = &Path> {
        self.0.iter().map(|known| known.plugin.as_path())
    }

    /// Looks at their sources. Returns whether something is to be built.
    pub fn look(&mut self) -> bool {
        let mut is_any = false;
        for known in &mut self.0 {
            is_any |= known.watched.look(known.sources.look());
        }
        is_any
    }

    /// Whether the last look has seen something that is not built.
    pub fn have_changed(&self) -> bool {
        self.0.iter().any(|known| known.watched.has_changed())
    }

    /// What is to be built, and what of it was changed.
    pub fn take(&mut self) -> (Changed, Vec<Build>) {
        let mut all = Changed::default();
        let changed = self
            .0
            .iter_mut()
            .filter(|known| known.watched.has_changed());
        let builds = changed.map(|known| {
            let changed = known.watched.take();
            let is_manifest = |path: &PathBuf| path.ends_with("Cargo.toml");
            if changed.paths.iter().any(is_manifest) {
                known.package = None;
            }
            all.add(changed);
            Build {
                plugin: known.plugin.clone(),
                package: known.package.clone(),
            }
        });
        let builds = builds.collect();
        (all, builds)
    }

    /// Notes what became of a build.
    pub fn note(&mut self, built: Built) -> Built {
        let known = self.0.iter_mut().find(|known| known.plugin == built.plugin);
        if let Some(known) = known {
            if let Some(package) = &built.package
                && known.package.is_none()
            {
                known.sources = Sources::of(&package.folder, Some(&package.library));
            }
            known.package.clone_from(&built.package);
            if let Some(artifact) = &built.artifact {
                known.sources.note_build(artifact);
            }
            known.watched.widen(&known.sources.look(), built.began_ms);
        }
        built
    }

    /// Whether this file is what one of these builds makes.
    pub fn has_built(&self, plugin: &Path) -> bool {
        let mut crates = self.0.iter();
        crates.any(|known| known.plugin == plugin && known.package.is_some())
    }
}

impl Build {
    /// Builds the crate, if there is one. Cargo prints what is wrong.
    pub fn run(self, loader: &dyn Loader, cargo: &Cargo) -> Built {
        let (began, began_ms) = (Instant::now(), SystemClock.now_ms());
        let is_known = self.package.is_some();
        let found = match self.package {
            Some(package) => Ok(Some(package)),
            None => Package::of_plugin(&self.plugin),
        };
        let (package, built) = match found {
            Ok(None) => (None, None),
            Err(error) => (None, Some(Err(error))),
            Ok(Some(package)) => {
                let built = build(&package, is_known, loader, cargo);
                (Some(package), Some(built))
            }
        };
        let (artifact, error) = match built {
            None => (None, None),
            Some(Ok(artifact)) => (Some(artifact), None),
            Some(Err(error)) => (None, Some(error.to_string())),
        };
        Built {
            plugin: self.plugin,
            package,
            artifact,
            began_ms,
            took: began.elapsed(),
            error,
        }
    }
}

fn build(
    package: &Package,
    is_known: bool,
    loader: &dyn Loader,
    cargo: &Cargo,
) -> Result<PathBuf, BuildError> {
    if !is_known {
        check_target(&package.folder)?;
    }
    Ok(package.build(loader, cargo)?.artifact)
}
