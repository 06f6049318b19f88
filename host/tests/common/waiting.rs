//! Waits for what others do, and finds addresses for them.

use std::net::TcpListener;
use std::time::{Duration, Instant};

/// Nothing takes so long, on a busy machine either.
pub const WAIT: Duration = Duration::from_secs(60);

/// An address of this machine that is free.
pub fn free_address() -> String {
    let free = TcpListener::bind("127.0.0.1:0").expect("a port");
    free.local_addr().expect("it is bound").to_string()
}

/// Waits until something is so.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + WAIT;
    while !is_so() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
