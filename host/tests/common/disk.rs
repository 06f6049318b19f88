//! A small file system in memory, which can be full.

use std::fs::File;
use std::path::Path;
use std::process::Command;

use crate::harness::Absent;

pub struct Disk(tempfile::TempDir);

impl Disk {
    /// Mounts one that has so many MiB, which others may come to. Only root may do that.
    pub fn mount(mebibytes: u64) -> Result<Disk, Absent> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mebibytes}m,mode=755")])
            .arg("tmpfs")
            .arg(folder.path())
            .output();
        let why = match mounted {
            Ok(output) if output.status.success() => return Ok(Disk(folder)),
            Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            Err(error) => error.to_string(),
        };
        Err(Absent(format!("no small file system: {why}")))
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Leaves so many MiB free.
    pub fn fill(&self, mebibytes: u64) {
        let room = rustix::fs::statvfs(self.path()).expect("it is mounted");
        let taken = (room.f_bavail * room.f_frsize).saturating_sub(mebibytes << 20);
        let file = File::create(self.path().join("filler")).expect("it is writable");
        rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, taken)
            .expect("there is as much room");
    }

    pub fn make_room(&self) {
        std::fs::remove_file(self.path().join("filler")).expect("it is there");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // A server may still have files there.
        let _ = Command::new("umount")
            .arg("--lazy")
            .arg(self.path())
            .status();
    }
}
