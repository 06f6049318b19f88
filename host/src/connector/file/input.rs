//! Reads files: each file is a partition, and offsets are byte offsets.
//!
//! A file is read in large blocks that end at the end of a row. Each block is
//! decoded on its own: in this task, or ahead of it on other threads and taken
//! in order.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::Arc;

use arrow_buffer::Buffer;
use tokio::task::JoinHandle;

use super::digest::{ReadText, RunningDigest};
use super::known::{SourceFile, called, cannot_read, letting_go};
use super::mark::{FileMark, Head, LinkNames, Seen};
use super::opened::{Compression, OpenFiles, OpenedFile};
use crate::batch::Offsets;
use crate::blame::Fault;
use crate::checkpoint::snapshot::{PartitionSnapshot, Position};
use crate::decode::{Decoder, check_header_start};
use crate::format::{Format, RowFormat};
use crate::paths::{is_device, shown};
use crate::schema::Schema;
use crate::source::chunk::{BadRow, Chunk, decode};
use crate::source::looks::other_format;
use crate::source::pieces::RowCutter;
use crate::source::row_ends::{RowEnd, RowEnds, RowRest, Skipped, too_long_before};
use crate::source::{Arrival, Pending, SourceContext, SourceError, SourceInput, TURN_ROWS};

/// The size of a block is estimated from the rows of a batch, within these
/// bounds.
const BLOCK_BYTES_MIN: usize = 8 << 10;
const BLOCK_BYTES_MAX: usize = 8 << 20;

const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// Removes the mark that a text may begin with.
pub(super) fn drop_byte_order_mark(text: &mut Vec<u8>) {
    if text.starts_with(BYTE_ORDER_MARK) {
        text.drain(..BYTE_ORDER_MARK.len());
    }
}

/// What is wrong with a file whose text begins like this, if it seems to be no text.
pub(super) fn looks_wrong(
    name: &str,
    can_be_named: bool,
    start: &[u8],
    compression: Compression,
) -> Option<String> {
    let look = other_format(start)?;
    let format = look.format;
    Some(match compression {
        Compression::None => format!(
            "{name} looks like {format}: {}; `compression = \"none\"` reads it as it is",
            look.advice(can_be_named)
        ),
        compression => format!(
            "what {name} has compressed with {} looks like {format}: text is expected there",
            compression.name()
        ),
    })
}

/// What is wrong with a text that begins with a header that is too long.
pub(super) fn long_header(name: &str, format: &Format, start: &[u8]) -> String {
    match check_header_start(format, start) {
        Ok(()) => format!("{name}: expected a header, found a line longer than 16 MiB"),
        Err(error) => format!("{name}: {error}"),
    }
}

/// The first line of a file that is not empty, if it is text and can be read; its beginning
/// if it is long. The run says what is wrong with other files.
pub(super) fn first_line(
    path: &Path,
    compression: Compression,
    format: &Format,
) -> Option<FirstLine> {
    let mut file = OpenedFile::open(path, compression).ok()?;
    let mut text = Vec::new();
    let read = file.read(HEADER_BYTES, &mut text).ok()?;
    if other_format(&text).is_some() {
        return None;
    }
    drop_byte_order_mark(&mut text);
    let mut cutter = RowCutter::new(format, None, &Schema::new(Vec::new()));
    cutter.text = text;
    Some(match cutter.take_header(read < HEADER_BYTES) {
        Some(Ok(line)) => FirstLine::Whole(line),
        Some(Err(_)) | None => FirstLine::Beginning(cutter.text),
    })
}

pub(super) enum FirstLine {
    Whole(Vec<u8>),
    Beginning(Vec<u8>),
}

/// A longer header is read only by the run.
pub(super) const HEADER_BYTES: usize = 64 << 10;

pub struct FileInput {
    partitions: Vec<FilePartition>,
    open: OpenFiles,
    /// How many blocks of a partition are decoded ahead; 0 decodes in this
    /// task.
    ahead: usize,
    /// What the restored checkpoint has of files that are gone.
    pub(super) absent: Arc<[PartitionSnapshot]>,
    context: SourceContext,
}

struct FilePartition {
    /// The mark that was made last, and where.
    mark: Option<(u64, String)>,
    /// Identifies the file in checkpoints.
    name: Arc<str>,
    links: LinkNames,
    /// What the restored checkpoint has of it, perhaps under another name.
    restored: Option<PartitionSnapshot>,
    lines: BlockReader,
    /// Decoders that are free; one is kept to be cloned.
    decoders: Vec<Decoder>,
    decoder: Decoder,
    /// Blocks being decoded, in the order of the file.
    ahead: VecDeque<JoinHandle<(Decoder, Chunk, Option<ReadText>)>>,
    /// How far the file had been read when the block taken last was cut.
    taken_bytes: u64,
    /// Where that block ended in the text.
    taken_offset: u64,
    /// All of the text up to there.
    taken_text: Option<ReadText>,
    /// As the file was when it was opened, if no change since then looks the same.
    seen: Option<Seen>,
}

/// Cuts a file into blocks of rows.
struct BlockReader {
    name: Arc<str>,
    /// Its name in the checkpoint that a failure goes back to.
    known_as: Arc<str>,
    file: OpenedFile,
    /// The beginning of its text.
    head: Head,
    framing: RowEnds,
    /// Bytes read and not handed out yet. Starts with a row unless one is being
    /// skipped.
    buffer: Vec<u8>,
    /// The buffer's offset in the file.
    offset: u64,
    digest: TextDigest,
    at_end: bool,
    /// A row was too long, and its rest, which begins here, is still to be
    /// skipped.
    skipping: Option<RowRest>,
    rows: u64,
    /// Whether a block must not reach into the next turn, since other
    /// partitions are read in between.
    ends_with_turn: bool,
    row_bytes: usize,
    /// Whether an empty line is a row.
    has_empty_rows: bool,
    /// Whether a file that looks like another format is refused.
    must_be_text: bool,
}

/// A digest of the text before the buffer.
enum TextDigest {
    /// The run makes no checkpoints.
    Absent,
    /// The file is as it was when the restored checkpoint was made, and nothing more of it
    /// was read yet.
    AtRest(ReadText),
    Running(Box<RunningDigest>),
}

struct RawBlock {
    data: Buffer,
    spans: Vec<(u32, u32)>,
    offset: u64,
    too_long: Vec<BadRow>,
    /// The position after its rows.
    end: Position,
    /// All of the text up to there.
    text: Option<ReadText>,
}

impl FileInput {
    /// `compression` is what the pipeline's file says of it.
    pub fn open(
        files: &[SourceFile],
        format: &RowFormat,
        compression: Option<Compression>,
        context: &SourceContext,
    ) -> Result<Self, SourceError> {
        context.check_delimiter(&format.format)?;
        let decoder = Decoder::new(format, &context.schema);
        let is_alone = files.len() < 2;
        let ours = files
            .iter()
            .enumerate()
            .filter(|(index, _)| context.placement.has_partition(*index));
        let mut open = OpenFiles::new(context.placement.tasks);
        let mut partitions = Vec::new();
        for (_, file) in ours {
            let opened = file.open(context)?;
            let mut lines = BlockReader::new(opened, file.name.clone(), &format.format);
            if context.is_checkpointed {
                lines.digest = TextDigest::Running(Box::default());
            }
            lines.ends_with_turn = !is_alone;
            // Whoever says that it is not compressed means what is there.
            lines.must_be_text = compression != Some(Compression::None);
            let decoder = decoder.clone();
            let mut partition = FilePartition::open(lines, file, &format.format, decoder, context)?;
            if !open.starts_with(partitions.len()) {
                partition.close();
            }
            partitions.push(partition);
        }
        let ahead = match context.decode_workers {
            0 | 1 => 0,
            workers => workers.div_ceil(partitions.len().max(1)),
        };
        Ok(FileInput {
            open,
            partitions,
            ahead,
            absent: Arc::default(),
            context: context.clone(),
        })
    }
}

impl SourceInput for FileInput {
    fn partitions(&self) -> usize {
        self.partitions.len()
    }

    fn partition(&self, partition: usize) -> (Arc<str>, Position) {
        let partition = &self.partitions[partition];
        (partition.name.clone(), partition.lines.position())
    }

    fn restored<'a>(
        &'a self,
        partition: usize,
        _: &'a SourceContext,
    ) -> Option<&'a PartitionSnapshot> {
        self.partitions[partition].restored.as_ref()
    }

    fn absent(&self) -> &[PartitionSnapshot] {
        &self.absent
    }

    fn digest(&mut self, partition: usize, position: Position) -> Option<String> {
        Some(self.partitions[partition].mark(position.offset))
    }

    fn next<'a>(&'a mut self, order: &'a [usize]) -> Pending<'a, Arrival> {
        Box::pin(async move {
            let Some(&index) = order.first() else {
                return Ok(Arrival::Over);
            };
            if let Some(other) = self.open.next(index) {
                self.partitions[other].close();
            }
            let partition = &mut self.partitions[index];
            let chunk = match self.ahead {
                0 => partition.decode_here(&self.context)?,
                ahead => partition.decode_ahead(ahead, &self.context).await?,
            };
            if chunk.is_none() {
                partition.close();
                partition.lines.file.release();
            }
            Ok(Arrival::of(index, chunk))
        })
    }

    fn progress(&self) -> Option<f64> {
        let size: u64 = self.partitions.iter().map(|p| p.lines.file.size).sum();
        let taken: u64 = self.partitions.iter().map(|p| p.taken_bytes).sum();
        (size > 0).then(|| (taken as f64 / size as f64).min(1.0))
    }
}

/// Stands for the digest of a file that has another name since it was opened, or is
/// gone. No digest is this.
const REPLACED: &str = "replaced";

impl FilePartition {
    fn open(
        mut lines: BlockReader,
        file: &SourceFile,
        format: &Format,
        mut decoder: Decoder,
        context: &SourceContext,
    ) -> Result<Self, SourceError> {
        lines.start(format, &mut decoder, context)?;
        lines.has_empty_rows = lines.framing.has_empty_rows(format, &context.schema);
        if let Some(restored) = &file.restored {
            let position = restored.position;
            // Perhaps not even a header was there yet.
            if position.rows != Some(0) || position.is_in_row {
                let mark = restored.digest.as_deref().map(FileMark::parse);
                lines.known_as = restored.name.as_str().into();
                lines.seek(position, mark.as_ref(), context)?;
                lines.known_as = file.name.clone();
            }
        }
        let now_ms = context.clock.now_ms();
        let seen = Some(lines.file.seen()).filter(|seen| seen.is_before(now_ms));
        Ok(FilePartition {
            mark: None,
            name: file.name.clone(),
            links: file.links.clone(),
            restored: file.restored.clone(),
            taken_bytes: lines.file.taken,
            taken_offset: lines.offset,
            taken_text: lines.text(),
            seen,
            lines,
            decoders: Vec::new(),
            decoder,
            ahead: VecDeque::new(),
        })
    }

    /// By which a later run knows the file, of which this much was read.
    fn mark(&mut self, offset: u64) -> String {
        if let Some((known, mark)) = &self.mark
            && *known == offset
        {
            return mark.clone();
        }
        let digest = self.lines.file.digest(offset);
        let is_there = digest.is_ok();
        let mark = FileMark {
            read: digest.unwrap_or_else(|_| REPLACED.to_owned()),
            head: self.lines.head.clone(),
            file: Some(self.lines.file.id()),
            all: self.taken_text.filter(|text| text.length == offset),
            seen: self.seen,
            links: self.links.clone(),
            unread: None,
        };
        let mark = mark.to_string();
        if is_there {
            self.mark = Some((offset, mark.clone()));
        }
        mark
    }

    /// Frees the file's descriptor until it is read again. It may have another name
    /// then, so its mark is made now.
    fn close(&mut self) {
        self.mark(self.taken_offset);
        self.lines.file.close();
    }

    fn decode_here(&mut self, context: &SourceContext) -> Result<Option<Chunk>, SourceError> {
        let Some(block) = self.lines.next_block(context)? else {
            return Ok(None);
        };
        self.taken_bytes = self.lines.file.taken;
        self.taken_offset = block.end.offset;
        self.taken_text = block.text;
        let name = self.lines.name.clone();
        Ok(Some(block.decode(
            &mut self.decoder,
            context.node.clone(),
            name,
        )))
    }

    /// Takes the next block. A block stays in the queue until it is decoded, so
    /// the future may be dropped while it waits.
    async fn decode_ahead(
        &mut self,
        depth: usize,
        context: &SourceContext,
    ) -> Result<Option<Chunk>, SourceError> {
        while self.ahead.len() < depth {
            let Some(block) = self.lines.next_block(context)? else {
                break;
            };
            let mut decoder = self.decoders.pop().unwrap_or_else(|| self.decoder.clone());
            let (node, name) = (context.node.clone(), self.lines.name.clone());
            self.ahead.push_back(tokio::task::spawn_blocking(move || {
                let text = block.text;
                let chunk = block.decode(&mut decoder, node, name);
                (decoder, chunk, text)
            }));
        }
        let Some(first) = self.ahead.front_mut() else {
            return Ok(None);
        };
        let decoded = first.await;
        self.ahead.pop_front();
        match decoded {
            Ok((decoder, chunk, text)) => {
                self.taken_text = text;
                self.decoders.push(decoder);
                self.taken_bytes = self.lines.file.taken;
                self.taken_offset = chunk.end.offset;
                Ok(Some(chunk))
            }
            Err(error) => Err(SourceError::Bug {
                node: context.node.to_string(),
                partition: self.lines.name.to_string(),
                cause: error.to_string(),
            }),
        }
    }
}

impl RawBlock {
    fn decode(self, decoder: &mut Decoder, source: Arc<str>, partition: Arc<str>) -> Chunk {
        let offsets = Offsets::Bytes(self.offset);
        let mut chunk = decode(
            decoder, source, partition, self.data, self.spans, offsets, self.end,
        );
        chunk.bad.extend(self.too_long);
        chunk
    }
}

impl BlockReader {
    fn new(file: OpenedFile, known_as: Arc<str>, format: &Format) -> Self {
        BlockReader {
            name: called(file.path(), &known_as).into(),
            known_as,
            file,
            head: Head::default(),
            framing: RowEnds::of(format),
            buffer: Vec::new(),
            offset: 0,
            digest: TextDigest::Absent,
            at_end: false,
            skipping: None,
            rows: 0,
            ends_with_turn: false,
            row_bytes: 128,
            has_empty_rows: false,
            must_be_text: true,
        }
    }

    /// Skips the byte order mark and the header.
    fn start(
        &mut self,
        format: &Format,
        decoder: &mut Decoder,
        context: &SourceContext,
    ) -> Result<(), SourceError> {
        self.fill(BLOCK_BYTES_MIN, context)?;
        self.head = Head::of(&self.buffer);
        let can_be_named = !is_device(self.file.path());
        let (text, compression) = (&self.buffer, self.file.compression);
        if self.must_be_text
            && let Some(message) = looks_wrong(&self.name, can_be_named, text, compression)
        {
            return Err(context.refuse(message, Fault::OUTSIDE_LASTING));
        }
        if self.buffer.starts_with(BYTE_ORDER_MARK) {
            self.advance(BYTE_ORDER_MARK.len());
        }
        let Format::Csv(csv) = format else {
            return Ok(());
        };
        if !csv.header {
            let fields = context.schema.fields.len();
            self.framing.expect_fields(fields);
            return Ok(());
        }
        loop {
            match self.framing.next(&self.buffer, 0, self.at_end) {
                RowEnd::Row { end: 0, next } if next > 0 => self.advance(next),
                // An empty file needs no header.
                RowEnd::Row { end: 0, .. } => return Ok(()),
                RowEnd::Row { end, next } => {
                    let header = decoder.read_header(&self.buffer[..end]).map_err(|error| {
                        context.refuse(format!("{}: {error}", self.name), Fault::OUTSIDE_LASTING)
                    })?;
                    self.framing.expect_fields(header.fields);
                    self.advance(next);
                    return Ok(());
                }
                RowEnd::TooLong(..) => {
                    let message = long_header(&self.name, format, &self.buffer);
                    return Err(context.refuse(message, Fault::OUTSIDE_LASTING));
                }
                RowEnd::Unfinished => self.fill(self.buffer.len() * 2, context)?,
            }
        }
    }

    /// Reads the next rows, at most a batch; `None` at the end of the file.
    fn next_block(&mut self, context: &SourceContext) -> Result<Option<RawBlock>, SourceError> {
        let mut rows_max = context.rows_max() as u64;
        if self.ends_with_turn {
            rows_max = rows_max.min(TURN_ROWS - self.rows % TURN_ROWS);
        }
        let rows_max = usize::try_from(rows_max).unwrap_or(usize::MAX);
        let block_bytes = rows_max
            .saturating_mul(self.row_bytes + self.row_bytes / 16 + 1)
            .clamp(BLOCK_BYTES_MIN, BLOCK_BYTES_MAX);
        let mut spans: Vec<(u32, u32)> = Vec::with_capacity(rows_max.min(block_bytes / 16));
        let mut too_long = Vec::new();
        let mut at = 0;
        loop {
            while let Some(rest) = self.skipping {
                match self.framing.skip(&self.buffer, 0, rest, self.at_end) {
                    Skipped::Row(next) => {
                        self.advance(next);
                        self.skipping = None;
                    }
                    Skipped::Unfinished(from, rest) => {
                        self.advance(from);
                        self.skipping = Some(rest);
                        self.fill(block_bytes, context)?;
                    }
                }
            }
            while spans.len() + too_long.len() < rows_max {
                match self.framing.next(&self.buffer, at, self.at_end) {
                    RowEnd::Row { end, next } => {
                        if end > at || (self.has_empty_rows && next > at) {
                            spans.push((at as u32, end as u32));
                        }
                        at = next;
                        if at >= self.buffer.len() {
                            break;
                        }
                    }
                    RowEnd::TooLong(from, rest) => {
                        let offset = self.offset + at as u64;
                        too_long.push(too_long_before(offset, &self.buffer[at..], rest));
                        self.skipping = Some(rest);
                        at = from;
                        break;
                    }
                    RowEnd::Unfinished => break,
                }
            }
            if self.skipping.is_some() {
                break;
            }
            let given = spans.len() + too_long.len();
            let used_up = at >= self.buffer.len();
            if given >= rows_max || (self.at_end && used_up) {
                break;
            }
            if given > 0 && self.buffer.len() >= block_bytes {
                break;
            }
            if spans.is_empty() {
                // No row refers to the buffer yet, so its read part can be
                // dropped.
                self.advance(at);
                at = 0;
            }
            let wanted = block_bytes.max(self.buffer.len() + self.buffer.len() / 2);
            self.fill(wanted, context)?;
        }
        let given = spans.len() + too_long.len();
        if given == 0 {
            self.advance(at);
            return Ok(None);
        }
        self.rows += given as u64;
        self.row_bytes = at.div_ceil(given);
        let offset = self.offset;
        self.digest(at);
        // The unread rest moves to a new buffer; the rows keep the old one.
        let mut rest = Vec::with_capacity(block_bytes);
        rest.extend_from_slice(&self.buffer[at..]);
        let data = std::mem::replace(&mut self.buffer, rest);
        self.offset += at as u64;
        Ok(Some(RawBlock {
            data: Buffer::from_vec(data),
            spans,
            offset,
            too_long,
            end: self.position(),
            text: self.text(),
        }))
    }

    /// All of the text before the buffer.
    fn text(&self) -> Option<ReadText> {
        match &self.digest {
            TextDigest::Absent => None,
            TextDigest::AtRest(text) => Some(*text),
            TextDigest::Running(digest) => Some(digest.text()),
        }
    }

    /// Adds the buffer's first bytes to the digest.
    fn digest(&mut self, bytes: usize) {
        if let TextDigest::Running(digest) = &mut self.digest {
            digest.add(&self.buffer[..bytes]);
        }
    }

    fn position(&self) -> Position {
        Position {
            offset: self.offset,
            rows: Some(self.rows),
            is_in_row: self.skipping.is_some(),
            is_in_quotes: self.skipping == Some(RowRest::Quoted),
            ..Position::default()
        }
    }

    /// Goes on reading at a restored position, of which the checkpoint has this mark.
    fn seek(
        &mut self,
        to: Position,
        mark: Option<&FileMark>,
        context: &SourceContext,
    ) -> Result<(), SourceError> {
        // From the last byte that was read.
        let from = to.offset.saturating_sub(1);
        let then = mark.and_then(|mark| mark.all);
        let then = then.filter(|text| text.length == to.offset && to.offset > 0);
        let unchanged = then.filter(|_| mark.is_some_and(|mark| self.file.is_as(mark)));
        // Compressed text is read up to there anyway.
        let at_rest = unchanged.filter(|_| !self.file.is_compressed());
        let is_long = match &mut self.digest {
            TextDigest::Running(digest) if at_rest.is_none() => {
                **digest = match unchanged {
                    Some(text) => RunningDigest::of_last_block(text),
                    None => RunningDigest::default(),
                };
                digest_to(&mut self.file, digest, from, &context.node)
            }
            _ => self.file.seek(from),
        };
        let is_long = is_long.map_err(|cause| self.cannot_read(&cause, context))?;
        self.buffer.clear();
        self.offset = from;
        self.fill(3, context)?;
        if !is_long || self.offset + (self.buffer.len() as u64) < to.offset {
            let what = "is shorter than what was read of it before the checkpoint";
            return Err(self.is_another(what, to.offset, context));
        }
        if to.offset > from {
            let next = match to.is_in_row {
                true => Some(1),
                false => next_row(&self.buffer),
            };
            if let Some(text) = at_rest {
                self.digest = TextDigest::Absent;
                self.advance(1);
                self.digest = TextDigest::AtRest(text);
                if !self.buffer.is_empty() {
                    self.wake_digest(text, context)?;
                }
            } else {
                self.advance(1);
                self.check(then, context)?;
            }
            let Some(next) = next else {
                let what = "goes on within its last row, which had no line end when it was read \
                            before the checkpoint";
                return Err(self.is_another(what, to.offset, context));
            };
            self.advance(next - 1);
        }
        self.rows = to.rows.unwrap_or_default();
        self.skipping = match (to.is_in_row, to.is_in_quotes) {
            (false, _) => None,
            (true, false) => Some(RowRest::Unquoted),
            (true, true) => Some(RowRest::Quoted),
        };
        self.at_end = false;
        Ok(())
    }

    /// Refuses a file that does not have any more what was read of it.
    fn check(&self, then: Option<ReadText>, context: &SourceContext) -> Result<(), SourceError> {
        match (then, self.text()) {
            (Some(then), Some(now)) if then != now => {
                let what = "has been changed in what was read of it before the checkpoint";
                Err(self.is_another(what, then.length, context))
            }
            _ => Ok(()),
        }
    }

    fn is_another(&self, what: &str, offset: u64, context: &SourceContext) -> SourceError {
        let name = &self.name;
        let letting_go = letting_go(&context.node, &self.known_as, context);
        let message = format!(
            "{name} {what} (up to byte {offset}): put the file back that it was, or {letting_go}"
        );
        context.refuse(message, Fault::OUTSIDE_LASTING)
    }

    fn cannot_read(&self, cause: &io::Error, context: &SourceContext) -> SourceError {
        cannot_read(self.file.path(), &self.known_as, cause, context)
    }

    /// Goes on with the digest of a text that is as it was, since more of it is read.
    fn wake_digest(&mut self, text: ReadText, context: &SourceContext) -> Result<(), SourceError> {
        let mut digest = RunningDigest::of_last_block(text);
        let next = self.offset + self.buffer.len() as u64;
        let digested = digest_to(&mut self.file, &mut digest, text.length, &context.node)
            .and_then(|_| self.file.go_to(next));
        digested.map_err(|cause| self.cannot_read(&cause, context))?;
        self.digest = TextDigest::Running(Box::new(digest));
        self.check(Some(text), context)
    }

    /// Reads until the buffer has `wanted` bytes or the file is at its end.
    fn fill(&mut self, wanted: usize, context: &SourceContext) -> Result<(), SourceError> {
        let missing = wanted.saturating_sub(self.buffer.len());
        self.buffer.reserve_exact(missing);
        let read = self
            .file
            .read(missing, &mut self.buffer)
            .map_err(|cause| self.cannot_read(&cause, context))?;
        self.at_end = read < missing;
        match self.digest {
            TextDigest::AtRest(text) if read > 0 => self.wake_digest(text, context),
            _ => Ok(()),
        }
    }

    /// Drops the buffer's first bytes.
    fn advance(&mut self, bytes: usize) {
        self.digest(bytes);
        self.buffer.drain(..bytes);
        self.offset += bytes as u64;
    }
}

/// Adds the text up to this place to the digest of what is before it. Returns whether the
/// text is that long.
fn digest_to(
    file: &mut OpenedFile,
    digest: &mut RunningDigest,
    to: u64,
    node: &str,
) -> io::Result<bool> {
    if !file.seek(digest.length())? {
        return Ok(false);
    }
    if to - digest.length() > DIGESTED_BYTES_MUCH {
        tracing::info!(
            "source `{node}`: {} was changed since the checkpoint, perhaps by new rows; the {to} \
             bytes that were read of it are compared",
            shown(file.path())
        );
    }
    let mut text = Vec::new();
    while digest.length() < to {
        text.clear();
        let bytes = (to - digest.length()).min(DIGESTED_BYTES);
        if file.read(bytes as usize, &mut text)? == 0 {
            return Ok(false);
        }
        digest.add(&text);
    }
    Ok(true)
}

/// How much of a text is read at a time to be compared.
const DIGESTED_BYTES: u64 = 1 << 20;

/// So much takes a moment, which the log explains.
const DIGESTED_BYTES_MUCH: u64 = 1 << 30;

/// Where the next row begins in a text whose first byte is the last of a row. That may
/// have been the last byte of the file, so that the row's line end comes only now.
/// `None` if the row goes on.
fn next_row(text: &[u8]) -> Option<usize> {
    match text {
        [b'\n', ..] | [_] => Some(1),
        [_, b'\r'] | [_, b'\n', ..] => Some(2),
        [_, b'\r', b'\n', ..] => Some(3),
        _ => None,
    }
}
