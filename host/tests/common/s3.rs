//! A real server of S3's protocol for each test program; see `tests/s3/server.sh`.

/// What a script starts.
#[path = "scripted.rs"]
mod scripted;

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use self::scripted::Scripted;
use crate::harness::Absent;

pub struct Server {
    started: Scripted,
    pub key: String,
    pub secret: String,
}

/// The server of this test program.
pub fn server() -> Result<&'static Server, Absent> {
    static SERVER: LazyLock<Result<Server, String>> = LazyLock::new(Server::start);
    scripted::required(&SERVER, "server of S3's protocol")
}

impl Server {
    fn start() -> Result<Server, String> {
        let started = Scripted::start("s3", "s3/server.sh")?;
        let key = std::fs::read_to_string(started.folder.join("key"));
        let key = key.map_err(|error| error.to_string())?;
        let mut words = key.split_whitespace().map(str::to_owned);
        Ok(Server {
            key: words.next().unwrap_or_default(),
            secret: words.next().unwrap_or_default(),
            started,
        })
    }

    pub fn address(&self) -> &str {
        &self.started.address
    }

    /// Has the server answer nothing for a while (`freeze`), or again (`thaw`).
    pub fn call(&self, what: &str) {
        self.started.call(what);
    }

    /// What an independent client does, which is boto3; see `tests/s3/client.py`.
    pub fn client(&self, arguments: &[&str]) -> String {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/s3/server.sh");
        let output = Command::new(script)
            .arg("client")
            .arg(&self.started.folder)
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .expect("the client runs");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}\n{errors}");
        String::from_utf8_lossy(&output.stdout)
            .trim_end()
            .to_owned()
    }
}
