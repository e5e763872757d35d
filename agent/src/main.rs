//! `squall-agent`: the privileged process of a host.

use std::process::ExitCode;

use clap::Parser;
use squall_agent::cli::Cli;

pub(crate) fn main() -> ExitCode {
    Cli::parse().run().into()
}
