//! Connections that a change leaves alone: those that were established when it began.
//!
//! They are listed by socket diagnosis and known by their four ends. Connection tracking would know them too, but asking
//! it would switch it on for all traffic of the host.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use super::nft::{Hook, IPV4, IPV6};
use super::peers::ends;
use super::rule::Rule;
use super::set::{Element, Filled, Kind, Set};
use super::sockets::Listed;
use super::table::set_name;

/// What nft calls an address, a port, an address and a port in one: its own numbers of types, six bits each.
const fn shown_as(address: u32) -> u32 {
    const PORT: u32 = 13;
    (((address << 6 | PORT) << 6) | address) << 6 | PORT
}

/// The rules that let such connections pass by the others of their change, at a hook.
pub fn rules(connections: &[Listed], hook: Hook, tag: &str) -> Vec<Rule> {
    let (_, local) = ends(hook);
    let of = |family: u8, number: u32, key: u32, shown_as: u32| {
        let mine = connections.iter().filter(|socket| socket.local.0.is_ipv4() == (family == IPV4));
        let elements: BTreeSet<Element> = mine.map(|socket| Element::key(key_of(socket))).collect();
        let set = Set { name: set_name(tag, &format!("kept-{number}")), key, shown_as, kind: Kind::Keys };
        let filled = Arc::new(Filled { set, elements });
        let some = !filled.elements.is_empty();
        some.then(|| Rule::commented(tag).connection_in(local, family, &filled).leave())
    };
    let rules = [of(IPV4, 4, 16, shown_as(7)), of(IPV6, 6, 40, shown_as(8))];
    rules.into_iter().flatten().collect()
}

/// Local address and port, remote address and port, each padded to a multiple of four bytes.
fn key_of(socket: &Listed) -> Vec<u8> {
    let mut key = Vec::new();
    for (address, port) in [socket.local, socket.remote] {
        match address {
            IpAddr::V4(v4) => key.extend(v4.octets()),
            IpAddr::V6(v6) => key.extend(v6.octets()),
        }
        key.extend(port.to_be_bytes());
        key.extend([0, 0]);
    }
    key
}
