//! Says of an error who has to do something about it, and whether trying again
//! can help.

use std::io::{self, ErrorKind};

use serde::Serialize;

/// Who has to do something about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Blame {
    /// Who sends the row: `on_error = "fail"` does not let it pass.
    Row,
    /// Who writes the plugin.
    Plugin,
    /// Who writes the pipeline's file.
    Config,
    /// Who runs what the host stands on: a disk, a file, a broker, a network.
    Outside,
    /// We.
    Bug,
}

/// What can be done about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    pub blame: Blame,
    /// The same may go well at another time, although nobody changes a row, a
    /// plugin or the pipeline's file.
    pub can_pass: bool,
}

impl Fault {
    /// The row would come again, and be as bad.
    pub const ROW: Fault = Fault::lasting(Blame::Row);
    /// Plugins have neither clock nor chance: they fail on the same input again.
    pub const PLUGIN: Fault = Fault::lasting(Blame::Plugin);
    /// A plugin that did not come to its end in time, as one may on a busy machine.
    pub const SLOW_PLUGIN: Fault = Fault {
        blame: Blame::Plugin,
        can_pass: true,
    };
    pub const CONFIG: Fault = Fault::lasting(Blame::Config);
    /// A broker is out of reach, a disk is full.
    pub const OUTSIDE: Fault = Fault {
        blame: Blame::Outside,
        can_pass: true,
    };
    /// Somebody has to put it right: a file is gone, access is denied.
    pub const OUTSIDE_LASTING: Fault = Fault::lasting(Blame::Outside);
    /// From the last checkpoint it may not happen again.
    pub const BUG: Fault = Fault {
        blame: Blame::Bug,
        can_pass: true,
    };

    const fn lasting(blame: Blame) -> Fault {
        Fault {
            blame,
            can_pass: false,
        }
    }

    /// Of an error of the operating system's.
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
            | ErrorKind::Unsupported => Fault::OUTSIDE_LASTING,
            _ => Fault::OUTSIDE,
        }
    }
}

impl Blame {
    /// As it is shown to people: where to look.
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
