//! The service's data folder: what it remembers of each pipeline, and the contents that
//! it may have to go back to, with their plugins.
//!
//! Layout, version 1: `pipelines/NAME/ledger.json`, `pipelines/NAME/letters.json`,
//! `pipelines/NAME/contents/DIGEST.json`, `pipelines/NAME/texts/DIGEST.toml`,
//! `plugins/DIGEST.wasm`, `uploads`. Files are replaced as a whole.

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard, TryLockError as Busy};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::change::ChangePlan;
use super::content::{Content, Shelf};
use super::letters::Letters;
use super::probation::Baseline;
use super::uploads::Uploads;
pub(super) use super::whole_files::write;
use super::whole_files::{check_version, file_name, make_folder, read_json};
use crate::logic::KeptPlugin;
use crate::paths;

/// Who has asked for a change that was found among the files.
pub const BY_FILES: &str = "files";
/// Who asks by HTTP where the host has no tokens.
pub const BY_HTTP: &str = "http";
/// More changes are not remembered.
const CHANGES_MAX: usize = 100;
/// Of the files of older changes, so many bytes are kept.
const TEXTS_BYTES_MAX: u64 = 4 << 20;
const VERSION: u32 = 1;

/// The data folder.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    /// The plugins that were uploaded; absent where pipelines name files alone.
    pub uploads: Option<Uploads>,
    /// Held by those who use a plugin that no content may need yet.
    plugins: RwLock<()>,
    /// Held while a ledger changes.
    ledgers: Mutex<()>,
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
    /// What may go when the content of the last change takes over, until that is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agreed: Option<Agreed>,
    /// Oldest first.
    pub changes: Vec<ChangeRecord>,
}

/// Somebody has agreed that what is kept of some nodes goes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Agreed {
    /// Of the content that they agreed to.
    pub digest: String,
    /// The nodes.
    pub dropped: Vec<String>,
}

/// A change of a pipeline's content, and what became of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ChangeRecord {
    pub at_ms: i64,
    /// Of the new content.
    pub digest: String,
    /// Of the content that was to be gone back to; absent for the first one, and in what older
    /// versions have written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub then: Option<String>,
    /// Who has asked for it: the name of a token, `http` where the host has none, or `files`
    /// where its file or a plugin was found changed. Absent in what older versions have
    /// written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    pub outcome: ChangeOutcome,
    /// Why it was refused or taken back, or what it waits for.
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
    /// What runs has not come to the checkpoint yet from which it goes on.
    Waiting,
    /// It runs, and what it puts out is not committed yet.
    Probation,
    /// It is what the pipeline runs.
    Held,
    /// It was started and did not hold: the content from before runs again.
    TakenBack,
    /// Another one came before it had held, and took its place.
    Replaced,
}

impl ChangeOutcome {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            ChangeOutcome::Refused => "refused",
            ChangeOutcome::Waiting => "waiting",
            ChangeOutcome::Probation => "probation",
            ChangeOutcome::Held => "held",
            ChangeOutcome::TakenBack => "taken_back",
            ChangeOutcome::Replaced => "replaced",
        }
    }
}

impl ChangeRecord {
    /// Whether it is not decided yet what becomes of it.
    fn is_open(&self) -> bool {
        matches!(
            self.outcome,
            ChangeOutcome::Waiting | ChangeOutcome::Probation
        )
    }
}

impl Default for Ledger {
    fn default() -> Self {
        Ledger {
            version: VERSION,
            paused: false,
            held: None,
            baselines: Vec::new(),
            agreed: None,
            changes: Vec::new(),
        }
    }
}

impl Ledger {
    /// Records a change, or what has become of the last one, which stays that of who has
    /// asked for it: after a crash it is found among the files.
    pub fn record(&mut self, mut change: ChangeRecord) {
        let continues = |last: &mut ChangeRecord| last.digest == change.digest && last.is_open();
        if let Some(last) = self.changes.pop_if(continues) {
            change.by = last.by.or(change.by);
        }
        if change.is_open() {
            self.begin(&change.digest);
        }
        if self.changes.len() == CHANGES_MAX {
            self.changes.remove(0);
        }
        self.changes.push(change);
    }

    /// This content runs now: another one that waited or was on probation does not any more.
    pub fn begin(&mut self, digest: &str) {
        let last = self.changes.last_mut();
        if let Some(last) = last.filter(|last| last.digest != digest && last.is_open()) {
            (last.outcome, last.why) = (ChangeOutcome::Replaced, None);
        }
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
        let uploads = Uploads::open(&folder.join("uploads"))?;
        Ok(Store {
            folder: folder.to_owned(),
            uploads: Some(uploads),
            plugins: RwLock::default(),
            ledgers: Mutex::default(),
            letters: Mutex::default(),
            _lock: lock,
        })
    }

    /// One whose pipelines name files alone.
    pub fn without_uploads(self) -> Store {
        Store {
            uploads: None,
            ..self
        }
    }

    pub fn ledger(&self, pipeline: &str) -> io::Result<Ledger> {
        let path = self.of(pipeline).join("ledger.json");
        let ledger: Ledger = match read_json(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ledger::default(),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                let help = "put back a copy of it; or delete it and start the pipeline, which then \
                            goes on from its last checkpoint without the history of its changes";
                return Err(io::Error::new(error.kind(), format!("{error}: {help}")));
            }
            read => read?,
        };
        check_version(ledger.version, VERSION, &path)?;
        Ok(ledger)
    }

    /// Changes that. What is not changed is not written.
    pub fn change_ledger(
        &self,
        pipeline: &str,
        change: impl FnOnce(&mut Ledger),
    ) -> io::Result<()> {
        // It is read anew: a panic elsewhere leaves no change half made.
        let _changing = self.ledgers.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.ledger(pipeline)?;
        let mut ledger = before.clone();
        change(&mut ledger);
        if ledger == before {
            return Ok(());
        }
        let folder = self.of(pipeline);
        make_folder(&folder)?;
        let bytes = serde_json::to_vec_pretty(&ledger)?;
        write(&folder, "ledger.json", &bytes, None)
    }

    /// Notes that these states may go when this content takes over.
    pub fn agree(&self, pipeline: &str, digest: &str, dropped: &[String]) -> io::Result<()> {
        self.change_ledger(pipeline, |ledger| {
            ledger.agreed = Some(Agreed {
                digest: digest.to_owned(),
                dropped: dropped.to_vec(),
            });
        })
    }

    /// What became of the dead letters of a pipeline.
    pub fn letters(&self, pipeline: &str) -> io::Result<Letters> {
        let path = self.of(pipeline).join(LETTERS);
        let kept: KeptLetters = match read_json(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Letters::default()),
            read => read?,
        };
        check_version(kept.version, VERSION, &path)?;
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

    /// Keeps the file of a content, so that changes can be compared, and those of the changes
    /// before, the newest first, as far as there is room.
    pub fn keep_text(&self, pipeline: &str, content: &Content) -> io::Result<()> {
        let folder = self.of(pipeline).join("texts");
        make_folder(&folder)?;
        let name = file_name(&content.digest, "toml");
        if !folder.join(&name).exists() {
            write(&folder, &name, content.text.as_bytes(), None)?;
        }
        let ledger = self.ledger(pipeline)?;
        let changes = ledger.changes.iter().rev();
        let digests = changes.flat_map(|change| [Some(&change.digest), change.then.as_ref()]);
        let mut kept = BTreeSet::from([name]);
        let mut bytes = content.text.len() as u64;
        for digest in digests.flatten() {
            let name = file_name(digest, "toml");
            let Ok(found) = fs::metadata(folder.join(&name)) else {
                continue;
            };
            if !kept.contains(&name) && bytes + found.len() <= TEXTS_BYTES_MAX {
                bytes += found.len();
                kept.insert(name);
            }
        }
        for found in fs::read_dir(&folder)? {
            let found = found?;
            if !kept.contains(&*found.file_name().to_string_lossy()) {
                paths::remove(&found.path())?;
            }
        }
        Ok(())
    }

    /// The file of a content, if it is kept.
    pub fn text(&self, pipeline: &str, digest: &str) -> io::Result<Option<String>> {
        let path = self.of(pipeline).join("texts");
        match fs::read_to_string(path.join(file_name(digest, "toml"))) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // An older version has run it.
                Ok(self
                    .content(pipeline, digest)
                    .ok()
                    .map(|content| content.text))
            }
            Err(error) => Err(error),
        }
    }

    /// As long as somebody has what it returns, no plugin is deleted: between reading a
    /// content and wanting it, nothing else says that its plugins are needed.
    pub fn holding_plugins(&self) -> RwLockReadGuard<'_, ()> {
        self.plugins.read().unwrap_or_else(PoisonError::into_inner)
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

    /// Deletes the plugins that nothing needs: no content that is kept, no upload, nor what
    /// `also` names. Where somebody reads a content, it is left for the next time.
    pub fn drop_plugins(&self, also: impl FnOnce() -> BTreeSet<String>) -> io::Result<()> {
        let _alone = match self.plugins.try_write() {
            Ok(alone) => alone,
            Err(Busy::Poisoned(alone)) => alone.into_inner(),
            Err(Busy::WouldBlock) => return Ok(()),
        };
        let mut also = also();
        let uploads = self.uploads.iter().flat_map(Uploads::list);
        also.extend(uploads.map(|upload| upload.digest));
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
                needed.extend(content.digests().map(|digest| file_name(digest, "wasm")));
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

impl Shelf for Store {
    fn keep(&self, digest: &str, bytes: &[u8]) -> io::Result<()> {
        self.keep_plugin(digest, bytes)
    }

    fn find(&self, wanted: &KeptPlugin) -> Option<String> {
        self.uploads.as_ref()?.find(wanted)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::service::uploads::Upload;

    fn content(text: &str, plugin: &str) -> Content {
        Content {
            digest: format!("sha256:{text}"),
            text: text.to_owned(),
            plugins: [(PathBuf::from("a.wasm"), plugin.to_owned())].into(),
            kept: BTreeMap::new(),
        }
    }

    fn change(digest: &str, outcome: ChangeOutcome) -> ChangeRecord {
        ChangeRecord {
            at_ms: 0,
            digest: digest.to_owned(),
            then: None,
            by: Some("files".to_owned()),
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
        let also = || ["sha256:c".to_owned()].into();
        let there = |plugin| store.plugin_path(plugin).exists();
        let holding = store.holding_plugins();
        store.drop_plugins(also).expect("readable");
        assert!(there("sha256:a"), "somebody reads a content");
        drop(holding);
        store.drop_plugins(also).expect("readable");
        assert!(!there("sha256:a") && there("sha256:b") && there("sha256:c"));

        let uploads = store.uploads.as_ref().expect("it has some");
        let upload = Upload {
            name: "shop".to_owned(),
            version: "1.0.0".to_owned(),
            digest: "sha256:d".to_owned(),
            bytes: 4,
            uploaded_ms: 0,
            uploaded_by: "http".to_owned(),
        };
        let keep = || store.keep_plugin("sha256:d", b"code");
        uploads.add(upload, keep).expect("writable");
        store.drop_plugins(BTreeSet::new).expect("readable");
        assert!(!there("sha256:c") && there("sha256:d"));
    }

    #[test]
    fn a_ledger_tells_what_became_of_a_change() {
        let folder = tempfile::tempdir().expect("a folder");
        let store = Store::open(folder.path()).expect("it is made");
        let mut ledger = store.ledger("shop").expect("none yet");
        assert_eq!(ledger, Ledger::default());
        ledger.record(change("sha256:1", ChangeOutcome::Held));
        ledger.record(ChangeRecord {
            by: Some("operator".to_owned()),
            ..change("sha256:2", ChangeOutcome::Probation)
        });
        ledger.record(change("sha256:2", ChangeOutcome::TakenBack));
        assert_eq!(ledger.changes.len(), 2, "one line for a change");
        assert_eq!(ledger.changes[1].by.as_deref(), Some("operator"));
        assert_eq!(ledger.taken_back("sha256:2"), Some("it traps"));
        assert_eq!(ledger.taken_back("sha256:1"), None);
        let write = |kept: &mut Ledger| *kept = ledger.clone();
        store.change_ledger("shop", write).expect("writable");
        assert_eq!(store.ledger("shop").expect("readable"), ledger);
        let text = |digest| store.text("shop", digest).expect("readable");
        let keep = |text: &str| {
            let kept = store.keep_text("shop", &content(text, "sha256:a"));
            kept.expect("writable");
        };
        for digest in ["1", "2", "unknown", "2"] {
            keep(digest);
        }
        assert_eq!(text("sha256:1").as_deref(), Some("1"));
        assert_eq!(text("sha256:2").as_deref(), Some("2"));
        assert_eq!(text("sha256:unknown"), None, "no change has it");
        ledger.record(ChangeRecord {
            by: Some("operator".to_owned()),
            ..change("sha256:4", ChangeOutcome::Waiting)
        });
        ledger.record(change("sha256:4", ChangeOutcome::Probation));
        let last = ledger.changes.last().expect("one");
        assert_eq!(last.by.as_deref(), Some("operator"));
        ledger.record(change("sha256:4", ChangeOutcome::Held));
        ledger.record(change("sha256:5", ChangeOutcome::Waiting));
        ledger.record(change("sha256:6", ChangeOutcome::Probation));
        let outcomes: Vec<_> = ledger.changes.iter().map(|it| it.outcome).collect();
        assert_eq!(
            outcomes[2..],
            [
                ChangeOutcome::Held,
                ChangeOutcome::Replaced,
                ChangeOutcome::Probation
            ]
        );
        // Somebody has changed it back meanwhile.
        ledger.record(change("sha256:7", ChangeOutcome::Waiting));
        for (digest, outcome) in [
            ("sha256:7", ChangeOutcome::Waiting),
            ("sha256:6", ChangeOutcome::Replaced),
        ] {
            ledger.begin(digest);
            assert_eq!(ledger.changes.last().map(|it| it.outcome), Some(outcome));
        }
        for _ in 0..200 {
            ledger.record(change("sha256:3", ChangeOutcome::Refused));
        }
        assert_eq!(ledger.changes.len(), CHANGES_MAX);
    }
}
