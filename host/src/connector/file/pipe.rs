//! Reads standard input, or another pipe: one partition, whose offsets count rows
//! in the order in which they came.
//!
//! A thread waits for the bytes, so that a run can stop while there are none. It
//! goes on while a failed run is restarted, which then reads what comes next.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use serde_json::json;
use tokio::sync::mpsc;

use super::input::{drop_byte_order_mark, long_header, looks_wrong};
use super::known::is_missing;
use super::opened::{Compression, Text};
use crate::blame::Fault;
use crate::checkpoint::snapshot::{PartitionState, Position};
use crate::connector::Description;
use crate::decode::Decoder;
use crate::descriptors::check_standard;
use crate::files::STANDARD_INPUT;
use crate::format::{Format, RowFormat};
use crate::paths::{identity, is_device, name_in};
use crate::schema::Schema;
use crate::source::chunk::Chunk;
use crate::source::pieces::{Piece, PieceChunks, RowCutter};
use crate::source::{Arrival, Pending, SourceConnector, SourceContext, SourceError, SourceInput};

/// How many bytes are read at a time.
const READ_BYTES: usize = 256 << 10;

/// How many blocks may wait to be cut into rows; beyond that, the writer waits.
const BLOCKS_MAX: usize = 8;

/// Where bytes come from that cannot be read again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pipe {
    StandardInput,
    /// It has a name.
    Named(PathBuf),
}

/// The pipe to read.
pub struct PipeSource {
    pipe: Pipe,
    /// The pipeline's folder, which the partition's name is relative to.
    folder: PathBuf,
    format: RowFormat,
    /// Absent: by the pipe's name.
    compression: Option<Compression>,
    stream: Slot,
}

/// What is read now, while no task reads it.
type Slot = Arc<Mutex<Option<Stream>>>;

/// A process has one standard input.
static STANDARD: LazyLock<Slot> = LazyLock::new(Slot::default);

/// The bytes of a pipe.
struct Stream {
    blocks: mpsc::Receiver<io::Result<Vec<u8>>>,
    /// Has what has come and is no row yet.
    cutter: RowCutter,
    /// Whether its beginning has been looked at.
    is_begun: bool,
    /// The header of CSV, once it has come.
    header: Option<Vec<u8>>,
    is_over: bool,
    /// Why it cannot be read on.
    failure: Option<io::Error>,
}

struct PipeInput {
    name: String,
    can_be_named: bool,
    format: Format,
    must_be_text: bool,
    compression: Compression,
    /// Whether the header of CSV is still to come.
    needs_header: bool,
    stream: Option<Stream>,
    /// Gets the stream when this input is dropped.
    slot: Slot,
    chunks: PieceChunks,
    context: SourceContext,
}

impl Pipe {
    /// The pipe that a path leads to, if it is one.
    pub fn at(written: &str, path: &Path) -> Option<Pipe> {
        use std::os::unix::fs::FileTypeExt;
        if written == "-" {
            return Some(Pipe::StandardInput);
        }
        let kind = path.metadata().ok()?.file_type();
        let names = ["/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"];
        if names.iter().any(|name| path == Path::new(name)) && !kind.is_file() {
            return Some(Pipe::StandardInput);
        }
        kind.is_fifo().then(|| Pipe::Named(path.to_owned()))
    }

    fn shown(&self) -> String {
        match self {
            Pipe::StandardInput => STANDARD_INPUT.to_owned(),
            Pipe::Named(path) => path.display().to_string(),
        }
    }

    /// Whether its name says how it is compressed, and could say something else.
    fn can_be_named(&self) -> bool {
        match self {
            Pipe::StandardInput => false,
            Pipe::Named(path) => !is_device(path),
        }
    }

    /// Waits until somebody writes to it.
    fn open(&self) -> io::Result<File> {
        match self {
            Pipe::StandardInput => {
                check_standard(0)?;
                Ok(io::stdin().as_fd().try_clone_to_owned()?.into())
            }
            Pipe::Named(path) => File::open(path),
        }
    }

    /// Sends its text until it ends, cannot be read, or nobody wants it.
    fn read(&self, compression: Compression, blocks: &mpsc::Sender<io::Result<Vec<u8>>>) {
        let mut read = 0;
        let mut buffer = vec![0; READ_BYTES];
        let text = self
            .open()
            .and_then(|file| Text::of(file, compression, self.can_be_named()));
        let mut text = match text {
            Ok(text) => text,
            Err(cause) => {
                // Nobody wants to know it if the run has ended.
                let _ = blocks.blocking_send(Err(cause));
                return;
            }
        };
        loop {
            let block = match text.read_some(&mut buffer) {
                Ok(0) => return,
                Ok(length) => {
                    read += length as u64;
                    Ok(buffer[..length].to_vec())
                }
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => continue,
                Err(cause) => Err(text.damaged(cause, read)),
            };
            let is_broken = block.is_err();
            if blocks.blocking_send(block).is_err() || is_broken {
                return;
            }
        }
    }
}

impl PipeSource {
    pub fn new(
        pipe: Pipe,
        folder: &Path,
        format: RowFormat,
        compression: Option<Compression>,
    ) -> Self {
        PipeSource {
            stream: match pipe {
                Pipe::StandardInput => STANDARD.clone(),
                Pipe::Named(_) => Slot::default(),
            },
            pipe,
            folder: folder.to_owned(),
            format,
            compression,
        }
    }

    /// Its name in checkpoints.
    fn name(&self) -> String {
        match &self.pipe {
            Pipe::StandardInput => STANDARD_INPUT.to_owned(),
            Pipe::Named(path) => name_in(&identity(&self.folder), path),
        }
    }

    fn compression(&self) -> Compression {
        self.compression.unwrap_or_else(|| match &self.pipe {
            Pipe::StandardInput => Compression::None,
            Pipe::Named(path) => Compression::of(path),
        })
    }

    fn stream(&self) -> io::Result<Stream> {
        let mut slot = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(stream) = slot.take() {
            return Ok(stream);
        }
        let compression = self.compression();
        let (sender, blocks) = mpsc::channel(BLOCKS_MAX);
        let pipe = self.pipe.clone();
        // It may wait for ever, so nobody waits for it.
        std::thread::Builder::new()
            .name("pipe".to_owned())
            .spawn(move || pipe.read(compression, &sender))?;
        Ok(Stream::of(blocks, &self.format.format))
    }
}

impl SourceConnector for PipeSource {
    fn describe(&self) -> Description {
        let (line, path) = match &self.pipe {
            Pipe::StandardInput => (STANDARD_INPUT.to_owned(), "-".to_owned()),
            Pipe::Named(path) => (
                format!("{}, a pipe", path.display()),
                path.display().to_string(),
            ),
        };
        Description {
            connector: "file",
            format: Some(self.format.format.name()),
            lines: vec![line],
            settings: json!({ "paths": [path] }),
            ..Description::default()
        }
    }

    fn partitions(&self) -> Option<usize> {
        Some(1)
    }

    /// What was read is gone.
    fn is_replayable(&self) -> bool {
        false
    }

    fn row_format(&self) -> RowFormat {
        self.format.clone()
    }

    fn open<'a>(&'a self, context: &'a SourceContext) -> Pending<'a, Box<dyn SourceInput>> {
        Box::pin(async move {
            let input = PipeInput::open(self, context)?;
            Ok(Box::new(input) as Box<dyn SourceInput>)
        })
    }
}

impl Stream {
    fn of(blocks: mpsc::Receiver<io::Result<Vec<u8>>>, format: &Format) -> Self {
        Stream {
            blocks,
            cutter: RowCutter::new(format, None, &Schema::new(Vec::new())),
            is_begun: false,
            header: None,
            is_over: false,
            failure: None,
        }
    }

    /// Adds what has come: a block, or the end.
    fn add(&mut self, block: Option<io::Result<Vec<u8>>>) {
        match block {
            Some(Ok(block)) => self.cutter.text.extend_from_slice(&block),
            Some(Err(cause)) => self.failure = Some(cause),
            None => self.is_over = true,
        }
    }

    /// Rows that can be taken without waiting.
    fn ready(&mut self) -> Option<Piece> {
        loop {
            let piece = self.cutter.take(self.is_over);
            if !piece.is_empty() {
                return Some(piece);
            }
            let block = self.blocks.try_recv().ok()?;
            self.add(Some(block));
        }
    }
}

impl PipeInput {
    fn open(source: &PipeSource, context: &SourceContext) -> Result<Self, SourceError> {
        let RowFormat { format, .. } = &source.format;
        context.check_delimiter(format)?;
        let partition = source.name();
        let known = context.restored.iter().flat_map(|task| &task.partitions);
        let mut unread = known.filter(|known| known.state != PartitionState::Ended);
        if let Some(missing) = unread.find(|known| known.name != partition) {
            return Err(is_missing(missing, "put it back", context));
        }
        let name = source.pipe.shown();
        let stream = source.stream().map_err(|cause| {
            let message = format!("cannot start a thread to read {name}: {cause}");
            context.refuse(message, Fault::of_io(&cause))
        })?;
        let decoder = Decoder::new(&source.format, &context.schema);
        let mut input = PipeInput {
            name,
            can_be_named: source.pipe.can_be_named(),
            format: format.clone(),
            // Whoever says that it is not compressed means what is there.
            must_be_text: source.compression != Some(Compression::None),
            compression: source.compression(),
            needs_header: matches!(format, Format::Csv(csv) if csv.header),
            stream: None,
            slot: source.stream.clone(),
            chunks: PieceChunks::new(partition.into(), decoder, context),
            context: context.clone(),
        };
        let header = stream.header.clone();
        input.stream = Some(stream);
        match header {
            Some(header) if input.needs_header => {
                // What it lacks was said when it came.
                input.take_header(&header)?;
            }
            _ if input.needs_header => input.expect_fields(None),
            _ => input.expect_fields(Some(context.schema.fields.len())),
        }
        Ok(input)
    }

    /// Cuts rows with this many fields from here on.
    fn expect_fields(&mut self, fields: Option<usize>) {
        let cutter = RowCutter::new(&self.format, fields, &self.context.schema);
        if let Some(stream) = &mut self.stream {
            let before = std::mem::replace(&mut stream.cutter, cutter.clone());
            stream.cutter = cutter.after(before);
        }
    }

    /// Returns what it lacks.
    fn take_header(&mut self, line: &[u8]) -> Result<Option<String>, SourceError> {
        let header = self.chunks.decoder.read_header(line);
        let header = header.map_err(|error| self.refuse(&format!("{}: {error}", self.name)))?;
        self.needs_header = false;
        self.expect_fields(Some(header.fields));
        Ok(header.lacks)
    }

    /// Takes what comes before the rows: a byte order mark and a header. Returns
    /// whether it has come.
    fn begin(&mut self) -> Result<bool, SourceError> {
        let Some(stream) = &mut self.stream else {
            return Ok(false);
        };
        if !stream.is_begun {
            let text = &mut stream.cutter.text;
            if text.len() < START_BYTES && !stream.is_over && !text.contains(&b'\n') {
                return Ok(false);
            }
            if self.must_be_text
                && let Some(message) =
                    looks_wrong(&self.name, self.can_be_named, text, self.compression)
            {
                return Err(self.refuse(&message));
            }
            drop_byte_order_mark(text);
            stream.is_begun = true;
        }
        if !self.needs_header {
            return Ok(true);
        }
        match stream.cutter.take_header(stream.is_over) {
            None => Ok(false),
            Some(Ok(line)) => {
                stream.header = Some(line.clone());
                if let Some(lacks) = self.take_header(&line)? {
                    let source = &self.context.node;
                    tracing::warn!("source `{source}`: {}: {lacks}", self.name);
                }
                Ok(true)
            }
            Some(Err(_)) => {
                let message = long_header(&self.name, &self.format, &stream.cutter.text);
                Err(self.refuse(&message))
            }
        }
    }

    async fn next_chunk(&mut self) -> Result<Option<Chunk>, SourceError> {
        let first = match self.chunks.left() {
            Some(piece) => Some(piece),
            None => self.next_piece().await?,
        };
        let (Some(first), Some(stream)) = (first, &mut self.stream) else {
            return Ok(None);
        };
        Ok(Some(self.chunks.chunk(first, || stream.ready())))
    }

    async fn next_piece(&mut self) -> Result<Option<Piece>, SourceError> {
        loop {
            let is_begun = self.begin()?;
            let Some(stream) = &mut self.stream else {
                return Ok(None);
            };
            if is_begun && let Some(piece) = stream.ready() {
                return Ok(Some(piece));
            }
            if let Some(cause) = &stream.failure {
                let what = format!("cannot read {}", self.name);
                return Err(self.context.failed(what, cause, Fault::OUTSIDE_LASTING));
            }
            if stream.is_over {
                return Ok(None);
            }
            let block = stream.blocks.recv().await;
            stream.add(block);
        }
    }

    fn refuse(&self, message: &str) -> SourceError {
        self.context.refuse(message, Fault::OUTSIDE_LASTING)
    }
}

/// So many bytes tell whether it is another format.
const START_BYTES: usize = 4;

impl SourceInput for PipeInput {
    fn partitions(&self) -> usize {
        1
    }

    fn partition(&self, _: usize) -> (Arc<str>, Position) {
        (self.chunks.partition.clone(), self.chunks.position())
    }

    fn next<'a>(&'a mut self, order: &'a [usize]) -> Pending<'a, Arrival> {
        Box::pin(async move {
            match order.first() {
                Some(&partition) => Ok(Arrival::of(partition, self.next_chunk().await?)),
                None => Ok(Arrival::Over),
            }
        })
    }
}

impl Drop for PipeInput {
    fn drop(&mut self) {
        let mut slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
        *slot = self.stream.take();
    }
}
