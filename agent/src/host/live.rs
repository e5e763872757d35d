//! A change that has been looked at, and one that is live: of whichever mechanism.

use std::collections::BTreeSet;

use squall_experiments::change;
use squall_experiments::evidence::Evidence;

use super::aim::Aim;
use super::carve::{self, CarveOut};
use super::means::Means;
use super::reach::Reach;
use super::table::Table;
use super::{block, disconnect, matching, pause, process, redirect, shape, signal, sys};

/// A change that has been looked at.
#[derive(Debug)]
pub enum Prepared {
    /// See [`block`].
    Block(block::Prepared),
    /// See [`shape`].
    Shape(shape::Prepared),
    /// See [`redirect`].
    Redirect(redirect::Prepared),
    /// See [`disconnect`].
    Disconnect(disconnect::Prepared),
    /// See [`signal`].
    Signal(signal::Prepared),
    /// See [`pause`].
    Pause(pause::Prepared),
}

/// A change that is live.
#[derive(Debug)]
pub enum Live {
    /// Rules.
    Block(matching::Live),
    /// See [`shape`].
    Shape(shape::Live),
    /// See [`redirect`].
    Redirect(Box<redirect::Live>),
    /// Once, or again at intervals.
    Disconnect {
        /// What is wanted.
        change: change::Disconnect,
        /// As it was aimed.
        prepared: disconnect::Prepared,
        /// So far.
        evidence: Evidence,
        /// When it began, on the boot clock.
        began: u64,
        /// When it is due again.
        next: Option<u64>,
    },
    /// See [`signal`].
    Signal(signal::Live),
    /// See [`pause`].
    Pause(pause::Live),
}

impl Live {
    /// When [`Live::tick`] wants to be called next, on the boot clock.
    pub fn due(&self) -> Option<u64> {
        match self {
            Live::Block(packets) => packets.due(),
            Live::Shape(live) => live.packets.due(),
            Live::Redirect(live) => live.due(),
            Live::Pause(_) => None,
            Live::Disconnect { next, .. } => *next,
            Live::Signal(live) => live.due(),
        }
    }

    /// Does what is due, and follows targets that have moved. Called whenever the worker wakes.
    pub fn tick(&mut self, table: Option<&mut Table>, means: &Means, aim: &Aim<'_>) {
        match self {
            Live::Redirect(live) => live.tick(table, means, aim),
            Live::Block(packets) | Live::Shape(shape::Live { packets, .. }) => {
                if let Some(table) = table {
                    packets.tick(table, aim);
                }
            }
            Live::Disconnect { change, prepared, evidence, began, next } => {
                let now = sys::boot_nanos();
                if next.is_some_and(|next| next <= now) {
                    *next = change.every.map(|every| now + every.get().as_nanos() as u64);
                    let after_ms = (now - *began) / 1_000_000;
                    if let Err(refusal) = disconnect::perform(change, prepared, aim, after_ms, evidence) {
                        evidence.notes.push(refusal.what);
                    }
                }
            }
            Live::Signal(live) => live.tick(aim),
            Live::Pause(live) => live.reap(),
        }
    }

    /// Whose sockets it concerns now, where it follows them.
    pub fn reach(&self) -> Option<Reach> {
        match self {
            Live::Block(packets) | Live::Shape(shape::Live { packets, .. }) => packets.reach(),
            Live::Redirect(live) => live.reach(),
            Live::Disconnect { .. } | Live::Signal(_) | Live::Pause(_) => None,
        }
    }

    /// Lets go of what only this process holds: the undo records do the rest.
    pub fn let_go(&mut self) {
        match self {
            Live::Block(packets) | Live::Shape(shape::Live { packets, .. }) => packets.let_go(),
            Live::Redirect(live) => live.let_go(),
            Live::Pause(live) => live.release(),
            Live::Disconnect { .. } | Live::Signal(_) => {}
        }
    }
}

impl Prepared {
    /// What is aimed at, a line each.
    pub fn targets(&self) -> Vec<String> {
        match self {
            Prepared::Block(prepared) => prepared.packets.targets.clone(),
            Prepared::Shape(prepared) => prepared.packets.targets.clone(),
            Prepared::Redirect(prepared) => prepared.targets.clone(),
            Prepared::Disconnect(prepared) => prepared.targets.clone(),
            Prepared::Signal(prepared) => prepared.targets.clone(),
            Prepared::Pause(prepared) => prepared.chosen.iter().map(ToString::to_string).collect(),
        }
    }

    /// What the reader must know.
    pub fn notes(&self) -> Vec<String> {
        match self {
            Prepared::Block(prepared) => prepared.packets.notes.clone(),
            Prepared::Shape(prepared) => prepared.packets.notes.clone(),
            Prepared::Redirect(prepared) => prepared.notes.clone(),
            Prepared::Disconnect(prepared) => prepared.notes.clone(),
            Prepared::Signal(prepared) => prepared.notes.clone(),
            Prepared::Pause(prepared) => prepared.notes.clone(),
        }
    }

    /// Notes what its flow would have met and does not.
    pub(super) fn carved(&mut self, aim: &Aim<'_>) {
        let (flow, peers, notes) = match self {
            Prepared::Block(block::Prepared { packets, .. })
            | Prepared::Shape(shape::Prepared { packets, .. }) => {
                (&packets.flow, &packets.peers, &mut packets.notes)
            }
            Prepared::Disconnect(prepared) => (&prepared.flow, &prepared.peers, &mut prepared.notes),
            // What it leaves alone it has said itself.
            Prepared::Redirect(_) | Prepared::Signal(_) | Prepared::Pause(_) => return,
        };
        notes.extend(carve::note(&CarveOut::all(aim), flow, peers));
    }

    /// The processes that are held, so that two runs never hold one.
    pub fn processes(&self) -> BTreeSet<process::Target> {
        match self {
            Prepared::Signal(prepared) => prepared.chosen.iter().cloned().collect(),
            Prepared::Pause(prepared) => prepared.chosen.iter().cloned().collect(),
            Prepared::Block(_) | Prepared::Shape(_) | Prepared::Redirect(_) | Prepared::Disconnect(_) => {
                BTreeSet::new()
            }
        }
    }
}
