//! Tells files of dead letters from those of others, by their first and their last line.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

use serde::Deserialize;
use serde::de::IgnoredAny;

/// What lines begin with, and those of earlier versions.
const BEGINNINGS: [&[u8]; 2] = [b"{\"pipeline\":\"", b"{\"node\":\""];

/// What dead letters of all versions have.
const FIELDS: [&str; 6] = ["node", "kind", "error", "panic", "payload", "row"];

const BLOCK_BYTES: usize = 64 << 10;

/// Whether a file has dead letters, or nothing.
pub(super) fn is_of_letters(file: &File) -> io::Result<bool> {
    let length = file.metadata()?.len();
    Ok(length == 0 || (is_letter(file, 0)? && is_letter(file, last_line(file, length)?)?))
}

/// Whether a dead letter begins at this byte, or what a crash has left of one.
pub(super) fn is_letter(mut file: &File, at: u64) -> io::Result<bool> {
    file.seek(SeekFrom::Start(at))?;
    let mut reader = BufReader::with_capacity(BLOCK_BYTES, file);
    let text = reader.fill_buf()?;
    let line = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let begins = |beginning: &&[u8]| {
        let length = line.len().min(beginning.len());
        length > 0 && line[..length] == beginning[..length]
    };
    if !BEGINNINGS.iter().any(begins) {
        return Ok(false);
    }
    let mut json = serde_json::Deserializer::from_reader(reader);
    match BTreeMap::<String, IgnoredAny>::deserialize(&mut json) {
        Ok(fields) => Ok(FIELDS.iter().all(|field| fields.contains_key(*field))),
        Err(cause) if cause.is_io() => Err(cause.into()),
        // It was cut off, and has got its end since.
        Err(_) => Ok(true),
    }
}

/// Where the last line of a file begins that has so many bytes.
fn last_line(file: &File, length: u64) -> io::Result<u64> {
    let mut block = vec![0; BLOCK_BYTES];
    // The last byte is the line's end, or belongs to it.
    let mut end = length - 1;
    while end > 0 {
        let start = end.saturating_sub(BLOCK_BYTES as u64);
        let block = &mut block[..(end - start) as usize];
        file.read_exact_at(block, start)?;
        if let Some(before) = memchr::memrchr(b'\n', block) {
            return Ok(start + before as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const LETTER: &str = r#"{"pipeline":"p","started_ms":7,"checkpoint":3,"node":"n","plugin":null,"plugin_digest":null,"kind":"decode","error":"e","panic":null,"source":null,"partition":null,"offset":1,"event_time":null,"payload":"a\nb","payload_base64":null,"row":null}"#;
    const EARLIER: &str = r#"{"node":"n","plugin":null,"kind":"decode","error":"e","panic":null,"payload":"x","row":null}"#;

    fn is_taken(text: &str) -> bool {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(text.as_bytes()).expect("it is writable");
        is_of_letters(&file).expect("it can be read")
    }

    #[test]
    fn dead_letters_are_known_wherever_a_crash_has_cut_them() {
        assert!(is_taken(""));
        for letter in [LETTER, EARLIER] {
            let lines = format!("{letter}\n").repeat(3);
            for cut in 1..=lines.len() {
                assert!(is_taken(&lines[..cut]), "{cut}");
                let ended = format!("{}\n", &lines[..cut].trim_end());
                assert!(is_taken(&ended), "{cut}");
                assert!(is_taken(&format!("{ended}{letter}\n")), "{cut}");
            }
        }
        let long = LETTER.replace("a\\nb", &"x".repeat(3 * BLOCK_BYTES));
        assert!(is_taken(&format!("{long}\n{long}\n")));
    }

    #[test]
    fn other_files_are_not_dead_letters() {
        let row = r#"{"id":"a","n":1}"#;
        let log = r#"{"node":"n1","kind":"info","error":"none"}"#;
        for text in [
            "\n",
            "id,n\na,1\n",
            row,
            log,
            "{\n  \"pipeline\": \"p\"\n}\n",
            r#"{"pipeline":"p","n":1}"#,
            r#"[{"pipeline":"p"}]"#,
            "hunter2",
            "\u{0}\u{1}",
            &format!("{LETTER}\n{row}\n"),
            &format!("{LETTER}\n{row}"),
            &format!("{row}\n{LETTER}\n"),
            &format!("{LETTER}\n\n"),
            &format!("{LETTER}\n{}", "x".repeat(3 * BLOCK_BYTES)),
        ] {
            assert!(!is_taken(text), "{text}");
            assert!(!is_taken(&format!("{text}\n")), "{text}");
        }
    }
}
