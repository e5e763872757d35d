//! Whose packets: a scope becomes a condition that every rule of a change gets, and is followed while the change is live.

use std::collections::BTreeSet;

use squall_experiments::peer::Ports;
use squall_experiments::protocol::Refusal;
use squall_experiments::scope::Scope;

use super::aim::Aim;
use super::container::Container;
use super::interface::Interface;
use super::mark::{self, Whose};
use super::nft::Hook;
use super::process::{Cgroup, Processes, uid_of};
use super::rule::{End, Rule};
use super::watch::Watch;

/// A scope, on this host as it is now.
#[derive(Debug)]
pub struct Whom {
    /// What is aimed at, for the report.
    pub targets: Vec<String>,
    /// What the reader must know.
    pub notes: Vec<String>,
    /// The scope's mark, where it needs one.
    pub mark: Option<mark::Prepared>,
    told: Told,
}

/// By what its packets are told from others.
#[derive(Debug)]
enum Told {
    Everybody,
    LocalPorts(Ports),
    Interface(Interface),
    Cgroup { level: u32, id: u64 },
    Marked(u32),
}

impl Whom {
    /// Looks at the host. Changes nothing.
    pub fn of(scope: Option<&Scope>, aim: &Aim<'_>, marks: &BTreeSet<u32>) -> Result<Self, Refusal> {
        let mut whom = Whom { targets: Vec::new(), notes: Vec::new(), mark: None, told: Told::Everybody };
        whom.told = match scope {
            None => Told::Everybody,
            Some(Scope::Port(ports)) => Told::LocalPorts(*ports),
            Some(Scope::Cgroup(path)) => {
                let cgroup = Cgroup::find(path)?;
                whom.notes.push(
                    "a cgroup's traffic is that of sockets created in it, wherever their processes are now"
                        .into(),
                );
                Told::Cgroup { level: cgroup.level, id: cgroup.id }
            }
            Some(Scope::Interface(name)) => {
                let (interface, notes) = Interface::find(name)?;
                whom.targets.push(format!("packets of interface {name}"));
                whom.notes.extend(notes);
                Told::Interface(interface)
            }
            Some(scope @ Scope::Process(_)) => {
                let chosen = aim.processes(&Processes::here()?, scope)?;
                whom.targets.extend(chosen.targets.iter().map(ToString::to_string));
                whom.notes.extend(chosen.notes);
                whom.notes.push("processes that these start later are not covered".into());
                whom.marked(Whose::Processes(chosen.targets), marks)?
            }
            Some(Scope::User(user)) => {
                whom.targets.push(format!("sockets of user {user}"));
                whom.marked(Whose::User(uid_of(user)?), marks)?
            }
            Some(scope @ Scope::Container(name)) => {
                let container = Container::find(name)?;
                whom.targets.push(format!("container {container}, which shares the agent's network"));
                match container.cgroup() {
                    Some(Cgroup { level, id, .. }) => Told::Cgroup { level, id },
                    None => {
                        let chosen = aim.processes(&Processes::everywhere()?, scope)?;
                        whom.notes.extend(chosen.notes);
                        whom.notes.push("processes that the container starts later are not covered".into());
                        whom.marked(Whose::Processes(chosen.targets), marks)?
                    }
                }
            }
            Some(scope) => return Err(Refusal::bare(format!("{scope} is not known to this agent yet"))),
        };
        Ok(whom)
    }

    #[cfg(test)]
    pub(super) fn everybody() -> Self {
        Whom { targets: Vec::new(), notes: Vec::new(), mark: None, told: Told::Everybody }
    }

    #[cfg(test)]
    pub(super) fn local_ports(ports: Ports) -> Self {
        Whom { told: Told::LocalPorts(ports), ..Whom::everybody() }
    }

    fn marked(&mut self, whose: Whose, marks: &BTreeSet<u32>) -> Result<Told, Refusal> {
        let prepared = mark::prepare(whose, marks)?;
        self.notes.extend(prepared.notes.clone());
        Ok(Told::Marked(self.mark.insert(prepared).bit))
    }

    /// Narrows a rule to them. Where they are told by ports the rule must match a transport with ports first: see
    /// [`Whom::has_ports`]. `local` is the end of the packet on this host.
    pub fn narrow(&self, rule: Rule, hook: Hook, local: End) -> Rule {
        match &self.told {
            Told::Everybody => rule,
            Told::LocalPorts(Ports { first, last }) => rule.ports(local, *first, *last),
            Told::Interface(interface) => rule.interface(hook, &interface.name),
            Told::Cgroup { level, id } => rule.cgroup(*level, *id),
            // What a raw socket sends for another one carries the other's mark, but not its socket.
            Told::Marked(bit) if hook == Hook::Output => rule.mark(*bit),
            Told::Marked(bit) => rule.socket_mark(*bit),
        }
    }

    /// Whether they are told apart by the interface, which copies of their packets do not enter by.
    pub fn by_interface(&self) -> bool {
        matches!(self.told, Told::Interface(_))
    }

    /// Has the worker woken when something happens to them.
    pub fn watch(&self, watch: &Watch) -> nix::Result<()> {
        match &self.told {
            Told::Interface(interface) => watch.add(interface.as_fd()),
            Told::Everybody | Told::LocalPorts(_) | Told::Cgroup { .. } | Told::Marked(_) => Ok(()),
        }
    }

    /// Looks whether they have moved, follows them, and says what happened.
    pub fn follow(&mut self) -> Vec<String> {
        match &mut self.told {
            Told::Interface(interface) => interface.look().into_iter().collect(),
            Told::Everybody | Told::LocalPorts(_) | Told::Cgroup { .. } | Told::Marked(_) => Vec::new(),
        }
    }

    /// Whether they are told apart by ports.
    pub fn has_ports(&self) -> bool {
        matches!(self.told, Told::LocalPorts(_))
    }

    /// Whether they are told apart by the control group of their socket.
    pub fn by_cgroup(&self) -> bool {
        matches!(self.told, Told::Cgroup { .. })
    }
}
