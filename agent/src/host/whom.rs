//! Whose packets: a scope becomes a condition that every rule of a change gets, and is followed while the change is live.

use std::collections::BTreeSet;

use squall_experiments::peer::Ports;
use squall_experiments::protocol::Refusal;
use squall_experiments::scope::Scope;

use super::aim::{Aim, Chosen};
use super::cgroup::{Cgroup, Group};
use super::container::Container;
use super::follow::{Follower, Numbers};
use super::interface::Interface;
use super::mark::{self, Whose};
use super::nft::Hook;
use super::offspring::Offspring;
use super::process::{Processes, Target, uid_of};
use super::reach::Reach;
use super::rule::{End, Rule};
use super::sockets::Sockets;
use super::table::Table;
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
    /// Sockets made in a control group; those that its processes brought with them have a mark.
    Cgroup(Numbers, Follower),
    Marked,
    /// Processes and whom they start.
    Family(Offspring),
    /// Processes of a control group of version 1, which has no say in sockets.
    MarkedGroup(Follower),
}

impl Whom {
    /// Looks at the host. Changes nothing. `tag` is that of the rules.
    pub fn of(
        scope: Option<&Scope>,
        tag: &str,
        aim: &Aim<'_>,
        marks: &BTreeSet<u32>,
    ) -> Result<Self, Refusal> {
        let mut whom = Whom { targets: Vec::new(), notes: Vec::new(), mark: None, told: Told::Everybody };
        whom.told = match scope {
            None => Told::Everybody,
            Some(Scope::Port(ports)) => Told::LocalPorts(*ports),
            Some(Scope::Interface(name)) => {
                let (interface, notes) = Interface::find(name)?;
                whom.targets.push(format!("packets of interface {name}"));
                whom.notes.extend(notes);
                Told::Interface(interface)
            }
            Some(scope @ (Scope::Cgroup(_) | Scope::Unit(_))) => {
                whom.group(scope, Group::of(scope)?, tag, aim, marks)?
            }
            Some(scope @ Scope::Process(_)) => {
                let offspring = Offspring::watch();
                let chosen = aim.processes(&Processes::here()?, scope)?;
                whom.targets.extend(chosen.targets.iter().map(ToString::to_string));
                whom.family(offspring, chosen, marks, aim)?
            }
            Some(Scope::User(user)) => {
                whom.targets.push(format!("sockets of user {user}"));
                whom.marked(Whose::User(uid_of(user)?), marks, aim)?
            }
            Some(scope @ Scope::Container(name)) => {
                let container = Container::find(name)?;
                whom.targets.push(format!("container {container}, which shares the agent's network"));
                match container.cgroup() {
                    Some(group) => whom.group(scope, Group::New(group), tag, aim, marks)?,
                    None => {
                        let offspring = Offspring::watch();
                        let chosen = aim.processes(&Processes::everywhere()?, scope)?;
                        whom.family(offspring, chosen, marks, aim)?
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

    fn marked(&mut self, whose: Whose, marks: &BTreeSet<u32>, aim: &Aim<'_>) -> Result<Told, Refusal> {
        let prepared = mark::prepare(whose, marks, aim)?;
        self.notes.extend(prepared.notes.clone());
        self.mark = Some(prepared);
        Ok(Told::Marked)
    }

    fn family(
        &mut self,
        mut offspring: Offspring,
        chosen: Chosen,
        marks: &BTreeSet<u32>,
        aim: &Aim<'_>,
    ) -> Result<Told, Refusal> {
        self.notes.extend(chosen.notes);
        self.marked(Whose::Processes(chosen.targets), marks, aim)?;
        offspring.of(self.mark.iter().flat_map(mark::Prepared::processes));
        Ok(Told::Family(offspring))
    }

    fn group(
        &mut self,
        scope: &Scope,
        group: Group,
        tag: &str,
        aim: &Aim<'_>,
        marks: &BTreeSet<u32>,
    ) -> Result<Told, Refusal> {
        let follower = Follower::new(scope.to_string(), group)?;
        let group = follower.group();
        let processes = group.processes();
        self.targets.push(format!("{scope}, {}", group.describe(&processes)));
        let Group::New(new) = group else {
            let chosen = aim.processes(&Processes::here()?, scope)?;
            self.notes.extend(chosen.notes);
            self.notes.push(format!(
                "{scope} is a control group of version 1, which sockets do not know: its processes are marked, and those \
                 that join are looked for four times a second"
            ));
            self.marked(Whose::Processes(chosen.targets), marks, aim)?;
            return Ok(Told::MarkedGroup(follower));
        };
        if processes.is_empty() && !has_sockets(new)? {
            return Err(Refusal::new(
                format!("{scope} has no process and no socket now, so nothing would be concerned"),
                "start it first; once it has been found, it is followed when it restarts",
            ));
        }
        self.strangers(new, processes, marks, aim);
        let numbers = Numbers::of(new, tag);
        Ok(Told::Cgroup(numbers, follower))
    }

    /// What its processes have open that was made elsewhere is marked, or said not to be covered.
    fn strangers(&mut self, group: &Cgroup, processes: Vec<Target>, marks: &BTreeSet<u32>, aim: &Aim<'_>) {
        match mark::prepare(Whose::Strangers(processes, group.ids()), marks, aim) {
            Ok(prepared) => {
                self.notes.extend(prepared.notes.clone());
                self.mark = Some(prepared).filter(|prepared| !prepared.is_idle());
            }
            Err(refusal) => self.notes.push(format!(
                "not covered: sockets that its processes have open and made elsewhere, as they cannot be marked ({})",
                refusal.what
            )),
        }
    }

    /// Probes of the agent's own are to be taken for theirs: by the mark, as no process of ours joins a control group.
    pub fn admit_probes(&mut self, marks: &BTreeSet<u32>, aim: &Aim<'_>) -> Result<(), Refusal> {
        if matches!(self.told, Told::Cgroup(..)) && self.mark.is_none() {
            self.mark = Some(mark::prepare(Whose::Probes, marks, aim)?);
        }
        Ok(())
    }

    /// Narrows a rule to them, or makes it several. Where they are told by ports the rule must match a transport with ports
    /// first: see [`Whom::has_ports`]. `local` is the end of the packet on this host.
    pub fn narrow(&self, rule: Rule, hook: Hook, local: End) -> Vec<Rule> {
        let mut rules = match &self.told {
            Told::Everybody => return vec![rule],
            Told::LocalPorts(Ports { first, last }) => return vec![rule.ports(local, *first, *last)],
            Told::Interface(interface) => return vec![rule.interface(hook, &interface.name)],
            Told::Cgroup(numbers, _) => vec![rule.clone().cgroup_in(numbers.level, &numbers.set)],
            Told::Marked | Told::Family(_) | Told::MarkedGroup(_) => Vec::new(),
        };
        rules.extend(self.mark.iter().map(|mark| match hook {
            // What a raw socket sends for another one carries the other's mark, but not its socket.
            Hook::Output => rule.clone().mark(mark.bit),
            Hook::Input | Hook::Ingress => rule.clone().socket_mark(mark.bit),
        }));
        rules
    }

    /// Whether they are told apart by the interface, which copies of their packets do not enter by.
    pub fn by_interface(&self) -> bool {
        matches!(self.told, Told::Interface(_))
    }

    /// Its new sockets are marked from now on.
    pub fn begin(&mut self, mark: &mark::Live) {
        if let (Told::Family(offspring), Some(chosen)) = (&mut self.told, mark.chosen()) {
            offspring.begin(chosen);
        }
    }

    /// Has the worker woken when something happens to them.
    pub fn watch(&self, watch: &Watch) -> nix::Result<()> {
        match &self.told {
            Told::Interface(interface) => watch.add(interface.as_fd()),
            Told::Cgroup(_, follower) | Told::MarkedGroup(follower) => watch.add(follower.as_fd()),
            Told::Everybody | Told::LocalPorts(_) | Told::Marked | Told::Family(_) => Ok(()),
        }
    }

    /// When [`Whom::follow`] wants to be called at the latest, on the boot clock.
    pub fn due(&self) -> Option<u64> {
        match &self.told {
            Told::Cgroup(_, follower) => follower.owed(),
            Told::MarkedGroup(follower) => Some(follower.due()),
            Told::Family(offspring) => Some(offspring.due()),
            _ => None,
        }
    }

    /// Looks whether they have moved, follows them, and says what happened. `mark` is theirs.
    pub fn follow(&mut self, table: &mut Table, mark: Option<&mut mark::Live>, aim: &Aim<'_>) -> Vec<String> {
        match &mut self.told {
            Told::Interface(interface) => interface.look().into_iter().collect(),
            Told::Cgroup(numbers, follower) => {
                follower.tick(numbers, |tag, set| table.refill_one(tag, set)).into_iter().collect()
            }
            Told::MarkedGroup(follower) => {
                let Some(mark) = mark else { return Vec::new() };
                let (new, said) = follower.joined(mark.processes());
                let mut happened: Vec<String> = said.into_iter().collect();
                if !new.is_empty() {
                    mark.forget_the_dead();
                    let failed = mark.extend(new).err();
                    happened.extend(failed.map(|refusal| format!("not followed: {}", refusal.what)));
                }
                happened
            }
            Told::Family(offspring) => {
                let Some(mark) = mark else { return Vec::new() };
                if offspring.forgets() {
                    mark.forget_the_dead();
                }
                let Some((mut new, ended)) = offspring.look(mark.processes()) else { return Vec::new() };
                // What a shell of the scope starts may be a squall.
                let mut gone = ended;
                gone.extend(new.extract_if(.., |child| !aim.may_hit(child)).map(|child| child.pid));
                gone.into_iter().for_each(|pid| mark.forget(pid));
                let failed = if new.is_empty() { None } else { mark.adopt(new).err() };
                failed.map(|refusal| format!("not followed: {}", refusal.what)).into_iter().collect()
            }
            Told::Everybody | Told::LocalPorts(_) | Told::Marked => Vec::new(),
        }
    }

    /// What became of them while it was live, for the report.
    pub fn told_later(&self) -> Vec<String> {
        if let Told::Family(offspring) = &self.told { offspring.told_later() } else { Vec::new() }
    }

    /// Whose sockets are theirs now, where they are followed. `mark` is theirs.
    pub fn reach(&self, mark: Option<&mark::Live>) -> Option<Reach> {
        match &self.told {
            Told::Cgroup(_, follower) | Told::MarkedGroup(follower) => {
                Some(Reach::Group(follower.group().clone()))
            }
            Told::Family(_) => {
                let processes = mark?.processes();
                Some(Reach::Processes(processes.iter().map(|target| target.pid).collect()))
            }
            Told::Everybody | Told::LocalPorts(_) | Told::Interface(_) | Told::Marked => None,
        }
    }

    /// The control groups of version 2 that they are told by, by level and number.
    pub fn groups(&self) -> Option<(u32, BTreeSet<u64>)> {
        let Told::Cgroup(numbers, _) = &self.told else { return None };
        Some((numbers.level, numbers.ids()))
    }

    /// Whether they are told apart by ports.
    pub fn has_ports(&self) -> bool {
        matches!(self.told, Told::LocalPorts(_))
    }

    /// Whether they are told apart by the control group of their socket.
    pub fn by_cgroup(&self) -> bool {
        matches!(self.told, Told::Cgroup(..))
    }
}

/// Whether any socket was made in a group or below it.
fn has_sockets(group: &Cgroup) -> Result<bool, Refusal> {
    let ids = group.ids();
    let sockets = Sockets::open().and_then(|mut sockets| sockets.all());
    let sockets = sockets.map_err(|error| Refusal::bare(format!("cannot list sockets: {error}")))?;
    Ok(sockets.iter().any(|socket| ids.contains(&socket.cgroup)))
}
