//! `squall man`: a manual page for each verb.

use std::fs;
use std::path::PathBuf;

use anyhow::Context;
use clap::CommandFactory;
use squall_experiments::exit::Exit;

use super::{Cli, Common};

/// Options of `squall man`.
#[derive(Debug, clap::Args)]
pub struct Man {
    /// Where the pages are written; made where it is not there.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

impl Man {
    /// Writes `squall.1`, `squall-run.1` and so on, and those of `squall-agent`.
    pub fn run(&self, _: &Common) -> anyhow::Result<Exit> {
        let written = || -> std::io::Result<()> {
            fs::create_dir_all(&self.folder)?;
            clap_mangen::generate_to(Cli::command(), &self.folder)?;
            // Last: `squall agent` has the same verbs, and its pages have the same names.
            clap_mangen::generate_to(squall_agent::cli::Cli::command(), &self.folder)
        };
        written().with_context(|| format!("the pages cannot be written to `{}`", self.folder.display()))?;
        Ok(Exit::Held)
    }
}
