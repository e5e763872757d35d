//! The other ends of a flow: whom rules ask for, and whom they leave out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use squall_experiments::flow::Flow;
use squall_experiments::peer::{Ports, masked};
use squall_experiments::protocol::Refusal;

use super::aim::{Aim, Network};
use super::nft::{Hook, IPV4, IPV6};
use super::ranges::Addresses;
use super::rule::{End, Rule};
use super::set::{Filled, Kind, Set};
use super::sockets::Listed;
use super::table::set_name;

/// As many peers are named in a report.
const SHOWN: usize = 64;

/// The peers of a flow, with every name resolved.
#[derive(Clone, Debug, Default)]
pub struct Peers {
    /// Who is called.
    pub to: Vec<Network>,
    /// Who calls.
    pub from: Vec<Network>,
    /// Who is left out.
    pub except: Vec<Network>,
}

/// In which sense a peer is one: it decides whose port its ports are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sense {
    /// The flow names nobody: all peers, whoever calls.
    Everybody,
    /// Who is called, at their own port.
    Called,
    /// Who calls, at a local port.
    Calling,
}

impl Sense {
    /// The word for it, in names of chains and sets.
    pub fn word(self) -> &'static str {
        match self {
            Sense::Everybody => "all",
            Sense::Called => "to",
            Sense::Calling => "from",
        }
    }

    /// The ends of a packet whose port is that of a peer.
    pub fn ports_at(self, hook: Hook) -> Vec<End> {
        let (remote, local) = ends(hook);
        match self {
            Sense::Everybody => vec![remote, local],
            Sense::Called => vec![remote],
            Sense::Calling => vec![local],
        }
    }
}

/// The remote and the local end of a packet at a hook.
pub fn ends(hook: Hook) -> (End, End) {
    match hook {
        Hook::Output => (End::Destination, End::Source),
        Hook::Input | Hook::Ingress => (End::Source, End::Destination),
    }
}

/// Peers that one rule asks for.
#[derive(Clone, Debug)]
pub struct Group {
    /// Which ports they have in common.
    pub ports: Option<Ports>,
    addresses: Whose,
}

#[derive(Clone, Debug)]
enum Whose {
    Anybody,
    Family(u8),
    One(IpAddr, u8),
    Any(u8, Arc<Filled>),
}

impl Group {
    /// Everything contains loopback without naming it.
    pub fn leaves_out_loopback(&self) -> bool {
        matches!(self.addresses, Whose::Anybody | Whose::Family(_))
    }

    /// The family of all of them, where they are of one.
    pub fn family(&self) -> Option<u8> {
        match &self.addresses {
            Whose::Anybody => None,
            Whose::Family(family) | Whose::Any(family, _) => Some(*family),
            Whose::One(address, _) => Some(if address.is_ipv4() { IPV4 } else { IPV6 }),
        }
    }

    /// Narrows a rule to packets with one of them at the remote end.
    pub fn narrow(&self, rule: Rule, remote: End) -> Rule {
        match &self.addresses {
            Whose::Anybody => rule,
            Whose::Family(family) => rule.family(*family),
            Whose::One(address, bits) => rule.network(remote, *address, *bits),
            Whose::Any(family, set) => rule.address_in(remote, *family, set),
        }
    }
}

impl Peers {
    /// Those of a flow, on this host as it is now.
    pub fn of(flow: &Flow, aim: &Aim<'_>) -> Result<Self, Refusal> {
        Ok(Peers {
            to: aim.networks(&flow.to)?,
            from: aim.networks(&flow.from)?,
            except: aim.networks(&flow.except)?,
        })
    }

    fn nobody_named(&self) -> bool {
        self.to.is_empty() && self.from.is_empty()
    }

    /// The senses in which somebody is meant.
    pub fn senses(&self) -> Vec<Sense> {
        if self.nobody_named() {
            return vec![Sense::Everybody];
        }
        let senses = [Sense::Called, Sense::Calling];
        senses.into_iter().filter(|sense| !self.meant(*sense).is_empty()).collect()
    }

    fn meant(&self, sense: Sense) -> &[Network] {
        match sense {
            Sense::Everybody => &[],
            Sense::Called => &self.to,
            Sense::Calling => &self.from,
        }
    }

    /// Whether loopback is left out, as somebody is meant who contains it without naming it.
    pub fn leave_out_loopback(&self) -> bool {
        self.nobody_named() || self.to.iter().chain(&self.from).any(Network::leaves_out_loopback)
    }

    /// The peers that are meant in a sense, as few groups as possible. The change is known by its tag.
    pub fn groups(&self, sense: Sense, tag: &str) -> Vec<Group> {
        match sense {
            Sense::Everybody => vec![Group { ports: None, addresses: Whose::Anybody }],
            _ => groups(self.meant(sense), tag, sense.word()),
        }
    }

    /// The peers that are left out.
    pub fn excepted(&self, tag: &str) -> Vec<Group> {
        groups(&self.except, tag, "except")
    }

    /// All sets that rules for them look into.
    pub fn sets(&self, tag: &str) -> Vec<Arc<Filled>> {
        let meant = self.senses().into_iter().flat_map(|sense| self.groups(sense, tag));
        let sets = meant.chain(self.excepted(tag)).filter_map(|group| match group.addresses {
            Whose::Any(_, set) => Some(set),
            _ => None,
        });
        sets.collect()
    }

    /// The remote addresses that are meant in a sense; `None` is every one.
    pub fn reach(&self, sense: Sense) -> Option<Addresses> {
        if sense == Sense::Everybody {
            return None;
        }
        let networks = self.meant(sense).iter().map(|network| network.network.filter(|(_, bits)| *bits > 0));
        networks.collect::<Option<Vec<_>>>().map(Addresses::of)
    }

    /// Whether a connection is one with a peer that is meant.
    pub fn hit(&self, socket: &Listed) -> bool {
        let loopback = socket.remote.0.is_loopback();
        let meant = |network: &Network, port: u16| {
            !(loopback && network.leaves_out_loopback()) && network.has(socket.remote.0, port)
        };
        let (called, calling) = (socket.remote.1, socket.local.1);
        let is_called = self.to.iter().any(|network| meant(network, called));
        let is_calling = self.from.iter().any(|network| meant(network, calling));
        let excepted = |port: u16| self.except.iter().any(|network| network.has(socket.remote.0, port));
        if self.nobody_named() {
            return !loopback && !excepted(called) && !excepted(calling);
        }
        is_called && !excepted(called) || is_calling && !excepted(calling)
    }

    /// Whether a name is among them.
    pub fn name(&self, name: &str) -> bool {
        let all = self.to.iter().chain(&self.from).chain(&self.except);
        all.into_iter().any(|network| network.name.as_deref() == Some(name))
    }

    /// Adds addresses to those of a name, with the ports that the name was given. Gives those that are new.
    pub fn join(&mut self, name: &str, addresses: &[IpAddr]) -> Vec<IpAddr> {
        let mut new = BTreeSet::new();
        for list in [&mut self.to, &mut self.from, &mut self.except] {
            let named = list.iter().filter(|network| network.name.as_deref() == Some(name));
            let ports: BTreeSet<Option<Ports>> = named.map(|network| network.ports).collect();
            for (ports, address) in
                ports.into_iter().flat_map(|ports| addresses.iter().map(move |a| (ports, a)))
            {
                let bits = if address.is_ipv4() { 32 } else { 128 };
                let network = Network { network: Some((*address, bits)), ports, name: Some(name.to_owned()) };
                if !list.contains(&network) {
                    list.push(network);
                    new.insert(*address);
                }
            }
        }
        new.into_iter().collect()
    }

    /// Who is meant, a line each, and how many are not shown.
    pub fn shown(&self) -> Vec<String> {
        let meant = self.to.iter().chain(&self.from);
        let many = meant.clone().count();
        let mut lines: Vec<String> = meant.take(SHOWN).map(ToString::to_string).collect();
        if many > SHOWN {
            lines.push(format!("and {} more", many - SHOWN));
        }
        lines.extend(self.except.iter().take(SHOWN).map(|network| format!("not {network}")));
        lines
    }

    /// An IPv6 peer on a host where IPv6 is switched off.
    pub fn unreachable_v6(&self) -> Option<String> {
        let named = |network: &&Network| network.network.is_some_and(|(address, _)| address.is_ipv6());
        let peer = self.to.iter().chain(&self.from).find(named)?;
        let off = match std::fs::read_to_string("/proc/sys/net/ipv6/conf/all/disable_ipv6") {
            Ok(text) => text.trim() == "1",
            Err(_) => true,
        };
        off.then(|| {
            format!("IPv6 is switched off on this host, so no packet goes to {peer} or comes from there")
        })
    }
}

impl Network {
    /// Whether an address and the port that belongs to it are in it.
    pub fn has(&self, address: IpAddr, port: u16) -> bool {
        let within = self.network.is_none_or(|(network, bits)| {
            network.is_ipv4() == address.is_ipv4() && masked(address, bits) == network
        });
        within && self.ports.is_none_or(|ports| (ports.first..=ports.last).contains(&port))
    }
}

/// A network: its address and how many bits of it count.
type Net = (IpAddr, u8);

/// One set for all networks with the same ports and of the same family; a single one that nobody can join is compared.
fn groups(networks: &[Network], tag: &str, what: &str) -> Vec<Group> {
    let mut groups = Vec::new();
    // Whether a name may bring more of them comes with the networks.
    let mut by_ports: BTreeMap<Option<Ports>, (BTreeSet<Net>, bool)> = BTreeMap::new();
    let mut whole = BTreeSet::new();
    for Network { network, ports, name } in networks {
        match network {
            Some((address, bits)) if *bits > 0 => {
                let (all, grows) = by_ports.entry(*ports).or_default();
                all.insert((*address, *bits));
                *grows |= name.is_some();
            }
            all => {
                whole.insert((*ports, all.map(|(address, _)| if address.is_ipv4() { IPV4 } else { IPV6 })));
            }
        }
    }
    for (ports, family) in whole {
        groups.push(Group { ports, addresses: family.map_or(Whose::Anybody, Whose::Family) });
    }
    for (ports, (networks, grows)) in by_ports {
        for (family, key, shown_as) in [(IPV4, 4, 7), (IPV6, 16, 8)] {
            let mine = networks.iter().copied().filter(|(address, _)| address.is_ipv4() == (family == IPV4));
            let mine: Vec<Net> = mine.collect();
            let addresses = match mine.as_slice() {
                [] if !grows => continue,
                [(address, bits)] if !grows => Whose::One(*address, *bits),
                _ => {
                    let ports = ports.map_or_else(|| "any".to_owned(), |ports| ports.to_string());
                    let name =
                        set_name(tag, &format!("{what}-{ports}-{}", if family == IPV4 { 4 } else { 6 }));
                    let set = Set { name, key, shown_as, kind: Kind::Ranges };
                    let elements = Addresses::of(mine).elements(family);
                    Whose::Any(family, Arc::new(Filled { set, elements }))
                }
            };
            groups.push(Group { ports, addresses });
        }
    }
    groups
}

#[cfg(test)]
pub(super) mod tests {
    use squall_experiments::peer::{Peer, PeerHost};

    use super::*;

    pub(in crate::host) fn networks(peers: &[&str]) -> Vec<Network> {
        let network = |text: &&str| {
            let Peer { host, ports } = text.parse().unwrap();
            let (network, name) = match host {
                PeerHost::Net(address, bits) => (Some((address, bits)), None),
                PeerHost::Any => (None, None),
                PeerHost::Name(name) => (Some(("192.0.2.1".parse().unwrap(), 32)), Some(name)),
            };
            Network { network, ports, name }
        };
        peers.iter().map(network).collect()
    }

    fn to(peers: &[&str]) -> Peers {
        Peers { to: networks(peers), ..Peers::default() }
    }

    fn sizes(peers: &Peers) -> Vec<usize> {
        peers.sets("tag").iter().map(|set| set.elements.len()).collect()
    }

    #[test]
    fn peers_with_the_same_ports_share_a_set_per_family() {
        let many: Vec<String> = (0..1000).map(|i| format!("10.0.{}.{}:80", i / 250, 2 * (i % 125))).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let peers = to(&many);
        assert_eq!(peers.groups(Sense::Called, "tag").len(), 1);
        assert_eq!(sizes(&peers), [500], "each address is there twice");
        assert_eq!(to(&["10.0.0.1:80", "10.0.0.1:81", "::1"]).groups(Sense::Called, "tag").len(), 3);
        assert_eq!(sizes(&to(&["10.0.0.0/8", "10.1.0.0/16", "::1"])), [1]);
    }

    #[test]
    fn a_name_has_a_set_for_both_families_from_the_start() {
        let mut peers = to(&["db:5432", "db:6000", "10.0.0.1"]);
        assert_eq!(sizes(&peers), [1, 0, 1, 0]);
        let joined: Vec<IpAddr> = vec!["192.0.2.1".parse().unwrap(), "::2".parse().unwrap()];
        assert_eq!(peers.join("db", &joined), joined[1..], "the other one was there");
        assert_eq!(sizes(&peers), [1, 1, 1, 1]);
        assert!(peers.join("other", &joined).is_empty());
    }

    #[test]
    fn whoever_means_everybody_has_no_reach() {
        assert!(to(&["10.0.0.1", "any:80"]).reach(Sense::Called).is_none());
        assert!(to(&["0.0.0.0/0"]).reach(Sense::Called).is_none());
        assert!(Peers::default().reach(Sense::Everybody).is_none());
        let reach = to(&["10.0.0.1:80", "10.0.0.0"]).reach(Sense::Called).unwrap();
        assert_eq!(reach, Addresses::of([("10.0.0.0".parse().unwrap(), 31)]));
    }
}
