//! `squall`: run experiments from a terminal, a pipeline or a game day.

mod cli;

use std::process::ExitCode;

use squall_experiments::exit::Exit;

fn main() -> ExitCode {
    // A panic has said what it has to say; its exit code is the one of a bug.
    std::panic::catch_unwind(cli::main).unwrap_or_else(|_| Exit::Bug.into())
}
