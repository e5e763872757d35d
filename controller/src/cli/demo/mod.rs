//! `squall demo`.

use squall_experiments::exit::Exit;

/// Options of `squall demo`.
#[derive(Debug, clap::Args)]
pub struct Demo {}

impl Demo {
    /// Runs the verb.
    pub fn run(&self, _common: &super::Common) -> anyhow::Result<Exit> {
        anyhow::bail!("under construction")
    }
}
