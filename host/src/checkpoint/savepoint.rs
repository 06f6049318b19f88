//! Savepoints: checkpoints that somebody has asked for by a name, and that are
//! kept until they are dropped by hand.
//!
//! Another process asks for one through the pipeline's data folder: a file
//! `savepoints/NAME` is a request, and its removal the answer that the checkpoint
//! is done.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::requests::Requests;

/// How often the folder is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);

const NAME_BYTES_MAX: usize = 100;

/// Says what is wrong with a name, if anything: it is a file's, and must not be
/// taken for a checkpoint's number.
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

/// The folder through which other processes ask for savepoints.
#[derive(Clone, Debug)]
pub struct SavepointFolder {
    folder: PathBuf,
}

impl SavepointFolder {
    /// The one in a pipeline's data folder. Nothing is read or made.
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

    /// Answers a request, or takes it back.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.folder.join(name)) {
            Err(cause) if cause.kind() != ErrorKind::NotFound => Err(cause),
            _ => Ok(()),
        }
    }

    /// Hands on the requests of other processes, for as long as it is polled.
    pub async fn serve(&self, requests: &Requests) {
        let mut asked: Vec<String> = Vec::new();
        loop {
            let waiting = self.names();
            // One that was answered may be asked for again.
            asked.retain(|name| waiting.contains(name));
            for name in waiting {
                if !asked.contains(&name) {
                    requests.savepoint(&name);
                    asked.push(name);
                }
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Tells who asked that the savepoint of this name is done.
    pub fn answer(&self, name: &str) {
        if let Err(cause) = self.remove(name) {
            tracing::error!(
                "savepoint {name} is there, but its request in {} cannot be removed: {cause}",
                self.folder.display()
            );
        }
    }

    /// The names that are asked for, in any order.
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
