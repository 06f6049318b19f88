//! `sluicebox plugins`: lists, shows, puts and deletes the plugins that a running host keeps,
//! which pipelines name by name and version, or by digest.

use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use clap::Subcommand;
use reqwest::Method;
use serde::Deserialize;

use super::CliError;
use super::client::{Client, HostArguments};
use super::format::{ago, size, table};
use crate::clock::{Clock, SystemClock};
use crate::plugin::FILE_BYTES_MAX;
use crate::plugin::inspect::Inspection;
use crate::service::needs::Need;
use crate::service::uploads::Upload;
use crate::suggest;

#[derive(Subcommand)]
pub enum PluginsCommand {
    /// List the plugins that were uploaded, and which pipelines need them
    List {
        #[command(flatten)]
        host: HostArguments,
    },
    /// Show a plugin's operators, schemas and parameters, and which pipelines need it
    Show {
        #[command(flatten)]
        plugin: PluginName,
        #[command(flatten)]
        host: HostArguments,
    },
    /// Upload a plugin, for pipelines to name by its name and version
    Put {
        /// The plugin's .wasm file, as `sluicebox build` makes it
        file: PathBuf,
        #[command(flatten)]
        host: HostArguments,
    },
    /// Delete a plugin that no pipeline needs
    Delete {
        #[command(flatten)]
        plugin: PluginName,
        #[command(flatten)]
        host: HostArguments,
    },
}

#[derive(clap::Args)]
pub struct PluginName {
    /// `NAME@VERSION`, or the beginning of its digest
    plugin: String,
}

/// A plugin in a list.
#[derive(Deserialize)]
struct Line {
    #[serde(flatten)]
    upload: Upload,
    needed_by: Vec<Need>,
}

#[derive(Deserialize)]
struct View {
    #[serde(flatten)]
    inspection: Inspection,
    uploaded_ms: i64,
    uploaded_by: String,
    needed_by: Vec<Need>,
}

const DIGEST: &str = "sha256:";
/// How many digits of a digest tell plugins apart.
const DIGITS: usize = 12;
/// Fewer may be a mistake.
const DIGITS_MIN: usize = 4;

pub fn plugins(command: &PluginsCommand) -> Result<(), CliError> {
    match command {
        PluginsCommand::List { host } => {
            let client = host.client_of_plugins()?;
            client.show(&client.get(&[], &[])?, list)
        }
        PluginsCommand::Show { plugin, host } => {
            let client = host.client_of_plugins()?;
            let upload = plugin.find(&client)?;
            client.show(&client.get(&[&upload.digest], &[])?, shown)
        }
        PluginsCommand::Put { file, host } => {
            let client = host.client_of_plugins()?;
            let bytes = read(file).map_err(CliError::Usage)?;
            client.show(&client.upload(bytes)?, |upload: Upload| {
                let Upload { name, version, .. } = &upload;
                format!(
                    "{name} {version}: {}, {}\n  a pipeline names it by: {{ name = \"{name}\", version \
                     = \"{version}\" }}\n",
                    size(upload.bytes),
                    upload.digest
                )
            })
        }
        PluginsCommand::Delete { plugin, host } => {
            let client = host.client_of_plugins()?;
            let upload = plugin.find(&client)?;
            client.ask(Method::DELETE, &[&upload.digest], &[], None)?;
            client.tell(&format!("{} {} is deleted\n", upload.name, upload.version))
        }
    }
}

fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    let cannot = || format!("cannot read the plugin {}", file.display());
    let mut bytes = Vec::new();
    let opened = std::fs::File::open(file).with_context(cannot)?;
    // The host refuses a larger one.
    let mut opened = opened.take(FILE_BYTES_MAX + 1);
    opened.read_to_end(&mut bytes).with_context(cannot)?;
    Ok(bytes)
}

impl PluginName {
    fn find(&self, client: &Client) -> Result<Upload, CliError> {
        let lines: Vec<Line> = client.get(&[], &[])?.read()?;
        let uploads: Vec<Upload> = lines.into_iter().map(|line| line.upload).collect();
        let found = find(&self.plugin, &uploads);
        found.cloned().map_err(|why| CliError::Usage(anyhow!(why)))
    }
}

/// The plugin that is meant, or why it cannot be told.
fn find<'a>(wanted: &str, uploads: &'a [Upload]) -> Result<&'a Upload, String> {
    let titles: Vec<String> = uploads.iter().map(title).collect();
    if let Some(at) = titles.iter().position(|title| title == wanted) {
        return Ok(&uploads[at]);
    }
    let digits = wanted.strip_prefix(DIGEST).unwrap_or(wanted);
    let is_digest = digits.len() >= DIGITS_MIN && digits.bytes().all(|c| c.is_ascii_hexdigit());
    let by_digest = |upload: &&Upload| {
        let of = upload.digest.strip_prefix(DIGEST);
        is_digest && of.is_some_and(|of| of.starts_with(digits))
    };
    let mut found: Vec<&Upload> = uploads.iter().filter(by_digest).collect();
    if found.is_empty() {
        found = uploads.iter().filter(|it| it.name == wanted).collect();
    }
    match found.as_slice() {
        [] => Err(format!(
            "there is no plugin `{wanted}`: {}",
            suggest::help(wanted, "plugins", titles.iter().map(String::as_str))
        )),
        [one] => Ok(one),
        several => {
            let titles: Vec<String> = several.iter().map(|it| title(it)).collect();
            let titles: Vec<&str> = titles.iter().map(String::as_str).collect();
            Err(format!("`{wanted}` may be {}", suggest::one_of(&titles)))
        }
    }
}

fn title(upload: &Upload) -> String {
    format!("{}@{}", upload.name, upload.version)
}

fn list(lines: Vec<Line>) -> String {
    if lines.is_empty() {
        return "no plugins: `sluicebox plugins put FILE` uploads one; those that pipelines name by \
                path are files on the host\n"
            .to_owned();
    }
    let now_ms = SystemClock.now_ms();
    let rows = lines.into_iter().map(|Line { upload, needed_by }| {
        vec![
            upload.name,
            upload.version,
            upload.digest.chars().take(DIGEST.len() + DIGITS).collect(),
            size(upload.bytes),
            ago(upload.uploaded_ms, now_ms),
            upload.uploaded_by,
            needs(&needed_by),
        ]
    });
    let header = [
        "plugin",
        "version",
        "digest",
        ">size",
        "uploaded",
        "by",
        "needed by",
    ];
    table(&header, rows)
}

fn needs(needed_by: &[Need]) -> String {
    match needed_by {
        [] => "-".to_owned(),
        needs => Vec::from_iter(needs.iter().map(Need::to_string)).join("; "),
    }
}

fn shown(view: View) -> String {
    let View {
        inspection,
        uploaded_ms,
        uploaded_by,
        needed_by,
    } = view;
    let uploaded = ago(uploaded_ms, SystemClock.now_ms());
    format!(
        "{}\n\nuploaded {uploaded} by {uploaded_by}, needed by {}\n",
        inspection.to_text(),
        needs(&needed_by)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upload(name: &str, version: &str, digits: &str) -> Upload {
        Upload {
            name: name.to_owned(),
            version: version.to_owned(),
            digest: format!("{DIGEST}{digits}"),
            bytes: 1_234_567,
            uploaded_ms: 0,
            uploaded_by: "operator".to_owned(),
        }
    }

    #[test]
    fn a_plugin_is_meant_by_its_version_its_digest_or_its_name_alone() {
        let uploads = [
            upload("cart", "0.1.0", "abcd01"),
            upload("cart", "0.2.0", "abcd02"),
            upload("words", "1.0.0", "0123ff"),
        ];
        let version = |wanted| find(wanted, &uploads).map(|found| found.version.as_str());
        assert_eq!(version("cart@0.2.0"), Ok("0.2.0"));
        assert_eq!(version("sha256:abcd01"), Ok("0.1.0"));
        assert_eq!(version("abcd02"), Ok("0.2.0"));
        assert_eq!(version("words"), Ok("1.0.0"));
        for (wanted, why) in [
            ("cart", "`cart` may be cart@0.1.0 or cart@0.2.0"),
            ("abcd", "`abcd` may be cart@0.1.0 or cart@0.2.0"),
            ("012", "there is no plugin `012`"),
            ("wrods@1.0.0", "did you mean `words@1.0.0`?"),
        ] {
            let error = find(wanted, &uploads).expect_err(wanted);
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn a_list_says_who_needs_what() {
        let need = Need {
            pipeline: "shop".to_owned(),
            uses: vec![crate::service::needs::Use::Running],
            checkpoints: vec![7],
        };
        let lines = vec![
            Line {
                upload: upload("cart", "0.1.0", "0123456789abcdef"),
                needed_by: vec![need],
            },
            Line {
                upload: upload("words", "1.0.0", "fedcba9876543210"),
                needed_by: Vec::new(),
            },
        ];
        let text = list(lines);
        let cart = text.lines().nth(1).unwrap_or_default();
        assert!(cart.contains("sha256:0123456789ab  1.2 MB"), "{text}");
        assert!(
            cart.ends_with("operator  shop (running, checkpoint 7)"),
            "{text}"
        );
        assert!(
            text.lines().nth(2).is_some_and(|line| line.ends_with('-')),
            "{text}"
        );
    }
}
