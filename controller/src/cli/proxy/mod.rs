//! `squall proxy`: a drop-in for Toxiproxy's server and command line.

mod api;
mod client;
mod observe;
mod print;
mod proxies;
mod serve;
mod toxics;

use clap::Subcommand;
use squall_experiments::exit::Exit;

use super::Common;

/// Options of `squall proxy`.
#[derive(Debug, clap::Args)]
pub struct Proxy {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Carry connections to dependencies, and do to them what the interface is told. Needs no privilege.
    Serve(serve::Serve),
    /// List the proxies.
    #[command(visible_aliases = ["l", "li", "ls"], disable_help_flag = true)]
    List(proxies::List),
    /// Show a proxy and its toxics.
    #[command(visible_aliases = ["i", "ins"], disable_help_flag = true)]
    Inspect(proxies::Inspect),
    /// Make a proxy.
    #[command(visible_aliases = ["c", "new"], disable_help_flag = true)]
    Create(proxies::Create),
    /// Alter a proxy's addresses.
    #[command(disable_help_flag = true)]
    Update(proxies::Update),
    /// Turn a proxy off, or on again.
    #[command(visible_aliases = ["tog"], disable_help_flag = true)]
    Toggle(proxies::Toggle),
    /// End a proxy.
    #[command(visible_aliases = ["d"], disable_help_flag = true)]
    Delete(proxies::Delete),
    /// Add, alter and remove what is done to a proxy's connections.
    #[command(visible_aliases = ["t"])]
    Toxic(toxics::Toxic),
    /// Print what was seen of connections and requests, one JSON object a line.
    #[command(disable_help_flag = true)]
    Observe(observe::Observe),
}

impl Proxy {
    pub fn run(self, common: &Common) -> anyhow::Result<Exit> {
        match self.verb {
            Verb::Serve(verb) => verb.run(),
            Verb::List(verb) => verb.run(common),
            Verb::Inspect(verb) => verb.run(common),
            Verb::Create(verb) => verb.run(common),
            Verb::Update(verb) => verb.run(common),
            Verb::Toggle(verb) => verb.run(common),
            Verb::Delete(verb) => verb.run(common),
            Verb::Toxic(verb) => verb.run(common),
            Verb::Observe(verb) => verb.run(),
        }
    }
}
