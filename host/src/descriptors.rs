//! How many files and connections the process may have open at a time, and which it was
//! started with.

use std::fs::{File, Metadata};
use std::io::{self, ErrorKind};
use std::os::fd::{BorrowedFd, FromRawFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// How messages name the standard descriptors, by their numbers.
const STANDARD: [&str; 3] = ["standard input", "standard output", "standard error"];

/// Which of these could be used when the process was started.
static IS_USABLE: [AtomicBool; 3] = [const { AtomicBool::new(true) }; 3];

/// Before `main`, Rust's runtime opens `/dev/null` in place of a standard descriptor that is
/// closed, so that no file gets its number. From then on it looks as what daemons are given
/// on purpose, and what is written there is lost without a word. So they are looked at when
/// the program is loaded, before that.
// SAFETY: the loader calls each function in this section, once, while there is one thread.
#[unsafe(link_section = ".init_array")]
#[used]
static LOOK_AT_STANDARD: extern "C" fn() = look_at_standard;

/// Nothing of Rust's runtime is there yet.
extern "C" fn look_at_standard() {
    for (is_usable, number) in IS_USABLE.iter().zip(0..) {
        // SAFETY: it only looks at the descriptor, and fails where that is closed.
        let flags = unsafe { libc::fcntl(number, libc::F_GETFL) };
        let missing = match number {
            0 => libc::O_WRONLY,
            _ => libc::O_RDONLY,
        };
        let is_open = flags != -1 && flags & libc::O_ACCMODE != missing;
        is_usable.store(is_open, Ordering::Relaxed);
    }
}

/// Refuses a standard descriptor that the process was started without, as by `>&-`, or that
/// is only for the other direction. Others are as their users find them.
pub fn check_standard(number: u32) -> io::Result<()> {
    let at = number as usize;
    let is_usable = IS_USABLE.get(at);
    match is_usable.is_none_or(|is_usable| is_usable.load(Ordering::Relaxed)) {
        true => Ok(()),
        false => Err(io::Error::new(
            ErrorKind::NotFound,
            format!(
                "{} is closed, or not open for this: start the run with it, or redirect it to a \
                 file or to /dev/null",
                STANDARD[at]
            ),
        )),
    }
}

/// Opens for writing what the process was started with under this number, as the same open
/// file, not the same path once more: a file's place for the next byte is then one for all
/// who write to it, and what a shell, the log or a summary writes comes behind the rows
/// instead of over them.
pub fn duplicate_to_write(number: u32) -> io::Result<File> {
    check_standard(number)?;
    let Some(descriptor) = libc::c_int::try_from(number).ok().filter(is_inherited) else {
        return Err(not_writable(number));
    };
    // SAFETY: it only looks at the descriptor.
    let flags = unsafe { libc::fcntl(descriptor, libc::F_GETFL) };
    if flags != -1 && flags & libc::O_ACCMODE == libc::O_RDONLY {
        return Err(not_writable(number));
    }
    // SAFETY: it makes a descriptor, or fails.
    match unsafe { libc::fcntl(descriptor, libc::F_DUPFD_CLOEXEC, 0) } {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: it is open, and nobody else has it.
        duplicate => Ok(unsafe { File::from_raw_fd(duplicate) }),
    }
}

/// What the process was started with under this number.
pub fn inherited(number: u32) -> io::Result<Metadata> {
    let Some(descriptor) = libc::c_int::try_from(number).ok().filter(is_inherited) else {
        return Err(ErrorKind::NotFound.into());
    };
    // SAFETY: it is open, and stays so: nobody closes what the process was started with.
    let borrowed = unsafe { BorrowedFd::borrow_raw(descriptor) };
    File::from(borrowed.try_clone_to_owned()?).metadata()
}

/// Whether it is open, and not one of the process's own, which are closed in the programs
/// that it starts.
fn is_inherited(descriptor: &libc::c_int) -> bool {
    // SAFETY: it only looks at the descriptor, and fails where that is closed.
    let flags = unsafe { libc::fcntl(*descriptor, libc::F_GETFD) };
    flags != -1 && flags & libc::FD_CLOEXEC == 0
}

fn not_writable(number: u32) -> io::Error {
    let message = format!(
        "the run was started without descriptor {number}, or it is not open for writing: start \
         the run with it (`{number}> FILE`), or write to another path"
    );
    io::Error::new(ErrorKind::NotFound, message)
}

/// As many as a pipeline may use.
const WANTED: libc::rlim_t = 1 << 16;

/// As many as a pipeline of some nodes needs, with its state.
const NEEDED: libc::rlim_t = 128;

/// Allows as many descriptors as the system lets the process have: what is allowed
/// without asking is little, for programs that count with it.
pub fn raise_limit() {
    let Some(mut limit) = limit() else {
        return;
    };
    limit.rlim_cur = limit.rlim_max.min(WANTED).max(limit.rlim_cur);
    // SAFETY: it only reads the limit. If it fails, fewer files are open at a time.
    unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
}

/// Says that there may be too few, if that is so.
pub fn few() -> Option<String> {
    let allowed = limit()?.rlim_cur;
    (allowed < NEEDED).then(|| {
        format!(
            "this process may have {allowed} files and connections open at a time, where {NEEDED} \
             are what a small pipeline needs: raise the limit (`ulimit -n`)"
        )
    })
}

/// What to do about an error that says that no more files can be opened.
pub fn advice(error: &str) -> Option<String> {
    // RocksDB has no code in its text.
    if !error.contains("Too many open files") {
        return None;
    }
    let allowed = limit()?.rlim_cur;
    few().or_else(|| {
        Some(format!(
            "this process may have {allowed} files and connections open at a time, and has them: \
             raise the limit (`ulimit -n`)"
        ))
    })
}

/// How many of the `wanted` descriptors each of so many tasks may have open. Half of all
/// are for everything else: state, sinks, sockets, threads.
pub fn share(wanted: usize, tasks: usize) -> usize {
    let allowed = limit().map_or(usize::MAX, |limit| {
        usize::try_from(limit.rlim_cur).unwrap_or(usize::MAX)
    });
    share_of(allowed, wanted, tasks)
}

fn share_of(allowed: usize, wanted: usize, tasks: usize) -> usize {
    (allowed / 2 / tasks.max(1)).clamp(1, wanted)
}

fn limit() -> Option<libc::rlimit> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: it only writes the limit.
    let got = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    (got == 0).then_some(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_share_what_is_allowed() {
        assert_eq!(share_of(1_024, 64, 4), 64);
        assert_eq!(share_of(256, 64, 4), 32);
        assert_eq!(share_of(256, 64, 256), 1);
        assert_eq!(share_of(usize::MAX, 1_024, 0), 1_024);
    }
}
