//! Uses of the outside world, which a plugin does not have.

use std::time::{Duration, Instant, SystemTime};

use sluicebox_sdk::prelude::*;

use crate::Row;

#[derive(Symbol, Clone, Copy)]
pub enum Thing {
    /// The time of day.
    Clock,
    File,
    Folder,
    Network,
    /// Environment variables and arguments.
    Environment,
    /// Ends the process.
    Exit,
    /// Sleeps for an hour.
    Sleep,
    /// Reads a clock until it advances.
    Wait,
    /// A hash set's random seed.
    Random,
    /// Writes to the host's log.
    Log,
}

#[derive(Parameters)]
pub struct Wanted {
    pub thing: Thing,
}

/// Keeps rows for which the outside world was not reachable.
#[operator]
pub fn reach(row: Row<'_>, wanted: &Wanted) -> bool {
    match wanted.thing {
        #[expect(
            clippy::disallowed_methods,
            reason = "that it gets nowhere is the point"
        )]
        Thing::Clock => SystemTime::now() == SystemTime::UNIX_EPOCH,
        Thing::File => std::fs::read("/etc/hostname").is_err(),
        Thing::Folder => std::fs::read_dir("/").is_err(),
        Thing::Network => std::net::TcpStream::connect("127.0.0.1:80").is_err(),
        Thing::Environment => std::env::vars().count() + std::env::args().count() == 0,
        Thing::Exit => std::process::exit(0),
        Thing::Sleep => {
            std::thread::sleep(Duration::from_secs(3600));
            true
        }
        Thing::Wait => {
            let start = Instant::now();
            while start.elapsed() < Duration::from_millis(1) {}
            true
        }
        Thing::Random => std::collections::HashSet::from([row.id]).contains(row.id),
        Thing::Log => {
            log::info!("{} says hello", row.id);
            true
        }
    }
}
