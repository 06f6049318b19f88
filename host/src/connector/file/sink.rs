//! The sink `file`: writes rows into one file, or with Parquet and checkpoints
//! into one file a checkpoint.
//!
//! A file grows as `<file>.part` and is renamed to `<file>` when the run ends
//! successfully. So `<file>` is always complete, be it from this run or the one
//! before; a failed run leaves its `.part` behind. While the run goes on, the
//! `.part` can be read up to the last flush (not with Parquet, whose index is
//! written last). A run that is restored cuts the `.part` to its length at the
//! checkpoint. A Parquet file cannot be cut, so each checkpoint that has rows
//! gets its own.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;
use toml::Spanned;

use super::csv::Csv;
use super::encoder::first_bytes;
use super::json_lines::JsonLines;
use super::lines::TextSink;
use super::opened::Compression;
use super::parquet::{CheckpointedParquet, ParquetFile};
use super::part::{IfExists, PartFile, PartOptions, part_of};
use super::text_file::TextFile;
use crate::config::diagnostics::{Diagnostics, Mistake};
use crate::config::format::extension;
use crate::config::reader::Table;
use crate::connector::{Description, Planning};
use crate::files::{FileUser, identity, name_in};
use crate::plan::state::Delivery;
use crate::schema::Schema;
use crate::sink::{Sink, SinkConnector, SinkContext, SinkError, SinkKind, SinkSettings};

pub const KIND: SinkKind = SinkKind { name: "file", read };

#[derive(Debug)]
struct FileSinkSettings {
    path: Spanned<String>,
    format: SinkFormat,
    compression: Compression,
    if_exists: IfExists,
}

/// The file to write, and its format.
#[derive(Clone, Debug)]
pub struct FileSink {
    pub path: PathBuf,
    /// The pipeline's folder.
    pub folder: PathBuf,
    pub format: SinkFormat,
    pub compression: Compression,
    pub if_exists: IfExists,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SinkFormat {
    Json,
    Csv,
    Parquet,
}

impl SinkFormat {
    /// Its name in the config.
    pub fn name(self) -> &'static str {
        match self {
            SinkFormat::Json => "json",
            SinkFormat::Csv => "csv",
            SinkFormat::Parquet => "parquet",
        }
    }

    /// With its compression: a file goes on as it was begun.
    fn compressed_name(self, compression: Compression) -> &'static str {
        match (self, compression) {
            (SinkFormat::Json, Compression::Gzip) => "json, gzip",
            (SinkFormat::Json, Compression::Zstd) => "json, zstd",
            (SinkFormat::Csv, Compression::Gzip) => "csv, gzip",
            (SinkFormat::Csv, Compression::Zstd) => "csv, zstd",
            (format, _) => format.name(),
        }
    }
}

const IF_EXISTS: &[(&str, IfExists)] = &[
    ("fail", IfExists::Fail),
    ("replace", IfExists::Replace),
    ("append", IfExists::Append),
];

const FORMATS: &[(&str, SinkFormat)] = &[
    ("json", SinkFormat::Json),
    ("csv", SinkFormat::Csv),
    ("parquet", SinkFormat::Parquet),
];

const COMPRESSIONS: &[(&str, Compression)] = &[
    ("none", Compression::None),
    ("gzip", Compression::Gzip),
    ("zstd", Compression::Zstd),
];

/// The name without what compression adds to it.
fn uncompressed(path: &str) -> &str {
    match (Compression::of(Path::new(path)), path.rsplit_once('.')) {
        (Compression::Gzip | Compression::Zstd, Some((name, _))) => name,
        _ => path,
    }
}

fn read(table: &mut Table<'_>, mistakes: &mut Diagnostics) -> Option<Box<dyn SinkSettings>> {
    let path = table
        .required("path", "the file to write", mistakes)
        .and_then(|value| value.path(mistakes));
    let format = table.optional("format");
    let compression = table.optional("compression");
    let if_exists = table.optional("if_exists");
    let compression = match compression {
        Some(value) => Some(value.choice(COMPRESSIONS, mistakes)?),
        None => None,
    };
    let if_exists = match if_exists {
        Some(value) => value.choice(IF_EXISTS, mistakes)?,
        None => Spanned::new(0..0, IfExists::default()),
    };
    let format = match format {
        Some(value) => value.choice(FORMATS, mistakes)?.into_inner(),
        None => match extension(uncompressed(path.as_ref()?.get_ref())) {
            "json" | "jsonl" | "ndjson" => SinkFormat::Json,
            "csv" => SinkFormat::Csv,
            "parquet" => SinkFormat::Parquet,
            _ => {
                mistakes.push(
                    Mistake::new(format!("{} has no `format`", table.owner()))
                        .at(table.place(), "")
                        .help("its file name does not show the format: add `format = \"json\"`, \"csv\" or \"parquet\""),
                );
                return None;
            }
        },
    };
    let path = path?;
    if format == SinkFormat::Parquet && *if_exists.get_ref() == IfExists::Append {
        mistakes.push(
            Mistake::new(format!(
                "{} cannot append to a Parquet file, which is complete once it is written",
                table.owner()
            ))
            .at(if_exists.span(), "")
            .help("write `if_exists = \"replace\"` or \"fail\""),
        );
    }
    let by_name = Compression::of(Path::new(path.get_ref()));
    if format == SinkFormat::Parquet && (compression.is_some() || by_name != Compression::None) {
        let mistake = Mistake::new(format!(
            "{} cannot compress a Parquet file, which is compressed in itself",
            table.owner()
        ));
        mistakes.push(match &compression {
            Some(given) => mistake.at(given.span(), "").help("remove `compression`"),
            None => mistake
                .at(path.span(), "")
                .help("give the file a name that ends with `.parquet`"),
        });
    }
    Some(Box::new(FileSinkSettings {
        path,
        format,
        compression: compression.map_or(by_name, Spanned::into_inner),
        if_exists: if_exists.into_inner(),
    }))
}

impl SinkSettings for FileSinkSettings {
    fn plan(
        &self,
        _: Option<&Schema>,
        planning: &mut Planning<'_>,
    ) -> Option<Box<dyn SinkConnector>> {
        let path = match self.path.get_ref().as_str() {
            "-" => PathBuf::from("/dev/stdout"),
            path => planning.folder.join(path),
        };
        let user = FileUser::new(format!("{} writes it", planning.title), self.path.span());
        if !path.starts_with("/dev") {
            planning.files.writes(user, &[&path, &part_of(&path)]);
        }
        Some(Box::new(FileSink {
            path,
            folder: planning.folder.to_owned(),
            format: self.format,
            compression: self.compression,
            if_exists: self.if_exists,
        }))
    }
}

impl SinkConnector for FileSink {
    fn writes_stdout(&self) -> bool {
        ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"]
            .iter()
            .any(|name| self.path == Path::new(name))
    }

    fn describe(&self) -> Description {
        Description {
            connector: KIND.name,
            format: Some(self.format.compressed_name(self.compression)),
            lines: vec![self.path.display().to_string()],
            settings: json!({ "path": self.path.display().to_string() }),
            place: Some(name_in(&identity(&self.folder), &self.path)),
            has_columns: self.format != SinkFormat::Json,
        }
    }

    fn delivery(&self) -> Delivery {
        Delivery::ExactlyOnce
    }

    fn open(
        &self,
        node: &str,
        schema: &Arc<Schema>,
        context: &SinkContext,
    ) -> Result<Box<dyn Sink>, SinkError> {
        let path = &self.path;
        let options = PartOptions {
            if_exists: self.if_exists,
            restored: context.restored.clone(),
            is_checkpointed: context.is_checkpointed,
            waits_for_commit: context.waits_for_commit,
            mark: first_bytes(self.compression),
        };
        let part = || PartFile::open(node, path, &options);
        let text = || Ok(TextFile::new(part()?, self.compression));
        Ok(match self.format {
            SinkFormat::Json => Box::new(TextSink::new(text()?, JsonLines::new(schema))?),
            SinkFormat::Csv => Box::new(TextSink::new(text()?, Csv::new(schema))?),
            SinkFormat::Parquet if context.is_checkpointed => {
                Box::new(CheckpointedParquet::new(node, path, schema, options)?)
            }
            SinkFormat::Parquet => Box::new(ParquetFile::new(part()?, schema)?),
        })
    }
}
