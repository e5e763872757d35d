//! What runs of this agent have claimed on their host, by the undos that they recorded.

use std::collections::BTreeSet;

use super::compare::Difference;
use super::{Section, links, processes, sockets};
use crate::host::netns::Id;
use crate::host::process::Target;
use crate::host::qdisc::ifb;
use crate::host::undo::Undo;

/// See the module. Kept as long as the agent lives: a run that ends while another is live leaves things to that one.
#[derive(Clone, Debug, Default)]
pub struct Claims {
    namespaces: BTreeSet<Option<Id>>,
    bits: u32,
    queues: BTreeSet<u16>,
    devices: BTreeSet<(Option<Id>, String)>,
    processes: BTreeSet<Target>,
}

impl Claims {
    /// Notes what an undo is recorded for.
    pub fn add(&mut self, undo: &Undo) {
        self.namespaces.insert(undo.netns());
        match undo.inner() {
            Undo::Mark(bit) => self.bits |= bit,
            Undo::Queue { number, .. } => drop(self.queues.insert(*number)),
            Undo::Root { device, .. } | Undo::Class { device, .. } => {
                self.devices.insert((undo.netns(), device.name.clone()));
            }
            Undo::Entry => {
                self.devices.insert((undo.netns(), ifb::NAME.to_owned()));
            }
            Undo::Release(target) | Undo::Resume(target) => drop(self.processes.insert(target.clone())),
            // Known by the table's name.
            _ => {}
        }
    }

    /// Whether anything has been claimed in a namespace: what bears our mark there is this agent's.
    pub fn reach(&self, at: Option<Id>) -> bool {
        self.namespaces.contains(&at)
    }

    /// Whether a difference in a namespace is about something that was claimed. Processes are not among them: see
    /// [`Claims::halted`].
    pub fn hold(&self, at: Option<Id>, difference: &Difference) -> bool {
        let name = &difference.name;
        match difference.section {
            Section::Sockets => sockets::mark_of(name).is_some_and(|mark| mark & self.bits != 0),
            Section::Queues => sockets::queue_of(name).is_some_and(|number| self.queues.contains(&number)),
            // The only link that we ever make.
            Section::Links => {
                self.devices.contains(&(at, ifb::NAME.to_owned())) && *name == links::named(ifb::NAME)
            }
            Section::Disciplines => self
                .devices
                .iter()
                .any(|(netns, device)| *netns == at && name.contains(&format!(" of `{device}`"))),
            _ => false,
        }
    }

    /// The claimed processes that do not run although they could, each with what keeps it.
    pub fn halted(&self) -> impl Iterator<Item = (&Target, &'static str)> {
        self.processes.iter().filter_map(|target| match target.state() {
            Some('t') => Some((target, "in a tracing stop")),
            Some('T') => Some((target, "stopped")),
            _ => None,
        })
    }

    /// Whether a difference is about processes that are called like one that was claimed: such a one is looked at itself.
    pub fn names(&self, difference: &Difference) -> bool {
        difference.section == Section::Processes
            && self.processes.iter().any(|target| {
                difference
                    .name
                    .strip_prefix(&processes::named(&target.name))
                    .is_some_and(|rest| rest.starts_with(':'))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::qdisc::Device;
    use crate::host::qdisc::root::Before;

    fn difference(section: Section, name: &str) -> Difference {
        Difference { section, name: name.to_owned(), before: None, after: Some(String::new()), ours: false }
    }

    #[test]
    fn what_was_recorded_is_claimed_and_nothing_beside_it() {
        let at = Id { inode: 7, cookie: 7 };
        let device = Device { index: 3, name: "eth0".to_owned() };
        let root = Undo::Root { device, before: Before::Default };
        let mut claims = Claims::default();
        let target = Target { pid: 7, start: 7, name: "nginx".to_owned() };
        for undo in
            [Undo::Mark(1 << 20), Undo::Queue { number: 3, steals: false }, Undo::Release(target), root]
        {
            claims.add(&Undo::Within { netns: at, undo: Box::new(undo) });
        }
        let holds = |section, name: &str| claims.hold(Some(at), &difference(section, name));
        assert!(holds(Section::Sockets, "sockets with mark 0x100007"), "our bit beside somebody's");
        assert!(!holds(Section::Sockets, "sockets with mark 0x7"));
        assert!(holds(Section::Queues, "packet queue 3") && !holds(Section::Queues, "packet queue 31"));
        assert!(holds(Section::Disciplines, "discipline of `eth0` below its root"));
        assert!(!holds(Section::Disciplines, "discipline of `eth01` below its root"));
        assert!(!claims.hold(None, &difference(Section::Disciplines, "discipline of `eth0` below its root")));
        assert!(claims.reach(Some(at)) && !claims.reach(None));
        assert!(claims.names(&difference(Section::Processes, "process `nginx`: stopped")));
        assert!(!claims.names(&difference(Section::Processes, "process `nginx2`: stopped")));
    }
}
