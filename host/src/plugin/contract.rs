//! The WIT contract (`sdk/wit/plugin.wit`) as Rust types: types of a plugin's
//! input borrow, types of its answers own.
//!
//! Names and order follow the WIT file. A difference is noticed when a plugin
//! is loaded, since the type of each function is checked.

use wasmtime::component::{ComponentType, Lift, Lower};

/// The interface that every plugin exports.
pub const OPERATORS: &str = "sluicebox:plugin/operators@0.2.0";
/// The interface that a plugin with filters or transforms exports.
pub const TRANSFORM: &str = "sluicebox:plugin/transform@0.2.0";
/// The interface that a plugin with aggregates exports.
pub const AGGREGATE: &str = "sluicebox:plugin/aggregate@0.2.0";
/// The interface that a plugin with processes exports.
pub const PROCESS: &str = "sluicebox:plugin/process@0.2.0";
/// The interface that the host provides, besides parts of WASI.
pub const LOGGING: &str = "sluicebox:plugin/logging@0.2.0";

// Input columns.

#[derive(Clone, Debug, ComponentType, Lower)]
#[component(record)]
pub struct BatchRef<'a> {
    pub rows: u32,
    pub columns: Vec<ColumnRef<'a>>,
}

#[derive(Clone, Debug, ComponentType, Lower)]
#[component(record)]
pub struct ColumnRef<'a> {
    pub validity: Option<&'a [u8]>,
    pub values: ValuesRef<'a>,
}

#[derive(Clone, Debug, ComponentType, Lower)]
#[component(record)]
pub struct PackedRef<'a> {
    pub ends: &'a [u32],
    pub data: &'a [u8],
}

#[derive(Clone, Debug, ComponentType, Lower)]
#[component(variant)]
pub enum ValuesRef<'a> {
    #[component(name = "none")]
    None,
    #[component(name = "bits")]
    Bits(&'a [u8]),
    #[component(name = "int8")]
    Int8(&'a [i8]),
    #[component(name = "int16")]
    Int16(&'a [i16]),
    #[component(name = "int32")]
    Int32(&'a [i32]),
    #[component(name = "int64")]
    Int64(&'a [i64]),
    #[component(name = "uint8")]
    UInt8(&'a [u8]),
    #[component(name = "uint16")]
    UInt16(&'a [u16]),
    #[component(name = "uint32")]
    UInt32(&'a [u32]),
    #[component(name = "uint64")]
    UInt64(&'a [u64]),
    #[component(name = "float32")]
    Float32(&'a [f32]),
    #[component(name = "float64")]
    Float64(&'a [f64]),
    #[component(name = "packed")]
    Packed(PackedRef<'a>),
    #[component(name = "ends")]
    Ends(&'a [u32]),
    #[component(name = "input")]
    #[expect(dead_code, reason = "a case of the contract that only answers have")]
    Input(u32),
}

#[derive(Clone, Debug, ComponentType, Lower)]
#[component(record)]
pub struct GroupedRef<'a> {
    pub columns: BatchRef<'a>,
    pub groups: &'a [u32],
    #[component(name = "taken-back")]
    pub taken_back: &'a [u32],
}

#[derive(Clone, Debug, ComponentType, Lower)]
#[component(record)]
pub struct StatesRef<'a> {
    pub columns: BatchRef<'a>,
    pub groups: u32,
}

#[derive(Clone, Debug, ComponentType, Lower)]
#[component(record)]
pub struct WindowsRef<'a> {
    pub starts: &'a [i64],
    pub ends: &'a [i64],
}

#[derive(Clone, Debug, ComponentType, Lower)]
#[component(record)]
pub struct TimersRef<'a> {
    pub groups: &'a [u32],
    pub times: &'a [i64],
    pub names: PackedRef<'a>,
}

#[derive(Clone, Debug, ComponentType, Lower)]
#[component(record)]
pub struct KeyedRef<'a> {
    pub groups: u32,
    pub keys: BatchRef<'a>,
    pub states: BatchRef<'a>,
    #[component(name = "event-timers")]
    pub event_timers: TimersRef<'a>,
    #[component(name = "processing-timers")]
    pub processing_timers: TimersRef<'a>,
}

#[derive(Clone, Debug, ComponentType, Lower)]
#[component(record)]
pub struct StepsRef<'a> {
    pub inputs: &'a [u8],
    pub groups: &'a [u32],
    pub times: &'a [i64],
    pub watermarks: &'a [i64],
    pub now: i64,
}

#[derive(Clone, Debug, ComponentType, Lower)]
#[component(record)]
pub struct ArgumentRef<'a> {
    pub name: &'a str,
    pub value: ValueRef<'a>,
}

#[derive(Clone, Debug, ComponentType, Lower)]
#[component(variant)]
pub enum ValueRef<'a> {
    #[component(name = "boolean")]
    Boolean(bool),
    #[component(name = "integer")]
    Integer(i64),
    #[component(name = "number")]
    Number(f64),
    #[component(name = "text")]
    Text(&'a str),
    #[component(name = "texts")]
    Texts(&'a [String]),
}

// Answered columns.

#[derive(Clone, Debug, ComponentType, Lift)]
#[component(record)]
pub struct Batch {
    pub rows: u32,
    pub columns: Vec<Column>,
}

#[derive(Clone, Debug, ComponentType, Lift)]
#[component(record)]
pub struct Column {
    pub validity: Option<Vec<u8>>,
    pub values: Values,
}

#[derive(Clone, Debug, ComponentType, Lift)]
#[component(record)]
pub struct Packed {
    pub ends: Vec<u32>,
    pub data: Vec<u8>,
}

#[derive(Clone, Debug, ComponentType, Lift)]
#[component(variant)]
pub enum Values {
    #[component(name = "none")]
    None,
    #[component(name = "bits")]
    Bits(Vec<u8>),
    #[component(name = "int8")]
    Int8(Vec<i8>),
    #[component(name = "int16")]
    Int16(Vec<i16>),
    #[component(name = "int32")]
    Int32(Vec<i32>),
    #[component(name = "int64")]
    Int64(Vec<i64>),
    #[component(name = "uint8")]
    UInt8(Vec<u8>),
    #[component(name = "uint16")]
    UInt16(Vec<u16>),
    #[component(name = "uint32")]
    UInt32(Vec<u32>),
    #[component(name = "uint64")]
    UInt64(Vec<u64>),
    #[component(name = "float32")]
    Float32(Vec<f32>),
    #[component(name = "float64")]
    Float64(Vec<f64>),
    #[component(name = "packed")]
    Packed(Packed),
    #[component(name = "ends")]
    Ends(Vec<u32>),
    #[component(name = "input")]
    Input(u32),
}

#[derive(Clone, Debug, ComponentType, Lift)]
#[component(record)]
pub struct Reject {
    pub row: u32,
    pub reason: String,
}

#[derive(Clone, Debug, ComponentType, Lift)]
#[component(record)]
pub struct Rows {
    pub parents: Vec<u32>,
    pub columns: Batch,
}

#[derive(Clone, Debug, ComponentType, Lift)]
#[component(variant)]
pub enum Output {
    #[component(name = "selection")]
    Selection(Vec<u32>),
    #[component(name = "rows")]
    Rows(Rows),
}

#[derive(Clone, Debug, ComponentType, Lift)]
#[component(record)]
pub struct Transformed {
    pub output: Output,
    pub rejects: Vec<Reject>,
}

#[derive(Clone, Debug, ComponentType, Lift)]
#[component(record)]
pub struct Accumulated {
    pub states: Batch,
    pub rejects: Vec<Reject>,
}

#[derive(Clone, Debug, ComponentType, Lift)]
#[component(record)]
pub struct AccumulatedEach {
    pub states: Batch,
    pub results: Rows,
    pub rejects: Vec<Reject>,
}

#[derive(Clone, Debug, ComponentType, Lift)]
#[component(record)]
pub struct Timers {
    pub groups: Vec<u32>,
    pub times: Vec<i64>,
    pub names: Packed,
}

#[derive(Clone, Debug, ComponentType, Lift)]
#[component(record)]
pub struct TimedRows {
    pub rows: Rows,
    pub times: Vec<i64>,
}

#[derive(Clone, Debug, ComponentType, Lift)]
#[component(record)]
pub struct RejectedTimer {
    pub step: u32,
    pub name: String,
    pub time: i64,
    pub reason: String,
}

#[derive(Clone, Debug, ComponentType, Lift)]
#[component(record)]
pub struct Processed {
    pub groups: Vec<u32>,
    pub states: Batch,
    #[component(name = "event-timers")]
    pub event_timers: Timers,
    #[component(name = "processing-timers")]
    pub processing_timers: Timers,
    pub outputs: Vec<TimedRows>,
    pub rejects: Vec<Reject>,
    #[component(name = "rejected-timers")]
    pub rejected_timers: Vec<RejectedTimer>,
}

// A plugin's description.

#[derive(Clone, Debug, ComponentType, Lift)]
#[component(record)]
pub struct Plugin {
    pub name: String,
    pub version: String,
    pub doc: String,
    pub operators: Vec<Operator>,
}

#[derive(Clone, Debug, ComponentType, Lift)]
#[component(record)]
pub struct Operator {
    pub name: String,
    pub doc: String,
    pub kind: Kind,
    pub inputs: Vec<Port>,
    pub outputs: Vec<Port>,
    pub key: Vec<Field>,
    pub state: Vec<Field>,
    pub retracts: bool,
    pub parameters: Vec<Parameter>,
}

#[derive(Clone, Copy, Debug, ComponentType, Lift)]
#[component(enum)]
#[repr(u8)]
#[expect(dead_code, reason = "lifted by their number, never written here")]
pub enum Kind {
    #[component(name = "filter")]
    Filter,
    #[component(name = "transform")]
    Transform,
    #[component(name = "aggregate")]
    Aggregate,
    #[component(name = "process")]
    Process,
    #[component(name = "join")]
    Join,
    #[component(name = "recommend")]
    Recommend,
}

#[derive(Clone, Debug, ComponentType, Lift)]
#[component(record)]
pub struct Port {
    pub name: String,
    pub schema: Vec<Field>,
}

#[derive(Clone, Debug, ComponentType, Lift)]
#[component(record)]
pub struct Field {
    pub name: String,
    #[component(name = "type")]
    pub field_type: FieldType,
    pub nullable: bool,
    pub doc: String,
}

#[derive(Clone, Debug, ComponentType, Lift)]
#[component(variant)]
pub enum FieldType {
    #[component(name = "boolean")]
    Boolean,
    #[component(name = "int8")]
    Int8,
    #[component(name = "int16")]
    Int16,
    #[component(name = "int32")]
    Int32,
    #[component(name = "int64")]
    Int64,
    #[component(name = "uint8")]
    UInt8,
    #[component(name = "uint16")]
    UInt16,
    #[component(name = "uint32")]
    UInt32,
    #[component(name = "uint64")]
    UInt64,
    #[component(name = "float32")]
    Float32,
    #[component(name = "float64")]
    Float64,
    #[component(name = "utf8")]
    Utf8,
    #[component(name = "bytes")]
    Bytes,
    #[component(name = "timestamp")]
    Timestamp,
    #[component(name = "symbol")]
    Symbol(Vec<String>),
    #[component(name = "list")]
    List,
    #[component(name = "record")]
    Record(u32),
}

#[derive(Clone, Debug, ComponentType, Lift)]
#[component(record)]
pub struct Parameter {
    pub name: String,
    #[component(name = "type")]
    pub value_type: ValueType,
    pub default: Option<Value>,
    pub optional: bool,
    pub doc: String,
}

#[derive(Clone, Copy, Debug, ComponentType, Lift)]
#[component(enum)]
#[repr(u8)]
#[expect(dead_code, reason = "lifted by their number, never written here")]
pub enum ValueType {
    #[component(name = "boolean")]
    Boolean,
    #[component(name = "integer")]
    Integer,
    #[component(name = "number")]
    Number,
    #[component(name = "text")]
    Text,
    #[component(name = "texts")]
    Texts,
}

#[derive(Clone, Debug, ComponentType, Lift)]
#[component(variant)]
pub enum Value {
    #[component(name = "boolean")]
    Boolean(bool),
    #[component(name = "integer")]
    Integer(i64),
    #[component(name = "number")]
    Number(f64),
    #[component(name = "text")]
    Text(String),
    #[component(name = "texts")]
    Texts(Vec<String>),
}

#[derive(Clone, Copy, Debug, ComponentType, Lift)]
#[component(enum)]
#[repr(u8)]
#[expect(dead_code, reason = "lifted by their number, never written here")]
pub enum Level {
    #[component(name = "trace")]
    Trace,
    #[component(name = "debug")]
    Debug,
    #[component(name = "info")]
    Info,
    #[component(name = "warn")]
    Warn,
    #[component(name = "error")]
    Error,
}
