//! Shaping packets: a flow becomes rules in a slot of Squall's own table, and each way an engine.

use std::collections::BTreeSet;

use blake3::Hasher;
use squall_experiments::change::{self, Shape};
use squall_experiments::evidence::{Engine, Evidence, Incident, Unit};
use squall_experiments::impairment::MOST_HELD;
use squall_experiments::protocol::Refusal;

use super::aim::Aim;
use super::engines::Engines;
use super::matching::{Packets, hooks};
use super::nft::Hook;
use super::qdisc::lane::{self, Lane};
use super::qdisc::{Discs, choice};
use super::queue::{Orders, Queue};
use super::rule::Rule;
use super::slot::{Levels, Slot, Slots, Wish};
use super::table::Table;
use super::undo::Undo;
use super::watch::Watch;
use super::{Place, Record, mark, matching, sys};

/// A shape that has been looked at.
#[derive(Debug)]
pub struct Prepared {
    /// Which packets.
    pub packets: Packets,
    /// Where its rules will stand.
    pub slot: Slot,
    by: By,
}

#[derive(Debug)]
enum By {
    Queues { shape: Shape, native: bool, ways: Vec<(Hook, Vec<Rule>)> },
    Disciplines(Lane),
}

/// What shaping changes of one host share.
#[derive(Debug)]
pub struct Ground<'a> {
    /// The owner table.
    pub table: &'a mut Table,
    /// Which slots are held.
    pub slots: &'a mut Slots,
    /// Where levels stand in the mark.
    pub levels: Option<Levels>,
    /// The packet engines.
    pub engines: &'a mut Engines,
    /// The kernel's own disciplines.
    pub discs: &'a mut Discs,
}

/// A shape that is live.
#[derive(Debug)]
pub struct Live {
    queues: Vec<(Hook, u16)>,
    lane: Option<Box<lane::Live>>,
    /// What its rules had counted when they were last asked.
    counted: lane::Counted,
    limit: u32,
    notes: Vec<String>,
    incidents: Vec<Incident>,
    began: u64,
    /// Which packets.
    pub packets: matching::Live,
}

/// Looks at the host and takes a slot. Changes nothing; what was taken is given back by the tag.
pub fn prepare(
    shape: &Shape,
    place: &Place,
    aim: &Aim<'_>,
    marks: &BTreeSet<u32>,
    ground: &mut Ground<'_>,
) -> Result<Prepared, Refusal> {
    if !(1..=MOST_HELD).contains(&shape.limit) {
        return Err(Refusal::bare(format!("{} packets cannot be held, only 1 to {MOST_HELD}", shape.limit)));
    }
    let mut packets = Packets::of(&shape.flow, &place.tag, aim, marks)?;
    let hooks = hooks(shape.direction);
    if let Some(roots) = choice::choose(shape, &mut packets, aim.policy, ground.discs)? {
        let wish = Wish {
            flow: shape.flow.clone(),
            hooks,
            alters: true,
            resends: false,
            by_cgroup: packets.whom.by_cgroup(),
        };
        match ground.slots.take_last(wish, &place.tag) {
            Ok(slot) => {
                packets.notes.extend(roots.notes.clone());
                let lane = Lane::of(shape, roots, &packets, &place.tag, ground.discs)
                    .inspect_err(|_| ground.slots.give_back(&place.tag))?;
                return Ok(Prepared { packets, slot, by: By::Disciplines(lane) });
            }
            Err(refusal) if shape.engine == change::Engine::Netem => return Err(refusal),
            Err(refusal) => packets.notes.push(format!("the engine is `queue`: {}", refusal.what)),
        }
    }
    if shape.engine == change::Engine::Queue {
        packets.notes.push("the engine is `queue`, as asked for".to_owned());
    }
    let native = ground.engines.native(ground.table)?;
    let levels = ground.levels;
    let ways = hooks.iter().map(|hook| {
        let copies = levels.map(|levels| levels.bits(*hook));
        let matching = packets.rules(*hook, &place.tag, false, copies)?;
        Ok((*hook, matching.into_iter().map(|(rule, _)| rule).collect()))
    });
    let ways: Vec<(Hook, Vec<Rule>)> = ways.collect::<Result<_, Refusal>>()?;
    if levels.is_none() && hooks.iter().any(|hook| sends(shape, *hook)) {
        return Err(Refusal::new(
            "packets would have to be sent again with four bits in their mark, and none are free here",
            "a routing rule or a socket of this host uses the whole mark; shape what enters instead (`direction: ingress`)",
        ));
    }
    let resends = hooks.iter().any(|hook| *hook == Hook::Output && sends(shape, *hook));
    if resends {
        packets.notes.push(
            "what leaves is sent again by the agent, so firewall rules that ask for its owner do not know it"
                .into(),
        );
    }
    let wish = Wish {
        flow: shape.flow.clone(),
        hooks,
        alters: !shape.impairment.only_delays(),
        resends,
        by_cgroup: packets.whom.by_cgroup(),
    };
    let slot = ground.slots.take(wish, &place.tag)?;
    Ok(Prepared { packets, slot, by: By::Queues { shape: shape.clone(), native, ways } })
}

impl Prepared {
    /// Gives back what was taken of the kernel's disciplines.
    pub fn forget(&self, discs: &mut Discs) {
        if let By::Disciplines(lane) = &self.by {
            lane.forget(discs);
        }
    }
}

/// Whether packets are sent by a raw socket: copies, and what is held on its way out.
fn sends(shape: &Shape, hook: Hook) -> bool {
    shape.impairment.duplicate.is_some() || steals(shape, hook)
}

/// Whether packets leave the kernel while they are held: holding what a local socket has sent would stall that socket.
fn steals(shape: &Shape, hook: Hook) -> bool {
    hook == Hook::Output && shape.impairment.holds()
}

/// Starts the engines and puts the rules in. The table exists; the scope is marked.
pub fn perform(
    prepared: Prepared,
    place: &Place,
    mark: Option<mark::Live>,
    ground: &mut Ground<'_>,
    record: Record<'_>,
) -> Result<Live, Refusal> {
    let Prepared { packets, slot, by } = prepared;
    let mut live = Live {
        queues: Vec::new(),
        lane: None,
        counted: lane::Counted::default(),
        limit: 0,
        notes: Vec::new(),
        incidents: Vec::new(),
        began: sys::boot_nanos(),
        packets: matching::Live::new(packets, mark),
    };
    let (hooks, rules) = match by {
        By::Queues { shape, native, ways } => {
            let rules = started(&mut live, &shape, native, ways, (slot, place), ground, record)?;
            (hooks(shape.direction), rules)
        }
        By::Disciplines(lane) => {
            let way = lane.hooks();
            let (lane, rules) = lane.perform(ground.discs, record)?;
            live.lane = Some(Box::new(lane));
            (way, rules)
        }
    };
    ground
        .table
        .open_slot(slot, hooks, ground.levels)
        .map_err(|error| Refusal::bare(format!("cannot add a chain to `inet squall`: {error}")))?;
    record(Undo::Rules(place.tag.clone()), None)?;
    let opened = live.lane.as_ref().map_or(Ok(()), |lane| lane.open(ground.table, &place.tag));
    opened.and_then(|()| ground.table.add(rules, Some(slot))).map_err(|error| {
        Refusal::new(
            format!("cannot add rules to `inet squall`: {error}"),
            "`squall-agent preflight` says what this kernel lacks",
        )
    })?;
    Ok(live)
}

/// Starts an engine for each way, and gives the rules that will lead to them.
fn started(
    live: &mut Live,
    shape: &Shape,
    native: bool,
    ways: Vec<(Hook, Vec<Rule>)>,
    (slot, place): (Slot, &Place),
    ground: &mut Ground<'_>,
    record: Record<'_>,
) -> Result<Vec<(Hook, Rule)>, Refusal> {
    let limit = shape.limit;
    live.limit = limit;
    let mut rules = Vec::new();
    for (hook, matching) in ways {
        let queue = Queue::bind()?;
        let number = queue.number();
        record(Undo::Queue { number, steals: steals(shape, hook) }, Some(queue.socket()))?;
        let orders = Orders {
            impairment: shape.impairment.clone(),
            hook,
            limit,
            seed: seed(place, hook),
            mark: ground.levels.map_or((0, 0), |levels| levels.carried(hook, slot)),
        };
        for note in ground.engines.start(queue, orders)? {
            if !live.notes.contains(&note) {
                live.notes.push(note);
            }
        }
        live.queues.push((hook, number));
        rules.extend(matching.into_iter().map(|rule| (hook, rule.counter().queue(number, native))));
    }
    Ok(rules)
}

/// The seed of one engine: the same run seed, place and way give the same choices.
fn seed(place: &Place, hook: Hook) -> [u8; 32] {
    let way: &[u8] = match hook {
        Hook::Input | Hook::Ingress => b"input",
        Hook::Output => b"output",
    };
    *Hasher::new()
        .update(&place.seed.to_le_bytes())
        .update(place.choice.as_bytes())
        .update(way)
        .finalize()
        .as_bytes()
}

impl Live {
    /// What the kernel counted in front of the engines, and what they did.
    pub fn observe(&mut self, table: &mut Table, engines: &mut Engines, tag: &str) -> Evidence {
        // First what stands in front: what is on its way to the engine must not look as if it had passed it by.
        if let Some(lane) = &mut self.lane {
            self.counted = lane.counted(table, tag);
            return lane.evidence(self.counted);
        }
        let rules = table.rules(tag).unwrap_or_default();
        let counted = self.queues.iter().map(|(hook, _)| {
            let mine = rules.iter().filter(|rule| rule.chain.ends_with(hook.suffix()));
            mine.map(|rule| rule.packets).sum()
        });
        let counted: Vec<u64> = counted.collect();
        self.evidence(&counted, engines)
    }

    /// Follows packets that take another way.
    pub fn follow(&mut self, table: &mut Table, discs: &mut Discs, record: Record<'_>) {
        if let Some(lane) = &mut self.lane {
            lane.follow(&self.packets.packets, table, discs, record);
        }
    }

    /// Has the worker woken when something happens to a target, or packets may take another way.
    pub fn watch(&self, watch: &Watch) -> Result<(), Refusal> {
        self.packets.watch(watch)?;
        let told = self.lane.as_deref().and_then(lane::Live::told);
        told.map_or(Ok(()), |fd| watch.add(fd))
            .map_err(|error| Refusal::bare(format!("the ways of packets cannot be watched: {error}")))
    }

    /// The last evidence, once the engines have ended: what was counted stays, the engines have the last word.
    pub fn last(&mut self, before: &Evidence, engines: &mut Engines) -> Evidence {
        if let Some(lane) = &mut self.lane {
            return lane.evidence(self.counted);
        }
        let evidence = self.evidence(&vec![0; self.queues.len()], engines);
        for (_, number) in &self.queues {
            engines.forget(*number);
        }
        Evidence { matched: evidence.matched.max(before.matched), ..evidence }
    }

    fn evidence(&mut self, counted: &[u64], engines: &mut Engines) -> Evidence {
        let mut all = Engine::default();
        let mut matched = 0;
        for ((_, number), counted) in self.queues.iter().zip(counted) {
            let engine = engines.counts(*number);
            // A large packet that the kernel cuts up for the engine is one for the counter and many for the engine.
            matched += engine.seen.max(*counted);
            all = all.plus(&engine);
        }
        let after_ms = (sys::boot_nanos() - self.began) / 1_000_000;
        let mut incident = |count: u64, what: String| {
            if count > 0 && !self.incidents.iter().any(|incident| incident.what == what) {
                self.incidents.push(Incident { after_ms, what });
            }
        };
        incident(
            all.overflowed,
            format!("{} packets were held, as many as allowed: what came then passed unharmed", self.limit),
        );
        incident(
            all.overrun,
            "packets came faster than the engine took them in (its socket was full): they passed unharmed"
                .to_owned(),
        );
        incident(all.mislaid, "packets could not be sent again, and are lost".to_owned());
        let mut evidence = Evidence {
            unit: Unit::Packets,
            matched,
            impaired: impaired(&all),
            incidents: self.incidents.clone(),
            engine: Some(all),
            witness: None,
            cut_short: None,
            notes: self.notes.clone(),
        };
        self.packets.tell(&mut evidence);
        evidence
    }
}

/// How many packets something happened to, at least: one packet can be delayed, altered and sent twice.
pub(super) fn impaired(engine: &Engine) -> u64 {
    let Engine { delayed, lost, crowded, duplicated, corrupted, reordered, .. } = engine;
    lost + crowded + delayed.max(duplicated).max(corrupted).max(reordered)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_and_each_place_has_its_own_seed() {
        let place =
            |choice: &str, seed| Place { tag: "t".into(), choice: choice.into(), seed, watched: None };
        let first = seed(&place("part 1", 7), Hook::Input);
        assert_eq!(first, seed(&place("part 1", 7), Hook::Input));
        assert_ne!(first, seed(&place("part 1", 7), Hook::Output));
        assert_ne!(first, seed(&place("part 2", 7), Hook::Input));
        assert_ne!(first, seed(&place("part 1", 8), Hook::Input));
    }

    #[test]
    fn a_packet_that_meets_two_fates_is_impaired_once() {
        let engine = Engine { seen: 10, delayed: 8, lost: 2, duplicated: 3, ..Engine::default() };
        assert_eq!(impaired(&engine), 10);
    }
}
