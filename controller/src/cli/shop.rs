//! `squall shop`.

use squall_experiments::exit::Exit;

/// Options of `squall shop`.
#[derive(Debug, clap::Args)]
pub struct Shop {}

impl Shop {
    /// Runs the verb.
    pub fn run(&self) -> anyhow::Result<Exit> {
        anyhow::bail!("under construction")
    }
}
