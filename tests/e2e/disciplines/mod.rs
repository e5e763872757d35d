//! The kernel's own queueing disciplines as an engine: a line of `htb` for the traffic that is meant and no other, for what
//! leaves and for what enters.

mod inbound;
mod outbound;

use std::time::Duration;

/// What the line carries, in bits a second.
const LINE: f64 = 20e6;
/// How long a rate is measured.
const AWHILE: Duration = Duration::from_secs(2);

#[track_caller]
fn as_asked(seen: f64) {
    // What the link and TCP add is carried, too: about a twentieth.
    assert!((0.85 * LINE..=1.1 * LINE).contains(&seen), "{:.1} Mbit/s on a line of 20", seen / 1e6);
}

/// Far more than the line carries, whatever the machine is busy with.
#[track_caller]
fn free(seen: f64) {
    assert!(seen > 5.0 * LINE, "{:.1} Mbit/s where no line is", seen / 1e6);
}
