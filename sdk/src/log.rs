//! Writes lines to the host's log, which adds the operator's name. Outside of a
//! plugin, as in unit tests, they go to stderr.
//!
//! ```
//! use sluicebox_sdk::log;
//!
//! let rows = 3;
//! log::info!("took {rows} rows");
//! log::warn!("that is few");
//! ```

use std::fmt;

pub use crate::{
    __debug as debug, __error as error, __info as info, __trace as trace, __warn as warn,
};

/// The importance of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Every step.
    Trace,
    /// Helps to find a fault.
    Debug,
    /// Worth knowing.
    Info,
    /// Something may be wrong.
    Warn,
    /// Something is wrong.
    Error,
}

/// Writes one line; the macros of this module are shorter.
pub fn log(level: Level, message: fmt::Arguments<'_>) {
    #[cfg(target_family = "wasm")]
    {
        use crate::bindings::sluicebox::plugin::logging;
        let level = match level {
            Level::Trace => logging::Level::Trace,
            Level::Debug => logging::Level::Debug,
            Level::Info => logging::Level::Info,
            Level::Warn => logging::Level::Warn,
            Level::Error => logging::Level::Error,
        };
        match message.as_str() {
            Some(message) => logging::log(level, message),
            None => logging::log(level, &message.to_string()),
        }
    }
    #[cfg(not(target_family = "wasm"))]
    {
        let level = match level {
            Level::Trace => "TRACE",
            Level::Debug => "DEBUG",
            Level::Info => "INFO",
            Level::Warn => "WARN",
            Level::Error => "ERROR",
        };
        eprintln!("{level} {message}");
    }
}

#[doc(hidden)]
#[macro_export]
macro_rules! __trace {
    ($($message:tt)+) => {
        $crate::log::log($crate::log::Level::Trace, ::core::format_args!($($message)+))
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __debug {
    ($($message:tt)+) => {
        $crate::log::log($crate::log::Level::Debug, ::core::format_args!($($message)+))
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __info {
    ($($message:tt)+) => {
        $crate::log::log($crate::log::Level::Info, ::core::format_args!($($message)+))
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __warn {
    ($($message:tt)+) => {
        $crate::log::log($crate::log::Level::Warn, ::core::format_args!($($message)+))
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __error {
    ($($message:tt)+) => {
        $crate::log::log($crate::log::Level::Error, ::core::format_args!($($message)+))
    };
}
