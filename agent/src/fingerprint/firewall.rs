//! The nftables ruleset: tables, chains, rules, sets, objects and flow tables of all families.
//!
//! Source: `include/uapi/linux/netfilter/nf_tables.h`. Rules of the older `ip_tables` interface are not in it.

use nix::errno::Errno;
use nix::sys::socket::SockProtocol;

use super::Seen;
use crate::host::netlink::{Message, Socket, attributes, find, text_of};
use crate::host::{nft, set, table};

/// See the module.
pub fn look(seen: &mut Seen) -> Result<(), String> {
    let mut socket =
        Socket::open(SockProtocol::NetlinkNetFilter).map_err(|error| format!("cannot be listed: {error}"))?;
    let done = all(&mut socket, seen);
    // Closing it waits for the kernel to clean up after changes of nftables; the caller has no time for that.
    std::thread::spawn(move || drop(socket));
    done
}

fn all(socket: &mut Socket, seen: &mut Seen) -> Result<(), String> {
    let kinds: [(Kind, Message); 6] = [
        (Kind::Table, nft::list_tables()),
        (Kind::Chain, nft::list_chains()),
        (Kind::Rule, nft::list_rules(None)),
        (Kind::Set, set::list_all()),
        (Kind::Object, nft::list_objects()),
        (Kind::FlowTable, nft::list_flow_tables()),
    ];
    for (kind, request) in kinds {
        let listed = match socket.dump(&request) {
            // A kernel without nftables, or with an older one that does not know this kind.
            Err(error) if matches!(error.errno(), Errno::EOPNOTSUPP | Errno::EINVAL | Errno::ENOENT) => {
                continue;
            }
            listed => listed.map_err(|error| format!("{kind:?}s cannot be listed: {error}"))?,
        };
        for object in listed {
            let family = object.body.first().copied().unwrap_or(0);
            let body = object.body.get(4..).unwrap_or_default();
            let text = |kind| find(body, kind).map(text_of).unwrap_or_default();
            let table = text(1);
            let shown = format!("nftables table `{} {table}`", family_name(family));
            let name = match kind {
                Kind::Table => shown,
                Kind::Chain => format!("chains of {shown}"),
                Kind::Rule => format!("rules of {shown}, chain `{}`", text(2)),
                Kind::Set => format!("sets of {shown}"),
                Kind::Object => format!("objects of {shown}"),
                Kind::FlowTable => format!("flow tables of {shown}"),
            };
            if table == table::NAME || table.starts_with(table::PREFIX) {
                // What is in it comes and goes with the runs; that it stands says everything.
                if matches!(kind, Kind::Table) {
                    seen.ours(&name);
                    seen.hash(name, b"");
                }
            } else {
                seen.hash(name, &normalised(kind, body));
            }
        }
    }
    Ok(())
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Table,
    Chain,
    Rule,
    Set,
    Object,
    FlowTable,
}

fn family_name(family: u8) -> &'static str {
    match family {
        1 => "inet",
        2 => "ip",
        3 => "arp",
        5 => "netdev",
        7 => "bridge",
        10 => "ip6",
        _ => "other",
    }
}

/// The bytes of an object that stay the same while nobody changes it.
fn normalised(kind: Kind, body: &[u8]) -> Vec<u8> {
    const COUNTING: [&str; 5] = ["counter", "quota", "last", "connlimit", "limit"];
    let mut bytes = Vec::new();
    let mut take = |kinds: &[u16]| {
        for kind in kinds {
            bytes.extend_from_slice(&kind.to_le_bytes());
            bytes.extend_from_slice(find(body, *kind).unwrap_or_default());
        }
    };
    match kind {
        Kind::Rule => {
            for (_, expression) in attributes(find(body, 4).unwrap_or_default()) {
                let name = find(expression, 1).unwrap_or_default();
                bytes.extend_from_slice(name);
                if !COUNTING.contains(&text_of(name).as_str()) {
                    bytes.extend_from_slice(find(expression, 2).unwrap_or_default());
                }
            }
            // What the user wrote beside it: a comment.
            bytes.extend_from_slice(find(body, 7).unwrap_or_default());
        }
        // Name, hook, policy, type; not handle, use count and counters.
        Kind::Chain => take(&[3, 4, 5, 7]),
        // Name and flags; not handle and use count.
        Kind::Table => take(&[2]),
        // Name, flags, types, lengths, policy, time-out; no elements.
        Kind::Set => take(&[2, 3, 4, 5, 6, 7, 8, 11]),
        // Name and type; what it counts moves.
        Kind::Object => take(&[2, 3]),
        Kind::FlowTable => take(&[2]),
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(packets: u8, port: u8) -> Message {
        Message::new(0, 0).nest(4, |m| {
            m.nest(1, |m| m.text(1, "cmp").nest(2, |m| m.attr(3, &[port])))
                .nest(1, |m| m.text(1, "counter").nest(2, |m| m.attr(2, &[0, 0, 0, 0, 0, 0, 0, packets])))
        })
    }

    #[test]
    fn a_counter_that_moves_is_no_difference_and_another_port_is() {
        let of = |rule: Message| normalised(Kind::Rule, rule.inside());
        assert_eq!(of(rule(1, 80)), of(rule(9, 80)));
        assert_ne!(of(rule(1, 80)), of(rule(1, 81)));
    }
}
