//! The signals that end a command. They are blocked, and a thread takes them one after
//! the other: so none is lost, whenever it comes. A handler may run before anybody listens
//! to what it tells.

use std::io;
use std::mem::MaybeUninit;
use std::sync::{Arc, Mutex, PoisonError};

use libc::{SIGHUP, SIGINT, SIGTERM, c_int};

use crate::stop::Stop;

type Take = Box<dyn FnMut(c_int) + Send>;

/// What becomes of Ctrl-C, SIGTERM and SIGHUP.
#[derive(Clone, Default)]
pub struct Signals(Arc<Mutex<Option<Take>>>);

impl Signals {
    /// Takes signals for all threads that are started after this. Until somebody wants
    /// them, they end the process as they usually do. A SIGHUP that whoever has started the
    /// process ignores, as `nohup` does, stays ignored.
    pub fn start() -> io::Result<Signals> {
        let mut taken = vec![SIGINT, SIGTERM];
        if !is_ignored(SIGHUP) {
            taken.push(SIGHUP);
        }
        let set = set_of(&taken);
        mask(libc::SIG_BLOCK, &set)?;
        let signals = Signals::default();
        let wanted = signals.clone();
        std::thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || {
                loop {
                    let number = next(&set);
                    let mut take = wanted.0.lock().unwrap_or_else(PoisonError::into_inner);
                    match &mut *take {
                        Some(take) => take(number),
                        None => end_by(number),
                    }
                }
            })?;
        Ok(signals)
    }

    /// Has each signal from now on taken by `take`, which gets its number.
    pub fn take(&self, take: impl FnMut(c_int) + Send + 'static) {
        let mut wanted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *wanted = Some(Box::new(take));
    }
}

/// Asks to stop by the first signal, of which `message` tells, and ends the process by the
/// second.
pub fn stop_or_end(number: c_int, stop: &Stop, message: &'static str) {
    if stop.asked() {
        std::process::exit(128 + number);
    }
    stop.ask();
    log(message);
}

/// Logs what becomes of a signal, by a thread of its own: nobody may read the log, and the
/// next signal has to be taken meanwhile.
pub fn log(message: &'static str) {
    let logging = std::thread::Builder::new().spawn(move || tracing::info!("{message}"));
    // Without a thread more, it is not said.
    drop(logging);
}

fn set_of(numbers: &[c_int]) -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: `sigemptyset` makes the set, which the numbers, all valid, are added to.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for &number in numbers {
            libc::sigaddset(set.as_mut_ptr(), number);
        }
        set.assume_init()
    }
}

/// Changes which signals this thread blocks, and those that it starts.
fn mask(how: c_int, set: &libc::sigset_t) -> io::Result<()> {
    // SAFETY: the set is valid, and the old one is not asked for.
    match unsafe { libc::pthread_sigmask(how, set, std::ptr::null_mut()) } {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code)),
    }
}

/// Waits for one of these signals, which are blocked.
fn next(set: &libc::sigset_t) -> c_int {
    let mut number = 0;
    // SAFETY: both are valid. It fails only for a set with other numbers than signals have.
    while unsafe { libc::sigwait(set, &raw mut number) } != 0 {}
    number
}

/// Ends the process by a signal, as if nobody had taken it.
fn end_by(number: c_int) {
    // SAFETY: the signal's usual action takes the place of none: it is what it was.
    unsafe { libc::signal(number, libc::SIG_DFL) };
    if mask(libc::SIG_UNBLOCK, &set_of(&[number])).is_ok() {
        // SAFETY: it has no arguments but the signal.
        unsafe { libc::raise(number) };
    }
}

/// Whether the process was started with this signal ignored, as far as the system tells.
fn is_ignored(number: c_int) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
    ignored.is_some_and(|bits| bits >> (number - 1) & 1 == 1)
}
