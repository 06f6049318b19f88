//! Schemas of Avro: what a library has read of their text, with their names resolved, and
//! the values that fields have where rows have none.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::Arc;

use apache_avro::schema::{InnerDecimalSchema, UuidSchema};
pub use apache_avro::schema::{RecordSchema, Schema as AvroType};
use serde_json::Value as Json;

use crate::varint;

/// The defaults of a record's fields may be records with defaults.
const DEFAULT_DEPTH_MAX: usize = 64;

/// A schema with all the types that it names.
#[derive(Clone)]
pub struct AvroSchema(Arc<Parsed>);

struct Parsed {
    text: String,
    root: AvroType,
    /// Records, enums and fixed by their full names.
    named: HashMap<String, AvroType>,
}

/// Two schemas are equal if they were read of the same text.
impl PartialEq for AvroSchema {
    fn eq(&self, other: &Self) -> bool {
        self.0.text == other.0.text
    }
}

impl Eq for AvroSchema {}

impl fmt::Debug for AvroSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.text)
    }
}

impl AvroSchema {
    /// Reads a schema, with others that it names, in any order.
    pub fn parse(text: &str, references: &[&str]) -> Result<Self, String> {
        let references: BTreeSet<&str> = references.iter().copied().collect();
        let (root, others) = AvroType::parse_str_with_list(text, references)
            .map_err(|error| format!("it is no Avro schema: {error}"))?;
        let mut named = HashMap::new();
        for schema in others.iter().chain([&root]) {
            collect(schema, &mut named);
        }
        Ok(AvroSchema(Arc::new(Parsed {
            text: text.to_owned(),
            root,
            named,
        })))
    }

    /// Whether rows are the same bytes with another schema, and mean the same: what only
    /// readers heed, defaults and aliases, may differ.
    pub fn is_written_as(&self, other: &Self) -> bool {
        let shape = |schema: &Self| {
            let mut shape = String::new();
            schema.write_shape(&schema.0.root, &mut BTreeSet::new(), &mut shape);
            shape
        };
        shape(self) == shape(other)
    }

    /// Writes all of a type that its bytes depend on.
    fn write_shape(&self, schema: &AvroType, seen: &mut BTreeSet<String>, out: &mut String) {
        let schema = self.resolve(schema);
        if let Some(name) = schema.name() {
            let name = name.fullname(None);
            out.push_str(&name);
            if !seen.insert(name) {
                return;
            }
        }
        out.push('(');
        match schema {
            AvroType::Record(record) => {
                for field in &record.fields {
                    out.extend([&field.name, ":"]);
                    self.write_shape(&field.schema, seen, out);
                }
            }
            AvroType::Union(union) => {
                for variant in union.variants() {
                    self.write_shape(variant, seen, out);
                }
            }
            AvroType::Array(array) => {
                out.push_str("array");
                self.write_shape(&array.items, seen, out);
            }
            AvroType::Map(map) => {
                out.push_str("map");
                self.write_shape(&map.types, seen, out);
            }
            AvroType::Enum(it) => out.push_str(&it.symbols.join(",")),
            other => {
                out.push_str(&type_name(other));
                out.push_str(&format!("{:?}", byte_size(other)));
            }
        }
        out.push(')');
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.0.text
    }

    pub fn root(&self) -> &AvroType {
        self.resolve(&self.0.root)
    }

    /// The type itself where the schema only names it.
    pub fn resolve<'s>(&'s self, schema: &'s AvroType) -> &'s AvroType {
        match schema {
            AvroType::Ref { name } => match self.0.named.get(&name.fullname(None)) {
                Some(named) => named,
                None => schema,
            },
            schema => schema,
        }
    }

    /// Writes the default of a field of this type as Avro has it.
    pub fn write_default(
        &self,
        schema: &AvroType,
        value: &Json,
        out: &mut Vec<u8>,
    ) -> Result<(), String> {
        self.write_within(schema, value, 0, out)
    }

    fn write_within(
        &self,
        schema: &AvroType,
        value: &Json,
        depth: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), String> {
        if depth > DEFAULT_DEPTH_MAX {
            return Err(format!(
                "a default is nested more than {DEFAULT_DEPTH_MAX} deep"
            ));
        }
        let depth = depth + 1;
        let schema = self.resolve(schema);
        let mismatch = || format!("the default {value} is no {}", type_name(schema));
        match (schema, value) {
            (AvroType::Null, Json::Null) => {}
            (AvroType::Boolean, Json::Bool(value)) => out.push(u8::from(*value)),
            (AvroType::Float, Json::Number(number)) => {
                let value = number.as_f64().ok_or_else(mismatch)?;
                out.extend_from_slice(&(value as f32).to_le_bytes());
            }
            (AvroType::Double, Json::Number(number)) => {
                let value = number.as_f64().ok_or_else(mismatch)?;
                out.extend_from_slice(&value.to_le_bytes());
            }
            (AvroType::Enum(it), Json::String(symbol)) => {
                let index = it.symbols.iter().position(|known| known == symbol);
                write_long(out, index.ok_or_else(mismatch)? as i64);
            }
            (AvroType::String | AvroType::Uuid(UuidSchema::String), Json::String(text)) => {
                write_bytes(out, text.as_bytes());
            }
            // The first type of a union is that of its default.
            (AvroType::Union(union), value) => {
                let first = union.variants().first().ok_or_else(mismatch)?;
                write_long(out, 0);
                self.write_within(first, value, depth, out)?;
            }
            (AvroType::Array(array), Json::Array(items)) => {
                if !items.is_empty() {
                    write_long(out, items.len() as i64);
                }
                for item in items {
                    self.write_within(&array.items, item, depth, out)?;
                }
                write_long(out, 0);
            }
            (AvroType::Map(map), Json::Object(entries)) => {
                if !entries.is_empty() {
                    write_long(out, entries.len() as i64);
                }
                for (key, value) in entries {
                    write_bytes(out, key.as_bytes());
                    self.write_within(&map.types, value, depth, out)?;
                }
                write_long(out, 0);
            }
            (AvroType::Record(record), Json::Object(given)) => {
                for field in &record.fields {
                    let value = given.get(&field.name).or(field.default.as_ref());
                    let missing = || format!("a default lacks `{}`", field.name);
                    let value = value.ok_or_else(missing)?;
                    self.write_within(&field.schema, value, depth, out)?;
                }
            }
            (_, Json::Number(number)) if is_whole(schema) => {
                write_long(out, number.as_i64().ok_or_else(mismatch)?);
            }
            (_, Json::String(text)) => {
                let size = byte_size(schema).ok_or_else(mismatch)?;
                // Each character stands for a byte.
                let bytes = text.chars().map(|char| u8::try_from(u32::from(char)));
                let bytes: Vec<u8> = bytes.collect::<Result<_, _>>().map_err(|_| mismatch())?;
                match size {
                    ByteSize::Any => write_bytes(out, &bytes),
                    ByteSize::Fixed(size) if size == bytes.len() => out.extend_from_slice(&bytes),
                    ByteSize::Fixed(_) => return Err(mismatch()),
                }
            }
            _ => return Err(mismatch()),
        }
        Ok(())
    }
}

fn collect(schema: &AvroType, named: &mut HashMap<String, AvroType>) {
    if let Some(name) = schema.name()
        && !matches!(schema, AvroType::Ref { .. })
    {
        named.insert(name.fullname(None), schema.clone());
    }
    match schema {
        AvroType::Array(array) => collect(&array.items, named),
        AvroType::Map(map) => collect(&map.types, named),
        AvroType::Union(union) => union.variants().iter().for_each(|it| collect(it, named)),
        AvroType::Record(record) => {
            for field in &record.fields {
                collect(&field.schema, named);
            }
        }
        _ => {}
    }
}

/// How many bytes a value has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteSize {
    /// Each value says how many.
    Any,
    Fixed(usize),
}

/// The size of values that are bytes.
pub fn byte_size(schema: &AvroType) -> Option<ByteSize> {
    match schema {
        AvroType::Bytes | AvroType::BigDecimal | AvroType::Uuid(UuidSchema::Bytes) => {
            Some(ByteSize::Any)
        }
        AvroType::Fixed(fixed)
        | AvroType::Duration(fixed)
        | AvroType::Uuid(UuidSchema::Fixed(fixed)) => Some(ByteSize::Fixed(fixed.size)),
        AvroType::Decimal(decimal) => Some(match &decimal.inner {
            InnerDecimalSchema::Bytes => ByteSize::Any,
            InnerDecimalSchema::Fixed(fixed) => ByteSize::Fixed(fixed.size),
        }),
        _ => None,
    }
}

/// Whether values are written as an int or a long.
pub fn is_whole(schema: &AvroType) -> bool {
    matches!(
        schema,
        AvroType::Int
            | AvroType::Long
            | AvroType::Date
            | AvroType::TimeMillis
            | AvroType::TimeMicros
            | AvroType::TimestampMillis
            | AvroType::TimestampMicros
            | AvroType::TimestampNanos
            | AvroType::LocalTimestampMillis
            | AvroType::LocalTimestampMicros
            | AvroType::LocalTimestampNanos
    )
}

/// A type as schemas write it, for messages.
pub fn type_name(schema: &AvroType) -> String {
    let name = match schema {
        AvroType::Null => "null",
        AvroType::Boolean => "boolean",
        AvroType::Int => "int",
        AvroType::Long => "long",
        AvroType::Float => "float",
        AvroType::Double => "double",
        AvroType::Bytes => "bytes",
        AvroType::String => "string",
        AvroType::BigDecimal => "big-decimal",
        AvroType::Uuid(_) => "uuid",
        AvroType::Date => "date",
        AvroType::TimeMillis => "time-millis",
        AvroType::TimeMicros => "time-micros",
        AvroType::TimestampMillis => "timestamp-millis",
        AvroType::TimestampMicros => "timestamp-micros",
        AvroType::TimestampNanos => "timestamp-nanos",
        AvroType::LocalTimestampMillis => "local-timestamp-millis",
        AvroType::LocalTimestampMicros => "local-timestamp-micros",
        AvroType::LocalTimestampNanos => "local-timestamp-nanos",
        AvroType::Duration(_) => "duration",
        AvroType::Decimal(it) => return format!("decimal({},{})", it.precision, it.scale),
        AvroType::Array(array) => return format!("array<{}>", type_name(&array.items)),
        AvroType::Map(map) => return format!("map<{}>", type_name(&map.types)),
        AvroType::Union(union) => {
            let variants = union.variants().iter().map(type_name);
            return format!("[{}]", Vec::from_iter(variants).join(", "));
        }
        AvroType::Record(it) => return format!("the record {}", it.name.fullname(None)),
        AvroType::Enum(it) => return format!("the enum {}", it.name.fullname(None)),
        AvroType::Fixed(it) => return format!("fixed({})", it.size),
        AvroType::Ref { name } => return name.fullname(None),
    };
    name.to_owned()
}

/// Writes an int or a long.
pub fn write_long(out: &mut Vec<u8>, value: i64) {
    varint::write(out, varint::zigzag(value));
}

/// Writes a string, or bytes.
pub fn write_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    write_long(out, bytes.len() as i64);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str, references: &[&str]) -> AvroSchema {
        AvroSchema::parse(text, references).expect("a schema")
    }

    #[test]
    fn schemas_are_the_same_whose_bytes_mean_the_same() {
        let schema = r#"{"type":"record","name":"a.Tree","fields":[
            {"name":"at","type":{"type":"long","logicalType":"timestamp-millis"}},
            {"name":"kind","type":{"type":"enum","name":"Kind","symbols":["X","Y"]}},
            {"name":"other","type":["null","Kind"]},
            {"name":"price","type":{"type":"bytes","logicalType":"decimal","precision":9,"scale":2}},
            {"name":"children","type":{"type":"array","items":"Tree"}}]}"#;
        let tree = parsed(schema, &[]);
        let kind =
            r#"{"symbols":["X","Y"],"default":"Y","name":"Kind","namespace":"a","type":"enum"}"#;
        let again = schema.replace(
            r#"{"type":"enum","name":"Kind","symbols":["X","Y"]}"#,
            r#""a.Kind""#,
        );
        let again = again
            .replace(
                r#""name":"a.Tree""#,
                r#""doc":"it grows","namespace":"a","name":"Tree""#,
            )
            .replace(
                r#"["null","Kind"]"#,
                r#"["null","a.Kind"],"default":null,"aliases":["was"]"#,
            );
        assert!(parsed(&again, &[kind]).is_written_as(&tree));
        for (from, to) in [
            ("timestamp-millis", "timestamp-micros"),
            ("\"at\"", "\"when\""),
            ("a.Tree", "b.Tree"),
            ("[\"X\",\"Y\"]", "[\"Y\",\"X\"]"),
            ("[\"null\",\"Kind\"]", "[\"Kind\",\"null\"]"),
            ("\"scale\":2", "\"scale\":3"),
            (
                "\"type\":\"bytes\"",
                "\"size\":9,\"name\":\"nine\",\"type\":\"fixed\"",
            ),
            ("\"array\",\"items\"", "\"map\",\"values\""),
        ] {
            let other = schema.replace(from, to);
            assert_ne!(other, schema, "{from}");
            assert!(!parsed(&other, &[]).is_written_as(&tree), "{to}");
        }
    }
}
