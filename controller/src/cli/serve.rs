//! `squall serve`: the controller of a fleet.

use std::fs::OpenOptions;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;
use squall_agent::notify;
use squall_agent::talk::{self, LogFormat};
use squall_controller::fleet::{Authority, Hub, Listener, Room, Terms, listen};
use squall_controller::store::{NewJoinToken, Store};
use squall_controller::traces::Traces;
use squall_experiments::exit::Exit;
use squall_experiments::fleet::{Inventory, JoinToken};
use squall_experiments::protocol::Refusal;
use squall_experiments::quantity::Period;
use tokio::signal::unix::{SignalKind, signal};

use super::Common;
use super::host::refused;
use super::interface::Interface;
use super::rebuild::rebuild;

/// How long a token that is written at the start is good for.
const TOKEN: Duration = Duration::from_secs(3600);

/// Options of `squall serve`.
#[derive(Debug, clap::Args)]
pub struct Serve {
    /// Where the controller keeps everything: hosts, tokens, the key of its own authority.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    #[command(flatten)]
    interface: Interface,
    /// Where it listens for agents; they and it know each other by certificates of its own authority.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8417")]
    listen_agents: SocketAddr,
    /// Write a new join token into this file, which must not be there yet, for one host and one hour:
    /// `squall-agent run --controller URL --join-file FILE`.
    #[arg(long, value_name = "FILE")]
    join_file: Option<PathBuf>,
    /// For how many hosts that token is good.
    #[arg(long, value_name = "N", default_value_t = 1, requires = "join_file")]
    join_uses: u64,
    /// How often agents show that they are there; who is silent for three times as long is gone.
    #[arg(long, value_name = "TIME", default_value = "5s")]
    heartbeat: Period,
    /// How long the certificate of a host is good for; it is renewed after two thirds of that.
    #[arg(long, value_name = "TIME", default_value = "7d")]
    certificates: Period,
    /// How it talks on standard error.
    #[arg(long, value_enum, default_value_t)]
    log_format: LogFormat,
    /// Send OpenTelemetry traces of runs and requests to this collector, by OTLP over HTTP in JSON: `http://127.0.0.1:4318`.
    /// Without it `OTEL_EXPORTER_OTLP_ENDPOINT` counts. Only a squall that was built with `--features otel` can.
    #[arg(long, value_name = "URL")]
    otlp: Option<String>,
    /// Only say whether the configuration could be used: read it, its calendars and its secrets, and begin nothing.
    #[arg(long, requires = "config")]
    check: bool,
    /// Only make again what the rows of runs say from their events, where a database was mended by hand or in part, and begin
    /// nothing.
    #[arg(long, conflicts_with = "check")]
    rebuild: bool,
}

impl Serve {
    /// Runs the verb until it is told to end (`SIGINT`, `SIGTERM`); `SIGUSR1` halts everything and blocks new runs.
    pub fn run(&self, _: &Common) -> anyhow::Result<Exit> {
        if self.check {
            return Ok(self.interface.check());
        }
        talk::begin(self.log_format, "info");
        if self.rebuild {
            return rebuild(&self.interface.place(&self.data));
        }
        let room = match Room::of_this_process() {
            Ok(room) => room,
            Err(refusal) => return Ok(refused(&refusal)),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let exit = runtime.block_on(self.serve(room));
        runtime.shutdown_background();
        exit
    }

    async fn serve(&self, room: Room) -> anyhow::Result<Exit> {
        if self.heartbeat.get() < Duration::from_millis(100) {
            return Ok(refused(&Refusal::new("`--heartbeat` is too short", "100ms is the shortest")));
        }
        let traces = match Traces::begin(self.otlp.as_deref(), |name| std::env::var(name).ok()) {
            Ok(traces) => traces,
            Err(error) => return Ok(refused(&Refusal::bare(error.to_string()))),
        };
        // Before anything is answered: who ends it early must find it listening.
        let (mut interrupt, mut terminate) =
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let halt = signal(SignalKind::user_defined1())?;
        let opened = Authority::open(&self.data).map_err(|error| error.to_string());
        let place = self.interface.place(&self.data);
        // It waits for the database, in a runtime of its own.
        let store = tokio::task::spawn_blocking(move || Store::open(&place)).await?;
        let opened = opened
            .and_then(|authority| store.map(|store| (authority, store)).map_err(|error| error.to_string()));
        let (authority, store) = match opened {
            Ok((authority, store)) => (Arc::new(authority), store),
            Err(why) => return Ok(refused(&Refusal::bare(why))),
        };
        if let Some(file) = &self.join_file {
            let token = JoinToken::new(rand::random(), authority.fingerprint());
            if let Err(error) = write(file, &token) {
                let what = format!("the join token cannot be written to `{}`: {error}", file.display());
                return Ok(refused(&Refusal::new(what, "name a file that is not there yet")));
            }
            // Who may join is in the log before anybody may.
            let made =
                json!({ "did": "made a join token", "token": &token.hash()[..12], "uses": self.join_uses });
            store.audit("squall serve", made).await?;
            let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
            let new = NewJoinToken {
                id: token.hash()[..12].to_owned(),
                hash: token.hash(),
                made_by: "squall serve --join-file".to_owned(),
                expires_at: u64::try_from((now + TOKEN).as_millis())?,
                uses: self.join_uses,
            };
            store.new_join_token(new).await?;
        }
        let hub = Hub::within(room);
        for host in store.hosts().await?.into_iter().filter(|host| host.revoked_at.is_none()) {
            let (labels, zone, cell) = (host.labels, host.zone, host.cell);
            hub.know(&host.name, Inventory { labels, zone, cell, ..Inventory::default() });
        }
        let terms = Terms { heartbeat: self.heartbeat.get(), certificates: self.certificates.get() };
        let interface = match self.interface.open(&self.data, &store, &hub, &authority, traces.clone()).await
        {
            Ok(interface) => interface,
            Err(error) => return Ok(refused(&Refusal::bare(format!("{error:#}")))),
        };
        let agents = Listener::new(authority, Arc::new(store.clone()), hub.clone(), terms)?;
        let listener = match listen(self.listen_agents) {
            Ok(listener) => listener,
            Err(error) => {
                let what = format!("cannot listen on `{}`: {error}", self.listen_agents);
                return Ok(refused(&Refusal::bare(what)));
            }
        };
        let address = listener.local_addr()?;
        let data = self.data.display();
        talk::notice(
            format_args!("squall serves agents at `https://{address}`; its data is in `{data}`"),
            &[],
        );
        let told = async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            notify::tell("STOPPING=1");
        };
        notify::tell("READY=1");
        tokio::select! {
            () = agents.serve(listener) => {}
            () = interface.serve(told, halt) => {}
        }
        traces.close().await;
        Ok(Exit::Held)
    }
}

/// Writes a token for its owner alone, into a file that is not there yet.
fn write(file: &Path, token: &JoinToken) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
    writeln!(file, "{token}")?;
    file.sync_all()
}
