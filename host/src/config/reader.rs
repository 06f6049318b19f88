//! Reads TOML tables key by key: each read says what it expects, mistakes keep
//! their places, and keys that nobody read are unknown.
//!
//! Serde is not used: it stops at the first mistake and loses the places of
//! values in enums.

use std::ops::RangeInclusive;

use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue};

use super::diagnostics::{Diagnostics, Mistake, Span};
use crate::{quantity, suggest};

/// A table that is being read.
pub struct Table<'a> {
    /// Whose table it is, for messages: "operator `clean`".
    owner: String,
    /// Where the owner is named.
    place: Span,
    /// In the order of the file.
    entries: Vec<TableEntry<'a>>,
    /// The keys that were read, and so the valid ones.
    known: Vec<&'static str>,
}

struct TableEntry<'a> {
    key: Spanned<String>,
    value: &'a Spanned<DeValue<'a>>,
    read: bool,
}

/// A value and its name in messages: "`window` of operator `added`".
pub struct ConfigValue<'a> {
    what: String,
    key: Span,
    value: &'a Spanned<DeValue<'a>>,
}

impl<'a> Table<'a> {
    pub fn new(owner: impl Into<String>, place: Span, table: &'a DeTable<'a>) -> Self {
        let mut entries: Vec<TableEntry> = table
            .iter()
            .map(|(key, value)| TableEntry {
                key: Spanned::new(key.span(), key.get_ref().to_string()),
                value,
                read: false,
            })
            .collect();
        entries.sort_by_key(|entry| entry.key.span().start);
        Table {
            owner: owner.into(),
            place,
            entries,
            known: Vec::new(),
        }
    }

    pub fn owned_by(mut self, owner: &str, place: Span) -> Self {
        self.owner = owner.to_owned();
        self.place = place;
        self
    }

    /// The place of a key's value.
    pub fn place_of(&self, key: &str) -> Option<Span> {
        let entry = self.entries.iter().find(|entry| entry.key.get_ref() == key);
        entry.map(|entry| entry.value.span())
    }

    pub fn owner(&self) -> &str {
        &self.owner
    }

    pub fn place(&self) -> Span {
        self.place.clone()
    }

    pub fn optional(&mut self, key: &'static str) -> Option<ConfigValue<'a>> {
        if !self.known.contains(&key) {
            self.known.push(key);
        }
        let entry = self
            .entries
            .iter_mut()
            .find(|entry| entry.key.get_ref() == key)?;
        entry.read = true;
        Some(ConfigValue {
            what: format!("`{key}` of {}", self.owner),
            key: entry.key.span(),
            value: entry.value,
        })
    }

    pub fn required(
        &mut self,
        key: &'static str,
        meaning: &str,
        mistakes: &mut Diagnostics,
    ) -> Option<ConfigValue<'a>> {
        let value = self.optional(key);
        if value.is_none() {
            self.report_missing(&[key], meaning, mistakes);
        }
        value
    }

    /// Reports that none of these keys is there; the first is the usual one.
    fn report_missing(&self, keys: &[&str], meaning: &str, mistakes: &mut Diagnostics) {
        // A misspelt key is reported by [`Table::finish`], with a suggestion.
        let unread = self.entries.iter().filter(|entry| !entry.read);
        let mut names = unread.map(|entry| entry.key.get_ref());
        if names.any(|name| suggest::nearest(name, keys.iter().copied()).is_some()) {
            return;
        }
        let key = keys[0];
        mistakes.push(
            Mistake::new(format!("{} has no `{key}`", self.owner))
                .at(self.place(), "")
                .help(format!("add `{key} = …`: {meaning}")),
        );
    }

    /// The one of these keys that is there, with its place among them. If there is none,
    /// the first is missing. `why` says why there is one.
    pub fn required_one(
        &mut self,
        keys: &[&'static str],
        meaning: &str,
        why: &str,
        mistakes: &mut Diagnostics,
    ) -> Option<(usize, ConfigValue<'a>)> {
        let mut given: Vec<(usize, ConfigValue)> = Vec::new();
        for (at, key) in keys.iter().enumerate() {
            given.extend(self.optional(key).map(|value| (at, value)));
        }
        if given.is_empty() {
            self.report_missing(keys, meaning, mistakes);
        }
        given.sort_by_key(|(_, value)| value.key.start);
        if let [first, second, ..] = given.as_slice() {
            let name = |(at, _): &(usize, ConfigValue)| keys[*at];
            mistakes.push(
                Mistake::new(format!(
                    "{} has `{}` and `{}`",
                    self.owner,
                    name(first),
                    name(second)
                ))
                .at(second.1.key_span(), "either this")
                .at(first.1.key_span(), "or this")
                .help(format!("remove one of them: {why}")),
            );
            return None;
        }
        given.pop()
    }

    /// Reports the keys that were not read.
    pub fn finish(self, mistakes: &mut Diagnostics) {
        for entry in self.entries.iter().filter(|entry| !entry.read) {
            let key = entry.key.get_ref();
            mistakes.push(
                Mistake::new(format!("{} has an unknown key `{key}`", self.owner))
                    .at(entry.key.span(), "unknown key")
                    .help(suggest::help(key, "keys here", self.known.iter().copied())),
            );
        }
    }

    /// All entries of a table whose keys are names chosen by the author.
    pub fn into_entries(self) -> impl Iterator<Item = (Spanned<String>, ConfigValue<'a>)> {
        let owner = self.owner;
        self.entries.into_iter().map(move |entry| {
            let value = ConfigValue {
                what: format!("`{}` of {owner}", entry.key.get_ref()),
                key: entry.key.span(),
                value: entry.value,
            };
            (entry.key, value)
        })
    }
}

impl<'a> ConfigValue<'a> {
    pub fn named(mut self, what: &str) -> Self {
        self.what = what.to_owned();
        self
    }

    pub fn what(&self) -> &str {
        &self.what
    }

    /// The mistake of a key that has no meaning beside others.
    pub fn means_nothing(&self, help: impl Into<String>) -> Mistake {
        Mistake::new(format!("{} means nothing here", self.what()))
            .at(self.key_span(), "")
            .help(help)
    }

    pub fn key_span(&self) -> Span {
        self.key.clone()
    }

    pub fn span(&self) -> Span {
        self.value.span()
    }

    pub fn raw(&self) -> &'a DeValue<'a> {
        self.value.get_ref()
    }

    /// Reports that the value is not the expected one.
    pub fn refuse(&self, wanted: &str, mistakes: &mut Diagnostics) {
        let found = format!("this is {}", kind(self.raw()));
        mistakes
            .push(Mistake::new(format!("{} must be {wanted}", self.what)).at(self.span(), found));
    }

    pub fn text(&self, wanted: &str, mistakes: &mut Diagnostics) -> Option<Spanned<String>> {
        match self.raw() {
            DeValue::String(text) => Some(Spanned::new(self.span(), text.to_string())),
            _ => {
                self.refuse(wanted, mistakes);
                None
            }
        }
    }

    /// Reads a new name; `what` is "the name of a column".
    pub fn name(&self, what: &str, mistakes: &mut Diagnostics) -> Option<Spanned<String>> {
        let name = self.text("a name, in quotes", mistakes)?;
        check_name(what, &name, mistakes).then_some(name)
    }

    pub fn path(&self, mistakes: &mut Diagnostics) -> Option<Spanned<String>> {
        let path = self.text("a path, in quotes", mistakes)?;
        if path.get_ref().is_empty() || path.get_ref().contains('\0') {
            mistakes.push(
                Mistake::new(format!("{} is not a path", self.what))
                    .at(path.span(), "")
                    .help("write the path of a file, from the folder of this one"),
            );
            return None;
        }
        Some(path)
    }

    pub fn boolean(&self, mistakes: &mut Diagnostics) -> Option<bool> {
        let boolean = self.raw().as_bool();
        if boolean.is_none() {
            self.refuse("true or false", mistakes);
        }
        boolean
    }

    pub fn integer(
        &self,
        range: RangeInclusive<i64>,
        mistakes: &mut Diagnostics,
    ) -> Option<Spanned<i64>> {
        let (least, most) = (*range.start(), *range.end());
        let wanted = match most {
            i64::MAX => format!("a whole number of at least {least}"),
            _ => format!("a whole number from {least} to {most}"),
        };
        let DeValue::Integer(integer) = self.raw() else {
            self.refuse(&wanted, mistakes);
            return None;
        };
        match to_i64(integer) {
            Some(number) if range.contains(&number) => Some(Spanned::new(self.span(), number)),
            _ => {
                self.out_of_range(&wanted, mistakes);
                None
            }
        }
    }

    /// A finite number above zero.
    pub fn positive_number(&self, mistakes: &mut Diagnostics) -> Option<f64> {
        let wanted = "a number above 0";
        let number = match self.raw() {
            DeValue::Integer(integer) => to_i64(integer).map(|number| number as f64),
            DeValue::Float(float) => float.as_str().parse().ok(),
            _ => {
                self.refuse(wanted, mistakes);
                return None;
            }
        };
        let number = number.filter(|number: &f64| number.is_finite() && *number > 0.0);
        if number.is_none() {
            self.out_of_range(wanted, mistakes);
        }
        number
    }

    /// Reads a duration in milliseconds, at least `least_ms`.
    pub fn duration(&self, least_ms: i64, mistakes: &mut Diagnostics) -> Option<Spanned<i64>> {
        let text = self.text(
            "a duration, such as \"500ms\", \"5s\" or \"1h 30m\"",
            mistakes,
        )?;
        match quantity::duration_ms(text.get_ref()) {
            Ok(ms) if ms >= least_ms => Some(Spanned::new(self.span(), ms)),
            Ok(_) => {
                let wanted = format!("at least {}", quantity::show_ms(least_ms));
                self.out_of_range(&wanted, mistakes);
                None
            }
            Err(problem) => {
                mistakes.push(
                    Mistake::new(format!("{} is not a duration: {problem}", self.what))
                        .at(self.span(), "")
                        .help(
                            "write a number with ms, s, m, h or d, such as \"500ms\" or \"1h 30m\"",
                        ),
                );
                None
            }
        }
    }

    pub fn bytes(&self, range: RangeInclusive<u64>, mistakes: &mut Diagnostics) -> Option<u64> {
        let text = self.text("a size, such as \"64MiB\"", mistakes)?;
        match quantity::bytes(text.get_ref()) {
            Ok(bytes) if range.contains(&bytes) => Some(bytes),
            Ok(_) => {
                let [least, most] = [range.start(), range.end()].map(|b| quantity::show_bytes(*b));
                self.out_of_range(&format!("from {least} to {most}"), mistakes);
                None
            }
            Err(problem) => {
                mistakes.push(
                    Mistake::new(format!("{} is not a size: {problem}", self.what))
                        .at(self.span(), "")
                        .help("write a whole number with B, KiB, MiB or GiB, such as \"64MiB\""),
                );
                None
            }
        }
    }

    /// Reads one of several words.
    pub fn choice<T: Clone>(
        &self,
        choices: &[(&str, T)],
        mistakes: &mut Diagnostics,
    ) -> Option<Spanned<T>> {
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        let text = self.text(&format!("one of: {}", suggest::listed(&words)), mistakes)?;
        let found = choices.iter().find(|(word, _)| word == text.get_ref());
        if found.is_none() {
            mistakes.push(
                Mistake::new(format!("{} cannot be `{}`", self.what, text.get_ref()))
                    .at(self.span(), "")
                    .help(suggest::help(text.get_ref(), "choices", words)),
            );
        }
        found.map(|(_, chosen)| Spanned::new(self.span(), chosen.clone()))
    }

    pub fn table(&self, mistakes: &mut Diagnostics) -> Option<Table<'a>> {
        match self.raw() {
            DeValue::Table(table) => Some(Table::new(self.what.clone(), self.key_span(), table)),
            _ => {
                self.refuse("a table", mistakes);
                None
            }
        }
    }

    /// An element of this list, with the list's name in messages.
    pub fn element(&self, value: &'a Spanned<DeValue<'a>>) -> ConfigValue<'a> {
        ConfigValue {
            what: self.what.clone(),
            key: self.key_span(),
            value,
        }
    }

    /// Reads a value or a list of values with `read`.
    pub fn one_or_more<T>(
        &self,
        wanted: &str,
        mistakes: &mut Diagnostics,
        read: impl Fn(&ConfigValue<'a>, &mut Diagnostics) -> Option<T>,
    ) -> Option<Vec<T>> {
        match self.raw() {
            DeValue::String(_) => Some(vec![read(self, mistakes)?]),
            DeValue::Array(elements) => {
                let values: Vec<Option<T>> = elements
                    .iter()
                    .map(|element| read(&self.element(element), mistakes))
                    .collect();
                values.into_iter().collect()
            }
            _ => {
                self.refuse(wanted, mistakes);
                None
            }
        }
    }

    fn out_of_range(&self, wanted: &str, mistakes: &mut Diagnostics) {
        mistakes.push(Mistake::new(format!("{} must be {wanted}", self.what)).at(self.span(), ""));
    }
}

/// What names are, as messages say it.
pub const NAMES: &str =
    "names start with a letter or _, and have up to 100 letters, digits, _ and -";

/// The same as a regular expression, for descriptions of requests.
pub const NAME_PATTERN: &str = "^[A-Za-z_][A-Za-z0-9_-]{0,99}$";

pub fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.len() <= 100
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
}

/// Checks a name. Names are parts of other names (`plugin.operator`,
/// `added.late`), of file names and of metrics.
pub fn check_name(what: &str, name: &Spanned<String>, mistakes: &mut Diagnostics) -> bool {
    let text = name.get_ref();
    let good = is_name(text);
    if !good {
        mistakes.push(
            Mistake::new(format!("`{text}` cannot be {what}"))
                .at(name.span(), "")
                .help(NAMES),
        );
    }
    good
}

pub fn to_i64(integer: &DeInteger<'_>) -> Option<i64> {
    i64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
