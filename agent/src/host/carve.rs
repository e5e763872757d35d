//! Carve-outs: what no injection touches on this host, as it is now. Found, not configured; each is a rule in front of
//! those of all changes, and stands in the report of a fault that would have met it.

use std::fmt;
use std::net::SocketAddr;

use squall_experiments::flow::{Flow, Protocol};
use squall_experiments::peer::{Peer, PeerHost, Ports, masked};
use squall_experiments::scope::Scope;

use super::aim::{Aim, Network};
use super::matching::{TCP, UDP};
use super::nft::Hook;
use super::peers::{Peers, ends};
use super::rule::Rule;

/// Traffic that no injection touches.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CarveOut {
    /// Neighbour discovery and router advertisements, without which IPv6 ends.
    Discovery,
    /// DHCP, of both families.
    Dhcp,
    /// A port by which people reach the host.
    Login(u16),
    /// What the host's policy names.
    Policy(Peer),
    /// Ports of this host that its policy names.
    Local(Ports),
    /// A connection of Squall's own, to a controller.
    Link(SocketAddr),
}

impl CarveOut {
    /// All of them, on this host as it is now.
    pub fn all(aim: &Aim<'_>) -> Vec<Self> {
        let logins = aim.login_ports().iter().map(|port| CarveOut::Login(*port));
        let policy = aim.policy.protect_addresses.iter().cloned().map(CarveOut::Policy);
        let local = aim.policy.protect_ports.iter().copied().map(CarveOut::Local);
        let links = aim.links().iter().map(|link| CarveOut::Link(*link));
        [CarveOut::Discovery, CarveOut::Dhcp]
            .into_iter()
            .chain(logins)
            .chain(links)
            .chain(policy)
            .chain(local)
            .collect()
    }

    /// The rules that match it, still without saying that it is let through.
    pub fn rules(&self) -> Vec<(Hook, Rule)> {
        let at = |hook| self.at(hook).into_iter().map(move |rule| (hook, rule));
        [Hook::Input, Hook::Output].into_iter().flat_map(at).collect()
    }

    fn at(&self, hook: Hook) -> Vec<Rule> {
        let (remote, local) = ends(hook);
        let commented = |what: &str| Rule::commented(format!("squall: never touched: {what}"));
        match self {
            CarveOut::Discovery => vec![commented("neighbour discovery").icmpv6_types(133, 137)],
            CarveOut::Dhcp => {
                let of = |(first, last)| commented("DHCP").transport(UDP).ports(local, first, last);
                [(67, 68), (546, 547)].map(of).into()
            }
            CarveOut::Login(port) => {
                vec![commented("remote login").transport(TCP).ports(local, *port, *port)]
            }
            CarveOut::Local(Ports { first, last }) => {
                let of = |protocol| {
                    let rule = commented("the host's policy");
                    let here = rule.clone().transport(protocol).ports(local, *first, *last);
                    // Who calls it on this host sends by the loopback device, to any address of the host.
                    let caller = rule.interface(hook, "lo").transport(protocol).ports(remote, *first, *last);
                    [here, caller]
                };
                [TCP, UDP].into_iter().flat_map(of).collect()
            }
            CarveOut::Link(link) => {
                let bits = if link.is_ipv4() { 32 } else { 128 };
                let rule = commented("a controller").network(remote, link.ip(), bits);
                vec![rule.transport(TCP).ports(remote, link.port(), link.port())]
            }
            CarveOut::Policy(peer) => {
                let rule = commented("the host's policy");
                let rule = match peer.host {
                    PeerHost::Net(address, bits) => rule.network(remote, address, bits),
                    PeerHost::Any => rule,
                    PeerHost::Name(_) => return Vec::new(),
                };
                match peer.ports {
                    None => vec![rule],
                    Some(Ports { first, last }) => [TCP, UDP]
                        .map(|protocol| rule.clone().transport(protocol).ports(remote, first, last))
                        .into(),
                }
            }
        }
    }

    /// Whether a flow would meet it.
    fn is_met(&self, flow: &Flow, peers: &Peers) -> bool {
        let everybody = peers.to.is_empty() && peers.from.is_empty();
        let all = || peers.to.iter().chain(&peers.from);
        let whole = |network: &Network| network.ports.is_none() && network.leaves_out_loopback();
        let tcp = matches!(flow.protocol, Protocol::Any | Protocol::Tcp);
        let within = |network: &Network, (address, bits)| {
            network.network.is_none_or(|(other, mine): (std::net::IpAddr, u8)| {
                let fewer = mine.min(bits);
                other.is_ipv4() == std::net::IpAddr::is_ipv4(&address)
                    && masked(other, fewer) == masked(address, fewer)
            })
        };
        match self {
            CarveOut::Discovery => {
                matches!(flow.protocol, Protocol::Any | Protocol::Icmp) && (everybody || all().any(whole))
            }
            CarveOut::Dhcp => {
                matches!(flow.protocol, Protocol::Any | Protocol::Udp) && (everybody || all().any(whole))
            }
            CarveOut::Local(own) => {
                let meets = |other: &Ports| other.first <= own.last && own.first <= other.last;
                let theirs = match &flow.scope {
                    Some(Scope::Port(ports)) => meets(ports),
                    _ => true,
                };
                let comes = |network: &Network| network.ports.as_ref().is_none_or(meets);
                // Whom the host calls answers at a port of its own, which may be called from any.
                let met = !peers.to.is_empty() || peers.from.iter().any(comes);
                flow.protocol != Protocol::Icmp && theirs && (everybody || met)
            }
            CarveOut::Login(port) => {
                let theirs = match &flow.scope {
                    Some(Scope::Port(ports)) => (ports.first..=ports.last).contains(port),
                    None | Some(Scope::Interface(_) | Scope::User(_)) => true,
                    // A server for logins is in no other scope: it is left out of them as a process.
                    Some(_) => false,
                };
                let comes = |network: &Network| {
                    network.ports.is_none_or(|ports| (ports.first..=ports.last).contains(port))
                };
                let named =
                    peers.to.iter().any(|network| network.ports.is_none()) || peers.from.iter().any(comes);
                tcp && theirs && (everybody || named)
            }
            CarveOut::Link(link) => {
                let called = peers.to.iter().any(|network| network.has(link.ip(), link.port()));
                let calls =
                    peers.from.iter().any(|network| network.ports.is_none() && network.has(link.ip(), 0));
                tcp && (everybody || called || calls)
            }
            CarveOut::Policy(Peer { host: PeerHost::Net(address, bits), .. }) => {
                everybody || all().any(|network| within(network, (*address, *bits)))
            }
            CarveOut::Policy(Peer { host: PeerHost::Any, ports: Some(ports) }) => {
                let meets = |other: Ports| other.first <= ports.last && ports.first <= other.last;
                let to = peers.to.iter().any(|network| network.ports.is_none_or(meets));
                let from = peers.from.iter().any(|network| network.ports.is_none());
                everybody || to || from
            }
            CarveOut::Policy(_) => false,
        }
    }
}

/// What a flow would have met and does not, for the report; `None` where it is nothing.
pub fn note(all: &[CarveOut], flow: &Flow, peers: &Peers) -> Option<String> {
    let met = all.iter().filter(|one| one.is_met(flow, peers)).map(ToString::to_string).collect::<Vec<_>>();
    (!met.is_empty()).then(|| format!("left out on this host: {}", met.join(", ")))
}

impl fmt::Display for CarveOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CarveOut::Discovery => f.write_str("neighbour discovery"),
            CarveOut::Dhcp => f.write_str("DHCP"),
            CarveOut::Login(port) => write!(f, "remote logins (TCP port {port})"),
            CarveOut::Policy(peer) => write!(f, "{peer} (this host's policy)"),
            CarveOut::Local(ports) => write!(f, "the local port {ports} (this host's policy)"),
            CarveOut::Link(link) => write!(f, "the connection to a controller at {link}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::peers::tests::networks;
    use super::*;

    fn told(to: &[&str], from: &[&str], flow: Flow) -> Option<String> {
        let all = [
            CarveOut::Discovery,
            CarveOut::Login(2222),
            CarveOut::Link("10.0.0.9:8443".parse().unwrap()),
            CarveOut::Policy("10.1.0.0/16".parse().unwrap()),
        ];
        let peers = Peers { to: networks(to), from: networks(from), ..Peers::default() };
        note(&all, &flow, &peers).map(|note| note["left out on this host: ".len()..].to_owned())
    }

    #[test]
    fn only_what_would_be_met_is_told() {
        let all = "neighbour discovery, remote logins (TCP port 2222), the connection to a controller at 10.0.0.9:8443, \
                   10.1.0.0/16 (this host's policy)";
        let any = Flow::default;
        assert_eq!(told(&[], &[], any()).as_deref(), Some(all));
        assert_eq!(told(&["0.0.0.0/0"], &[], any()).as_deref(), Some(all));
        assert_eq!(told(&["10.0.0.9:443"], &[], any()), None);
        let link = "the connection to a controller at 10.0.0.9:8443";
        assert_eq!(told(&["10.0.0.0/24:8000-9000"], &[], any()).as_deref(), Some(link));
        assert_eq!(told(&["10.1.2.3:80"], &[], any()).as_deref(), Some("10.1.0.0/16 (this host's policy)"));
        let login = "remote logins (TCP port 2222)";
        assert_eq!(told(&[], &["192.0.2.0/24:2000-3000"], any()).as_deref(), Some(login));
        let udp = Flow { protocol: Protocol::Udp, ..Flow::default() };
        assert_eq!(told(&[], &["192.0.2.0/24:2000-3000"], udp), None);
        let unit = Flow { scope: Some(Scope::Unit("shop.service".into())), ..Flow::default() };
        assert!(!told(&[], &[], unit).unwrap().contains("logins"));
    }

    #[test]
    fn a_port_at_any_address_is_told_where_it_would_be_met() {
        let told = |to: &[&str], from: &[&str]| {
            let all = [CarveOut::Policy("any:5432".parse().unwrap())];
            let peers = Peers { to: networks(to), from: networks(from), ..Peers::default() };
            note(&all, &Flow::default(), &peers).is_some()
        };
        assert!(told(&[], &[]) && told(&["10.0.0.1"], &[]) && told(&["10.0.0.1:5000-6000"], &[]));
        assert!(told(&[], &["10.0.0.1"]) && !told(&["10.0.0.1:5433"], &[]) && !told(&[], &["10.0.0.1:80"]));
    }

    #[test]
    fn a_local_port_is_left_out_of_what_everybody_sends_and_gets() {
        let told = |to: &[&str], from: &[&str], flow: Flow| {
            let all = [CarveOut::Local("5432".parse().unwrap())];
            let peers = Peers { to: networks(to), from: networks(from), ..Peers::default() };
            note(&all, &flow, &peers)
        };
        let any = Flow::default;
        let said = told(&[], &[], any()).unwrap();
        assert!(said.ends_with("the local port 5432 (this host's policy)"), "{said}");
        assert!(told(&[], &["10.0.0.1"], any()).is_some() && told(&["10.0.0.1"], &[], any()).is_some());
        assert!(told(&[], &["10.0.0.1:80"], any()).is_none());
        assert!(told(&[], &[], Flow { protocol: Protocol::Icmp, ..any() }).is_none());
        let port = Flow { scope: Some(Scope::Port("80".parse().unwrap())), ..any() };
        assert!(told(&[], &[], port).is_none());
        assert_eq!(CarveOut::Local("5432".parse().unwrap()).rules().len(), 8);
    }

    #[test]
    fn each_is_let_through_both_ways() {
        let all = ["10.1.0.0/16", "10.1.0.0/16:80", "any:5432"];
        let all = all.map(|peer| CarveOut::Policy(peer.parse().unwrap()));
        let counts: Vec<usize> = all.iter().map(|one| one.rules().len()).collect();
        assert_eq!(counts, [2, 4, 4]);
        assert_eq!(CarveOut::Link("[::1]:8443".parse().unwrap()).rules().len(), 2);
    }
}
