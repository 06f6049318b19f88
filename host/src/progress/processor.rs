use std::time::Duration;

/// How much of the processors' time this thread has had since it began. Absent where the
/// system does not tell.
pub fn time_of_thread() -> Option<Duration> {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the pointer is that of a `timespec` of this function, which the call fills.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    let seconds = u64::try_from(time.tv_sec).ok().filter(|_| failed == 0)?;
    Some(Duration::new(seconds, u32::try_from(time.tv_nsec).ok()?))
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;
    use std::time::Instant;

    use super::*;

    #[test]
    fn work_takes_time_and_waiting_takes_none() {
        let begun = time_of_thread().expect("a time");
        std::thread::sleep(Duration::from_millis(200));
        let waited = time_of_thread().expect("a time");
        assert!(waited - begun < Duration::from_millis(100));
        let end = waited + Duration::from_millis(20);
        let patience = Instant::now();
        let mut turns = 0_u64;
        while time_of_thread().expect("a time") < end {
            turns = black_box(turns + 1);
            assert!(patience.elapsed() < Duration::from_secs(60), "of {turns}");
        }
    }
}
