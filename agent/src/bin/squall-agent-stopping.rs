//! The agent with its stopping points armed: the same program, for tests alone.

use std::process::ExitCode;

#[path = "../main.rs"]
mod program;

fn main() -> ExitCode {
    program::main()
}
