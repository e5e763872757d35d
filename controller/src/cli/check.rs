//! `squall check`.

use squall_experiments::exit::Exit;

/// Options of `squall check`.
#[derive(Debug, clap::Args)]
pub struct Check {}

impl Check {
    /// Runs the verb.
    pub fn run(&self, _common: &super::Common) -> anyhow::Result<Exit> {
        anyhow::bail!("under construction")
    }
}
