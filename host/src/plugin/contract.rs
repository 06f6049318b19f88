//! The WIT contract (`sdk/wit/plugin.wit`) as Rust types: types of a plugin's
//! input borrow, types of its answers own.
//!
//! Names and order follow the WIT file. A difference is noticed when a plugin
//! is loaded, since the type of each function is checked.

use wasmtime::component::{ComponentType, Lift, Lower};

/// A host runs plugins of this version of the contract alone.
macro_rules! version {
    () => {
        "0.8.0"
    };
}

macro_rules! interface {
    ($name:literal) => {
        concat!("sluicebox:plugin/", $name, "@", version!())
    };
}

pub const VERSION: &str = version!();
/// The interface that every plugin exports.
pub const OPERATORS: &str = interface!("operators");
/// The interface that a plugin with filters or transforms exports.
pub const TRANSFORM: &str = interface!("transform");
/// The interface that a plugin with aggregates exports.
pub const AGGREGATE: &str = interface!("aggregate");
/// The interface that a plugin with processes exports.
pub const PROCESS: &str = interface!("process");
/// The interface that the host provides, besides parts of WASI.
pub const LOGGING: &str = interface!("logging");

/// What to do about a plugin that is not of this version.
pub const BUILD_AGAIN: &str = "build it again with the SDK of this version: `sluicebox new plugin` \
    makes a folder `sluicebox-sdk`, which takes the place of the plugin's";

/// Refuses a plugin of another version of the contract, whose interfaces have other
/// types, or mean something else. It may export those of several versions.
pub fn check_version(exports: &[String], imports: &[String]) -> Result<(), String> {
    let other = if exports.iter().any(|name| name == OPERATORS) {
        [TRANSFORM, AGGREGATE, PROCESS]
            .iter()
            .find_map(|interface| other_version(exports, interface))
            .or_else(|| other_version(imports, LOGGING))
    } else {
        let mut versions = exports.iter().filter_map(|name| version_of(name));
        versions.find(|version| *version != VERSION)
    };
    let Some(other) = other else { return Ok(()) };
    let newer = match numbers(other) > numbers(VERSION) {
        true => ", or use a newer Sluicebox",
        false => "",
    };
    Err(format!(
        "was built for version {other} of the contract between plugins and their host, and this \
         host has version {VERSION}; {BUILD_AGAIN}{newer}"
    ))
}

/// The version of an interface that is not there in the host's.
fn other_version<'n>(names: &'n [String], interface: &str) -> Option<&'n str> {
    let (wanted, _) = interface.split_once('@')?;
    let mut same = names.iter().filter_map(|name| {
        let (name, version) = name.split_once('@')?;
        (name == wanted).then_some(version)
    });
    let first = same.next()?;
    (first != VERSION && same.all(|version| version != VERSION)).then_some(first)
}

/// The version of the contract that an interface is part of, if it is of a contract.
fn version_of(interface: &str) -> Option<&str> {
    let (_, version) = interface
        .strip_prefix("sluicebox:plugin/")?
        .split_once('@')?;
    Some(version)
}

fn numbers(version: &str) -> Vec<u64> {
    let (numbers, _) = version.split_once('-').unwrap_or((version, ""));
    let numbers = numbers.split('.').map(|number| number.parse());
    numbers.map(Result::unwrap_or_default).collect()
}

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
    #[component(name = "decimals")]
    Decimals(&'a [u8]),
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
    #[component(name = "taken-back")]
    pub taken_back: &'a [u32],
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
    #[component(name = "decimals")]
    Decimals(Vec<u8>),
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
    #[component(name = "lookup")]
    Lookup,
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
    #[component(name = "decimal")]
    Decimal(Digits),
    #[component(name = "timestamp")]
    Timestamp,
    #[component(name = "symbol")]
    Symbol(Vec<String>),
    #[component(name = "list")]
    List,
    #[component(name = "record")]
    Record(u32),
}

#[derive(Clone, Copy, Debug, ComponentType, Lift)]
#[component(record)]
pub struct Digits {
    pub precision: u8,
    pub scale: u8,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::digest;

    const WIT: &str = include_str!("../../../sdk/wit/plugin.wit");

    /// What each version of the contract says.
    struct Recorded {
        version: &'static str,
        /// The digest of its types and functions. It is never changed: plugins that were
        /// built for this version are still there, and are told to be built again by its
        /// number alone.
        types: &'static str,
        /// The digest of all of it, with what the types and functions mean.
        words: &'static str,
    }

    /// The newest last.
    const VERSIONS: [Recorded; 6] = [
        Recorded {
            version: "0.3.0",
            types: "sha256:b72ea63692de566ebb1028309f872af6a2bdf67ac57ce676debe693d8659974b",
            words: "sha256:79a7b00f6c563e90a997f393651a0e6b7820c4eb177bb700d68bcc1cd038f8cb",
        },
        Recorded {
            version: "0.4.0",
            types: "sha256:cd0cc5741f5b52493f9ec64131b73b497db723bb1836f7c1408bb653ef92f0a2",
            words: "sha256:f6c66aa08b0c7c86bcc96cfa77d7ecafa4b1b0d79f151172eaa760a601a07276",
        },
        Recorded {
            version: "0.5.0",
            types: "sha256:7fb7f9f6efe9314b830fead5f3a5caebec781d38f76f7b69ecb45fd4dde8a840",
            words: "sha256:d3956bb9187b1fa58cc06cb47d5d86faa65b2141750e362c69b81533dd8b041d",
        },
        Recorded {
            version: "0.6.0",
            types: "sha256:7759cbf2521ac3e142226c76c74e3788ad6a7a204c5b918fdb5c37cdd3719d1c",
            words: "sha256:03aec9ebddba4fdbac4e46ca911e42d53de788fd54582c92f3b0f3ebcbfa5f9e",
        },
        Recorded {
            version: "0.7.0",
            types: "sha256:be99bef8862c050fbfb9942bc62c6156b707c199ba20c3f8f421b06d85c006ee",
            words: "sha256:2f6eaa1c3d9aa0ae75006885955d15225ab92e72124f95a8bcae109205d4d8f5",
        },
        Recorded {
            version: "0.8.0",
            types: "sha256:3db15f87edf0fed2660b0d86cae41cc89fc5c54cd031ca8ac1134972bec22f8f",
            words: "sha256:d4e434df31366730881131348dff363fa14566ea524c9c141cc744b48ef342d3",
        },
    ];

    #[test]
    fn a_contract_that_changes_has_another_version() {
        let newest = &VERSIONS[VERSIONS.len() - 1];
        let types: Vec<&str> = WIT
            .lines()
            .map(|line| line.split_once("//").map_or(line, |(code, _)| code))
            .flat_map(str::split_whitespace)
            .collect();
        assert_eq!(
            (newest.version, newest.types),
            (VERSION, digest(types.join(" ").as_bytes()).as_str()),
            "sdk/wit/plugin.wit has changed: raise its version, and that of this file, and add a \
             line with the digest to `VERSIONS`"
        );
        assert!(WIT.contains(&format!("package sluicebox:plugin@{VERSION};")));
        assert_eq!(
            newest.words,
            digest(WIT.as_bytes()),
            "sdk/wit/plugin.wit says something else: if it means something else, raise its \
             version, and that of this file, and add a line to `VERSIONS`; if it says the same \
             better, record the digest of its words"
        );
        assert!(VERSIONS.is_sorted_by(|one, next| numbers(one.version) < numbers(next.version)));
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_plugin_may_have_several_versions_if_one_is_the_hosts() {
        let old = "sluicebox:plugin/operators@0.2.0";
        let imports = names(&[LOGGING, "wasi:cli/stderr@0.2.6"]);
        let check = |exports: &[&str]| check_version(&names(exports), &imports);
        assert_eq!(check(&[OPERATORS, PROCESS]), Ok(()));
        assert_eq!(check(&[old, OPERATORS]), Ok(()));
        assert!(check(&[old]).is_err());
        // They are refused as no plugins at all.
        assert_eq!(check(&["other:package/operators@0.2.0"]), Ok(()));
        assert_eq!(check(&[PROCESS]), Ok(()));
    }

    #[test]
    fn each_interface_is_of_the_hosts_version() {
        let refused = |exports: &[&str], imports: &[&str]| {
            check_version(&names(exports), &names(imports)).is_err()
        };
        for interface in [TRANSFORM, AGGREGATE, PROCESS] {
            let old = interface.replace(VERSION, "0.2.0");
            assert!(refused(&[OPERATORS, &old], &[LOGGING]), "{old}");
            assert!(!refused(&[OPERATORS, &old, interface], &[LOGGING]), "{old}");
        }
        assert!(refused(&[OPERATORS], &["sluicebox:plugin/logging@0.2.0"]));
        // What they are called may be another thing in another version.
        assert!(refused(&["sluicebox:plugin/everything@7.0.0"], &[LOGGING]));
    }

    #[test]
    fn every_other_version_is_refused_with_both() {
        for version in [
            "0.0.1",
            "0.1.0",
            "0.2.0",
            "0.4.0",
            "0.5.0",
            "0.6.0",
            "0.7.1",
            "0.10.0",
            "1.0.0-draft",
        ] {
            let exports = names(&[&OPERATORS.replace(VERSION, version)]);
            let message = check_version(&exports, &[]).expect_err(version);
            let both = format!(
                "was built for version {version} of the contract between plugins and their host, \
                 and this host has version {VERSION}; build it again with the SDK of this version"
            );
            assert!(message.starts_with(&both), "{message}");
            let is_newer = numbers(version) > numbers(VERSION);
            assert_eq!(message.ends_with(", or use a newer Sluicebox"), is_newer);
        }
    }

    #[test]
    fn versions_are_compared_by_their_numbers() {
        assert!(numbers("0.10.0") > numbers("0.9.7"));
        assert!(numbers("1.0.0-draft") > numbers("0.9.0"));
        assert!(numbers("0.0.9") < numbers(VERSION));
    }
}
