//! Decides what a source gives: its columns, its files, where a row's time is.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::columns::Relation;
use super::files::{User, identity, name_matches, nearest_file};
use super::{Builder, Inputs, NOTHING, Planned, node};
use crate::config::{Mistake, RowFormat, Source, SourceKind, Spanned, suggest};
use crate::plan::{
    EventTime, FileSourcePlan, KafkaColumn, KafkaSourcePlan, NodeKind, SourceConnector, SourcePlan,
    TcpSourcePlan, TimestampFormat,
};
use crate::schema::{DataType, Field};
use crate::source::generator;

impl Builder<'_> {
    pub(super) fn plan_source(&mut self, source: &Source) -> Planned {
        let title = format!("source `{}`", source.name.get_ref());
        let (relation, timestamp_formats) = columns(source);
        let connector = match &source.kind {
            SourceKind::File { path, rows } => {
                let paths = self.find_files(&title, path);
                paths.map(|paths| {
                    SourceConnector::File(FileSourcePlan {
                        paths,
                        format: rows.format.clone(),
                    })
                })
            }
            SourceKind::Tcp {
                listen,
                framing,
                connections,
                rows,
            } => Some(SourceConnector::Tcp(TcpSourcePlan {
                listen: listen.clone(),
                framing: *framing,
                format: rows.format.clone(),
                connections: *connections,
            })),
            SourceKind::Generator(generator) => Some(SourceConnector::Generator(generator.clone())),
            SourceKind::Kafka(kafka) => Some(SourceConnector::Kafka(KafkaSourcePlan {
                connection: kafka.connection.clone(),
                topics: kafka.topics.clone(),
                partitions: kafka.partitions.clone(),
                group: kafka.group.clone().unwrap_or_else(|| {
                    // Named after the pipeline, as its transactions are.
                    format!("sluicebox-{}", self.config.name.get_ref())
                }),
                start: kafka.start,
                is_bounded: kafka.is_bounded,
                discover_every_ms: kafka.discover_every_ms,
                format: kafka.rows.format.clone(),
                metadata: kafka.metadata.iter().map(|(column, _)| *column).collect(),
            })),
        };
        let event_time = self.event_time(source, &title, &relation);
        let jitter_ms = match &source.kind {
            SourceKind::Generator(generator) => i64::try_from(generator.jitter_ms).unwrap_or(0),
            _ => 0,
        };
        let node = connector.zip(event_time).map(|(connector, event_time)| {
            let kind = NodeKind::Source(SourcePlan {
                connector,
                timestamp_formats,
                event_time,
                out_of_orderness_ms: source.out_of_orderness_ms.unwrap_or(jitter_ms),
                idle_after_ms: source.idle_after_ms.and_then(|ms| u64::try_from(ms).ok()),
                on_error: source.on_error.unwrap_or_default(),
            });
            node(source.name.get_ref().clone(), kind, Vec::new(), &relation)
        });
        Planned {
            node,
            main: Some(relation),
            ..NOTHING
        }
    }

    fn event_time(
        &mut self,
        source: &Source,
        title: &str,
        relation: &Relation,
    ) -> Option<EventTime> {
        let fields = &relation.schema.fields;
        let Some(name) = &source.event_time else {
            // Generated rows have one field that can be meant.
            let generated = matches!(source.kind, SourceKind::Generator(_));
            let is_time = |field: &Field| field.data_type == DataType::Timestamp;
            let time = fields.iter().position(is_time);
            return Some(match time.filter(|_| generated) {
                Some(column) => EventTime::Column(column),
                None => EventTime::Ingestion,
            });
        };
        let Some(column) = relation.schema.index_of(name.get_ref()) else {
            let times: Vec<&str> = fields
                .iter()
                .filter(|field| can_be_time(field))
                .map(|field| field.name.as_str())
                .collect();
            self.mistakes.push(
                Mistake::new(format!(
                    "{title} takes its event time from `{}`, which is not one of its fields",
                    name.get_ref()
                ))
                .at(name.span(), "")
                .help(suggest::help(
                    name.get_ref(),
                    "fields that can be a time",
                    times,
                )),
            );
            return None;
        };
        let field = &fields[column];
        if !can_be_time(field) {
            let reason = match field.nullable {
                true => "a row without a time belongs nowhere",
                false => "a time is a timestamp, or an int64 in ms",
            };
            let place = relation.places.get(column).cloned().unwrap_or_default();
            self.mistakes.push(
                Mistake::new(format!(
                    "{title} cannot take its event time from `{field}`: {reason}"
                ))
                .at(name.span(), "")
                .at(place, format!("`{field}` is from here"))
                .help(format!("declare it as `{} = \"timestamp\"`", field.name)),
            );
            return None;
        }
        Some(EventTime::Column(column))
    }

    /// The files of a source in the order of their names, each once.
    fn find_files(&mut self, title: &str, written: &[Spanned<String>]) -> Option<Vec<PathBuf>> {
        let mut found = Vec::new();
        let mut good = true;
        for path in written {
            match self.matches(title, path) {
                Ok(paths) => found.extend(paths),
                Err(mistake) => {
                    good = false;
                    self.mistakes.push(mistake);
                }
            }
        }
        found.sort();
        let mut seen = HashSet::new();
        found.retain(|path| seen.insert(identity(path)));
        good.then_some(found)
    }

    fn matches(&mut self, title: &str, written: &Spanned<String>) -> Result<Vec<PathBuf>, Mistake> {
        let place = written.span();
        let text = written.get_ref();
        let mistake = |message: String| Mistake::new(message).at(place.clone(), "");
        let path = self.folder.join(text);
        if !text.contains('*') {
            let user = User::new(format!("{title} reads it"), place.clone());
            self.files.reads(user, &path);
            if self.inputs == Inputs::Replaced || path.is_file() {
                return Ok(vec![path]);
            }
            let shown = path.display();
            return Err(match path.is_dir() {
                true => mistake(format!("{title} reads {shown}, which is a folder")).help(format!(
                    "name its files: \"{}/*.jsonl\"",
                    text.trim_end_matches('/')
                )),
                // A pipe or a device cannot be read again after a restart.
                false if path.exists() => {
                    mistake(format!("{title} reads {shown}, which is no regular file"))
                        .help("name a file, or send the rows over tcp")
                }
                false => {
                    let help = match nearest_file(&path) {
                        Some(near) => format!("did you mean `{near}`?"),
                        None => "paths are relative to the pipeline's file".to_owned(),
                    };
                    mistake(format!("{title} reads {shown}, which does not exist")).help(help)
                }
            });
        }
        let (folder, pattern) = match text.rsplit_once('/') {
            Some((folder, pattern)) => (self.folder.join(format!("{folder}/")), pattern),
            None => (self.folder.to_owned(), text.as_str()),
        };
        if text.len() > pattern.len() && text[..text.len() - pattern.len()].contains('*') {
            return Err(
                mistake(format!("{title}: `{text}` has a `*` in a folder's name"))
                    .help("only the last part of a path can have one: \"events/*.jsonl\""),
            );
        }
        let user = User::new(format!("{title} reads it"), place.clone());
        self.files.reads_pattern(user, &folder, pattern);
        if self.inputs == Inputs::Replaced {
            return Ok(Vec::new());
        }
        let shown = folder.display();
        let paths = list(&folder, pattern).map_err(|error| {
            mistake(format!(
                "{title} cannot look for `{pattern}` in {shown}: {error}"
            ))
            .help("paths are relative to the pipeline's file")
        })?;
        if paths.is_empty() {
            return Err(mistake(format!(
                "{title} reads `{text}`, which no file in {shown} matches"
            ))
            .help("`*` stands for any characters of a file's name"));
        }
        Ok(paths)
    }
}

fn columns(source: &Source) -> (Relation, Vec<TimestampFormat>) {
    let mut relation = Relation::default();
    let mut formats = Vec::new();
    match &source.kind {
        SourceKind::File { rows, .. } | SourceKind::Tcp { rows, .. } => {
            push_rows(rows, &mut relation, &mut formats);
        }
        SourceKind::Kafka(kafka) => {
            push_rows(&kafka.rows, &mut relation, &mut formats);
            for (column, name) in &kafka.metadata {
                let name_text = name.get_ref().as_str();
                let field = Field::new(name_text, column.data_type(), column.is_nullable());
                relation.push(field, name.span());
                formats.extend((*column == KafkaColumn::Timestamp).then_some(TimestampFormat::Any));
            }
        }
        SourceKind::Generator(_) => {
            for field in &generator::schema().fields {
                relation.push(field.clone(), source.kind_place.clone());
            }
            formats.push(TimestampFormat::Any);
        }
    }
    (relation, formats)
}

fn push_rows(rows: &RowFormat, relation: &mut Relation, formats: &mut Vec<TimestampFormat>) {
    for column in &rows.columns {
        relation.push(column.field.clone(), column.place.clone());
        formats.extend(&column.timestamp_formats);
    }
}

fn can_be_time(field: &Field) -> bool {
    !field.nullable && matches!(field.data_type, DataType::Timestamp | DataType::Int64)
}

fn list(folder: &Path, pattern: &str) -> std::io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        if name_matches(pattern, name) && entry.path().is_file() {
            paths.push(folder.join(name));
        }
    }
    Ok(paths)
}
