//! A shape by way of the kernel's disciplines: a class on each interface, and rules that steer into it.

use squall_experiments::change::Shape;
use squall_experiments::evidence::{Engine, Evidence, Incident, Unit};
use squall_experiments::impairment::{Impairment, LossModel};
use squall_experiments::protocol::Refusal;

use super::super::matching::Packets;
use super::super::netlink::NetlinkError;
use super::super::nft::Hook;
use super::super::rule::Rule;
use super::super::table::Table;
use super::super::undo::Undo;
use super::super::{Record, sys};
use super::choice::Roots;
use super::class::{self, Leaf, PATIENCE};
use super::follow::Paths;
use super::message::{Counts, Link};
use super::root::{self, Before, HANDLE};
use super::{Device, Discs, Tc, entry, htb, ifb, needs_netem, netem};

/// A shape that has been looked at.
#[derive(Debug)]
pub struct Lane {
    ways: Vec<(Device, Before, u16)>,
    /// Where packets enter, and the number of their class.
    entry: Option<(Vec<Link>, u16)>,
    shape: Shape,
    tag: String,
    rules: Vec<(Hook, Rule)>,
}

/// A shape that is live.
#[derive(Debug)]
pub struct Live {
    pub(super) ways: Vec<Way>,
    pub(super) entry: Option<Entry>,
    pub(super) shape: Shape,
    pub(super) tag: String,
    pub(super) paths: Option<Paths>,
    incidents: Vec<Incident>,
    began: u64,
}

/// A class, and what its leaf had counted when it was last there.
#[derive(Debug)]
pub struct Way {
    pub(super) device: Device,
    pub(super) minor: u16,
    counts: Counts,
}

/// Where packets enter.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) links: Vec<Link>,
    pub(super) device: Device,
    class: u32,
}

/// What rules have counted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counted {
    /// Packets that went to the disciplines.
    pub steered: u64,
    /// Packets that left by another interface.
    pub strayed: u64,
    /// Packets that entered and passed the disciplines by.
    pub missed: u64,
}

impl Lane {
    /// Takes class numbers. Changes nothing on the host.
    pub fn of(
        shape: &Shape,
        roots: Roots,
        packets: &Packets,
        tag: &str,
        discs: &mut Discs,
    ) -> Result<Self, Refusal> {
        let mut ways = Vec::new();
        for (device, before) in roots.roots {
            ways.push((device, before, discs.minor()?));
        }
        let mut rules = Vec::new();
        let leaving =
            if ways.is_empty() { Vec::new() } else { packets.rules(Hook::Output, tag, false, None)? };
        for (rule, _) in leaving {
            for (device, _, minor) in &ways {
                rules.push((Hook::Output, steers(rule.clone(), device, *minor)));
            }
            // What leaves by another interface is counted, so that the report can say that it passed by.
            rules.push((Hook::Output, rule.counter().accept()));
        }
        let mut entry = None;
        if !roots.entries.is_empty() {
            let minor = discs.minor()?;
            rules.extend(entry::rules(packets, tag, HANDLE | u32::from(minor))?);
            entry = Some((roots.entries, minor));
        }
        Ok(Lane { ways, entry, shape: shape.clone(), tag: tag.to_owned(), rules })
    }

    /// Where its rules stand, behind all slots.
    pub fn hooks(&self) -> &'static [Hook] {
        match (self.ways.is_empty(), &self.entry) {
            (_, None) => &[Hook::Output],
            (true, Some(_)) => &[Hook::Input],
            (false, Some(_)) => &[Hook::Output, Hook::Input],
        }
    }

    /// Gives back what was taken.
    pub fn forget(&self, discs: &mut Discs) {
        let minors = self.ways.iter().map(|(_, _, minor)| minor);
        minors.chain(self.entry.iter().map(|(_, minor)| minor)).for_each(|minor| discs.freed(*minor));
    }

    /// Grafts roots where they do not stand yet, makes the device for what enters, and the classes. Gives the rules that are still to be added.
    pub fn perform(
        self,
        discs: &mut Discs,
        record: Record<'_>,
    ) -> Result<(Live, Vec<(Hook, Rule)>), Refusal> {
        let Lane { ways, entry, shape, tag, rules } = self;
        let mut tc = Tc::open().map_err(|error| Refusal::bare(error.to_string()))?;
        // Before anything is looked at: what comes later wakes the worker.
        let paths = Paths::listen();
        for (device, before, minor) in &ways {
            graft(&mut tc, &shape, device, before, *minor, discs, record)?;
        }
        let (leaf, wait_ms) = (leaf(&shape), wait_ms(&shape));
        let mut ways: Vec<Way> = ways.into_iter().map(|(device, _, minor)| Way::new(device, minor)).collect();
        let mut live_entry = None;
        if let Some((links, minor)) = entry {
            record(Undo::Entry, None)?;
            let device = match discs.entry.clone() {
                Some(device) if tc.is_there(&device)? => device,
                _ => ifb::make(&mut tc)?,
            };
            discs.entry = Some(device.clone());
            record(Undo::Class { device: device.clone(), minor, wait_ms }, None)?;
            class::make(&mut tc, &device, minor, &leaf)?;
            ways.push(Way::new(device.clone(), minor));
            live_entry = Some(Entry { links, device, class: HANDLE | u32::from(minor) });
        }
        let live = Live {
            ways,
            entry: live_entry,
            shape,
            tag,
            paths,
            incidents: Vec::new(),
            began: sys::boot_nanos(),
        };
        Ok((live, rules))
    }
}

/// The rule that steers packets into a class of an interface, where they leave by it.
pub(super) fn steers(rule: Rule, device: &Device, minor: u16) -> Rule {
    rule.leaving(device.index).counter().priority(HANDLE | u32::from(minor)).accept()
}

fn leaf(shape: &Shape) -> Leaf {
    Leaf::of(&shape.impairment, shape.limit)
}

/// How long an end waits for what a class holds, in milliseconds.
fn wait_ms(shape: &Shape) -> u64 {
    let longest = shape.impairment.longest().get().min(PATIENCE);
    u64::try_from(longest.as_millis()).unwrap_or(u64::MAX) + 200
}

/// Puts the root of an interface in its place where it does not stand yet, and a class below it.
pub(super) fn graft(
    tc: &mut Tc,
    shape: &Shape,
    device: &Device,
    before: &Before,
    minor: u16,
    discs: &mut Discs,
    record: Record<'_>,
) -> Result<(), Refusal> {
    if !tc.is_there(device)? {
        return Err(Refusal::bare(format!("`{device}` has gone meanwhile")));
    }
    record(Undo::Root { device: device.clone(), before: before.clone() }, None)?;
    if root::standing(tc, device)? != root::Standing::Ours {
        root::graft(tc, device, before)?;
        discs.before.insert(device.clone(), before.clone());
    }
    record(Undo::Class { device: device.clone(), minor, wait_ms: wait_ms(shape) }, None)?;
    class::make(tc, device, minor, &leaf(shape))
}

impl Way {
    /// One that is new.
    pub(super) fn new(device: Device, minor: u16) -> Self {
        Way { device, minor, counts: Counts::default() }
    }
}

impl Live {
    /// Grants what rules will wish for: to be called before they are added, and when the undo of rules is recorded.
    pub fn open(&self, table: &mut Table, tag: &str) -> Result<(), NetlinkError> {
        let Some(Entry { links, device, class }) = &self.entry else { return Ok(()) };
        table.open_ingress(links)?;
        table.open_way(tag, *class, device.index)
    }

    /// What the rules with a tag have counted.
    pub fn counted(&mut self, table: &mut Table, tag: &str) -> Counted {
        let rules = table.rules(tag).unwrap_or_default();
        let at = |hook: Hook, steers: bool| {
            let mine =
                rules.iter().filter(|rule| rule.chain.ends_with(hook.suffix()) && rule.steers == steers);
            mine.map(|rule| rule.packets).sum::<u64>()
        };
        let (left, strayed, missed) =
            (at(Hook::Output, true), at(Hook::Output, false), at(Hook::Input, false));
        let Some(entry) = &self.entry else { return Counted { steered: left, strayed, missed } };
        let steered = left + table.went_through(tag);
        if Tc::open().is_ok_and(|mut tc| tc.is_there(&entry.device).is_ok_and(|there| !there)) {
            // Who is led to what is not there is lost.
            let _ = table.close_way(tag);
        }
        Counted { steered, strayed, missed }
    }

    /// What the leaves did; the kernel counted so many packets in front of them.
    pub fn evidence(&mut self, counted: Counted) -> Evidence {
        let mut all = Counts::default();
        if let Ok(mut tc) = Tc::open() {
            let mut gone = Vec::new();
            for Way { device, minor, counts } in &mut self.ways {
                if tc.is_there(device).unwrap_or(true) {
                    *counts = class::counts(&mut tc, device, *minor);
                } else {
                    gone.push(device.clone());
                }
                all.add(*counts);
            }
            for device in gone {
                self.happened(format!("`{device}` vanished, and with it what it held"));
            }
        }
        let engine = self.engine(all, counted.steered);
        if engine.spilled > 0 {
            self.happened(
                "as many packets were held as allowed: what came then was lost (`limit`)".to_owned(),
            );
        }
        let mut notes = Vec::new();
        let mut passed = |count: u64, what: &str| {
            if count > 0 {
                notes.push(format!("{count} packets {what} and passed unharmed"));
            }
        };
        passed(counted.strayed, "left by another interface than the fault is on,");
        passed(counted.missed, "entered by another interface than the fault is on,");
        Evidence {
            unit: Unit::Packets,
            matched: counted.steered.max(engine.seen) + counted.strayed + counted.missed,
            impaired: super::super::shape::impaired(&engine),
            incidents: self.incidents.clone(),
            engine: Some(engine),
            witness: None,
            cut_short: None,
            notes,
        }
    }

    /// Notes what happened, once.
    pub(super) fn happened(&mut self, what: String) {
        if !self.incidents.iter().any(|incident| incident.what == what) {
            let after_ms = (sys::boot_nanos() - self.began) / 1_000_000;
            self.incidents.push(Incident { after_ms, what });
        }
    }

    /// The kernel's counts, as those of an engine.
    fn engine(&self, sum: Counts, counted: u64) -> Engine {
        let Impairment { loss, duplicate, bottleneck, delay, corrupt: _, reorder: _ } =
            &self.shape.impairment;
        let out = sum.packets + sum.waiting;
        let mut engine = Engine {
            name: if needs_netem(&self.shape.impairment) { netem::KIND } else { htb::KIND }.to_owned(),
            seen: out + sum.drops,
            ..Engine::default()
        };
        if duplicate.is_some() {
            // Copies count where they leave, not where they were made.
            engine.duplicated = engine.seen.saturating_sub(counted);
            engine.seen -= engine.duplicated;
        }
        if delay.is_some() {
            engine.delayed = out;
        } else if bottleneck.is_some() {
            // The class says how often it had to stop; each time at least one packet waited.
            engine.delayed = sum.overlimits.min(out);
        }
        // The kernel counts all that a leaf drops as one: what the fault asks for, or else what found it full.
        let dropped = if loss.as_ref().is_some_and(|loss: &LossModel| loss.share() > 0.0) {
            &mut engine.lost
        } else if bottleneck.is_some() {
            &mut engine.crowded
        } else {
            &mut engine.spilled
        };
        *dropped = sum.drops;
        engine
    }
}
