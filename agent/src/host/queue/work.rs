//! What an engine does to packets, and what came of it.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, NetlinkAddr, sendto};
use squall_experiments::evidence::Engine as Counts;

use super::super::nft::Hook;
use super::Orders;
use super::dice::Dice;
use super::line::Line;
use super::pace::now;
use super::packet::{HEAD, Headers};
use super::raw::{Outgoing, Raw, Sent};
use super::schedule::{Due, Held, Schedule};
use super::times::Times;
use super::wire::{self, Packet, Verdicts};

/// Verdicts are sent when they are so many bytes, at the latest.
const FULL: usize = 64 * 1024;

/// How much of a packet an engine needs, and whether it may come larger than any link would carry it.
pub fn needs(orders: &Orders) -> (u32, u32) {
    let impairment = &orders.impairment;
    let whole = impairment.duplicate.is_some()
        || impairment.corrupt.is_some()
        || (impairment.holds() && orders.hook == Hook::Output);
    let copied = if whole { u32::from(u16::MAX) } else { HEAD as u32 };
    let gso = impairment.only_delays() && orders.hook == Hook::Input;
    (copied, wire::FAIL_OPEN | if gso { wire::GSO } else { 0 })
}

/// Bytes that were taken out of the kernel.
#[derive(Debug)]
struct Bytes {
    bytes: Box<[u8]>,
    mark: u32,
    device: u32,
}

/// The dice, what is held, and the ways out.
pub struct Work {
    orders: Orders,
    dice: Dice,
    /// Whether packets of one connection may not overtake each other although their delays differ.
    ordered: bool,
    line: Option<Line>,
    schedule: Schedule<Bytes>,
    verdicts: Verdicts,
    raw: Option<Raw>,
    counts: Counts,
    times: Times,
    scratch: Vec<u8>,
    /// The number of the last packet that came.
    last: u32,
    again: bool,
}

impl Work {
    /// Opens what it needs, in the network namespace of the calling thread.
    pub fn new(number: u16, orders: Orders) -> Result<Self, Errno> {
        let impairment = &orders.impairment;
        let sends = impairment.duplicate.is_some() || (impairment.holds() && orders.hook == Hook::Output);
        Ok(Work {
            dice: Dice::new(impairment, orders.seed),
            ordered: impairment.delay.is_some_and(|delay| !delay.jitter.is_zero() && !delay.reordering),
            line: impairment.bottleneck.map(Line::new),
            schedule: Schedule::new(orders.limit as usize),
            verdicts: Verdicts::new(number),
            raw: if sends { Some(Raw::open(orders.hook)?) } else { None },
            counts: Counts { name: "queue".to_owned(), ..Counts::default() },
            times: Times::new(),
            scratch: Vec::new(),
            last: 0,
            again: false,
            orders,
        })
    }

    /// When the next packet is due.
    pub fn next(&self) -> Option<u64> {
        self.schedule.next()
    }

    /// Whether something is due that could not be let go.
    pub fn again(&self) -> bool {
        self.again
    }

    /// So many packets were gone when the kernel was told to let them go on.
    pub fn vanished(&mut self, packets: u32) {
        self.counts.mislaid += u64::from(packets);
    }

    /// Decides about one packet, which came at this time.
    pub fn packet(&mut self, packet: &Packet<'_>, now: u64, socket: &OwnedFd) {
        if self.decide(packet, now) {
            // Not before those that came before it, nor before itself.
            self.give(socket);
            let copy = Outgoing { bytes: packet.payload, mark: self.mark(packet), device: device(packet) };
            let sent = self.raw.as_mut().map(|raw| raw.send(copy));
            self.counts.duplicated += u64::from(sent == Some(Sent::Yes));
        }
        if self.verdicts.len() >= FULL {
            self.give(socket);
        }
    }

    /// Whether a copy is to be sent behind it at once.
    fn decide(&mut self, packet: &Packet<'_>, now: u64) -> bool {
        // A packet that found the socket full has a number, and passed. What would have befallen it is not its successor's.
        let passed = packet.id.wrapping_sub(self.last).wrapping_sub(1).cast_signed().max(0) as u32;
        self.last = packet.id;
        self.counts.seen += u64::from(passed) + 1;
        self.counts.overrun += u64::from(passed);
        self.dice.skip(passed);
        let fate = self.dice.next();
        if fate.lost {
            self.counts.lost += 1;
            self.verdicts.lose(packet.id);
            return false;
        }
        let length = packet.length as usize;
        let whole = length == packet.payload.len();
        let needs_headers = fate.duplicated || fate.corrupted.is_some() || self.ordered;
        let headers = if needs_headers { Headers::of(packet.payload) } else { None };
        let corrupted =
            fate.corrupted.filter(|_| whole).zip(headers).is_some_and(|(choice, headers)| {
                flip(packet.payload, headers.end, choice, &mut self.scratch)
            });
        let doubled = fate.duplicated
            && whole
            && headers.zip(self.raw.as_mut()).is_some_and(|(headers, raw)| raw.can_copy(&headers));
        let Some(wait) = self.line.as_mut().map_or(Some(0), |line| line.pass(length, now)) else {
            self.counts.crowded += 1;
            self.verdicts.lose(packet.id);
            return false;
        };
        self.counts.corrupted += u64::from(corrupted);
        self.counts.oversized += u64::from(!whole && (fate.duplicated || fate.corrupted.is_some()));
        let delay = wait + fate.delay;
        let connection = headers.filter(|_| self.ordered && !fate.late).map(|headers| headers.connection());
        let hold = delay > 0 || connection.is_some();
        // What the kernel does not hand over whole, it has to hold: its sender's socket pays for that meanwhile.
        let steal = self.orders.hook == Hook::Output && whole;
        if hold && !self.schedule.has_room(length) {
            self.counts.overflowed += 1;
        } else if hold {
            self.counts.delayed += 1;
            self.counts.reordered += u64::from(fate.late);
            let altered = corrupted.then(|| self.bytes(packet, &self.scratch));
            let held = if steal {
                if self.schedule.queued() {
                    self.verdicts.lose(packet.id);
                } else {
                    self.verdicts.taken(packet.id);
                }
                Held::Taken(altered.unwrap_or_else(|| self.bytes(packet, packet.payload)))
            } else {
                Held::Queued(packet.id, altered)
            };
            self.schedule.hold(held, length, now, delay, connection);
            // The copy needs the line, too.
            let room = doubled && self.schedule.has_room(length);
            let wait = self.line.as_mut().filter(|_| room).map_or(Some(0), |line| line.pass(length, now));
            if let (true, Some(wait)) = (room, wait) {
                self.counts.duplicated += 1;
                let copy = Held::Taken(self.bytes(packet, packet.payload));
                self.schedule.hold(copy, length, now, wait + fate.delay, connection);
            }
            return false;
        }
        if corrupted {
            self.verdicts.altered(packet.id, &self.scratch);
        } else if !self.schedule.queued() {
            self.verdicts.oldest(packet.id);
        } else {
            self.verdicts.accept(packet.id);
        }
        doubled
    }

    fn mark(&self, packet: &Packet<'_>) -> u32 {
        let (value, mask) = self.orders.mark;
        (packet.mark & !mask) | (value & mask)
    }

    fn bytes(&self, packet: &Packet<'_>, bytes: &[u8]) -> Bytes {
        Bytes { bytes: bytes.into(), mark: self.mark(packet), device: device(packet) }
    }

    /// Lets go what is due.
    pub fn release(&mut self, now: u64, socket: &OwnedFd) {
        let mut waits = false;
        loop {
            let Work { schedule, verdicts, raw, counts, times, .. } = self;
            let all = schedule.release(now, |Due { held, oldest, arrived, deadline }| {
                if verdicts.len() >= FULL {
                    return false;
                }
                match held {
                    Held::Queued(id, None) if oldest => verdicts.oldest(*id),
                    Held::Queued(id, None) => verdicts.accept(*id),
                    Held::Queued(id, Some(altered)) => verdicts.altered(*id, &altered.bytes),
                    // What the kernel holds and is due before it is not to be overtaken.
                    Held::Taken(_) if !verdicts.is_empty() => return false,
                    Held::Taken(Bytes { bytes, mark, device }) => {
                        let packet = Outgoing { bytes, mark: *mark, device: *device };
                        match raw.as_mut().map_or(Sent::No(Errno::EBADF), |raw| raw.send(packet)) {
                            Sent::Yes => {}
                            Sent::Later => {
                                waits = true;
                                return false;
                            }
                            Sent::No(_) => counts.mislaid += 1,
                        }
                    }
                }
                times.leave(arrived, deadline);
                true
            });
            self.give(socket);
            if all || waits || !self.verdicts.is_empty() {
                break;
            }
        }
        self.again = waits || !self.verdicts.is_empty();
    }

    /// Whether everything has been let go.
    pub fn is_done(&self) -> bool {
        self.schedule.is_empty() && self.verdicts.is_empty()
    }

    /// Gives up what is still held.
    pub fn abandon(&mut self) {
        self.counts.mislaid += self.schedule.len() as u64;
    }

    /// Hands the verdicts to the kernel; keeps them for another try where it has no memory for them now.
    pub fn give(&mut self, socket: &OwnedFd) {
        if !self.verdicts.is_empty() {
            let to = NetlinkAddr::new(0, 0);
            let sent = sendto(socket.as_raw_fd(), self.verdicts.pending(), &to, MsgFlags::MSG_DONTWAIT);
            if let Err(Errno::EAGAIN | Errno::ENOBUFS | Errno::ENOMEM | Errno::EINTR) = sent {
                return;
            }
            self.verdicts.sent();
        }
        self.times.left(now());
    }

    /// What it did so far.
    pub fn counts(&self) -> Counts {
        let (held, late) = self.times.spreads();
        Counts { held, late, ..self.counts.clone() }
    }
}

/// The interface that a packet belongs to.
fn device(packet: &Packet<'_>) -> u32 {
    if packet.outdev != 0 { packet.outdev } else { packet.indev }
}

/// Puts the packet with one bit flipped behind its headers into `altered`; no where nothing stands there.
fn flip(packet: &[u8], from: usize, choice: u64, altered: &mut Vec<u8>) -> bool {
    let bits = packet.len().saturating_sub(from) as u64 * 8;
    if bits == 0 {
        return false;
    }
    let bit = choice % bits;
    altered.clear();
    altered.extend_from_slice(packet);
    altered[from + (bit / 8) as usize] ^= 1 << (bit % 8);
    true
}

#[cfg(test)]
mod tests;
