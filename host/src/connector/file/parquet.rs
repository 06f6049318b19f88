//! Writes rows as Parquet, compressed with zstd.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::RecordBatch;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;

use super::beginning::{IfExists, PartOptions, not_gone_on_from};
use super::mark::FileId;
use super::numbered::{Numbered, NumberedFile};
use super::part::{PartFile, part_of};
use super::written::{Staged, Written, tell_of_replaced};
use crate::access::Access;
use crate::batch::Batch;
use crate::blame::Fault;
use crate::checkpoint::snapshot::SinkSnapshot;
use crate::element::CheckpointId;
use crate::paths::{create_folder_of, is_device, is_taken};
use crate::schema::Schema;
use crate::sink::{Ending, Sink, SinkError};

/// A row group is written when its rows take this much memory.
const GROUP_BYTES: usize = 64 << 20;

/// One file, in a run without checkpoints.
pub(super) struct ParquetSink {
    /// `None` once it is finished.
    file: Option<ParquetFile>,
}

/// A file being written.
struct ParquetFile {
    node: String,
    path: PathBuf,
    schema: Arc<arrow_schema::Schema>,
    writer: ArrowWriter<PartFile>,
}

impl ParquetSink {
    pub fn new(part: PartFile, schema: &Arc<Schema>) -> Result<Self, SinkError> {
        Ok(ParquetSink {
            file: Some(ParquetFile::new(part, schema)?),
        })
    }
}

/// How all files are compressed.
pub(super) fn writer_properties() -> WriterProperties {
    let compression = Compression::ZSTD(ZstdLevel::default());
    WriterProperties::builder()
        .set_compression(compression)
        .build()
}

impl ParquetFile {
    fn new(mut part: PartFile, schema: &Arc<Schema>) -> Result<Self, SinkError> {
        part.begin()?;
        let (node, path) = (part.node().to_owned(), part.path().to_owned());
        let schema = Arc::new(schema.to_arrow());
        let writer = ArrowWriter::try_new(part, schema.clone(), Some(writer_properties()));
        Ok(ParquetFile {
            writer: writer.map_err(|cause| error(&node, &path, cause))?,
            node,
            path,
            schema,
        })
    }

    /// Writes the index, which makes the file complete.
    fn close(self) -> Result<PartFile, SinkError> {
        let closed = self.writer.into_inner();
        closed.map_err(|cause| error(&self.node, &self.path, cause))
    }

    fn write(&mut self, batch: &Batch) -> Result<(), SinkError> {
        let written = self.try_write(batch);
        written.map_err(|cause| error(&self.node, &self.path, cause))
    }

    fn try_write(&mut self, batch: &Batch) -> Result<(), ParquetError> {
        let rows = RecordBatch::try_new(self.schema.clone(), batch.columns.clone())?;
        self.writer.write(&rows)?;
        match self.writer.in_progress_size() > GROUP_BYTES {
            true => self.writer.flush(),
            false => Ok(()),
        }
    }
}

impl Sink for ParquetSink {
    fn write(&mut self, batch: &Batch) -> Result<(), SinkError> {
        match &mut self.file {
            Some(file) => file.write(batch),
            None => Ok(()),
        }
    }

    /// Does nothing: a Parquet file cannot be read before it is finished, and
    /// small row groups make it large and slow.
    fn flush(&mut self) -> Result<(), SinkError> {
        Ok(())
    }

    fn barrier(&mut self, _: CheckpointId) -> Result<SinkSnapshot, SinkError> {
        Ok(SinkSnapshot::default())
    }

    fn finish(&mut self, ending: Ending) -> Result<(), SinkError> {
        let Some(file) = self.file.take() else {
            return Ok(());
        };
        let mut part = file.close()?;
        match ending {
            Ending::Complete => part.finish(),
            Ending::Stopped => part.stop(),
        }
    }
}

/// The Parquet files of a run with checkpoints: `NAME-ID.parquet` for each
/// checkpoint that has rows. A file is complete before its checkpoint is
/// written, and gets its name once the checkpoint is durable.
pub(super) struct CheckpointedParquet {
    node: String,
    path: PathBuf,
    schema: Arc<Schema>,
    /// The file being written, if there are rows for it.
    open: Option<ParquetFile>,
    /// Complete files that wait for the commit of their checkpoint.
    staged: Vec<Staged>,
    /// Files to be deleted: readers would take them together with those of this
    /// run, or runs that were killed have left them, and no checkpoint waits for them.
    obsolete: Vec<NumberedFile>,
    names: Numbered,
    /// Who may use the files.
    access: Option<Access>,
    /// Which files are this pipeline's. Keeps other runs from writing any meanwhile.
    written: Written,
    /// Whether files may be renamed and deleted: not before the commit that the start
    /// may have to wait for. No row comes before it.
    may_settle: bool,
    has_settled: bool,
}

impl CheckpointedParquet {
    pub fn new(
        node: &str,
        path: &Path,
        schema: &Arc<Schema>,
        options: PartOptions,
    ) -> Result<Self, SinkError> {
        let names = Numbered::by_checkpoint(path);
        let refused = |cause: io::Error| SinkError::io(node, path.display(), &cause);
        if is_device(path) {
            let why = "with `[checkpoints]`, each of them has a Parquet file of its own: give the \
                       `path` of a file, or write json or csv";
            return Err(refused(io::Error::new(ErrorKind::InvalidInput, why)));
        }
        let written =
            create_folder_of(path).and_then(|()| Written::open(&names, &options.pipeline));
        let there = names.find().map_err(refused)?;
        let last = there.last().and_then(|last| Access::of_path(&last.path));
        let mut files = CheckpointedParquet {
            access: last.map(Access::of_next),
            node: node.to_owned(),
            path: path.to_owned(),
            written: written.map_err(refused)?,
            schema: schema.clone(),
            open: None,
            staged: Vec::new(),
            obsolete: Vec::new(),
            names,
            may_settle: !options.waits_for_commit,
            has_settled: false,
        };
        match options.restored {
            Some(restored) => {
                files.staged = Staged::restored(&restored, |name| name.into());
                // After a later checkpoint they are gone, and others may have their
                // names.
                if !options.waits_for_commit {
                    let obsolete = restored.obsolete.into_iter().map(PathBuf::from);
                    files.obsolete = obsolete.filter_map(|it| files.names.file(it)).collect();
                }
                if let Some(id) = options.goes_back_to {
                    let later = files.later(id).map_err(refused)?;
                    files.obsolete.extend(later);
                }
                if let Some(id) = options.checkpoint {
                    let left = files.left_after(id, there);
                    files.obsolete.extend(left);
                }
            }
            None => {
                let others = files.others(options.if_exists);
                files.obsolete = others.map_err(refused)?;
                let left = files.left_after(0, there);
                files.obsolete.extend(left);
                tell_of_replaced(node, &files.obsolete);
            }
        }
        Ok(files)
    }

    /// The files of an earlier run that go when this one has its first checkpoint.
    fn others(&self, if_exists: IfExists) -> io::Result<Vec<NumberedFile>> {
        let mut others = self.names.find()?;
        others.retain(|file| !file.is_part);
        self.written.check(&others)?;
        match others.first() {
            Some(first) if if_exists != IfExists::Replace => {
                Err(not_gone_on_from(&first.path, IfExists::Append))
            }
            _ => Ok(others),
        }
    }

    /// The files of checkpoints after this one, whose rows come again.
    fn later(&self, id: CheckpointId) -> io::Result<Vec<NumberedFile>> {
        let mut later = self.names.find()?;
        later.retain(|file| file.number > id && !file.is_part);
        self.written.check(&later)?;
        Ok(later)
    }

    /// Temporary files that runs of this pipeline have left which were killed before a
    /// checkpoint after this one, of all where there is none, was written: no checkpoint has
    /// them. One with an earlier number has had its name, and somebody took that away.
    fn left_after(&self, checkpoint: CheckpointId, there: Vec<NumberedFile>) -> Vec<NumberedFile> {
        let staged = self.staged.iter();
        let staged = staged.filter_map(|it| Some(self.names.file(it.from.clone())?.number));
        let staged: Vec<u64> = staged.collect();
        let is_left = |it: &NumberedFile| {
            let is_later = it.number > checkpoint;
            let is_staged = staged.contains(&it.number);
            it.is_part && is_later && !is_staged && self.written.is_own(it)
        };
        let left = there.into_iter().filter(is_left);
        left.chain(self.written.left_open()).collect()
    }

    /// Deletes obsolete files, and gives finished ones their names. What has been
    /// done already is skipped.
    fn settle(&mut self) -> Result<(), SinkError> {
        self.has_settled = true;
        for file in self.obsolete.drain(..) {
            let deleted = self.written.delete(&file);
            deleted.map_err(|cause| SinkError::io(&self.node, file.path.display(), &cause))?;
        }
        for staged in self.staged.drain(..) {
            let named = self.written.give_name(&staged);
            named.map_err(|cause| SinkError::io(&self.node, staged.to.display(), &cause))?;
        }
        Ok(())
    }

    /// Gives a complete file its name until its checkpoint is durable.
    fn stage(&mut self, id: CheckpointId, open: ParquetFile) -> Result<(), SinkError> {
        let mut part = open.close()?;
        let named = self.names.path(id);
        let staged = part_of(&named);
        let there = [&named, &staged].map(|path| NumberedFile {
            number: id,
            is_part: *path == staged,
            path: path.clone(),
        });
        let there = there.into_iter().filter(|file| is_taken(&file.path));
        // A run that failed may have left them.
        let listed = self.written.check(&there.collect::<Vec<_>>());
        let listed = listed
            .and_then(|()| FileId::of_path(&named))
            .and_then(|replaced| {
                let completed = self.written.completed(id, part.file(), part.text());
                completed.map(|()| replaced)
            });
        let replaced =
            listed.map_err(|cause| SinkError::io(&self.node, named.display(), &cause))?;
        part.finish_as(&staged)?;
        self.access = Access::of_path(&staged).or(self.access);
        self.staged.push(Staged {
            replaced,
            ..self.written.staged(id, id)
        });
        Ok(())
    }
}

impl Sink for CheckpointedParquet {
    fn write(&mut self, batch: &Batch) -> Result<(), SinkError> {
        if !self.has_settled {
            self.settle()?;
        }
        let open = match &mut self.open {
            Some(open) => open,
            none => {
                let options = PartOptions {
                    if_exists: IfExists::Replace,
                    is_numbered: true,
                    access: self.access,
                    ..PartOptions::default()
                };
                let part = PartFile::open(&self.node, &self.path, &options)?;
                let listed = self.written.opened(part.file());
                listed.map_err(|cause| part.error(cause))?;
                none.insert(ParquetFile::new(part, &self.schema)?)
            }
        };
        open.write(batch)
    }

    fn flush(&mut self) -> Result<(), SinkError> {
        match self.may_settle && !self.has_settled {
            true => self.settle(),
            false => Ok(()),
        }
    }

    fn barrier(&mut self, id: CheckpointId) -> Result<SinkSnapshot, SinkError> {
        if let Some(open) = self.open.take() {
            self.stage(id, open)?;
        }
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let obsolete = self.obsolete.iter().map(|it| text(&it.path));
        let mut kept = SinkSnapshot {
            obsolete: obsolete.collect(),
            ..SinkSnapshot::default()
        };
        Staged::keep(&self.staged, text, &mut kept);
        Ok(kept)
    }

    fn committed(&mut self, _: CheckpointId) -> Result<(), SinkError> {
        self.may_settle = true;
        self.settle()
    }

    /// Every row came before the last barrier, so no file is open.
    fn finish(&mut self, _: Ending) -> Result<(), SinkError> {
        self.settle()
    }
}

fn error(node: &str, path: &Path, cause: ParquetError) -> SinkError {
    let what = format!("{} as Parquet", path.display());
    let of_system = match &cause {
        ParquetError::External(cause) => cause.downcast_ref::<io::Error>(),
        _ => None,
    };
    match of_system {
        Some(cause) => SinkError::of_file(node, path, cause),
        None => SinkError::new(node, what, cause, Fault::BUG),
    }
}
