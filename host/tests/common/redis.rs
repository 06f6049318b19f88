//! A real Redis server for each test program; see `tests/redis/server.sh`.

/// What a script starts.
#[path = "scripted.rs"]
mod scripted;

use std::ops::Deref;
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use self::scripted::Scripted;
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
    scripted::required(&SERVER, "Redis server")
}

impl Server {
    /// Starts a server with a folder of its own, which is removed after this process.
    pub fn start() -> Result<Server, String> {
        Scripted::start("redis", "redis/server.sh").map(Server)
    }

    /// What redis-cli prints for a command.
    pub fn ask(&self, arguments: &[&str]) -> String {
        let (host, port) = self.address.split_once(':').expect("a port");
        let output = Command::new("redis-cli")
            .args(["-h", host, "-p", port])
            .args(arguments)
            .env("REDISCLI_AUTH", "s3cret")
            .stdin(Stdio::null())
            .output()
            .expect("redis-cli runs");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}\n{errors}");
        String::from_utf8_lossy(&output.stdout)
            .trim_end()
            .to_owned()
    }
}
