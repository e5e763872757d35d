//! The inert root and its classes: `htb`, a hierarchy of token buckets.
//!
//! Source: `net/sched/sch_htb.c`, `include/uapi/linux/pkt_sched.h`. A root without a default class sends what nobody
//! steers elsewhere through its direct queue, unshaped.

use std::time::Duration;

use squall_experiments::impairment::Bottleneck;

use super::super::netlink::Message;

/// The kind's name.
pub const KIND: &str = "htb";

/// The version that the kernel wants to hear.
pub const VERSION: u32 = 3;

/// Packets in the direct queue, as many as an interface's usual queue has.
const DIRECT: u32 = 1000;
/// Bytes a second that no interface reaches (1 Tbit/s): for a class that is not a bottleneck.
const UNLIMITED: u64 = 125_000_000_000;
/// Bytes that a class sends in its turn; given, because the kernel complains in its log about one that it derives from a
/// large rate.
const QUANTUM: u32 = 60_000;
/// `PSCHED_SHIFT`: the kernel counts times in units of 64 ns.
const TICK_NANOS: u128 = 64;

/// The options of the root.
pub fn root() -> Vec<u8> {
    // Version, rate to quantum, no default class, no debugging, packets that went directly.
    let init: Vec<u8> = [VERSION, 10, 0, 0, 0].into_iter().flat_map(u32::to_ne_bytes).collect();
    Message::new(0, 0).attr(2, &init).attr(5, &DIRECT.to_ne_bytes()).inside().to_vec()
}

/// The options of a class: a bottleneck, or one that holds nobody up.
pub fn class(line: Option<&Bottleneck>) -> Vec<u8> {
    let (rate, burst) = match line {
        // A burst says how long the line takes for it.
        Some(line) => (line.rate.bytes().max(1), line.rate.takes(line.burst.bytes())),
        None => (UNLIMITED, Duration::from_millis(10)),
    };
    let ticks = u32::try_from(burst.as_nanos().div_ceil(TICK_NANOS)).unwrap_or(u32::MAX).max(1);
    let mut options = Vec::new();
    for _rate_and_ceiling in 0..2 {
        // Cell size; link layer (Ethernet: without one the kernel wants a table of rates); overhead; alignment; smallest.
        options.extend([0, 1, 0, 0, 0, 0, 0, 0]);
        options.extend(u32::try_from(rate).unwrap_or(u32::MAX).to_ne_bytes());
    }
    // Bucket, the ceiling's bucket, quantum, level, priority.
    options.extend([ticks, ticks, QUANTUM, 0, 0].into_iter().flat_map(u32::to_ne_bytes));
    let mut message = Message::new(0, 0).attr(1, &options);
    if u32::try_from(rate).is_err() {
        message = message.attr(6, &rate.to_ne_bytes()).attr(7, &rate.to_ne_bytes());
    }
    message.inside().to_vec()
}
