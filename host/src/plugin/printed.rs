//! Logs what a plugin prints to stdout, stderr and its log: as lines under the
//! operator's name, and only so much for each call and for each second. The lines of
//! a call that failed are held: they are logged only if it is not repeated in parts.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tracing::Level;

use crate::text::push_printable;

/// How many bytes of stderr are kept until a call ends: a panic's message comes
/// last.
const STDERR_BYTES_KEPT: usize = 4 << 10;
/// How many bytes one call may print; the rest is dropped.
pub const CALL_BYTES_MAX: usize = 16 << 10;
/// How many bytes an operator may log at once.
const BURST_BYTES: u64 = 256 << 10;
/// How many bytes it may log in each second after that: 1.4 GB a day.
const BYTES_PER_S: u64 = 16 << 10;
/// What a line has besides its text: time, level, pipeline, operator.
const LINE_BYTES: u64 = 100;
/// An operator that has logged too much is silent until it may log this much: what
/// it then logs are lines that belong together, not one here and there.
const RESUME_BYTES: u64 = 64 << 10;

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

/// The log of an operator, which all its instances write.
#[derive(Debug)]
pub struct OperatorLog {
    operator: String,
    allowances: Mutex<Allowances>,
}

/// Warnings and errors are not left out because there is so much else.
#[derive(Debug)]
struct Allowances {
    warnings: Allowance,
    others: Allowance,
}

impl OperatorLog {
    pub fn new(operator: &str) -> Arc<Self> {
        let now = Instant::now();
        Arc::new(OperatorLog {
            operator: operator.to_owned(),
            allowances: Mutex::new(Allowances {
                warnings: Allowance::full(now),
                others: Allowance::full(now),
            }),
        })
    }

    fn log(&self, lines: impl Iterator<Item = (Level, String)>) {
        let allowances = self.allowances.lock();
        let mut allowances = allowances.unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        allowances.warnings.refill(now);
        allowances.others.refill(now);
        for (level, line) in lines {
            let allowance = match level {
                Level::ERROR | Level::WARN => &mut allowances.warnings,
                _ => &mut allowances.others,
            };
            match allowance.take(line.len()) {
                Taken::Line => {}
                Taken::LineAfter(left_out) => self.tell_left_out(left_out),
                Taken::LastNote => {
                    let note = format!(
                        "… the plugin logs too much, and lines are left out: an operator may log \
                         {} KiB at once, and {} KiB a second then",
                        BURST_BYTES >> 10,
                        BYTES_PER_S >> 10
                    );
                    self.emit(Level::WARN, &note);
                    continue;
                }
                Taken::Nothing => continue,
            }
            self.emit(level, &line);
        }
    }

    fn tell_left_out(&self, lines: u64) {
        let note = format!("… {lines} lines of the plugin were left out");
        self.emit(Level::WARN, &note);
    }

    fn emit(&self, level: Level, text: &str) {
        let operator = &*self.operator;
        match level {
            Level::ERROR => tracing::error!(target: "plugin", operator, "{text}"),
            Level::WARN => tracing::warn!(target: "plugin", operator, "{text}"),
            Level::INFO => tracing::info!(target: "plugin", operator, "{text}"),
            Level::DEBUG => tracing::debug!(target: "plugin", operator, "{text}"),
            Level::TRACE => tracing::trace!(target: "plugin", operator, "{text}"),
        }
    }
}

impl Drop for OperatorLog {
    fn drop(&mut self) {
        let allowances = self.allowances.get_mut();
        let allowances = allowances.unwrap_or_else(PoisonError::into_inner);
        let left_out = [allowances.warnings.left_out, allowances.others.left_out];
        let left_out: u64 = left_out.into_iter().flatten().sum();
        if left_out > 0 {
            self.tell_left_out(left_out);
        }
    }
}

/// A token bucket of bytes.
#[derive(Debug)]
struct Allowance {
    bytes: u64,
    refilled: Instant,
    /// How many lines were left out since it was used up.
    left_out: Option<u64>,
}

/// What is logged in the place of a line.
#[derive(Debug, PartialEq, Eq)]
enum Taken {
    Line,
    /// The line, and how many were left out before it.
    LineAfter(u64),
    /// That lines are left out from here on.
    LastNote,
    Nothing,
}

impl Allowance {
    fn full(now: Instant) -> Self {
        Allowance {
            bytes: BURST_BYTES,
            refilled: now,
            left_out: None,
        }
    }

    fn refill(&mut self, now: Instant) {
        let waited = now.saturating_duration_since(self.refilled);
        let more = waited.as_millis() as u64 * BYTES_PER_S / 1000;
        if more > 0 {
            self.bytes = BURST_BYTES.min(self.bytes.saturating_add(more));
            self.refilled = now;
        }
    }

    /// Takes what a line of that many bytes needs.
    fn take(&mut self, bytes: usize) -> Taken {
        let bytes = bytes as u64 + LINE_BYTES;
        let needed = match self.left_out {
            Some(_) => RESUME_BYTES,
            None => bytes,
        };
        if self.bytes < needed {
            return match &mut self.left_out {
                Some(left_out) => {
                    *left_out += 1;
                    Taken::Nothing
                }
                None => {
                    self.left_out = Some(1);
                    Taken::LastNote
                }
            };
        }
        // A line has at most the bytes of a call, though escapes make it longer.
        self.bytes = self.bytes.saturating_sub(bytes);
        match self.left_out.take() {
            Some(left_out) => Taken::LineAfter(left_out),
            None => Taken::Line,
        }
    }
}

#[derive(Debug)]
pub struct Printed {
    log: Arc<OperatorLog>,
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
    pub fn new(log: Arc<OperatorLog>) -> Self {
        Printed {
            log,
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
        if !self.held.is_empty() {
            self.log.log(self.held.drain(..));
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
    use std::time::Duration;

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
            let mut printed = Printed::new(OperatorLog::new("clean"));
            print(&mut printed);
            let stderr = printed.end_call(false);
            drop(printed);
            stderr
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

    #[test]
    fn a_flood_is_cut_and_tells_so() {
        let (shown, _) = shown(|printed| {
            for call in 0..1000 {
                for line in 0..10 {
                    printed.log(Level::INFO, &format!("{call}/{line} {}", "x".repeat(100)));
                }
                printed.end_call(false);
            }
            printed.log(Level::ERROR, "what matters");
        });
        let lines: Vec<&str> = shown.lines().collect();
        assert!(shown.len() < 2 * BURST_BYTES as usize, "{}", shown.len());
        assert!(lines.len() > 1000, "{}", lines.len());
        let told = |text: &str| lines.iter().filter(|line| line.contains(text)).count();
        assert_eq!(told("logs too much"), 1);
        assert_eq!(told("what matters"), 1);
        let logged = told("xxx");
        let left_out = format!("… {} lines of the plugin were left out", 10_000 - logged);
        assert_eq!(told(&left_out), 1, "{logged}");
    }

    #[test]
    fn an_allowance_fills_again() {
        let start = Instant::now();
        let mut allowance = Allowance::full(start);
        let line = (1 << 10) - LINE_BYTES as usize;
        let mut logged = 0;
        while allowance.take(line) == Taken::Line {
            logged += 1;
        }
        assert_eq!(logged, BURST_BYTES >> 10);
        allowance.refill(start + Duration::from_secs(3));
        assert_eq!(allowance.take(line), Taken::Nothing);
        allowance.refill(start + Duration::from_secs(4));
        assert_eq!(allowance.take(line), Taken::LineAfter(2));
        assert_eq!(allowance.take(line), Taken::Line);
        // At most a burst, however long it was silent.
        allowance.refill(start + Duration::from_secs(3600));
        assert_eq!(allowance.bytes, BURST_BYTES);
        // A clock that is read more often than it moves loses nothing.
        let mut often = Allowance::full(start);
        often.bytes = 0;
        for us in 0..1_000_000 {
            often.refill(start + Duration::from_micros(us));
        }
        assert!(often.bytes >= BYTES_PER_S * 9 / 10, "{}", often.bytes);
    }
}
