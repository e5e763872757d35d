//! `squall schema`.

use squall_experiments::exit::Exit;

/// Options of `squall schema`.
#[derive(Debug, clap::Args)]
pub struct Schema {}

impl Schema {
    /// Runs the verb.
    pub fn run(&self, _common: &super::Common) -> anyhow::Result<Exit> {
        anyhow::bail!("under construction")
    }
}
