//! A real Redis server for each test program; see `tests/redis/server.sh`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use crate::harness::Absent;

pub struct Server {
    pub address: String,
    folder: PathBuf,
}

/// The server of this test program. Tests are ignored where there can be none; in CI there
/// has to be one.
pub fn server() -> Result<&'static Server, Absent> {
    static SERVER: LazyLock<Result<Server, String>> = LazyLock::new(Server::start);
    match &*SERVER {
        Ok(server) => Ok(server),
        Err(why) if std::env::var_os("CI").is_some_and(|ci| ci == "true") => {
            panic!("no Redis server, which CI must not do without: {why}")
        }
        Err(why) => Err(Absent(format!("no Redis server: {why}"))),
    }
}

impl Server {
    /// Starts a server with a folder of its own, which is removed after this process.
    pub fn start() -> Result<Server, String> {
        let folder = tempfile::Builder::new()
            .prefix("sluicebox-redis-")
            .tempdir()
            .map_err(|error| error.to_string())?;
        // The script removes it after this process has ended in any way.
        let folder = folder.keep();
        let owner = std::process::id().to_string();
        let address = script(&["start", &folder.to_string_lossy(), &owner])?;
        Ok(Server { address, folder })
    }

    /// Kills it as a power failure would.
    pub fn kill(&self) {
        script(&["kill", &self.folder.to_string_lossy()]).expect("the server is killed");
    }

    /// Starts it again.
    pub fn again(&self) {
        script(&["again", &self.folder.to_string_lossy()]).expect("the server starts again");
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

fn script(arguments: &[&str]) -> Result<String, String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/redis/server.sh");
    let output = Command::new(script)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| error.to_string())?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
        false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
    }
}
