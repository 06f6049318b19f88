//! A real PostgreSQL server for each test program; see `tests/postgres/server.sh`.

/// What a script starts.
#[path = "scripted.rs"]
mod scripted;

use std::ops::Deref;
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use self::scripted::Scripted;
use crate::disk::Disk;
use crate::harness::Absent;

pub struct Server(Scripted);

impl Deref for Server {
    type Target = Scripted;

    fn deref(&self) -> &Scripted {
        &self.0
    }
}

/// The server of this test program.
pub fn server() -> Result<&'static Server, Absent> {
    static SERVER: LazyLock<Result<Server, String>> = LazyLock::new(Server::start);
    scripted::required(&SERVER, "PostgreSQL server")
}

impl Server {
    /// Starts a server with a folder of its own, which is removed after this process.
    pub fn start() -> Result<Server, String> {
        Scripted::start("postgres", "postgres/server.sh").map(Server)
    }

    /// Starts one that has its data on a disk.
    pub fn start_on(disk: &Disk) -> Result<Server, String> {
        Scripted::start_in(disk.path(), "postgres", "postgres/server.sh").map(Server)
    }

    /// What psql prints for some SQL, as the owner of the database `shop`, without head and
    /// alignment.
    pub fn sql(&self, sql: &str) -> String {
        self.sql_as("shop", sql)
    }

    pub fn sql_as(&self, user: &str, sql: &str) -> String {
        let (host, port) = self.address.split_once(':').expect("a port");
        let output = Command::new("psql")
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"])
            .args(["-h", host, "-p", port, "-U", user, "-d", "shop", "-c", sql])
            .env("PGPASSWORD", "s3cret")
            .env("PGTZ", "UTC")
            .stdin(Stdio::null())
            .output()
            .expect("psql runs");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{sql}\n{errors}");
        String::from_utf8_lossy(&output.stdout)
            .trim_end()
            .to_owned()
    }
}
