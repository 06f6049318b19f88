//! The one binary; see [`sluicebox::cli`].

fn main() -> std::process::ExitCode {
    sluicebox::cli::main()
}
