//! Prints to stdout and stderr. A reader that is gone, as behind `| head`, is no
//! failure: what is printed for it is dropped.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};

use serde::Serialize;

use crate::config::{Diagnostics, Look};
use crate::credentials;
use crate::descriptors::check_standard;
use crate::text::{printable, printable_json};

/// Prints to stdout. What could control a terminal is escaped, here and in all that follows:
/// it may quote a row, a plugin, a broker or a file's name.
pub fn stdout(text: impl Display) -> io::Result<()> {
    check_standard(1)?;
    print(&mut io::stdout().lock(), &printable(&text.to_string()))
}

/// Prints JSON to stdout: on one line, or as people read it.
pub fn json(value: &impl Serialize, is_pretty: bool) -> io::Result<()> {
    check_standard(1)?;
    let text = match is_pretty {
        true => serde_json::to_string_pretty(value),
        false => serde_json::to_string(value),
    }?;
    print(
        &mut io::stdout().lock(),
        &format!("{}\n", printable_json(&text)),
    )
}

/// Prints a line to stdout. Returns whether somebody may still read.
pub fn line(text: &str) -> io::Result<bool> {
    check_standard(1)?;
    let mut out = io::stdout().lock();
    let written = writeln!(out, "{}", printable(text)).and_then(|()| out.flush());
    match written {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        written => written.map(|()| true),
    }
}

/// Prints to stderr. There is nowhere to report that it cannot be written.
pub fn stderr(text: impl Display) {
    let _ = print(&mut io::stderr().lock(), &printable(&text.to_string()));
}

/// Prints mistakes or warnings to stderr, in colours if they are wanted. They are escaped
/// before they are drawn.
pub fn diagnostics(mistakes: &Diagnostics) {
    let drawn = mistakes.render(Look::for_stderr());
    let _ = print(&mut io::stderr().lock(), &drawn);
}

/// Prints what the parser of the command line answers, in colours if they are wanted:
/// mistakes to stderr, all else to stdout.
pub fn answer(answer: &clap::Error) -> io::Result<()> {
    if answer.use_stderr() {
        let plain = answer.render().to_string();
        match printable(&plain) == plain && credentials::hidden(&plain) == plain {
            true => drop(answer.print()),
            // It quotes arguments, whose characters cannot be told from its colours.
            false => stderr(credentials::hidden(&plain)),
        }
        return Ok(());
    }
    check_standard(1)?;
    unless_reader_is_gone(answer.print().and_then(|()| io::stdout().flush()))
}

/// Prints an error to stderr.
pub fn error(message: impl Display) {
    let message = message.to_string();
    stderr(format_args!("error: {}\n", credentials::hidden(&message)));
}

fn print(out: &mut impl Write, text: &str) -> io::Result<()> {
    unless_reader_is_gone(out.write_all(text.as_bytes()).and_then(|()| out.flush()))
}

fn unless_reader_is_gone(printed: io::Result<()>) -> io::Result<()> {
    match printed {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}
