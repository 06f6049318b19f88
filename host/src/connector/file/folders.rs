//! Folders that the fields of a row name: `out/date={ts:%Y-%m-%d}/{country}/`.
//!
//! A folder's name is the field's value as text. What a name cannot have, or tools that read
//! such folders take for something else, is escaped as Hive does it (`%2F`); a name that is
//! too long is cut, and ends with a digest of all of it. So each row has a folder, whatever
//! its values are.

use std::ops::Range;

use arrow_array::cast::AsArray;
use arrow_array::types::TimestampMillisecondType;
use arrow_array::{Array, ArrayRef};
use jiff::fmt::strtime::BrokenDownTime;
use jiff::tz::TimeZone;

use super::digest::digest_of;
use crate::batch::Batch;
use crate::connector::template::{self, Part};
use crate::schema::{DataType, Schema};
use crate::suggest;
use crate::text::write_text;
use crate::timestamp;

/// The folder of rows whose field is null or empty.
pub const NO_VALUE: &str = "__HIVE_DEFAULT_PARTITION__";

/// The longest name that file systems take.
const NAME_BYTES_MAX: usize = 255;

/// How much of a longer one is kept.
const NAME_BYTES_KEPT: usize = 200;

/// A path with fields in its folders, as the pipeline's file has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrittenFolders {
    /// What is before the first folder with a field.
    pub base: String,
    /// The folders below, each of its pieces.
    folders: Vec<Vec<WrittenPiece>>,
    /// The name of the files, which may be empty.
    pub file: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum WrittenPiece {
    Text(String),
    Field {
        name: String,
        /// How a time is written.
        pattern: Option<String>,
    },
}

/// Why a path cannot be used: what is wrong, and what to do.
#[derive(Debug, PartialEq, Eq)]
pub struct Wrong {
    pub why: String,
    pub help: String,
}

impl Wrong {
    fn new(why: impl Into<String>, help: impl Into<String>) -> Self {
        Wrong {
            why: why.into(),
            help: help.into(),
        }
    }
}

/// Whether a path may have fields in it.
pub fn has_fields(path: &str) -> bool {
    path.contains(['{', '}'])
}

impl WrittenFolders {
    /// Reads a path with braces, perhaps all of them double.
    pub fn parse(path: &str) -> Result<Self, Wrong> {
        let parts = template::parse(path).map_err(|(why, _): (_, Range<usize>)| {
            let help = "write fields in braces, as in \"out/date={ts:%Y-%m-%d}/{country}/\"; a \
                        brace that is meant is written twice";
            Wrong::new(why, help)
        })?;
        let mut folders = vec![Vec::new()];
        for part in parts {
            match part {
                Part::Field(written, _) => {
                    let (name, pattern) = match written.split_once(':') {
                        Some((name, pattern)) => (name, Some(pattern.to_owned())),
                        None => (written.as_str(), None),
                    };
                    let name = name.to_owned();
                    push(&mut folders, WrittenPiece::Field { name, pattern });
                }
                Part::Text(text) => {
                    for (index, text) in text.split('/').enumerate() {
                        if index > 0 {
                            folders.push(Vec::new());
                        }
                        if !text.is_empty() {
                            push(&mut folders, WrittenPiece::Text(text.to_owned()));
                        }
                    }
                }
            }
        }
        let file = folders.pop().unwrap_or_default();
        let Some(file) = text_of(&file) else {
            return Err(Wrong::new(
                "it has a field in the name of its files",
                "fields name folders: write a `/` behind the last one, and the files' name behind \
                 that if it is to be another than `part`",
            ));
        };
        let is_named = |folder: &Vec<WrittenPiece>| text_of(folder).is_none();
        let first = folders.iter().position(is_named).unwrap_or(folders.len());
        let below = folders.split_off(first);
        let base = folders.iter().filter_map(|folder| text_of(folder));
        let base: String = base.map(|folder| folder + "/").collect();
        let mut folders = Vec::new();
        for folder in below {
            match text_of(&folder).as_deref() {
                Some("" | ".") => {}
                Some("..") => {
                    return Err(Wrong::new(
                        "it has a `..` behind a field",
                        "write the path without it",
                    ));
                }
                _ => folders.push(folder),
            }
        }
        let has_control = |text: &str| text.contains(char::is_control);
        let mut pieces = folders.iter().flatten();
        let in_folders =
            pieces.any(|piece| matches!(piece, WrittenPiece::Text(text) if has_control(text)));
        let is_wrong = in_folders || has_control(&base) || has_control(&file);
        if is_wrong && !folders.is_empty() {
            return Err(Wrong::new("it has a control character", "leave it out"));
        }
        Ok(WrittenFolders {
            base,
            folders,
            file,
        })
    }

    /// Whether any folder has a field.
    pub fn has_fields(&self) -> bool {
        !self.folders.is_empty()
    }

    /// Finds the fields in the rows of a sink.
    pub fn plan(&self, columns: &Schema) -> Result<Folders, Wrong> {
        let mut folders = Vec::new();
        for folder in &self.folders {
            let pieces = folder.iter().map(|piece| match piece {
                WrittenPiece::Text(text) => Ok(Piece::Text(text.clone())),
                WrittenPiece::Field { name, pattern } => piece_of(columns, name, pattern),
            });
            folders.push(pieces.collect::<Result<Vec<Piece>, Wrong>>()?);
        }
        Ok(Folders { folders })
    }
}

fn push(folders: &mut [Vec<WrittenPiece>], piece: WrittenPiece) {
    if let Some(folder) = folders.last_mut() {
        folder.push(piece);
    }
}

/// The name of a folder without fields.
fn text_of(pieces: &[WrittenPiece]) -> Option<String> {
    let texts = pieces.iter().map(|piece| match piece {
        WrittenPiece::Text(text) => Some(text.as_str()),
        WrittenPiece::Field { .. } => None,
    });
    texts.collect()
}

fn piece_of(columns: &Schema, name: &str, pattern: &Option<String>) -> Result<Piece, Wrong> {
    let Some(column) = columns.index_of(name) else {
        let fields = columns.fields.iter().map(|field| field.name.as_str());
        return Err(Wrong::new(
            format!("no row has the field `{name}`"),
            suggest::help(name, "fields", fields),
        ));
    };
    let data_type = &columns.fields[column].data_type;
    match (data_type, pattern) {
        (DataType::Timestamp, Some(pattern)) => {
            check_pattern(pattern)?;
            Ok(Piece::Time {
                column,
                unit_ms: unit_ms(pattern),
                pattern: pattern.clone(),
            })
        }
        (_, Some(_)) => Err(Wrong::new(
            format!("`{name}` is `{data_type}`, and only a timestamp has a format behind a `:`"),
            format!("write {{{name}}}"),
        )),
        (DataType::List(_) | DataType::Record(_), None) => Err(Wrong::new(
            format!("`{name}` is `{data_type}`, which names no folder"),
            "take a field of single values",
        )),
        _ => Ok(Piece::Value(column)),
    }
}

/// Checks that a time can be written so, and that this is a folder or several.
fn check_pattern(pattern: &str) -> Result<(), Wrong> {
    let help = "directives are those of strftime, such as %Y-%m-%d for a day, %H for an hour, \
                %G-W%V for a week; a `/` between them makes another folder";
    let Some(written) = written_time(pattern, 0) else {
        let why = format!("no time can be written as `{pattern}`");
        return Err(Wrong::new(why, help));
    };
    let is_folder = |name: &str| !matches!(name, "" | "." | "..");
    match written.split('/').all(is_folder) && !written.contains(char::is_control) {
        true => Ok(()),
        false => {
            let why = format!("a time written as `{pattern}` names no folder");
            Err(Wrong::new(why, help))
        }
    }
}

/// How long a time is written alike.
fn unit_ms(pattern: &str) -> i64 {
    let is_alike = |unit: &i64| written_time(pattern, 0) == written_time(pattern, unit - 1);
    let units = [24 * 3_600_000, 3_600_000, 60_000, 1_000];
    units.into_iter().find(is_alike).unwrap_or(1)
}

fn written_time(pattern: &str, ms: i64) -> Option<String> {
    let time = jiff::Timestamp::from_millisecond(ms).ok()?;
    let time = BrokenDownTime::from(&time.to_zoned(TimeZone::UTC));
    time.to_string(pattern).ok()
}

/// Says in which folder a row goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folders {
    folders: Vec<Vec<Piece>>,
}

impl Folders {
    /// The folder of rows without values.
    pub fn any(&self) -> String {
        let folder = |pieces: &Vec<Piece>| {
            let pieces = pieces.iter().map(|piece| match piece {
                Piece::Text(text) => text,
                Piece::Value(_) | Piece::Time { .. } => NO_VALUE,
            });
            pieces.collect::<String>()
        };
        let folders: Vec<String> = self.folders.iter().map(folder).collect();
        folders.join("/")
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Value(usize),
    Time {
        column: usize,
        pattern: String,
        /// Times are written alike for so long, in ms.
        unit_ms: i64,
    },
}

/// The folders of one row after the other.
pub struct FolderNames {
    folders: Folders,
    /// The time that was written last, in its units, for each piece that is one.
    times: Vec<Option<(i64, String)>>,
    name: String,
    value: Vec<u8>,
}

impl FolderNames {
    pub fn new(folders: Folders) -> Self {
        let pieces = folders.folders.iter().flatten().count();
        FolderNames {
            folders,
            times: vec![None; pieces],
            name: String::new(),
            value: Vec::new(),
        }
    }

    /// The folder that was named last.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The folder of a row, without a `/` at its end.
    pub fn of(&mut self, batch: &Batch, row: usize) -> &str {
        self.name.clear();
        let mut times = self.times.iter_mut();
        for folder in &self.folders.folders {
            if !self.name.is_empty() {
                self.name.push('/');
            }
            let start = self.name.len();
            for (piece, time) in folder.iter().zip(&mut times) {
                match piece {
                    Piece::Text(text) => self.name.push_str(text),
                    Piece::Value(column) => {
                        self.value.clear();
                        write_value(&mut self.value, &batch.columns[*column], row);
                        push_value(&mut self.name, &String::from_utf8_lossy(&self.value));
                    }
                    Piece::Time {
                        column,
                        pattern,
                        unit_ms,
                    } => {
                        let column = &batch.columns[*column];
                        push_time(&mut self.name, column, row, (pattern, *unit_ms), time);
                    }
                }
            }
            finish_name(&mut self.name, start);
        }
        &self.name
    }
}

/// As text, nothing for a null.
fn write_value(out: &mut Vec<u8>, column: &ArrayRef, row: usize) {
    let start = out.len();
    write_text(out, column, row);
    // Numbers that JSON writes as texts have quotes.
    if column.as_string_opt::<i32>().is_none() && out.get(start) == Some(&b'"') {
        out.remove(start);
        out.pop();
    }
}

fn push_time(
    name: &mut String,
    column: &ArrayRef,
    row: usize,
    (pattern, unit_ms): (&str, i64),
    last: &mut Option<(i64, String)>,
) {
    let times = column.as_primitive_opt::<TimestampMillisecondType>();
    let Some(ms) = times.filter(|it| it.is_valid(row)).map(|it| it.value(row)) else {
        name.push_str(NO_VALUE);
        return;
    };
    let units = ms.div_euclid(unit_ms);
    if let Some((known, text)) = last
        && *known == units
    {
        name.push_str(text);
        return;
    }
    match written_time(pattern, ms) {
        Some(text) => {
            name.push_str(&text);
            *last = Some((units, text));
        }
        // In a year that calendars do not have.
        None => push_value(name, &timestamp::to_text(ms)),
    }
}

/// Adds a value, so that it is a part of one name, and is told from no value.
fn push_value(name: &mut String, value: &str) {
    if value.is_empty() {
        name.push_str(NO_VALUE);
        return;
    }
    if value == NO_VALUE {
        push_escaped(name, '_');
        name.push_str(&value[1..]);
        return;
    }
    for character in value.chars() {
        match must_be_escaped(character) {
            true => push_escaped(name, character),
            false => name.push(character),
        }
    }
}

/// What Hive escapes, and other control characters.
fn must_be_escaped(character: char) -> bool {
    character.is_control() || "\"#%'*/:=?\\{}[]^".contains(character)
}

fn push_escaped(name: &mut String, character: char) {
    let mut bytes = [0; 4];
    for byte in character.encode_utf8(&mut bytes).bytes() {
        name.push_str(&format!("%{byte:02X}"));
    }
}

/// The value that a name stands for; `None` for none.
pub fn value_of(name: &str) -> Option<String> {
    if name == NO_VALUE {
        return None;
    }
    let mut bytes = Vec::new();
    let mut rest = name.as_bytes();
    while let [byte, after @ ..] = rest {
        let digits = after.get(..2).and_then(|it| std::str::from_utf8(it).ok());
        let escaped = digits.filter(|_| *byte == b'%');
        match escaped.and_then(|it| u8::from_str_radix(it, 16).ok()) {
            Some(value) => {
                bytes.push(value);
                rest = &after[2..];
            }
            None => {
                bytes.push(*byte);
                rest = after;
            }
        }
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Has the name of a folder that begins here be one that a file system takes, and that is
/// not hidden.
fn finish_name(name: &mut String, start: usize) {
    if name[start..].starts_with('.') {
        name.replace_range(start..=start, "%2E");
    }
    // A time may be several folders, which are short.
    let length = name.len() - start;
    if length <= NAME_BYTES_MAX {
        return;
    }
    let digest = digest_of(&name.as_bytes()[start..]);
    let mut end = start + NAME_BYTES_KEPT;
    // Not within a character, or what stands for one.
    while !name.is_char_boundary(end) || name.as_bytes()[end - 2..end].contains(&b'%') {
        end -= 1;
    }
    name.truncate(end);
    name.push('~');
    name.push_str(&digest);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{Int64Array, StringArray, TimestampMillisecondArray};

    use super::*;
    use crate::schema::Field;

    fn schema() -> Arc<Schema> {
        Arc::new(Schema::new(vec![
            Field::new("ts", DataType::Timestamp, true),
            Field::new("text", DataType::Utf8, true),
            Field::new("n", DataType::Int64, true),
        ]))
    }

    fn batch(rows: &[(Option<i64>, Option<&str>, Option<i64>)]) -> Batch {
        let times = rows.iter().map(|row| row.0);
        let times: TimestampMillisecondArray = times.collect();
        let schema = schema();
        let utc = schema.fields[0].data_type.to_arrow();
        let times = times.with_data_type(utc);
        let texts: StringArray = rows.iter().map(|row| row.1).collect();
        let numbers: Int64Array = rows.iter().map(|row| row.2).collect();
        Batch {
            schema,
            columns: vec![Arc::new(times), Arc::new(texts), Arc::new(numbers)],
            times: vec![0; rows.len()].into(),
            origin: None,
            watermarks: None,
            taken_back: None,
        }
    }

    fn names(path: &str, rows: &[(Option<i64>, Option<&str>, Option<i64>)]) -> Vec<String> {
        let written = WrittenFolders::parse(path).expect("a path");
        let mut names = FolderNames::new(written.plan(&schema()).expect("its fields are there"));
        let batch = batch(rows);
        let each = (0..rows.len()).map(|row| names.of(&batch, row).to_owned());
        each.collect()
    }

    fn texts(path: &str, values: &[&str]) -> Vec<String> {
        let rows = values.iter().map(|value| (None, Some(*value), None));
        names(path, &rows.collect::<Vec<_>>())
    }

    #[test]
    fn a_path_is_a_base_folders_and_the_name_of_files() {
        let parsed = |path: &str| {
            let written = WrittenFolders::parse(path).map_err(|wrong| wrong.why)?;
            Ok::<_, String>((written.base, written.folders.len(), written.file))
        };
        let is = |base: &str, folders: usize, file: &str| {
            Ok((base.to_owned(), folders, file.to_owned()))
        };
        assert_eq!(parsed("out/date={ts:%Y/%m}/"), is("out/", 1, ""));
        assert_eq!(parsed("/a/b/{text}/x/{n}/s.csv"), is("/a/b/", 3, "s.csv"));
        assert_eq!(parsed("{text}/s.jsonl.gz"), is("", 1, "s.jsonl.gz"));
        assert_eq!(parsed("a//./{text}//./s"), is("a//./", 1, "s"));
        assert_eq!(parsed("a{{b}}/c\n"), is("a{b}/", 0, "c\n"));
        for (path, why) in [
            (
                "out/{text}.jsonl",
                "it has a field in the name of its files",
            ),
            ("out/{text", "a brace is not closed"),
            ("out/{text}/../a/", "it has a `..` behind a field"),
            ("out/{text}/a\nb/", "it has a control character"),
        ] {
            assert_eq!(parsed(path), Err(why.to_owned()), "{path}");
        }
    }

    #[test]
    fn fields_have_to_be_there_and_name_folders() {
        let why = |path: &str| {
            let written = WrittenFolders::parse(path).expect("a path");
            written.plan(&schema()).expect_err("a mistake").why
        };
        assert_eq!(why("{tx}/"), "no row has the field `tx`");
        assert!(why("{n:%Y}/").contains("only a timestamp has a format"));
        for pattern in ["%", "%!", "%Y//%m", "/%Y", "../%Y", "%n"] {
            let why = why(&format!("{{ts:{pattern}}}/"));
            assert!(why.contains(pattern), "{why}");
        }
    }

    #[test]
    fn a_row_has_the_folder_of_its_fields() {
        let day = 1_767_225_599_999;
        let rows = [
            (Some(day), Some("de"), Some(-1)),
            (Some(day + 1), Some("ü"), None),
            (None, None, Some(7)),
            (Some(i64::MAX), Some(""), Some(7)),
        ];
        assert_eq!(
            names("out/date={ts:%Y-%m-%d}/c={text}/{n}/", &rows),
            [
                "date=2025-12-31/c=de/-1",
                "date=2026-01-01/c=ü/__HIVE_DEFAULT_PARTITION__",
                "date=__HIVE_DEFAULT_PARTITION__/c=__HIVE_DEFAULT_PARTITION__/7",
                &format!(
                    "date={}/c=__HIVE_DEFAULT_PARTITION__/7",
                    timestamp::to_text(i64::MAX).replace(':', "%3A")
                ),
            ]
        );
        assert_eq!(
            names("{ts:%Y/%m/%d}/{ts}/", &rows[..1]),
            ["2025/12/31/2025-12-31T23%3A59%3A59.999Z"]
        );
    }

    #[test]
    fn a_time_is_written_again_when_it_is_another() {
        for (pattern, unit) in [
            ("%Y-%m-%d", 24 * 3_600_000),
            ("%G-W%V", 24 * 3_600_000),
            ("%H", 3_600_000),
            ("%I%p", 3_600_000),
            ("%H:%M", 60_000),
            ("%s", 1_000),
            ("%S%.3f", 1),
        ] {
            assert_eq!(unit_ms(pattern), unit, "{pattern}");
        }
        let hour = 3_600_000;
        let rows = [-1, 0, hour - 1, hour, 0].map(|ms| (Some(ms), None, None));
        assert_eq!(names("{ts:%H}/", &rows), ["23", "00", "00", "01", "00"]);
    }

    #[test]
    fn no_value_leads_elsewhere_or_is_taken_for_another() {
        let values = [
            "a/b",
            "..",
            ".",
            ".hidden",
            "50%",
            "a=b",
            "a:b",
            "\0",
            "\n",
            "a\\b",
            "{x}",
            "[x]*?",
            "__HIVE_DEFAULT_PARTITION__",
            " ",
            "~",
            "%2F",
            "ä=ö",
        ];
        let named = texts("{text}/", &values);
        for (value, name) in values.iter().zip(&named) {
            assert!(!name.contains('/') && !name.starts_with('.'), "{name}");
            assert_eq!(value_of(name).as_deref(), Some(*value), "{name}");
        }
        assert_eq!(named[..5], ["a%2Fb", "%2E.", "%2E", "%2Ehidden", "50%25"]);
        assert_eq!(value_of(NO_VALUE), None);
        let two = texts("{text}{text}/", &["."]);
        assert_eq!(two, ["%2E."]);
    }

    #[test]
    fn long_names_are_cut_and_stay_apart() {
        for character in ["x", "ü", "/", "€"] {
            let long = character.repeat(300);
            let other = format!("{long}y");
            let named = texts("k={text}/", &[&long, &other, &character.repeat(20)]);
            assert!(named.iter().all(|name| name.len() <= NAME_BYTES_MAX));
            assert_ne!(named[0], named[1]);
            let (kept, _) = named[0].split_once('~').expect("it was cut");
            let (_, kept) = kept.split_once('=').expect("a key");
            let kept = value_of(kept).expect("a value");
            assert!(long.starts_with(&kept), "{kept}");
            assert!(!named[2].contains('~'));
        }
    }
}
