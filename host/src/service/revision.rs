//! Plans a content.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::change::ChangePlan;
use super::content::{Content, folder_of};
use super::letters::Replay;
use super::replay;
use super::store::Store;
use crate::config::{Config, Diagnostics, Mistake};
use crate::logic::{KeptPlugin, LoadError, Loader, Module, PluginVersion};
use crate::plan::change::{self, NodeDescription};
use crate::plan::{Node, Plan, StatePlan};
use crate::planner;
use crate::plugin::PluginLoader;

/// Where the states of a pipeline are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum States {
    /// Where its file says, if it says so.
    AsWritten,
    /// In memory, if its file does not say where.
    Kept,
    /// In memory, whatever its file says.
    Temporary,
}

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
        states: States,
        store: &Store,
        loader: &PluginLoader,
    ) -> Result<Planned, Diagnostics> {
        let config = config_of(name, file, &content)?;
        let plugins = StoredPlugins::of(file, &content, store, loader);
        Planned::of(&config, file, content.clone(), states, &plugins)
    }

    /// This content while rows of dead letters are read again.
    pub fn replaying(
        &self,
        name: &str,
        file: &Path,
        replay: &Replay,
        states: States,
        store: &Store,
        loader: &PluginLoader,
    ) -> Result<Planned, String> {
        let config = config_of(name, file, &self.content);
        let mut config = config.map_err(|mistakes| mistakes.to_string())?;
        replay::add(&mut config, &self.plan, replay)?;
        let plugins = StoredPlugins::of(file, &self.content, store, loader);
        let planned = Planned::of(&config, file, self.content.clone(), states, &plugins);
        planned.map_err(|mistakes| mistakes.to_string())
    }

    fn of(
        config: &Config,
        file: &Path,
        content: Arc<Content>,
        states: States,
        plugins: &StoredPlugins<'_>,
    ) -> Result<Planned, Diagnostics> {
        let mut plan = planner::build(config, folder_of(file), plugins)?;
        let is_temporary = match states {
            States::AsWritten => false,
            States::Kept => plan.state.is_none(),
            States::Temporary => true,
        };
        if is_temporary {
            plan.state = Some(StatePlan::TEMPORARY);
        }
        let warnings = planner::warnings(config, &plan);
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

/// Reads a content of the pipeline `name`.
fn config_of(name: &str, file: &Path, content: &Content) -> Result<Config, Diagnostics> {
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
    Ok(config)
}

impl Planned {
    /// What it changes when it takes over from another content, if the state of the nodes
    /// `dropped` may go.
    pub fn change_from(&self, then: &Planned, dropped: &[String]) -> ChangePlan {
        let mut change = ChangePlan::between(&then.description, &self.description, dropped);
        change.in_place = self.plan.state.is_some()
            && dropped.is_empty()
            && self.content.digest != then.content.digest
            && self.differs_in_logic_alone(then);
        change
    }

    /// Whether it differs from another content in the logic of operators alone, so that it
    /// can take that one's place in its tasks: the rest of the text says the same, and
    /// whatever plugins are called by it take, keep and put out the same.
    pub fn differs_in_logic_alone(&self, other: &Planned) -> bool {
        let is_like =
            |(now, then): (&Node, &Node)| match (now.kind.operator(), then.kind.operator()) {
                (Some(now), Some(then)) => now.factory.info().is_like(then.factory.info()),
                (now, then) => now.is_none() && then.is_none(),
            };
        let (now, then) = (&self.plan.nodes, &other.plan.nodes);
        let text = without_logic(&self.content.text);
        text.is_some()
            && text == without_logic(&other.content.text)
            && now.len() == then.len()
            && now.iter().zip(then).all(is_like)
    }
}

/// A pipeline's text without what only the logic of operators depends on.
fn without_logic(text: &str) -> Option<toml::Table> {
    let mut table: toml::Table = text.parse().ok()?;
    table.remove("plugins");
    let operators = table
        .get_mut("operators")
        .and_then(toml::Value::as_table_mut);
    let operators = operators.into_iter().flat_map(|all| all.iter_mut());
    for operator in operators.filter_map(|(_, operator)| operator.as_table_mut()) {
        operator.remove("parameters");
        operator.remove("limits");
    }
    Some(table)
}

/// Loads plugins from the store.
struct StoredPlugins<'a> {
    loader: &'a PluginLoader,
    store: &'a Store,
    content: &'a Content,
    /// Where a plugin is kept, by the path that the pipeline names.
    paths: Vec<(PathBuf, PathBuf)>,
}

impl<'a> StoredPlugins<'a> {
    /// Of a content.
    fn of(file: &Path, content: &'a Content, store: &'a Store, loader: &'a PluginLoader) -> Self {
        let folder = folder_of(file);
        let plugins = content.plugins.iter();
        let paths = plugins.map(|(path, digest)| (folder.join(path), store.plugin_path(digest)));
        StoredPlugins {
            loader,
            store,
            content,
            paths: paths.collect(),
        }
    }
}

impl Loader for StoredPlugins<'_> {
    fn load(&self, path: &Path) -> Result<Arc<dyn Module>, LoadError> {
        let stored = self.paths.iter().find(|(named, _)| named == path);
        self.loader.load(stored.map_or(path, |(_, stored)| stored))
    }

    fn kept(&self) -> Option<Vec<PluginVersion>> {
        let uploads = self.store.uploads.as_ref()?.list().into_iter();
        let versions = uploads.map(|upload| PluginVersion {
            name: upload.name,
            version: upload.version,
        });
        Some(versions.collect())
    }

    fn load_kept(&self, wanted: &KeptPlugin) -> Option<Result<Arc<dyn Module>, LoadError>> {
        let digest = self.content.kept.get(&wanted.to_string())?;
        Some(self.loader.load(&self.store.plugin_path(digest)))
    }
}
