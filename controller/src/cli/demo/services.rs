//! The shop's processes: started, watched, stopped.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::super::shop::{Health, Tally, get};

/// Where the storefront listens; the experiment files and the storefront's defaults know the other ports.
const STOREFRONT: u16 = 7000;
/// The suppliers and their ports.
const SUPPLIERS: [(&str, u16); 3] = [("catalogue", 7001), ("stock", 7002), ("payments", 7003)];
/// How long a process may take until it listens.
const OPENING: Duration = Duration::from_secs(10);

/// The running processes. Each of them dies with this one; [`Services::stop`] ends them in order.
#[derive(Default)]
pub(super) struct Services {
    suppliers: Vec<Child>,
    storefront: Option<Child>,
    customers: Option<Child>,
    tally: Option<watch::Receiver<Tally>>,
}

impl Services {
    /// Starts everything, with a storefront that waits for its suppliers for ever; returns when all of them listen.
    pub(super) async fn open(&mut self) -> anyhow::Result<()> {
        for (name, port) in SUPPLIERS {
            let supplier = start(&[name, "--port", &port.to_string()], Stdio::null())?;
            self.suppliers.push(supplier);
        }
        for ((name, port), child) in SUPPLIERS.into_iter().zip(&mut self.suppliers) {
            listens(name, port, child).await?;
        }
        self.open_storefront(&[]).await?;
        let port = STOREFRONT.to_string();
        let mut customers = start(&["customers", "--port", &port], Stdio::piped())?;
        let output = customers.stdout.take().context("the customers have no output")?;
        self.customers = Some(customers);
        let (latest, tally) = watch::channel(Tally::default());
        self.tally = Some(tally);
        tokio::spawn(async move {
            let mut lines = BufReader::new(output).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                if let Ok(tally) = serde_json::from_str(&line) {
                    latest.send_replace(tally);
                }
            }
        });
        Ok(())
    }

    /// Replaces the storefront by one with other options.
    pub(super) async fn change_storefront(&mut self, options: &[&str]) -> anyhow::Result<()> {
        if let Some(mut storefront) = self.storefront.take() {
            storefront.kill().await?;
        }
        self.open_storefront(options).await
    }

    async fn open_storefront(&mut self, options: &[&str]) -> anyhow::Result<()> {
        let port = STOREFRONT.to_string();
        let arguments: Vec<&str> =
            ["storefront", "--port", &port].into_iter().chain(options.iter().copied()).collect();
        let storefront = self.storefront.insert(start(&arguments, Stdio::null())?);
        listens("storefront", STOREFRONT, storefront).await
    }

    /// How busy the storefront is.
    pub(super) async fn health(&self) -> anyhow::Result<Health> {
        let (_, body) = timeout(Duration::from_secs(2), get(STOREFRONT, "/health")).await??;
        Ok(serde_json::from_str(&body)?)
    }

    /// What the customers got so far.
    pub(super) fn tally(&self) -> Tally {
        self.tally.as_ref().map_or_else(Tally::default, |tally| *tally.borrow())
    }

    /// Ends all processes and waits for their end.
    pub(super) async fn stop(&mut self) {
        let children = self.customers.iter_mut().chain(self.storefront.iter_mut()).chain(&mut self.suppliers);
        for child in children {
            // Fails only where it has ended already.
            let _ = child.kill().await;
        }
    }
}

/// A process group of its own: Ctrl-C is for the demo, which ends its processes in order.
fn start(arguments: &[&str], output: Stdio) -> anyhow::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .arg("shop")
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(output)
        .process_group(0)
        .kill_on_drop(true);
    command.spawn().with_context(|| format!("cannot start `{}`", arguments[0]))
}

/// Returns as soon as a connection is taken; fails when the process has ended instead.
async fn listens(name: &str, port: u16, child: &mut Child) -> anyhow::Result<()> {
    let until = Instant::now() + OPENING;
    while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
        if let Some(status) = child.try_wait()? {
            bail!("`{name}` ended: {status}");
        }
        if Instant::now() > until {
            bail!("`{name}` does not listen on port {port} after {} s", OPENING.as_secs());
        }
        sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}
