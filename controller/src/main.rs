//! `squall`: run experiments from a terminal, a pipeline or a game day.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
