//! The service's data folder: what it remembers of each pipeline, and the contents that
//! it may have to go back to, with their plugins.
//!
//! Layout, version 1: `pipelines/NAME/ledger.json`, `pipelines/NAME/letters.json`,
//! `pipelines/NAME/contents/DIGEST.json`, `plugins/DIGEST.wasm`. Files are replaced as a
//! whole.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, Permissions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::change::ChangePlan;
use super::content::Content;
use super::letters::Letters;
use super::probation::Baseline;
use crate::paths;

/// More changes are not remembered.
const CHANGES_MAX: usize = 100;
const VERSION: u32 = 1;

/// The data folder.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    /// Held while what became of dead letters changes.
    letters: Mutex<()>,
    /// Locked for this process alone.
    _lock: File,
}

/// What is remembered of a pipeline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ledger {
    version: u32,
    /// Whether somebody has paused it.
    pub paused: bool,
    /// The digest of the content that has held, and that is gone back to.
    pub held: Option<String>,
    /// What its operators did with their rows.
    pub baselines: Vec<Baseline>,
    /// Oldest first.
    pub changes: Vec<ChangeRecord>,
}

/// A change of a pipeline's content, and what became of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ChangeRecord {
    pub at_ms: i64,
    /// Of the new content.
    pub digest: String,
    pub outcome: ChangeOutcome,
    /// Why it was refused or taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// What it does to each node; absent where it could not be planned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<ChangePlan>,
    /// For how long no row was processed: from the request for the last checkpoint of the
    /// revision before to the first row that the new one reads. Where it took the place of
    /// the one before in its tasks, how long the barrier took to pass all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pause_ms: Option<u64>,
    /// Whether it took the place of the one before in its tasks.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub in_place: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ChangeOutcome {
    /// It was not started.
    Refused,
    /// It runs, and what it puts out is not committed yet.
    Probation,
    /// It is what the pipeline runs.
    Held,
    /// It was started and did not hold: the content from before runs again.
    TakenBack,
    /// Another one came before it had held, and took its place.
    Replaced,
}

impl Default for Ledger {
    fn default() -> Self {
        Ledger {
            version: VERSION,
            paused: false,
            held: None,
            baselines: Vec::new(),
            changes: Vec::new(),
        }
    }
}

impl Ledger {
    /// Records a change, or what has become of the last one.
    pub fn record(&mut self, change: ChangeRecord) {
        let continues = |last: &ChangeRecord| {
            last.digest == change.digest && last.outcome == ChangeOutcome::Probation
        };
        if self.changes.last().is_some_and(continues) {
            self.changes.pop();
        }
        if self.changes.len() == CHANGES_MAX {
            self.changes.remove(0);
        }
        self.changes.push(change);
    }

    /// Why this content was taken back the last time that it was tried.
    pub fn taken_back(&self, digest: &str) -> Option<&str> {
        let last = self
            .changes
            .iter()
            .rfind(|change| change.digest == digest)?;
        match last.outcome {
            ChangeOutcome::TakenBack => last.why.as_deref(),
            _ => None,
        }
    }
}

impl Store {
    /// Makes the folder if needed. Only the user may read it: pipelines' files may have
    /// secrets.
    pub fn open(folder: &Path) -> io::Result<Store> {
        for folder in [folder, &folder.join("pipelines"), &folder.join("plugins")] {
            make_folder(folder)?;
        }
        let lock = File::create(folder.join("lock"))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => io::Error::other("another service runs there"),
            TryLockError::Error(error) => error,
        })?;
        Ok(Store {
            folder: folder.to_owned(),
            letters: Mutex::default(),
            _lock: lock,
        })
    }

    pub fn ledger(&self, pipeline: &str) -> io::Result<Ledger> {
        let path = self.of(pipeline).join("ledger.json");
        let ledger: Ledger = match read_json(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ledger::default(),
            read => read?,
        };
        check_version(ledger.version, &path)?;
        Ok(ledger)
    }

    pub fn write_ledger(&self, pipeline: &str, ledger: &Ledger) -> io::Result<()> {
        let folder = self.of(pipeline);
        make_folder(&folder)?;
        write(
            &folder,
            "ledger.json",
            &serde_json::to_vec_pretty(ledger)?,
            None,
        )
    }

    /// What became of the dead letters of a pipeline.
    pub fn letters(&self, pipeline: &str) -> io::Result<Letters> {
        let path = self.of(pipeline).join(LETTERS);
        let kept: KeptLetters = match read_json(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Letters::default()),
            read => read?,
        };
        check_version(kept.version, &path)?;
        Ok(kept.letters)
    }

    /// Changes that, unless the change fails.
    pub fn change_letters<T, E: From<io::Error>>(
        &self,
        pipeline: &str,
        change: impl FnOnce(&mut Letters) -> Result<T, E>,
    ) -> Result<T, E> {
        // It is read anew: a panic elsewhere leaves no change half made.
        let _changing = self.letters.lock().unwrap_or_else(PoisonError::into_inner);
        let mut letters = self.letters(pipeline)?;
        let changed = change(&mut letters)?;
        let folder = self.of(pipeline);
        make_folder(&folder)?;
        let kept = KeptLetters {
            version: VERSION,
            letters,
        };
        let bytes = serde_json::to_vec_pretty(&kept).map_err(io::Error::from)?;
        write(&folder, LETTERS, &bytes, None)?;
        Ok(changed)
    }

    pub fn content(&self, pipeline: &str, digest: &str) -> io::Result<Content> {
        read_json(&self.content_path(pipeline, digest))
    }

    /// Keeps a content that may be gone back to, and lets the others go that `needed` does
    /// not name.
    pub fn keep_content(
        &self,
        pipeline: &str,
        content: &Content,
        needed: &[&str],
    ) -> io::Result<()> {
        let folder = self.of(pipeline).join("contents");
        make_folder(&folder)?;
        let needed = needed.iter().copied().chain([&*content.digest]);
        let names: BTreeSet<String> = needed.map(|digest| file_name(digest, "json")).collect();
        write(
            &folder,
            &file_name(&content.digest, "json"),
            &serde_json::to_vec_pretty(content)?,
            None,
        )?;
        for found in fs::read_dir(&folder)? {
            let found = found?;
            if !names.contains(&*found.file_name().to_string_lossy()) {
                paths::remove(&found.path())?;
            }
        }
        Ok(())
    }

    pub fn keep_plugin(&self, digest: &str, bytes: &[u8]) -> io::Result<()> {
        let path = self.plugin_path(digest);
        if fs::metadata(&path).is_ok_and(|found| found.len() == bytes.len() as u64) {
            return Ok(());
        }
        write(
            &self.folder.join("plugins"),
            &file_name(digest, "wasm"),
            bytes,
            None,
        )
    }

    pub fn plugin_path(&self, digest: &str) -> PathBuf {
        self.folder.join("plugins").join(file_name(digest, "wasm"))
    }

    /// Deletes the plugins that no content needs: neither one that is kept, nor one that
    /// `also` names.
    pub fn drop_plugins(&self, also: &BTreeSet<String>) -> io::Result<()> {
        let mut needed: BTreeSet<String> = also
            .iter()
            .map(|digest| file_name(digest, "wasm"))
            .collect();
        for pipeline in fs::read_dir(self.folder.join("pipelines"))? {
            let contents = match fs::read_dir(pipeline?.path().join("contents")) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                contents => contents?,
            };
            for content in contents {
                let content: Content = read_json(&content?.path())?;
                let plugins = content.plugins.values();
                needed.extend(plugins.map(|digest| file_name(digest, "wasm")));
            }
        }
        for plugin in fs::read_dir(self.folder.join("plugins"))? {
            let plugin = plugin?;
            if !needed.contains(&*plugin.file_name().to_string_lossy()) {
                paths::remove(&plugin.path())?;
            }
        }
        Ok(())
    }

    fn of(&self, pipeline: &str) -> PathBuf {
        self.folder.join("pipelines").join(pipeline)
    }

    fn content_path(&self, pipeline: &str, digest: &str) -> PathBuf {
        let folder = self.of(pipeline).join("contents");
        folder.join(file_name(digest, "json"))
    }
}

/// As it is written.
#[derive(Serialize, Deserialize)]
struct KeptLetters {
    version: u32,
    #[serde(flatten)]
    letters: Letters,
}

const LETTERS: &str = "letters.json";

fn check_version(version: u32, path: &Path) -> io::Result<()> {
    match version > VERSION {
        true => Err(io::Error::other(format!(
            "{} was written by a newer version of sluicebox",
            path.display()
        ))),
        false => Ok(()),
    }
}

/// `sha256:00ff` is the file `sha256-00ff.json`.
fn file_name(digest: &str, extension: &str) -> String {
    format!("{}.{extension}", digest.replace(':', "-"))
}

fn make_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

fn read_json<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    let bytes = fs::read(path)?;
    serde_json::from_slice(&bytes)
        .map_err(|error| io::Error::other(format!("{} is damaged: {error}", path.display())))
}

/// Writes a file as a whole, so that a crash leaves the old one or the new one. Only the
/// user may use it, or those that `access` says.
pub(super) fn write(
    folder: &Path,
    name: &str,
    bytes: &[u8],
    access: Option<Permissions>,
) -> io::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(bytes)?;
    if let Some(access) = access {
        file.as_file().set_permissions(access)?;
    }
    file.as_file().sync_all()?;
    file.persist(folder.join(name))
        .map_err(|error| error.error)?;
    paths::sync_folder(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(text: &str, plugin: &str) -> Content {
        Content {
            digest: format!("sha256:{text}"),
            text: text.to_owned(),
            plugins: [(PathBuf::from("a.wasm"), plugin.to_owned())].into(),
        }
    }

    fn change(digest: &str, outcome: ChangeOutcome) -> ChangeRecord {
        ChangeRecord {
            at_ms: 0,
            digest: digest.to_owned(),
            outcome,
            why: (outcome == ChangeOutcome::TakenBack).then(|| "it traps".to_owned()),
            plan: None,
            pause_ms: None,
            in_place: false,
        }
    }

    #[test]
    fn what_is_needed_is_kept_and_the_rest_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(&folder.path().join("data")).expect("it is made");
        for plugin in ["sha256:a", "sha256:b", "sha256:c"] {
            store.keep_plugin(plugin, b"code").expect("writable");
        }
        let (first, second) = (content("1", "sha256:a"), content("2", "sha256:b"));
        store.keep_content("shop", &first, &[]).expect("writable");
        store
            .keep_content("shop", &second, &["sha256:1"])
            .expect("writable");
        assert_eq!(store.content("shop", "sha256:1").expect("kept"), first);
        store.keep_content("shop", &second, &[]).expect("writable");
        assert!(store.content("shop", "sha256:1").is_err());
        let also = ["sha256:c".to_owned()].into();
        store.drop_plugins(&also).expect("readable");
        let there = |plugin| store.plugin_path(plugin).exists();
        assert!(!there("sha256:a") && there("sha256:b") && there("sha256:c"));
    }

    #[test]
    fn a_ledger_tells_what_became_of_a_change() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(folder.path()).expect("it is made");
        let mut ledger = store.ledger("shop").expect("none yet");
        assert_eq!(ledger, Ledger::default());
        ledger.record(change("sha256:1", ChangeOutcome::Held));
        ledger.record(change("sha256:2", ChangeOutcome::Probation));
        ledger.record(change("sha256:2", ChangeOutcome::TakenBack));
        assert_eq!(ledger.changes.len(), 2, "one line for a change");
        assert_eq!(ledger.taken_back("sha256:2"), Some("it traps"));
        assert_eq!(ledger.taken_back("sha256:1"), None);
        store.write_ledger("shop", &ledger).expect("writable");
        assert_eq!(store.ledger("shop").expect("readable"), ledger);
        for _ in 0..200 {
            ledger.record(change("sha256:3", ChangeOutcome::Refused));
        }
        assert_eq!(ledger.changes.len(), CHANGES_MAX);
    }
}
