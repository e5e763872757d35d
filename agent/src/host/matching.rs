//! Which packets: a flow becomes the conditions of rules; and which packets no injection may touch.

use std::collections::BTreeSet;
use std::net::IpAddr;

use squall_experiments::flow::{Direction, Flow, Protocol};
use squall_experiments::peer::{PeerHost, Ports};
use squall_experiments::protocol::Refusal;

use super::aim::{Aim, Network};
use super::mark;
use super::nft::{Hook, IPV4, IPV6};
use super::rule::{End, Rule};
use super::table::Table;
use super::whom::Whom;

/// TCP's number.
pub const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// The packets of a flow, on this host as it is now.
#[derive(Debug)]
pub struct Packets {
    /// What is aimed at, for the report.
    pub targets: Vec<String>,
    /// What the reader must know.
    pub notes: Vec<String>,
    /// Whose they are.
    pub whom: Whom,
    protocol: Protocol,
    to: Vec<Network>,
    from: Vec<Network>,
}

/// Packets that rules ask for, while their change is live.
#[derive(Debug)]
pub struct Live {
    /// As they were found, and found again since.
    pub packets: Packets,
    /// New sockets of the scope are marked while this lives.
    mark: Option<mark::Live>,
}

impl Live {
    /// The rules are about to be added.
    pub fn new(packets: Packets, mark: Option<mark::Live>) -> Self {
        Live { packets, mark }
    }

    /// Looks whether targets have moved, and follows them. Called whenever the worker wakes.
    pub fn tick(&mut self, _table: &mut Table, _aim: &Aim<'_>) {}

    /// When [`Live::tick`] wants to be called at the latest, on the boot clock.
    pub fn due(&self) -> Option<u64> {
        None
    }

    /// No new socket is marked any more: while the undo takes the marks away none comes.
    pub fn let_go(&mut self) {
        self.mark = None;
    }
}

/// A rule that matches some of the packets, still without saying what happens to them, and their transport where the
/// rule asks for one.
pub type Matching = (Rule, Option<u8>);

impl Packets {
    /// Looks at the host. Changes nothing.
    pub fn of(flow: &Flow, aim: &Aim<'_>, marks: &BTreeSet<u32>) -> Result<Self, Refusal> {
        let whom = Whom::of(flow.scope.as_ref(), aim, marks)?;
        let (mut targets, mut notes) = (whom.targets.clone(), whom.notes.clone());
        let to = aim.networks(&flow.to)?;
        let from = aim.networks(&flow.from)?;
        targets.extend(to.iter().chain(&from).map(|network| network.to_string()));
        if to.iter().chain(&from).any(Network::leaves_out_loopback) || (to.is_empty() && from.is_empty()) {
            notes.push("loopback is left out: name its addresses to include it".into());
        }
        Ok(Packets { targets, notes, protocol: flow.protocol, to, from, whom })
    }

    /// The networks of the peers, names resolved; none is everybody.
    pub fn networks(&self) -> impl Iterator<Item = &Network> {
        self.to.iter().chain(&self.from)
    }

    /// The rules that match them at a hook: one per peer and transport, as few as possible. With `tcp_apart`, TCP gets
    /// rules of its own.
    ///
    /// Copies of what came in enter by way of loopback; where that is left out, they are known by the bits of the mark in
    /// `copies`.
    pub fn rules(
        &self,
        hook: Hook,
        tag: &str,
        tcp_apart: bool,
        copies: Option<u32>,
    ) -> Result<Vec<Matching>, Refusal> {
        let everybody = [Network { network: None, ports: None, name: None }];
        let called = self.to.iter().map(|peer| (peer, true));
        let callers = self.from.iter().map(|peer| (peer, false));
        let mut peers: Vec<(&Network, bool)> = called.chain(callers).collect();
        if peers.is_empty() {
            peers.push((&everybody[0], true));
        }
        let mut rules = Vec::new();
        for (peer, is_called) in peers {
            let copies = copies.filter(|_| hook == Hook::Input && peer.leaves_out_loopback());
            for transport in self.transports(peer, tcp_apart)? {
                let rule = Rule::commented(tag);
                let outside =
                    if peer.leaves_out_loopback() { rule.clone().not_loopback(hook) } else { rule.clone() };
                let mut push = |rule| {
                    rules.push((self.matching(rule, hook, peer, is_called, transport), transport));
                };
                push(outside);
                copies.into_iter().for_each(|bits| push(rule.clone().mark_any(bits)));
            }
        }
        Ok(rules)
    }

    /// The transports that need a rule each; `None` is all of them in one rule.
    fn transports(&self, peer: &Network, tcp_apart: bool) -> Result<Vec<Option<u8>>, Refusal> {
        let ports = peer.ports.is_some() || self.whom.has_ports();
        Ok(match self.protocol {
            Protocol::Any if ports => vec![Some(TCP), Some(UDP)],
            Protocol::Any if tcp_apart => vec![Some(TCP), None],
            Protocol::Any => vec![None],
            Protocol::Tcp => vec![Some(TCP)],
            Protocol::Udp => vec![Some(UDP)],
            Protocol::Icmp if ports => {
                return Err(Refusal::new(
                    "ICMP has no ports",
                    "leave the port out, or choose another protocol",
                ));
            }
            Protocol::Icmp => match peer.network {
                Some((IpAddr::V4(_), _)) => vec![Some(ICMP)],
                Some((IpAddr::V6(_), _)) => vec![Some(ICMPV6)],
                None => vec![Some(ICMP), Some(ICMPV6)],
            },
        })
    }

    fn matching(
        &self,
        rule: Rule,
        hook: Hook,
        peer: &Network,
        is_called: bool,
        transport: Option<u8>,
    ) -> Rule {
        let (remote, local) = ends(hook);
        let mut rule = rule;
        if let Some((address, bits)) = peer.network {
            rule = rule.network(remote, address, bits);
        }
        match transport {
            Some(ICMP) => rule = rule.family(IPV4).transport(ICMP),
            Some(ICMPV6) => rule = rule.family(IPV6).transport(ICMPV6),
            Some(protocol) => rule = rule.transport(protocol),
            None => {}
        }
        if let Some(Ports { first, last }) = peer.ports {
            rule = rule.ports(if is_called { remote } else { local }, first, last);
        }
        self.whom.narrow(rule, hook, local)
    }
}

/// The hooks at which packets of a direction are met.
pub fn hooks(direction: Direction) -> &'static [Hook] {
    match direction {
        Direction::Both => &[Hook::Output, Hook::Input],
        Direction::Egress => &[Hook::Output],
        Direction::Ingress => &[Hook::Input],
    }
}

/// The remote and the local end of a packet at a hook.
fn ends(hook: Hook) -> (End, End) {
    match hook {
        Hook::Output => (End::Destination, End::Source),
        Hook::Input => (End::Source, End::Destination),
    }
}

/// What no injection may touch.
pub fn carve_outs(aim: &Aim<'_>) -> Vec<(Hook, Rule)> {
    let mut rules = Vec::new();
    let commented = |what: &str| Rule::commented(format!("squall: never touched: {what}"));
    for hook in [Hook::Input, Hook::Output] {
        let (remote, local) = ends(hook);
        rules.push((hook, commented("neighbour discovery").icmpv6_types(133, 137)));
        for (first, last) in [(67, 68), (546, 547)] {
            rules.push((hook, commented("DHCP").transport(UDP).ports(local, first, last)));
        }
        for port in aim.login_ports() {
            rules.push((hook, commented("remote login").transport(TCP).ports(local, *port, *port)));
        }
        for peer in &aim.policy.protect_addresses {
            let PeerHost::Net(address, bits) = peer.host else {
                continue;
            };
            let rule = commented("the host's policy").network(remote, address, bits);
            match peer.ports {
                None => rules.push((hook, rule)),
                Some(Ports { first, last }) => {
                    for protocol in [TCP, UDP] {
                        rules.push((hook, rule.clone().transport(protocol).ports(remote, first, last)));
                    }
                }
            }
        }
    }
    rules
}

#[cfg(test)]
mod tests {
    use squall_experiments::peer::Peer;

    use super::*;

    fn packets(protocol: Protocol, peers: &[&str], whom: Whom) -> Packets {
        let network = |text: &&str| {
            let peer: Peer = text.parse().unwrap();
            let network = match peer.host {
                PeerHost::Net(address, bits) => Some((address, bits)),
                _ => None,
            };
            Network { network, ports: peer.ports, name: None }
        };
        let to = peers.iter().map(network).collect();
        let (targets, notes) = (Vec::new(), Vec::new());
        Packets { targets, notes, whom, protocol, to, from: Vec::new() }
    }

    #[test]
    fn ports_and_resets_need_a_rule_per_transport() {
        use Protocol::{Any, Icmp, Tcp};
        let count = |protocol, tcp_apart, peers: &[&str], whom| {
            packets(protocol, peers, whom).rules(Hook::Output, "tag", tcp_apart, None).unwrap().len()
        };
        assert_eq!(count(Any, false, &["10.0.0.1"], Whom::everybody()), 1);
        assert_eq!(count(Any, false, &["10.0.0.1:80"], Whom::everybody()), 2);
        assert_eq!(count(Any, true, &["10.0.0.1"], Whom::everybody()), 2);
        assert_eq!(count(Tcp, false, &["10.0.0.1:80", "::1"], Whom::everybody()), 2);
        assert_eq!(count(Icmp, false, &["any"], Whom::everybody()), 2);
        assert_eq!(count(Any, false, &[], Whom::everybody()), 1);
    }

    #[test]
    fn copies_are_asked_for_where_loopback_is_left_out() {
        let count = |hook, peer: &str| {
            packets(Protocol::Any, &[peer], Whom::everybody())
                .rules(hook, "tag", false, Some(0xf))
                .unwrap()
                .len()
        };
        assert_eq!(count(Hook::Input, "any:80"), 4);
        assert_eq!(count(Hook::Input, "10.0.0.1:80"), 2, "a named address is met wherever it comes from");
        assert_eq!(count(Hook::Output, "any:80"), 2);
    }

    #[test]
    fn icmp_with_a_port_is_refused() {
        let packets = packets(Protocol::Icmp, &[], Whom::local_ports("80".parse().unwrap()));
        assert!(packets.rules(Hook::Input, "tag", false, None).is_err());
    }
}
