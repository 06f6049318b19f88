//! Prints to stdout and stderr. A reader that is gone, as behind `| head`, is no
//! failure: what is printed for it is dropped.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};

use crate::descriptors::check_standard;
use crate::text::push_printable;

/// Prints to stdout.
pub fn stdout(text: impl Display) -> io::Result<()> {
    check_standard(1)?;
    print(&mut io::stdout().lock(), text)
}

/// Prints to stderr. There is nowhere to report that it cannot be written.
pub fn stderr(text: impl Display) {
    let _ = print(&mut io::stderr().lock(), text);
}

/// Prints what the parser of the command line answers, in colours if they are wanted:
/// mistakes to stderr, all else to stdout.
pub fn answer(answer: &clap::Error) -> io::Result<()> {
    if answer.use_stderr() {
        let _ = answer.print();
        return Ok(());
    }
    check_standard(1)?;
    unless_reader_is_gone(answer.print().and_then(|()| io::stdout().flush()))
}

/// Prints an error to stderr. Control characters are escaped, since it may quote
/// a row, a plugin or a broker.
pub fn error(message: impl Display) {
    let mut text = String::new();
    for character in message.to_string().chars() {
        match character {
            '\n' | '\t' => text.push(character),
            _ => push_printable(&mut text, character),
        }
    }
    stderr(format_args!("error: {text}\n"));
}

fn print(out: &mut impl Write, text: impl Display) -> io::Result<()> {
    unless_reader_is_gone(write!(out, "{text}").and_then(|()| out.flush()))
}

fn unless_reader_is_gone(printed: io::Result<()>) -> io::Result<()> {
    match printed {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}
