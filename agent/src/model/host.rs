//! A host in memory: what the undos of a real one promise, each as one indivisible step.

use std::collections::{BTreeMap, BTreeSet};

use crate::host::netns::Id;
use crate::host::process::Target;
use crate::host::qdisc::Device;
use crate::host::qdisc::root::Before;
use crate::host::undo::{Undo, Undone};

/// What stands at the root of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Root {
    /// Ours, inert.
    Ours,
    /// What stood there before, or somebody has put there since.
    Theirs(Before),
}

/// One network namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Net {
    table: bool,
    rules: BTreeSet<String>,
    queues: BTreeSet<u16>,
    marks: BTreeSet<u32>,
    /// Interfaces, with what stands at their roots.
    pub roots: BTreeMap<Device, Root>,
    classes: BTreeSet<(Device, u16)>,
}

impl Net {
    /// One with these interfaces.
    pub fn with(roots: BTreeMap<Device, Root>) -> Self {
        Net { roots, ..Net::default() }
    }
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// The agent's own namespace, and others.
    pub nets: BTreeMap<Option<Id>, Net>,
    /// Processes by pid, each with its start and whether it is stopped.
    pub processes: BTreeMap<i32, (u64, bool)>,
}

impl Host {
    /// Does what an undo takes back.
    pub fn perform(&mut self, undo: &Undo) {
        let net = self.nets.get_mut(&undo.netns());
        if let Undo::Resume(target) = undo.inner() {
            return self.stop(target, true);
        }
        // What is done in a namespace that has gone does nothing.
        let Some(net) = net else { return };
        match undo.inner() {
            Undo::Table => net.table = true,
            Undo::Rules(tag) => drop(net.rules.insert(tag.clone())),
            Undo::Queue { number, .. } => drop(net.queues.insert(*number)),
            Undo::Mark(bit) => drop(net.marks.insert(*bit)),
            Undo::Root { device, .. } => {
                if let Some(root) = net.roots.get_mut(device) {
                    *root = Root::Ours;
                }
            }
            Undo::Class { device, minor, .. } if net.roots.get(device) == Some(&Root::Ours) => {
                net.classes.insert((device.clone(), *minor));
            }
            _ => {}
        }
    }

    /// Makes an undo so.
    pub fn undo(&mut self, undo: &Undo) -> Undone {
        if let Undo::Resume(target) = undo.inner() {
            self.stop(target, false);
            return Ok("it runs".to_owned());
        }
        let Some(net) = self.nets.get_mut(&undo.netns()) else {
            return Ok("it went with its network namespace".to_owned());
        };
        match undo.inner() {
            Undo::Table if !net.rules.is_empty() => return Ok("it stays for another run".to_owned()),
            Undo::Table => {
                if net.table && !net.queues.is_empty() {
                    return Err("packets that wait would be lost".to_owned());
                }
                net.table = false;
            }
            Undo::Rules(tag) => drop(net.rules.remove(tag)),
            Undo::Queue { number, .. } => drop(net.queues.remove(number)),
            Undo::Mark(bit) => drop(net.marks.remove(bit)),
            Undo::Root { device, before } => {
                let serves = net.classes.iter().any(|(other, _)| other == device);
                match net.roots.get_mut(device) {
                    Some(root) if *root == Root::Ours && !serves => *root = Root::Theirs(before.clone()),
                    _ => {}
                }
            }
            Undo::Class { device, minor, .. } => drop(net.classes.remove(&(device.clone(), *minor))),
            _ => {}
        }
        Ok("it is so".to_owned())
    }

    fn stop(&mut self, target: &Target, stopped: bool) {
        if let Some((start, state)) = self.processes.get_mut(&target.pid)
            && *start == target.start
        {
            *state = stopped;
        }
    }

    /// Both processes of the agent are dead: the kernel takes what belonged to them.
    pub fn both_die(&mut self) {
        for net in self.nets.values_mut() {
            net.table = false;
            net.rules.clear();
            net.queues.clear();
        }
    }

    /// An interface vanishes, with all that stands at it.
    pub fn unplug(&mut self, device: &Device) {
        for net in self.nets.values_mut() {
            net.roots.remove(device);
            net.classes.retain(|(other, _)| other != device);
        }
    }
}
