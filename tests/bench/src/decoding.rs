//! How fast messages with a schema are decoded into columns, beside the crate of the format's
//! own project, which makes values of them.

use std::time::Instant;

use anyhow::ensure;
use apache_avro::Schema as Written;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value;
use apache_avro::writer::datum::GenericDatumWriter;
use clap::ValueEnum;
use serde_json::json;
use sluicebox::avro::AvroSchema;
use sluicebox::decode::Decoder;
use sluicebox::format::{AvroFormat, Format, MessageFormat};
use sluicebox::schema::{DataType, Field, Schema};

use crate::{Arguments, BATCH_ROWS, START_MS};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Case {
    AvroDecoding,
}

/// An event of a shop.
const EVENT: &str = r#"{"type":"record","name":"Event","fields":[
    {"name":"user_id","type":"string"},
    {"name":"item_id","type":"string"},
    {"name":"action","type":{"type":"enum","name":"Action","symbols":["view","add","remove"]}},
    {"name":"quantity","type":"long"},
    {"name":"price","type":["null",{"type":"bytes","logicalType":"decimal","precision":9,"scale":2}]},
    {"name":"ts","type":{"type":"long","logicalType":"timestamp-millis"}}]}"#;

/// How many rows are decoded again and again.
const ROWS: u64 = 100_000;

pub fn measure(arguments: &Arguments) -> anyhow::Result<Vec<serde_json::Value>> {
    let written = Written::parse_str(EVENT)?;
    let writer = GenericDatumWriter::builder(&written).build()?;
    let rows = (0..ROWS).map(|row| writer.write_value_to_vec(event(row)));
    let rows: Vec<Vec<u8>> = rows.collect::<Result<_, _>>()?;
    let rounds = arguments.rows.div_ceil(ROWS).clamp(1, 50);
    let mut seconds = [Vec::new(), Vec::new()];
    for _ in 0..arguments.repeats {
        seconds[0].push(into_columns(&rows, rounds)?);
        seconds[1].push(into_values(&written, &rows, rounds)?);
    }
    let rows_per_second = seconds.map(|mut seconds| {
        seconds.sort_by(f64::total_cmp);
        (ROWS * rounds) as f64 / seconds[seconds.len() / 2]
    });
    let [columns, values] = rows_per_second;
    eprintln!(
        "avro_decoding: {:.2} M rows/s into columns, {:.2} into values of apache-avro: {:.1} times \
         as fast",
        columns / 1e6,
        values / 1e6,
        columns / values
    );
    Ok(vec![json!({
        "case": "avro_decoding",
        "rows": ROWS * rounds,
        "rows_per_second": columns,
        "reference_rows_per_second": values,
        "ratio": columns / values,
    })])
}

fn event(row: u64) -> Value {
    let (action, symbol) = [(0, "view"), (1, "add"), (2, "remove")][(row % 3) as usize];
    let price = match row % 5 {
        0 => Value::Union(0, Box::new(Value::Null)),
        _ => {
            let units = 100 + (row % 30_000) as i32;
            let decimal = Value::Decimal(units.to_be_bytes().into());
            Value::Union(1, Box::new(decimal))
        }
    };
    let field = |name: &str, value| (name.to_owned(), value);
    Value::Record(vec![
        field(
            "user_id",
            Value::String(format!("user-{}", row * 7919 % 100_000)),
        ),
        field(
            "item_id",
            Value::String(format!("item-{}", row * 104_729 % 20_000)),
        ),
        field("action", Value::Enum(action, symbol.to_owned())),
        field("quantity", Value::Long((row % 10) as i64)),
        field("price", price),
        field("ts", Value::TimestampMillis(START_MS + row as i64)),
    ])
}

fn into_columns(rows: &[Vec<u8>], rounds: u64) -> anyhow::Result<f64> {
    let field = |name: &str, data_type| Field::new(name, data_type, false);
    let decimal = DataType::Decimal {
        precision: 9,
        scale: 2,
    };
    let schema = Schema::new(vec![
        field("user_id", DataType::Utf8),
        field("item_id", DataType::Utf8),
        field("action", DataType::Utf8),
        field("quantity", DataType::Int64),
        Field::new("price", decimal, true),
        field("ts", DataType::Timestamp),
    ]);
    let avro = AvroFormat {
        schema: Some(AvroSchema::parse(EVENT, &[]).map_err(anyhow::Error::msg)?),
        is_registered: false,
    };
    let format = Format::Message(MessageFormat::Avro(avro)).into();
    let mut decoder = Decoder::new(&format, &schema);
    let blocks = rows.chunks(BATCH_ROWS).map(|rows| {
        let mut spans = Vec::with_capacity(rows.len());
        let mut start = 0;
        for row in rows {
            spans.push((start, start + row.len() as u32));
            start += row.len() as u32;
        }
        (rows.concat(), spans)
    });
    let blocks: Vec<_> = blocks.collect();
    let started = Instant::now();
    for _ in 0..rounds {
        for (data, spans) in &blocks {
            let decoded = decoder.decode(data, spans);
            ensure!(decoded.rows == spans.len(), "{:?}", decoded.bad.first());
        }
    }
    Ok(started.elapsed().as_secs_f64())
}

fn into_values(written: &Written, rows: &[Vec<u8>], rounds: u64) -> anyhow::Result<f64> {
    let reader = GenericDatumReader::builder(written).build()?;
    let started = Instant::now();
    for _ in 0..rounds {
        for row in rows {
            let value = reader.read_value(&mut &row[..])?;
            ensure!(matches!(value, Value::Record(_)), "it is a record");
        }
    }
    Ok(started.elapsed().as_secs_f64())
}
