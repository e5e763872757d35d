//! `squall init`.

use squall_experiments::exit::Exit;

/// Options of `squall init`.
#[derive(Debug, clap::Args)]
pub struct Init {}

impl Init {
    /// Runs the verb.
    pub fn run(&self, _common: &super::Common) -> anyhow::Result<Exit> {
        anyhow::bail!("under construction")
    }
}
