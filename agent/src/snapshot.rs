//! What stood on the host beside Squall: taken when a run begins and compared when it ends, so that the report can say
//! what others changed meanwhile.
//!
//! Normalised: no counters, handles, expiries or set contents; nothing of our own.

use std::collections::{BTreeMap, BTreeSet};

use nix::sys::socket::SockProtocol;

use crate::host::netlink::{Message, Socket, attributes, find, text_of, u32_at};
use crate::host::qdisc::root;
use crate::host::{nft, table};

/// Names of things, each with a digest of what it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    things: BTreeMap<String, String>,
    /// Interfaces whose root is ours: what stands there says nothing about others.
    ours: BTreeSet<u32>,
}

impl Snapshot {
    /// Looks at the calling thread's network namespace. What cannot be listed is left out.
    pub fn take() -> Self {
        let (mut things, mut ours) = (BTreeMap::new(), BTreeSet::new());
        let mut add = |name: String, bytes: &[u8]| {
            let hash = things.entry(name).or_insert_with(blake3::Hasher::new);
            hash.update(bytes);
        };
        if let Ok(mut socket) = Socket::open(SockProtocol::NetlinkNetFilter) {
            let family_name = |family: u8| match family {
                1 => "inet",
                2 => "ip",
                3 => "arp",
                5 => "netdev",
                7 => "bridge",
                10 => "ip6",
                _ => "other",
            };
            for (what, request) in [
                ("table", nft::list_tables()),
                ("chain", nft::list_chains()),
                ("rule", nft::list_rules(None)),
            ] {
                for object in socket.dump(&request).unwrap_or_default() {
                    let family = object.body.first().copied().unwrap_or(0);
                    let body = object.body.get(4..).unwrap_or_default();
                    let table = find(body, 1).map(text_of).unwrap_or_default();
                    if family == nft::INET && table == table::NAME {
                        continue;
                    }
                    let mut name = format!("nftables table `{} {table}`", family_name(family));
                    if what == "rule" {
                        name = format!(
                            "rules of {name}, chain `{}`",
                            find(body, 2).map(text_of).unwrap_or_default()
                        );
                    } else if what == "chain" {
                        name = format!("chains of {name}");
                    }
                    add(name, &normalised(what, body));
                }
            }
            // Closing it waits for the kernel to clean up after changes of nftables; the caller has no time for that.
            std::thread::spawn(move || drop(socket));
        }
        const GET_QDISC: u16 = 38;
        if let Ok(mut socket) = Socket::open(SockProtocol::NetlinkRoute) {
            for qdisc in socket.dump(&Message::new(GET_QDISC, 0).raw(&[0; 20])).unwrap_or_default() {
                let interface = u32_at(&qdisc.body, 4);
                let parent = u32_at(&qdisc.body, 12);
                if u32_at(&qdisc.body, 8) == root::HANDLE {
                    ours.insert(interface);
                }
                let body = qdisc.body.get(20..).unwrap_or_default();
                let (kind, options) = (find(body, 1).unwrap_or_default(), find(body, 2).unwrap_or_default());
                add(format!("{}{parent:x}", of_interface(interface)), &[kind, options].concat());
            }
        }
        let digest =
            |(name, hash): (String, blake3::Hasher)| (name, hash.finalize().to_hex()[..12].to_owned());
        Snapshot { things: things.into_iter().map(digest).collect(), ours }
    }

    /// What is different now, in words.
    pub fn changed_since(&self, earlier: &Snapshot) -> Vec<String> {
        let mut changes = Vec::new();
        let ours: Vec<String> = self.ours.union(&earlier.ours).map(|index| of_interface(*index)).collect();
        let others = |name: &&String| !ours.iter().any(|ours| name.starts_with(ours));
        for (name, digest) in self.things.iter().filter(|(name, _)| others(name)) {
            match earlier.things.get(name) {
                None => changes.push(format!("{name}: new")),
                Some(before) if before != digest => changes.push(format!("{name}: changed")),
                Some(_) => {}
            }
        }
        let gone = earlier.things.keys().filter(|name| !self.things.contains_key(*name) && others(name));
        changes.extend(gone.map(|name| format!("{name}: gone")));
        changes
    }
}

/// What the names of an interface's disciplines begin with.
fn of_interface(index: u32) -> String {
    format!("interface {index}: queueing discipline below ")
}

/// The bytes of an object that stay the same while nobody changes it.
fn normalised(what: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    match what {
        "rule" => {
            for (_, expression) in attributes(find(body, 4).unwrap_or_default()) {
                let name = find(expression, 1).unwrap_or_default();
                bytes.extend_from_slice(name);
                let counts =
                    ["counter", "quota", "last", "connlimit", "limit"].contains(&text_of(name).as_str());
                if !counts {
                    bytes.extend_from_slice(find(expression, 2).unwrap_or_default());
                }
            }
        }
        // Name, hook, policy, type; not handle, use count and counters.
        "chain" => {
            for kind in [3, 4, 5, 7] {
                bytes.extend_from_slice(find(body, kind).unwrap_or_default());
            }
        }
        // Name and flags; not handle and use count.
        _ => bytes.extend_from_slice(find(body, 2).unwrap_or_default()),
    }
    bytes
}
