//! `squall schema`.

use squall_experiments::document;
use squall_experiments::exit::Exit;

use super::{Common, print};

/// Options of `squall schema`.
#[derive(Debug, clap::Args)]
pub struct Schema {}

impl Schema {
    /// Prints the JSON Schema of experiment files: the one that `check` itself goes by.
    pub fn run(&self, _common: &Common) -> anyhow::Result<Exit> {
        print::json(document::schema())?;
        Ok(Exit::Held)
    }
}
