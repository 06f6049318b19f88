//! Encodes rows of columns as messages whose bytes a schema explains.

/// Encodes Avro.
pub mod avro;
