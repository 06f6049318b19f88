//! Runs that are as long as a test needs them, whatever the speed of the host.

use std::time::{Duration, Instant};

/// How long a run is to take.
const WHILE: Duration = Duration::from_millis(700);

/// A fast host gets so many times the rows that are tried.
const TIMES_MAX: f64 = 20.0;

/// How many rows a run takes a while for here, by how long it takes for these. So kills come
/// before its end, and it ends soon.
pub fn rows_for_a_while(tried: i64, run: impl FnOnce()) -> i64 {
    let began = Instant::now();
    run();
    let wanted = WHILE.as_secs_f64() / began.elapsed().as_secs_f64();
    let rows = (tried as f64 * wanted.clamp(1.0, TIMES_MAX)) as i64;
    eprintln!("runs have {rows} rows");
    rows
}
