//! Secrets: reads those that are outside a pipeline's file, and hides what may be
//! secret in it, so that messages can quote it.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostics::{Diagnostics, Mistake, SecretAccess};
use super::reader::{ConfigValue, Table};
use crate::credentials;
use crate::suggest;

/// Tables that hold settings of other systems, passwords among them. A key of
/// theirs may be misspelt, so every text in them counts as secret.
const SECRET_TABLES: &[&str] = &["properties", "options"];

/// Tables of the names of fields, which may be called as they like.
const PLAIN_TABLES: &[&str] = &["fields", "folders", "names"];

/// Tables of tables that are called as their authors like.
const NAMED_TABLES: &[&str] = &["plugins", "sources", "operators", "sinks"];

/// Tables that may have secrets among other texts.
const MIXED_TABLES: &[&str] = &["headers"];

/// What may be a secret by itself.
const SECRET_KEYS: &[&str] = &["password", "token", "url"];

/// The keys of a table that says where a secret is.
const PLACES: &[&str] = &["env", "file"];

/// No password is longer; a larger file was named by mistake.
const SECRET_BYTES_MAX: u64 = 1 << 20;

/// Parts of keys whose lines are hidden where the file is not TOML.
const SECRET_WORDS: &[&str] = &[
    "pas",
    "pwd",
    "secret",
    "token",
    "credential",
    "jaas",
    "authorization",
    "api-key",
    "key",
];

enum SecretPlace {
    Variable(Spanned<String>),
    File(Spanned<String>),
}

/// Reads a secret: a text, or where it is, as [`read_outside`] does.
pub fn read(value: &ConfigValue, mistakes: &mut Diagnostics) -> Option<String> {
    match value.raw() {
        DeValue::Table(_) => read_outside(value, mistakes),
        _ => value
            .text(
                "a text, { env = \"NAME\" } or { file = \"path\" }",
                mistakes,
            )
            .map(Spanned::into_inner),
    }
}

/// Reads a text that is outside the pipeline's file: `{ env = "NAME" }` or
/// `{ file = "path" }`, whose last line end is cut off. Returns `None` after a mistake,
/// and if secrets are left out. No message has the text.
pub fn read_outside(value: &ConfigValue, mistakes: &mut Diagnostics) -> Option<String> {
    let mut table = value.table(mistakes)?;
    let place = match (table.optional("env"), table.optional("file")) {
        (Some(variable), None) => SecretPlace::Variable(
            variable.text("the name of an environment variable, in quotes", mistakes)?,
        ),
        (None, Some(path)) => SecretPlace::File(path.path(mistakes)?),
        (variable, _) => {
            let is = match variable {
                Some(_) => "says twice where its text is",
                None => "does not say where its text is",
            };
            mistakes.push(
                Mistake::new(format!("{} {is}", value.what()))
                    .at(value.span(), "")
                    .help(
                        "write a text, { env = \"NAME\" } or { file = \"path\" }; a name with \
                         dots is in quotes",
                    ),
            );
            return None;
        }
    };
    table.finish(mistakes);
    if mistakes.secrets == SecretAccess::LeftOut {
        return None;
    }
    let (wanted, place, read) = match place {
        SecretPlace::Variable(name) => (
            format!("the environment variable `{}`", name.get_ref()),
            name.span(),
            read_variable(name.get_ref()),
        ),
        SecretPlace::File(path) => (
            format!("the file `{}`", path.get_ref()),
            path.span(),
            read_file(&mistakes.folder().join(path.get_ref())),
        ),
    };
    let problem = match read {
        Ok(text) if text.contains('\0') => "it has a zero byte".to_owned(),
        Ok(text) => return Some(text),
        Err(problem) => problem,
    };
    mistakes.push(
        Mistake::new(format!("{} needs {wanted}: {problem}", value.what()))
            .at(place, "")
            .help("set it where the pipeline runs, or correct its name"),
    );
    None
}

fn read_variable(name: &str) -> Result<String, String> {
    match std::env::var_os(name) {
        None => Err("it is not set".into()),
        Some(text) => text
            .into_string()
            .map_err(|_| "it is not text in UTF-8".into()),
    }
}

fn read_file(path: &Path) -> Result<String, String> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(SECRET_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => "it does not exist".to_owned(),
            _ => error.to_string(),
        })?;
    if bytes.len() as u64 > SECRET_BYTES_MAX {
        return Err("it is too large for a secret".into());
    }
    let mut text = String::from_utf8(bytes).map_err(|_| "it is not text in UTF-8")?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}

/// The text with `*` for each byte that may be secret. All places stay the same.
/// `is_toml` tells whether the document is the whole text.
pub fn masked(document: &DeTable<'_>, text: &str, is_toml: bool) -> String {
    let mut secrets = Vec::new();
    find(document, Within::Others, &mut secrets);
    find_credentials(document, Within::Others, &mut secrets);
    secrets.extend(credentials::find(text));
    if !is_toml {
        secrets.extend(secret_lines(text));
    }
    let mut masked = text.as_bytes().to_vec();
    for byte in secrets.into_iter().flatten() {
        if let Some(byte) = masked.get_mut(byte)
            && !matches!(byte, b'\n' | b'\r' | b'"' | b'\'')
        {
            *byte = b'*';
        }
    }
    // Only whole values were replaced, by ASCII.
    String::from_utf8_lossy(&masked).into_owned()
}

/// Refuses addresses with secrets in them: a plan shows addresses. Those among the settings
/// of other systems are never shown.
pub fn refuse_credentials(document: &DeTable<'_>, mistakes: &mut Diagnostics) {
    let mut places = Vec::new();
    find_credentials(document, Within::Others, &mut places);
    for place in places {
        mistakes.push(
            Mistake::new(
                "an address has a user, a password or a signature in it, and addresses are shown \
                 in plans and messages",
            )
            .at(place, "")
            .help(
                "write the address without it; passwords and keys belong into `properties` of \
                 Kafka, or `options` of an upload, where `{ env = \"NAME\" }` and \
                 `{ file = \"path\" }` read them from outside; an `@` in a path is written `%40`",
            ),
        );
    }
}

/// Finds the keys and texts with such addresses, outside secret tables.
fn find_credentials(table: &DeTable<'_>, within: Within, places: &mut Vec<Range<usize>>) {
    for (key, value) in table {
        let name: &str = key.get_ref();
        if credentials::has_any(name) {
            places.push(key.span());
        }
        let within = match name {
            _ if SECRET_TABLES.contains(&name) => Within::Secrets,
            _ if PLAIN_TABLES.contains(&name) && within == Within::Others => Within::Fields,
            _ => within,
        };
        find_credentials_of(value, within, places);
    }
}

fn find_credentials_of(
    value: &Spanned<DeValue<'_>>,
    within: Within,
    places: &mut Vec<Range<usize>>,
) {
    match value.get_ref() {
        DeValue::Table(table) if within == Within::Secrets && is_place(table) => {
            find_credentials(table, Within::Others, places);
        }
        DeValue::Table(table) => find_credentials(table, within, places),
        DeValue::Array(values) => {
            for value in values {
                find_credentials_of(value, within, places);
            }
        }
        DeValue::String(text) if within == Within::Others && credentials::has_any(text) => {
            places.push(value.span());
        }
        _ => {}
    }
}

/// What a table has.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Within {
    /// Settings of another system.
    Secrets,
    /// Fields, by their names.
    Fields,
    /// Parts of the pipeline, by their names.
    Parts,
    Others,
}

/// The files that secrets are read of.
pub fn files(document: &DeTable<'_>) -> Vec<Spanned<String>> {
    let mut files = Vec::new();
    find_files(document, Within::Others, &mut files);
    files
}

fn find_files(table: &DeTable<'_>, within: Within, files: &mut Vec<Spanned<String>>) {
    for (key, value) in table {
        let DeValue::Table(table) = value.get_ref() else {
            continue;
        };
        let name: &str = key.get_ref();
        if (within == Within::Secrets || SECRET_KEYS.contains(&name)) && is_place(table) {
            let file = table.get("file");
            let path = file.and_then(|path| Some((path.span(), path.get_ref().as_str()?)));
            files.extend(path.map(|(span, path)| Spanned::new(span, path.to_owned())));
            continue;
        }
        let has_secrets = SECRET_TABLES.contains(&name) || MIXED_TABLES.contains(&name);
        let within = match has_secrets {
            true => Within::Secrets,
            false => within,
        };
        find_files(table, within, files);
    }
}

/// Finds the texts that may be secret. One that belongs into a secret table may be
/// elsewhere by mistake: its key tells.
fn find(table: &DeTable<'_>, within: Within, secrets: &mut Vec<Range<usize>>) {
    for (key, value) in table {
        let name: &str = key.get_ref();
        let is_secret = match within {
            Within::Secrets => true,
            Within::Others if value.get_ref().is_table() => is_secret_table(name),
            _ => SECRET_TABLES.contains(&name),
        };
        match value.get_ref() {
            // Where a secret is may be shown.
            DeValue::Table(table) if within == Within::Secrets && is_place(table) => {}
            DeValue::Table(table) if is_secret => find(table, Within::Secrets, secrets),
            DeValue::Table(table) => {
                let within = match name {
                    _ if PLAIN_TABLES.contains(&name) => Within::Fields,
                    _ if NAMED_TABLES.contains(&name) => Within::Parts,
                    _ => Within::Others,
                };
                find(table, within, secrets);
            }
            _ if within != Within::Fields && looks_secret(name) => secrets.push(value.span()),
            DeValue::String(_) if is_secret => secrets.push(value.span()),
            DeValue::Array(values) if is_secret => {
                let texts = values.iter().filter(|value| value.get_ref().is_str());
                secrets.extend(texts.map(Spanned::span));
            }
            _ => {}
        }
    }
}

/// Whether a table has settings of another system, be its name misspelt.
fn is_secret_table(name: &str) -> bool {
    let names = SECRET_TABLES.iter().copied();
    SECRET_TABLES.contains(&name) || suggest::nearest(name, names).is_some()
}

/// Whether a key is that of a secret, be it misspelt. Many keys are called `key`.
fn looks_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    let mut words = SECRET_WORDS.iter().filter(|word| **word != "key");
    words.any(|word| key.contains(word))
}

fn is_place(table: &DeTable<'_>) -> bool {
    let is_known = |key: &str| PLACES.contains(&key);
    table.len() == 1 && table.keys().all(|key| is_known(key.get_ref()))
}

/// What follows the `=` of lines whose key looks secret.
fn secret_lines(text: &str) -> Vec<Range<usize>> {
    let mut start = 0;
    let mut secrets = Vec::new();
    for line in text.split_inclusive('\n') {
        let end = start + line.len();
        if let Some(equals) = line.find('=') {
            let line = line.to_ascii_lowercase();
            if SECRET_WORDS.iter().any(|word| line.contains(word)) {
                secrets.push(start + equals + 1..end);
            }
        }
        start = end;
    }
    secrets
}

/// Reads options of an object store, which checks them itself.
pub fn read_options(table: Table, mistakes: &mut Diagnostics) -> Vec<(String, String)> {
    let mut options = Vec::new();
    for (name, value) in table.into_entries() {
        let text = match value.raw() {
            DeValue::String(text) => text.to_string(),
            DeValue::Boolean(boolean) => boolean.to_string(),
            DeValue::Integer(integer) => integer.to_string(),
            DeValue::Table(_) => match read_outside(&value, mistakes) {
                Some(text) => text,
                None => continue,
            },
            _ => {
                value.refuse(
                    "a text, { env = \"NAME\" }, { file = \"path\" }, a whole number, true or \
                     false",
                    mistakes,
                );
                continue;
            }
        };
        options.push((name.into_inner(), text));
    }
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(text: &str) -> String {
        let (document, errors) = DeTable::parse_recoverable(text);
        masked(document.get_ref(), text, errors.is_empty())
    }

    #[test]
    fn texts_among_the_settings_of_other_systems_are_hidden() {
        let text = "[sources.a]\ntopic = \"t\"\nproperties = { \"sasl.pasword\" = \"hünter2\", \"linger.ms\" = 5 }\n";
        let shown = mask(text);
        assert_eq!(shown.len(), text.len());
        assert_eq!(
            shown,
            "[sources.a]\ntopic = \"t\"\nproperties = { \"sasl.pasword\" = \"********\", \"linger.ms\" = 5 }\n"
        );
        assert!(!mask("[checkpoints.upload.options]\nkey_id = 'AKIA'\n").contains("AKIA"));
    }

    #[test]
    fn files_of_secrets_are_found() {
        let text = "[sinks.a]\nfile = { file = \"no\" }\nproperties = { \"file\" = \"no\", a = { file = \"one\" }, b = { env = \"no\" } }\n[sinks.b]\nheaders = { a = { file = \"three\" } }\n[sources.c]\ntoken = { file = \"four\" }\n[checkpoints.upload.options]\nkey = { file = \"two\" }\n";
        let (document, _) = DeTable::parse_recoverable(text);
        let mut found = files(document.get_ref());
        found.sort_by_key(|it| it.span().start);
        let found: Vec<&str> = found.iter().map(|it| it.get_ref().as_str()).collect();
        assert_eq!(found, ["one", "three", "four", "two"]);
    }

    #[test]
    fn a_secret_that_is_elsewhere_by_mistake_is_hidden() {
        for text in [
            "[sources.a]\nsasl.password = \"hunter2\"\n",
            "[sources.a]\n\"ssl.key.pasword\" = 'hunter2'\n",
            "[sources.a]\nproprties = { \"sasl.password\" = \"hunter2\" }\n",
            "[sources.a]\nproperties = [\"hunter2\"]\n",
            "[sources.a]\nproprties = { \"sasl.username\" = \"hunter2\" }\n",
            "[checkpoints]\nupload = { optoins = { aws_access_key_id = \"hunter2\" } }\n",
            "[sources.a]\ntoken = \"hunter2\"\n",
            "[sinks.a]\nheaders = { Authorization = \"Bearer hunter2\", X-Api-Key = \"hunter2\" }\n",
            "[sinks.names]\nproperties = { a = \"hunter2\" }\n",
            "[checkpoints]\nupload = { aws_secret_access_key = [\"hunter2\"] }\n",
        ] {
            assert!(!mask(text).contains("hunter2"), "{text}");
        }
        for text in [
            "[operators.passed]\nkey = \"id\"\nfields = { password = \"utf8\" }\n",
            // Nearly `options`.
            "[sources.actions]\ntype = \"file\"\n",
            "[operators.counted]\naggregate = { actions = \"count()\" }\n",
        ] {
            assert_eq!(mask(text), text);
        }
    }

    #[test]
    fn where_a_secret_is_is_shown() {
        let text = "[properties]\na = { env = \"NAME\" }\nb = { file = \"path\" }\n";
        assert_eq!(mask(text), text);
        let shown = mask("[properties]\na = { env = \"NAME\", password = \"hunter2\" }\n");
        assert!(!shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn a_file_loses_its_last_line_end_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let read = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            read_file(&path)
        };
        assert_eq!(read(b"hunter2"), Ok("hunter2".into()));
        assert_eq!(read(b" hunter2 \n"), Ok(" hunter2 ".into()));
        assert_eq!(read(b"hunter2\r\n"), Ok("hunter2".into()));
        assert_eq!(read(b"a\n\n"), Ok("a\n".into()));
        assert_eq!(read(b"\xFF"), Err("it is not text in UTF-8".into()));
        assert!(read(&vec![b'a'; SECRET_BYTES_MAX as usize + 1]).is_err());
    }

    #[test]
    fn a_file_that_is_no_toml_hides_by_words() {
        let shown = mask("name = \"shop\"\npassword = \"hunter2\nx =\n");
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(shown.contains("shop"), "{shown}");
    }
}
