//! HTTP: rows that clients post to the host, and batches of rows that are posted to others.

/// Answers requests, and says why not.
mod answers;
/// Reads the bodies of requests, within bounds.
mod body;
/// Sends requests until they are answered.
mod delivery;
/// Where clients post.
mod endpoint;
/// Takes what was posted into the pipeline.
mod input;
/// Between requests and the source's task.
mod queue;
/// What was posted under which key, so that it is taken once.
mod repeats;
/// Cuts rows into requests.
mod requests;
/// Cuts bodies into rows.
mod rows;
/// The sink `http`.
pub mod sink;
/// The source `http`.
pub mod source;

use crate::config::diagnostics::{Diagnostics, Mistake};
use crate::config::reader::ConfigValue;
use crate::config::secrets;
use crate::connector::server::Password;

/// The header by which requests are known that are sent again.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// Reads what only those may know who use a service: it goes into a header.
fn read_secret(value: &ConfigValue<'_>, mistakes: &mut Diagnostics) -> Option<Password> {
    let text = secrets::read(value, mistakes)?;
    if text.is_empty() || !text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        mistakes.push(
            Mistake::new(format!("{} cannot be in a header", value.what()))
                .at(value.span(), "")
                .help("it is a text of one line, of printable ASCII characters"),
        );
        return None;
    }
    Some(Password(text))
}
