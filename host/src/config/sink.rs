//! `[sinks.NAME]`: where rows go.

use toml::Spanned;

use super::diagnostics::{Diagnostics, Mistake};
use super::kafka::{self, KafkaSink};
use super::operator::{InputName, read_inputs};
use super::reader::Table;
use super::source::extension;
use crate::plan::SinkFormat;

#[derive(Debug)]
pub struct Sink {
    pub name: Spanned<String>,
    pub input: Vec<Spanned<InputName>>,
    pub kind: SinkKind,
}

#[derive(Debug)]
pub enum SinkKind {
    File {
        path: Spanned<String>,
        format: SinkFormat,
    },
    Console {
        rows_max: Option<u64>,
    },
    Blackhole,
    Kafka(KafkaSink),
}

#[derive(Clone, Copy)]
enum Kind {
    File,
    Console,
    Blackhole,
    Kafka,
}

const KINDS: &[(&str, Kind)] = &[
    ("file", Kind::File),
    ("console", Kind::Console),
    ("blackhole", Kind::Blackhole),
    ("kafka", Kind::Kafka),
];

const FORMATS: &[(&str, SinkFormat)] = &[
    ("json", SinkFormat::Json),
    ("csv", SinkFormat::Csv),
    ("parquet", SinkFormat::Parquet),
];

pub(super) fn read(
    name: Spanned<String>,
    mut table: Table,
    mistakes: &mut Diagnostics,
) -> Option<Sink> {
    let input = read_inputs(&mut table, mistakes);
    let kind = table
        .required("type", "file, console, blackhole or kafka", mistakes)?
        .choice(KINDS, mistakes)?;
    let kind = match kind.get_ref() {
        Kind::File => read_file(&mut table, mistakes),
        Kind::Console => {
            let rows = table
                .optional("rows")
                .and_then(|value| value.integer(1..=i64::MAX, mistakes));
            Some(SinkKind::Console {
                rows_max: rows.map(|rows| rows.into_inner() as u64),
            })
        }
        Kind::Blackhole => Some(SinkKind::Blackhole),
        Kind::Kafka => kafka::read_sink(&mut table, mistakes).map(SinkKind::Kafka),
    };
    table.finish(mistakes);
    Some(Sink {
        name,
        input: input?,
        kind: kind?,
    })
}

fn read_file(table: &mut Table, mistakes: &mut Diagnostics) -> Option<SinkKind> {
    let path = table
        .required("path", "the file to write", mistakes)
        .and_then(|value| value.path(mistakes));
    let format = match table.optional("format") {
        Some(value) => value.choice(FORMATS, mistakes)?.into_inner(),
        None => match extension(path.as_ref()?.get_ref()) {
            "json" | "jsonl" | "ndjson" => SinkFormat::Json,
            "csv" => SinkFormat::Csv,
            "parquet" => SinkFormat::Parquet,
            _ => {
                mistakes.push(
                    Mistake::new(format!("{} has no `format`", table.owner()))
                        .at(table.place(), "")
                        .help("the file's name does not tell it: add `format = \"json\"`, \"csv\" or \"parquet\""),
                );
                return None;
            }
        },
    };
    Some(SinkKind::File {
        path: path?,
        format,
    })
}
