//! `squall inject`.

use squall_experiments::exit::Exit;

/// Options of `squall inject`.
#[derive(Debug, clap::Args)]
pub struct Inject {}

impl Inject {
    /// Runs the verb.
    pub fn run(&self, _common: &super::Common) -> anyhow::Result<Exit> {
        anyhow::bail!("under construction")
    }
}
