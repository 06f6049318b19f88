//! Real servers for measurements, which the tests' scripts start and end.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A server that this process has started. It ends with it.
pub struct Server {
    pub address: String,
    folder: PathBuf,
    /// Among the tests.
    script: &'static str,
}

impl Server {
    /// Starts a server with all its files in a folder.
    pub fn start(script: &'static str, folder: &Path) -> Result<Server, String> {
        let owner = std::process::id().to_string();
        let address = run(script, &["start", &folder.to_string_lossy(), &owner])?;
        Ok(Server {
            address,
            folder: folder.to_owned(),
            script,
        })
    }

    /// Its host and port.
    pub fn place(&self) -> (&str, &str) {
        self.address.split_once(':').unwrap_or((&self.address, ""))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(why) = run(self.script, &["kill", &self.folder.to_string_lossy()]) {
            eprintln!("{} could not end its server: {why}", self.script);
        }
    }
}

/// Runs a script, and returns what it prints.
fn run(script: &str, arguments: &[&str]) -> Result<String, String> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let output = Command::new(tests.join(script))
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| error.to_string())?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }
}
