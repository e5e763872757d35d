//! rtnetlink messages: queueing disciplines, classes, links and routes, and what the kernel lists of them.
//!
//! Source: `include/uapi/linux/rtnetlink.h`, `pkt_sched.h`, `if_link.h`, `gen_stats.h`. All numbers are in host order.

use std::net::IpAddr;

use super::super::netlink::{
    FLAG_CREATE, FLAG_EXCL, FLAG_REPLACE, Message, Received, find, text_of, u16_at, u32_at,
};

const GET_LINK: u16 = 18;
const GET_ROUTE: u16 = 26;
const NEW_QDISC: u16 = 36;
const DELETE_QDISC: u16 = 37;
const GET_QDISC: u16 = 38;
const NEW_CLASS: u16 = 40;
const DELETE_CLASS: u16 = 41;
const GET_CLASS: u16 = 42;
const GET_FILTER: u16 = 46;

const KIND: u16 = 1;
const OPTIONS: u16 = 2;
const STATS2: u16 = 7;

/// The parent of a root (`TC_H_ROOT`).
pub const ROOT: u32 = 0xffff_ffff;

/// `struct tcmsg`.
fn header(interface: u32, handle: u32, parent: u32, info: u32) -> [u8; 20] {
    let mut bytes = [0; 20];
    for (at, word) in [(4, interface), (8, handle), (12, parent), (16, info)] {
        bytes[at..at + 4].copy_from_slice(&word.to_ne_bytes());
    }
    bytes
}

/// A discipline to be made below a parent. A handle of 0 lets the kernel choose one. With `replaces`, it takes the place
/// of what stands there, in one step; otherwise what stands there is in the way.
pub fn new_qdisc(
    interface: u32,
    handle: u32,
    parent: u32,
    kind: &str,
    options: Option<&[u8]>,
    replaces: bool,
) -> Message {
    let how = if replaces { FLAG_REPLACE } else { FLAG_EXCL };
    let message = Message::new(NEW_QDISC, FLAG_CREATE | how)
        .raw(&header(interface, handle, parent, 0))
        .text(KIND, kind);
    options.map_or(message.clone(), |options| message.attr(OPTIONS, options))
}

/// Deletes a discipline with all that is below it.
pub fn delete_qdisc(interface: u32, handle: u32, parent: u32) -> Message {
    Message::new(DELETE_QDISC, 0).raw(&header(interface, handle, parent, 0))
}

/// A class to be made.
pub fn new_class(interface: u32, handle: u32, parent: u32, kind: &str, options: &[u8]) -> Message {
    Message::new(NEW_CLASS, FLAG_CREATE | FLAG_EXCL)
        .raw(&header(interface, handle, parent, 0))
        .text(KIND, kind)
        .attr(OPTIONS, options)
}

/// Deletes a class with its leaf.
pub fn delete_class(interface: u32, handle: u32) -> Message {
    Message::new(DELETE_CLASS, 0).raw(&header(interface, handle, 0, 0))
}

/// Asks for the disciplines of all interfaces.
pub fn list_qdiscs() -> Message {
    Message::new(GET_QDISC, 0).raw(&header(0, 0, 0, 0))
}

/// Asks for the classes of one interface.
pub fn list_classes(interface: u32) -> Message {
    Message::new(GET_CLASS, 0).raw(&header(interface, 0, 0, 0))
}

/// Asks for the filters at one discipline or class.
pub fn list_filters(interface: u32, parent: u32) -> Message {
    Message::new(GET_FILTER, 0).raw(&header(interface, 0, parent, 0))
}

/// Asks for all links.
pub fn list_links() -> Message {
    Message::new(GET_LINK, 0).raw(&[0; 16])
}

/// Asks by which way a packet to an address would leave.
pub fn get_route(address: IpAddr) -> Message {
    let (family, octets) = match address {
        IpAddr::V4(v4) => (2, v4.octets().to_vec()),
        IpAddr::V6(v6) => (10, v6.octets().to_vec()),
    };
    let bits = (octets.len() * 8) as u8;
    Message::new(GET_ROUTE, 0).raw(&[family, bits, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).attr(1, &octets)
}

/// The interface by which a packet leaves, from the answer to [`get_route`].
pub fn leaves_by(answer: &Received) -> Option<u32> {
    find(answer.body.get(12..)?, 4).map(|bytes| u32_at(bytes, 0))
}

/// A discipline or a class as the kernel lists it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// The interface's index.
    pub interface: u32,
    /// Its handle; 0 is one that the kernel attached by itself.
    pub handle: u32,
    /// Below what it stands.
    pub parent: u32,
    /// Which kind.
    pub kind: String,
    /// Its options, as they came.
    pub options: Vec<u8>,
    /// It has a part that cannot be told again: a rate estimator, a size table, shared blocks, hardware offload.
    pub odd: bool,
    /// What it counts.
    pub counts: Counts,
}

/// What a discipline or a class counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Packets that have left it; a large one counts as those that it will be cut into.
    pub packets: u64,
    /// Packets that it dropped.
    pub drops: u64,
    /// Packets that wait in it.
    pub waiting: u64,
    /// How often it had to make packets wait.
    pub overlimits: u64,
}

impl Counts {
    /// With those of another one.
    pub fn add(&mut self, other: Counts) {
        self.packets += other.packets;
        self.drops += other.drops;
        self.waiting += other.waiting;
        self.overlimits += other.overlimits;
    }
}

/// Reads a discipline or a class.
pub fn listed(received: &Received) -> Listed {
    const BASIC: u16 = 1;
    const QUEUE: u16 = 3;
    const PACKETS: u16 = 8;
    let body = received.body.get(20..).unwrap_or_default();
    let stats = find(body, STATS2).unwrap_or_default();
    let queue = find(stats, QUEUE).unwrap_or_default();
    let basic = find(stats, BASIC).map_or(0, |basic| u64::from(u32_at(basic, 8)));
    let packets = find(stats, PACKETS).and_then(|bytes| bytes.try_into().ok()).map(u64::from_ne_bytes);
    // TCA_RATE, TCA_STAB, TCA_INGRESS_BLOCK, TCA_EGRESS_BLOCK; TCA_HW_OFFLOAD is a byte, mostly 0.
    let odd = [5, 8, 13, 14].iter().any(|kind| find(body, *kind).is_some())
        || find(body, 12).is_some_and(|offload| offload.first() != Some(&0));
    Listed {
        interface: u32_at(&received.body, 4),
        handle: u32_at(&received.body, 8),
        parent: u32_at(&received.body, 12),
        kind: find(body, KIND).map(text_of).unwrap_or_default(),
        options: find(body, OPTIONS).unwrap_or_default().to_vec(),
        odd,
        counts: Counts {
            packets: packets.unwrap_or(basic),
            waiting: u32_at(queue, 0).into(),
            drops: u32_at(queue, 8).into(),
            overlimits: u32_at(queue, 16).into(),
        },
    }
}

/// A link as the kernel lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// It is up.
    pub up: bool,
    /// It carries what another link sends, such as a bridge.
    pub enslaved: bool,
    /// Its frames have Ethernet's header (`ARPHRD_ETHER`).
    pub ethernet: bool,
    /// Which kind of virtual link; empty where it is none.
    pub kind: String,
}

/// Reads a link.
pub fn link(received: &Received) -> Link {
    let body = received.body.get(16..).unwrap_or_default();
    let info = find(body, 18).unwrap_or_default();
    let kind = |attribute| find(info, attribute).map(text_of).unwrap_or_default();
    Link {
        index: u32_at(&received.body, 4),
        name: find(body, 3).map(text_of).unwrap_or_default(),
        up: u16_at(&received.body, 8) & 1 == 1,
        // The members of a VRF are those that packets leave by; those of bridges and bonds carry what these send.
        enslaved: find(body, 10).is_some() && kind(4) != "vrf",
        ethernet: u16_at(&received.body, 2) == 1,
        kind: kind(1),
    }
}
