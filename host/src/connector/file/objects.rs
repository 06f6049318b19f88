//! Reads objects of an object store, one after the other in the order of their names. Each
//! is a partition, known by its name and its entity tag: an object does not change, but
//! another one may take its place.
//!
//! An object is fetched whole into a temporary file without a name, and read from there as
//! files are. The next one begins before the one before it ends, so that event time does not
//! run ahead between the two.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::TryStreamExt;
use object_store::path::Path as Location;
use object_store::{Error, GetOptions, ObjectMeta, ObjectStore};
use serde_json::json;

use super::input::FileInput;
use super::known::{S3, SourceFile, is_missing};
use super::opened::Compression;
use super::parquet_source::ParquetInput;
use crate::blame::Fault;
use crate::checkpoint::snapshot::{PartitionSnapshot, PartitionState, Position};
use crate::connector::Description;
use crate::format::RowFormat;
use crate::paths::name_matches;
use crate::plan::state::RemotePlan;
use crate::source::{Arrival, Pending, SourceConnector, SourceContext, SourceError, SourceInput};
use crate::store::{connect, explained};

/// The objects to read.
pub(super) struct ObjectsSource {
    /// The bucket and what is before the first `*`, and the store's options.
    pub plan: RemotePlan,
    /// What names have behind that, each part between two `/` with `*` for any characters.
    pub pattern: String,
    pub format: RowFormat,
    /// Absent: by the names of the objects.
    pub compression: Option<Compression>,
    pub is_parquet: bool,
}

impl ObjectsSource {
    /// Divides a path into a folder of the store and a pattern.
    pub fn split(path: &str) -> (&str, &str) {
        let star = path.find('*').unwrap_or(path.len());
        let slash = path[..star].rfind('/').filter(|slash| *slash >= S3.len());
        match slash {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => (path, ""),
        }
    }

    fn path(&self) -> String {
        format!("{}/{}", self.plan.url, self.pattern)
    }

    /// All objects that match, by their names.
    async fn list(
        &self,
        context: &SourceContext,
    ) -> Result<(Arc<dyn ObjectStore>, BTreeMap<String, Object>), SourceError> {
        let connected = connect(&self.plan)
            .map_err(|why| context.refuse(format!("{}: {why}", self.plan.url), Fault::CONFIG))?;
        let base = connected.path;
        let root = self.plan.url.strip_suffix(base.as_ref());
        let root = root.unwrap_or(&self.plan.url).trim_end_matches('/');
        let listed = connected.store.list(Some(&base));
        let listed: Result<Vec<ObjectMeta>, Error> = listed.try_collect().await;
        let listed = listed.map_err(|cause| {
            let (why, fault) = explained(&cause);
            context.failed(format!("cannot list {}", self.plan.url), why, fault)
        })?;
        let matching = listed.into_iter().filter(|found| {
            let mut names = found.location.prefix_match(&base).into_iter().flatten();
            let is_matched = |part: &str| {
                let name = names.next();
                name.is_some_and(|name| name_matches(part, name.as_ref()))
            };
            self.pattern.split('/').all(is_matched) && names.next().is_none()
        });
        let named = matching.map(|found| {
            let name = format!("{root}/{}", found.location);
            let object = Object {
                name: name.as_str().into(),
                tag: tag_of(&found),
                location: found.location,
            };
            (name, object)
        });
        Ok((connected.store, named.collect()))
    }
}

/// What tells an object from another one of its name.
fn tag_of(found: &ObjectMeta) -> String {
    match &found.e_tag {
        Some(tag) => tag.clone(),
        None => format!("{} {}", found.size, found.last_modified),
    }
}

struct Object {
    name: Arc<str>,
    location: Location,
    tag: String,
}

impl SourceConnector for ObjectsSource {
    fn describe(&self) -> Description {
        Description {
            connector: "file",
            format: Some(match self.is_parquet {
                true => "parquet",
                false => self.format.format.name(),
            }),
            lines: vec![self.path()],
            settings: json!({ "paths": [self.path()] }),
            ..Description::default()
        }
    }

    /// One task reads all of them, in order.
    fn partitions(&self) -> Option<usize> {
        Some(1)
    }

    fn row_format(&self) -> RowFormat {
        self.format.clone()
    }

    fn open<'a>(&'a self, context: &'a SourceContext) -> Pending<'a, Box<dyn SourceInput>> {
        Box::pin(async move {
            let (store, mut listed) = self.list(context).await?;
            if listed.is_empty() && context.restored.is_empty() {
                let message = format!(
                    "no object matches `{}`: correct `path`, or put some there",
                    self.path()
                );
                return Err(context.refuse(message, Fault::OUTSIDE_LASTING));
            }
            let mut input = ObjectsInput {
                begun: Vec::new(),
                unread: VecDeque::new(),
                absent: Vec::new(),
                reading: Reading {
                    store,
                    format: self.format.clone(),
                    compression: self.compression,
                    is_parquet: self.is_parquet,
                    context: context.clone(),
                },
            };
            for known in context.restored.iter().flat_map(|task| &task.partitions) {
                match listed.remove(&known.name) {
                    Some(object) if known.digest.as_ref() == Some(&object.tag) => {
                        input.begun.push(BegunObject::restored(object, known));
                    }
                    Some(_) => {
                        let message = format!(
                            "{} is another object than the one that was read (its entity tag \
                             differs): put back what was there, or read it from its beginning with \
                             `sluicebox run --drop '{}/{}'`",
                            known.name, context.node, known.name
                        );
                        return Err(context.refuse(message, Fault::OUTSIDE_LASTING));
                    }
                    None if known.state == PartitionState::Ended => {
                        tracing::info!(
                            "source `{}`: {} is gone, and was read",
                            context.node,
                            known.name
                        );
                        input.absent.push(known.clone());
                    }
                    None => return Err(is_missing(known, "put it back", context)),
                }
            }
            input.unread = listed.into_values().collect();
            let is_active = |it: &BegunObject| it.known_state() != Some(PartitionState::Ended);
            if !input.begun.iter().any(is_active) {
                input.begin_next();
            }
            Ok(Box::new(input) as Box<dyn SourceInput>)
        })
    }
}

struct ObjectsInput {
    begun: Vec<BegunObject>,
    /// By their names.
    unread: VecDeque<Object>,
    /// What the restored checkpoint has of objects that are gone.
    absent: Vec<PartitionSnapshot>,
    reading: Reading,
}

/// How objects are read.
struct Reading {
    store: Arc<dyn ObjectStore>,
    format: RowFormat,
    compression: Option<Compression>,
    is_parquet: bool,
    context: SourceContext,
}

/// A partition.
struct BegunObject {
    object: Object,
    restored: Option<PartitionSnapshot>,
    position: Position,
    state: Progress,
}

enum Progress {
    /// It is still to be fetched.
    Unread,
    Reading {
        input: Box<dyn SourceInput>,
        /// Keeps the temporary file.
        _file: File,
    },
    Read,
}

impl BegunObject {
    fn new(object: Object) -> Self {
        BegunObject {
            object,
            restored: None,
            position: Position::default(),
            state: Progress::Unread,
        }
    }

    fn restored(object: Object, known: &PartitionSnapshot) -> Self {
        BegunObject {
            restored: Some(known.clone()),
            position: known.position,
            state: match known.state {
                PartitionState::Ended => Progress::Read,
                PartitionState::Active | PartitionState::Idle => Progress::Unread,
            },
            ..BegunObject::new(object)
        }
    }

    fn known_state(&self) -> Option<PartitionState> {
        Some(self.restored.as_ref()?.state)
    }
}

impl Reading {
    /// Fetches an object, and opens it at its position.
    async fn open(
        &self,
        object: &Object,
        restored: Option<PartitionSnapshot>,
    ) -> Result<(Box<dyn SourceInput>, File), SourceError> {
        let Object {
            name,
            location,
            tag,
        } = object;
        let context = &self.context;
        let what = || format!("cannot read {name}");
        let unkept = |cause: std::io::Error| {
            let cause = format!(
                "no temporary file in {}: {cause}",
                std::env::temp_dir().display()
            );
            context.failed(what(), cause, Fault::OUTSIDE)
        };
        let mut file = tempfile::tempfile().map_err(unkept)?;
        let options = GetOptions {
            if_match: Some(tag.clone()),
            ..GetOptions::default()
        };
        let got = self.store.get_opts(location, options).await;
        let failed = |cause: Error| match cause {
            Error::Precondition { .. } | Error::NotFound { .. } => {
                let cause = "it is gone, or another object has its name, since the run began";
                context.failed(what(), cause, Fault::OUTSIDE)
            }
            cause => {
                let (why, fault) = explained(&cause);
                context.failed(what(), why, fault)
            }
        };
        let mut bytes = got.map_err(failed)?.into_stream();
        while let Some(piece) = bytes.try_next().await.map_err(failed)? {
            file.write_all(&piece).map_err(unkept)?;
        }
        let path = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        let compression = match self.is_parquet {
            true => Compression::None,
            false => self
                .compression
                .unwrap_or_else(|| Compression::of(Path::new(&**name))),
        };
        // What tells the object from others tells nothing of the file.
        let restored = restored.map(|known| PartitionSnapshot {
            digest: None,
            ..known
        });
        let source = [SourceFile::of_object(
            path,
            name.clone(),
            compression,
            self.is_parquet,
            restored,
        )];
        let input: Box<dyn SourceInput> = match self.is_parquet {
            true => Box::new(ParquetInput::open(&source, &self.format, context)?),
            false => Box::new(FileInput::open(
                &source,
                &self.format,
                self.compression,
                context,
            )?),
        };
        Ok((input, file))
    }
}

impl ObjectsInput {
    /// Returns whether there is another object.
    fn begin_next(&mut self) -> bool {
        let next = self.unread.pop_front().map(BegunObject::new);
        let is_there = next.is_some();
        self.begun.extend(next);
        is_there
    }

    async fn next_of(&mut self, index: usize) -> Result<Arrival, SourceError> {
        let begun = &mut self.begun[index];
        if let Progress::Unread = begun.state {
            let restored = begun.restored.clone();
            let (input, _file) = self.reading.open(&begun.object, restored).await?;
            begun.state = Progress::Reading { input, _file };
        }
        let Progress::Reading { input, .. } = &mut begun.state else {
            return Ok(Arrival::End(index));
        };
        if let Arrival::Rows(_, chunk) = input.next(&[0]).await? {
            begun.position = chunk.end;
            return Ok(Arrival::Rows(index, chunk));
        }
        begun.state = Progress::Read;
        match self.begin_next() {
            true => Ok(Arrival::Partitions),
            false => Ok(Arrival::End(index)),
        }
    }
}

impl SourceInput for ObjectsInput {
    fn partitions(&self) -> usize {
        self.begun.len()
    }

    fn partition(&self, partition: usize) -> (Arc<str>, Position) {
        let begun = &self.begun[partition];
        (begun.object.name.clone(), begun.position)
    }

    fn restored<'a>(
        &'a self,
        partition: usize,
        _: &'a SourceContext,
    ) -> Option<&'a PartitionSnapshot> {
        self.begun[partition].restored.as_ref()
    }

    fn absent(&self) -> &[PartitionSnapshot] {
        &self.absent
    }

    fn digest(&mut self, partition: usize, _: Position) -> Option<String> {
        Some(self.begun[partition].object.tag.clone())
    }

    fn next<'a>(&'a mut self, order: &'a [usize]) -> Pending<'a, Arrival> {
        Box::pin(async move {
            match order.first() {
                Some(&index) => self.next_of(index).await,
                None => Ok(Arrival::Over),
            }
        })
    }

    fn progress(&self) -> Option<f64> {
        let read = |it: &&BegunObject| matches!(it.state, Progress::Read);
        let read = self.begun.iter().filter(read).count();
        let all = self.begun.len() + self.unread.len();
        Some(read as f64 / all.max(1) as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_a_folder_and_a_pattern() {
        for (path, folder, pattern) in [
            ("s3://b/a/*.jsonl", "s3://b/a", "*.jsonl"),
            ("s3://b/*.jsonl", "s3://b", "*.jsonl"),
            ("s3://b/a/k=*/x/p-*.csv", "s3://b/a", "k=*/x/p-*.csv"),
            ("s3://b/a/one.csv", "s3://b/a", "one.csv"),
            ("s3://b", "s3://b", ""),
        ] {
            assert_eq!(ObjectsSource::split(path), (folder, pattern), "{path}");
        }
    }
}
