//! Makes columns ready for values as a message's schema, or the pipeline's file, says that
//! they are written; refuses what a column cannot have.

use serde_json::Value as Json;

use super::super::super::column::{ColumnBuilder, ValuesBuilder};
use super::super::super::fault::RowFault;
use crate::format::TextDecimals;
use crate::schema::DataType;
use crate::timestamp::{TimeUnit, TimestampFormat};

const DECIMAL: &str = "org.apache.kafka.connect.data.Decimal";
const VARIABLE_DECIMAL: &str = "io.debezium.data.VariableScaleDecimal";

/// Makes a column ready for values of a schema, or of none. `declared` yields the formats of
/// the timestamps, depth first.
pub(super) fn prepare(
    column: &mut ColumnBuilder,
    schema: Option<&Json>,
    declared: &mut impl Iterator<Item = TimestampFormat>,
    decimals: TextDecimals,
) -> Result<(), RowFault> {
    let text = |key| schema.and_then(|schema| schema.get(key)?.as_str());
    let name = text("name").unwrap_or_default();
    if let Some(kind) = text("type") {
        check_kind(kind, name, &column.data_type)?;
    }
    match &mut column.values {
        ValuesBuilder::Timestamp(times) => {
            let own = declared.next().unwrap_or_default();
            times.format = time_format(name)?.unwrap_or(own);
        }
        ValuesBuilder::Decimal(_, digits) => {
            let own = Some(i64::from(digits.scale));
            digits.unscaled =
                match (schema, name) {
                    (None, _) => own.filter(|_| decimals == TextDecimals::Precise),
                    (Some(schema), DECIMAL) => {
                        let scale = schema.pointer("/parameters/scale").and_then(Json::as_str);
                        let scale = scale.and_then(|scale| scale.parse().ok());
                        Some(scale.ok_or_else(|| {
                            RowFault::new("is a decimal whose schema has no `scale`")
                        })?)
                    }
                    (Some(_), VARIABLE_DECIMAL) => own,
                    (Some(_), _) => None,
                };
        }
        ValuesBuilder::List(list) => {
            let items = schema.and_then(|schema| schema.get("items"));
            prepare(&mut list.element, items, declared, decimals)?;
        }
        ValuesBuilder::Record(record) => {
            let fields = schema.and_then(|schema| schema.get("fields"));
            // A map, whose keys are the fields.
            let values = schema.and_then(|schema| schema.get("values"));
            for field in &mut record.fields {
                let schema = values.or_else(|| field_schema(fields, &field.name));
                prepare(&mut field.column, schema, declared, decimals)
                    .map_err(|fault| fault.within(&field.name))?;
            }
        }
        _ => {}
    }
    Ok(())
}

/// How times of this name are written; `None` if the name says nothing of it.
fn time_format(name: &str) -> Result<Option<TimestampFormat>, RowFault> {
    let (debezium, connect) = (
        name.strip_prefix("io.debezium.time."),
        name.strip_prefix("org.apache.kafka.connect.data."),
    );
    let Some(name) = debezium.or(connect) else {
        return Ok(None);
    };
    let (is, wanted) = match name {
        "Date" => return Ok(Some(TimestampFormat::Days)),
        "Timestamp" => return Ok(Some(TimestampFormat::Number(TimeUnit::Milliseconds))),
        "MicroTimestamp" => return Ok(Some(TimestampFormat::Number(TimeUnit::Microseconds))),
        "NanoTimestamp" => return Ok(Some(TimestampFormat::Number(TimeUnit::Nanoseconds))),
        "ZonedTimestamp" | "IsoTimestamp" => return Ok(Some(TimestampFormat::Rfc3339)),
        "Time" | "MicroTime" | "NanoTime" => ("a time of day", "int64"),
        "ZonedTime" | "IsoTime" => ("a time of day", "utf8"),
        "IsoDate" => ("a date as a text", "utf8"),
        "Year" => ("a year", "int32"),
        "MicroDuration" | "NanoDuration" => ("a duration", "int64"),
        "Interval" => ("a duration", "utf8"),
        other => {
            return Err(RowFault::new(format!(
                "is a `{other}`, of which no `timestamp` is known to be made: read it as `int64` \
                 or `utf8`"
            )));
        }
    };
    Err(RowFault::new(format!(
        "is {is}, which is no `timestamp`: read it as `{wanted}`"
    )))
}

/// Refuses a column for values of a type of Kafka Connect that it cannot have.
fn check_kind(kind: &str, name: &str, wanted: &DataType) -> Result<(), RowFault> {
    use DataType as D;
    let is_number = match kind {
        "int8" | "int16" | "int32" | "int64" | "float" | "double" => true,
        "boolean" | "string" | "bytes" | "array" | "map" | "struct" => false,
        // No type of Connect: the values will tell.
        _ => return Ok(()),
    };
    let is_decimal = matches!(name, DECIMAL | VARIABLE_DECIMAL);
    let fits = match wanted {
        D::Decimal { .. } => is_number || is_decimal || kind == "string",
        _ if is_decimal => {
            return Err(RowFault::new(
                "is a decimal: give the field a type such as `decimal(18,2)`, or the connector \
                 `decimal.handling.mode` \"string\" or \"double\"",
            ));
        }
        _ if wanted.is_number() => is_number,
        D::Timestamp => matches!(kind, "int32" | "int64" | "string"),
        D::Bool => kind == "boolean",
        D::Bytes => kind == "bytes",
        D::List(_) => kind == "array",
        D::Record(_) => matches!(kind, "struct" | "map"),
        _ => kind == "string",
    };
    if fits {
        return Ok(());
    }
    let readers = match kind {
        _ if matches!(time_format(name), Ok(Some(_))) => "`timestamp`",
        "float" | "double" => "`float64`",
        "boolean" => "`bool`",
        "string" => "`utf8`",
        "bytes" => "`bytes`",
        "array" => "a list",
        "map" => "a record, whose fields are its keys,",
        "struct" => "a record",
        _ => "`int64`",
    };
    let named = match name {
        "" => String::new(),
        name => format!(" (`{name}`)"),
    };
    Err(RowFault::new(format!(
        "is {kind}{named} in the message's schema, and {wanted} in `fields`: {readers} reads it"
    )))
}

/// The fields of the rows that a schema is about: those of `after`, or, of a key, its own.
pub(super) fn row_fields(schema: &Json) -> Option<&Json> {
    let fields = schema.get("fields");
    let of_row = ["after", "before"]
        .iter()
        .find_map(|part| field_schema(fields, part));
    of_row.map_or(fields, |row| row.get("fields"))
}

/// What a schema says of a field.
pub(super) fn field_schema<'s>(fields: Option<&'s Json>, name: &str) -> Option<&'s Json> {
    let mut fields = fields?.as_array()?.iter();
    fields.find(|field| field.get("field").and_then(Json::as_str) == Some(name))
}

/// The fields that have a default, and that.
pub(super) fn defaults(fields: Option<&Json>) -> Vec<(String, Json)> {
    let fields = fields.and_then(Json::as_array);
    let default = |field: &Json| {
        let name = field.get("field")?.as_str()?;
        Some((name.to_owned(), field.get("default")?.clone()))
    };
    fields.into_iter().flatten().filter_map(default).collect()
}
