//! Reads `[plugins.NAME]`: where a plugin comes from.

use toml::Spanned;

use super::diagnostics::{Diagnostics, Mistake};
use super::reader::{ConfigValue, Table};

#[derive(Debug)]
pub struct PluginConfig {
    /// What operators call it.
    pub name: Spanned<String>,
    pub from: PluginFrom,
}

/// Which plugin it is.
#[derive(Debug)]
pub enum PluginFrom {
    /// A file.
    Path(Spanned<String>),
    /// One that a service keeps, by its own name and version. Without a version, the planner
    /// tells which there are.
    Named {
        name: Spanned<String>,
        version: Option<Spanned<String>>,
    },
    /// One that a service keeps, by the digest of its bytes.
    Digest(Spanned<String>),
}

const WAYS: [&str; 3] = ["path", "name", "digest"];
const MEANING: &str = "the plugin's .wasm file; or name one that was uploaded to a service, by \
                       `name` and `version`, or by `digest`";
const DIGEST: &str = "sha256:";
const DIGEST_DIGITS: usize = 64;

pub(super) fn read(
    name: Spanned<String>,
    mut table: Table,
    mistakes: &mut Diagnostics,
) -> Option<PluginConfig> {
    let version = table.optional("version");
    let is_named = table.place_of("name").is_some();
    let way = match &version {
        Some(version) if !WAYS.iter().any(|way| table.place_of(way).is_some()) => {
            for way in WAYS {
                table.optional(way);
            }
            mistakes.push(
                Mistake::new(format!("{} has a `version` and no `name`", table.owner()))
                    .at(version.key_span(), "of which plugin?")
                    .help("add `name = …`: the name of a plugin that was uploaded to a service"),
            );
            None
        }
        _ => table.required_one(&WAYS, MEANING, "each says which plugin it is", mistakes),
    };
    if let (Some((at, way)), Some(version), false) = (&way, &version, is_named) {
        mistakes.push(
            Mistake::new(format!(
                "{} has `{}` and a `version`",
                table.owner(),
                WAYS[*at]
            ))
            .at(version.key_span(), "this")
            .at(way.key_span(), "says already which plugin it is")
            .help("remove the `version`: it goes with `name`"),
        );
    }
    let from = way.and_then(|(at, way)| match WAYS[at] {
        "path" => way.path(mistakes).map(PluginFrom::Path),
        "digest" => digest(&way, mistakes).map(PluginFrom::Digest),
        _ => {
            let name = way.text("the name of a plugin, in quotes", mistakes);
            let version = match &version {
                Some(version) => Some(version.text("a version, in quotes", mistakes)?),
                None => None,
            };
            name.map(|name| PluginFrom::Named { name, version })
        }
    });
    table.finish(mistakes);
    Some(PluginConfig { name, from: from? })
}

fn digest(value: &ConfigValue<'_>, mistakes: &mut Diagnostics) -> Option<Spanned<String>> {
    let digest = value.text("a digest, in quotes", mistakes)?;
    let is_digit = |digit: u8| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
    let digits = digest.get_ref().strip_prefix(DIGEST);
    let digits = digits.filter(|digits| digits.bytes().all(is_digit));
    if digits.is_none_or(|digits| digits.len() != DIGEST_DIGITS) {
        mistakes.push(
            Mistake::new(format!("{} is not a digest", value.what()))
                .at(digest.span(), "")
                .help(format!(
                    "it is `{DIGEST}` and {DIGEST_DIGITS} digits of 0-9 and a-f, as `sluicebox \
                     inspect` and `sluicebox plugins list --json` show it"
                )),
        );
        return None;
    }
    Some(digest)
}
