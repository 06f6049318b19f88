//! Resolves which operator of which plugin a section runs, and checks its
//! parameters.

use std::collections::HashMap;
use std::sync::Arc;

use super::builder::Builder;
use super::join;
use super::section::Resolved;
use crate::config::{Mistake, OperatorConfig, OperatorName, PluginFrom, Runs, Spanned};
use crate::dead_letter::OnMigrationError;
use crate::files::{FileUser, what_is_missing};
use crate::logic::{Factory, Kind, Loader, Module, OperatorInfo, Parameter, Value, ValueType};
use crate::plan::Arguments;
use crate::suggest;

/// The plugins by name; `None` for one that could not be loaded.
pub(super) type Plugins<'a> = HashMap<&'a str, Option<Arc<dyn Module>>>;

impl<'a> Builder<'a> {
    pub(super) fn load_plugins(&mut self, loader: &dyn Loader) -> Plugins<'a> {
        let mut plugins = Plugins::new();
        let config = self.config;
        for plugin in &config.plugins {
            let name = plugin.name.get_ref();
            let module = match &plugin.from {
                PluginFrom::Path(path) => self.load_file(name, path, loader),
                PluginFrom::Named { .. } | PluginFrom::Digest(_) => self.load_kept(plugin, loader),
            };
            plugins.insert(name, module);
        }
        plugins
    }

    fn load_file(
        &mut self,
        name: &str,
        written: &Spanned<String>,
        loader: &dyn Loader,
    ) -> Option<Arc<dyn Module>> {
        let path = self.folder.join(written.get_ref());
        let user = FileUser::new(format!("plugin `{name}` is in it"), written.span());
        self.files.reads(user, &path);
        let module = loader.load(&path);
        if let Err(error) = &module {
            let mistake = |message| Mistake::new(message).at(written.span(), "");
            if path.exists() {
                let message = format!("`{name}` cannot be loaded: {error}");
                self.mistakes.push(mistake(message));
            } else {
                let message = format!("plugin `{name}` is missing: {}", what_is_missing(&path));
                self.files.lacks(
                    &path,
                    mistake(message),
                    "`sluicebox build` makes a plugin's .wasm file; paths are relative to the \
                     pipeline's file",
                );
            }
        }
        module.ok()
    }

    /// `None` for an operator that needs no plugin, and after a mistake.
    pub(super) fn resolve_plugin(
        &mut self,
        operator: &OperatorConfig,
        plugins: &Plugins,
    ) -> Option<Resolved> {
        let wanted = match &operator.runs {
            Runs::Plugin(wanted) => wanted,
            Runs::Join(join) if join.plugin.is_none() => return Some(join::resolved(operator)),
            _ => return None,
        };
        let title = format!("operator `{}`", operator.name.get_ref());
        let info = self.described(&title, wanted, plugins)?;
        let (wanted, place) = (wanted.get_ref(), wanted.span());
        let module = plugins.get(wanted.plugin.as_str())?.as_ref()?;
        if !info.kind.stages().is_empty() {
            // It is in the graph itself because of a mistake, which is reported.
            return None;
        }
        if !info.kind.is_runnable() {
            let kind = info.kind.name();
            self.mistakes.push(
                Mistake::new(format!(
                    "{title}: `{wanted}` is a {kind} operator, which this version cannot run"
                ))
                .at(place, "")
                .help(
                    "this version runs filters, transforms, aggregates, processes, look-ups and \
                     recommenders",
                ),
            );
            return None;
        }
        let (inputs, outputs) = (info.inputs.len(), info.outputs.len());
        let has_several = info.kind == Kind::Process && inputs > 0 && outputs > 0;
        if !has_several && (inputs, outputs) != (1, 1) {
            let (what, count) = match inputs {
                1 => ("outputs", outputs),
                count => ("inputs", count),
            };
            self.mistakes.push(
                Mistake::new(format!(
                    "{title}: `{wanted}` describes {count} {what}; a {} has one",
                    info.kind.name()
                ))
                .at(place, "")
                .help("this is a mistake in the plugin: build it again with its SDK"),
            );
            return None;
        }
        let timing = self.timing(operator, &title, info.kind);
        self.check_policy_of_migrations(operator, &title, info.kind);
        let arguments = self.arguments(operator, wanted, &title, &info.parameters);
        let factory = arguments
            .as_ref()
            .and_then(|arguments| self.open(operator, wanted, module.as_ref(), arguments));
        Some(Resolved {
            name: wanted.to_string(),
            info,
            arguments: arguments.unwrap_or_default(),
            factory,
            earlier: self.migrations(operator, wanted, module.as_ref()),
            timing,
        })
    }

    /// Refuses to say what becomes of states where there are none, and that they become
    /// dead letters where nothing keeps these.
    fn check_policy_of_migrations(&mut self, operator: &OperatorConfig, title: &str, kind: Kind) {
        let Some(setting) = &operator.on_migration_error else {
            return;
        };
        let mistake = if !matches!(kind, Kind::Aggregate | Kind::Process) {
            let message = format!(
                "{title} is a {}, which keeps no states that are migrated",
                kind.name()
            );
            Mistake::new(message)
                .at(setting.key.clone(), "")
                .help("remove it")
        } else if setting.value == OnMigrationError::DeadLetter
            && self.config.dead_letters.is_none()
        {
            let message = format!("{title} has states that become dead letters, and none are kept");
            Mistake::new(message)
                .at(setting.key.clone(), "")
                .help("add `dead_letters = \"FILE\"` to the pipeline")
        } else {
            return;
        };
        self.mistakes.push(mistake);
    }

    /// What makes states of earlier versions of an operator its own.
    fn migrations(
        &mut self,
        operator: &OperatorConfig,
        wanted: &OperatorName,
        module: &dyn Module,
    ) -> Vec<Arc<dyn Factory>> {
        let described = module.info().operators.iter();
        let migrations = described.filter(|info| info.migrates(&wanted.operator));
        let opened = migrations.map(|info| {
            let migration = OperatorName {
                plugin: wanted.plugin.clone(),
                operator: info.name.clone(),
            };
            self.open(operator, &migration, module, &Arguments::default())
        });
        opened.collect::<Option<_>>().unwrap_or_default()
    }

    /// The description of an operator of a plugin; `None` after a mistake.
    pub(super) fn described(
        &mut self,
        title: &str,
        wanted: &Spanned<OperatorName>,
        plugins: &Plugins,
    ) -> Option<OperatorInfo> {
        let (wanted, place) = (wanted.get_ref(), wanted.span());
        let Some(module) = plugins.get(wanted.plugin.as_str()) else {
            let names = self
                .config
                .plugins
                .iter()
                .map(|plugin| plugin.name.get_ref().as_str());
            let help = match suggest::nearest(&wanted.plugin, names) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!(
                    "add it: [plugins.{}] with the `path` of its .wasm file",
                    wanted.plugin
                ),
            };
            self.mistakes.push(
                Mistake::new(format!(
                    "{title} runs `{wanted}`, and there is no plugin `{}`",
                    wanted.plugin
                ))
                .at(place, "")
                .help(help),
            );
            return None;
        };
        // A plugin that cannot be loaded is reported at its own section.
        let module = module.as_ref()?;
        let operators = &module.info().operators;
        let Some(info) = operators.iter().find(|info| info.name == wanted.operator) else {
            // Those with a `.` are stages of others.
            let names = operators.iter().map(|info| info.name.as_str());
            let names = names.filter(|name| !name.contains('.'));
            let nouns = format!("operators of `{}`", wanted.plugin);
            self.mistakes.push(
                Mistake::new(format!(
                    "{title} runs `{wanted}`, and plugin `{}` has no operator `{}`",
                    wanted.plugin, wanted.operator
                ))
                .at(place, "")
                .help(suggest::help(&wanted.operator, &nouns, names)),
            );
            return None;
        };
        Some(info.clone())
    }

    /// Opens the operator: the plugin itself may refuse parameters of the right
    /// types.
    pub(super) fn open(
        &mut self,
        operator: &OperatorConfig,
        wanted: &OperatorName,
        module: &dyn Module,
        arguments: &Arguments,
    ) -> Option<Arc<dyn Factory>> {
        let label = operator.name.get_ref();
        let factory = module.factory(&wanted.operator, arguments, operator.limits, label);
        if let Err(failure) = &factory {
            let place = match operator.parameters.is_empty() {
                true => operator.runs.place(),
                false => operator.parameters_place.clone(),
            };
            let mut mistake = Mistake::new(format!(
                "operator `{label}`: `{wanted}` does not start: {failure}"
            ))
            .at(place, "with these settings");
            if let Some(panic) = failure
                .panic
                .as_ref()
                .filter(|panic| !panic.trim().is_empty())
            {
                mistake = mistake.help(format!("the plugin printed: {}", panic.trim()));
            }
            self.mistakes.push(mistake);
        }
        factory.ok()
    }

    /// The given parameters, checked, and the defaults of the others.
    pub(super) fn arguments(
        &mut self,
        operator: &OperatorConfig,
        wanted: &OperatorName,
        title: &str,
        parameters: &[Parameter],
    ) -> Option<Arguments> {
        let mut arguments = Arguments::new();
        let mut good = true;
        for (name, _) in &operator.parameters {
            if !parameters
                .iter()
                .any(|parameter| parameter.name == *name.get_ref())
            {
                good = false;
                let names = parameters.iter().map(|parameter| parameter.name.as_str());
                let nouns = format!("parameters of `{wanted}`");
                self.mistakes.push(
                    Mistake::new(format!(
                        "{title}: `{wanted}` has no parameter `{}`",
                        name.get_ref()
                    ))
                    .at(name.span(), "")
                    .help(suggest::help(name.get_ref(), &nouns, names)),
                );
            }
        }
        for parameter in parameters {
            let given = operator
                .parameters
                .iter()
                .find(|(name, _)| *name.get_ref() == parameter.name);
            let value = match given {
                Some((_, value)) => self.argument(title, parameter, value),
                None if parameter.default.is_some() => parameter.default.clone(),
                None if parameter.optional => continue,
                None => {
                    let what = about(parameter);
                    let mistake = Mistake::new(format!(
                        "{title}: `{wanted}` needs the parameter `{}`, {what}",
                        parameter.name
                    ))
                    .at(operator.parameters_place.clone(), "not given here")
                    .help(format!(
                        "add it: parameters = {{ {} = {} }}",
                        parameter.name,
                        example(parameter.value_type)
                    ));
                    // A misspelt parameter is reported already, with a
                    // suggestion.
                    let misspelt = operator.parameters.iter().any(|(name, _)| {
                        suggest::nearest(name.get_ref(), [parameter.name.as_str()]).is_some()
                    });
                    if !misspelt {
                        self.mistakes.push(mistake);
                    }
                    None
                }
            };
            match value {
                Some(value) => arguments.push((parameter.name.clone(), value)),
                None => good = false,
            }
        }
        good.then_some(arguments)
    }

    fn argument(
        &mut self,
        title: &str,
        parameter: &Parameter,
        value: &Spanned<Value>,
    ) -> Option<Value> {
        match (parameter.value_type, value.get_ref()) {
            // A TOML number without a fraction is an integer.
            (ValueType::Number, Value::Integer(number)) => Some(Value::Number(*number as f64)),
            (ValueType::Boolean, Value::Boolean(_))
            | (ValueType::Integer, Value::Integer(_))
            | (ValueType::Number, Value::Number(_))
            | (ValueType::Text, Value::Text(_))
            | (ValueType::Texts, Value::Texts(_)) => Some(value.get_ref().clone()),
            (wanted, given) => {
                let name = &parameter.name;
                self.mistakes.push(
                    Mistake::new(format!(
                        "{title}: the parameter `{name}` must be {}; this is {}",
                        type_name(wanted),
                        type_name(type_of(given))
                    ))
                    .at(value.span(), "")
                    .help(match (wanted, given) {
                        // A decimal, say, which must not become a float on its way.
                        (ValueType::Text, Value::Integer(_) | Value::Number(_)) => {
                            format!("write it in quotes, as in `{name} = \"12.50\"`")
                        }
                        _ => format!("write it as in `{name} = {}`", example(wanted)),
                    }),
                );
                None
            }
        }
    }
}

fn about(parameter: &Parameter) -> String {
    let type_name = type_name(parameter.value_type);
    match parameter.doc.trim() {
        "" => type_name.to_owned(),
        doc => format!("{type_name} ({})", doc.trim_end_matches('.')),
    }
}

fn type_of(value: &Value) -> ValueType {
    match value {
        Value::Boolean(_) => ValueType::Boolean,
        Value::Integer(_) => ValueType::Integer,
        Value::Number(_) => ValueType::Number,
        Value::Text(_) => ValueType::Text,
        Value::Texts(_) => ValueType::Texts,
    }
}

fn type_name(value_type: ValueType) -> &'static str {
    match value_type {
        ValueType::Boolean => "true or false",
        ValueType::Integer => "a whole number",
        ValueType::Number => "a number",
        ValueType::Text => "a text",
        ValueType::Texts => "a list of texts",
    }
}

fn example(value_type: ValueType) -> &'static str {
    match value_type {
        ValueType::Boolean => "true",
        ValueType::Integer => "100",
        ValueType::Number => "0.5",
        ValueType::Text => "\"text\"",
        ValueType::Texts => "[\"text\"]",
    }
}
