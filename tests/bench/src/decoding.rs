//! How fast messages with a schema are decoded into columns, beside the crate of the format's
//! own project, which makes values of them, or the one that most use, which makes structs.

use std::hint::black_box;
use std::time::Instant;

use anyhow::ensure;
use apache_avro::Schema as Written;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value;
use apache_avro::writer::datum::GenericDatumWriter;
use clap::ValueEnum;
use prost::Message;
use serde_json::json;
use sluicebox::avro::AvroSchema;
use sluicebox::decode::Decoder;
use sluicebox::format::{AvroFormat, Format, MessageFormat, ProtobufFormat};
use sluicebox::protobuf::ProtoFile;
use sluicebox::schema::{DataType, Field, Schema};

use crate::{Arguments, BATCH_ROWS, START_MS};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Case {
    AvroDecoding,
    ProtobufDecoding,
}

/// An event of a shop.
const EVENT: &str = r#"{"type":"record","name":"Event","fields":[
    {"name":"user_id","type":"string"},
    {"name":"item_id","type":"string"},
    {"name":"action","type":{"type":"enum","name":"Action","symbols":["view","add","remove"]}},
    {"name":"quantity","type":"long"},
    {"name":"price","type":["null",{"type":"bytes","logicalType":"decimal","precision":9,"scale":2}]},
    {"name":"ts","type":{"type":"long","logicalType":"timestamp-millis"}}]}"#;

/// The same in Protobuf.
const SHOP_EVENT: &str = r#"
    syntax = "proto3";
    import "google/protobuf/timestamp.proto";
    message Event {
      string user_id = 1;
      string item_id = 2;
      Action action = 3;
      int64 quantity = 4;
      optional int64 price = 5;
      google.protobuf.Timestamp ts = 6;
      enum Action { view = 0; add = 1; remove = 2; }
    }
"#;

/// As prost would generate it.
#[derive(Clone, PartialEq, Message)]
struct ShopEvent {
    #[prost(string, tag = "1")]
    user_id: String,
    #[prost(string, tag = "2")]
    item_id: String,
    #[prost(int32, tag = "3")]
    action: i32,
    #[prost(int64, tag = "4")]
    quantity: i64,
    #[prost(int64, optional, tag = "5")]
    price: Option<i64>,
    #[prost(message, optional, tag = "6")]
    ts: Option<Time>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Time {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

/// How many rows are decoded again and again.
const ROWS: u64 = 100_000;

pub fn measure(arguments: &Arguments, case: Case) -> anyhow::Result<serde_json::Value> {
    let rounds = arguments.rows.div_ceil(ROWS).clamp(1, 50);
    let mut seconds = [Vec::new(), Vec::new()];
    let mut add = |columns: f64, reference: f64| {
        seconds[0].push(columns);
        seconds[1].push(reference);
    };
    let (name, reference) = match case {
        Case::AvroDecoding => {
            let written = Written::parse_str(EVENT)?;
            let writer = GenericDatumWriter::builder(&written).build()?;
            let rows = (0..ROWS).map(|row| writer.write_value_to_vec(event(row)));
            let rows: Vec<Vec<u8>> = rows.collect::<Result<_, _>>()?;
            for _ in 0..arguments.repeats {
                let columns = into_columns(avro_format()?, price(), &rows, rounds)?;
                add(columns, into_values(&written, &rows, rounds)?);
            }
            ("avro_decoding", "values of apache-avro")
        }
        Case::ProtobufDecoding => {
            let rows = (0..ROWS).map(|row| shop_event(row).encode_to_vec());
            let rows: Vec<Vec<u8>> = rows.collect();
            for _ in 0..arguments.repeats {
                let columns = into_columns(protobuf_format()?, DataType::Int64, &rows, rounds)?;
                add(columns, into_structs(&rows, rounds)?);
            }
            ("protobuf_decoding", "structs of prost")
        }
    };
    let rows_per_second = seconds.map(|mut seconds| {
        seconds.sort_by(f64::total_cmp);
        (ROWS * rounds) as f64 / seconds[seconds.len() / 2]
    });
    let [columns, values] = rows_per_second;
    eprintln!(
        "{name}: {:.2} M rows/s into columns, {:.2} into {reference}: {:.1} times as fast",
        columns / 1e6,
        values / 1e6,
        columns / values
    );
    Ok(json!({
        "case": name,
        "rows": ROWS * rounds,
        "rows_per_second": columns,
        "reference_rows_per_second": values,
        "ratio": columns / values,
    }))
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

fn price() -> DataType {
    DataType::Decimal {
        precision: 9,
        scale: 2,
    }
}

fn avro_format() -> anyhow::Result<MessageFormat> {
    Ok(MessageFormat::Avro(AvroFormat {
        schema: Some(AvroSchema::parse(EVENT, &[]).map_err(anyhow::Error::msg)?),
        is_registered: false,
    }))
}

fn protobuf_format() -> anyhow::Result<MessageFormat> {
    let file = ProtoFile::parse("event.proto", SHOP_EVENT, |_| None);
    let schema = file.and_then(|file| file.message(None));
    Ok(MessageFormat::Protobuf(ProtobufFormat {
        schema: Some(schema.map_err(anyhow::Error::msg)?),
        message: None,
        is_registered: false,
    }))
}

fn into_columns(
    format: MessageFormat,
    price: DataType,
    rows: &[Vec<u8>],
    rounds: u64,
) -> anyhow::Result<f64> {
    let field = |name: &str, data_type| Field::new(name, data_type, false);
    let schema = Schema::new(vec![
        field("user_id", DataType::Utf8),
        field("item_id", DataType::Utf8),
        field("action", DataType::Utf8),
        field("quantity", DataType::Int64),
        Field::new("price", price, true),
        field("ts", DataType::Timestamp),
    ]);
    let format = Format::Message(format).into();
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

fn shop_event(row: u64) -> ShopEvent {
    let ms = START_MS + row as i64;
    ShopEvent {
        user_id: format!("user-{}", row * 7919 % 100_000),
        item_id: format!("item-{}", row * 104_729 % 20_000),
        action: (row % 3) as i32,
        quantity: (row % 10) as i64,
        price: (!row.is_multiple_of(5)).then_some(100 + (row % 30_000) as i64),
        ts: Some(Time {
            seconds: ms / 1_000,
            nanos: (ms % 1_000) as i32 * 1_000_000,
        }),
    }
}

fn into_structs(rows: &[Vec<u8>], rounds: u64) -> anyhow::Result<f64> {
    let started = Instant::now();
    for _ in 0..rounds {
        for row in rows {
            let event = black_box(ShopEvent::decode(&row[..])?);
            ensure!(event.ts.is_some(), "it has a time");
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
