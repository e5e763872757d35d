//! `squall run`.

use squall_experiments::exit::Exit;

/// Options of `squall run`.
#[derive(Debug, clap::Args)]
pub struct Run {}

impl Run {
    /// Runs the verb.
    pub fn run(&self, _common: &super::Common) -> anyhow::Result<Exit> {
        anyhow::bail!("under construction")
    }
}
