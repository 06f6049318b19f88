//! Reads how a source's or sink's rows are written: `format`, `csv`, `syslog`, `debezium`,
//! `fields` and `names`; of messages `upsert`.

use std::collections::HashMap;
use std::ops::Range;

use toml::Spanned;

use super::column::{self, DeclaredColumn};
use super::diagnostics::{Diagnostics, Mistake};
use super::key::read_fields;
use super::messages::MessageKeys;
use super::reader::{ConfigValue, Table};
use super::upsert::UpsertKeys;
use crate::decode::check_columns;
use crate::format::{
    CsvFormat, DebeziumFormat, Format, RowFormat, SYSLOG_FIELDS, SyslogFormat, TableChanges,
    TextDecimals,
};
use crate::schema::{DataType, Schema};
use crate::suggest;
use crate::timestamp::{self, TimestampFormat};

/// The format of a source's rows, and their columns.
#[derive(Debug)]
pub struct WrittenRows {
    pub format: RowFormat,
    /// Whether the rows are in Parquet. The format is that of rows that take their place.
    pub is_parquet: bool,
    pub columns: Vec<DeclaredColumn>,
}

#[derive(Clone, Copy, PartialEq)]
pub enum FormatKind {
    Json,
    Csv,
    Raw,
    Syslog,
    Debezium,
    Parquet,
    Avro,
    Protobuf,
}

impl FormatKind {
    /// Whether rows are messages whose bytes a schema explains.
    fn has_schema(self) -> bool {
        matches!(self, FormatKind::Avro | FormatKind::Protobuf)
    }
}

/// What differs between kinds of sources.
pub struct Formats {
    /// CSV may have a header, and has one by default.
    pub has_header: bool,
    /// Rows are messages, which have keys.
    pub has_keys: bool,
    /// The one field that a raw row may be, as in the pipeline's file.
    pub raw_fields: &'static str,
    /// What there may be, as `format` names it.
    pub kinds: &'static [(&'static str, FormatKind)],
}

/// Rows that follow one another in text.
pub const TEXT: Formats = Formats {
    has_header: true,
    has_keys: false,
    kinds: &[
        ("json", FormatKind::Json),
        ("csv", FormatKind::Csv),
        ("raw", FormatKind::Raw),
        ("syslog", FormatKind::Syslog),
    ],
    raw_fields: "`fields = { line = \"utf8\" }` or `\"bytes\"`",
};

/// Rows in files.
pub const FILES: Formats = Formats {
    kinds: &[
        ("json", FormatKind::Json),
        ("csv", FormatKind::Csv),
        ("raw", FormatKind::Raw),
        ("syslog", FormatKind::Syslog),
        ("debezium-json", FormatKind::Debezium),
        ("parquet", FormatKind::Parquet),
    ],
    ..TEXT
};

/// Rows that come as messages, one by one.
pub const MESSAGES: Formats = Formats {
    has_header: false,
    has_keys: true,
    kinds: &[
        ("json", FormatKind::Json),
        ("csv", FormatKind::Csv),
        ("raw", FormatKind::Raw),
        ("syslog", FormatKind::Syslog),
        ("debezium-json", FormatKind::Debezium),
        ("avro", FormatKind::Avro),
        ("protobuf", FormatKind::Protobuf),
    ],
    raw_fields: "`fields = { payload = \"bytes\" }` or `\"utf8\"`; `metadata` adds others",
};

impl Formats {
    /// As `format` names it.
    fn name_of(&self, kind: FormatKind) -> &'static str {
        let mut kinds = self.kinds.iter();
        let found = kinds.find(|(_, other)| *other == kind);
        found.map_or("json", |(name, _)| *name)
    }

    fn has(&self, kind: FormatKind) -> bool {
        self.kinds.iter().any(|(_, other)| *other == kind)
    }
}

/// Separates the fields of CSV by default.
const DELIMITER: u8 = b',';

/// Reads `format`, `csv`, `syslog`, `debezium`, `upsert`, `fields` and `names`. `implied` is the
/// default format.
pub fn read_rows(
    table: &mut Table,
    implied: Option<FormatKind>,
    formats: &Formats,
    mistakes: &mut Diagnostics,
) -> Option<WrittenRows> {
    let given = match (table.optional("format"), implied) {
        (Some(value), _) => value
            .choice(formats.kinds, mistakes)
            .map(Spanned::into_inner),
        (None, Some(implied)) => Some(implied),
        (None, None) => {
            mistakes.push(
                Mistake::new(format!("{} has no `format`", table.owner()))
                    .at(table.place(), "")
                    .help("its file name does not show the format: add `format = \"json\"`, \"csv\" or \"raw\""),
            );
            None
        }
    };
    let csv_value = table.optional("csv");
    let csv_key = csv_value.as_ref().map(ConfigValue::key_span);
    let csv = csv_value
        .and_then(|value| value.table(mistakes))
        .map(|table| read_csv(table, formats.has_header, mistakes));
    if let (Some(kind), Some(place)) = (given.filter(|kind| *kind != FormatKind::Csv), csv_key) {
        let name = formats.name_of(kind);
        mistakes.push(
            Mistake::new(format!(
                "{} has `csv` settings, and its format is {name}",
                table.owner()
            ))
            .at(place, "")
            .help("remove them, or write `format = \"csv\"`"),
        );
    }
    let syslog = match table.optional("syslog") {
        Some(value) => read_syslog(&value, given, mistakes),
        None => SyslogFormat::new(None, None).ok(),
    };
    let debezium = match formats.has(FormatKind::Debezium) {
        true => table.optional("debezium"),
        false => None,
    };
    let upsert = match formats.has_keys {
        true => table.optional("upsert"),
        false => None,
    };
    let columns = table
        .required("fields", FIELDS, mistakes)
        .and_then(|value| read_columns(&value, given, mistakes));
    if let (Some(FormatKind::Raw), Some(columns)) = (given, &columns) {
        check_raw(table, columns, formats, mistakes);
    }
    if let (Some(FormatKind::Parquet), Some(columns)) = (given, &columns) {
        check_parquet(table, columns, mistakes);
    }
    if let (Some(value), Some(kind)) = (&debezium, given)
        && kind != FormatKind::Debezium
    {
        mistakes.push(value.means_nothing("remove it, or write `format = \"debezium-json\"`"));
    }
    let names = table.optional("names");
    let has_schemas = formats.kinds.iter().any(|(_, kind)| kind.has_schema());
    let messages = has_schemas.then(|| MessageKeys::read(table));
    if let (Some(messages), Some(kind)) = (&messages, given)
        && !kind.has_schema()
    {
        messages.refuse(table, formats.name_of(kind), mistakes);
    }
    if let (Some(value), Some(instead)) = (&upsert, given.and_then(instead_of_upsert)) {
        mistakes.push(value.means_nothing(instead));
        return None;
    }
    let upserts = match (&upsert, &columns) {
        (Some(value), Some(columns)) => {
            let keys = UpsertKeys::read(value, mistakes)?;
            let key = read_table_key(&keys.key, columns, mistakes)?;
            Some(keys.upserts(key, table, mistakes)?)
        }
        _ => None,
    };
    let mut tells_whole_rows = false;
    let format = match given? {
        FormatKind::Json | FormatKind::Parquet => Format::Json,
        FormatKind::Csv => Format::Csv(csv.unwrap_or(CsvFormat {
            header: formats.has_header,
            delimiter: DELIMITER,
        })),
        FormatKind::Raw => Format::Raw,
        FormatKind::Syslog => Format::Syslog(syslog?),
        FormatKind::Debezium => {
            let columns = columns.as_deref()?;
            let (format, is_whole) = read_debezium(debezium.as_ref(), columns, mistakes)?;
            tells_whole_rows = is_whole;
            Format::Debezium(format)
        }
        FormatKind::Avro => Format::Message(messages?.avro(table, mistakes)?),
        FormatKind::Protobuf => Format::Message(messages?.protobuf(table, mistakes)?),
    };
    let columns = columns?;
    let names = match names {
        Some(value) => read_names(&value, &format, &columns, mistakes)?,
        None => Vec::new(),
    };
    if given == Some(FormatKind::Syslog) {
        check_syslog(table, &columns, &names, mistakes)?;
    }
    let timestamps = columns.iter().flat_map(|column| &column.timestamp_formats);
    let format = RowFormat {
        format,
        timestamp_formats: timestamps.cloned().collect(),
        names,
        tells_whole_rows,
        upserts,
    };
    let fields = columns.iter().map(|column| column.field.clone());
    if let Err(why) = check_columns(&format, &Schema::new(fields.collect())) {
        mistakes.push(
            Mistake::new(format!("{}: {why}", table.owner()))
                .at(
                    table.place_of("fields").unwrap_or_else(|| table.place()),
                    "",
                )
                .help("correct the field's name or type; one that may be null has a `?`"),
        );
        return None;
    }
    Some(WrittenRows {
        format,
        is_parquet: given == Some(FormatKind::Parquet),
        columns,
    })
}

/// What to do where messages of a format are no rows that take the place of one another.
fn instead_of_upsert(format: FormatKind) -> Option<&'static str> {
    match format {
        FormatKind::Json | FormatKind::Csv | FormatKind::Avro | FormatKind::Protobuf => None,
        FormatKind::Debezium => Some("remove it: `debezium = { key = … }` says by which key"),
        FormatKind::Raw | FormatKind::Syslog | FormatKind::Parquet => {
            Some("remove it, or write `format = \"json\"`, \"csv\", \"avro\" or \"protobuf\"")
        }
    }
}

/// Reads how CSV is written. `has_header` says whether it may have a header, and has one by
/// default.
pub fn read_csv(mut table: Table, has_header: bool, mistakes: &mut Diagnostics) -> CsvFormat {
    let header = table.optional("header").and_then(|value| {
        let header = value.boolean(mistakes)?;
        if header && !has_header {
            value.refuse(
                "false: each row comes by itself, its fields in order",
                mistakes,
            );
        }
        Some(header)
    });
    let delimiter = table.optional("delimiter").and_then(|value| {
        let text = value.text("one character, in quotes", mistakes)?;
        match text.get_ref().as_bytes() {
            [byte] if byte.is_ascii() && !matches!(byte, b'"' | b'\n' | b'\r') => Some(*byte),
            _ => {
                value.refuse(
                    "one ASCII character other than a quote or line end",
                    mistakes,
                );
                None
            }
        }
    });
    table.finish(mistakes);
    CsvFormat {
        header: header.unwrap_or(has_header),
        delimiter: delimiter.unwrap_or(DELIMITER),
    }
}

/// Reads `fields` and `names` of rows that their system has as columns. They are decoded from
/// JSON.
pub fn read_rows_of_system(table: &mut Table, mistakes: &mut Diagnostics) -> Option<WrittenRows> {
    let columns = table
        .required("fields", FIELDS, mistakes)
        .and_then(|value| read_columns(&value, Some(FormatKind::Json), mistakes));
    let names = table.optional("names");
    let columns = columns?;
    let names = match names {
        Some(value) => read_names(&value, &Format::Json, &columns, mistakes)?,
        None => Vec::new(),
    };
    Some(WrittenRows {
        format: RowFormat {
            names,
            // What a system does not tell whole, its connector refuses.
            tells_whole_rows: true,
            ..Format::Json.into()
        },
        is_parquet: false,
        columns,
    })
}

/// What `fields` is.
const FIELDS: &str = "a table of the rows' fields and their types";

/// Each batch has a column for each of them.
const FIELDS_MAX: usize = 10_000;

fn read_columns(
    value: &ConfigValue,
    format: Option<FormatKind>,
    mistakes: &mut Diagnostics,
) -> Option<Vec<DeclaredColumn>> {
    let table = value.table(mistakes)?;
    let entries: Vec<_> = table.into_entries().collect();
    if entries.len() > FIELDS_MAX {
        let count = entries.len();
        mistakes.push(
            Mistake::new(format!(
                "{} names {count} fields, and rows have at most {FIELDS_MAX}",
                value.what()
            ))
            .at(value.key_span(), "")
            .help("name those that the pipeline needs; rows may have others"),
        );
        return None;
    }
    let columns: Vec<Option<DeclaredColumn>> = entries
        .into_iter()
        .map(|(name, value)| column::read(name, &value, mistakes))
        .collect();
    if columns.is_empty() {
        mistakes.push(
            Mistake::new(format!("{} names no field", value.what()))
                .at(value.key_span(), "")
                .help("add the fields that the rows have, such as `user_id = \"utf8\"`"),
        );
        return None;
    }
    let columns: Vec<DeclaredColumn> = columns.into_iter().collect::<Option<_>>()?;
    let mut good = true;
    let mut places = HashMap::new();
    for column in &columns {
        let name = &column.field.name;
        // `"a?"` and `"a"` are two keys for one field.
        let first = *places.entry(name.as_str()).or_insert(&column.place);
        if *first != column.place {
            good = false;
            mistakes.push(
                Mistake::new(format!("{} has `{name}` twice", value.what()))
                    .at(column.place.clone(), "again here")
                    .at(first.clone(), "first here"),
            );
        }
        if format == Some(FormatKind::Csv)
            && matches!(
                column.field.data_type,
                DataType::List(_) | DataType::Record(_)
            )
        {
            good = false;
            mistakes.push(
                Mistake::new(format!(
                    "a field of a csv file cannot be `{}`",
                    column.field
                ))
                .at(column.place.clone(), "a list or record")
                .help("csv has only single values: use json, or a field of text"),
            );
        }
    }
    good.then_some(columns)
}

/// Checks that a raw row is one field.
fn check_raw(
    table: &Table,
    columns: &[DeclaredColumn],
    formats: &Formats,
    mistakes: &mut Diagnostics,
) {
    if let [column] = columns
        && matches!(column.field.data_type, DataType::Bytes | DataType::Utf8)
    {
        return;
    }
    // Of several fields, the second is one too many.
    let wrong = columns.get(1).or(columns.first());
    mistakes.push(
        Mistake::new(format!(
            "{} has the format raw, in which a row is one field of bytes or utf8",
            table.owner()
        ))
        .at(
            wrong.map_or_else(|| table.place(), |column| column.place.clone()),
            "",
        )
        .help(format!("write {}", formats.raw_fields)),
    );
}

/// Reads what times are that do not say it themselves.
fn read_syslog(
    value: &ConfigValue,
    format: Option<FormatKind>,
    mistakes: &mut Diagnostics,
) -> Option<SyslogFormat> {
    if format.is_some_and(|format| format != FormatKind::Syslog) {
        mistakes.push(value.means_nothing("remove it, or write `format = \"syslog\"`"));
    }
    let mut table = value.table(mistakes)?;
    let zone = table.optional("zone");
    let zone = zone.and_then(|zone| zone.text("a time zone or an offset, in quotes", mistakes));
    let year = table.optional("year");
    let year = year.and_then(|year| year.integer(1970..=9999, mistakes));
    table.finish(mistakes);
    let name = zone.as_ref().map(|zone| zone.get_ref().as_str());
    let year = year.and_then(|year| i16::try_from(year.into_inner()).ok());
    let read = SyslogFormat::new(name, year);
    if let (Err(problem), Some(zone)) = (&read, &zone) {
        mistakes.push(
            Mistake::new(format!("{}: {}", value.what(), problem.message))
                .at(zone.span(), "")
                .help(problem.help.clone()),
        );
    }
    read.ok()
}

/// Reads what changes are told of by, how their decimals are written, and whether rows that
/// are gone are known to be told whole.
fn read_debezium(
    value: Option<&ConfigValue>,
    columns: &[DeclaredColumn],
    mistakes: &mut Diagnostics,
) -> Option<(DebeziumFormat, bool)> {
    let mut format = DebeziumFormat {
        changes: TableChanges { key: None },
        decimals: TextDecimals::default(),
    };
    let Some(value) = value else {
        return Some((format, false));
    };
    let mut table = value.table(mistakes)?;
    let key = table.optional("key");
    let has_key = key.is_some();
    let key = key.map(|key| read_table_key(&key, columns, mistakes));
    let decimals = table.optional("decimals");
    let decimals = decimals.map(|value| value.choice(DECIMALS, mistakes));
    let identity = table.optional("replica_identity");
    if let Some(identity) = identity.as_ref().filter(|_| has_key) {
        mistakes.push(
            identity
                .means_nothing("remove it, or `key`: with one, rows before a change are not read"),
        );
    }
    let tells_whole_rows = identity.map(|value| value.choice(IDENTITIES, mistakes));
    table.finish(mistakes);
    if let Some(key) = key {
        format.changes.key = Some(key?);
    }
    if let Some(decimals) = decimals {
        format.decimals = decimals?.into_inner();
    }
    let tells_whole_rows = match tells_whole_rows {
        Some(known) => known?.into_inner(),
        None => false,
    };
    Some((format, tells_whole_rows))
}

/// Refuses a key by which rows that are changes would have more fields than their own.
pub fn refuse_added_fields(
    table: &Table<'_>,
    (key, what): (&str, &str),
    place: Range<usize>,
    mistakes: &mut Diagnostics,
) {
    let owner = table.owner();
    mistakes.push(
        Mistake::new(format!("{owner} has `{key}`, and its {what} are changes"))
            .at(place, "")
            .help("remove it: a row that is taken back has `fields`, and nothing beside them"),
    );
}

/// As Debezium's `decimal.handling.mode`; what is "double" there needs no word here.
const DECIMALS: &[(&str, TextDecimals)] = &[
    ("precise", TextDecimals::Precise),
    ("string", TextDecimals::String),
];

/// As PostgreSQL's; by any other, rows are not told whole.
const IDENTITIES: &[(&str, bool)] = &[("full", true)];

/// Reads the key by which rows take the place of others. What is gone has nothing else.
pub fn read_table_key(
    value: &ConfigValue,
    columns: &[DeclaredColumn],
    mistakes: &mut Diagnostics,
) -> Option<Vec<String>> {
    let key = read_fields(value, mistakes)?;
    if key.is_empty() {
        mistakes.push(
            Mistake::new(format!("{} names no field", value.what()))
                .at(value.span(), "")
                .help(
                    "name those of the table's primary key, or remove it where the database tells \
                     whole rows",
                ),
        );
        return None;
    }
    let mut good = true;
    for name in &key {
        let mut known = columns.iter();
        let column = known.find(|column| column.field.name == *name.get_ref());
        let mistake = match column {
            Some(column) if !column.field.nullable => continue,
            Some(column) => Mistake::new(format!(
                "{} has `{}`, which may be missing",
                value.what(),
                name.get_ref()
            ))
            .at(name.span(), "")
            .at(column.place.clone(), "here is its type")
            .help("remove the `?`: every row has a key"),
            None => {
                let names = columns.iter().map(|column| column.field.name.as_str());
                Mistake::new(format!(
                    "{} has `{}`, which is not one of the fields",
                    value.what(),
                    name.get_ref()
                ))
                .at(name.span(), "")
                .help(suggest::help(name.get_ref(), "fields", names))
            }
        };
        good = false;
        mistakes.push(mistake);
    }
    let is_key = |column: &DeclaredColumn| key.iter().any(|it| *it.get_ref() == column.field.name);
    for column in columns {
        if column.field.nullable || is_key(column) {
            continue;
        }
        good = false;
        mistakes.push(
            Mistake::new(format!(
                "`{}` has to be allowed to be missing: of a row that is gone, there is only {}",
                column.field.name,
                value.what()
            ))
            .at(column.place.clone(), "")
            .help("write a `?` behind its type; a record has it behind its name, in quotes"),
        );
    }
    good.then(|| key.into_iter().map(Spanned::into_inner).collect())
}

/// Checks that each field is a part of a message, and may be what its type says.
fn check_syslog(
    table: &Table,
    columns: &[DeclaredColumn],
    names: &[(String, String)],
    mistakes: &mut Diagnostics,
) -> Option<()> {
    let mut good = true;
    for column in columns {
        let own = column.field.name.as_str();
        let name = names.iter().find(|(renamed, _)| renamed == own);
        let name = name.map_or(own, |(_, name)| name);
        let data_type = &column.field.data_type;
        let is_record = |data_type: &DataType| matches!(data_type, DataType::Record(_));
        let mistake = if !SYSLOG_FIELDS.contains(&name) {
            let what = format!(
                "{} has a field `{name}`, which no message has",
                table.owner()
            );
            let help = suggest::help(name, "parts of a message", SYSLOG_FIELDS);
            Mistake::new(what).help(format!("{help}; `names` gives them other names"))
        } else if name == "data" {
            let is_good = match data_type {
                DataType::Utf8 => true,
                DataType::Record(elements) => elements.iter().all(|it| is_record(&it.data_type)),
                _ => false,
            };
            if is_good {
                continue;
            }
            Mistake::new(format!("structured data cannot be `{}`", column.field)).help(
                "write `utf8` for all of it as JSON, or the elements with their parameters, such \
                 as { \"origin?\" = { ip = \"list<utf8>\" } }",
            )
        } else if is_record(data_type) || matches!(data_type, DataType::List(_)) {
            let what = format!("the {name} of a message cannot be `{}`", column.field);
            Mistake::new(what).help("it is one text, or a number")
        } else {
            continue;
        };
        good = false;
        mistakes.push(mistake.at(column.place.clone(), ""));
    }
    good.then_some(())
}

/// Checks that no time has a format: Parquet has its own.
fn check_parquet(table: &Table, columns: &[DeclaredColumn], mistakes: &mut Diagnostics) {
    for column in columns {
        let mut formats = column.timestamp_formats.iter();
        if formats.any(|format| *format != TimestampFormat::default()) {
            let message = format!(
                "{} has the format parquet, in which times have no other format",
                table.owner()
            );
            let mistake = Mistake::new(message).at(column.place.clone(), "");
            mistakes.push(mistake.help("write `timestamp`: the file says which unit it has"));
        }
    }
}

/// Reads the names that fields have in the bytes, which must differ.
fn read_names(
    value: &ConfigValue,
    format: &Format,
    columns: &[DeclaredColumn],
    mistakes: &mut Diagnostics,
) -> Option<Vec<(String, String)>> {
    let table = value.table(mistakes)?;
    let nameless = match format {
        Format::Raw => Some("rows in the format raw have no names"),
        Format::Csv(csv) if !csv.header => Some("csv without a header has no names"),
        Format::Json
        | Format::Csv(_)
        | Format::Syslog(_)
        | Format::Debezium(_)
        | Format::Message(_) => None,
    };
    if let Some(nameless) = nameless {
        mistakes.push(
            Mistake::new(format!("{} has no use: {nameless}", value.what()))
                .at(value.key_span(), "")
                .help("remove it: the first field of a row is the first of `fields`, and so on"),
        );
        return None;
    }
    let own_names = || columns.iter().map(|column| column.field.name.as_str());
    let mut good = true;
    let mut names: Vec<(String, String)> = Vec::new();
    let mut places = Vec::new();
    for (own, value) in table.into_entries() {
        if !own_names().any(|name| name == own.get_ref()) {
            good = false;
            mistakes.push(
                Mistake::new(format!("{}: `fields` has no such field", value.what()))
                    .at(own.span(), "")
                    .help(suggest::help(own.get_ref(), "fields", own_names())),
            );
        }
        match value.text("the field's name in the rows, in quotes", mistakes) {
            Some(name) => {
                names.push((own.into_inner(), name.get_ref().clone()));
                places.push(name.span());
            }
            None => good = false,
        }
    }
    for (index, (own, name)) in names.iter().enumerate() {
        let is_taken = names[..index].iter().any(|(_, other)| other == name)
            || own_names()
                .any(|other| other == name && names.iter().all(|(renamed, _)| renamed != other));
        if is_taken {
            good = false;
            mistakes.push(
                Mistake::new(format!(
                    "{} calls `{own}` `{name}`, and another field too",
                    value.what()
                ))
                .at(places[index].clone(), "")
                .help("in the rows, each field has a name of its own"),
            );
        }
    }
    good.then_some(names)
}

/// Reads a time in RFC 3339, as text or as a TOML date.
pub fn read_instant(value: &ConfigValue, mistakes: &mut Diagnostics) -> Option<i64> {
    let wanted = "a time such as \"2026-01-31T12:00:00Z\"";
    let text = match value.raw() {
        toml::de::DeValue::Datetime(datetime) => datetime.to_string(),
        _ => value.text(wanted, mistakes)?.into_inner(),
    };
    let instant = text.parse::<jiff::Timestamp>();
    let instant = instant.map(|instant| instant.as_millisecond()).ok();
    // The last days of the year 9999, by which people say that there is no end.
    let instant = instant.or_else(|| timestamp::from_rfc3339(text.as_bytes()));
    if instant.is_none() {
        mistakes.push(
            Mistake::new(format!("{} must be {wanted}", value.what()))
                .at(value.span(), "")
                .help("give date, time and offset (`Z` is UTC)"),
        );
    }
    instant
}
