//! The verbs about toxics.

use std::fs;

use clap::Subcommand;
use hyper::Method;
use serde_json::{Map, Value, json};
use squall_agent::proxy::toxics::KINDS;
use squall_agent::proxy::toxics::values::Attribute;
use squall_experiments::exit::Exit;
use squall_experiments::quantity::Period;

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
    let words = KINDS.iter().flat_map(|kind| kind.attributes).any(|(known, default)| {
        *known == name && matches!(default, Attribute::Text(_) | Attribute::Secret(_))
    });
    let value = match value.strip_prefix('@') {
        _ if !words => number(value)?,
        None => Value::from(value),
        Some(path) => Value::from(
            fs::read_to_string(path).map_err(|error| format!("`{path}` cannot be read: {error}"))?,
        ),
    };
    Ok((name.to_owned(), value))
}

fn number(text: &str) -> Result<Value, String> {
    let whole = text.parse::<i64>().map(Value::from).ok();
    let number =
        whole.or_else(|| Some(Value::from(text.parse::<f64>().ok().filter(|real| real.is_finite())?)));
    number.ok_or_else(|| format!("`{text}` is not a number"))
}

/// `client=10.0.0.0/8`, `nth=3`, `header=x-tenant:acme-*`: one thing that a toxic asks of those whom it concerns.
fn matcher(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').ok_or("write it as `name=value`")?;
    let value = match name {
        "nth" | "every" | "first" => number(value)?,
        "header" => match value.split_once(':') {
            Some((header, pattern)) => json!({ header: pattern.trim() }),
            None => json!({ value: null }),
        },
        _ => Value::from(value),
    };
    Ok((name.to_owned(), value))
}

/// What was given twice is meant as a list, or as two headers.
fn merged(matchers: &[(String, Value)]) -> Value {
    let mut object = Map::new();
    for (name, value) in matchers {
        let merged = match (object.remove(name), value) {
            (None, value) => value.clone(),
            (Some(Value::Object(mut headers)), Value::Object(more)) => {
                headers.extend(more.clone());
                Value::Object(headers)
            }
            (Some(Value::Array(mut values)), value) => {
                values.push(value.clone());
                Value::Array(values)
            }
            (Some(first), value) => json!([first, value]),
        };
        object.insert(name.clone(), merged);
    }
    Value::Object(object)
}

fn object(attributes: &[(String, Value)]) -> Map<String, Value> {
    attributes.iter().cloned().collect()
}

#[derive(Debug, clap::Args)]
struct Add {
    #[command(flatten)]
    at: At,
    /// What it does, such as latency, bandwidth, timeout, reset_peer, limit_data or connect_refuse (docs/proxy.md).
    #[arg(short = 't', long = "type")]
    kind: String,
    /// Its name; by default its type and direction.
    #[arg(short = 'n', long = "toxicName", alias = "name")]
    toxic: Option<String>,
    /// Which share of connections it concerns.
    #[arg(long, visible_alias = "tox", default_value_t = 1.0)]
    toxicity: f64,
    /// An attribute; may be repeated. Words may stand in a file: `cert=@FILE`.
    #[arg(short, long = "attribute", value_name = "NAME=VALUE", value_parser = attribute)]
    attributes: Vec<(String, Value)>,
    /// Whom it concerns, such as client=10.0.0.0/8, nth=3, every=2, first=5, method=GET, path=/pay/*,
    /// header=x-tenant:acme-* or grpc=shop.Payments/*; may be repeated, and all of them must hold.
    #[arg(short, long = "match", value_name = "NAME=VALUE", value_parser = matcher)]
    matchers: Vec<(String, Value)>,
    /// After which time it ends by itself, such as `30s`.
    #[arg(long, value_name = "TIME")]
    expires_in: Option<Period>,
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
        if !self.matchers.is_empty() {
            body["match"] = merged(&self.matchers);
        }
        if let Some(expires) = self.expires_in {
            body["expires_in"] = Value::from(expires.as_millis());
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
