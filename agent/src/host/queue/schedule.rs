//! What is held until when. Pure: knows no clock and no socket.
//!
//! Times are nanoseconds of one clock, whichever the caller reads.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap, VecDeque};

/// Bytes that are held at most, whatever the limit in packets: the host must not run out of memory.
pub const MOST_BYTES: usize = 256 << 20;

/// Connections that are remembered before the first clean-up.
const FEW: usize = 1024;

/// Something that is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held<T> {
    /// A packet that the kernel holds under this number, with whatever belongs to it.
    Queued(u32, Option<T>),
    /// Bytes that are only here.
    Taken(T),
}

/// One thing that is due.
#[derive(Debug)]
pub struct Due<'a, T> {
    /// What.
    pub held: &'a Held<T>,
    /// Whether no packet that came to the kernel's queue before it is held any more.
    pub oldest: bool,
    /// When it came.
    pub arrived: u64,
    /// When it was to leave.
    pub deadline: u64,
}

/// Everything that is held, by deadline, then by arrival.
#[derive(Debug)]
pub struct Schedule<T> {
    heap: BinaryHeap<Entry<T>>,
    /// Packets and bytes held at most.
    limit: (usize, usize),
    bytes: usize,
    arrivals: u64,
    /// For each queued packet from the oldest that is held on: whether it is still held.
    queued: VecDeque<bool>,
    /// The ticket of the first of those.
    oldest: u64,
    /// When the last packet of each connection leaves.
    lasts: HashMap<u64, u64>,
    clean_at: usize,
}

#[derive(Debug)]
struct Entry<T> {
    deadline: u64,
    arrival: u64,
    arrived: u64,
    /// Counts the queued packets, without the gaps of the kernel's numbers.
    ticket: u64,
    length: usize,
    held: Held<T>,
}

impl<T> Schedule<T> {
    /// Holds nothing yet, and never more than so many packets.
    pub fn new(limit: usize) -> Self {
        Schedule {
            heap: BinaryHeap::new(),
            limit: (limit, MOST_BYTES),
            bytes: 0,
            arrivals: 0,
            queued: VecDeque::new(),
            oldest: 0,
            lasts: HashMap::new(),
            clean_at: FEW,
        }
    }

    /// Whether a packet of this length may be held, too.
    pub fn has_room(&self, length: usize) -> bool {
        self.heap.len() < self.limit.0 && self.bytes + length <= self.limit.1
    }

    /// Holds something for a while; longer where it would overtake its connection. Queued packets must come in the order
    /// of the kernel's numbers.
    pub fn hold(&mut self, held: Held<T>, length: usize, now: u64, delay: u64, connection: Option<u64>) {
        let mut deadline = now.saturating_add(delay);
        if let Some(connection) = connection {
            if self.lasts.len() >= self.clean_at {
                self.lasts.retain(|_, last| *last > now);
                self.clean_at = (self.lasts.len() * 2).max(FEW);
            }
            let last = self.lasts.entry(connection).or_insert(deadline);
            deadline = deadline.max(*last);
            *last = deadline;
        }
        let ticket = self.oldest + self.queued.len() as u64;
        if matches!(held, Held::Queued(..)) {
            self.queued.push_back(true);
        }
        self.bytes += length;
        self.heap.push(Entry { deadline, arrival: self.arrivals, arrived: now, ticket, length, held });
        self.arrivals += 1;
    }

    /// When the next one is due.
    pub fn next(&self) -> Option<u64> {
        self.heap.peek().map(|entry| entry.deadline)
    }

    /// How many are held.
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    /// Whether any of them is held by the kernel.
    pub fn queued(&self) -> bool {
        !self.queued.is_empty()
    }

    /// Gives everything that is due, in order, until `give` says no: then that one stays. Whether all were taken.
    pub fn release(&mut self, now: u64, mut give: impl FnMut(Due<'_, T>) -> bool) -> bool {
        while let Some(entry) = self.heap.peek().filter(|entry| entry.deadline <= now) {
            let queued = matches!(entry.held, Held::Queued(..));
            let due = Due {
                held: &entry.held,
                oldest: queued && entry.ticket == self.oldest,
                arrived: entry.arrived,
                deadline: entry.deadline,
            };
            if !give(due) {
                return false;
            }
            let entry = self.heap.pop().expect("just looked at");
            self.bytes -= entry.length;
            if queued {
                self.queued[(entry.ticket - self.oldest) as usize] = false;
                while self.queued.front() == Some(&false) {
                    self.queued.pop_front();
                    self.oldest += 1;
                }
            }
        }
        true
    }
}

impl<T> Ord for Entry<T> {
    /// The greatest is the one that leaves first, as [`BinaryHeap`] wants it.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.deadline, other.arrival).cmp(&(self.deadline, self.arrival))
    }
}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<T> Eq for Entry<T> {}

#[cfg(test)]
mod tests;
