//! Reaching for the world outside, which a plugin does not have.

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
    /// Variables and arguments.
    Environment,
    /// Ends the process.
    Exit,
    /// Sleeps for an hour.
    Sleep,
    /// Looks at a clock until it has moved on.
    Wait,
    /// A hash set's random seed.
    Random,
    /// A line of the host's log.
    Log,
}

#[derive(Parameters)]
pub struct Wanted {
    pub thing: Thing,
}

/// Keeps rows that find nothing outside.
#[operator]
pub fn reach(row: Row<'_>, wanted: &Wanted) -> bool {
    match wanted.thing {
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
