//! Hides what may be secret in a pipeline's file, so that messages can quote it.

use std::ops::Range;

use toml::de::{DeTable, DeValue};

/// Tables that hold settings of other systems, passwords among them. A key of
/// theirs may be misspelt, so every text in them counts as secret.
const SECRET_TABLES: &[&str] = &["properties", "options"];

/// Parts of keys whose lines are hidden where the file is not TOML.
const SECRET_WORDS: &[&str] = &["pas", "pwd", "secret", "token", "credential", "jaas", "key"];

/// The text with `*` for each byte that may be secret. All places stay the same.
/// `is_toml` tells whether the document is the whole text.
pub fn masked(document: &DeTable<'_>, text: &str, is_toml: bool) -> String {
    let mut secrets = Vec::new();
    find(document, false, &mut secrets);
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

/// Finds the texts in secret tables; `is_secret` says whether this is within one.
fn find(table: &DeTable<'_>, is_secret: bool, secrets: &mut Vec<Range<usize>>) {
    for (key, value) in table {
        match value.get_ref() {
            DeValue::Table(table) => {
                let is_named_so = SECRET_TABLES.contains(&key.get_ref().as_ref());
                find(table, is_secret || is_named_so, secrets);
            }
            DeValue::String(_) if is_secret => secrets.push(value.span()),
            _ => {}
        }
    }
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
    fn a_file_that_is_no_toml_hides_by_words() {
        let shown = mask("name = \"shop\"\npassword = \"hunter2\nx =\n");
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(shown.contains("shop"), "{shown}");
    }
}
