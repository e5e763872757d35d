//! Slots: where shaping changes stand, so that two on the same traffic both apply.
//!
//! The kernel never asks a second queue rule in one base chain (measured), so each slot is a base chain of its own, at
//! each hook. The order is fixed: what loses or alters packets takes slots from the front, what only delays them from
//! the back; two changes may share a slot when no packet belongs to both.
//!
//! What a raw socket sends again enters the outgoing slots from the front. So that it passes by those that it has been
//! through, it carries the number of its slot as a *level* in its mark, and the rules of a slot match only what is below.

use squall_experiments::flow::Flow;
use squall_experiments::protocol::Refusal;
use squall_experiments::scope::Scope;

use super::nft::Hook;
use super::undo::TAG;

/// How many there are.
pub const SLOTS: u8 = 8;

/// Behind all slots: where packets are steered into the kernel's own queueing disciplines.
pub const LAST: Slot = Slot(SLOTS);

/// A place among the slots, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slot(pub u8);

/// What a shaping change asks of its slot.
#[derive(Clone, Debug)]
pub struct Wish {
    /// Which packets.
    pub flow: Flow,
    /// Where they are met.
    pub hooks: &'static [Hook],
    /// Packets are lost or altered, not only delayed.
    pub alters: bool,
    /// Packets that leave are taken and sent again by a socket of the agent.
    pub resends: bool,
    /// Packets are told apart by their socket's control group, which a socket of the agent does not share.
    pub by_cgroup: bool,
}

#[derive(Debug)]
struct Held {
    slot: Slot,
    wish: Wish,
    tag: String,
}

/// Which slots are held by whom.
#[derive(Debug, Default)]
pub struct Slots {
    held: Vec<Held>,
}

impl Slots {
    /// Takes the first slot that serves, for the change whose rules carry this tag.
    pub fn take(&mut self, wish: Wish, tag: &str) -> Result<Slot, Refusal> {
        let all = (0..SLOTS).map(Slot);
        let mut order: Vec<Slot> = if wish.alters { all.collect() } else { all.rev().collect() };
        let mut overlapping: Vec<&Held> = Vec::new();
        order.retain(|slot| {
            let taken = self.held.iter().find(|held| held.slot == *slot && wish.overlaps(&held.wish));
            overlapping.extend(taken);
            taken.is_none()
        });
        let Some(first) = overlapping.first().copied().filter(|_| order.is_empty()) else {
            return self.give(order, wish, tag);
        };
        Err(Refusal::new(
            format!("these packets are shaped {SLOTS} times over already, first of all by {}", first.run()),
            "wait for one of the runs to end, or aim at other traffic",
        ))
    }

    /// Takes the place behind all slots. A packet has one priority, so two changes there never share a packet.
    pub fn take_last(&mut self, wish: Wish, tag: &str) -> Result<Slot, Refusal> {
        let taken = self.held.iter().find(|held| held.slot == LAST && wish.overlaps(&held.wish));
        if let Some(held) = taken {
            return Err(Refusal::new(
                format!("{} steers packets of the same traffic into queueing disciplines", held.run()),
                "leave the engine to Squall (`engine: queue` composes), or wait for that run to end",
            ));
        }
        self.give(vec![LAST], wish, tag)
    }

    fn give(&mut self, order: Vec<Slot>, wish: Wish, tag: &str) -> Result<Slot, Refusal> {
        let blind = |slot: Slot| self.held.iter().find(|held| wish.blinds(slot, held));
        let Some(slot) = order.iter().copied().find(|slot| blind(*slot).is_none()) else {
            let other = order.first().and_then(|slot| blind(*slot)).map(Held::run).unwrap_or_default();
            return Err(Refusal::new(
                format!(
                    "{other} shapes packets of the same traffic: one of the two sends packets again from a socket of its \
                     own, so the other cannot tell them by their control group"
                ),
                "choose the traffic by process, user, port or peer, or wait for that run to end",
            ));
        };
        self.held.push(Held { slot, wish, tag: tag.to_owned() });
        Ok(slot)
    }

    /// Frees the slot of the change with this tag; none is no error.
    pub fn give_back(&mut self, tag: &str) {
        self.held.retain(|held| held.tag != tag);
    }
}

impl Held {
    /// `run abc`, from the tag of its rules.
    fn run(&self) -> String {
        let name = self.tag.strip_prefix(TAG).and_then(|rest| rest.split(' ').next()).unwrap_or(&self.tag);
        format!("run {name}")
    }
}

impl Wish {
    fn overlaps(&self, other: &Wish) -> bool {
        // What a socket of another control group or process does may change while both are live.
        let apart = |a: &Scope, b: &Scope| !matches!(a, Scope::Cgroup(_) | Scope::Process(_)) && a.apart(b);
        let meets = self.flow.meets(&other.flow, &apart).is_some();
        self.hooks.iter().any(|hook| other.hooks.contains(hook)) && meets
    }

    /// Whether one of the two would not know packets again that the other sends: the second in order asks for the
    /// control group of what the first has sent.
    fn blinds(&self, slot: Slot, held: &Held) -> bool {
        let outgoing = |wish: &Wish| wish.hooks.contains(&Hook::Output);
        let (first, second) = if slot < held.slot { (self, &held.wish) } else { (&held.wish, self) };
        first.resends && second.by_cgroup && outgoing(first) && outgoing(second) && self.overlaps(&held.wish)
    }
}

/// The two places of four bits in the mark that carry levels: one for each way, as what leaves over loopback enters
/// with its mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Levels {
    /// The lowest bit of the level on the way in.
    pub input: u32,
    /// The lowest bit of the level on the way out.
    pub output: u32,
}

impl Levels {
    fn shift(self, hook: Hook) -> u32 {
        match hook {
            Hook::Input | Hook::Ingress => self.input,
            Hook::Output => self.output,
        }
    }

    /// The bits of a level.
    pub fn bits(self, hook: Hook) -> u32 {
        0xf << self.shift(hook)
    }

    /// What the rules of a slot ask of a mark: a mask, and the highest value under it that they match.
    pub fn asked(self, hook: Hook, slot: Slot) -> (u32, u32) {
        (self.bits(hook), u32::from(slot.0) << self.shift(hook))
    }

    /// What packets that a slot sends carry in their mark: a value, and its mask.
    pub fn carried(self, hook: Hook, slot: Slot) -> (u32, u32) {
        let level = |hook, slot: u8| u32::from(slot + 1) << self.shift(hook);
        let mask = self.bits(hook);
        match hook {
            Hook::Output => (level(hook, slot.0), mask),
            // It enters again by way of loopback: on its way out nothing may touch it.
            Hook::Input | Hook::Ingress => {
                (level(hook, slot.0) | level(Hook::Output, LAST.0), mask | self.bits(Hook::Output))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use squall_experiments::flow::Direction;

    use super::super::matching::hooks;
    use super::*;

    fn wish(to: &str, direction: Direction, alters: bool) -> Wish {
        let to = vec![to.parse().unwrap()];
        let flow = Flow { to, ..Flow::default() };
        Wish { flow, hooks: hooks(direction), alters, resends: false, by_cgroup: false }
    }

    #[test]
    fn alterers_stand_before_delays_and_other_traffic_shares_a_slot() {
        use Direction::{Both, Egress, Ingress};
        let mut slots = Slots::default();
        let mut take = |to, direction, alters, tag| slots.take(wish(to, direction, alters), tag).unwrap().0;
        assert_eq!(take("10.0.0.1", Ingress, false, "a"), 7);
        assert_eq!(take("10.0.0.1", Ingress, false, "b"), 6);
        assert_eq!(take("10.0.0.1", Ingress, true, "c"), 0);
        assert_eq!(take("10.0.0.2", Ingress, false, "d"), 7);
        assert_eq!(take("10.0.0.1", Egress, false, "e"), 7, "what leaves is not what enters");
        assert_eq!(take("any", Both, true, "f"), 1);
        slots.give_back("a");
        assert_eq!(slots.take(wish("10.0.0.1", Ingress, false), "g").unwrap().0, 7);
    }

    #[test]
    fn a_ninth_change_of_the_same_packets_is_refused_and_the_run_that_holds_them_named() {
        let mut slots = Slots::default();
        for number in 0..SLOTS {
            let tag = format!("{TAG}r{number} part 1 change 0;");
            slots.take(wish("10.0.0.1", Direction::Ingress, number % 2 == 0), &tag).unwrap();
        }
        let refusal = slots.take(wish("10.0.0.1", Direction::Ingress, true), "x").unwrap_err();
        assert!(refusal.what.ends_with("by run r0"), "{}", refusal.what);
        slots.take(wish("10.0.0.2", Direction::Ingress, true), "y").unwrap();
    }

    #[test]
    fn two_changes_never_steer_one_packet() {
        let mut slots = Slots::default();
        let egress = |to| wish(to, Direction::Egress, false);
        assert_eq!(slots.take_last(egress("10.0.0.1"), "a").unwrap(), LAST);
        assert!(slots.take_last(egress("10.0.0.0/8"), "b").is_err());
        assert_eq!(slots.take_last(egress("10.0.0.2"), "c").unwrap(), LAST);
        assert_eq!(slots.take(egress("10.0.0.1"), "d").unwrap().0, 7, "queues stand before it");
    }

    #[test]
    fn a_control_group_is_never_asked_of_packets_that_were_sent_again() {
        let resending = || Wish { resends: true, ..wish("10.0.0.1", Direction::Egress, true) };
        let in_cgroup = || {
            let mut wish = Wish { by_cgroup: true, ..wish("10.0.0.1", Direction::Egress, true) };
            wish.flow.scope = Some(Scope::Cgroup("a".into()));
            wish
        };
        let mut slots = Slots::default();
        slots.take(resending(), "a").unwrap();
        assert!(slots.take(in_cgroup(), "b").is_err(), "every slot left is behind the one that sends");
        let mut slots = Slots::default();
        slots.take(in_cgroup(), "a").unwrap();
        assert_eq!(slots.take(resending(), "b").unwrap().0, 1);
        // A delay that sends again stands last, and one by control group finds its place before it.
        let mut slots = Slots::default();
        slots.take(Wish { alters: false, ..resending() }, "a").unwrap();
        assert_eq!(slots.take(Wish { alters: false, ..in_cgroup() }, "b").unwrap().0, 6);
    }

    #[test]
    fn what_a_slot_sends_is_seen_by_later_slots_alone() {
        let levels = Levels { input: 28, output: 4 };
        let sees = |hook, slot, mark: u32| {
            let (mask, most) = levels.asked(hook, Slot(slot));
            mark & mask <= most
        };
        for sender in 0..SLOTS {
            let (value, mask) = levels.carried(Hook::Output, Slot(sender));
            assert_eq!(value & !mask, 0);
            for slot in 0..SLOTS {
                assert!(sees(Hook::Output, slot, 0));
                assert_eq!(sees(Hook::Output, slot, value), slot > sender);
                assert!(sees(Hook::Input, slot, value), "over loopback, the way in is another one");
                let (value, _) = levels.carried(Hook::Input, Slot(sender));
                assert_eq!(sees(Hook::Input, slot, value), slot > sender);
                assert!(!sees(Hook::Output, slot, value));
                assert!(!sees(Hook::Output, LAST.0, value));
            }
            assert!(sees(Hook::Output, LAST.0, levels.carried(Hook::Output, Slot(sender)).0));
        }
    }
}
