//! Whose a file is and who may use it, which stays when another file takes its place.

use std::fs::{self, File, Metadata, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::Path;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    owner: u32,
    group: u32,
    /// The bits of `chmod`.
    mode: u32,
}

const OF_OWNER: u32 = 0o700;
const OF_GROUP: u32 = 0o070;
const OF_OTHERS: u32 = 0o007;
const OWNER_READS: u32 = 0o400;
const OWNER_WRITES: u32 = 0o200;

impl Access {
    /// Of a file, if there is one.
    pub fn of_path(path: &Path) -> Option<Self> {
        let found = fs::metadata(path).ok().filter(Metadata::is_file)?;
        let mut access = Access::of(&found);
        if let Some(group) = group_in_list(path) {
            access.mode &= !OF_GROUP | group << 3;
        }
        Some(access)
    }

    pub fn of(metadata: &Metadata) -> Self {
        Access {
            owner: metadata.uid(),
            group: metadata.gid(),
            mode: metadata.mode() & (OF_OWNER | OF_GROUP | OF_OTHERS),
        }
    }

    /// For another file, which is written, and does not take the place of this one.
    pub fn of_next(self) -> Self {
        Access {
            mode: self.mode | OWNER_READS | OWNER_WRITES,
            ..self
        }
    }

    /// Its owner has said that it is not to be written.
    pub fn is_read_only(self) -> bool {
        self.mode & OWNER_WRITES == 0
    }

    /// Refuses a file that its owner has protected, also where the user may write
    /// everything.
    pub fn check_replaceable(self, path: &Path) -> io::Result<()> {
        self.refuse_read_only(|| {
            format!(
                "{} is read-only, so nothing takes its place: let its owner write it \
                 (`chmod u+w`), move it away, or give the sink another `path`",
                path.display()
            )
        })
    }

    /// As [`Access::check_replaceable`], for a file that stays.
    pub fn check_appendable(self) -> io::Result<()> {
        self.refuse_read_only(|| {
            "it is read-only, so nothing is added to it: let its owner write it (`chmod u+w`), or \
             move it away"
                .to_owned()
        })
    }

    fn refuse_read_only(self, message: impl FnOnce() -> String) -> io::Result<()> {
        match self.is_read_only() {
            false => Ok(()),
            true => Err(io::Error::new(ErrorKind::PermissionDenied, message())),
        }
    }

    /// Gives a file the same owner and group, where the user may, and the same
    /// permissions. Nobody may read it in between who may not in the end.
    pub fn give(self, file: &File) -> io::Result<()> {
        let now = Access::of(&file.metadata()?);
        if now == self {
            return Ok(());
        }
        let mut mode = self.mode;
        if (now.owner, now.group) != (self.owner, self.group) {
            chmod(file, now.mode & mode & OF_OWNER | OWNER_WRITES)?;
            // Few users may give a file away, and most may give it to their groups.
            if fchown(file, Some(self.owner), Some(self.group)).is_err() {
                let _ = fchown(file, None, Some(self.group));
            }
            if file.metadata()?.gid() != self.group {
                // Its own group has the others' permissions.
                mode &= !OF_GROUP | (mode & OF_OTHERS) << 3;
            }
        }
        chmod(file, mode)
    }
}

/// What the group of a file with an access control list may do, which is not kept: the bits
/// of such a file say what any of those in the list may at most.
fn group_in_list(path: &Path) -> Option<u32> {
    /// A list is a version and entries: a tag and permissions, 16 bits each, and who it is.
    const VERSION_BYTES: usize = 4;
    const ENTRY_BYTES: usize = 8;
    const GROUP: u16 = 4;
    // Longer ones are not read, and their group may do nothing.
    let mut list = [0; 4 << 10];
    let list = match rustix::fs::getxattr(path, "system.posix_acl_access", &mut list) {
        Ok(length) => list.get(VERSION_BYTES..length)?,
        Err(rustix::io::Errno::RANGE) => return Some(0),
        Err(_) => return None,
    };
    let mut entries = list.as_chunks::<ENTRY_BYTES>().0.iter();
    let group = entries.find(|entry| u16::from_le_bytes([entry[0], entry[1]]) == GROUP);
    group.map(|entry| u16::from_le_bytes([entry[2], entry[3]]).into())
}

fn chmod(file: &File, mode: u32) -> io::Result<()> {
    file.set_permissions(Permissions::from_mode(mode))
}
