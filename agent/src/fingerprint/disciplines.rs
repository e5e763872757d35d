//! Queueing disciplines, classes and filters, by the name of their interface.

use std::collections::{BTreeMap, BTreeSet};

use nix::sys::socket::SockProtocol;

use super::Seen;
use super::links::OURS;
use crate::host::netlink::{NetlinkError, Socket, find, text_of, u32_at};
use crate::host::qdisc::htb;
use crate::host::qdisc::message::{self, Listed, ROOT};
use crate::host::qdisc::root::MAJOR;

/// Disciplines whose classes somebody made; those of others stand for flows or bands, and come and go by themselves.
const CLASSED: [&str; 5] = ["htb", "hfsc", "drr", "qfq", "cbq"];

/// See the module.
pub fn look(seen: &mut Seen) -> Result<(), String> {
    all(seen).map_err(|error| format!("cannot be listed: {error}"))
}

fn all(seen: &mut Seen) -> Result<(), NetlinkError> {
    let mut socket = Socket::open(SockProtocol::NetlinkRoute)?;
    let links = socket.dump(&message::list_links())?;
    let links: BTreeMap<u32, String> =
        links.iter().map(message::link).map(|link| (link.index, link.name)).collect();
    let on = |index: u32| links.get(&index).map_or("a link that is gone", String::as_str).to_owned();
    let mut classed = BTreeSet::new();
    // Where filters can stand: at every discipline that somebody made.
    let mut places = BTreeSet::new();
    for one in socket.dump(&message::list_qdiscs())?.iter().map(message::listed) {
        // What stands on a link of ours comes and goes with it.
        if links.get(&one.interface).is_some_and(|name| name.starts_with(OURS)) {
            continue;
        }
        let name = format!("discipline of `{}` below {}", on(one.interface), place(one.parent));
        // Below a class of ours stands what we or the kernel put there.
        if one.handle >> 16 == MAJOR || one.parent >> 16 == MAJOR {
            seen.ours(&name);
        }
        seen.hash(name, &[one.kind.as_bytes(), &options(&one)].concat());
        if one.handle != 0 {
            if CLASSED.contains(&one.kind.as_str()) {
                classed.insert(one.interface);
            }
            // Those of an ingress or clsact discipline stand at two places of its own (`TC_H_MIN_INGRESS`, `_EGRESS`).
            let hooks: &[u32] =
                if one.handle == 0xffff_0000 { &[0xffff_fff2, 0xffff_fff3] } else { &[one.handle] };
            places.extend(hooks.iter().map(|hook| (one.interface, *hook)));
        }
    }
    for interface in classed {
        for class in socket.dump(&message::list_classes(interface))?.iter().map(message::listed) {
            if !CLASSED.contains(&class.kind.as_str()) {
                continue;
            }
            let name = format!("class {:x} of `{}`", class.handle & 0xffff, on(interface));
            if class.handle >> 16 == MAJOR {
                seen.ours(&name);
            }
            seen.hash(name, &[class.kind.as_bytes(), &class.options].concat());
            places.insert((interface, class.handle));
        }
    }
    for (interface, at) in places {
        // A discipline that takes no filters has none.
        for filter in socket.dump(&message::list_filters(interface, at)).unwrap_or_default() {
            let kind = find(filter.body.get(20..).unwrap_or_default(), 1).map(text_of).unwrap_or_default();
            // Preference and protocol. What it does holds counters and times of its own.
            let bytes = [kind.as_bytes(), &u32_at(&filter.body, 16).to_le_bytes()].concat();
            seen.hash(format!("filters of `{}` at {}", on(interface), place(at)), &bytes);
        }
    }
    Ok(())
}

/// The options of a discipline, without what it counts in them.
fn options(one: &Listed) -> Vec<u8> {
    let mut options = one.options.clone();
    if one.kind == htb::KIND
        && let Some(count) = options.get_mut(20..24)
    {
        // `direct_pkts`, the fifth number of the first attribute.
        count.fill(0);
    }
    options
}

/// A place below an interface. The upper half of a handle is given by the kernel where nobody chose it.
fn place(parent: u32) -> String {
    match parent {
        ROOT => "its root".to_owned(),
        0xffff_fff1 => "its ingress".to_owned(),
        0xffff_fff2 => "its ingress hook".to_owned(),
        0xffff_fff3 => "its egress hook".to_owned(),
        parent => format!("{:x}", parent & 0xffff),
    }
}
