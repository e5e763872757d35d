//! The kernel's own queueing disciplines as an engine: a line of `htb` for the traffic that is meant and no other, for what
//! leaves and for what enters.

mod inbound;
mod outbound;

use std::time::Duration;

use squall_tests::world::World;

/// What the line carries, in bits a second.
const LINE: f64 = 20e6;
/// How long a rate is measured.
const AWHILE: Duration = Duration::from_secs(2);

/// A second link between the first two hosts, `late0` and `late1`, which the world does not know.
fn late(world: &World) {
    let [near, far] = &world.hosts[..] else { panic!("two hosts are needed") };
    let there = far.netns.path().display().to_string();
    near.look(&["ip", "link", "add", "late0", "type", "veth", "peer", "name", "late1", "netns", &there]);
    for (host, link, address) in [(near, "late0", "10.98.0.1/24"), (far, "late1", "10.98.0.2/24")] {
        host.look(&["ip", "address", "add", address, "dev", link]);
        host.look(&["ip", "link", "set", link, "up"]);
    }
}

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
