//! Resolves the schema that rows are written with against the columns that they are read
//! into, and against the schema that they are read as, if there is one.

use std::collections::HashMap;
use std::sync::Arc;

use apache_avro::schema::{SchemaKind, UuidSchema};

use crate::avro::{AvroSchema, AvroType, ByteSize, RecordSchema, byte_size, type_name};
use crate::decimal::PRECISION_MAX;
use crate::decode::fault::RowFault;
use crate::decode::push::symbol_of;
use crate::schema::{DataType, Field};
use crate::timestamp::TimeUnit;

/// How a row's values become those of the columns.
#[derive(Debug)]
pub(in crate::decode) struct Program {
    pub top: Top,
    /// How the fields of records are skipped, which may contain themselves.
    pub skipped: Vec<Vec<Skip>>,
}

/// What a row is.
#[derive(Debug)]
pub(super) enum Top {
    Record(ReadRecord),
    /// One value, that of the only column.
    Value(Read),
    /// One of several types; of some, no columns can be made.
    Union(Vec<Result<Top, String>>),
}

/// How a value becomes one of a column.
#[derive(Debug)]
pub(super) enum Read {
    /// It has no bytes, and the column no value.
    Null,
    Bool,
    Int,
    Long,
    Float,
    Double,
    /// Days since 1970.
    Date,
    Time(TimeUnit),
    Text,
    Bytes,
    Fixed(usize),
    /// A UUID of 16 bytes as text.
    Uuid(ByteSize),
    Decimal {
        size: ByteSize,
        scale: u8,
    },
    /// The text of each symbol, or why it is none of the column.
    Enum(Vec<Result<Arc<str>, String>>),
    List(Box<Read>),
    /// As a list of records of a key and a value.
    Entries(Box<Read>),
    /// As a record, whose fields are some of the keys.
    Keys {
        /// How the value of each field is read.
        fields: Vec<Read>,
        other: Skip,
    },
    Record(ReadRecord),
    /// A null is the first of two types, or else the second.
    Optional {
        null: u64,
        read: Box<Read>,
    },
    /// Of some of the types, no value of the column can be made.
    Union(Vec<Result<Read, String>>),
}

#[derive(Debug)]
pub(super) struct ReadRecord {
    /// In the order in which the values are written.
    pub steps: Vec<Step>,
    /// Fields that are not written.
    pub absent: Vec<(usize, Absent)>,
}

#[derive(Debug)]
pub(super) enum Step {
    Read(usize, Read),
    Skip(Skip),
}

/// What a field has that is not written.
#[derive(Debug)]
pub(super) enum Absent {
    Null,
    /// The default, as Avro writes it.
    Default {
        bytes: Vec<u8>,
        read: Read,
        skipped: Vec<Vec<Skip>>,
    },
}

/// How a value is skipped.
#[derive(Debug)]
pub(super) enum Skip {
    Fixed(usize),
    Varint,
    Bytes,
    List(Box<Skip>),
    Map(Box<Skip>),
    Union(Vec<Skip>),
    /// A record, by its number among those of the program.
    Record(usize),
}

/// Refuses columns that no record of a schema has a field for. They would be null in every row,
/// which nobody means who has the schema at hand.
pub(in crate::decode) fn check_names(
    schema: &AvroSchema,
    columns: &[Field],
) -> Result<(), RowFault> {
    check_names_of(schema, &[schema.root()], columns)
}

/// The same of values that have one of these types.
fn check_names_of(
    schema: &AvroSchema,
    types: &[&AvroType],
    columns: &[Field],
) -> Result<(), RowFault> {
    let types = types.iter().flat_map(|it| variants(schema, it));
    let records = types.filter_map(|one| match one {
        AvroType::Record(record) => Some(record),
        _ => None,
    });
    let records: Vec<&RecordSchema> = records.collect();
    if records.is_empty() {
        return Ok(());
    }
    let fields = || records.iter().flat_map(|record| &record.fields);
    for column in columns {
        let written = fields().filter(|it| it.name == column.name);
        let written: Vec<&AvroType> = written.map(|it| &it.schema).collect();
        if written.is_empty() {
            let names = fields().map(|it| it.name.as_str());
            return Err(RowFault::not_in_schema(&column.name, names));
        }
        let checked = match &column.data_type {
            DataType::Record(within) => check_names_of(schema, &written, within),
            DataType::List(element) if let DataType::Record(within) = &element.data_type => {
                let written = written.iter().flat_map(|it| variants(schema, it));
                let items = written.filter_map(|one| match one {
                    AvroType::Array(array) => Some(&*array.items),
                    _ => None,
                });
                check_names_of(schema, &items.collect::<Vec<_>>(), within)
            }
            _ => Ok(()),
        };
        checked.map_err(|fault| fault.within(&column.name))?;
    }
    Ok(())
}

/// The types that values of a type have.
fn variants<'s>(schema: &'s AvroSchema, it: &'s AvroType) -> Vec<&'s AvroType> {
    match schema.resolve(it) {
        AvroType::Union(union) => {
            let variants = union.variants().iter();
            variants.map(|variant| schema.resolve(variant)).collect()
        }
        one => vec![one],
    }
}

/// Resolves one schema.
struct Resolver<'s> {
    written: &'s AvroSchema,
    /// What rows are read as.
    own: Option<&'s AvroSchema>,
    /// The numbers of records that are skipped.
    numbers: HashMap<String, usize>,
    records: Vec<&'s RecordSchema>,
}

impl Program {
    /// The fault says why no columns can be made of any row.
    pub fn new(
        written: &AvroSchema,
        own: Option<&AvroSchema>,
        fields: &[Field],
    ) -> Result<Self, RowFault> {
        let mut resolver = Resolver::new(written, own);
        let top = resolver.top(written.root(), own.map(AvroSchema::root), fields)?;
        Ok(Program {
            top,
            skipped: resolver.skipped(),
        })
    }
}

impl<'s> Resolver<'s> {
    fn new(written: &'s AvroSchema, own: Option<&'s AvroSchema>) -> Self {
        Resolver {
            written,
            own,
            numbers: HashMap::new(),
            records: Vec::new(),
        }
    }

    /// How all records are skipped that have a number.
    fn skipped(mut self) -> Vec<Vec<Skip>> {
        let mut skipped = Vec::new();
        // Skipping one may give others a number.
        while let Some(&record) = self.records.get(skipped.len()) {
            let fields = record.fields.iter();
            skipped.push(fields.map(|field| self.skip(&field.schema)).collect());
        }
        skipped
    }

    fn top(
        &mut self,
        written: &'s AvroType,
        own: Option<&'s AvroType>,
        fields: &[Field],
    ) -> Result<Top, RowFault> {
        let written = self.written.resolve(written);
        match (written, fields) {
            (AvroType::Record(record), _) => {
                let own = self.own_record(own, written);
                Ok(Top::Record(self.record(record, own, fields)?))
            }
            (AvroType::Union(union), _) => {
                let variants = union.variants().iter();
                let tops = variants.map(|variant| self.top(variant, own, fields));
                Ok(Top::Union(some_of(tops.collect())?))
            }
            (_, [field]) => match self.value(written, own, field) {
                Ok(read) => Ok(Top::Value(read)),
                Err(fault) => Err(fault.within(&field.name)),
            },
            _ => Err(RowFault::new(format!(
                "the schema is {} and no record: it is read into one field",
                type_name(written)
            ))),
        }
    }

    fn record(
        &mut self,
        written: &'s RecordSchema,
        own: Option<&'s RecordSchema>,
        fields: &[Field],
    ) -> Result<ReadRecord, RowFault> {
        let names = written.fields.iter().enumerate();
        let names: HashMap<&str, usize> =
            names.map(|(at, field)| (field.name.as_str(), at)).collect();
        let own_fields = own.into_iter().flat_map(|own| &own.fields);
        let own_fields: HashMap<&str, _> = own_fields
            .map(|field| (field.name.as_str(), field))
            .collect();
        let mut columns: Vec<Option<usize>> = vec![None; written.fields.len()];
        let mut unnamed = Vec::new();
        for (column, field) in fields.iter().enumerate() {
            match names.get(field.name.as_str()) {
                Some(&at) => columns[at] = Some(column),
                None => unnamed.push(column),
            }
        }
        let mut absent = Vec::new();
        for column in unnamed {
            let field = &fields[column];
            let own_field = own_fields.get(field.name.as_str()).copied();
            let mut aliases = own_field.into_iter().flat_map(|own| &own.aliases);
            let known = aliases.find_map(|alias| {
                let at = *names.get(alias.as_str())?;
                columns[at].is_none().then_some(at)
            });
            match (
                known,
                own_field.and_then(|own| own.default.as_ref().zip(Some(&own.schema))),
            ) {
                (Some(at), _) => columns[at] = Some(column),
                (None, Some((default, schema))) => {
                    let default = self.default(schema, default, field);
                    absent.push((column, default.map_err(|fault| fault.within(&field.name))?));
                }
                (None, None) if field.nullable => absent.push((column, Absent::Null)),
                (None, None) => {
                    let names = written.fields.iter().map(|it| it.name.as_str());
                    return Err(RowFault::not_in_schema(&field.name, names));
                }
            }
        }
        let steps = columns.into_iter().zip(&written.fields);
        let steps = steps.map(|(column, written)| {
            let Some(column) = column else {
                return Ok(Step::Skip(self.skip(&written.schema)));
            };
            let field = &fields[column];
            let own = own_fields.get(field.name.as_str()).map(|own| &own.schema);
            let read = self.value(&written.schema, own, field);
            let read = read.map_err(|fault| fault.within(&field.name))?;
            Ok(Step::Read(column, read))
        });
        Ok(ReadRecord {
            steps: steps.collect::<Result<_, RowFault>>()?,
            absent,
        })
    }

    fn default(
        &self,
        schema: &'s AvroType,
        default: &serde_json::Value,
        field: &Field,
    ) -> Result<Absent, RowFault> {
        let Some(own) = self.own else {
            unreachable!("it is a field of the own schema");
        };
        let mut bytes = Vec::new();
        own.write_default(schema, default, &mut bytes)
            .map_err(RowFault::new)?;
        let mut resolver = Resolver::new(own, None);
        Ok(Absent::Default {
            bytes,
            read: resolver.value(schema, None, field)?,
            skipped: resolver.skipped(),
        })
    }

    fn value(
        &mut self,
        written: &'s AvroType,
        own: Option<&'s AvroType>,
        field: &Field,
    ) -> Result<Read, RowFault> {
        use AvroType as A;
        use DataType as D;
        let written = self.written.resolve(written);
        if let A::Union(union) = written {
            let variants = union.variants().iter();
            let reads = variants.map(|variant| self.value(variant, own, field));
            return self::union(union.variants(), reads.collect(), field);
        }
        let wanted = &field.data_type;
        let is_number = wanted.is_number();
        let is_integer = is_number && !matches!(wanted, D::Float32 | D::Float64);
        Ok(match (written, wanted) {
            (A::Null, _) if field.nullable => Read::Null,
            (A::Boolean, D::Bool) => Read::Bool,
            (A::Int, D::Timestamp) => Read::Int,
            (A::Int, _) if is_number => Read::Int,
            (A::Long, D::Timestamp) => Read::Long,
            (A::Long, _) if is_number => Read::Long,
            (A::Float, D::Float32 | D::Float64) => Read::Float,
            (A::Double, D::Float64) => Read::Double,
            (A::Date, D::Timestamp) => Read::Date,
            (A::TimestampMillis | A::LocalTimestampMillis, D::Timestamp) => {
                Read::Time(TimeUnit::Milliseconds)
            }
            (A::TimestampMicros | A::LocalTimestampMicros, D::Timestamp) => {
                Read::Time(TimeUnit::Microseconds)
            }
            (A::TimestampNanos | A::LocalTimestampNanos, D::Timestamp) => {
                Read::Time(TimeUnit::Nanoseconds)
            }
            (A::Date | A::TimeMillis, _) if is_integer => Read::Int,
            (
                A::TimeMicros
                | A::TimestampMillis
                | A::TimestampMicros
                | A::TimestampNanos
                | A::LocalTimestampMillis
                | A::LocalTimestampMicros
                | A::LocalTimestampNanos,
                _,
            ) if is_integer => Read::Long,
            (
                A::String | A::Uuid(UuidSchema::String),
                D::Utf8 | D::Symbol(_) | D::Timestamp | D::Decimal { .. },
            )
            | (A::Bytes, D::Utf8 | D::Symbol(_)) => Read::Text,
            (A::String | A::Uuid(UuidSchema::String), D::Bytes) => Read::Bytes,
            (A::Uuid(UuidSchema::Bytes | UuidSchema::Fixed(_)), D::Utf8)
                if let Some(size) = byte_size(written) =>
            {
                Read::Uuid(size)
            }
            (A::Decimal(it), _) if is_number => {
                match (u8::try_from(it.scale), byte_size(written)) {
                    (Ok(scale), Some(size)) if scale <= PRECISION_MAX => {
                        Read::Decimal { size, scale }
                    }
                    _ => return Err(mismatch(written, wanted)),
                }
            }
            (A::Decimal(_), _) => return Err(mismatch(written, wanted)),
            (_, D::Bytes) if let Some(size) = byte_size(written) => match size {
                ByteSize::Any => Read::Bytes,
                ByteSize::Fixed(size) => Read::Fixed(size),
            },
            (A::Enum(it), D::Utf8 | D::Symbol(_)) => {
                let default = match self.own_like(own, written) {
                    Some(A::Enum(own)) => own.default.as_deref(),
                    _ => None,
                };
                let symbols = it.symbols.iter();
                Read::Enum(symbols.map(|it| symbol_of(it, default, wanted)).collect())
            }
            (A::Array(array), D::List(element)) => {
                let own = match self.own_like(own, written) {
                    Some(A::Array(own)) => Some(&*own.items),
                    _ => None,
                };
                let read = self.value(&array.items, own, element);
                Read::List(Box::new(read.map_err(|fault| fault.within("[]"))?))
            }
            (A::Map(map), _) => {
                let own = match self.own_like(own, written) {
                    Some(A::Map(own)) => Some(&*own.types),
                    _ => None,
                };
                match wanted {
                    D::List(element) if let Some(value) = entry_value(element) => {
                        let read = self.value(&map.types, own, value);
                        Read::Entries(Box::new(read.map_err(|fault| fault.within("value"))?))
                    }
                    D::Record(fields) => {
                        let fields = fields.iter().map(|field| {
                            let read = self.value(&map.types, own, field);
                            read.map_err(|fault| fault.within(&field.name))
                        });
                        Read::Keys {
                            fields: fields.collect::<Result<_, _>>()?,
                            other: self.skip(&map.types),
                        }
                    }
                    _ => return Err(mismatch(written, wanted)),
                }
            }
            (A::Record(record), D::Record(fields)) => {
                let own = self.own_record(own, written);
                Read::Record(self.record(record, own, fields)?)
            }
            _ => return Err(mismatch(written, wanted)),
        })
    }

    /// The type of this kind that a value is read as.
    fn own_like(&self, own: Option<&'s AvroType>, written: &AvroType) -> Option<&'s AvroType> {
        let own_schema = self.own?;
        let is_like = |own: &&AvroType| SchemaKind::from(*own) == SchemaKind::from(written);
        match own_schema.resolve(own?) {
            AvroType::Union(union) => {
                let mut variants = union.variants().iter().map(|it| own_schema.resolve(it));
                variants.find(is_like)
            }
            own => Some(own).filter(is_like),
        }
    }

    fn own_record(
        &self,
        own: Option<&'s AvroType>,
        written: &AvroType,
    ) -> Option<&'s RecordSchema> {
        match self.own_like(own, written)? {
            AvroType::Record(own) => Some(own),
            _ => None,
        }
    }

    fn skip(&mut self, written: &'s AvroType) -> Skip {
        use AvroType as A;
        let written = self.written.resolve(written);
        match written {
            A::Null => Skip::Fixed(0),
            A::Boolean => Skip::Fixed(1),
            A::Float => Skip::Fixed(4),
            A::Double => Skip::Fixed(8),
            A::Array(array) => Skip::List(Box::new(self.skip(&array.items))),
            A::Map(map) => Skip::Map(Box::new(self.skip(&map.types))),
            A::Union(union) => {
                let variants = union.variants().iter();
                Skip::Union(variants.map(|variant| self.skip(variant)).collect())
            }
            A::Record(record) => {
                let next = self.records.len();
                let number = *self
                    .numbers
                    .entry(record.name.fullname(None))
                    .or_insert(next);
                if number == next {
                    self.records.push(record);
                }
                Skip::Record(number)
            }
            other => match byte_size(other) {
                Some(ByteSize::Fixed(size)) => Skip::Fixed(size),
                Some(ByteSize::Any) => Skip::Bytes,
                None if matches!(other, A::String | A::Uuid(_)) => Skip::Bytes,
                None => Skip::Varint,
            },
        }
    }
}

/// How each type of a union is read; the fault is that of the first, where none is.
fn some_of<T>(tried: Vec<Result<T, RowFault>>) -> Result<Vec<Result<T, String>>, RowFault> {
    if tried.iter().any(Result::is_ok) {
        let tried = tried.into_iter();
        return Ok(tried
            .map(|it| it.map_err(|fault| fault.to_string()))
            .collect());
    }
    let first = tried.into_iter().find_map(Result::err);
    Err(first.unwrap_or_else(|| RowFault::new("is a union of no types in the schema")))
}

/// A union into whose column more goes than null.
fn union(
    variants: &[AvroType],
    mut reads: Vec<Result<Read, RowFault>>,
    field: &Field,
) -> Result<Read, RowFault> {
    let nulls = variants.iter().position(|it| matches!(it, AvroType::Null));
    let others = (0..reads.len()).filter(|at| Some(*at) != nulls);
    let others: Vec<usize> = others.collect();
    if let [other] = others[..]
        && let Some(null) = nulls.filter(|_| field.nullable)
    {
        return Ok(Read::Optional {
            null: null as u64,
            read: Box::new(reads.swap_remove(other)?),
        });
    }
    let is_read = |at: &usize| reads[*at].is_ok();
    if let Some(first) = others.first()
        && !others.iter().any(is_read)
    {
        return Err(match reads.swap_remove(*first) {
            Err(fault) => fault,
            Ok(_) => unreachable!("none is read"),
        });
    }
    Ok(Read::Union(some_of(reads)?))
}

/// The value's field of a list that a map is read into.
fn entry_value(element: &Field) -> Option<&Field> {
    match &element.data_type {
        DataType::Record(fields) => match &**fields {
            [key, value]
                if key.name == "key"
                    && key.data_type == DataType::Utf8
                    && value.name == "value" =>
            {
                Some(value)
            }
            _ => None,
        },
        _ => None,
    }
}

#[cold]
fn mismatch(written: &AvroType, wanted: &DataType) -> RowFault {
    match written {
        AvroType::Null => RowFault::new(format!("expected {wanted}, found null")),
        written => RowFault::new(format!(
            "is {wanted} in `fields`, and {} in the schema",
            type_name(written)
        )),
    }
}
