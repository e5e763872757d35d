//! The prober: an unprivileged process that runs probes and actions for a conductor or a worker.

use squall_experiments::exit::Exit;

/// Options of the hidden `squall prober`.
#[derive(Debug, clap::Args)]
pub struct Prober {
    /// Run as this user; without it as `nobody` where the process is root.
    #[arg(long)]
    user: Option<String>,
}

impl Prober {
    /// Drops every privilege, then serves standard input until its end. The process must be single-threaded.
    pub fn run(&self) -> Exit {
        Exit::Bug
    }
}
