//! Answering HTTP, for the service's interface and for sources: who a connection comes from,
//! how it is encrypted, and how long it is waited for.

/// Answers on connections, within limits of time.
pub mod connections;
/// Connections, with TLS or without.
pub mod listener;
