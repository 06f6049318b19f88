//! Who may use the HTTP interface: bearer tokens with roles, of which a file has only the
//! hashes.
//!
//! The file, version 1, has a table `[[token]]` for each: its `name`, its `role`, and
//! `sha256`, the hash of the token in hexadecimal digits. A token is 32 random bytes, so
//! nobody can guess it from its hash, as passwords are guessed.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use super::content::Stamp;
use super::store;
use crate::digest::hex;
use crate::paths;

/// What a token begins with, so that one that leaks is recognised.
const PREFIX: &str = "sluicebox_";
/// How often the file is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const VERSION: u32 = 1;

/// What its bearer may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Look at everything.
    Read,
    /// Change pipelines as well.
    Admin,
}

/// The file of tokens.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenFile {
    version: u32,
    #[serde(default, rename = "token")]
    pub tokens: Vec<TokenEntry>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenEntry {
    pub name: String,
    pub role: Role,
    /// Of the whole token, in hexadecimal digits.
    sha256: String,
}

impl Default for TokenFile {
    fn default() -> Self {
        TokenFile {
            version: VERSION,
            tokens: Vec::new(),
        }
    }
}

impl TokenFile {
    pub fn read(path: &Path) -> io::Result<TokenFile> {
        let wrong = |why: String| io::Error::other(format!("{}: {why}", path.display()));
        let text = fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        let file: TokenFile = toml::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        if file.version > VERSION {
            return Err(wrong(
                "it was written by a newer version of sluicebox".to_owned(),
            ));
        }
        let is_hash = |hash: &str| hash.len() == 64 && hash.bytes().all(|c| c.is_ascii_hexdigit());
        match file.tokens.iter().find(|token| !is_hash(&token.sha256)) {
            Some(token) => Err(wrong(format!(
                "`sha256` of token `{}` is not a hash: make tokens by `sluicebox token new`",
                token.name
            ))),
            None => Ok(file),
        }
    }

    /// Writes it as a whole. Only the user may read it.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let text = toml::to_string(self).map_err(io::Error::other)?;
        let path = paths::target(path)?;
        let name = path.file_name().and_then(|name| name.to_str());
        let (Some(folder), Some(name)) = (path.parent(), name) else {
            return Err(io::Error::other(format!("{} is no file", path.display())));
        };
        store::write(
            paths::here_if_empty(folder),
            name,
            text.as_bytes(),
            Some(Permissions::from_mode(0o600)),
        )
    }

    /// Adds a token, and returns it: nobody can read it from the file.
    pub fn add(&mut self, name: &str, role: Role) -> io::Result<String> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(|error| io::Error::other(error.to_string()))?;
        let token = format!("{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(secret));
        self.tokens.push(TokenEntry {
            name: name.to_owned(),
            role,
            sha256: hash(&token),
        });
        Ok(token)
    }

    /// The entry of a token; `None` if it is none of these. It takes the same time whichever
    /// it is.
    pub fn find(&self, token: &str) -> Option<&TokenEntry> {
        let hash = hash(token);
        // The place of the entry, from 1 on.
        let mut found = 0u32;
        for (known, place) in self.tokens.iter().zip(1..) {
            let is_it: Choice = known
                .sha256
                .to_ascii_lowercase()
                .as_bytes()
                .ct_eq(hash.as_bytes());
            found = u32::conditional_select(&found, &place, is_it);
        }
        self.tokens.get(found.checked_sub(1)? as usize)
    }
}

fn hash(token: &str) -> String {
    hex(&Sha256::digest(token))
}

/// The tokens of a file, as it is now: tokens that are added or removed take effect without
/// a restart.
#[derive(Debug)]
pub struct Tokens {
    path: PathBuf,
    known: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    file: TokenFile,
    stamp: Stamp,
    looked: Instant,
}

impl Tokens {
    pub fn open(path: &Path) -> io::Result<Tokens> {
        let stamp = Stamp::of(path, &[]);
        let file = TokenFile::read(path)?;
        if file.tokens.is_empty() {
            return Err(io::Error::other(format!(
                "{} has no token: add one by `sluicebox token new`",
                path.display()
            )));
        }
        let known = Known {
            file,
            stamp,
            looked: Instant::now(),
        };
        Ok(Tokens {
            path: path.to_owned(),
            known: Mutex::new(known),
        })
    }

    /// Who the bearer of a token is, and what may be done by it.
    pub fn bearer(&self, token: &str) -> Option<(String, Role)> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.looked.elapsed() >= LOOK_EVERY {
            known.looked = Instant::now();
            self.look(&mut known);
        }
        let entry = known.file.find(token)?;
        Some((entry.name.clone(), entry.role))
    }

    /// A file that cannot be read, perhaps since it is half written, changes nothing.
    fn look(&self, known: &mut Known) {
        let stamp = Stamp::of(&self.path, &[]);
        if stamp == known.stamp {
            return;
        }
        known.stamp = stamp;
        match TokenFile::read(&self.path) {
            Ok(file) => known.file = file,
            Err(error) => tracing::error!("the tokens stay as they are: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_its_role_and_the_file_does_not_have_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("tokens.toml");
        let mut file = TokenFile::default();
        let read = file.add("dashboard", Role::Read).expect("random bytes");
        let admin = file.add("operator", Role::Admin).expect("random bytes");
        file.write(&path).expect("writable");
        let text = fs::read_to_string(&path).expect("readable");
        assert!(!text.contains(&read) && !text.contains(&admin), "{text}");
        let mode = fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let file = TokenFile::read(&path).expect("it was written");
        let bearer = |token: &str| file.find(token).map(|entry| (&*entry.name, entry.role));
        assert_eq!(bearer(&read), Some(("dashboard", Role::Read)));
        assert_eq!(bearer(&admin), Some(("operator", Role::Admin)));
        for wrong in [
            "",
            PREFIX,
            &read[1..],
            &admin.to_lowercase(),
            &file.tokens[1].sha256,
        ] {
            assert_eq!(bearer(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_is_told_and_changes_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("tokens.toml");
        let mut file = TokenFile::default();
        file.write(&path).expect("writable");
        let error = Tokens::open(&path).expect_err("nobody could use it");
        assert!(error.to_string().contains("has no token"), "{error}");
        let token = file.add("operator", Role::Admin).expect("random bytes");
        file.write(&path).expect("writable");
        let tokens = Tokens::open(&path).expect("it has a token");
        let look = || {
            let mut known = tokens.known.lock().expect("nobody panics");
            tokens.look(&mut known);
        };
        for wrong in [
            "version = 9",
            "version = 1\n[[token]]\nname = \"a\"\nrole = \"read\"\nsha256 = \"x\"",
            "version = 1\n[[token]]\nname = \"a\"\nrole = \"root\"\nsha256 = \"x\"",
        ] {
            fs::write(&path, wrong).expect("writable");
            look();
            let operator = Some(("operator".to_owned(), Role::Admin));
            assert_eq!(tokens.bearer(&token), operator, "{wrong}");
        }
        TokenFile::default().write(&path).expect("writable");
        look();
        assert_eq!(tokens.bearer(&token), None, "it was removed");
    }
}
