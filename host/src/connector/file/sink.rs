//! The sink `file`: writes rows into one file; with `roll` into numbered ones; with
//! Parquet and checkpoints into one a checkpoint.
//!
//! A file grows as `<file>.part` and is renamed to `<file>` when all rows have come.
//! So `<file>` is always complete, be it from this run or the one before; a run that
//! failed, or was stopped, leaves its `.part` behind. While the run goes on, the
//! `.part` can be read up to the last flush (not with Parquet, whose index is
//! written last). A run that is restored cuts the `.part` to its length at the
//! checkpoint, or begins with a copy of `<file>` where the run before has finished it.
//! A Parquet file cannot be cut, so each checkpoint that has rows gets its own.

use std::io::{self, ErrorKind};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;
use toml::Spanned;

use super::beginning::{IfExists, PartOptions};
use super::lines::TextSink;
use super::numbered::Numbered;
use super::opened::Compression;
use super::parquet::{CheckpointedParquet, ParquetSink};
use super::part::{PartFile, part_of};
use super::parts::sink::{FolderSettings, PartRows, PathKeys, read_folders};
use super::rolling::{Roll, Rolling, RollingSink};
use super::sink_format::{SINK_FORMATS, SinkFormat};
use super::text_file::TextFile;
use super::written::list_with;
use crate::config::diagnostics::{Diagnostics, Mistake};
use crate::config::format::read_csv;
use crate::config::reader::{ConfigValue, Table};
use crate::connector::text_rows::{Csv, JsonLines, TextFormat};
use crate::connector::{Description, Planning};
use crate::devices::is_named_pipe;
use crate::files::{Depth, FileUser};
use crate::format::CsvFormat;
use crate::paths::{
    STANDARD_OUTPUT, extension, identity, is_device, is_nowhere, name_in, written_at,
};
use crate::plan::state::Delivery;
use crate::schema::Schema;
use crate::sink::{Sink, SinkConnector, SinkContext, SinkError, SinkKind, SinkSettings};

pub const KIND: SinkKind = SinkKind { name: "file", read };

#[derive(Debug)]
struct FileSinkSettings {
    path: Spanned<String>,
    format: SinkFormat,
    csv: CsvFormat,
    compression: Compression,
    if_exists: IfExists,
    roll: Option<Spanned<Roll>>,
    /// Present where rows go into folders that their fields name.
    folders: Option<FolderSettings>,
}

/// The file to write, and its format.
#[derive(Clone, Debug)]
pub struct FileSink {
    pub path: PathBuf,
    /// The pipeline's folder.
    pub folder: PathBuf,
    pub format: SinkFormat,
    /// How CSV is written, if it is that.
    pub csv: CsvFormat,
    pub compression: Compression,
    pub if_exists: IfExists,
    pub roll: Option<Roll>,
}

const IF_EXISTS: &[(&str, IfExists)] = &[
    ("fail", IfExists::Fail),
    ("replace", IfExists::Replace),
    ("append", IfExists::Append),
];

fn read(table: &mut Table<'_>, mistakes: &mut Diagnostics) -> Option<Box<dyn SinkSettings>> {
    let path = table
        .required("path", "the file to write", mistakes)
        .and_then(|value| value.path(mistakes));
    let open_parts = table.optional("open_parts");
    let options = table.optional("options");
    let format = table.optional("format");
    let compression = table.optional("compression");
    let if_exists = table.optional("if_exists");
    let csv = table.optional("csv");
    let roll = match table.optional("roll") {
        Some(value) => Some(read_roll(&value, mistakes)?),
        None => None,
    };
    let compression = match compression {
        Some(value) => Some(value.choice(&Compression::CHOICES, mistakes)?),
        None => None,
    };
    let if_exists = match if_exists {
        Some(value) => value.choice(IF_EXISTS, mistakes)?,
        None => Spanned::new(0..0, IfExists::default()),
    };
    let keys = PathKeys {
        path: path?,
        open_parts,
        options,
    };
    let (path, folders) = read_folders(table, keys, mistakes)?;
    let format = match format {
        Some(value) => value.choice(SINK_FORMATS, mistakes)?.into_inner(),
        None => match extension(Compression::uncompressed(path.get_ref())) {
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
    let has_parts = folders.is_some();
    let csv = match csv {
        Some(value) if format != SinkFormat::Csv => {
            let name = format.name();
            mistakes.push(
                Mistake::new(format!(
                    "{} has `csv` settings, and its format is {name}",
                    table.owner()
                ))
                .at(value.key_span(), "")
                .help("remove them, or write `format = \"csv\"`"),
            );
            return None;
        }
        Some(value) => read_csv(value.table(mistakes)?, true, mistakes),
        None => CsvFormat::default(),
    };
    if format == SinkFormat::Parquet && !has_parts && *if_exists.get_ref() == IfExists::Append {
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
    if let (SinkFormat::Parquet, Some(roll), false) = (format, &roll, has_parts) {
        mistakes.push(
            Mistake::new(format!(
                "{} cannot roll Parquet files: with `[checkpoints]`, each checkpoint has a file \
                 of its own, which is complete then",
                table.owner()
            ))
            .at(roll.span(), "")
            .help(
                "remove `roll`, and give `[checkpoints]` the `interval` that files should have; \
                 or write json or csv",
            ),
        );
    }
    Some(Box::new(FileSinkSettings {
        path,
        format,
        csv,
        compression: compression.map_or(by_name, Spanned::into_inner),
        if_exists: if_exists.into_inner(),
        roll,
        folders,
    }))
}

/// Reads when a file is complete and the next one begins.
fn read_roll(value: &ConfigValue<'_>, mistakes: &mut Diagnostics) -> Option<Spanned<Roll>> {
    let mut table = value.table(mistakes)?;
    let (size, every) = (table.optional("size"), table.optional("every"));
    if size.is_none() && every.is_none() {
        mistakes.push(
            Mistake::new(format!("{} does not say when", value.what()))
                .at(value.span(), "")
                .help("write `size = \"64MiB\"`, `every = \"1h\"`, or both"),
        );
    }
    let is_empty = size.is_none() && every.is_none();
    let bytes = size.map(|value| value.bytes(ROLL_BYTES, mistakes));
    let every_ms = every.map(|value| value.duration(ROLL_MS_LEAST, mistakes));
    table.finish(mistakes);
    if is_empty {
        return None;
    }
    let roll = Roll {
        bytes: match bytes {
            Some(bytes) => Some(bytes?),
            None => None,
        },
        every_ms: match every_ms {
            Some(every_ms) => Some(every_ms?.into_inner()),
            None => None,
        },
    };
    Some(Spanned::new(value.span(), roll))
}

/// How large a file may be when the next one begins.
const ROLL_BYTES: RangeInclusive<u64> = 1 << 10..=1 << 40;

/// How old a file is at least.
const ROLL_MS_LEAST: i64 = 1_000;

impl SinkSettings for FileSinkSettings {
    fn plan(
        &self,
        columns: Option<&Schema>,
        planning: &mut Planning<'_>,
    ) -> Option<Box<dyn SinkConnector>> {
        if let Some(folders) = &self.folders {
            let rows = PartRows {
                format: self.format,
                csv: self.csv,
                compression: self.compression,
                if_exists: self.if_exists,
                roll: self.roll.as_ref().map(|roll| *roll.get_ref()),
            };
            return folders.plan(rows, columns?, planning);
        }
        let path = written_at(planning.folder, self.path.get_ref());
        let user = FileUser::new(format!("{} writes it", planning.title), self.path.span());
        let is_device = is_device(&path);
        if let (true, Some(roll)) = (is_device, &self.roll) {
            planning.mistakes.push(
                Mistake::new(format!(
                    "{} cannot roll {}, which is not a file",
                    planning.title,
                    path.display()
                ))
                .at(roll.span(), "")
                .help("remove `roll`, or give the path of a file"),
            );
            return None;
        }
        match &self.roll {
            _ if is_nowhere(&path) => {}
            _ if is_device => planning.files.writes(user, &[&path]),
            None => planning
                .files
                .writes(user, &[&path, &part_of(&identity(&path))]),
            Some(_) => {
                let names = Numbered::of(&path);
                let first = names.path(1);
                let paths: [&Path; 3] = [&names.list, &first, &part_of(&first)];
                let around = [&*names.before, &*names.after];
                let files = &mut planning.files;
                files.writes_numbered(user, &paths, &names.folder, Depth::InFolder, around);
            }
        }
        Some(Box::new(FileSink {
            path,
            folder: planning.folder.to_owned(),
            format: self.format,
            csv: self.csv,
            compression: self.compression,
            if_exists: self.if_exists,
            roll: self.roll.as_ref().map(|roll| *roll.get_ref()),
        }))
    }
}

impl SinkConnector for FileSink {
    fn takes_rows_back(&self) -> bool {
        !is_device(&self.path) && self.pipe().is_none()
    }

    fn writes_stdout(&self) -> bool {
        self.path == Path::new(STANDARD_OUTPUT)
    }

    fn pipe(&self) -> Option<&Path> {
        Some(&*self.path).filter(|path| is_named_pipe(path))
    }

    fn describe(&self) -> Description {
        let mut settings = json!({ "path": self.path.display().to_string() });
        let path = match self.roll {
            None => self.path.clone(),
            Some(roll) => {
                settings["roll"] = json!({ "size": roll.bytes, "every": roll.every_ms });
                Numbered::of(&self.path).pattern()
            }
        };
        Description {
            connector: KIND.name,
            format: Some(self.format.compressed_name(self.compression)),
            lines: vec![path.display().to_string()],
            settings,
            place: Some(name_in(&identity(&self.folder), &path)),
            has_columns: self.format != SinkFormat::Json,
        }
    }

    fn delivery(&self) -> Delivery {
        Delivery::ExactlyOnce
    }

    fn delivery_note(&self) -> &'static str {
        "a run that goes on from a checkpoint cuts off what is behind it"
    }

    fn open(
        &self,
        node: &str,
        schema: &Arc<Schema>,
        context: &SinkContext,
    ) -> Result<Box<dyn Sink>, SinkError> {
        let path = &self.path;
        let options = PartOptions {
            pipeline: context.pipeline.clone(),
            if_exists: self.if_exists,
            checkpoint: context.checkpoint,
            restored: context.restored.clone(),
            goes_back_to: context.goes_back_to,
            is_checkpointed: context.is_checkpointed,
            are_checkpoints_kept: context.are_checkpoints_kept,
            left_behind: context.left_behind.clone(),
            waits_for_commit: context.waits_for_commit,
            head: self.compression.mark().to_vec(),
            compression: self.compression,
            stop: context.stop.clone(),
            is_numbered: false,
            access: None,
        };
        let is_numbered =
            self.roll.is_some() || (self.format == SinkFormat::Parquet && context.is_checkpointed);
        if !is_numbered {
            check_not_numbered(path)
                .map_err(|cause| SinkError::io(node, path.display(), &cause))?;
        }
        match self.format {
            SinkFormat::Json => self.open_text(node, context, options, JsonLines::new(schema)),
            SinkFormat::Csv => self.open_text(node, context, options, Csv::new(schema, self.csv)),
            SinkFormat::Parquet if context.is_checkpointed => {
                let files = CheckpointedParquet::new(node, path, schema, options)?;
                Ok(Box::new(files))
            }
            SinkFormat::Parquet => {
                let part = PartFile::open(node, path, &options)?;
                Ok(Box::new(ParquetSink::new(part, schema)?))
            }
        }
    }
}

impl FileSink {
    fn open_text(
        &self,
        node: &str,
        context: &SinkContext,
        mut options: PartOptions,
        format: impl TextFormat + 'static,
    ) -> Result<Box<dyn Sink>, SinkError> {
        let Some(roll) = self.roll else {
            if options.compression == Compression::None {
                options.head = format.head();
            }
            let part = PartFile::open(node, &self.path, &options)?;
            let file = TextFile::new(part, self.compression);
            return Ok(Box::new(TextSink::new(file, format, context)));
        };
        let rolling = Rolling {
            path: &self.path,
            roll,
            compression: self.compression,
            clock: context.clock.clone(),
        };
        Ok(Box::new(RollingSink::new(node, rolling, &options, format)?))
    }
}

/// Refuses a file that a sink with numbered ones has under its temporary name, complete or
/// not, and gives its name later.
fn check_not_numbered(path: &Path) -> io::Result<()> {
    let path = identity(path);
    match list_with(&part_of(&path), &path) {
        None => Ok(()),
        Some(list) => Err(io::Error::new(
            ErrorKind::AlreadyExists,
            format!(
                "{} is one of the numbered files in {}, and not finished: give this sink another \
                 `path`",
                part_of(&path).display(),
                list.display()
            ),
        )),
    }
}
