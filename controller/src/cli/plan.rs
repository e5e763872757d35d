//! `squall plan`.

use squall_experiments::exit::Exit;

/// Options of `squall plan`.
#[derive(Debug, clap::Args)]
pub struct Plan {}

impl Plan {
    /// Runs the verb.
    pub fn run(&self, _common: &super::Common) -> anyhow::Result<Exit> {
        anyhow::bail!("under construction")
    }
}
