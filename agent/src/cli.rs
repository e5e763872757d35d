//! `squall-agent …` and `squall agent …`: the same verbs.

use std::path::Path;

use clap::Subcommand;
use squall_experiments::exit::Exit;

/// The agent's verbs.
#[derive(Debug, clap::Args)]
pub struct Agent {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Serve this network namespace until nobody needs it.
    Run {
        /// Speak on standard input, which is a connected socket, and leave when idle.
        #[arg(long, hide = true)]
        on_stdin: bool,
    },
    /// Say what is active here.
    Status,
    /// Say what works on this host, and what is missing.
    Preflight,
    /// Undo what a dead agent left behind. Needs nothing else to run.
    Recover,
}

impl Agent {
    /// Runs a verb in the calling process, which must still be single-threaded.
    pub fn run(self, _state_dir: Option<&Path>) -> Exit {
        Exit::Bug
    }
}
