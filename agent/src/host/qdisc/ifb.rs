//! The device that what enters is led through, so that it meets queueing disciplines: `ifb`, one in a namespace.
//!
//! Source: `drivers/net/ifb.c`. It gives every packet back to the interface by which it came, behind the hook that led it
//! here. It is ours as a whole: its root is an inert `htb` like those of other interfaces, and its undo deletes it.

use nix::errno::Errno;
use squall_experiments::protocol::Refusal;

use super::super::netlink::{FLAG_CREATE, FLAG_EXCL, Message, NetlinkError};
use super::super::undo::Undone;
use super::message::Link;
use super::root::{self, Before, HANDLE};
use super::{Device, Tc};

/// The kind's name.
pub const KIND: &str = "ifb";
/// The device's name, which is our mark.
pub const NAME: &str = "squall-in";

const NEW_LINK: u16 = 16;
const DELETE_LINK: u16 = 17;
/// Packets that wait for the device itself; by itself it has room for 32.
const ROOM: u32 = 1000;

/// `struct ifinfomsg`.
fn header(index: u32, flags: u32) -> [u8; 16] {
    let mut bytes = [0; 16];
    for (at, word) in [(4, index), (8, flags), (12, flags)] {
        bytes[at..at + 4].copy_from_slice(&word.to_ne_bytes());
    }
    bytes
}

fn new(name: &str) -> Message {
    const NAMED: u16 = 3;
    const QUEUE: u16 = 13;
    const INFO: u16 = 18;
    Message::new(NEW_LINK, FLAG_CREATE | FLAG_EXCL)
        .raw(&header(0, 0))
        .text(NAMED, name)
        .attr(QUEUE, &ROOM.to_ne_bytes())
        .nest(INFO, |m| m.text(1, KIND))
}

/// Without addresses of its own: nobody is to be told that it is there.
fn unaddressed(index: u32) -> Message {
    const FAMILIES: u16 = 26;
    const IPV6: u16 = 10;
    const MODE: u16 = 8;
    const NONE: u8 = 1;
    Message::new(NEW_LINK, 0)
        .raw(&header(index, 0))
        .nest(FAMILIES, |m| m.nest(IPV6, |m| m.attr(MODE, &[NONE])))
}

fn up(index: u32) -> Message {
    const UP: u32 = 1;
    Message::new(NEW_LINK, 0).raw(&header(index, UP))
}

/// Whether the kernel knows the kind; it may load a module for that. Nothing is made: an address of the wrong length is
/// refused by the kind itself.
pub fn known(tc: &mut Tc) -> Result<(), String> {
    const ADDRESS: u16 = 1;
    match tc.request(new("squall-trial").attr(ADDRESS, &[0; 4])) {
        Err(error) if error.errno() == Errno::EINVAL => Ok(()),
        Err(error) => Err(error.to_string()),
        Ok(()) => Err("the kernel made what it must refuse".to_owned()),
    }
}

/// The device of our name.
pub fn find(tc: &mut Tc) -> Result<Option<Link>, Refusal> {
    Ok(tc.links()?.into_iter().find(|link| link.name == NAME))
}

/// Makes it, with its root, and lets packets in.
pub fn make(tc: &mut Tc) -> Result<Device, Refusal> {
    let cannot = |error: NetlinkError| {
        Refusal::new(
            format!("the device `{NAME}` cannot be made: {error}"),
            "`engine: queue` needs no device; `squall-agent preflight` says what this kernel lacks",
        )
    };
    tc.request(new(NAME)).map_err(cannot)?;
    let link = find(tc)?.ok_or_else(|| Refusal::bare(format!("`{NAME}` was made and is not there")))?;
    let device = Device { index: link.index, name: link.name };
    root::graft(tc, &device, &Before::Default)?;
    // Where IPv6 is compiled out there is nothing to switch off.
    let _ = tc.request(unaddressed(device.index));
    tc.request(up(device.index)).map_err(cannot)?;
    Ok(device)
}

/// Sees to it that it is not there, unless a class stands in it for another change.
pub fn undo() -> Undone {
    let shown = |refusal: Refusal| refusal.what;
    let mut tc = Tc::open().map_err(|error| format!("`{NAME}` cannot be looked for: {error}"))?;
    let Some(link) = find(&mut tc).map_err(shown)? else {
        return Ok(format!("`{NAME}` is not there"));
    };
    if link.kind != KIND {
        return Ok(format!("`{NAME}` is no `{KIND}`, and so not ours"));
    }
    if tc.classes(link.index).map_err(shown)?.iter().any(|class| class.handle != HANDLE) {
        return Ok(format!("`{NAME}` stands for another change"));
    }
    match tc.request(Message::new(DELETE_LINK, 0).raw(&header(link.index, 0))) {
        Err(error) if error.errno() != Errno::ENODEV => {
            return Err(format!("`{NAME}` cannot be removed: {error}"));
        }
        _ => {}
    }
    match find(&mut tc).map_err(shown)? {
        None => Ok(format!("`{NAME}` is gone")),
        Some(_) => Err(format!("`{NAME}` is still there")),
    }
}
