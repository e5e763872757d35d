//! One machine of a world.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use crate::netns::{Netns, Process, look};
use crate::squall::Squall;
use crate::wait;

/// A machine: a network namespace with addresses and a state directory.
#[derive(Debug)]
pub struct Host {
    /// Its namespace.
    pub netns: Arc<Netns>,
    /// Squall's state directory on it.
    pub state: PathBuf,
    /// The world's directory.
    pub directory: PathBuf,
    /// Its address towards the first host; of the first host towards the second.
    pub v4: IpAddr,
    /// The same in IPv6.
    pub v6: IpAddr,
}

impl Host {
    /// `squall …` on this host.
    pub fn squall(&self, arguments: &[&str]) -> Squall {
        Squall::on(self, "squall", arguments)
    }

    /// `squall-agent …` on this host.
    pub fn agent(&self, arguments: &[&str]) -> Squall {
        Squall::on(self, "squall-agent", arguments)
    }

    /// Looks at the host with `ip`, `nft`, `tc` or `ss`.
    ///
    /// # Panics
    /// When that fails.
    pub fn look(&self, argv: &[&str]) -> String {
        look(Some(&self.netns), argv).unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// The names of the nft tables on this host.
    pub fn tables(&self) -> Vec<String> {
        self.look(&["nft", "list", "tables"]).lines().map(str::to_owned).collect()
    }

    /// Squall's own processes on this host: guardian, worker, prober, command line.
    pub fn squalls(&self) -> Vec<Process> {
        let mut found = self.netns.processes();
        found.retain(|process| process.program.starts_with("squall"));
        found
    }

    /// The agent's two processes: the guardian, and the worker that is its child.
    ///
    /// # Panics
    /// When there is no such pair after a while.
    pub fn agents(&self) -> (Process, Process) {
        wait::until("an agent with its two processes", wait::PATIENCE, || {
            let agents: Vec<Process> = self.squalls().into_iter().filter(is_agent).collect();
            let worker =
                agents.iter().find(|worker| agents.iter().any(|other| other.pid == worker.parent))?;
            let guardian = agents.iter().find(|guardian| guardian.pid == worker.parent)?;
            Some((guardian.clone(), worker.clone()))
        })
    }
}

/// Whether a process of Squall is one of the agent's two.
fn is_agent(process: &Process) -> bool {
    process.program == "squall-agent" || process.arguments().get(1).is_some_and(|verb| verb == "agent")
}
