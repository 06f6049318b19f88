//! Finds the plugins that a service keeps, which a pipeline names by name and version, or by
//! digest.

use std::sync::Arc;

use super::builder::Builder;
use crate::config::{Mistake, PluginConfig, PluginFrom, Spanned};
use crate::logic::{KeptPlugin, Loader, Module, PluginVersion};
use crate::suggest;

/// What to do where a service does not have a plugin.
const UPLOAD: &str = "`sluicebox plugins put FILE` uploads one";

impl Builder<'_> {
    /// `None` after a mistake.
    pub(super) fn load_kept(
        &mut self,
        plugin: &PluginConfig,
        loader: &dyn Loader,
    ) -> Option<Arc<dyn Module>> {
        let title = format!("plugin `{}`", plugin.name.get_ref());
        let (key, named) = match &plugin.from {
            PluginFrom::Path(path) => ("path", path),
            PluginFrom::Named { name, .. } => ("name", name),
            PluginFrom::Digest(digest) => ("digest", digest),
        };
        let Some(kept) = loader.kept() else {
            self.mistakes.push(
                Mistake::new(format!(
                    "{title} is one of a service: `{key}` names what was uploaded to it"
                ))
                .at(named.span(), "there is no service here")
                .help(
                    "name the plugin's .wasm file by `path` instead; or have a service run the \
                     pipeline: `sluicebox pipelines put FILE`",
                ),
            );
            return None;
        };
        let wanted = match &plugin.from {
            PluginFrom::Named {
                name,
                version: Some(version),
            } => KeptPlugin::Version(PluginVersion {
                name: name.get_ref().clone(),
                version: version.get_ref().clone(),
            }),
            PluginFrom::Digest(digest) => KeptPlugin::Digest(digest.get_ref().clone()),
            PluginFrom::Named { .. } | PluginFrom::Path(_) => {
                self.mistakes.push(without_version(&title, named, &kept));
                return None;
            }
        };
        match loader.load_kept(&wanted) {
            Some(Ok(module)) => return Some(module),
            Some(Err(error)) => {
                let message = format!("{title}: {wanted} cannot be loaded: {error}");
                self.mistakes
                    .push(Mistake::new(message).at(named.span(), ""));
            }
            None => {
                let mistake = match &plugin.from {
                    PluginFrom::Named {
                        name,
                        version: Some(version),
                    } => unknown(&title, name, version, &kept),
                    _ => Mistake::new(format!("{title}: the service has none of this digest"))
                        .at(named.span(), "")
                        .help(format!(
                            "`sluicebox plugins list --json` shows the digests of those that it \
                             has; {UPLOAD}"
                        )),
                };
                self.mistakes.push(mistake);
            }
        }
        None
    }
}

/// No version is taken for it: the pipeline would become another one with the next upload.
fn without_version(title: &str, name: &Spanned<String>, kept: &[PluginVersion]) -> Mistake {
    let versions = versions(name.get_ref(), kept);
    let help = match versions.as_slice() {
        [] => return of_unknown_name(title, name, kept),
        [version] => format!("add `version = \"{version}\"`"),
        [.., newest] => format!(
            "add one, such as `version = \"{newest}\"`; the versions of `{}` are: {}",
            name.get_ref(),
            suggest::listed(&versions)
        ),
    };
    Mistake::new(format!("{title} has a `name` and no `version`"))
        .at(name.span(), "which version?")
        .help(format!(
            "{help}; a pipeline does not become another one when a plugin is uploaded"
        ))
}

fn unknown(
    title: &str,
    name: &Spanned<String>,
    version: &Spanned<String>,
    kept: &[PluginVersion],
) -> Mistake {
    let versions = versions(name.get_ref(), kept);
    if versions.is_empty() {
        return of_unknown_name(title, name, kept);
    }
    let nouns = format!("versions of `{}`", name.get_ref());
    Mistake::new(format!(
        "{title}: the service has no version `{}` of `{}`",
        version.get_ref(),
        name.get_ref()
    ))
    .at(version.span(), "")
    .help(suggest::help(version.get_ref(), &nouns, versions))
}

fn of_unknown_name(title: &str, name: &Spanned<String>, kept: &[PluginVersion]) -> Mistake {
    let mut names: Vec<&str> = kept.iter().map(|plugin| plugin.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let help = match names.is_empty() {
        true => format!("it has no plugins yet: {UPLOAD}"),
        false => suggest::help(name.get_ref(), "plugins", names),
    };
    Mistake::new(format!(
        "{title}: the service has no plugin `{}`",
        name.get_ref()
    ))
    .at(name.span(), "")
    .help(help)
}

/// The versions of a plugin, those last that were uploaded last.
fn versions<'a>(name: &str, kept: &'a [PluginVersion]) -> Vec<&'a str> {
    let of_name = kept.iter().filter(|plugin| plugin.name == name);
    of_name.map(|plugin| plugin.version.as_str()).collect()
}
