//! `squall proxy serve`: the proxy, and the interface of Toxiproxy in front of it.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use squall_agent::proxy::control::Control;
use squall_agent::proxy::observations::{KEPT, Observations};
use squall_experiments::exit::Exit;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::filter::LevelFilter;

use super::api::{self, Api, Metrics, VERSION};

/// How many descriptors are wanted.
const DESCRIPTORS: u64 = 65_536;

/// Options of `squall proxy serve`.
#[derive(Debug, clap::Args)]
pub(super) struct Serve {
    /// Where the interface listens.
    #[arg(long, default_value = "localhost")]
    host: String,
    /// At which port; 0 is any free one.
    #[arg(long, default_value_t = 8474)]
    port: u16,
    /// Proxies to begin with: a JSON file with an array, as for `/populate`. Their toxics may stand in it.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Makes every choice repeatable: which connections a toxic concerns, jitter, losses. By default another each time.
    #[arg(long)]
    seed: Option<u64>,
    /// How many observations of connections and requests are kept; 0 turns them off.
    #[arg(long, default_value_t = KEPT, value_name = "N")]
    observations: usize,
    /// Offer metrics of proxies at `/metrics`.
    #[arg(long)]
    proxy_metrics: bool,
    /// Offer metrics of this process at `/metrics`.
    #[arg(long)]
    runtime_metrics: bool,
    /// What is logged: panic, fatal, error, warn, info, debug or trace.
    #[arg(long, env = "LOG_LEVEL", default_value = "info", hide_env_values = true, value_parser = level)]
    log_level: LevelFilter,
}

/// The levels of the reference, which has more names than we have levels.
fn level(name: &str) -> Result<LevelFilter, String> {
    match name.to_ascii_lowercase().as_str() {
        "panic" | "fatal" | "error" => Ok(LevelFilter::ERROR),
        "warn" | "warning" => Ok(LevelFilter::WARN),
        "info" | "" => Ok(LevelFilter::INFO),
        "debug" => Ok(LevelFilter::DEBUG),
        "trace" => Ok(LevelFilter::TRACE),
        _ => Err("write `panic`, `fatal`, `error`, `warn`, `info`, `debug` or `trace`".to_owned()),
    }
}

impl Serve {
    pub(super) fn run(&self) -> anyhow::Result<Exit> {
        let log = tracing_subscriber::fmt().json().flatten_event(true).with_max_level(self.log_level);
        let _ = log.with_writer(std::io::stdout).try_init();
        raise_descriptors();
        let seed = self.seed.unwrap_or_else(rand::random);
        let control = Control::observing(seed, Observations::new(self.observations))
            .context("the proxy cannot be started")?;
        self.populate(&control);
        let metrics = Metrics { proxies: self.proxy_metrics, runtime: self.runtime_metrics };
        let api = Arc::new(Api { control, metrics });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let exit = runtime.block_on(self.serve(api, seed));
        // A name that is being looked up must not keep the process from ending.
        runtime.shutdown_background();
        exit
    }

    async fn serve(&self, api: Arc<Api>, seed: u64) -> anyhow::Result<Exit> {
        let (host, port) = (self.host.as_str(), self.port);
        let listener = TcpListener::bind((host, port)).await;
        let listener = listener.with_context(|| format!("cannot listen on `{host}:{port}`"))?;
        let address = listener.local_addr()?;
        let (mut interrupt, mut terminate) =
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        tracing::info!(
            host,
            port = address.port(),
            address = %address,
            version = VERSION,
            seed,
            "Starting HTTP server on endpoint {address}"
        );
        tokio::select! {
            () = api::serve(api, listener) => {}
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        tracing::info!("Shutdown complete");
        Ok(Exit::Held)
    }

    /// Makes the proxies of the file. What is wrong with it is logged: the interface works all the same.
    fn populate(&self, control: &Control) {
        let Some(path) = &self.config else { return };
        let config = path.display().to_string();
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) => return tracing::error!(config, "the configuration cannot be read: {error}"),
        };
        let wanted = api::first(&bytes).and_then(|value| api::proxies(&value));
        match wanted {
            Ok(wanted) => {
                let (done, result) = control.populate(&wanted);
                if let Err(error) = result {
                    tracing::error!(config, "the proxies of the configuration cannot all be made: {error}");
                }
                tracing::info!(config, proxies = done.len(), "Populated proxies from file");
            }
            Err(refused) => tracing::error!(config, "the configuration is not understood: {refused}"),
        }
    }
}

/// Two descriptors a connection: as many as ten thousand connections and as many proxies need, else as many as the
/// system allows.
fn raise_descriptors() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // Above the hard limit needs a privilege, which this process need not have.
        let most = hard.max(DESCRIPTORS);
        if setrlimit(Resource::RLIMIT_NOFILE, most, most).is_err() {
            let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
        }
    }
}
