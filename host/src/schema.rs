//! Types and names of columns, and which types are compatible.
//!
//! These are the types that plugins can have, a part of Arrow's;
//! [`Schema::to_arrow`] makes Arrow's types of them.

use std::fmt;
use std::sync::Arc;

use arrow_array::{ArrayRef, new_empty_array};
use arrow_schema::{DataType as ArrowType, Field as ArrowField, Fields, TimeUnit};

/// The type of a column.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum DataType {
    Bool,
    Int8,
    Int16,
    Int32,
    Int64,
    UInt8,
    UInt16,
    UInt32,
    UInt64,
    Float32,
    Float64,
    Utf8,
    Bytes,
    /// A number with at most `precision` digits, of which `scale` are behind the point:
    /// see [`decimal`](crate::decimal).
    Decimal {
        precision: u8,
        scale: u8,
    },
    /// Milliseconds since 1970-01-01T00:00:00Z.
    Timestamp,
    /// A text that must be one of these values.
    Symbol(Arc<[String]>),
    List(Arc<Field>),
    Record(Arc<[Field]>),
}

/// A named column. `doc` is for people and plays no part in equality of types.
#[derive(Clone, Debug)]
pub struct Field {
    pub name: String,
    pub data_type: DataType,
    pub nullable: bool,
    pub doc: String,
}

/// The columns of a batch, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schema {
    pub fields: Vec<Field>,
}

impl PartialEq for Field {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
            && self.data_type == other.data_type
            && self.nullable == other.nullable
    }
}

impl Eq for Field {}

impl std::hash::Hash for Field {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        (&self.name, &self.data_type, self.nullable).hash(state);
    }
}

impl Field {
    pub fn new(name: impl Into<String>, data_type: DataType, nullable: bool) -> Self {
        Field {
            name: name.into(),
            data_type,
            nullable,
            doc: String::new(),
        }
    }

    pub fn to_arrow(&self) -> ArrowField {
        ArrowField::new(&self.name, self.data_type.to_arrow(), self.nullable)
    }

    /// Whether a reader of `self` can read `given`: the type is compatible, and
    /// `given` is nullable only if `self` is.
    pub fn reads(&self, given: &Field) -> bool {
        (self.nullable || !given.nullable) && self.data_type.reads(&given.data_type)
    }

    /// How many timestamps there are in it, depth first.
    pub fn timestamps(&self) -> usize {
        match &self.data_type {
            DataType::Timestamp => 1,
            DataType::List(element) => element.timestamps(),
            DataType::Record(members) => members.iter().map(Field::timestamps).sum(),
            _ => 0,
        }
    }
}

impl DataType {
    pub fn is_number(&self) -> bool {
        use DataType::{
            Decimal, Float32, Float64, Int8, Int16, Int32, Int64, UInt8, UInt16, UInt32, UInt64,
        };
        matches!(
            self,
            Int8 | Int16
                | Int32
                | Int64
                | UInt8
                | UInt16
                | UInt32
                | UInt64
                | Float32
                | Float64
                | Decimal { .. }
        )
    }

    pub fn to_arrow(&self) -> ArrowType {
        match self {
            DataType::Bool => ArrowType::Boolean,
            DataType::Int8 => ArrowType::Int8,
            DataType::Int16 => ArrowType::Int16,
            DataType::Int32 => ArrowType::Int32,
            DataType::Int64 => ArrowType::Int64,
            DataType::UInt8 => ArrowType::UInt8,
            DataType::UInt16 => ArrowType::UInt16,
            DataType::UInt32 => ArrowType::UInt32,
            DataType::UInt64 => ArrowType::UInt64,
            DataType::Float32 => ArrowType::Float32,
            DataType::Float64 => ArrowType::Float64,
            DataType::Utf8 | DataType::Symbol(_) => ArrowType::Utf8,
            DataType::Bytes => ArrowType::Binary,
            DataType::Decimal { precision, scale } => {
                ArrowType::Decimal128(*precision, *scale as i8)
            }
            DataType::Timestamp => ArrowType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())),
            DataType::List(element) => ArrowType::List(Arc::new(element.to_arrow())),
            DataType::Record(fields) => {
                ArrowType::Struct(fields.iter().map(Field::to_arrow).collect())
            }
        }
    }

    /// As [`Field::reads`]. Symbols and utf8 read each other: a text that is not one
    /// of the symbols makes a bad row, not a wrong pipeline. A decimal reads those with as
    /// many digits behind the point, and not more before it.
    pub fn reads(&self, given: &DataType) -> bool {
        use DataType::{Decimal, List, Record, Symbol, Utf8};
        match (self, given) {
            (Utf8 | Symbol(_), Utf8 | Symbol(_)) => true,
            (
                Decimal { precision, scale },
                Decimal {
                    precision: given,
                    scale: given_scale,
                },
            ) => scale == given_scale && precision >= given,
            (List(wanted), List(given)) => wanted.reads(given),
            (Record(wanted), Record(given)) => {
                wanted.len() == given.len()
                    && wanted
                        .iter()
                        .zip(given.iter())
                        .all(|(w, g)| w.name == g.name && w.reads(g))
            }
            (wanted, given) => wanted == given,
        }
    }
}

impl Schema {
    pub fn new(fields: Vec<Field>) -> Self {
        Schema { fields }
    }

    pub fn index_of(&self, name: &str) -> Option<usize> {
        self.fields.iter().position(|field| field.name == name)
    }

    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
    }

    /// Columns without rows.
    pub fn no_rows(&self) -> Vec<ArrayRef> {
        let fields = self.fields.iter();
        fields
            .map(|field| new_empty_array(&field.data_type.to_arrow()))
            .collect()
    }

    pub fn to_arrow(&self) -> arrow_schema::Schema {
        let fields: Fields = self.fields.iter().map(Field::to_arrow).collect();
        arrow_schema::Schema::new(fields)
    }
}

/// As in a pipeline file: `utf8`, `list<int64>`, `{sku: utf8, n: int64?}`;
/// symbols as `add|remove|view`.
impl fmt::Display for DataType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DataType::Bool => f.write_str("bool"),
            DataType::Int8 => f.write_str("int8"),
            DataType::Int16 => f.write_str("int16"),
            DataType::Int32 => f.write_str("int32"),
            DataType::Int64 => f.write_str("int64"),
            DataType::UInt8 => f.write_str("uint8"),
            DataType::UInt16 => f.write_str("uint16"),
            DataType::UInt32 => f.write_str("uint32"),
            DataType::UInt64 => f.write_str("uint64"),
            DataType::Float32 => f.write_str("float32"),
            DataType::Float64 => f.write_str("float64"),
            DataType::Utf8 => f.write_str("utf8"),
            DataType::Bytes => f.write_str("bytes"),
            DataType::Decimal { precision, scale } => write!(f, "decimal({precision},{scale})"),
            DataType::Timestamp => f.write_str("timestamp"),
            DataType::Symbol(values) => f.write_str(&values.join("|")),
            DataType::List(element) => {
                let mark = if element.nullable { "?" } else { "" };
                write!(f, "list<{}{mark}>", element.data_type)
            }
            DataType::Record(fields) => {
                f.write_str("{")?;
                for (i, field) in fields.iter().enumerate() {
                    let comma = if i == 0 { "" } else { ", " };
                    write!(f, "{comma}{field}")?;
                }
                f.write_str("}")
            }
        }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.nullable { "?" } else { "" };
        write!(f, "{}: {}{mark}", self.name, self.data_type)
    }
}

impl fmt::Display for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, field) in self.fields.iter().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            write!(f, "{comma}{field}")?;
        }
        Ok(())
    }
}
