//! `squall-agent`: the privileged process of a host.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

/// The privileged process of a host: it injects faults, undoes them, and answers for both.
#[derive(Debug, Parser)]
#[command(name = "squall-agent", version, max_term_width = 100)]
struct Cli {
    /// Where journals are kept [default: /var/lib/squall for root, else $XDG_STATE_HOME/squall].
    #[arg(long, global = true, env = "SQUALL_STATE_DIR", value_name = "DIR")]
    state_dir: Option<PathBuf>,
    #[command(flatten)]
    agent: squall_agent::cli::Agent,
}

pub(crate) fn main() -> ExitCode {
    let cli = Cli::parse();
    cli.agent.run(cli.state_dir.as_deref()).into()
}
