//! Logs what a plugin prints to stdout, stderr and its log: as lines under the
//! operator's name, and only so much for each call. The lines of a call that failed
//! are held: they are logged only if it is not repeated in parts.

use std::sync::Arc;

use tracing::Level;

use crate::text::push_printable;

/// How many bytes of stderr are kept until a call ends: a panic's message comes
/// last.
const STDERR_BYTES_KEPT: usize = 4 << 10;
/// How many bytes one call may print; the rest is dropped.
pub const CALL_BYTES_MAX: usize = 16 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    fn level(self) -> Level {
        match self {
            Stream::Stdout => Level::INFO,
            Stream::Stderr => Level::WARN,
        }
    }
}

#[derive(Debug)]
pub struct Printed {
    label: Arc<str>,
    bytes_left: usize,
    cut: bool,
    stdout_line: Vec<u8>,
    stderr_line: Vec<u8>,
    /// The last bytes of stderr, logged or not.
    stderr: Vec<u8>,
    /// Lines of the call, or of the last call if that has failed.
    held: Vec<(Level, String)>,
}

impl Printed {
    pub fn new(label: Arc<str>) -> Self {
        Printed {
            label,
            bytes_left: CALL_BYTES_MAX,
            cut: false,
            stdout_line: Vec::new(),
            stderr_line: Vec::new(),
            stderr: Vec::new(),
            held: Vec::new(),
        }
    }

    pub fn write(&mut self, stream: Stream, bytes: &[u8]) {
        if stream == Stream::Stderr {
            self.keep(bytes);
        }
        if !is_shown(stream.level()) {
            return;
        }
        let bytes = &bytes[..self.allowed(bytes.len())];
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            let line = match stream {
                Stream::Stdout => &mut self.stdout_line,
                Stream::Stderr => &mut self.stderr_line,
            };
            line.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                let line = std::mem::take(line);
                self.line(stream.level(), &line);
            }
        }
    }

    pub fn log(&mut self, level: Level, message: &str) {
        if !is_shown(level) {
            return;
        }
        let allowed = self.allowed(message.len());
        self.line(level, &message.as_bytes()[..allowed]);
    }

    /// Ends a call: logs its lines, or holds them if it has failed, and returns the
    /// end of stderr. The next call may print as much again.
    pub fn end_call(&mut self, has_failed: bool) -> Option<String> {
        let stderr = self.finish_lines();
        if !has_failed {
            self.log_held();
        }
        stderr
    }

    /// Logs the lines of the last call, if it has failed.
    pub fn log_held(&mut self) {
        let operator = &*self.label;
        for (level, text) in self.held.drain(..) {
            match level {
                Level::ERROR => tracing::error!(target: "plugin", operator, "{text}"),
                Level::WARN => tracing::warn!(target: "plugin", operator, "{text}"),
                Level::INFO => tracing::info!(target: "plugin", operator, "{text}"),
                Level::DEBUG => tracing::debug!(target: "plugin", operator, "{text}"),
                Level::TRACE => tracing::trace!(target: "plugin", operator, "{text}"),
            }
        }
    }

    fn finish_lines(&mut self) -> Option<String> {
        if self.bytes_left == CALL_BYTES_MAX && self.stderr.is_empty() {
            return None;
        }
        for stream in [Stream::Stdout, Stream::Stderr] {
            let line = match stream {
                Stream::Stdout => std::mem::take(&mut self.stdout_line),
                Stream::Stderr => std::mem::take(&mut self.stderr_line),
            };
            if !line.is_empty() {
                self.line(stream.level(), &line);
            }
        }
        if self.cut {
            let note = format!("… cut: a call may print {CALL_BYTES_MAX} bytes");
            self.line(Level::WARN, note.as_bytes());
        }
        self.bytes_left = CALL_BYTES_MAX;
        self.cut = false;
        let stderr = std::mem::take(&mut self.stderr);
        let stderr = String::from_utf8_lossy(&stderr).trim().to_owned();
        (!stderr.is_empty()).then_some(stderr)
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.stderr.extend_from_slice(bytes);
        // At intervals, so that bytes are not moved at each call.
        if self.stderr.len() > 2 * STDERR_BYTES_KEPT {
            self.stderr.drain(..self.stderr.len() - STDERR_BYTES_KEPT);
        }
    }

    fn allowed(&mut self, bytes: usize) -> usize {
        let allowed = bytes.min(self.bytes_left);
        self.cut |= allowed < bytes;
        self.bytes_left -= allowed;
        allowed
    }

    /// Escapes control characters: a plugin must not be able to forge lines of
    /// the log, or to control a terminal.
    fn line(&mut self, level: Level, line: &[u8]) {
        let line = line.trim_ascii_end();
        if line.is_empty() {
            return;
        }
        let mut text = String::with_capacity(line.len());
        for character in String::from_utf8_lossy(line).chars() {
            match character {
                '\t' => text.push(character),
                _ => push_printable(&mut text, character),
            }
        }
        self.held.push((level, text));
    }
}

/// Whether lines of this level are logged. Those that are not do not count.
fn is_shown(level: Level) -> bool {
    match level {
        Level::ERROR => tracing::enabled!(target: "plugin", Level::ERROR),
        Level::WARN => tracing::enabled!(target: "plugin", Level::WARN),
        Level::INFO => tracing::enabled!(target: "plugin", Level::INFO),
        Level::DEBUG => tracing::enabled!(target: "plugin", Level::DEBUG),
        Level::TRACE => tracing::enabled!(target: "plugin", Level::TRACE),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Mutex;

    use expect_test::expect;

    use super::*;

    #[derive(Clone, Default)]
    struct Shown(Arc<Mutex<Vec<u8>>>);

    impl Write for Shown {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// What is logged of what `print` prints, and what is kept of stderr.
    fn shown(print: impl FnOnce(&mut Printed)) -> (String, Option<String>) {
        let shown = Shown::default();
        let writer = shown.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .without_time()
            .with_ansi(false)
            .finish();
        let stderr = tracing::subscriber::with_default(subscriber, || {
            let mut printed = Printed::new("clean".into());
            print(&mut printed);
            printed.end_call(false)
        });
        let shown = String::from_utf8(shown.0.lock().unwrap().clone()).unwrap();
        (shown, stderr)
    }

    #[test]
    fn lines_are_shown_as_lines_of_the_operator() {
        let (shown, stderr) = shown(|printed| {
            printed.write(Stream::Stdout, b"one li");
            printed.write(Stream::Stderr, b"amidst\n\n");
            printed.write(Stream::Stdout, b"ne\nforged\x1b[31m\rline\nnot UTF-8 \xff");
            printed.log(Level::ERROR, "two\nlines");
            printed.log(Level::DEBUG, &"not shown".repeat(CALL_BYTES_MAX));
        });
        expect![[r#"
             WARN plugin: amidst operator="clean"
             INFO plugin: one line operator="clean"
             INFO plugin: forged\u{1b}[31m\rline operator="clean"
            ERROR plugin: two\nlines operator="clean"
             INFO plugin: not UTF-8 � operator="clean"
        "#]]
        .assert_eq(&shown);
        assert_eq!(stderr.as_deref(), Some("amidst"));
    }

    #[test]
    fn the_lines_of_a_failed_call_are_held() {
        let (shown, stderr) = shown(|printed| {
            printed.log(Level::INFO, "before it is repeated in parts");
            assert_eq!(printed.end_call(true), None);
            printed.held.clear();
            printed.log(Level::ERROR, "the failing row");
            printed.write(Stream::Stderr, b"panicked\n");
            assert_eq!(printed.end_call(true).as_deref(), Some("panicked"));
            printed.log_held();
            printed.log(Level::INFO, "the next call");
        });
        expect![[r#"
            ERROR plugin: the failing row operator="clean"
             WARN plugin: panicked operator="clean"
             INFO plugin: the next call operator="clean"
        "#]]
        .assert_eq(&shown);
        assert_eq!(stderr, None);
    }

    #[test]
    fn a_call_prints_so_much_and_no_more() {
        let (shown, stderr) = shown(|printed| {
            for _ in 0..10_000 {
                printed.write(Stream::Stdout, b"again and again\n");
                printed.write(Stream::Stderr, b"and again\n");
            }
            printed.write(Stream::Stderr, b"panicked at last\n");
        });
        assert!(shown.len() < 4 * CALL_BYTES_MAX, "{}", shown.len());
        assert!(shown.contains("… cut: a call may print 16384 bytes"));
        let stderr = stderr.unwrap_or_default();
        assert!(stderr.ends_with("and again\npanicked at last"), "{stderr}");
        assert!(stderr.len() <= 2 * STDERR_BYTES_KEPT, "{}", stderr.len());
    }

    #[test]
    fn calls_are_counted_apart() {
        let (shown, stderr) = shown(|printed| {
            for _ in 0..3 {
                printed.end_call(false);
                printed.write(Stream::Stderr, &[b'x'; CALL_BYTES_MAX]);
            }
        });
        assert_eq!(shown.matches('x').count(), 3 * CALL_BYTES_MAX);
        assert!(!shown.contains("cut"));
        assert!(stderr.is_some());
        let (_, stderr) = self::shown(|_| {});
        assert_eq!(stderr, None);
    }
}
