//! `squall schema`.

use squall_controller::api::openapi;
use squall_experiments::document;
use squall_experiments::exit::Exit;

use super::{Common, print};

/// Options of `squall schema`.
#[derive(Debug, clap::Args)]
pub struct Schema {
    /// The OpenAPI document of a controller's interface instead.
    #[arg(long)]
    api: bool,
}

impl Schema {
    /// Prints the JSON Schema of experiment files: the one that `check` itself goes by.
    pub fn run(&self, _common: &Common) -> anyhow::Result<Exit> {
        match self.api {
            true => print::json(&openapi::document())?,
            false => print::json(document::schema())?,
        }
        Ok(Exit::Held)
    }
}
