//! Links and addresses; routes, and the rules that choose among their tables.
//!
//! Source: `include/uapi/linux/if_link.h`, `if_addr.h`, `rtnetlink.h`, `fib_rules.h`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};

use nix::sys::socket::SockProtocol;

use super::Seen;
use crate::host::netlink::{Message, NetlinkError, Socket, attributes, find, text_of, u32_at};
use crate::host::qdisc::message;

const GET_ADDRESS: u16 = 22;
const GET_ROUTE: u16 = 26;
const GET_RULE: u16 = 34;
const INET: u8 = 2;
const INET6: u8 = 10;
/// How the names of links begin that Squall makes.
pub const OURS: &str = "squall";

/// What the thing that stands for an interface is called.
pub fn named(link: &str) -> String {
    format!("link {link}")
}

/// Links and addresses.
pub fn look(seen: &mut Seen) -> Result<(), String> {
    let failed = |error: NetlinkError| format!("cannot be listed: {error}");
    let mut socket = Socket::open(SockProtocol::NetlinkRoute).map_err(failed)?;
    let mut names = BTreeMap::new();
    for received in socket.dump(&message::list_links()).map_err(failed)? {
        /// `IFF_UP`, `IFF_NOARP`, `IFF_PROMISC`, `IFF_ALLMULTI`: what somebody sets. A carrier comes and goes.
        const CHOSEN: u32 = 0x1 | 0x80 | 0x100 | 0x200;
        let link = message::link(&received);
        let body = received.body.get(16..).unwrap_or_default();
        let number = |kind| find(body, kind).map_or(0, |value| u32_at(value, 0));
        let kind = find(body, 18).and_then(|info| find(info, 1)).map(text_of).unwrap_or_default();
        let address: String =
            find(body, 1).unwrap_or_default().iter().map(|byte| format!("{byte:02x}")).collect();
        let words = format!(
            "{} {kind} mtu {} flags {:x} address {address} master {}",
            if link.up { "up" } else { "down" },
            number(4),
            u32_at(&received.body, 8) & CHOSEN,
            number(10),
        );
        let name = named(&link.name);
        if link.name.starts_with(OURS) {
            seen.ours(&name);
        }
        seen.say(name, words);
        names.insert(link.index, link.name);
    }
    for received in socket.dump(&Message::new(GET_ADDRESS, 0).raw(&[0; 8])).map_err(failed)? {
        let (body, head) = (received.body.get(8..).unwrap_or_default(), &received.body);
        let (Some([family, bits, flags, scope]), index) = (head.first_chunk::<4>(), u32_at(head, 4)) else {
            continue;
        };
        // Temporary addresses of IPv6 (RFC 8981) come and go by themselves.
        if *family == INET6 && flags & 1 == 1 {
            continue;
        }
        let address = find(body, 2).or(find(body, 1)).map(shown).unwrap_or_default();
        if names.get(&index).is_some_and(|name| name.starts_with(OURS)) {
            continue;
        }
        let on = names.get(&index).map_or("a link that is gone", String::as_str);
        let peer = find(body, 1).map(shown).unwrap_or_default();
        seen.say(format!("address {address}/{bits} on {on}"), format!("scope {scope} peer {peer}"));
    }
    Ok(())
}

/// Routes and rules.
pub fn routes(seen: &mut Seen) -> Result<(), String> {
    let failed = |error: NetlinkError| format!("cannot be listed: {error}");
    let mut socket = Socket::open(SockProtocol::NetlinkRoute).map_err(failed)?;
    // What leads by a link of ours comes and goes with it.
    let links = socket.dump(&message::list_links()).map_err(failed)?;
    let links = links.iter().map(message::link).filter(|link| link.name.starts_with(OURS));
    let ours: BTreeSet<u32> = links.map(|link| link.index).collect();
    for family in [INET, INET6] {
        let mut request = [0; 12];
        request[0] = family;
        for received in socket.dump(&Message::new(GET_ROUTE, 0).raw(&request)).map_err(failed)? {
            /// `RTM_F_CLONED`: a cache, made by traffic.
            const CLONED: u32 = 0x200;
            let (head, body) = (&received.body, received.body.get(12..).unwrap_or_default());
            let by_ours = find(body, 4).is_some_and(|link| ours.contains(&u32_at(link, 0)));
            if head.first() != Some(&family) || u32_at(head, 8) & CLONED != 0 || by_ours {
                continue;
            }
            // Destination and source lengths, service, table, protocol, scope, type; flags follow the carrier.
            let mut bytes = head[1..8].to_vec();
            // Not what is left of a learnt route's life (`RTA_CACHEINFO`, `RTA_EXPIRES`).
            append(&mut bytes, body, &[12, 23]);
            let table = find(body, 15).map_or(u32::from(head[4]), |value| u32_at(value, 0));
            let to = match find(body, 1) {
                Some(address) => format!("{}/{}", shown(address), head[1]),
                None => "everywhere".to_owned(),
            };
            seen.hash(format!("route to {to} ({}), table {table}", family_name(family)), &bytes);
        }
        for received in socket.dump(&Message::new(GET_RULE, 0).raw(&request)).map_err(failed)? {
            let (head, body) = (&received.body, received.body.get(12..).unwrap_or_default());
            if head.first() != Some(&family) {
                continue;
            }
            let mut bytes = head[1..8].to_vec();
            append(&mut bytes, body, &[]);
            let priority = find(body, 6).map_or(0, |value| u32_at(value, 0));
            seen.hash(format!("routing rule {priority} ({})", family_name(family)), &bytes);
        }
    }
    Ok(())
}

/// Appends attributes, without some.
fn append(bytes: &mut Vec<u8>, body: &[u8], without: &[u16]) {
    for (kind, value) in attributes(body).filter(|(kind, _)| !without.contains(kind)) {
        bytes.extend_from_slice(&kind.to_le_bytes());
        bytes.extend_from_slice(value);
    }
}

fn family_name(family: u8) -> &'static str {
    if family == INET { "IPv4" } else { "IPv6" }
}

fn shown(address: &[u8]) -> String {
    if let Ok(octets) = <[u8; 4]>::try_from(address) {
        Ipv4Addr::from(octets).to_string()
    } else if let Ok(octets) = <[u8; 16]>::try_from(address) {
        Ipv6Addr::from(octets).to_string()
    } else {
        format!("{address:02x?}")
    }
}
