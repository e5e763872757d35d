//! The part of `squall serve` that people and pipelines talk to.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use squall_agent::talk;
use squall_controller::api::server::{Listening, tls};
use squall_controller::api::{self, Api, Approvals};
use squall_controller::config::Config;
use squall_controller::fleet::{Authority, Hub};
use squall_controller::runs::Runs;
use squall_controller::store::{Secrets, Store, Where};
use squall_controller::traces::Traces;
use squall_experiments::exit::Exit;
use tokio::signal::unix::Signal;

/// The file in the data directory with the first administrator's token.
const FIRST: &str = "admin-token";
/// The file there with the certificate of the controller's own authority.
const CA: &str = "ca.pem";

/// The folder in the data directory with the secrets of experiments, each a file with the secret's name.
const SECRETS: &str = "secrets";

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
    /// The configuration: calendars, change freezes, gates, budget, notifications. It is read once, at the start.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Keep everything in PostgreSQL instead of the data directory: `postgres://user@host/name?sslmode=verify-full`; on
    /// this machine without the last. With a password in it, set the environment variable: every user of a machine can read
    /// the arguments of its processes.
    #[arg(long, env = "SQUALL_DATABASE", hide_env_values = true, value_name = "URL")]
    database: Option<String>,
    /// Whether a run needs a plan that another person has approved than who submitted it.
    #[arg(long, value_enum, default_value_t = Approvals::Optional)]
    approvals: Approvals,
}

/// The interface, ready to be served.
pub struct Ready {
    api: Arc<Api>,
    runs: Runs,
    listening: Listening,
    shared: bool,
}

impl Interface {
    /// Where the store is.
    pub fn place(&self, data: &Path) -> Where {
        match &self.database {
            Some(url) => Where::Postgres(url.clone()),
            None => Where::Sqlite(data.to_owned()),
        }
    }

    /// Says whether the configuration could be used; one that could not is exit code 3.
    pub fn check(&self) -> Exit {
        match (&self.config, self.config()) {
            (Some(file), Ok(_)) => {
                eprintln!("`{}` is right, and what it names can be read", file.display());
                Exit::Held
            }
            (None, _) => {
                eprintln!("error: there is nothing to check; help: name the configuration with --config");
                Exit::Usage
            }
            (_, Err(error)) => {
                let told = format!("{error:#}");
                // What is wrong with the document is told as it is everywhere, each problem with its place.
                let prefix = if told.starts_with("error: ") { "" } else { "error: " };
                eprintln!("{prefix}{}", told.trim_end());
                Exit::Invalid
            }
        }
    }

    /// The configuration; without a file, one that limits nothing.
    fn config(&self) -> anyhow::Result<Config> {
        let Some(file) = &self.config else { return Ok(Config::default()) };
        let bytes = std::fs::read(file).with_context(|| format!("cannot read `{}`", file.display()))?;
        let folder = file.parent().unwrap_or(Path::new(""));
        let config = Config::read(&file.display().to_string(), &bytes, folder)
            .map_err(|problems| anyhow::anyhow!("{}", problems.render(false)))?;
        // A calendar that cannot be used would keep everything from running; better it is said now.
        config.calendars()?;
        // So would a gate whose token is not there.
        for gate in &config.gates {
            gate.unusable().map_err(|why| anyhow::anyhow!("{why}"))?;
        }
        // And with a secret that is not there nobody would hear of what goes wrong.
        for receiver in &config.notify {
            receiver.unusable().map_err(|why| anyhow::anyhow!("{why}"))?;
        }
        Ok(config)
    }

    /// Listens. The first time it also makes an administrator's token and says in which file that is.
    pub async fn open(
        &self,
        data: &Path,
        store: &Store,
        hub: &Hub,
        authority: &Arc<Authority>,
        traces: Traces,
    ) -> anyhow::Result<Ready> {
        let meant = self.config()?;
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
        let listening = Listening::on(self.listen, config).await?.at_most(hub.room().callers());
        if let Some(first) = api::first_token(store, &secrets).await? {
            secrets.replace(FIRST, format!("{}\n", first.token).as_bytes())?;
            let place = secrets.path(FIRST);
            talk::notice(format_args!("the first administrator's token is in `{}`", place.display()), &[]);
        }
        let (address, place) = (listening.address()?, store.place());
        let words = format!("squall serves people at `{scheme}://{address}`; it keeps everything in {place}");
        talk::notice(words, &[]);
        let (version, authority) = (env!("CARGO_PKG_VERSION"), Arc::clone(authority));
        let runs = Runs::new(hub.clone(), store.clone(), authority, data.join(SECRETS), version, traces);
        let engine = Arc::new(runs.clone());
        // From here on the store writes down what people are to be told of, also of runs that are closed below.
        let api = Api::under(meant, store.clone(), secrets, engine, names, self.approvals);
        // Where others share the store, a run without an end may be one of theirs.
        if self.database.is_none() {
            store.release_game_days().await?;
            let left = runs.close_interrupted().await?;
            if left > 0 {
                tracing::warn!(runs = left, "runs that were not ended are interrupted");
            }
        }
        Ok(Ready { api, runs, listening, shared: self.database.is_some() })
    }
}

impl Ready {
    /// Serves until `shutdown`, then ends all runs, and lets requests end. Each `halt` is one of everything.
    pub async fn serve(self, shutdown: impl Future<Output = ()>, mut halt: Signal) {
        let (runs, others, scheduler) = (self.runs.clone(), self.runs, self.api.scheduler().clone());
        let gamedays = self.api.gamedays().clone();
        let over = async move {
            // Schedules and game days begin nothing any more once it is told to end.
            tokio::select! {
                () = shutdown => {}
                () = scheduler.run() => {}
                () = gamedays.run() => {}
            }
            runs.close().await;
        };
        let taking = async {
            match self.shared {
                true => tokio::select! {
                    never = others.take_over() => never,
                    never = others.hear_halts() => never,
                    never = others.hear_revocations() => never,
                },
                false => std::future::pending().await,
            }
        };
        let halting = async {
            while halt.recv().await.is_some() {
                let api = Arc::clone(&self.api);
                tokio::spawn(async move { api.halt_everything("SIGUSR1", "halted by a signal").await });
            }
            std::future::pending::<()>().await
        };
        let notifier = self.api.notifier().clone();
        tokio::select! {
            () = self.listening.serve(&self.api, over) => {}
            never = taking => match never {},
            () = notifier.run() => {}
            () = halting => {}
        }
    }
}
