//! The verbs about toxics.

use clap::Subcommand;
use hyper::Method;
use serde_json::{Map, Value, json};
use squall_experiments::exit::Exit;

use super::super::Common;
use super::client::{At, answered};
use super::print;

/// Options of `squall proxy toxic`.
#[derive(Debug, clap::Args)]
pub(super) struct Toxic {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Add a toxic to a proxy.
    #[command(visible_alias = "a", disable_help_flag = true)]
    Add(Add),
    /// Alter a toxic.
    #[command(visible_alias = "u", disable_help_flag = true)]
    Update(Update),
    /// Remove a toxic.
    #[command(visible_aliases = ["r", "delete", "d"], disable_help_flag = true)]
    Remove(Remove),
}

impl Toxic {
    pub(super) fn run(&self, common: &Common) -> anyhow::Result<Exit> {
        match &self.verb {
            Verb::Add(verb) => verb.run(common),
            Verb::Update(verb) => verb.run(common),
            Verb::Remove(verb) => verb.run(common),
        }
    }
}

fn attribute(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').ok_or("write it as `name=value`")?;
    let number = value.parse::<i64>().map(Value::from).ok();
    let number =
        number.or_else(|| Some(Value::from(value.parse::<f64>().ok().filter(|real| real.is_finite())?)));
    Ok((name.to_owned(), number.ok_or_else(|| format!("`{value}` is not a number"))?))
}

fn object(attributes: &[(String, Value)]) -> Map<String, Value> {
    attributes.iter().cloned().collect()
}

#[derive(Debug, clap::Args)]
struct Add {
    #[command(flatten)]
    at: At,
    /// What it does: latency, bandwidth, slow_close, timeout, reset_peer, slicer, limit_data, packet_loss, corrupt,
    /// limit_time or noop.
    #[arg(short = 't', long = "type")]
    kind: String,
    /// Its name; by default its type and direction.
    #[arg(short = 'n', long = "toxicName", alias = "name")]
    toxic: Option<String>,
    /// Which share of connections it concerns.
    #[arg(long, visible_alias = "tox", default_value_t = 1.0)]
    toxicity: f64,
    /// An attribute; may be repeated.
    #[arg(short, long = "attribute", value_name = "NAME=VALUE", value_parser = attribute)]
    attributes: Vec<(String, Value)>,
    /// What clients send.
    #[arg(short, long, conflicts_with = "downstream")]
    upstream: bool,
    /// What the dependency sends (the default).
    #[arg(short, long)]
    downstream: bool,
    /// The name of the proxy.
    proxy: String,
}

impl Add {
    fn run(&self, common: &Common) -> anyhow::Result<Exit> {
        let stream = if self.upstream { "upstream" } else { "downstream" };
        let mut body = json!({
            "type": self.kind,
            "stream": stream,
            "toxicity": self.toxicity,
            "attributes": object(&self.attributes),
        });
        if let Some(name) = &self.toxic {
            body["name"] = Value::from(name.as_str());
        }
        let asked = self.at.ask(Method::POST, &["proxies", &self.proxy, "toxics"], Some(&body));
        let toxic = answered!("add toxic", asked);
        let name = toxic["name"].as_str().unwrap_or_default();
        let words = format!("Added {stream} {} toxic '{name}' on proxy '{}'", self.kind, self.proxy);
        print::done(&words, &toxic, common)?;
        Ok(Exit::Held)
    }
}

#[derive(Debug, clap::Args)]
struct Update {
    #[command(flatten)]
    at: At,
    /// The name of the toxic.
    #[arg(short = 'n', long = "toxicName", alias = "name")]
    toxic: String,
    /// Which share of connections it concerns; without it, the share stays.
    #[arg(long, visible_alias = "tox")]
    toxicity: Option<f64>,
    /// An attribute; may be repeated. Those that are not named stay.
    #[arg(short, long = "attribute", value_name = "NAME=VALUE", value_parser = attribute)]
    attributes: Vec<(String, Value)>,
    /// The name of the proxy.
    proxy: String,
}

impl Update {
    fn run(&self, common: &Common) -> anyhow::Result<Exit> {
        let mut body = json!({ "attributes": object(&self.attributes) });
        if let Some(toxicity) = self.toxicity {
            body["toxicity"] = Value::from(toxicity);
        }
        let path = ["proxies", &self.proxy, "toxics", &self.toxic];
        let toxic = answered!("update toxic", self.at.ask(Method::POST, &path, Some(&body)));
        let words = format!("Updated toxic '{}' on proxy '{}'", self.toxic, self.proxy);
        print::done(&words, &toxic, common)?;
        Ok(Exit::Held)
    }
}

#[derive(Debug, clap::Args)]
struct Remove {
    #[command(flatten)]
    at: At,
    /// The name of the toxic.
    #[arg(short = 'n', long = "toxicName", alias = "name")]
    toxic: String,
    /// The name of the proxy.
    proxy: String,
}

impl Remove {
    fn run(&self, common: &Common) -> anyhow::Result<Exit> {
        let path = ["proxies", &self.proxy, "toxics", &self.toxic];
        let nothing = answered!("remove toxic", self.at.ask(Method::DELETE, &path, None));
        let words = format!("Removed toxic '{}' on proxy '{}'", self.toxic, self.proxy);
        print::done(&words, &nothing, common)?;
        Ok(Exit::Held)
    }
}
