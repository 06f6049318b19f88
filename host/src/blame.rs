//! Says of an error who has to do something about it, and whether trying again
//! can help.

use std::error::Error;
use std::io::{self, ErrorKind};

use serde::Serialize;
use utoipa::ToSchema;

use crate::descriptors;

/// Who has to do something about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Blame {
    /// Whoever sends the row: the run stops at it, as `on_error = "fail"` says, or since
    /// nothing can be decided about it.
    Row,
    /// The plugin's author.
    Plugin,
    /// The author of the pipeline's file.
    Config,
    /// Whoever runs what the host depends on: disks, files, brokers, networks.
    Outside,
    /// The authors of Sluicebox.
    Bug,
}

/// What can be done about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    pub blame: Blame,
    /// Whether trying again may succeed although nobody changes a row, a plugin
    /// or the pipeline's file.
    pub can_pass: bool,
    /// Whether the run would go on without the row by another `on_error`.
    pub has_policy: bool,
}

/// What has caused an error, the nearest first.
pub fn causes<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(error.source(), |&cause| cause.source())
}

/// An error with what is below it: many say little of that.
pub fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut all = error.to_string();
    for cause in causes(error) {
        let cause = cause.to_string();
        if !all.contains(&cause) {
            all.push_str(": ");
            all.push_str(&cause);
        }
    }
    all
}

impl Fault {
    /// The same row would fail again, and `on_error` decides about it.
    pub const ROW: Fault = Fault {
        has_policy: true,
        ..Fault::lasting(Blame::Row)
    };
    /// The same row would fail again, and the run cannot go on without it.
    pub const FATAL_ROW: Fault = Fault::lasting(Blame::Row);
    /// Plugins have no clock and no randomness: the same input fails again.
    pub const PLUGIN: Fault = Fault::lasting(Blame::Plugin);
    /// A plugin call that took too long, which may be due to a busy machine.
    pub const SLOW_PLUGIN: Fault = Fault::passing(Blame::Plugin);
    pub const CONFIG: Fault = Fault::lasting(Blame::Config);
    /// For example, a broker cannot be reached, or a disk is full.
    pub const OUTSIDE: Fault = Fault::passing(Blame::Outside);
    /// Somebody has to repair it: a file is missing, access is denied.
    pub const OUTSIDE_LASTING: Fault = Fault::lasting(Blame::Outside);
    /// It may not happen again after a restart from the last checkpoint.
    pub const BUG: Fault = Fault::passing(Blame::Bug);

    /// Whether it is the rows that do it, by themselves or by what a plugin makes of them.
    pub fn is_of_row(self) -> bool {
        matches!(self.blame, Blame::Row | Blame::Plugin)
    }

    pub const fn lasting(blame: Blame) -> Fault {
        Fault {
            blame,
            can_pass: false,
            has_policy: false,
        }
    }

    pub const fn passing(blame: Blame) -> Fault {
        Fault {
            can_pass: true,
            ..Fault::lasting(blame)
        }
    }

    /// The fault of an error from the operating system.
    pub fn of_io(cause: &io::Error) -> Fault {
        match cause.kind() {
            ErrorKind::NotFound
            | ErrorKind::PermissionDenied
            | ErrorKind::AlreadyExists
            | ErrorKind::NotADirectory
            | ErrorKind::IsADirectory
            | ErrorKind::ReadOnlyFilesystem
            | ErrorKind::InvalidFilename
            | ErrorKind::InvalidInput
            | ErrorKind::InvalidData
            | ErrorKind::AddrNotAvailable
            | ErrorKind::TooManyLinks
            | ErrorKind::CrossesDevices
            | ErrorKind::NotSeekable
            | ErrorKind::Unsupported => Fault::OUTSIDE_LASTING,
            // Said by the host itself: two runs share what one alone can use.
            ErrorKind::ResourceBusy if cause.raw_os_error().is_none() => Fault::OUTSIDE_LASTING,
            kind if is_loop(kind) || cause.raw_os_error().is_some_and(is_lasting) => {
                Fault::OUTSIDE_LASTING
            }
            _ if cause.raw_os_error() == Some(libc::EMFILE) => Fault::too_many_open(),
            _ => Fault::OUTSIDE,
        }
    }

    /// The fault where no more files can be opened: with so few, it never goes well.
    pub fn too_many_open() -> Fault {
        match descriptors::few() {
            Some(_) => Fault::OUTSIDE_LASTING,
            None => Fault::OUTSIDE,
        }
    }
}

/// Links that lead in a circle: the kind has no name yet.
fn is_loop(kind: ErrorKind) -> bool {
    kind == io::Error::from_raw_os_error(libc::ELOOP).kind()
}

/// Of the errors whose kind says nothing: what is there is not such a thing, or the
/// machine has no such thing.
fn is_lasting(code: i32) -> bool {
    [
        libc::ENXIO,
        libc::ENODEV,
        libc::ENOTTY,
        libc::EOVERFLOW,
        libc::ENOTSOCK,
        libc::EAFNOSUPPORT,
        libc::EPROTONOSUPPORT,
        libc::ESOCKTNOSUPPORT,
        libc::EPFNOSUPPORT,
    ]
    .contains(&code)
}

impl Fault {
    /// What somebody has to do now, in a sentence.
    pub fn advice(self) -> &'static str {
        match (self.blame, self.can_pass) {
            (Blame::Row, _) if self.has_policy => {
                "the row would fail again: correct it at its source, or have `on_error` skip such \
                 rows or keep them as dead letters"
            }
            (Blame::Row, _) => {
                "the row would fail again: correct it at its source, or have an operator leave \
                 such rows out"
            }
            (Blame::Plugin, true) => {
                "the plugin may be quicker on a machine that does less: start the pipeline again, \
                 or raise `limits.time`"
            }
            (Blame::Plugin, false) => {
                "the plugin would fail again: correct and build it, then start the pipeline again"
            }
            (Blame::Config, _) => {
                "starting it again in the same way does not help: change the pipeline's file, or how \
                 it is started, as the message says"
            }
            (Blame::Outside, true) => {
                "the cause lies outside the host and may pass: start the pipeline again when it has"
            }
            (Blame::Outside, false) => {
                "the cause lies outside the host and does not pass by itself: put it right, then \
                 start the pipeline again"
            }
            (Blame::Bug, _) => "this is a bug of the host: please report it with this message",
        }
    }
}

impl Blame {
    /// Where to look, as messages say it.
    pub fn name(self) -> &'static str {
        match self {
            Blame::Row => "a row",
            Blame::Plugin => "a plugin",
            Blame::Config => "the pipeline's file",
            Blame::Outside => "what is outside the host",
            Blame::Bug => "a bug of the host",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What files and sockets give on Linux.
    #[test]
    fn errors_of_the_operating_system_that_can_pass_are_known() {
        let can_pass = [
            libc::ESRCH,
            libc::EINTR,
            libc::EIO,
            libc::E2BIG,
            libc::EBADF,
            libc::ECHILD,
            libc::EAGAIN,
            libc::ENOMEM,
            libc::EFAULT,
            libc::EBUSY,
            libc::ENFILE,
            libc::EMFILE,
            libc::ETXTBSY,
            // A limit of the user's, or the file grows too large: it may be taken away.
            libc::EFBIG,
            libc::ENOSPC,
            libc::EPIPE,
            libc::ENETDOWN,
            libc::ENETUNREACH,
            libc::ENETRESET,
            libc::ECONNABORTED,
            libc::ECONNRESET,
            libc::ENOBUFS,
            libc::ENOTCONN,
            libc::ETIMEDOUT,
            libc::ECONNREFUSED,
            libc::EHOSTDOWN,
            libc::EHOSTUNREACH,
            libc::EADDRINUSE,
            libc::ESTALE,
            libc::EDQUOT,
            libc::EREMOTEIO,
        ];
        for code in can_pass {
            let cause = io::Error::from_raw_os_error(code);
            assert!(Fault::of_io(&cause).can_pass, "{code}: {cause}");
        }
        let lasting = [
            libc::EPERM,
            libc::ENOENT,
            libc::EACCES,
            libc::ENXIO,
            libc::EEXIST,
            libc::EXDEV,
            libc::ENODEV,
            libc::ENOTDIR,
            libc::EISDIR,
            libc::EINVAL,
            libc::ENOTTY,
            libc::ESPIPE,
            libc::EROFS,
            libc::EMLINK,
            libc::ENAMETOOLONG,
            libc::ENOSYS,
            libc::ELOOP,
            libc::EOVERFLOW,
            libc::ENOTSOCK,
            libc::EOPNOTSUPP,
            libc::EAFNOSUPPORT,
            libc::EPROTONOSUPPORT,
            libc::EADDRNOTAVAIL,
        ];
        for code in lasting {
            let cause = io::Error::from_raw_os_error(code);
            assert!(!Fault::of_io(&cause).can_pass, "{code}: {cause}");
            // Also if it says more than the operating system does.
            let said = io::Error::new(cause.kind(), format!("cannot do it: {cause}"));
            let has_kind = !format!("{:?}", cause.kind()).contains("Uncategorized");
            assert!(!has_kind || !Fault::of_io(&said).can_pass, "{code}: {said}");
        }
    }
}
