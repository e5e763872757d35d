//! `squall schema`.

use squall_agent::policy;
use squall_controller::api::openapi;
use squall_controller::config;
use squall_experiments::exit::Exit;
use squall_experiments::{document, schedule};

use super::{Common, print};

/// Options of `squall schema`.
#[derive(Debug, clap::Args)]
pub struct Schema {
    /// The OpenAPI document of a controller's interface instead.
    #[arg(long)]
    api: bool,
    /// The JSON Schema of schedule files instead.
    #[arg(long, conflicts_with = "api")]
    schedule: bool,
    /// The JSON Schema of a controller's configuration instead.
    #[arg(long, conflicts_with_all = ["api", "schedule"])]
    controller: bool,
    /// The JSON Schema of a host's policy instead.
    #[arg(long, conflicts_with_all = ["api", "schedule", "controller"])]
    policy: bool,
}

impl Schema {
    /// Prints the JSON Schema of experiment files, or of others: the one that each is read by.
    pub fn run(&self, _common: &Common) -> anyhow::Result<Exit> {
        let api;
        let schema = match self {
            Schema { api: true, .. } => {
                api = openapi::document();
                &api
            }
            Schema { schedule: true, .. } => schedule::schema(),
            Schema { controller: true, .. } => config::schema(),
            Schema { policy: true, .. } => policy::schema(),
            _ => document::schema(),
        };
        print::json(schema)?;
        Ok(Exit::Held)
    }
}
