//! `squall faults`.

use squall_experiments::exit::Exit;

/// Options of `squall faults`.
#[derive(Debug, clap::Args)]
pub struct Faults {}

impl Faults {
    /// Runs the verb.
    pub fn run(&self, _common: &super::Common) -> anyhow::Result<Exit> {
        anyhow::bail!("under construction")
    }
}
