//! The source `file`: existing files, a partition each, in the order of their
//! names.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::json;
use toml::Spanned;

use super::folder_fields::{FolderFields, FolderFieldsSource};
use super::follow::{self, FollowSource, Start, Watched};
use super::input::{FileInput, FirstLine, HEADER_BYTES, first_line};
use super::known::{S3, SourceFile, not_among, recognize};
use super::objects::ObjectsSource;
use super::opened::Compression;
use super::parquet_source::{self, ParquetInput};
use super::pipe::{Pipe, PipeSource};
use crate::blame::Fault;
use crate::checkpoint::snapshot::{PartitionSnapshot, SourceSnapshot};
use crate::config::column::{self, DeclaredColumn};
use crate::config::diagnostics::{Diagnostics, Mistake, Span};
use crate::config::format::{FILES, FormatKind, WrittenRows, read_rows, refuse_added_fields};
use crate::config::reader::{ConfigValue, Table};
use crate::config::secrets;
use crate::connector::{Description, InputFiles, Planning};
use crate::decode::{Decoder, Header, check_header_start};
use crate::files::{FileUser, what_is_missing};
use crate::format::{Format, RowFormat, TableChanges};
use crate::paths::{
    extension, here_if_empty, identity, name_matches, path_matches, read_folder, show_files, shown,
};
use crate::plan::state::RemotePlan;
use crate::schema::{DataType, Field, Schema};
use crate::source::{
    LeftPartition, Noticed, Pending, SourceConnector, SourceContext, SourceError, SourceInput,
    SourceKind, SourceSettings,
};
use crate::store::connect;

pub const KIND: SourceKind = SourceKind { name: "file", read };

#[derive(Debug)]
struct FileSourceSettings {
    /// Files and patterns, as written in the config.
    paths: Vec<Spanned<String>>,
    compression: Option<Compression>,
    /// Absent where files are read to their ends.
    follow: Option<Follow>,
    rows: WrittenRows,
    /// What rows have, and behind that what folders name.
    columns: Vec<DeclaredColumn>,
    /// Where `folders` is, if it is there.
    folders: Option<Span>,
    /// Those of the object store, if objects are read.
    options: Vec<(String, String)>,
}

/// That files are followed.
#[derive(Debug)]
struct Follow {
    place: Span,
    start: Start,
}

/// The files to read.
pub struct FileSource {
    /// A partition each, in the order of their names.
    paths: Vec<PathBuf>,
    /// The other paths of a file that were found, of links to it.
    links: HashMap<PathBuf, Vec<PathBuf>>,
    /// Where they were found: folders, and patterns of names in them.
    patterns: Vec<(PathBuf, String)>,
    /// The pipeline's folder, which the names of partitions are relative to.
    folder: PathBuf,
    format: RowFormat,
    /// Absent: by the names of the files.
    compression: Option<Compression>,
    pub is_parquet: bool,
    recognized: Mutex<Option<Recognized>>,
    /// What headers lack.
    warnings: Vec<Noticed>,
}

/// The files, compared with a restored checkpoint. All tasks of an attempt have to see
/// the same, although files may be renamed meanwhile.
struct Recognized {
    restored: Arc<[SourceSnapshot]>,
    left_by_others: Arc<[LeftPartition]>,
    found: Found,
}

#[derive(Clone)]
struct Found {
    files: Arc<[SourceFile]>,
    /// What the checkpoint has of files that are gone.
    absent: Arc<[PartitionSnapshot]>,
}

impl FileSource {
    pub fn new(
        paths: Vec<PathBuf>,
        folder: PathBuf,
        format: RowFormat,
        compression: Option<Compression>,
    ) -> Self {
        FileSource {
            paths,
            links: HashMap::new(),
            patterns: Vec::new(),
            folder,
            format,
            compression,
            is_parquet: false,
            recognized: Mutex::default(),
            warnings: Vec::new(),
        }
    }

    fn all(&self) -> Vec<SourceFile> {
        // Parquet is compressed in itself.
        let compression = match self.is_parquet {
            true => Some(Compression::None),
            false => self.compression,
        };
        let (paths, links, folder) = (&self.paths, &self.links, &self.folder);
        SourceFile::all(paths, links, folder, compression, self.is_parquet)
    }

    fn find(&self, context: &SourceContext) -> Result<Found, SourceError> {
        if context.restored.is_empty() && context.left_by_others.is_empty() {
            self.check_patterns(context)?;
            return Ok(Found {
                files: self.all().into(),
                absent: Arc::default(),
            });
        }
        let mut recognized = self
            .recognized
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = &*recognized
            && Arc::ptr_eq(&known.restored, &context.restored)
            && Arc::ptr_eq(&known.left_by_others, &context.left_by_others)
        {
            return Ok(known.found.clone());
        }
        self.check_patterns(context)?;
        let mut files = self.all();
        let absent = recognize(&mut files, || self.listed(), context)?;
        let found = Found {
            files: files.into(),
            absent: absent.into(),
        };
        *recognized = Some(Recognized {
            restored: context.restored.clone(),
            left_by_others: context.left_by_others.clone(),
            found: found.clone(),
        });
        Ok(found)
    }

    /// Refuses a pattern that matches no file, unless the source has read files before:
    /// they may be gone.
    fn check_patterns(&self, context: &SourceContext) -> Result<(), SourceError> {
        for (folder, pattern) in &self.patterns {
            let is_found = |path: &PathBuf| path_matches(folder, pattern, path);
            if self.paths.iter().any(is_found)
                || list(folder, pattern).is_ok_and(|paths| !paths.is_empty())
            {
                continue;
            }
            let message = format!(
                "no file in {} matches `{pattern}`",
                here_if_empty(folder).display()
            );
            if context.restored.is_empty() {
                let message = format!("{message}: correct `path`, or put the files there");
                return Err(context.refuse(message, Fault::OUTSIDE_LASTING));
            }
            tracing::warn!("source `{}`: {message} (any more)", context.node);
        }
        Ok(())
    }

    /// The files that the patterns match by now.
    fn listed(&self) -> Vec<PathBuf> {
        let lists = self.patterns.iter();
        let lists = lists.filter_map(|(folder, pattern)| list(folder, pattern).ok());
        lists.flatten().collect()
    }
}

fn read(table: &mut Table<'_>, mistakes: &mut Diagnostics) -> Option<Box<dyn SourceSettings>> {
    let path = table
        .required(
            "path",
            "a file, several, a pattern such as \"events/*.jsonl\", or \"-\" for standard input",
            mistakes,
        )
        .and_then(|value| read_paths(&value, mistakes));
    let written = path.as_ref().and_then(|paths| paths.first());
    let compression = table
        .optional("compression")
        .and_then(|value| value.choice(&Compression::CHOICES, mistakes));
    let follow = read_follow(table, mistakes);
    let implied =
        written.and_then(
            |path| match extension(Compression::uncompressed(path.get_ref())) {
                "json" | "jsonl" | "ndjson" => Some(FormatKind::Json),
                "csv" => Some(FormatKind::Csv),
                "parquet" => Some(FormatKind::Parquet),
                _ => None,
            },
        );
    // A missing path is a mistake already; any format will do.
    let implied = if path.is_none() {
        Some(FormatKind::Json)
    } else {
        implied
    };
    let rows = read_rows(table, implied, &FILES, mistakes);
    let options = table.optional("options");
    let folders = table.optional("folders");
    let place = folders.as_ref().map(ConfigValue::key_span);
    let (rows, mut columns) = (rows?, Vec::new());
    if let (Some(_), Some(place)) = (rows.format.format.changes(), &place) {
        refuse_added_fields(table, ("folders", "rows"), place.clone(), mistakes);
        return None;
    }
    columns.extend(rows.columns.iter().cloned());
    if let Some(value) = folders {
        columns.extend(read_folder_fields(&value, &rows.columns, mistakes)?);
    }
    let paths = path?;
    let options = match options {
        Some(value) if !paths.iter().any(is_object) => {
            mistakes.push(
                Mistake::new(format!(
                    "{} reads files, which have no options",
                    table.owner()
                ))
                .at(value.key_span(), "")
                .help("remove them, or read objects: \"s3://bucket/folder/*.jsonl\""),
            );
            return None;
        }
        Some(value) => secrets::read_options(value.table(mistakes)?, mistakes),
        None => Vec::new(),
    };
    Some(Box::new(FileSourceSettings {
        paths,
        compression: compression.map(Spanned::into_inner),
        follow: follow?,
        rows,
        columns,
        folders: place,
        options,
    }))
}

/// Whether a path is that of objects in an object store.
fn is_object(path: &Spanned<String>) -> bool {
    path.get_ref().starts_with(S3)
}

/// Reads the fields that folders name.
fn read_folder_fields(
    value: &ConfigValue<'_>,
    fields: &[DeclaredColumn],
    mistakes: &mut Diagnostics,
) -> Option<Vec<DeclaredColumn>> {
    let entries = value.table(mistakes)?.into_entries();
    let columns = entries.map(|(name, value)| column::read(name, &value, mistakes));
    let columns: Vec<Option<DeclaredColumn>> = columns.collect();
    let columns = columns.into_iter().collect::<Option<Vec<_>>>()?;
    for (index, column) in columns.iter().enumerate() {
        let Field {
            name, data_type, ..
        } = &column.field;
        let others = fields.iter().chain(&columns[..index]);
        let mut others = others.filter(|other| other.field.name == *name);
        let mistake = match (others.next(), data_type) {
            (Some(other), _) => {
                Mistake::new(format!("{} has the field `{name}` twice", value.what()))
                    .at(column.place.clone(), "again here")
                    .at(other.place.clone(), "first here")
                    .help("a field is either in the rows or in the name of a folder")
            }
            (None, DataType::List(_) | DataType::Record(_)) => Mistake::new(format!(
                "a folder cannot have `{name}`, which is `{data_type}`"
            ))
            .at(column.place.clone(), "")
            .help("folders have single values"),
            (None, _) => continue,
        };
        mistakes.push(mistake);
        return None;
    }
    Some(columns)
}

/// Reads `follow` and `start`.
fn read_follow(table: &mut Table<'_>, mistakes: &mut Diagnostics) -> Option<Option<Follow>> {
    let follow = table.optional("follow");
    let start = table.optional("start");
    let place = follow.as_ref().map(ConfigValue::key_span);
    let follow = match follow {
        Some(value) => value.boolean(mistakes)?,
        None => false,
    };
    let place = place.filter(|_| follow);
    let (Some(start), None) = (&start, &place) else {
        let start = match start {
            Some(start) => start.choice(&Start::CHOICES, mistakes)?.into_inner(),
            None => Start::default(),
        };
        return Some(place.map(|place| Follow { place, start }));
    };
    mistakes.push(
        Mistake::new(format!(
            "{} has a `start`, and reads all of its files",
            table.owner()
        ))
        .at(start.key_span(), "")
        .help("remove it, or follow files that grow with `follow = true`"),
    );
    None
}

fn read_paths(value: &ConfigValue, mistakes: &mut Diagnostics) -> Option<Vec<Spanned<String>>> {
    let paths = value.one_or_more("a path or a list of paths", mistakes, |value, mistakes| {
        value.path(mistakes)
    })?;
    if paths.is_empty() {
        mistakes.push(
            Mistake::new(format!("{} names no file", value.what()))
                .at(value.span(), "an empty list")
                .help("write the path of a file, or a pattern such as \"events/*.jsonl\""),
        );
        return None;
    }
    Some(paths)
}

impl FileSourceSettings {
    /// The first path that leads to a pipe, and its place.
    fn pipe(&self, folder: &Path) -> Option<(Pipe, Span)> {
        self.paths.iter().find_map(|path| {
            let written = path.get_ref();
            Some((Pipe::at(written, &folder.join(written))?, path.span()))
        })
    }

    /// The files in the order of their names, each once, and the other paths of a file.
    fn find_files(&self, planning: &mut Planning<'_>) -> Option<FoundFiles> {
        let mut found = Vec::new();
        let mut lacking = Vec::new();
        let mut good = true;
        for path in &self.paths {
            let matched = matches(planning, path).and_then(|paths| {
                let headers = match planning.input_files {
                    InputFiles::Replaced => &[],
                    _ => &paths[..],
                };
                let unfit = self.look_at_headers(headers, &mut lacking);
                match unfit {
                    Err((error, help)) => Err(Some(unfit_header(planning, path, &error, help))),
                    Ok(()) => Ok(paths),
                }
            });
            match matched {
                Ok(paths) => found.extend(paths),
                Err(mistake) => {
                    good = false;
                    if let Some(mistake) = mistake {
                        planning.mistakes.push(mistake);
                    }
                }
            }
        }
        found.sort();
        lacking.sort();
        good.then(|| FoundFiles {
            warnings: warnings(&lacking),
            ..FoundFiles::new(found)
        })
    }

    /// Adds what the headers of these files lack.
    fn look_at_headers(
        &self,
        paths: &[PathBuf],
        lacking: &mut Vec<(PathBuf, String)>,
    ) -> Result<(), (String, &'static str)> {
        for path in paths {
            let lacks = self.look_at_header(path)?.lacks;
            lacking.extend(lacks.map(|lacks| (path.clone(), lacks)));
        }
        Ok(())
    }

    /// Whether what is to be read can be Parquet. If not, that was reported.
    fn may_be_parquet(&self, planning: &mut Planning<'_>) -> bool {
        let title = planning.title;
        let mut mistake = |what: &str, place: Span, help: &str| {
            let mistake = Mistake::new(format!("{title} {what}")).at(place, "");
            planning.mistakes.push(mistake.help(help));
        };
        let place = self.paths.first().map(Spanned::span).unwrap_or_default();
        if let Some((_, place)) = self.pipe(planning.folder) {
            let help = "what is where is said at a file's end: give it the path of a file";
            mistake("reads Parquet from a pipe", place, help);
        } else if let Some(follow) = &self.follow {
            let help = "a file of Parquet is complete when it can be read: remove `follow`";
            mistake("follows files of Parquet", follow.place.clone(), help);
        } else if self.compression.is_some_and(|it| it != Compression::None) {
            let help = "Parquet is compressed in itself: remove `compression`";
            mistake("has a `compression`, and reads Parquet", place, help);
        } else {
            return true;
        }
        false
    }

    /// What is to be followed, and what there is to say about it.
    fn plan_to_follow(&self, planning: &mut Planning<'_>, follow: &Follow) -> Option<FollowSource> {
        let title = planning.title;
        let is_compressed = |path: &&Spanned<String>| {
            let of_name = Compression::of(Path::new(path.get_ref()));
            self.compression.unwrap_or(of_name) != Compression::None
        };
        if let Some(path) = self.paths.iter().find(is_compressed) {
            planning.mistakes.push(
                Mistake::new(format!("{title} follows compressed files"))
                    .at(follow.place.clone(), "")
                    .at(path.span(), "")
                    .help("only text can be read while it grows: read them without `follow`"),
            );
            return None;
        }
        let watched = self.paths.iter().map(|path| watched(planning, path));
        let watched: Vec<Option<Watched>> = watched.collect();
        let watched = watched.into_iter().collect::<Option<Vec<Watched>>>()?;
        let mut warnings = Vec::new();
        if planning.input_files != InputFiles::Replaced {
            let mut lacking = Vec::new();
            for (path, watched) in self.paths.iter().zip(&watched) {
                let mut paths = list(&watched.folder, &watched.pattern).unwrap_or_default();
                // A header that is not whole yet says nothing.
                paths.retain(|path| Compression::of(path) == Compression::None && has_line(path));
                if let Err((error, help)) = self.look_at_headers(&paths, &mut lacking) {
                    let mistake = unfit_header(planning, path, &error, help);
                    planning.mistakes.push(mistake);
                    return None;
                }
            }
            lacking.sort();
            warnings = self::warnings(&lacking);
            warnings.extend(follow::warnings(&watched));
        }
        Some(FollowSource {
            watched,
            folder: planning.folder.to_owned(),
            format: self.rows.format.clone(),
            start: follow.start,
            must_be_text: self.compression.is_none(),
            warnings,
        })
    }

    /// What the header of a file of CSV has of the fields, or why it does not fit them, if
    /// that can be seen at the file's beginning.
    fn look_at_header(&self, path: &Path) -> Result<Header, (String, &'static str)> {
        let format = &self.rows.format;
        if self.rows.is_parquet {
            let fields = self.rows.columns.iter().map(|column| column.field.clone());
            let checked = parquet_source::check(path, format, &Schema::new(fields.collect()));
            let help = "name the fields as the file does, or give its names in `names`; a field \
                        that may be missing has a `?` behind its type";
            return match checked {
                Ok(()) => Ok(Header::default()),
                Err(wrong) => Err((format!("{}: {wrong}", shown(path)), help)),
            };
        }
        if !matches!(&format.format, Format::Csv(csv) if csv.header) {
            return Ok(Header::default());
        }
        let compression = self.compression.unwrap_or_else(|| Compression::of(path));
        let Some(first) = first_line(path, compression, &format.format) else {
            return Ok(Header::default());
        };
        let (FirstLine::Whole(start) | FirstLine::Beginning(start)) = &first;
        let error = |error: String| format!("{}: {error}", shown(path));
        check_header_start(&format.format, start).map_err(|wrong| {
            (
                error(wrong),
                "text is read as it is: convert the file first",
            )
        })?;
        let FirstLine::Whole(header) = &first else {
            return Ok(Header::default());
        };
        let fields = self.rows.columns.iter().map(|column| column.field.clone());
        let mut decoder = Decoder::new(format, &Schema::new(fields.collect()));
        decoder.read_header(header).map_err(|wrong| {
            let help = "name the fields as the header does, or give the header's names in \
                        `names`; a field that may be missing has a `?` behind its type";
            (error(wrong), help)
        })
    }
}

impl FileSourceSettings {
    /// Reads objects of an object store.
    fn plan_objects(
        &self,
        planning: &mut Planning<'_>,
        path: &Spanned<String>,
    ) -> Option<Box<dyn SourceConnector>> {
        let title = planning.title;
        let mut mistake = |what: String, place: Span, help: &str| {
            let mistake = Mistake::new(format!("{title} {what}")).at(place, "");
            planning.mistakes.push(mistake.help(help));
        };
        if let Some(other) = self.paths.iter().find(|other| *other != path) {
            let what = "reads objects and something else".to_owned();
            mistake(
                what,
                other.span(),
                "give each pattern of objects a source of its own",
            );
            return None;
        }
        if let Some(follow) = &self.follow {
            let what = "follows objects, which do not grow".to_owned();
            let help = "remove `follow`: a run that goes on later reads new objects";
            mistake(what, follow.place.clone(), help);
            return None;
        }
        let (folder, pattern) = ObjectsSource::split(path.get_ref());
        let plan = RemotePlan {
            url: folder.to_owned(),
            options: self.options.clone(),
        };
        let help = "give a path such as \"s3://bucket/folder/*.jsonl\", and what else is to be \
                    known in `options`";
        if pattern.is_empty() {
            let what = format!("reads `{}`, which names no objects", path.get_ref());
            mistake(what, path.span(), help);
            return None;
        }
        if let Err(problem) = connect(&plan) {
            let what = format!("cannot read `{}`: {problem}", path.get_ref());
            mistake(what, path.span(), help);
            return None;
        }
        let objects = ObjectsSource {
            plan,
            pattern: pattern.to_owned(),
            format: self.rows.format.clone(),
            compression: self.compression,
            is_parquet: self.rows.is_parquet,
        };
        Some(self.with_folder_fields(objects))
    }

    /// With the fields that folders name, if there are any.
    fn with_folder_fields(&self, files: impl SourceConnector) -> Box<dyn SourceConnector> {
        match self.folders {
            Some(_) => Box::new(FolderFieldsSource {
                files: Box::new(files),
                fields: self.folder_fields(),
            }),
            None => Box::new(files),
        }
    }

    fn folder_fields(&self) -> FolderFields {
        FolderFields::of(&self.columns[self.rows.columns.len()..])
    }
}

impl SourceSettings for FileSourceSettings {
    fn columns(&self) -> &[DeclaredColumn] {
        &self.columns
    }

    fn changes(&self) -> Option<&TableChanges> {
        self.rows.format.format.changes()
    }

    /// Files that were rotated away have no more rows, and would hold back event time for ever.
    fn idle_after_ms(&self) -> Option<i64> {
        self.follow.as_ref().map(|_| FOLLOWED_IDLE_AFTER_MS)
    }

    fn plan(&self, planning: &mut Planning<'_>) -> Option<Box<dyn SourceConnector>> {
        if self.rows.is_parquet && !self.may_be_parquet(planning) {
            return None;
        }
        if let Some(path) = self.paths.iter().find(|path| is_object(path)) {
            return self.plan_objects(planning, path);
        }
        let beside = self.folders.as_ref().and_then(|folders| {
            let pipe = self.pipe(planning.folder).map(|(_, place)| place);
            let followed = self.follow.as_ref().map(|follow| follow.place.clone());
            Some((folders.clone(), pipe.or(followed)?))
        });
        if let Some((folders, place)) = beside {
            let message = format!("{} reads no folders that name fields", planning.title);
            let mistake = Mistake::new(message).at(folders, "").at(place, "");
            let help = "pipes and files that grow have none: remove `folders`";
            planning.mistakes.push(mistake.help(help));
            return None;
        }
        if let Some((pipe, place)) = self.pipe(planning.folder) {
            if self.paths.len() > 1 {
                planning.mistakes.push(
                    Mistake::new(format!("{} reads a pipe and other files", planning.title))
                        .at(place, "")
                        .help("give the pipe a source of its own"),
                );
                return None;
            }
            if let Some(follow) = &self.follow {
                planning.mistakes.push(
                    Mistake::new(format!("{} follows a pipe", planning.title))
                        .at(follow.place.clone(), "")
                        .at(place, "")
                        .help("a pipe is read until its writers close it: remove `follow`"),
                );
                return None;
            }
            let user = FileUser::new(format!("{} reads it", planning.title), place);
            match &pipe {
                Pipe::StandardInput => planning.files.takes_standard_input(user),
                Pipe::Named(path) => planning.files.takes(user, path),
            }
            let (folder, format) = (planning.folder, self.rows.format.clone());
            return Some(Box::new(PipeSource::new(
                pipe,
                folder,
                format,
                self.compression,
            )));
        }
        if let Some(follow) = &self.follow {
            let source = self.plan_to_follow(planning, follow)?;
            return Some(Box::new(source));
        }
        let patterns = self.paths.iter().map(Spanned::get_ref);
        let patterns = patterns.filter(|path| path.contains('*'));
        let FoundFiles {
            paths,
            links,
            warnings,
        } = self.find_files(planning)?;
        let fields = self.folder_fields();
        let read = |path: &PathBuf| fields.read(&path.to_string_lossy()).err();
        if planning.input_files != InputFiles::Replaced
            && let Some(why) = paths.iter().find_map(read)
        {
            let place = self.folders.clone().unwrap_or_default();
            let mistake = Mistake::new(format!("{}: {why}", planning.title)).at(place, "");
            planning.mistakes.push(mistake.help(
                "give `path` the folders that are called like the fields, such as \
                 \"out/date=*/*.jsonl\" for `folders = { date = \"utf8\" }`",
            ));
            return None;
        }
        let files = FileSource {
            patterns: patterns.map(|path| split(planning.folder, path)).collect(),
            links,
            warnings,
            is_parquet: self.rows.is_parquet,
            ..FileSource::new(
                paths,
                planning.folder.to_owned(),
                self.rows.format.clone(),
                self.compression,
            )
        };
        Some(self.with_folder_fields(files))
    }
}

impl SourceConnector for FileSource {
    fn describe(&self) -> Description {
        // JSON has no names that are not UTF-8.
        let paths = self.paths.iter().map(|path| shown(path));
        Description {
            connector: KIND.name,
            format: Some(match self.is_parquet {
                true => "parquet",
                false => self.format.format.name(),
            }),
            lines: vec![show_files(&self.paths)],
            settings: json!({ "paths": Vec::from_iter(paths) }),
            ..Description::default()
        }
    }

    fn partitions(&self) -> Option<usize> {
        Some(self.paths.len())
    }

    fn row_format(&self) -> RowFormat {
        self.format.clone()
    }

    fn warnings(&self) -> &[Noticed] {
        &self.warnings
    }

    fn open<'a>(&'a self, context: &'a SourceContext) -> Pending<'a, Box<dyn SourceInput>> {
        Box::pin(async move {
            let Found { files, absent } = self.find(context)?;
            if self.is_parquet {
                let mut input = ParquetInput::open(&files, &self.format, context)?;
                if context.placement.task == 0 {
                    input.absent = absent;
                }
                return Ok(Box::new(input) as Box<dyn SourceInput>);
            }
            let mut input = FileInput::open(&files, &self.format, self.compression, context)?;
            if context.placement.task == 0 {
                input.absent = absent;
            }
            Ok(Box::new(input) as Box<dyn SourceInput>)
        })
    }

    fn not_read(&self, known: &[SourceSnapshot]) -> Vec<PartitionSnapshot> {
        not_among(&self.all(), known)
    }
}

/// The files that paths lead to.
struct FoundFiles {
    /// The first path of each.
    paths: Vec<PathBuf>,
    /// The others of a file, of links to it.
    links: HashMap<PathBuf, Vec<PathBuf>>,
    warnings: Vec<Noticed>,
}

/// A warning about each way in which headers lack fields.
fn warnings(lacking: &[(PathBuf, String)]) -> Vec<Noticed> {
    let mut files: Vec<(&str, &Path, usize)> = Vec::new();
    for (path, lacks) in lacking {
        match files.iter().position(|(known, ..)| known == lacks) {
            Some(known) => files[known].2 += 1,
            None if files.len() < WARNINGS_MAX => files.push((lacks, path, 0)),
            None => {}
        }
    }
    let warning = |(lacks, path, more): (&str, &Path, usize)| match more {
        0 => format!("{}: {lacks}", shown(path)),
        1 => format!("{} and another file: {lacks}", shown(path)),
        _ => format!("{} and {more} other files: {lacks}", shown(path)),
    };
    let noticed = |what| Noticed {
        what,
        help: "name the field as the header does, or give the header's name in `names`; if files \
               need not have the column, all is well",
    };
    files.into_iter().map(warning).map(noticed).collect()
}

/// For so many different headers.
const WARNINGS_MAX: usize = 5;

/// After how long without rows a followed file is idle, if the pipeline's file does not say.
const FOLLOWED_IDLE_AFTER_MS: i64 = 30_000;

impl FoundFiles {
    fn new(all: Vec<PathBuf>) -> Self {
        let mut found = FoundFiles {
            paths: Vec::new(),
            links: HashMap::new(),
            warnings: Vec::new(),
        };
        let (mut seen, mut linked) = (HashMap::new(), HashMap::new());
        for path in all {
            let index = found.paths.len();
            let first = *seen.entry(identity(&path)).or_insert(index);
            let metadata = path.metadata().ok();
            let has_links = metadata.filter(|found| found.is_file() && found.nlink() > 1);
            let first = has_links.map_or(first, |file| {
                *linked.entry((file.dev(), file.ino())).or_insert(first)
            });
            match found.paths.get(first) {
                None => found.paths.push(path),
                Some(first) => found.links.entry(first.clone()).or_default().push(path),
            }
        }
        found
    }
}

/// The files that a path names. The mistake is absent where it is reported later.
fn matches(
    planning: &mut Planning<'_>,
    written: &Spanned<String>,
) -> Result<Vec<PathBuf>, Option<Mistake>> {
    let title = planning.title;
    let place = written.span();
    let text = written.get_ref();
    let mistake = |message: String| Mistake::new(message).at(place.clone(), "");
    let path = planning.folder.join(text);
    if !text.contains('*') {
        let user = FileUser::new(format!("{title} reads it"), place.clone());
        planning.files.reads(user, &path);
        if planning.input_files == InputFiles::Replaced || path.is_file() {
            return Ok(vec![path]);
        }
        let shown = path.display();
        return Err(Some(match path.is_dir() {
            true => mistake(format!("{title} reads {shown}, which is a folder")).help(format!(
                "name its files: \"{}/*.jsonl\"",
                text.trim_end_matches('/')
            )),
            false if path.exists() => mistake(format!(
                "{title} reads {shown}, which is neither a file nor a pipe"
            ))
            .help("name a file, or `-` for standard input"),
            false if path.is_symlink() => {
                let target = path.read_link().unwrap_or_default();
                mistake(format!(
                    "{title} reads {shown}, a link to {}, which does not exist",
                    target.display()
                ))
                .help("make the link lead to a file")
            }
            false => {
                let missing = mistake(format!("{title} reads {shown}, which does not exist"));
                let help = "paths are relative to the pipeline's file";
                planning.files.lacks(&path, missing, help);
                return Err(None);
            }
        }));
    }
    let (folder, pattern) = split(planning.folder, text);
    let pattern = pattern.as_str();
    let user = FileUser::new(format!("{title} reads it"), place.clone());
    planning.files.reads_pattern(user, &folder, pattern);
    if planning.input_files == InputFiles::Replaced {
        return Ok(Vec::new());
    }
    let shown = here_if_empty(&folder).display();
    let paths = list(&folder, pattern)
        .map_err(|error| cannot_look(title, written, pattern, &folder, &error))?;
    let mut links = paths.iter().filter(|path| !path.exists());
    if let Some(link) = links.next() {
        return Err(Some(
            mistake(format!(
                "{title} reads `{text}`, and of the files that match, {}",
                what_is_missing(link)
            ))
            .help("make the link lead to a file, or take it away: no file is passed over"),
        ));
    }
    if paths.is_empty() && planning.input_files == InputFiles::MustExist {
        let unmatched = format!("{title} reads `{text}`, which no file in {shown} matches");
        return Err(Some(
            mistake(unmatched).help("`*` matches any characters of a file's or a folder's name"),
        ));
    }
    Ok(paths)
}

fn star_in_folder(title: &str, written: &Spanned<String>) -> Option<Mistake> {
    let text = written.get_ref();
    let (folder, _) = text.rsplit_once('/')?;
    folder.contains('*').then(|| {
        Mistake::new(format!(
            "{title} follows `{text}`, which has a `*` in a folder's name"
        ))
        .at(written.span(), "")
        .help("files are followed in one folder: \"events/*.jsonl\"")
    })
}

fn cannot_look(
    title: &str,
    written: &Spanned<String>,
    pattern: &str,
    folder: &Path,
    error: &std::io::Error,
) -> Mistake {
    let shown = here_if_empty(folder).display();
    Mistake::new(format!(
        "{title} cannot look for `{pattern}` in {shown}: {error}"
    ))
    .at(written.span(), "")
    .help("paths are relative to the pipeline's file")
}

fn unfit_header(
    planning: &Planning<'_>,
    path: &Spanned<String>,
    error: &str,
    help: &str,
) -> Mistake {
    Mistake::new(format!("{}: {error}", planning.title))
        .at(path.span(), "")
        .help(help)
}

/// A path whose files are followed: they need not be there yet, but their folder has to.
/// `None` means that a mistake was reported.
fn watched(planning: &mut Planning<'_>, written: &Spanned<String>) -> Option<Watched> {
    let title = planning.title;
    let text = written.get_ref();
    if let Some(mistake) = star_in_folder(title, written) {
        planning.mistakes.push(mistake);
        return None;
    }
    let (folder, pattern) = split(planning.folder, text);
    let user = FileUser::new(format!("{title} reads it"), written.span());
    let path = folder.join(&pattern);
    match pattern.contains('*') {
        true => planning.files.reads_pattern(user, &folder, &pattern),
        false => planning.files.reads(user, &path),
    }
    if planning.input_files != InputFiles::Replaced {
        let mistake = match read_folder(&folder) {
            Err(error) => Some(cannot_look(title, written, &pattern, &folder, &error)),
            Ok(_) if !pattern.contains('*') && path.is_dir() => {
                let mistake = format!("{title} follows {}, which is a folder", path.display());
                Some(Mistake::new(mistake).at(written.span(), "").help(format!(
                    "name its files: \"{}/*.jsonl\"",
                    text.trim_end_matches('/')
                )))
            }
            Ok(_) => None,
        };
        if let Some(mistake) = mistake {
            planning.mistakes.push(mistake);
            return None;
        }
    }
    Some(Watched { folder, pattern })
}

/// Whether a file has the end of a line that is not very long.
fn has_line(path: &Path) -> bool {
    let start = File::open(path).and_then(|file| {
        let mut start = Vec::new();
        file.take(HEADER_BYTES as u64).read_to_end(&mut start)?;
        Ok(start)
    });
    start.is_ok_and(|start| start.contains(&b'\n'))
}

/// The folder of a pattern, and the pattern of names below it.
fn split(folder: &Path, text: &str) -> (PathBuf, String) {
    let star = text.find('*').unwrap_or(text.len());
    match text[..star].rsplit_once('/') {
        Some((within, _)) => {
            let pattern = text[within.len() + 1..].to_owned();
            (folder.join(format!("{within}/")), pattern)
        }
        None => (folder.to_owned(), text.to_owned()),
    }
}

/// The files below a folder that match a pattern.
fn list(folder: &Path, pattern: &str) -> std::io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    let (first, rest) = match pattern.split_once('/') {
        Some((first, rest)) => (first, Some(rest)),
        None => (pattern, None),
    };
    for entry in read_folder(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        // A name that is not UTF-8 matches by its other characters.
        if !name_matches(first, &name.to_string_lossy()) {
            continue;
        }
        let path = entry.path();
        match rest {
            Some(rest) if path.is_dir() => paths.extend(list(&folder.join(&name), rest)?),
            Some(_) => {}
            // A link to what is not there may have led to a file.
            None if path.is_file() || (path.is_symlink() && !path.exists()) => {
                paths.push(folder.join(&name));
            }
            None => {}
        }
    }
    Ok(paths)
}
