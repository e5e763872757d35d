//! The part of `squall serve` that people and pipelines talk to.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use futures_util::future::BoxFuture;
use squall_controller::api::engine::{Engine, Live, Planned, Submission};
use squall_controller::api::server::{Listening, tls};
use squall_controller::api::{self, Api};
use squall_controller::fleet::{Authority, Hub};
use squall_controller::store::{Minted, Secrets, Store, Where};
use squall_experiments::fleet::JoinToken;
use squall_experiments::protocol::{Lifted, Refusal};

/// The file in the data directory with the first administrator's token.
const FIRST: &str = "admin-token";
/// The file there with the certificate of the controller's own authority.
const CA: &str = "ca.pem";

/// Options of the interface.
#[derive(Debug, clap::Args)]
pub struct Interface {
    /// Where it listens for people and pipelines. Off this machine it speaks TLS, with a certificate of its own authority
    /// unless one is given.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8416")]
    listen: SocketAddr,
    /// A name or address by which people call it, besides loopback's; may be repeated. By other names it does not answer.
    #[arg(long = "name", value_name = "NAME")]
    names: Vec<String>,
    /// The certificate chain (PEM) that it shows to people.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The key of that certificate (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Keep everything in PostgreSQL instead of the data directory: `postgres://user@host/name`. With a password in it,
    /// set the environment variable: every user of a machine can read the arguments of its processes.
    #[arg(long, env = "SQUALL_DATABASE", hide_env_values = true, value_name = "URL")]
    database: Option<String>,
}

/// The interface, ready to be served.
pub struct Ready {
    api: Arc<Api>,
    listening: Listening,
}

impl Interface {
    /// Where the store is.
    pub fn place(&self, data: &Path) -> Where {
        match &self.database {
            Some(url) => Where::Postgres(url.clone()),
            None => Where::Sqlite(data.to_owned()),
        }
    }

    /// Listens. The first time it also makes an administrator's token and says in which file that is.
    pub async fn open(
        &self,
        data: &Path,
        store: &Store,
        hub: &Hub,
        authority: &Arc<Authority>,
    ) -> anyhow::Result<Ready> {
        let secrets = Secrets::open(data)?;
        store.bind(&secrets).await?;
        let mut names: BTreeSet<String> = self.names.iter().cloned().collect();
        if !self.listen.ip().is_unspecified() {
            names.insert(self.listen.ip().to_string());
        }
        let config = match (&self.tls_cert, &self.tls_key) {
            (Some(chain), Some(key)) => Some(tls(chain, key)?),
            _ if self.listen.ip().to_canonical().is_loopback() => None,
            _ => {
                let names: Vec<String> = names.iter().cloned().collect();
                Some(authority.for_people(&names).context("no certificate for the interface")?)
            }
        };
        // By this people's commands know the certificate: `--ca`.
        secrets.replace(CA, authority.pem().as_bytes())?;
        let scheme = if config.is_some() { "https" } else { "http" };
        let listening = Listening::on(self.listen, config).await?;
        if let Some(first) = api::first_token(store, &secrets).await? {
            secrets.replace(FIRST, format!("{}\n", first.token).as_bytes())?;
            eprintln!("the first administrator's token is in `{}`", secrets.path(FIRST).display());
        }
        eprintln!(
            "squall serves people at `{scheme}://{}`; it keeps everything in {}",
            listening.address()?,
            store.place()
        );
        let engine = Arc::new(OverHub { hub: hub.clone(), authority: Arc::clone(authority) });
        Ok(Ready { api: Api::new(store.clone(), secrets, engine, names), listening })
    }
}

impl Ready {
    /// Serves until `shutdown`, then lets requests end.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) {
        self.listening.serve(&self.api, shutdown).await;
    }
}

/// What the interface asks for, of the hosts that are connected.
struct OverHub {
    hub: Hub,
    authority: Arc<Authority>,
}

impl OverHub {
    fn no_runs() -> Refusal {
        Refusal::new(
            "this controller does not run experiments over its hosts",
            "run it on the host: `squall run FILE`",
        )
    }
}

impl Engine for OverHub {
    fn hosts(&self) -> BoxFuture<'_, Vec<Live>> {
        let hosts = self.hub.hosts().into_iter().map(|host| Live {
            name: host.name,
            kernel: host.kernel,
            version: host.version,
            connected: host.connected,
            last_contact_ms: host.last_contact_ms,
            preflight: host.preflight,
            holds: host.holds,
        });
        let hosts = hosts.collect();
        Box::pin(async move { hosts })
    }

    fn plan<'a>(&'a self, _: &'a Submission) -> BoxFuture<'a, Result<Planned, Refusal>> {
        Box::pin(async { Err(Self::no_runs()) })
    }

    fn start<'a>(&'a self, _: &'a str, _: Submission) -> BoxFuture<'a, Result<(), Refusal>> {
        Box::pin(async { Err(Self::no_runs()) })
    }

    fn halt_run<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<(), Refusal>> {
        Box::pin(async { Ok(()) })
    }

    fn halt<'a>(
        &'a self,
        hosts: Option<&'a [String]>,
    ) -> BoxFuture<'a, BTreeMap<String, Result<Lifted, Refusal>>> {
        Box::pin(self.hub.halt(hosts))
    }

    fn join_token(&self) -> Minted {
        let token = JoinToken::new(rand::random(), self.authority.fingerprint());
        Minted { hash: token.hash(), token: token.to_string() }
    }

    fn cut_off(&self, host: &str) {
        self.hub.cut_off(host);
    }
}
