//! What a file's sink writes, its source reads back equal: every type, every
//! value, in every text format, compressed or not, also where the file was cut at a
//! checkpoint and went on from there.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use arrow_array::builder::{ListBuilder, StringBuilder};
use arrow_array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Decimal128Array, Float32Array, Float64Array,
    Int8Array, Int64Array, StringArray, TimestampMillisecondArray, UInt64Array,
};
use arrow_schema::Fields;
use proptest::prelude::*;

use super::sources::{context, plan};
use crate::batch::Batch;
use crate::connector::file::beginning::IfExists;
use crate::connector::file::opened::Compression;
use crate::connector::file::sink::FileSink;
use crate::connector::file::sink_format::SinkFormat;
use crate::connector::file::source::FileSource;
use crate::dead_letter::OnError;
use crate::decimal;
use crate::decode::Decoder;
use crate::element::Element;
use crate::format::{CsvFormat, Format};
use crate::plan::{EventTime, SourcePlan};
use crate::schema::{DataType, Field, Schema};
use crate::sink::{Ending, SinkConnector, SinkContext};
use crate::source::SourceContext;
use crate::source::reader::SourceReader;

const ROWS: usize = 5;

/// Five values of some type, missing ones among them if the field allows it.
fn column() -> impl Strategy<Value = (Field, ArrayRef)> {
    fn values<T>(
        data_type: DataType,
        value: impl Strategy<Value = T> + 'static,
        array: impl Fn(Vec<Option<T>>) -> ArrayRef + 'static,
    ) -> BoxedStrategy<(Field, ArrayRef)>
    where
        T: std::fmt::Debug + Clone + 'static,
    {
        let rows = prop::collection::vec((any::<bool>(), value), ROWS);
        (any::<bool>(), rows)
            .prop_map(move |(nullable, rows)| {
                let row = |(missing, value)| Some(value).filter(|_| !(nullable && missing));
                let rows = rows.into_iter().map(row).collect();
                (Field::new("", data_type.clone(), nullable), array(rows))
            })
            .boxed()
    }
    let float = prop_oneof![
        4 => any::<f64>(),
        1 => Just(f64::NAN),
        1 => Just(f64::INFINITY),
        1 => Just(f64::NEG_INFINITY),
    ];
    let text = prop_oneof![any::<String>(), "[ ,\"\r\n\\\\a]{0,4}"];
    let element = Field::new("item", DataType::Utf8, true);
    let digits = [(1, 0), (5, 5), (18, 2), (38, 0), (38, 9), (38, 38)];
    let decimals = prop::sample::select(digits.to_vec()).prop_flat_map(|(precision, scale)| {
        let data_type = DataType::Decimal { precision, scale };
        let arrow = data_type.to_arrow();
        let most = decimal::limit(precision) - 1;
        let small = -most.min(9)..=most.min(9);
        let units = prop_oneof![-most..=most, small, Just(most), Just(-most)];
        values(data_type, units, move |rows| {
            Arc::new(Decimal128Array::from(rows).with_data_type(arrow.clone()))
        })
    });
    prop_oneof![
        2 => decimals,
        1 => values(DataType::Bool, any::<bool>(), |rows| Arc::new(
            BooleanArray::from(rows)
        )),
        1 => values(DataType::Int8, any::<i8>(), |rows| Arc::new(
            Int8Array::from(rows)
        )),
        1 => values(DataType::Int64, any::<i64>(), |rows| Arc::new(
            Int64Array::from(rows)
        )),
        1 => values(DataType::UInt64, any::<u64>(), |rows| Arc::new(
            UInt64Array::from(rows)
        )),
        1 => values(DataType::Float32, float.clone(), |rows| {
            let rows = rows.into_iter().map(|value| Some(value? as f32));
            Arc::new(rows.collect::<Float32Array>())
        }),
        1 => values(DataType::Float64, float, |rows| Arc::new(
            Float64Array::from(rows)
        )),
        1 => values(DataType::Timestamp, any::<i64>(), |rows| {
            Arc::new(TimestampMillisecondArray::from(rows).with_timezone("UTC"))
        }),
        1 => values(DataType::Utf8, text.clone(), |rows| Arc::new(
            StringArray::from(rows)
        )),
        1 => values(DataType::Bytes, any::<Vec<u8>>(), |rows| {
            let rows = rows.iter().map(|value| value.as_deref()).collect();
            Arc::new(BinaryArray::from_opt_vec(rows))
        }),
        1 => values(
            DataType::List(Arc::new(element)),
            prop::collection::vec(prop::option::of(text), 0..3),
            |rows| {
                let mut lists = ListBuilder::new(StringBuilder::new());
                for row in rows {
                    lists.append_option(row);
                }
                Arc::new(lists.finish())
            }
        ),
    ]
}

/// Writes the rows and reads them back. With `cut`, the writer is killed behind a
/// checkpoint of so many rows, and goes on from there.
async fn through_a_file(
    batch: &Batch,
    sink: SinkFormat,
    source: Format,
    compression: Compression,
    cut: Option<usize>,
) -> Vec<ArrayRef> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("rows");
    let file = FileSink {
        path: path.clone(),
        folder: PathBuf::new(),
        format: sink,
        compression,
        if_exists: IfExists::Fail,
        csv: CsvFormat::default(),
        roll: None,
    };
    let open = |restored| {
        let context = SinkContext {
            is_checkpointed: cut.is_some(),
            restored,
            ..SinkContext::default()
        };
        let opened = file.open("out", &batch.schema, &context);
        opened.unwrap_or_else(|error| panic!("{error}"))
    };
    let mut sink = open(None);
    let cut = cut.unwrap_or(0);
    sink.write(&batch.slice(0, cut)).expect("it is writable");
    if cut > 0 {
        let kept = sink.barrier(1).expect("it is writable");
        sink.write(&batch.slice(cut, 1)).expect("it is writable");
        sink.flush().expect("it is writable");
        drop(sink);
        sink = open(Some(kept));
    }
    sink.write(&batch.slice(cut, ROWS - cut))
        .expect("it is writable");
    sink.finish(Ending::Complete).expect("it is writable");
    let plan = SourcePlan {
        event_time: EventTime::Ingestion,
        on_error: OnError::Fail,
        ..plan(FileSource::new(
            vec![path.clone()],
            PathBuf::new(),
            source.into(),
            Some(compression),
        ))
    };
    let context = SourceContext {
        schema: batch.schema.clone(),
        ..context(4_096)
    };
    let text = std::fs::read(&path).expect("a file");
    let text = String::from_utf8_lossy(&text).into_owned();
    let opened = SourceReader::open(&plan, context).await;
    let mut reader = opened.unwrap_or_else(|error| panic!("{error}\n{text}"));
    let mut batches = Vec::new();
    loop {
        let pulled = reader.next().await;
        let Some(pulled) = pulled.unwrap_or_else(|error| panic!("{error}\n{text}")) else {
            break;
        };
        batches.extend(
            pulled
                .elements
                .into_iter()
                .filter_map(|element| match element {
                    Element::Batch(batch) => Some(batch),
                    _ => None,
                }),
        );
    }
    let columns = (0..batch.columns.len()).map(|index| {
        let parts: Vec<&dyn Array> = batches.iter().map(|part| &*part.columns[index]).collect();
        arrow_select::concat::concat(&parts).expect("parts of one column")
    });
    columns.collect()
}

/// Writes the rows to a new file in a folder.
fn write_file(batch: &Batch, format: SinkFormat, folder: &Path) -> PathBuf {
    let file = FileSink {
        path: folder.join("rows"),
        folder: PathBuf::new(),
        format,
        compression: Compression::None,
        if_exists: IfExists::Fail,
        csv: CsvFormat::default(),
        roll: None,
    };
    let opened = file.open("out", &batch.schema, &SinkContext::default());
    let mut sink = opened.unwrap_or_else(|error| panic!("{error}"));
    sink.write(batch).expect("it is writable");
    sink.finish(Ending::Complete).expect("it is writable");
    file.path
}

/// What the sink writes of these rows.
fn csv_text(batch: &Batch) -> String {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = write_file(batch, SinkFormat::Csv, folder.path());
    std::fs::read_to_string(path).expect("text")
}

/// Writes the rows to a Parquet file and reads them back with Arrow's own reader.
fn through_parquet(batch: &Batch) -> (Vec<ArrayRef>, Fields) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = write_file(batch, SinkFormat::Parquet, folder.path());
    let file = std::fs::File::open(&path).expect("a file");
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).expect("a Parquet file");
    let mut batches = reader.build().expect("a reader");
    let read = batches.next().expect("a batch").expect("it is readable");
    (read.columns().to_vec(), read.schema().fields().clone())
}

/// Writes the rows to a Parquet file and reads them back with the source, which is stopped
/// behind so many rows, and goes on from there.
async fn through_a_source_of_parquet(batch: &Batch, cut: Option<usize>) -> Vec<ArrayRef> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = write_file(batch, SinkFormat::Parquet, folder.path());
    let mut source = FileSource::new(vec![path], PathBuf::new(), Format::Json.into(), None);
    source.is_parquet = true;
    let plan = SourcePlan {
        event_time: EventTime::Ingestion,
        on_error: OnError::Fail,
        ..plan(source)
    };
    let context = SourceContext {
        schema: batch.schema.clone(),
        ..context(cut.unwrap_or(4_096))
    };
    let mut reader = SourceReader::open(&plan, context.clone())
        .await
        .expect("it is readable");
    let mut batches = Vec::new();
    while let Some(pulled) = reader.next().await.expect("it is readable") {
        let rows = pulled
            .elements
            .into_iter()
            .filter_map(|element| match element {
                Element::Batch(batch) => Some(batch),
                _ => None,
            });
        batches.extend(rows);
        if cut.is_some() {
            let context = SourceContext {
                restored: Arc::new([reader.snapshot()]),
                ..context.clone()
            };
            reader = SourceReader::open(&plan, context)
                .await
                .expect("it is readable");
            // What is restored is told first.
            reader.next().await.expect("it is readable");
        }
    }
    let columns = (0..batch.columns.len()).map(|index| {
        let parts: Vec<&dyn Array> = batches.iter().map(|part| &*part.columns[index]).collect();
        arrow_select::concat::concat(&parts).expect("parts of one column")
    });
    columns.collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn every_value_comes_back_equal(columns in prop::collection::vec(column(), 1..4)) {
        let (fields, columns): (Vec<Field>, Vec<ArrayRef>) = columns.into_iter().unzip();
        let named = fields.into_iter().enumerate().map(|(index, field)| {
            Field::new(format!("f{index}"), field.data_type, field.nullable)
        });
        let batch = Batch {
            schema: Arc::new(Schema::new(named.collect())),
            columns,
            times: vec![0; ROWS].into(),
            origin: None,
            watermarks: None,
            taken_back: None,
        };
        let csv = Format::Csv(CsvFormat { header: true, delimiter: b',' });
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let runtime = runtime.expect("a runtime");
        for (sink, source) in [(SinkFormat::Json, Format::Json), (SinkFormat::Csv, csv)] {
            for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
                for cut in [None, Some(2)] {
                    let read = through_a_file(&batch, sink, source.clone(), compression, cut);
                    let read = runtime.block_on(read);
                    let how = format!("{sink:?} {compression:?} {cut:?}");
                    prop_assert_eq!(&read, &batch.columns, "{}", how);
                }
            }
        }
        for cut in [None, Some(2)] {
            let read = runtime.block_on(through_a_source_of_parquet(&batch, cut));
            prop_assert_eq!(&read, &batch.columns, "Parquet {:?}", cut);
        }
        let (read, fields) = through_parquet(&batch);
        prop_assert_eq!(&read, &batch.columns, "Parquet");
        prop_assert_eq!(fields, batch.schema.to_arrow().fields, "Parquet");
    }

    /// A message is one row, and the line ends that writers put behind it are of no value.
    #[test]
    fn a_csv_message_comes_back_equal(
        columns in prop::collection::vec(column(), 1..4),
        ends in "[\r\n]{0,4}",
    ) {
        let (fields, columns): (Vec<Field>, Vec<ArrayRef>) = columns.into_iter().unzip();
        let named = fields.into_iter().enumerate().map(|(index, field)| {
            Field::new(format!("f{index}"), field.data_type, field.nullable)
        });
        let schema = Arc::new(Schema::new(named.collect()));
        let csv = Format::Csv(CsvFormat { header: false, delimiter: b',' });
        for row in 0..ROWS {
            let batch = Batch {
                schema: schema.clone(),
                columns: columns.iter().map(|column| column.slice(row, 1)).collect(),
                times: vec![0].into(),
                origin: None,
                watermarks: None,
                taken_back: None,
            };
            let text = csv_text(&batch);
            let (_, line) = text.split_once('\n').expect("a header");
            let message = format!("{}{ends}", line.strip_suffix('\n').expect("a line"));
            let mut decoder = Decoder::new(&csv.clone().into(), &schema);
            let decoded = decoder.decode(message.as_bytes(), &[(0, message.len() as u32)]);
            prop_assert!(decoded.bad.is_empty(), "{:?} {:?}", message, decoded.bad);
            prop_assert_eq!(&decoded.columns, &batch.columns, "{:?}", message);
        }
    }
}
