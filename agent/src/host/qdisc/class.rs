//! A class below the inert root, with the leaf that does what is asked. Entered only by a rule of the owner table.

use std::time::{Duration, Instant};

use squall_experiments::impairment::Impairment;
use squall_experiments::protocol::Refusal;

use super::super::netlink::Message;
use super::super::undo::Undone;
use super::message::{self, Counts};
use super::root::{HANDLE, MAJOR};
use super::{Device, Tc, htb, netem};

/// The longest that an end waits for packets that are still held.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// What every packet has that is not counted as its size: a header of the link.
const FRAME: u64 = 1514;

/// What a class does.
#[derive(Clone, Debug)]
pub struct Leaf {
    class: Vec<u8>,
    kind: &'static str,
    options: Vec<u8>,
}

impl Leaf {
    /// For an impairment, holding at most so many packets.
    pub fn of(impairment: &Impairment, limit: u32) -> Self {
        let line = impairment.bottleneck.as_ref();
        let class = htb::class(line);
        if !super::needs_netem(impairment) {
            let room = line.map_or(0, |line| line.rate.within(line.buffer.get()));
            // One packet must always have room.
            let bytes = u32::try_from(room.max(2 * FRAME)).unwrap_or(u32::MAX);
            return Leaf { class, kind: "bfifo", options: bytes.to_ne_bytes().to_vec() };
        }
        let limit = line.map_or(limit, |line| {
            let held = line.rate.within(impairment.longest().get()) / FRAME + 2;
            u32::try_from(held).unwrap_or(u32::MAX).min(limit)
        });
        Leaf { class, kind: netem::KIND, options: netem::options(impairment, limit) }
    }

    /// The messages that make it.
    pub fn messages(&self, device: &Device, minor: u16) -> [Message; 2] {
        let handle = HANDLE | u32::from(minor);
        [
            message::new_class(device.index, handle, HANDLE, htb::KIND, &self.class),
            message::new_qdisc(device.index, 0, handle, self.kind, Some(&self.options), true),
        ]
    }
}

/// Makes a class and its leaf below the root of an interface, which is ours.
pub fn make(tc: &mut Tc, device: &Device, minor: u16, leaf: &Leaf) -> Result<(), Refusal> {
    for message in leaf.messages(device, minor) {
        tc.request(message).map_err(|error| {
            Refusal::new(
                format!("the kernel does not take `{}` on `{device}`: {error}", leaf.kind),
                "`squall-agent preflight` says what this kernel lacks; `engine: queue` needs no such discipline",
            )
        })?;
    }
    Ok(())
}

/// What the leaf of a class has counted, with how often the class itself made packets wait; nothing where it is gone.
pub fn counts(tc: &mut Tc, device: &Device, minor: u16) -> Counts {
    let handle = HANDLE | u32::from(minor);
    let leaf = tc.qdiscs(device.index).unwrap_or_default();
    let mut counts = leaf.iter().find(|one| one.parent == handle).map(|one| one.counts).unwrap_or_default();
    let classes = tc.classes(device.index).unwrap_or_default();
    counts.overlimits =
        classes.iter().find(|one| one.handle == handle).map_or(0, |one| one.counts.overlimits);
    counts
}

/// Whether packets wait in a class.
pub fn holds(device: &Device, minor: u16) -> bool {
    Tc::open().is_ok_and(|mut tc| counts(&mut tc, device, minor).waiting > 0)
}

/// Sees to it that a class is not there. What it holds goes on its way first: nobody steers packets to it any more.
pub fn undo(device: &Device, minor: u16, within: Duration) -> Undone {
    let mut tc =
        Tc::open().map_err(|error| format!("the classes of `{device}` cannot be looked at: {error}"))?;
    let shown = |refusal: Refusal| refusal.what;
    if !tc.is_there(device).map_err(shown)? {
        return Ok(format!("`{device}` is gone, and what it held with it"));
    }
    let begun = Instant::now();
    let mut held = counts(&mut tc, device, minor).waiting;
    while held > 0 && begun.elapsed() < within {
        std::thread::sleep(Duration::from_millis(5));
        held = counts(&mut tc, device, minor).waiting;
    }
    let handle = HANDLE | u32::from(minor);
    let name = format!("class {MAJOR:x}:{minor:x} of `{device}`");
    let is_there = |tc: &mut Tc| -> Result<bool, String> {
        Ok(tc.classes(device.index).map_err(shown)?.iter().any(|class| class.handle == handle))
    };
    if !is_there(&mut tc)? {
        return Ok(format!("{name} is not there"));
    }
    tc.request(message::delete_class(device.index, handle))
        .map_err(|error| format!("{name} cannot be removed: {error}"))?;
    if is_there(&mut tc)? {
        return Err(format!("{name} is still there"));
    }
    Ok(match held {
        0 => format!("{name} is empty and gone"),
        held => format!("{name} is gone, and {held} packets that it still held are lost"),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn netem_holds_what_is_late_and_what_waits_for_the_line() {
        let room = |impairment: serde_json::Value, limit| {
            let impairment: Impairment = serde_json::from_value(impairment).unwrap();
            let leaf = Leaf::of(&impairment, limit);
            u32::from_ne_bytes(leaf.options[4..8].try_into().unwrap())
        };
        let delay = json!({ "delay": "20ms", "reordering": true });
        assert_eq!(room(json!({ "delay": delay }), 4096), 4096, "no line: as many as asked for");
        // 70 ms at 10 Mbit/s are 87,500 bytes: 57 frames, and one at each end.
        let line = json!({ "rate": "10Mbit/s", "burst": "32KiB", "buffer": "50ms" });
        assert_eq!(room(json!({ "delay": delay, "bottleneck": line }), 4096), 59);
        assert_eq!(
            room(json!({ "delay": delay, "bottleneck": line }), 20),
            20,
            "and never more than asked for"
        );
    }
}
