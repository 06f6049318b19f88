//! What a host says, that runs until it ends.

use std::process::Command;

/// Whether it went well, and what it said. Nothing may have the password.
pub fn said(command: &mut Command) -> (bool, String) {
    let output = command.output().expect("the host runs");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(!said.contains("s3cret"), "{said}");
    (output.status.success(), said)
}

/// Its error, without what it said before.
pub fn error_in(said: &str) -> String {
    let lines = said.lines().skip_while(|line| !line.starts_with("error"));
    lines.collect::<Vec<_>>().join("\n") + "\n"
}
