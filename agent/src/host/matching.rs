//! Which packets: a flow becomes the conditions of rules.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use squall_experiments::evidence::{Evidence, Incident};
use squall_experiments::flow::{Direction, Established, Flow, Protocol};
use squall_experiments::peer::Ports;
use squall_experiments::protocol::Refusal;
use squall_experiments::witness::{Testimony, Verify};

use super::aim::{Aim, Network, News};
use super::netlink::NetlinkError;
use super::nft::{Hook, IPV4, IPV6};
use super::owed::{Owed, Tried};
use super::peers::{Group, Peers, Sense, ends};
use super::reach::Reach;
use super::rule::{Home, Rule};
use super::sockets::Listed;
use super::table::Table;
use super::watch::Watch;
use super::whom::Whom;
use super::{disconnect, kept, mark, sys, witness};

/// TCP's number.
pub const TCP: u8 = 6;
/// UDP's number.
pub const UDP: u8 = 17;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// As many things that happened to targets stand in a report: a unit may restart for hours, several times a second.
const MOST_INCIDENTS: usize = 300;

/// The packets of a flow, on this host as it is now.
#[derive(Debug)]
pub struct Packets {
    /// What is aimed at, for the report.
    pub targets: Vec<String>,
    /// What the reader must know.
    pub notes: Vec<String>,
    /// Whose they are.
    pub whom: Whom,
    pub(super) flow: Flow,
    pub(super) peers: Peers,
    /// That of its rules.
    tag: String,
    /// Connections that are left alone, or reset when it begins.
    connections: Vec<Listed>,
    /// Who is asked whether it is felt.
    witness: Option<witness::Prepared>,
}

/// Packets that rules ask for, while their change is live.
#[derive(Debug)]
pub struct Live {
    /// As they were found, and found again since.
    pub packets: Packets,
    /// New sockets of the scope are marked while this lives.
    mark: Option<mark::Live>,
    witness: Option<witness::Live>,
    began: u64,
    incidents: Vec<Incident>,
    /// Addresses that are meant and not yet in the rules, each with its name.
    outside: Vec<(String, IpAddr)>,
    owed: Owed,
}

impl Live {
    /// The rules are about to be added.
    pub fn new(mut packets: Packets, mark: Option<mark::Live>) -> Self {
        mark.iter().for_each(|mark| packets.whom.begin(mark));
        Live {
            packets,
            mark,
            witness: None,
            began: sys::boot_nanos(),
            incidents: Vec::new(),
            outside: Vec::new(),
            owed: Owed::default(),
        }
    }

    /// Asks whether the effect is felt, where that is wanted. The rules are in.
    pub fn testify(&mut self) {
        let bit = self.packets.whom.mark.as_ref().map_or(0, |mark| mark.bit);
        self.witness = self.packets.witness.take().map(|prepared| prepared.begin(bit));
    }

    /// What was said of that so far.
    pub fn testimony(&mut self) -> Option<Testimony> {
        self.witness.as_mut().map(witness::Live::testimony)
    }

    /// Looks whether targets have moved, and follows them. Called whenever the worker wakes.
    pub fn tick(&mut self, table: &mut Table, aim: &Aim<'_>) {
        let happened = self.packets.whom.follow(table, self.mark.as_mut(), aim);
        happened.into_iter().for_each(|what| self.happened(what));
        if self.owed.is_due() {
            self.fill(|packets| packets.refill(table));
        }
    }

    /// Has the worker woken when something happens to a target.
    pub fn watch(&self, watch: &Watch) -> Result<(), Refusal> {
        let cannot = |error| Refusal::bare(format!("the target cannot be watched: {error}"));
        self.packets.whom.watch(watch).map_err(cannot)
    }

    /// Something has happened.
    pub fn happened(&mut self, what: String) {
        if self.incidents.len() >= MOST_INCIDENTS {
            return;
        }
        let what = match self.incidents.len() + 1 {
            MOST_INCIDENTS => "more has happened than is told here".to_owned(),
            _ => what,
        };
        let after_ms = (sys::boot_nanos() - self.began) / 1_000_000;
        self.incidents.push(Incident { after_ms, what });
    }

    /// A name has been asked again: who is new is met by the rules from now on.
    pub fn hear(&mut self, news: &News, table: &mut Table) {
        self.meet(news, |packets| packets.refill(table));
    }

    fn meet(&mut self, news: &News, refill: impl FnOnce(&Packets) -> Result<(), NetlinkError>) {
        let peers = &mut self.packets.peers;
        if !peers.name(&news.name) {
            return;
        }
        let joined = peers.join(&news.name, &news.addresses);
        self.packets.targets.extend(joined.iter().map(|address| format!("{address} ({})", news.name)));
        news.incidents(&[]).into_iter().for_each(|what| self.happened(what));
        self.outside.extend(joined.into_iter().map(|address| (news.name.clone(), address)));
        if !self.outside.is_empty() {
            self.fill(refill);
        }
    }

    /// Has the rules match all peers. Where that fails it is tried again until it does not.
    fn fill(&mut self, refill: impl FnOnce(&Packets) -> Result<(), NetlinkError>) {
        match self.owed.tried(refill(&self.packets)) {
            Tried::Done => {
                for (name, address) in std::mem::take(&mut self.outside) {
                    self.happened(format!("{name}: {address} joined"));
                }
            }
            Tried::Failed(error) => {
                let names: BTreeSet<&str> = self.outside.iter().map(|(name, _)| name.as_str()).collect();
                let names = names.into_iter().collect::<Vec<_>>().join(", ");
                self.happened(format!(
                    "{names}: an address that joined could not be added yet, it is tried again: {error}"
                ));
            }
            Tried::FailedAgain => {}
        }
    }

    /// Adds what has happened to its targets.
    pub fn tell(&self, evidence: &mut Evidence) {
        evidence.notes.extend(self.mark.iter().flat_map(|mark| mark.notes.iter().cloned()));
        evidence.notes.extend(self.packets.whom.told_later());
        evidence.incidents.extend(self.incidents.iter().cloned());
        evidence.incidents.sort_by_key(|incident| incident.after_ms);
    }

    /// Whose they are now, where those are followed.
    pub fn reach(&self) -> Option<Reach> {
        self.packets.whom.reach(self.mark.as_ref())
    }

    /// When [`Live::tick`] wants to be called at the latest, on the boot clock.
    pub fn due(&self) -> Option<u64> {
        [self.packets.whom.due(), self.owed.due()].into_iter().flatten().min()
    }

    /// No new socket is marked any more, and no probe begun: while the undo takes the marks away none comes.
    pub fn let_go(&mut self) {
        self.mark = None;
        self.witness = None;
    }
}

/// A rule that matches some of the packets, still without saying what happens to them, and their transport where the
/// rule asks for one.
pub type Matching = (Rule, Option<u8>);

impl Packets {
    /// Looks at the host. Changes nothing. `tag` is that of the rules.
    pub fn of(flow: &Flow, tag: &str, aim: &Aim<'_>, marks: &BTreeSet<u32>) -> Result<Self, Refusal> {
        let mut whom = Whom::of(flow.scope.as_ref(), tag, aim, marks)?;
        if flow.verify == Verify::Probe {
            whom.admit_probes(marks, aim)?;
        }
        let (mut targets, mut notes) = (whom.targets.clone(), whom.notes.clone());
        let peers = Peers::of(flow, aim)?;
        targets.extend(peers.shown());
        notes.extend(peers.unreachable_v6());
        if peers.leave_out_loopback() && !whom.by_interface() {
            notes.push("loopback is left out: name its addresses to include it".into());
        }
        let connections = match flow.established {
            Established::Include => {
                notes.extend(
                    included(flow, &whom, aim, &peers).map(|count| format!("included: {}", counted(count))),
                );
                Vec::new()
            }
            // A connection belongs to no interface. To keep those of others too does no harm: their packets do not match.
            Established::Keep if whom.by_interface() => {
                disconnect::established(&Flow { scope: None, ..flow.clone() }, aim, &peers)?
            }
            Established::Keep | Established::Reset => disconnect::established(flow, aim, &peers)?,
        };
        if flow.established == Established::Keep {
            notes.push(format!("left alone: {}", counted(connections.len())));
        }
        let flow = flow.clone();
        Ok(Packets { targets, notes, flow, peers, tag: tag.to_owned(), connections, whom, witness: None })
    }

    /// Puts all peers into the sets of the rules.
    fn refill(&self, table: &mut Table) -> Result<(), NetlinkError> {
        let reach = |sense: &str| {
            let sense = self.peers.senses().into_iter().find(|other| other.word() == sense)?;
            self.peers.reach(sense)
        };
        table.refill(&self.tag, &self.peers.sets(&self.tag), reach)
    }

    /// Who is asked whether it is felt.
    pub fn witnessed(&mut self, witness: Option<witness::Prepared>) {
        self.notes.extend(witness.as_ref().map(witness::Prepared::note));
        self.witness = witness;
    }

    /// The networks of the peers, names resolved; none is everybody.
    pub fn networks(&self) -> impl Iterator<Item = &Network> {
        self.peers.to.iter().chain(&self.peers.from)
    }

    /// Resets what is established, where that is wanted. To be called just before the rules are added: the packet that
    /// tells the other end must still get through.
    pub fn reset(&self) -> Result<Option<String>, Refusal> {
        if self.flow.established != Established::Reset {
            return Ok(None);
        }
        let reset = disconnect::destroy(&self.connections)?;
        Ok(Some(format!("reset: {}", counted(reset as usize))))
    }

    /// The rules that match them at a hook: one per group of peers and transport, as few as possible. With `tcp_apart`, TCP gets
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
        let mut rules = Vec::new();
        for sense in self.peers.senses() {
            let home = Arc::new(self.home(hook, sense, tag));
            for group in self.peers.groups(sense, tag) {
                // An interface says by itself whether it is loopback. By which one the packet of a copy came nobody knows.
                let leaves_out = group.leaves_out_loopback() && !self.whom.by_interface();
                let copies = copies.filter(|_| hook == Hook::Input && leaves_out);
                for transport in self.transports(&group, tcp_apart)? {
                    let rule = Rule::commented(tag).at_home(&home);
                    let outside = if leaves_out { rule.clone().not_loopback(hook) } else { rule.clone() };
                    let mut push = |rule| {
                        let narrowed = self.matching(rule, hook, &group, sense, transport);
                        rules.extend(narrowed.into_iter().map(|rule| (rule, transport)));
                    };
                    push(outside);
                    copies.into_iter().for_each(|bits| push(rule.clone().mark_any(bits)));
                }
            }
        }
        Ok(rules)
    }

    /// What is asked before the rules of a sense, and which addresses they concern.
    fn home(&self, hook: Hook, sense: Sense, tag: &str) -> Home {
        let (remote, _) = ends(hook);
        let mut head = Vec::new();
        for group in self.peers.excepted(tag) {
            let rule = group.narrow(Rule::commented(tag), remote);
            let Some(Ports { first, last }) = group.ports else {
                head.push(rule.leave());
                continue;
            };
            for transport in [TCP, UDP] {
                for end in sense.ports_at(hook) {
                    head.push(rule.clone().transport(transport).ports(end, first, last).leave());
                }
            }
        }
        if self.flow.established == Established::Keep {
            head.extend(kept::rules(&self.connections, hook, tag));
        }
        Home { sense: sense.word(), head, reach: self.peers.reach(sense) }
    }

    /// The transports that need a rule each; `None` is all of them in one rule.
    fn transports(&self, group: &Group, tcp_apart: bool) -> Result<Vec<Option<u8>>, Refusal> {
        let ports = group.ports.is_some() || self.whom.has_ports();
        Ok(match self.flow.protocol {
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
            Protocol::Icmp => match group.family() {
                Some(IPV4) => vec![Some(ICMP)],
                Some(_) => vec![Some(ICMPV6)],
                None => vec![Some(ICMP), Some(ICMPV6)],
            },
        })
    }

    fn matching(
        &self,
        rule: Rule,
        hook: Hook,
        group: &Group,
        sense: Sense,
        transport: Option<u8>,
    ) -> Vec<Rule> {
        let (remote, local) = ends(hook);
        let mut rule = group.narrow(rule, remote);
        match transport {
            Some(ICMP) => rule = rule.family(IPV4).transport(ICMP),
            Some(ICMPV6) => rule = rule.family(IPV6).transport(ICMPV6),
            Some(protocol) => rule = rule.transport(protocol),
            None => {}
        }
        if let Some(Ports { first, last }) = group.ports {
            rule = rule.ports(if sense == Sense::Calling { local } else { remote }, first, last);
        }
        self.whom.narrow(rule, hook, local)
    }
}

/// How many connections are established already that the fault concerns like new ones. Nothing where that cannot be seen:
/// the fault is the same.
fn included(flow: &Flow, whom: &Whom, aim: &Aim<'_>, peers: &Peers) -> Option<usize> {
    if !matches!(flow.protocol, Protocol::Any | Protocol::Tcp) || whom.by_interface() {
        return None;
    }
    disconnect::count(flow, aim, peers)
}

fn counted(connections: usize) -> String {
    let them = if connections == 1 { "connection that was" } else { "connections that were" };
    format!("{connections} {them} established")
}

/// The hooks at which packets of a direction are met.
pub fn hooks(direction: Direction) -> &'static [Hook] {
    match direction {
        Direction::Both => &[Hook::Output, Hook::Input],
        Direction::Egress => &[Hook::Output],
        Direction::Ingress => &[Hook::Input],
    }
}

#[cfg(test)]
mod tests {
    use super::super::peers::tests::networks;
    use super::*;

    fn packets(protocol: Protocol, peers: &[&str], whom: Whom) -> Packets {
        let peers = Peers { to: networks(peers), ..Peers::default() };
        let (targets, notes, connections) = (Vec::new(), Vec::new(), Vec::new());
        Packets {
            targets,
            notes,
            whom,
            flow: Flow { protocol, ..Flow::default() },
            peers,
            tag: "tag".into(),
            connections,
            witness: None,
        }
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
        assert_eq!(count(Any, false, &["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:81"], Whom::everybody()), 4);
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
    fn an_address_that_could_not_join_is_tried_again() {
        let mut packets = packets(Protocol::Any, &["10.0.0.1"], Whom::everybody());
        packets.peers.to.iter_mut().for_each(|network| network.name = Some("db".into()));
        let mut live = Live::new(packets, None);
        let address: IpAddr = "10.0.0.2".parse().unwrap();
        let news = News { name: "db".into(), addresses: vec![address], ..News::default() };
        let told = |live: &Live| live.incidents.iter().map(|one| one.what.clone()).collect::<Vec<_>>();
        live.meet(&news, |_| Err(std::io::Error::other("no room").into()));
        assert!(live.due().is_some(), "it is tried again");
        assert_eq!(told(&live).len(), 1, "{:?}", told(&live));
        // Its name was asked again meanwhile, and nobody is new.
        live.meet(&news, |_| Err(std::io::Error::other("no room").into()));
        assert_eq!(told(&live).len(), 1, "it is said once: {:?}", told(&live));
        let mut filled = false;
        live.fill(|packets| {
            filled = packets.peers.to.iter().any(|network| network.network == Some((address, 32)));
            Ok(())
        });
        assert!(filled, "the address is meant: {:?}", live.packets.peers);
        assert_eq!(told(&live).last().unwrap(), "db: 10.0.0.2 joined");
        assert_eq!(live.due(), None);
        live.meet(&news, |_| panic!("nothing is owed"));
    }

    #[test]
    fn icmp_with_a_port_is_refused() {
        let packets = packets(Protocol::Icmp, &[], Whom::local_ports("80".parse().unwrap()));
        assert!(packets.rules(Hook::Input, "tag", false, None).is_err());
    }
}
