//! Savepoints: checkpoints that somebody has requested by name, and that are kept
//! until somebody deletes them.
//!
//! Another process requests one through the pipeline's data folder: a file
//! `savepoints/NAME` is the request, and the host removes it when the checkpoint is
//! complete.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::requests::Requests;
use crate::paths;

/// How often the host looks for requests.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

const NAME_BYTES_MAX: usize = 100;

/// Checks a savepoint's name: it must be a file name, and not look like a
/// checkpoint's number. The error says what is wrong and what to do.
pub fn check_name(name: &str) -> Result<(), String> {
    let is_known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let problem = if name.is_empty() || name.len() > NAME_BYTES_MAX {
        format!("has {} bytes", name.len())
    } else if let Some(other) = name.chars().find(|&c| !is_known(c)) {
        format!("has a {other:?}")
    } else if name.starts_with('.') {
        "starts with a dot".to_owned()
    } else if name.bytes().all(|b| b.is_ascii_digit()) {
        "is a number, and so is each checkpoint's".to_owned()
    } else {
        return Ok(());
    };
    Err(format!(
        "`{name}` cannot be a savepoint's name: it {problem}; take letters, digits, `-`, `_` and \
         `.`, at most {NAME_BYTES_MAX}, and not digits alone"
    ))
}

/// The folder through which other processes request savepoints.
#[derive(Clone, Debug)]
pub struct SavepointFolder {
    folder: PathBuf,
}

impl SavepointFolder {
    /// The folder in a pipeline's data folder. Reads and makes nothing.
    pub fn of(data: &Path) -> Self {
        SavepointFolder {
            folder: data.join("savepoints"),
        }
    }

    pub fn ask(&self, name: &str) -> io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        fs::write(self.folder.join(name), "")
    }

    /// Whether a request has not been answered.
    pub fn is_waiting(&self, name: &str) -> bool {
        self.folder.join(name).exists()
    }

    /// Answers or withdraws a request.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        paths::remove(&self.folder.join(name))
    }

    /// Passes on the requests of other processes, for as long as it is polled.
    pub async fn serve(&self, requests: &Requests) {
        let mut asked: Vec<String> = Vec::new();
        loop {
            let waiting = self.names();
            // An answered name may be requested again.
            asked.retain(|name| waiting.contains(name));
            for name in waiting {
                if !asked.contains(&name) {
                    requests.savepoint(&name);
                    asked.push(name);
                }
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Answers the request for this name: the savepoint is complete.
    pub fn answer(&self, name: &str) {
        if let Err(cause) = self.remove(name) {
            tracing::error!(
                "savepoint {name} is there, but its request in {} cannot be removed: {cause}",
                self.folder.display()
            );
        }
    }

    /// The requested names, in any order.
    fn names(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(&self.folder) else {
            return Vec::new();
        };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        names.filter(|name| check_name(name).is_ok()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_that_a_file_may_have_and_no_number() {
        for good in ["before-the-sale", "v1.2_3", "2026-11-21"] {
            assert_eq!(check_name(good), Ok(()));
        }
        for bad in ["", "..", "a/b", "17", "sale 1", &"x".repeat(101)] {
            let problem = check_name(bad).expect_err(bad);
            assert!(
                problem.contains("cannot be a savepoint's name"),
                "{problem}"
            );
        }
    }
}
