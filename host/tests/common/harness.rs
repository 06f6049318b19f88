//! A harness for tests that need something that may be absent, and then report
//! themselves as ignored. The standard harness must know that before a test runs.

use std::process::ExitCode;

use libtest_mimic::{Arguments, Completion, Trial};

/// What a test needs and this machine does not have.
#[derive(Clone, Debug)]
pub struct Absent(pub String);

/// The result of a test that does not panic.
pub type Outcome = Result<(), Absent>;

/// A test by its name.
pub type Test = (&'static str, fn() -> Outcome);

/// The `main` of a test program. A test that is not listed is dead code, which
/// is a warning.
macro_rules! tests {
    ($($test:ident),+ $(,)?) => {
        fn main() -> std::process::ExitCode {
            $crate::harness::run(&[$((stringify!($test), $test)),+])
        }
    };
}

pub fn run(tests: &[Test]) -> ExitCode {
    let trials = tests.iter().map(|&(name, test)| {
        Trial::ignorable_test(name, move || match test() {
            Ok(()) => Ok(Completion::Completed),
            Err(Absent(what)) => Ok(Completion::ignored_with(what)),
        })
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}
