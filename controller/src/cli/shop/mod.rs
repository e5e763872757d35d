//! `squall shop`: the services of the demo's shop, one process each, and its customers. Hidden: people meet it through
//! `squall demo`.
//!
//! The shop is real in what matters: processes that talk HTTP over TCP, a bounded pool of workers, and a mistake that
//! many shops make. Nothing in it knows of faults.

mod call;
mod customers;
mod storefront;
mod supplier;

pub(super) use call::get;
pub(super) use customers::Tally;
pub(super) use storefront::Health;

use std::future::Future;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt;

use anyhow::Context;
use clap::Subcommand;
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::getppid;
use squall_experiments::exit::Exit;
use tokio::net::TcpListener;

/// Options of `squall shop`.
#[derive(Debug, clap::Args)]
pub struct Shop {
    #[command(subcommand)]
    role: Role,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// The pages: `/` asks the catalogue, `/checkout` asks stock and payments, `/health` says how busy the workers are.
    Storefront(storefront::Storefront),
    /// What the shop sells.
    Catalogue(supplier::Supplier),
    /// Takes the money.
    Payments(supplier::Supplier),
    /// Says what is in stock.
    Stock(supplier::Supplier),
    /// People who look at the front page and buy, at a steady pace, whatever the answers are.
    Customers(customers::Customers),
    /// Runs squall with these arguments; it is interrupted when the process that started it dies.
    Leashed {
        /// The arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

impl Shop {
    /// Runs one role until it is ended, at the latest with the process that started it.
    pub fn run(&self) -> anyhow::Result<Exit> {
        match &self.role {
            Role::Storefront(storefront) => serve(storefront.run()),
            Role::Catalogue(supplier) => serve(supplier.run("catalogue")),
            Role::Payments(supplier) => serve(supplier.run("payments")),
            Role::Stock(supplier) => serve(supplier.run("stock")),
            Role::Customers(customers) => serve(customers.run()),
            Role::Leashed { arguments } => {
                // Asked for here because it outlives `exec` but not `fork`; SIGTERM, because a run reverts first.
                die_with_parent(Signal::SIGTERM)?;
                let mut command = std::process::Command::new(std::env::current_exe()?);
                Err(command.args(arguments).exec()).context("squall cannot start itself")
            }
        }
    }
}

fn serve(role: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<Exit> {
    die_with_parent(Signal::SIGKILL)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(role)?;
    Ok(Exit::Held)
}

/// A process that was already orphaned when it asked ends here.
fn die_with_parent(signal: Signal) -> anyhow::Result<()> {
    let parent = getppid();
    prctl::set_pdeathsig(signal)?;
    anyhow::ensure!(getppid() == parent, "the process that started this one has ended");
    Ok(())
}

/// Listens, and says so with a line that holds the port: 0 asks for any that is free.
async fn listen(port: u16) -> anyhow::Result<TcpListener> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let listener = TcpListener::bind(address).await;
    let listener = listener.with_context(|| format!("cannot listen on `{address}`"))?;
    writeln!(std::io::stdout(), "{}", listener.local_addr()?.port())?;
    Ok(listener)
}
