//! Parquet that other programs have written: types, missing values, row groups, damage.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ::parquet::arrow::ArrowWriter;
use ::parquet::data_type::{Int64Type, Int96, Int96Type};
use ::parquet::file::properties::WriterProperties;
use ::parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use ::parquet::schema::parser::parse_message_type;
use arrow_array::types::Int32Type;
use arrow_array::{
    Array, ArrayRef, Date32Array, Decimal128Array, FixedSizeBinaryArray, Float32Array, Int8Array,
    Int32Array, Int64Array, ListArray, NullArray, RecordBatch, StringArray, StructArray,
    TimestampMicrosecondArray, TimestampMillisecondArray, TimestampNanosecondArray, UInt16Array,
};
use arrow_schema::{DataType as ArrowType, Field as ArrowField};
use expect_test::{Expect, expect};
use tempfile::TempDir;

use super::sources::{context, plan};
use crate::blame::Blame;
use crate::connector::file::source::FileSource;
use crate::dead_letter::{DeadLetter, OnError};
use crate::element::Element;
use crate::format::Format;
use crate::json::render_row;
use crate::plan::{EventTime, SourcePlan};
use crate::schema::{DataType, Field, Schema};
use crate::source::reader::SourceReader;
use crate::source::{SourceContext, SourceError};

/// Writes a file with row groups of so many rows.
fn write(folder: &TempDir, columns: Vec<(&str, ArrayRef)>, group_rows: usize) -> PathBuf {
    let path = folder.path().join("rows.parquet");
    let fields = columns.iter().map(|(name, column)| {
        ArrowField::new(
            *name,
            column.data_type().clone(),
            column.logical_null_count() > 0,
        )
    });
    let schema = Arc::new(arrow_schema::Schema::new(fields.collect::<Vec<_>>()));
    let columns = columns.into_iter().map(|(_, column)| column).collect();
    let rows = RecordBatch::try_new(schema.clone(), columns).expect("rows");
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(group_rows));
    let file = File::create(&path).expect("it is writable");
    let mut writer = ArrowWriter::try_new(file, schema, Some(properties.build())).expect("a file");
    writer.write(&rows).expect("it is writable");
    writer.close().expect("it is writable");
    path
}

fn plan_of(paths: &[&Path]) -> SourcePlan {
    let paths = paths.iter().map(|path| path.to_path_buf()).collect();
    let mut source = FileSource::new(paths, PathBuf::new(), Format::Json.into(), None);
    source.is_parquet = true;
    SourcePlan {
        event_time: EventTime::Ingestion,
        on_error: OnError::DeadLetter,
        ..plan(source)
    }
}

fn context_of(fields: &[Field], batch_rows: usize) -> SourceContext {
    SourceContext {
        schema: Arc::new(Schema::new(fields.to_vec())),
        ..context(batch_rows)
    }
}

#[derive(Default)]
struct Read {
    /// As JSON.
    rows: Vec<String>,
    letters: Vec<DeadLetter>,
    cut_times: u64,
}

/// Reads all rows; with `stops`, each batch in a run of its own.
fn read(plan: &SourcePlan, context: SourceContext, stops: bool) -> Result<Read, SourceError> {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.expect("a runtime").block_on(async {
        let mut reader = SourceReader::open(plan, context.clone()).await?;
        let mut read = Read::default();
        while let Some(pulled) = reader.next().await? {
            for element in pulled.elements {
                if let Element::Batch(batch) = element {
                    read.rows
                        .extend((0..batch.rows()).map(|row| render_row(&batch, row)));
                }
            }
            read.letters.extend(pulled.dead_letters);
            read.cut_times += pulled.cut_times.map_or(0, |cut| cut.values);
            if stops {
                let context = SourceContext {
                    restored: Arc::new([reader.snapshot()]),
                    ..context.clone()
                };
                reader = SourceReader::open(plan, context).await?;
                // What is restored is told first.
                reader.next().await?;
            }
        }
        Ok(read)
    })
}

/// What is read of these columns as these fields, or why nothing is.
fn check(columns: Vec<(&str, ArrayRef)>, fields: &[Field], expected: Expect) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = write(&folder, columns, 1_024);
    let text = match read(&plan_of(&[&path]), context_of(fields, 1_024), false) {
        Ok(read) => {
            let letters = read.letters.iter().map(|letter| {
                let offset = letter.offset.unwrap_or_default();
                let payload = letter.payload.as_deref().unwrap_or_default();
                format!("bad at {offset}: {}: {payload}", letter.error)
            });
            let mut rows: Vec<String> = read.rows.into_iter().chain(letters).collect();
            if read.cut_times > 0 {
                rows.push(format!("{} times are cut", read.cut_times));
            }
            rows.join("\n")
        }
        Err(error) => error
            .to_string()
            .replace(&format!("{}/", folder.path().display()), ""),
    };
    expected.assert_eq(&text);
}

fn required(name: &str, data_type: DataType) -> Field {
    Field::new(name, data_type, false)
}

fn optional(name: &str, data_type: DataType) -> Field {
    Field::new(name, data_type, true)
}

#[test]
fn types_of_other_programs_are_read_where_nothing_is_lost() {
    let times: Vec<i64> = vec![1_700_000_000_123_456, -1];
    check(
        vec![
            ("more", Arc::new(Int32Array::from(vec![1, 2]))),
            ("i8", Arc::new(Int8Array::from(vec![-1, 2]))),
            ("u16", Arc::new(UInt16Array::from(vec![65_535, 0]))),
            ("i32", Arc::new(Int32Array::from(vec![-3, 3]))),
            ("f32", Arc::new(Float32Array::from(vec![0.5, f32::NAN]))),
            (
                "ms",
                Arc::new(TimestampMillisecondArray::from(vec![0, 1_500])),
            ),
            (
                "us",
                Arc::new(TimestampMicrosecondArray::from(times.clone())),
            ),
            ("ns", Arc::new(TimestampNanosecondArray::from(times))),
            ("date", Arc::new(Date32Array::from(vec![19_000, -1]))),
            (
                "money",
                Arc::new(
                    Decimal128Array::from(vec![12_345, -1])
                        .with_precision_and_scale(7, 2)
                        .expect("a decimal"),
                ),
            ),
            (
                "id",
                Arc::new(
                    FixedSizeBinaryArray::try_from_iter(["ab", "cd"].into_iter()).expect("ids"),
                ),
            ),
        ],
        &[
            required("id", DataType::Bytes),
            required(
                "money",
                DataType::Decimal {
                    precision: 18,
                    scale: 4,
                },
            ),
            required("i8", DataType::Int64),
            required("u16", DataType::Int32),
            required("i32", DataType::Int64),
            required("f32", DataType::Float64),
            required("ms", DataType::Timestamp),
            required("us", DataType::Timestamp),
            required("ns", DataType::Timestamp),
            required("date", DataType::Timestamp),
            optional("gone", DataType::Utf8),
        ],
        expect![[r#"
            {"id":"YWI=","money":123.4500,"i8":-1,"u16":65535,"i32":-3,"f32":0.5,"ms":"1970-01-01T00:00:00Z","us":"2023-11-14T22:13:20.123Z","ns":"1970-01-20T16:13:20Z","date":"2022-01-08T00:00:00Z","gone":null}
            {"id":"Y2Q=","money":-0.0100,"i8":2,"u16":0,"i32":3,"f32":"NaN","ms":"1970-01-01T00:00:01.500Z","us":"1969-12-31T23:59:59.999Z","ns":"1969-12-31T23:59:59.999Z","date":"1969-12-31T00:00:00Z","gone":null}
            4 times are cut"#]],
    );
}

/// As pandas writes columns in which all is missing.
#[test]
fn columns_without_any_value_are_none() {
    let nulls = || Arc::new(NullArray::new(2));
    let record = StructArray::new(
        vec![
            ArrowField::new("n", ArrowType::Int64, false),
            ArrowField::new("symbol", ArrowType::Null, true),
        ]
        .into(),
        vec![Arc::new(Int64Array::from(vec![1, 2])), nulls()],
        None,
    );
    let columns = || -> Vec<(&str, ArrayRef)> {
        vec![("record", Arc::new(record.clone())), ("text", nulls())]
    };
    let members = [
        required("n", DataType::Int64),
        optional("symbol", DataType::Symbol(["a".to_owned()].into())),
    ];
    let record = required("record", DataType::Record(members.into()));
    check(
        columns(),
        &[record.clone(), optional("text", DataType::Utf8)],
        expect![[r#"
            {"record":{"n":1,"symbol":null},"text":null}
            {"record":{"n":2,"symbol":null},"text":null}"#]],
    );
    check(
        columns(),
        &[record, required("text", DataType::Utf8)],
        expect![
            "source `events`: rows.parquet: `text` is not in the file: it has `record`, `text`"
        ],
    );
}

/// They are days and ns of the day, and have years that ns since 1970 do not reach.
#[test]
fn old_times_have_all_years() {
    let text = "message rows {
        required int64 n;
        required group within { required int96 t; }
        required int96 t;
        required int64 ns (TIMESTAMP(NANOS,true));
    }";
    let schema = parse_message_type(text).expect("a schema");
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("rows.parquet");
    let file = File::create(&path).expect("it is writable");
    let mut writer =
        SerializedFileWriter::new(file, Arc::new(schema), Arc::default()).expect("a file");
    let mut group = writer.next_row_group().expect("a row group");
    // Days since 4713 BC.
    let time = |day: u32, ns: u32| {
        let mut time = Int96::new();
        time.set_data(ns, 0, day);
        time
    };
    let (first, last) = (time(1_721_426, 0), time(5_373_484, 999_000_000));
    let recent = time(2_440_588, 1_500_000);
    let mut column = |write: &dyn Fn(&mut SerializedColumnWriter<'_>)| {
        let column = group.next_column().expect("it is writable");
        let mut column = column.expect("one more");
        write(&mut column);
        column.close().expect("it is writable");
    };
    let numbers = |column: &mut SerializedColumnWriter<'_>| {
        let written = column.typed::<Int64Type>();
        let written = written.write_batch(&[1, 2, 3], None, None);
        written.expect("it is writable");
    };
    let times = |column: &mut SerializedColumnWriter<'_>| {
        let written = column.typed::<Int96Type>();
        let written = written.write_batch(&[first, last, recent], None, None);
        written.expect("it is writable");
    };
    column(&numbers);
    column(&times);
    column(&times);
    column(&numbers);
    group.close().expect("it is writable");
    writer.close().expect("it is writable");
    let within = DataType::Record([required("t", DataType::Timestamp)].into());
    let fields = [
        required("n", DataType::Int64),
        required("within", within),
        required("t", DataType::Timestamp),
        required("ns", DataType::Timestamp),
    ];
    let read = read(&plan_of(&[&path]), context_of(&fields, 1_024), false).expect("rows");
    expect![[r#"
        {"n":1,"within":{"t":"0001-01-01T00:00:00Z"},"t":"0001-01-01T00:00:00Z","ns":"1970-01-01T00:00:00Z"}
        {"n":2,"within":{"t":"9999-12-31T00:00:00.999Z"},"t":"9999-12-31T00:00:00.999Z","ns":"1970-01-01T00:00:00Z"}
        {"n":3,"within":{"t":"1970-01-01T00:00:00.001Z"},"t":"1970-01-01T00:00:00.001Z","ns":"1970-01-01T00:00:00Z"}"#]].assert_eq(&read.rows.join("\n"));
    assert_eq!(read.cut_times, 5);
}

#[test]
fn columns_that_do_not_fit_are_named() {
    let column = || -> Vec<(&str, ArrayRef)> {
        vec![
            ("n", Arc::new(Int64Array::from(vec![1]))),
            ("text", Arc::new(StringArray::from(vec!["a"]))),
        ]
    };
    check(
        column(),
        &[required("n", DataType::Int32)],
        expect!["source `events`: rows.parquet: `n` is int32 in `fields`, and int64 in the file"],
    );
    check(
        column(),
        &[required("n", DataType::UInt64)],
        expect!["source `events`: rows.parquet: `n` is uint64 in `fields`, and int64 in the file"],
    );
    check(
        column(),
        &[required("n", DataType::Timestamp)],
        expect![
            "source `events`: rows.parquet: `n` is timestamp in `fields`, and int64 in the file"
        ],
    );
    check(
        column(),
        &[required("text", DataType::Bytes)],
        expect!["source `events`: rows.parquet: `text` is bytes in `fields`, and utf8 in the file"],
    );
    check(
        column(),
        &[
            required("n", DataType::Int64),
            required("other", DataType::Utf8),
        ],
        expect!["source `events`: rows.parquet: `other` is not in the file: it has `n`, `text`"],
    );
    check(
        column(),
        &[optional("other", DataType::Utf8)],
        expect!["source `events`: rows.parquet: it has none of the fields: it has `n`, `text`"],
    );
    let decimal = Decimal128Array::from(vec![1]).with_precision_and_scale(9, 4);
    check(
        vec![("n", Arc::new(decimal.expect("a decimal")))],
        &[required(
            "n",
            DataType::Decimal {
                precision: 9,
                scale: 2,
            },
        )],
        expect![
            "source `events`: rows.parquet: `n` is decimal(9,2) in `fields`, and decimal(9,4) in the file"
        ],
    );
}

fn nested() -> Vec<(&'static str, ArrayRef)> {
    let lists = ListArray::from_iter_primitive::<Int32Type, _, _>(vec![
        Some(vec![Some(1), None]),
        None,
        Some(vec![]),
        Some(vec![Some(2), Some(3)]),
    ]);
    let texts = StringArray::from(vec![Some("a"), None, Some("b"), Some("c")]);
    let numbers = Int32Array::from(vec![1, 2, 3, 4]);
    let record = StructArray::try_new(
        vec![
            ArrowField::new("text", ArrowType::Utf8, true),
            ArrowField::new("n", ArrowType::Int32, false),
        ]
        .into(),
        vec![Arc::new(texts), Arc::new(numbers)],
        Some(vec![true, true, false, true].into()),
    );
    vec![
        ("lists", Arc::new(lists)),
        ("record", Arc::new(record.expect("a record"))),
    ]
}

#[test]
fn lists_and_records_are_read_member_by_member() {
    let element = |nullable| Arc::new(Field::new("item", DataType::Int64, nullable));
    let members = |text: Field| DataType::Record([required("n", DataType::Int64), text].into());
    check(
        nested(),
        &[
            optional("record", members(optional("text", DataType::Utf8))),
            optional("lists", DataType::List(element(true))),
        ],
        expect![[r#"
            {"record":{"n":1,"text":"a"},"lists":[1,null]}
            {"record":{"n":2,"text":null},"lists":null}
            {"record":null,"lists":[]}
            {"record":{"n":4,"text":"c"},"lists":[2,3]}"#]],
    );
    // What is missing where it must not be is a bad row.
    let symbols = DataType::Symbol(["a".to_owned(), "b".to_owned()].into());
    check(
        nested(),
        &[
            optional("record", members(required("text", symbols))),
            optional("lists", DataType::List(element(false))),
        ],
        expect![[r#"
            {"record":null,"lists":[]}
            bad at 0: `lists[]` is missing, and has no `?` in `fields`: {"record":{"n":1,"text":"a"},"lists":[1,null]}
            bad at 1: `record.text` is missing, and has no `?` in `fields`: {"record":{"n":2,"text":null},"lists":null}
            bad at 3: `record.text`: expected one of a|b, found `c`: {"record":{"n":4,"text":"c"},"lists":[2,3]}"#]],
    );
    check(
        nested(),
        &[optional(
            "record",
            members(required("gone", DataType::Utf8)),
        )],
        expect![
            "source `events`: rows.parquet: `record.gone` is not in the file: it has `text`, `n`"
        ],
    );
}

/// Rows with every third number missing.
fn numbers(count: i64) -> Vec<(&'static str, ArrayRef)> {
    let number = |n: i64| (n % 3 != 2).then_some(n);
    vec![
        (
            "n",
            Arc::new((0..count).map(number).collect::<Int64Array>()),
        ),
        (
            "text",
            Arc::new(
                (0..count)
                    .map(|n| Some(format!("t{n}")))
                    .collect::<StringArray>(),
            ),
        ),
    ]
}

#[test]
fn rows_are_the_same_however_they_are_divided() {
    let folder = tempfile::tempdir().expect("a folder");
    let fields = [
        required("text", DataType::Utf8),
        required("n", DataType::Int64),
    ];
    for group_rows in [1, 7, 100] {
        let path = write(&folder, numbers(100), group_rows);
        for batch_rows in [1, 3, 64, 1_000] {
            for stops in [false, true] {
                let how = format!("{group_rows} {batch_rows} {stops}");
                let context = context_of(&fields, batch_rows);
                let read = read(&plan_of(&[&path]), context, stops);
                let read = read.unwrap_or_else(|error| panic!("{how}: {error}"));
                let good = (0..100).filter(|n| n % 3 != 2);
                let good: Vec<String> = good
                    .map(|n| format!("{{\"text\":\"t{n}\",\"n\":{n}}}"))
                    .collect();
                assert_eq!(read.rows, good, "{how}");
                let bad: Vec<u64> = read.letters.iter().filter_map(|it| it.offset).collect();
                assert_eq!(
                    bad,
                    Vec::from_iter((0..100).filter(|n| n % 3 == 2)),
                    "{how}"
                );
            }
        }
    }
}

/// A few bytes in a file can be large rows: those of one value that is repeated.
#[test]
fn what_is_read_at_a_time_is_bounded_by_its_size() {
    let folder = tempfile::tempdir().expect("a folder");
    let large = "x".repeat(512 << 10);
    let texts = StringArray::from(vec![large.as_str(); 300]);
    let path = write(&folder, vec![("text", Arc::new(texts))], 1_000);
    let plan = plan_of(&[&path]);
    let context = context_of(&[required("text", DataType::Utf8)], 4_096);
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.expect("a runtime").block_on(async {
        let mut reader = SourceReader::open(&plan, context)
            .await
            .expect("it is readable");
        let mut batches = Vec::new();
        while let Some(pulled) = reader.next().await.expect("it is readable") {
            batches.push(pulled.rows_in);
        }
        assert_eq!(batches.iter().sum::<u64>(), 300);
        assert_eq!(batches[0], 64, "nothing is known of it");
        assert!(batches[1..].iter().all(|rows| *rows <= 16), "{batches:?}");
    });
}

/// Whatever is wrong with a file is said, and nothing panics.
#[test]
fn damaged_files_are_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = write(&folder, numbers(100), 40);
    let fields = [
        optional("n", DataType::Int64),
        required("text", DataType::Utf8),
    ];
    let whole = fs::read(&path).expect("a file");
    let open = || read(&plan_of(&[&path]), context_of(&fields, 64), false);
    assert_eq!(open().expect("it is whole").rows.len(), 100);
    for length in (0..whole.len()).step_by(5) {
        fs::write(&path, &whole[..length]).expect("it is writable");
        let error = open()
            .err()
            .unwrap_or_else(|| panic!("{length} bytes are read"));
        assert_eq!(error.fault().blame, Blame::Outside, "{error}");
        assert!(error.to_string().contains("rows.parquet"), "{error}");
    }
    let mut told = 0;
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x55;
        fs::write(&path, &damaged).expect("it is writable");
        // A byte of a value may be another value.
        if let Err(error) = open() {
            told += 1;
            assert!(!error.to_string().contains("bug"), "{error}");
        }
    }
    assert!(told > whole.len() / 3, "{told} of {}", whole.len());
    fs::write(&path, "text\n").expect("it is writable");
    let error = open().err().expect("it is text").to_string();
    assert!(error.contains("is no Parquet file"), "{error}");
}
