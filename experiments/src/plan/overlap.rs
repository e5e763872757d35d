//! Faults that would hit what looks at the system, or each other: said before the run, decided by the reader.

use super::{Plan, PlanStep};
use crate::change::{Change, Claim};
use crate::experiment::Experiment;
use crate::flow::{Direction, Flow, Protocol};
use crate::peer::{Peer, PeerHost, Ports, masked};
use crate::probe::Hypothesis;
use crate::url::HttpUrl;

/// A line for each thing that the reader should know.
pub(super) fn warnings(experiment: &Experiment, steps: &[PlanStep]) -> Vec<String> {
    let mut found = Vec::new();
    let looked_at: Vec<(&Hypothesis, Peer)> = experiment
        .hypothesis
        .iter()
        .chain(&experiment.stop_when)
        .filter_map(|claim| Some((claim, peer(claim)?)))
        .collect();
    for step in steps {
        let together = match step {
            PlanStep::Parallel(children) => children.as_slice(),
            single => std::slice::from_ref(single),
        };
        for step in together {
            for (claim, peer) in looked_at.iter().filter(|(_, peer)| hits_probe(step, peer)) {
                found.push(format!(
                    "part {} would also hit the probe of `{}` ({peer}): its samples then show the fault itself, \
                     not how the system copes",
                    part(step),
                    claim.name,
                ));
            }
        }
        for step in together {
            for caution in changes(step).iter().flat_map(Change::cautions) {
                found.push(format!("part {}: {caution}", part(step)));
            }
        }
        for (index, first) in together.iter().enumerate() {
            for second in together[index + 1..].iter().filter(|second| collide(first, second)) {
                found.push(format!(
                    "parts {} and {} run at the same time and may want the same traffic or processes: the agent then \
                     refuses the second",
                    part(first),
                    part(second),
                ));
            }
        }
    }
    found
}

fn part(step: &PlanStep) -> u32 {
    match step {
        PlanStep::Fault { part, .. } => *part,
        _ => 0,
    }
}

fn changes(step: &PlanStep) -> &[Change] {
    match step {
        PlanStep::Fault { changes, .. } => changes,
        _ => &[],
    }
}

fn collide(first: &PlanStep, second: &PlanStep) -> bool {
    changes(first)
        .iter()
        .flat_map(Change::claims)
        .any(|first| changes(second).iter().flat_map(Change::claims).any(|second| first.collides(&second)))
}

/// What a plan wants for itself while others run: shaped packets too, which one run may shape several times over.
pub(super) fn wanted(plan: &Plan) -> impl Iterator<Item = Claim> {
    plan.changes().flat_map(|change| match change {
        Change::Shape(shape) => vec![Claim::Packets(shape.flow.clone(), shape.direction)],
        other => other.claims(),
    })
}

/// Whether two runs may be after the same thing. Scopes that are written differently may mean the same processes.
pub(super) fn meet(mine: &Claim, theirs: &Claim) -> bool {
    match (mine, theirs) {
        (
            Claim::Packets(a, _) | Claim::Sockets(a) | Claim::Connections(a),
            Claim::Packets(b, _) | Claim::Sockets(b) | Claim::Connections(b),
        ) => a.overlaps(b),
        (Claim::Processes(_), Claim::Processes(_)) => true,
        _ => false,
    }
}

/// Whom a probe connects to; a program may connect to anybody, and nothing is said about it.
fn peer(claim: &Hypothesis) -> Option<Peer> {
    let url = claim.http.as_ref().map(|http| &http.url).or(claim.load.as_ref().map(|load| &load.url));
    match (url, &claim.tcp) {
        (Some(url), _) => url.parse::<HttpUrl>().ok().map(|url| url.peer()),
        (_, Some(tcp)) => tcp.address.parse().ok(),
        _ => None,
    }
}

fn hits_probe(step: &PlanStep, probe: &Peer) -> bool {
    changes(step).iter().any(|change| match change {
        Change::Block(block) => flow_hits(&block.flow, block.direction, probe),
        Change::Shape(shape) => flow_hits(&shape.flow, shape.direction, probe),
        Change::Redirect(redirect) => flow_hits(&redirect.flow, Direction::Egress, probe),
        Change::Disconnect(disconnect) => flow_hits(&disconnect.flow, Direction::Both, probe),
        Change::Signal(_) | Change::Pause(_) => false,
    })
}

/// A probe leaves this host towards its peer; where the peer is this host itself, it also arrives there.
fn flow_hits(flow: &Flow, direction: Direction, probe: &Peer) -> bool {
    if !matches!(flow.protocol, Protocol::Any | Protocol::Tcp) {
        return false;
    }
    if flow.except.iter().any(|except| spares(except, probe)) {
        return false;
    }
    let called = flow.scope.is_none() && flow.to.iter().any(|to| covers(to, probe));
    let home = is_loopback(&probe.host);
    let calls = home && direction != Direction::Egress && flow.from.iter().any(|from| covers(from, probe));
    called || calls
}

/// `to` has the peer's port and `from` the local one: where a probe looks at its own host they are the same port, and
/// it comes from the address that it goes to.
fn covers(peer: &Peer, probe: &Peer) -> bool {
    ports_meet(peer.ports, probe.ports) && host_covers(&peer.host, &probe.host)
}

/// Whether the whole probe is left out.
fn spares(except: &Peer, probe: &Peer) -> bool {
    let ports = except.ports.is_none_or(|except| {
        probe.ports.is_some_and(|ports| except.first <= ports.first && ports.last <= except.last)
    });
    ports && (except.host == PeerHost::Any || host_covers(&except.host, &probe.host))
}

fn ports_meet(a: Option<Ports>, b: Option<Ports>) -> bool {
    a.zip(b).is_none_or(|(a, b)| a.first <= b.last && b.first <= a.last)
}

/// Loopback belongs to a peer only where it is named: `any` and the network of all addresses leave it out.
fn host_covers(host: &PeerHost, probe: &PeerHost) -> bool {
    match (host, probe) {
        (PeerHost::Any, probe) => !is_loopback(probe),
        (PeerHost::Net(_, 0), probe) if is_loopback(probe) => false,
        (PeerHost::Net(network, bits), PeerHost::Net(address, _)) => {
            network.is_ipv4() == address.is_ipv4() && masked(*address, *bits) == *network
        }
        (PeerHost::Net(network, _), PeerHost::Name(name)) => name == "localhost" && network.is_loopback(),
        (PeerHost::Name(name), PeerHost::Net(address, _)) => name == "localhost" && address.is_loopback(),
        (PeerHost::Name(a), PeerHost::Name(b)) => a == b,
        (_, PeerHost::Any) => false,
    }
}

fn is_loopback(host: &PeerHost) -> bool {
    match host {
        PeerHost::Net(address, _) => address.is_loopback(),
        PeerHost::Name(name) => name == "localhost",
        PeerHost::Any => false,
    }
}
