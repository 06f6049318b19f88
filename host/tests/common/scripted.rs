//! A real server for each test program, which a script starts and ends; see
//! `tests/servers.sh`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::harness::Absent;

pub struct Scripted {
    pub address: String,
    pub folder: PathBuf,
    /// Among the tests.
    script: &'static str,
}

/// What was started. Tests are ignored where there can be none; in CI there has to be one.
pub fn required<'a, T>(started: &'a Result<T, String>, what: &str) -> Result<&'a T, Absent> {
    match started {
        Ok(started) => Ok(started),
        Err(why) if is_ci() => panic!("no {what}, which CI must not do without: {why}"),
        Err(why) => Err(Absent(format!("no {what}: {why}"))),
    }
}

/// Whether tests may not be ignored.
pub fn is_ci() -> bool {
    std::env::var_os("CI").is_some_and(|ci| ci == "true")
}

impl Scripted {
    /// Starts a server with a folder of its own, which is removed after this process.
    pub fn start(name: &str, script: &'static str) -> Result<Scripted, String> {
        Scripted::start_in(&std::env::temp_dir(), name, script)
    }

    /// Starts one whose folder is in another one.
    pub fn start_in(within: &Path, name: &str, script: &'static str) -> Result<Scripted, String> {
        let folder = tempfile::Builder::new()
            .prefix(&format!("sluicebox-{name}-"))
            .tempdir_in(within)
            .map_err(|error| error.to_string())?;
        // The script removes it after this process has ended in any way.
        let folder = folder.keep();
        let owner = std::process::id().to_string();
        let address = run(script, &["start", &folder.to_string_lossy(), &owner])?;
        Ok(Scripted {
            address,
            folder,
            script,
        })
    }

    /// Has the script do something else with the server: `kill` it as a power failure would,
    /// start it `again`, or both (`restart`).
    pub fn call(&self, what: &str) {
        let done = run(self.script, &[what, &self.folder.to_string_lossy()]);
        done.unwrap_or_else(|why| panic!("{what}: {why}"));
    }
}

fn run(script: &str, arguments: &[&str]) -> Result<String, String> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests");
    let output = Command::new(tests.join(script))
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| error.to_string())?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
        false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
    }
}
