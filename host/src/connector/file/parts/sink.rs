//! The sink `file`, where its path has fields, or is that of objects:
//! `path = "s3://bucket/date={ts:%Y-%m-%d}/"`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;
use toml::Spanned;

use super::super::beginning::IfExists;
use super::super::folders::{FolderNames, Folders, WrittenFolders, Wrong, has_fields};
use super::super::known::S3;
use super::super::opened::Compression;
use super::super::rolling::Roll;
use super::super::sink_format::SinkFormat;
use super::bucket::{Bucket, BucketParts, ObjectNames};
use super::encode::PartFormat;
use super::local::{LocalParts, PartNames};
use super::{Parts, PartsSink};
use crate::config::diagnostics::{Diagnostics, Mistake};
use crate::config::reader::{ConfigValue, Table};
use crate::config::secrets::read_options;
use crate::connector::{Description, Planning};
use crate::files::{Depth, FileUser};
use crate::format::CsvFormat;
use crate::paths::{identity, name_in};
use crate::plan::state::{Delivery, RemotePlan};
use crate::schema::Schema;
use crate::sink::{Sink, SinkConnector, SinkContext, SinkError};
use crate::store::connect;

/// How many parts are written at a time, if the pipeline's file does not say.
const OPEN_PARTS: usize = 64;

/// More than processes may open.
const OPEN_PARTS_MAX: i64 = 10_000;

/// What the pipeline's file says about folders.
#[derive(Debug)]
pub(in super::super) struct FolderSettings {
    path: Spanned<String>,
    written: WrittenFolders,
    open_max: usize,
    /// Of the object store, if parts are in one.
    options: Vec<(String, String)>,
}

/// The keys of a sink that are about its path.
pub(in super::super) struct PathKeys<'a> {
    pub path: Spanned<String>,
    pub open_parts: Option<ConfigValue<'a>>,
    pub options: Option<ConfigValue<'a>>,
}

/// What the path of files may begin with.
const FILE: &str = "file://";

/// How rows are written, in whichever folder.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct PartRows {
    pub format: SinkFormat,
    pub csv: CsvFormat,
    pub compression: Compression,
    pub if_exists: IfExists,
    pub roll: Option<Roll>,
}

/// Finds fields in a path. One without any comes back with its braces single. `None` means
/// that a mistake was reported.
pub(in super::super) fn read_folders(
    table: &Table<'_>,
    keys: PathKeys<'_>,
    mistakes: &mut Diagnostics,
) -> Option<(Spanned<String>, Option<FolderSettings>)> {
    let PathKeys {
        path,
        open_parts,
        options,
    } = keys;
    let path = match path.get_ref().strip_prefix(FILE) {
        Some(file) if file.starts_with('/') => Spanned::new(path.span(), file.to_owned()),
        Some(_) => {
            let message = format!(
                "{} writes to a URL without a path from the root",
                table.owner()
            );
            let help = "write `file:///…`, or a path without `file://`, which may begin in the \
                        pipeline's folder";
            mistakes.push(Mistake::new(message).at(path.span(), "").help(help));
            return None;
        }
        None => path,
    };
    let is_bucket = path.get_ref().starts_with(S3);
    if let (Some(options), false) = (&options, is_bucket) {
        mistakes.push(
            Mistake::new(format!(
                "{} writes files, which have no options",
                table.owner()
            ))
            .at(options.key_span(), "")
            .help("remove them, or write objects: \"s3://bucket/folder/\""),
        );
        return None;
    }
    let may_have_folders = has_fields(path.get_ref()) || is_bucket;
    let written = may_have_folders.then(|| WrittenFolders::parse(path.get_ref()));
    let written = match written.transpose() {
        Ok(written) => written,
        Err(Wrong { why, help }) => {
            let message = format!(
                "{} cannot write to `{}`: {why}",
                table.owner(),
                path.get_ref()
            );
            mistakes.push(Mistake::new(message).at(path.span(), "").help(help));
            return None;
        }
    };
    let open_max = match &open_parts {
        Some(value) => *value.integer(1..=OPEN_PARTS_MAX, mistakes)?.get_ref() as usize,
        None => OPEN_PARTS,
    };
    let written = match written {
        Some(written) if written.has_fields() || is_bucket => {
            let options = options.and_then(|value| value.table(mistakes));
            let options = options.map(|options| read_options(options, mistakes));
            let settings = FolderSettings {
                path: path.clone(),
                written,
                open_max,
                options: options.unwrap_or_default(),
            };
            return Some((path, Some(settings)));
        }
        written => written,
    };
    if let Some(value) = open_parts {
        mistakes.push(
            Mistake::new(format!("{} writes one file at a time", table.owner()))
                .at(value.key_span(), "")
                .help("remove it, or write fields in the path: \"out/date={ts:%Y-%m-%d}/\""),
        );
        return None;
    }
    let path = match written {
        Some(WrittenFolders { base, file, .. }) => Spanned::new(path.span(), base + &file),
        None => path,
    };
    Some((path, None))
}

impl FolderSettings {
    /// Finds the fields in the sink's rows.
    pub fn plan(
        &self,
        rows: PartRows,
        columns: &Schema,
        planning: &mut Planning<'_>,
    ) -> Option<Box<dyn SinkConnector>> {
        let written = self.path.get_ref();
        let folders = match self.written.plan(columns) {
            Ok(folders) => folders,
            Err(Wrong { why, help }) => {
                let message = format!("{} writes to `{written}`: {why}", planning.title);
                let mistake = Mistake::new(message).at(self.path.span(), "");
                planning.mistakes.push(mistake.help(help));
                return None;
            }
        };
        let file = match self.written.file.as_str() {
            "" => format!("part.{}", extension_of(rows)),
            file => file.to_owned(),
        };
        let user = FileUser::new(format!("{} writes it", planning.title), self.path.span());
        let sink = |place| PartsFileSink {
            folder: planning.folder.to_owned(),
            written: written.clone(),
            place,
            file: file.clone(),
            folders: folders.clone(),
            open_max: self.open_max,
            rows,
        };
        if written.starts_with(S3) {
            let plan = RemotePlan {
                url: self.written.base.trim_end_matches('/').to_owned(),
                options: self.options.clone(),
            };
            if let Err(problem) = connect(&plan) {
                let message = format!("{} cannot write to `{written}`: {problem}", planning.title);
                let mistake = Mistake::new(message).at(self.path.span(), "");
                planning.mistakes.push(mistake.help(
                    "give a path such as \"s3://bucket/folder/date={ts:%Y-%m-%d}/\", and what else \
                     is to be known in `options`",
                ));
                return None;
            }
            // No two write the same objects.
            let any = PartNames::of(Path::new(&plan.url), &file).with_folder(&folders.any());
            planning.files.writes(user, &[&any]);
            return Some(Box::new(sink(PartsPlace::Bucket(plan))));
        }
        let base = planning.folder.join(&self.written.base);
        let names = PartNames::of(&base, &file);
        let any = names.with_folder(&folders.any());
        let paths: [&Path; 2] = [&names.list(), &any];
        planning
            .files
            .writes_numbered(user, &paths, &base, Depth::Below, names.around());
        Some(Box::new(sink(PartsPlace::Folder(base))))
    }
}

fn extension_of(rows: PartRows) -> &'static str {
    match (rows.format, rows.compression) {
        (SinkFormat::Json, Compression::None) => "jsonl",
        (SinkFormat::Json, Compression::Gzip) => "jsonl.gz",
        (SinkFormat::Json, Compression::Zstd) => "jsonl.zst",
        (SinkFormat::Csv, Compression::None) => "csv",
        (SinkFormat::Csv, Compression::Gzip) => "csv.gz",
        (SinkFormat::Csv, Compression::Zstd) => "csv.zst",
        (SinkFormat::Parquet, _) => "parquet",
    }
}

/// Folders to write parts to, and their format.
struct PartsFileSink {
    /// The pipeline's folder.
    folder: PathBuf,
    /// The path, as in the pipeline's file.
    written: String,
    place: PartsPlace,
    file: String,
    folders: Folders,
    open_max: usize,
    rows: PartRows,
}

/// What all folders of rows are in.
enum PartsPlace {
    Folder(PathBuf),
    Bucket(RemotePlan),
}

impl PartsFileSink {
    /// Parts of Parquet, and those that were sent, cannot be cut where a checkpoint was made, and
    /// without `roll` none says how long a part is to go on.
    fn goes_on(&self) -> bool {
        let is_cut = matches!(self.place, PartsPlace::Folder(_));
        is_cut && self.rows.roll.is_some() && self.rows.format != SinkFormat::Parquet
    }
}

impl SinkConnector for PartsFileSink {
    fn takes_rows_back(&self) -> bool {
        true
    }

    fn describe(&self) -> Description {
        let PartRows {
            format,
            compression,
            roll,
            ..
        } = self.rows;
        let (path, pattern) = match &self.place {
            PartsPlace::Folder(base) => {
                let pattern = PartNames::of(base, &self.file).pattern();
                let pattern = name_in(&identity(&self.folder), &pattern);
                (
                    self.folder.join(&self.written).display().to_string(),
                    pattern,
                )
            }
            PartsPlace::Bucket(plan) => {
                let pattern = PartNames::of(Path::new(&plan.url), &self.file).pattern();
                (self.written.clone(), pattern.display().to_string())
            }
        };
        let mut settings = json!({
            "path": path,
            "open_parts": self.open_max,
        });
        if let Some(roll) = roll {
            settings["roll"] = json!({ "size": roll.bytes, "every": roll.every_ms });
        }
        Description {
            connector: "file",
            format: Some(format.compressed_name(compression)),
            lines: vec![path],
            settings,
            place: Some(pattern),
            has_columns: format != SinkFormat::Json,
        }
    }

    fn delivery(&self) -> Delivery {
        Delivery::ExactlyOnce
    }

    fn delivery_note(&self) -> &'static str {
        "files get their names when a checkpoint has all of their rows"
    }

    fn open(
        &self,
        node: &str,
        schema: &Arc<Schema>,
        context: &SinkContext,
    ) -> Result<Box<dyn Sink>, SinkError> {
        let compression = self.rows.compression;
        let parts = Parts {
            node: node.to_owned(),
            folders: FolderNames::new(self.folders.clone()),
            format: match self.rows.format {
                SinkFormat::Json => PartFormat::json(schema, compression),
                SinkFormat::Csv => PartFormat::csv(schema, self.rows.csv, compression),
                SinkFormat::Parquet => PartFormat::parquet(schema),
            },
            roll: self.rows.roll.unwrap_or(Roll {
                bytes: None,
                every_ms: None,
            }),
            open_max: self.open_max,
            goes_on: self.goes_on(),
            is_checkpointed: context.is_checkpointed,
            waits_for_commit: context.waits_for_commit,
            clock: context.clock.clone(),
        };
        let if_exists = self.rows.if_exists;
        match &self.place {
            PartsPlace::Folder(base) => {
                let names = PartNames::of(base, &self.file);
                let (place, restored) = LocalParts::open(node, names, if_exists, context)?;
                Ok(Box::new(PartsSink::new(parts, place, restored)))
            }
            PartsPlace::Bucket(plan) => {
                let (bucket, base) = Bucket::of(node, plan)?;
                let names = ObjectNames::of(base, &self.file);
                let opened = BucketParts::open(node, &bucket, names, if_exists, context);
                let (place, restored) = opened?;
                Ok(Box::new(PartsSink::new(parts, place, restored)))
            }
        }
    }
}
