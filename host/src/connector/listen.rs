//! Addresses that sources listen on.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, lookup_host};
use toml::Spanned;

use crate::blame::Fault;
use crate::config::diagnostics::{Diagnostics, Mistake};
use crate::config::reader::ConfigValue;
use crate::http;
use crate::source::{SourceContext, SourceError};

/// What `listen` has.
pub const WANTED: &str = "an address, such as \"127.0.0.1:9000\"";

/// Reads a host and a port.
pub fn read(value: &ConfigValue<'_>, mistakes: &mut Diagnostics) -> Option<Spanned<String>> {
    let listen = value.text(WANTED, mistakes)?;
    let text = listen.get_ref();
    let named = text
        .rsplit_once(':')
        .filter(|(host, _)| !host.is_empty() && !host.contains([':', ' ', '/']))
        .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    if !named && text.parse::<SocketAddr>().is_err() {
        mistakes.push(
            Mistake::new(format!("{} is not an address to listen on", value.what()))
                .at(listen.span(), "")
                .help("write a host and a port, such as \"127.0.0.1:9000\" or \"[::1]:9000\""),
        );
        return None;
    }
    Some(listen)
}

/// Whether only programs of this machine reach the address.
pub fn is_loopback(listen: &str) -> bool {
    http::is_loopback(listen.rsplit_once(':').map_or(listen, |(host, _)| host))
}

/// The addresses that a name stands for. A machine knows the names by which it listens: one
/// that is not found is wrong.
pub async fn addresses(
    listen: &str,
    context: &SourceContext,
) -> Result<Vec<SocketAddr>, SourceError> {
    let found = lookup_host(listen).await.map_err(|cause| {
        let message = format!(
            "cannot listen on {listen}: no address of this machine is found by that name ({cause})"
        );
        context.refuse(message, Fault::CONFIG)
    });
    Ok(found?.collect())
}

/// What is said when the system does not let a source listen.
pub fn refused(listen: &str, cause: &io::Error, context: &SourceContext) -> SourceError {
    let message = format!("cannot listen on {listen}: {cause}");
    context.refuse(message, Fault::of_io(cause))
}

/// Listens on an address, and tells which it is: a name may have several, and port 0 is any
/// that is free.
pub async fn bind(
    listen: &str,
    context: &SourceContext,
) -> Result<(TcpListener, SocketAddr), SourceError> {
    let cannot_listen = |cause: io::Error| refused(listen, &cause, context);
    let addresses = addresses(listen, context).await?;
    let listener = TcpListener::bind(&addresses[..]).await;
    let listener = listener.map_err(cannot_listen)?;
    let address = listener.local_addr().map_err(cannot_listen)?;
    Ok((listener, address))
}

#[cfg(test)]
mod tests {
    use super::is_loopback;

    #[test]
    fn addresses_of_this_machine_alone_are_known() {
        for listen in ["127.0.0.1:80", "127.8.0.1:80", "[::1]:80", "localhost:80"] {
            assert!(is_loopback(listen), "{listen}");
        }
        for listen in ["0.0.0.0:80", "[::]:80", "10.0.0.1:80", "localhost.org:80"] {
            assert!(!is_loopback(listen), "{listen}");
        }
    }
}
