//! Whether two flows have packets in common, and by which of their words.
//!
//! Decided from what is written; what only a host can tell (whose addresses a name has, which processes belong to a
//! scope) is for the caller to fill in or to say.

use std::fmt;
use std::net::IpAddr;

use crate::flow::{Flow, Protocol};
use crate::peer::{Peer, PeerHost, Ports, masked};
use crate::scope::Scope;

/// Below this number ports are those of services: systems take the port that they call from above it. Source:
/// `net.ipv4.ip_local_port_range` of Linux; RFC 6335 has 49152.
const CALLED_FROM: u16 = 32768;

/// What two flows have in common: the words of each that let a packet belong to both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meeting {
    peers: [String; 2],
    scopes: Option<[String; 2]>,
}

/// Whether no socket belongs to both scopes.
pub type Apart<'a> = &'a dyn Fn(&Scope, &Scope) -> bool;

/// A peer of a flow, in its sense; none is everybody.
#[derive(Clone, Copy)]
struct Member<'a>(&'static str, Option<&'a Peer>);

/// Packets with an end there at these ports.
#[derive(Clone, Copy)]
struct Region<'a> {
    host: &'a PeerHost,
    remote: Option<Ports>,
    local: Option<Ports>,
}

impl Flow {
    /// What both flows concern; `None` where no packet belongs to both.
    ///
    /// Who is called (`to`) and who calls (`from`) at different ports of services are told apart although a connection
    /// from the one port to the other would belong to both.
    pub fn meets(&self, other: &Flow, apart: Apart<'_>) -> Option<Meeting> {
        self.meet_where(other, apart, |_| true)
    }

    /// The same for packets that leave and enter again: those of loopback.
    pub fn meets_over_loopback(&self, other: &Flow, apart: Apart<'_>) -> Option<Meeting> {
        let lo = |flow: &Flow| matches!(&flow.scope, Some(Scope::Interface(name)) if name == "lo");
        let all = lo(self) || lo(other);
        self.meet_where(other, apart, |region| all || is_loopback(region.host))
    }

    fn meet_where(
        &self,
        other: &Flow,
        apart: Apart<'_>,
        counts: impl Fn(&Region<'_>) -> bool,
    ) -> Option<Meeting> {
        let protocol = match (self.protocol, other.protocol) {
            (Protocol::Any, one) | (one, Protocol::Any) => one,
            (a, b) if a == b => a,
            _ => return None,
        };
        let meet = |mine: &Member<'_>, theirs: &Member<'_>| {
            common((self, *mine), (other, *theirs)).is_some_and(|region| {
                let ports = region.remote.is_some() || region.local.is_some();
                counts(&region) && !(ports && protocol == Protocol::Icmp)
            })
        };
        let (mine, all) = (members(self), members(other));
        let peers = mine.iter().find_map(|mine| {
            let theirs = all.iter().find(|theirs| meet(mine, theirs))?;
            Some([*mine, *theirs])
        })?;
        let scopes = match (&self.scope, &other.scope) {
            (Some(mine), Some(theirs)) if apart(mine, theirs) => return None,
            (None, None) => None,
            (mine, theirs) if mine == theirs => None,
            (mine, theirs) => Some([mine, theirs].map(|scope| {
                scope.as_ref().map_or_else(|| "everybody".to_owned(), |scope| format!("`in: {scope}`"))
            })),
        };
        Some(Meeting { peers: peers.map(|member| member.to_string()), scopes })
    }
}

impl Scope {
    /// Whether no socket belongs to both, as far as it can be known without looking at a host.
    pub fn apart(&self, other: &Scope) -> bool {
        let number = |user: &String| user.parse::<u32>();
        match (self, other) {
            (Scope::Port(a), Scope::Port(b)) => shared(Some(*a), Some(*b)).is_none(),
            (Scope::User(a), Scope::User(b)) => a != b && number(a).is_ok() == number(b).is_ok(),
            (Scope::Interface(a), Scope::Interface(b)) => a != b,
            (Scope::Cgroup(a), Scope::Cgroup(b)) => !holds(a, b) && !holds(b, a),
            (Scope::Process(a), Scope::Process(b)) => a.pid.zip(b.pid).is_some_and(|(a, b)| a != b),
            _ => false,
        }
    }
}

/// Whether a control group is another one, or above it.
fn holds(above: &str, path: &str) -> bool {
    let mut names = path.trim_matches('/').split('/');
    above.trim_matches('/').split('/').all(|name| names.next() == Some(name))
}

fn members(flow: &Flow) -> Vec<Member<'_>> {
    let to = flow.to.iter().map(|peer| Member("to", Some(peer)));
    let from = flow.from.iter().map(|peer| Member("from", Some(peer)));
    let all: Vec<_> = to.chain(from).collect();
    if all.is_empty() { vec![Member("", None)] } else { all }
}

/// The packets that belong to both members and are left out of neither flow.
fn common<'a>(mine: (&Flow, Member<'a>), theirs: (&Flow, Member<'a>)) -> Option<Region<'a>> {
    let (a, b) = (region(mine)?, region(theirs)?);
    let region = Region {
        host: narrower(a.host, b.host)?,
        remote: shared(a.remote, b.remote)?,
        local: shared(a.local, b.local)?,
    };
    let (Member(mine_in, _), Member(theirs_in, _)) = (mine.1, theirs.1);
    if matches!((mine_in, theirs_in), ("to", "from") | ("from", "to"))
        && let (Some(called), Some(here)) = (region.remote, region.local)
        && called.last.max(here.last) < CALLED_FROM
        && (called.last < here.first || here.last < called.first)
    {
        return None;
    }
    let spared = |(flow, Member(sense, _)): (&Flow, Member<'_>)| {
        flow.except.iter().any(|except| spares(except, sense, &region))
    };
    (!spared(mine) && !spared(theirs)).then_some(region)
}

/// What a member concerns; nothing where its scope has other ports.
fn region<'a>((flow, Member(sense, peer)): (&Flow, Member<'a>)) -> Option<Region<'a>> {
    let scope = match &flow.scope {
        Some(Scope::Port(ports)) => Some(*ports),
        _ => None,
    };
    let ports = peer.and_then(|peer| peer.ports);
    let (remote, local) = if sense == "from" { (None, ports) } else { (ports, None) };
    let host = peer.map_or(&PeerHost::Any, |peer| &peer.host);
    Some(Region { host, remote, local: shared(local, scope)? })
}

/// The ports in both, of which none is all; `None` where there are none.
fn shared(a: Option<Ports>, b: Option<Ports>) -> Option<Option<Ports>> {
    let (Some(one), Some(two)) = (a, b) else { return Some(a.or(b)) };
    let (first, last) = (one.first.max(two.first), one.last.min(two.last));
    (first <= last).then_some(Some(Ports { first, last }))
}

/// The addresses of both. A name is somewhere in everything: it is not resolved here.
fn narrower<'a>(a: &'a PeerHost, b: &'a PeerHost) -> Option<&'a PeerHost> {
    match (a, b) {
        (PeerHost::Net(one, one_bits), PeerHost::Net(two, two_bits)) => {
            let bits = *one_bits.min(two_bits);
            let meet = one.is_ipv4() == two.is_ipv4() && masked(*one, bits) == masked(*two, bits);
            meet.then_some(if one_bits < two_bits { b } else { a })
        }
        (PeerHost::Any, host) | (host, PeerHost::Any | PeerHost::Net(..)) => Some(host),
        (_, host) => Some(host),
    }
}

/// Whether an exception leaves out all of a region.
fn spares(except: &Peer, sense: &str, region: &Region<'_>) -> bool {
    let host = match (&except.host, region.host) {
        (PeerHost::Any, _) => true,
        (PeerHost::Net(network, bits), PeerHost::Net(address, longer)) => {
            network.is_ipv4() == address.is_ipv4() && bits <= longer && masked(*address, *bits) == *network
        }
        (PeerHost::Name(a), PeerHost::Name(b)) => a == b,
        _ => false,
    };
    let within = |ports: Option<Ports>| {
        except.ports.is_none_or(|all| ports.is_some_and(|one| all.first <= one.first && one.last <= all.last))
    };
    let ports = match sense {
        "to" => within(region.remote),
        "from" => within(region.local),
        _ => within(region.remote) || within(region.local),
    };
    host && ports
}

fn is_loopback(host: &PeerHost) -> bool {
    match host {
        PeerHost::Net(address, bits) => {
            let holds = |bits| masked(IpAddr::from([127, 0, 0, 1]), bits) == *address;
            address.is_loopback() || (address.is_ipv4() && (1..8).contains(bits) && holds(*bits))
        }
        PeerHost::Name(name) => name == "localhost",
        PeerHost::Any => false,
    }
}

impl fmt::Display for Member<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Member(sense, Some(peer)) => write!(f, "`{sense}: {peer}`"),
            Member(_, None) => f.write_str("all peers"),
        }
    }
}

impl fmt::Display for Meeting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [mine, theirs] = &self.peers;
        if mine == theirs {
            write!(f, "both concern {mine}")?;
        } else {
            write!(f, "{mine} and {theirs} have packets in common")?;
        }
        match &self.scopes {
            None => Ok(()),
            Some([mine, theirs]) => write!(f, ", and {mine} and {theirs} may have the same sockets"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(to: &[&str], from: &[&str], except: &[&str]) -> Flow {
        let peers = |list: &[&str]| list.iter().map(|peer| peer.parse().unwrap()).collect();
        Flow { to: peers(to), from: peers(from), except: peers(except), ..Flow::default() }
    }

    fn within(scope: Scope, flow: Flow) -> Flow {
        Flow { scope: Some(scope), ..flow }
    }

    fn said(a: &Flow, b: &Flow) -> Option<String> {
        let said = a.meets(b, &Scope::apart).map(|meeting| meeting.to_string());
        assert_eq!(said.is_some(), b.meets(a, &Scope::apart).is_some(), "{a} | {b}");
        said
    }

    #[test]
    fn it_is_said_which_peers_meet() {
        let to = |peers: &[&str]| flow(peers, &[], &[]);
        assert_eq!(said(&to(&["10.0.0.7"]), &to(&["10.0.0.7"])).unwrap(), "both concern `to: 10.0.0.7`");
        assert_eq!(
            said(&to(&["10.1.0.0/16", "10.0.0.7:1"]), &to(&["10.0.0.0/24"])).unwrap(),
            "`to: 10.0.0.7:1` and `to: 10.0.0.0/24` have packets in common"
        );
        assert_eq!(
            said(&to(&["10.0.0.7"]), &to(&[])).unwrap(),
            "`to: 10.0.0.7` and all peers have packets in common"
        );
        assert_eq!(said(&to(&["10.0.0.7:1"]), &to(&["10.0.0.7:2", "10.0.0.8", "any:3-9"])), None);
        assert_eq!(said(&to(&["10.0.0.0/8"]), &to(&["fd00::/8"])), None);
        assert!(said(&to(&["db:1"]), &to(&["10.0.0.8"])).is_some(), "a name may be anybody");
        assert_eq!(said(&to(&["db:1"]), &to(&["cache:2"])), None);
    }

    #[test]
    fn who_is_called_and_who_calls_meet_where_both_ends_can_be_theirs() {
        let (to, from) = (|peer: &str| flow(&[peer], &[], &[]), |peer: &str| flow(&[], &[peer], &[]));
        assert_eq!(said(&to("any:5432"), &from("any:8080")), None, "each of them is a service's");
        assert!(said(&to("any:53"), &from("any:53")).is_some(), "servers of names call each other so");
        assert!(
            said(&to("any:1-65535"), &from("any:8080")).is_some(),
            "whoever calls 8080 does so from one of them"
        );
        assert!(said(&to("10.0.0.1"), &from("any:8080")).is_some(), "10.0.0.1 may call 8080");
        assert_eq!(said(&to("10.0.0.1"), &from("10.0.0.2:8080")), None);
    }

    #[test]
    fn what_one_leaves_out_the_other_may_have() {
        let all_but = |except: &str| flow(&["10.0.0.0/8"], &[], &[except]);
        assert_eq!(said(&all_but("10.0.0.7"), &flow(&["10.0.0.7:443"], &[], &[])), None);
        assert_eq!(said(&all_but("10.0.0.7:443"), &flow(&["10.0.0.7:443"], &[], &[])), None);
        assert!(said(&all_but("10.0.0.7:443"), &flow(&["10.0.0.7"], &[], &[])).is_some(), "the other ports");
        assert!(said(&all_but("10.0.0.7"), &flow(&["10.0.0.0/24"], &[], &[])).is_some());
        // An exception of a caller's is about local ports.
        assert!(
            said(&flow(&[], &["any"], &["any:22"]), &flow(&["10.0.0.7:22"], &[], &[])).is_some(),
            "22 of the other host is not 22 here"
        );
        assert_eq!(said(&flow(&[], &[], &["10.0.0.7"]), &flow(&["10.0.0.7"], &[], &[])), None);
    }

    #[test]
    fn scopes_that_share_no_socket_tell_them_apart() {
        let user = |name: &str| Scope::User(name.into());
        let group = |path: &str| Scope::Cgroup(path.into());
        let port = |ports: &str| Scope::Port(ports.parse().unwrap());
        let everybody = || flow(&[], &[], &[]);
        let meet = |a: Scope, b: Scope| said(&within(a, everybody()), &within(b, everybody())).is_some();
        assert!(!meet(user("a"), user("b")) && meet(user("a"), user("a")));
        assert!(meet(user("root"), user("0")), "it may be the same one");
        assert!(!meet(group("a.slice/b.service"), group("a.slice/c.service")));
        assert!(!meet(group("a.slice/b"), group("a.slice/bc")), "a name is whole");
        assert!(meet(group("/a.slice/"), group("a.slice/c.service")));
        assert!(!meet(port("80"), port("81-90")) && meet(port("80-85"), port("81-90")));
        assert!(!meet(Scope::Interface("a".into()), Scope::Interface("b".into())));
        assert_eq!(
            said(&within(user("a"), everybody()), &within(group("b"), everybody())).unwrap(),
            "both concern all peers, and `in: user a` and `in: cgroup b` may have the same sockets"
        );
        let called_at = |port: &str| flow(&[], &[port], &[]);
        assert_eq!(said(&within(port("8080"), everybody()), &called_at("any:80")), None, "both are local");
    }

    #[test]
    fn what_has_no_ports_is_not_what_has() {
        let icmp = Flow { protocol: Protocol::Icmp, ..flow(&["10.0.0.7"], &[], &[]) };
        assert_eq!(said(&icmp, &flow(&["10.0.0.7:443"], &[], &[])), None);
        assert!(said(&icmp, &flow(&["10.0.0.0/8"], &[], &[])).is_some());
    }

    #[test]
    fn what_leaves_and_enters_again_is_loopbacks() {
        let meet = |a: &Flow, b: &Flow| a.meets_over_loopback(b, &Scope::apart).is_some();
        let to = |peer: &str| flow(&[peer], &[], &[]);
        assert!(!meet(&to("10.0.0.7"), &to("10.0.0.7")) && !meet(&to("any"), &to("any")));
        assert!(meet(&to("127.0.0.1:80"), &to("127.0.0.0/8")) && meet(&to("::1"), &to("::1")));
        let lo = || within(Scope::Interface("lo".into()), flow(&[], &[], &[]));
        assert!(meet(&lo(), &lo()));
    }
}
