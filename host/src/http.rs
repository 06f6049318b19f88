//! Answering HTTP, for the service's interface and for sources: who a connection comes from,
//! how it is encrypted, and how long it is waited for.

use std::net::IpAddr;

/// Answers on connections, within limits of time.
pub mod connections;
/// Connections, with TLS or without.
pub mod listener;

/// Whether a host, as addresses have it, is this machine and reached by it alone.
pub fn is_loopback(host: &str) -> bool {
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}
