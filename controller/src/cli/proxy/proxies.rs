//! The verbs about proxies.

use std::fs;
use std::path::PathBuf;

use anyhow::Context;
use hyper::Method;
use serde_json::{Value, json};
use squall_experiments::exit::Exit;

use super::super::Common;
use super::client::{At, answered};
use super::print;

/// Options of `squall proxy list`.
#[derive(Debug, clap::Args)]
pub(super) struct List {
    #[command(flatten)]
    at: At,
}

impl List {
    pub(super) fn run(&self, common: &Common) -> anyhow::Result<Exit> {
        let proxies = answered!("retrieve proxies", self.at.ask(Method::GET, &["proxies"], None));
        print::proxies(&proxies, common)?;
        Ok(Exit::Held)
    }
}

/// Options of `squall proxy inspect`.
#[derive(Debug, clap::Args)]
pub(super) struct Inspect {
    #[command(flatten)]
    at: At,
    /// The name of the proxy.
    name: String,
}

impl Inspect {
    pub(super) fn run(&self, common: &Common) -> anyhow::Result<Exit> {
        let asked = self.at.ask(Method::GET, &["proxies", &self.name], None);
        let proxy = answered!(&format!("retrieve proxy {}", self.name), asked);
        print::proxy(&proxy, common)?;
        Ok(Exit::Held)
    }
}

/// Options of `squall proxy create`.
#[derive(Debug, clap::Args)]
pub(super) struct Create {
    #[command(flatten)]
    at: At,
    /// Where clients connect, `host:port`.
    #[arg(short, long)]
    listen: String,
    /// Where the dependency is, `host:port`.
    #[arg(short, long)]
    upstream: String,
    /// What the proxy understands of what flows: `tcp` or `http`.
    #[arg(long)]
    protocol: Option<String>,
    /// Speak TLS with clients, with the certificate in this file (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The key of that certificate (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// It is the certificate of an authority: one is issued for the name that each client asks for.
    #[arg(long, requires = "tls_cert")]
    tls_authority: bool,
    /// Speak TLS with the dependency.
    #[arg(long)]
    upstream_tls: bool,
    /// Who may have signed its certificate (PEM), instead of whom the system trusts.
    #[arg(long, value_name = "FILE", requires = "upstream_tls")]
    upstream_ca: Option<PathBuf>,
    /// The name that its certificate must carry, instead of the one in its address.
    #[arg(long, value_name = "NAME", requires = "upstream_tls")]
    upstream_name: Option<String>,
    /// Any certificate will do.
    #[arg(long, requires = "upstream_tls")]
    upstream_insecure: bool,
    /// The name of the proxy.
    name: String,
}

impl Create {
    /// What is asked for beside what Toxiproxy knows.
    fn extend(&self, body: &mut Value) -> anyhow::Result<()> {
        let read = |path: &PathBuf| {
            fs::read_to_string(path).with_context(|| format!("`{}` cannot be read", path.display()))
        };
        if let Some(protocol) = &self.protocol {
            body["protocol"] = Value::from(protocol.as_str());
        }
        if let (Some(cert), Some(key)) = (&self.tls_cert, &self.tls_key) {
            body["tls"] = json!({ "cert": read(cert)?, "key": read(key)?, "authority": self.tls_authority });
        }
        if self.upstream_tls {
            let ca = self.upstream_ca.as_ref().map(read).transpose()?;
            let (name, insecure) = (&self.upstream_name, self.upstream_insecure);
            body["upstream_tls"] = json!({ "ca": ca, "name": name, "insecure": insecure });
        }
        Ok(())
    }

    pub(super) fn run(&self, common: &Common) -> anyhow::Result<Exit> {
        let mut body =
            json!({ "name": self.name, "listen": self.listen, "upstream": self.upstream, "enabled": true });
        self.extend(&mut body)?;
        let proxy = answered!("create proxy", self.at.ask(Method::POST, &["proxies"], Some(&body)));
        print::done(&format!("Created new proxy {}", self.name), &proxy, common)?;
        Ok(Exit::Held)
    }
}

/// Options of `squall proxy update`.
#[derive(Debug, clap::Args)]
pub(super) struct Update {
    #[command(flatten)]
    at: At,
    /// Where clients connect from now on.
    #[arg(short, long, required_unless_present = "upstream")]
    listen: Option<String>,
    /// Where the dependency is from now on.
    #[arg(short, long)]
    upstream: Option<String>,
    /// The name of the proxy.
    name: String,
}

impl Update {
    pub(super) fn run(&self, common: &Common) -> anyhow::Result<Exit> {
        let mut body = json!({});
        for (field, value) in [("listen", &self.listen), ("upstream", &self.upstream)] {
            if let Some(value) = value {
                body[field] = Value::from(value.as_str());
            }
        }
        let asked = self.at.ask(Method::POST, &["proxies", &self.name], Some(&body));
        let proxy = answered!(&format!("update proxy {}", self.name), asked);
        print::done(&format!("Updated proxy {}", self.name), &proxy, common)?;
        Ok(Exit::Held)
    }
}

/// Options of `squall proxy toggle`.
#[derive(Debug, clap::Args)]
pub(super) struct Toggle {
    #[command(flatten)]
    at: At,
    /// The name of the proxy.
    name: String,
}

impl Toggle {
    pub(super) fn run(&self, common: &Common) -> anyhow::Result<Exit> {
        let path = ["proxies", self.name.as_str()];
        let verb = format!("toggle proxy {}", self.name);
        let proxy = answered!(&verb, self.at.ask(Method::GET, &path, None));
        let body = json!({ "enabled": proxy["enabled"] != true });
        let proxy = answered!(&verb, self.at.ask(Method::POST, &path, Some(&body)));
        let state = if proxy["enabled"] == true { "enabled" } else { "disabled" };
        print::done(&format!("Proxy {} is now {state}", self.name), &proxy, common)?;
        Ok(Exit::Held)
    }
}

/// Options of `squall proxy delete`.
#[derive(Debug, clap::Args)]
pub(super) struct Delete {
    #[command(flatten)]
    at: At,
    /// The name of the proxy.
    name: String,
}

impl Delete {
    pub(super) fn run(&self, common: &Common) -> anyhow::Result<Exit> {
        let asked = self.at.ask(Method::DELETE, &["proxies", &self.name], None);
        let nothing = answered!(&format!("delete proxy {}", self.name), asked);
        print::done(&format!("Deleted proxy {}", self.name), &nothing, common)?;
        Ok(Exit::Held)
    }
}
