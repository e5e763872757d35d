//! One machine of a world.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::process::Signal;

use crate::netns::{Netns, Process, look, signal};
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

    /// `squall …` on this host, with files of the test's own in place of some below `/etc`: in a mount namespace of its own,
    /// as those are the whole machine's.
    pub fn squall_with_files(&self, files: &[(&str, &str)], arguments: &[&str]) -> Squall {
        let mounts: String =
            files.iter().map(|(own, file)| format!("mount --bind {own} {file} && ")).collect();
        let mut command = self.netns.command("unshare");
        command.args(["--mount", "--", "sh", "-c", &format!("{mounts}exec \"$0\" \"$@\"")]);
        command.arg(crate::squall::binary("squall")).args(arguments);
        command.env("SQUALL_STATE_DIR", &self.state);
        Squall::with(command, format!("squall {}", arguments.join(" ")), &self.directory)
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

    /// Gives the host a table `inet own` as its owner may have it: what comes in is counted, and a set `seen` is there whose
    /// elements expire.
    ///
    /// # Panics
    /// When nftables does not take it.
    pub fn has_a_firewall(&self) {
        for rule in [
            &["add", "table", "inet", "own"][..],
            &["add", "chain", "inet", "own", "in", "{ type filter hook input priority 0 ; }"],
            &["add", "rule", "inet", "own", "in", "counter"],
            &["add", "set", "inet", "own", "seen", "{ type ipv4_addr ; flags timeout ; }"],
        ] {
            self.look(&[&["nft"], rule].concat());
        }
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

    /// Kills both: held first, so that neither can undo anything when it sees the other die.
    ///
    /// # Panics
    /// When there is no such pair after a while, or one of them is gone already.
    pub fn kill_agents(&self) {
        let (guardian, worker) = self.agents();
        for hit in [Signal::STOP, Signal::KILL] {
            for process in [&worker, &guardian] {
                assert!(signal(process, hit), "{process:?} is gone already");
            }
        }
    }
}

/// Whether a process of Squall is one of the agent's two.
fn is_agent(process: &Process) -> bool {
    // What looks at the guards of a run, and what holds the connection to a controller, is the same program.
    let verb = |verb: &str| process.arguments().get(1).is_some_and(|found| found == verb);
    let other =
        ["squall-prober", "squall-link"].contains(&process.name.as_str()) || verb("prober") || verb("link");
    !other
        && (process.program == "squall-agent"
            || process.arguments().get(1).is_some_and(|verb| verb == "agent"))
}
