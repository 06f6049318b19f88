//! Plans a content.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::content::Content;
use super::store::Store;
use crate::config::{Config, Diagnostics, Mistake};
use crate::logic::{LoadError, Loader, Module};
use crate::plan::Plan;
use crate::plan::change::{self, NodeDescription};
use crate::planner;
use crate::plugin::PluginLoader;

/// A content that is planned.
pub struct Planned {
    pub content: Arc<Content>,
    pub plan: Arc<Plan>,
    pub description: Vec<NodeDescription>,
    /// For people; empty if there are none.
    pub warnings: String,
}

impl Planned {
    /// Plans a content of the pipeline `name`, whose file is at `file`. The plugins are
    /// those of the content, wherever others lie by now.
    pub fn new(
        name: &str,
        file: &Path,
        content: Arc<Content>,
        store: &Store,
        loader: &PluginLoader,
    ) -> Result<Planned, Diagnostics> {
        let config = Config::parse(&file.display().to_string(), &content.text)?;
        if config.name.get_ref() != name {
            let mut mistakes = Diagnostics::new(config.origin.clone());
            let named = config.name.get_ref();
            mistakes.push(
                Mistake::new(format!(
                    "the pipeline is called `{named}`, and its file {name}.toml"
                ))
                .at(config.name.span(), "")
                .help(format!(
                    "a pipeline that is served has the name of its file: write \
                         `name = \"{name}\"`, or rename the file"
                )),
            );
            return Err(mistakes);
        }
        let folder = file.parent().unwrap_or(Path::new(""));
        let plugins = StoredPlugins {
            loader,
            paths: content
                .plugins
                .iter()
                .map(|(path, digest)| (folder.join(path), store.plugin_path(digest)))
                .collect(),
        };
        let plan = planner::build(&config, folder, &plugins)?;
        let warnings = planner::warnings(&config, &plan);
        Ok(Planned {
            warnings: match warnings.is_empty() {
                true => String::new(),
                false => warnings.to_string(),
            },
            description: change::describe(&plan),
            plan: Arc::new(plan),
            content,
        })
    }
}

/// Loads plugins from the store.
struct StoredPlugins<'a> {
    loader: &'a PluginLoader,
    /// Where a plugin is kept, by the path that the pipeline names.
    paths: Vec<(PathBuf, PathBuf)>,
}

impl Loader for StoredPlugins<'_> {
    fn load(&self, path: &Path) -> Result<Arc<dyn Module>, LoadError> {
        let stored = self.paths.iter().find(|(named, _)| named == path);
        self.loader.load(stored.map_or(path, |(_, stored)| stored))
    }
}
