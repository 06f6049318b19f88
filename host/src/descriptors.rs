//! How many files and connections the process may have open at a time.

/// As many as a pipeline may use.
const WANTED: libc::rlim_t = 1 << 16;

/// Allows as many descriptors as the system lets the process have: what is allowed
/// without asking is little, for programs that count with it.
pub fn raise_limit() {
    let Some(mut limit) = limit() else {
        return;
    };
    limit.rlim_cur = limit.rlim_max.min(WANTED).max(limit.rlim_cur);
    // SAFETY: it only reads the limit. If it fails, fewer files are open at a time.
    unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
}

/// How many of the `wanted` descriptors each of so many tasks may have open. Half of all
/// are for everything else: state, sinks, sockets, threads.
pub fn share(wanted: usize, tasks: usize) -> usize {
    let allowed = limit().map_or(usize::MAX, |limit| {
        usize::try_from(limit.rlim_cur).unwrap_or(usize::MAX)
    });
    share_of(allowed, wanted, tasks)
}

fn share_of(allowed: usize, wanted: usize, tasks: usize) -> usize {
    (allowed / 2 / tasks.max(1)).clamp(1, wanted)
}

fn limit() -> Option<libc::rlimit> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: it only writes the limit.
    let got = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) };
    (got == 0).then_some(limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_share_what_is_allowed() {
        assert_eq!(share_of(1_024, 64, 4), 64);
        assert_eq!(share_of(256, 64, 4), 32);
        assert_eq!(share_of(256, 64, 256), 1);
        assert_eq!(share_of(usize::MAX, 1_024, 0), 1_024);
    }
}
