//! Signals to a running host.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

pub fn send(host: &Child, signal: i32) {
    // SAFETY: the process is our child and has not been waited for.
    let sent = unsafe { libc::kill(host.id() as i32, signal) };
    assert_eq!(sent, 0);
}

/// Has a command take signals as it does when it is started from a terminal. The tests may
/// have been started by something that ignores them: `nohup`, or a shell in the background.
pub fn not_ignored(command: &mut Command) -> &mut Command {
    // SAFETY: between `fork` and `exec`, a signal's action may be set.
    unsafe {
        command.pre_exec(|| {
            for number in [libc::SIGHUP, libc::SIGINT, libc::SIGTERM] {
                libc::signal(number, libc::SIG_DFL);
            }
            Ok(())
        })
    }
}
