//! Blocking packets: a flow becomes rules in Squall's own table.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use squall_experiments::change::{Block, Verdict};
use squall_experiments::evidence::{Evidence, Unit};
use squall_experiments::flow::{Direction, Protocol};
use squall_experiments::peer::{Peer, PeerHost, Ports};
use squall_experiments::protocol::Refusal;
use squall_experiments::scope::Scope;

use super::aim::Aim;
use super::mark::{self, Whose};
use super::nft::{End, Hook, IPV4, IPV6, Reject, Rule};
use super::process::{Cgroup, Processes, uid_of};
use super::table::Table;

/// A block that has been looked at.
#[derive(Debug)]
pub struct Prepared {
    /// What is aimed at, for the report.
    pub targets: Vec<String>,
    /// What the reader must know.
    pub notes: Vec<String>,
    /// The scope's mark, where it needs one.
    pub mark: Option<mark::Prepared>,
    rules: Vec<(Hook, Rule)>,
}

/// Whose packets: a condition that every rule gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whom {
    Everybody,
    LocalPorts(Ports),
    Cgroup { level: u32, id: u64 },
    Marked(u32),
}

/// Looks at the host and writes the rules. Changes nothing.
pub fn prepare(block: &Block, tag: &str, aim: &Aim<'_>, marks: &BTreeSet<u32>) -> Result<Prepared, Refusal> {
    let mut targets = Vec::new();
    let mut notes = Vec::new();
    let mut mark = None;
    let whom = match &block.flow.scope {
        None => Whom::Everybody,
        Some(Scope::Port(ports)) => Whom::LocalPorts(*ports),
        Some(Scope::Cgroup(path)) => {
            let cgroup = Cgroup::find(path)?;
            notes.push(
                "a cgroup's traffic is that of sockets created in it, wherever their processes are now"
                    .into(),
            );
            Whom::Cgroup { level: cgroup.level, id: cgroup.id }
        }
        Some(scope @ Scope::Process(_)) => {
            let chosen = aim.processes(&Processes::here()?, scope)?;
            targets.extend(chosen.targets.iter().map(ToString::to_string));
            notes.extend(chosen.notes);
            notes.push("processes that these start later are not covered".into());
            let prepared = mark::prepare(Whose::Processes(chosen.targets), marks)?;
            Whom::Marked(mark.insert(prepared).bit)
        }
        Some(Scope::User(user)) => {
            let prepared = mark::prepare(Whose::User(uid_of(user)?), marks)?;
            targets.push(format!("sockets of user {user}"));
            Whom::Marked(mark.insert(prepared).bit)
        }
    };
    notes.extend(mark.iter().flat_map(|mark| mark.notes.clone()));
    let to = aim.networks(&block.flow.to)?;
    let from = aim.networks(&block.flow.from)?;
    targets.extend(to.iter().chain(&from).map(|network| network.to_string()));
    let rules = rules(block, tag, &to, &from, whom)?;
    if to.iter().chain(&from).any(Network::leaves_out_loopback) || (to.is_empty() && from.is_empty()) {
        notes.push("loopback is left out: name its addresses to include it".into());
    }
    Ok(Prepared { targets, notes, mark, rules })
}

/// A peer after names have been resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// The network; `None` is every address.
    pub network: Option<(IpAddr, u8)>,
    /// Which ports.
    pub ports: Option<Ports>,
    /// The name that was resolved.
    pub name: Option<String>,
}

impl Network {
    /// Everything contains loopback without naming it.
    pub fn leaves_out_loopback(&self) -> bool {
        self.network.is_none_or(|(_, bits)| bits == 0)
    }
}

impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let host = self.network.map_or(PeerHost::Any, |(address, bits)| PeerHost::Net(address, bits));
        write!(f, "{}", Peer { host, ports: self.ports })?;
        self.name.as_ref().map_or(Ok(()), |name| write!(f, " ({name})"))
    }
}

fn rules(
    block: &Block,
    tag: &str,
    to: &[Network],
    from: &[Network],
    whom: Whom,
) -> Result<Vec<(Hook, Rule)>, Refusal> {
    let hooks: &[Hook] = match block.direction {
        Direction::Both => &[Hook::Output, Hook::Input],
        Direction::Egress => &[Hook::Output],
        Direction::Ingress => &[Hook::Input],
    };
    let everybody = [Network { network: None, ports: None, name: None }];
    let called = to.iter().map(|peer| (peer, true));
    let callers = from.iter().map(|peer| (peer, false));
    let mut peers: Vec<(&Network, bool)> = called.chain(callers).collect();
    if peers.is_empty() {
        peers.push((&everybody[0], true));
    }
    let mut rules = Vec::new();
    for hook in hooks {
        for (peer, is_called) in &peers {
            for transport in transports(block, peer, whom)? {
                let rule = matching(Rule::commented(tag), *hook, peer, *is_called, transport, whom);
                rules.push((*hook, condemn(rule.counter(), block.verdict, transport)));
            }
        }
    }
    Ok(rules)
}

/// The transports that need a rule each; `None` is all of them in one rule.
fn transports(block: &Block, peer: &Network, whom: Whom) -> Result<Vec<Option<u8>>, Refusal> {
    let ports = peer.ports.is_some() || matches!(whom, Whom::LocalPorts(_));
    let reset = block.verdict == Verdict::Reset;
    Ok(match block.flow.protocol {
        Protocol::Any if ports => vec![Some(6), Some(17)],
        Protocol::Any if reset => vec![Some(6), None],
        Protocol::Any => vec![None],
        Protocol::Tcp => vec![Some(6)],
        Protocol::Udp => vec![Some(17)],
        Protocol::Icmp if ports => {
            return Err(Refusal::new("ICMP has no ports", "leave the port out, or choose another protocol"));
        }
        Protocol::Icmp => match peer.network {
            Some((IpAddr::V4(_), _)) => vec![Some(1)],
            Some((IpAddr::V6(_), _)) => vec![Some(58)],
            None => vec![Some(1), Some(58)],
        },
    })
}

fn matching(
    rule: Rule,
    hook: Hook,
    peer: &Network,
    is_called: bool,
    transport: Option<u8>,
    whom: Whom,
) -> Rule {
    let (remote, local) = match hook {
        Hook::Output => (End::Destination, End::Source),
        Hook::Input => (End::Source, End::Destination),
    };
    let mut rule = rule;
    if peer.leaves_out_loopback() {
        rule = rule.not_loopback(hook);
    }
    if let Some((address, bits)) = peer.network {
        rule = rule.network(remote, address, bits);
    }
    match transport {
        Some(1) => rule = rule.family(IPV4).transport(1),
        Some(58) => rule = rule.family(IPV6).transport(58),
        Some(protocol) => rule = rule.transport(protocol),
        None => {}
    }
    if let Some(Ports { first, last }) = peer.ports {
        rule = rule.ports(if is_called { remote } else { local }, first, last);
    }
    match whom {
        Whom::Everybody => rule,
        Whom::LocalPorts(Ports { first, last }) => rule.ports(local, first, last),
        Whom::Cgroup { level, id } => rule.cgroup(level, id),
        Whom::Marked(bit) => rule.socket_mark(bit),
    }
}

fn condemn(rule: Rule, verdict: Verdict, transport: Option<u8>) -> Rule {
    match verdict {
        Verdict::Drop => rule.drop(),
        Verdict::Reset if transport == Some(6) => rule.reject(Reject::TcpReset),
        Verdict::Reset | Verdict::PortUnreachable => rule.reject(Reject::PortUnreachable),
        Verdict::HostUnreachable => rule.reject(Reject::HostUnreachable),
        Verdict::AdminProhibited => rule.reject(Reject::AdminProhibited),
    }
}

/// Puts the rules in. The table exists.
pub fn perform(prepared: &mut Prepared, table: &mut Table) -> Result<(), Refusal> {
    let rules = std::mem::take(&mut prepared.rules);
    table.add(rules).map_err(|error| Refusal::bare(format!("cannot add rules to `inet squall`: {error}")))
}

/// What the rules' own counters say.
pub fn observe(table: &mut Table, tag: &str) -> Evidence {
    let rules = table.rules(tag).unwrap_or_default();
    let packets = rules.iter().map(|rule| rule.packets).sum();
    Evidence { unit: Unit::Packets, matched: packets, impaired: packets, ..Evidence::default() }
}

/// What no injection may touch, in the order in which it is accepted.
pub fn carve_outs(aim: &Aim<'_>) -> Vec<(Hook, Rule)> {
    let mut rules = Vec::new();
    let commented = |what: &str| Rule::commented(format!("squall: never touched: {what}"));
    for hook in [Hook::Input, Hook::Output] {
        let (remote, local) = if hook == Hook::Input {
            (End::Source, End::Destination)
        } else {
            (End::Destination, End::Source)
        };
        rules.push((hook, commented("neighbour discovery").icmpv6_types(133, 137)));
        for (first, last) in [(67, 68), (546, 547)] {
            rules.push((hook, commented("DHCP").transport(17).ports(local, first, last)));
        }
        for port in aim.login_ports() {
            rules.push((hook, commented("remote login").transport(6).ports(local, *port, *port)));
        }
        for peer in &aim.policy.protect_addresses {
            let PeerHost::Net(address, bits) = peer.host else {
                continue;
            };
            let rule = commented("the host's policy").network(remote, address, bits);
            match peer.ports {
                None => rules.push((hook, rule)),
                Some(Ports { first, last }) => {
                    for protocol in [6, 17] {
                        rules.push((hook, rule.clone().transport(protocol).ports(remote, first, last)));
                    }
                }
            }
        }
    }
    rules
}

/// The addresses of every name, as resolved for one request.
pub type Resolved = BTreeMap<String, Vec<IpAddr>>;

#[cfg(test)]
mod tests {
    use super::*;

    fn count(
        protocol: Protocol,
        verdict: Verdict,
        direction: Direction,
        peers: &[&str],
        whom: Whom,
    ) -> usize {
        let to: Vec<Network> = peers
            .iter()
            .map(|text| {
                let peer: Peer = text.parse().unwrap();
                let network = match peer.host {
                    PeerHost::Net(address, bits) => Some((address, bits)),
                    _ => None,
                };
                Network { network, ports: peer.ports, name: None }
            })
            .collect();
        let flow = squall_experiments::flow::Flow { to: Vec::new(), from: Vec::new(), protocol, scope: None };
        let block = Block { flow, direction, verdict };
        rules(&block, "tag", &to, &[], whom).unwrap().len()
    }

    #[test]
    fn ports_and_resets_need_a_rule_per_transport() {
        use Direction::{Both, Egress};
        use Protocol::{Any, Icmp, Tcp};
        assert_eq!(count(Any, Verdict::Drop, Both, &["10.0.0.1"], Whom::Everybody), 2);
        assert_eq!(count(Any, Verdict::Drop, Both, &["10.0.0.1:80"], Whom::Everybody), 4);
        assert_eq!(count(Any, Verdict::Reset, Egress, &["10.0.0.1"], Whom::Everybody), 2);
        assert_eq!(count(Tcp, Verdict::Drop, Egress, &["10.0.0.1:80", "::1"], Whom::Everybody), 2);
        assert_eq!(count(Icmp, Verdict::Drop, Egress, &["any"], Whom::Everybody), 2);
        assert_eq!(count(Any, Verdict::Drop, Both, &[], Whom::Marked(1)), 2);
    }

    #[test]
    fn icmp_with_a_port_is_refused() {
        let flow = squall_experiments::flow::Flow {
            to: Vec::new(),
            from: Vec::new(),
            protocol: Protocol::Icmp,
            scope: None,
        };
        let block = Block { flow, direction: Direction::Both, verdict: Verdict::Drop };
        let whom = Whom::LocalPorts("80".parse().unwrap());
        assert!(rules(&block, "tag", &[], &[], whom).is_err());
    }
}
