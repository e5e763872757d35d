//! Traffic that is measured: what a fault does to packets, seen from both ends.
//!
//! Both ends are sockets of this process, opened inside the namespaces of their hosts, so one clock times them.
//!
//! | module | what it holds |
//! |---|---|
//! | [`numbered`] | datagrams with numbers at a steady rate: lost, doubled, overtaken, and how long each was on its way |
//! | [`bulk`] | one TCP connection that sends as fast as it can |
//! | [`ping`] | ICMP echo over both families |
//! | [`counted`] | the kernel's own counts of a namespace, and processor time of a process |

pub mod bulk;
pub mod counted;
pub mod numbered;
pub mod ping;

use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

use crate::client::Talk;

/// Now, by the clock that no time server sets back: since boot.
pub(crate) fn monotonic() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC).expect("every Linux has this clock").into()
}

/// How long each of so many questions took, one after the other.
///
/// # Panics
/// At the first that is not answered.
#[track_caller]
pub fn round_trips(talk: &mut dyn Talk, many: usize) -> Vec<Duration> {
    let once = |number: usize| {
        let begun = Instant::now();
        talk.talk().unwrap_or_else(|error| panic!("question {} of {many}: {error}", number + 1));
        begun.elapsed()
    };
    (0..many).map(once).collect()
}
