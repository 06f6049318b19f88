//! Reads Parquet: each file is a partition, and offsets count rows.
//!
//! Of a row group, only the columns of the source's fields are read, a few rows at a time,
//! however large it is. How many depends on how large the rows were so far. A file is never
//! changed once it is written, so it is known by its length and its end, which says where
//! everything is.

/// Makes columns of fields.
mod columns;

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::{ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow_schema::{DataType as ArrowType, FieldRef, Fields, TimeUnit};
use arrow_select::filter::filter_record_batch;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader,
    ParquetRecordBatchReaderBuilder,
};
use parquet::basic::Type as PhysicalType;
use parquet::errors::ParquetError;
use parquet::schema::types::ColumnDescPtr;

use self::columns::{Checked, column, find, fits, lenient, names};
use super::digest::start_of;
use super::known::{SourceFile, called, cannot_read};
use super::mark::{FileMark, Head};
use super::opened::{OpenFiles, OpenedFile};
use crate::batch::{Block, Offsets, Payload};
use crate::blame::Fault;
use crate::checkpoint::snapshot::{PartitionSnapshot, Position};
use crate::format::RowFormat;
use crate::guarded::guarded;
use crate::json::render_columns;
use crate::schema::{Field, Schema};
use crate::source::chunk::{BadRow, Chunk, at_row};
use crate::source::{Arrival, Pending, SourceContext, SourceError, SourceInput, TURN_ROWS};
use crate::timestamp::CutTimes;

/// How much memory the rows take that are read at a time.
const BATCH_BYTES: usize = 8 << 20;

/// So many rows are read first: what their text says of their size may be much less than
/// what they take.
const FIRST_ROWS: usize = 64;
const ROWS_MAX: usize = 4_096;

pub(super) struct ParquetInput {
    partitions: Vec<ParquetPartition>,
    open: OpenFiles,
    /// What the restored checkpoint has of files that are gone.
    pub absent: Arc<[PartitionSnapshot]>,
    reading: Reading,
}

/// What all partitions share.
struct Reading {
    /// The fields, by the names that they have in the files.
    fields: Vec<Field>,
    /// Those that all values of a bad row fit.
    lenient: Schema,
    arrow: arrow_schema::SchemaRef,
    /// Whether partitions are read in turns.
    takes_turns: bool,
    context: SourceContext,
}

struct ParquetPartition {
    name: Arc<str>,
    path: PathBuf,
    /// Known by its length and end.
    file: OpenedFile,
    mark: String,
    restored: Option<PartitionSnapshot>,
    /// How many rows it has, and how many were handed out.
    rows: u64,
    given: u64,
    /// How much memory one takes, as far as is known.
    row_bytes: Option<usize>,
    reader: Option<RowReader>,
    left: Option<ReadRows>,
}

/// A file that is open.
struct RowReader {
    batches: ParquetRecordBatchReader,
    /// How many rows a batch has.
    batch_rows: usize,
    /// The number of the next row.
    next: u64,
}

/// Rows that were read, good and bad.
struct ReadRows {
    good: RecordBatch,
    /// Which rows the good ones are, of all that were read; absent where all are good.
    places: Option<Vec<u32>>,
    bad: VecDeque<BadRow>,
    /// The number of the first row, how many there are, and how many were handed out.
    first: u64,
    rows: usize,
    given: usize,
    given_good: usize,
    cut_times: Option<CutTimes>,
}

/// Why a file cannot be read with these fields, if that can be told by its end.
pub(super) fn check(path: &Path, format: &RowFormat, fields: &Schema) -> Result<(), String> {
    let file = File::open(path).map_err(|cause| cause.to_string())?;
    let metadata = load(&file).map_err(|cause| unreadable(&cause))?;
    check_fields(metadata.schema().fields(), &format.written(fields).fields)
}

fn check_fields(given: &Fields, fields: &[Field]) -> Result<(), String> {
    let mut is_any_there = false;
    for field in fields {
        let same = given.iter().filter(|given| given.name() == &field.name);
        if same.count() > 1 {
            return Err(format!("two of its columns are called `{}`", field.name));
        }
        match find(given, &field.name) {
            Some((_, given)) => {
                is_any_there = true;
                fits(&field.name, given, &field.data_type)?;
            }
            None if field.nullable => {}
            None => {
                let there = names(given);
                return Err(format!("`{}` is not in the file: {there}", field.name));
            }
        }
    }
    match is_any_there {
        true => Ok(()),
        false => Err(format!("it has none of the fields: {}", names(given))),
    }
}

/// Reads what the end of a file says. Types are those of Parquet: what Arrow notes beside
/// them differs between programs.
fn load(file: &File) -> Result<ArrowReaderMetadata, ParquetError> {
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    checked(|| {
        let metadata = ArrowReaderMetadata::load(file, options.clone())?;
        let mut leaves = metadata.parquet_schema().columns().iter();
        let fields = metadata.schema().fields().iter();
        let fields: Fields = fields
            .map(|field| in_microseconds(field, &mut leaves))
            .collect();
        if fields == *metadata.schema().fields() {
            return Ok(metadata);
        }
        let schema = Arc::new(arrow_schema::Schema::new(fields));
        ArrowReaderMetadata::try_new(metadata.metadata().clone(), options.with_schema(schema))
    })
}

/// Has times of INT96 read in µs: some are in years that ns do not reach in 64 bits, and would
/// be others. `leaves` has the columns that values are in, from this field's first on.
fn in_microseconds<'c>(
    field: &FieldRef,
    leaves: &mut impl Iterator<Item = &'c ColumnDescPtr>,
) -> FieldRef {
    let data_type = match field.data_type() {
        ArrowType::List(element) => ArrowType::List(in_microseconds(element, leaves)),
        ArrowType::Map(entry, is_sorted) => {
            ArrowType::Map(in_microseconds(entry, leaves), *is_sorted)
        }
        ArrowType::Struct(fields) => {
            let fields = fields.iter();
            ArrowType::Struct(fields.map(|field| in_microseconds(field, leaves)).collect())
        }
        of_leaf => match leaves.next().map(|leaf| leaf.physical_type()) {
            Some(PhysicalType::INT96) => ArrowType::Timestamp(TimeUnit::Microsecond, None),
            _ => of_leaf.clone(),
        },
    };
    Arc::new(field.as_ref().clone().with_data_type(data_type))
}

/// Damaged data may be more than the library expects.
fn checked<T>(read: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, ParquetError> {
    let damaged = || Err(ParquetError::General("its data makes no sense".to_owned()));
    guarded(read).unwrap_or_else(damaged)
}

/// What is wrong with a file, in words.
fn unreadable(cause: &ParquetError) -> String {
    let cause = match cause {
        ParquetError::General(cause) | ParquetError::EOF(cause) => cause.clone(),
        ParquetError::NYI(cause) => {
            return format!(
                "it uses what is not read here ({cause}): write it anew, with snappy, gzip or zstd"
            );
        }
        cause => cause.to_string(),
    };
    match cause.contains("Disabled feature") {
        true => format!(
            "it is compressed in a way that is not read here ({cause}): write it anew, with snappy, gzip or zstd"
        ),
        false => format!("it is no Parquet file, or damaged or cut off: {cause}"),
    }
}

fn fault_of(cause: &ParquetError) -> Fault {
    match cause {
        ParquetError::External(cause) => cause
            .downcast_ref::<io::Error>()
            .map_or(Fault::OUTSIDE_LASTING, Fault::of_io),
        _ => Fault::OUTSIDE_LASTING,
    }
}

impl ParquetInput {
    pub fn open(
        files: &[SourceFile],
        format: &RowFormat,
        context: &SourceContext,
    ) -> Result<Self, SourceError> {
        let written = format.written(&context.schema);
        let reading = Reading {
            lenient: Schema::new(context.schema.fields.iter().map(lenient).collect()),
            fields: written.fields,
            arrow: Arc::new(context.schema.to_arrow()),
            takes_turns: files.len() > 1,
            context: context.clone(),
        };
        let ours = files.iter().enumerate();
        let ours = ours.filter(|(index, _)| context.placement.has_partition(*index));
        let partitions = ours.map(|(_, file)| ParquetPartition::open(file, &reading));
        Ok(ParquetInput {
            partitions: partitions.collect::<Result<_, _>>()?,
            open: OpenFiles::new(context.placement.tasks),
            absent: Arc::default(),
            reading,
        })
    }
}

impl SourceInput for ParquetInput {
    fn partitions(&self) -> usize {
        self.partitions.len()
    }

    fn partition(&self, partition: usize) -> (Arc<str>, Position) {
        let partition = &self.partitions[partition];
        (partition.name.clone(), at_row(partition.given))
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

    fn digest(&mut self, partition: usize, _: Position) -> Option<String> {
        Some(self.partitions[partition].mark.clone())
    }

    fn next<'a>(&'a mut self, order: &'a [usize]) -> Pending<'a, Arrival> {
        Box::pin(async move {
            let Some(&index) = order.first() else {
                return Ok(Arrival::Over);
            };
            if let Some(other) = self.open.next(index) {
                self.partitions[other].reader = None;
            }
            let chunk = self.partitions[index].next(&self.reading)?;
            if chunk.is_none() {
                self.partitions[index].reader = None;
            }
            Ok(Arrival::of(index, chunk))
        })
    }

    fn progress(&self) -> Option<f64> {
        let rows: u64 = self.partitions.iter().map(|it| it.rows).sum();
        let given: u64 = self.partitions.iter().map(|it| it.given).sum();
        (rows > 0).then(|| given as f64 / rows as f64)
    }
}

impl ParquetPartition {
    fn open(source: &SourceFile, reading: &Reading) -> Result<Self, SourceError> {
        let context = &reading.context;
        let mut file = source.open(context)?;
        file.close();
        let path = file.path().to_owned();
        let failed = |cause: io::Error| cannot_read(&path, &source.name, &cause, context);
        let opened = file.reopen().map_err(failed)?;
        let mark = FileMark {
            read: file.digest(0).map_err(failed)?,
            head: Head::of(&start_of(&opened).map_err(failed)?),
            file: Some(file.id()),
            all: None,
            seen: None,
            links: source.links.clone(),
            unread: None,
        };
        let mut partition = ParquetPartition {
            name: source.name.clone(),
            path: path.clone(),
            mark: mark.to_string(),
            file,
            restored: source.restored.clone(),
            rows: 0,
            given: source
                .restored
                .as_ref()
                .map_or(0, |known| known.position.offset),
            row_bytes: None,
            reader: None,
            left: None,
        };
        let metadata = load(&opened).map_err(|cause| partition.failed(&cause, context))?;
        partition.rows = partition.check(&metadata, reading)?;
        Ok(partition)
    }

    /// Checks the columns, and returns the number of rows.
    fn check(&self, metadata: &ArrowReaderMetadata, reading: &Reading) -> Result<u64, SourceError> {
        let refuse = |wrong: String| {
            let message = format!("{}: {wrong}", called(&self.path, &self.name));
            reading.context.refuse(message, Fault::OUTSIDE_LASTING)
        };
        check_fields(metadata.schema().fields(), &reading.fields).map_err(refuse)?;
        let mut all = 0_u64;
        for group in metadata.metadata().row_groups() {
            let rows = u64::try_from(group.num_rows()).ok();
            let sum = rows.and_then(|rows| all.checked_add(rows));
            all = sum.ok_or_else(|| {
                refuse("it is damaged: it has a negative number of rows".to_owned())
            })?;
        }
        Ok(all)
    }

    fn failed(&self, cause: &ParquetError, context: &SourceContext) -> SourceError {
        let what = format!("cannot read {}", called(&self.path, &self.name));
        context.failed(what, unreadable(cause), fault_of(cause))
    }

    /// The next rows; `None` at the end.
    fn next(&mut self, reading: &Reading) -> Result<Option<Chunk>, SourceError> {
        if self.left.is_none() {
            self.left = self.read(reading)?;
        }
        let Some(left) = &mut self.left else {
            return Ok(None);
        };
        let mut rows_max = reading.context.rows_max();
        if reading.takes_turns {
            let left_in_turn = TURN_ROWS - self.given % TURN_ROWS;
            rows_max = rows_max.min(usize::try_from(left_in_turn).unwrap_or(usize::MAX));
        }
        let chunk = left.take(rows_max, &self.name, reading);
        self.given = chunk.end.offset;
        if left.given == left.rows {
            self.left = None;
        }
        Ok(Some(chunk))
    }

    /// Reads rows on from where the last ones were handed out.
    fn read(&mut self, reading: &Reading) -> Result<Option<ReadRows>, SourceError> {
        let context = &reading.context;
        if self.given >= self.rows {
            return Ok(None);
        }
        let mut reader = match self.reader.take() {
            Some(reader) if reader.next == self.given => reader,
            _ => self.open_reader(reading)?,
        };
        let read = checked(|| {
            reader
                .batches
                .next()
                .transpose()
                .map_err(ParquetError::from)
        });
        let batch = read.map_err(|cause| self.failed(&cause, context))?;
        let Some(batch) = batch.filter(|batch| batch.num_rows() > 0) else {
            let missing = ParquetError::General(format!(
                "it has {} rows, as its end says, and the rest of them is missing behind row {}",
                self.rows, self.given
            ));
            return Err(self.failed(&missing, context));
        };
        let rows = batch.num_rows();
        reader.next += rows as u64;
        let row_bytes = (batch.get_array_memory_size() / rows).max(1);
        self.row_bytes = Some(row_bytes);
        let wanted = batch_rows(row_bytes);
        // Otherwise it goes on in another step.
        if wanted / 4 < reader.batch_rows && reader.batch_rows / 4 < wanted {
            self.reader = Some(reader);
        }
        reading.rows(&batch, self.given).map(Some)
    }

    fn open_reader(&self, reading: &Reading) -> Result<RowReader, SourceError> {
        let context = &reading.context;
        // What was read of it has to be the same file, as it was.
        let file = self.file.reopen();
        let file = file.map_err(|cause| cannot_read(&self.path, &self.name, &cause, context))?;
        let metadata = load(&file).map_err(|cause| self.failed(&cause, context))?;
        self.check(&metadata, reading)?;
        let given = metadata.schema().fields();
        let roots = reading.fields.iter();
        let roots: Vec<usize> = roots
            .filter_map(|field| Some(find(given, &field.name)?.0))
            .collect();
        let mask = ProjectionMask::roots(metadata.parquet_schema(), roots);
        // Groups before the place are not looked at.
        let groups = metadata.metadata().row_groups();
        let (mut first, mut skipped) = (0, self.given);
        while let Some(group) = groups.get(first)
            && let Ok(rows) = u64::try_from(group.num_rows())
            && skipped >= rows
        {
            skipped -= rows;
            first += 1;
        }
        let row_bytes = self.row_bytes.unwrap_or_else(|| {
            let group = groups.get(first);
            let bytes = group.map_or(0, |group| {
                group.total_byte_size().max(0) / group.num_rows().max(1)
            });
            // What is not known yet may be larger.
            usize::try_from(bytes)
                .unwrap_or(usize::MAX)
                .max(BATCH_BYTES / FIRST_ROWS)
        });
        let batch_rows = batch_rows(row_bytes);
        let all: Vec<usize> = (first..groups.len()).collect();
        let batches = checked(|| {
            ParquetRecordBatchReaderBuilder::new_with_metadata(file, metadata)
                .with_projection(mask)
                .with_row_groups(all)
                .with_offset(usize::try_from(skipped).unwrap_or(usize::MAX))
                .with_batch_size(batch_rows)
                .build()
        });
        Ok(RowReader {
            batches: batches.map_err(|cause| self.failed(&cause, context))?,
            batch_rows,
            next: self.given,
        })
    }
}

fn batch_rows(row_bytes: usize) -> usize {
    (BATCH_BYTES / row_bytes.max(1)).clamp(1, ROWS_MAX)
}

impl Reading {
    /// Makes columns of the fields of what was read from this row on.
    fn rows(&self, batch: &RecordBatch, first: u64) -> Result<ReadRows, SourceError> {
        let fields = self.fields.iter();
        let mut checked = Checked::default();
        for field in fields.clone() {
            checked.column(field, batch.column_by_name(&field.name));
        }
        let rows = batch.num_rows();
        let mut bad = VecDeque::new();
        let mut places = None;
        let mut good = batch.clone();
        if !checked.bad.is_empty() {
            let is_good: Vec<bool> = (0..rows)
                .map(|row| !checked.bad.contains_key(&row))
                .collect();
            places = Some(
                (0..rows as u32)
                    .filter(|row| is_good[*row as usize])
                    .collect(),
            );
            let anything: Vec<ArrayRef> = fields
                .clone()
                .map(|field| {
                    let given = batch.column_by_name(&field.name);
                    column(&lenient(field), given, rows)
                })
                .collect();
            for (row, error) in checked.bad {
                let offset = first + row as u64;
                let payload = render_columns(&self.lenient, &anything, row).into_bytes();
                bad.push_back(BadRow {
                    offset,
                    error,
                    payload,
                    envelope: None,
                });
            }
            good = filter_record_batch(batch, &BooleanArray::from(is_good)).map_err(|error| {
                self.context
                    .failed("cannot leave out bad rows", error, Fault::BUG)
            })?;
        }
        let columns =
            fields.map(|field| column(field, good.column_by_name(&field.name), good.num_rows()));
        let options = RecordBatchOptions::new().with_row_count(Some(good.num_rows()));
        let made =
            RecordBatch::try_new_with_options(self.arrow.clone(), columns.collect(), &options);
        Ok(ReadRows {
            good: made.map_err(|error| {
                self.context
                    .failed("cannot make columns of a file's", error, Fault::BUG)
            })?,
            places,
            bad,
            first,
            rows,
            given: 0,
            given_good: 0,
            cut_times: checked.cut_times,
        })
    }
}

impl ReadRows {
    /// At most so many of the rows.
    fn take(&mut self, rows_max: usize, partition: &Arc<str>, reading: &Reading) -> Chunk {
        let from = self.given;
        let to = self.rows.min(from + rows_max);
        let until = self.first + to as u64;
        let good = match &self.places {
            None => to - from,
            Some(places) => {
                let rest = &places[self.given_good..];
                rest.partition_point(|&place| (place as usize) < to)
            }
        };
        let rows = self.good.slice(self.given_good, good);
        let offsets = match &self.places {
            None => Offsets::From(self.first + from as u64),
            Some(places) => {
                let given = &places[self.given_good..self.given_good + good];
                Offsets::Each(
                    given
                        .iter()
                        .map(|&place| self.first + u64::from(place))
                        .collect(),
                )
            }
        };
        let mut bad = Vec::new();
        while let Some(row) = self.bad.pop_front_if(|row| row.offset < until) {
            bad.push(row);
        }
        self.given = to;
        self.given_good += good;
        Chunk {
            columns: rows.columns().to_vec(),
            rows: good,
            block: Block {
                source: reading.context.node.clone(),
                partition: partition.clone(),
                offsets,
                payload: Payload::Rows(rows),
                envelopes: Vec::new(),
            },
            bad,
            end: at_row(until),
            cut_times: self.cut_times.take(),
            times: None,
            taken_back: None,
        }
    }
}
