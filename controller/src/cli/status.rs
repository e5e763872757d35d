//! `squall status`.

use squall_experiments::exit::Exit;

/// Options of `squall status`.
#[derive(Debug, clap::Args)]
pub struct Status {}

impl Status {
    /// Runs the verb.
    pub fn run(&self, _common: &super::Common) -> anyhow::Result<Exit> {
        anyhow::bail!("under construction")
    }
}
