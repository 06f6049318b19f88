//! Signals to a running host.

use std::process::Child;

pub fn send(host: &Child, signal: i32) {
    // SAFETY: the process is our child and has not been waited for.
    let sent = unsafe { libc::kill(host.id() as i32, signal) };
    assert_eq!(sent, 0);
}
