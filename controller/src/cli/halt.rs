//! `squall halt`.

use squall_experiments::exit::Exit;

/// Options of `squall halt`.
#[derive(Debug, clap::Args)]
pub struct Halt {}

impl Halt {
    /// Runs the verb.
    pub fn run(&self, _common: &super::Common) -> anyhow::Result<Exit> {
        anyhow::bail!("under construction")
    }
}
